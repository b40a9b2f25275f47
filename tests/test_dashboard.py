"""--visualize without a browser: what a real visdom server has been told."""

import json
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from utils import log
from utils.dashboard import Dashboard, visdom_client, windows
from visdom_server import VisdomServer, free_port, post, wait_for, windows_of
from watched import (
    IMAGE,
    LABELS,
    NAMES,
    assert_curves,
    labelled,
    open_dashboard,
    options,
    size_of,
    steps,
    traces,
    train,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with VisdomServer(tmp_path_factory.mktemp("visdom")) as server:
        yield server


@pytest.fixture
def own_server(tmp_path_factory):
    """One that a test may kill."""
    with VisdomServer(tmp_path_factory.mktemp("visdom")) as server:
        yield server


def test_the_windows_hold_the_numbers_of_the_log(server, tmp_path):
    with open_dashboard(tmp_path / "numbers", server.port) as dashboard:
        train(dashboard, range(1, 4))
    assert_curves(server.port, tmp_path / "numbers")
    shown = windows_of(server.port, "graphs numbers")
    assert traces(shown["losses"]) == {
        "ce": ([1, 2, 3], [0.75, 0.375, 0.25]),
        "aux": ([1, 2, 3], [0.25, 0.125, 0.25 / 3]),
    }
    assert "miou_train" not in shown, "nobody measured it"
    ((x, y),) = traces(shown["iou"]).values()
    assert x == NAMES and y == pytest.approx([0.5, None, 1 - 0.5 / 3])


def test_inputs_and_labels_are_shown_and_predictions_with_their_history(server, tmp_path):
    with open_dashboard(tmp_path / "pictures", server.port) as dashboard:
        train(dashboard, range(1, 4))
    shown = windows_of(server.port, "images pictures")
    assert [shown[name]["title"] for name in ("inputs", "labels", "predictions")] == [
        f"Sequence VAL {name}" for name in ("INPUTS", "LABELS", "PREDICTIONS")
    ]
    assert shown["inputs"]["type"] == shown["labels"]["type"] == "image"
    assert shown["classes"]["title"] == "CLASSES" and size_of(shown["classes"]["content"])[1] == 480
    assert shown["predictions"]["type"] == "image_history" and steps(shown["predictions"]) == [
        1,
        2,
        3,
    ]
    assert (
        shown["predictions"]["content"][1]["caption"] == "epoch 2"
        and shown["predictions"]["selected"] == 2
    )
    assert size_of(shown["inputs"]["content"]) == (4 * 12 + 3 * 4, 3 * 16 + 2 * 4), "a clip a row"
    assert (
        size_of(shown["predictions"]["content"][2])
        == size_of(shown["labels"]["content"])
        == (4 * 12 + 3 * 4, 16)
    )


def test_what_is_saved_is_what_the_server_has(server, tmp_path):
    with open_dashboard(tmp_path / "saved", server.port) as dashboard:
        train(dashboard, range(1, 3))
    for env in ("graphs saved", "images saved"):
        saved = json.loads((tmp_path / "saved" / f"{env}.json").read_text())
        shown = windows_of(server.port, env)
        for window in (*saved["jsons"].values(), *shown.values()):
            window.pop("contentID")
        assert saved == {"jsons": shown, "reload": {}} and len(shown) >= 3
        assert (server.folder / "environments" / f"{env}.json").exists(), (
            "the server has saved it too"
        )


def test_a_server_shows_a_saved_file_put_into_its_folder(own_server, tmp_path):
    with open_dashboard(tmp_path / "moved", free_port()) as dashboard:
        train(dashboard, range(1, 3))
    own_server.kill(forget=True)
    (own_server.folder / "environments").mkdir()
    (tmp_path / "moved" / "graphs moved.json").rename(
        own_server.folder / "environments" / "graphs moved.json"
    )
    own_server.start()
    assert_curves(own_server.port, tmp_path / "moved")


def test_after_resume_nothing_is_missing_and_nothing_doubled(own_server, tmp_path):
    folder = tmp_path / "resumed"
    with open_dashboard(folder, own_server.port) as dashboard:
        train(dashboard, range(1, 4))
    own_server.kill(forget=True)
    own_server.start()
    with open_dashboard(folder, own_server.port, resume=True) as dashboard:
        wait_for(lambda: "iou" in windows_of(own_server.port, "graphs resumed"))
        assert_curves(own_server.port, folder)  # before the first epoch is over
        train(
            dashboard, range(3, 6), resume=True, last_loss=7.0
        )  # the third was lost by a kill: it comes again
    assert_curves(own_server.port, folder)
    shown = windows_of(own_server.port, "images resumed")
    assert steps(shown["predictions"]) == [1, 2, 3, 4, 5] and "inputs" in shown
    assert traces(windows_of(own_server.port, "graphs resumed")["losses"])["ce"] == (
        [1, 2, 3, 4, 5],
        [0.75 / epoch for epoch in range(1, 6)],
    )


def test_a_training_that_begins_anew_closes_what_an_earlier_one_of_its_name_has_shown(
    server, tmp_path
):
    with open_dashboard(tmp_path / "again", server.port) as dashboard:
        train(dashboard, range(1, 4))
        dashboard.results({"mIoU": 0.5, "IoU": [0.5, 0.5, 0.5]})
    with open_dashboard(tmp_path / "again", server.port) as dashboard:
        train(dashboard, range(1, 2))
    assert_curves(server.port, tmp_path / "again")
    assert "iou_eval" not in windows_of(server.port, "graphs again")
    assert steps(windows_of(server.port, "images again")["predictions"]) == [1]


def test_a_server_that_is_started_anew_gets_everything_again(
    own_server, tmp_path, monkeypatch, logged
):
    monkeypatch.setattr(visdom_client, "PAUSE", 0.2)
    with open_dashboard(tmp_path / "anew", own_server.port) as dashboard:
        train(dashboard, range(1, 3))
        wait_for(lambda: "predictions" in windows_of(own_server.port, "images anew"))
        own_server.kill(forget=True)
        train(dashboard, range(3, 5), resume=True)
        wait_for(logged)
        own_server.start()
        wait_for(lambda: "predictions" in windows_of(own_server.port, "images anew"))
        train(dashboard, range(5, 6), resume=True)
    assert_curves(own_server.port, tmp_path / "anew")
    assert steps(windows_of(own_server.port, "images anew")["predictions"]) == [1, 2, 3, 4, 5]
    assert len(logged()) == 1


def test_a_restart_that_nobody_noticed_loses_nothing(own_server, tmp_path, logged):
    with open_dashboard(tmp_path / "unnoticed", own_server.port) as dashboard:
        train(dashboard, range(1, 3))
        wait_for(lambda: "predictions" in windows_of(own_server.port, "images unnoticed"))
        dashboard.bars("once", "shown once", [0.1, 0.2, 0.3])
        wait_for(lambda: "once" in windows_of(own_server.port, "graphs unnoticed"))
        own_server.kill(forget=True)
        own_server.start()
        train(dashboard, range(3, 4), resume=True)
    assert_curves(own_server.port, tmp_path / "unnoticed")
    assert "once" in windows_of(own_server.port, "graphs unnoticed")
    assert steps(windows_of(own_server.port, "images unnoticed")["predictions"]) == [1, 2, 3]
    assert not logged()


def test_epochs_that_are_trained_again_replace_all_later_ones(server, tmp_path):
    with open_dashboard(tmp_path / "back", server.port) as dashboard:
        train(dashboard, range(1, 6))
    with open_dashboard(tmp_path / "back", server.port, resume=True) as dashboard:
        train(dashboard, range(3, 4), resume=True)
    assert_curves(server.port, tmp_path / "back")
    assert steps(windows_of(server.port, "images back")["predictions"]) == [1, 2, 3]
    assert traces(windows_of(server.port, "graphs back")["losses"])["ce"][0] == [1, 2, 3]


def test_a_window_that_somebody_has_closed_comes_back_whole(server, tmp_path):
    with open_dashboard(tmp_path / "closed", server.port) as dashboard:
        train(dashboard, range(1, 3))

        def shown() -> int:
            labels = windows_of(server.port, "images closed").get("predictions", {})
            return len(labels.get("content", ()))

        wait_for(lambda: shown() == 2)
        post(server.port, "close", {"win": "predictions", "eid": "images closed"})
        train(dashboard, range(3, 4), resume=True)
    assert steps(windows_of(server.port, "images closed")["predictions"]) == [1, 2, 3]


def test_a_long_history_is_sent_anew_when_it_was_thinned(server, tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "LONGEST", 4)
    with open_dashboard(tmp_path / "thinned", server.port) as dashboard:
        for epoch in range(1, 8):
            train(dashboard, [epoch], resume=epoch > 1)
            wait_for(
                lambda epoch=epoch: (
                    windows_of(server.port, "images thinned")
                    .get("predictions", {})
                    .get("content", [{}])[-1]
                    .get("step")
                    == epoch
                )
            )
    saved = json.loads((tmp_path / "thinned" / "images thinned.json").read_text())["jsons"][
        "predictions"
    ]
    assert (
        steps(windows_of(server.port, "images thinned")["predictions"]) == steps(saved) == [1, 5, 7]
    )


def test_an_evaluation_shows_its_classes_and_some_frames(server, tmp_path):
    with open_dashboard(tmp_path / "eval", server.port, training=False) as dashboard:
        watch = dashboard.watch("eval", 40)
        for i in range(40):
            watch(labelled(f"video/{i}"))
        dashboard.results({"mIoU": 0.75, "IoU": [0.5, None, 1.0]})
    bars = windows_of(server.port, "graphs eval")["iou_eval"]
    assert traces(bars) == {"eval": (NAMES, [0.5, None, 1.0])} and "75.00" in bars["title"]
    frames = windows_of(server.port, "images eval")["frames"]
    assert [image["caption"] for image in frames["content"]] == [
        f"video/{i}" for i in range(0, 40, 3)
    ]


def test_a_resumed_evaluation_shows_the_frames_of_both_parts(server, tmp_path):
    for start in (0, 20):
        with open_dashboard(tmp_path / "parts", server.port, training=False) as dashboard:
            watch = dashboard.watch("eval", 40, start)
            for i in range(start, start + 20):
                watch(labelled(f"video/{i}"))
    frames = windows_of(server.port, "images parts")["frames"]
    assert [image["caption"] for image in frames["content"]] == [
        f"video/{i}" for i in range(0, 40, 3)
    ]


def test_an_evaluation_beside_a_training_leaves_its_windows_there(server, tmp_path):
    with open_dashboard(tmp_path / "both", server.port) as dashboard:
        train(dashboard, range(1, 3))
    with open_dashboard(tmp_path / "both", server.port, training=False) as dashboard:
        dashboard.results({"mIoU": 0.75, "IoU": [0.5, None, 1.0]})
    assert_curves(server.port, tmp_path / "both")
    assert {"iou", "iou_eval"} <= set(windows_of(server.port, "graphs both"))


def test_an_inference_shows_a_frame_a_second(server, tmp_path):
    image = np.full((12, 16, 3), 200, np.uint8)
    with open_dashboard(tmp_path / "live", server.port, training=False) as dashboard:
        for name in ("first", "second"):
            dashboard.live(name, image, np.zeros((12, 16), np.uint8))
    shown = windows_of(server.port, "images live")["live"]
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
    assert "iou" in windows_of(server.port, "graphs broken")
    assert len(logged()) == len(set(logged())) and any(
        "cannot be saved" in line for line in logged()
    )


def test_a_spoilt_record_is_written_anew(server, tmp_path):
    for number, text in enumerate(
        ("", "{", "[]", '{"jsons": 3}', '{"jsons": {"iou": 3}}', '{"jsons": {"predictions": {}}}')
    ):
        folder = tmp_path / f"spoilt{number}"
        folder.mkdir()
        for env in ("graphs", "images"):
            (folder / f"{env} {folder.name}.json").write_text(text)
        with open_dashboard(folder, server.port, resume=True) as dashboard:
            train(dashboard, range(1, 3))
        assert_curves(server.port, folder)
        assert (
            "predictions"
            in json.loads((folder / f"images {folder.name}.json").read_text())["jsons"]
        )


def test_without_visualize_and_on_other_ranks_nothing_happens(tmp_path, monkeypatch):
    threads = threading.active_count()
    quiet = [Dashboard.of(options(tmp_path, 1, visualize=False), LABELS)]
    monkeypatch.setattr("utils.dashboard.dashboard.rank", lambda: 1)
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
