/* SPDX-License-Identifier: Apache-2.0 */
/* Making a plan and showing it; the runtimes' own files are containerd.c, containers.c, docker.c.
 */
#include "plan.h"

#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include "block.h"

/* Lines of context around a change, as diff -u has them. */
#define CONTEXT_LINES 3

int plan__no_memory(struct runtime_error *error)
{
    return runtime_fail(error, E_NO_MEMORY, "%s", err_text(E_NO_MEMORY));
}

int plan__path(struct runtime_plan *plan, const char *host_path, const char **out,
               struct runtime_error *error)
{
    if (host_path[0] != '/' || strlen(plan->options.root) + strlen(host_path) >= RUNTIME_PATH_BYTES)
        return runtime_fail(error, E_INVALID, "%.300s is no absolute path of less than %d bytes",
                            host_path, RUNTIME_PATH_BYTES);
    *out = pool_print(&plan->pool, "%s%s", plan->options.root, host_path);
    return *out == NULL ? plan__no_memory(error) : tree_inside(plan->options.root, *out, error);
}

int plan__change(struct runtime_plan *plan, const struct change *change,
                 struct runtime_error *error)
{
    const struct image *before = &change->before;
    bool same = before->text.bytes == change->after.bytes &&
                memcmp(before->text.at, change->after.at, change->after.bytes) == 0;
    if (same)
        return 0;
    if (plan->change_count == PLAN_CHANGES_MAX)
        return runtime_fail(error, E_FULL, "more than %d files to change", PLAN_CHANGES_MAX);
    plan->changes[plan->change_count++] = *change;
    return 0;
}

bool plan__has(const struct runtime_plan *plan, const char *host_path)
{
    for (unsigned i = 0; i < plan->change_count; i++)
        if (strcmp(plan->changes[i].host_path, host_path) == 0)
            return true;
    return false;
}

/* Adds one directory of the chain, if it is not there. */
static int one_directory(struct runtime_plan *plan, const char *host_path,
                         struct runtime_error *error)
{
    struct stat info;
    const char *path;
    for (unsigned i = 0; i < plan->directory_count; i++)
        if (strcmp(plan->directories[i], host_path) == 0)
            return 0;
    int err = plan__path(plan, host_path, &path, error);
    if (err != 0 || stat(path, &info) == 0)
        return err;
    if (plan->directory_count == PLAN_DIRECTORIES_MAX)
        return runtime_fail(error, E_FULL, "more than %d directories to make",
                            PLAN_DIRECTORIES_MAX);
    plan->directories[plan->directory_count++] = host_path;
    return 0;
}

int plan__directory(struct runtime_plan *plan, const char *host_path, struct runtime_error *error)
{
    int err = 0;
    for (const char *slash = strchr(host_path + 1, '/'); err == 0 && slash != NULL;
         slash = strchr(slash + 1, '/')) {
        const char *above = pool_copy(&plan->pool, host_path, (size_t)(slash - host_path));
        err = above == NULL ? plan__no_memory(error) : one_directory(plan, above, error);
    }
    return err != 0 ? err : one_directory(plan, host_path, error);
}

void plan__note(struct runtime_plan *plan, const char *format, ...)
{
    struct runtime_error line; /* for its cleaning of control bytes */
    char buffer[RUNTIME_ERROR_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(buffer, sizeof buffer, format, args);
    va_end(args);
    (void)runtime_fail(&line, 0, "%s", buffer);
    const char *note = pool_copy(&plan->pool, line.text, strlen(line.text));
    if (note != NULL && plan->note_count < PLAN_NOTES_MAX)
        plan->notes[plan->note_count++] = note;
}

static int toml_undo(struct pool *pool, const struct undo *undo, struct span *out, bool *found,
                     struct runtime_error *error)
{
    unsigned blocks;
    int err = block_undo(pool, &undo->text, out, &blocks, error);
    *found = err == 0 && blocks > 0;
    return err;
}

int plan__undo(struct pool *pool, const struct undo *undo, struct span *out, bool *found,
               struct runtime_error *error)
{
    return undo->format == PLAN_JSON ? docker__undo(pool, undo, out, found, error)
                                     : toml_undo(pool, undo, out, found, error);
}

/* ---- for the caller ---- */

/* "http://" and what needs no quoting anywhere. */
static bool mirror_valid(const char *mirror)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789.-:[]";
    return strncmp(mirror, "http://", 7) == 0 && mirror[7] != '\0' && strlen(mirror) < 256 &&
           strspn(mirror + 7, allowed) == strlen(mirror + 7);
}

int runtime_plan_new(const struct runtime_options *options, struct runtime_plan **out,
                     struct runtime_error *error)
{
    error->text[0] = '\0';
    if (!mirror_valid(options->mirror))
        return runtime_fail(error, E_INVALID, "\"%.200s\" is not http://HOST:PORT",
                            options->mirror);
    if (options->registry_count == 0 || options->registry_count > RUNTIME_REGISTRIES_MAX)
        return runtime_fail(error, E_INVALID, "name 1 to %d registries", RUNTIME_REGISTRIES_MAX);
    struct runtime_plan *plan = options->env->alloc(options->env->host, NULL, sizeof *plan);
    if (plan == NULL)
        return plan__no_memory(error);
    memset(plan, 0, sizeof *plan);
    plan->options = *options;
    pool_init(&plan->pool, options->env);
    int err = E_INVALID;
    if (options->kind == RUNTIME_CONTAINERD)
        err = containerd__plan(plan, error);
    else if (options->kind == RUNTIME_CONTAINERS)
        err = containers__plan(plan, error);
    else if (options->kind == RUNTIME_DOCKER)
        err = docker__plan(plan, error);
    if (err == 0)
        *out = plan;
    else
        runtime_plan_free(plan);
    return err;
}

void runtime_plan_free(struct runtime_plan *plan)
{
    if (plan == NULL)
        return;
    pool_close(&plan->pool);
    const struct env *env = plan->options.env;
    (void)env->alloc(env->host, plan, 0);
}

unsigned runtime_plan_changes(const struct runtime_plan *plan)
{
    return plan->change_count;
}

/* ---- diff: what differs is one run of lines, so common head and tail are all there is ---- */

static unsigned count_lines(const char *at, size_t bytes)
{
    unsigned lines = 0;
    for (size_t i = 0; i < bytes; i++)
        lines += at[i] == '\n' || i + 1 == bytes;
    return lines;
}

static size_t line_bytes(const struct span *text, size_t at)
{
    const char *end = memchr(text->at + at, '\n', text->bytes - at);
    return end != NULL ? (size_t)(end - text->at) - at + 1 : text->bytes - at;
}

/* Begin of the line that ends at `at`. */
static size_t line_before(const struct span *text, size_t at)
{
    if (at > 0)
        at--; /* over its own end */
    while (at > 0 && text->at[at - 1] != '\n')
        at--;
    return at;
}

/* Lines of [from, to), without the bytes that could drive a terminal. */
static void print_lines(FILE *out, char sign, const struct span *text, size_t from, size_t to)
{
    while (from < to) {
        size_t bytes = line_bytes(text, from);
        (void)fputc(sign, out);
        for (size_t i = from; i < from + bytes; i++) {
            unsigned char c = (unsigned char)text->at[i];
            bool line_end =
                c == '\n' || (c == '\r' && i + 1 < text->bytes && text->at[i + 1] == '\n');
            if (!(c == '\r' && line_end))
                (void)fputc(c >= 0x20 || c == '\t' || line_end ? c : '?', out);
        }
        if (text->at[from + bytes - 1] != '\n')
            (void)fputs("\n\\ No newline at end of file\n", out);
        from += bytes;
    }
}

static size_t common_head(const struct span *a, const struct span *b)
{
    size_t at = 0;
    while (at < a->bytes && at < b->bytes) {
        size_t bytes = line_bytes(a, at);
        if (bytes != line_bytes(b, at) || memcmp(a->at + at, b->at + at, bytes) != 0)
            break;
        at += bytes;
    }
    return at;
}

/* Whole lines at the end that are equal, not reaching into the head. */
static size_t common_tail(const struct span *a, const struct span *b, size_t head)
{
    size_t tail = 0;
    size_t room = (a->bytes < b->bytes ? a->bytes : b->bytes) - head;
    for (;;) {
        size_t start = line_before(a, a->bytes - tail);
        size_t bytes = a->bytes - start;
        if (tail == room || bytes > room || bytes == tail ||
            memcmp(a->at + start, b->at + b->bytes - bytes, bytes - tail) != 0 ||
            (b->bytes > bytes && b->at[b->bytes - bytes - 1] != '\n'))
            return tail;
        tail = bytes;
    }
}

static void print_change(const struct change *change, FILE *out)
{
    const struct span *a = &change->before.text;
    const struct span *b = &change->after;
    size_t head = common_head(a, b);
    size_t tail = common_tail(a, b, head);
    size_t from = head;
    size_t a_end = a->bytes - tail;
    size_t to = a_end;
    for (int i = 0; i < CONTEXT_LINES; i++) {
        from = line_before(a, from);
        to += to < a->bytes ? line_bytes(a, to) : 0;
    }
    unsigned before = count_lines(a->at + from, head - from);
    unsigned after = count_lines(a->at + a_end, to - a_end);
    unsigned gone = count_lines(a->at + head, a_end - head);
    unsigned come = count_lines(b->at + head, b->bytes - tail - head);
    unsigned first = count_lines(a->at, from);
    (void)fprintf(out, "--- %s\n+++ %s\n@@ -%u,%u +%u,%u @@\n",
                  change->before.exists ? change->host_path : "/dev/null", change->host_path,
                  before + gone + after > 0 ? first + 1 : 0, before + gone + after, first + 1,
                  before + come + after);
    print_lines(out, ' ', a, from, head);
    print_lines(out, '-', a, head, a_end);
    print_lines(out, '+', b, head, b->bytes - tail);
    print_lines(out, ' ', a, a_end, to);
}

void runtime_plan_print(const struct runtime_plan *plan, FILE *out)
{
    for (unsigned i = 0; i < plan->change_count; i++)
        print_change(&plan->changes[i], out);
    for (unsigned i = 0; i < plan->note_count; i++)
        (void)fprintf(out, "note: %s\n", plan->notes[i]);
}
