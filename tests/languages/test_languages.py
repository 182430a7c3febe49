"""Languages: the short way gives enry's answers, and names and texts from strangers do no harm."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.languages import languages
from stackbuild.languages.languages import Detector, ForkedEnry, LanguageOptions, Languages, heads_of, may_have_modeline
from stackbuild.stage import judge, with_columns


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


def tagged(files: list[tuple[bytes, str | None]], **options: object) -> pa.RecordBatch:
    batch = pa.record_batch(
        {
            "path_bytes": pa.array([path for path, _ in files], pa.binary()),
            "text": pa.array([text for _, text in files], pa.large_string()),
        }
    )
    return with_columns(batch, Languages(LanguageOptions.model_validate(options)).tags(batch))


def installed(share: int) -> Iterator[tuple[str, bytes]]:
    """Files of the environment with their first 16 KiB of text: one in `share`, chosen by a hash of the path."""
    roots = {Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("stdlib"))}
    for root in sorted(roots):
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                path = os.path.relpath(os.path.join(folder, name), root)
                if hashlib.sha1(path.encode("utf-8", "surrogateescape")).digest()[0] * share < 256:
                    with open(os.path.join(folder, name), "rb") as file:
                        head = file.read(16_384).decode("utf-8", "ignore").encode()
                    if b"\0" not in head:
                        yield path.encode("utf-8", "replace").decode(), head


def answers(detector: Detector, path: str, head: bytes) -> set[str | None]:
    """What enry may say: one language, or one of those that its classifier finds alike (it draws)."""
    several = len(detector.enry.get_languages(path, head)) > 1
    return {detector.enry.get_language(path, head) or None for _ in range(50 if several else 1)}


def same(detector: Detector, files: Iterator[tuple[str, bytes]]) -> int:
    n = 0
    for path, head in files:
        assert detector.language(path, head) in answers(detector, path, head), path
        n += 1
    return n


def test_the_short_way_equals_enry_on_installed_files(detector: Detector) -> None:
    assert same(detector, installed(16)) > 500


@pytest.mark.slow
def test_the_short_way_equals_enry_on_every_installed_file(detector: Detector) -> None:
    assert same(detector, installed(1)) > 10_000


NAMES = [
    *(
        "a.py",
        "b.js",
        "c.go",
        "d.h",
        "e.pl",
        "Makefile",
        "Dockerfile",
        "x",
        "y.",
        ".bashrc",
        "CMakeLists.txt",
        "f.d.ts",
    ),
    *("g.tar.gz", "A.PY", "k.İ", "m.php", "n.md", "o.sql", "p.unknown", "dir.py/q", "r.rs", "s.html.erb", "t.R"),
]
LINES = [
    *(
        "x = 1",
        "#!/bin/sh",
        "#!/usr/bin/env python3.11",
        "# -*- mode: ruby -*-",
        "-*- c -*-",
        "/* vim: set ft=ruby : */",
    ),
    *(
        "# vim: filetype = perl",
        " ex: syntax=haskell",
        "vi:noai:ft=c",
        "vim600: set Syntax=go",
        "",
        "\t",
        "-*-",
        "vim:",
    ),
    *("<?xml version='1.0'?>", "ft=", "// vim: set ſyntax=lua:", "class A {", "\r", "%%", "@interface A : B"),
]


@given(st.sampled_from(NAMES), st.lists(st.sampled_from(LINES) | st.text(max_size=12), max_size=16), st.booleans())
@settings(max_examples=400, deadline=None)
def test_the_short_way_equals_enry_whatever_the_lines(name: str, lines: list[str], end: bool) -> None:
    head = ("\n".join(lines) + "\n" * end).replace("\0", "").encode("utf-8", "ignore")
    detector = Detector()
    assert detector.language(name, head) in answers(detector, name, head)


@pytest.mark.parametrize(
    "name, head, language", [("a.cls", b"", "Apex"), ("a.k", b"x\n", "KCL"), ("a.q", b"\n", "HiveQL")]
)
def test_where_enry_draws_between_languages_we_take_the_first_by_name(
    detector: Detector, name: str, head: bytes, language: str
) -> None:
    assert len(answers(detector, name, head)) > 1
    assert {detector.language(name, head) for _ in range(20)} == {language}


def test_draws_end_when_the_first_by_name_of_all_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is drawn first and however late: the least of what can be drawn, in no more than TIE_CALLS calls."""
    detector = Detector()
    for order, calls in ((["B", "A", "C"], [*"BBBA", *"BA" * 200]), (["A", "B"], []), (["C", "A"], ["C"] * 100)):
        left = list(calls)
        monkeypatch.setattr(detector.enry, "get_languages", lambda path, head, order=order: order)
        monkeypatch.setattr(detector.enry, "get_language", lambda path, head, left=left: left.pop(0))
        drawn = {order[0], *calls[:100]}
        assert detector.language("no name", b"x") == min(drawn)
        assert len(calls) - len(left) <= languages.TIE_CALLS
    assert left == []


def test_what_is_remembered_is_bounded_and_the_answers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(languages, "REMEMBERED", 2)
    detector = Detector()
    paths = ["a.py", "node_modules/a.js", "b.go", "c.java", "vendor/d.go", "a.py", "node_modules/a.js"]
    named = ["Python", "JavaScript", "Go", "Java", "Go", "Python", "JavaScript"]
    for _ in range(2):
        enry = languages.enry()
        assert [detector.flags(path) for path in paths] == [
            (enry.is_vendor(path), enry.is_documentation(path), enry.is_test(path)) for path in paths
        ]
        assert [detector.language(path, b"x") for path in paths] == named
        assert len(detector._of_path) <= 2 and len(detector._by_name) <= 2 and len(detector._by_extension) <= 2


@given(st.lists(st.sampled_from(LINES) | st.just("x: y"), max_size=20))
@settings(max_examples=400, deadline=None)
def test_no_modeline_is_missed(lines: list[str]) -> None:
    head = "\n".join(lines).encode()
    if languages.enry().get_language_by_modeline(head).language:
        assert may_have_modeline(head)


def test_a_modeline_in_the_middle_of_a_long_file_does_not_count(detector: Detector) -> None:
    lines = [b"x = 1"] * 30
    lines[15] = b"# vim: ft=ruby :"
    assert not may_have_modeline(b"\n".join(lines))
    assert detector.language("a.py", b"\n".join(lines)) == "Python"
    assert detector.language("a.py", b"\n".join([*lines, b"# vim: ft=ruby :"])) == "Ruby"


def test_language_vendor_and_generated_of_the_whole_path() -> None:
    batch = tagged(
        [
            (b"src/a.py", "x = 1\n"),
            (b"node_modules/a/index.js", "var x;\n"),
            (b"a.go", "// Code generated by protoc. DO NOT EDIT.\npackage a\n"),
            (b"no_idea", "some words\n"),
            (b"script", "#!/usr/bin/env ruby\n"),
            (b"package-lock.json", "{}\n"),
            (b"Makefile", ""),
            (b"docs/conf.py", "x = 1\n"),
            (b"tests/test_a.py", "x = 1\n"),
        ]
    )
    named = ["Python", "JavaScript", "Go", None, "Ruby", "JSON", "Makefile", "Python", "Python"]
    assert batch["language"].to_pylist() == named
    assert np.flatnonzero(batch["is_vendor"]).tolist() == [1]
    assert np.flatnonzero(batch["is_generated"]).tolist() == [1, 2, 5]
    assert np.flatnonzero(batch["is_documentation"]).tolist() == [7]
    assert np.flatnonzero(batch["is_test"]).tolist() == [8]


def test_unknown_languages_leave_unless_they_are_kept() -> None:
    files: list[tuple[bytes, str | None]] = [(b"a.py", "x"), (b"no_idea", "words")]
    batch = tagged(files)
    _, left = judge(Languages().verdicts(batch), 2)
    assert [(gone.verdict.rule, gone.rows.to_pylist()) for gone in left] == [("no_language", [1])]
    assert judge(Languages(LanguageOptions(unknown="keep")).verdicts(batch), 2)[1] == []


def test_names_that_are_not_text_are_read_all_the_same() -> None:
    batch = tagged(
        [(b"caf\xe9/\xff.py", "x"), (b"a\0b.py", "x"), (b"\xed\xa0\x80.c", "x"), (b"a\nb.rb", "x"), (b"/abs.go", None)]
    )
    assert batch["language"].to_pylist() == ["Python", "Python", "C", "Ruby", "Go"]
    assert tagged([(b"", "x")])["language"].to_pylist() == [None]


def test_a_long_line_costs_no_more_than_its_head() -> None:
    batch = tagged([(b"x.m", "[" + "a b: c; " * 6_000_000 + "]")])  # 48 MB; enry takes a minute for all of it
    assert batch["language"].to_pylist()[0] is not None


@given(st.lists(st.text(max_size=300), max_size=4), st.integers(1, 600))
@settings(deadline=None)
def test_heads_end_at_a_character(texts: list[str], size: int) -> None:
    array = pa.array(["zz", *texts, None], pa.large_string()).slice(1)
    for text, head in zip([*texts, ""], heads_of(array, size), strict=True):
        assert text.startswith(head.decode())
        assert len(head) == len(text.encode()) or size - 4 < len(head) <= size


def test_enry_is_refused_in_a_forked_child() -> None:
    languages.enry()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            languages.enry()
        except ForkedEnry:
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_a_stage_travels_to_another_process_without_the_library() -> None:
    stage = Languages()
    batch = pa.record_batch({"path_bytes": pa.array([b"a.py"]), "text": pa.array(["x"], pa.large_string())})
    stage.tags(batch)
    again = pickle.loads(pickle.dumps(stage))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(again.tags, (batch,))["language"].to_pylist() == ["Python"]
