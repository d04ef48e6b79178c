"""Tidy: the smallest slices first, and never two engine models of a kind in one slice."""

from dataclasses import replace
from itertools import product

from flowos.model.placement import Decision
from flowos.model.slice import EngineRole
from flowos.planning.policy import Policy


class Tidy(Policy):
    """Small ones first within a priority, each on engines of one model."""

    name = "tidy"

    def order(self, waits):
        """Return the place in the queue: priority, then size, then who came first."""
        sizes = (role.choices[0].count for role in waits.spec.engines.values())
        return (-waits.priority, sum(sizes), waits.created)

    def plan(self, pool, spec, *, seed, avoid):
        """Try the models of each kind that is asked for, one after the other, by name."""
        models = {choice.kind: set() for role in spec.engines.values() for choice in role.choices}
        for engine in pool.view.cell.engines.values():
            if engine.kind in models:
                models[engine.kind].add((engine.model,))
        for picked in product(*(sorted(names) or [()] for names in models.values())):
            tidy = narrowed(spec, dict(zip(models, picked, strict=True)))
            if isinstance(answer := super().plan(pool, tidy, seed=seed, avoid=avoid), Decision):
                break
        return answer


def narrowed(spec, models):
    """Return the request with one model of each kind, where it leaves the model open."""
    engines = dict(spec.engines)
    for name, role in engines.items():
        choices = (replace(c, models=c.models or models[c.kind]) for c in role.choices)
        engines[name] = EngineRole(tuple(choices))
    return replace(spec, engines=engines)
