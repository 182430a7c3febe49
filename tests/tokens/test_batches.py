"""Batches: every token once, cut where the rules say, the same whoever asks, and nothing moves when text is taken out."""

from __future__ import annotations

import collections
import functools
import itertools
import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from stackbuild.cli.app import app
from stackbuild.errors import InputError, StackbuildError
from stackbuild.tokens.batches import IGNORED, NO_ROOM, NOBODY, Batches, Piece, Rows
from stackbuild.tokens.bpe import Vocabulary
from stackbuild.tokens.count_rows import count_rows
from stackbuild.tokens.data_config import DataConfig, SourceConfig
from stackbuild.tokens.dataset import TokensDataset
from stackbuild.tokens.ds import import_ds
from stackbuild.tokens.fim_options import FimOptions
from stackbuild.tokens.fim_types import AST, SPM
from stackbuild.tokens.merge import merge
from stackbuild.tokens.removed import Removed
from stackbuild.tokens.source_rows import _sealed
from tests.tokens.test_ds import write_ds

OFF = FimOptions(rate=0)
ALWAYS = FimOptions(rate=1, fragment_rate=1)
LENGTHS = (64, 200, 1024)


def config(length: int, fim: FimOptions = OFF, **more: Any) -> DataConfig:
    return DataConfig(sequence_length=length, fim=fim, window=16, **more)


def epoch(batches: Batches, number: int = 0) -> tuple[Rows, list[list[Piece]]]:
    """All rows of an epoch of the one source."""
    source = batches.sources[0]
    first = sum(source.rows(before) for before in range(number))
    return batches.explain(first, source.rows(number))


def document(corpus: Path, piece: Piece) -> dict[str, Any]:
    return _document(corpus, piece.prefix, piece.number)


@functools.cache
def _document(corpus: Path, prefix: str, number: int) -> dict[str, Any]:
    dataset = TokensDataset(corpus)
    (shard,) = (one for one in dataset.shards("code", "train") if one.shard.prefix == prefix)
    found = dataset.read(shard, number)
    return {"tokens": found.tokens.tolist(), "row": found.row}


@pytest.mark.parametrize("length", LENGTHS)
def test_every_token_but_a_documents_first_is_a_label_once_in_an_epoch(corpus: Path, length: int) -> None:
    batches = Batches(corpus, config(length), 3)
    for number in (0, 1):
        rows, told = epoch(batches, number)
        labels: collections.Counter[tuple[str, int, int]] = collections.Counter()
        for row, pieces in enumerate(told):
            for place, piece in enumerate(pieces):
                tokens = document(corpus, piece)["tokens"]
                here = slice(piece.start, piece.end)
                assert rows.tokens[row, here].tolist() == tokens[piece.low : piece.high]
                assert rows.labels[row, here].tolist() == tokens[piece.low + 1 : piece.high + 1]
                assert rows.positions[row, here].tolist() == list(range(piece.high - piece.low))
                assert set(rows.document[row, here].tolist()) == {place}
                labels.update((piece.prefix, piece.number, at + 1) for at in range(piece.low, piece.high))
            behind = pieces[-1].end
            assert (rows.document[row, behind:] == NOBODY).all() and (rows.labels[row, behind:] == IGNORED).all()
        every = {
            (shard.shard.prefix, k, at)
            for shard in batches.sources[0].shards
            for k, size in enumerate(shard.tokens.sizes.tolist())
            for at in range(1, size)
        }
        assert set(labels) == every and set(labels.values()) == {1}


@pytest.mark.parametrize("fim", [OFF, ALWAYS])
@pytest.mark.parametrize("length", LENGTHS)
def test_documents_are_cut_only_where_they_are_longer_and_by_the_rules(
    corpus: Path, length: int, fim: FimOptions
) -> None:
    batches = Batches(corpus, config(length, fim), 3)
    vocabulary = Vocabulary(corpus / "tokenizer.json")
    _, told = epoch(batches)
    pieces = sorted((piece.prefix, piece.number, piece.low, piece.high) for row in told for piece in row)
    of: dict[tuple[str, int], list[tuple[int, int]]] = collections.defaultdict(list)
    for prefix, number, low, high in pieces:
        of[prefix, number].append((low, high))
    for (prefix, number), spans in of.items():
        found = document(corpus, Piece(prefix, number, 0, 0, 0, {}, {}, 0, 0))
        tokens, row = found["tokens"], found["row"]
        assert spans[0][0] == 0 and spans[-1][1] == len(tokens) - 1
        assert all(one[1] == two[0] for one, two in itertools.pairwise(spans))
        if len(tokens) - 1 <= length:
            assert len(spans) == 1
        for low, high in spans[:-1]:
            for header in row["headers"]:
                assert not header["start"] < high < header["end"] or header["start"] <= low
            for file in row["files"]:
                if file["start"] < high < file["end"]:
                    vocabulary.decode(tokens[file["start"] : high]).encode()
                    assert "\ufffd" not in vocabulary.decode(tokens[file["start"] : high])


@pytest.mark.parametrize("fim", [OFF, FimOptions()])
def test_a_batch_is_the_same_whoever_asks_for_it(corpus: Path, tmp_path: Path, fim: FimOptions) -> None:
    one = Batches(corpus, config(128, fim), 5)
    total = sum(one.sources[0].rows(number) for number in (0, 1))
    whole = one.batch(0, total)
    for ranks in (1, 2, 4):
        again = [Batches(corpus, config(128, fim), 5, tmp_path / "cache") for _ in range(ranks)]
        for sample in reversed(range(total)):
            row = again[sample % ranks].batch(sample, 1)
            for name, array in row._asdict().items():
                assert array[0].tolist() == getattr(whole, name)[sample].tolist()
    other = Batches(corpus, config(128, fim), 6).batch(0, total // 2)
    assert other.tokens.tolist() != whole.tokens[: total // 2].tolist()


def parts(vocabulary: Vocabulary, ids: list[int]) -> tuple[str, bool]:
    """The text of a treated file, put together again, and whether it was SPM."""
    prefix, suffix, middle = (vocabulary.sentinels[f"<fim_{name}>"] for name in ("prefix", "suffix", "middle"))
    assert ids[0] == prefix and ids.count(suffix) == ids.count(middle) == 1
    s, m = ids.index(suffix), ids.index(middle)
    tail, rest = vocabulary.decode(ids[s + 1 : m]), vocabulary.decode(ids[m + 1 :])
    return (rest + tail, True) if s == 1 else (vocabulary.decode(ids[1:s]) + rest + tail, False)


def reassembled(corpus: Path, batches: Batches, vocabulary: Vocabulary, number: int) -> tuple[int, int]:
    """Check that an epoch's rows are its documents, treated files put together again: how many are treated, and by SPM."""
    rows, told = epoch(batches, number)
    treated = variants = 0
    for row, pieces in enumerate(told):
        for piece in pieces:
            found = document(corpus, piece)
            tokens, files = found["tokens"], found["row"]["files"]
            ids = [*rows.tokens[row, piece.start : piece.end].tolist(), tokens[piece.high]]
            at = piece.low
            for place, why in piece.files.items():
                if why != "treated":
                    continue
                start, end = max(files[place]["start"], piece.low), files[place]["end"]
                assert end <= piece.high  # none that is cut at its end
                plain = tokens[at:start]
                assert ids[: len(plain)] == plain
                behind = tokens[end : piece.high + 1]
                later = [p for p in piece.files if p > place and piece.files[p] == "treated"]
                size = ids.index(tokens[end], len(plain)) - len(plain)
                if not later:
                    size = len(ids) - len(plain) - len(behind)
                text, spm = parts(vocabulary, ids[len(plain) : len(plain) + size])
                assert text == vocabulary.decode(tokens[start:end])
                assert spm or not piece.variants[place] & SPM  # PSM without a prefix reads as SPM does
                ids, at, treated, variants = ids[len(plain) + size :], end, treated + 1, variants + spm
            assert ids == tokens[at : piece.high + 1]
    return treated, variants


@pytest.mark.parametrize("length", LENGTHS)
def test_with_fim_every_source_byte_is_read_once(corpus: Path, length: int) -> None:
    batches = Batches(corpus, config(length, ALWAYS), 3)
    treated, variants = reassembled(corpus, batches, Vocabulary(corpus / "tokenizer.json"), 0)
    assert treated > 20 and 0.2 < variants / treated < 0.8
    assert batches.counters["treated"] == treated


@pytest.mark.slow
def test_ten_thousand_treated_files_are_put_together_again(corpus: Path) -> None:
    batches, vocabulary = Batches(corpus, config(700, ALWAYS), 3), Vocabulary(corpus / "tokenizer.json")
    treated = variants = number = 0
    while treated < 10_000:
        more, spm = reassembled(corpus, batches, vocabulary, number)
        treated, variants, number = treated + more, variants + spm, number + 1
    assert abs(variants - treated / 2) < 3 * math.sqrt(treated / 4) + treated / 100  # PSM without a prefix reads as SPM


def test_files_are_treated_at_their_rates(corpus: Path) -> None:
    """0.5 of the documents, and in these 0.5 of the files; over several epochs, within 3 sigma."""
    batches = Batches(corpus, config(4096, FimOptions(fragment_rate=0.4)), 3)
    epochs, drawn = 40, 0
    chars = [
        [file["characters"] for file in document(corpus, piece)["row"]["files"]]
        for row in epoch(batches)[1]
        for piece in row
    ]
    fitting = [sum(count >= 10 for count in of) for of in chars]
    for number in range(epochs):
        drawn += sum(len(piece.files) for row in epoch(batches, number)[1] for piece in row)
    mean = epochs * sum(fitting) * 0.5 * 0.4
    variance = epochs * sum(0.5 * (n * 0.4 * 0.6 + (n * 0.4) ** 2) - (0.2 * n) ** 2 for n in fitting)
    assert abs(drawn - mean) < 3 * math.sqrt(variance)


@pytest.mark.parametrize("fim", [OFF, FimOptions(rate=1)])
def test_taking_a_document_out_moves_no_other(copied: Path, fim: FimOptions) -> None:
    before, told = epoch(Batches(copied, config(100, fim), 3))
    dataset = TokensDataset(copied)
    shard = max(dataset.shards("code", "train"), key=lambda one: int(one.tokens.sizes.max()))
    number = int(shard.tokens.sizes.argmax())
    spans = np.array([[number, 0, int(shard.tokens.sizes[number])]])
    Removed().adding([(shard.shard, spans)]).save(copied)
    after, again = epoch(Batches(copied, config(100, fim), 3))
    gone = 0
    for row, (pieces, others) in enumerate(zip(told, again, strict=True)):
        assert [(one.prefix, one.number) for one in pieces] == [(one.prefix, one.number) for one in others]
        for one, other in zip(pieces, others, strict=True):
            if (one.prefix, one.number) == (shard.shard.prefix, number):
                assert (after.labels[row, other.start : other.end] == IGNORED).all()
                gone += 1
            else:
                mine, theirs = slice(one.start, one.end), slice(other.start, other.end)
                assert before.tokens[row, mine].tolist() == after.tokens[row, theirs].tolist()
                assert before.labels[row, mine].tolist() == after.labels[row, theirs].tolist()
    assert gone > 1


def test_the_counts_of_rows_are_those_of_the_packing_and_are_kept(corpus: Path, tmp_path: Path) -> None:
    batches = Batches(corpus, config(64, FimOptions()), 3, tmp_path)
    source = batches.sources[0]
    assert source.windows > 2
    for number in range(2 * source.windows):
        assert source.count(number) == len(source.packed(number).offsets) - 1
    (kept,) = tmp_path.rglob("0/000000000016")
    text = kept.read_text()
    assert int(text.split()[0]) == source.count(1)
    wrong = Batches(corpus, config(64, FimOptions()), 3, tmp_path)
    assert wrong.sources[0].count(1) == source.count(1)
    for torn in ("", "99", f"0 {text.split()[1]}\n", f"{source.count(1) + 5} {text.split()[1]}\n", "9" * 5000, "many"):
        kept.write_text(torn)
        with pytest.raises(InputError, match=r"000000000016: holds .* not how many rows were counted; remove it"):
            Batches(corpus, config(64, FimOptions()), 3, tmp_path).sources[0].rows(0)
    other = kept.with_name("000000000032")
    kept.write_text(other.read_text())  # a count of another window
    with pytest.raises(InputError, match="000000000016"):
        Batches(corpus, config(64, FimOptions()), 3, tmp_path).sources[0].rows(0)


def test_a_source_may_be_capped_and_must_be_there(corpus: Path) -> None:
    once = Batches(corpus, config(128, source=(SourceConfig(name="code", epochs=1.5),)), 3)
    source = once.sources[0]
    total = once.mixture.total
    assert total == source.rows_until(1.5) and source.rows_until(2) == source.rows(0) + source.rows(1)
    assert total is not None and abs(total - source.rows(0) - source.rows(1) / 2) < source.rows(1) / 8
    with pytest.raises(InputError, match=r"code: row 1,099,511,627,776 lies more than 10,000 epochs on"):
        Batches(corpus, config(128), 3).batch(2**40, 1)
    with pytest.raises(InputError, match="no source 'web'"):
        Batches(corpus, config(128, source=(SourceConfig(name="web"),)), 3)
    with pytest.raises(InputError, match="nowhere has no tokens"):
        Batches(corpus.parent / "nowhere", config(128), 3)


def test_with_ast_the_languages_of_files_choose_the_grammar(corpus: Path) -> None:
    fim = FimOptions(rate=1, fragment_rate=1, mode="ast")
    variants = [
        kind
        for row in epoch(Batches(corpus, config(1024, fim), 3))[1]
        for piece in row
        for kind in piece.variants.values()
    ]
    assert sum(kind & AST > 0 for kind in variants) > 5


def test_rows_are_counted_by_several_processes_and_from_where_a_killed_run_was(corpus: Path, tmp_path: Path) -> None:
    data = config(64, FimOptions())
    found = count_rows(corpus, data, 3, tmp_path / "two", epochs=2, workers=2)
    source = Batches(corpus, data, 3).sources[0]
    assert [(one.epoch, one.rows) for one in found] == [(0, source.rows(0)), (1, source.rows(1))]
    counts = {
        path.relative_to(tmp_path / "two"): path.read_text() for path in (tmp_path / "two").rglob("*") if path.is_file()
    }
    assert len(counts) == 2 * source.windows
    gone = sorted(counts)[1::2]
    for name in gone:
        (tmp_path / "two" / name).unlink()
    (kept,) = (tmp_path / "two" / name for name in sorted(counts)[:1])
    kept.write_text(_sealed(kept, "7"))  # what is there is not counted again
    again = count_rows(corpus, data, 3, tmp_path / "two", epochs=2)
    assert all((tmp_path / "two" / name).read_text() == counts[name] for name in gone)
    assert again[0].rows == found[0].rows - int(counts[sorted(counts)[0]].split()[0]) + 7


def test_a_row_is_shown_with_its_documents_variants_and_masks(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "data.toml").write_text("sequence_length = 512\n[fim]\nrate = 1.0\nfragment_rate = 1.0\n")
    asked = ["inspect", "tokens", str(copied), "--data", str(tmp_path / "data.toml"), "--seed", "3"]

    def shown(*more: str, code: int = 0) -> str:
        found = CliRunner().invoke(app, [*asked, *more], env={"COLUMNS": "200"})
        if isinstance(found.exception, StackbuildError):
            assert found.exception.exit_code == code, found.exception
            return str(found.exception)
        assert found.exit_code == code, (found.output, found.exception)
        return found.output

    batches = Batches(copied, config(512, ALWAYS).model_copy(update={"window": 1 << 20}), 3)
    _, told = epoch(batches)
    row = next(
        k
        for k, pieces in enumerate(told)
        if len(pieces) > 1 and {kind & SPM for piece in pieces for kind in piece.variants.values()} == {0, SPM}
    )
    text = shown("--sample", str(row))
    assert f"sample {row}" in text and f"{len(told[row])} pieces of documents" in text
    assert "PSM" in text and "<fim_prefix>" in text and "<fim_suffix>" in text and "without a label" not in text
    piece = told[row][0]
    shard = next(one for one in batches.dataset.shards("code", "train") if one.shard.prefix == piece.prefix)
    Removed().adding([(shard.shard, np.array([[piece.number, 0, int(shard.tokens.sizes[piece.number])]]))]).save(copied)
    assert "tokens without a label]" in shown("--sample", str(row))
    assert "a mixture has no samples" in shown("--sample=-1", code=2)
    assert "takes --source and --split" in shown("--sample", "0", "--shard", "x", code=2)
    (tmp_path / "data.toml").write_text("[fim]\nrate = 2")
    assert "data.toml: fim.rate: Input should be less than or equal to 1" in shown("--sample", "0", code=4)


def test_every_option_that_decides_what_is_in_a_row_names_other_counts() -> None:
    """Else rows of one run would be looked up with the counts of another."""
    without = {"rate": 0.1, "fragment_rate": 0.1, "min_characters": 99, "slack": 1}
    fims = [FimOptions(), *(FimOptions(**{name: value}) for name, value in without.items())]
    configs = [config(64, fim) for fim in fims]
    configs += [
        config(65, FimOptions()),
        config(64, FimOptions(), packing="concatenation"),
        DataConfig(sequence_length=64),
    ]
    assert len({one.packed(True) for one in configs}) == len(configs)
    decided = {
        "rate",
        "fragment_rate",
        "min_characters",
        "slack",
    }  # the others choose the cuts in a file, which has its room
    assert set(FimOptions.model_fields) - decided == {"spm_rate", "mode", "ast_share"}


def _sample(corpus: Path, sample: int) -> Rows:
    return Batches(corpus, config(128, FimOptions()), 5).batch(sample, 1)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
def test_batches_are_the_same_by_any_number_of_workers(corpus: Path, workers: int) -> None:
    whole = Batches(corpus, config(128, FimOptions()), 5).batch(0, 12)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for sample, row in enumerate(pool.map(functools.partial(_sample, corpus), range(12))):
            for name, array in row._asdict().items():
                assert array[0].tolist() == getattr(whole, name)[sample].tolist()


def test_documents_of_datatrove_are_one_file_each(tmp_path: Path, corpus: Path) -> None:
    """They have no list of files; all but the closing token is treated, at the document's rate alone."""
    tokenizer = corpus / "tokenizer.json"
    vocabulary, texts = Vocabulary(tokenizer), [f"def f{k}(x):\n    return {k} * x\n" * (1 + k % 9) for k in range(300)]
    documents = [[*vocabulary.tokenizer.encode(text).ids, vocabulary.sentinels["<|endoftext|>"]] for text in texts]
    (tmp_path / "ds").mkdir()
    ends = np.cumsum([len(document) for document in documents])
    (tmp_path / "ds" / "a.ds").write_bytes(np.concatenate(documents).astype("<u2").tobytes())
    (tmp_path / "ds" / "a.ds.index").write_bytes(ends.astype("<u8").tobytes())
    (tmp_path / "ds" / "a.ds.metadata").write_text(f"t|2\n{ends[-1]}\n{ends[-1]} T")
    import_ds(tmp_path / "ds", tmp_path / "out", tokenizer, fim=True)
    batches = Batches(tmp_path / "out", config(512, FimOptions(rate=0.5, fragment_rate=0.01, mode="ast")), 3)
    rows, told = epoch(batches)
    treated = 0
    for row, pieces in enumerate(told):
        for piece in pieces:
            ids = rows.tokens[row, piece.start : piece.end].tolist()
            text = parts(vocabulary, ids)[0] if piece.files == {0: "treated"} else vocabulary.decode(ids)
            assert text == texts[piece.number]
            treated += 0 in piece.variants
    assert abs(treated - 150) < 3 * math.sqrt(75)


def test_files_that_were_drawn_and_have_no_room_are_counted(corpus: Path) -> None:
    """Of whole files in their pieces every one is treated, or said not to be."""
    batches = Batches(corpus, config(200, ALWAYS), 3)
    _, told = epoch(batches)
    without = [place for row in told for piece in row for place, word in piece.files.items() if word == NO_ROOM]
    assert len(without) == batches.counters[NO_ROOM] > 0
    for row in told:
        for piece in row:
            files = document(corpus, piece)["row"]["files"]
            whole = {
                k
                for k, file in enumerate(files)
                if piece.low < file["end"] <= piece.high and file["end"] > file["start"] and file["characters"] >= 10
            }
            assert whole == set(piece.files)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_no_draw_can_take_is_refused(corpus: Path, seed: int) -> None:
    with pytest.raises(InputError, match="the seed is"):
        Batches(corpus, config(64), seed)


def test_one_document_that_nothing_closes_leaves_the_others_treated(tmp_path: Path, tokenizer: Path) -> None:
    ids = Vocabulary(tokenizer).tokenizer.encode("def f(x):\n    return 12 * x\n" * 4).ids
    for name, last in (("closed", [0]), ("cut", [])):
        write_ds(tmp_path / name / "a.ds", [*([*ids, 0] for _ in range(9)), [*ids, *last], [], [0]])
        manifest = import_ds(tmp_path / name, tmp_path / f"{name}-out", tokenizer, fim=True)
        assert not manifest.eod_appended  # an empty document is not closed either
        batches = Batches(tmp_path / f"{name}-out", config(512, ALWAYS), 3)
        epoch(batches)
        assert batches.counters["treated"] == (10 if last else 9)
    merge([tmp_path / "closed-out", tmp_path / "cut-out"], tmp_path / "both")
    batches = Batches(tmp_path / "both", config(512, ALWAYS), 3)
    epoch(batches)
    assert batches.counters["treated"] == 19


def test_documents_without_a_token_take_nothing_from_the_others(tmp_path: Path, tokenizer: Path) -> None:
    write_ds(tmp_path / "ds" / "a.ds", [[], [], [], [], [], [40, 41, 0]])
    import_ds(tmp_path / "ds", tmp_path / "out", tokenizer)
    rows = Batches(tmp_path / "out", config(16), 3).batch(0, 1)
    assert rows.labels[0, :2].tolist() == [41, 0]


def test_the_token_at_a_cut_is_a_label_once_where_the_rest_is_treated(corpus: Path) -> None:
    """It is one of the piece before; a token that was cut in two is encoded anew, and left as it is."""
    batches = Batches(corpus, config(64, ALWAYS), 3)
    rows, told = epoch(batches)
    sentinels = [TokensDataset(corpus).manifest.sentinels[f"<fim_{name}>"] for name in ("prefix", "suffix", "middle")]
    found = collections.Counter[str]()
    for row, pieces in enumerate(told):
        for piece in pieces:
            if piece.low == 0 or rows.tokens[row, piece.start] != sentinels[0] or not piece.variants:
                continue
            cut = document(corpus, piece)["tokens"][piece.low]
            text, labels = (column[row, piece.start : piece.end].tolist() for column in (rows.tokens, rows.labels))
            files = document(corpus, piece)["row"]["files"]
            if (
                sum(file["end"] > piece.low and file["start"] < piece.high for file in files) > 1
                or text[-1] == sentinels[2]
            ):
                continue
            at = 1 if text[1] != sentinels[1] else text.index(sentinels[2]) + 1
            if text[at] == cut:
                found["once"] += 1
                assert labels[at - 1] == IGNORED
                assert IGNORED not in labels[: at - 1] + labels[at:]
            else:
                found["anew"] += 1
                assert IGNORED not in labels
    assert found["once"] > 10 * found["anew"] > 0
