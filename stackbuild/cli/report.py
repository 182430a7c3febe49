"""`stackbuild report`: write the report again and print the funnel; of a training run, its curves."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from stackbuild.build import report
from stackbuild.cli.train_report import is_run
from stackbuild.cli.train_report import run as train_report
from stackbuild.housekeeping import finished
from stackbuild.report.funnel import funnel_table


def run(out: Path, as_json: bool) -> None:
    """From what the build left; no stage runs."""
    if is_run(out):
        train_report(out, as_json)
        return
    figures = report(finished(out))
    if as_json:
        print(json.dumps(figures))
        return
    Console().print(funnel_table(figures["funnel"]))
    print(f"{out}/report/index.html")
