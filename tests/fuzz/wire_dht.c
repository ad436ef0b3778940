/* SPDX-License-Identifier: Apache-2.0 */
/* The DHT's decoders on any bytes: what one accepts can be encoded, and decodes to the same again.
 * Bounds that answers are cut by must hold for whatever was decoded (DHT-2). */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "bytes.h"
#include "log.h"
#include "wire_dht.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t out[4096], again[4096];

static void check_ping(const uint8_t *data, size_t size)
{
    struct wire_dht_ping ping, back;
    size_t used;
    if (wire_dht_decode_ping(data, size, &ping) != 0)
        return;
    int err = wire_dht_encode_ping(&ping, size % 2 == 0, out, sizeof out, &used);
    ASSERT(err == 0);
    ASSERT(used <= ping.pad_to || used < 16);
    err = wire_dht_decode_ping(out, used, &back);
    ASSERT(err == 0 && back.request_id == ping.request_id);
}

static void check_find(const uint8_t *data, size_t size)
{
    struct wire_dht_find find, back;
    size_t used;
    memset(&find, 0, sizeof find);
    memset(&back, 0, sizeof back);
    if (wire_dht_decode_find(data, size, &find) != 0)
        return;
    ASSERT(find.nodes_max <= WIRE_DHT_NODES_MAX);
    int err = wire_dht_encode_find(&find, true, out, sizeof out, &used);
    ASSERT(err == 0);
    if (used > MESSAGE_BYTES_MAX)
        return;
    err = wire_dht_decode_find(out, used, &back);
    ASSERT(err == 0);
    back.pad_to = find.pad_to; /* one length in a thousand has no exact padding */
    ASSERT(memcmp(&find, &back, sizeof find) == 0);
}

static void check_found(const uint8_t *data, size_t size)
{
    static struct wire_dht_found found, back;
    size_t used, used_again, bound = WIRE_DHT_FOUND_BYTES;
    if (wire_dht_decode_found(data, size, &found) != 0)
        return;
    int err = wire_dht_encode_found(&found, out, sizeof out, &used);
    ASSERT(err == 0);
    for (size_t i = 0; i < found.topology_count; i++)
        bound += wire_dht_topology_bytes(&found.topologies[i]);
    for (size_t i = 0; i < found.provider_count; i++)
        bound += wire_dht_provider_bytes(&found.providers[i].addr);
    for (size_t i = 0; i < found.node_count; i++)
        bound += wire_dht_addr_bytes(&found.nodes[i]);
    ASSERT(used <= bound);
    if (used > MESSAGE_BYTES_MAX)
        return;
    err = wire_dht_decode_found(out, used, &back);
    ASSERT(err == 0);
    err = wire_dht_encode_found(&back, again, sizeof again, &used_again);
    ASSERT(err == 0);
    ASSERT(used == used_again && memcmp(out, again, used) == 0);
}

static void check_add(const uint8_t *data, size_t size)
{
    struct wire_dht_add add, back;
    struct wire_dht_added added = {.status = WIRE_DHT_STALE, .sequence = WIRE_DHT_SEQUENCE_MAX - 1};
    size_t used, used_again;
    if (wire_dht_decode_add(data, size, &add) != 0)
        return;
    int err = wire_dht_encode_add(&add, out, sizeof out, &used);
    ASSERT(err == 0);
    err = wire_dht_decode_add(out, used, &back);
    ASSERT(err == 0);
    err = wire_dht_encode_add(&back, again, sizeof again, &used_again);
    ASSERT(err == 0);
    ASSERT(used == used_again && memcmp(out, again, used) == 0);
    added.request_id = add.request_id;
    err = wire_dht_encode_added(&added, out, sizeof out, &used);
    ASSERT(err == 0);
    ASSERT(used < size); /* the answer is always shorter */
}

static void check_added(const uint8_t *data, size_t size)
{
    struct wire_dht_added added, back;
    size_t used;
    if (wire_dht_decode_added(data, size, &added) != 0)
        return;
    int err = wire_dht_encode_added(&added, out, sizeof out, &used);
    ASSERT(err == 0);
    err = wire_dht_decode_added(out, used, &back);
    ASSERT(err == 0);
    ASSERT(back.request_id == added.request_id && back.sequence == added.sequence);
    ASSERT(back.status == added.status && memcmp(back.key, added.key, sizeof back.key) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_ping(data, size);
    check_find(data, size);
    check_found(data, size);
    check_add(data, size);
    check_added(data, size);
    return 0;
}
