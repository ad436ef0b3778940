/* SPDX-License-Identifier: Apache-2.0 */
/* Blobs that nobody waits for, behind those that clients wait for (ALGORITHMS §6). */
#include "transfer_host.h"

#include "../../src/transfer/lease.h"

/* A second blob of one piece beside the one of t_open, whose keepers are other nodes, too. */
static blob_handle second(struct t_host *t, struct blob_info *info)
{
    blob_handle blob;
    uint8_t lookup[32] = {3}, key[32];
    uint16_t keepers[KEEPERS];
    *info = (struct blob_info){.size_bytes = T_PIECE};
    for (unsigned name = 0, own = 1; own > 0; name++) {
        digest_of(DIGEST_SHA256, &name, sizeof name, &info->digest);
        blob_key_of(lookup, &info->digest, &info->key);
        segment_key_of(&info->key, 0, key);
        assert_int_equal(transfer__keepers(t->core, 0, key, keepers), KEEPERS);
        own = 0;
        for (unsigned i = 0; i < KEEPERS; i++)
            own += keepers[i] == NODE_SELF;
    }
    assert_int_equal(transfer_blob_open(t->core, t->now_us, info, NULL, &blob), 0);
    return blob;
}

static uint64_t read_blob(struct t_host *t, blob_handle blob, enum transfer_read_mode mode)
{
    uint64_t reader;
    uint32_t pieces = transfer_blob_layout(t->core, blob)->piece_count;
    assert_int_equal(transfer_read_start(t->core, t->now_us, blob, 0, pieces, mode, true, &reader),
                     0);
    t_drain(t);
    return reader;
}

static unsigned wants(const struct t_host *t, const struct blob_info *info)
{
    unsigned count = 0;
    for (unsigned i = 0; i < t->sent_count; i++)
        count += t->sent[i].message.type == WIRE_TRANSFER_WANT &&
                 memcmp(&t->sent[i].message.of.lease.blob, &info->key, sizeof info->key) == 0;
    return count;
}

/* Keepers say that another node is bringing it in, again and again. */
static void others_are_at_it(struct t_host *t, uint64_t span_us)
{
    for (uint64_t end_us = t->now_us + span_us; t->now_us < end_us;) {
        unsigned count = t->sent_count;
        struct t_sent sent[T_SENT_MAX];
        memcpy(sent, t->sent, count * sizeof sent[0]);
        t->sent_count = 0;
        for (unsigned i = 0; i < count; i++) {
            if (sent[i].message.type != WIRE_TRANSFER_WANT)
                continue;
            struct wire_transfer answer = {.type = WIRE_TRANSFER_PENDING};
            answer.of.lease = sent[i].message.of.lease;
            answer.of.lease.arg = 200;
            t_receive(t, sent[i].to, &answer);
        }
        t_wait(t, 50 * T_MS);
    }
}

static unsigned fetches_of(const struct t_host *t, blob_handle blob)
{
    unsigned count = 0;
    for (unsigned i = 0; i < t->result_count; i++)
        count += t->results[i].kind == TRANSFER_FETCH && t->results[i].blob == blob;
    return count;
}

/* It waits for its turn: a read without a lease would only be another copy from the origin. */
static void test_what_waits_behind_does_not_fall_back(void **state)
{
    (void)state;
    struct t_host t;
    struct blob_info info;
    t_open(&t, 40, T_PIECE);
    blob_handle next = second(&t, &info);
    (void)read_blob(&t, t.blob, TRANSFER_READ_STREAM);
    (void)read_blob(&t, next, TRANSFER_READ_PREFETCH);
    others_are_at_it(&t, 12 * T_S);
    assert_true(fetches_of(&t, t.blob) > 0); /* a client waits: no progress for 9 s */
    assert_int_equal(fetches_of(&t, next), 0);
    /* Now a client wants it, too: it has its patience from now on. */
    t_clear(&t);
    (void)read_blob(&t, next, TRANSFER_READ_STREAM);
    others_are_at_it(&t, 2 * T_S);
    assert_int_equal(fetches_of(&t, next), 0);
    others_are_at_it(&t, 10 * T_S);
    assert_true(fetches_of(&t, next) > 0);
    t_close(&t);
}

/* Alone it is read like any other: nobody is before it. */
static void test_what_is_behind_nothing_falls_back(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 40, T_PIECE);
    (void)read_blob(&t, t.blob, TRANSFER_READ_PREFETCH);
    others_are_at_it(&t, 12 * T_S);
    assert_true(fetches_of(&t, t.blob) > 0);
    t_close(&t);
}

/* The origin's rate is the clients' first: no lease while this node has one, or asks for it. */
static void test_leases_go_to_what_clients_wait_for(void **state)
{
    (void)state;
    struct t_host t;
    struct blob_info info;
    t_open(&t, 40, T_PIECE);
    blob_handle next = second(&t, &info);
    (void)read_blob(&t, next, TRANSFER_READ_PREFETCH); /* begun a moment earlier */
    t_clear(&t);
    (void)read_blob(&t, t.blob, TRANSFER_READ_STREAM);
    transfer_providers(t.core, t.now_us, &t.info.key, NULL, 0);
    t_drain(&t);
    t_wait(&t, 50 * T_MS);
    assert_true(wants(&t, &t.info) > 0);
    t_close(&t);

    t_open(&t, 40, T_PIECE);
    next = second(&t, &info);
    (void)read_blob(&t, t.blob, TRANSFER_READ_STREAM);
    (void)read_blob(&t, next, TRANSFER_READ_PREFETCH);
    const struct t_sent *want = t_sent(&t, WIRE_TRANSFER_WANT, 0);
    assert_non_null(want);
    uint32_t keeper = want->to;
    t_wait(&t, 50 * T_MS);
    assert_int_equal(wants(&t, &info), 0);
    t_lease(&t, keeper, WIRE_TRANSFER_GRANT, WIRE_LEVEL_HOME, 1000);
    t_wait(&t, 50 * T_MS);
    assert_int_equal(wants(&t, &info), 0);
    t_piece(&t, 0, PIECE_FROM_ORIGIN, 0, 0); /* the client has it all */
    t_wait(&t, 50 * T_MS);
    assert_true(wants(&t, &info) > 0);
    t_close(&t);
}

/* Whether the second of two blobs that clients wait for is asked for, 0.9 s after the read of the
 * first began; `grows`: this read brings bytes. */
static bool second_is_asked_for(bool grows)
{
    struct t_host t;
    struct blob_info info;
    t_open(&t, 40, T_PIECE);
    blob_handle next = second(&t, &info);
    (void)read_blob(&t, t.blob, TRANSFER_READ_STREAM);
    const struct t_sent *want = t_sent(&t, WIRE_TRANSFER_WANT, 0);
    assert_non_null(want);
    (void)read_blob(&t, next, TRANSFER_READ_STREAM);
    t_lease(&t, want->to, WIRE_TRANSFER_GRANT, WIRE_LEVEL_HOME, 1000);
    t_wait(&t, 50 * T_MS);
    const struct transfer_result *fetch = t_result(&t, TRANSFER_FETCH, 0);
    assert_non_null(fetch);
    uint64_t id = fetch->id;
    t_wait(&t, 400 * T_MS);
    assert_int_equal(wants(&t, &info), 0);
    for (uint64_t bytes = 1; bytes <= 10; bytes++) {
        if (grows)
            transfer_fetch_progress(t.core, t.now_us, id, bytes);
        t_wait(&t, 50 * T_MS);
    }
    bool asked = wants(&t, &info) > 0;
    t_close(&t);
    return asked;
}

/* A registry that is silent holds up its own blobs, not those of others. */
static void test_a_silent_read_keeps_no_other_blob_waiting(void **state)
{
    (void)state;
    assert_true(second_is_asked_for(false));
    assert_false(second_is_asked_for(true));
}

/* A read whose pieces are all here, and its leases settled, while its end is still to come: its
 * blob's swarm may be gone. */
static void test_a_read_may_outlive_its_swarm(void **state)
{
    (void)state;
    struct t_host t;
    t_open(&t, 0, T_PIECE);
    uint64_t reader = t_read(&t, TRANSFER_READ_STREAM, true);
    const struct transfer_result *fetch = t_result(&t, TRANSFER_FETCH, 0);
    assert_non_null(fetch);
    uint64_t id = fetch->id;
    t_piece(&t, 0, PIECE_FROM_ORIGIN, 0, 0);
    transfer_read_stop(t.core, t.now_us, reader);
    t_drain(&t);
    t_wait(&t, 5 * T_S);
    transfer_fetch_end(t.core, t.now_us, id, 0, 0);
    t_drain(&t);
    t_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_waits_behind_does_not_fall_back),
        cmocka_unit_test(test_what_is_behind_nothing_falls_back),
        cmocka_unit_test(test_leases_go_to_what_clients_wait_for),
        cmocka_unit_test(test_a_silent_read_keeps_no_other_blob_waiting),
        cmocka_unit_test(test_a_read_may_outlive_its_swarm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
