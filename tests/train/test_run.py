"""A run: the same bits whatever stops it, however it is cut; and what is refused."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stackbuild.errors import InputError, StackbuildError, UsageError
from stackbuild.train import loop
from stackbuild.train.checkpoint import Checkpoints
from stackbuild.train.device import OutOfMemory
from stackbuild.train.loop import train
from stackbuild.train.run import Run, open_run, read_config
from tests.train.conftest import Quiet, recipe

Opened = Callable[..., Run]


def state(run: Run) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in run.tensors().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def trained(run: Run, steps: int | None = None) -> Quiet:
    report = Quiet()
    try:
        train(run, steps, report)
    finally:
        run.close()
    return report


# ---------------------------------------------------------------- the same run


def test_the_loss_falls_and_every_step_is_told(opened: Opened) -> None:
    run = opened(recipe(schedule={"steps": 60}))
    report = trained(run)
    losses = [step.loss for step in report.steps]
    assert [step.step for step in report.steps] == list(range(1, 61))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 1
    assert sum(step.labels for step in report.steps) == run.progress.tokens
    assert all(sum(step.by_source.values()) == step.labels for step in report.steps)


@pytest.mark.parametrize("stops", [[5], [1, 4, 9], [11]])
def test_a_run_that_is_stopped_goes_on_bit_for_bit(opened: Opened, stops: list[int]) -> None:
    whole = opened(recipe(), "whole")
    expected = trained(whole)
    found = []
    for steps in [*stops, None]:
        run = opened(recipe())
        found += trained(run, steps).steps
    assert same(state(run), state(whole))
    assert [step.loss for step in found] == [step.loss for step in expected.steps]
    names = sorted(path.name for path in (run.folder / "averages").iterdir())
    assert names == ["window-00000005.safetensors", "window-00000010.safetensors"]
    for name in names:
        assert (run.folder / "averages" / name).read_bytes() == (whole.folder / "averages" / name).read_bytes()


def test_a_checkpoint_holds_no_schedule_and_no_batch_of_the_loader(opened: Opened) -> None:
    run = opened(recipe())
    trained(run)
    told = Checkpoints(run.folder).told(12)
    assert set(told) == {"sample", "tokens", "guard", "stages"}
    assert told["sample"] == 48


def test_micro_batches_change_nothing_but_rounding(opened: Opened) -> None:
    """The loss is summed over all labels of the step, whatever rows they stand in, and divided once."""
    losses = []
    for micro in (1, 2, 3, None):
        run = opened(
            recipe(data={"micro_batch": micro}, model={"embedding_dropout": 0.1, "residual_dropout": 0.1}), f"m{micro}"
        )
        losses.append([step.loss for step in trained(run).steps])
    for other in losses[1:]:
        assert np.allclose(losses[0], other, atol=2e-4)


def test_dropout_is_drawn_by_step_and_sample(opened: Opened) -> None:
    wanted = recipe(model={"embedding_dropout": 0.2, "residual_dropout": 0.2, "attention_dropout": 0.2})
    whole = opened(wanted, "whole")
    trained(whole)
    trained(opened(wanted), 7)
    run = opened(wanted)
    trained(run)
    assert same(state(run), state(whole))


def test_bf16_and_recomputed_layers_are_the_same_run_again(opened: Opened) -> None:
    wanted = recipe(precision="bf16", checkpoint_layers=True)
    runs = [opened(wanted, name) for name in "ab"]
    for run in runs:
        trained(run)
    assert same(state(runs[0]), state(runs[1]))
    plain = opened(recipe(precision="bf16"), "c")
    trained(plain)
    assert same(state(runs[0]), state(plain))


SCRIPT = """
import sys, torch
from pathlib import Path
from stackbuild.train.loop import train
from stackbuild.train.recipe import TrainRecipe
from stackbuild.train.run import open_run
from tests.train.conftest import Quiet
wanted = TrainRecipe.model_validate_json(Path(sys.argv[1]).read_text())
run = open_run(Path(sys.argv[2]), wanted, {"": Path(sys.argv[3])}, torch.device("cpu"), print)
torch.set_num_threads(1)
print("begin", flush=True)
train(run, None, Quiet())
"""


def child(tmp_path: Path, wanted: Any, corpus: Path) -> subprocess.Popen[bytes]:
    (tmp_path / "recipe.json").write_text(wanted.model_dump_json())
    words = [sys.executable, "-c", SCRIPT, str(tmp_path / "recipe.json"), str(tmp_path / "run"), str(corpus)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."})


def killed(tmp_path: Path, opened: Opened, corpus: Path, wanted: Any, kills: int, longest: float) -> None:
    whole = opened(wanted, "whole")
    trained(whole)
    rng = random.Random(5)
    for _ in range(kills):
        process = child(tmp_path, wanted, corpus)
        assert process.stdout is not None
        while process.stdout.readline() not in (b"begin\n", b""):
            pass
        time.sleep(rng.uniform(0, longest))
        process.kill()
        process.wait()
        process.stdout.close()
    run = opened(wanted)
    trained(run)
    assert same(state(run), state(whole))
    assert sorted((run.folder / "checkpoints").glob(".*part*")) == []


def test_kill_9_and_go_on_is_the_same_run(tmp_path: Path, opened: Opened, corpus: Path) -> None:
    killed(tmp_path, opened, corpus, recipe(schedule={"steps": 40}, checkpoint={"every": 2, "keep_last": 2}), 2, 0.6)


@pytest.mark.slow
def test_kill_9_anywhere(tmp_path: Path, opened: Opened, corpus: Path) -> None:
    killed(tmp_path, opened, corpus, recipe(schedule={"steps": 120}, checkpoint={"every": 1, "keep_last": 2}), 12, 1.5)


def test_sigterm_saves_and_stops(tmp_path: Path, opened: Opened, corpus: Path) -> None:
    wanted = recipe(schedule={"steps": 20_000}, checkpoint={"every": 100_000})
    process = child(tmp_path, wanted, corpus)
    assert process.stdout is not None
    while process.stdout.readline() != b"begin\n":
        pass
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    process.stdout.close()
    steps = Checkpoints(tmp_path / "run").steps()
    assert len(steps) == 1 and 0 < steps[0] < 20_000


# ---------------------------------------------------------------- stages


def test_a_stage_of_longer_rows_begins_where_its_step_is(opened: Opened) -> None:
    stage = {"first_step": 6, "data": {"sequence_length": 128, "batch": 2}, "rope_theta": 1e5}
    run = opened(recipe(stage=[stage]))
    report = trained(run)
    assert [step.tokens for step in report.steps] == [256] * 12
    assert run.model.config.rope_theta == 1e5
    assert Checkpoints(run.folder).manifest(4).model["rope_theta"] == 1e4
    assert Checkpoints(run.folder).manifest(8).model["rope_theta"] == 1e5
    trained(opened(recipe(stage=[stage]), "again"), 7)
    again = opened(recipe(stage=[stage]), "again")
    trained(again)
    assert same(state(again), state(run))


def test_a_stage_of_another_corpus(opened: Opened, corpus: Path, another: Path) -> None:
    stage = {"first_step": 4, "corpus": "more", "anew": True}
    with pytest.raises(UsageError, match=r"--data more="):
        opened(recipe(stage=[stage]))
    run = opened(recipe(stage=[stage]), corpora={"": corpus, "more": another})
    assert len(trained(run).steps) == 12


def test_a_changed_corpus_is_refused(opened: Opened, another: Path) -> None:
    trained(opened(recipe()), 4)
    with pytest.raises(InputError, match=r"code has other documents.*\[\[stage\]\]"):
        opened(recipe(), corpora={"": another})


def test_a_run_ends_with_its_data(opened: Opened) -> None:
    run = opened(recipe(schedule={"steps": 10**6, "cooldown": 10}, data={"source": [{"name": "code", "epochs": 0.2}]}))
    report = trained(run)
    assert "ends at sample" in report.notes[-1]
    assert 0 < run.progress.step < 10**6
    assert Checkpoints(run.folder).newest() == run.progress.step


# ---------------------------------------------------------------- what may change


def test_what_decides_nothing_may_change(opened: Opened) -> None:
    trained(opened(recipe()), 4)
    said: list[str] = []
    run = opened(recipe(schedule={"steps": 20}, data={"micro_batch": 1}), say=said.append)
    run.close()
    assert said == ["data.micro_batch is 1 from step 4 on; it was 2", "schedule.steps is 20 from step 4 on; it was 12"]
    (change,) = read_config(run.folder)["changes"]
    assert change == {"step": 4, "values": {"data.micro_batch": [2, 1], "schedule.steps": [12, 20]}}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed was 0, is 1"),
        ({"model": {"ffn": 128}}, r"model\.ffn was 64, is 128"),
        ({"data": {"batch": 8}}, r"data\.batch was 4, is 8"),
        ({"optimizer": {"beta2": 0.99}}, r"optimizer\.beta2"),
    ],
)
def test_what_decides_something_may_not(opened: Opened, change: dict[str, Any], named: str) -> None:
    trained(opened(recipe()), 4)
    with pytest.raises(UsageError, match=named):
        opened(recipe(**change))


def test_the_vocabulary_is_padded_to_whole_tiles_and_never_cut(opened: Opened) -> None:
    run = opened(recipe())
    run.close()
    assert run.model.config.vocab_size == 640  # of 600 tokens
    with pytest.raises(StackbuildError, match=r"512 is smaller than the tokenizer of the corpus, which has 600"):
        opened(recipe(model={"vocab_size": 512}), "small")


def test_two_processes_do_not_train_one_run(tmp_path: Path, opened: Opened, corpus: Path) -> None:
    process = child(tmp_path, recipe(schedule={"steps": 20_000}), corpus)
    assert process.stdout is not None
    while process.stdout.readline() != b"begin\n":
        pass
    try:
        with pytest.raises(UsageError, match="Another process trains"):
            opened(recipe(schedule={"steps": 20_000}))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_broken_checkpoint_is_passed_over_and_said(opened: Opened) -> None:
    trained(opened(recipe()), 8)
    probe = opened(recipe())
    probe.close()
    for path in (probe.folder / "checkpoints" / "step-00000008").glob("*.distcp"):
        path.write_bytes(path.read_bytes()[:-1])
    said: list[str] = []
    run = opened(recipe(), say=said.append)
    assert run.progress.step == 4
    assert any("step 8" in text and "broken" in text for text in said)
    trained(run)
    whole = opened(recipe(), "whole")
    trained(whole)
    assert same(state(run), state(whole))


# ---------------------------------------------------------------- bad steps


def test_steps_that_are_not_finite_are_not_taken_and_then_passed_over(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop._step

    def wrong(run: Run, batch: Any, first: int) -> Any:
        step = real(run, batch, first)
        return step._replace(loss=float("nan")) if 28 <= first < 40 else step

    monkeypatch.setattr(loop, "_step", wrong)
    run = opened(recipe(guard={"skip_limit": 2, "also_before": 1}, checkpoint={"every": 2}))
    report = trained(run)
    assert run.guard.rewinds >= 1
    assert any(text.startswith("Back from step") for text in report.notes)
    assert run.progress.step == 12 and all(torch.isfinite(tensor).all() for tensor in run.tensors().values())
    assert np.isfinite([step.loss for step in report.steps if step.taken]).all()


def test_a_run_that_is_bad_from_the_start_says_so(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    real = loop._step
    monkeypatch.setattr(loop, "_step", lambda *given: real(*given)._replace(norm=float("inf")))
    with pytest.raises(StackbuildError, match=r"gradient norm is inf.*no checkpoint"):
        trained(opened(recipe(guard={"skip_limit": 2})))


@pytest.mark.parametrize("gpu", [True, False])
def test_out_of_memory_says_which_knob(opened: Opened, monkeypatch: pytest.MonkeyPatch, gpu: bool) -> None:
    run = opened(recipe())

    def full(*_: Any, **__: Any) -> Any:
        if gpu:
            raise torch.OutOfMemoryError("CUDA out of memory")
        torch.empty(1 << 60)

    monkeypatch.setattr(run.model, "loss", full)
    with pytest.raises(OutOfMemory, match=r"2 rows of 64 tokens.*data\.micro_batch = 1 or checkpoint_layers"):
        trained(run)


def test_a_missing_shard_is_named(opened: Opened, corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, tmp_path / "torn")
    (tmp_path / "torn" / "code-00001-of-00003.bin").unlink()
    with pytest.raises(InputError, match="code-00001-of-00003"):
        opened(recipe(), corpora={"": tmp_path / "torn"})


@pytest.mark.parametrize("order", [{}, {"order": "megatron", "packing": "concatenation", "samples": 48}], ids=str)
def test_ids_that_the_manifest_does_not_tell_of_are_refused_before_a_device_sees_them(
    opened: Opened, corpus: Path, tmp_path: Path, order: dict[str, Any]
) -> None:
    shutil.copytree(corpus, tmp_path / "lying")
    for path in (tmp_path / "lying").glob("code-*.bin"):
        path.write_bytes(b"\xff" * path.stat().st_size)
    run = opened(recipe(data={"fim": {"rate": 0.0}, **order}), corpora={"": tmp_path / "lying"})
    with pytest.raises(InputError, match=r"lying/code-.*holds ids that are none of the 600 of the manifest"):
        trained(run)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_layers_learn_the_same(opened: Opened) -> None:
    runs = [opened(recipe(compile=compiled), f"c{compiled}") for compiled in (False, True)]
    losses = [[step.loss for step in trained(run).steps] for run in runs]
    assert np.allclose(*losses, atol=1e-3)
    assert state(runs[0]).keys() == state(runs[1]).keys()


def test_config_holds_no_path(opened: Opened, tmp_path: Path, corpus: Path) -> None:
    run = opened(recipe())
    trained(run, 4)
    for path in [run.folder / "config.json", *run.folder.glob("checkpoints/*/*.json")]:
        text = path.read_text()
        assert str(tmp_path) not in text and str(corpus) not in text
        json.loads(text)


def test_another_version_is_refused(opened: Opened, corpus: Path) -> None:
    run = opened(recipe())
    run.close()
    told = json.loads((run.folder / "config.json").read_text())
    (run.folder / "config.json").write_text(json.dumps(told | {"version": 9}))
    with pytest.raises(InputError, match="version 9"):
        open_run(run.folder, recipe(), {"": corpus}, torch.device("cpu"), print)


def test_nothing_is_written_into_a_folder_that_no_run_made(corpus: Path, tmp_path: Path) -> None:
    before = sorted(corpus.rglob("*"))
    with pytest.raises(UsageError, match=r"is not a run and not empty: it holds .*Name another folder"):
        open_run(corpus, recipe(), {"": corpus}, torch.device("cpu"), print)
    assert sorted(corpus.rglob("*")) == before
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UsageError, match="Not a directory"):
        open_run(file, recipe(), {"": corpus}, torch.device("cpu"), print)
