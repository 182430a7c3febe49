"""What proves that released files lie in the root directories that their rows name.

A git tree hashes all that lies in it. So beside the released rows of a revision stands what else lies in the folders on the
way to them: links, submodules, files that left, and each folder that holds no released file as one entry, its tree id. With
these the root id can be made again by anyone. A revision whose tree was not read whole, or whose entries would name what
somebody asked to be left out, has one entry without a path and a target instead: it cannot be proven.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.schema import MANIFEST_TREE
from stackbuild.swhid import TREE_MODE, MalformedTree, TreeBuilder

REVISION = ("repo_name", "revision_id")
ENTRIES = pa.schema([*MANIFEST_TREE, pa.field("directory_id", pa.string())])  # directory_id: of files; a link has none

Entry = tuple[bytes, int, bytes | None]  # path, mode, git id where it is known
UNPROVEN: Entry = (b"", TREE_MODE, None)


def proofs(entries: pa.Table, released: pa.Table, hidden: pa.Array) -> Iterator[pa.Table]:
    """Rows of MANIFEST_TREE, a table for each revision that has a released file and names its root, in order.

    `entries`: of ENTRIES, all that is known of these revisions, in any order. `released`: REVISION and `path_bytes` of the
    released files. `hidden`: bool (entries,), what may not be named.

    A hash needs each entry in Python, which is why only revisions with a released file are gone through.
    """
    by_path = [(name, "ascending") for name in (*REVISION, "path_bytes")]
    entries = entries.append_column("hidden", hidden).sort_by(by_path).combine_chunks()
    released = released.sort_by(by_path).combine_chunks()
    kept = dict(revisions(released))
    for key, part in revisions(entries):
        if key not in kept:
            continue
        roots = pc.unique(part["directory_id"].drop_null()).to_pylist()
        if not roots:
            continue  # the revision names no root, so there is nothing to prove
        found: Sequence[Entry] = [UNPROVEN]
        if len(roots) == 1 and not pc.any(part["hidden"]).as_py():
            whole = list(zip(*(part[name].to_pylist() for name in ("path_bytes", "mode", "target")), strict=True))
            found = siblings(whole, set(kept[key]["path_bytes"].to_pylist()), roots[0])
        yield table_of(key, found)


def siblings(entries: Sequence[Entry], released: set[bytes], root: str) -> Sequence[Entry]:
    """What stands beside the released files on the way to the root, by path; UNPROVEN if it does not make this root."""
    builder = TreeBuilder()
    try:
        for path, mode, target in entries:
            if target is None:
                return [UNPROVEN]
            builder.add(path, mode, target)
        folders = builder.tree_ids()
    except MalformedTree:
        return [UNPROVEN]
    if folders[b""].hex() != root:
        return [UNPROVEN]  # empty folders that a disk has, rows that are a part of a repository
    way = {b""}
    for path in released:
        while (path := path.rpartition(b"/")[0]) not in way:
            way.add(path)
    found: dict[bytes, Entry] = {}
    for path, mode, target in entries:
        if path in released:
            continue
        closed, folder = path, path.rpartition(b"/")[0]
        while folder not in way:
            closed, folder = folder, folder.rpartition(b"/")[0]
        found[closed] = (path, mode, target) if closed == path else (closed, TREE_MODE, folders[closed])
    return [found[path] for path in sorted(found)]


def table_of(key: tuple[str, str], entries: Sequence[Entry]) -> pa.Table:
    """Rows of MANIFEST_TREE for the entries of one revision."""
    paths, modes, targets = zip(*entries, strict=True) if entries else ((), (), ())
    names = [pa.repeat(pa.scalar(value, pa.string()), len(entries)) for value in key]
    return pa.table([*names, list(paths), list(modes), list(targets)], schema=MANIFEST_TREE)


def revisions(table: pa.Table) -> Iterator[tuple[tuple[str, str], pa.Table]]:
    """Runs of equal (repo_name, revision_id) of a table of one chunk that is sorted by them."""
    if not table.num_rows:
        return
    new = np.ones(table.num_rows, bool)
    if table.num_rows > 1:
        same = [pc.equal(table[name].slice(1), table[name].slice(0, table.num_rows - 1)) for name in REVISION]
        new[1:] = ~np.asarray(pc.and_(*same))
    for start, stop in pairwise([*np.flatnonzero(new).tolist(), table.num_rows]):
        yield (table["repo_name"][start].as_py(), table["revision_id"][start].as_py()), table.slice(start, stop - start)
