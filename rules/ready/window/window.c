#include "edge_rule.h"

RULE({
    "name": "window", "version": 1, "abi": 1, "drops": "filtered",
    "summary": "Statistics of fields over windows of event time, per key",
    "parameters": [
        {"name": "length", "type": "duration", "required": true, "summary": "how long a window is"},
        {"name": "hop", "type": "duration", "default": "0s", "summary": "a window begins every hop; 0: every length"},
        {"name": "fields", "type": "field", "list": true, "default": [], "summary": "the numbers to work on"},
        {"name": "functions", "type": "str", "list": true, "default": ["count", "mean"],
         "choices": ["count", "sum", "min", "max", "mean", "stddev", "first", "last"], "summary": "what to put out"},
        {"name": "decimals", "type": "i64", "min": 0, "max": 15, "summary": "round results to so many decimals"},
        {"name": "max_keys", "type": "i64", "default": 10000, "min": 1, "max": 1000000, "summary": "keys open at once"},
        {"name": "max_windows", "type": "i64", "default": 20000, "min": 1, "max": 1000000, "summary": "windows open at once"}
    ]
})
SAMPLES("cases.samples")

enum { SUM, MIN, MAX, MEAN, STDDEV, FIRST, LAST, FUNCTIONS, FIELDS_MAX = 32 };
static const char *const names[FUNCTIONS] = {"sum", "min", "max", "mean", "stddev", "first", "last"};

typedef struct { int64_t n; double sum, min, max, mean, m2, first, last; int64_t first_time, last_time; } statistics;
typedef struct { int64_t n; statistics of[]; } tally;

static input fields[FIELDS_MAX];
static output key_out, start_out, end_out, count_out, outs[FIELDS_MAX][FUNCTIONS];
static uint32_t n_fields;
static bool wanted[FUNCTIONS], count_wanted;
static int64_t digits = -1;

static bool usable(event e, uint32_t i) { return !is_null(e, fields[i]) && f64(e, fields[i]) == f64(e, fields[i]); }

static void add_value(statistics *s, double v, int64_t t) {
    if (!s->n++) {
        *s = (statistics){.n = 1, .sum = v, .min = v, .max = v, .mean = v, .first = v, .last = v, .first_time = t, .last_time = t};
        return;
    }
    s->sum += v;
    if (v < s->min) s->min = v;
    if (v > s->max) s->max = v;
    if (t < s->first_time) s->first = v, s->first_time = t;
    if (t >= s->last_time) s->last = v, s->last_time = t;
    if (!wanted[STDDEV]) return;
    double delta = v - s->mean;                  /* Welford 1962 */
    s->mean += delta / (double)s->n;
    s->m2 += delta * (v - s->mean);
}

static void add(event e, void *state) {
    tally *t = state;
    t->n++;
    for (uint32_t i = 0; i < n_fields; i++) if (usable(e, i)) add_value(&t->of[i], f64(e, fields[i]), event_time(e));
}

static void put(output o, double v) {
    if (v == v) put_f64(o, digits < 0 ? v : decimals(v, digits));
}

static void shut(const window *w, void *state) {
    const tally *t = state;
    emit();
    put_key(key_out);
    put_time(start_out, w->start);
    put_time(end_out, w->end);
    if (count_wanted) put_i64(count_out, t->n);
    for (uint32_t i = 0; i < n_fields; i++) {
        const statistics *s = &t->of[i];
        if (!s->n) continue;
        if (wanted[SUM]) put(outs[i][SUM], s->sum);
        if (wanted[MIN]) put(outs[i][MIN], s->min);
        if (wanted[MAX]) put(outs[i][MAX], s->max);
        if (wanted[MEAN]) put(outs[i][MEAN], s->sum / (double)s->n);
        if (wanted[STDDEV] && s->n > 1) put(outs[i][STDDEV], __builtin_sqrt(s->m2 / (double)(s->n - 1)));
        if (wanted[FIRST]) put(outs[i][FIRST], s->first);
        if (wanted[LAST]) put(outs[i][LAST], s->last);
    }
}

static void use(event e, void *state) {
    bool any = !n_fields;
    for (uint32_t i = 0; i < n_fields && !any; i++) any = usable(e, i);
    if (any) windows_add(e, state, add, shut);
    else ignore(e);
}
static void tell(void *state, int64_t watermark) { windows_close(state, watermark, shut); }
static void process(void) { each_by_key(use, tell); }

static void read_functions(void) {
    bool any = false;
    for (uint32_t p = 0; p < param_count("functions"); p++) {
        text name = param_text_at("functions", p);
        bool known = text_equal(name, literal("count"));
        count_wanted |= known;
        for (uint32_t f = 0; f < FUNCTIONS; f++) if (text_equal(name, literal(names[f]))) wanted[f] = any = known = true;
        if (!known) reject_text("functions: there is no ", name, "; use count, sum, min, max, mean, stddev, first or last");
    }
    if (!any && !count_wanted) reject("functions is empty: name at least one");
    if (any && !n_fields) reject("fields is empty, and functions asks for more than count");
}

static void open(void) {
    n_fields = param_count("fields");
    if (n_fields > FIELDS_MAX) { reject("fields: 32 at most"); return; }
    read_functions();
    keep_by_key(sizeof(windows));
    window_every(param_i64("length"), param_i64("hop"), (uint32_t)(sizeof(tally) + n_fields * sizeof(statistics)));
    if (param_given("decimals")) digits = param_i64("decimals");
    if (digits > 15 || digits < -1) reject("decimals must be from 0 to 15");
    key_out = output_key(key_input());
    start_out = output_time("window_start");
    end_out = output_event_time("window_end");
    if (count_wanted) count_out = output_i64("count");
    for (uint32_t i = 0; i < n_fields; i++) {
        text field = param_text_at("fields", i);
        for (uint32_t j = 0; j < i; j++) if (text_equal(field, param_text_at("fields", j))) reject_text("fields: ", field, " stands twice");
        fields[i] = input_of(field, NUMBER, NULLS);
        for (uint32_t f = 0; f < FUNCTIONS; f++)
            if (wanted[f]) outs[i][f] = output_f64(join(field, literal("_"), literal(names[f])));
    }
}
RULE_ENTRY(open, process)
TAKE_OVER(0, 0)
