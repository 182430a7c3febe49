"""The tables that an export of Software Heritage's graph is converted to: schema, sort key, and where each column comes from.

Ids are binary(20), words of a closed set are int8 places in the tuples below, and rows are sorted by the key as bytes;
rows that are equal in it keep the order of the export's file. One file of the export gives one sorted table, so an
object that stands in two files (exports are written at least once) stands in two tables: a join has to expect that.

Columns of the export: https://docs.softwareheritage.org/devel/swh-export/graph/schema.html, and what was read from
exports themselves. The 2018 and 2019 exports have other tables (`directory` with lists of entries) and are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import pyarrow as pa

from stackbuild.schema import ID, TIMESTAMP

KINDS: Final = ("file", "dir", "rev")  # of a directory's entry; "rev" is a submodule
TARGET_TYPES: Final = (
    "content",
    "directory",
    "revision",
    "release",
    "snapshot",
    "alias",
)  # of a branch, and of a release
VISIT_STATUSES: Final = ("created", "ongoing", "full", "partial", "not_found", "failed")
CONTENT_STATUSES: Final = ("visible", "hidden", "absent")

FILE, DIR, REV = range(len(KINDS))
CONTENT, DIRECTORY, REVISION, RELEASE, SNAPSHOT, ALIAS = range(len(TARGET_TYPES))
CREATED, ONGOING, FULL, PARTIAL, NOT_FOUND, FAILED = range(len(VISIT_STATUSES))
VISIBLE, HIDDEN, ABSENT = range(len(CONTENT_STATUSES))

How = Literal["id", "name", "bytes", "text", "word", "integer", "time", "seconds", "target"]


@dataclass(frozen=True)
class Column:
    """Where a column comes from.

    `how`: "id" (40 hexadecimal digits to 20 bytes), "name" (bytes without "/" and NUL, at least one), "bytes", "text", "word" (to
    its place in `words`), "integer", "time" (to this column as timestamp[ns], null if out of its range, and to
    `<name>_seconds`, whole seconds since 1970 rounded down), "seconds" (only these), "target" (an id, or for an alias the bytes
    that the digits stand for; `target_type` says which). `bits`: of an integer.
    A row whose value is null, unless `nullable`, or is none of what it should be, is left out and counted.
    """

    name: str
    theirs: str
    how: How
    words: tuple[str, ...] = ()
    nullable: bool = False
    bits: Literal[32, 64] = 64

    def fields(self) -> list[pa.Field]:
        """One field, two of a time."""
        if self.how == "time":
            return [pa.field(self.name, TIMESTAMP), pa.field(f"{self.name}_seconds", pa.int64())]
        return [pa.field(self.name, pa.int32() if self.bits == 32 else _TYPES[self.how], self.nullable)]


_TYPES: Final[Mapping[str, pa.DataType]] = {
    "id": ID,
    "name": pa.binary(),
    "bytes": pa.binary(),
    "text": pa.string(),
    "word": pa.int8(),
    "seconds": pa.int64(),
    "integer": pa.int64(),
    "target": pa.binary(),
}


@dataclass(frozen=True)
class TableSpec:
    """A converted table. `source`: the export's table. `key`: what rows are sorted by: an id or a text, then at most one
    more column. `only`: rows where this column of the export is null are not wanted (and not counted as left out).
    `plain`: columns that a dictionary does not shorten.
    """

    name: str
    source: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    only: str | None = None
    plain: tuple[str, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([field for column in self.columns for field in column.fields()])

    @property
    def reads(self) -> tuple[str, ...]:
        """The export's columns, each once."""
        return tuple(dict.fromkeys(column.theirs for column in self.columns))

    @property
    def bloom(self) -> str | None:
        """The column that a Bloom filter answers for: the id of the key, if it begins with one."""
        return self.key[0] if self.schema.field(self.key[0]).type == ID else None


# ---------------------------------------------------------------- what a traversal reads

ENTRIES: Final = TableSpec(
    "entries",
    "directory_entry",
    (
        Column("directory_id", "directory_id", "id"),
        Column("name", "name", "name"),  # one part of a path
        Column("kind", "type", "word", KINDS),
        Column("target", "target", "id"),
        Column("perms", "perms", "integer", bits=32),  # git's mode, odd ones of old repositories included
    ),
    ("directory_id", "name"),
    plain=("target",),
)

CONTENTS: Final = TableSpec(
    "contents",
    "content",
    (
        Column("content_id", "sha1_git", "id"),
        Column("blob_id", "sha1", "id"),
        Column("length", "length", "integer"),
        Column("status", "status", "word", CONTENT_STATUSES),
    ),
    ("content_id",),
    plain=("content_id", "blob_id", "length"),
)

SKIPPED: Final = TableSpec(
    "skipped",
    "skipped_content",
    (
        Column("content_id", "sha1_git", "id", nullable=True),
        Column("blob_id", "sha1", "id", nullable=True),
        Column("length", "length", "integer", nullable=True),
        Column("status", "status", "word", CONTENT_STATUSES),
        Column("reason", "reason", "text", nullable=True),
    ),
    ("content_id",),
    plain=("content_id", "blob_id", "length"),
)

# ---------------------------------------------------------------- what roots are chosen from

REVISIONS: Final = TableSpec(
    "revisions",
    "revision",
    (
        Column("id", "id", "id"),
        Column("directory_id", "directory", "id"),
        Column(
            "date_seconds", "date", "seconds", nullable=True
        ),  # of the author; of any year, `convert.times` makes dates
        Column("committer_date_seconds", "committer_date", "seconds", nullable=True),
    ),
    ("id",),
    plain=("id", "directory_id", "date_seconds", "committer_date_seconds"),
)

RELEASES: Final = TableSpec(
    "releases",
    "release",
    (
        Column("id", "id", "id"),
        Column("target", "target", "id", nullable=True),
        Column("target_type", "target_type", "word", TARGET_TYPES, nullable=True),
    ),
    ("id",),
    plain=("id", "target"),
)

BRANCHES: Final = TableSpec(
    "branches",
    "snapshot_branch",
    (
        Column("snapshot_id", "snapshot_id", "id"),
        Column("name", "name", "bytes"),
        Column("target", "target", "target"),  # 20 bytes, or the name of another branch
        Column("target_type", "target_type", "word", TARGET_TYPES),
    ),
    ("snapshot_id", "name"),
    plain=("target",),
)

VISITS: Final = TableSpec(
    "visits",
    "origin_visit_status",
    (
        Column("origin", "origin", "text"),  # its URL
        Column("visit", "visit", "integer"),  # from 1, per origin; several statuses of one visit stand in several rows
        Column("date", "date", "time"),
        Column("status", "status", "word", VISIT_STATUSES),
        Column("snapshot_id", "snapshot", "id", nullable=True),
        Column("type", "type", "text", nullable=True),  # git, svn, pypi, ...; null in old rows
    ),
    ("origin", "visit"),
)

ORIGINS: Final = TableSpec(
    "origins",
    "origin",
    (Column("url", "url", "text"), Column("origin_id", "id", "id")),  # the id is the SHA-1 of the URL
    ("url",),
    plain=("url", "origin_id"),
)

# ---------------------------------------------------------------- what a proof needs

RAW_DIRECTORIES: Final = TableSpec(
    "raw_directories",
    "directory",
    # The raw object with its header, where the entries alone do not hash to the id (odd order or modes).
    (Column("directory_id", "id", "id"), Column("raw_manifest", "raw_manifest", "bytes")),
    ("directory_id",),
    only="raw_manifest",
    plain=("directory_id", "raw_manifest"),
)

TABLES: Final[Mapping[str, TableSpec]] = {
    spec.name: spec
    for spec in (ENTRIES, CONTENTS, SKIPPED, REVISIONS, RELEASES, BRANCHES, VISITS, ORIGINS, RAW_DIRECTORIES)
}
