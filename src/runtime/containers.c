/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRI-O, podman, buildah: a [[registry.mirror]] for the agent (containers-registries.conf(5),
 * .conf.d(5)). Files are read in the order of the tools; a [[registry]] of a later file replaces
 * one of the same prefix whole, with its mirrors, `blocked` and `insecure`. So an entry that is
 * there is added to where it stands, and one of our own is made only for what no entry fits. No
 * ?ns= is sent: the agent can stand for one registry only, its default one.
 */
#include <stdio.h>
#include <string.h>

#include "block.h"
#include "plan.h"

#define MAIN_FILE         "/etc/containers/registries.conf"
#define OUR_DROP_IN       "shoal.conf"
#define DROP_IN_FILES_MAX 256

struct conf {
    const char *host_path;
    const char *path;
    struct image image;
    struct toml toml; /* without our block */
};
struct confs {
    struct conf files[DROP_IN_FILES_MAX + 2];
    unsigned count;
    const struct conf *settled; /* the one our block belongs into; NULL: none */
};
/* A [[registry]]. */
struct entry {
    const struct conf *conf; /* NULL: none */
    uint32_t index;          /* of its header */
};

static const char *const registry_path[] = {"registry", NULL};
static const char *const mirror_path[] = {"registry", "mirror", NULL};

/* ---- reading ---- */

static int refuse(struct runtime_error *error, const struct conf *conf, uint32_t index,
                  const char *what)
{
    return runtime_fail(error, E_REFUSED, "%.300s:%u: %s", conf->host_path,
                        (unsigned)conf->toml.items[index].line, what);
}

/* Forms that are not edited, or that the tools would refuse beside ours. */
static int check_form(const struct conf *conf, struct runtime_error *error)
{
    for (uint32_t i = 0; i < conf->toml.count; i++) {
        const struct toml_item *item = &conf->toml.items[i];
        if (item->kind == TOML_COMMENT)
            continue;
        if (strcmp(toml_part(item, 0), "registries") == 0)
            return refuse(error, conf, i,
                          "this is version 1 of the format, which does not go with [[registry]]; "
                          "convert the file to version 2");
        if (strcmp(toml_part(item, 0), "registry") == 0 && item->parts <= 2 &&
            item->element == TOML_ROOT && item->kind != TOML_ARRAY)
            return refuse(error, conf, i,
                          "registries are written here in a way that is not read; "
                          "write them as [[registry]]");
    }
    return 0;
}

static int read_conf(struct runtime_plan *plan, struct confs *confs, const char *host_path,
                     struct runtime_error *error)
{
    struct runtime_error why = {""};
    struct conf *conf = &confs->files[confs->count];
    struct span base;
    bool found;
    conf->host_path = host_path;
    int err = plan__path(plan, host_path, &conf->path, error);
    if (err == 0)
        err = tree_read(&plan->pool, conf->path, TREE_LOOK, &conf->image, error);
    if (err != 0 || !conf->image.exists)
        return err;
    const struct undo undo = {.format = PLAN_TOML, .text = conf->image.text};
    err = plan__undo(&plan->pool, &undo, &base, &found, &why);
    if (err == 0)
        err = toml_parse(&plan->pool, base.at, base.bytes, &conf->toml, &why);
    if (err != 0)
        return runtime_fail(error, err == E_NO_MEMORY ? err : E_REFUSED, "%.300s:%.600s", host_path,
                            why.text);
    confs->count++;
    return check_form(conf, error);
}

static bool is_conf(const char *name)
{
    size_t bytes = strlen(name);
    return bytes > 5 && strcmp(name + bytes - 5, ".conf") == 0;
}

static int read_confs(struct runtime_plan *plan, struct confs *confs, const char *main_file,
                      const char *directory, struct runtime_error *error)
{
    const char *names[DROP_IN_FILES_MAX];
    const char *path;
    unsigned count;
    int err = read_conf(plan, confs, main_file, error);
    if (err == 0)
        err = plan__path(plan, directory, &path, error);
    if (err == 0)
        err = tree_list(&plan->pool, path, names, DROP_IN_FILES_MAX, &count, error);
    for (unsigned i = 0; err == 0 && i < count; i++) {
        if (!is_conf(names[i]))
            continue;
        const char *host_path = pool_print(&plan->pool, "%s/%s", directory, names[i]);
        err = host_path == NULL ? plan__no_memory(error) : read_conf(plan, confs, host_path, error);
    }
    return err;
}

/* ---- entries ---- */

/* The value of `name` in the table of this header; "" if there is none or it is no string. */
static int value_of(struct runtime_plan *plan, const struct conf *conf, uint32_t table,
                    const char *name, const char **out)
{
    *out = "";
    for (uint32_t i = table + 1; i < conf->toml.count; i++) {
        const struct toml_item *item = &conf->toml.items[i];
        if (item->kind != TOML_KEY || item->table != table ||
            item->parts != conf->toml.items[table].parts + 1 ||
            strcmp(toml_part(item, item->parts - 1), name) != 0)
            continue;
        if (toml_string(&plan->pool, &conf->toml, item, out) == E_NO_MEMORY)
            return E_NO_MEMORY;
    }
    return 0;
}

static bool is_true(const struct conf *conf, uint32_t table, const char *name)
{
    for (uint32_t i = table + 1; i < conf->toml.count; i++) {
        const struct toml_item *item = &conf->toml.items[i];
        if (item->kind == TOML_KEY && item->table == table &&
            strcmp(toml_part(item, item->parts - 1), name) == 0)
            return toml_value_is(&conf->toml, item, "true");
    }
    return false;
}

/* "*.example.com" stands for every host below it, with a port or without. */
static bool wildcard_fits(const char *prefix, const char *name)
{
    size_t host = strcspn(name, ":");
    size_t tail = strlen(prefix) - 1; /* with the dot */
    return strncmp(prefix, "*.", 2) == 0 && host > tail &&
           memcmp(name + host - tail, prefix + 1, tail) == 0;
}

/* Looks at one [[registry]]; the last one of the wanted prefix stays in *found. */
static int judge(struct runtime_plan *plan, const struct conf *conf, uint32_t index,
                 struct entry *found, struct runtime_error *error)
{
    const char *name = plan->options.registries[0].name;
    const char *prefix;
    int err = value_of(plan, conf, index, "prefix", &prefix);
    if (err == 0 && prefix[0] == '\0')
        err = value_of(plan, conf, index, "location", &prefix);
    if (err != 0)
        return plan__no_memory(error);
    if (wildcard_fits(prefix, name))
        return refuse(error, conf, index,
                      "this entry stands for the registry by a pattern; one for its name would "
                      "hide what it says. Add the mirror here by hand");
    if (strcmp(prefix, name) != 0)
        return 0;
    if (found->conf == conf)
        return refuse(error, conf, index, "a second entry of the same registry in this file");
    *found = (struct entry){.conf = conf, .index = index};
    return 0;
}

static int find_entry(struct runtime_plan *plan, const struct confs *confs, struct entry *found,
                      struct runtime_error *error)
{
    found->conf = NULL;
    for (unsigned f = 0; f < confs->count; f++) {
        const struct toml *toml = &confs->files[f].toml;
        for (uint32_t i = 0; i < toml->count; i++) {
            if (toml->items[i].kind != TOML_ARRAY || !toml_is(&toml->items[i], registry_path))
                continue;
            int err = judge(plan, &confs->files[f], i, found, error);
            if (err != 0)
                return err;
        }
    }
    return 0;
}

/* ---- changes ---- */

/* "127.0.0.1:65001" of "http://127.0.0.1:65001". */
static const char *mirror_location(const struct runtime_plan *plan)
{
    return plan->options.mirror + strlen("http://");
}

static void add_mirror(struct runtime_plan *plan, struct text *lines)
{
    text_add_string(lines, "[[registry.mirror]]\nlocation = ");
    toml_quote(lines, mirror_location(plan));
    text_add_string(lines, "\ninsecure = true\n");
}

/* Puts `lines` into a file at `at`. */
static int insert(struct runtime_plan *plan, const struct conf *conf, size_t at, struct text *lines,
                  struct runtime_error *error)
{
    struct runtime_error why = {""};
    struct text after;
    struct toml base = conf->toml;
    struct change change = {.host_path = conf->host_path, .path = conf->path, .format = PLAN_TOML};
    text_init(&after, &plan->pool);
    if (text_end(lines) != 0)
        return plan__no_memory(error);
    int err = tree_read(&plan->pool, conf->path, TREE_EDIT, &change.before, error);
    if (err != 0)
        return err;
    const struct block_edit edit = {.at = at, .was_end = at, .lines = lines->at};
    err = block_insert(&plan->pool, &base, &edit, 1, &after, &why);
    if (err != 0)
        return runtime_fail(error, err, "%.300s:%.600s", conf->host_path, why.text);
    change.after = (struct span){after.at, after.bytes};
    return plan__change(plan, &change, error);
}

/* Behind the entry's own keys, before mirrors that are there. *ours: one of them is the agent. */
static int look_at_entry(struct runtime_plan *plan, const struct entry *entry, size_t *at,
                         bool *ours, struct runtime_error *error)
{
    const struct conf *conf = entry->conf;
    *at = conf->toml.items[entry->index].end;
    *ours = false;
    for (uint32_t i = entry->index + 1; i < conf->toml.count; i++) {
        const struct toml_item *item = &conf->toml.items[i];
        const char *location;
        if (item->kind == TOML_KEY && item->table == entry->index) {
            *at = item->end;
            if (strcmp(toml_part(item, 1), "mirror") == 0)
                return refuse(error, conf, i,
                              "mirrors are written here in a way that is not "
                              "edited; write them as [[registry.mirror]]");
        }
        if (item->kind != TOML_ARRAY || item->element != entry->index ||
            !toml_is(item, mirror_path))
            continue;
        if (value_of(plan, conf, i, "location", &location) != 0)
            return plan__no_memory(error);
        *ours = *ours || strcmp(location, mirror_location(plan)) == 0;
    }
    return 0;
}

static int extend(struct runtime_plan *plan, struct confs *confs, const struct entry *entry,
                  struct runtime_error *error)
{
    struct text lines;
    size_t at;
    bool ours;
    if (is_true(entry->conf, entry->index, "blocked"))
        return refuse(error, entry->conf, entry->index, "the registry is blocked here");
    int err = look_at_entry(plan, entry, &at, &ours, error);
    if (err != 0)
        return err;
    if (ours) {
        plan__note(plan, "%.300s:%u: names the agent already; revert will leave that",
                   entry->conf->host_path, (unsigned)entry->conf->toml.items[entry->index].line);
        return 0;
    }
    text_init(&lines, &plan->pool);
    add_mirror(plan, &lines);
    confs->settled = entry->conf;
    return insert(plan, entry->conf, at, &lines, error);
}

/* An entry of our own in shoal.conf, which may be there already. */
static int make_entry(struct runtime_plan *plan, struct confs *confs, const char *directory,
                      struct runtime_error *error)
{
    const struct runtime_registry *registry = &plan->options.registries[0];
    struct conf fresh = {.toml = {.text = ""}};
    const struct conf *conf = &fresh;
    struct text lines;
    fresh.host_path = pool_print(&plan->pool, "%s/" OUR_DROP_IN, directory);
    if (fresh.host_path == NULL)
        return plan__no_memory(error);
    int err = plan__path(plan, fresh.host_path, &fresh.path, error);
    for (unsigned i = 0; i < confs->count; i++)
        if (strcmp(confs->files[i].host_path, fresh.host_path) == 0)
            conf = &confs->files[i];
    confs->settled = conf;
    text_init(&lines, &plan->pool);
    text_add_string(&lines, "[[registry]]\nprefix = ");
    toml_quote(&lines, registry->name);
    text_add_string(&lines, "\nlocation = ");
    toml_quote(&lines, registry->name);
    text_add_string(&lines, registry->plain_http ? "\ninsecure = true\n" : "\n");
    add_mirror(plan, &lines);
    if (err == 0)
        err = plan__directory(plan, directory, error);
    return err != 0 ? err : insert(plan, conf, conf->toml.bytes, &lines, error);
}

/* With our block left out of the others: one of an earlier apply, whose registry has changed. */
static int drop_old(struct runtime_plan *plan, const struct confs *confs,
                    struct runtime_error *error)
{
    for (unsigned i = 0; i < confs->count; i++) {
        const struct conf *conf = &confs->files[i];
        struct change change = {
            .host_path = conf->host_path, .path = conf->path, .format = PLAN_TOML};
        if (conf->toml.bytes == conf->image.text.bytes || conf == confs->settled)
            continue;
        int err = tree_read(&plan->pool, conf->path, TREE_EDIT, &change.before, error);
        change.after = (struct span){conf->toml.text, conf->toml.bytes};
        if (err == 0)
            err = plan__change(plan, &change, error);
        if (err != 0)
            return err;
    }
    return 0;
}

int containers__plan(struct runtime_plan *plan, struct runtime_error *error)
{
    const struct runtime_options *options = &plan->options;
    const char *main_file = options->config_file != NULL ? options->config_file : MAIN_FILE;
    const char *directory = pool_print(&plan->pool, "%s.d", main_file);
    struct confs *confs = pool_alloc(&plan->pool, sizeof *confs);
    struct entry entry = {.conf = NULL};
    if (directory == NULL || confs == NULL)
        return plan__no_memory(error);
    if (options->registry_count != 1 || strncmp(options->mirror, "http://", 7) != 0)
        return runtime_fail(error, E_INVALID,
                            "CRI-O and podman do not say which registry they mean: the agent can "
                            "stand for its default one only");
    int err = read_confs(plan, confs, main_file, directory, error);
    if (err == 0)
        err = find_entry(plan, confs, &entry, error);
    if (err == 0)
        err = entry.conf != NULL ? extend(plan, confs, &entry, error)
                                 : make_entry(plan, confs, directory, error);
    if (err == 0)
        err = drop_old(plan, confs, error);
    if (err == 0 && plan->change_count > 0)
        plan__note(plan, "podman and buildah read this at each call; CRI-O at `systemctl reload "
                         "crio`");
    return err;
}
