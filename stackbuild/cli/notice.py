"""`stackbuild notice`: the notice that goes with files of a dataset."""

from __future__ import annotations

import sys
from pathlib import Path

from stackbuild.cli.show import escaped
from stackbuild.errors import InputError


def run(out: Path, repositories: list[str], files: str | None, list_files: bool) -> None:
    """Print the notice of a selection."""
    from stackbuild.license_notice import Selection, listed, notice

    lines: list[str] = []
    if files == "-":
        lines = sys.stdin.read().splitlines()
    elif files is not None:
        try:
            lines = Path(files).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{files} cannot be read ({error}).") from error
    for line in notice(out, Selection(frozenset(repositories), listed(lines)), list_files):
        print("\n".join(escaped(part) for part in line.split("\n")))
