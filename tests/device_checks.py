"""What a GPU must compute as the CPU does. Run by tests/gpu.py; not part of the common tests.

STREAMSEG_TEST_DEVICE names the device; on "cpu" the checks compare the CPU with itself.
"""

from __future__ import annotations

import os

import pytest
import torch

import main
from models import build_model
from models.deploy import for_inference
from utils.run.setup import allow_tf32

DEVICE = torch.device(os.environ.get("STREAMSEG_TEST_DEVICE", "cpu"))
SIZE = (64, 96)
CLASSES = 11
PAIRS = [
    "--method single --backbone erf",
    "--method single --backbone psp18",
    "--method single --backbone r50v1c",
    "--method lma --backbone erf --corr-size 7",
    "--method lma --backbone erf --corr-size 7 --learnable-constant --memorize-first",
    "--method lma --backbone erf --model-struct original_kv_fusion --corr-size 7",
    "--method lma --backbone psp18 --corr-size 5",
    "--method lma --backbone erf --no-local-correlation",
    "--method tma --backbone psp18",
    "--method single --backbone mit_b0",
    "--method mrcfa --backbone mit_b0 --offsets -3 -2 -1",
    "--method mrcfa --backbone mit_b0 --offsets -2 -1 --affinity-convs 2 --ref-size 1_16",
]
# On a GPU float32 would be rounded else.
allow_tf32(False)


def network(words: str):
    """A fresh network with statistics of its own, so that batch norm is not the identity."""
    torch.manual_seed(0)
    args = main.parse_args([*f"--training --dataset synthetic {words}".split(), "--savedir", "s"])
    model = build_model(args, CLASSES)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
    return model


def assert_near(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    """Within a share of the largest value."""
    scale = expected.abs().max().clamp(min=1e-12)
    error = (found.cpu().float() - expected).abs().max() / scale
    assert error <= tolerance, f"off by {error:.2e} of the largest value"


@pytest.mark.parametrize("words", PAIRS)
def test_logits_in_fp32_are_those_of_the_cpu(words):
    model = network(words).eval()
    clip = torch.rand(2, 1 - min(model.offsets, default=0), 3, *SIZE)
    with torch.inference_mode():
        expected = model(clip)
        found = model.to(DEVICE)(clip.to(DEVICE))
    assert_near(found, expected, 2e-4)


@pytest.mark.parametrize("words", PAIRS)
def test_gradients_in_fp32_are_those_of_the_cpu(words):
    found = {}
    for device in ("cpu", DEVICE):
        model = network(f"{words} --train-encoder --train-decoder").to(device).eval()
        torch.manual_seed(1)
        clip = torch.rand(1, 1 + len(model.offsets), 3, *SIZE)
        labels = torch.randint(0, CLASSES, clip.shape[:2] + SIZE)
        losses = model.losses(clip.to(device), labels.to(device))
        sum(losses.values()).backward()
        gradients = [p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None]
        found[str(device)] = torch.cat(gradients)
    assert_near(found[str(DEVICE)], found["cpu"], 2e-3)


@pytest.mark.parametrize("words", PAIRS)
def test_a_prepared_stream_gives_what_plain_steps_give(words):
    """On a GPU steps are replayed as CUDA graphs; two videos take turns."""
    model = network(words).eval()
    videos = torch.rand(2, 8, 1, 3, *SIZE)
    with torch.inference_mode():
        expected = stepped(model, videos)
        found = stepped(for_inference(model.to(DEVICE)), videos.to(DEVICE))
    for one, other in zip(found, expected, strict=True):
        assert_near(one, other, 1e-3)


def stepped(model, videos: torch.Tensor) -> list[torch.Tensor]:
    """Logits of two videos (2, T, 1, 3, H, W) that are stepped in turns."""
    states = [model.start() for _ in videos]
    logits = []
    for t in range(videos.shape[1]):
        for i, video in enumerate(videos):
            scores, states[i] = model.step(video[t], states[i])
            logits.append(scores.clone())
    return logits


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_stream_agrees_on_most_pixels(dtype):
    if dtype == torch.float16 and DEVICE.type == "cpu":
        pytest.skip("fp16 is for GPUs")
    model = network("--method lma --backbone erf --corr-size 7").eval()
    videos = torch.rand(2, 4, 1, 3, *SIZE)
    with torch.inference_mode():
        expected = stepped(model, videos)
        found = stepped(for_inference(model.to(DEVICE), dtype=dtype), videos.to(DEVICE))
    agreements = [
        (one.cpu().argmax(1) == other.argmax(1)).float().mean()
        for one, other in zip(found, expected, strict=True)
    ]
    assert min(agreements) > 0.9


def test_random_states_of_the_device_come_back():
    from utils.training.training_state import random_state, set_random_state

    torch.rand(1, device=DEVICE)
    state = random_state()
    first = torch.rand(5, device=DEVICE)
    set_random_state(state)
    assert torch.equal(torch.rand(5, device=DEVICE), first)
