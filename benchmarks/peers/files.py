r"""What the runners of peers share: reading ids and texts, joining files, writing what stays.

A runner is a script of a virtual environment of its own:

    python run_NAME.py work INPUT OUT WORKERS    near-dedup INPUT/*.parquet (columns id, text) into OUT/*.parquet; this is measured
    python run_NAME.py tell INPUT OUT WORKERS    write OUT/told/groups.parquet (id, group), for every file of a group; this is not

It may import its peer, pyarrow and this module, nothing else of the project.
"""

import re
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

WORD = re.compile(r"\w+")
NGRAM = 5
THRESHOLD = 0.7
BANDS, ROWS = 25, 10


def inputs(folder):
    """The Parquet files of a folder, in order."""
    return sorted(Path(folder).glob("*.parquet"))


def read(path):
    """The columns id and text of a file."""
    return pq.read_table(path, columns=["id", "text"], use_threads=False)


def shingles(text):
    r"""The word 5-grams of a text as peers without shingling of their own are given them: `\w+` in lower case."""
    words = WORD.findall(text.lower())
    return [" ".join(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)]


class Groups:
    """Union-find over rows; the smallest row of a group is the one that stays."""

    def __init__(self, rows):
        self.parents = list(range(rows))

    def root(self, row):
        parents = self.parents
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    def join(self, row, others):
        for other in others:
            a, b = self.root(row), self.root(other)
            if a != b:
                self.parents[max(a, b)] = min(a, b)


def write_kept(folder, out, groups):
    """Write the files that stay, a Parquet file for each of the input, and which file stands for each that left."""
    out = Path(out)
    (out / "told").mkdir(parents=True)
    ids, first = [], 0
    for path in inputs(folder):
        table = read(path)
        keep = [groups.root(first + row) == first + row for row in range(table.num_rows)]
        pq.write_table(table.filter(pa.array(keep)), out / path.name, compression="zstd")
        ids += table["id"].to_pylist()
        first += table.num_rows
    removed = [row for row in range(first) if groups.root(row) != row]
    kept = [ids[groups.root(row)] for row in removed]
    pq.write_table(pa.table({"id": [ids[row] for row in removed], "kept_id": kept}), out / "told" / "removed.parquet")


def tell_removed(folder, out, workers):
    """Groups from what write_kept wrote: a file that stays and those that it stands for."""
    removed = pq.read_table(Path(out, "told", "removed.parquet"))
    kept = removed["kept_id"].unique()
    write_groups(out, removed["id"].to_pylist() + kept.to_pylist(), removed["kept_id"].to_pylist() + kept.to_pylist())


def write_groups(out, ids, groups):
    """The table of `tell`; `groups`: any value, equal within a group."""
    told = Path(out, "told")
    told.mkdir(exist_ok=True)
    table = pa.table(
        {"id": pa.array(ids, pa.string()), "group": pa.array([str(group) for group in groups], pa.string())}
    )
    pq.write_table(table, told / "groups.parquet")


def main(work, tell=tell_removed):
    """Do what the command line asks for."""
    verb, folder, out, workers = sys.argv[1:]
    {"work": work, "tell": tell}[verb](folder, out, int(workers))
