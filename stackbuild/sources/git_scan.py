"""Where git repositories are: folders scanned, lists read, URLs cloned; and what a repository is called.

A URL is made canonical as for Software Heritage origins: scheme folded to https, host in lower case, `.git`, trailing
"/", credentials, port, query and fragment removed. A repository of github.com is `owner/repo`, of any other host
`host/owner/repo`; without a URL that others can reach it is `local/<folder>`.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from stackbuild.errors import InputError
from stackbuild.origins import SCP, canonical_url, is_torn
from stackbuild.sources.credentials import hidden, without_credentials
from stackbuild.sources.git_objects import git_environment, read_regular
from stackbuild.sources.unit import Skipped, left_out

CLONE_PROTOCOLS: Final = ("https", "ssh", "git", "file")
CONFIG_BYTES: Final = 4 * 1024 * 1024
_PASSED_ON: Final = ("SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "http_proxy", "https_proxy",
                     "HTTPS_PROXY", "no_proxy", "NO_PROXY")  # fmt: skip


def no_url(path: str) -> str:
    """A path; ValueError if it looks like a URL, which may hold a password and has a place of its own."""
    if "://" in path or re.match(r"[^/\s]+(?:@[^/\s]+:|:.*[^/]@)", path):
        raise ValueError(
            f"{without_credentials(path)!r} is a URL, not a path: name it under `urls` (or write ./ before it)"
        )
    return path


class Listed(BaseModel):
    """One line of a list file: a repository on disk and what is known of its origin. Dates are ISO 8601."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Annotated[str, AfterValidator(no_url)] = Field(min_length=1)
    url: str | None = None
    ref: str | None = None
    visit_date: datetime | None = None
    github_id: int | None = None
    star_events_count: int | None = None
    fork_events_count: int | None = None
    gha_license_id: str | None = None
    gha_event_created_at: datetime | None = None
    gha_created_at: datetime | None = None
    gha_language: str | None = None
    other_names: str | None = None
    forked_from: str | None = None

    def columns(self) -> dict[str, Any]:
        """The columns of `Origin` that this line gives, dates as nanoseconds since 1970."""
        given = self.model_dump(exclude={"path", "url", "ref"}, exclude_none=True)
        return {name: nanoseconds(value) if isinstance(value, datetime) else value for name, value in given.items()}


def nanoseconds(date: datetime) -> int | None:
    """Nanoseconds since 1970 (a date without a zone is UTC); None beyond int64."""
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    since = date - datetime(1970, 1, 1, tzinfo=UTC)
    value = ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000
    return value if -(2**63) < value < 2**63 else None


# ---------------------------------------------------------------- names


def name_of_folder(folder: str) -> str:
    """`local/<folder>` with the last name of a path, `.git` removed; what cannot be printed becomes U+FFFD."""
    name = os.path.basename(folder.rstrip("/"))
    if name == ".git":
        name = os.path.basename(os.path.dirname(folder.rstrip("/")))
    text = os.fsencode(name).decode("utf-8", "replace").removesuffix(".git") or "_"
    return "local/" + "".join("\ufffd" if unicodedata.category(char)[0] == "C" else char for char in text)


# ---------------------------------------------------------------- repositories on disk


def git_folder(path: str, within: str) -> str | Skipped | None:
    """The folder that holds HEAD, objects and refs of a repository at `path`; None if there is no repository.

    A `.git` file is followed only to a folder below `within`, so that no stranger's file leads us elsewhere.
    """
    inner = os.path.join(path, ".git")
    if os.path.isdir(inner) and not os.path.islink(inner) and _is_git_folder(inner):
        return inner
    if _is_git_folder(path):
        if os.path.lexists(os.path.join(path, "commondir")):
            return Skipped(path, "a linked work tree of another repository: name that one")
        return path
    if os.path.islink(inner):
        return Skipped(path, "its .git is a symlink: name the folder that it points to")
    text = read_regular(Path(inner), 65_536)
    if text is None or not text.startswith(b"gitdir:"):
        return None
    target = os.path.realpath(os.path.join(os.fsencode(path), text[len(b"gitdir:") :].strip()))
    if not (os.fsdecode(target) + os.sep).startswith(os.path.realpath(within) + os.sep):
        return Skipped(path, "its .git file points outside the scanned folder: name the repository that it points to")
    if os.path.lexists(os.path.join(target, b"commondir")):
        return Skipped(path, "a linked work tree of another repository: name that one")
    if not _is_git_folder(os.fsdecode(target)):
        return Skipped(path, "its .git file points to no repository")
    return os.fsdecode(target)


def _is_git_folder(path: str) -> bool:
    return (
        os.path.isfile(os.path.join(path, "HEAD"))
        and os.path.isdir(os.path.join(path, "objects"))
        and os.path.isdir(os.path.join(path, "refs"))
    )


def scan(root: str, depth: int, leave_out: Iterable[str] = ()) -> Iterator[str | Skipped]:
    """The git folders at or below `root`, by name; no symlink is followed and a repository is not searched further.

    `leave_out`: real paths of folders that are not entered; InputError if `root` lies in one.
    """
    closed = left_out(root, leave_out)
    try:
        os.stat(root)
    except (OSError, ValueError) as error:
        yield Skipped(root, f"cannot be read: {getattr(error, 'strerror', None) or error}")
        return
    folders = [(root, 0)]
    while folders:
        path, level = folders.pop()
        try:
            found = git_folder(path, root)
            if found is not None:
                yield found
                continue
            if level == depth:
                continue
            with os.scandir(path) as entries:
                below = sorted(
                    (
                        entry.path
                        for entry in entries
                        if entry.is_dir(follow_symlinks=False) and entry.path not in closed
                    ),
                    key=os.fsencode,
                )
        except NotADirectoryError:
            yield Skipped(path, "not a folder")
            continue
        except (OSError, InputError) as error:
            yield Skipped(path, f"cannot be read: {getattr(error, 'strerror', None) or error}")
            continue
        folders.extend((child, level + 1) for child in reversed(below))


def read_list(path: str) -> list[Listed]:
    """The lines of a list file: JSON objects, or tab-separated path, URL, ref, visit date (path only is needed).

    Paths are relative to the list's own folder. Empty lines and those that begin with "#" say nothing. InputError names
    the line that is wrong.
    """
    try:
        raw = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the list of repositories {path!r}: {error.strerror}") from error
    base = Path(path).expanduser().parent
    listed = []
    for number, line in enumerate(raw.replace(b"\r\n", b"\n").split(b"\n"), start=1):
        if not line.strip() or line.startswith(b"#"):
            continue
        try:
            if line.lstrip().startswith(b"{"):
                entry = Listed.model_validate_json(line)
            else:
                cells = next(csv.reader([os.fsdecode(line)], delimiter="\t", quoting=csv.QUOTE_NONE))
                if len(cells) > 4:
                    raise ValueError("more than four columns")
                names = ("path", "url", "ref", "visit_date")
                entry = Listed.model_validate({n: c for n, c in zip(names, cells, strict=False) if c})
            if entry.url is not None and canonical_url(entry.url) is None:
                raise ValueError("the URL is not one that others can reach (https, ssh or git)")
        except (ValidationError, ValueError, csv.Error) as error:
            why = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()) if isinstance(
                error, ValidationError) else str(error)  # fmt: skip
            raise InputError(f"line {number} of the list {path!r}: {why}") from error
        listed.append(entry.model_copy(update={"path": str(base / Path(entry.path).expanduser())}))
    return listed


_KEY = re.compile(r"\s*([A-Za-z][A-Za-z0-9-]*)\s*(?:=\s*(.*))?$")
_SECTION = re.compile(r'\s*\[\s*([A-Za-z0-9.-]+)(?:\s+"((?:[^"\\]|\\.)*)")?\s*\](.*)$')


def read_config(folder: Path) -> dict[str, list[str]]:
    """A repository's own settings, `section.subsection.key` -> values; includes are not followed."""
    settings: dict[str, list[str]] = {}
    section = ""
    text = (read_regular(folder / "config", CONFIG_BYTES) or b"").decode("utf-8", "surrogateescape")
    for line in re.sub(r"\\\r?\n", "", text).split("\n"):
        rest = line.rstrip("\r")
        if match := _SECTION.match(rest):
            name = re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else None
            section = match[1].lower() + (f".{name}" if name is not None else "")
            rest = match[3]
        if match := _KEY.match(rest):
            settings.setdefault(f"{section}.{match[1].lower()}", []).append(_plain(match[2] or ""))
    return settings


def _plain(value: str) -> str:
    """A config value without quotes, escapes and comment."""
    out, quoted, at = [], False, 0
    while at < len(value):
        char = value[at]
        if char == "\\" and at + 1 < len(value):
            at += 1
            out.append({"n": "\n", "t": "\t", "b": "\b"}.get(value[at], value[at]))
        elif char == '"':
            quoted = not quoted
        elif char in "#;" and not quoted:
            break
        else:
            out.append(char)
        at += 1
    return "".join(out).strip()


def remote_url(settings: dict[str, list[str]]) -> str | None:
    """The URL of `origin`, or of the only remote; None if there is none."""
    urls = {
        name: values[0] for name, values in settings.items() if name.startswith("remote.") and name.endswith(".url")
    }
    return urls.get("remote.origin.url") or (next(iter(urls.values())) if len(urls) == 1 else None)


# ---------------------------------------------------------------- clones


def clonable(url: str) -> str:
    """The URL to give to `git clone`; ValueError if its protocol is not allowed or it could be taken for an option."""
    shown = without_credentials(url)
    scp = None if "://" in url else SCP.fullmatch(url)
    try:
        parts = urlsplit(f"ssh://{url.split(':', 1)[0]}/{scp[2]}" if scp else url)
        host = parts.hostname
    except ValueError:  # whose message may hold what stands before the host
        raise ValueError("a URL cannot be cloned: its host is none") from None
    if is_torn(url):
        raise ValueError(
            "a URL cannot be cloned: write what is no letter in its password as %XX, and scp-like as ssh://"
        )
    if parts.scheme not in CLONE_PROTOCOLS or any(unicodedata.category(char)[0] == "C" for char in url):
        raise ValueError(f"{shown!r} cannot be cloned: give a URL of {', '.join(CLONE_PROTOCOLS)}")
    if parts.scheme != "file" and (not host or host.startswith("-") or any(char.isspace() for char in url)):
        raise ValueError("a URL cannot be cloned: it names no host, or has spaces")
    return url


def clone(url: str, cache: str, *, shallow: bool, refresh: bool, offline: bool, timeout: int) -> str | Skipped:
    """The git folder of a bare clone in the cache, made at need; Skipped with git's reason if it cannot be made.

    `shallow`: the tip of every branch and tag only. Nothing is checked out; no hook, template or configuration of the
    user or the system is seen; no submodule is fetched. The clone is made aside and moved into place when whole.
    """
    shown = without_credentials(url)
    digest = hashlib.sha256(json.dumps([url, shallow]).encode("utf-8", "surrogatepass")).hexdigest()
    place = Path(cache) / "git" / digest
    if place.is_dir() and not refresh:
        return str(place)
    if offline:
        return Skipped(shown, "not in the cache, and the network may not be asked")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".clone-", dir=place.parent) as aside:
        home = Path(aside) / "home"
        home.mkdir()
        env = git_environment(str(home)) | {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        env |= {"GIT_ALLOW_PROTOCOL": ":".join(CLONE_PROTOCOLS), "GIT_SSH_COMMAND": "ssh -oBatchMode=yes"}
        made = Path(aside) / "clone"
        command = ["git", "-c", f"core.hooksPath={os.devnull}", "-c", "credential.helper=", "-c", "safe.directory=*",
                   "clone", "--bare", "--no-local", "--template=", "--quiet",
                   *(["--depth=1", "--no-single-branch"] if shallow else []), "--", url, str(made)]  # fmt: skip
        try:
            done = subprocess.run(
                command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False
            )
        except FileNotFoundError as error:
            raise InputError("`urls` needs git, which is not installed: install git or clone by other means") from error
        except subprocess.TimeoutExpired:
            return Skipped(shown, f"not cloned within {timeout} s")
        if done.returncode:
            words = hidden(done.stderr.decode("utf-8", "replace").replace(url, shown), url)
            return Skipped(shown, f"cannot be cloned: {' '.join(words.split())[-300:] or done.returncode}")
        _forget_remote(made / "config")
        if place.is_dir():
            shutil.rmtree(place)
        with contextlib.suppress(FileExistsError, OSError):
            os.rename(made, place)  # another build may have been first: its clone is as good
    return str(place) if place.is_dir() else Skipped(shown, "the clone could not be moved into the cache")


def _forget_remote(config: Path) -> None:
    """Cut the remote, and the credentials that its URL may hold, out of a clone's configuration."""
    text = config.read_text("utf-8", "surrogateescape")
    config.write_text(re.sub(r'(?ms)^\[remote "[^\n]*\n(?:^[ \t][^\n]*\n)*', "", text), "utf-8", "surrogateescape")
