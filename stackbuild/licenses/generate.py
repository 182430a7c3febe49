"""Make the licence data that is derived from others' lists, to be frozen in the repository.

    python -m stackbuild.licenses.generate scancode > licenses/scancode.json
    python -m stackbuild.licenses.generate blue-oak package/index.json 15.0.0 > licenses/lists/blue-oak.toml

The second reads `index.json` of the npm package @blueoak/list (`npm pack @blueoak/list@15.0.0`).
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from importlib import metadata
from pathlib import Path

SCANCODE_ORIGIN = (
    "licence data of scancode-toolkit (nexB Inc. and others), CC-BY-4.0: "
    "SPDX keys of all licences that are not deprecated, by category"
)
BLUE_OAK_ORIGIN = "Blue Oak Council, npm package @blueoak/list, CC0-1.0: all five ratings, Model to Lead"


def scancode_json() -> str:
    """The content of scancode.json for the installed ScanCode."""
    from licensedcode.cache import get_licenses_db

    licenses = [one for one in get_licenses_db().values() if not one.is_deprecated and one.spdx_license_key]
    categories: dict[str, list[str]] = defaultdict(list)
    keys = {one.spdx_license_key for one in licenses}
    aliases: dict[str, str] = {}
    for one in sorted(licenses, key=lambda found: str(found.spdx_license_key)):
        categories[one.category].append(one.spdx_license_key)
        for other in one.other_spdx_license_keys or ():
            if other not in keys:
                aliases.setdefault(other, one.spdx_license_key)
    body = {
        "origin": SCANCODE_ORIGIN,
        "version": metadata.version("scancode-toolkit-mini"),
        "exceptions": sorted(one.spdx_license_key for one in licenses if one.is_exception),
        "unknown": sorted(one.spdx_license_key for one in licenses if one.is_unknown),
        "categories": {name: categories[name] for name in sorted(categories)},
        "aliases": dict(sorted(aliases.items())),
    }
    return json.dumps(body, indent=1, ensure_ascii=False) + "\n"


def blue_oak_toml(index: str, version: str) -> str:
    """The content of blue-oak.toml from the package's index (JSON: ratings, each with its licences)."""
    ratings = json.loads(index)
    lines = ['name = "blue-oak"', f'version = "{version}"', f'origin = "{BLUE_OAK_ORIGIN}"', "ids = ["]
    for rating in ratings:
        lines.append(f"  # {rating['name']}")
        lines += [
            f"  {json.dumps(one['id'])}," for one in sorted(rating["licenses"], key=lambda found: str(found["id"]))
        ]
    return "\n".join([*lines, "]"]) + "\n"


def main(arguments: list[str]) -> int:
    match arguments:
        case ["scancode"]:
            sys.stdout.write(scancode_json())
        case ["blue-oak", path, version]:
            sys.stdout.write(blue_oak_toml(Path(path).read_text(encoding="utf-8"), version))
        case _:
            sys.stderr.write(__doc__ or "")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
