"""The dataset card: a header by which every language loads, a body that tells the whole account, nobody's markup."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild.release.card import COLUMNS, CardStats, amount, configurations, dataset_card, escaped, size_category
from stackbuild.schema import DATASET

LANGUAGES = [
    "C",
    "C++",
    "C#",
    "F#",
    "Objective-C++",
    "Common Lisp",
    "Cap'n Proto",
    "Visual Basic .NET",
    "A[b]",
    "x*?",
    "Unknown",
]


def stats(**more: Any) -> CardStats:
    base: dict[str, Any] = {
        "name": "tiny | <b>stack</b>",
        "seed": 42,
        "languages": [{"language": n, "folder": n, "files": 2, "bytes": 1000 + k} for k, n in enumerate(LANGUAGES)],
        "licenses": [
            {"license_type": "permissive", "files": 20, "bytes": 10_000, "most": ["MIT", "Apache-2.0"]},
            {"license_type": "no_license", "files": 2, "bytes": 1045},
        ],
        "funnel": [
            {
                "stage": "filters",
                "rows_in": 40,
                "rows_out": 30,
                "bytes_in": 99,
                "bytes_out": 88,
                "rules": {f"rule_{k}": {"rows": k, "bytes": 1} for k in (1, 4, 3, 2)},
            },
            {"stage": "pii", "rows_in": 0, "rows_out": 0, "bytes_in": 0, "bytes_out": 0, "rules": {}},
        ],
        "opt_out": {"request": "https://example.org/opt-out", "files": 3},
    }
    return base | more  # type: ignore[return-value]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    for name in LANGUAGES:
        (folder / "data" / name).mkdir(parents=True)
        for number in range(2):
            row = dict.fromkeys(DATASET.names) | {"content": f"{name} {number}", "language": name}
            table = pa.Table.from_pylist([row], DATASET)
            pq.write_table(table, folder / "data" / name / f"train-{number:05}-of-00002.parquet")
    (folder / "README.md").write_text(dataset_card(stats()), encoding="utf-8")
    return folder


@pytest.mark.parametrize("streaming", [False, True])
def test_every_language_loads_by_its_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    assert datasets.get_dataset_config_names(str(folder)) == [
        "default", "A[b]", "C", "C#", "C++", "Cap'n Proto", "Common Lisp", "F#", "Objective-C++", "Unknown",
        "Visual Basic .NET", "x__",
    ]  # fmt: skip
    for config, language in {"C": "C", "C++": "C++", "F#": "F#", "A[b]": "A[b]", "x__": "x*?"}.items():
        loaded = datasets.load_dataset(
            str(folder), config, split="train", streaming=streaming, cache_dir=str(tmp_path / "cache")
        )
        rows = list(loaded)
        assert [row["content"] for row in rows] == [f"{language} 0", f"{language} 1"]
        assert list(rows[0]) == DATASET.names
    everything = datasets.load_dataset(str(folder), split="train", streaming=True)
    assert sorted(row["content"] for row in everything) == sorted(f"{n} {k}" for n in LANGUAGES for k in (0, 1))


def test_the_hub_reads_the_header() -> None:
    from huggingface_hub import DatasetCard

    card = DatasetCard(dataset_card(stats()))
    told = card.data.to_dict()
    assert told["license"] == "other" and told["license_name"] == "multiple-per-file"
    assert told["size_categories"] == ["n<1K"] and "code" in told["tags"]
    assert told["pretty_name"] == "tiny | <b>stack</b>"
    assert told["configs"] == configurations(stats()["languages"])
    assert card.text.strip().startswith("# tiny \\| \\<b\\>stack\\</b\\>")


def test_every_column_has_a_word() -> None:
    assert list(COLUMNS) == DATASET.names
    text = dataset_card(stats())
    for name in DATASET.names:
        assert f"| `{name}` |" in text


def test_the_account_is_told() -> None:
    text = dataset_card(stats())
    assert "| filters | 40 | 30 | 75.0% | 88 B | rule\\_4 4, rule\\_3 3, rule\\_2 2, 1 rules more |" in text
    assert "| pii | 0 | 0 | – | 0 B |  |" in text
    assert "| permissive | 20 | 10 kB | MIT, Apache-2.0 |" in text
    assert text.index("| Unknown | 2 | 1.01 kB |") < text.index("| C | 2 | 1 kB |")  # the largest first
    assert "22 source files in 11 languages" in text
    assert "https://example.org/opt-out" in text and "3 files are left out" in text
    assert "was searched for and replaced" in text and "not scanned for malware" in text


def test_settings_versions_and_deviations_are_told() -> None:
    more = {
        "settings": {"near_dedup": {"threshold": 0.7, "evil": "`|\n<x>"}},
        "versions": {"enry": "0.2.0"},
        "deviations": {"swh": "no export at hand"},
        "sources": {"git": 3},
        "recipe_digest": "abc",
    }
    text = dataset_card(stats(**more))
    assert "| near\\_dedup | threshold | `0.7` |" in text and "| near\\_dedup | evil | `'\\| <x>` |" in text
    assert "| enry | 0.2.0 |" in text and "- swh: no export at hand" in text and "| git | 3 |" in text


def test_strangers_get_no_markup() -> None:
    evil = "x | y\n\n---\n# h <script>alert(1)</script> [a](http://b) `c` \x1b[31m"
    assert re.search(r"(?<!\\)[|<>\[\]#`]|\n|\x1b", escaped(evil)) is None
    text = dataset_card(stats(languages=[{"language": evil, "folder": "f", "files": 1, "bytes": 1}]))
    assert "<script>" not in text.split("---\n", 2)[2]
    from huggingface_hub import DatasetCard

    assert len(DatasetCard(text).data.to_dict()["configs"]) == 2


def test_names_that_collide_are_told_apart() -> None:
    names = ["a?", "a*", "a_", "default", "?"]
    found = configurations({"language": n, "folder": n, "files": 1, "bytes": 1} for n in names)
    assert [config["config_name"] for config in found] == ["default", "_", "a_", "a__2", "a__3", "default_2"]
    assert found[1]["data_files"][0]["path"] == "data/[?]/*.parquet"


def test_an_empty_dataset_has_a_card() -> None:
    text = dataset_card(stats(languages=[], licenses=[], funnel=[]))
    assert "configs" not in text and "0 source files" in text


@pytest.mark.parametrize(
    "files, name", [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**9, "1B<n<10B"), (10**12, "100B<n<1T")]
)
def test_size_categories_are_the_hubs(files: int, name: str) -> None:
    assert size_category(files) == name


def test_amounts_are_decimal() -> None:
    assert [amount(n) for n in (0, 999, 1000, 1_500_000, 999_600_000, 67_500_000_000_000)] == [
        "0 B",
        "999 B",
        "1 kB",
        "1.5 MB",
        "1 GB",
        "67.5 TB",
    ]
