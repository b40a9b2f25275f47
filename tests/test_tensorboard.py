"""The scalars that TensorBoard shows."""

import sys
from pathlib import Path

import pytest

from utils.log import COLUMNS, Row
from utils.training.tensorboard import TensorBoardLog


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What was written: (epoch, value) by tag."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    reader = accumulator.EventAccumulator(str(folder / "tensorboard"))
    reader.Reload()
    return {
        tag: [(event.step, event.value) for event in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


def test_tensorboard_has_the_scalars_of_the_log_and_each_loss(tmp_path):
    pytest.importorskip("tensorboard")
    scalars = TensorBoardLog(tmp_path)
    for epoch in (1, 2):
        scalars.write(Row(epoch, 1.5, 2.5, 0.25, 0.5, 0.125), {"ce": epoch / 2, "aux": 0.75})
    scalars.close()
    seen = events(tmp_path)
    assert seen.pop("loss/ce") == [(1, 0.5), (2, 1.0)]
    assert seen.pop("loss/aux") == [(1, 0.75), (2, 0.75)]
    expected = dict(zip(COLUMNS[1:], (1.5, 2.5, 0.25, 0.5, 0.125), strict=True))
    assert seen == {name: [(1, value), (2, value)] for name, value in expected.items()}


def test_a_resumed_run_replaces_the_scalars_of_later_epochs(tmp_path):
    pytest.importorskip("tensorboard")
    for resume, first, loss in ((None, 1, 1.0), (3, 3, 2.0)):
        scalars = TensorBoardLog(tmp_path, resume)
        for epoch in range(first, first + 4):
            scalars.write(Row(epoch, loss, loss, 0, 0, 0.1), {})
        scalars.close()
    # Epochs 3 and 4 of the first run were dropped.
    losses = {1: 1.0, 2: 1.0, 3: 2.0, 4: 2.0, 5: 2.0, 6: 2.0}
    assert events(tmp_path)["Train-loss"] == list(losses.items())


def test_without_tensorboard_the_option_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RuntimeError, match="pip install tensorboard") as error:
        TensorBoardLog(tmp_path)
    assert "\n" not in str(error.value)


def test_a_failing_writer_warns_once_and_stops_nothing(tmp_path, monkeypatch, logged):
    pytest.importorskip("tensorboard")
    scalars = TensorBoardLog(tmp_path)
    writer = scalars.writer

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(writer, "add_scalar", fail)
    for epoch in (1, 2):
        scalars.write(Row(epoch, 1, 1, 0, 0, 0.1), {"ce": 1.0})
    scalars.close()
    scalars.close()
    writer.close()
    assert len(logged()) == 1 and "disk full" in logged()[0]
