"""The stages `licenses`, which says of every occurrence what licence it has, and `license_filter`, which keeps some
classes.

Four phases come first: the contents of files that may speak of licences are gathered ("wanted"), read and detected once
each ("detect"), and inherited down the folders of each revision ("inherit"); and the heads of all contents are read
("headers"), which `exact_dedup` merges with what the copies of a content have inherited. What passes between the partitions
of occurrences and those of contents is keyed by both, so that each task reads its own part alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from stackbuild.errors import UsageError
from stackbuild.hashing import content_buckets
from stackbuild.licenses.answer import Answer, Spoken, five_step_answer, strongest
from stackbuild.licenses.copies import HEADERS, of_contents, said_by_headers
from stackbuild.licenses.decide import distinct_pairs
from stackbuild.licenses.expression import Reading
from stackbuild.licenses.inherit import DETECTIONS, LICENSE_FILES, VERDICTS, Verdicts, inherited
from stackbuild.licenses.lists import LicenseClass
from stackbuild.licenses.names import Names
from stackbuild.licenses.path_rules import PATH_RULES, PathRules, rules_of
from stackbuild.licenses.policy import Copies, Policy, Ranks, load_policy
from stackbuild.licenses.reading import Reader, spoken_folders
from stackbuild.licenses.unread import SPEAKING, speaking, unread
from stackbuild.schema import EVIDENCE, ID, LICENSE_FIELDS
from stackbuild.stage import Options, Phase, Stage, Verdict
from stackbuild.task import Task

WANTED = pa.schema(
    [
        pa.field("bucket", pa.uint16(), nullable=False),  # partition of the contents
        pa.field("partition", pa.uint16(), nullable=False),  # partition of the occurrences
        pa.field("content_id", ID, nullable=False),
        pa.field("format", pa.string(), nullable=False),
    ]
)
UNREAD = pa.schema([pa.field("partition", pa.uint16(), nullable=False), *SPEAKING])
DETAIL_CHARS = 500


def _key(content_id: bytes, format_: str) -> str:
    return f"{content_id.hex()} {format_}"


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
    copies: Copies | None = Field(
        None,
        description='of several copies whose licence counts: "winner", "best", "worst", "origin"; if not as the policy',
    )
    ranks: Ranks | None = Field(
        None, description='what ranks copies in exact_dedup: their "class", or "github": its id; if not as the policy'
    )


class Licenses(Stage[LicensesOptions]):
    """Say what licence every occurrence has, and why. It drops nothing."""

    name = "licenses"
    space = ("occurrence",)
    reads = ("repo_name", "revision_id", "path", "path_bytes", "content_id", "gha_license_id")
    adds = tuple(LICENSE_FIELDS)
    engines = ("scancode-toolkit-mini", "licenseclassifier", "license-expression", "google-re2")
    options_model = LicensesOptions

    def __init__(self, options: LicensesOptions | None = None):
        super().__init__(options)
        chosen = self.options
        self.policy: Policy = load_policy(
            chosen.policy,
            names=chosen.names,
            or_reading=chosen.or_reading,
            permissive=chosen.permissive,
            copies=chosen.copies,
            ranks=chosen.ranks,
        )
        self._spoken: tuple[Verdicts, PathRules] | None = None

    def key(self) -> Mapping[str, Any]:
        return self.policy.identity()

    def phases(self) -> Sequence[Phase]:
        rows = tuple(SPEAKING.names[:-1])
        tree = ("ingest.tree",) if self.policy.data.rule == "ranked" else ()  # the published rules know files alone
        return (
            Phase("wanted", self.wanted, "partition", reads=tree, columns=rows),
            Phase(
                "detect",
                self.detect,
                "contents",
                reads=("wanted",),
                preload=("stackbuild.licenses.detect:warm",),
                parts=True,
            ),
            *self._header_phases(),  # beside `detect`, with which it shares the detector's index
            Phase("inherit", self.inherit, "partition", reads=("detections", "unread"), columns=rows),
        )

    def _header_phases(self) -> Sequence[Phase]:
        if self.policy.data.group_of("header") is None:
            return ()
        return (Phase("headers", self.headers, "contents", preload=("stackbuild.licenses.detect:warm",), parts=True),)

    # ---- phases

    def wanted(self, task: Task) -> None:
        """The contents of the partition that are read for a licence, each once for each format, in id order."""
        read = self._speaking(task)
        table = pa.concat_tables([read, self._unread(task, read)])
        there = table.filter(pc.is_valid(table["content_id"]))
        task.stats.update(license_files=table.num_rows, not_there=table.num_rows - there.num_rows)
        names = ["content_id", "format"]
        table = there.group_by(names, use_threads=False).aggregate([])
        table = table.sort_by([(name, "ascending") for name in names])
        raw = np.frombuffer(b"".join(table["content_id"].to_pylist()), np.uint8).reshape(-1, 20)
        buckets = pa.array(content_buckets(raw, task.partitions), pa.uint16())
        ranks = pa.array(np.full(table.num_rows, task.rank, np.uint16))
        with task.writer("wanted", WANTED, group_by="bucket") as out:
            out.write(table.append_column("bucket", buckets).append_column("partition", ranks))

    def detect(self, task: Task) -> None:
        """What the wanted contents of the partition say, for each partition of occurrences that wants them."""
        wanted = pa.Table.from_batches(task.read("wanted", WANTED.names, task.rank, "bucket"), WANTED)
        formats: dict[bytes, list[str]] = {}
        distinct = wanted.group_by(["content_id", "format"], use_threads=False).aggregate([])
        distinct = distinct.sort_by([("content_id", "ascending"), ("format", "ascending")])
        for content_id, format_ in zip(distinct["content_id"].to_pylist(), distinct["format"].to_pylist(), strict=True):
            formats.setdefault(content_id, []).append(format_)
        reader, engines, contents = Reader(), Counter[str](), 0
        keys: list[str] = []
        said: list[list[dict[str, Any]]] = []
        for batch in task.contents(pa.array(list(formats), ID)) if formats else ():
            for content_id, content in zip(
                batch.column("content_id").to_pylist(), batch.column("content"), strict=True
            ):
                contents += content_id in formats
                for format_ in formats.get(content_id, ()):
                    found = reader.read(content.as_buffer().to_pybytes(), format_)
                    engines.update({one["engine"] for one in found} or {"none"})
                    keys.append(_key(content_id, format_))
                    said.append(found)
        task.stats.update(contents=contents, engines=dict(sorted(engines.items())))
        answers = pa.array(said, DETECTIONS.field("said").type)
        order = [("partition", "ascending"), ("content_id", "ascending"), ("format", "ascending")]
        wanted = wanted.sort_by(order)
        theirs = map(_key, wanted["content_id"].to_pylist(), wanted["format"].to_pylist())
        where = pc.index_in(pa.array(list(theirs), pa.string()), value_set=pa.array(keys, pa.string()))
        wanted = wanted.append_column("row", where).filter(pc.is_valid(where))
        with task.writer("detections", DETECTIONS, group_by="partition") as out:
            for piece in wanted.to_batches(65_536):
                columns = {name: piece.column(name) for name in ("partition", "content_id", "format")}
                out.write(pa.table({**columns, "said": answers.take(piece.column("row"))}, DETECTIONS))

    def inherit(self, task: Task) -> None:
        """What speaks for each folder of the partition's revisions that has a licence file."""
        unread = [batch.select(SPEAKING.names) for batch in task.read("unread", None, task.rank, "partition")]
        files = pa.concat_tables([self._speaking(task), pa.Table.from_batches(unread, SPEAKING)]).combine_chunks()
        folder = spoken_folders(files["path_bytes"].combine_chunks(), files["format"].combine_chunks())
        table = files.append_column("folder", folder).select(LICENSE_FILES.names)
        if self.policy.data.reach != "folders":
            table = table.filter(pc.equal(pc.binary_length(table["folder"]), 0))
        found = {
            (row["content_id"], row["format"]): row["said"]
            for batch in task.read("detections", None, task.rank, "partition")
            for row in batch.to_pylist()
        }
        with task.writer("verdicts", VERDICTS, group_by="partition") as out:
            for batch in inherited(table, found, self.policy, task.rank):
                out.write(batch)
        with task.writer("rules", PATH_RULES, group_by="partition") as out:
            for batch in rules_of(table, found, self.policy, task.rank):
                out.write(batch)

    def headers(self, task: Task) -> None:
        """What the contents of the partition say of themselves."""
        from stackbuild.licenses.headers import Headers

        headers, contents = Headers(), 0
        with task.writer("headers", HEADERS, group_by="bucket") as out:
            for batch in task.contents(None):
                said = said_by_headers(headers.scan(batch.column("content")))
                rows = pc.greater(pc.list_value_length(said), 0)
                ids, said = batch.column("content_id").filter(rows), said.filter(rows)
                contents += batch.num_rows
                out.write(
                    pa.record_batch([pa.array(np.full(len(ids), task.rank, np.uint16)), ids, said], schema=HEADERS)
                )
        task.stats.update(contents=contents)

    def _speaking(self, task: Task) -> pa.Table:
        """The files of the partition that are read for a licence (SPEAKING)."""
        batches = [speaking(batch, self.policy) for batch in task.batches(SPEAKING.names[:-1])]
        return pa.Table.from_batches(batches, SPEAKING)

    def _unread(self, task: Task, read: pa.Table) -> pa.Table:
        """Those of the partition that are named as a licence and were not read (SPEAKING), which are kept for `inherit`."""
        with task.writer("unread", UNREAD, group_by="partition") as out:
            if self.policy.data.rule != "ranked":
                return SPEAKING.empty_table()
            found = unread(task.read("ingest.tree", None, task.rank, "owner_bucket"), read, self.policy)
            ranks = pa.array(np.full(len(found), task.rank, np.uint16))
            out.write(found.add_column(0, UNREAD.field("partition"), ranks))
            return found

    # ---- rows

    def load(self, task: Task) -> None:
        verdicts = pa.Table.from_batches(task.read("verdicts", None, task.rank, "partition"), VERDICTS)
        self.use(verdicts, pa.Table.from_batches(task.read("rules", None, task.rank, "partition"), PATH_RULES))

    def use(self, verdicts: pa.Table, rules: pa.Table) -> None:
        """Take the base paths (VERDICTS) that the files to come inherit from, and the rules that name paths (PATH_RULES)."""
        self._spoken = Verdicts(verdicts), PathRules(rules)

    def tags(self, files: pa.RecordBatch) -> Mapping[str, pa.Array]:
        if self._spoken is None:
            raise UsageError(
                "The stage licenses needs its phases to have run over all files; put it into a recipe and build that."
            )
        verdicts, rules = self._spoken
        count = len(rules.rows) + 1
        sets = (verdicts.nearest(files) + 1) * count + rules.of_files(files) + 1
        pairs = distinct_pairs(files.column("gha_license_id"), sets)
        answers = [
            self._answer(github or None, number // count - 1, number % count - 1)
            for github, number in zip(pairs.github, pairs.sets.tolist(), strict=True)
        ]
        columns = {
            "detected_licenses": pa.array([one.keys for one in answers], pa.list_(pa.string())),
            "license_type": pa.array([one.decision.type for one in answers], pa.string()),
            "license_class": pa.array([one.decision.license_class for one in answers], pa.string()),
            "license_evidence": pa.array([one.evidence for one in answers], pa.list_(EVIDENCE)),
        }
        of_file = pa.array(pairs.of_file)
        return {name: column.take(of_file) for name, column in columns.items()}

    def _answer(self, github: str | None, base: int, rule: int) -> Answer:
        """What is said of a file by GitHub's id, the base path of this row and the path rule of that (-1 for none)."""
        assert self._spoken
        verdicts, rules = self._spoken
        folder = verdicts.spoken(base) if base >= 0 else None
        named = Spoken.of_rule(rules.evidence(rule), self.policy) if rule >= 0 else None
        if self.policy.data.rule == "ranked":
            if named and folder and folder.has_license_file_below(rules.whole(rule)):
                named = replace(named, place=max(named.place, folder.place))
            return strongest([one for one in (folder, named) if one is not None], github, self.policy)
        return five_step_answer(folder, github, self.policy)

    # ---- copies

    @property
    def merge_reads(self) -> tuple[str, ...]:
        return tuple(phase.name for phase in self._header_phases())

    def license_rank(self, copies: pa.Table) -> pa.Array | None:
        if self.policy.data.ranks == "class":
            return None
        ids = copies["gha_license_id"].combine_chunks()
        listed = pc.is_in(ids, value_set=pa.array(sorted(self.policy.permissive.accepted), pa.string()))
        return pc.if_else(ids.is_valid(), pc.if_else(listed, 0, 1), None).cast(pa.int8())

    def merge_copies(self, task: Task, copies: pa.Table, starts: npt.NDArray[np.int64]) -> Mapping[str, pa.Array]:
        names = [f"{self.name}.{table}" for table in self.merge_reads]
        headers = [batch for name in names for batch in task.read(name, HEADERS.names, task.rank, "bucket")]
        return of_contents(copies, starts, pa.Table.from_batches(headers, HEADERS), self.policy)


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
