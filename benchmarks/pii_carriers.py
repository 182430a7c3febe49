"""Real source files of ten languages that hold no personal data and no secret, by a criterion that is not our rules'."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

LANGUAGES = ("Python", "Go", "Java", "Perl", "Ruby", "PHP", "C", "C++", "JavaScript", "Shell")
CARRIER = re.compile(
    r"@|\d+\.\d+\.\d+\.\d+|[0-9a-fA-F]:[0-9a-fA-F:]*:|::|passw|secret|token|api.?key|private key|credential|copyright|author"
    r"|signed-off|maintain|[A-Za-z0-9+/_-]{32}",
    re.IGNORECASE,
)
SUFFIXES = {".py": "Python", ".h": "C", ".c": "C", ".hpp": "C++", ".cpp": "C++", ".js": "JavaScript", ".sh": "Shell", ".rb": "Ruby",
            ".pl": "Perl", ".go": "Go", ".java": "Java", ".php": "PHP"}  # fmt: skip


def carriers(paths: Sequence[str], most: int) -> list[tuple[str, str]]:
    """(language, text) of files that hold none of it, in turn by language."""
    found: dict[str, list[str]] = {}
    for language, text in _corpus(paths) if paths else _installed():
        if 400 < len(text) < 20_000 and not CARRIER.search(text):
            found.setdefault(language, []).append(text)
    turns = [[(language, text) for language in found for text in found[language][k : k + 1]] for k in range(most)]
    return [one for turn in turns for one in turn][:most]


def _corpus(paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    import pyarrow.parquet as pq

    for path in paths:
        with pq.ParquetFile(path) as file:
            language = next(name for name in ("lang", "language") if name in file.schema_arrow.names)
            for batch in file.iter_batches(256, columns=["text", language]):
                for row in batch.to_pylist():
                    if row[language] in LANGUAGES:
                        yield row[language], row["text"]


def _installed() -> Iterator[tuple[str, str]]:
    for root in (
        Path(sysconfig.get_path("stdlib")),
        Path(sysconfig.get_path("purelib")),
        Path("/usr/include"),
        Path("/usr/share"),
    ):
        for path in sorted(root.rglob("*")):
            if path.suffix in SUFFIXES and path.is_file() and not path.is_symlink():
                yield SUFFIXES[path.suffix], path.read_text("utf-8", "replace")
