"""What a gate does: the way opens only over a complete job; what may go better is tried again, bounded by its cause; and
whatever breaks while it does so, nothing runs that nobody waits for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.cluster import minutes
from stackbuild.journal import driver_journal
from stackbuild.launches import Wave
from stackbuild.plan import Build
from stackbuild.pool import TaskSpec
from stackbuild.retries import WAVES, Cause, Failure
from stackbuild.slurm import gate as gating
from stackbuild.slurm.balance import assign, costs_of
from stackbuild.slurm.script import memory_of
from stackbuild.slurm.waves import FINAL, in_time, next_wave
from tests.slurm_units.conftest import OPTIONS, Launched, Slurm

ROWS, CONTENTS = 5, 1  # numbers of jobs: the one over rows, and one of the small ones before it


@pytest.fixture
def launched(slurm: Slurm, complete: Build) -> Callable[..., Launched]:
    return lambda number=ROWS, **more: Launched(slurm, complete, number, **more)


def look(launch: Launched, wave: Wave | None = None, restart: int = 0) -> int:
    """Run the gate of a wave as its job does; returns the exit status."""
    wave = wave or launch.wave
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_RESTART_COUNT", str(restart))
        patch.setenv("SLURM_JOB_ID", launch.gate)
        return gating.main([str(launch.build.out), str(launch.folder.wave_path(wave.number, wave.wave))])


def failed_task(launch: Launched, rank: int, cause: Cause, wave: Wave | None = None) -> None:
    """One task of the wave's job failed in all its tries, and its element said so; the rest went well."""
    wave = wave or launch.wave
    job = launch.build.jobs[wave.number]
    specs = [TaskSpec(number, {}) for number in wave.ranks or range(4)]
    shares = assign(costs_of(launch.build, job, specs), wave.elements)
    for element, share in enumerate(shares):
        launch.tell(wave, element, "element", of=wave.elements, tasks=len(share), cached=0)
        if rank in [specs[position].rank for position in share]:
            words = {"cause": str(cause), "message": f"it was {cause}", "log": "its.log"}
            launch.tell(wave, element, "task", rank=rank, status=1, **words)
            launch.tell(wave, element, "element-end", status=5, reason="1 task failed")
        else:
            launch.tell(wave, element, "element-end", status=0, reason="")


# ---------------------------------------------------------------- one look


def test_a_complete_job_gets_its_stage_manifests_and_nothing_is_submitted(launched: Callable[..., Launched]) -> None:
    launch = launched()
    launch.lose(ROWS)
    before = len(launch.slurm.calls)
    assert look(launch) == 0
    for name in launch.build.jobs[ROWS].shard_jobs:
        assert (launch.build.out / "stages" / name / "manifest.json").exists()
    assert len(launch.slurm.calls) == before
    [event] = launch.events("gate")
    assert (event["complete"], event["of"], event["again"], event["failures"]) == (4, 4, None, [])


def test_a_later_attempt_that_finds_a_job_complete_took_none_of_its_time(launched: Callable[..., Launched]) -> None:
    """An element of a chain that is requeued tells of all of its jobs again."""
    launch = launched()
    launch.tell(launch.wave, 0, "element", tasks=2, cached=0, time=10.0)
    for rank, time in ((0, 12.0), (1, 13.0)):
        launch.tell(launch.wave, 0, "task", rank=rank, status=0, time=time)
    launch.tell(launch.wave, 0, "element", restart=1, tasks=2, cached=2, time=90.0)
    assert look(launch) == 0
    assert [event["wall"] for event in launch.events("job-end")] == [3.0]


def test_a_task_out_of_memory_gets_a_wave_of_its_own_with_twice_of_it(launched: Callable[..., Launched]) -> None:
    """It was tried alone in what two tasks had, 4 GB: twice the memory of one would be no more than that."""
    launch = launched()
    launch.lose(ROWS, 1)
    failed_task(launch, 1, Cause.MEMORY)
    assert look(launch) == 0
    [wave] = launch.folder.waves(ROWS)[1:]
    assert (wave.wave, wave.ranks, wave.memory, wave.cpus, wave.one_part) == (2, [1], 8 * 10**9, 1, True)
    assert not (launch.build.out / "stages" / launch.build.jobs[ROWS].shard_jobs[0] / "manifest.json").exists()


def test_all_that_waits_is_made_to_wait_for_the_new_wave_before_it_begins(launched: Callable[..., Launched]) -> None:
    launch = launched()
    launch.lose(ROWS, 2)
    failed_task(launch, 2, Cause.KILLED)
    begin = len(launch.slurm.calls)
    assert look(launch) == 0
    array, gate = (one.slurm for one in launch.jobs_of(2))
    jobs = launch.slurm.jobs
    assert jobs[gate]["dependency"] == f"afterany:{array}"
    [later], after = launch.next
    assert jobs[later]["dependency"] == f"afterok:{gate}"
    assert jobs[after]["dependency"] == f"afterany:{later},afterok:{gate}"
    made = [
        call
        for call in launch.slurm.calls[begin:]
        if call["command"] in ("sbatch", "scontrol") and "show" not in call["arguments"]
    ]
    assert "--hold" in made[0]["arguments"]
    assert [call["arguments"][0] for call in made[-3:]] == ["update", "update", "release"]
    assert made[-1]["arguments"] == ["release", array]


def test_the_gate_after_a_failed_one_does_not_begin(launched: Callable[..., Launched]) -> None:
    """Slurm cancels an array whose gate failed, and to `afterany` a cancelled array has ended: the next gate would find an
    incomplete job before it, and say the launch's last word in the place of the one that knows why."""
    launch = launched()
    [later], after = launch.next
    assert launch.slurm.jobs[after]["dependency"] == f"afterany:{later},afterok:{launch.gate}"


@pytest.mark.parametrize("cause", FINAL)
def test_what_cannot_go_better_ends_the_launch(launched: Callable[..., Launched], cause: Cause) -> None:
    launch = launched()
    launch.lose(ROWS, 1)
    failed_task(launch, 1, cause)
    jobs = set(launch.slurm.jobs)
    assert look(launch) == 5
    assert set(launch.slurm.jobs) == jobs
    [word] = launch.events("failed")
    assert word["exit_code"] == 5 and f"it was {cause}" in word["message"] and "its.log" in word["message"]


def test_only_what_is_missing_is_tried_again(launched: Callable[..., Launched]) -> None:
    launch = launched(elements=1)
    launch.lose(ROWS, 0, 3)
    failed_task(launch, 3, Cause.KILLED)
    launch.tell(launch.wave, 0, "task", rank=0, status=-9, cause="killed", message="killed by signal 9", log="0.log")
    assert look(launch) == 0
    [wave] = launch.folder.waves(ROWS)[1:]
    assert wave.ranks == [0, 3]


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        ("NODE_FAIL", "node_lost"),
        ("TIMEOUT", "time_limit"),
        ("OUT_OF_MEMORY", "out_of_memory"),
        ("FAILED", "killed"),
        ("CANCELLED", "cancelled"),
    ],
)
def test_an_element_that_said_no_word_ended_as_slurm_says(
    launched: Callable[..., Launched], state: str, cause: str
) -> None:
    launch = launched(elements=4)
    launch.lose(ROWS, 0, 1, 2, 3)
    launch.slurm.end(launch.arrays[0], state, range(4))
    assert look(launch) == (5 if cause == "cancelled" else 0)
    [event] = launch.events("gate")
    assert {failure["cause"] for failure in event["failures"]} == {cause}


def test_a_lost_nodes_element_that_spoke_in_an_earlier_attempt_is_lost_all_the_same(
    launched: Callable[..., Launched],
) -> None:
    launch = launched(elements=1)
    launch.lose(ROWS, 1)
    launch.tell(launch.wave, 0, "element", tasks=4)
    launch.tell(launch.wave, 0, "element-end", status=85, reason="the time limit is near")
    launch.tell(launch.wave, 0, "element", restart=1, tasks=4)
    launch.slurm.end(launch.arrays[0], "NODE_FAIL")
    assert look(launch) == 0
    [event] = launch.events("gate")
    assert [failure["cause"] for failure in event["failures"]] == ["node_lost"]


ON, NOT = 85, 86  # last words of an element that had no more time: it got on in what it had, or did not


@pytest.mark.parametrize(
    ("ends", "tried"),
    [
        ([ON] * 6, 6),
        ([ON, ON, ON, ON, NOT], 5),
        ([NOT, NOT, NOT, ON, ON], 5),
        ([NOT, NOT, ON, NOT, NOT], 4),
        ([NOT] * 4, 3),
    ],
)
def test_waves_that_got_on_are_no_tries_of_what_they_did_not_come_to(
    launched: Callable[..., Launched], ends: list[int], tried: int
) -> None:
    """Where a site requeues nothing, an element with work for some hours takes a wave for each of them."""
    launch = launched(elements=1, requeue=False)
    launch.lose(ROWS, 1, 3)
    looks = []
    for status in ends:
        wave = launch.folder.waves(ROWS)[-1]
        launch.tell(wave, 0, "element", tasks=4)
        launch.tell(wave, 0, "element-end", status=status, reason="the time limit is near")
        looks.append(look(launch, wave))
        again = launch.folder.waves(ROWS)[-1]
        assert again.time == wave.time or (status == NOT and minutes(again.time) == 2 * minutes(wave.time))
    assert looks == [0] * tried + [5] * (len(ends) - tried)


@pytest.mark.parametrize("cause", [Cause.MEMORY, Cause.KILLED])
def test_a_later_job_of_a_chain_is_tried_again_as_its_own_cause_asks(
    launched: Callable[..., Launched], cause: Cause
) -> None:
    """Elements tell of the job at hand, not of the first of their chain."""
    launch = launched(CONTENTS, last=ROWS, elements=1)
    launch.lose(ROWS, 2)
    for number in range(CONTENTS, ROWS):
        launch.tell(launch.wave, 0, "element", number=number, tasks=4)
        launch.tell(launch.wave, 0, "element-end", number=number, status=0, reason="")
    launch.tell(launch.wave, 0, "element", number=ROWS, tasks=4)
    launch.tell(launch.wave, 0, "task", number=ROWS, rank=2, status=-9, cause=str(cause), message="gone", log="2.log")
    launch.tell(launch.wave, 0, "element-end", number=ROWS, status=5, reason="1 of 4 tasks failed")
    assert look(launch) == 0
    events = [event for event in launch.events("gate") if event["failures"]]
    assert [(event["number"], event["again"]) for event in events] == [(ROWS, 2)]
    assert events[0]["failures"][0] | {"final": False} == {
        "rank": 2,
        "cause": str(cause),
        "message": "gone",
        "log": "2.log",
        "final": False,
        "got_on": False,
    }
    [wave] = launch.folder.waves(ROWS)
    assert (wave.number, wave.last, wave.wave, wave.ranks) == (ROWS, ROWS, 2, [2])


def test_a_chain_that_the_kernel_ended_for_memory_gets_more(launched: Callable[..., Launched]) -> None:
    launch = launched(CONTENTS, last=ROWS, elements=1)
    launch.lose(ROWS, 0, 1, 2, 3)
    launch.tell(launch.wave, 0, "element", number=CONTENTS, tasks=4)
    launch.tell(launch.wave, 0, "element-end", number=CONTENTS, status=0, reason="")
    launch.tell(launch.wave, 0, "element", number=ROWS, tasks=4)
    launch.slurm.end(launch.arrays[0], "OUT_OF_MEMORY")
    assert look(launch) == 0
    [wave] = launch.folder.waves(ROWS)
    assert memory_of(wave) > memory_of(launch.wave) and wave.one_part


# ---------------------------------------------------------------- what breaks meanwhile


def one_lost(launched: Callable[..., Launched]) -> tuple[Launched, set[str]]:
    """A launch one of whose tasks was killed in all its tries, and the jobs that it has before its gate looks."""
    launch = launched()
    launch.lose(ROWS, 1)
    failed_task(launch, 1, Cause.KILLED)
    return launch, set(launch.slurm.jobs)


@pytest.mark.parametrize(
    "orders",
    [
        {"sbatch_5": "fail"},  # the array of the wave
        {"sbatch_6": "fail"},  # its gate
        {"sbatch_6": "fail after"},  # which Slurm took all the same
        {"scontrol_1": "fail"},  # it does not say how long arrays may be
        {"scontrol_2": "fail"},  # what waits cannot be told of the wave
        {"scontrol_3": "fail"},
        {"scontrol_4": "fail"},  # it cannot begin
    ],
)
def test_a_wave_that_cannot_be_submitted_leaves_nothing_and_says_what_to_do(
    launched: Callable[..., Launched], orders: dict[str, Any]
) -> None:
    launch, ours = one_lost(launched)
    launch.slurm.order(**orders)
    assert look(launch) == 5
    assert set(launch.slurm.live) <= ours
    [word] = launch.events("failed")
    assert "Run the same build again" in word["message"] and "told to fail" in word["message"]


@pytest.mark.parametrize(
    "orders",
    [
        {"sbatch_5": "busy"},  # the array of the wave
        {"sbatch_5": "busy after"},  # which Slurm took all the same
        {"sbatch_5": "busy", "sbatch_6": "busy after"},
        {"sbatch_6": "busy"},  # its gate
        {"sbatch_6": "busy after"},
        {"squeue_1": "busy", "squeue_2": "busy"},  # how the elements ended
        {"squeue_3": "busy"},
        {"scontrol_1": "busy"},  # how long arrays may be
        {"scontrol_2": "busy after"},  # what waits is told of the wave
        {"scontrol_3": "busy", "scontrol_4": "busy after"},
        {"scontrol_4": "busy after", "scontrol_5": "busy"},  # it begins
        {"scancel_1": "busy"},
    ],
)
def test_a_controller_that_does_not_answer_for_a_moment_ends_no_launch(
    launched: Callable[..., Launched], orders: dict[str, Any]
) -> None:
    launch, ours = one_lost(launched)
    launch.slurm.order(**orders)
    assert look(launch) == 0
    array, gate = (one.slurm for one in launch.jobs_of(2))
    assert set(launch.slurm.live) - ours == {array, gate} and launch.slurm.may_begin() == [*launch.arrays, array]
    jobs, ([later], after) = launch.slurm.jobs, launch.next
    assert jobs[gate]["dependency"] == f"afterany:{array}" and jobs[later]["dependency"] == f"afterok:{gate}"
    assert jobs[after]["dependency"] == f"afterany:{later},afterok:{gate}"


def test_each_array_of_a_wave_is_told_from_the_others_of_its_name(launched: Callable[..., Launched]) -> None:
    """A site's limit of arrays cuts a wave in several, and Slurm knows them by one name."""
    launch = launched(elements=4)
    launch.lose(ROWS, 0, 1, 2, 3)
    launch.slurm.end(launch.arrays[0], "NODE_FAIL", range(4))
    launch.slurm.order(max_array=2, sbatch_5="busy", sbatch_7="busy after")
    assert look(launch) == 0
    arrays = [one.slurm for one in launch.jobs_of(2) if one.kind == "array"]
    [gate] = [one.slurm for one in launch.jobs_of(2) if one.kind == "gate"]
    assert len(set(arrays)) == 2 and launch.slurm.jobs[gate]["dependency"] == f"afterany:{':'.join(arrays)}"
    assert [launch.slurm.jobs[array]["elements"] for array in arrays] == [2, 2]
    assert len([job for job in launch.slurm.live.values() if job["name"].endswith(f"{ROWS:02d}.2")]) == 2


def test_a_gate_that_is_requeued_in_the_middle_leaves_one_wave(launched: Callable[..., Launched]) -> None:
    launch = launched()
    launch.lose(ROWS, 1)
    failed_task(launch, 1, Cause.KILLED)
    assert look(launch) == 0
    assert look(launch, restart=1) == 0
    second, third = launch.jobs_of(2), launch.jobs_of(3)
    assert all(one.slurm not in launch.slurm.live for one in second)
    array, gate = (one.slurm for one in third)
    assert {array, gate} <= set(launch.slurm.live) and array in launch.slurm.may_begin()
    assert launch.slurm.jobs[launch.next[0][0]]["dependency"] == f"afterok:{gate}"


def test_a_gate_that_died_before_it_wrote_an_id_down_leaves_one_wave(launched: Callable[..., Launched]) -> None:
    launch = launched()
    launch.lose(ROWS, 1)
    failed_task(launch, 1, Cause.KILLED)
    assert look(launch) == 0
    for path in launch.folder.path.glob("jobs.*-gate.0.*.jsonl"):  # as if it had not come that far
        path.unlink()
    lost = [number for number, job in launch.slurm.jobs.items() if f"-{ROWS:02d}.2" in job["name"]]
    assert len(lost) == 2
    assert look(launch, restart=1) == 0
    assert not set(lost) & set(launch.slurm.live)


def test_a_requeued_gate_does_not_use_up_the_tries_of_a_task(launched: Callable[..., Launched]) -> None:
    launch = launched()
    launch.lose(ROWS, 1)
    failed_task(launch, 1, Cause.KILLED)
    for restart in range(3):
        assert look(launch, restart=restart) == 0
    [*_, wave] = launch.folder.waves(ROWS)
    failed_task(launch, 1, Cause.KILLED, wave)
    assert look(launch, wave) == 0


def test_a_cancelled_launch_gets_no_further_wave(launched: Callable[..., Launched]) -> None:
    """Whoever cancels asks Slurm once what is live: a wave that is submitted a moment later would go on by itself."""
    launch = launched()
    launch.lose(ROWS, 1)
    failed_task(launch, 1, Cause.KILLED)
    launch.folder.mark("cancelled")
    ours = set(launch.slurm.jobs)
    assert look(launch) != 0
    assert set(launch.slurm.live) <= ours


@pytest.mark.parametrize("missing", [(), (1,)])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_gate_of_a_launch_after_which_another_build_began_opens_and_submits_nothing(
    launched: Callable[..., Launched], monkeypatch: pytest.MonkeyPatch, when: str, missing: tuple[int, ...]
) -> None:
    """It ran where Slurm did not see it, or while its launch was cancelled. What it would close the other would read."""
    launch = launched()
    launch.lose(ROWS, *missing)
    failed_task(launch, 1, Cause.KILLED)
    ours = set(launch.slurm.jobs)
    journal, real = driver_journal(launch.build.out), gating.complete_tasks

    def begin() -> None:
        journal.write(event="start", executor="slurm", launch="20260102-000000-abcd")

    def looked(*given: Any, **more: Any) -> Any:
        found = real(*given, **more)
        begin()
        return found

    if when == "before":
        begin()
        launch.folder.freeze(replace(launch.folder.frozen(), code="0" * 64))  # an edit is what it was begun for
    else:
        monkeypatch.setattr(gating, "complete_tasks", looked)
    assert look(launch) == 4
    for name in launch.build.jobs[ROWS].shard_jobs:
        assert not (launch.build.out / "stages" / name / "manifest.json").exists()
    assert set(launch.slurm.jobs) == ours and launch.slurm.said("scancel") == []
    [word] = launch.events("failed")
    assert f"Launch {launch.folder.id} is over" in word["message"] and word["exit_code"] == 4


# ---------------------------------------------------------------- the next wave

CAUSES = st.sampled_from(list(Cause))


@pytest.mark.parametrize(
    ("had", "wanted", "most", "given"),
    [
        ("00:10:00", "20", math.inf, "20"),
        ("00:10:00", "20", 15.0, "15"),
        ("00:10:00", "20", 10.0, None),  # it would be in the queue for ever
        ("00:10:00", "00:10:00", 10.0, "00:10:00"),  # no more is wanted than before
    ],
)
def test_no_wave_asks_for_more_time_than_its_partition_allows(
    had: str, wanted: str, most: float, given: str | None
) -> None:
    before = Wave(3, 3, 1, "job", 1, 1, 10**9, 10**9, had)
    found = in_time(replace(before, wave=2, time=wanted), before, most)
    assert (found.time if found else None) == given


@settings(max_examples=200, deadline=None)
@given(
    causes=st.dictionaries(st.integers(0, 40), CAUSES, min_size=1, max_size=12),
    memory=st.integers(1, 40),
    cpus=st.integers(1, 8),
    elements=st.integers(1, 50),
    stuck=st.booleans(),
)
def test_what_a_further_wave_asks_for_follows_from_the_causes(
    causes: dict[int, Cause], memory: int, cpus: int, elements: int, stuck: bool
) -> None:
    options = OPTIONS.model_copy(update={"max_memory": 64 * 10**9})
    wave = Wave(3, 3, 1, "job", elements, cpus, memory * 10**9, 10**9, "00:10:00")
    failures = [Failure(rank, "why", 5, "log", cause) for rank, cause in causes.items()]
    again = next_wave(wave, failures, {}, options, 2, stuck)
    if any(cause in FINAL for cause in causes.values()):
        assert again is None
        return
    if Cause.MEMORY not in causes.values():
        assert again is not None and again.memory == wave.memory and again.cpus <= wave.cpus
    elif again is None:  # all that may be asked for was not enough
        assert memory_of(wave) >= options.max_memory
    else:
        assert again.cpus == 1 and again.one_part and memory_of(again) > memory_of(wave)
        assert again.memory == 2 * cpus * wave.memory or memory_of(again) == options.max_memory
    if again is not None:
        assert again.ranks == sorted(causes) and 1 <= again.elements <= len(causes)
        assert memory_of(again) <= max(options.max_memory, memory_of(wave))
        assert again.time == ("20" if stuck else wave.time)


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause not in FINAL])
def test_the_number_of_waves_is_bounded_by_the_cause(cause: Cause) -> None:
    wave = Wave(3, 3, 1, "job", 4, 2, 10**8, 10**9, "00:10:00")
    earlier: Counter[str] = Counter()
    for _ in range(WAVES[cause]):
        again = next_wave(wave, [Failure(0, "why", 5, "log", cause)], {0: earlier}, OPTIONS, wave.wave + 1, False)
        assert again is not None
        wave, earlier = again, earlier + Counter([str(cause)])
    assert next_wave(wave, [Failure(0, "why", 5, "log", cause)], {0: earlier}, OPTIONS, wave.wave + 1, False) is None


def test_a_task_that_failed_by_another_cause_has_the_tries_of_both() -> None:
    wave = Wave(3, 3, 4, "job", 4, 2, 10**8, 10**9, "00:10:00")
    earlier = {0: Counter({"node_lost": 5, "killed": 1})}
    assert next_wave(wave, [Failure(0, "", 5, "", Cause.KILLED)], earlier, OPTIONS, 5, False)
    assert next_wave(wave, [Failure(0, "", 5, "", Cause.NODE)], earlier, OPTIONS, 5, False) is None
    mixed = [Failure(0, "", 5, "", Cause.KILLED), Failure(1, "", 5, "", Cause.NODE)]
    assert next_wave(wave, mixed, earlier, OPTIONS, 5, False)


@pytest.mark.parametrize(
    ("failed", "had", "allowed", "elements"), [(9, 2, 5, 5), (3, 2, 5, 3), (9, 7, 5, 7), (9, 9, 5, 9)]
)
def test_tasks_out_of_memory_get_elements_of_their_own_as_far_as_a_job_may_have_so_many(
    failed: int, had: int, allowed: int, elements: int
) -> None:
    """A site lets a user submit so many elements; thousands of tasks run out of memory together if a recipe asks for too little."""
    options = OPTIONS.model_copy(update={"max_elements": allowed})
    wave = Wave(3, 3, 1, "job", had, 2, 10**9, 10**9, "60")
    failures = [Failure(rank, "", 5, "", Cause.MEMORY) for rank in range(failed)]
    again = next_wave(wave, failures, {}, options, 2, False)
    assert again is not None and again.ranks is not None
    assert (again.elements, again.cpus, len(again.ranks)) == (elements, 1, failed)


def test_a_task_that_needs_nearly_all_the_memory_gets_all_that_may_be_asked_for() -> None:
    wave = replace(Wave(3, 3, 1, "job", 1, 2, 5 * 10**9, 10**9, "60"), ranks=[7])
    again = next_wave(wave, [Failure(7, "", 5, "", Cause.MEMORY)], {}, OPTIONS, 2, False)
    assert again is not None and memory_of(again) == OPTIONS.max_memory
    assert next_wave(again, [Failure(7, "", 5, "", Cause.MEMORY)], {}, OPTIONS, 3, False) is None
