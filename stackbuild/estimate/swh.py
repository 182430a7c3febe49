"""What the phases of a Software Heritage source take at a given size, from what a unit of their work was measured to cost.

`swh_rates.toml` beside this module was written by `python -m benchmarks.swh_rates`. The sizes of a graph are published ones where there
are any; what is assumed says so in docs/swh-scale.md. A phase's CPU is a sum over rows, places, tasks and footers; its wall time is what
the slowest takes of its CPU, on so many cores, its bytes, through the shared folder or the network, and the files that it opens.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stackbuild.errors import InputError
from stackbuild.sources.gharchive.hours import by_day
from stackbuild.sources.swh.convert import ROW_GROUP_ROWS
from stackbuild.sources.swh.source import FEW
from stackbuild.sources.swh.stage import SwhWalk
from stackbuild.sources.swh.tables import TABLES

RATES_FILE = Path(__file__).with_name("swh_rates.toml")
CONVERTED = ("entries", "contents", "revisions", "releases", "branches", "visits")


@dataclass(frozen=True)
class Graph:
    """Rows of an export's tables; `orc_bytes`: of all of it; `files`: of all tables."""

    entries: float
    contents: float
    revisions: float
    releases: float
    branches: float
    visits: float
    orc_bytes: float
    files: float


@dataclass(frozen=True)
class Selection:
    """What is walked of it. `origins`: with a root, all of them distinct; `files`: places of files below the roots; `fetched`:
    distinct contents, of `object_bytes` compressed bytes each."""

    origins: float
    files: float
    fetched: float
    object_bytes: float


@dataclass(frozen=True)
class Machines:
    """`bandwidth`: bytes, and `metadata`: files opened, that the shared folder serves in a second; `network`: bytes that come from the
    store."""

    cores: int = 512
    bandwidth: float = 20e9
    metadata: float = 20_000
    network: float = 5e9
    partitions: int = 256


@dataclass(frozen=True)
class Phase:
    """One phase, or those of one kind. CPU and wall in seconds, the rest in bytes."""

    name: str
    tasks: float
    cpu: float
    read: float
    written: float
    wall: float
    bound: str


@dataclass(frozen=True)
class SwhRates:
    """Of a row, a place, a task: CPU-seconds, and `bytes` that it leaves; of a fetch for each byte of an object."""

    about: Mapping[str, str]
    walk: Mapping[
        str, Sequence[float]
    ]  # by level: directories at which it stands, and what it finds, for each file of the walk
    convert: Mapping[str, Mapping[str, float]]
    origin: Mapping[str, float]
    level: Mapping[str, float]
    resolve: Mapping[str, float]
    fetch: Mapping[str, float]
    footer: Mapping[str, float]  # of a row group in one


def load_swh_rates(path: Path = RATES_FILE) -> SwhRates:
    """Read a table of rates; InputError if it is none."""
    try:
        body = tomllib.loads(path.read_text())
        rates = SwhRates(body["about"], body["walk"], *(body[name] for name in _TABLES))
        for one in (*rates.convert.values(), rates.origin, rates.level, rates.resolve, rates.fetch, rates.footer):
            if any(not isinstance(value, float) or value < 0 for value in one.values()):
                raise ValueError("a rate is no number from 0")
        if len(rates.walk["standing"]) != len(rates.walk["found"]):
            raise ValueError("a level stands somewhere and finds nothing")
        if missing := set(CONVERTED) - set(rates.convert):
            raise ValueError(f"no rate of {', '.join(sorted(missing))}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no table of rates ({type(error).__name__}: {error}).") from error
    return rates


_TABLES = ("convert", "origin", "level", "resolve", "fetch", "footer")


def phases(graph: Graph, chosen: Selection, machines: Machines, rates: SwhRates) -> list[Phase]:
    """The phases in their order."""
    at = _At(graph, machines, rates)
    convert = sum(at.rows[name] * rates.convert[name]["row"] for name in CONVERTED)
    found = [at.phase("convert and visits", graph.files, convert, graph.orc_bytes, sum(at.sizes.values()), graph.files)]

    cpu, written, read, looks = (
        chosen.origins * rates.origin["row"],
        chosen.origins * rates.origin["bytes"],
        0.0,
        Looks(0.0, 0.0),
    )
    for name in ("branches", "revisions", "releases"):
        looked = at.hit(chosen.origins / (at.rows[name] / ROW_GROUP_ROWS))
        cpu += at.rows[name] * looked * rates.level["entry"]
        read, looks = read + at.sizes[name] * looked, looks + at.look(name, 1.0)
    found.append(at.phase("origins to roots", machines.partitions, cpu, read, written, looks))

    for depth, (standing, places) in enumerate(zip(rates.walk["standing"], rates.walk["found"], strict=True)):
        busy = machines.partitions * at.hit(chosen.files * standing / machines.partitions)
        looked = at.hit(chosen.files * standing / (graph.entries / ROW_GROUP_ROWS))  # were no directory stood in twice
        here = chosen.files * places
        cpu = graph.entries * looked * rates.level["entry"] + here * rates.level["place"] + busy * rates.level["task"]
        read, written = at.sizes["entries"] * looked, here * rates.level["bytes"]
        looks = at.look("entries", busy / machines.partitions)
        found.append(at.phase(f"level {depth}", busy, cpu, read, written, looks))

    looked = at.hit(chosen.fetched / (graph.contents / ROW_GROUP_ROWS))
    cpu = chosen.files * rates.resolve["place"] + graph.contents * looked * rates.level["entry"]
    read = at.sizes["contents"] * looked + chosen.files * rates.level["bytes"]
    written = chosen.fetched * rates.resolve["bytes"]
    found.append(at.phase("resolve", machines.partitions, cpu, read, written, at.look("contents", 1.0)))
    found.append(fetch(chosen.fetched, chosen.object_bytes, machines, rates))
    return found


class _At:
    """A graph on machines: what its tables are, and what it takes to find a partition's row groups in them.

    Each task opens all files of a table and reads their footers, in which every partition has at least a row group.
    """

    def __init__(self, graph: Graph, machines: Machines, rates: SwhRates):
        self.machines, self.rates = machines, rates
        self.rows: dict[str, float] = {name: getattr(graph, name) for name in CONVERTED}
        self.sizes = {name: count * rates.convert[name]["bytes"] for name, count in self.rows.items()}
        share = graph.files / sum(self.sizes.values())
        self.files = {name: max(1.0, size * share) for name, size in self.sizes.items()}

    @staticmethod
    def hit(mean: float) -> float:
        """The share of boxes that hold any of so many things for each."""
        return -math.expm1(-mean)

    def look(self, table: str, times: float) -> Looks:
        """Of all tasks, `times` over."""
        parts, files = self.machines.partitions, self.files[table]
        groups = parts * math.ceil(self.rows[table] / files / parts / ROW_GROUP_ROWS)
        return Looks(times * parts * files, times * parts * files * groups)

    def phase(self, name: str, tasks: float, cpu: float, read: float, written: float, looks: Looks | float) -> Phase:
        machines, footer = self.machines, self.rates.footer
        looks = looks if isinstance(looks, Looks) else Looks(looks, 0.0)
        cpu += looks.groups * footer["group"]
        footers = looks.groups * footer["bytes"]
        cores = max(1.0, min(machines.cores, tasks))
        wall = {
            "few tasks" if cores < machines.cores else "cpu": cpu / cores,
            "footers" if footers > (read + written) / 2 else "bandwidth": (read + footers + written)
            / machines.bandwidth,
            "metadata": looks.opened / machines.metadata,
        }
        bound = max(wall, key=lambda one: wall[one])
        return Phase(name, tasks, cpu, read + footers, written, wall[bound], bound)


@dataclass(frozen=True)
class Looks:
    """Files that are opened, and row groups in their footers."""

    opened: float
    groups: float

    def __add__(self, other: Looks) -> Looks:
        return Looks(self.opened + other.opened, self.groups + other.groups)


def fetch(count: float, size: float, machines: Machines, rates: SwhRates) -> Phase:
    """So many objects of so many compressed bytes each; they are written to the cache and to the build."""
    cpu = count * (rates.fetch["object"] + rates.fetch["keep"])
    cores = min(machines.cores, machines.partitions)
    wall = {"few tasks" if cores < machines.cores else "cpu": cpu / cores, "network": count * size / machines.network}
    bound = max(wall, key=lambda name: wall[name])
    written = count * size * rates.fetch["bytes"]
    return Phase("fetch", machines.partitions, cpu, count * size, written, wall[bound], bound)


HOURS_RATE = 8e6  # bytes of GH Archive's gzip files in a CPU-second (`python -m benchmarks.gharchive`)


def of_walk(walk: SwhWalk, partitions: int, rates: SwhRates) -> dict[str, tuple[int, float]]:
    """(tasks, CPU-seconds of all of them) of each phase of a walk, by the bytes of the files that it reads, before any is read.

    Every level is taken to stand everywhere, and a converted row to have the bytes that it has in the export: good enough to share
    work out, and nothing that comes out depends on it.
    """
    size = {name: float(sum(file.size for file in walk.files[TABLES[name].source])) for name in CONVERTED}
    rows = {name: size[name] / rates.convert[name]["bytes"] for name in CONVERTED}
    cpu = {name: rows[name] * rates.convert[name]["row"] for name in CONVERTED}
    entry = rates.level["entry"]
    share = FEW if walk.names is not None or walk.source.pattern else 1.0
    days = len(by_day(walk.hours))
    seconds = {
        "visits": (len(walk.files[TABLES["visits"].source]), cpu["visits"]),
        "convert": (
            sum(len(walk.files[TABLES[name].source]) for name in CONVERTED[:-1]),
            sum(cpu.values()) - cpu["visits"],
        ),
        "events": (days, sum(hour.size for hour in walk.hours) / HOURS_RATE),
        "heads": (partitions, rows["branches"] * entry),
        "resolve": (partitions, rows["contents"] * entry),
        "fetch": (partitions, rows["contents"] * share * (rates.fetch["object"] + rates.fetch["keep"])),
    }
    level = (partitions, rows["entries"] * entry)
    other = (partitions, rows["visits"] * share * rates.origin["row"])
    names = [phase.name for phase in walk.phases()]
    return {name: level if name.startswith("level-") else seconds.get(name, other) for name in names}
