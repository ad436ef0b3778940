/* SPDX-License-Identifier: Apache-2.0 */
/* The node's own logins; see registry_logins.h. */
#include "registry_logins.h"

#include <sodium.h>

#include "log.h"
#include "secret_file.h"

#define WARN_US (60ull * 1000 * 1000)

static const char *reason(int err)
{
    if (err == E_NOT_FOUND)
        return "no entry for this registry";
    if (err == E_UNSUPPORTED)
        return "the entry has neither password nor token";
    if (err == E_REFUSED)
        return "user:password would go to whatever host a client asks for: a pattern needs "
               "dockerconfigjson, which names them";
    return err == E_MALFORMED ? "neither dockerconfigjson nor user:password" : err_text(err);
}

int registry_login_read(const struct registry_entry *entry, struct registry_login *out,
                        struct config_error *error)
{
    const char *file = entry->credentials_file;
    bool by_pattern = entry->by_pattern || entry->name[0] == '*';
    char *text = NULL;
    size_t bytes = 0;
    int err = secret_file_check(file, error);
    if (err != 0)
        return err;
    err = file_read_whole(file, REGISTRY_LOGIN_FILE_MAX, &text, &bytes);
    if (err != 0)
        return config_fail(error, "%.300s: cannot read: %s", file, err_text(err));
    err = registry_login_parse(text, bytes, entry->name, by_pattern, out);
    sodium_memzero(text, bytes);
    (void)loop_alloc(NULL, text, 0);
    if (err == 0)
        return 0;
    if (err == E_UNSUPPORTED && out->helper[0] != '\0')
        return config_fail(error,
                           "%.300s: the login for %s is with the credential helper "
                           "docker-credential-%s, and no programs are run: put `auth` or a token "
                           "for it under `auths`, or name a file with user:password",
                           file, entry->name, out->helper);
    (void)config_fail(error, "%.300s: no login for %s: %s", file, entry->name, reason(err));
    return err == E_NOT_FOUND ? E_NOT_FOUND : E_CONFIG;
}

/* That a pattern lets in more registries than there are logins is as it should be. */
static int find(void *host, const struct registry_entry *registry, struct registry_login *out)
{
    struct registry_logins *logins = host;
    struct config_error error;
    int err = registry_login_read(registry, out, &error);
    uint64_t now_us = loop_now_us(logins->loop);
    bool usual = err == E_NOT_FOUND && registry->by_pattern;
    if (err != 0 && !usual && (logins->warned_us == 0 || now_us - logins->warned_us >= WARN_US)) {
        logins->warned_us = now_us;
        log_to(&logins->loop->env, LOG_WARN, "registries.credentials: %s", error.text);
    }
    return err;
}

void registry_logins_bind(struct registry_logins *logins, struct loop *loop,
                          struct origin_logins *out)
{
    *logins = (struct registry_logins){.loop = loop};
    *out = (struct origin_logins){.host = logins, .find = find};
}
