/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the API server is, and with what right this pod asks it for its own node: the service
 * account's token, read anew each time since it rotates, and wiped (HRD-4).
 */
#ifndef SHOAL_DAEMON_KUBE_API_H
#define SHOAL_DAEMON_KUBE_API_H

#include <stddef.h>

#include "config.h"

#define KUBE_NODE_NAME_MAX 253

struct kube_api {
    char node_url[2 * CONFIG_TEXT_BYTES + KUBE_NODE_NAME_MAX];
    char ca_file[CONFIG_PATH_BYTES + 16];
    char *bearer; /* "Bearer <token>" */
    size_t bearer_bytes;
};
/* By topology.kubernetesUrl or the pod's environment, NODE_NAME, and topology.serviceAccount. 0;
 * E_NOT_FOUND: not in a cluster, or without token or node name. kube_api_close is due after 0. */
MUST_USE int kube_api_open(const struct config *config, struct kube_api *out);
/* Wipes the token. */
void kube_api_close(struct kube_api *api);

#endif
