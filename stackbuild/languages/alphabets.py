"""Whether a text that was guessed from a few bytes can be of one language: the letters of one alphabet, and their case.

A detector that sees four accented letters takes Slovak for Portuguese and Vietnamese for Icelandic. What it read then is of no
language: letters of several alphabets in one file, "è¾", or a capital in the middle of a word. Another single-byte encoding in
which the same bytes are letters of one alphabet is the better answer. Alphabets are those of CLDR (main and what is common in
loan words), in lower case and without ASCII.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

ALPHABETS: Final = {
    "Albanian": "çë",
    "Catalan": "àçèéíïòóúü·",
    "Croatian, Slovene, Bosnian": "čćđšž",
    "Czech": "áčďéěíňóřšťúůýž",
    "Danish, Norwegian": "æøåéèêóòôà",
    "Dutch": "áäéëèêíïóöúüĳ",
    "Estonian": "šžõäöü",
    "Finnish, Swedish": "åäöéàüšž",
    "French": "àâæçéèêëîïôœùûüÿ",
    "German": "äöüßéà",
    "Hungarian": "áéíóöőúüű",
    "Icelandic": "áæðéíóöúýþ",
    "Italian": "àéèìíîóòùú",
    "Latvian": "āčēģīķļņšūž",
    "Lithuanian": "ąčęėįšųūž",
    "Maltese": "àċèġħìòùż",
    "Polish": "ąćęłńóśźż",
    "Portuguese": "áàâãçéêíóòôõúüè",
    "Romanian": "ăâîșşțţ",
    "Slovak": "áäčďéíĺľňóôŕšťúýž",
    "Spanish, Basque, Galician": "áéíñóúüïàç",
    "Turkish": "çğıöşüâîû",
    "Vietnamese": "ăâđêôơưáàãéèíìóòõúùýỳêâôñ\u0300\u0301\u0303\u0309\u0323",
}
_ALPHABETS: Final = tuple(frozenset(letters) for letters in ALPHABETS.values())
# Signs that stand in any language's text: quotation marks, dashes, currencies, those of trade and measure.
_SIGNS: Final = frozenset("\u00a0\u00ad¡¿«»‹›„“”‚‘’…–—·•†‡§¶©®™€£¥¢°±×÷²³¹¼½¾µªº")
_NO_LETTERS: Final = _SIGNS - frozenset("\u00ad’·ªº")  # signs that do not stand between two letters
_OUTSIDE: Final = re.compile(r"[^\x00-\x7f]+")
# Scripts of many-byte encodings: kana and signs, Han, Hangul, full-width forms.
_WIDE_SCRIPTS: Final = re.compile(
    r"[\u2010-\u2027\u2460-\u24ff\u2500-\u25ff\u2190-\u2193\u00b7\u00d7\u3000-\u30ff\u4e00-\u9fff\uac00-\ud7a3\uff01-\uff5e]*"
)
_KANA, _HANGUL = re.compile("[\u3041-\u30fe]"), re.compile("[\uac00-\ud7a3]")

# Tried, in this order, where the detector's answer is of no language.
SINGLE: Final = (
    "WINDOWS-1252",
    "WINDOWS-1250",
    "ISO-8859-2",
    "WINDOWS-1254",
    "WINDOWS-1257",
    "WINDOWS-1258",
    "ISO-8859-15",
)
MANY: Final = ("CP932", "EUC-JP", "CP949", "GB18030", "BIG5-HKSCS")
LATIN: Final = frozenset(
    (
        *SINGLE,
        "ISO-8859-1",
        "ISO-8859-3",
        "ISO-8859-4",
        "ISO-8859-10",
        "ISO-8859-13",
        "ISO-8859-14",
        "ISO-8859-16",
        "MACINTOSH",
    )
)


def misfits(text: str) -> int:
    """How many characters of a Latin text beside ASCII are neither signs nor letters of one alphabet (of that which has the
    most of them), or are capitals or signs inside a word: 0 for a text that can be of one language.
    """
    letters: Counter[str] = Counter()
    inside = 0
    for found in _OUTSIDE.finditer(text):
        before = text[found.start() - 1 : found.start()]
        for place, char in enumerate(found[0], found.start() + 1):
            if char in _SIGNS:
                inside += char in _NO_LETTERS and before.isalpha() and text[place : place + 1].isalpha()
            else:
                letters[char.lower()] += 1
                inside += before.islower() and char.isupper()
            before = char
    return inside + min(sum(letters[one] for one in letters.keys() - alphabet) for alphabet in _ALPHABETS)


def of_wide_script(text: str, encoding: str) -> bool:
    """Whether what a text has beside ASCII is of the script of a many-byte encoding: Han alone is of none, for it is what
    any bytes are read as.
    """
    wide = "".join(_OUTSIDE.findall(text))
    if not _WIDE_SCRIPTS.fullmatch(wide):
        return False
    return len((_HANGUL if encoding == "CP949" else _KANA).findall(wide)) * 2 > len(wide)
