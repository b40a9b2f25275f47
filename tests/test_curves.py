"""The curves of a training, drawn from its log."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils import log
from utils.output import curves

ROOT = Path(__file__).resolve().parents[1]
NAN = math.nan


def titles(rows: list[log.Row]) -> dict[str, list[str]]:
    return {title: [name for name, _, _ in lines] for title, lines in curves._panels(rows)}


def test_curves_are_a_picture_made_without_pyplot(tmp_path):
    pytest.importorskip("matplotlib")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from utils.output.curves import draw_curves\nfrom pathlib import Path\n"
        "assert draw_curves(Path(sys.argv[2])) == Path(sys.argv[2]) / 'curves.png'\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    writer = log.TrainingLog(tmp_path, resume=False)
    for epoch in range(1, 5):
        writer.write(epoch, 1 / epoch, 2 / epoch, 0.25, 0.5, 1e-3)
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(ROOT), str(tmp_path)], check=True
    )
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert sorted(os.listdir(tmp_path)) == ["automated_log.txt", "curves.png"]


@pytest.mark.parametrize(
    "rows",
    [
        [log.Row(1, 1.0, 1.0, 0.1, 0.2, 1e-3)],
        [log.Row(1, NAN, NAN, NAN, NAN, 1e-3), log.Row(2, NAN, NAN, NAN, NAN, 0.0)],
        [log.Row(epoch, 1.0, math.inf, 0, 0.5, 0.5**epoch) for epoch in range(1, 100)],
    ],
)
def test_odd_logs_are_drawn_without_a_warning(tmp_path, rows, recwarn):
    pytest.importorskip("matplotlib")
    writer = log.TrainingLog(tmp_path, resume=False)
    for row in rows:
        writer.write(*row)
    assert curves.draw_curves(tmp_path).stat().st_size > 1000
    assert [str(warning.message) for warning in recwarn] == []


def test_only_what_was_measured_is_drawn():
    assert titles([log.Row(1, 1, 1, 0, 0.5, 1)]) == {
        "loss": ["train", "val"],
        "mIoU (%)": ["val"],
        "learning rate": ["learning rate"],
    }
    assert titles([log.Row(1, 1, 1, 0.4, 0.5, 1)])["mIoU (%)"] == ["train", "val"]
    assert "mIoU (%)" not in titles([log.Row(1, 1, 1, 0, 0, 1), log.Row(2, 1, 1, 0, NAN, 1)])


def test_no_epoch_is_no_picture(tmp_path):
    log.TrainingLog(tmp_path, resume=False)
    assert curves.draw_curves(tmp_path) is None
    assert os.listdir(tmp_path) == ["automated_log.txt"]


def test_without_matplotlib_there_is_no_picture_and_one_note(tmp_path, monkeypatch, logged):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    log.TrainingLog(tmp_path, resume=False).write(1, 1, 1, 0, 0.5, 1e-3)
    assert curves.draw_curves(tmp_path) is None and curves.draw_curves(tmp_path) is None
    assert os.listdir(tmp_path) == ["automated_log.txt"]
    assert len(logged()) == 1 and "matplotlib is not installed" in logged()[0]
