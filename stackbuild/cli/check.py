"""`stackbuild check`: is it in the dataset, and why not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import typer

from stackbuild.cli.show import escaped
from stackbuild.index.lookup import Answer, Lookup
from stackbuild.status import described

SHOWN = 20


def run(out: Path, queries: list[str], why: bool, as_json: bool) -> None:
    """Answer every query; exit 1 if nothing of any of them is in the dataset."""
    if (out / "build.json").exists():  # a copy of what was published may stand without
        described(out)
    lookup = Lookup(out)
    asked = [line.strip() for query in queries for line in (listed() if query == "-" else [query]) if line.strip()]
    found = False
    for query in asked:
        for answer in lookup.ask(query, why):
            found |= answer.found
            if as_json:
                print(json.dumps(vars(answer), default=plain))  # ASCII: a path need not be Unicode
            else:
                show(answer, why)
    raise typer.Exit(0 if found else 1)


def listed() -> list[str]:
    """The lines of stdin, whatever bytes are in them."""
    return sys.stdin.buffer.read().decode("utf-8", "surrogateescape").split("\n")


def plain(value: Any) -> str:
    """Bytes as hex, dates as text."""
    return value.hex() if isinstance(value, bytes) else str(value)


def show(answer: Answer, why: bool) -> None:
    """One answer for a person: the verdict first."""
    verdict = (
        "in the dataset"
        if answer.found
        else "not in the dataset"
        if answer.repositories and not any(repo["revision_id"] for repo in answer.repositories)
        else "was read, but nothing of it is in the dataset"
        if answer.seen
        else "not found"
    )
    print(f"{escaped(answer.query)}: {verdict}")
    for repo in answer.repositories:
        if repo["revision_id"]:
            kept = f"{repo['kept']:,} of {repo['files']:,} files kept"
            print(f"  {escaped(repo['repo_name'])} at {escaped(repo['revision_id'])}: {kept}")
        else:
            print(f"  {escaped(repo['repo_name'])}: nothing of it could be read")
        if repo.get("other_names"):
            print(f"    also known as {escaped(', '.join(repo['other_names'].split()))}")
        for left in repo["left"] or ():
            print(f"    {left['files']:,} left by {left['stage']}: {left['rule']}")
    for file in answer.files[:SHOWN]:
        print(f"  as {escaped(file['repo_name'])} {escaped(file['path'])} ({file['language']}, {file['license_type']})")
    if not answer.found and not answer.seen:
        print(
            "  Nothing of this name or content was read for this build. A copy that was edited has another content id."
        )
    if answer.note:
        print(f"  {answer.note}")
    if why or (answer.decisions and not answer.found):
        for decision in answer.decisions[:SHOWN]:
            print(f"    {describe(decision)}")
        if len(answer.decisions) > SHOWN:
            print(f"    and {len(answer.decisions) - SHOWN:,} more; --json shows all")


def describe(decision: dict[str, Any]) -> str:
    """A decision in a line: the file, the rule, what was measured and the limit."""
    text = f"{escaped(decision['repo_name'])} {escaped(decision['path'])}: {decision['stage']}, {decision['rule']}"
    if decision.get("private"):
        text = f"(private) {text}"
    value, threshold = decision.get("value"), decision.get("threshold")
    if value is not None:
        text += f" = {value:g}" + (f" (limit {threshold:g})" if threshold is not None else "")
    if decision.get("kept_content_id"):
        text += f"; kept in its place: {escaped(decision.get('detail') or '')} swh:1:cnt:{decision['kept_content_id'].hex()}"
    elif decision.get("detail"):
        text += f"; {escaped(decision['detail'])}"
    return text
