"""Flow in colour (utils/output/flow_pictures.py)."""

import numpy as np
import pytest
import torch

from utils.output.flow_pictures import flow_picture


def test_no_motion_is_white_and_directions_have_colours_of_their_own():
    flow = torch.zeros(2, 3, 3)
    flow[0, 0, 0] = 4
    flow[0, 2, 2] = -4
    shown = flow_picture(flow)
    assert shown.shape == (3, 3, 3)
    assert shown.dtype == np.uint8
    assert shown[1, 1].tolist() == [255, 255, 255]
    right, left = shown[0, 0].astype(int), shown[2, 2].astype(int)
    assert right[0] > right[2] and left[2] > left[0]  # red to the right, blue to the left


def test_a_given_length_makes_pictures_comparable():
    slow = torch.zeros(2, 3, 4)
    slow[0, 0, 0] = 2
    fast = slow.clone()
    fast[0, 2, 3] = 8
    pictures = [flow_picture(flow, longest=8.0) for flow in (slow, fast)]
    assert pictures[0].shape == (3, 4, 3)
    assert pictures[0][0, 0].tolist() == pictures[1][0, 0].tolist()
    own = [flow_picture(flow) for flow in (slow, fast)]
    assert own[0][0, 0].tolist() != own[1][0, 0].tolist()


def test_longer_motion_than_shown_has_the_full_colour():
    flow = torch.zeros(2, 1, 2)
    flow[0, 0] = torch.tensor([8.0, 80.0])
    shown = flow_picture(flow, longest=8.0)
    assert np.abs(shown[0, 0].astype(int) - shown[0, 1]).max() <= 1


def test_a_picture_of_anything_but_flow_is_refused():
    with pytest.raises(
        ValueError, match=r"float tensor \(2, H, W\), got torch.float32 \(3, 4, 4\)"
    ):
        flow_picture(torch.zeros(3, 4, 4))
