"""A training run of three steps on as many processes as torchrun began: what the trainer's launcher has to make possible.

    python -m torch.distributed.run … tests/slurm/ddp.py FOLDER

Each rank writes FOLDER/<rank>.json: how many there are, on which node it was, the sum of all ranks, and the weights that it has
in the end, which are the same everywhere.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    total = torch.tensor([float(rank + 1)])
    dist.all_reduce(total)
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        torch.manual_seed(100 * step + rank)  # every rank has a batch of its own
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
    weights = [value for parameter in model.parameters() for value in parameter.detach().flatten().tolist()]
    body = {"world": world, "node": os.environ["SLURMD_NODENAME"], "sum": total.item(), "weights": weights}
    (folder / f"{rank}.json").write_text(json.dumps(body))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
