/* Part of edge_rule.h: the rows that a rule puts out. emit() starts a row, put_...() fill it; what is not filled is null. */
typedef struct { tg_buffer values, valid, offsets, bytes; uint32_t filled, dict_n, bytes_n; } tg_out;
static tg_out tg_out_of[TG_OUTPUTS_MAX];
static tg_column tg_out_columns[TG_OUTPUTS_MAX];
static uint32_t tg_rows_max;                              /* rows that every column has room for */

TG_INLINE uint32_t tg_width(uint32_t kind) { return kind == BOOL ? 1 : kind == STR ? 4 : 8; }
#ifndef TG_LIKE_KIND                                      /* of an output whose kind is the input's (output_like): emit() serves `$key` alone, a str */
#define TG_LIKE_KIND(o) STR
#endif
TG_INLINE uint32_t tg_out_kind(output o) { return tg_outputs[o].kind == ANY ? TG_LIKE_KIND(o) : tg_outputs[o].kind; }

TG_FN void tg_more_rows(void) {
    uint32_t rows = tg_answer.rows, room = tg_rows_max ? 2 * tg_rows_max : 64;
    for (uint32_t o = 0; o < tg_the_plan.n_outputs; o++) {
        tg_reserve(&tg_out_of[o].values, room * tg_width(tg_out_kind(o)), rows * tg_width(tg_out_kind(o)));
        tg_reserve(&tg_out_of[o].valid, room / 8, (rows + 7) / 8);
    }
    tg_rows_max = room;
}

TG_FN void emit(void) {
    uint32_t r = tg_answer.rows;
    if (!r) for (uint32_t o = 0; o < tg_the_plan.n_outputs; o++) tg_out_of[o].filled = tg_out_of[o].dict_n = tg_out_of[o].bytes_n = 0;
    if (r == tg_rows_max) tg_more_rows();
    for (uint32_t o = 0; o < tg_the_plan.n_outputs; o++) {
        tg_out *out = &tg_out_of[o];
        uint32_t width = tg_width(tg_out_kind(o));
        if (width == 8) ((uint64_t *)out->values.at)[r] = 0;
        else if (width == 4) ((uint32_t *)out->values.at)[r] = 0;
        else ((uint8_t *)out->values.at)[r] = 0;
        uint8_t *valid = (uint8_t *)out->valid.at + (r >> 3);
        *valid = (uint8_t)(*valid & ~(0xffu << (r & 7)));    /* clears what an earlier batch left at and after this row */
    }
    tg_answer.rows = r + 1;
}

TG_INLINE uint32_t tg_fill(output o) {                    /* marks the cell of the newest row as filled; its row */
    uint32_t r = tg_answer.rows - 1;
    uint8_t *valid = (uint8_t *)tg_out_of[o].valid.at + (r >> 3), bit = (uint8_t)(1u << (r & 7));
    tg_out_of[o].filled += !(*valid & bit);
    *valid |= bit;
    return r;
}
TG_INLINE void put_f64(output o, double v) { ((double *)tg_out_of[o].values.at)[tg_fill(o)] = v; }
TG_INLINE void put_i64(output o, int64_t v) { ((int64_t *)tg_out_of[o].values.at)[tg_fill(o)] = v; }
TG_INLINE void put_time(output o, int64_t v) { put_i64(o, v); }
TG_INLINE void put_bool(output o, bool v) { ((uint8_t *)tg_out_of[o].values.at)[tg_fill(o)] = v; }

TG_FN uint32_t tg_intern(output o, text t) {              /* the code of a new string of the column's dictionary */
    tg_out *out = &tg_out_of[o];
    uint32_t n = out->dict_n;
    uint32_t room = out->offsets.bytes / 4, *offsets = out->offsets.at;
    if (n + 2 > room) offsets = tg_reserve(&out->offsets, (n + 2) * 8, n ? (n + 1) * 4 : 0);
    if (!n) offsets[0] = 0;
    if (out->bytes_n + t.size > out->bytes.bytes || !out->bytes.at) tg_reserve(&out->bytes, (out->bytes_n + t.size) * 2, out->bytes_n);
    __builtin_memcpy((char *)out->bytes.at + out->bytes_n, t.at, t.size);
    out->bytes_n += t.size;
    offsets[n + 1] = out->bytes_n;
    out->dict_n = n + 1;
    return n;
}
TG_INLINE void put_text(output o, text t) { uint32_t c = tg_intern(o, t); ((uint32_t *)tg_out_of[o].values.at)[tg_fill(o)] = c; }

/* The double nearest to v that is k / 10^digits with a whole k (ties to even), so that it prints with at most `digits` decimals;
   v itself where k would not be exact (2^53 and above). digits: 0 to 15. */
TG_FN double decimals(double v, int64_t digits) {
    double scale = 1;
    while (digits-- > 0) scale *= 10;
    double k = __builtin_rint(v * scale);
    return __builtin_fabs(k) < 9007199254740992.0 ? k / scale : v;
}

TG_FN const tg_result *tg_end(void) {
    for (uint32_t o = 0; tg_answer.rows && !tg_answer.columns && o < tg_the_plan.n_outputs; o++) {
        tg_out *out = &tg_out_of[o];
        tg_out_columns[o] = (tg_column){tg_out_kind(o), out->values.at, out->filled < tg_answer.rows ? out->valid.at : 0,
                                        out->dict_n, out->dict_n ? out->offsets.at : 0, out->dict_n ? out->bytes.at : 0};
    }
    if (tg_answer.rows && !tg_answer.columns) tg_answer.columns = tg_out_columns;
    if (!tg_now->rows) tg_answer.selected = 0;
    if (!tg_answer.selected && !tg_answer.late && !tg_answer.rows && !tg_answer.ignored) return 0;
    return &tg_answer;
}
