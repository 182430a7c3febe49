"""A document for people: its text with the sentinels in colour, and the files it is made of."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stackbuild.errors import InputError
from stackbuild.tokens.bpe import Vocabulary
from stackbuild.tokens.documents import read_document
from stackbuild.tokens.indexed import IndexedDataset

FILES = 100  # rows of the table of files


def show_document(
    prefix: str | Path, number: int, tokenizer: str | Path | Vocabulary, longest: int = 4000
) -> RenderableType:
    """Document `number` of a shard as a rich renderable: a heading, at most `longest` tokens of text, its files.

    Control characters of strangers are shown escaped. InputError if the shard cannot be read or has no such document.
    """
    vocabulary = tokenizer if isinstance(tokenizer, Vocabulary) else Vocabulary(tokenizer)
    dataset = IndexedDataset(prefix)
    row = read_document(prefix, number)
    if number >= len(dataset) or row["tokens"] != dataset.sizes[number]:
        raise InputError(f"{prefix}: the document table is not that of this .idx; write the shard again")
    ids = dataset.read(number, 0, longest).tolist()
    if ids and max(ids) >= vocabulary.size:
        raise InputError(f"{prefix}: token {max(ids)} is not in {vocabulary.path}, which has {vocabulary.size:,}")
    text = Text(overflow="fold")
    start = 0
    for at, token in enumerate([*ids, None]):
        if token is not None and token not in vocabulary.names:
            continue
        text.append(visible(vocabulary.decode(ids[start:at])))
        if token is not None:
            text.append(vocabulary.names[token], style="bold magenta")
        start = at + 1
    if row["tokens"] > longest:
        text.append(f"\n… {row['tokens'] - longest:,} tokens more", style="dim")
    heading = Text(f"{visible(row['repo_name'], False)} @ {visible(row['revision_id'], False)}", style="bold")
    heading.append(f"   {row['tokens']:,} tokens, {row['bytes']:,} bytes, {len(row['files']):,} files", style="dim")
    files = Table("tokens", "path", "language", "licence", "content_id", box=None, header_style="bold")
    for file in row["files"][:FILES]:
        files.add_row(
            f"{file['start']:,}–{file['end']:,}",
            Text(visible(file["path"], False), overflow="fold"),
            Text(file["language"] or "–"),
            Text(file["license_type"] or "–"),
            file["content_id"],
        )
    if len(row["files"]) > FILES:
        files.add_row("", Text(f"… {len(row['files']) - FILES:,} files more", style="dim"), "", "", "")
    return Group(heading, Text(""), text, Text(""), files)


def visible(text: str, lines: bool = True) -> str:
    """The text with control and format characters escaped, but for line feeds and tabs if `lines`."""
    keep = "\n\t" if lines else ""
    return "".join(
        letter
        if letter in keep or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else letter.encode("unicode_escape").decode()
        for letter in text
    )
