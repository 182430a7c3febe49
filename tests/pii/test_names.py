"""Names: on the lines where code has them, of two words, nobody's firm; what stays of headers; user names."""

from __future__ import annotations

import pyarrow as pa
import pytest

from stackbuild.pii import rules
from stackbuild.pii.detection import Detection, Rules
from stackbuild.pii.headers import Headers, first_comment
from stackbuild.pii.replacements import PSEUDONYM_NAMES, PSEUDONYM_USERS
from stackbuild.pii.spans import Texts

BOOK = rules.load()


def detection(entities: list[str], headers: Headers = "keep_names") -> Detection:
    return Detection({"rules": Rules(BOOK, entities)}, headers)


NAMES = detection(["NAME"])
USERS = detection(["USERNAME"])


def found(text: str, of: Detection = NAMES) -> list[str]:
    texts = Texts.of(pa.array(["x", text, "y"], pa.large_string()))
    return [texts.read(span.start, span.end).decode() for span in of.spans(texts)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (" * @author Jo van der Berg\n", ["Jo van der Berg"]),
        ("# Authors: Ann Lee, Bo Kim and Cy Fox <cy@firm.com>, Di Roe\n", ["Ann Lee", "Bo Kim", "Cy Fox", "Di Roe"]),
        ("__author__ = 'José Núñez'", ["José Núñez"]),
        ("\\author{Anne-Marie O'Neill}", ["Anne-Marie O'Neill"]),
        ("Signed-off-by: J. R. Doe <j@firm.com>\r\n", ["J. R. Doe"]),
        ("Co-Authored-By: Jo McDonald <jo@firm.com>", ["Jo McDonald"]),
        ("-- Maintainer  :   Иван Петров\n", ["Иван Петров"]),
        ('"author": "Jo Berg <jo@firm.com> (https://jo.dev)",', ["Jo Berg"]),
        ("2001-02-03  Jo Berg  <jo@firm.com>\n", ["Jo Berg"]),
        ("mail jo@firm.com (Jo Berg) for more", ["Jo Berg"]),
        ("张伟 <wei@firm.com>", ["张伟"]),
        ("patch by Jo Berg", ["Jo Berg"]),
        ("author: Minh Nguyễn", ["Minh Nguyễn"]),
        ('authors = [{name = "Jo Berg", email = "jo@firm.com"}]', ["Jo Berg"]),
        ('"author": {"name": "Jo Berg"}', ["Jo Berg"]),
        ('MODULE_AUTHOR("Jo Berg");', ["Jo Berg"]),
        ("Author(s): Dr. Jo Berg", ["Jo Berg"]),
        ("by mail: Jo Berg <mailto:jo@firm.com>", ["Jo Berg"]),
    ],
)
def test_names_are_found_on_their_lines(text: str, names: list[str]) -> None:
    assert found(text) == names


@pytest.mark.parametrize(
    "text",
    [
        "class UserName: Jo Berg wrote nothing here",
        "author = models.CharField(max_length=3)",
        "author: String, title: Some Thing",
        "@author jo",
        "@author The Foo Authors",
        "Author: Google Inc.",
        "created by Create React App",
        "written by Visual Basic",
        "Maintainer: Debian Python Team <team@lists.debian.org>",
        "Author: Your Name <you@firm.com>",
        "authorization: Jo Berg",
        "Bug Reports <bugs@firm.com>",
        "the author of Some Thing",
        "Author: JSON Parser.parse(Jo)",
        "author = Jo",
    ],
)
def test_what_is_no_name_stays(text: str) -> None:
    assert [name for name in found(text) if name != "JSON Parser.parse"] == []


HEADER = """/*
 * Copyright (c) 2010 Jo Berg <jo@firm.com>
 *                    Ann Lee
 *
 * Author: Bo Kim
 * Licensed under the MIT license.
 */
int x; // author: Cy Fox
"""


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ("keep_names", ["jo@firm.com", "Cy Fox"]),
        ("keep_all", ["Cy Fox"]),
        ("redact", ["Jo Berg", "jo@firm.com", "Bo Kim", "Cy Fox"]),
    ],
)
def test_headers_name_who_wrote_a_work(headers: Headers, expected: list[str]) -> None:
    """Names in licence headers and copyright lines stay unless the recipe says otherwise; addresses there go."""
    assert found(HEADER, detection(["NAME", "EMAIL"], headers)) == expected


def test_a_key_in_a_header_goes_whatever_stays_of_it() -> None:
    key = "ghp_" + "".join(chr(97 + k * 7 % 26) + str(k % 10) for k in range(18))
    assert found(f"# Copyright 2010 Jo Berg, token {key}\n", detection(["NAME", "KEY"], "keep_all")) == [key]


def test_a_copyright_line_further_down_is_protected_with_what_continues_it() -> None:
    text = "x = 1\n\n# (c) 2012 by\n#  Jo Berg <jo@firm.com>\n#\n# Ann Lee <ann@firm.com>\n"
    assert found(text) == ["Ann Lee"]


def test_a_first_comment_without_licence_is_no_header() -> None:
    assert found("# Helpers.\n# Author: Jo Berg\nx = 1\n") == ["Jo Berg"]


@pytest.mark.parametrize(
    ("text", "comment"),
    [
        ("#!/bin/sh\n# a\n\nset -e\n", "#!/bin/sh\n# a\n\n"),
        ("/* a\n b */\nint x;\n", "/* a\n b */\n"),
        ("<!-- a\nb -->\n<html>", "<!-- a\nb -->\n"),
        ('"""a\nb"""\nimport x\n', '"""a\nb"""\n'),
        ("{- a\n-}\nmodule X", "{- a\n-}\n"),
        ("\ufeff// a\nx", "\ufeff// a\n"),
        ("<?php\n/**\n * a\n */\nclass X", "<?php\n/**\n * a\n */\n"),
        ("int x; /* a */\n", ""),
        ("/* never closed\nx\n", "/* never closed\nx\n"),
        ("", ""),
    ],
)
def test_the_comment_that_begins_a_file(text: str, comment: str) -> None:
    assert first_comment(text.encode()) == len(comment.encode())


@pytest.mark.parametrize(
    ("text", "users"),
    [
        ("/home/jberg/src/x.c", ["jberg"]),
        ("C:\\Users\\jberg\\x", ["jberg"]),
        ('"C:\\\\Users\\\\jberg"', ["jberg"]),
        ("/Users/jberg", ["jberg"]),
        ("// TODO(jberg): mend", ["jberg"]),
        ("# fixme(jberg@firm.com): mend", ["jberg"]),
        ("/home/user/x /home/ubuntu /home/runner/work /home/$USER /home/<name>/x", []),
        ("todo(x, y) TODO(b/123456) todo(jberg", []),
        ("app/home/index.html", []),
    ],
)
def test_user_names(text: str, users: list[str]) -> None:
    assert found(text, USERS) == users


def test_replacements_are_no_names() -> None:
    for value in (*PSEUDONYM_NAMES, "<NAME>"):
        for text in (f"@author {value}\n", f"{value} <jo@example.com>", f"jo@example.com ({value})"):
            assert found(text) == [], text
    for value in (*PSEUDONYM_USERS, "<USERNAME>"):
        assert found(f"/home/{value}/x TODO({value}): x C:\\Users\\{value}\\x", USERS) == [], value


def test_no_name_is_cut_in_half() -> None:
    """What touches the end of what is looked at, or a letter of another alphabet, stays whole."""
    line = "authors: " + ", ".join(f"Jo{chr(97 + k % 26)} Berg{chr(97 + k // 26)}" for k in range(60))
    assert all(name in line.split(": ")[1].split(", ") for name in found(line + "\n"))
    assert found("author: Jo Bergḁ漢") == []
    assert found("x" * 50 + " Anna " + "Maria" * 25 + " Berg <a@firm.com>") in ([], ["Anna " + "Maria" * 25 + " Berg"])
