"""What is used again and what is not: a shard's key holds everything that its bytes depend on, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild import build as building
from stackbuild import identity
from stackbuild.frozen_plan import Plan
from stackbuild.journal import driver_journal
from stackbuild.launch import Launch
from stackbuild.local import JobStep, Local
from stackbuild.plan import Build
from stackbuild.stage import Options, Stage
from tests.test_build import ran, released, run
from tests.worlds import light, world


class Shout(Stage[Options]):
    """Rewrites text and tags nothing: its tags are the same whatever it does."""

    name = "shout"
    reads = ("text",)
    rewrites_text = True
    word = "one"

    def key(self) -> dict[str, Any]:
        return {"word": self.word}

    def text(self, files: pa.RecordBatch) -> pa.Array:
        return pa.array([f"# {self.word}\n" + text for text in files["text"].to_pylist()], pa.large_string())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world"), repos=2, files=3)


def in_process(body: dict[str, Any], out: Path) -> Build:
    """Run every task here, so that a stage of this module can be used."""
    from stackbuild.execute import run_task

    plan = building.resolve(building.Request(body, Path("/"), out, 1))
    plan.save(out)
    build = Build(out, plan)
    for job in build.jobs:
        found = {}
        for rank, params in enumerate(build.task_params(job)):
            assert build.found(job, rank, params) or run_task(build, job, rank, params)
            found[rank] = build.found(job, rank, params)
        build.complete(job, {name: [found[r][i] for r in found] for i, name in enumerate(job.shard_jobs)})
    return build


def texts(build: Build) -> list[str]:
    layout = build.nodes[-1] if build.nodes[-1].instance == "layout" else build.nodes[-2]
    outputs = build.outputs(layout.phase_job("files"), "dataset")
    return [text for o in outputs for text in pq.read_table(build.out / o.file)["content"].to_pylist()]


def test_a_stage_that_rewrites_text_counts_though_its_tags_stay_the_same(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stackbuild import registry

    monkeypatch.setitem(registry.STAGES, "shout", f"{__name__}:Shout")
    stages = ["opt_out", "exact_dedup", "decode", "languages", "signals", "shout"]
    body = light(root, stages=stages, outputs=["dataset"])
    first = texts(in_process(body, tmp_path))
    monkeypatch.setattr(Shout, "word", "two")
    second = texts(in_process(body, tmp_path))
    assert len(first) == len(second) > 0
    assert all(text.startswith("# one\n") for text in first)
    assert all(text.startswith("# two\n") for text in second)


def test_an_option_that_looks_like_a_path_counts_whole() -> None:
    class Marked(Options):
        comment: str = "/"

    class Marker(Stage[Marked]):
        name = "marker"
        options_model = Marked

    keys = {json.dumps(identity.stage_identity(Marker(Marked(comment=word)))) for word in ("//", "/", "~x", "./x", "x")}
    assert len(keys) == 5


def test_an_option_that_names_a_file_counts_by_its_name_only() -> None:
    from stackbuild.quality.filters import FilterOptions

    assert FilterOptions.files == ("rules",)
    assert identity.without_places({"filters": {"rules": "/home/ada/mine.toml"}}) == {"filters": {"rules": "mine.toml"}}
    assert identity.without_places({"source": [{"paths": ["/x"], "kind": "git"}]}) == {"source": [{"kind": "git"}]}


@pytest.fixture
def other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a package of someone else's; what was told of any module is forgotten."""
    package = tmp_path / "otherpackage"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    forget()
    return package


def forget() -> None:
    for told in (identity.module_digest, identity.imports_of, identity.source_of):
        told.cache_clear()


def test_the_code_of_another_package_counts_with_all_that_it_imports_of_itself(other_package: Path) -> None:
    (other_package / "stage.py").write_text("from . import words\nfrom .deeper import thing\n")
    (other_package / "words.py").write_text("A = 1\n")
    (other_package / "deeper.py").write_text("thing = 1\n")
    digests = set()
    for name, text in (("words.py", "A = 1\n"), ("words.py", "A = 2\n"), ("deeper.py", "thing = 3\n")):
        (other_package / name).write_text(text)
        forget()
        digests.add(identity.module_digest("otherpackage.stage"))
    assert len(digests) == 3


def test_an_import_counts_wherever_it_stands_and_no_module_runs_for_that(other_package: Path) -> None:
    (other_package / "stage.py").write_text(
        "def tags():\n    try:\n        from . import one\n    except ValueError:\n        import otherpackage.two as it\n"
        "    else:\n        with it as x:\n            from .deep.three import thing\n"
        "    finally:\n        match x:\n            case 1:\n                if x:\n                    from .deep import four\n"
        "class A:\n    async def f(self):\n        while 1:\n            from . import five\n"
    )
    (other_package / "deep").mkdir()
    names = ("one", "two", "deep/__init__", "deep/three", "deep/four", "five")
    for name in names:
        (other_package / f"{name}.py").write_text("raise SystemExit('it ran')\n")
    found = identity.reachable("otherpackage.stage")
    expected = {name.replace("/", ".").removesuffix(".__init__") for name in names}
    assert found == {"otherpackage", "otherpackage.stage", *(f"otherpackage.{name}" for name in expected)}


def test_whoever_looks_at_a_build_loads_no_engine() -> None:
    """A job on a cluster and every command does: what they import would be paid for thousands of times."""
    program = (
        "import sys; from stackbuild.recipe import load; from stackbuild.graph import nodes_of, check; import stackbuild.launch\n"
        "from stackbuild.identity import stage_identity\n"
        "nodes = nodes_of(load('default').values); check(nodes); [stage_identity(node.stage) for node in nodes]\n"
        "print(*sorted({'licensedcode', 'typecode', 'datatrove.executor', 'huggingface_hub', 'fasttext', 'spacy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not done.stdout.strip()


def test_the_engine_is_part_of_every_key() -> None:
    found = identity.engine_identity()
    assert found["python"] and found["numba"] and found["pyarrow"]
    for name in identity.ENGINE_MODULES:
        assert identity.source_of(f"stackbuild.{name}")


def test_a_stage_manifest_of_another_plan_is_refused(root: Path, tmp_path: Path) -> None:
    build = run(light(root), tmp_path).build
    other = Plan({**build.plan.recipe, "seed": 8}, build.plan.units, [])
    with pytest.raises(Exception, match="of the plan"):
        Build(tmp_path, other).shards("00-ingest")


def test_a_new_file_is_read_in_the_run_that_changes_an_option_too(tmp_path: Path) -> None:
    root = world(tmp_path / "world", repos=2, files=3)
    out = tmp_path / "out"
    run(light(root), out)
    (root / "repo0" / "src" / "new.py").write_text("def brand_new(value):\n    return value * 2\n" * 5)
    result = run(light(root, near_dedup={"threshold": 0.8, "survivor": ["-revision_date"]}), out)
    assert result.build.ledger("00-ingest").rows_in == building_rows(root)


def building_rows(root: Path) -> int:
    return sum(1 for path in root.rglob("*") if path.is_file())


def test_an_unfinished_build_goes_on_with_what_it_resolved(tmp_path: Path) -> None:
    root = world(tmp_path / "world", repos=2, files=3)
    out = tmp_path / "out"
    result = run(light(root), out)
    body = json.loads((out / "build.json").read_text())
    (out / "build.json").write_text(json.dumps({**body, "complete": False}))
    shutil.rmtree(root / "repo1")
    again = run(light(root, source=result.build.plan.recipe["source"]), out)
    assert [unit.key for unit in again.build.plan.units] == [unit.key for unit in result.build.plan.units]


def test_products_that_a_recipe_no_longer_asks_for_are_gone(root: Path, tmp_path: Path) -> None:
    run(light(root, outputs=["dataset", "repos", "index"]), tmp_path)
    assert (tmp_path / "repos").exists() and (tmp_path / "index").exists() and (tmp_path / "clusters").exists()
    stages = ["opt_out", "exact_dedup", "decode", "languages", "signals"]
    run(light(root, outputs=["dataset"], stages=stages), tmp_path)
    assert not any((tmp_path / name).exists() for name in ("repos", "index", "clusters"))
    assert json.loads((tmp_path / "report" / "report.json").read_text())["clusters"] == {"clusters": 0, "files": 0}


@pytest.mark.parametrize("tasks", [1, 7])
def test_the_same_bytes_for_any_number_of_tasks_of_a_job(root: Path, tmp_path: Path, tasks: int) -> None:
    """As a cluster runs it: each of `tasks` ranks does every tasks-th task of a job, then the driver goes on."""
    body = light(root, outputs=["dataset", "repos", "index"])
    run(body, tmp_path / "local")
    out = tmp_path / "ranks"
    plan = building.resolve(building.Request(body, Path("/"), out, 1))
    path = plan.save(out)
    build = Build(out, plan)
    launch, journal = Launch(build, Local(out, path, 1), 1), driver_journal(out)

    for job in build.jobs:
        for rank in reversed(range(tasks)):
            list(JobStep(str(out), str(path), job.name).run(None, rank, tasks))
        assert launch.run_job(job, journal).ran == 0
    building.finish(build)
    assert released(out) == released(tmp_path / "local")


def test_a_file_that_somebody_removed_is_made_again(root: Path, tmp_path: Path) -> None:
    result = run(light(root), tmp_path)
    before = released(tmp_path)
    output = result.build.outputs("00-occurrences", "occurrences")[0]
    os.unlink(tmp_path / output.file)
    assert ran(run(light(root), tmp_path)) == {"00-occurrences": 1}
    assert released(tmp_path) == before
