"""Middles that are whole nodes of the syntax tree, for `mode = "ast"` (the idea: arXiv:2506.00204).

A byte of the text is drawn, then one of the named nodes that hold it, from the largest to the smallest, each as likely as
the others: so middles are of all sizes, and the larger a node the more often one of its parts is drawn. Not among them
are nodes of the whole text, and those in which the parser found an error; of nodes with the same span one counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

from stackbuild.syntax_trees import GRAMMARS, in_forks, load, tree_of

LARGEST = 1 << 18  # bytes of a text that is parsed
SECONDS = 5.0  # of CPU for one text, some thirty times what real ones of that size take: a clock must decide nothing about them
DEEPEST = 10_000  # nodes around a byte that are looked at


class Asked(NamedTuple):
    """A fragment for which a node is wanted; the draws are uint64."""

    language: str  # as enry names it
    text: memoryview  # UTF-8
    first: int
    second: int


@cache
def _parser(language: str) -> Any:
    return load(language, 'fill-in-the-middle with mode = "ast"')[1]


def nodes(files: Sequence[Asked]) -> Iterator[tuple[int, int] | None]:
    """For each fragment the bytes of the node that is drawn, half open; None where there is no grammar, no tree, or no
    fitting node, or the parser did not end in time.

    Texts are parsed in forks of this process (`stackbuild.syntax_trees`). MissingDependency without tree-sitter.
    """
    for language in sorted({file.language for file in files if file.language in GRAMMARS}):
        _parser(language)
    parsed = in_forks(
        [file for file in files if _fits(file)],
        drawn,
        SECONDS,
        lambda file: f"{len(file.text):,} bytes of {file.language}",
    )
    for file in files:
        yield next(parsed) if _fits(file) else None


def _fits(file: Asked) -> bool:
    return file.language in GRAMMARS and 0 < len(file.text) <= LARGEST


def drawn(file: Asked) -> tuple[int, int] | None:
    """The span of the node that is drawn, or None; in this process."""
    tree = tree_of(_parser(file.language), file.text)
    if tree is None:
        return None
    spans = around(
        tree, (file.first * len(file.text)) >> 64, file.text
    )  # `counter.below`, which a fork would have to load
    return spans[(file.second * len(spans)) >> 64] if spans else None


def around(tree: Any, byte: int, text: memoryview) -> list[tuple[int, int]]:
    """The spans of the fitting nodes that hold a byte, from the largest to the smallest."""
    cursor = tree.walk()
    spans: list[tuple[int, int]] = []
    for _ in range(DEEPEST):
        node = cursor.node
        start, stop = node.start_byte, node.end_byte
        if not start <= byte < stop:  # between nodes, or a node without text
            break
        if (
            node.is_named
            and stop - start < len(text)
            and not node.has_error
            and not node.is_missing
            and (start, stop) not in spans[-1:]
            and not any(at < len(text) and text[at] & 0xC0 == 0x80 for at in (start, stop))
        ):
            spans.append((start, stop))
        if cursor.goto_first_child_for_byte(byte) is None:
            break
    return spans
