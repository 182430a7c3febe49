"""From what a walk found to what is fetched: the plain SHA-1 and the length of each content, or why there is none.

The graph knows a file by its git SHA-1, the store by its plain SHA-1; the table of contents joins them. A content that is not
there may stand in the table of skipped ones, which says why (too large, as a rule); else nobody knows. Rules:

  skipped_content   Software Heritage did not archive it; `detail` is its reason
  not_visible       its status says so: hidden, absent
  unknown_content   the export names it nowhere
  too_large         longer than `Limits.file_bytes`
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from stackbuild.schema import ID
from stackbuild.sources.swh.session import MEMORY, Ids, ids_of, rows_of, stream
from stackbuild.sources.swh.tables import CONTENTS, SKIPPED, VISIBLE
from stackbuild.sources.swh.walk import FOUND
from stackbuild.sources.unit import Limits

# A content that is asked for, each once, in order of its id.
WANTED = pa.schema(
    [
        pa.field("content_id", ID, nullable=False),
        pa.field("blob_id", ID, nullable=False),
        pa.field("length", pa.int64(), nullable=False),
    ]
)
# A content that is not: `value` and `threshold` of its rule.
REFUSED = pa.schema(
    [
        pa.field("content_id", ID, nullable=False),
        pa.field("length", pa.int64()),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("threshold", pa.float64()),
        pa.field("detail", pa.string()),
    ]
)


def resolve(
    connection: Any,
    found: Iterator[pa.RecordBatch],
    contents: Callable[[Ids | None], Iterator[pa.RecordBatch]],
    skipped: Callable[[Ids | None], Iterator[pa.RecordBatch]],
    limits: Limits,
    memory: int = MEMORY,
) -> tuple[Iterator[pa.RecordBatch], Iterator[pa.RecordBatch]]:
    """(WANTED, REFUSED) of the files in `found` (FOUND; only targets of files), to be read in this order.

    `contents`, `skipped`: rows of CONTENTS and SKIPPED of the contents that they are given, or of more, of all in the range at hand
    for None; each called once. Two rows of one content (exports are written at least once) are one: the visible one, then the
    smaller SHA-1.
    """
    connection.register("arriving", stream(found, pa.schema([FOUND.field("target")])))
    connection.execute("CREATE OR REPLACE TEMP TABLE asked AS SELECT DISTINCT target AS content_id FROM arriving")
    connection.unregister("arriving")
    ids = ids_of(connection, "asked", "content_id", memory)
    for name, schema, batches, order in (
        ("known", CONTENTS.schema, contents, f"content_id, status <> {VISIBLE}, blob_id, length"),
        ("not_taken", SKIPPED.schema, skipped, "content_id, reason, length"),
    ):
        connection.register("arriving", stream(batches(ids), schema))
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT DISTINCT ON (content_id) * FROM arriving "
            f"SEMI JOIN asked USING (content_id) ORDER BY {order}"
        )
        connection.unregister("arriving")
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE answered AS
        SELECT a.content_id, k.blob_id, coalesce(k.length, n.length) AS length, n.reason AS detail,
            CASE WHEN k.content_id IS NULL AND n.content_id IS NULL THEN 'unknown_content'
                 WHEN k.content_id IS NULL THEN 'skipped_content'
                 WHEN k.status <> {VISIBLE} THEN 'not_visible'
                 WHEN k.length > {limits.file_bytes} THEN 'too_large' END AS rule
        FROM asked a LEFT JOIN known k USING (content_id) LEFT JOIN not_taken n USING (content_id)
        """
    )
    return (
        rows_of(
            connection,
            "SELECT content_id, blob_id, length FROM answered WHERE rule IS NULL ORDER BY content_id",
            WANTED,
        ),
        rows_of(
            connection,
            f"""
            SELECT content_id, length, rule, CASE WHEN rule = 'too_large' THEN length END::DOUBLE AS value,
                CASE WHEN rule = 'too_large' THEN {limits.file_bytes} END::DOUBLE AS threshold,
                CASE WHEN rule = 'skipped_content' THEN detail END AS detail
            FROM answered WHERE rule IS NOT NULL ORDER BY content_id
            """,
            REFUSED,
        ),
    )
