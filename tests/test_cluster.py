"""What a recipe says of a cluster: Slurm's notations, sizes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stackbuild.cluster import RayOptions, SlurmOptions, minutes, size_in_bytes, warning
from stackbuild.errors import RecipeError
from stackbuild.recipe import load

SECOND = st.integers(0, 59)
HOUR = st.integers(0, 23)


@settings(deadline=None)
@given(st.integers(0, 10_000), SECOND, HOUR, st.integers(0, 300), SECOND)
def test_a_time_is_read_as_slurm_documents_it(m: int, s: int, h: int, d: int, m60: int) -> None:
    """sbatch(1): "minutes", "minutes:seconds", "hours:minutes:seconds", "days-hours", "days-hours:minutes" and
    "days-hours:minutes:seconds"."""
    assert minutes(f"{m}") == m
    assert minutes(f"{m}:{s:02d}") == pytest.approx(m + s / 60)
    assert minutes(f"{h}:{m60:02d}:{s:02d}") == pytest.approx(h * 60 + m60 + s / 60)
    assert minutes(f"{d}-{h}") == d * 1440 + h * 60
    assert minutes(f"{d}-{h}:{m60:02d}") == d * 1440 + h * 60 + m60
    assert minutes(f"{d}-{h:02d}:{m60:02d}:{s:02d}") == pytest.approx(d * 1440 + h * 60 + m60 + s / 60)


@pytest.mark.parametrize(
    "time", ["", "0", "00:00:00", "0-0", "1:2:3:4", "-5", "1h", "UNLIMITED", "5 ", "5\n", "٣", "1-", "9" * 5000, "1.5"]
)
def test_no_other_time_is_let_in(time: str) -> None:
    with pytest.raises(ValidationError):
        SlurmOptions(time=time)


@settings(deadline=None)
@given(st.integers(1, 10_000_000), st.integers(10, 10_000))
def test_the_warning_comes_before_the_end_and_leaves_most_of_the_time(limit: int, seconds: int) -> None:
    warned = warning(f"{limit}", seconds)
    assert 1 <= warned <= max(1, limit * 15) and warned <= seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GB", 2 * 10**9),
        ("2g", 2 * 10**9),
        ("512MiB", 2**29),
        ("512 mi", 2**29),
        ("1.1GB", 1_100_000_000),
        ("1.5TiB", 3 * 2**39),
        ("100000000", 10**8),
        ("100000000b", 10**8),
        (" 1k ", 1_000),
        ("9.007199254740993PB", 9_007_199_254_740_993),
        ("1 EiB", 2**60),
        ("2ZB", "2ZB"),
    ],
)
def test_sizes(text: str, size: int | str) -> None:
    assert size_in_bytes(text) == size


@settings(deadline=None)
@given(st.integers(0, 10**12), st.sampled_from(["", "k", "m", "g", "t"]), st.booleans(), st.booleans())
def test_a_whole_number_of_units_is_exact(number: int, unit: str, binary: bool, upper: bool) -> None:
    text = f"{number}{unit}{'i' if binary and unit else ''}b"
    exact = number * (1024 if binary else 1000) ** " kmgt".index(unit or " ")
    assert size_in_bytes(text.upper() if upper else text) == exact


@pytest.mark.parametrize(
    "memory", ["", "much", "2XB", "1i", "-1GB", "1e9", "1GB2", "9" * 500 + "GB", "٢GB", "99MB", 0, None, 1.5]
)
def test_what_is_no_size_is_refused_in_words(memory: object) -> None:
    for options in (SlurmOptions, RayOptions):
        with pytest.raises(ValidationError):
            options(memory=memory)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["partition", "account", "qos"])
@pytest.mark.parametrize("value", ["a b", "-p", "a;b", "a\nb", "$x", "a\n", "ä"])
def test_a_name_is_a_word(name: str, value: str) -> None:
    with pytest.raises(ValidationError):
        SlurmOptions(**{name: value})  # type: ignore[arg-type]


def test_a_key_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValidationError):
        SlurmOptions(memmory="2GB")  # type: ignore[call-arg]


def test_a_wrong_table_is_refused_by_a_local_build_too(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'name = "x"\nseed = 1\nstages = ["exact_dedup"]\noutputs = ["dataset"]\n[[source]]\nkind = "directory"\npaths = ["."]\n'
        '[slurm]\nsbatch = ["--export=ALL"]\n'
    )
    with pytest.raises(RecipeError, match="export"):
        load(str(recipe), [])
