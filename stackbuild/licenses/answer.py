"""What is said of one file, from everything but its own head: the evidence of its repository, ranked, and the decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stackbuild.licenses.decide import NOASSERTION, UNKNOWN_REFERENCE, Decision, decide, representatives
from stackbuild.licenses.expression import Keys, keys_of
from stackbuild.licenses.policy import Policy

Evidence = list[dict[str, Any]]  # rows of EVIDENCE


@dataclass(frozen=True)
class Spoken:
    """What evidence of one group says. `place`: of the group in the policy's order."""

    place: int
    keys: list[str]
    counting: Keys
    unrecognised: bool
    evidence: Evidence

    @property
    def refers(self) -> bool:
        """It says no more than that a licence stands elsewhere."""
        return not self.unrecognised and self.counting <= {UNKNOWN_REFERENCE}

    def has_license_file_below(self, depth: int) -> bool:
        """Whether a licence file decides that stands in a folder below one whose path has `depth` bytes; False if that is -1."""
        return depth >= 0 and any(
            one["kind"] == "license_file" and one["decides"] and len(one["path"].rpartition("/")[0].encode()) > depth
            for one in self.evidence
        )

    @classmethod
    def of_rule(cls, evidence: dict[str, Any], policy: Policy) -> Spoken | None:
        """What a path rule says; None if the policy does not read such rules. One that overrides or is added is a plain one
        where the policy does not tell them apart.
        """
        group_of = policy.data.group_of
        kind = evidence["kind"] if group_of(evidence["kind"]) is not None else "path_rule"
        place, expression = group_of(kind), evidence["expression"]
        if place is None:
            return None
        expressions = [expression] if expression else []
        keys = frozenset().union(*map(keys_of, expressions))
        counting = representatives(policy.keys(expressions), policy)
        return cls(place, sorted(keys), counting, not expressions, [{**evidence, "kind": kind, "decides": True}])


@dataclass(frozen=True)
class Answer:
    """What is said of a file: the decision, all keys, and the evidence, that which decides first."""

    decision: Decision
    keys: list[str]
    evidence: Evidence


def five_step_answer(spoken: Spoken | None, github: str | None, policy: Policy) -> Answer:
    """By the published rules: GitHub's id decides where it says something, else all that the files say."""
    keys, counting, unrecognised, evidence = (
        (spoken.keys, spoken.counting, spoken.unrecognised, spoken.evidence) if spoken else ([], frozenset(), False, [])
    )
    decides = github is not None and github != NOASSERTION
    if decides:
        evidence = _silenced(evidence)
    host = _host(github, decides)
    decision = decide(github, counting, policy, unrecognised)
    return Answer(decision, keys, [*host, *evidence] if decides else [*evidence, *host])


def strongest(spoken: Sequence[Spoken], github: str | None, policy: Policy) -> Answer:
    """By the strongest group that says more than that a licence stands elsewhere, of equal ones the first; GitHub's id is one
    of them.
    """
    host = policy.data.group_of("host")
    ranked = sorted(spoken, key=lambda one: (one.refers, one.place))
    if github is not None and host is not None:
        stronger = [one for one in ranked if not one.refers and one.place < host]
        if not stronger:
            rest = [words for one in ranked for words in _silenced(one.evidence)]
            return Answer(decide(github, frozenset(), policy), [], [*_host(github, True), *rest])
    if not ranked:
        return Answer(decide(None, frozenset(), policy), [], _host(github, False))
    first, *others = ranked
    rest = [words for one in others for words in _silenced(one.evidence)]
    decision = decide(None, first.counting, policy, first.unrecognised)
    return Answer(decision, first.keys, [*first.evidence, *rest, *_host(github, False)])


def _host(github: str | None, decides: bool) -> Evidence:
    if github is None:
        return []
    return [{"expression": github, "kind": "host", "engine": "github", "decides": decides}]


def _silenced(evidence: Evidence) -> Evidence:
    return [{**one, "decides": False} for one in evidence]
