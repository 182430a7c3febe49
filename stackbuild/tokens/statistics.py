"""What a tokenized corpus is made of: tokens by source, split and language, and how much text a token holds.

Everything is counted from the document tables, a row group at a time and column by column; no token is read. Tokens that
were removed later are counted as they were made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stackbuild.errors import InputError
from stackbuild.tokens.dataset import tokens_folder
from stackbuild.tokens.documents import is_document_table
from stackbuild.tokens.job import read_manifest

NAME = "statistics.json"
TOTALS = ("documents", "empty_documents", "tokens", "header_tokens")
COUNTS = ("files", "tokens", "bytes", "characters")
_TEXT = ("start", "end", "bytes", "characters")


def table_statistics(path: str | Path) -> dict[str, Any]:
    """Of one document table: the `TOTALS`, `longest_document` in tokens, and `languages`: {language: `COUNTS`}, where
    "" are files without one. Tokens of a language are those of its files' texts, without headers and closing tokens.

    InputError if it cannot be read as a document table.
    """
    totals = dict.fromkeys((*TOTALS, "longest_document"), 0)
    languages: dict[str, dict[str, int]] = {}
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            if not is_document_table(file.schema_arrow):
                raise InputError(f"{path}: it is not a document table: a column is missing, or of another type")
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=["tokens", "headers", "files"])
                _add_totals(totals, table)
                for name, counts in _by_language(table["files"]).items():
                    have = languages.setdefault(name, dict.fromkeys(COUNTS, 0))
                    for count in COUNTS:
                        have[count] += counts[count]
    except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: a null where a number is due
        raise InputError(f"{path}: cannot be read as a document table: {error}") from error
    return {**totals, "languages": dict(sorted(languages.items()))}


def _add_totals(totals: dict[str, int], table: pa.Table) -> None:
    tokens = np.asarray(table["tokens"])
    headers = pc.list_flatten(table["headers"].combine_chunks())
    files = pc.fill_null(pc.list_value_length(table["files"]), 0)
    totals["documents"] += len(tokens)
    totals["empty_documents"] += int((np.asarray(files) == 0).sum())
    totals["tokens"] += int(tokens.sum())
    totals["header_tokens"] += int((np.asarray(headers.field("end")) - np.asarray(headers.field("start"))).sum())
    totals["longest_document"] = max(totals["longest_document"], int(tokens.max(initial=0)))


def _by_language(files: pa.ChunkedArray) -> dict[str, dict[str, int]]:
    entries = pc.list_flatten(files.combine_chunks())
    columns = {name: entries.field(name) for name in _TEXT}
    table = pa.table(
        {
            "language": pc.fill_null(entries.field("language"), ""),
            "tokens": pc.subtract(columns["end"], columns["start"]),
            "bytes": columns["bytes"],
            "characters": columns["characters"],
        }
    )
    sums = [(name, "sum") for name in ("tokens", "bytes", "characters")]
    grouped = table.group_by("language").aggregate([*sums, ("tokens", "count")]).to_pylist()
    return {
        row["language"]: {
            "files": row["tokens_count"],
            **{name: row[f"{name}_sum"] or 0 for name in ("tokens", "bytes", "characters")},
        }
        for row in grouped
    }


def combine(shards: Iterable[tuple[str, str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Sum the `table_statistics` of shards, each with its source and split: the content of statistics.json.

    {"version": 1, "parts": [{"source", "split", the totals, "files", "text_tokens", "bytes", "characters",
    "bytes_per_token", "characters_per_token", "longest_document", "languages": [{"language", the counts, both ratios}]}]},
    languages by falling tokens. Ratios are of files' texts, null where there is none.
    """
    parts: dict[tuple[str, str], dict[str, Any]] = {}
    for source, split, counts in shards:
        part = parts.setdefault(
            (source, split),
            {"source": source, "split": split, **dict.fromkeys(TOTALS, 0), "longest_document": 0, "languages": {}},
        )
        for name in TOTALS:
            part[name] += counts[name]
        part["longest_document"] = max(part["longest_document"], counts["longest_document"])
        for language, row in counts["languages"].items():
            have = part["languages"].setdefault(language, dict.fromkeys(COUNTS, 0))
            for name in COUNTS:
                have[name] += row[name]
    return {"version": 1, "parts": [_finished(part) for part in parts.values()]}


def _finished(part: dict[str, Any]) -> dict[str, Any]:
    languages = part.pop("languages")
    text = {name: sum(row[name] for row in languages.values()) for name in COUNTS}
    total = {
        "files": text["files"],
        "text_tokens": text["tokens"],
        "bytes": text["bytes"],
        "characters": text["characters"],
    }
    order = sorted(languages, key=lambda name: (-languages[name]["tokens"], name))
    rows = [{"language": name, **languages[name], **_ratios(languages[name])} for name in order]
    return {**part, **total, **_ratios(text), "languages": rows}


def _ratios(counts: Mapping[str, int]) -> dict[str, float | None]:
    tokens = counts["tokens"]
    return {
        f"{name}_per_token": round(counts[name] / tokens, 4) if tokens else None for name in ("bytes", "characters")
    }


def statistics(folder: str | Path) -> dict[str, Any]:
    """The content of statistics.json of a tokens folder, counted again from its document tables."""
    folder = tokens_folder(folder)
    manifest = read_manifest(folder / "manifest.json")
    return combine(
        (source.name, source.split, table_statistics(folder / f"{shard.prefix}.documents.parquet"))
        for source in manifest.sources
        for shard in source.shards
    )
