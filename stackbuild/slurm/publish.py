"""The last job of a launch: the sums of all stages are checked against each other and against the release, and it is published.

python -m stackbuild.slurm.publish OUT LAUNCH
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from stackbuild.build import conclude, disk_error
from stackbuild.journal import only_one
from stackbuild.launches import LaunchFolder, refuse_if_superseded, restart_count
from stackbuild.ledger import check_ledger
from stackbuild.slurm.code import open_launched
from stackbuild.slurm.gate import failed

LOCK_SECONDS = 1_800.0  # somebody who types `build` again holds the folder while sources are resolved, and then joins


def main(arguments: list[str]) -> int:
    out, launch = Path(arguments[0]), Path(arguments[1])
    folder = LaunchFolder(out, launch.name)
    journal = folder.events_of(f"publish.{restart_count()}.{os.environ.get('SLURM_JOB_ID', os.getpid())}")
    try:
        with only_one(out, LOCK_SECONDS):
            refuse_if_superseded(folder)  # another cannot begin while the folder is held
            build = open_launched(folder)
            check_ledger(build)
            try:
                missed = conclude(build)
            except OSError as error:
                raise disk_error(error, out) from error
    except Exception as error:
        return failed(journal, error, job="publish")
    tasks = sum(len(build.shards(name)) for job in build.jobs for name in job.shard_jobs[:1])
    ran = {
        (e["job"], e["rank"]) for e in folder.events() if e["event"] == "task" and e["status"] == 0 and not e["more"]
    }
    passing = sum(one.passing for one in missed)
    journal.write(event="end", plan=build.plan.digest, ran=len(ran), tasks=tasks, not_read=len(missed), passing=passing)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
