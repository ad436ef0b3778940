/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What neighbours have, and what they are told: the bitfields of HELLO and HAVE. HAVE carries
 * state, not change, a page of the bitfield at a time: lost, doubled and reordered ones do no harm,
 * and with up to 3,584 pieces one page is all there is.
 */
#include "have.h"

/* HAVE on change at most every so often (ALGORITHMS §3.4). Each piece earns the messages that tell
 * of it, one (130 bytes) per so many bytes of it: 0.3 %, and no more than the last few make a
 * difference (four instead of twelve: a fifth fewer events in a simulation, and 300 nodes with 2
 * GiB each 1.047 instead of 1.024). What was saved up, and what a swarm begins with, is spent when
 * pieces are few and every neighbour lacks them; with nothing left there are 250 ms between. An
 * interval by the own rate instead kept the first pieces of small blobs from neighbours for as long
 * as the whole blob takes. */
#define HAVE_MAX_US     (250 * MS)
#define HAVE_ALONG_US   (125 * MS) /* then it goes along with other blobs' */
#define HAVE_EARN_BYTES (48 * 1024)
#define HAVE_EARN_MAX   12
/* Half copies of a blob that a node gives like any other; nodes of a crowd give 1.4 copies at most.
 * For each more it is asked as if it had so much to send first (20 % at a time, 150-300 nodes, most
 * / mean uploaded: 3.4-4.0 without, 2.9 with 1 s, 2.5 with 5 s; no crowd is slower). */
#define GIVEN_HALVES  3u
#define GIVEN_STEPS   1000u
#define GIVEN_COPY_US (5 * S)
#define GIVEN_MAX_US  (50 * S)

/* ---- what a neighbour has ---- */

static void count_bits(struct swarm *swarm, const struct neighbour *neighbour, bool add)
{
    const struct bitfield *known = &neighbour->known;
    for (uint32_t piece = bitfield_next_set(known, 0); piece < known->bit_count;
         piece = bitfield_next_set(known, piece + 1))
        transfer__piece_offered(swarm, piece, add);
}

void transfer__neighbour_useful(struct swarm *swarm, struct neighbour *neighbour, bool useful)
{
    if (neighbour->useful == useful)
        return;
    neighbour->useful = useful;
    count_bits(swarm, neighbour, useful);
}

static void set_known(struct swarm *swarm, struct neighbour *neighbour, uint32_t piece, bool has)
{
    bool changed =
        has ? bitfield_set(&neighbour->known, piece) : bitfield_clear(&neighbour->known, piece);
    if (changed && neighbour->useful)
        transfer__piece_offered(swarm, piece, has);
}

void transfer__neighbour_has(struct swarm *swarm, uint16_t node, uint32_t piece)
{
    struct neighbour *neighbour = transfer__neighbour(swarm, node);
    if (neighbour != NULL && neighbour->state == NEIGHBOUR_UP)
        set_known(swarm, neighbour, piece, true);
}

void transfer__neighbour_lacks(struct swarm *swarm, uint16_t node, uint32_t piece)
{
    struct neighbour *neighbour = transfer__neighbour(swarm, node);
    if (neighbour != NULL)
        set_known(swarm, neighbour, piece, false);
}

/* Eight bytes of a page differ from what is known: the pieces from `first` on. */
static void take_word(struct swarm *swarm, struct neighbour *neighbour, uint32_t first,
                      uint64_t changed, uint64_t has)
{
    while (changed != 0) {
        uint32_t lead = (uint32_t)__builtin_clzll(changed);
        uint64_t bit = 1ULL << 63 >> lead;
        if (first + lead < neighbour->known.bit_count)
            set_known(swarm, neighbour, first + lead, (has & bit) != 0);
        changed ^= bit;
    }
}

/* The first `count` bytes of a page, which stand at `first_byte` of the bitfield. */
static void take_bits(struct swarm *swarm, struct neighbour *neighbour, uint32_t first_byte,
                      const uint8_t *page, uint32_t count)
{
    const uint8_t *known = neighbour->known.bits + first_byte;
    uint32_t at = 0;
    /* Counts of the pieces that changed are far apart: all are asked for before one is needed. */
    for (; at + 8 <= count; at += 8) {
        if (memcmp(page + at, known + at, 8) != 0)
            __builtin_prefetch(&swarm->avail[8 * (first_byte + at)], 1);
    }
    for (at = 0; at + 8 <= count; at += 8) {
        uint64_t has = load_be64(page + at);
        take_word(swarm, neighbour, 8 * (first_byte + at), load_be64(known + at) ^ has, has);
    }
    for (; at < count; at++) {
        uint64_t has = (uint64_t)page[at] << 56;
        take_word(swarm, neighbour, 8 * (first_byte + at), (uint64_t)known[at] << 56 ^ has, has);
    }
}

/* The page of a HELLO or HAVE. Bytes behind the end of the blob are ignored. */
static void take_page(struct blob *blob, struct neighbour *neighbour, const struct wire_have *have)
{
    struct swarm *swarm = blob->swarm;
    uint32_t bytes = (blob->layout.piece_count + 7) / 8;
    if (have->first_byte < bytes) {
        uint32_t room = bytes - have->first_byte;
        uint32_t count = have->page_bytes < room ? have->page_bytes : room;
        take_bits(swarm, neighbour, have->first_byte, have->have, count);
        int err = bitfield_merge(&swarm->injected, 8 * have->first_byte, have->injected, count);
        ASSERT(err == 0); /* cut to the end above */
    }
    neighbour->complete = (have->flags & WIRE_HAVE_COMPLETE) != 0;
    for (uint32_t piece = 0; neighbour->complete && piece < blob->layout.piece_count; piece++) {
        piece = bitfield_next_clear(&neighbour->known, piece);
        if (piece < blob->layout.piece_count)
            set_known(swarm, neighbour, piece, true);
    }
}

static void take_hints(struct transfer *transfer, struct neighbour *neighbour,
                       const struct wire_have *have)
{
    neighbour->heard_us = transfer->now_us;
    neighbour->rx_sequence = have->sequence;
    neighbour->wait_us = have->wait_us;
    neighbour->lease_us = have->lease_us;
    neighbour->took_us = have->took_us;
    neighbour->fallbacks = have->fallbacks;
    neighbour->wants = (have->flags & WIRE_HAVE_WANTS) != 0;
}

void transfer__have_take(struct transfer *transfer, struct blob *blob, struct neighbour *neighbour,
                         const struct wire_have *have)
{
    take_hints(transfer, neighbour, have);
    take_page(blob, neighbour, have);
}

/* ---- sending ---- */

static void fill_page(struct transfer *transfer, const struct blob *blob, uint32_t page,
                      struct wire_have *have)
{
    const struct swarm *swarm = blob->swarm;
    uint32_t bytes = (blob->layout.piece_count + 7) / 8;
    have->first_byte = page * WIRE_PAGE_BYTES;
    ASSERT(have->first_byte < bytes || bytes == 0);
    uint32_t rest = bytes - have->first_byte;
    have->page_bytes = rest < WIRE_PAGE_BYTES ? rest : WIRE_PAGE_BYTES;
    if (have->page_bytes > 0) {
        memcpy(have->have, blob->have.bits + have->first_byte, have->page_bytes);
        memcpy(have->injected, swarm->injected.bits + have->first_byte, have->page_bytes);
    }
    if (transfer->draining)
        memset(have->have, 0, have->page_bytes);
}

static uint32_t clamped(uint32_t us)
{
    return us < WIRE_WAIT_US_MAX ? us : WIRE_WAIT_US_MAX;
}

/* What a node says to wait on top once it has given more than its part: others are asked first, so
 * that those who were early do not serve everybody who comes later. */
static uint32_t given_us(const struct blob *blob)
{
    uint64_t part = blob->info.size_bytes / 2 * GIVEN_HALVES;
    if (blob->given_bytes <= part)
        return 0;
    uint64_t us = (blob->given_bytes - part) / (blob->info.size_bytes / GIVEN_STEPS + 1) *
                  (GIVEN_COPY_US / GIVEN_STEPS);
    return us < GIVEN_MAX_US ? (uint32_t)us : GIVEN_MAX_US;
}

void transfer__have_send(struct transfer *transfer, struct blob *blob, struct neighbour *neighbour,
                         uint8_t flags, uint32_t page)
{
    const struct swarm *swarm = blob->swarm;
    bool hello = neighbour->state == NEIGHBOUR_ASKED || (flags & WIRE_HAVE_REPLY) != 0;
    struct wire_transfer message;
    message.type = hello ? WIRE_TRANSFER_HELLO : WIRE_TRANSFER_HAVE;
    struct wire_have *have = &message.of.have;
    if (bitfield_full(&blob->have) && !transfer->draining)
        flags |= WIRE_HAVE_COMPLETE;
    if (swarm->readers > 0 && !bitfield_full(&blob->have))
        flags |= WIRE_HAVE_WANTS;
    have->blob = blob->info.key;
    have->flags = flags;
    if (hello)
        digest_proof(&blob->info.digest, &transfer->config.self_id,
                     &transfer->nodes.slots[neighbour->node].id, have->proof);
    have->sequence = ++neighbour->tx_sequence;
    have->wait_us = clamped(transfer__upload_wait_us(transfer) + given_us(blob));
    have->lease_us = clamped(swarm->lease_us);
    have->took_us = clamped(swarm->took_us);
    have->fallbacks = (uint8_t)(transfer->fallbacks < UINT8_MAX ? transfer->fallbacks : UINT8_MAX);
    fill_page(transfer, blob, page, have);
    transfer__send(transfer, neighbour->node, &message);
    neighbour->sent_us = transfer->now_us;
}

uint32_t transfer__have_pages(const struct blob *blob)
{
    uint32_t bytes = (blob->layout.piece_count + 7) / 8;
    return bytes == 0 ? 1 : (bytes + WIRE_PAGE_BYTES - 1) / WIRE_PAGE_BYTES;
}

void transfer__have_send_pages(struct transfer *transfer, struct blob *blob,
                               struct neighbour *neighbour, uint32_t first_page)
{
    for (uint32_t page = first_page; page < transfer__have_pages(blob); page++)
        transfer__have_send(transfer, blob, neighbour, 0, page);
}

static void send_dirty(struct transfer *transfer, struct blob *blob, struct neighbour *neighbour)
{
    for (uint32_t page = 0; page < transfer__have_pages(blob); page++) {
        if ((blob->swarm->dirty[page / 8] & (1u << (page % 8))) != 0)
            transfer__have_send(transfer, blob, neighbour, 0, page);
    }
}

/* Who has everything needs to know only when we do, to part. */
static bool is_told(const struct blob *blob, const struct neighbour *neighbour)
{
    return neighbour->state == NEIGHBOUR_UP && (!neighbour->complete || bitfield_full(&blob->have));
}

/* Messages it takes to tell everybody what changed, page by page. */
static uint32_t news_messages(const struct blob *blob)
{
    const struct swarm *swarm = blob->swarm;
    uint32_t pages = 0, told = 0;
    for (uint32_t page = 0; page < transfer__have_pages(blob); page++)
        pages += (swarm->dirty[page / 8] & (1u << (page % 8))) != 0 ? 1 : 0;
    for (uint32_t i = 0; i < swarm->neighbour_count; i++)
        told += is_told(blob, &swarm->neighbours[i]) ? 1 : 0;
    return pages * told;
}

void transfer__have_earn(struct blob *blob)
{
    struct swarm *swarm = blob->swarm;
    uint32_t earned = blob->layout.piece_bytes / HAVE_EARN_BYTES;
    swarm->have_credit += earned < HAVE_EARN_MAX ? earned : HAVE_EARN_MAX;
    if (swarm->have_credit > HAVE_CREDIT_MAX)
        swarm->have_credit = HAVE_CREDIT_MAX;
    swarm->have_due_us = 0; /* there may be enough now */
}

/* Tells everybody what changed, at the cost of so many messages. */
static void send_news(struct transfer *transfer, struct blob *blob, uint32_t messages)
{
    struct swarm *swarm = blob->swarm;
    for (uint32_t i = 0; i < swarm->neighbour_count; i++)
        __builtin_prefetch(&transfer->nodes.slots[swarm->neighbour_nodes[i]]);
    for (uint32_t i = 0; i < swarm->neighbour_count; i++) {
        if (is_told(blob, &swarm->neighbours[i]))
            send_dirty(transfer, blob, &swarm->neighbours[i]);
    }
    memset(swarm->dirty, 0, sizeof swarm->dirty);
    swarm->have_credit -= messages < swarm->have_credit ? messages : swarm->have_credit;
    swarm->have_sent_us = transfer->now_us;
    swarm->have_due_us = UINT64_MAX;
}

bool transfer__have_flush(struct transfer *transfer, struct blob *blob)
{
    struct swarm *swarm = blob->swarm;
    if (swarm->have_due_us > transfer->now_us)
        return false;
    uint32_t messages = news_messages(blob);
    uint64_t wait_us = messages <= swarm->have_credit ? HAVE_MIN_US : HAVE_MAX_US;
    if (swarm->have_sent_us != 0 && swarm->have_sent_us + wait_us > transfer->now_us) {
        swarm->have_due_us = swarm->have_sent_us + wait_us;
        return false;
    }
    send_news(transfer, blob, messages);
    return messages > 0;
}

void transfer__have_along(struct transfer *transfer, struct blob *blob)
{
    struct swarm *swarm = blob->swarm;
    uint32_t messages = swarm->have_due_us == UINT64_MAX ? 0 : news_messages(blob);
    if (messages > 0 && swarm->have_sent_us + HAVE_ALONG_US <= transfer->now_us)
        send_news(transfer, blob, messages);
}
