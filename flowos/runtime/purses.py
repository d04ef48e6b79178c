"""What one scheduler may spend: it asks for grants when plans need them and gives back when idle.

Both go through the same door, `steps`. A grant is written only while no plan that spends from it is
under way, since that one compares it; until the answer nothing new is planned on it. Other purses'
slices go on meanwhile, so a busy scheduler raises and gives back as promptly as an idle one.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

from flowos.model.cell import WHOLE_MILLIS
from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import Reason
from flowos.model.transaction import Committed
from flowos.model.view import CellView
from flowos.protocol.commit import moves, spend
from flowos.protocol.grants import (
    give_back,
    is_there,
    limit_key,
    limit_of,
    raise_grant,
    total,
    uncovered,
)
from flowos.protocol.proposal import Fence, Proposal
from flowos.protocol.takeover import losses
from flowos.runtime.machine import Answer

GRANT_PART: Final = 8  # a grant is raised by this fraction of the limit while plenty is left
# An unused part of a grant is given back after this, and after twice this at most, so that a rival
# who needs it has it within about a second. Shorter, and a steady stream of small slices would give
# back between two of them what the next one asks for again.
IDLE_GRANT_SECONDS: Final = 0.5
ASKED_GRANT_SECONDS: Final = 0.1  # and after this where a slice of a rival's waits for just that
ASKING: Final = Unplaceable(Reason.CONFLICTED, "a grant is being raised or given back")


@dataclass(slots=True)
class _Window:
    """How much of a grant was used at most since it was last looked at.

    Attributes:
        until: When what was not used by then is given back; inf = all of it is used.
    """

    peak: int
    until: float = inf


class Purses:
    """Follows a view; the holder of all grants is one session.

    Attributes:
        look_at: Monotonic second at which `steps` has something to do without any event.
        known_until: The view must be complete up to here before a grant can be raised.
    """

    def __init__(
        self,
        view: CellView,
        session: str,
        fence: Callable[[], Fence],
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """Start without any grant.

        Args:
            view: Followed.
            session: Whose grants these are.
            fence: Returns the session's fence now.
            wake: Called when what was told `ASKING` should be planned again.
        """
        self.look_at = inf
        self.known_until = 0
        self._view = view
        self._wake = wake
        self._session = session
        self._fence = fence
        self._uncovered: dict[str, tuple[int, int]] = {}  # purse -> how much, and as of when
        self._limits: dict[str, int | None] = {}
        self._budgets: bool | None = None  # whether any domain has one; None = to be found out
        self._due: dict[str, int] = {}  # purse -> by how much its grant is to be raised
        self._closing: set[str] = set()  # purses whose grant waits for plans that are under way
        self._moving: dict[str, int] = {}  # purse -> when its grant was written; 0 = no answer yet
        self._windows: dict[str, _Window] = {}
        # What is lacking, as a purse begins -> rivals' slices of which that was said; None = to be
        # found out.
        self._askers: dict[str, set[str]] | None = None
        view.inventory_listeners.append(self._inventory_changed)

    @property
    def asking(self) -> bool:
        """Whether a raise has to be committed before a plan can be."""
        return bool(self._due)

    # -- what a plan asks

    def afford(
        self, name: str, decision: Decision, now: float, victims: Collection[str] = ()
    ) -> Unplaceable | None:
        """Return None where the grants suffice for a slice's plan.

        Args:
            name: The slice, "tenant/name".
            decision: What is planned for it.
            now: Monotonic seconds.
            victims: Whose units it takes over; what they spend comes along with these.

        Returns:
            `ASKING` where more is being asked for, or given back; else why it cannot be had.
        """
        return self.covers(self.needs(name, decision, victims), now)

    def needs(self, name: str, decision: Decision, victims: Collection[str] = ()) -> dict[str, int]:
        """Return what a slice's plan spends, by purse; nothing where nothing is limited.

        Args:
            name: The slice, "tenant/name".
            decision: What is planned for it.
            victims: As for `afford`.
        """
        if not self._limited(name):  # most slices; adding up watts is a tenth of what a plan takes
            return {}
        view = self._view
        needs = spend(view.cell, decision.units, name)
        if victims:
            for gone in moves(view, losses(view, decision.units, victims), needs).values():
                for purse, amount in gone.items():
                    needs[purse] -= amount
        return needs

    def short(
        self, needs: Mapping[str, int], kept: Mapping[str, int] | None = None
    ) -> dict[str, int]:
        """Return of which limits too much is used by all together, and how much too much.

        What others were granted and do not use is not counted: that they give back.

        Args:
            needs: Purse -> how much is wanted.
            kept: Purse -> how much is to be left in it beyond that.
        """
        found: dict[str, int] = {}
        for purse, amount in needs.items():
            limit = self._limit(purse) if amount > 0 else None
            if limit is not None:
                used = sum(self._view.spent(purse, h) for h in self._view.grants.get(purse, ()))
                lacks = amount + (kept or {}).get(purse, 0) + used - limit
                if lacks > 0:
                    found[purse] = lacks
        return found

    def covers(self, needs: Mapping[str, int], now: float) -> Unplaceable | None:
        """Return None where the own grants cover this much more, by purse; else as `afford`."""
        due: dict[str, int] = {}
        asking = False
        for purse, amount in needs.items():
            limit = self._limit(purse) if amount > 0 else None
            if limit is None:
                continue
            if self._is_moving(purse):
                asking = True
                continue
            free, left = self._free(purse), limit - total(self._view, purse)
            if amount > free + left or left < 0:
                limit = self._limit_anew(purse, limit)
                left = limit - total(self._view, purse)
                if amount > free + left or left < 0:
                    return self._refusal(purse, amount)
            if amount > free:
                # Small when much is used: a whole part only while plenty is left, and in it room
                # for some more like this one. Nothing beyond the need while others lack it.
                asked = self._is_asked(purse)
                part = 0 if asked else min(limit // GRANT_PART, left // 2) // amount * amount
                due[purse] = max(self._due.get(purse, 0), amount - free, part)
        if due or asking:
            self._due |= due
            return ASKING
        for purse, amount in needs.items():
            window = self._windows.setdefault(purse, _Window(0))
            window.peak = max(window.peak, self._view.spent(purse, self._session) + amount)
            self.look_at = min(self.look_at, now + IDLE_GRANT_SECONDS)
        return None

    def _limited(self, name: str) -> bool:
        cell = self._view.cell
        if self._budgets is None:
            self._budgets = any(d.budget_watts is not None for d in cell.domains.values())
        tenant = cell.tenants.get(name.partition("/")[0])
        return self._budgets or bool(tenant and tenant.quota)

    def _free(self, purse: str) -> int:
        entry = self._view.grants.get(purse, {}).get(self._session)
        return (entry.value if entry else 0) - self._view.spent(purse, self._session)

    def _refusal(self, purse: str, amount: int) -> Unplaceable:
        """Say why that much cannot be had, who has what there is, and what would help."""
        view = self._view
        unused = {
            holder: idle
            for holder, entry in view.grants.get(purse, {}).items()
            if holder != self._session and (idle := entry.value - view.spent(purse, holder)) > 0
        }
        limit, whole = limit_of(view.cell, purse) or 0, self._limits.get(purse) or 0
        had, left = max(0, self._free(purse)), whole - total(view, purse)
        can_be_had = had + left if left >= 0 else 0
        family, name, *kind = purse.split(":")
        if family == "domain":
            sentence = f"needs {amount} W in domain {name}; of {limit} W above idle {can_be_had} W can be had"
            whose = self._whose({holder: f"{idle} W" for holder, idle in unused.items()})
            return Unplaceable(Reason.WAITING_FOR_POWER, sentence + whose)
        needs, quota = f"needs {_count(amount)} {kind[0]}", _count(limit)
        has = total(view, purse) - had - sum(unused.values()) + limit - whole
        if amount > limit:
            sentence = (
                f"{needs}; tenant {name} may have {quota} at once: ask for less, or raise the quota"
            )
        elif left < 0:
            sentence = (
                f"{needs}; tenant {name} has {_count(has)}, and its quota was lowered to {quota}"
            )
        else:
            sentence = f"{needs}; tenant {name} has {_count(has)} of {quota} {kind[0]}"
        whose = self._whose({h: f"{_count(idle)} {kind[0]}" for h, idle in unused.items()})
        return Unplaceable(Reason.QUOTA_EXCEEDED, sentence + whose)

    def _whose(self, unused: Mapping[str, str]) -> str:
        """Say who has been granted something that it does not use, and will give back soon."""
        if not unused:
            return ""
        sessions = self._view.sessions  # a client that embeds a scheduler does not follow them
        parts = [
            f"{amount} to scheduler {holder.partition('@')[0]}"
            + (", which is gone" if sessions and not is_there(self._view, holder) else "")
            for holder, amount in sorted(unused.items())
        ]
        return f"; granted and not used yet: {', '.join(parts)}"

    # -- what rivals lack

    def told(self, name: str) -> None:
        """Take in that something else, or nothing more, is said of why a slice waits."""
        if self._askers is None:
            return
        for names in self._askers.values():
            names.discard(name)
        entry = self._view.reasons.get(name)
        if entry is None or entry.value.scheduler == self._session.partition("@")[0]:
            return
        if entry.value.reason is Reason.WAITING_FOR_POWER:
            self._askers.setdefault("domain", set()).add(name)
        elif entry.value.reason is Reason.QUOTA_EXCEEDED:
            tenant = name.partition("/")[0]
            self._askers.setdefault(f"tenant:{tenant}", set()).add(name)

    def _is_asked(self, purse: str) -> bool:
        """Whether a rival's slice waits for power, or for its tenant's quota, as this is.

        Of which domain or kind of engine is not told: at worst what is idle goes back for nothing.
        """
        if self._askers is None:
            self._askers = {}
            for name in self._view.reasons:
                self.told(name)
        family = "domain" if purse.startswith("domain:") else purse.rpartition(":")[0]
        names = self._askers.get(family, set())
        while names:
            name = next(iter(names))
            if name not in self._view.placements and name in self._view.slices:
                return True
            names.discard(name)  # it runs: what was said of it stays until it waits again, anew
        return False

    # -- what becomes of the grants

    def steps(self, now: float) -> list[Proposal]:
        """Return the steps that raise what plans wait for, and give back what is not needed.

        Each is asked for once; `answered` must be told how it ended. `look_at` is when to look
        again.
        """
        self.look_at = inf
        if not (self._due or self._windows):
            return []
        found: list[Proposal] = []
        self._closing.clear()
        for purse in [p for p, revision in self._moving.items() if revision]:
            if not self._is_moving(purse):
                self._wake()
        for purse in [p for p in self._due if self._may_write(p)]:
            amount, limit = self._due.pop(purse), self._limit(purse)
            step = limit is not None and raise_grant(
                self._view, purse, self._session, amount, limit=limit, fence=self._fence()
            )
            if step:
                self._windows.setdefault(purse, _Window(0))
                self._moving[purse] = 0
                found.append(step)
        for purse in [p for p in self._windows if p not in self._due]:
            keep = self._keeps(purse, now)
            if keep is None or not self._may_write(purse):
                continue
            step = give_back(self._view, purse, self._session, keep, fence=self._fence())
            if step:
                self._windows[purse] = _Window(keep)
                self._moving[purse] = 0
                found.append(step)
        return found

    def give_all_back(self) -> list[Proposal]:
        """Return the steps that give back all that is not used, however short a time."""
        for window in self._windows.values():
            window.peak, window.until = 0, -inf
        return self.steps(0.0)

    def answered(self, proposal: Proposal, answer: Answer | None) -> None:
        """Take in what became of a step; others than those of `steps` are passed over.

        Args:
            proposal: Any step of the process.
            answer: The store's; None = it was not sent.
        """
        family, _, name = proposal.identifier.partition("/")
        purse = name.rpartition("/")[0]
        if family != "grant" or purse not in self._moving:
            return
        if isinstance(answer, Committed):
            self._moving[purse] = answer.revision
        else:
            del self._moving[purse]

    def _may_write(self, purse: str) -> bool:
        """Whether a grant may be written now; else nothing new is planned on it until it can be."""
        if self._is_moving(purse):
            return False
        written_at = self._view.written_at.get(limit_key(purse), 0)
        self.known_until = max(self.known_until, written_at)
        if self._view.placed_at < written_at or self._view.spending(purse):
            self._closing.add(purse)
            return False
        return True

    def _is_moving(self, purse: str) -> bool:
        if purse in self._closing:
            return True
        revision = self._moving.get(purse)
        if revision is None:
            return False
        entry = self._view.grants.get(purse, {}).get(self._session)
        known = max(self._view.revision, entry.modified if entry else 0)
        if not revision or known < revision:
            return True
        del self._moving[purse]  # the view shows what was written
        return False

    def _keeps(self, purse: str, now: float) -> int | None:
        """Return what is kept of a grant of which something is to be given back now."""
        window = self._windows[purse]
        entry = self._view.grants.get(purse, {}).get(self._session)
        if entry is None:
            if purse not in self._moving:
                del self._windows[purse]
            return None
        used = self._view.spent(purse, self._session)
        if used >= entry.value:
            window.peak, window.until = used, inf
            return None
        limit = self._limit(purse)
        if limit is not None and total(self._view, purse) > limit:
            return used  # it was lowered: what is in force follows down at once
        keep = max(window.peak, used)
        if now >= window.until and keep < entry.value:
            return keep
        idle_until = now + (ASKED_GRANT_SECONDS if self._is_asked(purse) else IDLE_GRANT_SECONDS)
        if window.until == inf or now >= window.until or window.until > idle_until:
            window.peak, window.until = used, idle_until
        self.look_at = min(self.look_at, window.until)
        return None

    # -- the limits

    def _limit(self, purse: str) -> int | None:
        """Return what all grants may come to; as much as is used without one is left out."""
        if purse in self._limits:
            return self._limits[purse]
        view = self._view
        known = limit_of(view.cell, purse)
        if known is not None and purse.startswith("tenant:"):
            # What is used without a grant only ever falls, once all is known that was placed before
            # the limit was written. So it is added up once where there is none: nearly always.
            much, at = uncovered(view.cell, view.placements, purse), view.placed_at
            if at < view.written_at.get(limit_key(purse), 0):
                return known - much
            self._uncovered[purse] = much, at
            known -= much
        self._limits[purse] = known
        return known

    def _limit_anew(self, purse: str, limit: int) -> int:
        """Return the limit again where what is used without a grant may be less than it was."""
        much, at = self._uncovered.get(purse, (0, 0))
        if not much or at == self._view.placed_at:
            return limit
        del self._limits[purse], self._uncovered[purse]
        return self._limit(purse) or 0

    def _inventory_changed(self, family: str, name: str) -> None:
        if not family:
            self._askers = None
        if family in ("domain", "engine", "node", ""):
            self._limits = {p: n for p, n in self._limits.items() if p.startswith("tenant:")}
            self._budgets = None
        if family in ("tenant", ""):
            start = f"tenant:{name}:" if family else "tenant:"
            self._limits = {p: n for p, n in self._limits.items() if not p.startswith(start)}
            self._uncovered = {p: n for p, n in self._uncovered.items() if not p.startswith(start)}


def _count(millis: int) -> str:
    return f"{millis / WHOLE_MILLIS:g}"
