#include "edge_rule.h"

RULE({
    "name": "sample", "version": 1, "abi": 1, "drops": "filtered",
    "summary": "Passes every nth event of each key, or its first one in each interval",
    "parameters": [
        {"name": "nth", "type": "i64", "default": 0, "min": 0, "summary": "pass the first of each so many; 0: use interval"},
        {"name": "interval", "type": "duration", "default": "0s", "min": 0, "summary": "pass the first of each interval of event time, counted from 1970; 0: use nth"},
        {"name": "max_keys", "type": "i64", "default": 10000, "min": 1, "max": 1000000, "summary": "keys remembered"}
    ]
})
SAMPLES("cases.samples")

typedef struct { int64_t at; bool begun; } memory;    /* at: events since the last passed, or the newest interval */

static input when;
static int64_t nth, interval;

static bool passes(event e, memory *m) {
    if (nth) {
        bool first = m->at == 0;
        m->at = m->at + 1 == nth ? 0 : m->at + 1;
        return first;
    }
    int64_t t = i64(e, when), number = t / interval - (t % interval < 0);
    if (m->begun && number <= m->at) return false;
    *m = (memory){number, true};
    return true;
}

static void open(void) {
    nth = param_i64("nth");
    interval = param_i64("interval");
    when = input_event_time();
    if (nth < 0 || interval < 0) reject("nth and interval must be 0 or above");
    if ((nth > 0) == (interval > 0)) reject("give either nth or interval");
    state_means(nth), state_means(interval);
}
KEYED_FILTER(open, memory, passes)
