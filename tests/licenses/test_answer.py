"""Which evidence of a repository decides, and what is shown beside it."""

from __future__ import annotations

from typing import Any

from stackbuild.licenses.answer import Answer, Spoken, five_step_answer, strongest
from stackbuild.licenses.decide import UNKNOWN_REFERENCE
from stackbuild.licenses.policy import load_policy

OURS, V2 = load_policy("stackbuild"), load_policy("the-stack-v2")


def spoken(kind: str, *keys: str, unrecognised: bool = False, policy: Any = OURS) -> Spoken:
    place = policy.data.group_of(kind)
    assert place is not None
    evidence = [{"kind": kind, "expression": key, "decides": True} for key in keys or (None,)]
    return Spoken(place, list(keys), frozenset(keys), unrecognised, evidence)


def told(answer: Answer) -> tuple[str, list[tuple[str, bool]]]:
    return answer.decision.license_class, [(one["kind"], one["decides"]) for one in answer.evidence]


def test_the_strongest_group_decides_whatever_order_it_comes_in() -> None:
    rule, file = spoken("path_rule", "GPL-3.0-only"), spoken("license_file", "MIT")
    expected = ("non_permissive", [("path_rule", True), ("license_file", False)])
    assert told(strongest([file, rule], None, OURS)) == told(strongest([rule, file], None, OURS)) == expected
    assert strongest([file, rule], None, OURS).keys == ["GPL-3.0-only"]


def test_what_only_refers_is_weaker_than_all_that_does_not() -> None:
    reference, notice = spoken("license_file", UNKNOWN_REFERENCE), spoken("notice", "MIT")
    assert told(strongest([reference, notice], None, OURS)) == (
        "permissive",
        [("notice", True), ("license_file", False)],
    )
    assert told(strongest([reference], "MIT", OURS)) == ("permissive", [("host", True), ("license_file", False)])
    assert told(strongest([reference], None, OURS))[0] == "unknown"


def test_the_host_decides_where_nothing_else_speaks() -> None:
    assert told(strongest([], "GPL-3.0", OURS)) == ("non_permissive", [("host", True)])
    assert told(strongest([], "NOASSERTION", OURS))[0] == "unknown"
    assert told(strongest([], None, OURS)) == ("no_license", [])
    assert told(strongest([spoken("notice", "MIT")], "GPL-3.0", OURS)) == (
        "permissive",
        [("notice", True), ("host", False)],
    )
    unknown = spoken("license_file", unrecognised=True)
    assert told(strongest([unknown], "MIT", OURS)) == ("unknown", [("license_file", True), ("host", False)])


def test_a_policy_may_put_the_host_before_others_or_leave_it_out() -> None:
    first = load_policy("stackbuild", order=[["host"], ["license_file"]])
    assert told(strongest([spoken("license_file", "MIT", policy=first)], "GPL-3.0", first)) == (
        "non_permissive", [("host", True), ("license_file", False)]
    )  # fmt: skip
    without = load_policy("stackbuild", order=[["license_file"]])
    assert told(strongest([], "MIT", without)) == ("no_license", [("host", False)])


def test_by_the_published_rules_githubs_id_silences_the_files() -> None:
    file = spoken("license_file", "GPL-3.0-only", policy=V2)
    assert told(five_step_answer(file, "MIT", V2)) == ("permissive", [("host", True), ("license_file", False)])
    assert told(five_step_answer(file, "NOASSERTION", V2)) == (
        "non_permissive",
        [("license_file", True), ("host", False)],
    )
    assert told(five_step_answer(None, None, V2)) == ("no_license", [])


def test_a_path_rule_without_a_known_licence_is_unknown() -> None:
    evidence = {"path": "/REUSE.toml", "kind": "path_rule", "expression": None}
    rule = Spoken.of_rule(evidence, OURS)
    assert rule is not None and strongest([rule], "MIT", OURS).decision.license_class == "unknown"
    assert Spoken.of_rule(evidence, V2) is None


def test_a_policy_that_knows_plain_rules_alone_takes_the_others_as_such() -> None:
    plain = load_policy("stackbuild", order=[["header"], ["license_file"], ["path_rule"]])
    for kind in ("override", "aggregate", "path_rule"):
        rule = Spoken.of_rule({"path": "/REUSE.toml", "kind": kind, "expression": "GPL-3.0-only"}, plain)
        assert rule is not None and (rule.place, rule.evidence[0]["kind"]) == (2, "path_rule")
        ours = Spoken.of_rule({"path": "/REUSE.toml", "kind": kind, "expression": "GPL-3.0-only"}, OURS)
        assert ours is not None and (ours.place, ours.evidence[0]["kind"]) == (OURS.data.group_of(kind), kind)
