"""datatrove's `.ds` files, in and out.

What its DocumentTokenizer writes (datatrove 0.10.1, pipeline/tokens/tokenizer.py), all little-endian:

    NAME.ds           tokens, uint16, or uint32 if the vocabulary has more than 65,536 entries
    NAME.ds.index     uint64 for each document: where it ends in NAME.ds, in tokens
    NAME.ds.metadata  text, optional: "tokenizer|bytes of a token", the number of tokens, the same for people
    NAME.ds.loss      optional: a byte for each token, 0 where it is no label
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.errors import InputError
from stackbuild.tokens.bpe import Vocabulary
from stackbuild.tokens.dataset import OpenShard, TokensDataset
from stackbuild.tokens.documents import DOCUMENTS, schema_for
from stackbuild.tokens.folders import TableFile, new_folder
from stackbuild.tokens.indexed import BLOCK, IndexedWriter, document_blocks
from stackbuild.tokens.job import Shard, Source, Split, TokensManifest, dtype_of, shard_name, stem_of
from stackbuild.tokens.mapped import forget, mapped
from stackbuild.tokens.options import MOST_SHARDS
from stackbuild.tokens.removed import END_OF_TEXT, dump_manifest

ROW_GROUP = 1 << 16  # documents
WIDTHS: dict[int, np.dtype[Any]] = {2: np.dtype("<u2"), 4: np.dtype("<u4")}
WIDE = 1 << 16  # datatrove takes four bytes for a vocabulary of more entries


class DsFile:
    """One `.ds` file, memory-mapped and checked. `tokens`: (n,); `ends`: int64 of shape (documents,), in tokens.

    InputError, naming the file, if one of them is missing, torn, or does not fit the others.
    """

    def __init__(self, path: Path):
        self.path = path
        sizes = {suffix: self._size(suffix) for suffix in ("", ".index", ".loss")}
        if sizes[""] is None:
            raise InputError(f"{path}: cannot be read")
        if sizes[".index"] is None:
            raise InputError(f"{path}.index is not there: without it nobody knows where a document ends")
        if sizes[".index"] % 8:
            raise InputError(f"{path}.index has {sizes['.index']:,} bytes, not 8 for each document: it is torn")
        ends = self._map(".index", "<u8", sizes[".index"] // 8)
        total = self._check(ends)
        self.ends: npt.NDArray[np.int64] = ends.view(np.int64)
        width = self._width(sizes[""], total)
        if sizes[""] != total * width:
            raise InputError(
                f"{path} has {sizes['']:,} bytes where {total:,} tokens of {width} bytes need {total * width:,}: it or "
                "its .index is torn"
            )
        self.tokens = self._map("", WIDTHS[width], total)
        self.loss: npt.NDArray[np.uint8] | None = None
        if sizes[".loss"] is not None:
            if sizes[".loss"] != total:
                raise InputError(f"{path}.loss has {sizes['.loss']:,} bytes for {total:,} tokens: it is torn")
            self.loss = self._map(".loss", "u1", total)

    def _size(self, suffix: str) -> int | None:
        path = Path(f"{self.path}{suffix}")
        return os.path.getsize(path) if path.is_file() else None

    def _map(self, suffix: str, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        return mapped(f"{self.path}{suffix}", count * np.dtype(dtype).itemsize).view(dtype)

    def _check(self, ends: npt.NDArray[np.uint64]) -> int:
        last = 0
        for at in range(0, len(ends), BLOCK):
            block = ends[at : at + BLOCK]
            if int(block[0]) < last or np.any(block[1:] < block[:-1]) or int(block[-1]) > 2**62:
                raise InputError(f"{self.path}.index does not rise: a document would end before it begins")
            last = int(block[-1])
        return last

    def _width(self, size: int, total: int) -> int:
        """Bytes of a token: what the metadata say, else what the sizes say."""
        path = Path(f"{self.path}.metadata")
        if not path.is_file():
            width = size // total if total else 2
        else:
            try:
                first, count, *_ = path.read_text("utf-8").split("\n")
                width, told = int(first.rpartition("|")[2]), int(count)
            except (ValueError, OSError) as error:
                raise InputError(
                    f"{path}: not the metadata of a .ds file (tokenizer|bytes of a token, tokens)"
                ) from error
            if told != total:
                raise InputError(f"{path} tells of {told:,} tokens, {self.path}.index of {total:,}")
        if width not in WIDTHS:
            raise InputError(
                f"{self.path}: its tokens would have {width} bytes each, not 2 or 4: it or its .index is torn"
            )
        return width


def import_ds(
    folder: str | Path,
    dest: str | Path,
    tokenizer: str | Path,
    *,
    source: str = "ds",
    split: Split = "train",
    fim: bool = False,
    ignore_loss: bool = False,
) -> TokensManifest:
    """Make a tokens folder `dest` out of the `.ds` files of a folder, one shard each in the order of their names.

    The document table knows of each document its tokens and bytes; it names no repository and no file. `eod_appended` is
    true if every document ends with `<|endoftext|>`. InputError: a file that is torn, a token that the tokenizer does not
    have, a loss mask that leaves tokens out, which this format does not hold (`ignore_loss` drops it), or more files than a corpus
    may have shards.
    """
    paths = sorted(Path(folder).glob("*.ds"))
    if not paths:
        raise InputError(f"{folder}: there is no .ds file in it")
    if len(paths) > MOST_SHARDS:
        raise InputError(
            f"{folder} has {len(paths):,} .ds files, each of which becomes a shard; a corpus has at most {MOST_SHARDS:,}. Import "
            "parts of them and merge these (stackbuild tokens merge)."
        )
    vocabulary = Vocabulary(tokenizer)
    dtype = dtype_of(vocabulary)
    lengths = byte_lengths(vocabulary)
    end = vocabulary.sentinels.get(END_OF_TEXT)
    shards, closed = [], end is not None
    with new_folder(dest) as part:
        for number, path in enumerate(paths):
            file = DsFile(path)
            if file.loss is not None and not ignore_loss:
                _all_labels(file)
            prefix = part / shard_name(stem_of(source, split), number, len(paths))
            shard, all_closed = _import(file, prefix, source, dtype, vocabulary, lengths, -1 if end is None else end)
            shards.append(shard)
            closed &= all_closed
        manifest = TokensManifest(
            tokenizer_sha256=vocabulary.sha256,
            vocab_size=vocabulary.size,
            dtype="uint16" if dtype.itemsize == 2 else "int32",
            eod_appended=closed,
            sentinels=dict(vocabulary.sentinels),
            sources=(Source(name=source, split=split, fim=fim, shards=tuple(shards)),),
        )
        shutil.copyfile(tokenizer, part / "tokenizer.json")
        (part / "manifest.json").write_bytes(dump_manifest(manifest))
        TokensDataset(part)
    return manifest


def _all_labels(file: DsFile) -> None:
    loss = file.loss if file.loss is not None else np.empty(0, np.uint8)
    for at in range(0, len(loss), BLOCK):
        if not loss[at : at + BLOCK].all():
            raise InputError(
                f"{file.path}.loss leaves tokens out of the loss, which a tokens folder does not hold. To train on them all "
                "the same, import with --ignore-loss."
            )


def _import(
    file: DsFile,
    prefix: Path,
    source: str,
    dtype: npt.DTypeLike,
    vocabulary: Vocabulary,
    lengths: npt.NDArray[np.int64] | None,
    end: int,
) -> tuple[Shard, bool]:
    """Write a shard; also tells whether every document ends with the token `end`."""
    closed, rest, held = True, 0, 0  # `rest`: bytes of the document that the last block left open
    waiting: list[tuple[npt.NDArray[Any], ...]] = []
    schema = schema_for(vocabulary.sha256)
    total = done = 0
    with IndexedWriter(prefix, dtype) as out, TableFile(f"{prefix}.documents.parquet", schema) as table:
        for at, stop, ends in document_blocks(len(file.ends), lambda some: file.ends[some]):
            block = file.tokens[at:stop]
            if block.size and int(block.max()) >= vocabulary.size:
                raise InputError(
                    f"{file.path}: token {int(block.max()):,} is not in {vocabulary.path}, which has "
                    f"{vocabulary.size:,} entries: it was made with another tokenizer"
                )
            out.add_many(block.astype(dtype), ends, lambda _: f"of {file.path}")
            forget(file.tokens)
            spread = np.zeros(len(block) + 1, np.int64)
            if lengths is not None:
                np.cumsum(lengths[block], out=spread[1:])
            sizes = np.diff(spread[ends], prepend=-rest)
            rest = int(spread[-1]) - (int(spread[ends[-1]]) if len(ends) else -rest)
            tokens = np.diff(file.ends[done : done + len(ends)], prepend=int(file.ends[done - 1]) if done else 0)
            ended = (tokens > 0) & (block[ends - 1] == end) if len(block) else np.zeros(len(ends), np.bool_)
            closed = closed and bool(ended.all())
            done, total, held = done + len(ends), total + int(sizes.sum()), held + len(ends)
            waiting.append((tokens, sizes, ended))
            if held >= ROW_GROUP:
                table.write(_rows(waiting, table.rows, source))
                waiting, held = [], 0
        table.write(_rows(waiting, table.rows, source))
    shard = Shard(
        prefix=prefix.name,
        documents=out.documents,
        tokens=out.tokens,
        files=0,
        bytes=total,
        sha256=out.sha256_bin,
        sha256_index=out.sha256_idx,
        sha256_documents=table.sha256,
    )
    return shard, closed


def _rows(parts: list[tuple[npt.NDArray[Any], ...]], first: int, source: str) -> pa.Table:
    """Rows of the document table of which only tokens and bytes are known; `files` is null where no `<|endoftext|>` ends one."""
    tokens, sizes = (np.concatenate([np.zeros(0, np.int64), *(part[k] for part in parts)]) for k in range(2))
    ended = np.concatenate([np.zeros(0, np.bool_), *(part[2] for part in parts)])
    known: dict[str, Any] = {"document": np.arange(first, first + len(tokens)), "tokens": tokens, "bytes": sizes}
    known["source"] = pa.repeat(source, len(tokens))
    files = _empty(DOCUMENTS.field("files").type, len(tokens))
    known["files"] = pc.if_else(pa.array(ended), files, pa.scalar(None, files.type))
    columns = [
        _empty(field.type, len(tokens)) if field.name not in known else pa.array(known[field.name], field.type)
        for field in DOCUMENTS
    ]
    return pa.table(columns, schema=DOCUMENTS)


def _empty(kind: pa.DataType, rows: int) -> pa.Array:
    """So many empty texts, or empty lists."""
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(
            pa.array(np.zeros(rows + 1, np.int32)), pa.array([], kind.value_type), type=kind
        )
    return pa.array([""], kind).take(pa.array(np.zeros(rows, np.int64)))


def byte_lengths(vocabulary: Vocabulary) -> npt.NDArray[np.int64] | None:
    """The bytes that each token stands for, int64 of shape (vocabulary,), sentinels 0; None if it is not byte-level."""
    if (json.loads(vocabulary.tokenizer.to_str()).get("decoder") or {}).get("type") != "ByteLevel":
        return None
    lengths = np.zeros(vocabulary.size, np.int64)
    for token, number in vocabulary.tokenizer.get_vocab().items():
        lengths[number] = len(token)  # a letter of the byte-level alphabet is one byte
    lengths[vocabulary.is_sentinel] = 0
    return lengths


def export_ds(folder: str | Path, dest: str | Path, split: Split = "train") -> int:
    """Write each shard of a split of a tokens folder as PREFIX.ds with index and metadata into the new folder `dest`; their
    number. One split alone, as datatrove's readers take all of a folder. InputError if there is none of it.

    Removed spans are padding, and if there are any, each shard has a `.loss` that leaves them out. A tokenizer.json is put
    beside. datatrove's readers take the width of a token as `token_size`: 2, or 4 over 65,536 entries.
    """
    dataset = TokensDataset(folder)
    shards = [shard for part in dataset.parts if part[1] == split for shard in dataset.shards(*part)]
    if not shards:
        raise InputError(f"{folder} has no shards of the split {split}")
    with new_folder(dest) as part:
        for shard in shards:
            _export(
                shard,
                part / f"{shard.shard.prefix}.ds",
                dataset.manifest.vocab_size,
                loss=len(dataset.removed.spans) > 0,
            )
        shutil.copyfile(dataset.tokenizer, part / "tokenizer.json")
    return len(shards)


def _export(shard: OpenShard, path: Path, vocab_size: int, loss: bool) -> None:
    width = 4 if vocab_size > WIDE else 2
    with open(path, "wb") as tokens, open(f"{path}.index", "wb") as index:
        labels = open(f"{path}.loss", "wb") if loss else None  # noqa: SIM115  closed below
        try:
            for at, stop, ends in document_blocks(len(shard.tokens), shard.tokens.ends):
                block, mask = shard.block(at, stop)
                if block.size and not 0 <= int(block.min()) <= int(block.max()) < vocab_size:
                    raise InputError(f"{shard.prefix}: it holds a token outside the vocabulary of {vocab_size:,}")
                tokens.write(np.asarray(block, WIDTHS[width]).data)
                index.write((ends + at).astype("<u8").data)
                if labels is not None:
                    labels.write(mask.data)
                forget(shard.tokens.flat)
        finally:
            if labels is not None:
                labels.close()
    count = shard.tokens.tokens
    Path(f"{path}.metadata").write_text(f"tokenizer.json|{width}\n{count}\n{for_people(count)}", "utf-8")


def for_people(count: int) -> str:
    """A number of tokens with a metric prefix: 1.2 MT."""
    value, power = float(count), 0
    while value >= 1000:
        value, power = value / 1000, power + 1
    return f"{value:.1f} {'kMGTPE'[power - 1] if power else ''}T"
