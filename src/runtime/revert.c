/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking back what apply did, file by file: ours untouched gives way to what was there; what others
 * have edited since loses our part only; what cannot be told apart is refused and stays in the
 * manifest. Nothing that is not in the manifest is touched.
 */
#include <string.h>

#include "state.h"

enum outcome {
    OUTCOME_RESTORED = 1, /* as before us, or removed */
    OUTCOME_UNDONE,       /* theirs, without our part */
    OUTCOME_LEFT,         /* nothing of ours there */
    OUTCOME_REFUSED,
};

struct revert {
    const struct runtime_options *options;
    struct pool pool;
    struct state state;
    FILE *out;
    struct runtime_reverted done;
};

static int step(const struct revert *revert, const char *what, struct runtime_error *error)
{
    const struct runtime_options *options = revert->options;
    if (options->step == NULL || options->step(options->step_arg, what) == 0)
        return 0;
    return runtime_fail(error, E_CANCELLED, "stopped before: %.600s", what);
}

static void say(struct revert *revert, const char *what, const char *host_path, const char *why)
{
    struct runtime_error line;
    (void)runtime_fail(&line, 0, "%s %.300s%s%.600s", what, host_path, why[0] != '\0' ? ": " : "",
                       why);
    (void)fprintf(revert->out, "%s\n", line.text);
}

/* As it was before the first apply. */
static int restore(struct revert *revert, const struct state_file *file, const char *path,
                   const struct image *now, struct runtime_error *error)
{
    const struct image before = {.mode = file->mode, .uid = file->uid, .gid = file->gid};
    struct span text;
    int err = step(revert, path, error);
    if (err == 0 && !file->existed) {
        err = tree_remove(path, now, error);
    } else if (err == 0) {
        err = state_fetch(&revert->state, file->before, &text, error);
        if (err == 0)
            err = tree_write(path, &text, now, &before, error);
    }
    if (err == 0)
        say(revert, file->existed ? "restored" : "removed", file->host_path, "");
    return err;
}

static bool is_empty(const struct span *text)
{
    return strspn(text->at, " \t\r\n{}") >= text->bytes;
}

/* Does the text still lead to the agent? A tool that writes TOML anew drops our marks. */
static bool names_mirror(const struct state_file *file, const struct span *text)
{
    const char *slashes = strstr(file->mirror, "://");
    const char *host = slashes != NULL ? slashes + 3 : file->mirror;
    return memmem(text->at, text->bytes, host, strlen(host)) != NULL;
}

/* Others have edited it: only what is ours goes. */
static int undo_ours(struct revert *revert, const struct state_file *file, const char *path,
                     const struct image *now, enum outcome *outcome, struct runtime_error *error)
{
    struct runtime_error why;
    struct undo undo = {
        .format = file->format, .text = now->text, .before = {"", 0}, .mirror = file->mirror};
    struct span theirs;
    bool found;
    int err = file->existed ? state_fetch(&revert->state, file->before, &undo.before, error) : 0;
    if (err != 0)
        return err;
    err = plan__undo(&revert->pool, &undo, &theirs, &found, &why);
    if (err == E_NO_MEMORY)
        return plan__no_memory(error);
    if (err != 0) {
        *outcome = OUTCOME_REFUSED;
        say(revert, "refused", file->host_path, why.text);
        return 0;
    }
    if (!found && names_mirror(file, &now->text)) {
        *outcome = OUTCOME_REFUSED;
        say(revert, "refused", file->host_path,
            "our marks are gone, but the agent is still named; take it out by hand");
        return 0;
    }
    if (!found) {
        *outcome = OUTCOME_LEFT;
        say(revert, "left", file->host_path, "edited since, and nothing of ours is in it");
        return 0;
    }
    *outcome = OUTCOME_UNDONE;
    err = step(revert, path, error);
    if (err == 0)
        err = !file->existed && is_empty(&theirs) ? tree_remove(path, now, error)
                                                  : tree_write(path, &theirs, now, NULL, error);
    if (err == 0)
        say(revert, "undone", file->host_path, "edited since; only our part was taken out");
    return err;
}

static int revert_file(struct revert *revert, const struct state_file *file, enum outcome *outcome,
                       struct runtime_error *error)
{
    struct image now;
    char hash[STATE_HASH_BYTES];
    const char *path = pool_print(&revert->pool, "%s%s", revert->state.root, file->host_path);
    if (path == NULL)
        return plan__no_memory(error);
    int err = tree_inside(revert->state.root, path, error);
    if (err == 0) {
        tree_clean(path);
        err = tree_read(&revert->pool, path, TREE_EDIT, &now, error);
    }
    if (err == E_REFUSED || err == E_TOO_LARGE) { /* a link is there now, and so on */
        *outcome = OUTCOME_REFUSED;
        say(revert, "refused", file->host_path, error->text);
        return 0;
    }
    if (err != 0)
        return err;
    state_hash(&now.text, hash);
    *outcome = OUTCOME_RESTORED;
    if (!now.exists) {
        *outcome = file->existed ? OUTCOME_LEFT : OUTCOME_RESTORED;
        if (file->existed)
            say(revert, "left", file->host_path, "somebody has removed it");
        return 0;
    }
    if (file->existed && strcmp(hash, file->before) == 0)
        return 0; /* a revert that was interrupted, or somebody else's */
    if (state_is_ours(file, hash))
        return restore(revert, file, path, &now, error);
    return undo_ours(revert, file, path, &now, outcome, error);
}

static void count(struct runtime_reverted *done, enum outcome outcome)
{
    done->restored += outcome == OUTCOME_RESTORED;
    done->undone += outcome == OUTCOME_UNDONE;
    done->left += outcome == OUTCOME_LEFT;
    done->refused += outcome == OUTCOME_REFUSED;
}

/* Those that are empty now; others keep files of others. Deepest first. */
static void remove_directories(struct revert *revert)
{
    struct state *state = &revert->state;
    for (unsigned i = state->directory_count; i-- > 0;) {
        const char *path = pool_print(&revert->pool, "%s%s", state->root, state->directories[i]);
        if (path != NULL && tree_remove_directory(path))
            say(revert, "removed", state->directories[i], "");
    }
    if (revert->done.refused == 0)
        state->directory_count = 0;
}

/* The manifest keeps what was refused, or not reached. */
static int revert_all(struct revert *revert, struct runtime_error *error)
{
    struct state *state = &revert->state;
    unsigned kept = 0;
    int err = 0;
    for (unsigned i = 0; err == 0 && i < state->file_count; i++) {
        enum outcome outcome = OUTCOME_LEFT;
        err = revert_file(revert, &state->files[i], &outcome, error);
        if (err != 0)
            return err; /* the manifest is as it was, and all of it can be done again */
        count(&revert->done, outcome);
        if (outcome == OUTCOME_REFUSED)
            state->files[kept++] = state->files[i];
    }
    state->file_count = kept;
    err = step(revert, "directories", error);
    if (err == 0)
        remove_directories(revert);
    if (err == 0)
        err = step(revert, "manifest", error);
    if (err == 0)
        err = state_save(state, error);
    if (err == 0 && kept > 0)
        err = runtime_fail(error, E_REFUSED,
                           "%u files were left as they are: take our lines out by hand, then run "
                           "this again",
                           kept);
    return err;
}

int runtime_revert(const struct runtime_options *options, FILE *out, struct runtime_reverted *done,
                   struct runtime_error *error)
{
    error->text[0] = '\0';
    *done = (struct runtime_reverted){0};
    struct revert *revert = options->env->alloc(options->env->host, NULL, sizeof *revert);
    if (revert == NULL)
        return plan__no_memory(error);
    memset(revert, 0, sizeof *revert);
    revert->options = options;
    revert->out = out;
    pool_init(&revert->pool, options->env);
    int err = state_open(&revert->pool, options, false, &revert->state, error);
    if (err == 0)
        err = revert_all(revert, error);
    *done = revert->done;
    state_close(&revert->state);
    pool_close(&revert->pool);
    (void)options->env->alloc(options->env->host, revert, 0);
    return err;
}
