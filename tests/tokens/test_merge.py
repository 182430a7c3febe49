"""`tokens merge`: one physical pair for each source and split, with every document as it was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from stackbuild.errors import InputError, UsageError
from stackbuild.opt_out.ledger import parse
from stackbuild.token_removal import remove
from stackbuild.tokens.dataset import TokensDataset
from stackbuild.tokens.folders import new_folder
from stackbuild.tokens.indexed import IndexedWriter
from stackbuild.tokens.merge import merge
from tests.tokens.test_dataset import rewrite


def contents(folder: Path) -> dict[Any, list[Any]]:
    """By source and split: tokens, mask and row without ordinal of every document."""
    found: dict[Any, list[Any]] = {}
    for part, document in TokensDataset(folder, verify=True):
        row = {**document.row, "document": None}
        found.setdefault(part, []).append((document.tokens.tolist(), document.mask.tolist(), row))
    return found


def test_merging_keeps_every_document_and_numbers_them_through(corpus: Path, tmp_path: Path, held_out: str) -> None:
    manifest = merge([corpus], tmp_path / "out")
    prefixes = ["code-00000-of-00001", f"code-{held_out}-00000-of-00001"]
    assert [shard.prefix for source in manifest.sources for shard in source.shards] == prefixes
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        [
            "manifest.json",
            "tokenizer.json",
            *(f"{p}.{s}" for p in prefixes for s in ("bin", "idx", "documents.parquet")),
        ]
    )
    assert contents(tmp_path / "out") == contents(corpus)
    table = pq.read_table(tmp_path / "out" / f"{prefixes[0]}.documents.parquet")
    assert table["document"].to_pylist() == list(range(len(table))) and len(table) > 20
    before = TokensDataset(corpus).manifest.sources[0].shards
    shard = manifest.sources[0].shards[0]
    for name in ("documents", "tokens", "files", "bytes"):
        assert getattr(shard, name) == sum(getattr(one, name) for one in before)


def test_the_merged_bin_is_the_shards_one_behind_the_other(corpus: Path, tmp_path: Path) -> None:
    merge([corpus], tmp_path / "out")
    whole = b"".join((corpus / f"code-{k:05}-of-00003.bin").read_bytes() for k in range(3))
    assert (tmp_path / "out" / "code-00000-of-00001.bin").read_bytes() == whole


def test_small_blocks_change_no_byte(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merge([corpus], tmp_path / "one")
    monkeypatch.setattr("stackbuild.tokens.indexed.document_blocks.__defaults__", (50,))
    monkeypatch.setattr("stackbuild.tokens.indexed.BLOCK", 3)
    merge([corpus], tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes()


def test_several_folders_become_one(corpus: Path, tmp_path: Path) -> None:
    merge([corpus], tmp_path / "a")
    merge([corpus, tmp_path / "a"], tmp_path / "b")
    one, two = contents(corpus), contents(tmp_path / "b")
    assert {part: [*some, *some] for part, some in one.items()} == two


def test_removed_spans_go_along_with_their_new_ordinals(copied: Path, tmp_path: Path) -> None:
    remove(copied, parse("owner3\nevil/repo"))
    merge([copied], tmp_path / "out")
    assert contents(tmp_path / "out") == contents(copied)
    remove(copied, parse("owner3\nevil/repo"), apply=True)
    merge([copied], tmp_path / "applied")
    assert contents(tmp_path / "applied") == contents(copied)
    applied = TokensDataset(tmp_path / "applied").removed.applied()
    assert set(applied) == {shard.prefix for shard in TokensDataset(tmp_path / "applied").removed.shards} != set()
    assert not TokensDataset(tmp_path / "out").removed.applied()
    assert remove(tmp_path / "out", parse("owner3\nevil/repo")).tokens == 0


@pytest.mark.parametrize("suffix", ["bin", "idx", "documents.parquet"])
def test_a_shard_whose_digest_differs_is_refused(copied: Path, tmp_path: Path, suffix: str) -> None:
    key = {"bin": "sha256", "idx": "sha256_index"}.get(suffix, "sha256_documents")
    rewrite(copied, lambda body: body["sources"][0]["shards"][2].update({key: "0" * 64}))
    with pytest.raises(InputError, match=rf"code-00002-of-00003\.{suffix} has SHA-256"):
        merge([copied], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copied"]  # nothing is left beside


def test_a_bin_shorter_than_its_index_is_refused(copied: Path, tmp_path: Path) -> None:
    path = copied / "code-00002-of-00003.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(InputError, match=r"code-00002-of-00003: \.bin has"):
        merge([copied], tmp_path / "out")


def test_mixed_tokenizers_are_refused(corpus: Path, copied: Path, tmp_path: Path) -> None:
    body = json.loads((copied / "tokenizer.json").read_bytes())
    (copied / "tokenizer.json").write_text(json.dumps(body))
    digest = hashlib.sha256((copied / "tokenizer.json").read_bytes()).hexdigest()
    for path in copied.glob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.replace_schema_metadata({b"stackbuild.tokenizer": digest.encode()}), path)
    rewrite(copied, lambda body: body.update(tokenizer_sha256=digest))
    with pytest.raises(InputError, match="are of two tokenizers"):
        merge([corpus, copied], tmp_path / "out")


def test_a_source_that_is_set_up_in_two_ways_is_refused(corpus: Path, copied: Path, tmp_path: Path) -> None:
    rewrite(copied, lambda body: body["sources"][0].update(fim=False))
    with pytest.raises(InputError, match=r"the source code, train, is set up in two ways"):
        merge([corpus, copied], tmp_path / "out")


def test_two_do_not_write_one_folder(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyError), new_folder(tmp_path / "dest") as part:
        (part / "here").touch()
        with pytest.raises(UsageError, match=r"Another stackbuild is writing .*dest"):
            merge([corpus], tmp_path / "dest")
        assert (part / "here").exists()
        raise KeyError
    assert not list(tmp_path.iterdir())
    part.mkdir()
    (part / "left.bin").touch()  # by a run that was killed
    merge([corpus], tmp_path / "dest")
    assert [path.name for path in tmp_path.iterdir()] == ["dest"]
    assert not (tmp_path / "dest" / "left.bin").exists()


def test_a_folder_in_use_is_not_written_over(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(UsageError, match="is there already"):
        merge([corpus], tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_text() == "x"
    (tmp_path / "empty").mkdir()
    (tmp_path / ".empty.part").mkdir()  # of a killed run
    (tmp_path / ".empty.part" / "old").write_text("x")
    merge([corpus], tmp_path / "empty")
    assert not (tmp_path / "empty" / "old").exists()


def test_many_documents_are_added_as_one_by_one(tmp_path: Path) -> None:
    tokens = np.arange(30, dtype=np.uint16)
    with IndexedWriter(tmp_path / "many", "<u2") as many:
        many.add_many(tokens[:10], np.array([0, 4, 4]))  # an empty one, 4 tokens, an empty one, 6 of the next
        many.add_many(tokens[10:15], np.zeros(0, np.int64))
        many.add_many(tokens[15:], np.array([5, 15]))
    with IndexedWriter(tmp_path / "one", "<u2") as one:
        for start, end in [(0, 0), (0, 4), (4, 4), (4, 20), (20, 30)]:
            one.add(tokens[start:end])
            one.end_document()
    for suffix in ("bin", "idx"):
        assert (tmp_path / f"many.{suffix}").read_bytes() == (tmp_path / f"one.{suffix}").read_bytes()
    assert (many.documents, many.tokens, many.sha256_bin) == (one.documents, one.tokens, one.sha256_bin)
    with pytest.raises(ValueError, match="not ended"), IndexedWriter(tmp_path / "open", "<u2") as writer:
        writer.add_many(tokens[:4], np.array([2]))
