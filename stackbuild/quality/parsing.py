"""Find comments, docstrings and errors in a fork of this process (`stackbuild.syntax_trees`), with a clock for each text.

`SECONDS` are some twenty times what the slowest of 20,000 real files (about 100 MB) took; only text that is no code of its
language comes near them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stackbuild.quality.grammars import Found, grammar, parse
from stackbuild.syntax_trees import in_forks

SECONDS = 10.0  # of CPU outside the kernel, for one text

File = tuple[str, memoryview]


def parsed(files: Sequence[File]) -> Iterator[Found | None]:
    """What `grammars.parse` gives for each of (language, text), in order; None also for a text that ended its fork.

    MemoryError if a fork is killed, and what `parse` raises.
    """
    for language in sorted({language for language, _ in files}):
        grammar(language)  # here, so that no fork loads what the last one did
    yield from in_forks(files, lambda file: parse(*file), SECONDS, lambda file: f"{len(file[1]):,} bytes of {file[0]}")
