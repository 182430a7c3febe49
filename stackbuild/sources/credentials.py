"""Users, passwords and tokens in addresses: what is shown, planned or said about an address is without them.

An address may be a URL or scp-like (`user@host:path`). A password with "/" in it ends a URL's host too early for every
parser, so what looks like a port is taken for a password if an "@" follows; a query may hold a token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

_USERINFO = re.compile(r"(://)(?:[^/\s@]*(?:@[^/\s@]*)*@|[^/\s:@]*:\S*[^\s/]@)")
_QUERY = re.compile(r"(://[^\s?#'\"]*)[?#][^\s'\"]*")
_SCP_USER = re.compile(r"(?<![^\s/'\"(\[])[^\s@/'\"(\[]+@(?=(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9a-fA-F:]+\]):)")
_SCP_PASSWORD = re.compile(r"(?<![^\s'\"(\[])[^\s@/:'\"(\[]*:(?!//)\S*[^\s/]@(?=[A-Za-z0-9\[])")
LOGIN_CHARS: Final = 7  # of a user without a password; what is longer may be a token


def without_credentials(text: str) -> str:
    """The text with every address in it without user, password, query and fragment."""
    if "@" not in text and "://" not in text:
        return text
    return _SCP_USER.sub("", _SCP_PASSWORD.sub("", _QUERY.sub(r"\1", _USERINFO.sub(r"\1", text))))


def hidden(words: str, address: str) -> str:
    """What a program said of an address, without anything secret that the address holds, also if it stands by itself."""
    for secret in sorted(set(_secrets(address)), key=lambda secret: (-len(secret), secret)):
        words = words.replace(secret, "***")
    return without_credentials(words)


def _secrets(address: str) -> Iterator[str]:
    """Password, token, and the values of a query, as they are written and decoded."""
    found = _USERINFO.search(address) or _SCP_PASSWORD.search(address) or _SCP_USER.search(address)
    user, _, password = found[0].removeprefix("://").removesuffix("@").partition(":") if found else ("", "", "")
    _, _, query = address.partition("?")
    values = [item.partition("=")[2] for item in query.partition("#")[0].split("&")]
    for secret in (password, user if len(user) > LOGIN_CHARS else "", *values):
        if secret:
            yield from (secret, unquote(secret))
