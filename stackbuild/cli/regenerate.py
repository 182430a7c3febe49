"""`stackbuild manifest regenerate`: a dataset of ids becomes one of texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from stackbuild.build import disk_error
from stackbuild.cli.manifest_diff import manifest_of
from stackbuild.errors import InputError, PartialFailure
from stackbuild.journal import only_one
from stackbuild.release.filling import MISSING_FILE, WORDS, Filled, Folder, refuse_no_output
from stackbuild.release.manifest import read_manifest
from stackbuild.release.published import fill_published
from stackbuild.release.regenerate import refuse_what_cannot_be_done, regenerate
from stackbuild.release.supply import Supply
from stackbuild.release.verify import require, verify_syntax
from stackbuild.replay import TextReplay, decoded
from stackbuild.upstream import HUB, Upstream, hub, published_inputs


def run(source: str, objects: str, output: Path, signed: bool, as_json: bool, cache: Path | None = None) -> None:
    """Fill a folder, tell what came of it, and exit with 5 if something is missing."""
    try:
        with hub(source) if source.startswith(HUB) else nullcontext():
            found = fill(source, output, lambda: Upstream(objects, signed, cache))
    except OSError as error:
        raise disk_error(error, output) from error
    lost = sum(found.lost.values())
    if as_json:
        print(json.dumps({**vars(found), "missing": lost}))
    else:
        print(f"{found.rows:,} rows with their texts in {found.files} files; {output}/dataset")
        if found.found:
            print(f"{found.found} files were complete before.")
        if found.other_bytes:
            print(
                f"The rows of {found.other_bytes} files are the same; their bytes differ, as another writer wrote them."
            )
    if lost:
        told = ", ".join(f"{count:,} {WORDS[state]}" for state, count in sorted(found.lost.items()))
        raise PartialFailure(
            f"{lost:,} rows could not be had ({told}): {output / MISSING_FILE} lists them. "
            "Run the same command again to try them once more."
        )


def fill(source: str, output: Path, opened: Callable[[], Supply]) -> Filled:
    """Fill a folder from a manifest of ours or from published ids. `opened`: gives the supply, when all else is in order."""
    folder = None if source.startswith(HUB) else Path(source).expanduser()
    if folder is None or not (manifest_of(folder) / "header.json").is_file():
        inputs = published_inputs(source)
        if folder is not None:
            refuse_no_output(folder, output)
        with only_one(output):
            place = Folder(output, ["published", source if folder is None else str(folder.resolve())])
            return fill_published(inputs, opened(), decoded, place)
    manifest = read_manifest(manifest_of(folder))
    dataset = manifest.folder.parent / "dataset"
    refuse_no_output(folder, output)
    if not dataset.is_dir():
        raise InputError(f"{dataset} is not there: the rows of the dataset are needed beside its manifest.")
    replay = TextReplay(manifest.header)
    refuse_what_cannot_be_done(manifest, dataset, replay)
    require([verify_syntax(manifest, dataset)])
    with only_one(output):
        return regenerate(manifest, dataset, opened(), replay, Folder(output, ["manifest", manifest.header]))
