"""`tokens merge`: one physical pair for each source and split, with every document as it was."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from stackbuild.errors import InputError, UsageError
from stackbuild.opt_out.ledger import parse
from stackbuild.token_removal import remove
from stackbuild.tokens.batches import Batches
from stackbuild.tokens.data_config import DataConfig
from stackbuild.tokens.dataset import TokensDataset
from stackbuild.tokens.ds import import_ds
from stackbuild.tokens.folders import new_folder
from stackbuild.tokens.indexed import IndexedDataset, IndexedWriter
from stackbuild.tokens.merge import merge
from tests.tokens.conftest import tokenized
from tests.tokens.test_dataset import rewrite
from tests.tokens.test_ds import write_ds


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


def test_several_folders_become_one(corpus: Path, another: Path, tmp_path: Path) -> None:
    merge([corpus], tmp_path / "a")
    merge([tmp_path / "a", another], tmp_path / "b")
    one, two = contents(corpus), contents(another)
    assert contents(tmp_path / "b") == {part: [*some, *two[part]] for part, some in one.items()}


@pytest.mark.parametrize("by", ["path", "copy", "removal"])
def test_folders_of_the_same_documents_are_refused(corpus: Path, copied: Path, tmp_path: Path, by: str) -> None:
    """Also where what was removed from one makes its tokens others."""
    if by == "removal":
        remove(copied, parse("evil/repo\nowner3"), apply=True)
    other = corpus if by == "path" else copied
    named = re.escape(
        f"{corpus / 'code-00000-of-00003'} and {other / 'code-00000-of-00003'} are shards of the same documents"
    )
    with pytest.raises(InputError, match=f"{named}.* name each folder once"):
        merge([corpus, other], tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_a_shard_without_documents_may_come_twice(tmp_path: Path, write_dataset: Any, tokenizer: Path) -> None:
    folders = [tmp_path / name / "tokens" for name in "ab"]
    for folder in folders:
        folder.parent.mkdir()
        tokenized(folder, write_dataset, [], tokenizer)
    assert not any(contents(folders[0]).values())
    merge(folders, tmp_path / "out")


def imported(folder: Path, tokenizer: Path, documents: list[list[int]], source: str = "ds") -> Path:
    write_ds(folder / "ds" / "a.ds", documents)
    import_ds(folder / "ds", folder / "tokens", tokenizer, source=source)
    return folder / "tokens"


def test_tables_without_names_are_the_same_only_with_the_same_tokens(tmp_path: Path, tokenizer: Path) -> None:
    folders = []
    for name, number in (("a", 40), ("b", 41), ("c", 41)):
        (tmp_path / name).mkdir()
        folders.append(imported(tmp_path / name, tokenizer, [[number, 0]]))
    merge(folders[:2], tmp_path / "out")
    assert [tokens for tokens, *_ in contents(tmp_path / "out")["ds", "train"]] == [[40, 0], [41, 0]]
    with pytest.raises(InputError, match=r"b/tokens/.* and .*c/tokens/.* are shards of the same documents"):
        merge(folders, tmp_path / "more")


@pytest.mark.parametrize("closed", [True, False])
def test_an_imported_corpus_goes_beside_a_built_one(
    copied: Path, another: Path, tmp_path: Path, tokenizer: Path, closed: bool
) -> None:
    """Though it has no layout, and where its documents have no end; those of the other keep theirs when they are removed."""
    web = imported(tmp_path, tokenizer, [[40, 41, 0], [42, 0] if closed else [42, 43]])
    remove(copied, parse("evil/repo"))
    manifest = merge([copied, web], tmp_path / "out")
    assert (manifest.layout, manifest.eod_appended) == (None, closed)
    layouts = {(source.name, source.split): source.layout for source in manifest.sources}
    assert layouts[("code", "train")] == "starcoder2" and None in layouts.values()
    rates = {
        source.name: source._rates for source in Batches(tmp_path / "out", DataConfig(sequence_length=64), 0).sources
    }
    assert rates["code"] == (0.5, 0.5)  # of a document, and of each file in it, as before it was merged
    assert merge([tmp_path / "out"], tmp_path / "once more").layout_of("code", "train") == "starcoder2"
    assert contents(tmp_path / "out") == {**contents(copied), **contents(web)}
    assert merge([copied, another], tmp_path / "same").layout == "starcoder2"
    before = contents(tmp_path / "out")
    remove(tmp_path / "out", parse("evil/repo"), apply=True)
    assert contents(tmp_path / "out") == before
    assert merge([tmp_path / "out", another], tmp_path / "on").eod_appended == closed  # and what is merged is merged on


def test_a_source_of_two_layouts_is_refused_by_the_field(corpus: Path, another: Path, tmp_path: Path) -> None:
    shutil.copytree(another, tmp_path / "another")
    rewrite(tmp_path / "another", lambda body: body.update(layout="santacoder"))
    with pytest.raises(
        InputError, match="source code, train, but layout is starcoder2 in one and santacoder in the other"
    ):
        merge([corpus, tmp_path / "another"], tmp_path / "out")


def test_two_types_of_tokens_are_refused_by_the_type(corpus: Path, tmp_path: Path, tokenizer: Path) -> None:
    web = imported(tmp_path, tokenizer, [[40, 0]])
    dataset = IndexedDataset(web / "ds-00000-of-00001")
    with IndexedWriter(tmp_path / "wide", "<i4") as writer:
        writer.add_many(dataset.flat.astype("<i4"), np.array([2]))
    for suffix in ("bin", "idx"):
        shutil.move(tmp_path / f"wide.{suffix}", web / f"ds-00000-of-00001.{suffix}")
    rewrite(web, lambda body: body.update(dtype="int32"))
    with pytest.raises(InputError, match=r"has tokens of dtype uint16, .*tokens of int32; tokenize one of them again"):
        merge([corpus, web], tmp_path / "out")


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
    with pytest.raises(InputError, match=r"the source code, train, but fim is True in one and False in the other"):
        merge([corpus, copied], tmp_path / "out")


def test_two_do_not_write_one_folder(
    corpus: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, tokenizer: Path
) -> None:
    ds = tmp_path_factory.mktemp("written") / "ds"
    write_ds(ds / "a.ds", [[40, 0]])
    with pytest.raises(KeyError), new_folder(tmp_path / "dest") as part:
        (part / "here").touch()
        with pytest.raises(UsageError, match=r"Another stackbuild is writing .*dest"):
            merge([corpus], tmp_path / "dest")
        assert (part / "here").exists()
        raise KeyError
    assert not list(tmp_path.iterdir())
    part.mkdir()
    (part / "left.bin").touch()  # by a run that was killed
    import_ds(ds, tmp_path / "dest", tokenizer)  # whatever writes there next
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
