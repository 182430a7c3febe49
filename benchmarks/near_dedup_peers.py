"""Peers of near-dedup: their virtual environments, their runs, and what each did to the files.

A peer is a script in `benchmarks/peers/` that reads a folder of Parquet files and writes the files that stay. It runs in a
virtual environment of its own with pinned versions, made below the cache folder on first use. A peer that cannot be
installed or ends with an error is told as not measured, with the reason.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.measure import NotMeasured, Run, command

SCRIPTS = Path(__file__).resolve().parent / "peers"
PYARROW = f"pyarrow=={importlib.metadata.version('pyarrow')}"


@dataclass(frozen=True)
class Peer:
    """`script`: in benchmarks/peers. `requirements`: of its environment; the first is the peer."""

    name: str
    script: str
    requirements: tuple[str, ...]
    settings: str

    @property
    def version(self) -> str:
        return self.requirements[0].partition("==")[2]

    @property
    def key(self) -> str:
        """Changes with anything that may change the peer's result."""
        scripts = [(SCRIPTS / name).read_text() for name in ("files.py", self.script)]
        return digest(self.name, sys.version, *self.requirements, *scripts)


PEERS = (
    Peer(
        "datatrove",
        "run_datatrove.py",
        ("datatrove==0.10.1", "spacy==3.8.18", "xxhash==3.8.2", "regex==2026.11.15", "orjson==3.13.0",
         "tokenizers==0.23.3", "fasteners==0.20", PYARROW),
        "four stages, spaCy's English words, 64-bit xxhash, 25 buckets of 10",
    ),
    Peer(
        "text-dedup",
        "run_text_dedup.py",
        ("text-dedup==0.4.0", "datasets==5.2.0", PYARROW),
        "words with empty ones, xxh3, 25 bands of 10, no check; 0.4.0 is the newest for Python 3.11",
    ),
    Peer(
        "datasketch",
        "run_datasketch.py",
        ("datasketch==2.0.0", PYARROW),
        "words by `re`, 25 bands of 10, union-find",
    ),
    Peer("rensa", "run_rensa.py", ("rensa==0.5.0", PYARROW), "words by `re`, R-MinHash, 25 bands of 10, union-find"),
    Peer("gaoya", "run_gaoya.py", ("gaoya==0.2.2", PYARROW), "its words in Rust, 25 bands of 10, estimate >= 0.7"),
)  # fmt: skip


def digest(*parts: str | bytes) -> str:
    """16 hexadecimal digits of some texts."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return whole.hexdigest()[:16]


# ---------------------------------------------------------------- the input


@dataclass(frozen=True)
class Input:
    """Parquet files as a folder of links, with what one must know of their rows. `ids`: in the order of the files."""

    folder: Path
    ids: pa.ChunkedArray
    bytes: int
    key: str

    @property
    def mb(self) -> float:
        return self.bytes / 1e6

    @property
    def paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.parquet"))

    def texts(self) -> Iterator[pa.Array]:
        """The texts in batches, in the order of the ids."""
        for path in self.paths:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(1000, columns=["text"], use_threads=False):
                    yield batch.column(0)


@contextlib.contextmanager
def opened(paths: Sequence[str | Path], cache: Path) -> Iterator[Input]:
    """Parquet files (columns id, text) as an Input. SystemExit for ids that repeat."""
    with tempfile.TemporaryDirectory(dir=cache, prefix="input-") as name:
        folder, ids, size, parts = Path(name), [], 0, []
        for number, path in enumerate(paths):
            (folder / f"{number:03d}.parquet").symlink_to(Path(path).resolve())
            with open(path, "rb") as raw:
                parts.append(hashlib.file_digest(raw, "sha256").digest())
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(1000, columns=["id", "text"], use_threads=False):
                    ids.append(batch.column(0).cast(pa.string()))
                    size += pc.sum(pc.binary_length(batch.column(1))).as_py() or 0
        whole = pa.chunked_array(ids, pa.string())
        if pc.count_distinct(whole).as_py() != len(whole):
            raise SystemExit("The ids of the input repeat; each file needs one of its own.")
        yield Input(folder, whole, size, digest(*parts))


# ---------------------------------------------------------------- what a tool did


@dataclass(frozen=True)
class Outcome:
    """What became of n files. `removed`: bool. `group`: int64, the same number for files of a group, -1 for one alone.

    `named`: int64, the file that a removed one names as its twin that stays, -1 for none; None if the tool tells none.
    """

    removed: npt.NDArray[np.bool_]
    group: npt.NDArray[np.int64]
    named: npt.NDArray[np.int64] | None = None

    def save(self, path: Path) -> None:
        np.savez_compressed(path, **{name: value for name, value in vars(self).items() if value is not None})

    @classmethod
    def load(cls, path: Path) -> Outcome:
        with np.load(path) as found:
            return cls(**found)


def outcome(given: Input, kept: Sequence[Path], groups: pa.Table) -> Outcome:
    """From the files that were written and a table of those in groups: id, group, and kept_id if the tool names twins.

    SystemExit for ids that the input has not.
    """
    value_set = given.ids.combine_chunks()

    def rows(ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
        ids = ids.cast(pa.string())
        found = pc.index_in(ids, value_set=value_set)
        if found.null_count > ids.null_count:
            raise SystemExit(f"{found.null_count - ids.null_count} ids were told that the input has not.")
        return np.asarray(pc.fill_null(found, -1).combine_chunks()).astype(np.int64)

    removed = np.ones(len(given.ids), np.bool_)
    for path in kept:
        removed[rows(pq.read_table(path, columns=["id"])["id"])] = False
    group, named = np.full(len(given.ids), -1, np.int64), np.full(len(given.ids), -1, np.int64)
    members = rows(groups["id"])
    group[members] = np.unique(groups["group"].cast(pa.string()).to_numpy(), return_inverse=True)[1]
    if "kept_id" in groups.column_names:
        named[members] = rows(groups["kept_id"])
    return Outcome(removed, group, named if "kept_id" in groups.column_names else None)


# ---------------------------------------------------------------- running


def environment(peer: Peer, cache: Path) -> Path:
    """The interpreter of the peer's virtual environment, made if it is not there. NotMeasured if it cannot be."""
    folder = cache / "environments" / f"{peer.name}-{digest(sys.executable, sys.version, *peer.requirements)}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.exists():
        for words in (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", *peer.requirements],
        ):
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                said = (done.stderr or done.stdout).strip().splitlines()
                raise NotMeasured(next((line for line in said if "ERROR" in line), said[-1] if said else "no reason"))
        ready.touch()
    return python


def run_peer(peer: Peer, given: Input, cache: Path, workers: int) -> tuple[Run, Outcome]:
    """One run of a peer. NotMeasured with the reason if it cannot be had or fails."""
    python = environment(peer, cache)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f"{peer.name}-") as out:
        words = [str(python), str(SCRIPTS / peer.script)]
        arguments = [str(given.folder), out, str(workers)]
        try:
            run, _ = command([*words, "work", *arguments], {"PYTHONPATH": ""}, tree=True)
            command([*words, "tell", *arguments], {"PYTHONPATH": ""})
        except SystemExit as error:
            raise NotMeasured(str(error).strip().rsplit("\n", 1)[-1]) from error
        groups = pq.read_table(Path(out, "told", "groups.parquet"))
        return run, outcome(given, sorted(Path(out).glob("*.parquet")), groups)


class Results:
    """Runs and outcomes that are kept in the cache folder, by tool, its version and the digest of the input."""

    def __init__(self, cache: Path):
        self.folder = cache / "results"
        self.folder.mkdir(parents=True, exist_ok=True)

    def save(self, key: str, name: str, runs: Sequence[Run], found: Outcome) -> None:
        found.save(self.folder / f"{key}.npz")
        told = {"name": name, "runs": [asdict(run) for run in runs]}
        (self.folder / f"{key}.json").write_text(json.dumps(told))

    def load(self, key: str) -> tuple[list[Run], Outcome] | None:
        path = self.folder / f"{key}.json"
        if not path.exists():
            return None
        told: dict[str, Any] = json.loads(path.read_text())
        return [Run(**run) for run in told["runs"]], Outcome.load(self.folder / f"{key}.npz")
