"""Looking after an output folder: hash what was committed, remove what nobody names, compare two builds."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from stackbuild.errors import InputError
from stackbuild.identity import without_places
from stackbuild.ledger import check_ledger
from stackbuild.plan import Build
from stackbuild.publish import PRODUCTS, files_below
from stackbuild.shards import digest, file_sha256
from stackbuild.status import described, opened


@dataclass
class Verification:
    """How many committed files were hashed, and what is wrong with those that do not fit."""

    files: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ledger: bool = False  # whether it was checked


def finished(out: Path) -> Build:
    """The last build of a folder, complete and with its stages; InputError says what is wanting."""
    if not described(out)["complete"]:
        raise InputError(f"The last build in {out} is not complete; run it again first.")
    if not (out / "stages").exists():
        raise InputError(
            f"The stages of {out} were removed by `stackbuild clean`. What was published stands, and `stackbuild verify` checks "
            "it; for this the build must be run again."
        )
    return opened(out)


def verify(out: Path) -> Verification:
    """Hash every published file and, unless `clean` removed them, every file of the stages; check the ledger."""
    found = Verification()
    hashes: dict[tuple[int, int], str] = {}  # by inode: what is published is linked
    description = described(out)
    if not description["complete"]:
        found.notes.append("the last build is not complete; what is there of it is checked")
    files = description["files"]
    published = found if description["complete"] else Verification()
    for name, expected in files.items():
        check_file(out / name, expected, published, hashes)
    for product in (*PRODUCTS, "report"):
        for path in files_below(out / product):
            if str(path.relative_to(out)) not in files or path.is_symlink():
                published.problems.append(f"{path} is not of the build")
    if published is not found:
        found.files, found.bytes = published.files, published.bytes
        if published.problems:
            found.notes.append("publishing was interrupted: run the build again before anybody reads what is published")
    if not (out / "stages").exists():
        found.notes.append("the stages were removed by `stackbuild clean`; the published files are checked")
        return found
    build = opened(out)
    for name, stated, actual in (
        ("recipe_digest", description.get("recipe_digest"), digest(without_places(build.plan.recipe))),
        ("seed", description.get("seed"), build.plan.seed),
    ):
        if stated != actual:
            found.problems.append(f"{out / 'build.json'} says {name} {stated}; the plan's is {actual}")
    for name in (name for job in build.jobs for name in job.shard_jobs):
        try:
            shards = list(build.shards(name))
        except InputError as error:
            if description["complete"]:
                found.problems.append(str(error))
            continue
        for shard in shards:
            for output in shard.outputs:
                check_file(build.out / output.file, output.sha256, found, hashes)
    if description["complete"]:
        try:
            check_ledger(build)
            found.ledger = True
        except InputError as error:
            found.problems.append(str(error))
    return found


def check_file(path: Path, expected: str, found: Verification, hashes: dict[tuple[int, int], str]) -> None:
    """Hash one file, once for all of its names."""
    try:
        status = path.stat()
        inode = (status.st_dev, status.st_ino)
        if inode not in hashes:
            hashes[inode] = file_sha256(path)
            found.files += 1
            found.bytes += status.st_size
    except OSError as error:
        found.problems.append(f"{path} cannot be read ({error.strerror}); expected SHA-256 {expected}")
        return
    if hashes[inode] != expected:
        found.problems.append(f"{path} has SHA-256 {hashes[inode]}; expected {expected}")


def orphans(build: Build) -> list[Path]:
    """Folders and files below stages/ that the current plan's manifests do not name: killed attempts, earlier plans, and the
    manifests of parts, which a complete shard no longer needs."""
    named: set[Path] = set()
    keep_jobs: set[str] = set()
    for job in build.jobs:
        for name in job.shard_jobs:
            keep_jobs.add(name)
            for shard in build.shards(name):
                named.add(build.out / "stages" / name / "data" / f"{shard.rank:05d}-{shard.attempt}")
                named.update(build.out.joinpath(*Path(output.file).parts[:4]) for output in shard.outputs)
                named.add(build.out / "stages" / name / "manifests" / f"{shard.rank:05d}-{shard.key[:24]}.json")
    found = []
    for folder in sorted((build.out / "stages").iterdir()):
        if folder.name not in keep_jobs:
            found.append(folder)
            continue
        for kind in ("data", "manifests", "parts"):
            if (folder / kind).exists():
                found += [path for path in sorted((folder / kind).iterdir()) if path not in named]
    found += sorted(
        path for path in build.out.glob(".*.*") if path.is_dir()
    )  # folders that a killed publish left behind
    return found


def remove(paths: list[Path]) -> int:
    """Remove files and folders; return the bytes that this frees (what is linked elsewhere frees nothing)."""
    freed = sum(freed_by(path) for path in paths)
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return freed


def freed_by(path: Path) -> int:
    """Bytes below a path that no other name keeps."""
    if not path.is_dir():
        return size_alone(path)
    return sum(size_alone(Path(root, name)) for root, _, names in os.walk(path) for name in names)


def size_alone(path: Path) -> int:
    status = path.lstat()
    return status.st_size if status.st_nlink == 1 else 0
