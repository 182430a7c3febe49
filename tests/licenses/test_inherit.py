"""Inheritance down the folders, against the rule as one would write it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.licenses.decide import UNKNOWN_REFERENCE
from stackbuild.licenses.inherit import (
    EVIDENCE_LIMIT,
    KEYS_LIMIT,
    LICENSE_FILES,
    VERDICTS,
    Verdicts,
    inherited,
)
from stackbuild.licenses.lists import SEVERITY, scancode_licenses
from stackbuild.licenses.policy import load_policy
from stackbuild.licenses.reading import folders

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


# ---------------------------------------------------------------- the nearest evidence


def nearest(spoken: dict[bytes, tuple[str, list[dict[str, Any]]]]) -> dict[str, Any]:
    """The verdict of each folder that has one, given what files (by path) say and as what they are read."""
    rows = table([("a", "r", path, str(number)) for number, path in enumerate(spoken)])
    rows = rows.set_column(5, "format", pa.array([one for one, _ in spoken.values()]))
    found = {(content(str(number)), one): said_ for number, (one, said_) in enumerate(spoken.values())}
    verdicts = pa.Table.from_batches(inherited(rows, found, OURS, 0), VERDICTS).to_pylist()
    return {row["folder"].decode("latin-1"): row for row in verdicts}


def test_the_nearest_licence_file_hides_those_above() -> None:
    found = nearest(
        {b"LICENSE": ("license", said("MIT")), b"v/COPYING": ("license", said("GPL-2.0-only")),
         b"v/x/LICENSE": ("license", said("ISC"))},
    )  # fmt: skip
    assert {folder: row["keys"] for folder, row in found.items()} == {
        "": ["MIT"],
        "v/": ["GPL-2.0-only"],
        "v/x/": ["ISC"],
    }
    assert [one["decides"] for one in found["v/x/"]["evidence"]] == [True]


def test_a_manifest_adds_to_the_licence_file_above_and_cannot_replace_it() -> None:
    """`npm init` writes ISC into every folder."""
    found = nearest(
        {b"COPYING": ("license", said("GPL-2.0-only")), b"p/package.json": ("package.json", said("ISC")),
         b"p/q/LICENSE": ("license", said("MIT")), b"p/q/r/package.json": ("package.json", said("GPL-3.0-only"))},
    )  # fmt: skip
    assert found["p/"]["keys"] == ["GPL-2.0-only", "ISC"]
    assert found["p/q/"]["keys"] == ["MIT"]  # its own licence file hides the manifest above as well
    assert found["p/q/r/"]["keys"] == ["GPL-3.0-only", "MIT"]


def test_debians_copyright_in_prose_is_a_licence_file() -> None:
    found = nearest({b"LICENSE": ("license", said("MIT")), b"p/copyright": ("debian/copyright", said("GPL-2.0-only"))})
    assert found["p/"]["keys"] == ["GPL-2.0-only"]
    assert [one["kind"] for one in found["p/"]["evidence"]] == ["license_file"]


def test_a_notice_speaks_where_no_licence_file_or_manifest_does() -> None:
    found = nearest({b"LICENSE": ("license", said("MIT")), b"README": ("notice", said("GPL-2.0-only")),
                     b"docs/README": ("notice", said("ISC"))})  # fmt: skip
    for folder in ("", "docs/"):
        assert found[folder]["keys"] == ["MIT"]
        assert [(one["kind"], one["decides"]) for one in found[folder]["evidence"]] == [
            ("license_file", True),
            ("notice", False),
        ]
    assert nearest({b"README": ("notice", said("GPL-2.0-only"))})[""]["keys"] == ["GPL-2.0-only"]


def test_a_notice_that_stands_nearer_and_is_less_permissive_is_added() -> None:
    found = nearest({b"LICENSE": ("license", said("MIT")), b"libs/gnu/README": ("notice", said("GPL-2.0-only"))})
    assert found["libs/gnu/"]["keys"] == ["GPL-2.0-only", "MIT"]
    assert [(one["kind"], one["decides"]) for one in found["libs/gnu/"]["evidence"]] == [
        ("notice", True),
        ("license_file", True),
    ]


def test_what_only_refers_to_a_licence_hides_none() -> None:
    reference = ("license", said(UNKNOWN_REFERENCE))
    found = nearest({b"COPYING": ("license", said("GPL-2.0-only")), b"docs/license.rst": reference})
    assert found["docs/"]["keys"] == ["GPL-2.0-only"]
    found = nearest({b"README": ("notice", said("ISC")), b"LICENSE": reference})
    assert found[""]["keys"] == ["ISC"]
    assert nearest({b"LICENSE": reference})[""]["keys"] == [UNKNOWN_REFERENCE]


def test_a_pointer_in_a_folder_does_not_hide_what_its_read_me_says() -> None:
    pointer = ("package.json", said(UNKNOWN_REFERENCE))
    files = {
        b"LICENSE": ("license", said("MIT")),
        b"a/package.json": pointer,
        b"a/README": ("notice", said("GPL-2.0-only")),
    }
    for more in ({}, {b"package.json": pointer}):
        assert "GPL-2.0-only" in nearest({**files, **more})["a/"]["keys"]


def test_a_licence_that_nobody_recognises_hides_those_above() -> None:
    found = nearest({b"LICENSE": ("license", said("MIT")), b"vendor/LICENSE": ("license", said(None))})
    assert found["vendor/"]["keys"] == [] and found["vendor/"]["unrecognised"]


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.tuples(paths, st.sampled_from(["license", "package.json", "notice"])),
        st.sampled_from(["MIT", "ISC", "GPL-2.0-only", UNKNOWN_REFERENCE]),
        max_size=10,
    )
)
def test_it_is_the_nearest_by_the_rule_as_one_would_write_it(spoken: dict[tuple[bytes, str], str]) -> None:
    names = {"license": b"LICENSE", "package.json": b"package.json", "notice": b"README"}
    found = nearest({folder + names[one]: (one, said(key)) for (folder, one), key in spoken.items()})
    for folder in {folder for folder, _ in spoken}:
        above = sorted({base for base, _ in spoken if folder.startswith(base)}, key=len, reverse=True)

        def first(one: str, places: list[bytes]) -> tuple[bytes | None, str | None]:
            here = [(base, spoken[base, one]) for base in places if (base, one) in spoken]
            real = [pair for pair in here if pair[1] != UNKNOWN_REFERENCE]
            return (real or here or [(None, None)])[0]

        bad = {"MIT": 0, "ISC": 0, UNKNOWN_REFERENCE: SEVERITY["unknown"], "GPL-2.0-only": SEVERITY["non_permissive"]}
        base, license_key = first("license", above)
        real = base is not None and license_key != UNKNOWN_REFERENCE
        lower, manifest_key = first("package.json", [one for one in above if not real or one.startswith(base or b"")])
        group = {key for key in (license_key, manifest_key) if key}
        nearer, notice_key = first("notice", above)
        if group <= {UNKNOWN_REFERENCE} and notice_key and (notice_key != UNKNOWN_REFERENCE or not group):
            group = {notice_key}
        elif notice_key not in (None, UNKNOWN_REFERENCE) and len(nearer or b"") > max(
            len(where or b"")
            for where, key in ((base, license_key), (lower, manifest_key))
            if key not in (None, UNKNOWN_REFERENCE)
        ):
            group |= {notice_key} if bad[notice_key] > max(map(bad.__getitem__, group)) else set()
        assert set(found[folder.decode("latin-1")]["keys"]) == group


def test_riders_are_ours_and_the_published_rules_knew_none() -> None:
    rows, found = [("a", "r", b"LICENSE", "mit")], {"mit": said("MIT", "LicenseRef-stackbuild-no-training")}
    assert verdicts_of(rows, found, V2)["keys"].to_pylist() == [["MIT"]]
    assert verdicts_of(rows, found, OURS)["counting"].to_pylist() == [["LicenseRef-stackbuild-no-training", "MIT"]]
