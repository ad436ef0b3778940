/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blobs that their registry answers with 500, 502, 503 or 504 (O-5). One client's pull reads a blob
 * in several ranges, with leases that are tried again and with a last try around the mesh; each of
 * them alone would keep to its three tries, and the registry would still be asked a dozen times. So
 * tries are counted per blob: when three were answered so within ten seconds, no further one goes
 * out until those are over, and its status is what the caller hears.
 */
#include "origin.h"

#include <string.h>

#include "digest.h"

static bool is_counted(const struct origin_fetch *fetch)
{
    return fetch->request.kind == ORIGIN_BLOB && !fetch->head_only && fetch->handed_url == NULL;
}

static void key_of(const struct origin_fetch *fetch, uint8_t out[32])
{
    hmac_sha256(fetch->origin->key, fetch->registry_name, strlen(fetch->registry_name) + 1,
                fetch->request.path_and_query, strlen(fetch->request.path_and_query), out);
}

/* The running count of the blob; NULL: none. */
static struct origin_trouble *find(const struct origin_fetch *fetch)
{
    struct origin *origin = fetch->origin;
    uint8_t key[32];

    key_of(fetch, key);
    for (size_t i = 0; i < ORIGIN_TROUBLES_MAX; i++) {
        struct origin_trouble *trouble = &origin->troubles[i];

        if (origin->now_us < trouble->end_us && memcmp(trouble->key, key, sizeof key) == 0)
            return trouble;
    }
    return NULL;
}

/* The count that ends first makes room. */
static struct origin_trouble *begin(const struct origin_fetch *fetch)
{
    struct origin *origin = fetch->origin;
    struct origin_trouble *place = &origin->troubles[0];

    for (size_t i = 1; i < ORIGIN_TROUBLES_MAX; i++)
        if (origin->troubles[i].end_us < place->end_us)
            place = &origin->troubles[i];
    *place = (struct origin_trouble){.end_us = origin->now_us + ORIGIN_TROUBLE_US};
    key_of(fetch, place->key);
    return place;
}

bool origin__trouble_admit(struct origin_fetch *fetch)
{
    struct origin_trouble *trouble = is_counted(fetch) ? find(fetch) : NULL;

    fetch->counted = trouble != NULL;
    fetch->troubled = trouble != NULL && trouble->tries >= ORIGIN_TRIES_MAX;
    if (trouble == NULL)
        return true;
    if (fetch->troubled) {
        fetch->last_status = trouble->status;
        fetch->origin->counters.troubled++;
        return false;
    }
    trouble->tries++;
    return true;
}

bool origin__trouble_over(const struct origin_fetch *fetch)
{
    const struct origin_trouble *trouble = is_counted(fetch) ? find(fetch) : NULL;

    return trouble != NULL && trouble->tries >= ORIGIN_TRIES_MAX;
}

void origin__trouble_note(struct origin_fetch *fetch, int status)
{
    struct origin_trouble *trouble;

    if (!is_counted(fetch))
        return;
    trouble = find(fetch);
    if (status == 429 || !origin__status_passing(status)) {
        if (trouble != NULL && (status == 200 || status == 206))
            *trouble = (struct origin_trouble){0};
        return;
    }
    if (trouble == NULL)
        trouble = begin(fetch);
    trouble->tries += fetch->counted ? 0 : 1;
    trouble->status = status;
}
