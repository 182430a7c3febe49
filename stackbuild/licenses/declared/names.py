"""What licences are called: names, classifiers and URLs, reduced so that two ways to write one name are one key.

The tables are `licenses/names.toml` (ours) and `licenses/scancode-names.json` (names and URLs of ScanCode's licences,
made by `stackbuild.licenses.declared.generate`). Where both know a name, ours stands. A name that ScanCode has for two
licences is in neither.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Any

from stackbuild.licenses.lists import data_path, read_toml, scancode_licenses
from stackbuild.licenses.spdx import exception_key, license_key, parse

_QUOTES = str.maketrans(dict.fromkeys("\u2018\u2019\u201c\u201d`\u00b4\"'", " "))
_V_NUMBER = re.compile(r"([a-z])v([0-9])")
_AT_LEAST = re.compile(r"[>≥]=?\s*v?([0-9][0-9.]*)")
_WORD = re.compile(r"[^\W\d_]+|[0-9]+(?:\.[0-9]+)*|\+")
_DROPPED_WORDS = "the license licence licenses licences licensed licensing lic only international unported generic"
_DROPPED = frozenset((*_DROPPED_WORDS.split(), "version", "versions", "v", "ver", "rev"))
_LATER = re.compile(
    r"(?:\bor (?:at your option )?(?:any )?(?:later|newer|greater|above|higher|up)\b"
    r"|\band (?:any )?(?:later|newer|above|higher|up)\b)"
)
_PAGE = re.compile(r"(?:\.(?:en|html?|php|txt|md|json|rdf|xml|aspx?)){1,4}\Z")
_SCHEME = re.compile(r"(?:https?:)?//(?:www\.)?|www\.")
_CC_URL = re.compile(r"creativecommons\.org/licenses/([a-z-]+)/([0-9.]+)(?:/([a-z]{2,3}))?(?:/(?:legalcode|deed).*)?\Z")
_ID_URL = re.compile(
    r"(?:spdx\.org/licenses|opensource\.org/licenses?|choosealicense\.com/licenses|api\.github\.com/licenses"
    r"|tldrlegal\.com/license)/([a-z0-9.+-]+)\Z"
)
_SLUG_NUMBER = re.compile(r"(?<=[0-9])-(?=[0-9](?:-|\Z))")


def reduce_name(name: str) -> str:
    """The key of a name: its telling words in lower case, versions without ".0", "+" for "or later"."""
    text = unicodedata.normalize("NFKC", name).lower().translate(_QUOTES)
    text = _AT_LEAST.sub(r"\1 +", _V_NUMBER.sub(r"\1 \2", text))
    words = [_without_zeros(word) for word in _WORD.findall(text)]
    text = _LATER.sub("+", " ".join(word for word in words if word not in _DROPPED))
    return " ".join(text.split())


def _without_zeros(version: str) -> str:
    parts = version.split(".")
    while len(parts) > 1 and not parts[-1].strip("0"):
        parts.pop()
    return ".".join(parts)


def reduce_url(url: str) -> str:
    """The key of a URL: without scheme, "www.", query, closing slash and the extension of a page, in lower case."""
    text = _SCHEME.sub("", url.strip().strip("<>").lower(), count=1)
    text = re.split(r"[?#]", text, maxsplit=1)[0]
    return _PAGE.sub("", text.rstrip("/"))


@dataclass(frozen=True)
class Tables:
    """Reduced names, whole classifiers, reduced URLs and exceptions, each with its canonical expression. `ours`: the
    names that are in our own table. `debian`: DEP-5 short names in lower case.
    """

    names: dict[str, str]
    ours: frozenset[str]
    classifiers: dict[str, str]
    urls: dict[str, str]
    exceptions: dict[str, str]
    debian: dict[str, str]


@cache
def tables() -> Tables:
    """The tables of the licence data."""
    own = read_toml(data_path("names.toml"))
    scancode = json.loads(data_path("scancode-names.json").read_bytes())
    ours = dict(_family_names(own["family"]))
    ours |= {reduce_name(name): expression for expression, names in own["names"].items() for name in names}
    ids: dict[str, str] = {}
    for key in scancode_licenses().classes:
        if license_key(key) == key and not key.startswith("LicenseRef-"):
            ids[reduce_name(key)] = "" if reduce_name(key) in ids else key
    names = {name: expression for name, expression in (scancode["names"] | ids | ours).items() if expression}
    return Tables(
        names,
        frozenset(ours),
        own["classifiers"],
        scancode["urls"] | own["urls"],
        own["exceptions"],
        {name.lower(): expression for name, expression in own["debian"].items()},
    )


def _family_names(families: list[dict[str, Any]]) -> list[tuple[str, str]]:
    found = []
    for family in families:
        later = family.get("later", False)
        for name in family["names"]:
            key = reduce_name(name)
            if "bare" in family:
                found += [(key, family["bare"]), (f"{key} +", family["bare"])]
            for version, expression in family["versions"].items():
                found.append((f"{key} {version}", f"{expression}-only" if later else expression))
                found.append((f"{key} {version} +", f"{expression}-or-later" if later else expression))
    return found


def by_name(name: str) -> str | None:
    """The licence of a name; None if it is in no table."""
    return tables().names.get(reduce_name(name))


def by_url(url: str) -> str | None:
    """The licence that a URL stands for; None if it is no known one."""
    key = reduce_url(url)
    if found := tables().urls.get(key):
        return found
    if match := _CC_URL.match(key):
        parts = [part for part in match.groups() if part]
        return license_key("-".join(["CC", *parts]))
    if key.startswith("creativecommons.org/publicdomain/zero/1.0"):
        return "CC0-1.0"
    if match := _ID_URL.match(key):
        slug = match[1]
        return license_key(slug) or license_key(_SLUG_NUMBER.sub(".", slug)) or by_name(_SLUG_NUMBER.sub(".", slug))
    return None


def by_classifier(classifier: str) -> str | None:
    """The licence of a trove classifier "License :: ..."; None if it names none."""
    text = " ".join(classifier.split())
    known = tables().classifiers
    if text in known:
        return known[text] or None
    name = text.rsplit("::", 1)[-1].strip()
    outside, _, inside = name.partition("(")
    found = [by_name(part) for part in (name, outside, inside.rstrip(")")) if part]
    return next((one for one in found if one), None)


def by_exception(name: str) -> str | None:
    """The canonical key of an exception as it is called after "with"; None if it is not known."""
    plain = re.sub(r"[\s_-]+", " ", name.lower()).strip()
    plain = plain.removesuffix(" exceptions").removesuffix(" exception").strip()
    found = tables().exceptions.get(plain)
    if found is None:
        joined = "-".join(name.split())
        found = exception_key(joined) or exception_key(f"{joined}-exception")
    return found


def is_expression(expression: str) -> bool:
    """Whether an expression is canonical already."""
    return parse(expression) == expression
