"""Layers of a recipe: files that extend each other, and what `--set` lays over them.

Tables are merged, everything else is replaced by what is laid over it. Every leaf remembers where it was set, with the
line, so that an error and `stackbuild plan --resolved` can say so. A recipe file is data from a stranger: its size and
depth are bounded, and `extends` reaches a file beside it or one that stackbuild brings, whatever the current folder.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from stackbuild.errors import RecipeError
from stackbuild.sources.credentials import without_credentials

FILE_BYTES = 1 << 20
EXTENDS_DEPTH = 16
TABLE_DEPTH = 32
KEY_CHARS = 100

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
KEY = (
    r"""[A-Za-z0-9_:-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*'"""  # a colon too, so that --set near_dedup:strict needs no quotes
)
PART = re.compile(rf"\s*(?P<key>{KEY})\s*|\[(?P<item>[0-9]+)\]\s*")
DOTTED = rf"\s*(?:{KEY})\s*(?:\.\s*(?:{KEY})\s*)*"
HEADER = re.compile(rf"\s*(?P<array>\[)?\[(?P<keys>{DOTTED})\](?(array)\])\s*")
ASSIGNMENT = re.compile(rf"(?P<keys>{DOTTED})=")
ONE_LINE_STRING = re.compile(r""""(?:\\.|[^"\\\n])*"|'[^'\n]*'""")
HIDDEN = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})|\'\'\'.*?\'\'\'(?:\'{0,2})|("(?:\\.|[^"\\\n])*"|\'[^\'\n]*\')|#[^\n]*', re.S
)


class LayerError(RecipeError):
    """A file or an override that cannot be laid over the rest; the message has no end yet."""


@dataclass(frozen=True)
class Origin:
    """Where a value was set. `folder`: where its relative paths start. `inherited`: by a recipe that was extended."""

    name: str
    folder: Path
    line: int | None = None
    inherited: bool = False

    def __str__(self) -> str:
        return self.name if self.line is None else f"{self.name}:{self.line}"


@dataclass(frozen=True)
class Layer:
    """Merged tables, and the origin of each leaf by its dotted path."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)

    def origin(self, dotted: str) -> Origin | None:
        """Where a value was set: its own leaf, else the leaf that holds it; None for a default.

        What a stage instance's own table does not set is of the table of its stage's name.
        """
        keys = split(dotted) if dotted.startswith("stage.") else []
        if len(keys) > 2 and not is_set(self.values, keys):
            base = keys[1].split(":", 1)[0]
            if is_set(self.values, [base, *keys[2:]]):
                dotted = joined("", base) + dotted[len(joined("stage", keys[1])) :]
        end = len(dotted)
        while end > 0:
            if found := self.origins.get(dotted[:end]):
                return found
            end = max(dotted.rfind(".", 0, end), dotted.rfind("[", 0, end))
        return None

    def below(self, dotted: str) -> list[Origin]:
        """Where a value, or any part of a table, was set."""
        own = self.origins.get(dotted)
        return (
            [own] if own else [o for path, o in self.origins.items() if path.startswith((f"{dotted}.", f"{dotted}["))]
        )


# ---------------------------------------------------------------- dotted paths


def joined(prefix: str, key: str | int) -> str:
    """A dotted path and one more key; a key that is not bare is quoted as in TOML, an item of a list is in brackets."""
    if isinstance(key, int):
        return f"{prefix}[{key}]"
    written = key if BARE_KEY.fullmatch(key) else f'"{"".join(map(escaped, key))}"'
    return f"{prefix}.{written}" if prefix else written


def is_set(table: Any, keys: Iterable[str | int]) -> bool:
    """Whether a table sets what these keys lead to, or a value that holds it."""
    for key in keys:
        if not isinstance(table, dict):
            return True
        if key not in table:
            return False
        table = table[key]
    return True


def escaped(char: str) -> str:
    """A character within a quoted key: what cannot be seen is written by its number."""
    if char in '"\\' or not char.isprintable():
        return f"\\u{ord(char):04x}" if ord(char) < 1 << 16 else f"\\U{ord(char):08x}"
    return char


def split(dotted: str) -> list[str]:
    """The keys of a dotted path, an item's number among them; empty if it is none."""
    keys: list[str] = []
    position = 0
    while position < len(dotted):
        if keys and dotted[position] == ".":
            position += 1
        elif keys and dotted[position] != "[":
            return []
        part = PART.match(dotted, position)
        if part is None or (part["item"] and (not keys or dotted[position - 1] == ".")):
            return []
        keys.append(part["item"] or unquoted(part["key"]))
        position = part.end()
    return [] if dotted.rstrip().endswith(".") else keys


def unquoted(key: str) -> str:
    """A key of TOML as its text."""
    if key[0] not in "\"'":
        return key
    try:
        return next(iter(tomllib.loads(f"{key} = 0")))
    except tomllib.TOMLDecodeError:
        return key[1:-1]


def leaves(value: Any, dotted: str) -> Iterator[tuple[str, Any]]:
    """Dotted paths of a value's leaves; the items of a list of tables are numbered, an empty table is a leaf."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, joined(dotted, key))
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            yield from leaves(item, joined(dotted, number))
    else:
        yield dotted, value


def beyond(value: Any) -> str | None:
    """What a table has more of than any recipe needs: levels, or letters in a key."""
    level = [value]
    for _ in range(TABLE_DEPTH):
        tables = [table for table in level if isinstance(table, dict)]
        if any(len(key) > KEY_CHARS for table in tables for key in table):
            return f"a key is over {KEY_CHARS} characters long"
        level = [inner for table in tables for inner in table.values()] + [
            item for items in level if isinstance(items, list) for item in items
        ]
        if not level:
            return None
    return f"lists or tables are nested over {TABLE_DEPTH} deep"


def line_numbers(text: str) -> dict[str, int]:
    """The line of each table and key of a TOML document that parses, by dotted path; inline tables count as one."""
    visible = HIDDEN.sub(lambda found: found[1] or "\n" * found[0].count("\n"), text)
    lines: dict[str, int] = {}
    items: dict[str, int] = {}  # of lists of tables, the number of the last
    table, open_brackets = "", 0
    for number, line in enumerate(visible.split("\n"), 1):
        header = HEADER.fullmatch(line) if not open_brackets else None
        if header:
            table = ""
            keys = split(header["keys"].strip())
            for key in keys[:-1]:
                table = joined(table, key)
                table = joined(table, items[table]) if table in items else table
            table = joined(table, keys[-1])
            if header["array"]:
                items[table] = items.get(table, -1) + 1
                table = joined(table, items[table])
            lines.setdefault(table, number)
            continue
        assignment = ASSIGNMENT.match(line) if not open_brackets else None
        if assignment:
            path = table
            for key in split(assignment["keys"].strip()):
                path = joined(path, key)
            lines.setdefault(path, number)
        rest = ONE_LINE_STRING.sub("", line[assignment.end() :] if assignment else line)
        open_brackets = max(0, open_brackets + rest.count("[") - rest.count("]"))
    return lines


# ---------------------------------------------------------------- merging


def over(below: Any, above: Any) -> Any:
    """Tables are merged, everything else is replaced."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{key: over(below[key], value) if key in below else value for key, value in above.items()}}


def laid_over(below: Layer, above: Layer) -> Layer:
    """Two layers merged, each leaf with the origin of the layer that it is from."""
    values = over(below.values, above.values)
    origins = {
        path: above.origins.get(path) or below.origins.get(path) for path, value in all_leaves(values) if value != {}
    }
    return Layer(values, {path: origin for path, origin in origins.items() if origin})


def all_leaves(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Leaves of all tables."""
    for key, value in values.items():
        yield from leaves(value, joined("", key))


# ---------------------------------------------------------------- files


def bundled_folders() -> list[Path]:
    """Where recipes lie: inside the package in an installation, beside it in a checkout."""
    package = Path(str(resources.files("stackbuild")))
    return [
        folder.resolve() for folder in (package / "data" / "pipelines", package.parent / "pipelines") if folder.is_dir()
    ]


def is_bundled(path: Path) -> bool:
    """Whether a recipe is one that stackbuild brings."""
    return any(path.resolve().is_relative_to(folder) for folder in bundled_folders())


def bundled(name: str) -> Path | None:
    """The recipe of this name that stackbuild brings; `pipelines/x.toml`, `x.toml` and `x` are the same."""
    relative = Path(name.removeprefix("pipelines/"))
    if relative.is_absolute() or ".." in relative.parts:
        return None
    for folder in bundled_folders():
        for candidate in (folder / relative, folder / f"{relative}.toml"):
            if candidate.is_file() and candidate.suffix == ".toml":
                return candidate
    return None


def find(path: str | Path) -> Path:
    """A recipe file, or a recipe that stackbuild brings, by its name; RecipeError names those there are."""
    candidate = Path(path).expanduser()
    if candidate.is_file():
        return candidate
    if brought := bundled(str(path)):
        return brought
    raise RecipeError(
        f"There is no recipe {path}; give a file, or one of those that stackbuild brings: {', '.join(bundled_names())}."
    )


def bundled_names() -> list[str]:
    """The recipes that stackbuild brings."""
    return sorted({path.stem for folder in bundled_folders() for path in folder.glob("*.toml")})


def read(path: Path, base: Path, above: tuple[Path, ...] = ()) -> Layer:
    """A recipe file laid over what it extends. `base`: where relative paths of recipes that stackbuild brings start."""
    resolved = path.resolve()
    if resolved in above or len(above) >= EXTENDS_DEPTH:
        chain = " -> ".join(p.name for p in (*above, resolved))
        raise LayerError(f"{path.name}: `extends` leads back to itself or is over {EXTENDS_DEPTH} deep: {chain}")
    text = contents(path)
    try:
        values = tomllib.loads(text)
    except ValueError as error:  # tomllib's own, and of a number with thousands of digits
        raise LayerError(f"{path.name} is not TOML: {error}") from error
    except RecursionError as error:
        raise LayerError(f"{path.name}: lists or tables are nested over {TABLE_DEPTH} deep") from error
    if excess := beyond(values):
        raise LayerError(f"{path.name}: {excess}")
    parent = values.pop("extends", None)
    lines = line_numbers(text)
    here = Origin(path.name, base if is_bundled(path) else resolved.parent, inherited=bool(above))
    numbered = Layer({}, {p: Origin(here.name, here.folder, line, here.inherited) for p, line in lines.items()})
    layer = Layer(values, {p: numbered.origin(p) or here for p, _ in all_leaves(values)})
    return layer if parent is None else laid_over(read(extended(path, parent, lines), base, (*above, resolved)), layer)


def contents(path: Path) -> str:
    """The text of a recipe file, which is small."""
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_BYTES + 1)
        if len(data) > FILE_BYTES:
            raise LayerError(f"{path.name} is over {FILE_BYTES:,} bytes, too large for a recipe")
        return data.decode("utf-8")
    except OSError as error:
        raise LayerError(f"{path.name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise LayerError(f"{path.name} is not UTF-8 (at line {line}); TOML has to be") from error


def extended(path: Path, parent: Any, lines: Mapping[str, int]) -> Path:
    """The file that `extends` names: beside the recipe, else one that stackbuild brings."""
    where = f"{path.name}:{lines.get('extends', 1)}: extends"
    if not isinstance(parent, str) or not parent or "\0" in parent:
        raise LayerError(f"{where}: give the name of one recipe file")
    beside = path.parent / parent
    brought = bundled(parent)
    # A recipe may have the name of the one it extends.
    if beside.is_file() and not (brought and beside.resolve() == path.resolve() != brought):
        return beside
    if brought is None:
        raise LayerError(f"{where}: there is no {parent!r} beside it; stackbuild brings {', '.join(bundled_names())}")
    return brought


# ---------------------------------------------------------------- --set


def overridden(layer: Layer, text: str) -> Layer:
    """`a.b=c` laid over a layer: c is a TOML value, or a string if it is none; a number picks an item of a list.

    Its relative paths start from the current folder, as everything does that is typed.
    """
    dotted, equals, raw = text.partition("=")
    text = without_credentials(text)
    keys = split(dotted.strip())
    if not equals or not keys:
        raise LayerError(f"--set {text}: write it as key=value, such as near_dedup.threshold=0.8")
    if keys[0] == "extends":
        raise LayerError(f"--set {text}: `extends` can only be set in a file")
    value = typed_value(raw.strip())
    if len(keys) > TABLE_DEPTH or beyond(value):
        raise LayerError(f"--set {dotted.strip()}: {beyond(value) or f'over {TABLE_DEPTH} deep'}")
    try:
        values, path = placed(layer.values, keys, value, "")
    except LookupError as error:
        raise LayerError(f"--set {text}: {error.args[0]}") from error
    origin = Origin("--set", Path.cwd())
    own = {leaf for leaf, _ in leaves(value, path)}
    origins: dict[str, Origin] = {}
    for leaf, found in all_leaves(values):
        if leaf in own or path.startswith((f"{leaf}.", f"{leaf}[")):
            origins[leaf] = origin
        elif leaf in layer.origins and found != {}:
            origins[leaf] = layer.origins[leaf]
    return Layer(values, origins)


def typed_value(raw: str) -> Any:
    """A TOML value as its type; anything else is a string."""
    try:
        table = tomllib.loads(f"value = {raw}")
    except (ValueError, RecursionError):
        return raw
    return table["value"] if len(table) == 1 else raw


def placed(container: Any, keys: list[str], value: Any, path: str) -> tuple[Any, str]:
    """A copy with the value at a path, and the path as it is written; LookupError if a list has no such item."""
    key, rest = keys[0], keys[1:]
    if isinstance(container, list):
        if not key.isdecimal() or int(key) >= len(container):
            raise LookupError(f"{path} is a list of {len(container)}; pick an item by its number, from 0")
        items = list(container)
        items[int(key)], path = (
            placed(items[int(key)], rest, value, joined(path, int(key)))
            if rest
            else (over(items[int(key)], value), joined(path, int(key)))
        )
        return items, path
    table = dict(container) if isinstance(container, dict) else {}
    path = joined(path, key)
    if rest:
        table[key], path = placed(table.get(key), rest, value, path)
    else:
        table[key] = over(table.get(key), value)
    return table, path
