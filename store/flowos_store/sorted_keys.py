"""Which keys come from here on? A set of keys in order, cheap to change anywhere."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Final

CHUNK_MAX: Final = 1024  # a change moves at most this many keys in memory


class SortedKeys:
    """Distinct keys in order, as sorted lists of bounded length."""

    __slots__ = ("_chunks", "_lasts")

    def __init__(self) -> None:
        self._chunks: list[list[str]] = []  # none of them empty
        self._lasts: list[str] = []  # the last key of each chunk

    def add(self, key: str) -> None:
        """Put in a key that is not in it."""
        if not self._chunks:
            self._chunks.append([key])
            self._lasts.append(key)
            return
        at = min(bisect_left(self._lasts, key), len(self._chunks) - 1)
        chunk = self._chunks[at]
        insort(chunk, key)
        if len(chunk) > CHUNK_MAX:
            half = len(chunk) // 2
            self._chunks.insert(at + 1, chunk[half:])
            self._lasts.insert(at + 1, chunk[-1])
            del chunk[half:]
        self._lasts[at] = chunk[-1]

    def remove(self, key: str) -> None:
        """Take out a key that is in it."""
        at = bisect_left(self._lasts, key)
        chunk = self._chunks[at]
        del chunk[bisect_left(chunk, key)]
        if chunk:
            self._lasts[at] = chunk[-1]
        else:
            del self._chunks[at], self._lasts[at]

    def starting_at(self, first: str) -> Iterator[str]:
        """Yield the keys from `first` on, in order; nothing may change meanwhile."""
        at = bisect_left(self._lasts, first)
        if at == len(self._chunks):
            return
        chunk = self._chunks[at]
        yield from chunk[bisect_left(chunk, first) :]
        for chunk in self._chunks[at + 1 :]:
            yield from chunk

    def copy(self) -> "SortedKeys":
        """Return one that changes on its own."""
        copy = SortedKeys()
        copy._chunks = [chunk.copy() for chunk in self._chunks]
        copy._lasts = self._lasts.copy()
        return copy
