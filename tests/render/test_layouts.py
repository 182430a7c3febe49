"""The layouts of documents (StarCoder2: paper, section 5.1; StarCoder: section 5.2) and their sentinels."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from stackbuild.errors import InputError
from stackbuild.hashing import draw
from stackbuild.render import (
    FAMILIES,
    LAYOUTS,
    SANTACODER,
    STARCODER1,
    STARCODER2,
    STARCODER2_ALL,
    has_metadata,
    has_prefix,
    order_keys,
    star_buckets,
)
from stackbuild.render.sentinels import require

IDS = {name: number for number, name in enumerate(STARCODER2_ALL)}
File = tuple[str, str, str, bytes, int | None]  # repository, revision, path, content_id, stars


def file(repo: str, path: str, revision: str = "r", content: int = 0, stars: int | None = None) -> File:
    return repo, revision, path, content.to_bytes(20, "big"), stars


def table(files: list[File]) -> pa.Table:
    names = ["repo_name", "revision_id", "path", "content_id", "star_events_count"]
    types = [pa.string(), pa.string(), pa.string(), pa.binary(20), pa.int64()]
    columns = zip(*files, strict=True) if files else [[]] * 5
    return pa.table({name: pa.array(list(c), t) for name, c, t in zip(names, columns, types, strict=True)})


def letters(layout: str, files: list[File], seed: int = 0, batch: int = 1000) -> list[str]:
    """What stands in front of each file, "|" where a document begins."""
    names = FAMILIES[layout]
    made = LAYOUTS[layout]({name: number for number, name in enumerate(names)}, seed)
    told = []
    for start in range(0, len(files), batch):
        rendered = made.render(table(files[start : start + batch]))
        rows, texts = len(rendered.opens), rendered.texts.to_pylist()
        assert rendered.sentinels.dtype == np.int32 and len(texts) == rendered.sentinels.size
        for row in range(rows):
            told.append("|" * bool(rendered.opens[row]))
            for piece, ids in enumerate(rendered.sentinels):
                told[-1] += (names[ids[row]] if ids[row] >= 0 else "") + texts[piece * rows + row]
    return told


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
    require(dict.fromkeys(STARCODER1, 0), "starcoder", "t.json")
    require(dict.fromkeys(SANTACODER, 0), "santacoder", "t.json")
    with pytest.raises(InputError, match=r"t\.json has no token <gh_stars>,"):
        require(dict.fromkeys((name for name in STARCODER1 if name != "<gh_stars>"), 0), "starcoder", "t.json")
    with pytest.raises(InputError, match=r"t\.json has no token <repo_name>, <fim_pad>,"):
        require({k: v for k, v in IDS.items() if k not in ("<repo_name>", "<fim_pad>")}, "starcoder2", "t.json")


# ---------------------------------------------------------------- starcoder2


def test_with_metadata_the_name_and_paths_are_told_without_a_leading_slash() -> None:
    files = [file("o/n", "/a/b.c"), file("o/n", "//x")]
    assert letters("starcoder2", files, seed_for("o/n", True)) == [
        "|<repo_name>o/n<file_sep>a/b.c\n",
        "<file_sep>/x\n",
    ]


def test_without_metadata_only_separators_are_told() -> None:
    files = [file("o/n", "/a"), file("o/n", "/b")]
    assert letters("starcoder2", files, seed_for("o/n", False)) == ["|<file_sep>", "<file_sep>"]


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_a_document_is_a_repository_at_a_revision_whatever_the_batches(batch: int) -> None:
    files = [
        file("a/a", "/x"),
        file("a/a", "/x", "s"),
        file("a/a", "/y", "s"),
        file("b/b", "/x", "s"),
        file("b/b", "/y", "s"),
    ]
    told = letters("starcoder2", files, 5, batch)
    assert ["|" in one for one in told] == [True, True, False, True, False]
    assert told == letters("starcoder2", files, 5)
    assert letters("starcoder2", [], 5) == []


def test_literal_sentinels_stay_text() -> None:
    assert letters("starcoder2", [file("o/n", "/<file_sep>")], seed_for("o/n", True)) == [
        "|<repo_name>o/n<file_sep><file_sep>\n"
    ]


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


# ---------------------------------------------------------------- starcoder and santacoder


def test_each_prefix_stands_in_front_by_its_own_draw_and_a_line_feed_behind_the_last() -> None:
    files = [file("o/n", "/a/b.c", content=number, stars=42) for number in range(400)]
    seen = set()
    for (_, _, _, content, _), text in zip(files, letters("starcoder", files, 3), strict=True):
        parts = [
            ("<reponame>", "o/n"),
            ("<filename>", "a/b.c"),
            ("<gh_stars>", "10-100"),
        ]
        told = [name + value for name, value in parts if has_prefix(3, name, content)]
        assert text == "|" + "".join(told) + "\n" * bool(told)
        seen.add(len(told))
    assert seen == {0, 1, 2, 3}


def test_a_prefix_has_a_probability_of_one_fifth_and_is_that_of_its_content() -> None:
    for name in ("<reponame>", "<filename>", "<gh_stars>"):
        told = sum(has_prefix(42, name, number.to_bytes(20, "big")) for number in range(4000))
        assert abs(told - 800) < 5 * (4000 * 0.2 * 0.8) ** 0.5
    files = [file("o/n", "/a", content=7), file("p/q", "/b", content=7)]
    one, two = letters("starcoder", files, 11)
    assert one.count("<") == two.count("<")


def test_stars_are_told_in_buckets() -> None:
    """starcoder1 3.11: 0 or unknown, up to 10, 100, 1000, more; upper bounds are inside."""
    stars = [None, 0, 1, 10, 11, 100, 101, 1000, 1001, 10**9]
    assert star_buckets(pa.array(stars, pa.int64())).to_pylist() == (
        ["0", "0", "1-10", "1-10", "10-100", "10-100", "100-1000", "100-1000", "1000+", "1000+"]
    )


def test_santacoder_has_nothing_in_front() -> None:
    assert letters("santacoder", [file("o/n", "/a"), file("o/n", "/b")]) == ["|", "|"]
