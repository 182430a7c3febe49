"""The rules that turn evidence into a type and a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackbuild.licenses.decide import (
    UNKNOWN_REFERENCE,
    Decision,
    decide,
    distinct_pairs,
    five_steps,
    representatives,
)
from stackbuild.licenses.lists import LicenseDataError, data_names
from stackbuild.licenses.policy import load_policy

V1, V2, OURS = (load_policy(name) for name in ("the-stack-v1", "the-stack-v2", "stackbuild"))
DCO = "LicenseRef-scancode-dco-1.1"


@pytest.mark.parametrize(
    ("github", "keys", "answer"),
    [
        ("MIT", {"GPL-3.0-only"}, "permissive"),
        ("GPL-3.0", set(), "non_permissive"),
        ("NOASSERTION", set(), "non_permissive"),
        ("NOASSERTION", {"MIT"}, "permissive"),
        (None, set(), "no_license"),
        (None, {"MIT", UNKNOWN_REFERENCE}, "permissive"),
        (None, {UNKNOWN_REFERENCE}, "non_permissive"),
        (None, {DCO}, "no_license"),
        (None, {"MIT", "GPL-2.0-only"}, "non_permissive"),
    ],
)
def test_the_nine_rows_of_the_published_procedure(github: str | None, keys: set[str], answer: str) -> None:
    assert decide(github, frozenset(keys), V2).type == answer


@pytest.mark.parametrize(
    ("github", "keys", "unrecognised", "answer"),
    [
        (None, {"MPL-2.0"}, False, Decision("non_permissive", "weak_copyleft")),
        (None, {"MIT", "LGPL-2.1-or-later"}, False, Decision("non_permissive", "weak_copyleft")),
        (None, {"MPL-2.0", "GPL-3.0-only"}, False, Decision("non_permissive", "non_permissive")),
        (None, {"Artistic-2.0"}, False, Decision("non_permissive", "weak_copyleft")),
        ("LGPL-3.0", set(), False, Decision("non_permissive", "weak_copyleft")),
        ("GPL-3.0", {"MPL-2.0"}, False, Decision("non_permissive", "non_permissive")),
        ("NOASSERTION", set(), False, Decision("non_permissive", "unknown")),
        (None, {UNKNOWN_REFERENCE}, False, Decision("non_permissive", "unknown")),
        (None, {"MPL-2.0", "Nobody-heard-of-1.0"}, False, Decision("non_permissive", "unknown")),
        (None, {"Nobody-heard-of-1.0"}, False, Decision("non_permissive", "unknown")),
        (None, set(), True, Decision("non_permissive", "unknown")),
        (None, {DCO}, True, Decision("non_permissive", "unknown")),
        (None, {"MIT"}, True, Decision("non_permissive", "unknown")),
        (None, {"MPL-2.0"}, True, Decision("non_permissive", "weak_copyleft")),
        (None, set(), False, Decision("no_license", "no_license")),
        ("", {"MIT"}, False, Decision("permissive", "permissive")),
    ],
)
def test_our_classes(github: str | None, keys: set[str], unrecognised: bool, answer: Decision) -> None:
    assert decide(github, frozenset(keys), OURS, unrecognised) == answer


def test_the_second_release_calls_an_unrecognised_licence_none_and_we_do_not() -> None:
    assert decide(None, frozenset(), V2, unrecognised=True) == Decision("no_license", "no_license")
    assert decide(None, frozenset(), OURS, unrecognised=True).license_class == "unknown"
    assert decide(None, frozenset({"MIT"}), V2, unrecognised=True) == Decision("permissive", "permissive")


def test_the_first_release_wants_every_licence_file_permissive() -> None:
    assert decide(None, frozenset({"MIT", "Apache-2.0"}), V1).type == "permissive"
    for key in ("MPL-2.0", "EPL-1.0", "LGPL-2.1-only", "GPL-2.0-only", UNKNOWN_REFERENCE):
        assert decide(None, frozenset({"MIT", key}), V1).type == "non_permissive"
    assert decide("MIT", frozenset({"GPL-2.0-only"}), V1).type == "permissive"
    assert decide("MPL-2.0", frozenset({"MIT"}), V1) == Decision("non_permissive", "weak_copyleft")
    assert decide("NOASSERTION", frozenset({"MIT"}), V1).type == "permissive"
    assert decide("NOASSERTION", frozenset(), V1).type == "non_permissive"
    assert decide(None, frozenset(), V1).type == "no_license"


def test_version_1_0_counted_weak_copyleft_and_still_does() -> None:
    old = load_policy("the-stack-v1", permissive="the-stack-v1.0")
    assert decide(None, frozenset({"MPL-2.0"}), old).type == "permissive"
    assert decide(None, frozenset({"LGPL-3.0-or-later"}), old).type == "permissive"


def test_reading_of_a_choice_is_the_policys() -> None:
    assert OURS.keys(["MIT OR GPL-2.0-only"]) == {"MIT"}
    assert V2.keys(["MIT OR GPL-2.0-only"]) == {"MIT", "GPL-2.0-only"}
    assert load_policy("the-stack-v2", or_reading="choice").keys(["GPL-2.0-only OR MIT", "ISC"]) == {"MIT", "ISC"}


KEYS = [
    "MIT",
    "Apache-2.0",
    "MPL-2.0",
    "GPL-2.0-only",
    UNKNOWN_REFERENCE,
    DCO,
    "LicenseRef-scancode-warranty-disclaimer",
    "No-such-1",
    "EPL-2.0",
]


@given(
    st.sampled_from([None, "MIT", "GPL-3.0", "LGPL-3.0", "NOASSERTION"]),
    st.frozensets(st.sampled_from(KEYS)),
    st.booleans(),
    st.sampled_from([V1, V2, OURS]),
)
def test_representatives_decide_as_all_keys_do(
    github: str | None, keys: frozenset[str], unrecognised: bool, policy: object
) -> None:
    few = representatives(keys, policy)  # type: ignore[arg-type]
    assert few <= keys and len(few) <= 7
    assert decide(github, few, policy, unrecognised) == decide(github, keys, policy, unrecognised)  # type: ignore[arg-type]


@given(st.sampled_from([None, "NOASSERTION"]), st.frozensets(st.sampled_from(KEYS)))
def test_a_copyleft_key_never_makes_a_file_more_free(github: str | None, keys: frozenset[str]) -> None:
    for key in ("GPL-2.0-only", "MPL-2.0"):
        assert five_steps(github, keys | {key}, OURS) == "non_permissive"


@given(st.lists(st.tuples(st.sampled_from([None, "MIT", "GPL-3.0"]), st.integers(0, 3)), max_size=30))
def test_pairs_fold_and_unfold(rows: list[tuple[str | None, int]]) -> None:
    pairs = distinct_pairs(pa.array([r[0] for r in rows], pa.string()), np.array([r[1] for r in rows], np.int64))
    assert [(pairs.github[i], pairs.sets[i]) for i in pairs.of_file] == rows
    assert len(pairs.github) == len(set(rows))


def test_every_shipped_policy_loads_and_one_of_ones_own_is_checked(tmp_path: Path) -> None:
    for name in data_names("policies"):
        assert load_policy(name).data.name == name
    with pytest.raises(LicenseDataError, match=r"no licence policy.*stackbuild"):
        load_policy("nice")
    mine = tmp_path / "mine.toml"
    mine.write_text('name = "mine"\nversion = "1"\norigin = "us"\nrule = "every_file"\npermissive = "strict"\n')
    assert decide(None, frozenset({"MIT"}), load_policy(str(mine))).license_class == "permissive"
    mine.write_text('name = "mine"\nversion = "1"\norigin = "us"\nrule = "guess"\npermissive = "strict"\n')
    with pytest.raises(LicenseDataError, match="rule"):
        load_policy(str(mine))
