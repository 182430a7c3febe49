"""Validation: what is held out, source by source; spans that are filled in, in both orders; and that it changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stackbuild.tokens.bpe import Vocabulary
from stackbuild.tokens.dataset import TokensDataset
from stackbuild.tokens.encode import LIBRARY, Encoder
from stackbuild.train.generate import Generated
from stackbuild.train.held_out import LONGEST, SPLIT, Questions, questions
from stackbuild.train.run import Run
from stackbuild.train.validation import Validation, ValidationOptions
from tests.train.conftest import recipe


@pytest.fixture(scope="module")
def asked(corpus: Path) -> Questions:
    return questions(TokensDataset(corpus), "code", 60, 0, 128)


def parts(asked: Questions, ids: list[int]) -> list[str]:
    """The texts between sentinels."""
    found: list[list[int]] = [[]]
    for token in ids:
        if token in asked.stop:
            found.append([])
        else:
            found[-1].append(token)
    return [asked.vocabulary.decode(some) for some in found]


def test_questions_are_the_same_each_time_and_of_other_seeds_others(corpus: Path, asked: Questions) -> None:
    assert len(asked.spans) > 20
    assert questions(TokensDataset(corpus), "code", 60, 0, 128).spans == asked.spans
    assert questions(TokensDataset(corpus), "code", 60, 1, 128).spans != asked.spans


def test_both_orders_hold_one_text_of_a_held_out_file(corpus: Path, asked: Questions) -> None:
    dataset = TokensDataset(corpus)
    texts = []
    for number in range(dataset.documents("code", SPLIT)):
        document = dataset.document("code", SPLIT, number)
        files = document.row["files"]
        texts += [asked.vocabulary.decode(document.tokens[file["start"] : file["end"]].tolist()) for file in files]
    for one in asked.spans:
        empty, prefix, suffix, middle, end = parts(asked, one.psm)
        assert (empty, end, middle) == ("", "", one.middle)
        assert any(prefix + middle + suffix in text for text in texts)
        assert parts(asked, one.spm) == ["", "", suffix, prefix + middle, ""]
        assert 0 < len(middle) <= LONGEST and "\n" not in middle
        assert max(len(one.psm), len(one.spm)) <= 128


def test_sentinels_and_the_end_are_those_of_training(corpus: Path, asked: Questions) -> None:
    """Swapped sentinels would measure another task; the answer ends with what follows a file in a document."""
    names = {number: name for name, number in TokensDataset(corpus).manifest.sentinels.items()}
    for one in asked.spans:
        told = [names[token] for token in one.psm if token in names]
        assert told == ["<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<file_sep>"]
        assert [names[token] for token in one.spm if token in names] == [
            "<fim_prefix>",
            "<fim_suffix>",
            "<fim_middle>",
            "<file_sep>",
        ]
        assert one.psm[0] == one.spm[0] and names[one.spm[1]] == "<fim_suffix>"


def test_parts_are_encoded_as_training_does(corpus: Path, asked: Questions) -> None:
    """Each part of PSM by itself; prefix and middle of SPM as one text."""
    encoder = Encoder(Vocabulary(TokensDataset(corpus).tokenizer), LIBRARY)
    for one in asked.spans[:20]:
        _, prefix, _, middle, _ = parts(asked, one.psm)
        (ids,) = encoder.encode([middle])
        assert one.psm[one.psm_middle : -1] == ids.tolist()
        (joint,) = encoder.encode([prefix + middle])
        assert one.spm[len(one.spm) - 1 - len(joint) : -1] == joint.tolist()
        before = asked.vocabulary.tokenizer.decode(
            one.spm[len(one.spm) - 1 - len(joint) : one.spm_middle], skip_special_tokens=False
        )
        assert prefix.startswith(before.rstrip("\ufffd")) and one.spm_middle < len(one.spm) - 1


def test_the_loss_is_the_mean_over_labels(opened: Callable[..., Run], corpus: Path) -> None:
    run = opened(recipe())
    run.close()
    results = []
    for micro in (1, 5):
        validation = Validation(corpus, ValidationOptions(rows=7, spans=0), 64, micro)
        results.append(validation.measure(run.model, nullcontext))
    one, other = (result.sources["code"] for result in results)
    assert one.tokens == other.tokens and one.loss == pytest.approx(other.loss, abs=1e-5)
    assert one.psm is None and one.exact is None
    rows = validation._source("code").rows
    assert rows is not None and len(rows.tokens) == 7
    arrays = [torch.from_numpy(column) for column in rows[:4]]
    tokens, labels, positions, documents = arrays
    expected = run.model.loss(tokens, labels.long(), positions, documents)
    assert one.loss == pytest.approx(float(expected.sum.detach()) / int(expected.count), abs=1e-5)


def test_middles_alone_are_measured(opened: Callable[..., Run], corpus: Path, asked: Questions) -> None:
    run = opened(recipe())
    run.close()
    validation = Validation(corpus, ValidationOptions(rows=1, spans=9), 64, 4)
    result = validation.measure(run.model, nullcontext).sources["code"]
    questions_ = validation._source("code").asked
    assert questions_ is not None and result.spans == len(questions_.spans) == 9
    for kind, given in (("psm", "psm_middle"), ("spm", "spm_middle")):
        total, count = 0.0, 0
        for one in questions_.spans:
            ids, first = getattr(one, kind), getattr(one, given)
            with torch.no_grad():
                hidden = run.model(torch.tensor([ids]), None, run.model.mask())
                logp = torch.log_softmax(run.model.logits(hidden)[0], -1)
            for at in range(first, len(ids) - 1):
                total -= float(logp[at - 1, ids[at]])
                count += 1
        assert getattr(result, kind) == pytest.approx(total / count, abs=1e-4)


def test_answers_must_be_exact_and_end(
    opened: Callable[..., Run], corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half are given back, of which one has no end; the check that StarCoder2-15B lacked."""
    run = opened(recipe())
    run.close()
    validation = Validation(corpus, ValidationOptions(rows=1, spans=8), 64, 3)
    source = validation._source("code").asked
    assert source is not None
    by_prompt = {tuple(one.prompt): (number, one) for number, one in enumerate(source.spans)}

    def answers(model: Any, prompts: Any, limits: list[int], stop: Any) -> list[Generated]:
        assert stop == set(source.stop)
        found = []
        for prompt, limit in zip(prompts, limits, strict=True):
            number, one = by_prompt[tuple(prompt)]
            ids = one.psm[one.psm_middle : -1]
            assert limit >= len(ids) + 1
            found.append(Generated(ids if number % 2 else [*ids, ids[0]], number != 1))
        return found

    monkeypatch.setattr("stackbuild.train.validation.greedy", answers)
    result = validation.measure(run.model, nullcontext).sources["code"]
    assert result.exact == 3 / 8 and result.stop == 7 / 8


def test_it_changes_nothing_of_the_run(opened: Callable[..., Run]) -> None:
    from tests.train.test_run import same, state, trained

    runs = [opened(recipe(validation={"every": every, "rows": 2, "spans": 2}), f"v{every}") for every in (0, 3)]
    reports = [trained(run) for run in runs]
    assert same(state(runs[0]), state(runs[1]))
    assert [step for step, _ in reports[1].results] == [3, 6, 9, 12]


def test_a_corpus_that_holds_nothing_out(opened: Callable[..., Run], corpus: Path, copied: Path) -> None:
    run = opened(recipe())
    run.close()
    result = Validation(copied, ValidationOptions(), 64, 4).measure(run.model, nullcontext)
    assert result == (None, {})


def test_a_model_that_learned_fills_in(opened: Callable[..., Run]) -> None:
    """PSM's middle is easier to it than to a new model, by far: swapped sentinels or a shifted label would show."""
    from tests.train.test_run import trained

    run = opened(
        recipe(
            schedule={"steps": 150, "peak": 5e-3},
            data={"batch": 8, "micro_batch": 8},
            validation={"every": 150, "spans": 40, "rows": 8},
        )
    )
    ((_, result),) = trained(run).results
    source = result.sources["code"]
    assert source.psm < 5.5 and source.spm < 5.5 and source.loss < 5.5 < np.log(600)


def test_learned_positions_hold_every_question_and_a_wrong_answer(opened: Callable[..., Run]) -> None:
    """Rows as long as the positions, as all recipes of version 1 have them."""
    shape = {"family": "gpt_bigcode", "kv_heads": 1, "rope_theta": None, "max_positions": 64}
    run = opened(recipe(model=shape, data={"micro_batch": 4}, validation={"every": 6, "rows": 2, "spans": 60}))
    from tests.train.test_run import trained

    ((_, first), _) = trained(run).results
    assert first.sources["code"].spans > 20
