/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What apply has changed, in the state directory: a manifest, and what each file held before, named
 * by its SHA-256. The manifest is written before the first file is touched and names both what was
 * there and what comes, so a file's bytes tell whether its change happened, whenever we were
 * killed.
 */
#ifndef SHOAL_RUNTIME_STATE_H
#define SHOAL_RUNTIME_STATE_H

#include "plan.h"

#define STATE_HASH_BYTES 65 /* 64 hex digits and a zero */
/* What we wrote last, and what we wrote before that: one of them is there after a kill. */
#define STATE_OURS 2

struct state_file {
    const char *host_path;
    enum plan_format format;
    const char *mirror; /* what was put there */
    bool existed;       /* before us; then the following are of that file */
    mode_t mode;
    uid_t uid;
    gid_t gid;
    char before[STATE_HASH_BYTES];
    char ours[STATE_OURS][STATE_HASH_BYTES]; /* "" none */
};
struct state {
    struct pool *pool;
    const char *directory; /* of this runtime */
    const char *root;
    int lock; /* -1: not held */
    struct state_file files[PLAN_CHANGES_MAX];
    unsigned file_count;
    const char *directories[PLAN_DIRECTORIES_MAX]; /* made by us, host paths, parents first */
    unsigned directory_count;
    bool starved; /* out of memory while reading */
};

/* Opens the state of a runtime: with `make` the directory is made, without it nothing there means
 * an empty state and no lock. 0; E_IN_USE, E_CORRUPT (manifest), E_REFUSED (directory of others),
 * E_DENIED, E_IO, E_NO_MEMORY. Close in every case. */
MUST_USE int state_open(struct pool *pool, const struct runtime_options *options, bool make,
                        struct state *out, struct runtime_error *error);
void state_close(struct state *state);
/* Writes the manifest; an empty one is removed, with the backups. 0 and errors of tree_write. */
MUST_USE int state_save(struct state *state, struct runtime_error *error);

/* Borrowed; NULL if the manifest has no such file. */
struct state_file *state_find(struct state *state, const char *host_path);
/* Keeps bytes under their hash, synced. 0 and errors of tree_write. */
MUST_USE int state_keep(struct state *state, const struct span *text, char hash[STATE_HASH_BYTES],
                        struct runtime_error *error);
/* The bytes of a hash. 0; E_CORRUPT if they are gone or others. */
MUST_USE int state_fetch(struct state *state, const char *hash, struct span *out,
                         struct runtime_error *error);
void state_hash(const struct span *text, char out[STATE_HASH_BYTES]);
/* True if these bytes are what we wrote. */
bool state_is_ours(const struct state_file *file, const char *hash);

#endif
