"""Git repositories: every file of one commit of each, by its bytes, never through a work tree.

Identity: `repo_name` from the origin's URL (`owner/repo`), or `local/<folder>`; `revision_id` is the commit. References
are resolved once, for the plan; a worker reads the planned commit whatever the refs say by then. Which commit:
`git_refs`. What becomes of an entry: `git_tree`. Why a stranger's repository can do no harm: `git_objects`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from stackbuild.errors import InputError
from stackbuild.origins import canonical_url, name_of_url
from stackbuild.sources.credentials import without_credentials
from stackbuild.sources.git_objects import open_store
from stackbuild.sources.git_refs import NoCommit, choose, read_commit, read_references, snapshot
from stackbuild.sources.git_scan import (
    clonable,
    clone,
    name_of_folder,
    no_url,
    read_config,
    read_list,
    remote_url,
    scan,
)
from stackbuild.sources.git_tree import expected_bytes, read_entries, sha1_directory
from stackbuild.sources.unit import Entry, Limits, Origin, ResolveContext, Skipped, Source, SourceOptions, Unit


class GitOptions(SourceOptions):
    """`[[source]] kind = "git"`: at least one of `paths`, `list` and `urls`."""

    paths: tuple[str, ...] = Field((), description="repositories, or folders that are searched for them")
    list: str | None = Field(None, description="file of JSON lines, or tab-separated path, URL, ref, visit date")
    urls: tuple[str, ...] = Field((), description="repositories to clone (https, ssh, git, file)")
    ref: str | None = Field(None, min_length=1, description="branch, tag or full commit id, instead of the default")
    use_remote_url: bool = Field(True, description="take the URL of the remote `origin` for the origin's")
    scan_depth: int = Field(8, ge=0, le=64, description="folders below a path that are searched")
    refresh: bool = Field(False, description="clone again what the cache already holds")
    clone_timeout: int = Field(3600, gt=0, description="seconds for one clone")

    @field_validator("paths")
    @classmethod
    def _no_urls(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(no_url(path) for path in paths)

    @field_validator("urls")
    @classmethod
    def _clonable(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(clonable(url) for url in urls)

    @model_validator(mode="after")
    def _something(self) -> GitOptions:
        if not (self.paths or self.list or self.urls):
            raise ValueError("a git source needs `paths`, `list` or `urls`")
        return self


@dataclass(frozen=True)
class Candidate:
    """A repository on disk before its refs are looked at. `shown`: how it is named to a person."""

    folder: str
    shown: str
    name: str  # if it has no URL
    url: str | None
    ref: str | None
    columns: dict[str, Any] = field(default_factory=dict)


class GitSource:
    """The source of kind "git"; see the module."""

    kind = "git"
    options_model: type[SourceOptions] = GitOptions

    def units(self, options: GitOptions, context: ResolveContext) -> tuple[list[Unit], list[Skipped]]:
        """One unit for each repository that has a commit, sorted by key; InputError if there is none at all."""
        units: list[Unit] = []
        skipped: list[Skipped] = []
        found = list(candidates(options, context, skipped))
        for done, candidate in enumerate(found, start=1):
            context.progress("resolving repositories", done, len(found))
            try:
                units.append(resolve(candidate))
            except (NoCommit, InputError) as error:
                skipped.append(Skipped(candidate.shown, str(error)))
            except OSError as error:
                skipped.append(Skipped(candidate.shown, f"cannot be read: {error.strerror or error}"))
        if not units:
            reasons = "; ".join(f"{skip.what!r}: {skip.reason}" for skip in skipped[:5]) or "no repository was found"
            raise InputError(
                f"no git repository can be read: {reasons}. Check `paths`, `list` and `urls` of the source."
            )
        return sorted(units, key=lambda unit: json.dumps(unit.key, sort_keys=True)), skipped

    def read(self, unit: Unit, options: GitOptions, limits: Limits) -> Iterator[Origin | Entry]:
        """Yield the origin and then each entry of the planned commit. InputError if commit or root tree are gone."""
        key, path = unit.key, unit.where["path"]
        try:
            with open_store(Path(path), key["object_format"]) as store:
                commit = read_commit(store, bytes.fromhex(key["commit"]))
                known = commit.tree if store.algorithm == "sha1" else sha1_directory(store, commit.tree, limits)
                yield Origin(
                    repo_name=key["repo_name"],
                    revision_id=key["commit"],
                    repo_url=key["repo_url"],
                    snapshot_id=key["snapshot"],
                    directory_id=known.hex() if known else None,
                    branch_name=key["branch"],
                    revision_date=commit.author_date,
                    committer_date=commit.committer_date,
                    **key["columns"],
                )
                yield from read_entries(store, commit.tree, limits)
        except NoCommit as error:
            raise InputError(f"repository {path!r} no longer has what was planned: {error}; plan again") from error
        except InputError as error:
            raise InputError(f"repository {path!r}: {error}") from error
        except OSError as error:
            raise InputError(f"repository {path!r} cannot be read: {error}") from error


def candidates(options: GitOptions, context: ResolveContext, skipped: list[Skipped]) -> Iterator[Candidate]:
    """The repositories that the options name: listed, then found by searching, then cloned; each place once."""
    places: set[str] = set()
    origins: set[tuple[str, str | None, str | None]] = set()
    for entry in read_list(options.list) if options.list else ():
        found = next(scan(entry.path, 0, context.leave_out), None) or Skipped(entry.path, "no git repository")
        if isinstance(found, Skipped):
            skipped.append(found)
            continue
        place = os.path.realpath(found)
        places.add(place)
        if (origin := (place, entry.url, entry.ref)) not in origins:
            origins.add(origin)
            name, url = name_of_folder(os.path.abspath(entry.path)), entry.url or _remote(found, options)
            yield Candidate(found, entry.path, name, url, entry.ref or options.ref, entry.columns())
    for path in options.paths:
        root, nothing = os.path.abspath(os.path.expanduser(path)), True
        for found in scan(root, options.scan_depth, context.leave_out):
            nothing = False
            if isinstance(found, Skipped):
                skipped.append(found)
            elif (place := os.path.realpath(found)) not in places:
                places.add(place)
                yield Candidate(found, found, name_of_folder(found), _remote(found, options), options.ref)
        if nothing:
            skipped.append(Skipped(path, f"no git repository within {options.scan_depth} folders"))
    for done, address in enumerate(dict.fromkeys(options.urls), start=1):
        context.progress("cloning", done, len(options.urls))
        shown = without_credentials(address)
        cloned = clone(
            address,
            context.cache,
            shallow=options.ref is None,
            refresh=options.refresh,
            offline=context.offline,
            timeout=options.clone_timeout,
        )
        if isinstance(cloned, Skipped):
            skipped.append(cloned)
        else:
            yield Candidate(cloned, shown, name_of_folder(shown), canonical_url(address), options.ref)


def _remote(folder: str, options: GitOptions) -> str | None:
    if not options.use_remote_url:
        return None
    try:
        return remote_url(read_config(Path(folder)))
    except InputError:  # said again, and reported, when the repository is resolved
        return None


def resolve(candidate: Candidate) -> Unit:
    """Freeze a repository: commit, branch, snapshot, and what it is called. NoCommit or InputError with the reason."""
    folder = Path(candidate.folder)
    settings = read_config(folder)
    algorithm = settings.get("extensions.objectformat", ["sha1"])[-1].lower()
    if algorithm not in ("sha1", "sha256"):
        raise InputError(f"its object format {algorithm!r} is not known")
    if settings.get("extensions.refstorage", ["files"])[-1].lower() != "files":
        raise InputError("its refs are not stored as files: run `git refs migrate --ref-format=files` in it")
    url = canonical_url(candidate.url) if candidate.url else None
    references = read_references(folder)
    with open_store(folder, algorithm) as store:
        commit, branch = choose(store, references, candidate.ref)
        tree = read_commit(store, commit).tree
        name = name_of_url(url) if url else candidate.name
        key = {
            "repo_name": name,
            "repo_url": url,
            "commit": commit.hex(),
            "branch": branch.decode("utf-8", "replace") if branch else None,
            # Snapshots are defined over SHA-1 ids only.
            "snapshot": snapshot(store, references).hex() if algorithm == "sha1" else None,
            "object_format": algorithm,
            "columns": candidate.columns,
        }
        return Unit("git", key, {"path": candidate.folder}, expected_bytes(store, tree, Limits()), name)


SOURCE: Source = GitSource()
