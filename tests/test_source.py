"""All kinds of sources, and video files: frames, errors, notes, and no output of FFmpeg."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from datasets.source import image_files, open_source
from datasets.source.decoding import Decoder
from datasets.source.names import expand_sources
from frames import index_in, read, write_images, write_video
from utils.output import encoders
from utils.output.video import VideoWriter

ROOT = Path(__file__).resolve().parents[1]


# Video files


def test_a_video_gives_its_frames_in_order(tmp_path):
    frames, source = read(write_video(tmp_path / "clip.mp4", 12, fps=12.5))
    assert [index_in(frame.image) for frame in frames] == list(range(12))
    assert [(frame.name, frame.index) for frame in frames] == [(f"{i:06d}", i) for i in range(12)]
    for frame in frames:
        assert frame.image.shape == (48, 64, 3) and frame.image.dtype == np.uint8
    assert (source.kind, source.name) == ("video", "clip")
    assert (source.fps, source.length, source.notes) == (12.5, 12, [])
    assert not source.live


def test_colours_are_rgb(tmp_path):
    with VideoWriter(tmp_path / "red.mp4", 25) as writer:
        writer.write(np.full((48, 64, 3), (220, 20, 60), np.uint8))
    assert np.abs(read(tmp_path / "red.mp4")[0][0].image.astype(int) - (220, 20, 60)).max() <= 12


@pytest.mark.parametrize(
    "step, kept", [(1, range(10)), (3, [0, 3, 6, 9]), (4, [0, 4, 8]), (10, [0]), (99, [0])]
)
def test_a_step_keeps_every_nth_frame_and_the_speed_of_what_is_seen(tmp_path, step, kept):
    frames, source = read(write_video(tmp_path / "clip.mp4"), step=step)
    assert [index_in(frame.image) for frame in frames] == list(kept)
    assert [frame.index for frame in frames] == list(kept)
    assert [frame.name for frame in frames] == [f"{i:06d}" for i in kept]
    assert source.length == len(frames) and source.fps == 25 / step


def test_frames_that_the_step_skips_are_not_decoded(tmp_path, monkeypatch):
    write_images(tmp_path / "f", [f"{i}.png" for i in range(7)])
    read_paths = []
    monkeypatch.setattr(image_files, "read_image", lambda path: read_paths.append(path.name))
    read(tmp_path / "f", step=3)
    assert read_paths == ["0.png", "3.png", "6.png"]


@pytest.mark.parametrize("step", [0, -1])
def test_a_step_below_one_is_refused(tmp_path, step):
    with pytest.raises(ValueError, match="step"):
        open_source(str(write_video(tmp_path / "clip.mp4")), step=step)


def test_a_given_rate_replaces_that_of_the_source(tmp_path):
    write_video(tmp_path / "clip.mp4")
    assert read(tmp_path / "clip.mp4", fps=10, step=2)[1].fps == 5
    assert read(write_images(tmp_path / "f", ["0.png"]))[1].fps == 25
    assert read(tmp_path / "f", fps=10)[1].fps == 10
    assert read(tmp_path / "f")[1].assumed_rate and not read(tmp_path / "f", fps=10)[1].assumed_rate
    assert read(tmp_path / "f")[0][0].time is None, "nothing says when an image is shown"
    write_images(tmp_path / "g", [f"{i}.png" for i in range(5)])
    assert [frame.time for frame in read(tmp_path / "g", fps=50, step=2)[0]] == [0, 0.04, 0.08]
    with pytest.raises(ValueError, match="frames a second"):
        open_source(str(tmp_path / "clip.mp4"), fps=0)


@pytest.mark.parametrize("rate", [0, float("nan"), float("inf"), -1, 90000])
def test_an_impossible_rate_becomes_25_with_a_note(tmp_path, monkeypatch, rate):
    write_video(tmp_path / "clip.mp4")
    monkeypatch.setattr(Decoder, "stated_rates", lambda self: [rate, rate])
    frames, source = read(tmp_path / "clip.mp4", step=2)
    assert len(frames) == 5 and source.fps == 12.5
    assert len(source.notes) == 1 and "25 assumed" in source.notes[0]
    assert read(tmp_path / "clip.mp4", fps=30)[1].notes == []


@pytest.mark.parametrize(
    "name, count, size",
    [("solidWhiteRight", 221, (540, 960)), ("udacity_test_video", 38, (720, 1280))],
)
def test_real_videos_open(shared, name, count, size):
    with open_source(str(shared / "videos" / f"{name}.mp4")) as source:
        sizes = [frame.image.shape for frame in source]
    assert sizes == [(*size, 3)] * count
    assert (source.name, source.length, source.fps, source.notes) == (name, count, 25, [])


@pytest.mark.parametrize("cut", [300_000, 1_000_000, 2_600_000])
def test_a_video_cut_short_gives_what_there_is_and_a_note(shared, tmp_path, cut, capfd):
    whole = (shared / "videos" / "solidWhiteRight.mp4").read_bytes()
    # this test is about a file whose index comes first
    assert whole.index(b"moov") < whole.index(b"mdat")
    (tmp_path / "cut.mp4").write_bytes(whole[:cut])
    frames, source = read(tmp_path / "cut.mp4", step=10)
    assert 0 < len(frames) < 23 and source.length == 23
    assert len(source.notes) == 1 and "of 221 frames" in source.notes[0]
    seen = int(source.notes[0].split("ended after ")[1].split()[0])
    assert (seen - 1) // 10 == frames[-1].index // 10
    assert abs(seen / 221 - cut / len(whole)) < 0.05
    assert capfd.readouterr().err == "", "our note replaces the messages of FFmpeg"


@pytest.mark.parametrize("cut", [0, 10, 3_000, 4_700, 20_000])
def test_a_video_of_which_no_frame_is_left_is_an_error(shared, tmp_path, cut, capfd):
    whole = (shared / "videos" / "solidWhiteRight.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[:cut])
    with pytest.raises(ValueError, match="cut.mp4"):
        read(tmp_path / "cut.mp4")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("cut", [-400, -4, 0, 4, 100])
def test_a_video_cut_before_its_index_is_an_error(tmp_path, monkeypatch, cut):
    # OpenCV writes the index last
    monkeypatch.setattr(encoders, "pyav", lambda: None)
    whole = write_video(tmp_path / "clip.mp4").read_bytes()
    index = whole.index(b"moov")
    # this test is about a file whose index comes last
    assert whole.index(b"mdat") < index
    (tmp_path / "cut.mp4").write_bytes(whole[: index + cut])
    with pytest.raises(ValueError, match="cut.mp4 cannot be read as a video"):
        open_source(str(tmp_path / "cut.mp4"))


@pytest.mark.parametrize("content", [b"hello " * 500, b"\0" * 5000, b"%PDF-1.4", b"#EXTM3U\n"])
def test_a_file_that_is_no_video_is_an_error(tmp_path, content):
    for name in ("notes.txt", "clip.mp4"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            read(tmp_path / name)


def test_a_video_filmed_upright_comes_upright(tmp_path):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :32] = 255  # left half white
    with VideoWriter(tmp_path / "clip.mp4", 25) as writer:
        writer.write(image)
    data = bytearray((tmp_path / "clip.mp4").read_bytes())
    # the transformation in the header of the track: 3 x 3 fixed point numbers, row by row
    matrix = data.index(b"tkhd") + 44
    quarter_turn = [0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30]
    data[matrix : matrix + 36] = b"".join(n.to_bytes(4, "big", signed=True) for n in quarter_turn)
    (tmp_path / "clip.mp4").write_bytes(data)
    frame = read(tmp_path / "clip.mp4")[0][0].image
    assert frame.shape == (64, 48, 3) and frame[:28].min() > 200 and frame[36:].max() < 50


def test_names_that_mean_something_to_ffmpeg_are_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a:b.mp4", "100%d.mp4", "[x].mp4", "-", "ä ö.mp4"):
        write_video(tmp_path / "plain.mp4", 3).rename(name)
        if name == "-":
            # which alone means standard input
            name = "./-"
        frames, source = read(name)
        assert len(frames) == 3 and source.kind == "video"


# Of any kind


@pytest.mark.parametrize("spec", ["absent.mp4", "", "absent/", "ftp://host/x", "12345", "x" * 300])
def test_what_is_not_there_is_an_error_that_lists_what_could_be(spec):
    for function in (open_source, lambda spec: expand_sources([spec])):
        with pytest.raises(FileNotFoundError) as caught:
            function(spec)
        text = str(caught.value)
        assert spec in text and "\n" not in text
        for form in ("video", "folder", "glob", "camera index", "rtsp://", "standard input"):
            assert form in text


def test_a_source_is_read_once(tmp_path):
    source = open_source(str(write_images(tmp_path, ["1.png", "2.png"])))
    assert len(list(source)) == 2
    with pytest.raises(RuntimeError, match="open it again"):
        list(source)
    with open_source(str(tmp_path)) as closed:
        pass
    with pytest.raises(RuntimeError, match="open it again"):
        list(closed)


def test_opencv_and_ffmpeg_write_nothing_to_the_terminal(shared, tmp_path):
    """In a new process, because FFmpeg reads its log level when it is first used."""
    whole = (shared / "videos" / "solidWhiteRight.mp4").read_bytes()
    (tmp_path / "short.mp4").write_bytes(whole[:300_000])
    (tmp_path / "shorter.mp4").write_bytes(whole[:20_000])
    (tmp_path / "headless.mp4").write_bytes(whole[:3_000])
    code = """
        import sys
        from datasets.source import open_source
        for spec in sys.argv[1:]:
            try:
                print(spec, len(list(open_source(spec))))
            except (ValueError, RuntimeError) as error:
                print(spec, error)
        """
    specs = [*map(str, tmp_path.iterdir()), "77", "rtsp://127.0.0.1:1/x"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENCV")}
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *specs],
        capture_output=True,
        text=True,
        env={**environment, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert process.returncode == 0 and len(process.stdout.splitlines()) == len(specs)
    assert process.stderr == ""


def test_importing_changes_nothing_outside():
    code = """
        import os, sys
        before = dict(os.environ)
        import datasets.source, datasets.source.read_ahead
        assert dict(os.environ) == before and "cv2" not in sys.modules
        """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=60,
    )
