"""A dataset to tokenize: generated repositories with hostile texts, as Parquet files of schema.DATASET."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild.schema import DATASET
from stackbuild.tokens.job import encode_bucket, shard_name, write_manifest
from stackbuild.tokens.options import TokensOptions
from stackbuild.tokens.runs import Buckets, write_run
from stackbuild.tokens.sample import sample, train

WORDS = [
    "def",
    "return",
    "self",
    "import",
    "value",
    "for",
    "in",
    "range",
    "print",
    "x",
    "naïve",
    "数据",
    "0x1F",
    "=",
    "(",
    ")",
]
HELD_OUT = "valid"
_LETTERS = random.Random(0)
WORDS += ["".join(_LETTERS.choices("abcdefghijklmnopqrstuvwxyz_", k=_LETTERS.randrange(3, 10))) for _ in range(300)]
HOSTILE = {
    "/empty": "",
    "/literal <file_sep>": "<|endoftext|><fim_prefix>a<fim_suffix>b<fim_middle><repo_name><file_sep><EMAIL>",
    "/crlf": "a\r\nb\r\rc\n\r\n",
    "/bom": "\ufeffint main;\n",
    "/unicode": "é e\u0301 \U0001f468\u200d\U0001f469 \u2028\u0085 Ａ ﬁ \ufffd \U0010ffff \ud7ff\n",
    "/control": "".join(map(chr, range(1, 32))) + "\x7f",
    "/only line feeds": "\n\n\n",
    "/leading space": "    \n  indented",
    "/name\nwith line feed": "body",
    "//double": "slash",
    "/sentinel at the end": "x<file_sep>",
    "/digits": "1234567890 12",
}


def row(repo: str, path: str, content: str, language: str = "Python", revision: str = "r1") -> dict[str, Any]:
    data = content.encode()
    identity = hashlib.sha1(f"{repo}\0{revision}\0{path}\0".encode() + data).hexdigest()
    values: dict[str, Any] = dict.fromkeys(DATASET.names)
    values |= {
        "content_id": identity,
        "blob_id": hashlib.sha1(data).hexdigest(),
        "repo_name": repo,
        "revision_id": revision,
        "path": path,
        "path_bytes": path.removeprefix("/").encode(),
        "license_type": "permissive" if len(data) % 2 else None,
        "language": language,
        "length": len(data),
        "length_bytes": len(data),
        "content": content,
    }
    return values


def code(rng: random.Random, lines: int) -> str:
    return "".join(
        "    " * rng.randrange(3)
        + " ".join(rng.choices(WORDS, k=rng.randrange(1, 9)))
        + rng.choice(["\n", "\n\n", "  \n"])
        for _ in range(lines)
    )


def repositories(seed: int = 0, count: int = 40) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    rows = [row("evil/repo", path, text) for path, text in HOSTILE.items()]
    for number in range(count):
        for k in range(rng.randrange(1, 9)):
            language = rng.choice(["Python", "C++", "F#"])
            text = code(rng, rng.randrange(40))
            rows.append(row(f"owner{number % 7}/repo{number}", f"/src/f{k}.py", text, language, rng.choice("ab")))
    return rows


@pytest.fixture(scope="session")
def rows() -> list[dict[str, Any]]:
    return repositories()


def write_files(folder: Path, rows: Sequence[dict[str, Any]], files: int) -> list[Path]:
    """Write rows to so many Parquet files, dealt out in turn, in small row groups."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.parquet" for number in range(files)]
    for number, path in enumerate(paths):
        pq.write_table(pa.Table.from_pylist(rows[number::files], DATASET), path, row_group_size=17)
    return paths


@pytest.fixture(scope="session")
def write_dataset() -> Callable[[Path, Sequence[dict[str, Any]], int], list[Path]]:
    """`write_files`."""
    return write_files


@pytest.fixture(scope="session")
def options() -> TokensOptions:
    return TokensOptions(vocab_size=600, sample_bytes=60_000, shards=4)


@pytest.fixture(scope="session")
def tokenizer(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], write_dataset: Any, options: TokensOptions
) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    sample(write_dataset(folder / "data", rows, 2), options, 1, folder / "sample.parquet")
    train(folder / "sample.parquet", options, folder / "tokenizer.json")
    return folder / "tokenizer.json"


@pytest.fixture(scope="session", name="row")
def row_of() -> Callable[..., dict[str, Any]]:
    """`row(repo, path, content, language, revision)`: one row of schema.DATASET."""
    return row


@pytest.fixture(scope="session")
def corpus(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], write_dataset: Any, tokenizer: Path
) -> Path:
    """A folder of tokens: the source `code`, three shards to train on and one (`HELD_OUT`) of another split."""
    return tokenized(tmp_path_factory.mktemp("corpus") / "tokens", write_dataset, rows, tokenizer)


@pytest.fixture(scope="session")
def another(tmp_path_factory: pytest.TempPathFactory, write_dataset: Any, tokenizer: Path) -> Path:
    """A folder as `corpus`, of other repositories."""
    return tokenized(tmp_path_factory.mktemp("another") / "tokens", write_dataset, repositories(1, 20), tokenizer)


def tokenized(folder: Path, write_dataset: Any, rows: list[dict[str, Any]], tokenizer: Path) -> Path:
    folder.mkdir()
    options = TokensOptions(vocab_size=600, shards=4)
    files = write_dataset(folder.parent / "data", rows, 1)
    write_run(files[0], Buckets(11, 4), folder.parent / "run")
    names = [*(shard_name("code", k, 3) for k in range(3)), shard_name("code-valid", 0, 1)]
    facts = [
        encode_bucket([folder.parent / "run"], bucket, tokenizer, options, 11, folder / name)
        for bucket, name in enumerate(names)
    ]
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    write_manifest(folder / "manifest.json", tokenizer, {"train": facts[:3], "valid": facts[3:]}, layout=options.layout)
    return folder


@pytest.fixture
def copied(corpus: Path, tmp_path: Path) -> Path:
    """A copy of `corpus` to change."""
    shutil.copytree(corpus, tmp_path / "copied")
    return tmp_path / "copied"


@pytest.fixture(scope="session")
def held_out() -> str:
    """The second split of the corpus."""
    return HELD_OUT
