"""The text of a licence file as the engines are given it.

Licence files differ in who holds the copyright, in layout, quotes and case, and hardly ever in the licence: on a tree
of npm packages 4,579 of them are 189 texts. The normal form is both the key under which an answer is kept and all that
the engines see, so that an answer never depends on which of two files was met first.
"""

from __future__ import annotations

import codecs
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

# What is read of a file at most; 512 KiB are some 85,000 words, fifteen times the GNU GPL.
MAX_BYTES = 512 << 10
SNIFFED_BYTES = 8_192

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

# Curly quotes and dashes, also where Windows-1252 was read as Latin-1; marks that nobody sees are dropped.
UNIFIED = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u0091\u0092`\u00b4", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u0093\u0094\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u0096\u0097", "-"),
        **dict.fromkeys("\ufeff\u200b\u200c\u200d\u2060\u00ad\x00", None),
    }
)
_TAGS = (
    "a abbr article b blockquote body br center code dd div dl dt em font footer h[1-6] head header hr html i img li "
    "link main meta nav ol p pre section small span strong style sub sup table tbody td th thead title tr tt u ul "
    "!doctype"
).replace(" ", "|")
_TAG = re.compile(rf"</?(?:{_TAGS})(?:\s[^<>]{{0,2000}})?/?>", re.IGNORECASE)
_OPENING = re.compile(r"(?://+!?|/\*+|\*+/?|#+!?|;+|--+|%+|<!--|-->|>|\||\.\.|dnl(?= )|rem(?= ))\s*")

# A line that names a holder and says nothing else, so that two files which differ in it state the same licence.
_HOLDER = re.compile(
    r"(?:portions )?(?:copyright|copr\.|©|\(c\))(?: ?\(c\)| ?©)?:? ?(?:(?:19|20)[0-9]{2}|[<\[{](?:year|yyyy))"
)
SAYS_MORE = re.compile(
    r"licen[cs]|permi|grant|gpl|\bmit\b|\bbsd|apache|mozilla|\b[mec]pl\b|commons|\bcc\b|cc0|public|domain|\bfree|copyleft"
    r"|patent|propriet|confiden|distribut|modif|warrant|\bterms?\b|condition|\bus(?:e|ed|age)\b|notice|https?:|spdx|\babove"
    r"|following|must|shall|may not"
)
_HOLDER_CHARS = 200
# Further down such a line can be part of the licence (OLDAP), and the whole is not matched without it.
_HEAD_LINES = 8


def decode(content: bytes) -> str | None:
    """The text of the first `MAX_BYTES`: by the byte order mark, else UTF-8, else Latin-1; None if it is binary."""
    cut = content[:MAX_BYTES]
    for mark, encoding in _BOMS:
        if cut.startswith(mark):
            return cut[len(mark) :].decode(encoding, "replace")
    if b"\0" in cut[:SNIFFED_BYTES]:
        return _wide(cut)
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(cut, final=len(content) <= MAX_BYTES)
    except UnicodeDecodeError:
        return cut.decode("latin-1")


def _wide(cut: bytes) -> str | None:
    """UTF-16 without a mark, told by where the zero bytes of its ASCII letters are."""
    head = cut[:SNIFFED_BYTES]
    even, odd = head[::2].count(0), head[1::2].count(0)
    enough = len(head) // 2 * 3 // 4
    if odd > enough and even == 0:
        return cut.decode("utf-16-le", "replace")
    if even > enough and odd == 0:
        return cut.decode("utf-16-be", "replace")
    return None


@dataclass(frozen=True)
class Form:
    """A normal form and where it is from: `numbers[i]` is the line of the file that line i of `text` is of, the first is
    1."""

    text: str
    numbers: tuple[int, ...]


def normal_form(text: str, own_lines: frozenset[str] = frozenset()) -> str:
    """The text of `numbered_form`."""
    return numbered_form(text, own_lines).text


def numbered_form(text: str, own_lines: frozenset[str] = frozenset()) -> Form:
    """Lower case, plain quotes and dashes, no comment signs, known HTML tags, blank lines, or lines at its head that
    only name a holder.

    The last stay where nothing else stands in the text, and where they are among `own_lines` (`holder_lines` of
    licences).
    """
    lines: list[tuple[int, str]] = []
    holders: list[tuple[int, str]] = []
    for number, line in _plain_lines(text):
        if len(lines) < _HEAD_LINES and line not in own_lines and _names_holder(line):
            holders.append((number, line))
        else:
            lines.append((number, line))
    lines = lines or holders
    return Form("\n".join(line for _, line in lines), tuple(number for number, _ in lines))


def holder_lines(text: str) -> Iterator[str]:
    """The lines of a licence that name a holder and are its own: that of who wrote the licence, or one left to be
    filled in.
    """
    return (line for _, line in _plain_lines(text) if _names_holder(line))


def _names_holder(line: str) -> bool:
    return len(line) <= _HOLDER_CHARS and _HOLDER.match(line) is not None and not SAYS_MORE.search(line)


def without_markup(text: str) -> str:
    """A text without known HTML tags, with as many line feeds as before."""
    if "<" not in text or not _TAG.search(text):
        return text
    text = _TAG.sub(lambda tag: " " + "\n" * tag[0].count("\n"), text)
    return "\n".join(html.unescape(line).replace("\n", " ") for line in text.split("\n"))


def _unclosed(line: str) -> str:
    """A line without the sign at its end that closes a comment, or its box."""
    if line.endswith("-->"):
        return line[:-3].removesuffix(" ")
    if line.endswith("*/"):
        return line[:-1].rstrip("*").removesuffix(" ")
    boxed = line.rstrip("*#|")
    return boxed[:-1] if boxed.endswith(" ") else line


def _plain_lines(text: str) -> Iterator[tuple[int, str]]:
    """Number and text of each line that says something."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(UNIFIED)
    tagged = "<" in text and _TAG.search(text) is not None
    if tagged:  # a tag ends a line of the form, though not one of the file
        text = _TAG.sub(lambda tag: "\x1e" + "\n" * tag[0].count("\n"), text)
    for number, physical in enumerate(text.split("\n"), 1):
        for raw in (html.unescape(physical) if tagged else physical).splitlines():
            line = " ".join(raw.split()).lower()
            line = _unclosed(line[opening.end() :] if (opening := _OPENING.match(line)) else line)
            if line:
                yield number, line
