"""The profile `compat`: the published rules around its expressions, without the defects D1, D2, D3, D5 and D8."""

from __future__ import annotations

import builtins
import math
import random
import string
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from stackbuild.errors import InputError, MissingDependency
from stackbuild.pii import compat_keys, gibberish
from stackbuild.pii.compat import Compat
from stackbuild.pii.options import PiiOptions
from stackbuild.pii.replacements import PSEUDONYM_EMAILS, PSEUDONYM_KEYS
from stackbuild.pii.spans import Texts
from stackbuild.pii.stage import Pii
from stackbuild.stage import with_columns

secrets = pytest.mark.skipif(not __import__("importlib.util").util.find_spec("detect_secrets"), reason="extra pii")
ALNUM = string.ascii_letters + string.digits


@cache
def key(length: int = 30, seed: int = 0) -> str:
    """Drawn so that it is gibberish to the model and high in entropy."""
    draw, judge = random.Random(seed), gibberish.model()
    while True:
        value = "".join(draw.choices(ALNUM, k=length))
        entropy = -sum(value.count(one) / length * math.log2(value.count(one) / length) for one in set(value))
        if judge.is_gibberish(value) and (entropy > 4.5 or length < 30):
            return value


def found(text: str, *entities: str) -> list[str]:
    detector = Compat(entities or ("EMAIL", "IP_ADDRESS", "KEY"))
    column = pa.array(["", text, "x"], pa.large_string())
    spans = sorted({(span.start, span.end) for span in detector.find(Texts.of(column))})
    return [text.encode()[start:end].decode() for start, end in spans]


def test_addresses_go_unless_private_or_of_a_public_resolver() -> None:
    assert found("a 84.23.112.9 b 10.1.2.3 c 8.8.8.8 d 2a02:1234::1 e ::1", "IP_ADDRESS") == [
        "84.23.112.9",
        "2a02:1234::1",
    ]


def test_an_address_has_a_digit_and_parses() -> None:
    assert found("a:: abc::def 33.01.33.33 face::cafe", "IP_ADDRESS") == []


def test_four_single_digits_are_a_version_unless_dns_or_server_is_near_d1() -> None:
    assert found("5.6.7.8", "IP_ADDRESS") == []
    # At offset 4: the window does not begin before the file, nor at its end.
    assert found("dns 5.6.7.8" + " plain" * 200, "IP_ADDRESS") == ["5.6.7.8"]
    assert found("5.6.7.8 é" + "é" * 91 + " server", "IP_ADDRESS") == ["5.6.7.8"]
    assert found("5.6.7.8 " + "é" * 99 + " server", "IP_ADDRESS") == []
    assert found("Server" + " " * 94 + "5.6.7.8", "IP_ADDRESS") == ["5.6.7.8"]
    assert found("Server" + " " * 95 + "5.6.7.8", "IP_ADDRESS") == []


def test_an_address_beside_another_is_found_too() -> None:
    assert found("84.23.112.9 84.23.112.10", "IP_ADDRESS") == ["84.23.112.9", "84.23.112.10"]


def test_clone_strings_are_addresses_as_published_d7() -> None:
    assert found("git@github.com:o/r.git", "EMAIL") == ["git@github.com"]


def test_a_backspace_is_no_delimiter_d8() -> None:
    assert found("\b84.23.112.9 ", "IP_ADDRESS") == []
    assert found("\bjo@firm.com", "EMAIL") == ["\bjo@firm.com"]  # part of the name then, as published


@secrets
def test_a_key_goes_wherever_it_stands_and_at_byte_0_d2() -> None:
    value = "sk_" + "live_" + key(24)
    text = f"{value}\n" + "plain\n" * 100 + f"x{value}y\nA = '{value}'"
    assert found(text, "KEY") == [value] * 3


@secrets
def test_keys_that_read_like_words_stay() -> None:
    assert found('x = "connectionTimeoutBeforeHandshakePlusRetry1"', "KEY") == []
    assert found(f'x = "{key(40)}"', "KEY") == [key(40)]


@secrets
@pytest.mark.parametrize("word", ["sha", "md5", "Hash", "byte"])
@pytest.mark.parametrize(("length", "kept"), [(32, True), (40, True), (64, True), (36, False)])
def test_a_value_as_long_as_a_digest_behind_a_word_for_digests_stays(word: str, length: int, kept: bool) -> None:
    lines = "plain\n" * 100
    assert found(f'{lines}{word} = "{key(length)}"\n', "KEY") == ([] if kept else [key(length)])
    assert found(f'{word}\n{lines}x = "{key(length)}"\n', "KEY") == [key(length)]


@secrets
def test_a_word_for_digests_speaks_of_its_own_place_only_d2() -> None:
    value, lines = key(40), "plain\n" * 200
    assert found(f'md5 "{value}"\n{lines}x = "{value}"', "KEY") == [value] * 2
    assert found(f'{lines}"{value}"', "KEY") == [value]


@secrets
@pytest.mark.parametrize("word", ["sha", "HASH"])
def test_a_file_that_speaks_of_hashes_in_2_percent_of_its_lines_keeps_all_keys(word: str) -> None:
    text = f'x = "{key()}"\n' + "plain\n" * 99
    assert found(text + f"{word} " * 2, "KEY") == [key()]
    assert found(text + f"{word} " * 3, "KEY") == []
    assert found(f'x = "{key()}" {word}', "KEY") == []  # of a short file one word is enough


@secrets
def test_what_redaction_puts_in_is_not_found_again() -> None:
    text = "".join(f'"{value}"\n' for value in (*PSEUDONYM_EMAILS, *PSEUDONYM_KEYS, "172.16.31.10", "<KEY>"))
    assert found(text) == []


@secrets
@pytest.mark.parametrize("mode", ["placeholder", "pseudonym"])
def test_redacting_by_compat_settles(mode: Any) -> None:
    stage = Pii(PiiOptions(mode=mode, profiles=("compat",)))
    texts = [f'jo@firm.com:"{key()}"\r\ndns 5.6.7.8\n\0 84.23.112.9 漢jo@firm.com.', "", "plain", None]
    batch = pa.record_batch({"text": pa.array(texts, pa.large_string())})
    out = stage.text(with_columns(batch, stage.tags(batch)))
    again = pa.record_batch({"text": out})
    assert stage.text(with_columns(again, stage.tags(again))).equals(out)
    assert "jo@" not in out[0].as_py() and key() not in out[0].as_py() and "5.6.7.8" not in out[0].as_py()


@secrets
def test_no_file_is_written_for_a_document_and_the_model_is_read_once_d3(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Compat(["KEY"])
    list(detector.find(Texts.of(pa.array(['x = "warm"'], pa.large_string()))))
    monkeypatch.setattr(builtins, "open", None)
    monkeypatch.setattr(Path, "read_bytes", None)
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", None)
    assert len(list(detector.find(Texts.of(pa.array([f'x = "{key()}"'] * 3, pa.large_string()))))) >= 3


@secrets
def test_the_test_for_gibberish_is_that_of_its_package() -> None:
    package = pytest.importorskip("gibberish_detector.detector", reason="gibberish-detector is not installed")
    theirs = package.create_from_model(str(gibberish.bundled()), gibberish.BUNDLED_LIMIT)
    mine, draw = gibberish.model(), random.Random(3)
    for _ in range(300):
        value = "".join(draw.choices(ALNUM + "-_é ", k=draw.randrange(40)))
        assert mine.is_gibberish(value) == theirs.is_gibberish(value.lower())
        assert mine.score(value.lower()) == pytest.approx(
            theirs.calculate_probability_of_being_gibberish(value.lower())
        )


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", "{}", '{"charset": "", "counts": {}}', '{"charset": "ab", "counts": {"a": {"a": 0, "b": 1}}}', '{"charset": 3}',
     '{"charset": "a", "ngram_size": 3, "counts": {"a": {"a": 1}}}', '{"charset": "ab", "counts": {"a": {"a": 1, "b": 1}}}', "[" * 9999,
     '{"charset": "a", "counts": {"a": {"a": 1e999}}}', '{"charset": "a", "counts": {"a": {"a": 1, "b": -1}}}',
     '{"charset": "a", "counts": {"a": {"a": 1, "b": NaN}}}'],
)  # fmt: skip
def test_a_model_of_gibberish_that_is_none_is_told_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "big.model").write_text(text)
    with pytest.raises(InputError, match=r"big\.model is no model of gibberish-detector"):
        Compat(["KEY"], str(tmp_path / "big.model"))


def test_a_model_of_ones_own_decides_with_the_published_limit(tmp_path: Path) -> None:
    (tmp_path / "mine.model").write_text(
        '{"charset": "ab", "ngram_size": 2, "counts": {"a": {"a": 1, "b": 99}, "b": {"a": 1, "b": 1}}}'
    )
    mine = gibberish.model(tmp_path / "mine.model")
    assert mine.limit == 4.0 and mine.is_gibberish("aaaa") and not mine.is_gibberish("AB") and not mine.is_gibberish("")


def test_without_detect_secrets_keys_are_refused_and_the_rest_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    gibberish.bundled.cache_clear()
    gibberish.model.cache_clear()
    compat_keys.expressions.cache_clear()
    monkeypatch.setattr(gibberish, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"stackbuild\[pii\]"):
        Compat(["KEY"])
    assert found("jo@firm.com", "EMAIL") == ["jo@firm.com"]
