"""Objects of a small Software Heritage, each with its true id, and the origins that lead to them.

`World` hashes git objects itself (no git needed); `mini_world()` fills one with the cases that an export can bring, and says
what has to come out: the chosen root of each origin, and its files. Everything is deterministic.
"""

from __future__ import annotations

import subprocess
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackbuild.swhid import (
    EXECUTABLE_MODE,
    FILE_MODE,
    GITLINK_MODE,
    SYMLINK_MODE,
    TREE_MODE,
    blob_id,
    commit_id,
    content_id,
    object_id,
    parse_tree,
    serialize_tree,
    snapshot_id,
    tag_id,
)

EPOCH = 1_600_000_000  # seconds; every date is some days from it
DAY = 86_400
PERSON = b"A. Uthor <author@example.org>"
Target = tuple[str, bytes]  # as in a snapshot: ("revision", id), ("alias", name of a branch)


@dataclass(frozen=True)
class Commit:
    """A commit with what the export tells of it; `raw` is empty for what never was in git (a package's release)."""

    raw: bytes
    tree: bytes
    parents: tuple[bytes, ...]
    date: int
    committer_date: int


@dataclass(frozen=True)
class Tag:
    """An annotated tag, or the release of a package."""

    name: bytes
    target: bytes
    target_type: str
    date: int | None


@dataclass(frozen=True)
class Visit:
    """One status of one visit. `date`: microseconds since 1970. `type` is None in old rows."""

    url: str
    visit: int
    date: int
    status: str
    snapshot: bytes | None
    type: str | None


@dataclass(frozen=True)
class Root:
    """What has to be chosen for an origin: `url` is that of the visit which wins among spellings of one origin.

    `directory` is None where nothing can be expanded, and `reason` says why: "no full visit", "no branch", "target" (of a kind
    that has no files), "missing" (an object that the export lacks).
    """

    url: str
    visit: int | None = None
    snapshot: bytes | None = None
    branch: bytes | None = None
    revision: bytes | None = None  # the release for packages
    directory: bytes | None = None
    reason: str | None = None


@dataclass
class World:
    """Objects by id. `absent`: ids that are left out of the export's tables although others point to them.

    `skipped`: content ids that stand in `skipped_content` instead of `content`, with the reason. `states`: by blob id, what the
    object folder does to a content (states of the fetcher); all others are "ok". `roots`: what has to be chosen.
    """

    contents: dict[bytes, bytes] = field(default_factory=dict)
    trees: dict[bytes, bytes] = field(default_factory=dict)
    commits: dict[bytes, Commit] = field(default_factory=dict)
    tags: dict[bytes, Tag] = field(default_factory=dict)
    snapshots: dict[bytes, dict[bytes, Target | None]] = field(default_factory=dict)
    visits: list[Visit] = field(default_factory=list)
    roots: list[Root] = field(default_factory=list)
    raw_manifests: dict[bytes, bytes] = field(default_factory=dict)
    absent: set[bytes] = field(default_factory=set)
    skipped: dict[bytes, str] = field(default_factory=dict)
    hidden: set[bytes] = field(default_factory=set)
    states: dict[bytes, str] = field(default_factory=dict)

    # ---- objects

    def blob(self, data: bytes) -> bytes:
        identity = content_id(data)
        self.contents[identity] = data
        return identity

    def tree(self, entries: Mapping[bytes, bytes | tuple[int, bytes]]) -> bytes:
        """The id of a folder. `entries`: path -> bytes of a regular file, or (mode, bytes of the file, or an id for a
        gitlink or subtree).
        """
        direct: list[tuple[bytes, int, bytes]] = []
        below: dict[bytes, dict[bytes, bytes | tuple[int, bytes]]] = {}
        for path, value in entries.items():
            name, slash, rest = path.partition(b"/")
            if slash:
                below.setdefault(name, {})[rest] = value
                continue
            mode, data = value if isinstance(value, tuple) else (FILE_MODE, value)
            direct.append((name, mode, data if mode in (TREE_MODE, GITLINK_MODE) else self.blob(data)))
        for name, inner in below.items():
            direct.append((name, TREE_MODE, self.tree(inner)))
        raw = serialize_tree(direct)
        identity = object_id("tree", raw)
        self.trees[identity] = raw
        return identity

    def odd_tree(self, raw: bytes) -> bytes:
        """A tree whose bytes are not what git would print; its entries alone do not give its id."""
        identity = object_id("tree", raw)
        self.trees[identity] = raw
        self.raw_manifests[identity] = b"tree %d\0" % len(raw) + raw
        return identity

    def commit(self, tree: bytes, *parents: bytes, date: int = EPOCH, message: bytes = b"A change\n") -> bytes:
        lines = [b"tree " + tree.hex().encode(), *(b"parent " + parent.hex().encode() for parent in parents)]
        lines += [b"author %s %d +0000" % (PERSON, date), b"committer %s %d +0000" % (PERSON, date + 60), b"", message]
        raw = b"\n".join(lines)
        identity = commit_id(raw)
        self.commits[identity] = Commit(raw, tree, parents, date, date + 60)
        return identity

    def tag(self, name: bytes, target: bytes, target_type: str, signature: bytes = b"") -> bytes:
        kind = {"revision": b"commit", "directory": b"tree", "release": b"tag", "content": b"blob"}[target_type]
        raw = b"object %s\ntype %s\ntag %s\ntagger %s %d +0000\n\n%s\n%s" % (
            target.hex().encode(), kind, name, PERSON, EPOCH, name, signature,
        )  # fmt: skip
        identity = tag_id(raw)
        self.tags[identity] = Tag(name, target, target_type, EPOCH)
        return identity

    def snapshot(self, branches: Mapping[bytes, Target | None]) -> bytes:
        identity = snapshot_id(branches)
        self.snapshots[identity] = dict(branches)
        return identity

    # ---- origins

    def visited(
        self, url: str, visit: int, day: float, *statuses: tuple[str, bytes | None], kind: str | None = "git"
    ) -> None:
        """Statuses of one visit, an hour apart."""
        for hour, (status, snapshot) in enumerate(statuses):
            date = int((EPOCH + day * DAY) * 1_000_000) + hour * 3_600_000_000 + 123_456
            self.visits.append(Visit(url, visit, date, status, snapshot, kind))

    def origin(
        self, url: str, branches: Mapping[bytes, Target | None], branch: bytes, day: float = 0, kind: str | None = "git"
    ) -> Root:
        """An origin with one full visit, of which `branch` has to be chosen; its root follows from the objects."""
        snapshot = self.snapshot(branches)
        self.visited(url, 1, day, ("created", None), ("full", snapshot), kind=kind)
        return self.expect(url, 1, snapshot, branch)

    def expect(self, url: str, visit: int, snapshot: bytes, branch: bytes) -> Root:
        """Note that this branch of this visit has to be chosen."""
        name = branch
        while (target := self.snapshots[snapshot][name]) is not None and target[0] == "alias":
            name = target[1]
        assert target is not None
        kind, identity = target
        first = identity
        while kind == "release" and identity in self.tags and identity not in self.absent:
            kind, identity = self.tags[identity].target_type, self.tags[identity].target
        directory, reason = None, None
        if kind == "revision" and identity in self.commits and identity not in self.absent:
            directory, first = self.commits[identity].tree, identity
        elif kind == "directory":
            directory = identity
        else:
            reason = "target" if kind in ("content", "snapshot") else "missing"
        root = Root(url, visit, snapshot, name, first, directory, reason)
        self.roots.append(root)
        return root

    # ---- what has to come out

    def walk(self, directory: bytes, path: bytes = b"") -> Iterable[tuple[bytes, int, bytes]]:
        """All entries below a directory but directories, as `git ls-tree -r` has them; absent directories are empty."""
        if directory in self.absent or directory not in self.trees:
            return
        for name, mode, target in parse_tree(self.trees[directory]):
            if mode & 0o170000 == TREE_MODE:
                yield from self.walk(target, path + name + b"/")
            else:
                yield path + name, mode, target

    # ---- to and from git

    def write_git(self, folder: Path) -> Path:
        """All objects in a bare git repository: `git ls-tree -r` of a revision there is an oracle."""
        subprocess.run(["git", "init", "-q", "--bare", str(folder)], check=True)
        objects = [("blob", i, data) for i, data in self.contents.items()]
        objects += [("tree", i, raw) for i, raw in self.trees.items()]
        objects += [("commit", i, commit.raw) for i, commit in self.commits.items()]
        for kind, identity, raw in objects:
            name = identity.hex()
            path = folder / "objects" / name[:2] / name[2:]
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(zlib.compress(b"%s %d\0" % (kind.encode(), len(raw)) + raw, 1))
        return folder

    def add_git(self, path: Path, url: str, revisions: int = 1) -> Root:
        """Add a real repository: its newest `revisions` commits with all of their trees and contents, and a full visit."""
        import pygit2

        pygit2.settings.owner_validation = False
        repository: Any = pygit2.Repository(str(path))
        head = repository.head
        name = repository.lookup_reference("HEAD").target.encode() if not repository.head_is_detached else b""
        for number, commit in enumerate(repository.walk(head.target, pygit2.enums.SortMode.TIME)):
            if number == revisions:
                break
            raw = commit.read_raw()
            tree = bytes.fromhex(str(commit.tree_id))
            parents = tuple(bytes.fromhex(str(parent)) for parent in commit.parent_ids)
            self.commits[commit_id(raw)] = Commit(raw, tree, parents, commit.author.time, commit.commit_time)
            self._add_tree(repository, tree)
        tip = ("revision", bytes.fromhex(str(head.target)))
        branches: dict[bytes, Target | None] = {b"HEAD": ("alias", name), name: tip} if name else {b"HEAD": tip}
        return self.origin(url, branches, b"HEAD")

    def _add_tree(self, repository: Any, tree: bytes) -> None:
        waiting = [tree]
        while waiting:
            identity = waiting.pop()
            if identity in self.trees:
                continue
            raw = repository[identity.hex()].read_raw()
            self.trees[identity] = raw
            for _, mode, target in parse_tree(raw):
                if mode & 0o170000 == TREE_MODE:
                    waiting.append(target)
                elif mode & 0o170000 != GITLINK_MODE and target not in self.contents:
                    self.contents[target] = repository[target.hex()].data


# ---------------------------------------------------------------- the cases

MIT = b"MIT License\n\nCopyright (c) 2020 A. Uthor\n\nPermission is hereby granted, free of charge, to any person\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 12345\n"
GENERATED = b"// Code generated by protoc-gen-go. DO NOT EDIT.\npackage x\n"
FAULTS = ("missing", "zeroed", "truncated", "hash_mismatch", "trailing_data", "not_gzip")


def mini_world() -> World:
    """Every case of an export, each in an origin of its own."""
    world = World()
    plain = world.tree({b"README.md": b"# alias\n", b"src/main.py": b"print('hello')\n", b"LICENSE": MIT})
    later = world.tree({b"README.md": b"# alias, later\n", b"src/main.py": b"print('hello')\n", b"LICENSE": MIT})
    first = world.commit(plain, date=EPOCH, message=b"First\n")
    second = world.commit(later, first, date=EPOCH + DAY, message=b"Second\n")
    _visits(world, first, second)
    _branches(world, first, second)
    _copies(world, plain, second)
    _trees(world)
    _not_git(world)
    _missing(world, first)
    return world


def _visits(world: World, first: bytes, second: bytes) -> None:
    """Several visits and statuses: the last full one counts, whatever came after it, under whatever spelling."""
    url, head = "https://github.com/alice/alias", b"refs/heads/develop"
    old = world.snapshot({b"HEAD": ("alias", head), head: ("revision", first)})
    new = world.snapshot(
        {b"HEAD": ("alias", head), head: ("revision", second), b"refs/heads/main": ("revision", first)}
    )
    part = world.snapshot({b"refs/heads/main": ("revision", first)})
    world.visited(url, 1, 0, ("created", None), ("ongoing", None), ("full", old), kind=None)
    world.visited(url, 2, 10, ("created", None), ("full", new))
    world.visited(url, 3, 20, ("created", None), ("partial", part))
    world.visited(url, 4, 30, ("created", None), ("failed", None))
    world.visited(url, 5, 40, ("created", None), ("not_found", None))
    world.visited(url, 6, 50, ("created", None))
    world.visited("http://GitHub.com:80/Alice/Alias.git/", 1, 5, ("created", None), ("full", old))  # another spelling
    world.expect(url, 2, new, b"HEAD")

    url = "https://gitlab.com/never/full"
    world.visited(url, 1, 0, ("created", None), ("partial", part))
    world.visited(url, 2, 1, ("created", None), ("full", None))
    world.roots.append(Root(url, reason="no full visit"))

    url = "https://github.com/alice/empty"
    nothing = world.snapshot({})
    world.visited(url, 1, 0, ("full", nothing))
    world.roots.append(Root(url, 1, nothing, reason="no branch"))


def _branches(world: World, first: bytes, second: bytes) -> None:
    """Which branch: HEAD, else main, master, trunk, develop, else the only one, else the newest."""
    older = world.commit(world.commits[first].tree, date=EPOCH - DAY, message=b"Older\n")
    one, two = ("revision", first), ("revision", second)
    heads = b"refs/heads/"
    at = "https://github.com/bob/"
    world.origin(at + "master", {heads + b"master": two}, heads + b"master")
    world.origin(at + "detached", {b"HEAD": two, heads + b"main": one}, b"HEAD")
    world.origin(
        at + "no-head", {heads + b"develop": one, heads + b"main": two, heads + b"master": one}, heads + b"main"
    )
    world.origin(at + "two-heads", {heads + b"a": two, heads + b"b": ("revision", older)}, heads + b"a")
    world.origin(at + "only-head", {heads + b"feature": two, b"refs/tags/v0": one}, heads + b"feature")
    chain = {b"HEAD": ("alias", heads + b"x"), heads + b"x": ("alias", heads + b"y"), heads + b"y": two}
    world.origin(at + "chain", chain, b"HEAD")
    cycle = {b"HEAD": ("alias", heads + b"x"), heads + b"x": ("alias", b"HEAD"), heads + b"main": one}
    world.origin(at + "cycle", cycle, heads + b"main")
    dangling = {b"HEAD": ("alias", heads + b"gone"), heads + b"gone": None, heads + b"master": one}
    world.origin(at + "dangling", dangling, heads + b"master")
    world.origin(at + "latin-1", {b"HEAD": ("alias", heads + b"caf\xe9"), heads + b"caf\xe9": two}, b"HEAD")
    tag = world.tag(b"v1", second, "revision")
    signed = world.tag(b"v2", tag, "release", b"-----BEGIN PGP SIGNATURE-----\n\nx\n-----END PGP SIGNATURE-----\n")
    tags = {b"refs/tags/v1": ("release", tag), b"refs/tags/v2": ("release", signed)}
    world.origin(at + "tagged", {b"HEAD": ("alias", heads + b"main"), heads + b"main": two, **tags}, b"HEAD")
    world.origin(at + "head-at-tag", {b"HEAD": ("alias", b"refs/tags/v2"), **tags}, b"HEAD")
    wild = world.commit(world.commits[first].tree, date=100_000_000_000, message=b"From the year 5138\n")
    world.origin(at + "wild", {b"HEAD": ("alias", heads + b"main"), heads + b"main": ("revision", wild)}, b"HEAD")


def _copies(world: World, plain: bytes, second: bytes) -> None:
    """A fork, a renamed repository, and one that holds another without its history."""
    ours = world.tree({b"README.md": b"# a fork\n", b"src/main.py": b"print('hello')\n", b"LICENSE": MIT})
    fork = world.commit(ours, second, date=EPOCH + 2 * DAY, message=b"Fork\n")
    main = b"refs/heads/main"
    world.origin("https://github.com/erin/alias", {b"HEAD": ("alias", main), main: ("revision", fork)}, b"HEAD", 12)
    world.origin("https://github.com/alice/new-name", {b"HEAD": ("alias", main), main: ("revision", fork)}, b"HEAD", 60)
    vendored = world.tree({b"app.py": b"import alias\n", b"vendor/alias": (TREE_MODE, plain)})
    world.origin(
        "https://gitlab.com/erin/vendored",
        {b"HEAD": ("alias", main), main: ("revision", world.commit(vendored, message=b"All of it\n"))},
        b"HEAD",
    )


def _trees(world: World) -> None:
    """Names, modes and contents that somebody's code does not expect."""
    main = b"refs/heads/main"

    def origin(name: str, tree: bytes) -> None:
        commit = world.commit(tree, message=name.encode())
        world.origin(f"https://github.com/dave/{name}", {b"HEAD": ("alias", main), main: ("revision", commit)}, b"HEAD")

    names: dict[bytes, bytes | tuple[int, bytes]] = {
        b"caf\xe9.py": b"x = 1\n",
        b"two\nlines.py": b"x = 2\n",
        b"back\\slash.py": b"x = 3\n",
        "ünïcode.py".encode(): b"x = 4\n",
        b"a": b"a\n",
        b"a.b": b"b\n",
        b"a-b/c": b"c\n",
        b"a0/d/e/f/g": b"deep\n",
        b"link": (SYMLINK_MODE, b"a"),
        b"run.sh": (EXECUTABLE_MODE, b"#!/bin/sh\n"),
        b"old-mode.c": (0o100664, b"int x;\n"),
        b"submodule": (GITLINK_MODE, bytes.fromhex("5ba93c9db0cff93f52b521d7420e43f6eda2784f")),
        b"empty": b"",
    }
    origin("names", world.tree(names))
    texts: dict[bytes, bytes | tuple[int, bytes]] = {
        b"LICENSE": MIT,
        b"third/LICENSE": b"Apache License\nVersion 2.0, January 2004\n",
        b"crlf.c": b"int a;\r\nint b;\r\n",
        b"bom.cs": b"\xef\xbb\xbfclass A {}\n",
        b"utf16.cs": 'class A { string s = "ü"; }\n'.encode("utf-16"),
        b"nul.bin": b"\0\1\2\0",
        b"latin-1.c": b"/* caf\xe9 */\n",
        b"large.csv": b"1,2,3\n" * (11 * 1024 * 1024 // 6),
        b"pointer.bin": POINTER,
        b"generated.pb.go": GENERATED,
        b"node_modules/x/index.js": b"module.exports = 1\n",
    }
    faulty = {b"faults/%s.txt" % state.encode(): b"the content that is %s\n" % state.encode() for state in FAULTS}
    origin("texts", world.tree({**texts, **faulty}))
    for state in FAULTS:
        world.states[blob_id(faulty[b"faults/%s.txt" % state.encode()])] = state
    sub = world.tree({b"in.py": b"x = 5\n"})
    file = world.blob(b"x = 6\n")
    origin("odd-order", world.odd_tree(b"040000 sub\0" + sub + b"100644 file.py\0" + file))  # git writes 40000
    kept = world.blob(b"kept\n")
    large, gone, hid = world.blob(b"too large, as we are told\n"), world.blob(b"in no table\n"), world.blob(b"hidden\n")
    world.skipped[large] = "Content too large"
    world.absent.add(gone)
    world.hidden.add(hid)
    files = [(b"a.txt", FILE_MODE, kept), (b"b.bin", FILE_MODE, large), (b"c.txt", FILE_MODE, gone)]
    raw = serialize_tree([*files, (b"d.txt", FILE_MODE, hid)])
    world.trees[object_id("tree", raw)] = raw
    origin("skipped", object_id("tree", raw))
    lost = world.tree({b"x.py": b"never seen\n"})
    world.absent.add(lost)
    origin("lost-folder", world.tree({b"y.py": b"seen\n", b"lost": (TREE_MODE, lost)}))


def _not_git(world: World) -> None:
    """A package: its HEAD is an alias of a release, which points to a directory; and targets that have no files."""
    unpacked = world.tree({b"tiny-1.0/setup.py": b"setup()\n", b"tiny-1.0/tiny.py": b"x = 1\n"})
    release = world.tag(b"1.0", unpacked, "directory")
    head = b"releases/1.0"
    world.origin(
        "https://pypi.org/project/tiny/", {b"HEAD": ("alias", head), head: ("release", release)}, b"HEAD", kind="pypi"
    )
    content = world.blob(b"a whole archive\n")
    world.origin("https://ftp.example.org/one-file", {b"HEAD": ("content", content)}, b"HEAD", kind="content")
    inner = world.snapshot({b"HEAD": ("content", content)})
    world.origin("https://example.org/nested", {b"HEAD": ("snapshot", inner)}, b"HEAD", kind="tar")
    world.origin("https://example.org/tree", {b"HEAD": ("directory", unpacked)}, b"HEAD", kind="directory")


def _missing(world: World, first: bytes) -> None:
    """A revision that the export lacks."""
    gone = world.commit(world.commits[first].tree, date=EPOCH + 9, message=b"Gone\n")
    world.absent.add(gone)
    main = b"refs/heads/main"
    world.origin("https://github.com/carol/gone", {b"HEAD": ("alias", main), main: ("revision", gone)}, b"HEAD")
