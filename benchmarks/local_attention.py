"""How fast is local attention beside the other ways to compute it?

    python benchmarks/local_attention.py [--quick] [--threads 1 2] [--device cuda] [--json FILE]

At ERFNet's shape (64x128, 16 + 64 channels, T = 4, window 21). Every way is first compared with
float64 on a small odd map. Ours may differ by 1e-5 of the largest value, others by 1e-4: adding
1764 exponentials one by one loses more. Then all are timed in turns.

Tables: wall time and process CPU time, medians over the rounds; times relative to ours; extra peak
memory, each way in a process of its own. On a machine that does other things too, trust CPU time on
one thread.

With --device cuda there is one more table, at PSPNet101's shape (129x257, 128 + 2048 channels,
T = 3): ours exactly, by tensor cores as tf32 and of bfloat16 maps, beside the others. A way that
rounds may differ by what its type allows, from float64 of the maps that it is given.

--keep-memory: freed memory is kept, as main.py runs; ways that make large tensors gain most by it.
--quick: a quarter of the map, three rounds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import attention_ways as ways
import torch
import unfused_cuda
from flex_attention_way import flex
from timing import interleaved

from models.ops import local_attention
from utils.run.allocator import keep_freed_memory
from utils.run.benchmark import machine

# The largest error allowed, relative to the largest value
GATE = 1e-5
GATE_OF_OTHERS = 1e-4
GATE_OF_TF32 = 1e-3
GATE_OF_BF16 = 1e-2

# H, W, C, V, T, window
SHAPES = {
    "full": (64, 128, 16, 64, 4, 21),
    "quick": (32, 64, 16, 64, 4, 21),
    "tiny": (8, 11, 3, 4, 2, 5),
}
SMALL = (13, 27, 16, 64, 2, 21)  # odd, and with a window larger than the map
SMALL_SHAPES = {"full": SMALL, "quick": SMALL, "tiny": SHAPES["tiny"]}
PSP101 = (129, 257, 128, 2048, 3, 21)
SMALL_PSP101 = (13, 27, 128, 2048, 2, 21)
ROUNDS = {"full": 5, "quick": 3, "tiny": 3}


class Way(NamedTuple):
    """A way to read a memory."""

    read: Callable
    gate: float = GATE_OF_OTHERS  # the error that it may make
    dtype: torch.dtype = torch.float32  # of the maps that it is given
    reads: bool = True  # whether its result is the read, to be compared


def ours(query, keys, values, size):
    return local_attention(query, keys, values, size)


def with_backend(name: str) -> Callable:
    def read(query, keys, values, size):
        return local_attention(query, keys, values, size, backend=name)

    return read


def as_tf32(query, keys, values, size):
    """Ours, with PyTorch's switch set for the call."""
    switches = torch.backends.cuda.matmul
    before = switches.fp32_precision
    switches.fp32_precision = "tf32"
    try:
        return ours(query, keys, values, size)
    finally:
        switches.fp32_precision = before


PACKAGES = {
    "flex": Way(flex),
    "natten": Way(ways.natten),
    "correlation only": Way(ways.correlation_only, reads=False),
}
# The first one of a table is ours, which others are compared with
WAYS = {
    "cpu": {
        "cpp": Way(with_backend("cpp"), GATE),
        "tiled": Way(with_backend("tiled"), GATE),
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


def without(table: dict[str, Way], skipped: list[str]) -> dict[str, Way]:
    return {name: way for name, way in table.items() if name not in skipped}


def inputs(shape, device: str, dtype=torch.float32, grad: bool = False):
    """Query, T keys, T values as convolutions leave them, channels last; and the window."""
    height, width, key_channels, value_channels, frames, size = shape
    generator = torch.Generator().manual_seed(0)

    def map_of(channels):
        # Drawn in float64, so that all types are given the same numbers
        x = torch.randn(1, channels, height, width, generator=generator, dtype=torch.float64)
        x = x.to(device, dtype, memory_format=torch.channels_last)
        return x.requires_grad_(grad)

    query = map_of(key_channels)
    keys = [map_of(key_channels) for _ in range(frames)]
    values = [map_of(value_channels) for _ in range(frames)]
    return query, keys, values, size


# Which ways are right


def error(way: Way, shape, device: str) -> float:
    """max |way - float64| / max |float64|, of the same maps."""
    query, keys, values, size = inputs(shape, device, way.dtype)
    keys64 = [x.double() for x in keys]
    values64 = [x.double() for x in values]
    exact = local_attention(query.double(), keys64, values64, size, backend="reference")
    found = way.read(query, keys, values, size).double()
    difference = (found - exact).abs().max()
    return float(difference / exact.abs().max())


def try_out(way: Way, shape, device: str) -> dict:
    """The row of a way: its error, and why it is not timed if it is not."""
    try:
        if not way.reads:
            way.read(*inputs(shape, device))
            return {}
        found = error(way, shape, device)
    # Whatever a package that is missing or too old may raise
    except Exception as problem:
        reason = str(problem).splitlines()[0][:90]
        return {"not run": f"{type(problem).__name__}: {reason}"}
    # Written so that a NaN is refused
    if not found <= way.gate:
        return {"error": found, "not run": f"its error is {found}"}
    return {"error": found}


# What they cost


def relative(rows: dict[str, dict]) -> dict[str, dict]:
    """Adds how many times as long as ours, the first row, each takes."""
    timed = [row for row in rows.values() if "wall_ms" in row]
    first = timed[0]  # ours
    for row in timed:
        row["times_ours_wall"] = row["wall_ms"] / first["wall_ms"]
        row["times_ours_cpu"] = row["cpu_ms"] / max(first["cpu_ms"], 1e-6)
    return rows


def forward(table: dict[str, Way], shape, small, *, rounds: int, device: str) -> dict[str, dict]:
    """Rows of the ways: their errors on the small shape, their times on the other one."""
    with torch.inference_mode():
        rows = {name: try_out(way, small, device) for name, way in table.items()}
        usable = {name: way for name, way in table.items() if "not run" not in rows[name]}
        types = {way.dtype for way in usable.values()}
        # Ways of the same type share their maps
        arguments = {dtype: inputs(shape, device, dtype) for dtype in types}
        computes = {
            name: lambda way=way: way.read(*arguments[way.dtype]) for name, way in usable.items()
        }
        timed = interleaved(computes, rounds, device)
    return relative({name: row | timed.get(name, {}) for name, row in rows.items()})


def at_psp101(skipped: list[str], rounds: int, device: str) -> dict[str, dict]:
    """The table of PSPNet101 on a GPU; none where its maps do not fit."""
    table = without(WAYS_AT_PSP101, skipped)
    try:
        found = forward(table, PSP101, SMALL_PSP101, rounds=rounds, device=device)
    except torch.OutOfMemoryError as problem:
        print(f"\nforward, PSPNet101's shape: not run: {str(problem).splitlines()[0]}")
        return {}
    show(f"forward, H, W, C, V, T, window = {PSP101}", found)
    return found


def backward(table: dict[str, Callable], shape, rounds: int, device: str) -> dict[str, dict]:
    """Forward and backward."""
    query, keys, values, size = inputs(shape, device, grad=True)

    maps = [query, *keys, *values]

    def compute(read):
        total = read(query, keys, values, size).sum()
        # `grad` adds nothing to the maps' own gradients, so that all rounds are alike
        torch.autograd.grad(total, maps)

    computes = {name: lambda read=read: compute(read) for name, read in table.items()}
    return relative(interleaved(computes, rounds, device))


def peak_of_gpu(compute: Callable) -> float:
    """MiB above what was in use before."""
    compute()
    # The first call may have allocated workspaces
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    compute()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def peak_of_process(compute: Callable) -> float:
    """MiB above what was resident before (Linux)."""
    # What is allocated once, masks and workspaces, is not what a read needs
    compute()
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    compute()
    return status("VmHWM") - before


PEAKS = {"cpu": peak_of_process, "cuda": peak_of_gpu}


def status(name: str) -> float:
    """A line of /proc/self/status, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024  # from KiB
    raise RuntimeError(f"/proc/self/status has no {name}")


def memory(names: list[str], shape: str, device: str) -> dict[str, float | None]:
    """Extra peak memory of each way in a process of its own, MiB; None where that failed."""
    found = {}
    for name in names:
        options = ["--memory-of", name, "--shape", shape, "--device", device]
        # The new process prints its peak and nothing else
        done = subprocess.run([sys.executable, __file__, *options], capture_output=True, text=True)
        found[name] = None
        if done.returncode == 0:
            found[name] = float(done.stdout)
    return found


def print_memory(way: Way, shape, device: str) -> None:
    """What `memory` asks of a new process."""
    torch.set_num_threads(1)
    with torch.inference_mode():
        print(PEAKS[device](lambda: way.read(*inputs(shape, device))))


# The command


def show(title: str, rows: dict[str, dict]) -> None:
    columns = ("wall ms", "cpu ms", "least cpu", "wall/ours", "cpu/ours", "error")
    head = "".join(f"{column:>10}" for column in columns)
    print(f"\n{title}")
    print(f"{'':<20}{head}")
    for name, row in rows.items():
        # Not timed: a package is missing, or the result is wrong
        if "wall_ms" not in row:
            print(f"{name:<20}not run: {row['not run']}")
            continue
        numbers = "".join(f"{row[key]:10.1f}" for key in ("wall_ms", "cpu_ms", "least_cpu_ms"))
        numbers += "".join(f"{row[key]:10.2f}" for key in ("times_ours_wall", "times_ours_cpu"))
        if "error" in row:
            numbers += f"{row['error']:10.1e}"
        print(f"{name:<20}{numbers}")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    size = {"action": "store_const", "dest": "shape"}
    parser.add_argument("--quick", **size, const="quick", help="a quarter of the map")
    parser.add_argument("--tiny", **size, const="tiny", help="for the tests")
    parser.add_argument("--shape", choices=SHAPES, default="full")
    parser.add_argument("--rounds", type=int, help="default 5, with --quick 3")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--keep-memory", action="store_true", help="utils.run.allocator")
    parser.add_argument("--skip", nargs="+", default=[], metavar="WAY")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.set_defaults(shape="full")
    return parser.parse_args(argv)


def run(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    table = without(WAYS[args.device], args.skip)
    if args.memory_of:
        print_memory(table[args.memory_of], SHAPES[args.shape], args.device)
        return {}
    if args.keep_memory:
        keep_freed_memory()
    result = measure(args, table)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2))
    return result


def measure(args: argparse.Namespace, table: dict[str, Way]) -> dict:
    """All tables of the command, printed as they come -> the JSON's content."""
    shape = SHAPES[args.shape]
    rounds = args.rounds or ROUNDS[args.shape]
    where = machine()
    result = {
        "shape": shape,
        "rounds": rounds,
        "forward": {},
        "backward": {},
        "memory_kept": args.keep_memory,
        "environment": where,
    }
    print(
        f"{where['cpu']}, load {where['load']}, AVX512_BF16 {where['avx512_bf16']}; "
        f"H, W, C, V, T, window = {shape}; {rounds} rounds"
    )
    for threads in args.threads:
        reads, gradients = on_threads(threads, args, table, rounds)
        result["forward"][str(threads)] = reads
        result["backward"][str(threads)] = gradients
    if args.device == "cuda" and args.shape == "full":
        result["psp101"] = at_psp101(args.skip, rounds, args.device)
    # Too small to be measured
    if args.shape != "tiny":
        rows = result["forward"][str(args.threads[0])]
        timed = [name for name, row in rows.items() if "wall_ms" in row]
        peaks = memory(timed, args.shape, args.device)
        listed = ", ".join(f"{name} {peak}" for name, peak in peaks.items())
        print(f"\nextra peak memory, MiB: {listed}")
        result["extra_peak_mib"] = peaks
    return result


def on_threads(
    threads: int, args: argparse.Namespace, table: dict[str, Way], rounds: int
) -> tuple[dict, dict]:
    """The tables forward and backward, by so many threads."""
    shape = SHAPES[args.shape]
    torch.set_num_threads(threads)
    torch.compiler.reset()  # compiled code is for one number of threads
    small = SMALL_SHAPES[args.shape]
    reads = forward(table, shape, small, rounds=rounds, device=args.device)
    show(f"forward, {threads} threads", reads)
    # Only ways that were right
    ran = {
        name: way
        for name, way in BACKWARD[args.device].items()
        if "not run" not in reads.get(name, {})
    }
    gradients = backward(ran, shape, rounds, args.device)
    show(f"forward and backward, {threads} threads", gradients)
    return reads, gradients


if __name__ == "__main__":
    run()
