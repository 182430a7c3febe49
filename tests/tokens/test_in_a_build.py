"""Tokens in a build: statistics are published and reported, and what was removed stays removed when it is built again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stackbuild import build as building
from stackbuild import cli
from stackbuild.errors import InputError, PolicyRefusal, RecipeError
from stackbuild.housekeeping import verify
from stackbuild.opt_out.ledger import Ledger, parse
from stackbuild.recipe import load
from stackbuild.token_removal import remove
from stackbuild.tokens.dataset import TokensDataset
from stackbuild.tokens.job import dtype_of
from stackbuild.tokens.options import TokensOptions
from stackbuild.tokens.statistics import statistics
from tests.worlds import light, world

TOKENS = {"vocab_size": 600, "shards": 2, "sample_bytes": 20_000}
OPTED_OUT = "local/repo1"


def run(body: dict[str, Any], out: Path) -> building.Result:
    return building.run(building.Request(body, Path("/"), out, 1))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world"), repos=3, files=1)


@pytest.fixture(scope="module")
def recipe(root: Path) -> dict[str, Any]:
    return light(root, stages=["exact_dedup", "decode", "languages"], outputs=["dataset", "tokens"], tokens=TOKENS)


@pytest.fixture(scope="module")
def built(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("build") / "out"
    run(recipe, out)
    return out


@pytest.fixture
def out(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built, tmp_path / "out")
    return tmp_path / "out"


def names(out: Path) -> list[str]:
    return sorted({document.row["repo_name"] for _, document in TokensDataset(out)})


def tokens_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "tokens").iterdir()}


def test_statistics_are_published_and_in_the_report(built: Path) -> None:
    told = json.loads((built / "tokens" / "statistics.json").read_bytes())
    assert told == statistics(built) and told["parts"][0]["languages"]
    report = json.loads((built / "report" / "report.json").read_bytes())
    assert report["tokens"]["parts"] == told["parts"]
    page = (built / "report" / "index.html").read_text()
    row = told["parts"][0]["languages"][0]
    assert "Tokens of code, train" in page and f"{row['characters_per_token']:.3f}" in page
    shown = sum(shard.documents for shard in TokensDataset(built, verify=True).manifest.sources[0].shards)
    assert told["parts"][0]["documents"] == shown


def test_what_was_removed_stays_removed_when_it_is_built_again(out: Path, recipe: dict[str, Any]) -> None:
    name = names(out)[1]
    assert remove(out, parse(name)).documents == 1
    before = tokens_of(out)
    assert not verify(out).problems
    run(recipe, out)
    assert tokens_of(out) == before and "removed" in before
    assert not verify(out).problems


def test_what_was_overwritten_is_not_brought_back_by_a_build(out: Path, recipe: dict[str, Any]) -> None:
    original = tokens_of(out)
    told = remove(out, parse(names(out)[1]), apply=True)
    before = tokens_of(out)
    assert told.overwritten and any(before[f"{p}.bin"] != original[f"{p}.bin"] for p in told.overwritten)
    assert not verify(out).problems
    run(recipe, out)
    assert tokens_of(out) == before
    assert not verify(out).problems
    TokensDataset(out, verify=True)
    again = remove(out, Ledger(()), apply=True)
    assert not again.overwritten and tokens_of(out) == before


def test_what_was_overwritten_stays_so_when_more_was_removed_since(out: Path, recipe: dict[str, Any]) -> None:
    told = remove(out, parse(names(out)[0]), apply=True)
    before = tokens_of(out)
    remove(out, parse("\n".join(names(out))))
    run(recipe, out)
    after = tokens_of(out)
    for prefix in told.overwritten:
        assert after[f"{prefix}.bin"] == before[f"{prefix}.bin"]
    assert not verify(out).problems
    TokensDataset(out, verify=True)
    remove(out, Ledger(()), apply=True)
    assert not verify(out).problems
    assert all(shard.applied or not len(shard.spans) for shard in TokensDataset(out).shards("code", "train"))


def test_a_build_waits_for_an_overwriting_that_was_cut_short(out: Path, recipe: dict[str, Any]) -> None:
    manifest = (out / "tokens" / "manifest.json").read_bytes()
    remove(out, parse(names(out)[0]), apply=True)
    (out / "tokens" / "manifest.json").write_bytes(manifest)
    with pytest.raises(PolicyRefusal, match=r"cut short.*--apply"):
        run(recipe, out)
    remove(out, Ledger(()), apply=True)
    run(recipe, out)
    assert not verify(out).problems


@pytest.mark.slow
def test_other_tokens_do_not_take_the_place_of_those_that_were_taken_out(out: Path, recipe: dict[str, Any]) -> None:
    name = names(out)[1]
    remove(out, parse(name))
    before = tokens_of(out)
    changed = {**recipe, "seed": 8}
    with pytest.raises(PolicyRefusal, match=r"removed takes documents out .*\[opt_out\].*nothing was published"):
        run(changed, out)
    assert tokens_of(out) == before
    (out / "tokens" / "removed").unlink()
    run(changed, out)
    assert tokens_of(out) != before and not verify(out).problems


def test_a_forced_uint16_needs_a_small_vocabulary() -> None:
    for size, wanted in ((65_500, "uint16"), (200_000, "uint16")):
        with pytest.raises(ValueError, match=f"a vocabulary of {size:,} entries does not go with uint16"):
            TokensOptions(vocab_size=size, dtype=wanted)  # type: ignore[arg-type]
    assert TokensOptions(vocab_size=65_500).dtype == "auto"
    load("default", ["tokens.vocab_size=70000"])
    with pytest.raises(RecipeError, match="a vocabulary of 70,000 entries does not go with uint16"):
        load("default", ["tokens.vocab_size=70000", "tokens.dtype=uint16"])


def test_a_tokenizer_of_ones_own_that_does_not_fit_the_forced_type_is_refused() -> None:
    vocabulary: Any = SimpleNamespace(path="mine.json", size=70_000)
    with pytest.raises(InputError, match=r"mine\.json: a vocabulary of 70,000 entries does not go with uint16"):
        dtype_of(vocabulary, "uint16")
    assert dtype_of(vocabulary).itemsize == 4


# ---------------------------------------------------------------- typed


def stackbuild(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> str:
    """Run a command in this process; what it printed (of a failure what it said)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["stackbuild", *map(str, arguments)])
        try:
            cli.main()
            ended = 0
        except SystemExit as end:
            ended = int(end.code or 0)
    captured = capsys.readouterr()
    assert ended == code, captured
    return captured.err if code else captured.out


def test_commands_of_tokens(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def typed(*arguments: str | Path, code: int = 0) -> str:
        return stackbuild(capsys, *arguments, code=code)

    name = names(out)[0]
    assert "code train: " in typed("tokens", "verify", out)
    assert "bytes/token" in typed("tokens", "statistics", out) and "code" in typed(
        "tokens", "statistics", out, "--json"
    )
    told = json.loads(typed("tokens", "remove", out, "--repo", name, "--json"))
    assert told["documents"] == 1 and told["tokens"] > 0
    (tmp_path / "list.txt").write_text(f"{name}\n")
    assert "0 tokens are removed now" in typed("tokens", "remove", out, "--list", tmp_path / "list.txt")
    content = next(file for _, document in TokensDataset(out) for file in document.row["files"])["content_id"]
    assert json.loads(typed("tokens", "remove", out, "--content-id", content, "--json"))["files"] >= 1
    assert "Overwritten in the .bin" in typed("tokens", "remove", out, "--apply")
    assert "code train" in typed("tokens", "merge", out, tmp_path / "merged")
    assert "2 .ds files" in typed("tokens", "export-ds", out, tmp_path / "ds")
    tokenizer = out / "tokens" / "tokenizer.json"
    back = typed("tokens", "import-ds", tmp_path / "ds", tmp_path / "back", "--tokenizer", tokenizer, "--ignore-loss")
    assert "2 shards" in back
    assert "removed" in typed("inspect", "tokens", tmp_path / "merged", "--document", "0", "--source", "code")
    assert "document 0" in typed("inspect", "tokens", tmp_path / "back", "--shard", "ds-00001-of-00002")


def test_wrong_commands_are_refused_in_words(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def typed(*arguments: str | Path, code: int) -> str:
        return stackbuild(capsys, *arguments, code=code)

    assert "Name what to take out" in typed("tokens", "remove", out, code=2)
    assert "is no content_id" in typed("tokens", "remove", out, "--content-id", "12", code=2)
    assert "cannot be read" in typed("tokens", "remove", out, "--repo", "a/b/c/d", code=4)
    assert "cannot be read" in typed("tokens", "remove", out, "--list", tmp_path / "none", code=4)
    assert "has no tokens" in typed("tokens", "remove", tmp_path, "--repo", "a/b", code=4)
    assert "needs a folder to read and one to write" in typed("tokens", "merge", out, code=2)
    assert "--split nothing: there are train" in typed(
        "tokens", "import-ds", out, tmp_path / "x", "--tokenizer", tmp_path / "t", "--split", "nothing", code=2
    )
    assert "letters, digits" in typed(
        "tokens", "import-ds", out, tmp_path / "x", "--tokenizer", tmp_path / "t", "--source", "../x", code=2
    )
    assert "has no such shard" in typed("inspect", "tokens", out, "--split", "no", code=4)
    assert "no document 999" in typed("inspect", "tokens", out, "--document", "999", code=4)


def test_a_removed_document_is_shown_as_removed(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = TokensDataset(out)
    number, document = next((k, d) for k, (_, d) in enumerate(dataset) if d.row["files"][0]["path"].endswith(".py"))
    word = "contact.py" if any(f["path"].endswith("contact.py") for f in document.row["files"]) else ".py"
    plain = stackbuild(capsys, "inspect", "tokens", out, "--document", str(number))
    assert word in plain and "removed" not in plain
    content = document.row["files"][0]["content_id"]
    remove(out, parse(f"swh:1:cnt:{content}"))
    shown = stackbuild(capsys, "inspect", "tokens", out, "--document", str(number))
    span = document.row["files"][0]
    assert f"[{span['end'] - span['start']:,} tokens removed]" in shown and content not in shown
    remove(out, parse(document.row["repo_name"]))
    shown = stackbuild(capsys, "inspect", "tokens", out, "--document", str(number))
    assert f"[{len(document.tokens):,} tokens removed]" in shown
