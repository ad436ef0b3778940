/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration trees for tests of src/runtime: a root in a temporary directory, files put and read
 * below it, and a picture of the whole tree (names, types, modes, bytes) to compare.
 */
#ifndef SHOAL_TESTS_RUNTIME_TREE_H
#define SHOAL_TESTS_RUNTIME_TREE_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>

#include "daemon_scratch.h"
#include "runtime.h"

#define MIRROR "http://127.0.0.1:65001"
#define BEGIN  "# BEGIN shoal (made by `shoal ... apply`, taken out by `shoal ... revert`)\n"
#define END    "# END shoal\n"
#define HOST   "[host.\"" MIRROR "\"]\n  capabilities = [\"pull\", \"resolve\"]\n"

static char tree_root[96], tree_state[96];
static struct runtime_error tree_error;
static char *tree_printed; /* of the last plan or revert */
static struct runtime_reverted tree_done;

/* Allocations: how many live, and the one that fails (0: none). */
static unsigned tree_live, tree_calls, tree_fail_at;

static inline void *tree_alloc(void *host, void *old, size_t bytes)
{
    (void)host;
    if (bytes == 0) {
        tree_live -= old != NULL;
        free(old);
        return NULL;
    }
    if (++tree_calls == tree_fail_at)
        return NULL;
    void *got = realloc(old, bytes);
    tree_live += old == NULL && got != NULL;
    return got;
}
static const struct env tree_env = {.alloc = tree_alloc};

/* A kill before the n-th change of the disk; 0: none. */
static unsigned tree_steps, tree_kill_at;

static inline int tree_step(void *arg, const char *what)
{
    (void)arg;
    (void)what;
    return ++tree_steps == tree_kill_at;
}

static inline struct runtime_options
tree_options(enum runtime_kind kind, const struct runtime_registry *registries, unsigned count)
{
    return (struct runtime_options){.env = &tree_env,
                                    .kind = kind,
                                    .root = tree_root,
                                    .state = tree_state,
                                    .mirror = MIRROR,
                                    .registries = registries,
                                    .registry_count = count,
                                    .step = tree_step};
}

/* A fresh, empty root and state; cmocka's set-up of one test. */
static inline int tree_make(void **state)
{
    static unsigned number;
    (void)state;
    number++;
    (void)snprintf(tree_root, sizeof tree_root, "%s/root%u", scratch_directory, number);
    (void)snprintf(tree_state, sizeof tree_state, "%s/state%u", scratch_directory, number);
    tree_fail_at = tree_kill_at = tree_calls = tree_steps = 0;
    return mkdir(tree_root, 0755);
}

static inline int tree_end(void **state)
{
    (void)state;
    free(tree_printed);
    tree_printed = NULL;
    return tree_live != 0; /* every plan and revert gave all memory back */
}

/* Path below the root; one of eight buffers used in turn. */
static inline const char *tree_path(const char *path)
{
    static char paths[8][400];
    static unsigned next;
    char *out = paths[next++ % 8];
    (void)snprintf(out, sizeof paths[0], "%s%s", tree_root, path);
    return out;
}

static inline void tree_directories(const char *path)
{
    char part[400];
    (void)snprintf(part, sizeof part, "%s", tree_path(path));
    for (char *slash = strchr(part + strlen(tree_root) + 1, '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(part, 0755);
        *slash = '/';
    }
}

static inline void tree_put_bytes(const char *path, const char *text, size_t bytes)
{
    tree_directories(path);
    FILE *file = fopen(tree_path(path), "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(tree_path(path), 0644), 0);
}

static inline void tree_put(const char *path, const char *text)
{
    tree_put_bytes(path, text, strlen(text));
}

/* Bytes of a file, "(none)" if it is not there; until the next call. */
static inline const char *tree_get(const char *path)
{
    static char text[1 << 16];
    FILE *file = fopen(tree_path(path), "r");
    if (file == NULL)
        return "(none)";
    size_t bytes = fread(text, 1, sizeof text - 1, file);
    text[bytes] = '\0';
    (void)fclose(file);
    return text;
}

static inline void tree_draw(FILE *out, const char *directory)
{
    struct dirent **entries;
    int count = scandir(directory, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char path[512];
        struct stat info;
        const char *name = entries[i]->d_name;
        (void)snprintf(path, sizeof path, "%s/%s", directory, name);
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && lstat(path, &info) == 0) {
            (void)fprintf(out, "%s %o %u:%u\n", path + strlen(tree_root), info.st_mode, info.st_uid,
                          info.st_gid);
            if (S_ISDIR(info.st_mode))
                tree_draw(out, path);
            if (S_ISREG(info.st_mode))
                (void)fprintf(out, "%s\n", tree_get(path + strlen(tree_root)));
        }
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

/* The whole tree as text; the caller frees it. */
static inline char *tree_picture(void)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    tree_draw(out, tree_root);
    (void)fclose(out);
    return text;
}

/* What a run printed, from the stream on. */
static inline FILE *tree_listen(size_t *bytes)
{
    free(tree_printed);
    tree_printed = NULL;
    return open_memstream(&tree_printed, bytes);
}

/* Plans and, if asked to, applies. Returns the error, or how many files change. */
static inline int tree_run(const struct runtime_options *options, bool apply)
{
    struct runtime_plan *plan = NULL;
    size_t bytes;
    tree_steps = 0;
    int err = runtime_plan_new(options, &plan, &tree_error);
    assert_true((err != 0) == (tree_error.text[0] != '\0'));
    if (err != 0)
        return err;
    FILE *out = tree_listen(&bytes);
    runtime_plan_print(plan, out);
    (void)fclose(out);
    int changes = (int)runtime_plan_changes(plan);
    if (apply)
        err = runtime_plan_apply(plan, &tree_error);
    runtime_plan_free(plan);
    return err != 0 ? err : changes;
}

static inline int tree_plan(const struct runtime_options *options)
{
    char *before = tree_picture();
    int result = tree_run(options, false);
    char *after = tree_picture();
    assert_string_equal(before, after); /* whatever it is, a plan changes nothing */
    free(before);
    free(after);
    return result;
}

static inline int tree_apply(const struct runtime_options *options)
{
    return tree_run(options, true);
}

static inline int tree_revert(const struct runtime_options *options)
{
    size_t bytes;
    FILE *out = tree_listen(&bytes);
    tree_steps = 0;
    int err = runtime_revert(options, out, &tree_done, &tree_error);
    (void)fclose(out);
    return err;
}

/* A plan that must be refused with this in its message, and with nothing changed. */
static inline void tree_refused(const struct runtime_options *options, int err, const char *message)
{
    char *before = tree_picture();
    assert_int_equal(tree_apply(options), err);
    if (strstr(tree_error.text, message) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", tree_error.text, message);
    char *after = tree_picture();
    assert_string_equal(before, after);
    free(before);
    free(after);
}

/* apply, apply again (nothing to do), revert: everything is as it was. `changes` files differ. */
static inline void tree_there_and_back(const struct runtime_options *options, int changes)
{
    char *before = tree_picture();
    assert_int_equal(tree_apply(options), changes);
    char *applied = tree_picture();
    assert_int_equal(tree_apply(options), 0);
    char *again = tree_picture();
    assert_string_equal(applied, again);
    assert_int_equal(tree_revert(options), 0);
    assert_int_equal(tree_done.restored, changes);
    assert_int_equal(tree_done.undone + tree_done.left + tree_done.refused, 0);
    char *after = tree_picture();
    assert_string_equal(before, after);
    assert_int_equal(tree_revert(options), 0);
    assert_int_equal(tree_done.restored, 0);
    free(before);
    free(applied);
    free(again);
    free(after);
}

#endif
