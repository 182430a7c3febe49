"""Natural language of prose: what of a file is prose, what the model is asked, and who leaves."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild.errors import RecipeError
from stackbuild.graph import check, nodes_of
from stackbuild.layout.columns import released
from stackbuild.quality.examples import Tables
from stackbuild.quality.natural_language import PROSE, NaturalLanguage, NaturalLanguageOptions, prose
from stackbuild.quality.training import TrainOptions, train
from stackbuild.stage import judge, with_columns

WORDS = {
    "en": "the library is used to read and write files with all of their options and it is fast",
    "de": "die Bibliothek wird benutzt um Dateien mit allen ihren Optionen zu lesen und schreiben",
    "ja": "この ライブラリ は すべて の ファイル を 読み書き する",
}


def text_in(language: str, number: int = 0, words: int = 30) -> str:
    """Words of a language in no order."""
    draw = random.Random(f"{language} {number}")
    return " ".join(draw.choice(WORDS[language].split()) for _ in range(words))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three languages."""
    where = tmp_path_factory.mktemp("model")
    rows = [(text_in(language, number), language) for language in WORDS for number in range(60)]
    table = pa.table({"text": [text for text, _ in rows], "label": [label for _, label in rows]})
    pq.write_table(table, where / "in.parquet")
    options = TrainOptions(dim=8, buckets=500, min_count=1, epochs=25, word_ngrams=1, tokens="plain")
    train(Tables([str(where / "in.parquet")], "label", "text", None), where / "lid.ftz", options)
    return where / "lid.ftz"


def files(*rows: tuple[str | None, str | None]) -> pa.RecordBatch:
    """(text, language) as a batch."""
    return pa.record_batch(
        {
            "text": pa.array([text for text, _ in rows], pa.large_string()),
            "language": pa.array([language for _, language in rows], pa.string()),
        }
    )


def told(model: Path, batch: pa.RecordBatch, **options: Any) -> list[str | None]:
    stage = NaturalLanguage(NaturalLanguageOptions(model=str(model), **options))
    found = stage.tags(batch)
    assert [(name, column.type) for name, column in found.items()] == [(f.name, f.type) for f in stage.adds]
    names: list[str | None] = found["natural_language"].to_pylist()
    scores = found["natural_language_score"].to_pylist()
    assert [name is None for name in names] == [score is None for score in scores]
    assert all(score is None or 0.5 <= score <= 1 for score in scores)
    return names


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Before\n```python\nfor x in y:\n```\nafter `code` end", "Before after end"),
        ("Before\n  ~~~\ncode\n~~~\nafter\n```\nnever closed", "Before after"),
        ("a <b class='x'>bold</b> <!-- hidden > --> word", "a bold word"),
        ("see [the page](docs/page.md), http://example.org/a/b?c or ftp://x.y", "see the page or"),
        ("# Title #1\n\n* item_one - 2.5 %\n| a | b |", "Title item one a b"),
        ("l’été n'est pas </s> __label__fr", "l’été n'est pas label fr"),
        ("ไทย हिन्दी", "ไทย हिन्दी"),
        ("", ""),
        (None, None),
    ],
)
def test_what_is_no_prose_is_taken_out(text: str | None, left: str | None) -> None:
    assert prose(pa.array([text], pa.large_string()), 1000).to_pylist() == [left]


def test_the_language_of_prose_is_told_and_of_nothing_else(model: Path) -> None:
    batch = files(
        (text_in("en", 100), "Markdown"),
        (text_in("de", 100), "Text"),
        (text_in("ja", 100), "reStructuredText"),
        (text_in("en", 101), "Python"),
        (text_in("en", 102), None),
        (None, "Markdown"),
        ("", "Markdown"),
        ("```\n" + text_in("en", 103) + "\n```\n", "Markdown"),
    )
    assert told(model, batch) == ["en", "de", "ja", None, None, None, None, None]
    assert told(model, batch, languages=["Python"]) == [None, None, None, "en", None, None, None, None]


def test_too_few_letters_and_a_low_score_are_not_clear(model: Path) -> None:
    assert told(model, files(("the library is used to read", "Text"))) == [None]
    assert told(model, files(("the library is used to read", "Text")), min_letters=22) == ["en"]
    mixed = files((f"{text_in('en', 1, 20)} {text_in('de', 1, 20)}", "Text"))
    stage = NaturalLanguage(NaturalLanguageOptions(model=str(model), min_score=0))
    score = stage.tags(mixed)["natural_language_score"][0].as_py()
    assert 0 < score < 1
    assert told(model, files((text_in("en"), "Text")), min_score=0.5) == ["en"]
    assert NaturalLanguage(NaturalLanguageOptions(model=str(model), min_score=min(1.0, score + 0.01))).tags(mixed)[
        "natural_language"
    ].to_pylist() == [None]


def test_keep_drops_other_languages_by_their_name_and_score(model: Path) -> None:
    batch = files(
        (text_in("en", 1), "Markdown"), (text_in("de", 1), "Markdown"), ("short", "Markdown"), (text_in("de", 1), "C")
    )
    for unknown, kept in (("keep", [True, False, True, True]), ("drop", [True, False, False, True])):
        stage = NaturalLanguage(NaturalLanguageOptions(model=str(model), keep=("en", "ja"), unknown=unknown))
        whole = with_columns(batch, stage.tags(batch))
        keep, left = judge(stage.verdicts(whole), batch.num_rows)
        assert keep.to_pylist() == kept
        verdict = left[0].verdict
        assert verdict.rule == "natural-language" and verdict.detail is not None and verdict.value is not None
        assert verdict.detail.to_pylist()[1:3] == ["de", "not clear"]
        assert verdict.value[1].as_py() == whole["natural_language_score"][1].as_py()
    assert list(NaturalLanguage(NaturalLanguageOptions(model=str(model))).verdicts(batch)) == []


def test_answers_do_not_depend_on_the_batch(model: Path) -> None:
    rows = [(text_in(name, number), kind) for number in range(40) for name in WORDS for kind in ("Text", "C", "Org")]
    assert told(model, files(*rows)) == [told(model, files(row))[0] for row in rows]


def test_a_hostile_file_takes_linear_time(model: Path) -> None:
    """Each is what one of the expressions begins on, again and again, and never ends."""
    for piece in ("```\n", "`", "<!--", "<", "a://", "](", "~~~ ", "a" * 9 + "́"):
        long = files((piece * (1_000_000 // len(piece)), "Markdown"))
        begun = time.process_time()
        told(model, long, head_chars=1 << 20)
        assert time.process_time() - begun < 2, piece


def test_prose_is_what_linguist_says() -> None:
    program = (
        f"import enry; print([enry.get_language_type(name) for name in {PROSE!r}])"  # enry must not be loaded here
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == repr(["prose"] * len(PROSE))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": ["english"]}, "knows no english; it knows"),
        ({"sha256": "0" * 64}, "natural_language.sha256: "),
        ({"model": "nowhere.ftz"}, "nowhere.ftz' cannot be read"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_before_the_run(
    model: Path, options: dict[str, Any], message: str
) -> None:
    recipe = {
        "stages": ["exact_dedup", "decode", "languages", "signals", "natural_language"],
        "outputs": [],
        "exact_dedup": {"winner": []},
        "natural_language": {"model": str(model), **options},
    }
    with pytest.raises(RecipeError, match=message):
        check(nodes_of(recipe))


def test_a_release_tells_it(model: Path) -> None:
    batch = files((text_in("en", 1), "Markdown"), ("x = 1", "Python"))
    stage = NaturalLanguage(NaturalLanguageOptions(model=str(model)))
    row = released(with_columns(batch, stage.tags(batch)))
    assert row["natural_language"].to_pylist() == ["en", None]
    assert row["natural_language_score"].type == pa.float32()
