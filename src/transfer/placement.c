/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Placement: zones of live members and the keepers of a key. All nodes with the same view agree
 * without talking; those with different views may name different keepers, which costs bytes and
 * never correctness (DESIGN §4 "Leases").
 *
 * Zones under ZONE_MEMBERS_MIN live members merge with their neighbours in the order of (region,
 * zone) labels, so that zones of one region join first. With `copies: zone` nothing may cross a
 * border, so zones stay as they are labelled.
 */
#include "core.h"

struct zone_draft {
    const struct topology *labels;
    uint32_t members;
    uint32_t zone; /* result */
};

static int compare_labels(const struct topology *a, const struct topology *b)
{
    int order = strcmp(a->region.text, b->region.text);
    return order != 0 ? order : strcmp(a->zone.text, b->zone.text);
}

static bool is_live(const struct transfer *transfer, const struct node *node)
{
    if (node == &transfer->nodes.slots[NODE_SELF])
        return !transfer->draining;
    return node->state == MEMBER_ALIVE || node->state == MEMBER_SUSPECT;
}

/* FNV-1a over the labels: a name for the zone that all nodes compute alike. */
static uint64_t zone_name(const struct topology *labels)
{
    uint64_t hash = 0xcbf29ce484222325ULL;
    const char *texts[2] = {labels->region.text, labels->zone.text};
    for (unsigned i = 0; i < 2; i++) {
        for (const char *at = texts[i];; at++) {
            hash = (hash ^ (uint8_t)*at) * 0x100000001b3ULL;
            if (*at == '\0')
                break;
        }
    }
    return hash;
}

/* Inserts a topology's zone into the drafts, which stay sorted by labels; its index. */
static uint32_t draft_of(struct zone_draft *drafts, uint32_t *count, const struct topology *labels)
{
    uint32_t at = 0;
    while (at < *count && compare_labels(drafts[at].labels, labels) < 0)
        at++;
    if (at < *count && compare_labels(drafts[at].labels, labels) == 0)
        return at;
    memmove(&drafts[at + 1], &drafts[at], (*count - at) * sizeof *drafts);
    drafts[at] = (struct zone_draft){.labels = labels};
    ++*count;
    return at;
}

/* Joins drafts into zones; the number of zones. The last, if too small, joins the one before. */
static uint32_t merge_drafts(const struct transfer *transfer, struct zone_draft *drafts,
                             uint32_t count, struct zone *zones)
{
    uint32_t least = transfer->config.zone_members_min;
    if (transfer->config.copies == TRANSFER_COPIES_ZONE)
        least = 1;
    uint32_t zone_count = 0, members = 0;
    bool open = false;
    for (uint32_t i = 0; i < count; i++) {
        if (drafts[i].members == 0) {
            drafts[i].zone = UINT32_MAX;
            continue;
        }
        if (!open) {
            zones[zone_count++] = (struct zone){.id = zone_name(drafts[i].labels)};
            members = 0;
            open = true;
        }
        drafts[i].zone = zone_count - 1;
        members += drafts[i].members;
        open = members < least;
    }
    if (!open || zone_count < 2)
        return zone_count;
    for (uint32_t i = 0; i < count; i++) {
        if (drafts[i].zone == zone_count - 1)
            drafts[i].zone = zone_count - 2;
    }
    return zone_count - 1;
}

/* Live members per topology, then which draft each topology belongs to. */
static uint32_t make_drafts(struct transfer *transfer, struct zone_draft *drafts)
{
    struct nodes *nodes = &transfer->nodes;
    uint32_t count = 0;
    for (uint32_t i = 0; i < nodes->topology_count; i++)
        (void)draft_of(drafts, &count, &nodes->topologies[i]);
    for (uint32_t i = 0; i < nodes->topology_count; i++)
        nodes->topology_zone[i] = (uint16_t)draft_of(drafts, &count, &nodes->topologies[i]);
    nodes->live = 0;
    for (uint32_t i = 0; i < nodes->count; i++) {
        const struct node *node = &nodes->slots[nodes->by_id[i]];
        if (!is_live(transfer, node))
            continue;
        drafts[nodes->topology_zone[node->topology]].members++;
        nodes->live++;
    }
    return count;
}

/* Fills `placed` zone by zone; by_id is sorted, so each zone is. */
static void place_members(struct transfer *transfer)
{
    struct nodes *nodes = &transfer->nodes;
    for (uint32_t i = 0; i < nodes->count; i++) {
        const struct node *node = &nodes->slots[nodes->by_id[i]];
        if (is_live(transfer, node))
            nodes->zones[nodes->topology_zone[node->topology]].count++;
    }
    uint32_t first = 0;
    for (uint32_t i = 0; i < nodes->zone_count; i++) {
        nodes->zones[i].first = first;
        first += nodes->zones[i].count;
        nodes->zones[i].count = 0;
    }
    ASSERT(first == nodes->live);
    for (uint32_t i = 0; i < nodes->count; i++) {
        const struct node *node = &nodes->slots[nodes->by_id[i]];
        if (!is_live(transfer, node))
            continue;
        struct zone *zone = &nodes->zones[nodes->topology_zone[node->topology]];
        nodes->placed[zone->first + zone->count++] = nodes->by_id[i];
    }
}

/* Topologies without live members (of strangers, of those who left) point past the zones. */
static void settle_topologies(struct nodes *nodes, const struct zone_draft *drafts)
{
    for (uint32_t i = 0; i < nodes->topology_count; i++) {
        uint32_t zone = drafts[nodes->topology_zone[i]].zone;
        nodes->topology_zone[i] = (uint16_t)(zone < nodes->zone_count ? zone : nodes->zone_count);
    }
}

/* Makes the placement anew if members changed. Without memory there are no zones, so no keepers:
 * the node then reads the origin like one whose keepers are silent. */
static void refresh(struct transfer *transfer)
{
    struct nodes *nodes = &transfer->nodes;
    if (!nodes->stale)
        return;
    nodes->zone_count = 0;
    nodes->live = 0;
    transfer__release(transfer, nodes->zones);
    nodes->zones = transfer__zalloc(transfer, nodes->topology_count * sizeof *nodes->zones);
    struct zone_draft *drafts =
        transfer__zalloc(transfer, (nodes->topology_count + 1) * sizeof *drafts);
    int err = transfer__grow(transfer, (void **)&nodes->placed, &nodes->capacity_placed,
                             nodes->count, sizeof *nodes->placed);
    if (nodes->zones != NULL && drafts != NULL && err == 0) {
        uint32_t count = make_drafts(transfer, drafts);
        nodes->zone_count = merge_drafts(transfer, drafts, count, nodes->zones);
        settle_topologies(nodes, drafts);
        place_members(transfer);
        nodes->stale = false;
    }
    transfer__release(transfer, drafts);
}

uint32_t transfer__live(struct transfer *transfer)
{
    refresh(transfer);
    return transfer->nodes.live;
}

uint32_t transfer__zone_of(struct transfer *transfer, uint16_t node)
{
    refresh(transfer);
    const struct nodes *nodes = &transfer->nodes;
    if (nodes->stale)
        return nodes->zone_count;
    return nodes->topology_zone[nodes->slots[node].topology];
}

uint32_t transfer__zone_find(struct transfer *transfer, uint64_t zone_id)
{
    refresh(transfer);
    for (uint32_t i = 0; i < transfer->nodes.zone_count; i++) {
        if (transfer->nodes.zones[i].id == zone_id)
            return i;
    }
    return transfer->nodes.zone_count;
}

uint64_t transfer__zone_id(struct transfer *transfer, uint32_t zone)
{
    refresh(transfer);
    return zone < transfer->nodes.zone_count ? transfer->nodes.zones[zone].id : 0;
}

/* splitmix64's finaliser: weights of different zones for one key are independent. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

uint32_t transfer__home_zone(struct transfer *transfer, const uint8_t key[32])
{
    refresh(transfer);
    const struct nodes *nodes = &transfer->nodes;
    uint32_t best = nodes->zone_count;
    uint64_t best_weight = 0;
    for (uint32_t i = 0; i < nodes->zone_count; i++) {
        uint64_t weight = mix(load_be64(key) ^ nodes->zones[i].id);
        if (best == nodes->zone_count || weight > best_weight) {
            best = i;
            best_weight = weight;
        }
    }
    return best;
}

static const uint8_t *placed_id(const struct nodes *nodes, uint32_t at)
{
    return nodes->slots[nodes->placed[at]].id.bytes;
}

static bool bit_of(const uint8_t id[32], unsigned bit)
{
    return (id[bit / 8] & (0x80u >> (bit % 8))) != 0;
}

/* First place in the sorted [low, high) whose id has the bit set. */
static uint32_t split(const struct nodes *nodes, uint32_t low, uint32_t high, unsigned bit)
{
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (bit_of(placed_id(nodes, middle), bit))
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

struct span {
    uint32_t low, high;
    unsigned bit;
};

/*
 * The sorted ids are a binary trie without pointers: at each bit the half that agrees with the key
 * is closer than the other. Halves are visited nearest first until `count` ids are found.
 */
uint32_t transfer__closest(struct transfer *transfer, uint32_t zone, const uint8_t key[32],
                           uint32_t count, uint16_t out[KEEPERS])
{
    refresh(transfer);
    const struct nodes *nodes = &transfer->nodes;
    ASSERT(count <= KEEPERS);
    if (zone >= nodes->zone_count)
        return 0;
    struct span stack[8 * NODE_ID_BYTES + 2];
    unsigned depth = 0;
    uint32_t found = 0;
    const struct zone *at = &nodes->zones[zone];
    stack[depth++] = (struct span){at->first, at->first + at->count, 0};
    while (depth > 0 && found < count) {
        struct span span = stack[--depth];
        if (span.high - span.low == 1) {
            out[found++] = nodes->placed[span.low];
            continue;
        }
        if (span.low == span.high)
            continue;
        ASSERT(span.bit < 8 * NODE_ID_BYTES); /* ids differ */
        uint32_t middle = split(nodes, span.low, span.high, span.bit);
        struct span zeros = {span.low, middle, span.bit + 1};
        struct span ones = {middle, span.high, span.bit + 1};
        bool wants_one = bit_of(key, span.bit);
        stack[depth++] = wants_one ? zeros : ones;
        stack[depth++] = wants_one ? ones : zeros;
    }
    return found;
}

uint32_t transfer__keepers(struct transfer *transfer, uint32_t zone, const uint8_t key[32],
                           uint16_t out[KEEPERS])
{
    uint16_t closest[KEEPERS];
    uint32_t count = transfer__closest(transfer, zone, key, KEEPERS, closest);
    uint32_t used = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (!transfer__is_silent(transfer, closest[i]))
            out[used++] = closest[i];
    }
    for (uint32_t i = 0; i < count; i++) {
        if (transfer__is_silent(transfer, closest[i]))
            out[used++] = closest[i];
    }
    ASSERT(used == count);
    return count;
}

uint16_t transfer__random_member(struct transfer *transfer, uint32_t zone)
{
    refresh(transfer);
    const struct nodes *nodes = &transfer->nodes;
    if (zone >= nodes->zone_count || nodes->zones[zone].count == 0)
        return NODE_NONE;
    const struct zone *at = &nodes->zones[zone];
    uint32_t pick = (uint32_t)prng_below(&transfer->prng, at->count);
    uint16_t node = nodes->placed[at->first + pick];
    if (node == NODE_SELF)
        node = nodes->placed[at->first + (pick + 1) % at->count];
    return node == NODE_SELF ? NODE_NONE : node;
}
