"""Parse texts in a fork of this process, which a text that the parser cannot end, or that makes it crash, takes with it.

tree-sitter cannot be stopped from outside: it asks whether to go on while it advances, but not while it recovers from
errors, where 32 KB of `x=>` as Java take minutes. So a timer of the kernel ends the fork after `SECONDS` of CPU on one text,
and the next fork goes on behind it. That is some twenty times what the slowest of 20,000 real files (about 100 MB) took; only
text that is no code of its language comes near it.
"""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Iterator, Sequence

from stackbuild.apart import die_with_parent
from stackbuild.quality.grammars import Found, grammar, parse

SECONDS = 10.0  # of CPU outside the kernel, for one text
# What a text can do to the parser; any other end of a fork is not the text's doing.
FATAL = (signal.SIGVTALRM, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)

Files = Sequence[tuple[str, memoryview]]


def parsed(files: Files) -> Iterator[Found | None]:
    """What `grammars.parse` gives for each of (language, text), in order; None also for a text that ended its fork.

    MemoryError if a fork is killed, and what `parse` raises.
    """
    for language in sorted({language for language, _ in files}):
        grammar(language)  # here, so that no fork loads what the last one did
    at = 0
    while at < len(files):
        process, reading = _fork(files[at:])
        with open(reading, "rb") as answers:
            status = -1
            try:
                while at < len(files):
                    try:
                        found = pickle.load(answers)
                    except (EOFError, pickle.UnpicklingError):
                        break
                    at += 1
                    yield found
                answers.close()
                status = os.waitpid(process, 0)[1]
            finally:
                if status < 0:  # nobody wants the rest
                    os.kill(process, signal.SIGKILL)
                    os.waitpid(process, 0)
        if at < len(files):
            yield _of_the_last(files[at], os.waitstatus_to_exitcode(status))
            at += 1


def _of_the_last(file: tuple[str, memoryview], code: int) -> Found | None:
    """What to say of the text at which a fork ended."""
    if -code in FATAL:
        return None
    if code < 0:
        raise MemoryError(f"the parser of {len(file[1]):,} bytes of {file[0]} was killed by signal {-code}")
    return parse(*file)  # it tells itself what was wrong


def _fork(files: Files) -> tuple[int, int]:
    """Parse in a child: its process, and where its answers can be read."""
    reading, writing = os.pipe()
    try:
        process = os.fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        raise
    if process:
        os.close(writing)
        return process, reading
    status = 1
    try:
        die_with_parent()
        for number in FATAL:
            signal.signal(number, signal.SIG_DFL)
        with open(writing, "wb") as answers:
            for language, text in files:
                signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
                found = parse(language, text)
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
                pickle.dump(found, answers, pickle.HIGHEST_PROTOCOL)
                answers.flush()
        status = 0
    finally:
        os._exit(status)
