"""Write `linguist.toml`: what linguist's languages are called, and which of them our detector knows.

    python -m stackbuild.languages.generate languages.yml 9.5.0

The first is linguist's own list of that version (lib/linguist/languages.yml, MIT). enry cannot list what it knows, but can
be asked for each name. Run it again when enry or linguist have a new version.
"""

from __future__ import annotations

import sys
from pathlib import Path

FILE = Path(__file__).with_name("linguist.toml")
# What enry calls three languages that linguist has renamed since; it cannot be asked for these names by a number.
RENAMED = {"SaltStack": "Salt", "Vim Script": "Vim script", "robots.txt": "Robots Exclusion Rules"}
HEAD = """# Written by stackbuild.languages.generate. The languages of linguist {version} by kind; those that enry-python {enry} does not
# know; and what it calls those that linguist has renamed since.

linguist = "{version}"
enry = "{enry}"
"""


def main() -> None:
    """Ask enry for every name of the list."""
    from importlib.metadata import version

    import enry
    import yaml  # type: ignore[import-untyped]

    languages = yaml.safe_load(Path(sys.argv[1]).read_text())
    lines = [HEAD.format(version=sys.argv[2], enry=version("enry-python"))]
    unknown = sorted(name for name in languages if enry.get_language_type(name) == "unknown")
    lines += [f"unknown = {_listed(unknown)}\n", "[kinds]"]
    for kind in sorted({one["type"] for one in languages.values()}):
        lines.append(f"{kind} = {_listed(sorted(name for name, one in languages.items() if one['type'] == kind))}")
    lines.append("\n[renamed]")
    lines += [f'"{old}" = "{new}"' for old, new in sorted(RENAMED.items()) if enry.get_language_type(old) != "unknown"]
    FILE.write_text("\n".join(lines) + "\n")


def _listed(names: list[str]) -> str:
    rows, row = [], ""
    for name in names:
        if len(row) + len(name) > 110:
            rows.append(row)
            row = ""
        row += f'"{name}", '
    return "[\n" + "".join(f"  {one.rstrip()}\n" for one in [*rows, row] if one) + "]"


if __name__ == "__main__":
    main()
