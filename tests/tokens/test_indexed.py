"""Megatron's .bin/.idx: the bytes of the format, and that nothing torn is ever read."""

from __future__ import annotations

import ctypes
import errno
import gc
import hashlib
import importlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackbuild.errors import InputError
from stackbuild.tokens.indexed import HEADER, MAGIC, IndexedDataset, IndexedWriter, token_dtype
from stackbuild.tokens.mapped import forget, mapped

# Three documents (1 2 3), () and (65499 0) as uint16, put down by hand from the layout: 34 + 12 * 3 + 8 * 4 bytes.
GOLDEN_BIN = bytes.fromhex("0100 0200 0300 dbff 0000".replace(" ", ""))
GOLDEN_IDX = bytes.fromhex(
    "4d4d494449445800 00"  # magic, 9 bytes
    "0100000000000000"  # version
    "08"  # uint16
    "0300000000000000"  # sequences
    "0400000000000000"  # documents + 1
    "03000000 00000000 02000000"  # tokens
    "0000000000000000 0600000000000000 0600000000000000"  # byte offsets
    "0000000000000000 0100000000000000 0200000000000000 0300000000000000"  # document boundaries
)


def write(prefix: Path, documents: list[list[int]], dtype: str = "<u2") -> IndexedWriter:
    with IndexedWriter(prefix, dtype) as writer:
        for document in documents:
            writer.add(np.array(document, np.int64))
            writer.end_document()
    return writer


def test_the_files_have_megatrons_bytes(tmp_path: Path) -> None:
    writer = write(tmp_path / "a", [[1, 2, 3], [], [65499, 0]])
    assert len(GOLDEN_IDX) == 102
    assert (tmp_path / "a.idx").read_bytes() == GOLDEN_IDX
    assert (tmp_path / "a.bin").read_bytes() == GOLDEN_BIN
    assert writer.sha256_bin == hashlib.sha256(GOLDEN_BIN).hexdigest()
    assert writer.sha256_idx == hashlib.sha256(GOLDEN_IDX).hexdigest()
    assert (writer.documents, writer.tokens) == (3, 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "a.idx"]


def test_the_golden_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.idx").write_bytes(GOLDEN_IDX)
    (tmp_path / "a.bin").write_bytes(GOLDEN_BIN)
    dataset = IndexedDataset(tmp_path / "a")
    assert [dataset[i].tolist() for i in range(len(dataset))] == [[1, 2, 3], [], [65499, 0]]
    assert dataset.document_index.tolist() == [0, 1, 2, 3]
    assert (dataset.tokens, dataset.dtype) == (5, np.dtype("<u2"))
    assert dataset.read(0, 1).tolist() == [2, 3]
    with pytest.raises(IndexError):
        dataset[3]


def test_modes_at_the_end_are_legal(tmp_path: Path) -> None:
    (tmp_path / "a.idx").write_bytes(GOLDEN_IDX + b"\0\1\0")
    (tmp_path / "a.bin").write_bytes(GOLDEN_BIN)
    assert IndexedDataset(tmp_path / "a")[0].tolist() == [1, 2, 3]


def test_tokens_are_uint16_below_65500_entries() -> None:
    assert token_dtype(49_152) == token_dtype(65_499) == np.dtype("<u2")
    assert token_dtype(65_500) == token_dtype(200_000) == np.dtype("<i4")


@given(st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=20), max_size=30), st.integers(1, 7))
def test_what_is_written_in_pieces_is_read(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], piece: int
) -> None:
    prefix = tmp_path_factory.mktemp("indexed") / "x"
    with IndexedWriter(prefix, "<i4") as writer:
        for document in documents:
            for at in range(0, len(document), piece):
                writer.add(np.array(document[at : at + piece]))
            writer.end_document()
    dataset = IndexedDataset(prefix)
    assert [dataset[i].tolist() for i in range(len(dataset))] == documents


def test_the_index_is_written_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [[1] * (k % 3) for k in range(11)]
    write(tmp_path / "whole", documents)
    monkeypatch.setattr("stackbuild.tokens.indexed.BLOCK", 4)
    write(tmp_path / "blocks", documents)
    assert (tmp_path / "blocks.idx").read_bytes() == (tmp_path / "whole.idx").read_bytes()
    assert len(IndexedDataset(tmp_path / "blocks")) == 11


def patched(at: int, data: bytes) -> bytes:
    return GOLDEN_IDX[:at] + data + GOLDEN_IDX[at + len(data) :]


def long(value: int) -> bytes:
    return value.to_bytes(8, "little", signed=value < 0)


TORN = {
    "empty": (b"", GOLDEN_BIN),
    "short header": (GOLDEN_IDX[:33], GOLDEN_BIN),
    "short index": (GOLDEN_IDX[:-1], GOLDEN_BIN),
    "long index": (GOLDEN_IDX + b"\0", GOLDEN_BIN),
    "short bin": (GOLDEN_IDX, GOLDEN_BIN[:-1]),
    "long bin": (GOLDEN_IDX, GOLDEN_BIN + b"\0\0"),
    "old magic": (patched(0, b"TNTIDX\0\0\0"), GOLDEN_BIN),
    "ninth byte of magic": (patched(8, b"\1"), GOLDEN_BIN),
    "version": (patched(9, long(2)), GOLDEN_BIN),
    "dtype 0": (patched(17, b"\0"), GOLDEN_BIN),
    "dtype of other width": (patched(17, b"\4"), GOLDEN_BIN),
    "sequences": (patched(18, long(2**60)), GOLDEN_BIN),
    "no boundaries": (patched(26, long(0)), GOLDEN_BIN),
    "negative length": (patched(34, (2**32 - 1).to_bytes(4, "little")), GOLDEN_BIN),
    "first offset": (patched(46, long(2)), GOLDEN_BIN),
    "later offset": (patched(54, long(8)), GOLDEN_BIN),
    "negative offset": (patched(54, long(-6)), GOLDEN_BIN),
    "first boundary": (patched(70, long(1)), GOLDEN_BIN),
    "falling boundary": (patched(86, long(0)), GOLDEN_BIN),
    "last boundary": (patched(94, long(4)), GOLDEN_BIN),
}


@pytest.mark.parametrize("index, tokens", TORN.values(), ids=TORN)
def test_a_torn_pair_is_refused(tmp_path: Path, index: bytes, tokens: bytes) -> None:
    (tmp_path / "a.idx").write_bytes(index)
    (tmp_path / "a.bin").write_bytes(tokens)
    with pytest.raises(InputError, match=r"/a: "):
        IndexedDataset(tmp_path / "a")


@pytest.mark.parametrize("missing", ["a.bin", "a.idx"])
def test_a_missing_file_is_refused(tmp_path: Path, missing: str) -> None:
    write(tmp_path / "a", [[1]])
    (tmp_path / missing).unlink()
    with pytest.raises(InputError, match="cannot be read"):
        IndexedDataset(tmp_path / "a")


def test_an_empty_dataset_is_legal(tmp_path: Path) -> None:
    write(tmp_path / "a", [])
    dataset = IndexedDataset(tmp_path / "a")
    assert len(dataset) == 0 and dataset.tokens == 0


def test_a_failed_writer_leaves_no_index(tmp_path: Path) -> None:
    write(tmp_path / "a", [[1]])
    with pytest.raises(RuntimeError), IndexedWriter(tmp_path / "a", "<u2") as writer:
        writer.add([7])
        writer.end_document()
        raise RuntimeError
    assert not (tmp_path / "a.idx").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin"]


@pytest.mark.parametrize("tokens", [[-1], [65_536], [[1]], [0.5]])
def test_a_token_that_does_not_fit_is_refused(tmp_path: Path, tokens: list[object]) -> None:
    with pytest.raises(ValueError, match="token"), IndexedWriter(tmp_path / "a", "<u2") as writer:
        writer.add(tokens)  # type: ignore[arg-type]


def test_a_document_over_the_formats_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stackbuild.tokens.indexed.LONGEST_SEQUENCE", 3)
    with pytest.raises(InputError, match="holds at most 3"), IndexedWriter(tmp_path / "a", "<u2") as writer:
        writer.add([1, 2, 3, 4])
        writer.end_document()


def test_pages_that_were_let_go_are_read_again(tmp_path: Path) -> None:
    write(tmp_path / "a", [[1, 2, 3]])
    dataset = IndexedDataset(tmp_path / "a")
    view = dataset[0]
    forget(dataset.flat)
    assert view.tolist() == dataset.flat.tolist() == [1, 2, 3]
    forget(np.arange(3))


def test_a_pair_takes_two_maps_and_no_open_file(tmp_path: Path) -> None:
    """So that 16,384 shards stay below the kernel's 65,530 maps, and below any limit of open files."""

    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), Path("/proc/self/maps").read_text().count(str(tmp_path))

    write(tmp_path / "a", [[1, 2, 3], [4]])
    before = held()
    datasets = [IndexedDataset(tmp_path / "a") for _ in range(8)]
    assert held() == (before[0], before[1] + 16)
    last, flat = datasets[-1][1], datasets[0].flat
    del datasets
    gc.collect()
    assert held() == (before[0], before[1] + 2)  # what is looked at stays
    assert last.tolist() == [4] and flat.tolist() == [1, 2, 3, 4] and not flat.flags.writeable


def test_a_file_that_cannot_be_mapped_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.bin").write_bytes(b"123")
    assert mapped(tmp_path / "a.bin", 2).tolist() == [49, 50] and mapped(tmp_path / "none", 0).tolist() == []
    with pytest.raises(InputError, match=r"a\.bin: cannot be read: it has fewer than 4 bytes"):
        mapped(tmp_path / "a.bin", 4)
    with pytest.raises(InputError, match=r"b\.bin: cannot be read: No such file"):
        mapped(tmp_path / "b.bin", 4)

    def full(*_: Any) -> Any:
        ctypes.set_errno(errno.ENOMEM)
        return ctypes.c_void_p(-1).value

    monkeypatch.setattr("stackbuild.tokens.mapped._libc", SimpleNamespace(mmap=full))
    with pytest.raises(InputError, match=r"a\.bin: .* too many maps.* Merge the shards .*vm\.max_map_count"):
        mapped(tmp_path / "a.bin", 3)


# ---------------------------------------------------------------- what differs between writers


@pytest.mark.parametrize("code", [6, 7])
def test_the_dtype_codes_6_and_7_are_refused_unless_the_dialect_is_named(tmp_path: Path, code: int) -> None:
    values = {8: np.array([1.5, -2.0], "<f8"), 4: np.array([1.5, -2.0], "<f4")}
    widths = {"megatron-core": {6: 8, 7: 4}, "megatron-lm": {6: 4, 7: 8}, "fairseq": {6: 8, 7: 8}}
    for dialect, width in widths.items():
        header = HEADER.pack(MAGIC, 1, code, 1, 2)
        (tmp_path / "a.idx").write_bytes(header + (2).to_bytes(4, "little") + long(0) + long(0) + long(1))
        (tmp_path / "a.bin").write_bytes(values[width[code]].tobytes())
        assert IndexedDataset(tmp_path / "a", dialect=dialect)[0].tolist() == [1.5, -2.0]  # type: ignore[arg-type]
        with pytest.raises(InputError, match=rf"dtype code {code}.*other way round.*dialect = 'megatron-core'"):
            IndexedDataset(tmp_path / "a")
        other = next(name for name in widths if widths[name][code] != width[code])
        with pytest.raises(InputError, match=r"\.bin has"):
            IndexedDataset(tmp_path / "a", dialect=other)  # type: ignore[arg-type]


def test_fairseqs_older_format_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.idx").write_bytes(b"TNTIDX\0\0" + bytes(60))
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(InputError, match="TNTIDX: it is of fairseq's older format"):
        IndexedDataset(tmp_path / "a")


def test_a_vocabulary_that_does_not_fit_the_forced_type_is_refused() -> None:
    assert token_dtype(65_499, "uint16") == np.dtype("<u2")
    assert token_dtype(10, "int32") == np.dtype("<i4")
    with pytest.raises(ValueError, match="65,500 entries does not go with uint16, which holds fewer than 65,500"):
        token_dtype(65_500, "uint16")


def megatron() -> Any:
    """Megatron-core's own module, where it is installed (it needs torch)."""
    try:
        return importlib.import_module("megatron.core.datasets.indexed_dataset")
    except ImportError as error:
        pytest.skip(f"megatron-core is not installed: {error}")


DOCUMENTS = [[1, 2, 3], [], [65_499, 0], list(range(500)), [7]]


@pytest.mark.parametrize("dtype", ["uint16", "int32"])
def test_megatron_core_writes_the_same_bytes(tmp_path: Path, dtype: str) -> None:
    module = megatron()
    builder = module.IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=getattr(np, dtype))
    for document in DOCUMENTS:
        builder.add_document(np.array(document, dtype), [len(document)])
    builder.finalize(str(tmp_path / "theirs.idx"))
    write(tmp_path / "ours", DOCUMENTS, dtype)
    for suffix in ("bin", "idx"):
        assert (tmp_path / f"ours.{suffix}").read_bytes() == (tmp_path / f"theirs.{suffix}").read_bytes()
    assert IndexedDataset(tmp_path / "theirs")[3].tolist() == DOCUMENTS[3]


@pytest.mark.parametrize("dtype", ["uint16", "int32"])
def test_megatron_core_reads_what_is_written(tmp_path: Path, dtype: str) -> None:
    module = megatron()
    write(tmp_path / "ours", DOCUMENTS, dtype)
    theirs = module.IndexedDataset(str(tmp_path / "ours"))
    assert [theirs[number].tolist() for number in range(len(theirs))] == DOCUMENTS
    assert theirs.document_indices.tolist() == [0, 1, 2, 3, 4, 5]
