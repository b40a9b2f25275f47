"""Attention that is told where things were (models/parts/correspondence.py)."""

import pytest
import torch

from models.parts.correspondence import FAR, correspondence_loss, trace_positions

CELLS, STRIDE = (6, 10), 8
IMAGE = tuple(STRIDE * n for n in CELLS)


def flow_of(x: float, y: float, frames: int = 1) -> torch.Tensor:
    """Every pixel was (x, y) pixels away, in each of the frames before."""
    flows = torch.zeros(1, frames, 2, *IMAGE)
    flows[:, :, 0], flows[:, :, 1] = x, y
    return flows


def maps(count: int = 1) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [
        8 * torch.nn.functional.normalize(torch.randn(1, 16, *CELLS), dim=1) for _ in range(count)
    ]


def test_without_motion_everything_was_where_it_is():
    y, x = torch.meshgrid(*(torch.arange(n).float() for n in CELLS), indexing="ij")
    for place in trace_positions(flow_of(0, 0, 3), CELLS):
        assert torch.allclose(place[0], torch.stack([x, y]), atol=1e-4)


def test_motion_adds_up_from_frame_to_frame_and_what_left_stays_away():
    newer, older = trace_positions(flow_of(-STRIDE, 2 * STRIDE, 2), CELLS)
    assert newer[0, :, 1, 4].tolist() == pytest.approx([3, 3]) and older[
        0, :, 1, 4
    ].tolist() == pytest.approx([2, 5])
    assert (newer[0, 0, :, 0] > CELLS[1]).all()  # to the left of the first column there is no image
    assert older[0, 0, 1, 1] == pytest.approx((FAR + 0.5) / STRIDE - 0.5, rel=1e-3)


def test_flow_that_differs_from_place_to_place_is_followed_where_it_leads():
    flows = flow_of(STRIDE, 0, 2)
    flows[:, 0, 0, :, 5 * STRIDE :] = (
        2 * STRIDE
    )  # the older flow, right of the middle: twice as fast
    older = list(trace_positions(flows, CELLS))[1]
    assert older[0, 0, 2, 1] == pytest.approx(3) and older[0, 0, 2, 5] == pytest.approx(8)


def test_attention_to_the_right_cells_costs_little_and_to_wrong_ones_much():
    (old,) = maps()
    seen = torch.roll(old, (1, 2), (2, 3))  # content moved 1 down and 2 to the right since
    was = flow_of(-2 * STRIDE, -STRIDE)
    right, wrong = (
        correspondence_loss(seen, [old], was, 5),
        correspondence_loss(seen, [old], -was, 5),
    )
    assert right < 0.1 and wrong > 10


def test_the_order_of_frames_is_that_of_the_memory():
    older, newer = maps(2)
    seen = older + newer
    clip = torch.cat([flow_of(-2 * STRIDE, 0), flow_of(STRIDE, 0)], 1)  # back and forth
    shown = torch.roll(older, 1, 3), torch.roll(newer, -1, 3)
    assert (
        correspondence_loss(seen, [torch.roll(older, -1, 3), torch.roll(newer, 1, 3)], clip, 5)
        < 0.1
    )
    assert correspondence_loss(seen, [*shown], clip, 5) > 1


def test_a_place_between_cells_counts_for_those_around_it():
    flat = [torch.zeros(1, 4, *CELLS)]
    for x in (0, 0.25 * STRIDE, 0.5 * STRIDE):  # equal attention to each of k cells costs log k
        inner = correspondence_loss(flat[0], flat, flow_of(x, 0), 3)
        assert 0 < inner <= torch.tensor(9.0).log() + 1e-6


def test_content_outside_the_window_or_the_map_is_no_lesson():
    query, key = maps(2)
    assert correspondence_loss(query, [key], flow_of(3 * STRIDE, 0), 5) == 0
    assert correspondence_loss(query, [key], flow_of(20 * STRIDE, 0), 21) == 0


def test_it_teaches_both_keys_and_has_no_nan():
    query, key = (x.requires_grad_() for x in maps(2))
    correspondence_loss(query, [key], flow_of(3.0, -14.0), 5).backward()
    for x in (query, key):
        assert x.grad.isfinite().all() and x.grad.abs().sum() > 0


def test_large_maps_are_asked_at_every_nth_cell(monkeypatch):
    query, key = maps(2)
    whole = correspondence_loss(query, [key], flow_of(0, 0), 5)
    monkeypatch.setattr("models.parts.correspondence.CELLS", 30)
    part = correspondence_loss(query, [key], flow_of(0, 0), 5)
    assert part != whole and part == pytest.approx(float(whole), rel=0.5)
