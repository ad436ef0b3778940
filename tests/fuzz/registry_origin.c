/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The origin client as a whole: the input plays the registry, the store and a moody caller. Blob
 * bytes shown must be the right prefix whenever the server's numbers were honest about them, done
 * comes once and last, and nothing leaks.
 */
#include "../../src/registry/origin.h"
#include "../unit/registry_fake.h"

struct input {
    const uint8_t *at;
    size_t left;
};

static struct fake fake;
static struct fake_caller caller;

static unsigned take(struct input *in)
{
    if (in->left == 0)
        return 0;
    in->left--;
    return *in->at++;
}

/* Up to `bytes_max` bytes of text without zeros, '\n' and ':' as the fake's head wants them. */
static void take_value(struct input *in, char *out, size_t bytes_max)
{
    size_t bytes = take(in) % bytes_max, used = 0;

    while (used < bytes && in->left > 0) {
        unsigned c = take(in);

        if (c >= 0x20 && c != 0x7f)
            out[used++] = (char)c;
    }
    out[used] = '\0';
}

static void play_head(struct input *in, struct fake_call *call)
{
    static const char *const names[] = {"location", "content-range", "retry-after", "date", "x"};
    static const int statuses[] = {200, 206, 206, 301, 307, 307, 401, 403,
                                   404, 416, 429, 500, 503, 204, 304, 299};
    char headers[1024] = "", value[128];
    size_t used = 0;

    for (unsigned i = take(in) % 4; i > 0; i--) {
        const char *name = names[take(in) % 5];

        take_value(in, value, sizeof value);
        used += (size_t)snprintf(headers + used, sizeof headers - used, "%s: %s\n", name, value);
    }
    fake_head(call, statuses[take(in) % 16], headers,
              take(in) % 4 == 0 ? UINT64_MAX : take(in) % 70);
}

static void play_step(struct input *in, struct origin *origin)
{
    static const int errors[] = {0, E_CLOSED, E_TIMEOUT, E_UNREACHABLE, E_TLS, E_TOO_LARGE};
    struct fake_call *call = fake.call_count == 0 ? NULL : &fake.calls[fake.call_count - 1];

    switch (take(in) % 8) {
    case 0:
    case 1:
        if (call != NULL && !call->headed)
            play_head(in, call);
        break;
    case 2:
    case 3: {
        static uint8_t bytes[256];

        caller.pause = take(in) % 8 == 0;
        if (call != NULL && call->headed)
            (void)fake_body(call, bytes, 1 + take(in) % 80);
        break;
    }
    case 4:
        if (call != NULL && !call->paused)
            fake_done(call, errors[take(in) % 6]);
        break;
    case 5:
        if (caller.paused && caller.dones == 0)
            caller_resume(&caller);
        break;
    default:
        (void)fake_turn(&fake, origin);
        break;
    }
}

static void play(struct input *in, struct origin *origin)
{
    static struct registry_entry entry = {.name = "r", .endpoint = "https://r.test"};
    unsigned flags = take(in);
    struct origin_request request = {.registry = &entry,
                                     .kind = (enum origin_kind)(1 + flags % 3),
                                     .method = (flags & 0x10) != 0 ? "HEAD" : "GET",
                                     .path_and_query = "/v2/x",
                                     .authorization = "Bearer x",
                                     .whole = (flags & 0x20) != 0,
                                     .size_bytes = (flags & 0x40) != 0 ? UINT64_MAX : 64,
                                     .first = take(in) % 64};

    request.last = request.first + take(in) % (64 - request.first);
    caller_init(&caller, &fake, origin);
    caller.cancel_in_head = (flags & 0x80) != 0;
    if (caller_start(&caller, &request) != 0)
        return;
    while (caller.dones == 0 && in->left > 0)
        play_step(in, origin);
    ASSERT(!caller.disorder);
    if (caller.dones == 1 && caller.err == 0 && request.kind == ORIGIN_BLOB &&
        (caller.status == 200 || caller.status == 206) && request.size_bytes == 64 &&
        (flags & 0x10) == 0)
        ASSERT(caller.body_bytes == (request.whole ? 64 : request.last - request.first + 1));
    for (unsigned i = 0; i < fake.call_count; i++)
        if (strncmp(fake.calls[i].url, "https://r.test/", 15) != 0)
            ASSERT(fake_sent(&fake.calls[i], "Authorization", 0) == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct origin *origin;

    fake_init(&fake, 1);
    if (origin_new(&fake.env, &fake.engine, &fake.timer, &origin) != 0)
        return 0;
    while (in.left > 0 && fake.call_count < FAKE_CALLS_MAX)
        play(&in, origin);
    origin_free(origin);
    ASSERT(fake.allocations == 0);
    return 0;
}
