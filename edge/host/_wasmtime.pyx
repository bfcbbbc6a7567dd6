# cython: language_level=3, boundscheck=False, wraparound=False
"""Wasmtime's C API from the library that wasmtime-py has already loaded, and the watchdog that ends calls that run too long.

wasmtime-py compiles, links and limits; a call through it costs 40 us, through the C API 0.1 us. Nothing is linked: the addresses
come from wasmtime-py's library handle. The API is exported but not promised to stay, so argument types and structure sizes are compared
at import, and another Wasmtime is refused with ImportError.

The watchdog is one C thread that never touches the interpreter. It sleeps while no rule runs. While one does, it looks every 5 ms at the
CPU time of the calling thread, and once a call has used its budget it advances the engine's epoch, at which the call
traps. CPU time, not wall time: a busy machine does not make a rule slow. One call runs at a time in a process; a second thread waits.
"""
import ctypes

from wasmtime import _ffi

from edge.host.engine import engine
from libc.stdint cimport uintptr_t

cdef extern from *:
    """
    #include <pthread.h>
    #include <sched.h>
    #include <signal.h>
    #include <stdatomic.h>
    #include <stdlib.h>
    #include <time.h>

    /* state: call number << 2 | phase. The caller: OFF -> RUNNING -> OFF. The watchdog: RUNNING -> FIRING -> FIRED, after which the caller
       sets OFF. So an epoch is advanced only while the call that it is meant for has not been left. */
    enum { TG_OFF, TG_RUNNING, TG_FIRING, TG_FIRED, TG_LOOK_NS = 5000000 };
    typedef struct {
        pthread_mutex_t entry;                   /* held by the thread whose call runs */
        pthread_mutex_t lock;                    /* of idle and wake */
        pthread_cond_t wake;
        _Atomic uint64_t state;
        _Atomic int idle;
        uint64_t calls;
        clockid_t clock;                         /* CPU time of the thread in the call */
        _Atomic int64_t budget_ns;
        _Atomic uint64_t looks;
        void (*advance)(wasm_engine_t *);
        wasm_engine_t *engine;
    } tg_watchdog;
    static tg_watchdog tg_dog = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER};

    static int64_t tg_clock(clockid_t clock) {
        struct timespec t;
        return clock_gettime(clock, &t) ? -1 : (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    }

    static void tg_wait_for_work(tg_watchdog *d) {
        pthread_mutex_lock(&d->lock);
        atomic_store(&d->idle, 1);
        while ((atomic_load(&d->state) & 3) != TG_RUNNING) pthread_cond_wait(&d->wake, &d->lock);
        atomic_store(&d->idle, 0);
        pthread_mutex_unlock(&d->lock);
    }

    static void *tg_watch(void *p) {
        tg_watchdog *d = (tg_watchdog *)p;
        uint64_t seen = 0;
        int64_t began = 0;
        for (;;) {
            tg_wait_for_work(d);
            uint64_t state = atomic_load(&d->state);
            atomic_fetch_add(&d->looks, 1);
            int64_t wait = TG_LOOK_NS;
            if ((state & 3) == TG_RUNNING) {
                int64_t used = tg_clock(d->clock), budget = atomic_load(&d->budget_ns);
                if (state != seen) { seen = state; began = used; }
                else if (used >= 0 && used - began >= budget && atomic_compare_exchange_strong(&d->state, &state, state - TG_RUNNING + TG_FIRING)) {
                    d->advance(d->engine);
                    atomic_store(&d->state, state - TG_RUNNING + TG_FIRED);
                }
                if (budget < wait) wait = budget;
            }
            struct timespec t = {0, wait};
            nanosleep(&t, 0);
        }
        return 0;
    }

    static void tg_call_enters(void) { pthread_mutex_lock(&tg_dog.entry); }

    static void tg_call_begins(int64_t budget_ns) {
        tg_watchdog *d = &tg_dog;
        pthread_getcpuclockid(pthread_self(), &d->clock);
        atomic_store_explicit(&d->budget_ns, budget_ns, memory_order_relaxed);
        atomic_store(&d->state, ++d->calls << 2 | TG_RUNNING);
        if (atomic_load(&d->idle)) {
            pthread_mutex_lock(&d->lock);
            pthread_cond_signal(&d->wake);
            pthread_mutex_unlock(&d->lock);
        }
    }

    static int tg_call_ends(void) {              /* 1: the watchdog ended it */
        tg_watchdog *d = &tg_dog;
        uint64_t state = d->calls << 2 | TG_RUNNING;
        int in_time = atomic_compare_exchange_strong(&d->state, &state, d->calls << 2 | TG_OFF);
        if (!in_time) {
            while ((atomic_load(&d->state) & 3) == TG_FIRING) sched_yield();
            atomic_store(&d->state, d->calls << 2 | TG_OFF);
        }
        pthread_mutex_unlock(&d->entry);
        return !in_time;
    }

    static int tg_watchdog_starts(void (*advance)(wasm_engine_t *), wasm_engine_t *engine) {
        pthread_t thread;
        pthread_attr_t attributes;
        sigset_t all, before;
        tg_dog.advance = advance;
        tg_dog.engine = engine;
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, 256 << 10);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        sigfillset(&all);                        /* signals are for the main thread */
        pthread_sigmask(SIG_SETMASK, &all, &before);
        int failed = pthread_create(&thread, &attributes, tg_watch, &tg_dog);
        pthread_sigmask(SIG_SETMASK, &before, 0);
        pthread_attr_destroy(&attributes);
        return failed;
    }

    typedef void (*tg_advance_fn)(wasm_engine_t *);
    """
    ctypedef struct tg_watchdog:
        uint64_t looks
    ctypedef void (*tg_advance_fn)(wasm_engine_t *) noexcept nogil
    enum:
        CLOCK_MONOTONIC
    tg_watchdog tg_dog
    int64_t tg_clock(int clock) noexcept nogil
    void tg_call_enters() noexcept nogil
    void tg_call_begins(int64_t budget_ns) noexcept nogil
    int tg_call_ends() noexcept nogil
    int tg_watchdog_starts(tg_advance_fn advance, wasm_engine_t *engine)

cdef tg_call_fn c_call
cdef tg_deadline_fn c_deadline
cdef object the_engine


def _expected():
    """Argument types, by function, that this was written for."""
    def P(name):
        return ctypes.POINTER(getattr(_ffi, name))
    context = P("wasmtime_context_t")
    return {
        "wasmtime_func_call_unchecked": [context, P("wasmtime_func_t"), P("wasmtime_val_raw_t"), ctypes.c_size_t, ctypes.POINTER(P("wasm_trap_t"))],
        "wasmtime_memory_data": [context, P("wasmtime_memory_t")],
        "wasmtime_memory_data_size": [context, P("wasmtime_memory_t")],
        "wasmtime_engine_increment_epoch": [P("wasm_engine_t")],
        "wasmtime_context_set_epoch_deadline": [context, ctypes.c_uint64],
        "wasmtime_global_get": [context, P("wasmtime_global_t"), P("wasmtime_val_t")],
        "wasmtime_global_set": [context, P("wasmtime_global_t"), P("wasmtime_val_t")],
    }


def _check(expected, library):
    """Raises ImportError unless functions and structures are the ones this was compiled for."""
    advice = "install the version that tidegate asks for: pip install tidegate"
    for name, arguments in expected.items():
        found = getattr(getattr(library, name, None), "argtypes", None)
        if found is None or list(found) != arguments:
            raise ImportError(f"this wasmtime's {name} takes {found}, tidegate was built for {arguments}: {advice}")
    sizes = {"wasmtime_func_t": sizeof(wasmtime_func_t), "wasmtime_memory_t": sizeof(wasmtime_memory_t), "wasmtime_global_t": sizeof(wasmtime_global_t),
             "wasmtime_val_raw_t": sizeof(wasmtime_val_raw_t), "wasmtime_val_t": sizeof(wasmtime_val_t)}
    for name, size in sizes.items():
        if ctypes.sizeof(getattr(_ffi, name)) != size:
            raise ImportError(f"this wasmtime's {name} has {ctypes.sizeof(getattr(_ffi, name))} bytes, tidegate was built for {size}: {advice}")


cdef uintptr_t address(str name) except 0:
    return ctypes.cast(getattr(_ffi.dll, name), ctypes.c_void_p).value


def _bind():
    global c_call, c_deadline, memory_data, memory_size, global_get, global_set
    _check(_expected(), _ffi.dll)
    c_call = <tg_call_fn>address("wasmtime_func_call_unchecked")
    c_deadline = <tg_deadline_fn>address("wasmtime_context_set_epoch_deadline")
    memory_data = <tg_data_fn>address("wasmtime_memory_data")
    memory_size = <tg_size_fn>address("wasmtime_memory_data_size")
    global_get = <tg_global_get_fn>address("wasmtime_global_get")
    global_set = <tg_global_set_fn>address("wasmtime_global_set")


def watch():
    """Start the watchdog; instantiate() does, where nobody has. Raises RuntimeError when there can be no thread for it."""
    global the_engine
    if the_engine is None:
        started = engine()
        raw = <uintptr_t>ctypes.addressof(started.ptr().contents)
        if tg_watchdog_starts(<tg_advance_fn>address("wasmtime_engine_increment_epoch"), <wasm_engine_t *><uintptr_t>raw):
            raise RuntimeError("no thread for the watchdog over rules: raise the limit of threads")
        the_engine = started


_bind()


cdef int64_t now_ns() noexcept nogil:
    return tg_clock(CLOCK_MONOTONIC)


cdef int call(wasmtime_context_t *context, const wasmtime_func_t *function, uint32_t first, uint32_t second, int64_t budget_ns,
              uint32_t *result, wasmtime_error_t **error, wasm_trap_t **trap) noexcept nogil:
    """Call an export that returns an i32 and takes up to two: it reads as many as it has. The caller owns error and trap. 1: the watchdog found it over
    its budget."""
    cdef wasmtime_val_raw_t values[2]
    cdef int over
    values[0].i64 = values[1].i64 = 0
    values[0].i32 = <int32_t>first
    values[1].i32 = <int32_t>second
    trap[0] = NULL
    tg_call_enters()
    c_deadline(context, 1)               # one epoch from now; none passes before the call begins
    tg_call_begins(budget_ns)
    error[0] = c_call(context, function, values, 2, trap)
    over = tg_call_ends()
    result[0] = <uint32_t>values[0].i32
    return over


def instantiate(store, make, int64_t budget_ns):
    """make(), which runs a start function in the store, under the watchdog."""
    watch()
    with nogil:
        tg_call_enters()
    try:
        store.set_epoch_deadline(1)
        tg_call_begins(budget_ns)
        return make()
    finally:
        tg_call_ends()


def looks():
    """How often the watchdog has woken up."""
    return tg_dog.looks
