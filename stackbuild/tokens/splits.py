"""Which repositories are held out for validation: drawn by hash, and never apart from those that they resemble.

Repositories that hold near-duplicates of each other, as the clusters of the build tell (the removed twins too), and those
that hold the same content, form components. A component goes to one side as a whole: `valid` if the hash of (seed, its
smallest repository name) says so, else `train`. So that one family of forks cannot take the split over, a component of more
than `LARGEST` of the text is parted into the components that equal contents alone join, and these are drawn; where such a
one is that large itself, and of several repositories, it is `train`.

    links    (one for each file of clusters)   stars of repositories that share a cluster
    divide                                     the held-out repositories, from all links and the dataset's rows

Tokens are not counted yet when this is decided, so that shares are of bytes of files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stackbuild.errors import InputError
from stackbuild.hashing import draw
from stackbuild.joins import rows_of, session, stream, table_of
from stackbuild.union_find import components, join, roots

LARGEST = 0.01  # of the text: the share above which a component is parted
LINKS = pa.schema([pa.field("left", pa.string(), nullable=False), pa.field("right", pa.string(), nullable=False)])
HELD_OUT = pa.schema(
    [
        pa.field("repo_name", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),  # the name that was drawn: the smallest of its component
    ]
)
_EDGES = pa.schema([pa.field("a", pa.int64()), pa.field("b", pa.int64())])
_NAMED = pa.schema([pa.field("id", pa.int64()), pa.field("repo_name", pa.string())])

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Divided:
    """What was held out. `bytes`: of all files; `parted`: components that were too large to go to one side as a whole."""

    repos: int
    components: int
    parted: int
    bytes: int
    held_out_repos: int
    held_out_bytes: int


def links(batches: Iterator[pa.RecordBatch]) -> pa.Table:
    """Repositories that share a cluster, as a table of LINKS: a star for each component of them, sorted.

    `batches`: rows with cluster_id and repo_name, whole clusters, those of one cluster one behind the other.
    """
    names: dict[str, int] = {}
    left, right = [], []
    last: tuple[Any, int] | None = None
    for batch in batches:
        if not batch.num_rows:
            continue
        coded = batch.column("repo_name").dictionary_encode()
        numbers = np.array([names.setdefault(name, len(names)) for name in coded.dictionary.to_pylist()], np.int64)
        repo = numbers[np.asarray(coded.indices)]
        cluster = batch.column("cluster_id")
        same = np.asarray(pc.equal(cluster[1:], cluster[:-1])) & (repo[1:] != repo[:-1])
        left.append(repo[:-1][same])
        right.append(repo[1:][same])
        if last is not None and last[0] == cluster[0].as_py():
            left.append(np.array([last[1]]))
            right.append(repo[:1])
        last = cluster[-1].as_py(), int(repo[-1])
    # Numbered in the order of their names, the smallest number of a component is its smallest name.
    sorted_names = sorted(names)
    rank = np.empty(len(names), np.int64)
    rank[[names[name] for name in sorted_names]] = np.arange(len(names))
    root = components(len(names), rank[_joined(left)], rank[_joined(right)])
    others = np.flatnonzero(root != np.arange(len(names)))
    named = pa.array(sorted_names, pa.string())
    rows = [named.take(pa.array(root[others])), named.take(pa.array(others))]
    return pa.Table.from_arrays(rows, schema=LINKS)


def divide(
    dataset: Sequence[str | Path],
    links: Sequence[str | Path],
    share: float,
    seed: int,
    scratch: Path,
    out_path: Path,
    unique_contents: bool = False,
) -> Divided:
    """Write the held-out repositories to `out_path` (Parquet, schema HELD_OUT, by name).

    `dataset`: Parquet files of schema.DATASET; `links`: of `LINKS`. `share`: the part of the components that is held out.
    `unique_contents`: no content_id comes twice, which spares a join over all files. Memory: 256 MB for joins, which spill
    below `scratch`, and some 40 bytes for each repository. InputError if a file cannot be read or has no repo_name.
    """
    with session(scratch) as connection:
        _repositories(connection, dataset, links)
        repos = _count(connection, "SELECT count(*) FROM repos")
        sizes = np.zeros(repos, np.int64)
        for batch in rows_of(connection, "SELECT id AS a, bytes AS b FROM repos", _EDGES):
            sizes[batch["a"].to_numpy()] = batch["b"].to_numpy()
        hard = np.arange(repos)
        if not unique_contents:
            _join(connection, hard, _SAME_CONTENT)
        soft = hard.copy()
        _join(connection, soft, "SELECT l.id AS a, r.id AS b FROM links JOIN repos l ON l.repo_name = links.left "
                                "JOIN repos r ON r.repo_name = links.right")  # fmt: skip
        label, drawn, parted = _components(roots(soft), roots(hard), sizes)
        held_out = _drawn(connection, label, drawn, share, seed)
        _write(connection, label, held_out, out_path)
        inside = held_out[label]
        in_dataset = sizes >= 0
        return Divided(
            repos=int(in_dataset.sum()),
            components=len(np.unique(label[in_dataset])),
            parted=parted,
            bytes=int(sizes[in_dataset].sum()),
            held_out_repos=int((inside & in_dataset).sum()),
            held_out_bytes=int(sizes[inside & in_dataset].sum()),
        )


# Of each content that lies in several repositories, a star of these.
_SAME_CONTENT = """
WITH pairs AS (SELECT DISTINCT content_id, repos.id FROM files JOIN repos USING (repo_name)),
     firsts AS (SELECT content_id, min(id) AS a FROM pairs GROUP BY content_id HAVING count(*) > 1)
SELECT DISTINCT a, id AS b FROM firsts JOIN pairs USING (content_id) WHERE a <> id
"""


def _repositories(connection: Any, dataset: Sequence[str | Path], links: Sequence[str | Path]) -> None:
    """Number all repositories by name: those of the dataset with their bytes of text, those of links alone with -1."""
    import duckdb

    def view(name: str, paths: Sequence[str | Path], empty: pa.Schema) -> None:
        if paths:
            connection.read_parquet([str(path) for path in paths]).create_view(name)
        else:
            connection.register(name, empty.empty_table())

    try:
        fields = [("repo_name", pa.string()), ("content_id", pa.string()), ("length_bytes", pa.int64())]
        view("files", dataset, pa.schema(fields))
        view("links", links, LINKS)
        if _count(connection, "SELECT count(*) FROM files WHERE repo_name IS NULL"):
            raise InputError("The dataset holds a file without repo_name; a document needs it.")
        connection.execute("""
            CREATE TABLE repos AS SELECT row_number() OVER (ORDER BY repo_name) - 1 AS id, * FROM (
                SELECT repo_name, max(bytes) AS bytes FROM (
                    SELECT repo_name, CAST(coalesce(sum(length_bytes), 0) AS BIGINT) AS bytes FROM files GROUP BY repo_name
                    UNION ALL SELECT "left", -1 FROM links UNION ALL SELECT "right", -1 FROM links
                ) GROUP BY repo_name
            )
        """)
    except (duckdb.IOException, duckdb.InvalidInputException, duckdb.BinderException) as error:
        raise InputError(f"The dataset cannot be divided: {str(error).splitlines()[0]}") from error


def _count(connection: Any, query: str) -> int:
    return int(connection.execute(query).fetchall()[0][0])


def _join(connection: Any, parents: Numbers, query: str) -> None:
    """Join the trees of the pairs (a, b) of a query."""
    for batch in rows_of(connection, query, _EDGES):
        join(parents, batch["a"].to_numpy(), batch["b"].to_numpy())


def _components(soft: Numbers, hard: Numbers, sizes: Numbers) -> tuple[Numbers, npt.NDArray[np.bool_], int]:
    """(the component of each repository that is drawn as one, whether a component may be drawn, how many were parted).

    All are of shape (repositories,); a component is named by its smallest number.
    """
    weights = np.maximum(sizes, 0)
    limit = LARGEST * int(weights.sum())
    large = np.bincount(soft, weights, len(sizes)) > limit
    members = np.bincount(soft, minlength=len(sizes))
    parted = int((large & (members > 1)).sum())
    label = np.where(large[soft], hard, soft)
    too_large = (np.bincount(hard, weights, len(sizes)) > limit) & (np.bincount(hard, minlength=len(sizes)) > 1)
    may = np.ones(len(sizes), np.bool_)
    may[label[large[soft] & too_large[hard]]] = False
    return label, may, parted


def _drawn(
    connection: Any, label: Numbers, may: npt.NDArray[np.bool_], share: float, seed: int
) -> npt.NDArray[np.bool_]:
    """Whether each component, by its number, is held out."""
    wanted = np.zeros(len(label), np.bool_)
    wanted[label] = True
    wanted &= may
    held_out = np.zeros(len(label), np.bool_)
    for batch in rows_of(connection, "SELECT id, repo_name FROM repos", _NAMED):
        numbers = batch["id"].to_numpy()
        rows = np.flatnonzero(wanted[numbers])
        names = batch["repo_name"].take(pa.array(rows)).to_pylist()
        held_out[numbers[rows]] = [draw(seed, "split", name) < share * 2**64 for name in names]
    return held_out


def _write(connection: Any, label: Numbers, held_out: npt.NDArray[np.bool_], path: Path) -> None:
    numbers = np.flatnonzero(held_out[label])
    chosen = pa.table({"a": numbers, "b": label[numbers]}, schema=_EDGES)
    connection.register("chosen", stream(iter(chosen.to_batches()), _EDGES))
    query = """
        SELECT r.repo_name, k.repo_name AS key FROM chosen
        JOIN repos r ON r.id = chosen.a JOIN repos k ON k.id = chosen.b WHERE r.bytes >= 0 ORDER BY r.repo_name
    """
    pq.write_table(table_of(connection, query, HELD_OUT), path, compression="zstd")


def _joined(arrays: Sequence[Numbers]) -> Numbers:
    return np.concatenate(arrays) if arrays else np.empty(0, np.int64)
