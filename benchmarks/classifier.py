"""The learned filter: text to words to a fastText score, against the same in plain Python and against datatrove's filter.

    python -m benchmarks.classifier PARQUET ... [--rounds N] [--json]

A model is trained first, on the files themselves (tests against other code, by their path), as `classifier train` does; it
is shown how good it is on repositories that it did not see. Then each way scores the first 8 KiB of every file with it.
`python` cuts words with `re`, by the same rules but for the marks; `datatrove` is its FastTextClassifierFilter, which
cuts at white space only, so that its scores mean nothing to this model: it shows what the library alone takes, with fewer
words. Megabytes are those of the heads.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.measure import Comparison, options

GOAL = 13.0  # MB/CPU-s, words and score together
TESTS = re.compile(r"(^|/)(tests?|testdata|specs?|__tests__)/|_test\.|(^|/)test_[^/]*$|Test\.java$")
HEAD = 8_192


def heads(files: list[str]) -> pa.LargeStringArray:
    """The first bytes of every text."""
    table = pa.concat_tables(pq.read_table(path, columns=["text"], use_threads=False) for path in files)
    raw = [text.encode()[:HEAD].decode("utf-8", "ignore") for text in table["text"].to_pylist() if text]
    return pa.array(raw, pa.large_string())


def ours(files: list[str], model: str) -> Callable[[], dict[str, Any]]:
    """The stage over batches of 1,000 files."""
    from stackbuild.quality.classifier import Classifier, ClassifierOptions

    stage = Classifier(ClassifierOptions(model=model))
    stage.warm()
    text = heads(files)

    def work() -> dict[str, Any]:
        batches = [pa.record_batch({"text": text.slice(at, 1_000)}) for at in range(0, len(text), 1_000)]
        scores = pa.concat_arrays([stage.tags(batch)["classifier_score"] for batch in batches])
        return {"files": len(text), "positive": pc.sum(pc.greater_equal(scores, 0.5)).as_py()}

    return work


def python(files: list[str], model: str) -> Callable[[], dict[str, Any]]:
    """Words by `re`, one call of the library for each file."""
    import fasttext

    words = re.compile(
        r"(?P<word>[A-Za-z_\u0080-\u07ff][0-9A-Za-z_\u0080-\u07ff]*)|[0-9](?:\w|\.(?=[0-9]))*|\n|[^\s\x00-\x1f\x7f]"
    )
    loaded = fasttext.load_model(model)
    texts = heads(files).to_pylist()

    def shown(match: re.Match[str]) -> str:
        word = match[0]
        if match["word"]:
            return "<long>" if len(word) > 64 else word
        return "<nl>" if word == "\n" else "<num>" if len(word) > 2 else word

    def work() -> dict[str, Any]:
        positive = 0
        for text in texts:
            line = " ".join(map(shown, words.finditer(text)))
            labels, scores = loaded.predict(line, k=2) if line else ((), ())
            positive += bool(dict(zip(labels, scores, strict=True)).get("__label__positive", 0) >= 0.5)
        return {"files": len(texts), "positive": positive}

    return work


def datatrove(files: list[str], model: str) -> Callable[[], dict[str, Any]]:
    """Its filter, on a document for each file."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import FastTextClassifierFilter

    FastTextClassifierFilter._requires_dependencies = []  # it asks for a distribution of another name
    rule = FastTextClassifierFilter(model, keep_labels=("positive", 0.5), newline_replacement=" ")
    _ = rule.model
    texts = heads(files).to_pylist()

    def work() -> dict[str, Any]:
        positive = sum(bool(rule.filter(Document(text=text, id="0"))) for text in texts)
        return {"files": len(texts), "positive": positive}

    return work


def labelled(files: list[str], folder: Path) -> str:
    """The files with a label by their path and their repository without its version."""
    for number, path in enumerate(files):
        table = pq.read_table(path, columns=["text", "path", "repo"])
        label = ["positive" if TESTS.search(one) else "negative" for one in table["path"].to_pylist()]
        repo = pc.replace_substring_regex(table["repo"], "@.*", "")
        pq.write_table(
            pa.table({"text": table["text"], "repo": repo, "label": label}), folder / f"{number:05d}.parquet"
        )
    return str(folder / "*.parquet")


def main() -> None:
    """Train, let all take turns, and print."""
    parser = options(__doc__ or "")
    parser.add_argument("files", nargs="+", metavar="PARQUET", help="with the columns text, path and repo")
    given = parser.parse_args()
    files = [str(Path(name).resolve()) for name in given.files]
    from stackbuild.quality.examples import Tables
    from stackbuild.quality.training import TrainOptions, train

    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model.bin")
        source = Tables([labelled(files, Path(folder))], "label", "text", None)
        card, _ = train(source, model, TrainOptions(held_out=0.2))
        size = sum(len(text.encode()) for text in heads(files).to_pylist())
        told = {
            "files": given.files,
            "bytes": size,
            "accuracy": card.held_out.accuracy,
            "held_out": card.held_out.files,
        }
        comparison = Comparison(
            "classifier", "MB/CPU-s", GOAL, size / 1e6, told,
            ("stackbuild", "fasttext-community", "numba", "datatrove"), absolute=True,
        )  # fmt: skip
        ways = {name: f"benchmarks.classifier:{name}" for name in ("ours", "python", "datatrove")}
        arguments = {"files": files, "model": str(model)}
        comparison.take_turns({name: (target, arguments) for name, target in ways.items()}, given.rounds)
    comparison.show(given.json)


if __name__ == "__main__":
    main()
