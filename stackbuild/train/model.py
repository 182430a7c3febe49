"""One decoder for StarCoder, SantaCoder and StarCoder2.

    x = embed(tokens) (+ position(positions))
    x = x + attention(norm(x));  x = x + mlp(norm(x))        for each layer
    logits = norm(x) @ head.T                                 the head is the embedding where it is tied

Queries, keys and values are matrices of their own whatever the family's files hold, and a parameter's name tells its place in the model
alone, so that a checkpoint and an optimiser's state fit every layout:

    embed.weight (V, d)   position.weight (P, d), learned positions only   norm.{weight,bias}   head.weight (V, d), untied only
    layers.I.attention_norm   layers.I.attention.{q,k,v,o}   layers.I.mlp_norm   layers.I.mlp.{up,down}      each {weight,bias}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from stackbuild import hashing
from stackbuild.errors import UsageError
from stackbuild.train import dropout as sites
from stackbuild.train import loss as losses
from stackbuild.train.attention import Choice, Mask, Ready, attend, choose, prepare
from stackbuild.train.config import ModelConfig
from stackbuild.train.dropout import Draws, drop, site
from stackbuild.train.layout import SINGLE, Layout
from stackbuild.train.loss import Loss
from stackbuild.train.rope import angles, turn

if TYPE_CHECKING:
    from stackbuild.train.generate import Cache

_INTO_RESIDUAL: Final = ("attention.o.weight", "mlp.down.weight")  # what scaled_init draws smaller


class Shared(NamedTuple):
    """What all layers of a pass share. `turns`: cosines and sines of rotary positions."""

    mask: Ready
    turns: tuple[torch.Tensor, torch.Tensor] | None
    draws: Draws | None
    cache: Cache | None


class Attention(nn.Module):
    """Projections around `attend`. How many heads there are is read from the projections' widths."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        inner = config.kv_heads * config.head_dim
        self.q = nn.Linear(config.hidden, config.hidden, config.bias)
        self.k = nn.Linear(config.hidden, inner, config.bias)
        self.v = nn.Linear(config.hidden, inner, config.bias)
        self.o = nn.Linear(config.hidden, config.hidden, config.bias)
        self.head_dim, self.rate = config.head_dim, config.attention_dropout

    def forward(self, x: torch.Tensor, shared: Shared, layer: int) -> torch.Tensor:
        """(B, T, d) to (B, T, d)."""
        heads = (*x.shape[:2], -1, self.head_dim)
        q, k, v = self.q(x).view(heads), self.k(x).view(heads), self.v(x).view(heads)
        if shared.turns is not None:
            q, k = turn(q, *shared.turns), turn(k, *shared.turns)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, heads, T, D)
        if shared.cache is not None:
            k, v = shared.cache.extend(layer, k, v)
        seen = attend(q, k, v, shared.mask, dropout=site(shared.draws, layer, sites.WEIGHTS, self.rate))
        out: torch.Tensor = self.o(seen.transpose(1, 2).reshape(*x.shape[:2], -1))
        return out


class FeedForward(nn.Module):
    """Two matrices and a GELU."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.up = nn.Linear(config.hidden, config.ffn, config.bias)
        self.down = nn.Linear(config.ffn, config.hidden, config.bias)
        self.approximate = "tanh" if config.activation == "gelu_tanh" else "none"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, d) to (B, T, d)."""
        out: torch.Tensor = self.down(F.gelu(self.up(x), approximate=self.approximate))
        return out


class Block(nn.Module):
    """One layer: attention and feed-forward, each behind its norm and added to the residual stream."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.hidden, config.norm_eps)
        self.attention = Attention(config)
        self.mlp_norm = nn.LayerNorm(config.hidden, config.norm_eps)
        self.mlp = FeedForward(config)
        self.rate = config.residual_dropout

    def forward(self, x: torch.Tensor, shared: Shared, layer: int) -> torch.Tensor:
        """(B, T, d) to (B, T, d)."""
        added = self.attention(_lowered(self.attention_norm(x)), shared, layer)
        x = _add(x, drop(added, site(shared.draws, layer, sites.RESIDUAL_ATTENTION, self.rate)))
        added = self.mlp(_lowered(self.mlp_norm(x)))
        return _add(x, drop(added, site(shared.draws, layer, sites.RESIDUAL_FFN, self.rate)))


class Decoder(nn.Module):
    """The model. Its weights are NaN until `initialise` or a checkpoint sets them.

    `checkpoint_layers`: keep of each layer its input alone and compute the rest a second time in backward. `kernel`: of attention;
    "auto" takes the eager one where weights are dropped, FlexAttention on CUDA under a window or documents, else SDPA. Nothing is
    dropped without `dropout`, in training mode too. UsageError for a layout that cannot be run.
    """

    def __init__(
        self,
        config: ModelConfig,
        layout: Layout = SINGLE,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        *,
        checkpoint_layers: bool = False,
        kernel: Choice = "auto",
    ):
        super().__init__()
        layout.check()
        self.config, self.checkpoint_layers, self.kernel = config, checkpoint_layers, kernel
        self._compiled_loss = False
        with torch.device("meta"):  # no draws that `initialise` would make again
            self.embed = nn.Embedding(config.vocab_size, config.hidden)
            if config.learned:
                self.position = nn.Embedding(config.max_positions, config.hidden)
            self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
            self.norm = nn.LayerNorm(config.hidden, config.norm_eps)
            if not config.tied:
                self.head = nn.Linear(config.hidden, config.vocab_size, bias=False)
        self.to(dtype)
        if torch.device(device or "cpu").type != "meta":
            self.to_empty(device=device or "cpu")
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.fill_(torch.nan)

    @property
    def head_weight(self) -> torch.Tensor:
        """(V, d): the embedding, where it is tied."""
        weight: torch.Tensor = self.embed.weight if self.config.tied else self.head.weight
        return weight

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor | None,
        mask: Mask,
        dropout: Draws | None = None,
        cache: Cache | None = None,
    ) -> torch.Tensor:
        """Hidden states (B, T, d), behind the last norm, for tokens and positions (B, T) of integers.

        `positions` None: places in the row, `mask.offset` onwards. `cache`: of keys and values before the first query, to which these are
        added. UsageError for a row that is longer than learned positions.
        """
        rows, keys, device = tokens.shape[1], tokens.shape[1] + mask.offset, tokens.device
        config = self.config
        if positions is None:
            if config.learned and keys > config.max_positions:
                raise UsageError(f"a row of {keys} tokens: this model has {config.max_positions} learned positions")
            positions = torch.arange(mask.offset, keys, device=device)[None]
        kernel = choose(self.kernel, mask, rows, keys, device, dropout is not None and config.attention_dropout > 0)
        x = self.embed(tokens)
        turns = None
        if config.rope_theta is not None:
            turns = angles(positions, config.rope_theta, config.head_dim, x.dtype)
        else:
            x = x + self.position(positions)
        x = drop(x, site(dropout, -1, sites.EMBEDDING, config.embedding_dropout))
        shared = Shared(prepare(mask, kernel, rows, keys, device), turns, dropout, cache)
        for layer, block in enumerate(self.layers):
            if self.checkpoint_layers and torch.is_grad_enabled():
                x = checkpoint(block, x, shared, layer, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, shared, layer)
        hidden: torch.Tensor = self.norm(x)
        return hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., d) to (..., V)."""
        return F.linear(hidden, self.head_weight)

    def loss(
        self,
        tokens: torch.Tensor,
        labels: torch.Tensor,
        positions: torch.Tensor | None = None,
        documents: torch.Tensor | None = None,
        dropout: Draws | None = None,
        chunk: int | None = None,
    ) -> Loss:
        """Sum of the losses, fp32 with gradient, and how many labels there were.

        All (B, T) of integers: `labels` the token that follows, -100 where there is none to learn; `documents` a number for each document
        of a row, -1 in padding; None lets documents see each other, as both StarCoders were trained (then `positions` should be None too).
        `chunk`: rows of logits that exist at a time.
        """
        hidden = self(tokens, positions, self.mask(documents), dropout)
        return losses.cross_entropy(hidden, self.head_weight, labels, chunk, self._compiled_loss)

    def compile_parts(self) -> None:
        """Compile what takes the time in training: each layer, which all share one program, and the loss."""
        for block in self.layers:
            block.compile()
        self._compiled_loss = True

    @torch.no_grad()
    def token_losses(
        self,
        tokens: torch.Tensor,
        labels: torch.Tensor,
        positions: torch.Tensor | None = None,
        documents: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss of each label, fp32 (B, T), 0 where it is -100; without gradient or dropout."""
        hidden = self(tokens, positions, self.mask(documents))
        return losses.token_losses(hidden, self.head_weight, labels)

    def mask(self, documents: torch.Tensor | None = None, offset: int = 0) -> Mask:
        """The model's own mask: causal, with its window."""
        return Mask(window=self.config.window, documents=documents, offset=offset)


def initialise(model: Decoder, seed: int) -> None:
    """Draw new weights: normal with init_std (`scaled_init`: less where a layer writes), biases 0, norms 1.

    Each tensor is drawn on the CPU in fp32 by a generator seeded by a hash of (seed, name): alike for every device, dtype and layout.
    """
    config = model.config
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)
                continue
            std = config.init_std
            if config.scaled_init and name.endswith(_INTO_RESIDUAL):
                std /= (2 * config.layers) ** 0.5
            generator = torch.Generator().manual_seed(hashing.draw(seed, "initialise", name) >> 1)
            parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=generator))


def _add(x: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
    """The sum, written over what was added: nobody reads that again, and `x` is kept for the norm's gradient."""
    return added.add_(x) if added.dtype == x.dtype else x + added


def _lowered(x: torch.Tensor) -> torch.Tensor:
    """Under autocast, in its dtype: once, not once for each matrix that reads it."""
    device = x.device.type
    lowered = device != "meta" and torch.is_autocast_enabled(device)
    return x.to(torch.get_autocast_dtype(device)) if lowered else x
