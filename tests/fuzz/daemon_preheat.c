/* SPDX-License-Identifier: Apache-2.0 */
/* Notifications and Authorization values of the port for orders: names are names, and nothing but
 * the token is the token. The first byte chooses. */
#include <stdlib.h>
#include <string.h>

#include "../../src/daemon/prefetch_port.h"
#include "../../src/daemon/preheat.h"
#include "log.h"

static void authorize(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (text == NULL)
        return;
    memcpy(text, data, size);
    text[size] = '\0';
    ASSERT(!prefetch_token_fits(text, "no such token is ever made up by chance"));
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct preheat preheat;
    char error[PULL_ERROR_BYTES];

    if (size > 0 && data[0] == 'A') {
        authorize(data + 1, size - 1);
        return 0;
    }
    if (preheat_parse((const char *)data, size, &preheat, error) != 0) {
        ASSERT(strlen(error) > 0);
        return 0;
    }
    ASSERT(preheat.count + preheat.ignored <= PREHEAT_EVENTS_MAX);
    for (uint32_t i = 0; i < preheat.count; i++) {
        const struct image_name *image = &preheat.orders[i].image;
        ASSERT(ref_host_valid(image->registry, strlen(image->registry)));
        ASSERT(ref_repository_valid(image->repository, strlen(image->repository)));
        ASSERT(image->has_digest || ref_tag_valid(image->tag, strlen(image->tag)));
    }
    return 0;
}
