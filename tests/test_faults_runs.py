"""What befalls a run: losses that are not finite, signals, clocks, workers that die, ranks that
disagree.

The table is in test_faults.py.
"""

from __future__ import annotations

import ast
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import engine
import main
from command import ROOT, TINY, assert_one_line, call
from kills import Forked, Ranks, assert_same, assert_same_training
from models import build_model
from test_imports import files
from trees import make_camvid
from utils import checkpoint
from utils.run import errors
from utils.run.dist import launch
from utils.training.nonfinite import take_step
from utils.training.training_state import CHECKPOINT

TRAIN = [
    "--training",
    *TINY,
    "--num-workers",
    "0",
    "--batch-size",
    "2",
    "--num-epochs",
    "1",
    "--steps-save",
    "4",
    "--optimizer",
    "sgd",
    "--momentum",
    "0",
]
NAN, INF = float("nan"), float("inf")


def state(folder: Path) -> dict:
    return checkpoint.read(folder / CHECKPOINT)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training of 8 steps to which nothing happened."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert call(*TRAIN, "--savedir", folder).returncode == 0
    return folder


# Losses and gradients that are not finite

FORWARD = engine.LossModule.forward


def poisoned(steps, value: float, where: str = "frames", rank: str = "0") -> Callable:
    """LossModule.forward with `value` in the frames, the loss or its gradients at these steps of a
    rank, from 1."""
    step = 0

    def forward(self, clip, labels, flows):
        nonlocal step
        step += 1
        bad = step in steps and os.environ.get("RANK", "0") == rank
        losses = FORWARD(self, clip * value if bad and where == "frames" else clip, labels, flows)
        if bad and where == "loss":
            losses["ce"] = losses["ce"] + value
        if bad and where == "gradients":
            losses["ce"].register_hook(lambda gradient: gradient * value)
        return losses

    return forward


def poison(*args, **options) -> Callable[[], None]:
    """For the `first` of a forked run."""
    return lambda: setattr(engine.LossModule, "forward", poisoned(*args, **options))


WRONG = [
    (NAN, "frames", "loss is not finite"),
    (-INF, "loss", "loss is not finite"),
    (INF, "gradients", "gradients are not finite"),
]


@pytest.mark.parametrize("value, where, message", WRONG)
def test_a_loss_that_is_not_finite_stops_the_run_which_can_go_on_from_the_last_good_state(
    tmp_path, trained, monkeypatch, value, where, message
):
    monkeypatch.setattr(engine.LossModule, "forward", poisoned([5], value, where))
    done = call(*TRAIN, "--savedir", tmp_path / "run")
    assert_one_line(done, f"the {message}")
    assert "in epoch 1, step 5: ce " in done.stderr and "lower --lr-start" in done.stderr
    assert "--on-nonfinite skip" in done.stderr
    assert state(tmp_path / "run")["progress"]["step"] == 4
    monkeypatch.undo()
    assert call(*TRAIN, "--savedir", tmp_path / "run", "--resume").returncode == 0
    assert_same_training(trained, tmp_path / "run")


def test_all_terms_of_a_loss_that_is_not_finite_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(engine.LossModule, "forward", poisoned([2], NAN))
    done = call(
        *TRAIN,
        "--method",
        "lma",
        "--corr-size",
        "5",
        "--model-struct",
        "aux_mem_loss",
        "--savedir",
        tmp_path,
    )
    assert_one_line(done, "the loss is not finite in epoch 1, step 2: ")
    assert done.stderr.count(" nan") >= 2, done.stderr


@pytest.mark.parametrize("value, where, message", WRONG)
def test_a_step_that_is_left_out_changes_nothing_and_is_counted(
    tmp_path, monkeypatch, value, where, message
):
    """The last step: what is left is the state that a stop at it keeps, batch norm included."""
    for name, words in (("stop", []), ("skip", ["--on-nonfinite", "skip"])):
        monkeypatch.setattr(engine.LossModule, "forward", poisoned([8], value, where))
        done = call(
            *TRAIN, "--steps-save", "7", "--no-iouVal", *words, "--savedir", tmp_path / name
        )
    assert done.returncode == 0, done.stderr
    assert f"left out: the {message}" in done.stderr and "1 of 8 steps were left out" in done.stdout
    stopped, skipped = (state(tmp_path / name) for name in ("stop", "skip"))
    for part in ("state_dict", "optimizer"):
        assert_same(stopped[part], skipped[part])
    loss = float((tmp_path / "skip" / "automated_log.txt").read_text().split()[7])
    assert loss == pytest.approx(stopped["progress"]["sums"]["ce"] / 7, abs=1e-4), (
        "the mean of what was done"
    )


def test_what_was_left_out_is_still_counted_after_a_resume(tmp_path, monkeypatch):
    words = [*TRAIN, "--on-nonfinite", "skip", "--no-iouVal", "--savedir"]
    monkeypatch.setattr(engine.LossModule, "forward", poisoned([3], NAN))
    assert call(*words, tmp_path / "whole").returncode == 0
    assert (
        Forked(tmp_path, *words, tmp_path / "killed", first=kill_at(5, poisoned([3], NAN))).wait()
        == -signal.SIGKILL
    )
    monkeypatch.undo()
    done = call(*words, tmp_path / "killed", "--resume")
    assert "1 of 8 steps were left out" in done.stdout, done.stderr
    assert_same(state(tmp_path / "whole"), state(tmp_path / "killed"))


def kill_at(step: int, forward: Callable) -> Callable[[], None]:
    def counting(*args):
        nonlocal step
        step -= 1
        if step == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return forward(*args)

    return lambda: setattr(engine.LossModule, "forward", counting)


def test_an_epoch_of_which_every_step_would_be_left_out_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(engine.LossModule, "forward", poisoned(range(99), NAN))
    done = call(*TRAIN, "--on-nonfinite", "skip", "--savedir", tmp_path)
    assert_one_line(done, "the loss is not finite in epoch 1, step 8: ce nan; lower --lr-start")
    assert "--on-nonfinite" not in done.stderr.split("main.py: error:")[1]


@pytest.mark.parametrize("where", ["frames", "gradients"])
def test_two_ranks_leave_a_step_out_together(tmp_path, where):
    words = [
        *TRAIN,
        "--synthetic-length",
        "4",
        "--batch-size",
        "1",
        "--no-iouVal",
        "--on-nonfinite",
        "skip",
        "--savedir",
        tmp_path / "run",
    ]
    ranks = Ranks(tmp_path, *words, first=poison([3], NAN, where, rank="1"))
    ranks.succeed()
    assert ranks.members[0].err.read_text().count("left out: the ") == 1
    assert "1 of 4 steps were left out" in ranks.members[0].out.read_text()
    found = state(tmp_path / "run")["state_dict"]
    assert all(value.isfinite().all() for value in found.values())


def test_in_half_precision_the_scaler_leaves_steps_out_by_itself():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120, growth_interval=100)
    assert take_step(optimizer, scaler, (1e9 * weight).sum(), {"ce": 1.0}) is None
    assert (weight == 1).all() and scaler.get_scale() == 2.0**119, (
        "its own skipping: the scale was too large"
    )
    assert take_step(optimizer, scaler, (NAN * weight).sum(), {"ce": NAN}) == "loss is"
    assert (weight == 1).all() and scaler.get_scale() == 2.0**119, "no scale would help here"
    while take_step(optimizer, scaler, weight.sum(), {"ce": 1.0}) is None and (weight == 1).all():
        assert scaler.get_scale() > 1
    assert torch.allclose(weight, torch.tensor(0.5))


# Signals


@pytest.mark.parametrize(
    "number, name, code", [(signal.SIGTERM, "SIGTERM", 143), (signal.SIGINT, "SIGINT", 130)]
)
def test_a_signal_saves_names_itself_and_costs_nothing(tmp_path, trained, number, name, code):
    words = [*TRAIN, "--steps-save", "0", "--savedir", tmp_path / "run"]
    run = Forked(tmp_path, *words, first=signal_at(4, number))
    assert run.wait() == code
    assert (
        run.err.read_text().splitlines()[-1]
        == f"main.py: error: stopped by {name}; --resume goes on from here"
    )
    assert state(tmp_path / "run")["progress"]["step"] == 4
    assert call(*words, "--resume").returncode == 0
    assert_same_training(trained, tmp_path / "run")


def signal_at(step: int, number: int) -> Callable[[], None]:
    """The process gets the signal in its step-th step."""

    def forward(*args):
        nonlocal step
        step -= 1
        if step == 0:
            os.kill(os.getpid(), number)
        return FORWARD(*args)

    return lambda: setattr(engine.LossModule, "forward", forward)


def test_a_signal_to_one_of_two_ranks_stops_both_with_one_line(tmp_path):
    def first():
        if os.environ["RANK"] == "1":
            signal_at(3, signal.SIGTERM)()

    ranks = Ranks(tmp_path, *TRAIN, "--batch-size", "1", "--savedir", tmp_path / "run", first=first)
    assert [member.wait() for member in ranks.members] == [143, 143]
    told = [member.err.read_text().count("stopped by SIGTERM") for member in ranks.members]
    assert told == [1, 0] and state(tmp_path / "run")["progress"]["step"] == 3


# The clock


def test_nothing_depends_on_a_clock_that_runs_backwards(tmp_path, trained):
    def first():
        import tqdm

        now = 2e9

        def backwards() -> float:
            nonlocal now
            now -= 3600.0
            return now

        time.time = tqdm.std.time = backwards

    Forked(tmp_path, *TRAIN, "--savedir", tmp_path / "run", first=first).succeed()
    assert_same_training(trained, tmp_path / "run")


def test_nobody_asks_for_the_time_of_day():
    for path in files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in (
                    "time.time",
                    "time.time_ns",
                    "datetime.datetime.now",
                ), path


# Workers and ranks that die or disagree


def children(process: int) -> list[int]:
    return [
        int(number)
        for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()
    ]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_a_loader_worker_that_dies_is_told_and_the_run_goes_on_later(tmp_path, trained):
    words = [*TRAIN, "--num-workers", "1", "--savedir", tmp_path / "run"]
    run = Forked(tmp_path, *words, "--num-epochs", "500")
    while not (tmp_path / "run" / CHECKPOINT).exists():
        assert run.wait(0.02) is None, run.err.read_text()
    os.kill(children(run.pid)[0], signal.SIGKILL)
    assert run.wait() == 2
    lines = [line for line in run.err.read_text().splitlines() if "main.py: error:" in line]
    assert (
        len(lines) == 1 and "a loader worker died" in lines[0] and "lower --num-workers" in lines[0]
    )
    assert "Traceback" not in run.err.read_text() and not list((tmp_path / "run").glob(".*"))
    assert call(*words, "--overwrite").returncode == 0
    assert_same_training(trained, tmp_path / "run")


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(104, "Connection reset by peer"),
        EOFError(),
        FileNotFoundError(2, "No such file or directory", "/tmp/listener"),
    ],
)
def test_a_loader_worker_that_dies_while_it_hands_over_a_batch_is_told_too(
    tmp_path, monkeypatch, error
):
    def broken(self):
        raise error

    monkeypatch.setattr(torch.utils.data.DataLoader, "__iter__", broken)
    assert_one_line(
        call(*TRAIN, "--num-workers", "1", "--savedir", tmp_path), "a loader worker died"
    )


def test_a_rank_that_is_killed_is_named_by_the_launcher(tmp_path, capfd):
    """The launcher alone, on a script that needs no torch."""
    (tmp_path / "job.py").write_text(
        "import os, signal, time\n"
        "if os.environ['RANK'] == '1': os.kill(os.getpid(), signal.SIGKILL)\n"
        "time.sleep(60)\n"
    )
    assert launch(str(tmp_path / "job.py"), [], 2) == 128 + signal.SIGKILL
    assert capfd.readouterr().err == (
        "main.py: error: rank 1 was ended by SIGKILL: if nobody did that, memory was short\n"
    )


def disagreeing(tmp_path, monkeypatch, first: list, second: list) -> list[str]:
    """What the two ranks say, each in one line, with exit code 2."""
    monkeypatch.setattr(errors, "PATIENCE", 0.2)
    ranks = Ranks(tmp_path, each=(first, second))
    assert [member.wait() for member in ranks.members] == [2, 2], "neither waits for ever"
    told = [
        [line for line in member.err.read_text().splitlines() if "main.py: error:" in line]
        for member in ranks.members
    ]
    assert [len(lines) for lines in told] == [1, 1], told
    return [lines[0] for lines in told]


def test_ranks_with_different_options_are_told(tmp_path, monkeypatch):
    words = [*TRAIN, "--savedir", tmp_path / "run"]
    for line in disagreeing(tmp_path, monkeypatch, words, [*words, "--batch-size", "1"]):
        assert (
            "the ranks have different options: rank 0 --batch-size 2, rank 1 --batch-size 1; "
            "start all" in line
        )
    assert not (tmp_path / "run").exists()


def test_ranks_with_different_data_are_told(tmp_path, monkeypatch):
    words = [
        "--training",
        "--method",
        "single",
        "--dataset",
        "camvid",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--batch-size",
        "2",
        "--num-workers",
        "0",
        "--savedir",
        tmp_path / "run",
        "--data-root",
    ]
    roots = [make_camvid(tmp_path / name, frames=frames) for name, frames in (("a", 4), ("b", 6))]
    for line in disagreeing(tmp_path, monkeypatch, *([*words, root] for root in roots)):
        assert "the ranks have different training data: rank 0 4 clips of 1 videos" in line
    assert not (tmp_path / "run").exists()


def test_ranks_with_different_weights_are_told(tmp_path, monkeypatch):
    args = main.parse_args(["--training", *TINY, "--savedir", "unused"])
    for name in "ab":
        checkpoint.save(tmp_path / f"{name}.pth", build_model(args, 11).state_dict())
    words = ["--eval-mode", *TINY, "--savedir", tmp_path / "run", "--weights"]
    for line in disagreeing(
        tmp_path, monkeypatch, *([*words, tmp_path / f"{name}.pth"] for name in "ab")
    ):
        assert "the ranks have different weights: rank 0 those of checksum" in line
    assert not (tmp_path / "run").exists()


def test_every_file_of_the_program_is_looked_at():
    assert {ROOT / "main.py", ROOT / "engine.py"} <= set(files()) and len(list(files())) > 60
