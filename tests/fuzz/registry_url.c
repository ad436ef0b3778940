/* SPDX-License-Identifier: Apache-2.0 */
/*
 * URLs and Location values. What is accepted is rebuilt to a text that means the same and holds
 * nothing libcurl could read otherwise (ORG-2, ORG-3). Input: base URL, newline, Location.
 */
#include <stdlib.h>
#include <string.h>

#include "../../src/registry/url.h"
#include "log.h"

static void check_stable(const char *text, size_t bytes)
{
    static char built[URL_BYTES_MAX + 8], again[URL_BYTES_MAX + 8];
    struct url_parts first, second;

    ASSERT(url__parse(text, bytes, &first) == 0);
    ASSERT(strpbrk(first.host, "@/\\?# \t%") == NULL);
    if (url__build(&first, built, sizeof built) != 0)
        return;
    if (strlen(built) > URL_BYTES_MAX)
        return; /* the '/' of an empty path made it too long */
    ASSERT(url__parse(built, strlen(built), &second) == 0);
    ASSERT(url__same_origin(&first, &second));
    ASSERT(url__build(&second, again, sizeof again) == 0);
    ASSERT(strcmp(built, again) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char out[URL_BYTES_MAX + 1];
    const uint8_t *newline = size > 0 ? memchr(data, '\n', size) : NULL;
    size_t base_bytes = newline == NULL ? size : (size_t)(newline - data);
    struct url_parts base;
    char *location;

    if (url__parse((const char *)data, base_bytes, &base) != 0)
        return 0;
    check_stable((const char *)data, base_bytes);
    if (newline == NULL)
        return 0;
    location = malloc(size - base_bytes);
    if (location == NULL)
        return 0;
    memcpy(location, newline + 1, size - base_bytes - 1);
    location[size - base_bytes - 1] = '\0';
    if (url__resolve(&base, location, out, sizeof out) == 0)
        check_stable(out, strlen(out));
    free(location);
    return 0;
}
