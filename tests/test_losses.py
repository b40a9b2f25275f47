"""Losses: golden numbers of the originals, and laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from golden import assert_close, case, filling
from models.parts.losses import cross_entropy, hard_pixels
from models.single import SingleFrame
from toys import ToyBackbone


@pytest.fixture(scope="module")
def etc():
    """Inputs and results of ETC's cross entropies."""
    data, fill = case("etc/loss_ce"), filling()
    data.weight = torch.tensor(data.info["config"]["class_weights"], dtype=torch.float64)
    data.label = torch.from_numpy(data.arrays["in_label"]).long()
    for name, shape in (
        ("ce_logits", (2, 19, 9, 17)),
        ("ce_dsn", (2, 19, 9, 17)),
        ("ce_full_x", (2, 19, 33, 65)),
    ):
        setattr(data, name, (2.0 * fill.image(name, shape)).requires_grad_())
    return data


def up(logits, label):
    return F.interpolate(logits, label.shape[-2:], mode="bilinear", align_corners=True)


# Name in the case: weighted, factor of the auxiliary head, OHEM of the main and of that head
DEEPLY_SUPERVISED = {
    "dsn_weighted": (True, 0.4, None, None),
    "dsn_unweighted": (False, 0.4, None, None),
    "dsn_weight1": (True, 1.0, None, None),
    "ce_weighted": (True, 0.0, None, None),
    "ohem_dsn": (True, 0.4, (0.2, 2000), (0.2, 2000)),
    "ohem_dsn_default": (True, 0.4, (0.7, 100000), (0.7, 100000)),
    "ohem_dsn_single": (True, 0.4, (0.2, 2000), None),
}


@pytest.mark.parametrize("name", DEEPLY_SUPERVISED)
def test_deeply_supervised_cross_entropy_is_that_of_etc(etc, name):
    weighted, factor, *ohem = DEEPLY_SUPERVISED[name]
    weight = etc.weight if weighted else None
    main, aux = (
        cross_entropy(up(logits, etc.label), etc.label, weight, ohem=hard)
        for logits, hard in zip((etc.ce_logits, etc.ce_dsn), ohem, strict=True)
    )
    loss = main + factor * aux
    assert_close(loss, etc.arrays[f"f64_{name}"], 1e-5)
    for gradient, which in zip(
        torch.autograd.grad(loss, (etc.ce_logits, etc.ce_dsn)), ("logits", "dsn"), strict=True
    ):
        assert_close(gradient, etc.arrays[f"{name}_grad_{which}"], 1e-3)


@pytest.mark.parametrize(
    "name, weighted, ohem",
    [
        ("crossentropy2d", False, None),
        ("ohem2d_weighted_t0.3_k500", True, (0.3, 500)),
        ("ohem2d_unweighted_t0.6_k0", False, (0.6, 0)),
        ("ohem2d_weighted_t0.01_k1500", True, (0.01, 1500)),
    ],
)
def test_cross_entropy_at_label_size_is_that_of_etc(etc, name, weighted, ohem):
    label = torch.from_numpy(etc.arrays["in_full_label"]).long()
    loss = cross_entropy(etc.ce_full_x, label, etc.weight if weighted else None, ohem=ohem)
    assert_close(loss, etc.arrays[f"f64_{name}"], 1e-5)
    assert_close(torch.autograd.grad(loss, etc.ce_full_x)[0], etc.arrays[f"{name}_grad"], 1e-3)


def test_every_result_of_the_case_is_compared(etc):
    compared = {
        *DEEPLY_SUPERVISED,
        "crossentropy2d",
        "ohem2d_weighted_t0.3_k500",
        "ohem2d_unweighted_t0.6_k0",
        "ohem2d_weighted_t0.01_k1500",
    }
    assert {name.removeprefix("f64_") for name in etc.arrays if name.startswith("f64_")} == compared


def test_the_weighted_mean_divides_by_the_weights_of_labelled_pixels():
    logits, labels = torch.randn(2, 5, 4, 6), torch.randint(0, 5, (2, 4, 6))
    labels[0, :2] = 255
    weight = torch.rand(5) + 0.1
    expected = F.cross_entropy(logits, labels, weight, ignore_index=255)
    torch.testing.assert_close(cross_entropy(logits, labels, weight), expected)
    torch.testing.assert_close(
        cross_entropy(logits, labels, weight, mean="all"),
        F.cross_entropy(logits, labels, weight, ignore_index=255, reduction="none").mean(),
    )


def test_a_batch_without_labels_teaches_nothing_and_breaks_nothing():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().max() == 0


def test_hard_pixels_are_those_below_the_threshold_or_the_kept_hardest():
    logits, labels = torch.randn(1, 4, 8, 8), torch.randint(0, 4, (1, 8, 8))
    labels[0, 0] = 255
    probability = logits.softmax(1).gather(1, labels.where(labels != 255, 0)[:, None])[0, 0]
    order = probability[labels[0] != 255].sort().values
    assert hard_pixels(logits, labels, 1.0, 10**6).sum() == 56, "fewer labelled than kept: all"
    assert hard_pixels(logits, labels, 1e-9, 10).sum() == 10
    assert torch.equal(
        hard_pixels(logits, labels, float(order[20]), 10)[0],
        (probability <= order[20]) & (labels[0] != 255),
    )
    assert hard_pixels(logits, labels, 1e-9, 0).sum() == 0, "none kept: the threshold stands"


def test_ohem_and_the_auxiliary_head_come_from_options():
    import main
    from models import build_model

    clip, labels = torch.rand(2, 1, 3, 40, 40), torch.randint(0, 3, (2, 1, 40, 40))
    words = ["--training", "--method", "single", "--backbone", "psp18", "--savedir", "unused"]
    hard = build_model(main.parse_args([*words, "--ohem", "0.7", "100"]), 3)
    assert set(hard.eval().losses(clip, labels)) == {"ce", "aux"}
    without = build_model(main.parse_args([*words, "--aux-weight", "0"]), 3)
    assert set(without.losses(clip, labels)) == {"ce"}
    sum(without.losses(clip, labels).values()).backward()
    assert all(p.grad is not None for p in without.parameters() if p.requires_grad), (
        "DDP waits for every gradient"
    )


def test_an_unknown_mean_is_refused():
    with pytest.raises(ValueError, match="'valid' or 'all', got 'sum'"):
        cross_entropy(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long), mean="sum")


def test_single_adds_the_weighted_auxiliary_loss_and_trains_heads_faster():
    model = SingleFrame(ToyBackbone(4), aux_weight=0.4, head_lr=10.0)
    clip, labels = torch.rand(2, 1, 3, 16, 24), torch.randint(0, 4, (2, 1, 16, 24))
    losses = model.eval().losses(clip, labels)
    auxiliary = model.backbone.auxiliary(model.backbone.encode(clip[:, -1]))
    torch.testing.assert_close(losses["aux"], 0.4 * model.cross_entropy(auxiliary, labels[:, -1]))
    torch.testing.assert_close(losses["ce"], model.cross_entropy(model(clip), labels[:, -1]))
    encoder, head = model.parameter_groups(0.1, 1e-4)
    assert (encoder["lr"], head["lr"]) == (0.1, 1.0)
    assert {id(p) for p in encoder["params"]} == {
        id(p) for p in model.backbone.encoder.parameters()
    }
    assert len(encoder["params"]) + len(head["params"]) == len(list(model.parameters()))
    assert set(SingleFrame(ToyBackbone(4)).losses(clip, labels)) == {"ce"}


def test_class_weights_reach_the_loss():
    model = SingleFrame(ToyBackbone(4)).eval()
    clip, labels = torch.rand(1, 1, 3, 16, 16), torch.randint(0, 4, (1, 1, 16, 16))
    plain = model.losses(clip, labels)["ce"].item()
    model.class_weights = torch.tensor([10.0, 0.1, 0.1, 0.1])
    assert not np.isclose(model.losses(clip, labels)["ce"].item(), plain, rtol=1e-3)
