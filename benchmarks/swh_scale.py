"""Print the tables of docs/swh-scale.md from the rates that stackbuild brings.

python -m benchmarks.swh_scale [--write] [--json]
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import asdict

from benchmarks.measure import ROOT
from benchmarks.scale import table
from stackbuild.estimate.model import hours, size
from stackbuild.estimate.swh import Graph, Machines, Phase, Selection, SwhRates, fetch, load_swh_rates, phases

PAGE = ROOT / "docs" / "swh-scale.md"
TIB = 1 << 40
GITHUB = 104.2e6  # repositories of The Stack v2
FILES_OF_REPOSITORY = 51.76e9 / 137.36e6  # of The Stack v1, copies included
COMPRESSED = 67.5e12 / 3.28e9 / 3.2  # bytes of an object: The Stack v2's mean content over the measured ratio of gzip

# The export of 2026-06-04. Published: nodes, edges, the bytes of ORC; the rest is this project's assumption (docs/swh-scale.md).
GRAPH = Graph(
    entries=1.07e12,
    contents=28e9,
    revisions=5.5e9,
    releases=0.1e9,
    branches=20e9,
    visits=4e9,
    orc_bytes=33 * TIB,
    files=33 * 1024,  # of a gibibyte each
)
PYTHON = Graph(
    entries=1.6e9,
    contents=25e6,
    revisions=10e6,
    releases=0.1e6,
    branches=5e6,
    visits=10e3,
    orc_bytes=36 << 30,
    files=64,
)
SCENARIOS = {
    "github": (GRAPH, Selection(GITHUB, GITHUB * FILES_OF_REPOSITORY, 3.28e9, COMPRESSED), Machines()),
    "thousand": (GRAPH, Selection(1_000, 1_000 * FILES_OF_REPOSITORY, 300_000, COMPRESSED), Machines()),
    "python": (
        PYTHON, Selection(500, 500 * 4 * FILES_OF_REPOSITORY, 600_000, COMPRESSED), Machines(2, 500e6, 20_000, 50e6, 64),
    ),
}  # fmt: skip
FETCHES = (1e9, 3.28e9)
CORES = (32, 512, 4096)


def phase_rows(found: Sequence[Phase]) -> list[list[str]]:
    """A row for each phase, the levels together too."""
    rows = [row(one) for one in found]
    rows.append(
        ["all", "", f"{sum(one.cpu for one in found) / 3600:,.1f}", size(sum(one.read for one in found)),
         size(sum(one.written for one in found)), hours(sum(one.wall for one in found)), ""]
    )  # fmt: skip
    return rows


def row(one: Phase) -> list[str]:
    return [
        one.name,
        f"{one.tasks:,.0f}",
        f"{one.cpu / 3600:,.1f}",
        size(one.read),
        size(one.written),
        hours(one.wall),
        one.bound,
    ]


def fetch_rows(rates: SwhRates) -> list[list[str]]:
    rows = []
    for count in FETCHES:
        for cores in CORES:
            one = fetch(count, COMPRESSED, Machines(cores, partitions=max(256, cores)), rates)
            rate = count / one.wall
            rows.append(
                [f"{count / 1e9:g} G", f"{cores:,}", f"{one.cpu / 3600:,.0f}", size(one.read), size(one.written), hours(one.wall),
                 f"{rate:,.0f}", one.bound]
            )  # fmt: skip
    return rows


def rate_rows(rates: SwhRates) -> list[list[str]]:
    """What a core does in a second, and what a unit leaves on the disk."""
    rows = [
        [f"`{name}`, a row converted", *per(one["row"]), f"{one['bytes']:.1f}"] for name, one in rates.convert.items()
    ]
    rows.append(
        ["a repository, from its visits to its root", *per(rates.origin["row"]), f"{rates.origin['bytes']:.1f}"]
    )
    rows.append(["a level: an entry of the row groups that are looked at", *per(rates.level["entry"]), ""])
    rows.append(
        ["a level: a file or directory found at a place", *per(rates.level["place"]), f"{rates.level['bytes']:.1f}"]
    )
    rows.append(["resolve: a place of a file", *per(rates.resolve["place"]), ""])
    rows.append(
        [
            "a row group in a footer, to find one's own",
            *per(rates.footer["group"]),
            f"{rates.footer['bytes']:,.0f}, read",
        ]
    )
    rows.append(["fetch: an object from the store", *per(rates.fetch["object"]), ""])
    rows.append(
        ["fetch: what is done with it besides", *per(rates.fetch["keep"]), f"{rates.fetch['bytes']:.2f} of its own"]
    )
    return rows


def per(seconds: float) -> list[str]:
    return [f"{seconds * 1e6:,.2f}", f"{1 / seconds:,.0f}" if seconds else "–"]


def tables(rates: SwhRates) -> dict[str, str]:
    head = ["phase", "tasks", "CPU-h", "read", "written", "wall", "bound by"]
    found = {name: table(head, phase_rows(phases(*given, rates))) for name, given in SCENARIOS.items()}
    found["rates"] = table(["unit", "CPU-µs", "a core, in a second", "bytes left"], rate_rows(rates))
    fetched = ["objects", "cores", "CPU-h", "from the store", "written", "wall", "objects/s", "bound by"]
    found["fetches"] = table(fetched, fetch_rows(rates))
    return found


def page_with(found: dict[str, str], text: str) -> str:
    """The page with its tables put in."""
    for name, lines in found.items():
        text = re.sub(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", rf"\g<1>{lines}\n\g<2>", text, flags=re.S)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="replace the tables of the page")
    parser.add_argument("--json", action="store_true", help="print one object")
    asked = parser.parse_args()
    rates = load_swh_rates()
    if asked.json:
        found = {name: [asdict(one) for one in phases(*given, rates)] for name, given in SCENARIOS.items()}
        print(json.dumps({"name": "swh_scale", **found}))
    elif asked.write:
        PAGE.write_text(page_with(tables(rates), PAGE.read_text()))
    else:
        print("\n\n".join(tables(rates).values()))


if __name__ == "__main__":
    main()
