"""Shared fixtures: one thread, deterministic, no network."""

import logging
import signal

import pytest
import torch

from golden import SHARED
from utils import console

# Files of long tests, the longest first: a worker that begins one of them last works alone then.
FIRST = (
    "test_cli",
    "test_lmanet_commands",
    "test_faults_runs",
    "test_local_attention_tensor",
    "test_local_attention_kernel",
    "test_ranks",
    "test_gpu_script",
    "test_local_attention_cpp",
    "test_readme",
    "test_new_method",
    "test_faults_files",
    "test_faults_kills",
    "test_resume_jobs",
    "test_resume",
    "test_visualize",
    "test_browser",
    "test_video",
    "test_check_data",
    "test_stream_memory",
    "test_lma",
)


def pytest_configure(config):
    """Let the order below stand: xdist would begin with the files of the most tests.

    And let Ctrl-C reach the processes of tests: what a shell starts in the background ignores it.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    place = {name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(FIRST)))


@pytest.fixture(autouse=True)
def one_seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Two worker processes on two cores should not fight; results do not depend on it."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared():
    """The folder of golden data, CamVid, weights and videos; skip (fail under CI) where it is
    absent."""
    import os

    if not SHARED.is_dir():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            f"no shared data at {SHARED}"
        )
    return SHARED


@pytest.fixture
def own_logger():
    """The run's logger, told nothing yet, and put back as it was."""
    logger = console.get_logger()
    before = logger.handlers[:], logger.level, logger.propagate
    console.warn_once.cache_clear()
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


@pytest.fixture
def logged(own_logger, caplog):
    """What was logged so far."""
    caplog.set_level(logging.INFO, logger="streamseg")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A file with the weights of a fresh single-frame ERFNet for the synthetic world."""
    import main
    from command import SINGLE
    from models import build_model
    from utils import checkpoint

    path = tmp_path_factory.mktemp("weights") / "single.pth"
    args = main.parse_args(["--training", *SINGLE, "--savedir", "unused"])
    checkpoint.save(path, build_model(args, 11).state_dict())
    return path


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    """Builds of the CUDA kernels for the CPU, each made once."""
    from kernels import compile_for_host

    folder, made = tmp_path_factory.mktemp("kernels"), {}

    def program(build, sanitizers="address,undefined", edit=None):
        if (build, sanitizers, edit) not in made:
            made[build, sanitizers, edit] = compile_for_host(build, folder, sanitizers, edit)
        return made[build, sanitizers, edit]

    return program


@pytest.fixture
def on_cpu(host, monkeypatch):
    """The backend "cupy" as it is, but for a CuPy that runs a build of its kernels on this CPU: ->
    list of launches."""
    import sys

    from kernels import fake_cupy
    from models.ops import local_attention_cupy, read_memory

    monkeypatch.setitem(read_memory.BY_DEVICE, "cpu", local_attention_cupy)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(local_attention_cupy, "unfit", lambda *_: None)
    monkeypatch.setattr(local_attention_cupy, "missing", lambda: None)
    local_attention_cupy.build.cache_clear()

    def use(build):
        launches = []
        monkeypatch.setitem(sys.modules, "cupy", fake_cupy(host(build, ""), launches))
        return launches

    yield use
    local_attention_cupy.build.cache_clear()
