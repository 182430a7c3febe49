"""Git and Software Heritage identifiers: computed, parsed, printed. Nothing but hashlib.

An id is the hash of `<type> <decimal length>NUL` and the payload (SWHID specification 1.2, ISO/IEC 18670). From git,
the raw bytes are hashed as they are: a commit or tree parsed and printed again loses odd modes, zones and headers.
`content_id` is git's SHA-1 of a blob, `blob_id` the plain SHA-1 of its bytes: never mix them up. Ids are bytes here
(20, or 32 with sha256) and hexadecimal only in text.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stackbuild.errors import InputError

if TYPE_CHECKING:
    from hashlib import _Hash

TREE_MODE: Final = 0o040000
FILE_MODE: Final = 0o100644
EXECUTABLE_MODE: Final = 0o100755
SYMLINK_MODE: Final = 0o120000
GITLINK_MODE: Final = 0o160000
FORMAT_MASK: Final = 0o170000

_ALGORITHMS: Final[dict[str, Callable[..., _Hash]]] = {"sha1": hashlib.sha1, "sha256": hashlib.sha256}
TreeEntry = tuple[bytes, int, bytes]  # name, mode, id


class InvalidSwhid(InputError):
    """A text that is not a SWHID."""


class MalformedTree(ValueError):
    """Bytes that are not a git tree, or a path that cannot be in one."""


def hasher(kind: str, length: int, algorithm: str = "sha1") -> _Hash:
    """A hash that has taken the header of a `kind` object of `length` bytes and wants its payload."""
    return _ALGORITHMS[algorithm](b"%s %d\0" % (kind.encode(), length), usedforsecurity=False)


def object_id(kind: str, payload: bytes, algorithm: str = "sha1") -> bytes:
    """The id of any git object from its raw bytes; `kind` is blob, tree, commit or tag (or SWH's snapshot)."""
    digest = hasher(kind, len(payload), algorithm)
    digest.update(payload)
    return digest.digest()


def content_id(data: bytes | memoryview) -> bytes:
    """Git's SHA-1 of a file's bytes, the hash in its `swh:1:cnt:`."""
    digest = hashlib.sha1(b"blob %d\0" % len(data), usedforsecurity=False)
    digest.update(data)
    return digest.digest()


def blob_id(data: bytes | memoryview) -> bytes:
    """The plain SHA-1 of a file's bytes, the key of Software Heritage's object store."""
    return hashlib.sha1(data, usedforsecurity=False).digest()


def commit_id(raw: bytes) -> bytes:
    """The id of a commit (`swh:1:rev:`) from its raw bytes."""
    return object_id("commit", raw)


def tag_id(raw: bytes) -> bytes:
    """The id of an annotated tag (`swh:1:rel:`) from its raw bytes, the signature included."""
    return object_id("tag", raw)


def serialize_tree(entries: Iterable[TreeEntry]) -> bytes:
    """The raw bytes of a tree from its entries (name, mode, id), in any order; MalformedTree for a name it cannot hold.

    Git sorts by name with "/" appended to directories for the comparison only, and prints modes in octal without a
    leading zero.
    """
    rows: list[tuple[bytes, bytes]] = []
    names: set[bytes] = set()
    for name, mode, target in entries:
        if not name or b"/" in name or b"\0" in name or name in names:
            raise MalformedTree(f"a tree cannot hold the name {name!r}" + (" twice" if name in names else ""))
        names.add(name)
        key = name + b"/" if mode & FORMAT_MASK == TREE_MODE else name
        rows.append((key, b"%o %s\0%s" % (mode, name, target)))
    rows.sort()
    return b"".join(row for _, row in rows)


def directory_id(entries: Iterable[TreeEntry]) -> bytes:
    """The id of a tree (`swh:1:dir:`) from its entries (name, mode, id), in any order."""
    return object_id("tree", serialize_tree(entries))


def parse_tree(raw: bytes, id_bytes: int = 20) -> list[TreeEntry]:
    """The entries (name, mode, id) of a raw tree, as they stand; MalformedTree if the bytes are not one.

    Nothing is normalised: odd modes, unsorted, doubled or forbidden names come through; the caller refuses them.
    """
    entries: list[TreeEntry] = []
    at, end = 0, len(raw)
    while at < end:
        space = raw.find(b" ", at, at + 8)
        nul = raw.find(b"\0", space + 1) if space > at else -1
        stop = nul + 1 + id_bytes
        digits = raw[at:space]
        if nul < 0 or stop > end or not digits.isdigit() or not digits.isascii():
            raise MalformedTree(f"not a tree: no entry at byte {at} of {end}")
        try:
            mode = int(digits, 8)
        except ValueError:
            raise MalformedTree(f"not a tree: mode {digits!r} at byte {at}") from None
        entries.append((raw[space + 1 : nul], mode, raw[nul + 1 : stop]))
        at = stop
    return entries


def snapshot_id(branches: Mapping[bytes, tuple[str, bytes] | None]) -> bytes:
    """The id of a snapshot (`swh:1:snp:`).

    `branches`: name -> (type, target); type is content, directory, revision, release, snapshot (target: an id) or alias
    (target: a branch name). None is a dangling branch.
    """
    parts = []
    for name in sorted(branches):
        kind, target = branches[name] or ("dangling", b"")
        parts.append(b"%s %s\0%d:%s" % (kind.encode(), name, len(target), target))
    return object_id("snapshot", b"".join(parts))


_Node = dict[bytes, "bytes | dict[bytes, object]"]  # a leaf is its mode in ASCII, a space, and its id


class TreeBuilder:
    """Rebuilds the ids of a tree from the paths in it, added one by one, in any order.

    Memory: about 150 bytes and the name for each entry. Paths of one folder that follow each other cost one look-up.
    Depth is bounded by memory only: nothing recurses.
    """

    def __init__(self) -> None:
        self._root: _Node = {}
        self._parent = b""
        self._folder: _Node = self._root

    def add(self, path: bytes, mode: int, target: bytes) -> None:
        """Add an entry: a file, symlink or gitlink, or a whole subtree by its id (mode 0o40000).

        Raises MalformedTree for a path that is empty, absolute, has an empty part or a NUL, or contradicts another.
        """
        parent, slash, name = path.rpartition(b"/")
        if not name or (slash and not parent) or b"\0" in path:
            raise MalformedTree(f"a tree cannot hold the path {path!r}")
        folder = self._folder if parent == self._parent else self._open(parent)
        leaf = b"%o %s" % (mode, target)
        if folder.setdefault(name, leaf) != leaf:
            raise MalformedTree(f"two entries at the path {path!r}")

    def _open(self, parent: bytes) -> _Node:
        folder = self._root
        for part in parent.split(b"/") if parent else ():
            if not part:
                raise MalformedTree(f"a tree cannot hold the path {parent!r}/...")
            below = folder.setdefault(part, {})
            if isinstance(below, bytes):
                raise MalformedTree(f"{part!r} is both a file and a folder in {parent!r}")
            folder = below  # type: ignore[assignment]
        self._parent, self._folder = parent, folder
        return folder

    def add_folder(self, path: bytes) -> None:
        """Add a folder even if nothing comes to lie in it (git has no empty folders; a SWHID of a disk does)."""
        if path.startswith(b"/") or path.endswith(b"/") or b"\0" in path:
            raise MalformedTree(f"a tree cannot hold the path {path!r}")
        self._open(path)

    def root(self) -> bytes:
        """The id of the whole tree so far."""
        return object_id("tree", self._hash_upwards(None)[1])

    def tree_ids(self) -> dict[bytes, bytes]:
        """Folder path -> its tree id, with b"" for the root: what a path in a tree is checked against."""
        ids: dict[bytes, bytes] = {}
        self._hash_upwards(lambda path, tree, _: ids.__setitem__(path, tree))
        return ids

    def proof(self, path: bytes) -> list[bytes]:
        """The raw trees from the root to the folder of `path`: with them `lies_in` needs nothing else to believe it."""
        wanted = {path[:at] for at in range(len(path)) if path[at : at + 1] == b"/"} | {b""}
        found: dict[bytes, bytes] = {}
        self._hash_upwards(lambda at, _, raw: found.__setitem__(at, raw) if at in wanted else None)
        if len(found) != len(wanted):
            raise MalformedTree(f"no folder of the tree holds the path {path!r}")
        return [found[at] for at in sorted(found, key=len)]

    def _hash_upwards(self, visit: Callable[[bytes, bytes, bytes], None] | None) -> tuple[bytes, bytes]:
        """Serialise every folder below before above; (path if visited, raw bytes of the root tree)."""
        Frame = tuple[bytes, bytes, Iterator[tuple[bytes, object]], list[TreeEntry]]
        stack: list[Frame] = [(b"", b"", iter(self._root.items()), [])]
        while True:
            path, own, items, entries = stack[-1]
            for name, value in items:
                if isinstance(value, bytes):
                    mode, _, target = value.partition(b" ")
                    entries.append((name, int(mode, 8), target))
                    continue
                below = (path + b"/" + name if path else name) if visit else b""
                stack.append((below, name, iter(value.items()), []))  # type: ignore[attr-defined]
                break
            else:
                raw = serialize_tree(entries)
                if visit:
                    visit(path, object_id("tree", raw), raw)
                stack.pop()
                if not stack:
                    return path, raw
                stack[-1][3].append((own, TREE_MODE, object_id("tree", raw)))


def tree_ids(entries: Iterable[tuple[bytes, int, bytes]]) -> dict[bytes, bytes]:
    """Folder path -> tree id (b"" for the root) from all entries (path, mode, id), gitlinks and symlinks included."""
    builder = TreeBuilder()
    for path, mode, target in entries:
        builder.add(path, mode, target)
    return builder.tree_ids()


def lies_in(root: bytes, path: bytes, mode: int, target: bytes, proof: Iterable[bytes]) -> bool:
    """True if `proof` (raw trees from the root downwards) shows that (path, mode, target) lies in the tree `root`."""
    parts, trees, wanted = path.split(b"/"), list(proof), (TREE_MODE, root)
    if len(trees) != len(parts):
        return False
    for part, raw in zip(parts, trees, strict=True):
        if wanted[0] & FORMAT_MASK != TREE_MODE or object_id("tree", raw) != wanted[1]:
            return False
        try:
            found = [(m, t) for name, m, t in parse_tree(raw) if name == part]
        except MalformedTree:
            return False
        if len(found) != 1:
            return False
        wanted = found[0]
    return wanted == (mode, target)


TYPES: Final = ("cnt", "dir", "rev", "rel", "snp")
QUALIFIERS: Final = ("origin", "visit", "anchor", "path", "lines", "bytes")  # in canonical order
_CORE = re.compile(r"swh:1:(cnt|dir|rev|rel|snp):([0-9a-f]{40})", re.ASCII)
_RANGE = re.compile(r"(0|[1-9][0-9]{0,18})(?:-(0|[1-9][0-9]{0,18}))?", re.ASCII)
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})|%")


@dataclass(frozen=True)
class Swhid:
    """A SWHID, version 1. Qualifiers are checked when it is made and print in canonical order; values are not escaped.

    `path` is bytes (file names have no encoding), `lines` and `bytes` are (first, last) with both ends included.
    """

    type: str
    digest: bytes
    origin: str | None = None
    visit: Swhid | None = None
    anchor: Swhid | None = None
    path: bytes | None = None
    lines: tuple[int, int] | None = None
    bytes: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.type not in TYPES or len(self.digest) != 20:
            raise InvalidSwhid(f"a SWHID has one of the types {', '.join(TYPES)} and a hash of 20 bytes")
        if self.origin is not None and not _is_uri(self.origin):
            raise InvalidSwhid(f"the origin of a SWHID is a URL, not {self.origin!r}")
        cores = (("visit", self.visit, ("snp",)), ("anchor", self.anchor, ("dir", "rev", "rel", "snp")))
        for name, core, types in cores:
            if core is not None and (core.type not in types or core != Swhid(core.type, core.digest)):
                raise InvalidSwhid(f"the {name} of a SWHID is a bare SWHID of type {' or '.join(types)}, not {core}")
        if self.visit is not None and self.origin is None:
            raise InvalidSwhid("a SWHID with a visit needs an origin")
        if self.path is not None and (self.type not in ("cnt", "dir") or self.path[:1] != b"/" or b"\0" in self.path):
            raise InvalidSwhid("only a cnt or dir SWHID has a path, and it begins with /")
        if self.anchor is not None and self.path is None:
            raise InvalidSwhid("a SWHID with an anchor needs a path")
        for name, span, first in (("lines", self.lines, 1), ("bytes", self.bytes, 0)):
            if span is not None and (self.type != "cnt" or not first <= span[0] <= span[1]):
                raise InvalidSwhid(f"only a cnt SWHID has {name}, from {first}, first before last")
        if self.lines is not None and self.bytes is not None:
            raise InvalidSwhid("a SWHID has lines or bytes, not both")

    @property
    def core(self) -> str:
        """The SWHID without qualifiers."""
        return f"swh:1:{self.type}:{self.digest.hex()}"

    def __str__(self) -> str:
        text = self.core
        for name in QUALIFIERS:
            if (value := getattr(self, name)) is None:
                continue
            if name in ("lines", "bytes"):
                value = f"{value[0]}" if value[0] == value[1] else f"{value[0]}-{value[1]}"
            elif name in ("origin", "path"):
                value = escape(value.encode() if name == "origin" else value)
            text += f";{name}={value}"
        return text


def parse_leniently(text: str) -> tuple[Swhid, tuple[str, ...]]:
    """Read a SWHID: all of it that is valid, and in words each qualifier that was ignored; InvalidSwhid for a bad core.

    The specification's rules: each at most once, `bytes` wins over `lines`, `visit` needs `origin`, `anchor` `path`.
    """
    core, *rest = text.split(";")
    match = _CORE.fullmatch(core)
    if not match:
        expected = f"swh:1:<{'|'.join(TYPES)}>:<40 lower-case hexadecimal digits>"
        raise InvalidSwhid(f"{core[:80]!r} is not a SWHID: expected {expected}")
    ignored: list[str] = []
    values: dict[str, object] = {}
    for part in rest:
        name, equals, raw = part.partition("=")
        if name not in QUALIFIERS or not equals:
            ignored.append(f"unknown qualifier {part[:80]!r}")
        elif name in values:
            ignored.append(f"second {name}")
        elif (value := _qualifier(name, raw)) is None or not _can_be(name, value):
            ignored.append(f"invalid {name} {raw[:80]!r}")
        else:
            values[name] = value
    if "bytes" in values and values.pop("lines", None) is not None:
        ignored.append("lines beside bytes")
    digest = bytes.fromhex(match[2])
    accepted: dict[str, object] = {}
    for name in ("origin", "path", "visit", "anchor", "lines", "bytes"):  # what is needed comes before what needs it
        if name in values:
            try:
                Swhid(match[1], digest, **{**accepted, name: values[name]})  # type: ignore[arg-type]
                accepted[name] = values[name]
            except InvalidSwhid as error:
                ignored.append(f"{name}: {error}")
    return Swhid(match[1], digest, **accepted), tuple(ignored)  # type: ignore[arg-type]


def parse(text: str) -> Swhid:
    """The SWHID in a text; InvalidSwhid if there is none. Invalid qualifiers are ignored (see `parse_leniently`)."""
    return parse_leniently(text)[0]


def escape(raw: bytes) -> str:
    """Percent-encode for a qualifier: "%", ";", what is not UTF-8, and every space, control and format character.

    The specification demands the first two; the rest keeps the text on one line and readable as it is.
    """
    out = []
    for char in raw.decode("utf-8", "surrogateescape"):
        if char in "%;" or unicodedata.category(char)[0] in "CZ":
            out.append("".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape")))
        else:
            out.append(char)
    return "".join(out)


def unescape(text: str) -> bytes | None:
    """The bytes that a percent-encoded qualifier stands for; None if a "%" is not followed by two such digits."""
    raw = text.encode("utf-8", "surrogatepass")
    if any(match[1] is None for match in _ESCAPE.finditer(raw)):
        return None
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), raw)


def _is_uri(text: str) -> bool:
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*:.", text)) and not re.search(r"[\s\x00-\x20\x7f]", text)


def _can_be(name: str, value: object) -> bool:
    """Whether a qualifier may have a value on a SWHID that lacks nothing for it; if not, another of its name still may."""
    needs: dict[str, object] = {"origin": "x:y"} if name == "visit" else {"path": b"/"} if name == "anchor" else {}
    try:
        return bool(Swhid("cnt", bytes(20), **{**needs, name: value}))  # type: ignore[arg-type]
    except InvalidSwhid:
        return False


def _qualifier(name: str, raw: str) -> object:
    """The value that one qualifier is written as, None if there is none."""
    if name in ("lines", "bytes"):
        span = _RANGE.fullmatch(raw)
        return (int(span[1]), int(span[2] or span[1])) if span else None
    if name in ("visit", "anchor"):
        core = _CORE.fullmatch(raw)
        return Swhid(core[1], bytes.fromhex(core[2])) if core else None
    data = unescape(raw)
    if name == "path" or data is None:
        return data
    text = data.decode("utf-8", "replace")
    return text if text.encode() == data else None
