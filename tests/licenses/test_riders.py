"""Sentences that take back a part of a permissive licence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stackbuild.licenses import detect, riders
from stackbuild.licenses.detect import Detector
from stackbuild.licenses.lists import LicenseDataError, scancode_licenses
from stackbuild.licenses.riders import riding, sentences
from tests.worlds import MIT


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    detect.warm()


RIDERS = [
    ("terms", "For closed source, buy a license at foo.example."),
    ("terms", "Not for resale."),
    ("terms", "Use in SaaS offerings is excluded."),
    ("terms", "This license expires on 2022-01-01."),
    ("terms", "This license may be revoked at any time."),
    ("terms", "Do not reupload"),
    ("terms", "The software has to be registered before use"),
    ("terms", "Die kommerzielle Nutzung ist untersagt"),
    ("terms", "仅限非商业用途"),
    ("terms", "商业使用请联系作者获取授权"),
    ("terms", "Uso exclusivamente académico"),
    ("terms", "Solo per uso personale"),
    ("terms", "Только некоммерческое использование"),
    ("terms", "個人利用に限ります"),
    ("terms", "Commercieel gebruik verboden"),
    ("terms", "The following license applies to jquery.js only:"),
    ("no-training", "In addition, the Software may not be used for training or improving machine learning algorithms."),
    ("no-training", "This code may not be used to train artificial intelligence models\nor retrieved by such."),
    ("no-training", "2. NO AI USAGE\n   The Software may NOT be included in any dataset intended for a large language model."),
    ("no-training", "Permission is not granted to use this software as sample data for the purposes of building machine learning\nmodels."),
    ("no-training", "You shall not use the Software in the creation of an Artificial Intelligence training dataset."),
    ("no-training", "The code must not be used as training, fine-tuning, or evaluation data for any ML/AI\nmodel without permission."),
    ("no-training", "Use of the code for AI training is prohibited."),
    ("non-commercial", "This licence covers non-commercial use only."),
    ("non-commercial", "The Software may not be used for commercial purposes."),
    ("non-commercial", "Commercial use is strictly prohibited without a licence from the authors."),
    ("non-commercial", "It is for personal and educational use only."),
    ("field-of-use", "The Software shall be used for Good, not Evil."),
    ("field-of-use", "The Software may not be used by or for the military."),
    ("field-of-use", "You may not use the Software to provide a managed service to others."),
    ("field-of-use", "The Software must not be used in ways that violate human rights."),
    ("commons-clause", '"Commons Clause" License Condition v1.0'),
    ("commons-clause", "The License does not grant to you the right to Sell\nthe Software."),
    ("modified", "MIT License with the following additional restrictions:"),
    ("modified", "An additional grant of patent rights can be found in the PATENTS file in the same directory."),
    ("restricted", "You may not redistribute the software in any form."),
    ("terms", "Companies with more than 100 employees must buy a license key before using the Software."),
    ("terms", "Use in production requires a paid subscription."),
    ("terms", "Any use requires prior written consent of the author."),
    ("terms", "Redistribution in any form is forbidden."),
    ("terms", "You may not make derivative works."),
    ("terms", "This license does not apply to everybody."),
    ("terms", "MIT for you and me; companies need to ask."),
    ("terms", "Use needs my written consent."),
    ("terms", "Redistribution requires the author's written permission."),
    ("terms", "Free for personal use."),
    ("terms", "A license is required for production."),
    ("terms", "Written permission is needed for any use at work."),
    ("terms", "Production use needs a key."),
    ("terms", "Hobbyists only."),
    ("terms", "If you make money with this, pay me."),
    ("terms", "Users with revenue above $1M need a separate agreement."),
    ("terms", "It is given to you for internal evaluation only."),
    ("terms", "Redistribution in source and binary forms, without modification, is fine."),
    ("terms", "Any modified version must be published under this same license."),
    ("terms", "\u672c\u9879\u76ee\u4ec5\u4f9b\u5b66\u4e60\uff0c\u7981\u6b62\u5546\u7528\u3002"),
    ("terms", "Uso comercial prohibido."),
]  # fmt: skip


@pytest.mark.parametrize("place", ["above", "below", "within"])
@pytest.mark.parametrize(("key", "rider"), RIDERS)
def test_a_permissive_text_with_a_rider_is_not_permissive(key: str, rider: str, place: str) -> None:
    texts = {
        "above": f"{rider}\n\n{MIT}",
        "below": f"{MIT}\n{rider}\n",
        "within": MIT.replace("\nTHE SOFTWARE IS", f"\n{rider}\n\nTHE SOFTWARE IS"),
    }
    found = Detector().detect(texts[place].encode(), True)
    worst = max(map(detect.severity_of, found.keys))
    assert worst == 4, found
    if place != "within":
        assert "MIT" in found.keys
    evidence = [one for one in found.found if one.expression == f"LicenseRef-stackbuild-{key}"]
    for one in evidence:
        first, last = one.lines
        said = "\n".join(texts[place].splitlines()[first - 1 : last])
        assert rider.split("\n", maxsplit=1)[0].split(".", maxsplit=1)[0][:30] in said or said in rider


@pytest.mark.parametrize(
    "sentence",
    [
        "It may be used for commercial and non-commercial purposes.",
        "You may use it for any purpose, commercial or non-commercial, without restriction.",
        "Use in commercial products is allowed, and not restricted.",
        "The name of the authors may not be used to endorse products derived from this software.",
        "Do not file issues here. We train new maintainers, and an AI answers.",
        "This project trains neural networks.",
        "You may redistribute it and modify it under the terms of the licence.",
        "You don't have to pay us.",
        "You can use it without having to pay us.",
        "We try to help developers while not being taken advantage of by commercial entities.",
    ],
)
def test_what_restricts_nothing_is_no_rider(sentence: str) -> None:
    assert riding([line.lower() for line in sentence.split("\n")], set()) == {}
    assert Detector().detect(f"{MIT}\n{sentence}\n".encode(), True).keys == ("MIT",)


def test_a_read_me_has_no_riders_and_a_copyleft_text_needs_none() -> None:
    assert Detector().detect(f"{MIT}\nFor non-commercial use only.\n".encode(), False).keys != ()
    gpl = b"GNU GPL version 3 or later\n\nThe Software shall be used for Good, not Evil.\n"
    assert not any("stackbuild" in key for key in Detector().detect(gpl, True).keys)


def test_the_data_is_of_non_permissive_keys_and_patterns_that_are_re2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {scancode_licenses().class_of(one.key) for one in riders.riders()[1]} == {"non_permissive"}
    bad = tmp_path / "riders.toml"
    for body in ('[[rider]]\nkey = "x"\npatterns = ["(?=x)"]\n', '[[rider]]\nkey = "x"\n'):
        bad.write_text('version = "1"\n' + body)
        monkeypatch.setattr(riders, "data_path", lambda name: bad)
        riders.riders.cache_clear()
        with pytest.raises(LicenseDataError, match=r"riders\.toml"):
            riders.riders()
    monkeypatch.undo()
    riders.riders.cache_clear()


def test_a_pattern_may_be_alternatives_and_go_on_in_the_next_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "riders.toml"
    body = ['version = "1"', "[[rider]]", 'key = "x"', "patterns = [['one', QQQ", "  tw", "  o QQQ, 'three']]", ""]
    data.write_text("\n".join(body).replace("QQQ", "'" * 3))
    monkeypatch.setattr(riders, "data_path", lambda name: data)
    riders.riders.cache_clear()
    (rider,) = riders.riders()[1]
    assert [one.pattern for one in rider.patterns] == ["one|two |three"]
    monkeypatch.undo()
    riders.riders.cache_clear()


def test_sentences_end_at_full_stops_and_where_lines_are_left_out() -> None:
    lines = ["one. two", "three e.g. four. five", "six", "seven!"]
    found = list(sentences(lines, {0, 1, 3}))
    assert found == [("one.", 0, 0), ("two three e.g. four.", 0, 1), ("five", 1, 1), ("seven!", 3, 3)]
    assert [len(words) for words, _, _ in sentences(["x" * 600] * 5, set(range(5)))] == [1201, 1201, 600]


def test_no_text_of_a_permissive_licence_is_taken_for_one_with_a_rider() -> None:
    """As ScanCode knows it word for word; but for those that do restrict."""
    from licensedcode.cache import get_licenses_db

    texts = [one for one in get_licenses_db().values() if one.text and one.category in ("Permissive", "Public Domain")]
    ridden: list[Any] = []
    for one in texts:
        form = detect.normal_form(one.text, detect.own_lines())
        if detect.ridden(form.split("\n"), detect.matches(form)):
            ridden.append(one.spdx_license_key)
    assert {"JSON", "Pixar"} <= set(ridden) and len(ridden) <= 10 and len(texts) > 800


def test_no_rider_is_lost_that_is_sought_only_where_its_words_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that ends where a licence begins that is known word for word, without a full stop."""
    texts = [text.lower().split("\n") for _, text in RIDERS]
    texts += [["not for commercial and non-commercial use as well as", *text] for text in texts]
    cases = [
        ([*text[:-1], text[-1].rstrip("."), *below], {len(text)}) for text in texts for below in ([], ["permission is"])
    ]
    sought = [riding(text, known, header) for text, known in cases for header in (False, True)]
    monkeypatch.setattr(riders.Rider, "may_speak_in", lambda self, text: True)
    assert [riding(text, known, header) for text, known in cases for header in (False, True)] == sought
    assert sum(map(bool, sought)) > len(RIDERS)
