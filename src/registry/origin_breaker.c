/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One circuit breaker per host that requests go to, the registry's own and those it redirects to
 * (O-2, figures of SECURITY §5). A host that leaves connections and first bytes out again and again
 * is not waited for by every further request: it rests, spare requests to it fail at once, and one
 * probe at a time, the next of them that comes, decides when to go on. Requests of a pull under way
 * go out all the same and are probes, too: a registry that was silent to one client may answer the
 * next, and a pull that would work without us must not fail for our thrift.
 *
 * Only silence counts: an answer of whatever status is a sign of life, and a failure beside one is
 * that request's own. A rest is short (O-2: nothing is negatively cached for more than 5 s), and a
 * few refused connections do not begin one, for a registry that is restarted must not cost a client
 * its pull.
 */
#include "origin.h"

#include <string.h>

#include "digest.h"
#include "log.h"

static void host_hash(const struct url_parts *url, uint8_t out[32])
{
    struct {
        char host[HOST_BYTES_MAX + 1];
        uint16_t port;
    } key;

    memset(&key, 0, sizeof key);
    memcpy(key.host, url->host, strlen(url->host));
    key.port = url->port;
    sha256_of(&key, sizeof key, out);
}

/* ORIGIN_BREAKERS_MAX if there is none. */
static size_t breaker_index(const struct origin *origin, const uint8_t hash[32])
{
    size_t i = 0;

    while (i < ORIGIN_BREAKERS_MAX && (origin->breakers[i].used_seq == 0 ||
                                       memcmp(origin->breakers[i].host_hash, hash, 32) != 0))
        i++;
    return i;
}

/* The breaker of the hop's host; the longest unused one makes room for a new host. */
static struct origin_breaker *breaker_of(struct origin_fetch *fetch)
{
    struct origin *origin = fetch->origin;
    struct origin_breaker *breaker = &origin->breakers[0];
    size_t index = breaker_index(origin, fetch->host_hash);

    if (index < ORIGIN_BREAKERS_MAX) {
        breaker = &origin->breakers[index];
    } else {
        for (size_t i = 0; i < ORIGIN_BREAKERS_MAX; i++)
            if (origin->breakers[i].used_seq < breaker->used_seq)
                breaker = &origin->breakers[i];
        *breaker = (struct origin_breaker){0};
        memcpy(breaker->host_hash, fetch->host_hash, sizeof breaker->host_hash);
    }
    breaker->used_seq = ++origin->breaker_seq;
    return breaker;
}

bool origin__breaker_admit(struct origin_fetch *fetch)
{
    struct origin *origin = fetch->origin;
    struct origin_breaker *breaker;

    host_hash(&fetch->hop_url, fetch->host_hash);
    breaker = breaker_of(fetch);
    fetch->rest_until_us = 0;
    fetch->signs_before = breaker->signs;
    if (breaker->pause_us == 0)
        return true;
    if (origin->now_us < breaker->until_us && !fetch->request.spare && !fetch->head_shown) {
        breaker->probe_us = breaker->probe_us == 0 ? origin->now_us : breaker->probe_us;
        origin->counters.insisted++;
        return true;
    }
    if (origin->now_us < breaker->until_us) {
        fetch->rest_until_us = breaker->until_us;
        origin->counters.rested++;
        return false;
    }
    /* The probe. If it is slow, another follows: a host that is well again is found so. */
    breaker->probe_us = origin->now_us;
    breaker->until_us = origin->now_us + ORIGIN_PROBE_US;
    return true;
}

void origin__breaker_good(struct origin_fetch *fetch)
{
    struct origin_breaker *breaker = breaker_of(fetch);

    if (breaker->pause_us != 0)
        log_to(&fetch->origin->env, LOG_INFO, "origin: answers again registry=%s",
               fetch->registry_name);
    breaker->signs++;
    breaker->failures = 0;
    breaker->pause_us = breaker->probe_us = breaker->until_us = 0;
}

static void begin_rest(struct origin_fetch *fetch, struct origin_breaker *breaker)
{
    struct origin *origin = fetch->origin;

    breaker->pause_us = breaker->pause_us == 0 ? ORIGIN_REST_FIRST_US : 2 * breaker->pause_us;
    if (breaker->pause_us > ORIGIN_REST_MAX_US)
        breaker->pause_us = ORIGIN_REST_MAX_US;
    breaker->until_us = origin->now_us + breaker->pause_us;
    breaker->probe_us = 0;
}

/* Silence, as opposed to an answer that could not be used, or to a caller in a hurry. */
static bool is_silence(const struct origin_fetch *fetch, int err)
{
    uint64_t age_us = fetch->origin->now_us - fetch->attempt_us;

    return err == E_UNREACHABLE || err == E_CLOSED ||
           (err == E_TIMEOUT && age_us >= ORIGIN_SILENCE_US);
}

/* One more silent attempt. True: so many in a row, over such a time, begin a rest. */
static bool is_enough(const struct origin_fetch *fetch, struct origin_breaker *breaker)
{
    uint64_t now_us = fetch->origin->now_us;

    if (breaker->failures == 0 || now_us - breaker->bad_us > ORIGIN_FORGET_US) {
        breaker->failures = 0;
        breaker->first_us = fetch->attempt_us;
    }
    breaker->failures += now_us - fetch->attempt_us < ORIGIN_SILENCE_LONG_US ? 1 : 2;
    breaker->bad_us = now_us;
    return breaker->failures >= ORIGIN_FAILURES_MIN &&
           now_us - breaker->first_us >= ORIGIN_SILENT_SPAN_US;
}

void origin__breaker_bad(struct origin_fetch *fetch, int err)
{
    struct origin *origin = fetch->origin;
    struct origin_breaker *breaker = breaker_of(fetch);
    bool silence = is_silence(fetch, err) && breaker->signs == fetch->signs_before;

    if (silence && breaker->pause_us != 0) {
        if (breaker->probe_us != 0 && fetch->attempt_us >= breaker->probe_us)
            begin_rest(fetch, breaker); /* the probe failed; older attempts tell nothing new */
    } else if (silence && is_enough(fetch, breaker)) {
        begin_rest(fetch, breaker);
        origin->counters.rests++;
        log_to(&origin->env, LOG_WARN, "origin: no answer, resting registry=%s failures=%u err=%s",
               fetch->registry_name, breaker->failures, err_name(err));
    }
    if (breaker->pause_us != 0 && origin->now_us < breaker->until_us &&
        (fetch->request.spare || fetch->head_shown))
        fetch->rest_until_us = breaker->until_us; /* a further try would find that out later */
}

bool origin_resting(const struct origin *origin, const struct registry_entry *registry,
                    uint64_t now_us)
{
    struct url_parts url;
    uint8_t hash[32];
    size_t index;

    if (url__parse(registry->endpoint, strlen(registry->endpoint), &url) != 0)
        return false;
    host_hash(&url, hash);
    index = breaker_index(origin, hash);
    return index < ORIGIN_BREAKERS_MAX && origin->breakers[index].pause_us != 0 &&
           now_us < origin->breakers[index].until_us;
}
