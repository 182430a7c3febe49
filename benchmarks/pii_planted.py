"""Labelled texts: secrets and personal data of many shapes, and as many look-alikes, planted in real source files.

    python -m benchmarks.pii_planted OUT.jsonl [--input PARQUET ...] [--each 8] [--seed 42]

A line of OUT has id, text, language, spans [{start, end, entity, kind}] (characters) and decoys [{start, end, kind}]. Nothing of
our rules is imported. Carriers are files that hold none of it by a criterion of their own: no @, no four numbers with dots, no
word of secrets or authors. Each kind stands `--each` times, in turn in a comment, a literal, a setting, alone on a line.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.pii_carriers import carriers
from benchmarks.pii_keys import ALNUM, BASE64, DIGITS, HEX, KEYS, LOWER, UPPER, guid, pem, run

COMMENT = {"Python": "# ", "Perl": "# ", "Ruby": "# ", "Shell": "# ", "YAML": "# "}
OTHER = re.compile("=([A-Z_]+)=")  # before a value that is of another entity than its snippet
MARK = "\0"  # stands before and behind a value while a snippet is made


@dataclass(frozen=True)
class Snippet:
    """Lines to plant: `text` with each value between two MARKs. `entity`: "" for a look-alike. `place`: start, end or "" (any)."""

    kind: str
    entity: str
    text: str
    place: str = ""


Write = Callable[[Random], str]


def word(random: Random) -> str:
    """A word that can be said."""
    return "".join(random.choice("bcdfghklmnprstvw") + random.choice("aeiou") for _ in range(random.randint(2, 4)))


def name(random: Random) -> str:
    given = ("Maria", "Ahmed", "Wei", "Olga", "José", "Anna", "Rahul", "Kofi", "Ingrid", "Tomás", "Yuki", "Peter")
    return f"{random.choice(given)} {word(random).capitalize()}{random.choice(('', 'son', 'ez', 'ski', 'er'))}"


def domain(random: Random) -> str:
    return f"{word(random)}{word(random)}.{random.choice(('com', 'org', 'net', 'io', 'de', 'fr', 'co.uk', 'com.br', 'in', 'dev'))}"


def mail(random: Random) -> str:
    return f"{word(random)}{random.choice('._-')}{word(random)}@{domain(random)}"


def v4(random: Random) -> str:
    while True:
        found = ".".join(str(random.randint(21, 223)) for _ in range(4))
        if ip_address(found).is_global:
            return found


def v6(random: Random, zeros: bool = True) -> str:
    groups = [random.choice((0x2A01, 0x2600, 0x2404, 0x2001)), *(random.randrange(0x1000, 1 << 16) for _ in range(7))]
    if groups[0] == 0x2001:
        groups[1] = 0x0470
    if zeros:
        groups[3:7] = [0] * 4
    found = IPv6Address(b"".join(group.to_bytes(2, "big") for group in groups))
    return str(found)


def m(value: str) -> str:
    return MARK + value + MARK


EMAILS: Mapping[str, Write] = {
    "plain": lambda r: m(mail(r)),
    "plus": lambda r: "contact " + m(f"{word(r)}+{word(r)}@{domain(r)}"),
    "subdomain": lambda r: m(f"{word(r)}@mail.{word(r)}.{domain(r)}"),
    "digits": lambda r: m(f"{word(r)}{r.randint(10, 9999)}@{domain(r)}"),
    "one-letter": lambda r: "see " + m(f"{r.choice(LOWER)}@{domain(r)}") + " for it",
    "upper": lambda r: "MAIL " + m(mail(r).upper()),
    "apostrophe-local": lambda r: '"' + m(f"o'{word(r)}@{domain(r)}") + '"',
    "idn": lambda r: "an " + m(f"{word(r)}@{word(r)}-bücher.de"),
    "unicode-tld": lambda r: "кому: " + m(f"{word(r)}@почта.рф"),
    "unicode-local": lambda r: "to " + m(f"jörg.{word(r)}@{domain(r)}"),
    "punycode": lambda r: "to " + m(f"{word(r)}@xn--{word(r)}-{word(r)}.de"),
    "long-tld": lambda r: "write to " + m(f"{word(r)}@{word(r)}.photography"),
    "hyphens": lambda r: m(f"{word(r)}-{word(r)}@{word(r)}-{word(r)}.com"),
    "angle": lambda r: f"{word(r).capitalize()} <" + m(mail(r)) + ">",
    "mailto": lambda r: '<a href="mailto:' + m(mail(r)) + '">mail</a>',
    "mailto-subject": lambda r: "mailto:" + m(mail(r)) + "?subject=hello",
    "quoted": lambda r: "'" + m(mail(r)) + "'",
    "json": lambda r: '{"email": "' + m(mail(r)) + '", "n": 1}',
    "xml": lambda r: '<user mail="' + m(mail(r)) + '"/>',
    "parentheses": lambda r: "(" + m(mail(r)) + ")",
    "brackets": lambda r: "[" + m(mail(r)) + "]",
    "comma-list": lambda r: m(mail(r)) + ", " + m(mail(r)) + "," + m(mail(r)),
    "semicolon": lambda r: m(mail(r)) + ";",
    "full-stop": lambda r: "Write to " + m(mail(r)) + ".",
    "question": lambda r: "Is it " + m(mail(r)) + "?",
    "colon": lambda r: m(mail(r)) + ": the owner",
    "url-query": lambda r: f"https://{domain(r)}/send?to=" + m(mail(r)) + "&x=1",
    "setting": lambda r: "ADMIN_EMAIL=" + m(mail(r)),
    "tab": lambda r: "1\t" + m(mail(r)) + "\t0",
    "pipe": lambda r: "a|" + m(mail(r)) + "|b",
    "backticks": lambda r: "`" + m(mail(r)) + "`",
    "escaped-newline": lambda r: '"To: ' + m(mail(r)) + '\\n"',
    "file-start": lambda r: m(mail(r)) + " wrote this",
    "file-end": lambda r: "mail " + m(mail(r)),
}
V4: Mapping[str, Write] = {
    "plain": lambda r: m(v4(r)),
    "quoted": lambda r: '"' + m(v4(r)) + '"',
    "port": lambda r: "connect " + m(v4(r)) + f":{r.randint(80, 9999)}",
    "cidr": lambda r: "allow " + m(v4(r)) + "/32",
    "url": lambda r: "http://" + m(v4(r)) + "/index.html",
    "url-port": lambda r: "http://" + m(v4(r)) + f":{r.randint(1024, 9999)}/api",
    "brackets": lambda r: "[" + m(v4(r)) + "]",
    "setting": lambda r: "HOST=" + m(v4(r)),
    "comma-list": lambda r: m(v4(r)) + "," + m(v4(r)),
    "range": lambda r: m(v4(r)) + " - " + m(v4(r)),
    "full-stop": lambda r: "It is at " + m(v4(r)) + ".",
    "ssh": lambda r: "ssh root@" + m(v4(r)),
    "log": lambda r: m(v4(r)) + ' - - [10/Oct/2000:13:55:36] "GET / HTTP/1.0" 200',
    "hosts": lambda r: m(v4(r)) + f"\t{word(r)}",
    "file-start": lambda r: m(v4(r)) + " is up",
    "file-end": lambda r: "ping " + m(v4(r)),
}
V6: Mapping[str, Write] = {
    "full": lambda r: "addr " + m(v6(r, zeros=False)),
    "compressed": lambda r: "addr " + m(v6(r)),
    "quoted": lambda r: '"' + m(v6(r)) + '"',
    "upper": lambda r: '"' + m(v6(r, zeros=False).upper()) + '"',
    "leading-zeros": lambda r: "addr " + m(IPv6Address(v6(r)).exploded),
    "url-brackets": lambda r: "http://[" + m(v6(r)) + "]/",
    "port": lambda r: "[" + m(v6(r)) + f"]:{r.randint(80, 9999)}",
    "cidr": lambda r: "route " + m(v6(r)) + "/64",
    "zone": lambda r: "addr " + m(v6(r)) + "%eth0",
    "v4-mapped": lambda r: "addr " + m(f"::ffff:{v4(r)}"),
    "setting": lambda r: "listen=" + m(v6(r)),
    "comma": lambda r: m(v6(r)) + ", " + m(v6(r)),
    "file-start": lambda r: m(v6(r)) + " is up",
    "file-end": lambda r: "ping6 " + m(v6(r)),
}


def password(random: Random) -> str:
    return f"{word(random).capitalize()}{random.choice('!#%+')}{random.randint(10, 99)}{word(random)}{random.choice(UPPER)}"


PASSWORDS: Mapping[str, Write] = {
    "assignment": lambda r: 'password = "' + m(password(r)) + '"',
    "setting": lambda r: "DB_PASSWORD=" + m(password(r).replace("#", "!")),
    "yaml": lambda r: "  password: " + m(password(r).replace("#", "!")),
    "json": lambda r: '"db_password": "' + m(password(r)) + '",',
    "url": lambda r: (
        f"postgres://{word(r)}:" + m(password(r).replace("#", "-").replace("%", "-")) + f"@db.{domain(r)}/main"
    ),
    "call": lambda r: f'connect("{word(r)}", password="' + m(password(r)) + '")',
    "properties": lambda r: "spring.datasource.password=" + m(password(r).replace("#", "!")),
    "xml": lambda r: "<password>" + m(password(r)) + "</password>",
}
NAMES: Mapping[str, Write] = {
    "author-tag": lambda r: "@author " + m(name(r)),
    "signed-off": lambda r: "Signed-off-by: " + m(name(r)) + " <" + m("=EMAIL=" + mail(r)) + ">",
    "author-field": lambda r: '__author__ = "' + m(name(r)) + '"',
    "written-by": lambda r: "Written by " + m(name(r)) + ", 2019",
    "maintainer": lambda r: "Maintainer: " + m(name(r)),
}


def digest(length: int) -> Write:
    return run(HEX, length)


DECOYS: Mapping[str, Write] = {
    "version-four": lambda r: 'version = "' + m(f"{r.randint(0, 9)}.{r.randint(0, 20)}.{r.randint(0, 20)}.{r.randint(0, 9)}") + '"',
    "version-browser": lambda r: "Chrome/" + m(f"{r.randint(80, 120)}.0.{r.randint(4000, 6000)}.{r.randint(10, 200)}") + " Safari/537.36",
    "version-assembly": lambda r: '[assembly: AssemblyVersion("' + m(f"{r.randint(1, 30)}.{r.randint(1, 50)}.0.0") + '")]',
    "section": lambda r: "see section " + m(f"{r.randint(1, 9)}.{r.randint(1, 9)}.{r.randint(1, 9)}.{r.randint(1, 9)}"),
    "oid": lambda r: "OID " + m(f"1.3.6.1.4.1.{r.randint(100, 9999)}.1"),
    "private-v4": lambda r: "host " + m(r.choice(("10.0.0.", "192.168.1.", "172.16.4.")) + str(r.randint(1, 254))),
    "loopback": lambda r: "bind " + m("127.0.0.1"),
    "any": lambda r: "listen " + m("0.0.0.0"),
    "netmask": lambda r: "netmask " + m("255.255.255.0"),
    "documentation-v4": lambda r: "addr " + m(r.choice(("192.0.2.", "198.51.100.", "203.0.113.")) + str(r.randint(1, 254))),
    "documentation-v6": lambda r: "addr " + m(f"2001:db8::{r.randint(1, 9999):x}"),
    "link-local-v6": lambda r: "addr " + m(f"fe80::{r.randint(1, 65535):x}:{r.randint(1, 65535):x}"),
    "resolver": lambda r: "dns " + m(r.choice(("8.8.8.8", "8.8.4.4", "1.1.1.1", "9.9.9.9"))),
    "time": lambda r: "at " + m(f"{r.randint(10, 23)}:{r.randint(10, 59)}:{r.randint(10, 59)}"),
    "mac": lambda r: "mac " + m(":".join(run(HEX, 2)(r) for _ in range(6))),
    "scope-names": lambda r: m(r.choice(("face::cafe", "bed::decade", "dead::beef", "add::Fee", "ab::cd::ef"))) + "(x);",
    "clone": lambda r: "git clone " + m(f"git@{r.choice(('github.com', 'gitlab.com'))}:{word(r)}/{word(r)}.git"),
    "clone-other-host": lambda r: "url = " + m(f"git@git.{domain(r)}:{word(r)}/{word(r)}.git"),
    "retina": lambda r: "url(" + m(f"{word(r)}@{r.randint(2, 3)}x.png") + ")",
    "package-at-version": lambda r: m(f"{word(r)}@{r.randint(1, 9)}.{r.randint(0, 20)}.{r.randint(0, 9)}"),
    "scoped-package": lambda r: 'require("' + m(f"@{word(r)}/{word(r)}.js") + '")',
    "decorator": lambda r: m(f"@{word(r)}.{word(r)}.setter"),
    "doc-tag": lambda r: " * " + m("@param") + f" {word(r)} the value",
    "matrix-product": lambda r: "y = " + m(f"{word(r)}@{word(r)}.T"),
    "example-domain": lambda r: "mail " + m(f"{word(r)}@example.{r.choice(('com', 'org', 'net'))}"),
    "localhost-mail": lambda r: "mail " + m(f"{word(r)}@localhost"),
    "commit": lambda r: "fixed in commit " + m(digest(40)(r)),
    "sha256-line": lambda r: "sha256:" + m(digest(64)(r)),
    "md5-line": lambda r: m(digest(32)(r)) + f"  {word(r)}.tar.gz",
    "checksum-setting": lambda r: 'checksum = "' + m(digest(64)(r)) + '"',
    "lock-integrity": lambda r: '"integrity": "' + m("sha512-" + run(BASE64, 86)(r) + "==") + '",',
    "go-sum": lambda r: f"github.com/{word(r)}/{word(r)} v1.2.3 " + m("h1:" + run(BASE64, 43)(r) + "="),
    "uuid": lambda r: 'id = "' + m(guid(r)) + '"',
    "uuid-key": lambda r: 'client_key = "' + m(guid(r)) + '"',
    "base64-data": lambda r: 'src="data:image/png;base64,' + m("iVBORw0KGgo" + run(BASE64, 120)(r)) + '"',
    "css-colour": lambda r: "color: " + m("#" + digest(6)(r)) + ";",
    "placeholder-words": lambda r: 'api_key = "' + m(r.choice(("your-api-key-here", "YOUR_API_KEY", "changeme", "insert-token"))) + '"',
    "placeholder-x": lambda r: 'token = "' + m("x" * r.randint(16, 40)) + '"',
    "placeholder-angle": lambda r: "password: " + m("<your password>"),
    "aws-example": lambda r: "aws_access_key_id = " + m("AKIAIOSFODNN7" + "EXAMPLE"),
    "aws-example-secret": lambda r: "aws_secret_access_key = " + m("wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + "EXAMPLEKEY"),
    "template-dollar": lambda r: "password=" + m("${DB_PASSWORD}"),
    "template-braces": lambda r: "token: " + m("{{ secrets.API_TOKEN }}"),
    "environment": lambda r: "secret = " + m('os.environ["CLIENT_SECRET_VALUE"]'),
    "call-value": lambda r: "password = " + m("getpass.getpass(prompt)"),
    "message-key": lambda r: 'password = "' + m("Please enter your password") + '"',
    "identifier-value": lambda r: 'token_type = "' + m(f"{word(r)}_{word(r)}_{word(r)}") + '"',
    "sequential": lambda r: 'key = "' + m("abcdefghijklmnopqrstuvwxyz0123456789") + '"',
    "public-key": lambda r: m("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + run(BASE64, 43)(r)),
    "certificate": lambda r: m(pem("", 700)(r).replace("PRIVATE KEY", "CERTIFICATE")),
    "constant-hex": lambda r: "const K = " + m("0x" + digest(16)(r)) + ";",
    "long-identifier": lambda r: m("com_" + "_".join(word(r) for _ in range(7))) + "()",
    "phone-like": lambda r: "n = " + m(run(DIGITS, 10)(r)),
    "minified-name": lambda r: "a." + m(run(ALNUM, 8)(r)) + "=1",
}  # fmt: skip


def snippets(each: int, random: Random) -> Iterator[Snippet]:
    """All kinds, `each` times; look-alikes as often as others together."""
    kinds: list[tuple[str, str, Write]] = []
    for family, entity, writes in (
        ("email", "EMAIL", EMAILS),
        ("ipv4", "IP_ADDRESS", V4),
        ("ipv6", "IP_ADDRESS", V6),
        ("password", "PASSWORD", PASSWORDS),
        ("name", "NAME", NAMES),
    ):
        kinds += [(f"{family}:{kind}", entity, write) for kind, write in writes.items()]
    count = 0
    for kind, entity, write in kinds:
        edge = next((edge for edge in ("start", "end") if kind.endswith(f":file-{edge}")), "")
        for _ in range(each):
            yield Snippet(kind, entity, write(random), edge)
            count += 1
    for kind, (make, variable) in KEYS.items():
        for turn in range(each):
            yield Snippet(f"key:{kind}", "KEY", _key_line(make(random), variable, turn))
            count += 1
    decoys = list(DECOYS.items())
    for number in range(count):
        kind, write = decoys[number % len(decoys)]
        yield Snippet(kind, "", write(random))


def _key_line(value: str, variable: str, turn: int) -> str:
    """A key as people write it: in a literal, a setting, YAML, a call, a shell's export."""
    if value.startswith("-----"):
        head, _, rest = value.partition("\n")
        body, _, foot = rest.rpartition("\n")
        return f"{head}\n{m(body)}\n{foot}"
    value = m(value)
    lines = (
        f'{variable} = "{value}"',
        f"{variable}={value}",
        f"{variable}: {value}",
        f"export {variable}='{value}'",
        f'client = Client("{variable}", {variable}="{value}")',
        f'"{variable}": "{value}",',
    )
    return lines[turn % len(lines)]


# ---------------------------------------------------------------- files


def planted(paths: Sequence[str], each: int, seed: int) -> Iterator[dict[str, Any]]:
    """The labelled texts."""
    random = Random(seed)
    waiting = list(snippets(each, random))
    random.shuffle(waiting)
    edges = {edge: [one for one in waiting if one.place == edge] for edge in ("start", "end")}
    waiting = [one for one in waiting if not one.place]
    files = carriers(paths, max(len(edges["start"]), len(edges["end"]), len(waiting) // 8))
    if not files:
        raise SystemExit("No file to plant in: name Parquet files with text and lang, --input.")
    share = -(-len(waiting) // len(files))
    for number, (language, text) in enumerate(files):
        some = waiting[number * share : (number + 1) * share]
        yield document(
            f"{number}-{language}",
            language,
            text,
            some,
            edges["start"].pop() if edges["start"] else None,
            edges["end"].pop() if edges["end"] else None,
            random,
        )


def document(
    id_: str,
    language: str,
    text: str,
    some: Sequence[Snippet],
    first: Snippet | None,
    last: Snippet | None,
    random: Random,
) -> dict[str, Any]:
    """A carrier with snippets on lines of their own between its lines."""
    lines: list[tuple[Snippet | None, str]] = [(None, line) for line in text.rstrip("\n").split("\n")]
    mark = COMMENT.get(language, "// ")
    for one in some:
        multi = "\n" in one.text
        prefix = mark if not multi and random.random() < 0.4 else "    " if random.random() < 0.3 else ""
        lines.insert(random.randint(1, len(lines)), (one, prefix + one.text))
    if first is not None:
        lines.insert(0, (first, first.text))
    if last is not None:
        lines.append((last, last.text))
    spans, decoys, out, at = list[dict[str, Any]](), list[dict[str, Any]](), list[str](), 0
    for one, line in lines:
        if one is None:
            out.append(line)
            at += len(line) + 1
            continue
        pieces, made = line.split(MARK), ""
        for place, found in enumerate(pieces):
            piece = found
            if place % 2:
                other = OTHER.match(piece)
                entity = other[1] if other else one.entity
                piece = piece[other.end() :] if other else piece
                span = {"start": at, "end": at + len(piece), "kind": one.kind}
                (spans if one.entity else decoys).append(span | ({"entity": entity} if entity else {}))
            made += piece
            at += len(piece)
        out.append(made)
        at += 1
    return {"id": id_, "language": language, "text": "\n".join(out), "spans": spans, "decoys": decoys}


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--input", nargs="*", default=[], help="Parquet files with text and lang")
    parser.add_argument("--each", type=int, default=8)
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    with options.output.open("w") as out:
        for row in planted(options.input, options.each, options.seed):
            out.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
