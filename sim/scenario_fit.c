/* SPDX-License-Identifier: Apache-2.0 */
/* Keys held against each other, and files that a scenario names; see scenario_fit.h. */
#include "scenario_fit.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "quantity.h"

#define TRACE_LINE_BYTES 256

struct fit {
    struct scenario *scenario;
    const char *place; /* NULL: no file */
    struct scenario_error *error;
};

/* "file:line: key: ..." with the line on which the key was set. */
static int fail_line(struct fit *fit, unsigned line, const char *text)
{
    if (line == UINT32_MAX || fit->place == NULL)
        return scenario_fail(fit->error, "--set: %s", text);
    if (line == 0)
        return scenario_fail(fit->error, "%.300s: %s", fit->place, text);
    return scenario_fail(fit->error, "%.300s:%u: %s", fit->place, line, text);
}

static int fail_key(struct fit *fit, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static int fail_key(struct fit *fit, const char *key, const char *format, ...)
{
    char text[SCENARIO_ERROR_BYTES / 2];
    size_t used = (size_t)snprintf(text, sizeof text, "%s: ", key);
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text + used, sizeof text - used, format, args);
    va_end(args);
    return fail_line(fit, fit->scenario->lines[scenario_key_find(key)], text);
}

static bool was_set(const struct fit *fit, const char *key)
{
    return fit->scenario->lines[scenario_key_find(key)] != 0;
}

/* ---- nodes and zones ---- */

/* Shares of all nodes become counts; each sum of them is right to half a node. */
static int fit_shares(struct fit *fit)
{
    struct scenario *scenario = fit->scenario;
    uint64_t nodes = scenario->world.node_count, share_ppm = 0, dealt = 0;
    for (uint32_t i = 0; i < scenario->zone_list_count; i++) {
        share_ppm += scenario->zone_nodes[i] & ~SCENARIO_SHARE_BIT;
        uint64_t until = (share_ppm * nodes + 500000) / 1000000;
        if (until <= dealt)
            return fail_key(fit, "zones", "zone %u would have no node of %" PRIu64, i, nodes);
        scenario->world.zone_nodes[i] = (uint32_t)(until - dealt);
        dealt = until;
    }
    if (share_ppm < 999900 || share_ppm > 1000100 || dealt != nodes)
        return fail_key(fit, "zones", "the shares are %.2f %% in all; must be 100 %%",
                        (double)share_ppm / 1e4);
    scenario->world.zone_count = scenario->zone_list_count;
    return 0;
}

static int fit_counts(struct fit *fit)
{
    struct scenario *scenario = fit->scenario;
    struct world_config *world = &scenario->world;
    uint64_t sum = 0;
    bool equal = true;
    for (uint32_t i = 0; i < scenario->zone_list_count; i++) {
        if ((scenario->zone_nodes[i] & SCENARIO_SHARE_BIT) != 0)
            return fail_key(fit, "zones", "node counts and shares in one list; use one of the two");
        world->zone_nodes[i] = (uint32_t)scenario->zone_nodes[i];
        sum += scenario->zone_nodes[i];
    }
    if (sum > WORLD_NODES_MAX)
        return fail_key(fit, "zones", "%" PRIu64 " nodes in all; at most %d", sum, WORLD_NODES_MAX);
    if (was_set(fit, "nodes") && world->node_count != sum)
        return fail_key(fit, "zones",
                        "the list has %" PRIu64
                        " nodes, but nodes is %u; leave out one of the two, or write shares",
                        sum, world->node_count);
    world->node_count = (uint32_t)sum;
    world->zone_count = scenario->zone_list_count;
    /* Zones that differ by a node at most are what dealing in turn makes of a number of zones. */
    for (uint32_t i = 0; i < scenario->zone_list_count; i++)
        equal = equal && scenario->zone_nodes[i] ==
                             (sum + scenario->zone_list_count - 1 - i) / scenario->zone_list_count;
    if (equal)
        world->zone_nodes[0] = 0;
    return 0;
}

static int fit_zones(struct fit *fit)
{
    struct scenario *scenario = fit->scenario;
    struct world_config *world = &scenario->world;
    bool shares = (scenario->zone_nodes[0] & SCENARIO_SHARE_BIT) != 0;
    int err = 0;
    world->zone_nodes[0] = 0;
    if (scenario->zone_list_count > 0)
        err = shares ? fit_shares(fit) : fit_counts(fit);
    if (err != 0)
        return err;
    if (world->zone_count > world->node_count)
        return fail_key(fit, "zones", "%u zones for %u nodes; each zone needs a node",
                        world->zone_count, world->node_count);
    if (world->region_count > world->zone_count)
        return fail_key(fit, "regions", "%u regions for %u zones; each region needs a zone",
                        world->region_count, world->zone_count);
    return 0;
}

static int fit_nodes(struct fit *fit)
{
    struct scenario *scenario = fit->scenario;
    if (scenario->slow_count == 1)
        return fail_key(fit, "nic.slow", "needs two values; allowed: [fraction, divisor]");
    if (scenario->cache_mode == CACHE_MEMORY)
        scenario->world.disk_read_bps = scenario->world.disk_write_bps = 0;
    return 0;
}

/* ---- images ---- */

static int fit_image(struct fit *fit, struct scenario_image *image, const char *key, unsigned line)
{
    char why[256], text[SCENARIO_ERROR_BYTES / 2], *json = NULL;
    size_t json_bytes = 0;
    int err = scenario_read_file(image->manifest.text, IMAGE_MANIFEST_BYTES, &json, &json_bytes);
    if (err == E_NO_MEMORY)
        return err;
    if (err != 0) {
        (void)snprintf(text, sizeof text, "%s: %.200s: cannot be read: %s", key,
                       image->manifest.text, err_text(err));
        return fail_line(fit, line, text);
    }
    err = image_of_manifest(json, json_bytes, image->layers, &image->layer_count, why, sizeof why);
    free(json);
    if (err == 0)
        return 0;
    (void)snprintf(text, sizeof text, "%s: %.200s: %s", key, image->manifest.text, why);
    return fail_line(fit, line, text);
}

/* The key `image` becomes the only element of images. */
static int single_image(struct fit *fit)
{
    struct scenario *scenario = fit->scenario;
    bool manifest = scenario->image.manifest.text[0] != '\0';
    if (scenario->image_count > 0) {
        if (was_set(fit, "image.layers") || was_set(fit, "image.manifest"))
            return fail_key(fit, was_set(fit, "image.layers") ? "image.layers" : "image.manifest",
                            "images is given, too; use one of the two");
        return 0;
    }
    uint32_t layers_line = scenario->lines[scenario_key_find("image.layers")];
    uint32_t manifest_line = scenario->lines[scenario_key_find("image.manifest")];
    if (manifest && layers_line == UINT32_MAX && manifest_line != UINT32_MAX)
        manifest = false; /* --set over the file */
    else if (manifest && layers_line != 0 && manifest_line != UINT32_MAX)
        return fail_key(fit, "image.manifest", "image.layers is given, too; use one of the two");
    if (!manifest)
        scenario->image.manifest.text[0] = '\0';
    scenario->images[0] = scenario->image;
    scenario->images[0].line = manifest ? manifest_line : layers_line;
    scenario->image_count = 1;
    return 0;
}

static int fit_images(struct fit *fit)
{
    struct scenario *scenario = fit->scenario;
    int err = single_image(fit);
    uint32_t blobs = 0;
    bool single = was_set(fit, "image.manifest") || was_set(fit, "image.layers");
    for (uint32_t i = 0; i < scenario->image_count && err == 0; i++) {
        struct scenario_image *image = &scenario->images[i];
        if (image->manifest.text[0] != '\0' && image->layer_count > 0 && image->line != 0 &&
            !single)
            return fail_line(fit, image->line,
                             "images: layers and manifest in one element; use one of the two");
        if (image->manifest.text[0] != '\0')
            err = fit_image(fit, image, single ? "image.manifest" : "images.manifest", image->line);
        if (err == 0 && image->layer_count == 0)
            return fail_line(fit, image->line,
                             "image: has no layers; write layers: [512MiB] or manifest: file.json");
        blobs += image->layer_count;
    }
    if (err == 0 && blobs > WORLD_BLOBS_MAX)
        return fail_line(fit, scenario->images[0].line,
                         "images: more than 256 layers in all; merge small ones");
    return err;
}

/* ---- arrivals ---- */

static int by_time(const void *a, const void *b)
{
    const struct scenario_arrival *x = a, *y = b;
    if (x->at_us != y->at_us)
        return x->at_us < y->at_us ? -1 : 1;
    return x->node < y->node ? -1 : x->node > y->node;
}

/* Cuts the next word off *line; "" at its end. */
static char *next_word(char **line)
{
    char *word = *line + strspn(*line, " \t,");
    size_t bytes = strcspn(word, " \t,");
    *line = word + bytes;
    if (**line != '\0')
        *(*line)++ = '\0';
    return word;
}

/* One line "seconds node [image]"; blank lines and what follows a # count for nothing. Returns 1 if
 * there was an arrival, 0 if not, E_CONFIG. */
static int trace_line(char *line, const struct scenario *scenario, struct scenario_arrival *out)
{
    static const struct quantity_unit none[] = {{NULL, 0}};
    uint64_t at_us = 0, node = 0, image = SCENARIO_ALL_IMAGES;
    line[strcspn(line, "#\r")] = '\0';
    const char *seconds = next_word(&line), *second = next_word(&line), *third = next_word(&line);
    if (*seconds == '\0')
        return 0;
    if (quantity_parse_decimal(seconds, none, 1000000, &at_us) != 0 || at_us > 86400000000ULL ||
        quantity_parse(second, none, 1, &node) != 0 || node >= scenario->world.node_count)
        return E_CONFIG;
    if (*third != '\0' &&
        (quantity_parse(third, none, 1, &image) != 0 || image >= scenario->image_count))
        return E_CONFIG;
    *out =
        (struct scenario_arrival){.at_us = at_us, .node = (uint32_t)node, .image = (uint32_t)image};
    return *next_word(&line) == '\0' ? 1 : E_CONFIG;
}

static int read_trace(struct fit *fit, char *text)
{
    struct scenario *scenario = fit->scenario;
    const char *path = scenario->trace_file.text;
    unsigned line = 0;
    for (char *rest = text, *next; rest != NULL; rest = next) {
        line++;
        next = strchr(rest, '\n');
        if (next != NULL)
            *next++ = '\0';
        if (scenario->trace_count == SCENARIO_ARRIVALS_MAX)
            return scenario_fail(fit->error, "%.300s:%u: more than %d arrivals", path, line,
                                 SCENARIO_ARRIVALS_MAX);
        int found = trace_line(rest, scenario, &scenario->trace[scenario->trace_count]);
        if (found < 0)
            return scenario_fail(fit->error,
                                 "%.300s:%u: is not `seconds node [image]` with seconds 0..86400, "
                                 "node 0..%u, image 0..%u",
                                 path, line, scenario->world.node_count - 1,
                                 scenario->image_count - 1);
        scenario->trace_count += (uint32_t)found;
    }
    if (scenario->trace_count == 0)
        return scenario_fail(fit->error, "%.300s: no arrival in it; write lines of `seconds node`",
                             path);
    qsort(scenario->trace, scenario->trace_count, sizeof *scenario->trace, by_time);
    return 0;
}

static int fit_trace(struct fit *fit)
{
    struct scenario *scenario = fit->scenario;
    char *text = NULL;
    size_t text_bytes = 0, lines = 1;
    if (scenario->trace_file.text[0] == '\0')
        return fail_key(fit, "arrivals.kind",
                        "trace needs a file; write arrivals.trace: FILE with lines of "
                        "`seconds node`");
    int err = scenario_read_file(scenario->trace_file.text, SCENARIO_TRACE_MAX, &text, &text_bytes);
    if (err == E_NO_MEMORY)
        return err;
    if (err != 0)
        return fail_key(fit, "arrivals.trace", "%.200s: cannot be read: %s",
                        scenario->trace_file.text, err_text(err));
    for (size_t i = 0; i < text_bytes; i++)
        lines += text[i] == '\n';
    lines = lines > SCENARIO_ARRIVALS_MAX ? SCENARIO_ARRIVALS_MAX : lines;
    scenario->trace = calloc(lines, sizeof *scenario->trace);
    err = scenario->trace == NULL ? E_NO_MEMORY : read_trace(fit, text);
    free(text);
    return err;
}

static int fit_pieces(struct fit *fit)
{
    uint64_t bytes = fit->scenario->piece_bytes;
    if ((bytes & (bytes - 1)) != 0)
        return fail_key(fit, "image.pieceSize", "must be a power of two, as 256KiB, 1MiB, 4MiB");
    return 0;
}

/* Jobs end before the run does, and their pulls have room in memory. */
static int fit_jobs(struct fit *fit)
{
    const struct scenario *scenario = fit->scenario;
    if (scenario->for_us == 0)
        return 0;
    if (scenario->arrivals != ARRIVALS_POISSON)
        return fail_key(fit, "arrivals.for", "does nothing without kind: poisson");
    if (scenario->for_us >= scenario->limit_us)
        return fail_key(fit, "arrivals.for", "must be less than run.limit, when all pulls end");
    if ((double)scenario->for_us / 1e9 * (double)scenario->per_second_milli > SCENARIO_ARRIVALS_MAX)
        return fail_key(fit, "arrivals.for", "more than %d arrivals at that rate",
                        SCENARIO_ARRIVALS_MAX);
    return 0;
}

/* ---- faults ---- */

/* Keys that do something with each kind, beside kind and at. */
static const char *const fault_uses[] = {
    [FAULT_KILL] = "nodes node aim",
    [FAULT_RESTART] = "nodes node aim down keepCache",
    [FAULT_LEAVE] = "nodes node",
    [FAULT_JOIN] = "nodes node",
    [FAULT_FREEZE] = "nodes node for",
    [FAULT_SLOW] = "nodes node for divisor",
    [FAULT_PARTITION] = "for zone to oneWay",
    [FAULT_OUTAGE] = "for how rate firstByte",
    [FAULT_CHURN] = "for perMinute down keepCache",
    [FAULT_LOSS] = "for loss",
    [FAULT_LIAR] = "nodes node",
    [FAULT_HOSTILE] = "nodes node for acts",
    [FAULT_CPU] = "nodes node for divisor",
    [FAULT_DISK] = "nodes node for error wait",
    [FAULT_ISOLATE] = "nodes node for oneWay",
};

static bool uses(const char *list, const char *word)
{
    size_t bytes = strlen(word);
    for (const char *at = list; (at = strstr(at, word)) != NULL; at += bytes)
        if ((at == list || at[-1] == ' ') && (at[bytes] == ' ' || at[bytes] == '\0'))
            return true;
    return false;
}

/* A key that the kind has no use for was meant for something else. */
static int useless_key(struct fit *fit, const struct scenario_fault *fault)
{
    static const char prefix[] = "faults.";
    size_t count = 0;
    unsigned bit = 0;
    const struct scenario_key *keys = scenario_keys(&count);
    const struct scenario_key *kinds = &keys[scenario_key_find("faults.kind")];
    for (size_t i = 0; i < count; i++) {
        if (keys[i].list != SCENARIO_LIST_FAULTS)
            continue;
        const char *word = keys[i].name + sizeof prefix - 1;
        bool set = (fault->is_set & 1U << bit++) != 0;
        if (!set || strcmp(word, "kind") == 0 || strcmp(word, "at") == 0 ||
            uses(fault_uses[fault->kind], word))
            continue;
        char text[256];
        (void)snprintf(text, sizeof text,
                       "faults.%s: does nothing with kind: %s, which takes at, %s", word,
                       kinds->choices[fault->kind - FAULT_KILL], fault_uses[fault->kind]);
        return fail_line(fit, fault->line, text);
    }
    return 0;
}

static int fit_fault(struct fit *fit, const struct scenario_fault *fault)
{
    const struct world_config *world = &fit->scenario->world;
    char text[256] = "";
    if (fault->kind == 0)
        return fail_line(fit, fault->line,
                         "faults.kind: is missing; write kind: kill, restart, leave, join, freeze, "
                         "slow, partition, outage, churn, loss, liar, hostile, cpu, disk or "
                         "isolate");
    int err = useless_key(fit, fault);
    if (err != 0)
        return err;
    if (fault->node != SCENARIO_NO_NODE && fault->node >= world->node_count)
        (void)snprintf(text, sizeof text, "faults.node: there is no node %" PRIu64 "; 0..%u",
                       fault->node, world->node_count - 1);
    else if ((fault->nodes & SCENARIO_SHARE_BIT) == 0 && fault->nodes > world->node_count)
        (void)snprintf(text, sizeof text, "faults.nodes: %" PRIu64 " of %u nodes", fault->nodes,
                       world->node_count);
    else if (fault->kind == FAULT_PARTITION &&
             (fault->zone >= world->zone_count || fault->to_zone >= world->zone_count ||
              fault->zone == fault->to_zone))
        (void)snprintf(text, sizeof text,
                       "faults.zone: a partition needs two different zones of 0..%u, as zone: 0, "
                       "to: 1",
                       world->zone_count - 1);
    else if (fault->aim != 0 && fault->node != SCENARIO_NO_NODE)
        (void)snprintf(text, sizeof text,
                       "faults.node: aim says who is meant; leave out one of the two");
    else if (fault->kind == FAULT_DISK && fault->error == WORLD_DISK_WELL && fault->wait_us == 0)
        (void)snprintf(text, sizeof text,
                       "faults.error: a disk fault needs one, or a wait; as error: read or wait: "
                       "100ms");
    return text[0] == '\0' ? 0 : fail_line(fit, fault->line, text);
}

int scenario_fit(struct scenario *scenario, const char *place, struct scenario_error *error)
{
    struct fit fit = {.scenario = scenario, .place = place, .error = error};
    int err = fit_zones(&fit);
    if (err == 0)
        err = fit_nodes(&fit);
    if (err == 0)
        err = fit_images(&fit);
    if (err == 0 && scenario->arrivals == ARRIVALS_TRACE)
        err = fit_trace(&fit);
    else if (err == 0 && was_set(&fit, "arrivals.trace") && scenario->trace_file.text[0] != '\0')
        err = fail_key(&fit, "arrivals.trace", "does nothing without kind: trace");
    if (err == 0)
        err = fit_jobs(&fit);
    if (err == 0)
        err = fit_pieces(&fit);
    for (uint32_t i = 0; i < scenario->fault_count && err == 0; i++)
        err = fit_fault(&fit, &scenario->faults[i]);
    return err;
}
