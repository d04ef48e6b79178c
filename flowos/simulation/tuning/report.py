"""What is told of a tuning: all that somebody needs to believe it, or to do it again?"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import flowos
from flowos.model.cell import Attribute
from flowos.simulation.tuning.episode import Metrics, Settings
from flowos.simulation.tuning.gate import Interval, Verdict
from flowos.simulation.tuning.search import Effort, Tuned
from flowos.simulation.tuning.workload import Workload

Document = dict[str, Any]  # JSON

WORDS: Mapping[str, str] = {
    "wait_s": "wait, s",
    "reconfigurations": "bitstreams loaded a slice",
    "kilojoules": "kJ a slice",
    "crossings": "circuits off the leaf a slice",
    "unplaced": "share unplaced",
}


def document(
    tuned: Tuned,
    workload: Workload,
    settings: Settings,
    effort: Effort,
    importance: Metrics,
    max_worse: float,
) -> Document:
    """Return the report for programs."""
    return {
        "apiVersion": "flowos/v1",
        "kind": "TuningReport",
        "version": flowos.__version__,
        "adopted": tuned.verdict.adopted,
        "verdict": tuned.verdict.sentence,
        "interrupted": tuned.interrupted,
        "workload": {"about": workload.about, "digest": workload.digest()},
        "weights": tuned.weights._asdict(),
        "default": tuned.default._asdict(),
        "inert": list(tuned.inert),
        "held_out": _verdict(tuned.verdict),
        "shifted": {name: _verdict(verdict) for name, verdict in tuned.shifted.items()},
        "importance": importance._asdict(),
        "max_worse": max_worse,
        "settings": asdict(settings),
        "effort": asdict(effort),
        "history": [generation._asdict() for generation in tuned.history],
    }


def summary(tuned: Tuned, workload: Workload) -> dict[str, Attribute]:
    """Return what is kept with the weights themselves: where they come from, in a few words."""
    gain = tuned.verdict.gain
    return {
        "workload": workload.about,
        "digest": workload.digest(),
        "tuned": tuned.verdict.adopted,
        "verdict": tuned.verdict.sentence,
        "gain": round(gain.mean, 4),
        "gain_low": round(gain.low, 4),
        "gain_high": round(gain.high, 4),
        "held_out_seeds": len(tuned.verdict.seeds),
    }


def _verdict(verdict: Verdict) -> Document:
    return {
        "seeds": list(verdict.seeds),
        "J": _interval(verdict.gain),
        "metrics": {
            name: {
                "default": compared.before,
                "candidate": compared.after,
                "difference": _interval(compared.difference),
                # JSON has no infinity: null = it was 0 before.
                "worse": None if math.isinf(compared.worse) else compared.worse,
            }
            for name, compared in verdict.metrics.items()
        },
    }


def _interval(interval: Interval) -> Document:
    return dict(interval._asdict())


def markdown(told: Document) -> str:
    """Return the report for people."""
    return "\n".join(_lines(told)) + "\n"


def _lines(told: Document) -> Iterator[str]:
    yield "# Tuning of the planner's weights"
    yield ""
    yield f"**{told['verdict'][0].upper()}{told['verdict'][1:]}.**"
    if told["interrupted"]:
        yield ""
        yield "The search was ended by hand, before all generations were played."
    yield ""
    yield f"- Workload: {told['workload']['about']}"
    yield f"- Its hash, the cell's included: `{told['workload']['digest']}`"
    yield f"- Devices and queue: {_said(told['settings'])}"
    yield f"- Flow OS {told['version']}"
    yield f"- Effort: {_said(told['effort'])}"
    yield f"- J weighs: {_said(told['importance'])}, each over its value under the default"
    yield ""
    yield from _weights(told)
    yield "## On held-out logs"
    yield ""
    yield from _compared(told["held_out"])
    for name, verdict in told["shifted"].items():
        yield f"## On a shifted workload: {name}"
        yield ""
        yield from _compared(verdict)
    if told["history"]:
        yield "## The search"
        yield ""
        yield "| generation | best J | mean J |"
        yield "|---|---|---|"
        for number, generation in enumerate(told["history"], 1):
            yield f"| {number} | {generation['best']:.4f} | {generation['mean']:.4f} |"
        yield ""
        yield "J on the logs of the search flatters: it is what was searched for."


def _weights(told: Document) -> Iterator[str]:
    yield "## Weights"
    yield ""
    yield "| weight | default | found | |"
    yield "|---|---|---|---|"
    for name, value in told["weights"].items():
        note = "makes no difference here" if name in told["inert"] else ""
        yield f"| {name} | {told['default'][name]:g} | {value:g} | {note} |"
    yield ""


def _compared(verdict: Document) -> Iterator[str]:
    """Draw every metric: J alone could hide what was bought with what."""
    yield "| metric | default | found | change | difference, 95 % interval of pairs |"
    yield "|---|---|---|---|---|"
    gain = verdict["J"]
    rows = [("J", 1.0, 1.0 + gain["mean"], gain["mean"], gain)]
    rows += [
        (WORDS[name], m["default"], m["candidate"], m["worse"], m["difference"])
        for name, m in verdict["metrics"].items()
    ]
    for name, before, after, worse, interval in rows:
        change = "from 0" if worse is None else f"{100 * worse:+.1f} %"
        between = f"{interval['mean']:+.4g} ({interval['low']:+.4g} to {interval['high']:+.4g})"
        yield f"| {name} | {before:.4g} | {after:.4g} | {change} | {between} |"
    seeds = verdict["seeds"]
    yield ""
    yield f"Seeds {seeds[0]} to {seeds[-1]}: the same logs for both."
    yield ""


def _said(figures: Mapping[str, object]) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in figures.items()
    )
