"""Do quotas and budgets hold while schedulers race for the last of them? Commits in any order.

Four real scheduler machines, each with a view of its own, plan the same slices of two tenants that
are always at their limits. Who hears, plans, sends or is told next is drawn; quotas are lowered and
raised, slices come and go, schedulers die with requests under way. A ledger of the test's own adds
up what each tenant has at every revision. `make quotas` runs 10,000 commits: FLOWOS_QUOTA_COMMITS.
"""

import os
import random
from collections import Counter

import pytest

from flowos.model.cell import Tenant
from flowos.model.codec import decode, encode
from flowos.model.placement import Placement
from flowos.model.transaction import Change, Changes, Put, WatchMessage
from tests.runtime.cells import small_cell, wanted
from tests.runtime.theatre import Theatre

SEEDS = 4
COMMITS = int(os.environ.get("FLOWOS_QUOTA_COMMITS", "800")) // SEEDS  # of each
QUOTAS = {"vision": 20, "audio": 24}
PENDING = 8  # slices of each tenant that wait, at any time
WATTS = 4_200  # of all engines together, above idle


class Ledger:
    """What each tenant has, and what is drawn, at every revision; it knows no grants."""

    def __init__(self, theatre: Theatre) -> None:
        self.theatre = theatre
        self.quota = dict(QUOTAS)
        self.has: dict[str, dict[str, int]] = {tenant: {} for tenant in QUOTAS}
        self.at_limit = Counter[str]()
        self.commits = 0
        theatre.store.watch(
            ["placement/", "tenant/"],
            after=theatre.store.read([""]).revision,
            deliver=self._told,
        )

    def _told(self, message: WatchMessage) -> None:
        assert isinstance(message, Changes)
        before = {tenant: self.total(tenant) for tenant in QUOTAS}
        new = self.commits
        for change in message.changes:
            self._take(change)
        for tenant, had in before.items():
            now, quota = self.total(tenant), 1000 * self.quota[tenant]
            assert now <= max(quota, had), f"{tenant} rises from {had} to {now} of {quota}"
            self.at_limit[tenant] += now > quota - 1000 and self.commits > new
        watts = sum(self.total(tenant) for tenant in QUOTAS) // 10
        assert watts <= WATTS, f"{watts} W are drawn of {WATTS} W"

    def _take(self, change: Change) -> None:
        family, tenant, *name = change.key.split("/")
        if family == "tenant" and tenant in QUOTAS and change.value:
            self.quota[tenant] = decode(Tenant, change.value).quota["gpu"]
        elif family == "placement" and tenant in QUOTAS:
            has = self.has[tenant]
            if change.value is None:
                has.pop(name[0], None)
                return
            placement = decode(Placement, change.value)
            self.commits += name[0] not in has
            has[name[0]] = sum(
                amounts[0] if amounts else 1000
                for unit, amounts in {**placement.held, **placement.releasing}.items()
                if unit.startswith(("engine/", "share/"))
            )

    def total(self, tenant: str) -> int:
        return sum(self.has[tenant].values())


class Race:
    """One cell with four schedulers, and everything that happens to it."""

    def __init__(self, seed: int) -> None:
        # Alone: none leaves a slice to another one, so all race for all of them.
        alone = seed % 2 == 0
        self.draw = random.Random(seed)
        self.theatre = Theatre(small_cell(nodes=8, gpus=8, fpgas=0, budget=WATTS))
        for tenant, gpus in QUOTAS.items():
            self.theatre.write(Put(f"tenant/{tenant}", encode(Tenant(tenant, quota={"gpu": gpus}))))
        self.ledger = Ledger(self.theatre)
        self.schedulers = [self.theatre.scheduler(f"batch-{n}", alone=alone) for n in range(4)]
        self.theatre.controller()  # takes back what the dead were granted
        self.count = 0

    def run(self, commits: int) -> None:
        while self.ledger.commits < commits:
            self.ask()
            self.happen()
            self.move()

    def ask(self) -> None:
        """Keep some slices waiting."""
        waiting = Counter(name.partition("/")[0] for name in self.waiting())
        for tenant in QUOTAS:
            for _ in range(PENDING - waiting[tenant]):
                self.count += 1
                share = self.draw.choice((1000, 1000, 300))
                gpus = self.draw.choice((1, 2, 3)) if share == 1000 else 1
                self.theatre.submit(wanted(f"s{self.count}", gpus=gpus, share=share, tenant=tenant))

    def waiting(self) -> list[str]:
        view = self.schedulers[0].machine.view
        return [name for name in view.slices if name not in view.placements]

    def happen(self) -> None:
        """Let slices end, operators change their minds, and processes die."""
        chance = self.draw.random()
        has, quota = self.ledger.has, self.ledger.quota
        full = [t for t in QUOTAS if self.ledger.total(t) > 1000 * (quota[t] - 3)]
        placed = [f"{tenant}/{name}" for tenant in full for name in has[tenant]]
        if placed and chance < 0.7:
            ends = self.draw.sample(placed, min(len(placed), self.draw.randint(1, 8)))
            self.theatre.take_away(*ends)
        elif chance < 0.72:
            tenant = self.draw.choice(list(QUOTAS))
            gpus = self.draw.randint(QUOTAS[tenant] // 2, QUOTAS[tenant])
            changed = Tenant(tenant, quota={"gpu": gpus})
            self.theatre.write(Put(f"tenant/{tenant}", encode(changed)))
        elif chance < 0.725:
            self.draw.choice(self.schedulers).replace(requests_land_late=True)

    def move(self) -> None:
        """Make moves, whichever are possible, few or as many as there are; then let time pass."""
        theatre, some = self.theatre, self.draw.choice((20, 10_000))
        for _ in range(some):
            able = [(p, m) for p in theatre.players for m in p.possible_moves()]
            if theatre.late and self.draw.random() < 0.1:
                commit = theatre.late.pop()
                theatre.store.commit([proposal.transaction for proposal in commit.proposals])
            elif able:
                player, move = self.draw.choice(able)
                player.move(move)
            else:
                break
        times = [player.machine.wake_at() for player in theatre.players if player.acts]
        theatre.advance(min(max(min(times), theatre.clock.now), theatre.clock.now + 0.3))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_tenant_and_no_domain_is_ever_over(seed):
    race = Race(seed)
    race.run(COMMITS)
    assert race.ledger.commits >= COMMITS
    at_limit = sum(race.ledger.at_limit.values())
    assert at_limit > COMMITS // 40, "the limits were hardly ever what held them"
    lost = sum(line.endswith(" conflicted") for line in race.theatre.trace)
    assert lost > COMMITS // 20, "hardly any of them raced"
