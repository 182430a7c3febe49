"""Averages: uniform windows and the exponential one, in float32, the same after a resume, and files that are there whole."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from stackbuild.errors import InputError, StackbuildError
from stackbuild.train.averaging import Averages, AveragingOptions, Window, mean_of_windows, store_window, stored_windows

OPTIONS = AveragingOptions(every=5, window=20, ema=0.9)


def parameters() -> dict[str, Tensor]:
    return {"a.weight": torch.nn.Parameter(torch.zeros(4, 3)), "b.bias": torch.zeros(3)}


def at(step: int) -> dict[str, Tensor]:
    """Weights after some steps."""
    generator = torch.Generator().manual_seed(step)
    return {"a.weight": torch.randn(4, 3, generator=generator), "b.bias": torch.randn(3, generator=generator)}


def move(live: dict[str, Tensor], step: int) -> None:
    with torch.no_grad():
        for name, tensor in at(step).items():
            live[name].copy_(tensor)


def run(live: dict[str, Tensor], averages: Averages, first: int, last: int) -> list[Window]:
    windows = []
    for step in range(first, last + 1):
        move(live, step)
        window = averages.take(step)
        if window is not None:
            windows.append(Window(window.last, window.snapshots, {k: v.clone() for k, v in window.tensors.items()}))
    return windows


def test_a_window_is_the_uniform_mean_of_its_snapshots_and_of_nothing_else() -> None:
    live = parameters()
    windows = run(live, Averages(OPTIONS, live), 1, 47)
    assert [(window.last, window.snapshots) for window in windows] == [(20, 4), (40, 4)]
    for window in windows:
        for name in live:
            mean = torch.stack([at(step)[name].double() for step in range(window.last - 15, window.last + 1, 5)]).mean(
                0
            )
            torch.testing.assert_close(window.tensors[name].double(), mean, rtol=1e-6, atol=1e-6)
            assert window.tensors[name].dtype == torch.float32


def test_the_mean_of_many_snapshots_keeps_its_precision() -> None:
    """100 snapshots of weights near 1 that differ by a millionth."""
    live = {"w": torch.zeros(1000)}
    averages, seen = Averages(AveragingOptions(every=1, window=100), live), []
    for step in range(1, 101):
        live["w"].copy_(1 + 1e-6 * torch.randn(1000, generator=torch.Generator().manual_seed(step)))
        seen.append(live["w"].double())
        window = averages.take(step)
    assert window is not None
    torch.testing.assert_close(window.tensors["w"].double(), torch.stack(seen).mean(0), rtol=0, atol=1e-6)


def test_the_exponential_average_starts_at_the_first_snapshot() -> None:
    live = parameters()
    averages = Averages(OPTIONS, live)
    run(live, averages, 1, 31)
    wanted = at(5)["b.bias"].double()
    for step in range(10, 31, 5):
        wanted = 0.9 * wanted + 0.1 * at(step)["b.bias"].double()
    torch.testing.assert_close(averages.ema()["b.bias"].double(), wanted, rtol=1e-6, atol=1e-6)


def test_averages_of_half_precision_are_float32() -> None:
    live = {"w": torch.full((3,), 1.0, dtype=torch.bfloat16)}
    averages = Averages(AveragingOptions(every=1, window=2), live)
    averages.take(1)
    live["w"].fill_(1.0078125)  # the next bf16 number; the mean lies between the two
    window = averages.take(2)
    assert window is not None and torch.equal(window.tensors["w"], torch.full((3,), 1.00390625))


@pytest.mark.parametrize("stop", [3, 12, 20, 37, 40])
def test_a_resumed_run_has_the_same_averages_bit_for_bit(stop: int) -> None:
    straight, before, after = parameters(), parameters(), parameters()
    whole, first, second = (Averages(OPTIONS, live) for live in (straight, before, after))
    wanted = run(straight, whole, 1, 63)
    got = run(before, first, 1, stop)
    for name, tensor in second.state().items():
        tensor.copy_(first.state()[name])
    got += run(after, second, stop + 1, 63)
    assert [window.last for window in got] == [20, 40, 60]
    for one, two in zip(wanted, got, strict=True):
        assert one.snapshots == two.snapshots and all(torch.equal(one.tensors[k], two.tensors[k]) for k in straight)
    assert all(torch.equal(whole.state()[name], second.state()[name]) for name in whole.state())
    assert set(whole.state()) == {
        *(f"{kind}.{name}" for kind in ("window", "ema") for name in straight),
        "window.snapshots",
        "ema.updates",
    }


def test_what_is_not_asked_for_has_no_state() -> None:
    live = parameters()
    plain = Averages(AveragingOptions(), live)
    assert plain.take(500) is None and set(plain.state()) == {"window.snapshots", "ema.updates"} and not plain.ema()


def test_a_window_is_whole_snapshots() -> None:
    with pytest.raises(ValidationError, match="12 steps are not a whole number of snapshots"):
        AveragingOptions(every=5, window=12)


def test_the_same_window_is_the_same_file_byte_for_byte(tmp_path: Path) -> None:
    live = parameters()
    window = run(live, Averages(OPTIONS, live), 1, 20)[0]
    files = [store_window(tmp_path / str(k), window).read_bytes() for k in range(10)]
    assert len(set(files)) == 1
    path = store_window(tmp_path / "0", window)
    assert path == tmp_path / "0/averages/window-00000020.safetensors" and path.read_bytes() == files[0]
    stored = load_file(path)
    assert stored.keys() == live.keys() and all(torch.equal(stored[name], window.tensors[name]) for name in live)


def test_the_newest_windows_stay_and_those_of_steps_to_come(tmp_path: Path) -> None:
    """Windows behind a run that went back are made again; until then they are none of those that count."""
    live = parameters()
    averages = Averages(OPTIONS, live)
    for step in range(1, 101):
        window = averages.take(step)
        if window is not None:
            store_window(tmp_path, window, keep=3)
    assert [window.last for window in stored_windows(tmp_path)] == [60, 80, 100]
    (again,) = run(live, Averages(OPTIONS, live), 61, 80)
    store_window(tmp_path, again, keep=1)
    assert [window.last for window in stored_windows(tmp_path)] == [80, 100]
    store_window(tmp_path, again)
    assert [window.last for window in stored_windows(tmp_path)] == [80, 100]


def test_a_kill_or_a_full_disk_while_a_window_is_written_leaves_none_or_the_one_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = parameters()
    windows = run(live, Averages(OPTIONS, live), 1, 40)
    store_window(tmp_path, windows[0])
    child = os.fork()
    if not child:
        os.replace = lambda *given: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        try:
            store_window(tmp_path, windows[1])
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [window.last for window in stored_windows(tmp_path)] == [20]
    assert len(list((tmp_path / "averages").iterdir())) == 2

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StackbuildError, match=r"could not be written: .* No space left"):
            store_window(tmp_path, windows[1])
    assert [path.name for path in (tmp_path / "averages").iterdir()] == ["window-00000020.safetensors"]
    store_window(tmp_path, windows[1])
    assert [window.last for window in stored_windows(tmp_path)] == [20, 40]


def test_the_mean_of_windows_is_that_of_all_their_snapshots(tmp_path: Path) -> None:
    live = parameters()
    for window in run(
        live, Averages(OPTIONS, live), 6, 60
    ):  # the first has three snapshots, as of averages that began late
        store_window(tmp_path, window)
    windows = stored_windows(tmp_path)
    assert [(window.last, window.snapshots) for window in windows] == [(20, 3), (40, 4), (60, 4)]
    got = dict(mean_of_windows(windows))
    for name in live:
        mean = torch.stack([at(step)[name].double() for step in range(10, 61, 5)]).mean(0)
        torch.testing.assert_close(got[name].double(), mean, rtol=1e-6, atol=1e-6)
        assert torch.equal(dict(mean_of_windows(windows[::-1]))[name], got[name])
    assert all(
        torch.equal(dict(mean_of_windows(windows[-1:]))[name], load_file(windows[-1].path)[name]) for name in live
    )


def test_windows_that_do_not_fit_are_named(tmp_path: Path) -> None:
    assert stored_windows(tmp_path) == []
    with pytest.raises(InputError, match="no finished window"):
        mean_of_windows([])
    store_window(tmp_path, Window(20, 4, {"a": torch.zeros(3)}))
    other = store_window(tmp_path, Window(40, 4, {"a": torch.zeros(4), "b": torch.zeros(1)}))
    with pytest.raises(
        InputError, match=r"window-00000040\.safetensors: is of another model .* a is .*; b is not of it"
    ):
        mean_of_windows(stored_windows(tmp_path))
    os.truncate(other, 60)
    with pytest.raises(InputError, match=r"window-00000040\.safetensors: cannot be read as a window"):
        stored_windows(tmp_path)
    other.write_bytes((tmp_path / "averages/window-00000020.safetensors").read_bytes())
    with pytest.raises(InputError, match="cannot be read as a window"):
        stored_windows(tmp_path)
