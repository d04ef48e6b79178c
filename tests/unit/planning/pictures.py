"""Pools as plain values, so that a kept one can be compared with a fresh one."""

from flowos.planning.engines.pool import Free, Ladder, Pool


def ladder(pool: Pool, of: Ladder) -> dict[int, list[str]]:
    """Rung -> nodes in order; ties by name, since numbers depend on the order of arrival."""
    found: dict[int, list[str]] = {}
    for rung, number in of.climb(min(of.order, default=0)):
        site = pool.sites[number]
        assert site is not None
        found.setdefault(rung, []).append(site.name)
    states = {site.name: pool.free[site.number] for site in pool.sites if site}
    return {
        rung: sorted(names, key=lambda name: (max(states[name].cpu_millis, 0), name))
        for rung, names in found.items()
    }


def picture(pool: Pool, of: Pool | None = None) -> dict[str, object]:
    """All that a pool knows, with the stocks that `of` has."""
    pool.fold()
    names = {site.number: site.name for site in pool.sites if site}
    free: dict[str, Free] = {name: pool.free[number] for number, name in names.items()}
    stocks: dict[object, object] = {}
    for wares in list((of or pool)._stocks):
        # The same makes may have other numbers in another pool.
        source = of or pool
        named = frozenset((source.makes[make], conditions) for make, conditions in wares)
        here = frozenset((pool.makes.index(make), c) for make, c in named if make in pool.makes)
        stock = pool.stock(here)
        stocks[named] = (
            stock.existing,
            stock.free_on,
            stock.free_off,
            {leaf: totals for leaf, totals in stock.leaves.items() if totals != [0, 0]},
            list(stock.shelf.climb(1)),
            list(stock.shelf.descend()),
            sorted(stock.shelf.rungs) == stock.shelf.order,
            ladder(pool, stock.on),
            ladder(pool, stock.every),
            ladder(pool, stock.parts),
        )
    return {
        "free": free,
        "sites": {
            site.name: (site.rack, site.engines, site.leaves, site.loads, site.linked)
            for site in pool.sites
            if site
        },
        "makes": {
            site.name: [pool.makes[make] for make in site.makes] for site in pool.sites if site
        },
        "counts": {m: n for m, n in zip(pool.makes, pool.counts, strict=True) if n},
        "leaves": {
            leaf: sorted(names[n] for n in there)
            for leaf, there in pool.leaf_sites.items()
            if there
        },
        "hosts": (ladder(pool, pool.hosts), pool.cpu_millis, pool.memory_bytes),
        "loaded": {
            reference: {names[n]: mask for n, mask in there.items()}
            for reference, there in pool.loaded.items()
        },
        "trunks": pool.trunks,
        "shut": pool.shut,
        "spoken": pool.spoken,
        "stocks": stocks,
    }


def kept_is_fresh(pool: Pool) -> bool:
    """Whether a pool that was kept in step equals one built from its view now."""
    fresh = Pool(pool.view)
    try:
        return picture(pool) == picture(fresh, of=pool)
    finally:
        fresh.close()
