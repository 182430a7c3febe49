"""A whole build on nodes of a cluster, with every kind of job that there is: the bytes that one worker here gives."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.scenario import Scenario
from tests.worlds import STAGES, world

RECIPE = """
name = "whole"
seed = 7
partitions = 8
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
    """24 repositories, some 1,100 files: what takes long is not they but that each element begins anew."""
    folder = tmp_path_factory.mktemp("whole")
    paths = sorted(world(folder / "input", repos=24, files=40).iterdir())
    recipe = RECIPE.format(
        stages=", ".join(f'"{name}"' for name in STAGES), folders=", ".join(f'"{path}"' for path in paths)
    )
    here = Scenario(None, recipe, folder / "here", folder)
    here.build("--workers", "1", executor="local")
    # Two elements, each on a node of its own, of all jobs that have as many tasks as there are partitions.
    sizes = {"memory": "600MB", "shared_memory": "2000MB", "tasks_per_job": 4}
    there = Scenario(_cluster, recipe, folder / "there", folder, **sizes)
    there.build("--wait")
    return Whole(there, here.out)


def test_several_nodes_give_the_bytes_that_one_worker_gives(whole: Whole) -> None:
    assert len({event["node"] for event in whole.build.events("element")}) > 1
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
