"""datatrove's `.ds` files: what its own writers write is read, and what is written its own readers read."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from stackbuild.errors import InputError, UsageError
from stackbuild.opt_out.ledger import parse
from stackbuild.token_removal import remove
from stackbuild.tokens.bpe import Vocabulary
from stackbuild.tokens.dataset import TokensDataset
from stackbuild.tokens.documents import DOCUMENTS
from stackbuild.tokens.ds import DsFile, byte_lengths, export_ds, for_people, import_ds

TEXTS = ["def f(x):\n    return 12\n", "", "naïve 数据 \U0001f600", "<fim_prefix> letters", "x" * 300]


def datatrove_writes(folder: Path, tokenizer: Path, texts: list[str] = TEXTS, **options: Any) -> None:
    """What datatrove's own step writes, shuffled by its own seed unless told not to."""
    from datatrove.data import Document
    from datatrove.pipeline.tokens import DocumentTokenizer

    options = {"eos_token": "<|endoftext|>", "shuffle_documents": False, "batch_size": 2} | options
    step = DocumentTokenizer(str(folder), str(tokenizer), save_filename="web", **options)
    list(step.run(iter([Document(text=text, id=str(k)) for k, text in enumerate(texts)])) or ())


def write_ds(path: Path, documents: list[list[int]], width: int = 2, loss: bytes | None = None) -> None:
    """The files as they are, by hand."""
    path.parent.mkdir(exist_ok=True)
    tokens = [token for document in documents for token in document]
    path.write_bytes(struct.pack(f"<{len(tokens)}{'H' if width == 2 else 'I'}", *tokens))
    ends = np.cumsum([len(document) for document in documents])
    Path(f"{path}.index").write_bytes(struct.pack(f"<{len(ends)}Q", *ends))
    Path(f"{path}.metadata").write_text(f"t|{width}\n{len(tokens)}\n{len(tokens)} T")
    if loss is not None:
        Path(f"{path}.loss").write_bytes(loss)


@pytest.mark.parametrize("shuffled", [False, True])
def test_what_datatrove_tokenized_is_imported_token_for_token(tmp_path: Path, tokenizer: Path, shuffled: bool) -> None:
    from tokenizers import Tokenizer

    datatrove_writes(tmp_path / "ds", tokenizer, shuffle_documents=shuffled, seed=3)
    manifest = import_ds(tmp_path / "ds", tmp_path / "out", tokenizer, source="web")
    whole = Tokenizer.from_file(str(tokenizer))
    expected = [[*whole.encode(text).ids, 0] for text in TEXTS]
    dataset = TokensDataset(tmp_path / "out", verify=True)
    got = [document.tokens.tolist() for _, document in dataset]
    assert sorted(got) == sorted(expected) and (got == expected) == (not shuffled)
    assert manifest.eod_appended and manifest.dtype == "uint16" and not manifest.sources[0].fim
    assert (manifest.sources[0].name, manifest.sources[0].shards[0].prefix) == ("web", "web-00000-of-00001")


def test_an_imported_document_has_a_row_with_what_is_known(tmp_path: Path, tokenizer: Path) -> None:
    datatrove_writes(tmp_path / "ds", tokenizer)
    import_ds(tmp_path / "ds", tmp_path / "out", tokenizer)
    table = pq.read_table(tmp_path / "out" / "ds-00000-of-00001.documents.parquet")
    assert table.schema.equals(DOCUMENTS)
    rows = [document.row for _, document in TokensDataset(tmp_path / "out")]
    sizes = [len(text.encode()) for text in TEXTS]
    sizes[3] -= len("<fim_prefix>")  # datatrove made a sentinel of it, which is no text
    assert [row["bytes"] for row in rows] == sizes
    assert [row["document"] for row in rows] == list(range(len(TEXTS)))
    for row in rows:
        assert (row["repo_name"], row["revision_id"], row["headers"], row["files"]) == ("", "", [], [])


def test_small_blocks_change_no_byte_of_an_import(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datatrove_writes(tmp_path / "ds", tokenizer)
    import_ds(tmp_path / "ds", tmp_path / "one", tokenizer)
    monkeypatch.setattr("stackbuild.tokens.indexed.document_blocks.__defaults__", (4,))
    monkeypatch.setattr("stackbuild.tokens.indexed.BLOCK", 2)
    monkeypatch.setattr("stackbuild.tokens.ds.BLOCK", 3)
    import_ds(tmp_path / "ds", tmp_path / "two", tokenizer)
    for path in (tmp_path / "one").iterdir():
        assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes()


def test_datatroves_reader_reads_what_is_exported(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from datatrove.utils.dataset import DatatroveFolderDataset

    assert export_ds(corpus, tmp_path / "ds") == 3
    dataset = TokensDataset(corpus)
    for part in [("code", "train")]:
        for shard in dataset.shards(*part):
            name = f"{shard.shard.prefix}.ds"
            length = 31
            theirs = DatatroveFolderDataset(
                str(tmp_path / "ds"), length, filename_pattern=f"*{name}", return_positions=True
            )
            positions = np.concatenate([np.arange(size) for size in shard.tokens.sizes])
            assert len(theirs) == shard.tokens.tokens // (length + 1) > 3
            for number in range(0, len(theirs), 3):
                window = slice(number * (length + 1), (number + 1) * (length + 1))
                assert theirs[number]["input_ids"].tolist() == shard.tokens.flat[window].tolist()
                if positions[window.start] == 0:  # what it gives from the middle of a document starts at 0 too
                    assert theirs[number]["positions"].tolist() == positions[window].tolist()
    assert not list((tmp_path / "ds").glob("*.loss"))


def test_an_export_has_the_bytes_of_datatroves_own_writer(corpus: Path, tmp_path: Path) -> None:
    from datatrove.pipeline.tokens.tokenizer import TokenizedFile

    export_ds(corpus, tmp_path / "ours")
    dataset = TokensDataset(corpus)
    shard = dataset.shards("code", "train")[1]
    name = f"{shard.shard.prefix}.ds"
    theirs = TokenizedFile(
        str(tmp_path / "theirs"), name, save_final_metadata=True, tokenizer_name_or_path="tokenizer.json", token_size=2
    )
    for number in range(len(shard.tokens)):
        theirs.write(shard.tokens[number].tolist(), None)
    theirs.close()
    for suffix in ("", ".index"):
        assert (tmp_path / "ours" / f"{name}{suffix}").read_bytes() == (
            tmp_path / "theirs" / f"{name}{suffix}"
        ).read_bytes()
    ours, told = ((tmp_path / folder / f"{name}.metadata").read_text().split("\n")[:2] for folder in ("ours", "theirs"))
    assert ours == told


def test_what_is_exported_comes_back(corpus: Path, tmp_path: Path, tokenizer: Path) -> None:
    export_ds(corpus, tmp_path / "ds")
    import_ds(tmp_path / "ds", tmp_path / "out", tokenizer, fim=True)
    one = [document.tokens.tolist() for part, document in TokensDataset(corpus) if part == ("code", "train")]
    two = [document.tokens.tolist() for _, document in TokensDataset(tmp_path / "out")]
    assert sorted(one) == sorted(two) and TokensDataset(tmp_path / "out").manifest.sources[0].fim
    rows = [row for path in sorted(corpus.glob("code-0*.parquet")) for row in pq.read_table(path).to_pylist()]
    headers = [
        len(Vocabulary(tokenizer).decode([t for t in ids[span["start"] : span["end"]] if t > 37]).encode())
        for row, ids in zip(rows, one, strict=True)
        for span in row["headers"]
    ]
    total = sum(document.row["bytes"] for _, document in TokensDataset(tmp_path / "out"))
    assert total == sum(row["bytes"] for row in rows) + sum(headers)


def test_removed_tokens_are_exported_as_padding_that_is_no_label(copied: Path, tmp_path: Path, tokenizer: Path) -> None:
    remove(copied, parse("evil/repo"))
    export_ds(copied, tmp_path / "ds")
    export_ds(copied, tmp_path / "valid", "valid")
    for (_, split), document in TokensDataset(copied):
        folder = "ds" if split == "train" else "valid"
        file = DsFile(tmp_path / folder / f"{document.prefix}.ds")
        first = int(file.ends[document.number - 1]) if document.number else 0
        window = slice(first, int(file.ends[document.number]))
        assert file.tokens[window].tolist() == document.tokens.tolist()
        assert file.loss is not None and file.loss[window].tolist() == document.mask.astype(int).tolist()
    with pytest.raises(InputError, match=r"\.ds\.loss leaves tokens out of the loss.*--ignore-loss"):
        import_ds(tmp_path / "ds", tmp_path / "out", tokenizer)
    assert not (tmp_path / "out").exists()
    import_ds(tmp_path / "ds", tmp_path / "out", tokenizer, ignore_loss=True)


def test_a_loss_that_is_all_ones_is_no_loss_of_anything(tmp_path: Path, tokenizer: Path) -> None:
    write_ds(tmp_path / "ds" / "a.ds", [[40, 41, 0], [0]], loss=b"\1\1\1\1")
    assert import_ds(tmp_path / "ds", tmp_path / "out", tokenizer).eod_appended


@pytest.mark.parametrize("documents, closed", [([[40, 0], [0]], True), ([[40, 0], [41]], False), ([[0], []], False)])
def test_whether_every_document_is_closed_is_looked_at(
    tmp_path: Path, tokenizer: Path, documents: list[list[int]], closed: bool
) -> None:
    write_ds(tmp_path / "ds" / "a.ds", documents)
    assert import_ds(tmp_path / "ds", tmp_path / "out", tokenizer).eod_appended == closed
    assert [document.tokens.tolist() for _, document in TokensDataset(tmp_path / "out")] == documents


@pytest.mark.parametrize("metadata", [True, False])
def test_tokens_of_four_bytes_are_read_with_and_without_metadata(
    tmp_path: Path, tokenizer: Path, metadata: bool
) -> None:
    write_ds(tmp_path / "ds" / "a.ds", [[40, 41, 0], [42, 0]], width=4)
    if not metadata:
        (tmp_path / "ds" / "a.ds.metadata").unlink()
    import_ds(tmp_path / "ds", tmp_path / "out", tokenizer)
    assert [d.tokens.tolist() for _, d in TokensDataset(tmp_path / "out")] == [[40, 41, 0], [42, 0]]


def test_an_empty_ds_file_is_legal(tmp_path: Path, tokenizer: Path) -> None:
    write_ds(tmp_path / "ds" / "a.ds", [])
    assert import_ds(tmp_path / "ds", tmp_path / "out", tokenizer).sources[0].shards[0].documents == 0


def index(*ends: int) -> bytes:
    return struct.pack(f"<{len(ends)}Q", *ends)


TORN = {
    "no index": ("index", None, "a.ds.index is not there"),
    "torn index": ("index", index(3, 4)[:-1], "a.ds.index has 15 bytes"),
    "falling index": ("index", index(3, 2), "a.ds.index does not rise"),
    "absurd index": ("index", index(3, 2**63), "a.ds.index does not rise"),
    "longer index": ("index", index(3, 5), "a.ds.metadata tells of 4 tokens, .*a.ds.index of 5"),
    "short tokens": ("", b"\1\0\2\0\3\0", "a.ds has 6 bytes where 4 tokens of 2 bytes need 8"),
    "half a token": ("", b"\1\0\2\0\3\0\4", "a.ds has 7 bytes"),
    "other width": ("metadata", b"t|4\n4\n4 T", "a.ds has 8 bytes where 4 tokens of 4 bytes need 16"),
    "width of 3": ("metadata", b"t|3\n4\n4 T", "would have 3 bytes each"),
    "foreign metadata": ("metadata", b"hello", "a.ds.metadata: not the metadata"),
    "binary metadata": ("metadata", b"\xff\xfe|2\n4", "a.ds.metadata: not the metadata"),
    "short loss": ("loss", b"\1\1\1", "a.ds.loss has 3 bytes for 4 tokens"),
    "foreign tokenizer": ("", b"\1\0\2\0\3\0\xff\xff", "a.ds: token 65,535 is not in .*another tokenizer"),
}


@pytest.mark.parametrize("suffix, data, message", TORN.values(), ids=TORN)
def test_a_torn_ds_file_is_refused_by_its_name(
    tmp_path: Path, tokenizer: Path, suffix: str, data: bytes | None, message: str
) -> None:
    write_ds(tmp_path / "ds" / "a.ds", [[1, 2, 3], [4]])
    path = tmp_path / "ds" / ("a.ds" + (f".{suffix}" if suffix else ""))
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        import_ds(tmp_path / "ds", tmp_path / "out", tokenizer)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ds"]


def test_an_index_torn_without_metadata_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    write_ds(tmp_path / "ds" / "a.ds", [[1, 2, 3], [4]])
    (tmp_path / "ds" / "a.ds.metadata").unlink()
    (tmp_path / "ds" / "a.ds.index").write_bytes(index(3))
    with pytest.raises(InputError, match=r"a\.ds has 8 bytes where 3 tokens of 2 bytes need 6"):
        import_ds(tmp_path / "ds", tmp_path / "out", tokenizer)


def test_a_folder_without_ds_files_or_in_use_is_refused(tmp_path: Path, tokenizer: Path, corpus: Path) -> None:
    with pytest.raises(InputError, match=r"there is no \.ds file in it"):
        import_ds(tmp_path, tmp_path / "out", tokenizer)
    (tmp_path / "mine").write_text("x")
    with pytest.raises(UsageError, match="is there already"):
        export_ds(corpus, tmp_path)


def test_more_files_than_a_corpus_may_have_shards_are_refused(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        write_ds(tmp_path / "ds" / f"{name}.ds", [[40, 0]])
    monkeypatch.setattr("stackbuild.tokens.ds.MOST_SHARDS", 1)
    with pytest.raises(
        InputError, match=r"ds has 2 \.ds files, each of which becomes a shard; a corpus has at most 1\. "
    ):
        import_ds(tmp_path / "ds", tmp_path / "out", tokenizer)


def test_a_document_that_is_too_long_is_named_by_its_file(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ds(tmp_path / "ds" / "a.ds", [[40, 0], [40, 41, 42, 0]])
    monkeypatch.setattr("stackbuild.tokens.indexed.LONGEST_SEQUENCE", 3)
    with pytest.raises(InputError, match=r"document 1, of .*a\.ds, has 4 tokens; the format holds at most 3"):
        import_ds(tmp_path / "ds", tmp_path / "out", tokenizer)


def test_the_bytes_of_tokens_add_up_to_the_text(tokenizer: Path) -> None:
    vocabulary = Vocabulary(tokenizer)
    lengths = byte_lengths(vocabulary)
    assert lengths is not None and lengths[0] == 0
    for text in TEXTS:
        assert lengths[vocabulary.tokenizer.encode(text).ids].sum() == len(text.encode())
    spec = json.loads(vocabulary.tokenizer.to_str())
    assert spec["decoder"]["type"] == "ByteLevel"


def test_numbers_for_people() -> None:
    assert [for_people(n) for n in (0, 999, 1000, 1_234_567)] == ["0.0 T", "999.0 T", "1.0 kT", "1.2 MT"]
