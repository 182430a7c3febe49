"""From a dataset to tokens: the tasks of the tokens output, as plain functions of paths.

    sample  -> train                     a tokenizer, unless the recipe names one
    links   -> divide                    the repositories that are held out for validation
    write_run  (one per dataset file)    files sorted by (bucket, repository, revision, drawn order)
    encode_bucket  (one per bucket)      one shard: PREFIX.bin, PREFIX.idx, PREFIX.documents.parquet
    write_manifest                       manifest.json, what the trainer reads

Each writes only the paths it is given (and removes what it names beside them), and is a function of its inputs' rows,
the options and the seed: neither the order nor the number of input files changes a byte of a shard.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from stackbuild.errors import InputError
from stackbuild.render.layouts import LAYOUTS
from stackbuild.render.sentinels import END_OF_TEXT, require
from stackbuild.tokens.assemble import assemble
from stackbuild.tokens.bpe import Vocabulary
from stackbuild.tokens.documents import DocumentsWriter
from stackbuild.tokens.encode import LIBRARY, Encoder
from stackbuild.tokens.fast import NAME as FAST
from stackbuild.tokens.indexed import IndexedWriter, token_dtype
from stackbuild.tokens.options import TokensOptions
from stackbuild.tokens.runs import RUN, cut, merged
from stackbuild.tokens.splits import Divided

BATCH = 4 << 20  # bytes of text that are encoded at a time, or one larger text

_NAMES = ["repo_name", "revision_id", "path"]

Split = Literal["train", "valid"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Shard(_Record):
    """One `.bin/.idx/.documents.parquet`. `prefix`: its name beside the manifest; `sha256`: of `.bin`."""

    prefix: str = Field(pattern=r"^[^/\\\x00-\x1f]+$")
    documents: int = Field(ge=0)
    tokens: int = Field(ge=0)
    files: int = Field(ge=0)
    bytes: int = Field(ge=0, description="UTF-8 bytes of the files' texts")
    sha256: str
    sha256_index: str
    sha256_documents: str


class Source(_Record):
    """Shards that are mixed and split as one. `fim`: whether fill-in-the-middle may be applied to them. `layout`: where sources of a
    merged corpus differ in it, and the manifest therefore has none; else it is not written."""

    name: str
    split: Split
    fim: bool
    shards: tuple[Shard, ...]
    layout: str | None = None

    @model_serializer(mode="wrap")
    def _without_null(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        told: dict[str, Any] = handler(self)
        return told if self.layout is not None else {key: value for key, value in told.items() if key != "layout"}


class Division(_Record):
    """How repositories were divided: `share` was asked for; the rest as in `splits.Divided`."""

    share: float
    repos: int
    components: int
    parted: int
    bytes: int
    held_out_repos: int
    held_out_bytes: int


class TokensManifest(_Record):
    """tokens/manifest.json."""

    version: Literal[1] = 1
    tokenizer_sha256: str
    tokenizer_backend: str = LIBRARY
    vocab_size: int
    dtype: Literal["uint16", "int32"]
    eod_appended: bool
    sentinels: dict[str, int]
    layout: str | None = None
    division: Division | None = None
    sources: tuple[Source, ...]

    def layout_of(self, name: str, split: str) -> str | None:
        """How the documents of a source were rendered; None where that is not known."""
        own = {source.layout for source in self.sources if (source.name, source.split) == (name, split)} - {None}
        return next(iter(own)) if len(own) == 1 else self.layout

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, number in self.sentinels.items():
            if not 0 <= number < self.vocab_size:
                raise ValueError(
                    f"the sentinel {name} has the id {number}, outside the vocabulary of {self.vocab_size:,}"
                )
        prefixes = [shard.prefix for source in self.sources for shard in source.shards]
        if len(set(prefixes)) != len(prefixes):
            raise ValueError("a shard is named twice")
        return self


def dtype_of(vocabulary: Vocabulary, wanted: Literal["auto", "uint16", "int32"] = "auto") -> np.dtype[Any]:
    """The type of this vocabulary's tokens on disk; InputError for one that is too large for the type that is wanted."""
    try:
        return token_dtype(vocabulary.size, wanted)
    except ValueError as error:
        raise InputError(f"{vocabulary.path}: {error}") from error


def stem_of(source: str, split: Split) -> str:
    """What the names of a split's shards begin with."""
    return source if split == "train" else f"{source}-{split}"


def shard_name(stem: str, number: int, shards: int) -> str:
    """The name of a shard, as `code-00003-of-00016`, or `code-valid-00000-of-00001`."""
    return f"{stem}-{number:05}-of-{shards:05}"


def encode_bucket(
    run_paths: Sequence[str | Path],
    bucket: int,
    tokenizer_json: str | Path,
    options: TokensOptions,
    seed: int,
    prefix: str | Path,
    source: str = "code",
    backend: str = LIBRARY,
) -> dict[str, Any]:
    """Write the shard of one bucket from the runs of all dataset files, and return its `Shard` as a dict.

    Documents stand in order of (repo_name, revision_id). `PREFIX.idx` appears last: where it is, the other two are
    whole. `backend`: what `fast_check.choose` recorded. InputError for a tokenizer that lacks a sentinel of the layout,
    edits text, for a run that is not ours, or for a document of over 2^31 - 1 tokens, with its repository.
    """
    vocabulary = Vocabulary(tokenizer_json, checked=backend == FAST)
    require(vocabulary.sentinels, options.layout, str(tokenizer_json))
    encoder = Encoder(vocabulary, backend)
    layout = LAYOUTS[options.layout](vocabulary.sentinels, seed)
    end = vocabulary.sentinels[END_OF_TEXT]
    letters = _letters(vocabulary.sentinels) if options.strip_sentinels else None
    is_open = False
    begun = RUN.empty_table().select(_NAMES)  # the first file of each document that has begun and may end next
    dtype = dtype_of(vocabulary, options.dtype)
    with IndexedWriter(prefix, dtype) as tokens, DocumentsWriter(prefix, vocabulary.sha256, source) as documents:
        for table in merged(run_paths, bucket, f"{prefix}.merge"):
            for part in cut(table, BATCH):
                files = part if letters is None else _stripped(part, letters)
                made = layout.render(files)
                texts, contents = (
                    encoder.encode_array(made.texts),
                    encoder.encode_array(files["content"].combine_chunks()),
                )
                ids = assemble(made.opens, made.sentinels, texts, contents, end, is_open, tokens.dtype)
                begun = pa.concat_tables([begun, files.select(_NAMES).filter(pa.array(made.opens))])
                tokens.add_many(ids.ids, ids.ends, partial(_named, begun))
                documents.add(files, made.opens, ids.headers, ids.files)
                begun = begun.slice(begun.num_rows - 1)
                is_open = True
        if is_open:
            tokens.add(np.array([end]))
            tokens.end_document(partial(_named, begun))
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


def _named(begun: pa.Table, document: int) -> str:
    """The repository, revision and first file of a document, names of strangers escaped."""
    repo, revision, path = (begun[name][document].as_py() for name in _NAMES)
    return f"of {repo!r} at {revision!r}, which begins with {path!r}"


def _letters(sentinels: Iterable[str]) -> str:
    """A pattern of the letters of all sentinels, the longer ones first."""
    return "|".join(re.escape(name) for name in sorted(sentinels, key=lambda name: (-len(name), name)))


def _stripped(files: pa.Table, letters: str) -> pa.Table:
    """The files with the letters of sentinels taken out of their texts, once from left to right (StarCoder, starcoder1 3.11)."""
    texts = pc.replace_substring_regex(files["content"], letters, "")
    return files.set_column(files.schema.get_field_index("content"), files.schema.field("content"), texts)


def write_manifest(
    path: str | Path,
    tokenizer_json: str | Path,
    shards: Mapping[Split, Iterable[Mapping[str, Any]]],
    *,
    backend: str = LIBRARY,
    source: str = "code",
    fim: bool = True,
    dtype: Literal["auto", "uint16", "int32"] = "auto",
    layout: str | None = None,
    divided: Divided | None = None,
    share: float = 0.0,
) -> TokensManifest:
    """Write manifest.json as canonical JSON and return it.

    `shards`: of each split what `encode_bucket` returned, with `prefix` as the shard is named beside the manifest, in order of
    buckets. `backend`: what encoded them, as recorded.
    """
    vocabulary = Vocabulary(tokenizer_json)
    manifest = TokensManifest(
        tokenizer_sha256=vocabulary.sha256,
        tokenizer_backend=backend,
        vocab_size=vocabulary.size,
        dtype="uint16" if dtype_of(vocabulary, dtype).itemsize == 2 else "int32",
        eod_appended=True,
        sentinels=dict(vocabulary.sentinels),
        layout=layout,
        division=None if divided is None else Division(share=share, **asdict(divided)),
        sources=tuple(
            Source(name=source, split=split, fim=fim, shards=tuple(Shard(**shard) for shard in some))
            for split, some in shards.items()
        ),
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
