"""What another list of permissive licences would change in a finished build."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stackbuild.errors import InputError
from stackbuild.housekeeping import finished
from stackbuild.licenses.decide import NOASSERTION, decide
from stackbuild.licenses.evidence import distinct
from stackbuild.licenses.policy import Policy, load_policy
from stackbuild.shards import read_batches


@dataclass
class Change:
    """Files and bytes that a list lets in and another does not, and for which licences: files by the keys that decide."""

    files: int = 0
    bytes: int = 0
    keys: Counter[str] = field(default_factory=Counter)

    def add(self, keys: Iterable[str], files: int, size: int) -> None:
        self.files += files
        self.bytes += size
        self.keys[" AND ".join(keys) or "none"] += files


def effect(out: Path, older: str, newer: str) -> dict[str, Any]:
    """What a build would gain and lose in files by the newer of two lists (names, or paths of TOML files): contents, once each,
    of what reached `exact_dedup`, by the classes that its `license_filter` keeps.

    It follows from the evidence that decides, of which a file carries the worst eight. InputError if the build is not
    complete, was cleaned, or has no stage licenses.
    """
    build = finished(out)
    stages = {node.stage.name: node.stage for node in build.nodes}
    if "licenses" not in stages:
        raise InputError(f"The recipe of {out} has no stage licenses.")
    chosen = stages["licenses"].options
    changes = {"names": chosen.names, "or_reading": chosen.or_reading}
    policies = [load_policy(chosen.policy, permissive=name, **changes) for name in (older, newer)]
    keep = set(stages["license_filter"].options.keep) if "license_filter" in stages else {"permissive"}
    gained, lost, contents = Change(), Change(), 0
    for bucket in range(build.plan.partitions):
        outputs, _ = build.base("file", bucket)
        for batch in read_batches(build.out, outputs, ["length", "license_evidence"]):
            contents += batch.num_rows
            for evidence, files, size in _kinds(batch):
                before, after = (_class(evidence, policy) in keep for policy in policies)
                if before != after:
                    keys = sorted({one["expression"] or "unrecognised" for one in evidence if one["decides"]})
                    (gained if after else lost).add(keys, files, size)
    return {
        "contents": contents,
        **{
            name: {"files": one.files, "bytes": one.bytes, "licenses": dict(one.keys.most_common())}
            for name, one in (("gained", gained), ("lost", lost))
        },
    }


def _kinds(batch: pa.RecordBatch) -> Iterable[tuple[list[dict[str, Any]], int, int]]:
    """(evidence, files, bytes) of the rows of a batch that are alike in what their evidence says."""
    evidence = batch.column("license_evidence")
    first, of_row = distinct(evidence, ("kind", "expression", "decides"))
    files = np.bincount(of_row, minlength=len(first))
    sizes = np.bincount(of_row, weights=np.asarray(batch.column("length")), minlength=len(first))
    return zip(evidence.take(pa.array(first)).to_pylist(), files.tolist(), sizes.astype(int).tolist(), strict=True)


def _class(evidence: Sequence[Mapping[str, Any]], policy: Policy) -> str:
    """The class of a file by its evidence, under a policy."""
    deciding = [one for one in evidence if one["decides"]]
    host = next((one["expression"] for one in evidence if one["kind"] == "host"), None)
    said = [one for one in deciding if one["kind"] != "host"]
    expressions = [one["expression"] for one in said if one["expression"]]
    if policy.data.rule == "ranked" and said:
        host = None
    if policy.data.rule != "ranked" and host != NOASSERTION and host is not None:
        expressions = []
    unrecognised = any(one["expression"] is None for one in said)
    return decide(host, policy.keys(expressions), policy, unrecognised).license_class
