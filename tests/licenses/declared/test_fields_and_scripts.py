"""What manifests of lines and manifests that are programs declare."""

from __future__ import annotations

import pytest

from stackbuild.licenses.declared import Declaration, declarations

PERL = "Artistic-1.0-Perl OR GPL-1.0-or-later"
PROPRIETARY = "LicenseRef-scancode-proprietary-license"
MIT_CLASSIFIER = "License :: OSI Approved :: MIT License"
GPL_CLASSIFIER = "License :: OSI Approved :: GNU General Public License v3 (GPLv3)"


def declared(name: str, text: str) -> list[str | None]:
    return [one.expression for one in declarations(name, name, text.encode())[1]]


@pytest.mark.parametrize(
    ("text", "expressions"),
    [
        ("Metadata-Version: 2.4\nLicense-Expression: MIT OR ISC\nLicense: GPL\n", ["MIT OR ISC"]),
        (f"License-Expression: MIT OR ISC\nClassifier: {GPL_CLASSIFIER}\n", ["MIT OR ISC", "GPL-3.0-only"]),
        ("License: MIT\nLicense: GPL\n", ["MIT", "GPL-1.0-or-later"]),
        (f"License: {'ours ' * 60}\nClassifier: {MIT_CLASSIFIER}\n", [None, "MIT"]),
        ("Metadata-Version: 2.1\nLicense: BSD\n\nLicense: GPL\n", ["BSD-3-Clause"]),
        (f"License: UNKNOWN\nClassifier: {MIT_CLASSIFIER}\n", ["MIT"]),
        (f"License: MIT\nClassifier: {GPL_CLASSIFIER}\n", ["MIT", "GPL-3.0-only"]),
        (f"License: see LICENSE\nClassifier: {MIT_CLASSIFIER}\n", [None, "MIT"]),
        (f"License: Copyright (c) x\n        |Permission to do\nClassifier: {MIT_CLASSIFIER}\n", [None, "MIT"]),
        (f"License: our very own terms\nClassifier: {MIT_CLASSIFIER}\n", [None, "MIT"]),
        ("Name: x\n", []),
        ("\n\nLicense: MIT\n", ["MIT"]),
    ],
)
def test_python_metadata(text: str, expressions: list[str | None]) -> None:
    assert declared("PKG-INFO", text) == declared("PKG-INFO", text.replace("\n", "\r\n")) == expressions


@pytest.mark.parametrize(
    ("text", "expressions"),
    [
        ("[metadata]\nlicense = MIT\n", ["MIT"]),
        ("[metadata]\nlicense: Apache License, Version 2.0\n", ["Apache-2.0"]),
        ("[metadata]\nlicense_expression = ISC\nlicense = GPL\n", ["ISC"]),
        (f"[metadata]\nlicense = file: LICENSE\nclassifiers =\n    A :: B\n    {MIT_CLASSIFIER}\n", [None, "MIT"]),
        ("[options]\nlicense = MIT\n", []),
        ("[metadata]\n# license = MIT\n", []),
        ("license = MIT\n", []),
    ],
)
def test_setup_cfg(text: str, expressions: list[str | None]) -> None:
    assert declared("setup.cfg", text) == expressions


@pytest.mark.parametrize(
    ("written", "expression"),
    [
        ("GPL-2", "GPL-2.0-only"),
        ("GPL (>= 2)", "GPL-2.0-or-later"),
        ("GPL (>= 2.0)", "GPL-2.0-or-later"),
        ("GPL (>= 2) | BSD_3_clause + file LICENSE", "GPL-2.0-or-later OR BSD-3-Clause"),
        ("GPL-2 | GPL-3", "GPL-2.0-only OR GPL-3.0-only"),
        ("LGPL (>= 2.1)", "LGPL-2.1-or-later"),
        ("MIT + file LICENSE", "MIT"),
        ("BSD_2_clause + file LICENCE", "BSD-2-Clause"),
        ("Apache License (== 2.0)", "Apache-2.0"),
        ("Apache License (>= 2)", "Apache-2.0"),
        ("Apache License 2.0 + file LICENSE", None),
        ("GPL-3 + file LICENSE", "GPL-3.0-only"),
        ("GPL-2 | file LICENSE", "GPL-2.0-only"),
        ("file LICENSE", None),
        ("CC BY 4.0", "CC-BY-4.0"),
        ("Artistic-2.0", "Artistic-2.0"),
        ("Unlimited", None),
    ],
)
def test_r_description(written: str, expression: str | None) -> None:
    """Writing R Extensions 1.1.2; a file that is added may restrict, but for templates."""
    text = f"Package: x\nVersion: 1.0\nTitle: The\n  License: none\nLicense: {written}\n"
    assert declarations("DESCRIPTION", "DESCRIPTION", text.encode())[1] == [
        Declaration("manifest", expression, written, 5)
    ]


def test_other_files_named_description_are_not_read() -> None:
    assert declared("DESCRIPTION", "License: MIT\n") == [] and declared("DESCRIPTION", "A text.\nLicense: MIT") == []


@pytest.mark.parametrize(
    ("name", "text", "expressions"),
    [
        ("cabal", "name: x\nlicense:       BSD3\n", ["BSD-3-Clause"]),
        ("cabal", "cabal-version: 2.2\nLicense: BSD-3-Clause OR Apache-2.0\n", ["BSD-3-Clause OR Apache-2.0"]),
        ("cabal", "license: AllRightsReserved\n", [PROPRIETARY]),
        ("cabal", "license: OtherLicense\n", [None]),
        ("cabal", "-- license: MIT\nname: x\n", []),
        ("dist.ini", "name = X\nlicense = Perl_5\n[MetaJSON]\nlicense = MIT\n", [PERL]),
        ("dist.ini", "name = X\nlicense = None\n", [PROPRIETARY]),
        ("opam", 'opam-version: "2.0"\nlicense: "ISC"\n', ["ISC"]),
        ("opam", 'opam-version: "2.0"\nlicense: ["MIT"\n "GPL-2.0-only"]\n', ["MIT AND GPL-2.0-only"]),
        ("opam", 'license: "MIT"', []),
        ("CITATION.cff", "cff-version: 1.2.0\nlicense: Apache-2.0\n", ["Apache-2.0"]),
        ("CITATION.cff", "cff-version: 1.2.0\nlicense:\n  - MIT\n  - 'GPL-3.0'\ntitle: x\n", ["MIT OR GPL-3.0-only"]),
        ("CITATION.cff", "license: MIT\n", []),
        ("CITATION.cff", "cff-version: 1\nlicense: [MIT, ISC]\n", ["MIT OR ISC"]),
        ("CITATION.cff", "cff-version: 1\nlicense: *anchor\n", [None]),
        ("CITATION.cff", "cff-version: 1\nreferences:\n  - license: MIT\n", []),
        ("META.yml", "--- #YAML:1.0\nlicense: perl\nmeta-spec:\n  version: 1.4\n", [PERL]),
        ("META.yml", "license: ~\ngenerated_by: x\n", []),
        ("META.yml", "license: perl\n", []),
        ("plain.yml", 'name: x\nlicense: "MIT"  # words\n', ["MIT"]),
        ("plain.yml", "license: MIT\n", []),
        ("plain.yml", "name: x\nlicense: MIT\n  AND GPL-3.0-only\n", [None]),
        ("plain.yml", "name: x\nlicense:\n  name: GPL\n", [None]),
        ("plain.yml", "name: x\n'license': GPL-3.0\n", ["GPL-3.0-only"]),
        ("plain.yml", "name: x\nlicense:\n  -\n    MIT\n", [None]),
        ("plain.yml", "name: x\nlicense: [MIT,  # yes\n  ISC]\n", [None]),
        ("plain.yml", "name: x\nlicense:\n- MIT\n" + "\n" * 70 + "- GPL-3.0\n", ["MIT AND GPL-3.0-only"]),
        ("plain.yml", "name: x\nlicense:\n" + "- MIT\n" * 64 + "- GPL-3.0\n", [None]),
        ("META.yml", "meta-spec: 1\nlicense: [mit,\n gpl_3]\n", ["MIT AND GPL-3.0-only"]),
        ("opam", 'opam-version: "2.0"\nlicense: """GPL-3.0-only"""\n', ["GPL-3.0-only"]),
    ],
)
def test_other_fields(name: str, text: str, expressions: list[str | None]) -> None:
    assert declared(name, text) == expressions


@pytest.mark.parametrize(
    ("text", "expressions"),
    [
        ("setup(name='x', license='MIT')", ["MIT"]),
        ("import setuptools\nL = 'ISC'\nsetuptools.setup(license=L)", ["ISC"]),
        (f"setup(classifiers=['{MIT_CLASSIFIER}'])", ["MIT"]),
        (f"C = '''\n{MIT_CLASSIFIER}\nA :: B\n'''.splitlines()\nsetup(classifiers=C)", ["MIT"]),
        (f"setup(license='MIT', classifiers=['{GPL_CLASSIFIER}'])", ["MIT", "GPL-3.0-only"]),
        ("setup(license=open('LICENSE').read())", [None]),
        ("setup(license=None)", []),
        ("setup(license='UNKNOWN')", []),
        ("a = dict(license='MIT')\nsetup(license='GPL-3.0-only')", ["MIT", "GPL-3.0-only"]),
        ("a = {'license': 'GPL-3.0-only', 'x': {'license': 'MIT'}}\nsetup(**a)", ["GPL-3.0-only"]),
        ("L = 'MIT'\nL = L + ' and GPL'\nsetup(license=L)", [None]),
        ("# setup(license='MIT')\nsetup(name='x')", []),
        ("other(license='MIT')", []),
        ("'''\nlicense='MIT'\n'''\nsetup()", []),
        (
            f"print 'x'\nsetup(\n    license='BSD',\n    classifiers=[\n        '{GPL_CLASSIFIER}'])",
            ["BSD-3-Clause", "GPL-3.0-only"],
        ),
    ],
)
def test_setup_py_is_read_and_never_run(text: str, expressions: list[str | None]) -> None:
    assert declared("setup.py", text) == expressions


def test_setup_py_is_not_executed() -> None:
    assert declared("setup.py", "raise SystemExit(1)\nsetup(license='MIT')") == ["MIT"]


@pytest.mark.parametrize(
    "unit",
    ["-", "not ", "(", "-(", "a.", "a()", "a+", "lambda:", "{1:", "[x for x in ", "x if y else ", "await ", "-\\\n", "*", "@a\n",
     "if a:\n pass\nel", "f'{", "'a' ", "a,", "a=", "not(", "~-", "yield ", "\x00"],
)  # fmt: skip
def test_python_that_is_too_deep_is_read_by_its_lines(unit: str) -> None:
    text = f"{unit * (100_000 // len(unit))}\nsetup(\n    license='MIT',\n)"
    assert declared("setup.py", text) in (["MIT"], [])


def test_long_runs_of_an_operator_are_not_even_parsed() -> None:
    for run in ("-" * 300 + "1", "not " * 200 + "x", "(" * 300):
        assert declared("setup.py", f"setup(license='ISC', x={run})\n") == []
    assert declared("setup.py", f"setup(license='ISC', x={'-' * 50}1)\n") == ["ISC"]


@pytest.mark.parametrize(
    ("name", "text", "expressions"),
    [
        ("gemspec", "Gem::Specification.new do |s|\n  s.license = 'MIT'\nend", ["MIT"]),
        ("gemspec", '  spec.licenses    = ["Ruby", "BSD-2-Clause"]', ["Ruby AND BSD-2-Clause"]),
        ("gemspec", "  s.licenses = %w[MIT ISC]", ["MIT AND ISC"]),
        ("gemspec", "  s.license = File.read('LICENSE')", [None]),
        ("gemspec", "  # s.license = 'MIT'", []),
        ("gemspec", "s.license = 'MIT'\ns.licenses = ['GPL-3.0']", ["MIT", "GPL-3.0-only"]),
        ("gemspec", 's.licenses = ["MIT", "GPL [3]", "AGPL-3.0"]', ["MIT AND GPL-3.0-only AND AGPL-3.0-only"]),
        ("gemspec", 's.licenses = ["MIT",  # not "GPL"\n"ISC".freeze].freeze', ["MIT AND ISC"]),
        ("gemspec", 's.licenses = ["MIT", EXTRA]', [None]),
        ("gemspec", 's.licenses = ["MIT"', [None]),
        ("gemspec", 's.license = "MIT" + " AND GPL-3.0"', [None]),
        ("gemspec", 's.license = "MIT" unless enterprise?', [None]),
        ("gemspec", 's.license = "MIT".freeze  # x', ["MIT"]),
        ("rockspec", 'description = {\n license = "MIT" .. " and GPL"\n}', [None]),
        ("podspec", "  s.license = { :type => 'MIT', :file => 'LICENSE' }", ["MIT"]),
        ("podspec", "  s.license = 'Apache License, Version 2.0'", ["Apache-2.0"]),
        ("Makefile.PL", "WriteMakefile(\n  'LICENSE' => 'perl_5',\n);", [PERL]),
        ("Makefile.PL", "license 'artistic_2';", ["Artistic-2.0"]),
        (
            "Makefile.PL",
            "  LICENSE => 'mit',\n  license => 'http://www.gnu.org/licenses/gpl-3.0.html',",
            ["MIT", "GPL-3.0-only"],
        ),
        ("Makefile.PL", "  license => 'gpl_3',", ["GPL-3.0-only"]),
        ("mix.exs", 'defp package do\n  [licenses: ["Apache-2.0"], links: %{}]\nend', ["Apache-2.0"]),
        ("app.src", '{application, x, [{licenses, ["Apache 2.0", "MIT"]}]}.', ["Apache-2.0 AND MIT"]),
        ("build.sbt", 'licenses += ("MIT", url("https://opensource.org/licenses/MIT"))', ["MIT"]),
        ("build.sbt", 'licenses := Seq("Ours" -> url("https://www.apache.org/licenses/LICENSE-2.0"))', ["Apache-2.0"]),
        ("build.sbt", "licenses := List(License.Apache2)", ["Apache-2.0"]),
        ("build.sbt", 'licenses := Seq("MIT" -> url("https://x"),\n  "GPL-3.0" -> url("https://y"))', ["MIT AND GPL-3.0-only"]),
        ("build.sbt", 'licenses := Seq(\n  "MIT" -> url("https://x")\n)\norganization := "ours"', ["MIT"]),
        ("rockspec", 'description = {\n   license = "MIT/X11"\n}', ["MIT"]),
        ("nimble", 'license       = "MIT"', ["MIT"]),
        ("project.clj", ':licenses [{:name "MIT"}\n {:name "GPL-3.0"}] :x {:name "Ours"}', ["MIT OR GPL-3.0-only"]),
        ("project.clj", ':license {:name "MIT" :url "https://www.gnu.org/licenses/gpl-3.0.html"}', ["GPL-3.0-only"]),
        ("project.clj", '(defproject x "1"\n  :license {:name "Eclipse Public License"\n            :url "https://x"})', ["EPL-1.0"]),
        ("project.clj", '(defproject x "1"\n  :license {:name "Ours" :url "https://opensource.org/licenses/MIT"})', ["MIT"]),
    ],
)  # fmt: skip
def test_other_scripts(name: str, text: str, expressions: list[str | None]) -> None:
    assert declared(name, text) == expressions


def test_a_module_of_erlang_speaks_for_the_folder_above() -> None:
    folder, found = declarations("app.src", "apps/x/src/x.app.src", b'{licenses, ["MIT"]}')
    assert folder == "apps/x/" and [one.expression for one in found] == ["MIT"]
