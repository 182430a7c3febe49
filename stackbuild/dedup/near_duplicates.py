"""Near-duplicates of a table in memory: the functions of the stage, one after the other."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.dedup.candidates import Numbers, candidate_pairs
from stackbuild.dedup.options import LICENSE_RANK, NearDedupOptions
from stackbuild.dedup.shingles import Hashes, shingle_sets
from stackbuild.dedup.signatures import band_keys, permutation_constants, sign_texts
from stackbuild.dedup.survivors import Floats, RankColumn, collapse, keep_places, solve
from stackbuild.dedup.verify import jaccard_pairs
from stackbuild.errors import InputError
from stackbuild.hashing import draw

SIGN_ROWS = 65_536  # files whose signatures are in memory at a time (64 MB)


def scope_hashes(languages: pa.Array | None, rows: int) -> Hashes:
    """The scope of each file as uint64 (rows,): a hash of its language (none is a language too), or 0 for all."""
    if languages is None:
        return np.zeros(rows, np.uint64)
    if isinstance(languages, pa.ChunkedArray):
        languages = languages.combine_chunks()
    encoded = languages.cast(pa.string()).dictionary_encode(null_encoding="encode")
    hashes = [draw(0, name) if name is not None else draw(0) for name in encoded.dictionary.to_pylist()]
    return np.array(hashes, np.uint64)[np.asarray(encoded.indices)] if rows else np.zeros(0, np.uint64)


def rank_values(column: pa.Array, name: str) -> pa.Array:
    """A survivor column as int64: the place of a licence class, a count, a date; null where it has none."""
    if name == "license_rank":
        return pc.index_in(column.cast(pa.string()), value_set=pa.array(LICENSE_RANK)).cast(pa.int64())
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("ns"), safe=False).cast(pa.int64())
    return column.cast(pa.int64())


def rank_column(values: pa.Array, survivor: str) -> RankColumn:
    """An int64 array as a column to choose survivors by; `survivor` as in the recipe, with its '-'."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    filled = np.asarray(values.fill_null(0)).astype(np.int64)
    return RankColumn(filled, np.asarray(values.is_valid()).astype(bool), survivor.startswith("-"))


def near_duplicates(
    table: pa.Table,
    text_column: str = "text",
    id_column: str = "content_id",
    options: NearDedupOptions | None = None,
    seed: int = 42,
) -> pa.Table:
    """Find the near-duplicates among a table's texts.

    Returns a table of as many rows in the same order: the ids; `cluster_id` (the smallest id of the cluster, null
    where a file is alone) and `cluster_size`; `kept`; `kept_id` and `similarity` (float64, exact Jaccard) for a file
    that should leave. Survivor columns and `language` that the table does not have count as null. Ids are unique, of
    a type that Arrow sorts.

    Memory: a sorted copy of the texts, 336 bytes of band keys a file and the shingle sets of the files with a
    candidate (8 bytes a shingle).
    """
    options = options or NearDedupOptions()
    rows, ids = table.num_rows, table[id_column].combine_chunks()
    order = pc.sort_indices(ids)
    _refuse_repeats(ids.take(order), id_column)
    files = table.take(order)
    texts = files[text_column].cast(pa.large_string()).combine_chunks()
    languages = files["language"] if options.scope == "language" and "language" in table.column_names else None
    scopes = scope_hashes(languages, rows)
    bands, per_band = options.layout
    a, b = permutation_constants(seed, options.permutations)
    keys, numbers = [np.zeros((0, bands), np.uint64)], [np.zeros(0, np.int64)]
    for start in range(0, rows, SIGN_ROWS):
        signatures, counts = sign_texts(texts.slice(start, SIGN_ROWS), options.shingling, a, b)
        signed = np.flatnonzero(counts)
        keys.append(band_keys(signatures[signed], scopes[start + signed], bands, per_band))
        numbers.append(start + signed)
    pairs = list(candidate_pairs(np.concatenate(keys).reshape(-1), np.repeat(np.concatenate(numbers), bands)))
    left = np.concatenate([np.zeros(0, np.int64), *(p[0] for p in pairs)])
    right = np.concatenate([np.zeros(0, np.int64), *(p[1] for p in pairs)])
    members = np.unique(np.concatenate((left, right)))
    left, right = np.searchsorted(members, left), np.searchsorted(members, right)
    columns = [
        rank_column(rank_values(files[column].take(pa.array(members)), name.removeprefix("-")), name)
        for name, column in zip(options.survivor, options.survivor_columns, strict=True)
        if column in table.column_names
    ]
    places = keep_places(columns, members)
    if options.verify:
        hashes, offsets = shingle_sets(texts.take(pa.array(members)), options.shingling)

        def similarity_of(left: Numbers, right: Numbers) -> Floats:
            return np.asarray(jaccard_pairs(hashes, offsets, hashes, offsets, left, right, options.threshold))

        found = solve(places, left, right, similarity_of, options.threshold)
    else:
        found = collapse(places, left, right)
    return _in_first_order(ids, order, members, found.cluster, found.size, found.kept_by, found.similarity, id_column)


def _in_first_order(
    ids: pa.Array,
    order: pa.Array,
    members: Numbers,
    cluster: Numbers,
    size: Numbers,
    kept_by: Numbers,
    similarity: Floats,
    id_column: str,
) -> pa.Table:
    rows = np.asarray(order).astype(np.int64)
    clusters, kept, sizes = (
        np.full(len(ids), -1, np.int64),
        np.full(len(ids), -1, np.int64),
        np.ones(len(ids), np.int64),
    )
    values = np.full(len(ids), np.nan)
    at = rows[members]
    clusters[at] = np.where(size > 1, rows[members[cluster]], -1)
    sizes[at] = size
    kept[at] = np.where(kept_by >= 0, rows[members[np.maximum(kept_by, 0)]], -1)
    values[at] = similarity
    return pa.table(
        {
            id_column: ids,
            "cluster_id": ids.take(pa.array(clusters, mask=clusters < 0)),
            "cluster_size": pa.array(sizes),
            "kept": pa.array(kept < 0),
            "kept_id": ids.take(pa.array(kept, mask=kept < 0)),
            "similarity": pa.array(values, mask=np.isnan(values)),
        }
    )


def _refuse_repeats(ids: pa.Array, id_column: str) -> None:
    """Raise InputError if ids, which are sorted, repeat or are null."""
    if ids.null_count:
        raise InputError(
            f"{id_column} is null in {ids.null_count} rows; near-duplicates are told apart by it. Give each row an id."
        )
    if len(ids) > 1:
        same = pc.equal(ids.slice(1), ids.slice(0, len(ids) - 1))
        if pc.any(same).as_py():
            value = ids[pc.index(same, True).as_py()].as_py()
            shown = value.hex() if isinstance(value, bytes) else repr(value)
            raise InputError(
                f"{id_column} {shown} stands in two rows; merge exact copies first, or give each row an id."
            )
