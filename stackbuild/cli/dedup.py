"""`stackbuild dedup`: exact and near copies out of anyone's tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stackbuild.cli.progress import talking
from stackbuild.cli.show import escaped
from stackbuild.errors import UsageError
from stackbuild.standalone.lean import begin


def run(
    paths: list[str],
    out: Path,
    given: dict[str, Any],
    workers: int | None,
    partitions: int | None,
    earlier: Path | None,
    as_json: bool,
) -> None:
    """Run, with a bar for each step on a terminal, and print the report."""
    begin()
    from stackbuild.standalone.dedup import deduplicate
    from stackbuild.standalone.options import DedupOptions

    try:
        options = DedupOptions(**given)
    except ValidationError as error:
        wrong = (f"--{str(one['loc'][0]).replace('_', '-')}: {one['msg']}" for one in error.errors() if one["loc"])
        raise UsageError("; ".join(wrong) or str(error)) from error
    seed = 42
    with talking(as_json) as talk:
        report = deduplicate(
            paths, out, options, seed=seed, workers=workers, partitions=partitions, earlier=earlier, talk=talk
        )
    if as_json:
        print(json.dumps(report, sort_keys=True))
    else:
        show(report, out)


def show(report: dict[str, Any], out: Path) -> None:
    """The report for a person."""
    removed, sizes = report["removed"], report["removed_bytes"]
    share = 100 * sum(removed.values()) / max(report["rows"], 1)
    print(
        f"{report['rows']:,} rows, {report['bytes'] / 1e6:,.1f} MB of text; {report['kept']:,} stay ({share:.1f} % removed):"
    )
    print(f"  exact copies     {removed['exact_copy']:>12,}  {sizes['exact_copy'] / 1e6:>10,.1f} MB")
    print(f"  near-duplicates  {removed['near_duplicate']:>12,}  {sizes['near_duplicate'] / 1e6:>10,.1f} MB")
    if "headers" in report:
        found = report["headers"]
        print(
            f"  near-duplicate texts: {found['removed']:,}; if licence headers counted it would be {found['removed_with_headers']:,}"
        )
    if "changes" in report:
        print(
            f"  {report['earlier_rows']:,} rows are of earlier files; {report['changes']:,} of these changed: {out}/changes.parquet"
        )
    for alarm in report.get("alarms", [])[:20]:
        print(f"  {escaped(str(alarm['source']))} loses {alarm['removed']:,} of its {alarm['rows']:,} rows")
    print(f"{out}/data: the rows that stay; {out}/clusters: who left and for whom; {out}/report.json")
