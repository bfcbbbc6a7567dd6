/* Part of sql_functions.h: how many different values. Exact up to 128 of them, kept as 64-bit hashes (one to one for numbers, so that only
   strings could meet, 1 in 10^15); with the 129th the same bytes become 1,024 registers of a HyperLogLog: standard error 3.3 %.
   Flajolet, Fusy, Gandouet and Meunier 2007; the estimate is Ertl's, "New cardinality estimation algorithms for HyperLogLog sketches", 2017. */
enum { SQL_EXACT = 128, SQL_REGISTERS = 1024, SQL_REGISTER_BITS = 10, SQL_RANKS = 64 - SQL_REGISTER_BITS + 1 };
typedef struct { uint32_t n, sketched; union { uint64_t hashes[SQL_EXACT]; uint8_t registers[SQL_REGISTERS]; }; } sql_distinct;
SQL_SLOT(distinct, sql_distinct)

TG_INLINE void sql_register(uint8_t *registers, uint64_t h) {
    uint64_t rest = h << SQL_REGISTER_BITS;
    uint8_t rank = rest ? (uint8_t)(__builtin_clzll(rest) + 1) : SQL_RANKS, *r = &registers[h >> (64 - SQL_REGISTER_BITS)];
    if (rank > *r) *r = rank;
}
TG_FN void sql_distinct_see(sql_distinct *d, uint64_t h) {
    if (!d->sketched) {
        for (uint32_t i = 0; i < d->n; i++) if (d->hashes[i] == h) return;
        if (d->n < SQL_EXACT) { d->hashes[d->n++] = h; return; }
        uint64_t hashes[SQL_EXACT];
        __builtin_memcpy(hashes, d->hashes, sizeof hashes);
        __builtin_memset(d->registers, 0, sizeof d->registers);
        d->sketched = 1;
        for (uint32_t i = 0; i < SQL_EXACT; i++) sql_register(d->registers, hashes[i]);
    }
    sql_register(d->registers, h);
}
void SQL(sql_distinct_f64_add)(sql_distinct *d, double v) {   /* 0 and -0 are one value, all NaN are one */
    sql_distinct_see(d, sql_hash(sql_is_nan(v) ? UINT64_C(0x7ff8) << 48 : v == 0 ? 0 : sql_bits(v)));
}
void SQL(sql_distinct_i64_add)(sql_distinct *d, int64_t v) { sql_distinct_see(d, sql_hash((uint64_t)v)); }
void SQL(sql_distinct_str_add)(sql_distinct *d, sql_str s) { sql_distinct_see(d, sql_hash_str(s)); }
void SQL(sql_distinct_merge)(sql_distinct *into, const sql_distinct *from) {
    if (!from->sketched) for (uint32_t i = 0; i < from->n; i++) sql_distinct_see(into, from->hashes[i]);
    else {
        sql_distinct both = *from;
        if (!into->sketched) for (uint32_t i = 0; i < into->n; i++) sql_register(both.registers, into->hashes[i]);
        else for (uint32_t i = 0; i < SQL_REGISTERS; i++) if (into->registers[i] > both.registers[i]) both.registers[i] = into->registers[i];
        *into = both;
    }
}

TG_INLINE double sql_sigma(double x) {                    /* x + sum of x^(2^k) 2^(k-1), for empty registers; x < 1 */
    double sum = x, weight = 1, before;
    do x *= x, before = sum, sum += x * weight, weight += weight; while (sum != before);
    return sum;
}
TG_INLINE double sql_tau(double x) {                      /* for registers at their end */
    double sum = 1 - x, weight = 1, before;
    if (x == 0 || x == 1) return 0;
    do x = __builtin_sqrt(x), before = sum, weight *= 0.5, sum -= (1 - x) * (1 - x) * weight; while (sum != before);
    return sum / 3;
}
int64_t SQL(sql_distinct_result)(const sql_distinct *d) {
    if (!d->sketched) return d->n;
    uint32_t of_rank[SQL_RANKS + 1] = {0};
    const double m = SQL_REGISTERS;
    for (uint32_t i = 0; i < SQL_REGISTERS; i++) of_rank[d->registers[i]]++;
    double z = m * sql_tau(1 - of_rank[SQL_RANKS] / m);
    for (uint32_t r = SQL_RANKS - 1; r >= 1; r--) z = 0.5 * (z + of_rank[r]);
    z += m * sql_sigma(of_rank[0] / m);
    return (int64_t)__builtin_rint(0.72134752044448170 * m * m / z);   /* 1 / (2 ln 2) */
}
