"""Redaction: not a byte outside spans changes, twice is once, and one value has one replacement (starcoder1 D5, D6)."""

from __future__ import annotations

import itertools
import random
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.errors import InputError, MissingDependency, RecipeError
from stackbuild.pii.detection import whole
from stackbuild.pii.extras import EXTRA, engines
from stackbuild.pii.options import PiiOptions
from stackbuild.pii.replacements import PSEUDONYM_EMAILS, PSEUDONYM_KEYS, Mode, Replacer, known_values
from stackbuild.pii.rules import load
from stackbuild.pii.settling import UNSETTLED, settled
from stackbuild.pii.spans import Carried, Span, Texts, column_of, merged, redacted
from stackbuild.pii.stage import Pii
from stackbuild.schema import SPANS
from stackbuild.stage import with_columns

STAGES = {(mode, seed): Pii(PiiOptions(mode=mode)) for mode in get_args(Mode) for seed in (0, 7)}
for (_mode, _seed), _stage in STAGES.items():
    _stage.seed = _seed
KEY = "ghp_" + "".join(random.Random(1).choices("ABCDEFGHabcdefgh0123456789", k=36))


def redact(
    texts: list[str | None], mode: Any = "placeholder", seed: int = 0
) -> tuple[list[str | None], list[list[dict[str, Any]]]]:
    stage = STAGES[mode, seed]
    batch = pa.record_batch({"text": pa.array(texts, pa.large_string())})
    batch = with_columns(batch, stage.tags(batch))
    batch.validate(full=True)
    text = stage.text(batch)
    text.validate(full=True)
    assert batch["redactions"].to_pylist() == [len(spans) for spans in batch["pii_spans"].to_pylist()]
    return text.to_pylist(), batch["pii_spans"].to_pylist()


PIECES = st.sampled_from(
    [
        "jo@firm.com",
        "bo@firm.org",
        "84.23.112.9",
        "dns 5.6.7.8",
        "2a02:1234::1",
        KEY,
        f'secret = "{KEY[4:]}"',
        "https://jo:Zk3aBc9dEf@host.io/",
        "postgres://jo:Zk3aBc9dEf@mail.firm.com",
        "version@firm.com 84.2.3.4",
        "sha1@firm.com",
        "git@github.com:o/r.git",
        "-----BEGIN PRIVATE KEY-----\n",
        "\n-----END PRIVATE KEY-----",
        "MIICXgIBAAKBgQC6VU6XsMaTot9ogsGcJ",
        "juvJOmDvvCZmgJRTRwKkW0u2BLz4yVrCzQcxaY4kaI",
        "<EMAIL>",
        "<KEY>",
        "172.16.31.10",
        *PSEUDONYM_KEYS[:2],
        *PSEUDONYM_EMAILS[:2],
        "token",
        "password",
        "hf_",
        "sk-",
        "@",
        ":",
        "://",
        "=",
        '"',
        "'",
        ".",
        "-",
        "/",
        "\r\n",
        "\n",
        "\0",
        " ",
        "é",
        "漢字",
        "😀",
        "\\n",
        "%3A",
        "com",
        "version ",
        "server ",
    ]
)
TEXTS = st.lists(st.lists(PIECES, max_size=12).map("".join), min_size=1, max_size=4)
MODES = st.sampled_from(get_args(Mode))


@settings(max_examples=120, deadline=None)
@given(TEXTS, MODES, st.sampled_from([0, 7]))
def test_outside_spans_not_a_byte_changes(texts: list[str], mode: str, seed: int) -> None:
    out, spans = redact(list(texts), mode, seed)
    for text, new, found in zip(texts, out, spans, strict=True):
        raw, expected, at = text.encode(), b"", 0
        for span in found:
            assert at <= span["start"] < span["end"] <= len(raw)
            expected += raw[at : span["start"]] + span["replacement"].encode()
            raw[span["start"] : span["end"]].decode()  # cuts between characters
            at = span["end"]
        assert new is not None and new.encode() == expected + raw[at:]


@settings(max_examples=120, deadline=None)
@given(TEXTS, MODES)
def test_redacting_twice_is_redacting_once(texts: list[str], mode: str) -> None:
    once, _ = redact(list(texts), mode)
    twice, spans = redact(once, mode)
    assert twice == once and not any(spans)


@settings(max_examples=60, deadline=None)
@given(TEXTS, MODES)
def test_one_value_has_one_replacement_in_a_file(texts: list[str], mode: str) -> None:
    _out, spans = redact(list(texts), mode)
    for text, found in zip(texts, spans, strict=True):
        seen: dict[tuple[str, bytes], str] = {}
        for span in found:
            value = (span["entity"], text.encode()[span["start"] : span["end"]])
            assert seen.setdefault(value, span["replacement"]) == span["replacement"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(PIECES, max_size=8).map("".join), min_size=2, max_size=6))
def test_a_file_is_redacted_alike_in_any_batch(texts: list[str]) -> None:
    together, _ = redact(list(texts))
    assert together == [redact([text])[0][0] for text in texts]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20), st.sampled_from("abc")), max_size=12))
def test_merged_spans_cover_what_was_found_and_no_more(found: list[tuple[int, int, str]]) -> None:
    spans = [Span(start, start + size, "KEY", rule) for start, size, rule in found]
    out = merged(spans)
    assert all(a.end <= b.start for a, b in itertools.pairwise(out))
    assert {p for s in out for p in range(s.start, s.end)} == {p for s in spans for p in range(s.start, s.end)}
    assert merged(out) == out and merged(spans[::-1]) == out
    for span in out:
        inside = [s for s in spans if span.start <= s.start and s.end <= span.end]
        assert span.rule in {s.rule for s in inside if s.end - s.start == max(t.end - t.start for t in inside)}


def test_what_touches_stays_apart_and_gains_no_space() -> None:
    """D5: no space where two spans touch or one starts the file."""
    spans = [Span(0, 2, "EMAIL", "a"), Span(2, 5, "KEY", "b")]
    assert merged(spans) == spans
    assert redact(["jo@firm.com" + "\n" + KEY])[0] == ["<EMAIL>\n<KEY>"]
    text = pa.array(["abcde"], pa.large_string())
    assert redacted(text, column_of(spans, ["<EMAIL>", "<KEY>"], Texts.of(text))).to_pylist() == ["<EMAIL><KEY>"]


def test_what_overlaps_goes_whole_under_the_longest_name() -> None:
    """D5: no negative slice, no doubled text."""
    assert merged(
        [Span(0, 4, "EMAIL", "a"), Span(2, 9, "KEY", "b"), Span(8, 10, "KEY", "c"), Span(10, 11, "KEY", "d")]
    ) == [
        Span(0, 10, "KEY", "b"),
        Span(10, 11, "KEY", "d"),
    ]


def test_bytes_not_characters() -> None:
    out, spans = redact(["漢字é jo@firm.com\r\n\0é"])
    assert out == ["漢字é <EMAIL>\r\n\0é"] and spans[0][0]["start"] == len("漢字é ".encode())


def test_a_batch_without_spans_keeps_its_array() -> None:
    text = pa.array(["a", None, ""], pa.large_string())
    batch = pa.record_batch({"text": text})
    stage = STAGES["placeholder", 0]
    batch = with_columns(batch, stage.tags(batch))
    assert stage.text(batch).buffers()[2].address == text.buffers()[2].address


def test_slices_and_nulls() -> None:
    whole = pa.array(["x" * 9, "jo@firm.com", None, "", "84.23.112.9", None], pa.large_string())
    for start in range(6):
        part = whole.slice(start)
        stage = STAGES["placeholder", 0]
        batch = pa.record_batch({"text": part})
        batch = with_columns(batch, stage.tags(batch))
        new = stage.text(batch)
        new.validate(full=True)
        expected = ["x" * 9, "<EMAIL>", None, "", "172", None][start:]
        assert [
            text if text is None or text[:3] != "172" else "172"
            for text in (t and t.replace("192", "172") for t in new.to_pylist())
        ] == expected


def test_no_rows() -> None:
    assert redact([]) == ([], [])


def test_spans_that_overlap_are_refused() -> None:
    text = pa.array(["abcdef"], pa.large_string())
    row = {"entity": "KEY", "rule": "x", "replacement": ""}
    for pair in ([(0, 3), (2, 4)], [(3, 4), (0, 1)], [(0, 7)], [(2, 1)]):
        column = pa.array([[{"start": a, "end": b, **row} for a, b in pair]], SPANS)
        with pytest.raises(ValueError, match="overlap"):
            redacted(text, column)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5), st.integers(0, 6)), max_size=5),
    st.integers(0, 40),
    st.integers(1, 9),
)
def test_positions_carried_back(cuts: list[tuple[int, int, int]], start: int, size: int) -> None:
    """Against a text in which each byte remembers where it came from."""
    starts, ends, lengths, at = [], [], [], 0
    for gap, length, new in cuts:
        starts.append(at + gap)
        ends.append(at + gap + length)
        lengths.append(new)
        at += gap + length
    origin: list[tuple[int, int]] = []  # of each new byte, the old bytes behind it
    old = 0
    for a, b, new in zip(starts, ends, lengths, strict=True):
        origin += [(p, p + 1) for p in range(old, a)] + [(a, b)] * new
        old = b
    origin += [(p, p + 1) for p in range(old, old + 60)]
    behind = origin[start : start + size]
    assert Carried(starts, ends, lengths).back(start, start + size) == (behind[0][0], behind[-1][1])


def test_replacements_are_kept_by_every_rule() -> None:
    ip = load().ip
    for value in (known.decode() for known in known_values(ip)):
        for text in (
            value,
            f'secret = "{value}"',
            f'api_key: "{value}"',
            *([] if " " in value else [f"https://jo:{value}@host.io"]),
            f"mail {value} server",
        ):
            assert redact([text])[1] == [[]], text


def test_an_address_has_one_replacement_in_every_spelling_and_every_run() -> None:
    """D6: drawn by the seed and the value, among the five of its family."""
    ip = load().ip
    _out, spans = redact(["2a02:1234:0:0:0:0:0:1 2A02:1234::1 84.23.112.9"])
    names = [span["replacement"] for span in spans[0]]
    assert names[0] == names[1] and names[0] in ip.synthetic_v6 and names[2] in ip.synthetic_v4
    chosen = {Replacer(ip, "placeholder", seed).one("IP_ADDRESS", "84.23.112.9", "a file") for seed in range(60)}
    assert chosen == set(ip.synthetic_v4)


def test_pseudonyms_are_distinct_and_seeded() -> None:
    assert len(set(PSEUDONYM_EMAILS)) == len(set(PSEUDONYM_KEYS)) == 10
    out, _ = redact(["jo@firm.com " + KEY], "pseudonym")
    assert out[0] is not None
    mail, key = out[0].split()
    assert mail in PSEUDONYM_EMAILS and key in PSEUDONYM_KEYS


def test_what_one_redaction_lays_bare_goes_too() -> None:
    """A word inside an address said "version" of the next one: found in the second round."""
    assert redact(["version@firm.com 84.2.3.4"])[0][0] in {f"<EMAIL> {a}" for a in load().ip.synthetic_v4}


def test_a_text_that_never_settles_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    text = pa.array(["quiet", "jo@firm.com" + "z" * 100], pa.large_string())

    def restless(texts: Texts) -> list[Span]:
        end = int(texts.offsets[-1])
        return [Span(end - 1, end, "KEY", "restless")] if texts.data[end - 1] == ord("z") else []

    column = settled(text, restless, Replacer(load().ip, "placeholder", 0))
    assert [span["rule"] for span in column[1].as_py()] == ["restless"]
    endless = settled(
        text,
        lambda texts: [Span(int(texts.offsets[-1]) - 1, int(texts.offsets[-1]), "KEY", "endless")],
        Replacer(load().ip, "placeholder", 0),
    )
    batch = pa.record_batch({"text": text, "pii_spans": endless})
    (verdict,) = STAGES["placeholder", 0].verdicts(batch)
    assert verdict.rule == UNSETTLED and verdict.keep.to_pylist() == [True, False]
    assert endless[1].as_py()[0]["start"] == 0 and np.asarray(endless.value_lengths()).tolist() == [0, 1]


def test_a_value_has_another_replacement_in_another_file() -> None:
    """Keyed by file and value: equal within a file and in every run, and nothing tells which files share a secret."""
    texts: list[str | None] = [f"{number} {KEY} {KEY}" for number in range(40)]
    out, _ = redact(texts, "pseudonym")
    assert out == redact(texts, "pseudonym")[0]
    pairs = [text.split()[1:] for text in out if text is not None]
    assert all(first == second for first, second in pairs)
    assert len({first for first, _ in pairs}) > 5


def test_counts_by_entity_add_up() -> None:
    batch = pa.record_batch({"text": pa.array([f"jo@firm.com {KEY} bo@firm.com", "quiet", None], pa.large_string())})
    tags = Pii().tags(batch)
    assert tags["redactions_by_entity"].to_pylist() == [
        [{"entity": "EMAIL", "count": 2}, {"entity": "KEY", "count": 1}],
        [],
        [],
    ]
    assert tags["redactions"].to_pylist() == [3, 0, 0]


def test_some_files_are_asked_something_else() -> None:
    """`where`: the first that fits a file counts, by its language and its repository's name."""
    options = PiiOptions.model_validate(
        {
            "where": [
                {"languages": ["Text"], "repos": ["docs/*"], "profiles": []},
                {"languages": ["Text"], "entities": ["EMAIL"]},
                {"repos": ["keys/*"], "entities": ["KEY"]},
            ]
        }
    )
    rows = [("C", "a/b"), ("Text", "a/b"), ("Text", "docs/x"), ("C", "keys/x"), (None, "a/b"), ("C", None)]
    batch = pa.record_batch(
        {
            "text": pa.array([f"jo@firm.com {KEY}"] * 6, pa.large_string()),
            "language": pa.array([language for language, _ in rows], pa.string()),
            "repo_name": pa.array([repo for _, repo in rows], pa.string()),
        }
    )
    stage = Pii(options)
    assert stage.needs() == ("text", "language", "repo_name")
    batch = with_columns(batch, stage.tags(batch))
    both, mail, key = "<EMAIL> <KEY>", f"<EMAIL> {KEY}", "jo@firm.com <KEY>"
    assert stage.text(batch).to_pylist() == [both, mail, f"jo@firm.com {KEY}", key, both, both]
    assert stage.tags(batch.slice(0, 0))["redactions"].to_pylist() == []
    alone = Pii(options).tags(pa.record_batch({"text": batch["text"]}))  # of which neither is told
    assert alone["redactions"].to_pylist() == [2] * 6
    with pytest.raises(ValueError, match="which files"):
        PiiOptions.model_validate({"where": [{"profiles": []}]})


def test_a_file_of_no_known_language_is_unknown_as_in_the_dataset() -> None:
    """So that what is read again from released rows, which say so, is redacted as the build did."""
    stage = Pii(PiiOptions.model_validate({"where": [{"languages": ["Unknown"], "profiles": []}]}))
    texts = pa.array([f"jo@firm.com {KEY}"] * 3, pa.large_string())
    languages = pa.array([None, "Unknown", "C"], pa.string())
    assert stage.tags(pa.record_batch({"text": texts, "language": languages}))["redactions"].to_pylist() == [0, 0, 2]
    assert stage.tags(pa.record_batch({"text": texts}))["redactions"].to_pylist() == [2, 2, 2]


def test_what_decides_for_a_where_is_in_the_key() -> None:
    """Here only the files of `where` are asked for keys, so that only they have a scorer."""
    options = {"entities": ["EMAIL"], "where": [{"repos": ["a/*"], "entities": ["KEY"]}]}
    key = Pii(PiiOptions.model_validate(options)).key()
    assert key["rules"]["scorer"] is None and key["rules where 1"]["scorer"] == Pii().key()["rules"]["scorer"]


@pytest.mark.parametrize(
    ("table", "error", "words"),
    [
        ({"profiles": ["ner"]}, RecipeError, "pii.ner_model"),
        ({"profiles": ["rules"], "rules": "/no/such/file.toml"}, InputError, "file.toml"),
        ({"where": [{"languages": ["Text"], "profiles": ["ner"]}]}, RecipeError, "pii.ner_model"),
        (
            {"profiles": ["presidio"], "spacy_model": "no_such_pipeline"},
            MissingDependency,
            "no_such_pipeline|stackbuild.pii",
        ),
    ],
)
def test_a_profile_that_cannot_be_used_is_refused_before_the_run(table: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        Pii(PiiOptions.model_validate(table)).needs()


def test_a_missing_extra_is_named() -> None:
    with pytest.raises(
        MissingDependency, match=r"profile compat needs no-such-package: pip install 'stackbuild\[pii\]'"
    ):
        engines("compat", EXTRA, "no-such-package")


def test_what_lies_inside_a_replacement_is_never_found() -> None:
    """Else a text never settles: an address among notes becomes a name in one round and an address again in the next."""
    options = PiiOptions(mode="pseudonym", entities=("EMAIL", "IP_ADDRESS", "USERNAME", "NAME"))
    for text in ("# TODO(joanna@firm.io): x", "# TODO(2a00:1450:4001:81b::200e): x"):
        spans = Pii(options).tags(pa.record_batch({"text": pa.array([text])}))["pii_spans"].to_pylist()[0]
        assert spans and all(span["rule"] != UNSETTLED for span in spans)


def test_a_span_never_cuts_a_character() -> None:
    text = pa.array(["xéy"], pa.large_string())
    texts = Texts.of(text)
    assert [tuple(whole(texts, Span(a, b, "KEY", "r"))[:2]) for a, b in ((0, 2), (2, 3), (2, 4), (0, 1), (3, 4))] == [
        (0, 3), (1, 3), (1, 4), (0, 1), (3, 4),
    ]  # fmt: skip


def test_a_password_goes_everywhere_in_its_file() -> None:
    value = "Kr7" + "".join(random.Random(3).choices("ABCDEFGHabcdefgh0123456789", k=9))
    out, spans = redact([f'DB_PASSWORD = "{value}"\nconnect("{value}")\n# {value}\n'])
    assert out[0] is not None and value not in out[0]
    assert {span["entity"] for span in spans[0]} == {"PASSWORD"}
