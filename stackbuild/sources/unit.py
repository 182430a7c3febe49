"""A unit of ingestion: what one task reads, and how its files become occurrences and contents.

A unit is usually one repository at one revision, one archive, or a run of row groups of a Parquet file. Its `key` is
everything that determines its rows; `where` says how to reach it on this machine and is in no digest and no output.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from stackbuild.errors import InputError


class SourceOptions(BaseModel):
    """A `[[source]]` table of a recipe: `kind` names the source, the rest are its options; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str


@dataclass(frozen=True)
class Unit:
    """Planned input of one task. `bytes`: expected size of its contents. `repo_name`: None if it holds several."""

    kind: str
    key: dict[str, Any]
    where: dict[str, Any]
    bytes: int
    repo_name: str | None


@dataclass(frozen=True)
class Skipped:
    """Something that was asked for and cannot be read: reported, listed in the ledger of units, never a silent gap."""

    what: str
    reason: str


@dataclass(frozen=True)
class Origin:
    """One (repository, revision): the columns of schema.ORIGIN_FIELDS.

    Dates are nanoseconds since 1970, None if unknown or out of range.
    """

    repo_name: str
    revision_id: str
    repo_url: str | None = None
    snapshot_id: str | None = None
    directory_id: str | None = None
    branch_name: str | None = None
    visit_date: int | None = None
    revision_date: int | None = None
    committer_date: int | None = None
    github_id: int | None = None
    star_events_count: int | None = None
    fork_events_count: int | None = None
    gha_license_id: str | None = None
    gha_event_created_at: int | None = None
    gha_created_at: int | None = None
    gha_language: str | None = None
    other_names: str | None = None
    forked_from: str | None = None


@dataclass(frozen=True)
class File:
    """A regular file with its bytes.

    `path`: raw bytes relative to the root, no leading "/". `content_id`: git SHA-1 if the source knows it.
    """

    path: bytes
    mode: int
    data: bytes
    content_id: bytes | None = None


@dataclass(frozen=True)
class Link:
    """An entry that is not a file: a symlink (mode 0o120000), a submodule (0o160000). `target`: git id, if known."""

    path: bytes
    mode: int
    target: bytes | None


@dataclass(frozen=True)
class Unread:
    """A file that is there but whose bytes were not taken: it is counted in and leaves by `rule` in the same breath."""

    path: bytes
    mode: int
    rule: str
    length: int | None = None
    value: float | None = None
    threshold: float | None = None
    content_id: bytes | None = None
    detail: str | None = None


Entry = File | Link | Unread


@dataclass
class Limits:
    """Caps on what strangers send, with a counter for each (DESIGN: section 9). Sizes in bytes."""

    file_bytes: int = 10 * 1024 * 1024
    unit_bytes: int = 16 * 1024**3
    unit_files: int = 1_000_000
    depth: int = 64
    path_bytes: int = 4_096
    ratio: int = 200  # of an archive's decompressed to compressed size, beyond the first 64 MiB


@dataclass
class ResolveContext:
    """What `units` may use: where to keep downloads, whether the network may be asked, and a way to tell progress.

    `leave_out`: absolute real paths of folders that no walk enters, such as the output folder. `partitions`: of the build.
    """

    cache: str
    offline: bool = False
    frozen: dict[str, Any] = field(
        default_factory=dict
    )  # what an earlier plan of this folder resolved, by source digest
    leave_out: tuple[str, ...] = ()
    partitions: int = 1

    def progress(self, what: str, done: int, of: int) -> None:
        """Called as work proceeds; the command line overrides it with a bar."""


def left_out(root: str, leave_out: Iterable[str]) -> frozenset[str]:
    """Those of the folders to leave out that lie below `root`, spelled as a walk from there meets them.

    InputError if `root` itself lies in one of them. A walk follows no symlink, so each has one spelling.
    """
    real = os.path.realpath(root)
    found = set()
    for folder in leave_out:
        if os.path.commonpath([real, folder]) == folder:
            raise InputError(
                f"{root!r} lies in {folder!r}, which is left out of every source (the output of a build is no input of it): "
                "build into another folder, or name another source."
            )
        if os.path.commonpath([real, folder]) == real:
            found.add(os.path.join(root, os.path.relpath(folder, real)))
    return frozenset(found)


class Source(Protocol):
    """A kind of input. `units` resolves references once, for the frozen plan; `read` streams one unit in a worker."""

    kind: str
    options_model: type[SourceOptions]

    def units(self, options: Any, context: ResolveContext) -> tuple[list[Unit], list[Skipped]]:
        """Return the units, sorted by key, and what had to be skipped; raise InputError if nothing can be read at all."""
        ...

    def read(self, unit: Unit, options: Any, limits: Limits) -> Iterator[Origin | Entry]:
        """Yield an Origin, then its entries; perhaps another Origin and its entries. Raises InputError for a torn unit."""
        ...
