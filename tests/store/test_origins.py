"""Is every revision that a watch goes on from taken for one of the etcd that was listed?"""

import pytest

from flowos.model.errors import StoreUnreachable
from flowos_store.origins import LISTINGS_MAX, Origins

OLD, NEW = 7, 8


def test_a_revision_is_of_the_etcd_that_was_listed_at_it():
    origins = Origins()
    origins.note(5, OLD, 0)
    origins.note(9, NEW, 0)
    assert [origins.of(5), origins.of(9)] == [OLD, NEW]


def test_the_same_revision_of_another_etcd_counts_from_its_listing_on():
    origins = Origins()
    origins.note(5, OLD, 0)
    origins.note(5, NEW, 0)
    assert origins.of(5) == NEW


def test_a_revision_of_no_listing_is_of_the_newest_one():
    origins = Origins()
    assert origins.of(5) == 0
    origins.note(5, OLD, 0)
    origins.note(9, NEW, 0)
    assert origins.of(6) == NEW


def test_parts_of_two_etcds_are_no_listing():
    origins = Origins()
    part = origins.note(5, OLD, 0)
    with pytest.raises(StoreUnreachable, match="another etcd answers"):
        origins.note(5, NEW, part)
    assert origins.of(5) == OLD


def test_only_the_last_listings_are_kept_in_mind():
    origins = Origins()
    for revision in range(3 * LISTINGS_MAX):
        origins.note(revision, OLD, 0)
    assert len(origins._clusters) == LISTINGS_MAX
