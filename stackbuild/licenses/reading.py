"""Which files are read for what they say of licences, as what, and what kind of evidence that makes.

A text that is named as a licence ("license") or as what may speak of one ("notice") is read by the engines (`detect`); the
rest are formats that declare a licence (`declared`). What any of them says is a row of SAID.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.licenses.names import is_license_file, is_license_proper
from stackbuild.licenses.policy import Policy

SAID = pa.struct(
    [
        pa.field("expression", pa.string()),  # SPDX; null: something that nobody can tell
        pa.field("engine", pa.string()),  # name and version
        pa.field("score", pa.float32()),  # 0 to 1
        pa.field("first_line", pa.int32()),  # from 1; null where the whole file says it
        pa.field("last_line", pa.int32()),
        pa.field("said", pa.string()),  # the words of a declaration
        pa.field("globs", pa.list_(pa.string())),  # of the paths that it is about; none: all of its folder
        pa.field("precedence", pa.string()),  # of a path rule: closest, aggregate or override
    ]
)

KINDS = {"license": "license_file", "notice": "notice"}  # of evidence, by format


def formats_of(paths: pa.Array, policy: Policy) -> pa.Array:
    """As what each path (string, length n) is read: string of length n, null for a file that is not."""
    named = is_license_file(paths, policy.data.names)
    proper = is_license_proper(paths)
    wanted = pa.array([policy.data.group_of(kind) is not None for kind in ("license_file", "notice")])
    license_text = pc.and_(pc.and_(named, proper), wanted[0])
    notice = pc.and_(pc.and_(named, pc.invert(proper)), wanted[1])
    return pc.case_when(pc.make_struct(license_text, notice), pa.scalar("license"), pa.scalar("notice"))


class Reader:
    """Reads contents in one of the formats, and keeps what it found for each text."""

    def __init__(self) -> None:
        from stackbuild.licenses.detect import Detector

        self._detector = Detector()

    def read(self, content: bytes, format_: str) -> list[dict[str, Any]]:
        """Rows of SAID."""
        named = format_ == "license"
        found = self._detector.detect(content, license_named=named)
        expressions = found.expressions or ((None,) if named else ())
        return [{"expression": one, "engine": found.engine, "score": found.score} for one in expressions]
