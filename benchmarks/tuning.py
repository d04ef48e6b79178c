"""What does tuning gain over the default weights, on logs that the search has not seen?

Beside the gain: what each hand-made rule in the default is worth (its weight set to 0), and what no
rule at all comes to. All on the same held-out logs, as differences of pairs with their 95 %
intervals. J is 1 under the default: -0.01 is one per cent less of what should be little. The figures
are of virtual time, so they do not depend on how busy the machine is.
"""

from typing import Any, NamedTuple

from harness import PICTURES, Report, options

from flowos.documents.presets import file_or_preset
from flowos.planning.engines.weights import DEFAULT, Weights
from flowos.simulation.tuning.gate import Verdict, judge
from flowos.simulation.tuning.search import Effort, Tuned, tune
from flowos.simulation.tuning.trials import Trial, Trials
from flowos.simulation.tuning.workload import Figures, Synthetic

NO_RULES = Weights(*(0.0 for _ in Weights._fields))
WORKLOADS = {"mixed": 8, "small": 2}  # the most engines that a slice asks for
METRICS = ("wait_s", "reconfigurations", "kilojoules", "crossings")


def compared(trials: Trials, weights: Weights, count: int) -> Verdict:
    """Compare weights with the default on held-out logs."""
    seeds = range(count)
    held_out = [
        Trial(chosen, seed, held_out=True) for chosen in (DEFAULT, weights) for seed in seeds
    ]
    played = trials.play(held_out)
    return judge(seeds, played[:count], played[count:])


def ablations(trials: Trials, inert: tuple[str, ...], count: int) -> dict[str, Verdict]:
    """Return what it does to leave one rule out, by its name."""
    names = [name for name in Weights._fields if name not in inert]
    return {name: compared(trials, DEFAULT._replace(**{name: 0.0}), count) for name in names}


class Measured(NamedTuple):
    """All that was compared on one workload."""

    tuned: Tuned
    without: dict[str, Verdict]
    bare: Verdict


def measured(figures: Figures, effort: Effort) -> Measured:
    """Tune, then judge the default without each of its rules on the same held-out logs."""
    workload = Synthetic.on(file_or_preset("fic"), figures)
    with Trials(workload, processes=2) as trials:
        tuned = tune(trials, effort)
        without = ablations(trials, tuned.inert, effort.held_out)
        return Measured(tuned, without, compared(trials, NO_RULES, effort.held_out))


def main() -> None:
    """Measure and print."""
    chosen = options(__doc__ or "")
    slices, effort = 600, Effort(generations=12, episodes=3, held_out=30)
    if chosen.quick:
        slices, effort = 250, Effort(generations=4, episodes=2, held_out=10, shifted=4)
    report = Report(f"tuning on fic, {effort.held_out} held-out logs of {slices} slices")
    found: dict[str, Measured] = {}
    for name, gang_max in WORKLOADS.items():
        found[name] = measured(Figures(slices=slices, gang_max=gang_max), effort)
        tuned, without, bare = found[name]
        add(report, f"{name}_tuned", tuned.verdict, tell_metrics=True)
        for shift, verdict in tuned.shifted.items():
            add(report, f"{name}_tuned_{shift.replace(' ', '_')}", verdict)
        add(report, f"{name}_no_rules", bare, tell_metrics=True)
        for rule, verdict in without.items():
            add(report, f"{name}_without_{rule}", verdict, tell_metrics=rule == "idle")
        report.add(f"{name}_adopted", float(tuned.verdict.adopted), "")
    report.print(as_json=chosen.json)
    if chosen.json:
        return
    for name, (tuned, *_) in found.items():
        print(f"  {name}: {tuned.verdict.sentence}")
        print(f"  {', '.join(f'{n} {v:g}' for n, v in tuned.weights._asdict().items())}")
        print(f"  no difference: {', '.join(tuned.inert)}")
    if not chosen.quick:
        weights = {name: of.tuned.weights._asdict() for name, of in found.items()}
        report.save(
            "tuning", weights=weights, inert={name: of.tuned.inert for name, of in found.items()}
        )
        report.plot("tuning", lambda axes: draw(axes, found), folder=PICTURES)


def add(report: Report, name: str, verdict: Verdict, *, tell_metrics: bool = False) -> None:
    """Add the change in J with its interval, and in each metric, in per cent."""
    for part, value in zip(("", "_low", "_high"), verdict.gain, strict=True):
        report.add(f"{name}{part}", 100 * value, "% of J")
    if tell_metrics:
        for metric in METRICS:
            report.add(f"{name}_{metric}", 100 * verdict.metrics[metric].worse, "%")


def draw(axes: Any, found: dict[str, Measured]) -> None:
    """Draw all differences from the default with their intervals."""
    rows: list[tuple[str, Verdict]] = []
    for name, (tuned, without, bare) in found.items():
        rows.append((f"{name} gangs: tuned", tuned.verdict))
        rows += [
            (f"the same weights, {shift}", verdict) for shift, verdict in tuned.shifted.items()
        ]
        rows += [(f"default without {rule}", verdict) for rule, verdict in without.items()]
        rows.append(("no rules at all", bare))
    rows.reverse()
    axes.axvline(0, color="black", linewidth=1)
    for place, (_, verdict) in enumerate(rows):
        mean, low, high = (100 * value for value in verdict.gain)
        colour = "tab:green" if high < 0 else "tab:red" if low > 0 else "tab:grey"
        axes.errorbar(
            mean, place, xerr=[[mean - low], [high - mean]], fmt="o", color=colour, capsize=3
        )
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_xlabel("change of J against the default, % (left is better), 95 % intervals of pairs")
    axes.figure.set_size_inches(8, 1.5 + 0.25 * len(rows))


if __name__ == "__main__":
    main()
