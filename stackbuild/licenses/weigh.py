"""What of a file's evidence counts, by a policy: the engines tell all that they find, and what names no licence as such."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stackbuild.licenses.decide import UNKNOWN_REFERENCE
from stackbuild.licenses.expression import keys_of
from stackbuild.licenses.policy import Policy
from stackbuild.licenses.scancode import NOT_READ

OUR_KEYS = "LicenseRef-stackbuild-"

Row = Mapping[str, Any]  # of SAID


def weighed(read: Iterable[Row], policy: Policy) -> list[Row]:
    """What one file says of its folder (rows of SAID) that counts under a policy."""
    return what_counts([one for one in read if not one.get("globs")], policy)


def what_counts(said: list[Row], policy: Policy) -> list[Row]:
    """What counts under a policy of what one file says; see `PolicyData.counts` and `per_file`."""
    if policy.data.rule != "ranked":
        said = [one for one in said if not is_rider(one["expression"])]
    if policy.data.counts != "all":
        said = [one for one in said if not one.get("aside")]
    elif any(one.get("aside") for one in said):
        said = [one for one in said if one["expression"] is not None]  # an engine does recognise it
    if policy.data.counts == "named":
        said = [{**one, "expression": None} if one["expression"] == UNKNOWN_REFERENCE else one for one in said]
    named = [one for one in said if one["expression"] is not None]
    return [max(named, key=_confidence)] if policy.data.per_file == "top" and named else said


def _confidence(one: Row) -> tuple[float, int, int, str]:
    first, last = one.get("first_line") or 1, one.get("last_line") or 1
    return one["score"] or 0.0, last - first, -first, one["expression"]


def is_rider(expression: str | None) -> bool:
    """Whether an expression is of our riders alone: the published rules knew none."""
    keys = keys_of(expression or "")
    return bool(keys) and all(key.startswith(OUR_KEYS) and key != NOT_READ for key in keys)
