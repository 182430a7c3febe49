"""Which visit of which origin is walked: the last full one of each repository, however its URL is written.

Software Heritage archives a repository once for each way of writing its URL (http, `.git`, a slash at the end), and each has
visits of its own. One repository is walked once: of all visits under all its names the last, by date, then by number.
`status` "full" counts; a partial visit only if the user asks for them.

With `compat` a visit is chosen as The Stack v2 chose it (bigcode-project/the-stack-v2, merge_gha_swh.py): of each URL that
begins with https://github.com/ the full visit of the highest number, so that one repository may be walked under two URLs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import re2

from stackbuild.origins import GITHUB, Unreadable, origin_of_url
from stackbuild.sources.swh.tables import FULL, PARTIAL, VISITS

V2_PREFIX = "https://github.com/"
GITHUB_URL = (
    r"^https?://(?:www\.)?github\.com/(?P<name>[A-Za-z0-9_-]+/[A-Za-z0-9_-](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?)/*$"
)
# `repository`: the name by which URLs are one (`origins`), with `compat` the URL itself. `usable`: the visit counts and has a
# snapshot.
LAST = pa.schema(
    [
        pa.field("bucket", pa.uint16(), nullable=False),
        pa.field("repository", pa.string(), nullable=False),
        pa.field("usable", pa.bool_(), nullable=False),
        *VISITS.schema,
    ]
)


@dataclass(frozen=True)
class Selection:
    """Which origins are wanted, and which of their visits.

    `forges`: hosts, as in ("github.com",); None: all. `names`: repositories, as `origins` writes them; None: all.
    `pattern`: RE2, searched in the URL. `after`, `before`: of the visit, nanoseconds since 1970, half open. `types`: of the
    visit ("git", "pypi" ...); None: all; a visit of old exports has none and counts as any. `partial`: partial visits count.
    """

    forges: tuple[str, ...] | None = None
    names: frozenset[str] | None = None
    pattern: str | None = None
    after: int | None = None
    before: int | None = None
    types: tuple[str, ...] | None = ("git",)
    partial: bool = False
    compat: bool = False


def repositories(urls: pa.StringArray) -> pa.StringArray:
    """The canonical name `host/owner/repo` of each URL, null for what is none.

    Most are of GitHub and need one expression; the rest go through `origins` one by one, each distinct URL once.
    """
    plain = pc.extract_regex(urls, GITHUB_URL)
    names = pc.utf8_lower(pc.struct_field(plain, "name"))
    names = pc.binary_join_element_wise(GITHUB, pc.replace_substring_regex(names, r"\.git$", ""), "/")
    rest = np.flatnonzero(np.asarray(pc.is_null(names)))
    if not len(rest):
        return names
    others = urls.take(pa.array(rest)).dictionary_encode()
    known = pa.array([_repository(url) for url in others.dictionary.to_pylist()], pa.string())
    mask = np.zeros(len(urls), bool)
    mask[rest] = True
    return pc.replace_with_mask(names, pa.array(mask), known.take(others.indices))


def _repository(url: str) -> str | None:
    try:
        host, parts = origin_of_url(url)
    except Unreadable:
        return None
    return "/".join([host, *parts]) if parts else None


def facts_key(urls: pa.StringArray) -> pa.StringArray:
    """By what The Stack v2 joined a URL with GH Archive: the first two parts of its path, as they are written; else the URL."""
    found = pc.struct_field(pc.extract_regex(urls, rf"^{V2_PREFIX}(?P<name>[^/]+/[^/]+)"), "name")
    return pc.coalesce(pc.binary_join_element_wise(GITHUB, found, "/"), urls)


def buckets(names: pa.StringArray, partitions: int) -> npt.NDArray[np.uint16]:
    """The partition of each repository, by its name: uint16 (n,)."""
    encoded = names.dictionary_encode()
    found = [
        int.from_bytes(hashlib.sha1(name.encode()).digest()[:2], "big") * partitions >> 16
        for name in encoded.dictionary.to_pylist()
    ]
    return np.array(found, np.uint16)[np.asarray(encoded.indices)] if found else np.zeros(0, np.uint16)


def last_visits(
    batches: Iterable[pa.RecordBatch], selection: Selection, partitions: int
) -> tuple[pa.Table, dict[str, int]]:
    """Of rows of VISITS the last for each repository that is wanted, as LAST in order of bucket and repository; and counts:
    `rows`, `no_repository` (what names none, rows) and `not_selected` (rows).

    Memory grows with the repositories of these rows, not with their visits.
    """
    counts = {"rows": 0, "no_repository": 0, "not_selected": 0}
    kept: pa.Table = LAST.empty_table()
    waiting: list[pa.Table] = []
    for batch in batches:
        counts["rows"] += batch.num_rows
        waiting.append(_wanted(batch, selection, partitions, counts))
        if sum(len(one) for one in waiting) > max(1 << 16, len(kept)):
            kept, waiting = last_of([kept, *waiting], selection), []
    return last_of([kept, *waiting], selection), counts


def _wanted(batch: pa.RecordBatch, selection: Selection, partitions: int, counts: dict[str, int]) -> pa.Table:
    canonical = repositories(batch["origin"])
    names = (
        pc.if_else(pc.starts_with(batch["origin"], V2_PREFIX), batch["origin"], None) if selection.compat else canonical
    )
    keep = named = pc.is_valid(names)
    if selection.forges is not None:
        forge = pc.struct_field(pc.extract_regex(canonical, r"^(?P<host>[^/]+)/"), "host")
        keep = pc.and_(keep, pc.is_in(forge, value_set=pa.array(selection.forges)))
    if selection.names is not None:
        keep = pc.and_(keep, pc.is_in(canonical, value_set=pa.array(sorted(selection.names))))
    if selection.pattern is not None:
        search = re2.compile(selection.pattern).search
        keep = pc.and_(keep, pa.array([search(url) is not None for url in batch["origin"].to_pylist()]))
    if selection.types is not None:
        of_type = pc.is_in(batch["type"], value_set=pa.array(selection.types))
        keep = pc.and_(keep, pc.or_kleene(of_type, pc.is_null(batch["type"])))
    for bound, inside in ((selection.after, pc.greater_equal), (selection.before, pc.less)):
        if bound is not None:
            at = pa.scalar(bound, pa.timestamp("ns"))
            keep = pc.and_(keep, pc.fill_null(inside(batch["date"], at), False))
    keep = pc.fill_null(keep, False)
    counts["no_repository"] += pc.sum(pc.invert(named)).as_py() or 0
    counts["not_selected"] += pc.sum(pc.and_(named, pc.invert(keep))).as_py() or 0
    rows, names = batch.filter(keep), names.filter(keep)
    counting = (FULL, PARTIAL) if selection.partial else (FULL,)
    usable = pc.and_(
        pc.is_in(rows["status"], value_set=pa.array(counting, pa.int8())), pc.is_valid(rows["snapshot_id"])
    )
    columns: dict[str, Any] = {name: rows[name] for name in VISITS.schema.names}
    key = facts_key(rows["origin"]) if selection.compat else names
    columns |= {"bucket": pa.array(buckets(key, partitions)), "repository": names, "usable": usable}
    return pa.table([columns[field.name] for field in LAST], schema=LAST)


def last_of(tables: Iterable[pa.Table], selection: Selection) -> pa.Table:
    """The last usable visit of each repository, of rows of LAST; of one that has none the last of all."""
    table = pa.concat_tables(tables).combine_chunks()
    if not table.num_rows:
        return table
    by = (
        ("visit",) if selection.compat else ("date_seconds", "date", "visit"),
        ("origin", "snapshot_id", "status", "type"),
    )
    order = pc.sort_indices(
        table,
        [
            ("bucket", "ascending"),
            ("repository", "ascending"),
            ("usable", "descending"),
            *((name, "descending") for name in by[0]),
            *((name, "ascending") for name in (*by[1], "date_seconds", "date", "visit")),
        ],
        null_placement="at_end",
    )
    table = table.take(order)
    names = table["repository"].combine_chunks()
    first = np.ones(table.num_rows, bool)
    first[1:] = np.asarray(pc.not_equal(names.slice(1), names.slice(0, len(names) - 1)))
    return table.filter(pa.array(first)).combine_chunks()
