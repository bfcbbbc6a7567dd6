/* Part of edge_rule.h: windows of event time per key. A window [start, start + length) opens at its first event, start being a
   whole multiple of `hop` since 1970, and closes when the key's watermark reaches its end. An event all of whose windows have
   closed is late. Closing order: keys by first appearance in the batch, then start. At most `max_windows` (a parameter of the
   rule, 20,000 if it has none) are open: a further one first closes the longest unused key, or, if that is the key at hand,
   its oldest window. An event time outside 1823 to 2116 (2^62 ns around 1970) is ignored. */
typedef struct window { struct window *older; int64_t start, end; } window;   /* the author's struct follows it */
typedef struct { window *newest; int64_t closed; bool any_closed; } windows;  /* by start, newest first; all ends <= closed are closed */
static struct { int64_t length, hop, per_event; uint32_t n, max, bytes; input time; } tg_windows;

/* In open(), once. hop 0: length. The macro WINDOWED sets `bytes`; a struct that ends in an array of n asks for more here. */
TG_FN void window_every(int64_t length, int64_t hop, uint32_t more_bytes) {
    int64_t max = param_given("max_windows") ? param_i64("max_windows") : 20000;
    if (!hop) hop = length;
    if (length < 1 || length > INT64_C(1) << 61) reject("the window's length must be above 0");
    else if (hop < 1 || hop > length) reject("hop must be above 0 and at most length");
    else if (length / hop > 64) reject("an event would be in more than 64 windows: make hop longer");
    else {
        tg_windows.per_event = (length - 1) / hop + 1;
        if (max < tg_windows.per_event || max > 1000000) reject("max_windows must be from length / hop to 1000000");
    }
    tg_windows.length = length, tg_windows.hop = hop, tg_windows.max = (uint32_t)max;
    tg_windows.bytes += more_bytes;
    tg_windows.time = input_event_time();
}
TG_INLINE int64_t event_time(event e) { return i64(e, tg_windows.time); }
TG_INLINE void *tg_tally(window *w) { return w + 1; }
_Static_assert(sizeof(window) % 8 == 0, "the author's struct after it is 8-aligned");

/* Closes the windows of the key at hand that end at or before the watermark, oldest first. */
TG_INLINE void windows_close(windows *ws, int64_t watermark, void (*close)(const window *, void *)) {
    window **at = &ws->newest, *closing = 0;
    while (*at && (*at)->end > watermark) at = &(*at)->older;
    for (window *w = *at, *older; w; w = older) older = w->older, w->older = closing, closing = w;
    *at = 0;
    if (!ws->any_closed || watermark > ws->closed) ws->closed = watermark, ws->any_closed = true;
    for (window *w = closing, *newer; w; w = newer) {
        newer = w->older;
        close(w, tg_tally(w));
        tg_free(w, (uint32_t)sizeof *w + tg_windows.bytes);
        tg_windows.n--;
    }
}

TG_INLINE void tg_windows_room(windows *ws, void (*close)(const window *, void *)) {
    while (tg_windows.n + tg_windows.per_event > tg_windows.max) {
        window *oldest = ws->newest;
        if (!oldest || tg_keys.oldest != tg_keys.now) { tg_key_close(tg_oldest_other()); continue; }
        while (oldest->older) oldest = oldest->older;
        windows_close(ws, oldest->end, close);
    }
}

TG_INLINE void tg_windows_add(event e, windows *ws, void (*add)(event, void *), void (*close)(const window *, void *)) {
    int64_t t = event_time(e), into = t % tg_windows.hop, s = t - (into < 0 ? into + tg_windows.hop : into);
    tg_windows_room(ws, close);
    window **at = &ws->newest;
    bool added = false;
    for (; s > t - tg_windows.length && !(ws->any_closed && s + tg_windows.length <= ws->closed); s -= tg_windows.hop) {
        while (*at && (*at)->start > s) at = &(*at)->older;
        if (!*at || (*at)->start < s) {
            window *w = tg_new((uint32_t)sizeof *w + tg_windows.bytes);
            *w = (window){*at, s, s + tg_windows.length};
            *at = w;
            tg_windows.n++;
        }
        add(e, tg_tally(*at));
        added = true;
    }
    if (!added) late(e);
}

/* Adds the event to its windows. */
TG_INLINE void windows_add(event e, windows *ws, void (*add)(event, void *), void (*close)(const window *, void *)) {
    int64_t t = event_time(e);
    window *w = ws->newest;
    if (w && tg_windows.per_event == 1 && (uint64_t)t - (uint64_t)w->start < (uint64_t)(w->end - w->start)) add(e, tg_tally(w));
    else if (t < -(INT64_C(1) << 62) || t > INT64_C(1) << 62) ignore(e);
    else tg_windows_add(e, ws, add, close);
}

/* void add(event, tally *) and void close(const window *, tally *): a tally is zeroed when its window opens. open() calls window_every().
   With bool counts(event), it is as if other events were not there. */
#define WINDOWED(open, tally, add, close) WINDOWED_WHERE(open, tally, tg_always, add, close)
#define WINDOWED_WHERE(open, tally, counts, add, close)                                                               \
    static void tg_add(event e, void *t) { add(e, (tally *)t); }                                                      \
    static void tg_shut(const window *w, void *t) { close(w, (tally *)t); }                                           \
    static void tg_use_state(event e, void *s) { windows_add(e, s, tg_add, tg_shut); }                                \
    static void tg_tell(void *s, int64_t w) { windows_close(s, w, tg_shut); }                                         \
    static void tg_do(void) { each_by_key_where(counts, tg_use_state, tg_tell); }                                     \
    static void tg_opened(void) { keep_by_key(sizeof(windows)); tg_windows.bytes = sizeof(tally); open(); }           \
    RULE_ENTRY(tg_opened, tg_do)                                                                                      \
    TAKE_OVER(0, 0)
