"""Draws that lay files out: hashes of (seed, key), so that neither the order of the input nor a worker can change them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stackbuild.hashing import draw

METADATA_PROBABILITY = 0.5  # StarCoder2 (Lozhkov et al. 2024, section 5.1): of a repository
PREFIX_PROBABILITY = 0.2  # StarCoder (Li et al. 2023, section 5.2): of each of a file's three prefixes


def order_keys(
    seed: int,
    repo_names: Sequence[str],
    revisions: Sequence[str],
    paths: Sequence[bytes],
    content_ids: Sequence[bytes],
) -> npt.NDArray[np.uint64]:
    """The place of n files in their repositories: uint64 of shape (n,); smaller keys stand first.

    `content_ids` are the 20 raw bytes. Equal keys, which chance will hardly make, are ordered by (path_bytes,
    content_id).
    """
    keys = (
        draw(seed, "order", repo, revision, path, content_id)
        for repo, revision, path, content_id in zip(repo_names, revisions, paths, content_ids, strict=True)
    )
    return np.fromiter(keys, np.uint64, len(repo_names))


def has_metadata(seed: int, repo_name: str, revision_id: str) -> bool:
    """Whether this repository's document tells its name and paths."""
    return _happens(METADATA_PROBABILITY, seed, "metadata", repo_name, revision_id)


def has_prefix(seed: int, sentinel: str, content_id: bytes) -> bool:
    """Whether this content (20 raw bytes) has the prefix of a sentinel in front, wherever it lies."""
    return _happens(PREFIX_PROBABILITY, seed, sentinel, content_id)


def _happens(probability: float, seed: int, *key: bytes | str) -> bool:
    return draw(seed, *key) < probability * 2**64
