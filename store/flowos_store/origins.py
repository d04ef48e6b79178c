"""Which etcd is a revision of? Another one may answer, and count up to the same numbers."""

import threading
from collections import OrderedDict
from typing import Final

from flowos.model.errors import StoreUnreachable

ANOTHER: Final = "another etcd answers at these endpoints"
LISTINGS_MAX: Final = 256  # far more than are under way at once; forgetting one does little harm


class Origins:
    """Which etcd each of the last listings was of.

    A watch that goes on from a listing has to go on in the etcd that was listed. Who answered first
    does not tell: a store outlives its etcd where that is restored at the same endpoints.
    """

    def __init__(self) -> None:
        self._clusters: OrderedDict[int, int] = OrderedDict()  # by the revisions of listings
        self._newest = 0
        self._lock = threading.Lock()

    def note(self, revision: int, cluster: int, before: int) -> int:
        """Note that a part of the listing at this revision was of this etcd; return it.

        Args:
            revision: Of the listing.
            cluster: Who answered.
            before: Who answered for the part before; 0 = there is none.

        Raises:
            StoreUnreachable: Parts of two etcds are no listing.
        """
        if before and cluster != before:
            raise StoreUnreachable(f"{ANOTHER} since the listing began: list again")
        with self._lock:
            self._newest = self._clusters[revision] = cluster
            self._clusters.move_to_end(revision)
            if len(self._clusters) > LISTINGS_MAX:
                self._clusters.popitem(last=False)
        return cluster

    def of(self, revision: int) -> int:
        """Return which etcd a revision is of: that of its listing, or else of the newest one."""
        with self._lock:
            return self._clusters.get(revision, self._newest)
