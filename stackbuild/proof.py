"""What a build can prove its manifest with: the bytes that it holds, and the git repositories that it read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stackbuild.errors import InputError
from stackbuild.graph import CONTENTS
from stackbuild.plan import Build
from stackbuild.shards import read_batches
from stackbuild.sources.git_objects import CorruptObject, MissingObject, open_store
from stackbuild.sources.git_refs import NoCommit, read_commit
from stackbuild.sources.unit import Unit
from stackbuild.wanted import Fetched, Wanted


def contents_held(build: Build) -> Iterator[tuple[bytes, bytes]]:
    """(content_id, bytes) of every content that was ingested, by content_id."""
    for batch in read_batches(build.out, build.outputs(CONTENTS.name, "contents"), ["content_id", "content"]):
        yield from zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)


class Held:
    """A supply of the bytes that a build holds, asked in order of content_id; one pass over its contents."""

    def __init__(self, build: Build):
        self.build = build

    def __call__(self, wanted: Iterator[Wanted]) -> Iterator[Fetched]:
        held = contents_held(self.build)
        at, data = next(held, (None, b""))
        for one in wanted:
            identifier = one.content_id or b""
            while at is not None and at < identifier:
                at, data = next(held, (None, b""))
            yield Fetched(one, "ok", data) if at == identifier else Fetched(one, "missing")


class GitRoots:
    """The roots of revisions whose git repository the build read and still lies where it was."""

    def __init__(self, build: Build):
        self.units = {
            (unit.key["repo_name"], unit.key["commit"]): unit for unit in build.plan.units if unit.kind == "git"
        }

    def __call__(self, repo_name: str, revision_id: str) -> tuple[bytes | None, str]:
        """(root, "") of a revision, or (None, why it cannot be told)."""
        if revision_id.startswith("swh:1:dir:"):
            return directory(revision_id)
        unit = self.units.get((repo_name, revision_id))
        if unit is None:
            return None, "no git repository of it is at hand"
        return root_of(unit)


def directory(revision_id: str) -> tuple[bytes | None, str]:
    """The root of a revision that is a directory: itself."""
    try:
        return bytes.fromhex(revision_id.removeprefix("swh:1:dir:")), ""
    except ValueError:
        return None, "its revision is no SWHID"


def root_of(unit: Unit) -> tuple[bytes | None, str]:
    """The root of the commit that a unit of git planned, read from its repository, whose id is checked on the way."""
    if unit.key["object_format"] != "sha1":
        return None, "its repository has SHA-256 ids, which name no SHA-1 root"
    try:
        with open_store(Path(unit.where["path"]), unit.key["object_format"]) as store:
            return read_commit(store, bytes.fromhex(unit.key["commit"])).tree, ""
    except (InputError, NoCommit, MissingObject, CorruptObject, OSError):
        return None, "its git repository can no longer be read"
