"""Archives: what a stranger's tar or zip becomes, and what it cannot do."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import random
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stackbuild.errors import InputError
from stackbuild.sources import archives
from stackbuild.sources.archives import SOURCE, ArchiveOptions, read_archive, single_top_folder
from stackbuild.sources.unit import Entry, File, Limits, Link, Origin, ResolveContext, Unread
from stackbuild.swhid import TreeBuilder, content_id

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".tar": bytes,
    ".tar.gz": gzip.compress,
    ".tar.bz2": bz2.compress,
    ".tar.xz": lzma.compress,
    ".tar.lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    ".tar.zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}
LONG = "pkg-1.0/" + "/".join(["folder" * 5] * 8) + "/long.py"


def info(name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, link: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.mode, found.linkname = kind, mode, link
    return found


def tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as writer:
        for header, data in members:
            header.size = len(data)
            writer.addfile(header, io.BytesIO(data))
    return out.getvalue()


def package(form: int = tarfile.PAX_FORMAT) -> bytes:
    return tar(
        (info("pkg-1.0", tarfile.DIRTYPE, 0o755), b""),
        (info("pkg-1.0/a.py"), b"print(1)\n"),
        (info("pkg-1.0/run.sh", mode=0o755), b"#!/bin/sh\n"),
        (info("pkg-1.0/empty"), b""),
        (info(LONG), b"x = 1\n" * 20_000),
        (info("pkg-1.0/caf\udce9.py"), b"latin-1 name\n"),
        (info("pkg-1.0/link", tarfile.SYMTYPE, link="a.py"), b""),
        (info("pkg-1.0/hard.py", tarfile.LNKTYPE, link="pkg-1.0/a.py"), b""),
        form=form,
    )


def read(path: Path, limits: Limits | None = None) -> tuple[Origin, list[Entry]]:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    origin, *entries = read_archive(path, sha256, Origin("archive/x", sha256), limits or Limits())
    assert isinstance(origin, Origin)
    return origin, entries  # type: ignore[return-value]


def write(folder: Path, data: bytes, name: str = "x.tar") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def rules(entries: list[Entry]) -> dict[bytes, str]:
    return {entry.path: entry.rule for entry in entries if isinstance(entry, Unread)}


def files(entries: list[Entry]) -> dict[bytes, bytes]:
    return {entry.path: entry.data for entry in entries if isinstance(entry, File)}


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_every_compression_and_tar_dialect_gives_the_same_files(tmp_path: Path, suffix: str, form: int) -> None:
    origin, entries = read(write(tmp_path, COMPRESS[suffix](package(form)), "x" + suffix))
    assert files(entries) == {
        b"a.py": b"print(1)\n",
        b"hard.py": b"print(1)\n",
        b"run.sh": b"#!/bin/sh\n",
        b"empty": b"",
        LONG.removeprefix("pkg-1.0/").encode(): b"x = 1\n" * 20_000,
        b"caf\xe9.py": b"latin-1 name\n",
    }
    assert [entry.mode for entry in entries if entry.path == b"run.sh"] == [0o100755]
    assert [e for e in entries if isinstance(e, Link)] == [Link(b"link", 0o120000, content_id(b"a.py"))]
    assert all(entry.content_id == content_id(entry.data) for entry in entries if isinstance(entry, File))
    assert origin.directory_id is not None


def test_the_directory_id_is_what_git_says_of_the_unpacked_archive(tmp_path: Path) -> None:
    path = write(tmp_path, gzip.compress(package()), "x.tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "out", filter="data")
    git = ["git", "-C", str(tmp_path / "out" / "pkg-1.0"), "-c", "core.autocrlf=false"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "-A", "-f"], check=True)
    tree = subprocess.run([*git, "write-tree"], check=True, capture_output=True, text=True).stdout.strip()
    assert read(path)[0].directory_id == tree


def test_a_second_pass_yields_what_memory_would_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, gzip.compress(package()), "x.tar.gz")
    expected = read(path)
    monkeypatch.setattr(archives, "KEPT_BYTES", 10)
    assert read(path) == expected


def test_of_two_members_of_one_name_the_last_wins_and_a_hard_link_keeps_the_first(tmp_path: Path) -> None:
    data = tar(
        (info("a"), b"old"),
        (info("h", tarfile.LNKTYPE, link="./a"), b""),
        (info("./a"), b"new"),
        (info("h2", tarfile.LNKTYPE, link="a"), b""),
        (info("a", tarfile.LNKTYPE, link="a"), b""),
    )
    assert files(read(write(tmp_path, data))[1]) == {b"h": b"old", b"a": b"new", b"h2": b"new"}


def test_a_single_top_folder_is_stripped_and_only_a_single_one(tmp_path: Path) -> None:
    assert single_top_folder(iter([b"p/a", b"p/b/c"])) == b"p/"
    assert single_top_folder(iter([b"p/a", b"q"])) == b""
    assert single_top_folder(iter([b"p/a", b"q/a"])) == b""
    assert single_top_folder(iter([b"p"])) == b""
    assert single_top_folder(iter([])) == b""
    paths = [e.path for e in read(write(tmp_path, tar((info("p/a"), b""), (info("../p"), b""))))[1]]
    assert paths == [b"a", b"../p"]


def test_a_zip_keeps_modes_links_and_the_bytes_of_names(tmp_path: Path) -> None:
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, mode, data in [
            ("p/run", 0o100755, b"#!"),
            ("p/a", 0o100644, b"a"),
            ("p/l", 0o120777, b"a"),
            ("p/pipe", 0o010644, b""),
            ("p/é", 0, b"e"),
        ]:
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            archive.writestr(member, data)
        archive.writestr("p/d/", b"")
    raw = path.read_bytes()
    origin, entries = read(path)
    assert files(entries) == {b"run": b"#!", b"a": b"a", "é".encode(): b"e"}
    assert [e.mode for e in entries if e.path == b"run"] == [0o100755]
    assert [e for e in entries if isinstance(e, Link)] == [Link(b"l", 0o120000, content_id(b"a"))]
    assert rules(entries) == {b"pipe": "special_file"}
    tree = TreeBuilder()
    for name, mode, data in [
        (b"run", 0o100755, b"#!"),
        (b"a", 0o100644, b"a"),
        (b"l", 0o120000, b"a"),
        ("é".encode(), 0o100644, b"e"),
    ]:
        tree.add(name, mode, content_id(data))
    assert origin.directory_id == tree.root().hex()
    # the same two bytes of a name without the flag are still UTF-8; a lone 0x82 is é of code page 437
    plain = raw.replace("é".encode(), b"\x82z")
    unflagged = bytearray(plain)
    for at in range(len(plain)):
        if plain[at : at + 4] == b"PK\x03\x04":
            unflagged[at + 7] &= ~0x08
        if plain[at : at + 4] == b"PK\x01\x02":
            unflagged[at + 9] &= ~0x08
    assert "éz".encode() in files(read(write(tmp_path, bytes(unflagged), "q.zip"))[1])


def test_backslashes_of_a_dos_zip_part_folders(tmp_path: Path) -> None:
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("p\\a.c", "p\\src\\b.c"):
            member = zipfile.ZipInfo(name)
            member.create_system = 0
            archive.writestr(member, b"int x;")
    assert set(files(read(path)[1])) == {b"a.c", b"src/b.c"}


def test_an_archive_in_an_archive_is_a_file(tmp_path: Path) -> None:
    inner = gzip.compress(package())
    assert files(read(write(tmp_path, tar((info("p/in.tar.gz"), inner))))[1]) == {b"in.tar.gz": inner}


# ---------------------------------------------------------------- what is refused, one by one


def test_unsafe_names_are_counted_and_never_used(tmp_path: Path) -> None:
    names = ["/etc/passwd", "../../up", "p/../../x", "p/a\0b", "/", "//etc/passwd", "..", "p/good"]
    data = tar(*[(info(name), b"evil") for name in names[:3] + names[4:]])
    origin, entries = read(write(tmp_path, data))
    assert files(entries) == {b"good": b"evil"}
    assert rules(entries) == dict.fromkeys([b"./etc/passwd", b"../../up", b"p/../../x", b"./", b".."], "unsafe_path")
    assert len({entry.path for entry in entries}) == len(entries)
    assert origin.directory_id is not None


def test_links_out_of_the_archive_are_text(tmp_path: Path) -> None:
    data = tar(
        (info("p/s", tarfile.SYMTYPE, link="/etc/passwd"), b""),
        (info("p/s/x"), b"through the link"),
        (info("p/t", tarfile.SYMTYPE, link="../../.."), b""),
        (info("p/h", tarfile.LNKTYPE, link="/etc/passwd"), b""),
        (info("p/i", tarfile.LNKTYPE, link="p/none"), b""),
    )
    origin, entries = read(write(tmp_path, data))
    assert files(entries) == {b"s/x": b"through the link"}
    assert rules(entries) == {b"s": "path_conflict", b"h": "hard_link", b"i": "hard_link"}
    assert [e.path for e in entries if isinstance(e, Link)] == [b"t"]
    assert origin.directory_id is None, "the id of a tree with unknown files is not known"


def test_devices_pipes_and_sparse_files_have_a_rule(tmp_path: Path) -> None:
    members = [(info(f"p/{k.decode()}", k), b"") for k in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"V")]
    data = tar(*members, (info("p/a"), b"a"))
    origin, entries = read(write(tmp_path, data))
    assert rules(entries) == {b"3": "special_file", b"4": "special_file", b"6": "special_file", b"V": "special_file"}
    tree = TreeBuilder()
    tree.add(b"a", 0o100644, content_id(b"a"))
    assert origin.directory_id == tree.root().hex()
    sparse = info("p/s")
    sparse.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 40), "GNU.sparse.numblocks": "1"}
    assert rules(read(write(tmp_path, tar((sparse, b"a"), (info("p/a"), b"a"))))[1]) == {b"s": "sparse_file"}


def test_a_file_beyond_the_cap_is_hashed_and_left(tmp_path: Path) -> None:
    data = b"x" * 1001
    path = write(tmp_path, tar((info("p/big"), data), (info("p/b"), b"b")))
    origin, entries = read(path, Limits(file_bytes=1000))
    assert entries == [
        Unread(b"big", 0o100644, "too_large", 1001, 1001.0, 1000.0, content_id(data)),
        File(b"b", 0o100644, b"b", content_id(b"b")),
    ]
    assert origin.directory_id == read(path)[0].directory_id


def test_deep_and_long_paths_have_a_rule(tmp_path: Path) -> None:
    data = tar((info("p/" + "d/" * 64 + "f"), b""), (info("p/" + "n" * 5000), b""), (info("p/" + "d/" * 63 + "f"), b""))
    entries = read(write(tmp_path, data))[1]
    assert sorted(rules(entries).values()) == ["long_path", "too_deep"]
    assert len(files(entries)) == 1
    assert max(len(entry.path) for entry in entries) <= 4096


def test_encrypted_and_oddly_compressed_members_have_a_rule(tmp_path: Path) -> None:
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("p/e", b"secret")
        archive.writestr("p/x", b"lzma", zipfile.ZIP_LZMA)
        archive.writestr("p/a", b"a")
    raw = bytearray(path.read_bytes())
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    entries = read(write(tmp_path, bytes(raw), "q.zip"))[1]
    assert rules(entries) == {b"e": "encrypted", b"x": "unknown_compression"}
    assert files(entries) == {b"a": b"a"}


@pytest.mark.parametrize(
    ("limits", "rule"),
    [(Limits(unit_files=3), "too_many_files"), (Limits(unit_bytes=100_000), "unit_too_large")],
)
@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_of_an_archive_beyond_a_cap_nothing_is_used(tmp_path: Path, limits: Limits, rule: str, suffix: str) -> None:
    path = tmp_path / ("x" + suffix)
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for number in range(5):
                archive.writestr(f"p/{number}", b"x" * 30_000)
    else:
        path.write_bytes(gzip.compress(tar(*[(info(f"p/{n}"), b"x" * 30_000) for n in range(5)])))
    origin, entries = read(path, limits)
    assert [(entry.path, entry.rule) for entry in entries if isinstance(entry, Unread)] == [(path.name.encode(), rule)]
    assert len(entries) == 1 and origin.directory_id is None


# ---------------------------------------------------------------- torn archives


@pytest.mark.parametrize("suffix", [*COMPRESS, ".zip"])
def test_a_cut_archive_is_an_error_that_names_it_and_yields_nothing(tmp_path: Path, suffix: str) -> None:
    if suffix == ".zip":
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("p/a", random.Random(1).randbytes(5000))
        data = out.getvalue()
    else:
        data = COMPRESS[suffix](tar((info("p/a"), random.Random(1).randbytes(5000)), (info("p/b"), b"b")))
    end = len(data.rstrip(b"\0")) + 512 if suffix == ".tar" else len(data)  # the last zeros of a tar say nothing
    for cut in {*range(0, end, 97), end - 1, 512, 1024, 5632, 6144}:
        if not cut < end - (512 if suffix == ".tar" else 0):
            continue
        path = write(tmp_path, data[:cut], "cut" + suffix)
        stream = read_archive(path, hashlib.sha256(data[:cut]).hexdigest(), Origin("a", "b"), Limits())
        with pytest.raises(InputError, match="cut"):
            next(stream)


def test_a_damaged_header_in_the_middle_does_not_end_the_archive_in_silence(tmp_path: Path) -> None:
    data = bytearray(tar((info("a"), b"a" * 512), (info("b"), b"b"), (info("c"), b"c")))
    data[1024 + 150] ^= 0xFF  # within the second header's checksum
    with pytest.raises(InputError, match="byte 1024"):
        read(write(tmp_path, bytes(data)))


def test_a_wrong_checksum_inside_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("p/a", b"hello world")
    with pytest.raises(InputError, match="CRC"):
        read(write(tmp_path, path.read_bytes().replace(b"hello world", b"jello world")))
    crc = bytearray(gzip.compress(package()))
    crc[-6] ^= 1
    with pytest.raises(InputError, match=r"crc|data check"):
        read(write(tmp_path, bytes(crc), "y.tar.gz"))


def test_an_archive_that_is_not_the_planned_one_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, package())
    with pytest.raises(InputError, match="plan again"):
        list(read_archive(path, "0" * 64, Origin("a", "b"), Limits()))


def seeds() -> list[bytes]:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("p/a", b"hello world" * 10)
        archive.writestr("p/é", b"hello")
    small = [(info("p/" + "n" * 120), b"data"), (info("p/l", tarfile.SYMTYPE, link="a" * 150), b""), (info("p/b"), b"")]
    return [out.getvalue(), tar(*small), tar(*small, form=tarfile.GNU_FORMAT), gzip.compress(tar(*small))]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 3), st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=6))
def test_whatever_the_bytes_the_answer_is_entries_or_an_input_error(
    tmp_path: Path, seed: int, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(seeds()[seed])
    for at, value in changes:
        data[at % len(data)] = value
    try:
        _, entries = read(write(tmp_path, bytes(data)))
    except InputError:
        return
    paths = [entry.path for entry in entries]
    assert len(set(paths)) == len(paths)
    for entry in entries:
        parts = entry.path.split(b"/")
        assert isinstance(entry, Unread) or not ({b"", b".", b".."} & set(parts) or b"\0" in entry.path)


# ---------------------------------------------------------------- bombs

BOMB = """
import hashlib, resource, sys
from pathlib import Path
from stackbuild.sources.archives import read_archive
from stackbuild.sources.unit import Limits, Origin, Unread
path = Path(sys.argv[1])
sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
entries = list(read_archive(path, sha256, Origin("a", sha256), Limits()))[1:]
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(grown // 1024, *[getattr(entry, "rule", "file") for entry in entries])
"""


def zeros(path: Path, inflated: int) -> Path:
    """A gzip, bzip2, xz, zstd or zip of a tar (or member) of zeros."""
    block = bytes(1 << 20)
    header = info("p/zeros")
    header.size = inflated
    head = header.tobuf(tarfile.GNU_FORMAT)
    if path.suffix == ".zip":
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
            archive.open("p/zeros", "w", force_zip64=True) as member,
        ):
            for _ in range(inflated >> 20):
                member.write(block)
        return path
    opened = {
        ".gz": lambda: gzip.open(path, "wb", compresslevel=9),  # noqa: SIM115
        ".xz": lambda: lzma.open(path, "wb", preset=1),  # noqa: SIM115
        ".bz2": lambda: bz2.open(path, "wb"),  # noqa: SIM115
        ".zst": lambda: pa.CompressedOutputStream(str(path), "zstd"),
    }[path.suffix]
    with opened() as out:
        out.write(head)
        for _ in range(inflated >> 20):
            out.write(block)
        out.write(bytes(1024))
    return path


@pytest.mark.parametrize(
    ("name", "megabytes", "rule"),
    [
        ("g.tar.gz", 200, "archive_bomb"),  # 194 kB
        ("x.tar.xz", 200, "archive_bomb"),
        ("b.tar.bz2", 100, "archive_bomb"),
        ("s.tar.zst", 200, "archive_bomb"),
        ("z.zip", 200, "archive_bomb"),
        ("m.zip", 11, "too_large"),
        ("m.tar.gz", 11, "too_large"),
    ],
)
def test_a_bomb_is_stopped_early_in_flat_memory(tmp_path: Path, name: str, megabytes: int, rule: str) -> None:
    path = zeros(tmp_path / name, megabytes << 20)
    assert path.stat().st_size < 300_000
    run = [sys.executable, "-c", textwrap.dedent(BOMB), str(path)]
    grown, *found = subprocess.run(run, check=True, capture_output=True, text=True).stdout.split()
    assert found == [rule]
    assert int(grown) < 48, "megabytes above the start"


def test_a_window_or_a_header_beyond_all_need_is_a_bomb(tmp_path: Path) -> None:
    wide = lzma.compress(package(), filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 256 << 20}])
    assert set(rules(read(write(tmp_path, wide, "x.tar.xz"))[1]).values()) == {"archive_bomb"}
    header = info("p/a")
    header.pax_headers = {"comment": "x" * (2 << 20)}
    assert set(rules(read(write(tmp_path, tar((header, b"a"))))[1]).values()) == {"archive_bomb"}


def test_a_zip_of_many_entries_is_refused_before_its_directory_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(2000):
            archive.writestr(f"{number}", b"")
    assert rules(read(path, Limits(unit_files=100))[1]) == {b"many.zip": "too_many_files"}
    assert len(files(read(path, Limits(unit_files=2000))[1])) == 2000


# ---------------------------------------------------------------- units


def test_units_are_archives_by_name_in_folders_and_anything_that_is_named(tmp_path: Path) -> None:
    write(tmp_path, gzip.compress(package(), mtime=0), "pkg-1.0.tar.gz")
    (tmp_path / "sub").mkdir()
    write(tmp_path, gzip.compress(package(), mtime=0), "sub/copy.tgz")
    write(tmp_path, b"text", "sub/readme.txt")
    write(tmp_path, package(), "sub/odd-name")
    options = ArchiveOptions(kind="archives", paths=(str(tmp_path), str(tmp_path / "sub" / "odd*"), "/no/such/place"))
    units, skipped = SOURCE.units(options, ResolveContext(cache=""))
    assert [(unit.repo_name, unit.key["name"]) for unit in units] == [
        ("archive/odd-name", "odd-name"),
        ("archive/pkg-1.0", "pkg-1.0"),
    ]
    assert units[1].key["sha256"] == hashlib.sha256((tmp_path / "pkg-1.0.tar.gz").read_bytes()).hexdigest()
    assert not any(str(tmp_path) in str(unit.key) for unit in units), "no local path in what is digested"
    assert {skip.what for skip in skipped} == {"/no/such/place", str(tmp_path / "sub" / "copy.tgz")}
    origin, *entries = SOURCE.read(units[1], options, Limits())
    assert isinstance(origin, Origin)
    assert (origin.repo_name, origin.revision_id) == ("archive/pkg-1.0", units[1].key["sha256"])
    assert len(entries) == 7


def test_no_archive_at_all_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no archive"):
        SOURCE.units(ArchiveOptions(kind="archives", paths=(str(tmp_path),)), ResolveContext(cache=""))
