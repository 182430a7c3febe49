"""`stackbuild report RUN`: the curves of a training run as a page, and a few numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from stackbuild.cli.show import escaped
from stackbuild.errors import InputError
from stackbuild.shards import write_atomically

PAGE = "report.html"


def is_run(folder: Path) -> bool:
    """Whether a folder is a run of the trainer, and not the output of a build."""
    return (folder / "metrics.jsonl").is_file() and (folder / "config.json").is_file()


def run(folder: Path, as_json: bool) -> None:
    """Write RUN/report.html and print the held-out losses. InputError: files of a run that cannot be read."""
    from stackbuild.train.metrics import read_metrics
    from stackbuild.train.report_page import page, summary

    config, parent = _json(folder / "config.json"), folder / "parent.json"
    metrics = read_metrics(folder)
    try:
        text = page(config, metrics, _json(parent) if parent.exists() else None)
        told = summary(metrics)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{folder}: its config.json or metrics.jsonl is not what a run writes: {error!r}") from error
    write_atomically(folder / PAGE, text.encode())
    if as_json:
        print(json.dumps({"run": str(folder), "step": max(line["step"] for line in metrics), "sources": told}))
        return
    table = Table("source", "first", "best", "last", "PSM", "SPM", "exact", "stopped", box=None, header_style="bold")
    for row in told:
        losses = [f"{row[key]:.4f} at {row[f'{key}_step']:,}" for key in ("first", "best", "last")]
        middles = ["–" if row[key] is None else f"{row[key]:.3f}" for key in ("psm", "spm")]
        parts = ["–" if row[key] is None else f"{row[key]:.1%}" for key in ("exact", "stop")]
        table.add_row(escaped(row["source"]), *losses, *middles, *parts)
    Console().print(table)
    print(folder / PAGE)


def _json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_bytes())
        if not isinstance(told, dict):
            raise ValueError("it holds no table")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    return told
