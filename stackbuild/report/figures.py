"""The numbers of a report, each from manifests or released tables; sums that must reconcile are checked where they are made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stackbuild.languages.languages import Languages
from stackbuild.report.duplicates import duplicates_of
from stackbuild.report.funnel import funnel_of
from stackbuild.shards import open_parquet, read_row_group

if TYPE_CHECKING:
    from stackbuild.plan import Build

EXAMPLES = 5  # files shown for each rule


def report_of(build: Build, not_read: list[dict[str, str]], description: dict[str, Any]) -> dict[str, Any]:
    """Everything that the report shows, as JSON: funnel, languages, licences, duplicates, tokens, tools. It is read from
    the committed files that are published, wherever the publishing stands."""
    funnel = funnel_of(build)
    languages = languages_of(build)
    recipe = description["recipe"]
    return {
        "name": recipe["name"],
        "recipe_digest": description["recipe_digest"],
        "plan": description["plan"],
        "seed": description["seed"],
        "stages": recipe["stages"],
        "deviations": recipe.get("deviations", {}),
        "units": description["units"],
        "not_read": not_read,
        "funnel": funnel,
        "languages": languages,
        "language_counts": language_counts_of(build, len(languages)),
        "files": sum(row["files"] for row in languages),
        "bytes": sum(row["bytes"] for row in languages),
        **released_counts(*(paths(build, table) for table in (("files", "dataset"), ("clusters", "clusters")))),
        "duplicates": duplicates_of(
            build,
            paths(build, ("decisions", "decisions")),
            paths(build, ("decisions", "private_decisions")),
            paths(build, ("files", "dataset")),
        ),
        "examples": examples(paths(build, ("decisions", "decisions")), funnel),
        "tokens": tokens_of(build),
        "engines": description["engines"],
        "stackbuild": description["stackbuild"],
    }


def languages_of(build: Build) -> list[dict[str, Any]]:
    """Files and bytes of text of each language, by falling bytes."""
    layout = next(node for node in build.nodes if node.instance == "layout")
    totals: dict[str, dict[str, int]] = {}
    for shard in build.shards(layout.phase_job("files")):
        row = totals.setdefault(shard.stats["language"], {"files": 0, "bytes": 0})
        row["files"] += shard.stats["files"]
        row["bytes"] += shard.stats["bytes"]
    return [{"language": name, **totals[name]} for name in sorted(totals, key=lambda n: (-totals[n]["bytes"], n))]


def language_counts_of(build: Build, after_filters: int) -> dict[str, int]:
    """Languages that could be named ("mapped"), that had a file when it was asked ("with_files"), and that are released; empty
    if no stage names languages. The publications of The Stack quote all three as the number of languages."""
    nodes = [node for node in build.nodes if isinstance(node.stage, Languages)]
    if not nodes:
        return {}
    found: set[str] = set()
    for output in build.outputs(nodes[0].slug, "tags"):
        with open_parquet(build.out, output) as file:
            for group in range(file.num_row_groups):
                table = read_row_group(build.out, output, file, group, ["language"])
                found.update(name for name in pc.unique(table["language"]).to_pylist() if name is not None)
    return {"mapped": nodes[0].stage.mapped(), "with_files": len(found), "after_filters": after_filters}


def paths(build: Build, table: tuple[str, str]) -> list[Path]:
    """The files of a table (phase, name) of the layout."""
    layout = next(node for node in build.nodes if node.instance == "layout")
    return [build.out / output.file for output in build.outputs(layout.phase_job(table[0]), table[1])]


def released_counts(dataset: list[Path], cluster_files: list[Path]) -> dict[str, Any]:
    """Licences, repositories, near-duplicate clusters and redactions, counted from the narrow columns of the release."""
    licenses: dict[tuple[str, str], list[int]] = {}
    spdx: dict[str, int] = {}
    repos: set[str] = set()
    redactions = 0
    by_entity: dict[tuple[str, str], int] = {}
    columns = [
        "repo_name", "license_type", "license_class", "length_bytes", "detected_licenses", "language", "redactions", "redactions_by_entity",
    ]  # fmt: skip
    for path in dataset:
        for batch in pq.ParquetFile(path, pre_buffer=False).iter_batches(65_536, columns=columns):
            table = pa.Table.from_batches([batch])
            repos.update(pc.unique(table["repo_name"]).to_pylist())
            redactions += pc.sum(table["redactions"]).as_py() or 0
            for language, entity, count in redacted_in(batch):
                by_entity[language, entity] = by_entity.get((language, entity), 0) + count
            grouped = table.group_by(["license_type", "license_class"]).aggregate(
                [("repo_name", "count"), ("length_bytes", "sum")]
            )
            for row in grouped.to_pylist():
                entry = licenses.setdefault((row["license_type"] or "–", row["license_class"] or "–"), [0, 0])
                entry[0] += row["repo_name_count"]
                entry[1] += row["length_bytes_sum"] or 0
            values = pc.value_counts(pc.list_flatten(table["detected_licenses"].combine_chunks()))
            for value in values.to_pylist():
                spdx[value["values"]] = spdx.get(value["values"], 0) + value["counts"]
    clusters = files_in_clusters = 0
    for path in cluster_files:
        table = pq.read_table(path, columns=["cluster_id", "kept"])
        clusters += len(pc.unique(table["cluster_id"]))
        files_in_clusters += table.num_rows
    return {
        "repositories": len(repos),
        "licenses": [
            {"license_type": kind, "license_class": name, "files": files, "bytes": size}
            for (kind, name), (files, size) in sorted(licenses.items(), key=lambda item: -item[1][0])
        ],
        "detected": [
            {"license": name, "files": count}
            for name, count in sorted(spdx.items(), key=lambda item: (-item[1], item[0]))
        ],
        "clusters": {"clusters": clusters, "files": files_in_clusters},
        "redactions": redactions,
        "redactions_by_entity": [
            {"language": language, "entity": entity, "redactions": count}
            for (language, entity), count in sorted(by_entity.items(), key=lambda item: (-item[1], item[0]))
        ],
    }


def redacted_in(batch: pa.RecordBatch) -> Iterator[tuple[str, str, int]]:
    """Of released rows: language, entity, how many were replaced."""
    column = batch["redactions_by_entity"]
    parents, pairs = pc.list_parent_indices(column), column.flatten()
    told = pa.table(
        [batch["language"].take(parents), pairs.field("entity"), pairs.field("count")], ["language", "entity", "count"]
    )
    grouped = told.group_by(["language", "entity"]).aggregate([("count", "sum")])
    for row in grouped.to_pylist():
        yield row["language"], row["entity"], row["count_sum"]


def examples(decisions: list[Path], funnel: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The first files of each rule, in the order of the decisions; rules whose decisions are private have none."""
    wanted = {(stage["stage"], rule) for stage in funnel for rule in stage["rules"]}
    found: dict[str, list[dict[str, Any]]] = {}
    columns = ["stage", "rule", "repo_name", "path", "value", "threshold", "detail"]
    for path in decisions:
        table = pq.read_table(path, columns=columns)
        for stage, rule in sorted(wanted):
            name = f"{stage}: {rule}"
            have = found.setdefault(name, [])
            if len(have) < EXAMPLES:
                hits = table.filter(pc.and_(pc.equal(table["stage"], stage), pc.equal(table["rule"], rule)))
                have += hits.slice(0, EXAMPLES - len(have)).to_pylist()
    return {name: rows for name, rows in sorted(found.items()) if rows}


def tokens_of(build: Build) -> dict[str, Any] | None:
    """Tokens, documents and bytes of the tokenized corpus, None if the recipe asks for none."""
    node = next((node for node in build.nodes if node.instance == "tokens"), None)
    if node is None:
        return None
    shards = [shard.stats for shard in build.shards(node.phase_job("shards"))]
    total = {name: sum(shard[name] for shard in shards) for name in ("documents", "files", "tokens", "bytes")}
    totals = build.out / build.outputs(node.phase_job("manifest"), "totals")[0].file
    parts = json.loads(totals.read_bytes())["parts"]
    return {**total, "shards": len(shards), "vocab_size": node.stage.options.vocab_size, "parts": parts}
