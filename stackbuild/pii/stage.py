"""The stage `pii`: find e-mail addresses, IP addresses and keys, and put something else in their places.

The profile without a model of SantaCoder and The Stack v2 (Lozhkov et al. 2024, section 3.2): no names, user names or
passwords. Nothing is dropped. The spans are a private tag; the text is rewritten from them, and not a byte outside them
changes. A redacted text is searched again until the rules find nothing in it, so redacting twice is redacting once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from stackbuild.pii import gate, rules, secrets
from stackbuild.pii.addresses import AddressFinder
from stackbuild.pii.emails import EmailFinder
from stackbuild.pii.replacements import Mode, Replacer, known_values
from stackbuild.pii.secrets import SecretFinder
from stackbuild.pii.spans import I64, Carried, Span, Texts, column_of, counts_of, merged, redacted
from stackbuild.schema import SPANS
from stackbuild.stage import Options, Stage, Verdict

if TYPE_CHECKING:
    from stackbuild.task import Task

ROUNDS: Final = 16  # what hides another finding from the rules needs one more round; real files need two
UNSETTLED: Final = "unsettled"


class Finder(Protocol):
    """Finds one kind of thing: spans of a batch from the places that the gate gives, or from the texts themselves."""

    def find(self, texts: Texts, hits: I64) -> Iterator[Span]: ...


FINDERS: Mapping[str, Callable[[rules.RuleBook], Finder]] = {
    "EMAIL": lambda book: EmailFinder(book.email),
    "IP_ADDRESS": lambda book: AddressFinder(book.ip),
    "KEY": lambda book: SecretFinder(book, known_values(book.ip)),
}


class PiiOptions(Options):
    mode: Mode = Field(
        "placeholder",
        description="<EMAIL> and <KEY>, or made-up values in their places; IP addresses always get private ones",
    )
    entities: tuple[Literal["EMAIL", "IP_ADDRESS", "KEY"], ...] = Field(
        ("EMAIL", "IP_ADDRESS", "KEY"), min_length=1, description="what is looked for"
    )


class Detection:
    """All finders behind one gate."""

    def __init__(self, book: rules.RuleBook, entities: Sequence[str]):
        self.finders = [FINDERS[entity](book) for entity in sorted(set(entities))]
        self.automaton = gate.automaton(book.anchors)

    def spans(self, texts: Texts) -> list[Span]:
        """What is found in a batch of texts, merged, in order."""
        hits = gate.hits(texts, self.automaton)
        if not len(hits):
            return []
        found = [span for finder in self.finders for span in finder.find(texts, hits)]
        return merged([*found, *secrets.repeated(texts, found)])


def settled(text: pa.LargeStringArray, detect: Callable[[Texts], list[Span]], replacer: Replacer) -> pa.Array:
    """The column `pii_spans` for n texts: after their replacement `detect` finds nothing.

    Replacing one finding can lay another bare (a word inside an address said "version" of what follows it). Such rows
    are searched again; a row that has not settled after ROUNDS, which takes intent, becomes one span of the rule
    UNSETTLED.
    """
    texts = Texts.of(text)
    spans = detect(texts)
    column = column_of(spans, replacer.of(spans, texts), texts)
    rows = np.flatnonzero(np.asarray(counts_of(column)))
    for turn in range(ROUNDS):
        if not len(rows):
            return column
        part, part_text = column.take(pa.array(rows)), text.take(pa.array(rows))
        new_text = redacted(part_text, part)
        more = detect(Texts.of(new_text))
        if not more:
            return column
        part, unsettled = _carried(part_text, part, new_text, more, replacer=replacer, last=turn == ROUNDS - 1)
        chosen = np.arange(len(column))
        chosen[rows] = len(column) + np.arange(len(rows))
        column = pa.concat_arrays([column, part]).take(pa.array(chosen))
        rows = rows[unsettled]
    return column


def _carried(
    text: pa.Array, column: pa.Array, new_text: pa.Array, more: list[Span], *, replacer: Replacer, last: bool
) -> tuple[pa.Array, I64]:
    """The spans of some rows together with those found in their redacted texts, and which rows got new ones."""
    old, new = Texts.of(text), Texts.of(new_text)
    files = np.searchsorted(new.offsets, np.array([span.start for span in more]), side="right") - 1
    found: dict[int, list[Span]] = {}
    for file, span in zip(files.tolist(), more, strict=True):
        found.setdefault(file, []).append(span)
    spans: list[Span] = []
    for file, known in enumerate(column.to_pylist()):
        base, fresh = int(old.offsets[file]), int(new.offsets[file])
        here = [Span(base + s["start"], base + s["end"], s["entity"], s["rule"]) for s in known]
        if file in found and last:
            here = [Span(base, int(old.offsets[file + 1]), "KEY", UNSETTLED)]
        elif file in found:
            way = Carried(
                [s["start"] for s in known], [s["end"] for s in known], [len(s["replacement"].encode()) for s in known]
            )
            for span in found[file]:
                start, end = way.back(span.start - fresh, span.end - fresh)
                here.append(Span(base + start, base + end, span.entity, span.rule))
        spans += merged(here)
    return column_of(spans, replacer.of(spans, old), old), np.array(sorted(found), np.int64)


class Pii(Stage[PiiOptions]):
    """Adds `redactions` (how many) and the private `pii_spans`; rewrites the text."""

    name = "pii"
    reads = ("text",)
    adds = (pa.field("pii_spans", SPANS), pa.field("redactions", pa.int64()))
    private: ClassVar[frozenset[str]] = frozenset({"pii_spans"})
    engines = ("google-re2", "numba", "pyahocorasick")
    rewrites_text = True
    options_model = PiiOptions

    def __init__(self, options: PiiOptions | None = None):
        super().__init__(options)
        self.seed = 0
        self._detection: Detection | None = None

    def key(self) -> Mapping[str, Any]:
        """The rules decide what is found."""
        return {"rules": rules.load().digest}

    def load(self, task: Task) -> None:
        """Take the build's seed, which chooses replacements."""
        self.seed = task.seed

    def warm(self) -> None:
        """Compile the rules and load the compiled pass, once for all tasks of a server."""
        self.detection().spans(Texts.of(pa.array(["jo@example.com"], pa.large_string())))

    def detection(self) -> Detection:
        """The finders, made at first use."""
        if self._detection is None:
            self._detection = Detection(rules.load(), self.options.entities)
        return self._detection

    def tags(self, files: pa.RecordBatch) -> Mapping[str, pa.Array]:
        """Find what is to be redacted in a batch."""
        replacer = Replacer(rules.load().ip, self.options.mode, self.seed)
        column = settled(large(files["text"]), self.detection().spans, replacer)
        return {"pii_spans": column, "redactions": counts_of(column)}

    def verdicts(self, files: pa.RecordBatch) -> Iterable[Verdict]:
        """A file leaves only if its redaction does not settle, which no honest file does."""
        column = files["pii_spans"]
        parents = pc.list_parent_indices(column)
        bad = parents.filter(pc.equal(column.flatten().field("rule"), UNSETTLED))
        keep = np.ones(files.num_rows, bool)
        keep[np.asarray(bad)] = False
        yield Verdict(UNSETTLED, keep=pa.array(keep), threshold=ROUNDS)

    def text(self, files: pa.RecordBatch) -> pa.Array:
        """The texts with their spans replaced; the same array if the batch has none."""
        return redacted(large(files["text"]), files["pii_spans"])


def large(text: pa.Array) -> pa.LargeStringArray:
    """The texts as large_string, without a copy if they are."""
    return text if pa.types.is_large_string(text.type) else text.cast(pa.large_string())
