"""Languages: ours beside github-linguist itself, in Ruby, on the same files cut to 16 KiB: agreement, and files per CPU-second.

    python -m benchmarks.linguist PARQUET ... [--files N] [--rounds N] [--json]

The files have `text` and `path`. Agreement is over those that both name, in languages that both know; what linguist has
renamed since counts as the same. Debian has it as ruby-github-linguist.
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


def files_of(paths: Sequence[str], most: int) -> pa.Table:
    """Path and the head of the text of every k-th file, at most so many."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pa.concat_tables(pq.read_table(path, columns=["path", "text"], use_threads=False) for path in paths)
    table = table.take(pa.array(range(0, table.num_rows, max(1, table.num_rows // most))))
    text = pc.cast(table["text"], pa.large_binary())
    text = pc.cast(pc.binary_slice(text, 0, HEAD), pa.large_string(), safe=False)
    valid = [
        value.as_buffer().to_pybytes().decode("utf-8", "ignore") for value in text
    ]  # not in the middle of a character
    return pa.table({"path": table["path"], "text": pa.array(valid, pa.large_string())})


def alone(paths: Sequence[str], most: int, out: str) -> Callable[[], dict[str, Any]]:
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


def with_flags(paths: Sequence[str], most: int, out: str) -> Callable[[], dict[str, Any]]:
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


def github_linguist(paths: Sequence[str], most: int, out: str) -> Callable[[], dict[str, Any]]:
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
        "files": len(pairs),
        "alike": round(same / len(pairs), 4) if pairs else None,
        "only_ours": sum(a is not None and b is None for a, b in zip(ours, theirs, strict=True)),
        "only_theirs": sum(a is None and b is not None for a, b in zip(ours, theirs, strict=True)),
        "apart": [[a, b, count] for (a, b), count in apart],
    }


def main() -> None:
    """Let all take turns, and print."""
    parser = options(__doc__ or "")
    parser.add_argument("inputs", nargs="+", help="Parquet files with text and path")
    parser.add_argument("--files", type=int, default=4_000, help="at most, taken evenly")
    arguments = parser.parse_args()
    rows = files_of(arguments.inputs, arguments.files).num_rows
    comparison = Comparison(
        "languages", "files/CPU-s", ALONE, rows, {"files": rows}, ("stackbuild", "enry-python"), absolute=True
    )
    with tempfile.TemporaryDirectory() as folder:
        outs = {name: str(Path(folder, name)) for name in ("alone", "with_flags", "github_linguist")}
        common = {"paths": arguments.inputs, "most": arguments.files}
        ways = {
            {"alone": "ours", "with_flags": "ours with flags", "github_linguist": "github-linguist"}[name]: (
                f"benchmarks.linguist:{name}",
                {**common, "out": out},
            )
            for name, out in outs.items()
        }
        comparison.take_turns(ways, arguments.rounds)
        if Path(outs["github_linguist"]).exists():
            ours = json.loads(Path(outs["alone"]).read_text())["names"]
            comparison.input |= agreement(ours, json.loads(Path(outs["github_linguist"]).read_text()))
    comparison.show(arguments.json)
    if not arguments.json:
        flags = comparison.figure("ours with flags")
        print(
            f"with flags {flags:,.0f} files/CPU-s, goal {WITH_FLAGS:,}: {'met' if flags >= WITH_FLAGS else 'not met'}"
        )


if __name__ == "__main__":
    main()
