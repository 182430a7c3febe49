"""Who is held out for validation: whole components of repositories that resemble each other, by hash."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackbuild.errors import InputError
from stackbuild.hashing import draw
from stackbuild.tokens import splits
from stackbuild.tokens.splits import LINKS, Divided, divide, links

SEED = 5


def components(edges: Sequence[Sequence[str]]) -> set[frozenset[str]]:
    """By merging sets until nothing changes."""
    found = [set(edge) for edge in edges]
    merged = True
    while merged:
        merged = False
        for one in found:
            for other in found:
                if one is not other and one & other:
                    one.update(other)
                    found.remove(other)
                    merged = True
                    break
            if merged:
                break
    return {frozenset(one) for one in found if len(one) > 1}


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=4), max_size=6), st.integers(1, 5))
def test_links_join_the_repositories_of_each_cluster(clusters: list[list[str]], rows: int) -> None:
    flat = [(bytes([number]) * 20, repo) for number, repos in enumerate(clusters) for repo in repos]
    table = pa.table(
        {
            "cluster_id": pa.array([cluster for cluster, _ in flat], pa.binary(20)),
            "repo_name": pa.array([repo for _, repo in flat], pa.string()),
        }
    )
    found = links(iter(table.to_batches(rows)))
    pairs = found.to_pylist()
    assert found.schema == LINKS
    assert components([(pair["left"], pair["right"]) for pair in pairs]) == components(clusters)
    for pair in pairs:  # stars around the smallest name
        (component,) = (one for one in components(clusters) if pair["right"] in one)
        assert pair["left"] == min(component) < pair["right"]
    assert len(pairs) == sum(len(one) - 1 for one in components(clusters))


class World:
    """Repositories with files: (repository, content, bytes), and links between repositories."""

    def __init__(self, folder: Path, write_dataset: Any, row: Any):
        self.folder, self._write, self._row = folder, write_dataset, row
        self.number = 0

    def divide(
        self, files: Sequence[tuple[str, str, int]], joined: Sequence[tuple[str, str]] = (), share: float = 0.5, parts: int = 1,
        **more: Any,
    ) -> tuple[dict[str, str], Divided]:  # fmt: skip
        self.number += 1
        folder = self.folder / str(self.number)
        rows = [
            self._row(repo, f"/{place}", "x")
            | {"content_id": (content * 40)[:40] if content else f"{place:040x}", "length_bytes": size}
            for place, (repo, content, size) in enumerate(files)
        ]
        paths = self._write(folder / "data", rows, parts)
        stars = [dict(zip(LINKS.names, pair, strict=True)) for pair in joined]
        pq.write_table(pa.Table.from_pylist(stars, LINKS), folder / "links")
        told = divide(paths, [folder / "links"], share, SEED, folder / "scratch", folder / "out", **more)
        held = {one["repo_name"]: one["key"] for one in pq.read_table(folder / "out").to_pylist()}
        assert list(held) == sorted(held) and told.held_out_repos == len(held)
        return held, told


@pytest.fixture
def world(tmp_path: Path, write_dataset: Any, row: Any) -> World:
    return World(tmp_path, write_dataset, row)


def is_drawn(name: str, share: float = 0.5) -> bool:
    return draw(SEED, "split", name) < share * 2**64


NAMES = [f"o/{number:03}" for number in range(300)]
DRAWN = next(name for name in NAMES if is_drawn(name))
NOT_DRAWN = next(name for name in NAMES if not is_drawn(name))


def test_a_repository_alone_is_held_out_by_its_own_hash(world: World) -> None:
    held, told = world.divide([(name, "", 10) for name in NAMES])
    assert held == {name: name for name in NAMES if is_drawn(name)}
    assert (told.repos, told.components, told.parted, told.bytes) == (300, 300, 0, 3000)
    assert told.held_out_bytes == 10 * len(held)
    assert world.divide([(name, "", 10) for name in NAMES], share=0.0)[0] == {}


def test_the_rate_is_the_share(world: World) -> None:
    held, _ = world.divide([(f"r/{number}", "", 1) for number in range(4000)], share=0.1)
    assert abs(len(held) - 400) < 5 * (4000 * 0.1 * 0.9) ** 0.5


def test_a_component_goes_to_the_side_of_its_smallest_name(world: World) -> None:
    """Through a repository too of which nothing is left in the dataset."""
    for key in (DRAWN, NOT_DRAWN):
        rest = [name for name in NAMES if name > key][:4]
        joined = [(key, "z/gone"), (rest[0], "z/gone"), (rest[0], rest[1])]
        held, told = world.divide([(name, "", 1) for name in NAMES], joined)
        for name in rest[:2]:
            assert held.get(name) == (key if key == DRAWN and key < "z/gone" else None)
        assert told.components == 298 and told.repos == 300 and "z/gone" not in held


def test_the_smallest_name_may_be_one_of_which_nothing_is_left(world: World) -> None:
    gone = next(f"a/{n}" for n in range(99) if is_drawn(f"a/{n}"))
    held, _ = world.divide([(name, "", 1) for name in NAMES], [(gone, NOT_DRAWN)])
    assert held[NOT_DRAWN] == gone and gone not in held


def test_repositories_of_one_content_are_not_parted(world: World) -> None:
    others = [name for name in NAMES if name > DRAWN and not is_drawn(name)][:1]
    files = [(name, "", 100) for name in NAMES] + [(name, "ab", 1) for name in (DRAWN, *others)]
    held, _ = world.divide(files)
    assert all(held[name] == DRAWN for name in others)
    held, _ = world.divide(files, unique_contents=True)  # if one is sure that there is none, nobody looks
    assert not set(others) & set(held)


def test_a_component_above_a_hundredth_of_the_text_is_parted_into_repositories(world: World) -> None:
    chain = list(pairwise(NAMES[:9]))
    held, told = world.divide([(name, "", 100 if name in NAMES[:9] else 1) for name in NAMES], chain)
    assert told.parted == 1
    assert {name: held.get(name) for name in NAMES[:9]} == {n: n if is_drawn(n) else None for n in NAMES[:9]}
    held, told = world.divide([(name, "", 1) for name in NAMES], chain[:2])  # three of three hundred: just a hundredth
    assert told.parted == 0 and len({held.get(name) for name in NAMES[:3]}) == 1


def test_a_large_repository_alone_is_drawn_too(world: World) -> None:
    held, told = world.divide([(name, "", 10**6 if name == DRAWN else 1) for name in NAMES])
    assert held[DRAWN] == DRAWN and told.parted == 0


def test_one_content_in_a_component_that_is_too_large_keeps_all_of_it_in_train(world: World) -> None:
    large = [DRAWN, *[name for name in NAMES if name > DRAWN][:5]]
    files = [(name, "", 1) for name in NAMES] + [(name, "ab", 1000) for name in large]
    held, told = world.divide(files)
    assert told.parted == 1 and not set(large) & set(held)


def test_files_and_their_order_change_nothing(world: World) -> None:
    files = [(name, "ab" if number % 40 == 0 else "", number) for number, name in enumerate(NAMES)]
    joined = [(NAMES[3], NAMES[7]), (NAMES[7], NAMES[12])]
    first = world.divide(files, joined)
    assert world.divide(files[::-1], joined[::-1], parts=4) == first


def test_what_cannot_be_read_or_has_no_repository_is_refused(tmp_path: Path, world: World) -> None:
    (tmp_path / "torn").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="torn"):
        divide([tmp_path / "torn"], [], 0.5, 0, tmp_path / "s", tmp_path / "o")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "other")
    with pytest.raises(InputError, match="repo_name"):
        divide([tmp_path / "other"], [], 0.5, 0, tmp_path / "s", tmp_path / "o")
    with pytest.raises(InputError, match="without repo_name"):
        world.divide([(None, "", 1)])  # type: ignore[list-item]


def test_a_file_of_unknown_length_counts_as_empty(world: World) -> None:
    held, told = world.divide([(name, "", None) for name in NAMES])  # type: ignore[list-item]
    assert held == {name: name for name in NAMES if is_drawn(name)} and (told.repos, told.bytes) == (300, 0)


def test_an_empty_dataset_is_divided_into_nothing(tmp_path: Path) -> None:
    told = divide([], [], 0.5, 0, tmp_path / "s", tmp_path / "o")
    assert (told.repos, told.held_out_repos, told.bytes) == (0, 0, 0)
    assert pq.read_table(tmp_path / "o").schema.equals(splits.HELD_OUT)
