"""Fill-in-the-middle on single fragments (the text of one file): tokens in, tokens of the treated fragment out.

Two cuts are drawn, each uniform over the places between characters, ends included, and sorted (Bavarian et al. 2022,
arXiv:2207.14255; Megatron-LM's fork of BigCode). With prefix, middle and suffix of the text:

    PSM   <fim_prefix> prefix <fim_suffix> suffix <fim_middle> middle
    SPM   <fim_prefix> <fim_suffix> suffix <fim_middle> prefix+middle      (variant 2)

The three parts of PSM are encoded each by itself; in SPM prefix and middle are one text, as in Code Llama, so that no break
of tokens tells where the middle begins. A part ends as a text does. Sentinels enter as ids; their letters in a text stay
letters. A fragment is treated whole or left alone, with a code that says why.

Byte-level BPE works word by word, so that only words that are none of the whole text are encoded anew: those at the cuts.
Where tokens are not those that this tokenizer gives for the text, that would be wrong, and the fragment is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stackbuild.errors import InputError
from stackbuild.tokens import counter, fim_kernels
from stackbuild.tokens.bpe import Vocabulary
from stackbuild.tokens.encode import Encoder
from stackbuild.tokens.fast import FastEncoder, alphabet
from stackbuild.tokens.fast_words import SLACK, word_starts
from stackbuild.tokens.fim_kernels import NOT_IDENTITY, PARTS, TREATED
from stackbuild.tokens.fim_library import treat_by_library
from stackbuild.tokens.fim_options import FimOptions
from stackbuild.tokens.fim_trees import Asked, nodes
from stackbuild.tokens.fim_types import AST, I64, NO_NODE, SPM, U64, Draws, Ids, Treated

PIECES = 16  # of a fragment, at first; most have five, two of them words


def draws(key: int, epoch: Any, document: Any, fragment: Any) -> Draws:
    """The draws for fragments; arguments as `counter.bits` has them, n or one of each."""
    shape = np.broadcast_shapes(np.shape(epoch), np.shape(document), np.shape(fragment)) or (1,)
    fields = (counter.FIRST_CUT, counter.SECOND_CUT, counter.SPM_COIN, counter.AST_COIN)
    return Draws(
        *(np.broadcast_to(counter.bits(key, epoch, document, fragment, field), shape).copy() for field in fields)
    )


def sentinel_ids(vocabulary: Vocabulary) -> tuple[int, int, int]:
    """The ids of prefix, suffix and middle, whether they are written `<fim_prefix>` or `<fim-prefix>`. InputError if
    the tokenizer has neither."""
    for names in (("<fim_prefix>", "<fim_suffix>", "<fim_middle>"), ("<fim-prefix>", "<fim-suffix>", "<fim-middle>")):
        if all(name in vocabulary.sentinels for name in names):
            prefix, suffix, middle = (vocabulary.sentinels[name] for name in names)
            return prefix, suffix, middle
    raise InputError(
        f"{vocabulary.path} has no special tokens <fim_prefix>, <fim_suffix>, <fim_middle> (or with hyphens), which "
        "fill-in-the-middle writes. Use a tokenizer that has them, or set the rate of fill-in-the-middle to 0."
    )


class Infiller:
    """Treats fragments of the tokens of one tokenizer, in this thread alone.

    `check`: encode every fragment's text to see whether its tokens are those of this tokenizer, whoever made them. False
    is for shards that this package wrote with it: what is looked at then is only that no token crosses a place where
    something changes.
    Without the fast backend parts are encoded whole by the library, and the check is always made.
    """

    def __init__(self, encoder: Encoder, options: FimOptions | None = None, *, check: bool = True):
        self.encoder, self.options, self.check = encoder, options or FimOptions(), check
        self.sentinels = np.array(sentinel_ids(encoder.vocabulary), np.int64)
        if encoder.fast is not None:
            self._lengths, self._places, self._bytes = token_table(encoder.vocabulary)

    def treat(
        self, ids: Ids, first: int, second: int, spm: int, room: int, *, ast: int = 0, language: str | None = None
    ) -> tuple[Ids | None, int]:
        """One fragment: its tokens, or None if it is not treated; and the code. Draws are uint64; see `treat_many`."""
        bits = Draws(*(np.array([number], np.uint64) for number in (first, second, spm, ast)))
        done = self.treat_many(ids, np.array([0, len(ids)]), bits, room, [language])
        code = int(done.codes[0])
        return (done.ids if code == TREATED else None), code

    def treat_many(
        self, ids: Ids, offsets: I64, bits: Draws, room: Any, languages: Sequence[str | None] | None = None
    ) -> Treated:
        """Treat n fragments: `ids[offsets[k]:offsets[k + 1]]`, uint16 or int32, each the text of one file and nothing else.

        `room`: tokens by which a fragment may grow, three sentinels included; an integer, or int64 of shape (n,).
        `languages` (as enry names them) are asked for with mode = "ast" alone. What becomes of a fragment does not
        depend on the others. ValueError for arrays of wrong shapes; InputError if a sentinel does not fit the type of `ids`.
        """
        ids, offsets, rooms = self._checked(ids, offsets, bits, room, languages)
        n = len(offsets) - 1
        codes = np.zeros(n, np.int8)
        kinds = np.where(counter.happens(bits.spm, self.options.spm_rate), SPM, 0).astype(np.uint8)
        wanted = self.options.mode == "ast" and counter.happens(bits.ast, self.options.ast_share)
        asked = [
            None if languages is None or not wants else languages[k]
            for k, wants in enumerate(np.broadcast_to(wanted, n).tolist())
        ]
        kinds |= np.where(wanted, NO_NODE, 0).astype(np.uint8)
        if self.encoder.fast is None:
            done = treat_by_library(
                self.encoder,
                self.options.min_characters,
                self.sentinels,
                ids,
                offsets,
                bits,
                rooms,
                kinds,
                asked,
                codes,
            )
        else:
            done = self._treat(self.encoder.fast, ids, offsets, bits, rooms, kinds, asked, codes)
        kinds[codes != TREATED] = 0
        return done

    def _checked(
        self, ids: Ids, offsets: I64, bits: Draws, room: Any, languages: Sequence[str | None] | None
    ) -> tuple[Ids, I64, I64]:
        """The arguments in one piece, offsets from 0, and of one type, so that kernels are compiled once."""
        offsets = np.asarray(offsets, np.int64)
        n = len(offsets) - 1
        if n < 0 or np.any(np.diff(offsets) < 0) or (n >= 0 and not 0 <= offsets[0] <= offsets[-1] <= len(ids)):
            raise ValueError("offsets rise from 0 to the number of ids")
        if any(array.shape != (n,) for array in bits) or (languages is not None and len(languages) != n):
            raise ValueError(f"{n} fragments have {n} draws of each kind, and {n} languages")
        if ids.dtype not in (np.uint16, np.int32):
            raise ValueError(f"ids are uint16 or int32, not {ids.dtype}")
        if int(self.sentinels.max()) > np.iinfo(ids.dtype).max:
            raise InputError(f"{self.encoder.vocabulary.path}: a sentinel's id does not fit {ids.dtype} tokens")
        ids = np.ascontiguousarray(ids[offsets[0] : offsets[-1]]).view()
        ids.flags.writeable = False
        return ids, offsets - offsets[0], np.ascontiguousarray(np.broadcast_to(np.asarray(room, np.int64), n))

    def _treat(
        self,
        fast: FastEncoder,
        ids: Ids,
        offsets: I64,
        bits: Draws,
        rooms: I64,
        kinds: npt.NDArray[np.uint8],
        asked: Sequence[str | None],
        codes: npt.NDArray[np.int8],
    ) -> Treated:
        n = len(codes)
        begins, bounds = np.empty(len(ids) + 1, np.int64), np.empty(n + 1, np.int64)
        fim_kernels.measure(ids, offsets, self._lengths, begins, bounds, codes)
        data = np.zeros(int(bounds[-1]) + SLACK, np.uint8)
        fim_kernels.decode(ids, offsets, codes, begins, self._lengths, self._places, self._bytes, data)
        counts = np.empty(n, np.int64)
        fim_kernels.characters(data, bounds, self.options.min_characters, counts, codes)
        data.flags.writeable = False
        if self.check:
            fim_kernels.compare(ids, offsets, *fast.encode_bytes(data, bounds), codes)

        cuts = np.empty((n, 2), np.int64)
        fim_kernels.character_cuts(data, bounds, counts, codes, bits.first, bits.second, cuts)
        chosen = [k for k, language in enumerate(asked) if language is not None and codes[k] == TREATED]
        if chosen:
            view = memoryview(data.data)
            files = [
                Asked(asked[k] or "", view[bounds[k] : bounds[k + 1]], int(bits.first[k]), int(bits.second[k]))
                for k in chosen
            ]
            for k, span in zip(chosen, nodes(files), strict=True):
                if span is not None:
                    cuts[k] = bounds[k] + span[0], bounds[k] + span[1]
                    kinds[k] ^= AST | NO_NODE

        borders = np.empty(PARTS * n + 1, np.int64)
        borders[0:-1:3] = bounds[:-1]
        borders[1::3] = np.where(kinds & SPM, bounds[:-1], cuts[:, 0])  # in SPM the prefix is part of the middle
        borders[2::3] = cuts[:, 1]
        borders[-1] = bounds[-1]
        whole, parts = self._starts(fast, data, bounds), self._starts(fast, data, borders)
        ends = np.empty(PARTS * n, np.int64)
        room, made = PIECES * n + 1, np.empty(2, np.int64)
        while True:
            pieces, words = np.empty((room, 2), np.int64), np.empty((room, 3), np.int64)
            if fim_kernels.plan(whole, parts, bounds, borders, offsets, begins, codes, ends, pieces, words, made):
                break
            room *= 2
        words = words[: made[1]]

        places = np.concatenate([np.zeros(1, np.int64), np.cumsum(words[:, 1] - words[:, 0])])
        gathered = np.zeros(int(places[-1]) + SLACK, np.uint8)
        fim_kernels.gather(data, words, places, gathered)
        word_ids, word_ends = fast.encode_bytes(gathered, places)
        if fast.whole_words:  # a word could be a sentinel's name
            found = np.flatnonzero(self.encoder.vocabulary.is_sentinel[word_ids])
            codes[words[np.searchsorted(word_ends, found, "right") - 1, 2]] = NOT_IDENTITY
        out_offsets = np.empty(n + 1, np.int64)
        tokens, anew = fim_kernels.sizes(pieces, ends, word_ends, offsets, rooms, codes, out_offsets)
        out = np.empty(int(out_offsets[-1]), ids.dtype)
        fim_kernels.assemble(ids, offsets, pieces, ends, word_ids, word_ends, self.sentinels, codes, out)
        return Treated(out, out_offsets, codes, kinds, int(tokens), int(anew))

    def _starts(self, fast: FastEncoder, data: Any, bounds: I64) -> U64:
        bounds = bounds.view()
        bounds.flags.writeable = False  # as `FastEncoder` has it, so that the kernel is compiled once
        starts = np.empty((int(bounds[-1]) >> 6) + 1, np.uint64)
        wrong = int(word_starts(data, bounds, fast.digits_apart, *fast.tables, starts))
        if wrong >= 0:
            raise AssertionError(f"a cut within a character, at byte {wrong}")
        return starts


def token_table(vocabulary: Vocabulary) -> tuple[npt.NDArray[np.int32], I64, npt.NDArray[np.uint8]]:
    """What each token of a byte-level tokenizer stands for: its length in bytes, its place, and the bytes of all.

    Shapes (size,), (size,), (bytes + 8,). The length is 0 for sentinels, for ids without a token, and for tokens that no
    text becomes.
    """
    of = {character: byte for byte, character in enumerate(alphabet())}
    lengths, places = np.zeros(vocabulary.size, np.int32), np.zeros(vocabulary.size, np.int64)
    data = bytearray()
    for token, number in vocabulary.spec["model"]["vocab"].items():
        if not vocabulary.is_sentinel[number] and all(character in of for character in token):
            lengths[number], places[number] = len(token), len(data)
            data += bytes(of[character] for character in token)
    return lengths, places, np.frombuffer(bytes(data) + bytes(8), np.uint8)
