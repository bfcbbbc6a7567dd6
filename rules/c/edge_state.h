/* Part of edge_rule.h: what another version, or this one with other parameters, takes over (rules/ABI.md, Taking over): what
   edge_keys.h and edge_windows.h hold, and what keep_static() names. The forms FILTER, KEYED_FILTER, EACH, KEYED and WINDOWED have it;
   with RULE_ENTRY add a line TAKE_OVER(0, 0). It is of use only if a state or tally means the same in another instance:
   - no pointers of your own in them; a state that has `windows` has them as its first member, and no others;
   - static variables that change after open() are named by keep_static(), or begin anew;
   - where a parameter gives the state its meaning (a unit, a mode), state_means() says which in open().
   A state with pointers: TAKE_OVER(write, read), two functions called for each key after its state, of save_bytes() and load_bytes(), save_text() and load_text().
   Different sizes, inputs, outputs, windows or meanings are refused, as is another state version (RULE_STATE, that of the manifest).

   Saved: u64 shape | the statics | u32 keys | each key, longest unused first: u32 name_size | name | state | windows | the author's
   windows: u32 n | each, newest first: i64 start | tally */
#ifndef RULE_STATE
#define RULE_STATE 1                                           /* `state` of the manifest: raise both when what a state holds changes its meaning */
#endif
enum { TG_STATICS_MAX = 16 };
typedef struct { const uint8_t *at; uint32_t size; } tg_saved;
static struct {
    struct { void *at; uint32_t size; } statics[TG_STATICS_MAX];
    uint32_t n_statics, taken;
    uint64_t meaning;
    uint8_t *to;                                          /* 0: only measure */
    const uint8_t *from, *end;
    tg_buffer bytes;
    tg_saved saved;
} tg_over;

TG_FN uint64_t tg_mix(uint64_t h, const void *at, uint32_t size) {   /* FNV-1a */
    for (uint32_t i = 0; i < size; i++) h = (h ^ ((const uint8_t *)at)[i]) * 1099511628211u;
    return h;
}

/* In open(). */
TG_FN void keep_static(void *at, uint32_t size) {
    if (tg_over.n_statics == TG_STATICS_MAX) { reject("too many static variables are kept: 16 at most"); return; }
    tg_over.statics[tg_over.n_statics].at = at;
    tg_over.statics[tg_over.n_statics++].size = size;
}
TG_FN void state_means(int64_t what) { tg_over.meaning = tg_mix(tg_over.meaning + 1, &what, sizeof what); }

/* In the functions of TAKE_OVER. load_bytes: false where there are no more, which refuses the state; `at` is zeroed then.
   A text is loaded in place: keep a copy. */
TG_FN void save_bytes(const void *at, uint32_t size) {
    if (tg_over.to) __builtin_memcpy(tg_over.to + tg_over.taken, at, size);
    tg_over.taken += size;
}
TG_FN bool load_bytes(void *at, uint32_t size) {
    bool there = (uint32_t)(tg_over.end - tg_over.from) >= size;
    if (there) __builtin_memcpy(at, tg_over.from, size);
    else __builtin_memset(at, 0, size);
    tg_over.from = there ? tg_over.from + size : tg_over.end;
    return there;
}

TG_FN void save_text(text t) { save_bytes(&t.size, 4), save_bytes(t.at, t.size); }
TG_FN bool load_text(text *t) {
    if (!load_bytes(&t->size, 4) || (uint32_t)(tg_over.end - tg_over.from) < t->size) return false;
    t->at = (const char *)tg_over.from;
    tg_over.from += t->size;
    return true;
}

TG_FN uint64_t tg_fields_shape(uint64_t h, const tg_field *fields, uint32_t n) {
    h = tg_mix(h, &n, sizeof n);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t words[] = {fields[i].name_size, fields[i].kind, fields[i].flags};
        h = tg_mix(tg_mix(h, words, sizeof words), fields[i].name, fields[i].name_size);
    }
    return h;
}
/* What must be equal for the bytes to mean the same; 1: there is no state. */
TG_FN uint64_t tg_shape(void) {
    if (!tg_keys.bucket_n && !tg_over.n_statics) return 1;
    const int64_t numbers[] = {tg_keys.bucket_n ? tg_keys.state_bytes : -1, tg_windows.length, tg_windows.hop, tg_windows.bytes, (int64_t)tg_over.meaning};
    uint64_t h = tg_mix(14695981039346656037u, numbers, sizeof numbers);
    for (uint32_t i = 0; i < tg_over.n_statics; i++) h = tg_mix(h, &tg_over.statics[i].size, 4);
    h = tg_fields_shape(h, tg_inputs, tg_the_plan.n_inputs);
    return tg_fields_shape(h, tg_outputs, tg_the_plan.n_outputs);
}

TG_FN void tg_save_windows(const windows *ws, uint32_t saved_at) {   /* saved_at: where `ws` itself has been written */
    uint32_t n = 0;
    if (tg_over.to) __builtin_memset(tg_over.to + saved_at, 0, sizeof ws->newest);   /* an address, of no use elsewhere */
    for (window *w = ws->newest; w; w = w->older) n++;
    save_bytes(&n, sizeof n);
    for (window *w = ws->newest; w; w = w->older) save_bytes(&w->start, 8), save_bytes(tg_tally(w), tg_windows.bytes);
}
TG_FN bool tg_load_windows(windows *ws) {
    uint32_t n;
    window **at = &ws->newest, *newer = 0;
    *at = 0;
    if (!load_bytes(&n, sizeof n)) return false;
    for (; n; n--, at = &(*at)->older) {
        int64_t start;
        if (!load_bytes(&start, 8) || start < -(INT64_C(3) << 61) || start > INT64_C(3) << 61 || (newer && start >= newer->start)) return false;
        window *w = tg_new((uint32_t)sizeof *w + tg_windows.bytes);
        *w = (window){0, start, start + tg_windows.length};
        *at = newer = w;
        tg_windows.n++;
        if (!load_bytes(tg_tally(w), tg_windows.bytes)) return false;
    }
    return true;
}

TG_FN void tg_write(void (*write)(const void *)) {
    uint64_t shape = tg_shape();
    tg_over.taken = 0;
    save_bytes(&shape, sizeof shape);
    for (uint32_t i = 0; i < tg_over.n_statics; i++) save_bytes(tg_over.statics[i].at, tg_over.statics[i].size);
    save_bytes(&tg_keys.n, sizeof tg_keys.n);
    for (tg_key *k = tg_keys.oldest; k; k = k->newer) {
        save_text((text){k->name, k->name_size});
        save_bytes(tg_state(k), tg_keys.state_bytes);
        if (tg_windows.length) tg_save_windows(tg_state(k), tg_over.taken - tg_keys.state_bytes);
        if (write) write(tg_state(k));
    }
}
TG_FN const tg_saved *tg_save_state(void (*write)(const void *)) {
    tg_over.to = 0;
    tg_write(write);
    uint32_t size = tg_over.taken;
    tg_over.to = tg_try(size);
    if (!tg_over.to) return 0;
    tg_write(write);
    tg_over.saved = (tg_saved){tg_over.to, size};
    return &tg_over.saved;
}

TG_FN bool tg_load_key(bool (*read)(void *)) {
    text name;
    if (!load_text(&name)) return false;
    uint32_t hash = tg_hash(name);
    if (tg_key_find(name, hash)) return false;
    tg_key *k = tg_key_make(name, hash);
    tg_key_link(k);
    return load_bytes(tg_state(k), tg_keys.state_bytes) && (!tg_windows.length || tg_load_windows(tg_state(k))) && (!read || read(tg_state(k)));
}
TG_FN bool tg_load_state(const tg_saved *saved, bool (*read)(void *)) {
    uint64_t shape;
    uint32_t n;
    tg_over.from = saved->at, tg_over.end = saved->at + saved->size;
    if (!load_bytes(&shape, sizeof shape) || shape != tg_shape()) return false;
    for (uint32_t i = 0; i < tg_over.n_statics; i++) if (!load_bytes(tg_over.statics[i].at, tg_over.statics[i].size)) return false;
    if (!load_bytes(&n, sizeof n) || (n && !tg_keys.bucket_n)) return false;
    for (; n; n--) if (!tg_load_key(read)) return false;
    return tg_over.from == tg_over.end;
}

#define TAKE_OVER(write, read)                                                                                        \
    TG_EXPORT(tg_save) const tg_saved *tg_save(void) { return tg_save_state(write); }                                 \
    TG_EXPORT(tg_migrate) uint32_t tg_migrate(const tg_saved *saved, uint32_t from_state) {                           \
        return from_state == RULE_STATE && tg_load_state(saved, read);                                                     \
    }
