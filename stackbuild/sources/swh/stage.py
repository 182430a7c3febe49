"""The walk of an export as phases of the plan: from its files to roots, to files, to contents.

  visits       a task for each file of visits: the last visit of each repository in it
  convert      a task for each other file: sorted rows with binary ids, grouped by the partition of their key
  events       with GH Archive: what it tells of repositories (`told.py`), then facts by their number
  known        and visits by their name, with the facts of their repository
  chosen       by repository: the last visit of all
  heads        by snapshot: the branch that stands for the repository
  follow-N     by what branches point to: revisions, and releases of releases
  roots        by repository: one root each; what has none, and why
  trees        with compat: one repository of each root directory; and those of which no root is left
  level-NN     by directory: one level of the walk; a level at which nobody stands has no tasks
  resolve      by content: the plain SHA-1, the length, or why there is none
  fetch        by content: the bytes, verified; each place of a content is told what became of it

Every join is between rows of one range of ids, so that memory follows from the partitions, and every table leaves in a total
order, so that the number of partitions is all that its bytes depend on. `source.py` makes occurrences of what is written here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.hashing import uniform
from stackbuild.origins import canonical_url, name_of_url
from stackbuild.shards import digest
from stackbuild.sources.gharchive.events import GATHERED
from stackbuild.sources.gharchive.hours import HourFile, by_day
from stackbuild.sources.swh import by_id, heads, tables
from stackbuild.sources.swh.by_id import rows_in
from stackbuild.sources.swh.convert import Counts, convert, writer_options
from stackbuild.sources.swh.export import ExportFile, opened
from stackbuild.sources.swh.levels import fetch_files, resolve_files, walk_level
from stackbuild.sources.swh.partitions import (
    BUCKET,
    BUCKET_FIELD,
    bucketed,
    has_any,
    mine,
    warm,
    write,
    write_by,
    write_by_repository,
)
from stackbuild.sources.swh.session import session
from stackbuild.sources.swh.source_options import SwhOptions
from stackbuild.sources.swh.told import KNOWN, gather_facts, know_visits, read_day, taken_of
from stackbuild.sources.swh.visits import LAST, last_of, last_visits
from stackbuild.sources.swh.walk import FRONTIER
from stackbuild.sources.unit import Limits
from stackbuild.stage import Options, Phase, PhaseOutputs, Stage
from stackbuild.task import Task

# Options that say where things lie and with what they are read, never what comes out.
PLACES = ("export", "objects", "gharchive", "list", "format", "signed", "endpoint_url", "join_memory")
CONVERTED = (tables.ENTRIES, tables.CONTENTS, tables.SKIPPED, tables.REVISIONS, tables.RELEASES, tables.BRANCHES)


def repo_name(origin: str, repository: str) -> str:
    """`owner/repo` of github.com, `host/path` of any other, as the URL writes it."""
    url = canonical_url(origin)
    return name_of_url(url) if url is not None else repository


class SwhWalk(Stage[Options]):
    """The walk of one export. `files`: of each table of the export; `names`: of the list of repositories, if there is one; `hours`: of
    GH Archive, if it is given.
    """

    name = "swh"
    space = ("occurrence",)
    engines = ("duckdb",)

    def __init__(
        self,
        source: SwhOptions,
        files: Mapping[str, Sequence[ExportFile]],
        names: frozenset[str] | None,
        limits: Limits,
        cache: Path,
        sample: tuple[int, float] | None = None,
        hours: Sequence[HourFile] = (),
    ):
        super().__init__()
        self.hours = hours
        self.source, self.files, self.names, self.limits, self.cache = source, files, names, limits, cache
        self.sample = sample  # (seed, share of the repositories)
        self.selection = source.selection(names)
        self.compat = source.compat is not None

    # What phases depend on, apart, so that another selection finds the conversion again, and another export GH Archive's events.

    def _exported(self) -> Mapping[str, Any]:
        """The export's files, not where they lie."""
        listed = [[file.name, file.size, file.etag] for table in sorted(self.files) for file in self.files[table]]
        return {"files": digest(listed)}

    def _told(self) -> Mapping[str, Any]:
        """GH Archive's hours, and how they are read."""
        return {"hours": digest([[hour.name, hour.size, hour.etag] for hour in self.hours]), "compat": self.compat}

    def _selected(self) -> Mapping[str, Any]:
        """Both, what is selected, and the caps."""
        limits = [self.limits.depth, self.limits.path_bytes, self.limits.file_bytes]
        selected = self.source.model_dump(mode="json", exclude=set(PLACES))
        names = sorted(self.names) if self.names is not None else None
        return {
            **self._exported(),
            **self._told(),
            "selected": selected,
            "names": digest(names),
            "limits": limits,
            "sample": self.sample,
        }

    def _stored(self) -> Mapping[str, Any]:
        """Which store is asked, too: another one may have what this one lacks. What came of any is in the cache."""
        return {**self._selected(), "objects": digest([self.source.objects, self.source.endpoint_url])}

    def warm(self) -> None:
        """Load DuckDB and compile the kernels of the conversion and of the levels."""
        import_module("duckdb")
        by_id.warm()
        for spec in (tables.VISITS, *CONVERTED):
            warm(spec)

    def phases(self) -> Sequence[Phase]:
        own = {"convert": self._exported, "events": self._told, "fetch": self._stored}
        return [replace(one, key=own.get(one.name, self._selected)) for one in self._phases()]

    def _phases(self) -> Sequence[Phase]:
        steps = range(heads.CHAIN + 1)
        depths = range(self.limits.depth)
        return (
            Phase("visits", self.visits, self._visit_files),
            Phase("convert", self.convert, self._other_files),
            *(
                (
                    Phase("events", self.events, self._days),
                    Phase("facts", self.facts, "buckets", reads=tuple(GATHERED)),
                    Phase("known", self.known, "buckets", reads=("visits", "facts")),
                )
                if self.hours
                else ()
            ),
            Phase("chosen", self.chosen, "buckets", reads=("known",) if self.hours else ("visits",)),
            Phase("heads", self.heads, "buckets", reads=("chosen", "branches")),
            *(
                Phase(f"follow-{k}", self._follow(k), "buckets", reads=(f"candidates-{k}", "revisions", "releases"))
                for k in steps
            ),
            Phase(
                "roots",
                self.roots,
                "buckets",
                reads=(
                    *(f"found-roots-{k}" for k in steps),
                    *(f"lost-{k}" for k in steps),
                    "lost-visits",
                    "lost-heads",
                    "told",
                ),
            ),
            *(
                (
                    Phase("trees", self.trees, "buckets", reads=("all-roots",)),
                    Phase("without", self.without, "buckets", reads=("kept-trees", "lost-trees")),
                )
                if self.compat
                else ()
            ),
            Phase("start", self.start, "buckets", reads=("roots",)),
            *(
                Phase(f"level-{k:02d}", self._level(k), _where_anyone_stands(k), reads=(f"frontier-{k:02d}", "entries"))
                for k in depths
            ),
            Phase(
                "resolve",
                self.resolve,
                "buckets",
                reads=(*(f"files-{k:02d}" for k in depths), "contents", "skipped"),
            ),
            Phase(
                "fetch",
                self.fetch,
                "buckets",
                reads=(*(f"files-{k:02d}" for k in depths), "wanted", "refused"),
            ),
        )

    @property
    def products(self) -> Mapping[str, tuple[str, ...]]:
        """The tables that occurrences are made of, each of several phases."""
        depths = [f"{k:02d}" for k in range(self.limits.depth)]
        every = {name: tuple(f"{name}-{k}" for k in depths) for name in ("links", "left")}
        lost = ("lost", "lost-repositories") if self.compat else ("lost",)
        return {"roots": ("roots",), "lost": lost, "placed": ("placed",), **every}

    # ---- from the export's files

    def _visit_files(self, outputs: PhaseOutputs) -> list[dict[str, Any]]:
        return [{"file": number} for number in range(len(self.files[tables.VISITS.source]))]

    def _days(self, outputs: PhaseOutputs) -> list[dict[str, Any]]:
        return [{"day": number} for number in range(len(by_day(self.hours)))]

    def _other_files(self, outputs: PhaseOutputs) -> list[dict[str, Any]]:
        return [
            {"table": spec.name, "file": number} for spec in CONVERTED for number in range(len(self.files[spec.source]))
        ]

    def file_of(self, params: Mapping[str, Any]) -> ExportFile:
        """The file that a task of `visits` or `convert` reads."""
        files = self.files[tables.TABLES[params.get("table", tables.VISITS.name)].source]
        return files[int(params["file"])]

    def visits(self, task: Task) -> None:
        counts = Counts()
        with opened(self.file_of(task.params)) as file:
            rows = convert(file, tables.VISITS, task.scratch, counts)
            found, told = last_visits(rows, self.selection, task.partitions)
        _tell(task, counts, told)
        write(task, "visits", LAST, found.to_batches())

    def convert(self, task: Task) -> None:
        spec = tables.TABLES[task.params["table"]]
        counts = Counts()
        schema = pa.schema([BUCKET_FIELD, *spec.schema])
        with opened(self.file_of(task.params)) as file:
            rows = (
                bucketed(batch, spec.key[0], task.partitions) for batch in convert(file, spec, task.scratch, counts)
            )
            write(task, spec.name, schema, rows, **writer_options(spec))
        _tell(task, counts, {})

    # ---- from visits to roots

    def events(self, task: Task) -> None:
        read_day(task, by_day(self.hours)[task.params["day"]], self.source.join_memory, self.compat)

    def facts(self, task: Task) -> None:
        gather_facts(task, self.source.join_memory, self.compat)

    def known(self, task: Task) -> None:
        know_visits(task, self.selection, self.source.join_memory)

    def chosen(self, task: Task) -> None:
        schema = KNOWN if self.hours else LAST
        read = task.read("known" if self.hours else "visits", None, task.rank, BUCKET)
        rows = pa.Table.from_batches((batch.select(schema.names) for batch in read), schema)
        found = rows if self.hours and self.compat else last_of([rows], self.selection)
        if self.sample is not None:
            seed, share = self.sample
            names = (
                repo_name(*row)
                for row in zip(*(found[name].to_pylist() for name in ("origin", "repository")), strict=True)
            )
            found = found.filter(pa.array([uniform(seed, "sample", name) < share for name in names], pa.bool_()))
        usable = found["usable"].combine_chunks()
        taken = taken_of(found.filter(usable))
        rows = taken.select(heads.CHOSEN.names).sort_by(
            [("snapshot_id", "ascending"), ("repository", "ascending"), ("origin", "ascending")]
        )
        write_by(task, "chosen", heads.CHOSEN, rows.to_batches(), "snapshot_id")
        if self.hours:
            write_by_repository(task, "told", heads.CHOSEN_TOLD, taken.select(heads.CHOSEN_TOLD.names))
        lost = found.filter(pc.invert(usable))
        lost = lost.append_column("reason", pa.array(["no_full_visit"] * len(lost), pa.string())).select(
            heads.LOST.names
        )
        write_by_repository(task, "lost-visits", heads.LOST, lost)

    def heads(self, task: Task) -> None:
        chosen = pa.Table.from_batches(mine(task, "chosen", heads.CHOSEN), heads.CHOSEN)
        with session(task.scratch, self.source.join_memory) as connection:
            found, lost = heads.heads(
                connection, chosen, lambda: rows_in(task, tables.BRANCHES, chosen["snapshot_id"]), self.compat
            )
        self._write_candidates(task, "candidates-0", found)
        write_by_repository(task, "lost-heads", heads.LOST, lost)

    def _follow(self, step: int) -> Callable[[Task], None]:
        def follow(task: Task) -> None:
            if not has_any(task, f"candidates-{step}"):
                return
            rows = pa.Table.from_batches(mine(task, f"candidates-{step}", heads.CANDIDATES), heads.CANDIDATES)
            with session(task.scratch, self.source.join_memory) as connection:
                roots, further, lost = heads.follow(
                    connection,
                    rows,
                    lambda: rows_in(task, tables.REVISIONS, rows["target"]),
                    lambda: rows_in(task, tables.RELEASES, rows["target"]),
                    step == heads.CHAIN,
                    self.compat,
                )
            write_by_repository(task, f"found-roots-{step}", heads.FOUND_ROOTS, roots)
            self._write_candidates(task, f"candidates-{step + 1}", further)
            write_by_repository(task, f"lost-{step}", heads.LOST, lost)

        return follow

    def roots(self, task: Task) -> None:
        def gathered(names: Sequence[str], schema: pa.Schema) -> pa.Table:
            read = chain.from_iterable(mine(task, name, schema) for name in names)
            return pa.Table.from_batches(read, schema)

        steps = range(heads.CHAIN + 1)
        roots = gathered([f"found-roots-{k}" for k in steps], heads.FOUND_ROOTS)
        told = gathered(["told"], heads.CHOSEN_TOLD)
        lost = gathered(["lost-visits", "lost-heads", *(f"lost-{k}" for k in steps)], heads.LOST)
        with session(task.scratch, self.source.join_memory) as connection:
            kept, gone = heads.one_each(connection, roots, lost, told, self.compat)
        write_by(task, "all-roots" if self.compat else "roots", heads.ROOTS, kept.to_batches(), "root")
        write_by_repository(task, "lost", heads.LOST, gone)
        task.stats["lost"] = dict(sorted(Counter(gone["reason"].to_pylist()).items()))

    def trees(self, task: Task) -> None:
        """With `compat`, one repository for each root directory."""
        with session(task.scratch, self.source.join_memory) as connection:
            all_roots = pa.Table.from_batches(mine(task, "all-roots", heads.ROOTS), heads.ROOTS)
            kept, lost = heads.one_of_each_root(connection, all_roots)
        write_by(task, "roots", heads.ROOTS, kept.to_batches(), "root")
        write_by_repository(task, "kept-trees", heads.VISIT, kept.select(heads.VISIT.names))
        write_by_repository(task, "lost-trees", heads.LOST, lost)

    def without(self, task: Task) -> None:
        """With `compat`, the repositories of which no root is left."""
        kept, lost = (
            pa.Table.from_batches(mine(task, name, schema), schema)
            for name, schema in (("kept-trees", heads.VISIT), ("lost-trees", heads.LOST))
        )
        gone = heads.without_any(lost, kept)
        write_by_repository(task, "lost-repositories", heads.LOST, gone)
        task.stats["lost"] = {"same_directory": len(gone)} if len(gone) else {}

    def _write_candidates(self, task: Task, name: str, rows: pa.Table) -> None:
        order = [
            ("target", "ascending"),
            *((field, "ascending") for field in heads.CANDIDATES.names if field != "target"),
        ]
        write_by(task, name, heads.CANDIDATES, rows.sort_by(order).to_batches(), "target")

    # ---- from roots to files

    def start(self, task: Task) -> None:
        """The frontier of the first level: each root once."""
        schema = pa.schema([heads.ROOTS.field("root")])
        roots = pa.Table.from_batches(mine(task, "roots", schema), schema)  # a partition may have none
        distinct = roots.group_by("root", use_threads=False).aggregate([]).sort_by("root")["root"]
        empty = pa.array([b""] * len(distinct), pa.binary())
        write_by(
            task, "frontier-00", FRONTIER, pa.table([distinct, distinct, empty], schema=FRONTIER).to_batches(), "node"
        )

    def _level(self, depth: int) -> Callable[[Task], None]:
        return lambda task: walk_level(task, depth, self.limits, self.source.join_memory)

    # ---- from files to contents

    def resolve(self, task: Task) -> None:
        resolve_files(task, self.limits, self.source.join_memory)

    def fetch(self, task: Task) -> None:
        fetch_files(task, self.source, self.limits, self.cache)


def _where_anyone_stands(depth: int) -> Callable[[PhaseOutputs], list[dict[str, Any]]]:
    """Tasks for a level: one for each partition, none if the level before led nowhere."""

    def tasks(outputs: PhaseOutputs) -> list[dict[str, Any]]:
        return [{}] * outputs.partitions if outputs.files[f"frontier-{depth:02d}"] else []

    return tasks


def _tell(task: Task, counts: Counts, more: Mapping[str, int]) -> None:
    """What became of a file's rows, in the task's statistics."""
    task.stats.update(
        rows_in=counts.rows_in, rows_out=counts.rows_out, left_out=dict(sorted(counts.left_out.items())), **more
    )
