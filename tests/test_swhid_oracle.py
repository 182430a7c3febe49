"""Ids and SWHIDs against swh.model, in an environment of its own.

It is GPL, and no package of ours may import it (.importlinter); so it is asked only where SWH_MODEL_PYTHON names an interpreter
that has it:

    python -m venv oracle && oracle/bin/pip install swh-model
    SWH_MODEL_PYTHON=oracle/bin/python python -m pytest tests/test_swhid_oracle.py
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stackbuild import swhid
from stackbuild.swhid import Swhid
from tests.test_swhid import swhids

PYTHON = os.environ.get("SWH_MODEL_PYTHON")
pytestmark = pytest.mark.skipif(not PYTHON, reason="SWH_MODEL_PYTHON names no interpreter with swh.model")

ORACLE = """
import json, sys
from swh.model import model, swhids

TYPES = {0o040000: "dir", 0o160000: "rev"}

def answer(kind, value):
    if kind == "cnt":
        return model.Content.from_data(bytes.fromhex(value)).sha1_git.hex()
    if kind == "dir":
        entries = tuple(
            model.DirectoryEntry(name=bytes.fromhex(n), type=TYPES.get(m, "file"), perms=m, target=bytes.fromhex(t))
            for n, m, t in value
        )
        return model.Directory(entries=entries).id.hex()
    if kind == "snp":
        branches = {
            bytes.fromhex(n): None if b is None else model.SnapshotBranch(
                target=bytes.fromhex(b[1]), target_type=model.SnapshotTargetType(b[0]))
            for n, b in value.items()
        }
        return model.Snapshot(branches=branches).id.hex()
    try:
        found = swhids.QualifiedSWHID.from_string(value)
    except Exception as error:
        return [type(error).__name__, str(error)[:200]]
    return {
        "core": str(swhids.CoreSWHID(object_type=found.object_type, object_id=found.object_id)),
        "origin": found.origin,
        "visit": found.visit and str(found.visit),
        "anchor": found.anchor and str(found.anchor),
        "path": found.path and found.path.hex(),
        "lines": found.lines,
    }

json.dump([answer(*one) for one in json.load(sys.stdin)], sys.stdout)
"""

targets = st.binary(min_size=20, max_size=20)
names = st.binary(min_size=1, max_size=6).filter(lambda name: not set(name) & set(b"/\0"))
modes = st.sampled_from([0o100644, 0o100755, 0o120000, 0o040000, 0o160000])
trees = st.dictionaries(names, st.tuples(modes, targets), max_size=8)
kinds = st.sampled_from(["content", "directory", "revision", "release", "snapshot"])
branches = st.dictionaries(names, st.none() | st.tuples(kinds, targets), max_size=6)


def asked(questions: list[tuple[str, Any]]) -> list[Any]:
    """What swh.model says; all in one process, as it takes half a second to begin."""
    assert PYTHON
    done = subprocess.run(
        [PYTHON, "-c", ORACLE], input=json.dumps(questions), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


def examples(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """Many values at once, for one process to judge."""
    found: list[Any] = []

    @settings(max_examples=count, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def take(value: Any) -> None:
        found.append(value)

    take()
    return found


def test_contents_directories_and_snapshots_have_the_ids_of_swh_model() -> None:
    contents = examples(st.binary(max_size=200), 100)
    of_trees, of_branches = examples(trees, 200), examples(branches, 200)
    questions: list[tuple[str, Any]] = [("cnt", data.hex()) for data in contents]
    questions += [("dir", [(n.hex(), m, t.hex()) for n, (m, t) in tree.items()]) for tree in of_trees]
    questions += [
        ("snp", {n.hex(): None if b is None else (b[0], b[1].hex()) for n, b in one.items()}) for one in of_branches
    ]
    ours = [swhid.content_id(data) for data in contents]
    ours += [swhid.directory_id([(n, m, t) for n, (m, t) in tree.items()]) for tree in of_trees]
    ours += [swhid.snapshot_id(one) for one in of_branches]
    assert asked(questions) == [one.hex() for one in ours]


def test_swh_model_reads_what_we_print() -> None:
    """Without `bytes`, which it does not know (8.4.1), though the specification does."""
    values: list[Swhid] = [value for value in examples(swhids(), 300) if value.bytes is None]
    expected = [
        {
            "core": value.core,
            "origin": value.origin,
            "visit": value.visit and str(value.visit),
            "anchor": value.anchor and str(value.anchor),
            "path": value.path and value.path.hex(),
            "lines": value.lines and [value.lines[0], value.lines[1] if value.lines[1] != value.lines[0] else None],
        }
        for value in values
    ]
    assert asked([("text", str(value)) for value in values]) == expected
