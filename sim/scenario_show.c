/* SPDX-License-Identifier: Apache-2.0 */
/* Scenarios for people: the example with every default, settings of a run, the shipped ones. */
#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "quantity.h"
#include "scenario.h"

/* Column at which the example's comments begin. */
#define COMMENT_COLUMN 34

static const char example_head[] =
    "# A scenario of shoal-sim. Every key is written out with its default; leave out what you do "
    "not change.\n"
    "#   shoal-sim run THIS.yaml                      one run\n"
    "#   shoal-sim run THIS.yaml --set nodes=1000     the same with another value\n"
    "#   shoal-sim plan THIS.yaml --sweep nodes=100,300,1000\n"
    "# Sizes: KiB MiB GiB TiB, kB MB GB TB. Rates: kbit/s Mbit/s Gbit/s, kB/s MB/s GB/s. Times: us "
    "ms s min h.\n"
    "# Times of arrivals, outages and faults count from the first arrival can be.\n";

/* ---- the example ---- */

/* Where the next line stands in the tree of keys. */
struct example {
    FILE *to;
    char group[64];          /* "origin" while its keys are written; "" at the top */
    enum scenario_list list; /* of the element being written, in comments */
};

static void comment(struct example *example, int used, const struct scenario_key *key)
{
    char range[SCENARIO_RANGE_BYTES];
    bool plain = key->type == SCENARIO_TEXT || key->type == SCENARIO_PATH;
    fprintf(example->to, "%*s# %s%s%s%s\n", used < COMMENT_COLUMN ? COMMENT_COLUMN - used : 1, "",
            key->help, plain ? "" : " (", plain ? "" : scenario_key_range(key, range),
            plain ? "" : ")");
}

/* Length of the name before its last dot; 0 at the top. */
static size_t group_bytes(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot == NULL ? 0 : (size_t)(dot - name);
}

static bool is_text(const struct scenario_key *key)
{
    return key->type == SCENARIO_TEXT || key->type == SCENARIO_PATH;
}

/* A key of the scenario itself: two levels at most. */
static void example_value(struct example *example, const struct scenario_key *key,
                          const struct scenario *defaults)
{
    char text[SCENARIO_SETTING_BYTES];
    size_t bytes = group_bytes(key->name);
    if (bytes > 0 &&
        (strlen(example->group) != bytes || strncmp(example->group, key->name, bytes) != 0))
        fprintf(example->to, "%.*s:\n", (int)bytes, key->name);
    (void)snprintf(example->group, sizeof example->group, "%.*s", (int)bytes, key->name);
    (void)scenario_value_text(key, defaults, text, sizeof text);
    int used = fprintf(example->to, "%s%s: %s%s%s", bytes > 0 ? "  " : "",
                       key->name + (bytes > 0 ? bytes + 1 : 0), is_text(key) ? "\"" : "", text,
                       is_text(key) ? "\"" : "");
    comment(example, used, key);
}

/* A key of a list's elements: the list is empty, its keys are comments. */
static void example_element(struct example *example, const struct scenario_key *key)
{
    static const struct scenario_image image = {
        .layers = {512ULL << 20}, .layer_count = 1, .share_ppm = 1000000};
    struct scenario_fault fault = scenario_fault_default(0, false);
    fault.kind = FAULT_KILL;
    fault.node = 0; /* shown as a node, whatever stands for none */
    char text[SCENARIO_SETTING_BYTES];
    size_t bytes = group_bytes(key->name);
    bool first = example->list != key->list;
    const char *margin = key->list == SCENARIO_LIST_OUTAGES ? "  " : "";
    if (first) {
        const char *dot = memchr(key->name, '.', bytes);
        const char *name = dot == NULL ? key->name : dot + 1;
        fprintf(example->to, "%s%.*s: []\n%s# a list; each element has these keys:\n", margin,
                (int)(key->name + bytes - name), name, margin);
        if (dot == NULL)
            example->group[0] = '\0';
    }
    example->list = key->list;
    (void)scenario_value_text(
        key, key->list == SCENARIO_LIST_IMAGES ? (const void *)&image : (const void *)&fault, text,
        sizeof text);
    int used =
        fprintf(example->to, "%s# %s %s: %s%s%s", margin, first ? "-" : " ", key->name + bytes + 1,
                is_text(key) ? "\"" : "", text, is_text(key) ? "\"" : "");
    comment(example, used, key);
}

void scenario_example(FILE *to)
{
    size_t count = 0;
    const struct scenario_key *keys = scenario_keys(&count);
    struct example example = {.to = to};
    struct scenario *defaults = malloc(sizeof *defaults);
    if (defaults == NULL)
        return;
    scenario_defaults(defaults);
    fputs(example_head, to);
    for (size_t i = 0; i < count; i++) {
        if (keys[i].list == SCENARIO_LIST_NONE)
            example_value(&example, &keys[i], defaults);
        else
            example_element(&example, &keys[i]);
    }
    free(defaults);
}

/* ---- settings ---- */

void scenario_settings_of(const struct scenario *scenario, struct scenario_settings *out)
{
    size_t count = 0;
    const struct scenario_key *keys = scenario_keys(&count);
    out->count = 0;
    for (size_t i = 0; i < count; i++) {
        if (keys[i].list != SCENARIO_LIST_NONE)
            continue;
        out->rows[out->count] =
            (struct report_setting){.key = keys[i].name, .value = out->text[out->count]};
        (void)scenario_value_text(&keys[i], scenario, out->text[out->count],
                                  sizeof out->text[out->count]);
        out->count++;
    }
}

/* ---- the list ---- */

static int is_yaml(const struct dirent *entry)
{
    size_t bytes = strlen(entry->d_name);
    return bytes > 5 && strcmp(entry->d_name + bytes - 5, ".yaml") == 0;
}

uint64_t scenario_image_bytes(const struct scenario_image *image)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < image->layer_count; i++)
        bytes += image->layers[i];
    return bytes;
}

static void list_one(const char *path, struct scenario *scenario, FILE *to)
{
    struct scenario_error error;
    struct scenario_options options = {.file = path};
    if (scenario_load(&options, scenario, &error) != 0) {
        fprintf(to, "  %s\n", error.text);
        return;
    }
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < scenario->image_count; i++)
        bytes += scenario_image_bytes(&scenario->images[i]);
    fprintf(to, "  %-16s %6u nodes %3u zones %8.2f GiB  %s\n", scenario->name.text,
            scenario->world.node_count, scenario->world.zone_count, (double)bytes / (1ULL << 30),
            scenario->description.text);
    scenario_close(scenario);
}

int scenario_list(FILE *to)
{
    char folder[1024], path[2048];
    struct dirent **entries = NULL;
    if (scenario_folder(folder, sizeof folder) != 0)
        return E_NOT_FOUND;
    int count = scandir(folder, &entries, is_yaml, alphasort);
    struct scenario *scenario = malloc(sizeof *scenario);
    if (count < 0 || scenario == NULL) {
        free(scenario);
        return E_NOT_FOUND;
    }
    fprintf(to, "%s\n", folder);
    for (int i = 0; i < count; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        list_one(path, scenario, to);
        free(entries[i]);
    }
    free(entries);
    free(scenario);
    return 0;
}
