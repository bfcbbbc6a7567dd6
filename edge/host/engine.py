"""The one Wasmtime engine of a process, and the settings that compiled code depends on.

Same input, same output bytes on ARM and x86: NaNs are canonical, relaxed SIMD and threads are off. No code runs unbounded: epochs interrupt
it (edge/host/_wasmtime.pyx). A linear memory reserves 16 MiB of addresses instead of Wasmtime's 4 GiB, of which a board with a 39-bit address
space has room for 125: bounds are then checked by code, which a loop over a column hardly notices (`threshold`: 1.7 ns a row, and 1.6) and one that follows
addresses pays with a third (`window`: 24 and 17). 16 MiB and not less: nothing is faster with 0, 1 or 4, and a rule at the usual limit of its memory is never moved, for
which it would be there twice. Under an RLIMIT_AS of 512 MiB 27 rules fit. All sizes are whole pages of 4, 16 and 64 KiB. A memory that outgrows its reservation is moved.

faulthandler.enable() must come before engine(), or the next trap ends the process: both claim SIGSEGV.
"""

from functools import cache

MEMORY_RESERVATION = 16 << 20
SETTINGS = {
    "strategy": "cranelift",
    "cranelift_opt_level": "speed",
    "cranelift_nan_canonicalization": True,
    "epoch_interruption": True,
    "signals_based_traps": True,
    "wasm_simd": True,
    "wasm_bulk_memory": True,
    "wasm_reference_types": True,        # LLVM writes call_indirect in this proposal's longer form
    "wasm_multi_value": True,
    "wasm_relaxed_simd": False,
    "wasm_threads": False,
    "wasm_memory64": False,
    "wasm_multi_memory": False,
    "wasm_tail_call": False,
    "wasm_function_references": False,
    "wasm_gc": False,
    "wasm_exceptions": False,
    "wasm_stack_switching": False,
    "wasm_custom_page_sizes": False,
    "wasm_wide_arithmetic": False,
    "parallel_compilation": False,
    "max_wasm_stack": 512 << 10,
    "memory_reservation": MEMORY_RESERVATION,
    "memory_reservation_for_growth": 1 << 20,
    "memory_guard_size": 64 << 10,
    "memory_may_move": True,
}


class Unloadable(ValueError):
    """Machine code of another Wasmtime, other settings or another CPU."""


def new_engine():
    """A wasmtime.Engine with SETTINGS."""
    import wasmtime  # a process may need to know the settings alone

    config = wasmtime.Config()
    for name, value in SETTINGS.items():
        setattr(config, name, value)
    return wasmtime.Engine(config)


@cache
def engine():
    """The process's engine; the watchdog of edge/host/_wasmtime.pyx belongs to it."""
    return new_engine()
