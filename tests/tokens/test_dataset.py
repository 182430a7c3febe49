"""A whole tokens folder: every document with its row, and no torn file, foreign tokenizer or wrong size is read."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild.errors import InputError
from stackbuild.tokens.dataset import TokensDataset
from stackbuild.tokens.indexed import IndexedDataset
from stackbuild.tokens.show import find_document
from stackbuild.tokens.statistics import statistics


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest as somebody with an editor would."""
    body = json.loads((folder / "manifest.json").read_bytes())
    change(body)
    (folder / "manifest.json").write_text(json.dumps(body))


def test_every_document_of_every_source_and_split_comes_with_its_row(corpus: Path, held_out: str) -> None:
    dataset = TokensDataset(corpus, verify=True)
    assert dataset.parts == [("code", "train"), ("code", held_out)]
    seen = []
    for source, split in dataset.parts:
        number = 0
        for shard in dataset.shards(source, split):
            plain = IndexedDataset(shard.prefix)
            for row in pq.read_table(f"{shard.prefix}.documents.parquet").to_pylist():
                document = dataset.document(source, split, number)
                assert document.row == row and (document.prefix, document.number) == (
                    shard.prefix.name,
                    row["document"],
                )
                assert document.tokens.tolist() == plain[row["document"]].tolist()
                assert document.mask.all() and len(document.mask) == row["tokens"] and not len(document.removed)
                seen.append(document.tokens.tolist())
                number += 1
        assert number == dataset.documents(source, split) > 3
        assert dataset.tokens(source, split) == sum(map(len, seen[-number:]))
    assert [document.tokens.tolist() for _, document in dataset] == seen
    assert not dataset.document("code", "train", 0).tokens.flags.writeable


def test_a_build_folder_is_taken_for_its_tokens_and_a_worker_can_get_the_dataset(corpus: Path) -> None:
    dataset = TokensDataset(corpus.parent)
    data = pickle.dumps(dataset)
    assert len(data) < 1000  # maps are opened again, not copied
    again = pickle.loads(data)
    assert np.array_equal(again.document("code", "train", 3).tokens, dataset.document("code", "train", 3).tokens)
    with pytest.raises(InputError, match="has no tokens"):
        TokensDataset(corpus / "nowhere")


def test_a_document_or_source_that_is_not_there_is_refused(corpus: Path) -> None:
    dataset = TokensDataset(corpus)
    for number in (-1, dataset.documents("code", "train")):
        with pytest.raises(InputError, match=f"no document {number}; it has"):
            dataset.document("code", "train", number)
    with pytest.raises(InputError, match="no source 'code' with a split 'x'; there are: code train"):
        dataset.document("code", "x", 0)


def test_another_tokenizer_json_is_refused(copied: Path) -> None:
    body = json.loads((copied / "tokenizer.json").read_bytes())
    (copied / "tokenizer.json").write_text(json.dumps(body))
    with pytest.raises(InputError, match=r"tokenizer\.json has SHA-256 .*another tokenizer"):
        TokensDataset(copied)
    (copied / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer\.json: the tokenizer cannot be read"):
        TokensDataset(copied)


def test_two_shards_of_different_tokenizers_are_refused(copied: Path) -> None:
    path = copied / "code-00001-of-00003.documents.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({b"stackbuild.tokenizer": b"f" * 64}), path)
    with pytest.raises(InputError, match=r"code-00001-of-00003: its tokens are of the tokenizer ffff.*two tokenizers"):
        TokensDataset(copied)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("dtype", "int32", "it has dtype uint16; the manifest says int32"),
        ("tokens", 7, "the manifest says 7"),
        ("documents", 7, "the manifest says 7"),
        ("version", 2, "no tokens manifest of version 1"),
    ],
)
def test_what_the_manifest_says_of_a_shard_has_to_be_true(copied: Path, name: str, value: Any, message: str) -> None:
    def change(body: dict[str, Any]) -> None:
        (body if name in body else body["sources"][0]["shards"][1])[name] = value

    rewrite(copied, change)
    with pytest.raises(InputError, match=message):
        TokensDataset(copied)


@pytest.mark.parametrize("suffix", ["bin", "idx", "documents.parquet"])
def test_a_torn_file_is_refused(copied: Path, suffix: str) -> None:
    path = copied / f"code-00002-of-00003.{suffix}"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(InputError, match="code-00002-of-00003"):
        TokensDataset(copied)
    path.unlink()
    with pytest.raises(InputError, match="code-00002-of-00003"):
        TokensDataset(copied)


def test_a_document_table_of_another_shard_is_refused(copied: Path) -> None:
    (copied / "code-00002-of-00003.documents.parquet").write_bytes(
        (copied / "code-00001-of-00003.documents.parquet").read_bytes()
    )
    with pytest.raises(InputError, match="not the document table of"):
        TokensDataset(copied)


@pytest.mark.parametrize(
    "name, values",
    [
        ("tokens", lambda rows: pa.array(["a"] * rows)),
        ("files", lambda rows: pa.array([1] * rows)),
        ("files", lambda rows: pa.array([[{"start": 0}]] * rows)),
        ("headers", pa.nulls),
    ],
)
def test_a_document_table_with_a_column_of_another_type_is_refused(copied: Path, name: str, values: Any) -> None:
    path = copied / "code-00002-of-00003.documents.parquet"
    table = pq.read_table(path)
    metadata = table.schema.metadata
    table = table.set_column(table.schema.get_field_index(name), name, values(table.num_rows))
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(InputError, match=r"code-00002-of-00003\.documents\.parquet: it is not the document table"):
        TokensDataset(copied)
    with pytest.raises(InputError, match=r"code-00002-of-00003\.documents\.parquet: it is not a document table"):
        statistics(copied)


def test_a_changed_byte_is_found_when_it_is_asked_for(copied: Path) -> None:
    path = copied / "code-00000-of-00003.bin"
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)
    TokensDataset(copied)
    with pytest.raises(InputError, match=r"code-00000-of-00003\.bin has SHA-256"):
        TokensDataset(copied, verify=True)


def test_a_token_outside_the_vocabulary_is_found_when_it_is_asked_for(copied: Path) -> None:
    rewrite(copied, lambda body: body.update(vocab_size=300))
    with pytest.raises(InputError, match="outside the vocabulary of 300"):
        TokensDataset(copied, verify=True)


def test_a_document_is_found_by_source_split_and_shard(corpus: Path, held_out: str) -> None:
    dataset = TokensDataset(corpus)
    first = dataset.documents("code", "train")
    shard, number = find_document(dataset, first + 1, None, None, None)
    assert (shard.shard.prefix, number) == (f"code-{held_out}-00000-of-00001", 1)
    shard, number = find_document(dataset, 1, None, held_out, None)
    assert (shard.shard.prefix, number) == (f"code-{held_out}-00000-of-00001", 1)
    shard, number = find_document(dataset, 2, "code", None, "code-00001-of-00003")
    assert (shard.shard.prefix, number) == ("code-00001-of-00003", 2)
    for chosen in [("web", None, None), (None, "x", None), (None, None, "code-9")]:
        with pytest.raises(InputError, match="has no such shard; its sources and splits are: code train"):
            find_document(dataset, 0, *chosen)
    for number in (-1, 10**6):
        with pytest.raises(InputError, match=f"no document {number}"):
            find_document(dataset, number, None, None, None)
