/* Tidegate rules in C: write a function of one event; this header does the rest of rules/ABI.md.

       #include "edge_rule.h"

       RULE({"name": "hot", "version": 1, "abi": 1, "summary": "Passes events above a limit", "drops": "filtered",
             "parameters": [{"name": "value", "type": "f64", "required": true, "summary": "the limit"}]})

       static input temp;
       static double limit;

       static void open(void) { temp = input_number("temp"); limit = param_f64("value"); }
       static bool hot(event e) { return f64(e, temp) > limit; }

       FILTER(open, hot)

   Freestanding C11 for wasm32, one source file a rule. Memory comes from a bounded heap that grows; where it cannot grow the
   rule traps, and the host goes back to the state before the batch. A row that is null in an input is not shown to the rule
   but counted as ignored, unless the input was asked for with NULLS. Nothing here depends on anything but the input's bytes. */
#ifndef EDGE_RULE_H
#define EDGE_RULE_H
#include <stdbool.h>
#include <stdint.h>

#define TG_INLINE static inline __attribute__((always_inline, unused))
#define TG_FN static __attribute__((noinline, unused))
#define TG_EXPORT(name) __attribute__((export_name(#name), used))
#define TG_QUOTE(s) #s

/* The manifest: JSON, written as it is. It becomes the custom section `tidegate.rule`. */
#define RULE(...) __asm__(".section .custom_section.tidegate.rule,\"\",@\n.ascii " TG_QUOTE(#__VA_ARGS__) "\n.text\n");
/* The samples of a rule with RULE(): a file, found as #include finds it. They become the custom section `tidegate.cases`, and admission runs them. */
#define SAMPLES(file) __asm__(".section .custom_section.tidegate.cases,\"\",@\n.incbin " TG_QUOTE(file) "\n.text\n");

enum { F64 = 1, I64 = 2, BOOL = 3, STR = 4, TIME = 5, ANY = 0, NUMBER = 6 };  /* kinds; ANY and NUMBER of inputs only */
enum { OPTIONAL = 1, NULLS = 2, TG_INPUTS_MAX = 64, TG_OUTPUTS_MAX = 256, TG_NONE = -1 };
#define FOREVER INT64_MAX                                 /* the watermark of a key that is being closed */

typedef struct { const char *at; uint32_t size; } text;   /* UTF-8, not terminated */
typedef struct { uint32_t row; } event;
typedef uint32_t input;                                   /* a column that is read */
typedef uint32_t output;                                  /* a column that is written */

/* The ABI's structures. A pointer is a u32 here. */
typedef struct { const char *name; uint32_t name_size, kind, n; const void *values; uint32_t zero; } tg_param;
typedef struct { uint32_t count; const tg_param *entries; } tg_params;
typedef struct { const char *name; uint32_t name_size, kind, flags; } tg_field;
typedef struct {
    uint32_t abi, mode, n_inputs; const tg_field *inputs; uint32_t n_outputs; const tg_field *outputs;
    uint32_t key, time; const char *error; uint32_t error_size;
} tg_plan;
typedef struct {
    uint32_t kind; const void *values; const uint8_t *valid; uint32_t dict_n; const uint32_t *dict_offsets; const char *dict_bytes;
} tg_column;
typedef struct {
    uint32_t rows, n_columns; uint64_t first_sequence; int64_t received, watermark; uint32_t flags, keys;
    const int64_t *key_watermarks; const uint32_t *key_codes; const tg_column *columns; uint32_t zero; uint64_t zeros;
} tg_batch;
typedef struct { const uint8_t *selected, *late; uint32_t rows; const tg_column *columns; uint32_t ignored, zeros[3]; } tg_result;
_Static_assert(sizeof(tg_param) == 24 && sizeof(tg_plan) == 40 && sizeof(tg_field) == 16, "ABI");
_Static_assert(sizeof(tg_column) == 24 && sizeof(tg_batch) == 64 && sizeof(tg_result) == 32, "ABI");

TG_INLINE text literal(const char *s) { uint32_t n = 0; while (s[n]) n++; return (text){s, n}; }

TG_INLINE text tg_same(text t) { return t; }
#define as_text(s) _Generic((s), text: tg_same, char *: literal, const char *: literal)(s)

TG_INLINE bool text_equal(text a, text b) {
    if (a.size != b.size) return false;
    for (uint32_t i = 0; i < a.size; i++) if (a.at[i] != b.at[i]) return false;
    return true;
}

/* Memory: size classes (16 bytes apart up to 512, then powers of two), each with a list of freed blocks; new blocks from the top. */
enum { TG_CLASSES = 54 };
extern unsigned char __heap_base;
static struct { uint32_t top; void *freed[TG_CLASSES]; } tg_heap;

TG_INLINE uint32_t tg_class(uint32_t size) { return size <= 512 ? (size + 15) / 16 - (size > 0) : 55u - (uint32_t)__builtin_clz(size - 1); }
TG_INLINE uint32_t tg_class_bytes(uint32_t c) { return c < 32 ? 16 * (c + 1) : 1024u << (c - 33); }

/* A zeroed block of at least `size` bytes, 8-aligned, or 0 where memory cannot grow. */
TG_FN void *tg_try(uint32_t size) {
    if (size > 1u << 30) return 0;
    uint32_t c = tg_class(size), bytes = tg_class_bytes(c);
    void **block = tg_heap.freed[c];
    if (block) tg_heap.freed[c] = *block;
    else {
        if (!tg_heap.top) tg_heap.top = ((uint32_t)&__heap_base + 15) & ~15u;
        uint64_t end = (uint64_t)tg_heap.top + bytes, have = (uint64_t)__builtin_wasm_memory_size(0) << 16;
        if (end > have && __builtin_wasm_memory_grow(0, (uint32_t)((end - have + 0xffff) >> 16)) == (uint32_t)-1) return 0;
        block = (void **)tg_heap.top;
        tg_heap.top = (uint32_t)end;
    }
    __builtin_memset(block, 0, bytes);
    return block;
}

TG_FN void *tg_new(uint32_t size) { void *p = tg_try(size); if (!p) __builtin_trap(); return p; }

TG_FN void tg_free(void *block, uint32_t size) {
    if (!block) return;
    *(void **)block = tg_heap.freed[tg_class(size)];
    tg_heap.freed[tg_class(size)] = block;
}

typedef struct { void *at; uint32_t bytes; } tg_buffer;   /* grows, never shrinks */

TG_FN void *tg_reserve(tg_buffer *b, uint32_t bytes, uint32_t keep) {   /* room for `bytes`, of which the first `keep` stay as they are */
    if (b->bytes >= bytes && b->at) return b->at;
    void *at = tg_new(bytes);
    if (keep) __builtin_memcpy(at, b->at, keep);
    tg_free(b->at, b->bytes);
    b->at = at;
    b->bytes = tg_class_bytes(tg_class(bytes));
    return at;
}

static tg_buffer tg_area;
TG_EXPORT(tg_alloc) void *tg_alloc(uint32_t size) {
    if (tg_area.at && tg_area.bytes >= size) return tg_area.at;
    void *at = tg_try(size);
    if (!at) return 0;
    tg_free(tg_area.at, tg_area.bytes);
    tg_area = (tg_buffer){at, tg_class_bytes(tg_class(size))};
    return at;
}

TG_EXPORT(tg_abi) uint32_t tg_abi(void) { return 1; }

/* Plan: what open() asks for. */
static tg_field tg_inputs[TG_INPUTS_MAX], tg_outputs[TG_OUTPUTS_MAX];
static tg_plan tg_the_plan = {.abi = 1, .key = 0xffffffff, .time = 0xffffffff};
static const tg_params *tg_given;
static char tg_error[240];
static uint32_t tg_nulls_shown[TG_INPUTS_MAX];

TG_FN void tg_say(text t) {
    uint32_t n = tg_the_plan.error_size, room = (uint32_t)sizeof tg_error - n, take = t.size < room ? t.size : room;
    while (take < t.size && take && ((unsigned char)t.at[take] & 0xc0) == 0x80) take--;   /* a cut does not split a character */
    __builtin_memcpy(tg_error + n, t.at, take);
    tg_the_plan.error = tg_error;
    tg_the_plan.error_size = n + take;
}

/* Refuses the configuration, saying `before` + `name` + `after` to the operator. The first refusal stands. */
TG_FN void reject_text(const char *before, text name, const char *after) {
    if (tg_the_plan.error) return;
    tg_say(literal(before)); tg_say(name); tg_say(literal(after));
}
TG_FN void reject(const char *why) { reject_text(why, (text){0, 0}, ""); }

TG_FN const tg_param *tg_find_param(const char *name) {
    for (uint32_t i = 0; i < tg_given->count; i++)
        if (text_equal((text){tg_given->entries[i].name, tg_given->entries[i].name_size}, literal(name))) return &tg_given->entries[i];
    return 0;
}
TG_FN const void *tg_param_value(const char *name, uint32_t kind, uint32_t i, uint32_t size) {
    const tg_param *p = tg_find_param(name);
    if (p && p->kind == kind && i < p->n) return (const char *)p->values + i * size;
    reject_text("parameter ", literal(name), " is missing");
    return 0;
}
TG_FN bool param_given(const char *name) { return tg_find_param(name) != 0; }
TG_FN uint32_t param_count(const char *name) { const tg_param *p = tg_find_param(name); return p ? p->n : 0; }
TG_FN double param_f64_at(const char *name, uint32_t i) { const double *v = tg_param_value(name, 1, i, 8); return v ? *v : 0; }
TG_FN int64_t param_i64_at(const char *name, uint32_t i) { const int64_t *v = tg_param_value(name, 2, i, 8); return v ? *v : 0; }
TG_FN double param_f64(const char *name) { return param_f64_at(name, 0); }
TG_FN int64_t param_i64(const char *name) { return param_i64_at(name, 0); }    /* also bool, duration and time */

TG_FN const char *tg_keep(text t) { char *at = tg_new(t.size); __builtin_memcpy(at, t.at, t.size); return at; }
/* A text is the rule's own copy: what the host wrote is gone with the next call. */
TG_FN text param_text_at(const char *name, uint32_t i) {
    const text *v = tg_param_value(name, 4, i, 8);
    return v ? (text){tg_keep(*v), v->size} : (text){0, 0};
}
TG_FN text param_text(const char *name) { return param_text_at(name, 0); }     /* also a field's name */
TG_FN text join(text a, text b, text c) {
    char *at = tg_new(a.size + b.size + c.size);
    __builtin_memcpy(at, a.at, a.size);
    __builtin_memcpy(at + a.size, b.at, b.size);
    __builtin_memcpy(at + a.size + b.size, c.at, c.size);
    return (text){at, a.size + b.size + c.size};
}

TG_FN input input_of(text name, uint32_t kind, uint32_t flags) {   /* flags: OPTIONAL, NULLS */
    uint32_t i = tg_the_plan.n_inputs;
    if (i == TG_INPUTS_MAX) { reject("too many fields are read: 64 at most"); return 0; }
    tg_inputs[i] = (tg_field){tg_keep(name), name.size, kind, flags & OPTIONAL};
    tg_nulls_shown[i] = flags & NULLS;
    tg_the_plan.n_inputs = i + 1;
    return i;
}
/* A name is a text or a string literal. */
#define input_f64(name) input_of(as_text(name), F64, 0)
#define input_i64(name) input_of(as_text(name), I64, 0)
#define input_number(name) input_of(as_text(name), NUMBER, 0)                  /* f64 or i64, read with f64() */
#define input_bool(name) input_of(as_text(name), BOOL, 0)
#define input_str(name) input_of(as_text(name), STR, 0)
#define input_event_time() input_of(literal("$time"), TIME, 0)
#define input_key() input_of(literal("$key"), STR, OPTIONAL)

TG_FN output output_of(text name, uint32_t kind, uint32_t flags) {
    uint32_t i = tg_the_plan.n_outputs;
    if (i == TG_OUTPUTS_MAX) { reject("too many fields are put out: 256 at most"); return 0; }
    tg_outputs[i] = (tg_field){name.size ? tg_keep(name) : 0, name.size, kind, flags};
    tg_the_plan.n_outputs = i + 1;
    return i;
}
#define output_f64(name) output_of(as_text(name), F64, 0)
#define output_i64(name) output_of(as_text(name), I64, 0)
#define output_bool(name) output_of(as_text(name), BOOL, 0)
#define output_str(name) output_of(as_text(name), STR, 0)
#define output_time(name) output_of(as_text(name), TIME, 0)
#define output_event_time(name) (tg_the_plan.time = output_time(name))
#define output_like(i, name) output_of(as_text(name), ANY, i)                  /* the input's kind and unit; no name: its name */
#define output_key(from) (tg_the_plan.key = output_like(from, ""))

/* The batch at hand. */
typedef struct { const void *values; const uint8_t *valid; uint32_t kind; const tg_column *column; tg_buffer numbers; } tg_in;
static tg_in tg_in_of[TG_INPUTS_MAX];
static const tg_batch *tg_now;
static const uint8_t *tg_usable;                          /* 0: every row has a value in each input that must have one */
static tg_buffer tg_usable_bits, tg_selected_bits, tg_late_bits;
static tg_result tg_answer;
static uint64_t tg_batch_n;

TG_INLINE bool tg_bit(const uint8_t *bits, uint32_t i) { return bits[i >> 3] >> (i & 7) & 1; }
TG_INLINE double f64(event e, input i) { return ((const double *)tg_in_of[i].values)[e.row]; }     /* of F64 and NUMBER */
TG_INLINE int64_t i64(event e, input i) { return ((const int64_t *)tg_in_of[i].values)[e.row]; }   /* of I64 and TIME */
TG_INLINE bool boolean(event e, input i) { return ((const uint8_t *)tg_in_of[i].values)[e.row]; }
TG_INLINE uint32_t code(event e, input i) { return ((const uint32_t *)tg_in_of[i].values)[e.row]; }
TG_INLINE text string(event e, input i) {
    const tg_column *c = tg_in_of[i].column;
    uint32_t s = code(e, i);
    return (text){c->dict_bytes + c->dict_offsets[s], c->dict_offsets[s + 1] - c->dict_offsets[s]};
}
TG_INLINE uint32_t kind_of(input i) { return tg_in_of[i].kind; }   /* of this batch's column; ANY: the stream has no such field */
TG_INLINE bool is_null(event e, input i) {
    return tg_in_of[i].kind == ANY || (tg_in_of[i].valid && !tg_bit(tg_in_of[i].valid, e.row));
}

TG_FN uint8_t *tg_bits(tg_buffer *b) {
    uint32_t bytes = (tg_now->rows + 7) / 8;
    uint8_t *at = tg_reserve(b, bytes + 8, 0);
    __builtin_memset(at, 0, bytes);
    return at;
}
/* The row cannot be used: counted for the ledger. */
TG_INLINE void ignore(event e) { (void)e; tg_answer.ignored++; }
/* The row comes too late: it goes to the rule's late output. */
TG_FN void late(event e) {
    if (!tg_answer.late) tg_answer.late = tg_bits(&tg_late_bits);
    ((uint8_t *)tg_late_bits.at)[e.row >> 3] |= (uint8_t)(1u << (e.row & 7));
}

TG_FN void tg_use(uint32_t i) {
    tg_in *in = &tg_in_of[i];
    const tg_column *c = &tg_now->columns[i];
    uint32_t rows = tg_now->rows;
    in->values = c->values, in->valid = c->valid, in->kind = c->kind, in->column = c;
    if (tg_inputs[i].kind == NUMBER && c->kind == I64) {
        double *to = tg_reserve(&in->numbers, rows * 8, 0);
        for (uint32_t r = 0; r < rows; r++) to[r] = (double)((const int64_t *)c->values)[r];
        in->values = to;
    }
    if (tg_nulls_shown[i] || !c->valid || c->kind == ANY) return;
    uint8_t *usable = tg_usable_bits.at;
    uint32_t bytes = (rows + 7) / 8;
    if (!tg_usable) {
        tg_usable = usable = tg_bits(&tg_usable_bits);
        __builtin_memset(usable, 0xff, bytes);
        if (rows & 7) usable[bytes - 1] = (uint8_t)((1u << (rows & 7)) - 1);
    }
    for (uint32_t b = 0; b < bytes; b++) usable[b] &= c->valid[b];
}

TG_FN void tg_begin(const tg_batch *batch) {
    tg_now = batch;
    tg_batch_n++;
    tg_usable = 0;
    tg_answer = (tg_result){0};
    for (uint32_t i = 0; i < tg_the_plan.n_inputs; i++) tg_use(i);
    if (!tg_usable) return;
    uint32_t n = 0;
    for (uint32_t b = 0; b < (batch->rows + 7) / 8; b++) n += (uint32_t)__builtin_popcount(tg_usable[b]);
    tg_answer.ignored = batch->rows - n;
}

/* Selects the rows for which `passes` says so. It is asked about every row, null ones too (their value is 0, their answer
   does not count), so that the loop can use SIMD: it must be a function of the event alone, without side effects. */
TG_INLINE void filter(bool (*passes)(event)) {
    uint32_t rows = tg_now->rows, r = 0;
    uint8_t *selected = tg_bits(&tg_selected_bits);
    for (; r + 64 <= rows; r += 64) {
        uint8_t pass[64];
        for (uint32_t i = 0; i < 64; i++) pass[i] = passes((event){r + i});
        for (uint32_t b = 0; b < 8; b++) {
            uint64_t eight;
            __builtin_memcpy(&eight, pass + 8 * b, 8);
            selected[r / 8 + b] = (uint8_t)(eight * 0x0102040810204080u >> 56);   /* the low bits of eight bytes in one byte */
        }
    }
    for (; r < rows; r++) selected[r >> 3] |= (uint8_t)(passes((event){r}) << (r & 7));
    if (tg_usable) for (uint32_t b = 0; b < (rows + 7) / 8; b++) selected[b] &= tg_usable[b];
    tg_answer.selected = selected;
}

/* Calls `use` for each row, in order. */
TG_INLINE void each(void (*use)(event)) {
    for (uint32_t r = 0; r < tg_now->rows; r++) if (!tg_usable || tg_bit(tg_usable, r)) use((event){r});
}

/* open() and process() make a module: the macros below write process() for the usual forms. A rule without outputs is a filter. */
#define RULE_ENTRY(open, process)                                                                                     \
    TG_EXPORT(tg_open) const tg_plan *tg_open(const tg_params *params) {                                              \
        tg_given = params;                                                                                            \
        open();                                                                                                       \
        tg_the_plan.inputs = tg_inputs, tg_the_plan.outputs = tg_outputs;                                             \
        tg_the_plan.mode = tg_the_plan.n_outputs ? 2 : 1;                                                             \
        return &tg_the_plan;                                                                                          \
    }                                                                                                                 \
    TG_EXPORT(tg_process) const tg_result *tg_process(const tg_batch *batch) {                                        \
        tg_begin(batch);                                                                                              \
        process();                                                                                                    \
        return tg_end();                                                                                              \
    }

/* bool passes(event): a filter of single events. */
#define FILTER(open, passes)                                                                                          \
    static void tg_do(void) { filter(passes); }                                                                       \
    RULE_ENTRY(open, tg_do)                                                                                           \
    TAKE_OVER(0, 0)

/* void use(event): emits rows for single events. */
#define EACH(open, use)                                                                                               \
    static void tg_do(void) { each(use); }                                                                            \
    RULE_ENTRY(open, tg_do)                                                                                           \
    TAKE_OVER(0, 0)

#include "edge_rows.h"
#include "edge_keys.h"
#include "edge_windows.h"
#include "edge_state.h"
#endif
