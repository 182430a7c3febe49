"""The graph of a build: which stages stand where, and the jobs that they make, as pure functions of a resolved recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stackbuild import registry, schema
from stackbuild.errors import RecipeError
from stackbuild.stage import Phase, Space, Stage


@dataclass(frozen=True)
class Node:
    """A stage's place in the build: its instance name, its number, the stage itself, and the rows that it judges."""

    number: int
    instance: str
    stage: Stage[Any]
    space: Space

    @property
    def slug(self) -> str:
        return f"{self.number:02d}-{self.instance.replace(':', '_')}"

    def phase_job(self, phase: Phase | str) -> str:
        return f"{self.slug}.{phase if isinstance(phase, str) else phase.name}"


@dataclass(frozen=True)
class Job:
    """Tasks of one kind. `kind`: ingest, contents, occurrences, phase or rows. `name`: its folder below OUT/stages
    (rows: one folder for each of `nodes`, named by its slug)."""

    name: str
    kind: str
    nodes: tuple[Node, ...] = ()
    phase: Phase | None = None

    @property
    def shard_jobs(self) -> list[str]:
        """The folders in which this job commits shards."""
        return [node.slug for node in self.nodes] if self.kind == "rows" else [self.name]


INGEST, CONTENTS, OCCURRENCES = (
    Job("00-ingest", "ingest"),
    Job("00-contents", "contents"),
    Job("00-occurrences", "occurrences"),
)


# ---------------------------------------------------------------- the graph


def nodes_of(recipe: dict[str, Any]) -> list[Node]:
    """The stages of a recipe in order, then the finishers that its outputs ask for, each with its validated options."""
    instances = [*recipe["stages"], "layout"]
    instances += [name for name in ("index", "tokens") if name in recipe.get("outputs", ())]
    nodes: list[Node] = []
    space: Space = "occurrence"
    for number, instance in enumerate(instances, 1):
        kind = registry.stage_class(instance)
        options = kind.options_model.model_validate(options_of(recipe, instance))
        nodes.append(Node(number, instance, kind(options), space))
        if kind.makes_files:
            space = "file"
    stages = [node.stage for node in nodes]
    for at, node in enumerate(nodes):
        node.stage.placed(node.instance, stages[:at], stages[at + 1 :])
    return nodes


def options_of(recipe: dict[str, Any], instance: str) -> dict[str, Any]:
    """The options of a stage instance: its own under [stage."x"], laid over the table of its stage's name.

    In a resolved recipe the instance's own table is whole, tables within it too, so that only whole options are replaced.
    """
    return {**recipe.get(registry.base_name(instance), {}), **recipe.get("stage", {}).get(instance, {})}


def check(nodes: Sequence[Node]) -> None:
    """Refuse a graph before its first row is read: wrong space, no or two merges of copies, a column that nobody adds."""
    problems = []
    merges = [node.instance for node in nodes if node.stage.makes_files]
    if len(merges) != 1:
        problems.append(f"stages: exactly one stage must merge exact copies (exact_dedup); there are {len(merges)}.")
    occurrence = set(schema.OCCURRENCES.names)
    columns = set(occurrence)
    for node in nodes:
        for name in node.stage.needs():
            if name not in columns:
                later = [
                    n.instance
                    for n in nodes
                    if any(f.name == name for f in n.stage.adds) or (name == "text" and n.stage.rewrites_text)
                ]
                hint = (
                    f"it is added by {', '.join(later)}: put it before" if later else "no stage of the recipe adds it"
                )
                problems.append(f"stages: {node.instance} reads the column {name!r}, and {hint}.")
        if node.space not in node.stage.space:
            problems.append(
                f"stages: {node.instance} judges {' or '.join(node.stage.space)}s, but at its place there are {node.space}s."
            )
        columns |= {field.name for field in node.stage.adds}
        if node.stage.rewrites_text:
            columns.add("text")
        if node.stage.makes_files:
            columns.add("content")
    problems += _late_removals(nodes)
    problems += _texts_in_spite(nodes)
    if problems:
        raise RecipeError("The recipe cannot run:\n" + "\n".join(f"  {problem}" for problem in problems))


def _late_removals(nodes: Sequence[Node]) -> list[str]:
    """Whoever is to leave unseen must leave before copies are merged and compared, or their names stand in others' decisions."""
    problems = []
    first: dict[str, Node] = {}
    for node in (node for node in nodes if node.stage.private_decisions):
        earlier = first.setdefault(node.stage.name, node)
        if earlier is node and node.space != "occurrence":
            problems.append(
                f"stages: {node.instance} must stand before the stage that merges exact copies (it may stand again behind it): "
                "what leaves there has been named as somebody's copy."
            )
        elif earlier is not node and dict(earlier.stage.key()) != dict(node.stage.key()):
            problems.append(
                f"stages: {node.instance} reads another list than {earlier.instance}: put all entries into the list of "
                f"{earlier.instance}."
            )
    return problems


def _texts_in_spite(nodes: Sequence[Node]) -> list[str]:
    """A release without texts has none elsewhere either."""
    withheld = any(node.instance == "layout" and node.stage.options.content == "none" for node in nodes)
    if withheld and any(node.instance == "tokens" for node in nodes):
        return ['outputs: with layout.content = "none" there can be no "tokens": they are the text.']
    return []


def jobs_of(nodes: Sequence[Node]) -> list[Job]:
    """The jobs in an order in which they can run; consecutive row stages share one."""
    jobs = [INGEST, CONTENTS, OCCURRENCES]
    open_nodes: list[Node] = []

    def close() -> None:
        if open_nodes:
            jobs.append(Job("+".join(node.slug for node in open_nodes), "rows", tuple(open_nodes)))
            open_nodes.clear()

    for node in nodes:
        phases = node.stage.phases()
        if phases:
            close()
            jobs.extend(Job(node.phase_job(phase), "phase", (node,), phase) for phase in phases)
        if judges_rows(node.stage):
            if open_nodes and open_nodes[-1].space != node.space:
                close()
            open_nodes.append(node)
    close()
    return jobs


def judges_rows(stage: Stage[Any]) -> bool:
    """Whether a stage has a row part; the merge of copies and the finishers are made of phases only."""
    kind = type(stage)
    return kind.rewrites_text or kind.tags is not Stage.tags or kind.verdicts is not Stage.verdicts
