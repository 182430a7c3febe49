"""What was redacted still parses where it parsed: Python (ast), JSON (json), JavaScript (tree-sitter, no error node).

    python -m benchmarks.pii_parse PARQUET ... [--json]

Of the files of these languages in which something was found, in both modes: how many parsed before, and of these how many do
not parse any more. The goal is none.
"""

from __future__ import annotations

import argparse
import ast
import json
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import versions
from stackbuild.pii.options import PiiOptions
from stackbuild.pii.stage import Pii
from stackbuild.quality.syntax import measure
from stackbuild.stage import with_columns

LANGUAGES = ("Python", "JSON", "JavaScript")
MODES = ("placeholder", "pseudonym")


def parses(language: str, texts: Sequence[str]) -> list[bool]:
    """Whether each text parses."""
    if language == "JavaScript":
        errors = measure(
            pa.array(texts, pa.large_string()), ["JavaScript"] * len(texts), frozenset(["JavaScript"]), 1 << 20
        )["error_chars"]
        return [error == 0 for error in errors.to_pylist()]
    read = ast.parse if language == "Python" else json.loads
    return [_is_read(read, text) for text in texts]


def _is_read(read: Any, text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def batches(paths: Sequence[str]) -> Iterator[tuple[str, pa.RecordBatch]]:
    """(language, texts) of the files of these languages."""
    for path in paths:
        with pq.ParquetFile(path) as file:
            name = next(name for name in ("lang", "language") if name in file.schema_arrow.names)
            for batch in file.iter_batches(2048, columns=["text", name]):
                for language in LANGUAGES:
                    mask = pa.array([one == language for one in batch.column(name).to_pylist()])
                    text = batch.column("text").filter(mask).cast(pa.large_string())
                    yield language, pa.RecordBatch.from_pydict({"text": text})


def measured(paths: Sequence[str]) -> dict[str, Any]:
    """Counts by language and mode: files, redacted, parsed before, broken."""
    counts: dict[str, Counter[str]] = {f"{one} {mode}": Counter() for one in LANGUAGES for mode in MODES}
    for mode in MODES:
        stage = Pii(PiiOptions(mode=mode))
        for language, batch in batches(paths):
            tags = stage.tags(batch)
            changed = [row for row, number in enumerate(tags["redactions"].to_pylist()) if number]
            counts[f"{language} {mode}"]["files"] += batch.num_rows
            if not changed:
                continue
            new = stage.text(with_columns(batch, tags)).take(pa.array(changed)).to_pylist()
            old = batch.column("text").take(pa.array(changed)).to_pylist()
            before, after = parses(language, old), parses(language, new)
            counts[f"{language} {mode}"].update(
                redacted=len(changed),
                parsed=sum(before),
                broken=sum(one and not other for one, other in zip(before, after, strict=True)),
            )
    return {
        name: {what: found[what] for what in ("files", "redacted", "parsed", "broken")}
        for name, found in counts.items()
    }


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("input", nargs="+", help="Parquet files with text and lang")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measured(options.input)
    broken = sum(one["broken"] for one in found.values())
    if options.json:
        result = {"name": "pii_parse", "unit": "files", "ours": broken, "peers": {}, "ratio": None, "goal": 0}
        print(json.dumps(result | {"meets": not broken, "versions": versions("stackbuild"), "input": found}))
        return
    print(f"{'':28}{'files':>9}{'redacted':>10}{'parsed':>9}{'broken':>9}")
    for name, one in found.items():
        print(f"{name:28}{one['files']:>9,}{one['redacted']:>10,}{one['parsed']:>9,}{one['broken']:>9,}")
    print(f"goal 0 broken: {'not met' if broken else 'met'}")


if __name__ == "__main__":
    main()
