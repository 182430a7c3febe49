"""The stage `pii`: find personal data and secrets, and put something else in their places.

Nothing is dropped. The spans are a private tag; the text is rewritten from them, and not a byte outside them changes. A
redacted text is searched again until nothing is found in it, so redacting twice is redacting once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.pii import rules
from stackbuild.pii.detection import Detection
from stackbuild.pii.options import PiiOptions
from stackbuild.pii.replacements import Replacer
from stackbuild.pii.settling import ROUNDS, UNSETTLED, settled
from stackbuild.pii.spans import counts_of, redacted
from stackbuild.schema import SPANS
from stackbuild.stage import Stage, Verdict

if TYPE_CHECKING:
    from stackbuild.task import Task


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

    def key(self) -> Mapping[str, Any]:
        """What decides what each profile finds."""
        return self.detection.key()

    def load(self, task: Task) -> None:
        """Take the build's seed, which chooses replacements."""
        self.seed = task.seed

    def warm(self) -> None:
        """Compile the rules and load the compiled pass, once for all tasks of a server."""
        self.detection.warm()

    @cached_property
    def detection(self) -> Detection:
        """The profiles, made at first use."""
        return Detection.of(self.options, self.options.profiles, self.options.entities)

    def tags(self, files: pa.RecordBatch) -> Mapping[str, pa.Array]:
        """Find what is to be redacted in a batch."""
        replacer = Replacer(rules.load().ip, self.options.mode, self.seed)
        column = settled(large(files["text"]), self.detection.spans, replacer)
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
