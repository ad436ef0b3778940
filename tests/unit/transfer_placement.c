/* SPDX-License-Identifier: Apache-2.0 */
/* Placement against an obvious model: the closest members by trial of all, zones that merge alike
 * whatever the order of news, home zones on which all nodes agree and which move little. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/transfer/core.h"

struct host {
    struct prng prng;
    struct env env;
};

static int host_send(void *host, const struct peer_addr *to, const uint8_t *msg, size_t msg_bytes)
{
    (void)host;
    (void)to;
    (void)msg;
    return msg_bytes > 0 ? 0 : E_INVALID;
}

static void host_random(void *host, uint8_t *out, size_t out_bytes)
{
    struct host *self = host;
    for (size_t i = 0; i < out_bytes; i++)
        out[i] = (uint8_t)prng_next(&self->prng);
}

static void *host_alloc(void *host, void *old, size_t new_bytes)
{
    (void)host;
    if (new_bytes > 0)
        return realloc(old, new_bytes);
    free(old);
    return NULL;
}

static void host_trace(void *host, enum log_level level, const char *line)
{
    (void)host;
    (void)level;
    (void)line;
}

static struct member a_member(uint32_t index, unsigned zone)
{
    struct member member = {.state = MEMBER_ALIVE};
    member.addr = (struct peer_addr){.ip = {[10] = 0xff, [11] = 0xff}, .port = 65002};
    store_be32(member.addr.ip + 12, index);
    node_id_of("placement", &member.addr, &member.id);
    snprintf(member.topology.region.text, LABEL_BYTES_MAX, "r%u", zone / 4);
    snprintf(member.topology.zone.text, LABEL_BYTES_MAX, "z%u", zone);
    return member;
}

static struct transfer *new_core(struct host *host, const struct member *self)
{
    host->env = (struct env){.host = host,
                             .send = host_send,
                             .random = host_random,
                             .alloc = host_alloc,
                             .trace = host_trace};
    struct transfer_config config = {
        .self_id = self->id, .self_addr = self->addr, .topology = self->topology};
    struct transfer *core;
    assert_int_equal(transfer_new(&host->env, &config, 1, &core), 0);
    return core;
}

static void add(struct transfer *core, const struct member *member)
{
    assert_int_equal(transfer_member_up(core, 1, member), 0);
}

/* Closest of `zone` by trial; count found. */
static uint32_t model_closest(struct transfer *core, uint32_t zone, const uint8_t key[32],
                              uint16_t out[KEEPERS])
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < core->nodes.member_bound; i++) {
        enum member_state state = transfer__member_state(core, (uint16_t)i);
        if (state != MEMBER_ALIVE && state != MEMBER_SUSPECT)
            continue;
        uint16_t slot = transfer__node_at(core, (uint16_t)i);
        if (transfer__zone_of(core, slot) != zone)
            continue;
        const struct node_id id = core->nodes.slots[slot].id;
        uint32_t at = found < KEEPERS ? found++ : KEEPERS;
        for (; at > 0; at--) {
            const struct node *before = &core->nodes.slots[out[at - 1]];
            if (xor_compare(key, before->id.bytes, id.bytes) < 0)
                break;
            if (at < KEEPERS)
                out[at] = out[at - 1];
        }
        if (at < KEEPERS)
            out[at] = slot;
    }
    return found;
}

static void check_closest(struct transfer *core, struct prng *prng)
{
    uint8_t key[32];
    for (unsigned i = 0; i < sizeof key; i++)
        key[i] = (uint8_t)prng_next(prng);
    for (uint32_t zone = 0; zone < core->nodes.zone_count; zone++) {
        uint16_t found[KEEPERS], model[KEEPERS];
        uint32_t count = transfer__closest(core, zone, key, KEEPERS, found);
        assert_int_equal(count, model_closest(core, zone, key, model));
        for (uint32_t i = 0; i < count; i++)
            assert_int_equal(found[i], model[i]);
    }
}

static void test_closest_is_what_a_trial_of_all_finds(void **state)
{
    (void)state;
    struct host host;
    prng_seed(&host.prng, (const uint8_t *)"closest", 7);
    for (unsigned round = 0; round < 30; round++) {
        struct member self = a_member(1, 0);
        struct transfer *core = new_core(&host, &self);
        uint32_t members = 1 + (uint32_t)prng_below(&host.prng, 300);
        unsigned zones = 1 + (unsigned)prng_below(&host.prng, 6);
        for (uint32_t i = 2; i < members + 2; i++) {
            struct member member = a_member(i, (unsigned)prng_below(&host.prng, zones));
            add(core, &member);
            if (prng_below(&host.prng, 5) == 0)
                transfer_member_down(core, 1, &member.id);
        }
        for (unsigned i = 0; i < 20; i++)
            check_closest(core, &host.prng);
        transfer__check_invariants(core);
        transfer_free(core);
    }
}

/* What one member more or less changes in place is what placing all anew makes of it. */
static void check_in_place(struct transfer *core, struct prng *prng)
{
    enum { keys = 4 };
    uint8_t key[keys][32];
    uint64_t home[keys];
    uint32_t live = transfer__live(core), zones = core->nodes.zone_count, count[keys];
    uint16_t found[keys][KEEPERS], anew[KEEPERS];
    for (unsigned k = 0; k < keys; k++) {
        for (unsigned i = 0; i < sizeof key[k]; i++)
            key[k][i] = (uint8_t)prng_next(prng);
        uint32_t zone = transfer__home_zone(core, key[k]);
        home[k] = transfer__zone_id(core, zone);
        count[k] = transfer__closest(core, zone, key[k], KEEPERS, found[k]);
    }
    core->nodes.stale = true;
    assert_int_equal(transfer__live(core), live);
    assert_int_equal(core->nodes.zone_count, zones);
    for (unsigned k = 0; k < keys; k++) {
        uint32_t zone = transfer__home_zone(core, key[k]);
        assert_true(home[k] == transfer__zone_id(core, zone));
        assert_int_equal(transfer__closest(core, zone, key[k], KEEPERS, anew), count[k]);
        assert_memory_equal(found[k], anew, count[k] * sizeof anew[0]);
    }
    transfer__check_invariants(core);
}

static void test_changes_in_place(void **state)
{
    (void)state;
    enum { members = 80 };
    struct host host;
    prng_seed(&host.prng, (const uint8_t *)"in place", 8);
    unsigned in_place = 0;
    for (unsigned round = 0; round < 12; round++) {
        struct member self = a_member(1, 0);
        struct transfer *core = new_core(&host, &self);
        unsigned zones = 1 + (unsigned)prng_below(&host.prng, 5);
        for (unsigned step = 0; step < 400; step++) {
            uint32_t index = 2 + (uint32_t)prng_below(&host.prng, members);
            unsigned zone = index % zones;
            if (prng_below(&host.prng, 20) == 0) /* moves */
                zone = (zone + 1) % zones;
            struct member member = a_member(index, zone);
            unsigned what = (unsigned)prng_below(&host.prng, 10);
            member.state = what == 9 ? MEMBER_LEAVING : what == 8 ? MEMBER_SUSPECT : MEMBER_ALIVE;
            if (what < (step % 200 < 120 ? 2u : 7u))
                transfer_member_down(core, 1, &member.id);
            else
                add(core, &member);
            in_place += !core->nodes.stale;
            check_in_place(core, &host.prng);
        }
        transfer_drain(core, 1);
        check_in_place(core, &host.prng);
        transfer_free(core);
    }
    assert_true(in_place > 1000);
}

/* A member we deal with keeps its slot; one that nobody asked for has none. */
static void test_members_get_slots_when_met(void **state)
{
    (void)state;
    struct host host;
    prng_seed(&host.prng, (const uint8_t *)"slots", 5);
    struct member self = a_member(1, 0);
    struct transfer *core = new_core(&host, &self);
    for (uint32_t i = 2; i < 102; i++) {
        struct member member = a_member(i, 0);
        add(core, &member);
    }
    assert_int_equal(core->nodes.count, 1);
    assert_int_equal(core->nodes.member_count, 101);
    struct member known = a_member(50, 0), stranger = a_member(500, 0);
    assert_int_equal(transfer__node_find(core, &known.id), NODE_NONE);
    uint16_t slot = transfer__node_meet(core, &known.id, NULL);
    assert_true(slot != NODE_NONE && transfer__node_find(core, &known.id) == slot);
    assert_true(peer_addr_equal(&core->nodes.slots[slot].addr, &known.addr));
    assert_int_equal(core->nodes.slots[slot].state, MEMBER_ALIVE);
    assert_int_equal(core->nodes.stranger_count, 0);

    uint16_t other = transfer__node_meet(core, &stranger.id, &stranger.addr);
    assert_int_equal(core->nodes.stranger_count, 1);
    add(core, &stranger); /* gossip tells of it */
    assert_int_equal(core->nodes.stranger_count, 0);
    assert_int_equal(transfer__node_find(core, &stranger.id), other);
    assert_int_equal(core->nodes.slots[other].state, MEMBER_ALIVE);

    stranger.addr.port++; /* PEER-4: one id, one address */
    assert_int_equal(transfer_member_up(core, 1, &stranger), E_INVALID);
    struct member unknown = a_member(600, 0);
    unknown.state = MEMBER_UNKNOWN;
    assert_int_equal(transfer_member_up(core, 1, &unknown), 0);
    transfer_member_down(core, 1, &known.id);
    assert_int_equal(transfer__node_find(core, &known.id), NODE_NONE);
    struct member unmet = a_member(60, 0);
    transfer_member_down(core, 1, &unmet.id);
    transfer_member_down(core, 1, &unmet.id);
    transfer_member_down(core, 1, &self.id);
    assert_int_equal(core->nodes.member_count, 100);
    transfer__check_invariants(core);
    transfer_free(core);
}

static void test_all_agree_whatever_the_order(void **state)
{
    (void)state;
    enum { members = 60 };
    struct host host;
    prng_seed(&host.prng, (const uint8_t *)"agree", 5);
    struct member all[members];
    for (uint32_t i = 0; i < members; i++)
        all[i] = a_member(i + 1, i % 7 == 0 ? 6 : i % 3);
    struct transfer *cores[2];
    for (unsigned c = 0; c < 2; c++) {
        cores[c] = new_core(&host, &all[c * 31]);
        for (uint32_t i = 0; i < members; i++)
            add(cores[c], &all[c == 0 ? i : members - 1 - i]);
    }
    assert_int_equal(transfer__live(cores[0]), members);
    for (unsigned i = 0; i < 200; i++) {
        uint8_t key[32];
        host_random(&host, key, sizeof key);
        uint64_t home[2];
        uint16_t keepers[2][KEEPERS];
        for (unsigned c = 0; c < 2; c++) {
            uint32_t zone = transfer__home_zone(cores[c], key);
            home[c] = transfer__zone_id(cores[c], zone);
            assert_int_equal(transfer__closest(cores[c], zone, key, KEEPERS, keepers[c]), KEEPERS);
        }
        assert_true(home[0] == home[1]);
        for (unsigned k = 0; k < KEEPERS; k++)
            assert_true(node_id_equal(&cores[0]->nodes.slots[keepers[0][k]].id,
                                      &cores[1]->nodes.slots[keepers[1][k]].id));
    }
    transfer_free(cores[0]);
    transfer_free(cores[1]);
}

static struct transfer *with_zones(struct host *host, const unsigned *sizes, unsigned zones)
{
    struct member self = a_member(1, 0);
    struct transfer *core = new_core(host, &self);
    uint32_t index = 2;
    for (unsigned zone = 0; zone < zones; zone++) {
        for (unsigned i = zone == 0 ? 1 : 0; i < sizes[zone]; i++) {
            struct member member = a_member(index++, zone);
            add(core, &member);
        }
    }
    return core;
}

static void test_small_zones_merge(void **state)
{
    (void)state;
    struct host host;
    prng_seed(&host.prng, (const uint8_t *)"zones", 5);
    static const struct {
        unsigned sizes[4], zones, expected;
    } cases[] = {
        {{6, 6}, 2, 2},    {{6, 5}, 2, 1},       {{3, 2}, 2, 1},        {{3, 3, 3}, 3, 1},
        {{9, 3, 9}, 3, 2}, {{4, 4, 4, 4}, 4, 2}, {{20, 1, 1, 1}, 4, 1}, {{1}, 1, 1},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct transfer *core = with_zones(&host, cases[i].sizes, cases[i].zones);
        (void)transfer__live(core);
        assert_int_equal(core->nodes.zone_count, cases[i].expected);
        uint32_t placed = 0;
        for (uint32_t z = 0; z < core->nodes.zone_count; z++) {
            placed += core->nodes.zones[z].count;
            assert_int_equal(transfer__zone_find(core, core->nodes.zones[z].id), z);
        }
        assert_int_equal(placed, core->nodes.live);
        transfer_free(core);
    }
}

/* A zone that goes moves only the keys it was home to. */
static void test_home_zones_move_little(void **state)
{
    (void)state;
    struct host host;
    prng_seed(&host.prng, (const uint8_t *)"homes", 5);
    static const unsigned sizes[4] = {10, 10, 10, 10};
    struct transfer *four = with_zones(&host, sizes, 4), *three = with_zones(&host, sizes, 3);
    unsigned per_zone[4] = {0}, moved = 0;
    for (unsigned i = 0; i < 4000; i++) {
        uint8_t key[32];
        host_random(&host, key, sizeof key);
        uint32_t before = transfer__home_zone(four, key), after = transfer__home_zone(three, key);
        uint64_t id = transfer__zone_id(four, before);
        per_zone[before]++;
        bool stayed = id == transfer__zone_id(three, after);
        moved += !stayed;
        assert_true(stayed || transfer__zone_find(three, id) == three->nodes.zone_count);
    }
    for (unsigned z = 0; z < 4; z++)
        assert_in_range(per_zone[z], 800, 1200);
    assert_in_range(moved, 800, 1200);
    transfer_free(four);
    transfer_free(three);
}

/* A node that learns its labels late sees the mesh as one that knew them from the start. */
static void test_own_labels_may_change(void **state)
{
    (void)state;
    struct host host;
    prng_seed(&host.prng, (const uint8_t *)"moves", 5);
    static const unsigned path[] = {1, 2, 0, 0, 7, 1};
    struct member self = a_member(999, 3), members[30];
    struct transfer *moved = new_core(&host, &self);
    for (uint32_t i = 0; i < 30; i++) {
        members[i] = a_member(i, i / 10);
        add(moved, &members[i]);
    }
    for (unsigned step = 0; step < sizeof path / sizeof path[0]; step++) {
        self.topology = a_member(999, path[step]).topology;
        assert_int_equal(transfer_update_self(moved, 1, &self.topology), 0);
        transfer__check_invariants(moved);
        struct transfer *fresh = new_core(&host, &self);
        for (uint32_t i = 0; i < 30; i++)
            add(fresh, &members[i]);
        assert_int_equal(transfer__live(moved), 31);
        assert_int_equal(transfer__live(fresh), 31);
        assert_int_equal(moved->nodes.zone_count, fresh->nodes.zone_count);
        assert_int_equal(transfer__zone_of(moved, NODE_SELF), transfer__zone_of(fresh, NODE_SELF));
        for (uint32_t i = 0; i < 30; i++) {
            uint16_t a = transfer__node_find(moved, &members[i].id);
            uint16_t b = transfer__node_find(fresh, &members[i].id);
            a = a == NODE_NONE ? transfer__node_meet(moved, &members[i].id, NULL) : a;
            b = b == NODE_NONE ? transfer__node_meet(fresh, &members[i].id, NULL) : b;
            assert_int_equal(transfer__zone_of(moved, a), transfer__zone_of(fresh, b));
            assert_int_equal(transfer__node_distance(moved, a), transfer__node_distance(fresh, b));
        }
        check_closest(moved, &host.prng);
        transfer_free(fresh);
    }
    transfer_free(moved);
}

static void test_silent_keepers_come_last(void **state)
{
    (void)state;
    struct host host;
    prng_seed(&host.prng, (const uint8_t *)"silent", 6);
    static const unsigned sizes[1] = {12};
    struct transfer *core = with_zones(&host, sizes, 1);
    uint8_t key[32] = {5};
    uint16_t before[KEEPERS], after[KEEPERS];
    assert_int_equal(transfer__keepers(core, 0, key, before), KEEPERS);
    uint16_t first = before[0] == NODE_SELF ? before[1] : before[0];
    transfer__silent(core, first);
    assert_int_equal(transfer__keepers(core, 0, key, after), KEEPERS);
    assert_int_equal(after[KEEPERS - 1], first);
    struct transfer_result result;
    assert_true(transfer_next_result(core, &result));
    assert_int_equal(result.kind, TRANSFER_PEER_SILENT);
    transfer__heard(core, first);
    assert_int_equal(transfer__keepers(core, 0, key, after), KEEPERS);
    for (unsigned i = 0; i < KEEPERS; i++)
        assert_int_equal(after[i], before[i]);
    transfer_free(core);
}

static void test_ten_thousand_members(void **state)
{
    (void)state;
    struct host host;
    prng_seed(&host.prng, (const uint8_t *)"many", 4);
    static const unsigned sizes[3] = {3334, 3333, 3333};
    struct transfer *core = with_zones(&host, sizes, 3);
    assert_int_equal(transfer__live(core), 10000);
    for (unsigned i = 0; i < 3; i++)
        check_closest(core, &host.prng);
    transfer_free(core);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_closest_is_what_a_trial_of_all_finds),
        cmocka_unit_test(test_changes_in_place),
        cmocka_unit_test(test_members_get_slots_when_met),
        cmocka_unit_test(test_all_agree_whatever_the_order),
        cmocka_unit_test(test_small_zones_merge),
        cmocka_unit_test(test_home_zones_move_little),
        cmocka_unit_test(test_own_labels_may_change),
        cmocka_unit_test(test_silent_keepers_come_last),
        cmocka_unit_test(test_ten_thousand_members),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
