"""The opt-out list: who or what is to be left out, read strictly.

One entry on each line: an owner, `owner/repo`, a URL, or a SWHID (cnt, dir, rev, snp, ori) without qualifiers; `#`
opens a comment. A line may also be a JSON object, and a file named `.toml` holds `[[entry]]` tables, with the fields
of `Entry`. A file may say its format (`# format: 1`, `{"format": 1}`, `format = 1`); another than FORMAT is refused.

A line that cannot be read is an error, never skipped and never widened: there are no wildcards, `all` is no owner, a
path inside a repository is no repository. All bad lines are told at once.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

from stackbuild.errors import InputError
from stackbuild.origins import GITHUB, Unreadable, check_characters, is_url, origin_of_url

FORMAT: Final = 1
FILE_BYTES: Final = 256 * 1024 * 1024
LINE_CHARS: Final = 4_096
KINDS: Final = ("owner", "repo", "origin", "snapshot", "revision", "directory", "content")
SCOPES: Final = ("all", "code", "commits", "issues", "pull_requests")
CODE_SCOPES: Final = frozenset({"all", "code"})
FIELDS: Final = ("key", "scope", "date", "source", "reason")
_SWHID = re.compile(r"swh:1:([a-z]{3}):([0-9a-fA-F]{40})(;.*)?", re.ASCII)
_SWHID_KINDS = {"cnt": "content", "dir": "directory", "rev": "revision", "snp": "snapshot", "ori": "origin"}
_OWNER = re.compile(r"[a-z0-9_][a-z0-9_-]{0,99}", re.ASCII)
_REPO = re.compile(r"[a-z0-9_.-]{1,100}", re.ASCII)
_HEADER = re.compile(r"#\s*format:\s*(\S+)\s*")
_RESERVED = frozenset({"all", "none", "everything", "everyone", "commits", "issues"})


@dataclass(frozen=True)
class Entry:
    """One request, canonical: `kind` of KINDS, `key` its canonical name or 40 hexadecimal digits; the rest as given."""

    kind: str
    key: str
    scope: str = "all"
    date: str | None = None
    source: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Ledger:
    """The entries of a list, sorted, each once."""

    entries: tuple[Entry, ...]

    def keys(self, kind: str) -> frozenset[str]:
        """Canonical keys of one kind that speak of code."""
        return frozenset(entry.key for entry in self.entries if entry.kind == kind and entry.scope in CODE_SCOPES)

    def digest(self) -> str:
        """SHA-256 over what decides which files leave: kinds and keys, not dates, sources or reasons."""
        effective = sorted({(entry.kind, entry.key) for entry in self.entries if entry.scope in CODE_SCOPES})
        return hashlib.sha256(json.dumps([FORMAT, effective], ensure_ascii=True).encode()).hexdigest()


def load(path: Path) -> Ledger:
    """Read a list file; InputError with every line that cannot be read."""
    try:
        if path.stat().st_size > FILE_BYTES:
            raise InputError(f"The opt-out list {path} is larger than {FILE_BYTES} bytes: split it.")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(
            f"The opt-out list {path} cannot be read: {error.strerror}. Check the option `list`."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"The opt-out list {path} is not UTF-8 at byte {error.start}. Save it as UTF-8.") from error
    return parse(text, str(path), toml=path.suffix == ".toml")


def parse(text: str, name: str = "opt-out list", toml: bool = False) -> Ledger:
    """Read the text of a list; InputError with every entry that cannot be read, by line (in TOML, by entry)."""
    found: set[Entry] = set()
    bad: list[str] = []
    for where, item in _toml(text, name) if toml else _lines(text):
        try:
            entry = _entry(item)
        except Unreadable as error:
            shown = item if isinstance(item, str) else json.dumps(item, default=str)
            bad.append(f"  {where}: {_shown(shown)}: {error}")
        else:
            if entry is not None:
                found.add(entry)
    if bad:
        raise InputError(
            f"{len(bad)} entries of {name} cannot be read, so nothing was built. Mend or remove them:\n"
            + "\n".join(bad)
        )
    return Ledger(tuple(sorted(found, key=lambda e: tuple(getattr(e, f) or "" for f in ("kind", *FIELDS)))))


def _lines(text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.removesuffix("\r").strip(" \t")
        if stripped:
            yield f"line {number}", stripped


def _toml(text: str, name: str) -> Iterator[tuple[str, Any]]:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"The opt-out list {name} is not TOML: {error}.") from error
    entries = data.pop("entry", [])
    yield "format", {"format": data.pop("format", None)}
    for key in data:
        yield f"key {key}", {key: data[key]}
    if not isinstance(entries, list):
        entries = [entries]
    for number, entry in enumerate(entries, 1):
        yield f"entry {number}", entry


def _entry(item: Any) -> Entry | None:
    """The entry in a line or table; None for a comment or a format; Unreadable says why not."""
    if isinstance(item, str):
        if len(item) > LINE_CHARS:
            raise Unreadable(f"it is longer than {LINE_CHARS} characters")
        if item.startswith("#"):
            header = _HEADER.fullmatch(item)
            _check_format(header[1] if header else FORMAT)
            return None
        if not item.startswith("{"):
            return Entry(*canonical(re.split(r"[ \t]+#", item, maxsplit=1)[0]))
        try:
            item = json.loads(item)
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"it is not JSON ({error})") from error
    if not isinstance(item, Mapping):
        raise Unreadable("it is not a table")
    if set(item) == {"format"}:
        _check_format(FORMAT if item["format"] is None else item["format"])
        return None
    if unknown := sorted(set(item) - set(FIELDS)):
        raise Unreadable(f"unknown field {unknown[0]!r}; there are {', '.join(FIELDS)}")
    return _table(item)


def _check_format(given: Any) -> None:
    if str(given) != str(FORMAT):
        raise Unreadable(f"format {given}; this version reads format {FORMAT}")


def _table(item: Mapping[str, Any]) -> Entry:
    """An entry from its fields."""
    values = {
        name: value.isoformat() if isinstance(value, date) else value
        for name, value in item.items()
        if value is not None
    }
    for name, value in values.items():
        if not isinstance(value, str):
            raise Unreadable(f"the field {name} is not text")
    if "key" not in values:
        raise Unreadable("it has no key")
    scope = values.get("scope", "all")
    if scope not in SCOPES:
        raise Unreadable(f"unknown scope {scope!r}; there are {', '.join(SCOPES)}")
    if "date" in values:
        try:
            date.fromisoformat(values["date"][:10])
        except ValueError as error:
            raise Unreadable(f"{values['date']!r} is no date (YYYY-MM-DD)") from error
    kind, key = canonical(values["key"])
    return Entry(kind, key, scope, values.get("date"), values.get("source"), values.get("reason"))


def canonical(text: str) -> tuple[str, str]:
    """The kind and the canonical key of what a line names; Unreadable says why it names nothing."""
    text = text.strip(" \t")
    check_characters(text)
    if any(char in text for char in "*?[]|<>\"'`,") and not is_url(text):
        raise Unreadable("there are no wildcards, links or lists: name one owner, owner/repo, URL or SWHID")
    if text.lower().startswith("swh:"):
        return _swhid(text)
    if is_url(text):
        return _url(text)
    parts = text.removeprefix("@").strip("/").casefold().split("/")
    if len(parts) == 1:
        if parts[0] in _RESERVED:
            raise Unreadable(f"{parts[0]!r} is a scope, not an owner")
        if not _OWNER.fullmatch(parts[0]):
            raise Unreadable("it is no owner, owner/repo, URL or SWHID")
        return "owner", parts[0]
    name = parts[1].removesuffix(".git") if len(parts) == 2 else ""
    if len(parts) != 2 or not _OWNER.fullmatch(parts[0]) or not _REPO.fullmatch(name) or name in (".", ".."):
        raise Unreadable(
            "it is no owner/repo: give the repository's URL if it is not on GitHub; paths inside one cannot be listed"
        )
    return "repo", f"{parts[0]}/{name}"


def _swhid(text: str) -> tuple[str, str]:
    match = _SWHID.fullmatch(text)
    if not match:
        raise Unreadable("it is no SWHID (swh:1:<cnt|dir|rev|snp|ori>:<40 hexadecimal digits>)")
    if match[3]:
        raise Unreadable("qualifiers are not applied: give the SWHID alone")
    if match[1] not in _SWHID_KINDS:
        raise Unreadable(f"SWHIDs of the type {match[1]} are not recorded: give the revision or the origin")
    kind, digest = _SWHID_KINDS[match[1]], match[2].lower()
    return kind, f"ori:{digest}" if match[1] == "ori" else digest


def _url(text: str) -> tuple[str, str]:
    host, parts = origin_of_url(text)
    if not parts:
        raise Unreadable("it names a whole host: name an owner or a repository on it")
    if host == GITHUB:
        if parts[0] in ("orgs", "users") and len(parts) == 2:
            parts = parts[1:]
        if len(parts) > 2:
            raise Unreadable("it names something inside a repository: give the repository's own URL")
        if len(parts) == 1:
            return "owner", parts[0]
    if len(parts) == 1:
        return "owner", f"{host}/{parts[0]}"
    return "origin", "/".join([host, *parts])


def _shown(text: str) -> str:
    """A stranger's text on one line of plain characters."""
    short = text if len(text) <= 80 else text[:77] + "..."
    return short.encode("unicode_escape").decode("ascii")
