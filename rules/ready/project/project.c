#include "edge_rule.h"

RULE({
    "name": "project", "version": 1, "abi": 1, "drops": "filtered",
    "summary": "Keeps some fields, renames them, and converts units",
    "parameters": [
        {"name": "keep", "type": "str", "list": true, "required": true,
         "summary": "fields as 'FIELD [* FACTOR] [+ OFFSET | - OFFSET] [as NAME]'; the key and the event time always come along"}
    ]
})
SAMPLES("cases.samples")

enum { KEPT_MAX = TG_INPUTS_MAX - 2 };
typedef struct { input from; double factor, offset; bool computed; tg_buffer values; } kept;

static kept columns[KEPT_MAX];
static uint32_t n_kept;
static input key_in, time_in;
static tg_column out[TG_INPUTS_MAX];

static text next_word(text *rest) {
    while (rest->size && *rest->at == ' ') rest->at++, rest->size--;
    text word = {rest->at, 0};
    while (rest->size && *rest->at != ' ') rest->at++, rest->size--, word.size++;
    return word;
}

/* A decimal number of at most 15 digits and 22 decimals: the exact quotient or product of two doubles, rounded once (Clinger 1990). */
static bool read_number(text t, double *to) {
    uint32_t i = t.size && (t.at[0] == '-' || t.at[0] == '+'), digits = 0, decimals_n = 0;
    double whole = 0, scale = 1;
    bool point = false;
    for (; i < t.size; i++) {
        if (t.at[i] == '.' && !point) { point = true; continue; }
        if (t.at[i] < '0' || t.at[i] > '9') return false;
        whole = whole * 10 + (t.at[i] - '0');
        digits += digits || t.at[i] != '0';
        if (point) decimals_n++, scale *= 10;
        if (digits > 15 || decimals_n > 22) return false;
    }
    *to = (t.at[0] == '-' ? -whole : whole) / scale;
    return t.size && t.at[t.size - 1] >= '0' && t.at[t.size - 1] <= '9';
}

static void read_one(text line) {
    kept *c = &columns[n_kept++];
    text rest = line, field = next_word(&rest), word = next_word(&rest), name = field;
    bool good = field.size > 0;
    c->factor = 1;
    if (text_equal(word, literal("*"))) {
        good &= read_number(next_word(&rest), &c->factor);
        c->computed = true;
        word = next_word(&rest);
    }
    bool minus = text_equal(word, literal("-"));
    if (minus || text_equal(word, literal("+"))) {
        good &= read_number(next_word(&rest), &c->offset);
        if (minus) c->offset = -c->offset;
        c->computed = true;
        word = next_word(&rest);
    }
    if (text_equal(word, literal("as"))) name = next_word(&rest), word = next_word(&rest);
    if (!good || !name.size || word.size) { reject_text("keep: cannot read '", line, "': write 'FIELD * FACTOR + OFFSET as NAME'"); return; }
    c->from = input_of(field, c->computed ? NUMBER : ANY, NULLS);
    if (c->computed) output_f64(name);
    else output_like(c->from, name);
}

static void open(void) {
    key_in = input_of(literal("$key"), STR, OPTIONAL | NULLS);
    time_in = input_of(literal("$time"), TIME, NULLS);
    output_key(key_in);
    tg_the_plan.time = output_like(time_in, "");
    if (!param_count("keep")) reject("keep is empty: name at least one field");
    if (param_count("keep") > KEPT_MAX) { reject("keep: 62 fields at most"); return; }
    for (uint32_t i = 0; i < param_count("keep"); i++) read_one(param_text_at("keep", i));
}

static void convert(kept *c, tg_column *to) {
    uint32_t rows = tg_now->rows;
    const double *from = tg_in_of[c->from].values;
    double *values = tg_reserve(&c->values, rows * 8, 0);
    for (uint32_t r = 0; r < rows; r++) values[r] = from[r] * c->factor + c->offset;
    if (to->valid) for (uint32_t r = 0; r < rows; r++) if (!tg_bit(to->valid, r)) values[r] = 0;
    to->kind = F64;
    to->values = values;
}

/* Columns that are only renamed are put out from where the host wrote them. */
static void process(void) {
    if (!tg_now->rows) return;
    out[0] = *tg_in_of[key_in].column;
    out[1] = *tg_in_of[time_in].column;
    for (uint32_t i = 0; i < n_kept; i++) {
        out[i + 2] = *tg_in_of[columns[i].from].column;
        if (columns[i].computed) convert(&columns[i], &out[i + 2]);
    }
    tg_answer.rows = tg_now->rows;
    tg_answer.columns = out;
}
RULE_ENTRY(open, process)
TAKE_OVER(0, 0)
