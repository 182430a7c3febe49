"""From the released dataset to tokens: sample, train, sort by repository, encode, and the manifest the trainer reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stackbuild.errors import RecipeError
from stackbuild.shards import canonical_json
from stackbuild.stage import Phase, PhaseOutputs, Stage
from stackbuild.task import Task
from stackbuild.tokens.bpe import Vocabulary
from stackbuild.tokens.job import dtype_of, encode_bucket, runs, sample, shard_name, train, write_manifest
from stackbuild.tokens.options import TokensOptions
from stackbuild.tokens.statistics import combine, table_statistics

TRAIN = "train"
SOURCE = "code"


class Tokens(Stage[TokensOptions]):
    """Write Megatron shards of repository documents, FIM-ready, with a document table beside each."""

    name = "tokens"
    options_model = TokensOptions
    engines = ("tokenizers",)

    def phases(self) -> Sequence[Phase]:
        dataset = "layout.dataset"
        return (
            Phase("sample", self.sample, "one", reads=(dataset,)),
            Phase("tokenizer", self.tokenizer, "one", reads=("sample",)),
            Phase("runs", self.runs, self.plan_runs, reads=(dataset,)),
            Phase("shards", self.shards, self.plan_shards, reads=("runs", "tokenizer")),
            Phase("manifest", self.manifest, "one", reads=("tokenizer", "shard", "statistics")),
        )

    def key(self) -> Mapping[str, Any]:
        """The tokenizer that the recipe names, by what is in it."""
        if self.options.tokenizer == TRAIN:
            return {}
        path = Path(self.options.tokenizer)
        if not path.is_file():
            raise RecipeError(f"tokens.tokenizer: {path} is not a file; give a tokenizer.json, or train.")
        return {"tokenizer": hashlib.sha256(path.read_bytes()).hexdigest()}

    def sample(self, task: Task) -> None:
        """Draw the text to train on, or nothing if the recipe brings a tokenizer."""
        if self.options.tokenizer == TRAIN:
            sample(task.table("layout.dataset"), self.options, task.seed, task.file("sample", ".parquet"))

    def tokenizer(self, task: Task) -> None:
        """Train the tokenizer, or take the one that is given."""
        path = task.file("tokenizer", ".json")
        if self.options.tokenizer == TRAIN:
            train(task.table("sample")[0], self.options, path)
        else:
            path.write_bytes(Path(self.options.tokenizer).read_bytes())
            dtype_of(Vocabulary(path), self.options.dtype)

    def plan_runs(self, outputs: PhaseOutputs) -> list[dict[str, Any]]:
        """A task for each dataset file."""
        return [{"file": number} for number in range(len(outputs.files["layout.dataset"]))]

    def runs(self, task: Task) -> None:
        """Sort one dataset file by repository."""
        path = task.table("layout.dataset")[task.params["file"]]
        task.stats.update(runs(path, self.options.shards, task.seed, task.file("runs", ".parquet")))

    def plan_shards(self, outputs: PhaseOutputs) -> list[dict[str, Any]]:
        """A task for each bucket of repositories."""
        return [{"bucket": bucket} for bucket in range(self.options.shards)]

    def shards(self, task: Task) -> None:
        """Encode the repositories of one bucket."""
        prefix = task.folder / shard_name(SOURCE, task.rank, self.options.shards)
        shard = encode_bucket(
            task.table("runs"), task.params["bucket"], task.table("tokenizer")[0], self.options, task.seed, prefix
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
        shards = [json.loads(Path(path).read_bytes()) for path in task.table("shard")]
        manifest = write_manifest(
            task.file("manifest", ".json"), task.table("tokenizer")[0], shards, dtype=self.options.dtype
        )
        counts = {
            one["shard"]: one for one in (json.loads(Path(path).read_bytes()) for path in task.table("statistics"))
        }
        told = combine(
            (source.name, source.split, counts[shard.prefix]) for source in manifest.sources for shard in source.shards
        )
        task.file("totals", ".json").write_bytes(canonical_json(told))
