/* Part of edge_rule.h: state per key. Each key of the stream has the author's struct, zeroed at first; a stream without a key
   has one. At most `max_keys` (a parameter of the rule, 10,000 if it has none) are kept: a further key first closes the one
   that has been unused for the most batches. A key that the host forgets is closed too. To close a key is to call
   on_watermark with FOREVER and free its state. */
typedef struct tg_key {
    struct tg_key *chain, *older, *newer;                 /* next in the bucket; neighbours by use */
    const char *name;
    uint32_t name_size, hash, slot, out_code;
    uint64_t out_batch;                                   /* out_code is the key's code in the rows of this batch */
} tg_key;
static struct {
    tg_key **buckets, *oldest, *newest, *now;
    tg_key **slots;                                       /* by code of this batch, 0 before the first look */
    uint32_t bucket_n, n, max, state_bytes, codes;
    input key;
    tg_buffer slots_bytes;
    void (*on_watermark)(void *, int64_t);
} tg_keys;

/* In open(), once: each key has `bytes` of state. The macros do it. */
TG_FN void keep_by_key(uint32_t bytes) {
    int64_t max = param_given("max_keys") ? param_i64("max_keys") : 10000;
    if (max < 1 || max > 1000000) reject("max_keys must be from 1 to 1000000");
    tg_keys.max = (uint32_t)max;
    tg_keys.state_bytes = bytes;
    tg_keys.key = input_key();
    tg_keys.bucket_n = 64;
    tg_keys.buckets = tg_new(64 * sizeof(tg_key *));
}
TG_INLINE input key_input(void) { return tg_keys.key; }
TG_INLINE text key_text(void) { return (text){tg_keys.now->name, tg_keys.now->name_size}; }   /* of the key at hand; empty without a key */

TG_INLINE void *tg_state(tg_key *k) { return k + 1; }
_Static_assert(sizeof(tg_key) % 8 == 0, "the state after it is 8-aligned");

TG_FN text tg_key_name(uint32_t code) {
    const tg_column *c = tg_in_of[tg_keys.key].column;
    if (c->kind == ANY) return (text){"", 0};
    return (text){c->dict_bytes + c->dict_offsets[code], c->dict_offsets[code + 1] - c->dict_offsets[code]};
}
TG_FN uint32_t tg_hash(text t) {                          /* FNV-1a, then murmur3's finish */
    uint32_t h = 2166136261u;
    for (uint32_t i = 0; i < t.size; i++) h = (h ^ (uint8_t)t.at[i]) * 16777619u;
    h = (h ^ h >> 16) * 0x85ebca6bu;
    h = (h ^ h >> 13) * 0xc2b2ae35u;
    return h ^ h >> 16;
}
TG_FN tg_key *tg_key_find(text name, uint32_t hash) {
    tg_key *k = tg_keys.buckets[hash & (tg_keys.bucket_n - 1)];
    while (k && (k->hash != hash || !text_equal((text){k->name, k->name_size}, name))) k = k->chain;
    return k;
}

TG_FN void tg_key_unlink(tg_key *k) {
    *(k->older ? &k->older->newer : &tg_keys.oldest) = k->newer;
    *(k->newer ? &k->newer->older : &tg_keys.newest) = k->older;
}
TG_FN void tg_key_link(tg_key *k) {
    k->older = tg_keys.newest, k->newer = 0;
    *(k->older ? &k->older->newer : &tg_keys.oldest) = k;
    tg_keys.newest = k;
}

TG_FN void tg_key_close(tg_key *k) {
    tg_key *before = tg_keys.now;
    tg_keys.now = k;
    if (tg_keys.on_watermark) tg_keys.on_watermark(tg_state(k), FOREVER);
    tg_keys.now = before == k ? 0 : before;
    if (k->slot < tg_keys.codes && tg_keys.slots[k->slot] == k) tg_keys.slots[k->slot] = 0;
    tg_key **at = &tg_keys.buckets[k->hash & (tg_keys.bucket_n - 1)];
    while (*at != k) at = &(*at)->chain;
    *at = k->chain;
    tg_key_unlink(k);
    tg_keys.n--;
    tg_free((void *)k->name, k->name_size);
    tg_free(k, (uint32_t)sizeof *k + tg_keys.state_bytes);
}

/* The longest unused key that is not at hand. There must be one. */
TG_INLINE tg_key *tg_oldest_other(void) { return tg_keys.oldest == tg_keys.now ? tg_keys.now->newer : tg_keys.oldest; }

TG_FN void tg_keys_rehash(void) {
    uint32_t n = 2 * tg_keys.bucket_n;
    tg_key **buckets = tg_new(n * (uint32_t)sizeof *buckets);
    for (tg_key *k = tg_keys.oldest; k; k = k->newer) k->chain = buckets[k->hash & (n - 1)], buckets[k->hash & (n - 1)] = k;
    tg_free(tg_keys.buckets, tg_keys.bucket_n * (uint32_t)sizeof *buckets);
    tg_keys.buckets = buckets, tg_keys.bucket_n = n;
}

TG_FN tg_key *tg_key_make(text name, uint32_t hash) {     /* a new key, not yet linked */
    if (tg_keys.n >= tg_keys.bucket_n) tg_keys_rehash();
    tg_key *k = tg_new((uint32_t)sizeof *k + tg_keys.state_bytes);
    k->name = tg_keep(name), k->name_size = name.size, k->hash = hash;
    k->chain = tg_keys.buckets[hash & (tg_keys.bucket_n - 1)];
    tg_keys.buckets[hash & (tg_keys.bucket_n - 1)] = k;
    tg_keys.n++;
    return k;
}

/* The key of a code, at its first row in this batch: found or made, and now the last used. */
TG_FN tg_key *tg_key_touch(uint32_t code) {
    text name = tg_key_name(code);
    uint32_t hash = tg_hash(name);
    tg_key *k = tg_key_find(name, hash);
    if (k) tg_key_unlink(k);
    else {
        while (tg_keys.n >= tg_keys.max) tg_key_close(tg_keys.oldest);    /* several where fewer are kept than the version that this one took over from */
        k = tg_key_make(name, hash);
    }
    tg_key_link(k);
    k->slot = code;
    return tg_keys.slots[code] = k;
}

TG_FN void tg_keys_begin(void (*on_watermark)(void *, int64_t)) {
    const tg_column *c = tg_in_of[tg_keys.key].column;
    tg_keys.codes = c->kind == ANY ? 1 : c->dict_n;
    tg_keys.slots = tg_reserve(&tg_keys.slots_bytes, tg_keys.codes * (uint32_t)sizeof(tg_key *), 0);
    __builtin_memset(tg_keys.slots, 0, tg_keys.codes * sizeof(tg_key *));
    tg_keys.on_watermark = on_watermark;
}

TG_FN void tg_keys_end(void) {                            /* tells each key of the batch its watermark, by first appearance */
    bool keyed = tg_in_of[tg_keys.key].kind != ANY;
    for (uint32_t c = 0; c < tg_keys.codes; c++) {
        int64_t watermark = keyed ? tg_now->key_watermarks[c] : tg_now->watermark;
        if (!tg_keys.on_watermark && watermark != FOREVER) continue;
        text name = tg_key_name(c);
        tg_key *k = tg_keys.slots[c] ? tg_keys.slots[c] : tg_key_find(name, tg_hash(name));
        if (!k) continue;
        tg_keys.now = k;
        if (watermark == FOREVER) tg_key_close(k);
        else tg_keys.on_watermark(tg_state(k), watermark);
    }
    tg_keys.now = 0;
    tg_keys.codes = 0;
}

TG_INLINE tg_key *tg_key_of(uint32_t row) {
    uint32_t c = tg_now->key_codes ? tg_now->key_codes[row] : 0;
    tg_key *k = tg_keys.slots[c];
    return tg_keys.now = k ? k : tg_key_touch(c);
}

TG_INLINE bool tg_always(event e) { (void)e; return true; }

/* Calls `use` for each row that `counts` with the state of its key; then `on_watermark` (or 0) for each key of the batch. */
TG_INLINE void each_by_key_where(bool (*counts)(event), void (*use)(event, void *), void (*on_watermark)(void *, int64_t)) {
    tg_keys_begin(on_watermark);
    for (uint32_t r = 0; r < tg_now->rows; r++)
        if ((!tg_usable || tg_bit(tg_usable, r)) && counts((event){r})) use((event){r}, tg_state(tg_key_of(r)));
    tg_keys_end();
}
TG_INLINE void each_by_key(void (*use)(event, void *), void (*on_watermark)(void *, int64_t)) { each_by_key_where(tg_always, use, on_watermark); }

/* Selects the rows for which `passes` says so, given the state of their key. */
TG_INLINE void filter_by_key(bool (*passes)(event, void *), void (*on_watermark)(void *, int64_t)) {
    uint8_t *selected = tg_bits(&tg_selected_bits);
    tg_answer.selected = selected;
    tg_keys_begin(on_watermark);
    for (uint32_t r = 0; r < tg_now->rows; r++)
        if ((!tg_usable || tg_bit(tg_usable, r)) && passes((event){r}, tg_state(tg_key_of(r)))) selected[r >> 3] |= (uint8_t)(1u << (r & 7));
    tg_keys_end();
}

/* The key at hand, into an output made by output_key(). */
TG_FN void put_key(output o) {
    tg_key *k = tg_keys.now;
    if (kind_of(tg_keys.key) == ANY) return;
    if (k->out_batch != tg_batch_n) k->out_batch = tg_batch_n, k->out_code = tg_intern(o, key_text());
    ((uint32_t *)tg_out_of[o].values.at)[tg_fill(o)] = k->out_code;
}

/* bool passes(event, state *): a filter that remembers something of each key. */
#define KEYED_FILTER(open, state, passes)                                                                             \
    static bool tg_passes(event e, void *s) { return passes(e, (state *)s); }                                         \
    static void tg_do(void) { filter_by_key(tg_passes, 0); }                                                          \
    static void tg_opened(void) { keep_by_key(sizeof(state)); open(); }                                               \
    RULE_ENTRY(tg_opened, tg_do)                                                                                      \
    TAKE_OVER(0, 0)

/* void use(event, state *) and void on_watermark(state *, int64_t): emits rows; the watermark is also the timer. */
#define KEYED(open, state, use, on_watermark)                                                                         \
    static void tg_use_state(event e, void *s) { use(e, (state *)s); }                                                \
    static void tg_tell(void *s, int64_t w) { on_watermark((state *)s, w); }                                          \
    static void tg_do(void) { each_by_key(tg_use_state, tg_tell); }                                                   \
    static void tg_opened(void) { keep_by_key(sizeof(state)); open(); }                                               \
    RULE_ENTRY(tg_opened, tg_do)                                                                                      \
    TAKE_OVER(0, 0)
