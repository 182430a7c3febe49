"""`stackbuild classifier`: train, test, predict."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from stackbuild.cli.show import escaped
from stackbuild.errors import InputError, UsageError
from stackbuild.quality.cards import Card, HeldOut, card_path, read_card
from stackbuild.quality.examples import Cut, Folders, LeftOut, Tables, examples, is_held_out
from stackbuild.quality.fasttext_file import ModelFile, read_model
from stackbuild.quality.tokens import HEAD_BYTES, Tokens
from stackbuild.quality.training import TrainOptions, measure
from stackbuild.quality.training import train as train_on

SHOWN = 20  # labels in a table


@dataclass(frozen=True)
class Labelled:
    """Where labelled files are, as typed."""

    positive: Path | None
    negative: Path | None
    folders: list[str] | None
    files: list[str] | None
    column: str
    text_column: str
    group_column: str | None

    def source(self) -> Folders | Tables:
        """Folders or tables; UsageError if it is neither or both."""
        folders = [(name, path) for name, path in (("positive", self.positive), ("negative", self.negative)) if path]
        for one in self.folders or []:
            label, sign, path = one.partition("=")
            if not (label and sign and path):
                raise UsageError(f"--folder {one}: write LABEL=DIR.")
            folders.append((label, Path(path)))
        if bool(folders) == bool(self.files):
            raise UsageError(
                "Give --positive DIR and --negative DIR, or --folder LABEL=DIR for each label, or --files."
            )
        if self.files:
            return Tables(self.files, self.column, self.text_column, self.group_column)
        if self.group_column is not None:
            raise UsageError(
                "--group-column is for --files; in folders, what lies in one folder directly below is a group."
            )
        return Folders(folders)


def train(labelled: Labelled, out: Path, given: dict[str, Any], as_json: bool) -> None:
    """Train, and print the card or what of it counts."""
    given["tokens"] = _tokens(given["tokens"])
    if out.is_dir():
        raise UsageError(f"{out} is a folder; --output names the model's file.")
    card, left_out = train_on(labelled.source(), out, TrainOptions(**given))
    _tell(left_out)
    if as_json:
        print(card.model_dump_json())
        return
    for name, label in card.labels.items():
        print(f"{escaped(name)}: trained on {label.trained:,} files, {label.held_out:,} held out")
    show(card.held_out)
    if not card.repeatable:
        print("Trained with several threads: another training gives another model.")
    print(f"{escaped(str(out))}, {card.model_bytes:,} bytes; its card: {escaped(str(card_path(out)))}")


def test(
    path: Path, labelled: Labelled, held_out: bool, tokens: str | None, head_bytes: int | None, as_json: bool
) -> None:
    """Print how good a model is on labelled files."""
    file, card, cut = _model(path, tokens, head_bytes)
    if held_out and card is None:
        raise InputError(f"{path} has no card {card_path(path)} that tells what its training held out.")
    left_out = LeftOut()
    groups: set[str] = set()
    found = examples(labelled.source(), cut, left_out)

    def told() -> Any:
        for line, label, group in found:
            if held_out and card and not is_held_out(group, card.options["seed"], card.options["held_out"]):
                continue
            groups.add(group)
            yield label, line

    result = measure(file.model, told(), 0).model_copy(update={"groups": len(groups)})
    _tell(left_out)
    if not result.files:
        raise InputError("There is no file to test on" + (" that the training held out." if held_out else "."))
    if as_json:
        print(result.model_dump_json())
    else:
        show(result)


def predict(path: Path, paths: list[Path], tokens: str | None, head_bytes: int | None, as_json: bool) -> None:
    """Print the scores of files."""
    import pyarrow as pa

    from stackbuild.quality.examples import head
    from stackbuild.quality.tokens import lines

    file, _, cut = _model(path, tokens, head_bytes)
    left_out = LeftOut()
    for one in paths:
        text = head(str(one), cut.head_bytes, left_out)
        if text is None:
            continue
        [line] = lines(pa.array([text], pa.large_string()), cut.tokens, cut.head_bytes)
        scores = file.model.scores(line)
        if as_json:
            print(json.dumps({"path": str(one), "scores": scores}))
        else:
            ordered = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:5]
            print(f"{escaped(str(one))}: " + (", ".join(f"{escaped(k)} {v:.4f}" for k, v in ordered) or "no word"))
    _tell(left_out)
    if left_out.counts["unreadable"]:
        raise InputError(f"{left_out.counts['unreadable']:,} of {len(paths):,} files could not be read.")


def _model(path: Path, tokens: str | None, head_bytes: int | None) -> tuple[ModelFile, Card | None, Cut]:
    """A model with its card, if the card is this model's, and how text is cut for it."""
    file, card = read_model(path), read_card(path)
    if card is not None and card.model_sha256 != file.digest:
        print(f"{escaped(str(card_path(path)))} is the card of another model and is not used.", file=sys.stderr)
        card = None
    cut = Cut(
        _tokens(tokens or (card.tokens if card else "code")),
        head_bytes or (card.head_bytes if card else HEAD_BYTES),
    )
    return file, card, cut


def _tokens(name: str) -> Tokens:
    for one in get_args(Tokens):
        if one == name:
            known: Tokens = one
            return known
    raise UsageError(f"--tokens {name}: there are {' and '.join(get_args(Tokens))}.")


def _tell(left_out: LeftOut) -> None:
    """Say on stderr what was not used."""
    told = [f"{count:,} {reason}" for reason, count in sorted(left_out.counts.items()) if count]
    if told:
        print(f"not used: {', '.join(told)}", file=sys.stderr)
    for one in left_out.unreadable:
        print(f"  {escaped(one)}", file=sys.stderr)


def show(found: HeldOut) -> None:
    """Precision and recall for a person."""
    if not found.files:
        print("No file was held out: how good the model is, is not known.")
        return
    accuracy = f"{found.accuracy:.1%}" if found.accuracy is not None else "-"
    print(f"of {found.files:,} files in {found.groups:,} groups, {accuracy} get their label")
    print(f"{'label':24}{'files':>9}{'given':>9}{'precision':>11}{'recall':>9}")
    ordered = sorted(found.likeliest.items(), key=lambda pair: -pair[1].files)
    for name, one in ordered[:SHOWN]:
        print(f"{escaped(name)[:23]:24}{one.files:9,}{one.given:9,}{_share(one.precision):>11}{_share(one.recall):>9}")
    if len(ordered) > SHOWN:
        print(f"and {len(ordered) - SHOWN:,} more; --json has all")
        return
    for name, _ in ordered if len(ordered) > 2 else [pair for pair in ordered if pair[0] == "positive"] or ordered:
        print(f"{escaped(name)[:23]}, score at least")
        for limit, one in found.thresholds[name].items():
            print(f"{limit:>24}{one.files:9,}{one.given:9,}{_share(one.precision):>11}{_share(one.recall):>9}")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
