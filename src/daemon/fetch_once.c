/* SPDX-License-Identifier: Apache-2.0 */
/* One exchange from beginning to end; see fetch_once.h. */
#include "fetch_once.h"

#include <stdio.h>
#include <string.h>

#include "curl_loop.h"
#include "loop.h"

struct run {
    struct loop *loop;
    struct fetch_once *once;
    const struct fetch_engine *engine;
    struct fetch *fetch;
    int err;
};

static void on_head(void *arg, const struct fetch_response *response)
{
    struct run *run = arg;
    const char *date = fetch_response_header(response, "date");
    run->once->status = response->status;
    (void)snprintf(run->once->date, sizeof run->once->date, "%s", date == NULL ? "" : date);
}

static bool on_body(void *arg, const uint8_t *bytes, size_t byte_count)
{
    struct run *run = arg;
    struct fetch_once *once = run->once;
    if (once->body_max == 0)
        return true;
    if (byte_count > once->body_max - once->body_bytes) {
        run->err = E_TOO_LARGE; /* the rest is of no use, and may never end */
        run->engine->cancel(run->engine->self, run->fetch);
        loop_stop(run->loop);
        return true;
    }
    memcpy(once->body + once->body_bytes, bytes, byte_count);
    once->body_bytes += byte_count;
    return true;
}

static void on_done(void *arg, int err)
{
    struct run *run = arg;
    if (run->err == 0)
        run->err = err;
    loop_stop(run->loop);
}

/* A certificate's names may be among the words, and go to a terminal. */
static void words_clean(char *text)
{
    for (; *text != '\0'; text++)
        if (*text < 0x20 || *text >= 0x7f)
            *text = '?';
}

int fetch_once(const struct fetch_request *request, struct fetch_once *once)
{
    static const struct fetch_callbacks callbacks = {on_head, on_body, on_done};
    struct loop_options options = {.log_level = LOG_ERROR, .log_fd = 2};
    struct loop *loop = loop_alloc(NULL, NULL, sizeof *loop);
    struct run run = {.loop = loop, .once = once};
    struct fetch_request own = *request;
    struct curl_loop *curl = NULL;
    once->body_bytes = 0;
    once->status = 0;
    once->date[0] = once->reason[0] = '\0';
    own.reason = once->reason;
    if (loop == NULL || loop_init(loop, &options) != 0) {
        (void)loop_alloc(NULL, loop, 0);
        return E_NO_MEMORY;
    }
    int err = curl_loop_new(loop, &loop->env, 0, &curl);
    if (err == 0) {
        run.engine = curl_loop_engine(curl);
        err = run.engine->start(run.engine->self, &own, &callbacks, &run, &run.fetch);
    }
    if (err != 0)
        loop_stop(loop);
    int ended = loop_run(loop);
    if (ended == 0) { /* else something still uses it */
        curl_loop_free(curl);
        loop_close(loop);
        (void)loop_alloc(NULL, loop, 0);
    }
    words_clean(once->reason);
    return err != 0 ? err : ended != 0 ? ended : run.err;
}
