"""Training is that of a plain loop on transformers' own model, from the same weights on the same rows, step by step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stackbuild.train.run import Run
from stackbuild.train.schedule import learning_rate
from tests.train.conftest import recipe
from tests.train.test_run import trained


@pytest.mark.parametrize("family", ["starcoder2", "gpt_bigcode"])
def test_losses_and_weights_are_those_of_a_plain_loop(opened: Callable[..., Run], tmp_path: Path, family: str) -> None:
    from transformers import AutoModelForCausalLM

    from stackbuild.train.hf import Ids, export_model

    model: dict[str, Any] = (
        {"window": 16} if family == "starcoder2" else {"family": family, "kv_heads": 1, "rope_theta": None}
    )
    wanted = recipe(model=model, data={"document_mask": False, "fim": {"rate": 0.0}}, schedule={"steps": 20})
    run = opened(wanted)
    weights = {name: parameter.detach().clone() for name, parameter in run.model.named_parameters()}
    export_model(weights, run.model.config, None, tmp_path / "begin", dtype="float32", ids=Ids(0, 0))
    rows = [run.batches.batch(4 * step, 4) for step in range(20)]
    ours = [step.loss for step in trained(run).steps]

    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "begin", attn_implementation="eager")
    named = dict(theirs.named_parameters())
    groups = [
        {"params": [one for one in named.values() if one.ndim >= 2], "weight_decay": 0.1},
        {"params": [one for one in named.values() if one.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    losses = []
    for step, batch in enumerate(rows):
        logits = theirs(torch.from_numpy(batch.tokens).long()).logits
        labels = torch.from_numpy(batch.labels).long()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(wanted.schedule, step)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3
    assert ours == pytest.approx(losses, abs=2e-3)
    export_model(
        {name: parameter.detach() for name, parameter in run.model.named_parameters()},
        run.model.config,
        None,
        tmp_path / "end",
        dtype="float32",
        ids=Ids(0, 0),
    )
    ended = AutoModelForCausalLM.from_pretrained(tmp_path / "end")
    for name, one in ended.named_parameters():
        if name.endswith(
            "attn.c_attn.bias"
        ):  # the gradient of the keys' bias is 0 but for rounding, which Adam makes large
            continue
        assert torch.allclose(one, named[name], atol=2e-3), name
