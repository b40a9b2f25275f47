"""Every way to compute optical flow, and its options (models/optical_flow)."""

import copy
import importlib.util
import json
import pickle
import re
import threading
from argparse import Namespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from command import ROOT
from models.keymaps import KeyMap
from models.optical_flow import BUILDERS, DIS, RAFT, FlowNetS, LightFlow, build_flow, dis
from models.parts.frozen import Frozen
from options import jobs
from options.optical_flow import FLOW, FLOWS, PRESETS, RAFTS, flow_name
from options.parser import make_parser
from utils.checkpoint import load_weights

NETWORKS = {"light": LightFlow, "flownets": FlowNetS}


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """A smooth random texture (1, 3, height, width) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 4 + 1, width // 4 + 1, generator=generator)
    return F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def moving_pair(height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A frame and the one before it: its content came from 3 to the right, 2 below."""
    whole = picture(height + 4, width + 4, seed)
    return whole[..., 2 : height + 2, 3 : width + 3], whole[..., :height, :width]


def error(flow: Tensor, margin: int = 8) -> float:
    """The mean error of the flow of a moving pair, away from the border, in pixels."""
    inner = flow[..., margin:-margin, margin:-margin]
    expected = torch.tensor([3.0, 2.0]).view(2, 1, 1)
    return float((inner - expected).norm(dim=1).mean())


def options(*words: str) -> Namespace:
    """Parsed options of a method with flow."""
    args = make_parser((jobs.GROUP, FLOW.completed())).parse_args(["--inference", *words])
    args.flow = flow_name(args)
    return args


# All providers


@pytest.mark.parametrize("name", [name for name in FLOWS if name not in ("raft_large", "given")])
def test_every_provider_takes_any_size_and_gives_finite_flow_over_it(name):
    provider = build_flow(options("--flow", name, "--raft-iterations", "1")).eval()
    for size in [(1, 1), (5, 40), (12, 300), (37, 53), (64, 96)]:
        frame = torch.rand(2, 3, *size)
        with torch.no_grad():
            flow = provider(frame, torch.rand(2, 3, *size))
        assert flow.shape[:2] == (2, 2), size
        assert flow.isfinite().all(), size


@pytest.mark.parametrize("name", ["light", "flownets", "raft_small", "dis"])
def test_frames_of_two_sizes_are_refused(name):
    provider = build_flow(options("--flow", name))
    with pytest.raises(ValueError, match=r"of one size, got \(1, 3, 32, 48\) and \(1, 3, 32, 40\)"):
        provider(torch.rand(1, 3, 32, 48), torch.rand(1, 3, 32, 40))


@pytest.mark.parametrize("name", ["light", "dis"])
def test_a_batch_gets_what_each_frame_gets_alone(name):
    provider = build_flow(options("--flow", name)).eval()
    pairs = [moving_pair(48, 104, seed) for seed in (0, 1)]
    frames, previous = (torch.cat(side) for side in zip(*pairs, strict=True))
    together = provider(frames, previous)
    for i, pair in enumerate(pairs):
        torch.testing.assert_close(together[i : i + 1], provider(*pair))


# SwNet-seq's networks


@pytest.mark.parametrize("name", NETWORKS)
def test_a_displacement_in_cells_is_flow_in_pixels_of_the_frame(name):
    network = NETWORKS[name]().eval()
    frame, previous = torch.rand(2, 1, 3, 96, 180)  # 22 cells of 180 / 22 pixels across
    with torch.no_grad():
        cells = network.displacement(network.shrink(frame), network.shrink(previous))
        pixels = network(frame, previous)
    assert cells.shape == (1, 2, 12, 22)
    torch.testing.assert_close(pixels[:, 0], cells[:, 0] * 180 / 22)
    torch.testing.assert_close(pixels[:, 1], cells[:, 1] * 8)


@pytest.mark.parametrize("name", NETWORKS)
def test_flow_is_in_full_precision_where_the_network_computes_in_half(name):
    network = NETWORKS[name]().eval()
    frame, previous = torch.rand(2, 1, 3, 64, 96)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert network(frame, previous).dtype == torch.float32


def test_shrunk_frames_are_blue_first_and_normalised_as_published():
    frame = torch.rand(1, 3, 16, 24)
    blue_first = (frame * 255).flip(1)
    mean = torch.tensor([72.3, 82.90, 73.15]).view(3, 1, 1)
    std = torch.tensor([47.73, 48.49, 47.67]).view(3, 1, 1)
    normalised = (blue_first - mean) / std
    expected = F.interpolate(normalised, (2, 3), mode="bilinear", align_corners=True)
    torch.testing.assert_close(LightFlow().shrink(frame), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_all_of_a_flow_network_can_be_trained(name):
    network = NETWORKS[name]()
    frame, previous = torch.rand(2, 2, 3, 64, 96)
    network(frame, previous).square().mean().backward()
    without = [key for key, p in network.named_parameters() if p.grad is None]
    assert not without


def test_a_small_frame_for_flownets_is_enlarged_and_its_flow_made_smaller():
    network = FlowNetS().eval()
    nn.init.zeros_(network.predict_flow2.weight)
    network.predict_flow2.bias.data = torch.tensor([8.0, 16.0])  # 2 and 4 cells
    with torch.no_grad():
        found = network.displacement(*torch.rand(2, 1, 3, 4, 16))
    # Four rows were made eight: two cells of these are one.
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([2.0, 2.0]))


def test_a_file_of_flownets_without_biases_of_flow_leaves_them_zero(tmp_path):
    source = FlowNetS()
    state = {k: v for k, v in source.state_dict().items() if not re.match(r"upsampled.+bias", k)}
    torch.save(state, tmp_path / "flownet.pth.tar")
    network = FlowNetS()
    report = load_weights(network, tmp_path / "flownet.pth.tar")
    assert len(report.new) == 4
    assert torch.equal(network.conv6[0].weight, source.conv6[0].weight)


# RAFT


@pytest.mark.parametrize("size, entries", [("small", 106), ("large", 169)])
def test_torchvision_s_own_weights_of_raft_load_whole(tmp_path, size, entries):
    source = RAFT(size)
    torch.save(source.network.state_dict(), tmp_path / "raft.pth")
    network = RAFT(size)
    report = load_weights(network, tmp_path / "raft.pth", complete=True)
    assert report.maps == ("torchvision's RAFT",)
    assert report.loaded == entries
    for key, tensor in source.state_dict().items():
        assert torch.equal(network.state_dict()[key], tensor)


# Beginnings and parts of names: torchvision's, princeton-vl's
PRINCETON_NAMES = (
    ("feature_encoder.convnormrelu.0", "fnet.conv1"),
    ("feature_encoder.conv.", "fnet.conv2."),
    ("feature_encoder", "fnet"),
    ("context_encoder.convnormrelu.0", "cnet.conv1"),
    ("context_encoder.convnormrelu.1", "cnet.norm1"),
    ("context_encoder.conv.", "cnet.conv2."),
    ("context_encoder", "cnet"),
    ("motion_encoder.convcorr1.0", "encoder.convc1"),
    ("motion_encoder.convcorr2.0", "encoder.convc2"),
    ("motion_encoder.convflow1.0", "encoder.convf1"),
    ("motion_encoder.convflow2.0", "encoder.convf2"),
    ("motion_encoder.conv.0", "encoder.conv"),
    ("mask_predictor.convrelu.0", "update_block.mask.0"),
    ("mask_predictor.conv.", "update_block.mask.2."),
)


def princeton_name(key: str) -> str:
    for ours, theirs in PRINCETON_NAMES:
        key = key.replace(ours, theirs)
    key = re.sub(r"convnormrelu([12])\.0", r"conv\1", key)
    key = re.sub(r"convnormrelu([12])\.1", r"norm\1", key)
    return "module." + re.sub(r"recurrent_block\.convgru([12])\.(conv.)", r"gru.\2\1", key)


def test_the_large_raft_of_its_authors_loads_whole(tmp_path):
    """Its file names one batch norm of each block twice."""
    source = RAFT("large")
    state = {princeton_name(k): v for k, v in source.network.state_dict().items()}
    twice = {k.replace("downsample.1", "norm3"): v for k, v in state.items()}
    torch.save(state | twice, tmp_path / "raft-things.pth")
    network = RAFT("large")
    report = load_weights(network, tmp_path / "raft-things.pth", complete=True)
    assert report.maps == ("princeton-vl's RAFT",)
    assert (report.loaded, len(report.unused)) == (169, 10)
    for key, tensor in source.state_dict().items():
        assert torch.equal(network.state_dict()[key], tensor), key


def test_raft_is_never_trained_and_keeps_nothing_of_a_frame():
    network = RAFT("small", iterations=1).train()
    assert not any(module.training for module in network.modules())
    assert not any(p.requires_grad for p in network.parameters())
    frame, previous = torch.rand(2, 1, 3, 128, 136)
    assert not network(frame.requires_grad_(), previous).requires_grad
    assert network.network.corr_block.corr_pyramid == []


def test_raft_computes_in_full_precision_under_autocast():
    network = RAFT("small", iterations=2)
    frame, previous = torch.rand(2, 1, 3, 128, 136)
    expected = network(frame, previous)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(frame, previous), expected)


# A frozen network within a method


class Segmenter(nn.Module):
    """A method with a part that is trained and RAFT, which is not."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 1)
        self.optical_flow = Frozen(RAFT("small", iterations=1))

    def key_maps(self) -> list[KeyMap]:
        return [table.prefixed("optical_flow.") for table in self.optical_flow.key_maps()]


def test_each_of_two_files_fills_its_part(tmp_path):
    source = Segmenter()
    torch.save(source.state_dict(), tmp_path / "segmenter.pth")
    torch.save(source.optical_flow.frozen.network.state_dict(), tmp_path / "raft.pth")
    model = Segmenter()
    files = [tmp_path / "segmenter.pth", tmp_path / "raft.pth"]
    report = load_weights(model, files, complete=True)
    assert report.maps == ("our names", "torchvision's RAFT")
    assert (report.loaded, report.new) == (108, ())
    assert torch.equal(model.backbone.weight, source.backbone.weight)
    frame, previous = torch.rand(2, 1, 3, 128, 128)
    found = model.optical_flow(frame, previous)
    assert torch.equal(found, source.optical_flow(frame, previous))


def test_a_checkpoint_need_not_hold_what_is_frozen_below_a_part_that_is_trained(tmp_path):
    model = nn.ModuleDict({"head": nn.ModuleDict({"teacher": Frozen(nn.Linear(2, 2))})})
    model["head"]["own"] = nn.Linear(2, 2)
    torch.save(model.state_dict(), tmp_path / "head.pth")
    report = load_weights(model, tmp_path / "head.pth", complete=True)
    assert report.loaded == 2
    assert report.new == ("head.teacher.frozen.weight", "head.teacher.frozen.bias")


def test_without_the_file_of_raft_a_method_is_not_complete(tmp_path):
    torch.save(Segmenter().state_dict(), tmp_path / "segmenter.pth")
    report = load_weights(Segmenter(), tmp_path / "segmenter.pth")
    assert report.loaded == 2
    with pytest.raises(ValueError, match=r"not complete without 106 \(optical_flow\.frozen"):
        load_weights(Segmenter(), tmp_path / "segmenter.pth", complete=True)


# DIS


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", [(48, 64), (40, 160), (120, 160)])
def test_dis_sees_a_picture_move(preset, size):
    assert error(DIS(preset)(*moving_pair(*size))) < 0.5


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", [(1, 1), (37, 53), (96, 128)])
def test_where_nothing_can_be_matched_flow_is_zero(preset, size):
    dark = torch.full((1, 3, *size), 0.2)
    assert DIS(preset)(dark, dark).abs().max() == 0
    assert DIS(preset)(dark, dark + 0.5).abs().max() == 0


def test_tiny_frames_do_not_change_what_later_frames_get():
    """OpenCV's object changes its own settings on them."""
    provider = DIS("fast")
    pair = moving_pair(96, 160)
    before = provider(*pair)
    for size in [(4, 4), (12, 12), (33, 40)]:
        provider(*torch.rand(2, 1, 3, *size))
    assert torch.equal(provider(*pair), before)


def test_dis_works_in_several_threads_at_once():
    provider = DIS("ultrafast")
    pairs = [moving_pair(96, 160, seed) for seed in range(4)]
    expected = [provider(*pair) for pair in pairs]
    found = {}

    def work(i):
        found[i] = [provider(*pairs[i]) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, flow in enumerate(expected):
        assert all(torch.equal(flow, other) for other in found[i])


def test_dis_can_be_copied_and_pickled_after_it_has_worked():
    provider = DIS("ultrafast")
    pair = moving_pair(64, 96)
    flow = provider(*pair)
    for other in (copy.deepcopy(provider), pickle.loads(pickle.dumps(provider))):
        assert torch.equal(other(*pair), flow)


def test_a_frame_in_half_precision_gets_nearly_the_same_flow():
    pair = moving_pair(64, 96)
    flow = DIS()(*(frame.half() for frame in pair))
    assert flow.dtype == torch.float32
    assert error(flow) < 0.5


def test_a_preset_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="ultrafast, fast, medium, not slow"):
        DIS("slow")


# Options


def test_what_the_options_offer_is_what_exists():
    assert set(FLOWS) == set(BUILDERS)
    assert PRESETS == dis.PRESETS
    assert set(RAFTS) < set(FLOWS)


def test_flow_without_a_choice_is_dis():
    provider = build_flow(options())
    assert isinstance(provider, DIS)
    assert provider.preset == "fast"


def test_options_reach_their_provider():
    assert build_flow(options("--dis-preset", "medium")).preset == "medium"
    raft = build_flow(options("--flow", "raft_small", "--raft-iterations", "5"))
    assert raft.iterations == 5
    assert isinstance(build_flow(options("--flow", "light")), LightFlow)
    assert isinstance(build_flow(options("--flow", "flownets")), FlowNetS)


def test_given_flow_has_no_provider():
    assert build_flow(options("--flow", "given", "--flow-root", "somewhere")) is None


# Tables of published names, and what flow costs


@pytest.mark.parametrize("network", [LightFlow, FlowNetS, RAFT])
def test_a_file_with_an_entry_that_nobody_knows_is_refused(tmp_path, network):
    model = network()
    torch.save(model.state_dict() | {"conv7.0.weight": torch.zeros(1)}, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"1 unknown to the model \(conv7\.0\.weight\)"):
        load_weights(model, tmp_path / "odd.pth")


def test_a_file_of_the_light_network_that_lacks_a_layer_is_refused(tmp_path):
    state = {f"state_dict_of.{key}": value for key, value in LightFlow().state_dict().items()}
    del state["state_dict_of.toflow.bias"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(ValueError, match=r"1 missing \(toflow\.bias\)"):
        load_weights(LightFlow(), tmp_path / "short.pth")


def test_the_benchmark_times_every_provider(tmp_path):
    spec = importlib.util.spec_from_file_location(
        "benchmark_optical_flow", ROOT / "benchmarks" / "optical_flow.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path = tmp_path / "flow.json"
    result = module.run(["--tiny", "--rounds", "1", "--json", str(path)])
    assert set(result["providers"]) == set(module.PROVIDERS) - set(module.SLOW)
    rows = [*result["providers"].values(), *result["use"].values()]
    assert all(row["wall_ms"] > 0 for row in rows)
    assert json.loads(path.read_text())["environment"]["cpu"]
