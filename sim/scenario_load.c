/* SPDX-License-Identifier: Apache-2.0 */
/* Scenario files, --set and what they name, read into a struct scenario; see scenario.h. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"
#include "nearest.h"
#include "scenario.h"
#include "scenario_fit.h"
#include "yaml_items.h"

#define FROM_SET   UINT32_MAX
#define PATH_BYTES 1024

struct load {
    struct scenario *scenario;
    struct scenario_error *error;
    char folder[PATH_BYTES]; /* of the file, with its slash; "" for --set */
    bool set;                /* from --set: may say again what was said */
    bool fresh[4];           /* by enum scenario_list: next element of --set begins the list anew */
};

int scenario_fail(struct scenario_error *error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    for (char *c = error->text; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    return E_CONFIG;
}

/* Puts `place` in front of the error. */
static int fail_at(struct scenario_error *error, const char *place)
{
    struct scenario_error whole;
    (void)snprintf(whole.text, sizeof whole.text, "%.400s%.600s", place, error->text);
    *error = whole;
    return E_CONFIG;
}

/* ---- one value ---- */

static const char *key_name(const void *keys, size_t index)
{
    return ((const struct scenario_key *)keys)[index].name;
}

/* Keys that people try and that are no values, with what they should write. */
static const char *hint_of(const char *name)
{
    static const struct {
        const char *name, *hint;
    } hints[] = {
        {"nic", "write nic.up or, in a file, a map: nic: {up: 1Gbit/s}"},
        {"origin", "write origin.rate or, in a file, a map: origin: {rate: 10Gbit/s}"},
        {"links", "a map: links: {zone: 40Gbit/s}"},
        {"latency", "a map: latency: {zone: 200us, cross: 1ms}"},
        {"image", "a map: image: {layers: [512MiB]}, or {manifest: file.json}"},
        {"images", "a list of maps: images: [{layers: [512MiB]}]"},
        {"arrivals", "a map: arrivals: {kind: crowd, within: 1s}"},
        {"faults", "a list of maps: faults: [{kind: kill, at: 2s, nodes: 5%}]"},
        {"origin.outages", "a list of maps: outages: [{at: 2s, for: 5s, how: refuse}]"},
        {"checks", "a map: checks: {p99: 1.15}"},
        {"cache", "a map: cache: {capacity: 4GiB}"},
        {"disk", "a map: disk: {read: 2GB/s, write: 1GB/s}"},
        {"cpu", "a map: cpu: {cores: 2}"},
    };
    for (size_t i = 0; i < sizeof hints / sizeof hints[0]; i++)
        if (strcmp(hints[i].name, name) == 0)
            return hints[i].hint;
    return NULL;
}

static int unknown_key(struct load *load, const char *name)
{
    size_t count = 0;
    const struct scenario_key *keys = scenario_keys(&count);
    const char *hint = hint_of(name);
    if (hint != NULL)
        return scenario_fail(load->error, "%s: is no value of its own; %s", name, hint);
    const char *nearest = nearest_name(name, key_name, keys, count);
    if (nearest != NULL)
        return scenario_fail(load->error, "%.100s: unknown key; did you mean \"%s\"?", name,
                             nearest);
    return scenario_fail(load->error, "%.100s: unknown key; `shoal-sim example` shows all keys",
                         name);
}

static int refuse(struct load *load, const struct scenario_key *key, const char *value)
{
    char range[SCENARIO_RANGE_BYTES];
    char *end = NULL;
    bool number = (strtod(value, &end), end != value); /* of no unit, or of one not known */
    const char *unit = "";
    if (number && (key->type == SCENARIO_RATE || key->type == SCENARIO_TIME ||
                   key->type == SCENARIO_SIZE || key->type == SCENARIO_SIZES ||
                   key->type == SCENARIO_NANOS || key->type == SCENARIO_PER_GB))
        unit = key->type == SCENARIO_RATE ? "; write a unit, as Gbit/s or MB/s"
               : key->type == SCENARIO_SIZE || key->type == SCENARIO_SIZES
                   ? "; write a unit, as MiB or GB"
                   : "; write a unit, as ms or s";
    return scenario_fail(load->error, "%s: \"%.100s\" is not allowed; allowed: %s%s", key->name,
                         value, scenario_key_range(key, range), unit);
}

/* ---- elements of the lists of maps ---- */

static unsigned index_in_list(const struct scenario_key *key)
{
    size_t count = 0;
    unsigned index = 0;
    for (const struct scenario_key *k = scenario_keys(&count); k != key; k++)
        index += k->list == key->list;
    return index;
}

struct scenario_fault scenario_fault_default(unsigned line, bool outage)
{
    return (struct scenario_fault){.line = line,
                                   .kind = outage ? (uint64_t)FAULT_OUTAGE : 0,
                                   .nodes = 1,
                                   .node = SCENARIO_NO_NODE,
                                   .divisor_milli = 10000,
                                   .how = OUTAGE_REFUSE,
                                   .per_minute_ppm = 50000,
                                   .down_us = 10000000,
                                   .keep_cache = true,
                                   .loss_ppm = 10000,
                                   .acts = 1};
}

/* Grows the list to the element, filled with defaults. NULL: the list is full. */
static void *element_at(struct load *load, enum scenario_list list, unsigned element, unsigned line)
{
    struct scenario *scenario = load->scenario;
    if (list == SCENARIO_LIST_IMAGES) {
        for (; scenario->image_count <= element; scenario->image_count++) {
            if (scenario->image_count == SCENARIO_IMAGES_MAX)
                return NULL;
            scenario->images[scenario->image_count] =
                (struct scenario_image){.line = line, .share_ppm = 1000000};
        }
        return &scenario->images[element];
    }
    bool outage = list == SCENARIO_LIST_OUTAGES;
    struct scenario_fault *faults = outage ? scenario->outages : scenario->faults;
    uint32_t *count = outage ? &scenario->outage_count : &scenario->fault_count;
    for (; *count <= element; (*count)++) {
        if (*count == (outage ? SCENARIO_OUTAGES_MAX : SCENARIO_FAULTS_MAX))
            return NULL;
        faults[*count] = scenario_fault_default(line, outage);
    }
    return &faults[element];
}

/* --set of a list says it anew. */
static void list_begin(struct load *load, enum scenario_list list)
{
    if (!load->fresh[list])
        return;
    load->fresh[list] = false;
    if (list == SCENARIO_LIST_IMAGES)
        load->scenario->image_count = 0;
    else if (list == SCENARIO_LIST_FAULTS)
        load->scenario->fault_count = 0;
    else
        load->scenario->outage_count = 0;
}

static int item_element(struct load *load, const struct scenario_key *key,
                        const struct yaml_item *item)
{
    if (!item->in_element)
        return scenario_fail(load->error, "%s: is no list; write a dash before each element",
                             key->name);
    list_begin(load, key->list);
    void *element = element_at(load, key->list, item->element, load->set ? 0 : item->line);
    if (element == NULL)
        return scenario_fail(load->error, "%s: the list has too many elements", key->name);
    uint32_t bit = 1U << index_in_list(key);
    uint32_t *is_set = key->list == SCENARIO_LIST_IMAGES
                           ? &((struct scenario_image *)element)->is_set
                           : &((struct scenario_fault *)element)->is_set;
    if ((*is_set & bit) != 0 && (!item->in_list || item->list_start))
        return scenario_fail(load->error, "%s: set twice in one element; is a dash missing?",
                             key->name);
    *is_set |= bit;
    if (item->in_list != scenario_key_is_list(key))
        return scenario_fail(load->error, "%s: %s", key->name,
                             item->in_list ? "a list is not allowed here"
                                           : "must be a list, as [512MiB, 64MiB]");
    if (item->value == NULL)
        return 0;
    return scenario_value_parse(key, item->value, element) == 0 ? 0
                                                                : refuse(load, key, item->value);
}

/* ---- keys of the scenario itself ---- */

static int set_once(struct load *load, size_t index, const struct yaml_item *item)
{
    uint32_t *line = &load->scenario->lines[index];
    size_t count = 0;
    if (!load->set && *line != 0)
        return scenario_fail(load->error, "%s: set twice, first on line %u",
                             scenario_keys(&count)[index].name, *line);
    *line = load->set ? FROM_SET : item->line;
    return 0;
}

static int item_zones(struct load *load, const struct scenario_key *key,
                      const struct yaml_item *item)
{
    if (item->list_start)
        load->scenario->zone_list_count = 0;
    if (!item->in_list)
        return scenario_value_parse(key, item->value, load->scenario) == 0
                   ? 0
                   : refuse(load, key, item->value);
    if (item->value == NULL || scenario_zone_append(item->value, load->scenario) != 0)
        return scenario_fail(load->error,
                             "zones: \"%.100s\" is not allowed; a list of zones has 1 to 64 node "
                             "counts, each 1..16384, or shares, as 50%%",
                             item->value == NULL ? "[]" : item->value);
    return 0;
}

static int item_value(struct load *load, size_t index, const struct yaml_item *item)
{
    size_t count = 0;
    const struct scenario_key *key = &scenario_keys(&count)[index];
    bool first = !item->in_list || item->list_start;
    if (item->in_element)
        return scenario_fail(load->error, "%s: a list is not allowed here; leave out the dash",
                             key->name);
    int err = first ? set_once(load, index, item) : 0;
    if (err != 0)
        return err;
    if (key->type == SCENARIO_ZONES)
        return item_zones(load, key, item);
    if (item->in_list && !scenario_key_is_list(key))
        return scenario_fail(load->error, "%s: a list is not allowed here", key->name);
    if (!item->in_list && scenario_key_is_list(key))
        return scenario_fail(load->error, "%s: must be a list; allowed: %s", key->name,
                             key->type == SCENARIO_SLOW ? "[fraction, divisor], as [0.03, 10]"
                                                        : "sizes, as [512MiB, 64MiB]");
    if (first)
        scenario_list_reset(key, load->scenario);
    if (item->value == NULL)
        return 0;
    return scenario_value_parse(key, item->value, load->scenario) == 0
               ? 0
               : refuse(load, key, item->value);
}

/* "faults: []" and the like: an empty list of maps. */
static bool empty_list(struct load *load, const struct yaml_item *item)
{
    static const struct {
        const char *name;
        enum scenario_list list;
    } lists[] = {{"images", SCENARIO_LIST_IMAGES},
                 {"faults", SCENARIO_LIST_FAULTS},
                 {"origin.outages", SCENARIO_LIST_OUTAGES}};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        if (item->value == NULL && strcmp(lists[i].name, item->key) == 0) {
            list_begin(load, lists[i].list);
            return true;
        }
    }
    return false;
}

static int item_apply(struct load *load, const struct yaml_item *item)
{
    size_t count = 0;
    const struct scenario_key *keys = scenario_keys(&count);
    size_t index = scenario_key_find(item->key);
    if (empty_list(load, item))
        return 0;
    if (index == count)
        return unknown_key(load, item->key);
    if (keys[index].list != SCENARIO_LIST_NONE)
        return item_element(load, &keys[index], item);
    return item_value(load, index, item);
}

/* ---- sources ---- */

static int item_from_yaml(void *arg, const struct yaml_item *item)
{
    struct load *load = arg;
    char place[32];
    int err = item_apply(load, item);
    if (err != E_CONFIG || load->set)
        return err;
    (void)snprintf(place, sizeof place, "%u: ", item->line);
    return fail_at(load->error, place);
}

int scenario_read_file(const char *path, size_t bytes_max, char **out, size_t *out_bytes)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return errno == ENOENT ? E_NOT_FOUND : errno == EACCES ? E_DENIED : E_IO;
    size_t used = 0, room = 64 * 1024;
    char *text = malloc(room + 1);
    int err = text == NULL ? E_NO_MEMORY : 0;
    while (err == 0 && !feof(file)) {
        if (used == room) {
            room *= 2;
            char *grown = used >= bytes_max ? NULL : realloc(text, room + 1);
            err = grown != NULL ? 0 : used >= bytes_max ? E_TOO_LARGE : E_NO_MEMORY;
            text = grown != NULL ? grown : text;
        }
        if (err == 0)
            used += fread(text + used, 1, room - used, file);
        if (err == 0 && ferror(file))
            err = E_IO;
    }
    (void)fclose(file);
    if (err == 0 && used > bytes_max)
        err = E_TOO_LARGE;
    if (err != 0) {
        free(text);
        return err;
    }
    text[used] = '\0';
    *out = text;
    *out_bytes = used;
    return 0;
}

/* Relative paths of a file count from its folder. */
static void resolve_path(const struct load *load, struct scenario_text *path, bool from_set)
{
    char whole[2 * PATH_BYTES];
    if (path->text[0] == '\0' || path->text[0] == '/' || from_set)
        return;
    (void)snprintf(whole, sizeof whole, "%s%s", load->folder, path->text);
    struct scenario_text resolved;
    /* A name too long by its folder stays as it is, and is not found. */
    if (text_copy(resolved.text, sizeof resolved.text, whole) == 0)
        *path = resolved;
}

static void resolve_paths(const struct load *load)
{
    struct scenario *scenario = load->scenario;
    resolve_path(load, &scenario->image.manifest, false);
    resolve_path(load, &scenario->trace_file, false);
    for (uint32_t i = 0; i < scenario->image_count; i++)
        resolve_path(load, &scenario->images[i].manifest, false);
}

static void name_after(struct scenario *scenario, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash == NULL ? path : slash + 1;
    size_t bytes = strcspn(base, ".");
    if (scenario->name.text[0] == '\0')
        (void)snprintf(scenario->name.text, sizeof scenario->name.text, "%.*s",
                       (int)(bytes < 63 ? bytes : 63), base);
}

static int load_text(struct load *load, const char *place, const char *text, size_t text_bytes)
{
    char prefix[PATH_BYTES + 1];
    load->set = false;
    int err = yaml_walk(text, text_bytes, item_from_yaml, load, load->error->text,
                        sizeof load->error->text);
    if (err == E_CONFIG) {
        (void)snprintf(prefix, sizeof prefix, "%.1000s:", place);
        return fail_at(load->error, prefix);
    }
    return err;
}

static int load_file(struct load *load, const char *name)
{
    char path[PATH_BYTES], *text = NULL;
    size_t text_bytes = 0;
    if (scenario_find_file(name, path, sizeof path) != 0)
        return scenario_fail(load->error,
                             "%.300s: no such file and no shipped scenario of that name; "
                             "`shoal-sim list` shows them",
                             name);
    int err = scenario_read_file(path, SCENARIO_FILE_MAX, &text, &text_bytes);
    if (err == E_NO_MEMORY)
        return err;
    if (err != 0)
        return scenario_fail(load->error, "%.300s: cannot be read: %s", path, err_text(err));
    const char *slash = strrchr(path, '/');
    if (slash != NULL)
        (void)snprintf(load->folder, sizeof load->folder, "%.*s", (int)(slash + 1 - path), path);
    err = load_text(load, path, text, text_bytes);
    free(text);
    if (err == 0) {
        resolve_paths(load);
        name_after(load->scenario, path);
    }
    return err;
}

/* Lists may be written "a,b"; what opens a list or a map is YAML. */
static int apply_set(struct load *load, const char *name, const char *value)
{
    size_t count = 0;
    size_t index = scenario_key_find(name);
    const struct scenario_key *keys = scenario_keys(&count);
    const struct scenario_key *key = index < count ? &keys[index] : NULL;
    bool list = key != NULL && (scenario_key_is_list(key) ||
                                (key->type == SCENARIO_ZONES && strchr(value, ',') != NULL));
    bool yaml = *value == '[' || *value == '{';
    char *text = NULL;
    int err;
    if (key != NULL && key->list != SCENARIO_LIST_NONE)
        return scenario_fail(load->error, "%s: belongs to an element of a list; set the whole list",
                             name);
    if (!list && !yaml) {
        struct yaml_item item = {.key = name, .value = value};
        return item_apply(load, &item);
    }
    if (asprintf(&text, yaml ? "%s: %s\n" : "%s: [%s]\n", name, value) < 0)
        return E_NO_MEMORY;
    err = yaml_walk(text, strlen(text), item_from_yaml, load, load->error->text,
                    sizeof load->error->text);
    free(text);
    return err;
}

static int load_set(struct load *load, const char *set)
{
    char name[128], place[160];
    const char *equals = strchr(set, '=');
    load->set = true;
    for (size_t i = 0; i < sizeof load->fresh / sizeof load->fresh[0]; i++)
        load->fresh[i] = true;
    (void)snprintf(place, sizeof place, "--set %.120s: ", set);
    if (equals == NULL || equals == set ||
        text_copy_n(name, sizeof name, set, (size_t)(equals - set)) != 0) {
        (void)scenario_fail(load->error, "must be key=value");
        return fail_at(load->error, place);
    }
    int err = apply_set(load, name, equals + 1);
    return err == E_CONFIG ? fail_at(load->error, place) : err;
}

/* ---- public ---- */

/* Whatever the sources were: files that are named are read, and all must fit. */
static int finish(struct load *load, const char *place)
{
    int err = scenario_fit(load->scenario, place, load->error);
    if (err != 0)
        scenario_close(load->scenario);
    return err;
}

int scenario_load(const struct scenario_options *options, struct scenario *out,
                  struct scenario_error *error)
{
    struct load load = {.scenario = out, .error = error};
    error->text[0] = '\0';
    scenario_defaults(out);
    int err = options->file == NULL ? 0 : load_file(&load, options->file);
    for (size_t i = 0; i < options->set_count && err == 0; i++)
        err = load_set(&load, options->sets[i]);
    return err != 0 ? err : finish(&load, options->file);
}

int scenario_load_text(const char *place, const char *text, struct scenario *out,
                       struct scenario_error *error)
{
    struct load load = {.scenario = out, .error = error};
    error->text[0] = '\0';
    scenario_defaults(out);
    int err = load_text(&load, place, text, strlen(text));
    return err != 0 ? err : finish(&load, place);
}

void scenario_close(struct scenario *scenario)
{
    free(scenario->trace);
    scenario->trace = NULL;
    scenario->trace_count = 0;
}

/* ---- shipped scenarios ---- */

int scenario_folder(char *out, size_t out_bytes)
{
    char program[PATH_BYTES];
    const char *const places[] = {"/../sim/scenarios", "/../../sim/scenarios",
                                  "/../share/shoal/scenarios"};
    const char *given = getenv("SHOAL_SCENARIOS");
    if (given != NULL)
        return text_copy(out, out_bytes, given);
    ssize_t bytes = readlink("/proc/self/exe", program, sizeof program - 1);
    program[bytes > 0 ? bytes : 0] = '\0';
    char *slash = strrchr(program, '/');
    for (size_t i = 0; slash != NULL && i < sizeof places / sizeof places[0]; i++) {
        *slash = '\0';
        int written = snprintf(out, out_bytes, "%s%s", program, places[i]);
        if (written > 0 && (size_t)written < out_bytes && access(out, R_OK) == 0)
            return 0;
    }
    return text_copy(out, out_bytes, "sim/scenarios") == 0 && access(out, R_OK) == 0 ? 0
                                                                                     : E_NOT_FOUND;
}

int scenario_find_file(const char *name, char *out, size_t out_bytes)
{
    char folder[PATH_BYTES];
    if (access(name, F_OK) == 0)
        return text_copy(out, out_bytes, name) == 0 ? 0 : E_NOT_FOUND;
    if (strchr(name, '/') != NULL || scenario_folder(folder, sizeof folder) != 0)
        return E_NOT_FOUND;
    int written = snprintf(out, out_bytes, "%s/%s.yaml", folder, name);
    return written > 0 && (size_t)written < out_bytes && access(out, F_OK) == 0 ? 0 : E_NOT_FOUND;
}
