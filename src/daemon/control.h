/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the control socket answers: all of the admin port, the status page's figures (page.h) with
 * names of repositories, and
 *   /explain                 the last pulls, newest first
 *   /explain/<digest>        a blob, or the blobs of a manifest
 *   /explain/<image>         an image as people write it (image_name.h)
 *   /dialback                {asked, reached, failed}: other nodes are asked to connect to us
 *   /prefetch                orders to pull images, see pull_http.h
 * The explanations are JSON: {asked, digest, blobs: [{digest, size_bytes, here: {bytes, verified},
 * holders: [{addr, id, bytes}], pulls: [...]}], left_out}. 404 with one line of text where nothing
 * is known, 400 where it is no name. Credentials are in none of it.
 */
#ifndef SHOAL_DAEMON_CONTROL_H
#define SHOAL_DAEMON_CONTROL_H

#include "agent.h"

#define EXPLAIN_BLOBS_MAX   128
#define EXPLAIN_PULLS_MAX   4 /* of each blob, newest first */
#define EXPLAIN_HOLDERS_MAX 16

/*
 * Whether a request may be answered. Whoever tunnels the socket to a port of the own machine, to
 * look at the status page there, opens it to that machine's browser, and with it to every site that
 * the browser shows. So the host must be one of this machine (localhost, 127.0.0.1, [::1]; "shoal",
 * as our own commands say): a name of another site that was made to mean this machine is none (DNS
 * rebinding). What a browser asks for another site's page gets the bare document at most
 * (Sec-Fetch-Site), and no page may give orders (POST with Origin or Sec-Fetch-Site).
 */
bool control_trusts(const struct http_request *request);
/* Handler for server_new; `arg` is the struct agent. */
void control_handle(void *arg, struct exchange *exchange);

#endif
