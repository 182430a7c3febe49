"""The scale model counts the files and pieces that a group is solved from as they are written, in memory and spilled."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from stackbuild.dedup import limits
from stackbuild.dedup.options import NearDedupOptions
from stackbuild.estimate.corpus import Corpus, Flow
from stackbuild.estimate.near_dedup import NEAR_DEDUP

PARTITIONS = 4
MEMBERS = 960  # in families of two


@pytest.fixture(scope="module")
def pairs(files, family):
    draw = np.random.default_rng(7)
    return files([text for _ in range(MEMBERS // 2) for text in family(draw, 150, 1, 1)])


@pytest.mark.parametrize("memory", [1 << 22, 1 << 18, 1 << 15])
def test_what_does_not_fit_is_in_files_for_ranges_of_groups(pairs, near_dedup, tmp_path, monkeypatch, memory):
    monkeypatch.setattr(limits, "GROUP_FILES", 16)
    options = NearDedupOptions(memory=memory, compare_headers=False)
    near_dedup(pairs, options, PARTITIONS, tmp_path)
    text = sum(len(one) for one in pairs["text"].to_pylist())
    corpus = Corpus(
        MEMBERS, text, 1, PARTITIONS, MEMBERS, 1, candidates=1.0, shingles=146 * MEMBERS / text, likely=1.0, pairs=0.5,
        table_bytes=memory,
    )  # fmt: skip
    flow = Flow(corpus, MEMBERS, text)
    for phase in ("signatures", "candidates", "links", "estimates", "roots", "components", "sets"):
        NEAR_DEDUP[f"near_dedup.{phase}"](flow)
    for name in ("members", "sets"):
        found = [pq.ParquetFile(path) for path in (tmp_path / "stages").glob(f"sets/data/*/{name}-*.parquet")]
        pieces = sum(len(set(file.read(["group"])["group"].to_pylist())) for file in found)
        assert flow.tables[name].files == pytest.approx(len(found), rel=0.05), name
        assert flow.tables[name].pieces == pytest.approx(pieces, rel=0.05), name
