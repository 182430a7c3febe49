"""Git repositories: what is read is what `git ls-tree` shows, and no hostile repository does harm or goes unsaid."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stackbuild import swhid
from stackbuild.errors import InputError
from stackbuild.origins import canonical_url, name_of_url
from stackbuild.sources import git as git_source
from stackbuild.sources.git import SOURCE, GitOptions
from stackbuild.sources.git_refs import Commit, read_references, snapshot
from stackbuild.sources.git_scan import name_of_folder, read_config, remote_url
from stackbuild.sources.git_tree import is_lfs_pointer
from stackbuild.sources.unit import Entry, File, Limits, Link, Origin, ResolveContext, Skipped, Unit, Unread

ENV = {
    "PATH": os.environ["PATH"], "HOME": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_AUTHOR_DATE": "1500000000 +0200",
    "GIT_COMMITTER_NAME": "c", "GIT_COMMITTER_EMAIL": "c@example.org", "GIT_COMMITTER_DATE": "1600000000 -0100",
}  # fmt: skip
LIMITS = Limits()
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


class Repository:
    """A generated repository; `git` runs git in it, `put` writes an object without git's own checks."""

    def __init__(self, folder: Path, *arguments: str):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q", "-b", "main", *arguments)
        self.bare = "--bare" in arguments
        self.inner = folder if self.bare else folder / ".git"

    def git(self, *command: str, data: bytes = b"", env: dict[str, str] | None = None) -> bytes:
        done = subprocess.run(
            ["git", "-c", "protocol.file.allow=always", *command], cwd=self.folder, input=data, env=ENV | (env or {}),
            capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def put(self, kind: str, payload: bytes, name: bytes | None = None) -> bytes:
        digest = name or swhid.object_id(kind, payload)
        path = self.inner / "objects" / digest.hex()[:2] / digest.hex()[2:]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(zlib.compress(b"%s %d\0" % (kind.encode(), len(payload)) + payload))
        return digest

    def raw_tree(self, *entries: tuple[bytes, bytes, bytes]) -> bytes:
        """Write a tree of (mode in ASCII, name, id) as given: unsorted, doubled, forbidden, whatever."""
        return self.put("tree", b"".join(b"%s %s\0%s" % entry for entry in entries))

    def commit_tree(self, tree: bytes, branch: str = "main", date: str = "1600000000 +0000") -> bytes:
        commit = self.put(
            "commit",
            b"tree %s\nauthor a <a@x> %s\ncommitter c <c@x> %s\n\nm\n" % (tree.hex().encode(), *[date.encode()] * 2),
        )
        ref = self.inner / "refs" / "heads" / branch
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit.hex() + "\n")
        return commit

    def write(self, files: dict[bytes, bytes | None]) -> None:
        for name, data in files.items():
            path = os.path.join(os.fsencode(self.folder), name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if data is None:
                os.unlink(path)
            else:
                with open(path, "wb") as file:
                    file.write(data)

    def commit(self, files: dict[bytes, bytes | None] | None = None, message: str = "m") -> str:
        self.write(files or {})
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD").decode().strip()


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "project")


def units(tmp: Path, **options: Any) -> tuple[list[Unit], list[Skipped]]:
    return SOURCE.units(GitOptions(kind="git", **options), ResolveContext(cache=str(tmp / "cache")))


def plan(repo: Repository, **options: Any) -> Unit:
    found, skipped = units(repo.folder.parent, paths=(str(repo.folder),), **options)
    assert len(found) == 1 and not skipped
    return found[0]


def read(unit: Unit, limits: Limits = LIMITS) -> tuple[Origin, list[Entry]]:
    rows: Iterator[Any] = SOURCE.read(unit, GitOptions(kind="git", paths=("x",)), limits)
    origin = next(rows)
    assert isinstance(origin, Origin)
    return origin, list(rows)


def files(entries: list[Entry]) -> dict[bytes, bytes]:
    return {entry.path: entry.data for entry in entries if isinstance(entry, File)}


def rules(entries: list[Entry]) -> dict[bytes, str]:
    return {entry.path: entry.rule for entry in entries if isinstance(entry, Unread)}


def oracle(repo: Repository, revision: str = "HEAD") -> list[tuple[bytes, int, str]]:
    """(path, mode, id) of every entry, as git itself lists them."""
    lines = repo.git("ls-tree", "-rz", "--full-tree", revision).split(b"\0")[:-1]
    parts = [line.split(b"\t", 1) for line in lines]
    return [(path, int(meta.split()[0], 8), meta.split()[2].decode()) for meta, path in parts]


def listing(entries: list[Entry]) -> list[tuple[bytes, int, str]]:
    ids = [e.target if isinstance(e, Link) else e.content_id for e in entries]
    return [(e.path, e.mode, i.hex() if i else "") for e, i in zip(entries, ids, strict=True)]


# ---------------------------------------------------------------- exactness


def random_history(repo: Repository, seed: int) -> None:
    rng = random.Random(seed)
    names = [
        b"a",
        b"a.b",
        b"a-b",
        b"a0",
        b"caf\xe9",
        "é".encode(),
        b"new\nline",
        b"tab\there",
        b"\xe2\x80\xaebidi",
        b" ",
        b"\\",
    ]
    alive: set[bytes] = set()
    for step in range(6):
        changes: dict[bytes, bytes | None] = {}
        for _ in range(25):
            path = b"/".join(
                [rng.choice(names) + b"D"] * rng.randrange(3) + [rng.choice(names) + b"%d" % rng.randrange(9)]
            )
            changes[path] = (
                rng.randbytes(rng.choice([0, 1, 40, 3000])) if rng.random() < 0.7 else b"text\r\n" * rng.randrange(90)
            )
        for path in rng.sample(sorted(alive), min(len(alive), 5)):
            if path not in changes:
                changes[path] = None
        alive = (alive | set(changes)) - {path for path, data in changes.items() if data is None}
        repo.write(changes)
        link = os.path.join(os.fsencode(repo.folder), b"link%d" % step)
        os.symlink(b"../outside\xff", link)
        os.chmod(os.path.join(os.fsencode(repo.folder), rng.choice(sorted(alive))), 0o755)
        repo.commit(message=str(step))
        if step == 3:
            repo.git("gc", "-q")


@pytest.mark.parametrize("seed", range(3))
def test_every_entry_of_a_repository_with_history_is_what_git_lists(repo: Repository, seed: int) -> None:
    """Oracle: `git ls-tree -rz HEAD`, in its order, with packed, deltified and loose objects and names of any bytes."""
    repo.write({b".gitattributes": b"*0 eol=crlf\n*1 export-ignore\n*2 export-subst\n"})
    random_history(repo, seed)
    origin, entries = read(plan(repo))
    assert listing(entries) == oracle(repo)
    assert all(swhid.content_id(e.data) == e.content_id for e in entries if isinstance(e, File))
    assert origin.directory_id == repo.git("rev-parse", "HEAD^{tree}").decode().strip()
    assert origin.revision_id == repo.git("rev-parse", "HEAD").decode().strip()
    builder = swhid.TreeBuilder()
    for path, mode, target in listing(entries):
        builder.add(path, mode, bytes.fromhex(target))
    assert builder.root().hex() == origin.directory_id


def test_the_expected_size_is_the_sum_of_the_files(repo: Repository) -> None:
    repo.commit({b"a": b"12345", b"d/b": b"123", b"d/c": b""})
    assert plan(repo).bytes == 8


def test_a_bare_and_a_non_bare_copy_give_the_same_rows(repo: Repository, tmp_path: Path) -> None:
    repo.commit({b"a": b"1", b"d/b": b"2"})
    repo.git("clone", "-q", "--bare", "--no-local", str(repo.folder), str(tmp_path / "copy" / "project.git"))
    found, _ = units(tmp_path, paths=(str(tmp_path / "copy"),), use_remote_url=False)
    assert found[0].key == plan(repo).key
    assert read(found[0]) == read(plan(repo))


def test_dates_are_nanoseconds_and_of_author_and_committer(repo: Repository) -> None:
    repo.commit({b"a": b"1"})
    origin, _ = read(plan(repo))
    assert (origin.revision_date, origin.committer_date) == (1_500_000_000 * 10**9, 1_600_000_000 * 10**9)


@pytest.mark.parametrize("date", ["99999999999999 +0000", "-99999999999 +0000", "now +0000", "", "9" * 30 + " +0000"])
def test_a_date_out_of_range_is_none_and_the_commit_is_read(repo: Repository, date: str) -> None:
    repo.commit_tree(repo.raw_tree((b"100644", b"a", repo.put("blob", b"x"))), date=date)
    origin, entries = read(plan(repo))
    assert (origin.revision_date, origin.committer_date) == (None, None) and files(entries) == {b"a": b"x"}


def test_odd_modes_are_kept_and_unknown_ones_not_read(repo: Repository) -> None:
    blob = repo.put("blob", b"x")
    repo.commit_tree(
        repo.raw_tree(
            (b"100664", b"group", blob),
            (b"100600", b"own", blob),
            (b"120777", b"link", blob),
            (b"140000", b"sock", blob),
        )
    )
    _, entries = read(plan(repo))
    assert {e.path: (type(e), e.mode) for e in entries} == {
        b"group": (File, 0o100664), b"own": (File, 0o100600), b"link": (Link, 0o120777), b"sock": (Unread, 0o140000),
    }  # fmt: skip


def test_submodules_and_symlinks_are_links_with_their_ids(repo: Repository, tmp_path: Path) -> None:
    other = Repository(tmp_path / "other")
    commit = other.commit({b"f": b"1"})
    os.symlink("a", repo.folder / "loop")
    repo.git("submodule", "--quiet", "add", str(other.folder), "sub")
    repo.commit({b"a": b"1"})
    _, entries = read(plan(repo))
    links = {e.path: (e.mode, e.target.hex()) for e in entries if isinstance(e, Link) and e.target}
    assert links == {b"sub": (0o160000, commit), b"loop": (0o120000, swhid.content_id(b"a").hex())}
    assert b"sub/f" not in files(entries)


# ---------------------------------------------------------------- which commit


def test_head_names_the_branch(repo: Repository) -> None:
    repo.commit({b"a": b"1"})
    repo.git("checkout", "-q", "-b", "topic/x")
    commit = repo.commit({b"b": b"2"})
    unit = plan(repo)
    assert (unit.key["branch"], unit.key["commit"]) == ("refs/heads/topic/x", commit)


def test_a_detached_head_has_a_commit_and_no_branch(repo: Repository) -> None:
    first = repo.commit({b"a": b"1"})
    repo.commit({b"a": b"2"})
    repo.git("checkout", "-q", "--detach", first)
    unit = plan(repo)
    assert (unit.key["branch"], unit.key["commit"]) == (None, first)


@pytest.mark.parametrize(
    ("branches", "chosen"),
    [
        (["zzz", "develop"], "develop"),
        (["develop", "trunk"], "trunk"),
        (["trunk", "master"], "master"),
        (["only"], "only"),
        (["old", "new"], "new"),
    ],
)
def test_without_a_head_the_usual_branches_then_the_only_one_then_the_newest(
    repo: Repository, branches: list[str], chosen: str
) -> None:
    tree = repo.raw_tree((b"100644", b"a", repo.put("blob", b"x")))
    for date, branch in enumerate(branches):
        repo.commit_tree(tree, branch, f"{1_600_000_000 + date} +0000")
    (repo.inner / "HEAD").write_text("ref: refs/heads/unborn\n")
    assert plan(repo).key["branch"] == f"refs/heads/{chosen}"


def test_packed_refs_are_read_and_a_loose_ref_wins(repo: Repository) -> None:
    repo.commit({b"a": b"1"})
    repo.git("pack-refs", "--all")
    assert not (repo.inner / "refs/heads/main").exists()
    assert files(read(plan(repo))[1]) == {b"a": b"1"}
    repo.commit({b"a": b"2"})
    assert files(read(plan(repo))[1]) == {b"a": b"2"}


@pytest.mark.parametrize("form", ["main", "refs/heads/main", "v1", "refs/tags/v1", "id"])
def test_a_wanted_ref_is_taken_through_annotated_tags(repo: Repository, form: str) -> None:
    commit = repo.commit({b"a": b"1"})
    repo.git("tag", "-a", "v1", "-m", "x")
    repo.git("checkout", "-q", "-b", "later")
    repo.commit({b"a": b"2"})
    unit = plan(repo, ref=commit if form == "id" else form)
    assert unit.key["commit"] == commit and files(read(unit)[1]) == {b"a": b"1"}


def test_the_planned_commit_is_read_even_if_the_branch_moves(repo: Repository) -> None:
    repo.commit({b"a": b"1"})
    unit = plan(repo)
    repo.commit({b"a": b"2"})
    assert files(read(unit)[1]) == {b"a": b"1"}


@pytest.mark.parametrize(
    "case", ["empty", "only_tags", "tag_of_a_blob", "missing_commit", "looping_head", "no_such_ref"]
)
def test_a_repository_without_a_commit_is_skipped_with_the_reason(repo: Repository, tmp_path: Path, case: str) -> None:
    good = Repository(tmp_path / "good")
    good.commit({b"a": b"1"})
    ref = None
    if case == "only_tags":
        commit = repo.commit({b"a": b"1"})
        repo.git("tag", "v1")
        (repo.inner / "refs/heads/main").unlink()
        assert commit
    elif case == "tag_of_a_blob":
        blob = repo.put("blob", b"x")
        (repo.inner / "refs/heads/main").write_text(blob.hex())
    elif case == "missing_commit":
        (repo.inner / "refs/heads/main").write_text("1" * 40)
    elif case == "looping_head":
        (repo.inner / "HEAD").write_text("ref: refs/heads/x\n")
        (repo.inner / "refs/heads/x").write_text("ref: refs/heads/y\n")
        (repo.inner / "refs/heads/y").write_text("ref: refs/heads/x\n")
    elif case == "no_such_ref":
        repo.commit({b"a": b"1"})
        good.git("branch", "wanted")
        ref = "wanted"
    found, skipped = units(tmp_path, paths=(str(tmp_path),), ref=ref)
    assert [unit.repo_name for unit in found] == ["local/good"]
    assert len(skipped) == 1 and skipped[0].what == str(repo.inner) and skipped[0].reason


def test_nothing_at_all_to_read_is_an_error_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        units(tmp_path, paths=(str(tmp_path / "absent"),))
    with pytest.raises(InputError, match="no git repository"):
        units(tmp_path, paths=(str(tmp_path),))


# ---------------------------------------------------------------- snapshot


def test_the_snapshot_has_every_ref_head_as_an_alias_and_no_dropped_ref(repo: Repository) -> None:
    commit = bytes.fromhex(repo.commit({b"a": b"1"}))
    repo.git("tag", "-a", "v1", "-m", "x")
    tag = bytes.fromhex(repo.git("rev-parse", "refs/tags/v1").decode().strip())
    tree = bytes.fromhex(repo.git("rev-parse", "HEAD^{tree}").decode().strip())
    blob = swhid.content_id(b"1")
    for name in ("pull/7/head", "pull/7/merge", "changes/01/1/1", "merge-requests/1/merge", "pipelines/9"):
        repo.git("update-ref", f"refs/{name}", commit.hex())
    for name, target in (("tags/t", tree), ("tags/b", blob)):
        repo.git("update-ref", f"refs/{name}", target.hex())
    (repo.inner / "refs/heads/broken").write_text("2" * 40 + "\n")
    expected = swhid.snapshot_id(
        {
            b"HEAD": ("alias", b"refs/heads/main"),
            b"refs/heads/main": ("revision", commit),
            b"refs/pull/7/head": ("revision", commit),
            b"refs/tags/v1": ("release", tag),
            b"refs/tags/t": ("directory", tree),
            b"refs/tags/b": ("content", blob),
        }
    )
    assert plan(repo).key["snapshot"] == expected.hex()


def test_the_snapshot_of_an_unborn_head_has_no_head(repo: Repository) -> None:
    repo.commit({b"a": b"1"})
    repo.git("symbolic-ref", "HEAD", "refs/heads/unborn")
    from stackbuild.sources.git_objects import open_store

    with open_store(repo.inner, "sha1") as store:
        refs = read_references(repo.inner)
        assert snapshot(store, refs) == swhid.snapshot_id(
            {b"refs/heads/main": ("revision", refs.ids[b"refs/heads/main"])}
        )


# ---------------------------------------------------------------- names and lists


@pytest.mark.parametrize(
    ("url", "canonical", "name"),
    [
        ("https://github.com/Owner/Repo.git", "https://github.com/Owner/Repo", "Owner/Repo"),
        ("HTTP://user:secret@GitHub.com:443/o/r/", "https://github.com/o/r", "o/r"),
        ("git@github.com:o/r.git", "https://github.com/o/r", "o/r"),
        ("ssh://git@ssh.github.com:443/o/r.git", "https://github.com/o/r", "o/r"),
        ("https://www.github.com/o/r?x=1#y", "https://github.com/o/r", "o/r"),
        ("git://example.org//a///b.git", "https://example.org/a/b", "example.org/a/b"),
        ("https://gitlab.com/group/sub/repo.git", "https://gitlab.com/group/sub/repo", "gitlab.com/group/sub/repo"),
        ("https://github.com/only", "https://github.com/only", "github.com/only"),
        ("ssh://git@[::1]:22/a/b", "https://[::1]/a/b", "[::1]/a/b"),
    ],
)
def test_urls_are_made_canonical_and_name_the_repository(url: str, canonical: str, name: str) -> None:
    assert canonical_url(url) == canonical
    assert canonical_url(canonical) == canonical
    assert name_of_url(canonical) == name


@pytest.mark.parametrize(
    "url", ["/home/x/repo", "file:///home/x", "../x", "C:\\x", "C:/x", "ext::sh -c x", "https://", "https://h", "",
            "https://h/a\nb", "https://h/a/../b", "https://h/\u202ea", "javascript:1", "https://[x/a/b",
            "https://localhost/a/b", "work:a/b"]
)  # fmt: skip
def test_what_others_cannot_reach_is_no_url(url: str) -> None:
    assert canonical_url(url) is None


def test_the_url_of_the_remote_counts_without_its_credentials(repo: Repository) -> None:
    repo.commit({b"a": b"1"})
    repo.git("remote", "add", "origin", "https://me:token@github.com/o/r.git")
    unit = plan(repo)
    assert (unit.repo_name, unit.key["repo_url"]) == ("o/r", "https://github.com/o/r")
    assert "token" not in json.dumps([unit.key, unit.where])
    assert plan(repo, use_remote_url=False).repo_name == "local/project"


def test_a_local_remote_is_no_url(repo: Repository, tmp_path: Path) -> None:
    repo.commit({b"a": b"1"})
    repo.git("remote", "add", "origin", str(tmp_path))
    assert (plan(repo).repo_name, plan(repo).key["repo_url"]) == ("local/project", None)


def test_no_path_of_this_machine_is_in_a_key_or_an_origin(repo: Repository, tmp_path: Path) -> None:
    repo.commit({b"a": b"1"})
    unit = plan(repo)
    assert str(tmp_path) not in json.dumps(unit.key) + repr(read(unit)[0])


def test_the_configuration_is_read_as_git_reads_it(repo: Repository) -> None:
    text = (
        '[core]\n bare=true ; c\n[remote "o\\"x"]\n\turl = "https://h/a # b" # c\n'
        '[Remote "origin"] URL = a\\\n b\n[include]\n\tpath = /dev/zero\n[broken\nx=y\n[remote "two"]\nurl=z\n'
    )
    (repo.inner / "config").write_text(text)
    settings = read_config(repo.inner)
    assert settings["core.bare"] == ["true"]
    assert settings['remote.o"x.url'] == ["https://h/a # b"]
    assert remote_url(settings) == "a b"


@pytest.mark.parametrize(
    ("folder", "name"),
    [("/x/repo.git", "local/repo"), ("/x/repo/.git", "local/repo"), ("/x/a\nb", "local/a\ufffdb"),
     ("/x/caf\udce9", "local/caf\ufffd"), ("/", "local/_")],
)  # fmt: skip
def test_a_folder_names_a_repository_in_printable_text(folder: str, name: str) -> None:
    assert name_of_folder(folder) == name


def test_a_list_gives_url_ref_and_visit_date(repo: Repository, tmp_path: Path) -> None:
    commit = repo.commit({b"a": b"1"})
    repo.git("branch", "old")
    repo.commit({b"a": b"2"})
    lines = tmp_path / "list.tsv"
    lines.write_text("# path\turl\tref\tdate\nproject\thttps://gitlab.com/o/r.git\told\t2020-01-02T03:04:05+01:00\n\n")
    (unit,), skipped = units(tmp_path, list=str(lines), paths=(str(tmp_path),))
    assert (unit.repo_name, unit.key["commit"], skipped) == ("gitlab.com/o/r", commit, [])
    assert read(unit)[0].visit_date == 1_577_930_645 * 10**9


def test_a_json_list_gives_the_columns_of_the_origin(repo: Repository, tmp_path: Path) -> None:
    repo.commit({b"a": b"1"})
    lines = tmp_path / "list.jsonl"
    rows = [{"path": "project", "url": "https://github.com/o/r", "star_events_count": 7, "gha_license_id": "MIT"},
            {"path": "absent"}]  # fmt: skip
    lines.write_text("\n".join(json.dumps(row) for row in rows))
    (unit,), skipped = units(tmp_path, list=str(lines))
    origin, _ = read(unit)
    assert (origin.repo_name, origin.star_events_count, origin.gha_license_id) == ("o/r", 7, "MIT")
    assert [skip.what for skip in skipped] == [str(tmp_path / "absent")]


@pytest.mark.parametrize(
    "line",
    ["project\tnot a url", "a\tb\tc\td\te", "project\t\t\tyesterday", '{"path": 1}', '{"path": "a", "x": 1}', "{"],
)
def test_a_wrong_line_of_a_list_is_named(repo: Repository, tmp_path: Path, line: str) -> None:
    (tmp_path / "list").write_text("\n" + line + "\n")
    with pytest.raises(InputError, match="line 2 of the list"):
        units(tmp_path, list=str(tmp_path / "list"))


def test_searching_finds_bare_and_non_bare_once_and_stops_at_its_depth(tmp_path: Path) -> None:
    for place, arguments in (
        ("src/a", ()),
        ("src/deep/b.git", ("--bare",)),
        ("src/x/y/z/c", ()),
        ("src/new\nline", ()),
    ):
        made = Repository(tmp_path / place, *arguments)
        made.commit_tree(made.raw_tree((b"100644", b"f", made.put("blob", place.encode()))))
    os.symlink(tmp_path / "src", tmp_path / "src" / "loop")
    found, skipped = units(tmp_path, paths=(str(tmp_path / "src"), str(tmp_path / "src/a")), scan_depth=2)
    assert sorted(str(unit.repo_name) for unit in found) == ["local/a", "local/b", "local/new\ufffdline"]
    assert found == sorted(found, key=lambda unit: json.dumps(unit.key, sort_keys=True))
    assert not [skip for skip in skipped if skip.what != str(tmp_path / "src/a")]


def test_a_linked_work_tree_and_a_git_file_that_leads_outside_are_skipped(repo: Repository, tmp_path: Path) -> None:
    repo.commit({b"a": b"1"})
    repo.git("worktree", "add", "-q", str(tmp_path / "linked"))
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap" / ".git").write_text(f"gitdir: {tmp_path}/../elsewhere\n")
    found, skipped = units(tmp_path, paths=(str(tmp_path),))
    assert [unit.repo_name for unit in found] == ["local/project"]
    assert sorted((skip.what, skip.reason.split()[0]) for skip in skipped) == [
        (str(tmp_path / "linked"), "a"),
        (str(tmp_path / "trap"), "its"),
    ]


# ---------------------------------------------------------------- what is there and not read


def test_a_missing_blob_and_a_missing_folder_are_told(repo: Repository) -> None:
    blob = repo.put("blob", b"here")
    sub = repo.raw_tree((b"100644", b"f", b"\x02" * 20), (b"100644", b"g", blob))
    repo.commit_tree(repo.raw_tree((b"40000", b"d", sub), (b"40000", b"gone", b"\x03" * 20)))
    _, entries = read(plan(repo))
    assert files(entries) == {b"d/g": b"here"}
    assert rules(entries) == {b"d/f": "missing_object", b"gone": "missing_object"}
    known = {e.path: (e.mode, e.content_id) for e in entries if isinstance(e, Unread)}
    assert known == {b"d/f": (0o100644, b"\x02" * 20), b"gone": (0o040000, b"\x03" * 20)}


def test_a_partial_clone_is_read_without_asking_its_remote(repo: Repository, tmp_path: Path) -> None:
    repo.commit({b"a": b"1", b"d/b": b"2" * 5000})
    repo.git("config", "uploadpack.allowFilter", "true")
    repo.git("clone", "-q", "--bare", "--filter=blob:limit=100", f"file://{repo.folder}", str(tmp_path / "partial"))
    config = tmp_path / "partial" / "config"
    config.write_text(config.read_text() + f'[remote "origin"]\n\tuploadpack = touch {tmp_path}/ran; false\n')
    (unit,), _ = units(tmp_path, paths=(str(tmp_path / "partial"),))
    _, entries = read(unit)
    assert files(entries) == {b"a": b"1"} and rules(entries) == {b"d/b": "missing_object"}
    assert not (tmp_path / "ran").exists()


def test_bytes_that_do_not_hash_to_their_id_are_not_taken(repo: Repository) -> None:
    wrong = repo.put("blob", b"other bytes", name=swhid.content_id(b"bytes"))
    swapped = repo.put("tree", b"", name=b"\x09" * 20)
    repo.commit_tree(repo.raw_tree((b"100644", b"f", wrong), (b"40000", b"t", swapped)))
    _, entries = read(plan(repo))
    assert rules(entries) == {b"f": "hash_mismatch", b"t": "hash_mismatch"} and not files(entries)


def test_damaged_objects_are_told(repo: Repository) -> None:
    good, torn, cut = (repo.put("blob", data) for data in (b"good", b"torn" * 50, b"cut"))
    for digest, data in ((torn, b"\x78\x01garbage"), (cut, b"")):
        (repo.inner / "objects" / digest.hex()[:2] / digest.hex()[2:]).write_bytes(data)
    commit = repo.put("commit", b"x")
    tree = repo.put("tree", b"not a tree")
    repo.commit_tree(
        repo.raw_tree((b"100644", b"cut", cut), (b"100644", b"good", good), (b"100644", b"kind", commit),
                      (b"40000", b"list", tree), (b"100644", b"torn", torn))
    )  # fmt: skip
    _, entries = read(plan(repo))
    assert files(entries) == {b"good": b"good"}
    assert set(rules(entries)) == {b"cut", b"kind", b"list", b"torn"}
    assert set(rules(entries).values()) <= {"corrupt_object", "missing_object"}


def test_a_blob_that_claims_too_much_is_never_inflated(repo: Repository) -> None:
    """60 MB of zeros in 60 kB, loose and packed: the size comes from the header, and memory stays where it was."""
    import tracemalloc

    size = 60 * 1024 * 1024
    packer = zlib.compressobj(9)
    digest = hashlib.sha1(b"blob %d\0" % size)
    packed = packer.compress(b"blob %d\0" % size)
    for _ in range(60):
        packed += packer.compress(bytes(1024 * 1024))
        digest.update(bytes(1024 * 1024))
    path = repo.inner / "objects" / digest.hexdigest()[:2] / digest.hexdigest()[2:]
    path.parent.mkdir()
    path.write_bytes(packed + packer.flush())
    repo.commit_tree(repo.raw_tree((b"100644", b"bomb", digest.digest()), (b"100644", b"f", repo.put("blob", b"x"))))
    for step in ("loose", "packed"):
        tracemalloc.start()
        origin, entries = read(plan(repo))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        (bomb,) = (e for e in entries if isinstance(e, Unread))
        assert (bomb.rule, bomb.length, bomb.value, bomb.threshold) == ("too_large", size, size, LIMITS.file_bytes)
        assert bomb.content_id == digest.digest() and files(entries) == {b"f": b"x"}
        assert peak < 5 * 1024 * 1024 and origin
        if step == "loose":
            assert resident_growth(repo) < 30 * 1024 * 1024  # libgit2's own memory is not traced
            repo.git("repack", "-adq")
    assert resident_growth(repo) < 30 * 1024 * 1024


def test_a_loose_object_that_is_longer_than_its_header_says_is_not_taken(repo: Repository) -> None:
    liar = swhid.content_id(b"ten bytes!")
    path = repo.inner / "objects" / liar.hex()[:2] / liar.hex()[2:]
    path.parent.mkdir()
    path.write_bytes(zlib.compress(b"blob 10\0" + bytes(60 * 1024 * 1024), 9))
    repo.commit_tree(repo.raw_tree((b"100644", b"f", liar)))
    assert set(rules(read(plan(repo))[1])) == {b"f"}
    assert resident_growth(repo) < 30 * 1024 * 1024


def resident_growth(repo: Repository) -> int:
    """Bytes by which a fresh process grows when it reads the repository."""
    code = (
        "import resource, sys, json\n"
        "from stackbuild.sources.git import SOURCE, GitOptions\n"
        "from stackbuild.sources.unit import Limits, ResolveContext\n"
        "import pygit2\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "options = GitOptions(kind='git', paths=(sys.argv[1],))\n"
        "(unit,), _ = SOURCE.units(options, ResolveContext(cache=''))\n"
        "list(SOURCE.read(unit, options, Limits()))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)\n"
    )
    import sys

    done = subprocess.run([sys.executable, "-c", code, str(repo.folder)], capture_output=True, check=True)
    return int(done.stdout)


def test_lfs_pointers_are_told_and_texts_about_them_are_not(repo: Repository) -> None:
    about = b"# see\n" + LFS
    repo.commit(
        {b"p": LFS, b"q": LFS.replace(b"git-lfs.github.com", b"hawser.github.com"), b"r": about, b"s": LFS + b"x"}
    )
    _, entries = read(plan(repo))
    assert rules(entries) == {b"p": "lfs_pointer", b"q": "lfs_pointer"} and set(files(entries)) == {b"r", b"s"}
    assert is_lfs_pointer(LFS.replace(b"oid", b"ext-0-foo sha256:00\noid")) and not is_lfs_pointer(LFS * 9)


@pytest.mark.parametrize(("folders", "deepest"), [(63, True), (64, True), (65, False), (5000, False)])
def test_folders_beyond_the_depth_are_one_row(repo: Repository, folders: int, deepest: bool) -> None:
    tree = repo.raw_tree((b"100644", b"f", repo.put("blob", b"x")))
    for _ in range(folders):
        tree = repo.raw_tree((b"100644", b"a", repo.put("blob", b"y")), (b"40000", b"d", tree))
    repo.commit_tree(tree)
    _, entries = read(plan(repo))
    assert (files(entries).get(b"d/" * folders + b"f") == b"x") is deepest
    cut = [(e.path, e.rule, e.value, e.threshold, e.mode) for e in entries if isinstance(e, Unread)]
    assert cut == ([] if deepest else [(b"d/" * 64 + b"d", "too_deep", 65, 64, 0o40000)])


def test_a_tree_bomb_ends_at_the_cap(repo: Repository) -> None:
    """Ten to the twelfth paths in a dozen trees, with and without files at the bottom."""
    for bottom in (repo.raw_tree((b"100644", b"f", repo.put("blob", b"x"))), repo.raw_tree()):
        tree = bottom
        for _ in range(12):
            tree = repo.raw_tree(*((b"40000", b"%d" % n, tree) for n in range(10)))
        repo.commit_tree(tree)
        limits = Limits(unit_files=500)
        from stackbuild.sources.git_objects import open_store
        from stackbuild.sources.git_tree import read_entries

        with open_store(repo.inner, "sha1") as store:
            entries = list(read_entries(store, tree, limits))
        assert len(files(entries)) <= 500 and 1 <= len(rules(entries)) < 1_000
        assert set(rules(entries).values()) == {"too_many_files"}


def test_files_beyond_the_caps_are_each_told(repo: Repository) -> None:
    repo.commit({b"a": b"1234", b"b": b"1234", b"c": b"1", b"d" * 60: b"1", b"e/f": b"1"})
    unit = plan(repo)
    assert rules(read(unit, Limits(unit_files=2))[1]) == dict.fromkeys([b"c", b"d" * 60, b"e"], "too_many_files")
    assert rules(read(unit, Limits(unit_bytes=5))[1]) == dict.fromkeys([b"b", b"d" * 60, b"e/f"], "unit_too_large")
    (long,) = (e for e in read(unit, Limits(path_bytes=50))[1] if isinstance(e, Unread))
    assert (long.rule, long.value, long.threshold, len(long.path)) == ("long_path", 60, 50, 50)
    assert rules(read(unit, Limits(file_bytes=3))[1]) == {b"a": "too_large", b"b": "too_large"}


def test_names_that_git_never_writes_are_told_and_not_read(repo: Repository) -> None:
    blob = repo.put("blob", b"x")
    names = [b"..", b".", b".git", b"a/b", b"ok", b"ok"]
    sub = repo.raw_tree((b"100644", b"x", blob))
    repo.commit_tree(repo.raw_tree(*((b"100644", name, blob) for name in names), (b"40000", b"ok", sub)))
    _, entries = read(plan(repo))
    assert [(e.path, e.rule) for e in entries if isinstance(e, Unread)] == [
        (b"..", "bad_name"), (b".", "bad_name"), (b".git", "bad_name"), (b"a/b", "bad_name"),
        (b"ok", "duplicate_path"), (b"ok", "duplicate_path"),
    ]  # fmt: skip
    assert files(entries) == {b"ok": b"x"}


# ---------------------------------------------------------------- hostile repositories


def test_a_repository_that_borrows_objects_is_refused(repo: Repository, tmp_path: Path) -> None:
    repo.commit({b"a": b"1"})
    repo.git("clone", "-q", "--shared", str(repo.folder), str(tmp_path / "borrower"))
    found, skipped = units(tmp_path, paths=(str(tmp_path),))
    assert [unit.repo_name for unit in found] == ["local/project"]
    assert "borrows objects from elsewhere" in skipped[0].reason
    (tmp_path / "borrower/.git/objects/info/alternates").write_text("# nothing\n\n")
    assert "is missing" in units(tmp_path, paths=(str(tmp_path),))[1][0].reason


@pytest.mark.parametrize("trap", ["objects", "pack", "fan_out", "fifo", "alternates"])
def test_object_folders_that_reach_outside_or_block_are_refused(repo: Repository, tmp_path: Path, trap: str) -> None:
    repo.commit({b"a": b"1"})
    objects = repo.inner / "objects"
    if trap == "objects":
        os.rename(objects, tmp_path / "moved")
        os.symlink(tmp_path / "moved", objects)
    elif trap == "pack":
        os.symlink("/dev/zero", objects / "pack" / "pack-x.idx")
    elif trap == "fan_out":
        (tmp_path / "ff").mkdir()
        os.symlink(tmp_path / "ff", objects / "ff")
    elif trap == "fifo":
        (objects / "ff").mkdir(exist_ok=True)
        os.mkfifo(objects / "ff" / ("0" * 38))
    else:
        (objects / "info" / "alternates").write_text("relative/to/the/working/folder\n")
    with pytest.raises(InputError, match="project"):
        units(tmp_path, paths=(str(repo.folder),))


def test_symlinked_and_special_refs_are_not_read(repo: Repository, tmp_path: Path) -> None:
    commit = repo.commit({b"a": b"1"})
    (tmp_path / "secret").write_text(commit)
    os.symlink(tmp_path / "secret", repo.inner / "refs" / "heads" / "out")
    os.mkfifo(repo.inner / "refs" / "heads" / "fifo")
    os.symlink("/dev/zero", repo.inner / "packed-refs")
    elsewhere = Repository(tmp_path / "elsewhere")
    elsewhere.commit({b"a": b"1"})
    os.rename(elsewhere.inner / "refs", tmp_path / "their_refs")
    os.symlink(tmp_path / "their_refs", elsewhere.inner / "refs")
    assert read_references(elsewhere.inner).ids == {}
    assert set(read_references(repo.inner).ids) == {b"refs/heads/main"}
    assert plan(repo).key["commit"] == commit


def test_replace_refs_do_not_change_what_is_read(repo: Repository) -> None:
    repo.commit({b"a": b"true"})
    replacement = repo.git("hash-object", "-w", "--stdin", data=b"false").decode().strip()
    repo.git("replace", swhid.content_id(b"true").hex(), replacement)
    assert files(read(plan(repo))[1]) == {b"a": b"true"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_repository_of_another_user_is_read(repo: Repository) -> None:
    repo.commit({b"a": b"1"})
    for folder, names, others in os.walk(repo.folder):
        for name in (".", *names, *others):
            os.lchown(os.path.join(folder, name), 12345, 12345)
    assert files(read(plan(repo))[1]) == {b"a": b"1"}


def test_nothing_that_a_repository_configures_is_run(repo: Repository, tmp_path: Path) -> None:
    repo.commit({b"a": b"1", b".gitattributes": b"* filter=evil diff=evil\n"})
    (repo.inner / "config").write_text(
        f"[core]\n\tfsmonitor = touch {tmp_path}/ran\n\tsshCommand = touch {tmp_path}/ran\n\thooksPath = {tmp_path}\n"
        f'[filter "evil"]\n\tsmudge = touch {tmp_path}/ran\n[include]\n\tpath = /dev/zero\n'
    )
    assert files(read(plan(repo))[1])[b"a"] == b"1"
    assert not (tmp_path / "ran").exists()


def test_broken_repositories_are_skipped_by_name_and_the_rest_is_read(repo: Repository, tmp_path: Path) -> None:
    repo.commit({b"a": b"1"})
    for name in ("no_objects", "zero_head", "torn_root", "reftable", "strange_format", "huge_config"):
        bad = Repository(tmp_path / name)
        blob = bad.put("blob", b"x")
        bad.commit_tree(bad.raw_tree((b"100644", b"f", blob)))
        if name == "no_objects":
            for path in sorted((bad.inner / "objects").rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
        elif name == "zero_head":
            (bad.inner / "HEAD").write_bytes(b"\0" * 100)
            (bad.inner / "refs/heads/main").write_bytes(b"\0" * 41)
        elif name == "torn_root":
            bad.commit_tree(b"\x07" * 20)
        elif name == "reftable":
            (bad.inner / "config").write_text("[extensions]\n\trefStorage = reftable\n")
        elif name == "strange_format":
            (bad.inner / "config").write_text("[extensions]\n\tobjectFormat = md5\n")
        else:
            (bad.inner / "config").write_bytes(b"#" * 5_000_000)
    found, skipped = units(tmp_path, paths=(str(tmp_path),))
    assert [unit.repo_name for unit in found] == ["local/project"]
    assert len(skipped) == 6 and all(skip.reason for skip in skipped)


def test_a_commit_that_is_gone_at_read_time_is_an_input_error(repo: Repository) -> None:
    repo.commit({b"a": b"1"})
    unit = plan(repo)
    lost = repo.inner / "objects" / unit.key["commit"][:2] / unit.key["commit"][2:]
    lost.unlink()
    with pytest.raises(InputError, match=r"project.*plan again"):
        read(unit)


# ---------------------------------------------------------------- SHA-256


def test_a_sha256_repository_has_sha1_ids_of_its_files_and_tree(tmp_path: Path) -> None:
    """Oracle: the same files committed to a SHA-1 repository."""
    content: dict[bytes, bytes | None] = {
        b"a": b"1",
        b"d/caf\xe9": b"2\r\n",
        b"d/e/new\nline": b"",
        b"d.x": bytes(3_000_000),
    }
    both = []
    for form in ("sha1", "sha256"):
        made = Repository(tmp_path / form / "same", f"--object-format={form}")
        os.symlink("a", made.folder / "link")
        made.commit(content)
        made.git("gc", "-q")
        both.append((made, *read(plan(made))))
    (_, origin1, entries1), (made, origin2, entries2) = both
    assert entries1 == entries2
    assert origin1.directory_id == origin2.directory_id
    assert origin2.revision_id == made.git("rev-parse", "HEAD").decode().strip() and len(origin2.revision_id) == 64


def test_a_sha256_repository_is_read_without_its_configuration(tmp_path: Path) -> None:
    made = Repository(tmp_path / "r", "--object-format=sha256")
    made.commit({b"a": b"1", b"big": bytes(200_000)})
    big = made.git("rev-parse", "HEAD:big").decode().strip()
    (made.inner / "objects" / big[:2] / big[2:]).unlink()
    config = made.inner / "config"
    config.write_text(  # git itself would stop at the last line, or run the first
        config.read_text() + "\tpartialclone = origin\n"
        f'[remote "origin"]\n\turl = ext::sh -c "touch {tmp_path}/ran"\n\tpromisor = true\n'
        "[protocol]\n\tallow = always\n[torn\n"
    )
    origin, entries = read(plan(made))
    assert files(entries) == {b"a": b"1"} and rules(entries) == {b"big": "missing_object"}
    assert origin.directory_id is None and not (tmp_path / "ran").exists()


# ---------------------------------------------------------------- clones


def test_a_url_is_cloned_once_bare_without_hooks_and_read(repo: Repository, tmp_path: Path) -> None:
    repo.commit({b"a": b"1"})
    repo.commit({b"a": b"2"})
    hook = repo.inner / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    url = f"file://{repo.folder}"
    (unit,), _ = units(tmp_path, urls=(url,))
    assert (unit.repo_name, unit.key["repo_url"]) == ("local/project", None)
    assert files(read(unit)[1]) == {b"a": b"2"}
    assert unit.key["commit"] == plan(repo).key["commit"] and unit.key["snapshot"] == plan(repo).key["snapshot"]
    repo.commit({b"a": b"3"})
    assert units(tmp_path, urls=(url,))[0] == [unit]  # the cache is kept until it is refreshed
    (later,), _ = units(tmp_path, urls=(url,), refresh=True)
    assert files(read(later)[1]) == {b"a": b"3"}
    assert not (tmp_path / "ran").exists()
    assert not [path for path in (tmp_path / "cache/git").iterdir() if path.name.startswith(".")]
    assert "file://" not in (Path(later.where["path"]) / "config").read_text()


def test_an_old_commit_is_cloned_with_its_history(repo: Repository, tmp_path: Path) -> None:
    first = repo.commit({b"a": b"1"})
    repo.commit({b"a": b"2"})
    (unit,), _ = units(tmp_path, urls=(f"file://{repo.folder}",), ref=first)
    assert files(read(unit)[1]) == {b"a": b"1"}


def test_what_cannot_be_cloned_is_skipped_without_its_credentials(repo: Repository, tmp_path: Path) -> None:
    repo.commit({b"a": b"1"})
    gone = f"file://{tmp_path}/absent"
    found, skipped = units(tmp_path, paths=(str(repo.folder),), urls=(gone,))
    assert len(found) == 1 and skipped[0].what == gone and "cannot be cloned" in skipped[0].reason
    options = GitOptions(kind="git", paths=(str(repo.folder),), urls=("https://me:token@example.org/a/b",))
    _, skipped = SOURCE.units(options, ResolveContext(cache=str(tmp_path), offline=True))
    assert skipped == [Skipped("https://example.org/a/b", "not in the cache, and the network may not be asked")]


@pytest.mark.parametrize(
    "url", ["ext::sh -c touch", "http://example.org/a", "--upload-pack=x", "/local", "ssh://-oProxyCommand=x/a",
            "fd::1", "https://h/a\nb", "file2://x"]
)  # fmt: skip
def test_protocols_outside_the_list_are_refused_by_the_options(url: str) -> None:
    with pytest.raises(ValidationError):
        GitOptions(kind="git", urls=(url,))


def test_options_need_something_to_read() -> None:
    with pytest.raises(ValidationError):
        GitOptions(kind="git")


def test_the_module_has_its_source_by_name() -> None:
    assert git_source.SOURCE.kind == "git" and Commit
