"""Whether every file is accounted for: the stages' sums against each other, and against what is released."""

from __future__ import annotations

from itertools import pairwise

from stackbuild.counts import Ledger
from stackbuild.errors import InputError
from stackbuild.graph import INGEST, OCCURRENCES, judges_rows
from stackbuild.plan import Build


def check_ledger(build: Build) -> list[tuple[str, Ledger]]:
    """Each stage's sums, after checking that every file which one passes on is given to the next; InputError if not."""
    chain: list[tuple[str, Ledger]] = [
        ("ingest", build.ledger(INGEST.name)),
        ("occurrences", build.ledger(OCCURRENCES.name)),
    ]
    for node in build.nodes:
        if node.stage.makes_files:
            chain.append((node.instance, build.ledger(node.phase_job(node.stage.phases()[-1]))))
        elif judges_rows(node.stage):
            chain.append((node.instance, build.ledger(node.slug)))
        else:
            for phase in node.stage.phases():
                if phase.removes:
                    chain.append((node.instance, build.ledger(node.phase_job(phase))))
    for (before, left), (after, entered) in pairwise(chain):
        if (left.rows_out, left.bytes_out) != (entered.rows_in, entered.bytes_in):
            raise InputError(
                f"The ledger does not add up: {before} passes on {left.rows_out} files of {left.bytes_out} bytes, "
                f"{after} was given {entered.rows_in} of {entered.bytes_in}."
            )
    check_release(build, chain)
    return chain


def check_release(build: Build, chain: list[tuple[str, Ledger]]) -> None:
    """Every file that was kept is in each table of the release, every file that left is a decision; InputError if not."""
    layout = next(node for node in build.nodes if node.instance == "layout")

    def rows(phase: str, *tables: str) -> int:
        return sum(output.rows for table in tables for output in build.outputs(layout.phase_job(phase), table))

    kept = chain[-1][1]
    counts = [
        ("runs", rows("runs", "runs")),
        ("look-ups by content", rows("runs", "contents")),
        ("rows of repositories", rows("runs", "pointers")),
        ("the dataset", rows("files", "dataset")),
        ("the manifest", rows("files", "manifest")),
    ]
    counts += [
        ("published look-ups by content", sum(o.rows for o in build.outputs(node.phase_job("names"), "contents")))
        for node in build.nodes
        if node.instance == "index"
    ]
    for what, count in counts:
        if count != kept.rows_out:
            raise InputError(f"The ledger does not add up: {kept.rows_out} files were kept, {count} are in {what}.")
    size = sum(shard.stats["bytes"] for shard in build.shards(layout.phase_job("files")))
    if size != kept.bytes_out:
        raise InputError(f"The ledger does not add up: {kept.bytes_out} bytes were kept, {size} are in the dataset.")
    left = sum(ledger.merged + ledger.dropped + ledger.quarantined for _, ledger in chain)
    if (told := rows("decisions", "decisions", "private_decisions")) != left:
        raise InputError(f"The ledger does not add up: {left} files left, {told} decisions tell of it.")
