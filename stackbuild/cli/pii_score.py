"""`stackbuild pii score`: how good detectors are on labelled texts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from stackbuild.cli.show import escaped
from stackbuild.errors import InputError, UsageError
from stackbuild.pii import creddata
from stackbuild.pii.gold import Reading, name_of, predicted_marks, read_gold, read_predictions
from stackbuild.pii.options import PiiOptions
from stackbuild.pii.score import Document, Mark, Score, as_marks, plain
from stackbuild.pii.stage import Pii

AT_ONCE = 64  # texts


def run(
    gold: Path, predictions: Path | None, layout: str, reading: Reading, options: PiiOptions, errors: int, as_json: bool
) -> None:
    """Score, and print the figures."""
    if reading.positions not in ("characters", "bytes"):
        raise UsageError(f"--positions {reading.positions}: write characters or bytes.")
    if layout not in ("spans", "creddata"):
        raise UsageError(f"--format {layout}: there are spans and creddata.")
    if errors and (as_json or not sys.stdout.isatty()):
        raise UsageError("--errors shows what was found: it prints to a terminal, never to a file or into --json.")
    if layout == "creddata":
        if predictions or errors:
            raise UsageError("--format creddata runs the detectors, without --predictions and --errors.")
        found = creddata.score(gold, lambda texts: spans_of(Pii(options), texts)).told()
        print(json.dumps(found)) if as_json else show_creddata(found)
        return
    score = Score(None if predictions else options.entities, errors)
    pairs = _given(gold, predictions, reading) if predictions else _detected(gold, reading, Pii(options))
    for document, marks in pairs:
        score.add(document, marks)
    if not score.documents:
        raise InputError(f"{gold} has no labelled text.")
    told = score.told()
    if as_json:
        print(json.dumps(told))
        return
    show(told)
    for one in score.shown:
        print(f"{one.what} {one.entity}, {escaped(one.where)}")
        print(f"    {escaped(one.before)}[{escaped(one.value)}]{escaped(one.after)}")


def spans_of(stage: Pii, texts: pa.Array) -> pa.Array:
    """The column `pii_spans` of texts."""
    return stage.tags(pa.RecordBatch.from_pydict({"text": texts}))["pii_spans"]


def _detected(gold: Path, reading: Reading, stage: Pii) -> Iterator[tuple[Document, list[Mark]]]:
    documents = read_gold(gold, reading)
    while some := list(islice(documents, AT_ONCE)):
        texts = [plain(document.text) for document in some]
        spans = spans_of(stage, pa.array(texts, pa.large_string())).to_pylist()
        for document, text, found in zip(some, texts, spans, strict=True):
            yield document, as_marks(text, found or ())


def _given(gold: Path, predictions: Path, reading: Reading) -> Iterator[tuple[Document, list[Mark]]]:
    """Predictions are held in memory: labelled sets are small, and either file may be in any order."""
    known: dict[str, Any] = read_predictions(predictions, reading)
    for number, document in enumerate(read_gold(gold, reading)):
        name = name_of({"id": document.id}, number)
        rows = known.pop(name, None) or known.pop(f"line {number + 1}", None)
        if rows is None:
            raise InputError(f"{predictions} has nothing of {ascii(name)[1:-1][:80]} of {gold}; an empty list says so.")
        yield document, predicted_marks(rows[0], document, reading)
    if known:
        raise InputError(
            f"{predictions} has {len(known):,} lines that {gold} has not, such as {ascii(next(iter(known)))[1:-1][:80]}."
        )


# ---------------------------------------------------------------- for a person


def show(told: dict[str, Any]) -> None:
    """The figures in tables."""
    print(
        f"{told['documents']:,} texts; a prediction counts when overlap / its length and overlap / the label's both exceed 0.8"
    )
    _table(told["entities"].items())
    _table([("whatever it is", told["any"])], head=False)
    for language, entities in told.get("languages", {}).items():
        print(f"\n{escaped(language)[:60]}")
        _table(entities.items(), head=False)
    if told.get("not_looked_for"):
        names = ", ".join(f"{count:,} {escaped(name)}" for name, count in told["not_looked_for"].items())
        print(f"\nlabelled and not looked for: {names}")
    print("\npredicted, by what it is")
    for row in told["confusion"]:
        print(
            f"  {escaped(row['predicted'] or '(missed)'):18} {escaped(row['gold'] or '(nothing)'):18}{row['count']:>9,}"
        )


def _table(rows: Iterable[tuple[str, dict[str, Any]]], head: bool = True) -> None:
    if head:
        print(f"{'':18}{'labels':>9}{'found':>9}{'true':>9}{'ignored':>9}{'precision':>11}{'recall':>9}{'F1':>9}")
    for name, one in rows:
        figures = "".join(f"{share(one[key]):>{width}}" for key, width in (("precision", 11), ("recall", 9), ("f1", 9)))
        print(
            f"{escaped(name)[:17]:18}{one['gold']:>9,}{one['predicted']:>9,}{one['true']:>9,}{one['ignored']:>9,}{figures}"
        )


def show_creddata(told: dict[str, Any]) -> None:
    """The figures on CredData in tables."""
    print(
        f"{told['files']:,} labelled files"
        + (f", {told['missing_files']:,} are not there" if told["missing_files"] else "")
    )
    print(f"{'lines':26}{'true':>8}{'flagged':>9}{'false':>8}{'flagged':>9}{'precision':>11}{'recall':>9}{'F1':>9}")
    rows = [("all", told["lines"]), *told["groups"].items(), *told["repositories"].items()]
    for name, one in rows:
        figures = "".join(f"{share(one[key]):>{width}}" for key, width in (("precision", 11), ("recall", 9), ("f1", 9)))
        print(
            f"{escaped(name)[:25]:26}{one['true']:>8,}{one['true_flagged']:>9,}{one['false']:>8,}{one['false_flagged']:>9,}{figures}"
        )
    print(f"recall, mean of the repositories: {share(told['macro_recall'])}")
    print(f"{told['findings_elsewhere']:,} findings on lines that nobody labelled")


def share(value: float | None) -> str:
    """A share with three digits; a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"
