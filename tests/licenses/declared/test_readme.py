"""What the licence section of a read-me declares."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.licenses.declared import declarations
from stackbuild.licenses.declared.resolve import severity
from stackbuild.licenses.declared.sections import sections
from stackbuild.licenses.lists import SEVERITY


def declared(text: str, name: str = "README.md") -> list[str | None]:
    return [one.expression for one in declarations("readme", name, text.encode())[1]]


@pytest.mark.parametrize(
    "heading",
    [
        "# License",
        "## Licence",
        "### Licensing ###",
        "##License",
        "License\n=======",
        "Licence\n-------",
        "**License**",
        "__License:__",
        "<h2>License</h2>",
        '<h2 align="center">📄 License</h2>',
        "== License",
        "LICENSE",
        "COPYRIGHT AND LICENSE",
        "License",
        "## 📄 License",
        "## 7. License",
        "## Copyright & License",
        "## License Information",
        "## Lizenz",
        "## Licencia",
        "## Licença",
        "## Licenza",
        "## Лицензия",
        "## 许可证",
        "## 授权",
        "## ライセンス",
        "## 라이선스",
        "## Licence et droits d'auteur",
    ],
)
def test_headings_begin_a_section(heading: str) -> None:
    assert declared(f"# X\n\nwords\n\n{heading}\n\nMIT\n\n## More\n\nGPL") == ["MIT"]


@pytest.mark.parametrize(
    "heading",
    [
        "## Third-party licenses",
        "## License server",
        "## Getting a license key",
        "## Usage",
        "## Licenses of dependencies",
        "License plates are read",
        "## Checking licenses",
        "licensed words in a line",
    ],
)
def test_headings_about_other_things_begin_none(heading: str) -> None:
    assert declared(f"# X\n\nwords\n\n{heading}\n\nMIT\n") == []


def test_headings_of_org_are_those_of_org_files_alone() -> None:
    text = "* [Usage](#usage)\n* License\n\nMIT\n"
    assert declared(text, "README.org") == ["MIT"] and declared(text) == []


def test_a_read_me_without_a_section_declares_nothing() -> None:
    assert (
        declared("# X\n\n[![license](https://img.shields.io/badge/license-MIT-blue.svg)](x)\n\nIt is MIT licensed.")
        == []
    )


def test_code_is_no_heading() -> None:
    assert declared("# X\n```\n# License\nMIT\n```\n") == []


@pytest.mark.parametrize(
    ("body", "expression"),
    [
        ("MIT", "MIT"),
        ("MIT © [Somebody](https://example.org)", "MIT"),
        ("This project is licensed under the MIT License - see the [LICENSE](LICENSE) file for details.", "MIT"),
        ("[MIT](https://opensource.org/licenses/MIT)", "MIT"),
        ("[![License](https://img.shields.io/badge/license-BSD--3--Clause-blue.svg)](LICENSE)", "BSD-3-Clause"),
        (
            "[![License: GPL v3](https://img.shields.io/badge/License-GPLv3-blue.svg)](https://www.gnu.org/licenses/gpl-3.0)",
            "GPL-3.0-only",
        ),
        (
            'Licensed under the Apache License, Version 2.0 (the "License");\nyou may not use this file except in compliance',
            "Apache-2.0",
        ),
        ("Released under the GNU General\nPublic License version 3 or later.", "GPL-3.0-or-later"),
        (
            "It is free software; you may redistribute it under the same\nterms as Perl itself.",
            "Artistic-1.0-Perl OR GPL-1.0-or-later",
        ),
        ("Licensed under either of Apache License, Version 2.0 or MIT license at your option.", "Apache-2.0 OR MIT"),
        (
            'Licensed under either of <a href="A">Apache License, Version\n2.0</a> or <a href="M">MIT license</a> at your option.\n\n'
            "Unless you explicitly state otherwise, any contribution shall be licensed without any additional terms.",
            "Apache-2.0 OR MIT",
        ),
        ("Dual-licensed under MIT and GPLv2.", "MIT OR GPL-2.0-only"),
        ("Code: MIT. Documentation: CC BY 4.0", "MIT AND CC-BY-4.0"),
        ("Dictionary: (GPL-2.0 OR GPL-3.0). Rest: MIT", "(GPL-2.0-only OR GPL-3.0-only) AND MIT"),
        ("This is public domain. See [Unlicense](http://unlicense.org/).", "Unlicense"),
        ("(The MIT License)\n\nCopyright (c) X\n\nPermission is hereby granted ... except", "MIT"),
        ("The GPL. See version 3 of the GPL: GPLv3", "GPL-3.0-only"),
        ("Boost Software License 1.0", "BSL-1.0"),
    ],
)
def test_bodies(body: str, expression: str) -> None:
    assert declared(f"## License\n\n{body}\n") == [expression]


@pytest.mark.parametrize(
    "body",
    [
        "See [LICENSE](LICENSE).",
        "",
        "Ask us.",
        "MIT for the code, the assets are proprietary words",
        "MIT, except for vendor/",
        "MIT for non-commercial use only",
        "Not MIT.",
        "Free for evaluation, MIT later",
        "Written in Python and Ruby.",
        "All files, unless stated otherwise, are MIT.",
        "MIT. Third-party code has other terms.",
    ],
)
def test_what_may_mean_less_is_none(body: str) -> None:
    assert declared(f"## License\n\n{body}\n") == [None]


def test_the_heading_may_name_the_licence_itself() -> None:
    assert declared("## MIT License\n\nCopyright X\n") == ["MIT"]
    assert declared("## License (ISC)\n\nCopyright X\n") == ["ISC"]


@pytest.mark.parametrize(
    "body",
    [
        "Students: MIT. Others: contact us.",
        "MIT for students. Everyone else must ask.",
        "This project is source available. Build scripts are MIT.",
        "MIT，仅供学习，禁止商用",
        "MIT，不得用于商业用途",
        "MIT License, for personal use.",
        "Released under the MIT license. Only for members of our club.",
        "MIT. For anything else contact us.",
        "MIT, nur für Studenten",
        "MIT for you and me; companies need to ask",
        "MIT License. Use needs my written consent.",
        "MIT. Redistribution requires the author's written permission.",
        "MIT. A license is required for production.",
        "Released under the MIT license, but if you work at a company ask me first.",
        "MIT (for hobbyists)",
        "MIT for open source projects. Otherwise get in touch.",
        "The MIT License. Do not use it to train AI models.",
    ],
)
def test_a_section_that_limits_a_permissive_licence_is_one_that_nobody_can_tell(body: str) -> None:
    assert declared(f"## License\n\n{body}\n") == [None]


@pytest.mark.parametrize(
    ("body", "expression"),
    [
        ("MIT. Questions? Open an issue.", "MIT"),
        ("本项目采用 MIT 许可证，不仅免费，而且可商用。", "MIT"),
        ("GPL-3.0. Others: contact us.", "GPL-3.0-only"),
        ("Released under the MIT license. Share it with others.", "MIT"),
    ],
)
def test_what_does_not_limit_leaves_the_licence(body: str, expression: str) -> None:
    assert declared(f"## License\n\n{body}\n") == [expression]


def test_a_line_may_be_the_section() -> None:
    assert declared("X\n\nLicense: BSD\nAuthor: Y\n", "README.txt") == ["BSD-3-Clause"]


def test_of_several_sections_the_first_that_tells_counts() -> None:
    assert declared("## License\n\nSee LICENSE.\n\n## Licensing\n\nISC\n") == ["ISC"]


def test_the_section_ends_where_the_next_heading_begins() -> None:
    assert declared("## License\n\nISC\n\nNext\n----\n\nGPL\n") == ["ISC"]


def test_the_line_and_the_words_are_told() -> None:
    found = declarations("readme", "a/README", b"X\n\nLICENSE\n\nISC licence\n")[1]
    assert [(one.kind, one.line, one.raw) for one in found] == [("readme", 3, "LICENSE: ISC licence")]


def test_the_engine_is_asked_for_a_section_without_a_name() -> None:
    assert [
        one.expression for one in declarations("readme", "README", b"LICENSE\n\nAsk us.", lambda text: "ISC")[1]
    ] == ["ISC"]


pieces = st.sampled_from(
    [
        "MIT",
        "GPL-3.0",
        "BSD",
        "License",
        "under",
        "the",
        "or",
        "and",
        "dual licensed",
        ".",
        "\n",
        "\n\n",
        "## ",
        "except",
        "(",
        ")",
        "[",
        "](x)",
        "version 3",
        "https://opensource.org/licenses/MIT",
        "**",
        "<b>",
        "commercial",
        "```",
        "Public",
        ":",
        "-",
    ]
)


@settings(deadline=None)
@given(st.lists(pieces, max_size=25))
def test_a_section_that_names_copyleft_is_permissive_only_if_it_leaves_the_choice(parts: list[str]) -> None:
    text = "## License\n\nGPL-2.0\n" + " ".join(parts)
    body = sections(text)[0][1]
    found = declared(text)[0]
    if found is not None and severity(found) == SEVERITY["permissive"]:
        assert "or" in body.split() or "dual licensed" in body


def test_hostile_read_mes_take_time_linear_in_their_length() -> None:
    for unit in (
        "# License\n",
        "#",
        "License\n---\n",
        "<h2>License<",
        "**",
        "License: MIT\n",
        "MIT or ",
        "/badge/license-",
        "[MIT](",
        "<",
        "](",
    ):
        declared("## License\n" + unit * (400_000 // len(unit)))
        declared(unit * (400_000 // len(unit)))
