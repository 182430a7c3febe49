"""`stackbuild diff`: what a second build gained and lost, per rule."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from stackbuild.cli.show import escaped
from stackbuild.difference import difference

SHOWN = 10


def run(first: Path, second: Path, as_json: bool) -> None:
    """Counts by rule, and some of the files."""
    found = difference(first, second)
    if as_json:
        print(json.dumps(found))
        return
    print(f"{found['both']:,} files are in both")
    for name, side, files in (("lost", second, found["lost"]), ("gained", first, found["gained"])):
        print(f"{len(files):,} files {name}")
        for (stage, rule), count in sorted(rules(files).items(), key=lambda item: -item[1]):
            print(
                f"  {count:,} {'left' if name == 'lost' else 'had left'} {side} by {stage}: {rule}"
                if stage
                else f"  {count:,} of which {side} tells no decision: not in its input, or taken by its opt-out list"
            )
        for file in files[:SHOWN]:
            print(f"    {escaped(file['repo_name'])} {escaped(file['path'])}")
        if len(files) > SHOWN:
            print(f"    and {len(files) - SHOWN:,} more; --json shows all")


def rules(files: list[dict[str, Any]]) -> Counter[tuple[str | None, str | None]]:
    return Counter((file["stage"], file["rule"]) for file in files)
