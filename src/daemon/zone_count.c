/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of zones and their members (zone_count.h). */
#include "zone_count.h"

#include <string.h>

static struct zone_row *row_add(struct zone_counts *counts, const struct label *zone)
{
    struct zone_row *row = &counts->rows[counts->count++];
    *row = (struct zone_row){.zone = *zone};
    return row;
}

static struct zone_row *row_find(struct zone_counts *counts, const struct label *zone)
{
    for (uint32_t i = 0; i < counts->count; i++)
        if (strcmp(counts->rows[i].zone.text, zone->text) == 0)
            return &counts->rows[i];
    return NULL;
}

/* The rest may have its row before others have theirs: the one more than ZONE_COUNT_MAX is its. */
static struct zone_row *row_of(struct zone_counts *counts, const struct label *zone)
{
    static const struct label rest = {ZONE_COUNT_REST};
    struct zone_row *row = row_find(counts, zone);
    if (row != NULL)
        return row;
    bool own = strcmp(zone->text, rest.text) != 0;
    bool has_rest = row_find(counts, &rest) != NULL;
    if (own && counts->count < ZONE_COUNT_MAX + (has_rest ? 1U : 0U))
        return row_add(counts, zone);
    return has_rest ? row_find(counts, &rest) : row_add(counts, &rest);
}

void zone_counts_add(struct zone_counts *counts, const struct member *member)
{
    bool alive = member->state == MEMBER_ALIVE;
    bool suspect = member->state == MEMBER_SUSPECT;
    bool leaving = member->state == MEMBER_LEAVING;
    if (!alive && !suspect && !leaving)
        return;
    struct zone_row *row = row_of(counts, &member->topology.zone);
    row->alive += alive;
    row->suspect += suspect;
    row->leaving += leaving;
}

void zone_counts_of(const struct gossip *gossip, struct zone_counts *out)
{
    struct member member;
    out->count = 0;
    (void)row_of(out, &gossip_self(gossip)->topology.zone);
    for (size_t i = 0; gossip_at(gossip, i, &member); i++)
        zone_counts_add(out, &member);
}
