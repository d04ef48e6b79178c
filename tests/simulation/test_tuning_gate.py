"""The gate lets through what is better beyond chance, and nothing that is paid for elsewhere."""

import math
import random

import pytest

from flowos.simulation.tuning.episode import Metrics
from flowos.simulation.tuning.gate import Objective, judge, paired, quantile_t

USUAL = Metrics(10.0, 2.0, 20.0, 1.0, 0.0)
SEEDS = range(20)


def logs(seed, *, spread=0.2, **factors):
    """What each of 20 logs comes to: all metrics of a log go up and down together."""
    rng = random.Random(seed)
    made = []
    for _ in SEEDS:
        size = 1 + spread * rng.gauss(0, 1)
        own = Metrics(*(value * size * (1 + 0.01 * rng.gauss(0, 1)) for value in USUAL))
        made.append(own._replace(**{k: getattr(own, k) * f for k, f in factors.items()}))
    return made


def test_quantiles_of_students_t_are_those_of_the_tables():
    table = {1: 12.7062, 2: 4.3027, 5: 2.5706, 10: 2.2281, 19: 2.0930, 39: 2.0227, 1000: 1.9623}
    for freedom, quantile in table.items():
        assert quantile_t(0.975, freedom) == pytest.approx(quantile, abs=1e-4)


def test_an_interval_of_pairs_sees_through_what_both_have_in_common():
    before = [100.0, 10.0, 55.0, 1.0]
    interval = paired(before, [x - 2 + d for x, d in zip(before, (0.1, -0.1, 0.2, 0), strict=True)])
    # By hand: mean -1.95, deviation 0.12910, t 3.18245 of 3 degrees, half 0.20543.
    assert interval == pytest.approx((-1.95, -2.15543, -1.74457), abs=1e-4)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = random.Random(1)
    hits = 0
    for _ in range(1000):
        low, high = paired([0.0] * 8, [rng.gauss(1, 2) for _ in range(8)])[1:]
        hits += low <= 1 <= high
    assert 0.93 <= hits / 1000 <= 0.97


def test_what_is_better_everywhere_is_adopted():
    verdict = judge(SEEDS, logs(1), logs(1, wait_s=0.8))
    assert verdict.adopted
    assert verdict.gain.high < 0
    assert verdict.metrics["wait_s"].worse == pytest.approx(-0.2)
    assert verdict.sentence.startswith("better: J changes by -0.0")


def test_noise_is_seldom_adopted():
    adopted = sum(
        judge(SEEDS, logs(seed, spread=0), logs(seed + 1000, spread=0)).adopted
        for seed in range(200)
    )
    assert adopted <= 12  # 2.5 % are expected


def test_one_metric_that_falls_too_far_keeps_the_default():
    before, after = logs(1), logs(1, wait_s=0.5, kilojoules=1.06)
    refused = judge(SEEDS, before, after)
    assert refused.gain.high < 0
    assert not refused.adopted
    assert "kilojoules +6.0 %" in refused.sentence
    assert judge(SEEDS, before, after, max_worse=0.07).adopted


def test_a_metric_that_was_never_there_may_not_appear():
    after = [m._replace(unplaced=0.01) for m in logs(1, wait_s=0.5)]
    verdict = judge(SEEDS, logs(1), after)
    assert not verdict.adopted
    assert math.isinf(verdict.metrics["unplaced"].worse)
    assert "unplaced appears" in verdict.sentence


def test_worse_beyond_chance_is_kept_out_like_chance():
    verdict = judge(SEEDS, logs(1), logs(1, wait_s=1.03))
    assert not verdict.adopted
    assert "not better beyond chance" in verdict.sentence


def test_the_default_costs_one_whatever_the_units():
    usual = [m._replace(kilojoules=m.kilojoules * 1e6) for m in logs(3)]
    objective = Objective.of(usual)
    mean = sum(objective.cost(m) for m in usual) / len(usual)
    assert mean == pytest.approx(1.0)
