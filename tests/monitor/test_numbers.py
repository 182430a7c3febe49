"""Rates, what is left, and what is slow."""

from __future__ import annotations

from typing import Any

import pytest

from stackbuild.beats import Beat
from stackbuild.monitor.progress import AtWork, JobStatus, Tally, quantile, working
from stackbuild.monitor.told import Told
from stackbuild.pool import Ended


def tally(*walls: float, end: float = 1000.0) -> Tally:
    found = Tally()
    for rank, wall in enumerate(walls):
        one = Ended(rank, 1, 0, cpu=1.0, wall=wall, rows=100, bytes=1000).event("job")
        found.add({**one, "time": end})
    return found


def test_a_rate_counts_the_share_of_a_try_that_lies_in_the_last_minute() -> None:
    job = JobStatus("job", 10, state="running", started=0.0, pending=5)
    found = tally(20.0, 120.0)  # all of the first; a quarter of the second lies in the minute that ends in 30 s
    at_work = [AtWork(7, rows=30, bytes=300, wall=10.0)]
    found.fill(job, at_work, 1030.0)
    assert job.rows_per_s == round((100 + 100 * 30 / 120 + 30) / 60, 1) and job.rows == 230
    found.fill(job, at_work, 2000.0)
    assert job.rows_per_s == round(30 / 60, 1)


def test_what_is_left_of_a_job_is_its_tasks_mean_over_those_at_work() -> None:
    job = JobStatus("job", 10, state="running", pending=4)
    at_work = [AtWork(5, wall=4.0), AtWork(6, wall=10.0)]
    assert tally(8.0, 12.0).eta(job, at_work) == (6 + 1 + 4 * 10) / 2
    assert Tally().eta(job, at_work) is None and tally(8.0).eta(job, []) is None
    assert tally(0.4).eta(job, [AtWork(rank, wall=17.0) for rank in (1, 2, 3)]) == round(
        (3 * 17 + 4 * (0.4 + 3 * 17) / 4) / 3, 1
    )  # the one that ended was no measure of the others
    job.pending = 0
    assert tally(8.0, 12.0).eta(job, [AtWork(5, wall=60.0)]) is None  # longer than any before: nobody knows


def test_a_straggler_takes_several_times_what_most_did() -> None:
    job = JobStatus("job", 10, state="running", started=0.0)
    at_work = [AtWork(8, wall=29.0), AtWork(9, wall=31.0)]
    tally(*[10.0] * 5).fill(job, at_work, 1000.0)
    assert [(one.rank, one.straggler) for one in job.at_work] == [(9, True), (8, False)]
    tally(*[10.0] * 4).fill(job, at_work, 1000.0)  # too few ended to know
    assert not any(one.straggler for one in job.at_work)
    assert (job.p50, job.p95, job.longest) == (10.0, 10.0, 10.0)


def test_a_task_in_parts_took_what_its_parts_took() -> None:
    found = Tally()
    for more in (True, True, False):
        found.add({**Ended(3, 1, 0, more, wall=2.0).event("job"), "time": 1.0})
    assert found.walls == [6.0]


def test_a_later_attempt_that_finds_a_job_of_its_chain_complete_took_none_of_its_time() -> None:
    place = {"job": "a", "number": 1, "wave": 1, "element": 0}
    first = {**place, "event": "element", "tasks": 2, "cached": 0, "of": 1, "restart": 0}
    task = {**place, "event": "task", "rank": 0, "status": 0, "cpu": 1.0, "memory": 1}
    again = {**first, "cached": 2, "restart": 1}
    told = Told(
        [{**first, "time": 10.0}, {**task, "time": 12.0}, {**task, "rank": 1, "time": 13.0}, {**again, "time": 60.0}]
    )
    assert told.times["a"] == (10.0, 13.0)


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.95, 4), (0.25, 1), (0.0, 1), (1.0, 4)])
def test_quantiles(share: float, value: int) -> None:
    assert quantile([1, 2, 3, 4], share) == value


def test_entries_of_a_beat_that_are_not_whole_are_passed_over() -> None:
    entries: list[Any] = [{}, {"rank": "x"}, 3, {"rank": 1, "wall": "long"}, {"rank": 2, "wall": 5}]
    beat = Beat("e", "job", 3, time=0.0, running=entries)
    assert [(one.rank, one.wall) for one in working(beat, 10.0)] == [(1, 10.0), (2, 15.0)]
