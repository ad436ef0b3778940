/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk tier: the table of calls, what is where, and the janitor, the one thread of its own that
 * gives back room. What is locked how is told in store_disk.h; files are store_disk_files.c's.
 */
#include "store_disk.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

/* Pieces given back in one step, so that a worker waiting for one of them waits for few others. */
#define TRIM_PIECES_MAX 64

/* ---- blobs; all under the lock ---- */

static void free_blob(struct disk_store *store, struct disk_blob *blob)
{
    bitfield_close(&blob->have, &store->env);
    bitfield_close(&blob->verified, &store->env);
    bitfield_close(&blob->to_drop, &store->env);
    (void)store->env.alloc(store->env.host, blob, 0);
}

int disk__add_blob(struct disk_store *store, const struct record_header *header,
                   const struct piece_layout *layout, struct disk_blob **out)
{
    struct disk_blob *blob = store->env.alloc(store->env.host, NULL, sizeof *blob);
    if (blob == NULL)
        return E_NO_MEMORY;
    *blob =
        (struct disk_blob){.digest = header->digest, .serial = header->serial, .layout = *layout};
    int err = bitfield_init(&blob->have, &store->env, layout->piece_count);
    if (err == 0)
        err = bitfield_init(&blob->verified, &store->env, layout->piece_count);
    if (err == 0)
        err = bitfield_init(&blob->to_drop, &store->env, layout->piece_count);
    if (err == 0)
        err = store_table__add(&store->table, &store->env, blob, &blob->id);
    if (err != 0) {
        free_blob(store, blob);
        return err;
    }
    *out = blob;
    return 0;
}

/* The blob of an id, unless it was removed. */
static struct disk_blob *find_blob(struct disk_store *store, uint64_t id)
{
    struct disk_blob *blob = store_table__get(&store->table, id);
    return blob != NULL && !blob->dead ? blob : NULL;
}

void disk__forget_blob(struct disk_store *store, struct disk_blob *blob)
{
    ASSERT(!blob->queued && blob->refs == 0);
    store_table__remove(&store->table, blob->id);
    free_blob(store, blob);
}

static bool has_job(const struct disk_blob *blob)
{
    return blob->to_drop.set_count > 0 || (blob->dead && blob->refs == 0);
}

void disk__queue(struct disk_store *store, struct disk_blob *blob)
{
    if (blob->queued || blob->working || !has_job(blob))
        return;
    blob->queued = true;
    blob->next_job = NULL;
    if (store->last_job != NULL)
        store->last_job->next_job = blob;
    else
        store->first_job = blob;
    store->last_job = blob;
    store->jobs++;
    pthread_cond_signal(&store->work);
}

void disk__blob_put(struct disk_store *store, struct disk_blob *blob)
{
    ASSERT(blob->refs > 0);
    blob->refs--;
    disk__queue(store, blob);
}

/* Bytes of the pieces that are had; `unpromised`: only those not promised back yet. */
static uint64_t had_bytes(const struct disk_blob *blob, bool unpromised)
{
    uint64_t bytes = 0;
    uint32_t piece = bitfield_next_set(&blob->have, 0);
    for (; piece < blob->layout.piece_count; piece = bitfield_next_set(&blob->have, piece + 1)) {
        if (!unpromised || !bitfield_get(&blob->to_drop, piece))
            bytes += piece_length(&blob->layout, piece);
    }
    return bytes;
}

void disk__kill(struct disk_store *store, struct disk_blob *blob)
{
    ASSERT(!blob->dead);
    store->promised_bytes += had_bytes(blob, true);
    uint32_t piece;
    while ((piece = bitfield_next_set(&blob->to_drop, 0)) < blob->layout.piece_count)
        (void)bitfield_clear(&blob->to_drop, piece); /* all of it goes at once */
    blob->dead = true;
    disk__queue(store, blob);
}

/* ---- jobs: entered and left with the lock held, which is open meanwhile ---- */

static void finish_removal(struct disk_store *store, struct disk_blob *blob)
{
    bool made = blob->made;
    uint64_t promised = had_bytes(blob, false);
    pthread_mutex_unlock(&store->lock);
    if (made)
        disk__unlink_files(store, blob);
    pthread_mutex_lock(&store->lock);
    ASSERT(store->promised_bytes >= promised);
    store->promised_bytes -= promised;
    disk__forget_blob(store, blob);
}

static void trim_some(struct disk_store *store, struct disk_blob *blob)
{
    uint32_t first = bitfield_next_set(&blob->to_drop, 0);
    uint32_t end = bitfield_next_clear(&blob->to_drop, first);
    if (end - first > TRIM_PIECES_MAX)
        end = first + TRIM_PIECES_MAX;
    uint64_t promised = 0;
    for (uint32_t piece = first; piece < end; piece++) {
        (void)bitfield_clear(&blob->to_drop, piece);
        if (bitfield_clear(&blob->have, piece))
            promised += piece_length(&blob->layout, piece);
    }
    blob->trim_first = first;
    blob->trim_count = end - first;
    blob->refs++;
    const struct disk_view view = {.blob = blob, .sealed = blob->sealed};
    bool made = blob->made;
    pthread_mutex_unlock(&store->lock);
    if (made)
        disk__trim_pieces(store, &view, first, end - first);
    pthread_mutex_lock(&store->lock);
    blob->refs--;
    blob->trim_count = 0;
    ASSERT(store->promised_bytes >= promised);
    store->promised_bytes -= promised;
}

/* Does one piece of the first job. False if there is none. */
static bool run_job(struct disk_store *store)
{
    struct disk_blob *blob = store->first_job;
    if (blob == NULL)
        return false;
    store->first_job = blob->next_job;
    if (store->first_job == NULL)
        store->last_job = NULL;
    blob->queued = false;
    blob->working = true;
    if (blob->dead && blob->refs == 0) {
        finish_removal(store, blob);
    } else {
        if (blob->to_drop.set_count > 0)
            trim_some(store, blob);
        blob->working = false;
        disk__queue(store, blob);
    }
    store->jobs--;
    pthread_cond_broadcast(&store->changed);
    return true;
}

static void *janitor_main(void *arg)
{
    struct disk_store *store = arg;
    pthread_mutex_lock(&store->lock);
    for (;;) {
        if (run_job(store))
            continue;
        if (store->stopping)
            break;
        pthread_cond_wait(&store->work, &store->lock);
    }
    pthread_mutex_unlock(&store->lock);
    return NULL;
}

/* ---- workers' calls ---- */

static bool room_is_going(const struct disk_blob *blob, uint32_t piece)
{
    return bitfield_get(&blob->to_drop, piece) ||
           (piece >= blob->trim_first && piece - blob->trim_first < blob->trim_count);
}

/*
 * Finds a blob for a call on one piece and takes a reference. If the piece's old room is still
 * being given back, that is done or waited for first, for it would take the new bytes with it.
 * Under the lock, which may be opened in between.
 */
static int enter(struct disk_store *store, uint64_t id, uint32_t piece, struct disk_blob **out)
{
    struct disk_blob *blob = find_blob(store, id);
    if (blob == NULL || piece >= blob->layout.piece_count)
        return E_NOT_FOUND;
    blob->refs++;
    while (room_is_going(blob, piece)) {
        if (!run_job(store))
            pthread_cond_wait(&store->changed, &store->lock);
    }
    *out = blob;
    return 0;
}

/* Makes the blob's files at its first write. One at a time. */
static int make_files(struct disk_store *store, struct disk_blob *blob)
{
    pthread_mutex_lock(&store->make_lock);
    pthread_mutex_lock(&store->lock);
    bool wanted = !blob->made;
    pthread_mutex_unlock(&store->lock);
    int err = wanted ? disk__make_files(store, blob) : 0;
    if (wanted) {
        pthread_mutex_lock(&store->lock);
        blob->made = err == 0;
        pthread_mutex_unlock(&store->lock);
    }
    pthread_mutex_unlock(&store->make_lock);
    return err;
}

/* Somebody took the files away (D-8): the next write makes new ones, and what the old ones held is
 * not found any more. A sealed blob never gets new files: its hashes went with the old ones. */
static void files_vanished(struct disk_blob *blob)
{
    blob->made = false;
    uint32_t piece = bitfield_next_set(&blob->have, 0);
    for (; piece < blob->layout.piece_count; piece = bitfield_next_set(&blob->have, piece + 1)) {
        (void)bitfield_clear(&blob->verified, piece);
        if (!bitfield_get(&blob->to_drop, piece)) /* those stay until their promise is settled */
            (void)bitfield_clear(&blob->have, piece);
    }
}

static int write_files(struct disk_store *store, const struct disk_view *view,
                       const struct record_slot *slot, const uint8_t *bytes, struct disk_blob *blob)
{
    int err = make_files(store, blob);
    if (err != 0)
        return err;
    pthread_mutex_t *lock = &store->write_locks[blob->id % DISK_WRITE_LOCKS];
    pthread_mutex_lock(lock);
    err = disk__write_piece(store, view, slot, bytes);
    pthread_mutex_unlock(lock);
    return err;
}

static int disk_write(void *self, uint64_t id, uint32_t piece, const uint8_t *bytes,
                      uint32_t byte_count, const struct piece_record *record)
{
    struct disk_store *store = self;
    struct record_slot slot = {.state = RECORD_HAVE, .voucher = record->voucher};
    slot.voucher.piece_index = piece;
    slot.voucher.piece_bytes = byte_count;

    struct disk_blob *blob;
    pthread_mutex_lock(&store->lock);
    int err = enter(store, id, piece, &blob);
    if (err != 0) {
        pthread_mutex_unlock(&store->lock);
        return err;
    }
    const struct disk_view view = {.blob = blob, .sealed = blob->sealed};
    if (byte_count != piece_length(&blob->layout, piece))
        err = E_INVALID;
    else if (blob->lost)
        err = E_NOT_FOUND;
    pthread_mutex_unlock(&store->lock);

    if (err == 0)
        err = write_files(store, &view, &slot, bytes, blob);

    pthread_mutex_lock(&store->lock);
    if (err == 0 && !blob->dead) {
        (void)bitfield_set(&blob->have, piece);
        (void)bitfield_set(&blob->verified, piece);
    }
    if (err == E_NOT_FOUND && !blob->sealed)
        files_vanished(blob);
    disk__blob_put(store, blob);
    pthread_mutex_unlock(&store->lock);
    return err;
}

static int disk_read(void *self, uint64_t id, uint32_t piece, uint8_t *out, uint32_t byte_count,
                     struct piece_record *record)
{
    struct disk_store *store = self;
    struct disk_blob *blob;
    pthread_mutex_lock(&store->lock);
    int err = enter(store, id, piece, &blob);
    if (err != 0) {
        pthread_mutex_unlock(&store->lock);
        return err;
    }
    const struct disk_view view = {.blob = blob, .sealed = blob->sealed};
    uint32_t drops = blob->drops;
    if (byte_count != piece_length(&blob->layout, piece))
        err = E_INVALID;
    else if (blob->lost || !bitfield_get(&blob->have, piece))
        err = E_NOT_FOUND;
    pthread_mutex_unlock(&store->lock);

    if (err == 0)
        err = disk__read_piece(store, &view, piece, out, record);

    pthread_mutex_lock(&store->lock);
    if (err == E_CORRUPT && drops != blob->drops)
        err = E_NOT_FOUND; /* what was read may have been dropped meanwhile: no sign of decay */
    if (err == 0 && bitfield_get(&blob->have, piece))
        (void)bitfield_set(&blob->verified, piece);
    disk__blob_put(store, blob);
    pthread_mutex_unlock(&store->lock);
    return err;
}

static int disk_open_fd(void *self, uint64_t id, uint32_t piece, int *fd, uint64_t *offset)
{
    struct disk_store *store = self;
    pthread_mutex_lock(&store->lock);
    struct disk_blob *blob = find_blob(store, id);
    int err = 0;
    if (blob == NULL || blob->lost || piece >= blob->layout.piece_count ||
        !bitfield_get(&blob->have, piece) || room_is_going(blob, piece))
        err = E_NOT_FOUND;
    else if (!bitfield_get(&blob->verified, piece))
        err = E_AGAIN;
    if (err != 0) {
        pthread_mutex_unlock(&store->lock);
        return err;
    }
    blob->refs++;
    pthread_mutex_unlock(&store->lock);

    err = disk__open_data(store, blob, fd);
    if (err == 0)
        *offset = piece_offset(&blob->layout, piece);

    pthread_mutex_lock(&store->lock);
    disk__blob_put(store, blob);
    pthread_mutex_unlock(&store->lock);
    return err;
}

/* E_IO and its like mean that something may have been lost between memory and disk (DSK-3). */
static void seal_ended(struct disk_blob *blob, int err)
{
    blob->sealing = false;
    if (err == 0)
        blob->sealed = true;
    else if (err != E_NOT_FOUND && err != E_AGAIN)
        blob->lost = true;
}

static int disk_seal(void *self, uint64_t id)
{
    struct disk_store *store = self;
    pthread_mutex_lock(&store->lock);
    struct disk_blob *blob = find_blob(store, id);
    bool sealed = blob != NULL && blob->sealed;
    int err = blob == NULL ? E_NOT_FOUND : 0;
    if (err == 0 && blob->lost)
        err = E_IO;
    if (err == 0 && blob->sealing)
        err = E_AGAIN; /* another worker is at it, and will tell */
    if (err != 0 || sealed) {
        pthread_mutex_unlock(&store->lock);
        return err;
    }
    blob->refs++;
    blob->sealing = true;
    pthread_mutex_unlock(&store->lock);

    /* An empty blob has no piece whose write would have made its files. */
    if (blob->layout.piece_count == 0)
        err = make_files(store, blob);
    if (err == 0)
        err = disk__seal_files(store, blob);

    pthread_mutex_lock(&store->lock);
    seal_ended(blob, err);
    disk__blob_put(store, blob);
    pthread_mutex_unlock(&store->lock);
    return err == E_NO_SPACE ? E_IO : err;
}

/* ---- the loop's calls ---- */

static int disk_create(void *self, const struct digest *digest, enum piece_cut cut,
                       uint64_t size_bytes, uint64_t *out)
{
    struct disk_store *store = self;
    struct piece_layout layout;
    int err = piece_layout_cut(size_bytes, cut, &layout);
    if (err != 0)
        return err;
    struct disk_blob *blob;
    pthread_mutex_lock(&store->lock);
    struct record_header header = {
        .digest = *digest, .cut = cut, .size_bytes = size_bytes, .serial = store->next_serial};
    err = disk__add_blob(store, &header, &layout, &blob);
    if (err == 0) {
        store->next_serial++;
        *out = blob->id;
    }
    pthread_mutex_unlock(&store->lock);
    return err;
}

static int disk_drop(void *self, uint64_t id, uint32_t first, uint32_t count)
{
    struct disk_store *store = self;
    int err = 0;
    pthread_mutex_lock(&store->lock);
    struct disk_blob *blob = find_blob(store, id);
    if (blob == NULL)
        err = E_NOT_FOUND;
    else if (first > blob->layout.piece_count || count > blob->layout.piece_count - first)
        err = E_INVALID;
    for (uint32_t piece = first; err == 0 && piece < first + count; piece++) {
        blob->drops++;
        (void)bitfield_clear(&blob->verified, piece);
        if (bitfield_set(&blob->to_drop, piece) && bitfield_get(&blob->have, piece))
            store->promised_bytes += piece_length(&blob->layout, piece);
    }
    if (err == 0)
        disk__queue(store, blob);
    pthread_mutex_unlock(&store->lock);
    return err;
}

static int disk_remove(void *self, uint64_t id)
{
    struct disk_store *store = self;
    pthread_mutex_lock(&store->lock);
    struct disk_blob *blob = find_blob(store, id);
    if (blob != NULL) {
        disk__kill(store, blob);
    }
    pthread_mutex_unlock(&store->lock);
    return blob != NULL ? 0 : E_NOT_FOUND;
}

static int disk_recover(void *self, store_found_fn found, void *arg)
{
    return disk__recover(self, found, arg);
}

static uint64_t disk_free_bytes(void *self)
{
    struct disk_store *store = self;
    uint64_t device = disk__device_free(store);
    pthread_mutex_lock(&store->lock);
    uint64_t promised = store->promised_bytes;
    pthread_mutex_unlock(&store->lock);
    return device > UINT64_MAX - promised ? UINT64_MAX : device + promised;
}

void store_disk__settle(struct store *table)
{
    struct disk_store *store = table->self;
    pthread_mutex_lock(&store->lock);
    while (store->jobs > 0)
        pthread_cond_wait(&store->changed, &store->lock);
    pthread_mutex_unlock(&store->lock);
}

/* ---- life ---- */

static void free_store(struct disk_store *store)
{
    struct env env = store->env;
    struct disk_blob *blob;
    uint32_t index = 0;
    while ((blob = store_table__next(&store->table, &index)) != NULL)
        free_blob(store, blob);
    store_table__close(&store->table, &env);
    (void)close(store->root_fd); /* and with it the lock on the directory */
    pthread_cond_destroy(&store->changed);
    pthread_cond_destroy(&store->work);
    pthread_mutex_destroy(&store->make_lock);
    for (unsigned i = 0; i < DISK_WRITE_LOCKS; i++)
        pthread_mutex_destroy(&store->write_locks[i]);
    pthread_mutex_destroy(&store->lock);
    (void)env.alloc(env.host, store, 0);
}

/* Ends all jobs first: a blob that was dropped must not come back at the next start. */
static void disk_close(void *self)
{
    struct disk_store *store = self;
    pthread_mutex_lock(&store->lock);
    store->stopping = true;
    pthread_cond_signal(&store->work);
    pthread_mutex_unlock(&store->lock);
    pthread_join(store->janitor, NULL);
    ASSERT(store->jobs == 0);
    free_store(store);
}

/* The janitor takes no signals: they are the loop's. */
static int start_janitor(struct disk_store *store)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&store->janitor, NULL, janitor_main, store);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed == 0 ? 0 : E_NO_MEMORY;
}

static void fill_table(struct disk_store *store, struct store *out)
{
    *out = (struct store){.self = store,
                          .create = disk_create,
                          .write = disk_write,
                          .read = disk_read,
                          .open_fd = disk_open_fd,
                          .seal = disk_seal,
                          .drop = disk_drop,
                          .remove = disk_remove,
                          .recover = disk_recover,
                          .free_bytes = disk_free_bytes,
                          .close = disk_close};
}

int store_disk__new(const struct env *env, const char *directory, struct store *out,
                    const char **why)
{
    int root_fd;
    int err = disk__open_root(directory, &root_fd, why);
    if (err != 0)
        return err;
    *why = "not enough memory for the cache's own tables";
    struct disk_store *store = env->alloc(env->host, NULL, sizeof *store);
    if (store == NULL) {
        (void)close(root_fd);
        return E_NO_MEMORY;
    }
    memset(store, 0, sizeof *store);
    store->env = *env;
    store->root_fd = root_fd;
    store->in_memory = disk__in_memory(root_fd);
    store->next_serial = 1;
    /* Default mutexes and conditions need no memory on Linux, so these do not fail. */
    (void)pthread_mutex_init(&store->lock, NULL);
    (void)pthread_mutex_init(&store->make_lock, NULL);
    for (unsigned i = 0; i < DISK_WRITE_LOCKS; i++)
        (void)pthread_mutex_init(&store->write_locks[i], NULL);
    (void)pthread_cond_init(&store->work, NULL);
    (void)pthread_cond_init(&store->changed, NULL);
    err = start_janitor(store);
    if (err != 0) {
        free_store(store);
        return err;
    }
    *why = NULL;
    fill_table(store, out);
    return 0;
}

int store_disk_new(const char *directory, struct store *out, const char **why)
{
    struct env env;
    store__heap(&env);
    return store_disk__new(&env, directory, out, why);
}
