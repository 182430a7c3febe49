"""How signatures are cut into bands, and whom that finds.

With b bands of r rows two files of similarity s share a bucket with probability 1 - (1 - s^r)^b. The published
pipelines (The Stack, SantaCoder, The Stack v2) take the b and r that minimise the area of false positives below the
threshold plus that of false negatives above it, with equal weights: 25 x 10 for (0.7, 256). With an exact check after
it a false positive costs time only, so the default here finds more: 42 x 6 found 99.5 % of the files that have a twin
at 0.7, where 25 x 10 found 94 %.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from stackbuild.errors import RecipeError

Floats = npt.NDArray[np.float64]
NODES = 512  # of the Gauss-Legendre rule, exact for polynomials of degree 1,023


def collision_probability(similarity: float | Floats, bands: int, rows: int) -> Floats:
    """The probability that files of a Jaccard similarity share at least one bucket; float64, of the shape of
    `similarity`.
    """
    inner = np.power(np.asarray(similarity, np.float64), rows)
    with np.errstate(divide="ignore"):
        return np.asarray(-np.expm1(bands * np.log1p(-inner)), np.float64)


@cache
def _rule() -> tuple[Floats, Floats]:
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return nodes, weights


def _mean_points(low: float, high: float) -> tuple[Floats, Floats]:
    nodes, weights = _rule()
    return (high - low) / 2 * nodes + (high + low) / 2, (high - low) / 2 * weights


def error_areas(threshold: float, bands: int, rows: int) -> tuple[float, float]:
    """(false positives, false negatives): the areas under the collision curve below, and over it above, the threshold.

    For similarities spread evenly over 0 to 1 they are the expected shares of all pairs that are wrongly met and
    missed.
    """
    below, below_weights = _mean_points(0.0, threshold)
    above, above_weights = _mean_points(threshold, 1.0)
    false_positive = float(below_weights @ collision_probability(below, bands, rows))
    false_negative = float(above_weights @ (1.0 - collision_probability(above, bands, rows)))
    return false_positive, false_negative


@cache
def optimal_bands(threshold: float, permutations: int) -> tuple[int, int]:
    """(bands, rows) with bands * rows <= permutations and the least sum of both error areas; fewer bands, then rows,
    on a tie.
    """
    if not 0 < threshold < 1 or permutations < 1:
        raise RecipeError(
            f"Bands cannot be sought for threshold {threshold} and {permutations} permutations; name `bands`."
        )
    below, below_weights = _mean_points(0.0, threshold)
    above, above_weights = _mean_points(threshold, 1.0)
    best, found = np.inf, (1, 1)
    for rows in range(1, permutations + 1):
        bands = np.arange(1, permutations // rows + 1)
        miss_below = np.log1p(-np.power(below, rows))
        miss_above = np.log1p(-np.power(above, rows))
        errors = np.array([
            below_weights @ -np.expm1(b * miss_below) + above_weights @ np.exp(b * miss_above) for b in bands
        ])  # fmt: skip
        at = int(np.argmin(errors))
        if errors[at] < best - 1e-12 or (abs(errors[at] - best) <= 1e-12 and (int(bands[at]), rows) < found):
            best, found = float(errors[at]), (int(bands[at]), rows)
    return found


def nearest_permutations(permutations: int, bands: int) -> int:
    """The number of permutations nearest to the given one that divides into whole bands; the larger on a tie."""
    lower = permutations // bands * bands
    return lower if lower and permutations - lower < lower + bands - permutations else lower + bands


def s_curve(threshold: float, bands: int, rows: int, steps: int = 20) -> list[dict[str, float | bool]]:
    """The table of the S-curve: similarity, probability that it is met, and whether that meeting is wanted."""
    points = np.linspace(0.0, 1.0, steps + 1)
    met = collision_probability(points, bands, rows)
    return [
        {"similarity": round(float(s), 6), "met": float(p), "wanted": bool(s >= threshold)}
        for s, p in zip(points, met, strict=True)
    ]
