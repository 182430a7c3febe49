"""All commands, each named and described; their modules are imported when they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stackbuild.cli.classifier_app import app as classifier_app
from stackbuild.cli.licenses_app import app as licenses_app
from stackbuild.cli.manifest_app import app as manifest_app
from stackbuild.cli.pii_app import app as pii_app
from stackbuild.cli.tokens_app import app as tokens_app
from stackbuild.cli.train_app import register as register_training

app = typer.Typer(
    name="stackbuild",
    help="Build code datasets in the way of The Stack, with an account of every file that leaves.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(manifest_app, name="manifest")
app.add_typer(licenses_app, name="licenses")
app.add_typer(classifier_app, name="classifier")
app.add_typer(pii_app, name="pii")
app.add_typer(tokens_app, name="tokens")

Folder = Annotated[Path, typer.Argument(metavar="OUT", help="The output folder of a build.")]
Recipe = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of one that stackbuild brings.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Set a value of the recipe; may be given again.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


@app.callback()
def _main(debug: Debug = False) -> None:
    """Build code datasets in the way of The Stack, with an account of every file that leaves."""


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to write recipe.toml.")] = Path("."),
) -> None:
    """Write a commented recipe to begin with."""
    from stackbuild.cli.init import run

    run(folder)


@app.command()
def plan(
    context: typer.Context,
    recipe: Recipe = "default",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The output folder, to show what is complete.")
    ] = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Show each value of the recipe and where it came from.")
    ] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of recipes.")] = False,
    sets: Set = None,
    json_: Json = False,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no server.")] = False,
    estimate: Annotated[
        str | None, typer.Option("--estimate", metavar="67.5TB", help="What so much text would take; reads no source.")
    ] = None,
    files: Annotated[float | None, typer.Option("--files", min=1, help="With --estimate: files in it.")] = None,
    units: Annotated[
        float | None, typer.Option("--units", min=1, help="With --estimate: repositories or input files that are read.")
    ] = None,
    repositories: Annotated[
        float | None, typer.Option("--repositories", min=1, help="With --estimate: repositories in it.")
    ] = None,
    copies: Annotated[
        float | None, typer.Option("--copies", help="With --estimate: how often each content is there.")
    ] = None,
    partitions: Annotated[
        int | None, typer.Option("--partitions", help="With --estimate: instead of those that suit the size.")
    ] = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="With --estimate.")] = 1,
    cpus: Annotated[int, typer.Option("--cpus-per-node", min=1, help="With --estimate.")] = 2,
    memory: Annotated[str, typer.Option("--memory-per-node", metavar="64GB", help="With --estimate.")] = "64GB",
    bandwidth: Annotated[
        str, typer.Option("--bandwidth", metavar="2GB", help="With --estimate: of the shared folder, a second.")
    ] = "2GB",
    metadata: Annotated[
        float, typer.Option("--file-operations", min=1, help="With --estimate: of the shared folder, a second.")
    ] = 5_000,
    rates: Annotated[
        Path | None, typer.Option("--rates", metavar="OUT", help="With --estimate: a build of your own to measure by.")
    ] = None,
) -> None:
    """Show the jobs of a build, what is complete, and what it will take."""
    if estimate is not None:
        from stackbuild.cli.estimate import Asked, run_estimate

        asked = Asked(
            estimate, files, units, repositories, partitions, copies, nodes, cpus, memory, bandwidth, metadata, rates
        )
        run_estimate(recipe, sets or [], asked, json_)
        return
    from stackbuild.cli.plan import refuse_without_estimate, run

    refuse_without_estimate(context)

    run(recipe, output, resolved, schema, sets or [], json_, offline)


@app.command()
def build(
    recipe: Recipe,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The output folder; run again to resume.")
    ],
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            "-j",
            min=0,
            help="Tasks at once; 0: one for each core. On Slurm, [slurm] cpus says it.",
            envvar="STACKBUILD_WORKERS",
        ),
    ] = 0,
    executor: Annotated[
        str, typer.Option("--executor", help="local, slurm or ray.", envvar="STACKBUILD_EXECUTOR")
    ] = "local",
    sample: Annotated[
        str | None, typer.Option("--sample", metavar="1/1000", help="Take this share of the repositories, by hash.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", help="Use this tokenizer.json instead of training one.")
    ] = None,
    content: Annotated[
        str,
        typer.Option(
            "--content",
            help="none: a dataset of ids, of every column but the text, and no tokens; `manifest regenerate` fills it.",
        ),
    ] = "text",
    sets: Set = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no server; use what was downloaded.")] = False,
    update: Annotated[bool, typer.Option("--update", help="Resolve names and versions anew.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="With slurm: follow the jobs to their end.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With slurm: print the batch scripts only.")] = False,
    json_: Json = False,
) -> None:
    """Build a dataset from a recipe."""
    from stackbuild.cli.build import run

    run(
        recipe, output, workers, executor, sample, tokenizer, sets or [], offline, update, json_, wait, dry_run, content
    )


@app.command()
def status(
    out: Folder, watch: Annotated[bool, typer.Option("--watch", help="Keep looking.")] = False, json_: Json = False
) -> None:
    """Show the jobs of a build: done, running, failed, and what to do next."""
    from stackbuild.cli.status import run

    run(out, watch, json_)


@app.command()
def cancel(out: Folder) -> None:
    """End the jobs or the process that builds a folder; what is complete is kept."""
    from stackbuild.cli.slurm import cancel

    cancel(out)


@app.command()
def logs(
    out: Folder, failed: Annotated[bool, typer.Option("--failed", help="Only of tasks that failed.")] = False
) -> None:
    """Print the logs of tasks."""
    from stackbuild.cli.logs import run

    run(out, failed)


@app.command()
def verify(out: Folder, json_: Json = False) -> None:
    """Hash every published and committed file again and check the ledger."""
    from stackbuild.cli.verify import run

    run(out, json_)


@app.command()
def gc(out: Folder, dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell.")] = False) -> None:
    """Remove what no current manifest names: orphans of killed attempts, shards of earlier plans."""
    from stackbuild.cli.gc import run

    run(out, dry_run)


@app.command()
def clean(out: Folder, dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell.")] = False) -> None:
    """Remove the intermediate stages of a finished build; the products stay."""
    from stackbuild.cli.clean import run

    run(out, dry_run)


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(metavar="OUT_A")],
    second: Annotated[Path, typer.Argument(metavar="OUT_B")],
    json_: Json = False,
) -> None:
    """Show which files a second build gained and lost, and by which rule."""
    from stackbuild.cli.diff import run

    run(first, second, json_)


@app.command()
def check(
    out: Folder,
    queries: Annotated[
        list[str], typer.Argument(metavar="QUERY...", help="owner, owner/repo, SWHID, file, folder, or - for a list.")
    ],
    why: Annotated[bool, typer.Option("--why", help="Say by which rule each file left.")] = False,
    json_: Json = False,
) -> None:
    """Tell whether something is in the dataset, and why not. Exit code 1: found nothing."""
    from stackbuild.cli.check import run

    run(out, queries, why, json_)


@app.command()
def notice(
    out: Folder,
    repo: Annotated[list[str] | None, typer.Option("--repo", help="Files of this repository; may be repeated.")] = None,
    files: Annotated[str | None, typer.Option("--files", help='A list of "repository path" lines, or -.')] = None,
    list_files: Annotated[bool, typer.Option("--list", help="Name every file.")] = False,
) -> None:
    """Print whose the files of a dataset are and the texts of their licences: all, or a selection."""
    from stackbuild.cli.notice import run

    run(out, repo or [], files, list_files)


@app.command()
def report(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The output folder of a build, or a training run.")],
    json_: Json = False,
) -> None:
    """Write the report again and print the funnel; of a training run, draw its curves."""
    from stackbuild.cli.report import run

    run(out, json_)


@app.command("inspect")
def inspect_(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="tokens, licenses or filters")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The output folder of a build; filters: a recipe instead.")
    ],
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="[IN]...", help="filters: Parquet files, folders or globs.")
    ] = None,
    document: Annotated[
        int, typer.Option("--document", help="tokens: the number of the document among those that are chosen.")
    ] = 0,
    source: Annotated[str | None, typer.Option("--source", help="tokens: count documents of this source only.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="tokens: count documents of this split only.")] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="PREFIX", help="tokens: count documents of this shard only.")
    ] = None,
    sample: Annotated[
        int | None, typer.Option("--sample", metavar="N", help="tokens: a training row instead of a document.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="tokens: of the training run.")] = 0,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FILE", help="tokens: options of the training run's data, in TOML.")
    ] = None,
    sequence_length: Annotated[
        int | None, typer.Option("--sequence-length", metavar="S", help="tokens: of a training row.")
    ] = None,
    repo: Annotated[str | None, typer.Option("--repo", help="licenses: the repository, owner/name.")] = None,
    every: Annotated[bool, typer.Option("--all", help="licenses: name every file.")] = False,
    json_: Json = False,
) -> None:
    """Look at a document or a training row of the tokenized corpus, at the licences of a repository, or at what filters would drop."""
    from stackbuild.cli.inspect import Chosen, Sample, run

    run(
        what,
        out,
        inputs or [],
        Chosen(document, source, split, shard),
        Sample(sample, seed, data, sequence_length),
        repo,
        every,
        json_,
    )


@app.command()
def dedup(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="IN...", help="Parquet, JSON lines or saved `datasets` files, folders or globs."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Where the result goes.")],
    text_column: Annotated[str, typer.Option(help="The column of text.")] = "text",
    id_column: Annotated[str, typer.Option(help="The column that names a row; unique.")] = "id",
    no_id_column: Annotated[
        bool, typer.Option("--no-id-column", help="Rows are named by their file and number.")
    ] = False,
    scope_column: Annotated[
        str | None, typer.Option(help="Compare rows within the same value of this column only, such as language.")
    ] = None,
    source_column: Annotated[
        str | None, typer.Option(help="Warn when a value of this column, such as repo, loses most of its rows.")
    ] = None,
    survivor: Annotated[
        str,
        typer.Option(
            help="Who stays, best first: columns of numbers or dates, '-' for descending; then the smaller content_id."
        ),
    ] = "",
    threshold: Annotated[float, typer.Option(help="Jaccard similarity from which rows are near-duplicates.")] = 0.7,
    shingles: Annotated[str, typer.Option(help="words, the-stack-v1, santacoder or the-stack-v2.")] = "words",
    ngram: Annotated[int | None, typer.Option(min=1, help="Words in a shingle; the rule's own unless given.")] = None,
    permutations: Annotated[int, typer.Option(min=1, help="Slots of a signature.")] = 252,
    bands: Annotated[str, typer.Option(help="Bands of the signature, or search.")] = "42",
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Check every pair exactly, or collapse whole components.")
    ] = True,
    mode: Annotated[str, typer.Option(help="minhash, or exact: a join that misses no pair.")] = "minhash",
    header_blind: Annotated[
        bool | None,
        typer.Option(
            "--header-blind/--headers", help="Leave licence headers out of the comparison; as the rule has it."
        ),
    ] = None,
    compare_headers: Annotated[
        bool, typer.Option("--compare-headers", help="Also count who would leave if headers counted.")
    ] = False,
    memory: Annotated[str, typer.Option(help="Bytes of the largest table of a worker.")] = "24MiB",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; from size and cores unless given.")] = None,
    partitions: Annotated[int | None, typer.Option(min=1, help="A power of two; from the size unless given.")] = None,
    earlier: Annotated[
        Path | None, typer.Option(help="The OUT of an earlier run: its rows count too, without being read again.")
    ] = None,
    json_: Json = False,
) -> None:
    """Take exact and near copies out of a table: every row that leaves names a row that stays."""
    from stackbuild.cli.dedup import run
    from stackbuild.cluster import size_in_bytes

    given = {
        "text_column": text_column,
        "id_column": None if no_id_column else id_column,
        "scope_column": scope_column,
        "scope": "language" if scope_column else "global",
        "source_column": source_column,
        "survivor": tuple(name.strip() for name in survivor.split(",") if name.strip()),
        "threshold": threshold,
        "shingles": shingles,
        "ngram": ngram,
        "permutations": permutations,
        "bands": int(bands) if bands.isdigit() else bands,
        "verify": verify,
        "mode": mode,
        "header_blind": header_blind,
        "compare_headers": compare_headers,
        "memory": size_in_bytes(memory),
    }
    run(inputs, output, given, workers, partitions, earlier, json_)


register_training(app)
