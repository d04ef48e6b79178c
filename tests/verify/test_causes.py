"""Is each violation explained with the transactions that made its facts, and no others?"""

import pytest
from hypothesis import given, settings

from flowos.model import keys
from flowos.model.codec import encode
from flowos.model.placement import Session
from flowos.model.transaction import Delete, Put, Transaction
from flowos.protocol.release import GIVEN_BACK, release
from flowos.protocol.system import drain
from flowos.verify import causes
from flowos.verify.history import Listed, verify_history, verify_now
from flowos.verify.laws import Violation
from flowos_store.memory import MemoryStore
from tests.verify.mistakes import PLANTED, T, order_of
from tests.verify.scene import (
    PAIR,
    PURSE,
    Scene,
    StoppedClock,
    X,
    Y,
    claim,
    decide,
    followed,
    whole,
)
from tests.verify.test_incremental import HISTORIES, VALUES
from tests.verify.test_planted import ONE_OF_EACH_LAW, held_of, seen_in


def planted(wrong, scene):
    """Plant a mistake; return what was written, when, and the violation as the history has it."""
    operations = list(wrong.plant(scene))
    revision = scene.write(*operations)
    found = verify_history(scene.store).violations
    return operations, revision, next(v for v in found if seen_in([v], wrong, revision))


def written_at(store, revision):
    """What a revision wrote, from the states around it."""
    before, after = (
        {r.key: r for r in store.read([""], at=at).records} for at in (revision - 1, revision)
    )
    put = {f"put {key}" for key, record in after.items() if record.modified == revision}
    return put | {f"deleted {key}" for key in before.keys() - after.keys()}


def names_the_mistake_and_what_it_contradicts(wrong, scene):
    operations, revision, violation = planted(wrong, scene)
    made = violation.transactions
    assert made[-1].revision == revision, "the planted transaction is the last that it took"
    signs = {"Put": "put", "Delete": "deleted"}
    assert set(made[-1].wrote) == {f"{signs[type(op).__name__]} {op.key}" for op in operations}
    assert 1 <= len(made) <= 2
    for earlier in made[:-1]:
        assert 0 <= earlier.revision < revision
        if earlier.revision:
            assert set(earlier.wrote) == written_at(scene.store, earlier.revision)
    assert all(one.kept for one in made)


@pytest.mark.parametrize("wrong", PLANTED, ids=lambda wrong: wrong.name)
def test_the_planted_transaction_is_named_with_all_that_it_wrote(wrong, little):
    names_the_mistake_and_what_it_contradicts(wrong, little)


@pytest.mark.etcd
@pytest.mark.parametrize("wrong", ONE_OF_EACH_LAW, ids=lambda wrong: wrong.name)
def test_the_planted_transaction_in_etcd_is_named_with_all_that_it_wrote(wrong, etcd_store):
    names_the_mistake_and_what_it_contradicts(wrong, Scene(etcd_store()))


# ------------------------------------------------------------------------- both, one by one


def explained(scene, law):
    """The transactions of the last violation of this law."""
    violation = [v for v in verify_history(scene.store).violations if v.law == law][-1]
    return [(made.revision, made.by, made.made) for made in violation.transactions]


def test_a_unit_held_twice_names_both_commits_and_not_what_was_written_since(scene):
    first = scene.place(T, X)
    scene.obey()
    scene.start(T)  # writes the placement again, and lists the unit no more than before
    drain = scene.rewritten(T, attempt="a9", uid=0, scheduler="")
    second = scene.write(Put("placement/~drain/engine/n1/x", drain.value))
    assert explained(scene, "claims") == [
        (first, "scheduler s", "default/t lists engine/n1/x"),
        (second, "operator", "~drain/engine/n1/x lists engine/n1/x"),
    ]


def test_a_lost_claim_names_the_commit_and_the_deletion(scene):
    first = scene.place(T, X)
    second = scene.write(scene.gone("claim/engine/n1/x"))
    scene.obey()
    assert explained(scene, "claims") == [
        (first, "scheduler s", "default/t lists engine/n1/x"),
        (second, "unknown", "claim/engine/n1/x is not there"),
    ]


def test_what_was_taken_over_is_the_doing_of_who_took_it(scene):
    scene.run(T, X)
    scene.write(scene.rewritten(T, scheduler="another"))
    scene.submit("default/u")
    taken = scene.commit("default/u", X, preempt=True)
    lost = scene.write(scene.gone("claim/engine/n1/x"))
    assert explained(scene, "claims") == [
        (taken, "scheduler s", "default/u lists engine/n1/x"),
        (lost, "unknown", "claim/engine/n1/x is not there"),
    ]


def test_what_a_drain_took_is_the_operators_doing(scene):
    scene.run(T, X)
    step = drain(scene.view(), "engine/n1/x", attempt="d1", fence=scene.fence(), take=True)
    taken = scene.do(step)
    scene.write(scene.gone("claim/engine/n1/x"))
    assert explained(scene, "claims")[0] == (
        taken,
        "operator",
        "~drain/engine/n1/x lists engine/n1/x",
    )


def test_a_claim_that_stays_behind_names_its_commit_and_the_end_of_its_placement(scene):
    first = scene.place(T, X)
    second = scene.write(scene.gone(f"placement/{T}"))
    assert explained(scene, "claims") == [
        (first, "scheduler s", "engine/n1/x is claimed for default/t, attempt a1"),
        (second, "controller", "default/t does not list engine/n1/x"),
    ]


def test_shares_over_the_whole_name_the_last_two_that_came(scene):
    half = decide({"share/n1/f": (500,)}, "n1/f")
    scene.place(T, half)
    one = scene.place("default/u", half)
    two = scene.write(*held_of("share/n1/f", 1))
    assert [made[0] for made in explained(scene, "shares")] == [one, two]


def test_two_orders_of_one_unit_name_who_gave_each(scene):
    scene.write(Put(keys.LEADER, encode(Session("controller", "c0"))))
    scene.run(T, X)
    first = scene.place("default/u", Y)
    scene.obey()
    second = scene.write(order_of(scene, "n1", units=("engine/n1/x", "engine/n2/y")))
    _, twice = (v for v in verify_history(scene.store).violations if v.law == "up")
    assert [(m.revision, m.by, m.made) for m in twice.transactions] == [
        (first, "scheduler s", "the order of a2 at n2 has engine/n2/y"),
        (second, "controller c0", "the order of a1 at n1 has engine/n2/y"),
    ]


def test_a_unit_freed_while_it_is_up_names_its_last_order_and_its_deletion(scene):
    scene.run(T, PAIR)
    scene.release(T)
    released = scene.store.read([f"placement/{T}"]).records[0].modified
    scene.obey("s1", "s2", "n2")
    left = dict(scene.placement(T).releasing)
    del left["engine/n1/x"]
    freed = scene.write(scene.gone("claim/engine/n1/x"), scene.rewritten(T, releasing=left))
    assert [made[0] for made in explained(scene, "freed")] == [released, freed]


def test_what_a_program_gave_back_itself_is_said_to_be_its_doing(little):
    little.run(T, X)
    step = release(little.view(), T, GIVEN_BACK, fence=little.fence())
    released = little.do(step)
    freed = little.write(little.gone("claim/engine/n1/x"), little.gone(f"placement/{T}"))
    assert [made[:2] for made in explained(little, "freed")] == [
        (released, "program with a scheduler of its own"),
        (freed, "controller"),
    ]


def test_grants_over_the_limit_name_the_last_that_came_before(scene):
    granted = scene.write(Put(f"grant/{PURSE}/q", b"300"))
    scene.submit(T)
    over = scene.write(Put(f"grant/{PURSE}/r", b"300"))
    assert [made[:2] for made in explained(scene, "raised")] == [
        (granted, "scheduler q"),
        (over, "scheduler r"),
    ]


def test_a_phase_off_its_table_names_who_made_it_what_it_was(scene):
    scene.run(T, X)
    started = scene.store.read([f"placement/{T}"]).records[0].modified
    scene.place("default/u", Y)
    gone = scene.write(scene.gone(f"placement/{T}"), scene.gone("claim/engine/n1/x"))
    (violation,) = (v for v in verify_history(scene.store).violations if v.law == "phases")
    assert [made.revision for made in violation.transactions] == [started, gone]
    assert violation.transactions[0].made == "default/t was running"


# ------------------------------------------------------------------------- what is not kept


def test_a_transaction_older_than_the_history_is_said_to_be(scene):
    first = scene.place(T, X)
    scene.place("default/u", Y)
    scene.write(scene.gone("claim/engine/n1/x"))
    newest = scene.submit("default/v")
    scene.store.compact(newest)
    made = verify_history(scene.store).violations[0].transactions
    assert [m.revision for m in made if not m.kept] == [first]
    assert made[-1].made == "default/t lists engine/n1/x"
    assert made[-1].wrote == ()


def test_a_fact_that_may_be_older_than_the_history_is_said_to_be(little):
    little.run(T, X)
    written_again = little.store.read([f"placement/{T}"]).records[0].modified
    lost = little.write(little.gone("claim/engine/n1/x"))
    little.store.compact(written_again)
    made = verify_history(little.store).violations[0].transactions
    assert [(m.revision, m.kept) for m in made] == [(written_again, False), (lost, True)]
    assert made[0].wrote == (f"put placement/{T}",)


def test_a_look_at_the_newest_state_finds_a_deletion_in_the_history(scene):
    first = scene.place(T, X)
    second = scene.write(scene.gone("claim/engine/n1/x"))
    scene.submit("default/v")
    (violation,) = verify_now(scene.store).violations[:1]
    assert [made.revision for made in violation.transactions] == [first, second]


def test_a_follower_explains_as_it_tells(little):
    first = little.place(T, X)
    with followed(little.store) as seen:
        seen.wait_for(lambda news: isinstance(news, Listed))
        second = little.write(little.gone("claim/engine/n1/x"))
        news = seen.wait_for(lambda news: isinstance(news, Violation))
    assert isinstance(news, Violation)
    assert [made.revision for made in news.transactions] == [first, second]
    assert news.transactions[1].wrote == ("deleted claim/engine/n1/x",)


def test_only_so_many_violations_are_explained(monkeypatch):
    monkeypatch.setattr(causes, "EXPLAINED_MAX", 3)
    scene = Scene(MemoryStore(StoppedClock()))
    scene.write(*(claim(unit, T, "a0") for unit in whole("n1/x", "n2/y", "n2/z", "n1/f")))
    found = verify_history(scene.store).violations
    assert [bool(v.transactions) for v in found] == [True, True, True, False]


def test_a_deletion_long_forgotten_is_still_found(little, monkeypatch):
    from flowos.verify import state

    monkeypatch.setattr(state, "GONE_MAX", 2)
    first = little.place(T, X)
    second = little.write(little.gone("claim/engine/n1/x"))
    for number in range(6):
        little.write(Put(f"reason/default/{number}", b"{}"))
        little.write(Delete(f"reason/default/{number}"))
    little.write(Put("claim/engine/n2/z", b"?"))
    assert [made[0] for made in explained(little, "claims")] == [first, second]


@given(HISTORIES)
@settings(print_blob=True)
def test_whatever_is_written_each_violation_is_explained(history):
    store = MemoryStore(StoppedClock())
    for writes in history:
        operations = []
        for key, choice in writes:
            options = VALUES[key]
            wanted = options[choice % len(options)] if choice < 50 else None
            operations.append(Delete(key) if wanted is None else Put(key, wanted))
        store.commit([Transaction((), tuple(operations))])
    found = verify_history(store).violations
    for violation in found[: causes.EXPLAINED_MAX]:
        revisions = [made.revision for made in violation.transactions]
        assert revisions == sorted(revisions)
        assert 1 <= len(revisions) <= 2
        assert revisions[-1] == violation.revision
        for made in violation.transactions:
            assert bool(made.wrote) is bool(made.revision)
            if made.revision:
                assert set(made.wrote) == written_at(store, made.revision)
