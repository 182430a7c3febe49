"""What near-duplicate removal promises of any input, told by a plain oracle that shares no code with it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from stackbuild.dedup.exact_join import exact_pairs
from stackbuild.dedup.near_duplicates import near_duplicates
from stackbuild.dedup.options import NearDedupOptions, Shingling
from stackbuild.dedup.shingles import shingle_sets
from tests.dedup import oracle

VOCABULARY = ["if", "x", "Value", "naïve", "ΣΑΣ", "İstanbul", "数据", "_a1", "٣", "return", "e", "license", "Copyright"]
SEPARATORS = [" ", "\n", "(", "::", "\u00b7", " // ", "\n# "]
HEADERS = ["", "", "", "// Copyright A\n", "/* SPDX */\n", "# a plain comment\n", "<!-- licence -->", "<?php\n// License\n",
           "\ufeff# COPYRIGHT\n# by b\n\n; spdx\n", "(* license"]  # fmt: skip
COLUMNS = {"content_id": pa.binary(20), "text": pa.large_string(), "language": pa.string(), "license_class": pa.string(),
           "star_events_count": pa.int64(), "fork_events_count": pa.int64(), "revision_date": pa.int64()}  # fmt: skip
CERTAIN = {"permutations": 252, "bands": 252}  # bands of one row miss a pair of J = 0.5 once in 2^252


@st.composite
def texts(draw):
    """Families of texts that differ in a few words, in what parts the words and in their headers."""
    found = []
    for base in draw(st.lists(st.lists(st.sampled_from(VOCABULARY), max_size=40), min_size=1, max_size=3)):
        for _ in range(draw(st.integers(1, 5))):
            words = list(base)
            for at in draw(st.lists(st.integers(0, 39), max_size=3)):
                words[at : at + 1] = draw(st.lists(st.sampled_from(VOCABULARY), max_size=2))
            found.append(draw(st.sampled_from(HEADERS)) + draw(st.sampled_from(SEPARATORS)).join(words))
    return found


@st.composite
def tables(draw):
    """Files of one build, ids in any order."""
    given = draw(texts())
    few = st.one_of(st.none(), st.integers(0, 2))
    ids = draw(st.permutations(range(len(given))))
    licences = st.sampled_from([*oracle.LICENSES, "permissive", "no_license", None])
    languages = st.sampled_from(draw(st.sampled_from([["C"], ["C", "Go", None]])))
    values = zip(
        *(draw(st.lists(s, min_size=len(given), max_size=len(given))) for s in (languages, licences, few, few, few)),
        strict=True,
    )
    rows = [
        dict(zip(COLUMNS, (number.to_bytes(20, "big"), text, *rest), strict=True))
        for number, text, rest in zip(ids, given, values, strict=True)
    ]
    return pa.Table.from_pylist(rows, pa.schema(COLUMNS.items()))


@st.composite
def options(draw, **fixed):
    return NearDedupOptions(
        threshold=draw(st.sampled_from([0.5, 0.7, 0.85, 1.0])),
        scope=draw(st.sampled_from(["language", "global"])),
        header_blind=draw(st.booleans()),
        ngram=draw(st.sampled_from([1, 2, 5])),
        **fixed,
    )


def told(table, chosen):
    """(the files; what the stage says of each; the pairs of the oracle)."""
    files = table.to_pylist()
    pairs = oracle.pairs(files, chosen.threshold, chosen.ngram, chosen.header_blind, chosen.scope)
    return files, near_duplicates(table, options=chosen).to_pylist(), pairs


def by_oracle(files, pairs):
    """What `near_duplicates` should say of each file if it knew these pairs."""
    expected = []
    for file, twin, cluster in zip(files, oracle.survivors(files, pairs), oracle.clusters(files, pairs), strict=True):
        ids = sorted(files[i]["content_id"] for i in cluster)
        expected.append({
            "content_id": file["content_id"],
            "cluster_id": ids[0] if len(ids) > 1 else None,
            "cluster_size": len(ids),
            "kept": twin is None,
            "kept_id": files[twin[0]]["content_id"] if twin else None,
            "similarity": twin[1] if twin else None,
        })  # fmt: skip
    return expected


# ---------------------------------------------------------------- the sets


@settings(max_examples=300, deadline=None)
@given(st.one_of(texts(), st.lists(st.text(max_size=60), max_size=6)), st.integers(1, 6), st.booleans())
def test_sets_and_pairs_are_those_of_the_oracle(given, ngram, header_blind):
    hashes, offsets = shingle_sets(pa.array(given, pa.large_string()), Shingling(ngram, header_blind))
    sets = [oracle.shingles(text, ngram, header_blind) for text in given]
    assert np.diff(offsets).tolist() == [len(s) for s in sets]
    left, right, similarity = exact_pairs(hashes, offsets, 0.5)
    found = dict(zip(zip(left.tolist(), right.tolist(), strict=True), similarity.tolist(), strict=True))
    files = [{"text": text, "language": None} for text in given]
    assert found == oracle.pairs(files, 0.5, ngram, header_blind)


WHOLE_COMMENTS = ["/* spdx one */", "; license two\n", "%licence three\n", "/* four */", " "]
COMMENT_PARTS = ["//", "/*", "*/", "<!--", "-->", "{-", "-}", "(*", "*)", "--", "#", "#if", "#!", "#[", ";", "%", "\n", " ",
                 "\t", "\r", "license", "LICENCE", "Copyright", "spdx", "ſpdx", "code", "<?php", "<?xml", "?>", "\ufeff", "é"]  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(WHOLE_COMMENTS), max_size=14), st.lists(st.sampled_from(COMMENT_PARTS), max_size=25))
def test_licence_comments_are_those_of_the_oracle(whole, parts):
    text = "".join(whole + parts)
    hashes, offsets = shingle_sets(pa.array([text, oracle.without_licences(text)]), Shingling(1, True))
    seeing, ends = shingle_sets(pa.array([oracle.without_licences(text)]), Shingling(1, False))
    assert hashes[: offsets[1]].tolist() == seeing[: ends[1]].tolist()


# ---------------------------------------------------------------- the promises


@settings(max_examples=150, deadline=None)
@given(tables(), options())
def test_every_removed_file_names_a_better_kept_file_that_it_resembles(table, chosen):
    files, results, pairs = told(table, chosen)
    event(f"pairs that survive: {sum(results[i]['kept'] and results[j]['kept'] for i, j in pairs)}")
    row_of = {file["content_id"]: row for row, file in enumerate(files)}
    for row, (file, result) in enumerate(zip(files, results, strict=True)):
        assert result["content_id"] == file["content_id"]
        if result["kept"]:
            assert result["kept_id"] is None and result["similarity"] is None
            continue
        twin = row_of[result["kept_id"]]
        assert results[twin]["kept"]
        assert pairs[min(row, twin), max(row, twin)] == result["similarity"]  # so J >= threshold, of one scope
        assert oracle.order(files[twin]) < oracle.order(file)
        if file["license_class"] == "permissive":
            assert files[twin]["license_class"] == "permissive"


@settings(max_examples=150, deadline=None)
@given(tables(), options(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(table, chosen, random):
    rows = random.sample(range(len(table)), len(table))
    found = near_duplicates(table, options=chosen).to_pylist()
    assert near_duplicates(table.take(rows), options=chosen).to_pylist() == [found[row] for row in rows]


@settings(max_examples=150, deadline=None)
@given(tables(), options(**CERTAIN))
def test_where_no_pair_is_missed_the_result_is_that_of_the_oracle(table, chosen):
    files, results, pairs = told(table, chosen)
    assert not any(results[i]["kept"] and results[j]["kept"] for i, j in pairs)
    assert results == by_oracle(files, pairs)


@pytest.mark.parametrize(
    ("threshold", "scope"), [(0.5, "language"), (0.7, "global"), (0.85, "language"), (1.0, "global")]
)
def test_exact_mode_gives_the_result_of_the_oracle(files, family, near_dedup, tmp_path, threshold, scope):
    rng = np.random.default_rng(17)
    texts = [text for i in range(40) for text in family(rng, 30 + 3 * i, i % 6, i % 5)]
    texts += [*family(rng, 120, 40, 9), "", "", "one two three four five", "// Licence\none two three four FIVE"]
    rng.shuffle(texts)
    table = files(
        texts,
        language=["C" if i % 4 else None for i in range(len(texts))],
        license_class=[(*oracle.LICENSES, None)[i] for i in rng.integers(0, 6, len(texts))],
        stars=[None if i % 5 == 0 else i % 3 for i in range(len(texts))],
    ).sort_by("content_id")
    rows = table.drop_columns("revision_date").append_column("revision_date", pa.nulls(len(table))).to_pylist()
    expected = by_oracle(rows, oracle.pairs(rows, threshold, scope=scope))
    assert sum(not result["kept"] for result in expected) > 20
    found = near_dedup(table, NearDedupOptions(mode="exact", threshold=threshold, scope=scope), 4, tmp_path)
    found = found.rename_columns({"kept_content_id": "kept_id", "value": "similarity"}).sort_by("content_id")
    assert found.select(list(expected[0])).to_pylist() == expected


@pytest.mark.parametrize("licence", oracle.LICENSES[1:])
def test_a_permissive_file_stays_whatever_the_stars_of_the_other(licence):
    rows = [(b"\0" * 20, licence, 9), (b"\1" * 20, "permissive", None)]
    table = pa.table({"content_id": [row[0] for row in rows], "text": ["one two three four five six"] * 2,
                      "license_class": [row[1] for row in rows], "star_events_count": [row[2] for row in rows]})  # fmt: skip
    assert near_duplicates(table)["kept"].to_pylist() == [False, True]
