"""`--flow given`: flow that comes with the frames, from the data set or from files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import main
from command import ROOT, assert_one_line, call, perform
from datasets import build_dataset
from datasets.synthetic import videos
from jobs.given_flow import FlowFiles
from models.optical_flow.given import FlowFolder, write_flo
from trees import make_camvid, make_folder

TRAINED = ROOT / "trained_models" / "erfnet_synthetic.pth"
FLOW = "--method flow --backbone erf --threads 1 --device cpu".split()
WORLD = "--dataset synthetic --synthetic-size 96 192 --synthetic-videos 1 1 1".split()
SCORED = ["--eval-mode", *FLOW, *WORLD, "--num-workers", "0", "--pictures", "0"]
SIZE = (96, 192)


def distances(*words, weights=TRAINED) -> dict[str, float]:
    """mIoU by distance from the key frame."""
    savedir = words[-1]
    perform(*SCORED, "--weights", weights, *words[:-1], "--savedir", savedir)
    results = json.loads((savedir / "results.json").read_text())
    return results["metrics"]["key_distance"]["mIoU"]


@pytest.mark.parametrize("size", [[], ["--work-size", "128", "256"]], ids=["whole", "work size"])
def test_exact_flow_beats_the_held_key_frame(size, tmp_path):
    words = ["--synthetic-length", "9", "--key-interval", "2", *size, "--propagate"]
    hold = distances(*words, "hold", tmp_path / "hold")
    warp = distances(*words, "warp", "--flow", "given", tmp_path / "warp")
    assert warp["0"] == hold["0"], "the key frames are the same"
    assert warp["2"] > hold["2"] + 0.02


# Data sets


def world_data(*words: str, startup=None, **options):
    words = ["--eval-mode", *FLOW, *WORLD, "--synthetic-length", "5", "--savedir", "x", *words]
    args = main.parse_args([*words, "--weights", str(TRAINED)])
    return build_dataset(args, "val", with_flows=True, startup=startup, **options)


def test_a_stepped_frame_brings_its_flow_into_the_frame_before_it():
    data = world_data().stepping()
    assert data[0].flows.shape == (1, 2, *SIZE) and not data[0].flows.any()
    exact = data.videos[0].flow(3, 2)
    assert torch.equal(data[3].flows[0], torch.from_numpy(exact))


def test_flow_is_brought_to_the_working_size_with_its_frame():
    whole = world_data().stepping()[3].flows
    half = world_data("--work-size", "48", "96").stepping()[3].flows
    assert half.shape == (1, 2, 48, 96)
    assert half.median() == pytest.approx(whole.median().item() / 2, abs=0.05)


def test_a_clip_brings_the_flow_of_each_frame_but_the_first():
    data = world_data(startup=lambda past: (-2, -1))
    assert data[4].flows.shape == (2, 2, *SIZE)
    assert world_data(startup=lambda past: ())[4].flows is None


def test_a_data_set_without_flow_asks_for_files(tmp_path):
    make_folder(tmp_path / "own", SIZE)
    words = ["--eval-mode", *FLOW, "--dataset", "folder", "--data-root", tmp_path / "own"]
    words += ["--weights", tmp_path / "x.pth", "--savedir", tmp_path / "out", "--flow", "given"]
    weights_of(tmp_path / "x.pth", 3)
    assert_one_line(call(*words), "--flow-root DIR", tmp_path / "out")
    hold = perform(*words, "--propagate", "hold")
    assert hold.returncode == 0, "what is held needs no flow"


def weights_of(path, classes: int):
    """Weights of a fresh network for so many classes."""
    from models import build_model
    from utils import checkpoint

    args = main.parse_args(["--training", "--method", "single", "--savedir", "unused"])
    checkpoint.save(path, build_model(args, classes).state_dict())


# Files


def flows_to_files(root, *, in_folders: bool) -> None:
    """The exact flow of the synthetic world as files."""
    (video,) = videos("val", 1, 5, SIZE)
    folder = root / video.name if in_folders else root
    folder.mkdir(parents=True)
    for i in range(1, len(video)):
        np.save(folder / f"{video.frame_name(i)}.npy", video.flow(i, i - 1))


@pytest.mark.parametrize("in_folders", [True, False])
def test_files_give_what_the_flow_of_the_data_set_gives(in_folders, tmp_path):
    flows_to_files(tmp_path / "flow", in_folders=in_folders)
    words = ["--synthetic-length", "5", "--key-interval", "2", "--flow", "given"]
    own = distances(*words, tmp_path / "own")
    files = distances(*words, "--flow-root", tmp_path / "flow", tmp_path / "files")
    assert own == files


def test_the_file_in_the_folder_of_the_video_goes_first(tmp_path):
    (tmp_path / "drive").mkdir()
    write_flo(tmp_path / "a.flo", np.zeros((2, 4, 6)))
    write_flo(tmp_path / "drive" / "a.flo", np.ones((2, 4, 6)))
    files = FlowFiles(FlowFolder(tmp_path))
    assert files.named("drive", "a", (4, 6)).eq(1).all()
    assert files.named("other", "a", (4, 6)).eq(0).all()


def test_a_frame_without_a_file_is_named_with_the_folder(tmp_path):
    flows_to_files(tmp_path / "flow", in_folders=True)
    (tmp_path / "flow" / "val_0000" / "val_0000_000003.npy").unlink()
    words = [*SCORED, "--synthetic-length", "5", "--flow", "given", "--weights", TRAINED]
    done = call(*words, "--flow-root", tmp_path / "flow", "--savedir", tmp_path / "out")
    assert_one_line(done, f"{tmp_path / 'flow'} holds no flow of the frame val_0000_000003")


def test_frames_that_lie_apart_are_refused(tmp_path):
    flows_to_files(tmp_path / "flow", in_folders=True)
    source = FlowFiles(FlowFolder(tmp_path / "flow"))
    data = world_data(startup=lambda past: (-2,), flow_source=source)
    with pytest.raises(ValueError, match="val_0000_000004 to val_0000_000002"):
        data[4]


# Sources


@pytest.fixture
def labelled(tmp_path):
    """Labels two frames with flow files, the second one propagated -> both label maps."""
    (video,) = videos("val", 1, 5, SIZE)
    (tmp_path / "in").mkdir()
    for name, index in (("a", 0), ("b", 1)):
        Image.fromarray(video.frame(index)).save(tmp_path / "in" / f"{name}.png")

    def label(*words):
        out = tmp_path / "out"
        perform(
            "--inference", *FLOW, "--dataset", "synthetic", "--weights", TRAINED, "--key-interval",
            "1", "--flow", "given", "--source", tmp_path / "in", "--output", "labels", "--savedir",
            out, "--overwrite", "--flow-root", tmp_path / "flow", *words,
        )  # fmt: skip
        return [np.asarray(Image.open(path)) for path in sorted(out.rglob("[ab].png"))]

    return label


@pytest.mark.parametrize("place", ["flow/b.flo", "flow/in/b.flo"])
@pytest.mark.parametrize("size", [[], ["--work-size", "64", "128"]])
def test_flow_files_of_images_are_found_by_name(place, size, labelled, tmp_path):
    (tmp_path / place).parent.mkdir(parents=True)
    still = np.zeros((2, *SIZE), np.float32)
    write_flo(tmp_path / place, still)
    first, second = labelled(*size)
    assert np.array_equal(first, second) and first.any()
    moved = still.copy()
    moved[0] = 40
    write_flo(tmp_path / place, moved)
    first, second = labelled(*size)
    agreement = (second[:, 8:-48] == first[:, 48:-8]).mean()
    assert agreement > 0.95, "everything has moved to the left by 40 pixels"


def test_flow_files_of_a_video_are_found_by_number(tmp_path):
    from frames import write_video

    (tmp_path / "flow").mkdir()
    video = write_video(tmp_path / "ride.mp4", frames=3, size=(32, 48))
    for i in (1, 2):
        write_flo(tmp_path / "flow" / f"{i:06d}.flo", np.zeros((2, 32, 48)))
    words = ["--inference", *FLOW, "--dataset", "synthetic", "--weights", TRAINED, "--flow"]
    words += ["given", "--source", video, "--output", "labels", "--flow-root", tmp_path / "flow"]
    perform(*words, "--savedir", tmp_path / "out")
    (tmp_path / "flow" / "000002.flo").unlink()
    done = call(*words, "--savedir", tmp_path / "out2")
    assert_one_line(done, f"{tmp_path / 'flow'} holds no flow of the frame 000002")


def test_a_source_needs_files(tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "in" / "a.png")
    words = ["--inference", *FLOW, "--dataset", "synthetic", "--weights", TRAINED]
    words += ["--flow", "given", "--source", tmp_path / "in", "--savedir", tmp_path / "out"]
    assert_one_line(call(*words), "--flow-root DIR", tmp_path / "out")


# Training

LEARN = ["--training", *FLOW, "--flow", "given", "--num-epochs", "1", "--num-workers", "0"]


def test_the_filter_learns_with_exact_flow(tmp_path):
    words = [*WORLD, "--synthetic-length", "4", "--batch-size", "2", "--class-weights", "none"]
    perform(*LEARN, *words, "--savedir", tmp_path)
    assert (tmp_path / "model_best.pth.tar").exists()


def test_synthetic_past_motion_needs_no_flow_of_the_data_set(tmp_path):
    make_camvid(tmp_path / "data", (48, 64))
    words = [*LEARN, "--dataset", "camvid", "--data-root", tmp_path / "data", "--batch-size", "2"]
    words += ["--class-weights", "none", "--multi-step", "1", "--no-iouVal"]
    done = call(*words, "--savedir", tmp_path / "one")
    assert_one_line(done, "--synthetic-past 1")
    perform(*words, "--synthetic-past", "1", "--savedir", tmp_path / "two")
