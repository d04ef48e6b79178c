"""The search finds weights that are better where there are any, and says so where there are none."""

import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flowos.documents.presets import file_or_preset
from flowos.model.errors import SpecError
from flowos.planning.engines.weights import DEFAULT, Weights
from flowos.simulation.tuning.adapter import TuningEnvironment
from flowos.simulation.tuning.episode import Metrics
from flowos.simulation.tuning.gate import IMPORTANCE
from flowos.simulation.tuning.report import document, markdown, summary
from flowos.simulation.tuning.search import Effort, decoded, encoded, tune
from flowos.simulation.tuning.trials import Trial, Trials
from flowos.simulation.tuning.workload import Figures, Synthetic

LITTLE = Synthetic.on(file_or_preset("fic-small"), Figures(slices=40))


class Invented(Trials):
    """Metrics by a known law instead of episodes: waits depend on some weights, and on the seed."""

    def __init__(self, law, *, stop_at=0):
        super().__init__(LITTLE)
        self.law = law
        self.stop_at = stop_at
        self.asked = []

    def play(self, trials):
        self.asked.append(trials)
        if len(self.asked) == self.stop_at:
            raise KeyboardInterrupt
        return [self.law(trial) for trial in trials]


def metrics(wait_s, **more):
    return Metrics(wait_s, 1.0, 10.0, 1.0, 0.0)._replace(**more)


def luck(trial):
    """Of a seed, whatever the weights are."""
    return random.Random(f"{trial.seed} {trial.held_out}").uniform(5, 15)


def valley(trial):
    """Least where idling counts four times as much as waking; nothing else matters."""
    ratio = encoded(trial.weights.idle) - encoded(trial.weights.wake)
    return metrics(luck(trial) * (1 + 0.1 * abs(ratio - 2)))


def test_weights_that_are_better_are_found_and_adopted():
    tuned = tune(Invented(valley), Effort(generations=25))
    assert tuned.verdict.adopted
    # Only ratios are searched: the first weight that matters stays, and is the unit.
    assert tuned.chosen.wake == DEFAULT.wake
    assert tuned.chosen.idle / tuned.chosen.wake == pytest.approx(4, rel=0.01)
    assert tuned.verdict.metrics["wait_s"].worse < -0.1
    assert set(tuned.inert) == set(Weights._fields) - {"wake", "idle"}
    left_alone = list(tuned.inert)
    assert [getattr(tuned.chosen, n) for n in left_alone] == [
        getattr(DEFAULT, n) for n in left_alone
    ]


def test_logs_to_judge_by_are_never_searched_on():
    trials = Invented(valley)
    tune(trials, Effort(generations=3))
    searched = [trial for batch in trials.asked[:5] for trial in batch]
    judged = [trial for batch in trials.asked[5:] for trial in batch]
    assert not any(trial.held_out for trial in searched)
    assert all(trial.held_out for trial in judged)
    assert {trial.shift for trial in judged} == {"", *LITTLE.shifts()}


def test_all_candidates_of_a_generation_get_the_same_logs_and_each_generation_new_ones():
    trials = Invented(valley)
    tune(trials, Effort(generations=3, episodes=2))
    generations = trials.asked[1:4]
    seeds = [sorted({trial.seed for trial in batch}) for batch in generations]
    assert [len(found) for found in seeds] == [2, 2, 2]
    assert len({seed for found in seeds for seed in found}) == 6
    for batch, found in zip(generations, seeds, strict=True):
        weights = {trial.weights for trial in batch}
        assert DEFAULT in weights
        assert sorted(batch) == sorted(Trial(w, seed) for w in weights for seed in found)


def test_the_finals_are_on_logs_of_their_own_and_the_default_takes_part():
    trials = Invented(valley)
    tuned = tune(trials, Effort(generations=3, finals=6))
    searched = {trial.seed for batch in trials.asked[:4] for trial in batch}
    finals = trials.asked[4]
    assert len({trial.seed for trial in finals}) == 6
    assert searched.isdisjoint(trial.seed for trial in finals)
    assert {DEFAULT, tuned.weights} <= {trial.weights for trial in finals}


def test_a_search_that_only_found_luck_comes_back_to_the_default():
    def law(trial):
        lucky = trial.weights != DEFAULT and trial.seed % 1_000_000 < 9
        return metrics(luck(trial) * (0.9 if lucky else 1 + 0.01 * (trial.weights != DEFAULT)))

    tuned = tune(Invented(law), Effort(generations=2))
    assert tuned.weights == DEFAULT
    assert tuned.verdict.sentence == "kept the default: nothing better was found"


def test_noise_keeps_the_default():
    rng = random.Random(1)
    tuned = tune(Invented(lambda _: metrics(rng.uniform(9, 11))), Effort(generations=4))
    assert tuned.chosen == DEFAULT
    assert tuned.verdict.sentence.startswith("kept the default: ")


def test_what_is_bought_with_too_much_of_something_else_keeps_the_default():
    def law(trial):
        share = encoded(trial.weights.idle) / 10
        return metrics(luck(trial) * (2 - share), kilojoules=10 * (1 + share / 10))

    tuned = tune(Invented(law), Effort(generations=10))
    assert tuned.verdict.gain.high < 0
    assert tuned.chosen == DEFAULT
    assert "kilojoules" in tuned.verdict.sentence


def test_weights_that_make_no_difference_keep_the_default():
    tuned = tune(Invented(lambda trial: metrics(luck(trial))))
    assert tuned.weights == DEFAULT
    assert tuned.verdict.sentence == (
        "kept the default: none of the weights makes a difference on these logs"
    )


def test_a_weight_whose_extremes_are_alike_is_still_searched():
    tuned = tune(
        Invented(lambda t: metrics(luck(t) * (1.1 - 0.1 * (t.weights.idle == DEFAULT.idle)))),
        Effort(generations=1),
    )
    assert "idle" not in tuned.inert


def test_an_interrupted_search_judges_what_it_has():
    early = tune(Invented(valley, stop_at=2))
    assert early.interrupted
    assert early.verdict.sentence == (
        "kept the default: the search was ended before its first generation was over"
    )
    later = tune(Invented(valley, stop_at=20), Effort(generations=100))
    assert later.interrupted
    assert len(later.history) == 18
    assert later.verdict.adopted


def test_an_interruption_of_the_judging_is_passed_on():
    with pytest.raises(KeyboardInterrupt):
        tune(Invented(valley, stop_at=5), Effort(generations=3))


def test_a_cell_that_holds_none_of_the_slices_is_said_so():
    with pytest.raises(SpecError, match="none of the slices can be placed"):
        tune(Invented(lambda _: metrics(0.0, unplaced=1.0)))


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 64.0, 1000.0])
def test_a_weight_survives_the_way_into_the_search_and_back(weight):
    assert decoded(encoded(weight)) == weight


def test_more_processes_play_the_same_and_none_twice(monkeypatch):
    trials = [Trial(DEFAULT, seed, held_out=held) for seed in (1, 2, 1) for held in (False, True)]
    trials.append(Trial(DEFAULT, 1, held_out=True, shift="lighter"))
    with Trials(LITTLE) as alone, Trials(LITTLE, processes=2) as two:
        played = alone.play(trials)
        assert two.play(trials) == played
        assert two.play(trials) == played
        drawn: list[int] = []
        monkeypatch.setattr(Synthetic, "arrivals", lambda *_, **__: drawn.append(1))
        assert alone.play(trials) == played
        assert drawn == []
    assert played[0] == played[4] != played[1]
    assert played[6] != played[1]


def test_the_report_shows_every_metric_and_the_weights_where_they_came_from():
    effort = Effort(generations=5)
    trials = Invented(valley)
    tuned = tune(trials, effort)
    told = document(tuned, LITTLE, trials.settings, effort, IMPORTANCE, 0.05)
    text = markdown(told)
    assert told["workload"]["digest"] == LITTLE.digest()
    assert set(told["held_out"]["metrics"]) == set(Metrics._fields)
    assert len(told["held_out"]["seeds"]) == effort.held_out
    for name in LITTLE.shifts():
        assert f"On a shifted workload: {name}" in text
    assert tuned.verdict.sentence[1:] in text
    assert f"| idle | {DEFAULT.idle:g} | {tuned.weights.idle:g} |" in text
    assert summary(tuned, LITTLE)["tuned"] is tuned.verdict.adopted
    assert all(isinstance(v, (str, int, float, bool)) for v in summary(tuned, LITTLE).values())


def test_a_learner_that_changes_nothing_is_rewarded_like_the_default():
    environment = TuningEnvironment(LITTLE, slices_a_step=7)
    observation, told = environment.reset(seed=3)
    assert observation == (0.0, 1.0, 0.0, 0.0)
    rewards: list[float] = []
    final: dict[str, object] = {}
    over = False
    while not over:
        observation, reward, over, cut, final = environment.step([0.0] * environment.actions)
        assert len(observation) == environment.observations
        assert sum(observation[:3]) == pytest.approx(1)
        assert not cut
        rewards.append(reward)
    assert sum(rewards) == pytest.approx(-1)
    assert len(rewards) > 4
    assert final == told["default"]
    assert environment.reset(seed=3)[1] == told


def test_the_example_of_the_document_runs():
    text = (Path(__file__).parents[2] / "docs" / "tuning.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["over"]
    assert set(names["figures"]) == set(Metrics._fields)


def test_an_episode_does_not_hang_on_the_order_of_sets():
    program = """if True:
        from flowos.documents.presets import preset
        from flowos.planning.engines.weights import DEFAULT
        from flowos.simulation.tuning.trials import Trial, Trials
        from flowos.simulation.tuning.workload import Figures, Synthetic

        workload = Synthetic.on(preset("fic"), Figures(slices=300, gang_max=2))
        print(Trials(workload).play([Trial(DEFAULT, 1_000_001)]))
        """
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "3")
    }
    assert len(told) == 1
