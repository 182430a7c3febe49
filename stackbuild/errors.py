"""Errors that a user can meet, each with the exit code of the command line (DESIGN: section 5)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence


def command(*words: object) -> str:
    """A command as a user can type it: words with blanks and the like are quoted for the shell."""
    return shlex.join(map(str, words))


class StackbuildError(Exception):
    """Something a person has to mend: the message says what, where and how."""

    exit_code = 5


class UsageError(StackbuildError):
    """The command was typed wrongly."""

    exit_code = 2


class RecipeError(StackbuildError):
    """The recipe is invalid: an unknown key, a missing column, two origins of one name."""

    exit_code = 3


class InputError(StackbuildError):
    """An input cannot be read, or does not hash to what it should."""

    exit_code = 4


class PartialFailure(StackbuildError):
    """Some tasks failed; running the same command again resumes."""

    exit_code = 5


class BadRows(StackbuildError):
    """Rows on which a stage raised. `rows`: by stage instance, their numbers in the base table of the partition."""

    def __init__(self, message: str, rows: Mapping[str, Sequence[int]]):
        super().__init__(message)
        self.rows = {stage: list(numbers) for stage, numbers in rows.items()}


class PolicyRefusal(StackbuildError):
    """Refused by policy: a retired version, an unverified request."""

    exit_code = 6


class MissingDependency(StackbuildError):
    """An optional dependency is not installed; the message names the extra."""

    exit_code = 7


class TemporaryError(StackbuildError):
    """A server did not answer; try again later."""

    exit_code = 75
