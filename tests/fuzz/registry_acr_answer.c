/* SPDX-License-Identifier: Apache-2.0 */
/* Answers of the cloud's APIs (ORG-7): what is accepted keeps its limits and is text. */
#include <string.h>

#include "../../src/registry/acr_answer.h"
#include "log.h"

static bool plain(const char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || (unsigned char)*text > 0x7e)
            return false;
    return true;
}

static void endpoints_check(const struct acr_endpoints *found)
{
    ASSERT(found->domain_count <= ACR_DOMAINS_MAX);
    for (unsigned i = 0; i < found->domain_count; i++)
        ASSERT(ref_host_valid(found->domains[i], strlen(found->domains[i])));
    ASSERT(plain(found->vpc_why));
    ASSERT(found->vpc_open == (found->vpc_why[0] == '\0'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char body[70000];
    static struct acr_keys keys;
    struct acr_error error;
    struct acr_endpoints found = {.vpc_why = "x"};
    uint64_t expires_s;

    if (size >= sizeof body)
        return 0;
    memcpy(body, data, size);
    body[size] = '\0';
    acr__error_parse(body, size, &error);
    ASSERT(plain(error.code) && plain(error.message) && plain(error.action));
    (void)acr__answer_succeeded(body, size);
    for (int from_metadata = 0; from_metadata < 2; from_metadata++)
        if (acr__keys_parse(body, size, from_metadata != 0, &keys, &expires_s) == 0)
            ASSERT(keys.id[0] != '\0' && plain(keys.id) && plain(keys.secret) && plain(keys.token));
    if (strlen(body) == size && acr__keys_parse_lines(body, &keys) == 0)
        ASSERT(keys.id[0] != '\0' && plain(keys.secret));
    if (acr__endpoints_parse(body, size, "vpc-1", &found) == 0)
        endpoints_check(&found);
    if (acr__vpc_link_parse(body, size, "vpc-1", &found) == 0)
        endpoints_check(&found);
    return 0;
}
