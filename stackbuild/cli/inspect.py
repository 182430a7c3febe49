"""`stackbuild inspect`: look at what was made."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from stackbuild.errors import InputError, UsageError


def run(what: str, out: Path, document: int) -> None:
    """Show one document of the tokenized corpus; documents are counted through all shards."""
    if what != "tokens":
        raise UsageError(f"There is nothing named {what!r} to inspect; there is: tokens.")
    from stackbuild.tokens.job import read_manifest
    from stackbuild.tokens.show import show_document

    folder = out / "tokens"
    manifest = read_manifest(folder / "manifest.json")
    number = document
    for source in manifest.sources:
        for shard in source.shards:
            if number < shard.documents:
                Console().print(show_document(folder / shard.prefix, number, folder / "tokenizer.json"))
                return
            number -= shard.documents
    raise InputError(f"{out} has {document - number:,} documents; --document counts from 0.")
