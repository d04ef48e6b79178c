"""How does a scheduler behave that nobody would let in? It claims, retries blindly, and never waits.

Its claims are what `protocol.commit` makes of them: one that broke the protocol itself could do
anything to a store, and is a matter of access rights. All it may choose is what it claims, and when:
one request in flight at any moment, the next one as soon as the answer of the last one has come,
whatever the answer was.
"""

import random
from collections.abc import Callable, Sequence
from math import inf
from typing import Final

from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import EngineChoice, EngineRole, Run, Slice, SliceSpec
from flowos.model.transaction import Committed
from flowos.model.units import engine_unit
from flowos.model.view import Applied, CellView
from flowos.planning.engines.pool import Pool
from flowos.planning.policy import Policy
from flowos.protocol.commit import commit
from flowos.protocol.proposal import Fence, Proposal
from flowos.runtime.machine import Answer, Commit, Instruction

TENANT: Final = "bad"
GANG: Final = 8  # engines of one claim
HELD_SECONDS: Final = 0.02  # for which its slices run where it wins
SHARE: Final = 4  # what it holds is at most one engine in so many: the others always find enough


class Misbehaving:
    """A machine that claims at random, from a view that it never renews.

    Attributes:
        tried: How many claims it has made.
        won: How many of them the store took.
    """

    def __init__(
        self,
        view: CellView,
        *,
        fence: Callable[[], Fence],
        session: str,
        new_attempt: Callable[[], str],
        seed: int,
        stale: CellView,
    ) -> None:
        """Begin; `stale` is what it goes by, `view` what the shell feeds and it never looks at."""
        self.view = view
        self.tried = self.won = 0
        self.dice = random.Random(seed)  # what it claims, no secrets
        self.stale = stale
        self._fence, self._session, self._new_attempt = fence, session, new_attempt
        self._busy = False
        self._among = sorted(stale.cell.engines)[::SHARE]

    def changed(self, change: Applied) -> None:
        """It does not care."""

    def relisted(self) -> None:
        """Nor about this."""

    def needs(self) -> int:
        """Return 0: no view is too old for it."""
        return 0

    def wake_at(self) -> float:
        """Return at once, but for the one request that it waits for."""
        return inf if self._busy else 0.0

    def answered(self, commit: Commit, answers: Sequence[Answer], now: float) -> None:
        """Go on, whatever it was."""
        self._busy = False
        self.won += sum(isinstance(answer, Committed) for answer in answers)

    def step(self, now: float) -> list[Instruction]:
        """Claim again."""
        if self._busy:
            return []
        self.tried += 1
        proposal = self.claim(now)
        if proposal is None:
            return []
        self._busy = True
        return [Commit((proposal,))]

    def claim(self, now: float) -> Proposal | None:
        """Return a claim of engines at random; the stale view sees no harm in any."""
        return self._claim(self.stale, self.dice.sample(self._among, GANG), now)

    def _claim(self, view: CellView, engines: Sequence[str], now: float) -> Proposal | None:
        wanted = {"w": EngineRole((EngineChoice("gpu", count=GANG),))}
        spec = SliceSpec(
            f"b{self.tried}", tenant=TENANT, engines=wanted, run=Run(for_seconds=HELD_SECONDS)
        )
        return commit(
            view,
            spec.id,
            Decision({"w": tuple(engines)}, {engine_unit(engine): () for engine in engines}),
            fence=self._fence(),
            attempt=self._new_attempt(),
            scheduler=self._session,
            spec=(spec.id, Slice(spec=spec, submitted_at=now)),
        )


class Covetous(Misbehaving):
    """The same, but it claims just what the others want most: what their own policy chooses.

    It follows the cell as they do and plans with their policy what they are about to place. As long
    as it holds less than its share of the cell it often wins, and what they have planned is lost;
    beyond that it claims at random, and loses.
    """

    def __init__(
        self,
        view: CellView,
        policy: Policy,
        *,
        fence: Callable[[], Fence],
        session: str,
        new_attempt: Callable[[], str],
        seed: int,
        stale: CellView,
    ) -> None:
        """Begin, knowing the policy of the others."""
        super().__init__(
            view, fence=fence, session=session, new_attempt=new_attempt, seed=seed, stale=stale
        )
        self._policy = policy
        self._pool = Pool(view)

    def claim(self, now: float) -> Proposal | None:
        """Return a claim of the best engines that are free by a view as new as anybody's."""
        mine = sum(name.startswith(f"{TENANT}/") for name in self.view.placements)
        if mine * GANG >= len(self.view.cell.engines) // SHARE:
            return super().claim(now)
        wanted = {"w": EngineRole((EngineChoice("gpu", count=GANG),))}
        spec = SliceSpec("coveted", tenant=TENANT, engines=wanted)
        decision = self._policy.plan(
            self._pool, spec, seed=self.dice.getrandbits(32), avoid=frozenset()
        )
        if isinstance(decision, Unplaceable):
            return super().claim(now)
        return self._claim(self.view, decision.engines["w"], now) or super().claim(now)
