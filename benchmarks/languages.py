"""Languages: ours beside enry, and beside github-linguist itself, in Ruby: files per CPU-second, and how often they agree.

    python -m benchmarks.languages PARQUET ... [--files N] [--rounds N] [--json]

The files have `text` and `path`; texts are cut to 16 KiB. `ours` names the language alone; `with flags` is the stage, which also
tells vendored, generated, documentation and test files. `enry` is what both stand on, one call for each file: between it
and ours lies what is saved by not calling it where a name alone decides. `whole files` is The Stack v2's way.
Agreement is over the files that both name, in languages that both know; what linguist has renamed since counts as the same.
Debian has linguist as ruby-github-linguist.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import Comparison, options

ALONE, WITH_FLAGS = 9_000, 5_000  # files per CPU-second: goals
HEAD = 16_384
# Linguist's older names, and what they are called now by enry.
OLDER = {
    "Mathematica": "Wolfram Language",
    "Coq": "Rocq Prover",
    "FreeBasic": "FreeBASIC",
    "Genero": "Genero 4gl",
    "Genero Forms": "Genero per",
}
RUBY = """
require 'json'
require 'linguist'
known = Linguist::Language.all.map(&:name)
names = File.foreach(ARGV[0]).map do |line|
  file = JSON.parse(line)
  language = Linguist::Blob.new(file['path'], file['text']).language
  language && language.name
end
File.write(ARGV[1], JSON.generate({'names' => names, 'known' => known}))
"""

Work = Callable[[], dict[str, Any]]


def files_of(paths: Sequence[str], most: int, head: int | None = HEAD) -> pa.Table:
    """Path and text of every k-th file, at most so many; of the text the first bytes."""
    table = pa.concat_tables(pq.read_table(path, columns=["path", "text"], use_threads=False) for path in paths)
    table = table.take(pa.array(range(0, table.num_rows, max(1, table.num_rows // most))))
    raw = [text.encode()[:head].decode("utf-8", "ignore") for text in table["text"].to_pylist()]
    return pa.table({"path": table["path"], "text": pa.array(raw, pa.large_string())})


def alone(paths: Sequence[str], most: int, out: str) -> Work:
    """Our detector, the language alone."""
    from stackbuild.languages.languages import Detector, heads_of, path_within

    table, detector = files_of(paths, most), Detector()
    detector.language("a.h", b"int a;\n")
    names = [path_within(path.encode()) for path in table["path"].to_pylist()]

    def work() -> dict[str, Any]:
        heads = heads_of(table["text"].combine_chunks(), HEAD)
        found = [detector.language(name, head) for name, head in zip(names, heads, strict=True)]
        Path(out).write_text(json.dumps({"names": found}))
        return {"named": sum(name is not None for name in found)}

    return work


def with_flags(paths: Sequence[str], most: int, out: str) -> Work:
    """Our stage: the language and four flags."""
    from stackbuild.languages.languages import Languages

    table, stage = files_of(paths, most), Languages()
    batch = pa.record_batch(
        {"path_bytes": table["path"].cast(pa.binary()).combine_chunks(), "text": table["text"].combine_chunks()}
    )
    stage.tags(batch.slice(0, 20))

    def work() -> dict[str, Any]:
        found = stage.tags(batch)
        return {"named": len(batch) - found["language"].null_count}

    return work


def enry(paths: Sequence[str], most: int, out: str) -> Work:
    """One call for each file: the language alone."""
    return _enry(paths, most, HEAD, False)


def enry_with_flags(paths: Sequence[str], most: int, out: str) -> Work:
    """Five calls for each file."""
    return _enry(paths, most, HEAD, True)


def enry_whole(paths: Sequence[str], most: int, out: str) -> Work:
    """The language of whole texts."""
    return _enry(paths, most, None, False)


def _enry(paths: Sequence[str], most: int, head: int | None, flags: bool) -> Work:
    import enry as library

    table = files_of(paths, most, head)
    texts, names = [text.encode() for text in table["text"].to_pylist()], table["path"].to_pylist()
    library.get_language("a.h", b"int a;\n")

    def work() -> dict[str, Any]:
        named = 0
        for name, text in zip(names, texts, strict=True):
            named += bool(library.get_language(name, text))
            if flags:
                library.is_vendor(name)
                library.is_generated(name, text)
                library.is_documentation(name)
                library.is_test(name)
        return {"named": named}

    return work


def github_linguist(paths: Sequence[str], most: int, out: str) -> Work:
    """The original, started once for all files."""
    ruby = shutil.which("ruby")
    if ruby is None or subprocess.run([ruby, "-e", "require 'linguist'"], capture_output=True, check=False).returncode:
        raise ImportError("github-linguist is not installed (Debian: ruby-github-linguist)")
    lines = Path(out).with_suffix(".jsonl")
    rows = files_of(paths, most).to_pylist()
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def work() -> dict[str, Any]:
        subprocess.run([ruby, "-e", RUBY, str(lines), out], check=True)
        return {"named": sum(name is not None for name in json.loads(Path(out).read_text())["names"])}

    return work


def agreement(ours: list[str | None], told: dict[str, Any]) -> dict[str, Any]:
    """Of the files that both name in languages that both know: how many, how many alike, and the most frequent differences."""
    from stackbuild.languages.names import enry_languages

    theirs = [OLDER.get(name, name) for name in told["names"]]
    both = enry_languages() & {OLDER.get(name, name) for name in told["known"]}
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a in both and b in both]
    same = sum(a == b for a, b in pairs)
    apart = Counter((a, b) for a, b in pairs if a != b).most_common(8)
    return {
        "compared": len(pairs),
        "alike": round(same / len(pairs), 4) if pairs else None,
        "only_ours": sum(a is not None and b is None for a, b in zip(ours, theirs, strict=True)),
        "only_theirs": sum(a is None and b is not None for a, b in zip(ours, theirs, strict=True)),
        "apart": [[a, b, count] for (a, b), count in apart],
    }


WAYS = {
    "ours": alone,
    "ours with flags": with_flags,
    "enry": enry,
    "enry with flags": enry_with_flags,
    "enry, whole files": enry_whole,
    "github-linguist": github_linguist,
}


def main() -> None:
    """Let all take turns, and print."""
    parser = options(__doc__ or "")
    parser.add_argument("inputs", nargs="+", metavar="PARQUET", help="with the columns text and path")
    parser.add_argument("--files", type=int, default=4_000, help="at most, taken evenly")
    given = parser.parse_args()
    paths = [str(Path(name).resolve()) for name in given.inputs]
    rows = files_of(paths, given.files).num_rows
    comparison = Comparison(
        "languages", "files/CPU-s", ALONE, rows, {"files": rows}, ("stackbuild", "enry-python"),
        absolute=True, shown=("named",), parts=("ours with flags",),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        outs = {name: str(Path(folder, way.__name__)) for name, way in WAYS.items()}
        comparison.take_turns(
            {
                name: (f"benchmarks.languages:{way.__name__}", {"paths": paths, "most": given.files, "out": outs[name]})
                for name, way in WAYS.items()
            },
            given.rounds,
        )
        theirs = Path(outs["github-linguist"])
        if theirs.exists():
            ours = json.loads(Path(outs["ours"]).read_text())["names"]
            comparison.input |= agreement(ours, json.loads(theirs.read_text()))
    comparison.show(given.json)
    if not given.json:
        flags = comparison.figure("ours with flags")
        print(
            f"with flags {flags:,.0f} files/CPU-s, goal {WITH_FLAGS:,}: {'met' if flags >= WITH_FLAGS else 'not met'}"
        )


if __name__ == "__main__":
    main()
