#include "edge_rule.h"

RULE({
    "name": "dedup", "version": 1, "abi": 1, "drops": "duplicate",
    "summary": "Drops events that a device sent twice, by an identifier or a sequence number",
    "parameters": [
        {"name": "id", "type": "field", "required": true, "summary": "the field that tells events of a key apart"},
        {"name": "mode", "type": "str", "default": "seen", "choices": ["seen", "sequence"],
         "summary": "seen: drop an id that is remembered; sequence: drop a whole number that is not above the last"},
        {"name": "count", "type": "i64", "default": 1000, "min": 1, "max": 1000000,
         "summary": "seen: ids remembered per key; sequence: a number this far below the last means that the device began anew"},
        {"name": "within", "type": "duration", "default": "0s", "min": 0, "summary": "seen: forget an id this long behind the watermark; 0: never for that"},
        {"name": "max_keys", "type": "i64", "default": 10000, "min": 1, "max": 1000000, "summary": "keys remembered"},
        {"name": "max_ids", "type": "i64", "default": 50000, "min": 1, "max": 1000000, "summary": "seen: ids remembered over all keys"}
    ]
})
SAMPLES("cases.samples")

/* An id is its bytes: a number's eight (a bool's one), or the string. Ids are kept whole: two of them are never taken for one. */
typedef struct id {
    struct id *chain, *newer;                 /* next in the bucket; the key's next */
    const void *owner;                        /* the key's memory */
    const char *at;
    uint32_t size, hash;
    int64_t time;
} id;
typedef struct { id *oldest, *newest; int64_t n, last; bool begun; } memory;

static input field, when;
static int64_t count, within, max_ids, n_ids;
static bool sequence;
static id **buckets;
static uint32_t bucket_n;

static text id_of(event e) {
    uint32_t kind = kind_of(field);
    if (kind == STR) return string(e, field);
    uint32_t size = kind == BOOL ? 1 : 8;
    return (text){(const char *)tg_in_of[field].values + e.row * size, size};
}

static void forget_oldest(memory *m) {
    id *old = m->oldest, **at = &buckets[old->hash & (bucket_n - 1)];
    while (*at != old) at = &(*at)->chain;
    *at = old->chain;
    m->oldest = old->newer;
    if (!m->oldest) m->newest = 0;
    m->n--, n_ids--;
    tg_free((void *)old->at, old->size);
    tg_free(old, sizeof *old);
}

static void make_room(memory *m) {
    while (m->n >= count) forget_oldest(m);
    while (n_ids >= max_ids) {
        if (!m->oldest || tg_keys.oldest != tg_keys.now) tg_key_close(tg_oldest_other());
        else forget_oldest(m);
    }
}

static uint32_t hash_of(text t, const memory *m) { return tg_hash(t) ^ (uint32_t)m * 0x9e3779b1u; }

static void remember(text t, uint32_t hash, int64_t time, memory *m) {
    id *i = tg_new(sizeof *i);
    *i = (id){buckets[hash & (bucket_n - 1)], 0, m, tg_keep(t), t.size, hash, time};
    buckets[hash & (bucket_n - 1)] = i;
    *(m->newest ? &m->newest->newer : &m->oldest) = i;
    m->newest = i;
    m->n++, n_ids++;
}

static bool is_new(event e, memory *m) {
    text t = id_of(e);
    uint32_t hash = hash_of(t, m);
    for (id *i = buckets[hash & (bucket_n - 1)]; i; i = i->chain)
        if (i->hash == hash && i->owner == m && text_equal((text){i->at, i->size}, t)) return false;
    make_room(m);
    remember(t, hash, i64(e, when), m);
    return true;
}

static bool is_above(event e, memory *m) {
    int64_t number = i64(e, field);
    if (m->begun && number <= m->last && (uint64_t)m->last - (uint64_t)number < (uint64_t)count) return false;
    m->last = number, m->begun = true;
    return true;
}

static bool passes(event e, void *m) { return sequence ? is_above(e, m) : is_new(e, m); }

static void on_watermark(void *state, int64_t watermark) {
    memory *m = state;
    while (m->oldest && (watermark == FOREVER || (within && m->oldest->time < watermark &&
                                                  (uint64_t)watermark - (uint64_t)m->oldest->time > (uint64_t)within))) forget_oldest(m);
}
static void process(void) { filter_by_key(passes, on_watermark); }

/* The ids of a key for another version: u32 size | bytes | i64 time of each, oldest first. Their number stands in the memory. */
static void write_ids(const void *state) {
    for (const id *i = ((const memory *)state)->oldest; i; i = i->newer) save_text((text){i->at, i->size}), save_bytes(&i->time, 8);
}
static bool read_ids(void *state) {
    memory *m = state;
    int64_t n = m->n, time;
    m->oldest = m->newest = 0, m->n = 0;
    for (; n > 0; n--) {
        text t;
        if (!load_text(&t) || !load_bytes(&time, 8)) return false;
        remember(t, hash_of(t, m), time, m);
    }
    return true;
}

static void open(void) {
    sequence = text_equal(param_text("mode"), literal("sequence"));
    field = input_of(param_text("id"), sequence ? I64 : ANY, 0);
    when = input_event_time();
    count = param_i64("count");
    within = param_i64("within");
    max_ids = param_i64("max_ids");
    if (count < 1) reject("count must be above 0");
    if (within < 0) reject("within must be 0 or above");
    if (max_ids < 1 || max_ids > 1000000) reject("max_ids must be from 1 to 1000000");
    if (sequence && within) reject("within has no meaning in mode sequence: leave it out");
    keep_by_key(sizeof(memory));
    for (bucket_n = 64; !sequence && bucket_n < max_ids; bucket_n *= 2) {}
    buckets = tg_new(bucket_n * (uint32_t)sizeof *buckets);
}
RULE_ENTRY(open, process)
TAKE_OVER(write_ids, read_ids)
