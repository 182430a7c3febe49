"""The command line: one module for each command; what is heavy is imported where it is used."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run `stackbuild`; an error is one paragraph on stderr and an exit code, a traceback only with --debug."""
    from stackbuild.errors import StackbuildError

    debug = "--debug" in sys.argv or bool(os.environ.get("STACKBUILD_DEBUG"))
    try:
        from stackbuild.cli.app import app

        app()
    except StackbuildError as error:
        if debug:
            raise
        sys.stderr.write(f"stackbuild: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        if debug:
            raise
        sys.stderr.write("stackbuild: interrupted; run the same command again to go on.\n")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:
        if debug:
            raise
        sys.stderr.write(
            f"stackbuild: an error of stackbuild itself: {type(error).__name__}: {error}. Run with --debug for the traceback.\n"
        )
        sys.exit(70)
