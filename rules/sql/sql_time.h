/* Part of sql_functions.h: time, ns since 1970 UTC, in the proleptic Gregorian calendar; no other zone and no leap seconds. */
enum { SQL_YEAR, SQL_MONTH, SQL_DAY, SQL_HOUR, SQL_MINUTE, SQL_SECOND, SQL_DOW, SQL_DOY };
typedef struct { int64_t days; int32_t year, month, day; int64_t ns; } sql_date;   /* ns: within the day */
static const int64_t sql_day_ns = INT64_C(86400000000000);

/* Days since 1970 of a date, and back: Howard Hinnant's days_from_civil and civil_from_days. */
TG_FN int64_t sql_days_of(int32_t year, int32_t month, int32_t day) {
    int32_t y = year - (month <= 2), era = (y >= 0 ? y : y - 399) / 400, of_era = y - era * 400;
    int32_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return (int64_t)era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}
TG_FN sql_date sql_date_of(int64_t t) {
    int64_t days = t / sql_day_ns - (t % sql_day_ns < 0), z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097;
    int32_t of_era = (int32_t)(z - era * 146097), year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int32_t of_year = of_era - (365 * year + year / 4 - year / 100), m = (5 * of_year + 2) / 153, month = m < 10 ? m + 3 : m - 9;
    return (sql_date){days, year + (int32_t)era * 400 + (month <= 2), month, of_year - (153 * m + 2) / 5 + 1, t - days * sql_day_ns};
}

int64_t SQL(sql_time_extract)(int64_t t, int32_t part) {
    sql_date d = sql_date_of(t);
    switch (part) {
        case SQL_YEAR: return d.year;
        case SQL_MONTH: return d.month;
        case SQL_DAY: return d.day;
        case SQL_HOUR: return d.ns / INT64_C(3600000000000);
        case SQL_MINUTE: return d.ns / INT64_C(60000000000) % 60;
        case SQL_SECOND: return d.ns / INT64_C(1000000000) % 60;
        case SQL_DOW: return (d.days % 7 + 11) % 7;       /* 1970-01-01 was a Thursday */
        default: return d.days - sql_days_of(d.year, 1, 1) + 1;
    }
}

/* The start of its year, month, ..., second; the first representable instants of 1677 stay as they are. */
int64_t SQL(sql_time_trunc)(int64_t t, int32_t part) {
    static const int64_t unit[] = {0, 0, 86400000000000, 3600000000000, 60000000000, 1000000000};
    int64_t rest = 0;
    if (part >= SQL_DAY) rest = t % unit[part], rest += rest < 0 ? unit[part] : 0;
    else {
        sql_date d = sql_date_of(t);
        rest = (d.days - sql_days_of(d.year, part == SQL_YEAR ? 1 : d.month, 1)) * sql_day_ns + d.ns;
    }
    return t < INT64_MIN + rest ? t : t - rest;
}
