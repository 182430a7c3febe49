"""A real Slurm of several virtual nodes on this machine, and ways to break them.

Debian's build allows several slurmd on a host: each node has a port, a spool and a log of its own, and a task sees its node in
SLURMD_NODENAME. Everything that the cluster reads or writes lies in one folder; nothing of /etc is used. Timings are short: a
requeued job waits `cred_expire` seconds and not two minutes, and a node that comes back is used at once.

A guard (this module run as a program) ends every process of the cluster and deletes its folder when the test session ends,
however it ends: it waits for its standard input to close, which the kernel does for a session that was killed.
"""

from __future__ import annotations

import getpass
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.slurm.configuration import CONFIGURATION, KERNEL, POLLED
from tests.slurm.processes import command, environ, files, kill_all, processes, with_children

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("slurm-wlm", "munge")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/bin", "/sbin", "/bin"])
CGROUPS = Path("/sys/fs/cgroup")
PATIENCE = 300.0  # seconds after which what a test waits for is held to be broken; a busy machine may be slow
FINISHED = frozenset(
    ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT")
)


class Unavailable(Exception):
    """Slurm cannot be had here; says why."""


def install() -> None:
    """Have Slurm's programs from Debian's packages; Unavailable where that cannot be."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
    if not missing:
        return
    if not shutil.which("apt-get", path=PATH):
        raise Unavailable(f"{', '.join(missing)} are not installed and there is no apt-get")
    if os.getuid() != 0:
        raise Unavailable(
            f"{', '.join(missing)} are not installed and only root may: apt-get install {' '.join(PACKAGES)}"
        )
    environment = {**os.environ, "PATH": PATH, "DEBIAN_FRONTEND": "noninteractive"}
    wait = ["-o", "DPkg::Lock::Timeout=300"]  # of another session's installation
    for step in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(
            ["apt-get", "-q", *wait, *step], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise Unavailable(f"apt-get {step[0]} ended with {done.returncode}: {''.join(last)}")


def kernel_limits() -> bool:
    """Whether the kernel can be made to hold jobs to their memory: root, and cgroup v1 with a writable memory hierarchy."""
    return os.getuid() == 0 and all(os.access(CGROUPS / name / "tasks", os.W_OK) for name in ("memory", "freezer"))


@dataclass(frozen=True)
class SlurmJob:
    """A line of squeue: one element of an array or one job; `identity` is what scancel and scontrol take."""

    identity: str
    array: int
    name: str
    state: str
    reason: str
    node: str

    @property
    def finished(self) -> bool:
        return self.state in FINISHED


class Cluster:
    """`nodes` virtual nodes n1, n2, … of `cpus` processors and `memory_mb` each.

    `cgroup`: the kernel holds jobs to their memory (OUT_OF_MEMORY); otherwise slurmd looks every second and kills (FAILED).
    """

    def __init__(
        self, nodes: int = 3, cpus: int = 2, memory_mb: int = 4096, max_array: int = 1001, cgroup: bool = False
    ):
        self.nodes = [Node(self, f"n{number}") for number in range(1, nodes + 1)]
        self.cpus, self.memory_mb, self.max_array, self.cgroup = cpus, memory_mb, max_array, cgroup
        # A Unix socket's address has 107 bytes, and Slurm puts one deep into the spool.
        parent = tempfile.gettempdir()
        self.state = Path(tempfile.mkdtemp(prefix="slurm-", dir=parent if len(parent) <= 40 else "/tmp"))
        self.conf = self.state / "slurm.conf"
        self._guard: subprocess.Popen[bytes] | None = None
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Cluster:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of a login node's shell."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        return {**kept, "PATH": PATH, "SLURM_CONF": str(self.conf), **more}

    # ------------------------------------------------------------ start and stop

    def start(self) -> Cluster:
        """Start all daemons and wait until every node is idle."""
        install()
        if self.cgroup and not kernel_limits():
            raise Unavailable("the memory hierarchy of cgroup v1 is not writable here")
        for name in ("munge", "run", "log", "controller", "spool"):
            (self.state / name).mkdir(mode=0o755)
        self.state.chmod(0o755)
        self._configure()
        self._guard = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self.state)], stdin=subprocess.PIPE, cwd=ROOT, start_new_session=True
        )
        key = self.state / "munge" / "key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        files = {
            name: f"--{name}={self.state / 'munge' / name[:-5]}"
            for name in ("key-file", "pid-file", "log-file", "seed-file")
        }
        self._daemon(
            "munged", "--foreground", *files.values(), f"--socket={self.state / 'munge' / 'socket'}", "--num-threads=4"
        )
        self.wait_for(
            lambda: self._answers("munge", "-S", str(self.state / "munge" / "socket"), "-n"), "munged answers"
        )
        self._controller = self._daemon("slurmctld", "-D", "-f", str(self.conf))
        for node in self.nodes:
            node.start()
        self.wait_for(lambda: self._answers("scontrol", "ping"), "the controller answers")
        self.ready()
        return self

    @contextmanager
    def without_controller(self) -> Iterator[None]:
        """The controller is ended, and begins anew with what it knew."""
        self._controller.terminate()
        self._controller.wait(60)
        try:
            yield
        finally:
            self._controller = self._daemon("slurmctld", "-D", "-f", str(self.conf))
            self.wait_for(lambda: self._answers("scontrol", "ping"), "the controller answers again")

    def stop(self) -> None:
        """End every process of the cluster and delete its folder; whoever calls it twice does no harm."""
        if self._guard is None:
            shutil.rmtree(self.state, ignore_errors=True)
            return
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait(60)
        self._guard = None
        for daemon in self._daemons:
            daemon.wait(10)

    def _configure(self) -> None:
        ports = free_ports(len(self.nodes) + 1)
        host = socket.gethostname().split(".")[0]
        lines = [
            CONFIGURATION.format(
                host=host, port=ports[0], user=getpass.getuser(), state=self.state, max_array=self.max_array,
                limits=(KERNEL if self.cgroup else POLLED).strip(),
            ).strip()
        ]  # fmt: skip
        for node, port in zip(self.nodes, ports[1:], strict=True):
            lines.append(
                f"NodeName={node.name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={self.cpus} "
                f"RealMemory={self.memory_mb} State=UNKNOWN"
            )
        lines.append(
            "PartitionName=main Nodes=ALL Default=YES DefMemPerCPU=512 DefaultTime=60 MaxTime=INFINITE State=UP"
        )
        self.conf.write_text("\n".join(lines) + "\n")
        if self.cgroup:
            (self.state / "cgroup.conf").write_text(
                f"CgroupPlugin=cgroup/v1\nCgroupMountpoint={CGROUPS}\nConstrainCores=no\nConstrainDevices=no\n"
                "ConstrainRAMSpace=yes\nConstrainSwapSpace=yes\n"
            )

    def _daemon(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with open(self.state / "log" / f"{program}.out", "ab") as out:
            process = subprocess.Popen(
                [program, *arguments], env=self.environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )  # fmt: skip
        self._daemons.append(process)
        return process

    def _answers(self, *command: str) -> bool:
        return subprocess.run(command, env=self.environment(), capture_output=True, check=False).returncode == 0

    # ------------------------------------------------------------ what is asked of it

    def run(self, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command as a user types it on the login node."""
        done = subprocess.run(
            command,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=2 * PATIENCE,
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def jobs(self, prefix: str = "") -> list[SlurmJob]:
        """All jobs whose name begins so, finished ones too, each element of an array by itself."""
        lines = self.run("squeue", "-h", "-r", "-t", "all", "-o", "%i|%F|%j|%T|%r|%N").stdout.splitlines()
        found = [line.split("|") for line in lines]
        return [
            SlurmJob(i, int(a), name, state, why, node)
            for i, a, name, state, why, node in found
            if name.startswith(prefix)
        ]

    def wait_for(self, true: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        """Poll until it is true; tell what the cluster knows if it does not become so."""
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                raise AssertionError(f"not so after {seconds} s: {what}\n{self.story()}")
            time.sleep(0.1)

    def wait_until_quiet(self, prefix: str = "") -> list[SlurmJob]:
        """Wait until every job of these names is finished; returns them."""
        found: list[SlurmJob] = []

        def quiet() -> bool:
            found[:] = self.jobs(prefix)
            return all(job.finished for job in found)

        self.wait_for(quiet, f"the jobs {prefix}* are finished")
        return found

    def ready(self) -> None:
        """Nothing queued, every node alive and idle; what a test broke is mended."""
        self.run("scancel", "--state=PENDING", f"--user={getpass.getuser()}", check=False)
        self.run("scancel", "--state=RUNNING", f"--user={getpass.getuser()}", check=False)
        for node in self.nodes:
            node.mend()
        idle = ["sinfo", "-h", "-N", "-t", "idle", "-o", "%N"]
        self.wait_for(lambda: len(self.run(*idle, check=False).stdout.split()) == len(self.nodes), "every node is idle")

    def story(self) -> str:
        """What the cluster knows, for a test's message."""
        parts = [self.run("squeue", "-t", "all", check=False).stdout, self.run("sinfo", "-N", "-l", check=False).stdout]
        with suppress(OSError):
            parts.append(
                "\n".join((self.state / "log" / "slurmctld.log").read_text(errors="replace").splitlines()[-40:])
            )
        return "\n".join(parts)


class Node:
    """One virtual node."""

    def __init__(self, cluster: Cluster, name: str):
        self.cluster, self.name = cluster, name
        self._daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start its daemon if it is not there."""
        if self._daemon is None or self._daemon.poll() is not None:
            self._daemon = self.cluster._daemon("slurmd", "-D", "-f", str(self.cluster.conf), "-N", self.name)

    def cut(self) -> None:
        """The network dies: the daemon is gone, and the processes of its jobs run on unseen."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()

    def crash(self) -> None:
        """The host dies: daemon and jobs at once."""
        self.cut()
        kill_all(self.processes)

    def down(self) -> None:
        """An administrator, or the controller that misses it, says that it is down: its jobs are requeued at once."""
        self.cluster.run("scontrol", "update", f"NodeName={self.name}", "State=DOWN", "Reason=test")

    def mend(self) -> None:
        """Start the daemon again, end what a cut left at work, and let jobs come."""
        if self._daemon is not None and self._daemon.poll() is not None:
            kill_all(self.processes)
            self.start()
        state = self.cluster.run("sinfo", "-h", "-n", self.name, "-o", "%T", check=False).stdout
        if any(word in state for word in ("down", "drain", "fail")):
            self.cluster.run("scontrol", "update", f"NodeName={self.name}", "State=RESUME", check=False)

    def processes(self) -> set[int]:
        """Its step daemons and the processes of its jobs."""
        mine = {f"SLURM_CONF={self.cluster.conf}", f"SLURMD_NODENAME={self.name}"}
        log = str(self.cluster.state / "log" / f"slurmd-{self.name}.log")
        found = set()
        for pid in processes():
            said = environ(pid)
            # A step daemon does not have the node's name in its environment, and holds the node's log open.
            if mine <= said or (
                f"SLURM_CONF={self.cluster.conf}" in said and command(pid) == "slurmstepd" and log in files(pid)
            ):
                found.add(pid)
        return with_children(found)


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on, below those that the kernel gives to clients."""
    found: list[int] = []
    for port in random.sample(range(20_000, 32_000), 500):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == number:
            return found
    raise Unavailable("no free ports")


def end(state: Path) -> None:
    """Kill everything that belongs to the cluster in this folder, clients too, and delete the folder."""
    kill_all(lambda: with_children({pid for pid in processes() if f"SLURM_CONF={state}/slurm.conf" in environ(pid)}))
    names = [
        line.split()[0].split("=")[1]
        for line in (state / "slurm.conf").read_text().splitlines()
        if line[:9] == "NodeName="
    ]
    if (state / "cgroup.conf").exists():
        for name in names:
            for base in CGROUPS.glob(f"*/slurm_{name}"):
                for folder, _, _ in os.walk(base, topdown=False):
                    with suppress(OSError):  # in use by another cluster
                        os.rmdir(folder)
    shutil.rmtree(state, ignore_errors=True)


def main(arguments: Sequence[str]) -> None:
    """Be the guard of the cluster in a folder."""
    sys.stdin.buffer.read()
    end(Path(arguments[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
