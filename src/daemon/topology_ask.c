/* SPDX-License-Identifier: Apache-2.0 */
/* One bounded answer of a source of topology labels; see topology_internal.h. */
#include <string.h>
#include <strings.h>

#include "log.h"
#include "topology_internal.h"

static void on_head(void *arg, const struct fetch_response *response)
{
    struct topology_ask *ask = &((struct topology_detect *)arg)->ask;
    const char *flavor = fetch_response_header(response, "metadata-flavor");
    ask->status = response->status;
    ask->google = flavor != NULL && strcasecmp(flavor, "Google") == 0;
    ask->body_bytes = 0;
}

/* What is too long is no answer: the rest is read and dropped until the source's time is over. */
static bool on_body(void *arg, const uint8_t *bytes, size_t byte_count)
{
    struct topology_ask *ask = &((struct topology_detect *)arg)->ask;
    if (byte_count > TOPOLOGY_ANSWER_BYTES_MAX - ask->body_bytes) {
        ask->err = E_TOO_LARGE;
        return true;
    }
    memcpy(ask->body + ask->body_bytes, bytes, byte_count);
    ask->body_bytes += byte_count;
    return true;
}

static void on_done(void *arg, int err)
{
    struct topology_detect *detect = arg;
    struct topology_ask *ask = &detect->ask;
    ask->fetch = NULL;
    ask->err = ask->err != 0 ? ask->err : err;
    ask->body[ask->body_bytes] = '\0';
    ask->done(detect);
}

int topology__ask(struct topology_detect *detect, struct fetch_request *request,
                  void (*done)(struct topology_detect *detect))
{
    static const struct fetch_callbacks callbacks = {on_head, on_body, on_done};
    struct topology_ask *ask = &detect->ask;
    struct address_ranges own;
    ASSERT(ask->fetch == NULL);
    if (ask->body == NULL)
        ask->body = detect->env.alloc(detect->env.host, NULL, TOPOLOGY_ANSWER_BYTES_MAX + 1);
    if (ask->body == NULL)
        return E_NO_MEMORY;
    ask->done = done;
    ask->err = ask->status = 0;
    ask->google = false;
    ask->body_bytes = 0;
    request->connect_timeout_ms = TOPOLOGY_STEP_MS;
    request->first_byte_timeout_ms = TOPOLOGY_STEP_MS;
    request->idle_timeout_ms = TOPOLOGY_STEP_MS;
    address_ranges_private(&own, true);
    request->allow_private = &own;
    memcpy(request->pool_key, "topology", 8); /* never shared with registries (ORG-5) */
    int err = detect->engine.start(detect->engine.self, request, &callbacks, detect, &ask->fetch);
    return err == 0 ? E_AGAIN : err;
}

int topology__ask_result(const struct topology_ask *ask)
{
    if (ask->err != 0)
        return ask->err;
    if (ask->status == 200)
        return 0;
    if (ask->status == 401 || ask->status == 403)
        return E_DENIED;
    return ask->status < 500 && ask->status != 429 ? E_NOT_FOUND : E_ORIGIN;
}

void topology__ask_stop(struct topology_detect *detect)
{
    struct topology_ask *ask = &detect->ask;
    if (ask->fetch != NULL)
        detect->engine.cancel(detect->engine.self, ask->fetch);
    ask->fetch = NULL;
    (void)detect->env.alloc(detect->env.host, ask->body, 0);
    ask->body = NULL;
}
