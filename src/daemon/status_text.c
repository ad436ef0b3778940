/* SPDX-License-Identifier: Apache-2.0 */
/* /status for people; see status_text.h. */
#include "status_text.h"

#include <inttypes.h>
#include <string.h>

#define ZONES_MAX   40
#define SWARMS_MAX  20
#define TROUBLE_MAX 10 /* members not alive, by address, of all zones */

const char *bytes_text(uint64_t bytes, char out[BYTES_TEXT_BYTES])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    size_t unit = 0;
    double value = (double)bytes;
    while (value >= 1023.95 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    (void)snprintf(out, BYTES_TEXT_BYTES, "%.*f %s", unit == 0 || value >= 99.95 ? 0 : 1, value,
                   units[unit]);
    return out;
}

const char *span_text(uint64_t seconds, char out[BYTES_TEXT_BYTES])
{
    uint64_t s = seconds;
    if (s < 60)
        (void)snprintf(out, BYTES_TEXT_BYTES, "%" PRIu64 "s", s);
    else if (s < 3600)
        (void)snprintf(out, BYTES_TEXT_BYTES, "%" PRIu64 "m%" PRIu64 "s", s / 60, s % 60);
    else if (s < 86400)
        (void)snprintf(out, BYTES_TEXT_BYTES, "%" PRIu64 "h%" PRIu64 "m", s / 3600, s / 60 % 60);
    else
        (void)snprintf(out, BYTES_TEXT_BYTES, "%" PRIu64 "d%" PRIu64 "h", s / 86400, s / 3600 % 24);
    return out;
}

uint64_t json_number_at(const json_t *object, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(object, key));
    return value < 0 ? 0 : (uint64_t)value;
}

const char *json_text_at(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text == NULL ? "" : text;
}

/* ---- members ---- */

struct zone {
    const char *name;
    unsigned members, alive;
};

static struct zone *zone_of(struct zone *zones, size_t *count, const char *name)
{
    for (size_t i = 0; i < *count; i++)
        if (strcmp(zones[i].name, name) == 0)
            return &zones[i];
    if (*count == ZONES_MAX)
        return NULL;
    zones[*count] = (struct zone){.name = name};
    return &zones[(*count)++];
}

static void zones_put(const json_t *members, FILE *out)
{
    struct zone zones[ZONES_MAX];
    size_t count = 0, left_out = 0, i;
    const json_t *member;
    json_array_foreach(members, i, member)
    {
        struct zone *zone = zone_of(zones, &count, json_text_at(member, "zone"));
        left_out += zone == NULL;
        if (zone == NULL)
            continue;
        zone->members++;
        zone->alive += strcmp(json_text_at(member, "state"), "alive") == 0;
    }
    for (i = 0; i < count; i++)
        (void)fprintf(out, "%-10s%-22s %u alive of %u\n", i == 0 ? "members" : "",
                      zones[i].name[0] == '\0' ? "(zone unknown)" : zones[i].name, zones[i].alive,
                      zones[i].members);
    if (left_out > 0)
        (void)fprintf(out, "%-10s%zu more in further zones\n", "", left_out);
}

static void troubled_put(const json_t *members, FILE *out)
{
    size_t i, shown = 0;
    const json_t *member;
    json_array_foreach(members, i, member)
    {
        const char *state = json_text_at(member, "state");
        if (strcmp(state, "alive") == 0 || shown++ >= TROUBLE_MAX)
            continue;
        (void)fprintf(out, "%-10s%-22s %s\n", "", json_text_at(member, "addr"), state);
    }
    if (shown > TROUBLE_MAX)
        (void)fprintf(out, "%-10s%zu more are not alive\n", "", shown - TROUBLE_MAX);
}

/* ---- bytes ---- */

static void links_put(const json_t *links, FILE *out)
{
    char in_text[BYTES_TEXT_BYTES], out_text[BYTES_TEXT_BYTES];
    uint64_t in = 0, sent = 0;
    size_t i, up = 0;
    const json_t *link;
    json_array_foreach(links, i, link)
    {
        up += json_is_true(json_object_get(link, "established"));
        in += json_number_at(link, "bytes_in");
        sent += json_number_at(link, "bytes_out");
    }
    (void)fprintf(out, "%-10s%zu up, %s in, %s out\n", "sessions", up, bytes_text(in, in_text),
                  bytes_text(sent, out_text));
}

static void bytes_put(const json_t *bytes, FILE *out)
{
    static const char *const rows[][2] = {
        {"origin", "from registries"},  {"peer", "from peers"},      {"vswitch", "  same vSwitch"},
        {"zone", "  same zone"},        {"region", "  same region"}, {"elsewhere", "  elsewhere"},
        {"uploaded", "given to peers"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[BYTES_TEXT_BYTES];
        uint64_t value = json_number_at(bytes, rows[i][0]);
        if (value > 0 || rows[i][1][0] != ' ')
            (void)fprintf(out, "%-10s%-16s %10s\n", i == 0 ? "bytes" : "", rows[i][1],
                          bytes_text(value, text));
    }
}

static void cache_put_text(const json_t *cache, FILE *out)
{
    char held[BYTES_TEXT_BYTES], room[BYTES_TEXT_BYTES];
    (void)fprintf(
        out, "%-10s%s of %s, %" PRIu64 " blobs%s\n", "cache",
        bytes_text(json_number_at(cache, "bytes"), held),
        bytes_text(json_number_at(cache, "capacity_bytes"), room), json_number_at(cache, "blobs"),
        json_is_true(json_object_get(cache, "degraded")) ? ", TAKES NO WRITES: see shoal doctor"
                                                         : "");
}

static void swarm_put(const json_t *swarm, bool first, FILE *out)
{
    char have[BYTES_TEXT_BYTES], size[BYTES_TEXT_BYTES];
    char origin[BYTES_TEXT_BYTES], peer[BYTES_TEXT_BYTES];
    uint64_t size_bytes = json_number_at(swarm, "size_bytes");
    uint64_t have_bytes = json_number_at(swarm, "have_bytes");
    (void)fprintf(out, "%-10s%.19s %3.0f%%  %s of %s, registry %s, peers %s, %" PRIu64 " readers\n",
                  first ? "swarms" : "", json_text_at(swarm, "digest"),
                  size_bytes == 0 ? 100.0 : 100.0 * (double)have_bytes / (double)size_bytes,
                  bytes_text(have_bytes, have), bytes_text(size_bytes, size),
                  bytes_text(json_number_at(swarm, "origin_bytes"), origin),
                  bytes_text(json_number_at(swarm, "peer_bytes"), peer),
                  json_number_at(swarm, "readers"));
}

static void swarms_put(const json_t *swarms, FILE *out)
{
    size_t i, count = json_array_size(swarms);
    const json_t *swarm;
    if (count == 0)
        (void)fprintf(out, "%-10snone\n", "swarms");
    json_array_foreach(swarms, i, swarm)
    {
        if (i < SWARMS_MAX)
            swarm_put(swarm, i == 0, out);
    }
    if (count > SWARMS_MAX)
        (void)fprintf(out, "%-10s%zu more\n", "", count - SWARMS_MAX);
}

void status_text(const json_t *status, FILE *out)
{
    char up[BYTES_TEXT_BYTES];
    const json_t *members = json_object_get(status, "members");
    const json_t *topology = json_object_get(status, "topology");
    const char *zone = json_text_at(json_object_get(topology, "zone"), "value");
    (void)fprintf(out, "%-10s%s at %s, zone %s, cluster %s, shoal %s, up %s\n", "node",
                  json_text_at(status, "id"), json_text_at(status, "addr"),
                  zone[0] == '\0' ? "unknown" : zone, json_text_at(status, "cluster"),
                  json_text_at(status, "version"),
                  span_text(json_number_at(status, "uptime_s"), up));
    if (json_is_true(json_object_get(status, "alone")))
        (void)fprintf(out, "%-10sno other member found: see shoal doctor\n", "");
    zones_put(members, out);
    troubled_put(members, out);
    links_put(json_object_get(status, "links"), out);
    bytes_put(json_object_get(status, "bytes"), out);
    cache_put_text(json_object_get(status, "cache"), out);
    swarms_put(json_object_get(status, "swarms"), out);
}
