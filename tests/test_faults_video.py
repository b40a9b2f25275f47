"""Videos and streams that are not as they should be. The table is in test_faults.py."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from PIL import Image

from command import SINGLE, assert_one_line, call
from datasets.source import live
from frames import flat, write_video
from test_source_decoding import damage, encode, moving
from test_source_streams import motion_jpeg, serve
from utils.output.video import probe

__all__ = ["serve"]  # a fixture


@pytest.fixture
def label(weights, tmp_path):
    """Labels sources into tmp_path/save."""
    return lambda *sources, words=("--output", "overlay", "labels"): call(
        "--inference",
        *SINGLE,
        "--device",
        "cpu",
        "--threads",
        "1",
        "--weights",
        weights,
        "--savedir",
        tmp_path / "save",
        *words,
        "--source",
        *sources,
    )


def noise(i: int, size=(32, 48)) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8)


def animation(path, frames):
    """An animated PNG: what OpenCV writes itself has neither odd sides nor alpha."""
    frames[0].save(path / "clip.apng", format="PNG", save_all=True, append_images=frames[1:])
    return path / "clip.apng", len(frames), frames[0].size[::-1]


def odd_sides(path):
    return animation(path, [Image.fromarray(noise(i, (47, 63))) for i in range(3)])


def one_frame(path):
    return write_video(path / "clip.mp4", 1), 1, (48, 64)


def alpha(path):
    return animation(
        path,
        [
            Image.fromarray(np.dstack([noise(i), np.full((32, 48), 80 * i, np.uint8)]))
            for i in range(3)
        ],
    )


def changing_size(path):
    """Motion JPEG whose pictures grow: OpenCV brings all to the first one's size."""
    data = io.BytesIO()
    for i in range(8):
        Image.fromarray(noise(i, (32, 48) if i < 4 else (64, 96))).save(data, "JPEG")
    (path / "clip.mjpeg").write_bytes(data.getvalue())
    return path / "clip.mjpeg", 8, (32, 48)


def no_rate(path):
    """An mp4 whose header says that its 10 frames last no time at all."""
    data = bytearray(write_video(path / "clip.mp4").read_bytes())
    for box, skip in ((b"mvhd", 12), (b"mdhd", 12)):
        place = data.index(box) + 4 + skip
        data[place + 4 : place + 8] = bytes(4)  # its duration
    place = data.index(b"stts") + 4 + 4  # version, then: entries, samples, their duration
    data[place + 8 : place + 12] = bytes(4)
    (path / "clip.mp4").write_bytes(data)
    return path / "clip.mp4", 10, (48, 64)


@pytest.mark.parametrize("make", [odd_sides, one_frame, alpha, changing_size, no_rate])
def test_an_unusual_video_is_labelled_whole(label, tmp_path, make):
    path, frames, size = make(tmp_path)
    done = label(path)
    assert done.returncode == 0, done.stderr
    labels = sorted((tmp_path / "save" / "clip_labels").iterdir())
    assert len(labels) == frames and {Image.open(png).size[::-1] for png in labels} == {size}
    shown = probe(tmp_path / "save" / "clip_overlay.mp4")
    assert shown["frames"] == frames and shown["size"] == tuple(side + side % 2 for side in size)
    assert ("25 assumed" in done.stderr) == (make is no_rate)


def test_a_truncated_video_is_labelled_as_far_as_it_goes_and_said_to_be_cut(
    shared, label, tmp_path
):
    whole = (shared / "videos" / "solidWhiteRight.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[:100_000])
    done = label(tmp_path / "cut.mp4", words=("--work-size", "32", "64", "--output", "labels"))
    assert done.returncode == 0 and "of 221 frames" in done.stderr
    assert 0 < len(list((tmp_path / "save" / "cut_labels").iterdir())) < 221


def test_a_damaged_packet_is_counted_and_the_others_are_labelled(label, tmp_path):
    path = encode(tmp_path / "clip.mp4", [moving(i) for i in range(12)], change=damage(5), bf="0")
    done = label(path)
    assert done.returncode == 0 and "clip.mp4: 1 frame could not be decoded" in done.stderr
    assert "ended after" not in done.stderr
    assert len(list((tmp_path / "save" / "clip_labels").iterdir())) == 11
    with av.open(str(tmp_path / "save" / "clip_overlay.mp4")) as container:
        stream = container.streams.video[0]
        assert float(stream.duration * stream.time_base) == pytest.approx(12 / 25, abs=2e-3)


def test_a_side_by_side_wider_than_players_take_is_scaled_and_told(label, tmp_path):
    path = write_video(tmp_path / "clip.mp4", 1, (64, 4096))
    done = label(path, words=("--work-size", "32", "64", "--output", "side-by-side", "labels"))
    assert done.returncode == 0, done.stderr
    assert "frames of 64x8196 (HxW) are scaled to" in done.stderr
    assert probe(tmp_path / "save" / "clip_side_by_side.mp4")["size"][1] == 8192
    assert len(list((tmp_path / "save" / "clip_labels").iterdir())) == 1


def test_one_bad_source_of_several_is_named_and_the_others_are_done(label, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    done = label(
        write_video(tmp_path / "one.mp4", 2),
        tmp_path / "bad.mp4",
        tmp_path / "absent.mp4",
        write_video(tmp_path / "two.mp4", 3),
    )
    assert_one_line(done, "2 of 4 sources failed: there is no ")
    assert "bad.mp4 cannot be read as a video" in done.stderr
    assert [
        probe(tmp_path / "save" / f"{name}_overlay.mp4")["frames"] for name in ("one", "two")
    ] == [2, 3]
    assert not list((tmp_path / "save").glob("*bad*"))


def test_a_camera_that_is_not_there_is_told(label, tmp_path):
    assert_one_line(label("77"), "camera 77 cannot be opened: is it connected")


def test_a_stream_that_drops_is_told_and_labelled_on(label, tmp_path, serve, monkeypatch):
    monkeypatch.setattr(live, "BACKOFF", (0.01, 0.02))
    size = (32, 48)
    done = label(serve(motion_jpeg([[(10, size)] * 3, [(200, size)] * 3])) + "/camera.mjpg")
    assert done.returncode == 0, done.stderr
    assert "dropped after" in done.stderr and "reconnected (attempt 1)" in done.stderr
    assert "gave no more in 2 attempts" in done.stderr
    assert list((tmp_path / "save").glob("*_overlay.mp4"))


def test_a_source_named_twice_or_like_another_overwrites_nothing(label, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(flat(9, (32, 48))).save(tmp_path / folder / "x.png")
    done = label(
        tmp_path / "a" / "x.png",
        tmp_path / "b" / "x.png",
        tmp_path / "a" / "x.png",
        words=("--output", "labels"),
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "save").glob("*_labels")) == [
        "x_2_labels",
        "x_labels",
    ]
