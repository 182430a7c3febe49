"""What a rule can decide by: extensions, languages, the XML declaration, stars, and a draw by the content's id."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from stackbuild.quality.filters import FilterOptions, Filters, drawn
from stackbuild.stage import judge

HEAD = 'name = "mine"\nsource = "us"\n'
RULE = '[[rule]]\nid = "r"\nsource = "us"\n'


def stay(tmp_path: Path, rules: str, files: dict[str, Any]) -> list[bool]:
    table = tmp_path / "mine.toml"
    table.write_text(rules if rules.startswith("name") else HEAD + RULE + rules)
    stage = Filters(FilterOptions(rules=str(table)))
    assert set(stage.needs()) <= set(files)
    batch = pa.record_batch(files)
    return judge(stage.verdicts(batch), batch.num_rows)[0].to_pylist()


PATHS = ["/a.py", "/B.PY", "/py", "/.py", "/x.py/b", "/a.b.py", "/a.", "/c.cpy", "/a.py\n", "/a.R"]


@pytest.mark.parametrize(
    ("rules", "gone"),
    [
        ('drop_extensions = ["py"]', ["/a.py", "/B.PY", "/.py", "/a.b.py"]),
        ('drop_extensions = [""]', ["/py", "/x.py/b", "/a."]),
        ('drop_extensions = ["cp*", "r"]', ["/c.cpy", "/a.R"]),
        ('keep_extensions = ["py", "", "cpy", "py\\n"]', ["/a.R"]),
        ('drop = "num_lines > 1"\nextensions = ["py"]', ["/a.py", "/B.PY", "/.py", "/a.b.py"]),
        ('drop = "num_lines > 1"\nexcept_extensions = ["py", "", "r"]', ["/c.cpy", "/a.py\n"]),
    ],
)
def test_a_rule_on_the_extension_of_the_path(tmp_path: Path, rules: str, gone: list[str]) -> None:
    stays = stay(tmp_path, rules, {"path": PATHS, "num_lines": [2] * len(PATHS)})
    assert [path for path, keep in zip(PATHS, stays, strict=True) if not keep] == gone


def test_extension_case_exact_tells_r_from_capital_r(tmp_path: Path) -> None:
    rules = HEAD + 'extension_case = "exact"\n' + RULE + 'keep_extensions = ["r", "C"]\n'
    assert stay(tmp_path, rules, {"path": ["/a.r", "/a.R", "/a.c", "/a.C"]}) == [True, False, False, True]


def test_drop_extensions_by_language_is_about_the_pairs(tmp_path: Path) -> None:
    files = {"path": ["/a.rs", "/a.rs", "/a.c", "/b", "/b", "/a.rs"], "language": ["A", "B", "A", "A", "B", None]}
    assert stay(tmp_path, 'drop_extensions = { A = ["rs", ""], B = ["c"] }', files) == [
        False,
        True,
        True,
        False,
        True,
        True,
    ]


def test_drop_and_keep_languages(tmp_path: Path) -> None:
    files = {"language": ["A", "B", None]}
    assert stay(tmp_path, 'drop_languages = ["A"]', files) == [False, True, True]
    assert stay(tmp_path, 'keep_languages = ["A"]', files) == [True, False, False]


def test_a_rule_on_language_and_extension_needs_both_and_groups_name_extensions(tmp_path: Path) -> None:
    rules = HEAD + '[groups]\nx = ["c"]\n' + RULE + 'drop = "num_lines > 1"\nlanguages = ["A"]\nextensions = "x"\n'
    files = {"path": ["/a.c", "/a.c", "/a.d"], "language": ["A", "B", "A"], "num_lines": [2, 2, 2]}
    assert stay(tmp_path, rules, files) == [False, True, True]


def test_what_a_list_drops_is_told_as_the_detail(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(HEAD + RULE + 'drop_extensions = ["rs"]')
    batch = pa.record_batch({"path": ["/a.RS"]})
    _, gone = judge(Filters(FilterOptions(rules=str(tmp_path / "mine.toml"))).verdicts(batch), 1)
    assert gone[0].verdict.detail.to_pylist() == ["rs"]


def test_xml_declaration_stands_within_the_first_hundred_characters(tmp_path: Path) -> None:
    opener = "<?xml version"
    texts = [
        "é" * 94 + opener,
        "é" * 95 + opener,
        "<?xml-stylesheet ?>",
        "<?xml\tversion",
        "<xml ",
        "",
        "<?XML version",
    ]
    files = {"text": pa.array(texts, pa.large_string())}
    assert stay(tmp_path, 'drop = "xml_declaration == 1"', files) == [False, True, True, False, True, True, True]


def test_stars_of_an_unknown_repository_drop_nothing(tmp_path: Path) -> None:
    # SantaCoder's paper keeps five stars; its code kept only more than five.
    files = {"star_events_count": [4, 5, 6, None]}
    assert stay(tmp_path, 'drop = "star_events_count < 5"', files) == [False, True, True, True]


def ids(names: Sequence[str]) -> pa.Array:
    return pa.array([sha1(name.encode()).digest() for name in names], pa.binary(20))


def test_keep_fraction_draws_a_share_by_content_whatever_the_order(tmp_path: Path) -> None:
    names = [str(n) for n in range(20_000)]
    languages = ["A", "B"] * 10_000
    rule = 'keep_fraction = 0.25\nlanguages = ["A"]'
    stays = stay(tmp_path, rule, {"content_id": ids(names), "language": languages})
    assert all(stays[1::2])
    assert abs(sum(stays[::2]) - 2_500) < 4 * (10_000 * 0.25 * 0.75) ** 0.5
    back = stay(tmp_path, rule, {"content_id": ids(names[::-1]), "language": languages[::-1]})
    assert back[::-1] == stays
    more = stay(tmp_path, rule.replace("0.25", "0.5"), {"content_id": ids(names), "language": languages})
    assert all(big for small, big in zip(stays, more, strict=True) if small)  # a larger share holds the smaller


def test_a_draw_is_uniform_independent_of_other_rules_and_never_changes() -> None:
    content = ids([str(n) for n in range(20_000)])
    one, two = (np.asarray(drawn(rule, content)) for rule in ("one", "two"))
    for draws in (one, two):
        assert draws.min() >= 0 and draws.max() < 1
        counts = np.histogram(draws, 20, (0, 1))[0]
        assert ((counts - 1_000) ** 2 / 1_000).sum() < 44  # chi-square with 19 degrees of freedom, p = 0.001
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.03
    assert drawn("one", content.slice(7, 1)).to_pylist() == [one[7]]
    assert drawn("one", content[:2]).to_pylist() == [0.6124220257063532, 0.38433177305099286]
