/* SPDX-License-Identifier: Apache-2.0 */
/* Our own provider records: placing, refreshing, moving with the members, taking back. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "dht_host.h"

#define K 4 /* holders per key in these tests */

struct fixture {
    struct host *host;
    struct dht *dht;
    uint64_t now_us;
    size_t seen;        /* sent messages looked at */
    unsigned mute;      /* a node that answers nothing; 0: none */
    unsigned told[512]; /* how often a node was told, by number */
    struct wire_dht_add last;
};

static int set_up_with(void **state, struct dht_config config)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    fixture->host = host_new();
    fixture->dht = host_dht(fixture->host, &config);
    *state = fixture;
    return 0;
}

static int set_up(void **state)
{
    struct dht_config config = host_config();
    config.k = K;
    return set_up_with(state, config);
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    host_close(fixture->host, fixture->dht);
    free(fixture);
    return 0;
}

static unsigned number_of(const struct peer_addr *addr)
{
    return (unsigned)addr->ip[14] << 8 | addr->ip[15];
}

/* Answers what the core has sent so far, for all nodes but the mute one. */
static void answer_all(struct fixture *fixture)
{
    while (fixture->seen < fixture->host->sent_count) {
        const struct host_sent sent = fixture->host->sent[fixture->seen++];
        unsigned number = number_of(&sent.to);
        if (type_of(&sent) == WIRE_DHT_ADD_PROVIDER) {
            fixture->told[number]++;
            fixture->last = host_add(&sent);
        }
        if (number == fixture->mute)
            continue;
        if (type_of(&sent) == WIRE_DHT_ADD_PROVIDER)
            (void)answer_add(fixture->dht, fixture->now_us, &sent, WIRE_DHT_STORED,
                             fixture->last.sequence);
        else if (type_of(&sent) == WIRE_DHT_FIND_NODE)
            (void)answer_find(fixture->dht, fixture->now_us, &sent, NULL, 0);
    }
    fixture->host->sent_count = fixture->seen = 0;
}

/* Runs in small steps, answering everything. */
static void run(struct fixture *fixture, uint64_t duration_us)
{
    uint64_t end_us = fixture->now_us + duration_us;
    uint64_t step_us = duration_us > 100 * S ? 1 * S : 10 * MS;
    answer_all(fixture);
    while (fixture->now_us < end_us) {
        run_until(fixture->dht, &fixture->now_us, fixture->now_us + step_us);
        answer_all(fixture);
    }
}

static unsigned told_in_all(const struct fixture *fixture)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < 512; i++)
        sum += fixture->told[i];
    return sum;
}

static void forget_told(struct fixture *fixture)
{
    memset(fixture->told, 0, sizeof fixture->told);
}

/* The members 1..count by distance; `rank` is how many of them are nearer to the key than we are.
 */
static unsigned order_members(const struct blob_key *key, unsigned *nearest, unsigned count)
{
    unsigned rank = 0;
    struct dht_contact self = contact_of(0);
    by_distance(key, nearest, count);
    while (rank < count) {
        struct dht_contact member = contact_of(nearest[rank]);
        if (xor_compare(key->bytes, self.id.bytes, member.id.bytes) < 0)
            break;
        rank++;
    }
    return rank;
}

/* A key to which we are (not) among the K nearest of members 1..count. */
static struct blob_key pick_key(unsigned count, bool ours, unsigned *nearest)
{
    for (unsigned i = 0;; i++) {
        struct blob_key key = key_of(i);
        if ((order_members(&key, nearest, count) < K) == ours)
            return key;
    }
}

static void records_go_to_the_k_nearest(void **state)
{
    struct fixture *fixture = *state;
    unsigned nearest[40];
    struct blob_key key = pick_key(40, false, nearest);
    struct dht_stats stats;
    members_up(fixture->dht, 0, 1, 40);
    assert_int_equal(dht_publish(fixture->dht, 0, &key, 255), 0);
    run(fixture, 5 * S);
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(fixture->told[nearest[i]], i < K);
    assert_memory_equal(fixture->last.key, key.bytes, sizeof key.bytes);
    assert_int_equal(fixture->last.completeness, 255);
    assert_int_equal(fixture->last.ttl_ms, 15 * 60 * 1000);
    struct dht_contact self = contact_of(0);
    assert_true(peer_addr_equal(&fixture->last.addr, &self.addr)); /* DHT-4 */
    dht_stats(fixture->dht, &stats);
    assert_int_equal(stats.published, 1);
    assert_int_equal(stats.records, 0);
}

static void among_the_nearest_we_keep_our_own_record(void **state)
{
    struct fixture *fixture = *state;
    unsigned nearest[40];
    struct blob_key key = pick_key(40, true, nearest);
    struct dht_stats stats;
    members_up(fixture->dht, 0, 1, 40);
    assert_int_equal(dht_publish(fixture->dht, 0, &key, 255), 0);
    run(fixture, 5 * S);
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(fixture->told[nearest[i]], i < K - 1);
    dht_stats(fixture->dht, &stats);
    assert_int_equal(stats.records, 1);
    dht_unpublish(fixture->dht, fixture->now_us, &key);
    dht_stats(fixture->dht, &stats);
    assert_int_equal(stats.records, 0);
}

static void a_silent_holder_is_replaced_by_the_next_nearest(void **state)
{
    struct fixture *fixture = *state;
    unsigned nearest[40];
    struct blob_key key = pick_key(40, false, nearest);
    members_up(fixture->dht, 0, 1, 40);
    fixture->mute = nearest[1];
    assert_int_equal(dht_publish(fixture->dht, 0, &key, 255), 0);
    run(fixture, 5 * S);
    assert_int_equal(fixture->told[nearest[1]], 2); /* repeated once */
    assert_int_equal(fixture->told[nearest[K]], 1);
    assert_int_equal(fixture->told[nearest[K + 1]], 0);
}

static void records_are_refreshed_at_half_life(void **state)
{
    struct fixture *fixture = *state;
    unsigned nearest[40];
    struct blob_key key = pick_key(40, false, nearest);
    members_up(fixture->dht, 0, 1, 40);
    assert_int_equal(dht_publish(fixture->dht, 0, &key, 100), 0);
    run(fixture, 5 * S);
    uint64_t sequence = fixture->last.sequence;
    assert_int_equal(dht_publish(fixture->dht, fixture->now_us, &key, 200), 0);
    run(fixture, 390 * S); /* half of 15 minutes, less a tenth */
    assert_int_equal(told_in_all(fixture), K);
    run(fixture, 110 * S);
    assert_int_equal(told_in_all(fixture), 2 * K);
    assert_int_equal(fixture->last.completeness, 200); /* the change came along */
    assert_true(fixture->last.sequence > sequence);
}

static void new_labels_are_told_within_seconds(void **state)
{
    struct fixture *fixture = *state;
    unsigned nearest[40];
    struct blob_key key = pick_key(40, true, nearest); /* one record is at home */
    struct topology topology = {.zone = {"z2"}};
    members_up(fixture->dht, 0, 1, 40);
    assert_int_equal(dht_publish(fixture->dht, 0, &key, 255), 0);
    run(fixture, 5 * S);
    uint64_t sequence = fixture->last.sequence;
    assert_string_equal(fixture->last.topology.zone.text, "");
    forget_told(fixture);
    dht_update_self(fixture->dht, fixture->now_us, &topology);
    run(fixture, 6 * S);
    assert_int_equal(told_in_all(fixture), K - 1);
    assert_string_equal(fixture->last.topology.zone.text, "z2");
    assert_true(fixture->last.sequence > sequence);
    run(fixture, 200 * S);
    assert_int_equal(told_in_all(fixture), K - 1); /* then it is quiet again */
    /* In the middle of a job: once more after it. */
    struct blob_key other = pick_key(40, false, nearest);
    memcpy(topology.zone.text, "z3", 3);
    forget_told(fixture);
    assert_int_equal(dht_publish(fixture->dht, fixture->now_us, &other, 255), 0);
    dht_update_self(fixture->dht, fixture->now_us, &topology);
    run(fixture, 6 * S);
    assert_int_equal(told_in_all(fixture), 2 * K + K - 1);
    assert_string_equal(fixture->last.topology.zone.text, "z3");
}

static void completion_is_told_at_once(void **state)
{
    struct fixture *fixture = *state;
    unsigned nearest[40];
    struct blob_key key = pick_key(40, false, nearest);
    members_up(fixture->dht, 0, 1, 40);
    assert_int_equal(dht_publish(fixture->dht, 0, &key, 1), 0);
    run(fixture, 5 * S);
    assert_int_equal(dht_publish(fixture->dht, fixture->now_us, &key, 255), 0);
    run(fixture, 1 * S);
    assert_int_equal(told_in_all(fixture), 2 * K);
    assert_int_equal(fixture->last.completeness, 255);
    assert_int_equal(dht_publish(fixture->dht, fixture->now_us, &key, 255), 0); /* no news */
    run(fixture, 1 * S);
    assert_int_equal(told_in_all(fixture), 2 * K);
}

static void completion_during_a_job_is_told_after_it(void **state)
{
    struct fixture *fixture = *state;
    unsigned nearest[40];
    struct blob_key key = pick_key(40, false, nearest);
    members_up(fixture->dht, 0, 1, 40);
    assert_int_equal(dht_publish(fixture->dht, 0, &key, 1), 0);
    assert_int_equal(dht_publish(fixture->dht, 0, &key, 255), 0);
    run(fixture, 1 * S);
    assert_int_equal(fixture->last.completeness, 255);
    assert_true(told_in_all(fixture) >= K && told_in_all(fixture) <= 2 * K);
}

static void the_death_of_a_holder_moves_one_record_within_seconds(void **state)
{
    struct fixture *fixture = *state;
    unsigned nearest[40];
    struct blob_key key = pick_key(40, false, nearest);
    members_up(fixture->dht, 0, 1, 40);
    assert_int_equal(dht_publish(fixture->dht, 0, &key, 255), 0);
    run(fixture, 5 * S);
    forget_told(fixture);
    struct dht_contact holder = contact_of(nearest[2]), other = contact_of(nearest[20]);
    dht_member_down(fixture->dht, fixture->now_us, &other.id); /* held nothing */
    run(fixture, 3 * S);
    assert_int_equal(told_in_all(fixture), 0);
    dht_member_down(fixture->dht, fixture->now_us, &holder.id);
    run(fixture, 3 * S);
    assert_int_equal(told_in_all(fixture), 1);
    assert_int_equal(fixture->told[nearest[K]], 1);
}

static void a_nearer_member_gets_the_record_within_seconds(void **state)
{
    struct fixture *fixture = *state;
    unsigned nearest[40];
    struct blob_key key = pick_key(40, false, nearest);
    for (unsigned i = 1; i <= 40; i++) {
        if (i != nearest[0] && i != nearest[30])
            members_up(fixture->dht, 0, i, 1);
    }
    assert_int_equal(dht_publish(fixture->dht, 0, &key, 255), 0);
    run(fixture, 5 * S);
    forget_told(fixture);
    members_up(fixture->dht, fixture->now_us, nearest[30], 1); /* too far away */
    run(fixture, 3 * S);
    assert_int_equal(told_in_all(fixture), 0);
    members_up(fixture->dht, fixture->now_us, nearest[0], 1);
    run(fixture, 3 * S);
    assert_int_equal(told_in_all(fixture), 1);
    assert_int_equal(fixture->told[nearest[0]], 1);
    /* Up again without a down: it restarted and has lost the record. */
    members_up(fixture->dht, fixture->now_us, nearest[0], 1);
    run(fixture, 3 * S);
    assert_int_equal(fixture->told[nearest[0]], 2);
    assert_int_equal(told_in_all(fixture), 2);
}

static void unpublishing_tells_the_holders(void **state)
{
    struct fixture *fixture = *state;
    unsigned nearest[40];
    struct blob_key key = pick_key(40, false, nearest);
    struct dht_stats stats;
    members_up(fixture->dht, 0, 1, 40);
    assert_int_equal(dht_publish(fixture->dht, 0, &key, 255), 0);
    run(fixture, 5 * S);
    forget_told(fixture);
    uint64_t sequence = fixture->last.sequence;
    dht_unpublish(fixture->dht, fixture->now_us, &key);
    dht_unpublish(fixture->dht, fixture->now_us, &key); /* twice: nothing to do */
    run(fixture, 3 * S);
    assert_int_equal(told_in_all(fixture), K);
    assert_int_equal(fixture->last.ttl_ms, 0);
    assert_true(fixture->last.sequence > sequence);
    run(fixture, 1000 * S);
    assert_int_equal(told_in_all(fixture), K); /* and never comes back to it */
    dht_stats(fixture->dht, &stats);
    assert_int_equal(stats.published, 0);
}

static void unpublishing_in_the_middle_of_a_job_tells_those_asked(void **state)
{
    struct fixture *fixture = *state;
    unsigned nearest[40];
    struct blob_key key = pick_key(40, false, nearest);
    members_up(fixture->dht, 0, 1, 40);
    assert_int_equal(dht_publish(fixture->dht, 0, &key, 255), 0);
    size_t asked = fixture->host->sent_count;
    assert_int_equal(asked, K);
    dht_unpublish(fixture->dht, 0, &key);
    assert_int_equal(fixture->host->sent_count, 2 * asked);
    for (size_t i = 0; i < asked; i++) /* answers to what was dropped are late, no more */
        assert_int_equal(answer_add(fixture->dht, 1, &fixture->host->sent[i], WIRE_DHT_STORED, 0),
                         E_REFUSED);
    dht__check_invariants(fixture->dht);
    fixture->seen = asked;
    run(fixture, 3 * S);
    dht__check_invariants(fixture->dht);
}

static void an_older_life_is_outdone_DHT_7(void **state)
{
    struct fixture *fixture = *state;
    unsigned nearest[40];
    struct blob_key key = pick_key(40, false, nearest);
    members_up(fixture->dht, 0, 1, 40);
    assert_int_equal(dht_publish(fixture->dht, 0, &key, 255), 0);
    const struct host_sent first = fixture->host->sent[0];
    size_t count = fixture->host->sent_count;
    assert_int_equal(answer_add(fixture->dht, 1, &first, WIRE_DHT_STALE, 1000), 0);
    assert_int_equal(fixture->host->sent_count, count + 1);
    const struct host_sent again = fixture->host->sent[count];
    assert_true(peer_addr_equal(&again.to, &first.to));
    assert_true(host_add(&again).sequence == 1001);
    /* A number out of reason, or one below ours, is not followed. */
    assert_int_equal(answer_add(fixture->dht, 1, &again, WIRE_DHT_STALE, WIRE_DHT_SEQUENCE_MAX - 1),
                     0);
    assert_int_equal(answer_add(fixture->dht, 1, &fixture->host->sent[1], WIRE_DHT_STALE, 3), 0);
    assert_int_equal(fixture->host->sent_count, count + 1);
    dht__check_invariants(fixture->dht);
}

static void endless_staleness_ends(void **state)
{
    struct fixture *fixture = *state;
    unsigned nearest[40];
    struct blob_key key = pick_key(40, false, nearest);
    members_up(fixture->dht, 0, 1, 40);
    assert_int_equal(dht_publish(fixture->dht, 0, &key, 255), 0);
    for (size_t i = 0; i < fixture->host->sent_count; i++) {
        const struct host_sent sent = fixture->host->sent[i];
        (void)answer_add(fixture->dht, 1, &sent, WIRE_DHT_STALE, host_add(&sent).sequence + 5);
        assert_true(i < 20);
    }
    assert_int_equal(fixture->host->sent_count, K + 3);
}

static void with_nobody_there_publishing_waits_for_somebody(void **state)
{
    struct fixture *fixture = *state;
    struct blob_key key = key_of(1);
    assert_int_equal(dht_publish(fixture->dht, 0, &key, 255), 0);
    run(fixture, 300 * S);
    assert_int_equal(told_in_all(fixture), 0);
    members_up(fixture->dht, fixture->now_us, 1, 1);
    run(fixture, 3 * S);
    assert_int_equal(fixture->told[1], 1);
}

static void without_members_nodes_are_looked_up(void **state)
{
    struct fixture *fixture = *state;
    struct blob_key key = key_of(1);
    struct peer_addr seeds[3];
    for (unsigned i = 0; i < 3; i++)
        seeds[i] = contact_of(i + 1).addr;
    dht_bootstrap(fixture->dht, 0, seeds, 3);
    run(fixture, 2 * S);
    assert_int_equal(dht_publish(fixture->dht, fixture->now_us, &key, 255), 0);
    run(fixture, 2 * S);
    assert_int_equal(fixture->told[1] + fixture->told[2] + fixture->told[3], 3);
    dht_unpublish(fixture->dht, fixture->now_us, &key);
    run(fixture, 2 * S);
    assert_int_equal(told_in_all(fixture), 6);
    assert_int_equal(fixture->last.ttl_ms, 0);
}

static void a_burst_is_bounded(void **state)
{
    struct fixture *fixture = *state;
    members_up(fixture->dht, 0, 1, 100);
    for (unsigned i = 0; i < 500; i++) {
        struct blob_key key = key_of(i);
        assert_int_equal(dht_publish(fixture->dht, 0, &key, 255), 0);
    }
    assert_true(fixture->host->sent_count <= 96); /* 16 jobs of 6 */
    dht__check_invariants(fixture->dht);
    run(fixture, 5 * S);
    unsigned first = told_in_all(fixture);
    assert_true(first >= 500 * (K - 1) && first <= 500 * K);
    forget_told(fixture);
    for (unsigned i = 0; i < 500; i++) {
        struct blob_key key = key_of(i);
        dht_unpublish(fixture->dht, fixture->now_us, &key);
    }
    assert_true(fixture->host->sent_count <= 160);
    run(fixture, 5 * S);
    dht__check_invariants(fixture->dht);
}

static void keys_are_bounded(void **state)
{
    struct fixture *fixture = *state;
    struct blob_key key;
    for (unsigned i = 0; i < 65536; i++) {
        key = (struct blob_key){{0}};
        store_be32(key.bytes, i * 2654435761u);
        assert_int_equal(dht_publish(fixture->dht, 0, &key, 255), 0);
    }
    assert_int_equal(dht_publish(fixture->dht, 0, &key, 200), 0); /* known already */
    key.bytes[31] = 1;
    assert_int_equal(dht_publish(fixture->dht, 0, &key, 255), E_FULL);
    dht__check_invariants(fixture->dht);
    members_up(fixture->dht, fixture->now_us, 1, 1); /* a review of many keys goes in slices */
    for (unsigned i = 0; i < 300; i++) {
        fixture->now_us += 10 * MS;
        dht_advance(fixture->dht, fixture->now_us);
        assert_true(fixture->host->sent_count <= 96);
        answer_all(fixture);
    }
    dht__check_invariants(fixture->dht);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(records_go_to_the_k_nearest),
        TEST(among_the_nearest_we_keep_our_own_record),
        TEST(a_silent_holder_is_replaced_by_the_next_nearest),
        TEST(records_are_refreshed_at_half_life),
        TEST(new_labels_are_told_within_seconds),
        TEST(completion_is_told_at_once),
        TEST(completion_during_a_job_is_told_after_it),
        TEST(the_death_of_a_holder_moves_one_record_within_seconds),
        TEST(a_nearer_member_gets_the_record_within_seconds),
        TEST(unpublishing_tells_the_holders),
        TEST(unpublishing_in_the_middle_of_a_job_tells_those_asked),
        TEST(an_older_life_is_outdone_DHT_7),
        TEST(endless_staleness_ends),
        TEST(with_nobody_there_publishing_waits_for_somebody),
        TEST(without_members_nodes_are_looked_up),
        TEST(a_burst_is_bounded),
        TEST(keys_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
