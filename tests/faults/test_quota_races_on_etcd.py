"""Do quotas hold on a real store, with four scheduler processes and two tenants at their limits?

`make quotas` runs 10,000 commits: FLOWOS_QUOTA_ON_ETCD.
"""

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import pytest

from flowos.model.codec import decode
from flowos.model.placement import Placement
from flowos.model.slice import EngineChoice, EngineRole, Phase, Run, Slice, SliceSpec
from flowos.model.transaction import Change
from flowos.runtime.client import CellClient
from flowos.verify.history import verify_history
from tests.faults.ledger import Ledger
from tests.faults.machine import COMMAND, Machine, until

pytestmark = [pytest.mark.etcd, pytest.mark.slow]

COMMITS = int(os.environ.get("FLOWOS_QUOTA_ON_ETCD", "400"))
AT_ONCE = 500  # slices that are submitted together
QUOTAS = {"vision": 3, "audio": 4}


@dataclass
class Tenants(Ledger):
    """Adds up, from the history, what each tenant had at each revision; it knows no grants."""

    quotas: dict[str, int] = field(default_factory=dict)
    at_limit: int = 0
    over: list[str] = field(default_factory=list)
    _has: dict[str, int] = field(default_factory=dict)

    def take(self, revision: int, changes: Iterable[Change]) -> None:
        """Note what one revision did, and whether it brought a tenant over its quota."""
        changes = list(changes)
        super().take(revision, changes)
        before = {tenant: self.has(tenant) for tenant in QUOTAS}
        for change in changes:
            family, _, name = change.key.partition("/")
            if family == "tenant" and name in QUOTAS and change.value is not None:
                self.quotas[name] = 1000 * int(change.value.split(b'"gpu":')[1].split(b"}")[0])
            elif family == "placement" and name.partition("/")[0] in QUOTAS:
                self._has[name] = 0
                if change.value is not None:
                    placement = decode(Placement, change.value)
                    units = {**placement.held, **placement.releasing}
                    self._has[name] = sum(
                        amounts[0] if amounts else 1000
                        for unit, amounts in units.items()
                        if unit.startswith(("engine/", "share/"))
                    )
        for tenant, had in before.items():
            now, quota = self.has(tenant), self.quotas.get(tenant, 0)
            if now > max(quota, had):
                self.over.append(f"{tenant} has {now} of {quota} at revision {revision}")
            self.at_limit += now > had and now > quota - 1000

    def has(self, tenant: str) -> int:
        """Thousandths of engines, on their way back included."""
        return sum(amount for name, amount in self._has.items() if name.startswith(f"{tenant}/"))


def specs(first: int, count: int) -> list[SliceSpec]:
    """Short slices of both tenants in turn: whole GPUs, and parts."""
    return [
        SliceSpec(
            name=f"s{number}",
            tenant=list(QUOTAS)[number % 2],
            engines={"w": EngineRole((EngineChoice("gpu", share_millis=share),))},
            run=Run(for_seconds=0.02),
        )
        for number in range(first, first + count)
        for share in ((300 if number % 5 == 0 else 1000),)
    ]


def done(cell: CellClient, identifiers: set[str]) -> bool:
    records = [decode(Slice, r.value) for r in cell.store.read(["slice/"]).records]
    ended = {r.spec.id for r in records if r.end is not None and r.end.phase is Phase.DONE}
    return identifiers <= ended


def set_quota(machine: Machine, tenant: str, gpus: int) -> None:
    words = ["tenant", "set", tenant, "--quota", f"gpu={gpus}", "--data-dir", str(machine.folder)]
    subprocess.run([*COMMAND, *words], check=True, capture_output=True, timeout=60)


def test_no_tenant_is_ever_over_its_quota(machine):
    machine.up("--scheduler", "batch=4", "--idle-off", "0")
    for tenant, gpus in QUOTAS.items():
        set_quota(machine, tenant, gpus)
    with machine.client() as cell:
        for first in range(0, COMMITS, AT_ONCE):
            asked = specs(first, min(AT_ONCE, COMMITS - first))
            cell.submit(asked)
            set_quota(machine, "vision", 2)  # while they run
            set_quota(machine, "vision", 3)
            finished = partial(done, cell, {spec.id for spec in asked})
            until(finished, "all have ended", seconds=120)
        if COMMITS <= AT_ONCE:  # else the history is not kept from its beginning
            ledger = Tenants.read(cell.store)
            assert ledger.over == []
            assert ledger.doubled == []
            assert ledger.at_limit > COMMITS // 8, "the quotas were hardly ever what held them"
        assert verify_history(cell.store).violations == ()
    machine.down()
