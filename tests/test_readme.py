"""The commands of README.md and docs/*.md and every recipe run, on tiny data."""

from __future__ import annotations

import numpy as np
import pytest
import torchvision

import main
from command import ROOT, perform
from models import build_model
from pages import PAGES, README, commands, name_of, words_of
from trees import make_camvid, make_cityscapes, make_folder, make_vspw
from utils import checkpoint
from utils.output.video import VideoWriter

# Random weights under the names of published files, and how many classes they are for.
PUBLISHED = {
    "lmanet_erf_best.pth": ("--method lma --backbone erf", 19),
    "erfnet_pretrained.pth": ("--method single --backbone erf", 19),
    "lmanet_psp101_best.pth": ("--method lma --backbone psp101", 19),
    "resnet50_v1c-2cccc1ad.pth": ("--method single --backbone r50v1c", 19),
    "tmanet_cityscapes.pth": ("--method tma --backbone r50v1c", 19),
    "swiftnet_r18.pth": ("--method single --backbone swiftnet18", 19),
    "swnet_seq.pth": ("--method flow --backbone swiftnet18 --propagate gsv", 19),
    "espnetv2_s_2.0_city_1024x512.pth": ("--method single --backbone espnetv2_s20", 19),
    "pspnet101/model/train_epoch_200.pth": ("--method single --backbone psp101", 19),
    **{f"mrcfa_b{size}.pth": (f"--method mrcfa --backbone mit_b{size}", 124) for size in (0, 1)},
    "mit_b0.pth": ("--method single --backbone mit_b0", 124),
    "tmanet_camvid.pth": ("--method tma --backbone r50v1c --dataset camvid --void-class", 12),
}
# Backbones that take a minute, and one of their kind that does not.
LARGE = {"mit_b2": "mit_b0", "mit_b5": "mit_b0"}
# Words that make a command quick; later words win.
QUICK = {
    "common": "--device cpu --num-workers 0 --threads 1".split(),
    "synthetic": "--synthetic-size 32 64 --synthetic-videos 1 1 1 --synthetic-length 4".split(),
    "training": "--num-epochs 1 --batch-size 2".split(),
}


def quicken(words: list[str]) -> list[str]:
    """The words of a command with others behind them that make it quick."""
    args = main.parse_args(words, main.network_of_weights(words))
    words = [*words, *QUICK["common"]]
    if args.dataset == "synthetic":
        words += QUICK["synthetic"]
    if args.dataset == "cityscapes" and (args.training or args.eval_mode):
        words += ["--work-size", "65", "129"]
    if args.inference and args.flip:
        # Random weights are sure of nothing.
        words += ["--work-size", "64", "128", "--min-confidence", "0"]
    if args.dataset == "vspw":
        words += ["--work-size", "64", "96"]
    if args.backbone in LARGE:
        words += ["--backbone", LARGE[args.backbone]]
    if args.benchmark:
        words += ["--work-size", "32", "64", "--max-frames", "4"]
    if args.training:
        words += [*QUICK["training"], "--gpus", "1"]
        if args.random_crop:
            # mrcfa wants five cells of 32 x 32
            words += ["--random-crop", *(("64", "96") if args.method == "mrcfa" else ("24", "32"))]
        if args.dataset == "vspw":
            words += ["--train-split", "val", "--no-iouVal"]
    return words


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which the file names of the pages exist."""
    place = tmp_path_factory.mktemp("place")
    make_camvid(place / "CAMVID")
    make_folder(place / "MY_CLIPS")
    make_cityscapes(place / "CITYSCAPES", numbers=range(15, 20))
    make_vspw(place / "VSPW", frames=4)
    (place / "VSPW" / "test.txt").write_text("9_xyz\n")
    for name in ("recipes", "benchmarks"):
        (place / name).symlink_to(ROOT / name)
    (place / "trained_models" / "pspnet101" / "model").mkdir(parents=True)
    for path in (ROOT / "trained_models").glob("*.pth"):
        (place / "trained_models" / path.name).symlink_to(path)
    for name, (words, classes) in PUBLISHED.items():
        args = main.parse_args(["--training", *words.split(), "--savedir", "unused"])
        checkpoint.save(place / "trained_models" / name, build_model(args, classes).state_dict())
    backbone = torchvision.models.resnet18().state_dict()
    checkpoint.save(place / "trained_models" / "resnet18-f37072fd.pth", backbone)
    name = "espnetv2_s_2.0_city_1024x512.pth"
    (place / name).symlink_to(place / "trained_models" / name)
    (place / "W.pth").symlink_to(ROOT / "trained_models" / "lmanet_erf_synthetic.pth")
    with VideoWriter(place / "drive.mp4", 10) as writer:
        for i in range(4):
            writer.write(np.full((32, 48, 3), 40 * i, np.uint8))
    return place


@pytest.fixture
def desk(place, tmp_path, monkeypatch):
    """The working directory: what `place` holds, and nothing that another page has left."""
    for path in place.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readme_has_commands_of_every_job():
    text = "\n".join(commands(README))
    jobs = ("--training", "--eval-mode", "--inference", "@recipes/quickstart.txt")
    assert len(commands(README)) >= 7
    assert all(word in text for word in jobs)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_of_a_page_runs_in_its_order(page, desk):
    for command in commands(page):
        words = words_of(command)
        if "@save/" in command:  # the recipe that a run of the reader's own has left
            continue
        if "--source -" in command or "--replay" in command:
            # Frames come from ffmpeg, and a server is started before.
            main.parse_args(words, main.network_of_weights(words))
            continue
        perform(*quicken(words))


@pytest.mark.parametrize(
    "recipe", sorted((ROOT / "recipes").glob("*.txt")), ids=lambda path: path.stem
)
def test_every_recipe_runs(recipe, place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    words = [f"@{recipe}", "--savedir", str(tmp_path)]
    args = main.parse_args(words)
    if args.dataset in ("camvid", "cityscapes", "vspw"):
        words += ["--data-root", args.dataset.upper()]
    if args.dataset == "folder":
        words += ["--data-root", "MY_CLIPS"]
    if args.eval_mode and not args.weights:
        published = {
            ("lma", "erf"): "lmanet_erf_best",
            ("lma", "psp101"): "lmanet_psp101_best",
            ("tma", "r50v1c"): f"tmanet_{args.dataset}",
            ("flow", "swiftnet18"): "swnet_seq",
            ("single", "espnetv2_s20"): "espnetv2_s_2.0_city_1024x512",
            ("mrcfa", "mit_b0"): "mrcfa_b0",
            ("mrcfa", "mit_b1"): "mrcfa_b1",
        }
        name = published[args.method, LARGE.get(args.backbone, args.backbone)]
        words += ["--weights", f"trained_models/{name}.pth"]
    if args.inference:
        published = {
            ("flow", "swiftnet18"): "swnet_seq",
            ("single", "espnetv2_s20"): "espnetv2_s_2.0_city_1024x512",
        }
        name = published[args.method, args.backbone]
        words += ["--source", "drive.mp4", "--weights", f"trained_models/{name}.pth"]
    perform(*quicken(words))
