/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of the audit log; see audit.h. */
#include "audit.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "log.h"

#define PATH_BYTES                                                                                 \
    640                /* a name of 255, a digest and what is around them; of a URL its beginning  \
                        */
#define NAME_BYTES 128 /* of the registry, as in ?ns= */

/* A target's path, one word of printable characters. Before an '@' is where URLs have passwords. */
static void path_put(const char *target, char out[PATH_BYTES])
{
    size_t bytes = strcspn(target, "?#");
    if (memchr(target, '@', bytes) != NULL) {
        memcpy(out, "...", sizeof "...");
        return;
    }
    if (bytes >= PATH_BYTES)
        bytes = PATH_BYTES - 1;
    for (size_t i = 0; i < bytes; i++)
        out[i] = (char)(target[i] > 0x20 && target[i] < 0x7f ? target[i] : '?');
    out[bytes] = '\0';
}

/* The value of ns= as it was sent, "-" if there is none or no name could be so. */
static void registry_put(const char *target, char out[NAME_BYTES])
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:%[]";
    const char *query = strchr(target, '?');
    const char *ns = query == NULL ? NULL : strstr(query, "ns=");
    size_t bytes = ns == NULL ? 0 : strspn(ns + 3, allowed);
    bool own = ns != NULL && (ns[-1] == '?' || ns[-1] == '&') &&
               (ns[3 + bytes] == '\0' || ns[3 + bytes] == '&');
    bool signed_url = strncmp(target, "/accel", 6) == 0;
    if (bytes == 0 || !own || signed_url || text_copy_n(out, NAME_BYTES, ns + 3, bytes) != 0)
        memcpy(out, "-", sizeof "-");
}

const char *audit_line(const struct exchange_outcome *outcome, uint64_t ended_us,
                       char out[AUDIT_LINE_BYTES])
{
    static const char *const methods[] = {"-", "GET", "HEAD", "POST", "-"};
    char path[PATH_BYTES], registry[NAME_BYTES], peer[PEER_ADDR_TEXT_BYTES];
    path_put(outcome->request->target, path);
    registry_put(outcome->request->target, registry);
    (void)snprintf(out, AUDIT_LINE_BYTES,
                   "audit: client=%s method=%s registry=%s path=%s status=%d bytes=%" PRIu64
                   " of=%" PRIu64 " ms=%" PRIu64,
                   peer_addr_text(outcome->peer, peer), methods[outcome->request->method], registry,
                   path, outcome->status, outcome->body_bytes, outcome->length,
                   (ended_us - outcome->arrived_us) / 1000);
    return out;
}

void audit_write(struct loop *loop, const struct exchange_outcome *outcome)
{
    char line[AUDIT_LINE_BYTES];
    log_to(&loop->env, LOG_INFO, "%s", audit_line(outcome, loop_now_us(loop), line));
}
