/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MessagePack form of the DHT's messages. Owns field order and limits; what the fields mean is in
 * include/wire_dht.h and src/dht. Fields of newer senders come after ours and are skipped.
 */
#include "wire_dht.h"

#include <string.h>

#include "bytes.h"
#include "log.h"

static const uint8_t zeros[MESSAGE_BYTES_MAX];

/* Last field of a padded message: zeros, so that the whole comes to pad_to bytes where it can. */
static void put_padding(struct wire_writer *writer, size_t pad_to)
{
    size_t left = pad_to > writer->used ? pad_to - writer->used : 0;
    /* bin8 has a header of 2 bytes, bin16 of 3; an empty one is sent when there is no room. */
    size_t padding = left < 2 ? 0 : left - 2;
    if (padding > UINT8_MAX)
        padding--;
    ASSERT(padding <= sizeof zeros);
    wire_put_bytes(writer, zeros, padding);
}

static void get_padding(struct wire_reader *reader)
{
    size_t padding;
    (void)wire_get_bytes(reader, MESSAGE_BYTES_MAX, &padding);
}

/* Opens a message that must be of type `first` or `second`. */
static int begin(struct wire_reader *reader, const uint8_t *msg, size_t msg_bytes, unsigned first,
                 unsigned second)
{
    unsigned type = 0;
    if (msg_bytes > MESSAGE_BYTES_MAX)
        return E_TOO_LARGE;
    int err = wire_reader_begin(reader, msg, msg_bytes, &type);
    if (err != 0)
        return err;
    return type == first || type == second ? 0 : E_MALFORMED;
}

int wire_dht_encode_ping(const struct wire_dht_ping *message, bool pong, uint8_t *out,
                         size_t capacity, size_t *used)
{
    struct wire_writer writer;
    wire_writer_begin(&writer, out, capacity, pong ? WIRE_DHT_PONG : WIRE_DHT_PING, 2);
    wire_put_uint(&writer, message->request_id);
    put_padding(&writer, message->pad_to);
    return wire_writer_end(&writer, used);
}

int wire_dht_decode_ping(const uint8_t *msg, size_t msg_bytes, struct wire_dht_ping *out)
{
    struct wire_reader reader;
    int err = begin(&reader, msg, msg_bytes, WIRE_DHT_PING, WIRE_DHT_PONG);
    if (err != 0)
        return err;
    out->request_id = wire_get_uint(&reader, UINT64_MAX);
    get_padding(&reader);
    out->pad_to = msg_bytes;
    return wire_reader_end(&reader);
}

int wire_dht_encode_find(const struct wire_dht_find *message, bool providers, uint8_t *out,
                         size_t capacity, size_t *used)
{
    ASSERT(message->nodes_max <= WIRE_DHT_NODES_MAX);
    struct wire_writer writer;
    unsigned type = providers ? WIRE_DHT_FIND_PROVIDERS : WIRE_DHT_FIND_NODE;
    wire_writer_begin(&writer, out, capacity, type, 5);
    wire_put_uint(&writer, message->request_id);
    wire_put_bytes(&writer, message->key, sizeof message->key);
    wire_put_uint(&writer, message->nodes_max);
    wire_put_topology(&writer, &message->topology);
    put_padding(&writer, message->pad_to);
    return wire_writer_end(&writer, used);
}

int wire_dht_decode_find(const uint8_t *msg, size_t msg_bytes, struct wire_dht_find *out)
{
    struct wire_reader reader;
    int err = begin(&reader, msg, msg_bytes, WIRE_DHT_FIND_NODE, WIRE_DHT_FIND_PROVIDERS);
    if (err != 0)
        return err;
    out->request_id = wire_get_uint(&reader, UINT64_MAX);
    wire_get_fixed(&reader, out->key, sizeof out->key);
    out->nodes_max = (uint8_t)wire_get_uint(&reader, WIRE_DHT_NODES_MAX);
    wire_get_topology(&reader, &out->topology);
    get_padding(&reader);
    out->pad_to = msg_bytes;
    return wire_reader_end(&reader);
}

static void put_provider(struct wire_writer *writer, const struct wire_dht_provider *provider)
{
    wire_put_array(writer, 3);
    wire_put_addr(writer, &provider->addr);
    wire_put_uint(writer, provider->topology_index);
    wire_put_uint(writer, provider->completeness);
}

int wire_dht_encode_found(const struct wire_dht_found *message, uint8_t *out, size_t capacity,
                          size_t *used)
{
    ASSERT(message->topology_count <= WIRE_DHT_TOPOLOGIES_MAX);
    ASSERT(message->provider_count <= WIRE_DHT_PROVIDERS_MAX);
    ASSERT(message->node_count <= WIRE_DHT_NODES_MAX);
    struct wire_writer writer;
    wire_writer_begin(&writer, out, capacity, WIRE_DHT_FOUND, 5);
    wire_put_uint(&writer, message->request_id);
    wire_put_bytes(&writer, message->key, sizeof message->key);
    wire_put_array(&writer, (uint32_t)message->topology_count);
    for (size_t i = 0; i < message->topology_count; i++)
        wire_put_topology(&writer, &message->topologies[i]);
    wire_put_array(&writer, (uint32_t)message->provider_count);
    for (size_t i = 0; i < message->provider_count; i++) {
        ASSERT(message->providers[i].topology_index < message->topology_count);
        put_provider(&writer, &message->providers[i]);
    }
    wire_put_array(&writer, (uint32_t)message->node_count);
    for (size_t i = 0; i < message->node_count; i++)
        wire_put_addr(&writer, &message->nodes[i]);
    return wire_writer_end(&writer, used);
}

/* One provider; an element of a newer sender may have more values than three. */
static int get_provider(struct wire_reader *reader, size_t topology_count,
                        struct wire_dht_provider *out)
{
    uint32_t values = wire_get_array(reader, MESSAGE_COUNT_MAX);
    wire_get_addr(reader, &out->addr);
    out->topology_index = (uint8_t)wire_get_uint(reader, WIRE_DHT_TOPOLOGIES_MAX - 1);
    out->completeness = (uint8_t)wire_get_uint(reader, UINT8_MAX);
    for (uint32_t i = 3; i < values; i++)
        wire_skip(reader);
    if (wire_reader_end(reader) != 0)
        return wire_reader_end(reader);
    return values >= 3 && out->topology_index < topology_count ? 0 : E_MALFORMED;
}

int wire_dht_decode_found(const uint8_t *msg, size_t msg_bytes, struct wire_dht_found *out)
{
    struct wire_reader reader;
    int err = begin(&reader, msg, msg_bytes, WIRE_DHT_FOUND, WIRE_DHT_FOUND);
    if (err != 0)
        return err;
    out->request_id = wire_get_uint(&reader, UINT64_MAX);
    wire_get_fixed(&reader, out->key, sizeof out->key);
    out->topology_count = wire_get_array(&reader, WIRE_DHT_TOPOLOGIES_MAX);
    for (size_t i = 0; i < out->topology_count; i++)
        wire_get_topology(&reader, &out->topologies[i]);
    out->provider_count = wire_get_array(&reader, WIRE_DHT_PROVIDERS_MAX);
    for (size_t i = 0; i < out->provider_count; i++) {
        err = get_provider(&reader, out->topology_count, &out->providers[i]);
        if (err != 0)
            return err;
    }
    out->node_count = wire_get_array(&reader, WIRE_DHT_NODES_MAX);
    for (size_t i = 0; i < out->node_count; i++)
        wire_get_addr(&reader, &out->nodes[i]);
    return wire_reader_end(&reader);
}

int wire_dht_encode_add(const struct wire_dht_add *message, uint8_t *out, size_t capacity,
                        size_t *used)
{
    ASSERT(message->sequence < WIRE_DHT_SEQUENCE_MAX);
    struct wire_writer writer;
    wire_writer_begin(&writer, out, capacity, WIRE_DHT_ADD_PROVIDER, 7);
    wire_put_uint(&writer, message->request_id);
    wire_put_bytes(&writer, message->key, sizeof message->key);
    wire_put_addr(&writer, &message->addr);
    wire_put_topology(&writer, &message->topology);
    wire_put_uint(&writer, message->completeness);
    wire_put_uint(&writer, message->sequence);
    wire_put_uint(&writer, message->ttl_ms);
    return wire_writer_end(&writer, used);
}

int wire_dht_decode_add(const uint8_t *msg, size_t msg_bytes, struct wire_dht_add *out)
{
    struct wire_reader reader;
    int err = begin(&reader, msg, msg_bytes, WIRE_DHT_ADD_PROVIDER, WIRE_DHT_ADD_PROVIDER);
    if (err != 0)
        return err;
    out->request_id = wire_get_uint(&reader, UINT64_MAX);
    wire_get_fixed(&reader, out->key, sizeof out->key);
    wire_get_addr(&reader, &out->addr);
    wire_get_topology(&reader, &out->topology);
    out->completeness = (uint8_t)wire_get_uint(&reader, UINT8_MAX);
    out->sequence = wire_get_uint(&reader, WIRE_DHT_SEQUENCE_MAX - 1);
    out->ttl_ms = (uint32_t)wire_get_uint(&reader, UINT32_MAX);
    return wire_reader_end(&reader);
}

int wire_dht_encode_added(const struct wire_dht_added *message, uint8_t *out, size_t capacity,
                          size_t *used)
{
    ASSERT(message->sequence < WIRE_DHT_SEQUENCE_MAX);
    struct wire_writer writer;
    wire_writer_begin(&writer, out, capacity, WIRE_DHT_ADDED, 4);
    wire_put_uint(&writer, message->request_id);
    wire_put_bytes(&writer, message->key, sizeof message->key);
    wire_put_uint(&writer, message->status);
    wire_put_uint(&writer, message->sequence);
    return wire_writer_end(&writer, used);
}

int wire_dht_decode_added(const uint8_t *msg, size_t msg_bytes, struct wire_dht_added *out)
{
    struct wire_reader reader;
    int err = begin(&reader, msg, msg_bytes, WIRE_DHT_ADDED, WIRE_DHT_ADDED);
    if (err != 0)
        return err;
    out->request_id = wire_get_uint(&reader, UINT64_MAX);
    wire_get_fixed(&reader, out->key, sizeof out->key);
    out->status = (uint8_t)wire_get_uint(&reader, UINT8_MAX);
    out->sequence = wire_get_uint(&reader, WIRE_DHT_SEQUENCE_MAX - 1);
    return wire_reader_end(&reader);
}

size_t wire_dht_addr_bytes(const struct peer_addr *addr)
{
    return peer_addr_is_v4(addr) ? 2 + 6 : 2 + 18;
}

size_t wire_dht_topology_bytes(const struct topology *topology)
{
    /* Array header, and up to two bytes before each label. */
    return 1 + 3 * 2 + strlen(topology->region.text) + strlen(topology->zone.text) +
           strlen(topology->vswitch.text);
}

size_t wire_dht_provider_bytes(const struct peer_addr *addr)
{
    return 1 + wire_dht_addr_bytes(addr) + 1 + 2;
}
