"""The funnel: what each stage was given, what left by which rule, what it passed on. Read from the manifests alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackbuild.counts import Ledger

if TYPE_CHECKING:
    from rich.table import Table

    from stackbuild.plan import Build

# A job of the engine's own, which as a rule passes rows on as they are; then it has no line in the funnel.
UNTOLD = ("occurrences",)


def funnel_of(build: Build) -> list[dict[str, Any]]:
    """One entry for each stage, in order: counts and bytes of schema `Ledger`, and its rules with rows and bytes."""
    from stackbuild.ledger import check_ledger

    return [entry(stage, ledger) for stage, ledger in check_ledger(build) if stage not in UNTOLD or ledger.dropped]


def entry(stage: str, ledger: Ledger) -> dict[str, Any]:
    """A ledger as a JSON object, rules by falling count."""
    rules = dict(sorted(ledger.rules.items(), key=lambda item: (-item[1]["rows"], item[0])))
    return {"stage": stage, **{k: v for k, v in vars(ledger).items() if k != "rules"}, "rules": rules}


def funnel_table(funnel: list[dict[str, Any]]) -> Table:
    """The funnel for a terminal."""
    from rich.table import Table

    table = Table(title="What left, and by which stage", title_justify="left")
    table.add_column("stage")
    for name in ("files in", "left", "files out", "MB out", "kept"):
        table.add_column(name, justify="right")
    table.add_column("most by rule", overflow="fold")
    for stage in funnel:
        gone = stage["merged"] + stage["dropped"] + stage["quarantined"]
        kept = stage["rows_out"] / stage["rows_in"] if stage["rows_in"] else 1.0
        rules = ", ".join(f"{rule} {counts['rows']:,}" for rule, counts in list(stage["rules"].items())[:3])
        table.add_row(
            stage["stage"],
            f"{stage['rows_in']:,}",
            f"{gone:,}" if gone else "–",
            f"{stage['rows_out']:,}",
            f"{stage['bytes_out'] / 1e6:,.1f}",
            f"{kept:.1%}",
            rules,
        )
    return table
