"""Generated hourly files of GH Archive, in the three shapes that its events have had.

    hours = Hours()
    hours.event("WatchEvent", 7, "alice/tool", "2016-05-01T10:00:00Z")
    hours.pull_request(7, "alice/tool", "2016-05-02T10:00:00Z", default_branch="develop", license="MIT")
    hours.write(folder)

Events stand in the file of the hour of their time, in the order in which they were added.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def whole(number: int, name: str, **told: Any) -> dict[str, Any]:
    """A repository's object as a pull request of 2015 to 2025-10 holds it."""
    owner, short = name.split("/")
    spdx = told.pop("license", None)
    return {
        "id": number,
        "name": short,
        "full_name": name,
        "owner": {"login": owner, "id": 1},
        "html_url": f"https://github.com/{name}",
        "fork": told.pop("fork", False),
        "created_at": "2012-03-04T05:06:07Z",
        "language": "Python",
        "license": {"key": spdx.lower(), "spdx_id": spdx} if spdx else None,
        "default_branch": "main",
        **told,
    }


class Hours:
    """Events to be written."""

    def __init__(self) -> None:
        self.lines: dict[str, list[bytes]] = defaultdict(list)
        self.number = 0

    def line(self, at: str, line: bytes) -> None:
        """A line as it is, in the file of a time."""
        time = datetime.fromisoformat(at).astimezone(UTC)
        self.lines[f"{time:%Y-%m-%d}-{time.hour}"].append(line)

    def event(self, kind: str, number: int, name: str, at: str, event: str | None = None, **payload: Any) -> None:
        """An event since 2015."""
        self.number += 1
        told = {
            "id": event or str(20_000_000_000 + self.number),
            "type": kind,
            "actor": {"id": 9, "login": "somebody"},
            "repo": {"id": number, "name": name, "url": f"https://api.github.com/repos/{name}"},
            "payload": payload,
            "public": True,
            "created_at": at,
        }
        self.line(at, json.dumps(told).encode())

    def pull_request(self, number: int, name: str, at: str, head: dict[str, Any] | None = None, **told: Any) -> None:
        """A pull request to a repository, which it holds whole; `head`: the object that it comes from."""
        base = whole(number, name, **told)
        self.event(
            "PullRequestEvent", number, name, at, pull_request={"base": {"repo": base}, "head": {"repo": head or base}}
        )

    def trimmed_pull_request(self, number: int, name: str, at: str) -> None:
        """As since 2025-10: it says no more of a repository than its number, its address and its short name."""
        short = {"id": number, "url": f"https://api.github.com/repos/{name}", "name": name.split("/")[1]}
        self.event(
            "PullRequestEvent", number, name, at, pull_request={"base": {"repo": short}, "head": {"repo": short}}
        )

    def fork(self, number: int, name: str, at: str, forkee: Any) -> None:
        self.event("ForkEvent", number, name, at, forkee=forkee)

    def timeline(self, kind: str, number: int, name: str, at: str, payload: Any = None, **told: Any) -> None:
        """An event of before 2015: a repository's attributes in each, times in California's zone, no id of its own."""
        owner, short = name.split("/")
        event = {
            "created_at": at,
            "payload": payload if payload is not None else {"shas": [["a" * 40, "x@y", "Message", "Name", True]]},
            "public": True,
            "type": kind,
            "url": f"https://github.com/{name}/compare/a...b",
            "actor": "somebody",
            "actor_attributes": {"login": "somebody", "type": "User"},
            "repository": {
                "id": number, "name": short, "url": f"https://github.com/{name}", "owner": owner, "fork": False, "stargazers": 3,
                "language": "C", "created_at": "2010-06-30T12:38:08-07:00", "master_branch": "trunk", **told,
            },
        }  # fmt: skip
        self.line(
            datetime.fromisoformat(at.replace("/", "-").replace(" ", "T", 1).replace(" ", "")).isoformat(),
            json.dumps(event).encode(),
        )

    def write(self, folder: Path) -> Path:
        """Write the files, each day's in a folder of its month."""
        for name, lines in self.lines.items():
            place = folder / name[:7]
            place.mkdir(parents=True, exist_ok=True)
            data = b"".join(line + b"\n" for line in lines)
            (place / f"{name}.json.gz").write_bytes(gzip.compress(data, mtime=0))
        return folder
