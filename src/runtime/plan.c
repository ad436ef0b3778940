/* SPDX-License-Identifier: Apache-2.0 */
/* Making a plan and showing it; the runtimes' own files are containerd.c, containers.c, docker.c.
 */
#include "plan.h"

#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include "block.h"

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

/* ---- diff: what differs is one run of lines, so common head and tail are all there is. Lines that
 * are not ours may hold secrets (headers, proxies with passwords): they are never shown (HRD-4). */

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

/* The line without its end. */
static struct span line_at(const struct span *text, size_t at)
{
    size_t bytes = line_bytes(text, at);
    if (bytes > 0 && text->at[at + bytes - 1] == '\n')
        bytes--;
    if (bytes > 0 && text->at[at + bytes - 1] == '\r')
        bytes--;
    return (struct span){text->at + at, bytes};
}

static bool is_line(const struct span *line, const char *wanted)
{
    return line->bytes == strlen(wanted) && memcmp(line->at, wanted, line->bytes) == 0;
}

/* Is the line at `at` one of a block of ours, marks included? */
static bool in_block(const struct span *text, size_t at)
{
    bool inside = false;
    for (size_t i = 0; i < at; i += line_bytes(text, i)) {
        const struct span line = line_at(text, i);
        inside = is_line(&line, BLOCK_BEGIN) || (inside && !is_line(&line, BLOCK_END));
    }
    const struct span line = line_at(text, at);
    return inside || is_line(&line, BLOCK_BEGIN);
}

/* Without the bytes that could drive a terminal. */
static void print_bytes(FILE *out, const char *at, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        unsigned char c = (unsigned char)at[i];
        (void)fputc((c >= 0x20 && c != 0x7f) || c == '\t' ? c : '?', out);
    }
}

/* Bytes of the JSON string that begins here, quotes included. */
static size_t string_bytes(const struct span *line, size_t at)
{
    size_t end = at + 1;
    while (end < line->bytes && line->at[end] != '"')
        end += line->at[end] == '\\' ? 2 : 1;
    return (end < line->bytes ? end + 1 : line->bytes) - at;
}

/* A line of JSON: keys, and values that are ours; other strings are left out. */
static void print_json(FILE *out, const struct span *line, const char *mirror)
{
    for (size_t i = 0; i < line->bytes;) {
        if (line->at[i] != '"') {
            print_bytes(out, line->at + i++, 1);
            continue;
        }
        size_t bytes = string_bytes(line, i);
        size_t behind = i + bytes;
        while (behind < line->bytes && (line->at[behind] == ' ' || line->at[behind] == '\t'))
            behind++;
        bool key = behind < line->bytes && line->at[behind] == ':';
        bool ours =
            bytes == strlen(mirror) + 2 && memcmp(line->at + i + 1, mirror, strlen(mirror)) == 0;
        if (key || ours)
            print_bytes(out, line->at + i, bytes);
        else
            (void)fputs("\"...\"", out);
        i += bytes;
    }
}

static void print_lines(FILE *out, char sign, const struct change *change, const char *mirror,
                        struct span part)
{
    const struct span *text = sign == '+' ? &change->after : &change->before.text;
    size_t from = (size_t)(part.at - text->at);
    for (size_t at = from; at < from + part.bytes; at += line_bytes(text, at)) {
        const struct span line = line_at(text, at);
        bool ours = sign == '+' ? in_block(text, at)
                                : is_line(&line, BLOCK_BEGIN) || is_line(&line, BLOCK_END);
        (void)fputc(sign, out);
        if (change->format == PLAN_JSON)
            print_json(out, &line, mirror);
        else if (ours)
            print_bytes(out, line.at, line.bytes);
        else if (line.bytes > 0)
            (void)fputs("...", out);
        (void)fputc('\n', out);
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

static void print_change(const struct change *change, const char *mirror, FILE *out)
{
    const struct span *a = &change->before.text;
    const struct span *b = &change->after;
    size_t head = common_head(a, b);
    size_t tail = common_tail(a, b, head);
    const struct span gone = {a->at + head, a->bytes - tail - head};
    const struct span come = {b->at + head, b->bytes - tail - head};
    unsigned gone_lines = count_lines(gone.at, gone.bytes);
    unsigned come_lines = count_lines(come.at, come.bytes);
    unsigned first = count_lines(a->at, head);
    (void)fprintf(out, "--- %s\n+++ %s\n@@ -%u,%u +%u,%u @@\n",
                  change->before.exists ? change->host_path : "/dev/null", change->host_path,
                  first + (gone_lines > 0), gone_lines, first + (come_lines > 0), come_lines);
    print_lines(out, '-', change, mirror, gone);
    print_lines(out, '+', change, mirror, come);
}

void runtime_plan_print(const struct runtime_plan *plan, FILE *out)
{
    for (unsigned i = 0; i < plan->change_count; i++)
        print_change(&plan->changes[i], plan->options.mirror, out);
    for (unsigned i = 0; i < plan->note_count; i++)
        (void)fprintf(out, "note: %s\n", plan->notes[i]);
}
