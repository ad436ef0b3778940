/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole transfer core fed a script of events: raw and well-formed messages of four peers with and
 * without proof, pieces, reads, sessions, members, time. Whatever comes: no assert, the invariants
 * hold after each event, uploads only of what is had, nothing is left allocated.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "digest.h"
#include "log.h"
#include "member.h"
#include "transfer.h"
#include "wire_transfer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PEERS   4
#define BLOBS   4
#define WORK    32 /* fetches and uploads remembered */
#define OPS_MAX 400
/* The blob of some pieces, and the pieces that scripts name: all of it, and some that are not. */
#define SOME_BYTES   (3 * 1024 * 1024 + 7)
#define PIECES_TRIED 32

static_assert(SOME_BYTES / PIECE_BYTES_MIN + 1 < PIECES_TRIED, "all of its pieces are named");
static_assert(SOME_BYTES / PIECE_BYTES_MIN + 1 > PIECES_TRIED / 2, "and not many others");

struct script {
    const uint8_t *data;
    size_t size, at;
};

struct fuzz {
    struct env env;
    struct prng prng;
    struct transfer *core;
    struct member peers[PEERS];
    struct blob_info blobs[BLOBS];
    blob_handle handles[BLOBS];
    uint64_t readers[BLOBS];
    uint64_t now_us;
    uint64_t fetches[WORK], uploads[WORK];
    unsigned fetch_count, upload_count;
    long allocated;
};

static uint64_t take(struct script *script, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes && script->at < script->size; i++)
        value = value << 8 | script->data[script->at++];
    return value;
}

static int host_send(void *host, const struct peer_addr *to, const uint8_t *msg, size_t msg_bytes)
{
    (void)host;
    (void)to;
    struct wire_transfer message;
    int err = wire_transfer_decode(msg, msg_bytes, &message);
    ASSERT(err == 0); /* what we send, others can read */
    return 0;
}

static void host_random(void *host, uint8_t *out, size_t out_bytes)
{
    struct fuzz *fuzz = host;
    for (size_t i = 0; i < out_bytes; i++)
        out[i] = (uint8_t)prng_next(&fuzz->prng);
}

static void *host_alloc(void *host, void *old, size_t new_bytes)
{
    struct fuzz *fuzz = host;
    if (new_bytes == 0) {
        fuzz->allocated -= old != NULL ? 1 : 0;
        free(old);
        return NULL;
    }
    fuzz->allocated += old == NULL ? 1 : 0;
    return realloc(old, new_bytes);
}

static void host_trace(void *host, enum log_level level, const char *line)
{
    (void)host;
    (void)level;
    (void)line;
}

static struct member a_member(unsigned index)
{
    struct member member = {.state = MEMBER_ALIVE};
    member.addr = (struct peer_addr){.ip = {[10] = 0xff, [11] = 0xff, [12] = 10}, .port = 1};
    member.addr.ip[15] = (uint8_t)index;
    node_id_of("fuzz", &member.addr, &member.id);
    member.topology.zone.text[0] = (char)('a' + index % 2);
    return member;
}

static void start(struct fuzz *fuzz)
{
    static const uint64_t sizes[BLOBS] = {0, SOME_BYTES, 40ull * 1024 * 1024 * 1024, SOME_BYTES};
    *fuzz = (struct fuzz){.now_us = 1000000};
    fuzz->env = (struct env){.host = fuzz,
                             .send = host_send,
                             .random = host_random,
                             .alloc = host_alloc,
                             .trace = host_trace};
    prng_seed(&fuzz->prng, (const uint8_t *)"fuzz", 4);
    struct member self = a_member(100);
    struct transfer_config config = {
        .self_id = self.id, .self_addr = self.addr, .topology = self.topology};
    int err = transfer_new(&fuzz->env, &config, fuzz->now_us, &fuzz->core);
    ASSERT(err == 0);
    for (unsigned i = 0; i < PEERS; i++)
        fuzz->peers[i] = a_member(i + 1);
    for (unsigned i = 0; i < BLOBS; i++) {
        uint8_t lookup[32] = {1};
        fuzz->blobs[i].size_bytes = sizes[i];
        digest_of(DIGEST_SHA256, &i, sizeof i, &fuzz->blobs[i].digest);
        fuzz->blobs[i].cut = i == BLOBS - 1 ? PIECE_CUT_FINE : PIECE_CUT_PLAIN;
        blob_key_cut(lookup, &fuzz->blobs[i].digest, fuzz->blobs[i].cut, &fuzz->blobs[i].key);
    }
}

/* ---- messages ---- */

static void receive(struct fuzz *fuzz, unsigned peer, const uint8_t *bytes, size_t byte_count)
{
    int err = transfer_receive(fuzz->core, fuzz->now_us, &fuzz->peers[peer].id,
                               &fuzz->peers[peer].addr, bytes, byte_count);
    (void)err;
}

static void receive_raw(struct fuzz *fuzz, struct script *script)
{
    unsigned peer = (unsigned)take(script, 1) % PEERS;
    size_t bytes = (size_t)take(script, 1);
    size_t left = script->size - script->at;
    bytes = bytes < left ? bytes : left;
    receive(fuzz, peer, script->data + script->at, bytes);
    script->at += bytes;
}

static struct wire_contact a_contact(const struct fuzz *fuzz, struct script *script)
{
    unsigned peer = (unsigned)take(script, 1);
    struct member who = peer < 200 ? fuzz->peers[peer % PEERS] : a_member(peer);
    return (struct wire_contact){.id = who.id, .addr = who.addr};
}

static void fill_have(struct fuzz *fuzz, struct script *script, unsigned peer, unsigned blob,
                      struct wire_have *have)
{
    struct member self = a_member(100);
    have->blob = fuzz->blobs[blob].key;
    have->flags = (uint8_t)take(script, 1);
    if (take(script, 1) % 8 != 0)
        digest_proof(&fuzz->blobs[blob].digest, &fuzz->peers[peer].id, &self.id, have->proof);
    have->sequence = (uint32_t)take(script, 2);
    have->wait_us = (uint32_t)take(script, 3);
    have->lease_us = (uint32_t)take(script, 3);
    have->took_us = (uint32_t)take(script, 3);
    have->fallbacks = (uint8_t)take(script, 1);
    have->first_byte = (uint32_t)take(script, 1) % 4 == 0 ? (uint32_t)take(script, 2) % 32768 : 0;
    have->page_bytes = (uint32_t)take(script, 1) % 16;
    for (uint32_t i = 0; i < have->page_bytes; i++) {
        have->have[i] = (uint8_t)take(script, 1);
        have->injected[i] = (uint8_t)take(script, 1);
    }
}

static void fill_lease(struct fuzz *fuzz, struct script *script, unsigned blob,
                       struct wire_lease *lease)
{
    lease->blob = fuzz->blobs[blob].key;
    lease->segment = (uint32_t)take(script, 1) % 8 == 0 ? (uint32_t)take(script, 2)
                                                        : (uint32_t)take(script, 1) % 4;
    lease->level = (uint8_t)(take(script, 1) % 2);
    lease->flags = (uint8_t)take(script, 1);
    lease->zone = take(script, 1);
    lease->epoch = (uint32_t)take(script, 1);
    lease->zone_epoch = (uint32_t)take(script, 1);
    lease->arg = (uint32_t)take(script, 2);
    lease->contact = a_contact(fuzz, script);
}

static void fill_other(struct fuzz *fuzz, struct script *script, unsigned peer,
                       struct wire_transfer *message)
{
    unsigned blob = (unsigned)take(script, 1) % BLOBS;
    struct member self = a_member(100);
    if (message->type == WIRE_TRANSFER_ANNOUNCE) {
        message->of.announce.blob = fuzz->blobs[blob].key;
        message->of.announce.leaving = take(script, 1) % 4 == 0;
    } else if (message->type == WIRE_TRANSFER_PEERS) {
        message->of.peers.blob = fuzz->blobs[blob].key;
        message->of.peers.others = (uint32_t)take(script, 1);
        message->of.peers.contact_count = (uint32_t)take(script, 1) % (WIRE_PEERS_MAX + 1);
        for (uint32_t i = 0; i < message->of.peers.contact_count; i++)
            message->of.peers.contacts[i] = a_contact(fuzz, script);
    } else if (message->type == WIRE_TRANSFER_RENEW) {
        message->of.renew.blob = fuzz->blobs[blob].key;
        message->of.renew.level = (uint8_t)(take(script, 1) % 2);
        message->of.renew.count = (uint32_t)take(script, 1) % 4;
        for (uint32_t i = 0; i < message->of.renew.count; i++)
            message->of.renew.renewals[i] =
                (struct wire_renewal){(uint32_t)take(script, 1) % 4, (uint32_t)take(script, 1),
                                      (uint32_t)take(script, 1)};
    } else if (message->type == WIRE_TRANSFER_RESYNC || message->type == WIRE_TRANSFER_BYE) {
        message->of.note.blob = fuzz->blobs[blob].key;
        message->of.note.arg = (uint8_t)take(script, 1);
    } else {
        struct wire_piece *piece = &message->of.piece;
        piece->blob = fuzz->blobs[blob].key;
        piece->piece = (uint32_t)take(script, 1) % PIECES_TRIED;
        piece->serial = (uint32_t)take(script, 1) % 32;
        piece->flags = (uint8_t)take(script, 1);
        piece->wait_us = (uint32_t)take(script, 2);
        digest_proof(&fuzz->blobs[blob].digest, &fuzz->peers[peer].id, &self.id, piece->proof);
    }
}

static void receive_made(struct fuzz *fuzz, struct script *script)
{
    static struct wire_transfer message;
    uint8_t bytes[MESSAGE_BYTES_MAX];
    size_t used;
    unsigned peer = (unsigned)take(script, 1) % PEERS;
    memset(&message, 0, sizeof message);
    message.type = WIRE_TRANSFER_ANNOUNCE +
                   (unsigned)take(script, 1) % (WIRE_TRANSFER_END - WIRE_TRANSFER_ANNOUNCE);
    if (message.type == WIRE_TRANSFER_HELLO || message.type == WIRE_TRANSFER_HAVE)
        fill_have(fuzz, script, peer, (unsigned)take(script, 1) % BLOBS, &message.of.have);
    else if (message.type >= WIRE_TRANSFER_WANT && message.type != WIRE_TRANSFER_RENEW)
        fill_lease(fuzz, script, (unsigned)take(script, 1) % BLOBS, &message.of.lease);
    else
        fill_other(fuzz, script, peer, &message);
    if (wire_transfer_encode(&message, bytes, sizeof bytes, &used) == 0)
        receive(fuzz, peer, bytes, used);
}

/* ---- other events ---- */

static const int statuses[] = {0, 0, 0, E_DIGEST, E_IO, E_ORIGIN, E_DENIED, E_TIMEOUT};

static int a_status(struct script *script)
{
    return statuses[take(script, 1) % (sizeof statuses / sizeof statuses[0])];
}

static void piece_event(struct fuzz *fuzz, struct script *script)
{
    unsigned blob = (unsigned)take(script, 1) % BLOBS;
    uint32_t piece = (uint32_t)take(script, 1) % PIECES_TRIED;
    struct piece_source source = {.origin = (enum piece_origin)(take(script, 1) % 4)};
    source.peer = fuzz->peers[take(script, 1) % PEERS].id;
    if (fuzz->handles[blob] == 0)
        return;
    if (take(script, 1) % 4 == 0)
        transfer_piece_lost(fuzz->core, fuzz->now_us, fuzz->handles[blob], piece);
    else if (take(script, 1) % 4 == 0)
        transfer_piece_progress(fuzz->core, fuzz->now_us, fuzz->handles[blob], piece, &source.peer,
                                (uint32_t)take(script, 3));
    else
        transfer_piece_done(fuzz->core, fuzz->now_us, fuzz->handles[blob], piece, &source,
                            a_status(script));
}

static void read_event(struct fuzz *fuzz, struct script *script)
{
    unsigned blob = (unsigned)take(script, 1) % BLOBS, what = (unsigned)take(script, 1) % 6;
    int err = 0;
    if (fuzz->handles[blob] == 0)
        err = transfer_blob_open(fuzz->core, fuzz->now_us, &fuzz->blobs[blob], NULL,
                                 &fuzz->handles[blob]);
    ASSERT(err == 0);
    const struct piece_layout *layout = transfer_blob_layout(fuzz->core, fuzz->handles[blob]);
    if (what == 0) {
        transfer_blob_close(fuzz->core, fuzz->now_us, fuzz->handles[blob]);
        fuzz->handles[blob] = 0;
        fuzz->readers[blob] = 0;
    } else if (what == 1) {
        transfer_read_stop(fuzz->core, fuzz->now_us, fuzz->readers[blob]);
        fuzz->readers[blob] = 0;
    } else if (what == 2) {
        transfer_read_move(fuzz->core, fuzz->now_us, fuzz->readers[blob],
                           (uint32_t)take(script, 1));
    } else if (what == 3) {
        transfer_blob_copies(fuzz->core, fuzz->now_us, fuzz->handles[blob],
                             (enum transfer_copies)(take(script, 1) % 4));
    } else if (fuzz->readers[blob] == 0) {
        uint32_t first = (uint32_t)take(script, 1) % (layout->piece_count + 1);
        uint32_t count = (uint32_t)take(script, 2) % (layout->piece_count - first + 1);
        err = transfer_read_start(fuzz->core, fuzz->now_us, fuzz->handles[blob], first, count,
                                  (enum transfer_read_mode)(1 + take(script, 1) % 3),
                                  take(script, 1) % 4 != 0, &fuzz->readers[blob]);
        ASSERT(err == 0);
    }
}

static void work_event(struct fuzz *fuzz, struct script *script)
{
    bool fetch = take(script, 1) % 2 == 0;
    unsigned *count = fetch ? &fuzz->fetch_count : &fuzz->upload_count;
    uint64_t *work = fetch ? fuzz->fetches : fuzz->uploads;
    if (*count == 0)
        return;
    unsigned at = (unsigned)take(script, 1) % *count;
    uint64_t id = work[at];
    if (fetch && take(script, 1) % 2 == 0) {
        transfer_fetch_progress(fuzz->core, fuzz->now_us, id, take(script, 3));
        return;
    }
    work[at] = work[--*count];
    if (fetch)
        transfer_fetch_end(fuzz->core, fuzz->now_us, id, a_status(script),
                           (uint32_t)take(script, 2));
    else
        transfer_upload_end(fuzz->core, fuzz->now_us, id, take(script, 3), a_status(script));
}

static void peer_event(struct fuzz *fuzz, struct script *script)
{
    unsigned peer = (unsigned)take(script, 1) % PEERS, what = (unsigned)take(script, 1) % 8;
    struct member member = fuzz->peers[peer];
    struct transfer_provider provider = {.id = member.id,
                                         .addr = member.addr,
                                         .topology = member.topology,
                                         .completeness = (uint8_t)take(script, 1)};
    int err = 0;
    member.state = (enum member_state)(take(script, 1) % 6);
    if (what == 0)
        transfer_member_down(fuzz->core, fuzz->now_us, &member.id);
    else if (what == 1)
        transfer_session_down(fuzz->core, fuzz->now_us, &member.id, E_TIMEOUT);
    else if (what <= 3)
        transfer_session_up(fuzz->core, fuzz->now_us, &member.id);
    else if (what == 4)
        transfer_providers(fuzz->core, fuzz->now_us, &fuzz->blobs[take(script, 1) % BLOBS].key,
                           &provider, 1);
    else if (what == 5 && take(script, 1) % 16 == 0)
        transfer_peer_lied(fuzz->core, fuzz->now_us, &member.id);
    else if (what == 5 && take(script, 1) % 16 == 0)
        transfer_drain(fuzz->core, fuzz->now_us);
    else if (what == 6 && member.state == MEMBER_UNKNOWN)
        err = transfer_update_self(fuzz->core, fuzz->now_us, &member.topology);
    else
        err = transfer_member_up(fuzz->core, fuzz->now_us, &member);
    ASSERT(err == 0);
}

/* ---- results ---- */

static void remember(uint64_t *work, unsigned *count, uint64_t id)
{
    if (*count < WORK)
        work[(*count)++] = id;
}

static void drain(struct fuzz *fuzz)
{
    struct transfer_result result;
    while (transfer_next_result(fuzz->core, &result)) {
        if (result.kind == TRANSFER_FETCH) {
            const struct piece_layout *layout = transfer_blob_layout(fuzz->core, result.blob);
            ASSERT(layout == NULL || result.piece + result.piece_count <= layout->piece_count);
            remember(fuzz->fetches, &fuzz->fetch_count, result.id);
        } else if (result.kind == TRANSFER_UPLOAD) {
            const struct bitfield *have = transfer_blob_have(fuzz->core, result.blob);
            ASSERT(have == NULL || result.piece < have->bit_count);
            remember(fuzz->uploads, &fuzz->upload_count, result.id);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz fuzz;
    struct script script = {.data = data, .size = size};
    start(&fuzz);
    for (unsigned op = 0; op < OPS_MAX && script.at < script.size; op++) {
        switch (take(&script, 1) % 10) {
        case 0:
            fuzz.now_us += take(&script, 2);
            transfer_advance(fuzz.core, fuzz.now_us);
            break;
        case 1:
            fuzz.now_us += take(&script, 3);
            transfer_advance(fuzz.core, fuzz.now_us);
            break;
        case 2:
            receive_raw(&fuzz, &script);
            break;
        case 3:
        case 4:
        case 5:
            receive_made(&fuzz, &script);
            break;
        case 6:
            piece_event(&fuzz, &script);
            break;
        case 7:
            read_event(&fuzz, &script);
            break;
        case 8:
            work_event(&fuzz, &script);
            break;
        default:
            peer_event(&fuzz, &script);
            break;
        }
        drain(&fuzz);
        transfer__check_invariants(fuzz.core);
    }
    transfer_free(fuzz.core);
    ASSERT(fuzz.allocated == 0);
    return 0;
}
