"""Walks: sources whose files are found by jobs of the plan, which run before ingestion.

Most sources list their units and read each by itself. What a Software Heritage export holds is found by joins over all of it; such a
source gives a stage of phases (`Source.walk`), and a unit of it is read from the tables that these wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import pyarrow as pa

from stackbuild import registry
from stackbuild.graph import Job, Node
from stackbuild.shards import Output
from stackbuild.sources.unit import Limits, Source, SourceOptions, Unit
from stackbuild.stage import Stage

FETCHED = "fetched"  # the table of a walk that holds contents
Read = Callable[[str, pa.Schema], Iterator[pa.RecordBatch]]


class WalkedSource(Source, Protocol):
    """A source with a walk. Its units are the partitions of its tables, in order; the first knows what to walk."""

    def walk(self, options: Any, first: Unit, limits: Limits, sample: tuple[int, float] | None) -> Stage[Any]: ...

    def told(self, first: Unit) -> dict[str, Any]:
        """What a manifest says of the source: its files, by what was listed of them."""
        ...

    def read_walk(
        self, read: Read, options: Any, limits: Limits, scratch: Path
    ) -> Iterator[tuple[str, pa.RecordBatch]]: ...


class Tables(Protocol):
    """What a build gives: the committed files of the tables of a stage's phases."""

    def tables_for(self, node: Node, names: Sequence[str]) -> dict[str, list[Output]]: ...


def products_of(build: Tables, node: Node) -> dict[str, list[Output]]:
    """What units are read by, with the files of the walk that hold it."""
    products: Mapping[str, Sequence[str]] = cast(Any, node.stage).products
    tables = {name: build.tables_for(node, of) for name, of in products.items()}
    return {name: [output for files in of.values() for output in files] for name, of in tables.items()}


def walked(kind: str) -> WalkedSource | None:
    """The source of a kind, if it has a walk."""
    source = registry.source(kind)
    return cast(WalkedSource, source) if hasattr(source, "walk") else None


def walks_of(recipe: dict[str, Any], units: Sequence[Unit], limits: Limits) -> dict[int, Node]:
    """The walks of a plan, by the number of their source in the recipe."""
    sample = (int(recipe["seed"]), float(recipe["sample"])) if recipe.get("sample") is not None else None
    found: dict[int, Node] = {}
    for unit in units:
        number = unit.where["source"]
        source = walked(unit.kind)
        if source is None or number in found or unit.key["part"]:
            continue
        options: SourceOptions = source.options_model.model_validate(recipe["source"][number])
        instance = unit.kind if not found else f"{unit.kind}:{number}"
        found[number] = Node(0, instance, source.walk(options, unit, limits, sample), "occurrence")
    return found


def jobs_of_walks(walks: dict[int, Node]) -> list[Job]:
    """Their jobs, in the order in which they run."""
    return [
        Job(node.phase_job(phase), "phase", (node,), phase) for node in walks.values() for phase in node.stage.phases()
    ]
