"""The profile `compat` accepts what the published expressions and detect-secrets accept: both are run, slowly, beside it."""

from __future__ import annotations

import io
import random
import string

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stackbuild.pii import compat_addresses as ours

# As starcoder1 2.2 tells them, for the `regex` module, with look-arounds: slow on purpose.
HAN = r"\p{Han}"
LEFT = rf"""(?:(?<=[\[({{<\s@,?!;:'".¡¿{HAN}])|(?<=\\['"])|^)"""
RIGHT = rf"""(?:$|(?=[\])}}>\s@,?!;'"{HAN}])|(?=\\['"])|(?=:(?!\d))|(?=\.(?!\S)))"""
LOCAL = r"""(?:[^\[\](){}<>\s@,?!;'":#/\\=.\-]|[=.\-](?![.@]))+"""
CHARACTER = r"[^.\s@?!;,/()>]"
LABEL = rf"""(?:\w|(?![\-:]){CHARACTER}{{1,63}}(?![\-:'"]){CHARACTER})"""
EMAIL = regex.compile(
    rf"{LEFT}({LOCAL}@(?:{LABEL}\.){{1,10}}(?:[\p{{L}}\p{{M}}]{{2,63}}|xn--[A-Za-z0-9-]{{1,59}})){RIGHT}", regex.M
)
OCTET = r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)"
V4 = rf"{OCTET}(?:\.{OCTET}){{3}}"
H = "[0-9a-fA-F]{1,4}"
V6 = (
    rf"(?:{H}:){{7}}{H}|(?:{H}:){{1,7}}:|(?:{H}:){{1,6}}:{H}|(?:{H}:){{1,5}}(?::{H}){{1,2}}|(?:{H}:){{1,4}}(?::{H}){{1,3}}"
    rf"|(?:{H}:){{1,3}}(?::{H}){{1,4}}|(?:{H}:){{1,2}}(?::{H}){{1,5}}|{H}:(?:(?::{H}){{1,6}})|:(?:(?::{H}){{1,7}}|:)"
    rf"|fe80:(?::[0-9a-fA-F]{{0,4}}){{0,4}}%[0-9a-zA-Z]+|::(?:ffff(?::0{{1,4}})?:)?{V4}|(?:{H}:){{1,4}}:{V4}"
)
IP = regex.compile(rf"{LEFT}({V4}|{V6}){RIGHT}", regex.M)

PIECES = [
    *"abZ019_@@@@...:::-=+/\\'\"([{<)]}>,;?!#% \n\r\t\0¡¿é漢字\u0301\u0a66\u00a0\u2028\x1c\x85",
    "jo@firm.com", "bo.x@mail.firm.co.uk", "a=b@c.de", "x@1.2.com", "xn--p1ai", "a" * 63, "com", "firm.", ".com",
    "84.23.112.9", "1.2.3.4", "256.1.1.1", "01.2.3.4", "10.0.0.1", "2a02:1234::1", "::1", "::", "fe80::1%eth0", "::ffff:1.2.3.4",
    "1:2:3:4:5:6:7:8", "dns", "server ", "fe80:", "12.12.1999", "b" * 64 + ".", "c" * 65 + ".de",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


def in_bytes(text: str, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(len(text[:start].encode()), len(text[:end].encode())) for start, end in spans]


@settings(max_examples=600, deadline=None)
@given(TEXTS)
@example("a@b.cd:e@f.gh")
@example("." * 12 + "jo@" + "a." * 12 + "de")
@example("jo@firm.com漢字.x")
@example("'jo@x.firm.com\\'")
def test_emails_are_those_of_the_published_expression(text: str) -> None:
    expected = in_bytes(text, [match.span(1) for match in EMAIL.finditer(text)])
    assert list(ours.emails(text.encode())) == expected


@settings(max_examples=600, deadline=None)
@given(TEXTS)
@example("1.2.3.4 5.6.7.8")
@example("x:1::2::3:4:")
@example("fe80:::1%a.")
def test_addresses_are_those_of_the_published_expression(text: str) -> None:
    expected = in_bytes(text, [match.span(1) for match in IP.finditer(text)])
    assert list(ours.shapes(text.encode())) == expected


# ---------------------------------------------------------------- keys

detect_secrets = pytest.importorskip("detect_secrets", reason="detect-secrets is of the extra pii")
from detect_secrets.filters import heuristic  # noqa: E402
from detect_secrets.settings import transient_settings  # noqa: E402

from stackbuild.pii.compat_keys import PLUGINS, KeyFinder, expressions  # noqa: E402
from stackbuild.pii.gibberish import model  # noqa: E402


def drawn(alphabet: str, length: int, seed: int) -> str:
    return "".join(random.Random(seed).choices(alphabet, k=length))


ALNUM, HEX, LOWER = string.ascii_letters + string.digits, "0123456789abcdef", string.ascii_lowercase + string.digits
TOKENS = [
    "AKIA" + drawn(string.ascii_uppercase, 16, 1), drawn(ALNUM + "/+", 40, 2), "AccountKey=" + drawn(ALNUM, 86, 3) + "==",
    drawn(HEX, 64, 4), drawn(string.ascii_lowercase, 24, 5),
    ".".join(("M" + drawn(ALNUM, 23, 6), drawn(ALNUM, 6, 7), drawn(ALNUM, 27, 8))),
    drawn(ALNUM, 44, 9), drawn(HEX, 48, 10), "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0." + drawn(ALNUM, 43, 11), drawn(LOWER, 32, 12) + "-us12",
    "//registry/:_authToken=npm_" + drawn(ALNUM, 20, 13), "SG." + drawn(ALNUM, 22, 14) + "." + drawn(ALNUM, 43, 15),
    "xox" + "b-123456-" + drawn(LOWER, 20, 16), "https://hooks.slack.com/services/T" + drawn(ALNUM, 8, 17) + "/B12/" + drawn(ALNUM, 12, 18),
    drawn(LOWER, 64, 19), "sk_" + "live_" + drawn(ALNUM, 24, 20), "AC" + drawn(LOWER, 32, 21), "AKC" + drawn(ALNUM, 12, 22),
    "APA" + drawn(ALNUM, 12, 23), drawn(ALNUM, 36, 24), "123e4567-e89b-12d3-a456-426614174000", "0123456789abcdef", "ABCDEFGHIJKLMNOP",
]  # fmt: skip
WORDS = [
    "aws_key", "aws", "secret", " key ", "ibm_cloud_iam_api_key", "cloudant_key", "cl_pwd", "softlayer_api_key", "sl-token", "iam",
    "cos_hmac_secret_access_key", "secret_key", "https://acc:", "@acc.cloudant.com", "https://api.softlayer.com/soap/v3/",
    "_id", "id", "userid: ", "sha", "md5 ", "=", " = ", ":", "::", ":=", "=>", "  ", '"', "'", "[", "]", "-", "_", ".", "{", "}", "<",
    "\n", "\r", "\r\n", "\t", "é", "\u2028", "\x1c", "x", "npm_",
]  # fmt: skip
LINES = st.lists(st.sampled_from(TOKENS + WORDS + WORDS), max_size=16).map("".join)


def published(text: str) -> set[tuple[int, str, str]]:
    """(line, plug-in, value) by detect-secrets itself."""
    filters = ("is_potential_uuid", "is_likely_id_string", "is_templated_secret", "is_sequential_string")
    names = [name for names in PLUGINS.values() for name in names.split()]
    found = set()
    config = {
        "plugins_used": [{"name": name} for name in names],
        "filters_used": [{"path": f"detect_secrets.filters.heuristic.{name}"} for name in filters],
    }
    with transient_settings(config):
        for number, line in enumerate(io.StringIO(text, newline=None)):
            for plugin in {id(one.plugin): one.plugin for one in expressions()}.values():
                for secret in plugin.analyze_line(filename="", line=line.rstrip(), line_number=number):
                    value = secret.secret_value
                    if (
                        heuristic.is_potential_uuid(value)
                        or heuristic.is_likely_id_string(value, line.rstrip(), plugin)
                        or heuristic.is_templated_secret(value)
                        or heuristic.is_sequential_string(value)
                    ):
                        continue
                    if type(plugin).__name__ == "ArtifactoryDetector":
                        value = regex.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9]+$", "", value)
                    found.add((number, type(plugin).__name__, value))
    return found


@settings(max_examples=250, deadline=None)
@given(LINES)
@example("token = " + TOKENS[6] + "_")
@example("xkey=" + TOKENS[6] + " key=" + TOKENS[6])
def test_keys_are_those_of_detect_secrets(text: str) -> None:
    lines = text.encode().replace(b"\r", b"\n")
    breaks = [match.end() for match in regex.finditer(b"\r\n|\r|\n", text.encode())]
    finder = KeyFinder(model())
    found = {
        (sum(at <= start for at in breaks), type(plugin).__name__, lines[start:end].decode())
        for start, end, plugin in finder.candidates(lines)
    }
    expected = published(text)
    github = {one for one in found if one[1] == "GitHubTokenDetector"}
    assert found - github == {one for one in expected if one[1] != "GitHubTokenDetector"}


def test_every_plug_in_finds_its_key() -> None:
    """So that the comparison above compares something."""
    text = "".join(f'x = "{token}"\n' for token in [*TOKENS, "ghp_" + drawn(ALNUM, 36, 30)])
    text += f"cloudant_key={TOKENS[4]}\nkey={TOKENS[6]}\nsecret_key={TOKENS[7]}\nsoftlayer_key={TOKENS[14]}\naws_key '{TOKENS[1]}'\n"
    found = {type(plugin).__name__ for _, _, plugin in KeyFinder(model()).candidates(text.encode())}
    assert found == {name for names in PLUGINS.values() for name in names.split()}
