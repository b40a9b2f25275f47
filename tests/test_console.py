"""The console: which rank writes what to which stream, warnings that come once, progress bars."""

import io
import sys
import time

import pytest

from utils.console import Console, get_logger, warn_once

pytestmark = pytest.mark.usefixtures("own_logger")


def test_rank_0_notes_to_stdout_and_warns_to_stderr(capsys):
    console = Console()
    console.note("epoch 1")
    console.warn("no flow")
    get_logger().info("from the library")
    assert capsys.readouterr() == ("epoch 1\nfrom the library\n", "no flow\n")


def test_other_ranks_are_silent_but_for_errors(capsys):
    console = Console(rank=1)
    console.note("epoch 1")
    console.warn("no flow")
    assert list(console.progress([1, 2])) == [1, 2]
    get_logger().error("broken")
    assert capsys.readouterr() == ("", "broken\n")


def test_a_second_console_does_not_double_the_lines(capsys):
    Console()
    Console().note("once")
    assert capsys.readouterr().out == "once\n"


def test_a_warning_comes_once(capsys):
    Console()
    for _ in range(3):
        warn_once("a fallback")
    warn_once("another")
    assert capsys.readouterr().err == "a fallback\nanother\n"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_progress_gives_the_items_and_updates_a_file_rarely(monkeypatch, stream):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", stream())
    console = Console()
    items = []
    for item in console.progress(iter(range(8)), total=10, desc="epoch 3", initial=2):
        time.sleep(0.06)
        items.append(item)
    text = sys.stderr.getvalue()
    assert items == list(range(8))
    assert "epoch 3" in text and "2/10" in text and "10/10" in text and "it/s" in text
    updates = text.count("\r")
    if stream is Terminal:
        assert updates >= 5
    else:
        assert updates <= 3


def test_a_line_does_not_run_into_the_progress_bar(monkeypatch):
    pytest.importorskip("tqdm")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", screen)
    console = Console()
    for item in console.progress(range(2)):
        console.note(f"loss {item}")
    # tqdm returns to the beginning of the line by \r; a note has to begin there and end with \n.
    parts = screen.getvalue().replace("\n", "\n\r").split("\r")
    lines = [part for part in parts if "loss" in part]
    assert lines == ["loss 0\n", "loss 1\n"]


def test_without_tqdm_the_items_come_all_the_same_and_a_warning_comes_once(monkeypatch, logged):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    console = Console()
    get_logger().propagate = True
    for _ in range(2):
        assert list(console.progress(range(3), total=3)) == [0, 1, 2]
    assert len(logged()) == 1 and "tqdm is not installed" in logged()[0]
