"""The main job: a recipe and an output folder become a plan, a run, and the published folders."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stackbuild import __version__, registry
from stackbuild.cluster import RayOptions
from stackbuild.errors import InputError, RecipeError, StackbuildError, UsageError
from stackbuild.frozen_plan import Plan
from stackbuild.graph import INGEST, check, nodes_of
from stackbuild.hashing import uniform
from stackbuild.identity import engine_version, text_version, without_places, writer_version
from stackbuild.journal import only_one
from stackbuild.launch import Executor, JobReport, Launch, Progress, Silent
from stackbuild.launches import refuse_while_on_cluster
from stackbuild.not_read import NotRead, not_read, told, told_recipe
from stackbuild.plan import Build
from stackbuild.publish import PRODUCTS, dataset_files, filled_hashes, folder_name, layout_of, publish, tree_files
from stackbuild.recipe import SOURCE_ADDRESSES, SOURCE_PATHS
from stackbuild.release.card import CardStats, LicenseCount, dataset_card
from stackbuild.release.manifest import Released, header
from stackbuild.report.figures import report_of
from stackbuild.report.page import as_json, page
from stackbuild.shards import canonical_json, digest, write_atomically
from stackbuild.sources.unit import ResolveContext, Skipped, Unit
from stackbuild.status import described
from stackbuild.walks import walked

ENGINES = ("pyarrow", "numba", "numpy", "duckdb", "datatrove", "enry-python", "scancode-toolkit-mini", "licenseclassifier", "google-re2",
           "chardetng-py", "tokenizers", "pygit2")  # fmt: skip
# Sources that ask the network: what they resolved to is kept until the recipe's table changes or an update is asked for.
NETWORK = ("pypi",)


@dataclass
class Request:
    """What a user asked for: `recipe` is the resolved recipe, `folder` the one that its relative paths start from."""

    recipe: dict[str, Any]
    folder: Path
    out: Path
    workers: int
    executor: str = "local"  # or ray
    offline: bool = False
    update: bool = False
    sample: float | None = None
    progress: Progress = field(default_factory=Silent)
    resolving: Callable[[str, int, int], None] = lambda what, done, of: None


@dataclass
class Result:
    """What came of it: the build with everything complete, what each job did, and what could not be read."""

    build: Build
    reports: list[JobReport]
    not_read: list[NotRead]


def run(request: Request) -> Result:
    """Resolve, plan, launch and publish; what is complete already is found again."""
    out = request.out
    with only_one(out, builds=True):
        refuse_a_folder_in_use(out)
        refuse_while_on_cluster(out)
        try:
            plan = resolve(request)
            path = plan.save(out)
            build = Build(out, plan)
            describe(build, complete=False, files=published(out))
            executor = executor_for(request, path)
            reports = Launch(build, executor, request.workers, request.executor, request.progress).run()
            missed = conclude(build)
        except OSError as error:
            raise disk_error(error, out) from error
    return Result(build, reports, missed)


def executor_for(request: Request, plan: Path) -> Executor:
    """What runs the tasks of a build that this process drives."""
    if request.executor == "ray":
        from stackbuild.on_ray import Ray  # type: ignore[import-untyped,unused-ignore]

        ray: Executor = Ray(
            request.out, plan, request.workers, RayOptions.model_validate(request.recipe.get("ray", {}))
        )
        return ray
    from stackbuild.local import Local

    return Local(request.out, plan, request.workers)


def conclude(build: Build) -> list[NotRead]:
    """Publish a build all of whose jobs are complete, unless nothing could be read; returns what could not."""
    missed = not_read(build)
    if all(shard.stats.get("refused") for shard in build.shards(INGEST.name)):
        reasons = "\n".join(f"  {one.what}: {one.reason}" for one in missed[:10])
        raise InputError(f"Nothing could be read, so nothing was published:\n{reasons}")
    finish(build)
    return missed


def finish(build: Build) -> None:
    """Publish what a complete build holds, and say so."""
    figures = report_of(build, told(build, not_read(build)), description(build, complete=True))
    header_, readme = manifest_header(build), dataset_card(card_stats(build, figures)).encode()
    files = publish(build, {"dataset": {"README.md": readme}, "manifest": {"header.json": header_}})
    describe(build, complete=True, files={**files, **write_report(build.out, figures)})


def manifest_header(build: Build) -> bytes:
    """header.json of the manifest."""
    rows, dataset = dataset_files(build, "manifest"), dataset_files(build, "dataset")
    filled = filled_hashes(build)
    files = {name: Released(rows[name], dataset[name], filled.get(name)) for name in dataset}
    return header(build.out, files, tree_files(build), description(build, complete=True), made_by(build))


def made_by(build: Build) -> dict[str, Any]:
    """How the text came about and how files were written: what `manifest regenerate` does again."""
    layout: Any = layout_of(build).stage
    return {
        "content": layout.options.content,
        "sources": sources_of(build),
        # Of a short opt-out list a digest would tell who is on it: not of its stage, nor of the layout, whose key holds it too.
        "stages": [
            {"name": node.instance, "version": node.stage.version, "digest": digest(dict(node.stage.key()))}
            for node in build.nodes
            if node.instance in build.plan.recipe["stages"] and not node.stage.private_decisions
        ],
        "transforms": [
            {"name": stage.name, "version": text_version(stage), "options": stage.options.model_dump(mode="json")}
            for stage in layout.rewriters
        ],
        "writer": {**writer_version(), "row_group_bytes": layout.options.row_group_bytes},
    }


def sources_of(build: Build) -> list[dict[str, Any]]:
    """What each source of the recipe was: its kind; of an export its files; where a unit is a repository, an archive or a folder, how
    many there are and a digest of what their rows follow from (commits, digests of archives). Files of rows are cut into units as they
    come, of which nothing that is released may depend.
    """
    found: list[dict[str, Any]] = []
    for number, table in enumerate(build.plan.recipe["source"]):
        units = [unit for unit in build.plan.units if unit.where["source"] == number]
        found.append({"kind": table["kind"]})
        if (source := walked(table["kind"])) and units:
            found[-1] |= source.told(units[0])
        elif all(unit.repo_name is not None for unit in units):
            found[-1] |= {"units": len(units), "digest": digest([unit.key for unit in units])}
    return found


def report(build: Build) -> dict[str, Any]:
    """Write OUT/report of a complete build again and return its figures."""
    figures = report_of(build, told(build, not_read(build)), description(build, complete=True))
    describe(build, complete=True, files={**published(build.out), **write_report(build.out, figures)})
    return figures


def write_report(out: Path, figures: dict[str, Any]) -> dict[str, str]:
    """Write OUT/report; returns the SHA-256 of its files by their paths below OUT."""
    files = {"report/report.json": as_json(figures), "report/index.html": page(figures).encode()}
    for name, data in files.items():
        write_atomically(out / name, data)
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def card_stats(build: Build, figures: dict[str, Any]) -> CardStats:
    """What the dataset's card says, from the figures of the report."""
    recipe = build.plan.recipe
    left = sum(stage["dropped"] for stage in figures["funnel"] if registry.base_name(stage["stage"]) == "opt_out")
    licenses: dict[str, LicenseCount] = {}
    for row in figures["licenses"]:
        entry = licenses.setdefault(row["license_type"], {"license_type": row["license_type"], "files": 0, "bytes": 0})
        entry["files"] += row["files"]
        entry["bytes"] += row["bytes"]
    return {
        "name": recipe["name"],
        "seed": build.plan.seed,
        "languages": [
            {
                "language": row["language"],
                "folder": folder_name(row["language"]),
                "files": row["files"],
                "bytes": row["bytes"],
            }
            for row in figures["languages"]
        ],
        "language_counts": figures["language_counts"],
        "licenses": list(licenses.values()),
        "funnel": figures["funnel"],
        "opt_out": {"request": recipe.get("contact", "ask the maintainer of this dataset"), "files": left},
        "description": recipe.get("description", ""),
        "sources": dict(Counter(unit.kind for unit in build.plan.units)),
        "settings": {node.instance: without_places(node.stage.options.model_dump(mode="json")) for node in build.nodes},
        "versions": figures["engines"],
        "deviations": figures["deviations"],
        "recipe_digest": figures["recipe_digest"],
    }


def refuse_a_folder_in_use(out: Path) -> None:
    """Products replace folders by name: one that is there before the first build of a folder is somebody's own."""
    if (out / "build.json").exists():
        return
    for name in (*PRODUCTS, "report"):
        if (out / name).exists():
            raise UsageError(f"{out / name} is there and not of a build; give --output a folder of its own.")


def disk_error(error: OSError, out: Path) -> StackbuildError:
    """What an error of the file system means to the user."""
    return StackbuildError(
        f"{error.filename or out}: {error.strerror or error}. What is complete is kept; run the same command again to go on."
    )


def description(build: Build, complete: bool) -> dict[str, Any]:
    """build.json: the resolved recipe, its digest, the versions of every tool; nothing of this machine or this hour, and no
    name of a repository that is on the opt-out list, which a source may ask for."""
    plan = build.plan
    return {
        "stackbuild": __version__,
        "recipe": told_recipe(build),
        "recipe_digest": recipe_digest(plan.recipe),
        "plan": plan.digest,
        "seed": plan.seed,
        "complete": complete,
        "units": len(plan.units),
        "engines": {name: engine_version(name) for name in ENGINES},
    }


def describe(build: Build, complete: bool, files: Mapping[str, str]) -> None:
    """Write build.json; `files`: the SHA-256 of every published file by its path below OUT."""
    body = {**description(build, complete), "files": dict(files)}
    write_atomically(build.out / "build.json", json.dumps(body, indent=1, sort_keys=True).encode())


def published(out: Path) -> dict[str, str]:
    """What an earlier build of this folder published."""
    body = last_description(out)
    return dict(body.get("files", {})) if body else {}


def last_description(out: Path) -> dict[str, Any] | None:
    """build.json, None if there is none; InputError if it is not whole."""
    return described(out) if (out / "build.json").exists() else None


def recipe_digest(recipe: dict[str, Any]) -> str:
    """Names a resolved recipe wherever its files lie."""
    return digest(without_places(recipe))


# ---------------------------------------------------------------- from recipe to plan


@dataclass
class Resolving(ResolveContext):
    """A context that tells the command line how far a source is."""

    tell: Callable[[str, int, int], None] = lambda what, done, of: None

    def progress(self, what: str, done: int, of: int) -> None:
        self.tell(what, done, of)


def resolve(request: Request, keep: bool = True) -> Plan:
    """Resolve every source once. An unfinished build goes on with what it resolved; a finished one, or another recipe,
    looks again.

    `keep`: write down what was resolved, so that the next run of an unfinished build reads the same.
    """
    recipe = {key: value for key, value in request.recipe.items() if key not in ("slurm", "ray")}  # where, never what
    check(nodes_of(recipe))  # before anything is cloned or downloaded
    if request.sample is not None:
        recipe["sample"] = request.sample
    frozen_path = request.out / "plans" / "sources.json"
    frozen = kept_sources(frozen_path) if not request.update else {}
    last = last_description(request.out)
    unfinished = last is not None and not last["complete"] and last.get("recipe_digest") == recipe_digest(recipe)
    units: list[Unit] = []
    skipped: list[dict[str, str]] = []
    kept: dict[str, Any] = {}
    for number, table in enumerate(recipe["source"]):
        key = digest(table)
        if key in frozen and (unfinished or table["kind"] in NETWORK):
            found = [Unit(**unit) for unit in frozen[key]["units"]]
            missed = [Skipped(**skip) for skip in frozen[key]["skipped"]]
        else:
            found, missed = resolve_source(table, request)
        kept[key] = {"units": [asdict(u) for u in found], "skipped": [asdict(s) for s in missed]}
        units += [Unit(u.kind, u.key, {**u.where, "source": number}, u.bytes, u.repo_name) for u in found]
        skipped += [asdict(s) for s in missed]
    refuse_two_of_a_name(units)
    if request.sample is not None:
        share = request.sample
        units = [u for u in units if u.repo_name is None or uniform(recipe["seed"], "sample", u.repo_name) < share]
    if not units:
        reasons = "; ".join(f"{s['what']}: {s['reason']}" for s in skipped[:5])
        raise InputError(f"There is nothing to read{': ' + reasons if reasons else ''}.")
    if keep:
        write_atomically(frozen_path, canonical_json(kept))
    return Plan(recipe, units, skipped)


def kept_sources(path: Path) -> dict[str, Any]:
    """What the last run resolved, by digest of the source's table; nothing if that was not written whole."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def resolve_source(table: dict[str, Any], request: Request) -> tuple[list[Unit], list[Skipped]]:
    """Ask one source what there is to read; relative paths start from the recipe's folder."""
    source = registry.source(table["kind"])
    located = dict(table)
    for name in (*SOURCE_PATHS, *SOURCE_ADDRESSES):
        if table.get(name) is not None and "://" not in table[name]:
            located[name] = locate(table[name], request.folder)
    options = source.options_model.model_validate(located)
    leave_out = (os.path.realpath(request.out),)
    context = Resolving(
        str(cache_folder()),
        request.offline,
        leave_out=leave_out,
        partitions=int(request.recipe["partitions"]),
        tell=request.resolving,
    )
    units, skipped = source.units(options, context)
    return sorted(units, key=lambda unit: canonical_json(unit.key)), skipped


def locate(value: Any, folder: Path) -> Any:
    """Paths as absolute strings."""
    if isinstance(value, str):
        return str(folder / Path(value).expanduser())
    return [locate(item, folder) for item in value]


def cache_folder() -> Path:
    """Where downloads are kept: STACKBUILD_CACHE, else the user's cache folder."""
    own = os.environ.get("STACKBUILD_CACHE")
    base = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stackbuild"
    return base


def refuse_two_of_a_name(units: Sequence[Unit]) -> None:
    """Two origins of one name would be one repository to everybody who looks; versions of one package may share theirs."""
    seen: dict[str, Unit] = {}
    for unit in units:
        if unit.repo_name is None:
            continue
        other = seen.setdefault(unit.repo_name, unit)
        if other is not unit and not (unit.kind == other.kind == "pypi"):
            places = [str(u.where.get("path", u.kind)) for u in (other, unit)]
            raise RecipeError(
                f"Two origins have the name {unit.repo_name}: {places[0]} and {places[1]}. "
                "Rename one, or give their URLs in a list file, so that each repository has a name of its own."
            )
