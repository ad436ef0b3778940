/* SPDX-License-Identifier: Apache-2.0 */
/* Login files and replies of token services: whatever is accepted can stand in a header. */
#include <string.h>

#include "../../src/registry/tokens.h"
#include "log.h"
#include "registry.h"

static void is_clean(const char *text, bool spaces)
{
    for (; *text != '\0'; text++)
        ASSERT((unsigned char)*text >= (spaces ? 0x20 : 0x21) && *text != 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char token[TOKEN_BYTES_MAX + 1];
    struct registry_login login;
    uint64_t life_s = 0;

    if (registry_login_parse((const char *)data, size, "r.corp.test", size % 2 != 0, &login) == 0) {
        bool password = login.kind == REGISTRY_LOGIN_PASSWORD;
        is_clean(login.user, true);
        is_clean(login.password, true);
        is_clean(login.token, false);
        ASSERT((login.user[0] != '\0') == password && strchr(login.user, ':') == NULL);
        ASSERT((login.token[0] != '\0') != password);
    }
    if (token_reply_parse((const char *)data, size, token, &life_s) == 0) {
        is_clean(token, false);
        ASSERT(token[0] != '\0');
    }
    return 0;
}
