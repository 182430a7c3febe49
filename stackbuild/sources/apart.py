"""Footers of Parquet and Arrow files, read in a process apart: a stranger's file may crash the library that reads it.

One child serves a whole source; questions and answers are lines of JSON over its pipes. A child that dies by a signal
is started again and asked once more: only what a second process reproduces counts against the file. The child's address
space is bounded. The driver has threads, so the child is a program of its own, never a fork.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final, Self

import stackbuild
from stackbuild.errors import InputError
from stackbuild.sources import row_files
from stackbuild.sources.row_files import Part
from stackbuild.sources.unit import Skipped

MEMORY: Final = 4 << 30  # bytes of address space beyond what the child has once it is ready; a footer takes megabytes
ATTEMPTS: Final = 2


class FooterReader:
    """A child that reads footers; it is started at the first question and ends with the `with` block."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        self._open = contextlib.ExitStack()

    def parts(
        self, path: Path, columns: Mapping[str, str], optional: frozenset[str], size: int
    ) -> list[Part] | Skipped:
        """What `row_files.parts` says of a file; Skipped if it is damaged, and if reading it kills two processes or takes too
        much memory.

        Raises InputError if the file lacks a column: that is the recipe's mistake.
        """
        question = {"path": str(path), "columns": dict(columns), "optional": sorted(optional), "size": size}
        question["unit_bytes"] = row_files.UNIT_BYTES
        status = 0
        for _ in range(ATTEMPTS):
            answer = self._ask(json.dumps(question))
            if answer is not None:
                if "skip" in answer:
                    return Skipped(str(path), answer["skip"])
                if "error" in answer:
                    raise InputError(answer["error"])
                return [Part(key, expected) for key, expected in answer["parts"]]
            status, said = self._end()
            if status >= 0:
                raise InputError(f"{str(path)!r} cannot be read: the process that reads it ended with {status}: {said}")
        return Skipped(str(path), f"killed by signal {-status} while its footer was read")

    def _ask(self, question: str) -> Any:
        """The child's answer; None if it died over the question."""
        child = self._child or self._start()
        assert child.stdin and child.stdout
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(question + "\n")
            child.stdin.flush()
            answer = child.stdout.readline()
            return json.loads(answer) if answer.endswith("\n") else None
        return None

    def _start(self) -> subprocess.Popen[str]:
        # -P: no module is taken from the current folder, which may be a stranger's
        package = str(Path(stackbuild.__file__).parents[1])
        searched = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            env=os.environ | {"PYTHONPATH": searched},
            encoding="ascii",
        )
        return self._child

    def _end(self) -> tuple[int, str]:
        """End the child: (its exit status, negative for a signal, the last line that it said)."""
        child, self._child = self._child, None
        if child is None:
            return 0, ""
        assert child.stdin and child.stdout
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        child.stdout.close()
        status = child.wait()
        self._words.seek(0)
        return status, (self._words.read().strip().splitlines() or [""])[-1]

    def __enter__(self) -> Self:
        self._words: IO[str] = self._open.enter_context(tempfile.TemporaryFile("w+", errors="replace"))
        return self

    def __exit__(self, *exception: object) -> None:
        if self._child is not None and any(exception):
            self._child.kill()  # it may be busy with a file that nobody waits for
        self._end()
        self._open.close()


# ---------------------------------------------------------------- in the child


def bound_memory(more: int) -> None:
    """Allow this process so many more bytes of address space, and no core file; nothing where the system has no such limit."""
    import resource

    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        bound = used + more if hard == resource.RLIM_INFINITY else min(used + more, hard)
        resource.setrlimit(resource.RLIMIT_AS, (bound, hard))


def answered(question: dict[str, Any]) -> dict[str, Any]:
    """The answer to one question: `parts`, or what is wrong with the file as `error` or `skip`."""
    try:
        path, optional = Path(question["path"]), frozenset(question["optional"])
        found = row_files.parts(path, question["columns"], optional, question["size"], [], question["unit_bytes"])
        return {"parts": [(part.key, part.bytes) for part in found]}
    except row_files.Damaged as error:
        return {"skip": str(error)}
    except InputError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"skip": f"its footer takes over {MEMORY >> 30} GiB of memory"}


def main() -> None:
    """Answer questions until there are no more. Libraries that print do so on the error output."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="ascii") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        bound_memory(MEMORY)
        for line in sys.stdin:
            answers.write(json.dumps(answered(json.loads(line))) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
