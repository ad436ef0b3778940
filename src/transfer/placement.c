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

bool transfer__counts(const struct transfer *transfer, uint16_t place)
{
    enum member_state state = transfer__member_state(transfer, place);
    const struct nodes *nodes = &transfer->nodes;
    if (nodes->slot_count > 0 && place == nodes->slots[NODE_SELF].place)
        return !transfer->draining;
    return state == MEMBER_ALIVE || state == MEMBER_SUSPECT;
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

/* Members that make a zone of its own. */
static uint32_t zone_least(const struct transfer *transfer)
{
    bool zone_copies = transfer->config.copies == TRANSFER_COPIES_ZONE;
    return zone_copies ? 1 : transfer->config.zone_members_min;
}

/* Joins drafts into zones; the number of zones. The last, if too small, joins the one before. */
static uint32_t merge_drafts(const struct transfer *transfer, struct zone_draft *drafts,
                             uint32_t count, struct zone *zones)
{
    uint32_t least = zone_least(transfer);
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
    for (unsigned pass = 0; pass < 2; pass++) { /* the second when all stand where they belong */
        for (uint32_t i = 0; i < nodes->topology_bound; i++) {
            if (nodes->topology_zone[i] != TOPOLOGY_UNHELD)
                nodes->topology_zone[i] = (uint16_t)draft_of(
                    drafts, &count, directory_topology(nodes->directory, (uint16_t)i));
        }
    }
    nodes->live = 0;
    for (uint32_t i = 0; i < nodes->member_bound; i++) {
        if (nodes->members[i] == 0 || !transfer__counts(transfer, (uint16_t)i))
            continue;
        drafts[nodes->topology_zone[transfer__member_topology(transfer, (uint16_t)i)]].members++;
        nodes->live++;
    }
    return count;
}

/* Fills `placed` zone by zone; the directory is in order of id, so each zone is. */
static void place_members(struct transfer *transfer, const struct zone_draft *drafts,
                          uint32_t draft_count)
{
    struct nodes *nodes = &transfer->nodes;
    uint32_t first = 0, drafts_used = 0;
    for (uint32_t i = 0; i < draft_count; i++) {
        if (drafts[i].members == 0)
            continue;
        nodes->zones[drafts[i].zone].count += drafts[i].members;
        drafts_used++;
    }
    nodes->plain = drafts_used == nodes->zone_count;
    for (uint32_t i = 0; i < nodes->zone_count; i++) {
        nodes->zones[i].first = first;
        first += nodes->zones[i].count;
        nodes->zones[i].count = 0;
    }
    ASSERT(first == nodes->live);
    for (uint32_t i = 0; i < directory_count(nodes->directory); i++) {
        uint16_t place = directory_at(nodes->directory, i);
        if (place >= nodes->member_bound || nodes->members[place] == 0 ||
            !transfer__counts(transfer, place))
            continue;
        uint16_t topology = transfer__member_topology(transfer, place);
        struct zone *zone = &nodes->zones[nodes->topology_zone[topology]];
        nodes->placed[zone->first + zone->count++] = place;
    }
}

/* Topologies without live members (of strangers, of those who left) point past the zones. */
static void settle_topologies(struct nodes *nodes, const struct zone_draft *drafts)
{
    for (uint32_t i = 0; i < nodes->topology_bound; i++) {
        if (nodes->topology_zone[i] == TOPOLOGY_UNHELD)
            continue;
        uint32_t zone = drafts[nodes->topology_zone[i]].zone;
        nodes->topology_zone[i] = (uint16_t)(zone < nodes->zone_count ? zone : nodes->zone_count);
    }
}

/* Room for so many in `placed`. */
static int grow_placed(struct transfer *transfer, uint32_t wanted)
{
    struct nodes *nodes = &transfer->nodes;
    if (wanted <= nodes->capacity_placed)
        return 0;
    uint32_t capacity = nodes->capacity_placed + nodes->capacity_placed / 4;
    capacity = capacity < wanted ? wanted : capacity;
    uint16_t *placed = transfer__alloc(transfer, nodes->placed, capacity * sizeof *placed);
    if (placed == NULL)
        return E_NO_MEMORY;
    nodes->placed = placed;
    nodes->capacity_placed = capacity;
    return 0;
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
    nodes->zones = transfer__zalloc(transfer, nodes->topology_bound * sizeof *nodes->zones);
    struct zone_draft *drafts =
        transfer__zalloc(transfer, (nodes->topology_bound + 1) * sizeof *drafts);
    int err = grow_placed(transfer, nodes->member_count);
    if (nodes->zones != NULL && drafts != NULL && err == 0) {
        uint32_t count = make_drafts(transfer, drafts);
        nodes->zone_count = merge_drafts(transfer, drafts, count, nodes->zones);
        settle_topologies(nodes, drafts);
        place_members(transfer, drafts, count);
        nodes->stale = false;
    }
    transfer__release(transfer, drafts);
}

/* ---- one member more or less ---- */

/* Where a member stands among those of its zone, or belongs. */
static uint32_t position(const struct nodes *nodes, const struct zone *zone, uint16_t place)
{
    const struct node_id *id = directory_id(nodes->directory, place);
    uint32_t low = zone->first, high = zone->first + zone->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (node_id_compare(directory_id(nodes->directory, nodes->placed[middle]), id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void shift_zones(struct nodes *nodes, uint32_t after, int by)
{
    for (uint32_t i = after + 1; i < nodes->zone_count; i++)
        nodes->zones[i].first += (uint32_t)by;
    nodes->zones[after].count += (uint32_t)by;
    nodes->live += (uint32_t)by;
}

void transfer__placement_add(struct transfer *transfer, uint16_t place, uint16_t topology)
{
    struct nodes *nodes = &transfer->nodes;
    if (nodes->stale)
        return;
    uint32_t zone = nodes->topology_zone[topology];
    /* Into a zone that is there, where none are merged: no other zone changes. */
    if (!nodes->plain || zone >= nodes->zone_count || grow_placed(transfer, nodes->live + 1) != 0) {
        nodes->stale = true;
        return;
    }
    uint32_t at = position(nodes, &nodes->zones[zone], place);
    memmove(&nodes->placed[at + 1], &nodes->placed[at],
            (nodes->live - at) * sizeof nodes->placed[0]);
    nodes->placed[at] = place;
    shift_zones(nodes, zone, 1);
}

void transfer__placement_remove(struct transfer *transfer, uint16_t place, uint16_t topology)
{
    struct nodes *nodes = &transfer->nodes;
    if (nodes->stale)
        return;
    uint32_t zone = nodes->topology_zone[topology];
    uint32_t least = nodes->zone_count == 1 ? 1 : zone_least(transfer);
    /* A zone that stays large enough for one of its own. */
    if (!nodes->plain || zone >= nodes->zone_count || nodes->zones[zone].count <= least) {
        nodes->stale = true;
        return;
    }
    uint32_t at = position(nodes, &nodes->zones[zone], place);
    ASSERT(at < nodes->live && nodes->placed[at] == place);
    memmove(&nodes->placed[at], &nodes->placed[at + 1],
            (nodes->live - at - 1) * sizeof nodes->placed[0]);
    shift_zones(nodes, zone, -1);
}

/* ---- questions ---- */

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

uint64_t transfer__label_zone_id(const struct transfer *transfer)
{
    return ~zone_name(&transfer->config.topology); /* merged zones bear the name of their first */
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
    return directory_id(nodes->directory, nodes->placed[at])->bytes;
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
            uint16_t slot = transfer__node_at(transfer, nodes->placed[span.low]);
            if (slot != NODE_NONE)
                out[found++] = slot;
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

bool transfer__keeps(struct transfer *transfer, const uint8_t key[32])
{
    uint16_t keepers[KEEPERS];
    uint32_t zone = transfer__zone_of(transfer, NODE_SELF);
    return transfer__keepers(transfer, zone, key, keepers) > 0 && keepers[0] == NODE_SELF;
}

uint16_t transfer__random_member(struct transfer *transfer, uint32_t zone)
{
    refresh(transfer);
    const struct nodes *nodes = &transfer->nodes;
    if (zone >= nodes->zone_count || nodes->zones[zone].count == 0)
        return NODE_NONE;
    const struct zone *at = &nodes->zones[zone];
    uint32_t pick = (uint32_t)prng_below(&transfer->prng, at->count);
    uint16_t self = nodes->slots[NODE_SELF].place;
    uint16_t place = nodes->placed[at->first + pick];
    if (place == self)
        place = nodes->placed[at->first + (pick + 1) % at->count];
    return place == self ? NODE_NONE : transfer__node_at(transfer, place);
}
