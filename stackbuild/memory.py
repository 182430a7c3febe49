"""How much memory there is and who has it: the numbers by which the task server ends a task before the kernel ends all."""

from __future__ import annotations

import os
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
CGROUPS = Path("/sys/fs/cgroup")


def resident(pid: int | str = "self") -> int:
    """Bytes of a process's resident set, shared pages included; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * PAGE
    except (OSError, IndexError, ValueError):
        return 0


def private(pid: int) -> int:
    """Bytes that a process alone holds; a walk over its pages, to be asked seldom. 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            return sum(int(line.split()[1]) * 1024 for line in file if line.startswith(b"Private_"))
    except (OSError, IndexError, ValueError):
        return 0


def limit() -> int:
    """Bytes that this process and its children may take: the machine's, or less if a cgroup says so."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * PAGE]
    for file in _cgroup_files("memory.max", "memory.limit_in_bytes"):
        try:
            sizes.append(int(file.read_text()))
        except (OSError, ValueError):  # "max", or not there
            continue
    return min(size for size in sizes if size > 0)


def kernel_kills() -> int:
    """How many processes the kernel has killed for memory in this process's cgroups so far; 0 where it does not say."""
    total = 0
    for file in _cgroup_files("memory.events", "memory.oom_control", above=False):  # those above count strangers too
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return total


def _cgroup_files(v2: str, v1: str, above: bool = True) -> list[Path]:
    """The files of these names in the cgroups of this process and, unless `above` is false, in those around them."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, name = CGROUPS, v2
        elif "memory" in controllers.split(","):
            base, name = CGROUPS / "memory", v1
        else:
            continue
        here = base / path.strip("/")
        for folder in (here, *(here.parents if above else ())):
            if not folder.is_relative_to(base):
                break
            found.append(folder / name)
    return found
