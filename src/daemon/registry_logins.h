/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node's own logins for registries, read from their files at each use: a rotated Secret counts
 * at once, and nothing of it stays in memory (HRD-4). The files are small and local.
 */
#ifndef SHOAL_DAEMON_REGISTRY_LOGINS_H
#define SHOAL_DAEMON_REGISTRY_LOGINS_H

#include "config.h"
#include "loop.h"

#define REGISTRY_LOGIN_FILE_MAX (64 * 1024)

struct registry_logins {
    struct loop *loop;  /* borrowed, for its log */
    uint64_t warned_us; /* a file that cannot be used is told of once a minute (HRD-5); 0: never */
};
/* Fills `out` with the calls of `logins`, which must outlive its users. */
void registry_logins_bind(struct registry_logins *logins, struct loop *loop,
                          struct origin_logins *out);
/* Reads an entry's login. 0; E_NOT_FOUND (the file has none for this name) or E_CONFIG, with one
 * line in `error` that repeats nothing of the file. The caller wipes `out`. */
MUST_USE int registry_login_read(const struct registry_entry *entry, struct registry_login *out,
                                 struct config_error *error);

#endif
