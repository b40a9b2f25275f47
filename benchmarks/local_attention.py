"""How fast is local attention beside the other ways to compute it?

    python benchmarks/local_attention.py [--quick] [--threads 1 2] [--device cuda] [--json FILE]

At ERFNet's shape (64x128, 16 + 64 channels, T = 4, window 21). Every way is first held against float64 on a small odd
map, ours to 1e-5 of the largest value, others to 1e-4: adding 1764 exponentials one by one loses more; then all are
timed in turns. Tables: wall time and process CPU time, medians over the rounds; times relative to ours; extra peak
memory, each way in a process of its own. On a machine that does other things too, trust CPU time on one thread.
With --device cuda there is one more table, at PSPNet101's shape (129x257, 128 + 2048 channels, T = 3): ours exactly, by
tensor cores as tf32 and of bfloat16 maps, beside the others. A way that rounds is held to what its type allows, against
float64 of the maps that it is given.
--keep-memory: freed memory is kept, as main.py runs; ways that make large tensors gain most by it. --quick: a quarter
of the map, three rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import attention_ways as ways
import torch
import unfused_cuda

from models.ops import local_attention
from utils.run.allocator import keep_freed_memory
from utils.run.benchmark import machine

GATE, GATE_OF_OTHERS = 1e-5, 1e-4
GATE_OF_TF32, GATE_OF_BF16 = 1e-3, 1e-2
SHAPES = {
    "full": (64, 128, 16, 64, 4, 21),
    "quick": (32, 64, 16, 64, 4, 21),
    "tiny": (8, 11, 3, 4, 2, 5),
}
SMALL = (13, 27, 16, 64, 2, 21)  # H, W, C, V, T, window: odd, and with a window larger than the map
PSP101, SMALL_PSP101 = (129, 257, 128, 2048, 3, 21), (13, 27, 128, 2048, 2, 21)


class Way(NamedTuple):
    """A way to read a memory, the error that it may make, and the type of the maps that it is given."""

    read: Callable
    gate: float = GATE_OF_OTHERS
    dtype: torch.dtype = torch.float32


def ours(query, keys, values, size):
    return local_attention(query, keys, values, size)


def with_backend(name: str):
    return lambda query, keys, values, size: local_attention(
        query, keys, values, size, backend=name
    )


def as_tf32(query, keys, values, size):
    switches = torch.backends.cuda.matmul
    before, switches.fp32_precision = switches.fp32_precision, "tf32"
    try:
        return ours(query, keys, values, size)
    finally:
        switches.fp32_precision = before


PACKAGES = {
    "flex": Way(ways.flex),
    "natten": Way(ways.natten),
    "correlation only": Way(ways.correlation_only),
}
WAYS = {
    "cpu": {
        **{name: Way(with_backend(name), GATE) for name in ("cpp", "tiled")},
        "unfold": Way(ways.unfold),
        "shifts": Way(ways.shifts),
        "sdpa": Way(ways.sdpa),
        **PACKAGES,
    },
    "cuda": {"auto": Way(ours, GATE), "unfused": Way(unfused_cuda.unfused), **PACKAGES},
}
WAYS_AT_PSP101 = {
    "auto": Way(ours, GATE),
    "auto, tf32": Way(as_tf32, GATE_OF_TF32),
    "auto, bf16": Way(ours, GATE_OF_BF16, torch.bfloat16),
    "unfused": Way(unfused_cuda.unfused),
    **PACKAGES,
}
BACKWARD = {
    "cpu": {
        "cpp": with_backend("cpp"),
        "tiled": with_backend("tiled"),
        "shifts, autograd": with_backend("reference"),
    },
    "cuda": {"auto": ours},
}


def inputs(shape, device: str, dtype=torch.float32, grad: bool = False):
    """Query, keys and values as convolutions leave them: channels last."""
    height, width, key, value, frames, size = shape
    generator = torch.Generator().manual_seed(0)

    def maps(channels):
        x = torch.randn(1, channels, height, width, generator=generator, dtype=torch.float64)
        x = x.to(device, dtype, memory_format=torch.channels_last)
        return x.requires_grad_(grad)

    return maps(key), [maps(key) for _ in range(frames)], [maps(value) for _ in range(frames)], size


def error(way: Way, shape, device: str) -> float:
    """max |way - float64| / max |float64|, of the same maps."""
    query, keys, values, size = inputs(shape, device, way.dtype)
    exact = local_attention(
        query.double(),
        [x.double() for x in keys],
        [x.double() for x in values],
        size,
        backend="reference",
    )
    return float(
        (way.read(query, keys, values, size).double() - exact).abs().max() / exact.abs().max()
    )


def gated(table: dict[str, Way], shape, device: str) -> tuple[dict[str, Way], dict]:
    """Ways that can run and are right -> (those, their rows); the reasons of the others go into the rows."""
    usable, rows = {}, {}
    for name, way in table.items():
        try:
            if name == "correlation only":
                way.read(*inputs(shape, device))
                rows[name] = {}
            else:
                rows[name] = {"error": error(way, shape, device)}
            wrong = not rows[name].get("error", 0.0) <= way.gate
        except Exception as problem:  # whatever a package that is missing or too old may raise
            rows[name], wrong = (
                {"not run": f"{type(problem).__name__}: {str(problem).splitlines()[0][:90]}"},
                True,
            )
        if wrong:
            rows[name].setdefault("not run", f"its error is {rows[name].get('error')}")
        else:
            usable[name] = way
    return usable, rows


def once(compute, device: str) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    if device == "cuda":
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    compute()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def interleaved(computes: dict, rounds: int, device: str) -> dict[str, dict]:
    """Medians over rounds in which all take turns, after one call each to warm up."""
    for compute in computes.values():
        compute()
    spent = {name: [] for name in computes}
    for _ in range(rounds):
        for name, compute in computes.items():
            spent[name].append(once(compute, device))
    return {
        name: {
            "wall_ms": 1000 * statistics.median(w for w, _ in pairs),
            "cpu_ms": 1000 * statistics.median(c for _, c in pairs),
            "least_cpu_ms": 1000 * min(c for _, c in pairs),
        }
        for name, pairs in spent.items()
    }


def relative(rows: dict[str, dict]) -> dict[str, dict]:
    """Adds how many times as long as ours, the first row, each takes."""
    first = next(row for row in rows.values() if "wall_ms" in row)
    for row in rows.values():
        if "wall_ms" in row:
            row["times_ours_wall"] = row["wall_ms"] / first["wall_ms"]
            row["times_ours_cpu"] = row["cpu_ms"] / max(first["cpu_ms"], 1e-6)
    return rows


def forward(table: dict, shape, small, rounds: int, device: str) -> dict[str, dict]:
    with torch.inference_mode():
        usable, rows = gated(table, small, device)
        arguments = {
            dtype: inputs(shape, device, dtype) for dtype in {way.dtype for way in usable.values()}
        }
        timed = interleaved(
            {name: lambda way=way: way.read(*arguments[way.dtype]) for name, way in usable.items()},
            rounds,
            device,
        )
    return relative({name: row | timed.get(name, {}) for name, row in rows.items()})


def at_psp101(skipped: list[str], rounds: int, device: str) -> dict[str, dict]:
    """The table of PSPNet101 on a GPU; none where its maps do not fit."""
    table = {name: way for name, way in WAYS_AT_PSP101.items() if name not in skipped}
    try:
        found = forward(table, PSP101, SMALL_PSP101, rounds, device)
    except torch.OutOfMemoryError as problem:
        print(f"\nforward, PSPNet101's shape: not run: {str(problem).splitlines()[0]}")
        return {}
    show(f"forward, H, W, C, V, T, window = {PSP101}", found)
    return found


def backward(table: dict, shape, rounds: int, device: str) -> dict[str, dict]:
    """Forward and backward."""
    query, keys, values, size = inputs(shape, device, grad=True)

    def compute(way):
        torch.autograd.grad(way(query, keys, values, size).sum(), [query, *keys, *values])

    return relative(
        interleaved(
            {name: lambda way=way: compute(way) for name, way in table.items()}, rounds, device
        )
    )


def peak(compute, device: str) -> float:
    """MiB above what was in use before."""
    if device == "cuda":
        compute()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        compute()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    compute()  # what is allocated once, masks and workspaces, is not what a read needs

    def status(name):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(name))) / 1024

    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    compute()
    return status("VmHWM") - before


def memory(names: list[str], mode: str, device: str) -> dict[str, float | None]:
    """Extra peak memory of each way in a process of its own."""
    found = {}
    for name in names:
        command = [
            sys.executable,
            __file__,
            "--memory-of",
            name,
            "--shape",
            mode,
            "--device",
            device,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        found[name] = float(done.stdout) if done.returncode == 0 else None
    return found


def show(title: str, rows: dict[str, dict]) -> None:
    columns = ("wall ms", "cpu ms", "least cpu", "wall/ours", "cpu/ours", "error")
    print(f"\n{title}\n{'':<20}" + "".join(f"{column:>10}" for column in columns))
    for name, row in rows.items():
        if "wall_ms" not in row:
            print(f"{name:<20}not run: {row['not run']}")
            continue
        numbers = "".join(f"{row[key]:10.1f}" for key in ("wall_ms", "cpu_ms", "least_cpu_ms"))
        numbers += "".join(f"{row[key]:10.2f}" for key in ("times_ours_wall", "times_ours_cpu"))
        print(f"{name:<20}{numbers}" + (f"{row['error']:10.1e}" if "error" in row else ""))


def run(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_const", dest="shape", const="quick", help="a quarter of the map"
    )
    parser.add_argument(
        "--tiny", action="store_const", dest="shape", const="tiny", help="for the tests"
    )
    parser.add_argument("--shape", choices=SHAPES, default="full")
    parser.add_argument("--rounds", type=int, help="default 5, with --quick 3")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--keep-memory", action="store_true", help="utils.allocator")
    parser.add_argument("--skip", nargs="+", default=[], metavar="WAY")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.set_defaults(shape="full")
    args = parser.parse_args(argv)
    shape, rounds = SHAPES[args.shape], args.rounds or (5 if args.shape == "full" else 3)
    table = {name: way for name, way in WAYS[args.device].items() if name not in args.skip}
    if args.memory_of:
        torch.set_num_threads(1)
        with torch.inference_mode():
            print(
                peak(lambda: table[args.memory_of].read(*inputs(shape, args.device)), args.device)
            )
        return {}
    if args.keep_memory:
        keep_freed_memory()
    result = {
        "shape": shape,
        "rounds": rounds,
        "forward": {},
        "backward": {},
        "memory_kept": args.keep_memory,
        "environment": machine(),
    }
    print(
        f"{result['environment']['cpu']}, load {result['environment']['load']}, AVX512_BF16 "
        f"{result['environment']['avx512_bf16']}; H, W, C, V, T, window = {shape}; {rounds} rounds"
    )
    for threads in args.threads:
        torch.set_num_threads(threads)
        torch.compiler.reset()  # compiled code is for one number of threads
        small = SMALL if args.shape != "tiny" else shape
        found = forward(table, shape, small, rounds, args.device)
        show(f"forward, {threads} threads", found)
        result["forward"][str(threads)] = found
        ran = {
            name: way
            for name, way in BACKWARD[args.device].items()
            if "not run" not in found.get(name, {})
        }
        found = backward(ran, shape, rounds, args.device)
        show(f"forward and backward, {threads} threads", found)
        result["backward"][str(threads)] = found
    if args.device == "cuda" and args.shape == "full":
        result["psp101"] = at_psp101(args.skip, rounds, args.device)
    if args.shape != "tiny":
        timed = [
            name
            for name, row in result["forward"][str(args.threads[0])].items()
            if "wall_ms" in row
        ]
        result["extra_peak_mib"] = memory(timed, args.shape, args.device)
        print(
            "\nextra peak memory, MiB: "
            + ", ".join(f"{n} {v}" for n, v in result["extra_peak_mib"].items())
        )
    if args.json:
        args.json.write_text(json.dumps(result, indent=2))
    return result


if __name__ == "__main__":
    run()
