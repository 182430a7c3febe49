"""From a dataset to tokens: the tasks of the tokens output, as plain functions of paths.

    sample  -> train                     a tokenizer, unless the recipe names one
    runs    (one per dataset file)       files sorted by (bucket, repository, revision, drawn order)
    encode_bucket  (one per bucket)      one shard: PREFIX.bin, PREFIX.idx, PREFIX.documents.parquet
    write_manifest                       manifest.json, what the trainer reads

Each writes only the paths it is given (and removes what it names beside them), and is a function of its inputs' rows,
the options and the seed: neither the order nor the number of input files changes a byte of a shard.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stackbuild.errors import InputError
from stackbuild.render.repository import File, render
from stackbuild.render.sentinels import require
from stackbuild.tokens.bpe import Vocabulary
from stackbuild.tokens.documents import DocumentsWriter
from stackbuild.tokens.encode import Encoder
from stackbuild.tokens.indexed import IndexedWriter, token_dtype
from stackbuild.tokens.options import TokensOptions
from stackbuild.tokens.runs import merged, write_run
from stackbuild.tokens.sample import sample, train

__all__ = [
    "Shard",
    "TokensManifest",
    "TokensOptions",
    "dtype_of",
    "encode_bucket",
    "read_manifest",
    "runs",
    "sample",
    "shard_name",
    "train",
    "write_manifest",
]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Shard(_Record):
    """One `.bin/.idx/.documents.parquet`. `prefix`: its name beside the manifest; `sha256`: of `.bin`."""

    prefix: str = Field(pattern=r"^[^/\\]+$")
    documents: int = Field(ge=0)
    tokens: int = Field(ge=0)
    files: int = Field(ge=0)
    bytes: int = Field(ge=0, description="UTF-8 bytes of the files' texts")
    sha256: str
    sha256_index: str
    sha256_documents: str


class Source(_Record):
    """Shards that are mixed and split as one. `fim`: whether fill-in-the-middle may be applied to them."""

    name: str
    split: Literal["train", "validation", "test"]
    fim: bool
    shards: tuple[Shard, ...]


class TokensManifest(_Record):
    """tokens/manifest.json."""

    version: Literal[1] = 1
    tokenizer_sha256: str
    vocab_size: int
    dtype: Literal["uint16", "int32"]
    eod_appended: bool
    sentinels: dict[str, int]
    sources: tuple[Source, ...]


def dtype_of(vocabulary: Vocabulary, wanted: Literal["auto", "uint16", "int32"] = "auto") -> np.dtype[Any]:
    """The type of this vocabulary's tokens on disk; InputError for one that is too large for the type that is wanted."""
    try:
        return token_dtype(vocabulary.size, wanted)
    except ValueError as error:
        raise InputError(f"{vocabulary.path}: {error}") from error


def shard_name(source: str, number: int, shards: int) -> str:
    """The name of a shard, as `code-00003-of-00016`."""
    return f"{source}-{number:05}-of-{shards:05}"


def runs(dataset_file: str | Path, buckets: int, seed: int, out_path: str | Path) -> dict[str, int]:
    """Write the sorted run of one dataset Parquet file (schema.DATASET) and return {"files", "bytes"}.

    InputError if a column is missing, or null where a document needs it.
    """
    return write_run(dataset_file, buckets, seed, out_path)


def encode_bucket(
    run_paths: Sequence[str | Path],
    bucket: int,
    tokenizer_json: str | Path,
    options: TokensOptions,
    seed: int,
    prefix: str | Path,
) -> dict[str, Any]:
    """Write the shard of one bucket from the runs of all dataset files, and return its `Shard` as a dict.

    Documents stand in order of (repo_name, revision_id). `PREFIX.idx` appears last: where it is, the other two are
    whole. InputError for a tokenizer that lacks a sentinel of the layout, edits text, or for a run that is not ours.
    """
    vocabulary = Vocabulary(tokenizer_json)
    require(vocabulary.sentinels, options.layout, str(tokenizer_json))
    encoder = Encoder(vocabulary)
    dtype = dtype_of(vocabulary, options.dtype)
    files = _files(merged(run_paths, bucket, f"{prefix}.merge"))
    with IndexedWriter(prefix, dtype) as tokens, DocumentsWriter(prefix, vocabulary.sha256) as documents:
        for segment, ids in encoder.segments(render(files, vocabulary.sentinels, seed)):
            tokens.add(ids)
            documents.add(segment.role, len(ids), segment.file)
            if segment.closes:
                tokens.end_document()
    return Shard(
        prefix=Path(prefix).name,
        documents=tokens.documents,
        tokens=tokens.tokens,
        files=documents.files,
        bytes=documents.bytes,
        sha256=tokens.sha256_bin,
        sha256_index=tokens.sha256_idx,
        sha256_documents=documents.sha256,
    ).model_dump()


def _files(tables: Iterable[pa.Table]) -> Iterator[File]:
    names = ("repo_name", "revision_id", "path", "license_type", "language", "content")
    for table in tables:
        columns = {name: table.column(name).to_pylist() for name in names}
        ids = [content_id.hex() for content_id in table.column("content_id").to_pylist()]
        lengths = pc.binary_length(table.column("content")).to_pylist()
        yield from map(
            File,
            columns["repo_name"],
            columns["revision_id"],
            columns["path"],
            ids,
            columns["license_type"],
            columns["language"],
            columns["content"],
            lengths,
        )


def write_manifest(
    path: str | Path,
    tokenizer_json: str | Path,
    shards: Iterable[Mapping[str, Any]],
    *,
    source: str = "code",
    split: Literal["train", "validation", "test"] = "train",
    fim: bool = True,
    dtype: Literal["auto", "uint16", "int32"] = "auto",
) -> TokensManifest:
    """Write manifest.json as canonical JSON and return it.

    `shards`: what `encode_bucket` returned, with `prefix` as the shard is named beside the manifest, in order of
    buckets.
    """
    vocabulary = Vocabulary(tokenizer_json)
    manifest = TokensManifest(
        tokenizer_sha256=vocabulary.sha256,
        vocab_size=vocabulary.size,
        dtype="uint16" if dtype_of(vocabulary, dtype).itemsize == 2 else "int32",
        eod_appended=True,
        sentinels=dict(vocabulary.sentinels),
        sources=(Source(name=source, split=split, fim=fim, shards=tuple(Shard(**shard) for shard in shards)),),
    )
    text = json.dumps(manifest.model_dump(), sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    part = Path(f"{path}.part")
    with open(part, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    return manifest


def read_manifest(path: str | Path) -> TokensManifest:
    """Read manifest.json; InputError if it is none, or of another version."""
    try:
        return TokensManifest.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise InputError(f"{path}: is no tokens manifest of version 1: {error}") from error
