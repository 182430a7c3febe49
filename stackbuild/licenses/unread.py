"""Files that are named as a licence and whose bytes the build does not have: too large, unreadable, a submodule, a link.

Each says that a licence stands there, and not which: evidence without an expression, which hides what stands further up.
A symbolic link to a licence file of the same revision that was read counts as a copy of it. Nothing is opened for that:
git's id of the link's text is compared with the ids of the texts that would lead from its folder to each of those files, so
that no link can lead out of the repository and no chain of links is walked. A link to a folder of licence files says no more
than a folder does, which is nothing.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.licenses.policy import Policy
from stackbuild.licenses.reading import formats_of, kind_of
from stackbuild.schema import ID, TREE
from stackbuild.swhid import FORMAT_MASK, SYMLINK_MODE, TREE_MODE, content_id
from stackbuild.tables import conform, display_paths

MAX_TEXTS = 500_000  # that are tried for the links of one revision; where there would be more, none of them is followed
# A file that is read for a licence; `content_id` is null where its bytes are not there.
SPEAKING = pa.schema(
    [
        pa.field("repo_name", pa.string()),
        pa.field("revision_id", pa.string()),
        pa.field("path", pa.string()),
        pa.field("path_bytes", pa.binary()),
        pa.field("content_id", ID),
        pa.field("format", pa.string()),
    ]
)
Owner = tuple[str, str]


def unread(tree: Iterable[pa.RecordBatch], read: pa.Table, policy: Policy) -> pa.Table:
    """The licences (SPEAKING) among links and files that were not read (`tree`: TREE), given those that were (SPEAKING)."""
    entries: dict[Owner, list[tuple[bytes, str, int, bytes | None]]] = {}
    for batch in tree:
        rows = _licenses(conform(batch, TREE), policy)
        for row in rows.to_pylist():
            owner = row["repo_name"], row["revision_id"]
            entries.setdefault(owner, []).append((row["path_bytes"], row["path"], row["mode"], row["target"]))
    if not entries:
        return SPEAKING.empty_table()
    names = pa.array(sorted({repo for repo, _ in entries}), pa.string())
    files: dict[Owner, list[tuple[bytes, bytes, str]]] = {}
    for row in read.filter(pc.is_in(read["repo_name"], value_set=names)).to_pylist():
        owner = row["repo_name"], row["revision_id"]
        if owner in entries:
            files.setdefault(owner, []).append((row["path_bytes"], row["content_id"], row["format"]))
    found = []
    for owner, own in sorted(entries.items()):
        here = files.get(owner, [])
        there = {path for path, _, _ in here}  # another source had its bytes
        links = {(path, target) for path, _, mode, target in own if mode & FORMAT_MASK == SYMLINK_MODE and target}
        leads_to = _followed(links, here)
        for path, shown, _, target in sorted(set(own), key=lambda one: (one[0], one[2], one[3] or b"")):
            content = leads_to.get((path, target or b""))
            if path not in there and content != FOLDER:
                found.append((*owner, shown, path, content, "license"))
    columns = zip(*found, strict=True) if found else [[] for _ in SPEAKING]
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, SPEAKING, strict=True)], SPEAKING)


def _licenses(tree: pa.RecordBatch, policy: Policy) -> pa.RecordBatch:
    """The entries that are named as a licence and are no folders, with `path`."""
    paths, _ = display_paths(tree.column("path_bytes"))
    named = pc.fill_null(pc.equal(formats_of(paths, policy), "license"), False)
    folder = (np.asarray(tree.column("mode")) & FORMAT_MASK) == TREE_MODE
    return tree.append_column("path", paths).filter(pc.and_(named, pa.array(~folder)))


FOLDER = b""  # what a link to a folder leads to
Link = tuple[bytes, bytes]  # its path, and git's id of its text


def _followed(links: set[Link], files: list[tuple[bytes, bytes, str]]) -> dict[Link, bytes]:
    """For each link that leads to one of the licence files among these (path, content, format) that content; for one that
    leads to the folder of such a file FOLDER.
    """
    texts = [
        (path, content)
        for path, content, format_ in files
        if kind_of(format_) == "license_file" or format_.startswith("LICENSES:")
    ]
    places = sorted({posixpath.dirname(path) for path, _ in texts} - {b""})
    from_folders: dict[bytes, list[Link]] = {}
    for link in sorted(links):
        from_folders.setdefault(posixpath.dirname(link[0]), []).append(link)
    if len(from_folders) * (len(texts) + len(places)) > MAX_TEXTS:
        return {}
    found: dict[Link, bytes] = {}
    for folder, own in from_folders.items():
        wanted = {target for _, target in own}
        leads_to: dict[bytes, bytes] = {}
        for text, content in _ways(folder, texts, places):
            target = content_id(text)
            if target in wanted:
                leads_to[target] = content
        found |= {link: leads_to[link[1]] for link in own if link[1] in leads_to}
    return found


def _ways(folder: bytes, files: list[tuple[bytes, bytes]], places: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The texts of links in `folder` that lead to files and folders, as people write them, and to what."""
    for path, content in files:
        way = posixpath.relpath(b"/" + path, b"/" + folder)
        yield way, content
        yield b"./" + way, content
    for place in places:
        way = posixpath.relpath(b"/" + place, b"/" + folder)
        yield way, FOLDER
        yield way + b"/", FOLDER


def speaking(batch: pa.RecordBatch, policy: Policy) -> pa.RecordBatch:
    """The rows (SPEAKING) of a batch of occurrences that are read for a licence."""
    formats = formats_of(batch.column("path"), policy)
    named = pc.is_valid(formats)
    rows = batch.filter(named)
    columns = [*(rows.column(name) for name in SPEAKING.names[:-1]), formats.filter(named)]
    return pa.RecordBatch.from_arrays(columns, names=SPEAKING.names).cast(SPEAKING)
