"""A dataset made again from its manifest and an object store: the same rows in the same order.

Each file is read beside its manifest rows; each content is fetched and verified (length, SHA-1, git SHA-1), decoded as its
row says, transformed as it was, and held against the SHA-256 of the text. A row that does not come to that is left out and
told in `missing.parquet`: nothing stands in the place of a text. With the writer that the header names the bytes are the same.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stackbuild.errors import InputError
from stackbuild.identity import writer_version
from stackbuild.release.card import WITHOUT_TEXTS
from stackbuild.release.filling import Filled, Folder, Piece, exact_batches
from stackbuild.release.manifest import Manifest, placed
from stackbuild.release.supply import CHANGED, OK, Supply, answered
from stackbuild.release.verify import DERIVED, Replay, judged
from stackbuild.schema import DATASET
from stackbuild.shards import canonical_json, write_atomically
from stackbuild.tables import SLICE_ROWS, TableWriter, conform
from stackbuild.wanted import Wanted

WITHOUT = pa.schema([field for field in DATASET if field.name != "content"])
SIDE = pa.schema([*DERIVED, ("path", pa.string()), ("row", pa.int64())])
RELEASE_LEVEL = 3  # of compression


def regenerate(manifest: Manifest, dataset: Path, supply: Supply, replay: Replay, folder: Folder) -> Filled:
    """Fill a folder with the dataset of a manifest. `dataset`: its files, with or without their texts.

    InputError if a file is not the one that the manifest names, or, written whole by the very writer that it names, does not
    come to the SHA-256 that it states.
    """
    result = Filled()
    same_writer = all(manifest.header.get("writer", {}).get(k) == v for k, v in writer_version().items())
    hashes: dict[str, str] = {}
    for entry in manifest.files:
        name = entry["dataset"]
        mark = folder.complete(name)
        if mark is None:
            mark = fill(manifest, entry, dataset, supply, replay, folder)
        else:
            result.found += 1
        result.files += 1
        result.rows += mark["rows"]
        result.lost.update(mark["lost"])
        hashes[name] = mark["sha256"]
        stated = entry.get("filled_sha256", entry["dataset_sha256"])
        if not mark["lost"] and mark["sha256"] != stated:
            if same_writer:
                raise InputError(
                    f"{folder.out / 'dataset' / name} has SHA-256 {mark['sha256']}; the manifest says {stated}."
                )
            result.other_bytes += 1
    folder.conclude([entry["dataset"] for entry in manifest.files])
    accompany(manifest, dataset, folder.out, hashes)
    return result


def fill(
    manifest: Manifest, entry: dict[str, Any], dataset: Path, supply: Supply, replay: Replay, folder: Folder
) -> dict[str, Any]:
    """Write one file of the dataset; returns what its mark says."""
    piece = folder.piece(entry["dataset"])
    options = {"row_group_bytes": manifest.header["writer"]["row_group_bytes"]}
    with piece.writer(DATASET, release=True, compression_level=RELEASE_LEVEL, **options) as writer:
        rows = answered(matched(manifest, entry, dataset), wanted_of, supply)
        for batch, answers in in_slices(rows):
            write(batch, answers, replay, piece, writer)
    piece.commit(writer)
    return {"rows": writer.rows, "lost": dict(piece.lost), "sha256": writer.sha256}


Row = tuple[pa.RecordBatch, int, dict[str, Any]]  # a batch of the dataset, a row in it, and its manifest row


def wanted_of(row: Row) -> Wanted:
    told = row[2]
    return Wanted(bytes.fromhex(told["sha1"]), bytes.fromhex(told["swhid"][10:50]), told["length"])


def matched(manifest: Manifest, entry: dict[str, Any], dataset: Path) -> Iterator[Row]:
    """The rows of a dataset file and of the manifest beside each other, in slices of SLICE_ROWS as they were written. Both
    files were hashed before (`verify_syntax`)."""
    paths = (dataset / entry["dataset"], manifest.folder / entry["manifest"])
    sides = [
        exact_batches(placed(path, schema, 0), SLICE_ROWS) for path, schema in zip(paths, (WITHOUT, SIDE), strict=True)
    ]
    there = 0
    for batch, told in zip(*sides, strict=True):
        ids = told.column("swhid").to_pylist()
        if batch.num_rows != told.num_rows or ids != [f"swh:1:cnt:{i}" for i in batch.column("content_id").to_pylist()]:
            raise InputError(f"{paths[1]} does not tell of the rows of {paths[0]} (from row {there} on).")
        there += batch.num_rows
        for index, row in enumerate(told.to_pylist()):
            yield batch, index, row


def in_slices(rows: Iterator[tuple[Row, Any]]) -> Iterator[tuple[pa.RecordBatch, list[tuple[dict[str, Any], Any]]]]:
    """Each batch of the dataset with the manifest row and the answer of each of its rows."""
    answers: list[tuple[dict[str, Any], Any]] = []
    for (batch, index, told), answer in rows:
        answers.append((told, answer))
        if index == batch.num_rows - 1:
            yield batch, answers
            answers = []


def write(
    batch: pa.RecordBatch, answers: list[tuple[dict[str, Any], Any]], replay: Replay, piece: Piece, writer: TableWriter
) -> None:
    """Append the rows of a batch whose text is the one that the manifest states; note the others."""
    raw, states = [], []
    for told, answer in answers:
        state, detail = judged(answer)
        reason = replay.refused(told["transforms"] or []) if state == OK else None
        states.append((CHANGED, reason) if reason else (state, detail))
        raw.append(answer.data if states[-1][0] == OK else b"")
    texts = replay.texts(raw, [told for told, _ in answers])
    kept: list[int] = []
    for index, ((told, _), judgement, text) in enumerate(zip(answers, states, texts, strict=True)):
        state, detail = judgement if judgement[0] != OK else restored(text, told["text_sha256"])
        if state == OK:
            kept.append(index)
        else:
            piece.lose(
                told["row"], state, detail, {name: told[name] for name in ("swhid", "sha1", "repo_name", "path")}
            )
    content = pa.array([texts[index] for index in kept], pa.large_binary()).cast(pa.large_string())
    rows = batch if len(kept) == batch.num_rows else batch.take(pa.array(kept, pa.int64()))
    if kept:
        writer.write(conform(rows.append_column("content", content), DATASET))


def restored(text: bytes | str, stated: str) -> tuple[str, str]:
    """(state, what is wrong) of a text that was made again, or of the reason why there is none."""
    if isinstance(text, str):
        return CHANGED, text
    found = hashlib.sha256(text).hexdigest()
    return (OK, "") if found == stated else (CHANGED, f"its text has SHA-256 {found}")


def accompany(manifest: Manifest, dataset: Path, out: Path, hashes: dict[str, str]) -> None:
    """Put the card and the manifest beside the dataset; the header names the files as they are now."""
    if (dataset / "README.md").is_file():
        (out / "dataset").mkdir(exist_ok=True)
        card = (dataset / "README.md").read_bytes().replace(f"{WITHOUT_TEXTS}\n\n".encode(), b"")
        write_atomically(out / "dataset" / "README.md", card)
    for name in [*(e["manifest"] for e in manifest.files), *(e["file"] for e in manifest.trees)]:
        (out / "manifest" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(manifest.folder / name, out / "manifest" / name)
    files = [
        {**{k: v for k, v in entry.items() if k != "filled_sha256"}, "dataset_sha256": hashes[entry["dataset"]]}
        for entry in manifest.files
    ]
    body = {
        **manifest.header,
        "content": "text",
        "files": files,
        "writer": {**manifest.header["writer"], **writer_version()},
    }
    write_atomically(out / "manifest" / "header.json", canonical_json(body) + b"\n")


def refuse_what_cannot_be_done(manifest: Manifest, dataset: Path, replay: Any) -> None:
    """InputError before anything is fetched: a text was made by another version, or a file of the release is not there."""
    if reason := replay.refused_at_all(manifest.header):
        wanted = manifest.header.get("stackbuild")
        raise InputError(
            f"The texts of {manifest.folder} cannot be made again: {reason}. Use the code that wrote it (stackbuild {wanted})."
        )
    writer = manifest.header.get("writer")
    if not isinstance(writer, dict) or not isinstance(writer.get("row_group_bytes"), int):
        raise InputError(f"{manifest.folder / 'header.json'} does not say how its files were written.")
    for entry in manifest.files:
        path = dataset / entry["dataset"]
        try:
            missing = set(WITHOUT.names) - set(pq.read_schema(path).names)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path} cannot be read ({str(error).splitlines()[0]}).") from error
        if missing:
            raise InputError(f"{path} has no column {min(missing)}: it is not of a dataset of stackbuild.")
