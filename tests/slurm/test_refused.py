"""Jobs that no node can begin, and a folder in which another user builds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.conftest import Prepared
from tests.slurm.scenario import Scenario

NOBODY = 65534


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        pytest.param(
            {"venv": "/no/such/environment"}, "cannot run /no/such/environment/bin/python", marks=pytest.mark.long
        ),
        ({"env_command": "no_such_module load python"}, "env_command ended with 127: no_such_module load python"),
    ],
    ids=["venv", "env_command"],
)
def test_what_no_node_can_begin_ends_the_build_with_the_reason_and_is_not_tried_again(
    begun: Callable[..., Scenario], settings: dict[str, str], words: str
) -> None:
    build = begun(**settings)
    said = build.build("--wait", expect=5).stderr
    assert "refused" in said and words in said and "next: stackbuild logs" in said
    assert not list((build.launch / "waves").glob("*.2.json"))
    status = build.status()
    assert status["state"] == "failed" and {one["cause"] for one in status["failures"]} == {"refused"}
    assert words in build.stackbuild("logs", build.out, "--failed").stdout


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that everybody may write to; pytest's own are for one user."""
    folder = Path(tempfile.mkdtemp(prefix="shared-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


# Another user to all that asks who runs it, and to squeue; the interpreter's own files may be for one user only.
AS_ANOTHER = f"import os; os.setreuid({NOBODY}, 0); from stackbuild.cli import main; main()"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_another_user_sees_a_launch_and_can_neither_build_beside_it_nor_end_it(
    cluster: Cluster, prepared: Prepared, shared: Path
) -> None:
    build = prepared.scenario(cluster, shared / "build")
    build.order(0, "wait")
    build.build()
    build.wait_began(0)
    before = {job.identity for job in build.jobs()}
    subprocess.run(["chmod", "-R", "a+rwX", str(shared)], check=True)

    def other(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", AS_ANOTHER, *map(str, arguments)]
        return subprocess.run(
            command, env=build.environment, cwd=build.folder, capture_output=True, text=True, check=False
        )

    seen = other("status", build.out)
    assert "running" in seen.stdout and "Another user" not in seen.stdout, seen.stdout + seen.stderr
    again = ("build", build.recipe, "--output", build.out, "--executor")
    for refused in (other(*again, "slurm"), other(*again, "local"), other("cancel", build.out)):
        assert refused.returncode == 2, refused.stderr
        assert build.launch.name in refused.stderr and "of user root" in refused.stderr
    assert {job.identity for job in build.jobs()} == before
    build.stackbuild("cancel", build.out)
    assert all(job.finished or job.state == "COMPLETING" for job in build.jobs())
