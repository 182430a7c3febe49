"""Near-duplicates of a table in memory: the functions of the stage, one after the other."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.dedup.candidates import SharedKeys, candidate_pairs
from stackbuild.dedup.exact_join import exact_pairs
from stackbuild.dedup.numbers import VARIANT_BITS, Numbers
from stackbuild.dedup.options import LICENSE_RANK, NearDedupOptions
from stackbuild.dedup.shingles import Hashes
from stackbuild.dedup.signatures import band_keys, permutation_constants, sketch_texts
from stackbuild.dedup.survivors import Floats, RankColumn, collapse, keep_places, solve
from stackbuild.dedup.verify import jaccard_pairs
from stackbuild.errors import InputError
from stackbuild.hashing import scope_hashes
from stackbuild.tables import arrow

SKETCH_ROWS = 8192  # files that are sketched at a time (their signatures take 8 MB)


def rank_values(column: pa.Array, name: str) -> pa.Array:
    """A survivor column as int64 of the same order: the place of a licence class, a number, a date; null where it has none.

    pyarrow.ArrowException if it is of another type.
    """
    if name == "license_rank" and not pa.types.is_integer(column.type):
        return pc.index_in(column.cast(pa.string()), value_set=pa.array(LICENSE_RANK)).cast(pa.int64())
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.int64())
    if pa.types.is_floating(column.type):  # the bits of a float ascend with it, those of a negative one the other way
        floats = column.cast(pa.float64())
        bits = (np.asarray(floats.fill_null(0.0)) + 0.0).view(np.int64)  # the two zeros are one
        ordered = np.where(bits < 0, bits ^ np.int64(0x7FFFFFFFFFFFFFFF), bits)
        return arrow(
            ordered, ~np.asarray(pc.and_(floats.is_valid(), pc.invert(pc.fill_null(pc.is_nan(floats), False))))
        )
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

    Memory: a sorted copy of the texts, 336 bytes of band keys a file and 8 bytes for each distinct shingle of a file.
    """
    options = options or NearDedupOptions()
    rows, ids = table.num_rows, table[id_column].combine_chunks()
    order = pc.sort_indices(ids)
    _refuse_repeats(ids.take(order), id_column)
    files = _without_views(table).take(order)
    texts = _texts(files, text_column)
    languages = files["language"] if options.scope == "language" and "language" in table.column_names else None
    hashes, offsets, left, right = _candidates(texts, scope_hashes(languages, rows), options, seed)
    members = np.unique(np.concatenate((left, right)))
    left, right = np.searchsorted(members, left), np.searchsorted(members, right)
    columns = [
        rank_column(rank_values(files[column].take(arrow(members)), name.removeprefix("-")), name)
        for name, column in zip(options.survivor, options.survivor_columns, strict=True)
        if column in table.column_names
    ]
    places = keep_places(columns, members)
    if options.verify:

        def similarity_of(left: Numbers, right: Numbers) -> Floats:
            i, j = members[left], members[right]
            return np.asarray(jaccard_pairs(hashes, offsets, hashes, offsets, i, j, options.threshold))

        found = solve(places, left, right, similarity_of, options.threshold)
    else:
        found = collapse(places, left, right)
    return _in_first_order(ids, order, members, found.cluster, found.size, found.kept_by, found.similarity, id_column)


def _without_views(table: pa.Table) -> pa.Table:
    """Arrow cannot take rows of columns of views."""
    plain = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    fields = [field.with_type(plain.get(field.type, field.type)) for field in table.schema]
    return table.cast(pa.schema(fields))


def _texts(files: pa.Table, column: str) -> pa.Array:
    """A column of text or bytes, in one chunk. InputError if it is none."""
    if column not in files.column_names:
        raise InputError(f"The table has no column {column!r}; it has {', '.join(files.column_names[:30])}.")
    kind = files.schema.field(column).type
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    try:
        return files[column].cast(pa.large_binary() if is_bytes else pa.large_string()).combine_chunks()
    except pa.ArrowException as error:
        raise InputError(f"The column {column!r} is {kind}, not text ({error}).") from error


def _candidates(
    texts: pa.Array, scopes: Hashes, options: NearDedupOptions, seed: int
) -> tuple[Hashes, Numbers, Numbers, Numbers]:
    """The sets of all texts (hashes, offsets) and the candidate pairs among them (left, right)."""
    bands, per_band = options.layout
    a, b = permutation_constants(seed, options.permutations)
    sets, sizes = [np.zeros(0, np.uint64)], [np.zeros(1, np.int64)]
    keys, numbers = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for start in range(0, len(texts), SKETCH_ROWS):
        made = sketch_texts(texts.slice(start, SKETCH_ROWS), options.shingling, a, b)
        shingles = np.diff(made.offsets)
        signed = np.flatnonzero(shingles)
        if not options.exact:
            keys.append(band_keys(made.signatures[signed], scopes[start + signed], bands, per_band).reshape(-1))
            numbers.append(np.repeat(start + signed, bands))
        sets.append(made.hashes)
        sizes.append(shingles)
    hashes, offsets = np.concatenate(sets), np.cumsum(np.concatenate(sizes))
    if options.exact:
        left, right, _ = exact_pairs(hashes, offsets, options.threshold, scopes, once=True)
        return hashes, offsets, left, right
    key, number = np.concatenate(keys), np.concatenate(numbers) << VARIANT_BITS
    known = SharedKeys(len(key))
    known.add(key)
    shared = known.shared(key)
    pairs = list(candidate_pairs(key[shared], number[shared]))
    left = np.concatenate([np.zeros(0, np.int64), *(p[0] for p in pairs)]) >> VARIANT_BITS
    right = np.concatenate([np.zeros(0, np.int64), *(p[1] for p in pairs)]) >> VARIANT_BITS
    return hashes, offsets, left, right


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
            "cluster_id": ids.take(arrow(clusters, clusters < 0)),
            "cluster_size": arrow(sizes),
            "kept": arrow(kept < 0),
            "kept_id": ids.take(arrow(kept, kept < 0)),
            "similarity": arrow(values, np.isnan(values)),
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
