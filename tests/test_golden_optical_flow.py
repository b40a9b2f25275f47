"""Flow networks and warping compute what the originals compute, and RAFT what torchvision does."""

import os
import re

import pytest
import torch

from golden import SHARED, assert_close, case, filling, weights
from models.ops.warp import warp
from models.optical_flow import RAFT, FlowNetS, LightFlow
from utils.checkpoint import load_weights, read


def real_file(name: str):
    """A file of real weights; absent, the test is skipped, under CI it fails."""
    path = SHARED / "weights" / name
    if not path.is_file():
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing(f"there is no {path}")
    return path


def golden_network(network, name: str, tmp_path):
    """The case's network from a file as the original saves it; its two small frames."""
    golden = case(f"flow/{name}")
    path = tmp_path / "flow.pth.tar"
    torch.save(weights(golden.info), path)
    report = load_weights(network, path, complete=True)
    assert report.loaded == len(golden.info["state_dict"])
    frames = [filling().image(image, shape) for image, shape in golden.info["inputs"].items()]
    return golden, network.eval(), frames


@torch.no_grad()
def test_the_light_network(tmp_path):
    golden, network, (frame, previous) = golden_network(LightFlow(), "flow_light_64x128", tmp_path)
    assert_close(network.estimate(frame, previous), golden.arrays["flow"])
    assert_close(network.displacement(frame, previous), golden.arrays["flow_resized"] / 4)


@torch.no_grad()
def test_flownets(tmp_path):
    golden, network, (previous, frame) = golden_network(FlowNetS(), "flownets_128x256", tmp_path)
    assert_close(network.estimate(frame, previous), golden.arrays["flow"])
    assert_close(network.displacement(frame, previous), golden.arrays["flow_resized"] / 4)


MOTIONS = ("zero", "int", "frac", "oob", "rand")


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("align_corners", [True, False])
def test_warping(motion, align_corners):
    golden = case("flow/warp_12x20")
    arrays = {name: torch.from_numpy(array) for name, array in golden.arrays.items()}
    found = warp(arrays["feat"], arrays[f"flow_{motion}"] / 4, align_corners)
    assert_close(found, arrays[f"warp_{motion}_align{align_corners}"])


def test_no_case_of_warping_is_left_out():
    names = {name for name in case("flow/warp_12x20").arrays if name.startswith("flow_")}
    assert names == {f"flow_{motion}" for motion in MOTIONS}


@pytest.mark.parametrize("name, network", [("flow_light", LightFlow), ("flownets", FlowNetS)])
def test_entries_are_named_and_shaped_as_published(name, network):
    published = case("flow/state_dicts").info[name]
    ours = {key: list(value.shape) for key, value in network().state_dict().items()}
    assert ours == published


def test_the_published_propagation_checkpoint_fills_the_light_network():
    path = real_file("cityscapes-swnet_model_best.pth.tar")
    network = LightFlow()
    report = load_weights(network, path, complete=True)
    assert (report.loaded, report.new) == (51, ())
    assert len(report.unused) == 59  # the filter, which another network reads
    for key, tensor in read(path)["state_dict_of"].items():
        assert torch.equal(network.state_dict()[key], tensor)


# Written down independently of the key map: beginnings of princeton-vl's names, then parts.
THEIRS_TO_TORCHVISION = (
    ("module.fnet.", "feature_encoder."),
    ("module.cnet.", "context_encoder."),
    ("module.update_block.", "update_block."),
    ("encoder.convc1.", "motion_encoder.convcorr1.0."),
    ("encoder.convf1.", "motion_encoder.convflow1.0."),
    ("encoder.convf2.", "motion_encoder.convflow2.0."),
    ("block.encoder.conv.", "block.motion_encoder.conv.0."),
    ("gru.conv", "recurrent_block.convgru1.conv"),
    ("encoder.conv1.", "encoder.convnormrelu.0."),
    ("encoder.conv2.", "encoder.conv."),
)


def torchvision_name(key: str) -> str:
    for theirs, ours in THEIRS_TO_TORCHVISION:
        key = key.replace(theirs, ours)
    return re.sub(r"(layer\d\.\d)\.conv(\d)", r"\1.convnormrelu\2.0", key)


def picture(height: int, width: int) -> torch.Tensor:
    """A smooth random texture (1, 3, height, width) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, height // 4, width // 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


@pytest.fixture(scope="module")
def raft():
    network = RAFT("small")
    report = load_weights(network, real_file("raft-small.pth"), complete=True)
    assert (report.loaded, report.new, report.unused) == (106, (), ())
    assert report.maps == ("princeton-vl's RAFT",)
    return network


def test_weights_of_raft_s_authors_give_torchvision_s_flow_bit_for_bit(raft):
    from torchvision.models.optical_flow import raft_small

    published = read(real_file("raft-small.pth"))
    theirs = raft_small(weights=None).eval()
    theirs.load_state_dict({torchvision_name(key): value for key, value in published.items()})
    frame = picture(136, 160)
    previous = picture(140, 164)[..., 4:, 4:]
    with torch.no_grad():
        expected = theirs(2 * frame - 1, 2 * previous - 1, num_flow_updates=12)[-1]
    assert torch.equal(raft(frame, previous), expected)


@pytest.mark.parametrize("size", [(128, 160), (131, 157), (96, 120), (40, 200)])
def test_raft_sees_a_picture_move(raft, size):
    """Also at sizes that it does not take by itself."""
    height, width = size
    whole = picture(height + 8, width + 8)[..., : height + 3, : width + 3]
    # The frame is the previous one, moved by 3 to the left and 2 up.
    frame = whole[..., 2 : height + 2, 3 : width + 3]
    previous = whole[..., :height, :width]
    flow = raft(frame, previous)
    assert flow.shape == (1, 2, *size)
    inner = flow[..., 16:-16, 16:-16].mean((0, 2, 3))
    assert (inner - torch.tensor([3.0, 2.0])).abs().max() < 0.3


def test_raft_learns_little_from_more_than_six_iterations(raft):
    frame = picture(144, 160)[..., :128, 3:147]
    previous = picture(144, 160)[..., :128, :144]
    quick = RAFT("small", iterations=6)
    quick.load_state_dict(raft.state_dict())
    difference = quick(frame, previous) - raft(frame, previous)
    assert 0 < difference.abs().mean() < 0.2
