"""The subscription is right in thousands of storms of broken streams, and each rule in it is needed."""

from types import SimpleNamespace

import pytest

from flowos.model.transaction import Progress
from flowos_store.subscription import Create, Do, Heard, Subscription, Then
from tests.store.storm_of_streams import StormBroken, run

SEEDS = range(1, 601)


def test_in_every_storm_what_is_told_is_the_truth():
    for seed in SEEDS:
        run(seed)


def test_a_seed_replays_its_storm():
    assert [run(seed) for seed in range(20)] == [run(seed) for seed in range(20)]
    assert len({run(seed) for seed in range(20)}) == 20


# ------------------------------------------------------------------------------- planted mistakes


class TellsFragments(Subscription):
    """Does not wait for the rest of a revision."""

    def heard(self, response, now):
        plain = SimpleNamespace(
            canceled=response.canceled,
            created=response.created,
            watch_id=response.watch_id,
            header=response.header,
            events=response.events,
            fragment=False,
            compact_revision=response.compact_revision,
            cancel_reason=response.cancel_reason,
        )
        return super().heard(plain, now)


class AsksTooEarly(Subscription):
    """Asks for progress before every watch is announced."""

    def _is_announced(self):
        return self._stream.announced > 0


class BelievesTheHeader(Subscription):
    """Goes on from where the server stood when the watch was created."""

    def _created(self, response, now):
        self._first[response.watch_id - 1] = response.header.revision
        return super()._created(response, now)


class TellsTwice(Subscription):
    """Does not leave out what was told by the stream before."""

    def _changed(self, at, events):
        self._delivered[at] = 0
        return super()._changed(at, events)


class StartsAfter(Subscription):
    """Starts at R + 1, where no progress request is answered while nobody writes."""

    def opened(self, now):
        return [Create(n, span, start + 1) for n, span, start in super().opened(now)]


class OverlooksCompaction(Subscription):
    """Goes on from what is kept, as if nothing had happened before."""

    def _canceled(self, response):
        at = response.watch_id - 1
        self._known(at, max(self._delivered[at], response.compact_revision))
        return Heard(then=Then.REOPEN)


class OverlooksTheEnd(Subscription):
    """Waits for more of a watch that the server has ended."""

    def _canceled(self, response):
        return Heard()


class WaitsForEver(Subscription):
    """Does not leave a stream that has fallen silent."""

    def look(self, now):
        do = super().look(now)
        return Do.WAIT if do is Do.HANG_UP else do


class TrustsTheAddress(Subscription):
    """Takes whoever answers for the store that it was."""

    def stands(self, newest):
        return None

    def _created(self, response, now):
        self._cluster = response.header.cluster_id
        return super()._created(response, now)


class KeepsTornParts(Subscription):
    """Joins the fragments of a stream that broke with those of the next."""

    def broke(self):
        parts, pause = dict(self._stream.parts), super().broke()
        self._torn = parts
        return pause

    def opened(self, now):
        creates = super().opened(now)
        self._stream.parts.update(getattr(self, "_torn", {}))
        return creates


class VouchesForPartsOnly(Subscription):
    """Takes what one watch was told for progress of all."""

    def _changed(self, at, events):
        heard = super()._changed(at, events)
        if not heard.messages:
            return heard
        return Heard((*heard.messages, Progress(self._delivered[at])), heard.then)


@pytest.mark.parametrize(
    "mistaken",
    [
        TellsFragments,
        AsksTooEarly,
        BelievesTheHeader,
        TellsTwice,
        StartsAfter,
        OverlooksCompaction,
        OverlooksTheEnd,
        WaitsForEver,
        TrustsTheAddress,
        KeepsTornParts,
        VouchesForPartsOnly,
    ],
)
def test_a_planted_mistake_is_found(mistaken):
    def storms():
        for seed in SEEDS:
            run(seed, mistaken)

    with pytest.raises(StormBroken, match="again: python -m"):
        storms()
