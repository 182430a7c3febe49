"""A walk of an export on a cluster: its files on three nodes, then level after level, and the same bytes as on this machine."""

from __future__ import annotations

from pathlib import Path

from tests.slurm.cluster import Cluster
from tests.slurm.scenario import Scenario
from tests.sources.swh.fault_points import toml
from tests.sources.swh.mini_export import make_export
from tests.sources.swh.test_build import recipe


def test_a_walk_on_a_cluster_gives_the_bytes_that_one_worker_gives(cluster: Cluster, tmp_path: Path) -> None:
    """The files of visits are an array of elements; what follows is small, and one element takes all of it."""
    export = make_export(tmp_path / "export", "orc", files=8)
    text = toml(recipe(export, partitions=2, limits={"depth": 4}, outputs=["dataset"]))
    here = Scenario(None, text, tmp_path / "here", tmp_path)
    here.build("--workers", "1", executor="local")
    there = Scenario(cluster, text, tmp_path / "there", tmp_path, tasks_per_job=4)
    there.build("--wait")
    elements = [(event["job"], event["node"]) for event in there.events("element")]
    assert len([job for job, _ in elements if job == "00-swh.visits"]) == 2
    assert len({node for _, node in elements}) > 1
    there.same_as(here.out)
