/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encoding and decoding of gossip messages. Owns the order of fields and what a well-formed message
 * is; what the members, claims and summaries mean is src/gossip's.
 */
#include "wire_gossip.h"

#include <string.h>

#include "bytes.h"
#include "log.h"
#include "topology.h"

static_assert(WIRE_GOSSIP_SYNC_RECORDS <= WIRE_GOSSIP_LAST, "types stay inside gossip's range");
static_assert(WIRE_GOSSIP_SUMMARIES_MAX * 3 <= MESSAGE_COUNT_MAX, "summaries are three values");

/* Values of one record and the least number of values of one claim. */
#define RECORD_FIELDS 10
#define CLAIM_FIELDS  4

bool wire_gossip_leaf_get(const uint8_t leaves[WIRE_GOSSIP_LEAF_BYTES], unsigned leaf)
{
    ASSERT(leaf < WIRE_GOSSIP_LEAVES);
    return (leaves[leaf / 8] >> (leaf % 8) & 1) != 0;
}

void wire_gossip_leaf_set(uint8_t leaves[WIRE_GOSSIP_LEAF_BYTES], unsigned leaf)
{
    ASSERT(leaf < WIRE_GOSSIP_LEAVES);
    leaves[leaf / 8] = (uint8_t)(leaves[leaf / 8] | 1u << (leaf % 8));
}

/* ---- sizes ---- */

static size_t uint_bytes(uint64_t value)
{
    if (value < 0x80)
        return 1;
    if (value <= UINT8_MAX)
        return 2;
    if (value <= UINT16_MAX)
        return 3;
    return value <= UINT32_MAX ? 5 : 9;
}

static size_t addr_bytes(const struct peer_addr *addr)
{
    return peer_addr_is_v4(addr) ? 8 : 20;
}

size_t wire_gossip_record_bytes(const struct wire_gossip_record *record)
{
    return 1 + addr_bytes(&record->addr) + 2 + IDENTITY_KEY_BYTES + 3 +
           uint_bytes(record->incarnation) + uint_bytes(record->state) +
           uint_bytes(record->capacity_class) + uint_bytes(record->load) +
           uint_bytes(record->version_minor);
}

size_t wire_gossip_claim_bytes(const struct wire_gossip_claim *claim)
{
    size_t bytes = 3 + addr_bytes(&claim->addr) + uint_bytes(claim->incarnation);
    for (unsigned i = 0; i < claim->accuser_count; i++)
        bytes += addr_bytes(&claim->accusers[i]);
    return bytes;
}

size_t wire_gossip_label_bytes(const struct label *label)
{
    size_t text_bytes = strlen(label->text);
    return text_bytes + (text_bytes < 32 ? 1 : 2);
}

size_t wire_gossip_summary_bytes(const struct wire_gossip_summary *summary)
{
    return uint_bytes(summary->id_prefix) + uint_bytes(summary->incarnation) + 1;
}

/* ---- encoding ---- */

static void put_record(struct wire_writer *writer, const struct wire_gossip_record *record)
{
    wire_put_array(writer, RECORD_FIELDS);
    wire_put_addr(writer, &record->addr);
    wire_put_bytes(writer, record->key.bytes, IDENTITY_KEY_BYTES);
    wire_put_uint(writer, record->region_index);
    wire_put_uint(writer, record->zone_index);
    wire_put_uint(writer, record->vswitch_index);
    wire_put_uint(writer, record->incarnation);
    wire_put_uint(writer, record->state);
    wire_put_uint(writer, record->capacity_class);
    wire_put_uint(writer, record->load);
    wire_put_uint(writer, record->version_minor);
}

static void put_claim(struct wire_writer *writer, const struct wire_gossip_claim *claim)
{
    ASSERT(claim->accuser_count <= WIRE_GOSSIP_ACCUSERS_MAX);
    wire_put_array(writer, CLAIM_FIELDS);
    wire_put_addr(writer, &claim->addr);
    wire_put_uint(writer, claim->incarnation);
    wire_put_uint(writer, claim->state);
    wire_put_array(writer, claim->accuser_count);
    for (unsigned i = 0; i < claim->accuser_count; i++)
        wire_put_addr(writer, &claim->accusers[i]);
}

static void put_news(struct wire_writer *writer, const struct wire_gossip_news *news)
{
    ASSERT(news->label_count <= WIRE_GOSSIP_LABELS_MAX);
    ASSERT(news->record_count <= WIRE_GOSSIP_RECORDS_MAX);
    ASSERT(news->claim_count <= WIRE_GOSSIP_CLAIMS_MAX);
    wire_put_array(writer, news->label_count);
    for (unsigned i = 0; i < news->label_count; i++)
        wire_put_text(writer, news->labels[i].text);
    wire_put_array(writer, news->record_count);
    for (unsigned i = 0; i < news->record_count; i++)
        put_record(writer, &news->records[i]);
    wire_put_array(writer, news->claim_count);
    for (unsigned i = 0; i < news->claim_count; i++)
        put_claim(writer, &news->claims[i]);
}

static void put_ranges(struct wire_writer *writer, const struct wire_gossip *message)
{
    uint8_t bytes[WIRE_GOSSIP_LEAVES * 4];
    for (unsigned i = 0; i < WIRE_GOSSIP_LEAVES; i++)
        store_be32(bytes + 4 * (size_t)i, message->ranges[i]);
    wire_put_bytes(writer, bytes, sizeof bytes);
}

/* Counts go out for the leaves in the set only, in order. */
static void put_diff(struct wire_writer *writer, const struct wire_gossip *message)
{
    uint8_t counts[WIRE_GOSSIP_LEAVES];
    size_t count = 0;
    for (unsigned i = 0; i < WIRE_GOSSIP_LEAVES; i++) {
        if (wire_gossip_leaf_get(message->leaves, i))
            counts[count++] = message->counts[i];
    }
    wire_put_bytes(writer, message->leaves, sizeof message->leaves);
    wire_put_bytes(writer, counts, count);
}

static void put_page(struct wire_writer *writer, const struct wire_gossip *message)
{
    ASSERT(message->summary_count <= WIRE_GOSSIP_SUMMARIES_MAX);
    wire_put_bytes(writer, message->leaves, sizeof message->leaves);
    wire_put_array(writer, 3u * message->summary_count);
    for (unsigned i = 0; i < message->summary_count; i++) {
        wire_put_uint(writer, message->summaries[i].id_prefix);
        wire_put_uint(writer, message->summaries[i].incarnation);
        wire_put_uint(writer, message->summaries[i].state);
    }
}

static void put_records(struct wire_writer *writer, const struct wire_gossip *message)
{
    ASSERT(message->want_count <= WIRE_GOSSIP_WANTS_MAX);
    wire_put_bool(writer, message->more);
    wire_put_array(writer, message->want_count);
    for (unsigned i = 0; i < message->want_count; i++)
        wire_put_uint(writer, message->wants[i]);
    put_news(writer, &message->news);
}

/* Fields after the head, by type; news counts as three. */
static uint32_t field_count(enum wire_gossip_type type)
{
    switch (type) {
    case WIRE_GOSSIP_NEWS:
        return 3;
    case WIRE_GOSSIP_PING:
    case WIRE_GOSSIP_ACK:
        return 4;
    case WIRE_GOSSIP_PING_REQ:
    case WIRE_GOSSIP_RELAYED:
    case WIRE_GOSSIP_SYNC_DIGEST:
        return 1;
    case WIRE_GOSSIP_SYNC_CHECK:
    case WIRE_GOSSIP_SYNC_STATE:
        return 5;
    case WIRE_GOSSIP_SYNC_DIFF:
    case WIRE_GOSSIP_SYNC_PAGE:
        return 2;
    case WIRE_GOSSIP_SYNC_RECORDS:
        return 5;
    default:
        ASSERT(false); /* a gossip type */
        return 0;
    }
}

static void put_fields(struct wire_writer *writer, const struct wire_gossip *message)
{
    switch (message->type) {
    case WIRE_GOSSIP_PING:
    case WIRE_GOSSIP_ACK:
        wire_put_uint(writer, message->view_check);
        put_news(writer, &message->news);
        break;
    case WIRE_GOSSIP_NEWS:
        put_news(writer, &message->news);
        break;
    case WIRE_GOSSIP_PING_REQ:
        wire_put_addr(writer, &message->target);
        break;
    case WIRE_GOSSIP_RELAYED:
        wire_put_bool(writer, message->answered);
        break;
    case WIRE_GOSSIP_SYNC_CHECK:
    case WIRE_GOSSIP_SYNC_STATE:
        wire_put_uint(writer, message->view_hash);
        wire_put_uint(writer, message->view_count);
        put_news(writer, &message->news);
        break;
    case WIRE_GOSSIP_SYNC_DIGEST:
        put_ranges(writer, message);
        break;
    case WIRE_GOSSIP_SYNC_DIFF:
        put_diff(writer, message);
        break;
    case WIRE_GOSSIP_SYNC_PAGE:
        put_page(writer, message);
        break;
    case WIRE_GOSSIP_SYNC_RECORDS:
        put_records(writer, message);
        break;
    default:
        break;
    }
}

static const uint8_t zeros[MESSAGE_BYTES_MAX];

int wire_gossip_encode(const struct wire_gossip *message, size_t pad_to, uint8_t *out,
                       size_t capacity, size_t *used)
{
    ASSERT(pad_to <= MESSAGE_BYTES_MAX);
    bool pads = pad_to > 0;
    struct wire_writer writer;
    wire_writer_begin(&writer, out, capacity, message->type,
                      3 + field_count(message->type) + (pads ? 1 : 0));
    wire_put_uint(&writer, message->seq);
    wire_put_uint(&writer, message->known_incarnation);
    wire_put_uint(&writer, message->known_state);
    put_fields(&writer, message);
    if (pads) { /* 3: the longest header of the padding itself */
        size_t padding = writer.used + 3 < pad_to ? pad_to - writer.used - 3 : 0;
        wire_put_bytes(&writer, zeros, padding);
    }
    return wire_writer_end(&writer, used);
}

/* ---- decoding ---- */

static void fail(struct wire_reader *reader)
{
    if (reader->err == 0)
        reader->err = E_MALFORMED;
}

/* Skips values of an array that newer senders have added after the `known` ones. */
static void skip_rest(struct wire_reader *reader, uint32_t count, uint32_t known)
{
    for (uint32_t i = known; i < count; i++)
        wire_skip(reader);
}

static void get_record(struct wire_reader *reader, struct wire_gossip_record *out, uint8_t labels)
{
    uint32_t count = wire_get_array(reader, MESSAGE_COUNT_MAX);
    if (count < RECORD_FIELDS)
        fail(reader);
    wire_get_addr(reader, &out->addr);
    wire_get_fixed(reader, out->key.bytes, IDENTITY_KEY_BYTES);
    out->region_index = (uint8_t)wire_get_uint(reader, labels);
    out->zone_index = (uint8_t)wire_get_uint(reader, labels);
    out->vswitch_index = (uint8_t)wire_get_uint(reader, labels);
    out->incarnation = wire_get_uint(reader, UINT64_MAX);
    out->state = (enum member_state)wire_get_uint(reader, MEMBER_LEFT);
    out->capacity_class = (uint8_t)wire_get_uint(reader, UINT8_MAX);
    out->load = (uint8_t)wire_get_uint(reader, UINT8_MAX);
    out->version_minor = (uint16_t)wire_get_uint(reader, UINT16_MAX);
    skip_rest(reader, count, RECORD_FIELDS);
    if (out->state != MEMBER_ALIVE && out->state != MEMBER_LEAVING && out->state != MEMBER_LEFT)
        fail(reader);
}

static void get_claim(struct wire_reader *reader, struct wire_gossip_claim *out)
{
    uint32_t count = wire_get_array(reader, MESSAGE_COUNT_MAX);
    if (count < CLAIM_FIELDS)
        fail(reader);
    wire_get_addr(reader, &out->addr);
    out->incarnation = wire_get_uint(reader, UINT64_MAX);
    out->state = (enum member_state)wire_get_uint(reader, MEMBER_LEFT);
    out->accuser_count = (uint8_t)wire_get_array(reader, WIRE_GOSSIP_ACCUSERS_MAX);
    for (unsigned i = 0; i < out->accuser_count; i++)
        wire_get_addr(reader, &out->accusers[i]);
    skip_rest(reader, count, CLAIM_FIELDS);
    if (out->state != MEMBER_SUSPECT && out->state != MEMBER_DEAD)
        fail(reader);
}

static void get_label(struct wire_reader *reader, struct label *out)
{
    char text[LABEL_BYTES_MAX + 1];
    wire_get_text(reader, text, sizeof text);
    if (reader->err == 0 && label_set(out, text, strlen(text)) != 0)
        fail(reader);
}

/* Counts are kept inside the arrays also when the reader has failed: it then gives zeros. */
static void get_news(struct wire_reader *reader, struct wire_gossip_news *out)
{
    out->label_count = (uint8_t)wire_get_array(reader, WIRE_GOSSIP_LABELS_MAX);
    for (unsigned i = 0; i < out->label_count && reader->err == 0; i++)
        get_label(reader, &out->labels[i]);
    out->record_count = (uint8_t)wire_get_array(reader, WIRE_GOSSIP_RECORDS_MAX);
    for (unsigned i = 0; i < out->record_count && reader->err == 0; i++)
        get_record(reader, &out->records[i], out->label_count);
    out->claim_count = (uint8_t)wire_get_array(reader, WIRE_GOSSIP_CLAIMS_MAX);
    for (unsigned i = 0; i < out->claim_count && reader->err == 0; i++)
        get_claim(reader, &out->claims[i]);
}

static void get_ranges(struct wire_reader *reader, struct wire_gossip *out)
{
    uint8_t bytes[WIRE_GOSSIP_LEAVES * 4];
    wire_get_fixed(reader, bytes, sizeof bytes);
    for (unsigned i = 0; i < WIRE_GOSSIP_LEAVES; i++)
        out->ranges[i] = load_be32(bytes + 4 * (size_t)i);
}

static void get_diff(struct wire_reader *reader, struct wire_gossip *out)
{
    wire_get_fixed(reader, out->leaves, sizeof out->leaves);
    size_t count, next = 0;
    const uint8_t *counts = wire_get_bytes(reader, WIRE_GOSSIP_LEAVES, &count);
    memset(out->counts, 0, sizeof out->counts);
    for (unsigned i = 0; counts != NULL && i < WIRE_GOSSIP_LEAVES; i++) {
        if (!wire_gossip_leaf_get(out->leaves, i))
            continue;
        if (next == count)
            break;
        out->counts[i] = counts[next++];
    }
    unsigned wanted = 0;
    for (unsigned i = 0; i < WIRE_GOSSIP_LEAVES; i++)
        wanted += wire_gossip_leaf_get(out->leaves, i) ? 1 : 0;
    if (wanted != count)
        fail(reader);
}

static void get_page(struct wire_reader *reader, struct wire_gossip *out)
{
    wire_get_fixed(reader, out->leaves, sizeof out->leaves);
    uint32_t values = wire_get_array(reader, 3 * WIRE_GOSSIP_SUMMARIES_MAX);
    if (values % 3 != 0)
        fail(reader);
    out->summary_count = (uint8_t)(values / 3);
    for (unsigned i = 0; i < out->summary_count && reader->err == 0; i++) {
        struct wire_gossip_summary *summary = &out->summaries[i];
        summary->id_prefix = wire_get_uint(reader, UINT64_MAX);
        summary->incarnation = wire_get_uint(reader, UINT64_MAX);
        summary->state = (enum member_state)wire_get_uint(reader, MEMBER_LEFT);
        bool known = summary->state == MEMBER_ALIVE || summary->state == MEMBER_DEAD ||
                     summary->state == MEMBER_LEFT;
        bool ascends = i == 0 || summary->id_prefix > out->summaries[i - 1].id_prefix;
        if (!known || !ascends)
            fail(reader);
    }
}

static void get_records(struct wire_reader *reader, struct wire_gossip *out)
{
    out->more = wire_get_bool(reader);
    out->want_count = (uint8_t)wire_get_array(reader, WIRE_GOSSIP_WANTS_MAX);
    for (unsigned i = 0; i < out->want_count; i++)
        out->wants[i] = wire_get_uint(reader, UINT64_MAX);
    get_news(reader, &out->news);
}

/* 0, or E_NOT_FOUND for a type that is not ours. */
static int get_fields(struct wire_reader *reader, struct wire_gossip *out)
{
    switch (out->type) {
    case WIRE_GOSSIP_PING:
    case WIRE_GOSSIP_ACK:
        out->view_check = (uint32_t)wire_get_uint(reader, UINT32_MAX);
        get_news(reader, &out->news);
        return 0;
    case WIRE_GOSSIP_NEWS:
        get_news(reader, &out->news);
        return 0;
    case WIRE_GOSSIP_PING_REQ:
        wire_get_addr(reader, &out->target);
        return 0;
    case WIRE_GOSSIP_RELAYED:
        out->answered = wire_get_bool(reader);
        return 0;
    case WIRE_GOSSIP_SYNC_CHECK:
    case WIRE_GOSSIP_SYNC_STATE:
        out->view_hash = wire_get_uint(reader, UINT64_MAX);
        out->view_count = (uint32_t)wire_get_uint(reader, UINT32_MAX);
        get_news(reader, &out->news);
        return 0;
    case WIRE_GOSSIP_SYNC_DIGEST:
        get_ranges(reader, out);
        return 0;
    case WIRE_GOSSIP_SYNC_DIFF:
        get_diff(reader, out);
        return 0;
    case WIRE_GOSSIP_SYNC_PAGE:
        get_page(reader, out);
        return 0;
    case WIRE_GOSSIP_SYNC_RECORDS:
        get_records(reader, out);
        return 0;
    default:
        return E_NOT_FOUND;
    }
}

int wire_gossip_decode(const uint8_t *msg, size_t msg_bytes, struct wire_gossip *out)
{
    unsigned type;
    struct wire_reader reader;
    int err = wire_reader_begin(&reader, msg, msg_bytes, &type);
    if (err != 0)
        return err;
    if (type < WIRE_GOSSIP_FIRST || type > WIRE_GOSSIP_LAST)
        return E_NOT_FOUND;
    out->type = (enum wire_gossip_type)type;
    out->seq = (uint32_t)wire_get_uint(&reader, UINT32_MAX);
    out->known_incarnation = wire_get_uint(&reader, UINT64_MAX);
    out->known_state = (enum member_state)wire_get_uint(&reader, MEMBER_LEFT);
    err = get_fields(&reader, out);
    return err != 0 ? err : wire_reader_end(&reader);
}
