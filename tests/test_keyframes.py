"""Key-frame policies: which frames of a video get a whole network."""

import pytest
import torch

from utils.keyframes import Decision, FixedInterval

FRAME = torch.zeros(1, 3, 4, 6)


def schedule(policy, frames: int) -> list[bool]:
    """Ask as the engine does: the age is 0 right after a key frame, None before the first."""
    keys, age = [], None
    for _ in range(frames):
        keys.append(policy.decide(FRAME, age).key)
        age = 0 if keys[-1] else age + 1
    return keys


@pytest.mark.parametrize("interval", [1, 2, 5])
def test_every_interval_th_frame_is_a_key_frame_the_first_included(interval):
    assert schedule(FixedInterval(interval), 17) == [i % interval == 0 for i in range(17)]


@pytest.mark.parametrize("age", [None, -1])
def test_the_first_frame_is_always_a_key_frame(age):
    assert FixedInterval(1000).decide(FRAME, age) == Decision(True, "first frame")


def test_every_answer_has_a_reason_of_its_own():
    policy = FixedInterval(3)
    answers = [policy.decide(FRAME, age) for age in (None, 0, 1, 2)]
    assert [answer.why for answer in answers] == [
        "first frame",
        "2 of 3",
        "3 of 3",
        "interval of 3",
    ]


def test_two_videos_may_share_one_policy():
    policy = FixedInterval(4)
    first = schedule(policy, 6)
    assert schedule(policy, 6) == first == schedule(FixedInterval(4), 6)


def test_a_key_frame_that_came_late_is_made_up_for():
    assert FixedInterval(3).decide(FRAME, 7).key


@pytest.mark.parametrize("interval", [0, -2])
def test_an_interval_below_one_is_refused(interval):
    with pytest.raises(ValueError, match=f"at least 1, got {interval}"):
        FixedInterval(interval)
