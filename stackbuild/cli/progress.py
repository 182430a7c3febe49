"""How far the steps of a command are: bars on a terminal, else a line for each step that ended."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def talking(as_json: bool) -> Iterator[Callable[[str, int, int], None]]:
    """What steps tell: their name, tasks done, tasks in all. It goes to stderr."""
    console = Console(stderr=True)
    if not console.is_terminal or as_json:
        yield _line
        return
    columns = (TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bars: dict[str, Any] = {}

        def talk(what: str, done: int, of: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=of)
            progress.update(bars[what], completed=done)

        yield talk


def _line(what: str, done: int, of: int) -> None:
    if done == of:
        print(f"{what}: {of} of {of}", file=sys.stderr)
