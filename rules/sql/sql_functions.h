/* The functions of SQL that a compiled query calls, after edge_rule.h. Pure: values in, value out, the same on every machine.

   f64 double; NaN = NaN and NaN above everything, as DuckDB orders   i64, time int64_t, ns since 1970 UTC   bool int32_t, 0 or 1
   str sql_str: size << 32 | address, UTF-8; 0 is NULL; an empty string has an address

   NULL never comes in: the compiler asks before it calls. A function that can give NULL returns 0 and leaves *out alone; one that
   returns a sql_str returns 0. What is an error in DuckDB (overflow, a bad cast) is NULL here, as TRY(...) gives there.
   exp, log, pow, fmod and fma are musl's (MIT), linked from wasi-libc. docs/rules/sql-semantics.md says what each function promises. */
#ifndef SQL_FUNCTIONS_H
#define SQL_FUNCTIONS_H
#define SQL(name) __attribute__((export_name(#name), used, noinline)) name

typedef uint64_t sql_str;
TG_INLINE sql_str sql_pack(const char *at, uint32_t size) { return (uint64_t)size << 32 | (uint32_t)at; }
TG_INLINE const char *sql_at(sql_str s) { return (const char *)(uint32_t)s; }
TG_INLINE uint32_t sql_size(sql_str s) { return (uint32_t)(s >> 32); }

/* Strings that a row makes: blocks of 4 KiB, 8 KiB, ..., kept from row to row. A result that does not fit in memory traps. */
enum { SQL_BLOCKS = 13 };
static struct { char *blocks[SQL_BLOCKS]; uint32_t at, used; } sql_arena;
void SQL(sql_arena_reset)(void) { sql_arena.at = sql_arena.used = 0; }
TG_FN char *sql_room(uint32_t size) {                     /* not zeroed; stays where it is until the reset; has an address when size is 0 */
    for (;; sql_arena.at++, sql_arena.used = 0) {
        if (sql_arena.at == SQL_BLOCKS) __builtin_trap();
        uint32_t room = 4096u << sql_arena.at;
        char **block = &sql_arena.blocks[sql_arena.at];
        if (size >= room - sql_arena.used) continue;
        if (!*block) *block = tg_new(room);
        char *at = *block + sql_arena.used;
        sql_arena.used += size;
        return at;
    }
}
/* Gives back what of the newest room is not used. */
TG_INLINE sql_str sql_made(char *at, uint32_t size) { sql_arena.used = (uint32_t)(at - sql_arena.blocks[sql_arena.at]) + size; return sql_pack(at, size); }

#include "sql_math.h"
#include "sql_digits.h"
#include "sql_time.h"
#include "sql_casts.h"
#include "sql_case.h"
#include "sql_text.h"
#include "sql_tallies.h"
#include "sql_distinct.h"
#include "sql_percentile.h"
#endif
