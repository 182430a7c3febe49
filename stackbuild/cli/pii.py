"""`stackbuild pii`: redact anyone's files."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stackbuild.cli.progress import talking
from stackbuild.cli.show import escaped
from stackbuild.errors import InputError, RecipeError, UsageError
from stackbuild.pii.options import PiiOptions
from stackbuild.standalone.lean import begin


def options_of(config: Path | None, mode: str | None, entities: str | None, profiles: str | None) -> PiiOptions:
    """The options of a file's table [pii], whose paths start from that file's folder as a recipe's do, and, before them,
    those that were typed. RecipeError names what is wrong in the file, UsageError what is wrong in the command."""
    table = _table(config) if config else {}
    typed: dict[str, Any] = {"mode": mode} if mode else {}
    for name, value in (("entities", entities), ("profiles", profiles)):
        if value is not None:
            typed[name] = tuple(word.strip() for word in value.split(",") if word.strip())
    try:
        PiiOptions.model_validate(table)
    except ValidationError as error:
        raise RecipeError(f"{config}, [pii]: {_wrong(error)}.") from error
    try:
        return PiiOptions.model_validate(table | typed)
    except ValidationError as error:
        raise UsageError(f"--{_wrong(error)}.") from error


def _wrong(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False))


def _table(config: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(config.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{config} is no TOML: {error}.") from error
    except OSError as error:
        raise InputError(f"{config} cannot be read: {error.strerror}.") from error
    table = found.get("pii")
    if not isinstance(table, dict):
        raise RecipeError(f"{config} has no table [pii].")
    from stackbuild.recipe import files_of

    folder = config.resolve().parent
    return table | {key: str(folder / Path(table[key]).expanduser()) for key in files_of(table)}


def redact(
    paths: list[str],
    output: Path | None,
    options: PiiOptions,
    text: str | None,
    language: str,
    seed: int,
    spans: Path | None,
    workers: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run, with a bar for each step on a terminal, and print the report."""
    if (output is None) != dry_run:
        raise UsageError("--dry-run writes nothing, without --output." if dry_run else "Where to? --output DIR.")
    begin()
    from stackbuild.standalone.redaction import redact

    with talking(as_json) as talk:
        report = redact(
            paths, output, options, text=text, language=language, seed=seed, workers=workers, spans=spans, talk=talk
        )
    if as_json:
        print(json.dumps(report, sort_keys=True))
    else:
        show(report, output)
    if spans is not None:
        print(f"{spans} tells where secrets lie in the files that came in: keep it private.", file=sys.stderr)


def show(report: dict[str, Any], output: Path | None) -> None:
    """The report for a person."""
    done = "would be redacted" if output is None else "redacted"
    print(
        f"{report['rows']:,} rows, {report['bytes'] / 1e6:,.1f} MB of text; "
        f"{sum(report['redactions'].values()):,} findings in {report['rows_redacted']:,} rows {done}:"
    )
    for entity, count in sorted(report["redactions"].items(), key=lambda pair: -pair[1]):
        print(f"  {entity:12}{count:>12,}")
    languages = sorted(report.get("languages", {}).items(), key=lambda pair: -sum(pair[1].values()))
    for name, counts in languages[:20]:
        told = ", ".join(f"{count:,} {entity}" for entity, count in counts.items())
        print(f"  {escaped(name)[:30] or '(no language)'}: {told}")
    if len(languages) > 20:
        print(f"  and {len(languages) - 20:,} more languages; --json has all")
    if report["not_utf8"]:
        print(f"  {report['not_utf8']:,} texts are not UTF-8; what of them is was looked at")
    if report["unsettled"]:
        print(f"  {report['unsettled']:,} texts were replaced whole: redacting them had no end")
    if output is not None:
        print(f"{output}/data: the files; {output}/report.json")
