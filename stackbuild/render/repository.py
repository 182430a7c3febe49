"""A repository as one training document, the layout of StarCoder2 (Lozhkov et al. 2024, section 5.1).

One document is one repository at one revision. Its files stand in random order; with probability 0.5, drawn once per
repository, their names are told:

    <repo_name>name<file_sep>path1\\ncode1<file_sep>path2\\ncode2<|endoftext|>
    <file_sep>code1<file_sep>code2<|endoftext|>

Both draws are hashes of (seed, repository, ...), so that they depend on no order of input. Paths are written without
the leading "/". Text is never edited: a sentinel is an id from here, and the same letters in a file stay letters.
What a segment is becomes one piece of tokens, so that a token never spans a header and the code behind it: a file has
the same tokens with and without its name, and FIM can keep out of headers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stackbuild.hashing import draw
from stackbuild.render.sentinels import END_OF_TEXT, FILE_SEP, REPO_NAME

METADATA_PROBABILITY = 0.5


class File(NamedTuple):
    """One file to render. `path` as released: it begins with "/"; `content_id` in hex.

    `length_bytes`: of `content` in UTF-8.
    """

    repo_name: str
    revision_id: str
    path: str
    content_id: str
    license_type: str | None
    language: str | None
    content: str
    length_bytes: int


class Role(Enum):
    """What a segment is to its document."""

    HEADER = "header"  # sentinels and names in front of a file
    FILE = "file"  # the whole text of one file
    END = "end"  # the sentinel that closes the document


class Segment(NamedTuple):
    """A sentinel's id (int) or text (str), with the file that it belongs to (the last one, for the end)."""

    role: Role
    value: int | str
    file: File

    @property
    def closes(self) -> bool:
        """Whether the document ends with this segment."""
        return self.role is Role.END


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
    return draw(seed, "metadata", repo_name, revision_id) < METADATA_PROBABILITY * 2**64


def render(files: Iterable[File], sentinels: Mapping[str, int], seed: int) -> Iterator[Segment]:
    """Yield the segments of all documents of `files`, which are sorted by (repo_name, revision_id, order key).

    `sentinels` maps names to token ids. Lazy: it holds one file at a time, however large the repository.
    """
    end, repo, sep = sentinels[END_OF_TEXT], sentinels[REPO_NAME], sentinels[FILE_SEP]
    last: File | None = None
    named = False
    for file in files:
        if last is None or (last.repo_name, last.revision_id) != (file.repo_name, file.revision_id):
            if last is not None:
                yield Segment(Role.END, end, last)
            named = has_metadata(seed, file.repo_name, file.revision_id)
            if named:
                yield Segment(Role.HEADER, repo, file)
                yield Segment(Role.HEADER, file.repo_name, file)
        yield Segment(Role.HEADER, sep, file)
        if named:
            yield Segment(Role.HEADER, file.path.removeprefix("/") + "\n", file)
        yield Segment(Role.FILE, file.content, file)
        last = file
    if last is not None:
        yield Segment(Role.END, end, last)
