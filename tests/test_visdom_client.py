"""A visdom server that is absent, hangs, dies, is none or is slow: a run does not notice."""

import json
import threading
import time

import pytest

from utils.dashboard import visdom_client, windows
from utils.dashboard.visdom_client import Server, VisdomClient
from utils.dashboard.windows import Record
from visdom_server import VisdomServer, free_port, hanging_port, wait_for, windows_of
from watched import IMAGE, labelled, open_dashboard, steps, traces, train


@pytest.fixture
def own_server(tmp_path_factory):
    """One that a test may kill."""
    with VisdomServer(tmp_path_factory.mktemp("visdom")) as server:
        yield server


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
    assert (
        len(logged()) == 1
        and "refused" in logged()[0]
        and "--replay" in logged()[0]
        and "\n" not in logged()[0]
    )
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
        wait_for(lambda: "predictions" in windows_of(own_server.port, "images dying"))
        own_server.kill()
        assert many_events(dashboard) < 1
        train(dashboard, range(3, 6), resume=True)
    assert len(logged()) == 1
    recorded = json.loads((tmp_path / "dying" / "images dying.json").read_text())["jsons"]
    assert steps(recorded["predictions"]) == [1, 2, 3, 4, 5]


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
    stuck = VisdomClient(record, server)
    stuck.save()  # the thread is busy from here on
    wait_for(lambda: not stuck.saving)
    stuck.show("e", "curve", lambda: windows.curves("curve", "", [1], {"": [1.0]}))
    for step in range(100):
        stuck.show(
            "e",
            "images",
            lambda step=step: windows.picture("images", "", IMAGE, step=step),
            history=True,
        )
        stuck.show("e", "bars", lambda step=step: windows.bars("bars", "", ["a"], [step / 100], ""))
    assert len(stuck.waiting) == visdom_client.WAITING + 2
    server.go.set()
    stuck.close()
    assert steps(record.envs["e"]["images"]) == list(range(100 - visdom_client.WAITING, 100))
    assert traces(record.envs["e"]["bars"])[""] == (["a"], [0.99]) and "curve" in record.envs["e"]
    assert not logged()


def test_a_history_that_is_too_long_keeps_every_second_image_and_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "LONGEST", 8)
    record = Record(tmp_path, keep=False)
    goes_on = [
        record.show("e", windows.picture("p", "", IMAGE, step=step)) for step in range(1, 11)
    ]
    assert (
        steps(record.envs["e"]["p"]) == [1, 3, 5, 7, 9, 10]
        and record.envs["e"]["p"]["selected"] == 5
    )
    assert goes_on == [False] + 7 * [True] + [False, True]
