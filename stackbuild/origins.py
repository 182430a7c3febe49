"""One name for each origin, whatever way a list or a table writes it.

The name is `host/owner/repo`, folded: scheme, credentials, port, `www.`, query, fragment, `.git` and slashes at the
end go, the host is lower case and ASCII (IDNA), percent escapes are undone once. Forges compare owners and
repositories without case, so we do too. Nothing is normalised in silence that could make one owner of two: full-width
letters, invisible and control characters, encoded slashes and dots are refused.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Final
from urllib.parse import unquote, urlsplit

GITHUB: Final = "github.com"
URL_BYTES: Final = 2_048
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SCP = re.compile(r"(?:[^@/:\s]+@)?([A-Za-z0-9.-]+):(?!/)([^:\s]+)")
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_OTHER_GITHUB: Final = frozenset(
    {"github.com", "ssh.github.com", "api.github.com", "raw.githubusercontent.com", "codeload.github.com"}
)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


class Unreadable(ValueError):
    """A text that names no origin; the message says why."""


def check_characters(text: str) -> None:
    """Unreadable for white space, control, format, private and unassigned characters, and what NFKC would change."""
    for char in text:
        if unicodedata.category(char)[0] in "CZ":
            raise Unreadable(f"it holds the character U+{ord(char):04X}, which is invisible or a space")
    if unicodedata.normalize("NFKC", text) != text:
        raise Unreadable(
            "it holds letters that look like others (full-width, composed): write it as the forge shows it"
        )


def is_url(text: str) -> bool:
    """A scheme, an scp address (git@host:path), or a host with a path."""
    first = text.split("/", 1)[0]
    scp = _SCP.fullmatch(text) and "." in first.split(":")[0]
    return bool(_SCHEME.match(text) or scp) or ("." in first and "/" in text)


def origin_of_url(text: str) -> tuple[str, list[str]]:
    """The host and the path's parts of a URL, canonical; Unreadable if it is none."""
    check_characters(text)
    if len(text.encode()) > URL_BYTES:
        raise Unreadable(f"it is longer than {URL_BYTES} bytes")
    scp = None if _SCHEME.match(text) else _SCP.fullmatch(text)
    if scp:
        text = f"ssh://{scp[1]}/{scp[2]}"
    elif not _SCHEME.match(text):
        text = f"https://{text}"
    try:
        parts = urlsplit(text)
        name = parts.hostname or ""
    except ValueError as error:
        raise Unreadable(f"it is no URL ({error})") from error
    return host(name), path_of(parts.path)


def host(name: str) -> str:
    """A host in lower-case ASCII without `www.`."""
    if ":" in name:  # an IPv6 address
        return f"[{name.lower()}]"
    try:
        ascii_name = name.rstrip(".").lower().encode("idna").decode("ascii")
    except UnicodeError as error:
        raise Unreadable(f"{name!r} is no host") from error
    if "." not in ascii_name or not all(_LABEL.fullmatch(label) for label in ascii_name.split(".")):
        raise Unreadable(f"{name!r} is no host")
    return ascii_name.removeprefix("www.")


def path_of(path: str) -> list[str]:
    """The parts of a path, folded, `.git` removed from the last."""
    if _ESCAPE.search(path):
        raise Unreadable("a % in it is not followed by two hexadecimal digits")
    parts = []
    for raw in filter(None, path.split("/")):
        try:
            part = unquote(raw, errors="strict")
        except UnicodeDecodeError as error:
            raise Unreadable("its percent escapes are not UTF-8") from error
        check_characters(part)
        if part in (".", "..") or "/" in part or "\\" in part or "%" in part:
            raise Unreadable(f"{raw!r} is no part of a repository's name")
        parts.append(part.casefold())
    if parts and parts[-1].endswith(".git") and parts[-1] != ".git":
        parts[-1] = parts[-1][: -len(".git")]
    return parts


def origins_of_row(repo_name: str | None, repo_url: str | None) -> frozenset[str]:
    """Every canonical name of a row's repository: by its name and by its URL.

    Tables are written by others, so what a list would refuse is read here as far as it can be: blanks around, doubled
    slashes, pages of a repository, a name that is a URL. A name too many costs a look, one too few a person's wish.
    """
    names = set()
    for text in filter(None, (repo_name, repo_url)):
        names |= read_loosely(text)
        try:
            host_name, parts = origin_of_url(text.strip())
        except Unreadable:
            continue
        names.add("/".join([host_name, *parts]))
    return frozenset(names)


def read_loosely(text: str) -> set[str]:
    """Names that a text from a table may mean; never an error."""
    folded = unicodedata.normalize("NFKC", text).casefold().strip().lstrip("@")
    scheme = _SCHEME.match(folded)
    scp = None if scheme else _SCP.fullmatch(folded)
    if scp and "." in scp[1]:
        folded = f"{scp[1]}/{scp[2]}"
    elif scheme:
        folded = re.sub(r"^[^/]*@", "", folded[scheme.end() :])
    folded = re.split(r"[?#]", folded, maxsplit=1)[0]
    parts = [part.strip() for part in folded.split("/") if part.strip()]
    if not parts:
        return set()
    if "." in parts[0]:
        host_name = parts[0].split(":", 1)[0].rstrip(".").removeprefix("www.")
        path = parts[1:]
        if host_name in _OTHER_GITHUB:
            host_name, path = GITHUB, path[1:] if path[:1] == ["repos"] else path
        path = path[: path.index("-")] if "-" in path else path  # GitLab's pages stand behind /-/
        whole = {tuple(path)} | ({tuple(path[:2])} if host_name == GITHUB else set())
        found = {"/".join([host_name, *(part for part in names)]) for names in whole}
    else:
        found = {"/".join(parts)}
        if len(parts) == 2:
            found.add("/".join([GITHUB, *parts]))
    return found | {name.removesuffix(".git") for name in found}


def prefixes(origin: str) -> list[str]:
    """`host/owner` and every group below it, shortest first, without the origin itself."""
    parts = origin.split("/")
    return ["/".join(parts[:k]) for k in range(2, len(parts))]


def origin_digests(repo_url: str) -> set[str]:
    """Digests of the SWHIDs `swh:1:ori:` of a URL: the SHA-1 of its text, in each of its common spellings."""
    bare = re.sub(r"^[A-Za-z+]+://(?:[^@/]*@)?", "", repo_url.strip()).rstrip("/").removesuffix(".git")
    spelled = {repo_url, repo_url.rstrip("/")}
    for scheme in ("https", "http", "git", "ssh", "git+ssh"):
        spelled |= {f"{scheme}://{bare}{end}" for end in ("", ".git", "/")}
    head, slash, tail = bare.partition("/")
    spelled |= {f"https://{head.lower()}{slash}{tail}{end}" for end in ("", ".git", "/")}
    return {hashlib.sha1(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest() for text in spelled}


# ---------------------------------------------------------------- names in tables

_INNER_AT = re.compile(r"[^/]@")  # "/@" begins a name in a path
# git's own reading of user@host:path, wider than the list's: the host may be an IPv6 address or the name of a network.
SCP: Final = re.compile(r"(?:[^@/:]+@)?([A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9a-fA-F:]+\]):(?!//)([^:].*)")
_HOSTS: Final = {"www.github.com": "github.com", "ssh.github.com": "github.com", "altssh.gitlab.com": "gitlab.com"}


def is_torn(address: str) -> bool:
    """Whether a password with "/" or ":" in it may stand where a program reads a port or a path: nobody can tell its host."""
    _, scheme, rest = address.partition("://")
    if scheme:
        authority, _, path = rest.partition("/")
        return "@" not in authority and ":" in authority and _INNER_AT.search(path) is not None
    return _INNER_AT.search(address.partition(":")[2]) is not None


def canonical_url(url: str) -> str | None:
    """The canonical https URL of a repository; None for what others cannot reach: a path, `file:`, a dotless host.

    A dotless host is a name of this network or of an ssh configuration.
    """
    url = url.strip()
    if is_torn(url) or "\\" in url or any(unicodedata.category(char)[0] in "CZ" for char in url):
        return None
    if "://" not in url:
        scp = SCP.fullmatch(url)
        if not scp or len(scp[1]) == 1:  # one letter is a drive, not a host
            return None
        url = f"ssh://{scp[1]}/{scp[2]}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme.lower() not in ("http", "https", "ssh", "git", "git+ssh", "git+https"):
        return None
    if not host or not ("." in host or ":" in host):
        return None
    names = [name for name in parts.path.split("/") if name]
    if names and names[-1].endswith(".git") and names[-1] != ".git":
        names[-1] = names[-1][: -len(".git")]
    if not names or any(name in (".", "..") for name in names):
        return None
    host = _HOSTS.get(host.rstrip("."), host.rstrip("."))
    return f"https://{f'[{host}]' if ':' in host else host}/{'/'.join(names)}"


def name_of_url(canonical: str) -> str:
    """`owner/repo` for github.com, `host/owner/repo` for every other host, from a canonical URL."""
    path = canonical.removeprefix("https://")
    inner = path.removeprefix("github.com/")
    return inner if inner != path and inner.count("/") == 1 else path
