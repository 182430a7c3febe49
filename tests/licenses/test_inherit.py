"""Inheritance down the folders, against the rule as one would write it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.licenses.inherit import (
    EVIDENCE_LIMIT,
    KEYS_LIMIT,
    LICENSE_FILES,
    VERDICTS,
    Verdicts,
    folders,
    inherited,
)
from stackbuild.licenses.lists import scancode_licenses
from stackbuild.licenses.policy import load_policy

V2, OURS = load_policy("the-stack-v2"), load_policy("stackbuild")


def content(name: str) -> bytes:
    return name.encode().ljust(20, b"\0")


def said(*expressions: str | None) -> list[dict[str, Any]]:
    return [{"expression": one, "engine": "test 1", "score": 1.0} for one in expressions]


def table(rows: list[tuple[str, str, bytes, str]]) -> pa.Table:
    """Licence files: (repository, revision, path, what its content is called)."""
    return pa.Table.from_pylist(
        [
            {
                "repo_name": repo,
                "revision_id": revision,
                "folder": path[: path.rfind(b"/") + 1],
                "path": "/" + path.decode("utf-8", "replace"),
                "content_id": content(called),
                "format": "license",
            }
            for repo, revision, path, called in rows
        ],
        LICENSE_FILES,
    )


def verdicts_of(
    rows: list[tuple[str, str, bytes, str]], detections: dict[str, list[dict[str, Any]]], policy: Any = V2
) -> pa.Table:
    found = {(content(called), "license"): detection for called, detection in detections.items()}
    return pa.Table.from_batches(inherited(table(rows), found, policy, 3), VERDICTS)


def batch(rows: list[tuple[str, str, bytes]]) -> pa.RecordBatch:
    repos, revisions, paths = ([row[i] for row in rows] for i in range(3))
    return pa.record_batch(
        {
            "repo_name": pa.array(repos, pa.string()),
            "revision_id": pa.array(revisions, pa.string()),
            "path_bytes": pa.array(paths, pa.binary()),
        }
    )


def keys_of_files(verdicts: pa.Table, files: list[tuple[str, str, bytes]]) -> list[list[str]]:
    known = Verdicts(verdicts)
    return [[] if row < 0 else known.keys[int(row)].as_py() for row in known.nearest(batch(files))]


def test_a_file_inherits_from_its_folder_and_all_above_and_no_other() -> None:
    rows = [
        ("a/b", "r", b"LICENSE", "mit"),
        ("a/b", "r", b"vendor/LICENSE", "gpl"),
        ("a/b", "r", b"vendor/x/COPYING", "isc"),
        ("a/b", "s", b"LICENSE", "gpl"),
        ("a/c", "r", b"src/LICENSE", "isc"),
    ]
    verdicts = verdicts_of(rows, {"mit": said("MIT"), "gpl": said("GPL-2.0-only"), "isc": said("ISC")})
    files = [
        ("a/b", "r", b"main.c"),
        ("a/b", "r", b"vendor/y.c"),
        ("a/b", "r", b"vendor/x/y/z.c"),
        ("a/b", "r", b"vendored/z.c"),
        ("a/b", "s", b"vendor/z.c"),
        ("a/b", "t", b"z.c"),
        ("a/c", "r", b"z.c"),
        ("a/c", "r", b"src/z.c"),
        ("a", "b/r", b"z.c"),
    ]
    assert keys_of_files(verdicts, files) == [
        ["MIT"],
        ["GPL-2.0-only", "MIT"],
        ["GPL-2.0-only", "ISC", "MIT"],
        ["MIT"],
        ["GPL-2.0-only"],
        [],
        [],
        ["ISC"],
        [],
    ]


names = st.sampled_from([b"a", b"b", b"a.b", b"a-", b"\xff", b"a\n", b"A"])
paths = st.lists(names, max_size=4).map(lambda parts: b"".join(part + b"/" for part in parts))


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(st.sampled_from("xy"), paths, st.sampled_from(["MIT", "ISC", "GPL-2.0-only", "MPL-2.0"])), max_size=12
    ),
    st.lists(st.tuples(st.sampled_from("xyz"), paths), max_size=12),
)
def test_it_is_every_base_path_that_a_path_begins_with(
    bases: list[tuple[str, bytes, str]], places: list[tuple[str, bytes]]
) -> None:
    rows = [(repo, "r", folder + b"LICENSE-%d" % number, key) for number, (repo, folder, key) in enumerate(bases)]
    verdicts = verdicts_of(rows, {key: said(key) for _, _, key in bases})
    files = [(repo, "r", folder + b"file.c") for repo, folder in places]
    rule = [
        sorted({key for other, base, key in bases if other == repo and path.startswith(base)})
        for repo, _, path in files
    ]
    assert keys_of_files(verdicts, files) == rule


@given(st.lists(st.binary(max_size=12), max_size=10))
def test_folders_are_all_up_to_the_last_slash(some: list[bytes]) -> None:
    assert folders(pa.array(some, pa.binary())).to_pylist() == [path[: path.rfind(b"/") + 1] for path in some]


def test_a_licence_that_nobody_recognises_is_told_and_a_read_me_is_not() -> None:
    rows = table([("a", "r", b"LICENSE", "odd"), ("a", "r", b"sub/COPYING", "lost"), ("b", "r", b"README", "nothing")])
    rows = rows.set_column(5, "format", pa.array(["license", "license", "notice"]))
    found = {(content("odd"), "license"): said(None), (content("nothing"), "notice"): said()}
    verdicts = pa.Table.from_batches(inherited(rows, found, OURS, 0), VERDICTS)
    assert verdicts["repo_name"].to_pylist() == ["a", "a"] and verdicts["unrecognised"].to_pylist() == [True, True]
    (told,) = verdicts["evidence"].to_pylist()[0]
    assert {name: value for name, value in told.items() if value is not None} == {
        "path": "/LICENSE", "kind": "license_file", "engine": "test 1", "score": 1.0, "decides": True
    }  # fmt: skip
    assert verdicts["evidence"].to_pylist()[1][0]["engine"] is None  # its bytes were not read


def test_evidence_names_the_file_worst_first_and_is_bounded() -> None:
    rows = [("a", "r", b"LICENSE", "mit"), ("a", "r", b"x/COPYING", "gpl"), ("a", "r", b"x/LICENSE", "mit")]
    verdicts = verdicts_of(rows, {"mit": said("MIT"), "gpl": said("GPL-2.0-only OR MIT", "MPL-2.0")})
    nearest = [(e["path"], e["expression"]) for e in verdicts["evidence"].to_pylist()[1]]
    assert nearest == [
        ("/x/COPYING", "GPL-2.0-only OR MIT"),
        ("/x/COPYING", "MPL-2.0"),
        ("/x/LICENSE", "MIT"),
        ("/LICENSE", "MIT"),
    ]
    many = verdicts_of(
        [("a", "r", b"LICENSE-%04d" % n, "mit" if n else "gpl") for n in range(500)],
        {"mit": said("MIT"), "gpl": said("GPL-2.0-only")},
    )
    evidence = many["evidence"].to_pylist()[0]
    assert len(evidence) == EVIDENCE_LIMIT and evidence[0]["expression"] == "GPL-2.0-only"


def test_of_very_many_keys_the_worst_are_shown_and_all_decide() -> None:
    keys = sorted(scancode_licenses().classes)
    verdicts = verdicts_of([("a", "r", b"LICENSE", "all")], {"all": said(*keys)})
    shown = verdicts["keys"].to_pylist()[0]
    assert len(shown) == KEYS_LIMIT and shown == sorted(shown) and "MIT" not in shown
    assert {V2.severity(key) for key in verdicts["counting"].to_pylist()[0]} == {V2.severity(key) for key in keys}


def test_a_choice_counts_as_the_policy_reads_it() -> None:
    rows = [("a", "r", b"LICENSE", "dual")]
    assert verdicts_of(rows, {"dual": said("MIT OR GPL-2.0-only")}, OURS)["counting"].to_pylist() == [["MIT"]]
    assert verdicts_of(rows, {"dual": said("MIT OR GPL-2.0-only")}, V2)["counting"].to_pylist() == [
        ["GPL-2.0-only", "MIT"]
    ]


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows = [("a", "r", b"x/LICENSE", "mit"), ("a", "r", b"LICENSE", "gpl"), ("0", "r", b"y/COPYING", "mit")]
    detections = {"mit": said("MIT"), "gpl": said("GPL-2.0-only")}
    assert verdicts_of(rows, detections).equals(verdicts_of(rows[::-1], detections))


def test_ten_thousand_licence_files_in_one_repository() -> None:
    """Beside each other, below each other, and one in each of as many folders: no step compares each with each."""
    detections = {"mit": said("MIT"), "gpl": said("GPL-2.0-only")}
    beside = [("a", "r", b"d%d/LICENSE" % n, "mit") for n in range(10_000)]
    together = [("b", "r", b"LICENSE-%d" % n, "gpl" if n == 7 else "mit") for n in range(10_000)]
    deep = [("c", "r", b"d/" * n + b"LICENSE", "gpl" if n == 999 else "mit") for n in range(1_000)]
    verdicts = verdicts_of(beside + together + deep, detections)
    assert verdicts.num_rows == 11_001
    files = [("a", "r", b"d%d/x.c" % n) for n in range(10_000)] + [("b", "r", b"x%d/x.c" % n) for n in range(10_000)]
    files += [("c", "r", b"d/" * n + b"x.c") for n in range(1_500)]
    found = keys_of_files(verdicts, files)
    both = ["GPL-2.0-only", "MIT"]
    assert found == [["MIT"]] * 10_000 + [both] * 10_000 + [["MIT"]] * 999 + [both] * 501
