"""Who asked to be left out is named nowhere in what is released: not by a file that left before, not by a report."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild.errors import RecipeError
from stackbuild.index.lookup import Lookup
from stackbuild.not_read import told, without_folders
from tests.test_build import PUBLISHED, run
from tests.worlds import LIGHT, light, world

PUBLIC = tuple(name for name in PUBLISHED if name != "private")


def occurrences_of(out: Path, word: str) -> list[str]:
    """Released files in which a word stands."""
    found = []
    for name in (*PUBLIC, "build.json"):
        for path in (out / name).rglob("*") if (out / name).is_dir() else [out / name]:
            if path.is_file():
                text = str(pq.read_table(path).to_pydict()) if path.suffix == ".parquet" else path.read_text()
                if word in text:
                    found.append(str(path.relative_to(out)))
    return found


def only_at_ingest(root: Path, name: str) -> Path:
    """A repository all of whose files leave while they are read."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "large.py").write_text("x = 1\n" * 2_000)
    return folder


@pytest.mark.parametrize("listed", ["local/secretive", pytest.param("swhid", marks=pytest.mark.slow)])
def test_a_repository_that_left_at_ingest_only_is_not_named(tmp_path: Path, listed: str) -> None:
    root = world(tmp_path / "w", repos=1, files=2)
    only_at_ingest(root, "secretive")
    only_at_ingest(root, "talkative")
    (root / "talkative" / "large.py").write_text("y = 2\n" * 2_000)
    plain = light(root, limits={"file_bytes": 9_000})
    first = run(plain, tmp_path / "plain")
    assert occurrences_of(tmp_path / "plain", "local/secretive")
    if listed == "swhid":
        listed = next(u.key["swhid"] for u in first.build.plan.units if u.repo_name == "local/secretive")
    (tmp_path / "opt-out.txt").write_text(f"{listed}\n")
    out = tmp_path / "out"
    run({**plain, "opt_out": {"list": str(tmp_path / "opt-out.txt")}}, out)
    assert occurrences_of(out, "secretive") == []
    assert occurrences_of(out, "local/talkative")
    private = [row for path in (out / "private").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert {(row["repo_name"], row["rule"]) for row in private} == {("local/secretive", "too_large")}


def test_a_repository_of_which_nothing_was_kept_is_still_found_by_its_ids(tmp_path: Path) -> None:
    only_at_ingest(tmp_path / "w", "talkative")
    world(tmp_path / "w", repos=1, files=2)
    (tmp_path / "w" / "empty").mkdir()
    os.symlink("nowhere", tmp_path / "w" / "empty" / "link")
    out = tmp_path / "out"
    result = run(light(tmp_path / "w", limits={"file_bytes": 9_000}), out)
    swhid = next(u.key["swhid"] for u in result.build.plan.units if u.repo_name == "local/talkative")
    answer = Lookup(out).ask(swhid, why=True)[0]
    assert answer.seen and not answer.found
    assert [row["rule"] for row in answer.decisions] == ["too_large"]


def test_a_change_of_the_list_conceals_what_was_told_before(tmp_path: Path) -> None:
    root = world(tmp_path / "w", repos=1, files=2)
    only_at_ingest(root, "secretive")
    listed = tmp_path / "opt-out.txt"
    listed.write_text("")
    body = light(root, limits={"file_bytes": 9_000}, opt_out={"list": str(listed)})
    out = tmp_path / "out"
    run(body, out)
    assert occurrences_of(out, "local/secretive")
    listed.write_text("local/secretive\n")
    run(body, out)
    assert occurrences_of(out, "secretive") == []


def test_a_torn_input_is_told_without_its_folder_and_a_concealed_one_not_at_all(tmp_path: Path) -> None:
    root = world(tmp_path / "w", repos=1, files=2)
    archives = tmp_path / "archives"
    archives.mkdir()
    for name in ("torn", "secretive"):
        (archives / f"{name}-1.tar.gz").write_bytes(b"\x1f\x8b\x08\0nothing of " + name.encode())
    (tmp_path / "opt-out.txt").write_text("archive/secretive-1\n")
    missing = {"kind": "directory", "paths": [str(path) for path in (*root.iterdir(), tmp_path / "not-there")]}
    out = tmp_path / "out"
    body = light(root, opt_out={"list": str(tmp_path / "opt-out.txt")})
    body["source"] = [missing, {"kind": "archives", "paths": [str(archives)]}]
    result = run(body, out)
    assert {one.what for one in result.not_read} == {
        str(tmp_path / "not-there"),
        "archive/torn-1",
        "archive/secretive-1",
    }
    assert {one.what: one.passing for one in result.not_read}["archive/torn-1"]
    assert occurrences_of(out, str(tmp_path)) == []
    assert occurrences_of(out, "secretive") == []
    shown = told(result.build, result.not_read)
    assert {row["what"] for row in shown} == {
        "not-there",
        "archive/torn-1",
        "an input whose owner asked to be left out",
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot open /home/ada/my-work/x.tar: gone", "cannot open x.tar: gone"),
        ("'/home/ada/x' and \"/home/ada/y\"", "'x' and \"y\""),
        ("~/src/x is no folder", "x is no folder"),
        ("https://example.org/a/b cannot be cloned", "https://example.org/a/b cannot be cloned"),
        ("owner/repo has 3/4 of it", "owner/repo has 3/4 of it"),
    ],
)
def test_a_sentence_loses_the_folders_of_its_paths(text: str, shown: str) -> None:
    assert without_folders(text) == shown


def test_a_path_with_blanks_is_known_by_the_input_itself() -> None:
    place = "/home/Ada Lovelace/my work/x"
    assert without_folders(f"{place} is torn", [place]) == "x is torn"


def test_an_input_is_not_named_as_the_twin_of_another(tmp_path: Path) -> None:
    root = world(tmp_path / "w", repos=1, files=1)
    folder = tmp_path / "with a blank"
    folder.mkdir()
    for name in ("acmesecret.tar.gz", "zcopy.tar.gz", "aopen.tar.gz", "zopen.tar.gz"):
        with tarfile.open(folder / name, "w:gz") as archive:
            info = tarfile.TarInfo(f"{'a' if 'open' in name else 'b'}.py")
            info.mtime = 0
            archive.addfile(info, None)
    for first, second in (("acmesecret", "zcopy"), ("aopen", "zopen")):
        (folder / f"{second}.tar.gz").write_bytes((folder / f"{first}.tar.gz").read_bytes())
    (tmp_path / "opt-out.txt").write_text("archive/acmesecret\n")
    body = light(root, opt_out={"list": str(tmp_path / "opt-out.txt")})
    body["source"].append({"kind": "archives", "paths": [str(folder)]})
    out = tmp_path / "out"
    result = run(body, out)
    assert occurrences_of(out, "acmesecret") == [] and occurrences_of(out, "with a blank") == []
    assert "zopen.tar.gz" in {row["what"] for row in told(result.build, result.not_read)}


# ---------------------------------------------------------------- where the stage may stand


def test_opt_out_must_stand_before_copies_are_merged(tmp_path: Path) -> None:
    root = world(tmp_path / "w", repos=1, files=1)
    stages = [name for name in LIGHT if name != "opt_out"]
    with pytest.raises(RecipeError, match="must stand before the stage that merges"):
        run(light(root, stages=stages), tmp_path / "out")


def test_a_second_opt_out_must_read_the_same_list(tmp_path: Path) -> None:
    root = world(tmp_path / "w", repos=1, files=1)
    (tmp_path / "late.txt").write_text("local/repo0\n")
    body = light(root, stage={"opt_out:2": {"list": str(tmp_path / "late.txt")}})
    with pytest.raises(RecipeError, match="reads another list than opt_out"):
        run(body, tmp_path / "out")


def test_a_concealed_content_is_told_nowhere_though_its_repository_is(tmp_path: Path) -> None:
    root = world(tmp_path / "w", repos=2, files=2)
    from stackbuild.swhid import content_id

    target = root / "repo0" / "src" / "module0.py"
    swhid = f"swh:1:cnt:{content_id(target.read_bytes()).hex()}"
    (tmp_path / "opt-out.txt").write_text(f"{swhid}\n")
    out = tmp_path / "out"
    run(light(root, opt_out={"list": str(tmp_path / "opt-out.txt")}), out)
    raw = pa.scalar(bytes.fromhex(swhid[-40:]), pa.binary(20))
    for path in (out / "decisions").glob("*.parquet"):
        assert raw not in list(pq.read_table(path)["content_id"])
    assert occurrences_of(out, "local/repo0")


# ---------------------------------------------------------------- rows of tables


def rows_of(tmp_path: Path, listed: str, **columns: list[object]) -> Path:
    """Build from a table of rows with an opt-out list; the output folder."""
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    names = {"content": "text", "path": "path", "repo_name": "repo", "revision_id": "revision", "repo_url": "url"}
    mapped = {name: column for name, column in names.items() if column in columns}
    source = {"kind": "parquet", "paths": [str(tmp_path / "rows.parquet")], "columns": mapped}
    if "repo" not in columns:
        source["repo_name_default"] = "acme/secret"
    (tmp_path / "opt-out.txt").write_text(listed + "\n")
    stages = ["opt_out", "exact_dedup", "decode", "languages", "signals"]
    body = light(tmp_path, source=[source], stages=stages, limits={"file_bytes": 9_000})
    run({**body, "opt_out": {"list": str(tmp_path / "opt-out.txt")}}, tmp_path / "out")
    return tmp_path / "out"


def test_a_content_on_the_list_is_not_told_as_the_one_that_stayed(tmp_path: Path) -> None:
    from stackbuild.swhid import content_id

    texts = [f"def f{number}(x):\n    return x\n" * 5 for number in range(2)]
    first = min(content_id(text.encode()).hex() for text in texts)
    columns = {"text": texts, "path": ["same.py"] * 2, "repo": ["o/r"] * 2, "revision": ["1"] * 2}
    out = rows_of(tmp_path, f"swh:1:cnt:{first}", **columns)
    rows = [row for path in (out / "decisions").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert [(row["rule"], row["kept_content_id"]) for row in rows] == [("duplicate_path", None)]


def test_each_url_that_rows_of_a_revision_name_is_held_against_the_list(tmp_path: Path) -> None:
    columns = {
        "text": ["def f(x):\n    return x\n" * 5, "y = 1\n" * 2_000],
        "path": ["fine.py", "acmesecret.py"],
        "repo": ["nice/one"] * 2,
        "revision": ["1"] * 2,
        "url": ["https://gitlab.com/fine/p", "https://gitlab.com/acme/p"],
    }
    out = rows_of(tmp_path, "https://gitlab.com/acme/p", **columns)
    assert occurrences_of(out, "acmesecret") == []


def test_a_name_that_the_recipe_gives_to_rows_is_not_told_by_the_recipe(tmp_path: Path) -> None:
    out = rows_of(tmp_path, "acme", text=["def f(x):\n    return x\n" * 5], path=["a.py"])
    assert occurrences_of(out, "acme") == []
    assert "(concealed)" in (out / "build.json").read_text()


SPELLED = [
    *(
        "http://github.com/U/r",
        "git@github.com:u/R.git",
        "U/r.git/",
        "github.com/u/r",
        "u/r ",
        " u/r\n",
        "u//r",
        "@u/r",
    ),
    *("www.github.com/u/r", "https://tok:en@github.com:443/u/r?x=1#y", "https://github.com/u/r/tree/main/x", "/u/r"),
    *("https://github.com/u/r/blob/100%/a", "https://api.github.com/repos/u/r", "ssh://git@ssh.github.com:443/u/r"),
]


@pytest.mark.parametrize("name", SPELLED)
@pytest.mark.parametrize("listed", ["u/r", "u", "https://github.com/u/r"])
def test_a_row_is_known_however_it_spells_its_repository(name: str, listed: str) -> None:
    from stackbuild.opt_out.ledger import parse
    from stackbuild.opt_out.stage import Matcher

    matcher = Matcher(parse(listed))
    assert any(matcher.kinds_of(name, None)) and any(matcher.kinds_of("o/x", name))
    assert not any(matcher.kinds_of("other/r", "https://github.com/other/u"))
    assert not any(matcher.kinds_of("gitlab.com/u/r", None)) and not any(matcher.kinds_of("local/r", None))


@pytest.mark.parametrize("name", ["gitlab.com/g/p", "https://gitlab.com/g/p/-/tree/main", "git@gitlab.com:G/P.git"])
@pytest.mark.parametrize("listed", ["https://gitlab.com/g", "https://gitlab.com/g/p"])
def test_a_row_of_another_forge_is_known_however_it_is_spelt(name: str, listed: str) -> None:
    from stackbuild.opt_out.ledger import parse
    from stackbuild.opt_out.stage import Matcher

    matcher = Matcher(parse(listed))
    assert any(matcher.kinds_of(name, None)) and any(matcher.kinds_of("o/x", name))
    assert not any(matcher.kinds_of("g/p", None))


def test_an_owner_alone_is_known(tmp_path: Path) -> None:
    from stackbuild.opt_out.ledger import parse
    from stackbuild.opt_out.stage import Matcher

    assert any(Matcher(parse("acme")).kinds_of("acme", None))
    assert not any(Matcher(parse("acme")).kinds_of("acmes", None))


def test_a_name_that_is_a_url_leaves_the_build(tmp_path: Path) -> None:
    names = ["http://github.com/U/r", "o/kept"]
    texts = [f"def f{number}(x):\n    return x\n" * 5 for number in range(2)]
    out = rows_of(tmp_path, "u/r", text=texts, path=["a.py"] * 2, repo=names, revision=["1"] * 2)
    assert sum(pq.read_metadata(path).num_rows for path in (out / "dataset").rglob("*.parquet")) == 1
    assert occurrences_of(out, "http://github.com/U/r") == []


def test_what_is_published_is_verified_without_the_list(tmp_path: Path) -> None:
    from stackbuild.housekeeping import verify

    out = rows_of(tmp_path, "u/r", text=["def f(x):\n    return x\n" * 5], path=["a.py"], repo=["o/r"], revision=["1"])
    (tmp_path / "opt-out.txt").unlink()
    assert verify(out).problems == []
