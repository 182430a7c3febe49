"""Bands: the published search, the collision curve, and options that do not fit are refused with a way out."""

from __future__ import annotations

import numpy as np
import pytest
from datasketch import MinHashLSH
from pydantic import ValidationError

from stackbuild.dedup.bands import collision_probability, error_areas, nearest_permutations, optimal_bands, s_curve
from stackbuild.dedup.options import NearDedupOptions
from stackbuild.errors import RecipeError


@pytest.mark.parametrize(
    ("threshold", "permutations", "found"),
    [
        (0.7, 256, (25, 10)),
        (0.85, 256, (13, 19)),
        (0.6, 256, (32, 8)),
        (0.8, 256, (17, 15)),
        (0.75, 256, (21, 12)),
        (0.58, 128, (21, 6)),
        (0.75, 128, (11, 11)),
        (0.7, 128, (14, 9)),
        (0.7, 250, (25, 10)),
    ],
)
def test_the_search_finds_the_published_bands(threshold, permutations, found):
    assert optimal_bands(threshold, permutations) == found


@pytest.mark.parametrize(("threshold", "permutations"), [(0.5, 64), (0.9, 100), (0.35, 96)])
def test_the_search_agrees_with_datasketch(threshold, permutations):
    lsh = MinHashLSH(threshold, permutations)
    assert optimal_bands(threshold, permutations) == (lsh.b, lsh.r)


def test_the_collision_curve_of_the_stack_v2():
    curve = {0.3: 0.0001, 0.4: 0.0026, 0.5: 0.0241, 0.6: 0.1407, 0.65: 0.2874, 0.7: 0.5115, 0.75: 0.7652, 0.8: 0.9416,
             0.85: 0.9958, 0.9: 1.0000}  # fmt: skip
    assert collision_probability(np.array(list(curve)), 25, 10).round(4).tolist() == list(curve.values())
    assert collision_probability(np.array([0.0, 1.0]), 42, 6).tolist() == [0.0, 1.0]


def test_error_areas_are_those_published():
    assert sum(error_areas(0.7, 25, 10)) / 2 == pytest.approx(0.0320, abs=5e-5)
    points = (np.arange(200_000) + 0.5) / 200_000
    met = collision_probability(points, 42, 6)
    assert error_areas(0.7, 42, 6) == pytest.approx(
        (met[points < 0.7].mean() * 0.7, (1 - met[points > 0.7]).mean() * 0.3), abs=1e-5
    )


def test_the_table_of_the_curve():
    table = s_curve(0.7, 42, 6, steps=10)
    assert [row["similarity"] for row in table] == pytest.approx(np.linspace(0, 1, 11))
    assert [row["wanted"] for row in table] == [False] * 7 + [True] * 4


def test_permutations_that_do_not_divide_are_refused_with_the_nearest():
    with pytest.raises(
        RecipeError, match=r"256 permutations do not divide into 42 bands.*permutations = 252 \(42 bands of 6 rows\)"
    ):
        NearDedupOptions(permutations=256, bands=42)
    assert (nearest_permutations(256, 42), nearest_permutations(290, 42), nearest_permutations(5, 42)) == (252, 294, 42)


def test_layouts():
    assert NearDedupOptions().layout == (42, 6)
    assert NearDedupOptions(permutations=256, bands=None).layout == (25, 10)
    assert NearDedupOptions(permutations=256, bands="search").layout == (25, 10)


@pytest.mark.parametrize("survivor", [("stars",), ("-star_events_count", "star_events_count"), ("--license_rank",)])
def test_survivor_columns_are_known_and_named_once(survivor):
    with pytest.raises(RecipeError, match="survivor"):
        NearDedupOptions(survivor=survivor)


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 0},
        {"threshold": 1.1},
        {"ngram": 0},
        {"scope": "repo"},
        {"bands": 0},
        {"bands": "many"},
        {"band": 3},
    ],
)
def test_other_wrong_options_are_refused(wrong):
    with pytest.raises(ValidationError):
        NearDedupOptions(**wrong)
