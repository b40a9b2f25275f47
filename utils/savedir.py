"""The folder a run writes into: what it must not hold yet, and the record of what was run."""
from __future__ import annotations

import shutil
import sys
from pathlib import Path

from .log import write_text
from .training_state import CHECKPOINT


def claim(folder: Path, *, training: bool, resume: bool, overwrite: bool) -> None:
    """Judge --savedir before anything is written. ValueError / OSError say what to do."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--savedir {folder} is a file: give a folder")
    held = [path for path in (folder / CHECKPOINT, folder / f"{CHECKPOINT}.previous") if path.exists()]
    if training and held and not (resume or overwrite):
        raise ValueError(f"{folder} holds a checkpoint: --resume goes on from it, --overwrite starts anew")
    if training and resume and not held:
        raise FileNotFoundError(f"--resume: there is no {CHECKPOINT} in {folder}; leave --resume out to start")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".write-test"
        probe.write_bytes(b"0")
        probe.unlink()
    except OSError as error:
        raise OSError(f"cannot write into --savedir {folder}: {error.strerror or error}") from error
    stale = [path for name in (CHECKPOINT, "model_best.pth", "args.txt") for path in folder.glob(f".{name}*")]
    for path in [*stale, *(held if training and overwrite else [])]:
        path.unlink()               # stale: what a killed run was writing


def record(folder: Path, recipe: str, model) -> None:
    """args.txt (itself a recipe), model.txt and a copy of the method's source file."""
    write_text(folder / "args.txt", recipe)
    write_text(folder / "model.txt", f"{model}\n")
    source = Path(sys.modules[type(model).__module__].__file__)
    shutil.copyfile(source, folder / source.name)
