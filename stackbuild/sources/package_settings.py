"""What pip knows of package indexes: URLs, credentials, certificates, proxy, timeout.

Asked of this interpreter's pip by its `config list` (files and PIP_* variables, in pip's order of precedence); the
index that pip uses without any configuration is read from pip too. No host stands in this project.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from stackbuild.errors import InputError

PIP_TIMEOUT: Final = 15.0  # pip's own default, in seconds


@dataclass(frozen=True)
class PipSettings:
    """Index URLs without credentials, in pip's order; `credentials`: by host and port."""

    indexes: tuple[str, ...]
    credentials: Mapping[str, str] = field(default_factory=dict)
    cert: str | None = None
    client_cert: str | None = None
    proxy: str | None = None
    timeout: float = PIP_TIMEOUT


def pip_settings() -> PipSettings:
    """Ask this interpreter's pip, once for an environment (it takes half a second); InputError if it has no index."""
    return _settings(tuple(sorted(item for item in os.environ.items() if item[0].startswith("PIP_"))))


@lru_cache(maxsize=8)
def _settings(environment: tuple[tuple[str, str], ...]) -> PipSettings:
    options = _pip_options(_ask_pip("-m", "pip", "--disable-pip-version-check", "config", "list"))
    urls: list[str] = []
    if options.get("no-index", "").lower() not in ("1", "true", "yes", "y", "on", "t"):
        default = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
        urls = [
            options.get("index-url") or _ask_pip("-c", default).strip(),
            *options.get("extra-index-url", "").split(),
        ]
    if not any(urls):
        raise InputError(
            "pip has no package index (no-index is set); set one with `pip config set global.index-url URL`."
        )
    credentials: dict[str, str] = {}
    indexes = []
    for url in dict.fromkeys(url for url in urls if url):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https", "file"):
            raise InputError(f"pip's index {without_userinfo(url)!r} is neither http, https nor file.")
        if "@" in parts.netloc:
            credentials[host_of(url)] = urllib.parse.unquote(parts.netloc.rpartition("@")[0])
        indexes.append(without_userinfo(url).rstrip("/"))
    timeout = options.get("timeout") or options.get("default-timeout") or str(PIP_TIMEOUT)
    try:
        seconds = float(timeout)
    except ValueError:
        raise InputError(f"pip's timeout {timeout!r} is not a number of seconds.") from None
    return PipSettings(
        tuple(indexes), credentials, options.get("cert"), options.get("client-cert"), options.get("proxy"), seconds
    )


def _ask_pip(*arguments: str) -> str:
    run = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=120)
    if run.returncode:
        reason = run.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise InputError(
            f"pip cannot say which package index is configured: {reason[0]}. Install pip beside stackbuild."
        )
    return run.stdout


def _pip_options(listing: str) -> dict[str, str]:
    """`section.option='value'` lines; pip's order of precedence: global, the command's section, the environment."""
    ranks = {"global": 0, "download": 1, ":env:": 2}
    found: dict[str, tuple[int, str]] = {}
    for line in listing.splitlines():
        name, equals, value = line.partition("=")
        section, dot, option = name.partition(".")
        if not (equals and dot and section in ranks):
            continue
        try:
            text = str(ast.literal_eval(value))
        except (ValueError, SyntaxError):
            continue
        if option not in found or ranks[section] >= found[option][0]:
            found[option] = ranks[section], text
    return {option: text for option, (_, text) in found.items()}


def without_userinfo(url: str) -> str:
    """The URL without user and password."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def host_of(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc.rpartition("@")[2].lower()
