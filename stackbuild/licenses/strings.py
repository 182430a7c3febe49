"""Which lines of a head are in a string that a statement opens; the rules are those of `notices`.

Kernels on bytes, as in `line_kinds`. Told are triple quotes (Python, C#, Java, Kotlin, Scala, Swift, Julia), backticks, C++'s
R"x(...)x", Rust's r#"..."#, C#'s @"..." and here-documents. A program that writes headers has the texts of licences in them.
"""

from __future__ import annotations

from stackbuild.kernels import kernel
from stackbuild.licenses.line_kinds import CODE, SIGNED, Bytes, Offsets, begins, is_word_byte

NONE, DOCUMENTS, STRING = 0, 1, 2
STATE = 9  # int64, zeros for a file

_UNENDED = 8  # words like that of a here-document, without its end, after which no more are sought
_DELIMITER = 16  # bytes of a C++ raw string's at most
_RAW, _HASHED, _VERBATIM = 1, 2, 3  # instead of the byte of a quote: C++, Rust, C#


@kernel
def in_string(data: Bytes, end: int, lines: Offsets, many: int, state: Offsets) -> int:
    """Whether the line after the `many` first is in a string that a line before it opens: STRING if it is a value (`x = \"\"\"`,
    `f(`, `<<EOF`), DOCUMENTS if it is a docstring below code or one of a name like `__doc__`, NONE otherwise, and in the
    docstring of the file. `state`: int64 (STATE,), zeros for a file; each line is read once.
    """
    quote, level = state[1], state[2]  # of the open string
    word, word_end = state[3], state[4]  # of the open here-document or raw string
    code = state[5] != 0
    last = state[7]  # the last byte of the lines before that is not blank
    here = state[8] != 0  # whether a here-document is open
    for number in range(state[0], many):
        i, stop, kind = lines[number, 0], lines[number, 1], lines[number, 3]
        while i < stop and data[i] <= 32:
            i += 1
        start = i
        if here:
            k = 0
            while word + k < word_end and i + k < stop and data[i + k] == data[word + k]:
                k += 1
            if word + k == word_end and (i + k == stop or not is_word_byte(int(data[i + k]))):
                here = False
            continue
        named = begins(data, start, stop, b"__")
        while i < stop:
            c = int(data[i])
            if quote:
                length = _closes(data, i, stop, quote, word, word_end)
                if length:
                    i += length - 1
                    quote = 0
                elif (c == 92 and quote > _VERBATIM) or (quote == _VERBATIM and c == 34):
                    i += 1  # what is escaped: "" in @"..."
            elif kind & SIGNED and not begins(data, start, stop, b"#define"):
                break
            elif c in (34, 39) and _triple(data, i, stop):
                run = i + 3
                while run < stop and data[run] == c:
                    run += 1
                opening = i <= start + 2
                # not """" of Basic, a ruler of Vim, or an empty string
                if run == i + 3 or (run < i + 6 and (opening or _blank_from(data, run, stop))):
                    quote = c
                    level = NONE if opening and not code else DOCUMENTS
                    if not named and _is_value(data, start, i, last):
                        level = STRING
                i = run - 1
            elif c == 96 and _opens(data, start, i, stop):
                quote, level = c, STRING
            elif c == 34 and i > start:
                before = int(data[i - 1])
                if before == 82 and not (i - 2 >= start and _joins(int(data[i - 2]))):  # R"x(
                    k = i + 1
                    while k < stop and k - i <= _DELIMITER and data[k] > 32 and data[k] not in (34, 40, 41, 92):
                        k += 1
                    if k < stop and data[k] == 40:
                        quote, level, word, word_end = _RAW, STRING, i + 1, k
                        i = k
                elif before == 35:  # r#"
                    k = i - 1
                    while k > start and data[k] == 35:
                        k -= 1
                    if data[k] == 114 and (k == start or not is_word_byte(int(data[k - 1])) or data[k - 1] in (98, 99)):
                        quote, level, word, word_end = _HASHED, STRING, k + 1, i
                elif _is_verbatim(data, start, i, stop):  # @"
                    quote, level = _VERBATIM, STRING
            elif c == 60 and i > start and i + 3 < stop and data[i + 1] == 60 and data[i - 1] in (32, 60):  # <<EOF
                word = i + 2
                while word < stop and data[word] in (34, 39, 45, 60, 92, 126):  # quotes - < \\ ~
                    word += 1
                word_end = word
                while word_end < stop and (65 <= data[word_end] <= 90 or data[word_end] == 95):
                    word_end += 1
                if word_end >= word + 2 and state[6] < _UNENDED:
                    if _stands_alone(data, stop, end, word, word_end):
                        here = True
                        level = DOCUMENTS if data[start] == 58 else STRING  # `: <<EOF` is a comment of the shell
                        break
                    state[6] += 1
            i += 1
        code |= kind & 3 == CODE or (stop > start and data[stop - 1] == 40)  # (
        if stop > start and not kind & SIGNED:
            k = stop - 1
            while k > start and data[k] <= 32:
                k -= 1
            last = data[k]
    state[0], state[1], state[2], state[3], state[4] = many, quote, level, word, word_end
    state[5], state[7], state[8] = code, last, here
    return level if here or quote else NONE


@kernel
def _triple(data: Bytes, i: int, stop: int) -> bool:
    return i + 2 < stop and data[i + 1] == data[i] and data[i + 2] == data[i]


@kernel
def _joins(byte: int) -> bool:
    """Whether a byte makes one word with the R after it, but for the letters before R of C++'s u8R"x(...)x"."""
    return is_word_byte(byte) and byte not in (56, 76, 85, 117)  # 8 L U u


@kernel
def _closes(data: Bytes, i: int, stop: int, quote: int, word: int, word_end: int) -> int:
    """How many bytes at `i` close a string, 0 for none."""
    c = data[i]
    if quote == _RAW:
        size = word_end - word
        if c != 41 or i + size + 1 >= stop or data[i + size + 1] != 34:
            return 0
        for k in range(size):
            if data[i + 1 + k] != data[word + k]:
                return 0
        return size + 2
    if quote == _HASHED:
        size = word_end - word
        if c != 34 or i + size >= stop:
            return 0
        for k in range(size):
            if data[i + 1 + k] != 35:
                return 0
        return size + 1
    if quote == _VERBATIM:
        return 1 if c == 34 and (i + 1 >= stop or data[i + 1] != 34) else 0
    if c != quote:
        return 0
    if c == 96:
        return 1
    return 3 if _triple(data, i, stop) else 0


@kernel
def _blank_from(data: Bytes, at: int, stop: int) -> bool:
    for i in range(at, stop):  # noqa: SIM110
        if data[i] > 32:
            return False
    return True


@kernel
def _is_value(data: Bytes, start: int, i: int, last: int) -> bool:
    """Whether the string that begins at `i`, in a line that begins at `start`, is a value: behind an operator or bracket, a
    comma or `return`. `last`: the last byte of the lines before.
    """
    before = i - 1
    while before >= start and before >= i - 2 and 97 <= (data[before] | 32) <= 122:  # r b f u s
        before -= 1
    if before < start:
        return last in (40, 43, 44, 61, 91, 92, 123)  # ( + , = [ \ {
    if data[before] <= 32:
        while before > start and data[before] <= 32:
            before -= 1
        if begins(data, max(start, before - 5), before + 1, b"return"):
            return True
    return data[before] in (36, 40, 43, 44, 58, 61, 62, 64, 91, 123)  # $ ( + , : = > @ [ {


@kernel
def _is_verbatim(data: Bytes, start: int, i: int, stop: int) -> bool:
    """Whether the quote at `i` opens a verbatim string of C# that goes on in the next line: @", $@", @$". One of
    Objective-C ends in its line.
    """
    sign = i - 1
    if data[sign] == 36 and sign > start:  # $
        sign -= 1
    if data[sign] != 64:
        return False
    quotes = 0
    for k in range(i + 1, stop):
        if data[k] == 34:
            quotes += 1
            if data[k - 1] == 92:
                return False
    return quotes % 2 == 0


@kernel
def _opens(data: Bytes, start: int, i: int, stop: int) -> bool:
    """Whether the ` at `i` opens a string that goes on in the next line, with nothing or a comment in its first."""
    before = i - 1
    while before > start and data[before] <= 32:
        before -= 1
    after = i + 1
    while after < stop and data[after] <= 32:
        after += 1
    operator = before >= start and data[before] in (40, 43, 44, 58, 61)  # ( + , : =
    return (operator or begins(data, max(start, before - 5), stop, b"return")) and (
        after >= stop or data[after] in (35, 42, 45, 47, 59, 60)  # # * - / ; <
    )


@kernel
def _stands_alone(data: Bytes, at: int, end: int, word: int, word_end: int) -> bool:
    """Whether a line from `at` on begins with the word that ends a here-document."""
    fresh = True
    for i in range(at, end - (word_end - word) + 1):
        if fresh and data[i] > 32:
            k = 0
            while word + k < word_end and data[i + k] == data[word + k]:
                k += 1
            if word + k == word_end:
                return True
        fresh = data[i] in (10, 13) or (fresh and data[i] <= 32)
    return False
