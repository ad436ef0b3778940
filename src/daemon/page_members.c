/* SPDX-License-Identifier: Apache-2.0 */
/* The status page's view of the mesh: every member as one letter of its zone, and addresses of
 * those that are not alive. See page.h. */
#include <jansson.h>
#include <string.h>

#include "admin.h"
#include "bytes.h"
#include "log.h"
#include "page.h"
#include "topology.h"

#define LETTER_KINDS 5

static const char letters[LETTER_KINDS + 1] = "*aslg";

struct zone {
    struct label region, label;
    uint32_t counts[LETTER_KINDS]; /* by place in `letters` */
};

struct tally {
    struct zone zones[PAGE_ZONES_MAX + 1]; /* the last one: all the others */
    size_t zone_count;
    bool others;
    size_t seen; /* members looked at */
    uint8_t zone_of[PAGE_MEMBERS_MAX];
    char letter_of[PAGE_MEMBERS_MAX];
    json_t *trouble;
    size_t trouble_more;
};
static_assert(PAGE_ZONES_MAX < UINT8_MAX, "a zone's place fits zone_of");

static unsigned kind_of(const struct member *member, const struct node_id *self)
{
    if (node_id_equal(&member->id, self))
        return 0;
    switch (member->state) {
    case MEMBER_ALIVE:
        return 1;
    case MEMBER_SUSPECT:
        return 2;
    case MEMBER_LEAVING:
        return 3;
    default:
        return 4;
    }
}

static size_t zone_place(struct tally *tally, const struct topology *labels)
{
    for (size_t i = 0; i < tally->zone_count; i++)
        if (label_equal(&tally->zones[i].label, &labels->zone) &&
            label_equal(&tally->zones[i].region, &labels->region))
            return i;
    if (tally->zone_count == PAGE_ZONES_MAX) {
        tally->others = true;
        return PAGE_ZONES_MAX;
    }
    tally->zones[tally->zone_count] =
        (struct zone){.region = labels->region, .label = labels->zone};
    return tally->zone_count++;
}

static void note_trouble(struct tally *tally, const struct member *member)
{
    char id[SHORT_HEX_BYTES], addr[PEER_ADDR_TEXT_BYTES];
    if (json_array_size(tally->trouble) == PAGE_TROUBLE_MAX) {
        tally->trouble_more++;
        return;
    }
    (void)json_array_append_new(
        tally->trouble,
        json_pack("{s:s,s:s,s:o,s:s}", "addr", peer_addr_text(&member->addr, addr), "id",
                  short_hex(member->id.bytes, id), "zone", page_text(member->topology.zone.text),
                  "state", status_state_name(member->state)));
}

static void count(struct tally *tally, const struct member *member, const struct node_id *self)
{
    unsigned kind = kind_of(member, self);
    size_t place = zone_place(tally, &member->topology);
    tally->zones[place].counts[kind]++;
    tally->zone_of[tally->seen] = (uint8_t)place;
    tally->letter_of[tally->seen++] = letters[kind];
    if (kind > 1)
        note_trouble(tally, member);
}

static json_t *zone_json(const struct tally *tally, size_t place)
{
    char map[PAGE_MEMBERS_MAX];
    size_t used = 0;
    const struct zone *zone = &tally->zones[place];
    for (size_t i = 0; i < tally->seen; i++)
        if (tally->zone_of[i] == place)
            map[used++] = tally->letter_of[i];
    return json_pack("{s:o,s:o,s:b,s:b,s:i,s:i,s:i,s:i,s:o}", "region",
                     page_text(zone->region.text), "zone", page_text(zone->label.text), "others",
                     place == PAGE_ZONES_MAX, "self", zone->counts[0] > 0, "alive",
                     (int)(zone->counts[0] + zone->counts[1]), "suspect", (int)zone->counts[2],
                     "leaving", (int)zone->counts[3], "gone", (int)zone->counts[4], "map",
                     json_stringn(map, used));
}

json_t *page_members(const struct gossip *gossip, const struct node_id *self)
{
    struct tally tally = {.trouble = json_array()};
    struct member member;
    json_t *zones = json_array();
    while (tally.seen < PAGE_MEMBERS_MAX && gossip_at(gossip, tally.seen, &member))
        count(&tally, &member, self);
    for (size_t i = 0; i < tally.zone_count; i++)
        (void)json_array_append_new(zones, zone_json(&tally, i));
    if (tally.others)
        (void)json_array_append_new(zones, zone_json(&tally, PAGE_ZONES_MAX));
    return json_pack("{s:o,s:o,s:o,s:o,s:o}", "known", page_number(gossip_count(gossip)),
                     "looked_at", page_number(tally.seen), "zones", zones, "trouble", tally.trouble,
                     "trouble_more", page_number(tally.trouble_more));
}

json_t *page_member_row(const struct gossip *gossip, const struct node_id *id,
                        const struct peer_addr *addr)
{
    char text[SHORT_HEX_BYTES], where[PEER_ADDR_TEXT_BYTES];
    struct member member;
    const char *distance = "";
    bool known = gossip_find(gossip, id, &member);
    if (known)
        distance =
            distance_name(topology_distance(&gossip_self(gossip)->topology, &member.topology));
    return json_pack("{s:s,s:s,s:o,s:s}", "addr", peer_addr_text(addr, where), "id",
                     short_hex(id->bytes, text), "zone",
                     page_text(known ? member.topology.zone.text : ""), "distance", distance);
}
