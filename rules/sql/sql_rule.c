/* The rule that every SQL query becomes. Compiled once (`make rules`) to rules/rulec/sql/template.wasm; the compiler of rules/rulec/sql then writes
   what is the query's own: the functions that are imported from "sql" here take the imports' place, so that no index changes, and the table
   sql_query with the strings of the query stands where the heap would begin, the heap behind it. So no linker is needed.

   Functions and constants that the compiler needs are exported; it takes their exports away again, and the code of those that the query does not use. */
#define SQL_FROM_QUERY(name) extern __attribute__((import_module("sql"), import_name(#name)))
#define SQL_CONSTANT(name, value) unsigned SQL(name)(void) { return (unsigned)(value); }

SQL_FROM_QUERY(space_end) unsigned char *sql_space_end(void);
#define __heap_base (*sql_space_end())                    /* what edge_rule.h takes for the heap's begin */
#define RULE_STATE sql_table.state
#define TG_LIKE_KIND(o) tg_inputs[tg_outputs[o].flags].kind
#include "edge_rule.h"
#include "sql_functions.h"

enum { SINGLE, KEYED, TUMBLE, HOP, SESSION };             /* forms: an event alone, with memory of its key, or in windows */

/* At sql_table, written by the compiler. A window's length and hop are nanoseconds, or the position of a parameter where from_parameter has bit 0, 1. */
typedef struct {
    uint32_t form, n_inputs; const tg_field *inputs;      /* flags of inputs: OPTIONAL */
    uint32_t n_outputs; const tg_field *outputs;
    uint32_t key, time;                                   /* positions in outputs, or 0xffffffff */
    uint32_t n_parameters; const tg_field *parameters;    /* name and kind as in the ABI's Param */
    uint32_t state_bytes;                                 /* of a key, or of a window's tally */
    uint32_t from_parameter, state;                       /* state: that of the manifest */
    int64_t length, hop;                                  /* of SESSION: length is the gap */
} sql_query;
_Static_assert(sizeof(sql_query) == 64, "rulec/sql/module.py writes it");
extern const sql_query sql_table __asm__("__heap_base");

/* What generated code reads. A column that the stream does not have is all null here, and one without nulls has a bitmap all the same. */
static struct {
    const tg_column *columns;                             /*  0 */
    uint32_t rows;                                        /*  4 */
    uint8_t *selected;                                    /*  8: the bitmap to fill, zeroed; filters only */
    const uint8_t *usable;                                /* 12: bitmap of rows whose key is not null, or 0: all */
    const uint32_t *codes;                                /* 16: by row, the key's code */
    tg_key **slots;                                       /* 20: by code */
    const int64_t *times;                                 /* 24: by row; windows only */
    uint32_t any_null;                                    /* 28: a column of the query has a null */
    const uint64_t *parameters;                           /* 32: values; a str packed */
} sql_batch;
static uint64_t sql_out_cell;                             /* where functions that can give NULL put their result */
SQL_CONSTANT(sql_batch_at, &sql_batch)
SQL_CONSTANT(sql_out_at, &sql_out_cell)
SQL_CONSTANT(sql_table_at, &sql_table)
SQL_CONSTANT(sql_key_bytes, sizeof(tg_key))               /* the key's state, or its windows, follow */
SQL_CONSTANT(sql_newest_at, __builtin_offsetof(windows, newest))
SQL_CONSTANT(sql_start_at, __builtin_offsetof(window, start))
SQL_CONSTANT(sql_window_bytes, sizeof(window))            /* the tally follows */
SQL_CONSTANT(sql_inputs_max, TG_INPUTS_MAX - 2)
SQL_CONSTANT(sql_outputs_max, TG_OUTPUTS_MAX)

/* The query's own functions. */
SQL_FROM_QUERY(rows) void sql_rows(void);                 /* all rows of sql_batch */
SQL_FROM_QUERY(add) void sql_add(uint32_t row, void *tally);                    /* HOP only */
SQL_FROM_QUERY(close) void sql_close(void *tally, int64_t start, int64_t end);
SQL_FROM_QUERY(merge) void sql_merge(void *into, const void *from);             /* SESSION only */

static tg_column sql_columns[TG_INPUTS_MAX];
static tg_buffer sql_ones, sql_zeros;
typedef struct { tg_buffer codes; uint64_t batch; } sql_copy;
static sql_copy *sql_copies;                              /* by output, see sql_put_field */

/* Output rows. */
void SQL(sql_emit)(void) { emit(); }
void SQL(sql_put_f64)(uint32_t o, double v) { put_f64(o, v); }
void SQL(sql_put_i64)(uint32_t o, int64_t v) { put_i64(o, v); }
void SQL(sql_put_bool)(uint32_t o, int32_t v) { put_bool(o, v != 0); }
void SQL(sql_put_str)(uint32_t o, uint64_t v) { put_text(o, (text){(const char *)(uint32_t)v, (uint32_t)(v >> 32)}); }
void SQL(sql_put_key)(uint32_t o) { put_key(o); }
uint64_t SQL(sql_key_text)(void) { return (uint64_t)tg_keys.now->name_size << 32 | (uint32_t)tg_keys.now->name; }

/* A str field as it is: each of its strings is copied once a batch. */
void SQL(sql_put_field)(uint32_t o, uint32_t i, uint32_t row) {
    const tg_column *c = &sql_columns[i];
    sql_copy *copy = &sql_copies[o];
    uint32_t s = ((const uint32_t *)c->values)[row];
    if (copy->batch != tg_batch_n) {
        __builtin_memset(tg_reserve(&copy->codes, c->dict_n * 4, 0), 0, c->dict_n * 4);
        copy->batch = tg_batch_n;
    }
    uint32_t *known = (uint32_t *)copy->codes.at + s;
    if (!*known) *known = 1 + tg_intern(o, (text){c->dict_bytes + c->dict_offsets[s], c->dict_offsets[s + 1] - c->dict_offsets[s]});
    ((uint32_t *)tg_out_of[o].values.at)[tg_fill(o)] = *known - 1;
}

/* Keys and windows. */
void *SQL(sql_state)(uint32_t row) { return tg_state(tg_key_of(row)); }

static bool sql_at_row;                                   /* a row's texts are in the arena: a window that has to make room leaves them there */
static void sql_shut(const window *w, void *tally) {
    if (!sql_at_row) sql_arena_reset();
    sql_close(tally, w->start, w->end);
}
static void sql_each_add(event e, void *tally) { sql_add(e.row, tally); }
static void *sql_tally_found;
static void sql_found(event e, void *tally) { (void)e; sql_tally_found = tally; }

/* The tally of the row's window; 0: the row is late, or ignored. */
void *SQL(sql_tally)(uint32_t row) {
    windows *ws = tg_state(tg_key_of(row));
    sql_tally_found = 0;
    windows_add((event){row}, ws, sql_found, sql_shut);
    return sql_tally_found;
}

void SQL(sql_hop)(uint32_t row) { windows_add((event){row}, tg_state(tg_key_of(row)), sql_each_add, sql_shut); }

/* The tally of the row's session: one that it makes longer, or makes one of two of, or opens. [start, end) ends a gap after the last event. 0: as above. */
void *SQL(sql_session)(uint32_t row) {
    windows *ws = tg_state(tg_key_of(row));
    int64_t t = event_time((event){row}), end = t + tg_windows.length;
    if (t < -(INT64_C(1) << 62) || t > INT64_C(1) << 62) { ignore((event){row}); return 0; }
    tg_windows_room(ws, sql_shut);
    window **at = &ws->newest, *w;
    while (*at && (*at)->start >= end) at = &(*at)->older;
    w = *at;
    if (!w || w->end <= t) {
        if (ws->any_closed && end <= ws->closed) { late((event){row}); return 0; }
        w = tg_new((uint32_t)sizeof *w + tg_windows.bytes);
        *w = (window){*at, t, end};
        *at = w;
        tg_windows.n++;
        return tg_tally(w);
    }
    if (end > w->end) w->end = end;
    if (t < w->start) w->start = t;
    window *older = w->older;
    if (older && older->end > w->start) {
        w->start = older->start, w->older = older->older;
        sql_merge(tg_tally(w), tg_tally(older));
        tg_free(older, (uint32_t)sizeof *older + tg_windows.bytes);
        tg_windows.n--;
    }
    return tg_tally(w);
}
static void sql_tell(void *ws, int64_t watermark) { windows_close(ws, watermark, sql_shut); }

static const void *sql_nothing(void) {                    /* zeros for every row */
    uint32_t bytes = tg_now->rows * 8 + 16;
    return sql_zeros.bytes >= bytes ? sql_zeros.at : __builtin_memset(tg_reserve(&sql_zeros, bytes, 0), 0, bytes);
}
static void sql_look(void) {                              /* fills sql_batch */
    uint32_t rows = tg_now->rows, bitmap = (rows + 7) / 8;
    sql_batch.columns = sql_columns;
    sql_batch.rows = rows, sql_batch.usable = tg_usable, sql_batch.any_null = 0;
    __builtin_memset(tg_reserve(&sql_ones, bitmap + 8, 0), 0xff, bitmap);
    sql_batch.codes = tg_now->key_codes ? tg_now->key_codes : sql_nothing();
    for (uint32_t i = 0; i < sql_table.n_inputs; i++) {
        tg_column c = tg_now->columns[i];
        if (c.kind != ANY && !c.valid) c.valid = sql_ones.at;
        else sql_batch.any_null = 1;
        if (c.kind == ANY) {
            c.values = c.valid = sql_nothing();
            c.dict_n = 1, c.dict_offsets = c.values, c.dict_bytes = c.values;
        }
        sql_columns[i] = c;
    }
}

static void process(void) {
    sql_look();
    if (sql_table.form != SINGLE) tg_keys_begin(sql_table.form == KEYED ? 0 : sql_tell);
    sql_batch.slots = tg_keys.slots;
    if (sql_table.form >= TUMBLE) sql_batch.times = tg_in_of[tg_windows.time].values;
    if (tg_the_plan.n_outputs == 0) tg_answer.selected = sql_batch.selected = tg_bits(&tg_selected_bits);
    sql_at_row = true;
    if (tg_now->rows) sql_rows();
    sql_at_row = false;
    if (sql_table.form != SINGLE) tg_keys_end();
}

static int64_t sql_duration(int64_t given, uint32_t bit) {
    return sql_table.from_parameter & bit ? (int64_t)sql_batch.parameters[given] : given;
}

static void open_parameters(void) {
    uint64_t *values = tg_new(sql_table.n_parameters * 8 + 8);
    for (uint32_t i = 0; i < sql_table.n_parameters; i++) {
        const tg_field *p = &sql_table.parameters[i];
        const tg_param *given = 0;
        text name = {p->name, p->name_size};
        for (uint32_t k = 0; k < tg_given->count && !given; k++)
            if (text_equal((text){tg_given->entries[k].name, tg_given->entries[k].name_size}, name)) given = &tg_given->entries[k];
        if (!given || given->kind != p->kind || given->n != 1) { reject_text("parameter ", name, " is missing"); return; }
        if (p->kind == STR) {
            text t = *(const text *)given->values;
            values[i] = (uint64_t)t.size << 32 | (uint32_t)tg_keep(t);
        } else __builtin_memcpy(&values[i], given->values, 8);
    }
    sql_batch.parameters = values;
}

static void open(void) {
    open_parameters();
    if (tg_the_plan.error) return;
    for (uint32_t i = 0; i < sql_table.n_inputs; i++)
        input_of((text){sql_table.inputs[i].name, sql_table.inputs[i].name_size}, sql_table.inputs[i].kind, sql_table.inputs[i].flags | NULLS);
    for (uint32_t i = 0; i < sql_table.n_outputs; i++) {
        const tg_field *o = &sql_table.outputs[i];            /* flags: 0, or one more than the input whose unit it has */
        output_of((text){o->name, o->name_size}, o->flags ? ANY : o->kind, o->flags ? o->flags - 1 : 0);
    }
    tg_the_plan.key = sql_table.key, tg_the_plan.time = sql_table.time;
    sql_copies = tg_new(sql_table.n_outputs * (uint32_t)sizeof *sql_copies + 8);
    if (sql_table.form == SINGLE) return;
    keep_by_key(sql_table.form == KEYED ? sql_table.state_bytes : sizeof(windows));
    if (sql_table.form == KEYED) return;
    tg_windows.bytes = sql_table.state_bytes;
    window_every(sql_duration(sql_table.length, 1), sql_duration(sql_table.hop, 2), 0);
}
RULE_ENTRY(open, process)

/* A session's end is no function of its start. */
static void sql_write_ends(const void *key) {
    for (window *w = sql_table.form == SESSION ? ((const windows *)key)->newest : 0; w; w = w->older) save_bytes(&w->end, sizeof w->end);
}
static bool sql_read_ends(void *key) {
    int64_t before = FOREVER;
    for (window *w = sql_table.form == SESSION ? ((windows *)key)->newest : 0; w; before = w->start, w = w->older)
        if (!load_bytes(&w->end, sizeof w->end) || w->end <= w->start || w->end > before) return false;
    return true;
}
TAKE_OVER(sql_write_ends, sql_read_ends)
