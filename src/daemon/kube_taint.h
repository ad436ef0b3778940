/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A start-up taint keeps pods off a new node until what they need is there. Whoever made it (the
 * cloud's node pool, kubelet's --register-with-taints) does not take it off again: that is done
 * here, once the agent answers and the runtime asks it. Needs `get` and `patch` on nodes.
 */
#ifndef SHOAL_DAEMON_KUBE_TAINT_H
#define SHOAL_DAEMON_KUBE_TAINT_H

#include "config.h"

#define KUBE_TAINT_ERROR_BYTES 256
/* Taints of one key differ in their effect, so there are three at most; others change nodes, too.
 */
#define KUBE_TAINT_TRIES_MAX 8

/* A taint's key: [prefix/]name as Kubernetes has them, at most 316 bytes. */
bool kube_taint_key_valid(const char *key);
/*
 * JSON patch (RFC 6902) that takes the first taint with this key off the node object `node`, in
 * memory from loop_alloc: it holds only for the object as it was read. 0; E_NOT_FOUND: it has no
 * such taint; E_MALFORMED, E_NO_MEMORY.
 */
MUST_USE int kube_taint_patch(const char *node, size_t node_bytes, const char *key, char **out);
/*
 * Asks for this node, and takes all taints with this key off it, whatever their effect. Blocking,
 * with deadlines: some seconds at most for each of KUBE_TAINT_TRIES_MAX changes. 0, also if there
 * is none; E_* with one line for people.
 */
MUST_USE int kube_taint_remove(const struct config *config, const char *key,
                               char error[KUBE_TAINT_ERROR_BYTES]);

#endif
