"""`stackbuild tokens`: merge, remove, exchange with datatrove, verify, count documents and rows."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.table import Table

from stackbuild.errors import InputError, UsageError
from stackbuild.tokens.show import visible

LANGUAGES = 30  # shown of each source and split


def merge(paths: list[Path], as_json: bool) -> None:
    """Merge the shards of all folders but the last into that one."""
    from stackbuild.tokens.merge import merge

    if len(paths) < 2:
        raise UsageError("tokens merge needs a folder to read and one to write: tokens merge OUT... DEST")
    manifest = merge(paths[:-1], paths[-1])
    if as_json:
        print(manifest.model_dump_json())
        return
    for source in manifest.sources:
        for shard in source.shards:
            print(
                f"{paths[-1] / shard.prefix}: {source.name} {source.split}, "
                f"{shard.documents:,} documents, {shard.tokens:,} tokens"
            )


def remove(out: Path, repos: list[str], content_ids: list[str], list_: Path | None, apply: bool, as_json: bool) -> None:
    """Take out what is named, and tell how much that was."""
    from stackbuild.opt_out.ledger import Ledger, load, parse
    from stackbuild.token_removal import remove

    if not (repos or content_ids or list_ or apply):
        raise UsageError("Name what to take out: --repo NAME, --content-id ID or --list FILE.")
    for content in content_ids:
        if not re.fullmatch(r"(swh:1:cnt:)?[0-9a-fA-F]{40}", content, re.ASCII):
            raise UsageError(f"{content!r} is no content_id: 40 hexadecimal digits")
    named = [*repos, *(content if content.startswith("swh:") else f"swh:1:cnt:{content}" for content in content_ids)]
    typed = parse("\n".join(json.dumps({"key": name}) for name in named), "--repo and --content-id")
    entries = (*typed.entries, *(load(list_).entries if list_ else ()))
    told = remove(out, Ledger(entries), apply)
    if as_json:
        print(json.dumps(asdict(told)))
        return
    if entries:
        print(
            f"{told.documents:,} documents lose {told.files:,} files; {told.tokens:,} tokens are removed now, "
            f"{told.before:,} were before."
        )
    if told.unanswered:
        print(
            f"note: {told.unanswered:,} entries name an address, a snapshot or a directory; without the build's repos or "
            "dataset they could be compared with names only."
        )
    if apply and not told.overwritten:
        print("Every removed span was overwritten before, or there is none.")
    if told.overwritten:
        print(
            f"Overwritten in the .bin of {len(told.overwritten):,} shards. The build's stages and dataset, and copies made "
            "before, still hold the text."
        )


def rows(
    out: Path,
    data: Path | None,
    sequence_length: int | None,
    seed: int,
    epochs: int,
    workers: int,
    cache: Path | None,
    as_json: bool,
) -> None:
    """Count training rows, and tell how many each epoch of a source has."""
    from stackbuild.build import cache_folder
    from stackbuild.tokens.count_rows import count_rows
    from stackbuild.tokens.data_config import load_data_config

    config = load_data_config(data, {} if sequence_length is None else {"sequence_length": sequence_length})
    kept = cache_folder() / "rows" if cache is None else cache
    for one in count_rows(out, config, seed, kept, epochs, workers):
        if as_json:
            print(json.dumps(one._asdict()))
        else:
            print(
                f"{visible(one.source, False)}, epoch {one.epoch}: {one.rows:,} rows of {config.sequence_length:,} tokens, "
                f"{one.windows:,} {'window' if one.windows == 1 else 'windows'}"
            )


def import_ds(folder: Path, dest: Path, tokenizer: Path, source: str, split: str, fim: bool, ignore_loss: bool) -> None:
    """Import and tell how much that was."""
    from stackbuild.tokens.ds import import_ds

    _known_split(split)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", source):
        raise UsageError(f"--source {source!r}: letters, digits, '.', '_' and '-' only")
    options: dict[str, Any] = {"source": source, "split": split, "fim": fim, "ignore_loss": ignore_loss}
    shards = import_ds(folder, dest, tokenizer, **options).sources[0].shards
    documents, tokens = (sum(getattr(shard, name) for shard in shards) for name in ("documents", "tokens"))
    print(f"{dest}: {len(shards):,} shards, {documents:,} documents, {tokens:,} tokens")


def export_ds(out: Path, dest: Path, split: str) -> None:
    """Export and tell how many files that made."""
    from stackbuild.tokens.ds import export_ds

    print(f"{dest}: {export_ds(out, dest, _known_split(split)):,} .ds files")


def _known_split(name: str) -> Any:
    """The name of a split; UsageError if it is none."""
    from stackbuild.tokens.job import Split

    if name not in get_args(Split):
        raise UsageError(f"--split {name}: there are {' and '.join(get_args(Split))}.")
    return name


def verify(out: Path) -> None:
    """Open and hash everything; InputError names what does not fit."""
    from stackbuild.tokens.dataset import TokensDataset

    dataset = TokensDataset(out, verify=True)
    for part in dataset.parts:
        print(f"{' '.join(part)}: {dataset.documents(*part):,} documents, {dataset.tokens(*part):,} tokens are whole")


def statistics(out: Path, as_json: bool) -> None:
    """Count and show."""
    from stackbuild.tokens.statistics import statistics

    told = statistics(out)
    if as_json:
        print(json.dumps(told))
        return
    if not told["parts"]:
        raise InputError(f"{out} has no tokens to count")
    for part in told["parts"]:
        print(
            f"{part['source']} {part['split']}: {part['documents']:,} documents, {part['tokens']:,} tokens, of these "
            f"{part['text_tokens']:,} of files and {part['header_tokens']:,} of headers; "
            f"the longest document has {part['longest_document']:,}"
        )
        if not part["languages"]:
            print("  its tables name no files")
            continue
        table = Table(box=None, header_style="bold")
        for name in ("language", "files", "tokens", "bytes", "bytes/token", "characters/token"):
            table.add_column(name, justify="left" if name == "language" else "right")
        for row in part["languages"][:LANGUAGES]:
            ratios = [row["bytes_per_token"], row["characters_per_token"]]
            table.add_row(
                visible(row["language"], False) or "–",
                *(f"{row[name]:,}" for name in ("files", "tokens", "bytes")),
                *("–" if ratio is None else f"{ratio:.3f}" for ratio in ratios),
            )
        Console().print(table)
        if len(part["languages"]) > LANGUAGES:
            print(f"  … {len(part['languages']) - LANGUAGES:,} languages more; --json has all")
