"""ETC's losses on a GPU are those of the CPU. Run by tests/gpu.py; not part of the common tests."""

from __future__ import annotations

import pytest
import torch

from device_checks import CLASSES, DEVICE, SIZE, assert_near, network
from models.etc import ETC, Weights

ALL = Weights(motion=0.1, kd=1.0, pairwise=1.0, pairwise_self=1.0, multi_frame=1.0)


def taught(backbone: str) -> ETC:
    """A student, and a teacher of another kind; clips bring flow."""
    student = network(f"--method single --backbone {backbone}").backbone
    teacher = network("--method single --backbone erf")
    torch.manual_seed(2)
    return ETC(student, teacher=teacher, weights=ALL)


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A clip (B, T, 3, H, W), its labels and a flow of up to some pixels."""
    torch.manual_seed(1)
    clip = torch.rand(2, 2, 3, *SIZE)
    labels = torch.randint(0, CLASSES, (2, 2, *SIZE))
    return clip, labels, 4 * torch.randn(2, 1, 2, *SIZE)


def losses_and_gradients(model, device, inputs) -> tuple[dict[str, float], torch.Tensor]:
    """In evaluation mode, whose networks draw no random numbers."""
    model = model.to(device).eval()
    terms = model.losses(*(x.to(device) for x in inputs))
    sum(terms.values()).backward()
    gradients = [p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None]
    return {name: term.item() for name, term in terms.items()}, torch.cat(gradients)


def assert_like_the_cpu(build, inputs) -> dict[str, float]:
    expected, gradients = losses_and_gradients(build(), torch.device("cpu"), inputs)
    found, others = losses_and_gradients(build(), DEVICE, inputs)
    assert found == pytest.approx(expected, rel=1e-3)
    assert_near(others, gradients, 2e-3)
    return found


@pytest.mark.parametrize("backbone", ["psp18", "mit_b0"])
def test_the_motion_loss_and_the_distillation_are_those_of_the_cpu(backbone):
    terms = assert_like_the_cpu(lambda: taught(backbone), batch())
    assert set(terms) == {"ce", "motion", "kd", "pairwise", "pairwise_self", "multi_frame"}
    assert all(term > 0 for term in terms.values())


def test_flow_that_clips_do_not_bring_is_computed_on_the_device():
    clip, labels, _ = batch()
    words = "--method etc --backbone mit_b0 --flow dis"
    terms = assert_like_the_cpu(lambda: network(words), (clip, labels))
    assert set(terms) == {"ce", "motion"}
