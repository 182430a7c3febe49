"""A whole tokens folder, opened for reading: every shard of its manifest, checked, memory-mapped, removals applied.

dataset = TokensDataset("OUT/tokens")
for source, split in dataset.parts:
    document = dataset.document(source, split, 0)
    document.tokens, document.mask, document.row["repo_name"]
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from stackbuild.errors import InputError
from stackbuild.shards import file_sha256
from stackbuild.tokens.documents import TOKENIZER, is_document_table, read_document
from stackbuild.tokens.indexed import BLOCK, IndexedDataset
from stackbuild.tokens.job import Shard, TokensManifest, read_manifest
from stackbuild.tokens.mapped import forget
from stackbuild.tokens.removed import END_OF_TEXT, Overlay, Removed, load_removed, pad_token

Part = tuple[str, str]  # source, split


def tokens_folder(path: str | Path) -> Path:
    """The folder of manifest.json: `path` itself, or `path/tokens` of a build; InputError if there is none."""
    for folder in (Path(path), Path(path) / "tokens"):
        if (folder / "manifest.json").is_file():
            return folder
    raise InputError(f"{path} has no tokens: there is no manifest.json in it, nor in {Path(path) / 'tokens'}")


@dataclass(frozen=True)
class Document:
    """One document. `tokens`: integers of shape (n,); `mask`: bool of shape (n,), True where a token may be a label.

    Removed tokens are padding and False in the mask; `removed` has their spans (start, end), int64 of shape (k, 2).
    """

    prefix: str
    number: int  # in the shard
    tokens: npt.NDArray[Any]
    mask: npt.NDArray[np.bool_]
    removed: npt.NDArray[np.int64]
    folder: Path = field(repr=False)

    @cached_property
    def row(self) -> dict[str, Any]:
        """Its row of the document table (`documents.DOCUMENTS`); the table is read when this is asked for."""
        return read_document(self.folder / self.prefix, self.number)


class OpenShard:
    """One shard: `tokens` memory-mapped, `spans` removed (document, start, end), `shard` what the manifest says."""

    def __init__(self, folder: Path, shard: Shard, manifest: TokensManifest, removed: Removed):
        self.folder, self.shard = folder, shard
        self.prefix = folder / shard.prefix
        self.tokens = IndexedDataset(self.prefix)
        self.spans = removed.of_shard(shard.prefix)
        self.applied = removed.is_complete(shard)  # all spans are overwritten in `.bin`
        self.vocab_size = manifest.vocab_size
        self.end = manifest.sentinels.get(END_OF_TEXT)  # it closes documents, of some sources not all of them
        self._check(manifest)
        if len(self.spans):
            self.pad = pad_token(manifest.sentinels, str(folder / "tokenizer.json"))

    def _check(self, manifest: TokensManifest) -> None:
        there = {"dtype": self.tokens.dtype.name, "documents": len(self.tokens), "tokens": self.tokens.tokens}
        said = {"dtype": manifest.dtype, "documents": self.shard.documents, "tokens": self.shard.tokens}
        for name, value in said.items():
            if there[name] != value:
                raise InputError(f"{self.prefix}: it has {name} {there[name]}; the manifest says {value}")
        path = f"{self.prefix}.documents.parquet"
        try:
            table = pq.read_metadata(path)
            metadata = table.metadata or {}
            fits = is_document_table(table.schema.to_arrow_schema())
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: cannot be read as a document table: {error}") from error
        if table.num_rows != self.shard.documents or not fits:
            raise InputError(f"{path}: it is not the document table of {self.shard.documents:,} documents")
        tokenizer = metadata.get(TOKENIZER, b"").decode("ascii", "replace")
        if tokenizer and tokenizer != manifest.tokenizer_sha256:
            raise InputError(
                f"{self.prefix}: its tokens are of the tokenizer {tokenizer[:16]}…, those of the manifest of "
                f"{manifest.tokenizer_sha256[:16]}…; shards of two tokenizers cannot be read as one corpus"
            )
        if len(self.spans) and (self.spans[:, 2] > self.tokens.sizes[self.spans[:, 0]]).any():
            raise InputError(f"{self.prefix}: a removed span reaches over its document's end")

    def removed_of(self, number: int) -> npt.NDArray[np.int64]:
        """The removed spans of a document: start, end, int64 of shape (k, 2)."""
        first, last = np.searchsorted(self.spans[:, 0], [number, number + 1])
        return self.spans[first:last, 1:]

    @cached_property
    def overlay(self) -> Overlay:
        """The tokens with padding in removed spans."""
        documents = self.spans[:, 0]
        firsts = self.tokens.offsets[documents] // self.tokens.dtype.itemsize
        sizes = self.tokens.sizes[documents].astype(np.int64)
        return Overlay(self.tokens.flat, firsts, sizes, self.spans, self.pad, self.end)

    def block(self, at: int, stop: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Tokens `at` to `stop` of the shard with padding in removed spans, and what of them may be a label."""
        if len(self.spans):
            return self.overlay.block(at, stop)
        return self.tokens.flat[at:stop], np.ones(stop - at, np.bool_)

    def known(self, at: int, stop: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """As `block`, for whoever looks ids up: on a GPU one that is none ends the process. InputError: there is such a one."""
        ids, mask = self.block(at, stop)
        if stop > at and not 0 <= ids.min() <= ids.max() < self.vocab_size:
            raise InputError(
                f"{self.prefix}.bin: it holds ids that are none of the {self.vocab_size:,} of the manifest"
            )
        return ids, mask

    def verify(self, vocab_size: int) -> None:
        """Hash the three files and look at every token; InputError names what does not fit."""
        for suffix, expected in (
            ("bin", self.shard.sha256),
            ("idx", self.shard.sha256_index),
            ("documents.parquet", self.shard.sha256_documents),
        ):
            path = f"{self.prefix}.{suffix}"
            actual = file_sha256(path)
            if actual != expected:
                raise InputError(f"{path} has SHA-256 {actual}; the manifest says {expected}")
        flat = self.tokens.flat
        for at in range(0, len(flat), BLOCK):
            block = flat[at : at + BLOCK]
            if int(block.max()) >= vocab_size or int(block.min()) < 0:
                raise InputError(f"{self.prefix}: it holds a token outside the vocabulary of {vocab_size:,}")
            forget(flat)


class TokensDataset:
    """The corpus of a folder. `parts`: its (source, split) in the order of the manifest; `removed`: what was taken out.

    Opening reads every index and every footer, no token. `verify`: also hash every file and look at every token.
    InputError: torn or foreign files, sizes that the manifest does not say, a tokenizer.json that is not that of the
    manifest, shards of another tokenizer or dtype.
    """

    def __init__(self, folder: str | Path, verify: bool = False):
        self.folder = tokens_folder(folder)
        self.manifest = read_manifest(self.folder / "manifest.json")
        self.tokenizer = self.folder / "tokenizer.json"
        check_tokenizer(self.tokenizer, self.manifest)
        self.removed = load_removed(self.folder, self.manifest)
        self._shards: dict[Part, list[OpenShard]] = {}
        for source in self.manifest.sources:
            shards = self._shards.setdefault((source.name, source.split), [])
            shards += [OpenShard(self.folder, shard, self.manifest, self.removed) for shard in source.shards]
        self._starts = {
            part: [0, *accumulate(len(one.tokens) for one in shards)] for part, shards in self._shards.items()
        }
        if verify:
            for shard in (shard for shards in self._shards.values() for shard in shards):
                shard.verify(self.manifest.vocab_size)

    def __reduce__(self) -> tuple[Any, ...]:
        return TokensDataset, (self.folder,)  # a worker maps the files itself

    @property
    def parts(self) -> list[Part]:
        """Every (source, split)."""
        return list(self._shards)

    def shards(self, source: str, split: str) -> list[OpenShard]:
        """The shards of a source and split, in order; InputError if the corpus has none such."""
        if (source, split) not in self._shards:
            there = ", ".join(f"{name} {part}" for name, part in self.parts)
            raise InputError(f"{self.folder} has no source {source!r} with a split {split!r}; there are: {there}")
        return self._shards[source, split]

    def documents(self, source: str, split: str) -> int:
        """How many documents a source and split has."""
        return sum(len(shard.tokens) for shard in self.shards(source, split))

    def tokens(self, source: str, split: str) -> int:
        """How many tokens a source and split has, removed ones among them, as they keep their places."""
        return sum(shard.tokens.tokens for shard in self.shards(source, split))

    def locate(self, source: str, split: str, number: int) -> tuple[OpenShard, int]:
        """The shard of a document, counted through the shards of its source and split, and its number there."""
        shards = self.shards(source, split)
        starts = self._starts[source, split]
        if not 0 <= number < starts[-1]:
            raise InputError(
                f"{self.folder}: {source} {split} has no document {number}; it has {starts[-1]:,}, counted from 0"
            )
        at = bisect_right(starts, number) - 1
        return shards[at], number - starts[at]

    def document(self, source: str, split: str, number: int) -> Document:
        """A document, counted through the shards of its source and split from 0; InputError if there is none."""
        return self.read(*self.locate(source, split, number))

    def read(self, shard: OpenShard, number: int) -> Document:
        """A document of a shard. Without removed spans its tokens are a read-only view of the map."""
        spans = shard.removed_of(number)
        first = int(shard.tokens.offsets[number]) // shard.tokens.dtype.itemsize
        tokens, mask = shard.block(first, first + int(shard.tokens.sizes[number]))
        return Document(shard.shard.prefix, number, tokens, mask, spans, self.folder)

    def __iter__(self) -> Iterator[tuple[Part, Document]]:
        """Every document with its (source, split), in the order of the manifest."""
        for part, shards in self._shards.items():
            for shard in shards:
                for number in range(len(shard.tokens)):
                    yield part, self.read(shard, number)


def check_tokenizer(path: Path, manifest: TokensManifest) -> None:
    """InputError unless tokenizer.json is the one that the manifest's tokens are of."""
    try:
        actual = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: the tokenizer cannot be read: {error.strerror}") from error
    if actual != manifest.tokenizer_sha256:
        raise InputError(
            f"{path} has SHA-256 {actual}; the manifest's tokens are of {manifest.tokenizer_sha256}: another tokenizer"
        )
