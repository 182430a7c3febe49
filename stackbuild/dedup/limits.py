"""How much a task of near-duplicate removal holds in memory: row counts that follow from the recipe's `memory`."""

from __future__ import annotations

from dataclasses import dataclass

SET_ROWS = 512  # files in a row group of sets
SKETCH_ROWS = 4096  # files in a row group of sketches
GROUP_FILES = 4_096  # files of a group of components while there are few groups
FEW_GROUPS = 256  # or as many as there are partitions
MOST_GROUP_FILES = 200_000  # files of a group when there are that many
MEMBER_BYTES = 200  # of a member without its shingles, about
MOST_RANGES = 256  # of groups, each a scratch file that is open with the others (spill.py)


@dataclass(frozen=True)
class Limits:
    """Rows in memory at a time. `bands`: band rows before a sorted run is written, and of a bucket. `pairs`: pairs of files.
    `hashes`: shingles of a run. `block`: of one of the two blocks of sets that are compared, as many as a group has as a
    rule, so that there is one and it is read once. `signatures`: 8-bit signatures.
    """

    bands: int
    pairs: int
    hashes: int
    block: int
    signatures: int

    @classmethod
    def of(cls, memory: int, permutations: int) -> Limits:
        """`memory`: bytes of the largest table of a task, its sorted copy included."""
        return cls(
            bands=max(memory // 40, 64),
            pairs=max(memory // 48, 64),
            hashes=max(memory // 16, 64),
            block=max(memory // 8, 64),
            signatures=max(memory // (2 * permutations), 16),
        )


def groups_for(files: int, partitions: int) -> int:
    """How many groups of components there are, a power of two, when `files` have a likely near-duplicate.

    A table that every partition writes and every group reads has as many pieces as the product of both; so there are
    no more groups than partitions, beyond FEW_GROUPS, until a group would grow over MOST_GROUP_FILES.
    """
    wanted = 1 << max(0, (files - 1) // GROUP_FILES).bit_length()
    least = 1 << max(0, (files - 1) // MOST_GROUP_FILES).bit_length()
    return max(min(wanted, max(partitions, FEW_GROUPS)), least)
