"""The licence sections of a read-me: where they begin and end.

Headings of Markdown, reStructuredText, AsciiDoc, Org and HTML, bold lines, lines in capitals, and "License: ..." in one
line. All is linear in the text, as every line is bounded.
"""

from __future__ import annotations

import html
import re

from stackbuild.licenses.declared.resolve import resolve

SECTION_CHARS = 4_096
SECTION_LINES = 80
HEADING_CHARS = 120
MAX_SECTIONS = 8

LICENSE_WORDS = (
    "license licence licenses licences licensing licencing lizenz lizenzierung licencia licença licenca licenza licenze "
    "licencja licencje licentie lisans licens lisens licenție lisensi lisenssi άδεια лицензия ліцензія ライセンス 许可证 许可 "
    "許可證 許可 授权 授權 协议 協議 许可协议 开源协议 开源许可证 开源许可 版权协议 授权协议 授權條款 라이선스 라이센스"
)
BESIDE_WORDS = (
    "and the & of for copyright copyrights copying information info notice notices terms legal details this project "
    "software code source open statement agreement author authors credit credits contributors contributing contribution "
    "acknowledgements use usage under rights droit droits d auteur attribution support status disclaimer warranty copyleft c © "
    "und et y e i och og en 版权 版權 著作権 和 与 與 及"
)
_LICENSE_WORDS, _HEADING_WORDS = frozenset(LICENSE_WORDS.split()), frozenset(BESIDE_WORDS.split())
MARKUP = re.compile(r"<[^<>]{0,2000}>|[*_`~]|!\[|\[|\]\([^()\s]*\)|\]|:[a-z_]+:|&nbsp;")
_ATX = re.compile(r"\s{0,3}(?:#{1,6}|={1,6}(?=\s))(?=[^#=])")
_ORG = re.compile(r"\*{1,6}\s+(?=\S)")
_HTML_HEADING = re.compile(r"\s*(?:<[^<>]{0,200}>\s*)?<h[1-6]\b[^<>]{0,500}>", re.IGNORECASE)
_HTML_END = re.compile(r"</h[1-6]\s*>.*", re.IGNORECASE)
_UNDERLINE = re.compile(r"\s{0,3}([=\-~^\"'*+#`:.])\1{2,}\s*\Z")
_BOLD = re.compile(r"\s*(\*\*|__)([^*_]{3,80})\1\s*:?\s*\Z")
_INLINE = re.compile(
    r"\s*(?:[-*+]\s+)?(?:\*\*|__)?(licen[cs]e|licensing|lizenz|licencia)(?:\*\*|__)?\s*:\s*(?:\*\*|__)?\s*(\S.*)",
    re.IGNORECASE,
)
_CAPS = re.compile(r"[0-9.) ]*[A-Z][A-Z &/,-]{4,60}:?\s*\Z")
_TITLE = re.compile(r"\s{0,3}(?:[0-9.]{1,6}\s*)?[A-Za-z][A-Za-z& ]{3,60}:?\s*\Z")
_WORDS = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*|[&©]")


def sections(text: str, org: bool = False) -> list[tuple[str, str, int]]:
    """The licence sections, at most `MAX_SECTIONS`: heading, text and line of each. `org`: the text is of Org."""
    lines = text.splitlines()
    found: list[tuple[str, str, int]] = []
    number = 0
    fenced = False
    while number < len(lines) and len(found) < MAX_SECTIONS:
        line = lines[number]
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        heading = None if fenced else _heading(lines, number, org)
        if heading is None:
            inline = None if fenced else _INLINE.match(line[:2_000])
            if inline:
                found.append((inline[1], inline[2], number + 1))
            number += 1
            continue
        title, length = heading
        number += length
        if is_of_license(title):
            start = number
            body, number = _body(lines, number, org)
            found.append((title, body, start - length + 1))
    return found


def _heading(lines: list[str], number: int, org: bool) -> tuple[str, int] | None:
    """The title of a heading at a line and how many lines it takes."""
    line = lines[number]
    if len(line) > 1_000 or not line.strip():
        return None
    following = lines[number + 1] if number + 1 < len(lines) else ""
    if match := _ATX.match(line) or (_ORG.match(line) if org else None):
        return plain(line[match.end() :].rstrip(" \t#=")), 1
    if match := _HTML_HEADING.match(line):
        return plain(_HTML_END.sub("", line[match.end() :])), 1
    if len(line) <= HEADING_CHARS and _UNDERLINE.match(following) and not _UNDERLINE.match(line):
        return plain(line), 2
    if match := _BOLD.match(line):
        return plain(match[2]), 1
    before = lines[number - 1] if number else ""
    if not before.strip() and (_CAPS.match(line) or (_TITLE.match(line) and is_of_license(line))):
        return plain(line), 1
    return None


def plain(text: str) -> str:
    return " ".join(html.unescape(MARKUP.sub(" ", text)).split())


def is_of_license(title: str) -> bool:
    """Whether a heading is about the licence of what the read-me is of."""
    if len(title) > HEADING_CHARS:
        return False
    words = [word.lower() for word in _WORDS.findall(title)]
    others = [word for word in words if word not in _LICENSE_WORDS]
    if len(others) == len(words):
        return False
    return all(word in _HEADING_WORDS for word in others) or resolve(title) is not None or after_word(title) is not None


def after_word(title: str) -> str | None:
    """The licence that a heading names itself: "License - MIT", "License (MIT)"."""
    parts = re.split(r"\blicen[cs]e\b[\s:()-]*", title, maxsplit=1, flags=re.IGNORECASE)
    return (
        resolve(parts[1].strip(" ()")) if len(parts) == 2 and not parts[0].strip(" 0123456789.") and parts[1] else None
    )


def _body(lines: list[str], number: int, org: bool) -> tuple[str, int]:
    """The text of a section, and the line after it."""
    taken: list[str] = []
    size = 0
    while number < len(lines) and len(taken) < SECTION_LINES and size < SECTION_CHARS:
        if any(line.strip() for line in taken) and _heading(lines, number, org):
            break
        line = lines[number][: SECTION_CHARS - size]
        taken.append(line)
        size += len(line) + 1
        number += 1
    return "\n".join(taken), number
