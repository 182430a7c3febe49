"""The page about the scale of a Software Heritage source says what its model computes, and the model what its rates say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import swh_scale
from stackbuild.errors import InputError
from stackbuild.estimate.swh import CONVERTED, RATES_FILE, Machines, fetch, load_swh_rates, of_walk, phases
from stackbuild.sources.gharchive.hours import HourFile
from stackbuild.sources.swh.convert import ROW_GROUP_ROWS
from stackbuild.sources.swh.export import ExportFile
from stackbuild.sources.swh.source_options import SwhOptions
from stackbuild.sources.swh.stage import SwhWalk
from stackbuild.sources.swh.tables import TABLES
from stackbuild.sources.unit import Limits

RATES = load_swh_rates()
BARE = replace(RATES, footer={"group": 0.0, "bytes": 0.0})  # without what it takes to find one's row groups
GRAPH, CHOSEN, MACHINES = swh_scale.SCENARIOS["github"]


def test_the_page_is_what_the_model_computes() -> None:
    text = swh_scale.PAGE.read_text()
    found = swh_scale.tables(RATES)
    for name, lines in found.items():
        assert f"<!-- {name} -->\n{lines}\n<!-- /{name} -->" in text, "run python -m benchmarks.swh_scale --write"
    assert swh_scale.page_with(found, text) == text


def test_a_phase_costs_its_rates() -> None:
    by_name = {one.name: one for one in phases(GRAPH, CHOSEN, MACHINES, BARE)}
    rows = ("entries", "contents", "revisions", "releases", "branches", "visits")
    convert = sum(getattr(GRAPH, name) * RATES.convert[name]["row"] for name in rows)
    assert by_name["convert and visits"].cpu == pytest.approx(convert)
    asked = GRAPH.branches + GRAPH.revisions + GRAPH.releases  # every row group holds a repository's
    origins = CHOSEN.origins * RATES.origin["row"] + asked * RATES.level["entry"]
    assert by_name["origins to roots"].cpu == pytest.approx(origins, rel=1e-3)
    deep = max(range(len(RATES.walk["found"])), key=lambda depth: RATES.walk["standing"][depth])
    dense = GRAPH.entries * RATES.level["entry"] + CHOSEN.files * RATES.walk["found"][deep] * RATES.level["place"]
    assert by_name[f"level {deep}"].cpu == pytest.approx(dense + MACHINES.partitions * RATES.level["task"], rel=1e-3)
    assert by_name["fetch"].cpu == pytest.approx(CHOSEN.fetched * (RATES.fetch["object"] + RATES.fetch["keep"]))


def test_a_level_reads_the_row_groups_that_it_stands_in() -> None:
    """One repository stands in one row group at the first level, the whole graph in all of them at its widest."""
    few = phases(GRAPH, replace(CHOSEN, files=1 / RATES.walk["standing"][0]), MACHINES, BARE)
    bytes_of_entry = RATES.convert["entries"]["bytes"]
    first = next(one for one in few if one.name == "level 0")
    assert first.read == pytest.approx(ROW_GROUP_ROWS * bytes_of_entry, rel=1e-3)
    widest = max(
        (one for one in phases(GRAPH, CHOSEN, MACHINES, BARE) if one.name.startswith("level")),
        key=lambda one: one.read,
    )
    assert widest.read == pytest.approx(GRAPH.entries * bytes_of_entry, rel=1e-3)


def test_every_task_looks_through_the_footers_of_all_files() -> None:
    """The widest level: each of 256 tasks opens each file of entries, with two row groups for every partition in each."""
    full, bare = (phases(GRAPH, CHOSEN, MACHINES, rates)[7] for rates in (RATES, BARE))
    sizes = [getattr(GRAPH, name) * one["bytes"] for name, one in RATES.convert.items()]
    files = GRAPH.files * sizes[0] / sum(sizes)
    assert ROW_GROUP_ROWS < GRAPH.entries / files / MACHINES.partitions < 2 * ROW_GROUP_ROWS
    groups = MACHINES.partitions * files * 2 * MACHINES.partitions
    assert full.cpu - bare.cpu == pytest.approx(groups * RATES.footer["group"], rel=1e-6)
    assert full.read - bare.read == pytest.approx(groups * RATES.footer["bytes"], rel=1e-6)


def test_a_fetch_is_bound_by_the_slower_of_cores_and_network() -> None:
    slow = fetch(1e9, 6_400, Machines(512, network=1e6), RATES)
    assert slow.bound == "network" and slow.wall == pytest.approx(1e9 * 6_400 / 1e6)
    one = fetch(1e9, 6_400, Machines(1, network=1e12), RATES)
    assert one.bound == "cpu" and one.wall == pytest.approx(one.cpu)
    few = fetch(1e9, 6_400, Machines(512, network=1e12, partitions=4), RATES)
    assert few.bound == "few tasks" and few.wall == pytest.approx(few.cpu / 4)


@pytest.mark.parametrize(
    ("old", "new"),
    [("[level]", "[levels]"), ("place = ", "place = -"), ("entry = ", "entry = 'x' #"), ("contents = ", "content = "),
     ("standing = [", "standing = [0.0, "), ("[convert]", "[convert")],
)  # fmt: skip
def test_a_table_of_rates_that_is_none_is_named(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "rates.toml"
    path.write_text(RATES_FILE.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=r"rates\.toml is no table of rates"):
        load_swh_rates(path)


def walk(scale: int, names: frozenset[str] | None = None, hours: int = 0) -> SwhWalk:
    """A walk of an export whose files have so many MB each."""
    files = {
        TABLES[name].source: [
            ExportFile(TABLES[name].source, "orc", f"/x/{k}.orc", f"{name}/{k}.orc", scale << 20) for k in range(4)
        ]
        for name in CONVERTED
    }
    told = [HourFile(f"2016-05-01-{k}", f"/h/{k}", scale << 20) for k in range(hours)]
    options = SwhOptions(kind="swh", export="/x", objects="/o", gharchive="/h" if hours else None)
    return SwhWalk(options, files, names, Limits(), Path("/cache"), None, told)


def test_a_walk_is_shared_out_by_the_bytes_that_it_reads() -> None:
    rates = load_swh_rates()
    small, large = (of_walk(walk(scale), 16, rates) for scale in (1, 1_000))
    assert set(small) == {phase.name for phase in walk(1).phases()}
    assert all(large[name][1] == pytest.approx(1_000 * seconds) for name, (_, seconds) in small.items())
    assert small["convert"][0] == 20 and small["visits"][0] == 4 and small["level-07"][0] == small["fetch"][0] == 16
    assert large["convert"][1] > 300 and large["level-00"] == large["level-63"]
    listed = of_walk(walk(1_000, frozenset({"github.com/a/b"})), 16, rates)
    assert listed["fetch"][1] == pytest.approx(large["fetch"][1] / 100) and listed["convert"] == large["convert"]
    with_hours = of_walk(walk(1_000, hours=3), 16, rates)
    assert with_hours["events"][0] == 1 and with_hours["events"][1] > 100 and "events" not in large
