"""Take documents and files out of a tokenized corpus without moving anything: `stackbuild tokens remove`.

What is asked for is an opt-out list, the same as that of a build. Documents are found by their tables, a row group at a
time; where the build's repositories or dataset stand beside, also by URL, snapshot and root directory. A repository (an
owner, an origin, a revision, ...) takes its whole documents away; a content takes away the text of that file in every
document, and leaves the header in front of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stackbuild.errors import InputError
from stackbuild.journal import only_one
from stackbuild.opt_out.ledger import Ledger
from stackbuild.opt_out.stage import Matcher
from stackbuild.schema import ID
from stackbuild.shards import file_sha256, fsync_directory, write_atomically
from stackbuild.status import described
from stackbuild.tokens.dataset import OpenShard, TokensDataset, tokens_folder
from stackbuild.tokens.indexed import document_blocks
from stackbuild.tokens.job import read_manifest
from stackbuild.tokens.mapped import forget
from stackbuild.tokens.removed import NAME, Removed, dump_manifest, load_removed, with_digests

PLACES = ("repo_url", "snapshot_id", "directory_id")  # what a document's table does not know of its repository
KEY = ("repo_name", "revision_id")
UNKNOWN_WITHOUT_A_BUILD = ("origin", "snapshot", "directory")
KEPT_APART = "\0"
TOGETHER = 256 << 20  # bytes of tokens that are overwritten before the manifest is renewed


@dataclass
class Removal:
    """What was found and done. `documents` lose all or some of their text; `files`: all that leave, those of whole
    documents among them; `tokens` are removed now, `before` were already; `unanswered`: entries of a kind that nothing
    here can tell; `overwritten`: shards whose `.bin` was written again."""

    documents: int = 0
    files: int = 0
    tokens: int = 0
    before: int = 0
    unanswered: int = 0
    overwritten: list[str] = field(default_factory=list)


def remove(out: str | Path, ledger: Ledger, apply: bool = False) -> Removal:
    """Add what `ledger` names to the removed spans of the corpus in `out`, and with `apply` overwrite the spans of all
    shards with padding. Doing it again changes nothing. InputError if the corpus, or a file of it, is torn."""
    folder = tokens_folder(out)
    build = folder.parent if (folder.parent / "build.json").is_file() and folder.name == "tokens" else None
    with _alone(folder, build):
        for pattern in (f".{NAME}.*", ".manifest.json.*", "*.bin.part"):
            for left in folder.glob(pattern):  # by a removal that was killed
                left.unlink()
        dataset = TokensDataset(folder)
        if unfinished := dataset.removed.cut_short(dataset.manifest):
            overwrite(dataset, unfinished)
            dataset = TokensDataset(folder)
        finder = Finder(ledger, build)
        told = Removal(unanswered=finder.unanswered, before=_tokens(dataset.removed))
        found = []
        for part in dataset.parts:
            for shard in dataset.shards(*part):
                spans, documents, files = finder.spans(shard)
                found.append((shard.shard, spans))
                told.documents += documents
                told.files += files
        removed = dataset.removed.adding(found)
        told.tokens = _tokens(removed) - told.before
        if removed is not dataset.removed:
            removed.save(folder)
        if apply:
            told.overwritten = overwrite(TokensDataset(folder))
        if build is not None:
            _record(build, folder)
    return told


def _tokens(removed: Removed) -> int:
    return int((removed.spans[:, 3] - removed.spans[:, 2]).sum())


@contextlib.contextmanager
def _alone(folder: Path, build: Path | None) -> Iterator[None]:
    """No two removals at a time in one folder, and none while its build runs."""
    with contextlib.ExitStack() as held:
        if build is not None:
            held.enter_context(only_one(build))
        handle = os.open(folder, os.O_RDONLY)
        held.callback(os.close, handle)
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


class Finder:
    """Finds what a list names in document tables. `unanswered`: how many entries it cannot look for."""

    def __init__(self, ledger: Ledger, build: Path | None):
        self.matcher = Matcher(ledger)
        self.contents = pa.array(sorted(ledger.keys("content")), pa.string())
        tables = _repository_tables(build)
        kinds = [kind for kind in UNKNOWN_WITHOUT_A_BUILD if ledger.keys(kind)]
        self.unanswered = 0 if tables else sum(len(ledger.keys(kind)) for kind in kinds)
        self.named = self._named(tables) if tables and kinds else pa.array([], pa.string())

    def _named(self, tables: list[Path]) -> pa.Array:
        """Keys of the repositories that the list names by what only the build's tables know."""
        found: set[str] = set()
        for path in tables:
            with pq.ParquetFile(path, pre_buffer=False) as file:
                for batch in file.iter_batches(65_536, columns=[*KEY, *PLACES]):
                    table = pa.Table.from_batches([batch]).group_by([*KEY, *PLACES]).aggregate([])
                    keys = _keys(table)
                    found.update(keys.filter(self._matches(table)).to_pylist())
        return pa.array(sorted(found), pa.string())

    def spans(self, shard: OpenShard) -> tuple[npt.NDArray[np.int64], int, int]:
        """Of a shard: spans (document, start, end), int64 of shape (k, 3); documents and files that lose text."""
        found, documents, files = [np.zeros((0, 3), np.int64)], 0, 0
        path = f"{shard.prefix}.documents.parquet"
        try:
            if (actual := file_sha256(path)) != shard.shard.sha256_documents:
                raise InputError(
                    f"{path} has SHA-256 {actual}; the manifest says {shard.shard.sha256_documents}. By another table what is "
                    "named may not be found; nothing was removed."
                )
            with pq.ParquetFile(path, pre_buffer=False) as file:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, columns=["document", *KEY, "tokens", "files"])
                    spans, some, several = self._in_group(table)
                    found.append(spans)
                    documents, files = documents + some, files + several
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: cannot be read as a document table: {error}") from error
        return np.concatenate(found), documents, files

    def _in_group(self, table: pa.Table) -> tuple[npt.NDArray[np.int64], int, int]:
        numbers, tokens = (np.asarray(table[name]) for name in ("document", "tokens"))
        whole = np.asarray(self._matches(table), bool)
        if len(self.named):
            whole |= np.asarray(pc.is_in(_keys(table), value_set=self.named), bool)
        listed = table["files"].combine_chunks()
        parents, entries = np.asarray(pc.list_parent_indices(listed)), pc.list_flatten(listed)
        single = np.zeros(len(entries), bool)
        if len(self.contents) and len(entries):
            single = np.asarray(pc.is_in(entries.field("content_id"), value_set=self.contents), bool)
        in_whole = whole[parents]
        single &= ~in_whole
        spans = np.column_stack([numbers[whole], np.zeros(whole.sum(), np.int64), tokens[whole]])
        if single.any():
            starts, ends = (np.asarray(entries.field(name))[single] for name in ("start", "end"))
            spans = np.concatenate([spans, np.column_stack([numbers[parents[single]], starts, ends])])
        documents = int(whole.sum()) + len(np.unique(parents[single]))
        return spans, documents, int(in_whole.sum()) + int(single.sum())

    def _matches(self, table: pa.Table) -> pa.Array:
        """Which rows the list names, by those of the columns that are there."""
        rows = table.num_rows
        columns = {
            name: table[name].combine_chunks().cast(pa.string())
            if name in table.column_names
            else pa.nulls(rows, pa.string())
            for name in (*KEY, *PLACES, "other_names")
        }
        columns["repo_name"] = pc.if_else(pc.equal(columns["repo_name"], ""), None, columns["repo_name"])
        batch = pa.record_batch({**columns, "content_id": pa.nulls(rows, ID)})
        return pa.array(np.logical_or.reduce(list(self.matcher.rows(batch).values())))


def _keys(table: pa.Table) -> pa.Array:
    """One text for each row that names repository and revision."""
    columns = [pc.fill_null(table[name].combine_chunks().cast(pa.string()), "") for name in KEY]
    return pc.binary_join_element_wise(*columns, KEPT_APART)


def _repository_tables(build: Path | None) -> list[Path]:
    """The build's tables that tell a repository's URL and ids: of repositories, else of files."""
    if build is None:
        return []
    return sorted((build / "repos").glob("*.parquet")) or sorted((build / "dataset" / "data").glob("*/*.parquet"))


def overwrite(dataset: TokensDataset, only: Collection[str] | None = None) -> list[str]:
    """Put padding into the `.bin` of every shard with removed spans that were not overwritten yet, or of `only` those;
    returns their prefixes.

    So much as `TOGETHER` is written anew beside; then come the marks in `removed`, the exchange by renames, and the manifest: a
    run that is killed in between is known by the marks (`Removed.cut_short`) and finished by the next, before spans are added.
    InputError if a `.bin` is neither what the manifest says nor already so.
    """
    manifest, removed = dataset.manifest, dataset.removed
    done: list[str] = []
    shards = [
        shard
        for part in dataset.parts
        for shard in dataset.shards(*part)
        if len(shard.spans) and not shard.applied and (only is None or shard.shard.prefix in only)
    ]
    for group in _groups(shards):
        files = {shard.shard.prefix: (Path(f"{shard.prefix}.bin"), Path(f"{shard.prefix}.bin.part")) for shard in group}
        try:
            digests = {shard.shard.prefix: _padded(shard, *files[shard.shard.prefix]) for shard in group}
            removed = removed.marked(digests)
            removed.save(dataset.folder)
            for path, new in files.values():
                os.replace(new, path)
            fsync_directory(dataset.folder)
        finally:
            for _, new in files.values():
                new.unlink(missing_ok=True)
        manifest = with_digests(manifest, digests)
        write_atomically(dataset.folder / "manifest.json", dump_manifest(manifest))
        done += digests
    return done


def _groups(shards: list[OpenShard]) -> Iterator[list[OpenShard]]:
    """Shards of at most `TOGETHER` bytes, or one: `removed` and the manifest, which name all shards, are written once for each."""
    group: list[OpenShard] = []
    size = 0
    for shard in shards:
        if group and size + shard.tokens.flat.nbytes > TOGETHER:
            yield group
            group, size = [], 0
        group.append(shard)
        size += shard.tokens.flat.nbytes
    if group:
        yield group


def _padded(shard: OpenShard, path: Path, new: Path) -> str:
    """Write `.bin` with padding in the removed spans to `new`; returns its SHA-256."""
    before, after = hashlib.sha256(), hashlib.sha256()
    with open(new, "wb") as file:
        for at, stop, _ in document_blocks(len(shard.tokens), shard.tokens.ends):
            before.update(shard.tokens.flat[at:stop].data)
            block, _ = shard.block(at, stop)
            after.update(block.data)
            file.write(block.data)
            forget(shard.tokens.flat)
        if before.hexdigest() not in (shard.shard.sha256, after.hexdigest()):
            raise InputError(f"{path} has SHA-256 {before.hexdigest()}; the manifest says {shard.shard.sha256}")
        file.flush()
        os.fsync(file.fileno())
    return after.hexdigest()


def _record(build: Path, folder: Path) -> None:
    """Make build.json name the files as they are now, so that `stackbuild verify` knows them."""
    body = described(build)
    manifest = read_manifest(folder / "manifest.json")
    applied = load_removed(folder, manifest).applied()
    names = [name for name in (NAME, "manifest.json") if (folder / name).is_file()]
    files = {**body["files"], **{f"tokens/{name}": file_sha256(folder / name) for name in names}}
    files |= {f"tokens/{prefix}.bin": digest for prefix, digest in applied.items()}
    if files != body["files"]:
        write_atomically(build / "build.json", json.dumps({**body, "files": files}, indent=1, sort_keys=True).encode())
