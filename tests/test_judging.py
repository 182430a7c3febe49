"""A task that is stopped goes on from part to part; a row is quarantined for what a second process reproduces, and for
nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from stackbuild import build as building
from stackbuild import execute, judging, registry
from stackbuild.errors import BadRows, InputError, StackbuildError
from stackbuild.execute import run_task
from stackbuild.frozen_plan import Plan
from stackbuild.graph import Job
from stackbuild.housekeeping import remove
from stackbuild.judging import Try
from stackbuild.plan import Build
from stackbuild.shards import find_manifest
from stackbuild.stage import Options, Stage, Verdict
from tests.worlds import light, world

SMALL = 6_000  # bytes of a part: some ten parts in a partition of the world
LARGE = 100 << 20


# ---------------------------------------------------------------- a stage that misbehaves


class Touchy(Stage[Options]):
    """Adds the length of a text; asks `meet` about each batch first."""

    name = "touchy"
    reads = ("path", "repo_name", "text")
    adds = (pa.field("letters", pa.int64()),)
    meet: Callable[[pa.RecordBatch], None] = staticmethod(lambda batch: None)

    def tags(self, files: pa.RecordBatch) -> Mapping[str, pa.Array]:
        type(self).meet(files)
        return {"letters": pc.utf8_length(files["text"]).cast(pa.int64())}


class Second(Touchy):
    """Another of the same job."""

    name = "second"
    reads = (*Touchy.reads, "letters")
    adds = (pa.field("more_letters", pa.int64()),)
    meet = staticmethod(lambda batch: None)

    def tags(self, files: pa.RecordBatch) -> Mapping[str, pa.Array]:
        type(self).meet(files)
        return {"more_letters": files["letters"]}

    def verdicts(self, files: pa.RecordBatch) -> Iterator[Verdict]:
        yield Verdict("short", pc.greater(files["more_letters"], 700), value=files["more_letters"], threshold=700)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world"), repos=4, files=12)


@pytest.fixture(autouse=True)
def stages(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)
    monkeypatch.setattr(Touchy, "meet", staticmethod(lambda batch: None))
    monkeypatch.setattr(Second, "meet", staticmethod(lambda batch: None))


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.STAGES, "touchy", f"{__name__}:Touchy")
    monkeypatch.setitem(registry.STAGES, "second", f"{__name__}:Second")


STAGES = ["exact_dedup", "decode", "languages", "signals", "near_dedup", "touchy", "second"]


def body(root: Path, part_bytes: int = SMALL) -> dict[str, Any]:
    return light(root, stages=STAGES, partitions=1, outputs=["dataset"], part_bytes=part_bytes)


@pytest.fixture(scope="module")
def templates(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Output folders, by bytes of a part, in which everything is complete that comes before the job of `touchy`."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        for part_bytes in (SMALL, LARGE):
            out = found[part_bytes] = tmp_path_factory.mktemp("template")
            plan = building.resolve(building.Request(body(root, part_bytes), Path("/"), out, 1))
            plan.save(out)
            build = Build(out, plan)
            for job in build.jobs[: build.jobs.index(touchy_job(build))]:
                shards = []
                for rank, params in enumerate(build.task_params(job)):
                    run_task(build, job, rank, params)
                    shards.append(build.found(job, rank, params) or [])
                build.complete(job, {name: [one[i] for one in shards] for i, name in enumerate(job.shard_jobs)})
    return found


def touchy_job(build: Build) -> Job:
    return next(job for job in build.jobs if any(node.instance == "touchy" for node in job.nodes))


Ready = Callable[..., tuple[Build, Job]]


@pytest.fixture
def ready(templates: dict[int, Path], tmp_path: Path) -> Ready:
    """Gives a copy of a template as a build, and the job of `touchy`."""

    def copy(name: str = "a", part_bytes: int = SMALL) -> tuple[Build, Job]:
        out = Path(shutil.copytree(templates[part_bytes], tmp_path / name))
        plan = next(path for path in (out / "plans").glob("*.json") if path.name != "sources.json")
        build = Build(out, Plan.load(plan))
        return build, touchy_job(build)

    return copy


def shards_of(build: Build, job: Job) -> dict[str, list[Any]]:
    """What the job's shards list, by stage: (table, rows, SHA-256)."""
    found = build.found(job, 0, {})
    assert found is not None
    return {shard.job: [(o.table, o.rows, o.sha256) for o in shard.outputs] for shard in found}


class Stop(BaseException):
    """As a kill ends a task: nobody handles it."""


def counting(seen: list[int], after: int | None = None) -> Any:
    """Counts the rows that it meets; stops when it was asked `after` times."""

    def meet(batch: pa.RecordBatch) -> None:
        if len(seen) == after:
            raise Stop
        seen.append(batch.num_rows)

    return staticmethod(meet)


def on(paths: set[str], error: type[Exception] = RuntimeError) -> Any:
    """Raises when it meets one of these paths."""

    def meet(batch: pa.RecordBatch) -> None:
        if bad := sorted(paths & set(batch["path"].to_pylist())):
            raise error(f"I do not like {bad[0]}")

    return staticmethod(meet)


# ---------------------------------------------------------------- going on


def test_a_stopped_task_goes_on_at_the_first_part_that_is_not_committed(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, job = ready()
    first, second, whole = list[int](), list[int](), list[int]()
    monkeypatch.setattr(Touchy, "meet", counting(first, after=3))
    with pytest.raises(Stop):
        run_task(build, job, 0, {})
    assert build.found(job, 0, {}) is None
    monkeypatch.setattr(Touchy, "meet", counting(second))
    assert run_task(build, job, 0, {})
    assert len(build.parts(job.nodes[0], 0)) > 4
    other, job_there = ready("b")
    monkeypatch.setattr(Touchy, "meet", counting(whole))
    assert run_task(other, job_there, 0, {})
    assert len(first) == 3 and first + second == whole
    assert shards_of(build, job) == shards_of(other, job_there)


def test_a_task_that_is_stopped_in_the_second_stage_of_a_job_keeps_what_the_first_committed(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, job = ready()
    assert [node.instance for node in job.nodes] == ["near_dedup", "touchy", "second"]
    real, waiting = execute.commit_part, list(range(5))

    def stopping(*arguments: Any) -> Any:
        if not waiting:  # three stages of part 0, and the first two of part 1, are committed
            raise Stop
        waiting.pop()
        return real(*arguments)

    monkeypatch.setattr(execute, "commit_part", stopping)
    with pytest.raises(Stop):
        run_task(build, job, 0, {})
    monkeypatch.setattr(execute, "commit_part", real)
    one, two = list[int](), list[int]()
    monkeypatch.setattr(Touchy, "meet", counting(one))
    monkeypatch.setattr(Second, "meet", counting(two))
    assert run_task(build, job, 0, {})
    assert len(two) == len(one) + 1


def test_one_part_at_a_time_gives_the_same_shard(ready: Ready) -> None:
    build, job = ready()
    turns = 1
    while not run_task(build, job, 0, {}, Try(one_part=True)):
        assert build.found(job, 0, {}) is None
        turns += 1
    assert turns == len(build.parts(job.nodes[0], 0))
    other, job_there = ready("b")
    run_task(other, job_there, 0, {})
    assert shards_of(build, job) == shards_of(other, job_there)


def test_a_phase_goes_on_from_part_to_part(ready: Ready) -> None:
    build, _ = ready()
    job = next(job for job in build.jobs if job.name.endswith("near_dedup.signatures"))
    whole = find_manifest(build.out, job.name, 0, build.key(job, 0, {}))
    assert whole is not None
    remove([build.out / "stages" / job.name])
    turns = 1
    while not run_task(build, job, 0, {}, Try(one_part=True)):
        turns += 1
    again = find_manifest(build.out, job.name, 0, build.key(job, 0, {}))
    assert again is not None and turns == len(again.table("sketches")) > 4
    assert [o.identity() for o in again.outputs] == [o.identity() for o in whole.outputs]


# ---------------------------------------------------------------- quarantine


def quarantined(build: Build, job: Job) -> list[dict[str, Any]]:
    found = build.found(job, 0, {})
    assert found is not None
    rows = [row for s in found for o in s.table("decisions") for row in pq.read_table(build.out / o.file).to_pylist()]
    return [row for row in rows if row["outcome"] == "quarantined"]


def test_a_row_that_raises_in_the_first_process_only_is_not_quarantined(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, job = ready()
    monkeypatch.setattr(Touchy, "meet", on({"/contact.py"}))
    with pytest.raises(RuntimeError):
        run_task(build, job, 0, {})
    monkeypatch.setattr(Touchy, "meet", on(set()))
    assert run_task(build, job, 0, {}, Try("survey"))
    other, job_there = ready("b")
    run_task(other, job_there, 0, {})
    assert quarantined(build, job) == [] and shards_of(build, job) == shards_of(other, job_there)


@pytest.mark.parametrize("part_bytes", [SMALL, LARGE])
@pytest.mark.parametrize("where", [Touchy, Second])
def test_a_row_that_raises_in_two_processes_is_quarantined_and_only_it(
    ready: Ready, monkeypatch: pytest.MonkeyPatch, part_bytes: int, where: type[Touchy]
) -> None:
    build, job = ready("a", part_bytes)
    monkeypatch.setattr(where, "meet", on({"/contact.py", "/wide.py"}))
    with pytest.raises(BadRows, match=r"contact|wide") as caught:
        run_task(build, job, 0, {}, Try("survey"))
    assert build.found(job, 0, {}) is None
    suspects = caught.value.rows
    assert list(suspects) == [where.name] and f"raised on {len(suspects[where.name])} row(s) of partition 0" in str(
        caught.value
    )
    assert run_task(build, job, 0, {}, Try("confirm", suspects))
    left = quarantined(build, job)
    assert {row["path"] for row in left} == {"/contact.py", "/wide.py"} and len(left) == len(suspects[where.name])
    assert all(row["stage"] == where.name and row["rule"] == "error" for row in left)
    assert all(row["detail"] == f"RuntimeError: I do not like {row['path']}" for row in left)
    # The others are as they are where nobody raises.
    monkeypatch.setattr(where, "meet", on(set()))
    other, job_there = ready("b", part_bytes)
    run_task(other, job_there, 0, {})
    ours, theirs = (tags(one, this) for one, this in ((build, job), (other, job_there)))
    bad = np.zeros(ours.num_rows, bool)
    bad[suspects[where.name]] = True
    assert ours.filter(pa.array(~bad)).equals(theirs.filter(pa.array(~bad)))
    last = ours.column(ours.num_columns - 1).filter(pa.array(bad))
    assert last.null_count == len(last)


def tags(build: Build, job: Job) -> pa.Table:
    """The tags of all stages of a job, side by side."""
    found = build.found(job, 0, {})
    assert found is not None
    tables = [pa.concat_tables([pq.read_table(build.out / o.file) for o in shard.table("tags")]) for shard in found]
    columns = [(f"{name} {number}", table[name]) for number, table in enumerate(tables) for name in table.column_names]
    return pa.table(dict(columns)).combine_chunks()


def test_a_survey_commits_the_parts_that_hold_no_bad_row_and_names_all_that_do(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, job = ready()
    monkeypatch.setattr(Touchy, "meet", on({"/contact.py"}))
    with pytest.raises(BadRows) as caught:
        run_task(build, job, 0, {}, Try("survey"))
    parts = build.parts(job.nodes[0], 0)
    rows = caught.value.rows["touchy"]
    base, _ = build.base("file", 0)
    paths = pa.concat_tables([pq.read_table(build.out / o.file, columns=["path"]) for o in base])["path"].to_pylist()
    assert rows == [row for row, path in enumerate(paths) if path == "/contact.py"] and len(rows) > 2
    hit = {part.number for part in parts for row in rows if part.start <= row < part.stop}
    there = {int(path.name.split("-")[1]) for path in (build.out / "stages" / job.nodes[0].slug / "parts").iterdir()}
    assert there == {part.number for part in parts} - hit and hit and there
    assert not list((build.out / "stages" / job.nodes[0].slug / "manifests").glob("*"))


def test_a_row_that_nobody_suspected_fails_the_confirmation_and_is_named_with_the_others(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, job = ready("a", LARGE)
    monkeypatch.setattr(Touchy, "meet", on({"/contact.py"}))
    with pytest.raises(BadRows) as first:
        run_task(build, job, 0, {}, Try("survey"))
    monkeypatch.setattr(Touchy, "meet", on({"/contact.py", "/wide.py"}))
    with pytest.raises(BadRows, match="wide") as second:
        run_task(build, job, 0, {}, Try("confirm", first.value.rows))
    assert set(second.value.rows["touchy"]) > set(first.value.rows["touchy"])
    assert build.found(job, 0, {}) is None
    monkeypatch.setattr(Touchy, "meet", on({"/wide.py"}))  # a suspect that does not raise stays
    assert run_task(build, job, 0, {}, Try("confirm", second.value.rows))
    assert {row["path"] for row in quarantined(build, job)} == {"/wide.py"}


@pytest.mark.parametrize("error", [MemoryError, OSError, InputError])
def test_an_error_that_no_row_is_to_blame_for_quarantines_nothing(
    ready: Ready, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    build, job = ready()
    monkeypatch.setattr(Touchy, "meet", on({"/contact.py"}, error))
    for how in (Try("survey"), Try("confirm", {"touchy": list(range(1_000))})):
        with pytest.raises(error) as caught:
            run_task(build, job, 0, {}, how)
        assert type(caught.value) is error
    assert build.found(job, 0, {}) is None


def test_the_limit_counts_over_all_parts_of_a_shard(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    build, job = ready()
    monkeypatch.setattr(judging, "QUARANTINE_ROWS", 2)
    monkeypatch.setattr(Touchy, "meet", on({"/contact.py"}))
    with pytest.raises(StackbuildError, match=r"raised on 3 or more of the [\d,]+ rows of partition 0") as caught:
        run_task(build, job, 0, {}, Try("survey"))
    assert not isinstance(caught.value, BadRows)
    with pytest.raises(StackbuildError, match="At most 2 may be put into quarantine"):
        while not run_task(build, job, 0, {}, Try("confirm", {"touchy": list(range(1_000))}, one_part=True)):
            pass
    assert build.found(job, 0, {}) is None
