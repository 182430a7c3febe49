"""The profile `ner`, with a tiny generated model whose findings are known."""

from __future__ import annotations

import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from stackbuild.errors import InputError, RecipeError
from stackbuild.pii.options import PiiOptions
from stackbuild.pii.spans import Texts
from tests.pii import models

missing = [name for name in ("torch", "transformers", "detect_secrets") if not find_spec(name)]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)} (extras pii and train)"),
]
OWN_CODE = b'{"model_type": "x", "auto_map": {"AutoModelForTokenClassification": "x.Y"}, "id2label": {"0": "NAME"}}'
ALL = ("NAME", "EMAIL", "KEY", "PASSWORD", "IP_ADDRESS")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the profile asked for a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def find(
    folder: Path, texts: list[str], entities: tuple[str, ...] = ALL, **options: Any
) -> list[list[tuple[str, str]]]:
    from stackbuild.pii.ner import Ner

    detector = Ner(PiiOptions(ner_model=str(folder), **options), entities)
    batch = Texts.of(pa.array(texts, pa.large_string()))
    found: list[list[tuple[str, str]]] = [[] for _ in texts]
    for span in detector.find(batch):
        number = batch.file_of(span.start)
        assert span.end <= batch.offsets[number + 1] and span.rule == f"ner-{span.entity}"
        found[number].append((span.entity, batch.read(span.start, span.end).decode()))
    return found


def test_the_files_of_the_model_are_in_the_key(tmp_path: Path) -> None:
    from stackbuild.pii.ner import Ner

    options = PiiOptions(ner_model=str(models.save(tmp_path)))
    first = Ner(options, ("NAME",)).key()
    assert set(first["model"]) >= {"config.json", "tokenizer.json", "model.safetensors"}
    with (tmp_path / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    assert Ner(options, ("NAME",)).key() != first


def test_spans_are_exact_in_bytes(folder: Path) -> None:
    """Beyond ASCII, with CRLF, and with characters that the tokenizer drops."""
    texts = [
        "word Jo Smith word",
        "é漢字😀 Jo Ölund\r\njo@firm.com\r\n\0 word 84.23.112.9",
        "",
        "\0\0\x01 Jo \x02Sm\x03ith word",
        "\u2028Ada 漢字\u3000word",
        "[SEP] [PAD] Jo Smith [CLS]",
    ]
    assert find(folder, texts) == [
        [("NAME", "Jo Smith")],
        [("NAME", "Jo Ölund"), ("EMAIL", "jo@firm.com"), ("IP_ADDRESS", "84.23.112.9")],
        [],
        [("NAME", "Jo \x02Sm\x03ith")],
        [("NAME", "Ada 漢字")],
        [("NAME", "Jo Smith")],
    ]


def test_the_published_rules_decide(folder: Path) -> None:
    text = (
        "Jo word abc word 10.0.0.1 8.8.8.8 1.2.3 user1 maybe (jo@firm.com), connection_timeout qxzjvkqxzj+/= Ada Smith"
    )
    assert find(folder, [text]) == [[("EMAIL", "jo@firm.com"), ("KEY", "qxzjvkqxzj+/="), ("NAME", "Ada Smith")]]
    assert find(folder, [text], ("USERNAME",)) == [[("USERNAME", "user1")]]


def test_what_redaction_puts_in_is_not_found(folder: Path) -> None:
    assert find(folder, ["<EMAIL> <NAME> Smith <EMAIL>"]) == [[]]


def test_a_label_that_begins_ends_the_one_before(folder: Path) -> None:
    assert find(folder, ["Jo Smith Ada Smith jo@firm.com bo@firm.com"]) == [
        [("NAME", "Jo Smith"), ("NAME", "Ada Smith"), ("EMAIL", "jo@firm.com"), ("EMAIL", "bo@firm.com")]
    ]


@pytest.mark.parametrize("overlap", [0, 1, 4, 5])
def test_windows_do_not_show(folder: Path, overlap: int) -> None:
    """A name across the border of two windows is one, wherever it lies."""
    for before in range(14):
        text = "word " * before + "Jo Smith " + "word " * 9 + "Ada Ölund"
        assert find(folder, [text], ner_window=12, ner_overlap=overlap) == [
            [("NAME", "Jo Smith"), ("NAME", "Ada Ölund")]
        ]


@pytest.mark.parametrize("tokens", [None, 40])
def test_batches_do_not_show(folder: Path, tokens: int | None) -> None:
    texts = ["word " * (7 * n % 50) + "Jo Smith " + "é " * (n % 11) + "jo@firm.com" for n in range(80)]
    expected = [[("NAME", "Jo Smith"), ("EMAIL", "jo@firm.com")]] * 80
    assert find(folder, texts, ner_window=16, ner_overlap=4, ner_batch_tokens=tokens) == expected


def test_padding_changes_no_probability_beyond_its_last_bits(folder: Path) -> None:
    from stackbuild.pii.ner_model import Tagger, read_folder

    tagger = Tagger(read_folder(folder, {}), PiiOptions(ner_model=str(folder)))
    ids = np.array([[5, 6, 7, 8, 9], [5, 6, 0, 0, 0]], np.int64)
    labels, probabilities = tagger.labels(ids, np.array([5, 2]))
    alone, exact = tagger.labels(ids[1:, :2], np.array([2]))
    assert labels[1, :2].tolist() == alone[0].tolist()
    np.testing.assert_allclose(probabilities[1, :2], exact[0], rtol=1e-5)


def test_a_label_below_the_threshold_says_nothing(folder: Path) -> None:
    assert find(folder, ["Jo Smith"], ner_threshold=0.9) == [[("NAME", "Jo Smith")]]
    assert find(folder, ["Jo Smith"], ner_threshold=1.0) == [[]]


def test_labels_without_beginnings_and_of_other_names(tmp_path: Path) -> None:
    words = {"Jo": "PER", "Smith": "PER", "acme": "ORG", "secret": "LABEL_3", "word": "O"}
    folder = models.save(tmp_path, ("O", "PER", "ORG", "LABEL_3"), words)
    text = "word Jo Smith acme secret-1 secret"
    assert find(folder, [text], ner_labels={"label_3": "PASSWORD"}) == [[("NAME", "Jo Smith"), ("PASSWORD", "secret")]]
    assert find(folder, [text], ner_labels={"PER": "", "ORG": "EMAIL"}) == [[("EMAIL", "acme")]]
    with pytest.raises(RecipeError, match="ner_labels"):
        find(folder, [text], ner_labels={"PER": ""})
    with pytest.raises(RecipeError, match="'PERSONS' is no entity"):
        find(folder, [text], ner_labels={"ORG": "PERSONS"})


def test_a_model_whose_first_positions_are_for_padding(tmp_path: Path) -> None:
    folder = models.save(tmp_path, kind="roberta")
    text = "word " * 200 + "Jo Smith"
    assert find(folder, [text], ner_window=65, ner_overlap=8) == [[("NAME", "Jo Smith")]]
    assert find(folder, [text], ner_overlap=8) == [[("NAME", "Jo Smith")]]
    with pytest.raises(RecipeError, match="sees 65 tokens at most, not 66"):
        find(folder, [text], ner_window=66, ner_overlap=8)


def test_the_overlap_is_at_most_half_a_window(folder: Path) -> None:
    with pytest.raises(RecipeError, match="ner_overlap"):
        find(folder, ["x"], ner_overlap=40)


def test_weights_that_are_not_all_there_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: weight for name, weight in weights.items() if "classifier" not in name}, tmp_path / "model.safetensors"
    )
    with pytest.raises(InputError, match="no weights for classifier"):
        find(tmp_path, ["x"])


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("tokenizer.json", b"{}", "tokenizer.json cannot be used"),
        ("model.safetensors", b"none", "cannot be loaded"),
        ("config.json", OWN_CODE, "cannot be loaded"),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_told_by_name(folder: Path, tmp_path: Path, name: str, content: bytes, told: str) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=told):
        find(tmp_path, ["x"])


def test_a_gpu_that_is_not_there_is_refused(folder: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("here is a GPU")
    with pytest.raises(RecipeError, match="ner_device"):
        find(folder, ["x"], ner_device="cuda")


def test_memory_does_not_grow_with_a_text(folder: Path) -> None:
    """5 MB of one line, and 1 MB."""
    import resource

    def run(megabytes: int) -> int:
        text = "word " * (megabytes * 50_000) + "Jo Smith"
        assert find(folder, [text], ("NAME",), ner_window=64, ner_overlap=8, ner_batch_tokens=16_384) == [
            [("NAME", "Jo Smith")]
        ]
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    small = run(1)
    assert run(5) - small < 60_000  # kB: the text itself, three times
