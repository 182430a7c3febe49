"""Licence headers do not make files alike; no other leading comment is left out."""

from __future__ import annotations

import numpy as np
import pytest

from stackbuild.dedup.headers import HEADERS, kept_spans

LEFT_OUT = [
    "// Copyright 2024 A\n// more\n",
    "/* Licensed under X */",
    "/*\n * (c) someone\n * SPDX-License-Identifier: MIT\n */",
    "# -*- coding: utf-8 -*-\n# COPYRIGHT x\n",
    "#!/usr/bin/env python\n# licence\n",
    "-- the license\n--\n",
    ";; License\n",
    "% spdx\n",
    "<!-- license -->",
    "{- Copyright -}",
    "(* Copyright *)",
    "  // Copyright\n\t// indented\r\n",
]


def kept(text: bytes, header_blind: bool = True) -> bytes:
    spans = np.zeros((HEADERS + 1, 2), np.int64)
    data = np.frombuffer(b"//" + text + b"*/", np.uint8)  # neighbours in the buffer must not be seen
    count = kept_spans(data, 2, 2 + len(text), header_blind, spans)
    return b"".join(data[a:b].tobytes() for a, b in spans[:count])


@pytest.mark.parametrize("header", LEFT_OUT)
def test_a_licence_comment_is_left_out(header):
    assert kept(header.encode() + b"code = license").strip() == b"code = license"
    assert kept(header.encode() + b"code", header_blind=False) == header.encode() + b"code"


@pytest.mark.parametrize(
    "text",
    [
        "// Package x does y.\ncode",
        '"""Copyright in a docstring."""\ncode',
        "code /* copyright */",
        "/* copyright, never closed\ncode",
        "#include <license.h>\n#define X\n",
        "#ifndef LICENSE_H\n#define LICENSE_H\n",
        "#![license]\nfn main() {}",
        "#[doc = \"copyright\"]\nfn main() {}",
        "licence\n",
        "/ copyright",
        "",
        "/",
        "<!-",
        "\x00// copyright\n",
    ],
)  # fmt: skip
def test_everything_else_stays(text):
    assert kept(text.encode()) == text.encode()


def test_other_comments_between_licences_stay():
    text = b"// Copyright A\n\n// Package x.\n\n/* SPDX */\ncode // license"
    assert kept(text).split() == b"// Package x. code // license".split()


def test_byte_order_marks_and_openers_are_passed():
    assert kept(b"\xef\xbb\xbf// license\ncode") == b"\xef\xbb\xbfcode"
    assert kept(b"<?php\n/* license */ code") == b"<?php\n code"
    assert kept(b'<?xml version="1.0"?>\n<!-- license --><a/>') == b'<?xml version="1.0"?>\n<a/>'


def test_a_comment_to_the_end_of_the_file():
    assert kept(b"# license") == b""
    assert kept(b"/* license */") == b""


def test_many_headers_end_at_the_cap():
    text = b"/* license */\n" * (HEADERS + 3)
    assert kept(text).count(b"license") == 3
