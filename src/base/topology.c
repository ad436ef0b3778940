/* SPDX-License-Identifier: Apache-2.0 */
/* Topology labels and the distance they give (DESIGN §2). */
#include "topology.h"

#include <string.h>

/* Letters and digits of ASCII, whatever the locale, and the marks clouds use in zone names. */
static bool label_byte_valid(char c)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'))
        return true;
    return c == '.' || c == '_' || c == ':' || c == '/' || c == '-';
}

int label_set(struct label *out, const char *text, size_t text_bytes)
{
    if (text_bytes > LABEL_BYTES_MAX)
        return E_TOO_LARGE;
    for (size_t i = 0; i < text_bytes; i++) {
        if (!label_byte_valid(text[i]))
            return E_MALFORMED;
    }
    /* The tail is zeroed: labels may be hashed or compared as a whole. */
    memset(out->text, 0, sizeof out->text);
    if (text_bytes > 0)
        memcpy(out->text, text, text_bytes);
    return 0;
}

bool label_equal(const struct label *a, const struct label *b)
{
    return strcmp(a->text, b->text) == 0;
}

bool topology_same_zone(const struct topology *a, const struct topology *b)
{
    return label_equal(&a->zone, &b->zone);
}

enum distance topology_distance(const struct topology *a, const struct topology *b)
{
    if (a->vswitch.text[0] != '\0' && label_equal(&a->vswitch, &b->vswitch))
        return DISTANCE_VSWITCH;
    if (topology_same_zone(a, b))
        return DISTANCE_ZONE;
    if (label_equal(&a->region, &b->region))
        return DISTANCE_REGION;
    return DISTANCE_ELSEWHERE;
}

const char *distance_name(enum distance distance)
{
    switch (distance) {
    case DISTANCE_VSWITCH:
        return "vswitch";
    case DISTANCE_ZONE:
        return "zone";
    case DISTANCE_REGION:
        return "region";
    case DISTANCE_ELSEWHERE:
    case DISTANCE_COUNT:
    default:
        return "elsewhere";
    }
}
