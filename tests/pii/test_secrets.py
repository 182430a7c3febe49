"""Secrets: every rule of rules.toml finds its own kind, and what is no secret stays."""

from __future__ import annotations

import random
import subprocess
import sys
from base64 import urlsafe_b64encode
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.pii import gate, rules
from stackbuild.pii.detection import Detection, Rules
from stackbuild.pii.replacements import known_values
from stackbuild.pii.secrets import SecretFinder, crc_is_right, entropy, has_run, is_snowflake
from stackbuild.pii.spans import Span, Texts

BOOK = rules.load()
FINDER = SecretFinder(BOOK, known_values(BOOK.ip))
RULES = Rules(BOOK, ["KEY"])
DETECTION = Detection({"rules": RULES})
ALNUM = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
URL = ALNUM + "_-"
BASE64 = ALNUM + "+/"
HEX = "0123456789abcdef"
UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def drawn(alphabet: str, length: int, seed: int = 1) -> str:
    """Bytes drawn at random, always the same: no test holds a key of anyone."""
    return "".join(random.Random(f"{alphabet}{length}{seed}").choices(alphabet, k=length))


def spans(text: str) -> list[tuple[str, str]]:
    """(rule, value) of all that is found in one text."""
    data = text.encode()
    found = DETECTION.spans(Texts.of(pa.array([text], pa.large_string())))
    return [(span.rule, data[span.start : span.end].decode()) for span in found]


def uuid(seed: int = 1) -> str:
    return "-".join(drawn(HEX, n, seed) for n in (8, 4, 4, 4, 12))


PEM_BODY = "\n".join(drawn(BASE64, 64, k) for k in range(6)) + "\nabcd=="

# (rule, text before, value, text after)
GOLDEN = [
    ("aws-access-key-id", "id=", "AKIA" + drawn("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16), "\n"),
    ("aws-secret-access-key", "aws_secret_access_key = ", drawn(BASE64, 40), "\n"),
    ("aws-secret-access-key", '"SecretAccessKey": "', drawn(BASE64, 40), '"'),
    ("google-api-key", "?key=", "AIza" + drawn(URL[:-1], 35), "&x"),
    ("google-oauth-secret", "'", "GOCSPX-" + drawn(ALNUM, 28), "'"),
    ("azure-storage-key", "AccountName=a;AccountKey=", drawn(BASE64, 86) + "==", ";"),
    ("digitalocean-token", "", "dop_v1_" + drawn(HEX, 64), ""),
    ("heroku-api-key", "", "HRKU-AA" + drawn(ALNUM, 58), "\r\n"),
    ("heroku-api-key-uuid", "HEROKU_API_KEY=", uuid(), "\n"),
    ("github-token", "git clone https://", "ghp_" + drawn(ALNUM, 36), "@github.com/x"),
    ("github-token", "", "ghs_" + drawn(ALNUM, 36), ""),
    ("github-refresh-token", "", "ghr_" + drawn(ALNUM, 76), " "),
    ("github-fine-grained-token", "", "github_pat_" + drawn(ALNUM, 22) + "_" + drawn(ALNUM, 59), "."),
    ("gitlab-token", ": ", "glpat-" + drawn(ALNUM, 20), "\n"),
    ("npm-token", "_authToken=", "npm_" + drawn(ALNUM, 36), "\n"),
    ("pypi-token", "password = ", "pypi-AgEIcHlwaS5vcmc" + drawn(URL, 150), "\n"),
    ("slack-token", "(", "xoxb-" + drawn("0123456789", 12) + "-" + drawn(ALNUM, 24), ")"),
    (
        "slack-webhook",
        "",
        "https://hooks.slack.com/services/T" + drawn(UPPER, 8) + "/B" + drawn(UPPER, 8) + "/" + drawn(ALNUM, 24),
        '"',
    ),
    ("stripe-key", "'", "sk_live_" + drawn(ALNUM, 24), "'"),
    ("stripe-key", "'", "rk_live_" + drawn(ALNUM, 99), "'"),
    ("stripe-webhook-secret", "", "whsec_" + drawn(ALNUM, 32), ""),
    ("sendgrid-key", "", "SG." + drawn(URL[:-1], 22) + "." + drawn(URL[:-1], 43), "\n"),
    ("twilio-key", '"', "SK" + drawn(HEX, 32), '"'),
    ("mailchimp-key", "=", drawn(HEX, 32) + "-us12", "\n"),
    (
        "discord-bot-token",
        "run('",
        urlsafe_b64encode(b"123498761234987612").decode() + "." + drawn(ALNUM, 6) + "." + drawn(ALNUM, 27),
        "')",
    ),
    ("telegram-bot-token", "bot", "", ""),  # replaced below: letters before the number are no edge
    ("openai-key", "", "sk-proj-" + drawn(ALNUM, 60), ""),
    ("openai-legacy-key", "Bearer ", "sk-" + drawn(ALNUM, 48), "\n"),
    ("anthropic-key", "", "sk-ant-api03-" + drawn(ALNUM, 93) + "AA", " "),
    ("huggingface-token", "", "hf_" + drawn(ALNUM[:52], 34), ""),
    ("jwt", "Bearer ", "eyJ" + drawn(ALNUM, 33) + ".eyJ" + drawn(ALNUM, 120) + "." + drawn(URL[:-1], 43), "\n"),
    ("private-key", "-----BEGIN RSA PRIVATE KEY-----\n", PEM_BODY, "\n-----END RSA PRIVATE KEY-----\n"),
    (
        "private-key",
        '"-----BEGIN PRIVATE KEY-----\\n',
        PEM_BODY.replace("\n", "\\n"),
        '\\n-----END PRIVATE KEY-----\\n"',
    ),
    ("url-credentials", "postgres://app:", "Zk3" + drawn(ALNUM, 9), "@db.internal:5432/x"),
    ("url-token", "git clone https://", drawn(ALNUM, 24, 5), "@github.com/x/y\n"),
    ("curl-user", "curl -sS -u 'jo:", "Zk3" + drawn(ALNUM, 9), "' https://x.io"),
    ("curl-user", "$ curl -X POST https://x.io --user jo:", "Zk3" + drawn(ALNUM, 9), "\n"),
    ("sql-identified-by", "CREATE USER 'jo'@'%' IDENTIFIED BY '", "Zk3" + drawn(ALNUM, 9), "';"),
    ("sql-identified-by", "alter user jo identified with caching_sha2_password by \\'", "Zk3" + drawn(ALNUM, 9), "\\'"),
    ("sql-identified-by", "CREATE ROLE jo WITH ENCRYPTED PASSWORD '", "Zk3" + drawn(ALNUM, 9), "';"),
    ("netrc", "machine api.x.io login jo password ", "Zk3" + drawn(ALNUM, 9), "\n"),
    ("netrc", "machine api.x.io\r\n\tlogin jo\r\n\tpassword ", "Zk3" + drawn(ALNUM, 9), "\r\n"),
    ("pgpass", "db.x.io:5432:app:jo:", "Zk3" + drawn(ALNUM, 9), ""),
    ("pgpass", "*:5432:*:jo@x:", "Zk3" + drawn(ALNUM, 9), "\r\n"),
    ("assigned-secret", 'client_secret = "', drawn(ALNUM, 32), '"'),
    ("assigned-secret", '"apiKey": \'', drawn(HEX, 32), "'"),
    ("assigned-secret", "TOKEN := `", drawn(BASE64, 40, 3), "`"),
]
GOLDEN = [row for row in GOLDEN if row[2]] + [
    ("telegram-bot-token", "token ", drawn("123456789", 9) + ":AA" + drawn(URL[:-1], 33), "\n")
]


@pytest.mark.parametrize(("rule", "before", "value", "after"), GOLDEN)
def test_a_rule_finds_its_kind(rule: str, before: str, value: str, after: str) -> None:
    assert (rule, value) in spans(f"x\n{before}{value}{after}") or spans(f"x\n{before}{value}{after}")[0][1] == value


@pytest.mark.parametrize(("rule", "before", "value", "after"), GOLDEN)
def test_a_key_may_stand_at_the_start_and_at_the_end(rule: str, before: str, value: str, after: str) -> None:
    """D2: a key at byte 0 must not fail."""
    assert [found for _, found in spans(before + value + after)] == [value]


def test_every_rule_has_a_golden_vector() -> None:
    """Those of providers.toml have theirs in test_providers."""
    assert {rule.id for rule in BOOK.rules if not rule.formats} <= {row[0] for row in GOLDEN}


@pytest.mark.parametrize(
    ("rule", "before", "value", "after"), [row for row in GOLDEN if row[0] in {r.id for r in BOOK.rules if r.prefixes}]
)
def test_a_token_that_is_longer_is_another_thing(rule: str, before: str, value: str, after: str) -> None:
    found = spans(f"{before}{value}{drawn(ALNUM, 1200)}{after}")
    assert not found or found[0][0] != rule


def test_github_checksum() -> None:
    """A published sample token: its last six bytes are the CRC-32 of the 30 before them, in base62."""
    assert crc_is_right(b"zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ" + b"0mLq17")
    assert not crc_is_right(b"zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ" + b"0mLq18")


def test_a_right_checksum_outweighs_a_word_in_the_token() -> None:
    import zlib

    from stackbuild.pii.secrets import BASE62

    body = "example" + drawn(ALNUM, 23)
    crc, digits = zlib.crc32(body.encode()), ""
    while crc:
        crc, digit = divmod(crc, 62)
        digits = BASE62[digit] + digits
    assert spans(f"ghp_{body}{digits.rjust(6, '0')}") and not spans(f"ghp_{body}AAAAAA")


@pytest.mark.parametrize(
    "text",
    [
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_" + "x" * 36,
        "ghp_" + "0" * 36,
        "sk_live_your_key_goes_here_0000",
        "password = 'correct-horse-battery-staple'",
        'api_key = "INSERT_YOUR_API_KEY_HERE"',
        'token = "${{ secrets.GITHUB_TOKEN }}"',
        'secret: "{{ lookup_the_secret_of_0123 }}"',
        'token_url = "https://auth.internal/oauth2/token/v2"',
        'PublicKeyToken="' + drawn(HEX, 32) + '"',
        'tokenizer_file = "' + drawn(HEX, 40) + '"',
        'sha_token = "sha1 of it:' + '"',
        'secretName: "myServiceAccountCredentialsV2x1"',
        'key = "' + drawn(ALNUM, 32) + '"',
        "https://user:password@host.io/",
        "https://user:${PASSWORD}@host.io/",
        "https://token:MY_GITHUB_SECRET@host.io/",
        "postgres://postgres:postgres@db/x",
        "task-sk-risk desk-" + drawn(ALNUM, 48),
        "-----BEGIN RSA PRIVATE KEY-----\n...\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PUBLIC KEY-----\n" + PEM_BODY + "\n-----END PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----\n" + PEM_BODY + "\n-----END CERTIFICATE-----",
        "commit " + drawn(HEX, 40),
        "https://a-user-with-a-long-name@github.com/x/y",
        "https://" + uuid() + "@dev.azure.com/x",
        drawn(ALNUM, 24) + "@github.com",
        "curl -u jo:$PASSWORD_1 https://x.io",
        'curl -u "$LOGIN:$PASSWORD_1" x; curl -u ${A}:${B} x; curl -u %s:%s x',
        "curl -u user:password https://x.io",
        "curl -u jo:<password> x; curl -u jo: x; curl --user-agent x:Zk39dk3Lq1",
        "curl https://x.io\necho -u jo:Zk39dk3Lq1",
        "IDENTIFIED BY 'password'; IDENTIFIED BY '%s'; IDENTIFIED BY '<password>'; IDENTIFIED BY $1",
        "users are identified by 'their login' and with password 'x'",
        "machine x.io login jo password $PASSWORD_1",
        "machine x.io login username password password",
        "type line struct {\n\tmachine  string\n\tlogin    string\n\tpassword string\n}",  # a reader of such files
        "the machine learning login needs a password abc12345",
        "127.0.0.1:5432:5432\nlocalhost:5432:db:user:password\nx:5432:a:b:${PGPASSWORD}\n",
        "a:5432:db:jo:Zk39dk3Lq1:z",
        drawn(HEX, 32) + "-usage",
        'client_secret = "' + uuid() + '"',
        "MzQ1" + drawn(ALNUM, 20) + ".abcdef." + drawn(ALNUM, 27),
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert spans(text) == []


@pytest.mark.parametrize(("asked", "entity"), [(["KEY", "PASSWORD"], "PASSWORD"), (["KEY"], "KEY")])
def test_a_rule_may_say_that_what_it_finds_is_a_password(asked: list[str], entity: str) -> None:
    texts = Texts.of(pa.array(["curl -u jo:Zk39dk3Lq1 x"], pa.large_string()))
    assert {span.entity for span in Rules(BOOK, asked).find(texts)} == {entity}


def test_a_digest_behind_its_word_stays_and_judges_no_other() -> None:
    """D2, D4: each occurrence by its own line; a hundred digests hide no key."""
    digest, secret = drawn(HEX, 40, 1), drawn(HEX, 40, 2)
    text = f'sha1 secret = "{digest}"\n' * 100 + f'secret = "{secret}"\n'
    assert spans(text) == [("assigned-secret", secret)]


def test_a_private_key_beside_a_hundred_digests() -> None:
    """D4."""
    text = "".join(f"sha256 hash {drawn(HEX, 64, k)}\n" for k in range(100))
    text += f"-----BEGIN EC PRIVATE KEY-----\r\n{PEM_BODY}\r\n-----END EC PRIVATE KEY-----\r\n"
    assert spans(text) == [("private-key", PEM_BODY)]


def test_a_secret_is_a_secret_wherever_it_stands() -> None:
    """D2: two occurrences. The first, in a comment, is known only by the second."""
    secret = drawn(ALNUM, 32)
    text = f'# {secret}\nsecret = "{secret}"\nx{secret}\n'
    assert spans(text) == [("assigned-secret", secret)] * 2


def test_an_encrypted_private_key_keeps_its_headers() -> None:
    head = f"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,{drawn(HEX, 32)}\n\n"
    assert spans(f"{head}{PEM_BODY}\n-----END RSA PRIVATE KEY-----") == [("private-key", PEM_BODY)]


def test_a_torn_private_key_goes_too() -> None:
    assert spans(f"-----BEGIN PRIVATE KEY-----\n{PEM_BODY}")[0][0] == "private-key"


def test_measures() -> None:
    assert entropy(b"aaaa") == 0 and entropy(b"ab") == 1 and entropy(b"") == 0
    assert has_run(b"xaaab", 3) and not has_run(b"xaabaa", 3) and not has_run(b"", 1)
    assert is_snowflake(urlsafe_b64encode(b"1" * 18)) and not is_snowflake(b"MMMMMMMMMMMMMMMMMMMMMMMM")


FRAGMENTS = st.sampled_from([row[1] + row[2] + row[3] for row in GOLDEN] + [row[2][:-1] for row in GOLDEN])
FILLER = st.text(st.sampled_from("ab.:/@-_ =\"'\n\r\té漢\x00sk"), max_size=40)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(FRAGMENTS, FILLER), max_size=8))
def test_the_gate_loses_nothing(parts: list[str]) -> None:
    """What the windows about the gate's hits give is what each rule gives over the whole text."""
    text = "".join(parts) or "x"
    texts = Texts.of(pa.array([text], pa.large_string()))
    hits = gate.hits(texts, RULES.automaton)
    gated = {span for span in FINDER.find(texts, hits) if span.rule != "private-key"}
    whole: set[Span] = set()
    for number, rule in enumerate(BOOK.rules):
        if rule.shape != "pem":
            everywhere = replace(rule, before=len(texts.data), reach=len(texts.data))
            whole |= set(FINDER._matches(texts, np.array([[number, 0, 0]]), everywhere))
    assert gated == whole


def certificate() -> str:
    lines = "\n".join(drawn(BASE64, 64, k) for k in range(12))
    return f"-----BEGIN CERTIFICATE-----\nMIID{lines}\n-----END CERTIFICATE-----\n"


LOCKS = {
    "yarn": f'  resolved "https://registry.yarnpkg.com/a/-/a-1.2.3.tgz#{drawn(HEX, 40)}"\n  integrity sha512-{drawn(BASE64, 86)}==\n',
    "npm": f'"node_modules/auth-token": {{"version": "2.5.0", "integrity": "sha512-{drawn(BASE64, 86, 2)}=="}}\n',
    "cargo": f'name = "secret-key"\nversion = "0.1.9"\nchecksum = "{drawn(HEX, 64)}"\n',
    "poetry": f'content-hash = "{drawn(HEX, 64)}"\n{{file = "token-1.0.whl", hash = "sha256:{drawn(HEX, 64, 2)}"}}\n',
    "go": f"github.com/acme/secrets v1.2.3 h1:{drawn(BASE64, 43)}=\n",
    "pip": f"pytoken==1.2.3 \\\n    --hash=sha256:{drawn(HEX, 64)}\n",
    "composer": f'"content-hash": "{drawn(HEX, 32)}", "reference": "{drawn(HEX, 40)}", "shasum": ""\n',
    "gemfile": f"  revision: {drawn(HEX, 40)}\n  stripe (5.1.0)\n",
    "sri": f'<script src="//cdn/x.js" integrity="sha384-{drawn(BASE64, 64)}" crossorigin></script>\n',
    "secret digest": f'secret_sha256 = "{drawn(HEX, 64)}"\napi_key_md5: "{drawn(HEX, 32)}"\n',
    "token integrity": f'token: "sha512-{drawn(BASE64, 86)}=="\n',
}


@pytest.mark.parametrize("name", LOCKS)
def test_lock_files_and_checksums_stay(name: str) -> None:
    assert spans(LOCKS[name]) == []


@pytest.mark.parametrize(
    "text",
    [
        f"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQ{drawn(BASE64, 300)} jo@host",
        f'access_key = "AAAAB3NzaC1yc2EAAAADAQABAAAB{drawn(BASE64, 100)}"',
        f'authKey: "AAAAC3NzaC1lZDI1NTE5AAAAI{drawn(BASE64, 43)}"',
        certificate(),
        f'"certificate": "MIID{drawn(BASE64, 900)}"',
        f"url(data:font/woff2;base64,d09GMgABAAAAA{drawn(BASE64, 4000)})",
        f'<img src="data:image/png;base64,AKIA{drawn(ALNUM, 200)}==">',
        f'token = "data:image/png;base64,iVBORw0KGgo{drawn(BASE64, 80)}"',
        f"var a={{b:function(c){{return c.token.key(d)}},e:'{drawn(BASE64, 2000)}'}};" * 3,
        "!function(e,t){var secret=function(n){return n.access_key||n.key};e.token=t.auth,e.password=t.pass}(a,b);"
        * 20,
        f"{drawn(BASE64, 5000)}",
        f"{drawn(BASE64, 100)}/AKIA{drawn('ABCDEFGHIJKLMNOP', 16)}/{drawn(BASE64, 100, 2)}",  # by chance in a blob
        f"request-id: {uuid(1)}\nsecret_id = {uuid(2)}\ntoken: {uuid(3)}\n",
        'secret_version = "1.22.333.4444-beta.5+build.678901"\ntoken.version: "2024.11.22.1122334455"\n',
        "aws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n",
        "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        "Authorization: Bearer mF_9.B5f-4.1JqM",
    ],
    ids=range(17),
)
def test_public_keys_blobs_and_documentation_stay(text: str) -> None:
    """Public keys and certificates, data: URIs, minified code, UUIDs, versions, sample values of documentation."""
    assert spans(text) == []


@pytest.mark.slow
def test_memory_is_flat_on_a_line_of_200_megabytes() -> None:
    """Beside the line itself: less than a quarter of it."""
    program = """
import resource, sys
import pyarrow as pa
from stackbuild.pii import rules
from stackbuild.pii.detection import Detection, Rules
from stackbuild.pii.spans import Texts
detection = Detection({"rules": Rules(rules.load(), ["KEY", "EMAIL", "IP_ADDRESS"])})
unit = b"var a=function(b){return b.token.key||c[1.2]}({e:'x@y',f:'token='+g.secret+'AKIA'+d}),sk_live_=ghp_;"
line = unit * (200_000_000 // len(unit))
offsets = pa.array([0, len(line)], pa.int64()).buffers()[1]
column = pa.Array.from_buffers(pa.large_string(), 1, [None, offsets, pa.py_buffer(line)])
detection.spans(Texts.of(pa.array(["x"], pa.large_string())))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert detection.spans(Texts.of(column)) == []
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50_000
