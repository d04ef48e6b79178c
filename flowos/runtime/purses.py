"""What one scheduler may spend: it asks for grants when plans need them and gives back when idle."""

from collections.abc import Callable
from math import inf
from typing import Final

from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import Reason
from flowos.model.view import CellView
from flowos.protocol.commit import spend
from flowos.protocol.grants import give_back, limit_of, raise_grant, total
from flowos.protocol.proposal import Fence, Proposal

GRANT_PART: Final = 8  # a grant is raised by this fraction of the limit while plenty is left
IDLE_GRANT_SECONDS: Final = 1.0  # an unused part of a grant is given back after this


class Purses:
    """Follows a view; the holder of all grants is one session."""

    def __init__(self, view: CellView, session: str, fence: Callable[[], Fence]) -> None:
        """Start without any grant."""
        self._view = view
        self._session = session
        self._fence = fence
        self._limits: dict[str, int | None] = {}
        self._unlimited: bool | None = (
            None  # whether no domain has a budget; None = to be found out
        )
        self._due: dict[str, int] = {}
        self._used_at: dict[str, float] = {}
        view.inventory_listeners.append(self._inventory_changed)

    @property
    def asking(self) -> bool:
        """Whether a raise has to be committed before a plan can be."""
        return bool(self._due)

    def afford(self, decision: Decision, now: float) -> Unplaceable | None:
        """Return None where the grants suffice; else why not, or that more is being asked for."""
        if self._unlimited is None:
            domains = self._view.cell.domains.values()
            self._unlimited = all(domain.budget_watts is None for domain in domains)
        if self._unlimited:  # most cells; adding up watts is a tenth of what a plan takes
            return None
        for purse, watts in spend(self._view.cell, decision.units).items():
            limit = self._limit(purse)
            if limit is None:
                continue
            self._used_at[purse] = now
            entry = self._view.grants.get(purse, {}).get(self._session)
            free = (entry.value if entry else 0) - self._view.spent(purse, self._session)
            if watts <= free:
                continue
            left = limit - total(self._view, purse)
            name = purse.partition(":")[2]
            if watts - free > left:
                return Unplaceable(
                    Reason.WAITING_FOR_POWER,
                    f"needs {watts} W in domain {name}; of {limit} W above idle "
                    f"{max(0, left + free)} W can be had",
                )
            # Small when much is used: a whole part only while plenty is left.
            part = min(limit // GRANT_PART, left // 2)
            self._due[purse] = max(self._due.get(purse, 0), watts - free, part)
            return Unplaceable(Reason.WAITING_FOR_POWER, f"asking for {watts} W in domain {name}")
        return None

    def raises(self) -> list[Proposal]:
        """Return the steps that plans are waiting for; each is asked for once."""
        found: list[Proposal] = []
        for purse, amount in self._due.items():
            limit = self._limit(purse)
            step = limit is not None and raise_grant(
                self._view, purse, self._session, amount, limit=limit, fence=self._fence()
            )
            if step:
                found.append(step)
        self._due.clear()
        return found

    def returns(self, now: float) -> tuple[list[Proposal], float]:
        """Return the steps that give back what is not needed, and when to look again."""
        found: list[Proposal] = []
        look_at = inf
        for purse, holders in self._view.grants.items():
            mine = holders.get(self._session)
            keep = self._view.spent(purse, self._session)
            if mine is None or keep >= mine.value:
                continue
            due = self._used_at.get(purse, -inf) + IDLE_GRANT_SECONDS
            if now < due:
                look_at = min(look_at, due)
                continue
            step = give_back(self._view, purse, self._session, keep, fence=self._fence())
            if step:
                found.append(step)
        return found, look_at

    def _limit(self, purse: str) -> int | None:
        if purse not in self._limits:
            self._limits[purse] = limit_of(self._view.cell, purse)
        return self._limits[purse]

    def _inventory_changed(self, family: str, _name: str) -> None:
        if family in ("domain", "engine", "node", ""):
            self._limits.clear()
            self._unlimited = None
