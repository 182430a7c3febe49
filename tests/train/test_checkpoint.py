"""Checkpoints: whole or not there, proved before they are read, the previous one when one is broken, and what is never removed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint import FileSystemWriter

from stackbuild.errors import InputError, StackbuildError, UsageError
from stackbuild.train.branches import branches, mark_branch
from stackbuild.train.checkpoint import CheckpointError, CheckpointOptions, Checkpoints
from stackbuild.train.checkpoint_manifest import CorruptCheckpoint
from stackbuild.train.named_tensors import Kind

MODEL = {"family": "starcoder2", "hidden": 32}


def tensors(step: int, width: int = 6) -> dict[str, Tensor]:
    """All sorts: a matrix, one that is no run of memory, scalars, one without elements, half precision."""
    torch.manual_seed(step)
    return {
        "model.layers.0.mlp.up.weight": torch.randn(8, width),
        "model.norm.weight": torch.nn.Parameter(torch.randn(width)),
        "optimizer.norm.weight.step": torch.tensor(float(step)),
        "optimizer.turned": torch.randn(3, 5).t(),
        "optimizer.part": torch.arange(100.0)[step % 7 : step % 7 + 9],
        "average.snapshots": torch.tensor(step, dtype=torch.int64),
        "average.none": torch.zeros(0, 3),
        "half": torch.randn(4).to(torch.bfloat16),
    }


def empty(width: int = 6) -> dict[str, Tensor]:
    with torch.no_grad():
        return {name: torch.full_like(tensor, 77) for name, tensor in tensors(0, width).items()}


def same(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def told(step: int) -> dict[str, Any]:
    return {"consumed": step * 8, "losses": {"python": 1.25 / 3}, "stages": [{"first_sample": 0}]}


class Run:
    """A run's folder, what was said of it, and saves of it."""

    def __init__(self, folder: Path, **options: Any):
        self.said: list[str] = []
        self.folder, self.options = folder, CheckpointOptions(**options)
        self.checkpoints = self.again()

    def again(self) -> Checkpoints:
        """As after a start."""
        return Checkpoints(self.folder, self.options, self.said.append)

    def save(self, *steps: int) -> None:
        for step in steps:
            self.checkpoints.save(step, tensors(step), told(step), model=MODEL)


pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path / "run")
    yield run
    run.checkpoints.release()


def test_what_is_loaded_is_what_was_saved_bit_for_bit_and_in_place(run: Run) -> None:
    run.save(3, 10)
    into = empty()
    before = {name: tensor.data_ptr() for name, tensor in into.items()}
    assert run.checkpoints.newest() == 10 and run.checkpoints.load(10, into) == told(10)
    assert same(into, tensors(10)) and {name: tensor.data_ptr() for name, tensor in into.items()} == before
    assert run.checkpoints.load(3, into) == told(3) and same(into, tensors(3))
    assert run.checkpoints.contents(3)["half"] == Kind((4,), "bfloat16")
    assert run.checkpoints.manifest(3).model == MODEL and not run.said
    assert (run.folder / "checkpoints/step-00000003/manifest.json").is_file()


def test_the_same_tensors_are_the_same_bytes_wherever_they_are_written(run: Run, tmp_path: Path) -> None:
    other = Run(tmp_path / "somewhere" / "else")
    run.save(5)
    other.save(5)
    assert run.checkpoints.manifest(5) == other.checkpoints.manifest(5)
    for path in run.checkpoints.folder(5).iterdir():
        assert path.read_bytes() == (other.checkpoints.folder(5) / path.name).read_bytes()
        assert str(tmp_path).encode() not in path.read_bytes()


def test_torchs_own_tools_read_it(run: Run) -> None:
    run.save(5)
    into = empty()
    torch.distributed.checkpoint.load(into, checkpoint_id=run.checkpoints.folder(5), no_dist=True)
    assert same(into, tensors(5))


def test_single_tensors_are_streamed_out(run: Run) -> None:
    run.save(5)
    names = ["half", "model.norm.weight", "average.none"]
    got = list(run.checkpoints.tensors(5, names))
    assert [name for name, _ in got] == names and all(torch.equal(tensor, tensors(5)[name]) for name, tensor in got)
    assert same(dict(run.checkpoints.tensors(5)), tensors(5))
    with pytest.raises(InputError, match=r"no tensor model\.other in the checkpoint"):
        run.checkpoints.tensors(5, ["half", "model.other"])


def test_streaming_reads_no_tensor_before_it_is_asked_for(run: Run) -> None:
    run.save(5)
    stream = run.checkpoints.tensors(5, ["model.norm.weight", "half"])
    assert torch.equal(next(stream)[1], tensors(5)["model.norm.weight"])
    distcp(run.checkpoints.folder(5)).unlink()
    with pytest.raises(CorruptCheckpoint, match="tensors cannot be read"):
        next(stream)


def test_a_run_without_checkpoints_has_none_and_a_missing_one_is_named(run: Run) -> None:
    assert run.checkpoints.newest() is None and run.checkpoints.load_newest(empty()) is None
    run.save(5)
    with pytest.raises(InputError, match="no checkpoint of step 6; the newest are: 5"):
        run.checkpoints.load(6, empty())


# ---- broken ones


def distcp(folder: Path) -> Path:
    return next(folder.glob("*.distcp"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def relink(path: Path) -> None:
    """The same bytes, behind a link."""
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to("../elsewhere")


def edit(name: str, change: Callable[[Any], object]) -> Callable[[Path], None]:
    """Change a JSON file of a checkpoint and make the manifest agree, as a stranger would."""

    def act(folder: Path) -> None:
        value = json.loads((folder / name).read_bytes())
        change(value)
        (folder / name).write_text(json.dumps(value))
        if name != "manifest.json":
            reseal(folder)

    return act


def reseal(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"] = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in folder.iterdir()
        if path.name != "manifest.json"
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


HALF = ("tensors", "half", "chunks", 0)


def put(value: Any, *where: Any) -> Callable[[Any], None]:
    def change(table: Any) -> None:
        for key in where[:-1]:
            table = table[key]
        table[where[-1]] = value

    return change


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a part is shorter": (lambda f: os.truncate(distcp(f), 100), "has 100 bytes; the manifest says"),
    "a part has a wrong bit": (lambda f: flip(distcp(f)), "has SHA-256"),
    "a part is missing": (lambda f: distcp(f).unlink(), "__0_0.distcp is missing"),
    "a part is a link": (lambda f: relink(distcp(f)), "is no plain file"),
    "the pickle has a wrong bit": (lambda f: flip(f / ".metadata"), "has SHA-256"),
    "the state has a wrong bit": (lambda f: flip(f / "state.json"), "has SHA-256"),
    "the manifest is missing": (lambda f: (f / "manifest.json").unlink(), "cannot be read"),
    "the manifest is empty": (lambda f: os.truncate(f / "manifest.json", 0), "is not JSON"),
    "the manifest is torn": (lambda f: os.truncate(f / "manifest.json", 90), "is not JSON"),
    "the manifest is deep": (lambda f: (f / "manifest.json").write_text("[" * 100_000), "is not JSON"),
    "the manifest is a list": (lambda f: (f / "manifest.json").write_text("[]"), "should be"),
    "a file more": (lambda f: (f / "more.py").touch(), "'more.py' is not in the manifest"),
    "a folder more": (lambda f: (f / "more").mkdir(), "'more' is no plain file"),
    "another step's": (edit("manifest.json", put(4, "step")), "is of step 4, not 20"),
    "a path": (edit("manifest.json", put({"bytes": 0, "sha256": "0" * 64}, "files", "../x")), "'../x' is no name"),
    "an absolute path": (
        edit("manifest.json", put({"bytes": 0, "sha256": "0" * 64}, "files", "/x")),
        "'/x' is no name",
    ),
    "a key more": (edit("manifest.json", put(1, "run")), "Extra inputs"),
    "no index": (lambda f: ((f / "tensors.json").unlink(), reseal(f)), "tensors.json is missing"),
    "no state": (lambda f: ((f / "state.json").unlink(), reseal(f)), "state.json is missing"),
    "parts elsewhere": (
        edit("tensors.json", put("../../secret.distcp", *HALF, 2)),
        "is no file of parts of this checkpoint",
    ),
    "parts in the pickle": (edit("tensors.json", put(".metadata", *HALF, 2)), "is no file of parts"),
    "parts behind the end": (edit("tensors.json", put(1 << 30, *HALF, 3)), "reaches over the end of __0_0.distcp"),
    "parts below 0": (edit("tensors.json", put(-1, *HALF, 3)), "greater than or equal to 0"),
    "parts too small": (edit("tensors.json", put(3, *HALF, 4)), "of 8 bytes of data has 3 bytes"),
    "an element missing": (edit("tensors.json", put([3], *HALF, 1)), "are not the whole tensor"),
    "an element too many": (edit("tensors.json", put([1], *HALF, 0)), "reaches over the tensor's end"),
    "a huge tensor": (edit("tensors.json", put([1 << 40], "tensors", "half", "shape")), "are not the whole tensor"),
    "no such type": (edit("tensors.json", put("__class__", "tensors", "half", "dtype")), "'__class__' is no type"),
    "parts of another tensor": (edit("tensors.json", put(0, *HALF, 3)), "tensors cannot be read"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_checkpoint_is_told_why_and_the_previous_one_is_loaded(run: Run, broken: str) -> None:
    run.save(10, 20)
    damage, reason = BROKEN[broken]
    damage(run.checkpoints.folder(20))
    into = empty()
    assert run.again().load_newest(into) == (10, told(10)) and same(into, tensors(10))
    assert (
        len(run.said) == 1 and run.said[0].startswith("The checkpoint of step 20 is broken") and reason in run.said[0]
    )
    with pytest.raises(CorruptCheckpoint):
        run.again().load(20, empty())


def test_a_folder_that_is_a_link_is_none_of_this_run(run: Run) -> None:
    run.save(10, 20)
    run.checkpoints.folder(20).rename(run.folder / "moved")
    run.checkpoints.folder(20).symlink_to("../moved")
    assert run.again().newest() == 10 and "is no folder of its own" in run.said[0]


def test_damage_after_it_was_proved_is_seen(run: Run) -> None:
    run.save(10)
    assert run.checkpoints.newest() == 10
    flip(distcp(run.checkpoints.folder(10)))
    with pytest.raises(InputError, match=r"none of its 1 checkpoints is whole; of the newest: .* has SHA-256"):
        run.checkpoints.newest()


def test_no_checkpoint_is_another_thing_than_none_that_is_whole(run: Run) -> None:
    """A run must not begin anew, and over what is there, because all is broken."""
    run.save(10, 20)
    for step in (10, 20):
        distcp(run.checkpoints.folder(step)).unlink()
    with pytest.raises(InputError, match="none of its 2 checkpoints is whole"):
        run.checkpoints.load_newest(empty())


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["BOMB"],)


def test_nothing_is_unpickled_of_a_checkpoint_from_a_stranger(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digests are right; `.metadata` would make a folder if it were loaded, and the part would too."""
    monkeypatch.setenv("BOMB", str(tmp_path / "bomb"))
    run.save(10)
    folder = run.checkpoints.folder(10)
    (folder / ".metadata").write_bytes(pickle.dumps(Bomb()))
    reseal(folder)
    into = empty()
    assert run.again().load(10, into) == told(10) and same(into, tensors(10))  # it is never looked at
    index = json.loads((folder / "tensors.json").read_bytes())
    first, length = index["tensors"]["half"]["chunks"][0][3:]
    torch.save(Bomb(), tmp_path / "part")
    bomb = (tmp_path / "part").read_bytes()
    assert len(bomb) < length
    data = bytearray(distcp(folder).read_bytes())
    data[first : first + length] = bomb + bytes(length - len(bomb))
    distcp(folder).write_bytes(data)
    reseal(folder)
    with pytest.raises(CorruptCheckpoint, match="tensors cannot be read"):
        run.again().load(10, empty())
    assert not (tmp_path / "bomb").exists()
    with contextlib.suppress(BaseException):  # and it is a bomb: torch's own reader sets it off
        torch.distributed.checkpoint.load(empty(), checkpoint_id=folder, no_dist=True)
    assert (tmp_path / "bomb").exists()


def test_a_later_format_is_no_broken_one(run: Run) -> None:
    run.save(10, 20)
    edit("manifest.json", put(2, "version"))(run.checkpoints.folder(20))
    with pytest.raises(InputError, match="has format 2; this stackbuild reads up to 1"):
        run.again().newest()
    assert not run.said


def test_a_checkpoint_of_another_model_is_refused_by_name_and_nothing_is_filled(run: Run) -> None:
    run.save(10, 20)
    into = empty(width=7)
    into["model.more"] = torch.ones(2)
    del into["half"]
    with pytest.raises(InputError) as refused:
        run.checkpoints.load_newest(into)
    assert not isinstance(refused.value, CorruptCheckpoint) and not run.said  # the previous one would be no better
    message = str(refused.value)
    assert "half is not of it" in message and "model.more is missing" in message
    assert "model.layers.0.mlp.up.weight is float32 of shape (8, 6), not float32 of shape (8, 7)" in message
    assert into["model.norm.weight"].eq(77).all()
    with pytest.raises(InputError, match="half is bfloat16 of shape"):
        run.checkpoints.load(20, {**empty(), "half": torch.zeros(4)})


def test_a_part_of_the_tensors_may_be_asked_for(run: Run) -> None:
    run.save(10)
    into = {name: tensor for name, tensor in empty().items() if name.startswith("model.")}
    with pytest.raises(InputError, match="is not of it"):
        run.checkpoints.load(10, into)
    assert run.checkpoints.load(10, into, partial=True) == told(10)
    assert all(torch.equal(tensor, tensors(10)[name]) for name, tensor in into.items())


# ---- what stays


def test_what_the_options_keep(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", keep_last=2, keep_every=30)
    run.save(10, 20, 30, 40, 50)
    assert run.checkpoints.prune() == [10, 20] and run.checkpoints.steps() == [30, 40, 50]
    assert not [
        path
        for path in run.checkpoints.home.iterdir()
        if path.name not in (".lock", *map("step-{:08d}".format, (30, 40, 50)))
    ]


def test_a_branchs_parent_is_never_removed(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", keep_last=1)
    run.save(10, 20, 30)
    assert run.checkpoints.branch(10, "cooled-1").step == 10
    assert json.loads((run.folder / "branches/cooled-1.json").read_bytes()) == {
        "version": 1,
        "step": 10,
        "child": "cooled-1",
    }
    assert run.checkpoints.prune() == [20] and run.checkpoints.steps() == [10, 30]
    assert run.checkpoints.branch(10, "cooled-1").step == 10  # told again
    with pytest.raises(UsageError, match="branched off at step 10 already"):
        run.checkpoints.branch(30, "cooled-1")
    with pytest.raises(InputError, match="no checkpoint of step 20"):
        run.checkpoints.branch(20, "cooled-2")
    assert branches(run.folder) == {"cooled-1": 10}
    for name in ("../x", "", ".x", "a/b", "x" * 200):
        with pytest.raises(UsageError, match="is no name of a branch"):
            mark_branch(run.folder, 10, name)


def test_nothing_is_removed_where_a_marker_cannot_be_read(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", keep_last=1)
    run.save(10, 20)
    (run.folder / "branches").mkdir()
    (run.folder / "branches/torn.json").write_text('{"step"')
    assert run.checkpoints.prune() == [] and "No checkpoint was removed" in run.said[0] and "torn.json" in run.said[0]


def test_the_newest_that_is_whole_is_never_removed(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", keep_last=1)
    run.save(10, 20, 30)
    for step in (20, 30):
        flip(distcp(run.checkpoints.folder(step)))
    assert run.checkpoints.prune() == [20] and run.checkpoints.newest() == 10
    distcp(run.checkpoints.folder(10)).unlink()
    assert run.checkpoints.prune() == [] and run.checkpoints.steps() == [10, 30]


def test_a_run_that_went_back_does_not_resume_from_what_it_left_behind(run: Run) -> None:
    run.save(10, 20, 30)
    assert run.checkpoints.newest(below=20) == 10 and run.checkpoints.newest(below=10) is None
    into = empty()
    assert run.checkpoints.load_newest(into, below=30) == (20, told(20)) and same(into, tensors(20))
    run.checkpoints.branch(10, "child")
    assert run.checkpoints.drop(20) == [20, 30] and run.again().newest() == 10
    with pytest.raises(UsageError, match="child at step 10 branched off later"):
        run.checkpoints.drop(10)
    assert run.checkpoints.steps() == [10]


def test_when_a_checkpoint_is_due() -> None:
    options = CheckpointOptions(every=100, every_minutes=0.5)
    assert [options.due(*at) for at in ((100, 1), (101, 29), (101, 30), (200, 0))] == [True, False, True, True]
    assert not CheckpointOptions(every=100).due(101, 1e9)


def test_a_step_that_is_saved_again(run: Run) -> None:
    """The same bytes are left alone; others (after a rewind, or over a broken one) take their place."""
    run.save(10)
    inode = run.checkpoints.folder(10).stat().st_ino
    run.save(10)
    assert run.checkpoints.folder(10).stat().st_ino == inode
    run.checkpoints.save(10, tensors(11), told(11), model=MODEL)
    into = empty()
    assert run.checkpoints.load(10, into) == told(11) and same(into, tensors(11))
    flip(distcp(run.checkpoints.folder(10)))
    run.save(10)
    assert run.checkpoints.load(10, into) == told(10) and same(into, tensors(10))
    assert sorted(path.name for path in run.checkpoints.home.iterdir()) == [".lock", "step-00000010"]


def test_one_process_writes_and_others_read(run: Run) -> None:
    run.save(10)

    def other() -> None:
        checkpoints = Checkpoints(run.folder)
        assert checkpoints.newest() == 10
        with pytest.raises(UsageError, match="Another process trains"):
            checkpoints.claim()

    assert in_a_child(other) == 0
    run.checkpoints.release()
    assert in_a_child(lambda: Checkpoints(run.folder).claim()) == 0


# ---- kills and full disks


def in_a_child(act: Callable[[], object], killed: bool = False) -> int:
    """Fork, act, and return the exit code; torch need not be imported again. `killed`: say nothing of errors."""
    child = os.fork()
    if not child:
        code = 1
        try:
            act()
            code = 0
        except BaseException as error:
            if not killed:
                print(repr(error), file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_at(moment: int, fails_with: OSError | None = None) -> Callable[[], int]:
    """From now on count what this process does to files, and before the `moment`-th kill it, or have that fail. Returns the counter."""
    seen = 0

    def hook(event: str, given: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.scandir", "fcntl.lockf"):
            seen += 1
            if seen == moment:
                if fails_with is not None:
                    raise fails_with
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)  # stays for good: in a child that was forked for it
    return lambda: seen


def again(checkpoints: Checkpoints) -> None:
    """A step that is saved once more in other bytes, the only one, as a rewind may have it."""
    checkpoints.save(30, tensors(31), told(31), model=MODEL)


def further(checkpoints: Checkpoints) -> None:
    """The next step, once more in other bytes, and what is too old is removed."""
    checkpoints.save(40, tensors(40), told(40), model=MODEL)
    checkpoints.save(40, tensors(41), told(41), model=MODEL)
    checkpoints.prune()


@pytest.mark.parametrize(("there", "act", "moments"), [((30,), again, 20), ((10, 20, 30), further, 40)])
def test_a_kill_before_any_act_on_files_leaves_a_whole_checkpoint(
    tmp_path: Path, there: tuple[int, ...], act: Callable[[Checkpoints], None], moments: int
) -> None:
    """Saved, and killed before each act in turn, until there is none left to be killed before."""
    made = Run(tmp_path / "made", keep_last=1)
    made.save(*there)
    made.checkpoints.branch(there[0], "child")
    made.checkpoints.release()
    for moment in range(1, 1000):
        folder = tmp_path / f"run-{moment}"
        shutil.copytree(made.folder, folder)

        def killed(folder: Path = folder, moment: int = moment) -> None:
            checkpoints = Checkpoints(folder, made.options)
            die_at(moment)
            act(checkpoints)

        code = in_a_child(killed, killed=True)
        checkpoints = Run(folder).checkpoints
        checkpoints.claim()
        newest = checkpoints.newest()
        into = empty()
        assert newest in (30, 40)
        consumed = checkpoints.load(newest, into)["consumed"]
        assert same(into, tensors(consumed // 8)) and consumed // 8 in (30, 31, 40, 41)
        assert there[0] in checkpoints.steps() and all(checkpoints.manifest(step) for step in checkpoints.steps())
        assert all(path.name[0] != "." or path.name == ".lock" for path in checkpoints.home.iterdir())
        checkpoints.release()
        shutil.rmtree(folder)
        if code == 0:
            assert consumed in (31 * 8, 41 * 8) and moment > moments
            return
        assert code == -signal.SIGKILL
    raise AssertionError("it never came to an end")


def saves_until_killed(folder: Path, report: int) -> None:
    checkpoints = Checkpoints(folder, CheckpointOptions(keep_last=2))
    step = checkpoints.newest() or 0
    while True:
        step += 1
        checkpoints.save(step, tensors(step), told(step), model=MODEL)
        os.write(report, step.to_bytes(4, "little"))
        checkpoints.prune()


def kills(folder: Path, times: int) -> None:
    """Kill a process that saves without end, at random moments, and look each time whether what it had saved is there."""
    draw, saved = random.Random(0), 0
    for _ in range(times):
        read, write = os.pipe()
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                saves_until_killed(folder, write)
            os._exit(1)
        os.close(write)
        time.sleep(draw.uniform(0, 0.15))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        with open(read, "rb") as pipe:
            data = pipe.read()
        saved = int.from_bytes(data[-4:], "little") or saved
        checkpoints = Checkpoints(folder)
        into = empty()
        newest = checkpoints.load_newest(into)
        assert (newest is None and not saved) or (newest and newest[0] in (saved, saved + 1))
        if newest:
            assert newest[1] == told(newest[0]) and same(into, tensors(newest[0]))
            saved = newest[0]
    assert saved > times / 10


def test_a_kill_at_any_moment_leaves_what_was_saved(tmp_path: Path) -> None:
    kills(tmp_path / "run", 12)


@pytest.mark.slow
def test_many_kills_at_any_moment_leave_what_was_saved(tmp_path: Path) -> None:
    kills(tmp_path / "run", 300)


def test_a_full_disk_at_any_act_leaves_what_was_there_and_says_so(tmp_path: Path) -> None:
    made = Run(tmp_path / "made")
    made.save(10)
    made.checkpoints.release()
    for moment in range(1, 1000):
        folder = tmp_path / f"run-{moment}"
        shutil.copytree(made.folder, folder)

        def act(folder: Path = folder, moment: int = moment) -> None:
            checkpoints = Checkpoints(folder)
            checkpoints.claim()
            counted = die_at(moment, OSError(28, "No space left on device"))
            try:
                checkpoints.save(10, tensors(11), told(11), model=MODEL)
            except CheckpointError as error:
                assert "No space left" in str(error) and "Earlier checkpoints are as they were" in str(error)
            if counted() < moment:
                os._exit(3)  # all acts were made
            into = empty()
            load = Checkpoints(folder).load_newest(into)
            assert load is not None and load[0] == 10 and same(into, tensors(load[1]["consumed"] // 8))
            left = {path.name for path in checkpoints.home.iterdir()}
            assert "step-00000010" in left and not any(name.startswith(".part") for name in left)

        code = in_a_child(act)
        shutil.rmtree(folder)
        if code == 3:
            break
        assert code == 0, moment
    assert moment > 15


def test_a_file_that_may_not_grow_is_a_failed_save(run: Run) -> None:
    """A real error in the midst of a write, by the system's limit of a file's size."""
    run.save(10)
    run.checkpoints.release()

    def act() -> None:
        import resource

        checkpoints = Checkpoints(run.folder)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
        with pytest.raises(CheckpointError, match="could not be written"):
            checkpoints.save(20, tensors(20), told(20), model=MODEL)
        assert checkpoints.newest() == 10 and checkpoints.steps() == [10]

    assert in_a_child(act) == 0


def test_a_disk_without_room_is_told_before_anything_is_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.save(10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(CheckpointError, match=r"it takes [\d,]+ bytes, and 10 are free"):
        run.save(20)


def test_an_interrupt_is_an_interrupt_and_leaves_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FileSystemWriter, "write_data", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.save(20)
    assert [path.name for path in run.checkpoints.home.iterdir()] == [".lock"]


def test_a_layout_that_cannot_be_saved_from_is_asked_first(run: Run) -> None:
    class Many:
        def check(self) -> None:
            raise UsageError("many processes come with a later issue")

    with pytest.raises(StackbuildError, match="many processes"):
        run.checkpoints.save(5, tensors(5), told(5), model=MODEL, layout=Many())
    assert not run.checkpoints.steps()
