"""The classifier: how text is cut, what a model's file must be, training, the stage and its commands."""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from stackbuild import registry
from stackbuild.cli.app import app
from stackbuild.errors import InputError, RecipeError, UsageError
from stackbuild.graph import check, nodes_of
from stackbuild.identity import stage_identity
from stackbuild.layout.columns import released
from stackbuild.quality.cards import card_path, read_card
from stackbuild.quality.classifier import Classifier, ClassifierOptions
from stackbuild.quality.examples import Folders, LeftOut, Tables, is_held_out
from stackbuild.quality.fasttext_file import library, read_model
from stackbuild.quality.tokens import GROUP_BYTES, WORST, lines
from stackbuild.quality.training import THRESHOLDS, TrainOptions, train
from stackbuild.stage import judge, with_columns

SMALL = TrainOptions(dim=8, buckets=500, min_count=1, held_out=0.3, epochs=25)


def program(label: str, number: int) -> str:
    """A text that one can tell the label of, unlike any other."""
    words = {"positive": ["solve", "graph", "node"], "negative": ["render", "widget", "pixel"]}.get(label, [label] * 3)
    draw = random.Random(f"{label} {number}")
    return "".join(f"def {draw.choice(words)}(x{number}):\n    return {draw.choice(words)}\n" for _ in range(20))


def folders(where: Path, labels: tuple[str, ...] = ("positive", "negative"), packages: int = 12) -> Folders:
    """A folder for each label, in which each package has three files."""
    for label in labels:
        for package in range(packages):
            folder = where / label / f"package{package}"
            folder.mkdir(parents=True)
            for number in range(3):
                (folder / f"{number}.py").write_text(program(label, 3 * package + number))
    return Folders([(label, where / label) for label in labels])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of positive and negative, and its card."""
    where = tmp_path_factory.mktemp("model")
    train(folders(where), where / "model.bin", SMALL)
    return where / "model.bin"


def texts(*values: str | None) -> pa.Array:
    return pa.array(values, pa.large_string())


# ---------------------------------------------------------------- text to lines


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("def f(x):\r\n\treturn x_1\n", "def f ( x ) : <nl> return x_1 <nl>"),
        ("0 12 123 0x1F 1.5e3 1. a1", "0 12 <num> <num> <num> 1 . a1"),
        ("é привет 漢字 — 😀", "é привет 漢 字 — 😀"),
        ("a" * 64 + " " + "b" * 65, "a" * 64 + " <long>"),
        ("__label__spam x__label__ __label_", "_ _label__spam x__label__ __label_"),
        ("</s>", "< / s >"),
        ("a\0b\x7fc\x1f", "a b c"),
        (" \t\f", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_code_is_cut_into_words_numbers_and_symbols(text: str | None, line: str) -> None:
    assert list(lines(texts(text))) == [line.encode()]


def test_plain_text_is_cut_at_white_space_and_says_nothing_that_is_fasttexts_own() -> None:
    plain = list(lines(texts("One two.\n three</s> </s> __label__x __label__", "\n", None), "plain"))
    assert plain == [b"One two. three</s> < /s> _ _label__x _ _label__", b"", b""]


def test_a_head_ends_before_a_character_that_would_be_cut() -> None:
    assert list(lines(texts("aé", "ab", "漢"), "code", 2)) == [b"a", b"ab", b""]


def test_lines_are_the_same_whatever_they_are_written_with() -> None:
    many = [program("positive", number) * (1 + number % 50) for number in range(300)]
    assert sum(map(len, many)) > 3 * GROUP_BYTES
    alone = [next(lines(texts(one))) for one in many]
    assert list(lines(texts(*many))) == alone
    assert list(lines(texts("x", *many, "y").slice(1, len(many)))) == alone


def test_a_null_with_bytes_in_its_buffer_has_no_word() -> None:
    whole = texts("abc", "def")
    buffers = [pa.py_buffer(bytes([0b10])), *whole.buffers()[1:]]
    assert list(lines(pa.Array.from_buffers(pa.large_string(), 2, buffers))) == [b"", b"def"]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["code", "plain"]), st.integers(1, 40))
@settings(max_examples=300, deadline=None)
def test_a_line_is_one_line_of_utf8_without_fasttexts_own_words(text: str, tokens: Any, head: int) -> None:
    [line] = lines(texts(text), tokens, head)
    assert len(line) <= WORST * len(text.encode()) and b"\n" not in line
    words = line.decode().split(" ") if line else []
    assert all(words) and "</s>" not in words and not any(word.startswith("__label__") for word in words)


# ---------------------------------------------------------------- a model's file


def rejected(tmp_path: Path, raw: bytes) -> str:
    path = tmp_path / "bad.bin"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"bad\.bin is no fastText classifier that can be used: ") as told:
        read_model(path)
    return str(told.value)


@pytest.mark.parametrize("quantize", [False, True])
def test_a_model_that_was_cut_anywhere_is_refused(tmp_path: Path, quantize: bool) -> None:
    where = tmp_path / "sound.bin"
    train(folders(tmp_path), where, TrainOptions(dim=2, buckets=300, held_out=0, quantize=quantize))
    raw = where.read_bytes()
    assert read_model(where).quantized is quantize
    for size in [*range(0, 200), *range(200, len(raw), max(1, len(raw) // 150)), len(raw) - 1]:
        rejected(tmp_path, raw[:size])
    assert "bytes follow its end" in rejected(tmp_path, raw + b"\0")


@pytest.mark.parametrize("raw", [b"", b"garbage", bytes(4096), random.Random(1).randbytes(100_000)])
def test_what_is_no_model_is_refused_by_its_name(tmp_path: Path, raw: bytes) -> None:
    rejected(tmp_path, raw)


# Where the numbers of the header lie: magic, version, then twelve of the arguments and a double, then the dictionary's.
@pytest.mark.parametrize(
    ("at", "layout", "value", "told"),
    [
        (0, "i", 1, "does not begin as one"),
        (4, "i", 99, "version 99"),
        (8, "i", 2_000_000_000, "2,000,000,000 dimensions"),
        (28, "i", 1000, "n-grams are of 1,000"),
        (32, "i", 9, "loss is number 9"),
        (36, "i", 1, "word vectors"),
        (40, "i", 0, "0 buckets"),
        (40, "i", 2_000_000_000, "its table of words is of"),
        (48, "i", 30, "n-grams are of 30"),
        (64, "i", 2_000_000_000, "words and 2 labels"),
        (68, "i", -5, "-5 words"),
        (72, "i", 0, "0 labels"),
        (84, "q", 10**15, "ends within its index of n-grams"),
        (84, "q", 0, "pruned and not quantized"),
    ],
)
def test_a_false_number_in_the_header_is_refused(
    model: Path, tmp_path: Path, at: int, layout: str, value: int, told: str
) -> None:
    raw = bytearray(model.read_bytes())
    struct.pack_into(f"<{layout}", raw, at, value)
    assert told in rejected(tmp_path, bytes(raw))


def test_numbers_that_are_not_finite_and_sizes_that_do_not_follow_are_refused(model: Path, tmp_path: Path) -> None:
    raw = model.read_bytes()
    assert "not finite" in rejected(tmp_path, raw[:-4] + np.float32(np.nan).tobytes())
    labels = len(raw) - 4 * SMALL.dim * 2 - 16
    assert "its table of labels is of 3 by 8, not 2 by 8" in rejected(
        tmp_path, raw[:labels] + struct.pack("<q", 3) + raw[labels + 8 :]
    )
    word = raw.index(b"\0", 92)
    assert "its word 1 of" in rejected(tmp_path, raw[: word + 9] + b"\1" + raw[word + 10 :])
    label = raw.index(b"__label__")
    assert "is not UTF-8" in rejected(tmp_path, raw[:label] + b"\xff" + raw[label + 1 :])


def test_any_byte_of_a_models_head_may_be_wrong_and_nothing_but_an_error_comes_of_it(
    model: Path, tmp_path: Path
) -> None:
    raw, draw = model.read_bytes(), random.Random(3)
    for at in range(0, 400):
        bad = bytearray(raw)
        bad[at] ^= 1 << draw.randrange(8)
        (tmp_path / "bad.bin").write_bytes(bad)
        try:
            found = read_model(tmp_path / "bad.bin").model
        except InputError:
            continue
        assert all(0 <= score <= 1 for score in found.scores(b"def solve ( x )").values())


def test_a_folder_a_device_and_nothing_at_all_are_no_models(tmp_path: Path) -> None:
    for path in (tmp_path, "/dev/zero", tmp_path / "none"):
        with pytest.raises(InputError, match=str(path)):
            read_model(path)
    for name in ("a\0b", "a\ud800b"):
        with pytest.raises(InputError, match="no file can have this name"):
            read_model(name)


def test_a_model_loads_and_tells_its_labels(model: Path) -> None:
    file = read_model(model)
    assert sorted(file.labels) == ["negative", "positive"] and file.digest == read_card(model).model_sha256
    [line] = lines(texts(program("positive", 1000)))
    scores = file.model.scores(line)
    assert scores["positive"] > 0.8 and file.model.best(line) == ("positive", scores["positive"])
    assert file.model.best(b"") is None and file.model.scores(b"") == {}
    assert file.model.scores(b"\xff\xfe \0") == file.model.scores(b"\xff\xfe \0")


# ---------------------------------------------------------------- training


def test_ten_trainings_give_the_same_bytes(tmp_path: Path) -> None:
    """Other packages of this module's name fail at random, with NaN (fasttext 0.9.3, -numpy2), on the same input."""
    source = folders(tmp_path, packages=40)
    found = set()
    for number in range(10):
        card, _ = train(source, tmp_path / f"{number}.bin", SMALL)
        found.add((tmp_path / f"{number}.bin").read_bytes())
        assert (tmp_path / f"{number}.bin.json").read_bytes() == (tmp_path / "0.bin.json").read_bytes()
        assert card.repeatable
    assert len(found) == 1
    assert not list(tmp_path.glob(".training*"))


def test_the_order_of_files_does_not_change_a_model(tmp_path: Path) -> None:
    rows = [(program(label, n), label, f"owner/{n // 4}") for label in ("positive", "negative") for n in range(80)]
    digests = set()
    for number in range(2):
        random.Random(number).shuffle(rows)
        table = pa.table(dict(zip(("text", "label", "repo_name"), map(list, zip(*rows, strict=True)), strict=True)))
        pq.write_table(table, tmp_path / f"{number}.parquet")
        source = Tables([str(tmp_path / f"{number}.parquet")], "label", "text", None)
        digests.add(train(source, tmp_path / "model.bin", SMALL)[0].model_sha256)
    assert len(digests) == 1


def test_no_group_is_on_both_sides_and_the_card_counts_them(tmp_path: Path) -> None:
    """A text that is as good as the name of its group: had the group been on both sides, the names would be known."""
    source = folders(tmp_path)
    card, left_out = train(source, tmp_path / "model.bin", SMALL)
    held_out = [n for n in range(12) if is_held_out(f"package{n}", SMALL.seed, SMALL.held_out)]
    assert 0 < len(held_out) < 12
    for label in ("positive", "negative"):
        assert card.labels[label].held_out == 3 * len(held_out)
        assert card.labels[label].trained == 36 - 3 * len(held_out)
    assert card.held_out.groups == len(held_out) and not left_out.counts.total()
    words = library().load_model(str(tmp_path / "model.bin")).get_words()
    for package in range(12):
        assert (f"x{3 * package}" in words) is (package not in held_out)


def test_the_card_tells_how_good_the_model_is_on_what_was_held_out(model: Path) -> None:
    card = read_card(model)
    assert card is not None and card.held_out.accuracy == 1.0 and card.left_out == {}
    for label in ("positive", "negative"):
        assert card.held_out.likeliest[label].recall == 1.0
        assert list(card.held_out.thresholds[label]) == [f"{limit:g}" for limit in THRESHOLDS]
        given = [one.given for one in card.held_out.thresholds[label].values()]
        assert given == sorted(given, reverse=True)
    assert (
        card.options["seed"] == SMALL.seed and card.tokens == "code" and card.engine.startswith("fasttext-community ")
    )
    assert str(model.parent) not in card_path(model).read_text()


def test_one_label_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="A classifier needs two labels; all 36 files have 'positive'"):
        train(folders(tmp_path, ("positive",)), tmp_path / "model.bin", SMALL)
    assert not (tmp_path / "model.bin").exists()


def test_an_empty_folder_and_one_that_is_not_there_are_refused(tmp_path: Path) -> None:
    folders(tmp_path, ("positive",))
    (tmp_path / "negative").mkdir()
    for name, told in (("negative", "has no files"), ("nothing", "is no folder")):
        source = Folders([("positive", tmp_path / "positive"), ("negative", tmp_path / name)])
        with pytest.raises(InputError, match=f"{name}, the folder of the label 'negative', {told}"):
            train(source, tmp_path / "model.bin", SMALL)


def test_a_label_all_of_whose_groups_are_held_out_is_refused(tmp_path: Path) -> None:
    source = folders(tmp_path, packages=1)
    with pytest.raises(InputError, match="All files of negative, positive are of groups that are held out"):
        train(source, tmp_path / "model.bin", TrainOptions(held_out=0.9))


def test_what_cannot_be_used_is_counted_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    source = folders(tmp_path)
    package = tmp_path / "positive" / "package0"
    (package / "binary.bin").write_bytes(b"a\0b")
    (package / "empty.py").write_bytes(b"")
    (package / "copy.py").write_bytes((package / "0.py").read_bytes())
    (package / "both.py").write_text("neither = here\n" * 3)
    (tmp_path / "negative" / "package0" / "both.py").write_text("neither = here\n" * 3)
    (package / "utf16.py").write_bytes("solve graph é".encode("utf-16"))
    os.symlink("/etc/passwd", package / "link.py")
    os.mkfifo(package / "pipe")
    (package / ".git").mkdir()
    (package / ".git" / "config").write_text("solve\n")
    locked = package / "locked.py"
    locked.write_text("x\n")
    locked.chmod(0)
    card, left_out = train(source, tmp_path / "model.bin", SMALL)
    expected = {"binary": 1, "copy": 1, "no word": 1, "of two labels": 2}
    if os.geteuid():
        expected["unreadable"] = 1
        assert str(locked) in left_out.unreadable[0]
    assert card.left_out == expected
    assert sum(one.trained + one.held_out for one in card.labels.values()) == 72 + (2 if not os.geteuid() else 1)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folders(tmp_path)
    before = open

    def refused(path: Any, *rest: Any, **more: Any) -> Any:
        if str(path).endswith("package3/1.py"):
            raise PermissionError(13, "Permission denied", path)
        return before(path, *rest, **more)

    monkeypatch.setattr("builtins.open", refused)
    card, left_out = train(source, tmp_path / "model.bin", SMALL)
    assert card.left_out == {"unreadable": 2}
    assert left_out.unreadable == [
        f"{tmp_path}/{label}/package3/1.py: Permission denied" for label in ("positive", "negative")
    ]


def table_of(tmp_path: Path, **columns: Any) -> Tables:
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    return Tables([str(tmp_path / "*.parquet")], "label", "text", None)


def test_a_column_of_labels_with_a_null_is_refused_by_file_and_row(tmp_path: Path) -> None:
    source = table_of(tmp_path, text=["a"] * 1000, label=["x"] * 700 + [None] + ["y"] * 299)
    with pytest.raises(InputError, match=r"in\.parquet: row 701 has no label"):
        train(source, tmp_path / "model.bin", SMALL)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"text": ["a"], "label": [0.5]}, "labels are text, integers"),
        ({"text": [1], "label": ["x"]}, "is of int64, not text"),
        ({"body": ["a"], "label": ["x"]}, "has no column 'text'; it has body, label"),
        ({"text": ["a"], "label": ["two words"]}, "'two words' can be no label"),
        ({"text": ["a"], "label": [""]}, "'' can be no label"),
        ({"text": ["a"] * 1001, "label": list(range(1001))}, "more than 1,000 labels"),
        (
            {"text": ["a"], "label": ["é"]},
            "needs two labels",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, columns: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        train(table_of(tmp_path, **columns), tmp_path / "model.bin", SMALL)


def test_a_damaged_table_and_a_pattern_without_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no PAR1")
    with pytest.raises(InputError, match=r"bad\.parquet is no Parquet file that can be read"):
        Tables([str(tmp_path / "*.parquet")], "label", "text", None)
    with pytest.raises(InputError, match="No file matches"):
        Tables([str(tmp_path / "*.jsonl")], "label", "text", None)


def test_a_file_cannot_give_itself_a_label(tmp_path: Path) -> None:
    """In training fastText takes every word that begins with __label__ for a label."""
    for tokens in ("code", "plain"):
        folder = tmp_path / tokens
        source = folders(folder)
        for number in range(12):
            path = folder / "negative" / f"package{number}" / "more.py"
            path.write_text(f"__label__positive </s> __label__spam {program('negative', 500 + number)}")
        options = TrainOptions(dim=8, buckets=500, min_count=1, tokens=tokens)
        card, _ = train(source, folder / "model.bin", options)
        assert sorted(card.labels) == sorted(read_model(folder / "model.bin").labels) == ["negative", "positive"]
        counted = library().load_model(str(folder / "model.bin")).get_labels(include_freq=True)
        assert {k: int(v) for k, v in zip(*counted, strict=True)} == {
            f"__label__{k}": one.trained for k, one in card.labels.items()
        }


def test_integers_and_booleans_are_labels(tmp_path: Path) -> None:
    rows = [(program(label, n), label == "positive") for label in ("positive", "negative") for n in range(40)]
    source = table_of(tmp_path, text=[text for text, _ in rows], label=[label for _, label in rows])
    card, _ = train(source, tmp_path / "model.bin", SMALL)
    assert sorted(card.labels) == ["false", "true"] and card.held_out.accuracy == 1.0


def test_a_quantized_model_is_small_and_still_tells_them_apart(tmp_path: Path) -> None:
    source = folders(tmp_path)
    options = TrainOptions(dim=8, buckets=20_000, min_count=1, held_out=0.3)
    whole, _ = train(source, tmp_path / "whole.bin", options)
    small, _ = train(source, tmp_path / "small.ftz", TrainOptions(**{**vars(options), "quantize": True}))
    assert small.model_bytes < whole.model_bytes / 4 and small.held_out.accuracy == 1.0
    assert read_model(tmp_path / "small.ftz").quantized


# ---------------------------------------------------------------- the stage


def files(*values: str, language: str | list[str] = "Python") -> pa.RecordBatch:
    names = [language] * len(values) if isinstance(language, str) else language
    return pa.record_batch({"text": texts(*values), "language": pa.array(names, pa.string())})


def scored(stage: Classifier, batch: pa.RecordBatch) -> list[float | None]:
    found = stage.tags(batch)
    assert list(found) == [field.name for field in stage.adds]
    column = found[stage.adds[0].name]
    assert column.type == pa.float32()
    values: list[float | None] = column.to_pylist()
    return values


def test_the_stage_scores_files_and_drops_what_is_below_the_threshold(model: Path) -> None:
    stage = Classifier(ClassifierOptions(model=str(model), threshold=0.5))
    batch = files(program("positive", 900), program("negative", 900), "", " \n\t")
    good, bad, *wordless = scored(stage, batch)
    assert good is not None and bad is not None and good > 0.8 and bad < 0.2
    assert wordless[0] is None  # an empty file has no score, and stays
    batch = with_columns(batch, stage.tags(batch))
    keep, left = judge(stage.verdicts(batch), batch.num_rows)
    assert keep.to_pylist()[:3] == [True, False, True]
    verdict = left[0].verdict
    assert (verdict.rule, verdict.threshold) == ("positive-score", 0.5)
    assert verdict.value is not None and verdict.value[1].as_py() == bad


def test_a_score_at_the_threshold_stays(model: Path) -> None:
    batch = pa.record_batch({"classifier_score": pa.array([0.9, 0.8999, None], pa.float32())})
    stage = Classifier(ClassifierOptions(model=str(model), threshold=0.9))
    [verdict] = stage.verdicts(batch)
    assert verdict.keep.to_pylist() == [True, False, None]


def test_without_a_threshold_nothing_leaves(model: Path) -> None:
    assert list(Classifier(ClassifierOptions(model=str(model))).verdicts(files("x"))) == []


def test_only_files_of_its_languages_are_scored(model: Path) -> None:
    stage = Classifier(ClassifierOptions(model=str(model), languages=("Python",), threshold=1.0))
    assert stage.needs() == ("text", "language")
    batch = files(*[program("negative", 1)] * 3, language=["C", "Python", "Go"])
    found = scored(stage, batch)
    assert found[0] is None and found[1] is not None and found[2] is None
    keep, _ = judge(stage.verdicts(with_columns(batch, stage.tags(batch))), 3)
    assert keep.to_pylist() == [True, False, True]


def test_a_score_does_not_depend_on_the_batch(model: Path) -> None:
    stage = Classifier(ClassifierOptions(model=str(model)))
    many = [program(label, n) for n in range(50) for label in ("positive", "negative")]
    alone = [scored(stage, files(one))[0] for one in many]
    assert scored(stage, files(*many)) == alone
    again = Classifier(ClassifierOptions(model=str(model)))
    again.warm()
    assert scored(again, files(*many)) == alone


def test_the_scores_of_all_labels_sum_to_one(model: Path) -> None:
    batch = files(program("positive", 7), "x = 1\n")
    both = [
        scored(Classifier(ClassifierOptions(model=str(model), label=label)), batch)
        for label in ("positive", "negative")
    ]
    assert [a + b for a, b in zip(*both, strict=True) if a is not None and b is not None] == pytest.approx(
        [1, 1], abs=1e-3
    )


def recipe(stages: list[str], **tables: Any) -> dict[str, Any]:
    return {"stages": stages, "outputs": [], "exact_dedup": {"winner": []}, **tables}


def test_each_instance_has_a_column_of_its_name(model: Path) -> None:
    stages = ["exact_dedup", "decode", "languages", "signals", "classifier", "classifier:edu"]
    nodes = nodes_of(recipe(stages, classifier={"model": str(model)}, stage={"classifier:edu": {"label": "negative"}}))
    check(nodes)
    both = [node.stage for node in nodes if node.instance.startswith("classifier")]
    assert [stage.adds[0].name for stage in both] == ["classifier_score", "classifier_score_edu"]
    same = nodes_of(recipe(stages, classifier={"model": str(model)}))
    first, second = (stage_identity(node.stage) for node in same if node.instance.startswith("classifier"))
    assert first["options"] == second["options"] and first["data"] != second["data"]


def test_the_key_is_of_the_models_bytes_not_of_its_place(model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model.bin"
    copy.write_bytes(model.read_bytes())
    identities = [stage_identity(Classifier(ClassifierOptions(model=str(path)))) for path in (model, copy)]
    assert identities[0] == identities[1]
    assert identities[0]["engines"].keys() == {"fasttext-community"}
    train(folders(tmp_path), copy, TrainOptions(dim=8, buckets=500, seed=2))
    assert stage_identity(Classifier(ClassifierOptions(model=str(copy)))) != identities[0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"model": None}, r"classifier\.model: name the file"),
        ({"label": "good"}, "has no label 'good'; it has"),
        ({"sha256": "0" * 64}, "not 0000"),
        ({"tokens": "plain"}, "was trained with 'code', not 'plain'"),
        ({"model": "/nowhere/model.bin"}, "/nowhere/model.bin' cannot be read: No such file"),
    ],
)
def test_a_model_that_does_not_fit_the_options_is_refused_before_the_run(
    model: Path, options: dict[str, Any], told: str
) -> None:
    table = {"model": str(model), **options}
    with pytest.raises(RecipeError, match=told):
        check(nodes_of(recipe(["exact_dedup", "decode", "languages", "signals", "classifier"], classifier=table)))


def test_a_damaged_model_is_refused_before_the_run(tmp_path: Path, model: Path) -> None:
    (tmp_path / "cut.bin").write_bytes(model.read_bytes()[:-100])
    with pytest.raises(RecipeError, match=r"classifier\.model: .*cut\.bin is no fastText classifier"):
        check(
            nodes_of(
                recipe(
                    ["exact_dedup", "decode", "languages", "signals", "classifier"],
                    classifier={"model": str(tmp_path / "cut.bin")},
                )
            )
        )


def test_a_card_that_is_none_is_refused_by_its_name(tmp_path: Path, model: Path) -> None:
    (tmp_path / "model.bin").write_bytes(model.read_bytes())
    for raw in (b"[", b"{}", b"\xff", b"[" * 100_000):
        card_path(tmp_path / "model.bin").write_bytes(raw)
        with pytest.raises(InputError, match=r"model\.bin\.json is no card"):
            Classifier(ClassifierOptions(model=str(tmp_path / "model.bin"))).needs()


def test_a_release_has_the_scores_of_all_instances_in_one_column() -> None:
    batch = pa.record_batch(
        {
            "text": texts("a", "b", "c"),
            "classifier_score": pa.array([0.5, None, None], pa.float32()),
            "classifier_score_edu": pa.array([0.25, 0.75, None], pa.float32()),
        }
    )
    assert released(batch)["classifier_scores"].to_pylist() == [
        [{"classifier": "classifier", "score": 0.5}, {"classifier": "classifier:edu", "score": 0.25}],
        [{"classifier": "classifier:edu", "score": 0.75}],
        None,
    ]
    assert released(batch.select(["text"]))["classifier_scores"].to_pylist() == [None] * 3


def test_the_registry_knows_it() -> None:
    assert registry.stage_class("classifier:edu") is Classifier


# ---------------------------------------------------------------- the commands


@pytest.fixture
def run() -> Callable[..., Any]:
    """Type a command: its result."""
    return lambda *words: CliRunner().invoke(app, ["classifier", *map(str, words)])


def test_train_test_and_predict_as_they_are_typed(tmp_path: Path, run: Callable[..., Any]) -> None:
    folders(tmp_path)
    both = ("--positive", tmp_path / "positive", "--negative", tmp_path / "negative")
    small = ("--dim", 8, "--buckets", 500, "--min-count", 1, "--held-out", 0.3, "--epochs", 25)
    made = run("train", *both, "-o", tmp_path / "model.bin", *small)
    assert made.exit_code == 0 and "100.0% get their label" in made.stdout, made.output
    card = read_card(tmp_path / "model.bin")
    assert card is not None
    tested = run("test", tmp_path / "model.bin", *both, "--held-out", "--json")
    assert json.loads(tested.stdout) == card.held_out.model_dump()
    everything = json.loads(run("test", tmp_path / "model.bin", *both, "--json").stdout)
    assert everything["files"] == 72 and everything["groups"] == 12
    (tmp_path / "new.py").write_text(program("negative", 999))
    asked = run("predict", tmp_path / "model.bin", tmp_path / "new.py", "--json")
    assert json.loads(asked.stdout)["scores"]["negative"] > 0.8


def test_commands_that_cannot_be_meant_are_refused(tmp_path: Path, model: Path, run: Callable[..., Any]) -> None:
    for words in (
        ("train", "-o", tmp_path / "m.bin"),
        ("train", "-o", tmp_path / "m.bin", "--positive", tmp_path, "--files", "x.parquet"),
        ("train", "-o", tmp_path / "m.bin", "--folder", "x"),
        ("train", "-o", tmp_path, "--positive", tmp_path, "--negative", tmp_path),
        ("train", "-o", tmp_path / "m.bin", "--positive", tmp_path, "--tokens", "bytes"),
    ):
        assert isinstance(run(*words).exception, UsageError), words
    for words in (
        ("test", model, "--folder", f"spam={model.parent / 'positive'}"),
        ("predict", model, tmp_path / "none"),
        ("predict", tmp_path / "none", model),
        ("train", "-o", tmp_path / "no" / "m.bin", "--positive", tmp_path, "--negative", tmp_path),
    ):
        assert isinstance(run(*words).exception, InputError), words


def test_left_out_names_only_the_first_files() -> None:
    left_out = LeftOut()
    for number in range(100):
        left_out.cannot_read(f"{number}.py", "no")
    assert left_out.counts["unreadable"] == 100 and len(left_out.unreadable) == 10
