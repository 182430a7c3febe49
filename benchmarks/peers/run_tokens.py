"""Peers that tokenize: python run_tokens.py KIND FOLDER TOKENIZER OUT. Parquet files with `content` to one file of ids.

Prints one JSON object: CPU-seconds of the work and of start-up, tokens, the ids' type, and whether each text ends with an id
of its own.
"""

import json
import os
import resource
import sys
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"


def cpu():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def batches(folder):
    import pyarrow.parquet as pq

    for path in sorted(Path(folder).glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(256, columns=["content"], use_threads=False):
            yield batch.column(0).to_pylist()


def tokenizers(folder, path, out):
    """`encode_batch_fast`, without metaspace or offsets."""
    import numpy as np
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(path)

    def work():
        with open(out, "wb") as file:
            for texts in batches(folder):
                for encoding in loaded.encode_batch_fast(texts, add_special_tokens=False):
                    file.write(np.array(encoding.ids, np.uint16).tobytes())
        return False

    return work


def tiktoken(folder, path, out):
    """The same merges; `Digits` is written into the pattern."""
    import numpy as np
    import tiktoken as library

    vocab = json.loads(Path(path).read_text())["model"]["vocab"]
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    bytes_of = {chr(byte): byte for byte in shown}
    bytes_of |= {chr(256 + k): byte for k, byte in enumerate(byte for byte in range(256) if byte not in shown)}
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
    ranks = {
        bytes(bytes_of[character] for character in token): number
        for token, number in vocab.items()
        if not (token.startswith("<") and token.endswith(">") and len(token) > 4)
    }
    loaded = library.Encoding("benchmark", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})

    def work():
        with open(out, "wb") as file:
            for texts in batches(folder):
                for text in texts:
                    file.write(np.array(loaded.encode_ordinary(text), np.uint16).tobytes())
        return False

    return work


def datatrove(folder, path, out):
    """ParquetReader and DocumentTokenizer, no shuffling."""
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    reader = ParquetReader(folder, text_key="content", id_key="content_id")
    writer = DocumentTokenizer(
        f"{out}.d", tokenizer_name_or_path=path, eos_token="<|endoftext|>", shuffle_documents=False
    )
    _ = writer.tokenizer

    def work():
        writer.run(reader.run(None, 0, 1), 0, 1)
        (made,) = Path(f"{out}.d").glob("*.ds")
        made.rename(out)
        return True

    return work


def main():
    kind, folder, path, out = sys.argv[1:]
    work = {"tokenizers": tokenizers, "tiktoken": tiktoken, "datatrove": datatrove}[kind](folder, path, out)
    startup = cpu()
    ends = work()
    print(json.dumps({"cpu": cpu() - startup, "startup": startup, "told": {"ends": ends}}))


if __name__ == "__main__":
    main()
