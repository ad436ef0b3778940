/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Places of storage, and URLs that lie in them or not. Input: place, newline, URL. What is let in
 * begins with the place and cannot lead out of it; a digest is one that the URL spells (ORG-1).
 */
#include <string.h>

#include "../../src/registry/url.h"
#include "bytes.h"
#include "log.h"
#include "registry.h"

#define INPUT_MAX 4096

static void check_url(const struct registry_entry *entry, const char *url)
{
    struct digest digest;
    struct url_parts parts, place;
    char text[DIGEST_TEXT_BYTES];

    if (!registry_storage_digest(entry, url, &digest))
        return;
    ASSERT(strncmp(url, entry->storage[0], strlen(entry->storage[0])) == 0);
    ASSERT(strstr(url, strchr(digest_text(&digest, text), ':') + 1) != NULL);
    ASSERT(url__parse(entry->storage[0], strlen(entry->storage[0]), &place) == 0);
    /* A query may hold what no URL may: the request parser let it not through. */
    if (url__parse(url, strlen(url), &parts) == 0)
        ASSERT(url__same_origin(&parts, &place));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct registry_entry entry;
    static char input[INPUT_MAX + 1];
    char *newline;

    if (text_copy_n(input, sizeof input, (const char *)data, size) != 0)
        return 0;
    newline = strchr(input, '\n');
    if (newline != NULL)
        *newline = '\0';
    if (!registry_storage_valid(input))
        return 0;
    ASSERT(text_copy(entry.storage[0], sizeof entry.storage[0], input) == 0);
    if (newline != NULL)
        check_url(&entry, newline + 1);
    return 0;
}
