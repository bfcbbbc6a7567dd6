/* Part of sql_functions.h: values to text and back, spelt as DuckDB spells them. */
sql_str SQL(sql_bool_to_str)(int32_t v) { return v ? sql_pack("true", 4) : sql_pack("false", 5); }

TG_FN uint32_t sql_put_number(char *at, uint64_t v, uint32_t width) {   /* with zeros in front up to the width */
    uint32_t n = 1;
    for (uint64_t w = v; w > 9 || n < width; w /= 10) n++;
    for (uint32_t i = n; i-- > 0; v /= 10) at[i] = (char)('0' + v % 10);
    return n;
}
sql_str SQL(sql_i64_to_str)(int64_t v) {
    char *at = sql_room(20);
    uint32_t sign = v < 0;
    at[0] = '-';
    return sql_made(at, sign + sql_put_number(at + sign, sign ? 0 - (uint64_t)v : (uint64_t)v, 1));
}

/* 1.0, 0.0001, 1e-05, 1e+16: a point or an exponent always, an exponent below 1e-4 and from 1e16. */
sql_str SQL(sql_f64_to_str)(double x) {
    if (sql_is_nan(x)) return sql_pack("nan", 3);
    if (!sql_is_finite(x)) return x > 0 ? sql_pack("inf", 3) : sql_pack("-inf", 4);
    char *at = sql_room(32), *to = at, digits[20] = "0";
    int32_t point = 1, n = x == 0 ? 1 : (int32_t)sql_shortest(__builtin_fabs(x), digits, &point);
    if (sql_bits(x) >> 63) *to++ = '-';
    if (point < -3 || point > 16) {
        *to++ = digits[0];
        if (n > 1) *to++ = '.';
        for (int32_t i = 1; i < n; i++) *to++ = digits[i];
        *to++ = 'e', *to++ = point > 0 ? '+' : '-';
        to += sql_put_number(to, (uint64_t)(point > 0 ? point - 1 : 1 - point), 2);
        return sql_made(at, (uint32_t)(to - at));
    }
    if (point < 1) *to++ = '0', *to++ = '.';
    for (int32_t i = point; i < 0; i++) *to++ = '0';
    for (int32_t i = 0; i < n || i < point; i++) {
        if (i && i == point) *to++ = '.';
        *to++ = i < n ? digits[i] : '0';
    }
    if (point >= n) *to++ = '.', *to++ = '0';
    return sql_made(at, (uint32_t)(to - at));
}

/* 2024-01-02 03:04:05, with a fraction without trailing zeros if there is one. */
sql_str SQL(sql_time_to_str)(int64_t t) {
    static const char marks[] = "-- ::";
    sql_date d = sql_date_of(t);
    char *at = sql_room(32), *to = at;
    for (int32_t part = SQL_YEAR; part <= SQL_SECOND; part++) {
        to += sql_put_number(to, (uint64_t)sql_time_extract(t, part), part == SQL_YEAR ? 4 : 2);
        if (part < SQL_SECOND) *to++ = marks[part];
    }
    if (d.ns % 1000000000) {
        *to++ = '.';
        to += sql_put_number(to, (uint64_t)(d.ns % 1000000000), 9);
        while (to[-1] == '0') to--;
    }
    return sql_made(at, (uint32_t)(to - at));
}

/* Reading: a cursor over the text. */
typedef struct { const char *at, *end; } sql_scan;
TG_INLINE bool sql_digit(const sql_scan *s) { return s->at < s->end && (uint8_t)(*s->at - '0') < 10; }
TG_INLINE bool sql_take(sql_scan *s, char c) { return s->at < s->end && *s->at == c && (s->at++, true); }
TG_INLINE bool sql_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
TG_FN sql_scan sql_stripped(sql_str s) {
    sql_scan at = {sql_at(s), sql_at(s) + sql_size(s)};
    while (at.at < at.end && sql_space(*at.at)) at.at++;
    while (at.at < at.end && sql_space(at.end[-1])) at.end--;
    return at;
}
TG_FN bool sql_word(sql_scan s, const char *word) {       /* the rest is the word, in any case */
    for (; s.at < s.end && *word && (*s.at | 0x20) == *word; s.at++) word++;
    return s.at == s.end && !*word;
}

/* A _ between two digits. */
TG_INLINE void sql_take_gap(sql_scan *s) {
    if (s->end - s->at >= 2 && *s->at == '_' && (uint8_t)(s->at[-1] - '0') < 10 && (uint8_t)(s->at[1] - '0') < 10) s->at++;
}

/* [+-]digits[.digits][e[+-]digits], single _ between digits: the 40 first significant digits, 0.d1d2... * 10^point. */
typedef struct { char digits[40]; uint32_t n; int32_t point; bool negative; } sql_decimal;
TG_FN bool sql_read_decimal(sql_scan s, sql_decimal *d) {
    bool any = false, fraction = false;
    *d = (sql_decimal){.negative = sql_take(&s, '-')};
    if (!d->negative) sql_take(&s, '+');
    for (;; s.at++) {
        if (!fraction && sql_take(&s, '.')) fraction = true;
        if (any) sql_take_gap(&s);
        if (!sql_digit(&s)) break;
        any = true;
        if (d->n || *s.at != '0') {
            if (d->n < sizeof d->digits) d->digits[d->n++] = *s.at;
            d->point += !fraction;
        } else d->point -= fraction;
    }
    if (!any) return false;
    if (sql_take(&s, 'e') || sql_take(&s, 'E')) {
        bool minus = sql_take(&s, '-');
        int32_t power = 0;
        if (!minus) sql_take(&s, '+');
        if (!sql_digit(&s)) return false;
        for (; sql_digit(&s); s.at++, sql_take_gap(&s)) if (power < 1000000) power = 10 * power + (*s.at - '0');
        d->point += minus ? -power : power;
    }
    return s.at == s.end;
}

int32_t SQL(sql_str_to_f64)(sql_str s, double *out) {
    sql_scan at = sql_stripped(s), word = at;
    sql_decimal d;
    if (sql_read_decimal(at, &d)) {
        double x = d.n ? sql_nearest(d.digits, d.n, d.point) : 0;
        return *out = d.negative ? -x : x, 1;
    }
    bool negative = sql_take(&word, '-');
    if (!negative) sql_take(&word, '+');
    if (sql_word(word, "nan")) return *out = __builtin_nan(""), 1;
    return (sql_word(word, "inf") || sql_word(word, "infinity")) && (*out = negative ? -__builtin_inf() : __builtin_inf(), 1);
}

/* A fraction is rounded half away from zero. */
int32_t SQL(sql_str_to_i64)(sql_str s, int64_t *out) {
    sql_decimal d;
    int64_t v = 0;
    if (!sql_read_decimal(sql_stripped(s), &d)) return 0;
    for (int32_t i = 0; d.n && i < d.point; i++) {
        int64_t digit = i < (int32_t)d.n ? d.digits[i] - '0' : 0;
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, d.negative ? -digit : digit, &v)) return 0;
    }
    if (d.point >= 0 && d.point < (int32_t)d.n && d.digits[d.point] >= '5' && __builtin_add_overflow(v, d.negative ? -1 : 1, &v)) return 0;
    return *out = v, 1;
}

int32_t SQL(sql_str_to_bool)(sql_str s, int32_t *out) {
    static const char *const words[] = {"false", "f", "no", "n", "0", "true", "t", "yes", "y", "1"};
    sql_scan at = {sql_at(s), sql_at(s) + sql_size(s)};
    for (int32_t i = 0; i < 10; i++) if (sql_word(at, words[i])) return *out = i >= 5, 1;
    return 0;
}

TG_FN bool sql_read_number(sql_scan *s, uint32_t digits_max, int32_t *out) {
    *out = 0;
    if (!sql_digit(s)) return false;
    for (; digits_max-- > 0 && sql_digit(s); s->at++) *out = 10 * *out + (*s->at - '0');
    return true;
}
/* hh:mm[:ss[.fraction]], the fraction cut to ns; 24:00:00 is the day's end. */
TG_FN bool sql_read_clock(sql_scan *s, int64_t *ns) {
    int32_t hour, minute, second = 0, fraction = 0, unit = 100000000;
    if (!sql_read_number(s, 2, &hour) || !sql_take(s, ':') || !sql_read_number(s, 2, &minute)) return false;
    if (sql_take(s, ':') && !sql_read_number(s, 2, &second)) return false;
    if (sql_take(s, '.')) for (; sql_digit(s); s->at++, unit /= 10) fraction += unit * (*s->at - '0');
    *ns = (hour * INT64_C(3600) + minute * 60 + second) * 1000000000 + fraction;
    return minute < 60 && second < 60 && *ns <= sql_day_ns;
}
/* Z or +hh[:mm], the distance from UTC, which is taken off; nothing is UTC. */
TG_FN bool sql_read_zone(sql_scan *s, int64_t *ns) {
    int32_t hour, minute = 0;
    *ns = 0;
    if (s->at == s->end || sql_take(s, 'Z')) return true;
    bool west = sql_take(s, '-');
    if ((!west && !sql_take(s, '+')) || !sql_read_number(s, 2, &hour)) return false;
    if (sql_take(s, ':') ? !sql_read_number(s, 2, &minute) : sql_digit(s) && !sql_read_number(s, 2, &minute)) return false;
    *ns = (hour * INT64_C(60) + minute) * 60000000000 * (west ? -1 : 1);
    return true;
}
/* YYYY-MM-DD[(T or space)hh:mm[:ss[.fraction]][Z or +hh[:mm]]]. */
int32_t SQL(sql_str_to_time)(sql_str text, int64_t *out) {
    static const int8_t month_days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    sql_scan s = {sql_at(text), sql_at(text) + sql_size(text)};
    int32_t year, month, day;
    int64_t clock = 0, zone = 0, t;
    if (!sql_read_number(&s, 4, &year) || !sql_take(&s, '-') || !sql_read_number(&s, 2, &month) || !sql_take(&s, '-') || !sql_read_number(&s, 2, &day)) return 0;
    bool leap = (year % 4 == 0 && year % 100) || year % 400 == 0;
    if (month < 1 || month > 12 || day < 1 || day > month_days[month - 1] + (month == 2 && leap)) return 0;
    if (s.at < s.end && (!(sql_take(&s, 'T') || sql_take(&s, ' ')) || !sql_read_clock(&s, &clock) || !sql_read_zone(&s, &zone))) return 0;
    if (s.at < s.end || __builtin_mul_overflow(sql_days_of(year, month, day), sql_day_ns, &t) || __builtin_add_overflow(t, clock - zone, &t)) return 0;
    return *out = t, 1;
}
