"""Parse strangers' text with tree-sitter, within bounds, and tell where its comments, docstrings and errors are.

The grammars are those in the wheel of tree-sitter-language-pack 0.13.0 (later ones fetch them at run time). They are C
libraries without threads, so that they may be loaded before a process is forked.

tree-sitter has no bound of its own: recovery from errors can take time that grows with the square of the file. Three
bounds hold it: the size of a file (the caller's); how often the parser asks for the text again, which only happens when
it went back from the end; and `SECONDS` of CPU, some thirty times what the slowest file of 500 MB of real code took. A
file beyond one counts as not parsed. The clock is the one that could tell two machines apart, and only text that is
no code of its language comes near it; grammars that take long for ordinary code (Scala, Perl, R, Dart: long lists) are
not used. Memory is at most some 1 KB for each byte.

The tree is walked with a cursor from Python, since a compiled query takes quadratic time on a node with many children
(65,536 brackets: 6 s). The walk goes only where a comment, a docstring or an error can be, which is faster than a query
is.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from stackbuild.errors import MissingDependency

# Languages (as enry names them) whose grammar was tried on real code and on hostile text, and how a comment begins.
_C = ("//", "/*")
_SHARP = ("#",)
GRAMMARS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "Python": ("python", _SHARP),
    "Java": ("java", _C),
    "JavaScript": ("javascript", (*_C, "<!--", "-->")),
    "TypeScript": ("typescript", (*_C, "<!--", "-->")),
    "TSX": ("tsx", (*_C, "<!--", "-->")),
    "C": ("c", _C),
    "C++": ("cpp", _C),
    "C#": ("csharp", _C),
    "Go": ("go", _C),
    "Rust": ("rust", _C),
    "Ruby": ("ruby", ("#", "=begin")),
    "PHP": ("php", (*_C, "#")),
    "Shell": ("bash", _SHARP),
    "Kotlin": ("kotlin", _C),
    "Swift": ("swift", _C),
    "Lua": ("lua", ("--",)),
    "Haskell": ("haskell", ("--", "{-")),
    "Julia": ("julia", _SHARP),
    "CSS": ("css", ("/*",)),
    "Elixir": ("elixir", _SHARP),
    "Erlang": ("erlang", ("%",)),
    "Clojure": ("clojure", (";", "#!")),
}
COMMENTS = frozenset(
    {"comment", "line_comment", "block_comment", "multiline_comment", "html_comment", "documentation_comment"}
)

READS_FREE, BYTES_PER_READ = 200, 100  # real code asks for text at most 45 times
SECONDS = 10.0

Spans = list[tuple[int, int]]


@dataclass(frozen=True)
class Grammar:
    """A parser and the numbers of the nodes that are looked for. `marks`: how a comment begins; no other place is."""

    parser: Any
    marks: tuple[bytes, ...]
    comments: frozenset[int]
    bodies: frozenset[int] = frozenset()  # nodes whose body may begin with a docstring
    modules: frozenset[int] = frozenset()  # nodes that may begin with one themselves
    blocks: frozenset[int] = frozenset()  # what a body is
    strings: frozenset[int] = frozenset()


@dataclass
class Found:
    """Half-open spans in bytes, each list in order; those of a list may lie within each other."""

    comments: Spans = field(default_factory=list)
    docstrings: Spans = field(default_factory=list)
    errors: Spans = field(default_factory=list)


@cache
def grammar(language: str) -> Grammar:
    """The grammar of a language of GRAMMARS, loaded once for a process and its children."""
    try:
        import tree_sitter
        import tree_sitter_language_pack as pack
    except ImportError as error:
        raise MissingDependency(
            f"the stage syntax needs tree-sitter ({error}): pip install 'stackbuild[quality]'"
        ) from error
    name, marks = GRAMMARS[language]
    loaded: Any = pack.get_language(name)  # type: ignore[arg-type]
    kinds: dict[str, set[int]] = {}
    for number in range(loaded.node_kind_count):
        if loaded.node_kind_is_named(number):
            kinds.setdefault(loaded.node_kind_for_id(number) or "", set()).add(number)

    def numbers(*names: str) -> frozenset[int]:
        return frozenset(number for one in names for number in kinds.get(one, ()))

    docs = {}
    if name == "python":
        docs = {
            "bodies": numbers("function_definition", "class_definition"),
            "modules": numbers("module"),
            "blocks": numbers("block"),
            "strings": numbers("string", "concatenated_string"),
        }
    return Grammar(tree_sitter.Parser(loaded), tuple(mark.encode() for mark in marks), numbers(*COMMENTS), **docs)


def parse(language: str, text: memoryview) -> Found | None:
    """Where comments, docstrings and errors are in a text of UTF-8; None if the parser needs more than a file may.

    Docstrings are Python's: a string, or strings beside each other, none of them bytes or formatted, that begin a
    module or the body of a class or function (PEP 257). Errors are the text under ERROR nodes; what is missing has no
    length.
    """
    known = grammar(language)
    reads, most, end = 0, READS_FREE + len(text) // BYTES_PER_READ, time.thread_time() + SECONDS

    def read(offset: int, _: Any) -> memoryview:
        nonlocal reads
        reads += 1
        return text[offset:]

    try:
        tree = known.parser.parse(read, progress_callback=lambda *_: reads > most or time.thread_time() > end)
    except ValueError:  # stopped
        known.parser.reset()
        return None
    return walk(tree, text, known)


def walk(tree: Any, text: memoryview, known: Grammar) -> Found:
    """The spans of a tree: every node is looked at that may hold a comment, a docstring or an error, in order."""
    found = Found()
    places = marks(text, known)
    cursor, at, end = tree.walk(), 0, len(places)
    kinds: list[int] = []  # of the nodes that the cursor is within
    first: list[bool] = []  # whether but comments came before the next child of each
    while True:
        node = cursor.node
        start, stop, kind = node.start_byte, node.end_byte, node.kind_id
        if at < end and places[at] < start:
            at = bisect_left(places, start, at)
        if kind in known.comments:
            found.comments.append((start, stop))
            inside = False
        else:
            inside = at < end and places[at] < stop
            if node.is_error:
                found.errors.append((start, stop))
            elif node.has_error:
                inside = True
            if kinds and first[-1] and node.is_named:
                first[-1] = False
                if kind in known.strings and _documents(kinds, known) and _plain(node, text):
                    found.docstrings.append((start, stop))
        if inside and cursor.goto_first_child():
            kinds.append(kind)
            first.append(True)
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return found
            kinds.pop()
            first.pop()


def _documents(kinds: list[int], known: Grammar) -> bool:
    """Whether the first string within these nodes is a docstring."""
    if kinds[-1] in known.modules:
        return True
    return kinds[-1] in known.blocks and len(kinds) > 1 and kinds[-2] in known.bodies


_BEGINS = re.compile(rb"[rRuU]?[\"']")
MAX_PARTS = 1_000  # of strings beside each other that are looked at


def _plain(node: Any, text: memoryview) -> bool:
    """Whether a string node is neither bytes nor formatted, nor any part of one that has parts."""
    cursor = node.walk()
    if not _BEGINS.match(text[node.start_byte : node.start_byte + 2]):
        return False
    if node.type != "concatenated_string" or not cursor.goto_first_child():
        return True
    for _ in range(MAX_PARTS):
        part = cursor.node
        if part.type == "string" and not _BEGINS.match(text[part.start_byte : part.start_byte + 2]):
            return False
        if not cursor.goto_next_sibling():
            break
    return True


@cache
def _quotes() -> Any:
    """Where a docstring may begin: a quote that opens a line, or follows a colon that could end a head."""
    import re2

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    opens = rb"(?m)^[ \t\f]*([rRuU]?[\"'])|(?:\)[^\n:]*|^[ \t]*class[ \t][^\n:]*):[ \t]*([rRuU]?[\"'])"
    return re2.compile(opens, options)


def marks(text: memoryview, known: Grammar) -> list[int]:
    """Bytes at which a comment or a docstring may begin, in order: all at which one does."""
    data = np.frombuffer(text, np.uint8)
    places = [find(data, mark) for mark in known.marks]
    if known.strings:
        spans = (match.span(match.lastindex) for match in _quotes().finditer(bytes(text)))
        places.append(np.fromiter((start for start, _ in spans), np.int64))
    found: list[int] = np.unique(np.concatenate(places)).tolist()
    return found


def find(data: npt.NDArray[np.uint8], word: bytes) -> npt.NDArray[np.int64]:
    """Where a word begins in bytes, int64, overlapping ones too."""
    if len(data) < len(word):
        return np.zeros(0, np.int64)
    room = len(data) - len(word) + 1
    there = data[:room] == word[0]
    for k, byte in enumerate(word[1:], 1):
        there &= data[k : k + room] == byte
    return np.flatnonzero(there).astype(np.int64)
