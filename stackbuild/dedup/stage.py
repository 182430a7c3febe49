"""Leave out files that are nearly copies of a file that stays.

Two files are near-duplicates when the Jaccard similarity of their word 5-grams is at least 0.7 (The Stack v2, Lozhkov
et al. 2024, section 3.1; StarCoder, Li et al. 2023). They are sought with MinHash and locality-sensitive hashing
(Broder 1997; Leskovec et al., Mining of Massive Datasets, chapter 3) and, unlike in the published pipelines, every
pair is then checked exactly: each removed file names a kept file that it resembles, with the similarity. Files are
compared within a language; licence headers do not count; files of fewer than n words are left alone.
docs/near-dedup.md has the choices and their measurements.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.dedup.options import SHINGLE_VERSIONS, NearDedupOptions
from stackbuild.schema import ID
from stackbuild.stage import Options, Phase, PhaseOutputs, Stage, Verdict
from stackbuild.tables import arrow

if TYPE_CHECKING:
    from stackbuild.task import Task


def _phase(module: str, function: str) -> Callable[[Task], None]:
    """A function of a module that imports numba, and so is imported where it runs."""

    def run(task: Task) -> None:
        getattr(import_module(f"stackbuild.dedup.{module}"), function)(task)

    return run


def groups_to_solve(outputs: PhaseOutputs) -> Sequence[dict[str, Any]]:
    """One task for each group of components."""
    import pyarrow.parquet as pq

    return [{"group": group} for path in outputs.files["groups"] for group in pq.read_table(path)["group"].to_pylist()]


class NearDedup(Stage[NearDedupOptions]):
    """See the module; `adds` the cluster of a file (null where it is alone) and how many files are in it (1 where it
    is alone).
    """

    name = "near_dedup"
    space = ("file",)
    reads = (
        "content_id",
        "text",
        "language",
        "license_class",
        "star_events_count",
        "fork_events_count",
        "revision_date",
        "repo_name",
        "path",
    )
    adds = (pa.field("cluster_id", ID), pa.field("cluster_size", pa.int64()))
    engines = ("numba", "numpy")
    options_model: ClassVar[type[Options]] = NearDedupOptions

    def __init__(self, options: NearDedupOptions | None = None):
        super().__init__(options)
        self._clusters: pa.Table | None = None
        self._ids: Any = None

    def needs(self) -> tuple[str, ...]:
        language = ("language",) if self.options.scope == "language" else ()
        return tuple(
            dict.fromkeys(("content_id", "text", *language, *self.options.survivor_columns, "repo_name", "path"))
        )

    def key(self) -> Mapping[str, Any]:
        """Which characters are letters is Python's Unicode version; what a shingle is, the rule's."""
        return {"unicode": unicodedata.unidata_version, "shingles": SHINGLE_VERSIONS[self.options.shingles]}

    def warm(self) -> None:
        import_module("stackbuild.dedup.warming").warm()

    def phases(self) -> Sequence[Phase]:
        language = ("language",) if self.options.scope == "language" else ()
        facts = tuple(dict.fromkeys(("content_id", *self.options.survivor_columns, "repo_name", "path")))
        text = ("content_id", "text", *language)
        return (
            Phase("signatures", _phase("sketches", "sketch"), columns=text, parts=True),
            *self._candidate_phases(),
            Phase("links", _phase("links", "link"), tasks="buckets", reads=("pairs", "sketches")),
            Phase("estimates", _phase("links", "estimate"), tasks="buckets", reads=("links", "sketches")),
            Phase("roots", _phase("components", "find_roots"), tasks="buckets", reads=("stars",)),
            Phase("components", _phase("components", "join_roots"), tasks="one", reads=("merges", "roots")),
            Phase(
                "sets",
                _phase("members", "gather"),
                reads=("roots", "labels", "groups", "sketches", "edges"),
                columns=facts,
            ),
            Phase(
                "solve",
                _phase("clusters", "solve_group"),
                tasks=groups_to_solve,
                reads=("groups", "group_edges", "members", "sets"),
            ),
        )

    def _candidate_phases(self) -> Sequence[Phase]:
        if not self.options.exact:
            return (Phase("candidates", _phase("pairs", "list_candidates"), tasks="buckets", reads=("bands",)),)
        return (
            Phase("frequencies", _phase("exact_mode", "count"), tasks="buckets", reads=("sketches",)),
            Phase("order", _phase("exact_mode", "merge"), tasks="one", reads=("counts",)),
            Phase("prefixes", _phase("exact_mode", "list_prefixes"), tasks="buckets", reads=("sketches", "order")),
            Phase("candidates", _phase("exact_mode", "list_candidates"), tasks="buckets", reads=("prefixes",)),
        )

    # ---- rows

    def load(self, task: Task) -> None:
        """Keep the clusters of this partition's files: some 200 bytes for each file of a cluster."""
        from stackbuild.dedup.clusters import CLUSTERS
        from stackbuild.dedup.numbers import id_values

        columns = ["partition", "content_id", "cluster_id", "cluster_size", "kept_content_id", "similarity", "detail"]
        batches = list(task.read("clusters", columns, group=task.rank, group_by="partition"))
        table = pa.Table.from_batches(batches, pa.schema([CLUSTERS.field(name) for name in columns])).combine_chunks()
        self._clusters = table.take(pc.sort_indices(table["content_id"])).combine_chunks()
        self._ids = id_values(self._clusters["content_id"])

    def tags(self, files: pa.RecordBatch) -> Mapping[str, pa.Array]:
        found = self._of(files)
        return {"cluster_id": found("cluster_id"), "cluster_size": pc.fill_null(found("cluster_size"), 1)}

    def verdicts(self, files: pa.RecordBatch) -> Iterator[Verdict]:
        found = self._of(files)
        kept = found("kept_content_id")
        threshold = self.options.threshold
        yield Verdict("near_duplicate", kept.is_null(), found("similarity"), threshold, found("detail"), kept)

    def _of(self, files: pa.RecordBatch) -> Callable[[str], pa.Array]:
        """Look up this batch's files among the clusters: a function from a column's name to its values, null for
        other files.
        """
        from stackbuild.dedup.numbers import id_values

        if self._clusters is None:
            raise TypeError("near_dedup judges rows after its phases; on a table in memory call near_duplicates()")
        clusters, ids = self._clusters, id_values(files.column("content_id"))
        if len(self._ids):
            place = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
            rows = arrow(place, self._ids[place] != ids)
        else:
            rows = pa.nulls(len(ids), pa.int64())
        return lambda name: clusters[name].combine_chunks().take(rows)

    def run(self, data: Iterable[pa.RecordBatch], rank: int = 0, world_size: int = 1) -> Iterator[pa.RecordBatch]:
        """Alone in a datatrove pipeline, without phases: all batches are taken into memory first."""
        if self._clusters is None:
            batches = list(data)
            if not batches:
                return
            self._solve_in_memory(pa.Table.from_batches(batches))
            data = batches
        yield from super().run(data, rank, world_size)

    def _solve_in_memory(self, files: pa.Table) -> None:
        from stackbuild.dedup.near_duplicates import near_duplicates
        from stackbuild.dedup.numbers import id_values

        found = near_duplicates(files, "text", "content_id", self.options)
        rows = pc.index_in(found["kept_id"], value_set=files["content_id"].combine_chunks())
        names = pc.binary_join_element_wise(files["repo_name"], files["path"], " ")
        found = found.rename_columns({"kept_id": "kept_content_id"}).append_column("detail", names.take(rows))
        self._clusters = found.take(pc.sort_indices(found["content_id"])).combine_chunks()
        self._ids = id_values(self._clusters["content_id"])
