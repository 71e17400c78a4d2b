"""The Huffman code of HPACK (RFC 7541 5.2 and Appendix B).

The code is canonical, so the lengths of its codes are all that has to be known. It is read a byte at a time by an
automaton whose cells are made when they are first needed: a state is the bits of a code that is not whole yet.

One rule: padding is the beginning of the end mark, shorter than a byte; anything else is a fault.
"""

from __future__ import annotations

_LENGTHS = (  # of the codes of the bytes 0 to 255, and of the end mark
    "D N S S S S S S S O U S S U S S S S S S S S U S S S S S S S S S 6 A A C D 6 8 B A A 8 B 8 6 6 6 5 5 5 6 6 6 6 6 "
    "6 6 7 8 F 6 C A D 6 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 8 7 8 D J D E 6 F 5 6 5 6 5 6 6 6 5 7 7 6 6 6 5 "
    "6 7 6 5 5 6 7 7 7 7 7 F B E D S K M K K M M M N M N N N N N O N O O M N O N N N N L M N M N N O M L K M M N N L "
    "N M M O L M N N L L M L N M N N K M M M N M M N Q Q K J M N M P Q Q Q R R Q O P J L Q R R Q R O L L Q Q S R R R "
    "K O K L M L L N M M P P O O Q N Q R Q Q R R R R R S R R R R R Q U"
)
END_MARK = 256


def _codes() -> list[str]:
    """The code of each symbol as a text of bits."""
    lengths = [int(letter, 36) for letter in _LENGTHS.split()]
    codes, code, before = [""] * len(lengths), 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths)):
        code <<= length - before
        before = length
        codes[symbol] = format(code, f"0{length}b")
        code += 1
    return codes


_CODES = _codes()
_SYMBOLS = {code: symbol for symbol, code in enumerate(_CODES)}
_BEGINNINGS = frozenset(code[:length] for code in _CODES for length in range(len(code)))


class _State(list["tuple[bytes, _State] | None"]):
    """The bits of a code that is not whole, and where each next byte leads: 256 cells, filled as they are needed."""

    __slots__ = ("bits", "may_end")

    def __init__(self, bits: str) -> None:
        super().__init__([None] * 256)
        self.bits = bits
        self.may_end = len(bits) < 8 and "0" not in bits


_states: dict[str, _State] = {}


def _state(bits: str) -> _State:
    found = _states.get(bits)
    if found is None:
        found = _states[bits] = _State(bits)
    return found


_START = _state("")


def _cell(state: _State, byte: int) -> tuple[bytes, _State]:
    """What a byte means in a state: the symbols that it completes, and the state after it."""
    bits, out = state.bits, bytearray()
    for bit in format(byte, "08b"):
        bits += bit
        symbol = _SYMBOLS.get(bits)
        if symbol is not None:
            if symbol == END_MARK:
                raise ValueError("end mark in a string")
            out.append(symbol)
            bits = ""
        elif bits not in _BEGINNINGS:
            raise ValueError("no Huffman code")
    cell = state[byte] = (bytes(out), _state(bits))
    return cell


def decode(data: bytes) -> bytes:
    """The string that was coded. Raises ValueError when it is not sound."""
    state, out = _START, []
    for byte in data:
        symbols, state = state[byte] or _cell(state, byte)
        out.append(symbols)
    if not state.may_end:
        raise ValueError("padding of a Huffman string")
    return b"".join(out)


def encode(data: bytes) -> bytes:
    """The coded string, padded to whole bytes."""
    bits = "".join([_CODES[byte] for byte in data])
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big") if bits else b""
