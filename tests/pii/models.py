"""A tiny token-classification model whose findings are known: a token's label is that of its word, whatever is around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

LABELS = ("O", "B-NAME", "I-NAME", "B-EMAIL", "B-IP_ADDRESS", "B-KEY", "B-USERNAME", "B-AMBIGUOUS", "I-EMAIL")
WORDS = {
    "Jo": "B-NAME", "Smith": "I-NAME", "Ölund": "I-NAME", "漢字": "I-NAME", "Ada": "B-NAME", "jo@firm.com": "B-EMAIL", 
    "bo@firm.com": "B-EMAIL",
    "(jo@firm.com),": "B-EMAIL", "84.23.112.9": "B-IP_ADDRESS", "10.0.0.1": "B-IP_ADDRESS", "8.8.8.8": "B-IP_ADDRESS", 
    "1.2.3": "B-IP_ADDRESS",
    "user1": "B-USERNAME", "maybe": "B-AMBIGUOUS", "abc": "B-EMAIL", "<EMAIL>": "B-EMAIL", "<NAME>": "B-NAME", "word": "O",
    "qxzjvkqxzj+/=": "B-KEY", "connection_timeout": "B-KEY", "[SEP]": "O",
}  # fmt: skip
DIMENSIONS = 16


def tokenizer(words: list[str]) -> Any:
    """Words between white space; control characters are dropped by its normalizer, as BERT's does."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(word for word in words if word != "[SEP]")]
    made = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False
    )
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.add_special_tokens(["[CLS]", "[SEP]", "[PAD]"])
    return made


def save(
    folder: Path, labels: tuple[str, ...] = LABELS, words: dict[str, str] | None = None, kind: str = "bert"
) -> Path:
    """A folder of a model with hand-set weights: no attention, an embedding for each label, a classifier that reads it."""
    import torch
    import transformers

    words = words or WORDS
    made = tokenizer(list(words))
    vocabulary = made.get_vocab()
    sizes: dict[str, Any] = {
        "vocab_size": len(vocabulary), "hidden_size": DIMENSIONS, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
        "max_position_embeddings": 66, "id2label": dict(enumerate(labels)), "label2id": {one: n for n, one in enumerate(labels)},
        "type_vocab_size": 1, "pad_token_id": 0,
    }  # fmt: skip
    family = {
        "bert": ("BertConfig", "BertForTokenClassification"),
        "roberta": ("RobertaConfig", "RobertaForTokenClassification"),
    }
    config, model = (getattr(transformers, name) for name in family[kind])
    built = model(config(**sizes)).eval()
    with torch.no_grad():
        for name, weight in built.named_parameters():
            weight.copy_(torch.ones_like(weight) if "LayerNorm.weight" in name else torch.zeros_like(weight))
        rows = np.zeros((len(vocabulary), DIMENSIONS), np.float32)
        rows[:, 0] = 1.0
        for word, number in vocabulary.items():
            if word in words:
                rows[number] = np.eye(DIMENSIONS, dtype=np.float32)[labels.index(words[word])]
        getattr(built, kind).embeddings.word_embeddings.weight.copy_(torch.from_numpy(rows))
        built.classifier.weight.copy_(4 * torch.eye(len(labels), DIMENSIONS))
    built.save_pretrained(folder)
    made.save(str(folder / "tokenizer.json"))
    return folder
