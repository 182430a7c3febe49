"""IP addresses: what goes and what stays (SantaCoder's rule, its defect D1, IANA's registries)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackbuild.pii import rules
from stackbuild.pii.addresses import AddressFinder
from stackbuild.pii.detection import Detection, Rules
from stackbuild.pii.spans import Texts

BOOK = rules.load()
RULES = Rules(BOOK, ["IP_ADDRESS"])
DETECTION = Detection({"rules": RULES})
REVISED = [ip_network("192.0.0.0/24"), ip_network("192.88.99.0/24")]  # versions of Python differ here
FINDER = AddressFinder(BOOK.ip)


def found(text: str) -> list[str]:
    data = text.encode()
    spans = DETECTION.spans(Texts.of(pa.array([text], pa.large_string())))
    return [data[span.start : span.end].decode() for span in spans]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("84.23.112.9", "84.23.112.9"),
        ("http://84.23.112.9:8080/x", "84.23.112.9"),
        ("84.23.112.9/24", "84.23.112.9"),
        ("('84.1.2.3', 80)", "84.1.2.3"),
        ("from 84.23.112.9.\n", "84.23.112.9"),
        ("dns 1.2.3.4", "1.2.3.4"),
        ("1.2.3.4 is our server", "1.2.3.4"),
        ("DNS_SERVER=1.2.3.4", "1.2.3.4"),
        ("git://5.6.7.8/x", "5.6.7.8"),
        ("root@5.6.7.8:", "5.6.7.8"),
        ('version="1.0" host="84.6.7.8"', "84.6.7.8"),
        ("\r\n84.23.112.9\r\n", "84.23.112.9"),
        ("漢84.23.112.9漢", "84.23.112.9"),
        ("2a02:1234:5678::1", "2a02:1234:5678::1"),
        ("[2a02:1234::1]:80", "2a02:1234::1"),
        ("2a02:1234:5:6:7:8:9:a", "2a02:1234:5:6:7:8:9:a"),
        ("at 2a02:1234::1.", "2a02:1234::1"),
        ("at 2a02:1234::1:", "2a02:1234::1"),
        ("2a02:1234::/32", "2a02:1234::"),
        ("::ffff:84.23.112.9", "::ffff:84.23.112.9"),
    ],
)
def test_an_address_goes(text: str, address: str) -> None:
    assert found(text) == [address]


@pytest.mark.parametrize(
    "text",
    [
        *sorted(BOOK.ip.resolvers),
        *(f"dns {network[0]}" for network in BOOK.ip.special),
        *BOOK.ip.synthetic_v4,
        *BOOK.ip.synthetic_v6,
        "192.0.2.1 198.51.100.7 203.0.113.9 2001:db8::1",
        "1.2.3.4",
        "'1.2.3.26'",
        "version 54.2.3.4",
        "server version 54.2.3.4",
        'AssemblyVersion("54.2.3.4")',
        "v54.2.3.4",
        "lib-54.2.3.4",
        "54.2.3.4-beta",
        ">=54.2.3.4",
        "Chrome/91.0.44.124",
        "// 12.2.5.79 Decimal",
        "## 1.6.2.1 / 2014-05-13\n\n* `Node#x` on the host",
        "'-to-host-compiler', # 4.2.5.1",
        "oid 1.3.6.1",
        "1.3.6.1.4.1.311.2.3",
        "section 3.1.1.6",
        "4.0.0.0",
        "54.23.0.0",
        "server 010.1.2.3",
        "server 256.1.2.3",
        "server 54.23.12",
        "2021.01.02",
        "12:30:45",
        "00:11:22:33:44:55",
        "00:11:22:33:44:55:66:77",
        "std::face::cafe",
        "face::cafe",
        "a::b",
        "dead::beef::1",
        "fe80::1%eth0",
        "::1",
        "::ffff:10.0.0.1",
        "::ffff:8.8.8.8",
        "2a02:1234::1x",
        "M1.08.58 1.23.82.72 1.21.87",
    ],
)
def test_what_is_no_address_of_anyone_stays(text: str) -> None:
    assert found(text) == []


def test_the_context_is_cut_at_the_file_s_ends() -> None:
    """D1: a window that would begin before the file is not empty, and never reaches into the file before."""
    assert found("dns 1.2.3.4") == ["1.2.3.4"]
    texts = Texts.of(pa.array(["dns", "1.2.3.4", "server"], pa.large_string()))
    assert DETECTION.spans(texts) == []


def test_the_context_has_a_width() -> None:
    assert found("dns" + " " * 97 + "1.2.3.4") and not found("dns" + " " * 98 + "1.2.3.4")


@given(st.ip_addresses(v=4))
def test_global_is_what_the_standard_library_calls_global(address: IPv4Address) -> None:
    expected = address.is_global and not address.is_multicast and str(address) not in BOOK.ip.resolvers
    assert any(address in network for network in REVISED) or FINDER.is_global(address) == expected


@given(st.ip_addresses(v=6))
def test_a_global_v6_address_is_global_to_the_standard_library(address: IPv6Address) -> None:
    assert not FINDER.is_global(address) or address.is_global


@given(
    st.ip_addresses(v=4).filter(
        lambda a: FINDER.is_global(a) and max(a.packed) >= 64 and max(a.packed[:3]) >= 20 and a.packed[2:] != b"\0\0"
    )
)
def test_a_global_address_is_found(address: IPv4Address) -> None:
    assert found(f"at '{address}'") == [str(address)]


@given(st.ip_addresses(v=6, network="2a00::/12"), st.booleans())
def test_a_global_v6_address_is_found_in_both_spellings(address: IPv6Address, long: bool) -> None:
    text = address.exploded if long else str(address)
    assert [ip_address(value) for value in found(f"[{text}]")] == [address]
