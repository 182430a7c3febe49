"""Text made of bytes again, as a manifest records it: the encoding of the row, then the stages that rewrote the text.

A rewriting is done again only by the very version that did it, told by `identity.text_version`: never from a list of places
that somebody published, which would be a list of where the personal data is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from stackbuild import registry
from stackbuild.errors import InputError, StackbuildError
from stackbuild.identity import text_version
from stackbuild.release.verify import REPLAY_COLUMNS
from stackbuild.stage import Stage, with_columns
from stackbuild.task import Task


class TextReplay:
    """Replays what the header of a manifest lists under `transforms`: name, version, options."""

    def __init__(self, header: dict[str, Any]):
        self.stages: dict[str, Stage[Any]] = {}
        self.versions: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        seed = header.get("seed")
        for entry in header.get("transforms") or ():
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not isinstance(seed, int):
                raise InputError("The manifest's header does not say by what its text was transformed.")
            name = entry["name"]
            try:
                kind = registry.stage_class(name)
                stage = kind(kind.options_model.model_validate(entry.get("options") or {}))
                stage.load(nothing(name, stage, seed))
                wants, version = set(stage.needs()), text_version(stage)
            except (StackbuildError, ValidationError, TypeError) as error:
                self.reasons[name] = f"{name} cannot be done again here ({str(error).splitlines()[0]})"
                continue
            if wants - {"text", *REPLAY_COLUMNS}:
                self.reasons[name] = f"{name} reads more than the text"
            self.stages[name], self.versions[name] = stage, version

    def refused(self, transforms: Sequence[dict[str, Any]]) -> str | None:
        """Why the transforms of a row cannot be done again here; None if they can."""
        for one in transforms:
            name, version = one["name"], one["version"]
            if name not in self.versions or name in self.reasons:
                return self.reasons.get(name, f"nobody here can do {ascii(name)[:80]} again")
            if version != self.versions[name]:
                return f"its text was changed by version {version} of {name}; this is {self.versions[name]}"
        return None

    def refused_at_all(self, header: dict[str, Any]) -> str | None:
        """The same for all that the header lists."""
        return self.refused([{"name": e["name"], "version": e.get("version")} for e in header.get("transforms") or ()])

    def texts(self, raw: Sequence[bytes], rows: Sequence[dict[str, Any]]) -> list[bytes | str]:
        """The UTF-8 of each text, or in words why there is none; `rows`: those of the manifest.

        Decoding is per file, as each has its encoding; rewriting is of all texts together.
        """
        found: list[bytes | str] = [decoded(data, row["src_encoding"]) for data, row in zip(raw, rows, strict=True)]
        changed = [{one["name"] for one in row["transforms"] or ()} for row in rows]
        for name, stage in self.stages.items():
            mine = [k for k, names in enumerate(changed) if name in names and isinstance(found[k], bytes)]
            if not mine:
                continue
            batch = pa.RecordBatch.from_pydict(
                {
                    "text": utf8([found[k] for k in mine]),  # type: ignore[misc]
                    **{column: pa.array([rows[k][column] for k in mine], pa.string()) for column in REPLAY_COLUMNS},
                }
            )
            text = stage.text(with_columns(batch, stage.tags(batch)))
            for k, value in zip(mine, text.cast(pa.large_binary()).to_pylist(), strict=True):
                found[k] = value
        return found


def nothing(name: str, stage: Stage[Any], seed: int) -> Task:
    """A task without rows or tables, from which a stage takes the seed."""
    return Task(out=Path(), job=name, rank=0, params={}, options=stage.options, seed=seed, partitions=1, tables={})


def utf8(texts: Sequence[bytes]) -> pa.Array:
    """large_string (n,) of what is known to be UTF-8."""
    return pa.array(texts, pa.large_binary()).cast(pa.large_string())


def decoded(data: bytes, encoding: str | None) -> bytes | str:
    """The text of some bytes in UTF-8; in words why there is none. The encoding's name is a stranger's."""
    if encoding is None:
        return "its encoding is not told"
    try:
        text = data.decode(encoding)
        return data if encoding == "UTF-8" else text.encode()
    except (ValueError, LookupError) as error:
        return f"its bytes are not {ascii(encoding)[:40]} ({type(error).__name__})"
