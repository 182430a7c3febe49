"""E-mail addresses: what goes and what stays (SantaCoder's rule, its defect D7, RFC 2606)."""

from __future__ import annotations

import pyarrow as pa
import pytest

from stackbuild.pii import rules
from stackbuild.pii.detection import Detection, Rules
from stackbuild.pii.spans import Texts

RULES = Rules(rules.load(), ["EMAIL"])
DETECTION = Detection({"rules": RULES})


def emails(text: str) -> list[str]:
    data = text.encode()
    found = DETECTION.spans(Texts.of(pa.array([text], pa.large_string())))
    return [data[span.start : span.end].decode() for span in found]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("joe.bloggs+tag@mail.firm.co.uk", "joe.bloggs+tag@mail.firm.co.uk"),
        ("Copyright (c) 2001 Jo B <jo@firm.org>\n", "jo@firm.org"),
        ('<a href="mailto:jo@firm.de">', "jo@firm.de"),
        ("mail jo@firm.com.", "jo@firm.com"),
        ("jo@firm.com, x", "jo@firm.com"),
        ("email: jo@firm.com:", "jo@firm.com"),
        ("'jo_b@163.com'", "jo_b@163.com"),
        ("--author=jo@firm.io", "jo@firm.io"),
        ("联系jo@firm.cn，谢谢", "jo@firm.cn"),
        ("josé@müller.de", "josé@müller.de"),
        ("jo@xn--mller-kva.de", "jo@xn--mller-kva.de"),
        ("jo@firm.xn--p1ai", "jo@firm.xn--p1ai"),
        ("E<lt>jo@firm.orgE<gt>", "jo@firm.org"),
        ('"a\\njo@firm.org\\n"', "jo@firm.org"),
        ("\\u003cjo@firm.org\\u003e", "jo@firm.org"),
        ("mailto%3Ajo@firm.org", "jo@firm.org"),
        ("&lt;jo@firm.org&gt;", "jo@firm.org"),
        ("x\0jo@firm.org\0", "jo@firm.org"),
        ("jo@firm.org\r\n", "jo@firm.org"),
        ("JO@FIRM.ORG", "JO@FIRM.ORG"),
        ("-jo@firm.org", "jo@firm.org"),
    ],
)
def test_an_address_goes(text: str, address: str) -> None:
    assert emails(text) == [address]


@pytest.mark.parametrize(
    "text",
    [
        "git@github.com:owner/repo.git",
        "aes256-gcm@openssh.com",
        "ssh://git@host.org/x",
        "hg@bitbucket.org/x",
        "jo@host.org:path/repo.git",
        "org-123@github.com:owner/repo",
        "ssh://jo@host.org:22/x",
        "https://jo:pw@host.org/x",
        "https://jo@host.org/x",
        "jo@example.com",
        "jo@mail.example.org",
        "jo@localhost",
        "jo@host.localdomain",
        "jo@x.invalid",
        "icon@2x.png",
        "icon@3x.jpg",
        "lodash@4.17.21",
        "pkg@1.2.3-beta.com",
        "pkg@v1.2.io",
        "getty@tty1.service",
        "%s@firm.com",
        "$user@firm.com",
        "${user}@firm.com",
        "{}jo@firm.com",
        "cdn/npm/vue@next.com",
        "y = A@x.select(1)",
        "W@x.call()",
        "@pytest.mark.parametrize",
        "a@@b.com",
        "a..b@firm.com",
        "a.@firm.com",
        "jo@firm.com.nosuchtld",
        "jo@-firm.com",
        "jo@firm-.com",
        "x" * 65 + "@firm.com",
        "jo@" + "a" * 64 + ".com",
        "jo@" + "a." * 127 + "com",
        "@firm.com",
        "jo@.com",
        "jo@firm",
        "<EMAIL>",
    ],
)
def test_what_is_no_address_stays(text: str) -> None:
    assert emails(text) == []


def test_addresses_side_by_side() -> None:
    assert emails("a@firm.com,b@firm.com;c@firm.com d@firm.com") == [f"{x}@firm.com" for x in "abcd"]
