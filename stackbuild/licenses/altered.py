"""What a text with a permissive answer holds that no known licence says: a changed grant, or terms of its own.

Names of licences are found in any text: in terms of somebody's own that mention a component, and in Apache-2.0 with a grant
"for internal evaluation only", of which the title and the notice at its end are still word for word. So where no engine knows
the text as a whole, ScanCode's approximate matches align it with the rules that it comes near to, and two things are asked:

- of an alignment with a licence's text, whether words were added that restrict, or words left out that grant;
- of what no match covers, if that is most of the text, whether it binds whoever reads it.

And the conditions and the disclaimer of MIT alone are a rule of ScanCode's that names no licence and grants nothing.
Where a text has no more of a licence than such and a name, what else it says is its grant, which nobody knows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from stackbuild.apart import apart
from stackbuild.licenses.scancode import Aligned, Match, aligned

CHANGED = "LicenseRef-stackbuild-modified"
OWN_TERMS = "LicenseRef-stackbuild-own-terms"  # in no list, so unknown
ENGINE = "stackbuild altered 2"

MAX_CHARS = 64 << 10  # what is aligned, as for other approximate matches
LEAST_WORDS = 40  # of a text that has room for terms
ENOUGH = 0.9  # of the words in exact matches: nothing is left to ask
MOSTLY = 0.5  # of the words in any match
MOST_MATCHES = 200  # exact ones; with more a text is a list, and aligning it takes seconds
GENERIC, DISCLAIMER = "LicenseRef-scancode-other-permissive", "LicenseRef-scancode-warranty-disclaimer"
FEW_WORDS = 12
OF_A_TEXT = 30  # words from which on an alignment is with the text of a licence and not with a notice

_RESTRICTING_WORDS = (
    "only solely exclusively evaluation evaluate internal internally not no non noncommercial commercial commercially student "
    "students personal personally private educational academic research except unless until prohibited forbidden must denied "
    "deny revocable revoked revoke nobody company companies employees individuals hobbyists military nonprofit paid pay payment "
    "purchase subscription trial consent teaching education learning study hobby demonstration testing fee fees charge charges "
    "expires days months but however approval approved registered notify request"
)
_GRANTING_WORDS = (
    "grant grants granted permission permitted permits perpetual irrevocable reproduce redistribute redistribution distribute "
    "modify modification modifications sublicense sell royalty charge fee free use person any with without source object copy "
    "publish merge"
)
_RESTRICTING, _GRANTING = frozenset(_RESTRICTING_WORDS.split()), frozenset(_GRANTING_WORDS.split())
_WORD = re.compile(r"[^\W_]+")
_BINDS = re.compile(
    r"\b(?:you|licensees?|users?|customers?|recipients?|parties|party|whoever|anyone) (?:\w+ ){0,2}"
    r"(?:may|must|shall|can|cannot|agrees?|accepts?|acknowledges?|warrants?)\b"
    r"|\b(?:must|shall|may) not\b"
    r"|\b(?:is|are|be) (?:not )?(?:prohibited|forbidden|permitted|allowed|granted|licensed|authori[sz]ed|restricted)\b"
    r"|\b(?:property|customers|employees|partners|members) of\b|\bowned by\b|\bterms (?:of|and)\b|\bend[- ]user\b|\btrade secrets?\b"
    r"|\bconfidential\b|\bproprietary\b|\bagreement\b|\bown terms\b|\b(?:no|nobody|none) \w+ (?:right|permission|licen[cs]e)"
)


def altered(form: str, exact: Sequence[Match]) -> dict[str, tuple[int, int]]:
    """The keys of what a form with a permissive answer, which no engine knows as a whole, says beside known licences, each with
    its first and last line (from 0). `exact`: ScanCode's exact matches.
    """
    text = form[:MAX_CHARS]
    words = len(_WORD.findall(text))
    lines = text.split("\n")
    own = _without_grant(lines, exact)
    covered = sum(one.words for one in exact if one.last < len(lines))
    if words < LEAST_WORDS or covered >= ENOUGH * words:
        return own
    near: Sequence[Aligned | Match] = apart(aligned, text, OF_A_TEXT) if len(exact) <= MOST_MATCHES else exact
    found: dict[str, tuple[int, int]] = {}
    for one in near:
        if isinstance(one, Match):
            continue
        added, dropped = Counter(one.added), Counter(one.dropped)  # what is in both was moved
        if not _RESTRICTING.isdisjoint(added - dropped) or not _GRANTING.isdisjoint(dropped - added):
            found.setdefault(CHANGED, (one.first, one.last))
    if sum(one.words for one in near) < MOSTLY * words:
        known = {line for one in near for line in range(one.first, one.last + 1)}
        rest = [number for number in range(len(lines)) if number not in known]
        if _BINDS.search(" ".join(lines[number] for number in rest)):
            found[OWN_TERMS] = rest[0], rest[-1]
    return found or own


def _without_grant(lines: list[str], exact: Sequence[Match]) -> dict[str, tuple[int, int]]:
    """What else a text says whose only matches of more than a few words are generic, as its own terms; nothing if there is
    another match, or there are no more than `FEW_WORDS`.
    """
    long = {one.expression for one in exact if one.words >= OF_A_TEXT} - {DISCLAIMER}
    if long != {GENERIC}:
        return {}
    known = {line for one in exact for line in range(one.first, one.last + 1)}
    rest = [number for number in range(len(lines)) if number not in known]
    many = sum(len(_WORD.findall(lines[number])) for number in rest) > FEW_WORDS
    return {OWN_TERMS: (rest[0], rest[-1])} if many else {}
