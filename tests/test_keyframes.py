"""Key-frame policies: which frames of a video get a whole network."""

import pytest
import torch

from models.single import SingleFrame
from toys import ToyBackbone
from utils.keyframes import Decision, FixedInterval, FrameContext
from utils.stepper import Stepper
from utils.views import Views

FRAME = torch.zeros(1, 3, 4, 6)


def schedule(policy, frames: int) -> list[bool]:
    """Ask as the engine does: the age is 0 right after a key frame, None before the first."""
    keys, age = [], None
    for _ in range(frames):
        keys.append(policy.decide(FrameContext(FRAME, age)).key)
        age = 0 if keys[-1] else age + 1
    return keys


@pytest.mark.parametrize("interval", [1, 2, 5])
def test_every_interval_th_frame_is_a_key_frame_the_first_included(interval):
    assert schedule(FixedInterval(interval), 17) == [i % interval == 0 for i in range(17)]


@pytest.mark.parametrize("age", [None, -1])
def test_the_first_frame_is_always_a_key_frame(age):
    assert FixedInterval(1000).decide(FrameContext(FRAME, age)) == Decision(True, "first frame")


def test_every_answer_has_a_reason_of_its_own():
    policy = FixedInterval(3)
    answers = [policy.decide(FrameContext(FRAME, age)) for age in (None, 0, 1, 2)]
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
    assert FixedInterval(3).decide(FrameContext(FRAME, 7)).key


@pytest.mark.parametrize("interval", [0, -2])
def test_an_interval_below_one_is_refused(interval):
    with pytest.raises(ValueError, match=f"at least 1, got {interval}"):
        FixedInterval(interval)


class Watching:
    """A policy that keeps what it is shown; every third frame is a key."""

    def __init__(self):
        self.contexts = []

    def decide(self, context: FrameContext) -> Decision:
        self.contexts.append(context)
        key = len(self.contexts) % 3 == 1
        return Decision(key, f"frame {len(self.contexts)}")


def test_a_policy_sees_frame_age_flow_time_and_cost_and_its_reason_is_recorded():
    model = SingleFrame(ToyBackbone(5)).eval()
    asked = []

    def provider(frame, previous):
        asked.append((frame, previous))
        return torch.zeros(1, 2, *frame.shape[-2:])

    policy = Watching()
    stepper = Stepper(
        model,
        Views(model.size_rule),
        torch.autocast("cpu", enabled=False),
        flow=provider,
        policy=policy,
    )
    frames = torch.rand(5, 1, 3, 8, 12)
    reasons = []
    for frame in frames:
        stepper(frame)
        reasons.append(stepper.decision.why)
    assert reasons == [f"frame {n}" for n in (1, 2, 3, 4, 5)]
    contexts = policy.contexts
    assert [context.age for context in contexts] == [None, 0, 1, 2, 0]
    assert contexts[0].previous is None and contexts[0].flow is None
    assert contexts[0].elapsed is None and contexts[0].cost == 0
    for t in range(1, 5):
        assert torch.equal(contexts[t].previous, frames[t - 1])
        assert contexts[t].elapsed > 0 and contexts[t].cost > contexts[t - 1].cost
    before = len(asked)
    assert contexts[2].flow.shape == (1, 2, 8, 12)
    assert contexts[2].flow is contexts[2].flow and len(asked) == before + 1, "computed when asked"
    assert torch.equal(asked[-1][1], frames[1])
    stepper.reset()
    stepper(frames[0])
    assert policy.contexts[-1].age is None and policy.contexts[-1].previous is None
