"""datatrove's Slurm executor with a `run()` of ours: it submits the arrays of one wave and tells every job id.

What its own does and this does not: write the job list and the pickle in place (a relaunch changes what running elements
read), wait for the last of several arrays alone, keep no job id, requeue a whole array for its last element, inherit the
driver's environment, ask for a qos that the site may not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datatrove.executor.slurm import SlurmPipelineExecutor

from stackbuild import scheduler
from stackbuild.cluster import SlurmOptions
from stackbuild.launches import LaunchFolder, Submitted, Wave
from stackbuild.local import JobStep
from stackbuild.slurm.script import array_script, gate_script, megabytes


class SlurmExecutor(SlurmPipelineExecutor):  # type: ignore[misc]  # datatrove has no types
    """The arrays of a wave, split at the site's limit, and the gate that waits for all of them.

    `writer`: whose list of job ids this goes to ("" for the driver's).
    """

    def __init__(
        self, folder: LaunchFolder, plan: Path, wave: Wave, options: SlurmOptions, max_array: int, writer: str = ""
    ):
        super().__init__(
            [JobStep(str(folder.out), str(plan), wave.job)],
            tasks=wave.elements,
            time=wave.time,
            partition=options.partition,
            cpus_per_task=wave.cpus,
            mem_per_cpu_gb=max(1, megabytes(wave.memory) // 1024),
            job_name=f"{folder.prefix}{wave.name}",
            qos=options.qos,
            max_array_size=max_array,
            logging_dir=str(folder.logs),
            slurm_logs_folder=str(folder.logs),
        )
        self.folder, self.wave, self.options, self.writer = folder, wave, options, writer

    def scripts(self) -> list[tuple[int, int, str]]:
        """(first element, elements, script) of each array."""
        cuts = range(0, self.wave.elements, self.max_array_size)
        sizes = [(first, min(self.max_array_size, self.wave.elements - first)) for first in cuts]
        return [
            (first, count, array_script(self.folder, self.wave, self.options, first, count)) for first, count in sizes
        ]

    def run(self, after: Sequence[str] = (), hold: bool = False) -> tuple[list[str], str]:
        """Submit; returns the arrays' ids and the gate's. `after`: jobs that must have ended well. `hold`: the arrays wait
        to be released.

        The gate waits for `after` too: arrays that are cancelled because it failed have ended, and their gate would begin.
        """
        options = [*(["--hold"] if hold else []), *([f"--dependency=afterok:{':'.join(after)}"] if after else [])]
        arrays: list[str] = []
        scripts = self.scripts()
        scheduler.check(scripts[0][2])
        for first, count, script in scripts:
            self.folder.script(f"{self.wave.name}-{first}", script)
            job = scheduler.sbatch(script, options, known=arrays)
            self._note(Submitted(job, "array", self.wave.number, self.wave.wave, first, count))
            arrays.append(job)
        script = gate_script(self.folder, self.wave, self.options)
        self.folder.script(f"{self.wave.name}-gate", script)
        gate = scheduler.sbatch(script, [f"--dependency={gate_dependency(arrays, after)}"], known=())
        self._note(Submitted(gate, "gate", self.wave.number, self.wave.wave))
        return arrays, gate

    def _note(self, one: Submitted) -> None:
        self.folder.note(one, self.writer)


def gate_dependency(arrays: Sequence[str], after: Sequence[str]) -> str:
    """What a gate waits for: the end of all its arrays, and the good end of what they wait for."""
    return ",".join([f"afterany:{':'.join(arrays)}", *([f"afterok:{':'.join(after)}"] if after else [])])
