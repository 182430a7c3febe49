"""That reading grows with the length of a text and not with its square, whatever a stranger writes.

Compared is the processor time of a text with that of one four times as long: a square takes sixteen times as much.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pyarrow as pa
import pytest

from stackbuild.licenses import riders, tags, wording
from stackbuild.licenses.contained import cells_of
from stackbuild.licenses.declared import declarations, resolve
from stackbuild.licenses.declared.names import reduce_name, reduce_url
from stackbuild.licenses.notices import binary_buffers, notice_lines
from stackbuild.licenses.reading import points_elsewhere
from stackbuild.licenses.text import normal_form

SHORT = 8_192
NOISE = 0.05  # seconds of work below which nothing is told of its growth


def lines_of(text: str) -> object:
    return notice_lines(*binary_buffers(pa.array([text.encode()], pa.large_binary())))


Read = Callable[[str], object]


def declared(name: str, path: str, before: str, after: str = "\n") -> Read:
    return lambda text: declarations(name, path, (before + text + after).encode())


READERS: dict[str, Read] = {
    "normal form": lambda text: normal_form(f"a {text} a"),
    "tag": lambda text: [tags.tag_of(f"SPDX-License-Identifier: {text}"), tags.outside_snippets(text.split("\n"))],
    "pointer": points_elsewhere,
    "compatible": lambda text: wording.without_compatible(f"compatible {text}"),
    "like": lambda text: wording.is_only_like("MIT", f"style {text}"),
    "notebook": lambda text: cells_of(f'{{"cells": [{{"cell_type": "code", "source": ["{text}'.encode()),
    "notebook's cells": lambda text: cells_of(f'{{"cells": [ "cell_type" {text}'.encode()),
    "lines": lambda text: lines_of(f"x = 1\nlicense\n{text}\nlicense\n"),
    "sentences": lambda text: list(riders.sentences(text.split("\n"), set(range(text.count("\n") + 1)))),
    "name": lambda text: [resolve(text), reduce_name(text), reduce_url(text)],
    "DESCRIPTION": declared("DESCRIPTION", "DESCRIPTION", "Package: x\nVersion: 1\nLicense: GPL (> 1"),
    "sidecar": declared("sidecar", "x.c.license", "SPDX-License-Identifier: x"),
    "debian": declared("debian/copyright", "debian/copyright", "Format: x\n\nFiles: *\nLicense: "),
    "readme": declared("readme", "README.md", "# License\n\n"),
    "gemspec": declared("gemspec", "x.gemspec", "s.license = nil\n"),
    "podspec": declared("podspec", "x.podspec", "s.license = {"),
    "mix": declared("mix.exs", "mix.exs", "licenses: []"),
    "sbt": declared("build.sbt", "build.sbt", "licenses += "),
    "cabal": declared("cabal", "x.cabal", "license: "),
    "opam": declared("opam", "x.opam", 'opam-version: "2"\nlicense: ['),
    "setup.cfg": declared("setup.cfg", "setup.cfg", "[metadata]\nlicense = "),
    "yaml": declared("plain.yml", "shard.yml", "name: x\nlicense: "),
    "deno": declared("plain.json", "deno.jsonc", '{"license": "MIT", // '),
    "clojure": declared("project.clj", "project.clj", ":licenses [{:name "),
    "list": declared("gemspec", "x.gemspec", "s.licenses = ["),
    "npm": declared("package.json", "package.json", '{"license": "', '"}'),
}
UNITS = [
    " ", "*", "* ", "-", "'", '"', "1", ".0", "(", ">", ">=", "/", "a", "A ", ".en", "license", "licenses: []\n", "s.license = nil\n",
    "accompany", "the ", "see ", "and ", ", ", "|", "SPDX-SnippetBegin\n", "[x](", "<a ", "`", "\n", "\t", "#", "or later ",
    "compatible with ", "gpl", "gpl ", "mit-", "gnu general public license ", '"source": [', '\\"', '"source":', '\\n', 'R"(', '= """\n',
    '@"', "<html>", 'r#"', "license <<EOF\n", "<html",
]  # fmt: skip


def seconds(read: Read, text: str) -> float:
    before = time.process_time()
    read(text)
    return time.process_time() - before


@pytest.mark.parametrize("reader", READERS)
def test_a_text_four_times_as_long_takes_some_four_times_as_much_work(reader: str) -> None:
    read = READERS[reader]
    read("x")  # tables are loaded once
    for unit in UNITS:
        text = unit * (SHORT // len(unit))
        tries = (seconds(read, text * 4 + "\a") - 8 * seconds(read, text + "\a") for _ in range(3))
        assert any(excess < NOISE for excess in tries), unit
