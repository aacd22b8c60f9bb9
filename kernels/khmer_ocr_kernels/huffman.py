"""Prefix codes made for one image: the lengths that suit its counts best, and deflate's canonical codes of them.

Source: Moffat and Katajainen, "In-place calculation of minimum-redundancy codes" (1995); RFC 1951, 3.2.2. A code that
grows longer than its format allows is made again from halved counts. Sorting and pairing do without branches that
depend on the data: on a quarter of a thousand symbols a processor's wrong guesses cost more than the work.

Letters: S symbols.
"""

import numpy as np

from khmer_ocr_kernels.arrays import I64
from khmer_ocr_kernels.jit import compiled

MAX_BITS = 15
_TURNED = np.array([int(f"{byte:08b}"[::-1], 2) for byte in range(256)])


@compiled
def _by_weight(count_S: I64) -> I64:
    """Symbols that occur, rarest first, ties by number: a radix sort, for its time does not depend on luck."""
    order, other = np.empty(len(count_S), np.int64), np.empty(len(count_S), np.int64)
    n, heaviest = 0, 0
    for symbol in range(len(count_S)):
        order[n] = symbol
        n += count_S[symbol] > 0
        heaviest = max(heaviest, count_S[symbol])
    shift = 0
    while heaviest >> shift:
        place = np.zeros(257, np.int64)
        for i in range(n):
            place[1 + (count_S[order[i]] >> shift & 255)] += 1
        for digit in range(255):
            place[digit + 1] += place[digit]
        for i in range(n):
            digit = count_S[order[i]] >> shift & 255
            other[place[digit]] = order[i]
            place[digit] += 1
        order, other = other, order
        shift += 8
    return order[:n]


@compiled
def _depths(weight: I64) -> None:
    """Turn weights, lightest first, into the depths of a tree of least weighted depth; at least two."""
    n = len(weight)
    leaf, root = 2, 0  # pair the two lightest, leaves or trees; the slot of a paired tree then holds its parent
    weight[0] += weight[1]
    for tree in range(1, n - 1):
        total = np.int64(0)
        for _ in range(2):
            at_leaf = min(leaf, n - 1)
            is_tree = leaf >= n or (root < tree and weight[root] < weight[at_leaf])
            at = root if is_tree else at_leaf
            total += weight[at]
            weight[at] = tree if is_tree else weight[at]
            root += is_tree
            leaf += not is_tree
        weight[tree] = total
    weight[n - 2] = 0
    for tree in range(n - 3, -1, -1):
        weight[tree] = weight[weight[tree]] + 1
    slots, depth, tree, put = 1, 0, n - 2, n - 1
    while slots:
        trees = 0
        while tree >= 0 and weight[tree] == depth:
            trees += 1
            tree -= 1
        for _ in range(slots - trees):
            weight[put] = depth
            put -= 1
        slots = 2 * trees
        depth += 1


@compiled
def code_lengths(count_S: I64, most_bits: int, bits_S: I64) -> None:
    """Lengths of the best prefix code for these counts; a symbol never seen has none."""
    bits_S[:] = 0
    order = _by_weight(count_S)
    depth = np.ones(len(order), np.int64)
    if len(order) > 2:
        shift = 0
        depth[0] = most_bits + 1
        while depth[0] > most_bits:  # the rarest is the deepest
            for i in range(len(order)):
                depth[i] = max(count_S[order[i]] >> shift, 1)
            _depths(depth)
            shift += 1
    for i in range(len(order)):
        bits_S[order[i]] = depth[i]


@compiled
def codes(bits_S: I64, code_S: I64) -> None:
    """Canonical codes of these lengths (RFC 1951, 3.2.2), turned round: deflate writes their first bit first."""
    count, first = np.zeros(MAX_BITS + 1, np.int64), np.zeros(MAX_BITS + 1, np.int64)
    for bits in bits_S:
        count[bits] += 1
    count[0] = 0
    for bits in range(1, MAX_BITS + 1):
        first[bits] = first[bits - 1] + count[bits - 1] << 1
    for symbol in range(len(bits_S)):
        code = first[bits_S[symbol]]
        first[bits_S[symbol]] += 1
        code_S[symbol] = (_TURNED[code & 255] << 8 | _TURNED[code >> 8]) >> (16 - bits_S[symbol])
