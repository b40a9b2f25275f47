"""The run's log: automated_log.txt to the byte, atomic files, the console, TensorBoard and the curves."""
import io
import logging
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from utils import curves, log

ROOT = Path(__file__).resolve().parents[1]
NAN = math.nan


@pytest.fixture(autouse=True)
def quiet():
    """Each test has a logger of its own and has been told nothing yet."""
    logger = log.get_logger()
    before = logger.handlers[:], logger.level, logger.propagate
    log.warn_once.cache_clear()
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


@pytest.fixture
def warnings(caplog):
    """What was logged so far."""
    caplog.set_level(logging.INFO, logger="streamseg")
    return lambda: [record.getMessage() for record in caplog.records]


def numbers(epoch: int) -> tuple:
    """Values whose four (eight) decimals lose nothing."""
    rng = random.Random(epoch)
    losses = [rng.randrange(10**5) / 10**4 for _ in range(2)]
    return (*losses, *(rng.randrange(10**6) / 10**6 for _ in range(2)), rng.randrange(10**5) / 10**8)


# automated_log.txt

def test_the_file_is_lmanets_to_the_byte(tmp_path):
    writer = log.TrainingLog(tmp_path, resume=False)
    header = b"Epoch\tTrain-loss\tVal-loss\tTrain-mIoU\tVal-mIoU\tlearningRate"
    assert (tmp_path / "automated_log.txt").read_bytes() == header
    writer.write(1, 1.23456, 2, 0, 0.4567891, 2e-4)
    writer.write(2, 0.5, NAN, 0.25, 1, 1.23456789e-5)
    assert (tmp_path / "automated_log.txt").read_bytes() == (
        header + b"\n1\t\t1.2346\t\t2.0000\t\t0.0000\t\t45.6789\t\t0.00020000"
                 b"\n2\t\t0.5000\t\tnan\t\t25.0000\t\t100.0000\t\t0.00001235")


def test_what_was_written_is_what_is_read(tmp_path):
    writer = log.TrainingLog(tmp_path, resume=False)
    rows = [writer.write(epoch, *numbers(epoch)) for epoch in range(1, 60)]
    read = log.read(writer.path)
    assert [row.epoch for row in read] == list(range(1, 60))
    for ours, theirs in zip(read, rows, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-12)
        assert ours[1:] == pytest.approx(numbers(ours.epoch), abs=1e-12)


def test_a_missing_value_is_nan_and_a_log_without_epochs_is_empty(tmp_path):
    writer = log.TrainingLog(tmp_path, resume=False)
    assert log.read(writer.path) == []
    writer.write(1, 1.0, NAN, NAN, 0.5, 1e-4)
    row, = log.read(writer.path)
    assert math.isnan(row.val_loss) and math.isnan(row.train_miou) and row.val_miou == 0.5


def test_logs_with_single_tabs_or_a_last_newline_are_read_too(tmp_path):
    path = tmp_path / "automated_log.txt"
    path.write_text(log.HEADER + "\r\n3\t0.5\t0.25\t0.0\t50.0\t0.001\r\n")
    assert log.read(path) == [log.Row(3, 0.5, 0.25, 0.0, 0.5, 0.001)]


@pytest.mark.parametrize(("text", "line"), [
    ("", 1), ("Epoch\tTrain-IoU", 1), ("1\t\t1.0\t\t1.0\t\t1.0\t\t1.0\t\t0.1", 1),
    (log.HEADER + "\n1\t\t1.0\t\t1.0\t\t1.0\t\t1.0\t\t0.1\n2\t\t1.0", 3),
    (log.HEADER + "\n\n1\t\t1.0\t\t1.0\t\t1.0\t\t1.0\t\t0.1", 2),
    (log.HEADER + "\n1\t\t1.0\t\tnone\t\t1.0\t\t1.0\t\t0.1", 2),
    (log.HEADER + "\n1.5\t\t1.0\t\t1.0\t\t1.0\t\t1.0\t\t0.1", 2),
    (log.HEADER + "\n1\t\t1.0\t\t1.0\t\t1.0\t\t1.0\t\t0.1\t\t7", 2),
    (log.HEADER + "\n\udcff\udcfe", 2)])
def test_garbage_is_refused_with_file_and_line(tmp_path, text, line):
    path = tmp_path / "automated_log.txt"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError) as error:
        log.read(path)
    assert f"{path}, line {line}:" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(ValueError):
        log.TrainingLog(tmp_path, resume=True)
    assert path.read_bytes() == text.encode(errors="surrogateescape"), "a file that is not ours was changed"


def finished(folder: Path, epochs: int) -> bytes:
    """The file of a training that was not interrupted."""
    folder.mkdir()
    writer = log.TrainingLog(folder, resume=False)
    for epoch in range(1, epochs + 1):
        writer.write(epoch, *numbers(epoch))
    return writer.path.read_bytes()


@pytest.mark.parametrize("reached", [0, 1, 4, 7])
@pytest.mark.parametrize("truncate", [False, True])
def test_a_killed_and_resumed_run_leaves_the_same_file(tmp_path, reached, truncate):
    """Killed after logging epoch 7 but with a checkpoint of epoch `reached`."""
    expected = finished(tmp_path / "whole", 10)
    (tmp_path / "killed").mkdir()
    first = log.TrainingLog(tmp_path / "killed", resume=False)
    for epoch in range(1, 8):
        first.write(epoch, *(2 * value for value in numbers(epoch)) if epoch > reached else numbers(epoch))
    second = log.TrainingLog(tmp_path / "killed", resume=True)
    if truncate:
        second.truncate(reached + 1)
        assert [row.epoch for row in log.read(second.path)] == list(range(1, reached + 1))
    for epoch in range(reached + 1, 11):
        second.write(epoch, *numbers(epoch))
    assert second.path.read_bytes() == expected


def test_a_new_training_does_not_keep_an_old_log_and_a_resumed_one_may_begin_without(tmp_path):
    log.TrainingLog(tmp_path, resume=False).write(1, *numbers(1))
    assert log.read(log.TrainingLog(tmp_path, resume=False).path) == []
    (tmp_path / "automated_log.txt").unlink()
    assert log.read(log.TrainingLog(tmp_path, resume=True).path) == []


def test_kill_9_at_any_moment_leaves_a_whole_log(tmp_path):
    code = ("import sys; sys.path.insert(0, sys.argv[1])\n"
            "from utils.log import TrainingLog\nfrom pathlib import Path\n"
            "writer = TrainingLog(Path(sys.argv[2]), resume=True)\nprint('ready', flush=True)\n"
            "for epoch in range(1, 10**6): writer.write(epoch, 1, 1, 1, 1, 1)")
    for attempt in range(4):
        process = subprocess.Popen([sys.executable, "-c", code, str(ROOT), str(tmp_path)], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(0.05 + 0.037 * attempt)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        rows = log.read(tmp_path / "automated_log.txt")
        assert [row.epoch for row in rows] == list(range(1, len(rows) + 1)) and rows
    log.TrainingLog(tmp_path, resume=True).write(1, *numbers(1))
    assert os.listdir(tmp_path) == ["automated_log.txt"], "what the kill left behind should be gone after a write"


# Other files

def test_best_names_epoch_and_fraction(tmp_path):
    log.write_best(tmp_path, 12, 0.73124)
    assert (tmp_path / "best.txt").read_bytes() == b"Best epoch is 12, with mean IoU = 0.7312"


def test_a_text_arrives_as_it_is_and_leaves_nothing_else(tmp_path):
    for text in ("--epochs\n5\r\n", "Zürich", ""):
        log.write_text(tmp_path / "args.txt", text)
        assert (tmp_path / "args.txt").read_bytes() == text.encode()
    assert os.listdir(tmp_path) == ["args.txt"]


def test_a_full_disk_leaves_the_previous_file(tmp_path, monkeypatch):
    log.write_text(tmp_path / "args.txt", "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        log.write_text(tmp_path / "args.txt", "new")
    assert (tmp_path / "args.txt").read_text() == "old" and os.listdir(tmp_path) == ["args.txt"]


# Console

def test_rank_0_notes_to_stdout_and_warns_to_stderr(capsys):
    console = log.Console()
    console.note("epoch 1")
    console.warn("no flow")
    log.get_logger().info("from the library")
    assert capsys.readouterr() == ("epoch 1\nfrom the library\n", "no flow\n")


def test_other_ranks_are_silent_but_for_errors(capsys):
    console = log.Console(rank=1)
    console.note("epoch 1")
    console.warn("no flow")
    assert list(console.progress([1, 2])) == [1, 2]
    log.get_logger().error("broken")
    assert capsys.readouterr() == ("", "broken\n")


def test_a_second_console_does_not_double_the_lines(capsys):
    log.Console()
    log.Console().note("once")
    assert capsys.readouterr().out == "once\n"


def test_a_warning_is_said_once(capsys):
    log.Console()
    for _ in range(3):
        log.warn_once("a fallback")
    log.warn_once("another")
    assert capsys.readouterr().err == "a fallback\nanother\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_progress_gives_the_items_and_updates_a_file_rarely(monkeypatch, stream):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", stream())
    console = log.Console()
    items = []
    for item in console.progress(iter(range(8)), total=10, desc="epoch 3", initial=2):
        time.sleep(0.06)
        items.append(item)
    text = sys.stderr.getvalue()
    assert items == list(range(8))
    assert "epoch 3" in text and "2/10" in text and "10/10" in text and "it/s" in text
    updates = text.count("\r")
    assert updates >= 5 if stream is Terminal else updates <= 3


def test_a_line_does_not_run_into_the_progress_bar(monkeypatch):
    pytest.importorskip("tqdm")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", screen)
    console = log.Console()
    for item in console.progress(range(2)):
        console.note(f"loss {item}")
    lines = [part for part in screen.getvalue().replace("\n", "\n\r").split("\r") if "loss" in part]
    assert lines == ["loss 0\n", "loss 1\n"]


def test_without_tqdm_the_items_come_all_the_same_and_it_is_said_once(monkeypatch, warnings):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    console = log.Console()
    log.get_logger().propagate = True
    for _ in range(2):
        assert list(console.progress(range(3), total=3)) == [0, 1, 2]
    assert len(warnings()) == 1 and "tqdm is not installed" in warnings()[0]


# TensorBoard

def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    reader = accumulator.EventAccumulator(str(folder / "tensorboard"))
    reader.Reload()
    return {tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def test_tensorboard_has_the_scalars_of_the_log_and_each_loss(tmp_path):
    pytest.importorskip("tensorboard")
    scalars = log.Scalars(tmp_path)
    for epoch in (1, 2):
        scalars.write(log.Row(epoch, 1.5, 2.5, 0.25, 0.5, 0.125), {"ce": epoch / 2, "aux": 0.75})
    scalars.close()
    seen = events(tmp_path)
    assert seen.pop("loss/ce") == [(1, 0.5), (2, 1.0)] and seen.pop("loss/aux") == [(1, 0.75), (2, 0.75)]
    expected = dict(zip(log.COLUMNS[1:], (1.5, 2.5, 0.25, 0.5, 0.125), strict=True))
    assert seen == {name: [(1, value), (2, value)] for name, value in expected.items()}


def test_a_resumed_run_replaces_the_scalars_of_later_epochs(tmp_path):
    pytest.importorskip("tensorboard")
    for resume, first, loss in ((None, 1, 1.0), (3, 3, 2.0)):
        scalars = log.Scalars(tmp_path, resume)
        for epoch in range(first, first + 4):
            scalars.write(log.Row(epoch, loss, loss, 0, 0, 0.1), {})
        scalars.close()
    assert events(tmp_path)["Train-loss"] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0), (5, 2.0), (6, 2.0)]


def test_without_tensorboard_the_option_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RuntimeError, match="pip install tensorboard") as error:
        log.Scalars(tmp_path)
    assert "\n" not in str(error.value)


def test_a_failing_writer_warns_once_and_stops_nothing(tmp_path, monkeypatch, warnings):
    pytest.importorskip("tensorboard")
    scalars = log.Scalars(tmp_path)
    writer = scalars.writer

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(writer, "add_scalar", fail)
    for epoch in (1, 2):
        scalars.write(log.Row(epoch, 1, 1, 0, 0, 0.1), {"ce": 1.0})
    scalars.close()
    scalars.close()
    writer.close()
    assert len(warnings()) == 1 and "disk full" in warnings()[0]


# Curves

def titles(rows: list[log.Row]) -> dict[str, list[str]]:
    return {title: [name for name, _, _ in lines] for title, lines in curves._panels(rows)}


def test_curves_are_a_picture_made_without_pyplot(tmp_path):
    pytest.importorskip("matplotlib")
    code = ("import sys; sys.path.insert(0, sys.argv[1])\n"
            "from utils.curves import draw_curves\nfrom pathlib import Path\n"
            "assert draw_curves(Path(sys.argv[2])) == Path(sys.argv[2]) / 'curves.png'\n"
            "assert 'matplotlib.pyplot' not in sys.modules")
    writer = log.TrainingLog(tmp_path, resume=False)
    for epoch in range(1, 5):
        writer.write(epoch, *numbers(epoch))
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(ROOT), str(tmp_path)], check=True)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert sorted(os.listdir(tmp_path)) == ["automated_log.txt", "curves.png"]


@pytest.mark.parametrize("rows", [
    [log.Row(1, 1.0, 1.0, 0.1, 0.2, 1e-3)],
    [log.Row(1, NAN, NAN, NAN, NAN, 1e-3), log.Row(2, NAN, NAN, NAN, NAN, 0.0)],
    [log.Row(epoch, 1.0, math.inf, 0, 0.5, 0.5 ** epoch) for epoch in range(1, 100)]])
def test_odd_logs_are_drawn_without_a_warning(tmp_path, rows, recwarn):
    pytest.importorskip("matplotlib")
    writer = log.TrainingLog(tmp_path, resume=False)
    for row in rows:
        writer.write(*row)
    assert curves.draw_curves(tmp_path).stat().st_size > 1000
    assert [str(warning.message) for warning in recwarn] == []


def test_only_what_was_measured_is_drawn():
    assert titles([log.Row(1, 1, 1, 0, 0.5, 1)]) == {
        "loss": ["train", "val"], "mIoU (%)": ["val"], "learning rate": ["learning rate"]}
    assert titles([log.Row(1, 1, 1, 0.4, 0.5, 1)])["mIoU (%)"] == ["train", "val"]
    assert "mIoU (%)" not in titles([log.Row(1, 1, 1, 0, 0, 1), log.Row(2, 1, 1, 0, NAN, 1)])


def test_no_epoch_is_no_picture(tmp_path):
    log.TrainingLog(tmp_path, resume=False)
    assert curves.draw_curves(tmp_path) is None
    assert os.listdir(tmp_path) == ["automated_log.txt"]


def test_without_matplotlib_there_is_no_picture_and_one_note(tmp_path, monkeypatch, warnings):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    log.TrainingLog(tmp_path, resume=False).write(1, *numbers(1))
    assert curves.draw_curves(tmp_path) is None and curves.draw_curves(tmp_path) is None
    assert os.listdir(tmp_path) == ["automated_log.txt"]
    assert len(warnings()) == 1 and "matplotlib is not installed" in warnings()[0]
