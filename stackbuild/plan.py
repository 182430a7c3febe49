"""A recipe becomes a frozen graph of jobs.

The graph is a pure function of the plan: the resolved recipe and the units that its sources resolved to. A job has tasks;
a task has a key, which is a digest of everything that its output depends on; a shard is complete when a valid manifest of
exactly that key is there. The keys of a job can be told once the jobs before it are complete, so that unchanged output
further up is found again whatever made it anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stackbuild import registry, schema
from stackbuild.counts import Ledger
from stackbuild.frozen_plan import Plan
from stackbuild.graph import (
    CONTENTS,
    INGEST,
    OCCURRENCES,
    Job,
    Node,
    check,
    jobs_of,
    judges_rows,
    nodes_of,
)
from stackbuild.identity import engine_identity, module_digest, stage_identity, without_places
from stackbuild.parts import Part, cut
from stackbuild.rows import Rows, Tagged, lengths_of
from stackbuild.shards import (
    Output,
    ShardManifest,
    digest,
    find_manifest,
)
from stackbuild.sources.unit import Limits, Unit
from stackbuild.stage import Phase, PhaseOutputs
from stackbuild.stage_manifest import load_stage_manifest, save_stage_manifest
from stackbuild.walks import FETCHED, jobs_of_walks, products_of, walks_of

# As a phase may name them in what it reads.
ALL_DECISIONS, ALL_PRIVATE_DECISIONS = "*.decisions", "*.private_decisions"
INGESTED = {"ingest.origins": "origins", "ingest.tree": "tree"}
GATHERED = "occurrences"  # by owner bucket: the file of bucket k is the k-th
FILES_TABLE = "files"  # of the stage that turns occurrences into files
OCCURRENCE_BYTES = 512  # of memory, about, with what stages add


# ---------------------------------------------------------------- a build in progress


class Build:
    """A plan in an output folder: what is complete, and what each task reads. Used by the driver and by every worker.

    `to_run`: the graph is checked, for which stages read the lists that they name; to look at what is there needs none.
    """

    def __init__(self, out: Path, plan: Plan, to_run: bool = True):
        self.out, self.plan = out, plan
        self.nodes = nodes_of(plan.recipe)
        if to_run:
            check(self.nodes)
        self.limits = Limits(**plan.recipe.get("limits", {}))
        self.walks = walks_of(plan.recipe, plan.units, self.limits)
        self.jobs = [*jobs_of_walks(self.walks), *jobs_of(self.nodes)]
        self._shards: dict[str, Sequence[ShardManifest]] = {}
        self._identities: dict[str, dict[str, Any]] = {}
        self._reads: dict[tuple[str, str | None], dict[str, str]] = {}

    # ---- what is there

    def shards(self, job: str) -> Sequence[ShardManifest]:
        """The shard manifests that a complete job's stage manifest lists, in rank order, each read when it is asked for."""
        if job not in self._shards:
            self._shards[job] = load_stage_manifest(self.out, job, self.plan.digest)
        return self._shards[job]

    def outputs(self, job: str, table: str) -> list[Output]:
        """All files of a table of a complete job, in shard order."""
        return [output for shard in self.shards(job) for output in shard.table(table)]

    def complete(self, job: Job, shards: dict[str, list[ShardManifest]]) -> None:
        """Write the stage manifests of a job all of whose shards are there, and remember them."""
        for name, manifests in shards.items():
            save_stage_manifest(self.out, name, self.plan.digest, manifests)
            self._shards[name] = manifests
        self._reads.clear()

    def ledger(self, job: str) -> Ledger:
        total = Ledger()
        for shard in self.shards(job):
            total.add(shard.ledger)
        return total

    # ---- rows of a partition

    def before(self, node: Node) -> list[Node]:
        """The stages that have judged the rows which this one sees."""
        return [
            other
            for other in self.nodes
            if other.number < node.number and other.space == node.space and judges_rows(other.stage)
        ]

    def base(self, space: str, partition: int) -> tuple[list[Output], pa.Schema]:
        """The base table of a partition and its schema."""
        if space == "occurrence":
            return self.shards(OCCURRENCES.name)[partition].table("occurrences"), schema.OCCURRENCES
        merge = next(node for node in self.nodes if node.stage.makes_files)
        phase = merge.stage.phases()[-1]
        shard = self.shards(merge.phase_job(phase))[partition]
        return shard.table(FILES_TABLE), merge.stage.files_schema()

    def contents(self, partition: int) -> list[Output]:
        return self.shards(CONTENTS.name)[partition].table("contents")

    def rows(
        self,
        node: Node,
        partition: int,
        judged: Sequence[tuple[Node, ShardManifest]] | None = None,
        part: Part | None = None,
    ) -> Rows:
        """The rows that a stage sees, or a part of them; `judged` may give tag shards that no stage manifest lists yet, and
        with a part it gives what was written for that part alone."""
        known = {other.number: shard for other, shard in judged or ()}
        tagged = []
        for other in self.before(node):
            if (shard := known.get(other.number)) is not None:
                tagged.append(Tagged(other.stage, shard.table("tags"), part.start if part else 0))
            else:
                tagged.append(Tagged(other.stage, self.shards(other.slug)[partition].table("tags")))
        base, base_schema = self.base(node.space, partition)
        contents = self.contents(partition) if node.space == "file" else []
        return Rows(self.out, base, base_schema, contents, tagged, part)

    def parts(self, node: Node, partition: int) -> list[Part]:
        """How the rows of a partition that a stage sees are cut. Files weigh as much as their bytes; of an occurrence nobody
        reads the bytes, it weighs `OCCURRENCE_BYTES`."""
        base, _ = self.base(node.space, partition)
        if node.space == "occurrence":
            weights = np.full(sum(output.rows for output in base), OCCURRENCE_BYTES, np.int64)
        else:
            weights = lengths_of(self.out, base)
        return cut(weights, self.plan.part_bytes)

    def contents_parts(self, partition: int) -> list[Part]:
        """How a partition of contents is cut."""
        return cut(lengths_of(self.out, self.contents(partition)), self.plan.part_bytes)

    # ---- tables of phases

    def tables_for(self, node: Node, names: Sequence[str], before: str | None = None) -> dict[str, list[Output]]:
        """Committed files by table name: of this stage's phases, or of an earlier stage's, as `stage.table`."""
        return {name: self._table(node, name, before) for name in names}

    def _table(self, node: Node, name: str, before: str | None) -> list[Output]:
        if name in (ALL_DECISIONS, ALL_PRIVATE_DECISIONS):
            return self._decisions(node, private=name == ALL_PRIVATE_DECISIONS)
        if name in INGESTED:
            return self.outputs(INGEST.name, INGESTED[name])
        if name == GATHERED:
            return self.outputs(OCCURRENCES.name, GATHERED)
        stage_name, _, table = name.rpartition(".")
        # A product of a stage that this recipe does without is empty; of one that stands in it twice, it is both.
        owners = [n for n in self.nodes[: node.number] if n.stage.name == stage_name] if stage_name else [node]
        return [output for owner in owners for output in self._written(owner, table, before if owner is node else None)]

    def _written(self, owner: Node, table: str, before: str | None) -> list[Output]:
        """The files of a table that a stage's phases wrote; `before`: only those up to this one."""
        for phase in owner.stage.phases():
            if phase.name == before:
                break
            if found := self.outputs(owner.phase_job(phase), table):
                return found
        return []

    def _decisions(self, before: Node, private: bool) -> list[Output]:
        """The decisions of all stages before one: those that may be shown, or those that may not."""
        jobs = [] if private else [INGEST.name, OCCURRENCES.name]
        for node in self.nodes[: before.number - 1]:
            if node.stage.private_decisions == private:
                jobs += [node.phase_job(phase) for phase in node.stage.phases() if phase.removes]
                jobs += [node.slug] if judges_rows(node.stage) else []
        return [output for job in jobs for output in self.outputs(job, "decisions")]

    def phase_tables(self, node: Node) -> list[str]:
        """Every table that the phases of a stage wrote."""
        names: dict[str, None] = {}
        for phase in node.stage.phases():
            for shard in self.shards(node.phase_job(phase)):
                names.update({output.table: None for output in shard.outputs if output.table != "decisions"})
        return list(names)

    # ---- tasks and their keys

    def task_params(self, job: Job) -> list[dict[str, Any]]:
        """The parameters of a job's tasks, in rank order."""
        if job.kind == "ingest":
            return [{} for _ in self.plan.units]
        if job.phase is not None and callable(job.phase.tasks):
            tables = self.tables_for(job.nodes[0], job.phase.reads, job.phase.name)
            files = {name: [str(self.out / o.file) for o in outputs] for name, outputs in tables.items()}
            return list(job.phase.tasks(PhaseOutputs(files, self.plan.partitions, self.plan.seed)))
        if job.phase is not None and job.phase.tasks == "one":
            return [{}]
        return [{} for _ in range(self.plan.partitions)]

    def key(self, job: Job, rank: int, params: dict[str, Any]) -> str:
        """The key of a task of an ingest, contents, occurrences or phase job; `rows_key` is for rows."""
        plan = self.plan
        if job.kind == "ingest":
            unit = plan.units[rank]
            options = self.source_table(unit)
            sampled = [plan.seed, plan.recipe.get("sample")] if unit.repo_name is None else None
            of_unit = {"ingest": self._source_identity(unit.kind), "unit": unit.key, "limits": asdict(self.limits),
                    "partitions": plan.partitions, "sample": sampled, "options": _reading_options(options)}  # fmt: skip
            node = self.walk_of(unit)
            return digest({**of_unit, "walk": self._walk_identity(node)} if node else of_unit)
        if job.kind in ("contents", "occurrences"):
            outputs = self.bucket_outputs(job.kind, rank)
            return digest({"job": job.kind, "identity": engine_identity(), "rank": rank, "partitions": plan.partitions,
                           "inputs": [o.identity() for o in outputs]})  # fmt: skip
        node, phase = job.nodes[0], job.phase
        assert phase is not None
        body: dict[str, Any] = {
            "stage": self._stage_identity(node),
            "phase": [phase.name, dict(phase.key())],
            "params": params,
            "rank": rank,
            "partitions": plan.partitions,
            "seed": plan.seed,
            "reads": self._reads_identity(node, phase),
        }
        if phase.tasks == "partition":
            body["rows"] = self._rows_identity(node, rank, [], phase.columns)
        elif phase.tasks == "contents":
            body["contents"] = [o.identity() for o in self.contents(rank)]
        if phase.parts:
            body["part_bytes"] = plan.part_bytes
        return digest(body)

    def rows_key(self, node: Node, partition: int, judged: Sequence[tuple[Node, ShardManifest]]) -> str:
        """The key of a row stage's shard, given the shards of the stages that share its job and come before it; given what
        these wrote for one part, what `part_key` makes the key of that part of."""
        needs = [*node.stage.needs(), *(["text"] if node.stage.rewrites_text else [])]
        return digest(
            {
                "stage": self._stage_identity(node),
                "rank": partition,
                "partitions": self.plan.partitions,
                "seed": self.plan.seed,
                "part_bytes": self.plan.part_bytes,
                "rows": self._rows_identity(node, partition, judged, needs),
                "reads": self._reads_identity(node, None),
            }
        )

    def _reads_identity(self, node: Node, phase: Phase | None) -> dict[str, str]:
        """A digest of the files of each table that a phase reads, or the rows of a stage. It is the same for all tasks, so it
        is told once: thousands of tasks that each read thousands of files would take hours to tell it."""
        at = (node.slug, phase.name if phase else None)
        if at not in self._reads:
            names, before = (phase.reads, phase.name) if phase else (self.phase_tables(node), None)
            tables = self.tables_for(node, names, before)
            self._reads[at] = {name: digest([o.identity() for o in files]) for name, files in tables.items()}
        return self._reads[at]

    def _rows_identity(
        self, node: Node, partition: int, judged: Sequence[tuple[Node, ShardManifest]], columns: Sequence[str]
    ) -> Any:
        """The rows that a stage sees: base, tags, and for `content` and `text` what these are made of. The text is made
        anew by the stages that rewrite it, so what they are counts even where their tags stayed the same."""
        rows = self.rows(node, partition, judged)
        rewriters = [other for other in self.before(node) if other.stage.rewrites_text] if "text" in columns else []
        return {
            "base": [o.identity() for o in rows.base],
            "contents": [o.identity() for o in rows.contents] if "content" in columns or "text" in columns else None,
            "rewriters": [[self._stage_identity(other), self.plan.seed] for other in rewriters],
            "tags": [[o.identity() for o in tag.outputs] for tag in rows.tagged],
        }

    def bucket_outputs(self, table: str, bucket: int) -> list[Output]:
        """Ingested files of a table that hold rows of a bucket; contents of walks are there before any unit is read."""
        found = self.outputs(INGEST.name, table)
        if table == "contents":
            found = [*(o for node in self.walks.values() for o in self.tables_for(node, [FETCHED])[FETCHED]), *found]
        return [o for o in found if str(bucket) in o.groups]

    def walk_of(self, unit: Unit) -> Node | None:
        """The walk that a unit is read from, if its source has one."""
        return self.walks.get(unit.where["source"]) if self.walks else None

    def _walk_identity(self, node: Node) -> dict[str, str]:
        at = (node.slug, None)
        if at not in self._reads:
            tables = products_of(self, node)
            self._reads[at] = {name: digest([o.identity() for o in files]) for name, files in tables.items()}
        return self._reads[at]

    def source_table(self, unit: Unit) -> dict[str, Any]:
        """The recipe's `[[source]]` table that a unit came from."""
        return dict(self.plan.recipe["source"][unit.where["source"]])

    def _stage_identity(self, node: Node) -> dict[str, Any]:
        if node.slug not in self._identities:
            self._identities[node.slug] = stage_identity(node.stage)
        return self._identities[node.slug]

    def _source_identity(self, kind: str) -> Any:
        return [kind, module_digest(registry.SOURCES[kind].split(":")[0]), engine_identity()]

    def shard_number(self, job: Job, rank: int) -> int:
        """The number in the names of a task's shard: of an ingest task it follows from the unit alone, so that a new unit
        among the others does not make them strangers."""
        if job.kind != "ingest":
            return rank
        unit = self.plan.units[rank]
        return int(digest([unit.kind, unit.key])[:4], 16)

    def prepare(self, job: Job) -> None:
        """Load what the keys and inputs of all of a job's tasks are made of, so that forked children find it in memory. What a
        task reads of its own partition alone, it loads itself."""
        for kind in {unit.kind for unit in self.plan.units} if job.kind == "ingest" else ():
            self._source_identity(kind)
        for node in self.walks.values() if job.kind == "ingest" else ():
            self._walk_identity(node)
        for earlier in self.jobs[: self.jobs.index(job)]:
            for name in earlier.shard_jobs:
                self.shards(name)
        if job.kind in ("contents", "occurrences"):
            self.outputs(INGEST.name, job.kind)
        for node in job.nodes:
            self._stage_identity(node)
            reads = job.phase.reads if job.phase else self.phase_tables(node)
            self.tables_for(node, reads, job.phase.name if job.phase else None)

    def found(self, job: Job, rank: int, params: dict[str, Any]) -> list[ShardManifest] | None:
        """The complete shards of a task (one, or one for each stage of a rows job), or None if any is missing."""
        if job.kind != "rows":
            number = self.shard_number(job, rank)
            shard = find_manifest(self.out, job.name, number, self.key(job, rank, params))
            return [shard] if shard else None
        judged: list[tuple[Node, ShardManifest]] = []
        for node in job.nodes:
            shard = find_manifest(self.out, node.slug, rank, self.rows_key(node, rank, judged))
            if shard is None:
                return None
            judged.append((node, shard))
        return [shard for _, shard in judged]


def _reading_options(options: dict[str, Any]) -> dict[str, Any]:
    """A source's options without what only says where to look."""
    return {k: v for k, v in without_places(options).items() if k not in ("list", "packages", "versions")}
