"""Reading ahead: the same frames, bounded, and no thread or memory left behind."""

import os
import threading
import time
from pathlib import Path

import pytest

from datasets.source import Frame, Source, open_source
from datasets.source.base import Entry
from datasets.source.read_ahead import ReadAhead
from frames import flat, read, write_images, write_video


def same(frames, others):
    if [frame[1:] for frame in frames] != [frame[1:] for frame in others]:
        return False
    pairs = zip(frames, others, strict=True)
    return all((frame.image == other.image).all() for frame, other in pairs)


@pytest.mark.parametrize("depth", [1, 4, 100])
def test_reading_ahead_gives_what_plain_reading_gives(tmp_path, depth):
    write_video(tmp_path / "clip.mp4", 30)
    write_images(tmp_path / "f", [f"{i}.png" for i in range(9)])
    for spec in ("clip.mp4", "f"):
        plain = read(tmp_path / spec, step=2)[0]
        with ReadAhead(open_source(str(tmp_path / spec), step=2), depth) as frames:
            ahead = list(frames)
            assert list(frames) == [], "an ended source stays ended"
        assert same(ahead, plain) and len(plain) > 4


class Counting(Source):
    """`total` frames of one pixel, then `error`; counts the decoded frames."""

    def __init__(self, total=10**9, error=None, live=False, pause=0.0):
        super().__init__("77", "camera", step=1)
        self.total = total
        self.error = error
        self.live = live
        self.pause = pause
        self.decoded = 0
        self.closed = 0

    def _entries(self):
        while self.decoded < self.total and not self._stopping.wait(self.pause):
            yield Entry(None, self.decode)
        if self.error:
            raise self.error

    def decode(self):
        self.decoded += 1
        return flat(self.decoded % 256, (1, 1))

    def close(self):
        super().close()
        self.closed += 1


def until(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    assert condition()


def test_reading_ahead_is_bounded():
    with ReadAhead(Counting(), depth=4) as frames:
        until(lambda: frames.source.decoded == 5)  # four wait, one is in the reader's hand
        time.sleep(0.05)
        assert frames.source.decoded == 5
        assert [next(frames).index for _ in range(3)] == [0, 1, 2]
        until(lambda: frames.source.decoded == 8)


def test_an_error_comes_where_it_happened_and_once():
    with ReadAhead(Counting(5, ValueError("damaged"))) as frames:
        assert [next(frames).index for _ in range(5)] == list(range(5))
        with pytest.raises(ValueError, match="damaged"):
            next(frames)
        with pytest.raises(StopIteration):
            next(frames)


def test_images_are_resized_ahead_and_kept_as_they_were():
    resized_by = []

    def double(image):
        resized_by.append(threading.current_thread())
        return image.repeat(2, 0).repeat(2, 1)

    with ReadAhead(Counting(5), resize=double) as frames:
        until(lambda: len(resized_by) == 5)  # nobody has asked for a frame yet
        found = list(frames)
    assert [frame.image.shape for frame in found] == [(1, 1, 3)] * 5
    for frame in found:
        assert frame.work.shape == (2, 2, 3) and (frame.work == frame.image).all()
    assert threading.current_thread() not in resized_by
    with ReadAhead(Counting(1)) as frames:
        assert next(frames).work is None


def test_an_image_that_cannot_be_resized_is_told_in_its_turn():
    def third_fails(image):
        if image[0, 0, 0] == 3:
            raise ValueError("frame 3")
        return image

    with ReadAhead(Counting(5), resize=third_fails) as frames:
        assert [next(frames).index for _ in range(2)] == [0, 1]
        with pytest.raises(ValueError, match="frame 3"):
            next(frames)


@pytest.mark.parametrize("taken", [0, 1, 7])
def test_closing_early_leaves_no_thread(taken):
    before = set(threading.enumerate())
    for _ in range(5):
        with ReadAhead(Counting()) as frames:
            for _ in range(taken):
                assert isinstance(next(frames), Frame)
        assert frames.source.closed == 1
        frames.close()
        with pytest.raises(StopIteration):
            next(frames)
    assert set(threading.enumerate()) == before


def test_an_error_of_the_consumer_leaves_no_thread(tmp_path):
    before = set(threading.enumerate())
    with (
        pytest.raises(ZeroDivisionError),
        ReadAhead(open_source(str(write_video(tmp_path / "clip.mp4")))) as frames,
    ):
        next(frames)
        raise ZeroDivisionError
    assert set(threading.enumerate()) == before


def test_of_a_live_source_the_newest_frame_is_kept():
    with ReadAhead(Counting(40, live=True, pause=0.001), latest=True) as frames:
        first = next(frames)
        until(lambda: frames.source.decoded == 40 and frames._ended)
        rest = list(frames)
    assert [frame.index for frame in rest] == [39], "the last frame, and no older one"
    assert frames.dropped == 40 - 2 and first.index < 39


def test_latency_counts_from_the_arrival_of_a_frame_to_its_delivery():
    class Arriving(Counting):
        """A camera whose frames came a second before they were decoded."""

        def _entries(self):
            self.began = time.monotonic() - 1
            yield Entry(None, self.decode, 0.0)
            yield Entry(None, self.decode, 0.5)

    with ReadAhead(Arriving(live=True)) as frames:
        assert frames.mean_latency == 0, "nothing was delivered"
        assert [frame.time for frame in frames] == [0.0, 0.5]
    assert 1 <= frames.max_latency < 1.4
    assert 0.75 <= frames.mean_latency < frames.max_latency


def test_waiting_in_the_queue_is_latency_too():
    with ReadAhead(Counting(2)) as frames:
        until(lambda: frames._ended)
        time.sleep(0.1)
        list(frames)
    assert 0.1 <= frames.mean_latency <= frames.max_latency < 5


def test_only_live_sources_drop_frames():
    with pytest.raises(ValueError, match="live"):
        ReadAhead(Counting(), latest=True)
    with pytest.raises(ValueError, match="depth"):
        ReadAhead(Counting(), 0)


def test_resident_memory_does_not_grow_with_the_length_of_a_video(tmp_path):
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    write_video(tmp_path / "clip.mp4", 2000, (120, 160))
    sizes = []
    with ReadAhead(open_source(str(tmp_path / "clip.mp4"))) as frames:
        for frame in frames:
            if frame.index in (200, 1999):
                sizes.append(resident())
    assert frame.index == 1999 and sizes[1] <= 1.02 * sizes[0]
