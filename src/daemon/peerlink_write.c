/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sending side of a connection: uploads to records, records into one batch, the batch to the
 * kernel. The next batch is sealed when the kernel has taken the last one, so a slow receiver holds
 * one batch of ours and the piece it is cut from.
 */
#include "peerlink.h"

#include <string.h>

#include "log.h"
#include "node_internal.h"

static bool bye_due(const struct peerlink *link)
{
    return link->retired && !link->bye_sent && link->sending == NULL;
}

static bool anything_to_send(const struct peerlink *link)
{
    if (link->sending != NULL || bye_due(link))
        return true;
    return !link->retired && tcp_upload_waits(link->owner, link);
}

static int seal(struct peerlink *link, const uint8_t *bytes, size_t byte_count)
{
    struct buffer *batch = link->batch;
    size_t sealed = 0;
    ASSERT(batch->capacity - batch->used >= RECORD_HEADER_BYTES + byte_count + RECORD_TAG_BYTES);
    int err = session_seal(link->session, node_now(link->owner->node), NULL, 0, bytes, byte_count,
                           batch->bytes + batch->used, &sealed);
    if (err == 0)
        batch->used += (uint32_t)sealed;
    return err;
}

static int seal_header(struct peerlink *link, const struct upload *upload)
{
    uint8_t bytes[PIECE_FRAME_BYTES];
    const struct piece_frame frame = {
        .kind = FRAME_PIECE,
        .vouched = upload->vouched,
        .body_bytes = upload->bytes->used,
        .upload_id = upload->id,
        .key = upload->key,
        .piece = upload->piece,
        .voucher = upload->voucher,
    };
    return seal(link, bytes, frame_encode(&frame, bytes));
}

/* One record more of the upload under way, or the header of the next one. */
static int seal_upload(struct peerlink *link)
{
    struct upload *upload = link->sending;
    if (upload == NULL) {
        upload = tcp_upload_next(link->owner, link);
        ASSERT(upload != NULL);
        link->sending = upload;
        return seal_header(link, upload);
    }
    uint32_t left = upload->bytes->used - upload->offset;
    uint32_t now = left < RECORD_BYTES_MAX ? left : RECORD_BYTES_MAX;
    int err = seal(link, upload->bytes->bytes + upload->offset, now);
    if (err != 0)
        return err;
    upload->offset += now;
    if (upload->offset == upload->bytes->used) {
        upload->state = UPLOAD_FLUSHING;
        link->sending = NULL;
        link->flushing_count++;
    }
    return 0;
}

static int seal_bye(struct peerlink *link)
{
    uint8_t bytes[PIECE_FRAME_BYTES];
    const struct piece_frame frame = {.kind = FRAME_BYE};
    link->bye_sent = true;
    return seal(link, bytes, frame_encode(&frame, bytes));
}

static int fill(struct peerlink *link)
{
    struct buffer *batch = link->batch;
    int err = 0;
    while (err == 0 && batch->capacity - batch->used >= RECORD_WIRE_BYTES_MAX &&
           anything_to_send(link))
        err = bye_due(link) ? seal_bye(link) : seal_upload(link);
    return err;
}

/* The kernel has the batch: uploads that ended in it are done. */
static void flushed(struct peerlink *link, int status)
{
    struct upload *upload = link->peer != NULL ? link->peer->uploads : NULL;
    while (upload != NULL && link->flushing_count > 0) {
        struct upload *next = upload->next;
        if (upload->state == UPLOAD_FLUSHING && upload->link == link) {
            link->flushing_count--;
            tcp_upload_end(link->owner, upload, status);
        }
        upload = next;
    }
}

static void on_write(uv_write_t *request, int status)
{
    struct peerlink *link = request->data;
    ASSERT(link->magic == LINK_MAGIC);
    buffer_put(link->batch);
    link->batch = NULL;
    link->batch_written = false;
    if (link->state != LINK_OPEN)
        return;
    if (status != 0) {
        peerlink_close(link, loop_uv_error(status));
        return;
    }
    link->used_us = node_now(link->owner->node);
    flushed(link, 0);
    if (link->bye_sent && link->bye_received)
        peerlink_close(link, E_CLOSED);
    else
        peerlink_pump(link);
}

static void buffer_ready(void *arg)
{
    struct peerlink *link = arg;
    ASSERT(link->magic == LINK_MAGIC);
    peerlink_pump(link);
}

static bool batch_get(struct peerlink *link)
{
    struct buffer_pool *pool = link->owner->node->pool;
    if (link->write_waiter.waiting)
        return false;
    link->batch = buffer_get(pool, LINK_BATCH_BYTES, BUFFER_FOR_LOCAL);
    if (link->batch != NULL)
        return true;
    link->write_waiter.ready = buffer_ready;
    link->write_waiter.arg = link;
    link->write_waiter.bytes = LINK_BATCH_BYTES;
    link->write_waiter.use = BUFFER_FOR_LOCAL;
    buffer_wait(pool, &link->write_waiter);
    return false;
}

static int write_batch(struct peerlink *link)
{
    struct buffer *batch = link->batch;
    uv_buf_t span = uv_buf_init((char *)batch->bytes, batch->used);
    link->bytes_out += batch->used;
    link->owner->node->counters.tcp_bytes_out += batch->used;
    rate_budget_spend(&link->owner->rate, batch->used);
    link->writing.data = link;
    int uv_error = uv_write(&link->writing, (uv_stream_t *)&link->tcp, &span, 1, on_write);
    link->batch_written = uv_error == 0;
    return loop_uv_error(uv_error);
}

void peerlink_pump(struct peerlink *link)
{
    if (link->state != LINK_OPEN || link->batch != NULL || link->throttled ||
        !anything_to_send(link))
        return;
    uint64_t wait_us = rate_budget_wait_us(&link->owner->rate, node_now(link->owner->node));
    if (wait_us > 0) {
        tcp_throttle(link->owner, link, wait_us);
        return;
    }
    if (!batch_get(link))
        return;
    int err = fill(link);
    if (err == 0)
        err = write_batch(link);
    if (err != 0)
        peerlink_close(link, err);
}

void peerlink_retire(struct peerlink *link)
{
    if (!link->retired) {
        link->retired = true;
        link->retired_us = node_now(link->owner->node);
    }
    if (link->bye_sent && link->bye_received && link->batch == NULL) {
        peerlink_close(link, E_CLOSED);
        return;
    }
    peerlink_pump(link);
}

void link_write_close(struct peerlink *link, int status)
{
    buffer_unwait(link->owner->node->pool, &link->write_waiter);
    if (!link->batch_written) {
        buffer_put(link->batch);
        link->batch = NULL;
    }
    if (link->sending != NULL) {
        struct upload *upload = link->sending;
        link->sending = NULL;
        tcp_upload_end(link->owner, upload, status);
    }
    flushed(link, status);
}
