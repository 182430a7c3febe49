"""Where a value is given to a name that may be a secret's: `api_key = "..."`, `<password>...</password>`, `--token ...`.

The gate tells where a word such as `passw` or `token` stands; from there one compiled pass looks for the rest of the name,
what gives it a value, and the value: a bounded number of steps for each word, whatever the text. Only literals count: what
is between quotes, or stands bare where a configuration or a command would have it. What is found is a candidate; the
scorer decides (`scorer`).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from stackbuild.kernels import kernel
from stackbuild.pii.gate import Anchor
from stackbuild.pii.shapes import FLAGS, WORD
from stackbuild.pii.spans import I64, Texts

# A name that holds one of these may be a secret's, also inside a longer word (dbpassword, accessToken).
WORDS: Final = (
    "passw", "passphrase", "passcode", "pwd", "pswd", "pass_", "_pass", "pass=", "pass:", 'pass"', "pass'", "userpass", "dbpass",
    "secret", "token", "key", "auth", "cred",
)  # fmt: skip

NAME_BYTES: Final = 64  # of a name on either side of the word
BLANKS: Final = 24  # spaces about what gives the value
VALUE_LEAST: Final = 5
VALUE_MOST: Final = 240

# How the value stands there.
QUOTED, BARE, TAG, ARGUMENT, CALL, LISTED = 1, 2, 3, 4, 5, 6
KINDS: Final = {QUOTED: "quoted", BARE: "bare", TAG: "tag", ARGUMENT: "argument", CALL: "call", LISTED: "listed"}


WORD_HIT: Final = -19  # of the gate's hits

# Of pairs, in which a name and its value stand apart.
_END_OF_KEY: Final = tuple(b"</key>")
_STRING: Final = tuple(b"<string>")
_NAME_WORD: Final = tuple(b"name")
_VALUE_WORD: Final = tuple(b"value")


def anchors() -> list[Anchor]:
    """Of the gate: the words."""
    return [Anchor(word.encode(), WORD_HIT, ignore_case=True) for word in WORDS]


def word_hits(hits: I64) -> I64:
    """Of the gate's hits, those of the words."""
    mine: I64 = hits[hits[:, 0] == WORD_HIT]
    return mine


class Candidates(NamedTuple):
    """n values, each int64 (n,): bytes of a batch's buffer of name and value, and how the value stands there."""

    name_start: I64
    name_end: I64
    value_start: I64
    value_end: I64
    kind: I64


def candidates(texts: Texts, words: I64) -> Candidates:
    """The values that are given to names about `words` (int64 (k, 3): anything, start, end of a word), each once, ascending."""
    data, offsets = texts.data.view(), texts.offsets.view()
    data.flags.writeable = offsets.flags.writeable = False  # always, so that the pass is compiled once
    found = _scan(data, offsets, np.ascontiguousarray(words[np.argsort(words[:, 1], kind="stable")]), FLAGS)
    _, first = np.unique(found[:, 2], return_index=True)
    kept = found[first]
    return Candidates(*(np.ascontiguousarray(kept[:, column]) for column in range(5)))


@kernel
def _scan(data: Any, offsets: Any, words: Any, flags: Any) -> Any:
    found = np.empty((len(words), 5), np.int64)
    k = text = 0
    for w in range(len(words)):
        start, end = words[w, 1], words[w, 2]
        while offsets[text + 1] <= start:
            text += 1
        if k and found[k - 1, 0] <= start < found[k - 1, 1]:
            continue  # another word of the same name
        name_start, name_end = _name(data, offsets[text], offsets[text + 1], start, end, flags)
        value_start, value_end, kind = _value(data, offsets[text], offsets[text + 1], name_start, name_end, flags)
        if kind:
            found[k, 0], found[k, 1], found[k, 2], found[k, 3] = name_start, name_end, value_start, value_end
            found[k, 4] = kind
            k += 1
    return found[:k].copy()


@kernel
def _name(data: Any, low: int, high: int, start: int, end: int, flags: Any) -> tuple[int, int]:
    """The name about a word: letters, digits, "_", and "-" or "." between them. A word may end with its quote or "="."""
    while end > start + 1 and not flags[data[end - 1]] & WORD:
        end -= 1
    first = start
    while first > low and start - first < NAME_BYTES:
        byte = data[first - 1]
        if not flags[byte] & WORD and not (byte in (45, 46) and first - 1 > low and flags[data[first - 2]] & WORD):
            break
        first -= 1
    last = end
    while last < high and last - end < NAME_BYTES:
        byte = data[last]
        if not flags[byte] & WORD and not (byte in (45, 46) and last + 1 < high and flags[data[last + 1]] & WORD):
            break
        last += 1
    return first, last


@kernel
def _blank(data: Any, at: int, high: int) -> int:
    """The first byte from `at` on that is no space or tab, after at most BLANKS of them."""
    last = min(high, at + BLANKS)
    while at < last and (data[at] == 32 or data[at] == 9):
        at += 1
    return at


@kernel
def _quote(data: Any, at: int, high: int) -> tuple[int, int]:
    """(the quote that stands at `at`, bytes that it takes): a quote, or one behind backslashes; (0, 0) if there is none."""
    width = 0
    while at + width < high and width < 3 and data[at + width] == 92:
        width += 1
    if at + width < high and (data[at + width] == 34 or data[at + width] == 39 or data[at + width] == 96):
        return data[at + width], width + 1
    return 0, 0


@kernel
def _value(data: Any, low: int, high: int, first: int, at: int, flags: Any) -> tuple[int, int, int]:
    """Start and end of the value that is given to the name from `first` to `at`, and how it stands there; 0 for none."""
    _, width = _quote(data, at, high)
    quoted_name = width > 0
    at += width
    if at < high and data[at] == 93:  # settings["token"] = ...
        at += 1
    at_name = at
    start, end, kind = _elsewhere(data, low, high, first, at, flags)
    if kind:
        return start, end, kind
    after = _blank(data, at, high)
    if after >= high:
        return 0, 0, 0
    byte = data[after]
    if byte == 62 and not quoted_name and first > low and data[first - 1] == 60:  # <password>...<
        return _until_tag(data, after + 1, high)
    if byte == 40 and not quoted_name and after == at:  # setPassword("...")
        return _literal(data, _blank(data, after + 1, high), high, CALL, flags)
    if byte == 44 and quoted_name:  # ("password", "...")
        return _literal(data, _blank(data, after + 1, high), high, LISTED, flags)
    if quoted_name and after > at and after + 6 < high and data[after] == 118 and data[after + 4] == 101:  # value="..."
        equals = _blank(data, after + 5, high)
        if equals < high and data[equals] == 61:
            return _literal(data, _blank(data, equals + 1, high), high, LISTED, flags)
        return 0, 0, 0
    if after > at and not quoted_name and first >= low + 2 and data[first - 1] == 45 and data[first - 2] == 45:
        start, end, kind = _literal(data, after, high, ARGUMENT, flags)
        return (start, end, kind) if kind else _bare(data, after, high, ARGUMENT, False, flags)  # --token ...
    linked = first > low and data[first - 1] in (38, 59, 63)  # ...;Password=...;
    setting = linked or _begins_setting(data, low, first, flags)
    at = _operator(data, after, high, flags)
    if at < 0:
        if setting and after > at_name and not quoted_name:  # storePassword "...", ENV TOKEN ...
            start, end, kind = _literal(data, after, high, QUOTED, flags)
            if kind or not _declared(data, low, first):
                return start, end, kind
            return _bare(data, after, high, BARE, False, flags)
        return 0, 0, 0
    at = _blank(data, at, high)
    start, end, kind = _literal(data, at, high, QUOTED, flags)
    if kind or not setting:
        return start, end, kind
    return _bare(data, at, high, BARE, linked, flags)


@kernel
def _elsewhere(data: Any, low: int, high: int, first: int, at: int, flags: Any) -> tuple[int, int, int]:
    """The value that stands beside its name in a pair: `name: X` and `value: ...` in YAML, the same in JSON, `<key>X</key>`
    and `<string>...` in a property list. At most BLANKS bytes lie between the two."""
    if _reads(data, at, high, _END_OF_KEY):
        at = _blank_lines(data, at + len(_END_OF_KEY), high)
        if _reads(data, at, high, _STRING):
            return _until_tag(data, at + len(_STRING), high)
        return 0, 0, 0
    if first > low and (data[first - 1] == 34 or data[first - 1] == 39):
        first -= 1
    steps = 0
    while first > low and steps < BLANKS and data[first - 1] == 32:
        first -= 1
        steps += 1
    if first == low or data[first - 1] != 58:  # name:
        return 0, 0, 0
    first -= 1
    if first > low and (data[first - 1] == 34 or data[first - 1] == 39):
        first -= 1
    if first < low + 4 or not _reads(data, first - 4, high, _NAME_WORD):
        return 0, 0, 0
    if at < high and data[at] == 44:
        at += 1
    at = _blank_lines(data, at, high)
    _, width = _quote(data, at, high)
    if not _reads(data, at + width, high, _VALUE_WORD):
        return 0, 0, 0
    at += width + len(_VALUE_WORD)
    _, width = _quote(data, at, high)
    at += width
    if at >= high or data[at] != 58:
        return 0, 0, 0
    at = _blank(data, at + 1, high)
    start, end, kind = _literal(data, at, high, QUOTED, flags)
    return (start, end, kind) if kind else _bare(data, at, high, BARE, False, flags)


@kernel
def _reads(data: Any, at: int, high: int, word: Any) -> bool:
    """Whether a word stands at `at`, its letters in either case."""
    if at + len(word) > high:
        return False
    for i in range(len(word)):
        byte = data[at + i]
        if (byte | 32 if 65 <= byte <= 90 else byte) != word[i]:
            return False
    return True


@kernel
def _blank_lines(data: Any, at: int, high: int) -> int:
    """The first byte from `at` on that is no space, tab or line end, after at most BLANKS of them."""
    last = min(high, at + BLANKS)
    while at < last and (data[at] == 32 or 9 <= data[at] <= 13):
        at += 1
    return at


@kernel
def _declared(data: Any, low: int, first: int) -> bool:
    """Whether "ENV " or "set " stands before a name, which then gives it a value without a sign."""
    if first < low + 4 or data[first - 1] != 32:
        return False
    word = (data[first - 4] | 32, data[first - 3] | 32, data[first - 2] | 32)
    return bool(word in ((101, 110, 118), (115, 101, 116)))


@kernel
def _operator(data: Any, at: int, high: int, flags: Any) -> int:
    """Where what gives a value ends: = := => == != :, and a type between ":" and "="; -1 if there is nothing such."""
    byte = data[at]
    if byte == 61 or (byte in (33, 43, 58, 63) and at + 1 < high and data[at + 1] == 61):
        while at < high and data[at] in (33, 43, 58, 61, 63):
            at += 1
        return at + 1 if at < high and data[at] == 62 else at
    if byte == 58:
        if at + 1 < high and data[at + 1] == 58:
            return -1
        kind = _blank(data, at + 1, high)
        end = kind
        while (
            end < high and end - kind < 40 and (flags[data[end]] & WORD or data[end] in (46, 60, 62, 63, 91, 93, 124))
        ):
            end += 1
        equals = _blank(data, end, high)
        if end > kind and equals + 1 < high and data[equals] == 61 and data[equals + 1] != 61:
            quoted = _quote(data, _blank(data, equals + 1, high), high)[1] > 0
            if quoted or (equals > end and data[equals + 1] == 32):  # a type; in base64 there is no blank before "="
                return equals + 1
        return at + 1
    return -1


@kernel
def _literal(data: Any, at: int, high: int, kind: int, flags: Any) -> tuple[int, int, int]:
    """What stands between quotes from `at` on, behind at most two letters or "@" that mark a string."""
    marks = 0
    while at < high and marks < 2 and (data[at] in (64, 66, 76, 78, 82, 85, 98, 114, 117)):
        at += 1
        marks += 1
    quote, width = _quote(data, at, high)
    if not width:
        return 0, 0, 0
    start = _scheme(data, at + width, high)
    last = min(high, start + VALUE_MOST + 1)
    end = start
    while end < last and data[end] > 32 and data[end] != quote:
        end += 1
    if end >= last or data[end] != quote:
        return 0, 0, 0
    while end > start and width > 1 and data[end - 1] == 92:
        end -= 1
    return (start, end, kind) if end - start >= VALUE_LEAST else (0, 0, 0)


@kernel
def _scheme(data: Any, at: int, high: int) -> int:
    """Where the credentials of an Authorization header begin, behind "Basic ", "Bearer " or "Token "; `at` if it names none."""
    if at + 7 < high and (data[at] | 32) == 98:
        if data[at + 5] == 32 and (data[at + 2] | 32) == 115 and (data[at + 4] | 32) == 99:
            return at + 6
        if data[at + 6] == 32 and (data[at + 2] | 32) == 97 and (data[at + 5] | 32) == 114:
            return at + 7
    if at + 6 < high and (data[at] | 32) == 116 and data[at + 5] == 32 and (data[at + 2] | 32) == 107:
        return at + 6
    return at


@kernel
def _until_tag(data: Any, start: int, high: int) -> tuple[int, int, int]:
    """What stands between a tag and the next "</"."""
    for end in range(start, min(high - 1, start + VALUE_MOST + 1)):
        byte = data[end]
        if byte == 60:
            good = data[end + 1] == 47 and end - start >= VALUE_LEAST
            return (start, end, TAG) if good else (0, 0, 0)
        if byte <= 32 or byte == 34:
            return 0, 0, 0
    return 0, 0, 0


@kernel
def _bare(data: Any, start: int, high: int, kind: int, linked: bool, flags: Any) -> tuple[int, int, int]:
    """What stands without quotes up to a space or the line's end; none if it is code. `linked`: in a connection string or
    query, which a quote or tag may end."""
    start = _scheme(data, start, high)
    end = start
    letters = 0
    while end < high and end - start <= VALUE_MOST and data[end] > 32:
        byte = data[end]
        if linked and end > start and byte in (34, 39, 60, 96):
            break
        opens = end == start and byte in (36, 37, 42, 47, 92, 124)
        if opens or byte in (34, 39, 40, 41, 60, 62, 91, 93, 96, 123, 125):
            return 0, 0, 0
        if byte in (38, 44, 59):
            break
        if flags[byte] & WORD and not 48 <= byte <= 57:
            letters += 1
        end += 1
    if end - start < VALUE_LEAST or end - start > VALUE_MOST or not letters:
        return 0, 0, 0
    return start, end, kind


@kernel
def _begins_setting(data: Any, low: int, first: int, flags: Any) -> bool:
    """Whether a name stands where a setting begins: at its line's start, behind a list's dash, a comment's mark, `export`,
    `set`, `ENV`, `#define`, `-D`, `-e`."""
    at = first
    steps = 0
    while at > low and steps < 200:
        byte = data[at - 1]
        if byte in (10, 13):
            return True
        if byte > 32 and byte not in (34, 35, 39, 42, 45, 47, 59):
            break
        at -= 1
        steps += 1
    if at == low:
        return True
    end = at
    while at > low and end - at < 8 and flags[data[at - 1]] & WORD:
        at -= 1
    size = end - at
    if size == 1:
        return bool(data[at] in (68, 101))  # -D, -e
    if size == 3:
        first_two = (data[at] | 32, data[at + 1] | 32)
        return bool(first_two in ((101, 110), (115, 101)))  # ENV, set
    six = size == 6 and ((data[at] == 101 and data[at + 1] == 120) or (data[at] == 100 and data[at + 2] == 102))
    return bool(six)  # export, define
