"""--replay: a run that is over is shown from what it left."""

import json
import math

import pytest

from utils import log
from utils.dashboard.replay import replay
from utils.output.pictures import save_png
from visdom_server import VisdomServer, free_port, windows_of
from watched import IMAGE, NAMES, assert_curves, open_dashboard, steps, traces, train


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with VisdomServer(tmp_path_factory.mktemp("visdom")) as server:
        yield server


def test_a_run_that_nobody_watched_is_replayed_from_its_files(server, tmp_path):
    folder = tmp_path / "unwatched"
    folder.mkdir()
    history = log.TrainingLog(folder, resume=False)
    for epoch in (1, 2):
        history.write(epoch, 1 / epoch, math.nan, 0.0, 0.0, 0.1)
    (folder / "results.json").write_text(
        json.dumps({"classes": NAMES, "metrics": {"mIoU": 0.5, "IoU": [1, None, 0]}})
    )
    for i in range(40):
        save_png(folder / "pictures" / "video" / f"{i:03d}.png", IMAGE)
    before = sorted(folder.rglob("*"))
    assert replay(folder, "http://localhost", server.port) == [
        "graphs unwatched",
        "images unwatched",
    ]
    shown = windows_of(server.port, "graphs unwatched")
    assert set(shown) == {"loss_train", "lr", "iou_eval"} and traces(shown["iou_eval"])[
        "unwatched"
    ][1] == [1, None, 0]
    images = windows_of(server.port, "images unwatched")["frames"]["content"]
    captions = [image["caption"] for image in images]
    assert captions == [f"{i:03d}" for i in range(0, 40, 3)]
    assert sorted(folder.rglob("*")) == before, "a replay reads only"


def test_what_an_absent_server_has_missed_is_replayed(server, tmp_path):
    with open_dashboard(tmp_path / "missed", free_port()) as dashboard:
        train(dashboard, range(1, 4))
    for _ in range(2):
        replay(tmp_path / "missed", "localhost", server.port)
        assert_curves(server.port, tmp_path / "missed")
        assert steps(windows_of(server.port, "images missed")["predictions"]) == [1, 2, 3]
        assert "losses" in windows_of(server.port, "graphs missed")


def test_a_replay_without_record_or_server_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        replay(tmp_path / "nowhere", "localhost", 1)
    with pytest.raises(ValueError, match="automated_log.txt"):
        replay(tmp_path, "localhost", 1)
    log.TrainingLog(tmp_path, resume=False).write(1, 1, 1, 0, 0, 0.1)
    with pytest.raises(ConnectionError, match="python -m visdom.server"):
        replay(tmp_path, "localhost", free_port())
