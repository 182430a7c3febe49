"""What the engines make of licence texts. One load of ScanCode's index for all of them."""

from __future__ import annotations

from typing import Any

import pytest

from stackbuild.licenses import detect, scancode
from stackbuild.licenses.detect import Answer, Detector, combined, detect_form
from stackbuild.licenses.expression import plain_key
from stackbuild.licenses.scancode import UNKNOWN, UNKNOWN_REFERENCE, spdx_expression, stands_for_a_license, windows
from stackbuild.licenses.text import normal_form
from tests.worlds import GPL, MIT


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    detect.warm()


@pytest.fixture
def detector() -> Detector:
    return Detector()


@pytest.mark.parametrize(
    ("scancode_key", "keys"),
    [
        ("apache-2.0", {"Apache-2.0"}),
        ("bsd-new", {"BSD-3-Clause"}),
        ("bsd-simplified", {"BSD-2-Clause"}),
        ("isc", {"ISC"}),
        ("mpl-2.0", {"MPL-2.0"}),
        ("unlicense", {"Unlicense"}),
        ("cc0-1.0", {"CC0-1.0"}),
        ("epl-2.0", {"EPL-2.0"}),
        ("lgpl-2.1", {"LGPL-2.1-only"}),
        ("gpl-3.0", {"GPL-3.0-only"}),
        ("agpl-3.0", {"AGPL-3.0-only"}),
        ("gpl-2.0", {"GPL-2.0-only"}),
    ],
)
def test_whole_texts(detector: Detector, text_of: Any, scancode_key: str, keys: set[str]) -> None:
    found = detector.detect(text_of(scancode_key).encode(), True)
    assert (
        set(found.keys) == keys and found.score > 0.7 and found.engine.split()[0] in ("licenseclassifier", "scancode")
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
def test_any_encoding(detector: Detector, encoding: str) -> None:
    assert detector.detect(MIT.encode(encoding), True).keys == ("MIT",)


@pytest.mark.parametrize("content", [b"", b"\0" * 500, b"\x89PNG\r\n\0\0", b"   \n\n", b"nothing to see"])
def test_what_states_nothing_has_no_expression(detector: Detector, content: bytes) -> None:
    found = detector.detect(content, True)
    assert (found.keys, found.expressions, found.score) == ((), (), 0.0) and found.engine


def test_a_choice_stays_a_choice_and_gives_all_its_keys(detector: Detector) -> None:
    found = detector.detect(b"SPDX-License-Identifier: MIT OR GPL-2.0-only\n", False)
    assert found.expressions == ("MIT OR GPL-2.0-only",) and found.keys == ("GPL-2.0-only", "MIT")
    found = detector.detect(b"SPDX-License-Identifier: GPL-2.0-only WITH Classpath-exception-2.0\n", False)
    assert found.keys == ("Classpath-exception-2.0", "GPL-2.0-only")


def test_a_copyleft_licence_beside_a_permissive_one_is_not_lost(detector: Detector, text_of: Any) -> None:
    """One engine answers MIT alone, because the header of the other is less than a quarter of the file."""
    agpl = "The server is under the GNU Affero General Public License version 3.\n"
    found = detector.detect((MIT + "\n" + agpl).encode(), True)
    assert "MIT" in found.keys and any(key.startswith("AGPL-3.0") for key in found.keys)
    assert {"MIT", "GPL-3.0-only"} <= set(detector.detect((MIT + "\n\n" + text_of("gpl-3.0")).encode(), True).keys)


def test_contradictory_headers_give_both(detector: Detector) -> None:
    found = detector.detect(b"SPDX-License-Identifier: MIT\n\nSPDX-License-Identifier: GPL-3.0-or-later\n", True)
    assert found.keys == ("GPL-3.0-or-later", "MIT") and len(found.expressions) == 2


def test_of_two_engines_the_less_permissive_stands() -> None:
    whole, exact = Answer("a", {"MIT": 1.0}), Answer("b", {"MIT": 1.0, "GPL-2.0-only": 0.9})
    assert combined(whole, exact) is exact and combined(exact, whole) is exact
    ruby = Answer("a", {"MIT": 1.0, "Ruby": 1.0, "GPL-2.0-only": 1.0})
    assert combined(ruby, Answer("b", {"MIT": 1.0})) is ruby
    # equally permissive: the whole file's answer, unless the other is verbatim or gives the same in more words
    assert combined(Answer("a", {"HPND": 0.9}), Answer("b", {"MIT": 1.0})).engine == "a"
    assert combined(Answer("a", {"HPND": 0.9}), Answer("b", {"NTP": 1.0}, verbatim=True)).engine == "b"
    assert combined(Answer("a", {"GPL-2.0-only": 0.9}), Answer("b", {"GPL-2.0-or-later": 1.0})).engine == "b"
    assert combined(Answer("a", {"MIT": 1.0}), Answer("b", {UNKNOWN_REFERENCE: 1.0})).engine == "a"


def test_a_reference_to_no_licence_in_particular_is_kept_only_alone(detector: Detector) -> None:
    for text in (b"See LICENSE.md\n", b"Licensed under the terms described in the LICENSE file.\n"):
        assert detector.detect(text, False).keys == (UNKNOWN_REFERENCE,)
    assert detector.detect(
        b"# x\n\nLicensed under the MIT license. See the LICENSE file for details.\n", False
    ).keys == ("MIT",)


@pytest.mark.parametrize(
    ("expression", "stands"),
    [
        ("MIT", True),
        (UNKNOWN_REFERENCE, True),
        ("LicenseRef-scancode-unknown", False),
        ("LicenseRef-scancode-free-unknown", False),
        ("LicenseRef-scancode-warranty-disclaimer", False),
        ("Classpath-exception-2.0", False),
        ("LicenseRef-scancode-dco-1.1", False),
        ("GPL-2.0-only WITH Classpath-exception-2.0", True),
        ("MIT AND LicenseRef-scancode-unknown-spdx", True),
        ("LicenseRef-scancode-proprietary-license", True),
        ("LicenseRef-scancode-other-copyleft", True),
    ],
)
def test_keys_that_name_no_licence_are_dropped(expression: str, stands: bool) -> None:
    assert stands_for_a_license(expression) is stands


def test_only_a_licence_proper_gets_approximate_matches(detector: Detector, text_of: Any) -> None:
    words = text_of("isc").split()
    broken = " ".join(word for number, word in enumerate(words) if number % 15 != 7)  # no long run of the text is whole
    assert detector.detect(broken.encode(), True).keys != () and detector.detect(broken.encode(), False).keys in (
        (),
        (UNKNOWN_REFERENCE,),
    )


@pytest.mark.parametrize(
    "line",
    [
        "MIT/Apache-2.0 AND OR WITH )(",
        "(" * 3_000 + "MIT",
        "(MIT OR " * 500 + "MIT" + ")" * 500,
        "MIT+Apache",
        "\\",
        "MIT AND",
        "",
        "\u2028",
        "*" * 999,
    ],
)
def test_what_the_expression_parser_chokes_on_is_no_error(detector: Detector, line: str) -> None:
    found = detector.detect(f"{MIT}\nSPDX-License-Identifier: {line}\n".encode(), True)
    assert "MIT" in found.keys


def test_an_engine_that_raises_anything_is_answered_by_prose(monkeypatch: pytest.MonkeyPatch) -> None:
    real = scancode.index_()

    class Chokes:
        def match(self, query_string: str, approximate: bool) -> list[Any]:
            if "spdx" in query_string:
                raise AttributeError("as license-expression does")
            found: list[Any] = real.match(query_string=query_string, approximate=approximate)
            return found

    monkeypatch.setattr(scancode, "index_", Chokes)
    assert "MIT" in detect_form(normal_form(MIT + "\nSPDX-License-Identifier: x"), True).keys

    class Fails:
        def match(self, query_string: str, approximate: bool) -> list[Any]:
            raise RecursionError

    monkeypatch.setattr(scancode, "index_", Fails)
    assert detect_form(normal_form(GPL), False).keys == ()
    assert detect_form(normal_form(MIT), True).keys == ("MIT",)  # the other engine still answers

    class NoMemory:
        def match(self, query_string: str, approximate: bool) -> list[Any]:
            raise MemoryError

    monkeypatch.setattr(scancode, "index_", NoMemory)
    with pytest.raises(MemoryError):  # fails the task, never decides a file
        detect_form(normal_form(GPL), False)


def test_an_expression_that_cannot_be_parsed_is_an_unknown_licence() -> None:
    assert spdx_expression("mit OR gpl-2.0") == "MIT OR GPL-2.0-only"
    assert spdx_expression("mit AND AND )") == UNKNOWN


def test_windows_cover_all_and_hold_the_longest_licence_whole() -> None:
    form = "".join(chr(97 + i % 26) for i in range(300_000))
    pieces = [piece for _, piece in windows(form)]
    assert (
        len(pieces) > 3
        and all(len(piece) <= scancode.WINDOW_CHARS for piece in pieces)
        and pieces[-1] == form[-len(pieces[-1]) :]
    )
    step = scancode.WINDOW_CHARS - scancode.OVERLAP_CHARS
    assert all(pieces[i] == form[i * step : i * step + scancode.WINDOW_CHARS] for i in range(len(pieces)))
    assert list(windows("short")) == [(0, "short")]


def test_a_licence_of_ten_megabytes_is_read_to_the_cap(detector: Detector) -> None:
    assert "MIT" in detector.detect((MIT + "lorem ipsum dolor\n" * 600_000).encode(), False).keys


def test_one_form_is_detected_once_and_the_order_of_files_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real = detect.detect_form
    monkeypatch.setattr(detect, "detect_form", lambda form, named: calls.append(form) or real(form, named))
    files = [MIT.replace("Ada", name).encode() for name in ("Ada", "Bob", "Eve")]
    one, other = Detector(), Detector()
    assert [one.detect(f, True) for f in files] == [other.detect(f, True) for f in reversed(files)][::-1]
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        (b"MIT", ("MIT",)),
        (b"ISC\n", ("ISC",)),
        (b"MIT -- see https://example.org/project for license\n\nThis file comes from elsewhere.\n", ("MIT",)),
        (b"Public domain.\n", ("LicenseRef-scancode-public-domain",)),
        (b"These files have been released into the public domain.", ("LicenseRef-scancode-public-domain",)),
        (b"This is not in the public domain.", ()),
        (b"All rights reserved.", ()),
        (b"UNLICENSED", ()),
        (b"../LICENSE", ()),
    ],
)
def test_a_file_that_only_names_its_licence(detector: Detector, content: bytes, keys: tuple[str, ...]) -> None:
    assert detector.detect(content, True).keys == keys
    if len(content.split()) == 1:
        assert detector.detect(content, False).keys == ()


def test_what_a_tag_says_beyond_what_is_known_is_not_lost(detector: Detector) -> None:
    found = detector.detect(f"SPDX-License-Identifier: Acme-1.0\n\n{MIT}".encode(), True)
    assert found.keys == ("LicenseRef-scancode-unknown-spdx", "MIT")
    found = detector.detect(f"SPDX-License-Identifier: {'MIT OR ' * 10_000}MIT\n".encode(), True)
    assert found.keys == ("LicenseRef-scancode-unknown-spdx",)
    snippet = b"SPDX-SnippetBegin\nSPDX-License-Identifier: GPL-2.0-only\nSPDX-SnippetEnd\n"
    assert "GPL-2.0-only" not in detector.detect(MIT.encode() + snippet, True).keys


def test_evidence_has_the_lines_of_the_file_and_the_rule(detector: Detector, text_of: Any) -> None:
    content = f"<h1>Licences</h1>\r\n\r\nCopyright 2020 Ada\r\n\r\n{MIT}\n\n--- and\n\n{text_of('isc')}"
    found = {one.expression: one for one in detector.detect(content.encode(), True).found}
    assert set(found) == {"MIT", "ISC"}
    lines = content.replace("\r\n", "\n").split("\n")
    for key, starts in (("MIT", "Permission is hereby granted"), ("ISC", "Permission to use")):
        first, last = found[key].lines
        assert any(starts in line for line in lines[first - 1 : first + 4]) and last <= len(lines)
        assert found[key].engine.split()[0] in ("scancode", "licenseclassifier")
    tagged = detector.detect(b"a\n\n\nSPDX-License-Identifier: MIT\nb\n", False).found
    assert [(one.expression, one.lines, one.score) for one in tagged] == [("MIT", (4, 4), 1.0)]
    notice = detector.detect(b"\n" * 5 + b"Licensed under the MIT license\n", False).found[0]
    assert notice.lines == (6, 6) and notice.rule is not None and notice.rule.endswith(".RULE")


def test_lines_of_the_evidence_do_not_depend_on_which_file_of_a_form_was_met_first(detector: Detector) -> None:
    one, other = MIT.encode(), b"\n\n" + MIT.encode().replace(b"\n", b"\n\n")
    first, second = detector.detect(one, True), detector.detect(other, True)
    assert first.expressions == second.expressions and first.found[0].lines != second.found[0].lines
    assert Detector().detect(other, True) == second


def test_a_text_of_countless_matches_is_read_no_further_and_is_not_permissive(detector: Detector) -> None:
    found = detector.detect(b"This is in the public domain.\n" * 15_000 + b"GNU General Public License v3\n", False)
    assert "LicenseRef-stackbuild-not-read" in found.keys
    assert max(map(detect.severity_of, found.keys)) > 0


def test_ten_thousand_licence_files_leave_a_bounded_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "CACHED_FORMS", 50)
    detector = Detector()
    for number in range(300):
        detector.detect(f"Licensed under the MIT license, number {number}\n".encode(), False)
        assert len(detector._answers) <= 50


@pytest.mark.parametrize(
    "content",
    [
        b"license " * 1_300_000,
        b"(" * 500_000,
        b"SPDX-License-Identifier: " + b"(" * 500_000,
        b"SPDX-License-Identifier: MIT\n" * 20_000,
        b"a" * 10_000_000,
        b"<p " * 200_000,
        b"not training ai. " * 30_000,
        b"public domain is " * 30_000,
        b"\xff\xfe" + b"\0" * 100_000,
        b"MIT\0" * 1_000,
    ],
)
def test_hostile_files_are_read_within_bounds(detector: Detector, content: bytes) -> None:
    found = detector.detect(content, False)
    assert all(1 <= one.lines[0] <= one.lines[1] <= content.count(b"\n") + 1 for one in found.found)


@pytest.mark.slow
def test_the_texts_of_spdx_are_told_apart_and_none_is_taken_for_more_permissive(detector: Detector) -> None:
    from licensedcode.cache import get_licenses_db

    ones = [
        one
        for one in get_licenses_db().values()
        if one.text and not one.is_exception and not one.spdx_license_key.startswith("LicenseRef")
    ]
    exact = unsafe = 0
    for one in ones:
        found = {plain_key(key) for key in detector.detect(one.text.encode(), True).keys}
        exact += found == {plain_key(one.spdx_license_key)}
        unsafe += max(
            map(detect.severity_of, detector.detect(one.text.encode(), True).keys), default=9
        ) < detect.severity_of(one.spdx_license_key)
    assert exact / len(ones) >= 0.98 and unsafe == 0


@pytest.mark.parametrize("text", ["MIT (expired)", "MIT or pay", "MIT-like", "MIT, ask Bob", "MIT License until 2027"])
def test_a_brief_text_that_puts_its_licence_in_doubt_is_not_permissive(detector: Detector, text: str) -> None:
    found = detector.detect(text.encode(), True)
    assert detect.DOUBTFUL in found.keys and "MIT" in found.keys
