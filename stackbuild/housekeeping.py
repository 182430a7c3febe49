"""Looking after an output folder: hash what was committed, remove what nobody names, compare two builds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackbuild.errors import InputError
from stackbuild.launch import check_ledger
from stackbuild.plan import Build
from stackbuild.shards import ShardManifest, file_sha256


@dataclass
class Verification:
    """How many committed files were hashed, and what is wrong with those that do not fit."""

    files: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)


def verify(build: Build) -> Verification:
    """Hash every file that the current manifests name, check that the published names are these files, and the ledger."""
    found = Verification()
    for shard in current_shards(build):
        for output in shard.outputs:
            path = build.out / output.file
            found.files += 1
            if not path.exists():
                found.problems.append(f"{path} is missing; expected SHA-256 {output.sha256}")
                continue
            found.bytes += output.bytes
            actual = file_sha256(path)
            if actual != output.sha256:
                found.problems.append(f"{path} has SHA-256 {actual}; expected {output.sha256}")
    try:
        check_ledger(build)
    except InputError as error:
        found.problems.append(str(error))
    return found


def current_shards(build: Build) -> Iterator[ShardManifest]:
    """Every shard that the stage manifests of the current plan name."""
    for job in build.jobs:
        for name in job.shard_jobs:
            yield from build.shards(name)


def orphans(build: Build) -> list[Path]:
    """Folders and files below stages/ that the current plan's manifests do not name: killed attempts, earlier plans."""
    named: set[Path] = set()
    keep_jobs: set[str] = set()
    for job in build.jobs:
        for name in job.shard_jobs:
            if not (build.out / "stages" / name / "manifest.json").exists():
                raise InputError(
                    f"The build in {build.out} is not complete: {name} has no manifest. Finish it before collecting garbage."
                )
            keep_jobs.add(name)
            for shard in build.shards(name):
                named.add(build.out / "stages" / name / "data" / f"{shard.rank:05d}-{shard.attempt}")
                named.add(build.out / "stages" / name / "manifests" / f"{shard.rank:05d}-{shard.key[:24]}.json")
    found = []
    for folder in sorted((build.out / "stages").iterdir()):
        if folder.name not in keep_jobs:
            found.append(folder)
            continue
        for part in ("data", "manifests"):
            if (folder / part).exists():
                found += [path for path in sorted((folder / part).iterdir()) if path not in named]
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


# ---------------------------------------------------------------- two builds


def difference(first: Path, second: Path) -> dict[str, Any]:
    """Files that a second build gained and lost, by identity, with the rule by which a lost file left there."""
    import duckdb

    for folder in (first, second):
        if not (folder / "dataset").exists():
            raise InputError(f"{folder} has no dataset; name the output folders of two finished builds.")
    key = "repo_name, revision_id, path, content_id"
    with duckdb.connect() as connection:
        for name, folder in (("a", first), ("b", second)):
            files = [str(path) for path in sorted((folder / "dataset" / "data").rglob("*.parquet"))]
            connection.execute(f"CREATE VIEW {name} AS SELECT {key}, language FROM read_parquet({quoted(files)})")
            decisions = [str(path) for path in sorted((folder / "decisions").glob("*.parquet"))]
            connection.execute(
                f"CREATE VIEW {name}_left AS SELECT repo_name, revision_id, path, lower(hex(content_id)) content_id, stage, rule "
                f"FROM read_parquet({quoted(decisions)})"
            )

        def only_in(here: str, there: str) -> list[dict[str, Any]]:
            rows = connection.execute(
                f"WITH one_sided AS (SELECT * FROM {here} ANTI JOIN {there} USING ({key})) "
                f"SELECT repo_name, path, content_id, language, min(stage), min(rule) "
                f"FROM one_sided LEFT JOIN {there}_left USING ({key}) GROUP BY ALL ORDER BY ALL"
            ).fetchall()
            names = ("repo_name", "path", "content_id", "language", "stage", "rule")
            return [dict(zip(names, row, strict=True)) for row in rows]

        lost, new = only_in("a", "b"), only_in("b", "a")
        both = connection.execute(f"SELECT count(*) FROM a SEMI JOIN b USING ({key})").fetchone()
    return {"lost": lost, "gained": new, "both": both[0] if both else 0}


def quoted(paths: list[str]) -> str:
    """A SQL list of file names."""
    return "[" + ", ".join("'" + path.replace("'", "''") + "'" for path in paths) + "]"
