"""What benchmarks/near_dedup.py prints: Markdown tables, as they stand in docs/near-dedup.md."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.near_dedup_growth import Point, exponents

if TYPE_CHECKING:
    from benchmarks.near_dedup import Tool


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def speed_table(result: dict[str, Any], tools: Sequence[Tool]) -> str:
    mb = result["input"]["mb"]
    rows = []
    for tool in tools:
        if not tool.runs:
            rows.append([tool.name, "not measured", *[""] * 6, tool.missing or ""])
            continue
        cpu = tool.median("cpu")
        ratio = result["ratios"].get(tool.name)
        removed = f"{int(tool.outcome.removed.sum()):,}" if tool.outcome else ""
        rows.append(
            [
                tool.name, f"{mb / cpu:,.2f}", f"{cpu:,.1f}", f"{tool.median('wall'):,.1f}", f"{tool.median('tree_mb'):,.0f}",
                f"{tool.median('peak_mb'):,.0f}", removed, f"{ratio:,.1f}" if ratio else "", tool.settings,
            ]
        )  # fmt: skip
    head = ["", "MB/CPU-s", "CPU-s", "wall s", "tree MB", "process MB", "removed", "ours is × as fast", "how it is set"]
    signed = result["signatures"]
    cpu, startup = (statistics.median(run[name] for run in signed) for name in ("cpu", "startup"))
    said = [f"{result['input']['files']:,} files, {mb} MB of text. "]
    said.append(f"Signatures: {mb / cpu:,.0f} MB/CPU-s, start-up of {startup:.1f} CPU-s not counted. ")
    if first := result["first_run"]:
        said.append(f"The first run of ours, which compiles: {first['cpu']:.1f} CPU-s. ")
    counts = {len(tool.runs) for tool in tools if tool.runs}
    said.append(f"Medians of {' or '.join(map(str, sorted(counts)))} runs.\n\n")
    return "".join(said) + markdown(head, rows)


def quality_table(tools: Sequence[Tool]) -> str:
    rows = []
    for tool in tools:
        for one in tool.quality:
            bands = " / ".join(f"{share:.3f}" for share in one.recall_by_band)
            rows.append(
                [
                    tool.name, f"{one.judged_by} ({one.pairs:,})", f"{one.removed:,}", f"{one.kept_twin:.1%}",
                    "" if one.named_twin is None else f"{one.named_twin:.1%}",
                    f"{one.any_twin:.1%}", f"{one.recall:.1%}", bands, f"{one.precision:.0%}", f"{one.surviving:,}",
                    f"{one.found:.2%}", f"{one.found_high:.2%}",
                ]
            )  # fmt: skip
    head = ["", "judged by (pairs)", "removed", "kept twin", "names it", "any twin", "pair recall", ".70-.75 / .75-.80 / .80-.90 / >= .90",
            "cluster precision", "surviving pairs", "twin at >= 0.7 found", "twin at >= 0.8 found"]  # fmt: skip
    return markdown(head, rows)


def growth_table(points: Sequence[Point]) -> str:
    def share(value: float | None) -> str:
        return "" if value is None else f"{value:.2%}"

    rows = [
        [
            point.name, f"{point.mb:,.0f}", f"{point.files:,}", f"{point.cpu:,.1f}", f"{point.mb / point.cpu:,.1f}",
            f"{point.tree_mb:,.0f}", f"{point.worker_mb:,.0f}", f"{point.removed:,}", share(point.found),
            share(point.found_high),
        ] for point in points
    ]  # fmt: skip
    head = [
        "",
        "MB",
        "files",
        "CPU-s",
        "MB/CPU-s",
        "tree MB",
        "process MB",
        "removed",
        "planted >= 0.7 found",
        ">= 0.8",
    ]
    said = ", ".join(f"{value:.3f} ({name})" for name, value in exponents(points).items())
    return f"{markdown(head, rows)}\nExponent of CPU over bytes: {said}.\n"


def targets_table(result: dict[str, Any]) -> str:
    rows = []
    for one in result["targets"]:
        steps = " / ".join(
            f"{step:g} {'met' if met else 'not met'}" for step, met in zip(one["steps"], one["met"], strict=True)
        )
        rows.append([one["what"], f"{one['figure']:.4g}", steps])
    said = [f"{name}: {agreement}" for name, agreement in result["exact_join"].items() if agreement]
    more = f"\nThe package's exact join against the oracle: {'; '.join(said)}.\n" if said else ""
    return f"{markdown(['', 'figure', 'must / goal / stretch'], rows)}{more}\n{result['versions']}\n"
