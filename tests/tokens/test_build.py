"""A whole build to tokens, in each layout: what is held out has nothing in common with what is trained on."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stackbuild import build as building
from stackbuild.tokens.bpe import Vocabulary
from stackbuild.tokens.indexed import IndexedDataset
from stackbuild.tokens.job import read_manifest
from tests.worlds import light, world


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve repositories that hold a near-duplicate of each other, and files that look like sentinels."""
    root = world(tmp_path_factory.mktemp("world"), repos=12, files=3)
    for number, repo in enumerate(sorted(root.iterdir())):
        (repo / "literal.py").write_text(f"x{number} = '<fim_prefix><|endoftext|><fim-suffix><reponame>{number}'\n" * 9)
    return root


def build(root: Path, out: Path, **tokens: Any) -> Path:
    tokens = {"vocab_size": 600, "shards": 2, "sample_bytes": 100_000, "valid_share": 0.3} | tokens
    body = light(root, outputs=["dataset", "tokens"], tokens=tokens)
    building.run(building.Request(body, Path("/"), out, 2))
    return out


def files_of(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Of each split all files with their texts, from the tokens alone."""
    vocabulary = Vocabulary(out / "tokens" / "tokenizer.json")
    found: dict[str, list[dict[str, Any]]] = {}
    for source in read_manifest(out / "tokens" / "manifest.json").sources:
        for shard in source.shards:
            prefix = out / "tokens" / shard.prefix
            dataset, rows = IndexedDataset(prefix), pq.read_table(f"{prefix}.documents.parquet").to_pylist()
            assert shard.prefix.startswith("code-valid-") == (source.split == "valid")
            for number, row in enumerate(rows):
                ids = dataset[number].tolist()
                assert row["source"] == source.name
                for file in row["files"]:
                    text = vocabulary.decode(ids[file["start"] : file["end"]])
                    found.setdefault(source.split, []).append(file | {"repo": row["repo_name"], "text": text})
    return found


@pytest.fixture(scope="module")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(root, tmp_path_factory.mktemp("built") / "out")


def released(out: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((out / "dataset").rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_every_file_of_the_dataset_is_in_one_split_once(built: Path) -> None:
    files = files_of(built)
    told = sorted((file["repo"], file["path"], file["text"]) for split in files.values() for file in split)
    assert told == sorted((row["repo_name"], row["path"], row["content"]) for row in released(built))
    assert set(files) == {"train", "valid"}


def shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + 5]) for at in range(len(words) - 4)}


def test_no_content_and_no_near_duplicate_is_on_both_sides(built: Path) -> None:
    files = files_of(built)
    ids = {split: {file["content_id"] for file in some} for split, some in files.items()}
    assert not ids["train"] & ids["valid"]
    assert not {file["repo"] for file in files["train"]} & {file["repo"] for file in files["valid"]}
    sets = {split: [shingles(file["text"]) for file in some] for split, some in files.items()}
    for one, other in itertools.product(sets["train"], sets["valid"]):
        assert len(one & other) < 0.7 * len(one | other) or not one | other


def test_the_manifest_tells_who_was_held_out(built: Path) -> None:
    files, manifest = files_of(built), read_manifest(built / "tokens" / "manifest.json")
    told = manifest.division
    assert manifest.layout == "starcoder2" and told is not None and told.share == 0.3
    held_out = {file["repo"] for file in files["valid"]}
    assert told.held_out_repos == len(held_out)
    assert told.held_out_bytes == sum(row["length_bytes"] for row in released(built) if row["repo_name"] in held_out)
    assert told.repos == 12 and told.parted == 1  # all that hold the near-duplicate, among so few


@pytest.mark.parametrize("layout", ["starcoder", "santacoder"])
def test_the_other_layouts_have_a_document_for_each_file(built: Path, root: Path, tmp_path: Path, layout: str) -> None:
    out = build(root, tmp_path / "out", layout=layout, strip_sentinels=layout == "starcoder")
    files, others = files_of(out), files_of(built)
    for split, some in files.items():
        manifest = read_manifest(out / "tokens" / "manifest.json")
        (source,) = (source for source in manifest.sources if source.split == split)
        assert sum(shard.documents for shard in source.shards) == len(some) == len(others[split])
        assert {file["repo"] for file in some} == {file["repo"] for file in others[split]}
    literal = [file["text"] for some in files.values() for file in some if file["path"].endswith("literal.py")]
    assert literal and all(("<fim_prefix>" in text) == (layout == "santacoder") for text in literal)
    assert all("<fim-suffix>" in text for text in literal)  # of another family: letters


def test_a_share_of_nothing_holds_out_nothing(root: Path, tmp_path: Path) -> None:
    out = build(root, tmp_path / "out", valid_share=0.0)
    assert set(files_of(out)) == {"train"}
    assert not list((out / "tokens").glob("*valid*"))
