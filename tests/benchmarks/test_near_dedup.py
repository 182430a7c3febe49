"""The instruments of benchmarks/near_dedup.py: the oracle, the judge and the planted truth are right."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.near_dedup_generate import MOST_COPIES, generate
from benchmarks.near_dedup_growth import Point, exponent, project
from benchmarks.near_dedup_oracle import Truth, all_pairs, shingle_sets, truth
from benchmarks.near_dedup_peers import PEERS, Outcome, opened, outcome
from benchmarks.near_dedup_quality import judge

SETS = st.lists(st.sets(st.integers(0, 12), max_size=10), max_size=12)


@settings(max_examples=200, deadline=None)
@given(SETS, st.sampled_from([0.3, 0.5, 0.7, 0.8, 1.0]))
def test_the_oracle_finds_the_pairs_of_a_comparison_of_all_with_all(sets, threshold):
    hashes = np.array([value for one in sets for value in sorted(one)], np.uint64)
    offsets = np.cumsum([0, *(len(one) for one in sets)]).astype(np.int64)
    found = list(zip(*(values.tolist() for values in all_pairs(hashes, offsets, threshold)), strict=True))
    true = [
        (i, j, len(sets[i] & sets[j]) / len(sets[i] | sets[j]))
        for i in range(len(sets))
        for j in range(i + 1, len(sets))
        if sets[i] & sets[j] and len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= threshold
    ]
    assert found == true


def test_shingles_are_the_distinct_5_grams_of_unicode_words_in_lower_case():
    hashes, offsets = shingle_sets(
        ["a b c d e f", "A, B! c.d e\tF", "a b c d", "é ü b c d", "É Ü b c d", "a b c d e a b c d e"]
    )
    sets = [hashes[start:stop].tolist() for start, stop in pairwise(offsets)]
    assert [len(one) for one in sets] == [2, 2, 0, 1, 1, 5]
    assert sets[0] == sets[1] and sets[3] == sets[4]


def test_the_judge_counts_pairs_twins_and_clusters():
    # Files 0-1 and 1-2 are pairs, 0-2 is not; 3 and 4 are copies of a text without shingles; 5 is like none.
    exact = Truth(np.array([0, 1]), np.array([1, 2]), np.array([0.72, 0.95]), np.array([9, 9, 9, 0, 0, 9]),
                  np.array([0, 1, 2, 3, 3, 4]))  # fmt: skip
    removed = np.array([False, True, True, False, True, True])
    group = np.array([1, 1, 1, -1, -1, 1])
    found = judge(exact, Outcome(removed, group), "")
    assert (found.removed, found.kept_twin, found.any_twin) == (4, 2 / 4, 3 / 4)  # 1 and 4; 2 has one that left
    assert (found.recall, found.recall_by_band) == (1.0, (1.0, 1.0, 1.0, 1.0))
    assert found.precision == 2 / 6
    assert found.surviving == 0 and found.named_twin is None
    named = judge(exact, Outcome(removed, group, np.array([-1, 0, 0, -1, 3, -1])), "")
    assert named.named_twin == 2 / 4  # 1 by 0, 4 by its copy; 0 is no twin of 2; 5 names none
    apart = judge(exact, Outcome(np.zeros(6, np.bool_), np.array([1, 1, -1, -1, -1, -1])), "")
    assert (apart.recall, apart.recall_by_band, apart.surviving) == (0.5, (1.0, 1.0, 1.0, 0.0), 2)
    assert (apart.found, apart.found_high) == (2 / 3, 0.0)


@pytest.fixture
def texts(tmp_path):
    """A small corpus: 40 texts of made-up words."""
    draw = np.random.default_rng(7)
    lines = [[" ".join(f"w{n}" for n in draw.integers(0, 500, 8)) for _ in range(60)] for _ in range(40)]
    path = tmp_path / "texts.parquet"
    pq.write_table(pa.table({"text": ["\n".join(one) for one in lines]}), path)
    return path


def test_planted_similarity_is_what_the_oracle_finds_and_originals_are_unlike(texts, tmp_path):
    table = pa.concat_tables(pq.read_table(path) for path in generate(tmp_path / "out", [texts], 1.0))
    family, copy, similarity = (table[name].to_numpy() for name in ("family", "copy", "similarity"))
    exact = truth(table["text"].chunks, 0.3, header_blind=False)
    assert (family[exact.left] == family[exact.right]).all()
    found = {(i, j): s for i, j, s in zip(exact.left, exact.right, exact.similarity, strict=True)}
    for row in np.flatnonzero((copy > 0) & (similarity >= 0.3)):
        original = np.flatnonzero((family == family[row]) & (copy == 0))[0]
        assert found[min(row, original), max(row, original)] == similarity[row]
    assert set(copy) == set(range(MOST_COPIES + 1))
    assert ((similarity[copy > 0] >= 0.7).mean() > 0.3) and ((similarity[copy > 0] < 0.7).mean() > 0.05)


def test_generated_files_follow_from_the_seed(texts, tmp_path):
    read = [
        [path.read_bytes() for path in generate(tmp_path / str(n), [texts], 0.2, seed)]
        for n, seed in enumerate((1, 1, 2))
    ]
    assert read[0] == read[1] != read[2]


def test_an_outcome_is_read_from_the_files_that_stay_and_the_groups(tmp_path):
    pq.write_table(pa.table({"id": ["a", "b", "c"], "text": ["x", "y", "z"]}), tmp_path / "in.parquet")
    kept = tmp_path / "kept.parquet"
    pq.write_table(pa.table({"id": ["c", "a"]}), kept)
    groups = pa.table({"id": ["b", "a"], "group": ["g", "g"], "kept_id": ["a", None]})
    with opened([tmp_path / "in.parquet"], tmp_path) as given:
        found = outcome(given, [kept], groups)
        assert (given.bytes, found.removed.tolist(), found.group.tolist()) == (3, [False, True, False], [0, 0, -1])
        assert found.named is not None and found.named.tolist() == [-1, 0, -1]
        with pytest.raises(SystemExit, match="1 ids were told"):
            pq.write_table(pa.table({"id": ["c", "d"]}), kept)
            outcome(given, [kept], groups)


def test_the_exponent_of_linear_growth_is_one():
    class Ran:
        def __init__(self, cpu):
            self.cpu = cpu

    points = [Point("", mb, 0, (Ran(0.02 * mb),), 0) for mb in (60, 120, 5000)]
    assert exponent(points) == pytest.approx(1)


def test_versions_of_a_project_stay_together():
    repos = pa.chunked_array([["debian/curl@8.14", "debian/curl@7.88", "pypi/a", "pypi/@scope@1"]])
    assert project(repos).to_pylist() == ["debian/curl", "debian/curl", "pypi/a", "pypi/@scope"]


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_peer_has_a_runner_and_pinned_requirements(peer):
    assert (Path(__file__).parents[2] / "benchmarks" / "peers" / peer.script).exists()
    assert all("==" in requirement for requirement in peer.requirements)
