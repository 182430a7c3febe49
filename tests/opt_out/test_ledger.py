"""The opt-out list: read strictly, canonical, every bad line told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackbuild.errors import InputError
from stackbuild.opt_out.ledger import Ledger, canonical, load, parse
from stackbuild.origins import Unreadable

DIGEST = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "kind", "key"),
    [
        ("Jo-B", "owner", "jo-b"),
        ("@jo", "owner", "jo"),
        ("jo--b-", "owner", "jo--b-"),
        ("jo_firm", "owner", "jo_firm"),
        ("https://github.com/Jo", "owner", "jo"),
        ("https://github.com/orgs/Jo/", "owner", "jo"),
        ("https://gitlab.com/Jo.B", "owner", "gitlab.com/jo.b"),
        ("Jo/Repo.JS", "repo", "jo/repo.js"),
        ("jo/repo.git", "repo", "jo/repo"),
        ("pypi/requests", "repo", "pypi/requests"),
        ("https://github.com/Jo/Repo", "origin", "github.com/jo/repo"),
        ("HTTP://user:pw@WWW.GitHub.COM:443/Jo/Repo.git/", "origin", "github.com/jo/repo"),
        ("git@github.com:Jo/Repo.git", "origin", "github.com/jo/repo"),
        ("ssh://git@gitlab.com:22/g/sub/r.git", "origin", "gitlab.com/g/sub/r"),
        ("github.com/jo/repo", "origin", "github.com/jo/repo"),
        ("https://github.com/jo/repo?tab=x#readme", "origin", "github.com/jo/repo"),
        ("https://github.com/%6Ao/repo", "origin", "github.com/jo/repo"),
        ("https://git.müller.de/jo/r", "origin", "git.xn--mller-kva.de/jo/r"),
        ("https://git.xn--mller-kva.de/jo/r", "origin", "git.xn--mller-kva.de/jo/r"),
        (f"swh:1:cnt:{DIGEST}", "content", DIGEST),
        (f"swh:1:dir:{DIGEST}", "directory", DIGEST),
        (f"swh:1:rev:{DIGEST.upper()}", "revision", DIGEST),
        (f"swh:1:snp:{DIGEST}", "snapshot", DIGEST),
        (f"swh:1:ori:{DIGEST}", "origin", f"ori:{DIGEST}"),
        ("jo  # asked twice", "owner", "jo"),
    ],
)
def test_an_entry_has_one_canonical_form(text: str, kind: str, key: str) -> None:
    (entry,) = parse(text).entries
    assert (entry.kind, entry.key) == (kind, key)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("all", "scope"),
        ("*", "wildcard"),
        ("jo/*", "wildcard"),
        ("[jo](https://github.com/jo)", "wildcard|invisible"),
        ("jo/repo/src", "inside"),
        ("https://github.com/jo/repo/tree/main/src", "inside"),
        ("https://github.com/", "whole host"),
        ("https://localhost/jo/r", "no host"),
        ("https://git_hub..com/jo/r", "no host"),
        ("gitlab.com", "no owner"),
        ("jo bloggs", "invisible or a space"),
        ("jo\u200b", r"U\+200B"),
        ("jo\u202eoj", r"U\+202E"),
        ("jo\x00", r"U\+0000"),
        ("jo\x1b[31m", r"U\+001B"),
        ("jo\x0bx", r"U\+000B"),
        ("jo\ue000", r"U\+E000"),
        ("ｊｏ", "full-width"),
        ("https://ｇithub.com/jo/r", "full-width"),
        ("jö", "no owner"),
        ("https://github.com/jo/..", "no part"),
        ("https://github.com/jo/%2e%2e", "no part"),
        ("https://github.com/jo%2Frepo", "no part"),
        ("https://github.com/jo/%zz", "hexadecimal"),
        ("https://github.com/jo/%ff", "UTF-8"),
        ("https://github.com/jo/%00", r"U\+0000"),
        ("https://github.com/jo/%2541", "no part"),
        ("https://[::1/jo", "no URL|no host"),
        (f"swh:1:rel:{DIGEST}", "revision or the origin"),
        (f"swh:2:cnt:{DIGEST}", "no SWHID"),
        ("swh:1:cnt:123", "no SWHID"),
        (f"swh:1:cnt:{DIGEST};origin=https://a.b/c", "qualifiers"),
        ("x" * 5000, "longer"),
        ("# format: 2", "format 2"),
        ('{"format": 2}', "format 2"),
        ('{"key": "jo", "colour": "red"}', "unknown field 'colour'"),
        ('{"scope": "all"}', "no key"),
        ('{"key": "jo", "scope": "galaxy"}', "unknown scope"),
        ('{"key": "jo", "date": "yesterday"}', "no date"),
        ('{"key": 7}', "not text"),
        ('{"key": "jo"', "not JSON"),
        ("{" * 4000, "not JSON"),
    ],
)
def test_a_bad_line_is_refused_with_its_reason(text: str, why: str) -> None:
    with pytest.raises(InputError, match=f"line 2: .*(?:{why})"):
        parse(f"fine\n{text}\nfine2")


def test_all_bad_lines_are_told_at_once_on_plain_lines() -> None:
    with pytest.raises(InputError) as caught:
        parse("jo\n*\nbo\x1b\n\nall\r\n")
    message = str(caught.value)
    assert [word for word in ("line 2", "line 3", "line 5", "3 entries") if word in message] == [
        "line 2",
        "line 3",
        "line 5",
        "3 entries",
    ]
    assert "\x1b" not in message and len(message.split("\n")) == 4


def test_formats_say_the_same(tmp_path: Path) -> None:
    lines = tmp_path / "a.txt"
    lines.write_text("\ufeff# format: 1\r\n# why\r\nJo/Repo\r\nbo\n\n")
    (tmp_path / "a.jsonl").write_text(
        '{"format": 1}\n{"key": "jo/repo", "scope": "code", "date": "2026-01-02", "source": "form", "reason": "x"}\n'
        '{"key": "Bo"}\n'
    )
    (tmp_path / "a.toml").write_text(
        'format = 1\n[[entry]]\nkey = "jo/repo"\ndate = 2026-01-02\n[[entry]]\nkey = "bo"\n'
    )
    ledgers = [load(tmp_path / f"a.{end}") for end in ("txt", "jsonl", "toml")]
    assert len({ledger.digest() for ledger in ledgers}) == 1
    assert ledgers[1].entries[1].date == ledgers[2].entries[1].date == "2026-01-02"


def test_toml_that_is_wrong_is_told(tmp_path: Path) -> None:
    for text, why in [
        ("x = ", "not TOML"),
        ("format = 3", "format 3"),
        ('colour = "red"', "key colour"),
        ('[[entry]]\nkey = "*"', "entry 1"),
    ]:
        (tmp_path / "a.toml").write_text(text)
        with pytest.raises(InputError, match=why):
            load(tmp_path / "a.toml")


def test_the_digest_is_of_what_removes() -> None:
    base = parse("jo\nbo/r")
    assert parse("# x\nBO/R.git\njo\njo").digest() == base.digest()
    assert parse('{"key": "jo", "reason": "y"}\nbo/r').digest() == base.digest()
    assert parse('jo\nbo/r\n{"key": "zo", "scope": "issues"}').digest() == base.digest()
    assert parse("jo\nbo/s").digest() != base.digest() != Ledger(()).digest()


def test_what_speaks_of_issues_only_removes_no_code() -> None:
    ledger = parse('{"key": "zo", "scope": "issues"}')
    assert ledger.entries and not ledger.keys("owner")


def test_a_list_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "none")
    (tmp_path / "latin").write_bytes(b"jo\xff")
    with pytest.raises(InputError, match="UTF-8"):
        load(tmp_path / "latin")


def test_a_hundred_thousand_lines() -> None:
    ledger = parse("\n".join(f"owner{k}/repo" if k % 2 else f"https://gitlab.com/o{k}/r" for k in range(100_000)))
    assert len(ledger.entries) == 100_000


@given(st.text(max_size=60))
def test_any_line_is_read_or_refused(text: str) -> None:
    try:
        kind, key = canonical(text)
    except Unreadable:
        return
    assert key and key == key.strip() and "*" not in key
    again = {"owner": key if "/" not in key else f"https://{key}", "repo": key, "origin": f"https://{key}"}
    if kind in again and not key.startswith("ori:"):
        assert canonical(again[kind])[1] == key


def test_the_examples_can_be_used_as_they_are() -> None:
    folder = Path(__file__).parents[2] / "opt_out"
    assert len(load(folder / "example.txt").entries) == 5
    assert len(load(folder / "example.jsonl").entries) == 2
