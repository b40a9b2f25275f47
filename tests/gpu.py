"""Everything that waits for a GPU and fits into some minutes: one JSON, one table.

    python tests/gpu.py [--json gpu.json] [--limit 480] [--only PART ...]
    python tests/gpu.py --dry-run           the same parts on a CPU, as small as they go

It needs no network and no data. A part that fails or runs out of time does not stop the others.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KERNELS = ["tests/test_local_attention_kernel.py", "tests/test_local_attention_tensor.py"]
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
TAIL = 12  # lines of output that are kept of a part


@dataclass(frozen=True)
class Part:
    """One command. seconds: its limit. gpu_only: left out of a dry run.

    stopped: it runs until its time is over and is then asked to stop, which it should do well.
    result: the file of JSON that it writes, if it writes one.
    """

    name: str
    command: list[str]
    seconds: float
    gpu_only: bool = False
    stopped: bool = False
    result: Path | None = None
    needs: str | None = None  # a program that must be installed
    environment: dict[str, str] = field(default_factory=dict)


def parts(device: str, folder: Path, dry: bool) -> list[Part]:
    """What is run, the most important first."""
    benchmark = [sys.executable, "main.py", "--benchmark", "--device", device]
    lmanet = ["--weights", "trained_models/lmanet_erf_synthetic.pth"]
    size = ["--work-size", "64", "128"] if dry else ["--work-size", "512", "1024"]
    sanitizer = ["compute-sanitizer", "--error-exitcode", "1", "--tool"]
    small = [*PYTEST, *KERNELS, "-k", "on_a_gpu_t"]
    return [
        Part("machine", [sys.executable, "-c", MACHINE], 60),
        Part("kernels", [*PYTEST, *KERNELS, "-k", "on_a_gpu"], 150, gpu_only=True),
        device_checks("networks", "tests/device_checks.py", 240, device, dry),
        device_checks("mrcfa", "tests/device_mrcfa.py", 180, device, dry),
        device_checks("etc", "tests/device_etc.py", 180, device, dry),
        *(training(precision, device, folder, dry) for precision in precisions(device)),
        speed_table("local_attention", device, folder, dry),
        speed_table("inference", device, folder, dry),
        Part(
            "stream at 512x1024",
            [*benchmark, *lmanet, *size, "--max-frames", "8" if dry else "200"]
            + ["--savedir", str(folder / "speed")],
            120,
            result=folder / "speed" / "benchmark.json",
        ),
        Part("memcheck", [*sanitizer, "memcheck", *small], 120, True, needs="compute-sanitizer"),
        Part("racecheck", [*sanitizer, "racecheck", *small], 120, True, needs="compute-sanitizer"),
    ]


# A dry run compares the CPU with itself: a few show that the checks run.
FEW = {
    "tests/device_checks.py": "single and erf",
    "tests/device_mrcfa.py": "autocast",
    "tests/device_etc.py": "computed",
}


def device_checks(name: str, file: str, seconds: float, device: str, dry: bool) -> Part:
    """Tests that compare the device with the CPU."""
    command = [*PYTEST, file, *(["-k", FEW[file]] if dry else [])]
    return Part(name, command, seconds, environment={"STREAMSEG_TEST_DEVICE": device})


MACHINE = """
import json, torch, sys
from utils.output.report import environment
json.dump(environment(), sys.stdout, indent=1)
"""


def precisions(device: str) -> list[str]:
    return ["fp32", "tf32", "bf16", "fp16"] if device == "cuda" else ["fp32", "bf16"]


def training(precision: str, device: str, folder: Path, dry: bool) -> Part:
    """A training of LMANet that is stopped by a signal: it must save and say so."""
    savedir = folder / f"train_{precision}"
    size = ["32", "64"] if dry else ["256", "512"]
    words = [
        *("--training --method lma --backbone psp18 --train-encoder --train-decoder").split(),
        *("--dataset synthetic --num-epochs 1000 --no-iouVal --steps-loss 10").split(),
        *("--synthetic-videos 16 1 1 --synthetic-length 4 --synthetic-size").split(),
        *size,
        *("--corr-size 7 --batch-size 2 --device").split(),
        device,
        *("--precision", precision, "--savedir", str(savedir)),
    ]
    seconds = 15 if dry else 60
    checkpoint = savedir / "checkpoint.pth.tar"
    command = [sys.executable, "main.py", *words]
    return Part(f"training {precision}", command, seconds, stopped=True, result=checkpoint)


def speed_table(name: str, device: str, folder: Path, dry: bool) -> Part:
    """A benchmark script, at its quickest in a dry run."""
    result = folder / f"{name}.json"
    command = [sys.executable, f"benchmarks/{name}.py", "--device", device, "--json", str(result)]
    command.append("--quick")
    if dry:
        command += ["--rounds", "1", "--shape", "tiny"] if name == "local_attention" else TINY
    return Part(f"speed: {name}", command, 180, result=result)


TINY = ["--rounds", "1", "--skip", "onnx"]


def run(part: Part) -> dict:
    """Run one part -> what became of it."""
    if part.needs and not shutil.which(part.needs):
        return {"state": "left out", "why": f"{part.needs} is not installed"}
    started = time.monotonic()
    process = subprocess.Popen(
        part.command,
        cwd=ROOT,
        env={**os.environ, **part.environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=part.seconds)
        in_time = True
    except subprocess.TimeoutExpired:
        in_time = False
        output = stop(process, gently=part.stopped)
    found = {
        "state": state(part, process.returncode, in_time),
        "seconds": round(time.monotonic() - started, 1),
        "code": process.returncode,
        "output": output.replace("\r", "\n").splitlines()[-TAIL:],
    }
    if part.result and part.result.is_file():
        found["result"] = read_result(part.result)
    return found


def stop(process: subprocess.Popen, *, gently: bool) -> str:
    """End a part whose time is over -> its output."""
    if gently:
        process.send_signal(signal.SIGTERM)
        try:
            return process.communicate(timeout=30)[0]
        except subprocess.TimeoutExpired:
            pass
    os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()[0]


def state(part: Part, code: int, in_time: bool) -> str:
    if part.stopped:
        return "passed" if code == 128 + signal.SIGTERM else "failed"
    if not in_time:
        return "out of time"
    return "passed" if code == 0 else "failed"


def read_result(path: Path):
    """What a part has measured: JSON, or how far a training came."""
    if path.suffix == ".json":
        return json.loads(path.read_text())
    import torch

    progress = torch.load(path, map_location="cpu", weights_only=True)["progress"]
    return {name: progress[name] for name in ("epoch", "step", "sums")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="on a CPU, tiny")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    parser.add_argument("--limit", type=float, default=480, help="seconds in all")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART")
    args = parser.parse_args()
    device = "cpu" if args.dry_run else "cuda"
    results = {}
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for part in parts(device, Path(folder), args.dry_run):
            if args.only and part.name not in args.only:
                continue
            if args.dry_run and part.gpu_only:
                results[part.name] = {"state": "left out", "why": "it needs a GPU"}
            elif time.monotonic() - begun > args.limit:
                results[part.name] = {"state": "left out", "why": "the time was over"}
            else:
                results[part.name] = run(part)
            report(part.name, results[part.name])
            # After each part: what a lost machine has measured is kept.
            args.json.write_text(json.dumps(results, indent=1) + "\n")
    return int(any(found["state"] in ("failed", "out of time") for found in results.values()))


def report(name: str, found: dict) -> None:
    print(f"{name:24}{found['state']:12}{found.get('seconds', ''):>8}  {found.get('why', '')}")
    if found["state"] in ("failed", "out of time"):
        print("\n".join(f"    {line}" for line in found["output"]))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
