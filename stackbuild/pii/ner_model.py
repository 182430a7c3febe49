"""A token-classification model of Hugging Face's layout, from a folder of this machine: read without its code, without pickle.

Read are config.json, tokenizer.json (the fast tokenizer) and *.safetensors, nothing else and nothing from a network. The
folder is a stranger's: a model whose architecture needs code of its own, weights in pickle, an adapter, or weights that
are not all there are refused by name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from stackbuild.errors import InputError, MissingDependency, RecipeError
from stackbuild.pii.decide import ENTITIES
from stackbuild.pii.extras import EXTRA_WITH_TORCH
from stackbuild.pii.options import PiiOptions

ENGINES: Final = ("torch", "transformers", "tokenizers", "safetensors")
WINDOW: Final = 512
OVERLAP: Final = 64
LARGEST_JSON: Final = 200_000_000
LARGEST_LABELS: Final = 10_000
# Of these the first positions are for padding: a model of 514 positions sees 512 tokens.
OFFSET_POSITIONS: Final = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer", "data2vec-text"}
)
_BIO = re.compile(r"^([BIESLU])[-_](.+)$", re.I)
_OTHER_NAMES: Final = {"PER": "NAME", "PERSON": "NAME", "EMAIL_ADDRESS": "EMAIL", "IP": "IP_ADDRESS"}

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Label:
    """What a model's label says: the entity ("" for none of ours), and whether it begins one."""

    entity: str
    begins: bool


@dataclass(frozen=True)
class ModelFolder:
    """A folder that was looked at and not loaded yet. `digests`: SHA-256 by file name. `window`: tokens that it sees at most,
    special ones included, None if the configuration does not say."""

    path: Path
    digests: Mapping[str, str]
    labels: tuple[Label, ...]
    window: int | None


def read_folder(path: str | Path, names: Mapping[str, str]) -> ModelFolder:
    """Look at a model. `names`: entities of labels, over the known ones. InputError that says what is wrong with it."""
    folder = Path(path)
    try:
        if not folder.is_dir():
            raise InputError(
                f"ner_model: {str(path)!r} is no folder; a model's name alone is not enough, as nothing is fetched."
            )
        files = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
        config = _json(folder / "config.json", "config.json")
        weights = [name for name in files if name.endswith(".safetensors")]
        if not weights:
            pickles = [name for name in files if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl"))]
            raise InputError(
                f"ner_model: {folder} holds no *.safetensors"
                + (f"; {pickles[0]} is a pickle, which may run any program and is not loaded: save the model anew with "
                   "safe_serialization=True" if pickles else "")
                + "."
            )  # fmt: skip
        if "tokenizer.json" not in files:
            raise InputError(
                f"ner_model: {folder} holds no tokenizer.json, the fast tokenizer, which alone knows positions in the text: "
                "load the tokenizer with transformers' AutoTokenizer and save it anew."
            )
        if "adapter_config.json" in files:
            raise InputError(f"ner_model: {folder} holds an adapter; merge it into its model first.")
        digests = {}
        for name in [
            "config.json",
            "tokenizer.json",
            *weights,
            *(n for n in files if n == "model.safetensors.index.json"),
        ]:
            with open(folder / name, "rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"ner_model: {str(path)!r} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:  # a name with NUL
        raise InputError(f"ner_model: {str(path)!r} cannot be the name of a folder.") from error
    return ModelFolder(folder, digests, _labels(config, names, folder), _window(config, folder))


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError("it is too large")
        data = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"ner_model: {path.parent} holds no {name}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"ner_model: {path} is no JSON that can be used: {error}.") from error
    if not isinstance(data, dict):
        raise InputError(f"ner_model: {path} is not a JSON object.")
    return data


def _labels(config: Mapping[str, Any], names: Mapping[str, str], folder: Path) -> tuple[Label, ...]:
    """The labels in the order of their numbers."""
    table = config.get("id2label")
    if not isinstance(table, dict) or not 0 < len(table) <= LARGEST_LABELS:
        raise InputError(f"ner_model: {folder}/config.json has no id2label: it is no model that labels tokens.")
    if set(table) != {str(number) for number in range(len(table))} or not all(
        isinstance(one, str) for one in table.values()
    ):
        raise InputError(f"ner_model: id2label of {folder}/config.json does not name the labels from 0 on.")
    for name, entity in names.items():
        if entity and entity not in ENTITIES:
            raise RecipeError(f"pii.ner_labels.{name}: {entity!r} is no entity; there are {', '.join(ENTITIES)}.")
    known = {**dict(zip(ENTITIES, ENTITIES, strict=True)), **_OTHER_NAMES, **{n.upper(): e for n, e in names.items()}}
    found = []
    for number in range(len(table)):
        label: str = table[str(number)]
        parts = _BIO.match(label)
        bare = label if label.upper() in known or not parts else parts[2]
        found.append(Label(known.get(bare.upper(), ""), bool(parts) and bare != label and parts[1].upper() in "BSU"))  # type: ignore[index]
    if not any(label.entity for label in found):
        raise RecipeError(
            f"pii.ner_labels: no label of {folder} is an entity of ours: {', '.join(sorted(set(table.values())))[:300]}. "
            f'Say which are, as {{ LABEL_1 = "NAME" }}.'
        )
    return tuple(found)


def _window(config: Mapping[str, Any], folder: Path) -> int | None:
    positions = config.get("max_position_embeddings")
    if positions is None or config.get("position_embedding_type") not in (None, "absolute"):
        return None
    if not isinstance(positions, int) or not 0 < positions < 1 << 31:
        raise InputError(f"ner_model: max_position_embeddings of {folder}/config.json is no number of positions.")
    if config.get("model_type") in OFFSET_POSITIONS:
        positions -= (config.get("pad_token_id") or 0) + 1
    return positions


class Tagger:
    """A loaded model: labels of windows of tokens.

    MissingDependency without torch or transformers; InputError for a folder that does not hold what it should.
    """

    def __init__(self, folder: ModelFolder, options: PiiOptions):
        try:
            import tokenizers
            import torch
            import transformers
        except ImportError as error:
            raise MissingDependency(f"The profile ner needs {error.name}: {EXTRA_WITH_TORCH}") from error
        self.torch: Any = torch
        self.device = device(torch, options.ner_device)
        self.dtype = torch.bfloat16 if options.ner_dtype == "bfloat16" else torch.float32
        if self.device == "cpu":
            torch.set_num_threads(1)  # a build has a process for each core
        try:
            self.tokenizer = tokenizers.Tokenizer.from_file(str(folder.path / "tokenizer.json"))
            self.tokenizer.no_truncation()
            self.tokenizer.no_padding()
            self.tokenizer.encode_special_tokens = True  # "[SEP]" in a text is text
        except Exception as error:  # tokenizers raises no class of its own
            raise InputError(f"ner_model: {folder.path}/tokenizer.json cannot be used: {error}.") from error
        self.before, self.after = self._special()
        self.pad = self.tokenizer.token_to_id("[PAD]") or self.tokenizer.token_to_id("<pad>") or 0
        self.model = self._load(transformers, folder)
        self.window = self._size(folder, options.ner_window)
        self.overlap = min(OVERLAP, self.window // 4) if options.ner_overlap is None else options.ner_overlap
        if self.overlap > self.window // 2:
            raise RecipeError(
                f"pii.ner_overlap: {self.overlap} of windows of {self.window} tokens; at most half of one."
            )

    def _special(self) -> tuple[list[int], list[int]]:
        """The tokens that the tokenizer puts before and after a text."""
        encoding = self.tokenizer.encode("a", add_special_tokens=True)
        ids, mask = list(encoding.ids), list(encoding.special_tokens_mask)
        if 0 not in mask:
            return [], []
        first, last = mask.index(0), len(mask) - mask[::-1].index(0)
        return ids[:first], ids[last:]

    def _size(self, folder: ModelFolder, wanted: int | None) -> int:
        """Tokens of the text in a window."""
        size = wanted or min(WINDOW, folder.window or WINDOW)
        if folder.window is not None and size > folder.window:
            raise RecipeError(f"pii.ner_window: {folder.path} sees {folder.window} tokens at most, not {size}.")
        size -= len(self.before) + len(self.after)
        if size < 1:
            raise RecipeError(f"pii.ner_window: {wanted} tokens leave no room for a text beside the special ones.")
        return size

    def _load(self, transformers: Any, folder: ModelFolder) -> Any:
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        try:
            model, info = transformers.AutoModelForTokenClassification.from_pretrained(
                str(folder.path),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=self.dtype,
                output_loading_info=True,
            )
        except Exception as error:  # of any class, by the architecture and by what is wrong
            why = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise InputError(f"ner_model: {folder.path} cannot be loaded: {why}") from error
        lost = [str(name) for name in [*info["missing_keys"], *info["mismatched_keys"]]]
        if lost:
            raise InputError(
                f"ner_model: {folder.path} has no weights for {lost[0]}: it was not trained to label tokens."
            )
        return model.to(self.device).eval()

    def labels(self, windows: I64, lengths: I64) -> tuple[I64, F32]:
        """Labels and their probabilities of n windows of ids (n, L), of which the first lengths[k] are real: (n, L) each.

        Of labels that are alike the first counts. Special tokens are put around the windows here and left out of the answer.
        """
        torch, (n, longest) = self.torch, windows.shape
        whole = np.full((n, longest + len(self.before) + len(self.after)), self.pad, np.int64)
        mask = np.zeros_like(whole)
        whole[:, : len(self.before)] = self.before
        whole[:, len(self.before) : len(self.before) + longest] = windows
        for row, length in enumerate(lengths.tolist()):
            end = len(self.before) + length
            whole[row, end : end + len(self.after)] = self.after
            whole[row, end + len(self.after) :] = self.pad
            mask[row, : end + len(self.after)] = 1
        with torch.inference_mode():
            logits = self.model(
                input_ids=torch.from_numpy(whole).to(self.device), attention_mask=torch.from_numpy(mask).to(self.device)
            ).logits.float()
            best, which = torch.softmax(logits, -1).max(-1)
        part = slice(len(self.before), len(self.before) + longest)
        return which.cpu().numpy()[:, part], best.cpu().numpy()[:, part]


def device(torch: Any, wanted: Literal["auto", "cpu", "cuda"]) -> str:
    """Where a model runs. RecipeError if a GPU is asked for and there is none."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise RecipeError('pii.ner_device: there is no GPU that torch can use here; "auto" takes the CPU then.')
    return "cuda"
