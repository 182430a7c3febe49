"""Rules in gitleaks' TOML mean here what they mean there; what cannot be honoured is refused by name."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from stackbuild.errors import InputError
from stackbuild.pii import gate, gitleaks, rules
from stackbuild.pii.detection import Detection, Rules
from stackbuild.pii.options import PiiOptions
from stackbuild.pii.spans import Texts
from stackbuild.pii.stage import Pii
from tests.pii.test_rules import Counted


def drawn(alphabet: str, size: int, seed: int = 1) -> str:
    return "".join(random.Random(seed).choices(alphabet, k=size))


KEY = drawn("abcdefghijklmnopqrstuvwxyz0123456789", 24)
ONE = """
[[rules]]
id = "one"
regex = '''%s'''
keywords = ["acme"]
%s
"""


@pytest.fixture
def file(tmp_path: Path) -> Any:
    """Writes a file of rules and gives what it finds in a text."""

    def find(toml: str, *texts: str) -> list[tuple[str, str]]:
        (tmp_path / "leaks.toml").write_text(toml)
        book = rules.with_file(tmp_path / "leaks.toml")
        column = pa.array(texts, pa.large_string())
        data = "".join(texts).encode()
        return [
            (span.rule.removeprefix(gitleaks.PREFIX), data[span.start : span.end].decode())
            for span in Rules(book, ["KEY"]).find(Texts.of(column))
            if span.rule.startswith(gitleaks.PREFIX)
        ]

    return find


def test_the_secret_is_the_first_group_that_is_not_empty(file: Any) -> None:
    rule = ONE % (r"(?i)acme_(x)?[ =]*(\w{24})(!?)", "")
    assert file(rule, f"ACME_ = {KEY}") == [("one", KEY)]
    assert file(rule, f"ACME_x = {KEY}") == [("one", "x")]


def test_the_secret_is_the_group_that_is_asked_for(file: Any) -> None:
    assert file(ONE % (r"acme_(x)?[ =]*(\w{24})", "secretGroup = 2"), f"acme_x = {KEY}") == [("one", KEY)]


def test_the_secret_is_the_match_without_groups(file: Any) -> None:
    assert file(ONE % (r"\nacme_\w{24}\n", ""), f"a\nacme_{KEY}\nb") == [("one", f"acme_{KEY}")]


def test_keywords_gate_without_case_and_need_not_be_in_the_match(file: Any) -> None:
    assert file(ONE % (r"\b[a-z0-9]{24}\b", ""), f"from AcMe\n{KEY}", KEY) == [("one", KEY)]


def test_a_rule_without_keywords_looks_at_every_text(file: Any) -> None:
    toml = f"[[rules]]\nid = 'one'\nregex = 'key-[a-z0-9]{{24}}'\n[[rules]]\nid = 'b'\nregex = 'z{KEY}'\nkeywords = ['\u00e9']\n"
    assert file(toml, "nothing", "", f"key-{KEY}") == [("one", f"key-{KEY}")]


def test_entropy_is_of_the_secret_and_must_be_exceeded(file: Any) -> None:
    rule = r"acme=(\w+)"
    assert file(ONE % (rule, "entropy = 1.0"), "acme=aabb acme=aabbc") == [("one", "aabbc")]
    assert gitleaks.entropy("\u00e9\u00e9".encode()) == 0.5  # of characters, over bytes


@pytest.mark.parametrize(
    ("allow", "text", "stays"),
    [
        ("regexes = ['^a+']", "acme=aa1 # note", True),
        ("regexes = ['note']", "acme=aa1 # note", False),
        ("regexes = ['note']\nregexTarget = 'line'", "acme=aa1 # note", True),
        ("regexes = ['^acme=a']\nregexTarget = 'match'", "acme=aa1", True),
        ("regexes = ['^acme=a']\nregexTarget = 'secret'", "acme=aa1", False),
        ("stopwords = ['AA1']", "acme=aa12", True),
        ("stopwords = ['zz']\nregexes = ['a']", "acme=aa1", True),
        ("condition = 'AND'\nstopwords = ['zz']\nregexes = ['a']", "acme=aa1", False),
        ("condition = 'and'\nstopwords = ['1']\nregexes = ['a']", "acme=aa1", True),
        ("condition = '&&'\nregexes = ['a']\npaths = ['x']", "acme=aa1", False),
        ("regexes = ['a']\npaths = ['x']", "acme=aa1", True),
        ("paths = ['.*']", "acme=aa1", False),
        ("commits = ['a']", "acme=aa1", False),
        ("regexes = ['z*']", "acme=aa1", False),  # an empty match allows nothing
    ],
)
@pytest.mark.parametrize("table", ["[rules.allowlist]", "[[rules.allowlists]]", "[allowlist]", "[[allowlists]]"])
def test_allowlists(file: Any, allow: str, text: str, stays: bool, table: str) -> None:
    """Of a rule and of the file, in both ways of writing them, on secret, match or line; AND and OR."""
    assert file(ONE % (r"acme=(\w+)", "") + f"{table}\n{allow}\n", text) == (
        [] if stays else [("one", text[5:].split(maxsplit=1)[0])]
    )


def test_an_allowlist_may_be_for_some_rules(file: Any) -> None:
    toml = ONE % (r"acme=(\w+)", "") + (ONE % (r"acme=(\w+)", "")).replace("one", "two")
    assert file(toml + "[[allowlists]]\ntargetRules = ['one']\nregexes = ['a']", "acme=aa1") == [("two", "aa1")]


def test_rules_that_ask_for_a_path_are_read_and_find_nothing_in_a_text_without_one(file: Any, tmp_path: Path) -> None:
    toml = ONE % (r"acme=(\w+)", "path = '\\.php$'") + "[[rules]]\nid = 'p12'\npath = '\\.p12$'\n"
    assert file(toml, "acme=aa1") == []
    assert rules.with_file(tmp_path / "leaks.toml").gitleaks.asleep == ("one", "p12")


@pytest.mark.parametrize(
    "regex", [r"acme(?i)KEY=(\w+)", r"acmekey=([[:alnum:]]+)\z", r"acme\x6bey=(\pL\pN+)", r"(?s:.)cme..."]
)
def test_go_s_syntax(file: Any, regex: str) -> None:
    """Flags in the middle, \\z, classes by name: what Python's engine does not take."""
    assert file(ONE % (regex, ""), "acmekey=a1")


def test_expressions_see_characters(file: Any) -> None:
    assert file(ONE % (r"acme=(\S{3}\x60?é[^x])", ""), "é acme=漢字🙂é漢") == [("one", "漢字🙂é漢")]


@pytest.mark.parametrize(
    ("toml", "why"),
    [
        ("title = 'x'", r"leaks.toml cannot be used: it has no \[\[rules\]\]"),
        ("rules = 3", "it has no"),
        (ONE % ("a", "") + "[extend]\nuseDefault = true", "it extends another file"),
        (ONE % ("a(?=b)", ""), r"rule one: RE2 cannot compile 'a\(\?=b\)'"),
        (ONE % ("(", ""), "rule one: RE2 cannot compile"),
        (ONE % (r"(a)\1", ""), "rule one: RE2 cannot compile"),
        (ONE % ("a{1,2000}", ""), "rule one: RE2 cannot compile"),
        (ONE % ("a", "path = '('"), "rule one: RE2 cannot compile"),
        (ONE % ("a", "secretGroup = 1"), "rule one: secretGroup 1: the regex has 0 groups"),
        (ONE % ("a", "secretGroup = -1"), "rule one: secretgroup: "),
        (ONE % ("a", "secretGroup = true"), "rule one: secretgroup: "),
        (ONE % ("a", "entropy = 'x'"), "rule one: entropy: "),
        (ONE % ("a", "entropy = nan"), "rule one: entropy: "),
        (ONE % ("a", "entropy = inf"), "rule one: entropy: "),
        (ONE % ("a", "entropy = -1"), "rule one: entropy: "),
        (ONE % ("a", "regexx = 'x'"), "rule one: unknown field regexx"),
        (ONE % ("a", "tags = 'x'"), "rule one: tags: "),
        (ONE % ("a*", ""), "rule one: the pattern matches where nothing stands"),
        (ONE % (r"\b", ""), "rule one: the pattern matches where nothing stands"),
        (ONE % (r"acme\C", ""), r"rule one: .*acme.* has .C,"),
        (ONE % (r"\Q\\E\C", ""), r"rule one: .* has .C,"),
        (ONE % ("a", "[rules.allowlist]\nregexes = ['\\C']"), r"rule one: .* has .C,"),
        (ONE.replace(chr(39) * 3, "") % ("3", ""), "rule one: regex: "),
        (ONE.replace('"one"', "3") % ("a", ""), "rule entry 1: id: "),
        (ONE % ("a", "[rules.allowlist]\nstopwords = 'x'"), "rule one: allowlist.stopwords: "),
        (ONE % ("a", "[[rules.allowlists]]\nregexes = [3]"), r"rule one: allowlist.regexes\[0\]: "),
        (ONE % ("a", "allowlists = 3"), "rule one: allowlists: "),
        (ONE % ("a", "allowlist = 'x'"), "rule one: allowlist: "),
        ("a = " + "[" * 5_000, "leaks.toml cannot be used"),
        (ONE % ("a", "[[rules.required]]\nid = 'two'"), "rule one: it requires other rules"),
        (ONE % ("a", "[rules.allowlist]\nregexes = ['(']"), "rule one: RE2 cannot compile"),
        (ONE % ("a", "[rules.allowlist]\ncondition = 'XOR'\nregexes = ['a']"), "rule one: allowlist.condition: XOR"),
        (ONE % ("a", "[rules.allowlist]\nregexTarget = 'file'\nregexes = ['a']"), "rule one: allowlist.regextarget: "),
        (ONE % ("a", "[rules.allowlist]\ndescription = 'a'"), "rule one: an allowlist that allows nothing"),
        (ONE.replace('["acme"]', "'acme'") % ("a", ""), "rule one: keywords: "),
        ("[[rules]]\nregex = 'a'", "rule entry 1: id is missing"),
        (ONE % ("a", "") + ONE % ("b", ""), "two rules are called one"),
        ("[[rules]]\nid = 'one'", "rule one: neither regex nor path"),
        ("rules = [3]", "cannot be used"),
        ("[[rules]\n", "cannot be used"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(tmp_path: Path, toml: str, why: str) -> None:
    (tmp_path / "leaks.toml").write_text(toml)
    with pytest.raises(InputError, match=why):
        rules.with_file(tmp_path / "leaks.toml")


def test_the_option_names_a_file_which_is_in_the_stage_s_key(tmp_path: Path) -> None:
    (tmp_path / "leaks.toml").write_text(ONE % (r"acme=(\w+)", ""))
    stage = Pii(PiiOptions(rules=str(tmp_path / "leaks.toml")))
    key = stage.key()
    batch = pa.record_batch({"text": pa.array([f"acme={KEY} jo@firm.com", "acme"], pa.large_string())})
    spans = stage.tags(batch)["pii_spans"].to_pylist()
    assert [span["rule"] for span in spans[0]] == ["gitleaks:one", "email"] and spans[1] == []
    assert "rules" in PiiOptions.files
    (tmp_path / "leaks.toml").write_text(ONE % (r"acme=(\d+)", ""))
    assert len({str(k) for k in (key, Pii().key(), Pii(PiiOptions(rules=str(tmp_path / "leaks.toml"))).key())}) == 3


def test_what_looks_like_a_byte_of_re2_is_none(file: Any) -> None:
    """A backslash before C, and one between \\Q and \\E."""
    assert file(ONE % (r"acme\\C=(\w+)", ""), "acme\\C=a1") == [("one", "a1")]
    assert file(ONE % (r"acme\Q\C\E=(\w+)", ""), "acme\\C=a1") == [("one", "a1")]


def test_the_lines_of_a_match_are_those_that_gitleaks_gives_to_allowlists() -> None:
    text = b"ab\ncd\n\nef"
    for start in range(len(text)):
        for end in range(start + 1, len(text) + 1):
            stop = text.find(b"\n", end)
            expected = text[max(0, text.rfind(b"\n", 0, start)) : stop if stop >= 0 else len(text)]
            lines = gitleaks.Lines(text)
            assert lines.read(*lines.about(start, end)) == expected


@pytest.mark.parametrize("joint", [" ", "\n", " acme=x\n"])
def test_an_allowlist_of_lines_reads_each_line_once(file: Any, joint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many findings stand on it: bytes that its expressions are given, over two sizes of one line."""
    read = [0]
    fits = gitleaks.Allowlist.fits

    def counted(self: gitleaks.Allowlist, target: bytes) -> bool:
        read[0] += len(target)
        return fits(self, target)

    monkeypatch.setattr(gitleaks.Allowlist, "fits", counted)
    rule = ONE % (r"acme=(\w+)", "") + "[rules.allowlist]\nregexes = ['note']\nregexTarget = 'line'\n"
    for size in (500, 2_000):
        read[0] = 0
        text = joint.join(["acme=aa1"] * size)
        assert len(file(rule, text)) == text.count("acme=")
        assert 0 < read[0] <= 2 * len(text)


@pytest.mark.parametrize("unit", ["a", "\n", "\u00e9", "acme", "acme=", "acme=aa1 "])
def test_a_text_is_read_once_for_all_rules(tmp_path: Path, unit: str) -> None:
    """Whatever the number of keywords in it: one hit for each, and one copy of the text."""
    (tmp_path / "leaks.toml").write_text("".join((ONE % (r"acme=(\w+)", "")).replace("one", f"r{k}") for k in range(5)))
    book = rules.with_file(tmp_path / "leaks.toml")
    column = pa.array([unit * (40_000 // len(unit))], pa.large_string())
    texts = Counted.of(column)
    detector = Rules(book, ["KEY"])
    hits = gate.hits(texts, detector.automaton)
    assert (hits[:, 0] >= book.gitleaks.first).sum() == (5 if "acme" in unit else 0)
    Counted.total = 0
    list(gitleaks.GitleaksFinder(book.gitleaks).find(texts, hits))
    assert Counted.total <= len(texts.data)
    assert Detection({"rules": detector}).spans(texts) is not None
