"""Standard input as a source: PPM headers, images cut short, and data that is no PPM."""

import io
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from datasets.source import open_source
from datasets.source.read_ahead import ReadAhead
from frames import flat, ppm, read

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def pipe(monkeypatch):
    """A function that puts bytes on standard input -> the writing end, closed by default."""
    ends = []

    def fill(data, close=True):
        reading, writing = os.pipe()
        ends.append(os.fdopen(reading, "rb"))
        if data:
            os.write(writing, data)
        if close:
            os.close(writing)
        monkeypatch.setattr(sys, "stdin", ends[0])
        return writing

    yield fill
    for end in ends:
        end.close()


def test_a_pipe_of_ppm_images_from_another_process(tmp_path):
    writer = """
        import sys
        for i in range(5):
            # the size changes on the way
            width, height = (3, 2) if i < 3 else (200, 300)
            sys.stdout.buffer.write(b"P6\\n%d %d\\n255\\n" % (width, height))
            sys.stdout.buffer.write(bytes([i, 2 * i, 255 - i]) * (width * height))
            sys.stdout.flush()
        """
    reader = """
        from datasets.source import open_source
        with open_source("-") as source:
            for frame in source:
                assert (frame.image == frame.image[0, 0]).all()
                print(frame.name, frame.index, frame.image.shape, frame.image[0, 0].tolist())
            print(source.kind, source.name, source.length, source.fps, source.notes)
        """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(writer)], stdout=subprocess.PIPE
    )
    second = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(reader)],
        stdin=first.stdout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert first.wait(timeout=10) == 0 and second.returncode == 0, second.stderr
    shapes = [(2, 3, 3)] * 3 + [(300, 200, 3)] * 2
    expected = [f"{i:06d} {i} {shapes[i]} {[i, 2 * i, 255 - i]}" for i in range(5)]
    assert second.stdout.splitlines() == [*expected, "stdin stdin None 25.0 []"]


def test_ppm_headers_of_every_style_are_read(pipe):
    deep = np.array([65535, 257 * 100, 0x8010], ">u2").tobytes()
    # an image of one pixel -> its RGB
    images = {
        b"P6 1 1 255 \1\2\3": [1, 2, 3],
        b"P6\n# made by hand\n1 # width\n1\n255\n\4\5\6\n": [4, 5, 6],
        b"P6\r1\t1\n65535\n" + deep: [255, 100, 128],
        b"P6 1 1 15\n\x0f\x07\x00": [255, 119, 0],
        # one white space ends the header; the bytes behind it are pixels
        b"P6 1 1 255\n\n\n ": [10, 10, 32],
    }
    pipe(b"".join(images))
    frames, _ = read("-")
    assert [frame.image[0, 0].tolist() for frame in frames] == list(images.values())


def test_a_step_skips_images_of_a_pipe(pipe):
    pipe(b"".join(ppm(flat(i, (2, 3))) for i in range(8)))
    frames, _ = read("-", step=3)
    assert [frame.index for frame in frames] == [0, 3, 6]
    assert [int(frame.image.mean()) for frame in frames] == [0, 3, 6]


@pytest.mark.parametrize("missing", [1, 17, 18, 19, 24, 28])
def test_a_pipe_that_ends_inside_an_image_keeps_what_came_whole(pipe, missing):
    image = ppm(flat(7, (2, 3)))
    assert len(image) == 29
    pipe((image * 3)[:-missing])
    frames, source = read("-")
    assert len(frames) == 2
    assert source.notes == ["standard input ended inside image 3: 2 came whole"]


@pytest.mark.parametrize("data", [b"", b"P6 2", b"P6 2 2 255\n123", b"\n\n"])
def test_a_pipe_without_an_image_is_an_error(pipe, data):
    pipe(data)
    with pytest.raises(ValueError, match="before its first PPM image"):
        read("-")


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\x1cftypisom" * 9,
        b"P5 2 2 255\n1234",
        b"P6 0 2 255\n",
        b"P6 2 x 255\n",
        b"P6 2 2 0\n",
        b"P6 2 2 65536\n",
        b"P6 99999999 99999999 255\n",
        b"P6 -2 -2 255\n",
        b"\x89PNG\r\n\x1a\n",
        b"P6 2 2 255\n" + b"x" * 12 + b"garbage behind it",
    ],
)
def test_a_pipe_of_something_else_is_an_error_that_says_how(pipe, data):
    pipe(data)
    with pytest.raises(ValueError, match="ffmpeg -i in.mp4 -f image2pipe -c:v ppm -") as caught:
        read("-")
    assert "\n" not in str(caught.value)


def test_a_terminal_is_no_pipe(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    with pytest.raises(ValueError, match="nothing is piped"):
        open_source("-")


def test_closing_ends_a_reader_that_waits_for_a_pipe(pipe):
    writing = pipe(ppm(flat(1, (2, 3))) + b"P6 100", close=False)
    frames = ReadAhead(open_source("-"))
    assert next(frames).image.mean() == 1
    begin = time.monotonic()
    frames.close()
    os.close(writing)
    assert time.monotonic() - begin < 5 and not frames._thread.is_alive()
    assert frames.source.notes == [], "the reader was closed: nothing was lost"
