"""The figures of `pii score` are those that the rule says, and a file that lies is told with line and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from stackbuild.cli.app import app
from stackbuild.errors import InputError, StackbuildError
from stackbuild.pii import creddata
from stackbuild.pii.gold import Reading, read_gold
from stackbuild.pii.score import Document, Mark, Pair, Positions, Score, is_ignored, matched

MAIL = "jo.doe@" + "gmail.com"


def run(*words: str | Path, code: int = 0) -> Any:
    """Run the command in this process: its JSON, or the error."""
    found = CliRunner().invoke(app, ["pii", "score", *map(str, words)])
    if isinstance(found.exception, StackbuildError):
        assert found.exception.exit_code == code, found.exception
        return str(found.exception)
    assert found.exit_code == code, (found.output, found.exception)
    return json.loads(found.stdout) if "--json" in words else found.stdout


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def mark(start: int, end: int, entity: str = "EMAIL") -> Mark:
    return Mark(start, end, entity)


# ---------------------------------------------------------------- the rule


@pytest.mark.parametrize(
    ("predicted", "gold", "meets"),
    [
        ((0, 10), (0, 10), True),
        ((0, 9), (0, 10), True),
        ((0, 8), (0, 10), False),  # exactly 0.8 of the reference
        ((0, 10), (0, 8), False),  # exactly 0.8 of the prediction
        ((0, 100), (0, 81), True),
        ((0, 10), (10, 20), False),
    ],
)
def test_overlap_must_exceed_eight_tenths_of_both(
    predicted: tuple[int, int], gold: tuple[int, int], meets: bool
) -> None:
    assert (Pair(mark(*predicted), mark(*gold)) in matched([mark(*predicted)], [mark(*gold)])) is meets


def test_two_predictions_for_one_reference_are_one_true_and_one_false() -> None:
    gold, near, nearer = mark(0, 100), mark(5, 100), mark(2, 100)
    assert matched([near, nearer], [gold]) == [Pair(nearer, gold), Pair(near, None)]
    score = Score()
    score.add(Document("", None, "x" * 100, [gold]), [near, nearer])
    told = score.told()["entities"]["EMAIL"]
    assert (told["true"], told["false"], told["missed"]) == (1, 1, 0)
    assert (told["precision"], told["recall"], told["f1"]) == (0.5, 1.0, 2 / 3)


def test_one_prediction_for_two_references_finds_the_one_of_larger_overlap() -> None:
    inner, outer, found = mark(0, 90), mark(0, 100), mark(0, 97)
    assert matched([found], [inner, outer]) == [Pair(found, outer), Pair(None, inner)]


def test_a_tie_goes_by_place_and_the_answer_does_not_depend_on_the_order() -> None:
    golds, found = [mark(0, 10), mark(1, 11)], [mark(0, 10), mark(1, 11)]
    for one in (found, found[::-1]):
        for other in (golds, golds[::-1]):
            assert matched(one, other) == [Pair(found[0], golds[0]), Pair(found[1], golds[1])]


def test_another_entity_is_no_match_but_for_the_row_that_does_not_ask() -> None:
    score = Score()
    score.add(Document("", None, "x" * 20, [mark(0, 10, "KEY")]), [mark(0, 10, "PASSWORD"), mark(12, 14, "KEY")])
    told = score.told()
    assert told["entities"]["KEY"]["true"] == 0 and told["entities"]["KEY"]["missed"] == 1
    assert told["entities"]["PASSWORD"]["false"] == 1
    assert (told["any"]["true"], told["any"]["false"], told["any"]["missed"]) == (1, 1, 0)
    assert {"predicted": "PASSWORD", "gold": "KEY", "count": 1} in told["confusion"]
    assert {"predicted": "KEY", "gold": None, "count": 1} in told["confusion"]


def test_an_ignored_region_is_neither_missed_nor_false() -> None:
    regions = [mark(0, 5, "NAME"), mark(5, 10)]
    assert is_ignored(mark(0, 10), regions) and is_ignored(mark(1, 12), [mark(0, 12)])
    assert not is_ignored(mark(0, 10), [mark(0, 8)])  # exactly 0.8
    score = Score()
    score.add(Document("", None, "x" * 20, [], [mark(0, 10)]), [mark(0, 10), mark(15, 20)])
    told = score.told()["entities"]["EMAIL"]
    assert (told["ignored"], told["false"], told["missed"]) == (1, 1, 0)


def test_what_was_not_looked_for_is_not_missed() -> None:
    score = Score(["EMAIL"])
    score.add(Document("", None, "x" * 20, [mark(0, 5, "NAME"), mark(6, 9)]), [])
    assert list(score.told()["entities"]) == ["EMAIL"] and score.told()["not_looked_for"] == {"NAME": 1}


def test_bytes_are_counted_as_characters() -> None:
    positions = Positions("aé\ud800𝕏z")
    assert [positions.character(byte) for byte in (0, 1, 3, 4, 8, 9)] == [0, 1, 2, 3, 4, 5]
    for inside in (2, 5, 10, -1):
        with pytest.raises(ValueError, match=r"byte|outside"):
            positions.character(inside)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("text_field", ["text", "content"])
@pytest.mark.parametrize("field", ["spans", "entities", "fragments", "labels", "pii"])
@pytest.mark.parametrize(
    "span",
    [
        {"start": 4, "end": 9, "entity": "EMAIL"},
        {"position": [4, 9], "category": "EMAIL", "value": "éa@bc"},
        {"position": "[4, 9]", "tag": "e-mail"},
        {"start": 4, "end": 9, "entity_type": "EMAIL_ADDRESS"},
        [4, 9, "email"],
    ],
)
def test_names_of_fields_are_taken_leniently(tmp_path: Path, text_field: str, field: str, span: Any) -> None:
    path = written(tmp_path / "gold.jsonl", {text_field: "to: éa@bc.", field: [span], "language": "C", "id": 7})
    (found,) = read_gold(path, Reading())
    assert found.marks == [Mark(4, 9, "EMAIL")] and found.language == "C" and found.id == "7"


def test_positions_in_bytes(tmp_path: Path) -> None:
    path = written(
        tmp_path / "gold.jsonl",
        {"text": "é éa@bc", "spans": [{"start": 3, "end": 9, "label": "EMAIL", "value": "éa@bc"}]},
    )
    (found,) = read_gold(path, Reading("bytes"))
    assert found.marks == [Mark(2, 7, "EMAIL")]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("EMAIL-LICENSE", ("EMAIL", False)),
        ("EMAIL_LICENSE", ("EMAIL", False)),
        ("NAME-EXAMPLE", ("NAME", False)),
        ("USERNAME_EXAMPLE", ("USERNAME", False)),
        ("AMBIGUOUS", ("AMBIGUOUS", False)),
        ("ID", ("ID", False)),
        ("IP_ADDRESS", ("IP_ADDRESS", True)),
        ("KEY", ("KEY", True)),
        ("SHOE_SIZE", ("SHOE_SIZE", True)),
    ],
)
def test_labels_of_the_published_layout(label: str, expected: tuple[str, bool]) -> None:
    assert Reading().entity(label) == expected


def test_variants_count_when_asked() -> None:
    assert Reading(licenses=True).entity("EMAIL-LICENSE") == ("EMAIL", True)
    assert Reading(examples=True).entity("EMAIL_EXAMPLE") == ("EMAIL", True)
    assert Reading(licenses=True).entity("EMAIL_EXAMPLE_LICENSE") == ("EMAIL", False)
    assert Reading(licenses=True, examples=True).entity("AMBIGUOUS-LICENSE") == ("AMBIGUOUS", False)
    assert Reading(licenses=True, examples=True).entity("AMBIGUOUS") == ("AMBIGUOUS", False)


def test_the_published_layout_as_parquet_gives_what_lines_give(tmp_path: Path) -> None:
    text = f"# {MAIL} and Jo Doe"
    fragments = [
        {"category": "EMAIL", "position": [2, 2 + len(MAIL)], "value": MAIL},
        {"category": "NAME-LICENSE", "position": [len(text) - 6, len(text)], "value": "Jo Doe"},
    ]
    row = {"id": "a1", "text": text, "language": "python", "type": "train", "fragments": fragments}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "gold.parquet")
    told = [run(tmp_path / "gold.parquet", "--json"), run(written(tmp_path / "gold.jsonl", row), "--json")]
    assert told[0] == told[1]
    assert told[0]["entities"]["EMAIL"]["f1"] == 1.0
    assert told[0]["languages"]["python"]["EMAIL"]["true"] == 1


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ('{"text": "a", "spans": [', "line 2: no JSON"),
        ("[1]", "line 2: it is not an object"),
        ({"body": "a", "spans": []}, "line 2: no text under"),
        ({"text": "a"}, "line 2: no list of spans"),
        ({"text": "abc", "spans": [[0, 9, "KEY"]]}, r"line 2, spans\[0\]: 0 to 9 is no part"),
        ({"text": "abc", "spans": [[2, 2, "KEY"]]}, r"line 2, spans\[0\]: 2 to 2 is no part"),
        ({"text": "abc", "spans": [[0, 2, "KEY"], [1, 3, "KEY"]]}, "line 2: labels overlap"),
        ({"text": "abc", "spans": [["0", 2, "KEY"]]}, r"spans\[0\]: positions are whole numbers"),
        ({"text": "abc", "spans": [{"start": 0, "end": 2}]}, r"spans\[0\]: no name"),
        ({"text": "abc", "spans": ["KEY"]}, r"spans\[0\]: a span is an object"),
        ({"text": "abc", "spans": [{"label": "KEY"}]}, r"spans\[0\]: neither start"),
        (
            {"text": "abc", "fragments": [{"category": "KEY", "position": [0, 2], "value": "bc"}]},
            r"fragments\[0\]\.value",
        ),
    ],
)
def test_a_file_that_lies_is_told_with_line_and_field(tmp_path: Path, row: Any, told: str) -> None:
    path = written(tmp_path / "gold.jsonl", {"text": "", "spans": []}, row)
    with pytest.raises(InputError, match=f"gold.jsonl, {told}" if told.startswith("line") else told):
        list(read_gold(path, Reading()))


def test_predictions_of_others_are_joined_by_id_or_line(tmp_path: Path) -> None:
    gold = written(
        tmp_path / "gold.jsonl",
        {"id": "a", "text": "0123456789", "spans": [[0, 5, "NAME"]]},
        {"id": "b", "text": "0123456789", "spans": [[0, 5, "KEY"]]},
    )
    by_id = written(
        tmp_path / "p.jsonl", {"id": "b", "spans": [[0, 5, "KEY"]]}, {"id": "a", "entities": [[5, 9, "NAME"]]}
    )
    told = run(gold, "--predictions", by_id, "--json")
    assert told["entities"]["KEY"]["f1"] == 1.0 and told["entities"]["NAME"]["f1"] == 0.0
    by_line = written(tmp_path / "q.jsonl", {"spans": [[0, 5, "NAME"]]}, {"spans": []})
    assert run(gold, "--predictions", by_line, "--json")["entities"]["NAME"]["f1"] == 1.0
    assert "nothing of" in run(gold, "--predictions", written(tmp_path / "r.jsonl", {"id": "b", "spans": []}), code=4)
    more = written(tmp_path / "s.jsonl", *({"id": i, "spans": []} for i in "abc"))
    assert "has not" in run(gold, "--predictions", more, code=4)


def test_detectors_are_run_on_texts_that_are_not_ascii(tmp_path: Path) -> None:
    text = f"\ud800 ä {MAIL}"
    gold = written(tmp_path / "gold.jsonl", {"text": text, "spans": [[4, len(text), "EMAIL"], [0, 3, "NAME"]]})
    told = run(gold, "--entities", "EMAIL", "--json")
    assert told["entities"]["EMAIL"]["true"] == 1 and told["not_looked_for"] == {"NAME": 1}
    assert "EMAIL" in run(gold) and MAIL not in run(gold)


def test_errors_are_shown_on_a_terminal_only(tmp_path: Path) -> None:
    gold = written(tmp_path / "gold.jsonl", {"text": "abc", "spans": []})
    assert "terminal" in run(gold, "--errors", "3", code=2)
    assert "terminal" in run(gold, "--errors", "3", "--json", code=2)
    score = Score(errors=1)
    score.add(Document("f, line 1", None, "x" * 40 + MAIL + "y" * 40, [mark(40, 40 + len(MAIL))]), [])
    (shown,) = score.shown
    assert shown.value == MAIL and len(shown.before) == len(shown.after) == 30
    assert MAIL not in json.dumps(score.told())


# ---------------------------------------------------------------- CredData


@pytest.mark.parametrize(
    ("category", "group"),
    [
        ("UUID", ""), ("Salt:Nonce", ""), ("Seed, Salt, Nonce", ""), ("PEM Private Key", "PEM"), ("Private Key", "PEM"),
        ("Password", "password"), ("Key:Password", "password"), ("URL Credentials", "URL credentials"),
        ("Generic Secret", "generic"), ("Token:Auth", "generic"), ("AWS Client ID", "provider"), ("Salt:Key", "generic"),
    ],
)  # fmt: skip
def test_a_category_has_its_group(category: str, group: str) -> None:
    assert creddata.group_of(category) == group


def _checkout(root: Path, labels: str) -> Path:
    (root / "meta").mkdir(parents=True)
    (root / "data/r1").mkdir(parents=True)
    (root / "data/r1/a.txt").write_text("one\ntwo KEY\nthree KEY\nKEY\nfive\nsix KEY\n")
    head = "Id,RepoName,FilePath,LineStart,LineEnd,GroundTruth,ValueStart,ValueEnd,Category\n"
    (root / "meta/r1.csv").write_text(head + labels)
    return root


def _keys(texts: pa.Array) -> pa.Array:
    """Finds the word KEY."""
    found = []
    for text in texts.to_pylist():
        at = [i for i in range(len(text)) if text.startswith("KEY", i)]
        found.append([{"start": i, "end": i + 3, "entity": "KEY", "rule": "word"} for i in at])
    return pa.array(found)


def test_creddata_counts_lines(tmp_path: Path) -> None:
    root = _checkout(
        tmp_path,
        "1,r1,data/r1/a.txt,1,1,T,,,Password\n"  # missed
        "2,r1,data/r1/a.txt,2,2,T,4,7,Key\n"  # found
        "3,r1,data/r1/a.txt,2,2,F,,,Secret\n"  # of the same line, which is true
        "4,r1,data/r1/a.txt,3,3,F,,,Key\n"  # flagged
        "5,r1,data/r1/a.txt,4,4,T,,,UUID\n"  # left out
        "6,r1,data/r1/a.txt,5,5,X,,,Password\n"  # no verdict
        "7,r1,data/r1/gone.txt,5,5,T,,,Password\n",
    )
    told = creddata.score(root, _keys).told()
    lines = told["lines"]
    assert (lines["true"], lines["true_flagged"], lines["false"], lines["false_flagged"]) == (2, 1, 1, 1)
    assert (lines["precision"], lines["recall"]) == (0.5, 0.5)
    assert told["groups"]["password"]["recall"] == 0 and told["groups"]["generic"]["recall"] == 1
    assert told["findings_elsewhere"] == 1 and told["missing_files"] == 1 and told["macro_recall"] == 0.5
    assert told["rules_not_true"] == {"word": 2}
    assert "r1" in run(root, "--format", "creddata")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ("1,r1,data/r1/a.txt,99,99,T,,,Password\n", "a.txt has 7 lines"),
        ("1,r1,data/r1/a.txt,x,1,T,,,Password\n", "r1.csv, line 2: LineStart"),
        ("1,r1,data/r1/a.txt,2,1,T,,,Password\n", "r1.csv, line 2: LineStart 2"),
        ("1,r1,data/r1/a.txt,1,1,Q,,,Password\n", "line 2: GroundTruth"),
        ("1,r1,,1,1,T,,,Password\n", "line 2: no FilePath"),
        ("1,r1,../../etc/passwd,1,1,T,,,Password\n", "leads out"),
        ("1,r1,data/r1/gone.txt,1,1,T,,,Password\n", "none of the labelled files"),
        ("1,r1,data/r1/a.txt,inf,inf,T,,,Password\n", "r1.csv, line 2: LineStart"),
        ("1,r1,data/r1/\0,1,1,T,,,Password\n", "cannot be read: no file has such a name"),
        (f"1,r1,{'x' * 5000},1,1,T,,,Password\n", "cannot be read: File name too long"),
        (f"1,r1,{'x' * 200_000},1,1,T,,,Password\n", "r1.csv cannot be read as CSV"),
    ],
)
def test_creddata_that_lies_is_told(tmp_path: Path, labels: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        creddata.score(_checkout(tmp_path, labels), _keys)
    with pytest.raises(InputError, match="no checkout"):
        creddata.score(tmp_path / "data", _keys)
