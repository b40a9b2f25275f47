"""Flow from files: what is read, and what is told of those that are no flow."""

import re

import numpy as np
import pytest
import torch

from models.optical_flow.given import FlowFolder, read_flo, read_flow, write_flo


@pytest.fixture
def field() -> np.ndarray:
    """Flow (2, 3, 5)."""
    return np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)


def test_a_flo_file_gives_back_what_was_written(tmp_path, field):
    write_flo(tmp_path / "a.flo", field)
    assert np.array_equal(read_flo(tmp_path / "a.flo"), field)


def test_a_flo_file_is_laid_out_as_middlebury_s(tmp_path, field):
    write_flo(tmp_path / "a.flo", field)
    data = (tmp_path / "a.flo").read_bytes()
    assert data[:4] == b"PIEH"
    assert np.frombuffer(data, "<i4", 2, 4).tolist() == [5, 3]
    values = np.frombuffer(data, "<f4", offset=12)
    assert values[:4].tolist() == [field[0, 0, 0], field[1, 0, 0], field[0, 0, 1], field[1, 0, 1]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_npy_files_have_channels_first_or_last(tmp_path, field, dtype):
    np.save(tmp_path / "first.npy", field.astype(dtype))
    np.save(tmp_path / "last.npy", field.transpose(1, 2, 0).astype(dtype))
    expected = field.astype(dtype).astype(np.float32)
    assert np.array_equal(read_flow(tmp_path / "first.npy"), expected)
    assert np.array_equal(read_flow(tmp_path / "last.npy"), expected)


def flo_bytes(width: int, height: int, values: int) -> bytes:
    sides = np.array([width, height], "<i4").tobytes()
    return b"PIEH" + sides + np.zeros(values, "<f4").tobytes()


BAD_FLO = {
    b"": "is no .flo file",
    b"PIEH\x05": "is no .flo file",
    b"\x89PNG" + bytes(40): "is no .flo file",
    flo_bytes(5, 3, 29): "5x3 takes 132 bytes, the file has 128",
    flo_bytes(5, 3, 31): "5x3 takes 132 bytes, the file has 136",
    flo_bytes(-5, -3, 30): "is damaged",
    flo_bytes(0, 0, 0): "is damaged",
    flo_bytes(2**31 - 1, 2**31 - 1, 4): "is damaged",
    flo_bytes(1, 1, 0) + np.array([0, np.nan], "<f4").tobytes(): "1 values that are NaN",
    flo_bytes(1, 1, 0) + np.array([np.inf] * 2, "<f4").tobytes(): "2 values that are NaN",
}


@pytest.mark.parametrize("data", BAD_FLO)
def test_a_damaged_flo_file_is_named_in_one_line(tmp_path, data):
    path = tmp_path / "a.flo"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        read_flow(path)
    assert BAD_FLO[data] in str(caught.value)
    assert "\n" not in str(caught.value)


BAD_NPY = {
    "three channels": (np.zeros((3, 4, 5), np.float32), r"\[3, 4, 5\], expected flow"),
    "flat": (np.zeros((4, 5), np.float32), r"\[4, 5\], expected flow"),
    "empty": (np.zeros((2, 0, 5), np.float32), r"\[2, 0, 5\], expected flow"),
    "integers": (np.zeros((2, 4, 5), np.int16), "int16, expected flow as floats"),
    "objects": (np.array([{}, None]), "is damaged or no .npy file"),
    "infinite": (np.full((2, 4, 5), np.inf, np.float16), "40 values that are NaN or infinite"),
}


@pytest.mark.parametrize("kind", BAD_NPY)
def test_a_npy_file_that_is_no_flow_is_named_in_one_line(tmp_path, kind):
    values, message = BAD_NPY[kind]
    path = tmp_path / "a.npy"
    np.save(path, values)
    with pytest.raises(ValueError, match=message) as caught:
        read_flow(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 5, 40, 200])
def test_a_npy_file_that_ends_early_is_damaged(tmp_path, field, kept):
    path = tmp_path / "a.npy"
    np.save(path, field)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="is damaged or no .npy file: copy it again"):
        read_flow(path)


def test_a_folder_finds_the_flow_of_a_frame_by_its_name(tmp_path, field):
    (tmp_path / "drive").mkdir()
    write_flo(tmp_path / "drive" / "a.b_0001.flo", field)
    np.save(tmp_path / "0002.npy", -field)
    folder = FlowFolder(tmp_path)
    assert torch.equal(folder("drive/a.b_0001", (3, 5)), torch.from_numpy(field))
    assert torch.equal(folder("0002", (3, 5)), torch.from_numpy(-field))
    assert folder.find("0003") is None
    with pytest.raises(FileNotFoundError, match=r"of the frame 0003: 0003\.flo or 0003\.npy"):
        folder("0003", (3, 5))
    with pytest.raises(FileNotFoundError, match="there is no folder of flow at"):
        FlowFolder(tmp_path / "nowhere")


def test_flow_of_a_larger_frame_is_brought_to_the_pixels_of_a_smaller_one(tmp_path):
    np.save(tmp_path / "a.npy", np.full((2, 48, 64), 8.0))
    flow = FlowFolder(tmp_path)("a", (12, 32))
    assert flow.shape == (2, 12, 32)
    torch.testing.assert_close(flow[0], torch.full((12, 32), 4.0))
    torch.testing.assert_close(flow[1], torch.full((12, 32), 2.0))


def test_unknown_flow_of_a_file_is_zero(tmp_path, field):
    field[:, 1, 2] = 1.7e9
    write_flo(tmp_path / "a.flo", field)
    flow = FlowFolder(tmp_path)("a", (3, 5))
    assert flow[:, 1, 2].tolist() == [0, 0]
    assert flow[0, 0, 0] == field[0, 0, 0]
