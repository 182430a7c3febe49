"""What the phases of near-duplicate removal have to do.

Their memory is an option (`near_dedup.memory`): it cuts tables into runs, each a file, and what is larger into passes,
each through all of a task's input (`stackbuild.dedup.limits`). So with partitions that are large beside it, bytes that are
read grow with the passes, and files that are opened with passes times runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property

from stackbuild.dedup.limits import MEMBER_BYTES, MOST_RANGES, SET_ROWS, Limits, groups_for
from stackbuild.estimate.corpus import Flow, Table, Triangle, table
from stackbuild.tables import ROW_GROUP_ROWS

Found = dict[str, float]

# Bytes of a row of what passes between the phases, where nothing shortens it.
BAND_BYTES = 16.0  # key, file
PREFIX_BYTES = 32.0
PAIR_BYTES = 16.0
NAME_BYTES = 36.0  # of a sketch or set beside signature and hashes: file, content_id, count or component
FACT_BYTES = 100.0  # survivor columns, repository and path
SHINGLE_BYTES = 8.0
MOST_SLOTS = 1 << 28  # of a table of shingles in exact mode, two bytes each (dedup.exact_join.MOST_BITS)
ROUNDS = 1.25  # how often a block of sets is read: once for the edges, and some for twins over common neighbours
SKETCHED_AT_ONCE = 2 << 20  # bytes of text, and of hashes in a row group (dedup.sketches.SKETCH_BYTES)
STEPS = 16
SKEW = 2.0  # the left file of a pair is the smaller, the right one the larger: first and last partitions have twice the mean


class Near:
    """How much there is of everything, in all partitions together, at the place of `flow`."""

    def __init__(self, flow: Flow):
        self.corpus, self.parts = flow.corpus, float(flow.parts)
        self.files = flow.rows
        self.sketches = flow.rows * flow.corpus.sketched
        self.members = flow.rows * flow.corpus.candidates
        self.pairs = self.members * flow.corpus.pairs
        self.edges = self.pairs * (flow.corpus.likely if self.estimated else 1.0)
        self.stars = self.members * among(self.parts, flow.corpus.stars)
        self.merges = self.members * flow.corpus.merges
        self.shingles = flow.bytes * flow.corpus.sketched * flow.corpus.shingles
        self.member_shingles = flow.bytes * flow.corpus.candidates * flow.corpus.shingles * flow.corpus.larger
        self.limits = Limits.of(int(flow.corpus.table_bytes), flow.corpus.permutations)
        self.cuts = max(1.0, math.ceil(flow.bytes / self.parts / flow.corpus.part_bytes))  # of a partition, in `parts`

    @property
    def estimated(self) -> bool:
        """Whether pairs are dropped by an estimate (dedup.links.estimates)."""
        return self.corpus.verify and not self.corpus.exact

    @property
    def views(self) -> float:
        """How often files are compared: once more if licence headers are (`compare_headers`)."""
        return 2.0 if self.corpus.sketched > 1 else 1.0

    @property
    def signature_bytes(self) -> float:
        """What a phase reads of all sketches that looks for signatures."""
        return self.sketches * (4.0 * self.corpus.permutations + NAME_BYTES)

    @property
    def slots(self) -> float:
        """Of the table of shingles in exact mode: by the bytes of the sketches (dedup.exact_mode)."""
        words = self.signature_bytes / 8.0 + self.shingles
        return min(2.0 ** math.ceil(math.log2(max(2.0, words))), MOST_SLOTS)

    @property
    def rows(self) -> float:
        """Rows of keys by which candidates are found."""
        if self.corpus.exact:
            return self.sketches * self.corpus.prefixes
        return self.sketches * self.corpus.bands

    @cached_property
    def key_passes(self) -> float:
        """Passes over what is held of a bucket: in exact mode all rows, else those of keys that another file may have."""
        met = 1.0 if self.corpus.exact else self.corpus.met
        return passes(met * self.rows / self.parts, self.limits.bands)

    @cached_property
    def chunks(self) -> float:
        """Runs of pairs, in each of which a pair is told once."""
        each = self.parts * self.key_passes * self.views
        return each * runs(self.pairs * self.corpus.shared / each, self.limits.pairs)

    @cached_property
    def listed(self) -> float:
        """Pairs as the buckets list them."""
        return self.pairs * among(self.chunks, self.corpus.shared)

    @cached_property
    def groups(self) -> float:
        return float(groups_for(int(self.members), int(self.parts)))


def runs(rows: float, at_once: float) -> float:
    """How many runs a writer makes of so many rows."""
    return max(1.0, math.ceil(rows / at_once))


def filled(rows: float, at_once: float, batches: float) -> float:
    """How many runs a writer fills of rows that come in so many batches: each ends behind the batch that fills it, and what is
    left then, if nothing, is a run as well."""
    if not rows:
        return 0.0
    return batches / math.ceil(at_once / rows * batches)


def passes(rows: float, at_once: float) -> float:
    """How often a task reads its input (dedup.numbers.passes_for)."""
    return 2.0 ** math.ceil(math.log2(max(1.0, rows / at_once)))


def skewed_passes(rows: float, at_once: float, most: float = math.inf) -> float:
    """The mean of `passes` over tasks that have from none to SKEW times so many rows, evenly spread, `most` at most."""
    return sum(passes(min(most, SKEW * rows * (step + 0.5) / STEPS), at_once) for step in range(STEPS)) / STEPS


def among(places: float, drawn: float) -> float:
    """How many different ones of `places` so many draws are expected to meet."""
    return places * -math.expm1(-drawn / places)


def drawn(places: float, met: float) -> float:
    """How many draws meet so many different ones of `places`: `among` the other way round."""
    return -places * math.log1p(-min(met / places, 0.98)) if places else 0.0


def _signatures(flow: Flow) -> Found:
    """Texts come in batches of each variant of the files, one behind the other."""
    near = Near(flow)
    each = near.parts * near.cuts
    batches = max(1.0, flow.bytes / each / SKETCHED_AT_ONCE) * (2.0 * near.views - 1.0)
    sketches = filled(
        (near.signature_bytes + SHINGLE_BYTES * near.shingles) / each, flow.corpus.table_bytes / 2, batches
    )
    files = flow.tables["sketches"] = Table(each * math.ceil(sketches), 1.0, near.parts)
    found = {"listed": files.pieces, "outputs": each * (math.floor(sketches) + 1.0)}
    if flow.corpus.exact:
        return found
    bands = filled(near.rows / each, near.limits.bands, batches)
    out = flow.write("bands", each * math.ceil(bands), near.rows, near.parts)
    outputs = found["outputs"] + each * (math.floor(bands) + 1.0)
    return {"pieces": out.pieces, "listed": files.pieces + out.pieces, "outputs": outputs}


def _frequencies(flow: Flow) -> Found:
    near, sketches = Near(flow), flow.read("sketches")
    flow.tables["counts"] = Table(near.parts)
    size = SHINGLE_BYTES * near.shingles
    return {**_of(size), "rows": near.parts * near.slots, "opened": sketches.files, "inputs": sketches.files}


def _order(flow: Flow) -> Found:
    """One task, over the tables of all partitions."""
    near, counts = Near(flow), flow.read("counts")
    flow.tables["order"] = Table(1.0)
    cells = near.parts * near.slots
    found = {"tasks": 1.0, "rows": cells, "opened": counts.files, "inputs": counts.files, "outputs": 1.0}
    return {**found, **_of(2.0 * cells)}


def _prefixes(flow: Flow) -> Found:
    near, sketches = Near(flow), flow.read("sketches")
    flow.read("order")
    out = flow.write("prefixes", near.parts * runs(near.rows / near.parts, near.limits.bands), near.rows, near.parts)
    return {
        **_of(SHINGLE_BYTES * near.shingles + 2.0 * near.parts * near.slots),
        "rows": near.rows,
        "pieces": out.pieces,
        "opened": sketches.files + near.parts,
        "inputs": sketches.files + 1,
        "listed": out.pieces,
        "outputs": out.files,
    }


def _candidates(flow: Flow) -> Found:
    """Band keys are read twice before, to tell which stand alone and how many do not."""
    near = Near(flow)
    times = near.key_passes + (0 if flow.corpus.exact else 2)
    read = _again(flow.taken("prefixes" if flow.corpus.exact else "bands"), times)
    out = flow.write("pairs", near.chunks, near.listed, near.parts)
    each = PREFIX_BYTES if flow.corpus.exact else BAND_BYTES
    found = {"rows": near.rows, "listed": out.pieces, "outputs": out.files, "pieces": read["pieces"] + out.pieces}
    return {**read, **_of(near.rows * each * times), **found, "passes": near.key_passes}


def _links(flow: Flow) -> Found:
    near = Near(flow)
    times = skewed_passes(near.listed / near.parts, near.limits.pairs)
    if near.estimated:  # whose signatures must fit too
        most = near.sketches / near.parts
        times = max(times, skewed_passes(near.listed / near.parts, near.limits.signatures, most))
    read, size = _again(flow.taken("pairs"), times), times * near.listed * PAIR_BYTES
    if near.estimated:
        sketches = flow.read("sketches")
        size += times * near.signature_bytes
        read["opened"] += times * sketches.files
        read["inputs"] += sketches.files
    out = flow.tables["links"] = Triangle.of(near.parts * times, near.pairs, near.parts)
    found = {"rows": near.pairs, "pieces": read["pieces"] + out.pieces, "listed": out.pieces, "outputs": out.files}
    return {**read, **_of(size), **found, "largest": SKEW * size / near.parts, "passes": times}


def _estimates(flow: Flow) -> Found:
    """With an estimate, each pass goes through the links twice: for the files that it is about, and for the pairs."""
    near, read, size, times = Near(flow), flow.taken("links"), 0.0, 1.0
    if near.estimated:
        sketches = flow.read("sketches")
        times = skewed_passes(near.pairs / near.parts, near.limits.signatures, near.sketches / near.parts)
        read = _again(read, 2.0 * times)
        size = times * (near.signature_bytes + near.pairs * (flow.corpus.permutations + PAIR_BYTES))
        read["opened"] += times * sketches.files
        read["inputs"] += sketches.files
    size += near.pairs * PAIR_BYTES
    flow.tables["edges"] = Table(near.parts, 1.0, near.parts)
    stars = flow.tables["stars"] = Triangle.of(near.parts, near.stars, near.parts)
    found = {
        "rows": near.pairs,
        "pieces": read["pieces"] + near.parts + stars.pieces,
        "listed": near.parts + stars.pieces,
    }
    found |= {"outputs": 2.0 * near.parts, "largest": SKEW * size / near.parts, "passes": times}
    return {**read, **_of(size), **found}


def _roots(flow: Flow) -> Found:
    near, read = Near(flow), flow.taken("stars")
    flow.tables |= {"roots": Table(near.parts, 1.0, near.parts), "merges": Table(near.parts)}
    return {
        **read,
        **_of(near.stars * PAIR_BYTES),
        "rows": near.stars,
        "listed": near.parts,
        "outputs": 2.0 * near.parts,
    }


def _components(flow: Flow) -> Found:
    """One task, over the merges of all partitions; of the roots it counts the files alone."""
    near = Near(flow)
    inputs = flow.read("merges").files + flow.read("roots").files
    flow.tables |= {"labels": Table(1.0), "groups": Table(1.0)}
    found = {"tasks": 1.0, "rows": near.merges, "pieces": near.parts, "opened": near.parts, "inputs": inputs}
    return {**found, **_of(near.merges * PAIR_BYTES), "outputs": 2.0}


def _sets(flow: Flow) -> Found:
    """Sketches, roots and edges are each read by the task of their partition; the labels by all. What does not fit into memory is
    written to scratch files in OUT and read again."""
    near = Near(flow)
    inputs = sum(flow.read(name).files for name in ("sketches", "edges", "roots", "labels", "groups"))
    told = MEMBER_BYTES * near.members
    members, waiting = spilled(near, told, told)
    sets = Table()
    if flow.corpus.verify:
        told = NAME_BYTES * near.members + SHINGLE_BYTES * near.member_shingles
        sets, more = spilled(near, near.signature_bytes + SHINGLE_BYTES * near.shingles, told)
        waiting += more
    flow.tables |= {"members": members, "sets": sets}
    edge_runs = filled(near.edges / near.parts, near.limits.pairs, max(1.0, near.edges / near.parts / ROW_GROUP_ROWS))
    edges = flow.write("group_edges", near.parts * math.ceil(edge_runs), near.edges, near.groups)
    size = near.files * FACT_BYTES + near.sketches * NAME_BYTES + near.edges * PAIR_BYTES
    size += SHINGLE_BYTES * near.shingles if flow.corpus.verify else 0.0
    size += near.parts * near.merges * PAIR_BYTES
    return {
        "bytes": size,
        "read": size + 2.0 * waiting,
        "rows": near.files,
        "pieces": 2.0 * near.parts + members.pieces + sets.pieces + edges.pieces,
        "opened": flow.tables["sketches"].files + 3.0 * near.parts,
        "inputs": inputs,
        "listed": members.pieces + sets.pieces + edges.pieces,
        "outputs": members.files + sets.files + near.parts * (math.floor(edge_runs) + 1.0),
    }


def _solve(flow: Flow) -> Found:
    """A group's members and edges are read once, its sets block by block. A block opens all files with a piece for the group and
    reads those of their row groups that may hold its components; one alone is held for all views, several are read for each
    with some repeats."""
    near = Near(flow)
    flow.read("groups")
    light, sets = flow.taken("members", "group_edges"), flow.taken("sets")
    blocks = runs(near.member_shingles / near.groups, near.limits.block)
    again = (1.0 if blocks == 1 else near.views * ROUNDS * blocks) if flow.corpus.verify else 0.0
    out = flow.write("clusters", near.groups, near.members, near.parts)
    flow.clusters = near.members
    size, each = SHINGLE_BYTES * near.member_shingles, max(1.0, sets["pieces"])
    row_groups = max(1.0, near.members / each / SET_ROWS, size / each / SKETCHED_AT_ONCE)  # of a piece
    read = again / blocks * min(blocks, 1.0 + blocks / row_groups)
    return {
        **_of(near.members * (NAME_BYTES + FACT_BYTES) + near.edges * PAIR_BYTES + read * size),
        "tasks": near.groups,
        "rows": near.edges,
        "pieces": read * sets["pieces"] + light["pieces"] + out.pieces,
        "footers": again * row_groups * sets["footers"] + light["footers"],
        "opened": again * sets["opened"] + light["opened"],
        "inputs": sets["inputs"] + light["inputs"],
        "listed": out.pieces,
        "outputs": 2.0 * near.groups,
        "passes": max(1.0, again),
    }


def spilled(near: Near, expected: float, told: float) -> tuple[Table, float]:
    """A table that `sets` writes (dedup.spill.Spill), and what of it waits in scratch files: each task writes a file, or one for
    each range of groups where it does not fit. `expected`, `told`: bytes in all tasks, as they are foreseen and as they come."""
    at_once = near.corpus.table_bytes / 2
    fits = told / near.parts < at_once
    ranges = 1.0 if fits else min(passes(expected / near.parts, at_once), MOST_RANGES, near.groups)
    of_range = table(near.parts * ranges, near.members, near.groups / ranges)
    return Table(of_range.files, of_range.each, near.groups), 0.0 if ranges == 1 else told


def _of(size: float) -> Found:
    """So many bytes of tables, which are read as they are."""
    return {"bytes": size, "read": size}


def _again(taken: Found, times: float) -> Found:
    return {**taken, **{name: taken[name] * times for name in ("pieces", "opened", "footers")}}


NEAR_DEDUP: Mapping[str, Callable[[Flow], Found]] = {
    "near_dedup.signatures": _signatures,
    "near_dedup.frequencies": _frequencies,
    "near_dedup.order": _order,
    "near_dedup.prefixes": _prefixes,
    "near_dedup.candidates": _candidates,
    "near_dedup.links": _links,
    "near_dedup.estimates": _estimates,
    "near_dedup.roots": _roots,
    "near_dedup.components": _components,
    "near_dedup.sets": _sets,
    "near_dedup.solve": _solve,
}
# Those that hold a table of `memory`, and so more where that is more.
BOUNDED = frozenset(NEAR_DEDUP) - {f"near_dedup.{name}" for name in ("frequencies", "order", "roots", "components")}
