"""Archives: tar (gzip, bzip2, xz, zstd), zip, sdists and wheels, read as streams and never unpacked to disk.

An archive is read twice at most. The survey hashes every member and learns what only the end can tell: which of two
members of one name is the last (it wins, as when unpacking), whether there is a single top folder (it is stripped from
the paths), the git tree id of what lies below it, and that nothing is cut or damaged. Only then are files yielded,
from memory if they all fit into 64 MiB, else from a second pass.

Rules (each counts the file in and out again, `unit.Unread`): `unsafe_path` (absolute, "..", NUL), `long_path`,
`too_deep`, `too_large`, `special_file` (device, fifo), `sparse_file`, `hard_link` (to nothing before it),
`path_conflict` (a file where others have a folder; the folder stays), `encrypted`, `unknown_compression`. For a cap
of the whole (`too_many_files`, `unit_too_large`, `archive_bomb`) one Unread stands for the archive and nothing of it is
used. An archive inside an archive is a file.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Final

from pydantic import Field

from stackbuild.errors import InputError
from stackbuild.sources.ahead import looked_at
from stackbuild.sources.archive_members import SYMLINK_BYTES, Member, Refused, Torn, members
from stackbuild.sources.unit import (
    Entry,
    File,
    Limits,
    Link,
    Origin,
    ResolveContext,
    Skipped,
    SourceOptions,
    Unit,
    Unread,
    left_out,
)
from stackbuild.swhid import EXECUTABLE_MODE, FILE_MODE, SYMLINK_MODE, TreeBuilder, content_id, hasher

KEPT_BYTES: Final = 64 * 1024 * 1024
SUFFIXES: Final = tuple(
    sorted(
        (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.lzma", ".tar.zst", ".tzst",
         ".zip", ".whl", ".egg", ".crate"),
        key=len,
        reverse=True,
    )
)  # fmt: skip
EXPANSION: Final = 4  # source archives inflate about fourfold; a guess for planning only


class ArchiveOptions(SourceOptions):
    """`[[source]] kind = "archives"`."""

    paths: tuple[str, ...] = Field(min_length=1, description="archives, folders that are searched for them, or globs")


class ArchiveSource:
    """The source of kind "archives"; see the module."""

    kind = "archives"
    options_model = ArchiveOptions

    def units(self, options: ArchiveOptions, context: ResolveContext) -> tuple[list[Unit], list[Skipped]]:
        """One unit for each archive, sorted by key; InputError if there is none."""
        units: dict[str, Unit] = {}
        skipped: list[Skipped] = []
        found = list(find(options.paths, skipped, context.leave_out))
        for done, (path, hashed) in enumerate(looked_at(found, sha256_of), start=1):
            try:
                sha256, size = hashed()
            except OSError as error:
                skipped.append(Skipped(str(path), f"cannot be read: {error.strerror or error}"))
                continue
            if sha256 in units:
                skipped.append(Skipped(str(path), f"has the same bytes as {units[sha256].where['path']}"))
                continue
            stem = stem_of(path.name)
            units[sha256] = Unit(
                kind=self.kind,
                key={"name": stem, "sha256": sha256},
                where={"path": str(path)},
                bytes=size if path.name.endswith(".tar") else size * EXPANSION,
                repo_name=f"archive/{stem}",
            )
            context.progress("hashing archives", done, len(found))
        if not units:
            reasons = "; ".join(f"{skip.what!r}: {skip.reason}" for skip in skipped[:5]) or "no archive was found"
            raise InputError(f"no archive can be read: {reasons}. Check `paths` of the source.")
        return sorted(units.values(), key=lambda unit: (unit.key["name"], unit.key["sha256"])), skipped

    def read(self, unit: Unit, options: ArchiveOptions, limits: Limits) -> Iterator[Origin | Entry]:
        """Yield the origin and then the entries. InputError if the archive is torn or not the planned one."""
        origin = Origin(repo_name=f"archive/{unit.key['name']}", revision_id=unit.key["sha256"])
        yield from read_archive(Path(unit.where["path"]), unit.key["sha256"], origin, limits)


SOURCE = ArchiveSource()


def find(paths: tuple[str, ...], skipped: list[Skipped], leave_out: tuple[str, ...] = ()) -> Iterator[Path]:
    """Each archive once, in order of path: named, matched by a glob, or in a folder under a known suffix."""
    found: dict[str, Path] = {}
    for match, below in matched(paths, skipped, leave_out):
        for path in (match,) if below is None else below:
            if below is None or path.lower().endswith(SUFFIXES):
                if os.path.isfile(path):
                    found[os.path.realpath(path)] = Path(path)
                else:
                    skipped.append(Skipped(path, "is no regular file"))
    yield from sorted(found.values())


def matched(
    paths: tuple[str, ...], skipped: list[Skipped], leave_out: tuple[str, ...]
) -> Iterator[tuple[str, Iterator[str] | None]]:
    """(what a path or a glob stands for, None), or for a folder (it, all below it that is no folder).

    What a glob matches in a folder to leave out is not there; InputError for a path that is named and lies in one.
    """
    for pattern in paths:
        expanded = os.path.expanduser(pattern)
        named = os.path.lexists(expanded)
        matches = [expanded] if named else glob.glob(expanded, recursive=True)
        if not matches:
            skipped.append(Skipped(pattern, "there is no such file or folder"))
        for match in matches:
            try:
                closed = left_out(match, leave_out)
            except InputError:
                if named:
                    raise
                continue
            yield match, files_below(match, closed) if os.path.isdir(match) else None


def files_below(root: str, closed: frozenset[str]) -> Iterator[str]:
    """Everything below a folder that is no folder; no symlink is followed and no folder of `closed` is entered."""
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if os.path.join(folder, name) not in closed]
        yield from (os.path.join(folder, name) for name in names)


def stem_of(name: str) -> str:
    """The name of an archive without its suffix."""
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), name)


def sha256_of(path: Path) -> tuple[str, int]:
    """(hexadecimal SHA-256, size in bytes) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


# ---------------------------------------------------------------- one archive


def read_archive(path: Path, sha256: str, origin: Origin, limits: Limits) -> Iterator[Origin | Entry]:
    """Yield `origin` with its directory_id, then the entries in the archive's order.

    InputError if the file does not hash to `sha256`, or is cut or damaged; nothing has been yielded then.
    """
    try:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise InputError(f"archive {str(path)!r} is not the file that was planned; plan again")
            try:
                found = survey(members(file, limits), limits)
            except Refused as cap:
                yield origin
                yield Unread(
                    os.fsencode(path.name),
                    FILE_MODE,
                    cap.rule,
                    file.seek(0, 2),
                    cap.value,
                    cap.threshold,
                    detail=cap.detail,
                )
                return
            yield replace(origin, directory_id=found.directory_id.hex() if found.directory_id else None)
            yield from entries(found, file, limits)
    except Torn as error:
        raise InputError(f"archive {str(path)!r} cannot be used: {error}. Fetch it again, or leave it out.") from error
    except OSError as error:
        raise InputError(f"archive {str(path)!r} cannot be read: {error.strerror or error}") from error


@dataclass(slots=True)
class Found:
    """What the survey knows of one path. `source`: the number of the member that has its bytes."""

    path: bytes
    mode: int
    source: int
    id: bytes | None  # git's; of a symlink, of its text
    size: int
    rule: str | None = None
    value: float | None = None
    threshold: float | None = None
    detail: str | None = None


@dataclass
class Survey:
    """An archive's entries in order, each path once. `kept`: bytes by member number, None if they were too many."""

    found: list[Found]
    directory_id: bytes | None
    kept: dict[int, bytes] | None


@dataclass
class _Notes:
    """What accumulates during a survey."""

    limits: Limits
    by_path: dict[bytes, Found] = field(default_factory=dict)
    unsafe: dict[bytes, Found] = field(default_factory=dict)
    kept: dict[int, bytes] | None = field(default_factory=dict)
    kept_bytes: int = 0

    def keep(self, number: int, data: bytes) -> None:
        """Keep a file's bytes for as long as all of them fit."""
        if self.kept is not None:
            self.kept_bytes += len(data)
            if self.kept_bytes > KEPT_BYTES:
                self.kept = None
            else:
                self.kept[number] = data


def survey(stream: Iterator[Member], limits: Limits) -> Survey:
    """Read an archive once to its end. Raises Torn and Refused."""
    notes = _Notes(limits)
    for number, member in enumerate(stream):
        if member.kind == "folder":
            continue
        mode = EXECUTABLE_MODE if member.executable else FILE_MODE
        path, wrong = normalise(member.name, limits)
        if wrong:
            notes.unsafe[path] = Found(path, mode, number, None, member.size, wrong, detail=ascii(member.name[:200]))
        else:
            # the last of a name wins; a hard link to its own name is the one before it
            notes.by_path[path] = _examine(number, member, path, mode, notes)
    found = list(notes.by_path.values())
    top = single_top_folder(entry.path for entry in found)
    for entry in found:
        entry.path = entry.path[len(top) :]
    found = _without_conflicts(found, limits)
    return Survey(
        sorted([*found, *notes.unsafe.values()], key=lambda entry: (entry.source, entry.path)),
        directory(found),
        notes.kept,
    )


def _examine(number: int, member: Member, path: bytes, mode: int, notes: _Notes) -> Found:
    """Hash one member. Its bytes are held only up to the cap of a file."""
    limits = notes.limits
    match member.kind:
        case "file":
            if member.size <= limits.file_bytes:
                data = b"".join(member.read())
                notes.keep(number, data)
                return Found(path, mode, number, content_id(data), member.size)
            digest = hasher("blob", member.size)
            for piece in member.read():
                digest.update(piece)
            return Found(
                path,
                mode,
                number,
                digest.digest(),
                member.size,
                "too_large",
                float(member.size),
                float(limits.file_bytes),
            )
        case "symlink":
            if max(member.size, len(member.target)) > SYMLINK_BYTES:
                return Found(
                    path, SYMLINK_MODE, number, None, member.size, "too_large", float(member.size), SYMLINK_BYTES
                )
            target = member.target or b"".join(member.read())
            return Found(path, SYMLINK_MODE, number, content_id(target), len(target))
        case "hard_link":
            target, wrong = normalise(member.target, limits)
            known = None if wrong else notes.by_path.get(target)
            if known is None:
                detail = f"links to {member.target[:200]!a}, which is not before it in the archive"
                return Found(path, mode, number, None, 0, "hard_link", detail=detail)
            return replace(known, path=path)
        case kind:
            return Found(path, mode, number, None, member.size, kind)


def normalise(name: bytes, limits: Limits) -> tuple[bytes, str | None]:
    """(path without "." and empty parts, None), or (a name to count it by, the rule against it).

    A counted name cannot be that of a file that is used: it has a "." or ".." part, or ends in a hash.
    """
    if len(name) > limits.path_bytes:
        return name[: limits.path_bytes - 65].lstrip(b"/") + b"~" + hashlib.sha256(
            name
        ).hexdigest().encode(), "long_path"
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if name.startswith(b"/") or not parts or b"\0" in name:
        return b"./" + name.lstrip(b"/"), "unsafe_path"
    if b".." in parts:
        return name, "unsafe_path"
    return b"/".join(parts), None


def single_top_folder(paths: Iterator[bytes]) -> bytes:
    """The one folder, with its "/", that holds everything, else b"": what `tar --strip-components=1` is used for."""
    top: bytes | None = None
    for path in paths:
        first, slash, _ = path.partition(b"/")
        if not slash or (top is not None and first != top):
            return b""
        top = first
    return b"" if top is None else top + b"/"


def _without_conflicts(found: list[Found], limits: Limits) -> list[Found]:
    """The same entries, with a rule on those that lie too deep or stand where others have a folder."""
    folders: set[bytes] = set()
    for entry in found:
        depth = entry.path.count(b"/")
        if depth >= limits.depth:
            entry.rule, entry.value, entry.threshold, entry.id = "too_deep", float(depth + 1), float(limits.depth), None
            continue
        parent = entry.path.rpartition(b"/")[0]
        while parent and parent not in folders:
            folders.add(parent)
            parent = parent.rpartition(b"/")[0]
    for entry in found:
        if entry.path in folders:
            entry.rule, entry.id = "path_conflict", None
    return found


def directory(found: list[Found]) -> bytes | None:
    """The git tree id of the entries; None if one's bytes are not known. Devices and empty folders are in no tree."""
    tree = TreeBuilder()
    for entry in found:
        if entry.rule in ("special_file", "path_conflict"):
            continue
        if entry.id is None:
            return None
        tree.add(entry.path, entry.mode, entry.id)
    return tree.root()


def entries(found: Survey, file: BinaryIO, limits: Limits) -> Iterator[Entry]:
    """The surveyed entries, with their bytes from memory or from a second pass."""
    reread = None if found.kept is not None else enumerate(members(file, limits))
    data, number = b"", -1
    for entry in found.found:
        if entry.rule:
            yield Unread(
                entry.path, entry.mode, entry.rule, entry.size, entry.value, entry.threshold, entry.id, entry.detail
            )
        elif entry.mode == SYMLINK_MODE:
            yield Link(entry.path, entry.mode, entry.id)
        else:
            if found.kept is not None:
                data = found.kept[entry.source]
            elif number != entry.source:
                number, data = entry.source, _bytes_of(entry.source, reread)  # type: ignore[arg-type]
            if len(data) != entry.size:
                raise InputError("an archive changed while it was read")
            yield File(entry.path, entry.mode, data, entry.id)


def _bytes_of(number: int, reread: Iterator[tuple[int, Member]]) -> bytes:
    """The bytes of a member from the second pass."""
    for at, member in reread:
        if at == number:
            return b"".join(member.read())
    raise InputError("an archive changed while it was read")
