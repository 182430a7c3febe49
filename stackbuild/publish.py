"""Put what the jobs wrote where people look: OUT/dataset, OUT/repos, OUT/decisions and so on.

Files are linked, not copied, into a folder that is built beside the old one and put in its place by rename; so a folder is
the old release or the new one, and what no manifest names is not in it.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stackbuild.errors import InputError
from stackbuild.graph import Node
from stackbuild.plan import Build
from stackbuild.release.manifest import header
from stackbuild.shards import Output, write_atomically

WRITTEN = ("README.md", "header.json")  # written into a published folder, not linked


def publish(build: Build) -> None:
    """Publish every product of a complete build."""
    layout = next(node for node in build.nodes if node.instance == "layout")
    place(build.out, "dataset", dataset_files(build, layout))
    wanted = set(build.plan.recipe.get("outputs", ()))
    if "repos" in wanted:
        place(build.out, "repos", numbered(build.outputs(layout.phase_job("repos"), "repos"), "train"))
    place(build.out, "decisions", numbered(build.outputs(layout.phase_job("decisions"), "decisions"), "part"))
    place(
        build.out, "private", numbered(build.outputs(layout.phase_job("decisions"), "private_decisions"), "decisions")
    )
    if any(node.stage.name == "near_dedup" for node in build.nodes):
        place(build.out, "clusters", numbered(build.outputs(layout.phase_job("clusters"), "clusters"), "part"))
    if "index" in wanted:
        index = next(node for node in build.nodes if node.instance == "index")
        names = numbered(build.outputs(index.phase_job("names"), "names"), "names")
        place(
            build.out, "index", {**names, **numbered(build.outputs(layout.phase_job("runs"), "contents"), "contents")}
        )
    if "tokens" in wanted:
        place(build.out, "tokens", token_files(build))


def publish_manifest_folder(build: Build, description: Mapping[str, Any]) -> None:
    """Publish OUT/manifest: the rows of every dataset file, and the header."""
    layout = next(node for node in build.nodes if node.instance == "layout")
    place(build.out, "manifest", dataset_files(build, layout, "manifest"))
    write_atomically(
        build.out / "manifest" / "header.json", header(build.out / "manifest", build.out / "dataset", description)
    )


def token_files(build: Build) -> dict[str, Output]:
    """Release path of each file of the tokenized corpus."""
    node = next(node for node in build.nodes if node.instance == "tokens")
    files = {
        "tokenizer.json": build.outputs(node.phase_job("tokenizer"), "tokenizer")[0],
        "manifest.json": build.outputs(node.phase_job("manifest"), "manifest")[0],
    }
    for shard in build.shards(node.phase_job("shards")):
        for table, suffix in (("bin", "bin"), ("idx", "idx"), ("documents", "documents.parquet")):
            files[f"{shard.stats['prefix']}.{suffix}"] = shard.table(table)[0]
    return files


def dataset_files(build: Build, layout: Node, table: str = "dataset") -> dict[str, Output]:
    """Release path of each dataset file: data/<language>/train-00000-of-000NN.parquet; the manifest's rows lie alike."""
    files: dict[str, Output] = {}
    for shard in build.shards(layout.phase_job("files")):
        stats = shard.stats
        name = f"data/{folder_name(stats['language'])}/train-{stats['number']:05d}-of-{stats['of']:05d}.parquet"
        if name in files:
            raise InputError(f"Two languages would share {name}: {stats['language']!r} and another of the same folder.")
        files[name] = shard.table(table)[0]
    return files


def folder_name(language: str) -> str:
    """A language's folder: its name, with what a path cannot hold replaced."""
    return language.replace("/", "_").replace("\0", "_").lstrip(".") or "_"


def numbered(outputs: list[Output], stem: str) -> dict[str, Output]:
    return {f"{stem}-{number:05d}-of-{len(outputs):05d}.parquet": output for number, output in enumerate(outputs)}


def place(out: Path, name: str, files: Mapping[str, Output]) -> None:
    """Make OUT/name hold exactly these files; nothing happens if it does already."""
    target = out / name
    if target.exists() and holds(out, target, files):
        return
    fresh = out / f".{name}.{secrets.token_hex(4)}"
    fresh.mkdir()
    for path, output in files.items():
        link = fresh / path
        link.parent.mkdir(parents=True, exist_ok=True)
        os.link(out / output.file, link)
    old = out / f".{name}.old-{secrets.token_hex(4)}"
    if target.exists():
        os.rename(target, old)
    os.rename(fresh, target)
    shutil.rmtree(old, ignore_errors=True)


def holds(out: Path, target: Path, files: Mapping[str, Output]) -> bool:
    """Whether a folder's files are just these, by inode."""
    there = {
        str(p.relative_to(target)): p.stat().st_ino for p in target.rglob("*") if p.is_file() and p.name not in WRITTEN
    }
    return there == {name: (out / output.file).stat().st_ino for name, output in files.items()}
