r"""Near-duplicates told in plain Python, slowly: what the stage is held against. Nothing of `stackbuild` is imported.

A file is a dict: `content_id`, `text`, `language`, `license_class`, `star_events_count`, `fork_events_count`,
`revision_date`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

LICENSES = ["permissive", "no_license", "unknown", "weak_copyleft", "non_permissive"]  # best first
MOST_HEADERS = 8
DIRECTIVES = "if|elif|else|endif|include|import|define|undef|pragma|error|warning|line|region|nullable"
LICENCE_WORDS = re.compile("copyright|licen[sc]e|spdx", re.I | re.A)
BLOCK_COMMENTS = [r"/\*.*?\*/", r"<!--.*?-->", r"\{-.*?-\}", r"\(\*.*?\*\)"]
LINE_MARKERS = ["//", "--", rf"\#(?!\[|!\[|{DIRECTIVES})", ";", "%"]
LINES = [rf"{m}[^\n]*(?:\n|\Z)(?:[ \t]*{m}[^\n]*(?:\n|\Z))*" for m in LINE_MARKERS]
COMMENT = re.compile("|".join(BLOCK_COMMENTS + LINES), re.S | re.I | re.A)
OPENING = re.compile(r"\ufeff?(?:<\?php|<\?xml.*?\?>)?", re.S | re.I | re.A)

File = Mapping[str, Any]
Pairs = dict[tuple[int, int], float]


def without_licences(text: str) -> str:
    """The text with a space in place of each leading comment that speaks of licence or copyright."""
    kept, begin, headers = "", 0, 0
    at = OPENING.match(text).end()
    while headers < MOST_HEADERS:
        at += len(re.match(r"[ \t-\r]*", text[at:]).group())
        comment = COMMENT.match(text, at)
        if not comment:
            break
        if LICENCE_WORDS.search(comment.group()):
            kept += text[begin:at] + " "
            begin, headers = comment.end(), headers + 1
        at = comment.end()
    return kept + text[begin:]


def shingles(text: str, ngram: int = 5, header_blind: bool = True) -> set[tuple[str, ...]]:
    r"""The n-grams of the runs of `\w`, in lower case character by character; one that would become two stays."""
    words = re.findall(r"\w+", without_licences(text) if header_blind else text)
    words = ["".join(c.lower() if len(c.lower()) == 1 else c for c in word) for word in words]
    return {tuple(words[i : i + ngram]) for i in range(len(words) - ngram + 1)}


def jaccard(a: set[Any], b: set[Any]) -> float:
    """|A and B| / |A or B|, 0.0 for two empty sets."""
    return len(a & b) / len(a | b) if a or b else 0.0


def pairs(
    files: Sequence[File], threshold: float, ngram: int = 5, header_blind: bool = True, scope: str = "language"
) -> Pairs:
    """The similarity of every pair of files of one scope that reaches the threshold; (i, j) with i < j."""
    sets = [shingles(file["text"], ngram, header_blind) for file in files]
    found = {}
    for i, j in combinations(range(len(files)), 2):
        similarity = jaccard(sets[i], sets[j])
        if similarity >= threshold and (scope == "global" or files[i]["language"] == files[j]["language"]):
            found[i, j] = similarity
    return found


def order(file: File) -> tuple[Any, ...]:
    """What the default recipe sorts by, best first: licence, stars, forks, date, then the smaller id; nulls last."""
    licence = file["license_class"]
    ranks = [LICENSES.index(licence) if licence in LICENSES else None]
    for name in ("star_events_count", "fork_events_count", "revision_date"):
        ranks.append(None if file[name] is None else -file[name])
    return (*((rank is None, rank or 0) for rank in ranks), file["content_id"])


def survivors(files: Sequence[File], known: Pairs) -> list[tuple[int, float] | None]:
    """For each file None if it stays, else (the kept file in its place, their similarity), by the stage's rule: best
    first, a file leaves for the most similar file kept before it.
    """
    near: list[dict[int, float]] = [{} for _ in files]
    for (i, j), similarity in known.items():
        near[i][j] = near[j][i] = similarity
    places = sorted(range(len(files)), key=lambda i: order(files[i]))
    kept: list[int] = []
    result: list[tuple[int, float] | None] = [None] * len(files)
    for i in places:
        twins = [j for j in kept if j in near[i]]
        if twins:
            best = max(twins, key=lambda j: (near[i][j], -kept.index(j)))
            result[i] = best, near[i][best]
        else:
            kept.append(i)
    return result


def clusters(files: Sequence[File], known: Pairs) -> list[set[int]]:
    """The connected component of each file."""
    component = [{i} for i in range(len(files))]
    for i, j in known:
        if component[i] is not component[j]:
            component[i] |= component[j]
            for other in component[j]:
                component[other] = component[i]
    return component
