"""The rules of the shared state as a model that can be explored to the end.

    PYTHONPATH=.:store python -m tests.protocol.protocol_model

tells every scenario, and for each planted mistake the shortest way to disaster. A rule is changed
here first, then in flowos/protocol.

Part 1, `model_life`
  1 A claim is put or deleted only in a transaction that also writes or deletes the placement that
    lists it, comparing that placement. So claims are what placements list, at every revision.
  2 Every commit draws a fresh attempt id; orders and reports are keyed by node and attempt.
  3 Control writes orders ("this is to be up", perhaps nothing) with the placement; agents make
    devices equal to the order and then report its mod_revision, comparing it.
  4 Control frees a unit when the orders of all its nodes (both ends of a lane) are reported; the
    last free deletes orders, reports and the placement, and writes the end into the spec.
  5 Who takes units over waits for its victims' attempts: until no placement carries them, it gets
    no orders and frees nothing.
  6 A dead node's part of a placement is split off into a quarantine, which ends like any
    releasing placement.
  7 Every control transaction compares its process's session. A lost answer is decided by putting
    that key again, and then reading.
  8 A commit compares absent what would take its nodes and the links it crosses out of service.
  9 What circuits share is one unit of their slice; an aggregator is a unit as an engine is: it is
    claimed with the streams that meet in it, taken over alone or with them, and free only once its
    switch has reported that nothing is merged there any more.
 10 A gang too big for a compare per claim compares that no claim was put since its view, and
    plans only on what that view knows to be absent.
Part 2, `model_divisible`
 11 One claim per holder of a part, guarded by a range compare over all of them; what is planned
    for one request is planned on one working copy.
    `model_parts`: What a taker lacks moves from its victims' claims to its own, in one transaction
    that compares the victims, writes anew what they keep, and moves what was spent for it together
    with the grant, comparing that too. The rest is free when the victim is clean, and not before.
Part 3, `model_grants`
 12 A holder counts what is under way and unknown as used. Raising compares all grants and the
    limit. A dead holder's grant is fenced, then placements are read, then it is lowered.
    `model_quotas`: A commit compares its tenant's record, for what it has to spend depends on it;
    so what runs without a grant is what was placed before the quota was set, and only falls. A raise
    counts it as given away, on a view of placements that is complete up to when the quota was set.
    What is taken over is paid for by the taker's grant, and that much moves to it from the payer's.
Part 4, `model_answers`
 13 A lost answer is decided only when the session is known to stand at a later revision than the
    request compares, or to be gone, and by a view that is complete up to there. A fence whose own
    answer is lost is looked for, and put again where it did not happen. A session that is gone
    fences as well; the next one has another id.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from tests.protocol.model_answers import Answers
from tests.protocol.model_divisible import Divisible
from tests.protocol.model_grants import Grants
from tests.protocol.model_life import Life
from tests.protocol.model_parts import Parts
from tests.protocol.model_quotas import Quotas
from tests.protocol.model_reserved import Reserved
from tests.protocol.model_store import Found, Model, explore, wander

Make: TypeAlias = Callable[[tuple[str, ...]], Model]

ONE = {"S": [("X",)], "T": [("X",)]}
LANE = {"S": [("L", "X", "Y")], "T": [("X",)]}
LANES = {"S": [("L", "X", "Y")], "T": [("L", "X", "Y")]}
ALONE = {"S": [("L", "X", "Y")]}
SMALL = {"S": [("X",)]}
TREE = {"S": [("G", "L", "X", "Y", "Z")]}
SUMS = {"S": [("G", "Y")], "T": [("G", "Z")]}
MERGED = {"S": [("G", "L", "X", "Y")], "T": [("G", "Z")]}
BOTH: dict[str, Any] = {"submit S": 1, "submit T": 1}


def life(wants: Any, actors: str = "Ac", **budget: Any) -> Make:
    """Return a maker of lives; what is no setting of theirs is the budget."""
    settings = {
        key: budget.pop(key) for key in ("eager", "rank", "keeps", "gangs") if key in budget
    }
    # "submit_S" is how "submit S" can be written as a keyword.
    counts = {key.replace("_", " "): count for key, count in budget.items()}
    return lambda mistakes: Life(wants, counts, mistakes, actors=actors, **settings)


def grants(**budget: float) -> Make:
    """Return a maker of grants with this budget."""
    return lambda mistakes: Grants(mistakes, **budget)


def quotas(slices: str = "ST", **budget: float) -> Make:
    """Return a maker of quotas with this budget."""
    return lambda mistakes: Quotas(mistakes, slices=slices, **budget)


def parts(wants: dict[str, float], *, limit: float = 2.0, **budget: float) -> Make:
    """Return a maker of parts that are taken over, with this budget."""
    return lambda mistakes: Parts(wants, mistakes, limit=limit, **budget)


def answers(**budget: float) -> Make:
    """Return a maker of lost answers with this budget."""
    return lambda mistakes: Answers(mistakes, **budget)


SOUND: dict[str, Make] = {
    "cancel, name used again, lost answers": life(ONE, submit_S=2, cancel=1, lose=1),
    "two schedulers, two controllers, stale frees": life(
        ONE, "ABcd", submit_S=1, cancel=1, eager=False
    ),
    "lost answers of two schedulers": life(ONE, "ABc", submit_S=1, lose=2),
    "take-over of engine and lane": life(LANES, **BOTH, preempt=1),
    "take-over of one engine, cancel": life(ONE, **BOTH, preempt=1, cancel=1),
    "drain and undrain": life(LANE, submit_S=1, drain=1, cancel=1),
    "nodes and links out of service": life(LANE, submit_S=1, cordon=2),
    "power off and wake": life(ONE, submit_S=1, off=1, cancel=1),
    "shrink and grow": life(ALONE, submit_S=1, resize=1, cancel=1),
    "grow while nodes go out of service": life(SMALL, submit_S=1, resize=1, cordon=1),
    "a tree loses a branch": life(TREE, submit_S=1, resize=1, keeps=("L", "X", "Y")),
    "aggregators": life(SUMS, **BOTH),
    "take-over of an aggregator": life(MERGED, **BOTH, preempt=1),
    "an agent dies and returns": life(LANE, submit_S=1, die=1),
    "gangs guarded by ranges": life(ONE, **BOTH, cordon=1, gangs=True),
    "divisible units": Divisible,
    "a reservation comes and goes": Reserved,
    "parts are taken from two": parts({"S": 1.0, "T": 1.0, "U": 1.5}, S=1, T=1, U=1, end=3),
    "parts are taken, and grants change hands": parts(
        {"S": 1.0, "U": 1.5}, limit=3.0, S=1, U=1, end=2, back=1, other=1
    ),
    "parts of one that is placed again": parts({"S": 1.5, "U": 1.0}, S=2, U=1, end=3, back=1),
    "grants: a holder dies": grants(lose=0, lower=0, spend=1),
    "grants: a holder dies after a lost answer": grants(lower=0, grow=0, spend=2),
    "grants: the limit falls": grants(lose=0, crash=0, spend=2),
    "grants: lost answers": grants(crash=0, lower=0),
    "quotas: set while slices run": quotas(lower=0),
    "quotas: lowered while grants are raised": quotas(commit=1),
    "quotas: taken over from another scheduler's slice": quotas(lower=0, commit=1, take=1),
    "answers: of requests and of fences are lost": answers(lose=4, expire=0),
    "answers: are lost while the lease runs out": answers(lose=3),
}

PLANTED: dict[str, Make] = {
    "spec not compared": life(ONE, submit_S=1, cancel=1),
    "ended not written": life(ONE, submit_S=1),
    "free does not wait": life(LANE, **BOTH, preempt=1, cancel=1),
    "undrain does not wait": life(LANE, submit_S=1, drain=1),
    "orders put at take-over": life(LANES, **BOTH, preempt=1),
    "victim keeps taken units": life(LANE, **BOTH, preempt=1),
    "orders not rewritten at release": life(ONE, submit_S=1),
    "one end frees a lane": life(ALONE, submit_S=1, resize=1),
    "power-off compares nothing": life(ONE, submit_S=1, off=1),
    "grow ignores state": life({"S": [("L", "X")]}, submit_S=1, resize=1, cancel=1),
    "dead units become free": life(LANE, submit_S=1, die=1),
    "no claim left is enough": life(ONE, **BOTH, preempt=1),
    "session not compared": life(ONE, submit_S=1, lose=1),
    "lost answers are only read": life(ONE, submit_S=1, lose=1),
    "commit ignores service": life(LANE, submit_S=1, cordon=1),
    "crossed links are not asked": life(LANE, submit_S=1, cordon=1),
    "grow ignores service": life(SMALL, submit_S=1, resize=1, cordon=1),
    "a branch takes the shared lane": life(TREE, submit_S=1, resize=1, keeps=("L", "X", "Y")),
    "aggregator is no unit": life(SUMS, "AB", **BOTH),
    "aggregator needs no report": life(SUMS, **BOTH),
    "range since the request": life(ONE, "AB", **BOTH, gangs=True),
    "known absent is not checked": life(LANE, submit_S=1, cordon=1, gangs=True),
    "no range guard": Divisible,
    "siblings planned apart": Divisible,
    "whole ignores shares": Divisible,
    "share ignores whole": Divisible,
    "drain ignores new shares": Divisible,
    "epoch not compared": Reserved,
    "anybody takes what is kept": Reserved,
    "who takes does not wait": Reserved,
    "what is kept is not compared": Reserved,
    "let go while it is dirty": Reserved,
    "the victim is not compared": Reserved,
    "no guard": parts({"S": 1.0, "T": 1.0, "U": 1.5}, limit=4.0, S=1, T=1, U=1, end=3),
    "rest is free at once": parts({"S": 1.5, "U": 1.0}, S=1, U=1, end=2, back=1),
    "rest is not written": parts({"S": 1.5, "U": 1.0}, S=1, U=1, end=2, back=1),
    "victim not compared": parts({"S": 1.5, "U": 1.0}, S=1, U=1, end=2, back=1),
    "victim spends on": parts({"S": 1.5, "U": 1.0}, S=1, U=1, end=2, back=1),
    "victim's grant not compared": parts(
        {"S": 1.0, "U": 1.5}, limit=3.0, S=1, U=1, end=2, back=1, other=1
    ),
    "grant stays": parts({"S": 1.5, "U": 1.0}, S=1, U=1, end=2, back=1),
    "armed early": parts({"S": 1.5, "U": 1.0}, S=1, U=1, end=2, back=1),
    "in flight not counted": grants(lose=0, crash=0, lower=0),
    "absent is an answer": grants(crash=0, lower=0),
    "session of the holder not compared": grants(crash=0, lower=0),
    "dead holder in one step": grants(lose=0, grow=0, lower=0),
    "takes on an older look": grants(lose=0, grow=0, lower=0),
    "raise without range compare": grants(lose=0, crash=0, lower=0, spend=0, grow=2),
    "raise without limit compare": grants(lose=0, crash=0, spend=0),
    "tenant not compared": quotas(lower=0),
    "the epoch will do": quotas(lower=0),
    "an older look at placements": quotas(lower=0),
    "what is uncovered is forgotten": quotas(lower=0),
    "the victim's grant is not compared": quotas("TU", lower=0, commit=1, take=1),
    "the grant stays with the victim": quotas(lower=0, commit=1, take=1),
    "a read alone decides": answers(lose=1, expire=0),
    "an older view will do": answers(lose=1, expire=0),
    "a lost fence counts as put": answers(expire=0),
    "any fence will do": answers(expire=0),
    "a session is known by its name": answers(lose=1),
}

EVERYTHING = life(
    {"S": [("L", "X", "Y"), ("X",)], "T": [("X",), ("Y",), ("L", "X", "Y")]},
    "ABcd",
    eager=False,
    rank=False,
    **BOTH,
    preempt=2,
    cancel=2,
    lose=2,
    off=1,
    drain=1,
    cordon=1,
    die=1,
    resize=2,
)


def at_random(seconds: float, seed: int = 1) -> Found:
    """Walk through all of part 1 at once."""
    return wander(EVERYTHING(()), seconds=seconds, steps=120, seed=seed)


def main() -> int:
    """Tell what every scenario and every mistake leads to."""
    wrong, start = 0, time.monotonic()
    for name, make in SOUND.items():
        since = time.monotonic()
        found = explore(make(()))
        took = time.monotonic() - since
        print(f"{name:46} {found.states:7} states  {took:4.1f} s  {found.what or 'ok'}")
        print(*(f"    {label}" for label in found.trace), sep="\n", end="\n" if found.trace else "")
        wrong += bool(found.what)
    found = at_random(5)
    print(f"{'all of it at random':46} {found.states:7} steps   5.0 s  {found.what or 'ok'}")
    wrong += bool(found.what)
    for name, make in PLANTED.items():
        found = explore(make((name,)))
        wrong += not found.what
        steps = len(found.trace)
        print(
            f"planted: {name:37} {found.states:7} states, {steps:2} steps: {found.what or 'NOT CAUGHT'}"
        )
    print(f"{wrong} wrong, {time.monotonic() - start:.0f} s")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
