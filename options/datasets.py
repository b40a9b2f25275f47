"""The rows of the data sets, each with its own options."""

from __future__ import annotations

from .jobs import DATA, EVALUATION, FILES
from .option import Group, Option
from .rows import Dataset
from .types import SIZE, positive

# The number of classes follows from it, and with it the shape of the last layer.
CAMVID = Group(
    "data (camvid)",
    (
        Option(
            "--void-class",
            "12 classes, void being class 0, as TMANet scores",
            type=bool,
            network=True,
        ),
    ),
    jobs=DATA,
)

CITYSCAPES = Group(
    "data (cityscapes)",
    (
        Option(
            "--clip-list",
            "score these clips alone: etc-tc (the 108 of the val split on which ETC published TC), "
            "all, or a file of labelled frames, one a line. With --metrics tc or latency all "
            "frames of the clips are labelled",
            metavar="NAME",
        ),
    ),
    jobs=EVALUATION + FILES,
)

# Without files: the same seed and options give the same videos everywhere.
SYNTHETIC = Group(
    "data (synthetic)",
    (
        Option(
            "--synthetic-videos",
            "how many synthetic videos each split has",
            type=positive,
            nargs=3,
            default=(200, 8, 8),
            metavar=("TRAIN", "VAL", "TEST"),
        ),
        Option("--synthetic-size", "size of a synthetic frame", default=(256, 512), **SIZE),
        Option("--synthetic-length", "frames of a synthetic video", type=positive, default=30),
        Option(
            "--synthetic-degrade",
            "noise, blur, flicker and sensor dropouts",
            type=bool,
            negatable=True,
            default=True,
        ),
    ),
    jobs=DATA,
)

ROWS = (
    Dataset(
        "cityscapes",
        "Cityscapes with its video snippets: 19 classes, labelIds or labelTrainIds",
        "datasets.cityscapes",
        ("train", "val", "test"),
        groups=(CITYSCAPES,),
        variable="STREAMSEG_CITYSCAPES",
    ),
    Dataset(
        "synthetic",
        "street videos rendered from a seed, with exact labels and flow: no files needed",
        "datasets.synthetic",
        ("train", "val", "test"),
        groups=(SYNTHETIC,),
    ),
    Dataset(
        "camvid",
        "CamVid: 480x360 with 11 classes, or 960x720",
        "datasets.camvid",
        ("train", "val", "test"),
        groups=(CAMVID,),
        # Its val part is the temporal test: no epoch is selected on it.
        defaults={"iouVal": False},
        variable="STREAMSEG_CAMVID",
    ),
    Dataset(
        "vspw",
        "VSPW at 480p: 124 classes, every frame of every video labelled",
        "datasets.vspw",
        ("train", "val", "test", "all"),  # where there are no lists, all videos are any split
        defaults={
            "work_box": (480, 853),
            "interpolation": "cv2",
            "random_scale": (0.5, 2.0),
            "random_crop": (480, 480),
            "crop_max_ratio": 0.75,
        },
        variable="STREAMSEG_VSPW",
    ),
    Dataset(
        "folder",
        "your own clips: CLIP/images and CLIP/labels",
        "datasets.folder",
        ("train", "val", "test", "all"),  # folders without splits serve as any
        variable="STREAMSEG_FOLDER",
    ),
)
