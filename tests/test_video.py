"""Videos and label images: what is written comes back, and nothing is lost or half-written when
something fails."""

import os
import signal
import subprocess
import sys
import textwrap
from collections import namedtuple
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from utils.output import encoders, video
from utils.output.label_images import LabelWriter
from utils.output.video import VideoWriter, probe

ROOT = Path(__file__).resolve().parents[1]
COLOURS = ((220, 20, 60), (0, 130, 0), (70, 70, 200), (128, 64, 128))


def flat(i, size=(48, 64)):
    return np.full((*size, 3), COLOURS[i % len(COLOURS)], np.uint8)


def noise(i, size=(120, 160)):
    return np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)


def decode(path):
    """(frames, H, W, 3) RGB, read by OpenCV alone."""
    import cv2

    capture, frames = cv2.VideoCapture(str(path)), []
    while (frame := capture.read())[0]:
        frames.append(frame[1][..., ::-1])
    return np.stack(frames)


def run(code, *arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.parametrize("fps", [25, 30000 / 1001, 12.5, 1, 59.94, 240.123, 5 / 3])
def test_frames_come_back_in_order_with_their_count_size_rate_and_colours(tmp_path, fps):
    with VideoWriter(tmp_path / "new" / "a.mp4", fps) as writer:
        for i in range(13):
            writer.write(flat(i))
    assert writer.paths == [tmp_path / "new" / "a.mp4"] == list((tmp_path / "new").iterdir())
    facts = probe(tmp_path / "new" / "a.mp4")
    assert (facts["frames"], facts["size"]) == (13, (48, 64))
    assert facts["fps"] == pytest.approx(fps, rel=1e-3)
    frames = decode(tmp_path / "new" / "a.mp4").astype(int)
    for i, frame in enumerate(frames):
        assert np.abs(frame - flat(i)).max() <= 12, (
            f"frame {i} is not the one written, or red and blue are swapped"
        )


def test_detail_survives_at_its_place(tmp_path):
    image = np.zeros((96, 128, 3), np.uint8)
    image[:48, :64] = 255, 0, 0
    image[48:, 64:] = 0, 0, 255
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(image)
    assert np.abs(decode(tmp_path / "a.mp4")[0].astype(int) - image).mean() < 5


@pytest.mark.parametrize(
    "size, even",
    [
        ((47, 63), (48, 64)),
        ((47, 64), (48, 64)),
        ((48, 63), (48, 64)),
        ((1, 1), (2, 2)),
        ((2, 16), (2, 16)),
    ],
)
def test_an_odd_side_repeats_its_last_row_or_column(tmp_path, size, even):
    image = flat(0, size)
    image[-1:], image[:, -1:] = 250, 250
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(image)
    frame = decode(tmp_path / "a.mp4")[0]
    assert frame.shape == (*even, 3)
    assert frame[-1].mean() > 220 and frame[:, -1].mean() > 220, (
        "the added side must carry on the edge, not be black"
    )


def test_another_size_starts_another_file(tmp_path):
    sizes = [(48, 64)] * 3 + [(64, 48)] * 2 + [(48, 64)] * 4
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        for i, size in enumerate(sizes):
            writer.write(flat(i, size))
    assert [path.name for path in writer.paths] == ["a.mp4", "a_2.mp4", "a_3.mp4"]
    assert [(probe(path)["frames"], probe(path)["size"]) for path in writer.paths] == [
        (3, (48, 64)),
        (2, (64, 48)),
        (4, (48, 64)),
    ]


def test_the_final_name_appears_with_the_whole_video_only(tmp_path):
    target = tmp_path / "a.mp4"
    target.write_bytes(b"of an earlier run")
    writer = VideoWriter(target, 25)
    writer.write(flat(0))
    assert target.read_bytes() == b"of an earlier run"
    assert (tmp_path / "a.partial.mp4").exists()
    writer.close()
    assert probe(target)["frames"] == 1 and not (tmp_path / "a.partial.mp4").exists()


def test_a_video_without_frames_leaves_nothing(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        pass
    assert not list(tmp_path.iterdir()) and writer.paths == []


def test_closing_twice_is_harmless_and_a_closed_video_takes_no_frame(tmp_path):
    writer = VideoWriter(tmp_path / "a.mp4", 25)
    writer.write(flat(0))
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write(flat(1))
    assert writer.paths == [tmp_path / "a.mp4"] and probe(tmp_path / "a.mp4")["frames"] == 1


def test_an_error_keeps_what_was_written(tmp_path):
    with pytest.raises(ZeroDivisionError), VideoWriter(tmp_path / "a.mp4", 25) as writer:
        for i in range(7):
            writer.write(flat(i))
        raise ZeroDivisionError
    assert probe(tmp_path / "a.mp4")["frames"] == 7


ENDLESS = """
    import signal, sys, numpy as np
    from utils.output.video import VideoWriter
    # as a main program that wants to end in order
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # A shell that starts programs in the background lets them ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with VideoWriter(sys.argv[1], 25) as writer:
        for i in range(10**9):
            writer.write(np.full((48, 64, 3), i % 256, np.uint8))
            if i == 30:
                print("going", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_killed_run_leaves_a_readable_video(tmp_path, number):
    process = run(ENDLESS, tmp_path / "a.mp4")
    assert process.stdout.readline() == "going\n"
    process.send_signal(number)
    try:
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()  # whatever the test finds, nothing goes on writing
    assert process.returncode != 0 and "OSError" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert probe(tmp_path / "a.mp4")["frames"] > 30


def test_a_run_that_is_killed_outright_leaves_nothing_under_the_final_name(tmp_path):
    process = run(ENDLESS, tmp_path / "a.mp4")
    process.stdout.readline()
    process.kill()
    process.communicate(timeout=30)
    assert [path.name for path in tmp_path.iterdir()] == ["a.partial.mp4"]
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(flat(0))
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"], (
        "the next run must clear the leftovers"
    )


def test_a_disk_that_is_filling_stops_the_run_and_keeps_the_video(tmp_path, monkeypatch):
    usage, free = namedtuple("usage", "total used free"), [1 << 30]
    monkeypatch.setattr(video.shutil, "disk_usage", lambda path: usage(1 << 40, 0, free[0]))
    with (
        pytest.raises(OSError, match="1 MiB are left"),
        VideoWriter(tmp_path / "a.mp4", 25) as writer,
    ):
        for i in range(100):
            writer.write(flat(i))
            free[0] = 1 << 20 if i == 50 else free[0]
    assert 51 <= probe(tmp_path / "a.mp4")["frames"] <= 51 + video.SPACE_CHECK_EVERY


def test_a_full_disk_is_said_before_the_first_frame(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "SPACE_RESERVE", 1 << 62)
    with (
        pytest.raises(OSError, match="free some space"),
        VideoWriter(tmp_path / "a.mp4", 25) as writer,
    ):
        writer.write(flat(0))
    assert not list(tmp_path.iterdir())


def test_frames_that_do_not_reach_the_disk_are_an_error(tmp_path):
    """A limit on the file size fails writes as a full disk or a quota does; OpenCV itself says
    nothing."""
    process = run(
        """
        import resource, sys, numpy as np
        from utils.output.video import VideoWriter
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        rng = np.random.default_rng(0)
        with VideoWriter(sys.argv[1], 25) as writer:
            for i in range(300):
                writer.write(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8))
                print(i)
        """,
        tmp_path / "a.mp4",
    )
    written, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "OSError" in errors and "is the disk full?" in errors
    assert not list(tmp_path.iterdir()), "what cannot be read must not stay"
    import cv2

    if (
        int(cv2.__version__.split(".")[0]) >= 5
    ):  # before, OpenCV does not even say that a write failed
        assert len(written.splitlines()) < 100, "it must not run on for hours and say so at the end"


def test_a_video_that_lost_frames_on_the_way_is_an_error_at_close(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "_frames_by_header", lambda path: 3)
    with (
        pytest.raises(OSError, match="holds 3 of 5 frames"),
        VideoWriter(tmp_path / "a.mp4", 25) as writer,
    ):
        for i in range(5):
            writer.write(flat(i))


@pytest.fixture
def without_pyav(monkeypatch):
    monkeypatch.setattr(encoders, "pyav", lambda: None)


def test_a_video_that_cannot_be_opened_is_one_line(tmp_path, capfd):
    # a folder stands where the video should grow
    (tmp_path / "a.partial.mp4").mkdir()
    with pytest.raises(RuntimeError, match="48x64.*a.partial.mp4") as caught:
        VideoWriter(tmp_path / "a.mp4", 25).write(flat(0))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == "", "FFmpeg's own messages must not reach the user"


@pytest.mark.parametrize(
    "size, written",
    [((16, 9000), (14, 8192)), ((9000, 16), (8192, 14)), ((1080, 8196), (1080, 8192))],
)
def test_frames_larger_than_players_take_are_scaled_with_one_note(tmp_path, size, written):
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        for i in range(2):
            writer.write(flat(i, size))
    facts = probe(tmp_path / "a.mp4")
    assert (facts["frames"], facts["size"]) == (2, written)
    assert len(writer.notes) == 1
    assert f"a.mp4: frames of {size[0]}x{size[1]} (HxW) are scaled" in writer.notes[0]


def test_videos_are_h264_that_every_player_opens(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        for i in range(3):
            writer.write(flat(i))
    with av.open(tmp_path / "a.mp4") as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the index must come first"
    assert writer.notes == []


def test_frames_are_shown_at_their_times_and_the_last_for_one_over_fps(tmp_path):
    times = [7.0, 7.5, 7.52, 9.0]
    with VideoWriter(tmp_path / "a.mp4", 10) as writer:
        for i, time in enumerate(times):
            writer.write(flat(i), time)
    with av.open(tmp_path / "a.mp4") as container:
        stream = container.streams.video[0]
        found = [frame.time for frame in container.decode(stream)]
        lasts = float(stream.duration * stream.time_base)
    assert found == pytest.approx([0, 0.5, 0.52, 2.0], abs=1e-4)
    assert lasts == pytest.approx(2.1, abs=1e-3)


def test_times_that_do_not_rise_lose_no_frame(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 10) as writer:
        for time in (0.0, 0.2, 0.2, 0.1, 0.3):
            writer.write(flat(0), time)
    assert probe(tmp_path / "a.mp4")["frames"] == 5


def test_another_size_begins_another_file_at_its_own_time(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 10) as writer:
        for time, size in ((0.0, (48, 64)), (1.0, (64, 48)), (1.5, (64, 48))):
            writer.write(flat(0, size), time)
    with av.open(tmp_path / "a_2.mp4") as container:
        assert [frame.time for frame in container.decode(video=0)] == [0, 0.5]


def test_without_pyav_opencv_writes_with_a_note_that_names_it(tmp_path, without_pyav):
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        for i in range(5):
            writer.write(flat(i, (16, 9000)), i / 5)
    facts = probe(tmp_path / "a.mp4")
    assert (facts["frames"], facts["size"]) == (5, (14, 8190))
    assert "pip install av" in writer.notes[0] and "mp4v" in writer.notes[0]
    assert "scaled" in writer.notes[1] and len(writer.notes) == 2


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OSError, match="out"), VideoWriter(tmp_path / "out" / "a.mp4", 25) as writer:
        writer.write(flat(0))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), "u1"),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((3, 4, 4), np.uint8),
    ],
)
def test_what_is_no_rgb_image_is_refused(tmp_path, image):
    with VideoWriter(tmp_path / "a.mp4", 25) as writer, pytest.raises(ValueError, match="uint8"):
        writer.write(image)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), 1000])
def test_an_impossible_rate_is_refused(tmp_path, fps):
    with pytest.raises(ValueError, match="frames a second"):
        VideoWriter(tmp_path / "a.mp4", fps)


def test_only_mp4_is_written(tmp_path):
    with pytest.raises(ValueError, match=".mp4"):
        VideoWriter(tmp_path / "a.avi", 25)


def test_names_that_mean_something_to_ffmpeg_are_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a:b.mp4", "100%d.mp4", "-x.mp4", "ä ö.mp4"):
        with VideoWriter(name, 25) as writer:
            writer.write(flat(0))
        assert probe(name)["frames"] == 1 and Path(name).exists()


def test_the_writer_does_not_grow(tmp_path):
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    sizes = []
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        for i in range(1000):
            writer.write(noise(i % 7))
            if i in (200, 999):
                sizes.append(resident())
    assert sizes[1] <= 1.02 * sizes[0]


def test_labels_come_back_as_written(tmp_path):
    labels = np.random.default_rng(0).integers(0, 256, (31, 47)).astype(np.uint8)
    path = LabelWriter(tmp_path / "labels").write("000001", labels)
    assert path == tmp_path / "labels" / "000001.png" and list(path.parent.iterdir()) == [path]
    image = Image.open(path)
    assert image.mode == "L" and (np.asarray(image) == labels).all()


def test_labels_are_written_as_the_ids_of_their_classes(tmp_path):
    ids = np.array([7, 8, 11, 33])
    labels = np.random.default_rng(0).integers(0, 4, (31, 47)).astype(np.uint8)
    path = LabelWriter(tmp_path, ids).write("a.b", labels)
    assert path.name == "a.b.png" and (np.asarray(Image.open(path)) == ids[labels]).all()
    assert (labels < 4).all(), "the caller's labels must stay as they are"


def test_a_palette_gives_colours_and_keeps_the_ids(tmp_path):
    palette = [(10, 20, 30), (40, 50, 60)]
    labels = np.array([[0, 1, 255]], np.uint8)
    plain = Image.open(LabelWriter(tmp_path, palette=palette).write("a", labels))
    assert plain.mode == "P" and np.asarray(plain).tolist() == [[0, 1, 255]]
    assert np.asarray(plain.convert("RGB")).tolist() == [[[10, 20, 30], [40, 50, 60], [0, 0, 0]]]
    ids = np.zeros(256, np.uint8)
    ids[:2] = (7, 8)
    official = Image.open(LabelWriter(tmp_path, ids, palette).write("b", labels))
    assert np.asarray(official).tolist() == [[7, 8, 0]]
    assert np.asarray(official.convert("RGB"))[0, :2].tolist() == [[10, 20, 30], [40, 50, 60]]


def test_a_class_without_an_id_is_refused(tmp_path):
    writer = LabelWriter(tmp_path, np.array([7, 8]))
    with pytest.raises(ValueError, match="class 2"):
        writer.write("a", np.full((2, 2), 2, np.uint8))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ids", [[256], [-1], [[1]], [float("nan")]])
def test_ids_that_do_not_fit_a_png_are_refused(tmp_path, ids):
    with pytest.raises(ValueError, match="0 to 255"):
        LabelWriter(tmp_path, np.array(ids))


@pytest.mark.parametrize("name", ["", "a/b", "/a", "../a", "a/"])
def test_a_label_cannot_be_written_outside_its_folder(tmp_path, name):
    with pytest.raises(ValueError, match="name"):
        LabelWriter(tmp_path / "labels").write(name, np.zeros((2, 2), np.uint8))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "labels", [np.zeros((2, 2), np.int64), np.zeros((2, 2, 1), np.uint8), np.zeros((0, 2), "u1")]
)
def test_what_is_no_label_map_is_refused(tmp_path, labels):
    with pytest.raises(ValueError, match="uint8"):
        LabelWriter(tmp_path).write("a", labels)


def test_a_label_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    writer = LabelWriter(tmp_path)
    path = writer.write("a", np.ones((8, 8), np.uint8))

    def fail(self, target, format):
        Path(target).write_bytes(b"\x89PNG")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space"):
        writer.write("a", np.zeros((8, 8), np.uint8))
    assert list(tmp_path.iterdir()) == [path] and (np.asarray(Image.open(path)) == 1).all()


def test_probe_names_what_it_cannot_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.mp4"):
        probe(tmp_path / "absent.mp4")
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match="empty.mp4"):
        probe(tmp_path / "empty.mp4")


def test_importing_changes_nothing_outside():
    process = run("""
        import os, sys
        before = dict(os.environ)
        import utils.output.video
        assert dict(os.environ) == before and "cv2" not in sys.modules and "PIL" not in sys.modules
        """)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
