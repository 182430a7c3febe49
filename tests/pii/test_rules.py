"""The rules as data: each compiles in RE2, none can be made slow, and a bad file is refused with its reason."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from stackbuild.errors import InputError
from stackbuild.pii import gate, rules, scorer
from stackbuild.pii.detection import Detection, Rules
from stackbuild.pii.options import PiiOptions
from stackbuild.pii.patterns import compiled, members
from stackbuild.pii.spans import Texts
from stackbuild.pii.stage import Pii

BOOK = rules.load()
RULES = Rules(BOOK, ["EMAIL", "IP_ADDRESS", "KEY"])
DETECTION = Detection({"rules": RULES})


def test_every_rule_is_whole() -> None:
    assert len({rule.id for rule in BOOK.rules}) == len(BOOK.rules) >= 300
    for rule in BOOK.rules:
        assert rule.shape == "pem" or (rule.reach > 0 and rule.groups)
    used = {anchor.rule for anchor in BOOK.anchors} | set(BOOK.shapes.values())
    assert used == set(range(len(BOOK.rules)))


@pytest.mark.parametrize("pattern", [r"[\b]x", r"[a\b]+@", "(a+)+", "(?:a*)*", ".*x", "é"])
def test_lint_refuses_what_is_quietly_wrong(pattern: str) -> None:
    """D8: a word boundary inside brackets is a backspace."""
    with pytest.raises(ValueError, match=r"RE2|repeats|boundary|ASCII"):
        compiled(pattern)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("format = 1", "format = 9", "format 9"),
        ('id = "jwt"', 'id = "npm-token"', "two rules"),
        ("(?P<secret>eyJ", "(eyJ", "jwt: the pattern has no group"),
        ('alphabet = "literal"', 'alphabet = "nonesuch"', "assigned-secret: 'nonesuch' is missing or unknown"),
        ("bounded = true", "bound = true", "jwt: unknown field bound"),
        ("[secrets]", "[secrets", "cannot be used"),
        ("[secrets]", "[other]", "'secrets' is missing"),
    ],
)
def test_a_bad_file_is_refused_with_its_reason(tmp_path: Path, old: str, new: str, why: str) -> None:
    text = rules.RULES_FILE.read_text()
    assert old in text
    (tmp_path / "rules.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=why):
        rules.load(tmp_path / "rules.toml")


def test_the_rules_are_in_the_stage_s_key() -> None:
    assert Pii().key() == {"rules": {"rules": BOOK.digest, "scorer": scorer.load().digest}}


@pytest.mark.parametrize("entity", ["EMAIL", "IP_ADDRESS", "KEY"])
def test_only_what_is_asked_for_is_found(entity: str) -> None:
    text = "jo@firm.com 84.23.112.9 hf_" + "qWkRtLpZsMvNxJbGdFhYcTnQaSrKwLmPzV"
    batch = pa.record_batch({"text": pa.array([text])})
    spans = Pii(PiiOptions(entities=(entity,))).tags(batch)["pii_spans"].to_pylist()[0]  # type: ignore[arg-type]
    assert {span["entity"] for span in spans} == {entity}


def test_literals_are_found_as_by_search() -> None:
    """The automaton against the obvious way, with literals inside each other."""
    literals = [b"she", b"he", b"hers", b"his", b"s", b"SHE-"]
    built = gate.automaton([gate.Anchor(literal, k, ignore_case=True) for k, literal in enumerate(literals)])
    drawn = random.Random(3)
    for _ in range(200):
        text = "".join(drawn.choices("sheriSH-E\n", k=30))
        hits = gate.hits(Texts.of(pa.array(["he", text, "s"], pa.large_string())), built)
        folded = text.lower()
        expected = {
            (k, 2 + p, 2 + p + len(w))
            for k, w in enumerate(literals)
            for p in range(30)
            if folded.startswith(w.decode().lower(), p)
        }
        got = {tuple(hit) for hit in hits.tolist() if 2 <= hit[1] < 32}
        assert got == expected


def test_more_hits_than_there_was_room_for_are_all_found() -> None:
    """A text of literals inside each other, several at each place, far beyond the first array of hits."""
    literals = [b"a", b"aa", b"aaa", b"aaaa"]
    built = gate.automaton([gate.Anchor(literal, k) for k, literal in enumerate(literals)])
    hits = gate.hits(Texts.of(pa.array(["a" * 5_000, "", "a"], pa.large_string())), built)
    expected = [(k, p, p + k + 1) for k in range(4) for p in range(5_000 - k)]
    assert [tuple(hit) for hit in hits.tolist()] == sorted([*expected, (0, 5_000, 5_001)])


def test_the_pass_is_compiled_once_for_read_and_for_made_texts() -> None:
    """Buffers that were read cannot be written to and those that Python made can: numba takes them for two types."""
    made = pa.array(["jo@firm.com"], pa.large_string())
    _, offsets, data = made.buffers()
    read = pa.Array.from_buffers(made.type, 1, [None, *(pa.py_buffer(part.to_pybytes()) for part in (offsets, data))])
    assert [len(gate.hits(Texts.of(column), RULES.automaton)) for column in (made, read)] == [1, 1]
    assert len(gate._scan.signatures) == 1


def test_anchors_ask_for_case_boundary_and_run() -> None:
    digits = members("0-9")
    built = gate.automaton([gate.Anchor(b"Ab", 0, bounded=True, alphabet=digits, run=3, within=2)])
    found = [
        text
        for text in ["Ab123", "xAb123", "-Ab--123", "Ab---123", "ab123", "Ab12", "Ab\n123", "Ab12-123"]
        if len(gate.hits(Texts.of(pa.array([text], pa.large_string())), built))
    ]
    assert found == ["Ab123", "-Ab--123"]


class Counted(Texts):
    """Texts that count the bytes that rules read of them."""

    total = 0

    def read(self, start: int, end: int) -> bytes:
        Counted.total += end - start
        return super().read(start, end)


HOSTILE = [
    "a",
    "a.",
    "@",
    "a@",
    "a@a.",
    "a@b.c",
    ".",
    "1.",
    "1.2.3.4 ",
    "84.2.3.4@",
    ":",
    "1:",
    "::1 ",
    "2a02::1 ",
    "://",
    "a://b:",
    "a://b:c@",
    "=",
    '"',
    "A",
    "/+",
    "token",
    "token=",
    'token="',
    'token="aB3dE5gH7jK9mN1p',
    "secret='",
    "aws_",
    "-----BEGIN ",
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nAAAA",
    "eyJ",
    "eyJaaaaaaaa.",
    "eyJaaaaaaaa.eyJaaaaaaaa.",
    "sk-",
    "hf_",
    "SG.",
    "xoxb-",
    "-us1",
    ":AA",
    "heroku",
    "\\n",
    "%3A",
    "\u00e9",
    "\u6f22",
    "\0",
    "\n",
    "M.abcdef.",
    "curl ",
    "curl -u a:",
    "curl -u jo:Zk39dk3Lq1 ",
    "identified by '",
    "identified with a by '",
    "machine ",
    "machine a login b ",
    "machine a\nlogin b\npassword ",
    ":5432:",
    "a:5432:b:c:d",
    "@github.com",
    "https://aaaaaaaaaaaaaaaaaaaa@github.com",
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_work_grows_with_the_text(unit: str) -> None:
    """Bytes read by rules, over two sizes of a text made to be slow: linear, and bounded for each byte."""

    def work(size: int) -> tuple[int, int]:
        Counted.total = 0
        column = pa.array([unit * (size // len(unit))], pa.large_string())
        texts = Counted.of(column)
        hits = gate.hits(texts, RULES.automaton)
        DETECTION.spans(texts)
        return Counted.total, len(hits)

    small, large = work(20_000), work(80_000)
    assert large[0] <= 4.4 * small[0] + 40_000
    assert large[0] <= 64 * 80_000
    assert large[1] <= 80_000 * 2


@pytest.mark.slow
@pytest.mark.parametrize("unit", HOSTILE)
def test_a_hostile_megabyte_is_redacted(unit: str) -> None:
    stage = Pii()
    batch = pa.record_batch({"text": pa.array([unit * (1_000_000 // len(unit))], pa.large_string())})
    tags = stage.tags(batch)
    assert len(tags["pii_spans"]) == 1


def test_base64_of_a_megabyte() -> None:
    noise = np.random.default_rng(1).bytes(750_000)
    import base64

    texts = Counted.of(pa.array([base64.b64encode(noise).decode()], pa.large_string()))
    Counted.total = 0
    DETECTION.spans(texts)
    assert Counted.total < 100_000
