"""TMANet computes what the original computes, from files as the original saves them."""

import re

import pytest
import torch
import torch.nn.functional as F

import main
from golden import ROOT, assert_close, case, filling, weights, without_normalization
from models import build_model
from models.backbones.backbone import Features
from models.tma import TMANET, at_positions
from utils.checkpoint import load_weights
from utils.views import Views


def names(beginning: str) -> list[str]:
    return (
        sorted(path.stem for path in (ROOT / "tma").glob(f"{beginning}_*.json"))
        if ROOT.is_dir()
        else []
    )


def network(golden, dataset: str = "cityscapes"):
    """The case's network as built, without its weights."""
    config = golden.info["config"]
    head = config.get("decode_head", config)
    classes, frames = head["num_classes"], head["sequence_num"]
    align = "--align-corners" if head["align_corners"] else "--no-align-corners"
    args = main.parse_args(
        [
            "--training",
            "--method",
            "tma",
            "--backbone",
            "r50v1c",
            "--dataset",
            dataset,
            align,
            "--stm-queue-size",
            str(frames),
            "--key-channels",
            str(head["key_channels"]),
            "--value-channels",
            str(head["value_channels"]),
            "--savedir",
            "unused",
        ]
    )
    return build_model(args, classes)


def loaded(golden, tmp_path, dataset: str = "cityscapes"):
    """The same, loaded from a file as mmcv's runner writes it."""
    path = tmp_path / "iter_80000.pth"
    torch.save(
        {"meta": {"epoch": 1, "iter": 80000}, "state_dict": weights(golden.info), "optimizer": {}},
        path,
    )
    model = network(golden, dataset)
    report = load_weights(model, path)
    assert report.loaded == len(golden.info["state_dict"]) and not report.unused and not report.new
    return without_normalization(model).eval()


def clip_of(golden, name: str, suffix: str = "") -> torch.Tensor:
    """Memory, oldest first, and the frame to label: (B, T + 1, 3, H, W)."""
    image, sequence = (
        filling().image(f"{name}/{what}{suffix}", golden.info["inputs"][f"{name}/{what}{suffix}"])
        for what in ("img", "seq")
    )
    return torch.cat([sequence, image[:, None]], 1)


@pytest.mark.parametrize("name", names("head") or ["head_t2_7x13_b2"])
@torch.no_grad()
def test_heads(name):
    golden = case(f"tma/{name}")
    prefix, scale = golden.info["seed_prefix"], golden.info["input_scale"]
    model, inputs = network(golden).eval(), golden.info["inputs"]
    renamed = TMANET.rename([prefix + key for key in golden.info["state_dict"]])
    assert not renamed.unexpected and not renamed.unused
    state = weights(golden.info, prefix)
    state = {ours: state[theirs.removeprefix(prefix)] for ours, theirs in renamed.ours.items()}
    left = model.load_state_dict(state, strict=False)
    assert not left.unexpected_keys and all(
        key.startswith("backbone.") for key in left.missing_keys
    )
    query, *memory = (filling().image(key, shape) * scale for key, shape in inputs.items())
    seen = []
    model.decoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    assert_close(model.predict(Features(query), tuple(memory)), golden.arrays["logits"])
    value, read = seen[0].chunk(2, 1)
    assert_close(
        torch.stack(at_positions(model.memory_key_conv, tuple(memory))),
        golden.arrays["memory_keys"],
    )
    assert_close(model.query_key_conv(query), golden.arrays["query_key"])
    assert_close(value[:, ::4], golden.arrays["query_value"])
    assert_close(read, golden.arrays["read"])


@pytest.mark.parametrize("name", names("net") or ["net_city_t2_65x129_soft"])
@torch.no_grad()
def test_networks(name, tmp_path):
    golden = case(f"tma/{name}")
    model, clip = (
        loaded(golden, tmp_path, "camvid" if "camvid" in name else "cityscapes"),
        clip_of(golden, name),
    )
    low = model(clip)
    stride = -(-low.shape[-1] // golden.arrays["logits_low"].shape[-1])
    assert_close(low[..., ::stride, ::stride], golden.arrays["logits_low"])
    logits = model.upsample(low, clip.shape[-2:])
    stride = -(-logits.shape[-1] // golden.arrays["logits"].shape[-1])
    assert_close(logits[..., ::stride, ::stride], golden.arrays["logits"])
    assert_close(model.backbone.auxiliary(model.encode(clip[:, -1])), golden.arrays["aux_low"])
    agreement = (logits.argmax(1).numpy() == golden.arrays["pred"]).mean()
    assert agreement >= 0.999, "but where two classes are as good as equal"


@torch.no_grad()
def test_memory_in_another_order_is_another_function(tmp_path):
    """Else the cases above could not tell the order of positions."""
    golden = case("tma/net_city_t2_65x129_soft")
    model, clip = loaded(golden, tmp_path), clip_of(golden, "net_city_t2_65x129_soft")
    straight, turned = model(clip), model(clip[:, [1, 0, 2]])
    assert (straight - turned).abs().max() > 1e-2 * straight.abs().max()


@torch.no_grad()
def test_sliding_windows(tmp_path):
    golden = case("tma/slide_city_97x129")
    model, clip = loaded(golden, tmp_path), clip_of(golden, "slide_city_97x129")
    test = golden.info["config"]["test_cfg"]
    views = Views(
        model.size_rule,
        crop=test["crop_size"],
        stride=test["stride"],
        average="logits",
        small="whole",
        align_corners=True,
    )
    logits = views.plan(tuple(clip.shape[-2:])).run(
        lambda i, view: model.upsample(model(view), view.shape[-2:]), clip
    )
    assert_close(logits, golden.arrays["logits"])
    assert_close(
        model.upsample(logits, golden.info["ori_shape"][:2]).softmax(1), golden.arrays["prob"]
    )


@torch.no_grad()
def test_mirrored_and_scaled_images_are_averaged(tmp_path):
    golden = case("tma/tta_city")
    model, size = loaded(golden, tmp_path), golden.info["ori_shape"]
    found = []
    for suffix in ("0", "1"):
        clip = clip_of(golden, "tta_city", suffix)
        for mirrored in (False, True):
            logits = model(clip.flip(-1) if mirrored else clip)
            logits = model.upsample(model.upsample(logits, clip.shape[-2:]), size).softmax(1)
            found.append(logits.flip(-1) if mirrored else logits)
    assert_close(torch.stack(found).mean(0), golden.arrays["prob"])


@pytest.mark.parametrize("name", ["loss_eval_city_65x65", "loss_train_city_65x65_b2"])
def test_losses_gradients_and_running_statistics(name, tmp_path):
    golden, train = case(f"tma/{name}"), "train" in name
    model, clip = loaded(golden, tmp_path).train(train), clip_of(golden, name)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0
    labels = torch.full((*clip.shape[:2], *clip.shape[-2:]), 255)
    labels[:, -1] = torch.from_numpy(golden.arrays["label"]).long()[:, 0]
    losses = model.losses(clip, labels)
    assert_close(losses["ce"], golden.arrays["decode__loss_seg"])
    assert_close(losses["aux"], golden.arrays["aux__loss_seg"])
    sum(losses.values()).backward()
    parameters, state = dict(model.named_parameters()), model.state_dict()
    compared = 0
    for what, expected in golden.arrays.items():
        kind, _, key = what.partition("__")
        if kind == "gradnorm":
            found = parameters[ours(key)].grad.norm()
        elif what == "after__backbone_num_batches_tracked":
            found = state["backbone.stem.1.num_batches_tracked"]
        elif kind == "after":
            found = state[ours(key)]
        else:
            continue
        assert_close(found, expected, 5e-3 if train else 1e-3)
        compared += 1
    assert compared == (13 if train else 7)


def ours(key: str) -> str:
    """Our key of a published one whose dots are double underscores."""
    (name,) = TMANET.rename([key.replace("__", ".")]).ours
    return name


@pytest.mark.parametrize(
    "data, classes, frames, parameters",
    [("cityscapes", 19, 2, 32_112_006), ("camvid", 12, 4, 34_673_272)],
)
def test_published_networks_have_their_parameters_and_their_keys(data, classes, frames, parameters):
    words = ["--void-class"] if data == "camvid" else []
    args = main.parse_args(
        [
            "--training",
            "--method",
            "tma",
            "--backbone",
            "r50v1c",
            "--dataset",
            data,
            *words,
            "--savedir",
            "unused",
        ]
    )
    assert args.offsets == tuple(range(-frames, 0)) and args.align_corners == (data == "cityscapes")
    model = build_model(args, classes)
    assert sum(p.numel() for p in model.parameters()) == parameters
    published = case(f"tma/state_dict_{data}").info
    renamed = TMANET.rename(published)
    assert (
        not renamed.unexpected
        and not renamed.unused
        and set(renamed.ours) == set(model.state_dict())
    )
    assert all(
        list(value.shape) == published[renamed.ours[key]][0]
        for key, value in model.state_dict().items()
    )


def test_memory_is_the_frames_before_oldest_first():
    for name, samples in case("tma/memory_frames").info["cases"].items():
        dataset, frames = name.split("_")
        args = main.parse_args(
            [
                "--training",
                "--method",
                "tma",
                "--dataset",
                dataset,
                "--stm-queue-size",
                frames,
                "--savedir",
                "unused",
            ]
        )
        for image, _, memory in samples:
            number, *earlier = (
                int(re.findall(r"\d+", re.sub("_leftImg8bit", "", path))[-1])
                for path in (image, *memory)
            )
            assert tuple(x - number for x in earlier) == args.offsets


def test_the_score_of_a_read_is_not_scaled():
    """What one over the square root of 64 channels would do to the golden heads shows."""
    golden = case("tma/head_t2_7x13_b2")
    keys = torch.from_numpy(golden.arrays["memory_keys"])
    query = torch.from_numpy(golden.arrays["query_key"])
    logits = torch.einsum("bchw,tbcij->bhwtij", query, keys).flatten(3)
    assert not torch.allclose(logits.softmax(-1), F.softmax(logits / 8, -1), atol=1e-2)
