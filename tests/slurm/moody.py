"""A stage that misbehaves on command, in a package of its own as add-a-filter.md says.

The folder named by STACKBUILD_ORDERS holds the orders, a file `<rank>.json` with a list of what the first, second … process
that works on this partition does: "" (nothing), "raise", "kill" (itself, -9), "eat" (memory, slowly), "gulp" (memory, before
anybody can look), "wait" (until there is a file `go`, or `<rank>.<number>.go`). Each process that begins leaves
`<rank>.<number>.began`, which says where it runs. None of this is an option of the stage, so that no order changes a key or a
released byte.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from stackbuild.stage import Options, Stage, Verdict

PARTITION_BITS = 3
mood: dict[int, tuple[str, int]] = {}  # by process: what it was told to do, and its number


def told(rank: int) -> tuple[str, int]:
    """What this process is to do and its number; leaves word that it began."""
    folder = Path(os.environ["STACKBUILD_ORDERS"])
    number = 1
    where = {
        name: os.environ.get(name, "") for name in ("SLURMD_NODENAME", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT")
    }
    while True:
        try:
            with open(folder / f"{rank}.{number}.began", "x") as file:
                json.dump({"pid": os.getpid(), **where}, file)
            break
        except FileExistsError:
            number += 1
    try:
        orders = json.loads((folder / f"{rank}.json").read_text())
    except FileNotFoundError:
        return "", number
    return (orders[number - 1] if number <= len(orders) else ""), number


def may_go(rank: int, number: int) -> bool:
    folder = Path(os.environ["STACKBUILD_ORDERS"])
    return (folder / "go").exists() or (folder / f"{rank}.{number}.go").exists()


class Moody(Stage[Options]):
    """Keeps everything, if it gets that far."""

    name = "moody"
    reads = ("content_id",)

    def verdicts(self, files: pa.RecordBatch) -> Iterator[Verdict]:
        if files.num_rows == 0:
            return
        rank = files["content_id"][0].as_py()[0] >> (8 - PARTITION_BITS)
        if os.getpid() not in mood:  # the task server may have imported this before it forked
            mood[os.getpid()] = told(rank)
        what, number = mood[os.getpid()]
        if what == "raise":
            raise RuntimeError(f"told to raise in partition {rank}")
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        held = [b"1" * (3 << 30)] if what == "gulp" else []
        while what == "eat" and len(held) < 100:
            held.append(b"1" * (32 << 20))
            time.sleep(0.05)
        end = time.monotonic() + 600  # of a test that died meanwhile
        while what == "wait" and not may_go(rank, number) and time.monotonic() < end:
            time.sleep(0.1)
        yield Verdict("mood", pa.array([True] * files.num_rows))
