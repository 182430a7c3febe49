"""The stages `licenses`, which says of every occurrence what licence it has, and `license_filter`, which keeps some
classes.

Three phases come first: the contents of licence-named files are gathered ("wanted"), read and detected once each
("detect"), and inherited down the folders of each revision ("inherit"). What passes between the partitions of
occurrences and those of contents is keyed by both, so that each task reads its own part alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from stackbuild.errors import UsageError
from stackbuild.hashing import content_buckets
from stackbuild.licenses.decide import Policy, decide, distinct_pairs, load_policy
from stackbuild.licenses.expression import Reading
from stackbuild.licenses.inherit import DETECTIONS, LICENSE_FILES, VERDICTS, Verdicts, folders, inherited
from stackbuild.licenses.lists import LicenseClass
from stackbuild.licenses.names import Names, is_license_file, is_license_proper
from stackbuild.schema import EVIDENCE, ID, LICENSE_FIELDS
from stackbuild.stage import Options, Phase, Stage, Verdict
from stackbuild.task import Task

WANTED = pa.schema(
    [
        pa.field("bucket", pa.uint16(), nullable=False),  # partition of the contents
        pa.field("partition", pa.uint16(), nullable=False),  # partition of the occurrences
        pa.field("content_id", ID, nullable=False),
        pa.field("license_named", pa.bool_(), nullable=False),
    ]
)
DETAIL_CHARS = 500


class LicensesOptions(Options):
    files: ClassVar[tuple[str, ...]] = ("policy", "permissive")
    policy: str = Field(
        "stackbuild", description="a policy's name (stackbuild, the-stack-v1, the-stack-v2) or a TOML file"
    )
    names: Names | None = Field(None, description="which names are of licence files, if not as the policy has it")
    or_reading: Reading | None = Field(
        None, description='"choice": of A OR B the better one counts; "all": both; if not as the policy'
    )
    permissive: str | None = Field(None, description="the permissive list, a name or a TOML file, if not the policy's")


class Licenses(Stage[LicensesOptions]):
    """Say what licence every occurrence has, and why. It drops nothing."""

    name = "licenses"
    space = ("occurrence",)
    reads = ("repo_name", "revision_id", "path", "path_bytes", "content_id", "gha_license_id")
    adds = tuple(LICENSE_FIELDS)
    engines = ("scancode-toolkit-mini", "licenseclassifier", "license-expression")
    options_model = LicensesOptions

    def __init__(self, options: LicensesOptions | None = None):
        super().__init__(options)
        chosen = self.options
        self.policy: Policy = load_policy(
            chosen.policy, names=chosen.names, or_reading=chosen.or_reading, permissive=chosen.permissive
        )
        self._verdicts: Verdicts | None = None

    def key(self) -> Mapping[str, Any]:
        return self.policy.identity()

    def phases(self) -> Sequence[Phase]:
        rows = ("repo_name", "revision_id", "path", "path_bytes", "content_id")
        return (
            Phase("wanted", self.wanted, "partition", columns=("path", "content_id")),
            Phase(
                "detect",
                self.detect,
                "contents",
                reads=("wanted",),
                preload=("stackbuild.licenses.detect:warm",),
                parts=True,
            ),
            Phase("inherit", self.inherit, "partition", reads=("detections",), columns=rows),
        )

    # ---- phases

    def wanted(self, task: Task) -> None:
        """The contents of the partition's licence-named files, each once, in id order."""
        found = [self._license_files(batch, ("content_id",)) for batch in task.batches(("path", "content_id"))]
        schema = pa.schema([LICENSE_FILES.field("content_id"), LICENSE_FILES.field("license_named")])
        table = pa.Table.from_batches(found, schema)
        task.stats["license_files"] = table.num_rows
        table = (
            table.group_by("content_id", use_threads=False)
            .aggregate([("license_named", "max")])
            .rename_columns(schema.names)
        )
        table = table.sort_by("content_id")
        raw = np.frombuffer(b"".join(table["content_id"].to_pylist()), np.uint8).reshape(-1, 20)
        buckets = pa.array(content_buckets(raw, task.partitions), pa.uint16())
        ranks = pa.array(np.full(table.num_rows, task.rank, np.uint16))
        with task.writer("wanted", WANTED, group_by="bucket") as out:
            out.write(table.append_column("bucket", buckets).append_column("partition", ranks))

    def detect(self, task: Task) -> None:
        """What the wanted contents of the partition state, for each partition of occurrences that wants them."""
        from stackbuild.licenses.detect import Detector

        wanted = pa.Table.from_batches(task.read("wanted", WANTED.names, task.rank, "bucket"), WANTED)
        named = wanted.group_by("content_id", use_threads=False).aggregate([("license_named", "max")])
        license_named = dict(zip(named["content_id"].to_pylist(), named["license_named_max"].to_pylist(), strict=True))
        detector, engines = Detector(), Counter[str]()
        ids: list[bytes] = []
        rows: list[dict[str, Any]] = []
        for batch in task.contents(named["content_id"].combine_chunks()) if license_named else ():
            for content_id, content in zip(
                batch.column("content_id").to_pylist(), batch.column("content"), strict=True
            ):
                if content_id not in license_named:
                    continue
                found = detector.detect(content.as_buffer().to_pybytes(), license_named[content_id])
                engines[found.engine if found.keys else "none"] += 1
                ids.append(content_id)
                rows.append(
                    {"keys": found.keys, "expressions": found.expressions, "engine": found.engine, "score": found.score}
                )
        task.stats.update(contents=len(ids), engines=dict(sorted(engines.items())))
        detections = pa.Table.from_pylist(
            rows, pa.schema([f for f in DETECTIONS if f.name not in ("partition", "content_id")])
        )
        wanted = wanted.sort_by([("partition", "ascending"), ("content_id", "ascending")])
        where = pc.index_in(wanted["content_id"], value_set=pa.array(ids, ID)).combine_chunks()
        wanted = wanted.append_column("row", where).filter(pc.is_valid(where))
        with task.writer("detections", DETECTIONS, group_by="partition") as out:
            for piece in wanted.to_batches(65_536):
                answers = detections.take(piece.column("row"))
                columns = {"partition": piece.column("partition"), "content_id": piece.column("content_id")}
                out.write(pa.table({**columns, **{name: answers[name] for name in answers.column_names}}, DETECTIONS))

    def inherit(self, task: Task) -> None:
        """What speaks for each folder of the partition's revisions that has a licence file."""
        reads = ("repo_name", "revision_id", "path", "path_bytes", "content_id")
        found = []
        for batch in task.batches(reads):
            files = self._license_files(batch, ("repo_name", "revision_id", "path", "path_bytes", "content_id"))
            folder = folders(files.column("path_bytes"))
            files = files.append_column("folder", folder).select(LICENSE_FILES.names).cast(LICENSE_FILES)
            found.append(
                files if self.policy.data.reach == "folders" else files.filter(pc.equal(pc.binary_length(folder), 0))
            )
        table = pa.Table.from_batches(found, LICENSE_FILES)
        detections = {
            row["content_id"]: row
            for batch in task.read("detections", None, task.rank, "partition")
            for row in batch.to_pylist()
        }
        with task.writer("verdicts", VERDICTS, group_by="partition") as out:
            for batch in inherited(table, detections, self.policy, task.rank):
                out.write(batch)

    def _license_files(self, batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
        """The licence-named rows of a batch, with `license_named`."""
        rows = batch.filter(is_license_file(batch.column("path"), self.policy.data.names))
        named = is_license_proper(rows.column("path"))
        return pa.RecordBatch.from_arrays(
            [*(rows.column(name) for name in columns), named], [*columns, "license_named"]
        )

    # ---- rows

    def load(self, task: Task) -> None:
        self.use(pa.Table.from_batches(task.read("verdicts", None, task.rank, "partition"), VERDICTS))

    def use(self, verdicts: pa.Table) -> None:
        """Take the base paths (VERDICTS) that the files to come inherit from."""
        self._verdicts = Verdicts(verdicts)

    def tags(self, files: pa.RecordBatch) -> Mapping[str, pa.Array]:
        known = self._verdicts
        if known is None:
            raise UsageError(
                "The stage licenses needs its phases to have run over all files; put it into a recipe and build that."
            )
        nearest = known.nearest(files)
        pairs = distinct_pairs(files.column("gha_license_id"), np.where(nearest < 0, known.rows, nearest))
        decisions, evidence = [], []
        for github, number in zip(pairs.github, pairs.sets.tolist(), strict=True):
            none = number == known.rows
            counting = frozenset() if none else frozenset(known.counting[number].as_py())
            decisions.append(decide(github, counting, self.policy, not none and known.unrecognised[number]))
            said = [] if none else known.evidence[number].as_py()
            host = {"path": None, "expression": github, "kind": "host", "engine": "github", "score": None}
            evidence.append([host, *said] if github else said)
        keys = [[] if number == known.rows else known.keys[number].as_py() for number in pairs.sets.tolist()]
        columns = {
            "detected_licenses": pa.array(keys, pa.list_(pa.string())),
            "license_type": pa.array([one.type for one in decisions], pa.string()),
            "license_class": pa.array([one.license_class for one in decisions], pa.string()),
            "license_evidence": pa.array(evidence, pa.list_(EVIDENCE)),
        }
        of_file = pa.array(pairs.of_file)
        return {name: column.take(of_file) for name, column in columns.items()}


class LicenseFilterOptions(Options):
    keep: tuple[LicenseClass, ...] = Field(("permissive",), min_length=1, description="classes that stay")


class LicenseFilter(Stage[LicenseFilterOptions]):
    """Keep the files of some licence classes; the rest leave with their class and keys as the reason."""

    name = "license_filter"
    space = ("file", "occurrence")
    reads = ("license_class", "detected_licenses")
    options_model = LicenseFilterOptions

    def verdicts(self, files: pa.RecordBatch) -> Iterable[Verdict]:
        found = pc.fill_null(files.column("license_class"), "unknown")
        keys = pc.fill_null(pc.binary_join(files.column("detected_licenses"), ", "), "")
        detail = pc.if_else(pc.equal(keys, ""), found, pc.binary_join_element_wise(found, keys, ": "))
        keep = pc.is_in(found, value_set=pa.array(self.options.keep, pa.string()))
        yield Verdict("license_class", keep, detail=pc.utf8_slice_codeunits(detail, 0, DETAIL_CHARS))
