"""automated_log.txt, byte for byte; best.txt; files that are written whole or not at all."""

import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from utils import log
from utils.files import write_text

ROOT = Path(__file__).resolve().parents[1]
NAN = math.nan


def numbers(epoch: int) -> tuple:
    """A row's values without the epoch; rounding to four (eight) decimals loses nothing."""
    rng = random.Random(epoch)
    losses = [rng.randrange(10**5) / 10**4 for _ in range(2)]
    # Fractions: the file has percent with four decimals.
    mious = [rng.randrange(10**6) / 10**6 for _ in range(2)]
    lr = rng.randrange(10**5) / 10**8
    return (*losses, *mious, lr)


# automated_log.txt


def test_the_file_is_lmanets_to_the_byte(tmp_path):
    writer = log.TrainingLog(tmp_path, resume=False)
    header = b"Epoch\tTrain-loss\tVal-loss\tTrain-mIoU\tVal-mIoU\tlearningRate"
    assert (tmp_path / "automated_log.txt").read_bytes() == header
    writer.write(1, 1.23456, 2, 0, 0.4567891, 2e-4)
    writer.write(2, 0.5, NAN, 0.25, 1, 1.23456789e-5)
    assert (tmp_path / "automated_log.txt").read_bytes() == (
        header + b"\n1\t\t1.2346\t\t2.0000\t\t0.0000\t\t45.6789\t\t0.00020000"
        b"\n2\t\t0.5000\t\tnan\t\t25.0000\t\t100.0000\t\t0.00001235"
    )


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
    (row,) = log.read(writer.path)
    assert math.isnan(row.val_loss) and math.isnan(row.train_miou) and row.val_miou == 0.5


def test_logs_with_single_tabs_or_a_last_newline_are_read_too(tmp_path):
    path = tmp_path / "automated_log.txt"
    path.write_text(log.HEADER + "\r\n3\t0.5\t0.25\t0.0\t50.0\t0.001\r\n")
    assert log.read(path) == [log.Row(3, 0.5, 0.25, 0.0, 0.5, 0.001)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("Epoch\tTrain-IoU", 1),
        ("1\t\t1.0\t\t1.0\t\t1.0\t\t1.0\t\t0.1", 1),
        (log.HEADER + "\n1\t\t1.0\t\t1.0\t\t1.0\t\t1.0\t\t0.1\n2\t\t1.0", 3),
        (log.HEADER + "\n\n1\t\t1.0\t\t1.0\t\t1.0\t\t1.0\t\t0.1", 2),
        (log.HEADER + "\n1\t\t1.0\t\tnone\t\t1.0\t\t1.0\t\t0.1", 2),
        (log.HEADER + "\n1.5\t\t1.0\t\t1.0\t\t1.0\t\t1.0\t\t0.1", 2),
        (log.HEADER + "\n1\t\t1.0\t\t1.0\t\t1.0\t\t1.0\t\t0.1\t\t7", 2),
        (log.HEADER + "\n\udcff\udcfe", 2),
    ],
)
def test_garbage_is_refused_with_file_and_line(tmp_path, text, line):
    path = tmp_path / "automated_log.txt"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError) as error:
        log.read(path)
    assert f"{path}, line {line}:" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(ValueError):
        log.TrainingLog(tmp_path, resume=True)
    unchanged = path.read_bytes() == text.encode(errors="surrogateescape")
    assert unchanged, "a file that is not ours was changed"


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
        values = numbers(epoch)
        # What the resumed run has to write again differs, so that it cannot stay unnoticed.
        if epoch > reached:
            values = tuple(2 * value for value in values)
        first.write(epoch, *values)
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
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from utils.log import TrainingLog\nfrom pathlib import Path\n"
        "writer = TrainingLog(Path(sys.argv[2]), resume=True)\nprint('ready', flush=True)\n"
        "for epoch in range(1, 10**6): writer.write(epoch, 1, 1, 1, 1, 1)"
    )
    for attempt in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(ROOT), str(tmp_path)], stdout=subprocess.PIPE
        )
        process.stdout.readline()
        time.sleep(0.05 + 0.037 * attempt)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        rows = log.read(tmp_path / "automated_log.txt")
        assert [row.epoch for row in rows] == list(range(1, len(rows) + 1)) and rows
    log.TrainingLog(tmp_path, resume=True).write(1, *numbers(1))
    files = os.listdir(tmp_path)
    assert files == ["automated_log.txt"], "what the kill left behind should be gone after a write"


# Other files


def test_best_names_epoch_and_fraction(tmp_path):
    log.write_best(tmp_path, 12, 0.73124)
    assert (tmp_path / "best.txt").read_bytes() == b"Best epoch is 12, with mean IoU = 0.7312"


def test_a_text_arrives_as_it_is_and_leaves_nothing_else(tmp_path):
    for text in ("--epochs\n5\r\n", "Zürich", ""):
        write_text(tmp_path / "args.txt", text)
        assert (tmp_path / "args.txt").read_bytes() == text.encode()
    assert os.listdir(tmp_path) == ["args.txt"]


def test_a_full_disk_leaves_the_previous_file(tmp_path, monkeypatch):
    write_text(tmp_path / "args.txt", "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "args.txt", "new")
    assert (tmp_path / "args.txt").read_text() == "old" and os.listdir(tmp_path) == ["args.txt"]
