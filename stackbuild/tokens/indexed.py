"""Megatron's indexed dataset: `.bin` holds the tokens of all documents, `.idx` where each one lies.

Both are little-endian and follow Megatron-LM's MMapIndexedDataset to the byte:

    offset        field
    0             9 bytes "MMIDIDX" 00 00
    9             uint64 version = 1
    17            uint8 dtype code (1 uint8, 2 int8, 3 int16, 4 int32, 5 int64, 8 uint16)
    18            uint64 S, the number of sequences
    26            uint64 D, the length of the document index: documents + 1
    34            int32[S] tokens of each sequence
    34 + 4 S      int64[S] offset of each sequence in `.bin`, in bytes
    34 + 12 S     int64[D] first sequence of each document, 0 at first and S at last
                  int8[S] modes, which only multimodal writers append; read over

Tokens are uint16 when the vocabulary has fewer than 65,500 entries, else int32. The codes 6 and 7 are float64 and
float32 in Megatron-core and the other way round in older Megatron-LM and its forks; no token is a float, so both are
refused unless a caller names the dialect. GPT training takes every sequence for a document; the writer makes one
sequence per document.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

import numpy as np
import numpy.typing as npt

from stackbuild.errors import InputError
from stackbuild.tokens.mapped import forget, mapped

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
DTYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
CODES = {np.dtype(name): code for code, name in DTYPES.items()}
Dialect = Literal["megatron-core", "megatron-lm", "fairseq"]
FLOATS: Mapping[str, Mapping[int, str]] = {  # what a writer meant by the codes 6 and 7
    "megatron-core": {6: "<f8", 7: "<f4"},  # its enumeration DType
    "megatron-lm": {6: "<f4", 7: "<f8"},  # np.float32 and np.double: Megatron-LM before it, GPT-NeoX
    "fairseq": {6: "<f8", 7: "<f8"},  # Python's float and np.double, which are one
}
OLD_MAGIC = b"TNTIDX\x00\x00"  # of fairseq's IndexedDataset, before memory maps
UINT16_VOCABULARY = 65_500
LONGEST_SEQUENCE = 2**31 - 1
BLOCK = 1 << 18  # entries of the index that are held at a time


def token_dtype(vocab_size: int, wanted: Literal["auto", "uint16", "int32"] = "auto") -> np.dtype[Any]:
    """The type of a token on disk: uint16 below 65,500 entries, else int32 (`DType.optimal_dtype` of Megatron-core).

    `wanted` forces one; ValueError, naming the sizes, for uint16 and 65,500 entries or more.
    """
    if wanted == "uint16" and vocab_size >= UINT16_VOCABULARY:
        raise ValueError(
            f"a vocabulary of {vocab_size:,} entries does not go with uint16, which holds fewer than "
            f'{UINT16_VOCABULARY:,}: set dtype = "int32" or "auto"'
        )
    return np.dtype("<u2" if wanted == "uint16" or (wanted == "auto" and vocab_size < UINT16_VOCABULARY) else "<i4")


Named = Callable[[int], str]  # says what a document is, by its place among those that end together


class IndexedWriter:
    """Writes `PREFIX.bin` and `PREFIX.idx`; memory does not grow with tokens or documents.

    Call `add(tokens)` as often as a document has pieces, then `end_document()`. `.idx` appears, by a rename, only after
    `.bin` is complete on disk; leaving the context by an exception leaves none. After it, `sha256_bin` and `sha256_idx`
    are the hex digests of the two files.
    """

    def __init__(self, prefix: str | Path, dtype: npt.DTypeLike):
        self.prefix = str(prefix)
        self.dtype = np.dtype(dtype).newbyteorder("<")
        if self.dtype not in CODES:
            raise ValueError(f"no token type of the format: {dtype}")
        info = np.iinfo(self.dtype)
        self._lowest, self._highest = int(info.min), int(info.max)
        self.documents = 0
        self.tokens = 0
        self.sha256_bin = ""
        self.sha256_idx = ""
        self._open_tokens = 0  # of the document that is being written
        self._hash = hashlib.sha256()
        self._index_hash = hashlib.sha256()
        self._files = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.prefix + ".idx")  # an index of an earlier run must never stand beside new tokens
        self._bin: BinaryIO = self._files.enter_context(open(self.prefix + ".bin", "wb", buffering=1 << 20))
        self._sizes: BinaryIO = self._files.enter_context(open(self.prefix + ".sizes.part", "w+b"))
        return self

    def add(self, tokens: npt.ArrayLike) -> None:
        """Append integers of shape (n,) to the present document; ValueError if one does not fit the type."""
        array = np.asarray(tokens)
        if array.size:
            self._open_tokens += self._append(array)

    def _append(self, array: npt.NDArray[Any]) -> int:
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise ValueError(f"tokens must be integers of one dimension, got {array.dtype} of shape {array.shape}")
        if array.dtype != self.dtype and (int(array.min()) < self._lowest or int(array.max()) > self._highest):
            raise ValueError(f"a token id does not fit {self.dtype}: {int(array.min())} to {int(array.max())}")
        data = np.ascontiguousarray(array, self.dtype).data
        self._hash.update(data)
        self._bin.write(data)
        return array.size

    def add_many(self, tokens: npt.NDArray[Any], ends: npt.NDArray[np.int64], named: Named | None = None) -> None:
        """Append tokens, shape (n,), in which documents end: at `ends`, shape (d,), rising, at most n.

        The first goes on with the present document; what stands behind the last end begins the next. InputError for one
        that is too long: it tells what `named` says of it, who is given its place in `ends`.
        """
        if tokens.size:
            self._append(tokens)
        if len(ends) == 0:
            self._open_tokens += tokens.size
            return
        lengths = np.diff(ends, prepend=0)
        lengths[0] += self._open_tokens
        if int(lengths.max()) > LONGEST_SEQUENCE:
            raise self._too_long(int(lengths.argmax()), int(lengths.max()), named)
        self._sizes.write(lengths.astype("<i4").tobytes())
        self.tokens += int(lengths.sum())
        self.documents += len(ends)
        self._open_tokens = tokens.size - int(ends[-1])

    def end_document(self, named: Named | None = None) -> None:
        """Close the present document; one without tokens is legal. InputError if it has more than 2^31 - 1 tokens, with
        what `named` says of it (0)."""
        if self._open_tokens > LONGEST_SEQUENCE:
            raise self._too_long(0, self._open_tokens, named)
        self._sizes.write(struct.pack("<i", self._open_tokens))
        self.tokens += self._open_tokens
        self.documents += 1
        self._open_tokens = 0

    def _too_long(self, document: int, tokens: int, named: Named | None) -> InputError:
        of = f", {named(document)}," if named is not None else ""
        return InputError(
            f"{self.prefix}: document {self.documents + document}{of} has {tokens:,} tokens; the format holds at most "
            f"{LONGEST_SEQUENCE:,}. Leave files out of it by a filter."
        )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        part, sizes = self.prefix + ".idx.part", self.prefix + ".sizes.part"
        try:
            if kind is None:
                if self._open_tokens:
                    raise ValueError("the last document was not ended")
                _sync(self._bin)
                with open(part, "wb") as index:
                    self._write_index(index)
                    _sync(index)
                os.replace(part, self.prefix + ".idx")
                _sync_folder(Path(self.prefix).parent)
                self.sha256_bin = self._hash.hexdigest()
                self.sha256_idx = self._index_hash.hexdigest()
        finally:
            self._files.close()
            for path in (part, sizes):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    def _write_index(self, index: BinaryIO) -> None:
        def write(data: bytes) -> None:
            self._index_hash.update(data)
            index.write(data)

        documents = self.documents
        write(HEADER.pack(MAGIC, VERSION, CODES[self.dtype], documents, documents + 1))
        self._sizes.seek(0)
        while block := self._sizes.read(4 * BLOCK):
            write(block)
        self._sizes.seek(0)
        start = 0
        while block := self._sizes.read(4 * BLOCK):
            ends = start + np.cumsum(np.frombuffer(block, "<i4").astype("<i8") * self.dtype.itemsize)
            write(np.concatenate([np.array([start], "<i8"), ends[:-1]]).astype("<i8").tobytes())
            start = int(ends[-1])
        for first in range(0, documents + 1, BLOCK):
            write(np.arange(first, min(first + BLOCK, documents + 1), dtype="<i8").tobytes())


def document_blocks(
    documents: int, ends: Callable[[slice], npt.NDArray[np.int64]], tokens: int = 1 << 20
) -> Iterator[tuple[int, int, npt.NDArray[np.int64]]]:
    """Cut documents that lie one behind the other into blocks of at most about so many tokens.

    `ends(some)`: the ends of some of them, in tokens, int64. Yields the first token of a block, the one behind its last,
    and the ends of the documents that end in it, counted from the block's first token, as `IndexedWriter.add_many` takes
    them. A longer document is cut into several blocks; where a block has whole documents it ends with one.
    """
    document = at = 0
    while document < documents:
        some = ends(slice(document, document + BLOCK))
        whole = int(np.searchsorted(some, at + tokens, side="right"))
        stop = int(some[whole - 1]) if whole else at + tokens
        yield at, stop, some[:whole] - at
        document, at = document + whole, stop


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class IndexedDataset:
    """Reads `PREFIX.bin` and `PREFIX.idx` through memory maps; everything is checked before the first use.

    `sizes`: int32 of shape (S,), tokens. `offsets`: int64 of shape (S,), bytes. `document_index`: int64 of shape (D,).
    `flat`: all tokens of all sequences, of shape (`tokens`,), read-only.
    `dataset[i]` is sequence i as a read-only array of `dtype`. `dialect`: whose writer made a pair of floats, which is
    never one of tokens. Raises InputError when the pair is torn or foreign.
    """

    def __init__(self, prefix: str | Path, dialect: Dialect | None = None):
        self.prefix = str(prefix)
        index_path, bin_path = self.prefix + ".idx", self.prefix + ".bin"
        try:
            index_bytes, bin_bytes = os.path.getsize(index_path), os.path.getsize(bin_path)
            with open(index_path, "rb") as index:
                head = index.read(HEADER.size)
        except OSError as error:
            raise InputError(
                f"{self.prefix}: cannot be read ({error.strerror}): it needs a .bin and an .idx"
            ) from error
        if len(head) < HEADER.size:
            raise self._bad(f".idx has {len(head)} bytes, less than its header of {HEADER.size}")
        magic, version, code, sequences, boundaries = HEADER.unpack(head)
        if magic.startswith(OLD_MAGIC):
            raise InputError(
                f"{self.prefix}: .idx begins with TNTIDX: it is of fairseq's older format, which is not read. Tokenize "
                "again, or convert it with the tools of the Megatron that wrote it."
            )
        if magic != MAGIC:
            raise self._bad(".idx does not begin with MMIDIDX: it is no memory-mapped indexed dataset")
        if version != VERSION:
            raise self._bad(f".idx has version {version}, not {VERSION}")
        dtypes = DTYPES | dict(FLOATS[dialect] if dialect is not None else {})
        if code in (6, 7) and dialect is None:
            raise InputError(
                f"{self.prefix}: .idx has dtype code {code}, which is float64 or float32, depending on who wrote it "
                f"(in Megatron-core 6 is float64 and 7 float32, in older Megatron-LM the other way round). Tokens are "
                f"integers; to read floats, say whose they are: dialect = {', '.join(map(repr, FLOATS))}."
            )
        if code not in dtypes:
            raise self._bad(f".idx has dtype code {code}; tokens are of one of {sorted(DTYPES)}")
        size = HEADER.size + 12 * sequences + 8 * boundaries
        if index_bytes not in (size, size + sequences):
            raise self._bad(f".idx has {index_bytes:,} bytes where {sequences:,} sequences need {size:,}")
        if boundaries < 1:
            raise self._bad(".idx has an empty document index")
        self.dtype = np.dtype(dtypes[code])
        entries = mapped(index_path, size)
        sizes, offsets = HEADER.size + 4 * sequences, HEADER.size + 12 * sequences
        self.sizes: npt.NDArray[np.int32] = entries[HEADER.size : sizes].view("<i4")
        self.offsets: npt.NDArray[np.int64] = entries[sizes:offsets].view("<i8")
        self.document_index: npt.NDArray[np.int64] = entries[offsets:].view("<i8")
        self._check(bin_bytes)
        forget(entries)
        self.tokens = bin_bytes // self.dtype.itemsize
        self.flat: npt.NDArray[Any] = mapped(bin_path, bin_bytes).view(self.dtype)

    def _bad(self, what: str) -> InputError:
        return InputError(f"{self.prefix}: {what}. The file is torn or was changed; write it again.")

    def _check(self, bin_bytes: int) -> None:
        """Sequences lie in `.bin` one behind the other and fill it; document boundaries rise from 0 to S."""
        end = 0
        for first in range(0, len(self.sizes), BLOCK):
            sizes = self.sizes[first : first + BLOCK].astype(np.int64)
            if sizes.min() < 0:
                raise self._bad(".idx has a sequence of negative length")
            ends = end + np.cumsum(sizes * self.dtype.itemsize)
            if self.offsets[first] != end or not np.array_equal(
                self.offsets[first + 1 : first + len(sizes)], ends[:-1]
            ):
                raise self._bad(".idx has an offset that is not the end of the sequence before it")
            end = int(ends[-1])
            if end > bin_bytes:
                break
        if end != bin_bytes:
            raise self._bad(
                f".bin has {bin_bytes:,} bytes where .idx tells {'more' if end > bin_bytes else f'{end:,}'}"
            )
        last = 0
        for first in range(0, len(self.document_index), BLOCK):
            block = self.document_index[first : first + BLOCK]
            if (first == 0 and block[0] != 0) or block[0] < last or np.any(block[1:] < block[:-1]):
                raise self._bad(".idx has document boundaries that do not rise from 0")
            last = int(block[-1])
        if last != len(self.sizes):
            raise self._bad(f".idx has its last document end at sequence {last:,} of {len(self.sizes):,}")

    def ends(self, some: slice) -> npt.NDArray[np.int64]:
        """Where some sequences end in `flat`: int64, tokens."""
        ends: npt.NDArray[np.int64] = self.offsets[some] // self.dtype.itemsize + self.sizes[some]
        return ends

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, sequence: int) -> npt.NDArray[Any]:
        return self.read(sequence)

    def read(self, sequence: int, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """Tokens `start` to `stop` of a sequence, a view of the map; IndexError outside 0 to S - 1."""
        if not 0 <= sequence < len(self.sizes):
            raise IndexError(f"sequence {sequence} of {len(self.sizes)}")
        first = int(self.offsets[sequence]) // self.dtype.itemsize
        return self.flat[first : first + int(self.sizes[sequence])][start:stop]
