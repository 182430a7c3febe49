"""`stackbuild manifest`: write the SWHID manifest of a build, and verify it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stackbuild.build import disk_error, manifest_header
from stackbuild.errors import PartialFailure, UsageError
from stackbuild.housekeeping import finished
from stackbuild.journal import only_one
from stackbuild.layout.columns import REPOS
from stackbuild.plan import Build
from stackbuild.proof import GitRoots, Held, directory
from stackbuild.publish import exchange, layout_of, place, products
from stackbuild.release.manifest import Manifest, read_manifest
from stackbuild.release.spdx import write_spdx
from stackbuild.release.supply import UNCHECKED, Supply
from stackbuild.release.train_ids import write_train_ids
from stackbuild.release.verify import (
    NAMES,
    Level,
    require,
    verify_bytes,
    verify_paths,
    verify_roots,
    verify_syntax,
)
from stackbuild.replay import TextReplay
from stackbuild.upstream import Upstream

LAYOUTS = ("swhid", "train-ids", "spdx")
NO_BYTES = "no bytes are at hand: give --objects URL"


def write(out: Path, layout: str = "swhid") -> None:
    """Write OUT/manifest or OUT/train-ids from the finished build, or OUT/spdx from OUT/manifest."""
    if layout not in LAYOUTS:
        raise UsageError(f"There is no layout {layout!r}; there are {', '.join(LAYOUTS)}.")
    if layout == "spdx":
        manifest = read_manifest(out / "manifest")
        with only_one(out), replaced(out / layout) as fresh:
            documents, files = write_spdx(manifest, fresh)
        print(f"{documents:,} documents of {files:,} files; {out}/{layout}")
        return
    finished(out)  # a folder that is no build is not made one by the lock
    with only_one(out):
        build = finished(out)
        if layout == "train-ids":
            repositories = write_repositories(build)
            print(f"{repositories:,} repositories; {out}/{layout}")
            return
        place(out, "manifest", {**products(build)["manifest"], "header.json": manifest_header(build)})
    header = read_manifest(out / "manifest").header
    print(f"{header['rows']:,} rows in {len(header['files'])} files; {out}/manifest/header.json")


def write_repositories(build: Build) -> int:
    """Make OUT/train-ids anew; returns how many repositories are in it."""
    outputs = build.outputs(layout_of(build).phase_job("repos"), "repos")
    with replaced(build.out / "train-ids") as fresh:
        return write_train_ids([build.out / output.file for output in outputs], REPOS, fresh)


@contextmanager
def replaced(target: Path) -> Iterator[Path]:
    """A fresh folder that takes the place of `target` when it is whole; until then the old one stays. StackbuildError
    if the disk is full or refuses."""
    fresh = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        yield fresh
        if target.exists():
            exchange(fresh, target)
        else:
            fresh.rename(target)
    except OSError as error:
        raise disk_error(error, target) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def verify(out: Path, level: int, objects: str | None, signed: bool, as_json: bool) -> None:
    """Check up to a level; exit 4 if a row is wrong, 5 if the bytes of one are gone."""
    manifest = read_manifest(out / "manifest")
    results = [verify_syntax(manifest, out / "dataset")]
    if level and results[0].holds:
        build = at_hand(out)
        supply: Supply | None = Upstream(objects, signed) if objects else Held(build) if build else None
        results += levels(manifest, level, build, supply)
    if as_json:
        print(json.dumps([vars(result) for result in results]))
    else:
        for result in results:
            print(line(result))
    require(results)
    if gone := max(result.gone for result in results):
        problems = "\n".join(f"  {problem}" for result in results for problem in result.problems)
        raise PartialFailure(f"The bytes of {gone:,} rows can no longer be had:\n{problems}")


def levels(manifest: Manifest, level: int, build: Build | None, supply: Supply | None) -> list[Level]:
    """The levels from 1 up to the one that is asked for."""
    found: dict[int, Level] = {}
    if supply is not None:
        replay = TextReplay(manifest.header) if level > 3 else None
        found = {result.level: result for result in verify_bytes(manifest, supply, replay)}
    if level > 1:
        found[2] = verify_paths(manifest)
    if level > 2:
        found[3] = verify_roots(manifest, GitRoots(build) if build else no_git)
    for number in range(1, level + 1):
        if number not in found:
            found[number] = Level(number)
            found[number].count(UNCHECKED, manifest.header["rows"], NO_BYTES)
    return [found[number] for number in sorted(found)]


def at_hand(out: Path) -> Build | None:
    """The build whose manifest it is; None if only what is released is there. InputError if it is not complete."""
    if not (out / "build.json").exists() or not (out / "stages").exists():
        return None
    return finished(out)


def no_git(repo_name: str, revision_id: str) -> tuple[bytes | None, str]:
    """What is known of a revision without the build that read it."""
    if revision_id.startswith("swh:1:dir:"):
        return directory(revision_id)
    return None, "no git repository of it is at hand"


def line(result: Level) -> str:
    """A level in words."""
    counts: dict[str, Any] = {
        "ok": result.ok,
        "wrong": result.changed + result.malformed,
        "missing upstream": result.missing,
        "taken down": result.taken_down,
        "unchecked": result.unchecked,
    }
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count or name in ("ok", "wrong"))
    reasons = "; ".join(f"{count:,} as {reason}" for reason, count in result.reasons.most_common())
    return f"level {result.level} ({NAMES[result.level]}): {told}" + (f" ({reasons})" if reasons else "")
