"""ETC's losses: golden numbers of the original, with gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from golden import assert_close, case, filling
from models.ops.warp import warp
from models.parts.distillation import (
    cosine_affinity,
    kl_per_element,
    pairwise_frames,
    pairwise_self,
)
from models.parts.losses import cross_entropy
from models.parts.temporal_loss import motion_loss, motion_mask

NEIGHBOURS = 0.4  # their share beside the current frame, in the three-frame forms


def resize(x, size):
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def inputs(golden):
    """Every input of a case by name, those that it fills, as leaves."""
    fill = filling()
    found = {}
    for name, entry in golden.info["inputs"].items():
        image = fill.image(name, tuple(entry["shape"]))
        found[name] = (image if "image" in name else 2.0 * image).requires_grad_()
    return found


def gradients(loss, leaves):
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]


# Motion


def test_the_motion_loss_is_that_of_etc():
    golden = case("etc/loss_motion")
    given = inputs(golden)
    image = given["mo_image"].detach()
    other = 0.7 * image + 0.3 * given["mo_frame_image"].detach()
    flow = torch.from_numpy(golden.arrays["in_flow"])
    label = torch.from_numpy(golden.arrays["in_label"]).long()
    leaves = [given[name] for name in ("mo_cur", "mo_frame", "mo_dsn")]
    size = image.shape[-2:]
    warped = warp(other, flow, padding="border")
    assert_close(warped, golden.arrays["warped_image"], 1e-5)
    mask = motion_mask(image, warped, "sum")
    assert_close(mask, golden.arrays["mask"], 1e-5)
    scores, other_scores = (resize(x, size) for x in leaves[:2])
    motion = golden.info["config"]["st_weight"] * motion_loss(scores, other_scores, flow, mask)
    assert_close(motion, golden.arrays["f64_st_loss"], 1e-5)
    for name, gradient in zip(("cur", "frame", "dsn"), gradients(motion, leaves), strict=True):
        assert_close(gradient, golden.arrays[f"st_grad_{name}"], 1e-3)
    # The weights of the published cross entropy are those of its own case.
    weight = torch.tensor(case("etc/loss_ce").info["config"]["class_weights"])
    scores, other_scores = (resize(x, size) for x in leaves[:2])
    motion = golden.info["config"]["st_weight"] * motion_loss(scores, other_scores, flow, mask)
    auxiliary = cross_entropy(resize(leaves[2], size), label, weight)
    ce = cross_entropy(scores, label, weight) + 0.4 * auxiliary
    assert_close(ce, golden.arrays["f64_ce_loss"], 1e-5)
    assert_close(ce + motion, golden.arrays["f64_total"], 1e-5)
    total = gradients(ce + motion, leaves)
    for name, gradient in zip(("cur", "frame", "dsn"), total, strict=True):
        assert_close(gradient, golden.arrays[f"total_grad_{name}"], 1e-3)


def test_masks_differ_where_errors_of_colours_cancel():
    frame = torch.zeros(1, 3, 1, 1)
    warped = torch.tensor([0.5, -0.5, 0.0]).view(1, 3, 1, 1)
    assert motion_mask(frame, warped, "sum").item() == 1
    assert motion_mask(frame, warped, "absolute").item() == pytest.approx(torch.e**-1)
    assert motion_mask(frame, warped, "none").item() == 1
    with pytest.raises(ValueError, match="absolute, sum, none, got 'x'"):
        motion_mask(frame, warped, "x")


# Distillation


@pytest.mark.parametrize("temperature", [1, 4])
@pytest.mark.parametrize("name", ["kd", "kdlong"])
def test_distillation_of_single_frames_is_that_of_etc(name, temperature):
    golden = case("etc/loss_kd")
    given = inputs(golden)
    leaves = [given[f"kd_student_{frame}"] for frame in ("cur", "fwd", "bwd")]
    teacher = [given[f"kd_teacher_{frame}"].detach() for frame in ("cur", "fwd", "bwd")]
    terms = [
        kl_per_element(resize(ours, theirs.shape[-2:]), theirs, temperature)
        for ours, theirs in zip(leaves, teacher, strict=True)
    ]
    loss = terms[0] + terms[1]
    if name == "kdlong":
        loss = terms[0] + NEIGHBOURS * (terms[1] + terms[2])
    assert_close(loss, golden.arrays[f"f64_{name}_T{temperature}"], 1e-5)
    for frame, gradient in zip(("cur", "fwd", "bwd"), gradients(loss, leaves), strict=True):
        assert_close(gradient, golden.arrays[f"{name}_T{temperature}_grad_{frame}"], 1e-3)


@pytest.fixture
def pairwise():
    golden = case("etc/loss_pairwise")
    given = inputs(golden)
    golden.student = [given[f"pf_student_{frame}"] for frame in ("cur", "fwd", "bwd")]
    golden.teacher = [given[f"pf_teacher_{frame}"].detach() for frame in ("cur", "fwd", "bwd")]
    return golden


def assert_gradients(golden, loss, name):
    found = gradients(loss, golden.student)
    for frame, gradient in zip(("cur", "fwd", "bwd"), found, strict=True):
        assert_close(gradient, golden.arrays[f"{name}_grad_{frame}"], 1e-3)


def test_affinities_between_frames_are_those_of_etc(pairwise):
    ours, theirs = pairwise.student[:2], pairwise.teacher[:2]
    affinity = cosine_affinity(*ours, swapped=True)
    assert_close(affinity, pairwise.arrays["attn_cur_fwd"], 1e-5)
    loss = pairwise_frames(tuple(ours), tuple(theirs), swapped=True)
    assert_close(loss, pairwise.arrays["f64_sdcos_sig"], 1e-5)
    assert_gradients(pairwise, loss, "sdcos_sig")
    true = pairwise_frames(tuple(ours), tuple(theirs))
    assert (true - loss).abs() > 0.01 * loss, "the published norms are not those of a cosine"


@pytest.mark.parametrize("pool", [2, 4])
def test_affinities_within_frames_are_those_of_etc(pairwise, pool):
    terms = [
        pairwise_self(ours, theirs, pool)
        for ours, theirs in zip(pairwise.student, pairwise.teacher, strict=True)
    ]
    loss = terms[0] + NEIGHBOURS * (terms[1] + terms[2])
    assert_close(loss, pairwise.arrays[f"f64_sdcos_self_pool{pool}"], 1e-5)
    assert_gradients(pairwise, loss, f"sdcos_self_pool{pool}")


def test_affinities_of_pooled_frames_are_those_of_etc(pairwise):
    pooled = F.avg_pool2d(pairwise.student[0], 2, 2)
    assert_close(cosine_affinity(pooled, pooled), pairwise.arrays["attn_self_cur"], 1e-5)


def test_the_warp_and_its_gradients_are_those_of_resample2d():
    golden = case("etc/warp")
    given = inputs(golden)
    x = filling().image("warp_x", tuple(golden.info["inputs"]["warp_x"]["shape"]))
    upstream = filling().image("warp_upstream", tuple(x.shape))
    assert set(given) == {"warp_x", "warp_upstream"}
    x.requires_grad_()
    flow = torch.from_numpy(golden.arrays["in_flow"]).requires_grad_()
    warped = warp(x, flow, padding="border")
    assert_close(warped, golden.arrays["warped"], 1e-5)
    grad_x, grad_flow = gradients((warped * upstream).sum(), [x, flow])
    assert_close(grad_x, golden.arrays["grad_x"], 1e-4)
    assert_close(grad_flow, golden.arrays["grad_flow"], 1e-4)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_pixel_of_zeros_gives_no_gradient_and_spoils_none(swapped):
    torch.manual_seed(0)
    maps = [torch.randn(1, 3, 2, 2, requires_grad=True) for _ in range(2)]
    with torch.no_grad():
        maps[0][..., 0, 0] = 0
    target = torch.rand(1, 4, 4)
    loss = (cosine_affinity(*maps, swapped=swapped) - target).square().mean()
    for gradient in torch.autograd.grad(loss, maps):
        assert gradient.isfinite().all() and gradient.abs().max() < 10


def test_half_precision_around_them_does_not_round_cosines():
    torch.manual_seed(0)
    x, y = torch.randn(2, 1, 64, 3, 3).bfloat16()
    exact = cosine_affinity(x.double().float(), y.double().float())
    with torch.autocast("cpu", torch.bfloat16):
        found = cosine_affinity(x, y)
    assert found.dtype == torch.float32 and torch.equal(found, exact)


def test_a_cosine_lies_between_minus_one_and_one_and_zeros_are_no_nan():
    x = torch.randn(1, 3, 2, 2)
    x[..., 0, 0] = 0
    affinity = cosine_affinity(x, x)
    assert affinity.isfinite().all() and affinity.abs().max() <= 1 + 1e-6
    assert torch.allclose(affinity.diagonal(dim1=1, dim2=2)[0, 1:], torch.ones(3))
