"""Whether what runs is what was submitted."""

from __future__ import annotations

from stackbuild.errors import InputError
from stackbuild.frozen_plan import Plan
from stackbuild.identity import engine_identity, module_digest, stage_identity
from stackbuild.launches import LaunchFolder
from stackbuild.plan import Build
from stackbuild.registry import SOURCES
from stackbuild.shards import digest


def code_digest(build: Build) -> str:
    """Names all code, engines and data files that the output of a build follows from."""
    kinds = sorted({unit.kind for unit in build.plan.units})
    sources = [[kind, module_digest(SOURCES[kind].split(":")[0])] for kind in kinds]
    return digest([engine_identity(), sources, [stage_identity(node.stage) for node in build.nodes]])


def open_launched(folder: LaunchFolder) -> Build:
    """The build of a launch; InputError if the code is not what was submitted: half the tasks would have other keys."""
    frozen = folder.frozen()
    build = Build(folder.out, Plan.load(folder.out / frozen.plan_path))
    if build.plan.digest != frozen.plan:
        raise InputError(f"{frozen.plan_path} is not the plan that launch {folder.id} was submitted with; build again.")
    if (now := code_digest(build)) != frozen.code:
        raise InputError(
            f"stackbuild, a library, or a file that a stage reads is not what launch {folder.id} was submitted with "
            f"(code {frozen.code[:12]} then, {now[:12]} here): something was edited or installed since, or this node has another "
            "environment. Nothing was run; run the same build again."
        )
    return build
