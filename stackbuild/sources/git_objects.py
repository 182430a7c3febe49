"""Objects of a git repository, read from its object folder alone: no work tree, no configuration, no replace refs.

The repository is a stranger's. Its object folder is opened by itself (libgit2's object database, or `git cat-file`
behind a configuration of ours for SHA-256), so that nothing in its config, hooks or attributes is ever looked at.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, Protocol, Self

from stackbuild.errors import InputError
from stackbuild.swhid import object_id

ALTERNATES_BYTES: Final = 1024 * 1024
COPY_IT: Final = "copy the repository with `git clone --mirror --no-local` and name the copy"


class MissingObject(Exception):
    """The object folder has no such object (a partial clone, a lost pack)."""


class CorruptObject(Exception):
    """The object is there and cannot be read."""


class HashMismatch(CorruptObject):
    """The bytes do not hash to the id under which they are stored."""


class ObjectStore(Protocol):
    """Objects by id: 20 bytes (sha1) or 32 (sha256)."""

    algorithm: str

    def header(self, target: bytes) -> tuple[str, int]:
        """Type and size, without the payload. Raises MissingObject or CorruptObject."""
        ...

    def payload(self, target: bytes) -> bytes:
        """The raw bytes, not yet verified. Raises MissingObject or CorruptObject."""
        ...

    def stream(self, target: bytes) -> Iterator[bytes]:
        """The payload in pieces, to be taken to the end. Raises MissingObject or CorruptObject."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


class LibgitStore:
    """A SHA-1 object folder through libgit2, in process: 0.45 ms for a small repository, where git takes 4 to 7."""

    algorithm = "sha1"
    _types: Final = {1: "commit", 2: "tree", 3: "blob", 4: "tag"}

    def __init__(self, objects: Path):
        import pygit2

        # libgit2 would hash each object with a slow collision-detecting SHA-1; everything is verified here instead.
        pygit2.option(pygit2.enums.Option.ENABLE_STRICT_HASH_VERIFICATION, False)
        self._broken = (pygit2.GitError, ValueError)
        self._oid = pygit2.Oid
        try:
            self._odb: Any = pygit2.Odb(str(objects))
        except self._broken as error:
            raise InputError(f"{str(objects)!r} is not a git object folder: {error}") from error

    def header(self, target: bytes) -> tuple[str, int]:
        try:
            kind, size = self._odb.read_header(self._oid(raw=target))
        except KeyError as error:
            raise MissingObject(target.hex()) from error
        except self._broken as error:
            raise CorruptObject(str(error)) from error
        return self._types.get(int(kind), "unknown"), size

    def payload(self, target: bytes) -> bytes:
        try:
            data: bytes = self._odb.read(self._oid(raw=target))[1]
        except KeyError as error:
            raise MissingObject(target.hex()) from error
        except self._broken as error:
            raise CorruptObject(str(error)) from error
        return data

    def stream(self, target: bytes) -> Iterator[bytes]:
        yield self.payload(target)  # libgit2 streams nothing out of packs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._odb = None


class PipeStore:
    """A SHA-256 object folder through `git cat-file`, in a repository of ours that borrows the folder.

    libgit2 does not read this format. The git process sees an empty configuration, so that a hostile one can name no
    command (lazy fetching of a partial clone would run one), and no replace refs.
    """

    algorithm = "sha256"

    def __init__(self, objects: Path):
        self._home = tempfile.TemporaryDirectory(prefix="stackbuild-git-")
        home = Path(self._home.name)
        (home / "refs").mkdir()
        (home / "HEAD").write_text("ref: refs/heads/none\n")
        (home / "config").write_text(
            "[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tobjectformat = sha256\n"
        )
        env = git_environment(str(home)) | {"GIT_DIR": str(home), "GIT_OBJECT_DIRECTORY": str(objects)}
        if not shutil.which("git"):
            raise InputError(
                "a SHA-256 repository is read through git, which is not installed: install git 2.29 or newer"
            )
        self._processes = [
            subprocess.Popen(
                ["git", "cat-file", flag],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=env,
            )
            for flag in ("--batch-check", "--batch")
        ]

    def _ask(self, which: int, target: bytes) -> tuple[str, int, IO[bytes]]:
        process = self._processes[which]
        assert process.stdin and process.stdout
        try:
            process.stdin.write(target.hex().encode() + b"\n")
            process.stdin.flush()
            answer = process.stdout.readline().split()
        except BrokenPipeError:
            answer = []
        if len(answer) == 2 and answer[1] == b"missing":
            raise MissingObject(target.hex())
        if len(answer) != 3:
            raise CorruptObject(f"git cat-file gave up at object {target.hex()}")
        return answer[1].decode(), int(answer[2]), process.stdout

    def header(self, target: bytes) -> tuple[str, int]:
        kind, size, _ = self._ask(0, target)
        return kind, size

    def payload(self, target: bytes) -> bytes:
        return b"".join(self.stream(target))

    def stream(self, target: bytes) -> Iterator[bytes]:
        """The payload in pieces of at most 1 MiB; to be taken to the end."""
        _, size, pipe = self._ask(1, target)
        while size:
            piece = pipe.read(min(size, 1 << 20))
            if not piece:
                raise CorruptObject(f"git cat-file broke off in object {target.hex()}")
            size -= len(piece)
            yield piece
        pipe.read(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self._processes:
            assert process.stdin and process.stdout
            process.stdout.close()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.kill()
            process.wait()
        self._home.cleanup()


def git_environment(home: str) -> dict[str, str]:
    """The environment of every git process: no user or system configuration, no prompt, no transport unless named."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return kept | {
        "HOME": home,
        "XDG_CONFIG_HOME": home,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "true",
        "SSH_ASKPASS": "true",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_OPTIONAL_LOCKS": "0",
    }


def read_regular(path: Path, limit: int) -> bytes | None:
    """The bytes of a regular file; None if it is absent, a symlink or special; InputError if over `limit` bytes."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            return None
        data = file.read(limit + 1)
    if len(data) > limit:
        raise InputError(f"{str(path)!r} is over {limit} bytes: not a repository that git wrote")
    return data


def check_object_folder(git_folder: Path) -> Path:
    """The object folder of a repository, if all of it lies there; InputError otherwise.

    An alternate, a symlink or a named pipe could make us read (or wait for) what is not the repository's. Alternates
    are refused wherever they lead: libgit2 takes some relative ones from the working folder of the process.
    """
    objects = git_folder / "objects"
    folders = [objects]
    while folders:
        folder = folders.pop()
        try:
            if not stat.S_ISDIR(os.lstat(folder).st_mode):
                raise InputError(f"{str(folder)!r} is not a folder of its own; {COPY_IT}")
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    elif not entry.is_file(follow_symlinks=False):
                        raise InputError(f"{entry.path!r} is neither a file nor a folder; {COPY_IT}")
        except OSError as error:
            raise InputError(f"cannot read {str(folder)!r}: {error.strerror}") from error
    for name in ("alternates", "http-alternates"):
        lines = (read_regular(objects / "info" / name, ALTERNATES_BYTES) or b"").splitlines()
        if any(line and not line.startswith(b"#") for line in lines):
            raise InputError(f"{str(git_folder)!r} borrows objects from elsewhere (objects/info/{name}); {COPY_IT}")
    return objects


def open_store(git_folder: Path, algorithm: str) -> ObjectStore:
    """Open the objects of a repository; InputError if its object folder is torn or reaches outside."""
    objects = check_object_folder(git_folder)
    return PipeStore(objects) if algorithm == "sha256" else LibgitStore(objects)


def verified(store: ObjectStore, target: bytes, kind: str) -> bytes:
    """The raw bytes of an object that must be a `kind` and hash to its id; MissingObject or CorruptObject otherwise."""
    found, _ = store.header(target)
    if found != kind:
        raise CorruptObject(f"object {target.hex()} is a {found}, not a {kind}")
    raw = store.payload(target)
    if object_id(kind, raw, store.algorithm) != target:
        raise HashMismatch(f"object {target.hex()} does not hash to its id")
    return raw
