"""`stackbuild manifest`: write the SWHID manifest of a build, and verify it."""

from __future__ import annotations

import json
from pathlib import Path

from stackbuild.build import manifest_header
from stackbuild.errors import InputError
from stackbuild.housekeeping import finished
from stackbuild.journal import only_one
from stackbuild.proof import contents_held, trees_read
from stackbuild.publish import place, products
from stackbuild.release.manifest import Level, read_header, verify_bytes, verify_paths, verify_syntax

NAMES = ("syntax", "bytes", "paths in their trees")


def write(out: Path) -> None:
    """Write OUT/manifest from the finished build."""
    finished(out)  # a folder that is no build is not made one by the lock
    with only_one(out):
        build = finished(out)
        place(out, "manifest", {**products(build)["manifest"], "header.json": manifest_header(build)})
    header = read_header(out / "manifest")
    print(f"{header['rows']:,} rows in {len(header['files'])} files; {out}/manifest/header.json")


def verify(out: Path, level: int, as_json: bool) -> None:
    """Check up to a level; exit 4 if a row is wrong."""
    folder = out / "manifest"
    results = [verify_syntax(folder, out / "dataset")]
    if level and not results[0].wrong:
        build = finished(out)
        results.append(verify_bytes(folder, contents_held(build)))
        if level > 1:
            results.append(verify_paths(folder, trees_read(build)))
    if as_json:
        print(json.dumps([vars(result) for result in results]))
    else:
        for result in results:
            print(line(result))
    if problems := [problem for result in results for problem in result.problems]:
        raise InputError("The manifest does not hold:\n" + "\n".join(f"  {problem}" for problem in problems))


def line(result: Level) -> str:
    unchecked = (
        f", {result.unchecked:,} cannot be checked (their revision names no root directory)" if result.unchecked else ""
    )
    return f"level {result.level} ({NAMES[result.level]}): {result.ok:,} ok, {result.wrong:,} wrong{unchecked}"
