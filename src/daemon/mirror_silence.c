/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registries that were silent a moment ago (O-1). A request that may be answered on a stale grant
 * (ACL-6) waits for a silent registry once, not with each blob: while its silence is fresh, further
 * ones are answered at once, and one probe at a time, which no client waits for, tells whether it
 * is back. Probes are sent only while such requests come or such answers are under way; without
 * them silence is forgotten after some seconds (O-2: nothing counts against a registry for longer
 * than 5 s). Whoever has no grant is not concerned: its question is asked in full.
 */
#include <string.h>

#include "bytes.h"
#include "log.h"
#include "mirror_internal.h"

/* Silence counts for so long after it was last met. Longer than from one probe's end over the pause
 * and a tick of a second to the next one's. */
#define SILENT_US      (4ull * 1000000)
#define PROBE_PAUSE_US (1ull * 1000000)
/* What failed faster (a refused connection, a 5xx) costs next to nothing to ask again. */
#define SILENT_LEAST_US (100ull * 1000)
static_assert(SILENT_US > PROBE_PAUSE_US + 1000000 + MIRROR_HURRY_MS * 1000ull, "a probe each");

/* NULL: the registry was not silent, or is forgotten. */
static struct silent_registry *find(const struct mirror_request *request)
{
    struct silent_registry *all = request->mirror->silent;
    for (size_t i = 0; i < MIRROR_SILENT_MAX; i++) {
        if (all[i].name[0] != '\0' && strcmp(all[i].name, request->registry->name) == 0)
            return &all[i];
    }
    return NULL;
}

static void forget(struct silent_registry *silent)
{
    if (silent->probe != NULL)
        origin_cancel(silent->mirror->config.origin, silent->probe);
    *silent = (struct silent_registry){0};
}

/* A free place, or that of the longest silent one: the registry is then asked as ever. */
static struct silent_registry *place(struct mirror *mirror)
{
    struct silent_registry *oldest = &mirror->silent[0];
    for (size_t i = 0; i < MIRROR_SILENT_MAX; i++) {
        if (mirror->silent[i].name[0] == '\0')
            return &mirror->silent[i];
        if (mirror->silent[i].met_us < oldest->met_us)
            oldest = &mirror->silent[i];
    }
    forget(oldest);
    return oldest;
}

void mirror_silence__heard(const struct mirror_request *request, int err, int status)
{
    struct mirror *mirror = request->mirror;
    struct silent_registry *silent = find(request);
    uint64_t now_us = mirror__now_us(mirror);
    if (!mirror__registry_down(err, status)) {
        if (silent != NULL)
            forget(silent);
        return;
    }
    if (now_us - request->started_us < SILENT_LEAST_US)
        return;
    if (silent == NULL) {
        silent = place(mirror);
        silent->mirror = mirror;
        if (text_copy(silent->name, sizeof silent->name, request->registry->name) != 0)
            return; /* names of entries fit */
        log_to(&mirror->config.loop->env, LOG_DEBUG, "mirror: silent registry=%s", silent->name);
    }
    silent->met_us = now_us;
    silent->probe_us = now_us + PROBE_PAUSE_US;
}

/* ---- the probe ---- */

static void probe_head(void *arg, const struct fetch_response *response)
{
    struct silent_registry *silent = arg;
    silent->status = response->status;
}

static bool probe_body(void *arg, const uint8_t *bytes, size_t byte_count)
{
    (void)arg;
    (void)bytes;
    (void)byte_count;
    return true;
}

static void probe_done(void *arg, int err)
{
    struct silent_registry *silent = arg;
    uint64_t now_us = mirror__now_us(silent->mirror);
    silent->probe = NULL;
    if (!mirror__registry_down(err == E_ORIGIN ? 0 : err, silent->status)) {
        forget(silent);
        return;
    }
    silent->met_us = now_us;
    silent->probe_us = now_us + PROBE_PAUSE_US;
}

/* Without anybody's credentials: whatever the registry says to that, it is there. */
static void probe(struct silent_registry *silent, const struct mirror_request *request)
{
    static const struct fetch_callbacks callbacks = {probe_head, probe_body, probe_done};
    struct mirror *mirror = request->mirror;
    uint64_t now_us = mirror__now_us(mirror);
    const struct origin_request ask = {
        .registry = request->registry,
        .kind = ORIGIN_PASS,
        .method = "GET",
        .path_and_query = "/v2/",
        .head_ms = MIRROR_HURRY_MS,
        .size_bytes = UINT64_MAX,
        .whole = true,
    };
    silent->status = 0;
    silent->probe_us = now_us + PROBE_PAUSE_US;
    if (origin_start(mirror->config.origin, now_us, &ask, &callbacks, silent, &silent->probe) != 0)
        silent->probe = NULL; /* the next one tries */
}

bool mirror_silence__known(const struct mirror_request *request)
{
    struct silent_registry *silent = find(request);
    uint64_t now_us = mirror__now_us(request->mirror);
    if (silent == NULL)
        return false;
    if (now_us - silent->met_us >= SILENT_US) {
        forget(silent);
        return false;
    }
    if (silent->probe == NULL && now_us >= silent->probe_us)
        probe(silent, request);
    return true;
}
