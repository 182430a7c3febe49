"""Stages: verdicts fold to one rule per file, and a stage runs in a plain datatrove pipeline."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from stackbuild.stage import Options, Stage, Verdict, judge, with_columns


def test_a_file_leaves_by_the_first_rule_that_drops_it() -> None:
    verdicts = [Verdict("a", pa.array([True, False, True, False])), Verdict("b", pa.array([False, False, True, True]))]
    keep, left = judge(verdicts, 4)
    assert keep.to_pylist() == [False, False, True, False]
    assert [(gone.verdict.rule, gone.rows.to_pylist()) for gone in left] == [("a", [1, 3]), ("b", [0])]


def test_a_null_verdict_keeps() -> None:
    keep, left = judge([Verdict("a", pa.array([None, True], pa.bool_()))], 2)
    assert keep.to_pylist() == [True, True]
    assert left == []


def test_a_verdict_of_another_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="rule a answered for 1 of 2 files"):
        judge([Verdict("a", pa.array([True]))], 2)


class Length(Stage[Options]):
    name = "length"
    reads = ("path",)
    adds = (pa.field("n", pa.int32()),)

    def tags(self, files: pa.RecordBatch) -> dict[str, pa.Array]:
        return {"n": pc.utf8_length(files["path"])}

    def verdicts(self, files: pa.RecordBatch) -> Iterable[Verdict]:
        yield Verdict("short", pc.less_equal(files["n"], 3), files["n"], 3)


def test_a_stage_is_a_datatrove_step_over_batches() -> None:
    from datatrove.pipeline.base import PipelineStep

    stage = Length()
    assert isinstance(stage, PipelineStep)
    [batch] = stage.run([pa.RecordBatch.from_pydict({"path": ["/a", "/long"]})])
    assert batch.to_pydict() == {"path": ["/a"], "n": [2]}


def test_columns_are_replaced_in_place_and_added_at_the_end() -> None:
    batch = with_columns(pa.RecordBatch.from_pydict({"a": [1], "b": [2]}), {"a": pa.array([3]), "c": pa.array([4])})
    assert batch.to_pydict() == {"a": [3], "b": [2], "c": [4]}
