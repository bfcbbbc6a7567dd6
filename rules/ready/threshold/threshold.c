#include "edge_rule.h"

RULE({
    "name": "threshold", "version": 1, "abi": 1, "drops": "filtered",
    "summary": "Passes events whose field compares with a value",
    "parameters": [
        {"name": "field", "type": "field", "required": true, "summary": "the number to compare"},
        {"name": "op", "type": "str", "default": ">", "choices": [">", ">=", "<", "<=", "==", "!="], "summary": "how"},
        {"name": "value", "type": "f64", "required": true, "summary": "with what"},
        {"name": "hysteresis", "type": "f64", "default": 0, "min": 0,
         "summary": "per key: once passing, an event passes until the field is back by this much"},
        {"name": "max_keys", "type": "i64", "default": 10000, "min": 1, "max": 1000000, "summary": "keys remembered"}
    ]
})
SAMPLES("cases.samples")

typedef struct { bool passing; } memory;

static input field;
static double value, hysteresis;
static bool greater, less, equal, inverse;    /* the operator as the sum of its cases, so that the loop over keys has no branch */

static bool compare(double v, double limit) {
    return ((bool)((v > limit) & greater) | (bool)((v < limit) & less) | (bool)((v == limit) & equal)) ^ inverse;
}
/* Without a memory: one loop for each operator, of one comparison. */
static bool above(event e) { return f64(e, field) > value; }
static bool from(event e) { return f64(e, field) >= value; }
static bool below(event e) { return f64(e, field) < value; }
static bool to(event e) { return f64(e, field) <= value; }
static bool at(event e) { return f64(e, field) == value; }
static bool elsewhere(event e) { return f64(e, field) != value; }

static bool passes_with_memory(event e, void *state) {
    memory *m = state;
    double back = greater ? value - hysteresis : value + hysteresis;
    return m->passing = compare(f64(e, field), m->passing ? back : value);
}

static void open(void) {
    text op = param_text("op");
    field = input_number(param_text("field"));
    value = param_f64("value");
    hysteresis = param_f64("hysteresis");
    greater = op.size && op.at[0] == '>';
    less = op.size && op.at[0] == '<';
    inverse = op.size && op.at[0] == '!';
    equal = op.size == 2;
    if (!(hysteresis >= 0)) reject("hysteresis must be 0 or above");
    if (hysteresis > 0 && !greater && !less) reject_text("hysteresis has no meaning with op ", op, ": use >, >=, < or <=, or leave it out");
    if (hysteresis > 0) keep_by_key(sizeof(memory));
    state_means(greater);
}
static void process(void) {
    if (hysteresis > 0) filter_by_key(passes_with_memory, 0);
    else if (greater) equal ? filter(from) : filter(above);
    else if (less) equal ? filter(to) : filter(below);
    else inverse ? filter(elsewhere) : filter(at);
}
RULE_ENTRY(open, process)
TAKE_OVER(0, 0)
