"""Trees of strangers' text by tree-sitter, within bounds.

The grammars are those in the wheel of tree-sitter-language-pack 0.13.0 (later ones fetch them at run time). They are C
libraries without threads, so that they may be loaded before a process is forked.

tree-sitter has no bound of its own. Three hold it: the size of a text (the caller's); how often the parser asks for the
text again, which it only does when it went back from the end; and a clock, `in_forks`. Grammars that take long for ordinary
code (Scala, Perl, R, Dart: long lists) are not used. Memory is at most some 1 KB for each byte.

The parser cannot be stopped from outside: it asks whether to go on while it advances, but not while it recovers from
errors, where 32 KB of `x=>` as Java take minutes. So texts are parsed in a fork of this process, which a text that the parser
cannot end, or that makes it crash, takes with it: a timer of the kernel ends the fork, and the next one goes on behind that
text.
"""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from stackbuild.apart import die_with_parent
from stackbuild.errors import MissingDependency

# Languages (as enry names them) whose grammar was tried on real code and on hostile text, and how a comment begins.
_C = ("//", "/*")
_SHARP = ("#",)
GRAMMARS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "Python": ("python", _SHARP),
    "Java": ("java", _C),
    "JavaScript": ("javascript", (*_C, "<!--", "-->")),
    "TypeScript": ("typescript", (*_C, "<!--", "-->")),
    "TSX": ("tsx", (*_C, "<!--", "-->")),
    "C": ("c", _C),
    "C++": ("cpp", _C),
    "C#": ("csharp", _C),
    "Go": ("go", _C),
    "Rust": ("rust", _C),
    "Ruby": ("ruby", ("#", "=begin")),
    "PHP": ("php", (*_C, "#")),
    "Shell": ("bash", _SHARP),
    "Kotlin": ("kotlin", _C),
    "Swift": ("swift", _C),
    "Lua": ("lua", ("--",)),
    "Haskell": ("haskell", ("--", "{-")),
    "Julia": ("julia", _SHARP),
    "CSS": ("css", ("/*",)),
    "Elixir": ("elixir", _SHARP),
    "Erlang": ("erlang", ("%",)),
    "Clojure": ("clojure", (";", "#!")),
}

READS_FREE, BYTES_PER_READ = 200, 100  # real files (30 MB) ask for text at most 45 times
# What a text can do to the parser; any other end of a fork is not the text's doing.
FATAL = (signal.SIGVTALRM, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)

Job = TypeVar("Job")
Found = TypeVar("Found")


def load(language: str, wanted_by: str) -> tuple[Any, Any]:
    """The tree-sitter Language and a Parser for a language of GRAMMARS. MissingDependency, with who wanted it."""
    try:
        import tree_sitter
        import tree_sitter_language_pack as pack
    except ImportError as error:
        raise MissingDependency(
            f"{wanted_by} needs tree-sitter ({error}): pip install 'stackbuild[quality]'"
        ) from error
    loaded: Any = pack.get_language(GRAMMARS[language][0])  # type: ignore[arg-type]
    return loaded, tree_sitter.Parser(loaded)


def tree_of(parser: Any, text: memoryview) -> Any:
    """The tree of a text of UTF-8; None if the parser needs more than a file may."""
    reads, most = 0, READS_FREE + len(text) // BYTES_PER_READ

    def read(offset: int, _: Any) -> memoryview:
        nonlocal reads
        reads += 1
        return text[offset:]

    try:
        return parser.parse(read, progress_callback=lambda *_: reads > most)
    except ValueError:  # stopped
        parser.reset()
        return None


def in_forks(
    jobs: Sequence[Job], tell: Callable[[Job], Found], seconds: float, name: Callable[[Job], str]
) -> Iterator[Found | None]:
    """`tell(job)`, which can be pickled, for each job in order; None also where a job ended its fork.

    `seconds`: of CPU outside the kernel, for one job. The grammars are loaded before, so that no fork loads what the last
    one did. MemoryError, with the job's `name`, if a fork is killed, and what `tell` raises.
    """
    at = 0
    while at < len(jobs):
        process, reading = _fork(jobs[at:], tell, seconds)
        with open(reading, "rb") as answers:
            status = -1
            try:
                while at < len(jobs):
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
        if at < len(jobs):
            code = os.waitstatus_to_exitcode(status)
            if code < 0 and -code not in FATAL:
                raise MemoryError(f"the parser of {name(jobs[at])} was killed by signal {-code}")
            yield tell(jobs[at]) if code >= 0 else None  # it tells itself what was wrong
            at += 1


def _fork(jobs: Sequence[Job], tell: Callable[[Job], Any], seconds: float) -> tuple[int, int]:
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
            for job in jobs:
                signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
                found = tell(job)
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
                pickle.dump(found, answers, pickle.HIGHEST_PROTOCOL)
                answers.flush()
        status = 0
    finally:
        os._exit(status)
