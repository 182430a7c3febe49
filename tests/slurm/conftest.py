"""One cluster for all tests that want a real Slurm, and builds that are complete up to the stage that misbehaves."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.cluster import Cluster, Unavailable, install
from tests.slurm.scenario import RECIPE, Scenario, install_moody, make_input, watching


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on a cluster are slow."""
    for item in items:
        if isinstance(item, pytest.Function) and "slurm" in item.fixturenames:
            item.add_marker(pytest.mark.slow)


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


@dataclass(frozen=True)
class Prepared:
    """What the scenarios start from. `begun`: an output folder in which every task of the misbehaving stage has failed;
    `reference`: the same build, finished on this machine."""

    recipe: str
    package: Path
    begun: Path
    reference: Path

    def scenario(self, cluster: Cluster | None, folder: Path, out: Path | None = None, **slurm: Any) -> Scenario:
        """A build on a cluster, complete up to the stage; `out`: its folder, if it is not to be one of its own."""
        made = Scenario(cluster, self.recipe, folder, self.package, **slurm)
        made.out = out or made.out
        shutil.copytree(self.begun, made.out, ignore=shutil.ignore_patterns("launches"), dirs_exist_ok=True)
        return made


@pytest.fixture(scope="session")
def prepared(slurm: None, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("prepared")
    source, package = make_input(folder / "input"), folder / "package"
    package.mkdir()
    install_moody(package)
    paths = ", ".join(f'"{path}"' for path in sorted((source / "folders").iterdir()))
    recipe = RECIPE.format(input=source, folders=paths)
    first = Scenario(None, recipe, folder / "begun", package)
    for rank in range(8):
        first.order(rank, *["raise"] * 3)
    first.build("--workers", "2", executor="local", expect=5)
    second = Scenario(None, recipe, folder / "reference", package)
    shutil.copytree(first.out, second.out)
    second.build("--workers", "2", executor="local")
    second.same_as(second.out)
    return Prepared(recipe, package, first.out, second.out)


@pytest.fixture
def begun(cluster: Cluster, prepared: Prepared, tmp_path: Path) -> Iterator[Callable[..., Scenario]]:
    """Makes the build of a test, with somebody who asks for its status all the while; its arguments are keys of the recipe's
    [slurm] table, and `out` the name of its folder."""
    with ExitStack() as stack:

        def make(out: str = "out", **slurm: Any) -> Scenario:
            scenario = prepared.scenario(cluster, tmp_path / "build", tmp_path / "build" / out, **slurm)
            stack.enter_context(watching(scenario))
            return scenario

        yield make
