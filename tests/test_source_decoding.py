"""Video files that are damaged, irregular or not shown as they are stored. All are made here."""

import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from datasets.source import decoding, open_source
from datasets.source.decoding import Clock
from datasets.source.display import displayed, square_pixels
from datasets.source.whole import cut_short
from frames import flat, index_in, read, write_video

RATE = 25
SIZE = (48, 64)  # (H, W)
FRAMES = 50


def moving(i, size=SIZE):
    """A picture that differs from the one before all over, so that every packet holds data."""
    return np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8)


def encode(path, images, *, times=None, codec="libx264", change=None, prepare=None, **options):
    """Write a video. times: seconds of the frames. change: packet, its number -> what is written,
    None to leave it out. prepare: is called with the stream before the first frame."""
    number = 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options={"g": "10", **options})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        # AVI has a fixed rate
        ticks = 1000 if times else RATE
        stream.codec_context.time_base = Fraction(1, ticks)
        if prepare:
            prepare(stream)
        packets = []
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = round(ticks * times[i]) if times else i
            frame.time_base = Fraction(1, ticks)
            frame.duration = ticks // RATE
            packets += stream.encode(frame)
        for packet in packets + stream.encode():
            if change:
                packet = change(packet, number)
            number += 1
            if packet is not None:
                container.mux(packet)
    return path


def damage(*numbers):
    """Spoil the packets of these numbers."""

    def change(packet, number):
        if number not in numbers:
            return packet
        data = bytes(packet)
        spoiled = av.Packet(data[:4] + b"\xff" * (len(data) - 4))
        spoiled.pts = packet.pts
        spoiled.dts = packet.dts
        spoiled.time_base = packet.time_base
        spoiled.duration = packet.duration
        spoiled.stream = packet.stream
        spoiled.is_keyframe = packet.is_keyframe
        return spoiled

    return change


def times_of(frames):
    return [frame.time for frame in frames]


@pytest.mark.parametrize("number", [5, 23, 47, 48, 49])
@pytest.mark.parametrize(
    "codec, suffix", [("libx264", "mp4"), ("libx264", "mkv"), ("mjpeg", "avi")]
)
def test_a_damaged_packet_costs_one_frame_and_no_time(tmp_path, codec, suffix, number):
    options = {"strict": "-1"} if codec == "mjpeg" else {"bf": "0"}
    path = tmp_path / f"clip.{suffix}"
    encode(path, [moving(i) for i in range(FRAMES)], codec=codec, change=damage(number), **options)
    frames, source = read(path)
    assert len(frames) == FRAMES - 1
    expected = [i / RATE for i in range(FRAMES) if i != number]
    assert times_of(frames) == pytest.approx(expected, abs=2e-3)
    assert source.notes == [f"{path}: 1 frame could not be decoded"]


def test_frames_that_come_out_of_order_are_shown_in_order(tmp_path):
    path = encode(tmp_path / "b.mp4", [flat(5 * i) for i in range(FRAMES)], bf="3")
    frames, source = read(path)
    assert [round(float(frame.image.mean()) / 5) for frame in frames] == list(range(FRAMES))
    assert times_of(frames) == pytest.approx([i / RATE for i in range(FRAMES)], abs=2e-3)
    assert source.notes == []


def test_several_damaged_packets_are_counted(tmp_path):
    images = [moving(i) for i in range(FRAMES)]
    path = encode(tmp_path / "clip.mp4", images, change=damage(13, 27, 35), bf="0")
    frames, source = read(path)
    assert len(frames) == FRAMES - 3 and source.length == FRAMES
    assert source.notes == [f"{path}: 3 frames could not be decoded"]


def test_a_damaged_key_frame_costs_all_that_refer_to_it(tmp_path):
    """One packet raises an error, but ten frames are missing."""
    images = [flat(5 * i) for i in range(FRAMES)]
    path = encode(tmp_path / "clip.mp4", images, change=damage(0), bf="0", sc_threshold="0")
    frames, source = read(path)
    assert FRAMES - 10 <= len(frames) < FRAMES
    lost = FRAMES - len(frames)
    assert f"{lost} frame" in source.notes[0] and "could not be decoded" in source.notes[0]


def test_a_video_without_a_whole_packet_is_an_error(tmp_path):
    images = [moving(i) for i in range(4)]
    encode(tmp_path / "clip.mp4", images, change=damage(*range(4)), bf="0")
    with pytest.raises(ValueError, match="clip.mp4 gives no frame"):
        read(tmp_path / "clip.mp4")


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_a_variable_rate_keeps_its_times(tmp_path, suffix):
    """What phones and screen recorders write."""
    times = [i / 50 for i in range(20)] + [0.4 + i / 5 for i in range(10)]
    path = encode(tmp_path / f"clip.{suffix}", [flat(8 * i) for i in range(30)], times=times)
    frames, source = read(path)
    assert times_of(frames) == pytest.approx(times, abs=2e-3)
    assert source.notes == [], "a whole file did not end early"


@pytest.mark.parametrize("first", [3, 7])
def test_a_stream_copy_that_begins_between_key_frames_is_whole(tmp_path, first):
    images = [flat(8 * i) for i in range(30)]
    path = tmp_path / "clip.mkv"
    encode(path, images, change=lambda packet, number: packet if number >= first else None, bf="0")
    frames, source = read(path)
    assert len(frames) >= 20 and source.notes == []
    assert times_of(frames)[0] == 0 and times_of(frames)[-1] == pytest.approx(
        (len(frames) - 1) / RATE, abs=2e-3
    )


def test_a_container_with_a_wrong_count_is_whole(tmp_path):
    path = encode(tmp_path / "clip.avi", [flat(8 * i) for i in range(30)], codec="mpeg4", bf="0")
    data = bytearray(path.read_bytes())
    # dwTotalFrames in avih, and dwLength in strh
    for place in (data.index(b"avih") + 8 + 16, data.index(b"strh") + 8 + 32):
        assert data[place : place + 4] == (30).to_bytes(4, "little")
        data[place : place + 4] = (45).to_bytes(4, "little")
    path.write_bytes(data)
    frames, source = read(path)
    assert len(frames) == 30 and source.notes == []


@pytest.mark.parametrize("suffix", ["avi", "mkv"])
def test_what_was_cut_short_is_told(tmp_path, suffix):
    path = tmp_path / f"clip.{suffix}"
    encode(path, [moving(i) for i in range(FRAMES)], codec="mpeg4", bf="0")
    assert read(path)[1].notes == [] and not cut_short(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames, source = read(path)
    assert 10 < len(frames) < 40 and cut_short(path)
    assert len(source.notes) == 1 and f"of {FRAMES} frames" in source.notes[0]


def test_bytes_behind_a_video_do_not_matter(tmp_path):
    path = write_video(tmp_path / "clip.mp4")
    path.write_bytes(path.read_bytes() + b"\0" * 77)
    frames, source = read(path)
    assert len(frames) == 10 and source.notes == [] and not cut_short(path)


@pytest.mark.parametrize(
    "turn, show",
    [
        ((0, True, False), lambda image: image[:, ::-1]),
        ((0, False, True), lambda image: image[::-1]),
        ((180, False, False), lambda image: image[::-1, ::-1]),
    ],
)
def test_a_mirrored_video_comes_as_players_show_it(tmp_path, turn, show):
    image = np.zeros((*SIZE, 3), np.uint8)
    image[:16, :20] = 250
    degrees, across, down = turn

    def prepare(stream):
        stream.set_display_rotation(degrees, hflip=across, vflip=down)

    path = encode(tmp_path / "clip.mp4", [image] * 3, prepare=prepare)
    found = read(path)[0][0].image
    assert found.shape == image.shape
    assert np.abs(found.astype(int) - show(image)).mean() < 5


def test_every_display_matrix_moves_a_corner_to_its_place():
    image = np.zeros((2, 3, 3), np.uint8)
    image[0, 0] = 1
    one = 1 << 16
    corners = {
        (one, 0, 0, one): (0, 0),
        (-one, 0, 0, one): (0, 2),
        (one, 0, 0, -one): (1, 0),
        (-one, 0, 0, -one): (1, 2),
        # turned: 3 rows, 2 columns
        (0, one, one, 0): (0, 0),
        (0, one, -one, 0): (0, 1),
        (0, -one, one, 0): (2, 0),
        (0, -one, -one, 0): (2, 1),
    }
    for numbers, corner in corners.items():
        shown = displayed(image, np.array(numbers, np.int32).reshape(2, 2))
        assert shown[corner].all(), numbers
        assert shown.sum() == 3 and shown.flags["C_CONTIGUOUS"]
    assert (displayed(image, np.zeros((2, 2), np.int32)) == image).all()


@pytest.mark.parametrize("aspect, width", [(Fraction(2), 128), (Fraction(1, 2), 32)])
def test_pixels_that_are_not_square_are_stretched(tmp_path, aspect, width):
    def prepare(stream):
        stream.codec_context.sample_aspect_ratio = aspect

    path = encode(tmp_path / "clip.mp4", [flat(90)] * 3, prepare=prepare)
    assert [frame.image.shape for frame in read(path)[0]] == [(48, width, 3)] * 3


def test_an_aspect_that_cannot_be_is_ignored():
    for aspect in (None, Fraction(0), Fraction(1), Fraction(1, 999), Fraction(999)):
        assert square_pixels(64, aspect) == 64
    assert square_pixels(1, Fraction(1, 3)) == 1


@pytest.mark.parametrize("step", [2, 3, 7])
def test_a_step_keeps_the_times(tmp_path, step):
    frames, source = read(write_video(tmp_path / "clip.mp4", 30), step=step)
    assert times_of(frames) == pytest.approx([i / 25 for i in range(0, 30, step)], abs=1e-3)
    assert [index_in(frame.image) % 25 for frame in frames] == [i % 25 for i in range(0, 30, step)]
    assert source.fps == pytest.approx(25 / step)


def test_a_rate_that_is_given_goes_before_time_stamps(tmp_path):
    frames, source = read(write_video(tmp_path / "clip.mp4"), fps=10)
    assert times_of(frames) == [i / 10 for i in range(10)] and not source.assumed_rate


def test_stamps_become_times_that_always_rise():
    clock = Clock(10)
    assert [clock.time(stamp) for stamp in (5.0, 5.5, 7.0)] == [0, 0.5, 2.0]
    assert clock.time(None) == pytest.approx(2.1)
    # one that comes too late
    assert clock.time(6.9) == pytest.approx(2.101)
    # joined files: the second begins at 0 again
    assert clock.time(0.0) == pytest.approx(2.201)
    assert clock.time(0.3) == pytest.approx(2.501)
    equal = Clock(10)
    assert [equal.time(3.0) for _ in range(4)] == pytest.approx([0, 0.1, 0.2, 0.3])
    without = Clock(10)
    assert [without.time(None) for _ in range(3)] == pytest.approx([0, 0.1, 0.2])


def test_without_pyav_opencv_decodes_with_a_note_that_names_it(tmp_path, monkeypatch):
    write_video(tmp_path / "clip.mp4", 10)
    # None in sys.modules makes the import fail
    monkeypatch.setitem(sys.modules, "av", None)
    assert decoding.pyav() is None
    frames, source = read(tmp_path / "clip.mp4")
    assert [index_in(frame.image) for frame in frames] == list(range(10))
    assert len(source.notes) == 1 and "pip install av" in source.notes[0]


def test_pictures_are_those_that_opencv_gives(shared):
    import cv2

    for path in sorted((shared / "videos").glob("*.mp4")):
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        with open_source(str(path), step=30) as source:
            for frame in source:
                while capture.get(cv2.CAP_PROP_POS_FRAMES) < frame.index:
                    capture.grab()
                expected = capture.read()[1][..., ::-1]
                assert np.abs(frame.image.astype(int) - expected).mean() <= 2
