/* Part of sql_functions.h: doubles as digits. Printing gives the shortest digits that read back as the same double, the nearest of
   these (Steele and White 1990; Burger and Dybvig 1996); reading rounds to the nearest double, ties to even. Exact, by long integers. */
enum { SQL_BIG = 48 };                                    /* 1,536 bits; 2^1130 is the largest number met */
typedef struct { uint32_t n, d[SQL_BIG]; } sql_big;       /* d[n - 1] != 0 */

TG_FN void sql_big_times(sql_big *b, uint32_t m) {
    uint64_t carry = 0;
    for (uint32_t i = 0; i < b->n; i++) carry += (uint64_t)b->d[i] * m, b->d[i] = (uint32_t)carry, carry >>= 32;
    if (carry) b->d[b->n++] = (uint32_t)carry;
}
TG_FN void sql_big_times_ten(sql_big *b, int32_t power) {
    for (; power >= 9; power -= 9) sql_big_times(b, 1000000000);
    for (; power > 0; power--) sql_big_times(b, 10);
}
TG_FN void sql_big_add(sql_big *b, uint64_t v) {          /* b's room is enough */
    for (uint32_t i = 0; v; i++) {
        if (i == b->n) b->d[b->n++] = 0;
        v += b->d[i], b->d[i] = (uint32_t)v, v >>= 32;
    }
}
TG_FN void sql_big_left(sql_big *b, uint32_t bits) {
    uint32_t words = bits / 32, s = bits % 32;
    if (!b->n || !bits) return;
    b->d[b->n] = 0;
    for (uint32_t i = b->n + 1; i-- > 0;) b->d[i + words] = s ? b->d[i] << s | (i ? b->d[i - 1] >> (32 - s) : 0) : b->d[i];
    for (uint32_t i = 0; i < words; i++) b->d[i] = 0;
    b->n += words + 1;
    if (!b->d[b->n - 1]) b->n--;
}
TG_FN void sql_big_halve(sql_big *b) {
    for (uint32_t i = 0; i < b->n; i++) b->d[i] = b->d[i] >> 1 | (i + 1 < b->n ? b->d[i + 1] << 31 : 0);
    if (b->n && !b->d[b->n - 1]) b->n--;
}
TG_FN int32_t sql_big_compare(const sql_big *a, const sql_big *b) {
    if (a->n != b->n) return a->n < b->n ? -1 : 1;
    for (uint32_t i = a->n; i-- > 0;) if (a->d[i] != b->d[i]) return a->d[i] < b->d[i] ? -1 : 1;
    return 0;
}
TG_FN void sql_big_minus(sql_big *a, const sql_big *b) {  /* a >= b */
    int64_t borrow = 0;
    for (uint32_t i = 0; i < a->n; i++) borrow += (int64_t)a->d[i] - (i < b->n ? b->d[i] : 0), a->d[i] = (uint32_t)borrow, borrow >>= 32;
    while (a->n && !a->d[a->n - 1]) a->n--;
}
TG_FN int32_t sql_big_compare_sum(const sql_big *a, const sql_big *b, const sql_big *c) {   /* a + b with c */
    if (sql_big_compare(a, c) > 0) return 1;
    sql_big rest = *c;
    sql_big_minus(&rest, a);
    return sql_big_compare(b, &rest);
}
TG_INLINE int32_t sql_big_length(const sql_big *b) { return b->n ? (int32_t)(32 * b->n) - __builtin_clz(b->d[b->n - 1]) : 0; }

/* The digits of a finite x > 0 into `digits` (17 at most): x is 0.d1d2...dn * 10^*point. Returns n. */
TG_FN uint32_t sql_shortest(double x, char *digits, int32_t *point) {
    uint64_t bits = sql_bits(x), f = bits & ((UINT64_C(1) << 52) - 1);
    int32_t e = (int32_t)(bits >> 52) - 1075, k;
    bool even = !(f & 1), edge = !f && e > -1074;         /* edge: the double below is half as far away */
    if (e == -1075) e = -1074;
    else f |= UINT64_C(1) << 52;
    sql_big r = {0}, s = {1, {1}}, below = {1, {1}}, above;   /* x = r / s; half the way to its neighbours: below / s, above / s */
    sql_big_add(&r, f);
    sql_big_left(&r, (uint32_t)(edge ? 2 : 1) + (uint32_t)(e > 0 ? e : 0));
    sql_big_left(&s, (uint32_t)(edge ? 2 : 1) + (uint32_t)(e < 0 ? -e : 0));
    if (e > 0) sql_big_left(&below, (uint32_t)e);
    above = below;
    if (edge) sql_big_left(&above, 1);
    k = (int32_t)__builtin_ceil((e + 63 - __builtin_clzll(f)) * 0.30102999566398114 - 1e-10);   /* log10(x) rounded up, or one less */
    sql_big_times_ten(&s, k);
    sql_big_times_ten(&r, -k), sql_big_times_ten(&below, -k), sql_big_times_ten(&above, -k);
    if (sql_big_compare_sum(&r, &above, &s) >= !even) sql_big_times(&s, 10), k++;
    *point = k;
    for (uint32_t n = 0;;) {
        char digit = '0';
        sql_big_times(&r, 10), sql_big_times(&below, 10), sql_big_times(&above, 10);
        while (sql_big_compare(&r, &s) >= 0) sql_big_minus(&r, &s), digit++;
        bool low = sql_big_compare(&r, &below) < even, high = sql_big_compare_sum(&r, &above, &s) >= !even;
        if (low || high) {
            int32_t half = sql_big_compare_sum(&r, &r, &s);
            if (!low || (high && (half > 0 || (half == 0 && (digit & 1))))) digit++;
            digits[n++] = digit;
            return n;
        }
        digits[n++] = digit;
    }
}

/* The double nearest to 0.d1d2...dn * 10^point; n <= 40, d1 != '0'. */
TG_FN double sql_nearest(const char *digits, uint32_t n, int32_t point) {
    if (point > 310 || point < -330) return point > 0 ? __builtin_inf() : 0;
    sql_big whole = {0}, unit = {1, {1}};
    for (uint32_t i = 0; i < n; i++) sql_big_times(&whole, 10), sql_big_add(&whole, (uint64_t)(digits[i] - '0'));
    sql_big_times_ten(&whole, point - (int32_t)n);
    sql_big_times_ten(&unit, (int32_t)n - point);
    for (int32_t e = sql_big_length(&whole) - sql_big_length(&unit) - 53;; e++) {
        if (e < -1074) e = -1074;
        sql_big rest = whole, one = unit, step;
        uint64_t q = 0;
        sql_big_left(&rest, (uint32_t)(e < 0 ? -e : 0));
        sql_big_left(&one, (uint32_t)(e > 0 ? e : 0));
        step = one;
        sql_big_left(&step, 53);
        for (uint32_t i = 0; i < 54; i++, sql_big_halve(&step)) {
            q <<= 1;
            if (sql_big_compare(&rest, &step) >= 0) sql_big_minus(&rest, &step), q |= 1;
        }
        if (q >> 53) continue;                            /* one bit too many: once more, a power of two higher */
        int32_t half = sql_big_compare_sum(&rest, &rest, &one);
        q += half > 0 || (half == 0 && (q & 1));
        if (q >> 53) q >>= 1, e++;
        if (!(q >> 52)) return sql_double(q);
        return e > 971 ? __builtin_inf() : sql_double((uint64_t)(e + 1075) << 52 | (q & ((UINT64_C(1) << 52) - 1)));
    }
}
