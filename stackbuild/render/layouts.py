"""How files become documents: the layouts of StarCoder2, StarCoder and SantaCoder, as columns.

`starcoder2` (Lozhkov et al. 2024, section 5.1): a document is a repository at one revision, its files in random order. With
probability 0.5, drawn once for each repository, their names are told:

    <repo_name>name<file_sep>path1\\ncode1<file_sep>path2\\ncode2<|endoftext|>
    <file_sep>code1<file_sep>code2<|endoftext|>

`starcoder` (Li et al. 2023, section 5.2): a document is a file. Each of three prefixes stands in front with probability 0.2, a
line feed behind the last of those that do:

    <reponame>name<filename>path<gh_stars>1-10\\ncode<|endoftext|>
    code<|endoftext|>

`santacoder` (Ben Allal et al. 2023): a document is a file, and nothing stands in front.

Paths are written without the leading "/". A layout says only what stands in front of each file and where documents begin; the
texts of files are never touched here, and a sentinel is an id from here, never letters. Each piece becomes tokens by itself:
a token never spans a header and the code behind it, a file has the same tokens with and without its name, and
fill-in-the-middle can keep out of headers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.render.order import has_metadata, has_prefix
from stackbuild.render.sentinels import FILE_SEP, FILENAME, GH_STARS, REPO_NAME, REPONAME

NONE = -1  # where a piece has no sentinel
STARS = (0, 10, 100, 1000)  # the highest count of each bucket but the last
BUCKETS = ("0", "1-10", "10-100", "100-1000", "1000+")


class Rendered(NamedTuple):
    """What stands in front of n files.

    `opens`: bool (n,), whether a document begins with the file. `sentinels`: int32 (k, n), the ids of up to k pieces in
    front of each file, NONE for none. `texts`: large_string of length k * n, the text behind the sentinel of piece p of
    file f at p * n + f, "" for none.
    """

    opens: npt.NDArray[np.bool_]
    sentinels: npt.NDArray[np.int32]
    texts: pa.LargeStringArray


class Layout(Protocol):
    """Renders the files of one shard, batch after batch, sorted by (repo_name, revision_id, order)."""

    def render(self, files: pa.Table) -> Rendered:
        """What stands in front of these files. Columns: repo_name, revision_id, path, content_id (binary(20)),
        star_events_count."""
        ...


class Repositories:
    """Documents of repositories, as StarCoder2."""

    def __init__(self, sentinels: Mapping[str, int], seed: int):
        self._repo, self._file, self._seed = sentinels[REPO_NAME], sentinels[FILE_SEP], seed
        self._last: tuple[str, str] | None = None  # repository and revision of the document that is open
        self._named = False

    def render(self, files: pa.Table) -> Rendered:
        repos, revisions = _large(files["repo_name"]), _large(files["revision_id"])
        rows = len(repos)
        opens = np.ones(rows, np.bool_)
        if rows:
            opens[1:] = _changes(repos) | _changes(revisions)
            opens[0] = self._last != (repos[0].as_py(), revisions[0].as_py())
        named = np.empty(rows, np.bool_)
        starts = np.flatnonzero(opens)
        for start, end in zip([0, *starts], [*starts, rows], strict=True):
            if end > start:  # empty where the batch begins with a document
                key = repos[start].as_py(), revisions[start].as_py()
                if key != self._last:
                    self._last, self._named = key, has_metadata(self._seed, *key)
                named[start:end] = self._named
        tells, every = pa.array(named & opens), pa.array(named)
        texts = [pc.if_else(tells, repos, ""), pc.if_else(every, _with_line_feed(_paths(files)), "")]
        ids = np.stack([np.where(named & opens, self._repo, NONE), np.full(rows, self._file)])
        return Rendered(opens, ids.astype(np.int32), pa.concat_arrays(texts))


class Files:
    """Documents of single files with repository, path and stars in front by chance, as StarCoder."""

    def __init__(self, sentinels: Mapping[str, int], seed: int):
        self._ids = [(name, sentinels[name]) for name in (REPONAME, FILENAME, GH_STARS)]
        self._seed = seed

    def render(self, files: pa.Table) -> Rendered:
        contents = files["content_id"].to_pylist()
        rows = len(contents)
        told = np.array(
            [[has_prefix(self._seed, name, content) for content in contents] for name, _ in self._ids], np.bool_
        ).reshape(len(self._ids), rows)
        values = [_large(files["repo_name"]), _paths(files), star_buckets(files["star_events_count"])]
        texts = []
        for number, value in enumerate(values):
            last = told[number] & ~told[number + 1 :].any(axis=0)
            text = pc.if_else(pa.array(last), _with_line_feed(value), value)
            texts.append(pc.if_else(pa.array(told[number]), text, ""))
        ids = np.stack([np.where(told[number], id_, NONE) for number, (_, id_) in enumerate(self._ids)])
        return Rendered(np.ones(rows, np.bool_), ids.astype(np.int32), pa.concat_arrays(texts))


class PlainFiles:
    """Documents of single files with nothing in front, as SantaCoder."""

    def __init__(self, sentinels: Mapping[str, int], seed: int):
        pass

    def render(self, files: pa.Table) -> Rendered:
        rows = files.num_rows
        return Rendered(np.ones(rows, np.bool_), np.empty((0, rows), np.int32), pa.array([], pa.large_string()))


LAYOUTS: Mapping[str, Callable[[Mapping[str, int], int], Layout]] = {
    "starcoder2": Repositories,
    "starcoder": Files,
    "santacoder": PlainFiles,
}


def star_buckets(stars: pa.ChunkedArray | pa.Array) -> pa.LargeStringArray:
    """StarCoder's words for n counts of stars; unknown is 0."""
    counts = pc.fill_null(stars, 0).to_numpy()
    return pa.array(BUCKETS, pa.large_string()).take(pa.array(np.searchsorted(STARS, counts, "left")))


def _large(column: pa.ChunkedArray) -> pa.LargeStringArray:
    return column.combine_chunks().cast(pa.large_string())


def _paths(files: pa.Table) -> pa.LargeStringArray:
    return pc.replace_substring_regex(_large(files["path"]), r"\A/", "")


def _with_line_feed(texts: pa.LargeStringArray) -> pa.LargeStringArray:
    return pc.binary_join_element_wise(texts, *(pa.scalar(text, pa.large_string()) for text in ("\n", "")))


def _changes(values: pa.Array) -> npt.NDArray[np.bool_]:
    """Whether each of n values but the first differs from the one before it: bool (n - 1,)."""
    return np.asarray(pc.not_equal(values[1:], values[:-1]))
