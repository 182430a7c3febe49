"""The page of a run: its curves as inline SVG, what it was told, and what happened to it. A function of config.json and metrics.jsonl.

No script, no style and no picture from elsewhere, so that the page can be kept and sent as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM = 640, 240, 64, 24, 24
COLOURS = ("#2563a8", "#c2571a", "#2f8f5b", "#8a4fae", "#b03060", "#6b6b2a")
POINTS = 600  # of a curve that are drawn
STYLE = """body { font: 15px/1.5 system-ui, sans-serif;
max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1c2530; background: #fff }
h1 { font-size: 1.4rem } h2 { font-size: 1.05rem; margin: 1.6rem 0 .3rem } table { border-collapse: collapse }
td, th { padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #e3e7ec }
.curves { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0 } figcaption { font-size: .85rem; color: #4a5563 }
svg text { font: 11px system-ui, sans-serif; fill: #4a5563 }
pre { overflow: auto; background: #f5f7f9; padding: .8rem; font-size: .8rem }"""


class Curve(NamedTuple):
    """A line: steps and values of the same length. `faint`: drawn thin, behind the others."""

    name: str
    steps: list[int]
    values: list[float]
    faint: bool = False


class Figure(NamedTuple):
    """Curves on one pair of axes."""

    title: str
    unit: str
    curves: list[Curve]


def figures(metrics: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """What there is to draw; a figure without a point is left out."""
    train = [line for line in metrics if line.get("kind") == "train"]
    valid = [line for line in metrics if line.get("kind") == "validation"]
    names = sorted({name for line in valid for name in line.get("sources", {})})
    loss = _curve("a step", train, "loss")
    found = [
        Figure("Loss in training", "nats a token", [loss._replace(faint=True), smooth(loss)]),
        Figure("Loss on what is held out", "nats a token", [_source(valid, name, "loss") for name in names]),
        Figure(
            "Middles of held-out spans",
            "nats a token",
            [_source(valid, name, kind) for name in names for kind in ("psm", "spm")],
        ),
        Figure(
            "Spans that are filled in",
            "part of 1",
            [_source(valid, name, kind) for name in names for kind in ("exact", "stop")],
        ),
        Figure("Learning rate", "", [_curve("rate", train, "learning_rate")]),
        Figure("Norm of the gradient", "before clipping", [_curve("norm", train, "gradient_norm")]),
        Figure("Speed", "tokens a second", [_curve("tokens", train, "tokens_per_second")]),
    ]
    kept = [figure._replace(curves=[curve for curve in figure.curves if curve.steps]) for figure in found]
    return [figure for figure in kept if figure.curves]


def summary(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each source the first, the best and the last held-out loss, with their steps."""
    valid = [line for line in metrics if line.get("kind") == "validation"]
    told = []
    for name in sorted({name for line in valid for name in line.get("sources", {})}):
        curve = _source(valid, name, "loss")
        if not curve.steps:
            continue
        best = min(range(len(curve.values)), key=lambda at: curve.values[at])
        last = valid[-1]["sources"].get(name, {})
        told.append(
            {
                "source": name,
                "first": curve.values[0],
                "first_step": curve.steps[0],
                "best": curve.values[best],
                "best_step": curve.steps[best],
                "last": curve.values[-1],
                "last_step": curve.steps[-1],
                **{key: last.get(key) for key in ("psm", "spm", "exact", "stop", "spans")},
            }
        )
    return told


def page(config: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], parent: Mapping[str, Any] | None) -> str:
    """HTML."""
    name = escape(str(config["recipe"]["name"]))
    notes = [line for line in metrics if line.get("kind") == "note"]
    changes = [
        (change["step"], f"{key} is {new} from here on; it was {old}")
        for change in config.get("changes", ())
        for key, (old, new) in change["values"].items()
    ]
    happened = sorted(
        [*((line["step"], str(line.get("text", ""))) for line in notes), *changes], key=lambda one: one[0]
    )
    steps = max((line["step"] for line in metrics), default=0)
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{name}</title><style>{STYLE}</style>",
        f"<h1>{name}</h1>",
    ]
    parts.append(f"<p>{steps:,} steps" + (f", branched off {_parent(parent)}" if parent else "") + "</p>")
    parts += ["<h2>Held out</h2>", _table(summary(metrics)), "<h2>Curves</h2><div class=curves>"]
    parts += [
        f"<figure>{svg(figure)}<figcaption>{_caption(figure)}</figcaption></figure>" for figure in figures(metrics)
    ]
    parts.append("</div>")
    if happened:
        rows = "".join(f"<tr><td>{step:,}</td><td>{escape(text)}</td></tr>" for step, text in happened)
        parts.append(f"<h2>What happened</h2><table><tr><th>step</th><th></th></tr>{rows}</table>")
    told = escape(json.dumps({"model": config["model"], "recipe": config["recipe"]}, indent=1, sort_keys=True))
    parts.append(f"<h2>Recipe</h2><pre>{told}</pre></html>")
    return "\n".join(parts) + "\n"


def svg(figure: Figure) -> str:
    """Curves between their least and greatest step and value, with round numbers at the axes."""
    steps = [step for curve in figure.curves for step in curve.steps]
    values = [value for curve in figure.curves for value in curve.values]
    low, high = min(values), max(values)
    low, high = (low - 0.5, high + 0.5) if low == high else (low, high)
    first, last = min(steps), max(*steps, min(steps) + 1)

    def x(step: float) -> float:
        return LEFT + (step - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return 8 + (high - value) / (high - low) * (HEIGHT - BOTTOM - 16)

    parts = [f'<svg role="img" aria-label="{escape(figure.title)}" width="{WIDTH}" viewBox="0 0 {WIDTH} {HEIGHT}">']
    for tick in ticks(low, high):
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#e3e7ec"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in ticks(first, last):
        parts.append(f'<text x="{x(tick):.1f}" y="{HEIGHT - 6}" text-anchor="middle">{tick:,.0f}</text>')
    for number, curve in enumerate(figure.curves):
        points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in _thinned(curve))
        look = (
            'stroke="#b9c6d6" stroke-width="1"'
            if curve.faint
            else f'stroke="{COLOURS[number % len(COLOURS)]}" stroke-width="1.8"'
        )
        parts.append(f'<polyline fill="none" {look} points="{points}"/>')
        if len(curve.steps) == 1:
            parts.append(
                f'<circle cx="{x(curve.steps[0]):.1f}" cy="{y(curve.values[0]):.1f}" r="3" fill="{COLOURS[number % len(COLOURS)]}"/>'
            )
    return "".join([*parts, "</svg>"])


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, some five of them."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def smooth(curve: Curve) -> Curve:
    """The mean of the last twentieth of the points so far."""
    width = max(1, len(curve.values) // 20)
    sums = [0.0]
    for value in curve.values:
        sums.append(sums[-1] + value)
    means = [(sums[at + 1] - sums[max(0, at + 1 - width)]) / min(width, at + 1) for at in range(len(curve.values))]
    return Curve(f"mean of {width}", curve.steps, means)


def _curve(name: str, lines: Sequence[Mapping[str, Any]], key: str) -> Curve:
    points = [(line["step"], line[key]) for line in lines if _number(line.get(key))]
    return Curve(name, [step for step, _ in points], [float(value) for _, value in points])


def _source(lines: Sequence[Mapping[str, Any]], source: str, key: str) -> Curve:
    flat = [{"step": line["step"], key: line.get("sources", {}).get(source, {}).get(key)} for line in lines]
    return _curve(source if key == "loss" else f"{source}, {key}", flat, key)


def _number(value: Any) -> bool:
    """Whether it can be drawn; what is not finite is a word in metrics.jsonl."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def _thinned(curve: Curve) -> Iterator[tuple[int, float]]:
    stride = max(1, -(-len(curve.steps) // POINTS))
    chosen = {*range(0, len(curve.steps), stride), len(curve.steps) - 1}
    for at in sorted(chosen):
        yield curve.steps[at], curve.values[at]


def _caption(figure: Figure) -> str:
    keys = [
        f'<span style="color:{"#8fa1b5" if curve.faint else COLOURS[number % len(COLOURS)]}">■</span> {escape(curve.name)}'
        for number, curve in enumerate(figure.curves)
    ]
    unit = f", {escape(figure.unit)}" if figure.unit else ""
    return f"{escape(figure.title)}{unit}: {' '.join(keys)}"


def _parent(parent: Mapping[str, Any]) -> str:
    return f"{escape(str(parent.get('run')))} at step {escape(format(parent.get('step', 0), ','))}"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "<p>Nothing was measured.</p>"
    head = "<tr><th>source</th><th>first</th><th>best</th><th>last</th><th>PSM</th><th>SPM</th><th>exact</th><th>stopped</th></tr>"
    body = "".join(
        f"<tr><td>{escape(str(row['source']))}</td>"
        + "".join(
            f"<td>{row[key]:.4f} <small>at {row[f'{key}_step']:,}</small></td>" for key in ("first", "best", "last")
        )
        + "".join(f"<td>{_shown(row[key], key)}</td>" for key in ("psm", "spm", "exact", "stop"))
        + "</tr>"
        for row in rows
    )
    return f"<table>{head}{body}</table>"


def _shown(value: Any, key: str) -> str:
    if not _number(value):
        return "–"
    return f"{value:.1%}" if key in ("exact", "stop") else f"{value:.3f}"
