/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blobs that were seen, and their way from a file of containerd's to an offer; see content.h. One
 * step of one blob is with a worker at a time; those that a client waits for go first.
 */
#include "content.h"

#include <stdio.h>
#include <string.h>

#include "blob_internal.h"
#include "bytes.h"
#include "digest.h"
#include "log.h"

#define TICK_MS 1000
static_assert(STORE_CONTENT_BYTES_MAX / PIECE_BYTES_MAX == 4 * CONTENT_PIECES_PER_TICK,
              "as content.h says");

static struct digest digest_of_key(const uint8_t key[32])
{
    struct digest digest = {.algorithm = DIGEST_SHA256};
    memcpy(digest.bytes, key, 32);
    return digest;
}

/* ---- copies ---- */

struct content_copy *content_copy_ref(struct content_copy *copy)
{
    copy->refs++;
    return copy;
}

void content_copy_put(struct content_copy *copy)
{
    if (copy == NULL || --copy->refs > 0)
        return;
    int err = copy->content->store.remove(copy->content->store.self, copy->id);
    ASSERT(err == 0);
    (void)loop_alloc(NULL, copy, 0);
}

int content_read(const struct content_copy *copy, uint32_t piece, uint8_t *out, uint32_t byte_count,
                 struct piece_record *record)
{
    const struct store *store = &copy->content->store;
    return store->read(store->self, copy->id, piece, out, byte_count, record);
}

/* ---- entries ---- */

struct content_entry *content__find(struct content *content, const uint8_t key[32])
{
    struct content_entry *entry;
    HASH_FIND(hh, content->entries, key, 32, entry);
    return entry;
}

static void drop_copy(struct content_entry *entry)
{
    content_copy_put(entry->copy);
    entry->copy = NULL;
}

static void unqueue(struct content *content, struct content_entry *entry)
{
    if (!entry->queued)
        return;
    struct content_entry **link = &content->first;
    while (*link != entry)
        link = &(*link)->next;
    *link = entry->next;
    if (content->last == &entry->next)
        content->last = link;
    entry->queued = false;
}

static void enqueue(struct content *content, struct content_entry *entry)
{
    if (entry->queued)
        return;
    entry->queued = true;
    if (entry->urgent) {
        entry->next = content->first;
        if (content->first == NULL)
            content->last = &entry->next;
        content->first = entry;
    } else {
        entry->next = NULL;
        *content->last = entry;
        content->last = &entry->next;
    }
}

/* Every move an entry may make: a row for each state it is in, a bit for each it may go to. */
static bool may_move(enum content_state from, enum content_state to)
{
    static const uint8_t moves[] = {
        [CONTENT_ABSENT] = 1 << CONTENT_DUE,
        [CONTENT_DUE] =
            1 << CONTENT_ABSENT | 1 << CONTENT_HASHING | 1 << CONTENT_READY | 1 << CONTENT_WRONG,
        [CONTENT_HASHING] =
            1 << CONTENT_ABSENT | 1 << CONTENT_DUE | 1 << CONTENT_READY | 1 << CONTENT_WRONG,
        [CONTENT_READY] = 1 << CONTENT_ABSENT | 1 << CONTENT_DUE | 1 << CONTENT_OFFERED,
        [CONTENT_OFFERED] = 1 << CONTENT_ABSENT | 1 << CONTENT_DUE | 1 << CONTENT_WRONG,
        [CONTENT_WRONG] = 1 << CONTENT_ABSENT | 1 << CONTENT_DUE,
    };
    return (moves[from] & 1 << to) != 0;
}

/* Ends what the old state stood for. */
static void set_state(struct content *content, struct content_entry *entry, enum content_state to)
{
    ASSERT(may_move(entry->state, to));
    const struct digest digest = digest_of_key(entry->key);
    char name[SHORT_HEX_BYTES];
    log_to(&content->loop->env, LOG_TRACE, "content: blob=%s state=%d -> %d",
           short_hex(entry->key, name), entry->state, to);
    bool ends = entry->state == CONTENT_OFFERED;
    entry->state = to;
    if (ends) {
        content->counters.offered--;
        content->counters.gone++;
        blob_content__end(content->blobs, &digest, entry->copy);
    }
    if (to == CONTENT_OFFERED)
        content->counters.offered++;
    if (to == CONTENT_ABSENT || to == CONTENT_DUE || to == CONTENT_WRONG)
        drop_copy(entry);
    if (to == CONTENT_DUE)
        enqueue(content, entry);
    if (to == CONTENT_ABSENT || to == CONTENT_WRONG || to == CONTENT_OFFERED)
        entry->urgent = false;
}

static void forget(struct content *content, struct content_entry *entry)
{
    if (entry->state != CONTENT_ABSENT)
        set_state(content, entry, CONTENT_ABSENT);
    unqueue(content, entry);
    HASH_DEL(content->entries, entry);
    (void)loop_alloc(NULL, entry, 0);
}

static struct content_entry *new_entry(struct content *content, const uint8_t key[32])
{
    if (HASH_COUNT(content->entries) >= CONTENT_SEEN_MAX)
        forget(content, content->entries);
    struct content_entry *entry = loop_alloc(NULL, NULL, sizeof *entry);
    if (entry == NULL)
        return NULL;
    *entry = (struct content_entry){.state = CONTENT_ABSENT};
    memcpy(entry->key, key, sizeof entry->key);
    HASH_ADD(hh, content->entries, key, sizeof entry->key, entry);
    if (table_left_out(entry->hh)) {
        (void)loop_alloc(NULL, entry, 0);
        return NULL;
    }
    content->dirty = true;
    return entry;
}

struct content_entry *content__remember(struct content *content, const uint8_t key[32])
{
    struct content_entry *entry = content__find(content, key);
    if (entry == NULL)
        return new_entry(content, key);
    /* To the young end; without memory for that it is forgotten. */
    HASH_DEL(content->entries, entry);
    HASH_ADD(hh, content->entries, key, sizeof entry->key, entry);
    if (!table_left_out(entry->hh))
        return entry;
    if (entry->state != CONTENT_ABSENT)
        set_state(content, entry, CONTENT_ABSENT);
    unqueue(content, entry);
    (void)loop_alloc(NULL, entry, 0);
    return NULL;
}

/* ---- steps ---- */

static void step_run(struct loop_work *work)
{
    struct content_step *step = (struct content_step *)work;
    const struct store *store = &step->content->store;
    int err = 0;
    if (step->id == 0) {
        err = store_content_find(store, &step->digest, &step->size_bytes);
        if (err == 0 && step->size_bytes == 0)
            err = E_NOT_FOUND; /* nobody needs help with nothing */
        if (err == 0)
            err = store->create(store->self, &step->digest, PIECE_CUT_PLAIN, step->size_bytes,
                                &step->id);
    }
    step->status = err != 0 ? err : store->seal(store->self, step->id);
}

static void step_done(struct loop_work *work, int status);

/* Gives the first blob of the queue to a worker. */
static void step_start(struct content *content)
{
    struct content_entry *entry = content->first;
    struct content_step *step = &content->step;
    unqueue(content, entry);
    *step = (struct content_step){.work = {.run = step_run, .done = step_done},
                                  .content = content,
                                  .digest = digest_of_key(entry->key),
                                  .running = true};
    if (entry->copy != NULL) {
        step->copy = content_copy_ref(entry->copy);
        step->id = entry->copy->id;
    }
    if (loop_submit(content->loop, &step->work) == 0)
        return;
    step->running = false;
    content_copy_put(step->copy);
    if (entry->state == CONTENT_DUE)
        set_state(content, entry, CONTENT_ABSENT); /* a scan finds it again */
}

/* The file that a look found; NULL without memory. */
static struct content_copy *new_copy(const struct content_step *step)
{
    struct content_copy *copy = loop_alloc(NULL, NULL, sizeof *copy);
    if (copy == NULL) {
        int err = step->content->store.remove(step->content->store.self, step->id);
        ASSERT(err == 0);
        return NULL;
    }
    *copy = (struct content_copy){
        .content = step->content, .refs = 1, .id = step->id, .size_bytes = step->size_bytes};
    return copy;
}

static void wrong_bytes(struct content *content, struct content_entry *entry)
{
    char name[SHORT_HEX_BYTES];
    content->counters.wrong++;
    log_to(&content->loop->env, LOG_WARN,
           "content: damaged file in the content store blob=%s; it is not served: "
           "`ctr content rm` and pull again",
           short_hex(entry->key, name));
    set_state(content, entry, CONTENT_WRONG);
}

/* Returns the pieces that were told. */
static uint32_t try_offer(struct content *content, struct content_entry *entry)
{
    const struct digest digest = digest_of_key(entry->key);
    struct piece_layout layout;
    if (blob_content__offer(content->blobs, &digest, entry->copy) != 0)
        return 0;
    set_state(content, entry, CONTENT_OFFERED);
    return piece_layout_of(entry->copy->size_bytes, &layout) == 0 ? layout.piece_count : 0;
}

/* What a step of an entry that is still in its state has shown. */
static void judge(struct content *content, struct content_entry *entry, int status)
{
    switch (status) {
    case 0:
        if (entry->state == CONTENT_DUE || entry->state == CONTENT_HASHING) {
            set_state(content, entry, CONTENT_READY);
            (void)try_offer(content, entry);
        }
        break;
    case E_AGAIN:
        if (entry->state == CONTENT_DUE)
            set_state(content, entry, CONTENT_HASHING);
        if (entry->state == CONTENT_HASHING)
            enqueue(content, entry);
        break;
    case E_DIGEST:
        wrong_bytes(content, entry);
        break;
    case E_NOT_FOUND: /* changed under our eyes: what is there now is another file */
        set_state(content, entry, entry->state == CONTENT_DUE ? CONTENT_ABSENT : CONTENT_DUE);
        break;
    default:
        set_state(content, entry, CONTENT_ABSENT);
        break;
    }
}

/* The entry has heard of its step's end. */
static void settle(struct content *content, struct content_entry *entry, struct content_copy *copy,
                   int status)
{
    const struct content_step *step = &content->step;
    const struct digest digest = step->digest;
    bool looked = step->copy == NULL;
    if (looked && entry->state == CONTENT_DUE && copy == NULL)
        set_state(content, entry, CONTENT_ABSENT); /* nothing there, or no memory */
    else if (looked && entry->state == CONTENT_DUE) {
        entry->copy = content_copy_ref(copy);
        judge(content, entry, status);
    } else if (!looked && entry->copy == copy)
        judge(content, entry, status);
    if (entry->again) {
        entry->again = false;
        content__look(content, entry);
    }
    if (entry->state != CONTENT_HASHING && entry->state != CONTENT_DUE)
        blob_content__wake(content->blobs, &digest);
}

/* What was read takes its time at the pace of the background. */
static void keep_pace(struct content *content, uint64_t size_bytes)
{
    struct piece_layout layout;
    uint64_t now_us = loop_now_us(content->loop);
    if (content->pace_us < now_us)
        content->pace_us = now_us;
    if (size_bytes == 0 || piece_layout_of(size_bytes, &layout) != 0)
        return;
    uint64_t bytes = size_bytes < layout.piece_bytes ? size_bytes : layout.piece_bytes;
    content->pace_us += bytes * 1000000 / CONTENT_BYTES_PER_S;
}

static void step_done(struct loop_work *work, int status)
{
    struct content_step *step = (struct content_step *)work;
    struct content *content = step->content;
    struct content_copy *copy = step->copy;
    if (status == 0)
        status = step->status;
    if (copy == NULL && step->id != 0)
        copy = new_copy(step);
    struct content_entry *entry = content__find(content, step->digest.bytes);
    if (entry != NULL && !content->closing)
        settle(content, entry, copy, status);
    keep_pace(content, copy != NULL ? copy->size_bytes : 0);
    content_copy_put(copy);
    step->running = false;
    content__pump(content);
}

static void on_pace(uv_timer_t *timer)
{
    content__pump(timer->data);
}

void content__pump(struct content *content)
{
    if (content->step.running || content->closing || content->first == NULL)
        return;
    uint64_t now_us = loop_now_us(content->loop);
    if (content->first->urgent || now_us >= content->pace_us)
        step_start(content);
    else
        (void)uv_timer_start(&content->pace, on_pace, (content->pace_us - now_us + 999) / 1000, 0);
}

void content__look(struct content *content, struct content_entry *entry)
{
    switch (entry->state) {
    case CONTENT_ABSENT:
    case CONTENT_WRONG:
        set_state(content, entry, CONTENT_DUE);
        break;
    case CONTENT_READY:
    case CONTENT_OFFERED:
        enqueue(content, entry); /* is it still the same? */
        break;
    case CONTENT_DUE:
    case CONTENT_HASHING:
        entry->again = !entry->queued;
        break;
    }
    content__pump(content);
}

/* ---- what the live blobs ask and tell ---- */

void content_seen(struct content *content, const struct digest *digest)
{
    if (digest->algorithm != DIGEST_SHA256 || content->closing)
        return;
    struct content_entry *entry = content__remember(content, digest->bytes);
    if (entry != NULL && entry->state == CONTENT_ABSENT)
        content__look(content, entry);
}

bool content_expected(struct content *content, const struct digest *digest, bool urgent)
{
    struct content_entry *entry = content__find(content, digest->bytes);
    if (entry == NULL || digest->algorithm != DIGEST_SHA256 ||
        (entry->state != CONTENT_DUE && entry->state != CONTENT_HASHING))
        return false;
    if (urgent && !entry->urgent) {
        entry->urgent = true;
        if (entry->queued) {
            unqueue(content, entry);
            enqueue(content, entry);
        }
        content__pump(content);
    }
    return true;
}

void content_failed(struct content *content, const struct digest *digest,
                    const struct content_copy *copy, int status)
{
    struct content_entry *entry = content__find(content, digest->bytes);
    if (entry == NULL || entry->state != CONTENT_OFFERED || entry->copy != copy)
        return;
    if (status == E_CORRUPT)
        wrong_bytes(content, entry);
    else
        judge(content, entry, status);
    content__pump(content);
}

/* ---- life ---- */

static void on_tick(uv_timer_t *timer)
{
    struct content *content = timer->data;
    struct content_entry *entry, *next;
    uint32_t told = 0;
    HASH_ITER(hh, content->entries, entry, next)
    {
        const struct digest digest = digest_of_key(entry->key);
        if (entry->state == CONTENT_READY && told < CONTENT_PIECES_PER_TICK)
            told += try_offer(content, entry); /* the others have their turn in a second */
        else if (entry->state == CONTENT_OFFERED)
            content->counters.given_up_bytes += blob_content__give_up(content->blobs, &digest);
        else if (entry->urgent)
            blob_content__wake(content->blobs, &digest); /* it may have waited enough */
    }
    content__watch_tick(content);
}

static void part_close(void *arg)
{
    struct content *content = arg;
    content->closing = true;
    content__list_save(content);
    content__watch_close(content);
    uv_close((uv_handle_t *)&content->tick, NULL);
    uv_close((uv_handle_t *)&content->pace, NULL);
}

int content_new(struct blobs *blobs, struct loop *loop, const char *path, const char *data_dir,
                struct content **out)
{
    struct content *content = loop_alloc(NULL, NULL, sizeof *content);
    if (content == NULL)
        return E_NO_MEMORY;
    *content = (struct content){.blobs = blobs, .loop = loop};
    content->last = &content->first;
    int err = text_copy(content->path, sizeof content->path, path);
    if (err == 0)
        err = snprintf(content->list_path, sizeof content->list_path, "%s/content-seen", data_dir) <
                      (int)sizeof content->list_path
                  ? 0
                  : E_TOO_LARGE;
    if (err == 0)
        err = store_content_new(path, &content->store);
    if (err != 0) {
        (void)loop_alloc(NULL, content, 0);
        return err;
    }
    content__list_load(content);
    *out = content;
    return 0;
}

int content_start(struct content *content)
{
    uv_loop_t *uv = &content->loop->uv;
    content->tick.data = content->pace.data = content->watch.data = content;
    if (uv_timer_init(uv, &content->tick) != 0 || uv_timer_init(uv, &content->pace) != 0 ||
        uv_fs_event_init(uv, &content->watch) != 0)
        return E_INTERNAL;
    content->part = (struct loop_part){.name = "content", .arg = content, .close = part_close};
    loop_add_part(content->loop, &content->part);
    content__watch_tick(content);
    return uv_timer_start(&content->tick, on_tick, TICK_MS, TICK_MS) == 0 ? 0 : E_INTERNAL;
}

void content_free(struct content *content)
{
    if (content == NULL)
        return;
    content->closing = true;
    while (content->entries != NULL) {
        struct content_entry *entry = content->entries;
        HASH_DEL(content->entries, entry);
        drop_copy(entry);
        (void)loop_alloc(NULL, entry, 0);
    }
    content->store.close(content->store.self);
    (void)loop_alloc(NULL, content->scan.keys, 0);
    (void)loop_alloc(NULL, content, 0);
}
