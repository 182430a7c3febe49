"""Secrets without a format: where a value is given to a name, what the scorer makes of it, and what is none in any case."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from stackbuild.errors import InputError
from stackbuild.pii import assignments, gate, rules, scorer, scorer_training
from stackbuild.pii.detection import Rules
from stackbuild.pii.spans import Texts, merged

BOOK = rules.load()
BUILT = gate.automaton(assignments.anchors())
FOUND = Rules(BOOK, ["KEY", "PASSWORD"], threshold=0.7)
DRAWN = random.Random(8)
TOKEN = "".join(DRAWN.choices(string.ascii_letters + string.digits, k=40))
WORD = "Kr7" + "".join(DRAWN.choices(string.ascii_letters + string.digits, k=9)) + "!2"


def values(text: str) -> list[tuple[str, str, str]]:
    """The names of a text with the values that they are given, and how."""
    texts = Texts.of(pa.array(["a", text, "b"], pa.large_string()))
    found = assignments.candidates(texts, assignments.word_hits(gate.hits(texts, BUILT)))
    rows = zip(*(column.tolist() for column in found), strict=True)
    return [
        (texts.read(a, b).decode(), texts.read(c, d).decode(), assignments.KINDS[kind]) for a, b, c, d, kind in rows
    ]


def secrets(text: str, of: Rules = FOUND) -> list[tuple[str, str]]:
    texts = Texts.of(pa.array(["a", text, "b"], pa.large_string()))
    return [(span.entity, texts.read(span.start, span.end).decode()) for span in merged(of.find(texts))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('db_password = "abcde1"', ("db_password", "abcde1", "quoted")),
        ("'clientSecret': 'abcde1',", ("clientSecret", "abcde1", "quoted")),
        ('settings["api_token"] = b"abcde1"', ("api_token", "abcde1", "quoted")),
        ("val token: String = `abcde1`", ("token", "abcde1", "quoted")),
        ('const char *key := L"abcde1";', ("key", "abcde1", "quoted")),
        ('secret => "abcde1"', ("secret", "abcde1", "quoted")),
        ('{\\"password\\": \\"abcde1\\"}', ("password", "abcde1", "quoted")),
        ('setPassword("abcde1")', ("setPassword", "abcde1", "call")),
        ('put("secret_key", "abcde1")', ("secret_key", "abcde1", "listed")),
        ('<add key="password" value="abcde1"/>', ("password", "abcde1", "listed")),
        ("<dbPassword>abcde1</dbPassword>", ("dbPassword", "abcde1", "tag")),
        ("curl --token abcde1 x", ("token", "abcde1", "argument")),
        ("export API_TOKEN=abcde1\n", ("API_TOKEN", "abcde1", "bare")),
        ("ENV SECRET_KEY abcde1\n", ("SECRET_KEY", "abcde1", "bare")),
        ("ENV SECRET_KEY=abcde1", ("SECRET_KEY", "abcde1", "bare")),
        ('#define WIFI_PASSWORD "abcde1"', ("WIFI_PASSWORD", "abcde1", "quoted")),
        ('    storePassword "abcde1"', ("storePassword", "abcde1", "quoted")),
        ('"Server=x;Password=abcde1"', ("Password", "abcde1", "bare")),
        ('--password "abcde1"', ("password", "abcde1", "argument")),
        ("  password: YWJjZGUx=", ("password", "YWJjZGUx=", "bare")),
        ("password: AAA1=BBB", ("password", "AAA1=BBB", "bare")),
        ("'Authorization': 'Token abcde1'", ("Authorization", "abcde1", "quoted")),
        ("  - spring.datasource.password: abcde1 # x", ("spring.datasource.password", "abcde1", "bare")),
        ("Server=x;User=y;Password=abcde1;", ("Password", "abcde1", "bare")),
        ("a?x=1&access_token=abcde1&y=2", ("access_token", "abcde1", "bare")),
        ("#password=abcde1\r\n", ("password", "abcde1", "bare")),
        ("'Authorization': 'Basic abcdef1='", ("Authorization", "abcdef1=", "quoted")),
        ("Authorization: Bearer abcdef1", ("Authorization", "abcdef1", "bare")),
        ("  - name: DB_PASSWORD\n    value: abcde1\n", ("DB_PASSWORD", "abcde1", "bare")),
        ("- name: \"API_TOKEN\"\r\n  value: 'abcde1'\r\n", ("API_TOKEN", "abcde1", "quoted")),
        ('{"Name": "DB_PASSWORD", "Value": "abcde1"}', ("DB_PASSWORD", "abcde1", "quoted")),
        ("{name: DB_PASSWORD, value: 'abcde1'}", ("DB_PASSWORD", "abcde1", "quoted")),
        ("<key>apiToken</key>\n\t<string>abcde1</string>", ("apiToken", "abcde1", "tag")),
    ],
)
def test_where_a_value_is_given_to_a_name(text: str, expected: tuple[str, str, str]) -> None:
    assert [value for value in values(text) if value[1] not in ("password", "apiToken")] == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "password = get_password()",
        "password = $PASSWORD",
        "x = a.password = b",
        'password = "two words"',
        'password = ""',
        'password = "abcd"',
        "token::Kind",
        "if password: return abcde1",
        'password = "never closed',
        "key in abcde1",
        'a key "abcde1"',
        "<password>two words</password>",
        "password = 12345678",
        'password = "' + "x" * 300 + '"',
        "- name: DB_PASSWORD\n  valueFrom:\n    name: abcde1\n",
        "- name: DB_PASSWORD\n  value: $(OTHER)\n",
        '- name: DB_PASSWORD\n  value: ""\n- name: other\n  value: abcde1\n',
        "- name: DB_PASSWORD\n- value: abcde1\n",
        "name: DB_PASSWORD" + " " * 30 + "\nvalue: abcde1",
        "rename DB_PASSWORD\nvalue: abcde1",
        "<dict>Password</key><true/><string>abcde1</string>",
    ],
)
def test_what_is_no_literal_is_no_candidate(text: str) -> None:
    assert values(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'client_secret = "{TOKEN}"', ("KEY", TOKEN)),
        (f"export API_TOKEN={TOKEN}\n", ("KEY", TOKEN)),
        (f'{{"auth_token": "{TOKEN}"}}', ("KEY", TOKEN)),
        (f'password = "{WORD}"', ("PASSWORD", WORD)),
        (f"  db_password: {WORD}\n", ("PASSWORD", WORD)),
        (f"<password>{WORD}</password>", ("PASSWORD", WORD)),
    ],
)
def test_a_drawn_value_of_a_secret_s_name_is_a_secret(text: str, expected: tuple[str, str]) -> None:
    assert secrets(text) == [expected]
    assert secrets(text, Rules(BOOK, ["KEY", "PASSWORD"])) in ([], [expected])  # without the scorer


@pytest.mark.parametrize(
    "text",
    [
        'password = "your_password_here"',
        'password = "${DB_PASSWORD}"',
        'password = "password"',
        'token_type = "bearer"',
        'api_key = "xxxxxxxxxxxxxxxxxxxx"',
        'secret_name = "my-secret-name"',
        "key = keyboard_layout2;",
        'password_field = "user_password"',
        'keyword = "continue"',
        'key = "0x16c9a0e6"',
        'public_key = "' + TOKEN + '"',
        'token = "9cbaf023786cd7..."',
        'secret = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"',
        "token: sha256",
        'author = "Jo Berg"',
        "password: hunter2",
        'secret = "<KEY>"',
        'labels["password"] = "Passwort"',
    ],
)
def test_look_alikes_stay(text: str) -> None:
    assert secrets(text) == []


def test_names_outside_the_text_and_hostile_names_end() -> None:
    """Each word costs a bounded number of steps: no candidate is longer than it may be, and none leaves its text."""
    for text in ("key" * 50_000, "key=" * 50_000, 'token="' * 50_000, "secret" + " " * 200_000, "pwd:" + "a" * 200_000):
        for name, value, _ in values(text):
            assert len(name) <= 2 * assignments.NAME_BYTES + 16 and len(value) <= assignments.VALUE_MOST


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    raw = scorer.MODEL_FILE.read_bytes()
    for name, data in (("short", raw[:-2]), ("other", b"x" + raw[1:]), ("nan", raw[:-2] + b"\xff\xff")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=name):
            scorer.load(tmp_path / name)
    assert np.isfinite(scorer.load().weights).all()


def test_training_is_deterministic_and_learns_what_it_is_told(tmp_path: Path) -> None:
    drawn = random.Random(1)
    rows = []
    for number in range(120):
        value = "".join(drawn.choices(string.ascii_letters + string.digits, k=24))
        rows.append({"text": f'secret = "{value}"', "spans": [[10, 34]], "group": str(number % 7)})
        rows.append(
            {"text": f'secret_name = "{drawn.choice(["alpha", "gamma-ray", "omega_x"])}"', "spans": [], "group": "x"}
        )
    path = tmp_path / "labelled.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    data = scorer_training.read([path])
    assert len(data.secret) == 240 and data.secret.sum() == 120
    weights, bias = scorer_training.fit(data, np.arange(240))
    again, _ = scorer_training.fit(data, np.arange(240))
    assert (weights == again).all()
    assert ((scorer_training.scores(data, np.arange(240), weights, bias) > 0.5) == data.secret).all()
    assert scorer.written(weights, bias) == scorer.written(again, bias)
    path.write_text('{"text": 3}')
    with pytest.raises(InputError, match="line 1"):
        scorer_training.read([path])


@pytest.mark.parametrize("before", ["", "?", "&", ";"])
@pytest.mark.parametrize("behind", ["", ",", ";"])
def test_what_is_found_does_not_depend_on_the_texts_beside(before: str, behind: str) -> None:
    """A text begins and ends with itself: no mark before the name, none behind the value."""
    text = f"password: k{TOKEN[:19]}"
    texts = Texts.of(pa.array([before, text, behind], pa.large_string()))
    assert [span.end - span.start for span in FOUND.find(texts)] == [20]
    assert secrets(f"{text};") == []  # as code it is a variable
