"""The batch scripts, as text: what `sbatch` is given for an array, a gate, and the publishing job.

Each begins with its traps, so that no signal finds it unprepared; keeps a log for each attempt; sets an environment of its
own, for it is submitted with next to none; and requeues itself by array and task id, for the job id of an array's last element is
that of the whole array.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from stackbuild.cluster import SlurmOptions, warning
from stackbuild.errors import UsageError
from stackbuild.launches import ATTEMPT, LaunchFolder, Wave
from stackbuild.retries import CANNOT_BEGIN

REQUEUE_ME = 85  # exit status of an element that stopped cleanly before its time limit, with something done
NO_PROGRESS = 86  # the same, with nothing done
CANNOT = 7  # exit status of a job whose node lacks what it needs (`errors.MissingDependency`)
MAX_RESTARTS = 50  # of an element that gets on each time
# What a job needs of the environment of whoever submits; all else is left behind.
KEPT = ("HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "SLURM_CONF", "PYTHONPATH", "LD_LIBRARY_PATH", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR",
        "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")  # fmt: skip
# In Slurm's own log, before the attempt's own takes over: what slurmstepd said of an attempt before stands above it.
MARK = f'echo "{ATTEMPT}${{SLURM_RESTART_COUNT:-0}}"'

BODY = """\
{header}
# A signal may come at any time: the traps stand first. One that meets the child between its fork and its start is lost there,
# so each is sent twice.
stopped= child=
heed() {{ stopped=$1; if [ -n "$child" ]; then kill -s "$2" "$child"; (sleep 2; kill -s "$2" "$child") & fi 2>/dev/null; }}
trap 'heed warned USR1' USR1  # some time before the limit, see --signal
trap 'heed ended TERM' TERM
{head}
{environment}
{preparation}
"$python" -P -m {module} {arguments} &
child=$!
case $stopped in warned) heed warned USR1 ;; ended) heed ended TERM ;; esac
wait "$child"
status=$?
while kill -0 "$child" 2>/dev/null; do  # a trap cuts a wait short
  wait "$child"
  status=$?
done
if [ -n "$stopped" ]; then
  wait "$child" 2>/dev/null
  again=$?
  [ "$again" = 127 ] || status=$again
fi
{tail}
exit "$status"
"""
REQUEUE = """\
# Stopped before the time limit: the same element goes on in a new attempt. One that died of the warning had not begun.
if [ "$stopped" = warned ] && {{ [ "$status" = {again} ] || [ "$status" -gt 128 ]; }} && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {most} ]; then
  echo "requeued at $(date -u +%FT%TZ)"
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}" && sleep 60
fi"""


def array_script(folder: LaunchFolder, wave: Wave, options: SlurmOptions, first: int, elements: int) -> str:
    """The script of one array: elements `first` to `first + elements - 1` of a wave."""
    name = f"{folder.prefix}{wave.name}"
    running = f"%{options.max_running}" if options.max_running else ""
    header = _header(
        [
            f"--job-name={name}",
            f"--array=0-{elements - 1}{running}",
            f"--output={file_name(folder.logs)}/%A_%a.out",
            f"--cpus-per-task={wave.cpus}",
            f"--mem={megabytes(memory_of(wave))}M",
            f"--time={wave.time}",
            f"--signal=B:USR1@{warning(wave.time, options.warn_seconds)}",
            "--requeue" if options.requeue else "--no-requeue",
        ],
        options,
    )
    head = (
        f"element=$((SLURM_ARRAY_TASK_ID + {first}))\n{MARK}\n"
        f'exec >>{_q(str(folder.logs / wave.name))}-"$element.${{SLURM_RESTART_COUNT:-0}}.log" 2>&1'
    )
    arguments = f'{_q(str(folder.out))} {_q(str(folder.wave_path(wave.number, wave.wave)))} "$element"'
    tail = REQUEUE.format(again=REQUEUE_ME, most=MAX_RESTARTS) if options.requeue else ""
    return _script(header, head, "stackbuild.slurm.element", arguments, tail, options)


def gate_script(folder: LaunchFolder, wave: Wave, options: SlurmOptions) -> str:
    """The script of the job that looks at what a wave left."""
    return _single(
        folder, f"{wave.name}-gate", "stackbuild.slurm.gate", folder.wave_path(wave.number, wave.wave), options
    )


def publish_script(folder: LaunchFolder, options: SlurmOptions) -> str:
    """The script of the last job."""
    return _single(folder, "publish", "stackbuild.slurm.publish", folder.path, options)


def _single(folder: LaunchFolder, what: str, module: str, argument: Path, options: SlurmOptions) -> str:
    header = _header(
        [
            f"--job-name={folder.prefix}{what}",
            f"--output={file_name(folder.logs)}/%j.out",
            "--cpus-per-task=1",
            f"--mem={megabytes(options.shared_memory)}M",
            f"--time={options.time}",
            "--requeue",  # what it does it may do again
        ],
        options,
    )
    head = f'{MARK}\nexec >>{_q(str(folder.logs / what))}."${{SLURM_RESTART_COUNT:-0}}.log" 2>&1'
    return _script(header, head, module, f"{_q(str(folder.out))} {_q(str(argument))}", "", options)


def _header(lines: Sequence[str], options: SlurmOptions) -> str:
    site = [(name, getattr(options, name)) for name in ("partition", "account", "qos")]
    asked = [f"--{name}={value}" for name, value in site if value]
    ours = ["--nodes=1", "--ntasks=1", "--open-mode=append", "--export=ALL", "--propagate=NONE"]
    ours += ["--kill-on-invalid-dep=yes"]
    # With a command of the site's own, such as `module load`, the shell must be one that knows it.
    shell = "#!/bin/bash -l" if options.env_command else "#!/bin/bash"
    return "\n".join([shell, *(f"#SBATCH {line}" for line in [*lines, *ours, *asked, *options.sbatch])])


def _script(header: str, head: str, module: str, arguments: str, tail: str, options: SlurmOptions) -> str:
    return BODY.format(
        header=header,
        head=head,
        environment="\n".join(environment(options)),
        preparation=preparation(options),
        module=module,
        arguments=arguments,
        tail=tail,
    )


def environment(options: SlurmOptions) -> list[str]:
    """Shell lines that set all that a job has: the path of the interpreter that submits first, or of the environment asked for."""
    own = os.path.join(os.path.expanduser(options.venv), "bin") if options.venv else os.path.dirname(sys.executable)
    python = os.path.join(own, "python") if options.venv else sys.executable
    slurm = os.path.dirname(shutil.which("scontrol") or "")
    path = [own, *([slurm] if slurm else []), "/usr/local/bin", "/usr/bin", "/bin"]
    # A command such as `module load` goes on from the PATH that the login shell has.
    lines = [f"export PATH={_q(':'.join(dict.fromkeys(path)))}{':$PATH' if options.env_command else ''}"]
    kept = {name: value for name, value in os.environ.items() if name in KEPT or name.startswith("STACKBUILD_")}
    lines += [f"export {name}={_q(value)}" for name, value in sorted(kept.items())]
    lines += ["export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 PYTHONHASHSEED=0"]
    lines += [f"python={_q(python)}"]
    return lines


def preparation(options: SlurmOptions) -> str:
    """Shell lines that run the site's own command, and end the job at once if that fails or the node has no such interpreter.
    Else the job would end some lines later, of something that says nothing of the cause."""
    node = "node ${SLURMD_NODENAME:-$(uname -n)}"
    lines = [
        options.env_command,
        f'code=$?; [ "$code" = 0 ] || [ -n "${{stopped:-}}" ] || {{ echo "{CANNOT_BEGIN}on {node}, [slurm] env_command ended with '
        f'$code:" {_q(options.env_command[:200])}; exit {CANNOT}; }}',
    ]
    return "\n".join(
        [
            *(lines if options.env_command else [""]),
            f'[ -x "$python" ] || {{ echo "{CANNOT_BEGIN}{node} cannot run $python: it is not there, or is a link to what is not; '
            f'see [slurm] venv"; exit {CANNOT}; }}',
        ]
    )


def memory_of(wave: Wave) -> int:
    """Bytes that an element asks for: its tasks', and what they share."""
    return wave.cpus * wave.memory + wave.shared


def megabytes(size: int) -> int:
    """Slurm's M is 2^20 bytes."""
    return -(-size // 2**20)


def check_path(path: Path) -> None:
    """UsageError if Slurm cannot write its logs below this folder."""
    if not str(path).isprintable() or "\\" in str(path):
        raise UsageError(
            f"{str(path)!r}: Slurm writes to no folder with a backslash or a control character in its name."
        )


def check_environment(options: SlurmOptions) -> str:
    """UsageError if no job could begin, as far as can be told from here. A node may have what this machine has not: what must
    be there is returned in words, "" if it is here too."""
    if options.env_command:
        checked = subprocess.run(["bash", "-n", "-c", options.env_command], capture_output=True, text=True, check=False)
        if checked.returncode:
            raise UsageError(f"[slurm] env_command is no shell command: {checked.stderr.strip()}")
    if not options.venv:
        return ""
    venv = Path(options.venv).expanduser()
    if not venv.is_absolute():
        raise UsageError(f"[slurm] venv = {options.venv!r}: write the whole path; jobs begin in another folder.")
    if os.access(venv / "bin" / "python", os.X_OK):
        return ""
    if venv.exists():
        raise UsageError(f"[slurm] venv: {venv} is no virtual environment, it has no bin/python that can be run.")
    return f"this machine has no {venv}/bin/python ([slurm] venv); a node that has none either ends its jobs at once"


def file_name(path: Path) -> str:
    """A path in an option of sbatch in a script; a percent sign there stands for something else."""
    return '"' + str(path).replace('"', '\\"').replace("%", "%%") + '"'


def _q(text: str) -> str:
    return shlex.quote(text)
