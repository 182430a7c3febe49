"""`stackbuild verify`: every committed file hashed again."""

from __future__ import annotations

import json
from pathlib import Path

from stackbuild.errors import InputError
from stackbuild.housekeeping import verify


def run(out: Path, as_json: bool) -> None:
    """Exit 4 and name each file that does not hash to what its manifest says."""
    found = verify(out)
    if as_json:
        print(json.dumps(vars(found)))
    if found.problems:
        raise InputError("\n".join(found.problems))
    if not as_json:
        ledger = ", and the ledger adds up" if found.ledger else ""
        print(f"{found.files:,} files of {found.bytes / 1e6:,.1f} MB hash to what the build says{ledger}.")
        for note in found.notes:
            print(f"note: {note}")
