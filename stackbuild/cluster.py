"""What a recipe says of a cluster: its `[slurm]` and `[ray]` tables. They decide where a build runs and never what comes out,
so they count in no digest and are in nothing that is released."""

from __future__ import annotations

import re
import shlex
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

UNITS = (
    {"": 1}
    | {letter: 1000**n for n, letter in enumerate("kmgtpe", 1)}
    | {f"{letter}i": 1024**n for n, letter in enumerate("kmgtpe", 1)}
)
SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]+)?)\s*([kmgtpe]i?)?b?", re.I)
TIME = re.compile(r"[0-9]{1,8}(:[0-9]{1,2}){0,2}|[0-9]{1,5}-[0-9]{1,2}(:[0-9]{1,2}){0,2}")
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,@+-]*")  # names of partitions, accounts; a list of partitions too


def size_in_bytes(value: Any) -> Any:
    """Bytes from a number or from words such as "2GB", "512MiB"; anything else is for the model to refuse."""
    if isinstance(value, str) and (found := SIZE.fullmatch(value.strip())):
        return int(Decimal(found[1]) * UNITS[(found[2] or "").lower()])
    return value


Size = Annotated[int, BeforeValidator(size_in_bytes)]


def minutes(time: str) -> float:
    """Slurm's notation of a time in minutes: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S."""
    days, dash, rest = time.rpartition("-")
    numbers = [int(part) for part in rest.split(":")]
    if dash:
        hours, mins, seconds = (*numbers, 0, 0)[:3]
        return int(days) * 1440 + hours * 60 + mins + seconds / 60
    if len(numbers) == 3:
        return numbers[0] * 60 + numbers[1] + numbers[2] / 60
    return numbers[0] + (numbers[1] / 60 if len(numbers) == 2 else 0)


def warning(time: str, seconds: int) -> int:
    """How long before a time limit an element is warned: as asked, but no more than a quarter of the time."""
    return max(1, min(seconds, int(minutes(time) * 60 / 4)))


class SlurmOptions(BaseModel):
    """How the jobs of a build are put before Slurm."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    partition: str = Field("", description="where jobs go; empty: the site's default")
    account: str = Field("", description="who pays; empty: the user's default")
    qos: str = Field("", description="quality of service; none is asked for unless named")
    time: str = Field("01:00:00", description="limit of an array element, as Slurm writes it; it goes on after it")
    memory: Size = Field(
        2 * 10**9, ge=10**8, description='of one task, in bytes or as "2GB"; doubled for one that ran out'
    )
    job_memory: dict[str, Annotated[Size, Field(ge=10**8)]] = Field(
        default_factory=dict,
        description='of one task of some jobs, instead: { contents = "8GB", "layout.runs" = "4GB" }, by the names that '
        "`plan --estimate` shows, or by a stage whose rows job it is; an element runs as many of these at once as have room in "
        "`cpus` times `memory`, at least one",
    )
    shared_memory: Size = Field(
        2 * 10**9, ge=10**8, description="of an element beside its tasks': code, and the licence index that all share"
    )
    max_memory: Size = Field(
        64 * 10**9,
        ge=10**8,
        description="no job asks for more than this, retries included; what would at once is refused",
    )
    cpus: int = Field(2, ge=1, le=256, description="tasks at once in an array element")
    max_array: int = Field(0, ge=0, description="elements of one array at most; 0: what the site allows")
    max_running: int = Field(
        0, ge=0, description="elements of one array that run at once; 0: as many as there is room for"
    )
    tasks_per_job: int = Field(0, ge=0, description="tasks of an array element; 0: enough for some minutes")
    max_elements: int = Field(
        256,
        ge=1,
        description="elements of a job at most, where tasks_per_job is 0: the cluster has no more room than that",
    )
    venv: str = Field(
        "",
        description='folder of a virtual environment on the nodes, its whole path or "~/…"; empty: the interpreter that submits',
    )
    env_command: str = Field(
        "",
        description="shell line before the interpreter, such as `module load gcc`; a job whose line fails ends at once",
    )
    sbatch: list[str] = Field(default_factory=list, description='more options of sbatch, such as "--constraint=fast"')
    requeue: bool = Field(True, description="let Slurm start an element again whose node was lost")
    warn_seconds: int = Field(120, ge=10, description="an element stops cleanly so long before its time limit")

    @property
    def element_memory(self) -> int:
        """Bytes that an element asks for at most, before anything is tried again."""
        return max(self.cpus * self.memory, *self.job_memory.values(), 0) + self.shared_memory

    @field_validator("partition", "account", "qos")
    @classmethod
    def _word(cls, value: str) -> str:
        if value and not WORD.fullmatch(value):
            raise ValueError("use letters, digits and . , @ + _ -")
        return value

    @field_validator("time")
    @classmethod
    def _time(cls, value: str) -> str:
        if not TIME.fullmatch(value):
            raise ValueError("write it as minutes, MM:SS, HH:MM:SS or D-HH:MM:SS")
        if not minutes(value):
            raise ValueError("must be more than nothing")
        return value

    @field_validator("sbatch")
    @classmethod
    def _options(cls, value: list[str]) -> list[str]:
        for line in value:
            if not line.startswith("--") or not line.isprintable():
                raise ValueError(f"{line!r} is no option of sbatch: one line each, such as --constraint=fast")
            for word in shlex.split(line):  # sbatch takes several to a line, and short and shortened names
                name = word.split("=")[0]
                if word.startswith("-") and (len(name) < 3 or not name.startswith("--")):
                    raise ValueError(f"{word!r} in {line!r}: write an option as --name=value")
                if word.startswith("-") and any(ours.startswith(name) for ours in OURS):
                    raise ValueError(f"{name} is set by the build itself; there may be a key of [slurm] for it")
        return value

    @field_validator("venv", "env_command")
    @classmethod
    def _line(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("must be one line of text")
        return value


OURS = (
    *("--array", "--dependency", "--output", "--error", "--job-name", "--signal", "--export", "--hold", "--open-mode"),
    *("--kill-on-invalid-dep", "--parsable", "--mem", "--cpus-per-task", "--ntasks", "--nodes", "--time", "--wrap"),
    *("--requeue", "--no-requeue", "--mem-per-cpu", "--mem-per-gpu", "--wait", "--test-only", "--propagate"),
)


class RayOptions(BaseModel):
    """How the tasks of a build are put before Ray."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str = Field("", description="of a running cluster; empty: one on this machine")
    memory: Size = Field(2 * 10**9, ge=10**8, description='of one task, in bytes or as "2GB"')
