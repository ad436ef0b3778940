/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The container runtime's own configuration, on this node: making containerd, CRI-O and podman, or
 * dockerd ask the agent first, and taking that back. Written to be trusted with files that are not
 * ours:
 *
 *   merge      only our part is added. Every other byte, comment, key and certificate stays. TOML
 *              and JSON are edited as text, and the result is parsed again and compared.
 *   refuse     what is not understood, is broken, is a link or no regular file, is too large, or
 *              would make the runtime fail. One refusal, and nothing at all is written.
 *   atomic     each file by write, fsync, rename. What was there is kept in the state directory
 *              before the first change, so that a kill at any point leaves old or new files only,
 *              and both apply and revert go on from there.
 *   revert     the bytes, mode and owner from before. From a file that others have edited since,
 *              only our part is taken out; what does not come out cleanly is refused and named.
 *
 * Nothing here starts, stops or signals a process, and nothing asks the network: whether the agent
 * answers is the caller's question (HRD-2). Blocking calls, one thread.
 */
#ifndef SHOAL_RUNTIME_H
#define SHOAL_RUNTIME_H

#include <stdbool.h>
#include <stdio.h>

#include "env.h"
#include "err.h"

enum runtime_kind {
    RUNTIME_CONTAINERD = 1, /* certs.d/<registry>/hosts.toml, below the CRI plugin's config_path */
    RUNTIME_CONTAINERS,     /* registries.conf and registries.conf.d: CRI-O, podman, buildah */
    RUNTIME_DOCKER,         /* registry-mirrors in daemon.json; Docker Hub only */
};

/* As many as an agent can have registries. */
#define RUNTIME_REGISTRIES_MAX 256
#define RUNTIME_PATH_BYTES     1024
#define RUNTIME_ERROR_BYTES    1024
/* Largest file that is read. Configurations of nodes have some 10 KiB. */
#define RUNTIME_FILE_BYTES_MAX (1024 * 1024)
/* Memory for one plan, apply or revert in all; over it E_NO_MEMORY. */
#define RUNTIME_MEMORY_MAX (256 * 1024 * 1024)

struct runtime_registry {
    const char *name; /* host[:port] in lower case, or "_default" (containerd: all others) */
    bool plain_http;  /* so it is written to where the runtime goes without us */
};

/* All borrowed; must outlive the plan. */
struct runtime_options {
    const struct env *env; /* alloc alone is used */
    enum runtime_kind kind;
    const char *root;   /* "" or where the host's / is mounted; put before each path but state */
    const char *state;  /* directory of manifests and backups, absolute; made with mode 0700 */
    const char *mirror; /* "http://127.0.0.1:65001", the agent's client port */
    const struct runtime_registry *registries;
    unsigned registry_count;
    /* The runtime's main file; NULL: /etc/containerd/config.toml, /etc/containers/registries.conf,
       /etc/docker/daemon.json. */
    const char *config_file;
    /* containerd: where hosts.toml are, whatever its configuration says; NULL: what it says. */
    const char *hosts_dir;
    /* containerd: may config_path be added to its configuration? It reads that at its start only,
       so somebody has to restart it. */
    bool set_config_path;
    /* Called before each change of the disk; anything but 0 ends the call on the spot with
       E_CANCELLED, as kill -9 would. For tests; NULL: none. */
    int (*step)(void *step_arg, const char *what);
    void *step_arg;
};

/* One line for the operator, without newline or control bytes. "" while there is none. */
struct runtime_error {
    char text[RUNTIME_ERROR_BYTES];
};

struct runtime_plan;

/*
 * Reads the runtime's configuration and works out what would change. Changes nothing. 0; E_REFUSED
 * (a file is broken, of a kind we do not touch, or the runtime would break), E_TOO_LARGE, E_DENIED,
 * E_IO, E_NO_MEMORY, E_INVALID (options), each with `error` saying where and what to do.
 */
MUST_USE int runtime_plan_new(const struct runtime_options *options, struct runtime_plan **out,
                              struct runtime_error *error);
void runtime_plan_free(struct runtime_plan *plan); /* NULL is fine */
/* Files that would be written; 0: everything is as it should be. */
unsigned runtime_plan_changes(const struct runtime_plan *plan);
/* A unified diff of each change, without context, and lines "note: ..." on what the operator should
 * know. Of others' lines that a change moves or completes, "..." is shown, of JSON the keys: values
 * may be secrets (HRD-4). */
void runtime_plan_print(const struct runtime_plan *plan, FILE *out);

/*
 * Carries the plan out: backups and manifest, then each file. A file that changed since the plan
 * was made ends it. On an error what was written in this call is put back. 0; E_AGAIN (changed
 * meanwhile), E_IN_USE (another apply or revert runs), E_CORRUPT (the manifest is damaged),
 * E_REFUSED, E_DENIED, E_NO_SPACE, E_IO, E_NO_MEMORY, E_CANCELLED (`step`); `error` says more.
 */
MUST_USE int runtime_plan_apply(struct runtime_plan *plan, struct runtime_error *error);

/* What a revert did. */
struct runtime_reverted {
    unsigned
        restored;     /* files as they were before the first apply, or removed if there were none */
    unsigned undone;  /* edited by others since: our part was taken out, theirs is kept */
    unsigned left;    /* not touched: gone, or without our part */
    unsigned refused; /* our part cannot be told from theirs; kept in the manifest */
};
/*
 * Takes back what apply did, by the manifest of this `kind` (of the options only env, kind, root,
 * state and step are used), and writes one line about each file to `out`. May be repeated. 0, also
 * when there is nothing to take back; E_REFUSED (some file was refused, the others are done) and
 * errors as of runtime_plan_apply; *done is then true for what was done.
 */
MUST_USE int runtime_revert(const struct runtime_options *options, FILE *out,
                            struct runtime_reverted *done, struct runtime_error *error);

#endif
