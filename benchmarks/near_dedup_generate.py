"""Source code of any size with planted near-duplicates, made of a corpus that is smaller.

    python -m benchmarks.near_dedup_generate OUT PARQUET ... [--mb 5000] [--seed 1]

An original is a text of the corpus whose letters and digits are replaced by a permutation of its own, so that words stay
words of the same length, repeats stay repeats, and two originals from one text have no 5-gram in common but by chance.
It is followed by 0 to 5 copies. Of a copy's pieces (lines, or 60 bytes and on to a space) a share is edited: replaced by
new words, doubled with new words, or left out. The share is drawn per copy: 0 for one in ten (an exact copy), else up to
0.2, which gives similarities on both sides of 0.7. Only ASCII texts of at least 200 bytes and 50 shingles are used.

Columns: id, text, repo, path, size, family, copy (0 is the original), edit_rate, and similarity: the exact Jaccard
similarity of the copy's word 5-grams with its original's, counted while it is made. Files of a family are spread over the
shards. The same arguments give the same files. Memory: some 4 MB a shard.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from numba import njit

from benchmarks.near_dedup_oracle import in_common

MOST_COPIES = 5
HIGHEST_RATE = 0.2
EXACT_COPIES = 0.1
SMALLEST, FEWEST_SHINGLES = 200, 50
PIECE = 60  # bytes of a piece of a long line
SHARD_MB = 320
ROW_GROUP_BYTES = 4 << 20

SCHEMA = pa.schema(
    {
        "id": pa.string(), "text": pa.string(), "repo": pa.string(), "path": pa.string(), "size": pa.int64(),
        "family": pa.int64(), "copy": pa.int8(), "edit_rate": pa.float64(), "similarity": pa.float64(),
    }
)  # fmt: skip

Bytes = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]


@njit(cache=True, nogil=True)
def _draw(state: Hashes) -> float:
    """Uniform in [0, 1): splitmix64, whose state is `state[0]`."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return float(z >> np.uint64(11)) / 9007199254740992.0  # 2^53


@njit(cache=True, nogil=True)
def _permutation(state: Hashes) -> Bytes:
    """A byte for each byte: letters are permuted, the same way in both cases, and digits."""
    table = np.arange(256).astype(np.uint8)
    for first, count in ((97, 26), (48, 10)):
        for i in range(count - 1, 0, -1):
            j = int(_draw(state) * (i + 1))
            table[first + i], table[first + j] = table[first + j], table[first + i]
    for i in range(26):
        table[65 + i] = table[97 + i] - 32
    return table


@njit(cache=True, nogil=True)
def renamed(text: Bytes, state: Hashes) -> Bytes:
    """The text with new words."""
    return _permutation(state)[text]


@njit(cache=True, nogil=True)
def edited(text: Bytes, rate: float, state: Hashes) -> Bytes:
    """A copy of which about `rate` of the pieces are edited."""
    out = np.empty(2 * len(text), np.uint8)
    at = made = 0
    while at < len(text):
        stop = at
        while stop < len(text) and text[stop] != 10 and not (text[stop] == 32 and stop - at >= PIECE):
            stop += 1
        stop = min(stop + 1, len(text))
        piece = text[at:stop]
        kind = _draw(state) / rate if rate else 1.0  # new words to 0.5, doubled to 0.75, left out to 1, else not edited
        if kind >= 1.0 or 0.5 <= kind < 0.75:
            out[made : made + len(piece)] = piece
            made += len(piece)
        if kind < 0.75:
            out[made : made + len(piece)] = _permutation(state)[piece]
            made += len(piece)
        at = stop
    return out[:made]


@njit(cache=True, nogil=True)
def _shingles(text: Bytes) -> Hashes:
    """Hashes of the word 5-grams of an ASCII text, with repeats."""
    words, count = np.empty(len(text) // 2 + 1, np.uint64), 0
    offset, prime, factor = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3), np.uint64(0xD6E8FEB86659FD93)
    value, inside = offset, False
    for at in range(len(text) + 1):
        byte = np.uint64(text[at]) if at < len(text) else np.uint64(32)
        if 65 <= byte <= 90:
            byte += np.uint64(32)
        if 97 <= byte <= 122 or 48 <= byte <= 57 or byte == 95:
            value, inside = (value ^ byte) * prime, True
        elif inside:
            words[count] = (value ^ (value >> np.uint64(29))) * factor
            count += 1
            value, inside = offset, False
    result = np.empty(max(count - 4, 0), np.uint64)
    for i in range(len(result)):
        hash_ = np.uint64(0)
        for word in words[i : i + 5]:
            hash_ = (hash_ ^ (hash_ >> np.uint64(31)) ^ word) * prime * factor
        result[i] = hash_
    return result


def jaccard(a: Hashes, b: Hashes) -> float:
    """Of two ascending sets; 0 if both are empty."""
    common = in_common(a, b)
    return common / max(len(a) + len(b) - common, 1)


# ---------------------------------------------------------------- files


@dataclass
class Shard:
    """A Parquet file that is written a row group at a time."""

    path: Path
    rows: list[tuple[object, ...]] = field(default_factory=list)
    bytes: int = 0

    def __post_init__(self) -> None:
        self.writer = pq.ParquetWriter(self.path, SCHEMA, compression="zstd", compression_level=1)

    def add(self, row: tuple[object, ...], size: int) -> None:
        self.rows.append(row)
        self.bytes += size
        if self.bytes >= ROW_GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        if self.rows:
            self.writer.write_table(pa.table(list(map(list, zip(*self.rows, strict=True))), schema=SCHEMA))
        self.rows, self.bytes = [], 0


def sources(paths: Sequence[Path]) -> Iterator[Bytes]:
    """The usable texts of the corpus, over and over. SystemExit if there is none."""
    while True:
        some = False
        for path in paths:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(500, columns=["text"], use_threads=False):
                    for text in batch.column(0):
                        if text.is_valid and len(text.as_buffer()) >= SMALLEST:
                            data = np.frombuffer(text.as_buffer(), np.uint8)
                            if data.max() < 128:
                                some = True
                                yield data
        if not some:
            raise SystemExit(f"No text of the input is plain ASCII of {SMALLEST} bytes or more.")


def files(paths: Sequence[Path], seed: int) -> Iterator[tuple[int, int, float, float, Bytes]]:
    """(family, copy, edit rate, similarity with the original, text), without end."""
    family = 0
    for source in sources(paths):
        state = np.array([(seed << 40) + family * 1_000_003], np.uint64)
        _draw(state)
        original = renamed(source, state)
        shingles = np.unique(_shingles(original))
        if len(shingles) < FEWEST_SHINGLES:
            continue
        yield family, 0, 0.0, 1.0, original
        for copy in range(1, 1 + int(_draw(state) * (MOST_COPIES + 1))):
            rate = 0.0 if _draw(state) < EXACT_COPIES else _draw(state) * HIGHEST_RATE
            text = edited(original, rate, state)
            yield family, copy, rate, jaccard(shingles, np.unique(_shingles(text))), text
        family += 1


def generate(out: Path, paths: Sequence[Path], mb: float, seed: int = 1) -> list[Path]:
    """Write about `mb` of text to OUT/*.parquet: the files, in order."""
    out.mkdir(parents=True, exist_ok=True)
    count = max(2, round(mb / SHARD_MB))
    shards = [Shard(out / f"{number:03d}.parquet") for number in range(count)]
    total = 0
    for family, copy, rate, similarity, text in files(paths, seed):
        shard = shards[int(_draw(np.array([family * 8 + copy], np.uint64)) * count)]
        name = f"{family:08d}-{copy}"
        repo, path = f"generated/{family % 1000:03d}", f"{name}.txt"
        row = (name, text.tobytes().decode("ascii"), repo, path, len(text), family, copy, rate, similarity)
        shard.add(row, len(text))
        total += len(text)
        if total >= mb * 1e6:
            break
    for shard in shards:
        shard.flush()
        shard.writer.close()
    return [shard.path for shard in shards]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("parquet", nargs="+", type=Path)
    parser.add_argument("--mb", type=float, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    for path in generate(asked.out, asked.parquet, asked.mb, asked.seed):
        print(path)


if __name__ == "__main__":
    main()
