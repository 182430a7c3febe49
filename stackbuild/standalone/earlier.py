"""What a run keeps for those that come after it, and how a later run takes it up.

Of every row that was read, those that left too, a run keeps the survivor columns, and of every text its signature and its
sorted shingle hashes. A run over new files that is given them finds what one run over all files would: who left may be
told of another survivor, and who stayed may leave. The texts of the earlier files are not read again. A run also keeps what
became of every component, which the later run takes over where nothing changed (`stackbuild.dedup.unchanged`).
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stackbuild.errors import InputError, UsageError
from stackbuild.shards import Output, ShardManifest, canonical_json, write_atomically
from stackbuild.standalone.columns import Kinds
from stackbuild.standalone.inputs import InputUnit

KEPT = Path("stages", "kept.json")
TAKEN_OVER = ("clusters", "verified", "solved")  # tables of components, by group


@dataclass(frozen=True)
class Earlier:
    """An earlier run: its units, and what each one's sketch task committed, with file names below the new OUT. `solved`: what
    became of its components, tables named `earlier_` …; empty if that was found with another threshold or check.
    """

    units: tuple[InputUnit, ...]
    outputs: tuple[tuple[Output, ...], ...]
    stats: tuple[dict[str, Any], ...]
    partitions: int
    clusters: tuple[Path, ...]
    solved: tuple[Output, ...] = ()


NOTHING = Earlier((), (), (), 0, ())


def keep(
    out: Path,
    identity: dict[str, Any],
    units: Sequence[InputUnit],
    made: Mapping[str, Sequence[ShardManifest]],
    earlier: Earlier,
    solving: dict[str, Any],
) -> None:
    """Write down what a later run needs: `units` with what was `made` of them by each step, behind those of the run before.
    `identity`: what is to be the same then, and the names of the files of clusters. `solving`: what is to be the same for
    clusters to be taken over.
    """
    sketched = made["sketch"]
    body = identity | {
        "units": [asdict(unit) for unit in (*earlier.units, *units)],
        "outputs": [
            [vars(output) for output in shard] for shard in (*earlier.outputs, *(one.outputs for one in sketched))
        ],
        "stats": [*earlier.stats, *(one.stats for one in sketched)],
        "solving": solving,
        "solved": [vars(output) for output in _solved(made)],
    }
    write_atomically(out / KEPT, canonical_json(body))


def _solved(made: Mapping[str, Sequence[ShardManifest]]) -> Iterator[Output]:
    """How many groups of components there were, and the files of TAKEN_OVER, `groups` of each being the one it was written for."""
    for shard in made["components"]:
        yield from (replace(output, table="earlier_groups") for output in shard.table("groups"))
    for shard in (*made["solve"], *made.get("unchanged", ())):
        for name in TAKEN_OVER:
            for output in shard.table(name):
                if output.rows:
                    yield replace(output, table=f"earlier_{name}", groups={str(shard.rank): output.rows})


def take_up(folder: Path, out: Path, identity: dict[str, Any], solving: dict[str, Any]) -> Earlier:
    """Link an earlier run's tables into OUT. UsageError if it was made with other options, InputError if it is not whole.

    `identity`: what must be the same. `solving`: what must be the same for its clusters to be taken over.
    """
    if folder.resolve() == out.resolve():
        raise UsageError(f"--earlier {folder} is the output folder itself; write to another.")
    try:
        body = json.loads((folder / KEPT).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder} holds no finished run of dedup ({error}); --earlier needs its stages/ too."
        ) from error
    for name, value in identity.items():
        if body.get(name) != value:
            raise UsageError(
                f"{folder} was made with another {name}: {_difference(body.get(name), value)}. "
                "Use the same, or run over all files without --earlier."
            )
    units = tuple(
        InputUnit(**{**unit, "part": tuple(unit["part"]), "stamp": tuple(unit["stamp"])}) for unit in body["units"]
    )
    outputs = tuple(tuple(_linked(folder, out, Output(**one)) for one in shard) for shard in body["outputs"])
    clusters = tuple(folder / "clusters" / name for name in body["clusters"])
    missing = next((path for path in clusters if not path.exists()), None)
    if missing is not None:
        raise InputError(f"{missing} is gone; --earlier needs the whole of {folder}.")
    solved = body["solved"] if body["solving"] == solving else []
    taken = tuple(_linked(folder, out, Output(**one)) for one in solved)
    return Earlier(units, outputs, tuple(body["stats"]), body["partitions"], clusters, taken)


def _difference(theirs: Any, ours: Any) -> str:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return ", ".join(
            f"{name} = {theirs.get(name)!r}, now {ours.get(name)!r}" for name in ours if theirs.get(name) != ours[name]
        )
    return f"{theirs!r}, now {ours!r}"


def _linked(folder: Path, out: Path, output: Output) -> Output:
    """An earlier run's file below OUT: linked, copied where that cannot be."""
    source = folder / output.file
    target = Path("stages", "earlier", output.sha256 + source.suffix)
    (out / target).parent.mkdir(parents=True, exist_ok=True)
    if not (out / target).exists():
        try:
            if source.stat().st_size != output.bytes:
                raise InputError(
                    f"{source} has not the {output.bytes} bytes that it was written with; run over all files."
                )
            temporary = out / f"{target}.{os.getpid()}"
            temporary.unlink(missing_ok=True)
            link_or_copy(source, temporary)
            os.replace(temporary, out / target)
        except OSError as error:
            raise InputError(f"{source} cannot be read ({error.strerror}); run over all files.") from error
    return Output(**{**vars(output), "file": str(target)})


def link_or_copy(source: Path, target: Path) -> None:
    """Another name for a file, or another file where the file system has none."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.ENOENT):
            raise
        shutil.copyfile(source, target)


def identity_of(sketches: dict[str, Any], seed: int, kinds: Kinds, code: str) -> dict[str, Any]:
    """What two runs must have in common for one to take up the other's tables."""
    return {"stackbuild": code, "options": sketches, "seed": seed, "columns": json.loads(canonical_json(asdict(kinds)))}
