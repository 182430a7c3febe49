"""The page of a run: every curve that there is, names of strangers escaped, nothing from elsewhere."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from stackbuild.cli.app import app
from stackbuild.errors import InputError
from stackbuild.train.metrics import Metrics, open_sinks, read_metrics
from stackbuild.train.report_page import Curve, Figure, figures, page, smooth, summary, svg, ticks

CONFIG: dict[str, Any] = {
    "recipe": {"name": "<b>run"},
    "model": {"hidden": 8},
    "changes": [{"step": 5, "values": {"log.every": [1, 2]}}],
}


def lines() -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = [
        {
            "kind": "train",
            "step": step,
            "loss": 9 / step,
            "learning_rate": 1e-3,
            "gradient_norm": 1.0,
            "tokens_per_second": 100.0,
        }
        for step in range(1, 101)
    ]
    for step, loss in ((50, 4.0), (70, 3.0), (100, 3.5)):
        sources = {"<i>code": {"loss": loss, "psm": 2.0, "spm": 1.5, "exact": 0.25, "stop": 1.0, "spans": 4}}
        made.append({"kind": "validation", "step": step, "loss": loss, "sources": sources})
    return [*made, {"kind": "note", "step": 60, "text": "Back from step 60 <script>"}]


def test_every_curve_is_drawn_and_is_well_formed() -> None:
    text = page(CONFIG, lines(), {"run": "trunk", "step": 1000})
    drawn = re.findall(r"<svg.*?</svg>", text, re.S)
    assert len(drawn) == 7
    for one in drawn:
        ElementTree.fromstring(one)
    for told in (
        "PSM",
        "&lt;i&gt;code",
        "Back from step 60 &lt;script&gt;",
        "log.every is 2",
        "branched off trunk at step 1,000",
        "25.0%",
    ):
        assert told in text
    assert "<script" not in text and "<i>code" not in text and "http" not in text


def test_what_was_not_measured_is_left_out() -> None:
    only = [line for line in lines() if line["kind"] == "train"]
    assert [figure.title for figure in figures(only)] == [
        "Loss in training",
        "Learning rate",
        "Norm of the gradient",
        "Speed",
    ]
    assert "Nothing was measured" in page(CONFIG, only, None)


def test_numbers_that_are_not_finite_are_not_drawn() -> None:
    broken = [*lines(), {"kind": "train", "step": 101, "loss": "nan", "gradient_norm": math.inf}]
    assert figures(broken)[0].curves[0].steps[-1] == 100


def test_a_point_stands_where_its_numbers_say() -> None:
    drawn = ElementTree.fromstring(svg(Figure("f", "", [Curve("c", [0, 10], [1.0, 3.0])])))
    (line,) = drawn.iter("polyline")
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in line.get("points", "").split())
    assert x0 < x1 and y0 > y1  # later is to the right, more is above
    assert ticks(1.0, 3.0) == [1.0, 1.5, 2.0, 2.5, 3.0]
    svg(Figure("one point", "", [Curve("c", [7], [2.0])]))


def test_the_smooth_line_is_the_mean_of_a_twentieth() -> None:
    curve = smooth(Curve("c", list(range(40)), [float(at % 2) for at in range(40)]))
    assert curve.values[0] == 0.0 and set(curve.values[1:]) == {0.5}


def test_the_summary_tells_first_best_and_last() -> None:
    (row,) = summary(lines())
    assert (row["first"], row["best"], row["last"]) == (4.0, 3.0, 3.5)
    assert (row["first_step"], row["best_step"], row["last_step"]) == (50, 70, 100)


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines()))
    result = CliRunner().invoke(app, ["report", str(tmp_path), "--json"], catch_exceptions=False)
    assert json.loads(result.stdout)["sources"][0]["best"] == 3.0
    assert "<svg" in (tmp_path / "report.html").read_text()
    text = CliRunner().invoke(app, ["report", str(tmp_path)], catch_exceptions=False).stdout
    assert "3.0000 at 70" in text
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="holds no table"):
        CliRunner().invoke(app, ["report", str(tmp_path)], catch_exceptions=False)


# ---------------------------------------------------------------- metrics.jsonl


def test_a_run_that_goes_on_cuts_off_what_was_behind_its_step(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, 0, [])
    for step in range(1, 9):
        metrics.add("train", step, {"loss": float(step)})
    metrics.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind":"train","st')  # torn by a kill
    metrics = Metrics(tmp_path, 5, [])
    metrics.add("train", 6, {"loss": math.nan})
    metrics.close()
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path)] == [
        *((k, float(k)) for k in range(1, 6)),
        (6, "nan"),
    ]


def test_sinks_get_flat_numbers(tmp_path: Path) -> None:
    class Sink:
        got: list[tuple[int, dict[str, float]]] = []
        closed = False

        def add(self, step: int, values: Any) -> None:
            self.got.append((step, dict(values)))

        def close(self) -> None:
            self.closed = True

    sink = Sink()
    metrics = Metrics(tmp_path, 0, [sink])
    metrics.add("validation", 3, {"loss": 2.0, "sources": {"code": {"psm": 1.0, "spm": None}}})
    metrics.close()
    assert sink.got == [(3, {"validation/loss": 2.0, "validation/sources/code/psm": 1.0})] and sink.closed


def test_a_sink_that_is_not_installed_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    from stackbuild.errors import MissingDependency

    def none(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", none)
    with pytest.raises(MissingDependency, match="pip install wandb"):
        open_sinks(("wandb",), tmp_path, "p", "r")
