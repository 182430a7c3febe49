"""A training row for people: the pieces of documents in it, their files with the variants of fill-in-the-middle, the text
with sentinels in colour, what is no label, and padding."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stackbuild.tokens.batches import IGNORED, NOBODY, Batches, Piece, Rows
from stackbuild.tokens.bpe import Vocabulary
from stackbuild.tokens.documents import read_document
from stackbuild.tokens.fim_types import AST, NO_NODE, SPM
from stackbuild.tokens.megatron_batches import MegatronBatches
from stackbuild.tokens.show import REMOVED, append_tokens, visible

PIECE = "bold cyan"


def show_sample(batches: Batches | MegatronBatches, sample: int, longest: int = 4000) -> RenderableType:
    """A row as a rich renderable: at most `longest` of its tokens. Tokens whose label is masked stand in the style REMOVED.

    IndexError if the mixture has no such sample.
    """
    if isinstance(batches, MegatronBatches):
        return _stream(batches, sample, longest)
    rows, (pieces,) = batches.explain(sample, 1)
    vocabulary = Vocabulary(batches.dataset.tokenizer, checked=True)
    length = batches.config.sequence_length
    padding = int((rows.document[0] == NOBODY).sum())
    labels = int((rows.labels[0] != IGNORED).sum())
    heading = Text(f"sample {sample:,}", style="bold")
    heading.append(
        f"   {batches.sources[int(rows.source[0, 0])].name}, {length:,} tokens, {labels:,} labels, "
        f"{len(pieces):,} {'piece' if len(pieces) == 1 else 'pieces'} of documents, {padding:,} padding",
        style="dim",
    )
    parts: list[RenderableType] = [heading]
    paths = {one.shard.prefix: one.prefix for source in batches.sources for one in source.shards}
    left = longest
    for number, piece in enumerate(pieces):
        parts += [Text(""), *_piece(piece, paths[piece.prefix], number, len(pieces)), Text("")]
        parts.append(_text(rows, piece, vocabulary, left))
        left = max(left - (piece.end - piece.start), 0)
    return Group(*parts)


def _stream(batches: MegatronBatches, sample: int, longest: int) -> RenderableType:
    """A row of Megatron's order, which knows no documents: its text alone."""
    rows = batches.batch(sample, 1)
    length, labels = rows.tokens.shape[1], int((rows.labels[0] != IGNORED).sum())
    heading = Text(f"sample {sample:,}", style="bold")
    source = visible(batches.sources[int(rows.source[0, 0])], False)
    heading.append(f"   {source}, {length:,} tokens, {labels:,} labels, in Megatron's order", style="dim")
    whole = Piece("", 0, 0, length, 0, {}, {}, 0, length)
    return Group(heading, Text(""), _text(rows, whole, Vocabulary(batches.dataset.tokenizer, checked=True), longest))


def _piece(piece: Piece, prefix: str | Path, number: int, of: int) -> list[RenderableType]:
    row = read_document(prefix, piece.number)
    name = f"{visible(row['repo_name'], False)} @ {visible(row['revision_id'], False)}" if row["repo_name"] else ""
    heading = Text(f"piece {number + 1:,} of {of:,}  ", style=PIECE)
    heading.append(name or f"document {piece.number:,}", style="bold")
    heading.append(
        f"   document {piece.number:,} of {piece.prefix}, tokens {piece.low:,}–{piece.high:,} of {row['tokens']:,}, "
        f"epoch {piece.epoch:,}; row {piece.start:,}–{piece.end:,}",
        style="dim",
    )
    files = Table("tokens", "path", "language", "fill-in-the-middle", box=None, header_style="bold")
    for place, file in enumerate(row["files"] or ()):
        if file["end"] > piece.low and file["start"] < piece.high:
            files.add_row(
                f"{file['start']:,}–{file['end']:,}",
                Text(visible(file["path"] or "", False), overflow="fold"),
                Text(visible(file["language"] or "–", False)),
                _variant(piece, place),
            )
    if not row["files"]:
        files.add_row(f"0–{row['tokens']:,}", "the whole document", "–", _variant(piece, 0))
    return [heading, files]


def _variant(piece: Piece, place: int) -> str:
    if place not in piece.variants:
        return piece.files.get(place, "–")
    kind = piece.variants[place]
    around = ", around a node" if kind & AST else ", no node to cut around" if kind & NO_NODE else ""
    return ("SPM" if kind & SPM else "PSM") + around


def _text(rows: Rows, piece: Piece, vocabulary: Vocabulary, longest: int) -> Text:
    """The tokens of a piece, runs without labels marked."""
    text = Text(overflow="fold")
    end = min(piece.end, piece.start + longest)
    tokens, labels = rows.tokens[0, piece.start : end], rows.labels[0, piece.start : end]
    masked = labels == IGNORED
    borders = [0, *(np.flatnonzero(masked[1:] != masked[:-1]) + 1).tolist(), len(tokens)]
    for first, last in pairwise(borders):
        if last - first == 1 and masked[first]:  # before a token that is a label of the piece before
            append_tokens(text, tokens[first:last], vocabulary, piece.prefix)
            text.append("[no label]", style=REMOVED)
        elif last > first and masked[first]:
            text.append(f"[{last - first:,} tokens without a label]", style=REMOVED)
        else:
            append_tokens(text, tokens[first:last], vocabulary, piece.prefix)
    if end < piece.end:
        text.append(f"\n… {piece.end - end:,} tokens more", style="dim")
    return text
