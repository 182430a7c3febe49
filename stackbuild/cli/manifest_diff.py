"""`stackbuild manifest diff`: two manifests compared, in counts and in rows."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from stackbuild.build import disk_error
from stackbuild.cli.show import escaped
from stackbuild.errors import InputError
from stackbuild.release.differences import STATES, differences

WORDS = {
    "gained": "gained",
    "lost": "lost",
    "changed": "of another content at the same place",
    "rewritten": "of the same content and another text",
    "moved": "moved: the same content elsewhere",
    "same": "the same",
}


def run(first: Path, second: Path, rows: Path | None, repositories: int, as_json: bool) -> None:
    """Counts by state, language and repository; with `rows` also a table of all."""
    if rows is not None and not rows.absolute().parent.is_dir():
        raise InputError(f"{rows} cannot be written: its folder is not there.")
    try:
        found = differences(manifest_of(first), manifest_of(second), rows, repositories)
    except OSError as error:
        raise disk_error(error, rows or first) from error
    if as_json:
        print(json.dumps(asdict(found)))
        return
    for state in STATES:
        print(f"{found.counts[state]:,} rows {WORDS[state]}")
    for title, table in (("language", found.languages), ("repository", found.most)):
        if table:
            print(f"\nby {title}")
        for name, counts in table.items():
            told = ", ".join(f"{counts[state]:,} {state}" for state in STATES if state in counts)
            print(f"  {escaped(name)}: {told}")
    if found.repositories > len(found.most):
        print(f"  and {found.repositories - len(found.most):,} more; --repositories names more, --rows has all")


def manifest_of(folder: Path) -> Path:
    """The manifest in a folder, which may be one itself."""
    return folder if (folder / "header.json").is_file() else folder / "manifest"
