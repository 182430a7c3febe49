"""The published recipes, through their policies: repositories in, the class of a file in each out.

What The Stack v1 (Kocetkov et al. 2022) and v2 (Lozhkov et al. 2024, and its code) do that users complained of is kept
here as they do it; beside it stands what the default policy makes of the same.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from stackbuild.licenses.lists import load_list
from stackbuild.licenses.policy import PolicyData, load_policy
from stackbuild.licenses.reading import formats_of
from stackbuild.licenses.stage import Licenses, LicensesOptions
from stackbuild.licenses.weigh import weighed
from tests.licenses.test_copies import copy, merged
from tests.licenses.test_stage import World
from tests.worlds import GPL, MIT

REFERENCE = "Licensed under the terms described in the LICENSE file.\n"
NO_WARRANTY = "There is no warranty whatsoever.  Use at your own risk\n"  # neutral
FREE_UNKNOWN = "This is free for any kind of commercial and non-commercial use\n"
OWN_WORDS = "You may dance to it.\n"
TAKEN_BACK = "MIT license until 2027. Contact us.\n"
GPL_TAG, MIT_TAG, MPL_TAG = (f"SPDX-License-Identifier: {key}\n" for key in ("GPL-3.0-only", "MIT", "MPL-2.0"))
CHOICE = "SPDX-License-Identifier: MIT OR GPL-2.0-only\n"
GPL_HEAD = "/* SPDX-License-Identifier: GPL-3.0-only */\nint head;\n"

PERMISSIVE, NONE, UNKNOWN = ("permissive",) * 2, ("no_license",) * 2, ("unknown", "non_permissive")
WEAK, NOT = ("weak_copyleft", "non_permissive"), ("non_permissive",) * 2

Case = tuple[str | None, dict[str, str], tuple[str, str]]  # GitHub's id, files, (class, type) of src/x.c

# Section 2.1 of the paper with the code's order of steps; a name says which rule the case is for.
V2: dict[str, Case] = {
    "github/permissive-whatever-the-files-say": ("MIT", {"LICENSE": GPL_TAG}, PERMISSIVE),
    "github/other-id": ("GPL-3.0", {"LICENSE": MIT}, NOT),
    "github/noassertion-alone": ("NOASSERTION", {}, UNKNOWN),
    "github/noassertion-and-mit": ("NOASSERTION", {"LICENSE": MIT}, PERMISSIVE),
    "github/noassertion-and-neutral": ("NOASSERTION", {"NOTICE": NO_WARRANTY}, NONE),
    "neutral/alone": (None, {"LICENSE": NO_WARRANTY}, NONE),
    "neutral/beside-mit": (None, {"LICENSE": MIT, "NOTICE": NO_WARRANTY}, PERMISSIVE),
    "rest/free-unknown": (None, {"LICENSE": FREE_UNKNOWN}, UNKNOWN),
    "rest/free-unknown-in-a-read-me-beside-mit": (None, {"LICENSE": MIT, "README": FREE_UNKNOWN}, UNKNOWN),
    "rest/reference-alone": (None, {"README": REFERENCE}, UNKNOWN),
    "rest/reference-beside-mit": (None, {"LICENSE": MIT, "README": REFERENCE}, PERMISSIVE),
    "rest/weak-copyleft": (None, {"LICENSE": MPL_TAG}, WEAK),
    "rest/read-me": (None, {"LICENSE": MIT, "README.md": GPL}, NOT),
    "none/nothing": (None, {}, NONE),
    "none/own-words": (None, {"LICENSE": OWN_WORDS}, NONE),
    "rest/words-that-take-it-back": (None, {"LICENSE": TAKEN_BACK}, PERMISSIVE),
    "quirk/choice-gives-both": (None, {"LICENSE": CHOICE}, NOT),
    "quirk/no-header-is-read": (None, {"LICENSE": MIT, "src/x.c": GPL_HEAD}, PERMISSIVE),
    "quirk/about.js-speaks-for-its-folder": (None, {"LICENSE": MIT, "about.js": f"/*\n{GPL}*/\n"}, NOT),
    "quirk/al.py-speaks-for-its-folder": (None, {"LICENSE": MIT, "al.py": f"# {GPL_TAG}"}, NOT),
    "quirk/mit.c-speaks-for-its-folder": (None, {"LICENSE": MIT, "src/mit.c": f"// {GPL_TAG}"}, NOT),
    "quirk/all-folders-above-together": (None, {"LICENSE": GPL_TAG, "src/LICENSE": MIT}, NOT),
    "reach/not-beside": (None, {"LICENSE": MIT, "lib/LICENSE": GPL_TAG}, PERMISSIVE),
}

# Section 1.3: every licence file in the root, of each the best prediction.
V1: dict[str, Case] = {
    "archive/permissive": ("MIT", {"LICENSE": GPL_TAG}, PERMISSIVE),
    "archive/other-id": ("GPL-3.0", {"LICENSE": MIT}, NOT),
    "archive/noassertion-and-mit": ("NOASSERTION", {"LICENSE": MIT}, PERMISSIVE),
    "archive/noassertion-alone": ("NOASSERTION", {}, UNKNOWN),
    "files/mit": (None, {"LICENSE": MIT}, PERMISSIVE),
    "files/every-one": (None, {"LICENSE": MIT, "COPYING": GPL_TAG}, NOT),
    "files/weak-copyleft": (None, {"LICENSE": MPL_TAG}, WEAK),
    "files/not-on-its-list": (None, {"LICENSE": "SPDX-License-Identifier: CDLA-Permissive-2.0\n"}, NOT),
    "files/best-prediction": (None, {"LICENSE": f"{MIT}\n\n{GPL}"}, PERMISSIVE),
    "files/words-that-take-it-back": (None, {"LICENSE": TAKEN_BACK}, PERMISSIVE),
    "files/own-words": (None, {"LICENSE": OWN_WORDS}, NONE),
    "files/what-names-no-licence": (None, {"LICENSE": MIT, "COPYING": REFERENCE, "LEGAL": NO_WARRANTY}, PERMISSIVE),
    "names/of-the-second-release": (None, {"NOTICE": GPL, "about.md": GPL, "EUPL": GPL_TAG, "guidelines": GPL}, NONE),
    "names/legal": (None, {"legal.txt": GPL_TAG}, NOT),
    "read-me/alone": (None, {"README.md": MIT_TAG}, PERMISSIVE),
    "read-me/beside-a-licence-file": (None, {"LICENSE": MIT, "README.md": GPL}, PERMISSIVE),
    "read-me/beside-one-that-nobody-knows": (None, {"LICENSE": OWN_WORDS, "README.md": MIT_TAG}, NONE),
    "root/alone": (None, {"src/LICENSE": MIT}, NONE),
    "root/and-not-below": (None, {"LICENSE": MIT, "src/LICENSE": GPL_TAG}, PERMISSIVE),
    "quirk/no-header-is-read": (None, {"LICENSE": MIT, "src/x.c": GPL_HEAD}, PERMISSIVE),
}

# The same, by the default: what it answers the complaints with.
OURS: dict[str, Case] = {
    "rest/free-unknown": (None, {"LICENSE": FREE_UNKNOWN}, UNKNOWN),
    "neutral/alone": (None, {"NOTICE": NO_WARRANTY}, NONE),
    "neutral/beside-mit": (None, {"LICENSE": MIT, "NOTICE": NO_WARRANTY}, PERMISSIVE),
    "rest/weak-copyleft": (None, {"LICENSE": MPL_TAG}, WEAK),
    "none/own-words": (None, {"LICENSE": OWN_WORDS}, UNKNOWN),
    "rest/words-that-take-it-back": (None, {"LICENSE": TAKEN_BACK}, UNKNOWN),
    "quirk/choice": (None, {"LICENSE": CHOICE}, PERMISSIVE),
    "quirk/about.js": (None, {"LICENSE": MIT, "about.js": f"/*\n{GPL}*/\n"}, PERMISSIVE),
    "quirk/al.py": (None, {"LICENSE": MIT, "al.py": f"# {GPL_TAG}"}, PERMISSIVE),
    "quirk/mit.c": (None, {"LICENSE": MIT, "src/mit.c": f"// {GPL_TAG}"}, PERMISSIVE),
    "quirk/nearest": (None, {"LICENSE": GPL_TAG, "src/LICENSE": MIT}, PERMISSIVE),
}


def world_of(out: Path, cases: dict[str, Case], policy: str) -> World:
    files = {}
    for repo, (github, tree, _) in cases.items():
        for path, text in {"src/x.c": f"int of_{len(files)};\n", **tree}.items():
            files[repo, path, github] = text.encode()
    return World(out, files, policy=policy)


@pytest.mark.parametrize(("policy", "cases"), [("the-stack-v2", V2), ("the-stack-v1", V1), ("stackbuild", OURS)])
def test_each_rule_through_the_phases(tmp_path: Path, policy: str, cases: dict[str, Case]) -> None:
    found = world_of(tmp_path, cases, policy).tagged()
    told = {repo: (found[repo, "/src/x.c"]["license_class"], found[repo, "/src/x.c"]["license_type"]) for repo in cases}
    assert told == {repo: answer for repo, (_, _, answer) in cases.items()}


def test_what_names_no_licence_is_evidence_only_where_it_counts(tmp_path: Path) -> None:
    cases: dict[str, Case] = {"a/b": (None, {"LICENSE": MIT, "NOTICE": NO_WARRANTY + FREE_UNKNOWN}, PERMISSIVE)}
    for policy, keys in (
        ("the-stack-v2", {"MIT", "LicenseRef-scancode-warranty-disclaimer", "LicenseRef-scancode-free-unknown"}),
        ("the-stack-v1", {"MIT"}),
        ("stackbuild", {"MIT"}),
    ):
        row = world_of(tmp_path / policy, cases, policy).tagged()["a/b", "/src/x.c"]
        assert set(row["detected_licenses"]) == keys == {one["expression"] for one in row["license_evidence"]}


# ---------------------------------------------------------------- the options that make them


def test_the_published_policies_are_what_they_say() -> None:
    one, two = load_policy("the-stack-v1").data, load_policy("the-stack-v2").data
    assert (one.permissive, two.permissive) == ("the-stack-v1.1", "the-stack-v2")
    assert "CDLA-Permissive-2.0" in load_list("the-stack-v2") and "CDLA-Permissive-2.0" not in load_list(
        "the-stack-v1.1"
    )
    assert (one.names, two.names, one.reach, two.reach) == ("the-stack-v1", "the-stack-v2", "root", "folders")
    assert (one.copies, two.copies, one.per_file, two.per_file) == ("best", "winner", "top", "all")
    assert (one.inheritance, two.inheritance, one.counts, two.counts) == ("union", "union", "named", "all")


def test_no_release_read_headers() -> None:
    for policy in ("the-stack-v1", "the-stack-v2"):
        stage = Licenses(LicensesOptions(policy=policy))
        assert [phase.name for phase in stage.phases()] == ["wanted", "detect", "inherit"] and not stage.merge_reads


def test_the_first_release_keeps_a_content_as_soon_as_one_repository_is_permissive() -> None:
    """The second takes the copy that is kept; ours that of the origin (`test_copies`)."""
    rows = [copy(1, "a/a", "/x.c", key="GPL-3.0-only"), copy(1, "b/b", "/x.c")]
    assert merged(rows, {}, load_policy("the-stack-v1"))[0]["license_class"] == "permissive"
    assert merged(rows, {}, load_policy("the-stack-v2"))[0]["license_class"] == "non_permissive"


NAMES = {  # as what each is read by (v1, v2, ours)
    "/LICENSE": ("license", "license", "license"),
    "/my-Licence.md": ("license", "license", "license"),
    "/lgpl-2.1": ("license", "license", "license"),
    "/legal.txt": ("license", "notice", "notice"),
    "/README.md": ("notice", "notice", "readme:README.md"),
    "/mit.c": ("license", "notice", None),
    "/about.js": (None, "notice", None),
    "/al.py": (None, "notice", None),
    "/EUPL": (None, "license", "license"),
    "/artistic.txt": (None, "license", "license"),
    "/NOTICE": (None, "notice", "notice"),
    "/licensed.txt": (None, None, None),
}


def test_names_of_licence_files_are_each_release_s_own() -> None:
    for place, policy in enumerate(("the-stack-v1", "the-stack-v2", "stackbuild")):
        found = formats_of(pa.array(list(NAMES), pa.string()), load_policy(policy)).to_pylist()
        assert dict(zip(NAMES, found, strict=True)) == {path: read[place] for path, read in NAMES.items()}


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([("MIT", 0.9, 1, 9), ("GPL-3.0-only", 0.8, 20, 90)], "MIT"),
        ([("MIT", 1.0, 1, 9), ("GPL-3.0-only", 1.0, 20, 90)], "GPL-3.0-only"),
        ([("MIT", 1.0, 30, 39), ("GPL-3.0-only", 1.0, 1, 10)], "GPL-3.0-only"),
        ([("MIT", 1.0, 1, 9), (None, 0.0, 1, 1)], "MIT"),
    ],
)
def test_of_several_predictions_for_a_file_the_best_counts(
    rows: list[tuple[str | None, float, int, int]], best: str
) -> None:
    """By score, then by how many lines say it, then the first: the paper says no more than the score."""
    names = ("expression", "score", "first_line", "last_line")
    said = [dict(zip(names, row, strict=True)) for row in rows]
    for order in (said, said[::-1]):
        assert [one["expression"] for one in weighed(order, load_policy("the-stack-v1"))] == [best]
    assert len(weighed(said, load_policy("the-stack-v2"))) == 2


def test_a_published_rule_may_read_notices_only_where_there_is_no_licence_file() -> None:
    body = {"name": "x", "version": "1", "origin": "us", "rule": "every_file", "permissive": "strict"}
    assert PolicyData.model_validate({**body, "order": [["license_file"], ["notice"]]}).group_of("notice") == 1
    with pytest.raises(ValueError, match="alone"):
        PolicyData.model_validate({**body, "order": [["license_file"], ["host"]]})
