"""Training: data-parallel rings on engines of one model, the one that does the most for a joule."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final, TypeAlias

from flowos.model.cell import WHOLE_MILLIS
from flowos.model.placement import Decision, Unplaceable
from flowos.model.rules import NO_RULES
from flowos.model.slice import EngineChoice, EngineRole, SliceSpec
from flowos.planning.affinity.weighed import paces
from flowos.planning.demand import sift
from flowos.planning.engines.pool import Pool
from flowos.planning.engines.weights import Weights
from flowos.planning.policy import Order, Policy, Waits
from flowos.planning.where import Condition
from flowos_schedulers.pieces import order, score, wishes

_MODELS_MAX: Final = 8  # of a choice, that are tried one by one

_Ware: TypeAlias = tuple[int, tuple[Condition, ...]]  # a make, with what its nodes must have


class Training(Policy):
    """Learning in step: rings of the engine model that does most for a joule.

    A ring turns as fast as its slowest engine, so a role gets engines of one model if any model has
    enough. Which model that is, measured speeds decide (`cell planner apply`) by the type of work
    that the role does: the most units a joule, or what the slice's `prefer` and the cell's
    `joule_seconds` say. Trainings are long, so engines of that model are woken for it. Where nobody
    measured, the model is taken of which the most are free. Rings lie near each other.

    Settings:
        speed: How much the speed of a model counts against waking and loading, where it has to be
            a mixture.
    """

    name = "training"
    reorders = True
    backfills = True
    settings: Mapping[str, float] = MappingProxyType({"speed": 128.0})

    def order(self, waits: Waits) -> Order:
        """Return the place in the queue: priority, then tenants by turns."""
        return order.by_turns(waits)

    def score(self, spec: SliceSpec, pool: Pool) -> Weights:
        """Return how much each feature of a place counts."""
        return score.weighted(pool, self.settings)

    def plan(
        self, pool: Pool, spec: SliceSpec, *, seed: int, avoid: Collection[str]
    ) -> Decision | Unplaceable:
        """Decide where a slice goes: on engines of the best model that has enough."""
        pool.fold()
        if not (pool.view.planner or NO_RULES).joule_seconds:
            spec = wishes.preferring(spec, "frugal")
        forms: list[SliceSpec] = []
        if not spec.data and not any(work.amount for work in spec.work.values()):
            # What is weighed against moving data is tried model by model there.
            best = paces(pool, spec)
            forms = [wishes.choosing(spec, lambda r, of: _one_model(pool, of, best.get(r, {})))]

        def plan(form: SliceSpec) -> Decision | Unplaceable:
            return super(Training, self).plan(pool, form, seed=seed, avoid=avoid)

        return wishes.first_of(plan, forms, spec)


def _one_model(pool: Pool, role: EngineRole, best: Mapping[str, float]) -> EngineRole:
    """Return a role that asks for each model in turn, for each of its choices."""
    found: list[EngineChoice] = []
    for choice in role.choices:
        models = _models(pool, choice, best) if choice.share_millis == WHOLE_MILLIS else []
        found += [replace(choice, models=(model,)) for model in models] or [choice]
    return EngineRole(tuple(found))


def _models(pool: Pool, choice: EngineChoice, best: Mapping[str, float]) -> list[str]:
    """Return the models that will do: measured ones by their pace, then those with most free."""
    wares: dict[str, list[_Ware]] = {}
    for ware in sift(pool, choice).wares:
        wares.setdefault(pool.makes[ware[0]].model, []).append(ware)
    models = sorted(wares, key=lambda model: (-best.get(model, 0.0), model))
    free: dict[str, int] = {}
    for model in models[:_MODELS_MAX]:
        stock = pool.stock(frozenset(wares[model]))
        free[model] = stock.free_on + stock.free_off
    models = sorted(free, key=lambda model: (-best.get(model, 0.0), -free[model], model))
    return [model for model in models if model and free[model] >= choice.count]
