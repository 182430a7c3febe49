"""References of a git repository, read from its files: which commit to take, and the snapshot id.

The order is that of our Software Heritage source: the wanted ref, else HEAD, else one of main, master, trunk, develop,
else the only head, else the newest. The snapshot is over what a remote would show to Software Heritage's git loader:
all refs with an existing target, HEAD an alias of its branch, without the refs that the loader drops.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stackbuild.errors import InputError
from stackbuild.sources.git_objects import CorruptObject, MissingObject, ObjectStore, read_regular, verified
from stackbuild.swhid import snapshot_id

USUAL_BRANCHES: Final = tuple(b"refs/heads/" + name for name in (b"main", b"master", b"trunk", b"develop"))
SYMREF_HOPS: Final = 5
TAG_HOPS: Final = 16
OBJECT_BYTES: Final = 16 * 1024 * 1024  # of a commit or tag; git itself warns far below
REF_BYTES: Final = 4_096
PACKED_REFS_BYTES: Final = 256 * 1024 * 1024
REFS: Final = 5_000_000
_DROPPED = re.compile(rb".*\^\{\}|refs/pull/.*/merge|refs/merge-requests/.*/merge|refs/(?:pipelines|changes)/.*", re.S)
_SNAPSHOT_TYPES: Final = {"commit": "revision", "tag": "release", "tree": "directory", "blob": "content"}
_ID = re.compile(rb"[0-9a-f]{40}|[0-9a-f]{64}")
_DATE = re.compile(rb"> (-?[0-9]{1,18}) [+-][0-9]{1,8}$")


class NoCommit(Exception):
    """No commit can be chosen; the message is the reason, for a person."""


@dataclass(frozen=True)
class References:
    """`ids`: ref -> object id. `symbolic`: ref -> the ref that it names, HEAD too. `detached`: HEAD's own id."""

    ids: dict[bytes, bytes]
    symbolic: dict[bytes, bytes]
    detached: bytes | None


@dataclass(frozen=True)
class Commit:
    """What the rows need of a commit. Dates in nanoseconds since 1970, None if it has none or beyond an int64."""

    tree: bytes
    author_date: int | None
    committer_date: int | None


def read_references(git_folder: Path) -> References:
    """All refs of a repository, loose before packed, symlinks and special files ignored; InputError beyond the caps."""
    ids: dict[bytes, bytes] = {}
    symbolic: dict[bytes, bytes] = {}
    for line in (read_regular(git_folder / "packed-refs", PACKED_REFS_BYTES) or b"").split(b"\n"):
        digest, space, name = line.rstrip(b"\r").partition(b" ")
        if space and _ID.fullmatch(digest) and name.startswith(b"refs/"):
            ids[name] = bytes.fromhex(digest.decode())
    folders = [] if (git_folder / "refs").is_symlink() else [(git_folder / "refs", b"refs/")]
    while folders:
        folder, prefix = folders.pop()
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                name = prefix + os.fsencode(entry.name)
                if len(name) > REF_BYTES or len(ids) > REFS:
                    raise InputError(f"{str(git_folder)!r} has over {REFS} refs, or names of over {REF_BYTES} bytes")
                if entry.is_dir(follow_symlinks=False):
                    folders.append((Path(entry.path), name + b"/"))
                elif not name.endswith(b".lock"):
                    _take(name, read_regular(Path(entry.path), REF_BYTES), ids, symbolic)
    head: dict[bytes, bytes] = {}
    _take(b"HEAD", read_regular(git_folder / "HEAD", REF_BYTES), head, symbolic)
    return References(ids, symbolic, head.get(b"HEAD"))


def _take(name: bytes, text: bytes | None, ids: dict[bytes, bytes], symbolic: dict[bytes, bytes]) -> None:
    line = (text or b"").strip()
    if line.startswith(b"ref:"):
        symbolic[name] = line[4:].strip()
        ids.pop(name, None)
    elif _ID.fullmatch(line):
        ids[name] = bytes.fromhex(line.decode())


def _follow(references: References, name: bytes) -> tuple[bytes, bytes] | None:
    """The ref at the end of a chain of symbolic refs, and its id; None if it dangles or the chain is too long."""
    for _ in range(SYMREF_HOPS):
        if name in references.ids:
            return name, references.ids[name]
        if name not in references.symbolic:
            return None
        name = references.symbolic[name]
    return None


def peel(store: ObjectStore, target: bytes) -> bytes:
    """The commit that an id stands for, through annotated tags. Raises NoCommit with the reason."""
    wanted = target
    for _ in range(TAG_HOPS):
        try:
            kind, size = store.header(target)
            if kind == "commit":
                return target
            if kind != "tag":
                raise NoCommit(f"{wanted.hex()} stands for a {kind}, not a commit")
            if size > OBJECT_BYTES:
                raise NoCommit(f"the tag {target.hex()} has {size} bytes")
            line = verified(store, target, "tag").split(b"\n", 1)[0]
        except MissingObject as error:
            raise NoCommit(f"object {error} is missing") from error
        except CorruptObject as error:
            raise NoCommit(str(error)) from error
        if not line.startswith(b"object ") or not _ID.fullmatch(line[7:]):
            raise NoCommit(f"the tag {target.hex()} names no object")
        target = bytes.fromhex(line[7:].decode())
    raise NoCommit(f"{wanted.hex()} is a chain of over {TAG_HOPS} tags")


def read_commit(store: ObjectStore, target: bytes) -> Commit:
    """Parse a commit's tree and dates from its raw, verified bytes. Raises NoCommit with the reason."""
    try:
        size = store.header(target)[1]
        if size > OBJECT_BYTES:
            raise NoCommit(f"the commit {target.hex()} has {size} bytes")
        raw = verified(store, target, "commit")
    except MissingObject as error:
        raise NoCommit(f"the commit {error} is missing") from error
    except CorruptObject as error:
        raise NoCommit(str(error)) from error
    lines = raw.split(b"\n\n", 1)[0].split(b"\n")
    if not lines[0].startswith(b"tree ") or not _ID.fullmatch(lines[0][5:]):
        raise NoCommit(f"the commit {target.hex()} names no tree")
    dates = {who: _nanoseconds(lines, who) for who in (b"author ", b"committer ")}
    return Commit(bytes.fromhex(lines[0][5:].decode()), dates[b"author "], dates[b"committer "])


def _nanoseconds(lines: list[bytes], who: bytes) -> int | None:
    line = next((line for line in lines if line.startswith(who)), b"")
    match = _DATE.search(line)
    value = int(match[1]) * 1_000_000_000 if match else None
    return value if value is not None and -(2**63) < value < 2**63 else None


def choose(store: ObjectStore, references: References, wanted: str | None) -> tuple[bytes, bytes | None]:
    """The commit to read and its branch (a full ref name; None if HEAD is detached or an id was asked for).

    Raises NoCommit with the reason if there is none.
    """
    if wanted is not None:
        return _wanted(store, references, os.fsencode(wanted))
    heads = sorted(name for name in references.ids if name.startswith(b"refs/heads/"))
    found = references.symbolic.get(b"HEAD")
    branch = _follow(references, found) if found else None
    if branch:
        return peel(store, branch[1]), branch[0]
    if references.detached:
        return peel(store, references.detached), None
    for name in (*USUAL_BRANCHES, *(heads if len(heads) == 1 else ())):
        if followed := _follow(references, name):
            return peel(store, followed[1]), followed[0]
    if not heads:
        raise NoCommit("it has no commit on any branch" + (" (only other refs)" if references.ids else ""))
    dated = []
    for name in heads:
        with contextlib.suppress(NoCommit):
            commit = peel(store, references.ids[name])
            date = read_commit(store, commit).committer_date
            dated.append((-date if date is not None else 2**63, name, commit))
    if not dated:
        raise NoCommit("the commits of all its branches are missing or damaged")
    _, name, commit = min(dated)
    return commit, name


def _wanted(store: ObjectStore, references: References, wanted: bytes) -> tuple[bytes, bytes | None]:
    for prefix in (b"", b"refs/", b"refs/tags/", b"refs/heads/", b"refs/remotes/"):
        if found := _follow(references, prefix + wanted):
            return peel(store, found[1]), found[0]
    if wanted == b"HEAD" and references.detached:
        return peel(store, references.detached), None
    if _ID.fullmatch(wanted):
        return peel(store, bytes.fromhex(wanted.decode())), None
    raise NoCommit(f"it has no ref {wanted.decode('utf-8', 'replace')!r}")


def snapshot(store: ObjectStore, references: References) -> bytes:
    """The id of the snapshot that Software Heritage's git loader would make of these refs, served as they are.

    It equals the archive's only if the refs are the remote's own: a clone lacks pull requests and calls heads remotes.
    """
    branches: dict[bytes, tuple[str, bytes] | None] = {}
    for name in {*references.ids, *references.symbolic} - {b"HEAD"}:
        if (followed := _follow(references, name)) and not _DROPPED.fullmatch(name):
            _show(store, branches, name, followed[1])
    head = references.symbolic.get(b"HEAD")
    if head in branches:
        branches[b"HEAD"] = ("alias", head)
    elif references.detached:
        _show(store, branches, b"HEAD", references.detached)
    return snapshot_id(branches)


def _show(store: ObjectStore, branches: dict[bytes, tuple[str, bytes] | None], name: bytes, target: bytes) -> None:
    with contextlib.suppress(MissingObject, CorruptObject):  # git does not advertise a ref without its object
        kind, _ = store.header(target)
        branches[name] = (_SNAPSHOT_TYPES[kind], target)
