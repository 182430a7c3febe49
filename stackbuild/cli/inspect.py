"""`stackbuild inspect`: look at what was made, or would be."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from stackbuild.cli.show import escaped
from stackbuild.errors import UsageError

if TYPE_CHECKING:
    from stackbuild.license_view import FileLicense, Folder

SHOWN = 12  # files of one folder and reason that are named


class Chosen(NamedTuple):
    """Which document of a tokenized corpus: its number among those of a source, a split, a shard; None: of all."""

    document: int = 0
    source: str | None = None
    split: str | None = None
    shard: str | None = None


class Sample(NamedTuple):
    """Which training row: its number, the seed of the run, and its options: a TOML file, the row's length in front of it."""

    number: int | None = None
    seed: int = 0
    data: Path | None = None
    sequence_length: int | None = None


def run(
    what: str,
    out: Path,
    inputs: list[str],
    chosen: Chosen,
    sample: Sample,
    repo: str | None,
    every: bool,
    as_json: bool,
) -> None:
    """Show one document or training row of the tokenized corpus, the licences of a repository, or what filters would drop."""
    if inputs and what != "filters":
        raise UsageError(f"inspect {what} takes no IN; only filters does.")
    if sample.number is None and (sample.data is not None or sample.sequence_length is not None):
        raise UsageError("--data and --sequence-length are of a training row; name it: --sample N.")
    if what == "tokens" and sample.number is not None:
        training_row(out, chosen, sample, sample.number)
    elif what == "tokens":
        tokens(out, chosen)
    elif what == "licenses":
        if repo is None:
            raise UsageError("inspect licenses shows one repository; name it: --repo OWNER/NAME.")
        licenses(out, repo, every, as_json)
    elif what == "filters":
        if not inputs:
            raise UsageError("inspect filters looks at Parquet files; name some: inspect filters RECIPE IN...")
        filters(str(out), inputs, as_json)
    else:
        raise UsageError(f"There is nothing named {what!r} to inspect; there are: tokens, licenses, filters.")


def tokens(out: Path, chosen: Chosen) -> None:
    """Show one document of the tokenized corpus, counted through the shards that are chosen."""
    from stackbuild.tokens.dataset import TokensDataset
    from stackbuild.tokens.show import find_document, show_document

    dataset = TokensDataset(out)
    shard, number = find_document(dataset, *chosen)
    Console().print(show_document(shard.prefix, number, dataset.tokenizer, removed=shard.removed_of(number)))


def training_row(out: Path, chosen: Chosen, sample: Sample, number: int) -> None:
    """Show a row as a training run reads it."""
    from stackbuild.tokens.data_config import load_data_config
    from stackbuild.tokens.show_sample import show_sample
    from stackbuild.tokens.stages import open_batches

    if chosen.document or chosen.shard is not None:
        raise UsageError("--document and --shard are of documents; a training row takes --source and --split.")
    given: dict[str, object] = {}
    if sample.sequence_length is not None:
        given["sequence_length"] = sample.sequence_length
    if chosen.split is not None:
        given["split"] = chosen.split
    if chosen.source is not None:
        given["source"] = [{"name": chosen.source}]
    batches = open_batches(out, load_data_config(sample.data, given), sample.seed)
    try:
        shown = show_sample(batches, number)
    except IndexError as error:
        raise UsageError(f"--sample {number}: {error}.") from error
    Console().print(shown)


def licenses(out: Path, repo: str, every: bool, as_json: bool) -> None:
    """Show the licence of each folder of a repository, and why; files that differ from their folder one by one."""
    from stackbuild.license_view import files_of, tree

    for revision, files in files_of(out, repo).items():
        if as_json:
            for file in files:
                print(json.dumps({"repo_name": repo, "revision_id": revision, **asdict(file)}))
            continue
        classes = Counter(file.license_class for file in files).most_common()
        print(f"{escaped(repo)} at {escaped(revision)}: " + ", ".join(f"{count:,} {name}" for name, count in classes))
        for line in lines_of(tree(files), every):
            print(escaped(line))


def lines_of(root: Folder, every: bool) -> Iterator[str]:
    """The tree in lines: a folder all of whose files have one licence for one reason in one line."""
    waiting: list[tuple[Folder, int]] = [(root, 0)]
    while waiting:
        folder, depth = waiting.pop()
        indent = "  " * depth
        if folder.alike is not None and not every:
            yield f"{indent}{folder.name}  {_files(folder.files)}, {_reason(folder.alike)}"
            continue
        yield f"{indent}{folder.name}  {_files(folder.files)}"
        yield from _own(folder.own, indent + "  ", every)
        waiting.extend((below, depth + 1) for below in reversed(folder.folders.values()))


def _own(files: list[FileLicense], indent: str, every: bool) -> Iterator[str]:
    reasons: dict[tuple[str, tuple[str, ...]], list[FileLicense]] = {}
    for file in files:
        reasons.setdefault(file.reason, []).append(file)
    for reason, members in reasons.items():
        names = [file.path.rsplit("/", 1)[-1] for file in members]
        shown = names if every else names[:SHOWN]
        more = f" and {len(names) - len(shown):,} more" if len(shown) < len(names) else ""
        yield f"{indent}{', '.join(shown)}{more}  {_reason(reason)}"
        for one in members[0].evidence:
            if not one["decides"]:
                from stackbuild.license_view import words

                yield f"{indent}  beside: {words(one)}"


def filters(recipe: str, inputs: list[str], as_json: bool) -> None:
    """Show what each quality rule of a recipe would drop of Parquet files, with examples."""
    from stackbuild.filter_preview import preview
    from stackbuild.recipe import load

    told = preview(load(recipe).values, inputs)
    if as_json:
        print(json.dumps(asdict(told)))
        return
    print(f"{_files(told.files)}, {told.bytes:,} bytes; {told.kept_files:,} stay, {told.kept_bytes:,} bytes")
    stage = None
    for rule in told.rules:
        if rule.stage != stage:
            stage = rule.stage
            print(escaped(stage))
        shares = [f"{part / whole:.1%}" if whole else "0.0%" for part, whole in
                  ((rule.files, told.files), (rule.bytes, told.bytes))]  # fmt: skip
        drops = f"{_files(rule.files)} ({shares[0]}), {rule.bytes:,} bytes ({shares[1]})"
        print(
            f"  {rule.rule}  {drops}; the first to drop {rule.first_files:,}" if rule.files else f"  {rule.rule}  none"
        )
        for path, value in rule.examples:
            shown = (
                "" if value is None else f"  {value:,.6g}" if isinstance(value, float) else f"  {escaped(str(value))}"
            )
            print(f"    {escaped(path)}{shown}")


def _files(count: int) -> str:
    return f"{count:,} file" + ("s" if count != 1 else "")


def _reason(reason: tuple[str, tuple[str, ...]]) -> str:
    name, evidence = reason
    return f"{name}: " + ("; ".join(evidence) if evidence else "nothing says anything of a licence")
