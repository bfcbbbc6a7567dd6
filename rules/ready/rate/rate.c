#include "edge_rule.h"

RULE({
    "name": "rate", "version": 1, "abi": 1, "drops": "filtered",
    "summary": "Change of a field per second, per key",
    "parameters": [
        {"name": "field", "type": "field", "required": true, "summary": "the number that changes"},
        {"name": "limit", "type": "f64", "min": 0, "summary": "put out only rates above this, up or down; left out: all"},
        {"name": "max_keys", "type": "i64", "default": 10000, "min": 1, "max": 1000000, "summary": "keys remembered"}
    ]
})
SAMPLES("cases.samples")

typedef struct { double value; int64_t time; bool begun; } memory;   /* of the newest event */

static input field, when;
static output key_out, time_out, value_out, rate_out;
static double limit = -1;

static void use(event e, memory *m) {
    double v = f64(e, field);
    int64_t t = i64(e, when);
    if (m->begun && t < m->time) { late(e); return; }
    if (v != v || (m->begun && t == m->time)) { ignore(e); return; }
    double rate = (v - m->value) / ((double)((uint64_t)t - (uint64_t)m->time) / 1e9);
    bool out = m->begun && __builtin_fabs(rate) > limit;
    *m = (memory){v, t, true};
    if (!out) return;
    emit();
    put_key(key_out);
    put_time(time_out, t);
    put_f64(value_out, v);
    put_f64(rate_out, rate);
}
static void on_watermark(memory *m, int64_t watermark) { (void)m, (void)watermark; }

static void open(void) {
    text name = param_text("field");
    field = input_number(name);
    when = input_event_time();
    if (param_given("limit")) {
        limit = param_f64("limit");
        if (!(limit >= 0)) reject("limit must be 0 or above");
    }
    key_out = output_key(key_input());
    time_out = output_event_time("time");
    value_out = output_f64(name);
    rate_out = output_f64(join(name, literal("_rate"), literal("")));
}
KEYED(open, memory, use, on_watermark)
