"""ScanCode's index with approximate matches of our own, which are ScanCode's match for match."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from licensedcode.index import LicenseIndex, match_blocks_seq
from licensedcode.match import merge_matches
from licensedcode.match_seq import match_sequence

from stackbuild.licenses.near import Rules
from stackbuild.licenses.scancode import rule_tokens

WHOLE_RULES, PART_RULES = 10, 70  # that are aligned with a whole text, and with a part of one
# Of matches, before they are merged: the words of GPL-3.0 shuffled give 6,000, real texts below 3,000.
MAX_FRAGMENTS = 6_000


class NearIndex(LicenseIndex):  # type: ignore[misc]
    """ScanCode's index, with which it shares all data, but for how a text is compared with the rules that come near."""

    __slots__ = ("near",)

    def __init__(self, index: LicenseIndex):
        for name in LicenseIndex.__slots__:
            setattr(self, name, getattr(index, name))
        self.near = Rules(index)

    def get_approximate_matches(
        self, query: Any, matched_qspans: Sequence[Any], existing_matches: Any, **_: Any
    ) -> list[Any]:
        """Matches with the rules that the text as a whole is near to, and with those that each part of it is. No deadline is
        heeded: what is found must not depend on the clock. A text that falls into more than `MAX_FRAGMENTS` is aligned no further.
        """
        whole = query.whole_query_run()
        rules = self.near.candidates(whole.matchable_tokens(), WHOLE_RULES, near=True)
        found = self._aligned(whole, rules, matched_qspans)
        for match in found:
            query.subtract(match.qspan)
        for part in query.query_runs:
            if len(found) > MAX_FRAGMENTS:
                break
            rules = self.near.candidates(part.matchable_tokens(), PART_RULES, near=False)
            found += self._aligned(part, rules, matched_qspans)
        return found

    def _aligned(self, part: Any, rules: list[int], matched: Sequence[Any]) -> list[Any]:
        """What the alignment of each of some rules with a part of a text matches, merged."""
        if not rules or not part.is_matchable(include_low=False, qspans=matched):
            return []
        legalese = np.unique([token for token in part.matchable_tokens() if 0 <= token < self.len_legalese])
        found: list[Any] = []
        for rule in rules:
            if len(found) > MAX_FRAGMENTS:
                break
            places = _places(rule_tokens(self, rule), legalese)
            start = 0
            while again := match_sequence(
                self,
                self.rules_by_rid[rule],
                part,
                high_postings=places,
                start_offset=start,
                match_blocks=match_blocks_seq,
            ):
                found += again
                end = max(match.qend for match in again)
                if end + 1 >= part.end:
                    break
                start = end + 1
        return list(merge_matches(found))


def _places(tokens: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> dict[int, list[int]]:
    """Where each of the wanted words stands among the tokens of a rule."""
    places: dict[int, list[int]] = {}
    rows = np.flatnonzero(np.isin(tokens, wanted))
    for place, token in zip(rows.tolist(), tokens[rows].tolist(), strict=True):
        places.setdefault(token, []).append(place)
    return places
