"""Start of the command line: CPU-seconds of `stackbuild --help`, beside those of a typer program of one empty command.

    python -m benchmarks.startup [--rounds N] [--json]

The first run of each compiles byte code and does not count. What the interpreter alone takes stands with the input.
"""

from __future__ import annotations

import statistics
import sys

from benchmarks.measure import Comparison, Run, command, options

GOAL = 0.5  # CPU-seconds
WAYS = {
    "ours": "from stackbuild.cli import main; main()",
    "typer": "import typer; app = typer.Typer(); app.command()(lambda: None); app()",
}


def cpu_of(program: str, *arguments: str) -> Run:
    """A Python program in a process of its own."""
    run, _ = command([sys.executable, "-c", program, *arguments])
    return run


def main() -> None:
    """Let all take turns, and print."""
    arguments = options(__doc__ or "", rounds=7).parse_args()
    interpreter = []
    comparison = Comparison("startup", "CPU-s", GOAL, None, {}, ("stackbuild", "typer"), absolute=True)
    for number in range(arguments.rounds + 1):
        for name, program in WAYS.items():
            run = cpu_of(program, "--help")
            if number:
                comparison.runs.setdefault(name, []).append(run)
        interpreter.append(cpu_of("pass").cpu)
    comparison.input = {"command": "stackbuild --help", "interpreter": round(statistics.median(interpreter), 4)}
    comparison.show(arguments.json)


if __name__ == "__main__":
    main()
