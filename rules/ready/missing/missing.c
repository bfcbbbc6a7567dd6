#include "edge_rule.h"

RULE({
    "name": "missing", "version": 1, "abi": 1, "drops": "filtered",
    "summary": "Says when a key falls silent, and when it is back",
    "parameters": [
        {"name": "after", "type": "duration", "required": true, "min": 1, "summary": "silent when nothing has come for this long"},
        {"name": "max_keys", "type": "i64", "default": 10000, "min": 1, "max": 1000000, "summary": "keys watched"}
    ]
})
SAMPLES("cases.samples")

typedef struct { int64_t last_seen; bool begun, silent; } memory;

static input when;
static output key_out, time_out, last_seen_out, silent_out;
static int64_t after;

static void say(int64_t time, int64_t last_seen, bool silent) {
    emit();
    put_key(key_out);
    put_time(time_out, time);
    put_time(last_seen_out, last_seen);
    put_bool(silent_out, silent);
}

static void use(event e, memory *m) {
    int64_t t = i64(e, when);
    if (m->silent && t > m->last_seen) say(t, m->last_seen, false), m->silent = false;
    if (!m->begun || t > m->last_seen) m->last_seen = t;
    m->begun = true;
}

static void on_watermark(memory *m, int64_t watermark) {
    if (m->silent || watermark < m->last_seen || (uint64_t)watermark - (uint64_t)m->last_seen < (uint64_t)after) return;
    int64_t due;
    if (__builtin_add_overflow(m->last_seen, after, &due)) due = FOREVER;
    say(due, m->last_seen, true);
    m->silent = true;
}

static void open(void) {
    after = param_i64("after");
    when = input_event_time();
    if (after < 1) reject("after must be above 0");
    key_out = output_key(key_input());
    time_out = output_event_time("time");
    last_seen_out = output_time("last_seen");
    silent_out = output_bool("silent");
}
KEYED(open, memory, use, on_watermark)
