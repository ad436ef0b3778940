/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The content store's folder: a scan finds what is there, inotify (through libuv) tells what comes
 * and goes, and a scan now and then makes up for what it did not tell. Also the list of seen
 * digests in a file: 64 hex digits a line, seen longest ago first. A line that is damaged is passed
 * over; a wrong digest in it offers nothing that exists.
 */
#include <string.h>

#include "bytes.h"
#include "content.h"
#include "log.h"
#include "secret_file.h"

#define KEY_BYTES  32
#define LINE_BYTES (2 * KEY_BYTES + 1)
#define SAVE_US    (30ull * 1000000)
/* A folder that was replaced is watched again, but not more often. */
#define REWATCH_US (10ull * 1000000)
#define FIRST_KEYS 1024u

/* ---- the list ---- */

void content__list_load(struct content *content)
{
    char *text = NULL;
    size_t bytes = 0;
    if (file_read_whole(content->list_path, CONTENT_SEEN_MAX * LINE_BYTES, &text, &bytes) != 0)
        return;
    for (char *line = text; line < text + bytes;) {
        char *end = memchr(line, '\n', (size_t)(text + bytes - line));
        uint8_t key[KEY_BYTES];
        if (end == NULL)
            break;
        if (hex_decode(line, (size_t)(end - line), key, sizeof key) == 0)
            (void)content__remember(content, key);
        line = end + 1;
    }
    (void)loop_alloc(NULL, text, 0);
    content->dirty = false;
}

/* The list as text; NULL without memory. */
static char *list_text(const struct content *content, size_t *bytes)
{
    size_t room = HASH_COUNT(content->entries) * (size_t)LINE_BYTES + 1;
    char *text = loop_alloc(NULL, NULL, room), *end = text;
    if (text == NULL)
        return NULL;
    for (const struct content_entry *entry = content->entries; entry != NULL;
         entry = entry->hh.next) {
        hex_encode(entry->key, KEY_BYTES, end);
        end += LINE_BYTES;
        end[-1] = '\n';
    }
    *bytes = (size_t)(end - text);
    return text;
}

static void say_saved(const struct content *content, int err)
{
    if (err != 0)
        log_to(&content->loop->env, LOG_WARN,
               "content: cannot write %s: %s; after a restart blobs are offered once they are "
               "asked for again",
               content->list_path, err_text(err));
}

static void save_run(struct loop_work *work)
{
    struct content_save *save = (struct content_save *)work;
    save->status = file_write_atomic(save->content->list_path, 0600, save->text, save->bytes);
}

static void save_done(struct loop_work *work, int status)
{
    struct content_save *save = (struct content_save *)work;
    save->running = false;
    save->text = loop_alloc(NULL, save->text, 0);
    if (status == 0)
        say_saved(save->content, save->status);
}

static void save_start(struct content *content)
{
    struct content_save *save = &content->save;
    content->save_due_us = loop_now_us(content->loop) + SAVE_US;
    *save = (struct content_save){.work = {.run = save_run, .done = save_done}, .content = content};
    save->text = list_text(content, &save->bytes);
    save->running = save->text != NULL && loop_submit(content->loop, &save->work) == 0;
    if (!save->running)
        save->text = loop_alloc(NULL, save->text, 0);
    content->dirty = !save->running;
}

/* While a save is with a worker the file is left to it: what is missing then is seen again. */
void content__list_save(struct content *content)
{
    size_t bytes;
    if (!content->dirty || content->save.running)
        return;
    char *text = list_text(content, &bytes);
    if (text != NULL)
        say_saved(content, file_write_atomic(content->list_path, 0600, text, bytes));
    (void)loop_alloc(NULL, text, 0);
}

/* ---- scans ---- */

static void found(void *arg, const struct store_blob *blob, uint64_t id)
{
    struct content_scan *scan = arg;
    (void)id;
    if (scan->count == scan->capacity) {
        uint32_t capacity = scan->capacity == 0 ? FIRST_KEYS : 2 * scan->capacity;
        void *grown = loop_alloc(NULL, scan->keys, (size_t)capacity * KEY_BYTES);
        if (grown == NULL)
            return; /* the next scan may find it */
        scan->keys = grown;
        scan->capacity = capacity;
    }
    memcpy(scan->keys[scan->count++], blob->digest.bytes, KEY_BYTES);
}

static void scan_run(struct loop_work *work)
{
    struct content_scan *scan = (struct content_scan *)work;
    const struct store *store = &scan->content->store;
    scan->count = 0;
    scan->status = store_content_folder(store, scan->folder, sizeof scan->folder);
    if (scan->status == 0)
        scan->status = store->recover(store->self, found, scan);
}

static void on_event(uv_fs_event_t *watch, const char *name, int events, int status)
{
    struct content *content = watch->data;
    struct digest digest;
    (void)events;
    if (status != 0 || name == NULL || !store_content_name(name, &digest)) {
        content->rewatch = true; /* perhaps the folder itself */
        return;
    }
    struct content_entry *entry = content__find(content, digest.bytes);
    if (entry != NULL)
        content__look(content, entry);
}

/* Watches the folder that the scan found. True if it did not before: what came between the scan and
 * the watch has not been seen. */
static bool watch_start(struct content *content)
{
    if (content->watching && !content->rewatch)
        return false;
    (void)uv_fs_event_stop(&content->watch);
    int uv_error = uv_fs_event_start(&content->watch, on_event, content->scan.folder, 0);
    content->watching = uv_error == 0;
    content->rewatch = false;
    if (uv_error != 0)
        log_to(&content->loop->env, LOG_WARN,
               "content: cannot watch %s: %s; it is looked at every minute "
               "(fs.inotify.max_user_watches)",
               content->scan.folder, uv_strerror(uv_error));
    return content->watching;
}

/* Says once what the folder is like, and again when that changes. */
static void say(struct content *content, int status)
{
    const struct env *env = &content->loop->env;
    if (status == content->scan_error)
        return;
    content->scan_error = status;
    if (status == 0)
        log_to(env, LOG_INFO, "content: content store folder=%s files=%u", content->scan.folder,
               content->scan.count);
    else if (status == E_DENIED)
        log_to(env, LOG_WARN,
               "content: no permission to read contentStore %s: give the agent's user "
               "CAP_DAC_READ_SEARCH, or its group the right to read blobs/sha256; all else works",
               content->path);
    else if (status == E_NOT_FOUND)
        log_to(env, LOG_WARN,
               "content: no blobs/sha256 in contentStore %s: it must be containerd's root or its "
               "io.containerd.content.v1.content; a new containerd makes it with its first image, "
               "and it is looked for every few seconds",
               content->path);
    else if (status == E_TOO_LARGE)
        log_to(env, LOG_WARN, "content: more than %d files in %s: some are not offered",
               STORE_CONTENT_FILES_MAX, content->scan.folder);
    else
        log_to(env, LOG_WARN, "content: cannot read contentStore %s: %s", content->path,
               err_text(status));
}

static void compare(struct content *content, bool complete)
{
    struct content_scan *scan = &content->scan;
    struct content_entry *entry, *next;
    for (uint32_t i = 0; i < scan->count; i++) {
        entry = content__find(content, scan->keys[i]);
        if (entry == NULL)
            continue;
        entry->scanned = scan->number;
        if (entry->state == CONTENT_ABSENT)
            content__look(content, entry);
    }
    HASH_ITER(hh, content->entries, entry, next)
    {
        bool known = entry->state == CONTENT_READY || entry->state == CONTENT_OFFERED ||
                     entry->state == CONTENT_WRONG;
        if (complete && known && entry->scanned != scan->number)
            content__look(content, entry);
    }
}

static void scan_done(struct loop_work *work, int status)
{
    struct content_scan *scan = (struct content_scan *)work;
    struct content *content = scan->content;
    scan->running = false;
    if (status != 0 || content->closing)
        return;
    scan->number++;
    say(content, scan->status);
    bool there = scan->status == 0 || scan->status == E_TOO_LARGE;
    bool fresh = there && watch_start(content);
    if (!there) {
        (void)uv_fs_event_stop(&content->watch);
        content->watching = false;
    }
    uint64_t wait_us = content->watching ? CONTENT_SCAN_US
                       : there           ? CONTENT_SCAN_POLL_US
                                         : CONTENT_SCAN_MISS_US;
    content->scan_due_us = loop_now_us(content->loop) + (fresh ? 0 : wait_us);
    compare(content, scan->status == 0 || scan->status == E_NOT_FOUND);
    scan->count = scan->capacity = 0;
    scan->keys = loop_alloc(NULL, scan->keys, 0);
}

static void scan_start(struct content *content)
{
    struct content_scan *scan = &content->scan;
    scan->content = content;
    scan->work.run = scan_run;
    scan->work.done = scan_done;
    scan->running = loop_submit(content->loop, &scan->work) == 0;
}

void content__watch_tick(struct content *content)
{
    uint64_t now_us = loop_now_us(content->loop);
    if (content->rewatch && content->scan_due_us > now_us + REWATCH_US)
        content->scan_due_us = now_us + REWATCH_US;
    if (!content->scan.running && now_us >= content->scan_due_us)
        scan_start(content);
    if (content->dirty && !content->save.running && now_us >= content->save_due_us)
        save_start(content);
}

void content__watch_close(struct content *content)
{
    uv_close((uv_handle_t *)&content->watch, NULL);
}
