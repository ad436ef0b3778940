/* SPDX-License-Identifier: Apache-2.0 */
/* Order, rounds and result of topology detection; see topology_detect.h. */
#include "topology_detect.h"

#include <string.h>

#include "log.h"
#include "topology_internal.h"

#define SOURCE_US (2 * 1000000ull) /* one source has so long */
/* Pauses between rounds double from the first to the last; a machine without any source is asked
 * about for ten minutes and then left alone. Kubernetes alone is asked on. */
#define PAUSE_FIRST_US (5 * 1000000ull)
#define PAUSE_LAST_US  (600 * 1000000ull)
#define CLOUD_ROUNDS   8

static bool is_cloud(enum topology_source source)
{
    return source >= TOPOLOGY_ECS && source <= TOPOLOGY_AZURE;
}

static bool is_link_local(enum topology_source source)
{
    return source >= TOPOLOGY_AWS && source <= TOPOLOGY_AZURE;
}

/* ---- the result ---- */

/* The first source in order that says this label; its offset names it. */
static void choose(const struct topology_detect *detect, size_t label_at, struct label *out,
                   enum topology_source *from)
{
    const struct label *configured =
        (const void *)((const uint8_t *)&detect->config->topology + label_at);
    *out = *configured;
    *from = configured->text[0] == '\0' ? TOPOLOGY_UNKNOWN : TOPOLOGY_CONFIGURED;
    for (unsigned i = 0; *from == TOPOLOGY_UNKNOWN && i < detect->order_count; i++) {
        const struct topology *found = &detect->answers[detect->order[i]].found;
        const struct label *said = (const void *)((const uint8_t *)found + label_at);
        if (said->text[0] == '\0')
            continue;
        *out = *said;
        *from = detect->order[i];
    }
}

static void view_make(const struct topology_detect *detect, struct topology_view *out)
{
    memset(out, 0, sizeof *out);
    choose(detect, offsetof(struct topology, region), &out->labels.region, &out->region);
    choose(detect, offsetof(struct topology, zone), &out->labels.zone, &out->zone);
    choose(detect, offsetof(struct topology, vswitch), &out->labels.vswitch, &out->vswitch);
}

static void view_refresh(struct topology_detect *detect)
{
    struct topology_view fresh;
    view_make(detect, &fresh);
    bool changed = memcmp(&fresh.labels, &detect->view.labels, sizeof fresh.labels) != 0;
    detect->view = fresh;
    if (!changed)
        return;
    log_to(&detect->env, LOG_INFO, "topology: region=%s (%s) zone=%s (%s) vswitch=%s (%s)",
           fresh.labels.region.text, topology_source_name(fresh.region), fresh.labels.zone.text,
           topology_source_name(fresh.zone), fresh.labels.vswitch.text,
           topology_source_name(fresh.vswitch));
    detect->host.changed(detect->host.arg, &fresh.labels);
}

/* ---- sources ---- */

static int prefixes(struct topology_detect *detect)
{
    const struct config *config = detect->config;
    const struct topology_prefix none = {.block.bits = 0};
    struct topology_prefix best = none, prefix;
    bool found = false;
    for (uint32_t i = 0; i < config->topology_prefix_count; i++) {
        int err = topology_prefix_parse(config->topology_prefixes[i].text, &prefix);
        if (err != 0 || !topology_prefix_fits(&prefix, &detect->self))
            continue;
        if (!found || prefix.block.bits > best.block.bits)
            best = prefix;
        found = true;
    }
    detect->found = best.topology;
    return found ? 0 : E_NOT_FOUND;
}

static const topology_source_fn sources[TOPOLOGY_SOURCE_COUNT] = {
    [TOPOLOGY_KUBERNETES] = topology__kubernetes,
    [TOPOLOGY_ECS] = topology__ecs,
    [TOPOLOGY_AWS] = topology__aws,
    [TOPOLOGY_GCP] = topology__gcp,
    [TOPOLOGY_AZURE] = topology__azure,
    [TOPOLOGY_PREFIXES] = prefixes,
};

/* Notes what the source at `at` answered. */
static void note(struct topology_detect *detect, int err)
{
    enum topology_source source = detect->order[detect->at];
    struct topology_answer *answer = &detect->answers[source];
    if (err != 0)
        log_to(&detect->env, LOG_DEBUG, "topology: no answer source=%s error=%s",
               topology_source_name(source), err_name(err));
    answer->settled = err == 0 || err == E_NOT_FOUND || err == E_DENIED;
    if (err != 0)
        return;
    answer->found = detect->found;
    /* A node stands in one cloud. */
    for (unsigned i = TOPOLOGY_ECS; is_cloud(source) && i <= TOPOLOGY_AZURE; i++)
        detect->answers[i].settled = true;
    view_refresh(detect);
}

/* ---- rounds ---- */

/* True if what the source at a position says could matter: a label is open, or came from later. */
static bool wanted(const struct topology_detect *detect, unsigned position)
{
    const enum topology_source from[] = {detect->view.region, detect->view.zone,
                                         detect->view.vswitch};
    for (unsigned label = 0; label < 3; label++) {
        bool earlier = from[label] == TOPOLOGY_CONFIGURED;
        for (unsigned i = 0; i < position; i++)
            earlier |= detect->order[i] == from[label];
        if (!earlier)
            return true;
    }
    return false;
}

static bool to_ask(const struct topology_detect *detect, unsigned position)
{
    enum topology_source source = detect->order[position];
    return !detect->answers[source].settled && wanted(detect, position) &&
           !(detect->no_link_local && is_link_local(source));
}

static uint64_t pause_us(struct topology_detect *detect)
{
    uint64_t pause = PAUSE_FIRST_US << (detect->round < 16 ? detect->round : 16), random = 0;
    pause = pause < PAUSE_LAST_US ? pause : PAUSE_LAST_US;
    detect->env.random(detect->env.host, (uint8_t *)&random, sizeof random);
    return pause - pause / 4 + random % (pause / 2);
}

static void round_end(struct topology_detect *detect)
{
    bool again = false;
    detect->no_link_local = false;
    topology__ask_stop(detect);
    if (detect->view.zone == TOPOLOGY_UNKNOWN && !detect->said_unknown && detect->order_count > 0)
        log_to(&detect->env, LOG_INFO,
               "topology: no source knows the zone: nodes without one count as one zone; set "
               "topology.zone or topology.prefixes");
    detect->said_unknown = true;
    for (unsigned i = 0; i < detect->order_count; i++) {
        if (is_cloud(detect->order[i]) && detect->round + 1 >= CLOUD_ROUNDS)
            detect->answers[detect->order[i]].settled = true;
        again |= to_ask(detect, i);
    }
    detect->finished = !again;
    /* Once more at the end, too: what a source holds is freed outside of its callback. */
    detect->host.timer(detect->host.arg, again ? pause_us(detect) : 0);
    detect->round++;
}

/* Asks from `at` on, until one will answer later. */
static void ask_on(struct topology_detect *detect)
{
    for (; detect->at < detect->order_count; detect->at++) {
        if (!to_ask(detect, detect->at))
            continue;
        detect->running = true;
        detect->step = 0;
        memset(&detect->found, 0, sizeof detect->found);
        detect->host.timer(detect->host.arg, SOURCE_US);
        int err = sources[detect->order[detect->at]](detect);
        if (err == E_AGAIN)
            return;
        detect->running = false;
        note(detect, err);
    }
    round_end(detect);
}

void topology__done(struct topology_detect *detect, int err)
{
    ASSERT(detect->running);
    detect->running = false;
    note(detect, err);
    detect->at++;
    ask_on(detect);
}

static void ecs_free(struct topology_detect *detect)
{
    acr_metadata_free(detect->ecs);
    detect->ecs = NULL;
}

void topology_detect_due(struct topology_detect *detect)
{
    if (detect->running) {
        topology__ask_stop(detect);
        ecs_free(detect);
        /* What it had said by then counts. */
        bool some = detect->found.zone.text[0] != '\0';
        detect->no_link_local |= !some && is_link_local(detect->order[detect->at]);
        topology__done(detect, some ? 0 : E_TIMEOUT);
        return;
    }
    ecs_free(detect);
    if (detect->finished)
        return;
    detect->at = 0;
    ask_on(detect);
}

/* ---- life ---- */

int topology_detect_new(const struct env *env, const struct fetch_engine *engine,
                        const struct topology_host *host, const struct config *config,
                        const struct peer_addr *self, struct topology_detect **out)
{
    struct topology_detect *detect = env->alloc(env->host, NULL, sizeof *detect);
    if (detect == NULL)
        return E_NO_MEMORY;
    *detect = (struct topology_detect){
        .env = *env, .engine = *engine, .host = *host, .config = config, .self = *self};
    for (uint32_t i = 0; i < config->topology_detect_count; i++) {
        enum topology_source source = topology_source_find(config->topology_detect[i].text);
        if (source != TOPOLOGY_UNKNOWN && detect->order_count < TOPOLOGY_SOURCE_COUNT)
            detect->order[detect->order_count++] = source;
    }
    view_make(detect, &detect->view);
    *out = detect;
    return 0;
}

void topology_detect_free(struct topology_detect *detect)
{
    if (detect == NULL)
        return;
    struct env env = detect->env;
    topology__ask_stop(detect);
    ecs_free(detect);
    explicit_bzero(detect->token, sizeof detect->token);
    (void)env.alloc(env.host, detect, 0);
}

void topology_detect_start(struct topology_detect *detect)
{
    ask_on(detect);
}

const struct topology_view *topology_detect_view(const struct topology_detect *detect)
{
    return &detect->view;
}

/* "" or http(s) without a path: paths are put behind it. */
static int url_verify(const char *key, const char *url, struct config_error *error)
{
    const char *host = strncmp(url, "http://", 7) == 0    ? url + 7
                       : strncmp(url, "https://", 8) == 0 ? url + 8
                                                          : "/";
    if (url[0] == '\0' || (host[0] != '\0' && strchr(host, '/') == NULL))
        return 0;
    return config_fail(error,
                       "topology.%s: \"%.200s\" is not allowed; allowed: http://HOST[:PORT] "
                       "or https://HOST[:PORT]",
                       key, url);
}

int topology_detect_verify(const struct config *config, struct config_error *error)
{
    struct topology_prefix prefix;
    int err = url_verify("ecsUrl", config->topology_ecs_url.text, error);
    if (err == 0)
        err = url_verify("cloudUrl", config->topology_cloud_url.text, error);
    if (err == 0)
        err = url_verify("kubernetesUrl", config->topology_kubernetes_url.text, error);
    if (err != 0)
        return err;
    for (uint32_t i = 0; i < config->topology_detect_count; i++) {
        const char *name = config->topology_detect[i].text;
        bool none = strcmp(name, "none") == 0 && config->topology_detect_count == 1;
        if (!none && topology_source_find(name) < TOPOLOGY_KUBERNETES)
            return config_fail(error,
                               "topology.detect: \"%.100s\" is not allowed; allowed: "
                               "kubernetes, ecs, aws, gcp, azure, prefixes; or none alone",
                               name);
        for (uint32_t j = 0; j < i; j++) {
            if (strcmp(name, config->topology_detect[j].text) == 0)
                return config_fail(error, "topology.detect: \"%.100s\" stands there twice", name);
        }
    }
    for (uint32_t i = 0; i < config->topology_prefix_count; i++) {
        if (topology_prefix_parse(config->topology_prefixes[i].text, &prefix) != 0)
            return config_fail(error,
                               "topology.prefixes: \"%.200s\" is not allowed; allowed: "
                               "ADDRESS/BITS=REGION/ZONE/VSWITCH without bits behind the prefix, "
                               "such as 10.1.0.0/16=eu-1/eu-1a/vsw-7",
                               config->topology_prefixes[i].text);
    }
    return 0;
}
