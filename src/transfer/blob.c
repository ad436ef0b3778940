/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blobs here: what is had, which pieces are open, and the provider record. A piece is open when a
 * reader wants it, it is missing, and nothing is under way for it; select.c and the lease client
 * take from the open ones.
 */
#include "have.h"
#include "lease.h"

/* The first pieces of a growing blob are announced to the DHT after this: small blobs are complete
 * by then and cost one record, not two. */
#define PUBLISH_DELAY_US (1 * S)
/* With nobody left to ask a wanted piece of, readers are told after this (HTTP-6: an answer within
 * 10 s). */
#define SOURCELESS_US (8 * S)
#define RUN_BYTES_MIN (4u * 1024 * 1024)
/* Others may be pulling, too, and not be heard of yet: what is leased at first grows from this. */
#define RUN_BYTES_FIRST (1u * 1024 * 1024)

/* Mostly it is the first with a swarm, and the tables need not be asked. */
struct blob *transfer__blob(const struct transfer *transfer, blob_handle handle)
{
    struct blob *blob = transfer->active;
    if (blob != NULL && blob->handle == handle)
        return blob;
    HASH_FIND(by_handle, transfer->blobs_by_handle, &handle, sizeof handle, blob);
    return blob;
}

/* A key is a keyed hash already: hashed again, it would cost every message that names a blob. */
static unsigned hash_of(const struct blob_key *key)
{
    unsigned hash;
    memcpy(&hash, key->bytes, sizeof hash);
    return hash;
}

struct blob *transfer__blob_by_key(const struct transfer *transfer, const struct blob_key *key)
{
    struct blob *blob = transfer->active;
    if (blob != NULL && blob_key_equal(&blob->info.key, key))
        return blob;
    HASH_FIND_BYHASHVALUE(by_key, transfer->blobs_by_key, key, sizeof *key, hash_of(key), blob);
    return blob;
}

bool transfer__is_brief(const struct transfer *transfer, const struct blob *blob)
{
    uint64_t rate = transfer__rate_best(transfer);
    return blob->info.size_bytes <= BRIEF_BLOB_BYTES &&
           transfer->nodes.live >= MESH_SMALL_MEMBERS &&
           (rate == 0 || blob->info.size_bytes <= rate * BRIEF_SECONDS);
}

/* ---- swarm ---- */

static void swarm_free(struct transfer *transfer, struct swarm *swarm)
{
    for (uint32_t i = 0; i < swarm->neighbour_count; i++)
        bitfield_close(&swarm->neighbours[i].known, transfer->env);
    bitfield_close(&swarm->open, transfer->env);
    bitfield_close(&swarm->absent, transfer->env);
    bitfield_close(&swarm->injected, transfer->env);
    transfer__release(transfer, swarm->flags);
    transfer__release(transfer, swarm->retry_ms);
    transfer__release(transfer, swarm);
}

/* The arrays per piece in one block, those per segment in another. */
static int swarm_arrays(struct transfer *transfer, const struct blob *blob, struct swarm *swarm)
{
    size_t pieces = blob->layout.piece_count, segments = blob->layout.segment_count;
    swarm->flags = transfer__zalloc(transfer, 3 * pieces + 2 * (pieces / 8 + 1));
    swarm->retry_ms = transfer__zalloc(transfer, segments * (sizeof *swarm->retry_ms + 1) + 1);
    if (swarm->flags == NULL || swarm->retry_ms == NULL)
        return E_NO_MEMORY;
    swarm->avail = swarm->flags + pieces;
    swarm->asked = swarm->avail + pieces;
    swarm->mask = swarm->asked + pieces;
    swarm->near = swarm->mask + pieces / 8 + 1;
    swarm->fails = (uint8_t *)(swarm->retry_ms + segments);
    int err = bitfield_init(&swarm->open, transfer->env, blob->layout.piece_count);
    if (err == 0)
        err = bitfield_init(&swarm->absent, transfer->env, blob->layout.piece_count);
    if (err == 0)
        err = bitfield_init(&swarm->injected, transfer->env, blob->layout.piece_count);
    return err;
}

static uint32_t active_count(const struct transfer *transfer)
{
    uint32_t count = 0;
    for (const struct blob *blob = transfer->active; blob != NULL; blob = blob->next_active)
        count++;
    return count;
}

struct swarm *transfer__swarm(struct transfer *transfer, struct blob *blob)
{
    if (blob->swarm != NULL)
        return blob->swarm;
    struct swarm *swarm = transfer__zalloc(transfer, sizeof *swarm);
    if (swarm == NULL)
        return NULL;
    if (swarm_arrays(transfer, blob, swarm) != 0) {
        swarm_free(transfer, swarm);
        return NULL;
    }
    uint64_t now_us = transfer->now_us;
    swarm->started_us = swarm->working_us = swarm->progress_us = now_us;
    swarm->have_due_us = UINT64_MAX;
    transfer__far_update(transfer, swarm);
    swarm->have_credit = HAVE_CREDIT_MAX / (1 + active_count(transfer));
    swarm->announce_due_us = swarm->grow_due_us = now_us;
    swarm->run_bytes = transfer__live(transfer) <= 1 ? RUN_BYTES_MIN : RUN_BYTES_FIRST;
    for (uint32_t i = 0; i < AVOIDS_MAX; i++)
        swarm->avoids[i].node = NODE_NONE;
    int err = bitfield_merge(&swarm->injected, 0, blob->have.bits, (blob->have.bit_count + 7) / 8);
    ASSERT(err == 0); /* same length */
    blob->swarm = swarm;
    blob->next_active = NULL;
    blob->prev_active = transfer->active_last;
    if (transfer->active_last != NULL)
        transfer->active_last->next_active = blob;
    else
        transfer->active = blob;
    transfer->active_last = blob;
    return swarm;
}

static void swarm_unlink(struct transfer *transfer, struct blob *blob)
{
    if (blob->prev_active != NULL)
        blob->prev_active->next_active = blob->next_active;
    else
        transfer->active = blob->next_active;
    if (blob->next_active != NULL)
        blob->next_active->prev_active = blob->prev_active;
    else
        transfer->active_last = blob->prev_active;
    swarm_free(transfer, blob->swarm);
    blob->swarm = NULL;
}

void transfer__swarm_retire(struct transfer *transfer, struct blob *blob)
{
    const struct swarm *swarm = blob->swarm;
    if (swarm == NULL || swarm->readers > 0 || swarm->neighbour_count > 0 || swarm->requests > 0 ||
        swarm->leases > 0)
        return;
    swarm_unlink(transfer, blob);
}

/* ---- pieces ---- */

void transfer__piece_settle(struct blob *blob, uint32_t piece)
{
    struct swarm *swarm = blob->swarm;
    if (swarm == NULL)
        return;
    uint8_t flags = swarm->flags[piece];
    bool open = (flags & PIECE_WANTED) != 0 && swarm->asked[piece] == 0 &&
                (flags & (PIECE_LEASED | PIECE_FAILED | PIECE_PASSED)) == 0 &&
                !bitfield_get(&blob->have, piece);
    if (open)
        (void)bitfield_set(&swarm->open, piece);
    else
        (void)bitfield_clear(&swarm->open, piece);
    if (open && swarm->avail[piece] == 0)
        (void)bitfield_set(&swarm->absent, piece);
    else
        (void)bitfield_clear(&swarm->absent, piece);
}

void transfer__piece_offered(struct swarm *swarm, uint32_t piece, bool more)
{
    ASSERT(more || swarm->avail[piece] > 0);
    swarm->avail[piece] = (uint8_t)(swarm->avail[piece] + (more ? 1 : -1));
    if (more && swarm->avail[piece] == 1)
        (void)bitfield_clear(&swarm->absent, piece);
    else if (more)
        return;
    else if (swarm->avail[piece] == 0 && bitfield_get(&swarm->open, piece))
        (void)bitfield_set(&swarm->absent, piece);
}

bool transfer__segment_had(const struct blob *blob, uint32_t segment)
{
    uint32_t first = segment_first(&blob->layout, segment);
    uint32_t end = first + segment_length(&blob->layout, segment);
    return bitfield_next_clear(&blob->have, first) >= end;
}

static uint8_t completeness(const struct blob *blob)
{
    if (blob->have.set_count == 0)
        return 0;
    if (bitfield_full(&blob->have))
        return UINT8_MAX;
    uint64_t share = (uint64_t)blob->have.set_count * 254 / blob->have.bit_count;
    return (uint8_t)(share == 0 ? 1 : share);
}

static void publish(struct transfer *transfer, struct blob *blob, uint8_t value)
{
    struct transfer_result result = {
        .kind = TRANSFER_PUBLISH,
        .blob = blob->handle,
        .key = blob->info.key,
        .completeness = value,
    };
    blob->publish_due_us = UINT64_MAX;
    if (blob->published == value)
        return;
    if (transfer__push(transfer, &result))
        blob->published = value;
    else
        blob->publish_due_us = transfer->now_us + PUBLISH_DELAY_US;
}

/* A first record, a whole copy and the loss of everything are told soon; progress in between is
 * not worth a message (the DHT refreshes by itself). */
static void publish_if_due(struct transfer *transfer, struct blob *blob)
{
    uint8_t value = completeness(blob);
    if (value == UINT8_MAX || value == 0) {
        publish(transfer, blob, value);
        return;
    }
    if (blob->published == 0 && blob->publish_due_us == UINT64_MAX)
        blob->publish_due_us = transfer->now_us + PUBLISH_DELAY_US;
    if (blob->published == UINT8_MAX)
        publish(transfer, blob, value);
}

void transfer__blob_changed(struct transfer *transfer, struct blob *blob, uint32_t piece)
{
    publish_if_due(transfer, blob);
    if (blob->swarm == NULL)
        return;
    uint32_t page = piece / 8 / WIRE_PAGE_BYTES;
    blob->swarm->dirty[page / 8] |= (uint8_t)(1u << (page % 8));
    transfer__have_earn(blob);
}

bool transfer__can_fetch(const struct transfer *transfer, const struct blob *blob)
{
    const struct swarm *swarm = blob->swarm;
    return swarm != NULL && swarm->fetchers > 0 && !swarm->origin_denied &&
           swarm->origin_pause_us <= transfer->now_us;
}

void transfer__piece_give_up(struct transfer *transfer, struct blob *blob, uint32_t piece,
                             int status)
{
    struct swarm *swarm = blob->swarm;
    if ((swarm->flags[piece] & PIECE_FAILED) != 0)
        return;
    struct transfer_result result = {
        .kind = TRANSFER_PIECE_FAILED,
        .blob = blob->handle,
        .key = blob->info.key,
        .piece = piece,
        .status = status,
    };
    if (!transfer__push(transfer, &result))
        return; /* tried again by the next tick */
    swarm->flags[piece] |= PIECE_FAILED;
    transfer__piece_settle(blob, piece);
}

static bool wanted(const struct transfer *transfer, const struct blob *blob, uint32_t piece)
{
    for (const struct reader *reader = transfer->readers; reader != NULL; reader = reader->next) {
        if (reader->blob == blob && piece >= reader->at && piece < reader->limit)
            return true;
    }
    return false;
}

void transfer__want_again(const struct transfer *transfer, struct blob *blob, uint32_t first,
                          uint32_t end, bool retry)
{
    struct swarm *swarm = blob->swarm;
    for (uint32_t piece = first; piece < end; piece++) {
        uint8_t flags = (uint8_t)(swarm->flags[piece] & ~PIECE_WANTED);
        if (retry)
            flags &= (uint8_t) ~(PIECE_FAILED | PIECE_PASSED);
        swarm->flags[piece] = wanted(transfer, blob, piece) ? flags | PIECE_WANTED : flags;
        transfer__piece_settle(blob, piece);
    }
}

static void push_ready(struct transfer *transfer, struct blob *blob, uint32_t piece)
{
    struct transfer_result result = {
        .kind = TRANSFER_PIECE_READY,
        .blob = blob->handle,
        .key = blob->info.key,
        .piece = piece,
    };
    (void)transfer__push(transfer, &result);
    if (!bitfield_full(&blob->have) || blob->complete_told)
        return;
    result.kind = TRANSFER_BLOB_COMPLETE;
    blob->complete_told = transfer__push(transfer, &result);
}

static void count_piece(struct transfer *transfer, const struct piece_source *source, uint16_t node,
                        uint32_t bytes)
{
    struct transfer_stats *stats = &transfer->stats;
    if (source->origin < PIECE_FROM_CACHE || source->origin > PIECE_FROM_ORIGIN)
        return;
    stats->pieces_from[source->origin]++;
    stats->bytes_from[source->origin] += bytes;
    if (source->origin == PIECE_FROM_PEER && node != NODE_NONE)
        stats->bytes_by_distance[transfer__node_distance(transfer, node)] += bytes;
    if (source->origin != PIECE_FROM_CACHE)
        transfer__rate_add(transfer, bytes);
}

/* The only way PIECE_REPAIR changes. */
static void set_repair(struct swarm *swarm, uint32_t piece, bool repair)
{
    bool was = (swarm->flags[piece] & PIECE_REPAIR) != 0;
    swarm->flags[piece] = (uint8_t)(repair ? swarm->flags[piece] | PIECE_REPAIR
                                           : swarm->flags[piece] & ~PIECE_REPAIR);
    swarm->repair_count += (uint32_t)repair - (uint32_t)was;
    swarm->repairs = swarm->repairs || repair;
}

/* A piece is here. `stored` false: readers have it, others cannot. */
static void piece_had(struct transfer *transfer, struct blob *blob, uint32_t piece, bool stored)
{
    struct swarm *swarm = blob->swarm;
    bool news = stored && bitfield_set(&blob->have, piece);
    if (swarm != NULL) {
        if (!stored)
            swarm->flags[piece] |= PIECE_PASSED;
        swarm->flags[piece] &= (uint8_t)~PIECE_FAILED;
        set_repair(swarm, piece, false);
        swarm->progress_us = transfer->now_us;
        if (stored)
            (void)bitfield_set(&swarm->injected, piece);
        transfer__requests_end(transfer, blob, piece, NODE_NONE);
        transfer__piece_settle(blob, piece);
    }
    if (news)
        transfer__blob_changed(transfer, blob, piece);
    push_ready(transfer, blob, piece);
}

/* What the request of a piece says about its sender, before it is forgotten. */
static void note_delivery(struct transfer *transfer, struct blob *blob,
                          const struct request *request)
{
    struct swarm *swarm = blob->swarm;
    uint64_t took_us = transfer->now_us - request->sent_us;
    swarm->piece_us = transfer__mean(swarm->piece_us, took_us);
    struct neighbour *neighbour = transfer__neighbour(swarm, request->node);
    if (neighbour != NULL)
        neighbour->piece_us = transfer__mean(neighbour->piece_us, took_us);
}

static void peer_piece(struct transfer *transfer, struct blob *blob, uint32_t piece, uint16_t node,
                       int status)
{
    struct request *request = transfer__request_find(transfer, blob, piece, node);
    if (request != NULL && status == 0)
        note_delivery(transfer, blob, request);
    if (request != NULL)
        transfer__request_end(transfer, request, false);
    if (status == E_DIGEST || status == E_VOUCHER)
        transfer__neighbour_distrust(transfer, blob, node);
    if (status != 0)
        transfer__import_failed(transfer, blob, piece, node);
}

void transfer_piece_done(struct transfer *transfer, uint64_t now_us, blob_handle handle,
                         uint32_t piece, const struct piece_source *source, int status)
{
    transfer__enter(transfer, now_us);
    struct blob *blob = transfer__blob(transfer, handle);
    if (blob == NULL || piece >= blob->layout.piece_count) {
        transfer__leave(transfer);
        return;
    }
    bool kept = status == 0, had = kept || status == E_IO || status == E_NO_SPACE;
    uint16_t node = NODE_NONE;
    if (source->origin == PIECE_FROM_PEER)
        node = transfer__node_find(transfer, &source->peer);
    if (had && bitfield_get(&blob->have, piece))
        transfer->stats.duplicates++;
    if (had)
        count_piece(transfer, source, node, piece_length(&blob->layout, piece));
    if (node != NODE_NONE)
        peer_piece(transfer, blob, piece, node, had ? 0 : status);
    if (had && !bitfield_get(&blob->have, piece))
        piece_had(transfer, blob, piece, kept);
    if (source->origin == PIECE_FROM_CACHE && status == E_DIGEST && blob->swarm != NULL)
        set_repair(blob->swarm, piece, true);
    if (source->origin == PIECE_FROM_CACHE && !had)
        transfer__piece_forget(transfer, blob, piece);
    transfer__lease_piece(transfer, blob, piece, source, had ? 0 : status);
    transfer__touch(transfer);
    transfer__leave(transfer);
}

void transfer__piece_forget(struct transfer *transfer, struct blob *blob, uint32_t piece)
{
    if (!bitfield_clear(&blob->have, piece))
        return;
    blob->complete_told = false;
    transfer__uploads_end(transfer, blob, piece, NODE_NONE);
    transfer__piece_settle(blob, piece);
    transfer__blob_changed(transfer, blob, piece);
}

/* ---- open and close ---- */

static int copy_have(struct transfer *transfer, struct blob *blob, const struct bitfield *have)
{
    int err = bitfield_init(&blob->have, transfer->env, blob->layout.piece_count);
    if (err != 0 || have == NULL || have->bit_count == 0)
        return err;
    if (have->bit_count != blob->layout.piece_count) {
        bitfield_close(&blob->have, transfer->env);
        return E_INVALID;
    }
    return bitfield_merge(&blob->have, 0, have->bits, (have->bit_count + 7) / 8);
}

static void blob_free(struct transfer *transfer, struct blob *blob)
{
    bitfield_close(&blob->have, transfer->env);
    transfer__release(transfer, blob);
}

static int blob_add(struct transfer *transfer, struct blob *blob)
{
    HASH_ADD_BYHASHVALUE(by_key, transfer->blobs_by_key, info.key, sizeof blob->info.key,
                         hash_of(&blob->info.key), blob);
    if (blob->by_key.tbl == NULL)
        return E_NO_MEMORY;
    HASH_ADD(by_handle, transfer->blobs_by_handle, handle, sizeof blob->handle, blob);
    if (blob->by_handle.tbl == NULL) {
        HASH_DELETE(by_key, transfer->blobs_by_key, blob);
        return E_NO_MEMORY;
    }
    transfer->blob_count++;
    return 0;
}

int transfer_blob_open(struct transfer *transfer, uint64_t now_us, const struct blob_info *info,
                       const struct bitfield *have, blob_handle *out)
{
    transfer__enter(transfer, now_us);
    struct blob *known = transfer__blob_by_key(transfer, &info->key);
    if (known != NULL) {
        *out = known->handle;
        return E_EXISTS;
    }
    struct blob *blob = transfer__zalloc(transfer, sizeof *blob);
    if (blob == NULL)
        return E_NO_MEMORY;
    blob->info = *info;
    blob->copies = transfer->config.copies;
    blob->publish_due_us = UINT64_MAX;
    int err = piece_layout_cut(info->size_bytes, info->cut, &blob->layout);
    if (err == 0)
        err = copy_have(transfer, blob, have);
    if (err == 0) {
        blob->handle = ++transfer->next_id;
        err = blob_add(transfer, blob);
    }
    if (err != 0) {
        blob_free(transfer, blob);
        return err;
    }
    blob->complete_told = bitfield_full(&blob->have);
    if (blob->have.set_count > 0)
        publish(transfer, blob, completeness(blob));
    *out = blob->handle;
    transfer__leave(transfer);
    return 0;
}

bool transfer__in_reach(const struct transfer *transfer, const struct blob *blob, uint16_t node)
{
    return blob->copies == TRANSFER_COPIES_MESH ||
           transfer__nodes_same_zone(transfer, NODE_SELF, node);
}

void transfer_blob_copies(struct transfer *transfer, uint64_t now_us, blob_handle handle,
                          enum transfer_copies copies)
{
    transfer__enter(transfer, now_us);
    struct blob *blob = transfer__blob(transfer, handle);
    if (copies != TRANSFER_COPIES_MESH && copies != TRANSFER_COPIES_ZONE)
        copies = transfer->config.copies;
    bool read = blob != NULL && blob->swarm != NULL && blob->swarm->readers > 0;
    if (blob != NULL && !read && blob->copies != copies) {
        blob->copies = copies;
        transfer->reach_stale = true;
    }
    transfer__leave(transfer);
}

static void blob_close(struct transfer *transfer, struct blob *blob)
{
    transfer__uploads_end(transfer, blob, blob->layout.piece_count, NODE_NONE);
    transfer__requests_end(transfer, blob, blob->layout.piece_count, NODE_NONE);
    transfer__leases_end(transfer, blob);
    if (blob->swarm != NULL) {
        transfer__swarm_leave(transfer, blob, WIRE_BYE_DONE);
        swarm_unlink(transfer, blob);
    }
    HASH_DELETE(by_key, transfer->blobs_by_key, blob);
    HASH_DELETE(by_handle, transfer->blobs_by_handle, blob);
    ASSERT(transfer->blob_count > 0);
    transfer->blob_count--;
    blob_free(transfer, blob);
}

static void drop_readers(struct transfer *transfer, const struct blob *blob)
{
    struct reader **at = &transfer->readers;
    while (*at != NULL) {
        struct reader *reader = *at;
        if (blob != NULL && reader->blob != blob) {
            at = &reader->next;
            continue;
        }
        *at = reader->next;
        transfer__release(transfer, reader);
    }
}

void transfer_blob_close(struct transfer *transfer, uint64_t now_us, blob_handle handle)
{
    transfer__enter(transfer, now_us);
    struct blob *blob = transfer__blob(transfer, handle);
    if (blob != NULL) {
        drop_readers(transfer, blob);
        publish(transfer, blob, 0);
        blob_close(transfer, blob);
    }
    transfer__leave(transfer);
}

void transfer__blobs_close(struct transfer *transfer)
{
    drop_readers(transfer, NULL);
    struct blob *blob, *next;
    HASH_ITER(by_handle, transfer->blobs_by_handle, blob, next)
    {
        blob_close(transfer, blob);
    }
}

blob_handle transfer_blob_find(const struct transfer *transfer, const struct blob_key *key)
{
    const struct blob *blob = transfer__blob_by_key(transfer, key);
    return blob == NULL ? 0 : blob->handle;
}

const struct bitfield *transfer_blob_have(const struct transfer *transfer, blob_handle handle)
{
    const struct blob *blob = transfer__blob(transfer, handle);
    return blob == NULL ? NULL : &blob->have;
}

const struct piece_layout *transfer_blob_layout(const struct transfer *transfer, blob_handle handle)
{
    const struct blob *blob = transfer__blob(transfer, handle);
    return blob == NULL ? NULL : &blob->layout;
}

/* ---- time ---- */

/* No neighbour has it, no lease may be had: when that lasts, readers are told. */
static void check_sources(struct transfer *transfer, struct blob *blob)
{
    struct swarm *swarm = blob->swarm;
    bool hope = swarm->open.set_count == 0 || swarm->absent.set_count < swarm->open.set_count ||
                transfer__can_fetch(transfer, blob) ||
                (swarm->fetchers > 0 && swarm->origin_pause_us > transfer->now_us);
    if (hope) {
        swarm->sourceless_us = 0;
        return;
    }
    if (swarm->sourceless_us == 0 || swarm->progress_us > swarm->sourceless_us)
        swarm->sourceless_us = transfer->now_us;
    if (transfer->now_us - swarm->sourceless_us < SOURCELESS_US)
        return;
    int status = swarm->origin_status != 0 ? swarm->origin_status : E_NOT_FOUND;
    for (uint32_t piece = bitfield_next_set(&swarm->open, 0); piece < swarm->open.bit_count;
         piece = bitfield_next_set(&swarm->open, piece + 1))
        transfer__piece_give_up(transfer, blob, piece, status);
}

void transfer__blob_tick(struct transfer *transfer, struct blob *blob)
{
    struct swarm *swarm = blob->swarm;
    if (blob->publish_due_us <= transfer->now_us)
        publish(transfer, blob, completeness(blob));
    if (bitfield_full(&blob->have) && !blob->complete_told)
        push_ready(transfer, blob, 0);
    if (swarm->readers == 0)
        return;
    check_sources(transfer, blob);
    bool starving = swarm->open.set_count > 0 && swarm->requests == 0 && swarm->leases == 0;
    if (starving && !swarm->locating && swarm->locate_due_us <= transfer->now_us)
        transfer__locate(transfer, blob);
}
