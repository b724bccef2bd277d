import math
from itertools import pairwise

import pytest

from dnasm.config import OptimConfig, TrainerConfig
from dnasm.errors import ConfigError
from dnasm.training.schedule import Schedule


def schedule(**changes: float | int | None) -> Schedule:
    values = {"max_steps": 1000, "max_seconds": None, "warmup_steps": 100, "min_lr_ratio": 0.1} | changes
    return Schedule(**values)  # type: ignore[arg-type]


def test_warm_up_then_cosine_by_hand() -> None:
    s = schedule()
    assert s.factor(0, 0.0) == pytest.approx(0.01, rel=1e-3)
    assert s.factor(49, 0.0) == pytest.approx(0.5 * (0.1 + 0.45 * (1 + math.cos(math.pi * 0.049))))
    assert s.factor(500, 0.0) == pytest.approx(0.55)
    assert s.factor(1000, 0.0) == pytest.approx(0.1)
    assert s.factor(5000, 0.0) == pytest.approx(0.1)


def test_the_first_step_learns_and_the_peak_is_nearly_reached() -> None:
    s = schedule(warmup_steps=None)
    factors = [s.factor(step, 0.0) for step in range(1000)]
    assert factors[0] > 0
    assert max(factors) == factors[9] > 0.999
    assert all(a > b for a, b in pairwise(factors[9:]))


def test_by_the_clock_the_rate_ends_at_its_minimum_too() -> None:
    s = schedule(max_seconds=60.0)
    assert s.factor(200, 30.0) == pytest.approx(0.55)
    assert s.factor(200, 60.0) == pytest.approx(0.1)
    assert s.factor(900, 6.0) == s.factor(900, 54.0)  # whichever limit is nearer counts
    assert schedule(max_seconds=60.0, warmup_steps=None).factor(1, 0.3) == pytest.approx(0.5, abs=0.01)


def test_progress_goes_from_0_to_1() -> None:
    s = schedule(max_seconds=60.0)
    assert [s.progress(*at) for at in ((0, 0.0), (500, 0.0), (0, 15.0), (2000, 90.0))] == [0, 0.5, 0.25, 1]


@pytest.mark.parametrize(
    ("optim", "trainer", "name"),
    [
        (OptimConfig(), TrainerConfig(max_steps=0), "trainer.max_steps"),
        (OptimConfig(), TrainerConfig(max_minutes=0.0), "trainer.max_minutes"),
        (OptimConfig(warmup_steps=-1), TrainerConfig(), "optim.warmup_steps"),
        (OptimConfig(min_lr_ratio=1.5), TrainerConfig(), "optim.min_lr_ratio"),
    ],
)
def test_settings_out_of_range_are_named(optim: OptimConfig, trainer: TrainerConfig, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        Schedule.of(optim, trainer)


def test_minutes_become_seconds() -> None:
    assert Schedule.of(OptimConfig(), TrainerConfig(max_minutes=2.0)).max_seconds == 120
