"""Conditions that a rule may state: parsed, type-checked, and evaluated as Arrow kernels over a batch; never as Python.

    num_chars / num_lines > 200 and not (language in ["C", "C++"] or filename matches '^test_')

    condition  = both { "or" both }               words   = WORD | 'text' | "text"
    both       = one { "and" one }                 number  = term { ("+" | "-") term }
    one        = "not" one | "(" condition ")"     term    = factor { ("*" | "/") factor }
               | number COMPARISON number          factor  = "-" factor | NUMBER | MEASURE | "column." NAME
               | words ("==" | "!=") words                 | "(" number ")"
               | words "in" "[" text { "," text } "]"
               | words ("matches" | "contains") text

MEASURE is one of `measures.MEASURES`, `column.NAME` any number or boolean that a stage of the recipe makes, WORD one of
`WORDS`. Texts have no escapes. `matches` searches with RE2, which is linear in the text.

What cannot be measured (a share of nothing, a division by zero) makes a comparison neither true nor false, and so on
through "and", "or" and "not" (Kleene's logic); a file is dropped only by what is true. A word that is not known, such as
the language of a file that has none, is the empty text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.errors import RecipeError
from stackbuild.quality.measures import COMPARISONS, MEASURES

EXTENSION = "extension of a rule"  # a column that only the rules of one table see
MAX_CHARS = 4_000
MAX_DEPTH = 40
SHOWN = 8  # names of a condition whose values a decision has
SHOWN_CHARS = 120

Kind = Literal["number", "words", "truth"]
Column = Callable[[pa.RecordBatch], Any]  # an array of length n, or a scalar


class ExpressionError(ValueError):
    """A condition cannot be meant; says the character, counted from 1."""


@dataclass(frozen=True)
class Expression:
    """A condition over files. `named`: what it asks for, by the names that it uses."""

    text: str
    columns: tuple[str, ...]
    named: tuple[tuple[str, Column], ...]
    truth: Column

    @property
    def on_extension(self) -> bool:
        """Whether it asks for the extension of a file."""
        return any(name == "extension" for name, _ in self.named)

    def holds(self, files: pa.RecordBatch) -> pa.Array:
        """Where it is true, boolean of length n without nulls."""
        return pc.fill_null(self.truth(files), False)

    def told(self, files: pa.RecordBatch, rows: pa.Array) -> pa.Array:
        """The values that it has for some files, in words: string of length n, null for those that `rows` (boolean, n)
        leaves out."""
        some = files.filter(rows)
        pieces = [
            pc.binary_join_element_wise(f"{name} = ", pc.fill_null(_as_words(of(some)), "unknown"), "")
            for name, of in self.named[:SHOWN]
        ]
        words = pc.binary_join_element_wise(*pieces, ", ") if len(pieces) > 1 else pieces[0]
        place = np.cumsum(np.asarray(rows)) - 1
        return words.take(pa.array(place, mask=~np.asarray(rows)))


def _as_words(values: pa.Array) -> pa.Array:
    if pa.types.is_string(values.type):
        return pc.utf8_slice_codeunits(values, 0, SHOWN_CHARS)
    return pc.cast(values, pa.string())


# ---------------------------------------------------------------- what it may name


def _words(column: str) -> Column:
    return lambda files: pc.fill_null(pc.cast(files[column], pa.string()), "")


def _file_name(files: pa.RecordBatch) -> pa.Array:
    return pc.replace_substring_regex(_words("path")(files), r"(?s)^.*/", "")


# Word: the columns that it reads, and how it is had of them.
WORDS: Mapping[str, tuple[tuple[str, ...], Column]] = {
    "language": (("language",), _words("language")),
    "path": (("path",), _words("path")),
    "filename": (("path",), _file_name),
    "extension": (("path",), _words(EXTENSION)),
    "repo_name": (("repo_name",), _words("repo_name")),
    "src_encoding": (("src_encoding",), _words("src_encoding")),
    "license_type": (("license_type",), _words("license_type")),
}


# ---------------------------------------------------------------- reading one

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d{1,15}(?:\.\d{1,15})?)|(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?)"""
    r"""|(?P<text>"[^"]*"|'[^']*')|(?P<sign>>=|<=|==|!=|[-+*/()\[\],<>]))""",
    re.ASCII,
)
_SEARCHES: Mapping[str, Callable[[Any, str], Any]] = {
    "matches": pc.match_substring_regex,
    "contains": pc.match_substring,
}
_KEYWORDS = frozenset({"and", "or", "not", "in", *_SEARCHES})
_SUMS: Mapping[str, Callable[[Any, Any], Any]] = {"+": pc.add, "-": pc.subtract}


def _quotient(left: Any, right: Any) -> Any:
    return pc.divide(left, pc.if_else(pc.equal(right, 0.0), pa.scalar(None, pa.float64()), right))


_PRODUCTS: Mapping[str, Callable[[Any, Any], Any]] = {"*": pc.multiply, "/": _quotient}


@dataclass(frozen=True)
class _Token:
    kind: str  # number, name, text, sign, or end
    text: str
    place: int  # of its first character, from 1

    @property
    def shown(self) -> str:
        return f"{self.text!r}" if self.text else "the end"


@dataclass(frozen=True)
class _Part:
    """A part of a condition: what kind of value it has, and where it begins. `constant`: it is the same for all files."""

    kind: Kind
    of: Column
    place: int
    constant: bool = False


def parse(text: str) -> Expression:
    """Read a condition; ExpressionError if it is none, with the place."""
    if len(text) > MAX_CHARS:
        raise ExpressionError(f"the condition has {len(text):,} characters, more than {MAX_CHARS:,}")
    return _Parser(text).whole()


def _tokens(text: str) -> Iterator[_Token]:
    place, end = 0, len(text.rstrip())
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None:
            place += len(text[place:]) - len(text[place:].lstrip())
            raise ExpressionError(f"{text[place]!r} at character {place + 1} means nothing in a condition")
        assert match.lastgroup
        yield _Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup) + 1)
        place = match.end()
    yield _Token("end", "", end + 1)


class _Parser:
    """Recursive descent over the tokens of one condition."""

    def __init__(self, text: str):
        self.text, self.tokens, self.at, self.depth = text, list(_tokens(text)), 0, 0
        self.columns: dict[str, None] = {}
        self.named: dict[str, Column] = {}

    def whole(self) -> Expression:
        part = self.condition()
        if self.next.kind != "end":
            raise self.error("a condition ends before it")
        self.must(part, "truth", "a condition")
        if part.constant:
            raise ExpressionError("the condition names nothing of a file: it would hold for all or for none")
        return Expression(self.text, tuple(self.columns), tuple(self.named.items()), part.of)

    # ---- tokens

    @property
    def next(self) -> _Token:
        return self.tokens[self.at]

    def take(self, *words: str) -> str | None:
        """The next token if it is one of these (never a quoted text)."""
        token = self.next
        if token.kind in ("sign", "name") and token.text in words:
            self.at += 1
            return token.text
        return None

    def error(self, says: str) -> ExpressionError:
        return ExpressionError(f"{self.next.shown} at character {self.next.place}: {says}")

    def must(self, part: _Part, kind: Kind, place: str) -> None:
        if part.kind != kind:
            is_ = {"number": "a number", "words": "a text", "truth": "a condition"}[part.kind]
            help_ = "; compare it, as in num_lines > 100" if kind == "truth" else ""
            raise ExpressionError(f"what begins at character {part.place} is {is_}, where {place} is meant{help_}")

    # ---- conditions

    def condition(self) -> _Part:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error(f"more than {MAX_DEPTH} parentheses and signs are open")
        part = self.joined("or", pc.or_kleene, lambda: self.joined("and", pc.and_kleene, self.one))
        self.depth -= 1
        return part

    def joined(self, word: str, join: Callable[[Any, Any], Any], one: Callable[[], _Part]) -> _Part:
        part = one()
        while self.take(word):
            other = one()
            self.must(part, "truth", f"a condition before `{word}`")
            self.must(other, "truth", f"a condition after `{word}`")
            part = _both("truth", part, other, join)
        return part

    def one(self) -> _Part:
        if self.take("not"):
            part = self.guarded(self.one)
            self.must(part, "truth", "a condition after `not`")
            return _Part("truth", _of(pc.invert, part.of), part.place, part.constant)
        part = self.sums()
        if part.kind == "words" and (word := self.take("in", *_SEARCHES)):
            return self.membership(part) if word == "in" else self.search(part, word)
        sign = self.take(*COMPARISONS)
        if sign is None:
            return part
        other = self.sums()
        if part.kind != other.kind or part.kind == "truth":
            raise ExpressionError(
                f"{sign!r} compares two numbers or two texts, not what begins at character {part.place}"
            )
        if part.kind == "words" and sign not in ("==", "!="):
            raise ExpressionError(f"texts are compared with == and !=, not with {sign!r} (at character {part.place})")
        compared = _both("truth", part, other, COMPARISONS[sign])
        if self.next.text in COMPARISONS and self.next.kind == "sign":
            raise self.error("one comparison follows another; join two with `and`")
        return compared

    def membership(self, part: _Part) -> _Part:
        if not self.take("["):
            raise self.error('a list is meant, as in language in ["C", "C++"]')
        names = [self.quoted()]
        while self.take(","):
            names.append(self.quoted())
        if not self.take("]"):
            raise self.error("`,` or `]` is meant")
        values = pa.array(names, pa.string())
        return _Part("truth", _of(lambda found: pc.is_in(found, value_set=values), part.of), part.place, part.constant)

    def search(self, part: _Part, word: str) -> _Part:
        place, pattern, search = self.next.place, self.quoted(), _SEARCHES[word]
        try:
            search(pa.array([""]), pattern)
        except pa.ArrowInvalid as error:
            raise ExpressionError(f"the pattern at character {place} is not of RE2: {error}") from error
        return _Part("truth", _of(lambda found: search(found, pattern), part.of), part.place, part.constant)

    def quoted(self) -> str:
        if self.next.kind != "text":
            raise self.error("a text in quotation marks is meant")
        self.at += 1
        return self.tokens[self.at - 1].text[1:-1]

    # ---- values

    def sums(self) -> _Part:
        return self.computed(_SUMS, lambda: self.computed(_PRODUCTS, self.factor))

    def computed(self, signs: Mapping[str, Callable[[Any, Any], Any]], one: Callable[[], _Part]) -> _Part:
        part = one()
        while sign := self.take(*signs):
            other = one()
            self.must(part, "number", f"a number before `{sign}`")
            self.must(other, "number", f"a number after `{sign}`")
            part = _both("number", part, other, signs[sign])
        return part

    def factor(self) -> _Part:
        token = self.next
        if self.take("-"):
            part = self.guarded(self.factor)
            self.must(part, "number", "a number after `-`")
            return _Part("number", _of(pc.negate, part.of), token.place, part.constant)
        if self.take("("):
            part = self.condition()
            if not self.take(")"):
                raise self.error("`)` is meant")
            return _Part(part.kind, part.of, token.place, part.constant)
        if token.kind == "number":
            self.at += 1
            number = pa.scalar(float(token.text))
            return _Part("number", lambda files: number, token.place, True)
        if token.kind == "text":
            words = pa.scalar(self.quoted())
            return _Part("words", lambda files: words, token.place, True)
        if token.kind != "name" or token.text in _KEYWORDS:
            raise self.error("a measure, a number or a text is meant")
        self.at += 1
        return self.name(token)

    def guarded(self, one: Callable[[], _Part]) -> _Part:
        """What follows a sign, which may be another sign, and so on."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error(f"more than {MAX_DEPTH} parentheses and signs are open")
        part = one()
        self.depth -= 1
        return part

    def name(self, token: _Token) -> _Part:
        kind: Kind = "number"
        if token.text in MEASURES:
            columns, of = MEASURES[token.text].columns, MEASURES[token.text].of
        elif token.text in WORDS:
            kind, (columns, of) = "words", WORDS[token.text]
        elif token.text.startswith("column."):
            column = token.text.removeprefix("column.")
            columns, of = (column,), _number_column(column)
        else:
            raise ExpressionError(
                f"there is no measure {token.text!r} (character {token.place}); there are {', '.join(sorted(MEASURES))}; the "
                f"texts {', '.join(sorted(WORDS))}; and column.NAME"
            )
        self.columns.update(dict.fromkeys(columns))
        self.named[token.text] = of
        return _Part(kind, of, token.place)


def _number_column(column: str) -> Column:
    def of(files: pa.RecordBatch) -> pa.Array:
        try:
            return pc.cast(files[column], pa.float64())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise RecipeError(f"column.{column} in a rule: it is of type {files[column].type}, no number") from error

    return of


def _of(function: Callable[[Any], Any], of: Column) -> Column:
    return lambda files: function(of(files))


def _both(kind: Kind, left: _Part, right: _Part, join: Callable[[Any, Any], Any]) -> _Part:
    a, b = left.of, right.of
    return _Part(kind, lambda files: join(a(files), b(files)), left.place, left.constant and right.constant)
