/* Part of sql_functions.h: aggregates. A slot is plain bytes without pointers, all zero when empty, 8-aligned. NULLs are not added.
   merge: `into` becomes what it would be had it been given the values of `from` too; where their order counts, `into` came first. */
#define SQL_SLOT(name, type)                                                                                          \
    _Static_assert(sizeof(type) % 8 == 0, "slots stand one behind the other");                                        \
    uint32_t SQL(sql_##name##_size)(void) { return sizeof(type); }

/* Sums of i64: 128 bits inside, so that the order of the rows does not count. */
typedef struct { uint64_t low; int64_t high, n; } sql_sum;
TG_INLINE void sql_sum_more(sql_sum *s, uint64_t low, int64_t high, int64_t n) {
    s->high += high + __builtin_add_overflow(s->low, low, &s->low);
    s->n += n;
}
SQL_SLOT(sum_i64, sql_sum)
void SQL(sql_sum_i64_add)(sql_sum *s, int64_t v) { sql_sum_more(s, (uint64_t)v, v >> 63, 1); }
void SQL(sql_sum_i64_merge)(sql_sum *into, const sql_sum *from) { sql_sum_more(into, from->low, from->high, from->n); }
/* NULL where the sum is no i64. */
int32_t SQL(sql_sum_i64_result)(const sql_sum *s, int64_t *out) {
    return s->n && s->high == (int64_t)s->low >> 63 && (*out = (int64_t)s->low, 1);
}
SQL_SLOT(avg_i64, sql_sum)
void SQL(sql_avg_i64_add)(sql_sum *s, int64_t v) { sql_sum_more(s, (uint64_t)v, v >> 63, 1); }
void SQL(sql_avg_i64_merge)(sql_sum *into, const sql_sum *from) { sql_sum_more(into, from->low, from->high, from->n); }
int32_t SQL(sql_avg_i64_result)(const sql_sum *s, double *out) {
    return s->n && (*out = (double)((__int128)s->high << 64 | s->low) / (double)s->n, 1);
}

/* Variance: Welford 1962; merged as Chan, Golub and LeVeque 1979. */
typedef struct { int64_t n; double mean, squares; } sql_moments;
enum { SQL_VAR_SAMP, SQL_VAR_POP, SQL_STDDEV_SAMP, SQL_STDDEV_POP };
SQL_SLOT(variance, sql_moments)
void SQL(sql_variance_add)(sql_moments *m, double v) {
    double before = m->mean;
    m->mean += (v - before) / (double)++m->n;
    m->squares += (v - m->mean) * (v - before);
}
void SQL(sql_variance_merge)(sql_moments *into, const sql_moments *from) {
    if (!from->n) return;
    if (!into->n) { *into = *from; return; }
    double n = (double)(into->n + from->n), a = (double)into->n, b = (double)from->n, apart = from->mean - into->mean;
    into->mean += apart * (b / n);
    into->squares += from->squares + apart * apart * (a * b / n);
    into->n += from->n;
}
/* NULL: of nothing, and the sample's of one value. */
int32_t SQL(sql_variance_result)(const sql_moments *m, int32_t which, double *out) {
    bool sample = which == SQL_VAR_SAMP || which == SQL_STDDEV_SAMP;
    if (m->n < 1 + sample) return 0;
    double v = m->n > 1 ? m->squares / (double)(m->n - sample) : 0;
    if (which >= SQL_STDDEV_SAMP) v = __builtin_sqrt(v);
    return *out = v, 1;
}

/* A string in a slot: what is longer than 248 bytes is cut before the character that does not fit. */
enum { SQL_KEPT = 248 };
typedef struct { uint32_t size; bool any; char at[SQL_KEPT]; } sql_kept;
_Static_assert(sizeof(sql_kept) == 256, "a string slot has 256 bytes");
TG_FN uint32_t sql_cut(sql_str s) {
    uint32_t n = sql_size(s);
    if (n <= SQL_KEPT) return n;
    for (n = SQL_KEPT; n && !sql_starts(sql_at(s) + n); n--) {}
    return n;
}
TG_INLINE void sql_keep(sql_kept *k, sql_str s) {
    k->any = true, k->size = sql_cut(s);
    __builtin_memcpy(k->at, sql_at(s), k->size);
}
TG_INLINE sql_str sql_kept_str(const sql_kept *k) { return k->any ? sql_pack(k->at, k->size) : 0; }

/* first: the least time, of equal times the one added first; last: the greatest time, of equal times the one added last. */
#define SQL_FIRST_LAST(kind, type, result)                                                                            \
    SQL_SLOT(first_##kind, type)                                                                                      \
    SQL_SLOT(last_##kind, type)                                                                                       \
    void SQL(sql_first_##kind##_merge)(type *into, const type *from) { if (from->any && (!into->any || from->time < into->time)) *into = *from; }   \
    void SQL(sql_last_##kind##_merge)(type *into, const type *from) { if (from->any && (!into->any || from->time >= into->time)) *into = *from; }
#define SQL_FIRST_LAST_NUMBER(kind, ctype)                                                                            \
    typedef struct { int64_t time; ctype value; uint64_t any; } sql_timed_##kind;                                     \
    SQL_FIRST_LAST(kind, sql_timed_##kind, ctype)                                                                     \
    void SQL(sql_first_##kind##_add)(sql_timed_##kind *s, ctype v, int64_t t) { if (!s->any || t < s->time) *s = (sql_timed_##kind){t, v, 1}; }   \
    void SQL(sql_last_##kind##_add)(sql_timed_##kind *s, ctype v, int64_t t) { if (!s->any || t >= s->time) *s = (sql_timed_##kind){t, v, 1}; }   \
    int32_t SQL(sql_first_##kind##_result)(const sql_timed_##kind *s, ctype *out) { return s->any && (*out = s->value, 1); }   \
    int32_t SQL(sql_last_##kind##_result)(const sql_timed_##kind *s, ctype *out) { return s->any && (*out = s->value, 1); }
SQL_FIRST_LAST_NUMBER(f64, double)
SQL_FIRST_LAST_NUMBER(i64, int64_t)

typedef struct { int64_t time; uint64_t any; sql_kept value; } sql_timed_str;
SQL_FIRST_LAST(str, sql_timed_str, sql_str)
void SQL(sql_first_str_add)(sql_timed_str *s, sql_str v, int64_t t) { if (!s->any || t < s->time) s->time = t, s->any = 1, sql_keep(&s->value, v); }
void SQL(sql_last_str_add)(sql_timed_str *s, sql_str v, int64_t t) { if (!s->any || t >= s->time) s->time = t, s->any = 1, sql_keep(&s->value, v); }
sql_str SQL(sql_first_str_result)(const sql_timed_str *s) { return sql_kept_str(&s->value); }
sql_str SQL(sql_last_str_result)(const sql_timed_str *s) { return sql_kept_str(&s->value); }

/* min and max of the strings as they are kept, cut. */
TG_INLINE void sql_keep_better(sql_kept *k, sql_str s, int32_t sign) {
    if (!k->any || sign * sql_bytes_compare(sql_at(s), sql_cut(s), k->at, k->size) > 0) sql_keep(k, s);
}
SQL_SLOT(min_str, sql_kept)
SQL_SLOT(max_str, sql_kept)
void SQL(sql_min_str_add)(sql_kept *k, sql_str s) { sql_keep_better(k, s, -1); }
void SQL(sql_max_str_add)(sql_kept *k, sql_str s) { sql_keep_better(k, s, 1); }
void SQL(sql_min_str_merge)(sql_kept *into, const sql_kept *from) { if (from->any) sql_keep_better(into, sql_kept_str(from), -1); }
void SQL(sql_max_str_merge)(sql_kept *into, const sql_kept *from) { if (from->any) sql_keep_better(into, sql_kept_str(from), 1); }
sql_str SQL(sql_min_str_result)(const sql_kept *k) { return sql_kept_str(k); }
sql_str SQL(sql_max_str_result)(const sql_kept *k) { return sql_kept_str(k); }

/* Hashes: one to one for 8 bytes (splitmix64's finish), so that different numbers never meet. */
TG_INLINE uint64_t sql_hash(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}
TG_INLINE uint64_t sql_hash_str(sql_str s) {              /* FNV-1a of 64 bits, then the finish */
    uint64_t h = 0xcbf29ce484222325u;
    for (uint32_t i = 0; i < sql_size(s); i++) h = (h ^ (uint8_t)sql_at(s)[i]) * 0x100000001b3u;
    return sql_hash(h ^ sql_size(s));
}

/* The previous string of LAG and CHANGED; `same` compares all of it, by size and hash where it was cut. */
typedef struct { uint64_t hash, size; sql_kept value; } sql_previous;
SQL_SLOT(kept, sql_previous)
void SQL(sql_kept_set)(sql_previous *k, sql_str s) { k->hash = sql_hash_str(s), k->size = sql_size(s), sql_keep(&k->value, s); }
sql_str SQL(sql_kept_get)(const sql_previous *k) { return sql_kept_str(&k->value); }
int32_t SQL(sql_kept_same)(const sql_previous *k, sql_str s) { return k->value.any && k->size == sql_size(s) && k->hash == sql_hash_str(s); }
