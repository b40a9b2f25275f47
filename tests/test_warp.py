"""Warping shows what the flow points at (models/ops/warp.py)."""

import pytest
import torch

from models.ops.warp import resize_flow, warp


def moved_by(x: float, y: float, size=(6, 8), batch: int = 1) -> torch.Tensor:
    """The same displacement everywhere (B, 2, h, w)."""
    return (
        torch.tensor([x, y], dtype=torch.float32).view(1, 2, 1, 1).expand(batch, 2, *size).clone()
    )


def test_no_motion_is_the_identity():
    x = torch.rand(2, 5, 6, 8)
    torch.testing.assert_close(warp(x, moved_by(0, 0, batch=2)), x)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1)])
def test_a_single_row_or_column_is_warped(size):
    x = torch.rand(1, 2, *size)
    torch.testing.assert_close(warp(x, moved_by(0, 0, size)), x)


def test_flow_points_to_the_right_and_down_from_where_it_stands():
    x = torch.rand(1, 3, 6, 8)
    warped = warp(x, moved_by(2, 1))
    torch.testing.assert_close(warped[..., :5, :6], x[..., 1:, 2:])


def test_outside_is_zero_or_the_nearest_cell():
    x = torch.rand(1, 3, 6, 8) + 1
    far = moved_by(100, 0)
    assert warp(x, far).abs().max() == 0
    torch.testing.assert_close(warp(x, far, padding="border"), x[..., -1:].expand_as(x))


def test_flow_that_marks_the_unknown_reads_nothing():
    assert warp(torch.ones(1, 1, 6, 8), moved_by(1e10, -1e10)).abs().max() == 0


def test_half_a_cell_is_the_mean_of_two():
    x = torch.rand(1, 1, 6, 8)
    expected = (x[..., :-1] + x[..., 1:]) / 2
    torch.testing.assert_close(warp(x, moved_by(0.5, 0))[..., :-1], expected)


def test_without_aligned_corners_no_motion_is_not_the_identity():
    x = torch.rand(1, 1, 6, 8)
    assert (warp(x, moved_by(0, 0), align_corners=False) - x).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_warped_to_the_right_place(dtype):
    """A ramp shows where each cell reads: rounded places would be off by half a cell."""
    ramp = torch.linspace(0, 1, 200).expand(1, 1, 2, 200)
    warped = warp(ramp.to(dtype), moved_by(10, 0, (2, 200)).to(dtype))
    assert warped.dtype == dtype
    error = (warped.float()[..., :190] - ramp[..., 10:]).abs().max()
    assert error < 0.5 / 200


def test_the_gradient_reaches_the_map_and_the_flow():
    x = torch.rand(1, 2, 6, 8, requires_grad=True)
    flow = moved_by(0.3, 0.2).requires_grad_()
    warp(x, flow).square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert flow.grad.abs().sum() > 0


def test_flow_of_another_grid_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 4\) cannot warp a map of \(6, 8\): resize_flow"):
        warp(torch.rand(1, 2, 6, 8), moved_by(0, 0, (3, 4)))


def test_flow_in_pixels_becomes_flow_in_cells_of_a_grid():
    flow = moved_by(8, 4, (48, 64))
    torch.testing.assert_close(resize_flow(flow, (6, 16), (48, 64)), moved_by(2, 0.5, (6, 16)))


def test_a_coarse_grid_of_pixels_says_the_same_as_a_fine_one():
    coarse = moved_by(8, 4, (5, 7))
    fine = moved_by(8, 4, (48, 64))
    found = resize_flow(coarse, (12, 16), cells_of=(48, 64))
    torch.testing.assert_close(found, resize_flow(fine, (12, 16), cells_of=(48, 64)))
