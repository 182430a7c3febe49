"""Lay out the release: the text is written once, by language, sorted by owner.

Each partition is written as sorted runs, one for each part; the files of the release are planned from the counts of all runs,
one task for each, so that there is never a file per task and language. Beside them: repositories, decisions, clusters, each sorted.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stackbuild.hashing import content_buckets, id_bytes, owner_bucket, owner_of
from stackbuild.identity import text_version
from stackbuild.layout.columns import FILE_STRUCT, REPOS, is_score, pointers, released, repositories
from stackbuild.layout.conceal import concealed_origins, concealed_rows, pairs, without_concealed_twins
from stackbuild.layout.manifest_rows import MANIFEST, manifest_rows
from stackbuild.layout.options import LayoutOptions, cut_by_owner
from stackbuild.layout.trees import ENTRIES, REVISION, proofs
from stackbuild.schema import CLUSTERS, CONTENT_INDEX, DATASET, DECISIONS, MANIFEST_TREE, ORIGINS
from stackbuild.shards import read_batches
from stackbuild.stage import Phase, PhaseOutputs, Stage, with_columns
from stackbuild.tables import TableWriter, conform, in_order
from stackbuild.task import Task

RUN = pa.schema(
    [pa.field("language_key", pa.uint32()), pa.field("owner", pa.string()), pa.field("mode", pa.int32()), *DATASET]
)
COUNTS = pa.schema(
    [
        pa.field("language", pa.string()),
        pa.field("owner", pa.string()),
        pa.field("files", pa.int64()),
        pa.field("bytes", pa.int64()),
    ]
)
POINTERS = pa.schema(
    [
        pa.field("owner_bucket", pa.uint16()),
        *(f for f in REPOS if f.name not in ("files", "num_files")),
        pa.field("path_bytes", pa.binary()),
        pa.field("file", FILE_STRUCT),
    ]
)
WITHOUT_TEXT = pa.schema([field for field in DATASET if field.name != "content"])
CONTENTS = pa.schema([pa.field("partition", pa.uint16()), *CONTENT_INDEX])
DATASET_ORDER = ("owner", "repo_name", "revision_id", "path_bytes", "content_id")


class Layout(Stage[LayoutOptions]):
    """Write dataset, repositories, decisions and clusters as they are released."""

    name = "layout"
    options_model = LayoutOptions
    reads = ("text", "language")

    def __init__(self, options: LayoutOptions | None = None):
        super().__init__(options)
        self.concealing: tuple[Stage[Any], ...] = ()  # stages whose removals must not be told by name
        self.rewriters: tuple[Stage[Any], ...] = ()  # stages that changed decoded text

    def placed(self, instance: str, before: Sequence[Stage[Any]], behind: Sequence[Stage[Any]]) -> None:
        self.concealing = tuple(stage for stage in before if stage.private_decisions)
        self.rewriters = tuple(stage for stage in before if stage.rewrites_text and stage.name != "decode")

    def phases(self) -> Sequence[Phase]:
        told = ("*.decisions", "*.private_decisions", "ingest.origins")
        of_repos = ("pointers", "occurrences", "ingest.tree", "*.private_decisions")
        return (
            Phase("runs", self.runs, "partition", columns=("text",), parts=True),
            Phase("files", self.files, self.plan_files, reads=("counts", "runs"), key=self.rewritten_by),
            Phase("repos", self.repos, "buckets", reads=of_repos, key=self.concealed_by),
            Phase("decisions", self.decisions, "buckets", reads=told, key=self.concealed_by),
            Phase("clusters", self.clusters, "buckets", reads=("near_dedup.clusters",)),
        )

    def concealed_by(self) -> dict[str, Any]:
        """What `decisions` depends on beside its tables: the lists of those who are not named."""
        return {"concealing": [[stage.name, stage.version, dict(stage.key())] for stage in self.concealing]}

    def rewritten_by(self) -> dict[str, Any]:
        """The versions of those who changed the text, which the manifest names."""
        return {"rewriters": [[stage.name, text_version(stage)] for stage in self.rewriters]}

    # ---- sorted runs

    def runs(self, task: Task) -> None:
        """One sorted run of the rows, the owners' counts, pointers to each file by owner, and what look-ups by content tell."""
        wanted = [n for n in (*DATASET.names, "text", "mode") if n in task.available and n != "content"]
        wanted += [n for n in task.available if is_score(n)]
        tables = []
        files = size = 0
        for batch in task.batches(wanted):
            rows = released(batch)
            files += rows.num_rows
            size += int(pc.sum(pc.binary_length(rows.column("content"))).as_py() or 0)
            language = rows.column("language")
            owner, bucket = owners(rows.column("repo_name"), task.partitions)
            tables.append(
                pa.Table.from_batches([rows])
                .append_column("language_key", keys(language))
                .append_column("owner", owner)
                .append_column("owner_bucket", bucket)
                .append_column("mode", batch.column("mode"))
                .append_column("file", pointers(rows))
            )
        task.stats.update(files=files, bytes=size)
        with task.writer("runs", RUN, group_by="language_key") as run, task.writer("counts", COUNTS) as counts:
            pointing = task.writer("pointers", POINTERS, group_by="owner_bucket")
            with pointing as pointer, task.writer("contents", CONTENTS, group_by="partition") as ids:
                if not tables:
                    return
                table = pa.concat_tables(tables).combine_chunks()
                tables.clear()
                in_runs = ("language_key", "language", *DATASET_ORDER)
                order = pc.sort_indices(table, [(name, "ascending") for name in in_runs])
                for part in in_order(table, order):
                    run.write(part)
                narrow = table.drop_columns(["content"])
                by_owner = [
                    ("owner_bucket", "ascending"),
                    ("repo_name", "ascending"),
                    ("revision_id", "ascending"),
                    ("path_bytes", "ascending"),
                ]
                partition = pa.array(np.full(len(narrow), task.rank, np.uint16))
                by_id = narrow.append_column("partition", partition)
                ids.write(by_id.take(pc.sort_indices(by_id, [("content_id", "ascending")])))
                pointer.write(narrow.take(pc.sort_indices(narrow, by_owner)))
                sized = pa.table(
                    {
                        "language": table["language"],
                        "owner": table["owner"],
                        "bytes": pc.binary_length(table["content"]),
                    }
                )
                total = sized.group_by(["language", "owner"]).aggregate([("bytes", "count"), ("bytes", "sum")])
                total = total.select(["language", "owner", "bytes_count", "bytes_sum"]).rename_columns(COUNTS.names)
                counts.write(total.sort_by([("language", "ascending"), ("owner", "ascending")]))

    # ---- planned files

    def plan_files(self, outputs: PhaseOutputs) -> list[dict[str, Any]]:
        """The files of the release: language, range of owners, number."""
        sizes: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for path in outputs.files["counts"]:
            for row in pq.read_table(path).to_pylist():
                sizes[row["language"]][row["owner"]] += row["bytes"]
        planned = []
        for language in sorted(sizes):
            cuts = list(cut_by_owner(sorted(sizes[language].items()), self.options.file_bytes, outputs.seed, language))
            for number, (first, last) in enumerate(cuts):
                planned.append({"language": language, "first": first, "last": last, "number": number, "of": len(cuts)})
        return planned

    def files(self, task: Task) -> None:
        """Gather one file of the release from all runs, in order."""
        language, first, last = task.params["language"], task.params["first"], task.params["last"]
        batches = []
        for batch in task.read("runs", None, language_key(language), "language_key", ("owner", first, last)):
            owner = batch.column("owner")
            mask = pc.and_(pc.greater_equal(owner, first), pc.less_equal(owner, last))
            mask = pc.and_(mask, pc.equal(batch.column("language"), language))
            batches.append(batch if pc.all(mask).as_py() else batch.filter(mask))
        table = pa.Table.from_batches(batches, RUN).combine_chunks()
        batches.clear()
        order = pc.sort_indices(table, [(name, "ascending") for name in DATASET_ORDER])
        written = 0
        options: dict[str, Any] = {
            "release": True,
            "compression_level": 3,
            "row_group_bytes": self.options.row_group_bytes,
        }
        withheld = self.options.content == "none"
        schema = WITHOUT_TEXT if withheld else DATASET
        with ExitStack() as stack:
            writer = stack.enter_context(task.writer("dataset", schema, **options))
            rows = stack.enter_context(task.writer("manifest", MANIFEST, release=True, compression_level=3))
            # What the file would be with its text, so that whoever fills it knows when it is.
            filled = stack.enter_context(TableWriter(task.scratch / "filled", DATASET, **options)) if withheld else None
            for part in in_order(table, order):
                writer.write(part.select(schema.names))
                if filled is not None:
                    filled.write(part.select(DATASET.names))
                rows.write(manifest_rows(part, written, self.rewriters))
                written += part.num_rows
        if filled is not None:
            task.stats["filled_sha256"] = filled.sha256
        task.stats.update(
            task.params, files=table.num_rows, bytes=int(pc.sum(pc.binary_length(table["content"])).as_py() or 0)
        )

    # ---- what lies beside the dataset

    def repos(self, task: Task) -> None:
        """One row for each repository of an owner bucket, and what proves its trees."""
        table = pa.Table.from_batches(list(task.read("pointers", None, task.rank, "owner_bucket")), POINTERS)
        table = table.take(
            pc.sort_indices(table, [(n, "ascending") for n in ("repo_name", "revision_id", "path_bytes")])
        )
        with task.writer("repos", REPOS, release=True, compression_level=3) as writer:
            if table.num_rows:
                writer.write(repositories(table))
        released = table.select([*REVISION, "path_bytes"])
        entries, hidden = self.entries(task, pc.unique(pairs(released)))
        with task.writer("tree", MANIFEST_TREE, release=True, compression_level=3) as writer:
            for part in proofs(entries, released, hidden):
                writer.write(part)

    def entries(self, task: Task, wanted: pa.Array) -> tuple[pa.Table, pa.Array]:
        """All that is known to lie in the revisions `wanted` (`pairs`) of an owner bucket, of ENTRIES, and which of it may not
        be named: what a stage that names nobody removed, and all else of that content."""
        columns = [name for name in ENTRIES.names if name != "target"]
        files = read_batches(task.out, task.outputs("occurrences")[task.rank : task.rank + 1], [*columns, "content_id"])
        links = task.read("ingest.tree", MANIFEST_TREE.names, task.rank, "owner_bucket")
        named = (with_columns(batch, {"target": batch.column("content_id")}) for batch in files)
        tables = [pa.Table.from_batches([conform(batch, ENTRIES)]) for batch in (*named, *links)]
        table = pa.concat_tables(
            [t.filter(pc.is_in(pairs(t), value_set=wanted)) for t in (ENTRIES.empty_table(), *tables)]
        )
        hidden = pa.Table.from_batches(
            list(task.read("*.private_decisions", DECISIONS.names, task.rank, "owner_bucket")), DECISIONS
        )
        secret = np.asarray(pc.is_in(pairs(table), value_set=pc.unique(pairs(hidden))))
        ids = table.rename_columns(["content_id" if name == "target" else name for name in table.column_names])
        return table, pa.array(secret | concealed_rows(ids, self.concealing))

    def decisions(self, task: Task) -> None:
        """All decisions on the files of an owner bucket, those that may be shown and those that may not, and the
        repositories that may be named."""
        shown, hidden = (
            pa.Table.from_batches(list(task.read(source, DECISIONS.names, task.rank, "owner_bucket")), DECISIONS)
            for source in ("*.decisions", "*.private_decisions")
        )
        origins = pa.Table.from_batches(
            [conform(b, ORIGINS) for b in task.read("ingest.origins", None, task.rank, "owner_bucket")], ORIGINS
        )
        secret = concealed_origins(origins, hidden, self.concealing)
        private = pa.array(
            np.asarray(pc.is_in(pairs(shown), value_set=secret)) | concealed_rows(shown, self.concealing)
        )
        tables = {
            "decisions": without_concealed_twins(shown.filter(pc.invert(private)), self.concealing),
            "private_decisions": pa.concat_tables([hidden, shown.filter(private)]),
        }
        order = [(n, "ascending") for n in ("repo_name", "revision_id", "path_bytes", "content_id", "stage", "rule")]
        for name, table in tables.items():
            with task.writer(name, DECISIONS, release=True, compression_level=3) as writer:
                writer.write(table.take(pc.sort_indices(table, order)))
        told = origins.filter(pc.invert(pc.is_in(pairs(origins), value_set=secret)))
        by_name = [(field.name, "ascending") for field in ORIGINS]
        with task.writer("origins", ORIGINS, group_by="owner_bucket") as writer:
            writer.write(told.take(pc.sort_indices(told, by_name)))

    def clusters(self, task: Task) -> None:
        """The clusters of near-duplicates whose id falls into a range."""
        found = []
        for batch in task.read("near_dedup.clusters", CLUSTERS.names):
            ids = id_bytes(batch.column(0))
            found.append(conform(batch, CLUSTERS).filter(pa.array(content_buckets(ids, task.partitions) == task.rank)))
        table = pa.Table.from_batches(found, CLUSTERS)
        with task.writer("clusters", CLUSTERS, release=True, compression_level=3) as writer:
            writer.write(
                table.take(
                    pc.sort_indices(
                        table, [(n, "ascending") for n in ("cluster_id", "content_id", "repo_name", "path")]
                    )
                )
            )


def owners(names: pa.Array, partitions: int) -> tuple[pa.Array, pa.Array]:
    """(folded owner, owner bucket) of each repository name."""
    encoded = names.dictionary_encode()
    distinct = encoded.dictionary.to_pylist()
    folded = pa.array([owner_of(name) for name in distinct], pa.string()).take(encoded.indices)
    buckets = pa.array([owner_bucket(name, partitions) for name in distinct], pa.uint16()).take(encoded.indices)
    return folded, buckets


def keys(languages: pa.Array) -> pa.Array:
    """A number for each language name, by which runs are grouped."""
    encoded = languages.dictionary_encode()
    return pa.array([language_key(name) for name in encoded.dictionary.to_pylist()], pa.uint32()).take(encoded.indices)


def language_key(language: str) -> int:
    return zlib.crc32(language.encode())
