"""Encodings: our chain against detectors, on real code and translations written in legacy charsets.

    python benchmarks/encodings.py [--input PARQUET ...] [--rounds N] [--json]

The input is built from what is installed: translated messages (gettext catalogues of the packages) stand as comments in
this Python's own modules, written in the charsets of their languages. The last column is the share whose text is
recovered exactly, wrongly, and not at all. A peer's answer counts if its encoding decodes the bytes; each gets UTF-8
first, as The Stack v2 did. Input of one's own has the columns content, text and path.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

NAME, GOAL = "encodings", 8.0
DISTRIBUTIONS = ("stackbuild", "chardetng_py", "chardet", "charset-normalizer", "cchardet", "faust-cchardet")
EXTRA = "exact, wrong, none"
CHARSETS = {
    "ar": ["cp1256"], "da": ["cp1252"], "de": ["cp1252", "utf-16"], "el": ["cp1253", "iso8859-7"], "es": ["cp1252"],
    "fr": ["cp1252", "utf-8-sig"], "he": ["cp1255"], "hu": ["cp1250", "iso8859-2"], "it": ["cp1252"], "pt": ["cp1252"],
    "ja": ["cp932", "euc_jp", "iso2022_jp", "utf-16-le"], "ko": ["cp949", "utf-16-be"], "pl": ["cp1250", "iso8859-2"],
    "ru": ["cp1251", "koi8-r", "cp866", "iso8859-5", "utf-8"], "th": ["cp874"], "tr": ["cp1254"], 
    "uk": ["cp1251", "koi8-u"],
    "vi": ["cp1258"], "zh": ["gb18030", "big5"], "cs": ["cp1250", "iso8859-2"], "sk": ["cp1250"], "sv": ["cp1252"],
}  # fmt: skip

READ = """
import json, resource, sys
import pyarrow as pa, pyarrow.parquet as pq
def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
def tell(start, before, files, size, extra):
    spent = cpu() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"start": start, "cpu": spent, "files": files, "bytes": size, "peak_mb": peak, "extra": extra}))
COLUMNS = ["content", "text"]
table = pa.concat_tables(pq.read_table(path, columns=COLUMNS, use_threads=False) for path in sys.argv[1:])
"""

SCORE = """
contents, texts = table["content"].to_pylist(), table["text"].to_pylist()
def score(read):
    read(contents[0])
    start = before = cpu()
    found = [read(data) for data in contents]
    exact = sum(one == text for one, text in zip(found, texts)) / len(texts)
    none = sum(one is None for one in found) / len(texts)
    tell(start, before, len(texts), sum(map(len, contents)), f"{exact:.3f} {1 - exact - none:.3f} {none:.3f}")
def first_utf8(detect):
    def read(data):
        for name in ("utf-8", None):
            try:
                return data.decode(name or detect(data) or "no-answer")
            except (UnicodeDecodeError, LookupError):
                pass
        return None
    return read
"""
OURS = READ + SCORE + "from stackbuild.languages import encodings\nscore(lambda data: encodings.read(data).text)\n"
CHARDETNG = READ + SCORE + "from chardetng_py import detect\nscore(first_utf8(detect))\n"
CCHARDET = READ + SCORE + "import cchardet\nscore(first_utf8(lambda data: cchardet.detect(data)['encoding']))\n"
CHARDET = READ + SCORE + "import chardet\nscore(first_utf8(lambda data: chardet.detect(data)['encoding']))\n"
NORMALIZER = (
    READ
    + SCORE
    + "from charset_normalizer import from_bytes\n"
    + "score(first_utf8(lambda data: best.encoding if (best := from_bytes(data).best()) else None))\n"
)
PROGRAMS = {
    "ours": OURS,
    "utf-8, chardetng": CHARDETNG,
    "utf-8, cchardet": CCHARDET,
    "utf-8, chardet": CHARDET,
    "utf-8, charset-normalizer": NORMALIZER,
}


def messages() -> dict[str, list[str]]:
    """Translations by language, from the catalogues of the installed packages."""
    import gettext

    found: dict[str, list[str]] = {}
    for path in sorted(Path(sysconfig.get_path("purelib")).rglob("LC_MESSAGES/*.mo")):
        language = path.parent.parent.name.partition("_")[0]
        with path.open("rb") as file:
            catalogue = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        found.setdefault(language, []).extend(text for text in catalogue.values() if text and not text.isascii())
    return found


def build(folder: Path) -> str:
    """A Parquet file of modules of this Python with comments in many languages and charsets."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    modules = [
        path.read_text("ascii", "ignore") for path in sorted(Path(sysconfig.get_path("stdlib")).glob("[a-d]*.py"))
    ]
    rows: list[dict[str, Any]] = []
    for language, texts in messages().items():
        for charset in CHARSETS.get(language, ["utf-8"]):
            words = [text for text in texts if text.encode(charset, "ignore").decode(charset) == text]
            for k in range(12 if len(words) >= 8 else 0):
                lines = modules[(k * 7) % len(modules)].splitlines()[: 20 + 30 * k]
                for n in range(4 + k):
                    lines.insert((n * 13) % (len(lines) + 1), "# " + words[(k + n) % len(words)].splitlines()[0])
                text = "\n".join(lines) + "\n"
                rows.append({"path": f"{language}-{charset}-{k}.py", "text": text, "content": text.encode(charset)})
    if not rows:
        raise SystemExit("no installed package has translations; give --input, or install one that has (humanize)")
    pq.write_table(pa.Table.from_pylist(rows), folder / "input.parquet")
    return str(folder / "input.parquet")


def run(program: str, *arguments: str) -> dict[str, Any] | None:
    """One process: what it tells, None if something that it needs is not installed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        if "ModuleNotFoundError" in done.stderr or "ImportError" in done.stderr:
            return None
        raise SystemExit(done.stderr)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def versions(*names: str) -> dict[str, str]:
    """Of the interpreter and what is installed of these distributions."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Build or take the input, let all take turns, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--input", nargs="*", default=[], help="Parquet files with the columns content and text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = options.input or [build(Path(folder))]
        told: dict[str, list[dict[str, Any]]] = {}
        for _ in range(options.rounds):
            for name, program in PROGRAMS.items():
                found = run(program, *paths)
                if found is not None:
                    told.setdefault(name, []).append(found)
    rates = {name: statistics.median(one["bytes"] / one["cpu"] / 1e6 for one in many) for name, many in told.items()}
    peers = {name: round(rates[name], 2) if name in rates else None for name in PROGRAMS if name != "ours"}
    measured = [rate for rate in peers.values() if rate]
    ratio = round(rates["ours"] / max(measured), 2) if measured else None
    result = {
        "name": NAME,
        "unit": "MB/CPU-s",
        "ours": round(rates["ours"], 2),
        "peers": peers,
        "ratio": ratio,
        "goal": GOAL,
        "meets": rates["ours"] >= GOAL,
        "versions": versions(*DISTRIBUTIONS),
        "input": {"files": told["ours"][0]["files"], "bytes": told["ours"][0]["bytes"]},
    }
    if options.json:
        print(json.dumps(result | {"runs": told}))
        return
    print(f"{'':24}{'MB/CPU-s':>10}{'CPU-s':>9}{'start':>8}{'peak MB':>9}  {EXTRA}")
    for name in PROGRAMS:
        if name not in told:
            print(f"{name:24}{'not measured':>12}: not installed")
            continue
        one = told[name][-1]
        print(f"{name:24}{rates[name]:10.2f}{one['cpu']:9.2f}{one['start']:8.2f}{one['peak_mb']:9.0f}  {one['extra']}")
    verdict = "met" if result["meets"] else "not met"
    print(f"goal {GOAL} MB/CPU-s: {verdict}; against the fastest peer: {ratio}; {result['versions']}")


if __name__ == "__main__":
    main()
