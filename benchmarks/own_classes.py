"""How well does a network learn own classes from a few labelled frames in minutes?

    python benchmarks/own_classes.py CAMVID [--frames 40] [--weights street] [--json FILE]

CAMVID: the 480x360 layout. Writes a folder data set as a user would have it: some frames of the
train part in three classes (road, vehicle, other), and the test part's drive Seq05VD for scoring.
Runs the recipe on it as the command line does, and prints minutes and mIoU. The shipped street
weights have seen the frames with CamVid's own classes, so it is a test of the recipe; weights of
ImageNet (--weights FILE --backbone swiftnet18) know nothing of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from datasets import camvid
from datasets.labels import IGNORE, id_table
from utils.run.benchmark import machine

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "own_classes.txt"
CLASSES = "road 128 64 128\nvehicle 64 0 128\nother 90 90 90\n"
OWN = {"road": 0, "car": 1}  # CamVid's classes as ours; all others are "other"
OTHER = 2
UNSEEN = "Seq05VD"  # a drive by itself


def own_ids() -> np.ndarray:
    """(256,) uint8: CamVid's ids -> ours."""
    ids = {k: OWN.get(name, OTHER) for k, name in enumerate(camvid.LABELS.names)}
    return id_table(ids, default=IGNORE)


def labelled_frames(root: Path, split: str) -> list[tuple]:
    """(video, index) of every labelled frame of a split."""
    args = Namespace(data_root=str(root), dataset="camvid", void_class=False)
    videos = camvid.videos_of(args, split)
    return [(video, index) for video in videos for index in video.labelled]


def write_clip(folder: Path, frames: list[tuple]) -> None:
    """folder/images, folder/labels of some frames."""
    table = own_ids()
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for video, index in frames:
        name = f"{video.frame_name(index)}.png"
        Image.fromarray(video.frame(index)).save(folder / "images" / name)
        Image.fromarray(table[video.label(index)]).save(folder / "labels" / name)


def make_data(root: Path, folder: Path, count: int) -> Path:
    """A data set of `count` frames to train on and of the unseen drive to score."""
    known = labelled_frames(root, "train")
    chosen = [known[i * len(known) // count] for i in range(count)]
    unseen = [pair for pair in labelled_frames(root, "test") if UNSEEN in pair[0].frame_name(0)]
    write_clip(folder / "train" / "mine", chosen)
    write_clip(folder / "val" / "other", unseen)
    (folder / "classes.txt").write_text(CLASSES)
    return folder


def run(*words: str | Path) -> float:
    """Seconds of `python main.py WORDS`. CalledProcessError where it fails."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "main.py", *map(str, words)], cwd=ROOT, check=True)
    return time.perf_counter() - started


def measure(options: argparse.Namespace, folder: Path) -> dict:
    data = make_data(Path(options.camvid), folder / "data", options.frames)
    trained = folder / "trained"
    words = ["--data-root", data, "--savedir"]
    network = ["--weights", options.weights]
    if options.backbone:
        network += ["--backbone", options.backbone]
    seconds = run(f"@{RECIPE}", *network, *words, trained)
    weights = trained / "model_best.pth.tar"
    run("--eval-mode", "--weights", weights, *words, folder / "scored")
    results = json.loads((folder / "scored" / "results.json").read_text())
    return {
        "frames": options.frames,
        "weights": options.weights,
        "minutes": seconds / 60,
        "mIoU": 100 * results["metrics"]["mIoU"],
        "environment": machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("camvid", help="CamVid at 480x360")
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--weights", default="street-swiftnet18")
    parser.add_argument("--backbone", help="for weights of another network than the recipe's")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        result = measure(options, Path(folder))
    print(
        f"{result['frames']} frames, 3 classes, from {result['weights']}: "
        f"{result['minutes']:.1f} minutes, mIoU {result['mIoU']:.1f} on {UNSEEN}"
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
