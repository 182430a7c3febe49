"""Git repositories with long histories, made from the releases of real packages.

    python -m benchmarks.git_histories OUT [--commits N]

    OUT/ansible.git, django.git, sympy.git, transformers.git

Each is a bare repository with one branch. From one release to the next every file that is new, gone or has other bytes is a
commit of its own, in order of its path, so that trees change as they do in projects: those above one file, the rest shared.
Releases are wheels, fetched by pip from wherever it is configured to; nothing is built or executed. What is in
OUT/.wheels is not fetched again.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.corpus import fetch_wheel, listed
from benchmarks.git_ingest import environment

RELEASES = {
    "ansible": listed("6.7.0 7.7.0 8.7.0 9.13.0 10.7.0 11.13.0 12.3.0"),
    "django": listed("2.2.28 3.2.25 4.2.16 5.1.2 5.2.1"),
    "sympy": listed("1.6.2 1.9 1.12.1 1.13.3 1.14.0"),
    "transformers": listed("4.30.2 4.36.2 4.44.2 4.50.3 4.55.4"),
}
START = 1_500_000_000  # seconds; each commit is a minute later
Change = tuple[str, bytes | None]  # a path, its bytes, or None if it is gone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--commits", type=int, default=100_000, help="of each repository, at most")
    asked = parser.parse_args()
    for name, versions in RELEASES.items():
        made = asked.out / f"{name}.git"
        if not made.exists():
            wheels = [wheel(asked.out / ".wheels", name, version) for version in versions]
            print(f"{made.name}: {write(made, changes(wheels), asked.commits):,} commits")


def wheel(folder: Path, name: str, version: str) -> Path:
    """The wheel of a release; SystemExit if the index lacks it."""
    place = folder / f"{name}@{version}"
    place.mkdir(parents=True, exist_ok=True)
    if not list(place.glob("*.whl")) and not fetch_wheel(f"{name}=={version}", place):
        raise SystemExit(f"pip finds no wheel of {name} {version}.")
    return next(place.glob("*.whl"))


def changes(wheels: Sequence[Path]) -> Iterator[Change]:
    """What differs from each release to the next, the first one from nothing."""
    held: dict[str, bytes] = {}  # path -> SHA-256
    for path in wheels:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if not name.endswith("/") and ".dist-info/" not in name)
            for name in sorted(held.keys() - set(names)):
                del held[name]
                yield name, None
            for name in names:
                data = archive.read(name)
                digest = hashlib.sha256(data).digest()
                if held.get(name) != digest:
                    held[name] = digest
                    yield name, data


def write(folder: Path, changed: Iterator[Change], most: int) -> int:
    """Write a bare repository of a commit for each change, at most so many; how many there are."""
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(folder)], env=environment(), check=True)
    words = ["git", "--git-dir", str(folder), "fast-import", "--quiet"]
    count = 0
    with subprocess.Popen(words, stdin=subprocess.PIPE, env=environment()) as process:
        assert process.stdin is not None
        for path, data in changed:
            if count == most:
                break
            person = b"A. Uthor <author@example.org> %d +0000" % (START + 60 * count)
            message = b"Change %s\n" % path.encode()
            head = b"commit refs/heads/main\ncommitter %s\ndata %d\n%s" % (person, len(message), message)
            if data is None:
                process.stdin.write(head + b"D %s\n" % path.encode())
            else:
                process.stdin.write(head + b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(data), data))
            count += 1
    if process.returncode:
        raise SystemExit(f"git fast-import of {folder} ended with {process.returncode}.")
    return count


if __name__ == "__main__":
    main()
