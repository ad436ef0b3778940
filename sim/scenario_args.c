/* SPDX-License-Identifier: Apache-2.0 */
/* The common part of the command line; see scenario_args.h. */
#include "scenario_args.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MIB (UINT64_C(1024) * 1024)

/* A flag with a number, and the key that it sets. */
static const struct short_flag {
    const char *flag;
    const char *key;  /* NULL: see take_short */
    const char *unit; /* behind the number */
    const char *help;
    uint64_t min, max;
} short_flags[] = {
    {"--seed", "seed", "", "seed", 0, UINT64_MAX},
    {"--nodes", "nodes", "", "nodes", 1, WORLD_NODES_MAX},
    {"--zones", "zones", "", "zones", 1, SCENARIO_ZONES_MAX},
    {"--mbit", "nic.up", "Mbit/s", "nic.up, Mbit/s", 1, 4000000},
    {"--origin-mbit", "origin.rate", "Mbit/s", "origin.rate, Mbit/s", 1, 4000000},
    {"--conn-mbit", "origin.connection", "Mbit/s", "origin.connection, Mbit/s", 0, 4000000},
    {"--zone-mbit", "links.zone", "Mbit/s", "links.zone, Mbit/s", 0, 4000000},
    {"--zone-copies", NULL, NULL, "1: copies=zone", 0, 1},
    {"--arrival-ms", "arrivals.within", "ms", "arrivals.within, ms", 0, 3600000},
    {"--loss-ppm", "loss", "ppm", "loss, per million", 0, 500000},
    {"--quantum-us", "run.quantum", "us", "run.quantum, us", 0, 1000000},
    {"--one-hop", "run.oneHop", "", "run.oneHop", 0, 1},
    {"--trace", NULL, NULL, "run.log: 0 none, 1 error .. 5 trace", 0, LOG_TRACE},
    {"--mib", NULL, NULL, "image.layers: the image's size in MiB", 1, 1 << 20},
    {"--layers", NULL, NULL, "image.layers: so many of equal size", 1, IMAGE_LAYERS_MAX},
};

void scenario_args_init(struct scenario_args *args)
{
    *args = (struct scenario_args){.options = {.file = NULL}};
}

void scenario_args_help(FILE *to)
{
    fprintf(to, "  --set KEY=VALUE   any key; lists as a,b; `shoal-sim example` shows all keys\n");
    for (size_t i = 0; i < sizeof short_flags / sizeof short_flags[0]; i++)
        fprintf(to, "  %s N%*s%s\n", short_flags[i].flag, 16 - (int)strlen(short_flags[i].flag), "",
                short_flags[i].help);
}

int scenario_args_number(const char *flag, const char *text, uint64_t min, uint64_t max,
                         uint64_t *out)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = text == NULL ? 0 : strtoull(text, &end, 10);
    if (text == NULL || *text < '0' || *text > '9' || *end != '\0' || errno != 0 || value < min ||
        value > max) {
        fprintf(stderr, "shoal-sim: %s takes a whole number from %" PRIu64 " to %" PRIu64 "\n",
                flag, min, max);
        return E_INVALID;
    }
    *out = value;
    return 0;
}

static int add_set(struct scenario_args *args, const char *set)
{
    if (args->options.set_count == SCENARIO_SETS_MAX) {
        fprintf(stderr, "shoal-sim: more than %d values set; write a scenario file\n",
                SCENARIO_SETS_MAX);
        return -1;
    }
    args->sets[args->options.set_count++] = set;
    return 1;
}

static int take_short(struct scenario_args *args, const struct short_flag *flag, uint64_t value)
{
    static const char *const levels[] = {"none", "error", "warn", "info", "debug", "trace"};
    if (strcmp(flag->flag, "--mib") == 0) {
        args->mib = value;
        return 1;
    }
    if (strcmp(flag->flag, "--layers") == 0) {
        args->layers = value;
        return 1;
    }
    if (args->short_count == SCENARIO_SHORTS_MAX) {
        fprintf(stderr, "shoal-sim: too many flags; write a scenario file\n");
        return -1;
    }
    char *text = args->short_text[args->short_count++];
    if (strcmp(flag->flag, "--zone-copies") == 0)
        (void)snprintf(text, SCENARIO_SHORT_TEXT, "copies=%s", value != 0 ? "zone" : "mesh");
    else if (strcmp(flag->flag, "--trace") == 0)
        (void)snprintf(text, SCENARIO_SHORT_TEXT, "run.log=%s", levels[value]);
    else
        (void)snprintf(text, SCENARIO_SHORT_TEXT, "%s=%" PRIu64 "%s", flag->key, value, flag->unit);
    return add_set(args, text);
}

int scenario_args_take(struct scenario_args *args, int argc, char **argv, int *i)
{
    const char *word = argv[*i], *next = *i + 1 < argc ? argv[*i + 1] : NULL;
    uint64_t value = 0;
    if (strcmp(word, "--set") == 0) {
        if (next == NULL) {
            fprintf(stderr, "shoal-sim: --set takes KEY=VALUE\n");
            return -1;
        }
        ++*i;
        return add_set(args, next);
    }
    for (size_t f = 0; f < sizeof short_flags / sizeof short_flags[0]; f++) {
        if (strcmp(word, short_flags[f].flag) != 0)
            continue;
        if (scenario_args_number(word, next, short_flags[f].min, short_flags[f].max, &value) != 0)
            return -1;
        ++*i;
        return take_short(args, &short_flags[f], value);
    }
    if (word[0] == '-')
        return 0;
    if (args->options.file != NULL) {
        fprintf(stderr, "shoal-sim: unexpected '%s': the scenario is '%s' already\n", word,
                args->options.file);
        return -1;
    }
    args->options.file = word;
    return 1;
}

/* --mib and --layers make equal layers, whichever came first. */
int scenario_args_finish(struct scenario_args *args)
{
    args->options.sets = args->sets;
    if (args->mib == 0 && args->layers == 0)
        return 0;
    uint64_t mib = args->mib == 0 ? 128 : args->mib, layers = args->layers == 0 ? 1 : args->layers;
    size_t room = 32 + 24 * IMAGE_LAYERS_MAX;
    args->layers_text = malloc(room);
    if (args->layers_text == NULL)
        return E_NO_MEMORY;
    size_t used = (size_t)snprintf(args->layers_text, room, "image.layers=");
    for (uint64_t i = 0; i < layers; i++)
        used += (size_t)snprintf(args->layers_text + used, room - used, "%s%" PRIu64 "B",
                                 i > 0 ? "," : "", mib * MIB / layers);
    args->sets[args->options.set_count++] = args->layers_text;
    return 0;
}

void scenario_args_close(struct scenario_args *args)
{
    free(args->layers_text);
    args->layers_text = NULL;
}

const char *scenario_args_command(int argc, char **argv, char *out, size_t out_bytes)
{
    size_t used = (size_t)snprintf(out, out_bytes, "shoal-sim");
    for (int i = 1; i < argc; i++) {
        bool plain = argv[i][0] != '\0' && strpbrk(argv[i], " \t\"'$&|;<>(){}*?[]\\`#~!\n") == NULL;
        int written = snprintf(out + used, out_bytes - used, plain ? " %s" : " '%s'", argv[i]);
        if (written < 0 || (size_t)written >= out_bytes - used)
            break;
        used += (size_t)written;
    }
    return out;
}
