"""What a build is of, and what a job of it has to do, in numbers.

A table that goes from W tasks to R (a partition of owners, a range of ids, a group) is written as W files of up to R pieces
each, a row group and an entry of the shard's manifest for each piece; a reader opens every file that holds a piece for it and
looks through that file's footer. So pieces grow with W x R, and what readers look through with W x R x R: nothing at tens of
partitions, everything at thousands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stackbuild.graph import Node
from stackbuild.parts import PART_BYTES

FLUSH_BYTES = 64 << 20  # of a unit before it writes its tables (ingest.FLUSH_BYTES)
REPOSITORIES_OF_OWNER = 3.0  # an assumption: no input that was measured has owners as a forge has them


@dataclass(frozen=True)
class Corpus:
    """What a build is of. Counts are floats: they may be beyond what is there to count.

    `files`, `bytes`: as the sources yield them, copies included. `units`: what one ingest task reads. `repositories`,
    `owners`: in all.
    `kept`: for each stage the shares of rows and of bytes that it passes on. `licence_files`: share of the occurrences;
    `licence_contents`: distinct among those. `languages`: in the release.

    Of near_dedup, whose sketches are `sketched` for each of its files (those with a licence header may have two), `shingles` for
    each byte of text, and of `prefixes` rows each in exact mode: `candidates`: the share of files with an edge, a likely
    near-duplicate; for each of these `larger`: how many shingles it has over the mean; `pairs`: candidate pairs; `stars`: partitions
    that tell its component, were there very many; `merges`: roots that do not agree. `shared`: buckets that list a pair, were
    there very many. `likely`: the share of pairs that are edges. `met`: the share of band keys that another file may have.

    What the recipe says: `file_bytes`: text of a dataset file. `shards`: of tokens. `part_bytes`: text of a part. Of near_dedup
    `bands`: keys of a sketch; `permutations`: slots of its signature; `table_bytes`: its `memory`; `exact`, `verify`: how pairs are
    found, and whether they are checked.
    """

    files: float
    bytes: float
    units: float
    partitions: int
    repositories: float
    owners: float
    kept: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    licence_files: float = 0.01
    licence_contents: float = 0.5
    sketched: float = 1.0
    shingles: float = 0.1
    prefixes: float = 10.0
    candidates: float = 0.2
    larger: float = 1.0
    pairs: float = 2.0
    shared: float = 6.0
    likely: float = 0.5
    met: float = 0.5
    merges: float = 0.05
    stars: float = 2.0
    languages: float = 100
    bands: int = 42
    permutations: int = 252
    table_bytes: float = 24 << 20
    exact: bool = False
    verify: bool = True
    part_bytes: float = PART_BYTES
    file_bytes: float = 256 << 20
    shards: int = 16

    def sized(self, size: float, files: float | None, units: float | None, unit_bytes: float) -> Corpus:
        """The same kind of corpus at another size; repositories grow with the files."""
        files = files or self.files * size / self.bytes
        repositories = max(1.0, self.repositories * files / self.files)
        return replace(
            self,
            files=files,
            bytes=size,
            units=units or max(1.0, math.ceil(size / unit_bytes)),
            repositories=repositories,
            owners=max(1.0, repositories / REPOSITORIES_OF_OWNER),
        )

    def of_recipe(self, recipe: Mapping[str, Any], nodes: Sequence[Node]) -> Corpus:
        """The corpus with what the recipe says."""
        corpus = replace(self, part_bytes=recipe.get("part_bytes", PART_BYTES))
        for node in nodes:
            options = node.stage.options
            if node.stage.name == "near_dedup":
                corpus = replace(
                    corpus,
                    bands=options.layout[0],
                    permutations=options.permutations,
                    table_bytes=options.memory,
                    exact=options.exact,
                    verify=options.verify,
                    sketched=corpus.sketched if options.compares_headers else 1.0,
                )
            elif node.stage.name == "layout":
                corpus = replace(corpus, file_bytes=options.file_bytes)
            elif node.stage.name == "tokens":
                corpus = replace(corpus, shards=options.shards + options.valid_shards)
        return corpus


@dataclass(frozen=True)
class Work:
    """What a job has to do.

    `rows`, `bytes`: that go through it; `read`: of these what is read as it is stored, 0 for text. `pieces`: row groups of one
    group each that it writes or reads. `footers`: row groups that it looks through to find its own. `opened`: files that it
    opens, each as often as it does. `listed`: entries that its shards' manifests have. `held`, `held_files`: entries and files in
    the manifests that a process has in memory which tells the keys of its tasks. `planned`: rows that every process reads to
    know what the tasks are. `inputs`: files that the key of one task names; `keyed`: that those of all tasks do, where what all
    of them read is named once. `outputs`: files that it commits. `largest`: bytes of its largest task, where tasks are not
    alike. `busy`: tasks that have any rows, where these are by owner. `passes`: how often a task reads its input.
    """

    job: str
    stages: tuple[str, ...]
    tasks: float
    rows: float = 0.0
    bytes: float = 0.0
    read: float = 0.0
    pieces: float = 0.0
    footers: float = 0.0
    opened: float = 0.0
    listed: float = 0.0
    held: float = 0.0
    held_files: float = 0.0
    planned: float = 0.0
    inputs: float = 0.0
    keyed: float = 0.0
    outputs: float = 0.0
    largest: float = 0.0
    busy: float = 0.0
    passes: float = 1.0

    @property
    def of_largest(self) -> Work:
        """The largest task alone, as far as its size is known; the mean one where it is not."""
        share = self.largest / self.bytes if self.largest and self.bytes else 1 / (self.busy or self.tasks)
        return Work(self.job, self.stages, 1.0, self.rows * share, self.bytes * share)


@dataclass(frozen=True)
class Table:
    """A table that changes hands: files, the row groups in each, and for how many groups (values) it was cut."""

    files: float = 0.0
    each: float = 0.0
    groups: float = 1.0

    @property
    def pieces(self) -> float:
        return self.files * self.each

    @property
    def footers(self) -> float:
        """Row groups looked through when the reader of each group opens every file that has a piece for it."""
        return self.pieces * self.each


@dataclass(frozen=True)
class Triangle(Table):
    """A table whose writers have pieces for half of the readers in the mean: from the partition of the smaller file of a pair to that
    of the larger, or the other way."""

    @classmethod
    def of(cls, files: float, rows: float, groups: float) -> Triangle:
        half = table(files, rows, (groups + 1) / 2)
        return cls(half.files, half.each, groups)

    @property
    def footers(self) -> float:
        """More than of the mean file: those with many pieces are opened often."""
        return self.pieces * self.each * 4 / 3


def table(files: float, rows: float, groups: float) -> Table:
    """A table of so many rows, spread evenly over files and over groups."""
    files = max(1.0, files)
    each = groups * -math.expm1(-rows / files / groups) if groups > 0 else 0.0
    return Table(files, max(each, 1.0 if rows else 0.0), groups)


@dataclass
class Flow:
    """Where the walk through the graph is: what the stage at hand sees, and the tables that were written before."""

    corpus: Corpus
    rows: float
    bytes: float
    tables: dict[str, Table] = field(default_factory=dict)
    writers: dict[str, Work] = field(default_factory=dict)  # of those tables
    asked: set[str] = field(default_factory=set)  # tables that the job at hand reads
    left: float = 0.0  # rows that have left
    clusters: float = 0.0

    @property
    def parts(self) -> int:
        return self.corpus.partitions

    @property
    def flushes(self) -> float:
        return self.corpus.units * max(1.0, math.ceil(self.corpus.bytes / self.corpus.units / FLUSH_BYTES))

    @property
    def busy(self) -> float:
        """Partitions of owners that hold any."""
        return table(1, self.corpus.owners, self.parts).each

    def write(self, name: str, files: float, rows: float, groups: float) -> Table:
        self.tables[name] = table(files, rows, groups)
        return self.tables[name]

    def read(self, name: str) -> Table:
        self.asked.add(name)
        return self.tables.get(name, Table())

    def taken(self, *names: str) -> dict[str, float]:
        """What it is to find one's pieces in tables of which each task reads those of its group."""
        tables = [self.read(name) for name in names]
        return {
            "pieces": sum(one.pieces for one in tables),
            "opened": sum(one.pieces for one in tables),
            "footers": sum(one.footers for one in tables),
            "inputs": sum(one.files for one in tables),
        }
