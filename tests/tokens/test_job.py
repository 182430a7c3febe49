"""From dataset to shards: every file comes back, and the same bytes whatever the files and their order."""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from rich.console import Console

from stackbuild.errors import InputError
from stackbuild.hashing import draw
from stackbuild.render import has_metadata
from stackbuild.tokens import runs as runs_module
from stackbuild.tokens.bpe import Vocabulary
from stackbuild.tokens.documents import DOCUMENTS, read_document
from stackbuild.tokens.indexed import IndexedDataset
from stackbuild.tokens.job import encode_bucket, read_manifest, shard_name, write_manifest
from stackbuild.tokens.options import TokensOptions
from stackbuild.tokens.runs import RUN, Buckets, merged, write_run
from stackbuild.tokens.show import show_document
from stackbuild.tokens.stage import Tokens

SEED = 11


def build(folder: Path, files: Sequence[Path], tokenizer: Path, options: TokensOptions, seed: int = SEED) -> list[Any]:
    folder.mkdir(parents=True, exist_ok=True)
    made = [folder / f"run{number}" for number in range(len(files))]
    for file, run in zip(files, made, strict=True):
        write_run(file, Buckets(seed, options.shards), run)
    names = [shard_name("code", bucket, options.shards) for bucket in range(options.shards)]
    return [encode_bucket(made, k, tokenizer, options, seed, folder / name) for k, name in enumerate(names)]


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name.startswith("code-")}


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory, rows: Any, write_dataset: Any, tokenizer: Path, options: Any
) -> Path:
    folder = tmp_path_factory.mktemp("built")
    facts = build(folder / "tokens", write_dataset(folder / "data", rows, 1), tokenizer, options)
    write_manifest(folder / "tokens" / "manifest.json", tokenizer, {"train": facts})
    return folder / "tokens"


def documents(folder: Path) -> Any:
    """Yield every document of every shard: its table row and its tokens."""
    for path in sorted(folder.glob("code-*.idx")):
        prefix = path.with_suffix("")
        dataset = IndexedDataset(prefix)
        table = pq.read_table(f"{prefix}.documents.parquet").to_pylist()
        assert len(dataset) == len(table)
        for number, row in enumerate(table):
            assert row["document"] == number
            yield row, dataset[number].tolist()


def test_every_document_split_at_its_sentinels_gives_back_every_file(built: Path, rows: Any, tokenizer: Path) -> None:
    vocabulary = Vocabulary(tokenizer)
    end, repo, sep = (vocabulary.sentinels[name] for name in ("<|endoftext|>", "<repo_name>", "<file_sep>"))
    left = {(row["repo_name"], row["revision_id"], row["path"]): row for row in rows}
    assert len(left) == len(rows)
    for document, ids in documents(built):
        assert ids[-1] == end and ids.count(end) == 1
        name, revision = document["repo_name"], document["revision_id"]
        named = has_metadata(SEED, name, revision)
        first, *parts = split(ids[:-1], sep)
        if named:
            assert first[0] == repo and vocabulary.decode(first[1:]) == name
        else:
            assert first == []
        expected = sorted(
            (row for row in rows if (row["repo_name"], row["revision_id"]) == (name, revision)),
            key=lambda row: draw(SEED, "order", name, revision, row["path_bytes"], bytes.fromhex(row["content_id"])),
        )
        assert len(parts) == len(expected)
        for part, row in zip(parts, expected, strict=True):
            head = row["path"].removeprefix("/") + "\n" if named else ""
            assert vocabulary.decode(part) == head + row["content"]
            del left[name, revision, row["path"]]
    assert not left


def split(ids: list[int], separator: int) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for token in ids:
        if token == separator:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def test_the_document_table_tells_every_token(built: Path, rows: Any, tokenizer: Path) -> None:
    vocabulary = Vocabulary(tokenizer)
    by_id = {row["content_id"]: row for row in rows}
    for document, ids in documents(built):
        assert document["tokens"] == len(ids)
        assert document["bytes"] == sum(by_id[file["content_id"]]["length_bytes"] for file in document["files"])
        owner = np.zeros(len(ids), np.int64)
        for span in document["headers"]:
            owner[span["start"] : span["end"]] += 1
        for file in document["files"]:
            row = by_id[file["content_id"]]
            assert vocabulary.decode(ids[file["start"] : file["end"]]) == row["content"]
            assert (file["path"], file["license_type"], file["language"]) == (
                row["path"],
                row["license_type"],
                row["language"],
            )
            owner[file["start"] : file["end"]] += 1
        assert owner.tolist() == [1] * (len(ids) - 1) + [0]
        starts = [span["start"] for span in document["headers"]]
        assert starts == sorted(starts) and starts[0] == 0


def test_a_file_has_the_ids_of_hugging_face_on_the_whole(built: Path, rows: Any, tokenizer: Path) -> None:
    from tokenizers import Tokenizer

    whole = Tokenizer.from_file(str(tokenizer))
    whole.encode_special_tokens = True
    by_id = {row["content_id"]: row for row in rows}
    for document, ids in documents(built):
        for file in document["files"]:
            text = by_id[file["content_id"]]["content"]
            assert whole.encode(text, add_special_tokens=False).ids == ids[file["start"] : file["end"]]


def test_repositories_are_whole_sorted_and_in_their_bucket(built: Path, options: Any) -> None:
    seen: list[tuple[str, str]] = []
    for bucket in range(options.shards):
        table = pq.read_table(built / f"{shard_name('code', bucket, options.shards)}.documents.parquet")
        assert table.schema.equals(DOCUMENTS)
        names = list(zip(table["repo_name"].to_pylist(), table["revision_id"].to_pylist(), strict=True))
        assert names == sorted(names)
        assert all(Buckets(SEED, options.shards).of(name) == bucket for name, _ in names)
        seen += names
    assert len(seen) == len(set(seen))


def test_files_and_their_order_change_no_byte(
    built: Path, tmp_path: Path, rows: Any, write_dataset: Any, tokenizer: Path, options: Any
) -> None:
    shuffled = list(rows)
    random.Random(3).shuffle(shuffled)
    files = write_dataset(tmp_path / "data", shuffled, 4)
    build(tmp_path / "tokens", files[::-1], tokenizer, options)
    assert shards(tmp_path / "tokens") == {k: v for k, v in shards(built).items() if k != "manifest.json"}


def test_small_memory_and_many_runs_change_no_byte(
    built: Path, tmp_path: Path, rows: Any, write_dataset: Any, tokenizer: Path, options: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(runs_module, "CHUNK", 2000)
    monkeypatch.setattr(runs_module, "ROW_GROUP", 500)
    monkeypatch.setattr(runs_module, "HELD", 2000)
    monkeypatch.setattr(runs_module, "FAN_IN", 3)
    monkeypatch.setattr("stackbuild.tokens.encode.BATCH", 300)
    monkeypatch.setattr("stackbuild.tokens.job.BATCH", 700)
    build(tmp_path / "tokens", write_dataset(tmp_path / "data", rows, 11), tokenizer, options)
    assert shards(tmp_path / "tokens") == shards(built)
    left = {path.name.split("-")[0] for path in (tmp_path / "tokens").iterdir()}
    assert left == {"code", *(f"run{number}" for number in range(11))}  # nothing is left beside


def test_another_seed_gives_another_order(
    built: Path, tmp_path: Path, rows: Any, write_dataset: Any, tokenizer: Path, options: Any
) -> None:
    build(tmp_path / "tokens", write_dataset(tmp_path / "data", rows, 1), tokenizer, options, SEED + 1)
    assert shards(tmp_path / "tokens") != shards(built)


@pytest.mark.parametrize("size", [200_000, pytest.param(5_000_000, marks=pytest.mark.slow)])
def test_a_line_of_5_mb_comes_back(
    tmp_path: Path, row: Any, write_dataset: Any, tokenizer: Path, monkeypatch: Any, size: int
) -> None:
    monkeypatch.setattr("stackbuild.tokens.encode.BATCH", size // 5)
    monkeypatch.setattr("stackbuild.tokens.encode.pieces.__defaults__", (size // 5,))
    rng = random.Random(1)
    text = " ".join(f"v{rng.randrange(10**6)}" for _ in range(size // 7))
    assert len(text) > size and "\n" not in text
    files = write_dataset(tmp_path / "data", [row("o/n", "/a", text), row("o/n", "/b", "after\n")], 1)
    build(tmp_path / "tokens", files, tokenizer, TokensOptions(shards=1))
    ((document, ids),) = documents(tmp_path / "tokens")
    vocabulary = Vocabulary(tokenizer)
    found = {file["path"]: vocabulary.decode(ids[file["start"] : file["end"]]) for file in document["files"]}
    assert found == {"/a": text, "/b": "after\n"}


# ---------------------------------------------------------------- runs


@pytest.mark.parametrize("batch", [1, 4 << 20])
@pytest.mark.parametrize("place", ["first", "between", "last"])
def test_a_document_that_is_too_long_is_named(
    tmp_path: Path, row: Any, write_dataset: Any, tokenizer: Path, monkeypatch: Any, place: str, batch: int
) -> None:
    """Wherever it ends: in the batch in which it began, a later one, or at the end of the shard."""
    long = {"first": "a/a", "between": "b/b\x1b", "last": "d/d"}[place]
    rows = [row(repo, f"/{k}.py", "0" * 9) for repo in ("a/a", "b/b\x1b", "c/c", "d/d") for k in range(3)]
    rows += [row(long, f"/more{k}.py", "0" * 99) for k in range(3)]
    monkeypatch.setattr("stackbuild.tokens.indexed.LONGEST_SEQUENCE", 200)
    monkeypatch.setattr("stackbuild.tokens.job.BATCH", batch)
    number = {"first": 0, "between": 1, "last": 3}[place]
    named = re.escape(f"document {number}, of {long!r} at 'r1', which begins with '/") + r"\w+\.py', has \d+ tokens"
    with pytest.raises(InputError, match=named):
        build(tmp_path / "out", write_dataset(tmp_path, rows, 1), tokenizer, TokensOptions(vocab_size=600, shards=1))


def test_a_run_is_sorted_and_its_row_groups_hold_one_bucket(tmp_path: Path, rows: Any, write_dataset: Any) -> None:
    (file,) = write_dataset(tmp_path, rows, 1)
    counts = write_run(file, Buckets(SEED, 8), tmp_path / "run")
    assert counts == {"files": len(rows), "bytes": sum(row["length_bytes"] for row in rows)}
    with pq.ParquetFile(tmp_path / "run") as run:
        groups = json.loads(run.metadata.metadata[b"stackbuild.buckets"])
        assert run.schema_arrow.equals(RUN) and sum(groups) == run.num_row_groups
        owners = [bucket for bucket, count in enumerate(groups) for _ in range(count)]
        keys = []
        for group, bucket in enumerate(owners):
            for row in run.read_row_group(group).to_pylist():
                assert Buckets(SEED, 8).of(row["repo_name"]) == bucket
                assert row["order"] == draw(
                    SEED, "order", row["repo_name"], row["revision_id"], row["path_bytes"], row["content_id"]
                )
                keys.append((bucket, row["repo_name"], row["revision_id"], row["order"]))
    assert keys == sorted(keys) and len(keys) == len(rows)


def test_equal_draws_fall_by_path_and_content(tmp_path: Path, row: Any, write_dataset: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(runs_module, "order_keys", lambda seed, names, *rest: np.zeros(len(names), np.uint64))
    rows = [row("o/n", f"/{name}", text) for name in "cab" for text in ("1", "2")]
    files = write_dataset(tmp_path, rows, 3)
    for number, file in enumerate(files):
        write_run(file, Buckets(SEED, 1), tmp_path / f"run{number}")
    tables = list(merged([tmp_path / f"run{k}" for k in (2, 0, 1)], 0, tmp_path / "scratch"))
    got = [(r["path_bytes"], r["content_id"].hex()) for table in tables for r in table.to_pylist()]
    assert got == sorted((r["path_bytes"], r["content_id"]) for r in rows)


@pytest.mark.parametrize("column", ["repo_name", "revision_id", "path", "path_bytes", "content_id", "content"])
def test_a_file_without_identity_or_text_is_refused(tmp_path: Path, row: Any, write_dataset: Any, column: str) -> None:
    (file,) = write_dataset(tmp_path, [row("o/n", "/a", "x") | {column: None}], 1)
    with pytest.raises(InputError, match=f"without {column}"):
        write_run(file, Buckets(SEED, 1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("identity", ["", "0" * 39, "0" * 41, "G" * 40, "0" * 39 + "\n", "A" * 40])
def test_a_content_id_that_is_no_hash_is_refused(tmp_path: Path, row: Any, write_dataset: Any, identity: str) -> None:
    (file,) = write_dataset(tmp_path, [row("o/n", "/a", "x") | {"content_id": identity}], 1)
    with pytest.raises(InputError, match="40 hex digits"):
        write_run(file, Buckets(SEED, 1), tmp_path / "run")


@pytest.mark.parametrize("column", ["repo_name", "revision_id", "path", "license_type", "language", "content"])
def test_a_text_that_is_not_utf8_is_refused_by_repository_and_path(
    tmp_path: Path, row: Any, write_dataset: Any, column: str
) -> None:
    (file,) = write_dataset(tmp_path, [row("o/n", f"/{name}", "text") for name in "abc"], 1)
    table = pq.read_table(file)
    kind = table.schema.field(column).type
    raw = [b"\xff" if k == 1 else (value or "").encode() for k, value in enumerate(table[column].to_pylist())]
    wrong = pa.array(raw, pa.large_binary() if pa.types.is_large_string(kind) else pa.binary()).view(kind)
    pq.write_table(table.set_column(table.schema.get_field_index(column), column, wrong), file)
    of = r"b'\\xff'" if column == "repo_name" else "b'o/n'"
    with pytest.raises(InputError, match=rf"0\.parquet: {column} is not UTF-8, of {of} at b'b'"):
        write_run(file, Buckets(SEED, 1), tmp_path / "run")


def test_what_is_no_run_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "x")
    with pytest.raises(InputError, match="no column content, content_id"):
        write_run(tmp_path / "x", Buckets(SEED, 1), tmp_path / "run")
    with pytest.raises(InputError, match="no sorted run"):
        encode_bucket([tmp_path / "x"], 0, tokenizer, TokensOptions(), SEED, tmp_path / "p")
    (tmp_path / "y").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="no sorted run"):
        encode_bucket([tmp_path / "y"], 0, tokenizer, TokensOptions(), SEED, tmp_path / "p")
    assert not (tmp_path / "p.idx").exists() and not (tmp_path / "p.documents.parquet").exists()


def test_an_empty_dataset_gives_an_empty_shard(tmp_path: Path, write_dataset: Any, tokenizer: Path) -> None:
    (facts,) = build(tmp_path / "t", write_dataset(tmp_path, [], 1), tokenizer, TokensOptions(shards=1))
    assert (facts["documents"], facts["tokens"], facts["files"]) == (0, 0, 0)
    assert len(IndexedDataset(tmp_path / "t" / "code-00000-of-00001")) == 0


def test_a_tokenizer_without_a_sentinel_is_refused_by_name(tmp_path: Path, tokenizer: Path) -> None:
    spec = json.loads(tokenizer.read_bytes())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] != "<file_sep>"]
    (tmp_path / "t.json").write_text(json.dumps(spec))
    with pytest.raises(InputError, match=r"has no token <file_sep>, which"):
        encode_bucket([], 0, tmp_path / "t.json", TokensOptions(), SEED, tmp_path / "p")


def test_a_tokenizer_that_cannot_write_the_layout_is_refused_before_a_build(tmp_path: Path, tokenizer: Path) -> None:
    def key(**options: Any) -> Any:
        return Tokens(TokensOptions(tokenizer=str(tmp_path / "t.json"), **options)).key()

    spec = json.loads(tokenizer.read_bytes())
    (tmp_path / "t.json").write_text(json.dumps(spec))
    assert key() == {"tokenizer": hashlib.sha256((tmp_path / "t.json").read_bytes()).hexdigest()}
    with pytest.raises(InputError, match=r"has no token <reponame>, <filename>, <gh_stars>, which"):
        key(layout="starcoder")
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": 70_000, "content": "<more>"})
    (tmp_path / "t.json").write_text(json.dumps(spec))
    with pytest.raises(InputError, match=r"a vocabulary of 70,001 entries does not go with uint16"):
        key(dtype="uint16")
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(InputError, match=r"no tokenizer.json"):
        key()


@pytest.mark.parametrize("table", [{"shards": 12}, {"shards": 0}, {"vocab_size": 10}, {"layout": "x"}, {"typo": 1}])
def test_options_are_checked(table: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TokensOptions(**table)


def test_there_are_at_most_so_many_shards_as_can_be_mapped() -> None:
    most = TokensOptions(shards=16_384)
    assert 2 * (most.shards + most.valid_shards) < 65_530  # a .bin and an .idx each; the kernel's limit of maps
    with pytest.raises(ValidationError, match=r"shards\n.*less than or equal to 16384"):
        TokensOptions(shards=32_768)


# ---------------------------------------------------------------- manifest


def test_the_manifest_tells_what_is_there(built: Path, tokenizer: Path, options: Any) -> None:
    data = (built / "manifest.json").read_bytes()
    spec = json.loads(data)
    assert data == (json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n").encode()
    assert (spec["version"], spec["vocab_size"], spec["dtype"], spec["eod_appended"]) == (1, 600, "uint16", True)
    assert spec["tokenizer_sha256"] == hashlib.sha256(tokenizer.read_bytes()).hexdigest()
    assert (spec["sentinels"]["<|endoftext|>"], spec["sentinels"]["<PASSWORD>"]) == (0, 37)
    (source,) = spec["sources"]
    assert (source["name"], source["split"], source["fim"]) == ("code", "train", True)
    assert len(source["shards"]) == options.shards
    for shard in source["shards"]:
        prefix = built / shard["prefix"]
        dataset = IndexedDataset(prefix)
        assert (shard["documents"], shard["tokens"]) == (len(dataset), dataset.tokens)
        for key, suffix in {"sha256": "bin", "sha256_index": "idx", "sha256_documents": "documents.parquet"}.items():
            assert shard[key] == hashlib.sha256(Path(f"{prefix}.{suffix}").read_bytes()).hexdigest()
    assert read_manifest(built / "manifest.json").sources[0].shards[0].prefix == "code-00000-of-00004"


def test_a_manifest_that_leads_elsewhere_is_refused(built: Path, tmp_path: Path) -> None:
    spec = json.loads((built / "manifest.json").read_bytes())
    for change in ({"version": 2}, {"extra": 1}, {"dtype": "float"}):
        (tmp_path / "m").write_text(json.dumps(spec | change))
        with pytest.raises(InputError, match="no tokens manifest"):
            read_manifest(tmp_path / "m")
    for prefix in ("../../etc/passwd", "a\0b", "a\nb"):
        spec["sources"][0]["shards"][0]["prefix"] = prefix
        (tmp_path / "m").write_text(json.dumps(spec))
        with pytest.raises(InputError, match="no tokens manifest"):
            read_manifest(tmp_path / "m")
    with pytest.raises(InputError, match="cannot be read"):
        read_manifest(tmp_path / "missing")


def test_a_manifest_with_a_shard_twice_or_a_sentinel_outside_the_vocabulary_is_refused(
    built: Path, tmp_path: Path
) -> None:
    spec = json.loads((built / "manifest.json").read_bytes())
    for number in (-1, spec["vocab_size"], 70_000):
        (tmp_path / "m").write_text(json.dumps(spec | {"sentinels": spec["sentinels"] | {"<fim_pad>": number}}))
        with pytest.raises(InputError, match=f"the sentinel <fim_pad> has the id {number}, outside"):
            read_manifest(tmp_path / "m")
    (tmp_path / "m").write_text(json.dumps(spec | {"sources": spec["sources"] * 2}))
    with pytest.raises(InputError, match="a shard is named twice"):
        read_manifest(tmp_path / "m")


# ---------------------------------------------------------------- for people


def shown(prefix: Path, number: int, tokenizer: Path, **more: Any) -> str:
    console = Console(width=200, record=True, file=io.StringIO(), color_system="truecolor", force_terminal=True)
    console.print(show_document(prefix, number, tokenizer, **more))
    return console.export_text(styles=True)


def test_a_document_is_shown_with_sentinels_in_colour_and_controls_escaped(built: Path, tokenizer: Path) -> None:
    options = defaultdict(list)
    for path in sorted(built.glob("code-*.idx")):
        prefix = path.with_suffix("")
        for row in pq.read_table(f"{prefix}.documents.parquet").to_pylist():
            options[row["repo_name"]].append((prefix, row["document"]))
    ((prefix, number),) = options["evil/repo"]
    text = shown(prefix, number, tokenizer)
    assert "\x1b[1;35m<file_sep>\x1b[0m" in text  # bold magenta: a sentinel
    assert "<|endoftext|><fim_prefix>a<fim_suffix>b" in text  # letters: plain
    assert "\\x1b" in text and "\\u2028" in text and "\x07" not in text
    assert "/name\\nwith line feed" in text and "evil/repo @ r1" in text and "12 files" in text
    assert "tokens more" in shown(prefix, number, tokenizer, longest=5)


def test_no_name_of_strangers_moves_the_cursor(built: Path, tokenizer: Path, tmp_path: Path) -> None:
    for suffix in ("bin", "idx"):
        (tmp_path / f"p.{suffix}").write_bytes((built / f"code-00000-of-00004.{suffix}").read_bytes())
    table = pq.read_table(built / "code-00000-of-00004.documents.parquet")
    documents = table.to_pylist()
    for file in documents[0]["files"]:
        file.update(dict.fromkeys(("path", "language", "license_type", "content_id"), "\x1b[2J"))
    documents[0]["repo_name"] = "\x1b[2J"
    pq.write_table(pa.Table.from_pylist(documents, table.schema), tmp_path / "p.documents.parquet")
    spec = json.loads(tokenizer.read_bytes())
    spec["added_tokens"][6]["content"] = "\x1b[2J"  # what <file_sep> was
    del spec["model"]["vocab"]["<file_sep>"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    text = shown(tmp_path / "p", 0, tmp_path / "tokenizer.json")
    assert "\x1b[2J" not in text and text.count("\\x1b[2J") == 1 + 5 * len(documents[0]["files"])


def test_a_document_that_is_not_there_is_refused(built: Path, tokenizer: Path) -> None:
    prefix = built / "code-00000-of-00004"
    for number in (-1, 10**6):
        with pytest.raises(InputError, match="there is no document"):
            show_document(prefix, number, tokenizer)
    with pytest.raises(InputError, match="cannot be read"):
        read_document(built / "missing", 0)
