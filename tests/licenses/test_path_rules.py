"""Rules that name paths: the last of a file, the nearest file, and what overrides."""

from __future__ import annotations

import fnmatch
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.licenses.inherit import LICENSE_FILES
from stackbuild.licenses.path_rules import PATH_RULES, PathRules, rules_of, together
from stackbuild.licenses.policy import load_policy
from stackbuild.licenses.reading import Reader

OURS = load_policy("stackbuild")
Rule = tuple[str, str, str]  # glob, expression, precedence


def rules(files: dict[str, list[Rule]], repo: str = "a/b") -> PathRules:
    """The rules of one repository: by the folder that a file speaks for."""
    rows, found = [], {}
    for number, (folder, said) in enumerate(files.items()):
        content = str(number).encode().ljust(20, b"\0")
        rows.append({"repo_name": repo, "revision_id": "r", "folder": folder.encode(), "path": f"/{folder}REUSE.toml",
                     "content_id": content, "format": "REUSE.toml"})  # fmt: skip
        found[content, "REUSE.toml"] = [
            {"expression": key, "engine": "e", "score": 1.0, "first_line": line, "last_line": line, "said": key,
             "globs": [glob], "precedence": how}
            for line, (glob, key, how) in enumerate(said, 1)
        ]  # fmt: skip
    table = pa.Table.from_pylist(rows, LICENSE_FILES)
    return PathRules(pa.Table.from_batches(rules_of(table, found, OURS, 0), PATH_RULES))


def ruled(known: PathRules, paths: list[str], repo: str = "a/b") -> list[str | None]:
    """The expression of each path, and None where no rule names it."""
    files = pa.record_batch(
        {"repo_name": pa.array([repo] * len(paths)), "revision_id": pa.array(["r"] * len(paths)),
         "path_bytes": pa.array([path.encode() for path in paths], pa.binary())}
    )  # fmt: skip
    return [None if row < 0 else known.evidence(row)["expression"] for row in known.of_files(files).tolist()]


def test_the_last_rule_of_a_file_that_matches_holds() -> None:
    known = rules({"": [("**", "MIT", "closest"), ("src/**", "ISC", "closest"), ("src/x.c", "Zlib", "closest")]})
    assert ruled(known, ["a", "src/a", "src/x.c", "src/y/x.c"]) == ["MIT", "ISC", "Zlib", "ISC"]


def test_the_file_in_the_nearest_folder_holds_and_an_override_above_all() -> None:
    files = {"": [("**", "MIT", "closest")], "v/": [("*.c", "ISC", "closest")]}
    assert ruled(rules(files), ["v/a.c", "v/a.h", "v/w/a.c", "va.c"]) == ["ISC", "MIT", "MIT", "MIT"]
    files[""] = [("**", "MIT", "override")]
    assert ruled(rules(files), ["v/a.c"]) == ["MIT"]
    known = rules(files)
    assert {known.evidence(row)["kind"] for row in range(2)} == {"override", "path_rule"}


def test_a_rule_that_aggregates_is_evidence_of_a_kind_of_its_own() -> None:
    known = rules({"": [("**", "MIT", "aggregate")], "v/": [("*.c", "ISC", "closest")]})
    assert ruled(known, ["a", "v/a.c", "v/a.h"]) == ["MIT", "ISC", "MIT"]
    assert [known.evidence(row)["kind"] for row in range(2)] == ["aggregate", "path_rule"]


def beside(names: dict[str, list[Rule]]) -> PathRules:
    """The rules of files of one repository by their paths."""
    rows = []
    for path, said in names.items():
        folder = path.rpartition("/")[0].removesuffix("debian").removesuffix(".reuse")
        for line, (glob, key, how) in enumerate(said, 1):
            rows.append({"partition": 0, "repo_name": "a/b", "revision_id": "r", "folder": folder.encode(), "path": f"/{path}",
                         "expression": key, "first_line": line, "globs": [glob], "precedence": how})  # fmt: skip
    order = sorted(rows, key=lambda row: (row["folder"], row["path"]))
    return PathRules(pa.Table.from_pylist(order, PATH_RULES))


def test_what_is_about_one_file_alone_is_stronger_than_globs_and_reuse_than_debian() -> None:
    whole = ("**", "MIT", "closest")
    own = {name: [("unused", "GPL-3.0-only", "closest")] for name in ("Foo.java.license", "zoo.java.license")}
    known = beside({**own, "REUSE.toml": [whole]})
    assert ruled(known, ["Foo.java", "zoo.java", "Foo.java.license", "x"]) == [*["GPL-3.0-only"] * 3, "MIT"]
    known = beside(
        {"debian/copyright": [whole], "REUSE.toml": [("**", "ISC", "closest")], "a.license": own["Foo.java.license"]}
    )
    assert ruled(known, ["a", "b"]) == ["GPL-3.0-only", "ISC"]
    known = beside({".reuse/dep5": [("**", "Zlib", "closest")], "debian/copyright": [whole]})
    assert ruled(known, ["b"]) == ["Zlib"]
    known = beside({"REUSE.toml": [("**", "ISC", "override")], "a.license": own["Foo.java.license"]})
    assert ruled(known, ["a"]) == ["ISC"]


def test_a_rule_speaks_for_its_own_repository_and_revision() -> None:
    known = rules({"": [("**", "MIT", "closest")]})
    assert ruled(known, ["a"], repo="a/c") == [None] and ruled(rules({}), ["a"]) == [None]


def test_a_path_of_bytes_that_are_no_text_is_matched() -> None:
    known = rules({"d/": [("**", "MIT", "closest")]})
    files = pa.record_batch(
        {
            "repo_name": ["a/b", "a/b"],
            "revision_id": ["r", "r"],
            "path_bytes": pa.array([b"d/\xff\n", b"e"], pa.binary()),
        }
    )
    assert known.of_files(files).tolist() == [0, -1]


def test_evidence_says_where_the_rule_stands() -> None:
    known = rules({"sub/": [("*", "MIT", "closest"), ("x", "ISC", "closest")]})
    found: dict[str, Any] = known.evidence(1)
    assert (found["path"], found["first_line"], found["said"], found["kind"]) == (
        "/sub/REUSE.toml",
        2,
        "ISC",
        "path_rule",
    )


globs = st.sampled_from(["**", "*", "a/**", "b", "a/b", "*b", "a/*"])
rule_ = st.tuples(globs, st.sampled_from(["MIT", "ISC", "Zlib"]), st.sampled_from(["closest", "override"]))
folders = st.sampled_from(["", "a/", "a/a/", "b/"])


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        folders,
        st.lists(rule_, min_size=1, max_size=4),
        max_size=4,
    ),
    st.lists(st.sampled_from(["a", "b", "a/b", "a/a", "a/a/b", "b/b", "b/a/b"]), min_size=1, max_size=7),
)
def test_it_is_the_rule_as_one_would_write_it(files: dict[str, list[Rule]], paths: list[str]) -> None:
    def matches(glob: str, path: str) -> bool:
        if "**" not in glob and path.count("/") != glob.count("/"):
            return False
        return fnmatch.fnmatchcase(path, glob.replace("**", "*"))

    def rule(path: str) -> str | None:
        holding = []
        for folder in sorted((one for one in files if path.startswith(one)), key=len):
            last = [one for one in files[folder] if matches(one[0], path[len(folder) :])][-1:]
            holding += last
        overriding = [one for one in holding if one[2] == "override"]
        return (overriding[:1] or holding[-1:] or [("", None, "")])[0][1]

    assert ruled(rules(files), paths) == [rule(path) for path in paths]


def of_sidecar(text: str) -> dict[str, Any]:
    """The rule that Foo.java.license makes of Foo.java."""
    content, format_ = b"1" * 20, "sidecar:Foo.java.license"
    row = {"repo_name": "a/b", "revision_id": "r", "folder": b"", "path": "/Foo.java.license"}
    table = pa.Table.from_pylist([{**row, "content_id": content, "format": format_}], LICENSE_FILES)
    said = {(content, format_): Reader().read(text.encode(), format_)}
    known = PathRules(pa.Table.from_batches(rules_of(table, said, OURS, 0), PATH_RULES))
    assert len(known.rows) == 1
    return known.evidence(0)


def test_all_that_a_sidecar_states_holds_together() -> None:
    gpl, mit = "Licensed under the GNU General Public License version 3", "Licensed under the MIT License"
    for texts in ((gpl, mit), (mit, gpl)):
        one = of_sidecar("\n\n".join(texts) + "\n")
        assert one["expression"] == "GPL-3.0-only AND MIT"
        assert (one["first_line"], one["last_line"]) == (1, 3)
    tags = "SPDX-License-Identifier: MIT\nSPDX-License-Identifier: GPL-3.0-only\n"
    assert of_sidecar(tags)["expression"] == "MIT AND GPL-3.0-only"


def test_a_sidecar_says_what_nobody_recognises_beside_what_somebody_does() -> None:
    assert of_sidecar("You may dance to it on the days that we say, and on no others.")["expression"] is None
    row = {"engine": "e", "score": 1.0, "first_line": 1, "last_line": 1, "globs": ("a",)}
    one = together([{**row, "expression": "MIT"}, {**row, "expression": None, "score": 0.0}])
    assert one["expression"] == "LicenseRef-scancode-unknown AND MIT" and one["score"] == 0.0
