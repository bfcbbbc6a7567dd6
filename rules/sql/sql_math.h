/* Part of sql_functions.h: numbers. f64 follows IEEE 754 as DuckDB does (1/0 is inf, ln(-1) NaN); i64 that overflows is NULL. */
double exp(double), log(double), log2(double), log10(double), pow(double, double), fmod(double, double), fma(double, double, double);

TG_INLINE bool sql_is_nan(double x) { return x != x; }
TG_INLINE bool sql_is_finite(double x) { return x - x == 0; }
TG_INLINE uint64_t sql_bits(double x) { uint64_t b; __builtin_memcpy(&b, &x, 8); return b; }
TG_INLINE double sql_double(uint64_t b) { double x; __builtin_memcpy(&x, &b, 8); return x; }

/* <0, 0, >0 in DuckDB's order: NaN is equal to NaN and above everything. */
TG_INLINE int32_t sql_f64_order(double a, double b) {
    if (a < b) return -1;
    if (a > b) return 1;
    return a == b ? 0 : sql_is_nan(a) - sql_is_nan(b);
}

double SQL(sql_f64_exp)(double x) { return exp(x); }
double SQL(sql_f64_ln)(double x) { return log(x); }
/* As they are linked, log10 and log2 lose digits below the normal doubles. */
TG_INLINE bool sql_is_tiny(double x) { return x > 0 && x < 0x1p-1022; }
double SQL(sql_f64_log10)(double x) { return sql_is_tiny(x) ? log10(x * 0x1p54) - 16.255619765854984 : log10(x); }
double SQL(sql_f64_log2)(double x) { return sql_is_tiny(x) ? log2(x * 0x1p54) - 54 : log2(x); }
double SQL(sql_f64_pow)(double x, double y) { return pow(x, y); }
double SQL(sql_f64_mod)(double x, double y) { return fmod(x, y); }   /* the sign of x; exact */

TG_INLINE double sql_half_away(double x) {
    double t = __builtin_trunc(x);
    return __builtin_copysign(__builtin_fabs(x - t) >= 0.5 ? t + __builtin_copysign(1, x) : t, x);
}
double SQL(sql_f64_round)(double x) { return sql_is_finite(x) ? sql_half_away(x) : x; }

/* What x * y lost when it was rounded to a double (Dekker 1971); |x|, |y| < 2^996. */
TG_INLINE double sql_lost(double x, double y) {
    double a = x * 134217729, b = y * 134217729, x1 = a - (a - x), y1 = b - (b - y), x2 = x - x1, y2 = y - y1;
    return x2 * y2 - (((x * y - x1 * y1) - x2 * y1) - x1 * y2);
}
/* DuckDB's way, so that its results are ours: scale, round, scale back; a half that only the scaling made is none (1.005, 2 gives 1.0). */
double SQL(sql_f64_round_to)(double x, int64_t digits) {
    double scale = 1, r;
    int64_t n = digits < -400 || digits > 400 ? 400 : digits < 0 ? -digits : digits;
    if (n <= 22) while (n-- > 0) scale *= 10;             /* exact up to 10^22 */
    else scale = pow(10, (double)n);
    if (digits < 0) r = sql_half_away(x / scale) * scale;
    else {
        double scaled = x * scale, whole = __builtin_trunc(scaled);
        bool tie = __builtin_fabs(scaled - whole) == 0.5 && sql_lost(x, scale) * scaled < 0;
        r = (tie ? whole : sql_half_away(scaled)) / scale;
    }
    return sql_is_finite(r) ? r : x;
}

int32_t SQL(sql_i64_add)(int64_t a, int64_t b, int64_t *out) { int64_t r; return !__builtin_add_overflow(a, b, &r) && (*out = r, 1); }
int32_t SQL(sql_i64_sub)(int64_t a, int64_t b, int64_t *out) { int64_t r; return !__builtin_sub_overflow(a, b, &r) && (*out = r, 1); }
/* The product's upper half is the sign of its lower one, or it does not fit. */
TG_INLINE bool sql_times(int64_t a, int64_t b, int64_t *out) {
    __int128 r = (__int128)a * b;
    if ((int64_t)(r >> 64) != (int64_t)r >> 63) return false;
    *out = (int64_t)r;
    return true;
}
int32_t SQL(sql_i64_mul)(int64_t a, int64_t b, int64_t *out) { return sql_times(a, b, out); }
/* Towards zero, and the rest with the sign of a. */
int32_t SQL(sql_i64_div)(int64_t a, int64_t b, int64_t *out) { return b && !(b == -1 && a == INT64_MIN) && (*out = a / b, 1); }
int32_t SQL(sql_i64_mod)(int64_t a, int64_t b, int64_t *out) { return b && (*out = b == -1 ? 0 : a % b, 1); }
int32_t SQL(sql_i64_neg)(int64_t a, int64_t *out) { return a != INT64_MIN && (*out = -a, 1); }
int32_t SQL(sql_i64_abs)(int64_t a, int64_t *out) { return a != INT64_MIN && (*out = a < 0 ? -a : a, 1); }

/* Half away from zero; digits >= 0 change nothing. */
int32_t SQL(sql_i64_round_to)(int64_t a, int64_t digits, int64_t *out) {
    if (digits >= 0 || digits < -19) return *out = digits < 0 ? 0 : a, 1;
    if (digits == -19) return a > -INT64_C(5000000000000000000) && a < INT64_C(5000000000000000000) && (*out = 0, 1);
    int64_t scale = 1;
    for (; digits < 0; digits++) scale *= 10;
    int64_t whole = a / scale, rest = a % scale;
    if (rest >= scale / 2 || rest <= -(scale / 2)) whole += a < 0 ? -1 : 1;
    return sql_times(whole, scale, out);
}

/* Half to even, as DuckDB casts; NULL outside the i64 and for NaN. */
int32_t SQL(sql_f64_to_i64)(double x, int64_t *out) {
    double r = __builtin_rint(x);
    return r >= -0x1p63 && r < 0x1p63 && (*out = (int64_t)r, 1);
}
