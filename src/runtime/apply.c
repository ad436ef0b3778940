/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Carrying a plan out: what was there is kept and the manifest written, then each file is replaced.
 * A kill leaves each file old or new, and a manifest that knows both; an error puts back what this
 * call has written.
 */
#include <string.h>

#include "state.h"

struct apply {
    struct runtime_plan *plan;
    struct state state;
    unsigned made;    /* directories of the plan, so far, with one that failed */
    unsigned written; /* changes of the plan, likewise */
};

static int step(const struct runtime_plan *plan, const char *what, struct runtime_error *error)
{
    const struct runtime_options *options = &plan->options;
    if (options->step == NULL || options->step(options->step_arg, what) == 0)
        return 0;
    return runtime_fail(error, E_CANCELLED, "stopped before: %.600s", what);
}

/* ---- the manifest ---- */

static bool is_blank(const struct span *text)
{
    return strspn(text->at, " \t\r\n") >= text->bytes;
}

static int keep_before(struct apply *apply, struct state_file *file, const struct image *image,
                       const struct span *text, struct runtime_error *error)
{
    file->existed = image->exists;
    file->mode = image->mode;
    file->uid = image->uid;
    file->gid = image->gid;
    return state_keep(&apply->state, text, file->before, error);
}

/* Somebody has edited the file since we wrote it: what is to come back is theirs, without us. */
static int take_over(struct apply *apply, const struct change *change, struct state_file *file,
                     struct runtime_error *error)
{
    struct runtime_error why;
    struct undo undo = {.format = file->format,
                        .text = change->before.text,
                        .before = {"", 0},
                        .mirror = file->mirror};
    struct span theirs;
    bool found;
    bool was_there = file->existed;
    int err = was_there ? state_fetch(&apply->state, file->before, &undo.before, error) : 0;
    if (err != 0)
        return err;
    err = plan__undo(&apply->plan->pool, &undo, &theirs, &found, &why);
    if (err != 0)
        return runtime_fail(error, err, "%.300s:%.600s", change->host_path, why.text);
    err = keep_before(apply, file, &change->before, &theirs, error);
    if (!was_there && is_blank(&theirs))
        file->existed = false;
    return err;
}

/* The manifest's entry for a change: what was there before all of ours, and what comes. */
static int note_change(struct apply *apply, const struct change *change,
                       struct runtime_error *error)
{
    struct state *state = &apply->state;
    const struct image *now = &change->before;
    struct state_file *file = state_find(state, change->host_path);
    char hash[STATE_HASH_BYTES];
    char after[STATE_HASH_BYTES];
    int err = 0;
    state_hash(&now->text, hash);
    state_hash(&change->after, after);
    bool known = file != NULL && now->exists && state_is_ours(file, hash);
    bool before = file != NULL && file->existed == now->exists &&
                  (!now->exists || strcmp(file->before, hash) == 0);
    if (file == NULL) {
        if (state->file_count == PLAN_CHANGES_MAX)
            return runtime_fail(error, E_FULL, "the manifest has %d files already; revert first",
                                PLAN_CHANGES_MAX);
        file = &state->files[state->file_count];
        *file = (struct state_file){.host_path = change->host_path, .format = change->format};
        err = keep_before(apply, file, now, &now->text, error);
        state->file_count += err == 0;
    } else if (!known && !before) {
        err = take_over(apply, change, file, error);
    }
    file->mirror = apply->plan->options.mirror;
    memcpy(file->ours[0], after, sizeof after);
    memcpy(file->ours[1], known ? hash : "", known ? sizeof hash : 1);
    return err;
}

static int note_directory(struct apply *apply, const char *host_path, struct runtime_error *error)
{
    struct state *state = &apply->state;
    for (unsigned i = 0; i < state->directory_count; i++)
        if (strcmp(state->directories[i], host_path) == 0)
            return 0;
    if (state->directory_count == PLAN_DIRECTORIES_MAX)
        return runtime_fail(error, E_FULL, "the manifest has %d directories already; revert first",
                            PLAN_DIRECTORIES_MAX);
    state->directories[state->directory_count++] = host_path;
    return 0;
}

static int note_all(struct apply *apply, struct runtime_error *error)
{
    struct runtime_plan *plan = apply->plan;
    int err = step(plan, "backups", error);
    for (unsigned i = 0; err == 0 && i < plan->change_count; i++)
        err = note_change(apply, &plan->changes[i], error);
    for (unsigned i = 0; err == 0 && i < plan->directory_count; i++)
        err = note_directory(apply, plan->directories[i], error);
    if (err == 0)
        err = step(plan, "manifest", error);
    return err != 0 ? err : state_save(&apply->state, error);
}

/* ---- the files ---- */

static int make_directories(struct apply *apply, struct runtime_error *error)
{
    struct runtime_plan *plan = apply->plan;
    int err = 0;
    while (err == 0 && apply->made < plan->directory_count) {
        const char *path;
        err = plan__path(plan, plan->directories[apply->made], &path, error);
        if (err == 0)
            err = step(plan, path, error);
        if (err != 0)
            break;
        apply->made++; /* perhaps made, should the next line fail */
        err = tree_make_directory(path, 0755, error);
    }
    return err;
}

static int write_files(struct apply *apply, struct runtime_error *error)
{
    struct runtime_plan *plan = apply->plan;
    int err = 0;
    while (err == 0 && apply->written < plan->change_count) {
        const struct change *change = &plan->changes[apply->written];
        err = step(plan, change->path, error);
        if (err != 0)
            break;
        apply->written++; /* perhaps written: put_back looks */
        err = tree_write(change->path, &change->after, &change->before, NULL, error);
    }
    return err;
}

/* The error is the first one's: what cannot be put back either is known to the manifest. */
static void put_back(struct apply *apply)
{
    struct runtime_plan *plan = apply->plan;
    struct runtime_error ignored;
    struct image now;
    while (apply->written > 0) {
        const struct change *change = &plan->changes[--apply->written];
        const struct image *old = &change->before;
        if (tree_read(&plan->pool, change->path, TREE_EDIT, &now, &ignored) != 0 ||
            now.text.bytes != change->after.bytes ||
            memcmp(now.text.at, change->after.at, now.text.bytes) != 0)
            continue;
        int err = old->exists ? tree_write(change->path, &old->text, &now, old, &ignored)
                              : tree_remove(change->path, &now, &ignored);
        (void)err;
    }
    while (apply->made > 0) {
        const char *path;
        if (plan__path(plan, plan->directories[--apply->made], &path, &ignored) == 0)
            (void)tree_remove_directory(path);
    }
}

int runtime_plan_apply(struct runtime_plan *plan, struct runtime_error *error)
{
    error->text[0] = '\0';
    if (plan->change_count == 0)
        return 0;
    struct apply *apply = pool_alloc(&plan->pool, sizeof *apply);
    if (apply == NULL)
        return plan__no_memory(error);
    apply->plan = plan;
    int err = state_open(&plan->pool, &plan->options, true, &apply->state, error);
    if (err == 0)
        err = note_all(apply, error);
    if (err == 0)
        err = make_directories(apply, error);
    if (err == 0)
        err = write_files(apply, error);
    if (err != 0 && err != E_CANCELLED)
        put_back(apply);
    state_close(&apply->state);
    return err;
}
