/* SPDX-License-Identifier: Apache-2.0 */
/* One exchange with a service of the cloud; see acr_call.h. */
#include "acr_call.h"

#include <sodium.h>
#include <string.h>

#include "log.h"
#include "origin.h"

int acr__call_open(struct acr_call *call, const struct fetch_engine *engine)
{
    *call = (struct acr_call){.engine = *engine};
    if (sodium_init() < 0)
        return E_INTERNAL;
    call->body = sodium_malloc(ACR_ANSWER_BYTES_MAX + 1);
    if (call->body == NULL)
        return E_NO_MEMORY;
    call->body[0] = '\0';
    return 0;
}

void acr__call_cancel(struct acr_call *call)
{
    if (call->fetch != NULL)
        call->engine.cancel(call->engine.self, call->fetch);
    call->fetch = NULL;
}

void acr__call_close(struct acr_call *call)
{
    acr__call_cancel(call);
    sodium_free(call->body); /* wipes */
    call->body = NULL;
}

void acr__call_wipe(struct acr_call *call)
{
    sodium_memzero(call->body, call->body_bytes);
    call->body[0] = '\0';
    call->body_bytes = 0;
    call->err = call->status = 0;
    call->date_s = 0;
    call->retry_ms = 0;
    call->too_large = false;
}

/* Milliseconds; only a positive integer counts. */
static uint32_t retry_parse(const char *text)
{
    uint32_t ms = 0;

    if (text == NULL)
        return 0;
    for (; *text >= '0' && *text <= '9' && ms <= ACR_RETRY_AFTER_MAX_MS; text++)
        ms = ms * 10 + (uint32_t)(*text - '0');
    if (ms > ACR_RETRY_AFTER_MAX_MS)
        return ACR_RETRY_AFTER_MAX_MS;
    return *text == '\0' ? ms : 0;
}

static void on_head(void *arg, const struct fetch_response *response)
{
    struct acr_call *call = arg;
    const char *date = fetch_response_header(response, "date");

    call->status = response->status;
    call->retry_ms = retry_parse(fetch_response_header(response, "x-acs-retry-after"));
    if (date == NULL || !origin__http_date(date, &call->date_s))
        call->date_s = 0;
}

/* The rest of an answer that is too long is read and dropped: it is some KiB, or a time-out. */
static bool on_body(void *arg, const uint8_t *bytes, size_t byte_count)
{
    struct acr_call *call = arg;

    if (byte_count > ACR_ANSWER_BYTES_MAX - call->body_bytes) {
        call->too_large = true;
        return true;
    }
    memcpy(call->body + call->body_bytes, bytes, byte_count);
    call->body_bytes += byte_count;
    call->body[call->body_bytes] = '\0';
    return true;
}

static void on_done(void *arg, int err)
{
    struct acr_call *call = arg;

    call->fetch = NULL;
    call->err = err == 0 && call->too_large ? E_TOO_LARGE : err;
    call->done(call->arg);
}

int acr__call_start(struct acr_call *call, const struct fetch_request *request,
                    void (*done)(void *arg), void *arg)
{
    static const struct fetch_callbacks callbacks = {on_head, on_body, on_done};
    struct fetch_request sent = *request;
    struct address_ranges own;

    ASSERT(call->fetch == NULL);
    address_ranges_private(&own, true);
    acr__call_wipe(call);
    call->done = done;
    call->arg = arg;
    sent.allow_private = &own;
    memcpy(sent.pool_key, "acr", 3); /* never shared with registries (ORG-5) */
    return call->engine.start(call->engine.self, &sent, &callbacks, call, &call->fetch);
}
