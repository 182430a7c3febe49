"""Turn bytes into text, or say why there is none.

Rules (The Stack v2, get_file_contents; Lozhkov et al. 2024, section 2.1), in their order: `size`: as many raw bytes as
the limit or more (10 MiB, uncompressed: the paper says compressed, its code does not); `empty`: no character; `binary`:
NUL bytes, but for UTF-16; `encoding_uncertain`: not UTF-8, and no encoding that gives the same bytes back. v2 took its
detector's word where we ask for that proof. The chain is in `stackbuild.languages.encodings`.

`src_encoding` names the encoding such that `bytes.decode(src_encoding)` is the text; a byte order mark is left out of
it. `lossless` says that the text, encoded so, is the file again bit for bit: true for all but big-endian UTF-16 and
UTF-32 with a mark, whose names do not tell the byte order. `length_bytes` is the text's length in UTF-8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from stackbuild.languages import encodings
from stackbuild.languages.encodings import BINARY, UNCERTAIN, UTF8
from stackbuild.stage import Options, Stage, Verdict


class DecodeOptions(Options):
    """The recipe's table [decode]."""

    max_bytes: int = Field(10 * 1024 * 1024, gt=0, description="a file of this many raw bytes or more leaves")


def buffers_of(content: pa.Array) -> tuple[encodings.U8, encodings.I64]:
    """The bytes and the offsets (int64, n + 1) of a large_binary array, without a copy; a null is empty."""
    _, offsets, data = content.buffers()
    none = offsets is None or data is None or not len(content)
    where = (
        np.zeros(len(content) + 1, np.int64)
        if none
        else np.frombuffer(offsets, np.int64, len(content) + 1, content.offset * 8)
    )
    bytes_ = np.zeros(0, np.uint8) if none else np.frombuffer(data, np.uint8)
    where.flags.writeable = bytes_.flags.writeable = False  # always, so that the kernel is compiled once
    return bytes_, where


def decode(content: pa.Array, read: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, pa.Array]:
    """The columns of Decode.adds for n files; those not to be `read` get nulls."""
    data, offsets = buffers_of(content)
    flags, nuls = encodings.probe(data, offsets)
    plain = (flags == encodings.VALID) & (nuls == 0)
    encoding = np.full(len(flags), None, object)
    encoding[plain & read] = UTF8
    lossless = np.ones(len(flags), np.bool_)
    lengths = np.diff(offsets)
    reason, finding = np.full(len(flags), None, object), np.full(len(flags), None, object)
    for row in np.flatnonzero(~plain & read):
        reading = encodings.read(content[int(row)].as_py())
        encoding[row], reason[row], finding[row] = reading.encoding, reading.reason, reading.finding
        lossless[row] = reading.lossless
        if reading.text is not None:
            lengths[row] = len(reading.text.encode())
    without = np.array([name is None for name in encoding], np.bool_)
    return {
        "src_encoding": pa.array(encoding, pa.string()),
        "lossless": pa.array(lossless, pa.bool_(), mask=without),
        "length_bytes": pa.array(lengths, pa.int64(), mask=without),
        "no_text": pa.array(reason, pa.string()),
        "finding": pa.array(finding, pa.string()),
        "nul_bytes": pa.array(nuls, pa.int64()),
    }


def text_of(content: pa.Array, src_encoding: pa.Array) -> pa.Array:
    """The texts, large_string of length n, null where there is no encoding; UTF-8 is not copied."""
    known = np.asarray(pc.is_valid(src_encoding))
    _, offsets, data = content.buffers()
    bits = np.packbits(np.concatenate([np.zeros(content.offset, np.bool_), known]), bitorder="little")
    base = pa.LargeStringArray.from_buffers(
        len(content), offsets, data, pa.py_buffer(bits.tobytes()), int((~known).sum()), content.offset
    )
    other = pc.fill_null(pc.not_equal(src_encoding, UTF8), False)
    rows = pc.indices_nonzero(other).to_pylist()
    if not rows:
        return base
    texts = pa.array([content[row].as_py().decode(src_encoding[row].as_py()) for row in rows], pa.large_string())
    return pc.replace_with_mask(base, other, texts)


def prepare() -> None:
    """Load the compiled kernels, once for all tasks of a server."""
    decode(pa.array([b"x", "é".encode()], pa.large_binary()), np.ones(2, np.bool_))


class Decode(Stage[DecodeOptions]):
    """Adds the encoding and gives the text; drops what has none."""

    name = "decode"
    reads = ("content", "length")
    adds = (
        pa.field("src_encoding", pa.string()),
        pa.field("lossless", pa.bool_()),
        pa.field("length_bytes", pa.int64()),
        pa.field("no_text", pa.string()),  # the rule by which a file without text leaves
        pa.field("finding", pa.string()),
        pa.field("nul_bytes", pa.int64()),
    )
    private: ClassVar[frozenset[str]] = frozenset({"no_text", "finding", "nul_bytes"})
    engines = ("chardetng_py",)
    rewrites_text = True
    options_model = DecodeOptions

    def warm(self) -> None:
        prepare()

    def tags(self, files: pa.RecordBatch) -> Mapping[str, pa.Array]:
        """Find each file's encoding; one that is too long is not looked at."""
        return decode(files["content"].cast(pa.large_binary()), np.asarray(self._small(files)))

    def verdicts(self, files: pa.RecordBatch) -> Iterator[Verdict]:
        """Size, empty, binary, encoding_uncertain."""
        yield Verdict("size", self._small(files), files["length"], float(self.options.max_bytes))
        yield Verdict("empty", pc.not_equal(files["length_bytes"], 0), files["length_bytes"], 0.0)
        reason = files["no_text"]
        yield Verdict(BINARY, pc.not_equal(reason, BINARY), files["nul_bytes"], 0.0, files["finding"])
        yield Verdict(UNCERTAIN, pc.not_equal(reason, UNCERTAIN), detail=files["finding"])

    def text(self, files: pa.RecordBatch) -> pa.Array:
        """The text of each file by its `src_encoding`."""
        return text_of(files["content"].cast(pa.large_binary()), files["src_encoding"])

    def _small(self, files: pa.RecordBatch) -> pa.Array:
        return pc.less(files["length"], self.options.max_bytes)
