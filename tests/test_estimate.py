"""The scale model counts what a build really does, knows every job, and says what does not fit."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild import build as building
from stackbuild import registry
from stackbuild.cluster import SlurmOptions
from stackbuild.dedup.options import NearDedupOptions
from stackbuild.dedup.stage import NearDedup
from stackbuild.estimate.corpus import Corpus, Work
from stackbuild.estimate.model import CHUNK_BYTES, COLUMNS, MAX_PARTITIONS, Cluster, estimate, propose
from stackbuild.estimate.rates import Rates, calibrated, corpus_of, load_rates, measured_jobs
from stackbuild.estimate.steps import STEPS, job_key, work_of
from stackbuild.graph import jobs_of, nodes_of
from stackbuild.plan import Build
from stackbuild.quality.filters import FilterOptions, Filters
from stackbuild.recipe import load
from stackbuild.status import opened
from tests.worlds import LIGHT, light, source_text

PARTITIONS = 8
# Who reads the rows of which phase's table.
NEAR_ROWS = (
    ("links", "links", "links"),
    ("estimates", "links", "links"),
    ("roots", "estimates", "stars"),
    ("components", "roots", "merges"),
    ("solve", "estimates", "edges"),
)
# Who looks through the footers of whose table.
WIDE = (
    ("occurrences", "ingest", "occurrences"),
    ("exact_dedup.files", "exact_dedup.runs", "runs"),
    ("near_dedup", "near_dedup.solve", "clusters"),
    ("layout.files", "layout.runs", "runs"),
    ("layout.decisions", "ingest", "origins"),
    ("layout.clusters", "near_dedup.solve", "clusters"),
    ("index.names", "layout.runs", "pointers"),
)
V2 = Corpus(3.28e9, 67.5e12, 1e6, 1_024, 104.2e6, 34.7e6)


@pytest.fixture(scope="module")
def recipe() -> dict[str, object]:
    return load("default", []).resolved()


@pytest.fixture(scope="module")
def rates() -> Rates:
    return load_rates()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A build of 1,300 files of 240 owners, some of them alike and some the same, in 8 partitions."""
    folder = tmp_path_factory.mktemp("estimate")
    draw = random.Random(3)
    texts = [source_text(draw, 3) for _ in range(1_000)]
    texts += [draw.choice(texts).replace("import os", f"import sys  # {number}") for number in range(200)]
    texts += texts[:100]
    repositories = [f"owner{number % 240}/repo{number % 480}" for number in range(len(texts))]
    columns = {"text": texts, "path": [f"src/{number}.py" for number in range(len(texts))], "repo": repositories}
    (folder / "in").mkdir()
    pq.write_table(pa.table(columns), folder / "in" / "a.parquet")
    return run(folder)


def run(folder: Path, **near_dedup: Any) -> Build:
    source = {"kind": "parquet", "paths": [str(folder / "in")]}
    source["columns"] = {"content": "text", "path": "path", "repo_name": "repo"}  # type: ignore[assignment]
    body = light(folder / "in", partitions=PARTITIONS, source=[source], near_dedup=near_dedup)
    building.run(building.Request(body, folder, folder / "out", 2))
    return opened(folder / "out")


@pytest.fixture(
    scope="module",
    params=[{}, {"memory": 1 << 15}, {"mode": "exact", "memory": 1 << 16}],
    ids=["default", "in passes", "exact"],
)
def any_built(built: Build, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The same, and with near-duplicates found otherwise."""
    if not request.param:
        return built
    folder = tmp_path_factory.mktemp("other")
    shutil.copytree(built.out.parent / "in", folder / "in")
    shutil.copytree(built.out, folder / "out")  # what comes before is found
    return run(folder, **request.param)


def works(build: Build) -> dict[str, Work]:
    return {work.job: work for work in work_of(build.jobs, corpus_of(build))}


# ---------------------------------------------------------------- what a build does


def test_every_phase_that_stackbuild_brings_has_a_shape() -> None:
    """A new phase without one would be taken for a job over all text."""
    kinds = [registry.stage_class(name) for name in registry.STAGES]
    stages = [kind(kind.options_model.model_construct()) for kind in kinds]  # some options have no default
    others = [NearDedup(NearDedupOptions(mode="exact")), Filters(FilterOptions(rules="starcoder2"))]
    for stage in [*stages, *others]:
        for phase in stage.phases():
            assert f"{stage.name}.{phase.name}" in STEPS


def test_tasks_are_those_of_the_build(any_built: Build) -> None:
    told = works(any_built)
    for job in any_built.jobs:
        shards = len(any_built.shards(job.shard_jobs[0]))
        slack = 2 if job_key(job) == "layout.files" else 0  # files of the release end at owners: about so many
        assert abs(told[job_key(job)].tasks - shards) <= slack, job.name


def test_pieces_of_tables_that_change_hands_are_those_of_the_manifests(any_built: Build) -> None:
    told = works(any_built)
    for job in any_built.jobs:
        outputs = [o for name in job.shard_jobs for shard in any_built.shards(name) for o in shard.outputs]
        listed = sum(len(o.groups) for o in outputs)
        if listed >= 4 * PARTITIONS:
            assert told[job_key(job)].listed == pytest.approx(listed, rel=0.3), job.name
        if job_key(job).startswith("near_dedup."):
            assert told[job_key(job)].outputs == pytest.approx(len(outputs), rel=0.3), job.name


def test_rows_of_near_dedups_tables_are_those_of_the_manifests(any_built: Build) -> None:
    """What a phase is said to go through is what the one before it wrote."""
    told = works(any_built)
    node = next(node for node in any_built.nodes if node.instance == "near_dedup")
    candidates = ("prefixes", "prefixes") if node.stage.options.exact else ("signatures", "bands")
    for phase, before, table in (("candidates", *candidates), *NEAR_ROWS):
        rows = sum(output.rows for output in any_built.outputs(node.phase_job(before), table))
        assert told[f"near_dedup.{phase}"].rows == pytest.approx(rows, rel=0.01), phase


def test_memory_cuts_near_dedup_into_passes() -> None:
    """Each of which reads all of its input again: what is opened grows with the square of what does not fit."""
    jobs = jobs_of(nodes_of(load("default", []).resolved()))
    much, little = ({w.job: w for w in work_of(jobs, replace(V2, table_bytes=memory))} for memory in (1 << 27, 1 << 25))
    for job in ("near_dedup.candidates", "near_dedup.links", "near_dedup.estimates"):
        assert little[job].bytes > 1.5 * much[job].bytes, job
    assert little["near_dedup.candidates"].opened > 1.9 * much["near_dedup.candidates"].opened
    assert little["near_dedup.links"].opened > 7 * much["near_dedup.links"].opened
    assert little["near_dedup.components"] == much["near_dedup.components"]


def test_rows_leave_as_they_did(built: Build) -> None:
    told = works(built)
    merged = sum(output.rows for output in built.outputs("02-exact_dedup.files", "files"))
    assert told[next(job for job in told if job.startswith("decode"))].rows == pytest.approx(merged, rel=1e-6)
    assert merged < 1_300
    signed = built.ledger(next(node.slug for node in built.nodes if node.instance == "near_dedup")).rows_in
    assert told["near_dedup.signatures"].rows == pytest.approx(signed, rel=1e-6)
    kept = sum(output.rows for output in built.outputs("10-layout.files", "dataset"))
    assert told["layout.files"].rows == pytest.approx(kept, rel=1e-6)


def test_what_readers_look_through_grows_with_the_cube_of_partitions() -> None:
    jobs = jobs_of(nodes_of(load("default", []).resolved()))
    few, many = ({w.job: w for w in work_of(jobs, replace(V2, partitions=parts))} for parts in (256, 512))
    assert many["exact_dedup.files"].footers == pytest.approx(8 * few["exact_dedup.files"].footers, rel=0.01)
    assert many["exact_dedup.files"].pieces == pytest.approx(4 * few["exact_dedup.files"].pieces, rel=0.01)


@pytest.mark.parametrize(("reader", "writer", "table"), WIDE)
def test_footers_are_as_large_as_their_tables_are_wide(built: Build, reader: str, writer: str, table: str) -> None:
    """A reader of a table of 55 columns goes through 5 kB for each row group."""
    name = next(job.shard_jobs[0] for job in built.jobs if job_key(job) == writer)
    found = [pq.read_metadata(built.out / output.file) for output in built.outputs(name, table)]
    most = max(found, key=lambda one: one.num_row_groups)
    assert COLUMNS[reader] == pytest.approx(most.num_columns, rel=0.35)  # without licences there are fewer
    if most.num_row_groups >= PARTITIONS:
        assert most.serialized_size / most.num_row_groups == pytest.approx(CHUNK_BYTES * COLUMNS[reader], rel=0.5)


# ---------------------------------------------------------------- what it costs


def test_every_job_of_the_default_recipe_was_measured(recipe: dict[str, object], rates: Rates) -> None:
    found = estimate(recipe, V2, Cluster(), rates)
    assert [one.job for one in found.jobs if not one.known] == []
    assert all(one.cpu > 0 and one.memory > 0 for one in found.jobs)


def test_the_bytes_of_another_input_are_about_those_that_the_table_says(built: Build, rates: Rates) -> None:
    """The table comes from other files; none of its figures may be off by an order of magnitude."""
    measured = measured_jobs(built)
    told = sum(rates.of(work).written.of(work) for work in works(built).values())
    assert told == pytest.approx(sum(one.written for one in measured.values()), rel=0.6)


def test_a_build_of_ones_own_is_told_as_it_was(built: Build, rates: Rates) -> None:
    own, silent = calibrated(rates, built)
    measured = measured_jobs(built)
    for work in work_of(built.jobs, own.corpus):
        assert own.of(work).written.of(work) == pytest.approx(measured[work.job].written, rel=1e-6)
        if work.job not in silent:
            assert own.of(work).cpu.of(work) == pytest.approx(measured[work.job].cpu, rel=1e-6)
    assert own.corpus.files == 1_300


def test_jobs_found_again_say_nothing_of_their_cost(built: Build, rates: Rates, tmp_path: Path) -> None:
    """A journal of tasks that did not run must not make a job cheap."""
    journal = built.out / "launches" / "journal.jsonl"
    kept = journal.read_text()
    try:
        lines = [line for line in kept.splitlines() if '"event": "task"' not in line]
        journal.write_text("\n".join(lines) + "\n")
        own, silent = calibrated(rates, built)
    finally:
        journal.write_text(kept)
    assert set(silent) == {job_key(job) for job in built.jobs}
    assert own.jobs["contents"].cpu == rates.jobs["contents"].cpu


def test_a_chain_that_was_not_measured_costs_what_its_stages_cost(rates: Rates) -> None:
    size = {"rows": 1e6, "bytes": 1e10}
    chain = ("license_filter", "decode", "languages", "signals", "filters")
    whole = rates.of(Work("+".join(chain), chain, 16, **size)).cpu.of(Work("", (), 16, **size))
    less = rates.of(Work("decode+signals", ("decode", "signals"), 16, **size)).cpu.of(Work("", (), 16, **size))
    languages = rates.stages["languages"].of(Work("", (), 16, **size))
    assert less < whole
    assert whole - less > 0.9 * languages


def test_a_stage_that_nobody_measured_is_said_to_be_a_guess(rates: Rates) -> None:
    work = Work("decode+strange", ("decode", "strange"), 1, 1.0, 1.0)
    assert not rates.known(work)
    assert rates.of(work).cpu.row > rates.of(Work("decode", ("decode",), 1, 1.0, 1.0)).cpu.row


# ---------------------------------------------------------------- a cluster


def test_the_proposal_fits_and_no_other_power_of_two_is_through_sooner(recipe: dict[str, object], rates: Rates) -> None:
    corpus = rates.corpus.sized(1e12, None, None, 64e6)
    cluster = Cluster(nodes=4, cpus=16, memory=128e9)
    found = propose(recipe, corpus, cluster, rates)
    parts = found.corpus.partitions
    assert parts & (parts - 1) == 0
    assert parts <= MAX_PARTITIONS
    assert found.fits
    for other in (parts // 2, parts * 2):
        beside = estimate(recipe, replace(corpus, partitions=max(1, other)), cluster, rates)
        assert not beside.fits or beside.wall >= found.wall


def test_tasks_of_near_dedup_hold_what_they_may_and_no_more_than_there_is(rates: Rates) -> None:
    corpus = replace(rates.corpus.sized(1e12, None, None, 64e6), partitions=256)
    little, much, more = (
        estimate(load("default", [f"near_dedup.memory={memory}"]).resolved(), corpus, Cluster(), rates)
        for memory in (24 << 20, 1 << 30, 1 << 40)
    )
    memory = [{job.job: job.memory for job in one.jobs} for one in (little, much, more)]
    for job in (
        "near_dedup.candidates",
        "near_dedup.links",
        "near_dedup.estimates",
        "near_dedup.sets",
        "near_dedup.solve",
    ):
        assert memory[0][job] + 1e9 < memory[1][job] < memory[0][job] + 3e9, job
        assert memory[2][job] < 60e9, job
    for job in ("near_dedup.roots", "near_dedup.components", "contents"):
        assert memory[0][job] == memory[2][job], job
    assert next(job.passes for job in little.jobs if job.job == "near_dedup.candidates") > 10
    assert {job.passes for job in more.jobs} == {1.0}


def test_what_does_not_fit_into_memory_is_the_bottleneck(recipe: dict[str, object], rates: Rates) -> None:
    found = propose(recipe, V2, Cluster(nodes=100, cpus=64, memory=8e9), rates)
    assert not found.fits
    assert found.bottleneck().startswith("memory: a task of ")
    assert found.to_json()["fits"] is False


def test_more_nodes_shorten_cpu_and_not_what_one_process_does(recipe: dict[str, object], rates: Rates) -> None:
    corpus = replace(rates.corpus.sized(1e12, None, None, 64e6), partitions=64)
    one, ten = (
        estimate(recipe, corpus, Cluster(nodes=n, cpus=8, memory=1e12, bandwidth=1e12, metadata=1e9), rates)
        for n in (1, 10)
    )
    assert ten.wall < one.wall
    assert ten.wall > sum(job.limits["serial"] for job in ten.jobs) + ten.resolve
    text = next(job for job in one.jobs if "languages" in job.job)
    assert next(job for job in ten.jobs if job.job == text.job).limits["few tasks"] == pytest.approx(
        text.limits["cpu"] / 8, rel=0.2
    )  # 64 tasks on 80 slots: more nodes would not help any more
    assert "cpu" not in next(job for job in ten.jobs if job.job == "tokens.shards").limits


def test_few_tasks_and_footers_are_told_from_what_more_nodes_or_a_faster_folder_would_mend(
    recipe: dict[str, object], rates: Rates
) -> None:
    one = estimate(recipe, V2, Cluster(nodes=32, cpus=32, memory=1e13, bandwidth=1e12, metadata=1e9), rates)
    name = next(iter(one.time_by_limit()))
    assert name == "few tasks" and "tokens.shards" in one.bottleneck() and "[tokens] shards" in one.bottleneck()
    many = estimate(recipe, replace(V2, partitions=1 << 15), Cluster(nodes=1000, cpus=64, memory=1e13), rates)
    assert "footers" in many.time_by_limit()


def test_the_settings_that_go_with_an_estimate_let_every_job_run(recipe: dict[str, object], rates: Rates) -> None:
    corpus = replace(rates.corpus.sized(3e12, None, None, 64e6), partitions=512)
    cluster = Cluster(nodes=20, cpus=64, memory=256e9)
    found = estimate(recipe, corpus, cluster, rates)
    options = SlurmOptions(**found.settings)
    assert options.job_memory, "some need more than a CPU's share of a node"
    for one in found.jobs:
        given = options.job_memory.get(one.job.split("+")[0], options.memory)
        assert one.memory <= given and one.shared <= options.shared_memory
        assert given <= options.max_memory
    assert options.element_memory <= options.max_memory <= cluster.memory  # or no node could run any


def test_the_time_is_made_of_what_bounds_the_jobs(recipe: dict[str, object], rates: Rates) -> None:
    found = estimate(recipe, V2, Cluster(nodes=32, cpus=32, memory=1e13), rates)
    assert sum(found.time_by_limit().values()) == pytest.approx(found.wall)
    for job in found.jobs:
        assert job.wall == pytest.approx(job.limits["serial"] + max(v for k, v in job.limits.items() if k != "serial"))


# ---------------------------------------------------------------- the command


def stackbuild(*arguments: str, code: int = 0) -> str:
    done = subprocess.run([sys.executable, "-m", "stackbuild", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stderr if code else done.stdout


def test_an_estimate_reads_no_source(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('name = "far"\nextends = "default.toml"\n[[source]]\nkind = "git"\npaths = ["/does/not/exist"]\n')
    text = stackbuild("plan", str(path), "--estimate", "67.5TB", "--files", "3.28e9", "--nodes", "32", "--json")
    body = json.loads(text)
    assert body["files"] == 3.28e9
    assert body["tasks"] == sum(job["tasks"] for job in body["jobs"])
    assert body["bottleneck"]
    assert body["cpu_hours"] > 1_000
    assert "partitions = " in stackbuild("plan", str(path), "--estimate", "3.1TB")


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--estimate", "much"], 2, "67.5TB"),
        (["--estimate", "1TB", "--copies", "0.5"], 2, "--copies"),
        (["--estimate", "1TB", "--files", "inf"], 2, "--files inf"),
        (["--estimate", "1TB", "--units", "nan"], 2, "--units"),
        (["--estimate", "1TB", "--nodes", "9" * 30], 2, "--nodes"),
        (["--estimate", "9999999999999EB"], 2, "67.5TB"),
        (["--nodes", "20"], 2, "--nodes says something of an estimate only"),
        (["--estimate", "1TB", "--partitions", "12"], 2, "power of two"),
        (["--estimate", "1TB", "--rates", "/does/not/exist"], 4, "build.json"),
    ],
)
def test_what_cannot_be_estimated_is_said(arguments: list[str], code: int, word: str) -> None:
    assert word in stackbuild("plan", "default", *arguments, code=code)


def test_a_build_of_ones_own_gives_the_rates(built: Build) -> None:
    own = json.loads(stackbuild("plan", "default", "--estimate", "1TB", "--rates", str(built.out), "--json"))
    table = json.loads(stackbuild("plan", "default", "--estimate", "1TB", "--json"))
    assert own["files"] != table["files"]  # files of another size
    assert "licenses.detect" not in own["not_calibrated"]  # it did not stand in that recipe
    assert len(LIGHT) < len(own["jobs"])
