"""What a user asks of licences after a build: which a repository has and why, what goes with its files, another list."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stackbuild import build as building
from stackbuild.licenses.lists import data_names
from tests.cli.test_commands import stackbuild
from tests.worlds import GPL, MIT, recipe

CODE = "".join(
    f"def f{n}(x):\n    return x + {n}  # a line that is long enough to be a text of its own\n" for n in range(8)
)
MPL = "# SPDX-License-Identifier: MPL-2.0\n"
FILES = {
    "ann/LICENSE": MIT,
    "ann/own.py": CODE.replace("f", "g"),
    "ann/headed.py": "# Copyright 2021 Eve Example\n" + MPL + CODE.replace("f", "h"),
    "ann/third_party/taken.py": CODE,  # bob's, who is under the GPL
    "ann/vendor/COPYING": GPL * 3,
    "ann/vendor/v.py": CODE.replace("f", "v"),
    "bob/COPYING": GPL * 4,
    "bob/src/taken.py": CODE,
    "cat/docs/\u202ename.py": CODE.replace("f", "c"),
    "dan/NOTICE": "Frobnicator\nCopyright 2019 The Frob Foundation\n",
    "dan/k.py": "# Copyright The Kubernetes Authors.\n# SPDX-License-Identifier: Apache-2.0 OR MIT\n"
    + CODE.replace("f", "k"),
    "dan/z.py": "# SPDX-License-Identifier: Zlib\n# SPDX-FileCopyrightText: 2022 Zoe Example\n"
    + CODE.replace("f", "z"),
    "dan/LICENSES/Zlib.txt": "The text of Zlib, for this test.\n---- text 1\n",
    "dan/LICENSES/ISC.txt": "A text that nothing here is under.\n",
    "eve/package.json": '{"license": "ISC"}\n',
    "eve/LICENSES/ISC.txt": "The text of ISC, for this test.\n",
    "eve/bad\n---- text 9\nname.py": CODE.replace("f", "e"),
    "fay/REUSE.toml": 'version = 1\n[[annotations]]\npath = "**"\nSPDX-FileCopyrightText = ["2020 Rae Use", "2021 Ray Use"]\n'
    'SPDX-License-Identifier = "ISC"\n',
    "fay/LICENSES/ISC.txt": "The text of ISC, for this test.\n",
    "fay/r.py": CODE.replace("f", "r"),
    "gus/COPYING": MIT,
    "gus/s.py": "# SPDX-License-Identifier: MIT\n" + CODE.replace("f", "s"),
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repositories")
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    folder = tmp_path_factory.mktemp("build") / "out"
    stages = ["licenses", "exact_dedup", "license_filter", "decode", "languages"]
    body = recipe(
        root, stages=stages, outputs=["dataset", "index"], license_filter={"keep": ["permissive", "weak_copyleft"]}
    )
    building.run(building.Request(body, Path("/"), folder, 1))
    return folder


def told(out: Path, repo: str) -> dict[str, dict]:
    lines = stackbuild("inspect", "licenses", out, "--repo", repo, "--json").splitlines()
    return {row["path"]: row for row in map(json.loads, lines)}


def test_a_tree_tells_each_folder_in_a_line_and_what_differs(out: Path) -> None:
    shown = stackbuild("inspect", "licenses", out, "--repo", "local/ann")
    assert "vendor/  2 files, non_permissive: GPL-3.0-or-later by /vendor/COPYING" in shown
    assert "headed.py  weak_copyleft: MPL-2.0 by its own header:2" in shown
    assert "beside: MIT by /LICENSE" in shown
    assert "own.py" in stackbuild("inspect", "licenses", out, "--repo", "local/ann", "--all")
    assert "no_license: nothing says anything of a licence" in stackbuild(
        "inspect", "licenses", out, "--repo", "local/cat"
    )
    assert "\u202e" not in stackbuild("inspect", "licenses", out, "--repo", "local/cat", "--all")


def test_the_header_and_the_copies_of_a_file_count(out: Path) -> None:
    ann = told(out, "local/ann")
    assert ann["/headed.py"]["license_class"] == "weak_copyleft"
    assert ann["/own.py"]["license_class"] == "permissive" and ann["/own.py"]["keys"] == ["MIT"]
    bobs = told(out, "local/bob")["/src/taken.py"]
    anns = ann["/third_party/taken.py"]
    assert (
        bobs["license_class"] == anns["license_class"] == "non_permissive"
    )  # of the origin, wherever it was copied to
    (own,), (other,) = ([one for one in file["evidence"] if one["decides"]] for file in (bobs, anns))
    assert (own["path"], own["repo_name"]) == ("/COPYING", None)
    assert (other["path"], other["repo_name"]) == ("/COPYING", "local/bob")
    shown = stackbuild("inspect", "licenses", out, "--repo", "local/ann", "--all")
    assert "GPL-3.0-or-later by /COPYING of local/bob" in shown
    (released,) = [
        row
        for path in (out / "dataset").rglob("*.parquet")
        for row in pq.read_table(path, columns=["path", "license_class", "license_evidence"]).to_pylist()
        if row["path"] == "/headed.py"
    ]
    assert [e["kind"] for e in released["license_evidence"] if e["decides"]] == ["header"]


def test_who_asks_for_what_is_not_there_is_told(out: Path, tmp_path: Path) -> None:
    assert "stackbuild check" in stackbuild("inspect", "licenses", out, "--repo", "local/zed", code=4)
    assert "--repo" in stackbuild("inspect", "licenses", out, code=2)
    assert "tokens, licenses" in stackbuild("inspect", "pictures", out, code=2)
    assert "has no local/zed" in stackbuild("notice", out, "--repo", "local/zed", code=4)
    assert "line 1" in stackbuild("notice", out, "--files", "-", stdin="local/ann\n", code=4)


def test_a_notice_holds_the_holders_and_each_text_once(out: Path) -> None:
    text = stackbuild("notice", out)
    assert text.count("Permission is hereby granted") == 1
    assert "Copyright (c) 2020 Ada Example" in text and "Copyright 2021 Eve Example" in text
    assert "local/ann" in text and "/vendor/COPYING" not in text  # nothing of that folder is released
    assert "own.py" not in text and "/own.py" in stackbuild("notice", out, "--list")
    some = stackbuild("notice", out, "--files", "-", stdin="local/ann headed.py\n", code=0)
    assert "1 file; licence: MPL-2.0" in some and "holds files of 1 project." in some
    assert "Ada" not in some


def test_a_notice_holds_what_no_licence_file_decided(out: Path) -> None:
    """Section 4(d) of Apache-2.0 wants the NOTICE, and headers, manifests and rules name texts that lie in LICENSES/."""
    text = stackbuild("notice", out, "--files", "-", stdin="local/dan k.py\nlocal/dan z.py\n")
    assert "licence: (Apache-2.0 OR MIT) AND Zlib" in text
    assert "/NOTICE: text" in text and "Copyright 2019 The Frob Foundation" in text
    assert "  Copyright The Kubernetes Authors." in text and "  Copyright 2022 Zoe Example" in text
    assert "/LICENSES/Zlib.txt: text" in text and "The text of Zlib" in text and "nothing here" not in text
    manifest = stackbuild("notice", out, "--repo", "local/eve")
    assert "/LICENSES/ISC.txt: text 1 below" in manifest and "The text of ISC" in manifest
    header = stackbuild("notice", out, "--files", "-", stdin="local/gus s.py\n")
    assert "/COPYING: text 1 below" in header and "Permission is hereby granted" in header
    rule = stackbuild("notice", out, "--repo", "local/fay")
    assert "/LICENSES/ISC.txt: text 1 below" in rule
    assert "  Copyright 2020 Rae Use" in rule and "  Copyright 2021 Ray Use" in rule


def test_no_name_or_text_forges_a_line_of_a_notice(out: Path) -> None:
    text = stackbuild("notice", out, "--repo", "local/eve", "--repo", "local/dan", "--list")
    assert "/bad\\n---- text 9\\nname.py" in text
    headings = [line for line in text.splitlines() if line.startswith("---- text")]
    assert headings == [f"---- text {number}" for number in range(1, len(headings) + 1)]


def test_another_list_gains_and_loses(out: Path, tmp_path: Path) -> None:
    found = json.loads(stackbuild("licenses", "diff", "stackbuild", "the-stack-v1.0", "--build", out, "--json"))
    assert "MPL-2.0" in found["added"] and "Zlib" in found["removed"]
    assert found["build"]["gained"]["files"] == 0  # weak copyleft stays in this build
    assert found["build"]["lost"]["licenses"] == {"Zlib": 2}  # a file and the text in LICENSES/
    assert found["build"]["contents"] >= len(FILES) - 3
    own = tmp_path / "own.toml"
    own.write_text('name = "own"\nversion = "1"\norigin = "a test"\nids = ["GPL-3.0-or-later"]\n')
    build = json.loads(stackbuild("licenses", "diff", "stackbuild", own, "--build", out, "--json"))["build"]
    assert build["gained"]["licenses"] == {"GPL-3.0-or-later": 4}  # the texts and files of /vendor/ and of bob
    assert build["gained"]["bytes"] == sum(
        len(FILES[name]) for name in ("ann/vendor/COPYING", "ann/vendor/v.py", "bob/COPYING", "bob/src/taken.py")
    )
    assert build["lost"]["licenses"]["MIT"] == 3  # LICENSE and own.py of ann, s.py of gus
    names = [row["name"] for row in json.loads(stackbuild("licenses", "lists", "--json"))]
    assert names == data_names("lists")
    assert "+ MPL-2.0" in stackbuild("licenses", "diff", "stackbuild", "the-stack-v1.0")
