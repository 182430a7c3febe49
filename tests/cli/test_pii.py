"""`stackbuild pii`: anyone's files come out with the same rows, and nothing but what was found is another."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from stackbuild.cli.app import app
from stackbuild.cli.pii import options_of
from stackbuild.errors import InputError, RecipeError, StackbuildError, UsageError
from stackbuild.pii.options import PiiOptions
from stackbuild.standalone import redaction
from stackbuild.standalone.redaction import redact

MAIL = "jo.doe@" + "gmail.com"
ROWS: list[dict[str, Any]] = [
    {"id": 1, "content": f"# by {MAIL}\n", "language": "Python", "stars": 1.50},
    {"id": 2, "content": "nothing here", "language": "Python", "stars": None},
    {"id": 3, "content": None, "language": "C", "stars": 3.0},
    {"id": 4, "content": f"é ü {MAIL}, {MAIL}", "language": "C", "stars": 4.0},
    {"id": 5, "content": "", "language": None, "stars": 5.0},
]


@pytest.fixture(autouse=True)
def _a_process_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only a process of ours may do to itself is not done to the tests'."""
    monkeypatch.setattr("stackbuild.cli.pii.begin", lambda: None)


def invoked(*words: str | Path, code: int = 0) -> str:
    """Run the command in this process; what it printed, or the error that it raised."""
    found = CliRunner().invoke(app, ["pii", *map(str, words)])
    if isinstance(found.exception, StackbuildError):
        assert found.exception.exit_code == code, found.exception
        return str(found.exception)
    assert found.exit_code == code, (found.output, found.exception)
    return found.stdout


def lines(path: Path, rows: list[dict[str, Any]], **dumping: Any) -> Path:
    path.write_text("".join(json.dumps(row, **dumping) + "\n" for row in rows))
    return path


def redacted_rows() -> list[dict[str, Any]]:
    return [row | {"content": row["content"] and row["content"].replace(MAIL, "<EMAIL>")} for row in ROWS]


@pytest.mark.parametrize("kind", ["string", "large_string", "binary", "large_binary", "string_view"])
def test_of_parquet_only_the_text_changes(tmp_path: Path, kind: str) -> None:
    table = pa.Table.from_pylist(ROWS)
    place = table.schema.get_field_index("content")
    table = table.set_column(place, "content", table["content"].cast(getattr(pa, kind)()))
    pq.write_table(table.replace_schema_metadata({"ours": "kept"}), tmp_path / "in.parquet", row_group_size=2)
    report = redact([str(tmp_path / "in.parquet")], tmp_path / "out", PiiOptions())
    found = pq.read_table(tmp_path / "out/data/in.parquet")
    expected = redacted_rows()
    if "binary" in kind:
        expected = [row | {"content": row["content"] and row["content"].encode()} for row in expected]
        expected[4]["content"] = b""
    assert found.to_pylist() == expected
    assert found.schema.metadata[b"ours"] == b"kept"
    stored = {"string_view": "large_string"}.get(kind, kind)
    assert found.schema.field("content").type == getattr(pa, stored)()
    assert report["redactions"] == {"EMAIL": 3} and report["rows_redacted"] == 2
    assert report["languages"] == {"C": {"EMAIL": 2}, "Python": {"EMAIL": 1}}
    assert json.loads((tmp_path / "out/report.json").read_text()) == report
    assert MAIL not in (tmp_path / "out/report.json").read_text()


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_of_lines_all_bytes_stay_but_the_value(tmp_path: Path, suffix: str) -> None:
    raw = (
        '{"a": 1.50, "content" : "x MAIL y", "b":[1,  2], "é": "\\u00e9"}\n\n{"content":"é MAIL"}\r\n'
        '{"n": 1e400, "content": "none",   "content2": "MAIL"}\n{"content": null}'.replace("MAIL", MAIL)
    ).encode()
    path = tmp_path / f"rows.jsonl{suffix}"
    if suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as out:
            out.write(raw)
    else:
        path.write_bytes(gzip.compress(raw) if suffix else raw)
    redact([str(path)], tmp_path / "out", PiiOptions())
    made = tmp_path / "out/data" / path.name
    with (
        pa.CompressedInputStream(str(made), {".gz": "gzip", ".zst": "zstd"}[suffix]) if suffix else made.open("rb") as f
    ):
        found = f.read()
    mail, second = MAIL.encode(), raw.index(b"content2")
    assert found == raw[:second].replace(mail, b"<EMAIL>") + raw[second:] + b"\n"


def test_the_column_is_that_of_the_first_file_that_has_one_and_a_byte_order_mark_stays(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "%s"}\n' % MAIL.encode())
    assert redact([str(tmp_path)], tmp_path / "out", PiiOptions())["text"] == "text"
    assert (tmp_path / "out/data/b.jsonl").read_bytes() == b'\xef\xbb\xbf{"text": "<EMAIL>"}\n'
    assert (tmp_path / "out/data/a.jsonl").read_bytes() == b""
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "caf\xe9"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl, line 1"):
        redact([str(tmp_path)], tmp_path / "out", PiiOptions())


def test_what_is_not_utf8_is_looked_at_and_keeps_its_bytes(tmp_path: Path) -> None:
    texts = [b"\xff\xfe caf\xe9 " + MAIL.encode() + b" \x80", f"ok {MAIL}".encode(), b"\xe9"]
    pq.write_table(pa.table({"text": pa.array(texts, pa.binary())}), tmp_path / "in.parquet")
    lines(tmp_path / "in2.jsonl", [{"text": "\ud800 " + MAIL + " \udfff"}])
    report = redact([str(tmp_path)], tmp_path / "out", PiiOptions())
    found = pq.read_table(tmp_path / "out/data/in.parquet")["text"].to_pylist()
    assert found == [text.replace(MAIL.encode(), b"<EMAIL>") for text in texts]
    assert json.loads((tmp_path / "out/data/in2.jsonl").read_text())["text"] == "\ud800 <EMAIL> \udfff"
    assert report["not_utf8"] == 3 and report["redactions"] == {"EMAIL": 3}


def test_any_number_of_workers_gives_the_same_bytes_and_a_large_file_stays_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "x = 1\n" * 50
    rows = [{"id": i, "content": f"{code} mail {MAIL if i % 3 else i}\n", "lang": "C"} for i in range(200)]
    lines(tmp_path / "a.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "b.parquet", row_group_size=20)
    monkeypatch.setattr(redaction.plan_units, "__defaults__", (10_000, None))  # many units
    made = []
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        spans = tmp_path / f"spans{workers}.jsonl"
        redact([str(tmp_path / "[ab].*")], out, PiiOptions(), workers=workers, spans=spans)
        assert sorted(path.name for path in (out / "data").iterdir()) == ["a.jsonl", "b.parquet"]
        assert not (out / "stages").exists()
        made.append([(out / "data" / name).read_bytes() for name in ("a.jsonl", "b.parquet")] + [spans.read_bytes()])
    assert made[0] == made[1]
    assert [row["id"] for row in pq.read_table(tmp_path / "out2/data/b.parquet").to_pylist()] == list(range(200))
    first = json.loads(made[0][2].splitlines()[0])
    assert first["file"] == "a.jsonl" and first["row"] == 1
    assert rows[1]["content"].encode()[first["start"] : first["end"]].decode() == MAIL


def test_the_log_of_spans_is_for_its_owner_alone_and_holds_no_value(tmp_path: Path) -> None:
    lines(tmp_path / "in.jsonl", ROWS)
    redact([str(tmp_path / "in.jsonl")], tmp_path / "out", PiiOptions(), spans=tmp_path / "spans.jsonl")
    assert stat.S_IMODE((tmp_path / "spans.jsonl").stat().st_mode) == 0o600
    assert MAIL not in (tmp_path / "spans.jsonl").read_text()
    redact([str(tmp_path / "in.jsonl")], tmp_path / "out2", PiiOptions())
    assert sorted(path.name for path in (tmp_path / "out2").iterdir()) == [".lock", "data", "report.json"]
    with pytest.raises(UsageError, match="private"):
        redact([str(tmp_path / "in.jsonl")], tmp_path / "o", PiiOptions(), spans=tmp_path / "o/data/spans.jsonl")
    with pytest.raises(UsageError, match="files that are read"):
        redact([str(tmp_path / "in.jsonl")], tmp_path / "o", PiiOptions(), spans=tmp_path / "in.jsonl")


def test_a_dry_run_counts_and_writes_nothing(tmp_path: Path) -> None:
    lines(tmp_path / "in.jsonl", ROWS)
    told = json.loads(invoked(tmp_path / "in.jsonl", "--dry-run", "--json").splitlines()[-1])
    assert told["redactions"] == {"EMAIL": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_run_that_was_killed_leaves_no_file_and_goes_on(tmp_path: Path) -> None:
    lines(tmp_path / "in.jsonl", [{"content": f"{MAIL} {'y' * 200} {i}"} for i in range(60_000)])
    out = tmp_path / "out"
    words = [sys.executable, "-m", "stackbuild", "pii", str(tmp_path / "in.jsonl"), "--output", str(out)]
    with subprocess.Popen([*words, "--workers", "1"], start_new_session=True, stderr=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 60
        while not list(out.glob("stages/write/data/*")) and time.monotonic() < deadline and running.poll() is None:
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGKILL)
    assert not (out / "data").exists() and list(out.glob("stages/find/manifests/*.json"))
    assert stat.S_IMODE((out / "stages").stat().st_mode) == 0o700
    report = redact([str(tmp_path / "in.jsonl")], out, PiiOptions())
    assert report["redactions"] == {"EMAIL": 60_000}
    assert (out / "data/in.jsonl").read_bytes().count(b"<EMAIL>") == 60_000


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["in.jsonl"], 2, "--output DIR"),
        (["in.jsonl", "--output", "o", "--mode", "blur"], 2, "--mode"),
        (["in.jsonl", "--output", "o", "--entities", "MAIL"], 2, "--entities"),
        (["in.jsonl", "--output", "o", "--text", "body"], 4, "in.jsonl, line 1: it has no"),
        (["in.parquet", "--output", "o", "--text", "body"], 2, "no column 'body'"),
        (["in.parquet", "--output", "o", "--text", "id"], 2, "is int64, not text"),
        (["bad.jsonl", "--output", "o"], 4, "bad.jsonl, line 2"),
        (["twice.jsonl", "--output", "o"], 4, "2 times"),
        (["none.parquet", "--output", "o"], 4, "No rows"),
        (["torn.parquet", "--output", "o"], 4, "torn.parquet"),
        (["in.jsonl", "--output", "o", "--config", "bad.toml"], 3, "mode"),
        (["in.jsonl", "--output", "o", "--config", "other.toml"], 3, "no table"),
        (["in.jsonl", "--output", "o", "--config", "half.toml"], 3, "no TOML"),
    ],
)
def test_an_error_names_the_thing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    lines(tmp_path / "in.jsonl", ROWS)
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "in.parquet")
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "in.parquet").read_bytes()[:-9])
    (tmp_path / "bad.jsonl").write_text('{"content": "a"}\n{"content": \n')
    (tmp_path / "twice.jsonl").write_text(f'{{"content": "a", "content": "{MAIL}"}}\n')
    (tmp_path / "bad.toml").write_text('[pii]\nmode = "blur"\n')
    (tmp_path / "other.toml").write_text("[filters]\n")
    (tmp_path / "half.toml").write_text("[pii\n")
    assert told in invoked(*words, code=code)
    assert not (tmp_path / "o/data").exists()


def test_typed_options_go_before_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('seed = 1\n[pii]\nmode = "pseudonym"\nentities = ["KEY"]\n')
    found = options_of(tmp_path / "a.toml", None, "EMAIL, KEY", None)
    assert found.mode == "pseudonym" and found.entities == ("EMAIL", "KEY")
    with pytest.raises(InputError, match="cannot be read"):
        options_of(tmp_path / "none.toml", None, None, None)
    with pytest.raises(RecipeError, match="no table"):
        (tmp_path / "b.toml").write_text("pii = 1\n")
        options_of(tmp_path / "b.toml", None, None, None)


def test_files_of_a_configuration_are_sought_beside_it_and_told_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/own.toml").write_text(
        'format = 1\nversion = "1"\n[[key]]\nid = "acme"\nformats = ["acme_<hex 20>"]\nsource = "Acme"\n'
    )
    (tmp_path / "conf/pii.toml").write_text('[pii]\nrules = "own.toml"\nentities = ["KEY"]\n')
    lines(tmp_path / "in.jsonl", [{"content": "acme_0f3b" + "9c1d7e5a2846b0d3"}])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    told = invoked(tmp_path / "in.jsonl", "-o", tmp_path / "out", "--config", "../conf/pii.toml", "--json")
    assert json.loads(told)["redactions"] == {"KEY": 1} and json.loads(told)["options"]["rules"] == "own.toml"
    assert str(tmp_path) not in (tmp_path / "out/report.json").read_text()
    found = options_of(Path("../conf/pii.toml"), None, None, None)
    assert found.rules == str((tmp_path / "conf/own.toml").resolve())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--output", "in.jsonl"], "this is a file"),
        (["--output", "o", "--spans", "o"], "private"),
        (["--output", "o", "--spans", "o/report.json"], "private"),  # which the report would have replaced
        (["--output", "o", "--spans", "o/stages/s.jsonl"], "private"),  # which goes when the run ends
        (["--output", "o", "--spans", "folder"], "this is a folder"),
        (["--output", "o", "--spans", "in.jsonl/s"], "is no folder to write to"),
        (["--output", "o", "--spans", "folder/../link.jsonl"], "one of the files that are read"),
        (["--output", "o", "--language-column", "content"], "no value may stand in the report"),
    ],
)
def test_a_place_that_cannot_be_is_told_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = lines(tmp_path / "in.jsonl", ROWS).read_bytes()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.jsonl").symlink_to("in.jsonl")
    assert told in invoked("in.jsonl", *words, code=2)
    assert (tmp_path / "in.jsonl").read_bytes() == before and not (tmp_path / "o/data").exists()


def test_a_column_without_any_text_is_written_as_it_came(tmp_path: Path) -> None:
    table = pa.table({"content": pa.nulls(3), "n": [1, 2, 3]})
    pq.write_table(table, tmp_path / "in.parquet")
    assert redact([str(tmp_path / "in.parquet")], tmp_path / "out", PiiOptions())["rows"] == 3
    assert pq.read_table(tmp_path / "out/data/in.parquet").equals(table)


def test_bytes_of_half_a_surrogate_pair_in_a_line_stay(tmp_path: Path) -> None:
    """json.loads takes them, so they come out as they came."""
    line = b'{"a": "\xed\xa0\x80", "content": "' + MAIL.encode() + b' \xed\xa0\x80"}\n'
    (tmp_path / "in.jsonl").write_bytes(line)
    redact([str(tmp_path / "in.jsonl")], tmp_path / "out", PiiOptions())
    out = (tmp_path / "out/data/in.jsonl").read_bytes()
    assert out.startswith(b'{"a": "\xed\xa0\x80", "content": "<EMAIL> ')
    assert json.loads(out)["content"] == "<EMAIL> \ud800"


# ---------------------------------------------------------------- review


def reviewed(tmp_path: Path, rows: list[dict[str, Any]], *words: str) -> str:
    lines(tmp_path / "in.jsonl", rows)
    invoked("review", tmp_path / "in.jsonl", "--output", tmp_path / "page.html", *words)
    return (tmp_path / "page.html").read_text()


def test_the_page_of_findings_is_private_and_says_so(tmp_path: Path) -> None:
    text = reviewed(tmp_path, ROWS)
    assert stat.S_IMODE((tmp_path / "page.html").stat().st_mode) == 0o600
    assert "It is for you alone" in text and text.count(f">{MAIL}</mark>") == 3
    assert 'title="EMAIL by email; replaced by &lt;EMAIL&gt;"' in text
    assert "--output names the page" in invoked("review", tmp_path / "in.jsonl", "--output", tmp_path, code=2)


def test_the_page_is_not_written_over_what_it_is_of(tmp_path: Path) -> None:
    before = lines(tmp_path / "in.jsonl", ROWS).read_bytes()
    told = invoked("review", tmp_path / "in.jsonl", "--output", tmp_path / "in.jsonl", code=2)
    assert "one of the files that are read" in told and (tmp_path / "in.jsonl").read_bytes() == before
    told = invoked("review", tmp_path / "in.jsonl", "--output", tmp_path / "in.jsonl/page.html", code=2)
    assert "is no folder to write to" in told


def test_the_page_escapes_what_strangers_wrote_and_loads_nothing(tmp_path: Path) -> None:
    evil = f"<script>alert(1)</script> \u202e\0\x1b[31m {MAIL} </pre><img src=https://x.io/a>"
    text = reviewed(tmp_path, [{"content": evil, "language": "<b onclick=x>"}])
    assert "&lt;script&gt;" in text and "&lt;b onclick=x&gt;" in text
    for word in ("<script", "<img", "<link", "src=h", "href", "url(", "\u202e", "\0", "\x1b", "@import"):
        assert word not in text.replace("&lt;img src=https", ""), word
    for shown in ("⟨U+202E⟩", "⟨U+0000⟩", "⟨U+001B⟩"):
        assert shown in text
    style = text.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in text


def test_a_sample_holds_every_rule_and_counts_all(tmp_path: Path) -> None:
    rows = [{"content": f"mail {MAIL} {i}"} for i in range(50)] + [{"content": "host 52.94.76.10 is up"}]
    text = reviewed(tmp_path, rows, "--sample", "4")
    assert "4 of 51 findings" in text and text.count("<article") == 4 and ">52.94.76.10</mark>" in text
    assert text == reviewed(tmp_path, rows, "--sample", "4")
    assert text != reviewed(tmp_path, rows, "--sample", "4", "--seed", "1")
    for one in ("e0", "e1", "r0", "r1"):
        assert f'id="{one}" checked' in text and f"#{one}:not(:checked)" in text
