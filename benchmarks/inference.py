"""How fast is labelling a video beside other ways to do it?

    python benchmarks/inference.py [--quick] [--threads 1] [--device cuda] [--json FILE]

    streaming   LMANet-ERFNet's step beside the single-frame ERFNet's, and beside encoding the whole window anew
    network     ERFNet prepared for inference (float32, bfloat16) beside the plain network, and ONNX Runtime, if it is
                installed (pip install onnx onnxruntime)
    agreement   pixels of the same class, prepared (1) and bfloat16 beside the plain float32 network, with the weights
                in trained_models/ on frames of the synthetic world
    metrics     the confusion matrix beside one-hot vectors, colouring beside a mask per class: as Python comes, and
                with freed memory kept, as main.py runs, which makes the others faster as well

512x1024, batch 1, as `main.py` runs them; medians over rounds in which all take turns, process CPU time beside wall
time (on a busy machine trust that, on one thread). --quick: 256x512, three rounds.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from local_attention import interleaved

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
NETWORKS = {  # words, and trained weights; LMANet as published, with four frames in memory, is timed untrained
    "single": ("--method single", "erfnet_synthetic.pth"),
    "lma": ("--method lma --win-size 5 --stm-queue-size 4", None),
    "lma shipped": ("--method lma --fusion-strategy sigmoid-down1", "lmanet_erf_synthetic.pth"),
}
TRAINED = "single", "lma shipped"
CLASSES = 11  # of the synthetic world


def network(name: str, device: str):
    """A row of NETWORKS."""
    words, weights = NETWORKS[name]
    args = main.parse_args(
        ["--inference", "--savedir", "unused", "--dataset", "synthetic", *words.split()]
    )
    model = build_model(args, CLASSES)
    if weights:
        load_weights(
            model, [str(ROOT / "trained_models" / weights)], complete=True, new_classes=False
        )
    return model.to(device).eval()


def streaming(size, rounds: int, device: str) -> dict:
    """Prepared networks; the memory is full."""
    frame = torch.rand(1, 3, *size, device=device)
    computes = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        single, memory = (
            for_inference(network(which, device), dtype=dtype) for which in ("single", "lma")
        )
        state = memory.start()
        for _ in memory.offsets:
            state = memory.observe(frame, state)
        window = frame[:, None].expand(-1, len(memory.offsets) + 1, -1, -1, -1)
        computes |= {
            f"single {name}": lambda net=single: net.step(frame, None),
            f"stream {name}": lambda net=memory, state=state: net.step(frame, state),
            f"window {name}": lambda net=memory, window=window: net(window),
        }
    rows = interleaved(computes, rounds, device)
    return rows | {
        "remembered frames": len(memory.offsets),
        "stream over single": ratio(rows, "stream fp32", "single fp32", device),
        "window over stream": ratio(rows, "window fp32", "stream fp32", device),
        "stream over single, bf16": ratio(rows, "stream bf16", "single bf16", device),
    }


def ratio(rows: dict, slow: str, fast: str, device: str) -> float:
    """By CPU time on a CPU."""
    key = "wall_ms" if device == "cuda" else "least_cpu_ms"
    return rows[slow][key] / max(rows[fast][key], 1e-6)


def compare_networks(size, rounds: int, device: str, skip: list[str], compiled: bool) -> dict:
    """ERFNet alone: eager as it was built, prepared, lowered, and ONNX Runtime."""
    plain = network("single", device)
    frame = torch.rand(1, 3, *size, device=device)
    last = frame.contiguous(memory_format=torch.channels_last)  # as engine.frame_tensor makes it
    kinds = {"prepared": {}, "bf16": {"dtype": torch.bfloat16}}
    if compiled:
        kinds |= {
            f"{name}, compiled": options | {"compiled": True} for name, options in kinds.items()
        }
    networks = {
        name: for_inference(copy.deepcopy(plain), **options) for name, options in kinds.items()
    }
    computes = {"eager NCHW": lambda: plain.step(frame, None)[0]}
    computes |= {name: lambda net=net: net.step(last, None)[0] for name, net in networks.items()}
    notes = {}
    if "onnx" not in skip:
        try:
            computes["ONNX Runtime"] = onnx_session(plain, frame.cpu())
        except ImportError as problem:
            notes["ONNX Runtime"] = f"not run: {problem}"
    expected = computes["eager NCHW"]()
    rows = interleaved(computes, rounds, device)
    for name, compute in computes.items():
        found = torch.as_tensor(compute()).to(device).float()
        rows[name]["error"] = float((found - expected).abs().max() / expected.abs().max())
        rows[name]["agreement"] = float((found.argmax(1) == expected.argmax(1)).float().mean())
        rows[name]["eager over it"] = ratio(rows, "eager NCHW", name, device)
        if "ONNX Runtime" in rows:
            rows[name]["ONNX Runtime over it"] = ratio(rows, "ONNX Runtime", name, device)
    return rows | notes


def onnx_session(model, frame: torch.Tensor):
    """The single-frame network in ONNX Runtime, float32 on the CPU. ImportError where a package is missing."""
    import onnx  # noqa: F401  (torch's exporter needs it)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "network.onnx")
        torch.onnx.export(
            copy.deepcopy(model.backbone).cpu(), (frame,), path, dynamo=False, opset_version=17
        )
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name, array = session.get_inputs()[0].name, frame.numpy()
    return lambda: session.run(None, {name: array})[0]


def agreement(frames: int, device: str) -> dict:
    """Share of pixels with the same class as the plain float32 network, on a stream of the synthetic world."""
    found = {}
    args = main.parse_args(
        ["--eval-mode", "--savedir", "unused", "--dataset", "synthetic", "--weights", "unused"]
    )
    for which in TRAINED:
        plain = network(which, device)
        data = build_dataset(args, "val", augment=False, startup=plain.startup).stepping()
        images = [data[i].frames[-1:].to(device) for i in range(frames)]
        expected = labels(plain, images)
        for name, dtype in (("prepared", torch.float32), ("bf16", torch.bfloat16)):
            ours = labels(for_inference(copy.deepcopy(plain), dtype=dtype), images)
            found[f"{which} {name}"] = float((ours == expected).float().mean())
    return found


def labels(model, images: list[torch.Tensor]) -> torch.Tensor:
    state, found = model.start(), []
    for image in images:
        logits, state = model.step(image, state)
        found.append(logits.float().argmax(1))
    return torch.cat(found)


def metrics(size, rounds: int) -> dict:
    """20 outputs for 19 classes."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 19, size, generator=generator)
    labels[torch.rand(size, generator=generator) < 0.1] = 255
    predictions = torch.randint(0, 20, size, generator=generator).to(torch.uint8)
    ours, ids, palette = ConfusionMatrix(19), predictions.numpy(), default_palette(19)
    rows = interleaved(
        {
            "confusion, ours": lambda: ours.update(labels, predictions),
            "confusion, one-hot": lambda: one_hot_counts(labels, predictions),
            "colouring, ours": lambda: colourise(ids, palette),
            "colouring, masks": lambda: colour_by_masks(ids, palette),
        },
        rounds,
        "cpu",
    )
    fresh = ConfusionMatrix(19)
    fresh.update(labels, predictions)
    equal = torch.equal(three_counts(fresh.counts), one_hot_counts(labels, predictions))
    equal &= np.array_equal(colourise(ids, palette), colour_by_masks(ids, palette))
    return rows | {
        "equal": bool(equal),
        "confusion: one-hot over ours": ratio(rows, "confusion, one-hot", "confusion, ours", "cpu"),
        "colouring: masks over ours": ratio(rows, "colouring, masks", "colouring, ours", "cpu"),
    }


def one_hot_counts(labels: torch.Tensor, predictions: torch.Tensor) -> torch.Tensor:
    """The textbook form: a map of 0 and 1 per class -> true positives, false positives and misses of 19 classes."""
    maps = [
        torch.zeros(1, 20, *labels.shape).scatter_(1, x.long().clamp(max=19)[None, None], 1)
        for x in (labels, predictions)
    ]
    (of_labels, void), (of_predictions, _) = (x.split((19, 1), 1) for x in maps)
    hits = of_labels * of_predictions
    wrong = of_predictions * (1 - of_labels - void)
    missed = of_labels * (1 - of_predictions)
    return torch.stack([x.sum((0, 2, 3), dtype=torch.float64) for x in (hits, wrong, missed)])


def three_counts(counts: torch.Tensor) -> torch.Tensor:
    """The same of a confusion matrix."""
    hits = counts.diagonal()
    return torch.stack([hits, counts[:, :-1].sum(0) - hits, counts.sum(1) - hits]).double()


def colour_by_masks(ids: np.ndarray, palette) -> np.ndarray:
    """One boolean mask per class."""
    picture = np.zeros((*ids.shape, 3), np.uint8)
    for k, colour in enumerate(palette):
        picture[ids == k] = colour
    return picture


def show(title: str, rows: dict) -> None:
    print(f"\n{title}")
    for name, row in rows.items():
        if isinstance(row, dict):
            print(f"  {name:<22}" + "  ".join(f"{key} {value:.6g}" for key, value in row.items()))
        else:
            print(f"  {name}: {row if isinstance(row, (str, bool)) else f'{row:.5g}'}")


def run(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_const", dest="size", const="quick", help="256x512, three rounds"
    )
    parser.add_argument(
        "--tiny", action="store_const", dest="size", const="tiny", help="for the tests"
    )
    parser.add_argument("--rounds", type=int, help="default 7, with --quick 3")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compile", action="store_true", help="compiled networks too")
    parser.add_argument("--skip", nargs="+", default=[], choices=("onnx",))
    parser.add_argument("--json", type=Path)
    parser.set_defaults(size="full")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    size, rounds = SIZES[args.size], args.rounds or (7 if args.size == "full" else 3)
    result = {"size": size, "rounds": rounds, "environment": machine()}
    where = result["environment"]
    print(
        f"{where['cpu']}, {args.threads} threads, load {where['load']}, AVX512_BF16 {where['avx512_bf16']}; {size}"
    )
    with torch.inference_mode():
        area = (1024, 2048) if args.size == "full" else size
        result["metrics"] = metrics(area, rounds)
        show("metrics", result["metrics"])
        keep_freed_memory()
        result["metrics, memory kept"] = metrics(area, rounds)
        show("metrics, freed memory kept", result["metrics, memory kept"])
        result["network"] = compare_networks(size, rounds, args.device, args.skip, args.compile)
        show("network", result["network"])
        result["streaming"] = streaming(size, rounds, args.device)
        show("streaming", result["streaming"])
        if args.size != "tiny":
            result["agreement"] = agreement(40 if args.size == "full" else 8, args.device)
            show("agreement with the plain network", result["agreement"])
    if args.json:
        args.json.write_text(json.dumps(result, indent=2))
    return result


if __name__ == "__main__":
    run()
