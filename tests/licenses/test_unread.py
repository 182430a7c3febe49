"""Licences that the build has no bytes of: nobody takes the folder for what stands further up."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest

from stackbuild import build as building
from stackbuild.license_view import FileLicense, files_of, words
from stackbuild.licenses import unread as module
from stackbuild.licenses.policy import load_policy
from stackbuild.licenses.unread import SPEAKING, unread
from stackbuild.schema import TREE
from stackbuild.swhid import FILE_MODE, GITLINK_MODE, SYMLINK_MODE, TREE_MODE, content_id
from tests.sources.test_git import Repository
from tests.worlds import GPL, MIT, recipe

Entry = tuple[str, int, bytes | None]
TEXT, OTHER = b"t" * 20, b"o" * 20


def link(path: str, text: str) -> Entry:
    return path, SYMLINK_MODE, content_id(text.encode())


def found(entries: list[Entry], read: dict[str, tuple[bytes, str]] | None = None) -> dict[str, bytes | None]:
    """The licences of one revision among these entries, with the content of those that lead to one that was read."""
    tree = pa.RecordBatch.from_pylist(
        [
            {"owner_bucket": 0, "repo_name": "a/b", "revision_id": "r", "path_bytes": path.encode(), "mode": mode, "target": target}
            for path, mode, target in entries
        ],
        TREE,
    )  # fmt: skip
    files = pa.Table.from_pylist(
        [
            {"repo_name": "a/b", "revision_id": "r", "path": "/" + path, "path_bytes": path.encode(), "content_id": i, "format": f}
            for path, (i, f) in (read or {}).items()
        ],
        SPEAKING,
    )  # fmt: skip
    rows = unread([tree], files, load_policy("stackbuild")).to_pylist()
    assert all(row["format"] == "license" and row["path"] == "/" + row["path_bytes"].decode() for row in rows)
    return {row["path_bytes"].decode(): row["content_id"] for row in rows}


def test_what_is_named_as_a_licence_and_was_not_read_counts() -> None:
    entries: list[Entry] = [
        ("a/LICENSE", FILE_MODE, OTHER),
        ("b/COPYING", GITLINK_MODE, OTHER),
        ("c/README", FILE_MODE, OTHER),
        ("d/main.c", FILE_MODE, OTHER),
        ("licenses", TREE_MODE, OTHER),
        ("e/LICENSE", SYMLINK_MODE, None),
    ]
    assert found(entries) == {"a/LICENSE": None, "b/COPYING": None, "e/LICENSE": None}
    assert found([]) == {}


def test_what_another_source_has_the_bytes_of_was_read() -> None:
    assert found([("LICENSE", FILE_MODE, OTHER)], {"LICENSE": (OTHER, "license")}) == {}


def test_a_link_to_a_licence_of_the_revision_is_a_copy_of_it() -> None:
    read = {"LICENSE": (TEXT, "license"), "LICENSES/MIT.txt": (OTHER, "LICENSES:MIT.txt")}
    entries = [
        link("a/b/LICENSE", "../../LICENSE"),
        link("COPYING", "./LICENSES/MIT.txt"),
        link("c/COPYING", "../LICENSES/MIT.txt"),
    ]
    assert found(entries, read) == {"a/b/LICENSE": TEXT, "COPYING": OTHER, "c/COPYING": OTHER}


def test_no_link_leads_out_of_the_repository_or_to_what_was_not_read() -> None:
    read = {"LICENSE": (TEXT, "license"), "src/package.json": (OTHER, "package.json")}
    entries = [
        link("a/LICENSE", "/LICENSE"),
        link("b/LICENSE", "../../x/LICENSE"),
        link("c/LICENSE", "../src/package.json"),
        link("d/LICENSE", "../d/LICENSE"),
        link("e/LICENSES", "LICENSES"),
    ]
    assert set(found(entries, read).values()) == {None} and len(found(entries, read)) == len(entries)


def test_a_link_to_a_folder_of_licences_says_nothing_of_the_folder_that_it_is_in() -> None:
    read = {"LICENSES/MIT.txt": (TEXT, "LICENSES:MIT.txt")}
    assert found([link("sub/LICENSES", "../LICENSES"), link("x/LICENSES", "../LICENSES/")], read) == {}


def test_links_beyond_the_bound_are_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    read = {"LICENSE": (TEXT, "license")}
    entries = [link("a/LICENSE", "../LICENSE"), link("b/LICENSE", "../LICENSE")]
    assert set(found(entries, read).values()) == {TEXT}
    monkeypatch.setattr(module, "MAX_TEXTS", 1)
    assert set(found(entries, read).values()) == {None}


# ---------------------------------------------------------------- in a build, from real repositories


def code(name: str) -> str:
    return "".join(f"def {name}_{n}(x):\n    return x + {n}  # long enough to be a text of its own\n" for n in range(9))


def repository(folder: Path, files: dict[str, bytes | str], links: dict[str, str] | None = None) -> None:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data if isinstance(data, bytes) else data.encode())
    for path, target in (links or {}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(target, folder / path)
    made = Repository(folder)
    made.git("add", "-A")
    made.git("commit", "-q", "-m", "one")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of repositories under MIT whose folders hold licences that cannot be read."""
    root = tmp_path_factory.mktemp("repositories")
    places = (
        "plain",
        "big",
        "large",
        "binary",
        "wide",
        "inside",
        "outside",
        "absolute",
        "loop",
        "cycle",
        "reuse",
        "crate",
    )
    (root / "secret").mkdir()
    (root / "secret" / "COPYING").write_text(GPL * 3)
    files: dict[str, bytes | str] = {
        "LICENSE": MIT,
        "LICENSES/GPL-3.0-or-later.txt": GPL * 3,
        **{f"{place}/{place}.py": code(place) for place in places},
        "big/LICENSE": GPL * 3 + "lorem ipsum dolor\n" * 600_000,  # 10.8 MB
        "large/LICENSE": GPL * 3 + "lorem ipsum dolor\n" * 500_000,  # 9 MB, within the limit
        "binary/LICENSE": bytes(range(256)) * 50,
        "wide/LICENSE": ("\ufeff" + GPL * 3).encode("utf-16-le"),
        "texts/GPL": GPL * 3,
    }
    links = {
        "inside/COPYING": "../texts/GPL",
        "crate/LICENSE": "../LICENSE",
        "reuse/LICENSE": "../LICENSES/GPL-3.0-or-later.txt",
        "outside/COPYING": "../../secret/COPYING",
        "absolute/COPYING": "/usr/share/common-licenses/GPL-3",
        "loop/LICENSES": "LICENSES",
        "cycle/LICENSES": "../cycle",
    }
    repository(root / "in" / "ann", files, links)
    many = {f"LICENSE-{n}": MIT.replace("Ada", f"Ada{n}") for n in range(10_000)}
    repository(root / "in" / "many", {**many, "LICENSE-777": GPL * 3, "many.py": code("many")})
    body = recipe(
        root,
        source=[{"kind": "git", "paths": [str(root / "in")]}],
        stages=["licenses", "exact_dedup", "decode", "languages"],
        outputs=["dataset"],
    )
    folder = tmp_path_factory.mktemp("build") / "out"
    building.run(building.Request(body, Path("/"), folder, 1))
    return folder


def judged(out: Path, repo: str) -> dict[str, FileLicense]:
    (files,) = files_of(out, repo).values()
    return {file.path: file for file in files}


@pytest.mark.slow
def test_licences_that_the_build_has_no_bytes_of_hide_what_stands_above(out: Path) -> None:
    ann = judged(out, "local/ann")
    assert {path.split("/")[1]: file.license_class for path, file in ann.items() if path.endswith(".py")} == {
        "plain": "permissive",
        "crate": "permissive",  # linked to the root's
        "inside": "non_permissive",  # linked to the GPL's text
        "reuse": "non_permissive",
        "large": "non_permissive",
        "wide": "non_permissive",
        "binary": "unknown",
        "big": "unknown",
        "outside": "unknown",
        "absolute": "unknown",
        "loop": "unknown",
        "cycle": "unknown",
    }
    (evidence,) = [one for one in ann["/big/big.py"].evidence if one["decides"]]
    assert (evidence["path"], evidence["kind"], evidence["expression"]) == ("/big/LICENSE", "license_file", None)
    assert words(evidence) == "a licence that was not read: /big/LICENSE"
    (unknown,) = [one for one in ann["/binary/binary.py"].evidence if one["decides"]]
    assert words(unknown).startswith("a licence that nobody recognises by /binary/LICENSE")
    (evidence,) = [one for one in ann["/inside/inside.py"].evidence if one["decides"]]
    assert (evidence["path"], evidence["expression"]) == ("/inside/COPYING", "GPL-3.0-or-later")


@pytest.mark.slow
def test_the_worst_of_ten_thousand_licence_files_decides_and_few_are_shown(out: Path) -> None:
    file = judged(out, "local/many")["/many.py"]
    assert file.license_class == "non_permissive" and file.keys == ("GPL-3.0-or-later", "MIT")
    assert len(file.evidence) == 8 and file.evidence[0]["path"] == "/LICENSE-777"
