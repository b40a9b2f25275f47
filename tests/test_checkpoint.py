"""Checkpoint files survive crashes, and reading one runs no code (utils/checkpoint)."""

import argparse
import errno
import json
import os
import pickle
import re
import resource
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from utils.checkpoint import load_weights, previous, read, read_latest, resolve, save, weights_of


def same(a, b) -> bool:
    """Equal values of equal types, at any depth."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        same_keys = isinstance(b, dict) and a.keys() == b.keys()
        return same_keys and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


# Saving


def test_what_is_saved_is_read_again(tmp_path):
    network = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    content = {
        "state_dict": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "best": 0.25,
        "name": "erf",
        "none": None,
        "flags": [True, False],
        "sizes": (512, 1024),
        "bytes": b"\x00\xff",
        "random": torch.get_rng_state(),
        "half": torch.ones(2).half(),
        "nested": {1: {"a": [(1, 2), {}]}},
    }
    save(tmp_path / "c.pth", content)
    again = read(tmp_path / "c.pth")
    assert same(content, again)
    assert os.listdir(tmp_path) == ["c.pth"]


def test_parameters_and_numpy_numbers_become_plain(tmp_path):
    weight = nn.Parameter(torch.ones(2))
    save(tmp_path / "c.pth", {"weight": weight, "miou": np.float64(0.5), "epoch": np.int64(3)})
    again = read(tmp_path / "c.pth")
    assert type(again["weight"]) is torch.Tensor and not again["weight"].requires_grad
    assert type(again["miou"]) is float and type(again["epoch"]) is int


class Pair(tuple):
    """A class of our own, which reading would have to import."""


@pytest.mark.parametrize(
    "value, name",
    [
        (argparse.Namespace(a=1), "Namespace"),
        (Path("a"), "Path"),
        (np.zeros(3), "ndarray"),
        ({1, 2}, "set"),
        (len, "builtin"),
        (Pair((1, 2)), "Pair"),
        (nn.Linear(1, 1), "Linear"),
        ({(1, 2): 3}, "tuple"),
    ],
)
def test_anything_but_plain_values_is_refused_by_name_before_the_disk_is_touched(
    tmp_path, value, name
):
    with pytest.raises(TypeError, match=rf"\['args'\]\[0\].*{name}") as caught:
        save(tmp_path / "c.pth", {"fine": 1, "args": [value]})
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_the_file_before_is_kept_and_only_that(tmp_path):
    for epoch in range(4):
        save(tmp_path / "c.pth", {"epoch": epoch})
    assert read(tmp_path / "c.pth") == {"epoch": 3}
    assert read(previous(tmp_path / "c.pth")) == {"epoch": 2}
    assert sorted(os.listdir(tmp_path)) == ["c.pth", "c.pth.previous"]


def test_a_file_that_need_not_be_kept_is_replaced_in_one_step(tmp_path):
    for epoch in range(2):
        save(tmp_path / "best.pth", {"epoch": epoch}, keep=False)
    assert read(tmp_path / "best.pth") == {"epoch": 1} and os.listdir(tmp_path) == ["best.pth"]


def watch_disk(monkeypatch, before) -> list[str]:
    """The names of the calls of `save` that change the disk, filled in as they are made.

    before(number) runs before each call.
    """
    calls = []

    def watch(module, name):
        original = getattr(module, name)

        def watched(*args, **kwargs):
            before(len(calls))
            calls.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, watched)

    watch(torch, "save")
    watch(os, "fsync")
    watch(os, "link")
    watch(os, "replace")
    return calls


# Write, link to keep the old file, move the new file to its name, move the old one to .previous.
STEPS = ["save", "fsync", "link", "replace", "replace", "fsync"]


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("step", range(len(STEPS)))
def test_a_full_disk_at_any_step_costs_no_checkpoint(tmp_path, monkeypatch, step, damaged):
    """damaged: the newest file is broken already, so that only its .previous is complete."""
    path = tmp_path / "c.pth"
    save(path, {"epoch": 0})
    save(path, {"epoch": 1})
    if damaged:
        path.write_bytes(path.read_bytes()[:100])

    def full(number):
        if number == step:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    calls = watch_disk(monkeypatch, full)
    message = f"could not save {re.escape(str(path))}: No space left on device; "
    with pytest.raises(OSError, match=message) as caught:
        save(path, {"epoch": 2})
    assert calls == STEPS[:step] and "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["c.pth", "c.pth.previous"]
    expected = 1
    if damaged:
        expected = 0
    # From the first rename on the new file is there.
    if step > STEPS.index("replace"):
        expected = 2
    assert read_latest(path)[0]["epoch"] == expected


def test_a_crash_at_any_step_costs_no_checkpoint(tmp_path, monkeypatch):
    """A killed process cleans nothing up: the disk is read as each step finds it.

    The newest file is broken, so that .previous is the only complete one.
    """
    path = tmp_path / "c.pth"
    found = []
    save(path, {"epoch": 0})
    save(path, {"epoch": 1})
    path.write_bytes(b"broken")
    calls = watch_disk(monkeypatch, lambda number: found.append(read_latest(path)[0]["epoch"]))
    save(path, {"epoch": 2})
    assert calls == STEPS
    assert found == [0, 0, 0, 0, 2, 2]


def test_a_limit_on_file_size_is_an_error_and_leaves_nothing_behind(tmp_path):
    """Here the kernel itself refuses to write (Python ignores SIGXFSZ)."""
    path = tmp_path / "c.pth"
    save(path, {"weight": torch.zeros(10)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match="could not save"):
            save(path, {"weight": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(read(path)["weight"]) == 10 and os.listdir(tmp_path) == ["c.pth"]


def test_a_file_system_without_links_or_folder_sync_works(tmp_path, monkeypatch):
    path = tmp_path / "c.pth"
    save(path, {"epoch": 0})

    def no_link(*args):
        raise OSError(errno.EPERM, "no links here")

    def sync(handle, original=os.fsync):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(errno.EINVAL, "no sync of folders here")
        original(handle)

    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(os, "fsync", sync)
    save(path, {"epoch": 1})
    assert (read(path)["epoch"], read(previous(path))["epoch"]) == (1, 0)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OSError, match="could not save .*nowhere.*No such file or directory"):
        save(tmp_path / "nowhere" / "c.pth", {})


# Reading


@pytest.mark.parametrize("legacy", [False, True])
def test_truncation_anywhere_is_noticed_and_the_previous_file_used(tmp_path, legacy):
    path = tmp_path / "c.pth"
    content = {"state_dict": {"w": torch.randn(40, 40), "b": torch.randn(7)}, "epoch": 1}
    save(previous(path), {"epoch": 0})
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    assert same(read(path), content)
    # A legacy file that ends within the name of one of torch's own functions names another one.
    words = (
        r"is (?:damaged or no checkpoint|empty).*copy or download"
        r"|holds pickled objects \((torch|collections)\."
    )
    # Each length near the ends of the file, where its headers are.
    near_the_ends = {*range(200), *range(len(whole) - 70, len(whole))}
    for length in sorted(near_the_ends | {*range(200, len(whole), 97)}):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} (?:{words})"):
            read(path)
        latest, note = read_latest(path)
        assert latest == {"epoch": 0} and note.startswith(f"{path} ") and "\n" not in note


def test_the_newest_of_two_complete_files_is_used_without_a_note(tmp_path):
    save(tmp_path / "c.pth", {"epoch": 0})
    save(tmp_path / "c.pth", {"epoch": 1})
    assert read_latest(tmp_path / "c.pth") == ({"epoch": 1}, None)


def test_a_missing_file_is_replaced_by_its_previous_and_two_missing_ones_are_an_error(tmp_path):
    path = tmp_path / "c.pth"
    with pytest.raises(FileNotFoundError, match="neither"):
        read_latest(path)
    save(previous(path), {"epoch": 0})
    latest, note = read_latest(path)
    assert latest == {"epoch": 0} and "there is no checkpoint at" in note
    previous(path).write_bytes(b"x")
    message = "no complete checkpoint: .*c.pth; .*c.pth.previous is a text file"
    with pytest.raises(ValueError, match=message):
        read_latest(path)


def test_a_tensor_is_no_checkpoint_to_resume_from(tmp_path):
    torch.save(torch.ones(2), tmp_path / "c.pth")
    with pytest.raises(ValueError, match="holds a Tensor"):
        read_latest(tmp_path / "c.pth")


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", r"is empty \(0 bytes\): copy or download it again"),
        (b"hello", "is a text file, not the weights"),
        (b"\x00\x01\x02", r"damaged or no checkpoint \(3 bytes\)"),
        (b"\xff" * 5000, r"damaged or no checkpoint \(5000 bytes\)"),
        (b'{"lr": 0.1}', "is a JSON file, not the weights"),
        (b"\x1f\x8b\x08\x00" + b"\x00" * 50, "is a gzip archive: unpack it"),
        (b"BZh91AY&SY", "is a bzip2 archive: unpack it"),
        (b"\xfd7zXZ\x00\x00", "is an xz archive: unpack it"),
        (b"\x28\xb5\x2f\xfd\x00", "is a zstd archive: unpack it"),
        (b"7z\xbc\xaf\x27\x1c\x00", "is a 7z archive: unpack it"),
        (b"Rar!\x1a\x07\x00", "is a rar archive: unpack it"),
        (b"\x00" * 257 + b"ustar\x0000", "is a tar archive: unpack it"),
        (b"\x89HDF\r\n\x1a\n\x00", "is an HDF5 file .Keras.*: save the network's state_dict"),
        (b"\x93NUMPY\x01\x00", "is a NumPy array"),
        (b"\x08\x08\x12\x07pytorch\x1a\x032.1:\x10", "is an ONNX model"),
        (b"\x08\x07:\xb2\x01\n\x10", "is an ONNX model"),
        (b"\x1c\x00\x00\x00TFL3", "is a TensorFlow Lite model"),
        (b"\x00\x01\x02" * 9 + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb", "a TensorFlow checkpoint"),
        (b"\x89PNG\r\n\x1a\n", "is a picture .PNG.: give it as --source"),
        (b"\x00\x00\x00\x18ftypmp42", "is a video .MP4.: give it as --source"),
        (pickle.dumps({"a": 1}), "is a pickle that torch did not write"),
        (pickle.dumps({"a": np.zeros(2)}), "is a pickle that torch did not write"),
        (b"PK\x03\x04" + b"\x00" * 50, "damaged"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointer"),
        (b"<!DOCTYPE html><html>", "web page"),
    ],
)
def test_the_error_says_what_a_file_is_that_is_no_checkpoint(tmp_path, content, words):
    (tmp_path / "c.pth").write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        read(tmp_path / "c.pth")
    assert "\n" not in str(caught.value) and str(tmp_path / "c.pth") in str(caught.value)


def zip_of(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return path


@pytest.mark.parametrize(
    "names, words",
    [
        (("net/data.pkl", "net/code/net.py", "net/constants.pkl"), "is a TorchScript archive"),
        (("net/archive_format", "net/models/model.json"), "is an exported program"),
        (("config.json", "metadata.json", "model.weights.h5"), "is a Keras model"),
        (("a.npy", "b.npy"), "is a NumPy archive"),
        (("run/model_best.pth",), r"is a zip archive of 1 files \(run/model_best.pth\): unpack it"),
        ((), "is a zip archive of 0 files|damaged"),
        (("net/data.pkl", "net/version"), "damaged"),
    ],
)
def test_an_archive_is_named_by_what_is_in_it(tmp_path, names, words):
    with pytest.raises(ValueError, match=words) as caught:
        read(zip_of(tmp_path / "c.pth", *names))
    assert "\n" not in str(caught.value)


def test_a_network_that_torchscript_saved_is_named(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "c.pt")
    with pytest.raises(ValueError, match=r"c.pt is a TorchScript archive.*torch.jit.load"):
        read(tmp_path / "c.pt")


@pytest.mark.parametrize(
    "name, words",
    [
        ("model.onnx", "ONNX"),
        ("model.ckpt.data-00000-of-00001", "TensorFlow checkpoint"),
        ("saved_model.pb", "TensorFlow graph"),
    ],
)
def test_a_file_without_a_mark_is_named_by_its_name(tmp_path, name, words):
    (tmp_path / name).write_bytes(bytes([200, 0, 255, 13]) * 30)
    with pytest.raises(ValueError, match=words):
        read(tmp_path / name)


def test_a_path_with_nothing_or_a_folder_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "c.pth"):
        with pytest.raises(FileNotFoundError, match=re.escape(str(path))):
            read(path)


def test_a_folder_means_its_best_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected model_best.pth.tar, .* found nothing"):
        resolve(tmp_path)
    for name in "abcdefg":
        (tmp_path / f"{name}.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"found a.txt, .*e.txt, and 2 more; name the file"):
        resolve(tmp_path)
    for name in ("checkpoint.pth.tar", "model_best.pth", "model_best.pth.tar"):
        save(tmp_path / name, {"name": name})
        assert resolve(tmp_path) == tmp_path / name
        assert resolve(str(tmp_path / name)) == tmp_path / name
        assert read(tmp_path) == {"name": name}


def safetensors(tensors: dict, **further) -> bytes:
    """A file of safetensors, as its format is described."""
    names = {"float32": "F32", "float16": "F16", "int64": "I64", "bfloat16": "BF16", "bool": "BOOL"}
    table = dict(further)
    data = b""
    for name, tensor in tensors.items():
        part = bytes(tensor.contiguous().flatten().view(torch.uint8).tolist())
        table[name] = {
            "dtype": names[str(tensor.dtype).removeprefix("torch.")],
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(part)],
        }
        data += part
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize("name", ["c.safetensors", "c.pth"])
def test_safetensors_are_read_under_any_name(tmp_path, name):
    tensors = {
        "flag": torch.tensor([True]),
        "w": torch.randn(3, 2),
        "half": torch.randn(4).half(),
        "bf": torch.randn(2, 2).bfloat16(),
        "n": torch.tensor([7]),
        "none": torch.zeros(0, 3),
    }
    (tmp_path / name).write_bytes(safetensors(tensors, __metadata__={"format": "pt"}))
    found = read(tmp_path / name)
    assert same(found, tensors)
    assert weights_of(found, "file").keys() == tensors.keys()


def test_damaged_safetensors_are_one_line(tmp_path):
    path = tmp_path / "c.safetensors"
    whole = safetensors({"w": torch.randn(3, 2), "b": torch.randn(3)})
    for length in range(10, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is a damaged safetensors file") as caught:
            read(path)
        assert "\n" not in str(caught.value)
    for text in (b'{"a": 3}', b'{"a": {}}', b"{ ]", b'{"a": [1, 2]}'):
        path.write_bytes(struct.pack("<Q", len(text)) + text)
        with pytest.raises(ValueError, match="is a damaged safetensors file"):
            read(path)
    path.write_bytes(whole.replace(b'"F32"', b'"F8X"'))
    with pytest.raises(ValueError, match="type F8X are not known"):
        read(path)


class Trap:
    """Runs a command when unpickled without weights_only."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("legacy", [False, True, "pickle"])
def test_a_malicious_file_is_refused_and_does_nothing(tmp_path, legacy):
    path = tmp_path / "c.pth"
    evidence = tmp_path / "evidence"
    content = {"state_dict": {"w": torch.ones(1)}, "x": Trap(f"touch {evidence}")}
    if legacy == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    for attempt in (read, read_latest, lambda path: load_weights(nn.Linear(1, 1), path)):
        with pytest.raises(ValueError) as caught:
            attempt(path)
        assert legacy == "pickle" or "system" in str(caught.value)
    assert not evidence.exists()
    # The trap works: without protection the command runs.
    pickle.loads(pickle.dumps(content["x"]))
    assert evidence.exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_options_pickled_into_an_old_file_are_refused_with_a_reason(tmp_path, legacy):
    path = tmp_path / "c.pth"
    content = {"state_dict": {}, "args": argparse.Namespace(lr=1)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    message = r"options of the run that wrote it \(argparse.Namespace\).*state_dict alone"
    with pytest.raises(ValueError, match=message):
        read(path)


def test_the_published_legacy_file_is_read(shared):
    content = read(shared / "weights" / "cityscapes-swnet_model_best.pth.tar")
    assert content["epoch"] == 54
    found = weights_of(content, "file")
    assert sum(key.startswith("grm.") for key in found) == 59
    assert sum(key.startswith("state_dict_of.") for key in found) == 51 and len(found) == 110
