"""Which slices come in a run of full mode, and when?"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from flowos.model.cell import Cell
from flowos.model.errors import SpecError
from flowos.simulation.architectures.attached import attached
from flowos.simulation.full.setup import Arrival
from flowos.simulation.full.workload import at_load, at_rate, fitting, of_light, of_trace
from flowos.simulation.jobs import slice_name
from flowos.simulation.light.loads import Job
from flowos.simulation.sweeps.knobs import Settings, number, value_of
from flowos.simulation.sweeps.loads import DRAWN_S, Load

DRAWN_LOAD: Final = 0.75  # what a drawn load asks of a cell's engines, where nobody says how much


def _drawn(load: Load, settings: Settings, count: int) -> Sequence[Job]:
    """Return at least so many jobs: how long a run lasts is not how long jobs are drawn for."""
    seconds = DRAWN_S
    while len(jobs := load.jobs_of({**settings, "seconds": seconds}, "full")) < count:
        seconds *= 2
    return jobs


def arrivals(cell: Cell, load: Load, settings: Settings) -> Sequence[Arrival]:
    """Return the slices of a run; each one's policy names its class.

    Raises:
        SpecError: None comes that fits the cell, or they never ask for as much as is set.
    """
    count = int(number(settings, "slices", "full"))
    share = value_of(settings, "load", "full")
    if share is None and load.profile is not None:
        share = DRAWN_LOAD  # drawn for another cell, while a file has its own time
    if load.trace:
        largest = max(map(len, cell.engines_of.values()))
        found = of_trace(load.trace, node_engines_max=largest, any_model=True)
        (team,) = map(slice_name, load.classes)
        found = [each._replace(spec=replace(each.spec, policy=team)) for each in found]
    else:
        teams = {name: slice_name(name) for name in load.classes}
        jobs = load.jobs if load.profile is None else _drawn(load, settings, count)
        jobs = sorted(jobs, key=lambda job: job.submit_s)
        if load.profile is not None:
            jobs = jobs[:count]  # one part is like another
        found = of_light(jobs, teams, engines_max=int(number(settings, "engines_max", "full")))
    found = fitting(found, cell)
    if share is not None and len(found) > count:
        # A file's beginning may be unlike the rest; and it comes in another time anyhow.
        found = [found[n * len(found) // count] for n in range(count)]
    found = found[:count]
    if value_of(settings, "gaps", "full") == "even" and len(found) > 1:
        gap = found[-1].at_s / (len(found) - 1)
        found = [each._replace(at_s=gap * n) for n, each in enumerate(found)]
    if not found or not found[-1].at_s:
        raise SpecError(
            f"none that fits the cell comes after the first moment, of {count:,} slices",
            where=load.name,
            hint="take a larger --cell, or more slices by --set slices=N",
        )
    if share is not None:
        assert isinstance(share, int | float)
        try:
            found = at_load(found, len(cell.engines), share)
        except ValueError as error:
            way = "set less of it, or more slices, or a smaller --cell"
            if value_of(settings, "gaps", "full") == "own" and load.profile is None:
                way += "; or gaps=even, if most of the file comes late"
            raise SpecError(f"{error}", where="load", hint=way) from None
    rate = value_of(settings, "rate", "full")
    if rate is not None:
        assert isinstance(rate, int | float)
        found = at_rate(found, rate)
    per_host = int(number(settings, "per_host", "full"))
    if per_host:
        found = [each._replace(spec=attached(each.spec, per_host)) for each in found]
    return found
