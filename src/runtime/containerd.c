/* SPDX-License-Identifier: Apache-2.0 */
/*
 * containerd: one table for the agent in each registry's hosts.toml (containerd docs/hosts.md;
 * behaviour recorded in 1.6, read in 2.x). Which directory containerd takes for a registry is
 * repeated here exactly, since directories are not merged: one that is made where `_default` or
 * certificates counted before would hide them.
 */
#include <stdio.h>
#include <string.h>

#include "block.h"
#include "containerd_config.h"
#include "limits.h"

#define DEFAULT_DIRECTORY "_default"
/* Certificates beside a hosts.toml that is not there; more entries are not read. */
#define DIRECTORY_ENTRIES_MAX 256

struct roots {
    const char *paths[CONTAINERD_ROOTS_MAX]; /* of the host; the first one that has a place wins */
    unsigned count;
};

/* ---- which directory ---- */

/* A name that is one path component of ours to make. */
static bool name_valid(const char *name)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789.-:[]_";
    size_t bytes = strlen(name);
    return bytes > 0 && bytes <= HOST_BYTES_MAX && name[0] != '.' &&
           strspn(name, allowed) == bytes && strstr(name, "..") == NULL;
}

/* "host:port" as containerd spells it first: "host_port_". */
static const char *with_underscores(struct pool *pool, const char *name)
{
    const char *colon = strrchr(name, ':');
    if (colon == NULL || colon == name)
        return name;
    return pool_print(pool, "%.*s_%s_", (int)(colon - name), name, colon + 1);
}

/* True in *there if the root has this directory; its path in *out. */
static int probe(struct runtime_plan *plan, const char *root, const char *name, const char **out,
                 bool *there, struct runtime_error *error)
{
    const char *path;
    *out = pool_print(&plan->pool, "%s/%s", root, name);
    if (*out == NULL)
        return plan__no_memory(error);
    int err = plan__path(plan, *out, &path, error);
    return err != 0 ? err : tree_directory(path, there, error);
}

/* The directory that containerd takes for `name` now; NULL if it has none. */
static int effective(struct runtime_plan *plan, const struct roots *roots, const char *name,
                     const char **out, struct runtime_error *error)
{
    const char *spelled = with_underscores(&plan->pool, name);
    if (spelled == NULL)
        return plan__no_memory(error);
    const char *const candidates[] = {spelled, name, DEFAULT_DIRECTORY};
    *out = NULL;
    for (unsigned r = 0; r < roots->count; r++) {
        for (unsigned i = 0; i < 3; i++) {
            bool there = false;
            int err = probe(plan, roots->paths[r], candidates[i], out, &there, error);
            if (err != 0 || there)
                return err;
        }
    }
    *out = NULL;
    return 0;
}

/* The directory to write to, which may have to be made. `_default` is made in the last root: before
 * that it would hide registries of those behind it. */
static int choose(struct runtime_plan *plan, const struct roots *roots, const char *name,
                  const char **out, struct runtime_error *error)
{
    bool all = strcmp(name, DEFAULT_DIRECTORY) == 0;
    int err = effective(plan, roots, name, out, error);
    if (err != 0 || *out != NULL)
        return err;
    const char *root = roots->paths[all ? roots->count - 1 : 0];
    *out = pool_print(&plan->pool, "%s/%s", root, name);
    if (*out == NULL)
        return plan__no_memory(error);
    return plan__directory(plan, *out, error);
}

/* ---- what a new hosts.toml says ---- */

static bool ends_in(const char *name, const char *suffix)
{
    size_t bytes = strlen(name);
    size_t tail = strlen(suffix);
    return bytes > tail && strcmp(name + bytes - tail, suffix) == 0;
}

static bool has_name(const char *const *names, unsigned count, const char *wanted)
{
    for (unsigned i = 0; i < count; i++)
        if (strcmp(names[i], wanted) == 0)
            return true;
    return false;
}

/* "client = [[cert, key], ...]" of *.cert with their *.key. */
static int add_client(struct runtime_plan *plan, const char *const *names, unsigned count,
                      struct text *lines, struct runtime_error *error)
{
    bool any = false;
    for (unsigned i = 0; i < count; i++) {
        if (!ends_in(names[i], ".cert"))
            continue;
        const char *key =
            pool_print(&plan->pool, "%.*s.key", (int)(strlen(names[i]) - 5), names[i]);
        if (key == NULL)
            return plan__no_memory(error);
        if (!has_name(names, count, key))
            return runtime_fail(error, E_REFUSED,
                                "%.200s has no key beside it; write a hosts.toml that says how it "
                                "is to be used",
                                names[i]);
        text_add_string(lines, any ? ", [" : "client = [[");
        toml_quote(lines, names[i]);
        text_add_string(lines, ", ");
        toml_quote(lines, key);
        text_add_string(lines, "]");
        any = true;
    }
    if (any)
        text_add_string(lines, "]\n");
    return 0;
}

/* Without a hosts.toml containerd takes *.crt as authorities and *.cert with *.key to show to the
 * registry; with one it does not look. So the one we make names them. */
static int add_certificates(struct runtime_plan *plan, const char *directory, struct text *lines,
                            struct runtime_error *error)
{
    const char *names[DIRECTORY_ENTRIES_MAX];
    const char *path;
    unsigned count;
    bool any = false;
    int err = plan__path(plan, directory, &path, error);
    if (err == 0)
        err = tree_list(&plan->pool, path, names, DIRECTORY_ENTRIES_MAX, &count, error);
    if (err != 0)
        return err;
    for (unsigned i = 0; i < count; i++) {
        if (!ends_in(names[i], ".crt"))
            continue;
        text_add_string(lines, any ? ", " : "ca = [");
        toml_quote(lines, names[i]);
        any = true;
    }
    if (any)
        text_add_string(lines, "]\n");
    return add_client(plan, names, count, lines, error);
}

static void add_host(struct text *lines, const char *mirror)
{
    text_add_string(lines, "[host.");
    toml_quote(lines, mirror);
    text_add_string(lines, "]\n  capabilities = [\"pull\", \"resolve\"]\n");
}

/* ---- one hosts.toml ---- */

static bool is_host_table(const struct toml_item *item)
{
    return item->kind == TOML_TABLE && item->parts >= 2 && strcmp(toml_part(item, 0), "host") == 0;
}

/* Line of a form of `host` that we do not put a table beside; 0 if there is none. */
static unsigned odd_host(const struct toml *toml)
{
    for (uint32_t i = 0; i < toml->count; i++) {
        const struct toml_item *item = &toml->items[i];
        if (item->kind == TOML_COMMENT || strcmp(toml_part(item, 0), "host") != 0)
            continue;
        bool in_table = item->kind == TOML_KEY && item->table != TOML_ROOT &&
                        is_host_table(&toml->items[item->table]);
        if (!in_table && !is_host_table(item))
            return item->line;
    }
    return 0;
}

struct hosts {
    struct toml toml; /* without our block */
    bool empty;       /* no statement in it */
    uint32_t first;   /* first [host."..."]; count if none */
    uint32_t ours;    /* the agent's, written by somebody else; count if none */
    unsigned others;  /* further mirrors */
};

static void look_at_hosts(const char *mirror, struct hosts *hosts)
{
    const struct toml *toml = &hosts->toml;
    hosts->first = hosts->ours = toml->count;
    hosts->empty = true;
    hosts->others = 0;
    for (uint32_t i = 0; i < toml->count; i++) {
        const struct toml_item *item = &toml->items[i];
        hosts->empty = hosts->empty && item->kind == TOML_COMMENT;
        if (!is_host_table(item))
            continue;
        if (hosts->first == toml->count)
            hosts->first = i;
        if (strcmp(toml_part(item, 1), mirror) != 0)
            hosts->others += item->parts == 2;
        else if (hosts->ours == toml->count)
            hosts->ours = i;
    }
}

/* Before the first host, and before comments that stand right above it; else at the end. */
static size_t place(const struct hosts *hosts)
{
    uint32_t index = hosts->first;
    if (index == hosts->toml.count)
        return hosts->toml.bytes;
    while (index > 0 && hosts->toml.items[index - 1].kind == TOML_COMMENT &&
           hosts->toml.items[index - 1].end == hosts->toml.items[index].start)
        index--;
    return hosts->toml.items[index].start;
}

static int our_lines(struct runtime_plan *plan, const char *directory,
                     const struct runtime_registry *registry, const struct hosts *hosts,
                     struct text *lines, struct runtime_error *error)
{
    if (hosts->empty && registry->plain_http) {
        const char *server = pool_print(&plan->pool, "http://%s", registry->name);
        if (server == NULL)
            return plan__no_memory(error);
        text_add_string(lines, "server = ");
        toml_quote(lines, server);
        text_add_string(lines, "\n");
    }
    int err = hosts->toml.bytes == 0 ? add_certificates(plan, directory, lines, error) : 0;
    add_host(lines, plan->options.mirror);
    if (err == 0 && text_end(lines) != 0)
        err = plan__no_memory(error);
    return err;
}

/* The text without our block, taken apart. Errors begin with the line. */
static int parse_base(struct runtime_plan *plan, const struct span *text, struct hosts *hosts,
                      struct runtime_error *why)
{
    struct span base;
    bool found;
    const struct undo undo = {.format = PLAN_TOML, .text = *text};
    int err = plan__undo(&plan->pool, &undo, &base, &found, why);
    if (err == 0)
        err = toml_parse(&plan->pool, base.at, base.bytes, &hosts->toml, why);
    if (err != 0)
        return err;
    look_at_hosts(plan->options.mirror, hosts);
    unsigned odd = odd_host(&hosts->toml);
    if (odd != 0)
        return runtime_fail(why, E_REFUSED,
                            "%u: hosts are written here in a way that is not edited; write them as "
                            "[host.\"https://...\"]",
                            odd);
    return 0;
}

static int edit(struct runtime_plan *plan, const char *directory,
                const struct runtime_registry *registry, struct change *change,
                struct runtime_error *why)
{
    struct hosts hosts;
    struct text lines;
    struct text after;
    int err = parse_base(plan, &change->before.text, &hosts, why);
    if (err != 0)
        return err;
    change->after = (struct span){hosts.toml.text, hosts.toml.bytes};
    if (hosts.ours < hosts.toml.count) {
        plan__note(plan, "%.300s:%u: names the agent already; revert will leave that%s",
                   change->host_path, (unsigned)hosts.toml.items[hosts.ours].line,
                   hosts.ours == hosts.first ? "" : ", and others are asked before it");
        return 0;
    }
    if (hosts.others > 0)
        plan__note(plan,
                   "%.300s: the agent is asked first, then the %u mirrors that are there; it asks "
                   "the registry itself, unless registries[].endpoint says otherwise",
                   change->host_path, hosts.others);
    text_init(&lines, &plan->pool);
    text_init(&after, &plan->pool);
    err = our_lines(plan, directory, registry, &hosts, &lines, why);
    if (err != 0)
        return err;
    const struct block_edit one = {
        .at = place(&hosts), .was_end = place(&hosts), .lines = lines.at};
    err = block_insert(&plan->pool, &hosts.toml, &one, 1, &after, why);
    change->after = (struct span){after.at, after.bytes};
    return err;
}

static int plan_registry(struct runtime_plan *plan, const struct roots *roots,
                         const struct runtime_registry *registry, struct runtime_error *error)
{
    struct runtime_error why = {""};
    struct change change = {.format = PLAN_TOML};
    const char *directory = NULL;
    if (!name_valid(registry->name))
        return runtime_fail(error, E_INVALID, "\"%.200s\" is no registry's name", registry->name);
    int err = choose(plan, roots, registry->name, &directory, error);
    if (err != 0)
        return err;
    change.host_path = pool_print(&plan->pool, "%s/hosts.toml", directory);
    if (change.host_path == NULL)
        return plan__no_memory(error);
    if (plan__has(plan, change.host_path))
        return 0; /* several registries that `_default` stands for */
    err = plan__path(plan, change.host_path, &change.path, error);
    if (err == 0)
        err = tree_read(&plan->pool, change.path, TREE_EDIT, &change.before, error);
    if (err != 0)
        return err;
    err = edit(plan, directory, registry, &change, &why);
    if (err != 0)
        return runtime_fail(error, err == E_NO_MEMORY ? err : E_REFUSED, "%.300s:%.600s",
                            change.host_path, why.text);
    return plan__change(plan, &change, error);
}

/* ---- where they are ---- */

static int split_roots(struct runtime_plan *plan, const char *config_path, struct roots *roots,
                       struct runtime_error *error)
{
    roots->count = 0;
    while (*config_path != '\0') {
        size_t bytes = strcspn(config_path, ":");
        if (roots->count == CONTAINERD_ROOTS_MAX || config_path[0] != '/')
            return runtime_fail(error, E_REFUSED,
                                "config_path = \"%.200s\": up to %d absolute directories are "
                                "understood",
                                config_path, CONTAINERD_ROOTS_MAX);
        while (bytes > 1 && config_path[bytes - 1] == '/')
            bytes--;
        roots->paths[roots->count] = pool_copy(&plan->pool, config_path, bytes);
        if (roots->paths[roots->count++] == NULL)
            return plan__no_memory(error);
        config_path += strcspn(config_path, ":");
        config_path += *config_path == ':';
    }
    return 0;
}

/* What config_path is to be. containerd 2.2 looks into docker's directory, too, unless the file
 * says something: then what is there must go on counting. */
static int wanted_path(struct runtime_plan *plan, const struct containerd_config *config,
                       const char **out, struct runtime_error *error)
{
    const char *path;
    bool there = false;
    *out = plan->options.hosts_dir != NULL ? plan->options.hosts_dir : CONTAINERD_CERTS_D;
    if (plan->options.hosts_dir != NULL || config->version < 3)
        return 0;
    int err = plan__path(plan, DOCKER_CERTS_D, &path, error);
    if (err == 0)
        err = tree_directory(path, &there, error);
    if (there)
        *out = CONTAINERD_CERTS_D ":" DOCKER_CERTS_D;
    return err;
}

static int no_config_path(const char *file, unsigned version, struct runtime_error *error)
{
    return runtime_fail(error, E_REFUSED,
                        "%.300s: no config_path, so containerd%s reads no hosts.toml. "
                        "--set-config-path adds it (containerd must be restarted then); "
                        "--hosts-dir D says where hosts.toml are, whatever this file says%s. "
                        "In the chart: runtime.args: [--set-config-path]",
                        file, version < 3 ? "" : " before 2.2",
                        version < 3 ? "" : "; for 2.2 " CONTAINERD_CERTS_D ":" DOCKER_CERTS_D);
}

/* What containerd's configuration says, or lets us add to it. */
static int find_roots(struct runtime_plan *plan, struct roots *roots, struct runtime_error *error)
{
    const struct runtime_options *options = &plan->options;
    const char *file = options->config_file != NULL ? options->config_file : CONTAINERD_CONFIG;
    const char *wanted;
    struct containerd_config *config = pool_alloc(&plan->pool, sizeof *config);
    if (config == NULL)
        return plan__no_memory(error);
    int err = containerd__config(plan, file, config, error);
    if (err == 0)
        err = wanted_path(plan, config, &wanted, error);
    if (err != 0)
        return err;
    if (config->conflict[0] != '\0')
        return runtime_fail(
            error, E_REFUSED,
            "%s: containerd's CRI plugin does not start with that and config_path "
            "together. Move it to %.200s/<registry>/hosts.toml, then run this again",
            config->conflict, wanted);
    if (config->config_path[0] != '\0')
        return split_roots(plan, config->config_path, roots, error);
    if (!options->set_config_path)
        return no_config_path(file, config->version, error);
    err = containerd__set_config_path(plan, config, wanted, error);
    return err != 0 ? err : split_roots(plan, wanted, roots, error);
}

int containerd__plan(struct runtime_plan *plan, struct runtime_error *error)
{
    const struct runtime_options *options = &plan->options;
    struct roots roots = {.count = 0};
    int err = options->hosts_dir != NULL && !options->set_config_path
                  ? split_roots(plan, options->hosts_dir, &roots, error)
                  : find_roots(plan, &roots, error);
    if (err == 0 && roots.count == 0)
        err = runtime_fail(error, E_INVALID, "no directory for hosts.toml files");
    for (unsigned i = 0; err == 0 && i < options->registry_count; i++)
        err = plan_registry(plan, &roots, &options->registries[i], error);
    return err;
}
