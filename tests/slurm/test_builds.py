"""A whole build on three nodes, with every kind of job that there is: the same bytes as on this machine with one worker."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.scenario import Scenario
from tests.worlds import STAGES, world

GROUP = "slurm-2"
RECIPE = """
name = "whole"
seed = 7
partitions = 16
stages = [{stages}]
outputs = ["dataset", "repos", "tokens", "index"]

[[source]]
kind = "directory"
paths = [{folders}]

[license_filter]
keep = ["permissive"]

[tokens]
vocab_size = 600
shards = 2
sample_bytes = 200000
"""


@dataclass
class Whole:
    """A build that ran on the cluster, and the same from this machine."""

    build: Scenario
    reference: Path
    nodes: set[str] = field(default_factory=set)


@pytest.fixture(scope="module")
def whole(_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """As many files and repositories as the quickstart's smaller half: 40 of them, 2,800 files."""
    folder = tmp_path_factory.mktemp("whole")
    paths = sorted(world(folder / "input", repos=40, files=60).iterdir())
    recipe = RECIPE.format(
        stages=", ".join(f'"{name}"' for name in STAGES), folders=", ".join(f'"{path}"' for path in paths)
    )
    here = Scenario(None, recipe, folder / "here", folder)
    here.build("--workers", "1", executor="local")
    # Three elements, one for each node, of all jobs that have as many tasks as there are partitions.
    sizes = {"memory": "600MB", "shared_memory": "2000MB", "tasks_per_job": 6}
    there = Scenario(_cluster, recipe, folder / "there", folder, **sizes)
    there.build("--wait")
    return Whole(there, here.out)


def test_three_nodes_give_the_bytes_that_one_worker_gives(whole: Whole) -> None:
    assert {event["node"] for event in whole.build.events("element")} == {"n1", "n2", "n3"}
    whole.build.same_as(whole.reference)


def test_no_job_begins_before_all_of_what_it_reads_is_complete(whole: Whole) -> None:
    """The grouping stages of near-duplicates among them: each reads all buckets of the one before."""
    jobs = json.loads((whole.build.launch / "launch.json").read_text())["jobs"]
    assert {"09-near_dedup.signatures", "09-near_dedup.candidates", "09-near_dedup.components"} < set(jobs)
    begun, ended = whole.build.events("element"), whole.build.events("element-end")
    for before, job in itertools.pairwise(jobs):
        first = min(event["time"] for event in begun if event["job"] == job)
        assert max(event["time"] for event in ended if event["job"] == before) <= first, (before, job)
    assert not [event for event in whole.build.events("gate") if event["again"]]
