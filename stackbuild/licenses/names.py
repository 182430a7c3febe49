"""Which files are read for a licence, told from their names alone.

The rule is The Stack v2's (Lozhkov et al. 2024, section 2.1 and appendix A.3), which widens that of
go-license-detector: the base name is an optional prefix that ends in "-", "_", "." or a space, one of the stems, and
then nothing or one of those four signs and anything. It also takes ordinary source such as `about.js`, `al.py` or
`mit.c`, whose comments then speak for a whole folder. So `stackbuild`, the default, asks for more: the extension is
none, a number (GPL-3.0) or one of a text; where the stem is of a licence proper, it may also be any that is not of
source or data (LICENSE.MIT, COPYING.LESSER), and LICENSE.pdf is a licence that nobody can read here. It also knows names
that the published rule does not (`OWN_STEMS`): LICENSING, LICENSE2, LicenseGPL, EULA, TERMS. Names that say that they are
about other people's code (`OF_OTHERS`: LICENSE-THIRD-PARTY, 3rdpartylicenses) are not read: what they list holds for that code,
which may not even be in the repository, and would make a permissive folder of one that says nothing of its own.

The names of The Stack v1 ("the-stack-v1") are the narrower ones of go-license-detector, and the read-me.

Matching runs in RE2, in time linear in the path. Two differences from a backtracking matcher: a line feed in a name is
a character like any other, and the digits of a version are ASCII.
"""

from __future__ import annotations

from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

Names = Literal["stackbuild", "the-stack-v2", "the-stack-v1"]

# Texts that state a licence. One that no engine recognises is still a licence (`unknown`), and is worth an approximate
# match.
LICENSE_STEMS = (
    "li[cs]en[cs]es?",
    "copy(?:left|right|ing)",
    "unlicense",
    r"[al]?gpl[-_ v]?(?:[0-9]\.?[0-9]?)?",
    "bsdl?",
    "mitx?",
    "apache",
    "artistic",
    "copyingv?[0-9]?",
    "eupl",
    "gfdl",
    "[cm]pl",
    "cc0",
)
# Licences proper by our rule alone, in any case.
OWN_STEMS = (
    "li[cs]en[cs]ing",
    "li[cs]en[cs]es?[0-9]{1,2}",
    "li[cs]en[cs]e(?:[al]?gpl|mit|bsd|apache|mpl)v?[0-9.]{0,4}",
    "(?:[al]?gpl|mit|bsd|apache|mpl)v?[0-9.]{0,4}li[cs]en[cs]e",
    "copyrights",
    "eulas?",
    "lizenz(?:en)?",
    "licencias?",
)
# Texts that may speak of one.
OTHER_STEMS = ("legal", "disclaimer", r"al[-_ v]?(?:[0-9]\.?[0-9])?", "about", "notice", "readme", "guidelines")

# The Stack v1: licence files, and what is read where there is none.
V1_STEMS = (
    "li[cs]en[cs]es?",
    "legal",
    "copy(?:left|right|ing)",
    "unlicense",
    r"l?gpl[-_ v]?(?:[0-9]\.?[0-9]?)?",
    "bsd",
    "mit",
    "apache",
)
V1_README = ("readme",)

TEXT_WORDS = (
    "txt text md markdown mdown mkd mkdn rst rest html htm xhtml rdoc adoc asciidoc asc org textile pod tex rtf "
    "wiki mediawiki creole 1st me en de fr es it pt ru ja zh ko"
)
# Extensions of source and data, in which a licence header is the file's own and not the folder's.
SOURCE_WORDS = (
    "ada adb ads agda applescript as asm asp aspx astro awk bas bash bat bazel bzl c cbl cc cfg clj cljs cls cmake "
    "cmd cob coffee conf config cpp cr cs csh cshtml cson csproj css csv cts cu cuh cxx d dart dfm dockerfile dts e "
    "el elm ejs erb erl ex exs f f90 f95 fbs feature fish for fs fsi fsx ftl g4 gd gemspec glsl gn gni go gql "
    "gradle graphql groovy h haml handlebars hbs hcl hh hpp hrl hs htaccess hx hxx idl idr inc ini ipynb j2 jade "
    "java jbuilder jinja jinja2 jl js json json5 jsonc jsonl jsp jsx kt kts l latte lean less lhs liquid lisp lock "
    "lua m m4 mak mako map mjs mk ml mli mm mts mustache nim nix njk nsi nsh ntp pas patch php phtml pl plist pm pp "
    "prisma pro proj properties proto ps1 psm1 pug py pyi pyx qml r raku rb re res resx rkt rs s sas sass scala scm "
    "scss sh sln sol sparql sql ss st sty sv svelte svg swift t tcl tf thrift tmpl toml tpl ts tsv tsx twig v vala "
    "vb vbs vcxproj vhd vhdl vim vue wat wxs x xaml xhtml5 xib xlf xml xq xsd xsl xslt y yaml yml zig zsh a bin bmp "
    "class dll doc docx dylib eot exe gif gz ico icns jar jpeg jpg mp3 mp4 o ods odt otf pdf png ppt pptx psd pyc "
    "so tar tgz tif tiff ttf wasm wav webp woff woff2 xls xlsx xz zip"
)

TEXT_EXTENSIONS, SOURCE_EXTENSIONS = frozenset(TEXT_WORDS.split()), frozenset(SOURCE_WORDS.split())


def _pattern(stems: tuple[str, ...]) -> str:
    """RE2 pattern over a whole path: its base name is a licence-file name by one of the stems."""
    return rf"(?i)(?:^|/)(?:[^/]*[-_. ])?(?:{'|'.join(stems)})(?:[-_. ][^/]*)?$"


ANY_NAME = _pattern(LICENSE_STEMS + OTHER_STEMS)
LICENSE_NAME = _pattern(LICENSE_STEMS)
V1_NAME, V1_ANY_NAME = _pattern(V1_STEMS), _pattern(V1_STEMS + V1_README)
# "terms.txt" is a vocabulary, TERMS.md are terms.
OWN_NAME = (
    rf"(?:{_pattern(OWN_STEMS)})|(?:^|/)TERMS(?:[-_. ](?:(?i)of|and|use|md|txt|rst|html?|service|conditions|[-_. ])*)?$"
)
OF_OTHERS = r"(?i)(?:^|/)[^/]*(?:(?:3rd|third)[-_. ]?part(?:y|ies)|bundled|dependenc(?:y|ies))[^/]*$"
DOCUMENT = r"(?i)(?:^|/)[^/]*(?:li[cs]en[cs]|copying|eula)[^/]*\.(?:pdf|docx?|odt)$"
PLAIN_EXTENSION = rf"(?i)(?:^|/)(?:\.?[^./]*|[^/]*\.(?:[0-9]+|{'|'.join(sorted(TEXT_EXTENSIONS))}))$"
SOURCE_EXTENSION = rf"(?i)[^/]\.(?:{'|'.join(sorted(SOURCE_EXTENSIONS))})$"


def is_license_file(paths: pa.Array, names: Names = "stackbuild") -> pa.Array:
    """Which paths (string, length n, "/" between folders) are read for a licence: bool of length n."""
    named = pc.match_substring_regex(paths, V1_ANY_NAME if names == "the-stack-v1" else ANY_NAME)
    if names != "stackbuild":
        return named
    plain = pc.and_(named, pc.match_substring_regex(paths, PLAIN_EXTENSION))
    others = pc.match_substring_regex(paths, OF_OTHERS)
    return pc.and_(pc.or_(plain, is_license_proper(paths)), pc.invert(others))


def is_license_proper(paths: pa.Array, names: Names = "stackbuild") -> pa.Array:
    """Which paths are named as the text of a licence (not a notice or a read-me): bool of length n."""
    if names == "the-stack-v1":
        return pc.match_substring_regex(paths, V1_NAME)
    named = pc.match_substring_regex(paths, LICENSE_NAME)
    source = pc.match_substring_regex(paths, SOURCE_EXTENSION)
    if names == "the-stack-v2":
        return pc.and_(named, pc.invert(source))
    named = pc.or_(named, pc.match_substring_regex(paths, OWN_NAME))
    return pc.and_(named, pc.or_(pc.invert(source), pc.match_substring_regex(paths, DOCUMENT)))
