/* SPDX-License-Identifier: Apache-2.0 */
/* The admin port: / (the status page, page.h), /healthz, /readyz, /metrics (Prometheus text),
 * /status (JSON). No secrets, no repository names (HTTP-7). The control socket answers the same,
 * with names on the status page. */
#ifndef SHOAL_DAEMON_ADMIN_H
#define SHOAL_DAEMON_ADMIN_H

#include "agent.h"
#include "http_server.h"

/* Handler for server_new; `arg` is the struct agent. */
void admin_handle(void *arg, struct exchange *exchange);
/* The whole metrics page, to be freed with loop_alloc; NULL without memory. */
char *metrics_text(struct agent *agent, size_t *bytes);
/* "alive", ...; static storage. */
const char *status_state_name(enum member_state state);
/* The status object as text, to be freed with free(); NULL without memory. */
char *status_json(struct agent *agent);

#endif
