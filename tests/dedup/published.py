"""The rules of shingles in plain Python, as they were published."""

from __future__ import annotations

import re

from stackbuild.dedup.options import Shingling


def python_tokens(kind: str, text: str) -> list[str]:
    """The published rule, in Python."""
    if kind == "words":
        lower = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
        return re.findall(r"\w+", lower)
    if kind == "the-stack-v2":
        return re.split(r"\W", text.lower())
    tokens = re.split("[^A-Za-z_0-9]", text)
    return [token for token in tokens if token] if kind == "the-stack-v1" else tokens


def python_set(text: str, shingling: Shingling) -> set[tuple[str, ...]]:
    tokens, n = python_tokens(shingling.kind, text), shingling.ngram
    if len(tokens) < shingling.minimum:
        return set()
    return {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}
