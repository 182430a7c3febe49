"""Training steps in tokens per CPU-second: ours against Hugging Face's Trainer and litgpt, on one model of 6.8 M parameters.

    python -m benchmarks.trainer [--peers transformers,litgpt | --peers none] [--precision fp32] [--compile] [--rounds 15] [--json]

All take their steps in one process and one thread in turn, a step each, and the figure is the median: on a shared machine, steps
of one moment are what can be compared. Ours is the whole step of `stackbuild.train.loop`: loss, clipping, AdamW. Theirs is
`Trainer.train` itself, held between two steps; litgpt has no loop that can be held, so its model gets a plain one with the same
clipping and fused AdamW. The model is StarCoder2's shape (litgpt: the nearest that it has), batches are four rows of 256 random
tokens.

Peers are installed below --cache without their dependencies where these are here already; what cannot be had is not measured.
"""

from __future__ import annotations

import importlib
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from benchmarks.measure import Comparison, Run, options, way

LAYERS, HIDDEN, HEADS, GROUPS, FFN, VOCABULARY = 8, 256, 4, 2, 1024, 4096
ROWS, LENGTH = 4, 256
GOALS = {("fp32", False): 1.05, ("bf16", False): 1.0, ("fp32", True): 1.10, ("bf16", True): 1.10}
PEERS = {
    "transformers": ("accelerate==1.15.0", "psutil"),
    "litgpt": (
        "litgpt==0.5.13",
        "lightning==2.6.1",
        "lightning-utilities==0.15.2",
        "torchmetrics==1.8.2",
        "pytorch-lightning==2.6.1",
    ),
}


class Held:
    """A function in a thread of its own that gives the baton back at each `pass_on`: `step` lets it go on to the next."""

    def __init__(self, work: Callable[[Callable[[], None]], None]):
        self._mine, self._theirs = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None

        def run() -> None:
            self._mine.acquire()
            try:
                work(self._pass_on)
            except BaseException as error:
                self._error = error
            self._theirs.release()

        threading.Thread(target=run, daemon=True).start()

    def _pass_on(self) -> None:
        self._theirs.release()
        self._mine.acquire()

    def step(self) -> None:
        """One step."""
        self._mine.release()
        self._theirs.acquire()
        if self._error is not None:
            raise self._error


def batches() -> Iterator[Any]:
    """(ROWS, LENGTH + 1) of tokens, the same for everybody."""
    import torch

    generator = torch.Generator().manual_seed(0)
    while True:
        yield torch.randint(0, VOCABULARY, (ROWS, LENGTH + 1), generator=generator)


def ours(precision: str, compiled: bool, masked: bool) -> Callable[[], None]:
    """A step of `loop`, on a run whose data are these batches. `masked`: with positions and documents, two of them in a row."""
    import numpy as np
    import torch

    from stackbuild.tokens.batches import Rows
    from stackbuild.train import loop
    from stackbuild.train.guard import Guard
    from stackbuild.train.model import Decoder, initialise
    from stackbuild.train.optim import adamw, set_rate
    from stackbuild.train.recipe import TrainRecipe, shape
    from stackbuild.train.run import Progress, Span
    from stackbuild.train.run import Run as TrainingRun
    from stackbuild.train.schedule import beta2

    recipe = TrainRecipe.model_validate({
        "name": "benchmark", "precision": precision, "compile": compiled, "deterministic": False,
        "model": {"layers": LAYERS, "hidden": HIDDEN, "heads": HEADS, "kv_heads": GROUPS, "ffn": FFN, "vocab_size": VOCABULARY,
                  "max_positions": LENGTH, "rope_theta": 1e4, "init_std": 0.02},
        "data": {"sequence_length": LENGTH, "batch": ROWS, "document_mask": masked},
        "schedule": {"kind": "constant", "peak": 1e-3, "warmup": 10},
    })  # fmt: skip
    config = shape(recipe.model, VOCABULARY)
    model = Decoder(config)
    initialise(model, 0)
    if compiled:
        model.compile_parts()

    class Data:
        def stage(self, sample: int) -> int:
            return 0

        def sources(self, sample: int) -> list[str]:
            return ["code"]

    run = TrainingRun(
        Path(), recipe, torch.device("cpu"), [Span(0, 0, recipe.data, config, Path())], Data(), model, adamw(model, recipe.optimizer),
        None, Guard(recipe.guard), None, print, Progress(),
    )  # type: ignore[arg-type]  # fmt: skip
    given = batches()
    documents = np.repeat(np.arange(LENGTH, dtype=np.int32)[None] // (LENGTH // 2), ROWS, axis=0)
    positions = np.repeat(np.arange(LENGTH, dtype=np.int32)[None] % (LENGTH // 2), ROWS, axis=0)

    def step() -> None:
        ids = next(given).numpy().astype(np.int32)
        rows = Rows(ids[:, :-1].copy(), ids[:, 1:].copy(), positions, documents, np.zeros((ROWS, LENGTH), np.int32))
        done = loop._step(run, rows, run.progress.sample)
        run.guard.judge(run.progress.step, run.progress.sample, ROWS, done.loss, done.norm)
        set_rate(run.optimizer, done.learning_rate, beta2(recipe.schedule, run.progress.step, recipe.optimizer.beta2))
        run.optimizer.step()
        run.progress.step += 1
        run.progress.sample += ROWS

    return step


def transformers(precision: str, compiled: bool) -> Callable[[], None]:
    """`Trainer.train`, held at the end of each step."""
    from transformers import Starcoder2Config, Starcoder2ForCausalLM, Trainer, TrainerCallback, TrainingArguments

    config = Starcoder2Config(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=GROUPS, max_position_embeddings=LENGTH, sliding_window=None, use_cache=False, tie_word_embeddings=True,
    )  # fmt: skip
    model = Starcoder2ForCausalLM(config)

    class Endless:
        def __len__(self) -> int:
            return 1 << 20

        def __getitem__(self, number: int) -> dict[str, Any]:
            import torch

            ids = torch.randint(0, VOCABULARY, (LENGTH,), generator=torch.Generator().manual_seed(number))
            return {"input_ids": ids, "labels": ids}

    def work(pass_on: Callable[[], None]) -> None:
        class Hold(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, *_: Any, **__: Any) -> None:
                pass_on()

        arguments = TrainingArguments(
            output_dir="/nonexistent", per_device_train_batch_size=ROWS, max_steps=1 << 20, learning_rate=1e-3, warmup_steps=10,
            lr_scheduler_type="constant_with_warmup", weight_decay=0.1, max_grad_norm=1.0, bf16=precision == "bf16",
            torch_compile=compiled, use_cpu=True, report_to=[], logging_strategy="no", save_strategy="no", disable_tqdm=True,
            optim="adamw_torch_fused", dataloader_num_workers=0,
        )  # fmt: skip
        Trainer(model=model, args=arguments, train_dataset=Endless(), callbacks=[Hold()]).train()

    return Held(work).step


def litgpt(precision: str, compiled: bool) -> Callable[[], None]:
    """litgpt's model of this shape in a plain loop."""
    import torch
    import torch.nn.functional as F
    from litgpt.config import Config
    from litgpt.model import GPT

    config = Config(
        name="benchmark", block_size=LENGTH, vocab_size=VOCABULARY, padded_vocab_size=VOCABULARY, n_layer=LAYERS, n_head=HEADS,
        n_embd=HIDDEN, n_query_groups=GROUPS, rotary_percentage=1.0, parallel_residual=False, bias=True, lm_head_bias=False,
        norm_class_name="LayerNorm", mlp_class_name="GptNeoxMLP", gelu_approximate="tanh", intermediate_size=FFN,
    )  # fmt: skip
    model = GPT(config)
    model.apply(model._init_weights)
    model.lm_head.weight = model.transformer.wte.weight  # as ours, it is tied
    called = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    given = batches()

    def step() -> None:
        ids = next(given)
        context = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()
        with context:
            logits = called(ids[:, :-1])
            loss = F.cross_entropy(logits.float().view(-1, VOCABULARY), ids[:, 1:].reshape(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def interleaved(
    peers: list[str], precision: str, compiled: bool, rounds: int, paths: list[str]
) -> Callable[[], dict[str, Any]]:
    """Every way's step in turn: median CPU-seconds of each, and why one was not measured."""
    import torch

    torch.set_num_threads(1)
    sys.path += paths
    steps: dict[str, Callable[[], None]] = {
        "ours": ours(precision, compiled, False),
        "ours with documents": ours(precision, compiled, True),
    }
    missing: dict[str, str] = {}
    for name in peers:
        try:
            steps[name] = getattr(importlib.import_module("benchmarks.trainer"), name)(precision, compiled)
            steps[name]()
        except Exception as error:
            steps.pop(name, None)
            missing[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    for step in steps.values():
        for _ in range(2):
            step()

    def work() -> dict[str, Any]:
        taken: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(rounds):
            for name, step in steps.items():
                with _timed(taken[name]):
                    step()
        return {"seconds": {name: statistics.median(some) for name, some in taken.items()}, "missing": missing}

    return work


@contextmanager
def _timed(into: list[float]) -> Iterator[None]:
    before = time.process_time()
    yield
    into.append(time.process_time() - before)


def installed(peer: str, cache: Path) -> str:
    """A folder with what a peer needs and is not here."""
    folder = cache / "packages" / peer
    if not (folder / "ready").exists():
        words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *PEERS[peer]]
        if subprocess.run(words, check=False, capture_output=True).returncode == 0:
            (folder / "ready").touch()
    return str(folder)


def main() -> None:
    parser = options(__doc__ or "", rounds=15)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--cache", default="~/.cache/stackbuild-benchmarks", help="where peers are installed")
    asked = parser.parse_args()
    names = [] if asked.peers == "none" else asked.peers.split(",")
    cache = Path(asked.cache).expanduser().resolve()
    cache.mkdir(parents=True, exist_ok=True)
    arguments = {
        "peers": names, "precision": asked.precision, "compiled": asked.compile, "rounds": asked.rounds,
        "paths": [installed(name, cache) for name in names],
    }  # fmt: skip
    run = way("benchmarks.trainer:interleaved", arguments)
    comparison = Comparison(
        "trainer", "tokens per CPU-second", GOALS[asked.precision, asked.compile], float(ROWS * LENGTH),
        {"parameters": 6_840_832, "rows": ROWS, "length": LENGTH, "precision": asked.precision, "compile": asked.compile},
        ["torch", "transformers", "numpy"], parts=["ours with documents"],
    )  # fmt: skip
    for name, seconds in run.told["seconds"].items():
        comparison.runs[name] = [Run(seconds, run.startup, run.peak_mb, run.wall)]
    comparison.missing |= run.told["missing"]
    comparison.show(asked.json)


if __name__ == "__main__":
    main()
