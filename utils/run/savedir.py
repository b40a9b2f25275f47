"""The folder a run writes into: one run at a time, what it must not hold yet, and the record of
what was run."""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import os
import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from ..console import get_logger
from ..files import write_text
from ..log import LOG_NAME
from ..training.counted_labels import FILE as COUNTED
from ..training.training_state import CHECKPOINT
from .dist import barrier, rank

# What a run of each job leaves, as patterns of names; --overwrite removes it.
LEFT_BY = {
    "training": (
        f"{CHECKPOINT}*",
        "model_best.pth*",
        "model-*.pth",
        LOG_NAME,
        "best.txt",
        "curves.png",
        COUNTED,
        "tensorboard",
        "graphs *.json",
        "images *.json",
    ),
    "evaluation": ("results.json", "results.txt", "pictures", "labels", "videos", "legend.png"),
}
# The data set that an inference writes, and its list of classes.
DATASET = "dataset"
CLASSES = f"{DATASET}/classes.txt"
# Its labels as a benchmark takes them.
SUBMISSION = "result_submission"
# The records of an inference, and what it writes of each source, {} being the source's name. Names
# of sources come from the records: a folder may hold files of the user's with such endings.
INFERENCES = "inference_*_of_*.json"
OF_SOURCE = (
    "{}_overlay.*",
    "{}_overlay_[0-9]*.mp4",
    "{}_side_by_side.*",
    "{}_side_by_side_[0-9]*.mp4",
    "{}_split_screen.*",
    "{}_split_screen_[0-9]*.mp4",
    "{}_labels",
    "{}_confidence",
    "{}_keyframes.*",
    "{}_consistency.json",
    f"{DATASET}/{{}}",
    f"{SUBMISSION}/{{}}",
)
# What tells about any run, and is no input of one.
RECORDS = ("args.txt", "args_*.txt", "model.txt", "*.py", "*.csv", LOG_NAME)
LOCK = ".lock"
# Locks of this process and their descriptors; it has one at a time.
held: list[tuple[Path, int]] = []
# Temporary files; a checkpoint's name the process that writes it.
TEMPORARY = re.compile(r"\..+\.(?:(\d+)\.(?:new|old)|tmp)")


def acquire(folder: Path, args) -> None:
    """Validate and make --savedir, once for all ranks; it belongs to this run until `release`.

    What a killed run left half-written is cleared, and with --overwrite what an earlier run of the
    same job left. ValueError / OSError say what to do; then nothing has changed.
    """
    if rank() == 0:
        validate(folder, args.job, resume=args.resume, overwrite=args.overwrite)
        lock(folder)
        clear(folder)
        if args.overwrite:
            remove(folder, args.job)
    barrier()


def lock(folder: Path) -> None:
    """Take the folder for this process. ValueError where another run has it.

    A record lock ends with its process however that ends, and loader workers do not inherit it.
    """
    path = folder / LOCK
    # Again and again: between opening and locking, the run before may remove the file.
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(descriptor, 20).decode(errors="replace")
            os.close(descriptor)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise ValueError(
                    f"--savedir {folder} is in use by another run (process {owner or 'unknown'}): "
                    "wait for its end, or give another folder"
                ) from error
            get_logger().warning(
                f"{folder} cannot be locked ({error.strerror}): start no second run there"
            )
            return
        # A lock on a file that has lost its name would keep nobody out.
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                break
        os.close(descriptor)  # the run before has removed the file in between
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    held.append((path, descriptor))


def release() -> None:
    """The run is over: others may have its folder."""
    while held:
        path, descriptor = held.pop()
        with suppress(OSError):  # the disk may have become read-only
            path.unlink()
        os.close(descriptor)


def validate(folder: Path, job: str, *, resume: bool, overwrite: bool) -> None:
    """Make the folder, if the run may write there and loses nothing by it."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--savedir {folder} is a file: give a folder")
    shown = str(folder).encode(errors="backslashreplace").decode()
    if shown != str(folder):
        # No writer of videos takes such a path; OpenCV crashes.
        raise ValueError(f"--savedir {shown} is a name that is no UTF-8: give another")
    held = HOLDS.get(job, holds_nothing)(folder)
    if held and not (resume or overwrite):
        raise ValueError(
            f"{folder} holds {held}: --resume goes on from it, --overwrite starts anew, or give "
            "another --savedir"
        )
    if job == "training" and resume and not held:
        raise FileNotFoundError(
            f"--resume: there is no {CHECKPOINT} in {folder}; leave --resume out to start"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Permissions tell little on network file systems: try.
        probe = folder / ".write-test"
        probe.write_bytes(b"0")
        probe.unlink()
    except OSError as error:
        raise OSError(f"cannot write into --savedir {folder}: {error.strerror or error}") from error


def holds_training(folder: Path) -> bool:
    return any(path.exists() for path in (folder / CHECKPOINT, folder / f"{CHECKPOINT}.previous"))


def held_training(folder: Path) -> str:
    return "a checkpoint" if holds_training(folder) else ""


def held_results(folder: Path) -> str:
    return "a finished evaluation" if (folder / "results.json").exists() else ""


def held_labels(folder: Path) -> str:
    """Whether an inference has labelled a source whole, or has begun a data set."""
    if any(record.get("finished") for record in inferences(folder).values()):
        return "a finished inference"
    # Clips of another run would be learnt from as if they were this run's.
    if (folder / CLASSES).exists():
        return f"the data set of an inference ({DATASET})"
    return ""


def inferences(folder: Path) -> dict[Path, dict]:
    """The records of an inference in the folder; each rank has its own."""
    records = {}
    for path in folder.glob(INFERENCES):
        with suppress(OSError, ValueError, AttributeError):
            record = json.loads(path.read_text())
            record.get("finished")  # a list, say, is no record
            records[path] = record
    return records


def inference_outputs(folder: Path) -> list[Path]:
    """What an inference has written into the folder, its records included."""
    records = inferences(folder)
    if not records:
        return []
    found = [*records, folder / "legend.png", folder / CLASSES]
    names = {
        name
        for record in records.values()
        for name in (*record.get("sources", ()), *record.get("finished", ()))
    }
    for name in names:
        for pattern in OF_SOURCE:
            found += folder.glob(pattern.format(glob.escape(name)))
    return found


def is_inference_output(folder: Path, path: Path) -> bool:
    """Whether an inference into the folder has written the file: it is no input of another."""
    place = path.resolve()
    folder = folder.resolve()
    if folder not in place.parents:
        return False
    outputs = inference_outputs(folder)
    return any(output == place or output in place.parents for output in outputs)


def is_left_by_runs(folder: Path, path: Path) -> bool:
    """Whether a run has written the file: an output of an inference, or the record of a run."""
    record = path.resolve().parent == folder.resolve() and any(map(path.match, RECORDS))
    return record or is_inference_output(folder, path)


def holds_nothing(folder: Path) -> str:
    """A benchmark takes a minute, and writes one file anew."""
    return ""


# job -> what a folder holds that the job would destroy, in words; nothing: "".
HOLDS = {"training": held_training, "evaluation": held_results, "inference": held_labels}


def clear(folder: Path) -> None:
    """Remove temporary files of processes that are gone."""
    for path in folder.glob(".*"):
        # Those of a process that lives may be another run's that writes at this moment.
        match = TEMPORARY.fullmatch(path.name)
        if match and not (match[1] and alive(int(match[1]))):
            path.unlink()


def remove(folder: Path, job: str) -> None:
    """Remove what an earlier run of a job has left."""
    left = [path for pattern in LEFT_BY.get(job, ()) for path in folder.glob(pattern)]
    if job == "inference":
        left = inference_outputs(folder)
    for path in left:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def remove_results(folder: Path) -> None:
    """An evaluation that is stopped must not leave older results beside its own record."""
    if rank() == 0:
        for name in ("results.json", "results.txt"):
            (folder / name).unlink(missing_ok=True)


def alive(process: int) -> bool:
    """Whether a process of this number exists."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def record(folder: Path, job: str, recipe: str, model) -> None:
    """args.txt (itself a recipe), model.txt and a copy of the method's source file, by rank 0.

    Beside a training these are the training's; another job there leaves args_JOB.txt alone.
    """
    if rank():
        return
    if job != "training" and holds_training(folder):
        write_text(folder / f"args_{job}.txt", recipe)
        return
    write_text(folder / "args.txt", recipe)
    write_text(folder / "model.txt", f"{model}\n")
    source = Path(sys.modules[type(model).__module__].__file__)
    shutil.copyfile(source, folder / source.name)
