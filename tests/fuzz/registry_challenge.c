/* SPDX-License-Identifier: Apache-2.0 */
/* WWW-Authenticate values, and the realm rule on whatever they name (ORG-4). */
#include <string.h>
#include <strings.h>

#include "log.h"
#include "registry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct registry_entry entry = {.endpoint = "https://registry.test",
                                                .realm_hosts = {"auth.test"}};
    struct auth_challenge challenge;

    if (auth_challenge_parse((const char *)data, size, &challenge) != 0)
        return 0;
    ASSERT(challenge.realm[0] != '\0');
    ASSERT(strlen(challenge.scope) <= AUTH_CHALLENGE_BYTES_MAX);
    if (auth_realm_allowed(&entry, challenge.realm))
        ASSERT(strncasecmp(challenge.realm, "https://", 8) == 0);
    return 0;
}
