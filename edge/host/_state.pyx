# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The state of an Instance between two calls: its memory and mutable globals, byte for byte (snapshot, restore), or in the module's own form for
another version to take over (saved, take_over; rules/ABI.md, Taking over).

What the module returns is not believed: an address, a size or an answer that cannot be ends the instance.
"""
import struct

import wasmtime

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from edge.host._instance cimport Instance, copy_struct
from edge.host._wasmtime cimport global_get, global_set, memory_data, memory_size, wasmtime_func_t, wasmtime_val_t

cdef enum:
    PAGE = 65536
    GLOBAL_BYTES = 17
    SAVED_BYTES = 8                          # the structure Saved
    BYTES_PER_ROW = 1024                     # of memory: the time that saving or taking over may take is that of a batch of so many rows

GLOBAL_SIZES = (4, 8, 4, 8, 16)              # of Wasmtime's kinds i32, i64, f32, f64, v128
INSTEAD = "swap it with policy replay or fresh"


def snapshot(Instance instance):
    """(memory without the area, globals), bytes. The area is zeroed: what is in it is no state."""
    cdef wasmtime_val_t value
    cdef uint32_t i
    cdef const uint8_t *source
    cdef char *to
    cdef uint64_t behind = <uint64_t>instance.area + instance.area_size, size
    instance.must_rest()
    if instance.area:
        memset(instance._area(instance.area_size), 0, instance.area_size)
    source, size = memory_data(instance.context, &instance.memory), memory_size(instance.context, &instance.memory)
    memory = PyBytes_FromStringAndSize(NULL, size - instance.area_size)
    to = PyBytes_AS_STRING(memory)
    memcpy(to, source, instance.area)
    memcpy(to + instance.area, source + behind, size - behind)
    parts = [struct.pack("<III", instance.area, instance.area_size, instance.n_globals)]
    for i in range(instance.n_globals):
        global_get(instance.context, &instance.globals[i], &value)
        size = GLOBAL_SIZES[value.kind]      # bytes beyond it are whatever was there
        parts.append(bytes([value.kind]) + PyBytes_FromStringAndSize(<char *>value.of.bytes, size) + bytes(16 - size))
    return memory, b"".join(parts)


def restore(Instance instance, memory, mutable):
    """Put an opened instance into the state that snapshot() gave of one of the same module and parameters. Raises RuleError."""
    cdef wasmtime_val_t value
    cdef wasmtime_val_t old
    cdef const unsigned char[::1] image = memory
    cdef const unsigned char[::1] data = mutable
    cdef uint64_t size = memory_size(instance.context, &instance.memory), total
    cdef uint8_t *to
    cdef uint32_t i, area, area_size
    instance.must_rest()
    stranger = "its saved state is not of this module and these parameters"
    if len(data) != 12 + GLOBAL_BYTES * instance.n_globals:
        raise instance.error(stranger)
    area, area_size, n = struct.unpack_from("<III", mutable)
    total = <uint64_t>len(image) + area_size
    if n != instance.n_globals or total % PAGE or total < size or area > <uint64_t>len(image) or area % 8 or bool(area) != bool(area_size):
        raise instance.error(stranger)
    if total > size:
        try:
            instance.memory_object.grow(instance.store, (total - size) // PAGE)
        except wasmtime.WasmtimeError:
            raise instance.error(f"its saved state has {total} bytes of memory, the limit is now {instance.limits.memory_bytes}: raise it again") from None
    for i in range(instance.n_globals):
        memset(&value, 0, sizeof(value))
        global_get(instance.context, &instance.globals[i], &old)
        value.kind = data[12 + GLOBAL_BYTES * i]
        memcpy(value.of.bytes, &data[13 + GLOBAL_BYTES * i], 16)
        if old.kind != value.kind:
            instance.dead = True
            raise instance.error(stranger)
        if global_set(instance.context, &instance.globals[i], &value) != NULL:
            raise AssertionError("a mutable global refused a value of its kind")
    to = memory_data(instance.context, &instance.memory)
    memcpy(to, &image[0], area)
    memset(to + area, 0, area_size)
    memcpy(to + area + area_size, &image[0] + area, len(image) - area)
    instance.area, instance.area_size = area, area_size


def saved(Instance instance):
    """What tg_save gives: bytes of the module's own, at most its memory. The module must export it. Raises RuleError; the instance's memory may have changed."""
    cdef wasmtime_func_t function
    cdef uint32_t address, at, size
    cdef uint64_t end
    instance.must_rest()
    copy_struct(&function, instance.exports["tg_save"]._func, sizeof(function))
    address = instance._call(&function, "tg_save", 0, 0, _rows(instance))
    if address == 0:
        instance.dead = True
        raise instance.error(f"it cannot write down its state: {INSTEAD}, or raise its memory limit, which is {instance.limits.memory_bytes}")
    end = memory_size(instance.context, &instance.memory)
    if address % 4 or address + <uint64_t>SAVED_BYTES > end:
        raise instance.wrong(f"tg_save returned {address:#x}, the memory has {end:#x}")
    memcpy(&at, memory_data(instance.context, &instance.memory) + address, 4)
    memcpy(&size, memory_data(instance.context, &instance.memory) + address + 4, 4)
    if size and (at == 0 or at + <uint64_t>size > end):
        raise instance.wrong(f"tg_save says that {size} bytes of state are at {at:#x}, the memory has {end:#x}")
    return PyBytes_FromStringAndSize(<char *>memory_data(instance.context, &instance.memory) + at, size) if size else b""


def take_over(Instance instance, bytes state, uint32_t from_state):
    """Give tg_migrate what saved() gave of another version. For an instance that is opened, bound and has seen nothing. Raises RuleError, and it is dead."""
    cdef wasmtime_func_t function
    cdef uint32_t words[2]
    cdef uint32_t answer
    cdef uint8_t *area
    instance.must_rest()
    if "tg_migrate" not in instance.module.exports:
        instance.dead = True
        raise instance.error(f"it cannot take over a state, the module has no tg_migrate: {INSTEAD}")
    instance._reserve(SAVED_BYTES + <uint64_t>len(state))
    area = instance._area(SAVED_BYTES + len(state))
    words[0], words[1] = instance.area + SAVED_BYTES, len(state)
    memcpy(area, words, SAVED_BYTES)
    memcpy(area + SAVED_BYTES, PyBytes_AS_STRING(state), len(state))
    copy_struct(&function, instance.exports["tg_migrate"]._func, sizeof(function))
    answer = instance._call(&function, "tg_migrate", instance.area, from_state, _rows(instance))
    if answer == 0:
        instance.dead = True
        raise instance.error(f"it refuses the state of state version {from_state}, its own is {instance.module.manifest.state}: "
                             f"what is kept or read has changed; {INSTEAD}")
    if answer != 1:
        raise instance.wrong(f"tg_migrate returned {answer}, neither 0 nor 1")


cdef uint32_t _rows(Instance instance):
    return <uint32_t>(memory_size(instance.context, &instance.memory) // BYTES_PER_ROW)
