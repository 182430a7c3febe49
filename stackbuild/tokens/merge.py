"""`stackbuild tokens merge`: one `.bin/.idx/.documents.parquet` for each source and split, out of its shards.

Tokens are copied in blocks and table rows a row group at a time, so that memory does not grow with the corpus. Every
file that is read is held against its digest in the manifest while it is copied; a merged folder is renamed into place
when all is written, and there is none otherwise.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from stackbuild.errors import InputError
from stackbuild.shards import file_sha256
from stackbuild.tokens.dataset import OpenShard, TokensDataset
from stackbuild.tokens.documents import schema_for
from stackbuild.tokens.folders import TableFile, new_folder
from stackbuild.tokens.indexed import IndexedWriter, document_blocks
from stackbuild.tokens.job import Shard, Source, Split, TokensManifest, shard_name, stem_of
from stackbuild.tokens.mapped import forget
from stackbuild.tokens.removed import Removed, dump_manifest

_NUMBER = re.compile(r"-\d{5,}-of-\d{5,}$")


@dataclass(frozen=True)
class _Input:
    """What a folder has of a source and split."""

    corpus: TokensDataset
    source: Source
    shards: list[OpenShard]


def merge(folders: Sequence[str | Path], dest: str | Path) -> TokensManifest:
    """Merge the shards of one or more tokens folders into `dest` and return its manifest.

    Documents keep their order (folders as given, shards as in the manifests); those of a source and split that several
    folders have stand one behind the other. Removed spans go along, with the new ordinals. `layout` is null if the folders
    have several, which each source tells then, and `eod_appended` true if it is of all. InputError: two tokenizers, dtypes or
    settings of a source, two shards with the same documents, a torn shard, or one whose digest is not that of the manifest.
    """
    corpora = [TokensDataset(folder) for folder in folders]
    first = corpora[0].manifest
    for corpus in corpora[1:]:
        _same(corpora[0], corpus)
    groups: dict[tuple[str, Split], list[_Input]] = {}
    for corpus in corpora:
        for source in corpus.manifest.sources:
            shards = {one.shard.prefix: one for one in corpus.shards(source.name, source.split)}
            group = groups.setdefault((source.name, source.split), [])
            group.append(_Input(corpus, source, [shards[shard.prefix] for shard in source.shards]))
    for group in groups.values():
        _one_source(group)
    layouts = {corpus.manifest.layout_of(*part) for corpus in corpora for part in corpus.parts}
    alike = len(layouts) == 1
    _no_document_twice(corpora)
    with new_folder(dest) as part:
        merged, found, overwritten, prefixes = [], [], {}, set()
        for (name, split), group in groups.items():
            inputs = [one for member in group for one in member.shards]
            prefix = part / shard_name(_stem(inputs, name, split), 0, 1)
            if prefix in prefixes:
                raise InputError(f"{dest}: two sources or splits would both become {prefix.name}; merge them apart")
            prefixes.add(prefix)
            shard, spans, applied = _merge(inputs, prefix, first)
            known = {one.corpus.manifest.layout_of(name, split) for one in group} - {None}
            layout = None if alike else next(iter(known), None)
            merged.append(group[0].source.model_copy(update={"shards": (shard,), "layout": layout}))
            found.append((shard, spans))
            if applied and len(spans):
                overwritten[shard.prefix] = shard.sha256
        removed = Removed().adding(found).marked(overwritten)
        together = {
            "sources": tuple(merged),
            "division": first.division if len(corpora) == 1 else None,  # of a build; of several there is none
            "layout": next(iter(layouts)) if alike else None,
            "eod_appended": all(corpus.manifest.eod_appended for corpus in corpora),
        }
        manifest = first.model_copy(update=together)
        shutil.copyfile(corpora[0].tokenizer, part / "tokenizer.json")
        if len(removed.spans):
            removed.save(part)
        (part / "manifest.json").write_bytes(dump_manifest(manifest))
        TokensDataset(part)  # what was written is a corpus
    return manifest


def _same(one: TokensDataset, other: TokensDataset) -> None:
    """InputError unless the tokens of two folders can be of one manifest."""
    left, right = one.manifest, other.manifest
    for name in ("tokenizer_sha256", "vocab_size", "sentinels"):
        if getattr(left, name) != getattr(right, name):
            raise InputError(
                f"{one.folder} and {other.folder} are of two tokenizers: {name} differs; tokenize one of them again"
            )
    if left.dtype != right.dtype:
        raise InputError(
            f"{one.folder} has tokens of dtype {left.dtype}, {other.folder} of {right.dtype}; tokenize one of them again with the "
            "dtype of the other"
        )


def _one_source(group: list[_Input]) -> None:
    """InputError unless what several folders have of a source and split may become one source. A null layout is none known."""
    first = group[0]
    for other in group[1:]:
        fim = first.source.fim, other.source.fim
        part = first.source.name, first.source.split
        layouts = first.corpus.manifest.layout_of(*part), other.corpus.manifest.layout_of(*part)
        for name, (left, right) in {"fim": fim, "layout": layouts}.items():
            if left != right and left is not None and right is not None:
                raise InputError(
                    f"{first.corpus.folder} and {other.corpus.folder} both have the source {first.source.name}, "
                    f"{first.source.split}, but {name} is {left} in one and {right} in the other. Tokenize one of them again, "
                    "import it as another source (import-ds --source), or merge them apart."
                )


def _no_document_twice(corpora: list[TokensDataset]) -> None:
    """InputError if shards of two folders have equal document tables: they would stand in the corpus twice.

    Tables that name no file are equal by chance, so there the tokens have to be equal too.
    """
    seen: dict[tuple[str, str], OpenShard] = {}
    for corpus in corpora:
        shards = [one for part in corpus.parts for one in corpus.shards(*part) if one.shard.documents]
        keys = [(one.shard.sha256_documents, "" if one.shard.files else one.shard.sha256) for one in shards]
        for key, one in zip(keys, shards, strict=True):
            if key in seen:
                raise InputError(
                    f"{seen[key].prefix} and {one.prefix} are shards of the same documents, which would stand in the merged "
                    "corpus twice; name each folder once. Nothing was merged."
                )
        seen.update(zip(keys, shards, strict=True))


def _stem(inputs: list[OpenShard], name: str, split: Split) -> str:
    """The name of the merged shard without its number: that of the shards, where they say one."""
    if inputs:
        return _NUMBER.sub("", inputs[0].shard.prefix)
    return stem_of(name, split)


def _merge(
    inputs: list[OpenShard], prefix: Path, manifest: TokensManifest
) -> tuple[Shard, npt.NDArray[np.int64], bool]:
    """Write one shard; returns it, its removed spans, and whether these were overwritten in all of its tokens."""
    files = size = 0
    spans = [np.zeros((0, 3), np.int64)]
    applied = True
    schema = schema_for(manifest.tokenizer_sha256)
    with IndexedWriter(prefix, manifest.dtype) as tokens, TableFile(f"{prefix}.documents.parquet", schema) as table:
        for one in inputs:
            spans.append(one.spans + np.array([tokens.documents, 0, 0]))
            applied &= not len(one.spans) or one.applied
            _copy_table(one, tokens.documents, table)
            _copy_tokens(one, tokens)
            files += one.shard.files
            size += one.shard.bytes
    shard = Shard(
        prefix=prefix.name,
        documents=tokens.documents,
        tokens=tokens.tokens,
        files=files,
        bytes=size,
        sha256=tokens.sha256_bin,
        sha256_index=tokens.sha256_idx,
        sha256_documents=table.sha256,
    )
    return shard, np.concatenate(spans), applied


def _copy_tokens(one: OpenShard, out: IndexedWriter) -> None:
    """Append all documents of a shard, in blocks; its `.bin` and `.idx` are hashed on the way."""
    _held_to(f"{one.prefix}.idx", file_sha256(f"{one.prefix}.idx"), one.shard.sha256_index)
    seen = hashlib.sha256()
    for at, stop, ends in document_blocks(len(one.tokens), one.tokens.ends):
        block = one.tokens.flat[at:stop]
        seen.update(block.data)
        out.add_many(block, ends)
        forget(one.tokens.flat)
    _held_to(f"{one.prefix}.bin", seen.hexdigest(), one.shard.sha256)


def _copy_table(one: OpenShard, before: int, out: TableFile) -> None:
    """Append the document table of a shard, whose ordinals run on from `before`."""
    path = f"{one.prefix}.documents.parquet"
    _held_to(path, file_sha256(path), one.shard.sha256_documents)
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            rows = before
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                numbers = pa.array(np.arange(rows, rows + table.num_rows))
                column = table.schema.get_field_index("document")
                out.write(table.set_column(column, out.schema.field("document"), numbers).select(out.schema.names))
                rows += table.num_rows
    except pa.ArrowException as error:
        raise InputError(f"{path}: cannot be read as a document table: {error}") from error


def _held_to(path: str, actual: str, expected: str) -> None:
    if actual != expected:
        raise InputError(f"{path} has SHA-256 {actual}; the manifest says {expected}. Nothing was merged.")
