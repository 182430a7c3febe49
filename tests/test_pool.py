"""The loop that runs tasks and tries again: order, bounds, and what it tells; over a server that answers as a test says."""

from __future__ import annotations

import itertools
import json
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.beats import Beat, Heart, beats
from stackbuild.pool import Ended, Pool, TaskSpec
from stackbuild.retries import WITHIN, Cause, How

Outcome = tuple[int, bool, dict[str, Any] | None]  # status, more, what the child or the task server wrote down

WELL: Outcome = (0, False, None)
PART: Outcome = (0, True, None)
KILLED: Outcome = (-9, False, None)
RAISED: Outcome = (1, False, {"type": "ValueError", "message": "boom", "exit_code": 1})
SURVEYED: Outcome = (1, False, {"type": "RowErrors", "message": "rows", "exit_code": 1, "rows": {"decode": [4]}})
MEMORY: Outcome = (
    -9,
    False,
    {"type": "OutOfMemory", "message": "task outgrew", "exit_code": 5, "cause": "out_of_memory"},
)
REFUSED: Outcome = (4, False, {"type": "InputError", "message": "damaged", "exit_code": 4})
AWAY: Outcome = (75, False, {"type": "TemporaryError", "message": "away", "exit_code": 75})


class Script:
    """A server whose tasks end as they are told, try by try; those that are at work end in the order in which they began.

    `together`: which tasks were at work each time that one began.
    """

    def __init__(self, outcomes: dict[int, list[Outcome]]):
        self.outcomes = {rank: list(tries) for rank, tries in outcomes.items()}
        self.jobs: list[str] = []
        self.started: list[tuple[int, How]] = []
        self.together: list[set[int]] = []
        self.logs: list[Path] = []
        self._running: list[tuple[int, Path]] = []
        self.beats: list[dict[str, Any]] = []
        self.stuck = False
        self.slow: dict[tuple[int, int], int] = {}  # by task and try: how many looks it takes

    def job(self, name: str) -> None:
        self.jobs.append(name)

    def start(self, spec: TaskSpec, how: How, log: Path) -> None:
        self._running.append((spec.rank, log))
        self.started.append((spec.rank, how))
        self.together.append({rank for rank, _ in self._running})
        self.logs.append(log)

    def wait(self, seconds: float | None = None) -> list[dict[str, Any]]:
        if self.beats:
            return [{"beat": [self.beats.pop()]}]
        if self.stuck or not self._running:
            time.sleep(min(seconds or 0, 0.01))
            return []
        rank, log = self._running[0]
        if self.slow.get((rank, len(self.hows(rank))), 0) > 0:
            self.slow[rank, len(self.hows(rank))] -= 1
            return []
        self._running.pop(0)
        status, more, body = self.outcomes[rank].pop(0)
        if body:
            Path(f"{log}.error").write_text(json.dumps(body))
        return [{"ended": rank, "status": status, "more": more, "cpu": 1.0, "wall": 2.0, "memory": 3, "private": 2, "rows": 5, "bytes": 7,
                 "out_of_memory": False}]  # fmt: skip

    def hows(self, rank: int) -> list[How]:
        return [how for one, how in self.started if one == rank]


Run = Callable[..., tuple[Pool, Script, list[Ended]]]


@pytest.fixture
def made(tmp_path: Path) -> Run:
    def make(outcomes: dict[int, list[Outcome]], workers: int = 2, tag: str = "") -> tuple[Pool, Script, list[Ended]]:
        server, told = Script(outcomes), list[Ended]()
        pool = Pool(server, workers, tmp_path, tag)
        pool.ended = told.append
        return pool, server, told

    return make


def specs(outcomes: dict[int, list[Outcome]]) -> list[TaskSpec]:
    return [TaskSpec(rank, {"rank": rank}) for rank in outcomes]


def test_tasks_run_in_the_order_given_and_no_more_at_once_than_workers(made: Run) -> None:
    outcomes = {rank: [WELL] for rank in (4, 2, 9, 0, 7)}
    pool, server, told = made(outcomes, workers=3)
    assert pool.run("job", specs(outcomes)) == []
    assert [rank for rank, _ in server.started] == [4, 2, 9, 0, 7]
    assert max(map(len, server.together)) == 3
    assert server.jobs == ["job"] and len(told) == 5 and pool.left == 0


def test_an_exception_is_surveyed_and_what_is_confirmed_goes_on(made: Run) -> None:
    outcomes = {0: [RAISED, SURVEYED, WELL], 1: [WELL]}
    pool, server, told = made(outcomes)
    assert pool.run("job", specs(outcomes)) == []
    assert [(how.mode, how.suspects) for how in server.hows(0)] == [
        ("plain", {}),
        ("survey", {}),
        ("confirm", {"decode": [4]}),
    ]
    assert [one.attempt for one in told if one.rank == 0] == [1, 2, 3]


def test_an_exception_of_the_second_process_only_is_no_reason_to_lose_the_row(made: Run) -> None:
    """The survey raises nowhere: the task is complete, with all its rows."""
    outcomes = {0: [RAISED, WELL]}
    pool, server, _ = made(outcomes)
    assert pool.run("job", specs(outcomes)) == []
    assert [how.mode for how in server.hows(0)] == ["plain", "survey"]


def test_what_outgrew_its_memory_runs_last_alone_and_part_by_part(made: Run) -> None:
    outcomes = {0: [MEMORY, PART, PART, WELL], **{rank: [WELL] for rank in range(1, 9)}}
    pool, server, told = made(outcomes, workers=3)
    assert pool.run("job", specs(outcomes)) == []
    again = [number for number, (rank, _) in enumerate(server.started) if rank == 0][1:]
    assert again == [9, 10, 11]  # after all others
    assert all(server.together[number] == {0} for number in again)
    assert all(how.one_part and how.alone for how in server.hows(0)[1:])
    assert [one.more for one in told if one.rank == 0] == [False, True, True, False]


def test_each_part_has_the_tries_that_a_task_has_and_begins_without_suspects(made: Run) -> None:
    """Otherwise a task that ran part by part would fail on its second bad row, where the same task run whole leaves both out."""
    outcomes = {0: [MEMORY, RAISED, SURVEYED, PART, RAISED, SURVEYED, WELL]}
    pool, server, _ = made(outcomes)
    assert pool.run("job", specs(outcomes)) == []
    found = [(how.mode, how.suspects, how.one_part) for how in server.hows(0)]
    part = [("plain", {}, True), ("survey", {}, True), ("confirm", {"decode": [4]}, True)]
    assert found == [("plain", {}, False), *part, *part]


def test_two_that_outgrew_their_memory_are_not_alone_together(made: Run) -> None:
    outcomes = {rank: [MEMORY, PART, WELL] for rank in range(3)}
    pool, server, _ = made(outcomes, workers=3)
    assert pool.run("job", specs(outcomes)) == []
    assert all(len(at) == 1 for at in server.together[3:])


def test_nothing_begins_beside_one_that_is_alone(made: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even what was put off while a server did not answer, and is due meanwhile."""
    outcomes = {0: [MEMORY, WELL], 1: [AWAY, WELL]}
    pool, server, _ = made(outcomes)
    server.slow = {(0, 2): 20}
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    pool.idle = lambda: clock.__setitem__(0, clock[0] + 1) or False
    assert pool.run("job", specs(outcomes)) == []
    assert server.together[2:] == [{0}, {1}] and clock[0] > 20


def test_a_killed_task_runs_once_more_and_the_others_go_on(made: Run) -> None:
    outcomes = {0: [KILLED, WELL], 1: [KILLED, KILLED], 2: [WELL]}
    pool, _, told = made(outcomes)
    [failure] = pool.run("job", specs(outcomes))
    assert (failure.rank, failure.cause) == (1, Cause.KILLED) and "signal 9" in failure.reason
    assert failure.log.endswith("00001.2.log")
    assert len(told) == 5


def test_what_is_refused_is_not_tried_again_and_the_others_go_on(made: Run) -> None:
    outcomes = {0: [REFUSED], 1: [WELL], 2: [WELL]}
    pool, server, _ = made(outcomes, workers=1)
    [failure] = pool.run("job", specs(outcomes))
    assert failure.exit_code == 4 and len(server.hows(0)) == 1 and len(server.started) == 3


def test_others_run_while_a_server_is_waited_for(made: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = {0: [AWAY, WELL], 1: [WELL], 2: [WELL], 3: [WELL]}
    pool, server, _ = made(outcomes, workers=1)
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    pool.idle = lambda: clock.__setitem__(0, clock[0] + 1) or False
    assert pool.run("job", specs(outcomes)) == []
    assert [rank for rank, _ in server.started] == [0, 1, 2, 3, 0]
    assert clock[0] >= 5


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 30),
        st.lists(st.sampled_from([WELL, PART, KILLED, RAISED, SURVEYED, MEMORY, REFUSED]), min_size=0, max_size=9),
        max_size=9,
    ),
    st.integers(1, 4),
)
def test_whatever_tasks_do_each_ends_well_or_is_told_of_once(
    tmp_path_factory: pytest.TempPathFactory, tries: dict[int, list[Outcome]], workers: int
) -> None:
    outcomes = {rank: [*some, WELL] for rank, some in tries.items()}
    server, told = Script(outcomes), list[Ended]()
    pool = Pool(server, workers, tmp_path_factory.mktemp("logs"))
    pool.ended = told.append
    failures = pool.run("job", specs(outcomes))
    ended = defaultdict(list)
    for one in told:
        ended[one.rank].append(one)
    well = {rank for rank, some in ended.items() if some[-1].status == 0 and not some[-1].more}
    assert well | {failure.rank for failure in failures} == set(outcomes)
    assert well.isdisjoint(failure.rank for failure in failures) and len({f.rank for f in failures}) == len(failures)
    assert len(server.logs) == len(set(server.logs))  # no try writes over what another said
    assert max(map(len, server.together), default=0) <= workers
    for rank, some in ended.items():
        assert [one.attempt for one in some] == list(range(1, len(some) + 1))
        parts: list[list[Ended]] = [[]]
        for one in some:
            parts[-1].append(one)
            if one.more:  # a part was committed: the next has tries of its own
                parts.append([])
        for part, cause in itertools.product(parts, Cause):
            failed = sum(one.failure is not None and one.failure.cause is cause for one in part)
            assert failed <= WITHIN.get(cause, 0) + 1, rank


def test_one_that_is_closed_begins_nothing_and_says_what_it_left(made: Run) -> None:
    outcomes = {rank: [WELL] for rank in range(6)}
    pool, server, told = made(outcomes)

    def idle() -> bool:
        pool.closed = len(told) >= 2
        return False

    pool.idle = idle
    assert pool.run("job", specs(outcomes)) == []
    assert 2 <= len(told) < 6 and pool.left == 6 - len(told) and not pool.running
    assert len(server.started) == len(told)


def test_one_that_is_ended_leaves_what_is_at_work_too(made: Run) -> None:
    outcomes = {rank: [WELL] for rank in range(3)}
    pool, server, told = made(outcomes)
    server.stuck = True
    looks = iter([False, False, True])
    pool.idle = lambda: next(looks)
    assert pool.run("job", specs(outcomes)) == []
    assert told == [] and pool.left == 3


def test_part_by_part_from_the_start_if_a_wave_says_so(made: Run) -> None:
    outcomes = {0: [PART, RAISED, PART, WELL]}
    pool, server, _ = made(outcomes)
    pool.one_part = True
    assert pool.run("job", specs(outcomes)) == []
    assert [how.one_part for how in server.hows(0)] == [True] * 4
    assert not any(how.alone for how in server.hows(0))


def test_each_try_has_a_log_of_its_own_that_names_its_attempt_of_the_element(made: Run) -> None:
    outcomes = {3: [KILLED, WELL]}
    pool, server, _ = made(outcomes, tag="2.4711.1.")
    pool.run("job", specs(outcomes))
    assert [log.name for log in server.logs] == ["00003.2.4711.1.1.log", "00003.2.4711.1.2.log"]


def test_what_a_task_says_of_itself_is_kept_while_it_runs_and_a_late_word_is_not(made: Run, tmp_path: Path) -> None:
    outcomes = {0: [WELL], 1: [WELL]}
    pool, server, _ = made(outcomes)
    heart = Heart(tmp_path / "beats" / "driver.json", Beat("driver", "job", 2, limit=99))
    seen = []

    def idle() -> bool:
        heart.tick(pool, force=True)
        seen.append(beats(tmp_path / "beats")[0].running)
        return False

    pool.idle = idle
    server.beats = [
        {"rank": 8, "where": "gone"},
        {"rank": 1, "rows": 4, "bytes": 9, "where": "decode, rows 0 to 4", "memory": 1, "wall": 2.0},
    ]
    pool.run("job", specs(outcomes))
    said = [one for running in seen for one in running if "where" in one]
    assert said[0] == {
        "attempt": 1,
        "rank": 1,
        "rows": 4,
        "bytes": 9,
        "where": "decode, rows 0 to 4",
        "memory": 1,
        "wall": 2.0,
    }
    assert not [one for one in said if one["rank"] == 8]


def test_the_event_of_a_try_holds_what_a_report_adds_up(made: Run) -> None:
    outcomes = {0: [KILLED, WELL]}
    pool, _, told = made(outcomes)
    pool.run("job", specs(outcomes))
    failed, well = (one.event("job") for one in told)
    assert failed["cause"] == "killed" and failed["log"].endswith(".log") and failed["status"] == -9
    assert {"cpu": 1.0, "wall": 2.0, "memory": 3, "private": 2, "rows": 5, "bytes": 7}.items() <= well.items()
    assert "cause" not in well and json.loads(json.dumps(failed)) == failed


# ---------------------------------------------------------------- beats


def test_a_beat_counts_tasks_and_not_their_parts(tmp_path: Path) -> None:
    beat = Beat("driver", "job", 3)
    for one in (
        Ended(0, 1, 0, more=True, rows=2, bytes=3),
        Ended(0, 2, 0, rows=2, bytes=3),
        Ended(1, 1, 1, rows=1, bytes=1),
    ):
        beat.count(one)
    assert (beat.done, beat.failed, beat.rows, beat.bytes) == (1, 1, 5, 7)


def test_beats_that_cannot_be_read_are_passed_over_and_a_full_disk_ends_nothing(made: Run, tmp_path: Path) -> None:
    pool, _, _ = made({})
    folder = tmp_path / "beats"
    heart = Heart(folder / "a.json", Beat("a", "job", 1))
    heart.tick(pool)
    (folder / "b.json").write_text('{"who": "b"')
    (folder / "c.json").write_text('["who"]')
    (folder / "d.json").write_text('{"who": "d", "job": "j", "tasks": 1, "from the future": 1}')
    (folder / ".a.json.77").write_text("half")
    assert [beat.who for beat in beats(folder)] == ["a"]
    heart.stop()
    assert beats(folder) == [] and beats(tmp_path / "nowhere") == []
    folder.rename(tmp_path / "away")
    heart.tick(pool, force=True)
    heart.stop()
