"""Text-line images as zlib streams: one compiled pass finds repeats, a second writes them in a code made for the image.

A line image is white runs and upright strokes, so only two distances are ever looked at: the byte before (a run) and
the byte above (a stroke). That leaves one distance bit a match and no hash tables.

It stays because equal pixels must give equal bytes on every machine, which is what resuming, sharding and repair rest
on. Here bytes depend on nothing but the pixels: no library version, processor or address; ISA-L did not always give
equal bytes. What that costs, by benchmarks/bench_deflate.py over 512 lines of 32 px on one core of an AMD EPYC (time is
the median ratio to ours of 7 rounds on a busy machine; spread and versions in benchmarks/results/deflate.json):

```
                clean lines            lines of the recipe basic
                time   bytes a line    time   bytes a line
ours            1.00   2856            1.00   5449
ISA-L 0         0.47   3222            0.54   6968
ISA-L 1         1.01   2720            0.98   5440
zlib-ng 1       0.86   3131            1.25   6709
zlib-ng 6       4.38   2552            3.36   5348
```

Formats: RFC 1950 (zlib, Adler-32) and RFC 1951 (deflate).
"""

import numpy as np

from khmer_ocr_kernels.arrays import I64, U8, U16, U64
from khmer_ocr_kernels.huffman import MAX_BITS, code_lengths, codes
from khmer_ocr_kernels.jit import compiled
from khmer_ocr_kernels.numba_intrinsics import load_u64, store_u64, trailing_zeros

PADDING = 8  # bytes that must be readable behind the data
_MIN_MATCH, _MAX_MATCH, _MAX_DISTANCE = 3, 258, 32768
_END = 256  # the symbol that ends a block
_SYMBOLS = 286  # literals, end of block, lengths
_TOKENS = 256 + 2 * (_MAX_MATCH + 1)  # a literal, or 256 + 2 * length + (0 run, 1 above)
_MAX_HEADER_BITS = 7
_ADLER = 65521


def _code_of(first: int, first_code: int, groups: tuple[int, ...], per_group: int, most: int) -> I64:
    """Rows (symbol, extra bits, their value) for each length or distance up to `most` (tables of RFC 1951, 3.2.5)."""
    table = np.zeros((most + 1, 3), np.int64)
    value, code = first, first_code
    for bits in groups:
        for _ in range(per_group):
            for n in range(1 << bits):
                if value <= most:
                    table[value] = code, bits, n
                value += 1
            code += 1
    return table


_LENGTHS = _code_of(_MIN_MATCH, 257, (0, 0, 1, 2, 3, 4, 5), 4, _MAX_MATCH)
_LENGTHS[_MAX_MATCH] = 285, 0, 0
_DISTANCES = _code_of(1, 0, (0, *range(14)), 2, _MAX_DISTANCE)
_HEADER_ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15])


@compiled
def most_bytes(length: int) -> int:
    """Room that `deflate` needs for data of this length, with its zlib header and checksum, in bytes."""
    return length * MAX_BITS // 8 + 600


@compiled
def adler32(data: U8, begin: int, end: int) -> np.uint32:
    """Adler-32 of data[begin:end]: eight sums at once in the 16-bit lanes of two words, for 128 bytes at a time."""
    low, high = np.uint64(1), np.uint64(0)
    lanes = np.uint64(0x00FF00FF00FF00FF)
    at = begin
    while at + 128 <= end:
        even, odd, evens, odds = np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(0)
        for i in range(at, at + 128, 8):
            word = load_u64(data, i)
            evens += even
            odds += odd
            even += word & lanes
            odd += word >> np.uint64(8) & lanes
        high += np.uint64(128) * low
        for lane in range(4):
            shift = np.uint64(16 * lane)
            mask = np.uint64(0xFFFF)
            high += np.uint64(8) * ((evens >> shift & mask) + (odds >> shift & mask))
            high += np.uint64(8 - 2 * lane) * (even >> shift & mask) + np.uint64(7 - 2 * lane) * (odd >> shift & mask)
            low += (even >> shift & mask) + (odd >> shift & mask)
        low %= np.uint64(_ADLER)
        high %= np.uint64(_ADLER)
        at += 128
    for i in range(at, end):
        low += np.uint64(data[i])
        high += low
    return np.uint32(high % np.uint64(_ADLER) << np.uint64(16) | low % np.uint64(_ADLER))


@compiled
def _same(data: U8, at: int, distance: int, most: int) -> int:
    """How many bytes from `at` on equal those `distance` before them; the first eight do."""
    length = 8
    while length < most:
        different = load_u64(data, at + length) ^ load_u64(data, at + length - distance)
        if different:
            return length + int(trailing_zeros(different) >> 3)
        length += 8
    return length


@compiled
def _tokenise(data: U8, begin: int, end: int, above: int, tokens: U16, counts: I64) -> int:
    """Cover data[begin:end] with literals and matches, longest first; returns how many, with their counts."""
    tokens[0] = data[begin]
    counts[data[begin]] += 1
    n, at = 1, begin + 1
    while at < end:
        word = load_u64(data, at)
        upper = above if at >= begin + above else 1
        run = trailing_zeros(word ^ load_u64(data, at - 1)) >> 3
        stroke = trailing_zeros(word ^ load_u64(data, at - upper)) >> 3
        token, length = int(np.int64(word & np.uint64(255))), 1
        if max(run, stroke) >= _MIN_MATCH:
            most = min(_MAX_MATCH, end - at)
            if run == 8:
                run = _same(data, at, 1, most)
            if stroke == 8 and run < most:
                stroke = _same(data, at, upper, most)
            run, stroke = min(run, most), min(stroke, most)  # what lies behind the data must not decide
            if max(run, stroke) >= _MIN_MATCH:
                length, token = max(run, stroke), 256 + 2 * max(run, stroke) + int(stroke > run)
        tokens[n] = token
        counts[token] += 1
        n += 1
        at += length
    return n


@compiled
def _lengths_in_short(bits_S: I64, far: int, symbols: I64, repeats: I64) -> int:
    """Lengths of both codes in header symbols (RFC 1951, 3.2.7): 16 repeats, 17 and 18 are runs of zeros."""
    total = _SYMBOLS + far + 1
    n, at = 0, 0
    while at < total:
        length = _length_at(bits_S, far, at)
        run = 1
        while at + run < total and _length_at(bits_S, far, at + run) == length:
            run += 1
        at += run
        if length:
            symbols[n], repeats[n] = length, 0
            n += 1
            run -= 1
        while run > 0:
            if run < 3:
                symbols[n], repeats[n], step = length, 0, 1
            elif length:
                step = min(run, 6)
                symbols[n], repeats[n] = 16, step - 3
            elif run < 11:
                symbols[n], repeats[n], step = 17, run - 3, run
            else:
                step = min(run, 138)
                symbols[n], repeats[n] = 18, step - 11
            n += 1
            run -= step
    return n


@compiled
def _length_at(bits_S: I64, far: int, place: int) -> int:
    """Code length at a place of the header's list; of the distances, a run's and `far` have one bit each."""
    if place < _SYMBOLS:
        return int(bits_S[place])
    return 1 if place == _SYMBOLS or place == _SYMBOLS + far else 0


@compiled
def deflate(data: U8, begin: int, end: int, above: int, out: U8, at: int) -> int:
    """Write data[begin:end] as a zlib stream of one block.

    Args:
        data: bytes, `PADDING` more than `end`.
        begin: first byte.
        end: behind the last byte; more than begin.
        above: distance of the second kind of match: the bytes of an image row.
        out: where the stream goes; `most_bytes(end - begin)` behind `at`.
        at: first byte of the stream in `out`.

    Returns:
        Place in `out` behind the stream.
    """
    tokens = np.empty(end - begin, np.uint16)
    counts = np.zeros(_TOKENS, np.int64)
    far_distance = above if 1 < above <= _MAX_DISTANCE else 2
    n = _tokenise(data, begin, end, above if above == far_distance else end - begin, tokens, counts)
    count_S, bits_S, code_S = np.zeros(_SYMBOLS, np.int64), np.zeros(_SYMBOLS, np.int64), np.zeros(_SYMBOLS, np.int64)
    count_S[:_END] = counts[:256]
    count_S[_END] = 1
    for token in range(256 + 2 * _MIN_MATCH, _TOKENS):
        count_S[_LENGTHS[(token - 256) >> 1, 0]] += counts[token]
    code_lengths(count_S, MAX_BITS, bits_S)
    codes(bits_S, code_S)

    out[at], out[at + 1] = 0x78, 0x01  # RFC 1950: deflate, a window of 32 KiB, the fastest kind
    word, held, at = _write_header(out, at + 2, bits_S, int(_DISTANCES[far_distance, 0]))
    packed = _pack_tokens(bits_S, code_S, far_distance)
    for i in range(n):  # `_put` written out: this loop is where the time goes
        code_bits = packed[tokens[i]]
        word |= code_bits >> np.uint64(6) << np.uint64(held)
        held += int(np.int64(code_bits & np.uint64(63)))
        store_u64(out, at, word)
        at += held >> 3
        word >>= np.uint64(held & -8)
        held &= 7
    word, held, at = _put(out, at, word, held, int(code_S[_END]), int(bits_S[_END]))
    store_u64(out, at, word)
    at += (held + 7) >> 3
    check = adler32(data, begin, end)
    for i in range(4):
        out[at + i] = check >> np.uint32(24 - 8 * i) & np.uint32(255)
    return at + 4


@compiled
def _write_header(out: U8, at: int, bits_S: I64, far: int) -> tuple[np.uint64, int, int]:
    """Begin the only block with its code lengths, themselves coded; returns the bits not yet written and the place."""
    symbols, repeats = np.empty(_SYMBOLS + 32, np.int64), np.empty(_SYMBOLS + 32, np.int64)
    described = _lengths_in_short(bits_S, far, symbols, repeats)
    count_S, code_bits_S, code_S = np.zeros(19, np.int64), np.zeros(19, np.int64), np.zeros(19, np.int64)
    for i in range(described):
        count_S[symbols[i]] += 1
    code_lengths(count_S, _MAX_HEADER_BITS, code_bits_S)
    codes(code_bits_S, code_S)
    listed = 19
    while code_bits_S[_HEADER_ORDER[listed - 1]] == 0:
        listed -= 1
    word, held = np.uint64(1 | 2 << 1 | (_SYMBOLS - 257) << 3 | far << 8 | (listed - 4) << 13), 17
    for i in range(listed):
        word, held, at = _put(out, at, word, held, int(code_bits_S[_HEADER_ORDER[i]]), 3)
    for i in range(described):
        symbol = symbols[i]
        word, held, at = _put(out, at, word, held, int(code_S[symbol]), int(code_bits_S[symbol]))
        if symbol >= 16:
            word, held, at = _put(out, at, word, held, int(repeats[i]), 2 if symbol == 16 else 3 if symbol == 17 else 7)
    return word, held, at


@compiled
def _pack_tokens(bits_S: I64, code_S: I64, far_distance: int) -> U64:
    """All bits of every token, its length's and distance's extra bits included, as bits << 6 | how many."""
    packed = np.empty(_TOKENS, np.uint64)
    far_bits, far_value = _DISTANCES[far_distance, 1], _DISTANCES[far_distance, 2]
    for literal in range(256):
        packed[literal] = code_S[literal] << 6 | bits_S[literal]
    for length in range(_MIN_MATCH, _MAX_MATCH + 1):
        symbol, extra, value = _LENGTHS[length]
        code, bits = code_S[symbol] | value << bits_S[symbol], bits_S[symbol] + extra
        packed[256 + 2 * length] = code << 6 | (bits + 1)  # the nearer distance's code is one zero
        packed[257 + 2 * length] = (code | (1 | far_value << 1) << bits) << 6 | (bits + 1 + far_bits)
    return packed


@compiled
def _put(out: U8, at: int, word: np.uint64, held: int, code: int, bits: int) -> tuple[np.uint64, int, int]:
    """Add up to 56 bits to those held (fewer than 8 on return) and write out the whole bytes."""
    word |= np.uint64(code) << np.uint64(held)
    held += bits
    store_u64(out, at, word)
    return word >> np.uint64(held & -8), held & 7, at + (held >> 3)
