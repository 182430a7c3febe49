"""The chain of languages/encodings.py: each step, what it must not take, and that a name gives the text back."""

from __future__ import annotations

import codecs
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stackbuild.languages import encodings
from stackbuild.languages.alphabets import misfits
from stackbuild.languages.decode import buffers_of
from stackbuild.languages.encodings import BINARY, UNCERTAIN, Reading

RUSSIAN = "# Функция возвращает сумму двух чисел, если они положительны, иначе вызывает ошибку.\nx = 1\n"
JAPANESE = "# この関数は二つの数の合計を返します。負の数の場合はエラーになります。カタカナ表記。\nx = 1\n"
KOREAN = "# 이 함수는 두 수의 합을 돌려준다. 음수이면 오류가 발생한다. 한국어 주석입니다.\nx = 1\n"
CHINESE = "# 这个函数返回两个数的和,如果是负数就会出错。请注意检查输入参数是否正确。\nx = 1\n"
TAIWANESE = "# 這個函數返回兩個數的和,如果是負數就會出錯。請注意檢查輸入參數是否正確。\nx = 1\n"
FRENCH = "// Cette fonction a été écrite à l'époque où il n'y avait pas de système : elle évalue les données.\n"
GREEK = "# Αυτή η συνάρτηση επιστρέφει το άθροισμα δύο αριθμών, αλλιώς εμφανίζει σφάλμα.\n"
THAI = "# ฟังก์ชันนี้คืนค่าผลรวมของสองจำนวน ถ้าเป็นจำนวนลบจะเกิดข้อผิดพลาด\n"


def probed(data: bytes) -> tuple[int, int]:
    flags, nuls = encodings.probe(*buffers_of(pa.array([data], pa.large_binary())))
    return int(flags[0]), int(nuls[0])


@pytest.mark.parametrize(
    "text, codec, name",
    [
        (RUSSIAN, "cp1251", "WINDOWS-1251"),
        (RUSSIAN, "cp866", "IBM866"),
        (RUSSIAN, "koi8-r", "KOI8-U"),  # which holds KOI8-R's letters
        (JAPANESE, "cp932", "CP932"),
        (JAPANESE, "euc-jp", "EUC-JP"),
        (JAPANESE, "iso2022_jp", "ISO-2022-JP"),
        (KOREAN, "cp949", "CP949"),
        (KOREAN, "iso2022_kr", "ISO-2022-KR"),
        (CHINESE, "gb18030", "GB18030"),
        (TAIWANESE, "big5", "BIG5-HKSCS"),
        (FRENCH, "cp1252", "WINDOWS-1252"),
        (GREEK, "cp1253", "WINDOWS-1253"),
        (THAI, "cp874", "CP874"),
        (FRENCH, "utf-8-sig", "UTF-8-SIG"),
        (FRENCH, "utf-16-le", "UTF-16LE"),
        (FRENCH, "utf-16-be", "UTF-16BE"),
        ("é", "cp1252", "WINDOWS-1252"),
        (RUSSIAN, "utf-8", "UTF-8"),
        ("", "ascii", "UTF-8"),
    ],
)
def test_text_in_a_known_encoding_comes_back_exactly(text: str, codec: str, name: str) -> None:
    data = text.encode(codec)
    reading = encodings.read(data)
    assert (reading.encoding, reading.text, reading.lossless) == (name, text, True)
    assert data.decode(name) == text  # what a reader of the release does
    assert encodings.encode(text, name) == data


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE])
def test_a_byte_order_mark_decides_and_is_no_text(mark: bytes) -> None:
    width, order = (
        (32 if len(mark) == 4 else 16),
        ("le" if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF32_LE) else "be"),
    )
    data = mark + RUSSIAN.encode(f"utf-{width}-{order}")
    reading = encodings.read(data)
    assert (reading.encoding, reading.text) == (f"UTF-{width}", RUSSIAN)
    assert data.decode(f"UTF-{width}") == RUSSIAN
    assert reading.lossless == (order == "le")  # the name does not tell a big-endian order
    assert (encodings.encode(RUSSIAN, f"UTF-{width}") == data) == reading.lossless


def test_only_the_first_mark_is_one() -> None:
    data = codecs.BOM_UTF8 * 2 + b"x"
    assert encodings.read(data) == Reading("UTF-8-SIG", "\ufeffx", True)
    assert encodings.read(b"x" + codecs.BOM_UTF8) == Reading("UTF-8", "x\ufeff", True)


@pytest.mark.parametrize(
    "data",
    [
        codecs.BOM_UTF8 + b"caf\xe9",
        codecs.BOM_UTF16_LE + b"a",
        codecs.BOM_UTF16_BE + b"\xd8\x01\x41\x42",  # half a pair
    ],
)
def test_a_mark_that_lies_leaves_nothing_to_guess(data: bytes) -> None:
    assert (encodings.read(data).reason, encodings.read(data).text) == (UNCERTAIN, None)


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"text with one\0 NUL.",
        b"text with one\0NUL",
        b"\x7fELF\x02\x01\x01" + b"\0" * 9 + b"\x03\0>\0",
        bytes(range(256)),
        b"\x01\0\x02\0\x03\0\x04\0",  # numbers of 16 bits, on one side only, but no text
        b"ab" * 500 + b"\0a" + b"cd" * 500,
        "a\0b".encode("utf-16"),
        codecs.BOM_UTF16_LE + b"\0",
        "text".encode("utf-32-le"),
        RUSSIAN.encode() + b"\0" * 100,  # half binary
        b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(random.Random(3).randbytes(2_000)),
    ],
)
def test_nul_bytes_are_binary(data: bytes) -> None:
    assert encodings.read(data).reason == BINARY


def test_random_bytes_are_never_given_a_text() -> None:
    for seed in range(60):
        data = random.Random(seed).randbytes(3_000).replace(b"\0", b"\1")
        assert encodings.read(data).reason == UNCERTAIN


def test_terminal_sequences_are_utf8() -> None:
    for data in (b"\x1b[31mred\x1b[0m\n", b"tput sgr0 \x1b(B\x1b[m", b"\x1b$B not really", "\x1b$B é".encode()):
        assert encodings.read(data) == Reading("UTF-8", data.decode(), True)


def test_controls_in_utf8_stay() -> None:
    assert encodings.read("a\x85b\x01\x02".encode()).encoding == "UTF-8"


@given(st.binary(max_size=40) | st.text(max_size=20).map(str.encode))
@example(b"\xed\xa0\x80")
@example(b"\xf4\x90\x80\x80")
@example(b"\xc0\xaf")
@example(b"\xe0\x9f\xbf")
@example(b"\xf0\x8f\xbf\xbf")
@example("\U0010ffff\ud7ff".encode())
@example(b"\xe4\xb8")
@settings(max_examples=300, deadline=None)
def test_the_probe_knows_utf8_as_python_does(data: bytes) -> None:
    try:
        data.decode("utf-8")
        valid = True
    except UnicodeDecodeError:
        valid = False
    flags, nuls = probed(data)
    assert bool(flags & int(encodings.VALID)) == valid
    assert nuls == data.count(0)


@given(
    st.binary(max_size=60)
    | st.text(max_size=30).flatmap(
        lambda t: st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "gb18030"]).map(
            lambda c: t.encode(c, "replace")
        )
    )
)
@settings(max_examples=300, deadline=None)
def test_whatever_is_read_is_what_its_name_gives_and_lossless_is_true(data: bytes) -> None:
    reading = encodings.read(data)
    if reading.encoding is None:
        assert reading.reason in (BINARY, UNCERTAIN) and reading.text is None and reading.finding
        return
    assert data.decode(reading.encoding) == reading.text
    assert reading.text is not None
    assert (encodings.encode(reading.text, reading.encoding) == data) == reading.lossless
    reading.text.encode("utf-8")  # no lone surrogates


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_what_the_probe_calls_plain_the_chain_calls_utf8(data: bytes) -> None:
    flags, nuls = probed(data)
    if flags == int(encodings.VALID) and nuls == 0:
        assert encodings.read(data) == Reading("UTF-8", data.decode(), True)


def test_the_probe_reads_rows_where_they_lie() -> None:
    rows = pa.array([b"zz", b"\xff", "é".encode(), b"\0a", b""], pa.large_binary()).slice(1)
    flags, nuls = encodings.probe(*buffers_of(rows))
    assert flags.tolist() == [0, 1, 1, 1]
    assert np.array_equal(nuls, [0, 0, 1, 0])


def test_every_answer_of_the_detector_is_a_codec_here() -> None:
    answers = (
        "windows-1250 windows-1251 windows-1252 windows-1253 windows-1254 windows-1255 windows-1256 windows-1257 "
        "windows-1258 windows-874 ISO-8859-2 ISO-8859-4 ISO-8859-5 ISO-8859-6 ISO-8859-7 ISO-8859-8 ISO-8859-8-I "
        "ISO-8859-13 KOI8-U IBM866 EUC-JP EUC-KR GBK Big5 Shift_JIS ISO-2022-JP UTF-8 x-mac-cyrillic"
    )
    for answer in answers.split():
        name = encodings._NAMES.get(answer, answer.upper())
        assert "a".encode(name).decode(name) == "a"


@pytest.mark.parametrize(
    "data, answer, says",
    [
        (b"caf\xe9 \x81", "ISO-8859-2", "C1 control"),
        (b"\xe9" + b"\x01" * 2 + b"x" * 100, "windows-1252", "many control"),
        (b"fee\x95\x82\x91b\xfbeh", "Shift_JIS", "does not encode back"),
        (b"caf\xe9 \x81", "windows-1252", "does not decode"),
        (b"caf\xe9", "no-such-charset", "does not decode"),
    ],
)
def test_a_detector_is_not_taken_at_its_word(
    monkeypatch: pytest.MonkeyPatch, data: bytes, answer: str, says: str
) -> None:
    monkeypatch.setattr("chardetng_py.detect", lambda *_, **__: answer)
    reading = encodings.read(data)
    assert reading.reason == UNCERTAIN and reading.text is None
    assert reading.finding is not None and says in reading.finding


def test_one_control_in_a_hundred_characters_is_still_text() -> None:
    assert encodings.read(b"\xe9\x1a" + b"x" * 98).text == "é\x1a" + "x" * 98


CODE = "def total(values):\n    return sum(values)\n"


@pytest.mark.parametrize(
    ("comment", "charset", "answer"),
    [
        ("hodnota: číslo väčšie ako nula", "cp1250", "windows-1252"),
        ("hodnota: číslo väčšie ako nula", "iso8859-2", "windows-1252"),
        ("Größe für später", "cp1252", "windows-1257"),
        ("não é a opção", "cp1252", "windows-1250"),
        ("Değer geçersiz, lütfen şunu girin", "cp1254", "windows-1252"),
        (
            "ti\u0301nh đươ\u0323c gia\u0301 trị của nươ\u0301c".replace("ị", "i\u0323").replace("ủ", "u\u0309"),
            "cp1258",
            "windows-1252",
        ),
        ("エラーがあります", "cp932", "windows-1252"),
    ],
)
def test_an_answer_of_no_language_gives_way_to_one_that_is_of_one(
    monkeypatch: pytest.MonkeyPatch, comment: str, charset: str, answer: str
) -> None:
    monkeypatch.setattr("chardetng_py.detect", lambda *_, **__: answer)
    text = f"# {comment}\n{CODE}"
    assert encodings.read(text.encode(charset)).text == text


@pytest.mark.parametrize("comment", ["café", "naïve “façade”", "Ångström ± 5 µm", "ŁÓDŹ", "ÉTÉ"])
def test_an_answer_that_is_of_one_language_stays(monkeypatch: pytest.MonkeyPatch, comment: str) -> None:
    for charset in ("cp1252", "cp1250"):
        data = comment.encode(charset, "ignore")
        if data.decode(charset) == comment:
            monkeypatch.setattr("chardetng_py.detect", lambda *_, name=charset, **__: name.replace("cp", "windows-"))
            assert encodings.read(data).text == comment


def test_a_capital_inside_a_word_is_of_no_language() -> None:
    assert misfits("État, ÉTÉ, été") == 0
    assert misfits("dÊp") == 1
    assert misfits("3² m², 20 °C") == 0 and misfits("va¹ie") == 1
    assert misfits("é ł") == 1  # of two alphabets, one letter each


@pytest.mark.parametrize("charset", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("comment", ["가격이 없습니다. 준비", "値\u3000がありません", "数据一二三"])
def test_utf16_without_a_mark_may_have_nuls_on_both_sides(charset: str, comment: str) -> None:
    text = f"# {comment}\n{CODE}"
    data = text.encode(charset)
    assert encodings.read(data).text == text
    assert encodings.read(data[:-1]).reason == BINARY


def test_numbers_of_two_bytes_are_binary() -> None:
    for kind in ("<u2", ">u2"):
        assert encodings.read(np.arange(3_000).astype(kind).tobytes()).reason == BINARY
        assert encodings.read((np.arange(3_000) % 90).astype(kind).tobytes()).reason == BINARY
