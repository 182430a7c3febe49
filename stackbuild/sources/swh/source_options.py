"""`[[source]] kind = "swh"`: which export, which of its repositories, and where their contents are."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from stackbuild.origins import Unreadable, host
from stackbuild.sources.credentials import without_credentials
from stackbuild.sources.swh.visits import Selection
from stackbuild.sources.timestamps import nanoseconds
from stackbuild.sources.unit import SourceOptions

DAY_MEMORY = 128 << 20  # bytes for the joins of a day of events
MOST_NAMES = 64 << 20  # bytes of a list of repositories


class SwhOptions(SourceOptions):
    """`[[source]] kind = "swh"`."""

    export: str = Field(
        min_length=1, description="folder of an export, or its URL (s3://softwareheritage/graph/2026-06-04)"
    )
    objects: str = Field(min_length=1, description="folder of gzip objects, or its URL (s3://softwareheritage/content)")
    gharchive: str | None = Field(
        None,
        min_length=1,
        description="folder of GH Archive's hourly files, or its URL: default branches, stars, forks, former names, licences",
    )
    format: Literal["auto", "orc", "parquet"] = Field("auto", description="of the export's files")
    forges: tuple[str, ...] | None = Field(
        ("github.com",), description="hosts; not given in the recipe: github.com; []: all"
    )
    list: str | None = Field(
        None, description="file with a repository in each line (URL, host/owner/repo or owner/repo)"
    )
    pattern: str | None = Field(None, description="RE2, searched in the origin's URL")
    visited_after: str | None = Field(None, description="ISO 8601: visits from then on")
    visited_before: str | None = Field(None, description="ISO 8601: visits before")
    types: tuple[str, ...] = Field(("git",), description="of visits; []: all")
    partial: bool = Field(False, description="partial visits count as well as full ones")
    compat: Literal["the-stack-v2"] | None = Field(
        None, description="choose visits, branches and repositories as that dataset did"
    )
    signed: bool = Field(False, description="use the S3 credentials of the environment")
    endpoint_url: str | None = Field(None, description="of an S3-compatible server")
    join_memory: int = Field(
        256 << 20, ge=32 << 20, description="bytes for the joins of one task; what is more is spilled"
    )

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            import re2

            try:
                re2.compile(pattern)
            except re2.error as error:
                raise ValueError(f"{pattern!r} is not RE2: {error}") from error
        return pattern

    @field_validator("visited_after", "visited_before")
    @classmethod
    def _is_a_date(cls, value: str | None) -> str | None:
        if value is not None and nanoseconds(value) is None:
            raise ValueError(f"{value!r} is no date of ISO 8601, as in 2026-06-04 or 2026-06-04T12:00:00Z")
        return value

    @field_validator("export", "objects", "gharchive")
    @classmethod
    def _holds_no_secret(cls, address: str | None) -> str | None:
        if address is not None and "://" in address and without_credentials(address) != address:
            raise ValueError(
                f"{without_credentials(address)!r} was given with a user, a password or a query, and a recipe is released: "
                "name the address alone; S3 credentials come from the environment (signed = true)"
            )
        return address

    @field_validator("forges")
    @classmethod
    def _are_hosts(cls, forges: tuple[str, ...] | None) -> tuple[str, ...] | None:
        try:
            return tuple(host(one) for one in forges) if forges is not None else None
        except Unreadable as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _orderly(self) -> SwhOptions:
        after, before = nanoseconds(self.visited_after), nanoseconds(self.visited_before)
        if after is not None and before is not None and after >= before:
            raise ValueError("visited_after is not before visited_before: no visit would count")
        if self.gharchive is not None and self.join_memory < DAY_MEMORY:
            raise ValueError(f"join_memory is {self.join_memory}; a day of GH Archive needs {DAY_MEMORY} at least")
        return self

    def selection(self, names: frozenset[str] | None) -> Selection:
        """What is selected; `names`: of the list, if there is one."""
        return Selection(
            self.forges or None, names, self.pattern, nanoseconds(self.visited_after), nanoseconds(self.visited_before),
            self.types or None, self.partial, self.compat is not None,
        )  # fmt: skip


def read_names(path: str) -> frozenset[str]:
    """The repositories of a list, by their canonical names; InputError names the line that is none."""
    from stackbuild.errors import InputError
    from stackbuild.origins import GITHUB, is_url, origin_of_url

    file = Path(path)
    try:
        if file.stat().st_size > MOST_NAMES:
            raise InputError(f"{path} has more than {MOST_NAMES >> 20} MiB; use a pattern, or several lists.")
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    found = set()
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            name, parts = origin_of_url(text if is_url(text) else f"https://{GITHUB}/{text}")
        except Unreadable as error:
            raise InputError(f"{path}, line {number}: {text!r} is no repository: {error}") from error
        if not parts:
            raise InputError(f"{path}, line {number}: {text!r} names a host, and no repository.")
        found.add("/".join([name, *parts]))
    return frozenset(found)
