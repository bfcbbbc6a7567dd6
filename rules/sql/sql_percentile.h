/* Part of sql_functions.h: percentiles of any number of values in 2 KiB. Exact up to 119 values; beyond, a summary after Greenwald and Khanna,
   "Space-efficient online computation of quantile summaries", 2001, with a bound on space in place of one on error: each kept value stands for
   `weight` values up to itself and knows its rank but for `slack`. Where there is one value too many, the one goes whose going loosens the ranks
   least, those in the outer twentieths measured against the distance from the end; the least and the greatest value stay. No chance, no assumption on distribution or order: tests/sql/test_percentile.py measures the error. */
enum { SQL_SUMMARY = 119 };
typedef struct { double value; uint32_t weight, slack; } sql_ranked;
typedef struct { uint32_t n, kept; sql_ranked of[SQL_SUMMARY + 1]; } sql_summary;   /* n: values in all, at most 2^32 - 1 */
SQL_SLOT(percentile, sql_summary)
_Static_assert(sizeof(sql_summary) <= 2048 - 96, "a window of it and some more fits a block of the heap");

/* Takes out one of `kept` > 2 values; the next one stands for it. n: all values. */
TG_FN void sql_summary_drop(sql_ranked *of, uint32_t kept, double n) {
    uint32_t best = 1;
    double best_cost = 1, best_worth = 0, rank = of[0].weight;
    for (uint32_t i = 1; i + 1 < kept; i++) {
        rank += of[i].weight;
        double from_end = rank < n - rank ? rank : n - rank, worth = (from_end < 0.05 * n ? from_end : 0.05 * n) + 0.002 * n;
        double cost = (double)of[i].weight + of[i + 1].weight + of[i + 1].slack;
        if (cost * best_worth < best_cost * worth) best_cost = cost, best_worth = worth, best = i;
    }
    of[best + 1].weight += of[best].weight;
    __builtin_memmove(&of[best], &of[best + 1], (kept - best - 1) * sizeof *of);
}

void SQL(sql_percentile_add)(sql_summary *s, double v) {
    if (s->n == UINT32_MAX) return;
    uint32_t low = 0, high = s->kept;                     /* the place behind all that are not above v */
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (sql_f64_order(s->of[middle].value, v) <= 0) low = middle + 1;
        else high = middle;
    }
    sql_ranked more = {v, 1, low && low < s->kept ? s->of[low].weight + s->of[low].slack - 1 : 0};
    __builtin_memmove(&s->of[low + 1], &s->of[low], (s->kept - low) * sizeof *s->of);
    s->of[low] = more;
    s->n++;
    if (s->kept < SQL_SUMMARY) s->kept++;
    else sql_summary_drop(s->of, SQL_SUMMARY + 1, s->n);
}

/* Each value keeps its weight; its slack grows by what the other side does not know at that place. */
void SQL(sql_percentile_merge)(sql_summary *into, const sql_summary *from) {
    sql_ranked of[2 * SQL_SUMMARY];
    uint32_t a = 0, b = 0, kept = 0;
    if ((uint64_t)into->n + from->n > UINT32_MAX) return;
    while (a < into->kept || b < from->kept) {
        bool first = b == from->kept || (a < into->kept && sql_f64_order(into->of[a].value, from->of[b].value) <= 0);
        const sql_summary *other = first ? from : into;
        uint32_t next = first ? b : a;
        of[kept] = first ? into->of[a++] : from->of[b++];
        if (next && next < other->kept) of[kept].slack += other->of[next].weight + other->of[next].slack - 1;
        kept++;
    }
    into->n += from->n;
    for (; kept > SQL_SUMMARY; kept--) sql_summary_drop(of, kept, into->n);
    into->kept = kept;
    __builtin_memcpy(into->of, of, kept * sizeof *of);
}

/* percentile_cont: between the values at the ranks around p (n - 1), in proportion; p from 0 to 1, NULL outside. */
int32_t SQL(sql_percentile_result)(const sql_summary *s, double p, double *out) {
    if (!s->n || !(p >= 0 && p <= 1)) return 0;
    double rank = p * ((double)s->n - 1), sum = 0, before = 0, at = 0;
    uint32_t i = 0;
    for (;; i++) {                                        /* rank of value i, from 0: the middle of what it can be */
        sum += s->of[i].weight;
        before = at, at = sum - 1 + 0.5 * s->of[i].slack;
        if (at >= rank || i + 1 == s->kept) break;
    }
    double low = i ? s->of[i - 1].value : s->of[0].value, high = s->of[i].value;
    if (!i || at <= rank || at <= before || low == high) return *out = high, 1;
    double share = (rank - before) / (at - before);
    return *out = fma(low, 1 - share, high * share), 1;   /* rounded as DuckDB rounds it */
}
