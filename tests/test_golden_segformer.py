"""SegFormer computes what the originals compute, from files as the originals save them."""

import pytest
import torch

from golden import assert_close, case, filling, weights, without_normalization
from models.backbones.segformer import MiTB0, MiTB1, MiTB2, MiTB3, MiTB4, MiTB5
from models.single import SingleFrame
from utils.checkpoint import load_weights

SIZES = (MiTB0, MiTB1, MiTB2, MiTB3, MiTB4, MiTB5)


@pytest.mark.parametrize("name, cls", [("b0_64x96", MiTB0), ("b1_64x64", MiTB1)])
@torch.no_grad()
def test_encoders(name, cls):
    golden = case(f"mrcfa/backbone_{name}")
    ((image, shape),) = golden.info["inputs"].items()
    backbone = without_normalization(cls(5)).eval()
    state = weights(golden.info, "backbone.")
    left = backbone.load_state_dict(state, strict=False)
    assert not left.unexpected_keys
    assert all(key.startswith("linear_") for key in left.missing_keys)
    features = backbone.encode(filling().image(image, shape))
    # A wrong eps moves these by 1e-6 to 7e-5
    for stage, stored in zip(features.stages, ("c1", "c2", "c3", "c4"), strict=True):
        assert_close(stage, golden.arrays[stored], 1e-5)
    assert features.last is features.stages[-1]


@pytest.mark.parametrize("name, cls", [("b0_64x96", MiTB0), ("b1_64x64", MiTB1)])
@torch.no_grad()
def test_single_frame_networks_with_a_group_norm(name, cls, tmp_path):
    golden = case(f"mrcfa/segformer_{name}")
    ((image, shape),) = golden.info["inputs"].items()
    path = tmp_path / "iter_160000.pth"
    content = {"meta": {"iter": 160000}, "state_dict": weights(golden.info), "optimizer": {}}
    torch.save(content, path)
    model = SingleFrame(cls(124)).eval()
    report = load_weights(model, path, complete=True)
    assert report.unused == ("decode_head.conv_seg.weight", "decode_head.conv_seg.bias")
    assert report.new == ()
    logits = without_normalization(model)(filling().image(image, shape)[:, None])
    assert_close(logits, golden.arrays["logits"])


@pytest.mark.parametrize("size", range(6))
def test_published_key_lists_of_the_encoder_and_of_the_head(size):
    """MRCFA's files hold SegFormer's network among others; its head is 256 wide in all sizes."""
    published = case(f"mrcfa/state_dict_b{size}").info["state_dict"]
    alone = ("backbone.", "decode_head.linear_", "decode_head.conv_seg.")
    listed = {key: shape for key, shape in published.items() if key.startswith(alone)}
    with torch.device("meta"):
        model = SingleFrame(SIZES[size](124, head_channels=256))
    renamed = model.key_maps()[0].rename(listed)
    assert renamed.unexpected == ()
    assert renamed.unused == ("decode_head.conv_seg.weight", "decode_head.conv_seg.bias")
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert {key: listed[source] for key, source in renamed.ours.items()} == shapes
