"""The published folder loads with `datasets`, offline, as a whole and streaming, whatever a language is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_build import run
from tests.worlds import light

SOURCES = {
    "a.cpp": "#include <vector>\nint add{0}(std::vector<int> const &v) {{ return v.size() + {0}; }}\n",
    "b.fs": "module M{0}\nlet add{0} x = x + {0}\nlet twice{0} x = add{0} (add{0} x)\n",
    "c.cs": "namespace N{0} {{ class C{0} {{ int Add(int x) {{ return x + {0}; }} }} }}\n",
    "d.vb": "Module M{0}\n  Function Add(x As Integer) As Integer\n    Return x + {0}\n  End Function\nEnd Module\n",
    "e.py": "def add{0}(x):\n    return x + {0}\n",
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("w")
    for number in range(3):
        (root / f"r{number}").mkdir()
        for name, text in SOURCES.items():
            (root / f"r{number}" / name).write_text(text.format(number) * 5)
    out = tmp_path_factory.mktemp("out")
    run(light(root, stages=["opt_out", "exact_dedup", "decode", "languages", "signals"]), out)
    return out / "dataset"


@pytest.mark.parametrize("language", ["C++", "F#", "C#", "Visual Basic .NET", "Python"])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_language_loads_by_its_name(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str, streaming: bool
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    loaded = datasets.load_dataset(str(dataset), language, streaming=streaming, cache_dir=str(tmp_path), split="train")
    rows = list(loaded)
    assert len(rows) == 3 and {row["language"] for row in rows} == {language}
    assert all(row["content"] for row in rows)


def test_the_default_is_everything_and_the_card_is_valid(dataset: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from huggingface_hub import DatasetCard

    assert len(datasets.load_dataset(str(dataset), cache_dir=str(tmp_path), split="train")) == 15
    card = DatasetCard.load(dataset / "README.md")
    assert {config["config_name"] for config in card.data.configs} >= {"default", "C++", "F#"}
