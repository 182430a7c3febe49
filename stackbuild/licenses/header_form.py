"""The normal form of a notice at the head of a source file: what its lines say, and not how their language writes comments."""

from __future__ import annotations

import re

from stackbuild.licenses.text import SAYS_MORE, UNIFIED, without_markup

_SIGNS = " \t/*#;%!|>=~+_:,.'\"`{}<\\@$&^-"
_ENDS = " \t/*#;%!|>=~_:,'\"`{}<\\@$&^-"  # not +, which is of GPLv2+, nor a full stop
_COMMENT_WORD = re.compile(r"(?:rem|dnl|comment)(?=\s|$)\s*")
_C_COMMENT = re.compile(r"[cd](?=\s|$)\s*")
_HOLDER = re.compile(
    r"(?:portions |parts )?(?:\(?copyright\)?|copr\.|©|\(c\)|spdx-file[a-z-]+:)"
    r"(?: ?\(c\)| ?©|:| by| the [^.]{1,60} authors|.{0,60}\b(?:19|20)[0-9]{2}\b)"
)
_WHO = re.compile(
    r"(?:(?:authors?|file|filename|brief|date|created|since|version|maintainers?|contributors?) ?:|all rights reserved|id: )"
)


def header_form(raw: list[str]) -> list[tuple[int, str]]:
    """The lines of a notice in normal form, each with its place among `raw`: plain lower case, without comment signs,
    markup, and lines that only name a holder, an author or a file.
    """
    text = without_markup("\n".join(raw)).translate(UNIFIED).lower()
    lines = []
    for number, line in enumerate(text.split("\n")):
        if line.startswith("#!/"):
            continue
        inner = line.strip().removeprefix("(*").removesuffix("*)").removesuffix("]]")
        plain = _COMMENT_WORD.sub("", inner.lstrip(_SIGNS), count=1).lstrip(_SIGNS).rstrip(_ENDS)
        if plain:
            lines.append((number, " ".join(plain.split())))
    fortran = [_C_COMMENT.match(line) is not None for _, line in lines]
    if fortran and sum(fortran) * 3 >= len(fortran) * 2:
        lines = [(number, _C_COMMENT.sub("", line, count=1)) for number, line in lines]
    return [(number, line) for number, line in lines if line and not _only_names(line)]


def _only_names(line: str) -> bool:
    return len(line) <= 200 and (_HOLDER.match(line) or _WHO.match(line)) is not None and not SAYS_MORE.search(line)
