"""Models to and from the Hugging Face layout: safetensors, config.json, generation_config.json and the tokenizer's files."""

from stackbuild.train.hf_export import Ids, check_vocabulary, export_model, tokenizer_files
from stackbuild.train.hf_import import import_model

__all__ = ["Ids", "check_vocabulary", "export_model", "import_model", "tokenizer_files"]
