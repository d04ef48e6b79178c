"""What is done to devices for an order, in which order, and what is said of it: the agent's machine."""

from dataclasses import replace
from typing import Any

import pytest

from flowos.drivers.step import Verb
from flowos.model import keys
from flowos.model.codec import decode, encode
from flowos.model.errors import StoreRefused
from flowos.model.placement import Arc, Gang, Joined, Observed, Order, Report, Turn
from flowos.model.slice import Run
from flowos.model.transaction import Change, Conflicted, Delete, Put
from flowos.simulation.devices import Bench
from tests.runtime.cells import small_cell
from tests.runtime.theatre import TTL_SECONDS, Player, Theatre

ADD, SUM = "add@1", "sum@1"
TURN = Turn("t/0", Arc("in", "fwd", (0,)), (Arc("out", "fwd", (0,)),))
SECONDS = dict.fromkeys(Verb, 1.0)


class Workshop(Theatre):
    """One agent for node n0 and its switch, whose orders the test writes by hand."""

    def __init__(self, *, seconds: float = 1.0, alone: bool = True) -> None:
        super().__init__(small_cell(shareable_fpgas=True))
        self.failing: dict[tuple[Verb, str], int] = {}
        self.exit_codes: dict[str, int] = {}
        self.slow = dict.fromkeys(Verb, seconds)
        if alone:
            self.player = self.agent("n0", "sw0", seconds=self.slow, prepare=self.prepare)
            self.settle()

    def prepare(self, bench: Bench) -> None:
        bench.failing, bench.exit_codes = self.failing, self.exit_codes

    def check(self) -> None:
        """There is no placement behind these orders."""

    def order(self, attempt: str, *units: str, place: str = "n0", **more: Any) -> int:
        record = Order(slice="default/t", units=units, **more)
        return self.write(Put(keys.order(place, attempt), encode(record)))

    def drop(self, attempt: str, place: str = "n0") -> int:
        """Remove an order, with its report."""
        return self.write(Delete(keys.order(place, attempt)), Delete(keys.report(place, attempt)))

    def report(self, attempt: str, place: str = "n0") -> Report:
        record = self.records("report/").get(keys.report(place, attempt))
        return decode(Report, record.value) if record else Report()

    def applied(self, attempt: str, place: str = "n0") -> bool:
        order = self.records("order/").get(keys.order(place, attempt))
        return order is not None and self.report(attempt, place).applied == order.modified

    def done(self, attempt: str = "", place: str = "") -> list[str]:
        return self.devices.verbs(attempt, place)


@pytest.fixture
def shop() -> Workshop:
    return Workshop()


# ------------------------------------------------------------------------------------ up and down


def test_what_goes_up_is_powered_then_loaded_then_connected_then_run(shop):
    shop.write(Put("observed/n0/gpu0", encode(Observed(power="off"))))
    shop.order(
        "a",
        "engine/n0/fpga0",
        "engine/n0/gpu0",
        "lane/x/fwd/0",
        bitstreams={"n0/fpga0": SUM},
        run=Run(for_seconds=5.0),
    )
    shop.play(0.5)
    assert shop.done() == ["power on n0/gpu0"]
    assert not shop.applied("a")
    shop.play(10)
    assert shop.done() == ["power on n0/gpu0", "load n0/fpga0", "connect", "run"]
    assert shop.applied("a")
    assert shop.report("a").exit_code == 0
    assert shop.observed("n0/gpu0") == Observed(power="on")
    assert shop.observed("n0/fpga0") == Observed(bitstream=SUM, task="a")


def test_an_order_is_reported_as_being_built_before_it_is_applied(shop):
    revision = shop.order("a", "engine/n0/fpga0", bitstreams={"n0/fpga0": SUM})
    shop.play(0.5)
    assert shop.report("a") == Report(building=revision)
    shop.play(5)
    assert shop.report("a") == Report(applied=revision, building=revision)


LEAVE = Run(grace_seconds=8.0)


def test_tasks_that_give_way_are_told_and_have_their_grace_before_anything_goes_down(shop):
    shop.order("a", "engine/n0/gpu0", "lane/x/fwd/0", run=Run(for_seconds=100.0))
    shop.play(5)
    shop.devices.steps.clear()
    revision = shop.order("a", run=LEAVE)
    shop.play(8.5)
    assert shop.done() == ["stop"]
    assert shop.devices.running
    shop.play(0.6)
    assert shop.done() == ["stop", "disconnect"]
    shop.play(3)
    assert shop.done() == ["stop", "disconnect", "scrub n0/gpu0"]
    assert shop.report("a").applied == revision


def test_a_switch_keeps_circuits_until_the_tasks_that_its_agent_knows_of_have_ended(shop):
    shop.order("a", "engine/n0/gpu0", run=Run(for_seconds=10.0))
    shop.order("a", "lane/x/fwd/0", place="sw0", crossbar=(TURN,))
    shop.play(5)
    shop.devices.steps.clear()
    shop.order("a", place="sw0", run=LEAVE)
    shop.order("a", run=LEAVE)
    shop.play(5.0)
    assert shop.done(place="sw0") == []
    shop.play(5.0)
    assert shop.done(place="sw0") == ["disconnect"]
    assert shop.applied("a", "sw0")


def test_a_switch_keeps_circuits_for_the_grace_at_most(shop):
    shop.order("a", "lane/x/fwd/0", place="sw0", crossbar=(TURN,))
    shop.play(5)
    shop.devices.steps.clear()
    shop.order("a", place="sw0", run=LEAVE)
    shop.play(7.9)
    assert shop.done() == []
    shop.play(0.2)
    assert shop.done() == ["disconnect"]


def test_an_agent_that_begins_anew_tells_tasks_again_and_gives_no_more_than_their_grace(shop):
    shop.order("a", "engine/n0/gpu0", run=Run(for_seconds=100.0))
    shop.play(5)
    shop.order("a", run=LEAVE)
    shop.play(4)
    shop.devices.steps.clear()
    shop.player.replace()
    shop.play(0.1)
    ((_, stop),) = shop.devices.steps
    assert (stop.verb, stop.attempt, stop.graces) == (Verb.STOP, "", {"a": 8.0})
    shop.play(15)
    assert shop.applied("a")


def test_what_goes_down_is_stopped_then_disconnected_then_scrubbed(shop):
    shop.order("a", "engine/n0/gpu0", "lane/x/fwd/0", run=Run(for_seconds=100.0))
    shop.play(5)
    shop.devices.steps.clear()
    revision = shop.order("a")
    shop.play(2.5)
    assert shop.done() == ["stop", "disconnect", "scrub n0/gpu0"]
    assert shop.report("a").applied < revision
    shop.play(1)
    assert shop.report("a").applied == revision
    assert shop.report("a").exit_code is None


def test_a_switch_is_connected_and_disconnected_and_runs_nothing(shop):
    shop.order("a", "lane/x/fwd/0", place="sw0", crossbar=(TURN,))
    shop.play(5)
    assert shop.applied("a", "sw0")
    shop.order("a", place="sw0")
    shop.play(5)
    assert shop.applied("a", "sw0")
    assert shop.done() == ["connect", "disconnect"]


def test_an_aggregator_is_connected_and_let_go_like_a_lane(shop):
    lane, unit = "lane/x/fwd/0", "aggregator/sw0/0"
    merging = replace(TURN, merged=(TURN.into,), aggregator=unit, function="sum")
    shop.order("a", lane, unit, place="sw0", crossbar=(merging,))
    shop.play(5)
    assert set(shop.devices.lit) == {("sw0", lane), ("sw0", unit)}
    shop.order("a", lane, place="sw0", crossbar=(TURN,))
    shop.play(5)
    assert shop.applied("a", "sw0")
    assert shop.done() == ["connect", "disconnect", "connect"]
    assert set(shop.devices.lit) == {("sw0", lane)}


def test_a_changed_crossbar_is_connected_again(shop):
    shop.order("a", "lane/x/fwd/0", place="sw0", crossbar=(TURN,))
    shop.play(5)
    shop.order("a", "lane/x/fwd/0", place="sw0")
    shop.order("a", "lane/x/fwd/0", place="sw0", crossbar=(TURN, TURN))
    shop.play(5)
    assert shop.done() == ["connect", "connect"]


def test_a_bitstream_that_is_there_is_not_loaded_again(shop):
    shop.write(Put("observed/n0/fpga0", encode(Observed(bitstream=SUM))))
    shop.order("a", "engine/n0/fpga0", bitstreams={"n0/fpga0": SUM})
    shop.play(5)
    assert shop.done() == []
    assert shop.applied("a")
    shop.order("a")
    shop.play(5)
    shop.order("b", "engine/n0/fpga0", bitstreams={"n0/fpga0": ADD})
    shop.play(5)
    assert shop.done("b") == ["load n0/fpga0"]
    assert shop.observed("n0/fpga0") == Observed(bitstream=ADD, task="b")


def test_a_bitstream_does_not_survive_without_power(shop):
    shop.write(Put("observed/n0/fpga0", encode(Observed(power="off", bitstream=SUM))))
    shop.order("a", "engine/n0/fpga0", bitstreams={"n0/fpga0": SUM})
    shop.play(5)
    assert shop.done() == ["power on n0/fpga0", "load n0/fpga0"]


def test_tasks_that_end_are_reported_with_the_exit_code_of_their_node(shop):
    shop.exit_codes["n0"] = 3
    shop.order("a", "engine/n0/gpu0", run=Run(for_seconds=2.0))
    shop.play(1.5)
    assert shop.report("a").exit_code is None
    shop.play(1)
    assert shop.report("a").exit_code == 3


def test_tasks_that_were_stopped_say_nothing_more(shop):
    shop.order("a", "engine/n0/gpu0", run=Run(for_seconds=4.0))
    shop.play(1)
    shop.order("a")
    shop.play(20)
    assert shop.report("a").exit_code is None


def test_what_is_ordered_down_in_the_middle_of_building_is_torn_down_whole(shop):
    shop.order("a", "engine/n0/fpga0", "lane/x/fwd/0", bitstreams={"n0/fpga0": SUM})
    shop.play(0.5)
    shop.order("a")
    shop.play(10)
    assert shop.done() == ["load n0/fpga0", "connect", "disconnect", "scrub n0/fpga0"]
    assert shop.applied("a")
    assert shop.observed("n0/fpga0") == Observed(bitstream=SUM)


def test_what_is_ordered_up_in_the_middle_of_a_teardown_is_built_after_it(shop):
    shop.order("a", "engine/n0/gpu0", "lane/x/fwd/0")
    shop.play(5)
    shop.order("a")
    shop.play(0.5)
    shop.order("a", "engine/n0/gpu0", "lane/x/fwd/0")
    shop.play(10)
    assert shop.done() == ["connect", "disconnect", "scrub n0/gpu0", "connect"]
    assert shop.applied("a")


def test_an_order_that_shrinks_keeps_what_it_still_names(shop):
    fpgas = {"n0/fpga0": SUM}
    shop.order("a", "engine/n0/fpga0", "engine/n0/gpu0", bitstreams=fpgas)
    shop.play(5)
    shop.order("a", "engine/n0/gpu0")
    shop.play(5)
    assert shop.done() == ["load n0/fpga0", "scrub n0/fpga0"]
    assert shop.applied("a")
    assert shop.observed("n0/fpga0") == Observed(bitstream=SUM)


def test_an_order_that_is_gone_is_torn_down_without_a_word(shop):
    shop.order("a", "engine/n0/fpga0", bitstreams={"n0/fpga0": SUM})
    shop.play(5)
    shop.drop("a")
    shop.play(5)
    assert shop.done() == ["load n0/fpga0", "scrub n0/fpga0"]
    assert shop.records("report/") == {}
    assert shop.observed("n0/fpga0") == Observed(bitstream=SUM)


def test_an_order_older_than_one_that_was_built_is_never_carried_out(shop):
    shop.order("a", "engine/n0/gpu0", run=Run(for_seconds=1.0))
    shop.play(5)
    newest = shop.order("a")
    shop.play(5)
    machine = shop.player.machine
    stale = encode(Order(slice="default/t", units=("engine/n0/gpu0",)))
    machine.changed(machine.view.apply(Change("order/n0/a", stale, newest - 1, newest - 1)))
    shop.player._awake = True
    shop.play(5)
    assert shop.done() == ["run", "stop", "scrub n0/gpu0"]
    assert shop.report("a").applied == newest


def test_a_report_on_an_order_that_was_rewritten_meanwhile_is_not_written(shop):
    shop.order("a", "engine/n0/gpu0")
    while not shop.player.requests:
        shop.player.move(shop.player.next_move())
    newest = shop.order("a", "engine/n0/gpu0", "engine/n0/gpu1")
    shop.player.move("send")
    assert shop.records("report/") == {}
    shop.play(5)
    assert shop.report("a").applied == newest


def test_a_report_of_an_earlier_life_never_has_the_last_word(shop):
    shop.order("a", "engine/n0/gpu0", run=Run(for_seconds=2.0))
    while not shop.player.requests:
        shop.player.move(shop.player.next_move())
    late = [each.transaction for each in shop.player.requests[0].proposals]
    earlier = shop.player.session.key
    shop.player.replace()
    shop.play(TTL_SECONDS - 1)
    said = shop.report("a")
    assert said.exit_code == 0
    # Killed, so its session is still there: only what was said since can stand in its way.
    assert earlier in shop.records("session/")
    assert [type(outcome) for outcome in shop.store.commit(late)] == [Conflicted] * len(late)
    assert shop.report("a") == said


def test_reports_go_in_groups_and_compare_session_and_order(shop):
    for number in range(30):
        shop.order(f"a{number:02}", "host/n0")
    sizes = []
    while shop.player.next_move():
        if shop.player.next_move() == "send":
            commit = shop.player.requests[0]
            sizes.append(len(commit.proposals))
            for proposal in commit.proposals:
                compared = {c.key: c.revision for c in proposal.transaction.compares}
                assert compared[shop.player.session.key] == shop.player.session.fence.revision
                assert compared[f"order/{proposal.identifier}"] > 0
        shop.player.move(shop.player.next_move())
    assert sizes == [24, 6]


# -------------------------------------------------------------------------------- one after another


def test_a_unit_is_built_only_when_no_other_attempt_has_it_up_here(shop):
    # Control orders it only then too; the agent does not rely on it.
    shop.order("a", "engine/n0/gpu0", run=Run(for_seconds=100.0))
    shop.play(1)
    shop.order("b", "engine/n0/gpu0", run=Run(for_seconds=100.0))
    shop.play(5)
    assert shop.done("b") == []
    shop.order("a")
    shop.play(1.5)
    assert shop.done("b") == []
    shop.play(1)
    assert shop.done("a") == ["run", "stop", "scrub n0/gpu0"]
    assert shop.done("b") == ["run"]
    assert shop.applied("b")


def test_a_lane_is_crossed_by_one_attempt_at_a_time(shop):
    shop.order("a", "lane/x/fwd/0", place="sw0", crossbar=(TURN,))
    shop.play(2)
    shop.order("b", "lane/x/fwd/0", place="sw0", crossbar=(TURN,))
    shop.play(2)
    shop.order("a", place="sw0")
    shop.play(5)
    assert shop.done() == ["connect", "disconnect", "connect"]
    assert shop.applied("b", "sw0")


def test_shares_of_one_engine_are_up_side_by_side(shop):
    for attempt in ("a", "b", "c"):
        shop.order(attempt, "share/n0/gpu0", run=Run(for_seconds=50.0))
    shop.play(2)
    assert shop.done() == ["run", "run", "run"]
    shop.order("b")
    shop.play(5)
    assert shop.done("b") == ["run", "stop", "scrub n0/gpu0"]
    assert shop.applied("a")
    assert shop.applied("c")


def test_two_shares_that_come_together_load_their_engine_once(shop):
    loaded = {"n0/fpga0": SUM}
    shop.write(Put("observed/n0/fpga0", encode(Observed(power="off"))))
    shop.order("a", "share/n0/fpga0", bitstreams=loaded, run=Run(for_seconds=50.0))
    shop.order("b", "share/n0/fpga0", bitstreams=loaded, run=Run(for_seconds=50.0))
    shop.play(20)
    assert sorted(shop.done()) == ["load n0/fpga0", "power on n0/fpga0", "run", "run"]
    assert shop.applied("a")
    assert shop.applied("b")


def test_two_shares_that_begin_at_the_same_moment_are_both_reported():
    shop = Workshop(seconds=0.0)
    loaded = {"n0/fpga0": SUM}
    shop.order("a", "share/n0/fpga0", bitstreams=loaded)
    shop.order("b", "share/n0/fpga0", bitstreams=loaded)
    shop.play(20)
    assert shop.applied("a")
    assert shop.applied("b")
    assert not any("refused" in told for told in shop.trace)
    shop.order("a")
    shop.order("b")
    shop.play(20)
    assert shop.applied("a")
    assert shop.applied("b")
    assert shop.observed("n0/fpga0") == Observed(bitstream=SUM)


# -------------------------------------------------------------------------------------------- power


def test_an_engine_is_powered_off_and_on_again(shop):
    shop.order("o", off=("n0/gpu0",))
    shop.play(5)
    assert shop.observed("n0/gpu0").power == "off"
    assert shop.records("report/") == {}
    shop.drop("o")
    shop.order("a", "engine/n0/gpu0")
    shop.play(5)
    assert shop.done() == ["power off n0/gpu0", "power on n0/gpu0"]
    assert shop.observed("n0/gpu0").power == "on"
    assert shop.applied("a")


@pytest.mark.parametrize("seconds", [0.0, 1.0])
@pytest.mark.parametrize("after", [0.0, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("unit", ["engine/n0/fpga0", "share/n0/fpga0"])
def test_an_engine_woken_while_it_is_powered_off_ends_on_and_loaded(seconds, after, unit):
    shop = Workshop(seconds=seconds)
    shop.order("o", off=("n0/fpga0",))
    shop.play(after) if after else None
    shop.write(
        Delete("order/n0/o"),
        Put(
            "order/n0/a",
            encode(Order("default/t", units=(unit,), bitstreams={"n0/fpga0": SUM})),
        ),
    )
    shop.play(20)
    assert shop.observed("n0/fpga0") == Observed(power="on", bitstream=SUM, task="a")
    assert shop.applied("a")
    assert not any("refused" in told for told in shop.trace)
    # What was done to the engine ends with the load.
    assert shop.done()[-1] == "load n0/fpga0"


def test_what_is_said_of_an_engine_arrives_in_the_order_in_which_it_happened():
    shop = Workshop(seconds=0.0)
    shop.order("o", off=("n0/gpu0",))
    player = shop.player
    while not player.requests:
        player.move(player.next_move())
    shop.drop("o")
    shop.order("a", "engine/n0/gpu0")
    for _ in range(20):  # everything but the first request's arrival
        player.move(next((m for m in player.possible_moves() if m != "send"), "step"))
    while player.requests:  # the last comes first
        player.requests.rotate(1)
        player.move("send")
    shop.play(5)
    assert shop.observed("n0/gpu0").power == "on"


def test_an_engine_that_cannot_be_powered_off_is_given_to_whoever_wakes_it(shop):
    shop.failing[Verb.POWER_OFF, "n0/gpu0"] = -1
    shop.order("o", off=("n0/gpu0",))
    shop.play(5)
    assert shop.observed("n0/gpu0").power == "on"
    shop.drop("o")
    shop.order("a", "engine/n0/gpu0")
    shop.play(5)
    assert shop.applied("a")


# ----------------------------------------------------------------------------------------- failures


def test_an_order_that_cannot_be_built_is_reported_failed_and_torn_down_when_told(shop):
    shop.failing[Verb.LOAD, "n0/fpga0"] = -1
    revision = shop.order("a", "engine/n0/fpga0", "lane/x/fwd/0", bitstreams={"n0/fpga0": SUM})
    shop.play(5)
    assert shop.report("a") == Report(building=revision, failed="no load of n0/fpga0")
    assert shop.done() == ["load n0/fpga0"]
    shop.play(100)
    assert shop.done() == ["load n0/fpga0"]
    shop.order("a")
    shop.play(10)
    assert shop.applied("a")
    assert shop.done() == ["load n0/fpga0", "disconnect", "scrub n0/fpga0"]


def test_after_a_failed_load_nobody_takes_the_old_bitstream_for_granted(shop):
    shop.write(Put("observed/n0/fpga0", encode(Observed(bitstream=ADD))))
    shop.failing[Verb.LOAD, "n0/fpga0"] = 1
    shop.order("a", "engine/n0/fpga0", bitstreams={"n0/fpga0": SUM})
    shop.play(5)
    shop.order("a")
    shop.play(5)
    shop.order("b", "engine/n0/fpga0", bitstreams={"n0/fpga0": ADD})
    shop.play(5)
    assert shop.done("b") == ["load n0/fpga0"]
    assert shop.observed("n0/fpga0") == Observed(bitstream=ADD, task="b")


def test_steps_beside_one_that_failed_are_waited_for_and_told_of(shop):
    shop.player.bench.inner._takes = lambda step: 1.0 if step.subject == "n0/fpga0" else 3.0
    shop.failing[Verb.LOAD, "n0/fpga0"] = 1
    shop.order(
        "a",
        "engine/n0/fpga0",
        "engine/n0/gpu0",
        bitstreams={"n0/fpga0": SUM, "n0/gpu0": SUM},
    )
    shop.play(2)
    assert not shop.report("a").failed
    shop.order("a")
    shop.play(0.5)
    assert "scrub n0/gpu0" not in shop.done()  # it is still being loaded
    shop.play(20)
    assert shop.observed("n0/gpu0") == Observed(bitstream=SUM)
    assert shop.applied("a")


@pytest.mark.parametrize("verb", [Verb.SCRUB, Verb.STOP, Verb.DISCONNECT])
def test_what_cannot_be_torn_down_is_tried_again_and_never_let_go(shop, verb):
    subject = "n0/gpu0" if verb is Verb.SCRUB else ""
    shop.order("a", "engine/n0/gpu0", "lane/x/fwd/0", run=Run(for_seconds=50.0))
    shop.play(5)
    shop.failing[verb, subject] = 3
    shop.order("a")
    shop.play(7)
    assert not shop.applied("a")
    shop.play(5)
    assert shop.applied("a")
    assert shop.done().count(f"{verb} {subject}".strip()) == 4


def test_a_refused_report_is_sent_again_alone_and_others_with_it_arrive(shop):
    commit = shop.store.commit

    def refuse(transactions, **more):
        if any("report/n0/bad" in op.key for t in transactions for op in t.operations):
            raise StoreRefused("etcdserver: request is too large")
        return commit(transactions, **more)

    shop.store.commit = refuse
    for attempt in ("good", "bad", "other"):
        shop.order(attempt, "host/n0")
    shop.play(5)
    assert shop.applied("good")
    assert shop.applied("other")
    shop.store.commit = commit
    shop.play(5)
    assert shop.applied("bad")


def test_a_record_that_cannot_be_read_stops_no_agent(shop):
    for family in ("order/n0/x", "report/n0/a", "observed/n0/gpu0", "observed/strange", "order/x"):
        shop.write(Put(family, b"?"))
    shop.order("a", "engine/n0/gpu0")
    shop.play(5)
    assert shop.applied("a")
    shop.player.replace()
    shop.order("b", "engine/n0/gpu1")
    shop.play(5)
    assert shop.applied("b")


# ------------------------------------------------------------------------------------------ restart


def restarted(at: float) -> Workshop:
    """A life of two orders on one FPGA, with the agent replaced after some seconds."""
    shop = Workshop()
    loaded = {"n0/fpga0": SUM}
    shop.order("a", "engine/n0/fpga0", "lane/x/fwd/0", bitstreams=loaded, run=Run(for_seconds=2.0))
    for until in (8.0, 16.0):
        if shop.clock.now <= at < until:
            shop.play(at - shop.clock.now) if at > shop.clock.now else None
            shop.player.replace()
        shop.play(until - shop.clock.now)
        if until == 8.0:
            assert shop.applied("a")
            assert shop.report("a").exit_code == 0
            shop.order("a")
    return shop


@pytest.mark.parametrize("at", [n / 4 for n in range(60)])
def test_an_agent_that_starts_anew_at_any_moment_ends_with_the_devices_as_ordered(at):
    shop = restarted(at)
    assert shop.applied("a")
    assert shop.report("a").exit_code == 0
    assert shop.observed("n0/fpga0") == Observed(bitstream=SUM)
    shop.order("b", "engine/n0/fpga0", bitstreams={"n0/fpga0": ADD})
    shop.play(5)
    assert shop.applied("b")
    assert shop.observed("n0/fpga0") == Observed(bitstream=ADD, task="b")


def test_an_agent_that_starts_anew_scrubs_what_a_task_was_left_on(shop):
    shop.order("a", "engine/n0/fpga0", bitstreams={"n0/fpga0": SUM})
    shop.play(5)
    shop.player.die()
    shop.order("a")
    shop.player.acts = True
    shop.player.enter()
    shop.devices.steps.clear()
    shop.play(2.5)
    assert shop.done() == ["stop", "disconnect", "scrub"]  # it knows of nothing else at the place
    assert not shop.applied("a")
    shop.play(5)
    assert shop.applied("a")
    assert shop.observed("n0/fpga0") == Observed(bitstream=SUM)


def test_an_agent_that_starts_anew_scrubs_for_orders_that_are_gone(shop):
    shop.order("a", "engine/n0/fpga0", bitstreams={"n0/fpga0": SUM})
    shop.play(5)
    shop.player.die()
    shop.drop("a")
    shop.order("b", "engine/n0/fpga0", bitstreams={"n0/fpga0": ADD})
    shop.player.acts = True
    shop.player.enter()
    shop.devices.steps.clear()
    shop.play(10)
    assert shop.done() == ["stop", "disconnect", "scrub", "load n0/fpga0"]
    assert shop.observed("n0/fpga0") == Observed(bitstream=ADD, task="b")


def test_a_task_that_has_ended_is_not_run_again_by_the_next_agent(shop):
    shop.order("a", "engine/n0/gpu0", run=Run(for_seconds=2.0))
    shop.play(5)
    assert shop.report("a").exit_code == 0
    shop.player.replace()
    shop.devices.steps.clear()
    shop.play(10)
    assert shop.done() == []


def test_a_listing_shows_the_agent_orders_that_came_and_went_meanwhile(shop):
    shop.order("a", "engine/n0/gpu0", run=Run(for_seconds=90.0))
    shop.play(5)
    shop.player._inbox.clear()
    shop.player.watch.close()
    shop.drop("a")
    shop.order("b", "engine/n0/gpu0", run=Run(for_seconds=90.0))
    shop.player.list_again()
    shop.play(10)
    assert shop.done("a") == ["run", "stop", "scrub n0/gpu0"]
    assert shop.done("b") == ["run"]
    assert shop.applied("b")


def test_an_agent_leaves_the_orders_of_other_places_alone(shop):
    shop.order("a", "engine/n1/gpu0", place="n1")
    shop.play(5)
    assert shop.done() == []
    assert shop.records("report/") == {}


def test_an_agent_forgets_what_is_over(shop):
    for number in range(20):
        shop.order(f"a{number}", "engine/n0/fpga0", bitstreams={"n0/fpga0": SUM})
        shop.play(3)
        shop.order(f"a{number}")
        shop.play(3)
        shop.drop(f"a{number}")
        shop.play(3)
    assert agent_of(shop.player)._work == {}
    assert agent_of(shop.player)._built_for == {}


def agent_of(player: Player) -> Any:
    return player.machine


# ------------------------------------------------------------------------------------ circuits alone

LANES = ("lane/x/fwd/0", "lane/y/fwd/0")
TRAIN = Run(command=("train",), for_seconds=100.0)


def joined(*pairs: tuple[str, str]) -> Gang:
    return Gang(circuits=tuple(Joined((a,), (b,)) for a, b in pairs))


def test_circuits_that_go_stop_no_task_and_those_that_stay_stay_lit(shop):
    shop.order("a", "engine/n0/gpu0", *LANES, run=TRAIN)
    shop.play(10)
    before = shop.done("a")
    assert before[-2:] == ["connect", "run"]
    shop.order("a", "engine/n0/gpu0", LANES[0], run=TRAIN)
    shop.play(10)
    assert shop.done("a")[len(before) :] == ["disconnect"]
    assert shop.applied("a")
    assert shop.devices.lit == {("n0", LANES[0]): {"a"}}
    assert ("n0", "a") in shop.devices.running


def test_an_engine_that_goes_stops_the_tasks_as_ever(shop):
    shop.order("a", "engine/n0/gpu0", "engine/n0/fpga0", LANES[0], run=TRAIN)
    shop.play(10)
    before = shop.done("a")
    shop.order("a", "engine/n0/gpu0", LANES[0], run=TRAIN)
    shop.play(10)
    assert shop.done("a")[len(before) :] == ["stop", "scrub n0/fpga0", "run"]
    assert shop.devices.lit == {("n0", LANES[0]): {"a"}}


def test_other_circuits_over_the_same_lanes_are_told_to_the_tasks(shop):
    shop.order("a", "engine/n0/gpu0", LANES[0], run=TRAIN, gang=joined(("n0/gpu0", "n1/gpu0")))
    shop.play(10)
    before = shop.done("a")
    shop.order("a", "engine/n0/gpu0", LANES[0], run=TRAIN, gang=joined(("n0/gpu0", "n2/gpu0")))
    shop.play(10)
    assert shop.done("a")[len(before) :] == ["connect"]
    assert shop.applied("a")
