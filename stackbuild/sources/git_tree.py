"""A git tree, walked and read: an entry is a file with bytes that hash to its id, a link, or a rule that says why not.

Trees come from strangers. A tree of a few kilobytes can name more paths than can be counted, a name can be "..", a blob
of a kilobyte can claim a gigabyte: sizes come from object headers before anything is inflated, what is beyond a cap is
one Unread, and nothing below it is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from stackbuild.errors import InputError
from stackbuild.sources.git_objects import (
    CorruptObject,
    HashMismatch,
    MissingObject,
    ObjectStore,
    verified,
)
from stackbuild.sources.unit import Entry, File, Limits, Link, Unread
from stackbuild.swhid import (
    FORMAT_MASK,
    GITLINK_MODE,
    SYMLINK_MODE,
    TREE_MODE,
    MalformedTree,
    TreeBuilder,
    TreeEntry,
    blob_id,
    content_id,
    hasher,
    object_id,
    parse_tree,
)

REGULAR: Final = 0o100000
TREE_BYTES: Final = (
    32 * 1024 * 1024
)  # of all trees on one path: about half a million names; the largest known hold 10 %
FORBIDDEN_NAMES: Final = frozenset((b"", b".", b"..", b".git"))  # git never writes them; fsck refuses them
SYMLINK_BYTES: Final = 65_536
LFS_POINTER_BYTES: Final = 1024  # a pointer is shorter than this by specification
LFS_POINTER = re.compile(  # git-lfs specification: version first, extensions, oid, size
    rb"version https://(?:git-lfs\.github\.com|hawser\.github\.com)/spec/v1\n"
    rb"(?:ext-[0-9]-[^\n ]+ [^\n]+\n)*oid sha256:[0-9a-f]{64}\nsize ([0-9]{1,20})\n?"
)


def walk(store: ObjectStore, root: bytes, limits: Limits) -> Iterator[tuple[bytes, int, bytes] | Unread]:
    """All leaves of a tree as (path, mode, id) in git's order, and an Unread for each entry that is not entered.

    An Unread with a tree's mode stands for all that lies below it, its `content_id` is the tree's id: a stranger's tree
    of a few kilobytes can name more paths than there are atoms, so nothing below a cap is even counted. InputError if
    the root itself cannot be read.
    """
    leaves = trees = held = 0
    stack: list[tuple[bytes, int, Iterator[TreeEntry], set[bytes]]] = []
    pending: tuple[bytes, bytes] | None = (b"", root)
    while True:
        if pending is not None:
            prefix, target = pending
            pending = None
            found = _tree(store, target, prefix, TREE_BYTES - held)
            if isinstance(found, Unread):
                if not stack:
                    raise InputError(f"the root tree {root.hex()} cannot be read: {found.rule} ({found.detail})")
                yield found
            else:
                size, entries = found
                held += size
                stack.append((prefix, size, iter(entries), set()))
        if not stack:
            return
        prefix, size, rest, names = stack[-1]
        for name, mode, target in rest:
            path = prefix + name
            is_tree = mode & FORMAT_MASK == TREE_MODE
            known = target if len(target) == 20 else None
            if is_tree:
                trees += 1
            else:
                leaves += 1
            if leaves > limits.unit_files or trees > limits.unit_files:
                yield Unread(
                    cut(path, limits), mode, "too_many_files", None, max(leaves, trees), limits.unit_files, known
                )
            elif len(path) > limits.path_bytes:
                yield Unread(cut(path, limits), mode, "long_path", None, len(path), limits.path_bytes, known)
            elif name in FORBIDDEN_NAMES or b"/" in name:
                yield Unread(path, mode, "bad_name", content_id=known)
            elif name in names:
                yield Unread(path, mode, "duplicate_path", content_id=known)
            elif not is_tree:
                names.add(name)
                yield path, mode, target
            elif len(stack) > limits.depth:
                yield Unread(path, mode, "too_deep", None, len(stack), limits.depth, known)
            else:
                names.add(name)
                pending = (path + b"/", target)
                break
        else:
            held -= size
            stack.pop()


def cut(path: bytes, limits: Limits) -> bytes:
    """The path itself, or if it is longer than the limit its beginning with "~" and its SHA-1, within the limit."""
    if len(path) <= limits.path_bytes:
        return path
    return path[: limits.path_bytes - 41] + b"~" + blob_id(path).hex().encode()


def _tree(store: ObjectStore, target: bytes, prefix: bytes, room: int) -> tuple[int, list[TreeEntry]] | Unread:
    """Size and entries of a tree, or why it cannot be entered; `room` bytes at most."""
    path, known = prefix[:-1], target if len(target) == 20 else None
    try:
        _, size = store.header(target)
        if size > room:
            return Unread(path, TREE_MODE, "too_large", None, size, room, known, "the folder's own list")
        return size, parse_tree(verified(store, target, "tree"), len(target))
    except MissingObject:
        return Unread(path, TREE_MODE, "missing_object", content_id=known, detail="a folder")
    except HashMismatch as error:
        return Unread(path, TREE_MODE, "hash_mismatch", content_id=known, detail=str(error))
    except (CorruptObject, MalformedTree) as error:
        return Unread(path, TREE_MODE, "corrupt_object", content_id=known, detail=str(error))


def read_entries(store: ObjectStore, root: bytes, limits: Limits) -> Iterator[Entry]:
    """Every entry below a tree, with the bytes of those files that the limits allow and that hash to their id.

    `limits.unit_bytes` bounds the sum of the bytes taken, not of those skipped.
    """
    taken = 0
    for leaf in walk(store, root, limits):
        if isinstance(leaf, Unread):
            yield leaf
            continue
        path, mode, target = leaf
        shape = mode & FORMAT_MASK
        known = target if len(target) == 20 else None
        if shape == GITLINK_MODE:
            yield Link(path, mode, known)
        elif shape == SYMLINK_MODE:
            yield Link(path, mode, known or _symlink_id(store, target))
        elif shape != REGULAR:
            yield Unread(path, mode, "odd_mode", content_id=known)
        else:
            entry = _read_file(store, path, mode, target, limits, taken=taken)
            if isinstance(entry, File):
                taken += len(entry.data)
            yield entry


def _read_file(
    store: ObjectStore, path: bytes, mode: int, target: bytes, limits: Limits, *, taken: int
) -> File | Unread:
    known = target if len(target) == 20 else None
    try:
        kind, size = store.header(target)
        if kind != "blob":
            return Unread(
                path, mode, "corrupt_object", None, content_id=known, detail=f"a {kind} where a file should be"
            )
        if size > limits.file_bytes:
            return Unread(path, mode, "too_large", size, size, limits.file_bytes, known)
        if taken + size > limits.unit_bytes:
            return Unread(path, mode, "unit_too_large", size, taken + size, limits.unit_bytes, known)
        data = store.payload(target)
    except MissingObject:
        return Unread(path, mode, "missing_object", content_id=known)
    except CorruptObject as error:
        return Unread(path, mode, "corrupt_object", content_id=known, detail=str(error))
    digest = content_id(data)
    if (digest if known else object_id("blob", data, store.algorithm)) != target:
        return Unread(path, mode, "hash_mismatch", len(data), content_id=known, detail=f"hashes to {digest.hex()}")
    if is_lfs_pointer(data):
        return Unread(path, mode, "lfs_pointer", len(data), content_id=digest)
    return File(path, mode, data, digest)


def is_lfs_pointer(data: bytes) -> bool:
    """True for the small text that git-lfs commits in the place of a file."""
    return len(data) < LFS_POINTER_BYTES and data.startswith(b"version ") and LFS_POINTER.fullmatch(data) is not None


def _symlink_id(store: ObjectStore, target: bytes) -> bytes | None:
    """The SHA-1 id of a symlink's text in a SHA-256 repository; None if it cannot be read or is too long for a path."""
    try:
        return content_id(verified(store, target, "blob")) if store.header(target)[1] <= SYMLINK_BYTES else None
    except (MissingObject, CorruptObject):
        return None


def sha1_directory(store: ObjectStore, root: bytes, limits: Limits) -> bytes | None:
    """The SHA-1 id of a tree of a SHA-256 repository, every blob hashed again as it streams past.

    None where there is no such id: something is missing, beyond a cap, or a submodule (its SHA-1 commit is not known).
    Empty trees below the root, which git does not write, are lost.
    """
    builder = TreeBuilder()
    for leaf in walk(store, root, limits):
        if isinstance(leaf, Unread) or leaf[1] & FORMAT_MASK == GITLINK_MODE:
            return None
        path, mode, target = leaf
        try:
            kind, size = store.header(target)
            ours, theirs = hasher("blob", size), hasher("blob", size, store.algorithm)
            for piece in store.stream(target) if kind == "blob" else ():
                ours.update(piece)
                theirs.update(piece)
        except (MissingObject, CorruptObject):
            return None
        if theirs.digest() != target:
            return None
        builder.add(path, mode, ours.digest())
    return builder.root()


def expected_bytes(store: ObjectStore, root: bytes, limits: Limits) -> int:
    """The sum of the sizes below a tree, from object headers alone; a file beyond the limit counts as nothing."""
    total = 0
    for leaf in walk(store, root, limits):
        if not isinstance(leaf, Unread) and leaf[1] & FORMAT_MASK == REGULAR:
            try:
                size = store.header(leaf[2])[1]
            except (MissingObject, CorruptObject):
                continue
            total += size if size <= limits.file_bytes else 0
    return min(total, limits.unit_bytes)
