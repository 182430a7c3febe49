"""Which languages there are: what enry knows, what linguist renamed, and The Stack v1's list with what it loses (D27)."""

from __future__ import annotations

import tomllib

import pyarrow as pa
import pytest

from stackbuild.languages import names
from stackbuild.languages.languages import LanguageOptions, Languages, enry
from stackbuild.languages.names import enry_languages, extension_map
from stackbuild.quality.rules import read

V1 = extension_map("the-stack-v1")
OBJECTIVE_C = "#import <Foundation/Foundation.h>\n@interface A : NSObject\n@end\n"
MATLAB = "function y = f(x)\n% doubles\ny = 2 * x;\nend\n"
VERILOG = "module counter(input clk, output reg [7:0] q);\nalways @(posedge clk) q <= q + 1;\nendmodule\n"
COQ = "Require Import Arith.\nTheorem t : forall n : nat, n = n.\nProof. reflexivity. Qed.\n"
D = "module a;\nimport std.stdio;\nvoid main() { writeln(1); }\n"
DTRACE = "#!/usr/sbin/dtrace -s\nsyscall:::entry { trace(pid); }\n"
MAKE_D = "a.o: a.c \\\n a.h\n"
C_HEADER = "#ifndef A_H\nint f(void);\n#endif\n"
CPP_HEADER = "#include <vector>\nnamespace a { class B { public: std::vector<int> c; }; }\n"
TYPESCRIPT = "export const a: number = 1;\n"
TRANSLATION = '<?xml version="1.0"?>\n<!DOCTYPE TS>\n<TS version="2.1"></TS>\n'
R = "f <- function(x) x + 1\n"
PERL = "use strict;\nmy $a = 1;\n"
PROLOG = ":- module(a, [b/1]).\nb(X) :- X = 1.\n"
PHP = "<?php\n$a = 1;\n"
PASCAL_INC = "{$IFDEF A}\nprocedure B;\nbegin\nend;\n{$ENDIF}\n"
FSHARP = "module A\nlet f x = x + 1\nopen System\n"
GLSL = "#version 330\nvoid main() { gl_FragColor = vec4(1.0); }\n"


def told(path: str, text: str, **options: str) -> str | None:
    """The language that the stage gives a file."""
    stage = Languages(LanguageOptions.model_validate(options))
    files = pa.record_batch({"path_bytes": pa.array([path.encode()]), "text": pa.array([text], pa.large_string())})
    language: str | None = stage.tags(files)["language"][0].as_py()
    return language


# The file, its content, what enry says, and what The Stack v1 said.
AMBIGUOUS = [
    ("a.m", OBJECTIVE_C, "Objective-C", None),
    ("a.m", MATLAB, "MATLAB", None),
    ("a.v", VERILOG, "Verilog", None),
    ("a.v", COQ, "Rocq Prover", None),
    ("a.d", D, "D", None),
    ("a.d", DTRACE, "DTrace", None),
    ("a.d", MAKE_D, "Makefile", None),
    ("a.h", C_HEADER, "C", "C"),
    ("a.h", CPP_HEADER, "C++", "C"),
    ("a.h", OBJECTIVE_C, "Objective-C", "C"),
    ("a.ts", TYPESCRIPT, "TypeScript", "TypeScript"),
    ("a.ts", TRANSLATION, "XML", "TypeScript"),
    ("a.R", R, "R", None),
    ("a.r", R, "R", "R"),
    ("a.pl", PERL, "Perl", "Perl"),
    ("a.pl", PROLOG, "Prolog", "Perl"),
    ("a.inc", PHP, "PHP", None),
    ("a.inc", PASCAL_INC, "Pascal", None),
    ("a.fs", FSHARP, "F#", "F#"),
    ("a.fs", GLSL, "GLSL", "F#"),
]


@pytest.mark.parametrize(("path", "text", "language", "v1"), AMBIGUOUS)
def test_what_shares_an_extension_is_told_by_its_content(path: str, text: str, language: str, v1: str | None) -> None:
    assert told(path, text) == language
    assert told(path, text, compat="the-stack-v1") == v1


def test_v1_has_370_languages() -> None:
    """The paper's numbers: 370 languages of 870 extensions and two names; two fewer as one is Verilog's instead of three."""
    assert len(V1.languages) == 370
    assert len(V1.extensions) == 870 - 2 and dict(V1.names) == {"Dockerfile": "Dockerfile", "Makefile": "Makefile"}


@pytest.mark.parametrize(
    "extension",
    [
        "asc",
        "b",
        "cgi",
        "ch",
        "cls",
        "d",
        "es",
        "fcgi",
        "fr",
        "gml",
        "gs",
        "inc",
        "l",
        "m",
        "mod",
        "moo",
        "ms",
        "n",
        "ncl",
        "nl",
        "pluginspec",
        "pp",
        "pro",
        "sc",
        "tst",
        "v",
    ],
)
def test_v1_gave_no_language_to_what_several_claim(extension: str) -> None:
    assert V1.language(f"a.{extension}") is None


FORCED = [
    "h=C",
    "hh=C++",
    "cp=C++",
    "cs=C#",
    "cake=C#",
    "cl=OpenCL",
    "f=FORTRAN",
    "for=FORTRAN",
    "frag=GLSL",
    "fs=F#",
    "lisp=Common_Lisp",
    "lsp=Common_Lisp",
    "ls=LiveScript",
    "mm=Objective-C++",
    "nb=Mathematica",
    "php=PHP",
    "pl=Perl",
    "pm=Perl",
    "t=Perl",
    "pod=Pod",
    "r=R",
    "rs=Rust",
    "sql=SQL",
    "st=Smalltalk",
    "ts=TypeScript",
    "tsx=TypeScript",
    "sch=Eagle",
    "brd=Eagle",
    "sls=SaltStack",
    "g=G-code",
    "gd=GDScript",
    "j=Jasmin",
    "bb=BitBake",
    "ecl=ECL",
    "vhost=ApacheConf",
    "rpy=Ren'Py",
    "mpl=Maple",
    "oct=Octave",
    "wat=WebAssembly",
    "sol=Solidity",
    "csd=Csound",
    "zig=Zig",
    "C=C++",
    "H=C++",
]


@pytest.mark.parametrize("pair", FORCED)
def test_v1_forced_these_owners(pair: str) -> None:
    extension, language = pair.split("=")
    assert V1.language(f"x.{extension}") == language.replace("_", " ")


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("a.py", "Python"),
        ("a.PY", None),
        ("a.b.py", "Python"),
        (".py", "Python"),
        ("py", None),
        ("a.rs.in", "Rust"),
        ("a.xml.dist", "XML"),
        ("a.py.in", None),
        ("Makefile", "Makefile"),
        ("makefile", None),
        ("a.Makefile", None),
        ("Makefile.txt", "Makefile"),
        ("Dockerfile.mustache", "Dockerfile"),
        ("a.mustache", "HTML+Django"),
        ("a.veo", "Verilog"),
        ("a.vh", "SystemVerilog"),
        ("Dockerfile", "Dockerfile"),
        ("a.dockerfile", "Dockerfile"),
        ("a.ml", "OCaml"),
        ("a.ML", "Standard ML"),
        ("", None),
        (".", None),
        ("a.", None),
        ("a.py\n", None),
    ],
)
def test_v1_goes_by_the_longest_extension_and_by_case(name: str, language: str | None) -> None:
    assert V1.language(name) == language


def test_v1_looks_at_no_content_and_at_no_folder() -> None:
    assert told("a.py/b", "#!/usr/bin/env python\n", compat="the-stack-v1") is None
    assert told("src/x.c", "<?php\n", compat="the-stack-v1") == "C"


def test_the_list_is_part_of_the_key() -> None:
    assert Languages().key() == {}
    assert Languages(LanguageOptions(compat="the-stack-v1")).key() == {"extensions": V1.digest}


def test_the_names_that_enry_knows_are_listed() -> None:
    """The table says what enry says, so that a newer enry is seen; it is written by `stackbuild.languages.generate`."""
    library = enry()
    table = tomllib.loads(names.HERE.joinpath("linguist.toml").read_text())
    old = {new: name for name, new in table["renamed"].items()}
    kinds = {old.get(name, name): kind for kind, listed in table["kinds"].items() for name in listed}
    assert len(enry_languages()) == 801 and enry_languages() <= set(kinds)
    assert all(library.get_language_type(name) == kinds[name] for name in enry_languages())
    assert all(library.get_language_type(name) == "unknown" for name in table["unknown"])


def test_the_languages_that_could_be_named_are_counted() -> None:
    assert Languages().mapped() == 801
    assert Languages(LanguageOptions(compat="the-stack-v1")).mapped() == 370


def test_v1_gives_a_language_to_all_that_starcoder_took() -> None:
    sheet = next(rule for rule in read("starcoder").rule if rule.id == "F0-sheet")
    assert sheet.keep_extensions and all(V1.language(f"a.{extension}") for extension in sheet.keep_extensions)
