"""The manifest of a job: which shards make it complete, for which plan."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

from stackbuild.errors import InputError
from stackbuild.shards import ShardManifest, canonical_json, digest, load_manifest, manifest_path, write_atomically


def save_stage_manifest(out: Path, job: str, plan: str, shards: Sequence[ShardManifest]) -> None:
    """List exactly the shard manifests that make a job of a plan complete."""
    listed = [{"rank": s.rank, "key": s.key, "attempt": s.attempt} for s in shards]
    body: dict[str, Any] = {"job": job, "plan": plan, "shards": listed}
    body["digest"] = digest(body)
    path = out / "stages" / job / "manifest.json"
    data = canonical_json(body)
    if not path.exists() or path.read_bytes() != data:
        write_atomically(path, data)


class Shards(Sequence[ShardManifest]):
    """The shard manifests of a complete job, in rank order, each read when it is asked for: a task that wants one partition
    of thirty stages does not read those of all others. InputError where one is torn, or is no more the one that was listed."""

    def __init__(self, out: Path, job: str, listed: Sequence[dict[str, Any]]):
        self._listed = [(manifest_path(out, job, one["rank"], one["key"]), one["attempt"]) for one in listed]
        self._read: dict[int, ShardManifest] = {}

    def __len__(self) -> int:
        return len(self._listed)

    @overload
    def __getitem__(self, index: int) -> ShardManifest: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ShardManifest]: ...
    def __getitem__(self, index: int | slice) -> ShardManifest | Sequence[ShardManifest]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        if number not in self._read:
            path, attempt = self._listed[number]
            manifest = load_manifest(path)
            if manifest.attempt != attempt:
                raise InputError(
                    f"{path} is of the attempt {manifest.attempt}, and the stage was complete with {attempt}: another build "
                    "has replaced it since; run the same build again."
                )
            self._read[number] = manifest
        return self._read[number]


def load_stage_manifest(out: Path, job: str, plan: str) -> Shards:
    """The shard manifests of a complete job of a plan; InputError if it is not complete."""
    path = out / "stages" / job / "manifest.json"
    if not path.exists():
        raise InputError(f"{path} is not there: {job} is not complete; run the same build again.")
    try:
        body = json.loads(path.read_bytes())
        stated, listed, of = body.pop("digest"), body["shards"], body["plan"]
        if digest(body) != stated:
            raise ValueError(f"it does not hash to the digest that it states, {stated}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a whole stage manifest ({error}); remove it and build again.") from error
    if of != plan:
        raise InputError(
            f"{path} is of the plan {of[:12]}, not of {plan[:12]}, which is this folder's last: that build did not get as "
            f"far as {job}; run it again."
        )
    return Shards(out, job, listed)
