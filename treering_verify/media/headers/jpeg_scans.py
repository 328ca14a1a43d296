"""How strongly a JPEG was compressed: the bits that tell something about its image, and the steps that its values have.

See ITU-T T.81: B.2 for headers and tables, F.1.2 and G.1.2 for codes.
"""

from __future__ import annotations

from treering_verify.media.headers.jpeg_segments import PROGRESSIVE, next_marker, outline, segments

_HUFFMAN_TABLES, _QUANTISATION_TABLES = 0xC4, 0xDB
_COEFFICIENTS = 64
_COARSE = slice(1, 6)  # the five lowest frequencies of a block, beside its mean, in the order of the table
_LENGTHS = 16
_CELL = 8
_MEANS, _REST = 0, 1  # classes of Huffman tables


def telling_bits(data: bytes) -> int:
    """Return the bits of a JPEG's scans beyond those of an image of its size in which nothing changes.

    Such an image costs, for each block, the code of an unchanged mean, of the end of the block where scans are not
    progressive, and a bit for each further bit of the means.

    Parameters
    ----------
    data : bytes

    Raises
    ------
    IndexError
        If its headers end early.
    """
    frame, scans, end = outline(data)
    if not frame or not scans:
        return 0
    blocks = _blocks(data, frame)
    codes = _codes_of_zero(data)
    progressive = data[frame] in PROGRESSIVE
    bits = 0
    for scan in scans:
        count = data[scan + 3]
        begin = scan + 1 + int.from_bytes(data[scan + 1 : scan + 3], "big")
        following = next_marker(data, begin)
        bits += 8 * ((following.end - 2 if following else end or len(data)) - begin)
        first, further = data[scan + 4 + 2 * count] == 0, data[scan + 6 + 2 * count] >> 4 > 0
        for i in range(count):
            component = data[scan + 4 + 2 * i]
            table = min(blocks.get(component, (0, 0))[1], 1)
            cost = codes.get((_MEANS, table), codes.get((_MEANS, 0), 0)) if first else 0
            if first and further:
                cost = 1
            if not progressive:
                cost += codes.get((_REST, table), codes.get((_REST, 0), 0))
            bits -= cost * blocks.get(component, (0, 0))[0]
    return max(0, bits)


def quantisation_step(data: bytes) -> float:
    """Return the mean step of a JPEG's luminance at the lowest frequencies of a block, in levels; 0 where it does not tell.

    The usual tables have 12 at quality 50, and 59 at quality 10.

    Raises
    ------
    IndexError
        If its headers end early.
    """
    frame, _, _ = outline(data)
    if not frame:
        return 0.0
    for marker, begin, end in segments(data):
        place = begin
        while marker == _QUANTISATION_TABLES and place < min(end, len(data)):
            size = 2 if data[place] >> 4 else 1
            if data[place] & 15 == data[frame + 11]:
                table = data[place + 1 : place + 1 + size * _COEFFICIENTS]
                steps = [int.from_bytes(table[size * k : size * (k + 1)], "big") for k in range(_COEFFICIENTS)]
                return sum(steps[_COARSE]) / len(steps[_COARSE])
            place += 1 + size * _COEFFICIENTS
    return 0.0


def _blocks(data: bytes, frame: int) -> dict[int, tuple[int, int]]:
    """Return by component the count of its blocks, and its place among the components."""
    height, width = (int.from_bytes(data[frame + place : frame + place + 2], "big") for place in (4, 6))
    count = data[frame + 8]
    samplings = [data[frame + 10 + 3 * i] for i in range(count)]
    across, down = max(one >> 4 for one in samplings), max(one & 15 for one in samplings)
    if not across or not down:
        return {}
    units = -(-width // (_CELL * across)) * -(-height // (_CELL * down))
    return {data[frame + 9 + 3 * i]: (units * (one >> 4) * (one & 15), i) for i, one in enumerate(samplings)}


def _codes_of_zero(data: bytes) -> dict[tuple[int, int], int]:
    """Return the length of the code of 0 by class and number of a Huffman table, of tables before the first scan."""
    found: dict[tuple[int, int], int] = {}
    for marker, begin, end in segments(data):
        place = begin
        while marker == _HUFFMAN_TABLES and place + 1 + _LENGTHS <= min(end, len(data)):
            counts = data[place + 1 : place + 1 + _LENGTHS]
            symbols = data[place + 1 + _LENGTHS : place + 1 + _LENGTHS + sum(counts)]
            lengths = [length for length, count in enumerate(counts, 1) for _ in range(count)]
            if 0 in symbols:
                found[data[place] >> 4, data[place] & 15] = lengths[symbols.index(0)]
            place += 1 + _LENGTHS + sum(counts)
    return found
