"""Releases of Python packages: sdists or wheels from the index that pip is configured for, read as archives.

Versions are resolved once, for the plan; a build that goes on, or is built again, downloads nothing that the cache
holds. Nothing of a package is executed: no build backend, no `pip download`, no setup.py. Yanked files are taken only
if their version is named (PEP 592); the newest versions are final releases, unless a project has none.

Identity: `repo_name` is `pypi/<normalised name>`, `revision_id` is `<version>+sha256:<of the archive>`, `visit_date`
the upload time where the index publishes it (PEP 700).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ConfigDict, Field, field_validator

from stackbuild.errors import InputError
from stackbuild.sources.archives import EXPANSION, read_archive, sha256_of
from stackbuild.sources.package_fetch import Absent, Fetcher, TooLarge
from stackbuild.sources.package_index import Release, releases
from stackbuild.sources.package_settings import pip_settings, without_userinfo
from stackbuild.sources.unit import Entry, Limits, Origin, ResolveContext, Skipped, SourceOptions, Unit

CONNECTIONS: Final = 8
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)  # PEP 508
Format = Literal["sdist", "wheel", "any"]

A = TypeVar("A")
B = TypeVar("B")


class Package(BaseModel):
    """A project and what is wanted of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="as on the index, in any spelling")
    versions: int | tuple[str, ...] | None = Field(None, description="exact versions, or how many of the newest")

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a package")
        return canonicalize_name(name)

    @field_validator("versions")
    @classmethod
    def _are_versions(cls, versions: int | tuple[str, ...] | None) -> int | tuple[str, ...] | None:
        if isinstance(versions, int) and versions < 1:
            raise ValueError("the number of newest versions is at least 1")
        for version in versions if isinstance(versions, tuple) else ():
            try:
                Version(version)
            except InvalidVersion:
                raise ValueError(f"{version!r} is not a version (PEP 440)") from None
        return versions


class PypiOptions(SourceOptions):
    """`[[source]] kind = "pypi"`. A package is a table, "name" or "name==version"."""

    packages: tuple[Package, ...] = Field(min_length=1, description="what to take")
    versions: int = Field(1, ge=1, description="how many of the newest versions of a package that names none")
    format: Format = Field("sdist", description="sdist, wheel, or any: the sdist, else a wheel")
    max_bytes: int = Field(512 * 1024 * 1024, gt=0, description="largest archive to download")

    @field_validator("packages", mode="before")
    @classmethod
    def _shorthand(cls, packages: Any) -> Any:
        if not isinstance(packages, list | tuple):
            return packages  # pydantic says what it should be
        return [_package(item) if isinstance(item, str) else item for item in packages]


def _package(text: str) -> dict[str, Any]:
    """The table for "name" or "name==version"."""
    name, pinned, version = (part.strip() for part in text.partition("=="))
    return {"name": name, "versions": (version,)} if pinned else {"name": name}


class PypiSource:
    """The source of kind "pypi"; see the module."""

    kind = "pypi"
    options_model = PypiOptions

    def units(self, options: PypiOptions, context: ResolveContext) -> tuple[list[Unit], list[Skipped]]:
        """Ask the index, download, and return a unit for each archive.

        TemporaryError if a server does not answer; InputError if a download does not hash to what was announced, or if
        nothing at all was found.
        """
        settings = pip_settings()
        if context.offline:
            local = tuple(index for index in settings.indexes if index.startswith("file:"))
            if not local:
                raise InputError("The source `pypi` has to ask the package index, and the network may not be used.")
            settings = type(settings)(local, timeout=settings.timeout)
        fetcher = Fetcher(settings)
        wanted = wishes(options)
        skipped: list[Skipped] = []
        chosen: list[Chosen] = []
        listings = in_parallel(lambda name: releases(name, fetcher), list(wanted), context, "asking the package index")
        for (name, wish), listing in zip(wanted.items(), listings, strict=True):
            for found in choose(name, wish, listing, options.format):
                (chosen if isinstance(found, Chosen) else skipped).append(found)  # type: ignore[arg-type]
        folder = Path(context.cache) / "pypi"
        taken = in_parallel(
            lambda one: obtain(one, folder, fetcher, options.max_bytes), chosen, context, "downloading packages"
        )
        units = [found for found in taken if isinstance(found, Unit)]
        skipped += [found for found in taken if isinstance(found, Skipped)]
        if not units:
            reasons = "; ".join(f"{skip.what}: {skip.reason}" for skip in skipped[:5])
            raise InputError(f"No package can be read: {reasons}. Check the names and versions of the source `pypi`.")
        return sorted(
            units, key=lambda unit: (unit.key["name"], Version(unit.key["version"]), unit.key["sha256"])
        ), skipped

    def read(self, unit: Unit, options: PypiOptions, limits: Limits) -> Iterator[Origin | Entry]:
        """Yield the origin and then the entries; an archive that left the cache is downloaded again and checked."""
        key, path = unit.key, Path(unit.where["path"])
        if not path.exists():
            fetcher = Fetcher(pip_settings())
            try:
                part, _, _ = fetcher.download(
                    unit.where["url"], path.parent.parent, {"sha256": key["sha256"]}, options.max_bytes
                )
            except (Absent, TooLarge) as error:
                raise InputError(
                    f"{key['filename']} is no longer in the cache nor, as it was, on the index "
                    f"({unit.where['url']}). Leave this version out, or put the file at {path}."
                ) from error
            place(part, path)
        origin = Origin(
            repo_name=f"pypi/{key['name']}",
            revision_id=f"{key['version']}+sha256:{key['sha256']}",
            visit_date=key["upload_time"],
        )
        yield from read_archive(path, key["sha256"], origin, limits)


SOURCE = PypiSource()


# ---------------------------------------------------------------- which files


@dataclass(frozen=True)
class Wish:
    """Of one project: exact versions, and so many of the newest."""

    versions: tuple[Version, ...] = ()
    newest: int = 0


@dataclass(frozen=True)
class Chosen:
    """A file that is to be had."""

    name: str
    release: Release


def wishes(options: PypiOptions) -> dict[str, Wish]:
    """What is wanted by normalised name, in order of name; a project named twice is wanted once, with both."""
    found: dict[str, Wish] = {}
    for package in options.packages:
        wish = found.get(package.name, Wish())
        if isinstance(package.versions, tuple):
            versions = {*wish.versions, *map(Version, package.versions)}
            found[package.name] = Wish(tuple(sorted(versions)), wish.newest)
        else:
            found[package.name] = Wish(wish.versions, max(wish.newest, package.versions or options.versions))
    return dict(sorted(found.items()))


def choose(name: str, wish: Wish, listing: list[Release] | None, form: Format) -> Iterator[Chosen | Skipped]:
    """One file for each wanted version: pinned ones, then the newest; a Skipped for what is not there."""
    if listing is None:
        yield Skipped(name, "the package index does not know this package")
        return
    best: dict[Version, Release] = {}
    for release in sorted(listing, key=lambda r: (r.format != "sdist", r.rank)):
        if form in ("any", release.format) and (not release.yanked or release.version in wish.versions):
            best.setdefault(release.version, release)
    kind = {"sdist": "source archive", "wheel": "wheel", "any": "file"}[form]
    taken: set[Version] = set()
    for version in wish.versions:
        if version in best:
            taken.add(version)
        elif any(release.version == version for release in listing):
            yield Skipped(f"{name}=={version}", f"this version has no {kind}")
        else:
            yield Skipped(f"{name}=={version}", "the package index has no such version")
    offered = [version for version, release in best.items() if not release.yanked]
    final = [version for version in offered if not version.is_prerelease] or offered
    if wish.newest and len(final) < wish.newest:
        yield Skipped(name, f"the {wish.newest} newest versions are wanted, {len(final)} with a {kind} are there")
    taken.update(sorted(final, reverse=True)[: wish.newest])
    for version in sorted(taken):
        yield Chosen(name, best[version])


# ---------------------------------------------------------------- getting them


def obtain(chosen: Chosen, folder: Path, fetcher: Fetcher, max_bytes: int) -> Unit | Skipped:
    """The file in the cache, downloaded if it is not there: `<folder>/<sha256>/<filename>`."""
    release, announced = chosen.release, chosen.release.hashes.get("sha256")
    what = f"{chosen.name}=={release.version}"
    too_large = Skipped(what, f"{release.filename} is larger than max_bytes = {max_bytes:,}")
    path = folder / announced / release.filename if announced else None
    if path is not None and path.exists() and sha256_of(path)[0] == announced:
        return _unit(chosen, path, announced, path.stat().st_size)
    if release.size is not None and release.size > max_bytes:
        return too_large
    try:
        part, sha256, size = fetcher.download(release.url, folder, release.hashes, max_bytes)
    except Absent:
        return Skipped(what, f"the index lists {release.filename}, but its server does not have it")
    except TooLarge:
        return too_large
    path = folder / sha256 / release.filename
    place(part, path)
    return _unit(chosen, path, sha256, size)


def place(part: Path, path: Path) -> None:
    """Give a finished download its name; whoever looks sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part.replace(path)


def _unit(chosen: Chosen, path: Path, sha256: str, size: int) -> Unit:
    release = chosen.release
    return Unit(
        kind="pypi",
        key={
            "name": chosen.name,
            "version": str(release.version),
            "filename": release.filename,
            "sha256": sha256,
            "upload_time": release.upload_time,
        },
        where={
            "path": str(path),
            "url": without_userinfo(release.url),
            "hash": "announced by the index" if "sha256" in release.hashes else "computed here",
        },
        bytes=size * EXPANSION,
        repo_name=f"pypi/{chosen.name}",
    )


def in_parallel(work: Callable[[A], B], items: Sequence[A], context: ResolveContext, what: str) -> list[B]:
    """`work` on each item over a few threads, in order; the first error ends it and cancels what has not begun."""
    found: list[B] = []
    with ThreadPoolExecutor(min(CONNECTIONS, max(len(items), 1))) as pool:
        tasks = [pool.submit(work, item) for item in items]
        try:
            for task in tasks:
                found.append(task.result())
                context.progress(what, len(found), len(items))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found
