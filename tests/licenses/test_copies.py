"""A content has the licence of its own header, else of the copy that looks like the origin: against the rule row by row."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.licenses.copies import BEST_FIRST, HEADERS, SAFEST_FIRST, of_contents, speaking, vendored
from stackbuild.licenses.policy import load_policy
from stackbuild.schema import LICENSE_FIELDS, OCCURRENCES

OURS = load_policy("stackbuild")
SCHEMA = pa.schema([*OCCURRENCES, *LICENSE_FIELDS])


def evidence(kind: str, expression: str | None, decides: bool = True) -> dict[str, Any]:
    return {"path": "/LICENSE", "expression": expression, "kind": kind, "decides": decides}


def copy(content: int, repo: str, path: str, **known: Any) -> dict[str, Any]:
    """An occurrence with its licence columns: MIT by a licence file unless told otherwise."""
    key = known.pop("key", "MIT")
    classes = {"MIT": "permissive", "GPL-3.0-only": "non_permissive", "MPL-2.0": "weak_copyleft", None: "no_license"}
    row = {
        **dict.fromkeys(SCHEMA.names),
        "owner_bucket": 0, "path_lossy": False, "mode": 0o100644, "extension": "", "length": 1_000, "blob_id": b"\0" * 20,
        "repo_name": repo, "revision_id": "r", "path": path, "path_bytes": path[1:].encode(),
        "content_id": bytes([content]) * 20,
        "detected_licenses": [key] if key else [],
        "license_type": "permissive" if key == "MIT" else "no_license" if key is None else "non_permissive",
        "license_class": classes[key],
        "license_evidence": [evidence(known.pop("kind", "license_file"), key)] if key else [],
    }  # fmt: skip
    return {**row, **known}


def merged(
    rows: list[dict[str, Any]], headers: dict[int, list[str | None]], policy: Any = OURS, precedence: str | None = None
) -> list[dict[str, Any]]:
    """What is made of each content; rows of one content stand together."""
    ids = [row["content_id"] for row in rows]
    starts = np.array([i for i in range(len(ids)) if i == 0 or ids[i] != ids[i - 1]], np.int64)
    said = [
        {
            "bucket": 0,
            "content_id": bytes([content]) * 20,
            "said": [{"expression": one, "precedence": precedence} for one in expressions],
        }
        for content, expressions in headers.items()
    ]
    copies = pa.Table.from_pylist(rows, SCHEMA)
    found = of_contents(copies, starts, pa.Table.from_pylist(said, HEADERS), policy)
    for field in LICENSE_FIELDS:
        assert found[field.name].type == field.type
        found[field.name].validate(full=True)
    return pa.table(dict(found)).to_pylist()


def test_a_file_that_an_mit_repository_took_over_stays_gpl() -> None:
    """And its evidence says whose it is."""
    origin = copy(1, "ann/gpl", "/src/a.c", key="GPL-3.0-only", gha_created_at=datetime(2010, 1, 1))
    rehost = copy(1, "bob/mit", "/a.c", gha_created_at=datetime(2020, 1, 1), star_events_count=9_000)
    (found,) = merged([rehost, origin], {})
    assert found["license_class"] == "non_permissive" and found["detected_licenses"] == ["GPL-3.0-only"]
    assert [one["repo_name"] for one in found["license_evidence"]] == ["ann/gpl"]
    (found,) = merged([origin, rehost], {})
    assert [one["repo_name"] for one in found["license_evidence"]] == [None]  # the copy that is kept is the origin


def test_where_the_origin_is_not_known_the_least_permissive_copy_speaks() -> None:
    """Neither stars nor the dates of commits tell who took from whom, nor the age of one repository alone."""
    gpl, mit = ({"repo": "zed/gpl", "path": "/a.c", "key": "GPL-3.0-only"}, {"repo": "ann/mit", "path": "/a.c"})
    for theirs, others in (
        ({}, {}),
        ({"revision_date": datetime(2024, 1, 1)}, {"revision_date": datetime(2015, 1, 1)}),
        ({"star_events_count": 1}, {"star_events_count": 9_000}),
        ({}, {"gha_created_at": datetime(2022, 1, 1)}),
        ({"path": "/external/a.c", "gha_created_at": datetime(2010, 1, 1)}, {"gha_created_at": datetime(2020, 1, 1)}),
    ):
        (found,) = merged([copy(1, **{**mit, **others}), copy(1, **{**gpl, **theirs})], {})
        assert found["license_class"] == "non_permissive"
    silent = copy(1, "bob/none", "/a.c", key=None)
    assert merged([copy(1, **mit), silent], {})[0]["license_class"] == "permissive"
    dated = [copy(1, **mit, gha_created_at=datetime(2022, 1, 1)), {**silent, "gha_created_at": datetime(2010, 1, 1)}]
    assert merged(dated, {})[0]["license_class"] == "no_license"


def test_what_is_written_anew_everywhere_has_no_origin() -> None:
    origin = copy(1, "ann/gpl", "/src/__init__.py", key="GPL-3.0-only", gha_created_at=datetime(2010, 1, 1), length=255)
    other = copy(1, "bob/mit", "/a/__init__.py", length=255)
    assert merged([other, origin], {})[0]["license_class"] == "permissive"
    assert merged([{**other, "length": 256}, {**origin, "length": 256}], {})[0]["license_class"] == "non_permissive"


def test_a_copy_in_a_folder_of_other_peoples_code_is_no_origin() -> None:
    old = copy(1, "ann/app", "/third_party/zlib/a.c", key="GPL-3.0-only", gha_created_at=datetime(2001, 1, 1))
    new = copy(1, "zed/zlib", "/a.c", gha_created_at=datetime(2020, 1, 1))
    assert merged([old, new], {})[0]["license_class"] == "permissive"
    assert vendored(pa.chunked_array([["/a/node_modules/b.js", "/vendor.js", "/VENDOR/x"]])).to_pylist() == [
        True,
        False,
        True,
    ]


def test_a_header_is_stronger_than_any_licence_file_and_weaker_than_an_override() -> None:
    gpl, override = copy(1, "a/b", "/x.c"), copy(2, "a/b", "/y.c", kind="override")
    first, second = merged([gpl, override], {1: ["GPL-3.0-only"], 2: ["GPL-3.0-only"]})
    assert (first["license_class"], first["detected_licenses"]) == ("non_permissive", ["GPL-3.0-only"])
    assert [(e["kind"], e["decides"]) for e in first["license_evidence"]] == [("header", True), ("license_file", False)]
    assert second["license_class"] == "permissive"
    assert [(e["kind"], e["decides"]) for e in second["license_evidence"]] == [("override", True), ("header", False)]


def kinds(found: dict[str, Any]) -> list[tuple[str, bool]]:
    return [(one["kind"], one["decides"]) for one in found["license_evidence"]]


def test_a_header_that_only_refers_to_a_licence_decides_nothing() -> None:
    (found,) = merged([copy(1, "a/b", "/x.c")], {1: ["LicenseRef-scancode-unknown-license-reference"]})
    assert found["license_class"] == "permissive" and kinds(found) == [("license_file", True), ("header", False)]


def test_a_header_that_nobody_recognises_makes_a_file_unknown_in_a_permissive_repository_too() -> None:
    (found,) = merged([copy(1, "a/b", "/x.c")], {1: [None]})
    assert (found["license_type"], found["license_class"]) == ("non_permissive", "unknown")
    assert found["detected_licenses"] == [] and kinds(found) == [("header", True), ("license_file", False)]


def test_a_mention_can_make_a_licence_worse_and_never_better() -> None:
    def told(own: str | None, mentioned: str, kind: str = "license_file") -> tuple[str, list[tuple[str, bool]]]:
        (found,) = merged([copy(1, "a/b", "/x.c", key=own, kind=kind)], {1: [mentioned]}, precedence="aggregate")
        return found["license_class"], kinds(found)

    assert told("GPL-3.0-only", "MIT") == ("non_permissive", [("license_file", True), ("header", False)])
    assert told(None, "MIT") == ("no_license", [("header", False)])
    assert told("MIT", "GPL-3.0-only") == ("non_permissive", [("header", True), ("license_file", True)])
    assert told("MIT", "MIT OR GPL-3.0-only") == ("permissive", [("license_file", True), ("header", False)])
    assert told(None, "GPL-3.0-only") == ("non_permissive", [("header", True)])
    assert told("MIT", "GPL-3.0-only", "override") == ("permissive", [("override", True), ("header", False)])


def test_what_the_host_says_decides_and_is_not_detected_in_a_file() -> None:
    rows = [copy(1, "a/b", "/x.c", key="MPL-2.0", kind="host", detected_licenses=[])]
    (found,) = merged(rows, {1: ["GPL-3.0-only"]}, precedence="aggregate")
    assert kinds(found) == [("header", True), ("host", True)]
    assert (found["license_class"], found["detected_licenses"]) == ("non_permissive", ["GPL-3.0-only"])


def test_a_rule_that_aggregates_counts_together_with_a_header_and_alone_without_one() -> None:
    rows = [copy(number, "a/b", f"/{number}.c", kind="aggregate", key=key)
            for number, key in enumerate(["MIT", "GPL-3.0-only", "MIT", "MIT"], 1)]  # fmt: skip
    first, second, third, fourth = merged(rows, {1: ["GPL-3.0-only"], 2: ["MIT"], 4: [None]})
    for found in (first, second):
        assert found["license_class"] == "non_permissive" and found["detected_licenses"] == ["GPL-3.0-only", "MIT"]
        assert kinds(found) == [("header", True), ("aggregate", True)]
    assert third["license_class"] == "permissive" and kinds(third) == [("aggregate", True)]
    assert fourth["license_class"] == "unknown" and kinds(fourth) == [("header", True), ("aggregate", True)]


def test_a_manifest_may_have_a_header_of_its_own() -> None:
    (found,) = merged([copy(1, "a/b", "/setup.py")], {1: ["GPL-3.0-only"]})
    assert found["license_class"] == "non_permissive"


def test_the_head_of_a_statement_about_licences_is_no_header() -> None:
    for path in ("/COPYING", "/REUSE.toml", "/README.md", "/x.c.license"):
        (found,) = merged([copy(1, "a/b", path)], {1: ["GPL-3.0-only"]})
        assert found["license_class"] == "permissive" and [e["kind"] for e in found["license_evidence"]] == [
            "license_file"
        ]


def test_contradictory_headers_count_together() -> None:
    (found,) = merged([copy(1, "a/b", "/x.c")], {1: ["MIT", "GPL-3.0-only"]})
    assert found["license_class"] == "non_permissive" and found["detected_licenses"] == ["GPL-3.0-only", "MIT"]
    (found,) = merged([copy(1, "a/b", "/x.c", key=None)], {1: ["MIT OR GPL-3.0-only"]})
    assert found["license_class"] == "permissive"


@pytest.mark.parametrize(
    ("name", "answer"), [("winner", "weak_copyleft"), ("best", "permissive"), ("worst", "non_permissive")]
)
def test_the_other_ways_to_choose_a_copy(name: str, answer: str) -> None:
    policy = load_policy("stackbuild", copies=name)
    rows = [copy(1, "a/a", "/x", key="MPL-2.0"), copy(1, "b/b", "/x"), copy(1, "c/c", "/x", key="GPL-3.0-only")]
    assert merged(rows, {}, policy)[0]["license_class"] == answer


dates = st.sampled_from([None, datetime(2010, 1, 1), datetime(2015, 1, 1)])
copies_ = st.fixed_dictionaries(
    {
        "repo": st.sampled_from(["a/a", "b/b", "c/c"]),
        "path": st.sampled_from(["/x.c", "/vendor/x.c", "/src/vendor/y.c", "/y.c"]),
        "key": st.sampled_from(["MIT", "GPL-3.0-only", "MPL-2.0", None]),
        "gha_created_at": dates,
        "star_events_count": st.sampled_from([None, 1, 5]),
        "revision_date": dates,
    }
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.lists(copies_, min_size=1, max_size=4, unique_by=lambda c: (c["repo"], c["path"])), min_size=1, max_size=5
    ),
    st.dictionaries(
        st.integers(0, 5), st.lists(st.sampled_from(["MIT", "GPL-3.0-only", None]), min_size=1, max_size=2)
    ),
)
def test_it_is_the_rule_as_one_would_write_it(
    drawn: list[list[dict[str, Any]]], headers: dict[int, list[str | None]]
) -> None:
    def is_inside(row: dict[str, Any]) -> bool:
        return "vendor" in row["path"].split("/")

    def age(row: dict[str, Any], owners: list[dict[str, Any]]) -> Any:
        dated = all(one["gha_created_at"] for one in owners)
        return (is_inside(row), row["gha_created_at"] if dated and row in owners else datetime.max,
                SAFEST_FIRST.index(row["license_class"]), row["repo_name"], row["path"])  # fmt: skip

    groups = [[copy(content, **one) for one in group] for content, group in enumerate(drawn)]
    found = merged([row for group in groups for row in group], headers)
    for content, (group, told) in enumerate(zip(groups, found, strict=True)):
        owners = [row for row in group if not is_inside(row)] or group
        origin = min(group, key=lambda row: age(row, owners))
        header = headers.get(content, [])
        named = [one for one in header if one]
        if header:
            worst = "non_permissive" if "GPL-3.0-only" in named else "unknown" if None in header else "permissive"
            assert told["license_class"] == worst
            assert told["detected_licenses"] == sorted(set(named))
        else:
            assert told["license_class"] == origin["license_class"]
            assert told["detected_licenses"] == origin["detected_licenses"]
        other = origin["repo_name"] if origin["repo_name"] != group[0]["repo_name"] else None
        files = [one for one in told["license_evidence"] if one["kind"] != "header"]
        assert [one["repo_name"] for one in files] == [other] * len(origin["license_evidence"])
        assert [one["decides"] for one in files] == [not header] * len(files)
        assert all(one["decides"] for one in told["license_evidence"] if one["kind"] == "header")
        own = [one["expression"] for one in told["license_evidence"] if one["kind"] == "header"]
        assert own == headers.get(content, [])


def test_of_one_copy_nothing_is_asked() -> None:
    copies = pa.Table.from_pylist([copy(1, "a/a", "/x"), copy(2, "a/a", "/y")], SCHEMA)
    assert speaking(copies, np.array([0, 1]), OURS).tolist() == [0, 1]
    assert BEST_FIRST[0] == "permissive" and BEST_FIRST[-1] == "non_permissive"
