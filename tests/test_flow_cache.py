"""--flow-cache: flow that lies on disk is not computed again, and is the flow that was computed."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import torch

from command import TINY, assert_one_line, call, perform
from jobs.flow_cache import WholeFrames
from jobs.temporal import DataMotion
from models.optical_flow import DIS, RAFT, FlowCache, FlowProvider, LightFlow
from models.optical_flow.cache import fingerprint
from models.optical_flow.given import read_flow
from trees import make_cityscapes, make_folder
from utils import log

SIZE = (48, 64)


class Counted(FlowProvider):
    """Flow that depends on both frames and their order; counts the pairs that it computes."""

    def __init__(self):
        super().__init__()
        self.pairs = 0

    def forward(self, frame, previous):
        self.pairs += len(frame)
        return torch.stack([frame[:, 0] * 8.3 - previous[:, 0], previous[:, 1] - frame[:, 2]], 1)


def frames(count: int = 2, size=SIZE, seed: int = 0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 3, *size)).astype(np.float32) / 255
    return torch.from_numpy(images)


def cached(provider, folder, ending: str = ".npy"):
    provider.cache = FlowCache(folder, ending)
    return provider


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


# The law: it is the flow without a cache, and is computed once


@pytest.mark.parametrize("ending", [".npy", ".flo"])
def test_flow_is_that_without_a_cache_and_is_computed_once(ending, tmp_path):
    a, b = frames(2), frames(2, seed=1)
    plain = Counted()(a, b)
    first, second = cached(Counted(), tmp_path, ending), cached(Counted(), tmp_path, ending)
    found = first(a, b)
    assert torch.allclose(found, plain, rtol=2**-11, atol=1e-6)
    assert torch.equal(found, plain) == (ending == ".flo")
    assert torch.equal(second(a, b), found), "who finds a flow goes on as who computed it"
    assert (first.pairs, second.pairs) == (2, 0)
    assert {path.suffix for path in files(tmp_path)} == {ending}
    assert sum(path.stat().st_size for path in files(tmp_path)) < 2 * (
        (8 if ending == ".flo" else 4) * SIZE[0] * SIZE[1] + 200
    )


@pytest.mark.parametrize(
    "make", [lambda: DIS("fast"), lambda: RAFT("small", 2), LightFlow], ids=["DIS", "RAFT", "light"]
)
def test_every_provider_has_a_file_on_its_own_grid(make, tmp_path):
    torch.manual_seed(0)
    provider = make().eval()
    a, b = frames(1, (64, 96)), frames(1, (64, 96), seed=1)
    with torch.no_grad():
        plain = provider(a, b)
        found = cached(provider, tmp_path, ".flo")(a, b)
        again = provider(a, b)
    assert torch.equal(found, plain) and torch.equal(again, plain)
    (path,) = files(tmp_path)
    assert path.parent.name == "64x96" and path.parent.parent.name == provider.identity()


def test_only_the_pairs_of_a_batch_that_are_missing_are_computed(tmp_path):
    a, b = frames(3), frames(3, seed=1)
    provider = cached(Counted(), tmp_path)
    provider(a[1:2], b[1:2])
    whole = provider(a, b)
    assert provider.pairs == 3
    assert torch.allclose(whole, Counted()(a, b), rtol=2**-11, atol=1e-6)


# What is another key


def test_direction_size_content_and_format_are_keys(tmp_path):
    a, b = frames(1), frames(1, seed=1)
    provider = cached(Counted(), tmp_path)
    there = provider(a, b)
    back = provider(b, a)
    assert not torch.equal(there, back)
    provider(a[..., :32], b[..., :32])
    other = a.clone()
    other[0, 0, 0, 0] += 1 / 255
    provider(other, b)
    cached(provider, tmp_path, ".flo")(a, b)
    assert provider.pairs == 5 and len(files(tmp_path)) == 5


def test_preset_iterations_and_weights_are_keys():
    torch.manual_seed(0)
    raft, light = RAFT("small", 2), LightFlow()
    names = [DIS("fast").identity(), DIS("medium").identity(), raft.identity(), light.identity()]
    raft.iterations = 3
    names.append(raft.identity())
    with torch.no_grad():
        light.conv1[0].weight[0, 0, 0, 0] += 1e-6
    names.append(light.identity())
    with torch.autocast("cpu", torch.bfloat16):
        names.append(light.identity())
    assert len(set(names)) == 7
    assert DIS("fast").identity() == names[0] and not set("/\\ ") & set("".join(names))


def test_how_a_frame_lies_in_memory_is_no_key():
    frame = frames(1)[0]
    assert fingerprint(frame) == fingerprint(frame.permute(1, 2, 0).contiguous().permute(2, 0, 1))
    assert fingerprint(frame) != fingerprint(frame.flip(2))


# Files that cannot be used


def spoil_cut(path):
    path.write_bytes(path.read_bytes()[:-10])


def spoil_empty(path):
    path.write_bytes(b"")


def spoil_size(path):
    np.save(path, np.zeros((2, 5, 7), np.float16))


def spoil_nan(path):
    flow = read_flow(path)
    flow[0, 0, 0] = np.nan
    np.save(path, flow.astype(np.float16))


@pytest.mark.parametrize("spoil", [spoil_cut, spoil_empty, spoil_size, spoil_nan])
def test_a_bad_file_is_computed_anew_and_told_once(spoil, tmp_path, caplog):
    a, b = frames(2), frames(2, seed=1)
    provider = cached(Counted(), tmp_path)
    before = provider(a, b)
    for path in files(tmp_path):
        spoil(path)
    assert torch.equal(provider(a, b), before) and provider.pairs == 4
    assert len(caplog.records) == 1 and "computed anew" in caplog.text
    assert torch.equal(provider(a, b), before) and provider.pairs == 4, "it was mended"


def test_flow_that_half_precision_cannot_hold_is_not_kept(tmp_path):
    provider = cached(Counted(), tmp_path)
    huge = frames(1) * 1e6
    assert provider(huge, huge).isfinite().all()
    assert not files(tmp_path)


def test_a_folder_that_takes_no_file_ends_no_run(tmp_path, caplog):
    (tmp_path / "Counted-e3b0c44298fc").write_text("in the way of the method's folder")
    provider = cached(Counted(), tmp_path)
    a, b = frames(2), frames(2, seed=1)
    for _ in range(2):
        found = provider(a, b)
    assert torch.allclose(found, Counted()(a, b), rtol=2**-11, atol=1e-6)
    assert provider.pairs == 4 and "goes on without" in caplog.text


def test_several_may_write_the_same_file(tmp_path):
    a, b = frames(1), frames(1, seed=1)
    expected = cached(Counted(), tmp_path / "one")(a, b)
    wrong = []

    def work():
        for _ in range(20):
            provider = cached(Counted(), tmp_path / "many")
            for path in (tmp_path / "many").rglob("*.npy"):
                path.unlink(missing_ok=True)
            if not torch.equal(provider(a, b), expected) or provider.cache.told:
                wrong.append(provider.cache.told)

    (tmp_path / "many").mkdir()
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not [path for path in files(tmp_path) if path.name.startswith(".")]


def test_flow_of_a_network_that_learns_is_computed(tmp_path):
    a, b = frames(1, (64, 96)), frames(1, (64, 96), seed=1)
    provider = cached(LightFlow(), tmp_path)
    provider(a, b).sum().backward()
    assert provider.toflow.weight.grad is not None and not files(tmp_path)


# Runs


def counted_dis(monkeypatch) -> list:
    """Grows with every pair of frames of the data; networks are probed on smaller ones."""
    calls = []
    forward = DIS.forward

    def counted(self, frame, previous):
        calls.extend([1] * (tuple(frame.shape[-2:]) == SIZE))
        return forward(self, frame, previous)

    monkeypatch.setattr(DIS, "forward", counted)
    return calls


def evaluation(root, *words):
    return [
        *("--eval-mode", "--dataset", "folder", "--data-root", root, "--weights", root / "x.pth"),
        *("--threads", "1", "--device", "cpu", "--num-workers", "0", "--pictures", "0"),
        *("--backbone", "erf", "--metrics", "miou", "tc", *words),
    ]


@pytest.fixture
def own_data(tmp_path):
    import main
    from models import build_model
    from utils import checkpoint

    root = make_folder(tmp_path / "own", SIZE)
    args = main.parse_args(["--training", "--method", "single", "--savedir", "unused"])
    checkpoint.save(root / "x.pth", build_model(args, 3).state_dict())
    return root


def test_an_evaluation_computes_no_flow_a_second_time(own_data, tmp_path, monkeypatch):
    calls = counted_dis(monkeypatch)
    words = evaluation(own_data, "--method", "single", "--flow-cache", tmp_path / "flow")
    done = perform(*words, "--savedir", tmp_path / "a")
    assert len(calls) == 6 and "holds 6 flows, 0.1 MB" in done.stdout
    perform(*words, "--savedir", tmp_path / "b")
    assert len(calls) == 6
    perform(*evaluation(own_data, "--method", "single"), "--savedir", tmp_path / "plain")
    found, again, plain = (
        json.loads((tmp_path / name / "results.json").read_text())["metrics"]["TC"]
        for name in ("a", "b", "plain")
    )
    assert found == again
    assert found["TC"] == pytest.approx(plain["TC"], abs=2e-3)


def test_a_method_with_flow_reads_it_too(own_data, tmp_path, monkeypatch):
    calls = counted_dis(monkeypatch)
    words = evaluation(own_data, "--method", "smooth", "--flow-cache", tmp_path / "flow")
    perform(*words, "--savedir", tmp_path / "a")
    # TC in both directions by the preset medium, the method in one by fast
    assert len(calls) == 9
    perform(*words, "--savedir", tmp_path / "b")
    assert len(calls) == 9
    assert len({path.parent.parent.name for path in files(tmp_path / "flow")}) == 2


def test_an_inference_reads_it_too(own_data, tmp_path, monkeypatch):
    calls = counted_dis(monkeypatch)
    source = own_data / "val" / "clip" / "images"
    words = ["--inference", "--source", source, "--weights", own_data / "x.pth", "--method"]
    words += ["smooth", "--backbone", "erf", "--dataset", "folder", "--data-root", own_data]
    words += ["--threads", "1", "--device", "cpu", "--output", "labels"]
    words += ["--flow-cache", tmp_path / "flow", "--flow-cache-format", "flo"]
    perform(*words, "--savedir", tmp_path / "a")
    perform(*words, "--savedir", tmp_path / "b")
    assert len(calls) == 3 and len(files(tmp_path / "flow")) == 3
    ours, theirs = (sorted((tmp_path / run).glob("*_labels/*.png")) for run in "ab")
    assert len(ours) == 4
    assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs]


def training(root, *words):
    return [
        *("--training", "--dataset", "cityscapes", "--data-root", root, "--backbone", "erf"),
        *("--threads", "1", "--device", "cpu", "--num-workers", "0", "--batch-size", "2"),
        *("--num-epochs", "1", "--no-iouVal", "--class-weights", "none", *words),
    ]


@pytest.mark.parametrize(
    ("method", "flows"),
    [
        (["etc", "--neighbour-offsets", "3"], 2),
        (["flow", "--flow", "dis", "--propagate", "gsv", "--multi-step", "2"], 4),
    ],
    ids=["etc", "flow"],
)
def test_a_training_keeps_the_flow_of_whole_frames_whatever_is_drawn(
    method, flows, tmp_path, monkeypatch
):
    calls = counted_dis(monkeypatch)
    root = make_cityscapes(tmp_path / "city", SIZE, labelled=19, splits=("train",))
    words = training(root, "--method", *method, "--random-crop", "32", "32")
    words += ["--random-flip", "0.5", "--flow-cache", tmp_path / "flow"]
    perform(*words, "--savedir", tmp_path / "a")
    assert len(calls) == flows == len(files(tmp_path / "flow"))
    perform(*words, "--seed", "5", "--savedir", tmp_path / "b")
    assert len(calls) == flows, "other crops need no other flow"
    assert [len(log.read(tmp_path / run / log.LOG_NAME)) for run in "ab"] == [1, 1]


def test_clips_bring_the_flow_of_their_own_frames():
    from datasets import synthetic

    (video,) = synthetic.videos("val", 1, 6, SIZE)
    read = {index: video.frame(index) for index in (1, 4)}

    class Model:
        optical_flow = DIS("fast")

    computed = WholeFrames(exact=False)
    computed.settle(Model)
    exact = WholeFrames(exact=True)
    flow = computed(video, 4, 1, read)
    assert np.array_equal(exact(video, 4, 1, read), video.flow(4, 1))
    a, b = (torch.from_numpy(read[i]).permute(2, 0, 1)[None].float() / 255 for i in (4, 1))
    assert np.array_equal(flow, DIS("fast")(a, b)[0].numpy())


def test_flow_of_a_network_that_is_trained_is_refused(tmp_path):
    words = ["--training", *TINY, "--flow-cache", tmp_path / "flow", "--savedir", tmp_path / "run"]
    words[words.index("single")] = "flow"
    done = call(*words, "--backbone", "erf", "--flow", "light")
    assert_one_line(done, "--flow light is trained in this run", tmp_path / "run")
    assert not (tmp_path / "flow").exists()


def test_a_file_in_place_of_the_folder_is_refused_before_anything_is_written(own_data, tmp_path):
    (tmp_path / "flow").write_text("")
    words = evaluation(own_data, "--method", "single", "--flow-cache", tmp_path / "flow")
    done = call(*words, "--savedir", tmp_path / "run")
    assert_one_line(done, "flow is a file: give a folder", tmp_path / "run")


def test_exact_flow_of_a_data_set_is_not_kept(tmp_path):
    from argparse import Namespace

    from datasets import synthetic
    from datasets.clip import ClipDataset
    from jobs.temporal import temporal_metrics

    data = ClipDataset(synthetic.videos("val", 1, 3, SIZE), synthetic.LABELS, None, step=True)
    assert DataMotion(data).provider is None
    args = Namespace(tc_modes=["strict"], flow_cache=tmp_path, flow_cache_format="npy")
    (metric,) = temporal_metrics(args, data)
    metric.motion(0, 1, SIZE)
    assert not files(tmp_path)
