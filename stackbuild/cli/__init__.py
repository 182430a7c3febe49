"""The command line: one module for each command; what is heavy is imported where it is used."""

from __future__ import annotations

import errno
import os
import sys

ROOM = "Make room and run the same command again; it goes on."
RIGHTS = "Run as someone who may, or name another folder."
OF_THE_MACHINE = {  # no error of ours: what to do
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: ROOM,
    errno.EACCES: RIGHTS,
    errno.EPERM: RIGHTS,
    errno.EROFS: RIGHTS,
    errno.EMFILE: "Raise the number of files that may be open (ulimit -n).",
    errno.ENFILE: "The machine has too many files open.",
}


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
        if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:
            where = error.filename2 or error.filename
            told = f"{f'{where}: ' if where else ''}{error.strerror}. {OF_THE_MACHINE[error.errno]}"
            sys.stderr.write(f"stackbuild: {told}\n")
            sys.exit(StackbuildError.exit_code)
        sys.stderr.write(
            f"stackbuild: an error of stackbuild itself: {type(error).__name__}: {error}. Run with --debug for the traceback.\n"
        )
        sys.exit(70)
