"""Where a line is cut into segments that shape alike wherever they stand: syllables, words or script runs."""

from khmer_ocr_kernels.jit import compiled

from khmer_ocr.text.letters import COENG

SYLLABLE, WORD, SCRIPT_RUN = 0, 1, 2
_COENG, _ZWNJ = ord(COENG), 0x200C


@compiled
def _class_of(code: int) -> int:
    """0 space, 1 Khmer base, 2 Khmer mark, 3 other Khmer (digits, punctuation), 4 everything else."""
    if code == 0x20:
        return 0
    if 0x1780 <= code <= 0x17B3:
        return 1
    if 0x17B4 <= code <= 0x17D3 or code in (0x17DD, _ZWNJ):
        return 2
    if 0x17D4 <= code <= 0x17FF or 0x19E0 <= code <= 0x19FF:
        return 3
    return 4


@compiled
def begins(first: int, previous: int, code: int, unit: int) -> bool:
    """Whether a new segment begins at `code` after `previous`, in a segment that began with `first`."""
    before, now = _class_of(previous), _class_of(code)
    if unit == SCRIPT_RUN:
        return bool(now != 0 and (now == 4) != (_class_of(first) == 4))
    if now == 0 or before == 0:
        return True
    if now == 4 or before == 4:
        return now != before
    if unit == WORD:
        return False
    if now == 2:
        # Digits carry marks as letters do (`text.syllables`), punctuation does not.
        return before == 3 and not 0x17E0 <= previous <= 0x17E9
    return not (now == 1 and previous == _COENG)
