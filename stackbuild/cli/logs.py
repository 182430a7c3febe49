"""`stackbuild logs`: what the tasks printed."""

from __future__ import annotations

from pathlib import Path

from stackbuild.cli.show import escaped
from stackbuild.status import described, status_of

TAIL_BYTES = 8_192


def run(out: Path, failed: bool) -> None:
    """Print the end of each log that says anything, or of the tasks that failed in the last run."""
    described(out)
    if failed:
        logs = [Path(failure["log"]) for failure in status_of(out).failures if failure["log"]]
    else:
        logs = sorted((out / "launches" / "logs").glob("*/*.log"))
    shown = 0
    for log in logs:
        text = tail(log)
        if text.strip():
            shown += 1
            print(f"==> {log}")
            print("\n".join(escaped(line) for line in text.splitlines()))
    if not shown:
        print("No task failed in the last run." if failed else "No task printed anything.")


def tail(path: Path) -> str:
    """The last bytes of a log."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return file.read().decode("utf-8", "replace")
