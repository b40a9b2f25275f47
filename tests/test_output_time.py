"""Output time is source time: what is written of a source lasts as long as the source itself."""

import os
import sys

import av
import numpy as np
import pytest

from datasets.source import live, open_source
from datasets.source.read_ahead import ReadAhead
from frames import flat, ppm, write_images, write_video
from test_source_decoding import FRAMES, RATE, damage, encode, moving
from test_source_streams import motion_jpeg, serve
from utils.output.inference import InferenceOutput

__all__ = ["serve"]  # a fixture
PALETTE = np.zeros((19, 3), np.uint8)


def write_out(folder, source, *, latest=False):
    """Write an overlay of a source as inference does -> its path, and the reader."""
    with (
        source,
        ReadAhead(source, latest=latest) as frames,
        InferenceOutput(
            folder, "out", ["overlay"], fps=source.fps, palette=PALETTE, alpha=0.5
        ) as output,
    ):
        for frame in frames:
            labels = np.zeros(frame.image.shape[:2], np.uint8)
            output.write(frame.image, frame.name, labels, frame.time)
    return folder / "out_overlay.mp4", frames


def lasts(path):
    """Seconds, and how many frames."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return float(stream.duration * stream.time_base), stream.frames


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("fps", [12.5, 24000 / 1001, 50])
def test_a_video_keeps_its_length_at_every_step(tmp_path, fps, step):
    path = write_video(tmp_path / "clip.mp4", 51, fps=fps)
    written, _ = write_out(tmp_path, open_source(str(path), step=step))
    assert lasts(written) == (pytest.approx(51 / fps, abs=2e-3), 51 // step)


def test_a_variable_rate_keeps_its_length(tmp_path):
    times = [i / 50 for i in range(40)] + [0.8 + i / 5 for i in range(11)]
    path = encode(tmp_path / "clip.mp4", [flat(5 * i) for i in range(51)], times=times)
    written, _ = write_out(tmp_path, open_source(str(path)))
    seconds, frames = lasts(written)
    assert frames == 51, "no frame is lost or shown twice"
    assert seconds == pytest.approx(times[-1], abs=0.2)
    with av.open(str(written)) as container:
        shown = [frame.time for frame in container.decode(video=0)]
    assert shown == pytest.approx(times, abs=2e-3)


def test_a_damaged_packet_does_not_shorten_what_is_written(tmp_path):
    images = [moving(i) for i in range(FRAMES)]
    path = encode(tmp_path / "clip.mp4", images, change=damage(21), bf="2")
    written, _ = write_out(tmp_path, open_source(str(path)))
    assert lasts(written) == (pytest.approx(FRAMES / RATE, abs=2e-3), FRAMES - 1)


@pytest.mark.parametrize("fps, seconds", [(50, 0.5), (None, 1.0)])
def test_a_pipe_lasts_as_its_given_rate_says(tmp_path, monkeypatch, fps, seconds):
    reading, writing = os.pipe()
    os.write(writing, b"".join(ppm(flat(i, (16, 16))) for i in range(25)))
    os.close(writing)
    with open(reading, "rb") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        source = open_source("-", fps=fps)
        written, _ = write_out(tmp_path, source)
    assert lasts(written) == (pytest.approx(seconds, abs=2e-3), 25)
    assert source.assumed_rate == (fps is None)


def test_a_folder_lasts_as_its_given_rate_says(tmp_path):
    write_images(tmp_path / "f", [f"{i}.png" for i in range(12)])
    written, _ = write_out(tmp_path, open_source(str(tmp_path / "f"), fps=4, step=2))
    assert lasts(written) == (pytest.approx(3, abs=2e-3), 6)


def test_a_live_source_lasts_as_long_as_it_was_watched(tmp_path, serve, monkeypatch):
    monkeypatch.setattr(live, "BACKOFF", ())
    address = serve(motion_jpeg([[(10, (48, 64))] * 40], pause=0.05)) + "/camera.mjpg"
    slow = []

    class Slow(InferenceOutput):
        def write(self, image, name, prediction, time=None):
            slow.append(time)
            # a network that misses most frames
            live.time.sleep(0.2)
            super().write(image, name, prediction, time)

    monkeypatch.setattr(sys.modules[__name__], "InferenceOutput", Slow)
    written, frames = write_out(tmp_path, open_source(address), latest=True)
    seconds, count = lasts(written)
    assert count == len(slow) < 30 and frames.dropped > 0
    assert seconds == pytest.approx(slow[-1] + 1 / frames.source.fps, abs=0.01)
    assert slow[-1] > 0.8
    assert 0 < frames.mean_latency <= frames.max_latency < 1
