#include "edge_rule.h"

RULE({
    "name": "deadband", "version": 1, "abi": 1, "drops": "filtered",
    "summary": "Report by exception: passes an event when its field has moved, or when it is time again",
    "parameters": [
        {"name": "field", "type": "field", "required": true, "summary": "the number to watch"},
        {"name": "change", "type": "f64", "default": 0, "min": 0, "summary": "passes when it differs by more than this from the last passed"},
        {"name": "every", "type": "duration", "default": "0s", "min": 0, "summary": "passes when the last passed is this old in event time; 0: never for that"},
        {"name": "max_keys", "type": "i64", "default": 10000, "min": 1, "max": 1000000, "summary": "keys remembered"}
    ]
})
SAMPLES("cases.samples")

typedef struct { double value; int64_t time; bool begun; } memory;   /* of the last event that passed */

static input field, when;
static double change;
static int64_t every;

static bool passes(event e, memory *m) {
    double v = f64(e, field);
    int64_t t = i64(e, when);
    if (v != v) { ignore(e); return false; }
    bool due = every && t > m->time && (uint64_t)t - (uint64_t)m->time >= (uint64_t)every;
    if (m->begun && !due && !(__builtin_fabs(v - m->value) > change)) return false;
    *m = (memory){v, t, true};
    return true;
}

static void open(void) {
    field = input_number(param_text("field"));
    when = input_event_time();
    change = param_f64("change");
    every = param_i64("every");
    if (!(change >= 0)) reject("change must be 0 or above");
    if (every < 0) reject("every must be 0 or above");
}
KEYED_FILTER(open, memory, passes)
