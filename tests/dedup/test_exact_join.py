"""The exact join finds every pair at or above the threshold and no other, however files and keys are spread."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.dedup.exact_join import (
    HOT,
    MOST,
    count_shingles,
    exact_candidates,
    exact_pairs,
    merge_counts,
    prefix_rows,
    table_bits,
)
from stackbuild.dedup.verify import jaccard_pairs

THRESHOLDS = (0.5, 0.7, 0.85, 1.0)
ANY_THRESHOLD = st.one_of(
    st.sampled_from(THRESHOLDS), st.fractions("1/30", 1, max_denominator=30).map(float), st.floats(0.01, 1)
)
SETS = st.lists(st.tuples(st.sets(st.integers(0, 40), max_size=30), st.integers(0, 1)), max_size=12)


def arrays(sets):
    """Sets of numbers below 2^24 as (hashes, offsets); hashes ascend with the numbers, so that tests choose the
    order.
    """
    numbers = np.array([h for s in sets for h in sorted(s)], np.uint64)
    low = numbers * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(24)
    return numbers << np.uint64(40) | low, np.cumsum([0, *(len(s) for s in sets)])


def brute_force(sets, threshold, scopes):
    found = {}
    for i, j in combinations(range(len(sets)), 2):
        union = len(sets[i] | sets[j])
        if scopes[i] == scopes[j] and union and len(sets[i] & sets[j]) / union >= threshold:
            found[i, j] = len(sets[i] & sets[j]) / union
    return found


def as_dict(left, right, similarity):
    pairs = list(zip(left.tolist(), right.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    return dict(zip(pairs, similarity.tolist(), strict=True))


def family(rng, copies, size, edits, names):
    """Sets of about `size` numbers below `names` that differ in up to `edits` of them."""
    base = rng.choice(names, size, replace=False)
    found = []
    for _ in range(copies):
        copy, changed = base.copy(), rng.integers(0, size, rng.integers(0, edits + 1))
        copy[changed] = rng.integers(0, names, len(changed))
        found.append(set(copy.tolist()))
    return found


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(7)
    sets = [set(), set(), {1}, {1}, {2}, {1, 2}]
    for i in range(60):
        sets += family(rng, 1 + i % 6, 1 + i * i % 90, i % 4 and i % 25, 3000)
    sets += family(rng, 2 * HOT, 150, 30, 3000)
    rng.shuffle(sets)
    return sets, rng.integers(0, 2, len(sets)).astype(np.uint64)


def spread_out(sets, scopes, threshold, tasks, buckets, bits, rng, at_once=50, keep_previous=True, shorten=False):
    """The pairs of a join whose files and keys are spread at random: files over tasks, keys over buckets."""
    task_of = rng.integers(0, tasks, len(sets))
    parts = [np.flatnonzero(task_of == task) for task in range(tasks)]
    given = [(*arrays([sets[i] for i in part]), scopes[part]) for part in parts]
    table = np.zeros(1 << bits, np.uint16)
    for task in rng.permutation(tasks):
        counts = np.zeros_like(table)
        count_shingles(*given[task], counts)
        merge_counts(table, counts)
    rows = [prefix_rows(*of, part, table, threshold) for part, of in zip(parts, given, strict=True)]
    keys, files, sizes, positions, previous, _ = (np.concatenate(column) for column in zip(*rows, strict=True))
    pairs, calls = [], []
    for bucket in range(buckets):
        here = rng.permutation(np.flatnonzero(keys % buckets == bucket))
        mine = (keys[here] & np.uint64(0xFF)).astype(np.uint32) if shorten else keys[here]
        before = previous[here] if keep_previous else None
        call = []
        for left, right in exact_candidates(
            mine, files[here], sizes[here], positions[here], threshold, at_once, before
        ):
            chunk = list(zip(left.tolist(), right.tolist(), strict=True))
            assert chunk == sorted(set(chunk)) and 0 < len(chunk) <= at_once and (left < right).all()
            call += chunk
        assert len(call) == len(set(call))
        pairs += call
        calls.append(len(call))
    hashes, offsets = arrays(sets)
    left, right = (np.array([p[i] for p in sorted(set(pairs))], np.int64) for i in (0, 1))
    similarity = jaccard_pairs(hashes, offsets, hashes, offsets, left, right, threshold)
    good = (similarity >= threshold) & (similarity > 0) & (scopes[left] == scopes[right])
    return as_dict(left[good], right[good], similarity[good]), sum(calls)


# ---------------------------------------------------------------- the pairs


@settings(max_examples=400, deadline=None)
@given(SETS, ANY_THRESHOLD)
def test_the_pairs_are_those_of_brute_force(sets_and_scopes, threshold):
    sets, scopes = [s for s, _ in sets_and_scopes], [scope for _, scope in sets_and_scopes]
    found = exact_pairs(*arrays(sets), threshold, np.array(scopes, np.uint64))
    assert as_dict(*found) == brute_force(sets, threshold, scopes)


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_families_are_found_whole(corpus, threshold):
    sets, scopes = corpus
    expected = brute_force(sets, threshold, scopes)
    assert len(expected) > 30
    assert as_dict(*exact_pairs(*arrays(sets), threshold, scopes)) == expected
    everywhere = brute_force(sets, threshold, np.zeros(len(sets)))
    assert len(everywhere) > len(expected)
    assert as_dict(*exact_pairs(*arrays(sets), threshold)) == everywhere


@pytest.mark.parametrize("threshold", [*THRESHOLDS, 0.1, 0.3, 0.55, 0.57, 0.6, 2 / 3, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("bits", [None, 0])
def test_no_pair_is_lost_where_products_are_rounded(threshold, bits, monkeypatch):
    # What two sets have in common stands last in both, and is just enough or one too few. Each pair has a scope.
    sets, scopes = [], []
    for size in range(1, 130):
        nested = int(threshold * size)  # B within A: J = common / size
        equal = int(2 * size * threshold / (1 + threshold))  # as large as A: J = common / (2 size - common)
        for common in {nested - 1, nested, nested + 1}:
            if 0 < common <= size:
                sets += [set(range(size)), set(range(size - common, size))]
                scopes += [len(sets)] * 2
        for common in {equal - 1, equal, equal + 1}:
            if 0 < common <= size:
                last = set(range(1000, 1000 + common))
                sets += [set(range(size - common)) | last, set(range(500, 500 + size - common)) | last]
                scopes += [len(sets)] * 2
    if bits is not None:
        monkeypatch.setattr("stackbuild.dedup.exact_join.table_bits", lambda shingles: bits)
    expected = {}
    for i in range(0, len(sets), 2):
        similarity = len(sets[i] & sets[i + 1]) / len(sets[i] | sets[i + 1])
        if similarity >= threshold:
            expected[i, i + 1] = similarity
    assert len(expected) > 100
    assert as_dict(*exact_pairs(*arrays(sets), threshold, np.array(scopes, np.uint64))) == expected


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_the_pairs_do_not_depend_on_tasks_buckets_or_the_table(corpus, threshold):
    sets, scopes = corpus
    expected, rng = brute_force(sets, threshold, scopes), np.random.default_rng(3)
    for tasks, buckets, bits, keep_previous, shorten in [
        (1, 1, 16, True, False),
        (5, 1, 16, False, False),
        (3, 8, 16, True, False),
        (7, 100, 16, True, False),
        (2, 16, 5, True, False),
        (4, 3, 1, True, False),
        (4, 3, 0, False, False),
        (2, 4, 16, True, True),
    ]:
        found, _ = spread_out(sets, scopes, threshold, tasks, buckets, bits, rng, 50, keep_previous, shorten)
        assert found == expected


def test_empty_sets_are_like_nothing():
    assert as_dict(*exact_pairs(*arrays([]), 0.5)) == {}
    assert as_dict(*exact_pairs(*arrays([set(), set()]), 0.01)) == {}
    assert as_dict(*exact_pairs(*arrays([set(), {1}, set(), {1}]), 1.0)) == {(1, 3): 1.0}
    none = np.zeros(0, np.uint64)
    assert list(exact_candidates(none, none.astype(np.int64), none, none, 0.7)) == []


def test_files_of_two_scopes_share_no_key():
    hashes, offsets = arrays([{1, 2, 3}] * 6)
    scopes = np.array([0, 1, 2, 2**32, 2**63, 2**64 - 1], np.uint64)
    table = np.full(4, 2, np.uint16)
    assert len(np.unique(prefix_rows(hashes, offsets, scopes, np.arange(6), table, 0.1).keys)) == 18


# ---------------------------------------------------------------- counts


def test_counts_do_not_depend_on_how_files_are_spread(corpus):
    sets, scopes = corpus
    whole = np.zeros(256, np.uint16)
    count_shingles(*arrays(sets), scopes, whole)
    assert whole.sum() == sum(map(len, sets))
    rng = np.random.default_rng(1)
    merged = np.zeros_like(whole)
    for part in np.array_split(rng.permutation(len(sets)), 9):
        counts = np.zeros_like(whole)
        count_shingles(*arrays([sets[i] for i in part]), scopes[part], counts)
        merge_counts(merged, counts)
    assert (merged == whole).all()


def test_counts_stop_at_the_most_that_a_slot_holds():
    copies = MOST + 5
    hashes, offsets = arrays([{1}] * copies)
    table = np.zeros(1, np.uint16)
    count_shingles(hashes, offsets, np.zeros(copies, np.uint64), table)
    assert table.tolist() == [MOST]
    for a, b in [(MOST, MOST), (MOST, 0), (0, MOST), (MOST - 1, 1), (MOST - 1, 2), (40_000, 40_000)]:
        merged = np.array([a], np.uint16)
        merge_counts(merged, np.array([b], np.uint16))
        assert merged.tolist() == [min(a + b, MOST)]


def test_a_table_has_a_slot_or_two_for_each_shingle_within_bounds():
    for shingles in (2, 3, 1000, 1 << 20, (1 << 20) + 1, 1 << 28):
        assert shingles <= 1 << table_bits(shingles) < 2 * shingles
    assert table_bits(0) == table_bits(1) == 1
    assert table_bits(1 << 40) == 28


# ---------------------------------------------------------------- rows and candidates, one by one


def slot(shingle, scope, slots):
    table = np.zeros(slots, np.uint16)
    count_shingles(np.array([shingle], np.uint64), np.array([0, 1]), np.array([scope], np.uint64), table)
    return int(table.argmax())


@settings(max_examples=200, deadline=None)
@given(SETS, ANY_THRESHOLD, st.integers(0, 1 << 32))
def test_a_prefix_is_what_the_definition_says(sets_and_scopes, threshold, seed):
    counts = np.random.default_rng(seed).choice([1, 1, 2, 3, HOT - 1, HOT, 255, 256, 257, 999, MOST], 64).tolist()
    sets, scopes = [s for s, _ in sets_and_scopes], np.array([scope for _, scope in sets_and_scopes], np.uint64)
    hashes, offsets = arrays(sets)
    files = np.arange(len(sets)) * 7 + (1 << 40)
    rows = prefix_rows(hashes, offsets, scopes, files, np.array(counts, np.uint16), threshold)
    expected, shingles = [], []
    for i in range(len(sets)):
        mine = [(counts[slot(h, scopes[i], 64)], h) for h in hashes[offsets[i] : offsets[i + 1]].tolist()]
        for position, (count, shingle) in enumerate(sorted(mine)):
            if (len(mine) - position) / len(mine) >= threshold and count != 1:
                follows = bool(expected) and expected[-1][0] == files[i]
                expected.append((files[i], len(mine), position, count >= HOT and follows))
                shingles.append((int(scopes[i]), shingle))
    assert rows.files.tolist() == [row[0] for row in expected]
    assert rows.sizes.tolist() == [row[1] for row in expected]
    assert rows.positions.tolist() == [row[2] for row in expected]
    before = [0, *rows.keys.tolist()]
    assert rows.previous.tolist() == [before[i] if row[3] else 0 for i, row in enumerate(expected)]
    assert (
        len(set(zip(rows.keys.tolist(), shingles, strict=True))) == len(set(shingles)) == len(set(rows.keys.tolist()))
    )


def test_ten_shingles_have_a_prefix_of_four_at_seven_tenths():
    for size, threshold, prefix in [(10, 0.7, 4), (100, 0.7, 31), (100, 0.29, 72), (100, 0.57, 44), (1, 0.7, 1),
                                    (3, 1.0, 1), (3, 1 / 3, 3), (3, np.nextafter(1 / 3, 1), 2)]:  # fmt: skip
        hashes, offsets = arrays([set(range(size))])
        table = np.full(2, 2, np.uint16)
        rows = prefix_rows(hashes, offsets, np.zeros(1, np.uint64), np.zeros(1, np.int64), table, threshold)
        assert rows.positions.tolist() == list(range(prefix))


@pytest.mark.parametrize("threshold", [*THRESHOLDS, 0.1, 1 / 3])
def test_candidates_are_what_the_filters_leave(threshold):
    rng = np.random.default_rng(11)
    for at_once in (1, 2, 5, 1000) * 30:
        sizes = rng.integers(1, 13, 10).astype(np.int32)
        keys, files = np.divmod(rng.permutation(40)[:30], 10)
        positions = rng.integers(0, sizes[files]).astype(np.int32)
        expected = set()
        for row, other in combinations(range(30), 2):
            i, j = sorted((files[row], files[other]))
            common = min(sizes[files[row]] - positions[row], sizes[files[other]] - positions[other])
            if keys[row] == keys[other] and common / (sizes[i] + sizes[j] - common) >= threshold:
                expected.add((i * 1000, j * 1000))
        found = []
        for left, right in exact_candidates(
            keys.astype(np.uint64), files * 1000, sizes[files], positions, threshold, at_once
        ):
            assert len(left) <= at_once
            found += zip(left.tolist(), right.tolist(), strict=True)
        assert sorted(found) == sorted(expected)


def test_a_key_of_many_files_comes_in_pieces():
    files = 300
    shared = np.zeros(files, np.uint64)
    sizes, positions = np.full(files, 9, np.int32), np.zeros(files, np.int32)
    chunks = list(exact_candidates(shared, np.arange(files)[::-1].copy(), sizes, positions, 0.7, at_once=1000))
    assert [len(left) for left, _ in chunks] == [1000] * 44 + [850]
    assert len({pair for chunk in chunks for pair in zip(*map(np.ndarray.tolist, chunk), strict=True)}) == 44_850


def test_the_pairs_of_a_large_family_come_from_few_buckets():
    rng = np.random.default_rng(5)
    sets = family(rng, 4 * HOT, 300, 4, 1 << 20)
    scopes = np.zeros(len(sets), np.uint64)
    expected = brute_force(sets, 0.7, scopes)
    found, yielded = spread_out(sets, scopes, 0.7, 2, 64, 16, rng)
    assert found == expected and len(expected) == 4 * HOT * (4 * HOT - 1) // 2
    found, repeated = spread_out(sets, scopes, 0.7, 2, 64, 16, rng, keep_previous=False)
    assert found == expected and yielded < repeated / 4


def test_thresholds_and_tables_that_make_no_sense_are_refused():
    hashes, offsets = arrays([{1}, {1}])
    scopes, table = np.zeros(2, np.uint64), np.zeros(4, np.uint16)
    for threshold in (0, -0.5, 1.01, float("nan")):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            exact_pairs(hashes, offsets, threshold)
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            prefix_rows(hashes, offsets, scopes, np.arange(2), table, threshold)
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            list(exact_candidates(hashes, np.arange(2), np.ones(2, np.int32), np.zeros(2, np.int32), threshold))
    for slots in (0, 3):
        with pytest.raises(ValueError, match="power of two"):
            count_shingles(hashes, offsets, scopes, np.zeros(slots, np.uint16))
        with pytest.raises(ValueError, match="power of two"):
            prefix_rows(hashes, offsets, scopes, np.arange(2), np.zeros(slots, np.uint16), 0.5)
