"""Shared fixtures: one thread, deterministic, no network."""
import pytest
import torch

from golden import SHARED


@pytest.fixture(autouse=True)
def one_seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Two worker processes on two cores should not fight; results do not depend on it."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared():
    """The folder of golden data, CamVid, weights and videos; skip (fail under CI) where it is absent."""
    import os
    if not SHARED.is_dir():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"no shared data at {SHARED}")
    return SHARED
