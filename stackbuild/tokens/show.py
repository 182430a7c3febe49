"""A document for people: its text with the sentinels in colour, what was removed of it, and the files it is made of."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stackbuild.errors import InputError
from stackbuild.tokens.bpe import Vocabulary
from stackbuild.tokens.dataset import OpenShard, TokensDataset
from stackbuild.tokens.documents import read_document
from stackbuild.tokens.indexed import IndexedDataset

FILES = 100  # rows of the table of files
SENTINEL, REMOVED = "bold magenta", "reverse red"
Spans = Sequence[tuple[int, int]] | npt.NDArray[np.int64]


def find_document(
    dataset: TokensDataset, number: int, source: str | None, split: str | None, shard: str | None
) -> tuple[OpenShard, int]:
    """The shard of document `number` and its number there, counted from 0 through the shards that are chosen: of a source,
    a split, or one by its prefix. InputError if nothing is chosen by this, or there are fewer documents."""
    chosen = [
        one
        for part in dataset.parts
        for one in dataset.shards(*part)
        if source in (None, part[0]) and split in (None, part[1]) and shard in (None, one.shard.prefix)
    ]
    if not chosen:
        there = ", ".join(f"{name} {part}" for name, part in dataset.parts)
        raise InputError(f"{dataset.folder} has no such shard; its sources and splits are: {there}")
    left = number
    for one in chosen:
        if 0 <= left < len(one.tokens):
            return one, left
        left -= len(one.tokens)
    total = sum(len(one.tokens) for one in chosen)
    raise InputError(f"{dataset.folder}: there is no document {number}; there are {total:,}, counted from 0")


def show_document(
    prefix: str | Path,
    number: int,
    tokenizer: str | Path | Vocabulary,
    longest: int = 4000,
    removed: Spans = (),
) -> RenderableType:
    """Document `number` of a shard as a rich renderable: a heading, at most `longest` tokens of text that stayed, its files.

    Of `removed` spans (start, end) only the length is shown. Control characters of strangers are shown escaped.
    InputError if the shard cannot be read or has no such document.
    """
    vocabulary = tokenizer if isinstance(tokenizer, Vocabulary) else Vocabulary(tokenizer)
    dataset = IndexedDataset(prefix)
    row = read_document(prefix, number)
    if number >= len(dataset) or row["tokens"] != dataset.sizes[number]:
        raise InputError(f"{prefix}: the document table is not that of this .idx; write the shard again")
    spans = [(int(start), int(end)) for start, end in removed]
    text = Text(overflow="fold")
    at, left = 0, longest
    for start, end in [*spans, (row["tokens"], row["tokens"])]:
        stop = min(start, at + left)
        append_tokens(text, dataset.read(number, at, stop), vocabulary, prefix)
        at, left = stop, left - (stop - at)
        if stop < start:
            break
        if start < end:
            text.append(f"[{end - start:,} tokens removed]", style=REMOVED)
        at = end
    if at < row["tokens"]:
        text.append(f"\n… {row['tokens'] - at:,} tokens more", style="dim")
    return Group(_heading(row, spans), Text(""), text, Text(""), _files(row, spans))


def append_tokens(text: Text, tokens: npt.NDArray[Any], vocabulary: Vocabulary, prefix: str | Path) -> None:
    """Append tokens as text, sentinels in colour."""
    ids = tokens.tolist()
    if ids and max(ids) >= vocabulary.size:
        raise InputError(f"{prefix}: token {max(ids)} is not in {vocabulary.path}, which has {vocabulary.size:,}")
    start = 0
    for at, token in enumerate([*ids, None]):
        if token is not None and token not in vocabulary.names:
            continue
        text.append(visible(vocabulary.decode(ids[start:at])))
        if token is not None:
            text.append(visible(vocabulary.names[token], False), style=SENTINEL)
        start = at + 1


def _heading(row: dict[str, Any], removed: list[tuple[int, int]]) -> Text:
    name = f"{visible(row['repo_name'], False)} @ {visible(row['revision_id'], False)}" if row["repo_name"] else ""
    heading = Text(name or f"document {row['document']:,}", style="bold")
    heading.append(f"   {row['tokens']:,} tokens, {row['bytes']:,} bytes, {len(row['files']):,} files", style="dim")
    if removed:
        heading.append(f"   {sum(end - start for start, end in removed):,} tokens removed", style=REMOVED)
    return heading


def _files(row: dict[str, Any], removed: list[tuple[int, int]]) -> Table:
    files = Table("tokens", "path", "language", "licence", "content_id", box=None, header_style="bold")
    for file in (row["files"] or ())[:FILES]:
        gone = any(start <= file["start"] and file["end"] <= end for start, end in removed)
        files.add_row(
            f"{file['start']:,}–{file['end']:,}",
            Text(visible(file["path"] or "", False), overflow="fold"),
            Text(visible(file["language"] or "–", False)),
            Text(visible(file["license_type"] or "–", False)),
            Text("removed", style=REMOVED) if gone else Text(visible(file["content_id"] or "–", False)),
        )
    if len(row["files"] or ()) > FILES:
        files.add_row("", Text(f"… {len(row['files']) - FILES:,} files more", style="dim"), "", "", "")
    return files


def visible(text: str, lines: bool = True) -> str:
    """The text with control and format characters escaped, but for line feeds and tabs if `lines`."""
    keep = "\n\t" if lines else ""
    return "".join(
        letter
        if letter in keep or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else letter.encode("unicode_escape").decode()
        for letter in text
    )
