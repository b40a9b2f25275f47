"""Clips made of videos: which frames, which labels, and the same for any number of workers."""

import random
from functools import partial
from itertools import chain

import torch

from datasets.clip import ClipDataset
from datasets.labels import LabelSet, default_palette
from datasets.photometric import Photometric
from datasets.transforms import Compose, RandomCrop, RandomFlip, RandomScale, RandomShift
from disk import drive, ids, picture

SMALL = LabelSet(("a", "b", "c"), default_palette(3))


def dataset(tmp_path, **options) -> ClipDataset:
    videos = [drive(tmp_path, "a", 4, range(4)), drive(tmp_path, "b", 5, {0, 2, 4})]
    return ClipDataset(videos, SMALL, options.pop("transform", lambda clip, rng: clip), **options)


def frame_numbers(clip) -> list[int]:
    """Which of the five pictures each frame of a clip is."""
    known = {picture(i).tobytes(): i for i in range(5)}
    frames = (clip.frames.permute(0, 2, 3, 1) * 255).round().byte().numpy()  # (T, H, W, 3)
    return [known[frame.tobytes()] for frame in frames]


def past_two(past):
    return tuple(offset for offset in (-2, -1) if -offset <= past)


def test_clips_end_with_the_labelled_frame_and_start_with_what_exists(tmp_path):
    clips = dataset(tmp_path, startup=past_two)
    assert [(clip.name, frame_numbers(clip)) for clip in clips] == [
        ("a/000", [0]),
        ("a/001", [0, 1]),
        ("a/002", [0, 1, 2]),
        ("a/003", [1, 2, 3]),
        ("b/000", [0]),
        ("b/002", [0, 1, 2]),
        ("b/004", [2, 3, 4]),
    ]
    clip = clips[5]
    assert (clip.labels[0] == torch.from_numpy(ids(0))).all()
    assert (clip.labels[1] == 255).all(), "b/001 has no label"
    assert (clip.labels[2] == torch.from_numpy(ids(2))).all()
    assert clip.labels.dtype == torch.int64
    assert clip.flows is None and (clip.video, clip.index) == (1, 2)


def test_training_clips_stop_at_the_ends_of_the_video(tmp_path):
    clips = dataset(tmp_path, draw=lambda rng: (-3, 2))
    assert frame_numbers(clips[0]) == [0, 2, 0] and frame_numbers(clips[3]) == [0, 3, 3]


def test_stepping_gives_every_frame_in_order(tmp_path):
    clips = dataset(tmp_path, startup=past_two)
    assert not clips.dense and ClipDataset(clips.videos[:1], SMALL, clips.transform).dense
    steps = ClipDataset(clips.videos, SMALL, clips.transform, step=True)
    found = [(clip.video, clip.index, *frame_numbers(clip)) for clip in steps]
    assert found == [(0, i, i) for i in range(4)] + [(1, i, i) for i in range(5)]
    assert [bool((clip.labels == 255).all()) for clip in steps] == [False] * 5 + [True, False] * 2


AUGMENTED = Compose(
    [
        RandomScale(0.7, 1.5, "pil"),
        RandomFlip(0.5),
        RandomShift(2),
        RandomCrop((20, 20), 0.75),
        Photometric(),
    ]
)


def unbatched(clips):
    return clips


def jitter(rng: random.Random):
    return (rng.choice((-2, -1)),)


def test_items_do_not_depend_on_workers_or_order(tmp_path):
    clips = dataset(tmp_path, transform=AUGMENTED, draw=jitter, seed=3)
    keys = [(index, epoch) for epoch in (0, 1) for index in range(len(clips))]
    load = partial(torch.utils.data.DataLoader, clips, batch_size=3, collate_fn=unbatched)
    alone = list(chain.from_iterable(load(sampler=keys)))
    loader = load(sampler=keys[::-1], num_workers=2, multiprocessing_context="fork")
    by_workers = list(chain.from_iterable(loader))[::-1]
    for a, b in zip(alone, by_workers, strict=True):
        assert a.name == b.name
        assert torch.equal(a.frames, b.frames) and torch.equal(a.labels, b.labels)
    pairs = zip(alone[: len(clips)], alone[len(clips) :], strict=True)
    differs = [not torch.equal(first.frames, second.frames) for first, second in pairs]
    # a draw may come out the same by chance
    assert sum(differs) >= len(clips) - 1, "another epoch draws anew"
    other = dataset(tmp_path, transform=AUGMENTED, draw=jitter, seed=4)
    assert not torch.equal(other[0].frames, clips[0].frames)
