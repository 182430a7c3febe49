"""Identifiers of files and folders: MB of real files hashed per CPU-second, against git.

    python -m benchmarks.swhid [FOLDER ...] [--rounds N] [--json]

FOLDER: what is hashed; else the interpreter's library with its installed packages. All ways read every file from a warm cache, and
have to agree: on the hash of all ids, and on the folder's own id. `git hash-object` is given all paths at once, as is `git add`, which
writes to a store of its own without compression.

  git SHA-1            `stackbuild.swhid.content_id`, the `swh:1:cnt:` of each file; peer: git hash-object --stdin-paths
  both                 `blob_id` as well, as ingestion does; git cannot, so that the peer does less
  a folder             `TreeBuilder`, the `swh:1:dir:` of the whole; peer: git add and git write-tree
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.git_ingest import environment
from benchmarks.measure import Comparison, options
from stackbuild.swhid import EXECUTABLE_MODE, FILE_MODE, SYMLINK_MODE, TreeBuilder, blob_id, content_id

Work = Callable[[], dict[str, Any]]
THEIRS = "benchmarks.swhid:"
GOALS = {"git SHA-1": 4.0, "both": 2.0, "a folder": 4.0}


def files(folder: str) -> Iterator[tuple[bytes, os.DirEntry[bytes]]]:
    """(path below the folder, entry) of everything in it that is no folder; git's own folder apart."""
    waiting = [b""]
    while waiting:
        below = waiting.pop()
        with os.scandir(os.path.join(os.fsencode(folder), below)) as entries:
            for entry in entries:
                path = os.path.join(below, entry.name)
                if not entry.is_dir(follow_symlinks=False):
                    yield path, entry
                elif entry.name != b".git":
                    waiting.append(path)


class Reader:
    """Reads whole files into one buffer, which grows to the largest: no memory is asked for, zeroed and given back for each."""

    def __init__(self) -> None:
        self.buffer = bytearray(1 << 20)

    def read(self, path: bytes) -> memoryview:
        """The bytes of a file, until the next one is read."""
        handle = os.open(path, os.O_RDONLY)
        try:
            size = os.readv(handle, [self.buffer])
            while size == len(self.buffer):
                self.buffer = self.buffer + bytearray(len(self.buffer))
                size += os.readv(handle, [memoryview(self.buffer)[size:]])
        finally:
            os.close(handle)
        return memoryview(self.buffer)[:size]


def regular(folder: str) -> list[bytes]:
    """The paths of all files of a folder that are no links, by their path; those that git can be given on lines."""
    found = sorted((path, entry.path) for path, entry in files(folder) if not entry.is_symlink())
    return [path for _, path in found if b"\n" not in path]


def ours(folder: str, both: bool) -> Work:
    paths, reader = regular(folder), Reader()

    def work() -> dict[str, Any]:
        size, ids = 0, []
        for path in paths:
            data = reader.read(path)
            size += len(data)
            ids.append(content_id(data))
            if both:
                blob_id(data)
        return {"bytes": size, "files": len(ids), "agree": told(ids)}

    return work


def in_memory(folder: str, both: bool) -> Work:
    """The hashing alone."""
    every = [Path(os.fsdecode(path)).read_bytes() for path in regular(folder)]

    def work() -> dict[str, Any]:
        ids = [content_id(data) for data in every]
        if both:
            for data in every:
                blob_id(data)
        return {"agree": told(ids)}

    return work


def told(ids: Sequence[bytes]) -> str:
    return hashlib.sha1(b"".join(ids), usedforsecurity=False).hexdigest()[:12]


def git_hash_object(folder: str) -> Work:
    paths = b"".join(path + b"\n" for path in regular(folder))

    def work() -> dict[str, Any]:
        words = ["git", "hash-object", "--no-filters", "--stdin-paths"]
        lines = subprocess.run(words, input=paths, env=environment(), check=True, capture_output=True).stdout.split()
        return {"agree": told([bytes.fromhex(line.decode()) for line in lines])}

    return work


def our_folder(folder: str) -> Work:
    def work() -> dict[str, Any]:
        tree, reader = TreeBuilder(), Reader()
        for path, entry in files(folder):
            if entry.is_symlink():
                tree.add(path, SYMLINK_MODE, content_id(os.readlink(entry.path)))
                continue
            executable = entry.stat().st_mode & 0o100
            tree.add(path, EXECUTABLE_MODE if executable else FILE_MODE, content_id(reader.read(entry.path)))
        return {"agree": tree.root().hex()[:12]}

    return work


def git_add(folder: str) -> Work:
    def work() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as store:
            asked = environment() | {"GIT_DIR": f"{store}/.git", "GIT_WORK_TREE": folder}
            settings = [
                "-c",
                "core.compression=0",
                "-c",
                "core.autocrlf=false",
                "-c",
                "core.fsync=none",
                "-c",
                "core.excludesFile=",
            ]

            def git(*words: str) -> str:
                command = ["git", *settings, *words]
                return subprocess.run(command, env=asked, check=True, capture_output=True, cwd=folder).stdout.decode()

            git("init", "-q")
            Path(store, ".git", "info", "attributes").write_text("* -text -filter -ident -working-tree-encoding\n")
            git("add", "-A", "-f", ".")
            return {"agree": git("write-tree").strip()[:12]}

    return work


def main() -> None:
    """Measure the three in turn."""
    parser = options(__doc__ or "")
    parser.add_argument("folder", nargs="*", default=[sysconfig.get_path("stdlib")])
    arguments = parser.parse_args()
    for folder in map(os.path.abspath, arguments.folder):
        seen = ours(folder, False)()
        for name, ways in comparisons(folder).items():
            bench = Comparison(
                f"swhid, {name}", "MB per CPU-second", GOALS[name], seen["bytes"] / 1e6,
                {"files": seen["files"], "bytes": seen["bytes"]}, (), shown=("agree",), parts=("hashing alone",),
            )  # fmt: skip
            bench.take_turns(ways, arguments.rounds)
            bench.show(arguments.json)


def comparisons(folder: str) -> dict[str, dict[str, tuple[str, dict[str, Any]]]]:
    given = {"folder": folder}
    found = {
        name: {
            "ours": (f"{THEIRS}ours", given | {"both": both}),
            peer: (f"{THEIRS}git_hash_object", given),
            "hashing alone": (f"{THEIRS}in_memory", given | {"both": both}),
        }
        for name, both, peer in (
            ("git SHA-1", False, "git hash-object"),
            ("both", True, "git hash-object, git SHA-1 alone"),
        )
    }
    tree = {"ours": (f"{THEIRS}our_folder", given), "git add, git write-tree": (f"{THEIRS}git_add", given)}
    return {**found, "a folder": tree}


if __name__ == "__main__":
    main()
