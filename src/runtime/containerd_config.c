/* SPDX-License-Identifier: Apache-2.0 */
/* Reading containerd's config.toml and its imports, and adding config_path; containerd_config.h. */
#include "containerd_config.h"

#include <glob.h>
#include <stdio.h>
#include <string.h>

#include "block.h"

/* Names of the CRI plugin that reads the registry section: versions 1, 2 and 3. A containerd reads
 * older versions, too. */
static const char *const plugin_ids[] = {"cri", "io.containerd.grpc.v1.cri",
                                         "io.containerd.cri.v1.images"};
#define PLUGINS (sizeof plugin_ids / sizeof plugin_ids[0])

/* ---- one file ---- */

static const char *plugin_of(const struct toml_item *item)
{
    if (item->parts < 2 || strcmp(toml_part(item, 0), "plugins") != 0)
        return NULL;
    for (size_t i = 0; i < PLUGINS; i++)
        if (strcmp(toml_part(item, 1), plugin_ids[i]) == 0)
            return plugin_ids[i];
    return NULL;
}

static bool part_is(const struct toml_item *item, uint32_t index, const char *name)
{
    return strcmp(toml_part(item, index), name) == 0;
}

/* A table given as a value hides what we look for in it. */
static bool is_hidden(const struct toml *toml, const struct toml_item *item)
{
    bool whole = item->parts == 1 && part_is(item, 0, "plugins");
    bool plugin = plugin_of(item) != NULL &&
                  (item->parts == 2 || (item->parts == 3 && part_is(item, 2, "registry")));
    return item->kind == TOML_KEY && (whole || plugin) && !toml_value_is(toml, item, "{}");
}

/* What keeps the plugin from starting with a config_path: its name, or NULL. */
static const char *conflict_of(const struct toml *toml, const struct toml_item *item)
{
    bool value = item->kind == TOML_KEY && !toml_value_is(toml, item, "{}");
    if (plugin_of(item) == NULL || !part_is(item, 2, "registry"))
        return NULL;
    if (part_is(item, 3, "mirrors") && (item->parts > 4 || value))
        return "registry.mirrors";
    /* configs.<host>.tls; a host's inline table may hide one */
    bool inline_host = value && (item->parts == 4 || item->parts == 5);
    if (part_is(item, 3, "configs") && (inline_host || part_is(item, 5, "tls")))
        return "registry.configs.*.tls";
    return NULL;
}

static int read_config_path(struct runtime_plan *plan, struct containerd_config *config,
                            const struct containerd_file *file, const struct toml_item *item,
                            struct runtime_error *error)
{
    const char *value;
    int err = toml_string(&plan->pool, &file->toml, item, &value);
    if (err == E_NO_MEMORY)
        return plan__no_memory(error);
    if (err != 0)
        return runtime_fail(error, E_REFUSED, "%.300s:%u: config_path is no string",
                            file->host_path, (unsigned)item->line);
    if (value[0] == '\0')
        return 0;
    if (config->config_path[0] != '\0' && strcmp(config->config_path, value) != 0)
        return runtime_fail(error, E_REFUSED,
                            "%.300s:%u: config_path is set a second time, to something else; which "
                            "one counts depends on containerd's version",
                            file->host_path, (unsigned)item->line);
    config->config_path = value;
    return 0;
}

static int look_at(struct runtime_plan *plan, struct containerd_config *config,
                   const struct containerd_file *file, struct runtime_error *error)
{
    for (uint32_t i = 0; i < file->toml.count; i++) {
        const struct toml_item *item = &file->toml.items[i];
        if (is_hidden(&file->toml, item))
            return runtime_fail(error, E_REFUSED,
                                "%.300s:%u: the CRI plugin's section is an inline table, which is "
                                "not read; write it as [plugins.\"...\"]",
                                file->host_path, (unsigned)item->line);
        const char *conflict = conflict_of(&file->toml, item);
        if (conflict != NULL && config->conflict[0] == '\0')
            (void)snprintf(config->conflict, sizeof config->conflict, "%.180s:%u: %s",
                           file->host_path, (unsigned)item->line, conflict);
        if (plugin_of(item) != NULL && file != &config->files[0])
            config->drop_in = file->host_path;
        if (item->kind == TOML_KEY && item->parts == 4 && plugin_of(item) != NULL &&
            part_is(item, 2, "registry") && part_is(item, 3, "config_path")) {
            int err = read_config_path(plan, config, file, item, error);
            if (err != 0)
                return err;
        }
    }
    return 0;
}

/* ---- all files ---- */

static int read_file(struct runtime_plan *plan, struct containerd_config *config,
                     const char *host_path, struct runtime_error *error)
{
    struct runtime_error why;
    const char *path;
    for (unsigned i = 0; i < config->file_count; i++)
        if (strcmp(config->files[i].host_path, host_path) == 0)
            return 0; /* imported twice, or itself */
    if (config->file_count == CONTAINERD_FILES_MAX)
        return runtime_fail(error, E_TOO_LARGE, "%.300s: more than %d files are imported",
                            host_path, CONTAINERD_FILES_MAX);
    struct containerd_file *file = &config->files[config->file_count];
    int err = plan__path(plan, host_path, &path, error);
    if (err == 0)
        err = tree_read(&plan->pool, path, TREE_LOOK, &file->image, error);
    if (err != 0 || !file->image.exists)
        return err;
    file->host_path = host_path;
    err = toml_parse(&plan->pool, file->image.text.at, file->image.text.bytes, &file->toml, &why);
    if (err != 0)
        return runtime_fail(error, err == E_NO_MEMORY ? err : E_REFUSED, "%.300s:%.200s", host_path,
                            why.text);
    config->file_count++;
    return look_at(plan, config, file, error);
}

/* One entry of `imports`: a path or a pattern, relative to the importing file (containerd,
 * config "imports"). */
static int import(struct runtime_plan *plan, struct containerd_config *config, const char *from,
                  const char *entry, struct runtime_error *error)
{
    glob_t found = {0};
    const char *path;
    const char *slash = strrchr(from, '/');
    const char *host_path =
        entry[0] == '/' ? entry
                        : pool_print(&plan->pool, "%.*s/%s", (int)(slash - from), from, entry);
    if (host_path == NULL)
        return plan__no_memory(error);
    if (strchr(entry, '*') == NULL)
        return read_file(plan, config, host_path, error);
    int err = plan__path(plan, host_path, &path, error);
    if (err != 0)
        return err;
    int code = glob(path, 0, NULL, &found);
    if (code != 0 && code != GLOB_NOMATCH)
        err = runtime_fail(error, E_IO, "%.300s: cannot be searched", host_path);
    size_t root = strlen(plan->options.root);
    for (size_t i = 0; i < found.gl_pathc && err == 0; i++) {
        const char *one =
            pool_copy(&plan->pool, found.gl_pathv[i] + root, strlen(found.gl_pathv[i] + root));
        err = one == NULL ? plan__no_memory(error) : read_file(plan, config, one, error);
    }
    globfree(&found);
    return err;
}

static int read_imports(struct runtime_plan *plan, struct containerd_config *config, unsigned index,
                        struct runtime_error *error)
{
    static const char *const imports[] = {"imports", NULL};
    const char *entries[CONTAINERD_FILES_MAX];
    const struct containerd_file *file = &config->files[index];
    unsigned count = 0;
    for (uint32_t i = 0; i < file->toml.count; i++) {
        const struct toml_item *item = &file->toml.items[i];
        if (!toml_is(item, imports))
            continue;
        int err =
            toml_strings(&plan->pool, &file->toml, item, entries, CONTAINERD_FILES_MAX, &count);
        if (err == E_NO_MEMORY)
            return plan__no_memory(error);
        if (err != 0)
            return runtime_fail(error, E_REFUSED,
                                "%.300s:%u: imports is no list of at most %d "
                                "strings",
                                file->host_path, (unsigned)item->line, CONTAINERD_FILES_MAX);
    }
    for (unsigned i = 0; i < count; i++) {
        int err = import(plan, config, file->host_path, entries[i], error);
        if (err != 0)
            return err;
    }
    return 0;
}

static int read_version(struct containerd_config *config, struct runtime_error *error)
{
    static const char *const version[] = {"version", NULL};
    static const char *const known[] = {"1", "2", "3"};
    const struct containerd_file *file = &config->files[0];
    config->version = 1;
    for (uint32_t i = 0; i < file->toml.count; i++) {
        const struct toml_item *item = &file->toml.items[i];
        if (!toml_is(item, version))
            continue;
        config->version = 0;
        for (unsigned v = 0; v < sizeof known / sizeof known[0]; v++)
            if (toml_value_is(&file->toml, item, known[v]))
                config->version = v + 1;
        if (config->version == 0)
            return runtime_fail(error, E_REFUSED, "%.300s:%u: only versions 1, 2 and 3 are known",
                                file->host_path, (unsigned)item->line);
    }
    return 0;
}

int containerd__config(struct runtime_plan *plan, const char *host_path,
                       struct containerd_config *config, struct runtime_error *error)
{
    memset(config, 0, sizeof *config);
    config->config_path = "";
    int err = read_file(plan, config, host_path, error);
    for (unsigned i = 0; err == 0 && i < config->file_count; i++)
        err = read_imports(plan, config, i, error); /* an import may import */
    if (err == 0 && config->file_count > 0)
        err = read_version(config, error);
    return err;
}

/* ---- adding config_path ---- */

/* Where it goes: in place of an empty one, else first in the registry's table, else with a table of
 * its own at the end. *table: a header is needed. */
static struct block_edit place(const struct toml *base, const char *plugin, bool *table)
{
    const char *const registry[] = {"plugins", plugin, "registry", NULL};
    const char *const key[] = {"plugins", plugin, "registry", "config_path", NULL};
    struct block_edit edit = {.at = base->bytes, .was_end = base->bytes};
    *table = true;
    for (uint32_t i = 0; i < base->count; i++) {
        const struct toml_item *item = &base->items[i];
        bool here = item->kind == TOML_TABLE && toml_is(item, registry);
        if (item->kind == TOML_KEY && toml_is(item, key)) {
            *table = false;
            return (struct block_edit){.at = item->start, .was_end = item->end};
        }
        if (here) {
            *table = false;
            edit.at = edit.was_end = item->end;
        }
    }
    return edit;
}

static int write_config_path(struct runtime_plan *plan, struct change *change, const char *plugin,
                             const char *config_path, struct runtime_error *error)
{
    struct toml base;
    struct text lines;
    struct text after;
    bool table;
    int err =
        toml_parse(&plan->pool, change->before.text.at, change->before.text.bytes, &base, error);
    if (err != 0)
        return err;
    struct block_edit edit = place(&base, plugin, &table);
    text_init(&lines, &plan->pool);
    text_init(&after, &plan->pool);
    if (table) {
        text_add_string(&lines, "[plugins.");
        toml_quote(&lines, plugin);
        text_add_string(&lines, ".registry]\n");
    }
    text_add_string(&lines, "  config_path = ");
    toml_quote(&lines, config_path);
    text_add_string(&lines, "\n");
    if (text_end(&lines) != 0)
        return plan__no_memory(error);
    edit.lines = lines.at;
    err = block_insert(&plan->pool, &base, &edit, 1, &after, error);
    change->after = (struct span){after.at, after.bytes};
    return err;
}

int containerd__set_config_path(struct runtime_plan *plan, const struct containerd_config *config,
                                const char *config_path, struct runtime_error *error)
{
    struct runtime_error why = {""};
    if (config->file_count == 0)
        return runtime_fail(error, E_REFUSED,
                            "there is no configuration of containerd to add config_path to; make "
                            "one with `containerd config default` first");
    const struct containerd_file *file = &config->files[0];
    struct change change = {.host_path = file->host_path, .format = PLAN_TOML};
    if (config->drop_in != NULL)
        return runtime_fail(error, E_REFUSED,
                            "%.300s has a section of the CRI plugin, too: containerd 1.x takes one "
                            "file's section only. Add config_path = \"%.200s\" there by hand",
                            config->drop_in, config_path);
    int err = plan__path(plan, change.host_path, &change.path, error);
    if (err == 0)
        err = tree_read(&plan->pool, change.path, TREE_EDIT, &change.before, error);
    if (err != 0)
        return err;
    err = write_config_path(plan, &change, plugin_ids[config->version - 1], config_path, &why);
    if (err != 0)
        return runtime_fail(error, err, "%.300s: %.500s", file->host_path, why.text);
    plan__note(plan, "containerd reads config_path when it starts: restart it (systemctl restart "
                     "containerd; containers go on). This command never does");
    return plan__change(plan, &change, error);
}
