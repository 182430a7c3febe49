"""Make the table of names and URLs of ScanCode's licences, to be frozen in the repository.

    python -m stackbuild.licenses.declared.generate > licenses/scancode-names.json

A name or URL that stands for two licences, is a single word and no identifier, or is that of an exception or of an
unknown licence, is left out; so is a URL that does not look like one of a licence (a project's home page).
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from importlib import metadata

from stackbuild.licenses.declared.names import reduce_name, reduce_url

ORIGIN = "licence data of scancode-toolkit (nexB Inc. and others), CC-BY-4.0: names and URLs that stand for one licence"
_OF_A_LICENSE = re.compile(r"licen[cs]|copying|copyright|legal|eula|terms|opensource\.org|gpl|mpl|creativecommons")


def names_json() -> str:
    """The content of scancode-names.json for the installed ScanCode."""
    from licensedcode.cache import get_licenses_db

    names: dict[str, set[str]] = defaultdict(set)
    urls: dict[str, set[str]] = defaultdict(set)
    for one in get_licenses_db().values():
        key = one.spdx_license_key
        if one.is_deprecated or not key or one.is_exception or one.is_unknown or one.is_generic:
            continue
        for name in (one.name, one.short_name):
            if len(reduced := reduce_name(name or "").split()) > 1 or name == key:
                names[" ".join(reduced)].add(key)
        for url in (*(one.text_urls or ()), one.osi_url, *(one.other_urls or ())):
            reduced_url = reduce_url(url or "")
            if "/" in reduced_url and _OF_A_LICENSE.search(reduced_url):
                urls[reduced_url].add(key)
    body = {"origin": ORIGIN, "version": metadata.version("scancode-toolkit-mini")}
    tables = {
        title: {name: min(keys) for name, keys in sorted(table.items()) if len(keys) == 1}
        for title, table in (("names", names), ("urls", urls))
    }
    return json.dumps({**body, **tables}, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(names_json())
