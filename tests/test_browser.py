"""The dashboard as people see it: a real visdom server and a real Chromium.

Needs Debian's chromium and visdom's JavaScript (`python tests/visdom_assets.py`). Screenshots lie
in the test's folder.
"""

import os
import subprocess
import threading
import urllib.request
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch.nn.functional import pad

import visdom_assets
from browser import PROGRAM, Browser
from engine import Stepper
from models.lma import LMANet
from toys import ToyBackbone
from utils import log
from utils.dashboard.explorer import AttentionExplorer, LastFrames, enlarge, explore
from utils.output.pictures import as_picture
from utils.views import Views
from visdom_server import VisdomServer, wait_for, windows_of
from watched import assert_curves, open_dashboard, train

SIZE, STRIDE = (64, 128), ToyBackbone.stride


def lacking() -> str | None:
    """What this machine lacks for a browser test."""
    if PROGRAM is None:
        return "there is no chromium: apt-get install chromium"
    try:
        if os.environ.get("CI") == "true":
            visdom_assets.fetch()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"visdom's JavaScript cannot be fetched: {error}"
    if visdom_assets.missing():
        return "visdom's JavaScript is not there: python tests/visdom_assets.py"
    return None


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    reason = lacking()
    if reason:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    with VisdomServer(tmp_path_factory.mktemp("visdom")) as server:
        with urllib.request.urlopen(
            f"http://localhost:{server.port}", timeout=10
        ) as page:  # 403: tornado >= 6.6
            assert "visdom" in page.read().decode()
        yield server


@pytest.fixture(scope="module")
def browser(server, tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


def look_at(browser, server, env: str, count: int) -> None:
    """Open the page of an environment and wait until so many windows are drawn."""
    browser.open(f"http://localhost:{server.port}/env/{env.replace(' ', '%20')}")
    wait_for(lambda: browser.value("document.querySelectorAll('.window .content').length") == count)
    wait_for(
        lambda: browser.value(
            "[...document.querySelectorAll('.content-image')].every(i => i.naturalWidth > 0)"
        )
    )


def titles(browser) -> list[str]:
    return browser.value(
        "[...document.querySelectorAll('.window .bar div.pull-right')].map(e => e.textContent)"
    )


def drawn(browser) -> dict[str, list[dict]]:
    """The traces that plotly has drawn on the page, by the title of their window."""
    return dict(
        browser.value(
            "[...document.querySelectorAll('.js-plotly-plot')].map(p => "
            "[p.closest('.window').querySelector('.bar div.pull-right').textContent, p.data])"
        )
    )


def test_the_page_shows_the_curves_of_the_log(browser, server, tmp_path):
    with open_dashboard(tmp_path / "curves", server.port) as dashboard:
        train(dashboard, range(1, 6))
    look_at(browser, server, "graphs curves", 6)
    rows = log.read(tmp_path / "curves" / log.LOG_NAME)
    shown = wait_for(lambda: drawn(browser) if len(drawn(browser)) == 6 else None)
    for title, values in {
        "mLoss TRAIN": [row.train_loss for row in rows],
        "mLoss VAL": [row.val_loss for row in rows],
        "mIoU VAL": [row.val_miou for row in rows],
        "L.R.": [row.lr for row in rows],
    }.items():
        (trace,) = shown[title]
        assert (trace["name"], trace["x"], trace["y"]) == (
            "curves",
            [row.epoch for row in rows],
            values,
        )
    assert {"losses TRAIN", "IoU per class VAL"} <= set(titles(browser))
    assert_curves(server.port, tmp_path / "curves")
    browser.screenshot(tmp_path / "graphs.png")


def test_an_open_page_follows_the_training(browser, server, tmp_path):
    with open_dashboard(tmp_path / "followed", server.port) as dashboard:
        train(dashboard, range(1, 2))
        wait_for(lambda: len(windows_of(server.port, "graphs followed")) == 6)
        look_at(browser, server, "graphs followed", 6)
        train(dashboard, range(2, 5), resume=True)
        wait_for(lambda: drawn(browser).get("mLoss TRAIN", [{}])[0].get("x") == [1, 2, 3, 4])


def test_the_page_shows_pictures_with_a_slider(browser, server, tmp_path):
    with open_dashboard(tmp_path / "pictures", server.port) as dashboard:
        train(dashboard, range(1, 5))
    look_at(browser, server, "images pictures", 4)
    assert set(titles(browser)) == {
        "CLASSES",
        *(f"Sequence VAL {name}" for name in ("INPUTS", "LABELS", "PREDICTIONS")),
    }
    assert browser.value("document.querySelector('.widgets input[type=range]').max") == "3"
    window = windows_of(server.port, "images pictures")["predictions"]
    sources = "[...document.querySelectorAll('.content-image')].map(i => i.src)"
    assert window["content"][3]["src"] in browser.value(sources)
    browser.screenshot(tmp_path / "images.png")


def video(frames: int = 4) -> list[torch.Tensor]:
    """A bright square that moves over noise."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for t in range(frames):
        frame = 0.3 * torch.rand(1, 3, *SIZE, generator=generator)
        frame[..., 20:36, 20 + 12 * t : 36 + 12 * t] = 0.9
        found.append(frame)
    return found


def walked(net: LMANet, frames=None) -> LastFrames:
    """A network that has labelled a video."""
    last = LastFrames(Stepper(net, Views(net.size_rule), nullcontext()))
    for frame in frames or video():
        last(frame)
    return last


def make_net(**options) -> LMANet:
    net = LMANet(ToyBackbone(4), (-2, -1), corr_size=9, **options).eval()
    with torch.no_grad():  # random keys are all alike: attention would be flat
        for part in (net.kv_M_r4.Key, net.kv_Q_r4.Key):
            part.weight *= 8
    return net


def shown_maps(server, run: str) -> list[np.ndarray]:
    shown = windows_of(server.port, f"attention {run}")
    return [
        np.array(shown[name]["content"]["data"][0]["z"])
        for name in sorted(shown)
        if name.startswith("memory")
    ]


def test_a_click_shows_where_that_pixel_looks(browser, server, tmp_path):
    net = make_net()
    last, run = walked(net), "clicked"
    over = threading.Event()
    with open_dashboard(tmp_path / run, server.port, training=False) as dashboard:
        thread = threading.Thread(target=explore, args=(dashboard, last, over.is_set), daemon=True)
        thread.start()
        wait_for(lambda: len(windows_of(server.port, f"attention {run}")) == 3)
        look_at(browser, server, f"attention {run}", 3)
        wait_for(lambda: len(drawn(browser)) == 2)
        browser.screenshot(tmp_path / "before.png")

        def expect(y, x, name):
            maps = net.attention(last.frames[-1], last.state, (y, x)).numpy()
            wait_for(lambda: np.array_equal(shown_maps(server, run), maps))
            wait_for(
                lambda: np.array_equal(
                    [trace["z"] for _, (trace,) in sorted(drawn(browser).items())], maps
                )
            )
            assert f"y {y}, x {x}" in str(titles(browser))
            browser.screenshot(tmp_path / f"{name}.png")
            return maps

        expect(SIZE[0] // 2, SIZE[1] // 2, "centre")
        click(browser, SIZE, 1, 1)  # chooses the window
        click(browser, SIZE, 24, 60)
        first = expect(24, 60, "first")
        click(browser, SIZE, 50, 101)
        second = expect(50, 101, "second")
        assert not np.array_equal(first, second)
        browser.press("ArrowLeft")
        expect(50, 101 - STRIDE, "left")
        browser.press("ArrowUp")
        third = expect(50 - STRIDE, 101 - STRIDE, "up")
        assert not np.array_equal(second, third)
        over.set()
        thread.join(5)
        assert not thread.is_alive(), "it ends when it is told to"


def click(browser, size, y: int, x: int) -> None:
    """Click the middle of pixel (y, x) of the frame of `size`."""
    box = browser.value(
        "(r => [r.x, r.y, r.width, r.height])"
        "(document.querySelector('.content-image').getBoundingClientRect())"
    )
    browser.click(box[0] + (x + 0.5) * box[2] / size[1], box[1] + (y + 0.5) * box[3] / size[0])


@pytest.mark.parametrize(
    "size", [(64, 128), (360, 480), (512, 1024), (1024, 2048), (100, 30), (720, 960)]
)
def test_a_click_means_the_pixel_under_it(browser, server, tmp_path, size):
    """At any size of frame, to what the screen can tell; not in the lower right corner, by which
    windows are pulled."""
    run, pixels, over = f"size {size[0]}", [], threading.Event()

    def attention(pixel):
        pixels.append(pixel)
        return np.zeros((1, 4, 8), np.float32)

    frame = np.zeros((*size, 3), np.uint8)
    with open_dashboard(tmp_path / run, server.port, training=False) as dashboard:
        explorer = AttentionExplorer(dashboard, frame, [frame], attention)
        thread = threading.Thread(target=explorer.serve, args=(over.is_set,), daemon=True)
        thread.start()
        wait_for(lambda: len(windows_of(server.port, f"attention {run}")) == 2)
        look_at(browser, server, f"attention {run}", 2)
        wait_for(lambda: len(drawn(browser)) == 1)
        click(browser, size, 1, 1)  # chooses the window
        for y, x in (
            (size[0] // 4, size[1] // 3),
            (8, 8),
            (size[0] - 4, size[1] // 2),
            (size[0] // 2, size[1] - 4),
        ):
            count = len(pixels)
            click(browser, size, y, x)
            wait_for(lambda count=count: len(pixels) > count)
            assert np.abs(np.subtract(pixels[-1], (y, x))).max() <= 2 * max(
                size[1] / explorer.shown.shape[1], 0.5
            )
        over.set()
        thread.join(5)


# The explorer without a browser


def test_the_explorer_shows_the_frames_that_were_read(tmp_path):
    frames = video()
    last = walked(make_net(), frames)
    assert [torch.equal(a, b) for a, b in zip(last.memory(), frames[1:3], strict=True)] == [
        True,
        True,
    ]
    assert last.attention((10, 10)).shape == (2, SIZE[0] // STRIDE, SIZE[1] // STRIDE)
    first = walked(make_net(), frames[:1])
    assert first.memory() == [] and len(first.attention((0, 0))) == 0


def test_a_new_frame_size_begins_a_new_memory():
    frames = [*video(2), torch.rand(1, 3, 32, 64), torch.rand(1, 3, 32, 64)]
    last = walked(make_net(), frames)
    assert len(last.memory()) == 1 and torch.equal(last.memory()[0], frames[2])
    assert last.attention((5, 5)).shape == (1, 8, 16)


def test_a_frame_that_the_network_pads_is_explored_as_padded():
    net, frames = make_net(), [frame[..., :61, :127] for frame in video()]
    maps = walked(net, frames).attention((60, 126))
    padded = walked(net, [pad(frame, (0, 1, 0, 3), mode="replicate") for frame in frames])
    assert maps.shape == (2, 16, 32) and np.array_equal(maps, padded.attention((60, 126)))


def test_a_network_that_writes_before_it_reads_looks_at_the_frame_itself_too(tmp_path):
    net = make_net(memorize_first=True)
    last = walked(net)
    frame, *memory = (as_picture(picture[0]) for picture in (last.frames[-1], *last.memory()))
    explorer = AttentionExplorer(
        open_dashboard(tmp_path, 1, visualize=False), frame, memory, last.attention
    )
    assert len(explorer.memory) == 3 and np.array_equal(explorer.memory[-1], frame)


def test_the_first_frame_of_a_video_has_nothing_to_look_at(tmp_path):
    last = walked(make_net(), video(1))
    explore(open_dashboard(tmp_path, 1, visualize=False), last, lambda: True)


def test_keys_stop_at_the_edge_and_others_do_nothing(server, tmp_path):
    last, run = walked(make_net()), "edge"
    with open_dashboard(tmp_path / run, server.port, training=False) as dashboard:
        explorer = AttentionExplorer(
            dashboard,
            as_picture(last.frames[-1][0]),
            [as_picture(frame[0]) for frame in last.memory()],
            last.attention,
        )
        event = {"event_type": "KeyPress", "eid": f"attention {run}", "target": "frame"}
        explorer.look(0, 0)
        for key in ("ArrowUp", "ArrowLeft", "Enter", "a"):
            explorer.on_event(event | {"key": key})
        assert explorer.pixel == (0, 0)
        explorer.on_event(event | {"key": "ArrowRight", "eid": "attention another"})
        assert explorer.pixel == (0, 0)
        explorer.on_event(event | {"key": "ArrowRight"})
        assert explorer.pixel == (0, STRIDE)
        explorer.look(1000, -5)
        assert explorer.pixel == (SIZE[0] - 1, 0)


def test_several_views_are_refused_in_one_line():
    net = make_net()
    with pytest.raises(ValueError, match="--flip"):
        LastFrames(Stepper(net, Views(net.size_rule, flip=True), nullcontext()))


def test_a_frame_is_shown_large_enough_to_click_and_small_enough_for_a_screen():
    for size, expected in (
        ((64, 128), (240, 480)),
        ((360, 480), (360, 480)),
        ((1024, 2048), (512, 1024)),
        ((2000, 100), (1024, 51)),
        ((3, 5000), (1, 1024)),
        ((100, 30), (1024, 307)),
    ):
        assert enlarge(np.zeros((*size, 3), np.uint8)).shape[:2] == expected
