"""Each format of providers.toml: keys made from it are found by its rule alone, and what only resembles them is not.

Keys are drawn here from a seed: no file holds one.
"""

from __future__ import annotations

import random
import re
import string
import zlib
from base64 import b32encode, b64encode
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from stackbuild.errors import InputError
from stackbuild.pii import gate, keys, rules
from stackbuild.pii.detection import Detection, Rules
from stackbuild.pii.formats import Format, Part, parse
from stackbuild.pii.patterns import members
from stackbuild.pii.replacements import known_values
from stackbuild.pii.secrets import BASE62, SecretFinder
from stackbuild.pii.spans import Texts
from tests.pii.test_rules import Counted

BOOK = rules.load()
RULES = Rules(BOOK, ["KEY"])
KEYS = [rule for rule in BOOK.rules if rule.formats]
NAMED = {rule.id for rule in KEYS if rule.name_group}


def field(part: Part, size: int, draw: random.Random) -> str:
    return "".join(draw.choices([chr(byte) for byte in np.flatnonzero(members(part.alphabet))], k=size))


def made(known: Format, draw: random.Random, *, longest: bool = False) -> str:
    """A key of a format."""
    return "".join(part.literal or field(part, part.high if longest else part.low, draw) for part in known.parts)


def genuine(rule: keys.Rule, known: Format, seed: int = 0, *, longest: bool = False) -> str:
    """A key that is like its issuer's: with its checksum, and such as nobody would take for words or a placeholder."""
    for turn in range(200):
        draw = random.Random(f"{rule.id}{seed}{turn}")
        key = made(known, draw, longest=longest)
        if "basic-pair" in rule.checks:
            pair = b64encode(f"app{turn}:{field(Part('', 'A-Za-z0-9', 12, 12), 12, draw)}".encode()).decode()
            key = known.parts[0].literal + pair
        if "discord-id" in rule.checks:
            number = b64encode(b"12349876123498761249"[: 20 if longest else 18]).decode().rstrip("=")
            key = number + key[key.index(".") :]
        if value_of(rule, key) and not rule_says_no(rule, key):
            return key
    raise AssertionError(f"no key of {rule.id} in 200 draws")


def rule_says_no(rule: keys.Rule, key: str) -> bool:
    value, name = value_of(rule, key).encode(), name_of(rule).encode()
    return not SecretFinder(BOOK, known_values(BOOK.ip)).is_secret(rule, value, name)


def value_of(rule: keys.Rule, key: str) -> str:
    """What of a key is secret."""
    for known in rule.formats:
        if found := re.fullmatch(known.pattern("secret"), key):
            return found["secret"]
    return ""


@cache
def keyword(rule_id: str) -> str:
    number = next(k for k, rule in enumerate(BOOK.rules) if rule.id == rule_id)
    return next(anchor.literal.decode() for anchor in BOOK.anchors if anchor.rule == number)


def name_of(rule: keys.Rule) -> str:
    """A name that holds the keyword of a rule and a word for secrets; none for a key that is known by itself."""
    if rule.id not in NAMED:
        return ""
    words = re.findall(r"[a-z0-9_]+", rule.words.pattern.decode())
    word = next((word for word in ("secret", "token", "key", "password") if word in words), words[0])
    return f"{keyword(rule.id)}_{word}"


def contexts(rule: keys.Rule, key: str) -> list[str]:
    """A key in three places of source code."""
    name = name_of(rule) or "x"
    return [f'{name.upper()} = "{key}"\n', f"# settings\n{name}: {key}", f"{{'a': 1, '{name}': '{key}'}}\r\n"]


@cache
def alone(rule_id: str) -> tuple[SecretFinder, gate.Automaton]:
    """The finder and the gate of one rule."""
    number = next(k for k, rule in enumerate(BOOK.rules) if rule.id == rule_id)
    anchors = tuple(replace(anchor, rule=0) for anchor in BOOK.anchors if anchor.rule == number)
    shapes = {shape: 0 for shape, owner in BOOK.shapes.items() if owner == number}
    book = replace(BOOK, rules=(BOOK.rules[number],), anchors=anchors, shapes=shapes)
    return SecretFinder(book, known_values(BOOK.ip)), gate.automaton(anchors)


def found(rule: keys.Rule, text: str) -> list[str]:
    """What a rule finds by itself."""
    finder, built = alone(rule.id)
    texts = Texts.of(pa.array([text], pa.large_string()))
    return [text.encode()[s.start : s.end].decode() for s in finder.find(texts, gate.hits(texts, built))]


@pytest.mark.parametrize("rule", KEYS, ids=lambda rule: rule.id)
def test_keys_of_each_format_are_found(rule: keys.Rule) -> None:
    """Shortest and longest (below 400 bytes) of each format, in three contexts, at the start and at the end of a text."""
    for seed, known in enumerate(rule.formats):
        for longest in (False, True) if known.most < 400 else (False,):
            key = genuine(rule, known, seed, longest=longest)
            for text in contexts(rule, key)[: 1 if longest else 3]:
                assert found(rule, text) == [value_of(rule, key)], (known, text)
            if rule.id not in NAMED:
                assert found(rule, key) == [value_of(rule, key)]


def test_a_webhook_is_found_whatever_host_its_owner_has() -> None:
    """The name of the organization stands right before what all such addresses have in common."""
    uuid = "2dc477ac-10d6-407b-8fe0-08f636037733"
    url = f"https://my-Firm2.webhook.office.com/webhookb2/{uuid}@{uuid}/IncomingWebhook/{'578c86700bf9628f' * 2}/{uuid}"
    (rule,) = (rule for rule in KEYS if rule.id == "teams-webhook")
    assert found(rule, f'teams_url = "{url}"') == [url]


@pytest.mark.parametrize("rule", KEYS, ids=lambda rule: rule.id)
def test_what_resembles_a_key_stays(rule: keys.Rule) -> None:
    """One byte too few or too many, a byte of no alphabet, a placeholder."""
    for seed, known in enumerate(rule.formats):
        key = genuine(rule, known, seed)
        at = sum(part.low or len(part.literal) for part in known.parts[: long_field(known)])
        size = known.parts[long_field(known)].low
        for other in (
            key[:at] + key[at + 1 :],
            key[: at + size // 2] + "\u00a7" + key[at + size // 2 + 1 :],
            key[:at]
            + ("x" if "x" in letters(known) else "7" if "7" in letters(known) else "A") * size
            + key[at + size :],
        ):
            for text in contexts(rule, other):
                for value in found(rule, text):  # a key of another format of this rule may be left
                    assert any(re.fullmatch(one.pattern("secret"), value) for one in rule.formats if one != known), text


def long_field(known: Format) -> int:
    return max(range(len(known.parts)), key=lambda number: known.parts[number].low)


def letters(known: Format) -> str:
    return "".join(chr(byte) for byte in np.flatnonzero(members(known.parts[long_field(known)].alphabet)))


@pytest.mark.parametrize("rule", [rule for rule in KEYS if rule.id in NAMED], ids=lambda rule: rule.id)
def test_a_name_says_whose_key_it_is(rule: keys.Rule) -> None:
    """Without the keyword, or without a word for secrets, the same value says nothing."""
    key = genuine(rule, rule.formats[0])
    words = rule.words.pattern.decode()
    assert found(rule, f'{name_of(rule)} = "{key}"')
    assert not found(rule, f'other_secret = "{key}"')
    if not re.search(words, keyword(rule.id).lower()):
        assert not found(rule, f'{keyword(rule.id)}_thing = "{key}"')
    assert not found(rule, f'{name_of(rule)}_sha256_digest = "{key}"')


def test_there_are_formats_of_many_providers() -> None:
    assert len({rule.provider for rule in KEYS}) >= 250 and all(rule.provider for rule in KEYS)
    assert len(KEYS) >= 350


def test_keywords_that_must_be_words() -> None:
    """`whole`: "sumo" is no part of "consumo"."""
    rule = next(rule for rule in KEYS if rule.id == "sumologic-key")
    key = genuine(rule, rule.formats[0])
    assert found(rule, f'SUMO_KEY = "{key}"') and found(rule, f'sumoKey = "{key}"')
    assert not found(rule, f'consumo_key = "{key}"') and not found(rule, f'sumoner_key = "{key}"')


def test_an_aws_key_id_holds_an_account() -> None:
    """A twelve-digit number in the 40 bits behind the first, if the id was made since 2019."""
    draw = random.Random(5)

    def key(account: int) -> str:
        return "AKIA" + b32encode((1 << 79 | account << 39 | draw.getrandbits(39)).to_bytes(10)).decode()

    rule = next(rule for rule in KEYS if rule.id == "aws-access-key-id")
    assert all(found(rule, key(draw.randrange(10**12))) for _ in range(20))
    assert not any(found(rule, key(draw.randrange(10**12, 1 << 40))) for _ in range(20))


@pytest.mark.parametrize(
    ("name", "prefix"), [("github-token", "ghp_"), ("npm-token", "npm_"), ("netbird-token", "nbp_")]
)
def test_a_checksum_outweighs_a_placeholder(name: str, prefix: str) -> None:
    rule = next(rule for rule in KEYS if rule.id == name)
    body = "sample" + "".join(random.Random(4).choices(string.ascii_letters + string.digits, k=24))
    crc, digits = zlib.crc32(body.encode()), ""
    while crc:
        crc, digit = divmod(crc, 62)
        digits = BASE62[digit] + digits
    assert found(rule, prefix + body + digits.rjust(6, "0"))
    assert not found(rule, prefix + body + "AAAAAA")


@pytest.mark.parametrize("before", ["\\n", "\\t", "%3D", '\\"', "=", "(", "//", "x=\\r"])
def test_an_escape_before_a_key_is_no_part_of_it(before: str) -> None:
    rule = next(rule for rule in KEYS if rule.id == "github-token")
    key = genuine(rule, rule.formats[0])
    assert found(rule, f"{before}{key}") == [key]
    assert not found(rule, f"a{key}") and not found(rule, f"\\a{key}")


HOSTILE = sorted(
    {anchor.literal.decode() for anchor in BOOK.anchors if BOOK.rules[anchor.rule].formats}
    | {anchor.literal.decode().upper() + '="' for anchor in BOOK.anchors if anchor.within}
)


@pytest.mark.parametrize("start", range(0, len(HOSTILE), 40))
def test_a_rule_s_own_prefix_repeated_is_linear_work(start: int) -> None:
    """Bytes that rules read of a text of one prefix or keyword: at most 64 for each byte, and four times for four times."""
    detection = Detection({"rules": RULES})
    for unit in HOSTILE[start : start + 40]:
        work = []
        for size in (2_000, 8_000):
            Counted.total = 0
            detection.spans(Counted.of(pa.array([unit * (size // len(unit))], pa.large_string())))
            work.append(Counted.total)
        assert work[1] <= 4.4 * work[0] + 20_000 and work[1] <= 64 * 8_000, unit


@pytest.mark.slow
def test_a_rule_s_own_key_repeated_is_linear_work() -> None:
    """The same of texts full of keys, which all match."""
    detection = Detection({"rules": RULES})
    for rule in KEYS:
        unit = contexts(rule, genuine(rule, rule.formats[0]))[0].replace("\n", " ")
        work = []
        for size in (2_000, 8_000):
            Counted.total = 0
            detection.spans(Counted.of(pa.array([unit * (size // len(unit))], pa.large_string())))
            work.append(Counted.total)
        assert work[1] <= 4.4 * work[0] + 40_000 and work[1] <= 64 * 8_000, rule.id


# ---------------------------------------------------------------- the notation, and files of it

ALPHABETS = {"hex": "0-9a-f", "hexany": "0-9A-Fa-f", "alnum": "A-Za-z0-9"}


def test_a_format_is_read() -> None:
    known = parse("key_(<hex 32-40>)_<uuid>.", ALPHABETS)
    assert known.pattern("s").replace("\\", "") == (
        "key_(?P<s>[0-9a-f]{32,40})_[0-9A-Fa-f]{8,8}-[0-9A-Fa-f]{4,4}-[0-9A-Fa-f]{4,4}-[0-9A-Fa-f]{4,4}-[0-9A-Fa-f]{12,12}."
    )
    assert known.prefix == "key_" and known.secret == (1, 2) and known.most == 4 + 40 + 1 + 36 + 1
    assert known.floor() == 3.0


def test_the_gate_looks_for_the_longest_literal() -> None:
    place = parse("<alnum 14>.atlasv1.<alnum 60-70>", ALPHABETS).place()
    assert (place.literal, place.before, place.field.low) == (".atlasv1.", 14, 60)
    assert parse("AAAAAAAAAA<hex 4>:ab", ALPHABETS).place().literal == ":ab"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("abc", "no field"),
        ("<hex 32", "no format"),
        ("<nonesuch 3>", "unknown alphabet"),
        ("<hex 9-3>", "lengths"),
        ("<hex 5000>", "lengths"),
        ("<hex>", "lengths"),
        ("(<hex 3>", "no format"),
        ("", "no format"),
        ("\u00e9<hex 3>", "no format"),
    ],
)
def test_a_bad_format_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(text, ALPHABETS)


OWN = """
format = 1
version = "mine"
[[key]]
id = "mine"
provider = "Mine"
formats = ["mine_<alnum 20>"]
source = "Mine: documentation"
"""


def test_a_user_s_file_is_used_beside_the_rules(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(OWN)
    book = rules.with_file(tmp_path / "own.toml")
    assert [rule.id for rule in book.rules] == [*(rule.id for rule in BOOK.rules), "mine"]
    assert book.digest != BOOK.digest and book.version == "mine"
    key = "mine_" + "".join(random.Random(2).choices(string.ascii_letters + string.digits, k=20))
    texts = Texts.of(pa.array([f"k = {key}; AKIA2345ABCDWXYZLMNO"], pa.large_string()))
    assert {span.rule for span in Rules(book, ["KEY"]).find(texts)} == {"mine"} | {
        span.rule for span in RULES.find(texts)
    }


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"mine_<alnum 20>"', '"<alnum 20>"', "mine: a format without a literal needs keywords"),
        ('"mine_<alnum 20>"', '""', r"mine: formats\[0\]: .* at least 1 character"),
        ('id = "mine"', 'id = "jwt"', "two rules are called jwt"),
        ('source = "Mine: documentation"', "", "mine: source is missing"),
        ('source = "Mine: documentation"', 'source = ""', r"mine: source: .* at least 1 character"),
        ("source =", 'shape = "dotted"\nsource =', "mine: its shape belongs to another rule"),
        ("source =", 'checks = ["magic"]\nsource =', r"mine: checks\[0\]: "),
        ("source =", "lenght = 3\nsource =", "mine: unknown field lenght"),
        ("[[key]]", "[secrets]\n[[key]]", "unknown field secrets"),
        ("format = 1", "format = 2", "this version reads format 1"),
        ("[[key]]", "key = 3\n[other", "own.toml cannot be used"),
        ('version = "', 'key = [3]\nversion = "', "cannot be used"),
        ('id = "mine"', "id = 3", "entry 1: id: "),
        ('formats = ["mine_<alnum 20>"]', 'formats = "mine_<alnum 20>"', "mine: formats: "),
        ('formats = ["mine_<alnum 20>"]', "formats = []", "mine: formats: .* at least 1 item"),
        ("source =", 'stop = "abc"\nsource =', "mine: stop: "),
        ("source =", 'stop = [""]\nsource =', r"mine: stop\[0\]: "),
        ("source =", 'keywords = "abc"\nsource =', "mine: keywords: "),
        ("source =", "keywords = []\nsource =", "mine: keywords: "),
        ("source =", 'keywords = ["\u00e9"]\nsource =', r"mine: keywords\[0\]: "),
        ("source =", 'words = ["a"]\nsource =', "mine: whole and words"),
        ("source =", "entropy = nan\nsource =", "mine: entropy: "),
        ("source =", "entropy = inf\nsource =", "mine: entropy: "),
        ("source =", "entropy = -1\nsource =", "mine: entropy: "),
        ("source =", "entropy = true\nsource =", "mine: entropy: "),
        ("source =", 'repeats = "no"\nsource =', "mine: repeats: "),
        ("source =", 'edge_after = "z-a"\nsource =', "mine: edge_after: no class of bytes"),
        ("source =", 'edge_after = "a]|[b"\nsource =', "mine: edge_after: it is a class"),
        ("format = 1", "format = 1\nalphabets = {odd = 3}", "alphabets.odd: "),
        ("format = 1", 'format = 1\nalphabets = {odd = "a]"}', "alphabets.odd: it is a class"),
        ("mine_<alnum 20>", "mine_<alnum 2000>", "mine: <alnum 2000"),
        ("mine_<alnum 20>", f"mine_<alnum {'9' * 5000}>", "mine: "),
    ],
)
def test_a_bad_own_file_is_refused_with_its_reason(tmp_path: Path, old: str, new: str, why: str) -> None:
    assert old in OWN
    (tmp_path / "own.toml").write_text(OWN.replace(old, new, 1))
    with pytest.raises(InputError, match=why):
        rules.with_file(tmp_path / "own.toml")


PATTERN = """format = 1
version = "1"
[[pattern]]
id = "mine"
source = "Mine: documentation"
anchors = ["acme"]
pattern = 'acme(?P<secret>[0-9]{20})'
reach = 40
"""


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("reach = 40", 'reach = "40"', "mine: reach: "),
        ("reach = 40", "reach = -1", "mine: reach: "),
        ("reach = 40", "reach = 1_000_000", "mine: reach: "),  # the work for each anchor is bounded
        ("reach = 40", "", "mine: it has no pattern, or no reach"),
        ("reach = 40", "reach = 40\nwithin = -1", "mine: within: "),
        ("reach = 40", "reach = 40\nrun = 1.5", "mine: run: "),
        ("reach = 40", "reach = 40\nbefore = 99999999999999999999", "mine: before: "),
        ('["acme"]', '"acme"', "mine: anchors: "),
        ('["acme"]', '[""]', r"mine: anchors\[0\]: "),
        ('["acme"]', "[]", "mine: no anchors"),
        ("'acme(?P<secret>[0-9]{20})'", "'(?P<secret>[0-9]{0,20})'", "mine: the pattern matches where nothing stands"),
        ("'acme(?P<secret>[0-9]{20})'", "'acme(?P<secret>(?:[0-9]{900}a){999})'", "mine: RE2 cannot compile"),
        ("reach = 40", 'reach = 40\nshape = "odd"', "mine: shape: "),
        ("reach = 40", 'reach = 40\nalphabet = "odd"', "mine: 'odd' is missing or unknown"),
    ],
)
def test_a_bad_pattern_of_one_s_own_is_refused_with_its_reason(tmp_path: Path, old: str, new: str, why: str) -> None:
    assert old in PATTERN
    (tmp_path / "own.toml").write_text(PATTERN)
    assert rules.with_file(tmp_path / "own.toml").rules[-1].reach == 40
    (tmp_path / "own.toml").write_text(PATTERN.replace(old, new, 1))
    with pytest.raises(InputError, match=f"own.toml cannot be used: {why}"):
        rules.with_file(tmp_path / "own.toml")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml cannot be read"):
        rules.with_file(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\x00\xfe")
    with pytest.raises(InputError, match=r"binary\.toml cannot be used"):
        rules.with_file(tmp_path / "binary.toml")
