/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of swarms and leases: decode(encode(x)) = x at the limits of every field, one datagram
 * is always enough, and what is cut, too large or unknown is refused (PEER-10, DHT-7). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "bytes.h"
#include "wire_transfer.h"

static struct prng prng;

static void fill(void *out, size_t bytes)
{
    uint8_t *at = out;
    for (size_t i = 0; i < bytes; i++)
        at[i] = (uint8_t)prng_next(&prng);
}

static struct wire_contact a_contact(bool v6)
{
    struct wire_contact contact = {.addr = {.ip = {[10] = 0xff, [11] = 0xff}, .port = 65535}};
    fill(&contact.id, sizeof contact.id);
    fill(contact.addr.ip + 12, 4);
    if (v6) {
        fill(contact.addr.ip, 16);
        contact.addr.ip[0] = 0xfd;
    }
    return contact;
}

static void make_have(struct wire_have *have, bool hello)
{
    fill(&have->blob, sizeof have->blob);
    have->flags = 0xff;
    if (hello)
        fill(have->proof, sizeof have->proof);
    have->sequence = UINT32_MAX;
    have->wait_us = have->lease_us = have->took_us = WIRE_WAIT_US_MAX;
    have->fallbacks = UINT8_MAX;
    have->first_byte = PIECE_COUNT_MAX / 8;
    have->page_bytes = WIRE_PAGE_BYTES;
    fill(have->have, sizeof have->have);
    fill(have->injected, sizeof have->injected);
}

static void make_lease(struct wire_lease *lease, bool contact)
{
    fill(&lease->blob, sizeof lease->blob);
    lease->segment = PIECE_COUNT_MAX - 1;
    lease->level = WIRE_LEVEL_HOME;
    lease->flags = contact ? 0xff : (uint8_t)(0xff & ~WIRE_LEASE_CONTACT);
    lease->zone = UINT64_MAX;
    lease->epoch = lease->zone_epoch = lease->arg = UINT32_MAX;
    if (contact)
        lease->contact = a_contact(true);
}

/* The largest message of a type. */
static void make(unsigned type, bool variant, struct wire_transfer *message)
{
    memset(message, 0, sizeof *message);
    message->type = type;
    if (type == WIRE_TRANSFER_ANNOUNCE) {
        fill(&message->of.announce.blob, sizeof message->of.announce.blob);
        message->of.announce.completeness = UINT8_MAX;
        message->of.announce.leaving = variant;
    } else if (type == WIRE_TRANSFER_PEERS) {
        message->of.peers.others = UINT32_MAX;
        message->of.peers.contact_count = variant ? WIRE_PEERS_MAX : 0;
        for (uint32_t i = 0; i < message->of.peers.contact_count; i++)
            message->of.peers.contacts[i] = a_contact(i % 2 == 0 || variant);
    } else if (type == WIRE_TRANSFER_HELLO || type == WIRE_TRANSFER_HAVE) {
        make_have(&message->of.have, type == WIRE_TRANSFER_HELLO);
    } else if (type == WIRE_TRANSFER_RESYNC || type == WIRE_TRANSFER_BYE) {
        fill(&message->of.note.blob, sizeof message->of.note.blob);
        message->of.note.arg = UINT8_MAX;
    } else if (type >= WIRE_TRANSFER_REQUEST && type <= WIRE_TRANSFER_CANCEL) {
        message->of.piece = (struct wire_piece){
            .piece = PIECE_COUNT_MAX - 1, .serial = UINT32_MAX, .wait_us = WIRE_WAIT_US_MAX};
        message->of.piece.flags = variant ? 0xff : (uint8_t)(0xff & ~WIRE_PIECE_IMPORT);
        if (variant && type == WIRE_TRANSFER_REQUEST)
            fill(message->of.piece.proof, sizeof message->of.piece.proof);
    } else if (type == WIRE_TRANSFER_RENEW) {
        message->of.renew.level = variant ? WIRE_LEVEL_HOME : WIRE_LEVEL_ZONE;
        message->of.renew.zone = UINT64_MAX;
        message->of.renew.count = variant ? WIRE_RENEWALS_MAX : 1;
        for (uint32_t i = 0; i < message->of.renew.count; i++)
            message->of.renew.renewals[i] =
                (struct wire_renewal){PIECE_COUNT_MAX - 1, UINT32_MAX, UINT32_MAX - i};
    } else {
        make_lease(&message->of.lease, variant);
    }
}

static void test_round_trip_of_every_type(void **state)
{
    (void)state;
    uint8_t bytes[MESSAGE_BYTES_MAX], again[MESSAGE_BYTES_MAX];
    size_t largest = 0;
    for (unsigned type = WIRE_TRANSFER_ANNOUNCE; type < WIRE_TRANSFER_END; type++) {
        for (unsigned variant = 0; variant < 2; variant++) {
            struct wire_transfer message, back;
            size_t used, used_again;
            make(type, variant == 1, &message);
            assert_int_equal(wire_transfer_encode(&message, bytes, sizeof bytes, &used), 0);
            memset(&back, 0, sizeof back);
            assert_int_equal(wire_transfer_decode(bytes, used, &back), 0);
            assert_memory_equal(&message, &back, sizeof message);
            assert_int_equal(wire_transfer_encode(&back, again, sizeof again, &used_again), 0);
            assert_int_equal(used, used_again);
            assert_memory_equal(bytes, again, used);
            largest = used > largest ? used : largest;
        }
    }
    print_message("figure: largest transfer message %zu of %u bytes\n", largest,
                  (unsigned)MESSAGE_BYTES_MAX);
}

static void test_a_cut_message_is_refused(void **state)
{
    (void)state;
    uint8_t bytes[MESSAGE_BYTES_MAX];
    for (unsigned type = WIRE_TRANSFER_ANNOUNCE; type < WIRE_TRANSFER_END; type++) {
        struct wire_transfer message, back;
        size_t used;
        make(type, true, &message);
        assert_int_equal(wire_transfer_encode(&message, bytes, sizeof bytes, &used), 0);
        for (size_t cut = 0; cut < used; cut++)
            assert_int_not_equal(wire_transfer_decode(bytes, cut, &back), 0);
    }
}

static void test_encode_refuses(void **state)
{
    (void)state;
    uint8_t bytes[MESSAGE_BYTES_MAX];
    struct wire_transfer message;
    size_t used = 77;
    make(WIRE_TRANSFER_HAVE, true, &message);
    assert_int_equal(wire_transfer_encode(&message, bytes, 100, &used), E_TOO_LARGE);
    message.of.have.page_bytes = WIRE_PAGE_BYTES + 1;
    assert_int_equal(wire_transfer_encode(&message, bytes, sizeof bytes, &used), E_INVALID);
    make(WIRE_TRANSFER_HAVE, true, &message);
    message.of.have.took_us = WIRE_WAIT_US_MAX + 1;
    assert_int_equal(wire_transfer_encode(&message, bytes, sizeof bytes, &used), E_INVALID);
    make(WIRE_TRANSFER_PEERS, true, &message);
    message.of.peers.contact_count = WIRE_PEERS_MAX + 1;
    assert_int_equal(wire_transfer_encode(&message, bytes, sizeof bytes, &used), E_INVALID);
    make(WIRE_TRANSFER_WANT, true, &message);
    message.of.lease.level = 2;
    assert_int_equal(wire_transfer_encode(&message, bytes, sizeof bytes, &used), E_INVALID);
    make(WIRE_TRANSFER_RENEW, true, &message);
    message.of.renew.count = WIRE_RENEWALS_MAX + 1;
    assert_int_equal(wire_transfer_encode(&message, bytes, sizeof bytes, &used), E_INVALID);
    message.type = WIRE_TRANSFER_END;
    assert_int_equal(wire_transfer_encode(&message, bytes, sizeof bytes, &used), E_INVALID);
    assert_int_equal(used, 77);
}

/* Starts [type, blob key, ...]. */
static void begin(struct wire_writer *writer, uint8_t *out, unsigned type, uint32_t fields)
{
    uint8_t key[BLOB_KEY_BYTES] = {1};
    wire_writer_begin(writer, out, MESSAGE_BYTES_MAX, type, fields);
    wire_put_bytes(writer, key, sizeof key);
}

static int decode_result(struct wire_writer *writer, const uint8_t *bytes)
{
    struct wire_transfer back;
    size_t used;
    assert_int_equal(wire_writer_end(writer, &used), 0);
    return wire_transfer_decode(bytes, used, &back);
}

static void test_newer_fields_are_skipped(void **state)
{
    (void)state;
    uint8_t bytes[MESSAGE_BYTES_MAX];
    struct wire_writer writer;
    begin(&writer, bytes, WIRE_TRANSFER_BYE, 4);
    wire_put_uint(&writer, WIRE_BYE_DONE);
    wire_put_text(&writer, "more");
    wire_put_array(&writer, 1);
    wire_put_uint(&writer, 5);
    assert_int_equal(decode_result(&writer, bytes), 0);
}

static void test_decode_refuses(void **state)
{
    (void)state;
    uint8_t bytes[MESSAGE_BYTES_MAX + 1] = {0};
    struct wire_writer writer;
    struct wire_transfer back;
    assert_int_equal(wire_transfer_decode(bytes, sizeof bytes, &back), E_TOO_LARGE);
    assert_int_equal(wire_transfer_decode(bytes, 0, &back), E_TRUNCATED);
    begin(&writer, bytes, WIRE_TRANSFER_END, 2);
    wire_put_uint(&writer, 1);
    assert_int_equal(decode_result(&writer, bytes), E_NOT_FOUND);
    begin(&writer, bytes, WIRE_TRANSFER_BYE, 1); /* a field is missing */
    assert_int_equal(decode_result(&writer, bytes), E_TRUNCATED);
    begin(&writer, bytes, WIRE_TRANSFER_BYE, 2);
    wire_put_uint(&writer, 256);
    assert_int_equal(decode_result(&writer, bytes), E_TOO_LARGE);
    begin(&writer, bytes, WIRE_TRANSFER_BYE, 2);
    wire_put_text(&writer, "x");
    assert_int_equal(decode_result(&writer, bytes), E_MALFORMED);
    begin(&writer, bytes, WIRE_TRANSFER_PEERS, 3); /* half a contact */
    wire_put_uint(&writer, 1);
    wire_put_array(&writer, 1);
    wire_put_uint(&writer, 1);
    assert_int_not_equal(decode_result(&writer, bytes), 0);
    begin(&writer, bytes, WIRE_TRANSFER_RENEW, 4); /* two thirds of a renewal */
    wire_put_uint(&writer, 0);
    wire_put_uint(&writer, 0);
    wire_put_array(&writer, 2);
    wire_put_uint(&writer, 1);
    wire_put_uint(&writer, 1);
    assert_int_equal(decode_result(&writer, bytes), E_MALFORMED);
}

static void put_have(struct wire_writer *writer, size_t proof, size_t have, size_t injected)
{
    uint8_t zeros[WIRE_PAGE_BYTES + 1] = {0};
    wire_put_uint(writer, 0);
    wire_put_bytes(writer, zeros, proof);
    for (unsigned i = 0; i < 6; i++)
        wire_put_uint(writer, 0);
    wire_put_bytes(writer, zeros, have);
    wire_put_bytes(writer, zeros, injected);
}

static void test_pages_and_proofs(void **state)
{
    (void)state;
    uint8_t bytes[MESSAGE_BYTES_MAX];
    struct wire_writer writer;
    begin(&writer, bytes, WIRE_TRANSFER_HAVE, 11);
    put_have(&writer, 0, 8, 8);
    assert_int_equal(decode_result(&writer, bytes), 0);
    begin(&writer, bytes, WIRE_TRANSFER_HAVE, 11);
    put_have(&writer, 0, 8, 7); /* pages of different length */
    assert_int_equal(decode_result(&writer, bytes), E_MALFORMED);
    begin(&writer, bytes, WIRE_TRANSFER_HAVE, 11);
    put_have(&writer, 0, WIRE_PAGE_BYTES + 1, WIRE_PAGE_BYTES + 1);
    assert_int_equal(decode_result(&writer, bytes), E_TOO_LARGE);
    begin(&writer, bytes, WIRE_TRANSFER_HELLO, 11);
    put_have(&writer, 0, 8, 8); /* no proof in a HELLO */
    assert_int_equal(decode_result(&writer, bytes), E_MALFORMED);
    begin(&writer, bytes, WIRE_TRANSFER_HELLO, 11);
    put_have(&writer, DIGEST_PROOF_BYTES - 1, 8, 8);
    assert_int_equal(decode_result(&writer, bytes), E_MALFORMED);
    begin(&writer, bytes, WIRE_TRANSFER_HELLO, 11);
    put_have(&writer, DIGEST_PROOF_BYTES, 0, 0);
    assert_int_equal(decode_result(&writer, bytes), 0);
}

static int seed(void **state)
{
    (void)state;
    prng_seed(&prng, (const uint8_t *)"wire", 4);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip_of_every_type),
        cmocka_unit_test(test_a_cut_message_is_refused),
        cmocka_unit_test(test_encode_refuses),
        cmocka_unit_test(test_newer_fields_are_skipped),
        cmocka_unit_test(test_decode_refuses),
        cmocka_unit_test(test_pages_and_proofs),
    };
    return cmocka_run_group_tests(tests, seed, NULL);
}
