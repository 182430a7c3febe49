"""From the released dataset to tokens: sample, train, sort by repository, encode, and the manifest the trainer reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stackbuild.errors import RecipeError
from stackbuild.render.sentinels import require
from stackbuild.shards import canonical_json, read_batches
from stackbuild.stage import Phase, PhaseOutputs, Stage
from stackbuild.task import Task
from stackbuild.tokens.bpe import Vocabulary
from stackbuild.tokens.fast_check import COMPARED, choose
from stackbuild.tokens.job import Split, dtype_of, encode_bucket, shard_name, stem_of, write_manifest
from stackbuild.tokens.options import TokensOptions
from stackbuild.tokens.runs import Buckets, write_run
from stackbuild.tokens.sample import sample, train
from stackbuild.tokens.splits import Divided, divide, links
from stackbuild.tokens.statistics import combine, table_statistics

TRAIN = "train"
SOURCE = "code"


class Tokens(Stage[TokensOptions]):
    """Write Megatron shards of documents, FIM-ready, with a document table beside each."""

    name = "tokens"
    options_model = TokensOptions
    engines = ("tokenizers",)

    def __init__(self, options: TokensOptions | None = None):
        super().__init__(options)
        self.unique = False  # no content comes twice

    def placed(self, instance: str, before: Sequence[Stage[Any]], behind: Sequence[Stage[Any]]) -> None:
        self.unique = any(stage.makes_files for stage in before)

    def phases(self) -> Sequence[Phase]:
        dataset = "layout.dataset"
        return (
            Phase("sample", self.sample, "one", reads=(dataset,)),
            Phase("tokenizer", self.tokenizer, "one", reads=("sample",)),
            Phase("links", self.links, self.plan_links, reads=("layout.clusters",)),
            Phase("splits", self.splits, "one", reads=(dataset, "links"), key=lambda: {"unique_contents": self.unique}),
            Phase("runs", self.runs, self.plan_runs, reads=(dataset, "held_out")),
            Phase("shards", self.shards, self.plan_shards, reads=("runs", "tokenizer", "backend")),
            Phase("manifest", self.manifest, "one", reads=("tokenizer", "backend", "shard", "statistics", "divided")),
        )

    def key(self) -> Mapping[str, Any]:
        """The tokenizer that the recipe names, by what is in it, wherever it lies."""
        return {} if self.options.tokenizer == TRAIN else {"tokenizer": self._given}

    @cached_property
    def _given(self) -> str:
        """The SHA-256 of the tokenizer that the recipe names; InputError if the layout or the type cannot be written with it,
        so that a build of days does not end there."""
        path = Path(self.options.tokenizer)
        if not path.is_file():
            raise RecipeError(f"tokens.tokenizer: {path} is not a file; give a tokenizer.json, or train.")
        vocabulary = Vocabulary(path)
        require(vocabulary.sentinels, self.options.layout, str(path))
        dtype_of(vocabulary, self.options.dtype)
        return vocabulary.sha256

    def sample(self, task: Task) -> None:
        """Draw the text to train on, or to compare the backends on, if the recipe brings a tokenizer."""
        options = self.options
        if options.tokenizer != TRAIN:
            if options.backend == "tokenizers":
                return
            options = options.model_copy(update={"sample_bytes": COMPARED})
        sample(task.table("layout.dataset"), options, task.seed, task.file("sample", ".parquet"))

    def tokenizer(self, task: Task) -> None:
        """Train the tokenizer, or take the one that is given, and choose what encodes with it."""
        path = task.file("tokenizer", ".json")
        if self.options.tokenizer == TRAIN:
            train(task.table("sample")[0], self.options, path)
        else:
            path.write_bytes(Path(self.options.tokenizer).read_bytes())
        vocabulary = Vocabulary(path)
        dtype_of(vocabulary, self.options.dtype)
        record = choose(vocabulary, self.options.backend, task.table("sample"))
        task.file("backend", ".json").write_bytes(canonical_json(record))
        task.stats.update(record)

    def plan_links(self, outputs: PhaseOutputs) -> list[dict[str, Any]]:
        """A task for each file of clusters, none if nothing is held out."""
        files = len(outputs.files["layout.clusters"]) if self.options.valid_share else 0
        return [{"file": number} for number in range(files)]

    def links(self, task: Task) -> None:
        """Tell which repositories share a cluster of one file of clusters."""
        clusters = task.outputs("layout.clusters")[task.params["file"]]
        found = links(read_batches(task.out, [clusters], ["cluster_id", "repo_name"]))
        pq.write_table(found, task.file("links", ".parquet"), compression="zstd")
        task.stats.update(links=found.num_rows)

    def splits(self, task: Task) -> None:
        """Choose the repositories that are held out for validation."""
        share, path = self.options.valid_share, task.file("held_out", ".parquet")
        dataset = task.table("layout.dataset") if share else []
        divided = divide(dataset, task.table("links"), share, task.seed, task.scratch, path, self.unique)
        task.file("divided", ".json").write_bytes(canonical_json(asdict(divided)))
        task.stats.update(asdict(divided))

    def plan_runs(self, outputs: PhaseOutputs) -> list[dict[str, Any]]:
        """A task for each dataset file."""
        return [{"file": number} for number in range(len(outputs.files["layout.dataset"]))]

    def runs(self, task: Task) -> None:
        """Sort one dataset file by repository."""
        path = task.table("layout.dataset")[task.params["file"]]
        held_out = pq.read_table(task.table("held_out")[0], columns=["repo_name"]).column(0).to_pylist()
        buckets = Buckets(task.seed, self.options.shards, self.options.valid_shards, frozenset(held_out))
        task.stats.update(write_run(path, buckets, task.file("runs", ".parquet")))

    def plan_shards(self, outputs: PhaseOutputs) -> list[dict[str, Any]]:
        """A task for each bucket of repositories."""
        return [{"bucket": bucket} for bucket in range(self.options.shards + self.options.valid_shards)]

    def shards(self, task: Task) -> None:
        """Encode the repositories of one bucket."""
        bucket, shards = task.params["bucket"], self.options.shards
        if bucket < shards:
            name = shard_name(stem_of(SOURCE, "train"), bucket, shards)
        else:
            name = shard_name(stem_of(SOURCE, "valid"), bucket - shards, self.options.valid_shards)
        prefix = task.folder / name
        shard = encode_bucket(
            task.table("runs"),
            bucket,
            task.table("tokenizer")[0],
            self.options,
            task.seed,
            prefix,
            SOURCE,
            _backend(task),
        )
        counts = {"shard": shard["prefix"], **table_statistics(f"{prefix}.documents.parquet")}
        task.file("statistics", ".json").write_bytes(canonical_json(counts))
        for suffix in ("bin", "idx"):
            task.adopt(suffix, Path(f"{prefix}.{suffix}"))
        task.adopt("documents", Path(f"{prefix}.documents.parquet"))
        task.file("shard", ".json").write_bytes(canonical_json(shard))
        task.stats.update(shard)

    def manifest(self, task: Task) -> None:
        """List the shards, and sum what they hold."""
        made = [json.loads(Path(path).read_bytes()) for path in task.table("shard")]
        shards: dict[Split, list[Any]] = {"train": made[: self.options.shards]}
        if self.options.valid_shards:
            shards["valid"] = made[self.options.shards :]
        manifest = write_manifest(
            task.file("manifest", ".json"),
            task.table("tokenizer")[0],
            shards,
            backend=_backend(task),
            source=SOURCE,
            dtype=self.options.dtype,
            layout=self.options.layout,
            divided=Divided(**json.loads(Path(task.table("divided")[0]).read_bytes())),
            share=self.options.valid_share,
        )
        counts = {
            one["shard"]: one for one in (json.loads(Path(path).read_bytes()) for path in task.table("statistics"))
        }
        told = combine(
            (source.name, source.split, counts[shard.prefix]) for source in manifest.sources for shard in source.shards
        )
        task.file("totals", ".json").write_bytes(canonical_json(told))


def _backend(task: Task) -> str:
    """What the run encodes with, as the phase `tokenizer` recorded it."""
    record: dict[str, str] = json.loads(Path(task.table("backend")[0]).read_bytes())
    return record["backend"]
