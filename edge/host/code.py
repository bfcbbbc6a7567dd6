"""A look at a module's instructions: none may change what is not saved.

A rule's state is its memory and its mutable globals. Tables and passive segments can be changed by code too, and a rule
that did so would go on differently after a restart; so the few instructions that change them are refused. Runs in the compiler's child, on
code that the compiler has found valid. Opcodes: WebAssembly Core Specification 2.0, 5.4.
"""

from edge.host.module import Reader

CODE = 10
CHANGES = {(0x26, None): "table.set", (0xFC, 9): "data.drop", (0xFC, 12): "table.init", (0xFC, 13): "elem.drop", (0xFC, 14): "table.copy",
           (0xFC, 15): "table.grow", (0xFC, 17): "table.fill"}
ONE_NUMBER = {0x0C, 0x0D, 0x10, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x3F, 0x40, 0x41, 0x42, 0xD0, 0xD2}       # br call local global table.get memory const ref
BLOCKS = {0x02, 0x03, 0x04}
NONE = {0x00, 0x01, 0x05, 0x0B, 0x0F, 0x1A, 0x1B, 0xD1, *range(0x45, 0xC5)}
BULK = {**{n: 0 for n in range(8)}, 8: 2, 10: 2, 11: 1, 16: 1}       # numbers that follow 0xfc n


def check(wasm: bytes):
    """Raises ValueError naming a function with a forbidden or unknown instruction."""
    r = Reader(wasm, 8)
    while r.at < r.end:
        section, size = r.byte(), r.number()
        end = r.at + size
        if section == CODE:
            for index in range(r.number()):
                length = r.number()
                _function(Reader(wasm, r.at, r.at + length), index)
                r.skip(length)
        r.at = end


def _function(r, index):
    for _ in range(r.number()):                      # locals
        r.number()
        if r.byte() in (0x63, 0x64):
            r.skip_number()
    while r.at < r.end:
        code = r.byte()
        extended = r.number() if code in (0xFC, 0xFD) else None
        name = CHANGES.get((code, extended))
        if name:
            raise ValueError(f"function {index} uses {name}: tables and segments are not saved with a rule's state, so a rule must not change them")
        if not skip(r, code, extended):
            raise ValueError(f"function {index} has an instruction this gateway does not know: {code:#x} {'' if extended is None else extended}")


def skip(r, code, extended) -> bool:
    """Skip an instruction's immediates; False if it is not known."""
    if code in NONE:
        return True
    if code in ONE_NUMBER or code in BLOCKS:         # a block's type is a number of 33 bits, or one byte, which reads as one
        r.skip_number()
    elif 0x28 <= code <= 0x3E:                       # loads and stores: alignment, offset
        _numbers(r, 2)
    elif code == 0x0E:                               # br_table
        _numbers(r, r.number() + 1)
    elif code == 0x11:                               # call_indirect
        _numbers(r, 2)
    elif code == 0x1C:                               # select with types
        _numbers(r, r.number())
    elif code in (0x43, 0x44):
        r.skip(4 if code == 0x43 else 8)
    elif code == 0xFC and extended in BULK:
        _numbers(r, BULK[extended])
    elif code == 0xFD and extended < 256:
        _skip_vector(r, extended)
    else:
        return False
    return True


def _skip_vector(r, extended):
    if extended <= 11 or 84 <= extended <= 93:       # loads and stores; 84 to 91 with a lane
        _numbers(r, 2)
        r.skip(1 if 84 <= extended <= 91 else 0)
    elif extended in (12, 13):                       # v128.const, i8x16.shuffle
        r.skip(16)
    elif 21 <= extended <= 34:                       # lanes
        r.skip(1)


def _numbers(r, count):
    for _ in range(count):
        r.skip_number()
