"""`stackbuild build --executor slurm`, and `stackbuild cancel`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import typer
from rich.console import Console

from stackbuild.build import Request
from stackbuild.cli.show import escaped
from stackbuild.cluster import SlurmOptions
from stackbuild.errors import command


def submit(request: Request, follow: bool, dry_run: bool, as_json: bool) -> bool:
    """Submit a build; True if it was followed to its end and is complete."""
    from stackbuild.slurm import follow as following
    from stackbuild.slurm import submit as submitting
    from stackbuild.slurm.script import check_environment

    options = SlurmOptions.model_validate(request.recipe.get("slurm", {}))
    console = Console(stderr=True)
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)  # whole lines: paths are copied
    if note := check_environment(options):
        say(f"note: {escaped(note)}", style="yellow")
    if dry_run:
        scripts = submitting.dry_run(request, options)
        if as_json:
            print(json.dumps([{"command": call, "script": script} for call, script in scripts]))
        for number, (call, script) in enumerate([] if as_json else scripts):
            print(("" if number == 0 else "\n") + f"# {call}\n{script}", end="")
        return False
    done = submitting.submit(request, options)
    folder = done.folder
    if as_json and not follow:
        print(json.dumps({"launch": folder.id, "joined": done.joined, "jobs": done.jobs, "ignored": done.ignored}))
    if done.joined:
        say(f"launch {folder.id} is under way already; nothing was submitted")
        if done.ignored:
            say(
                f"Its jobs keep the values that they were submitted with: [slurm] {', '.join(done.ignored)} of now counts for none "
                f"of them. To have it so, `{command('stackbuild', 'cancel', request.out)}` and build again; what is complete is kept.",
                style="yellow",
            )
    else:
        waves = len(done.waves)
        say(
            f"launch {folder.id}: {waves} array(s) of {sum(w.elements for w in done.waves)} elements, {waves} gate(s) and the "
            f"publishing job were submitted as {done.jobs[0]} to {done.jobs[-1]}"
        )
    if not follow:
        if not as_json:
            print("next:")
            print(f"  {command('stackbuild', 'status', request.out, '--watch')}")
            print(f"  {command('stackbuild', 'cancel', request.out)}")
        return False
    try:
        found = following.wait(folder, lambda line: say(escaped(line)))
    except KeyboardInterrupt as error:
        say(f"no longer following; the jobs go on. `{command('stackbuild', 'cancel', request.out)}` ends them")
        raise typer.Exit(130) from error
    if found.state == "done" and found.end:
        say(f"{found.end['ran']} of {found.end['tasks']} tasks ran; the rest was complete.")
    if found.state in ("failed", "lost"):
        tell_why(request.out, console, whole=found.state == "lost")
    following.raise_for(found)
    return True


def tell_why(out: Path, console: Console, whole: bool) -> None:
    """What to do about a launch that did not end well; `whole`: and why it did not, where it could not say so itself."""
    from stackbuild.cli.status import failures_of, show, steps_of
    from stackbuild.status import status_of

    status = status_of(out)
    show(console, [*(failures_of(status) if whole else ()), *steps_of(status)])


def cancel(out: Path) -> None:
    """End what builds a folder."""
    from stackbuild.slurm.follow import cancel

    print(cancel(out.resolve()))
