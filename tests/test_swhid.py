"""Ids and SWHIDs against known answers, git itself, and their own round trip."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stackbuild import swhid
from stackbuild.swhid import InvalidSwhid, MalformedTree, Swhid, TreeBuilder

README = b"# aaaaaaaa\n000000\n"
ENV = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "HOME": os.devnull}


def git(folder: Path, *command: str, data: bytes = b"") -> bytes:
    return subprocess.run(["git", *command], cwd=folder, input=data, env=ENV, check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oracle")
    git(folder, "init", "-q", "--bare")
    return folder


def test_known_ids_of_the_empty_blob_the_empty_tree_and_the_published_readme() -> None:
    assert swhid.content_id(b"").hex() == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert swhid.directory_id([]).hex() == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    assert TreeBuilder().root().hex() == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    assert swhid.content_id(README).hex().startswith("05ee8db65dd1")
    assert swhid.blob_id(README).hex().startswith("522d5f7839fa")
    assert swhid.directory_id([(b"README.md", 0o100644, swhid.content_id(README))]).hex().startswith("3a825c97460f")


def test_sha1_of_the_bytes_and_sha1_of_the_blob_are_two_things() -> None:
    assert swhid.blob_id(README) == hashlib.sha1(README).digest() != swhid.content_id(README)


def test_a_sha256_object_id_is_gits(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--bare", "--object-format=sha256")
    oracle = git(tmp_path, "hash-object", "--stdin", data=README).strip().decode()
    assert swhid.object_id("blob", README, "sha256").hex() == oracle


def test_commits_and_tags_hash_as_their_raw_bytes(repository: Path) -> None:
    person = b"J\xf6rg <j@example.org> 1234567890 +0130"  # latin-1: a parsed commit would not print as it was
    tree = git(repository, "mktree", data=b"").strip()
    commit = b"tree %s\nauthor %s\ncommitter %s\n\nno newline at the end" % (tree, person, person)
    rev = git(repository, "hash-object", "-t", "commit", "-w", "--stdin", data=commit).strip().decode()
    assert swhid.commit_id(commit).hex() == rev
    tag = b"object %s\ntype commit\ntag v1\ntagger %s\n\nx\n" % (rev.encode(), person)
    assert swhid.tag_id(tag).hex() == git(repository, "hash-object", "-t", "tag", "--stdin", data=tag).strip().decode()


def test_a_snapshot_is_the_hash_of_its_sorted_branches_with_alias_and_dangling() -> None:
    one = b"\x01" * 20
    rows = [[b"alias HEAD", b"15:refs/heads/main"], [b"dangling refs/heads/gone", b"0:"]]
    payload = b"".join(bytes(1).join(row) for row in [*rows, [b"revision refs/heads/main", b"20:" + one]])
    expected = hashlib.sha1(b"snapshot %d\0" % len(payload) + payload).digest()
    branches = {b"refs/heads/main": ("revision", one), b"refs/heads/gone": None, b"HEAD": ("alias", b"refs/heads/main")}
    assert swhid.snapshot_id(branches) == expected
    assert (
        swhid.snapshot_id({}).hex() == "1a8893e6a86f444e8be8e7bda6cb34fb1735a00e"
    )  # of an empty repository, published


# ---------------------------------------------------------------- trees

HARD_NAMES = [
    b"a",
    b"a.b",
    b"a-b",
    b"a0",
    b"a ",
    b"A",
    b"b\xff",
    b"caf\xe9",
    "é".encode(),
    b"n\nl",
    b"t\tb",
    b"-",
    b"a~",
]
names = st.sampled_from(HARD_NAMES) | st.binary(min_size=1, max_size=3).filter(
    lambda name: b"/" not in name and b"\0" not in name and name.lower() not in (b".", b"..", b".git")
)
paths = st.lists(names, min_size=1, max_size=4).map(b"/".join)


def without_conflicts(files: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Drop paths that another one uses as a folder."""
    folders = {path[:at] for path in files for at in range(len(path)) if path[at : at + 1] == b"/"}
    return {path: data for path, data in files.items() if path not in folders}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(paths, st.binary(max_size=4), min_size=1, max_size=12).map(without_conflicts))
def test_trees_have_gits_ids_whatever_the_names(files: dict[bytes, bytes]) -> None:
    """Oracle: git update-index and write-tree; the sort puts "a.b" before the folder "a", and that before "a0"."""
    folder = Path(ORACLE)
    index = folder / "index"
    index.unlink(missing_ok=True)
    env = ENV | {"GIT_DIR": str(folder), "GIT_INDEX_FILE": str(index)}
    lines = b"".join(b"100644 %s\t%s\0" % (swhid.content_id(d).hex().encode(), p) for p, d in files.items())
    subprocess.run(["git", "update-index", "-z", "--index-info"], input=lines, env=env, check=True)
    oracle = subprocess.run(
        ["git", "write-tree", "--missing-ok"], env=env, check=True, capture_output=True
    ).stdout.strip()
    builder = TreeBuilder()
    for path, data in files.items():
        builder.add(path, 0o100644, swhid.content_id(data))
    assert builder.root().hex().encode() == oracle


ORACLE = ""


@pytest.fixture(autouse=True, scope="module")
def _oracle(repository: Path) -> None:
    global ORACLE
    ORACLE = str(repository)


def test_a_tree_with_a_folder_among_names_that_sort_around_it(repository: Path) -> None:
    blob, tree = swhid.content_id(b""), swhid.directory_id([])
    git(repository, "hash-object", "-w", "--stdin")
    entries = [(b"a", 0o040000, tree), (b"a.b", 0o100644, blob), (b"a-b", 0o100755, blob), (b"a0", 0o120000, blob),
               (b"sub", 0o160000, b"\x05" * 20)]  # fmt: skip
    lines = b"".join(
        b"%06o %s %s\t%s\0" % (m, {0o040000: b"tree", 0o160000: b"commit"}.get(m, b"blob"), i.hex().encode(), n)
        for n, m, i in entries
    )
    oracle = git(repository, "mktree", "-z", "--missing", data=lines).strip().decode()
    assert swhid.directory_id(reversed(entries)).hex() == oracle
    assert [n for n, _, _ in swhid.parse_tree(swhid.serialize_tree(entries))] == [b"a-b", b"a.b", b"a", b"a0", b"sub"]


def test_a_tree_of_directories_prints_their_mode_in_five_digits() -> None:
    """The development text of the standard said 040000 for a year: that gives ids that git does not know."""
    assert swhid.serialize_tree([(b"d", 0o040000, b"\1" * 20)]).startswith(b"40000 d\0")


@given(st.dictionaries(names, st.tuples(st.sampled_from([0o100644, 0o100664, 0o040000, 0o120000]),
                                        st.binary(min_size=20, max_size=20)), max_size=8))  # fmt: skip
def test_a_tree_reads_back_as_it_was_written(entries: dict[bytes, tuple[int, bytes]]) -> None:
    rows = [(name, mode, target) for name, (mode, target) in entries.items()]
    assert sorted(swhid.parse_tree(swhid.serialize_tree(rows))) == sorted(rows)


@given(st.binary(max_size=80))
def test_no_bytes_make_the_tree_parser_fail_otherwise_than_by_saying_so(raw: bytes) -> None:
    try:
        entries = swhid.parse_tree(raw)
    except MalformedTree:
        return
    assert sum(len(name) for name, _, _ in entries) <= len(raw)


@pytest.mark.parametrize("path", [b"", b"/a", b"a/", b"a//b", b"a\0b"])
def test_a_path_that_no_tree_can_hold_is_refused(path: bytes) -> None:
    with pytest.raises(MalformedTree):
        TreeBuilder().add(path, 0o100644, bytes(20))


@pytest.mark.parametrize("pair", [(b"a", b"a/b"), (b"a/b", b"a"), (b"a/b", b"a/b/c")])
def test_a_name_is_a_file_or_a_folder(pair: tuple[bytes, bytes]) -> None:
    builder = TreeBuilder()
    builder.add(pair[0], 0o100644, bytes(20))
    with pytest.raises(MalformedTree):
        builder.add(pair[1], 0o100644, bytes(20))


def test_a_tree_may_be_twenty_thousand_folders_deep() -> None:
    depth = 20_000
    builder = TreeBuilder()
    builder.add(b"d/" * depth + b"f", 0o100644, swhid.content_id(b""))
    expected = swhid.directory_id([(b"f", 0o100644, swhid.content_id(b""))])
    for _ in range(depth):
        expected = swhid.directory_id([(b"d", 0o040000, expected)])
    assert builder.root() == expected


def test_a_path_is_shown_to_lie_in_a_tree_by_the_trees_above_it() -> None:
    builder = TreeBuilder()
    for path in (b"a/b/c", b"a/b/d", b"a/e", b"f"):
        builder.add(path, 0o100644, swhid.content_id(path))
    ids = builder.tree_ids()
    assert sorted(ids) == [b"", b"a", b"a/b"] and ids[b""] == builder.root()
    assert ids == swhid.tree_ids((p, 0o100644, swhid.content_id(p)) for p in (b"f", b"a/e", b"a/b/d", b"a/b/c"))
    proof = builder.proof(b"a/b/c")
    good = (builder.root(), b"a/b/c", 0o100644, swhid.content_id(b"a/b/c"))
    assert swhid.lies_in(*good, proof)
    assert not swhid.lies_in(bytes(20), *good[1:], proof)
    assert not swhid.lies_in(good[0], b"a/b/d", *good[2:], proof)
    assert not swhid.lies_in(*good[:2], 0o100755, good[3], proof)
    assert not swhid.lies_in(*good, proof[:-1])
    assert not swhid.lies_in(*good, [*proof[:-1], proof[-1] + b"x"])


def test_empty_folders_count_when_they_are_added() -> None:
    builder = TreeBuilder()
    builder.add_folder(b"e/m")
    middle = swhid.directory_id([(b"m", 0o040000, swhid.directory_id([]))])
    assert builder.root() == swhid.directory_id([(b"e", 0o040000, middle)])


# ---------------------------------------------------------------- SWHIDs as text

CNT = "swh:1:cnt:" + "4d" * 20
DIR = "swh:1:dir:" + "ab" * 20
REV = "swh:1:rev:" + "01" * 20
SNP = "swh:1:snp:" + "cd" * 20

digests = st.binary(min_size=20, max_size=20)
spans = st.tuples(st.integers(1, 10**6), st.integers(0, 10**6)).map(lambda s: (s[0], s[0] + s[1]))
origins = st.text(st.characters(exclude_categories=("C", "Z")), max_size=12).map("https://example.org/".__add__)


@st.composite
def swhids(draw: st.DrawFn) -> Swhid:
    kind = draw(st.sampled_from(swhid.TYPES))
    path = draw(st.none() | st.binary(max_size=8).filter(lambda p: b"\0" not in p).map(b"/".__add__))
    path = path if kind in ("cnt", "dir") else None
    origin = draw(st.none() | origins)
    span = draw(st.none() | st.tuples(st.sampled_from(["lines", "bytes"]), spans)) if kind == "cnt" else None
    return Swhid(
        kind,
        draw(digests),
        origin,
        draw(st.none() | digests.map(lambda d: Swhid("snp", d))) if origin else None,
        draw(st.none() | st.builds(Swhid, st.sampled_from(["dir", "rev", "rel", "snp"]), digests)) if path else None,
        path,
        **({span[0]: span[1]} if span else {}),
    )


@given(swhids())
def test_a_swhid_reads_back_as_it_printed(value: Swhid) -> None:
    text = str(value)
    assert swhid.parse_leniently(text) == (value, ())
    assert text.isprintable() and " " not in text


@st.composite
def noisy(draw: st.DrawFn) -> tuple[Swhid, str, int]:
    """A SWHID, a text of it with its qualifiers in any order and others among them, and how many of those there are."""
    value = draw(swhids())
    parts = draw(st.permutations(str(value).split(";")[1:]))
    wrong = [
        "colour=red", "path", "", "Lines=1", "lines=0", "lines=2-1", "lines=01", "bytes=-1", "bytes=1-", "path=relative",
        "path=/%0", "path=/%00",
        "origin=no url", "origin=https://x.org/%FF", f"visit={REV}", f"anchor={CNT}", "visit=swh:1:snp:1",
    ]  # fmt: skip
    if value.bytes:
        wrong.append("lines=3-4")
    if not value.origin:
        wrong.append(f"visit={SNP}")
    if not value.path:
        wrong.append(f"anchor={REV}")
    if value.type != "cnt":
        wrong += ["lines=1", "bytes=0"]
    if value.type not in ("cnt", "dir"):
        wrong.append("path=/a")
    noise = draw(st.lists(st.sampled_from(wrong), unique_by=lambda text: text.partition("=")[0], max_size=5))
    for text in noise:
        parts.insert(draw(st.integers(0, len(parts))), text)
    for text in draw(st.lists(st.sampled_from(parts), max_size=2)) if parts else ():  # a second time, behind the first
        parts.append(text)
        noise.append(text)
    return value, ";".join([value.core, *parts]), len(noise)


@given(noisy())
def test_what_is_valid_is_read_whatever_else_is_there(one: tuple[Swhid, str, int]) -> None:
    """In any order, each once; what is unknown, malformed, doubled, or lacks what it needs is ignored and told, one by one."""
    value, text, noise = one
    found, ignored = swhid.parse_leniently(text)
    assert found == value and len(ignored) == noise, ignored


def test_known_swhids_with_qualifiers() -> None:
    """The examples of the specification (core identifiers and qualified ones), as it prints them."""
    farm = (
        "swh:1:cnt:4d99d2d18326621ccdd70f5ea66c2e2ac236ad8b;origin=https://gitorious.org/ocamlp3l/ocamlp3l_cvs.git;"
        "visit=swh:1:snp:d7f1b9eb7ccb596c2622c4780febaa02549830f9;anchor=swh:1:rev:2db189928c94d62a3b4757b3eec68f0a4d4113f0;"
        "path=/Examples/SimpleFarm/simplefarm.ml;lines=9-15"
    )
    found = swhid.parse(farm)
    assert str(found) == farm
    assert (found.lines, found.path, found.origin) == (
        (9, 15),
        b"/Examples/SimpleFarm/simplefarm.ml",
        "https://gitorious.org/ocamlp3l/ocamlp3l_cvs.git",
    )
    assert found.visit and found.anchor and (found.visit.type, found.anchor.type) == ("snp", "rev")
    for text in (
        "swh:1:cnt:94a9ed024d3859793618152ea559a168bbcbb5e2",
        "swh:1:dir:d198bc9d7a6bcf6db04f476d29314f157507d505",
        "swh:1:rev:309cf2674ee7a0749978cf8265ab91a60aea0f7d",
        "swh:1:rel:22ece559cc7cc2364edc5e5593d63ae8bd229f9f",
        "swh:1:snp:c7c108084bc0bf3d81436bf980b46e98bd338453",
        "swh:1:cnt:94a9ed024d3859793618152ea559a168bbcbb5e2;bytes=0-4",
        "swh:1:cnt:94a9ed024d3859793618152ea559a168bbcbb5e2;lines=1",
    ):
        assert str(swhid.parse(text)) == text and swhid.parse_leniently(text)[1] == ()


@given(st.text(max_size=60) | st.text(max_size=40).map((CNT + ";").__add__))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        value = swhid.parse(text)
    except InvalidSwhid:
        return
    assert swhid.parse(str(value)) == value


def test_qualifiers_print_in_canonical_order_however_they_came() -> None:
    text = f"{CNT};lines=9-15;path=/a%3Bb;anchor={REV};visit={SNP};origin=https://example.org/x%3By"
    assert str(swhid.parse(text)) == (
        f"{CNT};origin=https://example.org/x%3By;visit={SNP};anchor={REV};path=/a%3Bb;lines=9-15"
    )
    assert swhid.parse(text).path == b"/a;b"


def test_a_path_that_is_not_utf8_is_escaped_byte_by_byte() -> None:
    assert str(Swhid("cnt", b"M" * 20, path=b"/caf\xe9 1%.py")) == CNT + ";path=/caf%E9%201%25.py"
    assert swhid.parse(CNT + ";path=/caf%E9.py").path == b"/caf\xe9.py"


@pytest.mark.parametrize(
    "qualifiers",
    [
        "lines=0", "lines=15-9", "lines=1-", "lines=٣", "bytes=-1", "path=relative", "path=/a%G1", "path=/a%00",
        "path=/a%", f"visit={SNP}", f"anchor={REV}", "origin=not a url", "origin=", "nonsense", "colour=red", "",
        f"path=/a;anchor={CNT}", f"origin=https://x.org/;visit={REV}", "origin=https://x.org/%FF",
    ],
)  # fmt: skip
def test_an_invalid_qualifier_is_ignored_and_named(qualifiers: str) -> None:
    value, ignored = swhid.parse_leniently(f"{CNT};{qualifiers}")
    assert len(ignored) == 1
    assert str(value) in (CNT, CNT + ";path=/a", CNT + ";origin=https://x.org/")


def test_bytes_win_over_lines_and_the_first_of_two_wins() -> None:
    value, ignored = swhid.parse_leniently(f"{CNT};lines=1-2;bytes=0-9;bytes=3")
    assert (value.lines, value.bytes, len(ignored)) == (None, (0, 9), 2)


def test_lines_and_path_only_where_they_mean_something() -> None:
    assert str(swhid.parse(f"{DIR};path=/a;lines=1")) == f"{DIR};path=/a"
    assert str(swhid.parse(f"{REV};path=/a;anchor={REV}")) == REV


@pytest.mark.parametrize(
    "text", ["", "swh:1:cnt", CNT.upper(), CNT[:-1], CNT + "0", CNT.replace(":1:", ":2:"), " " + CNT, CNT + "\n",
             "swh:1:ori:" + "00" * 20, "https://example.org"]
)  # fmt: skip
def test_what_is_not_a_swhid_is_refused(text: str) -> None:
    with pytest.raises(InvalidSwhid):
        swhid.parse(text)


@pytest.mark.parametrize(
    "wrong",
    [{"lines": (2, 1)}, {"lines": (0, 1)}, {"bytes": (0, 1), "lines": (1, 1)}, {"path": b"a"}, {"origin": "a b"},
     {"anchor": Swhid("rev", bytes(20))}, {"visit": Swhid("snp", bytes(20))}],
)  # fmt: skip
def test_an_invalid_qualifier_cannot_be_made(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidSwhid):
        Swhid("cnt", bytes(20), **wrong)  # type: ignore[arg-type]
