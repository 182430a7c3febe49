"""`stackbuild clean`: remove the intermediate stages of a finished build."""

from __future__ import annotations

from pathlib import Path

from stackbuild.errors import InputError
from stackbuild.housekeeping import freed_by, remove
from stackbuild.journal import only_one
from stackbuild.status import described


def run(out: Path, dry_run: bool) -> None:
    """What was published is linked and stays; a later build of this folder starts from its sources."""
    if not described(out)["complete"]:
        raise InputError(
            f"The build in {out} is not complete; its stages are what it would resume from. Finish it first."
        )
    stages = out / "stages"
    with only_one(out):
        found = [stages] if stages.exists() else []
        size = sum(freed_by(path) for path in found) if dry_run else remove(found)
    print(
        f"{size / 1e6:,.1f} MB of intermediate stages{' (nothing removed)' if dry_run else ' removed; the products stay'}"
    )
