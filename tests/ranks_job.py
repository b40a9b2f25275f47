"""What each rank of tests/test_ranks.py runs: for each line of options one training step and two
evaluations, saved by rank 0 in their order.

python ranks_job.py OUT.pt LINE...
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

# Run as a script: Python puts this folder on its path, not the repository.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

import main
from datasets import build_dataset
from engine import LossModule, mean_over_ranks
from evaluations import evaluated
from models import build_model
from models.backbones.mit import DropPath
from utils.run.dist import barrier, join, leave, rank, world_size, wrap
from utils.run.loading import evaluation_loader

BATCH = 4
DATA = (
    "--dataset synthetic --synthetic-size 33 65 --synthetic-length 9 --synthetic-videos 1 3 1"
).split()


def run(out: str, *lines: str) -> None:
    torch.set_num_threads(1)
    cpu = join(torch.device("cpu"))
    results = [result_of(line.split(), cpu) for line in lines]
    if rank() == 0:
        torch.save(results, out)
    barrier()
    leave()


def result_of(words: list[str], device) -> dict:
    args = main.parse_args(["--training", *words, *DATA, "--savedir", "unused"])
    model = make_model(args)
    result = train_step(model, device)
    data = build_dataset(args, "val")
    # Clip by clip, and stepping through videos.
    result["scores"] = [score(model, each, device) for each in (data, data.stepping())]
    return result


def make_model(args):
    """The same network on every rank and in every run: no dropout, unequal class weights."""
    torch.manual_seed(0)
    model = build_model(args, 11)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0
        elif isinstance(module, DropPath):
            module.rate = 0.0
    model.class_weights = torch.linspace(0.5, 2, model.num_outputs)
    return model


def score(model, data, device) -> dict:
    loader = evaluation_loader(data, 0, rank(), world_size())
    return evaluated(model, data, loader=loader, device=device)


def train_step(model, device) -> dict:
    """Losses, gradients and batch statistics of a batch of which each rank has a part.

    The ranks have unequal shares of ignored pixels.
    """
    generator = torch.Generator().manual_seed(3)
    frames = len(model.training_offsets(Random(0))) + 1
    size = (BATCH, frames, 3, 40, 72)  # (B, T, 3, H, W)
    # In double precision: batch statistics magnify rounding.
    clip = torch.rand(size, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 11, (BATCH, size[1], 40, 72), generator=generator)  # (B, T, H, W)
    labels[0, :, :30] = 255
    labels[3, :, :, :5] = 255
    mine = slice(rank() * BATCH // world_size(), (rank() + 1) * BATCH // world_size())
    network = wrap(LossModule(model.double()), device).train()
    losses = network(clip[mine], labels[mine], None)
    sum(losses.values()).backward()
    model.float()
    return {
        "losses": mean_over_ranks(losses),
        "gradients": {name: p.grad for name, p in model.named_parameters() if p.requires_grad},
        "statistics": {name: x for name, x in model.named_buffers() if "running" in name},
    }


if __name__ == "__main__":
    run(*sys.argv[1:])
