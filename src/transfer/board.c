/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The blob keeper's board: who of the zone announced that it pulls a blob. Answers with a random
 * sample, so that newcomers find each other before anybody has anything (ALGORITHMS §3.2). Kept in
 * memory for half a minute beyond the last word; bounded, and lost without harm.
 */
#include "blob.h"

#define BOARD_ENTRIES_MAX 64
#define BOARDS_MAX        1024
#define ENTRY_US          (30 * S)

struct board_entry {
    uint16_t node;
    bool complete;
    uint64_t seen_us;
};

struct board {
    UT_hash_handle hh;
    struct blob_key key;
    uint32_t count;
    struct board_entry entries[BOARD_ENTRIES_MAX];
};

static struct board *find_board(const struct transfer *transfer, const struct blob_key *key)
{
    struct board *board = NULL;
    HASH_FIND(hh, transfer->boards, key, sizeof *key, board);
    return board;
}

static struct board *make_board(struct transfer *transfer, const struct blob_key *key)
{
    struct board *board = find_board(transfer, key);
    if (board != NULL || transfer->board_count == BOARDS_MAX)
        return board;
    board = transfer__zalloc(transfer, sizeof *board);
    if (board == NULL)
        return NULL;
    board->key = *key;
    HASH_ADD(hh, transfer->boards, key, sizeof board->key, board);
    if (board->hh.tbl == NULL) {
        transfer__release(transfer, board);
        return NULL;
    }
    transfer->board_count++;
    return board;
}

static void drop_board(struct transfer *transfer, struct board *board)
{
    HASH_DEL(transfer->boards, board);
    ASSERT(transfer->board_count > 0);
    transfer->board_count--;
    transfer__release(transfer, board);
}

static uint32_t find_entry(const struct board *board, uint16_t node)
{
    uint32_t at = 0;
    while (at < board->count && board->entries[at].node != node)
        at++;
    return at;
}

static void forget_entry(struct board *board, uint32_t at)
{
    if (at < board->count)
        board->entries[at] = board->entries[--board->count];
}

/* Full: a random entry makes room, so that the board stays a sample of all. */
static void note_entry(struct transfer *transfer, struct board *board, uint16_t node, bool complete)
{
    uint32_t at = find_entry(board, node);
    if (at == BOARD_ENTRIES_MAX)
        at = (uint32_t)prng_below(&transfer->prng, BOARD_ENTRIES_MAX);
    if (at == board->count)
        board->count++;
    board->entries[at] = (struct board_entry){node, complete, transfer->now_us};
}

/* Fills `peers` with a random sample of the others. */
static void sample(struct transfer *transfer, const struct board *board, uint16_t asker,
                   struct wire_peers *peers)
{
    peers->others = 0;
    peers->contact_count = 0;
    if (board == NULL || board->count == 0)
        return;
    uint32_t start = (uint32_t)prng_below(&transfer->prng, board->count);
    for (uint32_t i = 0; i < board->count; i++) {
        const struct board_entry *entry = &board->entries[(start + i) % board->count];
        if (entry->node == asker)
            continue;
        if (!entry->complete)
            peers->others++;
        if (peers->contact_count < WIRE_PEERS_MAX)
            peers->contacts[peers->contact_count++] = transfer__node_contact(transfer, entry->node);
    }
}

static void take(struct transfer *transfer, uint16_t from, const struct wire_announce *announce)
{
    struct board *board = announce->leaving ? find_board(transfer, &announce->blob)
                                            : make_board(transfer, &announce->blob);
    if (board == NULL)
        return;
    if (!announce->leaving) {
        note_entry(transfer, board, from, announce->completeness == UINT8_MAX);
        return;
    }
    forget_entry(board, find_entry(board, from));
    if (board->count == 0)
        drop_board(transfer, board);
}

void transfer__on_announce(struct transfer *transfer, uint16_t from,
                           const struct wire_announce *announce)
{
    take(transfer, from, announce);
    if (announce->leaving)
        return;
    struct wire_transfer answer = {.type = WIRE_TRANSFER_PEERS};
    answer.of.peers.blob = announce->blob;
    sample(transfer, find_board(transfer, &announce->blob), from, &answer.of.peers);
    if (from == NODE_SELF)
        transfer__on_peers(transfer, NODE_SELF, &answer.of.peers);
    else
        transfer__send(transfer, from, &answer);
}

void transfer__announce(struct transfer *transfer, struct blob *blob, bool leaving)
{
    struct wire_transfer message = {.type = WIRE_TRANSFER_ANNOUNCE};
    message.of.announce = (struct wire_announce){
        .blob = blob->info.key,
        .completeness = bitfield_full(&blob->have) ? UINT8_MAX : 0,
        .leaving = leaving,
    };
    uint16_t keepers[KEEPERS];
    uint32_t zone = transfer__zone_of(transfer, NODE_SELF);
    uint32_t count = transfer__keepers(transfer, zone, blob->info.key.bytes, keepers);
    /* Two of them: views differ, and one of them may be silent. */
    for (uint32_t i = 0; i < count && i < 2; i++) {
        if (keepers[i] == NODE_SELF)
            transfer__on_announce(transfer, NODE_SELF, &message.of.announce);
        else
            transfer__send(transfer, keepers[i], &message);
    }
}

void transfer__boards_forget(struct transfer *transfer, uint16_t node)
{
    struct board *board, *next;
    HASH_ITER(hh, transfer->boards, board, next)
    {
        forget_entry(board, find_entry(board, node));
        if (board->count == 0)
            drop_board(transfer, board);
    }
}

void transfer__boards_sweep(struct transfer *transfer)
{
    struct board *board, *next;
    HASH_ITER(hh, transfer->boards, board, next)
    {
        for (uint32_t i = 0; i < board->count;) {
            if (transfer->now_us - board->entries[i].seen_us > ENTRY_US)
                forget_entry(board, i);
            else
                i++;
        }
        if (board->count == 0)
            drop_board(transfer, board);
    }
}

void transfer__boards_close(struct transfer *transfer)
{
    struct board *board, *next;
    HASH_ITER(hh, transfer->boards, board, next)
    {
        drop_board(transfer, board);
    }
}
