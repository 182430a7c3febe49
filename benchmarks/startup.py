"""Start of the command line: CPU-seconds of `stackbuild --help`, beside a bare interpreter's and a bare typer's.

    python -m benchmarks.startup [--rounds N] [--json]

The first run of each compiles byte code and does not count.
"""

from __future__ import annotations

import sys

from benchmarks.measure import Comparison, command, options

GOAL = 0.5  # CPU-seconds
PEERS = {
    "python": [sys.executable, "-c", "pass"],
    "typer": [sys.executable, "-c", "import typer; app = typer.Typer(); app.command()(lambda: None); app()", "--help"],
}


def main() -> None:
    """Let all take turns, and print."""
    arguments = options(__doc__ or "", rounds=7).parse_args()
    ways = {"ours": [sys.executable, "-c", "from stackbuild.cli import main; main()", "--help"], **PEERS}
    comparison = Comparison(
        "startup", "CPU-s", GOAL, None, {"command": "stackbuild --help"}, ("stackbuild", "typer", "rich"), absolute=True
    )
    for round_ in range(arguments.rounds + 1):
        for name, words in ways.items():
            run, _ = command(words)
            if round_:
                comparison.runs.setdefault(name, []).append(run)
    comparison.show(arguments.json)


if __name__ == "__main__":
    main()
