"""Encodings: our chain against detectors, on real code and translations written in legacy charsets.

    python -m benchmarks.encodings [--input PARQUET ...] [--rounds N] [--json]

The input is built from what is installed: translated messages (gettext catalogues of the packages and of the system) stand as comments in
this Python's own modules, written in the charsets of their languages. Told are the shares whose text is
recovered exactly, wrongly, and not at all. A peer's answer counts if its encoding decodes the bytes; each gets UTF-8
first, as The Stack v2 did. Input of one's own has the columns content, text and path.
"""

from __future__ import annotations

import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import Comparison, options

GOAL, EXACT, WRONG = 8.0, 0.97, 0.015  # MB/CPU-s; shares of the files
CHARSETS = {
    "ar": ["cp1256"], "da": ["cp1252"], "de": ["cp1252", "utf-16"], "el": ["cp1253", "iso8859-7"], "es": ["cp1252"],
    "fr": ["cp1252", "utf-8-sig"], "he": ["cp1255"], "hu": ["cp1250", "iso8859-2"], "it": ["cp1252"], "pt": ["cp1252"],
    "ja": ["cp932", "euc_jp", "iso2022_jp", "utf-16-le"], "ko": ["cp949", "utf-16-be"], "pl": ["cp1250", "iso8859-2"],
    "ru": ["cp1251", "koi8-r", "cp866", "iso8859-5", "utf-8"], "th": ["cp874"], "tr": ["cp1254"], 
    "uk": ["cp1251", "koi8-u"],
    "vi": ["cp1258"], "zh": ["gb18030", "big5"], "cs": ["cp1250", "iso8859-2"], "sk": ["cp1250"], "sv": ["cp1252"],
}  # fmt: skip

Work = Callable[[], dict[str, Any]]
Read = Callable[[bytes], str | None]
Detect = Callable[[bytes], str | None]


def scored(paths: Sequence[str], read: Read) -> Work:
    """Read every file and tell the shares that are as they were, otherwise, and not read."""
    tables = [pq.read_table(path, columns=["content", "text"], use_threads=False) for path in paths]
    contents, texts = (pa.concat_tables(tables)[name].to_pylist() for name in ("content", "text"))
    read(contents[0])

    def work() -> dict[str, Any]:
        found = [read(data) for data in contents]
        exact = sum(one == text for one, text in zip(found, texts, strict=True)) / len(texts)
        none = sum(one is None for one in found) / len(texts)
        return {"exact": exact, "wrong": max(0.0, 1 - exact - none), "none": none}

    return work


def after_utf8(detect: Detect) -> Read:
    """UTF-8 if the bytes are that, else what a detector says, if the bytes are that."""

    def read(data: bytes) -> str | None:
        for name in ("utf-8", None):
            try:
                return data.decode(name or detect(data) or "no-answer")
            except (UnicodeDecodeError, LookupError):
                pass
        return None

    return read


def ours(paths: Sequence[str]) -> Work:
    """Our chain."""
    from stackbuild.languages import encodings

    return scored(paths, lambda data: encodings.read(data).text)


def chardetng(paths: Sequence[str]) -> Work:
    """Firefox's detector, which ours asks as well."""
    from chardetng_py import detect

    return scored(paths, after_utf8(detect))


def cchardet(paths: Sequence[str]) -> Work:
    """What The Stack v2 used, in its living fork."""
    import cchardet as library

    return scored(paths, after_utf8(lambda data: library.detect(data)["encoding"]))


def chardet(paths: Sequence[str]) -> Work:
    """The detector in Python."""
    import chardet as library

    return scored(paths, after_utf8(lambda data: library.detect(data)["encoding"]))


def charset_normalizer(paths: Sequence[str]) -> Work:
    """What requests uses."""
    from charset_normalizer import from_bytes

    return scored(paths, after_utf8(lambda data: best.encoding if (best := from_bytes(data).best()) else None))


WAYS = {
    "ours": ours,
    "utf-8, chardetng": chardetng,
    "utf-8, cchardet": cchardet,
    "utf-8, chardet": chardet,
    "utf-8, charset-normalizer": charset_normalizer,
}


def messages() -> dict[str, list[str]]:
    """Translations by language, from the catalogues of the installed packages, of Python and of the system."""
    import gettext

    found: dict[str, list[str]] = {}
    roots = (Path(sysconfig.get_path("purelib")), Path("/usr/share/locale"))
    for path in (path for root in roots for path in sorted(root.rglob("LC_MESSAGES/*.mo"))):
        language = path.parent.parent.name.partition("_")[0]
        if language not in CHARSETS:
            continue
        try:
            with path.open("rb") as file:
                catalogue = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        except (OSError, UnicodeError):  # a catalogue that its own reader does not read
            continue
        texts = (text for key, text in catalogue.items() if key)  # the one without a key is the catalogue's header
        found.setdefault(language, []).extend(text for text in texts if text and not text.isascii())
    return {language: sorted(set(texts)) for language, texts in found.items()}


def build(folder: Path) -> str:
    """A Parquet file of modules of this Python with comments in many languages and charsets."""
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
                    lines.insert(
                        (n * 13) % (len(lines) + 1), "# " + words[(k * 7919 + n * 104729) % len(words)].splitlines()[0]
                    )
                text = "\n".join(lines) + "\n"
                rows.append({"path": f"{language}-{charset}-{k}.py", "text": text, "content": text.encode(charset)})
    if not rows:
        raise SystemExit("no installed package has translations; give --input, or install one that has (humanize)")
    pq.write_table(pa.Table.from_pylist(rows), folder / "input.parquet")
    return str(folder / "input.parquet")


def main() -> None:
    """Build or take the input, let all take turns, and print."""
    parser = options(__doc__ or "")
    parser.add_argument("--input", nargs="*", default=[], help="Parquet files with the columns content and text")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(name).resolve()) for name in given.input] or [build(Path(folder))]
        sizes = [
            len(data) for path in paths for data in pq.read_table(path, columns=["content"])["content"].to_pylist()
        ]
        comparison = Comparison(
            "encodings", "MB/CPU-s", GOAL, sum(sizes) / 1e6, {"files": len(sizes), "bytes": sum(sizes)},
            ("stackbuild", "chardetng_py", "chardet", "charset-normalizer", "faust-cchardet"),
            absolute=True, shown=("exact", "wrong", "none"),
        )  # fmt: skip
        comparison.take_turns(
            {name: (f"benchmarks.encodings:{way.__name__}", {"paths": paths}) for name, way in WAYS.items()},
            given.rounds,
        )
    comparison.show(given.json)
    if not given.json:
        told = comparison.runs["ours"][-1].told
        met = told["exact"] >= EXACT and told["wrong"] <= WRONG
        print(
            f"exact {told['exact']:.2%}, goal {EXACT:.0%}; wrong {told['wrong']:.2%}, goal {WRONG:.1%}: {'' if met else 'not '}met"
        )


if __name__ == "__main__":
    main()
