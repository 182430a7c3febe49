"""From a corpus to an exported model by commands alone: train, cooldown, export, import, train on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from stackbuild.cli.app import app
from stackbuild.cli.train_need import SPINS, need_torch
from stackbuild.errors import InputError, MissingDependency, PartialFailure, UsageError
from stackbuild.train.averaging import mean_of_windows, stored_windows
from stackbuild.train.branches import branches
from stackbuild.train.checkpoint import Checkpoints
from stackbuild.train.hf_names import tensors as their_tensors
from stackbuild.train.recipe import shape
from tests.train.conftest import recipe

SETS = [
    "model.hidden=32", "model.layers=2", "model.ffn=64", "model.max_positions=128", "model.window=32",
    "data.sequence_length=64", "data.batch=4",
    "data.micro_batch=4", "schedule.warmup=2", "schedule.steps=12", "schedule.cooldown=4", "checkpoint.every=4", "checkpoint.keep_last=1",
    "averaging.every=1", "averaging.window=4", "validation.every=6", "validation.rows=4", "validation.spans=3", "log.every=1",
]  # fmt: skip


def call(*words: object) -> str:
    """Run a command; its stdout. Its error is raised."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


RUN_HELP = """
import sys
sys.argv = ["stackbuild", "train", "--help"]
from stackbuild.cli.app import app
try:
    app()
except SystemExit:
    pass
assert "torch" not in sys.modules
"""


def sets(*more: str) -> list[str]:
    return [word for one in (*SETS, *more) for word in ("--set", one)]


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    run = tmp_path_factory.mktemp("runs") / "trunk"
    told = json.loads(
        call("train", "train/tiny", "--data", corpus, "--output", run, "--json", *sets("checkpoint.keep_last=9"))
    )
    assert told["step"] == 12 and told["finished"]
    return run


def lines(run: Path, kind: str) -> list[dict[str, object]]:
    return [line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if line["kind"] == kind]


def test_metrics_hold_every_step_once_and_validations(trunk: Path) -> None:
    assert [line["step"] for line in lines(trunk, "train")] == list(range(1, 13))
    assert [line["step"] for line in lines(trunk, "validation")] == [6, 12]
    (code,) = lines(trunk, "validation")[-1]["sources"].values()  # type: ignore[attr-defined]
    assert code["spans"] == 3 and 0 <= code["stop"] <= 1


def test_a_cooldown_branches_off_and_the_trunk_stays(tmp_path: Path, trunk: Path, corpus: Path) -> None:
    shutil.copytree(trunk, tmp_path / "trunk")
    before = {
        path: path.read_bytes()
        for path in (tmp_path / "trunk").rglob("*")
        if path.is_file() and "branches" not in path.parts
    }
    words = [
        "cooldown",
        "--from",
        f"{tmp_path}/trunk@8",
        "--length",
        "4",
        "--shape",
        "linear",
        "--data",
        corpus,
        "--output",
        tmp_path / "cooled",
    ]
    call(*words)
    assert {path: path.read_bytes() for path in before} == before
    assert branches(tmp_path / "trunk") == {"cooled": 8}
    rates = [line["learning_rate"] for line in lines(tmp_path / "cooled", "train")]
    assert rates == pytest.approx([3e-3 * x for x in (0.75, 0.5, 0.25, 0)])
    parent = json.loads((tmp_path / "cooled" / "parent.json").read_text())
    assert parent["step"] == 8 and parent["run"] == "tiny"
    # The trunk's own cooldown is 1-sqrt over the same steps: but for the shape it read the same samples.
    ours = Checkpoints(tmp_path / "cooled").told(12)
    assert ours["sample"] == Checkpoints(trunk).told(12)["sample"]
    call(*words)  # again: nothing is left to do
    with pytest.raises(UsageError, match="branched off elsewhere"):
        call(*words[:2], f"{tmp_path}/trunk@4", *words[3:])


def test_a_branch_is_the_run_that_would_have_cooled_there(tmp_path: Path, trunk: Path, corpus: Path) -> None:
    call("cooldown", "--from", f"{trunk}@8", "--length", 4, "--data", corpus, "--output", tmp_path / "same")
    names = [name for name in Checkpoints(trunk).contents(12) if name.startswith(("model.", "optimizer."))]
    one, two = (dict(Checkpoints(run).tensors(12, names)) for run in (trunk, tmp_path / "same"))
    assert all(torch.equal(one[name], two[name]) for name in names)


def test_a_cooldown_with_other_data(tmp_path: Path, trunk: Path, corpus: Path, another: Path) -> None:
    options = tmp_path / "mix.toml"
    options.write_text("document_mask = false\n")
    run = tmp_path / "other"
    call("cooldown", "--from", f"{trunk}@4", "--length", "0.5", "--data", corpus, "--options", options, "--output", run)
    told = json.loads((run / "config.json").read_text())
    assert told["recipe"]["stage"][0]["first_step"] == 4 and told["recipe"]["schedule"]["steps"] == 8
    with pytest.raises(InputError, match="Name it otherwise, or say `anew`"):
        call(
            "cooldown",
            "--from",
            f"{trunk}@4",
            "--length",
            2,
            "--data",
            corpus,
            "--data",
            f"cooldown={another}",
            "--output",
            tmp_path / "no",
        )


def test_a_step_without_a_checkpoint_names_those_there_are(tmp_path: Path, trunk: Path, corpus: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint of step 5; the newest are: 4, 8, 12"):
        call("cooldown", "--from", f"{trunk}@5", "--length", 4, "--data", corpus, "--output", tmp_path / "x")
    with pytest.raises(UsageError, match="in a cooldown"):
        call("cooldown", "--from", f"{trunk}@12", "--length", 4, "--data", corpus, "--output", tmp_path / "x")


def test_an_export_loads_in_transformers_with_the_same_logits(tmp_path: Path, trunk: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from stackbuild.train.model import Decoder
    from stackbuild.train.where import weights

    call("export", trunk, tmp_path / "hf", "--dtype", "fp32")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    found = weights(str(trunk), print)
    ours = Decoder(found.model)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.copy_(found.fetch(name))
        ids = torch.tensor(
            [AutoTokenizer.from_pretrained(tmp_path / "hf")("for name in names:\n    print(name)\n" * 4).input_ids]
        )
        assert ids.shape[1] > 33  # beyond the window
        assert torch.allclose(ours.logits(ours(ids, None, ours.mask())), theirs(ids).logits, atol=1e-5)


def test_the_average_is_the_mean_of_the_last_windows(tmp_path: Path, trunk: Path) -> None:
    call("export", f"{trunk}@average", tmp_path / "avg", "--dtype", "fp32", "--windows", 2)
    expected = dict(mean_of_windows(stored_windows(trunk)[-2:]))
    found = load_file(tmp_path / "avg" / "model.safetensors")
    model = shape(recipe(model={"window": 32}).model | {"heads": 4}, 600)
    for tensor in their_tensors(model):
        if len(tensor.ours) == 1:
            assert torch.equal(found[tensor.name], expected[tensor.ours[0]])
    with pytest.raises(InputError, match=r"begun without averaging\.ema"):
        call("export", f"{trunk}@ema", tmp_path / "ema")
    with pytest.raises(UsageError, match="exists already"):
        call("export", trunk, tmp_path / "avg")


def test_an_import_is_the_export_again_and_trains_on(tmp_path: Path, trunk: Path, corpus: Path) -> None:
    call("export", trunk, tmp_path / "hf", "--dtype", "fp32")
    call("import", tmp_path / "hf", tmp_path / "imported")
    call("export", tmp_path / "imported", tmp_path / "again", "--dtype", "fp32")
    for path in (tmp_path / "hf").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name
    run = tmp_path / "on"
    call("train", "train/tiny", "--data", corpus, "--output", run, "--from", tmp_path / "imported", *sets())
    first = lines(run, "train")[0]["loss"]
    assert first < lines(trunk, "train")[0]["loss"] - 0.5  # type: ignore[operator]
    assert json.loads((run / "parent.json").read_text())["step"] == 0
    for changed in ("model.layers=1", "model.norm_eps=1e-6", 'model.activation="gelu"'):
        with pytest.raises(InputError, match=f"{changed.partition('=')[0]} is .* there, and .* in the recipe"):
            call(
                "train", "train/tiny", "--data", corpus, "--output", tmp_path / "other", "--from", trunk, *sets(changed)
            )
    with pytest.raises(InputError, match=r"embed\.weight has the shape"):
        call(
            "train",
            "train/tiny",
            "--data",
            corpus,
            "--output",
            tmp_path / "wide",
            "--from",
            trunk,
            *sets("model.hidden=64"),
        )


def test_stopped_before_its_end_it_says_how_to_go_on(tmp_path: Path, corpus: Path) -> None:
    with pytest.raises(UsageError, match="--data OUT"):
        call("train", "train/tiny", "--output", tmp_path / "run", *sets())
    words = [
        "train",
        "train/tiny",
        "--data",
        corpus,
        "--output",
        tmp_path / "run",
        *sets('data.source=[{name="code", epochs=0.01}]'),
    ]
    with pytest.raises(PartialFailure, match="its data ends with step 1 of 12"):
        call(*words)


def test_a_plan_trains_nothing(tmp_path: Path, corpus: Path) -> None:
    told = json.loads(call("train", "starcoder2-15b", "--plan", "--json", "--data", corpus))
    assert told["parameters"] == 15_957_889_024
    assert told["stages"][0]["state_bytes"] == 16 * told["parameters"]
    assert told["unverified"] and told["flops"] > 3.5e23
    text = call("train", "train/tiny", "--plan")
    assert "of state (16 B a parameter)" in text and "250 steps" in text


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stackbuild.cli.train_need.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"stackbuild\[train\]"):
        call("train", "train/tiny", "--plan")


def test_threads_do_not_spin_for_long_unless_the_environment_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    need_torch()
    assert os.environ["GOMP_SPINCOUNT"] == SPINS
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    need_torch()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    need_torch()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_help_needs_no_torch() -> None:
    subprocess.run([sys.executable, "-c", RUN_HELP], check=True, capture_output=True)
