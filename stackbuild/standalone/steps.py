"""The steps of near-duplicate removal on a table of one's own, in their order."""

from __future__ import annotations

from stackbuild.standalone.earlier import TAKEN_OVER
from stackbuild.standalone.options import DedupOptions
from stackbuild.standalone.running import Step

BEFORE = (
    Step("sketch", "standalone.reading", "sketch", "unit"),
    Step("ids", "standalone.deciding", "check_ids", "partition", ("ids",)),
    Step("copies", "standalone.deciding", "choose_copies", "partition", ("rows",)),
)
MINHASH = (Step("candidates", "dedup.pairs", "list_candidates", "partition", ("bands",)),)
EXACT = (
    Step("frequencies", "dedup.exact_mode", "count", "partition", ("sketches",)),
    Step("order", "dedup.exact_mode", "merge", "one", ("counts",)),
    Step("prefixes", "dedup.exact_mode", "list_prefixes", "partition", ("sketches", "order")),
    Step("candidates", "dedup.exact_mode", "list_candidates", "partition", ("prefixes",)),
)
JOIN = (
    Step("links", "dedup.links", "link", "partition", ("pairs", "sketches")),
    Step("estimates", "dedup.links", "estimate", "partition", ("links", "sketches")),
    Step("roots", "dedup.components", "find_roots", "partition", ("stars",)),
    Step("components", "dedup.components", "join_roots", "one", ("merges", "roots")),
)
MEMBERS = ("roots", "labels", "groups", "sketches", "edges", "files")
ALL = (Step("sets", "dedup.members", "gather", "partition", MEMBERS),)
CHANGED = (  # the clusters of an earlier run are taken over where nothing changed
    Step("members", "dedup.members", "gather_members", "partition", MEMBERS),
    Step(
        "unchanged",
        "dedup.unchanged",
        "find_unchanged",
        "group",
        ("groups", "group_edges", "members", "earlier_groups", *(f"earlier_{name}" for name in TAKEN_OVER)),
    ),
    Step("sets", "dedup.members", "gather_sets", "partition", ("changed", "groups", "sketches")),
)
AFTER = (
    Step("solve", "dedup.unchanged", "solve_group", "group", ("groups", "group_edges", "members", "sets", "solved")),
    Step("rows", "standalone.deciding", "cluster_rows", "partition", ("rows", "clusters")),
    Step("decide", "standalone.deciding", "decide", "partition", ("clustered",)),
    Step("publish", "standalone.deciding", "publish_clusters", "one", ("decided",)),
    Step("write", "standalone.deciding", "write_rows", "unit", ("removed",)),
)


def steps(options: DedupOptions, takes_over: bool = False) -> tuple[Step, ...]:
    """The steps, in their order; how candidates are found is the recipe's. `takes_over`: what an earlier run solved."""
    return (*BEFORE, *(EXACT if options.exact else MINHASH), *JOIN, *(CHANGED if takes_over else ALL), *AFTER)
