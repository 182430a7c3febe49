"""`mode = "ast"`: the middle is a whole node of the syntax tree, or the cuts are those of characters."""

from __future__ import annotations

import ast
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from stackbuild.errors import MissingDependency
from stackbuild.tokens import fim_trees
from stackbuild.tokens.bpe import Vocabulary
from stackbuild.tokens.encode import LIBRARY, Encoder
from stackbuild.tokens.fast import NAME
from stackbuild.tokens.fim import Infiller, draws
from stackbuild.tokens.fim_options import FimOptions
from stackbuild.tokens.fim_trees import Asked, nodes
from stackbuild.tokens.fim_types import AST, NO_NODE, SPM, Draws, Treated

PYTHON = '''import os

class Ä:
    """Ein Text."""

    def größe(self, n=3):
        return [x * 2 for x in range(n) if x]


if __name__ == "__main__":
    print(Ä().größe())
'''
JAVA = 'class A {\n  /* note */ int f(int x) { return x + 1; }\n  String s = "a b";\n}\n'
JAVASCRIPT = "function f(a, b) {\n  if (a) { return b.map((x) => x + 1); }\n  return null;\n}\n"
TREES = FimOptions(mode="ast", spm_rate=0)
ROOM = 1 << 20


@pytest.fixture(scope="module")
def encoder(tokenizer: Path) -> Encoder:
    return Encoder(Vocabulary(tokenizer), NAME)


def treat(
    encoder: Encoder,
    texts: Sequence[str],
    languages: Sequence[str | None] | None,
    options: FimOptions = TREES,
    bits: Draws | None = None,
) -> Treated:
    pieces = encoder.encode_array(pa.array(texts, pa.large_string()))
    bits = bits or draws(1, 0, np.arange(len(texts)), 0)
    return Infiller(encoder, options).treat_many(pieces.ids, pieces.offsets, bits, ROOM, languages)


def middles(encoder: Encoder, done: Treated) -> list[tuple[str, str, str]]:
    """Prefix, middle and suffix of each fragment as text, in PSM."""
    found = []
    prefix, suffix, middle = Infiller(encoder).sentinels.tolist()
    for start, end in zip(done.offsets[:-1], done.offsets[1:], strict=True):
        ids = done.ids[start:end].tolist()
        one, two = ids.index(suffix), ids.index(middle)
        decode = encoder.vocabulary.decode
        assert ids[0] == prefix
        found.append((decode(ids[1:one]), decode(ids[two + 1 :]), decode(ids[one + 1 : two])))
    return found


@pytest.mark.parametrize(("language", "text"), [("Python", PYTHON), ("Java", JAVA), ("JavaScript", JAVASCRIPT)])
def test_the_middle_is_a_whole_node(encoder: Encoder, language: str, text: str) -> None:
    """All spans of named nodes by a walk of one's own over the whole tree."""
    tree = fim_trees.tree_of(fim_trees._parser(language), memoryview(text.encode()))
    spans, left = set(), [tree.root_node]
    while left:
        node = left.pop()
        left += node.children
        if node.is_named:
            spans.add((node.start_byte, node.end_byte))
    done = treat(encoder, [text] * 400, [language] * 400)
    with_node = (done.kinds & AST).astype(np.bool_)
    assert with_node.sum() > 300  # blanks between nodes are of the root alone
    assert ((done.kinds & NO_NODE).astype(np.bool_) == ~with_node).all()
    seen = set()
    for (prefix, middle, suffix), node in zip(middles(encoder, done), with_node, strict=True):
        assert prefix + middle + suffix == text
        start, end = len(prefix.encode()), len((prefix + middle).encode())
        if node:
            assert (start, end) in spans and 0 < end - start < len(text.encode())
            seen.add((start, end))
    assert len(seen) > 20
    assert max(end - start for start, end in seen) > len(text) // 3 and min(end - start for start, end in seen) < 3


def test_middles_of_python_are_nodes_of_its_own_parser(encoder: Encoder) -> None:
    """Functions, classes and calls are drawn that Python's own `ast` has at the same place."""
    lines = [0]
    for line in PYTHON.encode().splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    own = {
        (lines[node.lineno - 1] + node.col_offset, lines[node.end_lineno - 1] + node.end_col_offset): type(
            node
        ).__name__
        for node in ast.walk(ast.parse(PYTHON))
        if hasattr(node, "lineno")
    }
    done = treat(encoder, [PYTHON] * 400, ["Python"] * 400)
    kinds = set()
    for prefix, middle, _ in middles(encoder, done):
        kinds.add(own.get((len(prefix.encode()), len((prefix + middle).encode()))))
    assert {"ClassDef", "FunctionDef", "Return", "ListComp", "Call"} <= kinds


def test_without_a_grammar_a_tree_or_a_node_cuts_are_of_characters(encoder: Encoder) -> None:
    texts = [PYTHON, PYTHON, PYTHON, "   \n" * 5, ")))((( :: ]]][[[", "x" * (fim_trees.LARGEST + 1), PYTHON]
    languages = ["Python", None, "No such language", "Python", "Python", "Python", "Python"]
    bits = draws(1, 0, np.zeros(7, np.uint64), 0)
    done = treat(encoder, texts, languages, bits=bits)
    assert done.kinds.tolist() == [AST, *[NO_NODE] * 5, AST]
    plain = treat(encoder, texts, None, FimOptions(spm_rate=0), bits)
    assert not plain.kinds.any()
    for k in range(1, 6):
        some, other = (one.ids[one.offsets[k] : one.offsets[k + 1]].tolist() for one in (done, plain))
        assert some == other
    assert (treat(encoder, texts, None, bits=bits).kinds == NO_NODE).all()


def test_the_share_of_nodes_and_spm_have_their_rates(encoder: Encoder) -> None:
    count = 600
    options = FimOptions(mode="ast", ast_share=0.3, spm_rate=0.6)
    done = treat(encoder, ["f(x, y) + [1, 2]"] * count, ["Python"] * count, options)
    asked = int((done.kinds & (AST | NO_NODE)).astype(np.bool_).sum())
    assert abs(asked - 0.3 * count) <= 3 * (count * 0.21) ** 0.5
    assert abs(int((done.kinds & SPM).sum()) - 0.6 * count) <= 3 * (count * 0.24) ** 0.5


def test_the_library_backend_cuts_around_the_same_nodes(encoder: Encoder) -> None:
    texts, languages = [PYTHON, JAVA, JAVASCRIPT] * 20, ["Python", "Java", "JavaScript"] * 20
    fast = treat(encoder, texts, languages)
    slow = treat(Encoder(encoder.vocabulary, LIBRARY), texts, languages)
    assert slow.ids.tolist() == fast.ids.tolist() and slow.kinds.tolist() == fast.kinds.tolist()


def test_nodes_with_an_error_are_no_middles() -> None:
    text = b"def f(:\n  x = = 3\n\ndef g(y):\n    return y\n"
    asked = [Asked("Python", memoryview(text), k * 2**64 // 50, j * 2**64 // 9) for k in range(50) for j in range(3)]
    found = set(nodes(asked))
    tree = fim_trees.tree_of(fim_trees._parser("Python"), memoryview(text))
    broken, left = set(), [tree.root_node]
    while left:
        node = left.pop()
        left += node.children
        if node.has_error:
            broken.add((node.start_byte, node.end_byte))
    assert len(broken) > 1 and not broken & found
    assert any(span is not None for span in found)


def test_a_text_that_takes_too_long_or_crashes_the_parser_is_alone_in_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def hostile(parser: object, text: memoryview) -> object:
        if bytes(text) == b"forever":
            while True:
                pass
        if bytes(text) == b"crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        return real(parser, text)

    real = fim_trees.tree_of
    monkeypatch.setattr(fim_trees, "tree_of", hostile)
    monkeypatch.setattr(fim_trees, "SECONDS", 0.1)
    texts = [b"forever", b"f(x)\n", b"crash", b"g(y)\n", b"forever"]
    found = list(nodes([Asked("Python", memoryview(text), 0, 0) for text in texts]))
    assert [span is None for span in found] == [True, False, True, False, True]


@pytest.mark.parametrize("unit", ["x=>", "(", "[", "a<b(", "if x:\n ", "{-", "'"])
def test_hostile_text_ends(monkeypatch: pytest.MonkeyPatch, unit: str) -> None:
    monkeypatch.setattr(fim_trees, "SECONDS", 0.1)
    begun = os.times().children_user
    text = memoryview((unit * (65_536 // len(unit))).encode())
    list(nodes([Asked(language, text, 2**63, 2**63) for language in ("Python", "Java", "JavaScript")]))
    assert os.times().children_user - begun < 1


def test_without_tree_sitter_it_says_what_to_install(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tree_sitter_language_pack", None)
    fim_trees._parser.cache_clear()
    try:
        with pytest.raises(MissingDependency, match=r'mode = "ast" needs tree-sitter .*stackbuild\[quality\]'):
            treat(encoder, [PYTHON], ["Python"])
        assert not treat(encoder, [PYTHON], ["Python"], FimOptions(spm_rate=0)).kinds.any()
    finally:
        fim_trees._parser.cache_clear()
