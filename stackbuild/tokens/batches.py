"""Batches of training rows: a pure function of the tokens manifest, the configuration, the seed and the numbers of the samples.

    batches = Batches("OUT/tokens", DataConfig(sequence_length=4096), seed=0)
    rows = batches.batch(first_sample=0, n=8)
    rows.tokens, rows.labels, rows.positions, rows.document, rows.source          # (n, S) each

Sample numbers go through the whole run: who asks for which of them (ranks, workers, a run that was resumed) changes nothing. A
row holds pieces of documents side by side, which must not see each other: `document` tells them apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stackbuild.errors import InputError
from stackbuild.tokens.blend import Mixture
from stackbuild.tokens.bpe import Vocabulary
from stackbuild.tokens.data_config import DataConfig, SourceConfig
from stackbuild.tokens.dataset import TokensDataset
from stackbuild.tokens.encode import LIBRARY, Encoder
from stackbuild.tokens.fim import Infiller, draws, token_table
from stackbuild.tokens.fim_kernels import TREATED
from stackbuild.tokens.fim_types import CODES
from stackbuild.tokens.pieces import SOFT, SOFT_HIGH, SOFT_LOW, treated_files
from stackbuild.tokens.removed import pad_token
from stackbuild.tokens.source_rows import Start, open_sources

IGNORED = -100  # the label of what is not trained on
NOBODY = -1  # the document of padding
NO_ROOM = "no room in the row"  # of a file that was drawn, beside the words of CODES


class Rows(NamedTuple):
    """n rows of S tokens, int32 of shape (n, S) each.

    `tokens`: read; padding behind the last piece. `labels`: the token that follows each, IGNORED where there is none, where
    text was removed, and in padding. `positions`: of each token in its piece, from 0. `document`: a number for each piece of a row, from 0;
    NOBODY in padding. `source`: its number in `Batches.sources`.
    """

    tokens: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]
    document: npt.NDArray[np.int32]
    source: npt.NDArray[np.int32]


class Piece(NamedTuple):
    """Part of a document in a row: pairs `low` to `high` - 1 of document `number` of shard `prefix`; the `files` of it, by their
    place in the document, that were drawn for treatment, and what became of each (CODES); `variants` of those that are treated:
    SPM, AST and NO_NODE of `fim_types` added up."""

    prefix: str
    number: int
    low: int
    high: int
    epoch: int
    files: dict[int, str]
    variants: dict[int, int]
    start: int  # its first token in the row
    end: int


class _Open(NamedTuple):
    """A piece while its row is made."""

    row: int
    source: int
    shard: int
    number: int
    low: int
    high: int
    epoch: int
    raw: npt.NDArray[Any]  # tokens low .. high
    mask: npt.NDArray[np.bool_]
    treated: npt.NDArray[np.int64]  # places in the lists of the shard
    without_room: npt.NDArray[np.int64]  # as these, of files that were drawn and stay as they are


class Batches:
    """Batches of a corpus. `sources`: what is mixed, in order; `counters`: what became of drawn files, by the words of CODES, or NO_ROOM.
    `infill`: what treats files, or None.

    `folder`: of a build or of tokens. `cache`: a folder in which the numbers of rows are kept. `starts`: by source, where it
    stands when sample 0 is taken. InputError: a source that the corpus lacks,
    fill-in-the-middle without its sentinels, torn files.
    """

    def __init__(
        self,
        folder: str | Path,
        config: DataConfig,
        seed: int,
        cache: str | Path | None = None,
        starts: Mapping[str, Start] | None = None,
    ):
        if not 0 <= seed < 1 << 63:
            raise InputError(f"the seed is {seed:,}; it is from 0 to 2^63 - 1")
        self.dataset, self.config, self.seed = TokensDataset(folder), config, seed
        manifest, kept = self.dataset.manifest, None if cache is None else Path(cache)
        self.sources = open_sources(self.dataset, config, seed, kept, starts)
        self._pad = pad_token(manifest.sentinels, str(self.dataset.tokenizer))
        self.infill: Infiller | None = None
        vocabulary = Vocabulary(self.dataset.tokenizer, checked=True)
        if any(source.fim for source in self.sources):
            backend = manifest.tokenizer_backend
            known = backend.startswith("stackbuild-")
            self.infill = Infiller(Encoder(vocabulary, backend if known else LIBRARY), config.fim, check=False)
        lengths, places, data = token_table(vocabulary)
        self._goes_on = (lengths > 0) & (data[places] & 0xC0 == 0x80)
        self.mixture = self._mixture()
        self.counters: Counter[str] = Counter()

    def _mixture(self) -> Mixture:
        asked = self.config.source or tuple(SourceConfig(name=source.name) for source in self.sources)
        weights: list[float | Fraction] = []
        for one, source in zip(asked, self.sources, strict=True):
            if not source.pairs:
                raise InputError(f"{self.dataset.folder}: the source {one.name} has nothing to train on")
            by_tokens = source.pairs * Fraction(repr(one.epochs or 1.0))
            weights.append(by_tokens if one.weight is None else one.weight)
        caps = [
            None if one.epochs is None else source.rows_until(one.epochs)
            for one, source in zip(asked, self.sources, strict=True)
        ]
        return Mixture(weights, caps, names=[one.name for one in asked])

    def after(self, samples: int) -> dict[str, Start]:
        """Where each source stands when the first `samples` were taken: the `starts` of batches that go on from there."""
        taken = self.mixture.counts(samples).tolist()
        return {source.name: source.after(rows) for source, rows in zip(self.sources, taken, strict=True)}

    def batch(self, first_sample: int, n: int) -> Rows:
        """Samples `first_sample` to `first_sample` + n - 1."""
        return self.explain(first_sample, n)[0]

    def explain(self, first_sample: int, n: int) -> tuple[Rows, list[list[Piece]]]:
        """As `batch`, with the pieces of each row."""
        chosen, index = self.mixture.sources(first_sample, n)
        opened = [
            piece
            for row, (source, number) in enumerate(zip(chosen.tolist(), index.tolist(), strict=True))
            for piece in self._open(row, source, number)
        ]
        made, codes = self._treat(opened)
        length = self.config.sequence_length
        rows = Rows(
            np.full((n, length), self._pad, np.int32),
            np.full((n, length), IGNORED, np.int32),
            np.zeros((n, length), np.int32),
            np.full((n, length), NOBODY, np.int32),
            np.repeat(chosen.astype(np.int32)[:, None], length, axis=1),
        )
        told: list[list[Piece]] = [[] for _ in range(n)]
        at = np.zeros(n, np.int64)
        for piece, (ids, mask), of_files in zip(opened, made, codes, strict=True):
            row, start, size = piece.row, int(at[piece.row]), len(ids) - 1
            end = start + size
            rows.tokens[row, start:end] = ids[:-1]
            rows.labels[row, start:end] = np.where(mask[1:], ids[1:].astype(np.int32), np.int32(IGNORED))
            rows.positions[row, start:end] = np.arange(size)
            rows.document[row, start:end] = len(told[row])
            prefix = self.sources[piece.source].shards[piece.shard].shard.prefix
            variants = {place: kind for place, (word, kind) in of_files.items() if word == CODES[TREATED]}
            words = {place: word for place, (word, _) in of_files.items()}
            told[row].append(
                Piece(prefix, piece.number, piece.low, piece.high, piece.epoch, words, variants, start, end)
            )
            at[row] = end
        return rows, told

    def _open(self, row: int, source: int, number: int) -> list[_Open]:
        rows = self.sources[source]
        window, bin_ = rows.locate(number)
        epoch = rows.window(window).epoch
        packed, coins = rows.packed(window), rows.coins(epoch)
        opened = []
        for at in range(int(packed.offsets[bin_]), int(packed.offsets[bin_ + 1])):
            shard, document, low, high, treated, soft = (int(column[at]) for column in packed[:-1])
            tokens = rows.shards[shard].tokens
            first = int(tokens.offsets[document]) // tokens.dtype.itemsize
            low = self._back(tokens.flat, first, low) if soft & SOFT_LOW else low
            high = self._back(tokens.flat, first, high) if soft & SOFT_HIGH else high
            if low == high:  # both ends moved back to one place
                continue
            raw, mask = rows.shards[shard].known(first + low, first + high + 1)
            ordinal = document + int(rows.starts[shard])
            files, more = treated_files(low, high, treated, document, ordinal, rows.spans(shard), coins)
            opened.append(_Open(row, source, shard, document, low, high, epoch, raw, mask, files, more))
        return opened

    def _back(self, flat: npt.NDArray[Any], first: int, cut: int) -> int:
        """A cut, moved back to where a character begins, if there is such a place."""
        for back in range(SOFT + 1):
            if cut - back <= 0:
                break
            token = flat[first + cut - back]
            if token < len(self._goes_on) and not self._goes_on[token]:
                return cut - back
        return cut

    def _treat(
        self, opened: list[_Open]
    ) -> tuple[list[tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]], list[dict[int, tuple[str, int]]]]:
        """Of each piece its tokens with the one that follows, and which may be labels; of each of its drawn files what
        became of it, and its variant."""
        codes: list[dict[int, tuple[str, int]]] = [{} for _ in opened]
        made: list[tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]] = [(one.raw, one.mask) for one in opened]
        for piece, words in zip(opened, codes, strict=True):
            if not len(piece.without_room):
                continue
            first = int(self.sources[piece.source].spans(piece.shard).files.offsets[piece.number])
            words |= {int(file) - first: (NO_ROOM, 0) for file in piece.without_room}
            self.counters[NO_ROOM] += len(piece.without_room)
        asked = [
            (number, int(file), *self._file(one, int(file)))
            for number, one in enumerate(opened)
            for file in one.treated
        ]
        if not asked or self.infill is None:
            return made, codes
        texts = [opened[number].raw[start:end] for number, _, start, end, *_ in asked]
        offsets = np.cumsum([0, *(len(text) for text in texts)])
        keys = [[np.uint64(ask[at]) for ask in asked] for at in (4, 5, 6)]
        bits = _draws([self.sources[opened[ask[0]].source].key for ask in asked], *keys)
        languages = None
        if self.config.fim.mode == "ast":
            languages = [
                self.sources[of.source].language(of.shard, file) for of, file in ((opened[a[0]], a[1]) for a in asked)
            ]
        done = self.infill.treat_many(np.concatenate(texts), offsets, bits, self.config.fim.room, languages)
        parts: dict[int, list[tuple[int, int, npt.NDArray[Any]]]] = {}
        for k, (number, _, start, end, _, _, place) in enumerate(asked):
            word = CODES[int(done.codes[k])]
            codes[number][place] = word, int(done.kinds[k])
            self.counters[word] += 1
            if not done.codes[k]:
                parts.setdefault(number, []).append((start, end, done.ids[done.offsets[k] : done.offsets[k + 1]]))
        for number, changed in parts.items():
            made[number] = _spliced(opened[number], changed, self.infill.sentinels)
        return made, codes

    def _file(self, piece: _Open, file: int) -> tuple[int, int, int, int, int]:
        """Where a file lies in a piece: start, end; the epoch, the document's ordinal, and the file's place in it."""
        rows = self.sources[piece.source]
        files = rows.spans(piece.shard).files
        start = max(int(files.start[file]), piece.low) - piece.low
        place = file - int(files.offsets[piece.number])
        ordinal = piece.number + int(rows.starts[piece.shard])
        return start, int(files.end[file]) - piece.low, piece.epoch, ordinal, place


def _draws(keys: list[int], epochs: Any, documents: Any, files: Any) -> Any:
    """The draws of files of several sources."""
    found = [draws(key, *(np.array([a[k]]) for a in (epochs, documents, files))) for k, key in enumerate(keys)]
    return type(found[0])(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _spliced(
    piece: _Open, changed: list[tuple[int, int, npt.NDArray[Any]]], sentinels: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """The tokens and labels of a piece with treated texts in the place of [start, end).

    The token at which a document was cut is a label of the piece before already, so of this it is none, wherever it is now.
    """
    ids, mask, at = [], [], 0
    for start, end, text in changed:
        ids += [piece.raw[at:start], text]
        labels = np.ones(len(text), np.bool_)
        if start == 0 < piece.low:
            first = _first(text, sentinels)
            labels[first] = text[first] != piece.raw[0]
        mask += [piece.mask[at:start], labels]
        at = end
    return np.concatenate([*ids, piece.raw[at:]]), np.concatenate([*mask, piece.mask[at:]])


def _first(text: npt.NDArray[Any], sentinels: npt.NDArray[np.int64]) -> int:
    """Where the first token of a file is after its treatment."""
    _, suffix, middle = sentinels.tolist()
    if text[1] != suffix:  # PSM, with a prefix
        return 1
    behind = int(np.flatnonzero(text == middle)[0]) + 1
    return behind if behind < len(text) else 2
