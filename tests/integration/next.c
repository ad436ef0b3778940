/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node of the next minor version, for tests only: linked around the agent's own objects with
 * --wrap, so that the agent carries no code for it. It says so in its handshakes and its member
 * record, and uses all that a newer minor may (PEER-6, PEER-10, C-3): a feature bit, a field behind
 * the known ones of every message, messages of unknown types, longer frame headers with an unknown
 * flag, frames of an unknown kind. The version before must skip all of it.
 */
#include <string.h>

#include "../../src/daemon/mesh_udp.h"
#include "../../src/daemon/piece_frame.h"
#include "../../src/session/intro.h"
#include "bytes.h"
#include "gossip.h"
#include "session.h"
#include "wire.h"

/* Every so many messages one of an unknown type goes to the same node. */
#define ODD_EVERY        8
#define NEXT_FEATURE     0x80000000U
#define NEXT_FLAG        0x80
#define NEXT_FRAME_KIND  9
#define NEXT_BODY_BYTES  16
#define NEXT_FIELD_BYTES 8

void __real_intro__own(const struct identity *identity, const struct peer_addr *self_addr,
                       struct intro *out);
void __wrap_intro__own(const struct identity *identity, const struct peer_addr *self_addr,
                       struct intro *out);
int __real_gossip_new(const struct env *env, const struct gossip_config *config, uint64_t now_us,
                      struct gossip **out);
int __wrap_gossip_new(const struct env *env, const struct gossip_config *config, uint64_t now_us,
                      struct gossip **out);
void __real_wire_writer_begin(struct wire_writer *writer, uint8_t *out, size_t capacity,
                              unsigned type, uint32_t field_count);
void __wrap_wire_writer_begin(struct wire_writer *writer, uint8_t *out, size_t capacity,
                              unsigned type, uint32_t field_count);
int __real_wire_writer_end(struct wire_writer *writer, size_t *used);
int __wrap_wire_writer_end(struct wire_writer *writer, size_t *used);
int __real_mesh_udp_send(struct mesh_udp *udp, const struct peer_addr *to, const uint8_t *msg,
                         size_t msg_bytes);
int __wrap_mesh_udp_send(struct mesh_udp *udp, const struct peer_addr *to, const uint8_t *msg,
                         size_t msg_bytes);
size_t __real_frame_encode(const struct piece_frame *frame, uint8_t out[PIECE_FRAME_BYTES]);
size_t __wrap_frame_encode(const struct piece_frame *frame, uint8_t out[PIECE_FRAME_BYTES]);
int __real_session_seal(struct session *session, uint64_t now_us, const uint8_t *head,
                        size_t head_bytes, const uint8_t *body, size_t body_bytes, uint8_t *out,
                        size_t *out_bytes);
int __wrap_session_seal(struct session *session, uint64_t now_us, const uint8_t *head,
                        size_t head_bytes, const uint8_t *body, size_t body_bytes, uint8_t *out,
                        size_t *out_bytes);

/* ---- who we are ---- */

void __wrap_intro__own(const struct identity *identity, const struct peer_addr *self_addr,
                       struct intro *out)
{
    __real_intro__own(identity, self_addr, out);
    out->version_minor++;
    out->features |= NEXT_FEATURE;
}

int __wrap_gossip_new(const struct env *env, const struct gossip_config *config, uint64_t now_us,
                      struct gossip **out)
{
    struct gossip_config next = *config;
    next.self.version_minor++;
    return __real_gossip_new(env, &next, now_us, out);
}

/* ---- messages ---- */

void __wrap_wire_writer_begin(struct wire_writer *writer, uint8_t *out, size_t capacity,
                              unsigned type, uint32_t field_count)
{
    __real_wire_writer_begin(writer, out, capacity, type, field_count + 1);
}

/* A field of our own behind the others; where there is no room the count, in the first byte of an
 * array this short, is taken back. */
int __wrap_wire_writer_end(struct wire_writer *writer, size_t *used)
{
    size_t before = writer->used;
    if (writer->err != 0)
        return __real_wire_writer_end(writer, used);
    wire_put_array(writer, 2);
    wire_put_text(writer, "next");
    wire_put_uint(writer, 1);
    if (writer->err != 0) {
        writer->err = 0;
        writer->used = before;
        writer->out[0]--;
    }
    return __real_wire_writer_end(writer, used);
}

int __wrap_mesh_udp_send(struct mesh_udp *udp, const struct peer_addr *to, const uint8_t *msg,
                         size_t msg_bytes)
{
    /* One past the known ones of each range, and one of no range at all. */
    static const unsigned types[] = {WIRE_GOSSIP_LAST, WIRE_DHT_LAST, WIRE_TRANSFER_LAST, 0x77};
    static unsigned count;
    uint8_t odd[32];
    size_t used = 0;
    struct wire_writer writer;
    if (++count % ODD_EVERY == 0) {
        wire_writer_begin(&writer, odd, sizeof odd, types[count / ODD_EVERY % 4], 1);
        wire_put_text(&writer, "news");
        if (wire_writer_end(&writer, &used) == 0)
            (void)__real_mesh_udp_send(udp, to, odd, used);
    }
    return __real_mesh_udp_send(udp, to, msg, msg_bytes);
}

/* ---- frames ---- */

static const uint8_t *frame_header; /* the last one made, which is sealed next */

size_t __wrap_frame_encode(const struct piece_frame *frame, uint8_t out[PIECE_FRAME_BYTES])
{
    frame_header = out;
    return __real_frame_encode(frame, out);
}

/* An unknown frame with a body, then the header itself, longer than it was. */
static int seal_next(struct session *session, uint64_t now_us, const uint8_t *header,
                     size_t header_bytes, uint8_t *out, size_t *out_bytes)
{
    uint8_t odd[FRAME_COMMON_BYTES] = {NEXT_FRAME_KIND};
    uint8_t body[NEXT_BODY_BYTES] = {0};
    uint8_t longer[PIECE_FRAME_BYTES + NEXT_FIELD_BYTES] = {0};
    const struct {
        const uint8_t *bytes;
        size_t byte_count;
    } records[] = {
        {odd, sizeof odd}, {body, sizeof body}, {longer, header_bytes + NEXT_FIELD_BYTES}};
    store_be16(odd + 2, sizeof odd);
    store_be32(odd + 4, sizeof body);
    memcpy(longer, header, header_bytes);
    longer[1] |= NEXT_FLAG;
    store_be16(longer + 2, (uint16_t)(header_bytes + NEXT_FIELD_BYTES));
    *out_bytes = 0;
    for (unsigned i = 0; i < 3; i++) {
        size_t sealed = 0;
        int err = __real_session_seal(session, now_us, NULL, 0, records[i].bytes,
                                      records[i].byte_count, out + *out_bytes, &sealed);
        if (err != 0)
            return err;
        *out_bytes += sealed;
    }
    return 0;
}

int __wrap_session_seal(struct session *session, uint64_t now_us, const uint8_t *head,
                        size_t head_bytes, const uint8_t *body, size_t body_bytes, uint8_t *out,
                        size_t *out_bytes)
{
    bool header = frame_header != NULL && body == frame_header && body_bytes <= PIECE_FRAME_BYTES;
    frame_header = NULL;
    if (header)
        return seal_next(session, now_us, body, body_bytes, out, out_bytes);
    return __real_session_seal(session, now_us, head, head_bytes, body, body_bytes, out, out_bytes);
}
