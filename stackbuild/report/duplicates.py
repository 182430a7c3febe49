"""What near-duplicate removal did to a build: headers, twins that left later, and sources that lost most of their files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from stackbuild.graph import Node
    from stackbuild.plan import Build

RULE = "near_duplicate"
SHOWN = 50  # alarms of each kind; their number is told beside

COLUMNS = ("stage", "rule", "outcome", "repo_name", "content_id", "kept_content_id")


def duplicates_of(
    build: Build, decisions: Sequence[Path], private: Sequence[Path], dataset: Sequence[Path]
) -> list[dict[str, Any]]:
    """One entry for each near_dedup of the recipe, in order.

    `removed` and, if headers were compared, `removed_with_headers`: files. `twins_gone`: the
    removed files whose kept twin left at a later stage, by "stage: rule"; what was private is told in these counts
    only. `alarms`: repositories and languages that lost at least the recipe's share of their files here.
    """
    order = {node.instance: number for number, node in enumerate(build.nodes)}
    return [
        {
            "stage": node.instance,
            **_counted(build, node),
            "twins_gone": twins_gone(decisions, private, node.instance, order),
            "alarms": {
                "repositories": _repositories(decisions, dataset, node, order),
                "languages": _languages(build, node),
            },
        }
        for node in build.nodes
        if node.stage.name == "near_dedup"
    ]


def _counted(build: Build, node: Node) -> dict[str, int]:
    names = ["removed", *(["removed_with_headers"] if node.stage.options.compares_headers else [])]
    stats = [shard.stats for shard in build.shards(node.phase_job("solve"))]
    return {name: sum(int(one.get(name, 0)) for one in stats) for name in names}


def _tables(paths: Iterable[Path], columns: Sequence[str]) -> Iterator[pa.Table]:
    for path in paths:
        for batch in pq.ParquetFile(path, pre_buffer=False).iter_batches(65_536, columns=list(columns)):
            yield pa.Table.from_batches([batch])


def twins_gone(decisions: Sequence[Path], private: Sequence[Path], stage: str, order: dict[str, int]) -> dict[str, int]:
    """How many files that `stage` removed have a kept twin that left later, by its "stage: rule"; `order`: of stages."""
    twins: Counter[bytes] = Counter()
    for table in _tables([*decisions, *private], COLUMNS):
        here = table.filter(pc.and_(pc.equal(table["stage"], stage), pc.equal(table["rule"], RULE)))
        twins.update(twin for twin in here["kept_content_id"].to_pylist() if twin is not None)
    if not twins:
        return {}
    wanted = pa.array(sorted(twins), pa.binary(20))
    later = pa.array([name for name, place in order.items() if place > order[stage]], pa.string())
    gone: Counter[str] = Counter()
    for table in _tables([*decisions, *private], COLUMNS):
        left = table.filter(
            pc.and_(pc.is_in(table["stage"], value_set=later), pc.is_in(table["content_id"], value_set=wanted))
        )
        for row in left.select(["stage", "rule", "content_id"]).to_pylist():
            gone[f"{row['stage']}: {row['rule']}"] += twins.pop(row["content_id"], 0)  # a content leaves once
    return dict(sorted((why, count) for why, count in gone.items() if count))


def _repositories(
    decisions: Sequence[Path], dataset: Sequence[Path], node: Node, order: dict[str, int]
) -> dict[str, Any]:
    """Repositories by the share of their files that left here, among those that came here."""
    lost: Counter[str] = Counter()
    came: Counter[str] = Counter()
    for table in _tables(decisions, COLUMNS):
        here = [name for name, place in order.items() if place >= order[node.instance]]
        rows = table.filter(pc.is_in(table["stage"], value_set=pa.array(here, pa.string())))
        _count(came, rows["repo_name"])
        gone = rows.filter(pc.and_(pc.equal(rows["stage"], node.instance), pc.equal(rows["rule"], RULE)))
        _count(lost, gone["repo_name"])
    for table in _tables(dataset, ["repo_name"]):
        _count(came, table["repo_name"])
    return alarms_of(lost, came, node.stage.options.alarm_share, node.stage.options.alarm_files)


def _count(counter: Counter[str], names: pa.ChunkedArray) -> None:
    for value in pc.value_counts(names).to_pylist():
        counter[value["values"]] += value["counts"]


def _languages(build: Build, node: Node) -> dict[str, Any]:
    """Languages likewise; where files are compared across languages none is told."""
    lost: Counter[str] = Counter()
    came: Counter[str] = Counter()
    for phase, name, counter in (("signatures", "scopes", came), ("solve", "removed_by_scope", lost)):
        for shard in build.shards(node.phase_job(phase)):
            counter.update(shard.stats.get(name, {}))
    return alarms_of(lost, came, node.stage.options.alarm_share, node.stage.options.alarm_files)


def alarms_of(lost: Counter[str], came: Counter[str], share: float, files: int) -> dict[str, Any]:
    """{"alarms": how many, "shown": the first by files lost}: names that had at least `files` files and lost `share`."""
    found = [
        {"name": name, "files": came[name], "removed": count}
        for name, count in lost.items()
        if came[name] >= files and count >= share * came[name]
    ]
    found.sort(key=lambda row: (-int(str(row["removed"])), str(row["name"])))
    return {"alarms": len(found), "shown": found[:SHOWN]}
