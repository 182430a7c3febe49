"""The stage `opt_out`: what is on the opt-out list leaves.

It runs on occurrences, before copies are merged, so that a file which another owner also holds stays under that
owner's name, and again on the finished files. An owner, repository, origin, snapshot, revision or root directory
takes away its occurrences only; a content leaves everywhere. (The Stack v2, Lozhkov et al. 2024, section 3.5, matched
exact names; here they are canonical, see `stackbuild.origins`.) What it removed is private: released counts
only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from stackbuild.opt_out.ledger import KINDS, Ledger, load
from stackbuild.origins import GITHUB, origin_digests, origins_of_row, prefixes
from stackbuild.schema import ID
from stackbuild.stage import Options, Phase, Stage, Verdict

if TYPE_CHECKING:
    from stackbuild.task import Task

CONTENTS_TABLE: Final = "opted_out_contents"
_BY_NAME: Final = ("owner", "repo", "origin")
_BY_ID: Final = {"snapshot": "snapshot_id", "revision": "revision_id", "directory": "directory_id"}
_SHORT: Final = {"snapshot": "snp", "revision": "rev", "directory": "dir"}


class OptOutOptions(Options):
    list: str | None = Field(None, exclude=True, description="the list file; without it nothing leaves")
    policy: Literal["occurrences", "contents"] = Field(
        "occurrences",
        description="what an entry takes away: its own occurrences, or every copy of their contents too",
    )


class Matcher:
    """The entries of a list as sets, and which rows of a batch they name."""

    def __init__(self, ledger: Ledger):
        self.owners, self.repos, self.origins = (ledger.keys(kind) for kind in _BY_NAME)
        self.origin_ids = frozenset(key[4:] for key in self.origins if key.startswith("ori:"))
        self.ids = {kind: pa.array(sorted(ledger.keys(kind)), pa.string()) for kind in _BY_ID}
        contents = sorted(bytes.fromhex(key) for key in ledger.keys("content"))
        self.contents = pa.array(contents, ID)

    def rows(self, files: pa.RecordBatch) -> dict[str, npt.NDArray[np.bool_]]:
        """For each kind of entry, which of n rows it names (bool, n)."""
        named = self._by_name(files)
        for kind, column in _BY_ID.items():
            named[kind] = _is_in(_digests(files[column], _SHORT[kind]), self.ids[kind])
        # A source of directories has no commit: its revision is the SWHID of the directory.
        named["directory"] |= _is_in(_digests(files["revision_id"], "dir"), self.ids["directory"])
        named["content"] = _is_in(files["content_id"], self.contents)
        return named

    def _by_name(self, files: pa.RecordBatch) -> dict[str, npt.NDArray[np.bool_]]:
        """Judge each distinct (name, URL, other names) of a batch once."""
        if not (self.owners or self.repos or self.origins):
            return {kind: np.zeros(files.num_rows, bool) for kind in _BY_NAME}
        columns = [files[name].dictionary_encode() for name in ("repo_name", "repo_url", "other_names")]
        values = [[None, *column.dictionary.to_pylist()] for column in columns]
        shape = tuple(map(len, values))
        kinds, row_kind = np.unique(
            np.ravel_multi_index([_codes(column) for column in columns], shape), return_inverse=True
        )
        of_kind = zip(*(codes.tolist() for codes in np.unravel_index(kinds, shape)), strict=True)
        judged = [self.kinds_of(*(value[code] for value, code in zip(values, codes, strict=True))) for codes in of_kind]
        by_row = np.array(judged, bool).reshape(-1, len(_BY_NAME))[row_kind]
        return {kind: by_row[:, k] for k, kind in enumerate(_BY_NAME)}

    def kinds_of(
        self, repo_name: str | None, repo_url: str | None, other_names: str | None = None
    ) -> tuple[bool, bool, bool]:
        """Whether an owner's, a repository's or an origin's entry names this repository, by any name that it ever bore."""
        others = (other_names or "").split()
        names = origins_of_row(repo_name, repo_url).union(*(origins_of_row(name, None) for name in others))
        above = {prefix for name in names for prefix in prefixes(name)}
        bare = {name.removeprefix(f"{GITHUB}/") for name in names}
        owner = bool(self.owners & above) or any(
            name.split("/")[0] in self.owners for name in bare if name.count("/") <= 1
        )
        repo = bool(self.repos & bare)
        origin = bool(self.origins & (names | above))
        if self.origin_ids and not origin:
            urls = [*([repo_url] if repo_url else ()), *(f"https://{GITHUB}/{name}" for name in others)]
            origin = any(self.origin_ids & origin_digests(url) for url in urls)
        return owner, repo, origin


def _codes(column: pa.DictionaryArray) -> npt.NDArray[np.int64]:
    """1 + the index of each value in the dictionary, 0 for null."""
    return np.asarray(pc.add(pc.fill_null(column.indices, -1), 1)).astype(np.int64)


def _digests(column: pa.Array, kind: str) -> pa.Array:
    """Ids as 40 lower-case digits, whether they stand alone or in a SWHID of this kind."""
    return pc.replace_substring_regex(pc.utf8_lower(column.cast(pa.string())), f"^swh:1:{kind}:", "")


def _is_in(column: pa.Array, wanted: pa.Array) -> npt.NDArray[np.bool_]:
    if not len(wanted):
        return np.zeros(len(column), bool)
    return np.asarray(pc.is_in(column, value_set=wanted.cast(column.type)))


def collect_contents(task: Task) -> None:
    """Write the contents of a partition's opted-out occurrences (policy `contents`)."""
    options: OptOutOptions = task.options
    matcher = Matcher(load(Path(options.list)) if options.list else Ledger(()))
    schema = pa.schema([pa.field("content_id", ID)])
    found: set[bytes] = set()
    for batch in task.batches(OptOut.reads):
        named = np.logical_or.reduce(list(matcher.rows(batch).values()))
        found.update(batch["content_id"].filter(pa.array(named)).to_pylist())
    with task.writer(CONTENTS_TABLE, schema) as writer:
        writer.write(pa.record_batch([pa.array(sorted(found), ID)], schema=schema))


class OptOut(Stage[OptOutOptions]):
    """Drops what the list names; adds nothing."""

    name = "opt_out"
    space = ("occurrence", "file")
    reads = ("repo_name", "repo_url", "other_names", "snapshot_id", "revision_id", "directory_id", "content_id")
    private_decisions: ClassVar[bool] = True
    options_model = OptOutOptions

    def __init__(self, options: OptOutOptions | None = None):
        super().__init__(options)
        self._ledger: Ledger | None = None
        self._matcher: Matcher | None = None

    def ledger(self) -> Ledger:
        """The list, read at first use; InputError if it cannot be."""
        if self._ledger is None:
            self._ledger = load(Path(self.options.list)) if self.options.list else Ledger(())
        return self._ledger

    def key(self) -> Mapping[str, Any]:
        """What the list says, not where it lies or how it is written."""
        return {"entries": self.ledger().digest()}

    def phases(self) -> Sequence[Phase]:
        """With the policy `contents`, the contents of all opted-out occurrences are gathered first."""
        if self.options.policy == "occurrences" or not self.options.list:
            return ()
        return (Phase("contents", collect_contents, tasks="partition", columns=self.reads),)

    def load(self, task: Task) -> None:
        """Take the gathered contents."""
        if self.phases():
            matcher = self.matcher()
            found = [matcher.contents, *(batch["content_id"] for batch in task.read(CONTENTS_TABLE))]
            matcher.contents = pc.unique(pa.concat_arrays([array.cast(ID) for array in found]))

    def matcher(self) -> Matcher:
        """The entries as sets."""
        if self._matcher is None:
            self._matcher = Matcher(self.ledger())
        return self._matcher

    def conceals(self, rows: pa.RecordBatch) -> pa.Array:
        """Rows of repositories and contents that the list names."""
        named = self.matcher().rows(rows)
        return pa.array(np.logical_or.reduce(list(named.values())))

    def verdicts(self, files: pa.RecordBatch) -> Iterable[Verdict]:
        """One verdict for each kind of entry, the widest first."""
        if not self.ledger().entries:
            return
        named = self.matcher().rows(files)
        for kind in KINDS:
            yield Verdict(f"opt_out:{kind}", keep=pa.array(~named[kind]))
