"""Decoders: texts from frames, one token after the other.

Both kinds have `forward` for a whole text at once, and `start` with `read` for one token at a time.
Letters: B lines, T frames, L tokens, D width, V token ids, E width of an embedding.
"""

import math
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from khmer_ocr.model.attention import Attention, FeedForward, Half, rotate, sinusoids
from khmer_ocr.model.masks import inside
from khmer_ocr.model.presets import ModelConfig


@dataclass
class Memory:
    """What the encoder hands on.

    Attributes:
        frames_BTD: frames; those beyond a line's count mean nothing.
        frame_count_B: int64.
        kept: what the decoder made of the frames, where it does not learn: it is asked about several texts of a line.
    """

    frames_BTD: Tensor
    frame_count_B: Tensor
    kept: list[tuple[Tensor, Tensor]] | None = None

    def rows(self, choice: Tensor) -> "Memory":
        """Lines by number, which may repeat."""
        return Memory(self.frames_BTD[choice], self.frame_count_B[choice])


class Past:
    """Keys and values of the tokens so far, in memory that is allocated ahead."""

    def __init__(self, key_BNLD: Tensor, value_BNLD: Tensor, length: int) -> None:
        self._held, self.length = (key_BNLD, value_BNLD), length

    def grown(self, key_BNLD: Tensor, value_BNLD: Tensor) -> "Past":
        """Those of the next tokens behind these; they share memory, so that only one way on may be taken."""
        last = self.length + key_BNLD.shape[2]
        if last > self._held[0].shape[2]:
            more = (0, 0, 0, max(last, _LEAST_ROOM))
            self._held = F.pad(self._held[0], more), F.pad(self._held[1], more)
        for held, now in zip(self._held, (key_BNLD, value_BNLD), strict=True):
            held[:, :, self.length : last] = now
        return Past(*self._held, last)

    def keys_values(self) -> tuple[Tensor, Tensor]:
        """Keys and values, each (B, heads, length, D)."""
        return self._held[0][:, :, : self.length], self._held[1][:, :, : self.length]

    def __getitem__(self, choice: Tensor) -> "Past":
        return Past(self._held[0][choice], self._held[1][choice], self.length)


@dataclass
class State:
    """A decoder in the middle of its texts: what it keeps of the frames, and of the tokens so far.

    From one state only one way on may be taken; for several, take `rows` that repeat before.
    """

    memory: Memory
    length: int = 0
    kept: list[Any] = field(default_factory=list)

    def rows(self, choice: Tensor) -> "State":
        """States by number, which may repeat: how a beam follows its best."""
        return State(self.memory.rows(choice), self.length, [_pick(each, choice) for each in self.kept])


_LEAST_ROOM = 32
"""Tokens that memory for keys and values grows by, at least."""


def _pick(kept: Any, choice: Tensor) -> Any:
    if isinstance(kept, tuple):
        return tuple(_pick(each, choice) for each in kept)
    return kept[choice]


class DecoderLayer(nn.Module):
    """Self-attention, attention to the frames, a feed-forward layer; each after a norm, beside the identity."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.past_norm, self.frame_norm, self.forward_norm = (nn.LayerNorm(width) for _ in range(3))
        self.past = Attention(width, config.heads, config.dropout)
        self.frames = Attention(width, config.heads, config.dropout)
        self.feed_forward: nn.Module = FeedForward(width, config.expansion, config.dropout)
        self.drop = nn.Dropout(config.dropout)

    def halve(self) -> None:
        """Multiply by weights in bfloat16."""
        self.past.halve()
        self.frames.halve()
        self.feed_forward = Half(self.feed_forward)

    def forward(
        self,
        x_BLD: Tensor,
        past: Past | None,
        frames: tuple[Tensor, Tensor],
        inside_B11T: Tensor,
        weights: list[Tensor] | None,
    ) -> tuple[Tensor, Past]:
        """Go on by L tokens; `past` is what is kept of those before, and comes back with these added."""
        y, first = self.past_norm(x_BLD), 0 if past is None else past.length
        query = rotate(self.past.split(self.past.query(y)), first)
        key, value = self.past.keys_values(y)
        key = rotate(key, first)
        now = Past(key, value, key.shape[2]) if past is None else past.grown(key, value)
        x = x_BLD + self.drop(self.past.attend(query, *now.keys_values(), None, causal=past is None))
        query = self.frames.split(self.frames.query(self.frame_norm(x)))
        if weights is not None:
            agreement = query @ frames[0].transpose(2, 3) / math.sqrt(query.shape[-1])
            weights.append(agreement.masked_fill(~inside_B11T, -math.inf).softmax(-1).mean(1))
        x = x + self.drop(self.frames.attend(query, *frames, inside_B11T))
        return x + self.drop(self.feed_forward(self.forward_norm(x))), now


class TransformerDecoder(nn.Module):
    """Layers of attention; the embedding of tokens is also what their scores are read off with."""

    def __init__(self, config: ModelConfig, vocabulary: int) -> None:
        super().__init__()
        width = config.width
        self.embedding = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.scale = math.sqrt(width)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.norm, self.bias = nn.LayerNorm(width), nn.Parameter(torch.zeros(vocabulary))
        self.drop = nn.Dropout(config.dropout)

    def halve(self) -> None:
        """Multiply by weights in bfloat16; scores are still read off in float32."""
        for layer in cast(list[DecoderLayer], self.layers):
            layer.halve()

    def _frames(self, memory: Memory) -> list[tuple[Tensor, Tensor]]:
        learns = torch.is_grad_enabled()
        if memory.kept is not None and not learns:
            return memory.kept
        # Frames know where they stand through these sinusoids, so that a query can move on by distance.
        frames = memory.frames_BTD + sinusoids(0, memory.frames_BTD.shape[1], memory.frames_BTD)
        found = [layer.frames.keys_values(frames) for layer in cast(list[DecoderLayer], self.layers)]
        if not learns:
            memory.kept = found
        return found

    def _run(
        self, tokens_BL: Tensor, first: int, pasts: list[Any], frames: list[Any], inside_BT: Tensor, weights: Any
    ) -> tuple[Tensor, list[Any]]:
        x = self.embedding(tokens_BL) * self.scale
        x = self.drop(x + sinusoids(first, first + x.shape[1], x))
        now = []
        for at, layer in enumerate(self.layers):
            last = weights if at == len(self.layers) - 1 else None
            x, past = layer(x, pasts[at], frames[at], inside_BT[:, None, None], last)
            now.append(past)
        return F.linear(self.norm(x), self.embedding.weight, self.bias), now

    def forward(
        self, memory: Memory, tokens_BL: Tensor, weights: list[Tensor] | None = None, rows_B: Tensor | None = None
    ) -> Tensor:
        """Score every next token of texts that are known.

        Args:
            memory: encoded lines.
            tokens_BL: int64 ids, `<sos>` first.
            weights: gets where the last layer looked, (B, L, T).
            rows_B: int64, the line that each text is of, where lines have several or none; None: one each, in order.

        Returns:
            Scores (B, L, V): [:, i] is for the token after tokens 0 to i.
        """
        inside_BT, frames = inside(memory.frame_count_B, memory.frames_BTD.shape[1]), self._frames(memory)
        if rows_B is not None:
            inside_BT, frames = inside_BT[rows_B], [(key[rows_B], value[rows_B]) for key, value in frames]
        return self._run(tokens_BL, 0, [None] * len(self.layers), frames, inside_BT, weights)[0]

    def start(self, memory: Memory) -> State:
        """Begin texts of encoded lines."""
        # Every step reads all of them: laid out once as products want them.
        kept = [(key.contiguous(), value.contiguous()) for key, value in self._frames(memory)]
        return State(memory, 0, [(None, *frames) for frames in kept])

    def read(self, state: State, tokens_BL: Tensor) -> tuple[Tensor, State]:
        """Read tokens, several only at the beginning; scores (B, V) of the next, and the state then."""
        assert tokens_BL.shape[1] == 1 or not state.length
        inside_BT = inside(state.memory.frame_count_B, state.memory.frames_BTD.shape[1])
        pasts, frames = [kept[0] for kept in state.kept], [kept[1:] for kept in state.kept]
        scores, now = self._run(tokens_BL, state.length, pasts, frames, inside_BT, None)
        length = state.length + tokens_BL.shape[1]
        return scores[:, -1], State(state.memory, length, [(a, *b) for a, b in zip(now, frames, strict=True)])


class GruDecoder(nn.Module):
    """A GRU cell that looks at the frames by additive attention (Bahdanau et al., 2015) before each token."""

    def __init__(self, config: ModelConfig, vocabulary: int) -> None:
        super().__init__()
        width, embedding = config.width, config.embedding
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.of_frame, self.of_state = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.agreement = nn.Linear(width, 1, bias=False)
        self.cell = nn.GRUCell(embedding + width, width)
        self.out = nn.Linear(2 * width + embedding, vocabulary)
        self.drop = nn.Dropout(config.dropout)

    def halve(self) -> None:
        """Nothing: a step is too small to gain."""

    def start(self, memory: Memory) -> State:
        """Begin texts of encoded lines."""
        frames = memory.frames_BTD
        return State(memory, 0, [(frames.new_zeros(len(frames), frames.shape[2]), self.of_frame(frames))])

    def _step(self, state: State, token_B: Tensor, weights: list[Tensor] | None = None) -> tuple[Tensor, State]:
        (hidden_BD, of_frame_BTD), memory = state.kept[0], state.memory
        energy_BT = self.agreement(torch.tanh(of_frame_BTD + self.of_state(hidden_BD)[:, None])).squeeze(2)
        beyond_BT = ~inside(memory.frame_count_B, energy_BT.shape[1])
        weight_BT = energy_BT.masked_fill(beyond_BT, -math.inf).softmax(1)
        if weights is not None:
            weights.append(weight_BT)
        context_BD = (weight_BT[:, None] @ memory.frames_BTD).squeeze(1)
        token_BE = self.drop(self.embedding(token_B))
        hidden_BD = self.cell(torch.cat([token_BE, context_BD], 1), hidden_BD)
        scores = self.out(self.drop(torch.cat([hidden_BD, context_BD, token_BE], 1)))
        return scores, State(memory, state.length + 1, [(hidden_BD, of_frame_BTD)])

    def read(self, state: State, tokens_BL: Tensor) -> tuple[Tensor, State]:
        """Read tokens, at least one; scores (B, V) of the next, and the state then."""
        for token_B in tokens_BL.unbind(1):
            scores, state = self._step(state, token_B)
        return scores, state

    def forward(
        self, memory: Memory, tokens_BL: Tensor, weights: list[Tensor] | None = None, rows_B: Tensor | None = None
    ) -> Tensor:
        """Score every next token of texts that are known; see `TransformerDecoder.forward`."""
        if rows_B is not None:
            memory = memory.rows(rows_B)
        state, all_scores = self.start(memory), []
        looks: list[Tensor] | None = None if weights is None else []
        for token_B in tokens_BL.unbind(1):
            scores, state = self._step(state, token_B, looks)
            all_scores.append(scores)
        if weights is not None and looks:
            weights.append(torch.stack(looks, 1))
        return torch.stack(all_scores, 1)
