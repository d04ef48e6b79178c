"""Count the words of a text: a task for each part of it, and a tree that adds their counts.

    python word_count.py [TEXT] [PARTS]

The text that comes with it is the beginning of Lewis Carroll's "Alice's Adventures in Wonderland"
(1865, in the public domain).
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

from flowos.flowlet import Sink, Source
from flowos.flowlet import map as flow_map
from flowos.flowlet import reduce as flow_reduce


def counted(part: bytes) -> bytes:
    """Return how often each word is in a part of the text."""
    return json.dumps(Counter(re.findall(r"[a-z']+", part.decode().lower()))).encode()


def added(*counts: bytes) -> bytes:
    """Return the sums of several counts."""
    total: Counter[str] = Counter()
    for count in counts:
        total.update(json.loads(count))
    return json.dumps(total).encode()


def parts_of(text: bytes, count: int) -> list[bytes]:
    """Cut a text into about equal parts, between lines."""
    lines = text.splitlines(keepends=True)
    size = -(-len(lines) // count)
    return [b"".join(lines[at : at + size]) for at in range(0, len(lines), size)]


def main() -> None:
    """Count, and print the ten most frequent words."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data/alice.txt"
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 8
    parts = [Source(part) for part in parts_of(path.read_bytes(), count)]
    sink = Sink(flow_reduce(added, flow_map(counted, parts), fan_in=4))
    sink.execute()
    for word, number in Counter(json.loads(sink.result)).most_common(10):
        print(f"{number:5d} {word}")


if __name__ == "__main__":
    main()
