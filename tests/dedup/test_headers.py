"""Licence headers do not make files alike; no other leading comment is left out."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from stackbuild.dedup import headers
from stackbuild.dedup.headers import HEADERS, kept_spans, licence_headers

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

STAYS = [
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
]  # fmt: skip


def kept(text: bytes, header_blind: bool = True) -> bytes:
    spans = np.zeros((HEADERS + 1, 2), np.int64)
    data = np.frombuffer(b"//" + text + b"*/", np.uint8)  # neighbours in the buffer must not be seen
    count = kept_spans(data, 2, 2 + len(text), header_blind, spans)
    return b"".join(data[a:b].tobytes() for a, b in spans[:count])


@pytest.mark.parametrize("header", LEFT_OUT)
def test_a_licence_comment_is_left_out(header):
    assert kept(header.encode() + b"code = license").strip() == b"code = license"
    assert kept(header.encode() + b"code", header_blind=False) == header.encode() + b"code"


@pytest.mark.parametrize("text", STAYS)
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


def test_texts_with_a_licence_header_are_told():
    """Those of which `kept_spans` leaves anything out; a comment that stays before it, or code after it, changes nothing."""
    with_one = [
        *LEFT_OUT,
        *(text + "code" for text in LEFT_OUT),
        "// Package x.\n\n/* SPDX */ code",
        "/* license */" * 20,
    ]
    texts = [text for pair in zip(with_one, STAYS * 3, strict=False) for text in pair]
    expected = [True, False] * (len(texts) // 2)
    assert [len(kept(text.encode())) < len(text.encode()) for text in texts] == expected
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        found = licence_headers(pa.array([None, *texts, "", None], kind))
        assert (found.dtype, found.tolist()) == (np.bool_, [False, *expected, False, False])
    assert licence_headers(pa.chunked_array([texts[:5], texts[5:]]).slice(3, 9)).tolist() == expected[3:12]
    assert licence_headers(pa.array([], pa.large_string())).shape == (0,)
    made = pa.array([b"# licence", b"licence"], pa.large_binary())
    _, offsets, data = made.buffers()
    read = pa.Array.from_buffers(made.type, 2, [None, *(pa.py_buffer(part.to_pybytes()) for part in (offsets, data))])
    assert licence_headers(made).tolist() == licence_headers(read).tolist() == [True, False]
    assert len(headers._with_headers.signatures) == 1  # compiled once for buffers that were read and that were made
