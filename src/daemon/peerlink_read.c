/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receiving side of a connection: bytes to records, records to frames, pieces into pooled buffers.
 * Whatever the peer sends, memory held for it is one stash and one piece.
 */
#include "peerlink.h"

#include <string.h>

#include "log.h"
#include "net.h"
#include "node_internal.h"

/* transfer_piece_progress is called at most once per so many bytes. */
#define PROGRESS_BYTES (64U * 1024)
/* Handshake messages are about 300 bytes: an outsider's connection stays cheap. */
#define STASH_SMALL 1024U
/* A record that misses less comes in with the next packet or two. */
#define WAIT_BYTES_MIN (8U * 1024)
/* A connection unused for so long keeps no memory for records. */
#define TRIM_US 1000000ULL

static void process(struct peerlink *link, uint8_t *bytes, size_t byte_count);

/* ---- stash ---- */

static int stash_keep(struct peerlink *link, const uint8_t *bytes, size_t byte_count)
{
    ASSERT(link->stash_bytes == 0);
    if (byte_count > link->stash_capacity) {
        size_t capacity = link->state == LINK_OPEN ? RECORD_WIRE_BYTES_MAX : STASH_SMALL;
        if (capacity < byte_count)
            capacity = byte_count;
        uint8_t *grown = loop_alloc(NULL, link->stash, capacity);
        if (grown == NULL)
            return E_NO_MEMORY;
        link->stash = grown;
        link->stash_capacity = (uint32_t)capacity;
    }
    memcpy(link->stash, bytes, byte_count);
    link->stash_bytes = (uint32_t)byte_count;
    return 0;
}

static void stash_free(struct peerlink *link)
{
    link->stash = loop_alloc(NULL, link->stash, 0);
    link->stash_bytes = link->stash_capacity = 0;
}

void link_trim(struct peerlink *link, uint64_t now_us)
{
    if (link->stash_bytes == 0 && !link->paused && now_us - link->used_us >= TRIM_US)
        stash_free(link);
}

void link_read_close(struct peerlink *link)
{
    buffer_unwait(link->owner->node->pool, &link->read_waiter);
    buffer_put(link->buffer);
    link->buffer = NULL;
    stash_free(link);
}

/* ---- pieces ---- */

static void resume(void *arg)
{
    struct peerlink *link = arg;
    ASSERT(link->magic == LINK_MAGIC);
    ASSERT(link->paused && link->buffer == NULL);
    struct node *node = link->owner->node;
    link->buffer = buffer_get(node->pool, link->frame.body_bytes, BUFFER_FOR_PEER);
    if (link->buffer == NULL) {
        buffer_wait(node->pool, &link->read_waiter);
        return;
    }
    link->paused = false;
    link->used_us = node_now(node);
    uint8_t *bytes = link->stash;
    size_t byte_count = link->stash_bytes;
    link->stash = NULL;
    link->stash_bytes = link->stash_capacity = 0;
    process(link, bytes,
            byte_count); /* of no bytes, too: the kernel may wait for a record's rest */
    (void)loop_alloc(NULL, bytes, 0);
    if (link->state != LINK_OPEN || link->paused)
        return;
    int err = link_read_start(link);
    if (err != 0)
        peerlink_close(link, err);
}

/* Memory is short: this peer is read on when a buffer comes back. Backpressure goes through TCP. */
static void pause_reading(struct peerlink *link)
{
    struct node *node = link->owner->node;
    node->counters.read_pauses++;
    link->paused = true;
    (void)uv_read_stop((uv_stream_t *)&link->tcp);
    link->read_waiter.ready = resume;
    link->read_waiter.arg = link;
    link->read_waiter.bytes = link->frame.body_bytes;
    link->read_waiter.use = BUFFER_FOR_PEER;
    buffer_wait(node->pool, &link->read_waiter);
}

static int piece_begin(struct peerlink *link)
{
    struct node *node = link->owner->node;
    struct transfer *transfer = mesh_transfer(node->mesh);
    const struct piece_frame *frame = &link->frame;
    link->receive = LINK_IN_SKIPPED;
    link->blob = transfer_blob_find(transfer, &frame->key);
    if (link->blob == 0 ||
        !transfer_expects(transfer, &frame->key, frame->piece, &link->peer->id)) {
        node->counters.pieces_unexpected++;
        return 0;
    }
    const struct piece_layout *layout = transfer_blob_layout(transfer, link->blob);
    if (layout == NULL || frame->piece >= layout->piece_count ||
        piece_length(layout, frame->piece) != frame->body_bytes) {
        node->counters.pieces_wrong_length++;
        return E_PROTOCOL;
    }
    link->receive = LINK_IN_PIECE;
    link->told = 0;
    link->buffer = buffer_get(node->pool, frame->body_bytes, BUFFER_FOR_PEER);
    if (link->buffer == NULL)
        pause_reading(link);
    return 0;
}

static void piece_end(struct peerlink *link)
{
    struct node *node = link->owner->node;
    struct transfer *transfer = mesh_transfer(node->mesh);
    struct buffer *buffer = link->buffer;
    struct node_piece piece = {
        .blob = link->blob,
        .key = link->frame.key,
        .piece = link->frame.piece,
        .peer = link->peer->id,
        .peer_key = link->peer_key,
        .vouched = link->frame.vouched,
        .voucher = link->frame.voucher,
    };
    link->buffer = NULL;
    link->receive = LINK_AT_FRAME;
    node->counters.pieces_in++;
    node->counters.piece_bytes_in += buffer->used;
    /* The blob may have been closed, even opened anew, while the bytes came in. */
    if (transfer_blob_find(transfer, &piece.key) != piece.blob) {
        buffer_put(buffer);
        return;
    }
    if (node->handlers.piece != NULL) {
        node->handlers.piece(node->handlers.host, &piece, buffer);
        return;
    }
    buffer_put(buffer);
    const struct piece_source source = {.origin = PIECE_FROM_PEER, .peer = piece.peer};
    transfer_piece_done(transfer, node_now(node), piece.blob, piece.piece, &source, E_UNSUPPORTED);
}

static int body(struct peerlink *link, const uint8_t *plain, size_t plain_bytes)
{
    struct node *node = link->owner->node;
    if (plain_bytes > link->left)
        return E_PROTOCOL;
    link->left -= (uint32_t)plain_bytes;
    link->used_us = node_now(node);
    if (link->receive == LINK_IN_SKIPPED) {
        if (link->left == 0)
            link->receive = LINK_AT_FRAME;
        return 0;
    }
    struct buffer *buffer = link->buffer;
    ASSERT(plain == buffer->bytes + buffer->used); /* opened there: it is no longer than `left` */
    buffer->used += (uint32_t)plain_bytes;
    /* Also of the last byte: what is being verified or stored is no longer on its way, however slow
     * the disk is (D-14). */
    if (link->left == 0 || buffer->used - link->told >= PROGRESS_BYTES) {
        link->told = buffer->used;
        transfer_piece_progress(mesh_transfer(node->mesh), node_now(node), link->blob,
                                link->frame.piece, &link->peer->id, buffer->used);
    }
    if (link->left == 0)
        piece_end(link);
    return 0;
}

static int header(struct peerlink *link, const uint8_t *plain, size_t plain_bytes)
{
    struct node *node = link->owner->node;
    int err = frame_decode(plain, plain_bytes, &link->frame);
    if (err != 0)
        return err;
    if (link->bye_received)
        return E_PROTOCOL; /* it said it would send no more */
    link->used_us = node_now(node);
    link->left = link->frame.body_bytes;
    if (link->frame.kind == FRAME_PIECE)
        return piece_begin(link);
    if (link->frame.kind == FRAME_BYE) {
        link->bye_received = true;
        peerlink_retire(link);
        return 0;
    }
    node->counters.frames_skipped++;
    link->receive = link->left > 0 ? LINK_IN_SKIPPED : LINK_AT_FRAME;
    return 0;
}

/* ---- bytes to records ---- */

static int take(struct peerlink *link, const uint8_t *plain, size_t plain_bytes)
{
    if (link->state == LINK_HANDSHAKE) {
        int err = link_flush_handshake(link);
        if (err == 0 && session_state(link->session) == SESSION_ESTABLISHED)
            link_opened(link);
        return err;
    }
    if (link->state != LINK_OPEN || plain_bytes == 0)
        return 0;
    if (link->receive == LINK_AT_FRAME)
        return header(link, plain, plain_bytes);
    return body(link, plain, plain_bytes);
}

/* A record opens only as a whole. Where it comes in slowly the kernel keeps its parts until then:
 * one wake-up and one read instead of one for each packet. Little that is missing is no reason to
 * tell the kernel, too much asked for would leave us asleep. */
static void sleep_until_whole(struct peerlink *link)
{
    size_t missing = session_missing(link->session, link->stash, link->stash_bytes);
    uint32_t readable_at = missing >= WAIT_BYTES_MIN ? (uint32_t)missing : 0;
    if (readable_at == link->readable_at)
        return;
    link->readable_at = readable_at;
    net_readable_at(&link->tcp, readable_at > 0 ? readable_at : 1);
}

/* A record of a piece is opened where the piece is collected. */
static struct session_room room_of(const struct peerlink *link)
{
    if (link->receive != LINK_IN_PIECE)
        return (struct session_room){0};
    const struct buffer *buffer = link->buffer;
    ASSERT(buffer->used + link->left <= buffer->capacity);
    return (struct session_room){buffer->bytes + buffer->used, link->left};
}

static void process(struct peerlink *link, uint8_t *bytes, size_t byte_count)
{
    size_t used = 0;
    int err = 0;
    while (err == 0 && !link->paused && link->state != LINK_CLOSING && used < byte_count) {
        struct session_received received;
        err = session_receive_into(link->session, node_now(link->owner->node), bytes + used,
                                   byte_count - used, room_of(link), &received);
        if (err == 0 && received.consumed == 0)
            break;
        used += received.consumed;
        if (err == 0)
            err = take(link, received.plain, received.plain_bytes);
    }
    if (err == 0 && link->state != LINK_CLOSING && used < byte_count)
        err = stash_keep(link, bytes + used, byte_count - used);
    if (err != 0)
        peerlink_close(link, err);
    else if (link->state == LINK_OPEN && !link->paused)
        sleep_until_whole(link);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct peerlink *link = handle->data;
    (void)suggested;
    ASSERT(link->magic == LINK_MAGIC);
    uint8_t *buffer = link->owner->read_buffer;
    /* libuv reads at once behind what is here, so one buffer, warm in the cache, serves all. */
    ASSERT(link->stash_bytes <= RECORD_WIRE_BYTES_MAX);
    if (link->stash_bytes > 0)
        memcpy(buffer, link->stash, link->stash_bytes);
    *out = uv_buf_init((char *)buffer + link->stash_bytes, TCP_READ_BYTES);
}

static void on_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *buffer)
{
    struct peerlink *link = stream->data;
    (void)buffer;
    ASSERT(link->magic == LINK_MAGIC);
    if (got == 0)
        return;
    if (got < 0) {
        peerlink_close(link, loop_uv_error((int)got));
        return;
    }
    size_t byte_count = link->stash_bytes + (size_t)got;
    link->stash_bytes = 0;
    link->bytes_in += (uint64_t)got;
    link->owner->node->counters.tcp_bytes_in += (uint64_t)got;
    process(link, link->owner->read_buffer, byte_count);
}

int link_read_start(struct peerlink *link)
{
    /* What waited for a buffer may be more than one record; later it is less than one. */
    if (link->stash_capacity > RECORD_WIRE_BYTES_MAX && link->stash_bytes == 0)
        stash_free(link);
    return loop_uv_error(uv_read_start((uv_stream_t *)&link->tcp, on_alloc, on_read));
}
