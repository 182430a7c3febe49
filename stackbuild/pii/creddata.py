"""CredData, real files with labelled lines: which lines are flagged, by kind of secret and by repository.

A checkout (https://github.com/Samsung/CredData, after its `download_data.py`) has meta/*.csv, a row for each label (RepoName,
FilePath, LineStart, LineEnd, GroundTruth, Category), and the files under data/. GroundTruth: T or True, F or False, X or
Template. A labelled place is a run of lines of a file; it is true if a label there is, not counted if its labels are only X
or of UUIDs, nonces and salts, which are no secrets by themselves. It is flagged if a finding touches it. Recall: true places
flagged; precision: of flagged places the true ones (classifiers C.2). Findings elsewhere are counted apart, as nobody judged
them.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from stackbuild.errors import InputError

SECRETS: Final = frozenset({"KEY", "PASSWORD"})
LEFT_OUT: Final = frozenset({"uuid", "nonce", "salt", "seed", "seed, salt, nonce"})
GENERIC: Final = frozenset(
    {
        *("key", "token", "secret", "api", "auth", "credential", "other", "certificate", "info", "generic secret"),
        *("generic token", "authentication key & token", "authentication credentials"),
    }
)
BATCH_BYTES: Final = 8 << 20

Find = Callable[[pa.LargeStringArray], pa.Array]  # texts -> the column `pii_spans`


@dataclass
class Place:
    """Lines first to last (from 1) of a file: what the labels there say."""

    repo: str
    first: int
    last: int
    true: bool = False
    false: bool = False
    group: str = ""


@dataclass
class Lines:
    """True and false places, and those of them that were flagged."""

    true: int = 0
    false: int = 0
    true_flagged: int = 0
    false_flagged: int = 0

    def add(self, true: bool, flagged: bool) -> None:
        """Count a place."""
        name = "true" if true else "false"
        setattr(self, name, getattr(self, name) + 1)
        if flagged:
            setattr(self, f"{name}_flagged", getattr(self, f"{name}_flagged") + 1)

    def told(self) -> dict[str, Any]:
        """With precision, recall and F1; None where there is nothing to divide by."""
        flagged = self.true_flagged + self.false_flagged
        total = flagged + self.true
        return vars(self) | {
            "precision": self.true_flagged / flagged if flagged else None,
            "recall": self.true_flagged / self.true if self.true else None,
            "f1": 2 * self.true_flagged / total if total else None,
        }


def group_of(category: str) -> str:
    """The kind of secret that a Category is of; "" for those left out. Several names stand with a colon between them."""
    names = {part.strip().lower() for part in category.split(":") if part.strip()}
    if names and names <= LEFT_OUT:
        return ""
    names -= LEFT_OUT
    if any("private key" in name or "pem" in name.split() for name in names):
        return "PEM"
    if names and not any(name in GENERIC or "passw" in name or name.startswith("url") for name in names):
        return "provider"
    if any(name.startswith("url") for name in names):
        return "URL credentials"
    return "password" if any("passw" in name for name in names) else "generic"


def read_labels(root: Path) -> dict[str, list[Place]]:
    """The labelled places of each file, by its path below the root. InputError names file, line and field."""
    found: dict[str, dict[tuple[int, int], Place]] = {}
    paths = sorted((root / "meta").glob("*.csv"))
    if not paths:
        raise InputError(f"{root} has no meta/*.csv: it is no checkout of CredData.")
    for path in paths:
        try:
            with path.open(newline="", encoding="utf-8", errors="replace") as file:
                for number, row in enumerate(csv.DictReader(file), start=2):
                    _label(found, row, f"{path}, line {number}")
        except (csv.Error, OSError) as error:
            raise InputError(f"{path} cannot be read as CSV: {error}.") from error
    return {name: list(places.values()) for name, places in sorted(found.items())}


def _label(found: dict[str, dict[tuple[int, int], Place]], row: dict[str, str], where: str) -> None:
    for name in ("FilePath", "GroundTruth", "Category"):
        if not row.get(name):
            raise InputError(f"{where}: no {name}.")
    lines = (row.get("LineStart:LineEnd") or f"{row.get('LineStart')}:{row.get('LineEnd')}").split(":")
    try:
        first, last = (int(float(number)) for number in lines)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{where}: LineStart and LineEnd are no numbers.") from error
    if not 1 <= first <= last:
        raise InputError(f"{where}: LineStart {first} to LineEnd {last} are no lines of a file.")
    truth = row["GroundTruth"].strip().upper()[:1]
    if truth not in {"T", "F", "X"}:
        raise InputError(f"{where}: GroundTruth {ascii(row['GroundTruth'])[:20]} is none of T, F, X.")
    if row["GroundTruth"].strip().lower() == "template":
        truth = "X"
    place = found.setdefault(row["FilePath"], {}).setdefault(
        (first, last), Place(row.get("RepoName") or "/".join(row["FilePath"].split("/")[1:2]), first, last)
    )
    group = group_of(row["Category"])
    if truth == "X" or not group:
        return
    if truth == "T" and not place.true:
        place.true, place.group = True, group
    elif truth == "F":
        place.false, place.group = True, place.group or group


@dataclass
class Scored:
    """What was flagged, of all, by kind and by repository."""

    all: Lines = field(default_factory=Lines)
    groups: dict[str, Lines] = field(default_factory=dict)
    repositories: dict[str, Lines] = field(default_factory=dict)
    files: int = 0
    missing: int = 0
    elsewhere: int = 0
    rules: Counter[str] = field(default_factory=Counter)  # of findings on false lines and elsewhere

    def told(self) -> dict[str, Any]:
        """All figures; `macro_recall`: the mean over repositories that have true lines."""
        recalls = [r for r in (one.told()["recall"] for one in self.repositories.values()) if r is not None]
        return {
            "files": self.files,
            "missing_files": self.missing,
            "lines": self.all.told(),
            "macro_recall": sum(recalls) / len(recalls) if recalls else None,
            "groups": {name: one.told() for name, one in sorted(self.groups.items())},
            "repositories": {name: one.told() for name, one in sorted(self.repositories.items())},
            "findings_elsewhere": self.elsewhere,
            "rules_not_true": dict(self.rules.most_common()),
        }


def score(root: Path, find: Find) -> Scored:
    """Search the labelled files of a checkout. InputError if none is there, or a label lies behind a file's end."""
    labels, told = read_labels(root), Scored()
    for names, raw in _batches(root, labels, told):
        texts = pa.array([one.decode("utf-8", "replace") for one in raw], pa.large_string())
        spans = find(texts).to_pylist()
        for name, text, found in zip(names, texts.to_pylist(), spans, strict=True):
            _count(told, root / name, labels[name], text.encode(), found)
    if not told.files:
        raise InputError(f"{root}/data has none of the labelled files; CredData's download_data.py fetches them.")
    return told


def _batches(root: Path, labels: dict[str, list[Place]], told: Scored) -> Iterator[tuple[list[str], list[bytes]]]:
    names, raw = list[str](), list[bytes]()
    for name in labels:
        path = root / name
        try:
            if not path.resolve().is_relative_to(root.resolve()):
                raise InputError(f"{root}: the label of {ascii(name)[:80]} leads out of the folder.")
            if not path.is_file():
                told.missing += 1
                continue
            raw.append(path.read_bytes())
        except (OSError, ValueError) as error:  # a name that no file may have, or a file that is not ours to read
            why = getattr(error, "strerror", None) or "no file has such a name"
            raise InputError(f"{root}: the file of the label {ascii(name)[:80]} cannot be read: {why}.") from error
        told.files += 1
        names.append(name)
        if sum(map(len, raw)) >= BATCH_BYTES:
            yield names, raw
            names, raw = [], []
    if names:
        yield names, raw


def _count(told: Scored, path: Path, places: Sequence[Place], text: bytes, spans: Sequence[dict[str, Any]]) -> None:
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))
    lines = len(ends) + 1
    found = [
        (int(np.searchsorted(ends, s["start"])) + 1, int(np.searchsorted(ends, s["end"] - 1)) + 1, s["rule"])
        for s in spans or ()
        if s["entity"] in SECRETS
    ]
    labelled, true = set[int](), set[int]()
    for place in places:
        if place.last > lines:
            raise InputError(f"{path} has {lines:,} lines; a label of meta/ is of LineEnd {place.last}.")
        touching = [at for at, (first, last, _) in enumerate(found) if first <= place.last and last >= place.first]
        labelled.update(touching)
        if place.true:
            true.update(touching)
        if not place.true and not place.false:
            true.update(touching)  # of a place that does not count, nothing is said
            continue
        for one in (
            told.all,
            told.groups.setdefault(place.group, Lines()),
            told.repositories.setdefault(place.repo, Lines()),
        ):
            one.add(place.true, bool(touching))
    told.elsewhere += len(found) - len(labelled)
    told.rules.update(found[at][2] for at in range(len(found)) if at not in true)
