/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blobs that their registry answers with 429, 500, 502, 503 or 504. One client's pull reads a blob
 * in several ranges, with leases that are tried again and with a last try around the mesh; each of
 * them alone would keep to its three tries (O-5) and to the budget of retries (RES-5), and the
 * registry would still be asked a dozen times, by each node of a crowd. So tries are counted per
 * blob: for ten seconds after such an answer a further one is paid for like any retry, by whomever
 * it is made, unless a client asked anew, and after three that were 5xx none goes out. Who gets
 * none hears the status of before.
 */
#include "origin.h"

#include <string.h>

#include "digest.h"

static bool is_counted(const struct origin_fetch *fetch)
{
    return fetch->request.kind == ORIGIN_BLOB && !fetch->head_only && fetch->handed_url == NULL;
}

static void key_of(const struct origin *origin, const char *registry_name, const char *path,
                   uint8_t out[32])
{
    hmac_sha256(origin->key, registry_name, strlen(registry_name) + 1, path, strlen(path), out);
}

static struct origin_trouble *find_key(struct origin *origin, const uint8_t key[32])
{
    for (size_t i = 0; i < ORIGIN_TROUBLES_MAX; i++) {
        struct origin_trouble *trouble = &origin->troubles[i];

        if (origin->now_us < trouble->end_us && memcmp(trouble->key, key, sizeof trouble->key) == 0)
            return trouble;
    }
    return NULL;
}

/* The running count of the blob; NULL: none. */
static struct origin_trouble *find(const struct origin_fetch *fetch)
{
    uint8_t key[32];

    key_of(fetch->origin, fetch->registry_name, fetch->request.path_and_query, key);
    return find_key(fetch->origin, key);
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
    key_of(origin, fetch->registry_name, fetch->request.path_and_query, place->key);
    return place;
}

/* A try that is not a repeat of this very fetch, which was paid when it was decided on. */
static bool may_try(struct origin_fetch *fetch, struct origin_trouble *trouble)
{
    if (fetch->tries > 1 || fetch->resumes > 0 || fetch->paid)
        return true;
    if (!trouble->asked_anew && !origin__bucket_pay(fetch->origin, fetch->registry_name))
        return false;
    fetch->origin->counters.retries += !trouble->asked_anew;
    fetch->paid = true;
    fetch->earned = !trouble->asked_anew;
    trouble->asked_anew = false;
    return true;
}

bool origin__trouble_admit(struct origin_fetch *fetch)
{
    struct origin_trouble *trouble = is_counted(fetch) ? find(fetch) : NULL;
    uint64_t now_us = fetch->origin->now_us;

    fetch->counted = false;
    fetch->troubled =
        trouble != NULL && (trouble->tries >= ORIGIN_TRIES_MAX || !may_try(fetch, trouble));
    if (fetch->troubled) {
        fetch->last_status = trouble->status;
        fetch->retry_after_ms =
            trouble->wait_us > now_us ? (uint32_t)((trouble->wait_us - now_us) / 1000) : 0;
        fetch->origin->counters.troubled++;
        return false;
    }
    if (trouble != NULL && trouble->status != 429) {
        fetch->counted = true;
        trouble->tries++;
    }
    return true;
}

void origin_asked_anew(struct origin *origin, const struct registry_entry *registry,
                       const char *path_and_query)
{
    uint8_t key[32];

    key_of(origin, registry->name, path_and_query, key);
    struct origin_trouble *trouble = find_key(origin, key);
    if (trouble != NULL)
        trouble->asked_anew = true;
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
    if (!origin__status_passing(status)) {
        if (trouble != NULL && (status == 200 || status == 206))
            *trouble = (struct origin_trouble){0};
        return;
    }
    if (trouble == NULL)
        trouble = begin(fetch);
    trouble->tries += fetch->counted || status == 429 ? 0 : 1; /* that one is waited out (O-4) */
    trouble->status = status;
    trouble->wait_us = fetch->origin->now_us + (uint64_t)fetch->retry_after_ms * 1000;
}
