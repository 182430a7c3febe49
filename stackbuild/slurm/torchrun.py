"""torchrun on several nodes of a Slurm cluster: the launcher under the trainer.

    python -m stackbuild.slurm.torchrun --nodes 2 --processes 4 [--slurm TABLE.json] [--log DIR] [--wait] -- MODULE ARGUMENTS…

One torchrun on each node, all told the same address and port: the address is the first node's as Slurm itself reaches it (names
of nodes need not resolve), the port follows from the job's id, so that two jobs on one node do not meet. Should one rank die,
srun ends the others; with `requeue`, Slurm begins the job again when a node is lost, and the trainer goes on from its last
checkpoint.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from stackbuild import scheduler
from stackbuild.cluster import SlurmOptions
from stackbuild.errors import StackbuildError, UsageError
from stackbuild.slurm.script import environment, file_name, megabytes, preparation

BODY = """\
{header}
set -u
exec >>{log}/"$SLURM_JOB_ID.${{SLURM_RESTART_COUNT:-0}}.log" 2>&1
{environment}
{preparation}
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(scontrol --oneliner show node "$first" | sed -n 's/.* NodeAddr=\\([^ ]*\\) .*/\\1/p')
port=$((20000 + SLURM_JOB_ID % 10000))
echo "torchrun on $SLURM_JOB_NUM_NODES nodes ($SLURM_JOB_NODELIST), rendezvous at $address:$port, attempt ${{SLURM_RESTART_COUNT:-0}}"
export OMP_NUM_THREADS={threads}
# Each torchrun learns its own rank from srun; the rest is the same on all nodes.
srun --label --kill-on-bad-exit=1 --export=ALL --cpus-per-task={cpus} bash -c 'exec "$python" -m torch.distributed.run \\
  --nnodes="$SLURM_JOB_NUM_NODES" --node-rank="$SLURM_NODEID" --nproc-per-node={processes} --master-addr="$1" --master-port="$2" \\
  "${{@:3}}"' torchrun "$address" "$port" {arguments}
"""


def script(
    nodes: int, processes: int, command: Sequence[str], options: SlurmOptions, log: Path, name: str = "stackbuild-train"
) -> str:
    """The batch script that runs `command` (a module and its arguments) in `processes` processes on each of `nodes` nodes.

    `options`: `cpus` and `memory` are of one process.
    """
    if nodes < 1 or processes < 1 or not command:
        raise UsageError("Give at least one node, one process on it, and the module that it runs.")
    lines = [
        f"--job-name={name}",
        f"--nodes={nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={options.cpus * processes}",
        f"--mem={megabytes(options.memory * processes)}M",
        f"--time={options.time}",
        f"--output={file_name(log)}/%j.out",
        "--open-mode=append",
        "--export=ALL",
        "--requeue" if options.requeue else "--no-requeue",
        *(f"--{key}={getattr(options, key)}" for key in ("partition", "account", "qos") if getattr(options, key)),
        *options.sbatch,
    ]
    shell = "#!/bin/bash -l" if options.env_command else "#!/bin/bash"
    module = " ".join(shlex.quote(word) for word in ["-m", *command])
    return BODY.format(
        header="\n".join([shell, *(f"#SBATCH {line}" for line in lines)]),
        log=shlex.quote(str(log)),
        environment="\n".join([*environment(options), "export python"]),
        preparation=preparation(options),
        threads=max(1, options.cpus),
        cpus=options.cpus * processes,
        processes=processes,
        arguments=module,
    )


def submit(nodes: int, processes: int, command: Sequence[str], options: SlurmOptions, log: Path) -> str:
    """Submit it; returns the job's id."""
    scheduler.require()
    log.mkdir(parents=True, exist_ok=True)
    return scheduler.sbatch(script(nodes, processes, command, options, log))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m stackbuild.slurm.torchrun", description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="on each node: one for each GPU")
    parser.add_argument("--slurm", type=Path, help="a JSON file with the keys of a recipe's [slurm] table")
    parser.add_argument("--log", type=Path, default=Path("logs"))
    parser.add_argument("--wait", action="store_true", help="until the job has ended")
    parser.add_argument("command", nargs="+", metavar="MODULE ARGUMENTS")
    given = parser.parse_args(arguments)
    options = SlurmOptions.model_validate(json.loads(given.slurm.read_text()) if given.slurm else {})
    try:
        job = submit(given.nodes, given.processes, given.command, options, given.log.resolve())
    except StackbuildError as error:
        print(f"torchrun: {error}", file=sys.stderr)
        return error.exit_code
    print(job)
    while given.wait:
        try:
            states = [one.state for one in scheduler.queue("stackbuild-train", ended=True) if one.id == job]
        except scheduler.SchedulerError as error:  # the job goes on; its controller may begin anew
            print(f"torchrun: {error}", file=sys.stderr)
            states = []
        if states and states[0] not in scheduler.PENDING | scheduler.RUNNING:
            return 0 if states[0] == "COMPLETED" else 5
        time.sleep(2)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
