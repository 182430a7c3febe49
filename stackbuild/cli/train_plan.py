"""`stackbuild train --plan`: what a run will take, in words."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from stackbuild.train.estimate import SHARE


def show(name: str, told: dict[str, Any]) -> None:
    """Print it."""
    console = Console()
    table = Table(
        title=f"{name}: {told['parameters']:,} parameters, vocabulary {told['vocab_size']:,}",
        box=None,
        show_header=False,
    )
    for number, stage in enumerate(told["stages"]):
        label = f"stage {number}" if len(told["stages"]) > 1 else "data"
        size = f", {stage['tokens']:,} tokens" if "tokens" in stage else ""
        table.add_row(
            label,
            f"from step {stage['first_step']:,}: rows of {stage['sequence_length']:,}, {stage['batch_tokens']:,} tokens a step{size}",
        )
        table.add_row(
            "",
            f"{stage['flops_per_token_6n'] / 1e9:,.4g} GFLOP a token (6N), {stage['flops_per_token'] / 1e9:,.4g} with attention",
        )
        table.add_row(
            "memory",
            f"{_bytes(stage['memory_bytes'])}: {_bytes(stage['state_bytes'])} of state (16 B a parameter), "
            f"{_bytes(stage['activation_bytes'])} of activations"
            + (f", {_bytes(stage['averages_bytes'])} of averages" if stage["averages_bytes"] else ""),
        )
    table.add_row(
        "disk",
        f"{_bytes(told['disk_bytes'])}: {told['kept_checkpoints']:,} checkpoints of {_bytes(told['checkpoint_bytes'])}, "
        f"{told['windows']:,} averages",
    )
    if told["steps"] is None:
        table.add_row("length", "without end: a constant rate; give --steps, or stop it and cool down")
    else:
        table.add_row("work", f"{told['steps']:,} steps, {told['flops']:.3g} FLOP")
        hours = ", ".join(f"{_time(hours)} on one {name}" for name, hours in told["device_hours"].items())
        table.add_row("time", f"{hours}, at {SHARE:.0%} of its peak")
    console.print(table)
    for what, text in told["deviations"].items():
        console.print(f"[deviation] {what}: {text}", markup=False, highlight=False, soft_wrap=True)
    for text in told["unverified"]:
        console.print(f"[unverified] {text}", markup=False, highlight=False, soft_wrap=True)


def _time(hours: float) -> str:
    if hours < 1:
        return f"{3600 * hours:,.3g} seconds" if hours < 1 / 60 else f"{60 * hours:,.0f} minutes"
    return f"{hours:,.0f} hours"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:,.3g} {unit}" if unit != "B" else f"{count:,.0f} B"
        count /= 1000
    raise AssertionError
