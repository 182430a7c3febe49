"""The stage: the same result however files are spread, a kept twin for every removed file, and hostile input."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from stackbuild.dedup import limits, members
from stackbuild.dedup import near_duplicates as in_memory
from stackbuild.dedup.near_duplicates import near_duplicates
from stackbuild.dedup.options import NearDedupOptions
from stackbuild.dedup.stage import NearDedup
from stackbuild.errors import InputError

WORDS = " ".join(f"word{i}" for i in range(60))


def jaccard(a: str, b: str) -> float:
    sets = []
    for text in (a, b):
        words = re.findall(r"\w+", text.lower())
        sets.append({tuple(words[i : i + 5]) for i in range(len(words) - 4)})
    return len(sets[0] & sets[1]) / max(len(sets[0] | sets[1]), 1)


@pytest.fixture(scope="module")
def corpus(files, family):
    rng = np.random.default_rng(5)
    texts = []
    for i in range(60):
        texts += family(rng, 150, i % 5, 1 + i % 9)
    texts += family(rng, 300, 40, 4)
    texts += ["", "x", "a b c d", "a b c d", "\x00\x00", "# License\n", *(f"# Licence\n{WORDS}\n{i}" for i in range(3))]
    n = len(texts)
    return files(
        texts,
        stars=[None if i % 7 == 0 else int(s) for i, s in enumerate(rng.integers(0, 3, n))],
        language=[None if i % 50 == 0 else "Go" if i % 11 == 0 else "Python" for i in range(n)],
        license_class=[["permissive", "no_license", "non_permissive", None][i] for i in rng.integers(0, 4, n)],
    )


def as_memory(result: pa.Table) -> pa.Table:
    return result.select(["content_id", "cluster_id", "cluster_size", "kept", "value", "kept_content_id"])


def same(a: pa.Table, b: pa.Table) -> bool:
    return a.combine_chunks().to_pydict() == b.combine_chunks().to_pydict()


@pytest.mark.parametrize(
    "options",
    [
        NearDedupOptions(),
        NearDedupOptions(verify=False),
        NearDedupOptions(mode="exact"),
        NearDedupOptions(compare_headers=True),
        NearDedupOptions(compare_headers=True, mode="exact"),
    ],
)
def test_the_result_does_not_depend_on_partitions(corpus, near_dedup, tmp_path, options, monkeypatch):
    one = near_dedup(corpus, options, 1, tmp_path / "1")
    assert 0 < pc.sum(one["kept"]).as_py() < len(one)
    monkeypatch.setattr(limits, "GROUP_FILES", 9)
    monkeypatch.setattr(members, "SET_ROWS", 2)
    small = options.model_copy(update={"memory": 1 << 16})
    for partitions in (1, 2, 16):
        assert same(one, near_dedup(corpus, small, partitions, tmp_path / f"small{partitions}", batch_rows=13))


def test_a_table_in_memory_gives_the_same_in_any_order_of_rows(corpus, near_dedup, tmp_path, monkeypatch):
    monkeypatch.setattr(in_memory, "SKETCH_ROWS", 50)
    staged = as_memory(near_dedup(corpus, NearDedupOptions(), 4, tmp_path))
    shuffled = corpus.take(pa.array(np.random.default_rng(0).permutation(len(corpus))))
    found = near_duplicates(shuffled)
    assert found["content_id"].to_pylist() == shuffled["content_id"].to_pylist()
    found = found.sort_by("content_id").rename_columns({"similarity": "value", "kept_id": "kept_content_id"})
    assert same(staged, found.select(staged.column_names))


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.85])
def test_every_removed_file_has_a_kept_twin_and_names_it(corpus, near_dedup, tmp_path, threshold):
    options = NearDedupOptions(threshold=threshold, header_blind=False)
    rows = {row["content_id"]: row for row in near_dedup(corpus, options, 2, tmp_path).to_pylist()}
    given = {row["content_id"]: row for row in corpus.to_pylist()}
    removed = [row for row in rows.values() if not row["kept"]]
    assert len(removed) > 20
    for row in removed:
        twin, me = given[row["kept_content_id"]], given[row["content_id"]]
        assert rows[row["kept_content_id"]]["kept"]
        assert row["value"] == jaccard(me["text"], twin["text"]) >= threshold
        assert me["language"] == twin["language"]
        assert row["detail"] == f"{twin['repo_name']} {twin['path']}"
        assert row["cluster_id"] == rows[row["kept_content_id"]]["cluster_id"]
    for row in rows.values():
        if row["kept"]:
            assert (row["value"], row["kept_content_id"], row["detail"]) == (None, None, None)
    sizes = [row["cluster_id"] for row in rows.values() if row["cluster_id"]]
    for row in rows.values():
        assert row["cluster_size"] == (sizes.count(row["cluster_id"]) if row["cluster_id"] else 1)
        assert row["cluster_id"] is None or row["cluster_id"] <= row["content_id"]


def test_nearly_all_pairs_of_the_exact_oracle_are_found(corpus):
    texts, found = (
        corpus["text"].to_pylist(),
        near_duplicates(corpus, options=NearDedupOptions(scope="global", header_blind=False)),
    )
    kept = [i for i, stays in enumerate(found["kept"].to_pylist()) if stays]
    surviving = sum(jaccard(texts[i], texts[j]) >= 0.7 for n, i in enumerate(kept) for j in kept[n + 1 :])
    assert surviving <= 1


def test_files_of_few_words_never_collapse(files):
    table = files(["", "", "a b c d", "a b c d", "x", "x", " ".join("abcde"), " ".join("abcde")])
    assert near_duplicates(table)["kept"].to_pylist().count(False) == 1


def test_the_better_file_stays(files):
    texts = [WORDS] * 6
    table = files(texts, stars=[9, 1, 1, 1, None, 1], forks=[9, 2, 3, 3, 9, None], dates=[9, 9, 1, 2, 9, 9],
                  license_class=["no_license", *["permissive"] * 5])  # fmt: skip
    found = near_duplicates(table)
    assert found["kept"].to_pylist() == [False, False, False, True, False, False]
    assert set(found["similarity"].to_pylist()) == {None, 1.0}
    by_stars = near_duplicates(table, options=NearDedupOptions(survivor=("-star_events_count",)))
    assert by_stars["kept"].to_pylist()[0]


def test_languages_are_compared_apart_unless_the_scope_is_global(files):
    table = files([WORDS] * 4, language=["C", "Go", None, None])
    assert near_duplicates(table)["kept"].to_pylist().count(False) == 1
    assert near_duplicates(table, options=NearDedupOptions(scope="global"))["kept"].to_pylist().count(False) == 3


def test_a_shared_licence_makes_no_twins(files):
    header = "// Copyright\n" + "".join(f"// license text {i}\n" for i in range(90))
    table = files([header + f"alpha{i} beta{i} gamma{i} delta{i} epsilon{i} zeta{i}" for i in range(5)])
    assert all(near_duplicates(table)["kept"].to_pylist())
    seeing = near_duplicates(table, options=NearDedupOptions(header_blind=False))
    assert seeing["kept"].to_pylist().count(False) == 4


def test_without_a_check_a_component_keeps_one(files):
    table = files([WORDS] * 5)
    found = near_duplicates(table, options=NearDedupOptions(verify=False))
    assert found["kept"].to_pylist().count(True) == 1
    assert found["similarity"].null_count == 5


def test_a_bucket_of_a_hundred_thousand_copies(files):
    copies = 100_000
    words = " ".join(f"w{i}" for i in range(25))
    table = files([words] * copies + [words + " and one word more"])
    found = near_duplicates(table)
    assert found["kept"].to_pylist().count(True) == 1
    assert found["cluster_size"][0].as_py() == copies + 1


@pytest.mark.slow
def test_a_hundred_thousand_copies_in_the_stage(files, near_dedup, tmp_path):
    found = near_dedup(files([WORDS] * 100_000), NearDedupOptions(), 4, tmp_path, 5000)
    assert found["kept"].to_pylist().count(True) == 1


def test_no_files_at_all(files, near_dedup, tmp_path):
    assert near_duplicates(files([])).num_rows == 0
    lonely = near_dedup(files(["only one file with a few words"]), NearDedupOptions(), 2, tmp_path)
    assert lonely.to_pylist()[0]["kept"] and lonely.to_pylist()[0]["cluster_id"] is None


def test_ids_that_repeat_or_are_null_are_refused(files, near_dedup, tmp_path):
    twice = files([WORDS, "b"], content_id=[b"\0" * 20] * 2)
    with pytest.raises(InputError, match="0000 stands in two rows"):
        near_duplicates(twice)
    with pytest.raises(InputError, match="repeat or do not ascend"):
        near_dedup(twice, NearDedupOptions(), 1, tmp_path)
    with pytest.raises(InputError, match="is null in 1 rows"):
        near_duplicates(files([WORDS, "b"], content_id=[b"\0" * 20, None]))


def test_ids_that_end_in_nul_are_told_apart(files, near_dedup, tmp_path):
    ids = [b"\x01" * 6 + bytes([i]) + b"\x01" * 11 + b"\0\0" for i in range(3)] + [b"\xff" * 20]
    found = near_dedup(files([WORDS, "other", WORDS, "more"], content_id=ids), NearDedupOptions(), 2, tmp_path)
    assert found["kept"].to_pylist() == [True, True, False, True]
    assert found["kept_content_id"].to_pylist()[2] == ids[0]


def test_of_contents_that_share_a_number_the_smaller_takes_part(files, near_dedup, tmp_path):
    """Two ids with one beginning of 61 bits: nobody leaves that should not, and what is told is true of the first."""
    ids = [b"\x01" * 19 + b"\0", b"\x01" * 20, b"\x02" * 20, b"\x03" * 20]
    table = files([WORDS, "other " * 20, WORDS, "other " * 20], content_id=ids)
    found = near_dedup(table, NearDedupOptions(), 2, tmp_path)
    assert found["kept"].to_pylist() == [True, True, False, True]
    assert found["kept_content_id"].to_pylist()[2] == ids[0]
    assert found["cluster_size"].to_pylist() == [2, 1, 2, 1]


def test_it_runs_alone_in_a_pipeline(corpus):
    stage = NearDedup(NearDedupOptions())
    left = pa.Table.from_batches(list(stage.run(corpus.to_batches(max_chunksize=50))))
    found = near_duplicates(corpus)
    assert left["content_id"].to_pylist() == corpus.filter(found["kept"])["content_id"].to_pylist()
    assert left["cluster_size"].to_pylist() == found.filter(found["kept"])["cluster_size"].to_pylist()


def test_it_reads_no_more_than_its_options_need():
    assert "language" not in NearDedup(NearDedupOptions(scope="global")).needs()
    assert "star_events_count" not in NearDedup(NearDedupOptions(survivor=("license_rank",))).needs()


def test_exact_mode_in_memory_finds_what_few_bands_miss(files, family):
    rng = np.random.default_rng(8)
    table = files([text for i in range(80) for text in family(rng, 120, 1, 4 + i % 3)])
    few = {"permutations": 20, "bands": 4, "threshold": 0.5}
    by_bands, exactly = (near_duplicates(table, options=NearDedupOptions(mode=m, **few)) for m in ("minhash", "exact"))
    assert by_bands["kept"].to_pylist().count(False) < exactly["kept"].to_pylist().count(False) == 80
