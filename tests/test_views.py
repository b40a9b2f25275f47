"""Views: what holds of padding, mirroring, scales and windows, whatever the network."""

import gc

import numpy as np
import pytest
import torch

from utils.views import IMAGENET_MEAN, Views, pad_edges, resize_scores
from view_toys import CLASSES, ByPixel, BySurroundings, Multiple, clip

# Windows


def test_windows_cover_every_pixel_lie_inside_and_default_to_two_thirds():
    canvas = Views(Multiple(), crop=(10, 7)).plan((31, 24)).canvases[0]
    assert sorted({w.top for w in canvas.windows}) == [
        0,
        7,
        14,
        21,
    ]  # ceil(20 / 3) = 7, the last shifted back
    assert sorted({w.left for w in canvas.windows}) == [0, 5, 10, 15, 17]  # ceil(14 / 3) = 5
    cover = np.zeros((31, 24), int)
    for window in canvas.windows:
        assert (window.height, window.width) == (10, 7)
        cover[window.top : window.top + 10, window.left : window.left + 7] += 1
    assert cover.shape == canvas.size and cover.min() >= 1


# Padding


@pytest.mark.parametrize("size", [(17, 33), (16, 31), (1, 5), (64, 64)])
@pytest.mark.parametrize("rule", [Multiple(), Multiple(32), Multiple(8, 1)])
def test_one_pass_gives_the_unpadded_logits_untouched(size, rule):
    network, frames = ByPixel(frames=3), clip(*size, frames=3)
    plan = Views(rule).plan(size)
    scores = plan.run(network, frames)
    assert plan.passes == 1 and not plan.probabilities
    assert network.sizes == [(rule.fit(size[0]), rule.fit(size[1]))]
    torch.testing.assert_close(scores, network(0, frames))


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_one_pass_keeps_the_networks_dtype(average):
    frames = clip(8, 8).to(torch.bfloat16)
    plan = Views(Multiple(), average=average).plan((8, 8))
    assert plan.run(lambda i, view: view[:, -1], frames).dtype == torch.bfloat16


def test_padding_repeats_the_edge_at_the_right_and_the_bottom():
    frames = clip(5, 6, frames=2)
    padded = pad_edges(frames, Multiple(4))
    assert padded.shape == (2, 2, 3, 8, 8)
    for y in range(8):
        for x in range(8):
            assert torch.equal(padded[..., y, x], frames[..., min(y, 4), min(x, 5)])


def test_frames_that_fit_are_not_copied():
    frames = clip(8, 8)
    assert pad_edges(frames, Multiple(8)) is frames


def test_a_mirrored_view_is_mirrored_before_it_is_padded():
    seen, frames = [], clip(5, 6)
    Views(Multiple(4), flip=True).plan((5, 6)).run(
        lambda i, view: seen.append(view) or view[:, -1], frames
    )
    torch.testing.assert_close(seen[1], pad_edges(frames.flip(-1), Multiple(4)))


# Any view of a network that looks at single pixels gives what the network gives


@pytest.mark.parametrize(
    "options",
    [
        {"flip": True},
        {"crop": (12, 10)},
        {"crop": (12, 10), "flip": True},
        {"crop": (12, 10), "stride": (5, 10)},
        {"crop": (100, 10), "flip": True},
        {"crop": (100, 120)},
        {"crop": (12, 10), "scales": (1.0, 1.0), "flip": True},
    ],
)
@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("small", ["pad", "whole"])
def test_views_of_a_network_of_single_pixels_change_nothing(options, average, small):
    network, frames = ByPixel(frames=2), clip(29, 43, frames=2)
    plan = Views(Multiple(8, 1), average=average, small=small, **options).plan((29, 43))
    scores = plan.run(network, frames)
    expected = network(0, frames)
    torch.testing.assert_close(scores, expected.softmax(1) if plan.probabilities else expected)


def test_scales_of_a_flat_image_change_nothing():
    network, frames = ByPixel(), torch.full((1, 1, 3, 17, 29), 0.3)
    scores = (
        Views(Multiple(8), scales=(0.5, 1.0, 1.75), flip=True, crop=(9, 9))
        .plan((17, 29))
        .run(network, frames)
    )
    torch.testing.assert_close(scores, network(0, frames).softmax(1))


def test_a_single_scale_other_than_one_is_scaled_and_scaled_back():
    network, frames = BySurroundings(), clip(20, 30)
    plan = Views(Multiple(), scales=(1.5,)).plan((20, 30))
    assert plan.passes == 1 and plan.probabilities
    plan.run(network, frames)
    assert network.sizes == [(30, 45)]


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((1024, 2048), 0.75, (768, 1536)),
        ((720, 960), 1.25, (900, 1200)),
        ((101, 67), 0.5, (50, 33)),
        ((1, 300), 0.5, (1, 150)),
    ],
)
def test_the_long_side_is_rounded_and_the_short_side_follows(size, scale, expected):
    assert Views(Multiple(), scales=(scale,)).plan(size).canvases[0].size == expected


def test_a_small_image_is_bordered_with_the_mean_or_taken_whole():
    seen, frames = [], clip(5, 7)
    Views(Multiple(), crop=(10, 7)).plan((5, 7)).run(
        lambda i, view: seen.append(view) or view[:, -1], frames
    )
    Views(Multiple(), crop=(10, 7), fill=(1, 2, 3)).plan((5, 7)).run(
        lambda i, view: seen.append(view) or view[:, -1], frames
    )
    for view, fill in zip(seen, (IMAGENET_MEAN, (1, 2, 3)), strict=True):
        assert torch.equal(view[..., 2:7, :], frames), (
            "half of five missing rows, rounded down, come before"
        )
        border = torch.tensor(fill, dtype=torch.float32).view(3, 1, 1)
        assert (view[..., :2, :] == border).all() and (view[..., 7:, :] == border).all()
    Views(Multiple(), crop=(10, 7), small="whole").plan((5, 7)).run(
        lambda i, view: seen.append(view) or view[:, -1], frames
    )
    assert torch.equal(seen[-1], frames)


def test_align_corners_is_of_logits_only():
    """semseg resizes probabilities by OpenCV, whatever its network does."""
    network, frames = BySurroundings(), clip(20, 30)
    results = [
        Views(Multiple(), scales=(0.5, 1.0), align_corners=align)
        .plan((20, 30))
        .run(network, frames)
        for align in (False, True)
    ]
    assert torch.equal(*results)


# Passes

OPTIONS = {"scales": (0.5, 1.0), "flip": True, "crop": (12, 10)}


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_each_pass_number_sees_the_same_window_of_every_frame(average):
    """A network with one state per pass, which would notice another size or another place."""
    states, order = {}, []
    grid = torch.rand(1, 1, 3, 23, 31)

    def network(number, view):
        order.append(number)
        previous = states.setdefault(number, view)
        assert torch.equal(previous, view), f"pass {number} looks elsewhere now"
        return view[:, -1]

    views = Views(Multiple(4), average=average, **OPTIONS)
    for _ in range(3):
        views.plan((23, 31)).run(network, grid)
    passes = views.plan((23, 31)).passes
    assert order == [*range(passes)] * 3
    assert len(states) == passes > 10
    assert {tuple(state.shape[-2:]) for state in states.values()} == {(12, 12)}


def test_a_stateful_network_gives_each_pass_its_own_past():
    """Exponential averages over frames, one state per pass, equal the average of the frames' own
    scores."""
    network, video = ByPixel(), clip(23, 31, batch=1, frames=4)
    plan, states = Views(Multiple(4), average="logits", crop=(12, 10)).plan((23, 31)), {}

    def step(number, view):
        states[number] = 0.5 * states.get(number, 0) + network(number, view)
        return states[number]

    for t in range(4):
        scores = plan.run(step, video[:, t : t + 1])
    expected = sum(0.5 ** (3 - t) * network(0, video[:, t : t + 1]) for t in range(4))
    torch.testing.assert_close(scores, expected)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_no_pass_outlives_the_next_one(average):
    """While the network runs, scores exist only as the sums of this canvas and of all canvases."""
    most = 0

    def network(number, view):
        nonlocal most
        scores = [
            x
            for x in gc.get_objects()
            if type(x) is torch.Tensor and x.ndim == 4 and x.shape[1] == CLASSES
        ]
        most = max(most, len(scores))
        return view[:, -1, :1].expand(-1, CLASSES, -1, -1) * 2

    gc.freeze()  # hides what was there before, which is a lot to look through
    try:
        Views(Multiple(), average=average, **OPTIONS).plan((23, 31)).run(network, clip(23, 31))
    finally:
        gc.unfreeze()
    assert most == 2


def test_what_the_network_returned_is_never_written_to():
    kept = {}

    def network(number, view):
        kept[number] = (view[:, -1] * 2, view[:, -1] * 2)
        return kept[number][0]

    for average in ("probabilities", "logits"):
        for options in ({}, {"flip": True}, OPTIONS):
            Views(Multiple(), average=average, **options).plan((23, 31)).run(network, clip(23, 31))
            assert all(torch.equal(*pair) for pair in kept.values())


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_frames_are_never_written_to(average):
    """The network here answers with a piece of the frames themselves."""
    frames = clip(23, 31)
    before = frames.clone()
    for options in ({}, {"flip": True}, OPTIONS):
        Views(Multiple(), average=average, **options).plan((23, 31)).run(
            lambda i, view: view[:, -1], frames
        )
    assert torch.equal(frames, before)


def test_plans_are_kept_per_size_and_bounded():
    views = Views(Multiple(8))
    first = views.plan((23, 31))
    assert views.plan((23, 31)) is first and views.plan((31, 23)) is not first
    for side in range(100):
        views.plan((1, side + 1))
    assert views.plan((23, 31)) is not first


def test_scores_of_the_right_size_are_not_copied():
    scores = torch.randn(2, CLASSES, 7, 9)
    assert resize_scores(scores, (7, 9)) is scores


# Wrong words


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": ()}, "scales"),
        ({"scales": (1.0, 0.0)}, "scales"),
        ({"average": "mean"}, "probabilities, logits"),
        ({"small": "crop"}, "pad, whole"),
        ({"stride": (2, 2)}, "needs a crop"),
        ({"crop": (0, 5)}, "at least 1 x 1"),
        ({"crop": (4, 5), "stride": (5, 5)}, "stride must be from 1"),
        ({"crop": (4, 5), "stride": (4, 0)}, "stride must"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Views(Multiple(), **options)


def test_frames_or_logits_of_another_size_are_refused():
    plan = Views(Multiple(8)).plan((20, 30))
    with pytest.raises(ValueError, match="for frames of \\(20, 30\\), got \\(30, 20\\)"):
        plan.run(ByPixel(), clip(30, 20))
    with pytest.raises(ValueError, match="upsample them first"):
        plan.run(lambda i, view: view[:, -1, :, ::8, ::8], clip(20, 30))
    with pytest.raises(ValueError, match="at least one pixel"):
        Views(Multiple(8)).plan((0, 30))
