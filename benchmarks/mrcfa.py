"""What does VSS-MRCFA cost beside its backbone, and its cache save; is SegFormer fast enough?

    python benchmarks/mrcfa.py [--size 480x480] [--classes 124] [--threads 1] [--json FILE]

With untrained weights, prepared for inference as `main.py` does, on random frames:

    single          a step of `single` on mit_b0
    stream          a step of `mrcfa` on mit_b0; the past is full
    four frames     what the original does for every frame: all four encoded anew
    ours, b1        a step of `single` on mit_b1
    theirs, b1      transformers' SegFormer-B1 with the same weights, up to the same logits

Rounds in which all take turns; ratios of least process CPU times, which a busy machine disturbs
least. Goals: stream / single at most 1.6, four frames / stream at least 2.5, theirs / ours at least
1. transformers is a requirement of development; without it that row is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from timing import COMPARED, interleaved, ratio

import main
from models import build_model
from models.deploy import for_inference
from utils.checkpoint import load_weights
from utils.run.allocator import keep_freed_memory
from utils.run.benchmark import machine

ROUNDS = 7
GOALS = {"stream / single": 1.6, "four frames / stream": 2.5, "theirs, b1 / ours, b1": 1.0}


def built(method: str, backbone: str, classes: int):
    argv = ["--inference", "--savedir", "unused", "--method", method, "--backbone", backbone]
    return build_model(main.parse_args(argv), classes).eval()


def of_mrcfa(size: tuple[int, int], classes: int) -> dict[str, Callable]:
    """What takes turns on mit_b0, by name."""
    single = for_inference(built("single", "mit_b0", classes))
    mrcfa = for_inference(built("mrcfa", "mit_b0", classes))
    frames = torch.rand(1 - min(mrcfa.offsets), 1, 3, *size)
    state = mrcfa.start()
    for frame in frames[:-1]:
        state = mrcfa.observe(frame, state)
    clip = frames[[offset - 1 for offset in (*mrcfa.offsets, 0)]].transpose(0, 1)
    return {
        "single": lambda: single.step(frames[-1], None),
        "stream": lambda: mrcfa.step(frames[-1], state),
        "four frames": lambda: mrcfa(clip),
    }


def of_segformer(size: tuple[int, int], classes: int, folder: Path) -> dict[str, Callable]:
    """Ours and transformers' SegFormer-B1; nothing without transformers."""
    if importlib.util.find_spec("transformers") is None:
        print("transformers is not installed: its SegFormer is left out")
        return {}
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    widths = {"hidden_sizes": [64, 128, 320, 512], "decoder_hidden_size": 256}
    theirs = SegformerForSemanticSegmentation(SegformerConfig(num_labels=classes, **widths)).eval()
    path = folder / "segformer.pth"
    torch.save(theirs.state_dict(), path)
    ours = built("single", "mit_b1", classes)
    load_weights(ours, path, complete=True)
    path.unlink()
    frame = torch.rand(1, 3, *size)
    expected = theirs(ours.backbone.normalize(frame)).logits
    ours = for_inference(ours)
    torch.testing.assert_close(ours.step(frame, None)[0], expected, rtol=1e-3, atol=1e-3)
    return {"ours, b1": lambda: ours.step(frame, None), "theirs, b1": lambda: theirs(frame).logits}


def size_of(text: str) -> tuple[int, int]:
    """HxW -> (H, W)."""
    height, _, width = text.partition("x")
    return int(height), int(width)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=size_of, default=(480, 480))
    parser.add_argument("--classes", type=int, default=124)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("."), help="for a file of 55 MB")
    parser.add_argument("--json", type=Path)
    return parser.parse_args(argv)


def run(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    # As main.py runs
    keep_freed_memory()
    with torch.inference_mode():
        rows = interleaved(of_mrcfa(args.size, args.classes), args.rounds, "cpu")
        segformers = of_segformer(args.size, args.classes, args.folder)
        rows |= interleaved(segformers, args.rounds, "cpu")
    ratios = {}
    for name in GOALS:
        slow, fast = name.split(" / ")
        if slow in rows:
            ratios[name] = ratio(rows, slow, fast, "cpu")
    times = {name: row[COMPARED["cpu"]] for name, row in rows.items()}
    result = {
        "size": args.size,
        "classes": args.classes,
        "threads": args.threads,
        "environment": machine(),
        "ms": times,
        "goals": GOALS,
        "ratios": ratios,
    }
    show(times, ratios)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2))
    return result


def show(times: dict[str, float], ratios: dict[str, float]) -> None:
    for name, milliseconds in times.items():
        print(f"{name:<24} {milliseconds:8.1f} ms")
    for name, value in ratios.items():
        print(f"{name:<24} {value:8.2f}    goal {GOALS[name]}")


if __name__ == "__main__":
    run()
