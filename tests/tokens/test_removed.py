"""Removal: nothing moves, nothing that was removed is read or trained on, and doing it again changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.errors import InputError
from stackbuild.opt_out.ledger import Ledger, parse
from stackbuild.token_removal import remove
from stackbuild.tokens import removed as module
from stackbuild.tokens.dataset import TokensDataset
from stackbuild.tokens.job import Shard
from stackbuild.tokens.merge import merge
from stackbuild.tokens.removed import Overlay, Removed, load_removed, merged, pad_token
from tests.tokens.test_dataset import rewrite


def everything(folder: Path) -> list[tuple[dict[str, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    return [(document.row, document.tokens, document.mask) for _, document in TokensDataset(folder)]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_removed_repository_becomes_padding_and_nothing_else_moves(copied: Path, tokenizer: Path) -> None:
    before, files = everything(copied), files_of(copied)
    told = remove(copied, parse("EVIL/Repo"))  # compared as forges do, without case
    after = everything(copied)
    gone = [row for row, _, _ in before if row["repo_name"] == "evil/repo"]
    assert (told.documents, told.files, told.tokens) == (1, 12, gone[0]["tokens"]) and len(gone) == 1
    sentinels = TokensDataset(copied).manifest.sentinels
    for (row, old, _), (_, new, mask) in zip(before, after, strict=True):
        if row["repo_name"] == "evil/repo":
            assert set(new[:-1].tolist()) == {sentinels["<fim_pad>"]} and new[-1] == sentinels["<|endoftext|>"]
            assert not mask.any() and len(new) == len(old)
        else:
            assert np.array_equal(new, old) and mask.all()
    assert {**files_of(copied), "removed": b""} == {**files, "removed": b""}  # no other file changed


def test_a_removed_content_leaves_alone_and_takes_all_its_places(copied: Path) -> None:
    content = next(f["content_id"] for row, *_ in everything(copied) for f in row["files"] if f["end"] - f["start"] > 9)
    told = remove(copied, parse(f"swh:1:cnt:{content.upper()}"))
    places = 0
    for row, tokens, mask in everything(copied):
        expected = np.ones(len(tokens), bool)
        for file in row["files"]:
            if file["content_id"] == content:
                expected[file["start"] : file["end"]] = False
                places += 1
        assert np.array_equal(mask, expected)
    assert told.files == places >= 1 and told.documents >= 1


def test_a_file_of_a_document_that_leaves_whole_is_counted_once(copied: Path) -> None:
    row = next(row for row, *_ in everything(copied) if row["repo_name"] == "evil/repo")
    told = remove(copied, parse(f"evil/repo\nswh:1:cnt:{row['files'][1]['content_id']}"))
    assert (told.documents, told.files, told.tokens) == (1, 12, row["tokens"])


def test_an_owner_takes_whole_documents(copied: Path) -> None:
    told = remove(copied, parse("owner3"))
    hit = {row["repo_name"] for row, _, mask in everything(copied) if not mask.any()}
    assert (
        hit == {row["repo_name"] for row, *_ in everything(copied) if row["repo_name"].startswith("owner3/")} != set()
    )
    assert told.documents == sum(not mask.any() for *_, mask in everything(copied))


def test_removing_again_changes_nothing(copied: Path) -> None:
    first = remove(copied, parse("owner3\nevil/repo"))
    files = files_of(copied)
    stamp = (copied / "removed").stat().st_mtime_ns
    again = remove(copied, parse("owner3\nevil/repo"))
    assert (again.documents, again.files, again.tokens, again.before) == (first.documents, first.files, 0, first.tokens)
    assert files_of(copied) == files and (copied / "removed").stat().st_mtime_ns == stamp
    assert remove(copied, parse("nobody/here")).documents == 0 and files_of(copied) == files


def test_order_and_number_of_requests_change_no_byte(copied: Path, corpus: Path, tmp_path: Path) -> None:
    remove(copied, parse("owner3"))
    remove(copied, parse("evil/repo"))
    remove(copied, parse("owner1"))
    shutil.copytree(corpus, tmp_path / "other")
    remove(tmp_path / "other", parse("owner1\nevil/repo\nowner3"))
    assert files_of(copied) == files_of(tmp_path / "other")


def test_applying_overwrites_the_bytes_and_renews_the_digest(copied: Path) -> None:
    remove(copied, parse("evil/repo\nowner3"))
    masked = [(tokens.tolist(), mask.tolist()) for _, tokens, mask in everything(copied)]
    before = files_of(copied)
    told = remove(copied, Ledger(()), apply=True)
    assert told.overwritten and told.tokens == 0
    assert [(tokens.tolist(), mask.tolist()) for _, tokens, mask in everything(copied)] == masked
    dataset = TokensDataset(copied, verify=True)  # every digest is renewed
    for part in dataset.parts:
        for shard in dataset.shards(*part):
            changed = before[f"{shard.shard.prefix}.bin"] != Path(f"{shard.prefix}.bin").read_bytes()
            assert changed == (shard.shard.prefix in told.overwritten) == shard.applied
            for number in range(len(shard.tokens)):
                assert np.array_equal(shard.tokens[number], dataset.read(shard, number).tokens)  # the bytes themselves
    files = files_of(copied)
    assert not remove(copied, Ledger(()), apply=True).overwritten and files_of(copied) == files
    assert not list(copied.glob("*.part"))
    more = remove(copied, parse("owner1"), apply=True)
    assert more.tokens > 0 and TokensDataset(copied, verify=True).removed.applied()


def test_an_apply_that_was_killed_is_taken_up(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remove(copied, parse("evil/repo\nowner3"))
    manifest = (copied / "manifest.json").read_bytes()
    mark = (copied / "removed").read_bytes()
    remove(copied, Ledger(()), apply=True)
    whole = files_of(copied)
    (copied / "removed").write_bytes(mark)  # killed before the mark was written
    assert remove(copied, Ledger(()), apply=True).overwritten and files_of(copied) == whole
    (copied / "removed").write_bytes(mark)
    (copied / "manifest.json").write_bytes(manifest)  # killed before the manifest was
    assert remove(copied, Ledger(()), apply=True).overwritten and files_of(copied) == whole
    TokensDataset(copied, verify=True)


class Killed(BaseException):
    """What no handler is for."""


@pytest.mark.parametrize("together", [0, 256 << 20])
@pytest.mark.parametrize("write", range(6))
def test_an_apply_that_was_killed_is_finished_before_more_is_removed(
    copied: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int, together: int
) -> None:
    """Killed before each of its first writes: the list, then of the first shard mark, `.bin`, manifest, then of the second; or
    of all shards the marks, every `.bin`, the manifest."""
    monkeypatch.setattr("stackbuild.token_removal.TOGETHER", together)
    left = write

    def counted(call: Any) -> Any:
        def instead(*arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return call(*arguments)

        return instead

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("stackbuild.token_removal.os.replace", counted(os.replace))
        remove(copied, parse("owner3"), apply=True)
    (copied / ".removed.0123").touch()
    (copied / "code-00000-of-00003.bin.part").touch()
    remove(copied, parse("owner1\nevil/repo"))
    remove(copied, parse("owner3"), apply=True)
    shutil.copytree(corpus, tmp_path / "other")
    remove(tmp_path / "other", parse("owner1\nevil/repo\nowner3"), apply=True)
    assert files_of(copied) == files_of(tmp_path / "other")
    TokensDataset(copied, verify=True)


def test_a_table_of_documents_that_was_changed_is_not_searched(copied: Path) -> None:
    path = copied / f"{TokensDataset(copied).manifest.sources[0].shards[1].prefix}.documents.parquet"
    table = pq.read_table(path)
    more = pa.array([10**9] * table.num_rows)
    metadata = table.schema.metadata
    table = table.set_column(table.schema.get_field_index("tokens"), table.schema.field("tokens"), more)
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(InputError, match=rf"{path.name} has SHA-256 .* nothing was removed"):
        remove(copied, parse("owner0\nowner1\nowner2\nowner3\nowner4\nowner5\nowner6"))
    TokensDataset(copied)
    assert not (copied / "removed").exists()


@pytest.mark.parametrize(("together", "writes"), [(0, 4), (256 << 20, 1)])
def test_manifest_and_list_are_renewed_once_for_many_small_shards(
    copied: Path, monkeypatch: pytest.MonkeyPatch, together: int, writes: int
) -> None:
    monkeypatch.setattr("stackbuild.token_removal.TOGETHER", together)
    everyone = "\n".join(sorted({row["repo_name"] for row, *_ in everything(copied)}))
    remove(copied, parse(everyone))
    written: list[str] = []
    replace = os.replace

    def counted(old: Path, new: Path) -> None:
        written.append(Path(new).name)
        replace(old, new)

    monkeypatch.setattr("os.replace", counted)
    assert len(remove(copied, Ledger(()), apply=True).overwritten) == 4
    assert written.count("manifest.json") == written.count("removed") == writes
    assert len(written) == 4 + 2 * writes
    TokensDataset(copied, verify=True)


def test_a_bin_that_is_not_the_manifests_is_not_overwritten(copied: Path) -> None:
    remove(copied, parse("evil/repo"))
    shard = TokensDataset(copied).removed.shards[0].prefix
    data = bytearray((copied / f"{shard}.bin").read_bytes())
    data[0] ^= 1
    (copied / f"{shard}.bin").write_bytes(data)
    with pytest.raises(InputError, match=rf"{shard}\.bin has SHA-256"):
        remove(copied, Ledger(()), apply=True)
    assert (copied / f"{shard}.bin").read_bytes() == data and not list(copied.glob("*.part"))


def test_urls_snapshots_and_directories_are_found_where_the_build_is(copied: Path, tmp_path: Path) -> None:
    directory, snapshot = "a" * 40, "b" * 40
    asked = parse(f"swh:1:dir:{directory}\nswh:1:snp:{snapshot}\nhttps://gitlab.com/group/name")
    told = remove(copied, asked)
    assert (told.documents, told.unanswered) == (0, 3)  # the document tables do not know
    out = tmp_path / "out"
    (out / "repos").mkdir(parents=True)
    copied.rename(out / "tokens")
    (out / "build.json").write_text(json.dumps({"complete": True, "plan": "p", "files": {}}))
    rows = [row for row, *_ in everything(out)]
    names = sorted({(row["repo_name"], row["revision_id"]) for row in rows})
    values: list[dict[str, Any]] = []
    for number, (name, revision) in enumerate(names):
        value: dict[str, Any] = {"repo_name": name, "revision_id": revision}
        value["directory_id"] = directory if number == 3 else None
        value["snapshot_id"] = snapshot if number == 5 else None
        value["repo_url"] = "https://gitlab.com/Group/name.git" if number == 7 else f"https://github.com/{name}"
        values.append(value)
    pq.write_table(pa.Table.from_pylist(values), out / "repos" / "train-00000-of-00001.parquet")
    told = remove(out, asked)
    hit = {(row["repo_name"], row["revision_id"]) for row, _, mask in everything(out) if not mask.any()}
    assert hit == {names[3], names[5], names[7]} and told.unanswered == 0
    files = json.loads((out / "build.json").read_bytes())["files"]
    assert files["tokens/removed"] == hashlib.sha256((out / "tokens" / "removed").read_bytes()).hexdigest()
    told = remove(out, Ledger(()), apply=True)
    files = json.loads((out / "build.json").read_bytes())["files"]
    for name in ["manifest.json", *(f"{prefix}.bin" for prefix in told.overwritten)]:
        assert files[f"tokens/{name}"] == hashlib.sha256((out / "tokens" / name).read_bytes()).hexdigest()


# ---------------------------------------------------------------- the file


def fake(number: int) -> Shard:
    counts = dict.fromkeys(("documents", "tokens", "files", "bytes"), 9)
    digests = dict.fromkeys(("sha256", "sha256_index", "sha256_documents"), f"{number}")
    return Shard(prefix=f"code-{number:05}", **counts, **digests)


def test_adding_to_many_shards_looks_at_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, as are the rows that are copied: neither grows with the square of the shards."""
    shards, looked, rows = 300, 0, 0
    of_shard = Removed.of_shard

    def counted(removed: Removed, prefix: str) -> Any:
        nonlocal looked, rows
        spans = of_shard(removed, prefix)
        looked, rows = looked + 1, rows + len(spans)
        return spans

    monkeypatch.setattr(Removed, "of_shard", counted)
    first = Removed().adding((fake(k), np.array([[5, 0, 3]])) for k in range(shards))
    assert (looked, rows) == (shards, 0)
    second = first.adding((fake(k), np.array([[2, 0, 3], [5, 2, 4]])) for k in range(0, shards, 2))
    assert (looked, rows) == (2 * shards, shards)
    assert second.adding((fake(k), np.array([[2, 0, 1]])) for k in range(0, shards, 2)) is second
    for k in range(shards):
        expected = [[5, 0, 3]] if k % 2 else [[2, 0, 3], [5, 0, 4]]
        assert second.of_shard(fake(k).prefix).tolist() == expected
    assert [shard.prefix for shard in second.shards] == [fake(k).prefix for k in range(shards)]


def test_a_removal_adds_to_all_shards_at_once(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    adding = Removed.adding

    def counted(removed: Removed, more: Any) -> Removed:
        found = list(more)
        calls.append(len(found))
        return adding(removed, found)

    monkeypatch.setattr(Removed, "adding", counted)
    remove(copied, parse("owner3\nevil/repo"))
    assert calls == [4]
    merge([copied], copied.parent / "out")
    assert calls == [4, 2]  # a source and split each


def test_the_file_says_what_it_is(copied: Path) -> None:
    remove(copied, parse("evil/repo"))
    head, _, body = (copied / "removed").read_bytes().partition(b"\n")
    ((shard, document),) = [
        (one.shard, row["document"])
        for one in TokensDataset(copied).shards("code", "train") + TokensDataset(copied).shards(*TokensDataset(copied).parts[1])
        for row in pq.read_table(f"{one.prefix}.documents.parquet").to_pylist()
        if row["repo_name"] == "evil/repo"
    ]  # fmt: skip
    tokens = next(row["tokens"] for row, *_ in everything(copied) if row["repo_name"] == "evil/repo")
    assert body == f"0,{document},0,{tokens}\n".encode()
    assert json.loads(head) == {
        "format": 1,
        "sha256": hashlib.sha256(body).hexdigest(),
        "spans": 1,
        "shards": [
            {
                "prefix": shard.prefix,
                "sha256_index": shard.sha256_index,
                "sha256_documents": shard.sha256_documents,
                "applied": None,
                "complete": True,
            }
        ],
    }


def sealed(header: dict[str, Any], body: bytes) -> bytes:
    return json.dumps({**header, "sha256": hashlib.sha256(body).hexdigest()}).encode() + b"\n" + body


BAD = {
    "empty": lambda head, body: b"",
    "cut off": lambda head, body: json.dumps(head).encode() + b"\n" + body[:-2],
    "changed": lambda head, body: json.dumps(head).encode() + b"\n" + body.replace(b"0,", b"1,", 1),
    "another format": lambda head, body: sealed({**head, "format": 2}, body),
    "format of another type": lambda head, body: sealed({**head, "format": "1"}, body),
    "another key": lambda head, body: sealed({**head, "more": 1}, body),
    "another count": lambda head, body: sealed({**head, "spans": 7}, body),
    "no number": lambda head, body: sealed(head, b"0,x,0,1\n"),
    "three numbers": lambda head, body: sealed(head, b"0,0,1\n"),
    "a shard that is not named": lambda head, body: sealed(head, b"9,0,0,1\n"),
    "an empty span": lambda head, body: sealed(head, b"0,0,1,1\n"),
    "a negative document": lambda head, body: sealed(head, b"0,-1,0,1\n"),
    "no such document": lambda head, body: sealed(head, b"0,1000000,0,1\n"),
    "longer than its document": lambda head, body: sealed(head, b"0,0,0,1000000\n"),
    "unsorted": lambda head, body: sealed({**head, "spans": 2}, b"0,1,0,1\n0,0,0,1\n"),
    "overlapping": lambda head, body: sealed({**head, "spans": 2}, b"0,0,0,3\n0,0,2,4\n"),
    "a shard twice": lambda head, body: sealed({**head, "shards": head["shards"] * 2}, body),
    "another shard": lambda head, body: sealed({**head, "shards": [{**head["shards"][0], "prefix": "z"}]}, body),
    "another index": lambda head, body: sealed({**head, "shards": [{**head["shards"][0], "sha256_index": "0"}]}, body),
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_a_list_that_is_torn_or_of_other_shards_is_refused(copied: Path, change: Any) -> None:
    remove(copied, parse("evil/repo"))
    head, _, body = (copied / "removed").read_bytes().partition(b"\n")
    (copied / "removed").write_bytes(change(json.loads(head), body))
    with pytest.raises(InputError, match="removed"):
        TokensDataset(copied)


def test_no_list_means_that_nothing_is_removed(corpus: Path) -> None:
    assert len(load_removed(corpus).spans) == 0


def test_padding_is_fim_pad_or_else_end_of_text(copied: Path) -> None:
    assert pad_token({"<|endoftext|>": 0, "<fim_pad>": 4}, "t") == 4
    assert pad_token({"<|endoftext|>": 49152, "<fim-pad>": 49156}, "t") == 49156
    assert pad_token({"<|endoftext|>": 7}, "t") == 7
    with pytest.raises(InputError, match="t: its tokenizer has none of <fim_pad>"):
        pad_token({}, "t")
    rewrite(copied, lambda body: body["sentinels"].pop("<fim_pad>"))
    remove(copied, parse("evil/repo"))
    assert set(next(t for row, t, _ in everything(copied) if row["repo_name"] == "evil/repo").tolist()) == {0}


SPANS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(0, 12)), max_size=12)


@settings(max_examples=60)
@given(SPANS)
def test_merged_spans_cover_the_same_tokens_and_do_not_touch(spans: list[tuple[int, int, int]]) -> None:
    def covered(rows: Any) -> set[tuple[int, int]]:
        return {(document, token) for document, start, end in rows for token in range(start, end)}

    out = merged(np.array(spans, np.int64).reshape(-1, 3))
    assert covered(out.tolist()) == covered(spans)
    assert out.tolist() == sorted(out.tolist())
    for one, two in zip(out.tolist(), out.tolist()[1:], strict=False):
        assert one[0] < two[0] or one[2] < two[1]


@settings(max_examples=60)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), SPANS, st.integers(0, 30), st.integers(0, 30))
def test_any_block_of_a_shard_is_what_its_documents_are(
    sizes: list[int], spans: list[tuple[int, int, int]], at: int, stop: int
) -> None:
    total = sum(sizes)
    flat = np.arange(1, total + 1, dtype=np.uint16)
    firsts = np.cumsum([0, *sizes[:-1]])
    end = 99
    flat[[first + size - 1 for first, size in zip(firsts, sizes, strict=True) if size]] = end
    rows = [(d % len(sizes), min(a, sizes[d % len(sizes)]), min(b, sizes[d % len(sizes)])) for d, a, b in spans]
    table = merged(np.array(rows, np.int64).reshape(-1, 3))
    mask, expected = np.ones(total, bool), flat.copy()
    for document, start, stop_ in table.tolist():
        first = firsts[document]
        mask[first + start : first + stop_] = False
        expected[first + start : first + stop_] = 50
        if stop_ == sizes[document]:
            expected[first + stop_ - 1] = end
    at, stop = sorted((min(at, total), min(stop, total)))
    documents = table[:, 0]
    overlay = Overlay(flat, firsts[documents].astype(np.int64), np.array(sizes)[documents], table, 50, end)
    tokens, got = overlay.block(at, stop)
    assert np.array_equal(got, mask[at:stop]) and np.array_equal(tokens, expected[at:stop])


def test_spans_are_merged_over_documents_of_any_length() -> None:
    big = module.LONGEST_SEQUENCE
    assert merged(np.array([[0, 5, big], [1, 0, 3], [0, 0, 5]])).tolist() == [[0, 0, big], [1, 0, 3]]
