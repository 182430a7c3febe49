"""Name each file's programming language, and whether it is vendored or generated.

The Stack v2 called go-enry, a port of GitHub's linguist, on a file's name and bytes (Lozhkov et al. 2024, section 2.1).
We call it on the winning occurrence's path within its repository and on the text in UTF-8, since what was UTF-16 in the
file would be taken for binary. A file of no language leaves by `no_language`, as v2 emptied what it could not name:
without a language there is no folder of the release for it. `unknown = "keep"` in the recipe keeps it, with language
null.

Two cares: the text is cut to 16 KiB at a character, because enry's expressions take seconds on long lines (1 MB: 2.3 s)
and the rest changes 0.03 % of the answers; and enry is a Go program that hangs in a forked child, so it is loaded at
first use, in the process that uses it.

`compat = "the-stack-v1"` takes the language of the extension instead, by The Stack v1's own list and under its names
(Kocetkov et al. 2022): a file of an extension that several languages claim has none, nor has one in capitals, so that nearly all
of MATLAB, Verilog, D, Prolog and half of R are lost. The flags are enry's in either case.

Most files need no look inside: enry asks for a modeline, a known file name, a "#!" line, then the extension, and the
first that names a single language decides. So a text that cannot have a modeline nor "#!" is decided by its name alone
if that names one language. `Detector.language` takes that way, which gives the same answers for a quarter of the time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from stackbuild.errors import StackbuildError
from stackbuild.languages.names import enry_languages, extension_map
from stackbuild.stage import Options, Stage, Verdict


class LanguageOptions(Options):
    """The recipe's table [languages]."""

    head_bytes: int = Field(16_384, ge=512, le=1 << 20, description="bytes of the text that are looked at")
    unknown: Literal["drop", "keep"] = Field("drop", description="what becomes of a file whose language is not known")
    compat: Literal["the-stack-v1"] | None = Field(
        None, description="take the language of the extension, as that dataset did, with what it loses"
    )


class ForkedEnry(StackbuildError):
    """enry was loaded before this process was forked, and would hang."""


# Go collects garbage when its heap of 20 MB has grown by so many per cent: each call leaves a copy of the text behind, and
# at Go's own 100 a tenth of the time goes into collecting it. Read from the environment when the library is loaded.
GO_COLLECTS_AT = "400"

_enry: tuple[int, ModuleType] | None = None


def enry() -> ModuleType:
    """The library, loaded in this very process."""
    global _enry
    if _enry is None:
        os.environ.setdefault("GOGC", GO_COLLECTS_AT)
        import enry.definitions as loaded

        _enry = os.getpid(), loaded
    if _enry[0] != os.getpid():
        raise ForkedEnry(
            f"enry was loaded in process {_enry[0]} and cannot be used in its child {os.getpid()}: "
            "load it in the worker only, or start workers by spawn or forkserver"
        )
    return _enry[1]


# Several languages come only from enry's classifier (2 of 10,017 files). Where two have one score, Go's random order of
# maps decides, for each at least one time in five; in so many calls one of them is missed once in 10 ** 9 ties. Once the
# first by name of all has been drawn, no further call can change the answer.
TIE_CALLS = 100
REMEMBERED = 100_000  # extensions, names and paths whose answer is kept, each

# A modeline names a language by "-*- ... -*-", or after a colon by one of three keys with "=". enry looks for it in the
# first and the last five lines; we look in six, and for less than a modeline, so that none is missed.
_NAMES_SYNTAX = re.compile(rb"(?:filetype|ft|yntax)\s*=")
_NEAR_LINES = 6


def may_have_modeline(head: bytes) -> bool:
    """Whether the first or the last lines could hold a modeline of Emacs or Vim."""
    start, end = 0, len(head)
    for _ in range(_NEAR_LINES):
        start = head.find(b"\n", start) + 1
        end = head.rfind(b"\n", 0, end)
        if not start or end < start:
            near = head
            break
    else:
        near = head[:start] + head[end:]
    if b"-*-" in near:
        return True
    if b"=" not in near or b":" not in near:
        return False
    near = near.lower()
    return (b"ft" in near or b"yntax" in near or b"filetype" in near) and _NAMES_SYNTAX.search(near) is not None


def heads_of(text: pa.Array, size: int) -> Iterator[bytes]:
    """The first `size` bytes of each text, less a character that would be cut; empty for a null."""
    _, offsets, data = text.buffers()
    if not len(text):
        return
    where = np.frombuffer(offsets, np.int64, len(text) + 1, text.offset * 8).tolist()
    view = memoryview(data if data is not None else b"")
    for start, stop in pairwise(where):
        end = stop
        if stop - start > size:
            end = start + size
            while end > start and view[end] & 0xC0 == 0x80:
                end -= 1
        yield bytes(view[start:end])


def path_within(path_bytes: bytes) -> str:
    """A path within its repository as enry takes it: U+FFFD for what is not UTF-8 and for NUL, no "/" before it."""
    return path_bytes.decode("utf-8", "replace").replace("\0", "\ufffd").lstrip("/")


class Detector:
    """enry with a memory of extensions, names and paths; one for each process."""

    def __init__(self) -> None:
        self.enry = enry()
        self._by_extension: dict[str, str | None] = {}
        self._by_name: dict[str, str | None] = {}
        self._of_path: dict[str, tuple[bool, bool, bool]] = {}

    def language(self, path: str, head: bytes) -> str | None:
        """What `enry.get_language` says, None for nothing; `head` is text, without NUL. Of tied languages the first by
        name.
        """
        if not head.startswith(b"#!") and not may_have_modeline(head):
            named = self.by_name(path.rsplit("/", 1)[-1])
            if named is not None:
                return named
        found: list[str] = self.enry.get_languages(path, head)
        if len(found) < 2:
            return (found[0] or None) if found else None
        best, first = found[0], min(found)
        for _ in range(TIE_CALLS):
            if best == first:  # nothing that is drawn can come before it
                break
            best = min(best, self.enry.get_language(path, head))
        return best

    def flags(self, path: str) -> tuple[bool, bool, bool]:
        """What enry says of a path (vendored, documentation, test); the same paths stand in many repositories."""
        if path not in self._of_path:
            if len(self._of_path) >= REMEMBERED:
                self._of_path.clear()
            enry_ = self.enry
            self._of_path[path] = enry_.is_vendor(path), enry_.is_documentation(path), enry_.is_test(path)
        return self._of_path[path]

    def by_name(self, name: str) -> str | None:
        """The language, if the file name alone decides it, by itself or by its extension."""
        if name not in self._by_name:
            if len(self._by_name) >= REMEMBERED:
                self._by_name.clear()
            self._by_name[name] = self._decided_by(name)
        return self._by_name[name]

    def _decided_by(self, name: str) -> str | None:
        known: list[str] = self.enry.get_languages_by_filename(name)
        if known:
            return known[0] if len(known) == 1 else None
        _, dot, extension = name.partition(".")
        if not dot:
            return None
        if extension not in self._by_extension:
            if len(self._by_extension) >= REMEMBERED:
                self._by_extension.clear()
            self._by_extension[extension] = self._single("." + extension)
        return self._by_extension[extension]

    def _single(self, name: str) -> str | None:
        library = self.enry
        # The binding has no plural form of this one: its singular hides whether there are others.
        found = library.lib.GetLanguagesByExtension(name.encode(), b"", 0, library.ffi.NULL)
        languages: list[str] = library.go_str_slice_to_py(library.lib, found)
        return languages[0] if len(languages) == 1 else None


class Languages(Stage[LanguageOptions]):
    """Adds the language and four flags; drops what has no language."""

    name = "languages"
    reads = ("text", "path_bytes")
    adds = (
        pa.field("language", pa.string()),
        pa.field("is_vendor", pa.bool_()),
        pa.field("is_generated", pa.bool_()),
        pa.field("is_documentation", pa.bool_()),
        pa.field("is_test", pa.bool_()),
    )
    engines = ("enry-python",)
    options_model = LanguageOptions

    def __init__(self, options: LanguageOptions | None = None):
        super().__init__(options)
        self._detector: tuple[int, Detector] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_detector": None}  # a library does not travel to another process

    def key(self) -> Mapping[str, Any]:
        """The list of extensions, if one decides."""
        return {"extensions": extension_map(self.options.compat).digest} if self.options.compat else {}

    def mapped(self) -> int:
        """How many languages a file can be given: those that the list of extensions has, or that enry knows."""
        return len(extension_map(self.options.compat).languages if self.options.compat else enry_languages())

    def tags(self, files: pa.RecordBatch) -> Mapping[str, pa.Array]:
        """Ask enry of each file, and of its language the list of extensions if that decides."""
        if self._detector is None or self._detector[0] != os.getpid():
            self._detector = os.getpid(), Detector()
        detector, is_generated = self._detector[1], enry().is_generated
        listed = extension_map(self.options.compat).language if self.options.compat else None
        languages: list[str | None] = []
        generated: list[bool] = []
        flags: list[tuple[bool, bool, bool]] = []
        heads = heads_of(files["text"].cast(pa.large_string()), self.options.head_bytes)
        for path_bytes, head in zip(files["path_bytes"].to_pylist(), heads, strict=True):
            path = path_within(path_bytes)
            languages.append(listed(path.rsplit("/", 1)[-1]) if listed else detector.language(path, head))
            flags.append(detector.flags(path))
            generated.append(is_generated(path, head))
        vendored, documentation, test = zip(*flags, strict=True) if flags else ((), (), ())
        columns = zip(self.adds, (languages, vendored, generated, documentation, test), strict=True)
        return {field.name: pa.array(values, field.type) for field, values in columns}

    def verdicts(self, files: pa.RecordBatch) -> Iterator[Verdict]:
        """no_language, unless the recipe keeps them."""
        if self.options.unknown == "drop":
            yield Verdict("no_language", pc.is_valid(files["language"]))
