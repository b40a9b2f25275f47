"""Cameras and streams as a source, tested with an HTTP server that drops connections."""

import functools
import io
import threading
import time
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from datasets.source import live, open_source
from datasets.source.read_ahead import ReadAhead
from frames import flat, index_in, read, write_video


@pytest.fixture
def serve():
    """A function that serves HTTP on this machine -> its address."""
    servers = []

    def start(handler):
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def motion_jpeg(connections, pause=0.0):
    """A camera that drops: connection n gives the frames connections[n] and ends.

    Frames are given as (value, size), a frame every `pause` seconds. Later connections are refused.
    """
    left = list(connections)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            if not left:
                return self.send_error(503)
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for value, size in left.pop(0):
                jpeg = io.BytesIO()
                Image.fromarray(flat(value, size)).save(jpeg, "JPEG")
                time.sleep(pause)
                self.wfile.write(
                    b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n"
                    % (len(jpeg.getvalue()), jpeg.getvalue())
                )

    return Handler


def test_a_camera_that_is_not_there_is_one_line(capfd):
    for spec in ("77", "/dev/video77"):
        with pytest.raises(RuntimeError, match="camera .*77 cannot be opened") as caught:
            open_source(spec)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_stream_that_does_not_answer_is_one_line_without_the_password():
    with pytest.raises(
        RuntimeError, match="stream rtsp://127.0.0.1:1/x cannot be opened"
    ) as caught:
        open_source("rtsp://me:secret@127.0.0.1:1/x")
    assert "secret" not in str(caught.value)


def test_a_stream_reconnects_when_it_drops_and_gives_up_in_the_end(serve, monkeypatch):
    monkeypatch.setattr(live, "BACKOFF", (0.01, 0.02, 0.03, 0.04))
    small = (48, 64)
    large = (96, 128)
    connections = [[(10, small)] * 6, [], [(200, large)] * 4]
    frames, source = read(serve(motion_jpeg(connections)) + "/camera.mjpg")
    # a stream may come back with another size
    assert [frame.image.shape[:2] for frame in frames] == [small] * 6 + [large] * 4
    assert [frame.index for frame in frames] == list(range(10))
    assert (source.kind, source.live, source.length) == ("stream", True, None)
    assert len(source.notes) == 2
    assert "dropped after 6 frames, reconnected (attempt 2)" in source.notes[0]
    assert "dropped after 10 frames and gave no more in 4 attempts" in source.notes[1]


def test_the_times_of_a_stream_are_those_of_arrival_whatever_rate_is_given(serve, monkeypatch):
    monkeypatch.setattr(live, "BACKOFF", (0.01,))
    address = serve(motion_jpeg([[(10, (48, 64))] * 30], pause=0.05)) + "/camera.mjpg"
    frames, source = read(address, fps=200)
    times = [frame.time for frame in frames]
    assert times[0] == 0 and times == sorted(times) and len(times) == 30
    # OpenCV reads some frames before it gives the first
    assert 0.3 < times[-1] < 3
    assert source.began is not None


def test_a_stream_that_drops_again_and_again_is_given_up(serve, monkeypatch):
    monkeypatch.setattr(live, "BACKOFF", (0.01,) * 3)
    frames, source = read(serve(motion_jpeg([[(10, (48, 64))] * 3] * 50)) + "/camera.mjpg")
    assert len(frames) == 3 * 4 and len(source.notes) == 4


def test_a_connection_that_held_for_long_renews_the_attempts(serve, monkeypatch):
    monkeypatch.setattr(live, "BACKOFF", (0.01,) * 3)
    monkeypatch.setattr(live, "STABLE", 0.0)
    frames, _ = read(serve(motion_jpeg([[(10, (48, 64))] * 3] * 9)) + "/camera.mjpg")
    assert len(frames) == 3 * 9


def test_waiting_for_a_stream_ends_with_closing(serve, monkeypatch):
    monkeypatch.setattr(live, "BACKOFF", (600,))
    reader = ReadAhead(open_source(serve(motion_jpeg([[(10, (48, 64))] * 3])) + "/camera.mjpg"))
    assert len([next(reader) for _ in range(3)]) == 3
    begin = time.monotonic()
    reader.close()
    assert time.monotonic() - begin < 5 and not reader._thread.is_alive()


def test_a_video_behind_http_has_an_end(tmp_path, serve):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    write_video(tmp_path / "clip.mp4")
    frames, source = read(serve(functools.partial(Quiet, directory=tmp_path)) + "/clip.mp4?token=1")
    assert [index_in(frame.image) for frame in frames] == list(range(10))
    assert (source.live, source.length, source.notes) == (False, 10, [])
