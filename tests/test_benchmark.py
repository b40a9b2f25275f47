"""--benchmark, the scripts in benchmarks/, and what makes runs faster without changing them."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from command import ROOT, run, succeed
from utils.run import benchmark

CPU = torch.device("cpu")
KINDS = {"decode", "pre-process", "network", "post-process", "write", "total"}


@pytest.mark.parametrize(
    "words",
    [["--method", "single"], ["--stm-queue-size", "2", "--corr-size", "5", "--precision", "bf16"]],
    ids=" ".join,
)
def test_the_command_times_every_stage_and_says_what_it_measured(tmp_path, words):
    done = succeed(
        "--benchmark",
        "--dataset",
        "synthetic",
        "--work-size",
        32,
        64,
        "--max-frames",
        12,
        "--threads",
        1,
        "--device",
        "cpu",
        "--savedir",
        tmp_path,
        *words,
    )
    result = json.loads((tmp_path / "benchmark.json").read_text())
    assert set(result["stages"]) == set(result["first_frame_ms"]) == KINDS
    for row in result["stages"].values():
        assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"] and math.isclose(
            row["fps"], 1000 / row["p50_ms"]
        )
        assert row["frames"] == 6
    assert (
        result["overlapped_fps"] > 0
        and result["parameters"] > 1e6
        and result["peak_memory"]["process_mib"] > 50
    )
    assert (
        result["environment"]["cpu"]
        and result["options"]["precision"]
        and result["size"] == [32, 64]
    )
    assert (tmp_path / "benchmark.txt").read_text().strip() in done.stdout


def test_flops_are_counted_on_a_full_memory_and_as_the_paper_of_the_network_counts_them(tmp_path):
    """ERFNet: 53.2 GFLOP on 512x1024, so 1/64 of it on 64x128 (the decoder's sizes divide too)."""
    import main
    from models import build_model

    words = ["--benchmark", "--savedir", "unused"]
    single = build_model(main.parse_args([*words, "--method", "single"]), 19).eval()
    memory = build_model(main.parse_args([*words, "--stm-queue-size", "2"]), 19).eval()
    frame = torch.rand(1, 3, 64, 128)
    assert benchmark.step_flops(single, frame) == pytest.approx(53.2e9 / 64, rel=0.02)
    assert benchmark.step_flops(memory, frame) > 1.15 * benchmark.step_flops(single, frame)


def test_a_stage_is_charged_its_own_time_and_the_first_frame_and_the_warm_up_are_kept_apart(
    monkeypatch,
):
    now = [0.0]

    def takes(durations):
        """A stage that lets the clock go on by so many seconds, frame by frame."""
        remaining = iter(durations)

        def stage(frame):
            now[0] += next(remaining)
            return frame

        return stage

    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: now[0])
    slow = takes([0.5, 0.3, *[0.02] * 7, 0.09])
    stages = {"slow": slow, "fast": takes([0.001] * 10)}
    result = benchmark.summary(benchmark.measure(range(10), stages, CPU), warm_up=1)
    first = result["first_frame_ms"]
    assert [first[name] for name in ("slow", "fast", "total")] == pytest.approx([500, 1, 501])
    measured = result["stages"]
    assert measured["slow"]["frames"] == 8, "without the first and the one of the warm-up"
    assert measured["slow"]["p50_ms"] == pytest.approx(20)
    assert measured["slow"]["p99_ms"] == pytest.approx(90)
    assert measured["fast"]["p99_ms"] == pytest.approx(1)
    assert measured["total"]["p50_ms"] == pytest.approx(21)


def test_percentiles_are_values_that_occurred():
    values = benchmark.percentiles([i / 1000 for i in range(100, 0, -1)])
    assert [values[f"p{q}_ms"] for q in (50, 90, 99)] == pytest.approx([50, 90, 99])
    assert values["fps"] == pytest.approx(20)


def test_what_cannot_be_measured_is_refused_in_one_line(tmp_path):
    for words, message in (
        (["--source", tmp_path / "none.mp4"], "none.mp4"),
        (["--source", "a", "b"], "one --source"),
    ):
        done = run(
            "--benchmark",
            "--method",
            "single",
            "--dataset",
            "synthetic",
            "--savedir",
            tmp_path / "s",
            *words,
        )
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    with pytest.raises(ValueError, match="no frames"):
        benchmark.measure([], {}, CPU)


# The allocator

SPEND = """
import resource, sys, torch
from utils.run.allocator import keep_freed_memory
done = keep_freed_memory() if sys.argv[1] == "keep" else None
torch.set_num_threads(1)
x = torch.ones(16_000_000)        # 64 MB: above what glibc ever learns to keep
for _ in range(8): y = x * 2; del y
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10): y = x * 2; assert y[-1] == 2; del y
print(done, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def spend(*words, **environment) -> list[str]:
    clean = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [sys.executable, "-c", SPEND, *words],
        cwd=ROOT,
        env=clean,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()


def test_freed_memory_is_used_again_instead_of_being_mapped_anew():
    kept, given_back = spend("keep"), spend("leave")
    if kept[0] == "True":  # glibc
        assert int(kept[1]) < int(given_back[1]) / 2


def test_without_glibc_or_where_the_environment_decides_nothing_is_done(monkeypatch):
    from utils.run.allocator import keep_freed_memory

    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    assert keep_freed_memory() is False
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.39"))
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert keep_freed_memory() is False


# The scripts


def script(name: str):
    spec = importlib.util.spec_from_file_location(
        f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_ways_to_read_a_memory_agree_before_they_are_timed(tmp_path):
    result = script("local_attention").run(
        [
            "--tiny",
            "--rounds",
            "1",
            "--threads",
            "1",
            "--skip",
            "flex",
            "--json",
            str(tmp_path / "x.json"),
        ]
    )
    rows = result["forward"]["1"]
    assert {"cpp", "tiled", "unfold", "shifts", "sdpa"} <= set(rows)
    assert all(row["error"] <= 1e-5 for row in rows.values() if "error" in row)
    assert result["backward"]["1"]["tiled"]["cpu_ms"] > 0
    assert json.loads((tmp_path / "x.json").read_text())["environment"]["cpu"]


def test_ways_that_round_are_held_to_what_their_types_allow(monkeypatch):
    module = script("local_attention")
    monkeypatch.setattr(module, "PSP101", (9, 17, 16, 160, 3, 5))
    monkeypatch.setattr(module, "SMALL_PSP101", (5, 9, 16, 160, 2, 5))
    others = ["unfused", "flex", "natten", "correlation only"]
    rows = module.at_psp101(others, 1, "cpu")
    assert list(rows) == ["auto", "auto, tf32", "auto, bf16"] and all(
        row["wall_ms"] > 0 for row in rows.values()
    )
    assert 1e-4 < rows["auto, bf16"]["error"] <= 1e-2
    monkeypatch.setattr(
        module,
        "WAYS_AT_PSP101",
        {
            "exact": module.Way(module.ours, module.GATE, torch.bfloat16),
            "tf32": module.Way(module.as_tf32),
        },
    )
    assert "its error is" in module.at_psp101([], 1, "cpu")["exact"]["not run"]
    assert torch.backends.cuda.matmul.fp32_precision != "tf32"


def test_the_script_of_global_attention_measures_memory_apart(tmp_path):
    words = "--sizes 64x128 --frames 2 --json".split()
    result = script("global_attention").run([*words, str(tmp_path / "x.json")])
    assert set(result["rows"]) == {"64x128 ours", "64x128 explicit"}
    assert all(row["seconds"] >= 0 for row in result["rows"].values())
    module = script("global_attention")
    q, k, v = torch.randn(1, 64, 3, 4), torch.randn(1, 64, 3, 4), torch.randn(1, 256, 3, 4)
    ours, textbook = (module.WAYS[way](q, [k], [v]) for way in ("ours", "explicit"))
    torch.testing.assert_close(ours, textbook, rtol=1e-4, atol=1e-4)


def test_the_script_of_mrcfa_compares_what_it_says(tmp_path):
    words = "--size 64x96 --classes 3 --rounds 1 --folder".split()
    result = script("mrcfa").run([*words, str(tmp_path), "--json", str(tmp_path / "x.json")])
    assert {"stream / single", "four frames / stream"} <= set(result["ratios"])
    assert result["ratios"]["four frames / stream"] > 1
    assert json.loads((tmp_path / "x.json").read_text())["goals"]["stream / single"] == 1.6


def test_the_inference_script_compares_what_it_says(tmp_path):
    result = script("inference").run(
        ["--tiny", "--rounds", "1", "--json", str(tmp_path / "x.json"), "--skip", "onnx"]
    )
    assert result["streaming"]["stream over single"] > 0
    assert (
        result["network"]["prepared"]["error"] <= 1e-5
        and result["network"]["prepared"]["agreement"] == 1
    )
    assert result["metrics"]["equal"] is True
    assert np.isfinite(result["metrics"]["confusion: one-hot over ours"])
