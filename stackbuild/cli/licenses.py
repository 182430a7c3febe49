"""`stackbuild licenses`: lists of permissive licences, and what another one would change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stackbuild.licenses.lists import data_names, difference, load_list

SHOWN = 20


def lists(as_json: bool) -> None:
    """Name the lists."""
    found = [load_list(name) for name in data_names("lists")]
    if as_json:
        rows = [{"name": one.name, "version": one.version, "ids": len(one.ids), "approximation": one.approximation,
                 "origin": one.origin} for one in found]  # fmt: skip
        print(json.dumps(rows))
        return
    for one in found:
        print(
            f"{one.name}  {len(one.ids):,} ids, version {one.version}{', an approximation' if one.approximation else ''}"
        )
        print(f"  {one.origin}")


def diff(older: str, newer: str, build: Path | None, as_json: bool) -> None:
    """Show how one list became another."""
    first, second = load_list(older), load_list(newer)
    found = difference(first, second)
    told: dict[str, Any] = {"added": found.added, "removed": found.removed}
    if build is not None:
        from stackbuild.license_lists import effect

        told["build"] = effect(build, older, newer)
    if as_json:
        print(json.dumps(told))
        return
    print(
        f"{first.name} {first.version} ({len(first.ids):,} ids) -> {second.name} {second.version} ({len(second.ids):,} ids)"
    )
    for sign, names in (("+", found.added), ("-", found.removed)):
        for name in names:
            print(f"{sign} {name}")
    if build is None:
        return
    print(f"of {told['build']['contents']:,} contents in {build}:")
    for name in ("gained", "lost"):
        change = told["build"][name]
        print(f"  {name} {change['files']:,} files, {change['bytes'] / 1e6:,.1f} MB")
        for keys, files in list(change["licenses"].items())[:SHOWN]:
            print(f"    {files:,}  {keys}")
        if len(change["licenses"]) > SHOWN:
            print(f"    and {len(change['licenses']) - SHOWN:,} more; --json shows all")
