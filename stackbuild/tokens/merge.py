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


def merge(folders: Sequence[str | Path], dest: str | Path) -> TokensManifest:
    """Merge the shards of one or more tokens folders into `dest` and return its manifest.

    Documents keep their order (folders as given, shards as in the manifests); those of a source and split that several
    folders have stand one behind the other. Removed spans go along, with the new ordinals. InputError: two tokenizers,
    dtypes or settings of a source, a torn shard, or one whose digest is not that of the manifest.
    """
    corpora = [TokensDataset(folder) for folder in folders]
    first = corpora[0].manifest
    for corpus in corpora[1:]:
        _same(corpora[0], corpus)
    groups: dict[tuple[str, Split], list[tuple[Source, list[OpenShard]]]] = {}
    for corpus in corpora:
        for source in corpus.manifest.sources:
            shards = {one.shard.prefix: one for one in corpus.shards(source.name, source.split)}
            group = groups.setdefault((source.name, source.split), [])
            group.append((source, [shards[shard.prefix] for shard in source.shards]))
    with new_folder(dest) as part:
        removed, merged, prefixes = Removed(), [], set()
        for (name, split), group in groups.items():
            kind = group[0][0]
            if any(source.model_copy(update={"shards": kind.shards}) != kind for source, _ in group):
                raise InputError(f"{dest}: the source {name}, {split}, is set up in two ways (fim); merge them apart")
            inputs = [one for _, shards in group for one in shards]
            prefix = part / shard_name(_stem(inputs, name, split), 0, 1)
            if prefix in prefixes:
                raise InputError(f"{dest}: two sources or splits would both become {prefix.name}; merge them apart")
            prefixes.add(prefix)
            shard, spans, applied = _merge(inputs, prefix, first)
            merged.append(kind.model_copy(update={"shards": (shard,)}))
            if len(spans):
                removed = removed.adding(shard, spans)
                removed = removed.marked(shard.prefix, shard.sha256) if applied else removed
        division = first.division if len(corpora) == 1 else None  # of a build; of several there is none
        manifest = first.model_copy(update={"sources": tuple(merged), "division": division})
        shutil.copyfile(corpora[0].tokenizer, part / "tokenizer.json")
        if len(removed.spans):
            removed.save(part)
        (part / "manifest.json").write_bytes(dump_manifest(manifest))
        TokensDataset(part)  # what was written is a corpus
    return manifest


def _same(one: TokensDataset, other: TokensDataset) -> None:
    left, right = (
        corpus.manifest.model_dump(exclude={"sources", "division", "tokenizer_backend"}) for corpus in (one, other)
    )
    for name, value in left.items():
        if right[name] != value:
            what = "tokenizers" if name in ("tokenizer_sha256", "vocab_size", "sentinels") else f"values of {name}"
            raise InputError(f"{one.folder} and {other.folder} are of two {what}; tokenize one of them again")


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
