"""What a model costs: operations for a token, memory for its state and activations, and the share of a device's peak that a rate is.

Operations of a training token are told in both ways that are in use, since figures cannot be compared otherwise:

    6N                    two for each parameter forward, four backward; N counts the embedding once, where it is tied or not
    6N + attention        and 6 * layers * hidden * S, where S is the mean number of tokens that a token looks at, doubled: S = length for
                          causal attention, of which a window w leaves out what lies before it: S = w * (2 - w / length)

Attention is 4 * hidden * (tokens seen) forward (scores and sums) and twice that backward: 12 * layers * hidden * seen, seen = S / 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from stackbuild.train.attention import eager_rows
from stackbuild.train.config import ModelConfig

STATE_BYTES: Final = 16  # of a parameter in training: itself, gradient and two moments, fp32

# Dense peak of bf16 on tensor cores, FLOP/s, from the makers' data sheets, by what torch calls the device (the longest name that fits).
PEAKS: Final[Mapping[str, float]] = {
    "A100": 312e12,
    "A10": 125e12,
    "A40": 150e12,
    "A6000": 155e12,
    "L4": 121e12,
    "L40S": 362e12,
    "RTX 3090": 71e12,
    "RTX 4090": 165e12,
    "H100": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H200": 989e12,
    "B200": 2250e12,
}


class Flops(NamedTuple):
    """Operations for one training token: `matrices` is 6N, `total` adds attention."""

    matrices: float
    total: float


class Memory(NamedTuple):
    """Bytes on one device: of parameters, gradients and optimiser; of activations; of the logits of a chunk; their sum."""

    state: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.state + self.activations + self.logits


def parameters(config: ModelConfig) -> int:
    """How many numbers are trained."""
    width, inner = config.hidden, config.kv_heads * config.head_dim
    matrices = 2 * width * width + 2 * width * inner + 2 * width * config.ffn
    biases = (2 * width + 2 * inner + config.ffn + width) if config.bias else 0
    tables = config.vocab_size * width * (1 if config.tied else 2) + (
        config.max_positions * width if config.learned else 0
    )
    return tables + config.layers * (matrices + biases + 4 * width) + 2 * width


def seen(length: int, window: int | None) -> float:
    """Mean number of tokens that a token of a row looks at, counted so that causal attention without a window is length / 2."""
    reach = min(window or length, length)
    return reach * (1 - reach / (2 * length))


def flops(config: ModelConfig, length: int) -> Flops:
    """Operations for one token of rows of `length` tokens, forward and backward; documents are not taken into account."""
    matrices = 6.0 * parameters(config)
    return Flops(matrices, matrices + 12.0 * config.layers * config.hidden * seen(length, config.window))


def memory(
    config: ModelConfig, rows: int, length: int, *, checkpoint_layers: bool, low: bool = True, logits: int = 0
) -> Memory:
    """An estimate of what training a micro-batch of `rows` rows needs. Of weights of attention only the eager kernel's count.

    `low`: activations of matrices are in bf16 (autocast), the residual stream in fp32. `checkpoint_layers`: of each layer only its input is
    kept, and one layer at a time is computed again. `logits`: numbers of a chunk of the loss.
    """
    tokens, width = rows * length, config.hidden
    small = 2 if low else 4
    inner = config.kv_heads * config.head_dim
    # Kept of a layer: inputs of two norms (residual stream); their outputs, q, k, v, what attention gave, both sides of the GELU.
    stream = 4 * width
    kept = 2 * stream + small * (2 * width + width + 2 * inner + width + 2 * config.ffn) + (4 * 2 * width if low else 0)
    if config.residual_dropout:
        kept += 2 * width  # a byte an element, twice
    weights = 0
    if config.attention_dropout:  # the eager kernel: scores, weights, what is dropped, and their gradient
        at_once = eager_rows(rows, config.heads, length, length)
        kept_by = config.layers if at_once == length and not checkpoint_layers else 1  # of long rows computed again
        weights = 4 * 4 * rows * config.heads * length * at_once * kept_by
    layers = config.layers * stream + kept if checkpoint_layers else config.layers * kept
    head = stream + stream  # what the last norm takes and gives
    copies = small * parameters(config) if low else 0  # autocast's copies of the matrices
    return Memory(STATE_BYTES * parameters(config), tokens * (layers + head) + weights + copies, 2 * 4 * logits)


def peak(device: str) -> float | None:
    """Peak FLOP/s in bf16 of a device by torch's name for it, for example "NVIDIA H100 80GB HBM3"; None if it is not known."""
    words = device.replace("-", " ").split()
    fits = [name for name in PEAKS if all(part in words for part in name.split())]
    return PEAKS[max(fits, key=len)] if fits else None


def utilisation(operations: float, tokens_per_second: float, peak_flops: float) -> float:
    """The share of a peak (MFU) that a rate is, from the operations of a token."""
    return operations * tokens_per_second / peak_flops
