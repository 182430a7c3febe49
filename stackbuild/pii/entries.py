"""The tables of a rules file as they may be written: stackbuild's [[key]] and [[pattern]], gitleaks' [[rules]] and allowlists.

A file is somebody's own: each value has its type and its bounds here, and what is wrong is told with the names of the rule
and of the field. Bounds on bytes keep the work for each place that the gate gives bounded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

MOST_BYTES: Final = 65_536  # of a window about a place
MOST_RUN: Final = 1_000  # bytes of a run that the gate asks for, and before it

Check = Literal[
    "aws-account", "basic-pair", "crc32-base62", "discord-id", "has-digit", "name", "not-digest", "not-hex", "not-uuid",
    "not-weak-password", "not-words", "random",
]  # fmt: skip
Shape = Literal["dotted", "userinfo", "pem"]


def _class(text: str) -> str:
    """What stands between brackets, such as A-Za-z0-9_-; ValueError if it ends them or is no class."""
    if not text.isascii() or re.search(r"(?<!\\)(?:\\\\)*[\[\]]", text):
        raise ValueError("it is a class of ASCII bytes without its brackets, such as A-Za-z0-9_-")
    try:
        re.compile(f"[{text}]" if text else "")
    except re.error as error:
        raise ValueError(f"no class of bytes: {error}") from error
    return text


Text = Annotated[str, Field(min_length=1)]
Word = Annotated[str, Field(min_length=1, pattern=r"^[\x00-\x7f]*$")]
Words = Annotated[list[Word], Field(min_length=1)]
Class = Annotated[str, AfterValidator(_class)]
Entropy = Annotated[float, Field(ge=0, le=8, allow_inf_nan=False)]
Window = Annotated[int, Field(ge=0, le=MOST_BYTES)]
Run = Annotated[int, Field(ge=0, le=MOST_RUN)]


class Table(BaseModel):
    """Values of another type are refused, and names that are none of its fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Entry(Table):
    """What [[key]] and [[pattern]] have in common."""

    id: Text
    source: Text
    provider: str = ""
    entity: Literal["KEY", "PASSWORD"] = "KEY"
    entropy: Entropy | None = None
    checks: list[Check] = []
    repeats: bool = False
    stop: list[Text] = []
    shape: Shape | None = None
    edge_before: Class | None = None
    edge_after: Class | None = None


class KeyEntry(Entry):
    """A format, known by its literals, or with `keywords` by the name beside it."""

    formats: Annotated[list[Text], Field(min_length=1)]
    shape: Literal["dotted"] | None = None
    keywords: Words | None = None
    whole: bool = False
    words: Words | None = None

    @model_validator(mode="after")
    def _fits(self) -> KeyEntry:
        if self.keywords is None and (self.whole or self.words):
            raise ValueError("whole and words are of a name: they need keywords")
        return self


class PatternEntry(Entry):
    """An expression."""

    anchors: list[Word]
    pattern: Text | None = None
    reach: Window | None = None
    before: Window | None = None
    ignore_case: bool = False
    bounded: bool = False
    alphabet: Text | None = None
    run: Run = 0
    within: Run = 0

    @model_validator(mode="after")
    def _whole(self) -> PatternEntry:
        if self.shape != "pem" and not (self.pattern and self.reach):
            raise ValueError("it has no pattern, or no reach")
        if not self.anchors and self.shape is None:
            raise ValueError("no anchors: name literals, one of which is in every match")
        return self


class OwnFile(Table):
    """A file in stackbuild's format; its entries are validated one by one, so that what is wrong is told with its rule."""

    format: Literal[1]
    version: Text
    alphabets: dict[Text, Annotated[Class, Field(min_length=1)]] = {}
    sources: dict[str, str] = {}
    key: list[dict[str, Any]] = []
    pattern: list[dict[str, Any]] = []


class LeaksAllowlist(Table):
    """gitleaks' allowlist, its names in lower case."""

    id: str = ""
    description: str = ""
    condition: str = ""
    commits: list[str] = []
    paths: list[str] = []
    regexes: list[str] = []
    regextarget: Literal["", "secret", "match", "line"] = ""
    stopwords: list[str] = []
    targetrules: list[str] = []


class LeaksLists(Table):
    """What gitleaks' file and its rules have in common: allowlists, in either of two ways."""

    description: str = ""
    allowlist: dict[str, Any] = {}
    allowlists: list[dict[str, Any]] = []


class LeaksRule(LeaksLists):
    """gitleaks' rule, its names in lower case."""

    id: Text
    regex: str = ""
    secretgroup: Annotated[int, Field(ge=0)] = 0
    entropy: Entropy = 0.0
    keywords: list[str] = []
    path: str = ""
    tags: list[str] = []
    skipreport: bool = False
    required: list[dict[str, Any]] = []


class LeaksFile(LeaksLists):
    """gitleaks' file, its names in lower case."""

    rules: list[dict[str, Any]]
    title: str = ""
    minversion: str = ""
    extend: dict[str, Any] = {}


TableT = TypeVar("TableT", bound=Table)


def checked(model: type[TableT], table: Mapping[str, Any], within: str = "") -> TableT:
    """A table as its model has it; ValueError names each field that is wrong, at most five of them. `within`: the field
    that holds the table."""
    try:
        return model.model_validate(dict(table))
    except ValidationError as error:
        raise ValueError("; ".join(_told(one, within) for one in error.errors(include_url=False)[:5])) from error


def _told(one: Any, within: str) -> str:
    """One of pydantic's errors in words: stop[0]: what is wrong with it."""
    place = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in (within, *one["loc"]) if part != ""
    )
    field = place.removeprefix(".")
    if one["type"] == "extra_forbidden":
        return f"unknown field {field}"
    if one["type"] == "missing":
        return f"{field} is missing"
    said = str(one["msg"]).removeprefix("Value error, ")
    return f"{field}: {said}" if field else said


def name_of(table: Mapping[str, Any], number: int) -> str:
    """What an entry is called in a message, whatever its `id` is."""
    name = next((value for key, value in table.items() if key.lower() == "id"), None)
    return name if isinstance(name, str) and name else f"entry {number + 1}"
