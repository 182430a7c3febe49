"""The text that a tokenizer is trained on: a sample of the dataset, balanced over its languages.

Every language may give the same number of bytes, the largest for which all together stay within the budget; a
language with less gives all it has (max-min fairness). Within a language, files are taken in the order of a hash of
(seed, content_id) until the next would begin above the language's share, so that a sample passes its budget by less
than one file per language. So the sample is a function of the set of files and the seed alone.

Left out of what was drawn: files with a word over 4,096 bytes (see `bpe.longest_words`), on which training would take
quadratic time. What the StarCoder papers sampled is not published in detail; the balance is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stackbuild.errors import InputError
from stackbuild.hashing import draw
from stackbuild.render.sentinels import FAMILIES
from stackbuild.tokens.bpe import longest_words, sample_texts, train_bpe
from stackbuild.tokens.options import TokensOptions

LONGEST_WORD = 4096
ROWS = 1024
SAMPLE = pa.schema(
    [pa.field("language", pa.string()), pa.field("content_id", pa.string()), pa.field("content", pa.large_string())]
)


def fair_share(totals: Mapping[str, int], budget: int) -> int:
    """The largest share for which the sum over languages of min(total, share) is at most `budget`; bytes."""
    left = budget
    sizes = sorted(totals.values())
    for place, size in enumerate(sizes):
        share = left // (len(sizes) - place)
        if size > share:
            return share
        left -= size
    return sizes[-1] if sizes else 0


class Candidates:
    """The files of one language with the smallest draws, as many as a budget could take, and the language's bytes."""

    def __init__(self, budget: int):
        self.budget = budget
        self.total = 0
        self.draws = np.zeros(0, np.uint64)
        self.sizes = np.zeros(0, np.int64)
        self._kept = 0

    def add(self, draws: npt.NDArray[np.uint64], sizes: npt.NDArray[np.int64]) -> None:
        """Consider n files more: uint64 and int64 of shape (n,)."""
        self.total += int(sizes.sum())
        self.draws = np.concatenate([self.draws, draws])
        self.sizes = np.concatenate([self.sizes, sizes])
        if len(self.draws) > 2 * self._kept + ROWS:
            self._prune(self.budget)
            self._kept = len(self.draws)

    def _prune(self, share: int) -> None:
        order = np.argsort(self.draws, kind="stable")
        sizes = self.sizes[order]
        begin = np.cumsum(sizes) - sizes
        taken = order[: int(np.searchsorted(begin, share, "left"))]
        self.draws, self.sizes = self.draws[taken], self.sizes[taken]

    def last_draw(self, share: int) -> int:
        """The draw of the last file that a share of so many bytes takes; -1 if it takes none."""
        self._prune(share)
        return int(self.draws[-1]) if len(self.draws) else -1


def sample(files: Sequence[str | Path], options: TokensOptions, seed: int, out_path: str | Path) -> dict[str, int]:
    """Write the sample of the dataset files to `out_path` (Parquet: language, content_id, content) by order of draw.

    Reads everything but the text once, and the text of the row groups that hold a drawn file. Holds the sample in
    memory. Returns {"files", "bytes", "languages", "left_out"}. InputError if a file is not of the dataset's schema.
    """
    languages: dict[str, Candidates] = {}
    for path in files:
        with _open(path) as file:
            for batch in file.iter_batches(16_384, columns=["language", "content_id", "length_bytes"]):
                draws, sizes = _draws(batch, seed), _sizes(batch)
                for language, at in _by_language(batch):
                    rows = at[sizes[at] > 0]
                    languages.setdefault(language, Candidates(options.sample_bytes)).add(draws[rows], sizes[rows])
    share = fair_share({name: found.total for name, found in languages.items()}, options.sample_bytes)
    last = {name: found.last_draw(share) for name, found in languages.items()}
    del languages
    chosen: list[pa.Table] = []
    keys: list[npt.NDArray[np.uint64]] = []
    left_out = 0
    for path in files:
        for table, draws in _drawn(path, last, seed):
            fits = longest_words(table.column("content").combine_chunks()) <= LONGEST_WORD
            left_out += int((~fits).sum())
            chosen.append(table.filter(pa.array(fits)))
            keys.append(draws[fits])
    rows = pa.concat_tables(chosen) if chosen else SAMPLE.empty_table()
    ids = np.array(rows.column("content_id").to_pylist(), dtype="U40")
    rows = rows.take(pa.array(np.lexsort((ids, np.concatenate(keys) if keys else np.zeros(0, np.uint64)))))
    pq.write_table(rows, out_path, compression="zstd", compression_level=1, row_group_size=ROWS * 4)
    return {
        "files": rows.num_rows,
        "bytes": pc.sum(pc.binary_length(rows.column("content"))).as_py() or 0,
        "languages": len(pc.unique(rows.column("language"))),
        "left_out": left_out,
    }


def train(sample_path: str | Path, options: TokensOptions, out_tokenizer_json: str | Path) -> None:
    """Train the tokenizer of `options` on a sample and write its tokenizer.json, StarCoder2's sentinels at 0 to 37."""
    data = train_bpe(sample_texts(sample_path), options.vocab_size, FAMILIES[options.layout])
    Path(out_tokenizer_json).write_bytes(data)


def _open(path: str | Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path, pre_buffer=False)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {error}") from error
    missing = {"language", "content_id", "length_bytes", "content"} - set(file.schema_arrow.names)
    if missing:
        file.close()
        raise InputError(f"{path}: no column {', '.join(sorted(missing))}: not a file of a dataset")
    return file


def _draws(batch: pa.RecordBatch | pa.Table, seed: int) -> npt.NDArray[np.uint64]:
    ids = batch.column("content_id").to_pylist()
    return np.fromiter((draw(seed, "sample", content_id) for content_id in ids), np.uint64, len(ids))


def _sizes(batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    sizes: npt.NDArray[np.int64] = pc.fill_null(batch.column("length_bytes"), 0).to_numpy(zero_copy_only=False)
    return sizes


def _by_language(batch: pa.RecordBatch) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    """Each language ("" for none) of a batch with its rows."""
    coded = pc.fill_null(batch.column("language").cast(pa.string()), "").dictionary_encode()
    codes = coded.indices.to_numpy()
    for code, language in enumerate(coded.dictionary.to_pylist()):
        yield language, np.flatnonzero(codes == code)


def _drawn(path: str | Path, last: Mapping[str, int], seed: int) -> Iterator[tuple[pa.Table, npt.NDArray[np.uint64]]]:
    """The drawn files of a dataset file, batch by batch: a table of schema SAMPLE and the draws."""
    with _open(path) as file:
        for group in range(file.num_row_groups):
            narrow = file.read_row_group(group, columns=["language", "content_id", "length_bytes"])
            draws = _draws(narrow, seed)
            named = pc.fill_null(narrow.column("language").cast(pa.string()), "").to_pylist()
            limits = [last.get(language, -1) for language in named]
            keep = np.fromiter(
                (int(own) <= limit for own, limit in zip(draws.tolist(), limits, strict=True)), np.bool_, len(limits)
            )
            keep &= pc.fill_null(narrow.column("length_bytes"), 0).to_numpy() > 0
            if not keep.any():
                continue
            at = 0
            for batch in file.iter_batches(ROWS, row_groups=[group], columns=SAMPLE.names):
                here = keep[at : at + batch.num_rows]
                if here.any():
                    table = pa.Table.from_batches([batch]).select(SAMPLE.names).cast(SAMPLE).filter(pa.array(here))
                    yield table, draws[at : at + batch.num_rows][here]
                at += batch.num_rows
