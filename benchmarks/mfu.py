"""Utilisation of a GPU (MFU) by a model of a published size: ours, with infilling, packing and documents masked, against a plain loop.

    python -m benchmarks.mfu --data OUT [--recipe starcoder2-3b] [--set a.b=c ...] [--steps 10] [--device cuda] [--peers none] [--json]

Ours is the whole step of `stackbuild.train.loop` in bf16 on rows of the corpus at OUT (infilling 0.5 / 0.5, best-fit packing,
documents that do not see each other), made ahead as in a run, its layers compiled. The other is transformers' model of the same
shape under `torch.compile`, in bf16 with fused AdamW, on as many random tokens and with the causal mask alone: the least that a
training step can be. Each has a process of its own, since neither leaves room for the other; a figure is the median step of wall
time, after the first ones, which compile. Not CPU-seconds, because the GPU does the work; on a CPU (`--device cpu`, a small shape)
there is no peak to be a share of.

Nothing is kept: no checkpoint is written.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import NotMeasured, Run, options, versions, way

GOAL = 0.45  # of the peak, 6N and attention
WARM = 3  # steps that compile and fill caches
SETS = (
    "precision=bf16", "compile=true", "deterministic=false", "checkpoint_layers=false", "data.batch=16", "data.micro_batch=2",
    "data.document_mask=true", "data.packing=best-fit", "data.fim.rate=0.5", "data.fim.fragment_rate=0.5",
)  # fmt: skip


def _recipe(name: str, sets: Sequence[str]) -> Any:
    from stackbuild.cli.train_recipe import load

    recipe = load(name, [*SETS, *sets])
    return recipe.model_copy(update={"stage": ()})  # the first stage alone


def _timed(step: Callable[[], int], steps: int, device: Any, config: Any, length: int) -> dict[str, Any]:
    """Median tokens a second over `steps` steps; utilisation by 6N alone and with attention; peak memory of the device."""
    import torch

    from stackbuild.train import flops
    from stackbuild.train.device import peak_of

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    rates = []
    for number in range(WARM + steps):
        wait()
        began = time.perf_counter()
        tokens = step()
        wait()
        if number >= WARM:
            rates.append(tokens / (time.perf_counter() - began))
    rate, cost, peak = statistics.median(rates), flops.flops(config, length), peak_of(device)
    return {
        "tokens_per_second": rate,
        "mfu": None if peak is None else flops.utilisation(cost.total, rate, peak),
        "mfu_6n": None if peak is None else flops.utilisation(cost.matrices, rate, peak),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "device_gb": torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None,
    }


def ours(recipe: str, sets: Sequence[str], data: str, steps: int, device: str) -> Callable[[], dict[str, Any]]:
    """Steps of a run on the corpus, without saving any."""
    from stackbuild.train import loop
    from stackbuild.train.device import device_of
    from stackbuild.train.feed import Feed
    from stackbuild.train.optim import set_rate
    from stackbuild.train.run import open_run
    from stackbuild.train.schedule import beta2

    wanted = _recipe(recipe, sets)

    def work() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            run = open_run(Path(folder, "run"), wanted, {"": Path(data)}, device_of(device), lambda _: None)
            rows = wanted.data.batch
            with Feed(run.batches, loop.AHEAD) as feed:

                def step() -> int:
                    first = run.progress.sample
                    batch = feed.take(first, rows, [(first + (ahead + 1) * rows, rows) for ahead in range(loop.AHEAD)])
                    done = loop._step(run, batch, first)
                    set_rate(
                        run.optimizer,
                        done.learning_rate,
                        beta2(wanted.schedule, run.progress.step, wanted.optimizer.beta2),
                    )
                    run.optimizer.step()
                    run.progress.step += 1
                    run.progress.sample += rows
                    return done.tokens

                told = _timed(step, steps, run.device, run.span().model, wanted.data.sequence_length)
            run.close()
        return told

    return work


def plain(recipe: str, sets: Sequence[str], data: str, steps: int, device: str) -> Callable[[], dict[str, Any]]:
    """Steps of a plain loop on transformers' model, as many rows each."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from stackbuild.tokens.dataset import TokensDataset
    from stackbuild.train.device import device_of
    from stackbuild.train.hf_config import to_hf
    from stackbuild.train.recipe import shape

    wanted, on = _recipe(recipe, sets), device_of(device)
    config = shape(wanted.model, TokensDataset(Path(data)).manifest.vocab_size)
    told = to_hf(config, "float32", None, None)
    kind = told.pop("model_type")
    with torch.device(on):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(kind, **told | {"use_cache": False}), attn_implementation="sdpa"
        ).float()
    if wanted.checkpoint_layers:
        model.gradient_checkpointing_enable()
    called = torch.compile(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)
    length, at_once, parts = (
        wanted.data.sequence_length,
        wanted.data.rows_at_once,
        -(-wanted.data.batch // wanted.data.rows_at_once),
    )

    def step() -> int:
        for _ in range(parts):
            ids = torch.randint(0, config.vocab_size, (at_once, length), device=on)
            with torch.autocast(on.type, torch.bfloat16):
                (called(input_ids=ids, labels=ids).loss / parts).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return parts * at_once * length

    return lambda: _timed(step, steps, on, config, length)


def _table(told: dict[str, dict[str, Any]], missing: dict[str, str], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in ("", "tokens/s", "MFU", "MFU, 6N", "device GB", "host peak MB"):
        table.add_column(column, justify="right" if column else "left")
    for name, one in told.items():
        shares = ["" if one[key] is None else f"{one[key]:.1%}" for key in ("mfu", "mfu_6n")]
        memory = "" if one["device_gb"] is None else f"{one['device_gb']:.1f}"
        table.add_row(name, f"{one['tokens_per_second']:,.0f}", *shares, memory, f"{one['host_mb']:,.0f}")
    for name, reason in missing.items():
        table.add_row(name, "not measured", "", "", "", reason)
    Console().print(table)


def main() -> None:
    parser = options(__doc__ or "", rounds=1)
    parser.add_argument("--recipe", default="starcoder2-3b")
    parser.add_argument("--data", required=True, help="the output folder of a build, or its tokens")
    parser.add_argument(
        "--set", action="append", default=[], help="as of `stackbuild train`, for example data.micro_batch=4"
    )
    parser.add_argument("--steps", type=int, default=10, help="that are timed, of each")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--peers", default="plain", help="plain, or none")
    asked = parser.parse_args()
    arguments = {
        "recipe": asked.recipe, "sets": asked.set, "data": str(Path(asked.data).resolve()), "steps": asked.steps, "device": asked.device,
    }  # fmt: skip
    told: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    for name in ("ours", *(["plain"] if asked.peers == "plain" else [])):
        try:
            rounds: list[Run] = [way(f"benchmarks.mfu:{name}", arguments) for _ in range(asked.rounds)]
        except NotMeasured as reason:
            missing[name] = str(reason)
            continue
        middle = sorted(rounds, key=lambda run: float(run.told["tokens_per_second"]))[len(rounds) // 2]
        told[name] = middle.told | {"host_mb": middle.peak_mb}
    reached = told.get("ours", {}).get("mfu")
    result = {
        "name": "mfu", "goal": GOAL, "meets": None if reached is None else reached >= GOAL, "ways": told, "missing": missing,
        "ratio": told["ours"]["tokens_per_second"] / told["plain"]["tokens_per_second"] if len(told) == 2 else None,
        "versions": versions("torch", "transformers"), "input": {key: arguments[key] for key in ("recipe", "sets", "steps")},
    }  # fmt: skip
    if asked.json:
        print(json.dumps(result))
        return
    _table(told, missing, f"{asked.recipe} {' '.join(asked.set)}, {asked.steps} steps")
    ratio, verdict = (
        result["ratio"],
        {True: "met", False: "not met", None: "not measured: no peak is known"}[result["meets"]],
    )
    print(f"goal {GOAL:.0%}: {verdict}{'' if ratio is None else f'; ours / plain {ratio:.2f}'}; {result['versions']}")


if __name__ == "__main__":
    main()
