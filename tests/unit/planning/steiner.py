"""How few links can a tree have? An exact answer for cells that are small."""

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from math import inf


def fewest_links(ways: Mapping[str, Sequence[str]], root: str, terminals: Sequence[str]) -> float:
    """Return the links of the smallest tree from a root to all terminals; inf = there is none.

    Args:
        ways: Switch -> the switches that a link leads to; all links count alike.
        root: Where the tree starts.
        terminals: A handful; the time doubles with each.

    Source: Dreyfus and Wagner, "The Steiner problem in graphs", 1971, on directed links.
    """
    wanted = [t for t in dict.fromkeys(terminals) if t != root]
    into: dict[str, list[str]] = {switch: [] for switch in ways}
    for switch, onward in ways.items():
        for after in onward:
            into[after].append(switch)
    # By set of terminals, as bits: what a tree to them costs from each switch.
    cost: list[dict[str, float]] = [{} for _ in range(1 << len(wanted))]
    for group in range(1, 1 << len(wanted)):
        table: dict[str, float] = {}
        if group & group - 1:
            part = group - 1 & group
            while part > group ^ part:
                one, other = cost[part], cost[group ^ part]
                for here, links in one.items():
                    total = links + other.get(here, inf)
                    if total < table.get(here, inf):
                        table[here] = total
                part = part - 1 & group
        else:
            table[wanted[group.bit_length() - 1]] = 0
        heap = [(links, switch) for switch, links in table.items()]
        heapify(heap)
        while heap:
            links, switch = heappop(heap)
            if links > table[switch]:
                continue
            for before in into[switch]:
                if links + 1 < table.get(before, inf):
                    table[before] = links + 1
                    heappush(heap, (links + 1, before))
        cost[group] = table
    return cost[-1].get(root, inf) if wanted else 0
