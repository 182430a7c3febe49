"""The stage `pii`: find personal data and secrets, and put something else in their places.

Nothing is dropped. The spans are a private tag; the text is rewritten from them, and not a byte outside them changes. A
redacted text is searched again until nothing is found in it, so redacting twice is redacting once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.pii import rules
from stackbuild.pii.detection import Detection
from stackbuild.pii.options import PiiOptions, Where
from stackbuild.pii.replacements import Replacer
from stackbuild.pii.settling import ROUNDS, UNSETTLED, settled
from stackbuild.pii.spans import I64, counts_by_entity, counts_of, redacted
from stackbuild.schema import REDACTIONS_BY_ENTITY, SPANS, UNKNOWN_LANGUAGE
from stackbuild.stage import Stage, Verdict

if TYPE_CHECKING:
    from stackbuild.task import Task


class Pii(Stage[PiiOptions]):
    """Adds `redactions` and `redactions_by_entity` (how many) and the private `pii_spans`; rewrites the text."""

    name = "pii"
    reads = ("text",)
    adds = (
        pa.field("pii_spans", SPANS),
        pa.field("redactions", pa.int64()),
        pa.field("redactions_by_entity", REDACTIONS_BY_ENTITY),
    )
    private: ClassVar[frozenset[str]] = frozenset({"pii_spans"})
    engines = ("google-re2", "numba", "pyahocorasick")
    rewrites_text = True
    options_model = PiiOptions

    def __init__(self, options: PiiOptions | None = None):
        super().__init__(options)
        self.seed = 0

    def needs(self) -> tuple[str, ...]:
        """The text, and what `where` asks of files. A profile that cannot be used here is refused now, before the run."""
        profiles = {*self.options.profiles, *(name for one in self.options.where for name in one.profiles or ())}
        if profiles - {"rules"} or self.options.rules is not None:
            self.key()
        return ("text", *self.options.columns())

    def key(self) -> Mapping[str, Any]:
        """What decides what each profile finds."""
        found: dict[str, Any] = {}
        for number, detection in enumerate(self.detections):
            for name, key in detection.key().items():
                if found.setdefault(name, key) != key:
                    found[f"{name} where {number}"] = key
        return found

    def load(self, task: Task) -> None:
        """Take the build's seed, which chooses replacements."""
        self.seed = task.seed

    def warm(self) -> None:
        """Compile the rules and load the compiled pass, once for all tasks of a server."""
        for detection in self.detections:
            detection.warm()

    @cached_property
    def detections(self) -> list[Detection]:
        """What is asked of files: the first of those that fit no `where`, then one for each of these."""
        options = self.options
        asked = [(options.profiles, options.entities)]
        for one in options.where:
            profiles = options.profiles if one.profiles is None else one.profiles
            asked.append((profiles, options.entities if one.entities is None else one.entities))
        made = {one: Detection.of(options, *one) for one in dict.fromkeys(asked)}
        return [made[one] for one in asked]

    def tags(self, files: pa.RecordBatch) -> Mapping[str, pa.Array]:
        """Find what is to be redacted in a batch."""
        replacer = Replacer(rules.load().ip, self.options.mode, self.seed)
        text = large(files["text"])
        if not self.options.where:
            return columns_of(settled(text, self.detections[0].spans, replacer))
        asked = which(files, self.options.where)
        parts, order = [], []
        for number, detection in enumerate(self.detections):
            rows = np.flatnonzero(asked == number)
            if len(rows):
                parts.append(settled(text.take(pa.array(rows)), detection.spans, replacer))
                order.append(rows)
        if not parts:
            return columns_of(settled(text, self.detections[0].spans, replacer))
        back = np.argsort(np.concatenate(order), kind="stable")
        return columns_of(pa.concat_arrays(parts).take(pa.array(back)))

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


def columns_of(spans: pa.Array) -> Mapping[str, pa.Array]:
    """The columns that the stage adds, from the first of them."""
    return {"pii_spans": spans, "redactions": counts_of(spans), "redactions_by_entity": counts_by_entity(spans)}


def which(files: pa.RecordBatch, where: Sequence[Where]) -> I64:
    """For each of n files the number of the first of `where` that it fits, from 1 on; 0 for none (int64, n). Texts of which
    language or repository are not told, outside a build, fit none that asks for it. A file whose language is not known is
    "Unknown", as it is in the dataset."""
    found = np.zeros(files.num_rows, np.int64)
    for number, one in reversed(list(enumerate(where, 1))):
        fits = np.ones(files.num_rows, bool)
        if one.languages is not None:
            languages = told(files, "language")
            if "language" in files.schema.names:
                languages = pc.fill_null(languages, UNKNOWN_LANGUAGE)
            fits &= np.asarray(pc.is_in(languages, pa.array(one.languages, pa.string())))
        if one.repos is not None:
            names = pc.dictionary_encode(told(files, "repo_name"))
            known = [
                any(fnmatchcase(name or "", pattern) for pattern in one.repos) for name in names.dictionary.to_pylist()
            ]
            fits &= np.array([*known, False])[np.asarray(pc.fill_null(names.indices, len(known)))]
        found[fits] = number
    return found


def told(files: pa.RecordBatch, name: str) -> pa.Array:
    """A column of strings, nulls if there is none."""
    return files[name].cast(pa.string()) if name in files.schema.names else pa.nulls(files.num_rows, pa.string())


def texts_with(texts: pa.Array, languages: pa.Array | None) -> pa.RecordBatch:
    """Texts that are of no build as the stage takes them, with their languages if they are told."""
    return pa.RecordBatch.from_pydict({"text": texts} | ({} if languages is None else {"language": languages}))
