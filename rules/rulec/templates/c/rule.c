#include "edge_rule.h"

typedef struct { int64_t n; double sum; } tally;      /* of one device and ten seconds; zero when the window opens */

static input temp, place;
static output device, window_end, n, temp_avg;
static double limit;
static text skip;

static bool counts(event e) {
    return !is_null(e, temp) && f64(e, temp) > limit && !is_null(e, place) && !text_equal(string(e, place), skip);
}

static void add(event e, tally *t) { t->n++, t->sum += f64(e, temp); }

static void close(const window *w, tally *t) {
    emit();
    put_key(device);
    put_time(window_end, w->end);
    put_i64(n, t->n);
    put_f64(temp_avg, t->sum / (double)t->n);
}

static void open(void) {
    limit = param_f64("limit");
    skip = param_text("skip");
    temp = input_of(literal("temp"), F64, OPTIONAL | NULLS);
    place = input_of(literal("place"), STR, OPTIONAL | NULLS);
    window_every(INT64_C(10000000000), 0, 0);
    device = output_key(key_input());
    window_end = output_event_time("window_end");
    n = output_i64("n");
    temp_avg = output_f64("temp_avg");
}

WINDOWED_WHERE(open, tally, counts, add, close)
