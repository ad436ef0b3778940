/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MessagePack form of swarm and lease messages. Owns field order and limits; what the fields mean
 * is in include/wire_transfer.h and src/transfer. Fields of newer senders come after ours and are
 * skipped.
 */
#include "wire_transfer.h"

#include <string.h>

#include "log.h"

static void put_blob(struct wire_writer *writer, const struct blob_key *blob)
{
    wire_put_bytes(writer, blob->bytes, sizeof blob->bytes);
}

static void put_contact(struct wire_writer *writer, const struct wire_contact *contact)
{
    wire_put_bytes(writer, contact->id.bytes, sizeof contact->id.bytes);
    wire_put_addr(writer, &contact->addr);
}

static void get_blob(struct wire_reader *reader, struct blob_key *blob)
{
    wire_get_fixed(reader, blob->bytes, sizeof blob->bytes);
}

static void get_contact(struct wire_reader *reader, struct wire_contact *contact)
{
    wire_get_fixed(reader, contact->id.bytes, sizeof contact->id.bytes);
    wire_get_addr(reader, &contact->addr);
}

static uint32_t get_u32(struct wire_reader *reader, uint32_t max)
{
    return (uint32_t)wire_get_uint(reader, max);
}

/* ---- announce, peers, note ---- */

static int encode_announce(const struct wire_announce *announce, struct wire_writer *writer)
{
    put_blob(writer, &announce->blob);
    wire_put_uint(writer, announce->completeness);
    wire_put_bool(writer, announce->leaving);
    return 0;
}

static void decode_announce(struct wire_reader *reader, struct wire_announce *announce)
{
    get_blob(reader, &announce->blob);
    announce->completeness = (uint8_t)wire_get_uint(reader, UINT8_MAX);
    announce->leaving = wire_get_bool(reader);
}

static int encode_peers(const struct wire_peers *peers, struct wire_writer *writer)
{
    if (peers->contact_count > WIRE_PEERS_MAX)
        return E_INVALID;
    put_blob(writer, &peers->blob);
    wire_put_uint(writer, peers->others);
    wire_put_array(writer, 2 * peers->contact_count);
    for (uint32_t i = 0; i < peers->contact_count; i++)
        put_contact(writer, &peers->contacts[i]);
    return 0;
}

static int decode_peers(struct wire_reader *reader, struct wire_peers *peers)
{
    get_blob(reader, &peers->blob);
    peers->others = get_u32(reader, UINT32_MAX);
    uint32_t values = wire_get_array(reader, 2 * WIRE_PEERS_MAX);
    peers->contact_count = values / 2;
    for (uint32_t i = 0; i < peers->contact_count; i++)
        get_contact(reader, &peers->contacts[i]);
    return values % 2 == 0 ? 0 : E_MALFORMED;
}

static int encode_note(const struct wire_note *note, struct wire_writer *writer)
{
    put_blob(writer, &note->blob);
    wire_put_uint(writer, note->arg);
    return 0;
}

static void decode_note(struct wire_reader *reader, struct wire_note *note)
{
    get_blob(reader, &note->blob);
    note->arg = (uint8_t)wire_get_uint(reader, UINT8_MAX);
}

/* ---- hello, have ---- */

static int encode_have(const struct wire_have *have, bool hello, struct wire_writer *writer)
{
    if (have->page_bytes > WIRE_PAGE_BYTES || have->wait_us > WIRE_WAIT_US_MAX ||
        have->lease_us > WIRE_WAIT_US_MAX || have->took_us > WIRE_WAIT_US_MAX)
        return E_INVALID;
    put_blob(writer, &have->blob);
    wire_put_uint(writer, have->flags);
    wire_put_bytes(writer, have->proof, hello ? sizeof have->proof : 0);
    wire_put_uint(writer, have->sequence);
    wire_put_uint(writer, have->wait_us);
    wire_put_uint(writer, have->lease_us);
    wire_put_uint(writer, have->took_us);
    wire_put_uint(writer, have->fallbacks);
    wire_put_uint(writer, have->first_byte);
    wire_put_bytes(writer, have->have, have->page_bytes);
    wire_put_bytes(writer, have->injected, have->page_bytes);
    return 0;
}

static int decode_have(struct wire_reader *reader, bool hello, struct wire_have *have)
{
    get_blob(reader, &have->blob);
    have->flags = (uint8_t)wire_get_uint(reader, UINT8_MAX);
    size_t proof_bytes, have_bytes, injected_bytes;
    const uint8_t *proof = wire_get_bytes(reader, sizeof have->proof, &proof_bytes);
    have->sequence = get_u32(reader, UINT32_MAX);
    have->wait_us = get_u32(reader, WIRE_WAIT_US_MAX);
    have->lease_us = get_u32(reader, WIRE_WAIT_US_MAX);
    have->took_us = get_u32(reader, WIRE_WAIT_US_MAX);
    have->fallbacks = (uint8_t)wire_get_uint(reader, UINT8_MAX);
    have->first_byte = get_u32(reader, PIECE_COUNT_MAX / 8);
    const uint8_t *bits = wire_get_bytes(reader, WIRE_PAGE_BYTES, &have_bytes);
    const uint8_t *injected = wire_get_bytes(reader, WIRE_PAGE_BYTES, &injected_bytes);
    memset(have->proof, 0, sizeof have->proof);
    have->page_bytes = 0;
    if (wire_reader_end(reader) != 0)
        return 0; /* the caller reports the reader's error */
    if (have_bytes != injected_bytes || proof_bytes != (hello ? sizeof have->proof : 0))
        return E_MALFORMED;
    if (hello)
        memcpy(have->proof, proof, sizeof have->proof);
    if (have_bytes > 0) {
        memcpy(have->have, bits, have_bytes);
        memcpy(have->injected, injected, have_bytes);
    }
    have->page_bytes = (uint32_t)have_bytes;
    return 0;
}

/* ---- request, queued, busy, cancel ---- */

static bool carries_proof(unsigned type, uint8_t flags)
{
    return type == WIRE_TRANSFER_REQUEST && (flags & WIRE_PIECE_IMPORT) != 0;
}

static int encode_piece(const struct wire_piece *piece, unsigned type, struct wire_writer *writer)
{
    put_blob(writer, &piece->blob);
    wire_put_uint(writer, piece->piece);
    wire_put_uint(writer, piece->serial);
    wire_put_uint(writer, piece->flags);
    wire_put_uint(writer, piece->wait_us);
    wire_put_bytes(writer, piece->proof,
                   carries_proof(type, piece->flags) ? sizeof piece->proof : 0);
    return 0;
}

static int decode_piece(struct wire_reader *reader, unsigned type, struct wire_piece *piece)
{
    get_blob(reader, &piece->blob);
    piece->piece = get_u32(reader, PIECE_COUNT_MAX - 1);
    piece->serial = get_u32(reader, UINT32_MAX);
    piece->flags = (uint8_t)wire_get_uint(reader, UINT8_MAX);
    piece->wait_us = get_u32(reader, WIRE_WAIT_US_MAX);
    size_t proof_bytes;
    const uint8_t *proof = wire_get_bytes(reader, sizeof piece->proof, &proof_bytes);
    memset(piece->proof, 0, sizeof piece->proof);
    if (wire_reader_end(reader) != 0)
        return 0;
    if (proof_bytes != (carries_proof(type, piece->flags) ? sizeof piece->proof : 0))
        return E_MALFORMED;
    if (proof_bytes > 0)
        memcpy(piece->proof, proof, proof_bytes);
    return 0;
}

/* ---- leases ---- */

static int encode_lease(const struct wire_lease *lease, struct wire_writer *writer)
{
    if (lease->level > WIRE_LEVEL_HOME)
        return E_INVALID;
    bool contact = (lease->flags & WIRE_LEASE_CONTACT) != 0;
    put_blob(writer, &lease->blob);
    wire_put_uint(writer, lease->segment);
    wire_put_uint(writer, lease->level);
    wire_put_uint(writer, lease->flags);
    wire_put_uint(writer, lease->zone);
    wire_put_uint(writer, lease->epoch);
    wire_put_uint(writer, lease->zone_epoch);
    wire_put_uint(writer, lease->arg);
    wire_put_array(writer, contact ? 2 : 0);
    if (contact)
        put_contact(writer, &lease->contact);
    return 0;
}

static int decode_lease(struct wire_reader *reader, struct wire_lease *lease)
{
    get_blob(reader, &lease->blob);
    lease->segment = get_u32(reader, PIECE_COUNT_MAX - 1);
    lease->level = (uint8_t)wire_get_uint(reader, WIRE_LEVEL_HOME);
    lease->flags = (uint8_t)wire_get_uint(reader, UINT8_MAX);
    lease->zone = wire_get_uint(reader, UINT64_MAX);
    lease->epoch = get_u32(reader, UINT32_MAX);
    lease->zone_epoch = get_u32(reader, UINT32_MAX);
    lease->arg = get_u32(reader, UINT32_MAX);
    memset(&lease->contact, 0, sizeof lease->contact);
    uint32_t values = wire_get_array(reader, 2);
    if (values == 2)
        get_contact(reader, &lease->contact);
    bool contact = (lease->flags & WIRE_LEASE_CONTACT) != 0;
    return values == (contact ? 2 : 0) ? 0 : E_MALFORMED;
}

static int encode_renew(const struct wire_renew *renew, struct wire_writer *writer)
{
    if (renew->count > WIRE_RENEWALS_MAX || renew->level > WIRE_LEVEL_HOME)
        return E_INVALID;
    put_blob(writer, &renew->blob);
    wire_put_uint(writer, renew->level);
    wire_put_uint(writer, renew->zone);
    wire_put_array(writer, 3 * renew->count);
    for (uint32_t i = 0; i < renew->count; i++) {
        wire_put_uint(writer, renew->renewals[i].segment);
        wire_put_uint(writer, renew->renewals[i].epoch);
        wire_put_uint(writer, renew->renewals[i].bytes);
    }
    return 0;
}

static int decode_renew(struct wire_reader *reader, struct wire_renew *renew)
{
    get_blob(reader, &renew->blob);
    renew->level = (uint8_t)wire_get_uint(reader, WIRE_LEVEL_HOME);
    renew->zone = wire_get_uint(reader, UINT64_MAX);
    uint32_t values = wire_get_array(reader, 3 * WIRE_RENEWALS_MAX);
    renew->count = values / 3;
    for (uint32_t i = 0; i < renew->count; i++) {
        renew->renewals[i].segment = get_u32(reader, PIECE_COUNT_MAX - 1);
        renew->renewals[i].epoch = get_u32(reader, UINT32_MAX);
        renew->renewals[i].bytes = get_u32(reader, UINT32_MAX);
    }
    return values % 3 == 0 ? 0 : E_MALFORMED;
}

/* ---- all of them ---- */

/* Number of fields behind the type; 0 for an unknown type. */
static uint32_t field_count(unsigned type)
{
    switch (type) {
    case WIRE_TRANSFER_ANNOUNCE:
    case WIRE_TRANSFER_PEERS:
        return 3;
    case WIRE_TRANSFER_HELLO:
    case WIRE_TRANSFER_HAVE:
        return 11;
    case WIRE_TRANSFER_RESYNC:
    case WIRE_TRANSFER_BYE:
        return 2;
    case WIRE_TRANSFER_REQUEST:
    case WIRE_TRANSFER_QUEUED:
    case WIRE_TRANSFER_BUSY:
    case WIRE_TRANSFER_CANCEL:
        return 6;
    case WIRE_TRANSFER_RENEW:
        return 4;
    default:
        return type >= WIRE_TRANSFER_WANT && type < WIRE_TRANSFER_END ? 9 : 0;
    }
}

static int encode_fields(const struct wire_transfer *message, struct wire_writer *writer)
{
    switch (message->type) {
    case WIRE_TRANSFER_ANNOUNCE:
        return encode_announce(&message->of.announce, writer);
    case WIRE_TRANSFER_PEERS:
        return encode_peers(&message->of.peers, writer);
    case WIRE_TRANSFER_HELLO:
    case WIRE_TRANSFER_HAVE:
        return encode_have(&message->of.have, message->type == WIRE_TRANSFER_HELLO, writer);
    case WIRE_TRANSFER_RESYNC:
    case WIRE_TRANSFER_BYE:
        return encode_note(&message->of.note, writer);
    case WIRE_TRANSFER_REQUEST:
    case WIRE_TRANSFER_QUEUED:
    case WIRE_TRANSFER_BUSY:
    case WIRE_TRANSFER_CANCEL:
        return encode_piece(&message->of.piece, message->type, writer);
    case WIRE_TRANSFER_RENEW:
        return encode_renew(&message->of.renew, writer);
    default:
        return encode_lease(&message->of.lease, writer);
    }
}

int wire_transfer_encode(const struct wire_transfer *message, uint8_t *out, size_t capacity,
                         size_t *used)
{
    uint32_t fields = field_count(message->type);
    if (fields == 0)
        return E_INVALID;
    struct wire_writer writer;
    wire_writer_begin(&writer, out, capacity, message->type, fields);
    int err = encode_fields(message, &writer);
    return err != 0 ? err : wire_writer_end(&writer, used);
}

static int decode_fields(struct wire_reader *reader, struct wire_transfer *out)
{
    switch (out->type) {
    case WIRE_TRANSFER_ANNOUNCE:
        decode_announce(reader, &out->of.announce);
        return 0;
    case WIRE_TRANSFER_PEERS:
        return decode_peers(reader, &out->of.peers);
    case WIRE_TRANSFER_HELLO:
    case WIRE_TRANSFER_HAVE:
        return decode_have(reader, out->type == WIRE_TRANSFER_HELLO, &out->of.have);
    case WIRE_TRANSFER_RESYNC:
    case WIRE_TRANSFER_BYE:
        decode_note(reader, &out->of.note);
        return 0;
    case WIRE_TRANSFER_REQUEST:
    case WIRE_TRANSFER_QUEUED:
    case WIRE_TRANSFER_BUSY:
    case WIRE_TRANSFER_CANCEL:
        return decode_piece(reader, out->type, &out->of.piece);
    case WIRE_TRANSFER_RENEW:
        return decode_renew(reader, &out->of.renew);
    default:
        return decode_lease(reader, &out->of.lease);
    }
}

int wire_transfer_decode(const uint8_t *msg, size_t msg_bytes, struct wire_transfer *out)
{
    if (msg_bytes > MESSAGE_BYTES_MAX)
        return E_TOO_LARGE;
    struct wire_reader reader;
    int err = wire_reader_begin(&reader, msg, msg_bytes, &out->type);
    if (err != 0)
        return err;
    if (field_count(out->type) == 0)
        return E_NOT_FOUND;
    err = decode_fields(&reader, out);
    int read_err = wire_reader_end(&reader);
    return read_err != 0 ? read_err : err;
}
