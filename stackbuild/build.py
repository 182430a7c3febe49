"""The main job: a recipe and an output folder become a plan, a run, and the published folders."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stackbuild import __version__, registry
from stackbuild.errors import InputError, RecipeError, StackbuildError, UsageError
from stackbuild.hashing import uniform
from stackbuild.identity import engine_version, without_places
from stackbuild.launch import JobReport, Launch, Progress, Silent, only_one
from stackbuild.plan import Build, Plan
from stackbuild.publish import folder_name, publish, publish_manifest_folder
from stackbuild.release.card import CardStats, LicenseCount, dataset_card
from stackbuild.report.figures import report_of
from stackbuild.report.page import as_json, page
from stackbuild.shards import canonical_json, digest, write_atomically
from stackbuild.sources.unit import ResolveContext, Skipped, Unit

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
    skipped: list[dict[str, str]]


def run(request: Request) -> Result:
    """Resolve, plan, launch and publish; what is complete already is found again."""
    out = request.out
    with only_one(out):
        refuse_a_folder_in_use(out)
        plan = resolve(request)
        path = plan.save(out)
        build = Build(out, plan)
        write_atomically(
            out / "build.json", json.dumps(description(plan, complete=False), indent=1, sort_keys=True).encode()
        )
        try:
            reports = Launch(build, path, request.workers, request.progress).run()
        except OSError as error:
            raise disk_error(error, out) from error
        publish(build)
        publish_manifest_folder(build, description(plan, complete=True))
        skipped = [*plan.skipped, *refused(build)]
        card(build, report(build, skipped))
        write_atomically(
            out / "build.json", json.dumps(description(plan, complete=True), indent=1, sort_keys=True).encode()
        )
    return Result(build, reports, skipped)


def report(build: Build, skipped: list[dict[str, str]]) -> dict[str, Any]:
    """Write OUT/report and return its figures."""
    figures = report_of(build, skipped, description(build.plan, complete=True))
    write_atomically(build.out / "report" / "report.json", as_json(figures))
    write_atomically(build.out / "report" / "index.html", page(figures).encode())
    return figures


def card(build: Build, figures: dict[str, Any]) -> None:
    """Write the dataset's README.md from the figures of the report."""
    recipe = build.plan.recipe
    left = sum(stage["dropped"] for stage in figures["funnel"] if registry.base_name(stage["stage"]) == "opt_out")
    licenses: dict[str, LicenseCount] = {}
    for row in figures["licenses"]:
        entry = licenses.setdefault(row["license_type"], {"license_type": row["license_type"], "files": 0, "bytes": 0})
        entry["files"] += row["files"]
        entry["bytes"] += row["bytes"]
    stats: CardStats = {
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
    write_atomically(build.out / "dataset" / "README.md", dataset_card(stats).encode())


def refuse_a_folder_in_use(out: Path) -> None:
    """Products replace folders by name: one that is there before the first build of a folder is somebody's own."""
    if (out / "build.json").exists():
        return
    for name in ("dataset", "repos", "decisions", "private", "clusters", "manifest", "index", "tokens", "report"):
        if (out / name).exists():
            raise UsageError(f"{out / name} is there and not of a build; give --output a folder of its own.")


def disk_error(error: OSError, out: Path) -> StackbuildError:
    """What an error of the file system means to the user."""
    return StackbuildError(
        f"{out}: {error.strerror or error}. What is complete is kept; run the same command again to go on."
    )


def description(plan: Plan, complete: bool) -> dict[str, Any]:
    """build.json: the resolved recipe, its digest, the versions of every tool; nothing of this machine or this hour."""
    return {
        "stackbuild": __version__,
        "recipe": without_places(plan.recipe),
        "recipe_digest": recipe_digest(plan.recipe),
        "plan": plan.digest,
        "seed": plan.seed,
        "complete": complete,
        "units": len(plan.units),
        "engines": {name: engine_version(name) for name in ENGINES},
    }


def recipe_digest(recipe: dict[str, Any]) -> str:
    """Names a resolved recipe wherever its files lie."""
    return digest(without_places(recipe))


def refused(build: Build) -> list[dict[str, str]]:
    """Units that turned out to be torn when they were read."""
    found = []
    for shard, unit in zip(build.shards("00-ingest"), build.plan.units, strict=True):
        if reason := shard.stats.get("refused"):
            found.append({"what": unit_name(unit), "reason": reason})
    return found


def unit_name(unit: Unit) -> str:
    return str(unit.repo_name or unit.key.get("name") or unit.kind)


# ---------------------------------------------------------------- from recipe to plan


@dataclass
class Resolving(ResolveContext):
    """A context that tells the command line how far a source is."""

    tell: Callable[[str, int, int], None] = lambda what, done, of: None

    def progress(self, what: str, done: int, of: int) -> None:
        self.tell(what, done, of)


def resolve(request: Request, keep: bool = True) -> Plan:
    """Resolve every source once. An unfinished build goes on with what it resolved; a finished one looks again.

    `keep`: write down what was resolved, so that the next run of an unfinished build reads the same.
    """
    recipe = dict(request.recipe)
    if request.sample is not None:
        recipe["sample"] = request.sample
    frozen_path = request.out / "plans" / "sources.json"
    frozen = json.loads(frozen_path.read_bytes()) if frozen_path.exists() and not request.update else {}
    unfinished = not previous_complete(request.out, recipe_digest(recipe))
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


def previous_complete(out: Path, recipe: str) -> bool:
    """Whether the folder holds a finished build of this recipe."""
    path = out / "build.json"
    if not path.exists():
        return False
    body = json.loads(path.read_bytes())
    return bool(body["complete"] and body["recipe_digest"] == recipe)


def resolve_source(table: dict[str, Any], request: Request) -> tuple[list[Unit], list[Skipped]]:
    """Ask one source what there is to read; relative paths start from the recipe's folder."""
    source = registry.source(table["kind"])
    located = dict(table)
    for name in ("paths", "list"):
        if table.get(name) is not None:
            located[name] = locate(table[name], request.folder)
    options = source.options_model.model_validate(located)
    context = Resolving(str(cache_folder()), request.offline, tell=request.resolving)
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
