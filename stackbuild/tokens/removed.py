"""`tokens/removed`: what was taken out of a tokenized corpus after it was made, without moving a token.

The file is text. Its first line is a JSON object: `format` (1), `sha256` of the lines below, `spans` their number, and
`shards`, a list of {prefix, sha256_index, sha256_documents, applied, complete}: which shards are meant, by digests that
removal does not change, the SHA-256 of a shard's `.bin` as it was last overwritten, else null, and whether that one has
all spans of today, or some were added since. The mark is written before the `.bin` is exchanged, and the manifest after:
where mark and manifest differ, an overwriting was cut short, and the next removal finishes it first.

Each line below is a span, four decimal numbers with commas: the place of its shard in `shards`, the document's ordinal in
the shard, and the first token and the one behind the last, counted from the document's first token. Spans are sorted, lie
inside their document and do not touch.

A reader gives padding in place of a removed token: `<fim_pad>` if the tokenizer has it, else `<|endoftext|>`. An
`<|endoftext|>` that closes a document stays, so that documents still end where they did. No removed token, nor that
one, is ever a label.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stackbuild.errors import InputError
from stackbuild.shards import canonical_json, write_atomically
from stackbuild.tokens.indexed import LONGEST_SEQUENCE
from stackbuild.tokens.job import Shard, TokensManifest

NAME = "removed"
PADS = ("<fim_pad>", "<fim-pad>", "<|endoftext|>")
END_OF_TEXT = "<|endoftext|>"
_COLUMNS = ("shard", "document", "start", "end")
Spans = npt.NDArray[np.int64]


class RemovedShard(BaseModel):
    """A shard that spans are of. `applied`: the SHA-256 of `.bin` as last overwritten, null before; `complete`: with all
    of its spans."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    prefix: str
    sha256_index: str
    sha256_documents: str
    applied: str | None = None
    complete: bool = True


class _Header(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    format: int
    sha256: str
    spans: int = Field(ge=0)
    shards: tuple[RemovedShard, ...] = Field(strict=False)


def _nothing() -> Spans:
    return np.zeros((0, 4), np.int64)


@dataclass(frozen=True)
class Removed:
    """The removed spans of a corpus. `spans`: int64 of shape (n, 4): shard, document, start, end, sorted, disjoint."""

    shards: tuple[RemovedShard, ...] = ()
    spans: Spans = field(default_factory=_nothing)

    @cached_property
    def _rows(self) -> Mapping[str, slice]:
        """By prefix the rows of `spans` that are of the shard."""
        bounds = np.searchsorted(self.spans[:, 0], np.arange(len(self.shards) + 1)).tolist()
        return {shard.prefix: slice(*pair) for shard, pair in zip(self.shards, itertools.pairwise(bounds), strict=True)}

    @cached_property
    def _named(self) -> Mapping[str, RemovedShard]:
        return {shard.prefix: shard for shard in self.shards}

    def of_shard(self, prefix: str) -> Spans:
        """Document, start, end of the spans of one shard: int64 of shape (k, 3)."""
        return self.spans[self._rows.get(prefix, slice(0)), 1:]

    def applied(self) -> Mapping[str, str]:
        """By prefix the SHA-256 of each `.bin` that was overwritten, with all of its spans or with those of that time."""
        return {shard.prefix: shard.applied for shard in self.shards if shard.applied is not None}

    def is_complete(self, shard: Shard) -> bool:
        """Whether the `.bin` of the manifest's shard has all of its spans overwritten."""
        named = self._named.get(shard.prefix)
        return named is not None and named.complete and named.applied == shard.sha256

    def cut_short(self, manifest: TokensManifest) -> list[str]:
        """The prefixes of shards that were being overwritten when something killed it: the manifest does not know yet."""
        said = {shard.prefix: shard.sha256 for source in manifest.sources for shard in source.shards}
        return [prefix for prefix, digest in self.applied().items() if said.get(prefix) != digest]

    def adding(self, more: Iterable[tuple[Shard, Spans]]) -> Removed:
        """With more spans of several shards, each shard once: document, start, end, int64 of shape (k, 3), in any order, which
        may overlap. Itself if it has them all."""
        changed: dict[str, tuple[RemovedShard, Spans]] = {}
        for shard, spans in more:
            old = self.of_shard(shard.prefix)
            new = merged(np.concatenate([old, spans]))
            if np.array_equal(old, new):
                continue
            before = self._named.get(shard.prefix)
            named = RemovedShard(
                prefix=shard.prefix,
                sha256_index=shard.sha256_index,
                sha256_documents=shard.sha256_documents,
                applied=None if before is None else before.applied,
                complete=before is None or before.applied is None,
            )
            changed[shard.prefix] = named, new
        if not changed:
            return self
        all_named = {**self._named, **{prefix: named for prefix, (named, _) in changed.items()}}
        shards = [all_named[prefix] for prefix in sorted(all_named)]
        parts = [changed[one.prefix][1] if one.prefix in changed else self.of_shard(one.prefix) for one in shards]
        numbers = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        return Removed(tuple(shards), np.column_stack([numbers, np.concatenate(parts)]))

    def marked(self, digests: Mapping[str, str]) -> Removed:
        """With the digests, by prefix, of `.bin` files in which all spans are overwritten."""
        shards = [
            one.model_copy(update={"applied": digests[one.prefix], "complete": True}) if one.prefix in digests else one
            for one in self.shards
        ]
        return replace(self, shards=tuple(shards))

    def to_bytes(self) -> bytes:
        """The file's bytes; equal removals, equal bytes."""
        body = io.BytesIO()
        table = pa.table({name: self.spans[:, k] for k, name in enumerate(_COLUMNS)})
        pacsv.write_csv(table, body, pacsv.WriteOptions(include_header=False))
        header = {
            "format": 1,
            "sha256": hashlib.sha256(body.getvalue()).hexdigest(),
            "spans": len(self.spans),
            "shards": [shard.model_dump() for shard in self.shards],
        }
        return canonical_json(header) + b"\n" + body.getvalue()

    def save(self, folder: str | Path) -> None:
        """Write `removed` beside the manifest, by a rename."""
        write_atomically(Path(folder) / NAME, self.to_bytes())


def merged(spans: Spans) -> Spans:
    """Spans (document, start, end), sorted, with those that overlap or touch made one: int64 of shape (n, 3)."""
    spans = spans[spans[:, 2] > spans[:, 1]]
    spans = spans[np.lexsort((spans[:, 1], spans[:, 0]))]
    if len(spans) == 0:
        return spans
    # One axis for all documents, on which they cannot touch: a running maximum of the ends then stays in its document.
    _, place = np.unique(spans[:, 0], return_inverse=True)
    base = place.astype(np.int64) * (LONGEST_SEQUENCE + 2)
    reach = np.maximum.accumulate(base + spans[:, 2])
    begins = np.flatnonzero(np.append(True, (base + spans[:, 1])[1:] > reach[:-1]))
    ends = reach[np.append(begins[1:], len(spans)) - 1] - base[begins]
    return np.column_stack([spans[begins, 0], spans[begins, 1], ends])


def load_removed(folder: str | Path, manifest: TokensManifest | None = None) -> Removed:
    """Read `removed` beside a manifest; nothing is removed where there is none.

    InputError if the file is torn, or was changed, or (with `manifest`) is of other shards than the manifest's.
    """
    path = Path(folder) / NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Removed()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    first, _, body = data.partition(b"\n")
    try:
        header = _Header.model_validate_json(first)
    except ValidationError as error:
        raise InputError(f"{path}: its first line is not that of a list of removed spans: {error}") from error
    if header.format != 1:
        raise InputError(f"{path}: format {header.format}; this version reads format 1")
    if hashlib.sha256(body).hexdigest() != header.sha256:
        raise InputError(f"{path}: its lines do not hash to what its first line says: it is torn or was changed")
    removed = Removed(header.shards, _spans(body, path))
    _check(removed, header, path)
    if manifest is not None:
        check_shards(removed, manifest, path)
    return removed


def _spans(body: bytes, path: Path) -> Spans:
    if not body:
        return _nothing()
    try:
        table = pacsv.read_csv(
            io.BytesIO(body),
            pacsv.ReadOptions(column_names=_COLUMNS),
            convert_options=pacsv.ConvertOptions(column_types=dict.fromkeys(_COLUMNS, pa.int64()), null_values=[]),
        )
    except pa.ArrowException as error:
        raise InputError(f"{path}: cannot be read as spans: {error}") from error
    return np.column_stack([table[name].to_numpy() for name in _COLUMNS])


def _check(removed: Removed, header: _Header, path: Path) -> None:
    spans, shards = removed.spans, len(removed.shards)
    names = [shard.prefix for shard in removed.shards]
    if len(spans) != header.spans or sorted(set(names)) != names:
        raise InputError(f"{path}: its first line does not fit the lines below")
    if len(spans) and (spans.min() < 0 or spans[:, 0].max() >= shards or (spans[:, 2] >= spans[:, 3]).any()):
        raise InputError(f"{path}: a span is of no shard, or empty")
    parts = [removed.of_shard(name) for name in names]
    if (np.diff(spans[:, 0]) < 0).any() or any(not np.array_equal(part, merged(part)) for part in parts):
        raise InputError(f"{path}: its spans are not sorted, or overlap")


def check_shards(removed: Removed, manifest: TokensManifest, path: Path) -> None:
    """InputError unless the manifest has the shards that spans are of, and their documents."""
    there = {shard.prefix: shard for source in manifest.sources for shard in source.shards}
    for named in removed.shards:
        shard = there.get(named.prefix)
        if shard is None or (shard.sha256_index, shard.sha256_documents) != (
            named.sha256_index,
            named.sha256_documents,
        ):
            raise InputError(
                f"{path}: its spans are of another {named.prefix} than the one that stands beside it. Take the file "
                "away and ask for the removal again."
            )
        spans = removed.of_shard(named.prefix)
        if len(spans) and spans[:, 0].max() >= shard.documents:
            raise InputError(f"{path}: {named.prefix} has {shard.documents:,} documents; a span is of none of them")


def pad_token(sentinels: Mapping[str, int], where: str) -> int:
    """The id that stands for removed tokens; InputError if the tokenizer has none of `PADS`."""
    for name in PADS:
        if name in sentinels:
            return sentinels[name]
    raise InputError(f"{where}: its tokenizer has none of {', '.join(PADS)} to put in the place of removed tokens")


def dump_manifest(manifest: TokensManifest) -> bytes:
    """The bytes of manifest.json, as `job.write_manifest` writes them."""
    text = json.dumps(manifest.model_dump(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode() + b"\n"


def with_digests(manifest: TokensManifest, digests: Mapping[str, str]) -> TokensManifest:
    """The manifest with other SHA-256 of the `.bin` of shards, by prefix."""
    sources = []
    for source in manifest.sources:
        shards = [
            one.model_copy(update={"sha256": digests[one.prefix]}) if one.prefix in digests else one
            for one in source.shards
        ]
        sources.append(source.model_copy(update={"shards": tuple(shards)}))
    return manifest.model_copy(update={"sources": tuple(sources)})


class Overlay:
    """The tokens of a shard with padding in its removed spans.

    `flat`: all tokens of the shard; `firsts`, `sizes`: int64 of shape (k,), the place of the first token and the length
    of each span's document; `spans`: (document, start, end) of shape (k, 3). `end`: the id that closes documents, which
    stays where it is the last token, None if documents are not closed.
    """

    def __init__(self, flat: npt.NDArray[Any], firsts: Spans, sizes: Spans, spans: Spans, pad: int, end: int | None):
        self._flat, self._pad = flat, np.asarray(pad, flat.dtype)
        self._starts, self._ends = firsts + spans[:, 1], firsts + spans[:, 2]
        last = self._ends[spans[:, 2] == sizes] - 1
        self._closing = last[flat[last] == end] if end is not None else last[:0]

    def block(self, at: int, stop: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Tokens `at` to `stop` of the shard, and the mask of what may be a label: both of shape (stop - at,)."""
        first = int(np.searchsorted(self._ends, at, side="right"))
        last = int(np.searchsorted(self._starts, stop))
        removed = np.zeros(stop - at + 1, np.int64)
        removed[np.maximum(self._starts[first:last] - at, 0)] += 1
        removed[np.minimum(self._ends[first:last], stop) - at] -= 1
        mask = np.cumsum(removed[:-1]) == 0
        tokens = np.where(mask, self._flat[at:stop], self._pad)
        low, high = np.searchsorted(self._closing, [at, stop])
        kept = self._closing[low:high]
        tokens[kept - at] = self._flat[kept]
        return tokens, mask
