"""A plan as it is frozen: the resolved recipe and the units that its sources resolved to, in a file that every worker reads."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stackbuild.errors import InputError
from stackbuild.identity import without_places
from stackbuild.parts import PART_BYTES
from stackbuild.shards import canonical_json, digest, write_atomically
from stackbuild.sources.unit import Unit

PLAN_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """What a build is going to do, as it is written to OUT/plans/ and read by every worker."""

    recipe: dict[str, Any]
    units: list[Unit]
    skipped: list[dict[str, str]]

    @property
    def partitions(self) -> int:
        return int(self.recipe["partitions"])

    @property
    def seed(self) -> int:
        return int(self.recipe["seed"])

    @property
    def part_bytes(self) -> int:
        return int(self.recipe.get("part_bytes", PART_BYTES))

    @cached_property
    def digest(self) -> str:
        """Names the plan; local paths do not count."""
        return digest(
            {
                "version": PLAN_VERSION,
                "recipe": without_places(self.recipe),
                "units": [[u.kind, u.key] for u in self.units],
            }
        )

    def save(self, out: Path) -> Path:
        path = out / "plans" / f"{self.digest[:24]}.json"
        body = {
            "version": PLAN_VERSION,
            "recipe": self.recipe,
            "units": [asdict(u) for u in self.units],
            "skipped": self.skipped,
        }
        write_atomically(path, canonical_json(body))
        return path

    @classmethod
    def load(cls, path: Path) -> Plan:
        body = json.loads(path.read_bytes())
        if body["version"] != PLAN_VERSION:
            raise InputError(f"{path} is a plan of version {body['version']}; this stackbuild reads {PLAN_VERSION}.")
        return cls(body["recipe"], [Unit(**unit) for unit in body["units"]], body["skipped"])
