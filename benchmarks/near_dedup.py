"""Near-duplicates, Parquet to Parquet: ours against datatrove, text-dedup, datasketch, rensa and gaoya, in CPU, memory and quality.

    python -m benchmarks.near_dedup PARQUET ... [--rounds 3] [--peers NAME,... | --peers none] [--cached] [--growth] [--json]

The input has the columns id and text (and repo for --growth): the corpus of benchmarks/corpus.py, small or whole. Every
run is a process tree of its own; all take turns; figures are medians of the rounds, with imports and cached compilation
counted. A tool whose first run takes more CPU-seconds than --patience is not run again. Ours runs once before, with an
empty compilation cache, which is told apart. Each peer (`near_dedup_peers.py`, `peers/`) has a virtual environment below
--cache, where its results are kept too: with --cached a peer that ran before on the same files is not run again.

The quality table sets what each did against all exact pairs at J >= 0.7 (`near_dedup_oracle.py`), of the plain words' 5-grams
for the peers, and for ours of those without licence headers, as it is set. --growth measures ours at several sizes, up to
5 GB of generated files (`near_dedup_growth.py`; some 10 minutes and 2 GB of disk).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import NotMeasured, Run, versions
from benchmarks.near_dedup_growth import Point, exponents, measured
from benchmarks.near_dedup_ours import run_signatures, run_whole
from benchmarks.near_dedup_peers import PEERS, Input, Outcome, Peer, Results, digest, opened, run_peer
from benchmarks.near_dedup_quality import Quality, exact, judge, same_pairs

SIGNATURES, WHOLE, WORKER_MB, FOUND, FOUND_HIGH, KEPT_TWIN, EXPONENT = (
    "signatures from Parquet, MB/CPU-s",
    "whole, MB/CPU-s",
    "peak memory of a worker, MB",
    "files with a twin at J >= 0.7 found",
    "files with a twin at J >= 0.8 found",
    "removed files with a kept twin",
    "exponent of CPU over bytes",
)
# On the whole corpus: must, goal and stretch (of signatures: what the machine could do), or one step.
TARGETS: dict[str, tuple[float, ...]] = {
    SIGNATURES: (150, 200, 371),
    WHOLE: (60, 75, 90),
    WORKER_MB: (300,),
    FOUND: (0.995,),
    FOUND_HIGH: (0.999,),
    KEPT_TWIN: (1.0,),
    EXPONENT: (1.05,),
}
AT_MOST = (WORKER_MB, EXPONENT)

HEADERS = "ours, headers count"
OURS: dict[str, tuple[str, ...] | None] = {  # more words for the command; None: the table in memory
    "ours": (),
    HEADERS: ("--headers",),
    "ours, exact mode": ("--mode", "exact"),
    "ours, in memory": None,
}


@dataclass(eq=False)
class Tool:
    """One line of the tables. `run`: one run of it; `key`: under which a peer's results are kept."""

    name: str
    run: Callable[[], tuple[Run, Outcome]]
    settings: str
    key: str | None = None
    runs: list[Run] = field(default_factory=list)
    outcome: Outcome | None = None
    missing: str | None = None
    quality: list[Quality] = field(default_factory=list)

    @property
    def is_ours(self) -> bool:
        return self.key is None

    def try_run(self) -> Run | None:
        """One run, and what it did; None, and why, if it cannot be had."""
        try:
            run, self.outcome = self.run()
        except NotMeasured as reason:
            self.missing = last_line(reason)
        print(f"{self.name}: {self.missing or f'{run.cpu:.1f} CPU-s, {run.wall:.1f} s'}", file=sys.stderr)
        return None if self.missing else run

    def median(self, figure: str) -> float:
        return statistics.median(getattr(run, figure) for run in self.runs)


def main() -> None:
    asked = arguments().parse_args()
    cache: Path = asked.cache
    cache.mkdir(parents=True, exist_ok=True)
    with opened(asked.parquet, cache) as given, tempfile.TemporaryDirectory(dir=cache, prefix="compiled-") as compiled:
        env = {"NUMBA_CACHE_DIR": compiled}
        tools = [ours(name, given, cache, env, asked.workers) for name in OURS]
        tools += [peer(one, given, cache, asked.workers) for one in PEERS if one.name in asked.peers]
        first = warm_up(tools, given, env)
        signed = take_turns(tools, given, env, asked, Results(cache))
        agreement = quality(tools, given, cache)
        points: list[Point] = []
        if asked.growth:
            points = measured(given, cache, env, asked.workers, asked.growth_rounds, asked.generated_mb)
        result = told(tools, given, signed, first, agreement, points)
    if asked.json:
        print(json.dumps(result))
    else:
        show(result, tools, points)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "stackbuild" / "benchmarks" / "near_dedup"
    parser.add_argument("parquet", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patience", type=float, default=300, help="CPU-seconds from which a tool is run once")
    parser.add_argument("--peers", type=lambda names: names.split(","), default=[one.name for one in PEERS])
    parser.add_argument("--workers", type=int, default=2, help="processes or threads of the tools that can have some")
    parser.add_argument(
        "--cache", type=Path, default=home, help="environments of peers, their results, generated files"
    )
    parser.add_argument("--cached", action="store_true", help="do not run a peer that ran before on these files")
    parser.add_argument("--growth", action="store_true", help="ours at several sizes")
    parser.add_argument("--growth-rounds", type=int, default=1)
    parser.add_argument("--generated-mb", type=float, default=5000)
    parser.add_argument("--json", action="store_true", help="print one object")
    return parser


# ---------------------------------------------------------------- running


def ours(name: str, given: Input, cache: Path, env: dict[str, str], workers: int) -> Tool:
    way = "exact join" if "exact" in name else "42 bands of 6, exact check"
    settings = f"{way}; {'licence headers counted' if name == HEADERS else 'header-blind'}"
    return Tool(name, lambda: run_whole(OURS[name], given, cache, env, workers), settings)


def peer(one: Peer, given: Input, cache: Path, workers: int) -> Tool:
    key = digest(one.key, given.key, str(workers))
    return Tool(one.name, lambda: run_peer(one, given, cache, workers), f"{one.version}: {one.settings}", key)


def warm_up(tools: Sequence[Tool], given: Input, env: dict[str, str]) -> Run | None:
    """Fill the compilation cache; return the very first run of ours."""
    first = None
    for tool in tools:
        if tool.is_ours:
            run = tool.try_run()
            first = first or run
    run_signatures(given, env)
    return first


def take_turns(
    tools: Sequence[Tool], given: Input, env: dict[str, str], asked: argparse.Namespace, results: Results
) -> list[Run]:
    """Run all in turn, and the signatures of ours, which are returned; keep what peers did."""
    signed = []
    for tool in tools:
        if asked.cached and tool.key and (known := results.load(tool.key)):
            tool.runs, tool.outcome = known
    known_tools = [tool for tool in tools if tool.runs]
    for _ in range(asked.rounds):
        signed.append(run_signatures(given, env))
        for tool in tools:
            done = tool in known_tools or (tool.runs and tool.runs[0].cpu > asked.patience)
            if tool.missing or done or not (run := tool.try_run()):
                continue
            tool.runs.append(run)
            if tool.key and tool.outcome is not None:
                results.save(tool.key, tool.name, tool.runs, tool.outcome)
    return signed


def last_line(reason: Exception) -> str:
    """What a program said at the end, without the frame that it may be in."""
    lines = [line.strip(" │╰─╯╭╮") for line in str(reason).splitlines()]
    return next((line for line in reversed(lines) if line), "no reason given")


def quality(tools: Sequence[Tool], given: Input, cache: Path) -> dict[str, str | None]:
    """Judge every tool; what the package's own exact join says of the same pairs, by the name of the shingles."""
    agreement = {}
    for name, header_blind in (("plain words", False), ("header-blind", True)):
        pairs = exact(given, cache, header_blind)
        for tool in tools:
            # Peers are judged by plain words alone: none of them is blind to headers.
            if tool.outcome is not None and not (header_blind and (tool.key or tool.name == HEADERS)):
                tool.quality.insert(0, judge(pairs, tool.outcome, name))
        agreement[name] = same_pairs(given, pairs, header_blind)
    return agreement


# ---------------------------------------------------------------- telling


def told(
    tools: Sequence[Tool], given: Input, signed: Sequence[Run], first: Run | None, agreement: dict[str, str | None],
    points: Sequence[Point],
) -> dict[str, Any]:  # fmt: skip
    """The one object of --json."""
    rates = {tool.name: given.mb / tool.median("cpu") if tool.runs else None for tool in tools}
    mine = tools[0]
    figures: dict[str, float] = {SIGNATURES: given.mb / statistics.median(run.cpu for run in signed)}
    if mine.runs:
        judged = mine.quality[0]
        figures |= {
            WHOLE: given.mb / mine.median("cpu"),
            WORKER_MB: max([mine.median("peak_mb"), *(point.worker_mb for point in points)]),
            FOUND: judged.found, FOUND_HIGH: judged.found_high, KEPT_TWIN: judged.kept_twin,
        }  # fmt: skip
    if len(points) > 1:
        figures[EXPONENT] = max(exponents(points).values())
    peers = {tool.name: rates[tool.name] for tool in tools if tool.key}
    whole, measured_peers = figures.get(WHOLE), [rate for rate in peers.values() if rate]
    goal = TARGETS[WHOLE][1]
    return {
        "name": "near_dedup",
        "unit": "MB/CPU-s",
        "ours": whole,
        "peers": peers,
        "ratio": whole / max(measured_peers) if whole and measured_peers else None,
        "ratios": {name: whole / rate for name, rate in peers.items() if whole and rate},
        "goal": goal,
        "meets": whole >= goal if whole else None,
        "targets": [target(name, figure) for name, figure in figures.items()],
        "versions": versions("stackbuild", "numba", "numpy", "pyarrow")
        | {tool.name: tool.settings.partition(":")[0] for tool in tools if tool.key},
        "input": {"files": len(given.ids), "mb": round(given.mb, 1), "key": given.key},
        "first_run": asdict(first) if first else None,
        "signatures": [asdict(run) for run in signed],
        "tools": {
            tool.name: {
                "settings": tool.settings, "not_measured": tool.missing, "runs": [asdict(run) for run in tool.runs],
                "quality": [one.told() for one in tool.quality],
            } for tool in tools
        },
        "exact_join": agreement,
        "growth": [asdict(point) for point in points],
    }  # fmt: skip


def target(name: str, figure: float) -> dict[str, Any]:
    """A figure, its steps (must, goal, stretch, or one), and which of them are met."""
    steps = TARGETS[name]
    met = [figure <= step if name in AT_MOST else figure >= step for step in steps]
    return {"what": name, "figure": figure, "steps": steps, "met": met}


def show(result: dict[str, Any], tools: Sequence[Tool], points: Sequence[Point]) -> None:
    """Markdown, as it stands in docs/near-dedup.md."""
    from benchmarks.near_dedup_tables import growth_table, quality_table, speed_table, targets_table

    print(speed_table(result, tools))
    print(quality_table(tools))
    if points:
        print(growth_table(points))
    print(targets_table(result))


if __name__ == "__main__":
    main()
