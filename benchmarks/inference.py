"""How fast is labelling a video beside other ways to do it?

    python benchmarks/inference.py [--quick] [--threads 1] [--device cuda] [--json FILE]

    streaming   a step of LMANet-ERFNet beside one of the single-frame ERFNet, and beside LMANet
                that encodes the whole window again
    network     ERFNet prepared for inference (float32, bfloat16) beside the plain network, and
                ONNX Runtime if it is installed (pip install onnx onnxruntime)
    agreement   share of pixels of the same class as the plain float32 network, prepared (expected:
                1) and in bfloat16, with the weights in trained_models/ on synthetic frames
    metrics     the confusion matrix beside one-hot vectors, colouring beside a mask per class: as
                Python comes, and with freed memory kept, as main.py runs, which makes the others
                faster as well

512x1024, batch 1, as `main.py` runs them. Medians over rounds in which all take turns; process CPU
time beside wall time (on a busy machine trust CPU time, on one thread). --quick: 256x512, three
rounds.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from timing import interleaved, ratio

import main
from datasets import build_dataset
from datasets.labels import default_palette
from models import build_model
from models.deploy import for_inference
from utils.checkpoint import load_weights
from utils.metrics import ConfusionMatrix
from utils.output.pictures import colourise
from utils.run.allocator import keep_freed_memory
from utils.run.benchmark import machine

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"full": (512, 1024), "quick": (256, 512), "tiny": (32, 64)}
ROUNDS = {"full": 7, "quick": 3, "tiny": 3}
# Labels are scored at the data set's size, that of Cityscapes
METRIC_SIZES = SIZES | {"full": (1024, 2048)}
AGREEMENT_FRAMES = {"full": 40, "quick": 8, "tiny": 0}
# Options and trained weights; LMANet as published, with four frames in memory, is timed untrained
NETWORKS = {
    "single": ("--method single", "erfnet_synthetic.pth"),
    "lma": ("--method lma --win-size 5 --stm-queue-size 4", None),
    "lma shipped": ("--method lma --fusion-strategy sigmoid-down1", "lmanet_erf_synthetic.pth"),
}
TRAINED = ("single", "lma shipped")
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CLASSES = 11  # of the synthetic world


def network(name: str, device: str):
    """A row of NETWORKS, in eval mode but not prepared for inference."""
    options, weights = NETWORKS[name]
    argv = ["--inference", "--savedir", "unused", "--dataset", "synthetic", *options.split()]
    model = build_model(main.parse_args(argv), CLASSES)
    if weights:
        paths = [str(ROOT / "trained_models" / weights)]
        load_weights(model, paths, complete=True, new_classes=False)
    return model.to(device).eval()


# A step


def streaming(size, rounds: int, device: str) -> dict:
    """Prepared networks; the memory is full."""
    frame = torch.rand(1, 3, *size, device=device)
    computes = {}
    for name, dtype in TYPES.items():
        single = for_inference(network("single", device), dtype=dtype)
        memory = for_inference(network("lma", device), dtype=dtype)
        computes |= steps_of(name, single, memory, frame)
    rows = interleaved(computes, rounds, device)
    # As many frames of memory in both types
    return rows | {
        "remembered frames": len(memory.offsets),
        "stream over single": ratio(rows, "stream fp32", "single fp32", device),
        "window over stream": ratio(rows, "window fp32", "stream fp32", device),
        "stream over single, bf16": ratio(rows, "stream bf16", "single bf16", device),
    }


def steps_of(name: str, single, memory, frame: torch.Tensor) -> dict[str, Callable]:
    """What is timed: one frame, single, with a memory, and with the whole window encoded again."""
    state = memory.start()
    # Until the memory is full
    for _ in memory.offsets:
        state = memory.observe(frame, state)
    window = frame[:, None].expand(-1, len(memory.offsets) + 1, -1, -1, -1)  # (1, T, 3, H, W)
    return {
        f"single {name}": lambda: single.step(frame, None),
        f"stream {name}": lambda: memory.step(frame, state),
        f"window {name}": lambda: memory(window),
    }


# Ways to run a network


def compare_networks(size, rounds: int, *, device: str, skip: list[str], compiled: bool) -> dict:
    """ERFNet alone: eager as it was built, prepared, in bfloat16, and by ONNX Runtime."""
    plain = network("single", device)
    frame = torch.rand(1, 3, *size, device=device)
    computes = {"eager NCHW": lambda: plain.step(frame, None)[0]}
    computes |= prepared_networks(plain, frame, compiled)
    notes = {}
    # ONNX Runtime is optional: without it the table says so
    if "onnx" not in skip:
        try:
            computes["ONNX Runtime"] = onnx_session(plain, frame.cpu())
        except ImportError as problem:
            notes["ONNX Runtime"] = f"not run: {problem}"
    rows = interleaved(computes, rounds, device)
    expected = computes["eager NCHW"]()
    for name, compute in computes.items():
        found = torch.as_tensor(compute()).to(device).float()
        rows[name] |= closeness(found, expected)
        rows[name]["eager over it"] = ratio(rows, "eager NCHW", name, device)
        if "ONNX Runtime" in rows:
            rows[name]["ONNX Runtime over it"] = ratio(rows, "ONNX Runtime", name, device)
    return rows | notes


def prepared_networks(plain, frame: torch.Tensor, compiled: bool) -> dict[str, Callable]:
    """The network prepared in several ways, each a function that gives the frame's logits."""
    kinds = {"prepared": {}, "bf16": {"dtype": torch.bfloat16}}
    # Each of them compiled as well
    if compiled:
        for name in list(kinds):
            kinds[f"{name}, compiled"] = kinds[name] | {"compiled": True}
    last = frame.contiguous(memory_format=torch.channels_last)  # as engine.frame_tensor makes it
    computes = {}
    for name, options in kinds.items():
        net = for_inference(copy.deepcopy(plain), **options)
        computes[name] = lambda net=net: net.step(last, None)[0]
    return computes


def closeness(found: torch.Tensor, expected: torch.Tensor) -> dict[str, float]:
    """Of logits (1, K, h, w): the largest error, and the share of pixels of the same class."""
    error = (found - expected).abs().max()
    largest = expected.abs().max()
    same = found.argmax(1) == expected.argmax(1)
    return {"error": float(error / largest), "agreement": float(same.float().mean())}


def onnx_session(model, frame: torch.Tensor) -> Callable:
    """The single-frame network in ONNX Runtime, float32 on the CPU.

    ImportError where a package is missing.
    """
    import onnx  # noqa: F401  (torch's exporter needs it)
    import onnxruntime

    # As many threads as PyTorch has
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    backbone = copy.deepcopy(model.backbone).cpu()
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "network.onnx")
        torch.onnx.export(backbone, (frame,), path, dynamo=False, opset_version=17)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    array = frame.numpy()
    return lambda: session.run(None, {name: array})[0]


# Labels


def agreement(frames: int, device: str) -> dict:
    """Share of pixels with the same class as the plain float32 network, on a synthetic stream."""
    found = {}
    argv = ["--eval-mode", "--savedir", "unused", "--dataset", "synthetic", "--weights", "unused"]
    args = main.parse_args(argv)
    for which in TRAINED:
        plain = network(which, device)
        data = build_dataset(args, "val", augment=False, startup=plain.startup).stepping()
        # A clip's last frame is the one that is new
        images = [data[i].frames[-1:].to(device) for i in range(frames)]  # (1, 3, H, W) each
        expected = labels(plain, images)
        for name, dtype in (("prepared", torch.float32), ("bf16", torch.bfloat16)):
            prepared = for_inference(copy.deepcopy(plain), dtype=dtype)
            same = labels(prepared, images) == expected
            found[f"{which} {name}"] = float(same.float().mean())
    return found


def labels(model, images: list[torch.Tensor]) -> torch.Tensor:
    """Class ids (T, h, w) of a stream."""
    state = model.start()
    found = []
    for image in images:
        logits, state = model.step(image, state)
        found.append(logits.float().argmax(1))
    return torch.cat(found)


# Metrics


def metrics(size, rounds: int) -> dict:
    """20 outputs for 19 classes."""
    truth, predictions = random_labels(size)
    ids = predictions.numpy()
    palette = default_palette(19)
    ours = ConfusionMatrix(19)  # 19 x 20
    computes = {
        "confusion, ours": lambda: ours.update(truth, predictions),
        "confusion, one-hot": lambda: one_hot_counts(truth, predictions),
        "colouring, ours": lambda: colourise(ids, palette),
        "colouring, masks": lambda: colour_by_masks(ids, palette),
    }
    rows = interleaved(computes, rounds, "cpu")
    # Both ways give the same. A new matrix: the one that was timed has counted many rounds
    fresh = ConfusionMatrix(19)
    fresh.update(truth, predictions)
    counts = three_counts(fresh.counts)
    same_counts = torch.equal(counts, one_hot_counts(truth, predictions))
    picture = colourise(ids, palette)
    same_colours = np.array_equal(picture, colour_by_masks(ids, palette))
    return rows | {
        "equal": same_counts and same_colours,
        "confusion: one-hot over ours": ratio(rows, "confusion, one-hot", "confusion, ours", "cpu"),
        "colouring: masks over ours": ratio(rows, "colouring, masks", "colouring, ours", "cpu"),
    }


def random_labels(size) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels of 19 classes, a tenth of them 255, and predictions of 20 (H, W)."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 19, size, generator=generator)
    void = torch.rand(size, generator=generator) < 0.1
    truth[void] = 255
    predictions = torch.randint(0, 20, size, generator=generator)
    return truth, predictions.to(torch.uint8)


def one_hot_counts(truth: torch.Tensor, predictions: torch.Tensor) -> torch.Tensor:
    """The textbook form: a map of 0 and 1 per class.

    -> true positives, false positives and misses of 19 classes, (3, 19).
    """
    of_truth, void = one_hot(truth).split((19, 1), 1)
    of_predictions, _ = one_hot(predictions).split((19, 1), 1)
    hits = of_truth * of_predictions
    # Predictions where the label is void are not counted
    wrong = of_predictions * (1 - of_truth - void)
    missed = of_truth * (1 - of_predictions)
    counts = [x.sum((0, 2, 3), dtype=torch.float64) for x in (hits, wrong, missed)]
    return torch.stack(counts)


def one_hot(x: torch.Tensor) -> torch.Tensor:
    """(H, W) -> (1, 20, H, W), the last one for everything from 19 on."""
    ids = x.long().clamp(max=19)[None, None]
    maps = torch.zeros(1, 20, *x.shape)
    return maps.scatter_(1, ids, 1)


def three_counts(counts: torch.Tensor) -> torch.Tensor:
    """The same of a confusion matrix."""
    hits = counts.diagonal()
    wrong = counts[:, :-1].sum(0) - hits  # without the predictions of "ignore"
    missed = counts.sum(1) - hits
    return torch.stack([hits, wrong, missed]).double()


def colour_by_masks(ids: np.ndarray, palette) -> np.ndarray:
    """One boolean mask per class: (H, W) -> (H, W, 3)."""
    picture = np.zeros((*ids.shape, 3), np.uint8)
    for k, colour in enumerate(palette):
        picture[ids == k] = colour
    return picture


# The command


def show(title: str, rows: dict) -> None:
    print(f"\n{title}")
    for name, row in rows.items():
        if isinstance(row, dict):
            numbers = "  ".join(f"{key} {value:.6g}" for key, value in row.items())
            print(f"  {name:<22}{numbers}")
        elif isinstance(row, (str, bool)):
            print(f"  {name}: {row}")
        else:
            print(f"  {name}: {row:.5g}")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    size = {"action": "store_const", "dest": "size"}
    parser.add_argument("--quick", **size, const="quick", help="256x512, three rounds")
    parser.add_argument("--tiny", **size, const="tiny", help="for the tests")
    parser.add_argument("--rounds", type=int, help="default 7, with --quick 3")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compile", action="store_true", help="compiled networks too")
    parser.add_argument("--skip", nargs="+", default=[], choices=("onnx",))
    parser.add_argument("--json", type=Path)
    parser.set_defaults(size="full")
    return parser.parse_args(argv)


def run(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    size = SIZES[args.size]
    rounds = args.rounds or ROUNDS[args.size]
    where = machine()
    print(
        f"{where['cpu']}, {args.threads} threads, load {where['load']}, "
        f"AVX512_BF16 {where['avx512_bf16']}; {size}"
    )
    result = {"size": size, "rounds": rounds, "environment": where}
    with torch.inference_mode():
        for name, title, rows in tables(args, size, rounds):
            result[name] = rows
            show(title, rows)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2))
    return result


def tables(args: argparse.Namespace, size, rounds: int) -> Iterator[tuple[str, str, dict]]:
    """Name, title and rows of each table, measured one after the other."""
    metric_size = METRIC_SIZES[args.size]
    yield "metrics", "metrics", metrics(metric_size, rounds)
    # It cannot be undone, so all that follows runs with it, as under main.py
    keep_freed_memory()
    yield "metrics, memory kept", "metrics, freed memory kept", metrics(metric_size, rounds)
    found = compare_networks(
        size, rounds, device=args.device, skip=args.skip, compiled=args.compile
    )
    yield "network", "network", found
    yield "streaming", "streaming", streaming(size, rounds, args.device)
    frames = AGREEMENT_FRAMES[args.size]
    if frames:
        found = agreement(frames, args.device)
        yield "agreement", "agreement with the plain network", found


if __name__ == "__main__":
    run()
