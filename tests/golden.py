"""Reads golden cases: numbers that the original networks compute (see CONTRIBUTING.md, Golden
data)."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

SHARED = Path(os.environ.get("STREAMSEG_SHARED", Path(__file__).resolve().parents[2] / "shared"))
ROOT = SHARED / "golden"


def needs_golden():
    """Skip where the golden data is absent; under CI its absence is a failure."""
    if not ROOT.is_dir():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            f"golden data is not at {ROOT}"
        )


def filling():
    """The module golden/fill.py: value_for(key, shape, dtype), fill(module, rename), image(name,
    shape)."""
    needs_golden()
    spec = importlib.util.spec_from_file_location("golden_fill", ROOT / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def case(name: str) -> SimpleNamespace:
    """Case "lma/erfnet_64x128": `.info` the JSON, `.arrays` the npz as a dict (empty if there is
    none)."""
    needs_golden()
    info = json.loads((ROOT / f"{name}.json").read_text())
    path = ROOT / f"{name}.npz"
    return SimpleNamespace(info=info, arrays=dict(np.load(path)) if path.exists() else {})


def weights(info: dict, prefix: str = "") -> dict[str, torch.Tensor]:
    """The case's state dict under the reference's names, filled as its JSON says."""
    import re

    fill = filling()
    state = {}
    for key, shape in info["state_dict"].items():
        dtype = torch.int64 if key.endswith("num_batches_tracked") else torch.float32
        state[key] = fill.value_for(prefix + key, shape, dtype)
    for ending, factor in info.get("config", {}).get("post_fill_multiply", {}).items():
        for key in state:
            if key.endswith(ending):
                state[key] = state[key] * factor
    for pattern, factor in info.get("post_fill", []):
        for key in state:
            if re.fullmatch(pattern, prefix + key):
                state[key] = state[key] * factor
    return state


def assert_close(ours, theirs, relative: float = 1e-4):
    """max |ours - theirs| <= relative * max |theirs|, and the same shape."""
    ours = ours.detach().numpy() if isinstance(ours, torch.Tensor) else np.asarray(ours)
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape, f"shape {ours.shape}, expected {theirs.shape}"
    error, scale = np.abs(ours.astype(np.float64) - theirs).max(), np.abs(theirs).max()
    assert error <= relative * scale, (
        f"max error {error:.3g} of {scale:.3g}: {error / max(scale, 1e-30):.2e} relative"
    )


def without_normalization(model: torch.nn.Module) -> torch.nn.Module:
    """Golden inputs are already normalised: replace every submodule named `normalize` by the
    identity."""
    for name, _ in list(model.named_modules()):
        if name.rsplit(".", 1)[-1] == "normalize":
            parent = model.get_submodule(name.rpartition(".")[0])
            parent.normalize = torch.nn.Identity()
    return model
