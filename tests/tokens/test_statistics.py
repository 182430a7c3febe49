"""Statistics are sums over the document tables, and say what a plain count over the dataset's rows says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild.errors import InputError
from stackbuild.tokens.dataset import TokensDataset
from stackbuild.tokens.statistics import combine, statistics, table_statistics


def test_statistics_say_what_a_plain_count_says(corpus: Path, rows: Any, held_out: str) -> None:
    told = statistics(corpus)
    assert [(part["source"], part["split"]) for part in told["parts"]] == [("code", "train"), ("code", held_out)]
    texts = {row["content_id"]: row["content"] for row in rows}
    for part in told["parts"]:
        tokens, files, size, characters = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
        documents = [document.row for key, document in TokensDataset(corpus) if key == (part["source"], part["split"])]
        for row in documents:
            for file in row["files"]:
                language, text = file["language"], texts[file["content_id"]]
                tokens[language] += file["end"] - file["start"]
                files[language] += 1
                size[language] += len(text.encode())
                characters[language] += len(text)
        assert [row["language"] for row in part["languages"]] == [name for name, _ in tokens.most_common()]
        for row in part["languages"]:
            name = row["language"]
            counts = (row["files"], row["tokens"], row["bytes"], row["characters"])
            assert counts == (files[name], tokens[name], size[name], characters[name])
            assert row["bytes_per_token"] == round(size[name] / tokens[name], 4)
            assert row["characters_per_token"] == round(characters[name] / tokens[name], 4)
        header = sum(span["end"] - span["start"] for row in documents for span in row["headers"])
        total = sum(row["tokens"] for row in documents)
        assert (part["documents"], part["tokens"], part["header_tokens"]) == (len(documents), total, header)
        assert part["text_tokens"] == sum(tokens.values()) == total - header - len(documents)
        assert part["longest_document"] == max(row["tokens"] for row in documents)
        assert (part["files"], part["bytes"]) == (sum(files.values()), sum(row["bytes"] for row in documents))


def test_row_groups_change_nothing(corpus: Path, tmp_path: Path) -> None:
    path = corpus / "code-00000-of-00003.documents.parquet"
    pq.write_table(pq.read_table(path), tmp_path / "t", row_group_size=2)
    assert table_statistics(tmp_path / "t") == table_statistics(path)


def test_a_document_without_files_and_no_documents_are_counted(tmp_path: Path, corpus: Path) -> None:
    empty = pq.read_table(corpus / "code-00000-of-00003.documents.parquet").slice(0, 0)
    pq.write_table(empty, tmp_path / "t")
    told = combine([("a", "train", table_statistics(tmp_path / "t"))])["parts"][0]
    assert (told["documents"], told["tokens"], told["bytes_per_token"], told["languages"]) == (0, 0, None, [])


def test_a_number_that_is_null_is_refused(tmp_path: Path, corpus: Path) -> None:
    table = pq.read_table(corpus / "code-00000-of-00003.documents.parquet")
    nulls = pa.nulls(table.num_rows, pa.int64())
    pq.write_table(table.set_column(table.schema.get_field_index("tokens"), "tokens", nulls), tmp_path / "t")
    with pytest.raises(InputError, match="cannot be read as a document table"):
        table_statistics(tmp_path / "t")


def test_a_table_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="cannot be read as a document table"):
        table_statistics(tmp_path / "t")
