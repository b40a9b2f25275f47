"""What every rank of tests/test_ranks.py runs: one training step and one evaluation, written down by rank 0.

python ranks_job.py OUT.pt WORDS...
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

import main
from datasets import build_dataset
from engine import LossModule, evaluate, mean_over_ranks
from models import build_model
from utils.run.dist import barrier, join, leave, rank, world_size, wrap
from utils.run.loading import evaluation_loader
from utils.views import Views

BATCH = 4


def run(out: str, *words: str) -> None:
    torch.set_num_threads(1)
    cpu = join(torch.device("cpu"))
    args = main.parse_args(
        [
            "--training",
            *words,
            "--dataset",
            "synthetic",
            "--savedir",
            "unused",
            "--synthetic-size",
            "33",
            "65",
            "--synthetic-length",
            "9",
            "--synthetic-videos",
            "1",
            "3",
            "1",
        ]
    )
    torch.manual_seed(0)
    model = build_model(args, 11)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0
    model.class_weights = torch.linspace(0.5, 2, model.num_outputs)
    step = train_step(model, cpu)
    scores = [
        evaluate(
            model,
            evaluation_loader(data, 0, rank(), world_size()),
            num_classes=11,
            device=cpu,
            views=Views(model.size_rule),
            autocast=nullcontext(),
            stepping=data.step,
        )
        for data in both_ways(build_dataset(args, "val"))
    ]
    if rank() == 0:
        torch.save(
            {"losses": step[0], "gradients": step[1], "statistics": step[2], "scores": scores}, out
        )
    barrier()
    leave()


def train_step(model, device):
    """Losses and gradients of a batch of which each rank has a part, with unequal shares of ignored pixels."""
    generator = torch.Generator().manual_seed(3)
    clip = torch.rand(
        BATCH, len(model.offsets) + 1, 3, 40, 72, generator=generator, dtype=torch.float64
    )
    labels = torch.randint(0, 11, (BATCH, clip.shape[1], 40, 72), generator=generator)
    labels[0, :, :30], labels[3, :, :, :5] = 255, 255
    mine = slice(rank() * BATCH // world_size(), (rank() + 1) * BATCH // world_size())
    network = wrap(LossModule(model.double()), device).train()  # batch statistics magnify rounding
    losses = network(clip[mine], labels[mine], None)
    sum(losses.values()).backward()
    model.float()
    statistics = {name: buffer for name, buffer in model.named_buffers() if "running" in name}
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return mean_over_ranks(losses), gradients, statistics


def both_ways(data):
    return data, data.stepping()


if __name__ == "__main__":
    run(*sys.argv[1:])
