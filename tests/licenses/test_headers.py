"""What source files say of their own licence."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.licenses import detect, headers, scancode
from stackbuild.licenses.decide import UNKNOWN
from stackbuild.licenses.header_form import header_form
from stackbuild.licenses.headers import HEADER, Headers
from tests.worlds import MIT

GPL3 = """This program is free software: you can redistribute it and/or modify
it under the terms of the GNU General Public License as published by
the Free Software Foundation, either version 3 of the License, or
(at your option) any later version.

This program is distributed in the hope that it will be useful,
but WITHOUT ANY WARRANTY; without even the implied warranty of
MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE.  See the
GNU General Public License for more details.
"""
APACHE = """Copyright 2020 The Example Authors. All rights reserved.

Licensed under the Apache License, Version 2.0 (the "License");
you may not use this file except in compliance with the License.
You may obtain a copy of the License at

    http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software
distributed under the License is distributed on an "AS IS" BASIS,
WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
See the License for the specific language governing permissions and
limitations under the License.
"""
MIT_TEXT = MIT.split("\n", 1)[1].lstrip()


def lines(sign: str) -> Any:
    """A comment of lines that begin with a sign."""
    return lambda text: "".join(f"{sign} {line}".rstrip() + "\n" for line in text.splitlines())


def block(opening: str, closing: str, each: str = "") -> Any:
    """A comment between two signs."""
    return lambda text: (
        f"{opening}\n" + "".join(f"{each}{line}".rstrip() + "\n" for line in text.splitlines()) + f"{closing}\n"
    )


COMMENTS = {
    "C": (block("/*", " */", " * "), "#include <stdio.h>\nint main(void) { return license[0]; }\n"),
    "C without stars": (block("/*", "*/", "  "), "int x = 1;\n"),
    "C++": (lines("//"), "int x = 1;\n"),
    "Rust": (lines("//!"), "use std::io;\n"),
    "Python": (lines("#"), "import os\nx = {1: 2}\n"),
    "Python docstring": (block('"""A module.\n', '"""'), "import os\n"),
    "Python single quotes": (block("'''", "'''"), "import os\n"),
    "shell": (lambda text: "#!/bin/sh\n" + lines("#")(text), "set -e\necho $x\n"),
    "Emacs Lisp": (lines(";;"), "(defun f (x) x)\n"),
    "SQL": (lines("--"), "SELECT 1;\n"),
    "Lua block": (block("--[[", "]]"), "local x = 1\n"),
    "Haskell": (block("{-", "-}"), "module Main where\n"),
    "Haskell haddock": (lambda text: "{- |\n" + text + "-}\n", "module Main where\n"),
    "OCaml": (block("(*", "*)", "   "), "let x = 1\n"),
    "OCaml boxed": (lambda text: "".join(f"(* {line:72} *)\n" for line in text.splitlines()), "let x = 1\n"),
    "TeX": (lines("%"), "\\documentclass{article}\n"),
    "Matlab": (lines("%%"), "x = [1 2 3];\n"),
    "Erlang": (lines("%%%"), "-module(x).\n"),
    "Fortran 77": (lines("C    "), "      PROGRAM X\n"),
    "Fortran": (lines("!"), "program x\n"),
    "m4": (lines("dnl"), "AC_INIT([x], [1])\n"),
    "batch rem": (lines("REM"), "@echo off\n"),
    "batch @rem": (lines("@rem"), "@echo off\n"),
    "batch colons": (lines("::"), "@echo off\n"),
    "Basic": (lines("'"), "Dim x As Integer\n"),
    "Vim": (lines('"'), "set nocompatible\n"),
    "reStructuredText": (lambda text: ".. comment\n\n" + "".join(f"   {line}".rstrip() + "\n" for line in text.splitlines()), "T\n=\n"),
    "troff": (lines('.\\"'), ".TH X 1\n"),
    "XML": (lambda text: '<?xml version="1.0"?>\n' + block("<!--", "-->", "  ")(text), "<a b='c'/>\n"),
    "PHP": (lambda text: "<?php\n" + block("/**", " */", " * ")(text), "$x = 1;\n"),
    "Jinja": (block("{#", "#}"), "{{ x }}\n"),
    "PowerShell": (block("<#", "#>"), "$x = 1\n"),
    "Ruby": (lambda text: "=begin\n" + text + "=end\n", "x = 1\n"),
    "Perl POD": (lambda text: "=head1 LICENSE\n\n" + text + "\n=cut\n", "my $x = 1;\n"),
    "Scheme block": (block("#|", "|#"), "(define x 1)\n"),
    "plain text": (lambda text: text, "x = 1\n"),
    "code first": (lambda text: "package main\n\nimport x\n\n" + lines("//")(text), "func f() {}\n"),
    "Windows": (lambda text: lines("//")(text).replace("\n", "\r\n"), "x;\r\n"),
    "old Mac": (lambda text: lines("//")(text).replace("\n", "\r"), "x;\r"),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    detect.warm()


def one(content: str | bytes) -> dict[str, Any] | None:
    """The header of one file."""
    raw = content.encode() if isinstance(content, str) else content
    found: dict[str, Any] | None = Headers().scan(pa.array([raw], pa.large_binary()))[0].as_py()
    return found


def said(content: str | bytes) -> str | None:
    """Its expression, or its kind if it has none."""
    found = one(content)
    return None if found is None else found["expression"] or found["kind"]


@pytest.mark.parametrize("language", COMMENTS)
@pytest.mark.parametrize(
    ("notice", "expression"),
    [(GPL3, "GPL-3.0-or-later"), (APACHE, "Apache-2.0"), (MIT_TEXT, "MIT")],
    ids=["GPL", "Apache", "MIT"],
)
def test_a_notice_is_found_in_comments_of_any_language(language: str, notice: str, expression: str) -> None:
    wrap, code = COMMENTS[language]
    assert said(wrap(notice) + "\n" + code) == expression


@pytest.mark.parametrize("language", COMMENTS)
def test_a_tag_is_found_in_comments_of_any_language(language: str) -> None:
    wrap, code = COMMENTS[language]
    content = wrap("SPDX-License-Identifier: (MIT OR GPL-2.0+) AND Zlib\n") + "\n" + code
    assert said(content) == "(MIT OR GPL-2.0-or-later) AND Zlib"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("// @license MIT\nlet x = 1\n", "MIT"),
        ('"""A tool.\n\nLicense: BSD-3-Clause\n"""\nimport os\n', "BSD-3-Clause"),
        ('import os\n\n__license__ = "MIT"\n', "MIT"),
        ("/*! jQuery v3.7.1 | (c) OpenJS Foundation | Released under the MIT license */\n!function(e){return e[0]}(1);\n", "MIT"),
        ("# This file is in the public domain.\nx = 1\n", "LicenseRef-scancode-public-domain"),
        ("# Use of this source code is governed by a BSD-style license that can be\n# found in the LICENSE file.\n", "BSD-3-Clause"),
        ("# It is licensed under the same terms as Perl itself.\n", "Artistic-1.0-Perl OR GPL-1.0-or-later"),
        ("/* Proprietary and confidential. Do not copy. */\n", "LicenseRef-scancode-proprietary-license"),
    ],
)  # fmt: skip
def test_short_statements(content: str, expected: str) -> None:
    found = said(content)
    assert found is not None and set(found.split(" OR ")) == set(expected.split(" OR ")), found


@pytest.mark.parametrize(
    "content",
    [
        "",
        "x = 1\n",
        "# Copyright (c) 2020 Ada. All rights reserved.\nx = 1\n",
        "/*\n * Copyright 1999-2004 The Example Company, Inc.\n * All rights reserved.\n */\nint x;\n",
        "const LICENSES = ['MIT', 'GPL-2.0'];\n",
        '{"name": "x", "license": "MIT", "dependencies": {}}\n',
        '{\n  "name": "x",\n  "license": "GPL-3.0"\n}\n',
        'type T struct {\n\tLicense License `json:"license"`\n}\n',
        'if license == "GPL-2.0":\n    refuse("GPL-2.0")\n',
        'print("// SPDX-License-Identifier: GPL-2.0-only")\n',
        "# may not be modified; lazy sequences can be indexed\n",
        "    license: str\n",
        "// raises on unauthorized access; see the permission table\n",
        "- Due to limitations, we do not distribute binary wheels for Windows.\n",
        "# Do not pass confidential data through the environment; it can be used freely by children\n",
        "# This option may not be used outside of tests\n",
        "# The benchmark compares with proprietary software\n",
        "# The distribution of warranty claims by month\n",
    ],
)
def test_what_says_nothing(content: str) -> None:
    """Holders alone, and what a program does with the names of licences, are no statement of its own."""
    assert one(content) is None


TAG = "SPDX-License-Identifier: MIT"


@pytest.mark.parametrize(
    "content",
    [
        f"{{{{!-- {TAG} --}}}}\n<div>{{{{x}}}}</div>\n",
        f"{{{{! {TAG} }}}}\n",
        f"{{{{!--\n  {TAG}\n--}}}}\n<p>x</p>\n",
        f"@*\n {TAG}\n*@\n",
        f"[//]: # ({TAG})\n# Title\n",
        f"[comment]: # ({TAG})\n",
        f"<!DOCTYPE html>\n<html>\n<p>{TAG}</p>\n",
        f"<li><b>{TAG}</b></li>\n",
        f"int x = 1; // {TAG}\n",
        f"int f(int x) {{ return x; }} /* {TAG} */\n",
        f"x = 1  # {TAG}\n",
        f"\\foo{{x}} % {TAG}\n",
        f"  {TAG} [x]\n",
        f'"{TAG}"\nx = 1\n',
        f'r"""{TAG}\n"""\nx = 1\n',
        f"'''\n{TAG}\n'''\nx = 1\n",
        f'let x = 1\n" {TAG}\n',
        f"cat <<EOF\nx\nEOF\n# {TAG}\n",
        f"cout << x <<MAX;\n// {TAG}\n",
        f"assign x = `FOO;\n// {TAG}\n",
        f"const x = `\na = {{}}\n`;\n// {TAG}\n",
        f'def f(x):\n    """Doc."""\n\n# {TAG}\n',
        f"Don't edit this. {TAG}\n",
    ],
)
def test_a_tag_in_a_comment_or_markup_counts_whatever_its_line_looks_like(content: str) -> None:
    assert said(content) == "MIT"


@pytest.mark.parametrize(
    "content",
    [
        f'x = "{TAG}"\n',
        f'x = """\n# {TAG}\n"""\n',
        f"HEADER = '''{TAG}\n'''\n",
        f"const h = `// {TAG}\n`;\n",
        f"const h = `\n/*\n * {TAG}\n */\n`;\n",
        f"#!/bin/sh\ncat > LICENSE <<EOF\n{TAG}\nEOF\n",
        f"cat <<-'END' > x.c\n/*\n * {TAG}\n */\nEND\n",
        f'def f(x):\n    """Doc.\n    {TAG}\n    """\n',
        f'def f(x):\n    "{TAG}"\n',
        f'textwrap.dedent(\n    """\\\n    # {TAG}\n    """)\n',
        f'echo "{TAG}"\n',
        f"echo '# {TAG}' > x\n",
        f'#define LICENSE "{TAG}"\n',
        f'<a title="{TAG}">x</a>\n',
        f"if (/{TAG}/) x();\n",
    ],
)
def test_a_tag_in_a_string_of_a_statement_says_nothing(content: str) -> None:
    assert one(content) is None


TERMS = "Licensed under the GNU General Public License, version 3."


@pytest.mark.parametrize(
    "content",
    [
        f'HEADER = """\n{TERMS}\n"""\n',
        f'HEADER = """\\\n# {TERMS}\n"""\n',
        f"HEADER = r'''\n{TERMS}\n'''\n",
        f'def f(x):\n    return """\n{TERMS}\n"""\n',
        f'x.write(\n    """\n{TERMS}\n"""\n)\n',
        f'x = [\n    """\n{TERMS}\n""",\n]\n',
        f"const h = `\n{TERMS}\n`;\n",
        f"var h = `// Header\n// {TERMS}\n`\n",
        f"cat > x.c <<EOF\n/*\n * {TERMS}\n */\nEOF\n",
        f'const char *h = R"(\n{TERMS}\n)";\n',
        f'auto h = R"x--(\n  )" {TERMS}\n  {TERMS}\n)x--";\n',
        f'std::string h = u8R"(\n// {TERMS}\n)";\n',
        f'#define H R"(\n{TERMS}\n)"\n',
        f'let h = r#"\nx "y"\n{TERMS}\n"#;\n',
        f'var h = @"\n// ""x""\n// {TERMS}\n";\n',
        f'var h = $@"a ""b""\n{TERMS}\n";\n',
        f'var h = """"\n    {TERMS}\n    """";\n',
        f'static const char *h =\n    "{TERMS}\\n"\n    "{TERMS}\\n"\n;\n',
        f"h = (\n  '{TERMS}\\n' +\n  '{TERMS}\\n')\n",
        f'RE = re.compile(\n    r"{TERMS}" + "\\n"\n    rb"{TERMS}"\n)\n',
    ],
)
def test_a_text_in_a_string_that_is_a_value_says_nothing(content: str) -> None:
    assert one(content) is None


@pytest.mark.parametrize(
    "before",
    [
        'x = """\na\n"""\n',
        'x = """a"""\n',
        'x = ""\ny = """"""\n',
        's = Replace(s, """", "")\n',
        'NSString *s = @"a \\" b";\nNSString *t = @"x";\n',
        'var s = @"C:\\dir\\";\n',
        'auto h = R"x(\n)" )x";\n',
        'let h = r#"a"b"#;\n',
        "const h = `a`;\n",
        'x("R", \'R\', R["(a"])\n',
        "echo <<EOF\nx\nEOF\n",
        "'''Bold''' text = x\n",
    ],
)
def test_a_string_that_ends_hides_no_notice_below_it(before: str) -> None:
    assert said(before + "\n" + lines("//")(GPL3)) == "GPL-3.0-or-later"
    assert said(before + "\n" + GPL3) == "GPL-3.0-or-later"


@pytest.mark.parametrize(
    "content",
    [
        f'"""\n{TERMS}\n"""\n',
        f'import os\n\n"""\n{TERMS}\n"""\n',
        f'x = 1\n"""\n{TERMS}\n"""\n',
        f'__doc__ = """\n{TERMS}\n"""\n',
        f'class X:\n    """An x.\n\n    {TERMS}\n    """\n',
        f'defmodule X do\n  @moduledoc """\n  {TERMS}\n  """\n',
        f": <<'COMMENT'\n{TERMS}\nCOMMENT\n",
        f'" {TERMS}\nlet x = 1\n',
        f"''''''\n' {TERMS}\nDim x\n",
        f'"""""""""""\n" {TERMS}\n"""""""""""\n',
    ],
)
def test_documentation_is_no_value(content: str) -> None:
    assert said(content) == "GPL-3.0-only"


def test_a_string_about_headers_takes_nothing_from_the_header() -> None:
    """A test of licence headers, and one of a program whose output names a licence."""
    own = lines("#")(APACHE) + "\nimport re\n\n"
    pattern = (
        'RE = re.compile(\n    r"(?P<sign>#) This Source Code Form is subject to the terms of the Frob" + "\\n"\n)\n'
    )
    text = "frob 1.0\nfrob is free software, covered by the GNU General Public License.\n"
    output = f'class T:\n    def f(self):\n        version = b"""\\\n{text}"""\n'
    assert said(own + pattern) == said(own + output) == "Apache-2.0"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (f"<html><head><!-- {TERMS} --><title>x</title></head>\n", "GPL-3.0-only"),
        (f"<html><head><!--\n{TERMS}\n--><title>x</title></head>\n", "GPL-3.0-only"),
        (f'<html lang="en"><body class="a"><p>{TERMS}</p></body></html>\n', "GPL-3.0-only"),
        (f"<HTML><BODY>{TERMS}</BODY></HTML>\n", "GPL-3.0-only"),
        ("<html><head><title>MIT License</title></head>\n", None),
        ("<html><body><script>var license = 'MIT';</script></body></html>\n", None),
        ("<html><body><p", None), ("<html", None), ("<html><p>", None),
    ],
)  # fmt: skip
def test_a_page_in_one_line(content: str, expected: str | None) -> None:
    assert said(content) == expected


def notebook(*sources: str, **how: Any) -> str:
    """A notebook with these cells, in the lines that Jupyter writes."""
    cells = [
        {
            "cell_type": kind,
            "metadata": {},
            "outputs": [{"text": ["License: Frob\n"]}],
            "source": source.splitlines(True),
        }
        for kind, source in zip(["markdown", "code"] * len(sources), sources, strict=False)
    ]
    return (
        json.dumps({"cells": cells, "metadata": {"license": "GPL-2.0"}, "nbformat": 4}, **({"indent": 1} | how)) + "\n"
    )


COLAB = "#@title " + lines("#")(APACHE.split("\n", 2)[2])[2:]
NOTEBOOKS = {
    "Jupyter": notebook("##### Copyright 2018 The Example Authors.", COLAB, "# Title\n", 'print("MIT license")\n'),
    "one line": notebook("##### Copyright 2018 The Example Authors.", COLAB, separators=(",", ":"), indent=None),
    "strings": json.dumps({"nbformat": 4, "metadata": {"x": "y" * 9_000}, "cells": [{"cell_type": "code", "source": COLAB}]}, indent=1),
    "nbformat 3": json.dumps({"metadata": {}, "worksheets": [{"cells": [{"cell_type": "code", "input": COLAB.splitlines(True)}]}]}),
    "Windows": notebook("# Title", COLAB).replace("\n", "\r\n"),
    "mark": "\ufeff" + notebook("# Title", COLAB),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_first_cells_of_a_notebook_are_read(name: str) -> None:
    raw = NOTEBOOKS[name].encode()
    found = one(raw)
    assert found is not None and (found["kind"], found["expression"]) == ("license", "Apache-2.0")
    own = raw[found["start"] : found["end"]].decode()
    assert own.startswith("#@title Licensed") and own.endswith("# limitations under the License.")
    assert found["first_line"] == raw[: found["start"]].count(b"\n") + 1
    assert found["last_line"] == raw[: found["end"]].count(b"\n") + 1


def test_what_a_notebook_says() -> None:
    assert said(notebook("# SPDX-License-Identifier: MIT\n# A title")) == "MIT"
    assert said(notebook("# A title", "import os\n# SPDX-License-Identifier: MIT")) == "MIT"
    assert said(notebook("A title\n\nCopyright Ada\n", lines("#")(GPL3))) == "GPL-3.0-or-later"
    assert said(notebook("# Title", 'print("# SPDX-License-Identifier: MIT")')) is None
    assert said(notebook("# Title", 'x = """\n# SPDX-License-Identifier: MIT\n"""')) is None
    assert said(notebook('caf\u00e9 \ud83d\ude00 \\n "x"\n\nLicense: MIT')) == "MIT"
    assert one(notebook("# Title", "x = 1", "y")) is None


@pytest.mark.parametrize(
    "content",
    [
        '{"metadata": {"license": "MIT"}, "source": ["# License: MIT\\n"]}',
        '{"cells": 1, "source": ["# License: MIT\\n"]}',
        '{"cells": [], "source": ["# License: MIT\\n"]}',
        '{"cells": [{"cell_type": "code", "source": {"x": "# License: MIT"}}]}',
        '{"cells": [{"cell_type": "code", "source": [',
        '{"cells": [{"cell_type": "code", "source": ["# License',
        '{"cells": [{"cell_type": "code", "source": ["\\',
        '{"cells": [{"cell_type": "code", "source": ["\\u12", "\\ud800", "\\x"]}]}',
        '{"cells"', '{ { {"cells": [', '{"cells": [{"cell_type": "code", "source": "' + '\\"' * 100_000,
        '{"cells": ["cell_type"' + '"source":[' * 20_000,
    ],
)  # fmt: skip
def test_what_is_no_notebook_or_a_broken_one(content: str) -> None:
    assert one(content) is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('"""A tool.\n\nLicense: GPL-3.0 [see COPYING]\n"""\nimport os\n', "GPL-3.0-only"),
        ('"""A tool under the GPL(v3).\n"""\n', "GPL-3.0-only"),
        ("<p>This page is licensed under the MIT license.</p>\n", "MIT"),
        ("This software is free. " * 20 + "It is licensed under the MIT license.\n", "MIT"),
        ("x = [license MIT y]\nreturn f(license) [MIT];\n", None),
        ("var mit_license=1;" * 40 + "\n", None),
    ],
)
def test_prose_that_looks_a_little_like_code(content: str, expected: str | None) -> None:
    assert said(content) == expected


@pytest.mark.parametrize(
    "content",
    [
        "# See LICENSE for details.\nx = 1\n",
        "/**\n * For the full copyright and license information, please view\n * the LICENSE file that came with this source code.\n */\n",
        "// Licensed under the terms found in the LICENSE file in the root directory.\n",
        "/*! For license information please see main.js.LICENSE.txt */\n!function(){}();\n",
    ],
)
def test_a_pointer_to_another_file_is_no_licence_and_not_an_unknown_one(content: str) -> None:
    assert said(content) == "refers"


@pytest.mark.parametrize(
    "content",
    [
        "# Licensed under the Frobnicate Special Terms 7.\n",
        "// License: Frobnicate-7\n",
        "/*\n * Plugin Name: Frob\n * Version: 1.6.9\n * License: GPL-compatible\n */\n",
        "/* Permission is granted to look at this file on Tuesdays. */\n",
        "# You may use it under the terms of the Frobnicate 2.1 license, available at\n# http://frobnicate.example\n",
        "// This file may not be used without written permission of Acme.\n",
        "# ACME CONFIDENTIAL\n# All that is contained herein is, and remains, property of Acme.\n",
        "// Unauthorised copying of this module is frowned upon.\n",
        "-- Do not distribute.\n",
        "# This file is not licensed under the MIT license.\n",
        "// Commercial use is prohibited.\n",
        "/* This file is proprietary. */\n",
        "# Proprietary.\n",
        "/* Use is subject to license terms. */\n",
        " * THIS IS UNPUBLISHED PROPRIETARY SOURCE CODE OF FOO\n",
        "# You need a license to use this file.\n",
        "# License: Commercial, see foo.example/license\n",
        "/** @license Commercial */\n",
        "# NOT licensed under MIT\n",
        "# All files but this one are under the MIT License.\n",
        "# The tests are MIT licensed, this file is not.\n",
        "# It is forbidden to use this file under the MIT License.\n",
        "# Will be released under the MIT license in 2030.\n",
        "# TODO: release this under the MIT license one day\n",
        "# License: MIT for students\n",
        "# Our competitors are licensed under the Apache License 2.0; we are not.\n",
        '# Licensed under the Confluent Community License (the "License"); you may not use this file except in\n'
        "# compliance with the License.\n",
        "# Licensed under the Foo Enterprise License, see ee/LICENSE\n",
        "# Use is governed by a commercial license that can be found in the LICENSE-EE file.\n",
        "# Licensed under the Timescale License, see LICENSE-TIMESCALE for details.\n",
        "// SPDX-License-Identifier: Acme-1.0\n",
        "// SPDX-License-Identifier: NONE\n",
        "// SPDX-License-Identifier: UNLICENSED\n",
    ],
)
def test_a_licence_that_nobody_recognises_is_unknown(content: str) -> None:
    found = one(content)
    assert found is not None and found["kind"] == "unknown" and found["expression"] is None


@pytest.mark.parametrize(
    "content",
    [
        "# This module is GPL-compatible.\n",
        "# This license is compatible with the GPL.\n",
        "# The license of a plugin must be compatible with the\n# GNU General Public License version 2.\n",
        "// used under a GPLv2-compatible license\n",
        "# Free software licenses: compatible with both GPLv2 and LGPL-2.1\n",
    ],
)
def test_what_a_licence_is_compatible_with_is_no_licence_of_the_file(content: str) -> None:
    found = one(content)
    assert found is None or found["expression"] is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("# License: GPL-compatible\n", "unknown"),
        ("# Licensed under the MIT license, which is compatible with the GPL.\n", "MIT"),
        ("# License: Python (GPL-compatible)\n", "Python-2.0"),
        ("# Licensed under the GPL v2 (compatible with GPL v3)\n", "GPL-2.0-only"),
        ("# License: GPL-3.0\n# Compatible with the Apache License 2.0.\n", "GPL-3.0-only"),
        ("# License: GPL-3.0 compatible with the Apache License\n", "GPL-3.0-only"),
        (lines("#")(GPL3 + "It is compatible with the MIT license.\n"), "GPL-3.0-or-later"),
    ],
)
def test_a_licence_beside_what_it_is_compatible_with_stays(content: str, expected: str) -> None:
    assert said(content) == expected


@pytest.mark.parametrize(
    ("content", "family"),
    [
        ("# License: MIT-style\n", "MIT"),
        ("# License: BSD Style\n", "BSD-3-Clause"),
        ("# License: BSD-like\n", "BSD-3-Clause"),
        ("# License: MIT-ish\n", "MIT"),
        ("# License: MIT/X11-like\n", "MIT"),
        ("# Licensed under an MIT-style license.\n", "MIT"),
        ("# Released under a BSD-like license\n", "BSD-3-Clause"),
        ("# Licensed under a GPL-like license\n", "GPL-1.0-or-later"),
    ],
)
def test_a_licence_that_the_files_is_like_is_a_mention(content: str, family: str) -> None:
    found = one(content)
    assert found is not None and (found["kind"], found["expression"]) == ("mention", family)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("// Use of this source code is governed by a BSD-style\n// license that can be found in the LICENSE file.\n", "BSD-3-Clause"),
        ("// Use of this source code is governed by an MIT-style\n// license that can be found in the LICENSE file.\n", "MIT"),
        ("# Licensed under a BSD-style license, see LICENSE.\n", "BSD-3-Clause"),
        ("# Licensed under an MIT-style license:\n#\n" + lines("#")(MIT_TEXT), "MIT"),
        ("# SPDX-License-Identifier: MIT\n# An MIT-style license.\n", "MIT"),
    ],
)  # fmt: skip
def test_a_licence_like_one_whose_text_is_there_or_pointed_to_is_stated(content: str, expected: str) -> None:
    found = one(content)
    assert found is not None and (found["kind"], found["expression"]) == ("license", expected)


@pytest.mark.parametrize("value", ["MIT-style", "BSD-like", "MIT-ish", "GPL-compatible", "Apache-compatible"])
def test_a_tag_that_names_what_its_licence_is_like_is_not_understood(value: str) -> None:
    assert "unknown" in str(said(f"# SPDX-License-Identifier: {value}\n"))


def test_what_a_tag_says_beyond_what_is_known_is_not_lost() -> None:
    unknown = "LicenseRef-scancode-unknown-spdx"
    assert said("# SPDX-License-Identifier: Acme-1.0\n" + lines("#")(MIT_TEXT)) == f"{unknown} AND MIT"
    assert said("# SPDX-License-Identifier: MIT NON-AI\n") == f"{unknown} AND MIT"
    assert said("# SPDX-License-Identifier: Apache License 2.0\n") == "Apache-2.0"
    assert said("# SPDX-License-Identifier: MIT (see LICENSE)\n") == "MIT"
    assert said("# SPDX-License-Identifier: GPL-2.0 OR Acme-1.0\n") == f"GPL-2.0-only OR {unknown}"
    assert said("# SPDX-License-Identifier: LicenseRef-Acme\n") == "LicenseRef-Acme"
    assert said("# SPDX-License-Identifier: NOASSERTION\n") is None


@pytest.mark.parametrize(
    "content",
    [
        "/* foo.c - main engine\n * The quick sort below is taken from libbar, which is released under the MIT license.\n */\n",
        "// Uses jQuery (MIT license)\n",
        "# Depends on libfoo (MIT license) and libbar (BSD license)\n",
        "# Based on example code\n# Licensed under the Apache License, Version 2.0\n",
        "1.2: relicensed the examples under the MIT license\n",
        "// The original was released under the MIT license.\n",
        "/* Includes the tar reader of libfoo:\n * " + MIT_TEXT.replace("\n", "\n * ") + "\n */\n",
    ],
)
def test_what_is_said_of_other_peoples_code_is_a_mention(content: str) -> None:
    found = one(content)
    assert found is not None and found["kind"] == "mention" and found["expression"]


@pytest.mark.parametrize(
    "content",
    [
        "// MIT License\n", "# License: BSD3\n", "# License: MIT (see the file beside this one)\n",
        "/* This file is part of Foo.\n * Licensed under the Apache License, Version 2.0. */\n",
        "# SPDX-License-Identifier: MIT\n# Uses jQuery (MIT license)\n",
        "// Licensed under the MIT license.\n\nint x = 1;\n\n// Uses libfoo (BSD license)\n",
    ],
)  # fmt: skip
def test_a_files_own_licence_is_no_mention(content: str) -> None:
    found = one(content)
    assert found is not None and found["kind"] == "license"


def test_what_nobody_recognises_counts_beside_a_licence_in_another_comment() -> None:
    assert said("// MIT License\n\nint x = 1;\n\n// Do not distribute.\n") == f"{UNKNOWN} AND MIT"


def test_two_licences_in_one_head_are_both_kept() -> None:
    both = lines("//")(MIT_TEXT + "\n" + GPL3)
    assert said(both) == "GPL-3.0-or-later AND MIT"
    apart = (
        lines("//")(APACHE)
        + "\nint x = 1;\n\n"
        + lines("//")("Derived from y, which is " + GPL3.replace("This program", "y"))
    )
    found = said(apart)
    assert found is not None and "Apache-2.0" in found and "GPL-3.0-or-later" in found
    assert said("# SPDX-License-Identifier: MIT\n" + lines("#")(GPL3)) == "GPL-3.0-or-later AND MIT"
    assert (
        said("// SPDX-License-Identifier: MIT\n\n// SPDX-License-Identifier: GPL-2.0-only\n") == "GPL-2.0-only AND MIT"
    )


def test_a_tag_explains_the_texts_below_it() -> None:
    """Both texts under `MIT OR GPL` do not make it `MIT AND GPL`; a third one counts."""
    tag = "// SPDX-License-Identifier: MIT OR GPL-3.0-or-later\n"
    assert said(tag + lines("//")(MIT_TEXT + "\n" + GPL3)) == "MIT OR GPL-3.0-or-later"
    assert said(tag + lines("//")(APACHE)) == "(MIT OR GPL-3.0-or-later) AND Apache-2.0" or said(
        tag + lines("//")(APACHE)
    ) == ("Apache-2.0 AND (MIT OR GPL-3.0-or-later)")


def test_snippets_do_not_speak_for_the_file() -> None:
    snippet = "# SPDX-SnippetBegin\n# SPDX-License-Identifier: GPL-2.0-only\n# SPDX-SnippetEnd\n"
    assert said("# SPDX-License-Identifier: MIT\n\nx = 1\n\n" + snippet) == "MIT"
    assert one(snippet) is None
    assert one("# REUSE-IgnoreStart\n# SPDX-License-Identifier: MIT\n# REUSE-IgnoreEnd\n") is None
    assert said("# REUSE-IgnoreStart\n# SPDX-License-Identifier: MIT\n") == "MIT"
    assert said(snippet + "# SPDX-License-Identifier: ISC\n") == "ISC"


@pytest.mark.parametrize(
    ("rider", "key"),
    [
        ("This code may not be used to train artificial intelligence computer models.", "no-training"),
        ("Commercial use of this file requires an agreement with its authors.", "non-commercial"),
    ],
)
def test_a_rider_below_a_permissive_text_is_kept(rider: str, key: str) -> None:
    found = said(lines("//")(MIT_TEXT + "\n" + rider) + "int x;\n")
    assert found is not None and f"LicenseRef-stackbuild-{key}" in found and "MIT" in found


def test_the_evidence_says_where_it_stands() -> None:
    content = "#!/bin/sh\n# tool - does things\n#\n# Copyright 2020 Ada\n\n# SPDX-License-Identifier: MIT\necho\n"
    found = one(content)
    assert found is not None
    assert (found["first_line"], found["last_line"]) == (6, 6)
    assert content.encode()[found["start"] : found["end"]] == b"# SPDX-License-Identifier: MIT"
    content = "// é\r\n" + lines("//")(GPL3).replace("\n", "\r\n") + "int x;\r\n"
    found = one(content)
    assert found is not None and found["rule"] and found["score"] == 1.0 and found["engine"].startswith("scancode")
    text = content.encode()[found["start"] : found["end"]].decode()
    assert text.startswith("// This program is free software") and found["first_line"] == 2
    assert content.splitlines()[found["first_line"] - 1 : found["last_line"]] == text.split("\r\n")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_any_encoding(encoding: str) -> None:
    text = "// Licence é\n// SPDX-License-Identifier: GPL-2.0-only\nint x;\n"
    raw = text.encode(encoding)
    found = one(raw)
    assert found is not None and found["expression"] == "GPL-2.0-only"
    assert "SPDX-License-Identifier: GPL-2.0-only" in raw[found["start"] : found["end"]].decode(
        encoding.replace("-sig", "")
    ).strip("\x00")


def test_a_notice_that_begins_in_the_head_is_read_to_its_end_and_what_begins_later_is_not() -> None:
    filling = "# " + "x" * 60 + "\n"
    below = filling * (4_096 // len(filling) + 1)
    assert one(below + "# SPDX-License-Identifier: MIT\n") is None
    long = lines("#")("Copyright 2020 Ada\n\n" + "\n".join(f"word {n} of permission" for n in range(200)) + "\n" + GPL3)
    assert len(long) > 4_096 and said(long) == "GPL-3.0-or-later"
    huge = lines("#")(
        "Copyright 2020 Ada\n\n" + "\n".join(f"word {n} of permission" for n in range(1_000)) + "\n" + GPL3
    )
    assert len(huge) > 20_000 and said(huge) != "GPL-3.0-or-later"


def test_files_that_share_a_notice_share_one_form(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real = headers.read_form
    monkeypatch.setattr(headers, "read_form", lambda form, *rest: calls.append(form) or real(form, *rest))
    files = [
        wrap(APACHE.replace("2020 The Example", f"{year} Some Other")) + code
        for year, (wrap, code) in enumerate(COMMENTS.values(), 1990)
    ]
    found = Headers().scan(pa.array([file.encode() for file in files], pa.large_binary())).to_pylist()
    assert [row["expression"] for row in found] == ["Apache-2.0"] * len(files) and len(set(calls)) <= 8


def test_the_answer_does_not_depend_on_what_was_met_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "CACHED", 3)  # emptied again and again
    notices = (GPL3, APACHE, MIT_TEXT, "See LICENSE.\n", "Licensed under the Frob terms.\n", "Copyright 2020 Ada\n")
    files = [wrap(notice) + code for wrap, code in list(COMMENTS.values())[:8] for notice in notices]
    contents = pa.array([file.encode() for file in files], pa.large_binary())
    scanner = Headers()
    together = scanner.scan(contents).to_pylist()
    assert scanner.scan(contents.take(pa.array(np.arange(len(files))[::-1]))).to_pylist() == together[::-1]
    assert [one(file) for file in files] == together
    assert len(scanner._forms) <= 3 and len(scanner._notices) <= 3


@pytest.mark.parametrize("type_", [pa.binary(), pa.large_binary(), pa.string(), pa.large_string()])
def test_arrow_arrays_of_any_kind(type_: pa.DataType) -> None:
    values = [
        "// SPDX-License-Identifier: MIT\n",
        None,
        "",
        "x = 1\n",
        "# GNU GPL v2\n# SPDX-License-Identifier: ISC\n",
    ]
    array = pa.array([v.encode() if v is not None and "binary" in str(type_) else v for v in values], type_)
    want = ["MIT", None, None, None]
    assert [row and row["expression"] for row in Headers().scan(array).to_pylist()][:4] == want
    assert [row and row["expression"] for row in Headers().scan(array.slice(1)).to_pylist()][:3] == want[1:]
    chunked = pa.chunked_array([array.slice(0, 2), array.slice(2)])
    assert Headers().scan(chunked).to_pylist() == Headers().scan(array).to_pylist()
    assert Headers().scan(pa.array([], type_)).type == HEADER


@pytest.mark.parametrize(
    "content",
    [
        b"// license MIT " + b"x" * 1_000_000,
        b"/* " + b"license " * 200_000,
        b"license" * 200_000,
        b"\0" * 100_000 + b"license",
        b"// license \0\0\0 MIT\n",
        b"# SPDX-License-Identifier: " + b"MIT OR " * 10_000 + b"MIT\n",
        b"# SPDX-License-Identifier: " + b"(" * 4_000 + b"\n",
        b"# SPDX-License-Identifier: " + b"(MIT OR " * 500 + b"MIT" + b")" * 500 + b"\n",
        b"# SPDX-License-Identifier:\n# SPDX-License-Identifier: \\\n# SPDX-License-Identifier: AND\n",
        b"\n" * 100_000 + b"license",
        b"//license\n" * 2_000,
        b"\xff\xfe" + "license MIT ".encode("utf-16-le") * 20_000,
        b"\xff\xfe\0", b"\xef\xbb\xbf", b"\xff", b"a", b"\0a\0a\0a\0a", bytes(range(256)) * 64,
        b"copyright (c) " * 30_000, b"<p " * 10_000 + b"license", b"see " * 4_000 + b"license", b"*/" * 8_000, b"/*" * 8_000,
        b"licensed under " + b"see in " * 2_000,
    ],
)  # fmt: skip
def test_hostile_files_are_read_within_bounds(content: bytes) -> None:
    found = one(content)
    assert found is None or (
        0 <= found["start"] < found["end"] <= len(content) and found["first_line"] <= found["last_line"]
    )


def test_a_nul_does_not_hide_a_notice() -> None:
    assert said(b"// \0 x\n" + lines("//")(GPL3).encode()) == "GPL-3.0-or-later"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "licen",
                "se ",
                "copyright",
                "\n",
                "// ",
                "/*",
                "*/",
                "MIT",
                "SPDX-License-Identifier: ",
                " ",
                "\0",
                "é",
                "(",
                '"',
                "=",
                "<!--",
                "-->",
                "GPL",
                "{-",
                "\r",
                "permission ",
            ]
        ),
        max_size=60,
    )
)
def test_any_text_has_a_span_inside_it(words: list[str]) -> None:
    raw = "".join(words).encode()
    found = one(raw)
    if found is not None:
        assert 0 <= found["start"] <= found["end"] <= len(raw)
        assert 1 <= found["first_line"] <= found["last_line"] <= raw.count(b"\n") + raw.count(b"\r") + 1
        assert (found["kind"] in ("license", "mention")) == (found["expression"] is not None)


def test_an_engine_that_fails_leaves_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fails:
        def match(self, query_string: str, approximate: bool) -> list[Any]:
            raise RecursionError

    monkeypatch.setattr(scancode, "index_", Fails)
    assert said("// SPDX-License-Identifier: MIT\n// licensed under x\n") == "MIT"


def test_the_form_has_no_comment_signs_holders_or_names() -> None:
    raw = [
        "/* file: x.c",
        " * Copyright (C) 2020 Ada",
        " *   All rights reserved.",
        " *",
        " * Licensed  under the <b>MIT</b> License. */",
    ]
    assert header_form(raw) == [(4, "licensed under the mit license.")]
    assert header_form(["C     licensed", "C", "C     under"]) == [(0, "licensed"), (2, "under")]
    assert header_form(["GPLv2+"]) == [(0, "gplv2+")]
