"""Plain folders: every file below a folder on disk, with no version control.

The revision is the folder's SWHID as the specification computes it: symlinks by their text, not followed, a special
file as an empty one, empty folders counted, executable if any x bit is set, everything named `.git` left out, and the
folder that is built into, if it lies there. It is computed for the plan, and again while a worker reads: a folder that
changed in between is an error, never a mixture.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from pydantic import Field

from stackbuild.errors import InputError
from stackbuild.sources.git_scan import name_of_folder
from stackbuild.sources.git_tree import is_lfs_pointer
from stackbuild.sources.unit import (
    Entry,
    File,
    Limits,
    Link,
    Origin,
    ResolveContext,
    Skipped,
    Source,
    SourceOptions,
    Unit,
    Unread,
    left_out,
)
from stackbuild.swhid import (
    EXECUTABLE_MODE,
    FILE_MODE,
    SYMLINK_MODE,
    TREE_MODE,
    Swhid,
    TreeEntry,
    content_id,
    directory_id,
    hasher,
)

EXCLUDED: Final = b".git"
PIECE: Final = 1 << 20


class DirectoryOptions(SourceOptions):
    """`[[source]] kind = "directory"`."""

    paths: tuple[str, ...] = Field(min_length=1, description="folders, each one origin; `~` is expanded")


@dataclass
class Folder:
    """An open folder of the walk: what is left of its names, and the entries (name, mode, id) hashed so far."""

    path: bytes  # relative to the root, with "/" at the end unless it is the root
    name: bytes
    names: Iterator[bytes]
    entries: list[TreeEntry] = field(default_factory=list)


@dataclass
class Walk:
    """What a walk found when it was taken to the end: the root's id, files and bytes below it."""

    root: bytes = b""
    files: int = 0
    size: int = 0


class DirectorySource:
    """The source of kind "directory"; see the module."""

    kind = "directory"
    options_model: type[SourceOptions] = DirectoryOptions

    def units(self, options: DirectoryOptions, context: ResolveContext) -> tuple[list[Unit], list[Skipped]]:
        """One unit for each folder that holds a file, sorted by key; InputError if there is none at all."""
        units: dict[str, Unit] = {}
        skipped: list[Skipped] = []
        for done, given in enumerate(options.paths, start=1):
            context.progress("hashing folders", done, len(options.paths))
            path = os.path.abspath(os.path.expanduser(given))
            closed = left_out(path, context.leave_out)
            walk = Walk()
            try:
                with os.scandir(path):
                    pass
                for _ in entries_of(os.fsencode(path), None, walk, closed):
                    pass
            except (OSError, ValueError) as error:
                skipped.append(Skipped(given, f"cannot be read: {getattr(error, 'strerror', None) or error}"))
                continue
            if not walk.files:
                skipped.append(Skipped(given, "holds no file"))
                continue
            name = name_of_folder(path)
            key = {"repo_name": name, "swhid": str(Swhid("dir", walk.root))}
            where = {"path": path} | ({"leave_out": sorted(map(os.path.realpath, closed))} if closed else {})
            units[os.path.realpath(path)] = Unit("directory", key, where, walk.size, name)
        if not units:
            reasons = "; ".join(f"{skip.what!r}: {skip.reason}" for skip in skipped[:5])
            raise InputError(f"no folder can be read: {reasons}. Check `paths` of the source.")
        return sorted(units.values(), key=lambda unit: json.dumps(unit.key, sort_keys=True)), skipped

    def read(self, unit: Unit, options: DirectoryOptions, limits: Limits) -> Iterator[Origin | Entry]:
        """Yield the origin and each entry; InputError at the end if the folder is no longer what was planned."""
        path, planned = unit.where["path"], unit.key["swhid"]
        walk = Walk()
        yield Origin(unit.key["repo_name"], planned, directory_id=planned.rpartition(":")[2])
        try:
            closed = left_out(path, unit.where.get("leave_out", ()))
            yield from entries_of(os.fsencode(path), limits, walk, closed)
        except OSError as error:
            raise InputError(f"folder {path!r} cannot be read: {error.strerror or error}") from error
        if (found := str(Swhid("dir", walk.root))) != planned:
            raise InputError(f"folder {path!r} changed after it was planned ({planned}, now {found}); plan again")


def entries_of(root: bytes, limits: Limits | None, walk: Walk, closed: frozenset[str] = frozenset()) -> Iterator[Entry]:
    """Every entry below `root` in order of name; with `limits` None nothing is held and files come as Unread.

    `walk` is filled as the iteration proceeds. OSError if the root cannot be listed; below it such a folder is an
    Unread with a tree's mode, empty in the id. `closed`: folders that are as if they were not there.
    """
    hidden = frozenset(map(os.fsencode, closed))
    stack = [Folder(b"", b"", iter(_names(root)))]
    taken = 0
    while stack:
        folder = stack[-1]
        for name in folder.names:
            path = folder.path + name
            full = os.path.join(root, path)
            if full in hidden:
                continue
            try:
                status = os.lstat(full)
                if stat.S_ISDIR(status.st_mode):
                    try:
                        below = _names(full)
                    except OSError as error:
                        yield Unread(path, TREE_MODE, "unreadable", detail=_why(error))
                        below = []
                    stack.append(Folder(path + b"/", name, iter(below)))
                    break
                if stat.S_ISLNK(status.st_mode):
                    target = content_id(os.readlink(full))
                    folder.entries.append((name, SYMLINK_MODE, target))
                    yield Link(path, SYMLINK_MODE, target)
                    continue
            except OSError as error:
                folder.entries.append((name, FILE_MODE, content_id(b"")))
                yield Unread(path, FILE_MODE, "unreadable", detail=_why(error))
                continue
            walk.files += 1
            entry, digest, mode = _file(full, path, status, limits, (walk.files, taken))
            folder.entries.append((name, mode, digest))
            walk.size += status.st_size if stat.S_ISREG(status.st_mode) else 0
            taken += len(entry.data) if isinstance(entry, File) else 0
            yield entry
        else:
            stack.pop()
            walk.root = directory_id(folder.entries)
            if stack:
                stack[-1].entries.append((folder.name, TREE_MODE, walk.root))


def _names(path: bytes) -> list[bytes]:
    return sorted(name for name in os.listdir(path) if name != EXCLUDED)


def _file(
    full: bytes, path: bytes, status: os.stat_result, limits: Limits | None, so_far: tuple[int, int]
) -> tuple[Entry, bytes, int]:
    """The entry of what is no folder and no symlink, its git id, and its mode in the tree."""
    mode = EXECUTABLE_MODE if status.st_mode & 0o111 else FILE_MODE
    if not stat.S_ISREG(status.st_mode):
        return Unread(path, status.st_mode, "special_file"), content_id(b""), mode
    size, (files, taken) = status.st_size, so_far
    refused: tuple[str, int, int] | None = None
    if limits is not None:
        for rule, value, threshold in (
            ("too_many_files", files, limits.unit_files),
            ("long_path", len(path), limits.path_bytes),
            ("too_deep", path.count(b"/"), limits.depth),
            ("too_large", size, limits.file_bytes),
            ("unit_too_large", taken + size, limits.unit_bytes),
        ):
            if value > threshold:
                refused = rule, value, threshold
                break
    keep = limits is not None and refused is None
    try:
        data, digest = _take(full, size, keep=keep)
    except OSError as error:
        return Unread(path, mode, "unreadable", size, detail=_why(error)), content_id(b""), mode
    if refused:
        return Unread(path, mode, refused[0], size, refused[1], refused[2], digest), digest, mode
    if not keep:
        return Unread(path, mode, "planned", size, content_id=digest), digest, mode
    if is_lfs_pointer(data):
        return Unread(path, mode, "lfs_pointer", size, content_id=digest), digest, mode
    return File(path, mode, data, digest), digest, mode


def _take(full: bytes, size: int, *, keep: bool) -> tuple[bytes, bytes]:
    """The first `size` bytes of a regular file (none unless `keep`) and their git id, not through a symlink."""
    handle = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "is no longer a regular file")
        digest = hasher("blob", size)
        pieces: list[bytes] = []
        left = size
        while left and (piece := file.read(min(left, PIECE))):
            digest.update(piece)
            left -= len(piece)
            if keep:
                pieces.append(piece)
        if file.read(1):
            digest.update(b"grown")  # no id of any bytes: the check against the plan fails
    return b"".join(pieces), digest.digest()


def _why(error: OSError) -> str:
    return error.strerror or str(error)


SOURCE: Source = DirectorySource()
