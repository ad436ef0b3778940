/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plan while it is made: what the files of one runtime contribute to it, and what apply carries
 * out. Paths are those of the host; struct change has the one to open, too, with options->root
 * before it.
 */
#ifndef SHOAL_RUNTIME_PLAN_H
#define SHOAL_RUNTIME_PLAN_H

#include "tree.h"

#define PLAN_CHANGES_MAX     (RUNTIME_REGISTRIES_MAX + 8)
#define PLAN_DIRECTORIES_MAX (RUNTIME_REGISTRIES_MAX + 8)
#define PLAN_NOTES_MAX       64

enum plan_format {
    PLAN_TOML = 1, /* our part is in blocks (block.h) */
    PLAN_JSON,     /* our part is one element of registry-mirrors (daemon_json.h) */
};
struct change {
    const char *host_path; /* as the manifest has it */
    const char *path;      /* to open */
    enum plan_format format;
    struct image before;
    struct span after;
};
struct runtime_plan {
    struct runtime_options options; /* what it points to is borrowed */
    struct pool pool;
    struct change changes[PLAN_CHANGES_MAX];
    unsigned change_count;
    const char *directories[PLAN_DIRECTORIES_MAX]; /* host paths to be made, parents first */
    unsigned directory_count;
    const char *notes[PLAN_NOTES_MAX]; /* more are dropped */
    unsigned note_count;
};

/* The path to open for a path of the host. 0; E_NO_MEMORY, E_INVALID (not absolute, too long),
 * E_REFUSED (leads out of the root). */
MUST_USE int plan__path(struct runtime_plan *plan, const char *host_path, const char **out,
                        struct runtime_error *error);
/* Adds a file that is to have these bytes; nothing if it has them. 0, E_FULL, E_NO_MEMORY. */
MUST_USE int plan__change(struct runtime_plan *plan, const struct change *change,
                          struct runtime_error *error);
/* True if a change of this file is there already. */
bool plan__has(const struct runtime_plan *plan, const char *host_path);
/* Adds a directory of mode 0755, if it is not among them. 0, E_FULL. */
MUST_USE int plan__directory(struct runtime_plan *plan, const char *host_path,
                             struct runtime_error *error);
void plan__note(struct runtime_plan *plan, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* E_NO_MEMORY, said in `error`. */
int plan__no_memory(struct runtime_error *error);

/* What each runtime's files contribute. 0 and errors as of runtime_plan_new. */
MUST_USE int containerd__plan(struct runtime_plan *plan, struct runtime_error *error);
MUST_USE int containers__plan(struct runtime_plan *plan, struct runtime_error *error);
MUST_USE int docker__plan(struct runtime_plan *plan, struct runtime_error *error);

/* A file with our part in it, perhaps edited by others since. */
struct undo {
    enum plan_format format;
    struct span text;
    struct span before; /* as it was before us; docker: had it the key? */
    const char *mirror; /* docker: the element that is ours */
};
/* The text without our part. 0 with *found telling whether that was there; E_REFUSED with `error`,
 * E_NO_MEMORY. */
MUST_USE int plan__undo(struct pool *pool, const struct undo *undo, struct span *out, bool *found,
                        struct runtime_error *error);

/* daemon.json (docker.c) with `mirror` as first of its mirrors, or as it is if it has it; *behind:
 * it has it, but not first. 0; E_REFUSED with `error` = "LINE: why", E_NO_MEMORY. */
MUST_USE int docker__add(struct pool *pool, const struct span *text, const char *mirror,
                         struct span *out, bool *behind, struct runtime_error *error);
/* plan__undo for daemon.json. */
MUST_USE int docker__undo(struct pool *pool, const struct undo *undo, struct span *out, bool *found,
                          struct runtime_error *error);

#endif
