"""Put what the jobs wrote where people look: OUT/dataset, OUT/repos, OUT/decisions and so on.

Files are linked, not copied, into a folder that is built beside the old one and exchanged with it in one step; so a folder is
the old release or the new one, what no manifest names is not in it, and what this plan does not make is gone.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stackbuild.errors import InputError, PolicyRefusal, command
from stackbuild.graph import Node
from stackbuild.plan import Build
from stackbuild.shards import Output
from stackbuild.tokens.job import read_manifest
from stackbuild.tokens.removed import check_shards, dump_manifest, load_removed, with_digests

# Every folder that a build makes for people; OUT/report is written apart, as it may be written again.
PRODUCTS = ("dataset", "repos", "decisions", "private", "clusters", "manifest", "index", "tokens")
AT_FDCWD, RENAME_EXCHANGE = -100, 2
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK)  # of a file system that cannot link

Files = Mapping[str, Output | bytes]  # by path below the product's folder: a committed file, or bytes to write


def products(build: Build) -> dict[str, dict[str, Output]]:
    """The committed files of every product of a complete build, by product and path."""
    layout = layout_of(build)
    wanted = set(build.plan.recipe.get("outputs", ()))
    decisions = layout.phase_job("decisions")
    found = {
        "dataset": dataset_files(build, "dataset"),
        "manifest": {**dataset_files(build, "manifest"), **tree_files(build)},
        "decisions": numbered(build.outputs(decisions, "decisions"), "part"),
        "private": numbered(build.outputs(decisions, "private_decisions"), "decisions"),
    }
    if "repos" in wanted:
        found["repos"] = numbered(build.outputs(layout.phase_job("repos"), "repos"), "train")
    if any(node.stage.name == "near_dedup" for node in build.nodes):
        found["clusters"] = numbered(build.outputs(layout.phase_job("clusters"), "clusters"), "part")
    if "index" in wanted:
        index = next(node for node in build.nodes if node.instance == "index")
        tables = (numbered(build.outputs(index.phase_job("names"), name), name) for name in ("names", "contents"))
        found["index"] = {path: output for table in tables for path, output in table.items()}
    if "tokens" in wanted:
        found["tokens"] = token_files(build)
    return found


def publish(build: Build, written: Mapping[str, Mapping[str, bytes]]) -> dict[str, str]:
    """Make the folders of all products hold their files and what is `written` into them, and remove those that this build
    does not make. Returns the SHA-256 of every published file by its path below OUT."""
    made = products(build)
    hashes = {}
    for name in PRODUCTS:
        for left in build.out.glob(f".{name}.*"):  # an old release that a killed run did not come to remove
            shutil.rmtree(left, ignore_errors=True)
    for name, files in made.items():
        whole: Files = {**files, **written.get(name, {})}
        if name == "tokens":
            whole = {**whole, **taken_out(build.out, files)}
        place(build.out, name, whole)
        for path, source in whole.items():
            digest = source.sha256 if isinstance(source, Output) else hashlib.sha256(source).hexdigest()
            hashes[f"{name}/{path}"] = digest
    for name in PRODUCTS:
        if name not in made and (build.out / name).exists():
            retire(build.out, name)
    return hashes


def layout_of(build: Build) -> Node:
    return next(node for node in build.nodes if node.instance == "layout")


def token_files(build: Build) -> dict[str, Output]:
    """Release path of each file of the tokenized corpus."""
    node = next(node for node in build.nodes if node.instance == "tokens")
    files = {
        "tokenizer.json": build.outputs(node.phase_job("tokenizer"), "tokenizer")[0],
        "manifest.json": build.outputs(node.phase_job("manifest"), "manifest")[0],
        "statistics.json": build.outputs(node.phase_job("manifest"), "totals")[0],
    }
    for shard in build.shards(node.phase_job("shards")):
        for table, suffix in (("bin", "bin"), ("idx", "idx"), ("documents", "documents.parquet")):
            files[f"{shard.stats['prefix']}.{suffix}"] = shard.table(table)[0]
    return files


def taken_out(out: Path, files: Mapping[str, Output]) -> Files:
    """What `stackbuild tokens remove` did to the tokens that stand in OUT and are made again: the list of removed spans, and
    the `.bin` files in which they were overwritten. PolicyRefusal if the new tokens are others, so that it would be lost."""
    folder, manifest = out / "tokens", read_manifest(out / files["manifest.json"].file)
    removed = load_removed(folder)
    if not len(removed.spans):
        return {}
    try:
        check_shards(removed, manifest, folder / "removed")
    except InputError as error:
        raise PolicyRefusal(
            f"{folder / 'removed'} takes documents out of the tokens of an earlier build, and this build's are others, in which "
            "they may stand again. Put what was asked for on the list of [opt_out], build again, and take that file away; "
            "nothing was published."
        ) from error
    if removed.cut_short(read_manifest(folder / "manifest.json")):
        raise PolicyRefusal(
            f"{folder}: an overwriting of removed documents was cut short, so that nobody knows which .bin is to stay. "
            f"`{command('stackbuild', 'tokens', 'remove', out, '--apply')}` finishes it; nothing was published."
        )
    kept: dict[str, Output | bytes] = {"removed": (folder / "removed").read_bytes()}
    for prefix, digest in removed.applied().items():
        path = folder / f"{prefix}.bin"
        kept[path.name] = Output("bin", f"tokens/{path.name}", -1, path.stat().st_size, digest)
    if removed.applied():
        kept["manifest.json"] = dump_manifest(with_digests(manifest, removed.applied()))
    return kept


def dataset_files(build: Build, table: str) -> dict[str, Output]:
    """Release path of each file of layout's table `dataset` or `manifest`, which lie alike:
    data/<language>/train-00000-of-000NN.parquet."""
    files: dict[str, Output] = {}
    for shard in build.shards(layout_of(build).phase_job("files")):
        name = dataset_file(shard.stats)
        if name in files:
            raise InputError(
                f"Two languages would share {name}: {shard.stats['language']!r} and another of the same folder."
            )
        files[name] = shard.table(table)[0]
    return files


def dataset_file(stats: Mapping[str, Any]) -> str:
    """Release path of the dataset file that a shard of `layout.files` is."""
    return f"data/{folder_name(stats['language'])}/train-{stats['number']:05d}-of-{stats['of']:05d}.parquet"


def filled_hashes(build: Build) -> dict[str, str]:
    """By release path the SHA-256 that a dataset file has with its text, of those that are released without."""
    shards = build.shards(layout_of(build).phase_job("files"))
    return {dataset_file(s.stats): s.stats["filled_sha256"] for s in shards if "filled_sha256" in s.stats}


def tree_files(build: Build) -> dict[str, Output]:
    """Release path of each file of the manifest's table `tree`."""
    files = numbered(build.outputs(layout_of(build).phase_job("repos"), "tree"), "part")
    return {f"tree/{path}": output for path, output in files.items()}


def folder_name(language: str) -> str:
    """A language's folder: its name, as far as a path and `datasets` take it; the rest percent-encoded, so that no two
    languages share one."""
    name = quote(language, safe=" +#!'(),-.;=@_~&^")
    return name.replace(".", "%2E", 1) if name.startswith(".") else name or "%"


def numbered(outputs: list[Output], stem: str) -> dict[str, Output]:
    return {f"{stem}-{number:05d}-of-{len(outputs):05d}.parquet": output for number, output in enumerate(outputs)}


# ---------------------------------------------------------------- folders


def place(out: Path, name: str, files: Files) -> None:
    """Make OUT/name hold exactly these files; nothing happens if it does already."""
    target = out / name
    if target.exists() and holds(out, target, files):
        return
    fresh = out / f".{name}.{secrets.token_hex(4)}"
    fresh.mkdir()
    for path, source in files.items():
        place_file(out, fresh / path, source)
    if not target.exists():
        os.rename(fresh, target)
        return
    exchange(fresh, target)
    shutil.rmtree(fresh, ignore_errors=True)


def place_file(out: Path, path: Path, source: Output | bytes) -> None:
    """Link a committed file, or write bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, bytes):
        path.write_bytes(source)
        return
    try:
        os.link(out / source.file, path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(out / source.file, path)


def exchange(fresh: Path, target: Path) -> None:
    """Swap two folders in one step (renameat2); where a file system cannot, by two renames, between which the name is free."""
    libc = ctypes.CDLL(None, use_errno=True)
    swap = getattr(libc, "renameat2", None)
    if swap is not None and not swap(AT_FDCWD, os.fsencode(fresh), AT_FDCWD, os.fsencode(target), RENAME_EXCHANGE):
        return
    old = target.with_name(f".{target.name}.old-{secrets.token_hex(4)}")
    os.rename(target, old)
    os.rename(fresh, target)
    os.rename(old, fresh)


def retire(out: Path, name: str) -> None:
    """Take a product away that this build does not make."""
    old = out / f".{name}.old-{secrets.token_hex(4)}"
    os.rename(out / name, old)
    shutil.rmtree(old, ignore_errors=True)


def files_below(folder: Path) -> list[Path]:
    """Everything below a folder that is not a folder itself, links to folders among it, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def holds(out: Path, target: Path, files: Files) -> bool:
    """Whether a folder's files are just these: the same inode, or the same bytes."""
    there = {str(path.relative_to(target)): path for path in files_below(target)}
    if there.keys() != files.keys():
        return False
    for name, source in files.items():
        if isinstance(source, bytes):
            if there[name].is_symlink() or there[name].read_bytes() != source:
                return False
        elif there[name].lstat().st_ino != (out / source.file).stat().st_ino:
            return False
    return True
