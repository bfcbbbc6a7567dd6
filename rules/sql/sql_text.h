/* Part of sql_functions.h: strings, as UTF-8. Order is that of the bytes; characters are code points. */
TG_INLINE uint32_t sql_first(const char *at, const char *end, uint32_t *size) {   /* the code point at `at` < end, and its bytes */
    uint8_t b = (uint8_t)*at;
    uint32_t n = b < 0x80 ? 1 : b < 0xe0 ? 2 : b < 0xf0 ? 3 : 4, c = n == 1 ? b : b & (0x7fu >> n);
    if (n > (uint32_t)(end - at)) n = (uint32_t)(end - at);
    for (uint32_t i = 1; i < n; i++) c = c << 6 | ((uint8_t)at[i] & 0x3f);
    *size = n;
    return c;
}
TG_INLINE uint32_t sql_put_point(char *to, uint32_t c) {
    if (c < 0x80) { to[0] = (char)c; return 1; }
    uint32_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (uint32_t i = n - 1; i > 0; i--, c >>= 6) to[i] = (char)(0x80 | (c & 0x3f));
    to[0] = (char)(0xf00 >> n | c);
    return n;
}
TG_INLINE bool sql_starts(const char *at) { return ((uint8_t)*at & 0xc0) != 0x80; }

TG_INLINE int32_t sql_bytes_compare(const char *a, uint32_t a_size, const char *b, uint32_t b_size) {
    for (uint32_t i = 0; i < a_size && i < b_size; i++) if (a[i] != b[i]) return (uint8_t)a[i] < (uint8_t)b[i] ? -1 : 1;
    return (a_size > b_size) - (a_size < b_size);
}
TG_INLINE bool sql_same_bytes(const char *a, const char *b, uint32_t n) {
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t x, y;
        __builtin_memcpy(&x, a + i, 8), __builtin_memcpy(&y, b + i, 8);
        if (x != y) return false;
    }
    for (; i < n; i++) if (a[i] != b[i]) return false;
    return true;
}
int32_t SQL(sql_str_compare)(sql_str a, sql_str b) { return sql_bytes_compare(sql_at(a), sql_size(a), sql_at(b), sql_size(b)); }
int32_t SQL(sql_str_equal)(sql_str a, sql_str b) { return sql_size(a) == sql_size(b) && sql_same_bytes(sql_at(a), sql_at(b), sql_size(a)); }

int64_t SQL(sql_str_length)(sql_str s) {
    int64_t n = 0;
    for (uint32_t i = 0; i < sql_size(s); i++) n += sql_starts(sql_at(s) + i);
    return n;
}

TG_INLINE sql_str sql_recased(sql_str s, char from, const sql_case *of, uint32_t n) {
    const char *at = sql_at(s), *end = at + sql_size(s);
    char *to = sql_room(sql_size(s) + sql_size(s) / 2), *start = to;   /* at most, two bytes become three */
    while (at < end) {
        uint32_t size = 1;
        if ((uint8_t)*at < 0x80) *to++ = (uint8_t)(*at - from) < 26 ? *at ^ 0x20 : *at;
        else to += sql_put_point(to, sql_cased(sql_first(at, end, &size), of, n));
        at += size;
    }
    return sql_made(start, (uint32_t)(to - start));
}
sql_str SQL(sql_str_lower)(sql_str s) { return sql_recased(s, 'A', sql_lower_of, sizeof sql_lower_of / sizeof *sql_lower_of); }
sql_str SQL(sql_str_upper)(sql_str s) { return sql_recased(s, 'a', sql_upper_of, sizeof sql_upper_of / sizeof *sql_upper_of); }

sql_str SQL(sql_str_concat)(sql_str a, sql_str b) {
    char *at = sql_room(sql_size(a) + sql_size(b));
    __builtin_memcpy(at, sql_at(a), sql_size(a));
    __builtin_memcpy(at + sql_size(a), sql_at(b), sql_size(b));
    return sql_pack(at, sql_size(a) + sql_size(b));
}

/* Characters `from` .. `to` (from 0), what there is of them. */
TG_FN sql_str sql_slice(sql_str s, int64_t from, int64_t to) {
    const char *at = sql_at(s), *end = at + sql_size(s), *start;
    int64_t n = 0;
    if (to <= from) return sql_pack(at, 0);
    for (; at < end && n < from; n++) do at++; while (at < end && !sql_starts(at));
    for (start = at; at < end && n < to; n++) do at++; while (at < end && !sql_starts(at));
    return sql_pack(start, (uint32_t)(at - start));
}
/* `start` counts from 1, or from the end where it is negative; 0 is the place before the first character, as in DuckDB. n < 0: what stands before `start`. */
sql_str SQL(sql_str_substring_n)(sql_str s, int64_t start, int64_t n) {
    const int64_t most = UINT32_MAX;                      /* DuckDB's bounds, beyond which it gives an error */
    if (start > most || start < -most - 1 || n > most || n < -most - 1) return 0;
    int64_t from = start > 0 ? start - 1 : start < 0 ? sql_str_length(s) + start : -1;
    return n < 0 ? sql_slice(s, from + n > 0 ? from + n : 0, from) : sql_slice(s, from > 0 ? from : 0, from + n);
}
sql_str SQL(sql_str_substring)(sql_str s, int64_t start) { return sql_str_substring_n(s, start, UINT32_MAX); }

/* Space characters of Unicode (Zs), which tab and line feed are not. */
TG_FN bool sql_is_blank(uint32_t c) {
    return c == ' ' || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x202f || c == 0x205f || c == 0x3000;
}
sql_str SQL(sql_str_ltrim)(sql_str s) {
    const char *at = sql_at(s), *end = at + sql_size(s);
    for (uint32_t size; at < end && sql_is_blank(sql_first(at, end, &size)); at += size) {}
    return sql_pack(at, (uint32_t)(end - at));
}
sql_str SQL(sql_str_rtrim)(sql_str s) {
    const char *at = sql_at(s), *end = at + sql_size(s);
    for (uint32_t size; end > at;) {
        const char *last = end - 1;
        while (last > at && !sql_starts(last)) last--;
        if (!sql_is_blank(sql_first(last, end, &size))) break;
        end = last;
    }
    return sql_pack(at, (uint32_t)(end - at));
}
sql_str SQL(sql_str_trim)(sql_str s) { return sql_str_rtrim(sql_str_ltrim(s)); }

/* Where t stands first in [at, end), or 0. */
TG_FN const char *sql_find(const char *at, const char *end, sql_str t) {
    uint32_t n = sql_size(t);
    for (; (uint32_t)(end - at) >= n; at++) if (sql_same_bytes(at, sql_at(t), n)) return at;
    return 0;
}
int32_t SQL(sql_str_contains)(sql_str s, sql_str t) { return sql_find(sql_at(s), sql_at(s) + sql_size(s), t) != 0; }
int32_t SQL(sql_str_starts_with)(sql_str s, sql_str t) { return sql_size(t) <= sql_size(s) && sql_same_bytes(sql_at(s), sql_at(t), sql_size(t)); }
int32_t SQL(sql_str_ends_with)(sql_str s, sql_str t) {
    return sql_size(t) <= sql_size(s) && sql_same_bytes(sql_at(s) + sql_size(s) - sql_size(t), sql_at(t), sql_size(t));
}
/* Every `from`, left to right, becomes `to`; an empty `from` changes nothing. */
sql_str SQL(sql_str_replace)(sql_str s, sql_str from, sql_str to) {
    const char *at = sql_at(s), *end = at + sql_size(s), *hit;
    uint32_t hits = 0;
    if (!sql_size(from)) return s;
    for (const char *look = at; (hit = sql_find(look, end, from)); look = hit + sql_size(from)) hits++;
    if (!hits) return s;
    uint64_t size = sql_size(s) - (uint64_t)hits * sql_size(from) + (uint64_t)hits * sql_size(to);
    if (size > 1u << 30) __builtin_trap();
    char *made = sql_room((uint32_t)size), *put = made;
    for (; (hit = sql_find(at, end, from)); at = hit + sql_size(from)) {
        __builtin_memcpy(put, at, (uint32_t)(hit - at));
        __builtin_memcpy(put + (hit - at), sql_at(to), sql_size(to));
        put += (hit - at) + sql_size(to);
    }
    __builtin_memcpy(put, at, (uint32_t)(end - at));
    return sql_pack(made, (uint32_t)size);
}

/* % any characters, _ one, `escape` (a code point below 128; -1: none) takes the next one as it is. A pattern that ends in the escape matches nothing. */
int32_t SQL(sql_str_like)(sql_str s, sql_str pattern, int32_t escape) {
    const char *at = sql_at(s), *end = at + sql_size(s), *p = sql_at(pattern), *p_end = p + sql_size(pattern), *star = 0, *from = 0;
    for (;;) {
        bool plain = p < p_end && *p == escape, fits;     /* an escaped character is compared as it stands */
        if (plain && p + 1 == p_end) return 0;
        if (p < p_end && !plain && *p == '%') { star = ++p, from = at; continue; }
        if (at == end) return p == p_end;
        uint32_t size = 1;
        if (p < p_end && !plain && *p == '_') sql_first(at, end, &size), fits = true;
        else fits = p < p_end && p[plain] == *at;
        if (fits) { at += size, p += 1 + plain; continue; }
        if (!star) return 0;
        do from++; while (from < end && !sql_starts(from));
        at = from, p = star;
    }
}
