"""A real etcd and the memory store give the same lives the same verdicts, step by step."""

import re
from collections.abc import Iterator

import pytest

from flowos_store import EmbeddedEtcd
from tests.protocol.lives import Life

pytestmark = pytest.mark.etcd
FEW = 10  # operations a request may hold; no etcd in production has so few


@pytest.fixture(scope="module")
def little_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEtcd]:
    """An etcd that takes so few operations a request that commits must be guarded by ranges."""
    folder = tmp_path_factory.mktemp("etcd-few")
    with EmbeddedEtcd(folder, unsafe_no_fsync=True, max_txn_ops=FEW) as server:
        yield server


def told(life: Life) -> list[str]:
    """What happened, without the numbers that each store gives in its own way."""
    life.live()
    return [re.sub(r"@\d+|(?<= at )\d+", "", line) for line in life.world.trace]


@pytest.mark.parametrize("seed", range(4))
def test_a_life_on_etcd_is_the_life_in_memory(seed, etcd_default_flags, etcd_store):
    on_etcd = Life(seed, operations_max=128, store=etcd_store(etcd_default_flags))
    assert told(on_etcd) == told(Life(seed, operations_max=128))


@pytest.mark.parametrize("seed", range(4, 7))
def test_a_life_of_big_gangs_on_etcd_is_the_life_in_memory(seed, little_etcd, etcd_store):
    store = etcd_store(little_etcd)
    store._operations_max, store._probed = FEW, True  # it would refuse a server with so few
    on_etcd = Life(seed, operations_max=FEW, store=store)
    assert told(on_etcd) == told(Life(seed, operations_max=FEW))
