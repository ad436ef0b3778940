/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Figures of a run that a search can be held to, and what is known beforehand of the keys: which
 * of them say nothing about a cluster, and which way they lead. The search checks the latter.
 */
#include <stdlib.h>
#include <string.h>

#include "plan.h"

/* ---- metrics ---- */

static double ratio(const struct scenario_result *result, double seconds)
{
    return result->report.bound_s > 0 ? seconds / result->report.bound_s : 0;
}
static double of_p50(const struct scenario_result *result)
{
    return result->report.p50_s;
}
static double of_p90(const struct scenario_result *result)
{
    return result->report.p90_s;
}
static double of_p99(const struct scenario_result *result)
{
    return result->report.p99_s;
}
static double of_p999(const struct scenario_result *result)
{
    return result->report.p999_s;
}
static double of_last(const struct scenario_result *result)
{
    return result->report.last_s;
}
static double of_ratio_p50(const struct scenario_result *result)
{
    return ratio(result, result->report.p50_s);
}
static double of_ratio_p99(const struct scenario_result *result)
{
    return ratio(result, result->report.p99_s);
}
static double of_ratio_last(const struct scenario_result *result)
{
    return ratio(result, result->report.last_s);
}
static double of_origin(const struct scenario_result *result)
{
    return result->report.origin_copies;
}
static double of_cross(const struct scenario_result *result)
{
    return result->report.cross_zone_copies;
}
static double of_hits(const struct scenario_result *result)
{
    return scenario_hit_ratio(result);
}
static double of_gain(const struct scenario_result *result)
{
    return result->report.last_s > 0 ? result->report.no_mesh_last_s / result->report.last_s : 0;
}

static const struct plan_metric metrics[] = {
    {"completion.p50_s", of_p50, false},   {"completion.p90_s", of_p90, false},
    {"completion.p99_s", of_p99, false},   {"completion.p999_s", of_p999, false},
    {"completion.last_s", of_last, false}, {"ratio.p50", of_ratio_p50, true},
    {"ratio.p99", of_ratio_p99, true},     {"ratio.last", of_ratio_last, true},
    {"origin_copies", of_origin, false},   {"cross_zone_copies", of_cross, false},
    {"hit_ratio", of_hits, false},         {"gain", of_gain, true},
};

const struct plan_metric *plan__metric(const char *name)
{
    for (size_t i = 0; i < sizeof metrics / sizeof metrics[0]; i++)
        if (strcmp(metrics[i].name, name) == 0)
            return &metrics[i];
    return NULL;
}

void plan__metric_names(FILE *to)
{
    for (size_t i = 0; i < sizeof metrics / sizeof metrics[0]; i++)
        fprintf(to, "%s%s", i > 0 ? ", " : "", metrics[i].name);
}

/* ---- keys ---- */

static bool begins_with_one_of(const char *name, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strncmp(name, words[i], strlen(words[i])) == 0)
            return true;
    return false;
}

bool plan__searchable(const struct scenario_key *key)
{
    static const char *const others[] = {"seed", "checks.", "run."};
    return scenario_key_is_number(key) &&
           !begins_with_one_of(key->name, others, sizeof others / sizeof others[0]);
}

/* Keys of which more makes a pull slower; of all others more makes it faster, or changes nothing.
 */
bool plan__more_is_worse(const struct scenario_key *key)
{
    static const char *const worse[] = {
        "nodes",         "regions",     "vswitches",        "latency.",       "loss",
        "reorder",       "duplicate",   "origin.firstByte", "origin.latency", "origin.retryAfter",
        "cpu.receive",   "cpu.serve",   "cpu.origin",       "cpu.verify",     "cpu.store",
        "cpu.client",    "cpu.message", "cpu.handshake",    "cpu.tls",        "arrivals.rate",
        "arrivals.batch"};
    return strcmp(key->name, "cpu.verifyRate") != 0 &&
           begins_with_one_of(key->name, worse, sizeof worse / sizeof worse[0]);
}
