"""One cluster for all tests that want a real Slurm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Cluster, Unavailable, install


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on a cluster are slow, and all of them go to one worker, so that one cluster serves them."""
    for item in items:
        if {"cluster", "slurm"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.xdist_group("slurm"))


@pytest.fixture(scope="session")
def slurm() -> None:
    """Slurm's programs are installed; where they cannot be, the test is skipped and says why."""
    try:
        install()
    except Unavailable as error:
        pytest.skip(f"no Slurm: {error}")


@pytest.fixture(scope="session")
def _cluster(slurm: None) -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(_cluster: Cluster) -> Iterator[Cluster]:
    """Three nodes of two processors, idle; what the test leaves queued or broken is cleared away."""
    yield _cluster
    _cluster.ready()
