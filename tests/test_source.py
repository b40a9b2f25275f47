"""Sources of frames without labels: every kind, every fault, and no thread or memory left behind."""
import functools
import io
import os
import subprocess
import sys
import textwrap
import threading
import time
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import source as module
from datasets.source import Frame, ReadAhead, Source, expand_sources, open_source, read_image, source_name, unique_names
from utils.video import VideoWriter

ROOT = Path(__file__).resolve().parents[1]


def flat(value, size=(48, 64)):
    return np.full((*size, 3), value, np.uint8)


def write_video(path, frames=10, size=(48, 64), fps=25.0):
    """Frame i is grey of value 5 + 10 * (i % 25), so its index can be read from it."""
    with VideoWriter(path, fps) as writer:
        for i in range(frames):
            writer.write(flat(5 + 10 * (i % 25), size))
    return path


def index_in(image):
    """The i that write_video gave this frame."""
    return round((float(image.mean()) - 5) / 10)


def write_images(folder, names):
    """Image i is grey of value i."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        Image.fromarray(flat(i, (6, 8))).save(folder / name)
    return folder


def read(spec, **options):
    with open_source(str(spec), **options) as source:
        return list(source), source


def ppm(image):
    height, width = image.shape[:2]
    return b"P6\n%d %d\n255\n" % (width, height) + image.tobytes()


@pytest.fixture
def pipe(monkeypatch):
    """A function that puts bytes on standard input; the writing end is closed unless told otherwise."""
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


def motion_jpeg(connections):
    """A camera that drops: connection n gives the frames connections[n] (values), later ones are refused."""
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
                self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n"
                                 % (len(jpeg.getvalue()), jpeg.getvalue()))

    return Handler


# Video files

def test_a_video_gives_its_frames_in_order_as_rgb(tmp_path):
    frames, source = read(write_video(tmp_path / "clip.mp4", 12, fps=12.5))
    assert [index_in(frame.image) for frame in frames] == list(range(12))
    assert [(frame.name, frame.index) for frame in frames] == [(f"{i:06d}", i) for i in range(12)]
    assert all(frame.image.shape == (48, 64, 3) and frame.image.dtype == np.uint8 for frame in frames)
    assert (source.kind, source.name, source.fps, source.length, source.notes) == ("video", "clip", 12.5, 12, [])
    assert not source.live
    with VideoWriter(tmp_path / "red.mp4", 25) as writer:
        writer.write(np.full((48, 64, 3), (220, 20, 60), np.uint8))
    assert np.abs(read(tmp_path / "red.mp4")[0][0].image.astype(int) - (220, 20, 60)).max() <= 12


@pytest.mark.parametrize("step, kept", [(1, range(10)), (3, [0, 3, 6, 9]), (4, [0, 4, 8]), (10, [0]), (99, [0])])
def test_a_step_keeps_every_nth_frame_and_the_speed_of_what_is_seen(tmp_path, step, kept):
    frames, source = read(write_video(tmp_path / "clip.mp4"), step=step)
    assert [index_in(frame.image) for frame in frames] == [frame.index for frame in frames] == list(kept)
    assert [frame.name for frame in frames] == [f"{i:06d}" for i in kept]
    assert source.length == len(frames) and source.fps == 25 / step


def test_frames_that_the_step_skips_are_not_decoded(tmp_path, monkeypatch):
    write_images(tmp_path / "f", [f"{i}.png" for i in range(7)])
    read_paths = []
    monkeypatch.setattr(module, "read_image", lambda path: read_paths.append(path.name))
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
    with pytest.raises(ValueError, match="frames a second"):
        open_source(str(tmp_path / "clip.mp4"), fps=0)


@pytest.mark.parametrize("rate", [0, float("nan"), float("inf"), -1, 90000])
def test_an_impossible_rate_becomes_25_with_a_note(tmp_path, monkeypatch, rate):
    import cv2
    write_video(tmp_path / "clip.mp4")

    original = cv2.VideoCapture

    class Nonsense:                                  # a subclass would not survive garbage collection
        def __init__(self, *arguments):
            self.capture = original(*arguments)

        def __getattr__(self, name):
            return getattr(self.capture, name)

        def get(self, key):
            return rate if key == cv2.CAP_PROP_FPS else self.capture.get(key)

    monkeypatch.setattr(cv2, "VideoCapture", Nonsense)
    frames, source = read(tmp_path / "clip.mp4", step=2)
    assert len(frames) == 5 and source.fps == 12.5
    assert len(source.notes) == 1 and "25 assumed" in source.notes[0]
    assert read(tmp_path / "clip.mp4", fps=30)[1].notes == []


@pytest.mark.parametrize("name, count, size", [("solidWhiteRight", 221, (540, 960)),
                                               ("udacity_test_video", 38, (720, 1280))])
def test_real_videos_open(shared, name, count, size):
    with open_source(str(shared / "videos" / f"{name}.mp4")) as source:
        sizes = [frame.image.shape for frame in source]
    assert sizes == [(*size, 3)] * count
    assert (source.name, source.length, source.fps, source.notes) == (name, count, 25, [])


@pytest.mark.parametrize("cut", [300_000, 1_000_000, 2_600_000])
def test_a_video_cut_short_gives_what_there_is_and_a_note(shared, tmp_path, cut, capfd):
    whole = (shared / "videos" / "solidWhiteRight.mp4").read_bytes()
    assert whole.index(b"moov") < whole.index(b"mdat"), "this case is about a file whose index comes first"
    (tmp_path / "cut.mp4").write_bytes(whole[:cut])
    frames, source = read(tmp_path / "cut.mp4", step=10)
    assert 0 < len(frames) < 23 and source.length == 23
    assert len(source.notes) == 1 and "of 221 frames" in source.notes[0]
    seen = int(source.notes[0].split("ended after ")[1].split()[0])
    assert (seen - 1) // 10 == frames[-1].index // 10
    assert abs(seen / 221 - cut / len(whole)) < 0.05
    assert capfd.readouterr().err == "", "what FFmpeg says is for us to say in a note"


@pytest.mark.parametrize("cut", [0, 10, 3_000, 4_700, 20_000])
def test_a_video_of_which_no_frame_is_left_is_an_error(shared, tmp_path, cut, capfd):
    (tmp_path / "cut.mp4").write_bytes((shared / "videos" / "solidWhiteRight.mp4").read_bytes()[:cut])
    with pytest.raises(ValueError, match="cut.mp4"):
        read(tmp_path / "cut.mp4")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("cut", [-400, -4, 0, 4, 100])
def test_a_video_cut_before_its_index_is_an_error(tmp_path, cut):
    whole = write_video(tmp_path / "clip.mp4").read_bytes()
    index = whole.index(b"moov")
    assert whole.index(b"mdat") < index, "this case is about a file whose index comes last"
    (tmp_path / "cut.mp4").write_bytes(whole[:index + cut])
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
    image[:, :32] = 255                              # left half white
    with VideoWriter(tmp_path / "clip.mp4", 25) as writer:
        writer.write(image)
    data = bytearray((tmp_path / "clip.mp4").read_bytes())
    matrix = data.index(b"tkhd") + 44
    quarter_turn = [0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30]
    data[matrix:matrix + 36] = b"".join(n.to_bytes(4, "big", signed=True) for n in quarter_turn)
    (tmp_path / "clip.mp4").write_bytes(data)
    frame = read(tmp_path / "clip.mp4")[0][0].image
    assert frame.shape == (64, 48, 3) and frame[:28].min() > 200 and frame[36:].max() < 50


def test_names_that_mean_something_to_ffmpeg_are_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a:b.mp4", "100%d.mp4", "[x].mp4", "-", "ä ö.mp4"):
        write_video(tmp_path / "plain.mp4", 3).rename(name)
        frames, source = read("./-" if name == "-" else name)
        assert len(frames) == 3 and source.kind == "video"


# Images

def test_a_folder_gives_its_images_in_natural_order(tmp_path):
    names = ["f1.png", "f2.jpg", "f9.JPEG", "f10.bmp", "f11.tif", "f100.tiff", "g.webp", "h.ppm"]
    write_images(tmp_path / "in" / "drive", names)
    for other in ("notes.txt", "f3.csv", "clip.mp4", "._f1.png"):
        (tmp_path / "in" / "drive" / other).write_bytes(b"no image")
    (tmp_path / "in" / "drive" / "folder.png").mkdir()
    frames, source = read(tmp_path / "in" / "drive")
    assert [frame.name for frame in frames] == [Path(name).stem for name in names]
    assert [frame.index for frame in frames] == list(range(8)) == [round(frame.image.mean()) for frame in frames]
    assert (source.kind, source.name, source.length) == ("folder", "drive", 8)


def test_a_glob_gives_the_images_it_matches_folder_by_folder(tmp_path):
    for folder in ("s2", "s10"):
        write_images(tmp_path / folder, ["2.png", "10.png"])
    (tmp_path / "s2" / "3.txt").write_text("")
    frames, source = read(tmp_path / "s*" / "*")
    assert [path.relative_to(tmp_path).as_posix() for path in source.paths] == \
        ["s2/2.png", "s2/10.png", "s10/2.png", "s10/10.png"]
    assert [frame.name for frame in frames] == ["2", "10", "2_2", "10_2"], "outputs must not overwrite each other"
    assert (source.kind, source.name) == ("glob", tmp_path.name)
    assert len(read(tmp_path / "**" / "*.png")[0]) == 4


def test_one_image_is_a_source(tmp_path):
    frames, source = read(write_images(tmp_path, ["a.b.png"]) / "a.b.png")
    assert (source.kind, source.name, source.length, frames[0].name) == ("image", "a.b", 1, "a.b")


def test_images_may_change_size(tmp_path):
    for i, size in enumerate([(4, 6), (6, 4), (5, 5)]):
        Image.fromarray(flat(0, size)).save(tmp_path / f"{i}.png")
    assert [frame.image.shape for frame in read(tmp_path)[0]] == [(4, 6, 3), (6, 4, 3), (5, 5, 3)]


def test_what_is_no_image_kind_in_a_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="empty"):
        open_source(str(tmp_path))
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(FileNotFoundError, match="no image"):
        open_source(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="nothing matches"):
        open_source(str(tmp_path / "*.png"))


def image_of(mode, **extra):
    """(an image of one colour in this mode, the RGB it must come back as)."""
    if mode == "RGBA":
        return Image.new(mode, (3, 2), (200, 100, 50, 51)), (40, 20, 10)        # a fifth of it, on black
    if mode == "LA":
        return Image.new(mode, (3, 2), (200, 0)), (0, 0, 0)
    if mode == "P":
        image = Image.new(mode, (3, 2), 1)
        image.putpalette([0, 0, 0, 10, 20, 30])
        return image, (10, 20, 30)
    if mode == "I;16":
        return Image.fromarray(np.full((2, 3), 200 * 257, np.uint16)), (200,) * 3
    if mode == "1":
        return Image.new(mode, (3, 2), 1), (255,) * 3
    return Image.new(mode, (3, 2), 77), (77,) * 3


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "1", "L"])
def test_every_kind_of_pixel_becomes_rgb(tmp_path, mode):
    image, expected = image_of(mode)
    image.save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png")
    assert pixels.dtype == np.uint8 and pixels.shape == (2, 3, 3) and pixels.flags.writeable
    assert (pixels == expected).all()


def test_transparent_palettes_cmyk_and_deep_colours_become_rgb(tmp_path):
    image, _ = image_of("P")
    image.save(tmp_path / "p.png", transparency=1)
    assert (read_image(tmp_path / "p.png") == 0).all()
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "c.jpg")
    assert np.abs(read_image(tmp_path / "c.jpg").astype(int) - (255, 0, 0)).max() < 10
    (tmp_path / "d.ppm").write_bytes(b"P6 1 1 65535\n" + np.array([65535, 257 * 9, 0], ">u2").tobytes())
    assert read_image(tmp_path / "d.ppm").tolist() == [[[255, 9, 0]]]


def test_pixels_of_unknown_range_are_refused(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "f.tif")
    Image.fromarray(np.full((2, 2), 1 << 20, np.int32)).save(tmp_path / "i.tif")
    for name in ("f.tif", "i.tif"):
        with pytest.raises(ValueError, match=name):
            read_image(tmp_path / name)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_images_are_turned_as_their_exif_says(tmp_path, orientation, suffix):
    upright = np.zeros((32, 16, 3), np.uint8)
    upright[:16, :8], upright[16:, 8:] = (255, 0, 0), (0, 0, 255)
    undo = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
            5: lambda a: a.transpose(1, 0, 2), 6: np.rot90, 7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
            8: lambda a: np.rot90(a, -1)}[orientation]      # how the sensor saw it
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(undo(upright))).save(tmp_path / f"a.{suffix}", exif=exif)
    pixels = read_image(tmp_path / f"a.{suffix}")
    assert pixels.shape == upright.shape and np.abs(pixels.astype(int) - upright).mean() < 12


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "ppm"])
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.9])
def test_a_damaged_image_is_an_error_that_names_it(tmp_path, suffix, share):
    write_images(tmp_path, ["1.png", "3.png"])
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"2.{suffix}")
    data = (tmp_path / f"2.{suffix}").read_bytes()
    (tmp_path / f"2.{suffix}").write_bytes(data[:int(share * len(data))])
    frames = iter(open_source(str(tmp_path)))
    assert next(frames).name == "1"
    with pytest.raises(ValueError, match=rf"2\.{suffix}"):
        next(frames)


def test_an_image_larger_than_memory_is_an_error_that_names_it(tmp_path):
    (tmp_path / "huge.ppm").write_bytes(b"P6 200000 200000 255\n")
    with pytest.raises(ValueError, match="huge.ppm"):
        read(tmp_path)


def test_an_image_that_vanishes_is_an_error_that_names_it(tmp_path):
    write_images(tmp_path, ["1.png", "2.png"])
    frames = iter(open_source(str(tmp_path)))
    next(frames)
    (tmp_path / "2.png").unlink()
    with pytest.raises(FileNotFoundError, match="2.png"):
        next(frames)


# Standard input

def test_a_pipe_of_ppm_images_from_another_process(tmp_path):
    writer = """
        import sys
        for i in range(5):
            size = (3, 2) if i < 3 else (200, 300)          # the size changes on the way
            sys.stdout.buffer.write(b"P6\\n%d %d\\n255\\n" % size + bytes([i, 2 * i, 255 - i]) * (size[0] * size[1]))
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
    first = subprocess.Popen([sys.executable, "-c", textwrap.dedent(writer)], stdout=subprocess.PIPE)
    second = subprocess.run([sys.executable, "-c", textwrap.dedent(reader)], stdin=first.stdout, env=environment,
                            capture_output=True, text=True, timeout=60)
    assert first.wait(timeout=10) == 0 and second.returncode == 0, second.stderr
    assert second.stdout.splitlines() == [
        f"{i:06d} {i} {(2, 3, 3) if i < 3 else (300, 200, 3)} {[i, 2 * i, 255 - i]}" for i in range(5)
    ] + ["stdin stdin None 25.0 []"]


def test_ppm_headers_of_every_style_are_read(pipe):
    deep = np.array([65535, 257 * 100, 0x8010], ">u2").tobytes()
    pipe(b"P6 1 1 255 \1\2\3" + b"P6\n# made by hand\n1 # width\n1\n255\n\4\5\6\n" + b"P6\r1\t1\n65535\n" + deep
         + b"P6 1 1 15\n\x0f\x07\x00" + b"P6 1 1 255\n\n\n ")
    assert [frame.image[0, 0].tolist() for frame in read("-")[0]] == \
        [[1, 2, 3], [4, 5, 6], [255, 100, 128], [255, 119, 0], [10, 10, 32]]


def test_a_step_skips_images_of_a_pipe(pipe):
    pipe(b"".join(ppm(flat(i, (2, 3))) for i in range(8)))
    assert [(frame.index, int(frame.image.mean())) for frame in read("-", step=3)[0]] == [(0, 0), (3, 3), (6, 6)]


@pytest.mark.parametrize("missing", [1, 17, 18, 19, 24, 28])
def test_a_pipe_that_ends_inside_an_image_keeps_what_came_whole(pipe, missing):
    image = ppm(flat(7, (2, 3)))
    assert len(image) == 29
    pipe((image * 3)[:-missing])
    frames, source = read("-")
    assert len(frames) == 2 and source.notes == ["standard input ended inside image 3: 2 came whole"]


@pytest.mark.parametrize("data", [b"", b"P6 2", b"P6 2 2 255\n123", b"\n\n"])
def test_a_pipe_without_an_image_is_an_error(pipe, data):
    pipe(data)
    with pytest.raises(ValueError, match="before its first PPM image"):
        read("-")


@pytest.mark.parametrize("data", [b"\0\0\0\x1cftypisom" * 9, b"P5 2 2 255\n1234", b"P6 0 2 255\n", b"P6 2 x 255\n",
                                  b"P6 2 2 0\n", b"P6 2 2 65536\n", b"P6 99999999 99999999 255\n", b"P6 -2 -2 255\n",
                                  b"\x89PNG\r\n\x1a\n", b"P6 2 2 255\n" + b"x" * 12 + b"garbage behind it"])
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


# Cameras and streams

def test_a_camera_that_is_not_there_is_one_line(capfd):
    for spec in ("77", "/dev/video77"):
        with pytest.raises(RuntimeError, match="camera .*77 cannot be opened") as caught:
            open_source(spec)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_stream_that_does_not_answer_is_one_line_without_the_password():
    with pytest.raises(RuntimeError, match="stream rtsp://127.0.0.1:1/x cannot be opened") as caught:
        open_source("rtsp://me:secret@127.0.0.1:1/x")
    assert "secret" not in str(caught.value)


def test_a_stream_reconnects_when_it_drops_and_gives_up_in_the_end(serve, monkeypatch):
    monkeypatch.setattr(module, "BACKOFF", (0.01, 0.02, 0.03, 0.04))
    small, large = (48, 64), (96, 128)
    connections = [[(10, small)] * 6, [], [(200, large)] * 4]
    frames, source = read(serve(motion_jpeg(connections)) + "/camera.mjpg")
    assert [frame.image.shape[:2] for frame in frames] == [small] * 6 + [large] * 4, "the new size is the stream's"
    assert [frame.index for frame in frames] == list(range(10))
    assert (source.kind, source.live, source.length) == ("stream", True, None)
    assert len(source.notes) == 2
    assert "dropped after 6 frames, reconnected (attempt 2)" in source.notes[0]
    assert "dropped after 10 frames and gave no more in 4 attempts" in source.notes[1]


def test_a_stream_that_drops_again_and_again_is_given_up(serve, monkeypatch):
    monkeypatch.setattr(module, "BACKOFF", (0.01,) * 3)
    frames, source = read(serve(motion_jpeg([[(10, (48, 64))] * 3] * 50)) + "/camera.mjpg")
    assert len(frames) == 3 * 4 and len(source.notes) == 4


def test_a_connection_that_held_for_long_renews_the_attempts(serve, monkeypatch):
    monkeypatch.setattr(module, "BACKOFF", (0.01,) * 3)
    monkeypatch.setattr(module, "STABLE", 0.0)
    frames, _ = read(serve(motion_jpeg([[(10, (48, 64))] * 3] * 9)) + "/camera.mjpg")
    assert len(frames) == 3 * 9


def test_waiting_for_a_stream_ends_with_closing(serve, monkeypatch):
    monkeypatch.setattr(module, "BACKOFF", (600,))
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


# Names and lists of sources

@pytest.mark.parametrize("spec, name", [
    ("a/solidWhiteRight.mp4", "solidWhiteRight"), ("0", "camera0"), ("/dev/video2", "camera2"), ("-", "stdin"),
    ("rtsp://host/path", "rtsp_host_path"), ("rtsp://me:pw@host:554/a/b?x=1#y", "rtsp_host_554_a_b"),
    ("http://h/v.m3u8", "http_h_v.m3u8"), ("a b/ü&c*d.mp4", "a_b"), ("in/drive*/x.png", "in"), ("a/..mp4", "source"),
    ("x/my clip (1).mov", "my_clip_1"), ("x" * 300 + ".mp4", "x" * 100),
])
def test_names_are_safe(spec, name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for folder in ("in", "a b"):
        (tmp_path / folder).mkdir()
    assert source_name(spec) == name


def test_a_folder_gives_its_name_even_as_a_dot(tmp_path, monkeypatch):
    write_images(tmp_path / "seq.v1", ["1.png"])
    monkeypatch.chdir(tmp_path / "seq.v1")
    assert source_name(str(tmp_path / "seq.v1")) == source_name(".") == source_name("*.png") == "seq.v1"


def test_names_of_several_sources_differ():
    specs = ["a/clip.mp4", "b/clip.mp4", "c/clip_2.mp4", "d/Clip.mp4", "e/other.mp4"]
    assert unique_names(specs) == ["clip", "clip_2", "clip_2_2", "Clip_3", "other"]


def test_a_glob_of_videos_is_several_sources(tmp_path):
    for name in ("c10.mp4", "c2.mp4", "c1.avi"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "notes.txt").write_text("")
    names = [str(tmp_path / name) for name in ("c1.avi", "c2.mp4", "c10.mp4")]
    assert expand_sources([str(tmp_path / "*")]) == names
    assert expand_sources([str(tmp_path)]) == names, "so is a folder of videos"


def test_a_glob_of_folders_is_several_sources_and_one_of_images_is_one(tmp_path):
    for folder in ("s2", "s10"):
        write_images(tmp_path / folder, ["1.png"])
    (tmp_path / "logs").mkdir()
    assert expand_sources([str(tmp_path / "*")]) == [str(tmp_path / "s2"), str(tmp_path / "s10")]
    for images in (str(tmp_path / "s2"), str(tmp_path / "s*" / "*.png"), str(tmp_path / "**" / "*")):
        assert expand_sources([images]) == [images]


def test_a_source_named_twice_is_read_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "b.mp4").write_bytes(b"")
    assert expand_sources(["b.mp4", "0", "*.mp4", str(tmp_path / "a.mp4"), "0", "-"]) == ["b.mp4", "0", "a.mp4", "-"]


@pytest.mark.parametrize("spec", ["absent.mp4", "", "absent/", "ftp://host/x", "12345", "x" * 300])
def test_what_is_not_there_is_an_error_that_lists_what_could_be(spec):
    for function in (open_source, lambda spec: expand_sources([spec])):
        with pytest.raises(FileNotFoundError) as caught:
            function(spec)
        text = str(caught.value)
        assert spec in text and "\n" not in text
        assert all(form in text for form in ("video", "folder", "glob", "camera index", "rtsp://", "standard input"))


# Reading once, ahead, and to the end

def test_a_source_is_read_once(tmp_path):
    source = open_source(str(write_images(tmp_path, ["1.png", "2.png"])))
    assert len(list(source)) == 2
    with pytest.raises(RuntimeError, match="open it again"):
        list(source)
    with open_source(str(tmp_path)) as closed:
        pass
    with pytest.raises(RuntimeError, match="open it again"):
        list(closed)


def same(frames, others):
    return [frame[1:] for frame in frames] == [frame[1:] for frame in others] and \
        all((frame.image == other.image).all() for frame, other in zip(frames, others, strict=True))


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
    """Frames of one pixel for as long as asked; says how many were decoded."""

    def __init__(self, total=10**9, error=None, live=False, pause=0.0):
        super().__init__("77", "camera", step=1)
        self.total, self.error, self.live, self.pause, self.decoded, self.closed = total, error, live, pause, 0, 0

    def _entries(self):
        while self.decoded < self.total and not self._stopping.wait(self.pause):
            yield None, self.decode
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
        until(lambda: frames.source.decoded == 5)           # four wait, one is in the reader's hand
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
    with pytest.raises(ZeroDivisionError), ReadAhead(open_source(str(write_video(tmp_path / "clip.mp4")))) as frames:
        next(frames)
        raise ZeroDivisionError
    assert set(threading.enumerate()) == before


def test_closing_ends_a_reader_that_waits_for_a_pipe(pipe):
    writing = pipe(ppm(flat(1, (2, 3))) + b"P6 100", close=False)
    frames = ReadAhead(open_source("-"))
    assert next(frames).image.mean() == 1
    begin = time.monotonic()
    frames.close()
    os.close(writing)
    assert time.monotonic() - begin < 5 and not frames._thread.is_alive()
    assert frames.source.notes == [], "it was us who stopped"


def test_of_a_live_source_the_newest_frame_is_kept():
    with ReadAhead(Counting(40, live=True, pause=0.001), latest=True) as frames:
        first = next(frames)
        until(lambda: frames.source.decoded == 40 and frames._ended)
        rest = list(frames)
    assert [frame.index for frame in rest] == [39], "the last frame, and no older one"
    assert frames.dropped == 40 - 2 and first.index < 39


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


def test_opencv_and_ffmpeg_write_nothing_to_the_terminal(shared, tmp_path):
    """In a process of its own: what FFmpeg may say is settled when it is first used."""
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
    process = subprocess.run([sys.executable, "-c", textwrap.dedent(code), *specs], capture_output=True, text=True,
                             env={**environment, "PYTHONPATH": str(ROOT)}, timeout=60)
    assert process.returncode == 0 and len(process.stdout.splitlines()) == len(specs)
    assert process.stderr == ""


def test_importing_changes_nothing_outside():
    code = """
        import os, sys
        before = dict(os.environ)
        import datasets.source
        assert dict(os.environ) == before and "cv2" not in sys.modules
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env={**os.environ, "PYTHONPATH": str(ROOT)},
                   check=True, timeout=60)
