/* SPDX-License-Identifier: Apache-2.0 */
/* What a node knows of reads by others of a registry that is slow (O-3), and how patient that makes
 * it. */
#include "transfer_host.h"

#include "../../src/transfer/lease.h"

static enum transfer_outlook outlook(const struct t_host *t)
{
    return transfer_outlook(t->core, t->now_us, t->blob);
}

/* ---- the keeper: a mesh of three, so that this node is a keeper of everything ---- */

static void want(struct t_host *t, uint32_t from, uint8_t level)
{
    struct wire_transfer message = {.type = WIRE_TRANSFER_WANT};
    message.of.lease = (struct wire_lease){.blob = t->info.key, .level = level, .zone = 1};
    t_clear(t);
    t_receive(t, from, &message);
}

static const struct wire_lease *told(const struct t_host *t, unsigned type, uint32_t node)
{
    for (unsigned i = 0; i < t->sent_count; i++) {
        if (t->sent[i].message.type == type && t->sent[i].to == node)
            return &t->sent[i].message.of.lease;
    }
    return NULL;
}

static void renew(struct t_host *t, uint32_t from, uint8_t level, uint32_t epoch, uint32_t bytes)
{
    struct wire_transfer message = {.type = WIRE_TRANSFER_RENEW};
    message.of.renew =
        (struct wire_renew){.blob = t->info.key, .level = level, .zone = 1, .count = 1};
    message.of.renew.renewals[0] = (struct wire_renewal){.epoch = epoch, .bytes = bytes};
    t_receive(t, from, &message);
}

/* What a second node hears while the first one has the lease. */
static bool hears_moves(struct t_host *t, uint8_t level)
{
    want(t, 2, level);
    const struct wire_lease *pending = told(t, WIRE_TRANSFER_PENDING, 2);
    assert_non_null(pending);
    assert_int_equal(pending->level, level);
    return (pending->flags & WIRE_LEASE_MOVES) != 0;
}

static void test_keepers_tell_that_a_read_moves(void **state)
{
    (void)state;
    for (uint8_t level = WIRE_LEVEL_ZONE; level <= WIRE_LEVEL_HOME; level++) {
        struct t_host t;
        t_open(&t, 2, T_PIECE);
        want(&t, 1, level);
        const struct wire_lease *grant = told(&t, WIRE_TRANSFER_GRANT, 1);
        assert_non_null(grant);
        uint32_t epoch = level == WIRE_LEVEL_ZONE ? grant->zone_epoch : grant->epoch;
        assert_false(hears_moves(&t, level));
        renew(&t, 1, level, epoch, 0);
        assert_false(hears_moves(&t, level));
        renew(&t, 1, level, epoch, 4096);
        assert_true(hears_moves(&t, level));
        t_wait(&t, 1100 * T_MS); /* silent: the next one has it, and nothing yet */
        want(&t, 2, level);
        assert_null(told(&t, WIRE_TRANSFER_PENDING, 2));
        want(&t, 1, level);
        assert_non_null(told(&t, WIRE_TRANSFER_PENDING, 1));
        assert_int_equal(told(&t, WIRE_TRANSFER_PENDING, 1)->flags & WIRE_LEASE_MOVES, 0);
        t_close(&t);
    }
}

/* ---- who asks: a blob of one piece whose keepers are all other nodes ---- */

static uint32_t asking(struct t_host *t)
{
    uint8_t key[32];
    uint16_t keepers[KEEPERS];
    t_open(t, 40, T_PIECE);
    segment_key_of(&t->info.key, 0, key);
    assert_int_equal(transfer__keepers(t->core, 0, key, keepers), KEEPERS);
    (void)t_read(t, TRANSFER_READ_STREAM, true);
    transfer_providers(t->core, t->now_us, &t->info.key, NULL, 0);
    t_drain(t);
    const struct t_sent *sent = t_sent(t, WIRE_TRANSFER_WANT, 0);
    assert_non_null(sent);
    return sent->to;
}

static void pending(struct t_host *t, uint32_t from, uint8_t flags)
{
    struct wire_transfer message = {.type = WIRE_TRANSFER_PENDING};
    message.of.lease =
        (struct wire_lease){.blob = t->info.key, .flags = flags, .epoch = 1, .arg = 300};
    t_receive(t, from, &message);
}

static void test_what_is_known_of_others(void **state)
{
    (void)state;
    struct t_host t;
    uint32_t keeper = asking(&t);
    assert_int_equal(outlook(&t), TRANSFER_OUTLOOK_NONE);
    assert_int_equal(transfer_outlook(t.core, t.now_us, 4711), TRANSFER_OUTLOOK_NONE);
    pending(&t, keeper, 0);
    assert_int_equal(outlook(&t), TRANSFER_OUTLOOK_ASKED);
    t_wait(&t, 400 * T_MS);
    pending(&t, keeper, WIRE_LEASE_MOVES | 64); /* with what is not known yet */
    assert_int_equal(outlook(&t), TRANSFER_OUTLOOK_MOVES);
    assert_int_equal(transfer_outlook(t.core, t.now_us + 900 * T_MS, t.blob),
                     TRANSFER_OUTLOOK_MOVES);
    assert_int_equal(transfer_outlook(t.core, t.now_us + 1100 * T_MS, t.blob),
                     TRANSFER_OUTLOOK_NONE);
    t_close(&t);
}

static void test_what_is_known_of_own_reads(void **state)
{
    (void)state;
    struct t_host t;
    uint32_t keeper = asking(&t);
    t_lease(&t, keeper, WIRE_TRANSFER_GRANT, WIRE_LEVEL_HOME, 1000);
    const struct transfer_result *fetch = t_result(&t, TRANSFER_FETCH, 0);
    assert_non_null(fetch);
    uint64_t id = fetch->id;
    assert_int_equal(outlook(&t), TRANSFER_OUTLOOK_ASKED);
    assert_int_equal(transfer_outlook(t.core, t.now_us + 6100 * T_MS, t.blob),
                     TRANSFER_OUTLOOK_NONE);
    transfer_fetch_progress(t.core, t.now_us, id, 4096);
    assert_int_equal(outlook(&t), TRANSFER_OUTLOOK_MOVES);
    assert_int_equal(transfer_outlook(t.core, t.now_us + 3100 * T_MS, t.blob),
                     TRANSFER_OUTLOOK_NONE);
    t_close(&t);
}

/* What another zone is to bring in, too, though no keeper repeats it. */
static void test_what_is_known_of_other_zones(void **state)
{
    (void)state;
    struct t_host t;
    uint32_t keeper = asking(&t);
    t_lease(&t, keeper, WIRE_TRANSFER_GRANT, WIRE_LEVEL_ZONE, 1000);
    assert_int_equal(outlook(&t), TRANSFER_OUTLOOK_NONE);
    t_lease(&t, 7, WIRE_TRANSFER_PENDING, WIRE_LEVEL_HOME, 5000);
    t_wait(&t, 2 * T_S);
    assert_int_equal(outlook(&t), TRANSFER_OUTLOOK_ASKED);
    t_close(&t);
}

/* Seconds until the registry is read without a lease, while a keeper says this all the time. */
static uint32_t patience_s(uint8_t flags)
{
    struct t_host t;
    uint32_t keeper = asking(&t), tenths = 0;
    while (t_result(&t, TRANSFER_FETCH, 0) == NULL && tenths < 600) {
        if (tenths % 3 == 0)
            pending(&t, keeper, flags);
        t.sent_count = 0;
        t_wait(&t, 100 * T_MS);
        tenths++;
    }
    const struct transfer_result *fetch = t_result(&t, TRANSFER_FETCH, 0);
    if (fetch != NULL)
        assert_int_equal(fetch->reason, FETCH_NO_PROGRESS);
    t_close(&t);
    return tenths / 10;
}

/* O-3: a piece of 1 MiB at 50 KB/s, and 5 s to its first byte, are not read twice. */
static void test_a_read_that_moves_is_waited_for(void **state)
{
    (void)state;
    assert_in_range(patience_s(0), 9, 11);
    assert_in_range(patience_s(WIRE_LEASE_MOVES), 27, 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keepers_tell_that_a_read_moves),
        cmocka_unit_test(test_what_is_known_of_others),
        cmocka_unit_test(test_what_is_known_of_own_reads),
        cmocka_unit_test(test_what_is_known_of_other_zones),
        cmocka_unit_test(test_a_read_that_moves_is_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
