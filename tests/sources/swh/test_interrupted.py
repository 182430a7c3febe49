"""A build from an export that does not go well: killed in each phase, without room, with a store that gives nothing.

Whatever happened, the next run of the same command goes on, and what it releases is what an undisturbed build does, byte for byte.
So does one that is cut into more partitions than there are rows.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.sources.swh import fault_points
from tests.sources.swh.faults import FaultServer
from tests.sources.swh.mini_export import MiniExport, make_export
from tests.sources.swh.mini_world import World
from tests.sources.swh.test_build import recipe, released, run

DOWN = "http://127.0.0.1:9/content"  # discard: nobody listens
TEXTS = [b"print(1)\n", b"x = 2\n", b"y = 3\n"]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> MiniExport:
    """One repository, two levels deep, whose branch names a tag; and one without a visit."""
    world = World()
    commit = world.commit(world.tree({b"a.py": TEXTS[0], b"b/c.py": TEXTS[1], b"b/d.py": TEXTS[2], b"empty": b""}))
    tag = world.tag(b"v1", commit, "revision")
    main = b"refs/heads/main"
    world.origin("https://github.com/ann/a", {b"HEAD": ("alias", main), main: ("release", tag)}, b"HEAD")
    world.visited("https://github.com/bob/b", 1, 0, ("failed", None))
    return make_export(tmp_path_factory.mktemp("export"), "parquet", world, files=1)


def body(export: MiniExport, **of_source: Any) -> dict[str, Any]:
    return recipe(export, partitions=1, limits={"depth": 3}, outputs=["dataset"], of_source=of_source)


@pytest.fixture(scope="module")
def whole(export: MiniExport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a build that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = fault_points.build(body(export), folder, folder / "out")
    assert done.returncode == 0, done.stderr
    return folder / "out"


@pytest.fixture(scope="module")
def undisturbed(whole: Path) -> dict[str, str]:
    found = released(whole)
    assert len(found) >= 3
    return found


PHASES = (
    *(f"00-swh.{name}" for name in ("visits", "convert", "chosen", "heads", "follow-1", "roots")),
    *(f"00-swh.{name}" for name in ("level-01", "resolve", "fetch")),
    "00-ingest",
)


@pytest.mark.slow
def test_a_build_that_is_killed_in_each_phase_comes_to_the_same_bytes(
    export: MiniExport, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """While its first file is flushed: written, and not committed."""
    out = tmp_path / "out"
    for job in PHASES:
        done = fault_points.build(body(export), tmp_path, out, f"kill /stages/{job}/")
        assert done.returncode == -9, (job, done.stderr)
        assert not list((out / "stages" / job).glob("manifests/*.json")), (
            job
        )  # it was this phase, and nothing of it counts
    done = fault_points.build(body(export), tmp_path, out)
    assert done.returncode == 0, done.stderr
    assert released(out) == undisturbed


@pytest.mark.slow
def test_a_full_disk_is_named_and_the_next_run_goes_on_to_the_same_bytes(
    export: MiniExport, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    out, cache = tmp_path / "out", tmp_path / "elsewhere"
    for place in (f"{out}/stages/00-swh.level-00/data", f"{cache}/swh/contents"):
        done = fault_points.build(body(export), tmp_path, out, f"full {place}", cache)
        assert done.returncode == 5, done.stderr
        assert f"No space left on device: '{place}" in done.stderr and "make room" in done.stderr
        assert not list(cache.rglob(".part-*")) and not list(out.rglob("manifests/.*"))
    done = fault_points.build(body(export), tmp_path, out, cache=cache)
    assert done.returncode == 0, done.stderr
    assert released(out) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("state", ["forbidden", "down"])
def test_a_store_that_gives_nothing_ends_with_75_and_the_next_run_goes_on(
    export: MiniExport, undisturbed: dict[str, str], tmp_path: Path, state: str
) -> None:
    """Nothing of it is taken for a fact: no refusal becomes a decision, none a state in the cache."""
    out = tmp_path / "out"
    with FaultServer(list(export.world.contents.values()), default="forbidden") as server:
        first = server.url if state == "forbidden" else DOWN
        done = fault_points.build(body(export, objects=first), tmp_path, out, "hurry")
        assert done.returncode == 75, done.stderr
        words = "403 AccessDenied" if state == "forbidden" else "ClientConnectorError"
        assert re.search(rf"gives nothing: (\d+) tries since its last answer \({words} \1\)", done.stderr), done.stderr
        assert "Try again later" in done.stderr and not (out / "dataset").exists()
        server.default = "ok"
        done = fault_points.build(body(export, objects=server.url), tmp_path, out, "hurry")
    assert done.returncode == 0, done.stderr
    assert released(out) == undisturbed


@pytest.mark.slow
def test_what_a_store_lacks_is_asked_of_another_and_of_itself_by_another_build(
    export: MiniExport, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same folder the next run of the same recipe asks nobody; what came of whatever store is asked of none again."""
    monkeypatch.setenv("STACKBUILD_CACHE", str(tmp_path / "cache"))  # other tests walk files with these texts too
    texts = list(export.world.contents.values())
    with FaultServer(texts) as first, FaultServer(texts) as second:
        first.tell(TEXTS[1], "missing")
        build = run(body(export, objects=first.url), tmp_path / "out", workers=1)
        assert states_of(build) == {"missing": 1, "ok": 3}
        asked = first.requests.copy()
        assert states_of(run(body(export, objects=first.url), tmp_path / "out", workers=1)) == {"missing": 1, "ok": 3}
        assert first.requests == asked
        build = run(body(export, objects=second.url), tmp_path / "out", workers=1)
        assert states_of(build) == {"ok": 4} and released(build.out) == undisturbed
        assert set(second.requests) == {hashlib.sha1(TEXTS[1]).hexdigest()}
        # … and that this content came later is in the cache as well; one that never did, a new build asks for again.
        first.tell(TEXTS[1], "ok")
        first.requests.clear()
        shutil.rmtree(tmp_path / "cache" / "swh" / "contents")
        build = run(body(export, objects=first.url), tmp_path / "new", workers=1)
        assert states_of(build) == {"ok": 4} and released(build.out) == undisturbed
        assert first.requests[hashlib.sha1(TEXTS[1]).hexdigest()] == 1


def states_of(build: Any) -> dict[str, int]:
    """What became of the contents that were asked for."""
    (shard,) = build.shards("00-swh.fetch")
    found: dict[str, int] = shard.stats["states"]
    return found


@pytest.mark.slow
def test_any_number_of_partitions_and_workers_gives_the_same_rows(
    export: MiniExport, whole: Path, tmp_path: Path
) -> None:
    """Most of sixteen have no rows at all. The dataset and its manifest are the same bytes; what is released by partition, the
    same rows."""
    build = run({**body(export), "partitions": 16}, tmp_path / "out", workers=2)
    assert data_of(build.out) == data_of(whole) and len(data_of(whole)) > 1
    for folder in ("decisions", "manifest/tree"):
        assert rows_of(build.out / folder) == rows_of(whole / folder) != [], folder
    for table in ("00-contents/contents", "00-occurrences/occurrences", "00-ingest/tree", "00-ingest/origins"):
        job, name = table.split("/")
        ours, theirs = (sorted((out / "stages" / job).rglob(f"{name}-*.parquet")) for out in (build.out, whole))
        assert rows_of(*ours) == rows_of(*theirs) != [], table


def data_of(out: Path) -> dict[str, str]:
    """Of what is released, the files that are not cut by partition."""
    return {name: digest for name, digest in released(out).items() if name.split("/")[1] == "data"}


def rows_of(*places: Path) -> list[str]:
    """The rows of tables, in an order of their own, without the partition that each is in."""
    paths = [path for place in places for path in (sorted(place.rglob("*.parquet")) if place.is_dir() else [place])]
    tables = [pq.read_table(path) for path in paths]
    return sorted(
        str([(name, value) for name, value in row.items() if name != "owner_bucket"])
        for t in tables
        for row in t.to_pylist()
    )
