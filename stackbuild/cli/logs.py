"""`stackbuild logs`: what the tasks printed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stackbuild.cli.show import escaped
from stackbuild.launches import last_launch
from stackbuild.monitor.failures import tail, what
from stackbuild.status import described, status_of


def run(out: Path, failed: bool) -> None:
    """Print the end of each log of the last run that says anything, or only of what failed in it."""
    out = out.resolve()  # logs are named so by those who write them
    described(out)
    shown: set[str] = set()
    failures: list[dict[str, Any]] = []
    if failed:
        failures = status_of(out).failures
        for one in failures:
            print(escaped(f"# {one['job']} {what(one)}: {(one['message'].splitlines() or [''])[0]}".rstrip(": ")))
            for log in one["logs"]:
                show(log, shown)
    else:
        for path in logs_of(out):
            show(str(path), shown)
    if failed and not failures:
        print("No task failed in the last run.")
    elif not shown:
        print("No task printed anything.")


def logs_of(out: Path) -> Iterator[Path]:
    """All logs of the last run: of a launch its elements', gates' and Slurm's own too."""
    folder = last_launch(out)
    if folder is None:
        yield from sorted((out / "launches" / "logs").glob("*/*.log"))
        return
    for pattern in ("*.log", "*.out", "*/*.log"):
        yield from sorted(folder.logs.glob(pattern))


def show(log: str, shown: set[str]) -> None:
    """Print the end of a log, once, if it says anything."""
    text = tail(log)
    if log in shown or not text.strip():
        return
    shown.add(log)
    print(f"==> {escaped(log)}")
    print("\n".join(escaped(line) for line in text.splitlines()))
