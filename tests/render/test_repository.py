"""StarCoder2's layout of a repository (paper, section 5.1) and its sentinels (Table 5)."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest

from stackbuild.errors import InputError
from stackbuild.hashing import draw
from stackbuild.render import (
    FAMILIES,
    SANTACODER,
    STARCODER1,
    STARCODER2,
    STARCODER2_ALL,
    File,
    Role,
    has_metadata,
    order_keys,
    render,
)
from stackbuild.render.sentinels import require

IDS = {name: number for number, name in enumerate(STARCODER2_ALL)}


def file(repo: str, path: str, content: str, revision: str = "r") -> File:
    return File(repo, revision, path, "0" * 40, "permissive", "C", content, len(content.encode()))


def letters(files: list[File], seed: int = 0) -> str:
    return "".join(STARCODER2_ALL[s.value] if isinstance(s.value, int) else s.value for s in render(files, IDS, seed))


def seed_for(repo: str, metadata: bool) -> int:
    return next(seed for seed in range(100) if has_metadata(seed, repo, "r") is metadata)


def test_starcoder2_has_34_sentinels_and_four_placeholders_in_order() -> None:
    assert (len(STARCODER2), len(STARCODER2_ALL), len(set(STARCODER2_ALL))) == (34, 38, 38)
    assert STARCODER2[:7] == (
        "<|endoftext|>",
        "<fim_prefix>",
        "<fim_middle>",
        "<fim_suffix>",
        "<fim_pad>",
        "<repo_name>",
        "<file_sep>",
    )
    assert STARCODER2[33] == "<pr_diff_hunk_comment_line>"
    assert STARCODER2_ALL[34:] == ("<NAME>", "<EMAIL>", "<KEY>", "<PASSWORD>")


def test_starcoder1_has_its_published_ids() -> None:
    assert len(STARCODER1) == 19
    for name, number in {"<|endoftext|>": 0, "<filename>": 5, "<jupyter_start>": 10, "<reponame>": 18}.items():
        assert STARCODER1.index(name) == number


def test_santacoder_is_hyphenated() -> None:
    assert "<fim-prefix>" in SANTACODER and "<fim_prefix>" not in SANTACODER
    assert set(FAMILIES) == {"starcoder2", "starcoder", "santacoder"}


def test_a_missing_sentinel_is_named() -> None:
    require(IDS, "starcoder2", "t.json")
    with pytest.raises(InputError, match=r"t\.json has no token <repo_name>, <fim_pad>,"):
        require({k: v for k, v in IDS.items() if k not in ("<repo_name>", "<fim_pad>")}, "starcoder2", "t.json")


def test_with_metadata_the_name_and_paths_are_told_without_a_leading_slash() -> None:
    files = [file("o/n", "/a/b.c", "int a;\n"), file("o/n", "//x", "")]
    assert letters(files, seed_for("o/n", True)) == (
        "<repo_name>o/n<file_sep>a/b.c\nint a;\n<file_sep>/x\n<|endoftext|>"
    )


def test_without_metadata_only_separators_are_told() -> None:
    files = [file("o/n", "/a", "A"), file("o/n", "/b", "B")]
    assert letters(files, seed_for("o/n", False)) == "<file_sep>A<file_sep>B<|endoftext|>"


def test_every_repository_and_revision_ends_with_endoftext() -> None:
    files = [file("a/a", "/x", "1"), file("a/a", "/x", "2", "s"), file("b/b", "/x", "3"), file("b/b", "/y", "4")]
    segments = list(render(files, IDS, 5))
    ends = [segment for segment in segments if segment.closes]
    assert [(s.file.repo_name, s.file.revision_id) for s in ends] == [("a/a", "r"), ("a/a", "s"), ("b/b", "r")]
    assert all(s.value == 0 for s in ends) and segments[-1] is ends[-1]
    assert list(render([], IDS, 5)) == []


def test_literal_sentinels_stay_text() -> None:
    text = "<fim_prefix><|endoftext|>"
    segments = list(render([file("o/n", "/<file_sep>", text)], IDS, seed_for("o/n", True)))
    assert [s.value for s in segments if s.role is Role.FILE] == [text]
    assert "<file_sep>\n" in [s.value for s in segments]


def test_metadata_is_drawn_once_per_repository_with_probability_one_half() -> None:
    told = sum(has_metadata(42, f"owner/{k}", "r") for k in range(4000))
    assert abs(told - 2000) < 5 * (4000 * 0.25) ** 0.5
    by_seed = sum(has_metadata(seed, "o/n", "r") for seed in range(4000))
    assert abs(by_seed - 2000) < 5 * (4000 * 0.25) ** 0.5


def test_the_order_is_the_stated_draw() -> None:
    keys = order_keys(7, ["o/n", "o/n"], ["r", "r"], [b"a", b"\xff"], [b"\1" * 20, b"\2" * 20])
    assert keys.dtype == np.uint64
    assert keys.tolist() == [
        draw(7, "order", "o/n", "r", b"a", b"\1" * 20),
        draw(7, "order", "o/n", "r", b"\xff", b"\2" * 20),
    ]


def test_every_order_of_three_files_is_as_likely() -> None:
    counts = np.zeros(6)
    for seed in range(1200):
        keys = order_keys(seed, ["o/n"] * 3, ["r"] * 3, [b"a", b"b", b"c"], [b"\0" * 20] * 3)
        counts[[[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]].index(np.argsort(keys).tolist())] += 1
    assert ((counts - 200) ** 2 / 200).sum() < 25  # chi-square of 5 degrees: p < 0.0002


def test_rendering_holds_one_file_at_a_time() -> None:
    seen: list[int] = []

    def endless():  # type: ignore[no-untyped-def]
        for number in range(10**9):
            seen.append(number)
            yield file("o/n", f"/{number}", "x")

    segments = render(endless(), IDS, 1)
    for _role, _group in zip(groupby(segments, key=lambda s: s.file.path), range(5), strict=False):
        pass
    assert len(seen) <= 6
