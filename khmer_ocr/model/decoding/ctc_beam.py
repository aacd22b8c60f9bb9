"""CTC's best texts by prefix beam search, in a compiled loop.

Hannun et al., "First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs", 2014.
Letters: S slots, V token ids, O likely symbols of a slot, N nodes of the tree of prefixes, K texts kept.
"""

import numpy as np
from khmer_ocr_kernels.arrays import F32, F64, I32, I64
from khmer_ocr_kernels.jit import compiled

_NONE = -1
_NEVER = -1e30
_PRUNED = -9.0
"""Symbols less likely than this in a slot (log-probability) open no new prefix there,"""
_OPENED = 7
"""and of the others only so many of the likeliest."""
_DROPPED = 30.0
"""Alignments less likely than the best by this after a slot are left out."""


@compiled
def _add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    low, high = min(a, b), max(a, b)
    return high if low <= _NEVER else high + np.log1p(np.exp(low - high))


@compiled
def _likely(log_prob_V: F32, likely_O: I64) -> int:
    """Write the likeliest symbols, best first; returns how many."""
    found = 0
    for token in range(1, len(log_prob_V)):
        score = log_prob_V[token]
        if score < _PRUNED or (found == len(likely_O) and score <= log_prob_V[likely_O[found - 1]]):
            continue
        found = min(found + 1, len(likely_O))
        at = found - 1
        while at and log_prob_V[likely_O[at - 1]] < score:
            likely_O[at] = likely_O[at - 1]
            at -= 1
        likely_O[at] = token
    return found


@compiled
def _search(log_prob_SV: F32, beam: int) -> tuple[I32, I32, I32, F64]:
    """Tree of prefixes (parent, token) and the best nodes with their log-probabilities, best first."""
    slots = len(log_prob_SV)
    likely_O = np.empty(_OPENED, np.int64)
    size = 1 + slots * beam * _OPENED
    parent_N, token_N = np.full(size, _NONE, np.int32), np.zeros(size, np.int32)
    child_N, sibling_N = np.full(size, _NONE, np.int32), np.full(size, _NONE, np.int32)
    # Log-probability of a prefix that ends in a blank, or in its last symbol; the second row is of the next slot.
    blank_2N, symbol_2N = np.full((2, size), _NEVER), np.full((2, size), _NEVER)
    stamp_N = np.full(size, -1, np.int32)
    nodes = 1
    kept, count = np.zeros(beam, np.int32), 1
    blank_2N[0, 0] = 0.0
    reached = np.zeros(beam * (1 + _OPENED), np.int32)
    for s in range(slots):
        now, then, found = s % 2, 1 - s % 2, 0
        opened = _likely(log_prob_SV[s], likely_O)
        for k in range(count):
            node = kept[k]
            both = _add(blank_2N[now, node], symbol_2N[now, node])
            last = token_N[node]
            if stamp_N[node] != s:
                stamp_N[node] = s
                blank_2N[then, node], symbol_2N[then, node] = _NEVER, _NEVER
                reached[found] = node
                found += 1
            blank_2N[then, node] = _add(blank_2N[then, node], both + log_prob_SV[s, 0])
            if node:
                stay = symbol_2N[now, node] + log_prob_SV[s, last]
                symbol_2N[then, node] = _add(symbol_2N[then, node], stay)
        for k in range(count):
            node = kept[k]
            both = _add(blank_2N[now, node], symbol_2N[now, node])
            for token in likely_O[:opened]:
                gain = blank_2N[now, node] if node and token == token_N[node] else both
                if gain <= _NEVER:
                    continue
                child = child_N[node]
                while child != _NONE and token_N[child] != token:
                    child = sibling_N[child]
                if child == _NONE:
                    child = nodes
                    nodes += 1
                    parent_N[child], token_N[child] = node, token
                    sibling_N[child], child_N[node] = child_N[node], child
                if stamp_N[child] != s:
                    stamp_N[child] = s
                    blank_2N[then, child], symbol_2N[then, child] = _NEVER, _NEVER
                    reached[found] = child
                    found += 1
                symbol_2N[then, child] = _add(symbol_2N[then, child], gain + log_prob_SV[s, token])
        total = np.empty(found)
        for r in range(found):
            total[r] = -_add(blank_2N[then, reached[r]], symbol_2N[then, reached[r]])
        order = np.argsort(total, kind="mergesort")
        count = min(beam, found)
        for k in range(count):
            kept[k] = reached[order[k]]
    score = np.empty(count)
    for k in range(count):
        score[k] = _add(blank_2N[slots % 2, kept[k]], symbol_2N[slots % 2, kept[k]])
    return parent_N[:nodes], token_N[:nodes], kept[:count].copy(), score


def prefix_beam_search(log_prob_SV: F32, beam: int) -> list[tuple[list[int], float]]:
    """Find the likeliest texts of one line.

    Args:
        log_prob_SV: float32 log-probabilities of its own slots, blank first.
        beam: prefixes kept after every slot, at least 1.

    Returns:
        At most `beam` pairs of token ids and log-probability (a lower bound, as alignments are pruned), best first.
    """
    if not len(log_prob_SV):
        return [([], 0.0)]
    parent_N, token_N, kept_K, score_K = _search(np.ascontiguousarray(log_prob_SV), beam)
    found = []
    for node, score in zip(kept_K.tolist(), score_K.tolist(), strict=True):
        ids = []
        while node:
            ids.append(int(token_N[node]))
            node = int(parent_N[node])
        found.append((ids[::-1], score))
    return found


@compiled
def _forward(log_prob_SV: F32, ids_L: I64) -> float:
    """CTC's forward sum over the alignments of a text."""
    slots, tokens = len(log_prob_SV), len(ids_L)
    blank_L, symbol_L = np.full(tokens + 1, _NEVER), np.full(tokens + 1, _NEVER)
    blank_L[0] = 0.0
    low, high = 0, 0  # places that matter: what is left behind or ahead of them by too much is dropped
    for s in range(slots):
        best = _NEVER
        # From the end: what stands before a place is still of the slot before.
        high = min(high + 1, tokens)
        for at in range(high, low - 1, -1):
            both = _add(blank_L[at], symbol_L[at])
            if at > low:
                token = ids_L[at - 1]
                come = blank_L[at - 1]
                if at == 1 or ids_L[at - 2] != token:
                    come = _add(come, symbol_L[at - 1])
                symbol_L[at] = _add(symbol_L[at], come) + log_prob_SV[s, token]
            elif at:
                symbol_L[at] += log_prob_SV[s, ids_L[at - 1]]
            blank_L[at] = both + log_prob_SV[s, 0]
            best = max(best, blank_L[at], symbol_L[at])
        while low < high and max(blank_L[low], symbol_L[low]) < best - _DROPPED:
            low += 1
        while high > low and max(blank_L[high], symbol_L[high]) < best - _DROPPED:
            blank_L[high], symbol_L[high] = _NEVER, _NEVER
            high -= 1
    return _add(blank_L[tokens], symbol_L[tokens]) if high == tokens else _NEVER


def ctc_score(log_prob_SV: F32, ids: list[int]) -> float:
    """Log-probability of a text: the sum over its alignments; about -1e30 where there is none, or none that is likely.

    Alignments that fall behind the text's best by more than 30 on their way are left out.

    Args:
        log_prob_SV: float32 log-probabilities of a line's slots, blank first.
        ids: its tokens.
    """
    return float(_forward(log_prob_SV, np.array(ids, np.int64)))
