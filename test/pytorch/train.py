"""A training script as PyTorch's users write it: env://, gloo, DistributedDataParallel. argv: what else is to happen."""
import os
import sys
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

what = sys.argv[1] if len(sys.argv) > 1 else "train"


def broken_step():
    raise ValueError("the loss is not finite")


def stuck_step():
    time.sleep(1000)


dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()
assert (rank, size) == (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
torch.manual_seed(0)
model = DistributedDataParallel(torch.nn.Linear(4, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(3):
    if step == 2 and rank == 1 and what == "raise":
        broken_step()
    if step == 2 and rank == 1 and what == "hang":
        stuck_step()
    optimizer.zero_grad()
    model(torch.full((3, 4), float(rank + step))).square().mean().backward()
    optimizer.step()
weights = torch.cat([p.detach().flatten() for p in model.parameters()])
total = weights.clone()
dist.all_reduce(total)
assert torch.allclose(total, size * weights, atol=1e-5), "the ranks have different weights"
print(f"trained {rank} of {size}")
