"""Learning rates: published values, torch's own schedulers, resuming."""

import json
import math
import random

import pytest
import torch

from golden import case
from utils.training.schedules import NAMES, PLATEAUS, Schedule


def optimizer(*rates: float) -> torch.optim.Optimizer:
    """An optimizer with one parameter group per learning rate."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=1.0)


def rates_of(schedule: Schedule) -> list[float]:
    return [group["lr"] for group in schedule.optimizer.param_groups]


def train(schedule: Schedule, losses: list[float], first: int = 1) -> list[list[float]]:
    """The rates of every step of the epochs whose training losses are given."""
    seen = []
    for epoch, loss in enumerate(losses, first):
        for step in range(schedule.steps_per_epoch):
            schedule.before_step(epoch, step)
            seen.append(rates_of(schedule))
        schedule.after_epoch(epoch, loss)
    return seen


def noisy_losses(count: int) -> list[float]:
    """Losses that fall, with rises around the threshold below which torch sees no progress."""
    rng = random.Random(1)
    return [
        1 + math.exp(-epoch / 8) + rng.choice([0.0, 5e-5, 1e-3, 0.1]) * rng.random()
        for epoch in range(count)
    ]


# Published values


@pytest.mark.parametrize("name", PLATEAUS)
def test_plateau_gives_the_rates_of_lmanet(name):
    info = case("lma/lr_schedules").info
    losses = info["loss_series"]
    schedule = Schedule(optimizer(info["start_lr"]), name, epochs=len(losses), steps_per_epoch=1)
    ours = [rates[0] for rates in train(schedule, losses)]
    assert ours == info["lr_used_in_epoch"][name]
    assert len(set(ours)) > 1, "the case never reduces the rate"


def test_poly_gives_the_rates_of_tmanet():
    info = case("tma/poly_lr").info
    config = info["config"]
    for key, expected in info["lr"].items():
        iterations, iteration = map(int, key.split("/"))
        schedule = Schedule(
            optimizer(config["base"]),
            "poly",
            epochs=iterations // 100,
            steps_per_epoch=100,
            power=config["power"],
            min_lr=config["min_lr"],
        )
        schedule.before_step(1 + iteration // 100, iteration % 100)
        assert schedule.lr == pytest.approx(expected, rel=1e-12)


def test_poly_with_warmup_gives_the_rates_of_mrcfa_in_both_groups():
    expected = case("mrcfa/training_schedule").info["lr_schedule"]
    schedule = Schedule(
        optimizer(6e-5, 6e-4),
        "poly",
        epochs=160,
        steps_per_epoch=1000,
        power=1.0,
        warmup_steps=1500,
        warmup_ratio=1e-6,
    )
    for key, rates in expected.items():
        if key != "iter":
            schedule.before_step(1 + int(key) // 1000, int(key) % 1000)
            assert rates_of(schedule) == pytest.approx(rates, rel=1e-9), f"iteration {key}"


# Formulas


@pytest.mark.parametrize(("name", "power"), [("pow_07", 0.7), ("pow_09", 0.9)])
def test_pow_falls_by_epoch_from_the_base_rate_to_the_last_share(name, power):
    schedule = Schedule(optimizer(2e-4), name, epochs=8, steps_per_epoch=3)
    rates = [rate for (rate,) in train(schedule, [1.0] * 8)]
    assert rates == pytest.approx([2e-4 * (1 - e / 8) ** power for e in range(8) for _ in range(3)])


@pytest.mark.parametrize("epochs", [20, 50, 120])
def test_pow_09_b_reaches_its_floor_at_epoch_50(epochs):
    schedule = Schedule(optimizer(1.0), "pow_09_b", epochs=epochs, steps_per_epoch=1)
    rates = [rate for (rate,) in train(schedule, [1.0] * epochs)]
    falling = [(1 - (e - 1) / min(epochs, 50)) ** 0.9 for e in range(1, min(epochs, 49) + 1)]
    expected = falling + [0.02**0.9] * (epochs - len(falling))
    assert rates == pytest.approx(expected)


def test_step_is_torchs_step_scheduler_stepped_per_iteration():
    schedule = Schedule(
        optimizer(2e-3, 2e-2), "step", epochs=5, steps_per_epoch=70, gamma=0.992, every=100
    )
    reference = optimizer(2e-3, 2e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(reference, 100, 0.992)
    expected = []
    for _ in range(350):
        expected.append([group["lr"] for group in reference.param_groups])
        reference.step()
        scheduler.step()
    for ours, theirs in zip(train(schedule, [1.0] * 5), expected, strict=True):
        assert ours == pytest.approx(theirs)


@pytest.mark.parametrize("name", PLATEAUS)
def test_plateau_is_torchs_plateau_scheduler_down_to_the_lowest_rate(name):
    """1500 epochs: the rate falls until its reductions are smaller than torch's eps.

    A loss that is nan counts as no progress.
    """
    factor, lowest = PLATEAUS[name]
    losses = [*noisy_losses(300), math.nan, *[1.0] * 1200]
    schedule = Schedule(optimizer(2e-4, 1e-6), name, epochs=len(losses), steps_per_epoch=1)
    reference = optimizer(2e-4, 1e-6)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        reference, "min", factor=factor, min_lr=lowest
    )
    expected = []
    for loss in losses:
        expected.append([group["lr"] for group in reference.param_groups])
        scheduler.step(loss)
    ours = train(schedule, losses)
    assert ours == expected
    assert ours[-1] == ours[-20], "the case should reach the lowest rate"


def test_constant_stays():
    schedule = Schedule(optimizer(0.1, 0.3), "constant", epochs=2, steps_per_epoch=4)
    assert train(schedule, [1.0, 2.0]) == [[0.1, 0.3]] * 8


def test_poly_ends_at_min_lr_and_stays_there():
    schedule = Schedule(optimizer(0.1), "poly", epochs=2, steps_per_epoch=5, min_lr=0.01)
    for epoch, step in ((3, 0), (4, 4)):
        schedule.before_step(epoch, step)
        assert schedule.lr == pytest.approx(0.01)


def test_min_lr_is_the_same_for_every_group():
    schedule = Schedule(
        optimizer(0.1, 1.0), "poly", epochs=1, steps_per_epoch=10, power=1.0, min_lr=0.01
    )
    schedule.before_step(1, 5)
    assert rates_of(schedule) == pytest.approx([0.09 / 2 + 0.01, 0.99 / 2 + 0.01])


# Laws


@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_begins_at_the_base_rates_and_keeps_their_ratio(name):
    schedule = Schedule(optimizer(1e-3, 1e-2), name, epochs=40, steps_per_epoch=2, every=3)
    seen = train(schedule, [1.0] * 40)
    assert seen[0] == [1e-3, 1e-2]
    assert all(second == pytest.approx(10 * first) for first, second in seen)
    assert (seen[-1] != seen[0]) == (name != "constant")


@pytest.mark.parametrize("name", NAMES)
def test_warmup_rises_in_a_line_to_the_strategys_own_rate(name):
    options = {"epochs": 10, "steps_per_epoch": 4, "every": 3}
    plain = train(Schedule(optimizer(1.0), name, **options), [1.0] * 10)
    schedule = Schedule(optimizer(1.0), name, **options, warmup_steps=8, warmup_ratio=0.1)
    warm = train(schedule, [1.0] * 10)
    factors = [a / b for (a,), (b,) in zip(warm, plain, strict=True)]
    assert factors == pytest.approx([*(0.1 + 0.9 * i / 8 for i in range(8)), *[1.0] * 32])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stop", [1, 13, 25])
def test_a_resumed_training_has_the_rates_of_an_uninterrupted_one(name, stop):
    options = {"epochs": 40, "steps_per_epoch": 3, "warmup_steps": 50}
    losses = [1.0] * 40
    whole = train(Schedule(optimizer(1e-3, 1e-2), name, **options), losses)
    first = Schedule(optimizer(1e-3, 1e-2), name, **options)
    seen = train(first, losses[:stop])
    # Plain values survive JSON.
    saved = json.loads(json.dumps({"schedule": first.state_dict()}))
    groups = first.optimizer.state_dict()

    second = Schedule(optimizer(1e-3, 1e-2), name, **options)
    second.optimizer.load_state_dict(groups)
    second.load_state_dict(saved["schedule"])
    assert seen + train(second, losses[stop:], stop + 1) == whole


def test_a_schedule_made_after_the_optimizer_was_restored_keeps_the_first_base_rates():
    first = Schedule(optimizer(1e-2), "poly", epochs=2, steps_per_epoch=2)
    train(first, [1.0])
    restored = optimizer(1e-2)
    restored.load_state_dict(first.optimizer.state_dict())
    second = Schedule(restored, "poly", epochs=2, steps_per_epoch=2)
    assert second.base_rates == [1e-2]


def test_after_an_epoch_lr_is_still_the_one_used_in_it():
    schedule = Schedule(optimizer(1.0), "plateau_05", epochs=20, steps_per_epoch=1)
    train(schedule, [1.0] * 12)
    assert schedule.lr == 1.0
    schedule.before_step(13, 0)
    assert schedule.lr == 0.5


# Arguments that are refused


def test_an_unknown_strategy_is_refused_with_the_list():
    with pytest.raises(ValueError) as error:
        Schedule(optimizer(1.0), "cosine", epochs=1, steps_per_epoch=1)
    assert "'cosine'" in str(error.value) and all(name in str(error.value) for name in NAMES)


@pytest.mark.parametrize("word", ["epochs", "steps_per_epoch", "every"])
def test_counts_below_one_are_refused(word):
    with pytest.raises(ValueError, match=f"{word} must be at least 1, got 0"):
        Schedule(optimizer(1.0), "poly", **{"epochs": 1, "steps_per_epoch": 1, word: 0})


@pytest.mark.parametrize(("epoch", "step"), [(0, 0), (1, -1)])
def test_epochs_count_from_one(epoch, step):
    with pytest.raises(ValueError, match="epochs count from 1"):
        Schedule(optimizer(1.0), "poly", epochs=1, steps_per_epoch=1).before_step(epoch, step)


def test_a_plateau_refuses_an_epoch_twice():
    schedule = Schedule(optimizer(1.0), "plateau_08", epochs=5, steps_per_epoch=1)
    schedule.after_epoch(2, 1.0)
    with pytest.raises(ValueError, match="epoch 2 came after"):
        schedule.after_epoch(2, 1.0)


def test_a_state_of_another_strategy_or_another_number_of_groups_is_refused():
    saved = Schedule(optimizer(1.0), "plateau_08", epochs=5, steps_per_epoch=1).state_dict()
    with pytest.raises(ValueError, match="plateau_08, not plateau_03"):
        Schedule(optimizer(1.0), "plateau_03", epochs=5, steps_per_epoch=1).load_state_dict(saved)
    two_groups = Schedule(optimizer(1.0, 2.0), "plateau_08", epochs=5, steps_per_epoch=1)
    with pytest.raises(ValueError, match="1 parameter groups, this training has 2"):
        two_groups.load_state_dict(saved)
