"""Personal data out of anyone's tables: the tasks of `redacting` over all units, then over all files.

OUT holds `data/` (the same files, the same rows) and `report.json` (counts). What was found where is a map to live secrets:
while a run goes on it lies in OUT/stages, which only its owner may enter and which goes when the run ends; it is kept only in
the file that the user names, without values and for the owner alone. A run that was killed goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from stackbuild.errors import PartialFailure, StackbuildError, UsageError
from stackbuild.identity import without_places
from stackbuild.pii.options import PiiOptions
from stackbuild.pii.stage import Pii
from stackbuild.shards import Output, ShardManifest, canonical_json, digest, file_sha256, read_batches, write_atomically
from stackbuild.sources.row_files import stem_of
from stackbuild.standalone.inputs import InputUnit, plan_units
from stackbuild.standalone.redacting import RedactOptions, spans_of
from stackbuild.standalone.running import Step, Talk, TaskOf, Workers, only_one, replace_folder, workers_for
from stackbuild.standalone.texts import check_text, named_column

VERSION = 1
TEXT_COLUMNS = ("content", "text")  # the first that the files have, unless one is named
FIND = Step("find", "standalone.redacting", "find", "unit")
WRITE = Step("write", "standalone.redacting", "write_file", "file", ("spans",))
OWNER_ONLY = 0o600


def redact(
    paths: Sequence[str],
    out: Path | None,
    pii: PiiOptions,
    *,
    text: str | None = None,
    language: str | None = "language",
    seed: int = 42,
    workers: int | None = 1,
    spans: Path | None = None,
    talk: Talk = lambda what, done, of: None,
) -> dict[str, Any]:
    """Redact the texts of files and write them to OUT; returns the report. Without OUT, only count.

    `paths`: Parquet, JSON lines or Arrow files, folders of them, or globs. `text`: the column; content, else text.
    `spans`: a file of JSON lines to keep what was found where in, for its owner alone. `workers`: processes; None: by the size.
    The result does not depend on them. UsageError for columns that are not there, InputError for files that do not read,
    PartialFailure when a worker was killed or OUT cannot be written to.
    """
    if out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"--output {out}: this is a file; name a folder.")
    if spans is not None and out is not None and spans.resolve().is_relative_to(out.resolve()):
        raise UsageError(f"--spans {spans}: {out} is what may be passed on; a log of what was found is private.")
    units = plan_units(paths, text or TEXT_COLUMNS[0], leave_out=out)
    if spans is not None:
        check_private(spans, "--spans", units)
    column = text or named_column(units, TEXT_COLUMNS)
    if column == language:
        raise UsageError(f"--language-column {column}: this is the text, of which no value may stand in the report.")
    if column not in (text, TEXT_COLUMNS[0]):
        units = plan_units(paths, column, leave_out=out)  # of which a unit's size is told by another column
    for unit in units:
        check_text(unit, column)
    options = RedactOptions(column, language, pii)
    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stackbuild-pii-")))
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(only_one(folder))
        try:
            (folder / "stages").mkdir(mode=0o700, exist_ok=True)
            os.chmod(folder / "stages", 0o700)
            run = Run(folder, units, options, seed)
            with Workers(workers or workers_for(units), "stackbuild.standalone.warm_pii") as pool:
                found = pool.run(FIND, run.find_tasks(), talk)
                report = reported(found, options, seed)
                if out is not None:
                    written = pool.run(WRITE, run.write_tasks(found), talk)
            if spans is not None:
                write_spans(spans, folder, units, found)
            if out is not None:
                _publish(run, written, report)
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            raise PartialFailure(
                f"{folder} cannot be written to: {error.strerror or error}{where}. Mend it and run again."
            ) from error
    return report


def check_private(path: Path, option: str, units: Sequence[InputUnit]) -> None:
    """UsageError if a private file may not or cannot be written there: over an input, a folder, or below a file."""
    if any(Path(unit.path).resolve() == path.resolve() for unit in units):
        raise UsageError(f"{option} {path}: this is one of the files that are read; name another.")
    if path.is_dir():
        raise UsageError(f"{option} {path}: this is a folder; name a file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{option} {path}: {path.parent} is no folder to write to ({error.strerror}).") from error


class Run:
    """The tasks of one run over one folder."""

    def __init__(self, out: Path, units: Sequence[InputUnit], options: RedactOptions, seed: int):
        self.out, self.units, self.options, self.seed = out, units, options, seed
        self.files: dict[str, list[InputUnit]] = {}
        for unit in units:
            self.files.setdefault(unit.path, []).append(unit)
        used = [options.text, options.language, options.pii.model_dump(mode="json"), Pii(options.pii).key(), seed]
        self._identity = digest([VERSION, code(), used])

    def find_tasks(self) -> list[TaskOf]:
        """One for each unit."""
        listed = self._list(FIND, [])
        return [
            self._task(FIND, unit.number, {"unit": asdict(unit)}, listed, [self._identity, unit.identity()])
            for unit in self.units
        ]

    def write_tasks(self, found: Sequence[ShardManifest]) -> list[TaskOf]:
        """One for each file."""
        listed = self._list(WRITE, [output for shard in found for output in shard.outputs])
        tasks = []
        for number, units in enumerate(self.files.values()):
            inputs = [output.identity() for unit in units for output in found[unit.number].outputs]
            key = [self._identity, [unit.identity() for unit in units], inputs]
            tasks.append(self._task(WRITE, number, {"units": [asdict(unit) for unit in units]}, listed, key))
        return tasks

    def _task(self, step: Step, rank: int, params: dict[str, Any], listed: Path, key: list[Any]) -> TaskOf:
        return TaskOf(str(self.out), step, rank, params, self.options, self.seed, 1, listed, digest([step.name, *key]))

    def _list(self, step: Step, outputs: Sequence[Output]) -> Path:
        body = canonical_json({"spans": [vars(output) for output in outputs]} if outputs else {})
        listed = self.out / "stages" / step.name / f"inputs-{digest(body.decode())[:24]}.json"
        write_atomically(listed, body)
        return listed


@cache
def code() -> str:
    """A digest of the code and of the libraries that the result follows from."""
    folder = Path(__file__).parents[1]
    files = [*sorted(folder.glob("pii/*.py")), *sorted(folder.glob("standalone/*.py"))]
    files += [folder / f"{name}.py" for name in ("footers", "hashing", "schema", "shards", "tables", "task")]
    files += [folder / "sources" / f"{name}.py" for name in ("arrow_stream", "json_lines")]
    return digest(
        [[file.name, file_sha256(file)] for file in files]
        + [metadata.version(name) for name in ("google-re2", "numba", "numpy", "pyahocorasick", "pyarrow")]
    )


# ---------------------------------------------------------------- what the user gets


def reported(found: Sequence[ShardManifest], options: RedactOptions, seed: int) -> dict[str, Any]:
    """report.json: counts, and what was asked for. No value, no place."""
    names = ("rows", "bytes", "rows_redacted", "not_utf8", "unsettled")
    report: dict[str, Any] = {name: sum(int(one.stats[name]) for one in found) for name in names}
    languages: dict[str, Counter[str]] = {}
    for one in found:
        for language, counts in one.stats["counts"].items():
            languages.setdefault(language, Counter()).update(counts)
    entities = sum(languages.values(), Counter[str]())
    report["redactions"] = dict(sorted(entities.items()))
    if set(languages) - {""}:
        report["languages"] = {name: dict(sorted(counts.items())) for name, counts in sorted(languages.items())}
    return report | {
        "version": VERSION,
        "text": options.text,
        "options": without_places(options.pii.model_dump(mode="json")),
        "seed": seed,
    }


def write_spans(path: Path, out: Path, units: Sequence[InputUnit], found: Sequence[ShardManifest]) -> None:
    """What was found where, a JSON line for each: file, row, bytes of the text, entity, rule, replacement; never the value.

    For its owner alone (mode 0600), there as a whole or not at all.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY), "w") as file:
            for unit, shard in zip(units, found, strict=True):
                for batch in read_batches(out, shard.table("spans")):
                    for row in spans_of(batch).to_pylist():
                        file.write(json.dumps({"file": name_of(unit)} | row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def name_of(unit: InputUnit) -> str:
    """Of the file that the rows of a unit's file are written to: its own, but an Arrow stream becomes Parquet."""
    path = Path(unit.path)
    name = f"{stem_of(path)}.parquet" if unit.kind == "arrow" else path.name
    return str(Path(unit.folder, name))


def _publish(run: Run, written: Sequence[ShardManifest], report: dict[str, Any]) -> None:
    """Link the files into OUT, all at once; then nothing is left that tells what was found where."""
    data: dict[str, Output] = {}
    for units, shard in zip(run.files.values(), written, strict=True):
        (data[name_of(units[0])],) = shard.table("data")
    if len(data) != len(run.files):
        raise StackbuildError(f"{len(run.files)} files were read and {len(data)} written; rename those of one name.")
    replace_folder(run.out, "data", data)
    write_atomically(run.out / "report.json", (json.dumps(report, indent=1, sort_keys=True) + "\n").encode())
    shutil.rmtree(run.out / "stages", ignore_errors=True)
