"""`stackbuild gc`: remove what no current manifest names."""

from __future__ import annotations

from pathlib import Path

from stackbuild.housekeeping import finished, freed_by, orphans, remove
from stackbuild.journal import only_one


def run(out: Path, dry_run: bool) -> None:
    """Tell what is an orphan; remove it unless told not to."""
    finished(out)  # a folder that is no build is not made one by the lock
    with only_one(out):
        found = orphans(finished(out))
        for path in found:
            print(path.relative_to(out))
        size = sum(freed_by(path) for path in found) if dry_run else remove(found)
    print(f"{len(found)} orphans, {size / 1e6:,.1f} MB{' (nothing removed)' if dry_run else ' freed'}")
