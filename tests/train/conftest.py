"""A corpus to train on, with something held out, and runs of a tiny model on it."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stackbuild.tokens.options import TokensOptions
from stackbuild.tokens.sample import sample, train
from stackbuild.train.recipe import TrainRecipe
from stackbuild.train.run import Run, open_run
from tests.tokens.conftest import repositories, row, tokenized, write_files

LINES = [
    "def area(width, height):\n    return width * height\n",
    "for name in names:\n    print(name)\n",
    "x = [1, 2, 3]\nassert sum(x) == 6\n",
]


def told(seed: int) -> list[dict[str, Any]]:
    """Repositories of files that a model can learn, beside those of the tokens' tests."""
    rng = random.Random(seed)
    files = [
        row(f"owner{number % 5}/plain{seed}-{number}", f"/f{k}.py", "".join(rng.choices(LINES, k=rng.randrange(2, 9))))
        for number in range(40)
        for k in range(3)
    ]
    return [*repositories(seed, 20), *files]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    options = TokensOptions(vocab_size=600, sample_bytes=60_000, shards=4)
    sample(write_files(folder / "data", told(0), 2), options, 1, folder / "sample.parquet")
    train(folder / "sample.parquet", options, folder / "tokenizer.json")
    return folder / "tokenizer.json"


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Path:
    return tokenized(tmp_path_factory.mktemp("corpus") / "tokens", write_files, told(0), tokenizer)


@pytest.fixture(scope="session")
def another(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Path:
    """Of the same tokenizer and other repositories."""
    return tokenized(tmp_path_factory.mktemp("another") / "tokens", write_files, told(1), tokenizer)


@pytest.fixture
def copied(corpus: Path, tmp_path: Path) -> Path:
    """A copy of the corpus whose manifest has no `valid` split."""
    folder = tmp_path / "copied"
    shutil.copytree(corpus, folder)
    told = json.loads((folder / "manifest.json").read_text())
    told["sources"] = [source for source in told["sources"] if source["split"] == "train"]
    (folder / "manifest.json").write_text(json.dumps(told))
    return folder


def recipe(**changes: Any) -> TrainRecipe:
    """A model of a second, for 12 steps. Nested tables are merged."""
    values: dict[str, Any] = {
        "name": "test",
        "model": {
            "layers": 2,
            "hidden": 32,
            "heads": 4,
            "kv_heads": 2,
            "ffn": 64,
            "max_positions": 128,
            "rope_theta": 1e4,
        },
        "data": {"sequence_length": 64, "batch": 4, "micro_batch": 2},
        "schedule": {"kind": "wsd", "peak": 3e-3, "steps": 12, "warmup": 2, "cooldown": 4},
        "checkpoint": {"every": 4, "keep_last": 10},
        "averaging": {"every": 1, "window": 5, "ema": 0.9},
        "validation": {"every": 0},
    }
    for key, value in changes.items():
        values[key] = (
            {**values[key], **value} if isinstance(value, dict) and isinstance(values.get(key), dict) else value
        )
    return TrainRecipe.model_validate(values)


class Quiet:
    """Takes what a run tells."""

    def __init__(self) -> None:
        self.steps: list[Any] = []
        self.results: list[Any] = []
        self.notes: list[str] = []

    def step(self, run: Run, step: Any) -> None:
        self.steps.append(step)

    def validated(self, run: Run, result: Any) -> None:
        self.results.append((run.progress.step, result))

    def note(self, run: Run, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def opened(corpus: Path, tmp_path: Path) -> Callable[..., Run]:
    """`opened(recipe, folder="run", **)`: a run of the corpus."""

    def opened(wanted: TrainRecipe, folder: str = "run", **given: Any) -> Run:
        given = {"corpora": {"": corpus}, "device": torch.device("cpu"), "say": lambda text: None} | given
        return open_run(tmp_path / folder, wanted, **given)

    return opened
