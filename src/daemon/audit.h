/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The audit log (log.audit, the ACR component's logAudit): a line for each request of a client that
 * is over, whoever answered it. No query and no credentials are in it (HRD-4): signed URLs are
 * keys.
 */
#ifndef SHOAL_DAEMON_AUDIT_H
#define SHOAL_DAEMON_AUDIT_H

#include "http_server.h"

/* The line without its time and level; `out` is returned. `ended_us` is of the loop. */
#define AUDIT_LINE_BYTES 1024
const char *audit_line(const struct exchange_outcome *outcome, uint64_t ended_us,
                       char out[AUDIT_LINE_BYTES]);
/* Writes it at info; for server_config.ended. */
void audit_write(struct loop *loop, const struct exchange_outcome *outcome);

#endif
