/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Response header sections (ORG-7): raw lines in, a shown head out. Whatever comes, names are
 * tokens in lower case, values have no control bytes, and a copy shows the same.
 */
#include <stdlib.h>
#include <string.h>

#include "../../src/registry/headers.h"
#include "../../src/registry/origin.h"
#include "log.h"

static void *fuzz_alloc(void *host, void *old, size_t new_bytes)
{
    (void)host;
    if (new_bytes == 0) {
        free(old);
        return NULL;
    }
    return realloc(old, new_bytes);
}

static void check_shown(const struct fetch_response *response)
{
    for (unsigned i = 0; i < response->header_count; i++) {
        ASSERT(response->headers[i].name[0] != '\0');
        for (const char *c = response->headers[i].name; *c != '\0'; c++)
            ASSERT(*c > 0x20 && *c != ':' && (*c < 'A' || *c > 'Z'));
        for (const char *c = response->headers[i].value; *c != '\0'; c++)
            ASSERT((unsigned char)*c >= 0x20 || *c == '\t');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct headers headers, copy;
    struct fetch_response shown, again;
    const uint8_t *at = data, *end = data + size;
    int err = 0;

    headers__init(&headers, fuzz_alloc, NULL);
    headers__init(&copy, fuzz_alloc, NULL);
    while (at < end && err == 0) {
        const uint8_t *newline = memchr(at, '\n', (size_t)(end - at));
        const uint8_t *next = newline == NULL ? end : newline + 1;

        err = headers__line(&headers, (const char *)at, (size_t)(next - at));
        at = next;
    }
    headers__view(&headers, &shown);
    check_shown(&shown);
    (void)origin__retry_after_ms(&shown);
    if (headers__copy(&copy, &shown) == 0) {
        headers__view(&copy, &again);
        ASSERT(again.header_count == shown.header_count);
        ASSERT(again.content_length == shown.content_length);
        for (unsigned i = 0; i < shown.header_count; i++)
            ASSERT(strcmp(again.headers[i].value, shown.headers[i].value) == 0);
    }
    headers__close(&copy);
    headers__close(&headers);
    return 0;
}
