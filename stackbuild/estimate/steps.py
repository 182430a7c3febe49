"""What each job of a graph has to do at a given size: the shape of every stage and phase that stackbuild brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from stackbuild.estimate.corpus import FLUSH_BYTES, Corpus, Flow, Table, Work, table
from stackbuild.estimate.near_dedup import NEAR_DEDUP
from stackbuild.graph import Job, Node

SAMPLE_BYTES = 64e6  # to train a tokenizer on (tokens.sample_bytes)
RUN_BYTES = 16 << 20  # of a row group of bytes (tables.ROW_GROUP_BYTES)
LANGUAGES_OF_OWNER = 3.0  # an assumption too
TOP_LANGUAGE = 0.24  # of the text, in the benchmark corpus

Found = dict[str, float]


def _ingest(flow: Flow) -> Found:
    corpus, units = flow.corpus, flow.corpus.units
    names = min(corpus.files, max(corpus.repositories, flow.flushes), corpus.owners * flow.flushes)
    contents = flow.write("contents", flow.flushes, corpus.files, flow.parts)
    occurrences = flow.write("occurrences", flow.flushes, names, flow.parts)
    origins = flow.write("origins", units, min(max(corpus.repositories, units), corpus.owners * units), flow.parts)
    flow.write("ingest.decisions", units, 0.01 * corpus.files, flow.parts)
    pieces = contents.pieces + occurrences.pieces
    found = {"tasks": units, "pieces": pieces, "listed": pieces + origins.pieces}
    return {**found, "outputs": 2 * flow.flushes + 3 * units, "largest": min(corpus.bytes / units, 2.0 * FLUSH_BYTES)}


def _gather(name: str) -> Callable[[Flow], Found]:
    return lambda flow: {**flow.taken(name), "outputs": 2.0 * flow.parts}


def _wanted(flow: Flow) -> Found:
    out = flow.write("wanted", flow.busy, flow.rows * flow.corpus.licence_files, flow.parts)
    return {"bytes": 0.0, "pieces": out.pieces, "listed": out.pieces, "busy": flow.busy}


def _detect(flow: Flow) -> Found:
    wanted, read = flow.rows * flow.corpus.licence_files, flow.taken("wanted")
    out = flow.write("detections", flow.parts, min(wanted, flow.parts * flow.corpus.owners), flow.parts)
    rows = wanted * flow.corpus.licence_contents
    return {**read, "rows": rows, "pieces": read["pieces"] + out.pieces, "listed": out.pieces}


def _inherit(flow: Flow) -> Found:
    return {**flow.taken("detections"), "bytes": 0.0, "listed": float(flow.parts), "busy": flow.busy}


def _headers(flow: Flow) -> Found:
    """Reads each content once, and writes for its own partition."""
    rows, size = flow.corpus.kept.get("exact_dedup", (1.0, 1.0))
    flow.write("headers", flow.parts, flow.parts, flow.parts)
    return {"rows": flow.rows * rows, "bytes": flow.bytes * size, "listed": float(flow.parts)}


def _merge_runs(flow: Flow) -> Found:
    out = flow.write("merge", flow.busy, flow.rows, flow.parts)
    return {"bytes": 0.0, "pieces": out.pieces, "listed": out.pieces, "busy": flow.busy}


def _merge(flow: Flow) -> Found:
    gone = flow.rows * (1.0 - flow.corpus.kept.get("exact_dedup", (1.0, 1.0))[0])
    return {**flow.taken("merge", "headers"), "bytes": 0.0, "listed": decided(flow, gone), "outputs": 2.0 * flow.parts}


def _layout_runs(flow: Flow) -> Found:
    out = flow.write("pointers", flow.parts, min(flow.rows, flow.corpus.owners * flow.parts), flow.parts)
    # Languages are far from even: most are in few partitions, as if there were a tenth of the rows.
    languages = table(flow.parts, 0.1 * flow.rows, flow.corpus.languages)
    row_groups = languages.each + flow.bytes / flow.parts / RUN_BYTES
    flow.tables |= {"runs": Table(flow.parts, row_groups), "languages": languages}
    pieces = out.pieces + flow.parts * row_groups
    return {"pieces": pieces, "listed": out.pieces + languages.pieces, "outputs": 5.0 * flow.parts}


def dataset_files(flow: Flow) -> float:
    """A language has one at least; cuts fall at about the target."""
    return flow.corpus.languages + flow.bytes / flow.corpus.file_bytes


def largest_file(flow: Flow) -> float:
    """A file of the most common language; a cut falls at one and a half times the target at most, as a rule."""
    return min(flow.bytes * TOP_LANGUAGE, 1.5 * flow.corpus.file_bytes)


def _layout_files(flow: Flow) -> Found:
    """A file of the release opens the runs of all partitions that have its language."""
    common = flow.bytes / flow.corpus.file_bytes
    opened = common * flow.parts + flow.tables["languages"].pieces
    return {
        "tasks": dataset_files(flow),
        "pieces": opened,
        "opened": opened,
        "footers": opened * flow.read("runs").each,
        "inputs": 2.0 * flow.parts,
        "outputs": 2 * dataset_files(flow),
        "largest": largest_file(flow),
        "planned": min(flow.rows, LANGUAGES_OF_OWNER * flow.corpus.owners * flow.parts),
    }


def _repos(flow: Flow) -> Found:
    """Also the entries of the trees, a file of which each task reads whole."""
    return {**flow.taken("pointers"), "bytes": 0.0, "busy": flow.busy, "outputs": 2.0 * flow.parts}


def _decisions(flow: Flow) -> Found:
    gone = table(4.0 * flow.parts, min(flow.left, flow.corpus.owners * 4.0 * flow.parts), flow.parts)
    read = flow.taken("origins", "ingest.decisions")
    found = {
        "rows": flow.left,
        "bytes": 0.0,
        "listed": float(flow.parts),
        "outputs": 4.0 * flow.parts,
        "busy": flow.busy,
    }
    return {
        **found,
        "pieces": read["pieces"] + gone.pieces,
        "opened": read["pieces"] + gone.pieces,
        "footers": read["footers"] + gone.footers,
        "inputs": read["inputs"] + gone.files,
    }


def _clusters(flow: Flow) -> Found:
    """Every task looks through all clusters for those of its range, and holds these alone."""
    read = flow.read("clusters")
    opened = read.files * flow.parts
    found = {"rows": flow.clusters * flow.parts, "bytes": 0.0, "busy": float(flow.parts) ** 2}
    return {**found, "pieces": opened, "opened": opened, "footers": opened * read.each, "inputs": read.files}


def _names(flow: Flow) -> Found:
    read = flow.taken("pointers")
    return {
        **read,
        "rows": flow.corpus.repositories,
        "bytes": 0.0,
        "pieces": read["pieces"] + flow.parts,
        "busy": flow.busy,
    }


def _sample(flow: Flow) -> Found:
    return {"tasks": 1.0, "inputs": dataset_files(flow), "opened": dataset_files(flow)}


def _tokenizer(flow: Flow) -> Found:
    return {"tasks": 1.0, "bytes": min(flow.bytes, SAMPLE_BYTES), "rows": 0.0, "inputs": 1.0}


def _token_links(flow: Flow) -> Found:
    parts = float(flow.parts)
    return {"tasks": parts, "rows": flow.clusters, "bytes": 0.0, "inputs": parts, "opened": parts, "outputs": parts}


def _token_splits(flow: Flow) -> Found:
    read = dataset_files(flow) + flow.parts
    return {"tasks": 1.0, "bytes": 0.0, "inputs": read, "opened": read, "outputs": 2.0}


def _token_runs(flow: Flow) -> Found:
    return {"tasks": dataset_files(flow), "inputs": dataset_files(flow), "largest": largest_file(flow)}


def _token_shards(flow: Flow) -> Found:
    shards, files = float(flow.corpus.shards), dataset_files(flow)
    return {"tasks": shards, "pieces": shards * files, "opened": shards * files, "inputs": files, "outputs": 4 * shards}


def _token_manifest(flow: Flow) -> Found:
    return {"tasks": 1.0, "rows": 0.0, "bytes": 0.0, "inputs": 2.0 * flow.corpus.shards}


def _volumes(flow: Flow) -> Found:
    return {"listed": flow.write("volumes", flow.parts, flow.rows, 1.0).pieces}


def _shares(flow: Flow) -> Found:
    return {**flow.taken("volumes"), "tasks": 1.0, "rows": 0.0, "bytes": 0.0}


STEPS: Mapping[str, Callable[[Flow], Found]] = {
    "ingest": _ingest,
    "contents": _gather("contents"),
    "occurrences": _gather("occurrences"),
    "licenses.wanted": _wanted,
    "licenses.detect": _detect,
    "licenses.inherit": _inherit,
    "licenses.headers": _headers,
    "exact_dedup.runs": _merge_runs,
    "exact_dedup.files": _merge,
    "filters.volumes": _volumes,
    "filters.shares": _shares,
    **NEAR_DEDUP,
    "layout.runs": _layout_runs,
    "layout.files": _layout_files,
    "layout.repos": _repos,
    "layout.decisions": _decisions,
    "layout.clusters": _clusters,
    "index.names": _names,
    "tokens.sample": _sample,
    "tokens.tokenizer": _tokenizer,
    "tokens.links": _token_links,
    "tokens.splits": _token_splits,
    "tokens.runs": _token_runs,
    "tokens.shards": _token_shards,
    "tokens.manifest": _token_manifest,
}


def work_of(jobs: Sequence[Job], corpus: Corpus) -> list[Work]:
    """What each job of a graph has to do, in order."""
    flow = Flow(corpus, corpus.files, corpus.bytes)
    return [one for job in jobs for one in [step(flow, job)]]


def step(flow: Flow, job: Job) -> Work:
    """One job; the flow goes on behind it."""
    found: Found = {"tasks": float(flow.parts), "rows": flow.rows, "bytes": flow.bytes, "outputs": float(flow.parts)}
    key = job_key(job)
    flow.asked = set()
    narrow = job.kind in ("occurrences",) or (job.nodes and job.nodes[0].space == "occurrence" and job.phase is None)
    if narrow:
        found |= {"bytes": 0.0, "busy": flow.busy}
    if job.kind == "rows":
        found |= judged(flow, job.nodes)
    elif key in STEPS:
        found |= STEPS[key](flow)
    elif job.phase is not None and job.phase.tasks == "one":
        found["tasks"] = 1.0
    found["keyed"] = found.get("inputs", 0.0) * (found["tasks"] if job.kind in ("contents", "occurrences") else 1.0)
    writers = {flow.writers[name].job: flow.writers[name] for name in flow.asked if name in flow.writers}
    found["held"] = sum(writer.listed for writer in writers.values())
    found["held_files"] = sum(writer.outputs for writer in writers.values())
    work = Work(key, tuple(node.stage.name for node in job.nodes if job.kind == "rows"), **found)
    flow.writers |= {name: work for name in flow.tables if name not in flow.writers}
    if job.phase is not None and job.phase.removes and job.nodes[0].stage.makes_files:
        leave(flow, job.nodes[0])
    return work


def judged(flow: Flow, nodes: Sequence[Node]) -> Found:
    """Row stages that share a job: rows and bytes as the first sees them; what they remove is gone behind."""
    found: Found = {"outputs": 2.0 * flow.parts * len(nodes), "listed": 0.0}
    for node in nodes:
        if node.stage.name == "near_dedup":
            found |= flow.taken("clusters")
        before = flow.left
        leave(flow, node)
        gone = flow.left - before
        found["listed"] += decided(flow, gone)
    return found


def decided(flow: Flow, gone: float) -> float:
    """Pieces of the decisions on so many rows: each partition tells them by owner."""
    return table(flow.parts, min(gone, flow.corpus.owners * flow.parts), flow.parts).pieces


def leave(flow: Flow, node: Node) -> None:
    """Take away what a stage removes."""
    rows, size = flow.corpus.kept.get(node.instance, flow.corpus.kept.get(node.stage.name, (1.0, 1.0)))
    flow.left += flow.rows * (1 - rows)
    flow.rows, flow.bytes = flow.rows * rows, flow.bytes * size


def job_key(job: Job) -> str:
    """A job's name whatever its place: `ingest`, `licenses.detect`, `decode+languages`."""
    if job.kind == "phase":
        assert job.phase is not None
        return f"{job.nodes[0].stage.name}.{job.phase.name}"
    return job.kind if job.kind != "rows" else "+".join(node.stage.name for node in job.nodes)
