"""Tell where comments, docstrings and errors are in strangers' text, by the trees of `stackbuild.syntax_trees`.

The tree is walked with a cursor from Python, since a compiled query takes quadratic time on a node with many children
(65,536 brackets: 6 s). The walk goes only where a comment, a docstring or an error can be, which is faster than a query
is.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from stackbuild.syntax_trees import GRAMMARS, load, tree_of

COMMENTS = frozenset(
    {
        "comment",
        "line_comment",
        "block_comment",
        "multiline_comment",
        "html_comment",
        "documentation_comment",
        "haddock",
    }
)

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
    name, marks = GRAMMARS[language]
    loaded, parser = load(language, "the stage syntax")
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
    return Grammar(parser, tuple(mark.encode() for mark in marks), numbers(*COMMENTS), **docs)


def parse(language: str, text: memoryview) -> Found | None:
    """Where comments, docstrings and errors are in a text of UTF-8; None if the parser needs more than a file may.

    Docstrings are Python's: a string, or strings beside each other, none of them bytes or formatted, that begin a
    module or the body of a class or function (PEP 257). Errors are the text under ERROR nodes; what is missing has no
    length.
    """
    known = grammar(language)
    tree = tree_of(known.parser, text)
    return None if tree is None else walk(tree, text, known)


def walk(tree: Any, text: memoryview, known: Grammar) -> Found:
    """The spans of a tree: every node is looked at that may hold a comment, a docstring or an error, in order."""
    found = Found()
    places = [*marks(text, known), len(text)]
    cursor, at = tree.walk(), 0
    within: list[_Within] = []  # the nodes that the cursor is in
    while True:
        node = cursor.node
        start, stop, kind = node.start_byte, node.end_byte, node.kind_id
        if places[at] < start:
            at = bisect_left(places, start, at)
        inside = broken = False
        if kind in known.comments:
            found.comments.append((start, stop))
        else:
            inside = places[at] < stop
            if node.is_error:
                found.errors.append((start, stop))
            elif node.has_error:
                inside = broken = True
            if within and within[-1].first and node.is_named:
                within[-1].first = False
                if kind in known.strings and _documents(within, known) and _plain(node, text):
                    found.docstrings.append((start, stop))
        if inside and _down(cursor, places[at], broken or kind in known.blocks or kind in known.modules):
            within.append(_Within(kind, stop, broken))
            continue
        if places[at] < stop:
            at = bisect_left(places, stop, at)
        while True:  # to the next node, out of those in which nothing is left to find
            if within and (within[-1].broken or places[at] < within[-1].stop) and cursor.goto_next_sibling():
                break
            if not cursor.goto_parent():
                return found
            within.pop()


@dataclass
class _Within:
    """A node that the walk is in: its kind, its end, whether an error is in it, whether but comments came so far."""

    kind: int
    stop: int
    broken: bool
    first: bool = True


def _down(cursor: Any, mark: int, all_: bool) -> bool:
    """Go to a node's first child, or to the first that ends behind a mark; whether there is one."""
    if all_:
        return bool(cursor.goto_first_child())
    return cursor.goto_first_child_for_byte(mark) is not None


def _documents(within: list[_Within], known: Grammar) -> bool:
    """Whether the first string in these nodes is a docstring."""
    if within[-1].kind in known.modules:
        return True
    return within[-1].kind in known.blocks and len(within) > 1 and within[-2].kind in known.bodies


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
    data, found = bytes(text), []
    for mark in known.marks:
        at = data.find(mark)
        while at >= 0:
            found.append(at)
            at = data.find(mark, at + 1)
    if known.strings:
        found += [match.start(match.lastindex) for match in _quotes().finditer(data)]
    return sorted(found)
