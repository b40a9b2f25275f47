"""What a GPU must do with VSS-MRCFA, beside what device_checks.py asks of every network.

Run by tests/gpu.py; not part of the common tests.
"""

from __future__ import annotations

import pytest
import torch

from device_checks import CLASSES, DEVICE, SIZE, network
from laws import assert_stream_equals_clip
from models.deploy import for_inference
from utils.training.nonfinite import take_step

WORDS = "--method mrcfa --backbone mit_b0 --offsets -3 -2 -1"
FP16_MAX = torch.finfo(torch.float16).max
STEPS = 12


def halves(*others: torch.dtype):
    """The two half precisions, and others."""
    return pytest.mark.parametrize("dtype", [*others, torch.bfloat16, torch.float16])


def skip_what_is_for_gpus(dtype: torch.dtype) -> None:
    if dtype == torch.float16 and DEVICE.type == "cpu":
        pytest.skip("fp16 is for GPUs")


def test_a_stream_gives_what_its_clips_give():
    model = network(WORDS).to(DEVICE)
    assert_stream_equals_clip(model, tolerance=1e-4, size=SIZE, device=DEVICE)


def with_large_products(model):
    """Its affinities then leave the range of float16."""
    for layer in (model.affinity.q3, model.affinity.k3):
        layer.weight.data *= 3000
    return model


def note_affinities(model) -> list[torch.Tensor]:
    """Will hold what the convolutions of affinities get."""
    seen: list[torch.Tensor] = []
    model.affinity.decoder.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[0]))
    return seen


def assert_exact(affinities: list[torch.Tensor]) -> None:
    assert {x.dtype for x in affinities} == {torch.float32}
    assert all(x.isfinite().all() for x in affinities)
    assert max(x.abs().max() for x in affinities) > FP16_MAX, "float16 would show"


@halves()
@torch.no_grad()
def test_affinities_stay_in_float32_under_autocast(dtype):
    skip_what_is_for_gpus(dtype)
    model = with_large_products(network(WORDS)).eval().to(DEVICE)
    seen = note_affinities(model)
    with torch.autocast(DEVICE.type, dtype):
        logits = model(torch.rand(1, 4, 3, *SIZE, device=DEVICE))
    assert_exact(seen)
    assert logits.isfinite().all()


@halves()
@torch.no_grad()
def test_affinities_stay_in_float32_in_a_network_of_half_precision(dtype):
    skip_what_is_for_gpus(dtype)
    model = with_large_products(network(WORDS)).to(DEVICE)
    model = for_inference(model, dtype=dtype)
    seen = note_affinities(model)
    logits = model(torch.rand(1, 4, 3, *SIZE, device=DEVICE))
    assert_exact(seen)
    assert logits.isfinite().all()


@halves(torch.float32)
def test_it_learns_a_clip_and_stays_finite(dtype):
    skip_what_is_for_gpus(dtype)
    model = network(WORDS).train().to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameter_groups(2e-4, 0.01))
    scaler = torch.amp.GradScaler(DEVICE.type, enabled=dtype == torch.float16)
    clip = torch.rand(2, 4, 3, *SIZE, device=DEVICE)
    blocks = torch.randint(0, CLASSES, (2, 4, 2, 3), device=DEVICE)
    labels = blocks.repeat_interleave(32, 2).repeat_interleave(32, 3)  # (B, T, H, W)
    losses = []
    for _ in range(STEPS):
        with torch.autocast(DEVICE.type, dtype, enabled=dtype != torch.float32):
            named = model.losses(clip, labels)
        terms = {name: loss.item() for name, loss in named.items()}
        assert take_step(optimizer, scaler, sum(named.values()), terms) is None
        losses.append(sum(terms.values()))
    assert losses[-1] < 0.9 * losses[0]
    assert all(p.isfinite().all() for p in model.parameters())
