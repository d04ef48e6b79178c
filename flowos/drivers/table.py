"""What is up at the places of a driver, for whom? What steps put up and tear down, in one table."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from flowos.drivers.step import Standing, Step, Verb
from flowos.model.units import is_laid, subject_of

Key = tuple[str, str]  # place, attempt


class Table:
    """What is up, by place and attempt."""

    def __init__(self) -> None:
        """Begin with nothing up."""
        self.up: dict[Key, Standing] = {}

    def in_the_way(self, step: Step) -> str:
        """Say which aggregator a CONNECT wants that another attempt has up; "" = none."""
        if step.verb is not Verb.CONNECT:
            return ""
        wanted = {unit for unit in step.order.units if unit.startswith("aggregator/")}
        for (place, attempt), there in self.up.items() if wanted else ():
            if place == step.place and attempt != step.attempt:
                for unit in sorted(wanted.intersection(there.order.units)):
                    return f"{unit} merges streams of {attempt} already"
        return ""

    def begun(self, step: Step) -> None:
        """Note what a step that begins puts up: from now on it may be there."""
        key = (step.place, step.attempt)
        there = self.up.get(key)
        if step.verb is Verb.RUN:
            self.up[key] = Standing(*key, step.order, running=True)
        elif step.verb in (Verb.POWER_ON, Verb.LOAD, Verb.CONNECT):
            there = there or Standing(*key, step.order)
            self.up[key] = replace(there, order=step.order)

    def stopped_by(self, step: Step, running: Collection[Key]) -> list[Key]:
        """Return of what runs what a STOP ends."""
        return [*_meant(step, running), *_halved(step, self.up)]

    def stopped(self, step: Step) -> None:
        """Note that what a STOP was meant for has ended."""
        for stopped in [*_meant(step, self.up), *_halved(step, self.up)]:
            self.up[stopped] = replace(self.up[stopped], running=False)

    def ended(self, step: Step, exit_code: int) -> None:
        """Note how tasks have ended by themselves."""
        there = self.up.get((step.place, step.attempt))
        if there is not None:
            ended = replace(there, running=False, exit_code=exit_code)
            self.up[step.place, step.attempt] = ended

    def torn_down(self, step: Step) -> None:
        """Note what a step that has ended has torn down."""
        key = (step.place, step.attempt)
        if step.verb is Verb.SCRUB and not step.attempt:  # the end of a sweep
            for swept in _meant(step, self.up):
                del self.up[swept]
            for halved in _halved(step, self.up):
                keep, order = step.keep[halved[1]], self.up[halved].order
                units = tuple(u for u in order.units if u in keep.units)
                self.up[halved] = replace(
                    self.up[halved], order=replace(order, units=units, crossbar=keep.crossbar)
                )
        there = self.up.get(key)
        if there is None or step.verb not in (Verb.DISCONNECT, Verb.SCRUB, Verb.POWER_OFF):
            return
        units, crossbar = there.order.units, there.order.crossbar
        if step.verb is Verb.DISCONNECT:
            stays = step.keep.get(step.attempt)
            crossbar = stays.crossbar if stays is not None else ()
            kept = stays.units if stays is not None else ()
            units = tuple(u for u in units if not is_laid(u) or u in kept)
        else:
            units = tuple(u for u in units if subject_of(u) != step.subject)
        if crossbar or any(not u.startswith("host/") for u in units):
            self.up[key] = replace(
                there, order=replace(there.order, units=units, crossbar=crossbar)
            )
        else:
            del self.up[key]


def _meant(step: Step, there: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return of what is there, by place and attempt, what a step that tears down is meant for."""
    if step.attempt:
        return [(step.place, step.attempt)] if (step.place, step.attempt) in there else []
    return [key for key in there if key[0] == step.place and key[1] not in step.keep]


def _halved(step: Step, up: Mapping[tuple[str, str], Standing]) -> list[tuple[str, str]]:
    """Return of what is up, by place and attempt, that of which a sweep leaves only a part."""
    return [
        (place, attempt)
        for place, attempt in up
        if not step.attempt
        and place == step.place
        and attempt in step.keep
        and not {*up[place, attempt].order.units} <= {*step.keep[attempt].units}
    ]
