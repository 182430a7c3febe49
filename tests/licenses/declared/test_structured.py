"""What manifests in JSON, TOML and XML declare."""

from __future__ import annotations

import json

import pytest

from stackbuild.licenses.declared import Declaration, declarations

PROPRIETARY = "LicenseRef-scancode-proprietary-license"


def declared(name: str, text: str, path: str = "") -> list[str | None]:
    return [one.expression for one in declarations(name, path or name, text.encode())[1]]


@pytest.mark.parametrize(
    ("body", "expressions"),
    [
        ({"license": "MIT"}, ["MIT"]),
        ({"license": "(MIT OR Apache-2.0)"}, ["MIT OR Apache-2.0"]),
        ({"license": {"type": "BSD-3-Clause", "url": "https://example.org"}}, ["BSD-3-Clause"]),
        ({"license": {"url": "https://opensource.org/licenses/ISC"}}, ["ISC"]),
        ({"licenses": [{"type": "MIT", "url": "x"}, {"type": "GPLv2"}]}, ["MIT OR GPL-2.0-only"]),
        ({"licenses": ["MIT"]}, ["MIT"]),
        ({"license": "SEE LICENSE IN LICENSE.md"}, [None]),
        ({"license": "UNLICENSED"}, [PROPRIETARY]),
        ({"license": "nobody knows"}, [None]),
        ({"licenses": [{"type": "MIT"}, {"type": "nobody knows"}]}, [None]),
        ({"license": 5}, [None]),
        ({"license": {"a": {"b": []}}}, [None]),
        ({"license": ["MIT", 7]}, [None]),
        ({"license": True}, [None]),
        ({"private": True}, []),
        ({"license": None}, []),
        ({"license": ""}, []),
        ({"license": [], "licenses": "MIT"}, ["MIT"]),
        ({"license": "MIT", "licenses": [{"type": "GPL-3.0"}]}, ["MIT", "GPL-3.0-only"]),
        ({"license": "MIT", "licence": "nobody knows"}, ["MIT", None]),
        ({"license": "MIT", "licenses": ["MIT"]}, ["MIT"]),
        ({"license": "MIT-ish"}, [None]),
        ({"license": {"type": "MIT", "url": "https://www.gnu.org/licenses/gpl-3.0.html"}}, ["GPL-3.0-only"]),
        ({"license": {"type": "GPL-3.0", "url": "https://opensource.org/licenses/MIT"}}, ["GPL-3.0-only"]),
        ({"license": "MIT, see COMMERCIAL-LICENSE.txt for details"}, [None]),
        ({"license": "MIT, see LICENSE.txt for details"}, ["MIT"]),
        ({"dependencies": {"license": "GPL-3.0"}}, []),
    ],
)
def test_package_json(body: object, expressions: list[str | None]) -> None:
    assert declared("package.json", json.dumps(body)) == expressions


def test_package_json_tells_the_line_and_the_words() -> None:
    text = '{\n "name": "x",\n "license": "Apache 2"\n}'
    folder, found = declarations("package.json", "a/b/package.json", text.encode())
    assert folder == "a/b/"
    assert found == [Declaration("manifest", "Apache-2.0", "Apache 2", 3)]


@pytest.mark.parametrize(
    "text", ["", "[]", '"MIT"', "{", '{"license": "MIT"', '{"license": NaN', "\x00", "{'license': 'MIT'}"]
)
def test_what_is_not_well_formed_declares_nothing(text: str) -> None:
    for name in ("package.json", "composer.json", "plain.json", "META.json", "pyproject.toml", "pom.xml", "nuspec"):
        assert declared(name, text) == []


def test_byte_order_marks_and_other_encodings_are_read() -> None:
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "latin-1"):
        assert [
            d.expression
            for d in declarations("package.json", "package.json", '{"license":"MIT"}\r\n'.encode(encoding))[1]
        ] == ["MIT"]


def test_the_last_of_two_equal_keys_counts() -> None:
    assert declared("package.json", '{"license": "MIT", "license": "GPL-3.0"}') == ["GPL-3.0-only"]


@pytest.mark.parametrize(
    ("name", "text", "expressions"),
    [
        ("composer.json", '{"license": ["LGPL-2.1-only", "GPL-3.0-or-later"]}', ["LGPL-2.1-only OR GPL-3.0-or-later"]),
        ("composer.json", '{"license": "(LGPL-2.1-only or GPL-3.0-or-later)"}', ["LGPL-2.1-only OR GPL-3.0-or-later"]),
        ("composer.json", '{"license": "proprietary"}', [PROPRIETARY]),
        ("plain.json", '{"license": "BSD-3-Clause"}', ["BSD-3-Clause"]),
        (
            "plain.json",
            '{"license": ["https://spdx.org/licenses/MIT", "https://spdx.org/licenses/GPL-3.0"]}',
            ["MIT AND GPL-3.0-only"],
        ),
        ("plain.json", '{"license": null}', []),
        (
            "META.json",
            '{"meta-spec": {"version": 2}, "license": ["perl_5"]}',
            ["Artistic-1.0-Perl OR GPL-1.0-or-later"],
        ),
        ("META.json", '{"meta-spec": {}, "license": ["lgpl_2_1", "mit"]}', ["LGPL-2.1-only AND MIT"]),
        ("META.json", '{"meta-spec": {}, "license": ["open_source"]}', [None]),
        ("META.json", '{"meta-spec": {}, "license": ["unknown"]}', []),
        ("META.json", '{"license": ["perl_5"]}', []),
    ],
)
def test_other_json(name: str, text: str, expressions: list[str | None]) -> None:
    assert declared(name, text) == expressions


MIT_CLASSIFIER = "License :: OSI Approved :: MIT License"
GPL_CLASSIFIER = "License :: OSI Approved :: GNU General Public License v3 (GPLv3)"


@pytest.mark.parametrize(
    ("text", "expressions"),
    [
        ('[project]\nlicense = "MIT AND (Apache-2.0 OR BSD-2-Clause)"', ["MIT AND (Apache-2.0 OR BSD-2-Clause)"]),
        ('[project]\nlicense = {text = "Apache 2.0"}', ["Apache-2.0"]),
        ('[project]\nlicense = {file = "LICENSE"}', [None]),
        (f'[project]\nlicense = {{file = "LICENSE"}}\nclassifiers = ["{MIT_CLASSIFIER}"]', [None, "MIT"]),
        ('[project]\nlicense = {text = "MIT", file = "EULA"}', ["MIT", None]),
        ('[project]\nlicense = "MIT"\n[tool.poetry]\nlicense = "GPL-3.0-only"', ["MIT", "GPL-3.0-only"]),
        (f'[project]\nclassifiers = ["License :: Ours", "{MIT_CLASSIFIER}"]', [None]),
        (f'[project]\nclassifiers = ["License :: DFSG approved", "{MIT_CLASSIFIER}"]', ["MIT"]),
        (f'[project]\nclassifiers = ["{MIT_CLASSIFIER}", "Programming Language :: C"]', ["MIT"]),
        (f'[project]\nlicense = "MIT"\nclassifiers = ["{MIT_CLASSIFIER}"]', ["MIT"]),
        (f'[project]\nlicense = "MIT"\nclassifiers = ["{GPL_CLASSIFIER}"]', ["MIT", "GPL-3.0-only"]),
        (f'[project]\nlicense = "GPL-3.0-only"\nclassifiers = ["{MIT_CLASSIFIER}"]', ["GPL-3.0-only"]),
        (f'[project]\nlicense = "our own"\nclassifiers = ["{MIT_CLASSIFIER}"]', [None, "MIT"]),
        (f'[project]\nclassifiers = ["{MIT_CLASSIFIER}", "{GPL_CLASSIFIER}"]', ["MIT AND GPL-3.0-only"]),
        (f'[project]\nclassifiers = ["License :: OSI Approved", "{MIT_CLASSIFIER}"]', ["MIT"]),
        ('[project]\nlicense = ["MIT"]', [None]),
        ('[project]\nlicense-files = ["LICENSE"]', []),
        ('[tool.poetry]\nlicense = "BSD-3-Clause"', ["BSD-3-Clause"]),
        ('[tool.black]\nlicense = "MIT"', []),
        ("project = 5", []),
    ],
)
def test_pyproject(text: str, expressions: list[str | None]) -> None:
    assert declared("pyproject.toml", text) == expressions


@pytest.mark.parametrize(
    ("text", "expressions"),
    [
        ('[package]\nlicense = "MIT OR Apache-2.0"', ["MIT OR Apache-2.0"]),
        ('[package]\nlicense = "MIT/Apache-2.0"', ["MIT OR Apache-2.0"]),
        ('[package]\nlicense = "MIT / GPL-3.0"', ["MIT OR GPL-3.0-only"]),
        ('[package]\nlicense-file = "LICENSE"', [None]),
        ("[package]\nlicense.workspace = true", []),
        ('[workspace.package]\nlicense = "MIT"', ["MIT"]),
        ('[package]\nlicense = "MIT"\n[workspace.package]\nlicense = "GPL-3.0-only"', ["MIT", "GPL-3.0-only"]),
        ('[package]\nlicense.workspace = true\n[workspace.package]\nlicense = "MIT"', ["MIT"]),
        ('[package]\nlicense = "MIT"\nlicense-file = "EULA"', ["MIT", None]),
        ("[package]\nlicense = 5", [None]),
    ],
)
def test_cargo_reads_the_old_slash_as_a_choice(text: str, expressions: list[str | None]) -> None:
    assert declared("Cargo.toml", text) == expressions


def test_a_file_that_cargo_names_beside_a_licence_is_told() -> None:
    _, found = declarations("Cargo.toml", "Cargo.toml", b'[package]\nlicense = "MIT"\nlicense-file = "EULA"')
    assert [one.raw for one in found] == ["MIT", "SEE LICENSE IN EULA"]


def test_keys_of_toml_that_take_long_are_not_read() -> None:
    head = '[project]\nlicense = "MIT"\n'
    assert declared("pyproject.toml", head + "a" + ".a" * 30 + " = 1") == ["MIT"]
    for hostile in (
        "a" + ".a" * 200_000 + " = 1",
        "b = {a" + ".a" * 200_000 + " = 1}",
        "[a" + ".a" * 100_000 + "]\n" + "b=1\n" * 9_000,
        '["a" . "a"' + " . a" * 100_000 + "]",
    ):
        assert declared("pyproject.toml", head + hostile) == []


def test_depth_never_raises() -> None:
    for name, text in (
        ("package.json", "["),
        ("package.json", '{"a":'),
        ("pyproject.toml", "a=["),
        ("pyproject.toml", "a={a="),
        ("pom.xml", "<a>"),
    ):
        assert declared(name, text * 100_000) == [] and declared(name, text[:2] + text[2:] * 100_000) == []


POM = '<project xmlns="http://maven.apache.org/POM/4.0.0"><licenses>{}</licenses></project>'


@pytest.mark.parametrize(
    ("inner", "expressions"),
    [
        ("<license><name>Apache License, Version 2.0</name><url>https://apache.org/x</url></license>", ["Apache-2.0"]),
        ("<license><name>Ours</name><url>https://opensource.org/licenses/MIT</url></license>", ["MIT"]),
        ("<license><name>Ours</name></license>", [None]),
        ("<license><name>MIT</name><url>https://www.gnu.org/licenses/gpl-3.0.html</url></license>", ["GPL-3.0-only"]),
        ("<license><name>MIT</name></license><license><name>Ours</name></license>", [None]),
        (
            "<license><name>CDDL 1.0</name></license><license><name>GPL2 w/ CPE</name></license>",
            ["CDDL-1.0 OR GPL-2.0-only WITH Classpath-exception-2.0"],
        ),
        ("<license></license>", []),
        ("", []),
    ],
)
def test_pom_lets_the_user_choose(inner: str, expressions: list[str | None]) -> None:
    assert declared("pom.xml", POM.format(inner)) == expressions


def test_json_of_deno_may_have_comments_and_a_last_comma() -> None:
    assert declared("plain.json", '// c\n{"a": "//", /* "license": "MIT" */ "license": "GPL-3.0", /* x */ }') == [
        "GPL-3.0-only"
    ]
    assert declared("package.json", '// c\n{"license": "MIT"}') == []


@pytest.mark.parametrize("unit", ["/*", "/* //\n", '"', ",", ",}", "/**", "/"])
def test_comments_without_an_end_take_time_linear_in_the_text(unit: str) -> None:
    assert declared("plain.json", unit * 100_000) == []


def test_all_that_a_project_of_msbuild_or_nuget_sets_holds() -> None:
    one, other = "<{0}>MIT</{0}>", "<{0}>GPL-3.0-only</{0}>"
    field = "PackageLicenseExpression"
    groups = f"<PropertyGroup>{one}</PropertyGroup><PropertyGroup Condition='x'>{other}</PropertyGroup>".format(field)
    assert declared("msbuild", f"<Project>{groups}</Project>") == ["MIT", "GPL-3.0-only"]
    beside = f"{one.format(field)}<PackageLicenseFile>EULA</PackageLicenseFile><PackageLicenseUrl>x</PackageLicenseUrl>"
    assert declared("msbuild", f"<Project><PropertyGroup>{beside}</PropertyGroup></Project>") == ["MIT", None]
    twice = (one + other).format("license")
    assert declared("nuspec", f"<package><metadata>{twice}</metadata></package>") == ["MIT", "GPL-3.0-only"]


def test_a_licence_of_a_plugin_is_not_that_of_the_project() -> None:
    assert (
        declared(
            "pom.xml", "<project><build><licenses><license><name>MIT</name></license></licenses></build></project>"
        )
        == []
    )


def test_xml_that_declares_entities_is_not_read() -> None:
    entity = POM.format("<license><name>&x;</name></license>")
    assert declared("pom.xml", f'<!DOCTYPE project [<!ENTITY x "MIT">]>{entity}') == []
    plain = POM.format("<license><name>MIT</name></license>")
    assert declared("pom.xml", f"<!DOCTYPE project [<!ELEMENT project ANY>]>{plain}") == []
    bomb = '<!DOCTYPE a [<!ENTITY x "MIT">' + "".join(
        f'<!ENTITY x{n} "&x{n - 1 if n else ""};&x{n - 1 if n else ""};">' for n in range(30)
    )
    assert declared("pom.xml", f"{bomb}]>{POM.format('<license><name>&x29;</name></license>')}") == []
    assert (
        declared(
            "pom.xml",
            f'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>{POM.format("<license><name>&x;</name></license>")}',
        )
        == []
    )
    assert declared(
        "pom.xml", f'<!DOCTYPE project SYSTEM "x.dtd">{POM.format("<license><name>MIT</name></license>")}'
    ) == ["MIT"]


@pytest.mark.parametrize(
    ("name", "text", "expressions"),
    [
        ("nuspec", '<package><metadata><license type="expression">MIT</license></metadata></package>', ["MIT"]),
        ("nuspec", '<package><metadata><license type="file">L.txt</license></metadata></package>', [None]),
        (
            "nuspec",
            "<package><metadata><licenseUrl>https://opensource.org/licenses/MIT</licenseUrl></metadata></package>",
            ["MIT"],
        ),
        (
            "nuspec",
            "<package><metadata><licenseUrl>https://aka.ms/deprecateLicenseUrl</licenseUrl></metadata></package>",
            [],
        ),
        (
            "msbuild",
            "<Project><PropertyGroup><PackageLicenseExpression>MIT</PackageLicenseExpression></PropertyGroup></Project>",
            ["MIT"],
        ),
        (
            "msbuild",
            "<Project><PropertyGroup><PackageLicenseExpression>$(X)</PackageLicenseExpression></PropertyGroup></Project>",
            [None],
        ),
        (
            "msbuild",
            "<Project><PropertyGroup><PackageLicenseFile>LICENSE</PackageLicenseFile></PropertyGroup></Project>",
            [None],
        ),
        (
            "package.xml",
            "<package><license>BSD</license><license>GPLv2</license></package>",
            ["BSD-3-Clause AND GPL-2.0-only"],
        ),
        (
            "appstream",
            "<component><metadata_license>CC0-1.0</metadata_license><project_license>GPL-3.0+</project_license></component>",
            ["GPL-3.0-or-later"],
        ),
    ],
)
def test_other_xml(name: str, text: str, expressions: list[str | None]) -> None:
    assert declared(name, text) == expressions
