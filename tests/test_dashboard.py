"""--visualize without a browser: what a real visdom server has been told, and servers that are not there."""
import base64
import io
import json
import math
import sys
import threading
import time
from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from utils import feed, log, panes
from utils.dashboard import Dashboard
from utils.feed import Feed, Server
from utils.panes import Record
from utils.pictures import save_png
from utils.replay import replay
from visdom_server import VisdomServer, free_port, hanging_port, wait_for, windows

NAMES, PALETTE = ["road", "car", "sky"], np.array([[128, 64, 128], [0, 0, 142], [70, 130, 180]], np.uint8)
LABELS = SimpleNamespace(names=NAMES, palette=PALETTE)
IMAGE = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    pytest.importorskip("visdom")
    server = VisdomServer(tmp_path_factory.mktemp("visdom")).start()
    yield server
    server.kill()


@pytest.fixture
def own_server(tmp_path_factory):
    """One that a test may kill."""
    pytest.importorskip("visdom")
    server = VisdomServer(tmp_path_factory.mktemp("visdom")).start()
    yield server
    server.kill()


def options(folder, port, **more) -> Namespace:
    return Namespace(**{"visualize": True, "server": "http://localhost", "port": port, "savedir": str(folder),
                        "training": True, "resume": False} | more)


def open_dashboard(folder, port, **more) -> Dashboard:
    folder.mkdir(exist_ok=True)
    return Dashboard.of(options(folder, port, **more), LABELS)


def labelled(name="clip/1", frames=1, size=(12, 16), seed=0):
    """As engine.Labelled."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, size, generator=generator)
    clip = torch.rand(frames, 3, *size, generator=generator)
    return SimpleNamespace(name=name, frame=clip[-1], clip=clip, labels=labels,
                           prediction=labels.roll(1, 0).to(torch.uint8))


def train(dashboard, epochs, *, resume=False, last_loss=1.0):
    """What main.py does of a training, as far as a dashboard sees it."""
    history = log.TrainingLog(dashboard.folder, resume=resume)
    for epoch in epochs:
        for split in ("val", "train"):
            watch = dashboard.watch(split, 4)
            for i in range(4):
                watch(labelled(seed=i + epoch, frames=3))
        history.write(epoch, last_loss / epoch, 2 / epoch, 0.0, 1 - 1 / (epoch + 1), 0.01 / epoch)
        dashboard.epoch(epoch, {"ce": 0.75 / epoch, "aux": 0.25 / epoch},
                        {"val": {"IoU": torch.tensor([0.5, math.nan, 1 - 0.5 / epoch])}})


def traces(pane: dict) -> dict[str, tuple[list, list]]:
    return {trace["name"]: (trace["x"], trace["y"]) for trace in pane["content"]["data"]}


def assert_curves(port, folder):
    """The windows hold the numbers of automated_log.txt."""
    rows, run, shown = log.read(folder / log.LOG_NAME), folder.name, windows(port, f"graphs {folder.name}")
    epochs = [row.epoch for row in rows]
    for title, values in {"mLoss TRAIN": [row.train_loss for row in rows], "mLoss VAL": [row.val_loss for row in rows],
                          "mIoU VAL": [row.val_miou for row in rows], "L.R.": [row.lr for row in rows]}.items():
        assert [traces(pane) for pane in shown.values() if pane["title"] == title] == [{run: (epochs, values)}]


def size_of(image: dict) -> tuple[int, int]:
    """(H, W) of an image in a pane."""
    return Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))).size[::-1]


def steps(pane: dict) -> list:
    return [image["step"] for image in pane["content"]]


def test_the_windows_hold_the_numbers_of_the_log(server, tmp_path):
    with open_dashboard(tmp_path / "numbers", server.port) as dashboard:
        train(dashboard, range(1, 4))
    assert_curves(server.port, tmp_path / "numbers")
    shown = windows(server.port, "graphs numbers")
    assert traces(shown["losses"]) == {"ce": ([1, 2, 3], [0.75, 0.375, 0.25]),
                                       "aux": ([1, 2, 3], [0.25, 0.125, 0.25 / 3])}
    assert "miou_train" not in shown, "nobody measured it"
    (x, y), = traces(shown["iou"]).values()
    assert x == NAMES and y == pytest.approx([0.5, None, 1 - 0.5 / 3])


def test_inputs_and_labels_are_shown_and_predictions_with_their_history(server, tmp_path):
    with open_dashboard(tmp_path / "pictures", server.port) as dashboard:
        train(dashboard, range(1, 4))
    shown = windows(server.port, "images pictures")
    assert [shown[name]["title"] for name in ("inputs", "target", "labels")] == [
        f"Sequence VAL {name}" for name in ("INPUTS", "TARGET", "LABELS")]
    assert shown["inputs"]["type"] == shown["target"]["type"] == "image"
    assert shown["labels"]["type"] == "image_history" and steps(shown["labels"]) == [1, 2, 3]
    assert shown["labels"]["content"][1]["caption"] == "epoch 2" and shown["labels"]["selected"] == 2
    assert size_of(shown["inputs"]["content"]) == (4 * 12 + 3 * 4, 3 * 16 + 2 * 4), "a clip a row"
    assert size_of(shown["labels"]["content"][2]) == size_of(shown["target"]["content"]) == (4 * 12 + 3 * 4, 16)


def test_what_is_saved_is_what_the_server_has(server, tmp_path):
    with open_dashboard(tmp_path / "saved", server.port) as dashboard:
        train(dashboard, range(1, 3))
    for env in ("graphs saved", "images saved"):
        saved = json.loads((tmp_path / "saved" / f"{env}.json").read_text())
        shown = windows(server.port, env)
        for pane in (*saved["jsons"].values(), *shown.values()):
            pane.pop("contentID")
        assert saved == {"jsons": shown, "reload": {}} and len(shown) >= 3
        assert (server.folder / "environments" / f"{env}.json").exists(), "the server has saved it too"


def test_a_server_shows_a_saved_file_put_into_its_folder(own_server, tmp_path):
    with open_dashboard(tmp_path / "moved", free_port()) as dashboard:
        train(dashboard, range(1, 3))
    own_server.kill(forget=True)
    (own_server.folder / "environments").mkdir()
    (tmp_path / "moved" / "graphs moved.json").rename(own_server.folder / "environments" / "graphs moved.json")
    own_server.start()
    assert_curves(own_server.port, tmp_path / "moved")


def test_after_resume_nothing_is_missing_and_nothing_doubled(own_server, tmp_path):
    folder = tmp_path / "resumed"
    with open_dashboard(folder, own_server.port) as dashboard:
        train(dashboard, range(1, 4))
    own_server.kill(forget=True)
    own_server.start()
    with open_dashboard(folder, own_server.port, resume=True) as dashboard:
        wait_for(lambda: windows(own_server.port, "graphs resumed"))
        assert_curves(own_server.port, folder)                      # before the first epoch is over
        train(dashboard, range(3, 6), resume=True, last_loss=7.0)   # the third was lost by a kill: it comes again
    assert_curves(own_server.port, folder)
    shown = windows(own_server.port, "images resumed")
    assert steps(shown["labels"]) == [1, 2, 3, 4, 5] and "inputs" in shown
    assert traces(windows(own_server.port, "graphs resumed")["losses"])["ce"] == (
        [1, 2, 3, 4, 5], [0.75 / epoch for epoch in range(1, 6)])


def test_a_training_that_begins_anew_closes_what_an_earlier_one_of_its_name_has_shown(server, tmp_path):
    with open_dashboard(tmp_path / "again", server.port) as dashboard:
        train(dashboard, range(1, 4))
        dashboard.results({"mIoU": 0.5, "IoU": [0.5, 0.5, 0.5]})
    with open_dashboard(tmp_path / "again", server.port) as dashboard:
        train(dashboard, range(1, 2))
    assert_curves(server.port, tmp_path / "again")
    assert "iou_eval" not in windows(server.port, "graphs again")
    assert steps(windows(server.port, "images again")["labels"]) == [1]


def test_a_server_that_is_started_anew_gets_everything_again(own_server, tmp_path, monkeypatch, logged):
    monkeypatch.setattr(feed, "PAUSE", 0.2)
    with open_dashboard(tmp_path / "anew", own_server.port) as dashboard:
        train(dashboard, range(1, 3))
        wait_for(lambda: "labels" in windows(own_server.port, "images anew"))
        own_server.kill(forget=True)
        train(dashboard, range(3, 5), resume=True)
        wait_for(logged)
        own_server.start()
        wait_for(lambda: "labels" in windows(own_server.port, "images anew"))
        train(dashboard, range(5, 6), resume=True)
    assert_curves(own_server.port, tmp_path / "anew")
    assert steps(windows(own_server.port, "images anew")["labels"]) == [1, 2, 3, 4, 5]
    assert len(logged()) == 1


def test_a_window_that_somebody_has_closed_comes_back_whole(server, tmp_path):
    from visdom_server import post
    with open_dashboard(tmp_path / "closed", server.port) as dashboard:
        train(dashboard, range(1, 3))
        wait_for(lambda: len(windows(server.port, "images closed").get("labels", {}).get("content", ())) == 2)
        post(server.port, "close", {"win": "labels", "eid": "images closed"})
        train(dashboard, range(3, 4), resume=True)
    assert steps(windows(server.port, "images closed")["labels"]) == [1, 2, 3]


def many_events(dashboard) -> float:
    """Seconds for a thousand events."""
    started = time.monotonic()
    frame = labelled()
    for i in range(500):
        dashboard.every = 1
        dashboard.frame(frame)
        dashboard.bars("iou", "IoU", [0.5, 0.5, i / 500])
    return time.monotonic() - started


def test_without_a_server_a_run_goes_on_at_full_speed_with_one_warning(tmp_path, logged):
    with open_dashboard(tmp_path / "absent", free_port()) as dashboard:
        assert many_events(dashboard) < 1
        train(dashboard, range(1, 3))
        started = time.monotonic()
    assert time.monotonic() - started < 5.5
    assert len(logged()) == 1 and "refused" in logged()[0] and "--replay" in logged()[0] and "\n" not in logged()[0]
    recorded = json.loads((tmp_path / "absent" / "graphs absent.json").read_text())["jsons"]
    assert traces(recorded["loss_train"]) == {"absent": ([1, 2], [1.0, 0.5])}


def test_a_server_that_hangs_costs_one_warning_and_no_time(tmp_path, logged):
    with hanging_port() as port:
        dashboard = open_dashboard(tmp_path / "hanging", port)
        assert many_events(dashboard) < 1
        train(dashboard, range(1, 3))
        started = time.monotonic()
        dashboard.close()
        assert time.monotonic() - started < 5.5
    assert len(logged()) == 1
    recorded = json.loads((tmp_path / "hanging" / "graphs hanging.json").read_text())["jsons"]
    assert traces(recorded["loss_train"]) == {"hanging": ([1, 2], [1.0, 0.5])}


def test_a_server_that_dies_costs_one_warning_and_no_time(own_server, tmp_path, logged):
    with open_dashboard(tmp_path / "dying", own_server.port) as dashboard:
        train(dashboard, range(1, 3))
        wait_for(lambda: "labels" in windows(own_server.port, "images dying"))
        own_server.kill()
        assert many_events(dashboard) < 1
        train(dashboard, range(3, 6), resume=True)
    assert len(logged()) == 1
    recorded = json.loads((tmp_path / "dying" / "images dying.json").read_text())["jsons"]
    assert steps(recorded["labels"]) == [1, 2, 3, 4, 5]


def test_something_else_at_the_port_is_told_in_one_line(tmp_path, logged):
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Other(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *args):
            pass

    other = HTTPServer(("localhost", 0), Other)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    with open_dashboard(tmp_path / "other", other.server_port) as dashboard:
        train(dashboard, range(1, 3))
    other.shutdown()
    assert len(logged()) == 1 and "no visdom server" in logged()[0]


@pytest.mark.parametrize("address", ["http://no such host", "http://[", "ftp://localhost", ""])
def test_an_address_that_is_none_is_told_in_one_line(tmp_path, logged, address):
    with open_dashboard(tmp_path / "address", 1, server=address) as dashboard:
        train(dashboard, range(1, 2))
    assert len(logged()) == 1 and (tmp_path / "address" / "graphs address.json").exists()


class Stuck(Server):
    """A server whose answer takes as long as a test likes."""

    def __init__(self):
        super().__init__("http://localhost", 1)
        self.go = threading.Event()

    def post(self, endpoint, message):
        self.go.wait(30)
        return "[]" if endpoint == "env_state" else message.get("win", "")


def test_a_full_queue_drops_the_oldest_images_and_no_curve(tmp_path, logged):
    record, server = Record(tmp_path, keep=False), Stuck()
    stuck = Feed(record, server)
    stuck.save()                                                    # the thread is busy from here on
    wait_for(lambda: not stuck.saving)
    stuck.show("e", "curve", lambda: panes.curves("curve", "", [1], {"": [1.0]}))
    for step in range(100):
        stuck.show("e", "images", lambda step=step: panes.picture("images", "", IMAGE, step=step), history=True)
        stuck.show("e", "bars", lambda step=step: panes.bars("bars", "", ["a"], [step / 100], ""))
    assert len(stuck.waiting) == feed.WAITING + 2
    server.go.set()
    stuck.close()
    assert steps(record.envs["e"]["images"]) == list(range(100 - feed.WAITING, 100))
    assert traces(record.envs["e"]["bars"])[""] == (["a"], [0.99]) and "curve" in record.envs["e"]
    assert not logged()


def test_a_history_that_is_too_long_keeps_every_second_image_and_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr(panes, "LONGEST", 8)
    record = Record(tmp_path, keep=False)
    goes_on = [record.show("e", panes.picture("p", "", IMAGE, step=step)) for step in range(1, 11)]
    assert steps(record.envs["e"]["p"]) == [1, 3, 5, 7, 9, 10] and record.envs["e"]["p"]["selected"] == 5
    assert goes_on == [False] + 7 * [True] + [False, True]


def test_a_long_history_is_sent_anew_when_it_was_thinned(server, tmp_path, monkeypatch):
    monkeypatch.setattr(panes, "LONGEST", 4)
    with open_dashboard(tmp_path / "thinned", server.port) as dashboard:
        for epoch in range(1, 8):
            train(dashboard, [epoch], resume=epoch > 1)
            wait_for(lambda epoch=epoch: windows(server.port, "images thinned").get("labels", {}).get(
                "content", [{}])[-1].get("step") == epoch)
    saved = json.loads((tmp_path / "thinned" / "images thinned.json").read_text())["jsons"]["labels"]
    assert steps(windows(server.port, "images thinned")["labels"]) == steps(saved) == [1, 5, 7]


def test_an_evaluation_shows_its_classes_and_some_frames(server, tmp_path):
    with open_dashboard(tmp_path / "eval", server.port, training=False) as dashboard:
        watch = dashboard.watch("eval", 40)
        for i in range(40):
            watch(labelled(f"video/{i}"))
        dashboard.results({"mIoU": 0.75, "IoU": [0.5, None, 1.0]})
    bars = windows(server.port, "graphs eval")["iou_eval"]
    assert traces(bars) == {"eval": (NAMES, [0.5, None, 1.0])} and "75.00" in bars["title"]
    frames = windows(server.port, "images eval")["frames"]
    assert [image["caption"] for image in frames["content"]] == [f"video/{i}" for i in range(0, 40, 3)]


def test_an_evaluation_beside_a_training_leaves_its_windows_there(server, tmp_path):
    with open_dashboard(tmp_path / "both", server.port) as dashboard:
        train(dashboard, range(1, 3))
    with open_dashboard(tmp_path / "both", server.port, training=False) as dashboard:
        dashboard.results({"mIoU": 0.75, "IoU": [0.5, None, 1.0]})
    assert_curves(server.port, tmp_path / "both")
    assert {"iou", "iou_eval"} <= set(windows(server.port, "graphs both"))


def test_an_inference_shows_a_frame_a_second(server, tmp_path):
    image = np.full((12, 16, 3), 200, np.uint8)
    with open_dashboard(tmp_path / "live", server.port, training=False) as dashboard:
        for name in ("first", "second"):
            dashboard.live(name, image, np.zeros((12, 16), np.uint8))
    shown = windows(server.port, "images live")["live"]
    assert shown["type"] == "image" and shown["content"]["caption"] == "first"


def test_what_cannot_be_drawn_or_saved_stops_nothing(server, tmp_path, logged):
    with open_dashboard(tmp_path / "broken", server.port) as dashboard:
        dashboard.watch("val", 1)(SimpleNamespace())
        dashboard.frame(None)
        dashboard.live("x", IMAGE, "no labels")
        (tmp_path / "broken" / log.LOG_NAME).write_text("no log")
        dashboard.curves()
        (tmp_path / "broken" / "graphs broken.json").mkdir()
        dashboard.bars("iou", "IoU", [0.1, 0.2, 0.3])
    assert "iou" in windows(server.port, "graphs broken")
    assert len(logged()) == len(set(logged())) and any("cannot be saved" in line for line in logged())


def test_a_spoilt_record_is_written_anew(server, tmp_path):
    for number, text in enumerate(("", "{", "[]", '{"jsons": 3}', '{"jsons": {"iou": 3}}',
                                   '{"jsons": {"labels": {}}}')):
        folder = tmp_path / f"spoilt{number}"
        folder.mkdir()
        for env in ("graphs", "images"):
            (folder / f"{env} {folder.name}.json").write_text(text)
        with open_dashboard(folder, server.port, resume=True) as dashboard:
            train(dashboard, range(1, 3))
        assert_curves(server.port, folder)
        assert "labels" in json.loads((folder / f"images {folder.name}.json").read_text())["jsons"]


def test_without_visualize_and_on_other_ranks_nothing_happens(tmp_path, monkeypatch):
    threads = threading.active_count()
    quiet = [Dashboard.of(options(tmp_path, 1, visualize=False), LABELS)]
    monkeypatch.setattr("utils.dashboard.rank", lambda: 1)
    quiet.append(Dashboard.of(options(tmp_path, 1), LABELS))
    for dashboard in quiet:
        with dashboard:
            train(dashboard, range(1, 3))
            dashboard.frame(labelled())
            dashboard.live("x", None, None)
            dashboard.results({})
    assert threading.active_count() == threads and not list(tmp_path.glob("*.json"))


def test_a_training_needs_no_visdom_package_to_be_watched(server, tmp_path, monkeypatch, logged):
    monkeypatch.setitem(sys.modules, "visdom", None)
    with open_dashboard(tmp_path / "bare", server.port) as dashboard:
        train(dashboard, range(1, 3))
    assert_curves(server.port, tmp_path / "bare")
    assert not logged()


# --replay

def test_a_run_that_nobody_watched_is_replayed_from_its_files(server, tmp_path):
    folder = tmp_path / "unwatched"
    folder.mkdir()
    history = log.TrainingLog(folder, resume=False)
    for epoch in (1, 2):
        history.write(epoch, 1 / epoch, math.nan, 0.0, 0.0, 0.1)
    (folder / "results.json").write_text(json.dumps({"classes": NAMES, "metrics": {"mIoU": 0.5, "IoU": [1, None, 0]}}))
    for i in range(40):
        save_png(folder / "pictures" / "video" / f"{i:03d}.png", IMAGE)
    before = sorted(folder.rglob("*"))
    assert replay(folder, "http://localhost", server.port) == ["graphs unwatched", "images unwatched"]
    shown = windows(server.port, "graphs unwatched")
    assert set(shown) == {"loss_train", "lr", "iou_eval"} and traces(shown["iou_eval"])["unwatched"][1] == [1, None, 0]
    captions = [image["caption"] for image in windows(server.port, "images unwatched")["frames"]["content"]]
    assert captions == [f"{i:03d}" for i in range(0, 40, 3)]
    assert sorted(folder.rglob("*")) == before, "a replay reads only"


def test_what_an_absent_server_has_missed_is_replayed(server, tmp_path):
    with open_dashboard(tmp_path / "missed", free_port()) as dashboard:
        train(dashboard, range(1, 4))
    for _ in range(2):
        replay(tmp_path / "missed", "localhost", server.port)
        assert_curves(server.port, tmp_path / "missed")
        assert steps(windows(server.port, "images missed")["labels"]) == [1, 2, 3]
        assert "losses" in windows(server.port, "graphs missed")


def test_a_replay_without_record_or_server_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        replay(tmp_path / "nowhere", "localhost", 1)
    with pytest.raises(ValueError, match="automated_log.txt"):
        replay(tmp_path, "localhost", 1)
    log.TrainingLog(tmp_path, resume=False).write(1, 1, 1, 0, 0, 0.1)
    with pytest.raises(ConnectionError, match="python -m visdom.server"):
        replay(tmp_path, "localhost", free_port())
