/* SPDX-License-Identifier: Apache-2.0 */
/* The DHT's messages: decode(encode(x)) = x, limits, refusals, and the size bounds that DHT-2 rests
 * on. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "wire_dht.h"

static struct peer_addr v4(unsigned host)
{
    struct peer_addr addr = {.ip = {[10] = 0xff, [11] = 0xff, [12] = 10}, .port = 65002};
    addr.ip[14] = (uint8_t)(host >> 8);
    addr.ip[15] = (uint8_t)host;
    return addr;
}

static struct peer_addr v6(unsigned host)
{
    struct peer_addr addr = {.ip = {0xfd, 1, 2, 3}, .port = 65002};
    addr.ip[15] = (uint8_t)host;
    return addr;
}

static struct topology topology_of(const char *region, const char *zone, const char *vswitch)
{
    struct topology topology = {0};
    snprintf(topology.region.text, sizeof topology.region.text, "%s", region);
    snprintf(topology.zone.text, sizeof topology.zone.text, "%s", zone);
    snprintf(topology.vswitch.text, sizeof topology.vswitch.text, "%s", vswitch);
    return topology;
}

static void fill_key(uint8_t key[BLOB_KEY_BYTES])
{
    for (unsigned i = 0; i < BLOB_KEY_BYTES; i++)
        key[i] = (uint8_t)(7 * i + 1);
}

static void ping_round_trip_and_padding(void **state)
{
    (void)state;
    uint8_t out[MESSAGE_BYTES_MAX];
    for (size_t pad_to = 0; pad_to <= MESSAGE_BYTES_MAX; pad_to += 13) {
        struct wire_dht_ping ping = {.request_id = UINT64_MAX - pad_to, .pad_to = pad_to}, back;
        size_t used;
        assert_int_equal(wire_dht_encode_ping(&ping, false, out, sizeof out, &used), 0);
        assert_true(used >= 13 && (used <= pad_to || pad_to < 13));
        assert_true(pad_to < 13 || pad_to - used <= 1); /* one length has no exact padding */
        assert_int_equal(wire_dht_decode_ping(out, used, &back), 0);
        assert_true(back.request_id == ping.request_id);
        assert_int_equal(back.pad_to, used);
    }
}

static void find_round_trip(void **state)
{
    (void)state;
    uint8_t out[MESSAGE_BYTES_MAX];
    for (unsigned providers = 0; providers < 2; providers++) {
        struct wire_dht_find find = {.request_id = 42, .nodes_max = 20, .pad_to = 512}, back;
        size_t used;
        unsigned type;
        fill_key(find.key);
        find.topology = topology_of("cn-hangzhou", "cn-hangzhou-b", "vsw-1");
        assert_int_equal(wire_dht_encode_find(&find, providers == 1, out, sizeof out, &used), 0);
        assert_int_equal(used, 512);
        assert_int_equal(wire_type(out, used, &type), 0);
        assert_int_equal(type, providers ? WIRE_DHT_FIND_PROVIDERS : WIRE_DHT_FIND_NODE);
        memset(&back, 0, sizeof back);
        assert_int_equal(wire_dht_decode_find(out, used, &back), 0);
        assert_memory_equal(&back, &find, sizeof find);
    }
}

static void fill_found(struct wire_dht_found *found, size_t topologies, size_t providers,
                       size_t nodes)
{
    memset(found, 0, sizeof *found);
    found->request_id = UINT64_MAX;
    fill_key(found->key);
    found->topology_count = topologies;
    for (size_t i = 0; i < topologies; i++) {
        char zone[32];
        snprintf(zone, sizeof zone, "zone-%zu", i);
        found->topologies[i] = topology_of("r", zone, "");
    }
    found->provider_count = providers;
    for (size_t i = 0; i < providers; i++)
        found->providers[i] = (struct wire_dht_provider){
            .addr = i % 2 ? v4((unsigned)i) : v6((unsigned)i),
            .topology_index = (uint8_t)(i % topologies),
            .completeness = (uint8_t)(255 - i),
        };
    found->node_count = nodes;
    for (size_t i = 0; i < nodes; i++)
        found->nodes[i] = i % 3 ? v4(1000 + (unsigned)i) : v6(100 + (unsigned)i);
}

static size_t found_bytes_bound(const struct wire_dht_found *found)
{
    size_t bytes = WIRE_DHT_FOUND_BYTES;
    for (size_t i = 0; i < found->topology_count; i++)
        bytes += wire_dht_topology_bytes(&found->topologies[i]);
    for (size_t i = 0; i < found->provider_count; i++)
        bytes += wire_dht_provider_bytes(&found->providers[i].addr);
    for (size_t i = 0; i < found->node_count; i++)
        bytes += wire_dht_addr_bytes(&found->nodes[i]);
    return bytes;
}

static void found_round_trip_and_size_bounds_DHT_2(void **state)
{
    (void)state;
    static struct wire_dht_found found, back;
    static uint8_t out[4096];
    for (size_t topologies = 1; topologies <= WIRE_DHT_TOPOLOGIES_MAX; topologies += 3) {
        for (size_t providers = 0; providers <= WIRE_DHT_PROVIDERS_MAX; providers += 6) {
            for (size_t nodes = 0; nodes <= WIRE_DHT_NODES_MAX; nodes += 8) {
                size_t used;
                fill_found(&found, topologies, providers, nodes);
                assert_int_equal(wire_dht_encode_found(&found, out, sizeof out, &used), 0);
                assert_true(used <= found_bytes_bound(&found));
                memset(&back, 0, sizeof back);
                int err = wire_dht_decode_found(out, used, &back);
                assert_int_equal(err, used > MESSAGE_BYTES_MAX ? E_TOO_LARGE : 0);
                if (err == 0)
                    assert_memory_equal(&back, &found, sizeof found);
            }
        }
    }
    fill_found(&found, 1, 0, 0); /* longest labels */
    char longest[LABEL_BYTES_MAX + 1];
    memset(longest, 'x', LABEL_BYTES_MAX);
    longest[LABEL_BYTES_MAX] = '\0';
    found.topologies[0] = topology_of(longest, longest, longest);
    size_t used;
    assert_int_equal(wire_dht_encode_found(&found, out, sizeof out, &used), 0);
    assert_true(used <= found_bytes_bound(&found));
}

static void add_round_trip(void **state)
{
    (void)state;
    uint8_t out[MESSAGE_BYTES_MAX];
    size_t used;
    struct wire_dht_add add = {.request_id = 7,
                               .addr = v6(9),
                               .completeness = 200,
                               .sequence = WIRE_DHT_SEQUENCE_MAX - 1,
                               .ttl_ms = UINT32_MAX};
    struct wire_dht_add back;
    fill_key(add.key);
    add.topology = topology_of("r", "z", "v");
    memset(&back, 0, sizeof back);
    assert_int_equal(wire_dht_encode_add(&add, out, sizeof out, &used), 0);
    assert_int_equal(wire_dht_decode_add(out, used, &back), 0);
    assert_int_equal(back.ttl_ms, add.ttl_ms);
    assert_true(back.sequence == add.sequence && back.request_id == add.request_id);
    assert_int_equal(back.completeness, add.completeness);
    assert_true(peer_addr_equal(&back.addr, &add.addr));
    assert_memory_equal(back.key, add.key, sizeof add.key);
    assert_memory_equal(&back.topology, &add.topology, sizeof add.topology);
}

static void added_round_trip_and_shorter_than_add_DHT_2(void **state)
{
    (void)state;
    uint8_t out[MESSAGE_BYTES_MAX];
    size_t added_bytes, add_bytes;
    struct wire_dht_added added = {.status = WIRE_DHT_STALE, .sequence = WIRE_DHT_SEQUENCE_MAX - 1};
    struct wire_dht_added back;
    struct wire_dht_add smallest = {.addr = v4(1)};
    fill_key(added.key);
    assert_int_equal(wire_dht_encode_added(&added, out, sizeof out, &added_bytes), 0);
    assert_int_equal(wire_dht_decode_added(out, added_bytes, &back), 0);
    assert_int_equal(back.status, WIRE_DHT_STALE);
    assert_true(back.sequence == added.sequence);
    assert_memory_equal(back.key, added.key, sizeof added.key);
    assert_int_equal(wire_dht_encode_add(&smallest, out, sizeof out, &add_bytes), 0);
    assert_true(added_bytes < add_bytes);
}

static void encoders_report_a_short_buffer(void **state)
{
    (void)state;
    static struct wire_dht_found found;
    struct wire_dht_ping ping = {.request_id = 1};
    struct wire_dht_find find = {.request_id = 1};
    struct wire_dht_add add = {.addr = v4(1)};
    struct wire_dht_added added = {.request_id = 1};
    uint8_t out[8];
    size_t used = 99;
    fill_found(&found, 1, 1, 1);
    assert_int_equal(wire_dht_encode_ping(&ping, true, out, 3, &used), E_TOO_LARGE);
    assert_int_equal(wire_dht_encode_find(&find, true, out, sizeof out, &used), E_TOO_LARGE);
    assert_int_equal(wire_dht_encode_found(&found, out, sizeof out, &used), E_TOO_LARGE);
    assert_int_equal(wire_dht_encode_add(&add, out, sizeof out, &used), E_TOO_LARGE);
    assert_int_equal(wire_dht_encode_added(&added, out, sizeof out, &used), E_TOO_LARGE);
    assert_int_equal(used, 99);
}

/* Every decoder on every prefix of every message: an error, never a wrong success. */
static int decode_any(const uint8_t *msg, size_t msg_bytes)
{
    static struct wire_dht_found found;
    struct wire_dht_ping ping;
    struct wire_dht_find find;
    struct wire_dht_add add;
    struct wire_dht_added added;
    int good = 0;
    good += wire_dht_decode_ping(msg, msg_bytes, &ping) == 0;
    good += wire_dht_decode_find(msg, msg_bytes, &find) == 0;
    good += wire_dht_decode_found(msg, msg_bytes, &found) == 0;
    good += wire_dht_decode_add(msg, msg_bytes, &add) == 0;
    good += wire_dht_decode_added(msg, msg_bytes, &added) == 0;
    return good;
}

static void decoders_refuse_prefixes_and_other_types(void **state)
{
    (void)state;
    static struct wire_dht_found found;
    uint8_t out[5][MESSAGE_BYTES_MAX];
    size_t used[5];
    struct wire_dht_ping ping = {.request_id = 1, .pad_to = 40};
    struct wire_dht_find find = {.request_id = 1, .pad_to = 90};
    struct wire_dht_add add = {.addr = v4(1)};
    struct wire_dht_added added = {.request_id = 1};
    fill_found(&found, 2, 3, 3);
    assert_int_equal(wire_dht_encode_ping(&ping, true, out[0], sizeof out[0], &used[0]), 0);
    assert_int_equal(wire_dht_encode_find(&find, true, out[1], sizeof out[1], &used[1]), 0);
    assert_int_equal(wire_dht_encode_found(&found, out[2], sizeof out[2], &used[2]), 0);
    assert_int_equal(wire_dht_encode_add(&add, out[3], sizeof out[3], &used[3]), 0);
    assert_int_equal(wire_dht_encode_added(&added, out[4], sizeof out[4], &used[4]), 0);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(decode_any(out[i], used[i]), 1); /* its own decoder alone takes it */
        for (size_t bytes = 0; bytes < used[i]; bytes++)
            assert_int_equal(decode_any(out[i], bytes), 0);
    }
    uint8_t large[MESSAGE_BYTES_MAX + 1] = {0};
    assert_int_equal(wire_dht_decode_ping(large, sizeof large, &ping), E_TOO_LARGE);
}

/* Writes the fields of a FOUND up to the providers. */
static void begin_found(struct wire_writer *writer, uint8_t *out, size_t capacity, uint32_t fields)
{
    uint8_t key[BLOB_KEY_BYTES];
    struct topology topology = topology_of("r", "z", "v");
    fill_key(key);
    wire_writer_begin(writer, out, capacity, WIRE_DHT_FOUND, fields);
    wire_put_uint(writer, 5);
    wire_put_bytes(writer, key, sizeof key);
    wire_put_array(writer, 1);
    wire_put_topology(writer, &topology);
}

static void found_of_a_newer_peer_is_understood(void **state)
{
    (void)state;
    static struct wire_dht_found found;
    uint8_t out[MESSAGE_BYTES_MAX];
    struct wire_writer writer;
    struct peer_addr addr = v4(3);
    size_t used;
    begin_found(&writer, out, sizeof out, 6);
    wire_put_array(&writer, 1);
    wire_put_array(&writer, 5); /* provider with two values more */
    wire_put_addr(&writer, &addr);
    wire_put_uint(&writer, 0);
    wire_put_uint(&writer, 255);
    wire_put_text(&writer, "new");
    wire_put_array(&writer, 0);
    wire_put_array(&writer, 0);
    wire_put_text(&writer, "a field we do not know");
    assert_int_equal(wire_writer_end(&writer, &used), 0);
    assert_int_equal(wire_dht_decode_found(out, used, &found), 0);
    assert_int_equal(found.provider_count, 1);
    assert_int_equal(found.providers[0].completeness, 255);
}

static int decode_with_provider(uint32_t values, uint64_t index, uint64_t completeness)
{
    static struct wire_dht_found found;
    uint8_t out[MESSAGE_BYTES_MAX];
    struct wire_writer writer;
    struct peer_addr addr = v4(3);
    size_t used;
    begin_found(&writer, out, sizeof out, 5);
    wire_put_array(&writer, 1);
    wire_put_array(&writer, values);
    if (values > 0)
        wire_put_addr(&writer, &addr);
    if (values > 1)
        wire_put_uint(&writer, index);
    if (values > 2)
        wire_put_uint(&writer, completeness);
    wire_put_array(&writer, 0);
    assert_int_equal(wire_writer_end(&writer, &used), 0);
    return wire_dht_decode_found(out, used, &found);
}

static void found_with_bad_providers_is_refused(void **state)
{
    (void)state;
    assert_int_equal(decode_with_provider(3, 0, 255), 0);
    assert_int_equal(decode_with_provider(3, 1, 255), E_MALFORMED); /* one topology only */
    assert_int_equal(decode_with_provider(3, WIRE_DHT_TOPOLOGIES_MAX, 255), E_TOO_LARGE);
    assert_int_equal(decode_with_provider(3, 0, 256), E_TOO_LARGE);
    assert_int_not_equal(decode_with_provider(2, 0, 0), 0);
    assert_int_not_equal(decode_with_provider(0, 0, 0), 0);
}

static void counts_above_the_maximum_are_refused(void **state)
{
    (void)state;
    static struct wire_dht_found found;
    uint8_t out[2 * MESSAGE_BYTES_MAX];
    struct wire_writer writer;
    struct peer_addr addr = v4(3);
    size_t used;
    begin_found(&writer, out, sizeof out, 5);
    wire_put_array(&writer, 0);
    wire_put_array(&writer, WIRE_DHT_NODES_MAX + 1);
    for (unsigned i = 0; i <= WIRE_DHT_NODES_MAX; i++)
        wire_put_addr(&writer, &addr);
    assert_int_equal(wire_writer_end(&writer, &used), 0);
    assert_int_equal(wire_dht_decode_found(out, used, &found), E_TOO_LARGE);

    struct wire_dht_find find = {.request_id = 1};
    uint8_t key[BLOB_KEY_BYTES] = {0};
    wire_writer_begin(&writer, out, sizeof out, WIRE_DHT_FIND_NODE, 5);
    wire_put_uint(&writer, 1);
    wire_put_bytes(&writer, key, sizeof key);
    wire_put_uint(&writer, WIRE_DHT_NODES_MAX + 1);
    wire_put_topology(&writer, &find.topology);
    wire_put_bytes(&writer, key, 0);
    assert_int_equal(wire_writer_end(&writer, &used), 0);
    assert_int_equal(wire_dht_decode_find(out, used, &find), E_TOO_LARGE);

    struct wire_dht_added added;
    wire_writer_begin(&writer, out, sizeof out, WIRE_DHT_ADDED, 4);
    wire_put_uint(&writer, 1);
    wire_put_bytes(&writer, key, sizeof key);
    wire_put_uint(&writer, WIRE_DHT_STALE);
    wire_put_uint(&writer, WIRE_DHT_SEQUENCE_MAX);
    assert_int_equal(wire_writer_end(&writer, &used), 0);
    assert_int_equal(wire_dht_decode_added(out, used, &added), E_TOO_LARGE); /* DHT-7 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ping_round_trip_and_padding),
        cmocka_unit_test(find_round_trip),
        cmocka_unit_test(found_round_trip_and_size_bounds_DHT_2),
        cmocka_unit_test(add_round_trip),
        cmocka_unit_test(added_round_trip_and_shorter_than_add_DHT_2),
        cmocka_unit_test(encoders_report_a_short_buffer),
        cmocka_unit_test(decoders_refuse_prefixes_and_other_types),
        cmocka_unit_test(found_of_a_newer_peer_is_understood),
        cmocka_unit_test(found_with_bad_providers_is_refused),
        cmocka_unit_test(counts_above_the_maximum_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
