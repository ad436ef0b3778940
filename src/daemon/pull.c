/* SPDX-License-Identifier: Apache-2.0 */
/* The table of orders, their turns and their end; see pull.h. */
#include "pull_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "bytes.h"
#include "log.h"

#define TICK_MS 200
/* What no client can send as its Authorization: orders share connections and remembered redirects
 * with each other, and with nobody else. */
#define NODE_CREDENTIAL "\x01node"

uint64_t pull__now_us(const struct pull *pull)
{
    return loop_now_us(pull->owner->config.loop);
}

bool pull__over(const struct pull *pull)
{
    return pull->state >= PULL_DONE;
}

static void say(const struct pull *pull, const char *what)
{
    log_to(&pull->owner->config.loop->env, LOG_INFO, "pull: %s id=%s%s%.300s", what, pull->id,
           pull->error[0] == '\0' ? "" : ": ", pull->error);
}

static void count_bytes(struct pull *pull)
{
    struct pulls_counters *counters = &pull->owner->counters;
    for (uint32_t i = 0; i < pull->blob_count; i++) {
        counters->origin_bytes += pull->blobs[i].origin_bytes;
        counters->peer_bytes += pull->blobs[i].peer_bytes;
    }
}

void pull__end(struct pull *pull, enum pull_state state, const char *format, ...)
{
    struct pulls_counters *counters = &pull->owner->counters;
    va_list args;
    ASSERT(!pull__over(pull) && state >= PULL_DONE);
    pull->state = state;
    pull->ended_us = pull__now_us(pull);
    va_start(args, format);
    (void)vsnprintf(pull->error, sizeof pull->error, format, args);
    va_end(args);
    pull__ask_stop(pull);
    pull__blobs_stop(pull);
    count_bytes(pull);
    registry_entry_put(pull->registry);
    pull->registry = NULL;
    counters->done += state == PULL_DONE;
    counters->failed += state == PULL_FAILED;
    counters->cancelled += state == PULL_CANCELLED;
    say(pull, state == PULL_DONE ? "done" : state == PULL_FAILED ? "failed" : "cancelled");
}

/* ---- turns ---- */

static void tick_one(struct pull *pull)
{
    const struct pulls *pulls = pull->owner;
    if (pulls->config.config->mode == CONFIG_MODE_PASSTHROUGH) /* HRD-7 */
        pull__end(pull, PULL_FAILED, "the agent passes everything through now (mode: passthrough)");
    else if (pull->order.attached && pull__now_us(pull) - pull->asked_us > PULL_ATTACHED_US)
        pull__end(pull, PULL_CANCELLED, "nobody asks for it any more");
    else if (pull->state == PULL_RUNNING)
        pull__blobs_tick(pull);
    else if (pull->state == PULL_SPREADING)
        pull__nodes_tick(pull);
}

/* The oldest that waits begins, if fewer than there may be are at work. True: some are not over. */
static bool take_turns(struct pulls *pulls)
{
    struct pull *oldest = NULL;
    uint32_t running = 0;
    for (struct pull *pull = pulls->newest; pull != NULL; pull = pull->next) {
        running += !pull__over(pull) && pull->state != PULL_WAITING;
        if (pull->state == PULL_WAITING)
            oldest = pull;
    }
    if (oldest != NULL && running < PULLS_RUNNING_MAX) {
        oldest->state = PULL_RESOLVING;
        pull__resolve(oldest);
    }
    return oldest != NULL || running > 0;
}

static void on_tick(uv_timer_t *timer)
{
    struct pulls *pulls = timer->data;
    for (struct pull *pull = pulls->newest; pull != NULL; pull = pull->next) {
        if (!pull__over(pull))
            tick_one(pull);
    }
    if (!take_turns(pulls))
        (void)uv_timer_stop(&pulls->timer);
}

/* ---- the table ---- */

static struct pull *find(const struct pulls *pulls, const char *id)
{
    struct pull *pull = pulls->newest;
    while (pull != NULL && strcmp(pull->id, id) != 0)
        pull = pull->next;
    return pull;
}

static void pull_free(struct pull *pull)
{
    (void)loop_alloc(NULL, pull->blobs, 0);
    (void)loop_alloc(NULL, pull->nodes, 0);
    (void)loop_alloc(NULL, pull, 0);
}

/* The oldest that is over makes room. False: none is. */
static bool make_room(struct pulls *pulls)
{
    struct pull **victim = NULL;
    if (pulls->count < PULLS_MAX)
        return true;
    for (struct pull **link = &pulls->newest; *link != NULL; link = &(*link)->next) {
        if (pull__over(*link))
            victim = link;
    }
    if (victim == NULL)
        return false;
    struct pull *pull = *victim;
    *victim = pull->next;
    pulls->count--;
    pull_free(pull);
    return true;
}

static bool same_order(const struct pull_order *a, const struct pull_order *b)
{
    return strcmp(a->image.registry, b->image.registry) == 0 &&
           strcmp(a->image.repository, b->image.repository) == 0 &&
           strcmp(a->image.tag, b->image.tag) == 0 && a->image.has_digest == b->image.has_digest &&
           (!a->image.has_digest || digest_equal(&a->image.digest, &b->image.digest)) &&
           a->on == b->on && a->on_count == b->on_count && a->all_platforms == b->all_platforms &&
           a->attached == b->attached && strcmp(a->platform.os, b->platform.os) == 0 &&
           strcmp(a->platform.architecture, b->platform.architecture) == 0 &&
           strcmp(a->platform.variant, b->platform.variant) == 0;
}

/* An attached one has its own end, so that each is its own. */
static struct pull *find_same(const struct pulls *pulls, const struct pull_order *order)
{
    for (struct pull *pull = pulls->newest; pull != NULL && !order->attached; pull = pull->next) {
        if (!pull__over(pull) && same_order(&pull->order, order))
            return pull;
    }
    return NULL;
}

/* ---- orders ---- */

/* As Go and so all images call it. */
static void own_platform(struct platform *out)
{
    static const struct {
        const char *machine, *architecture;
    } known[] = {{"x86_64", "amd64"}, {"aarch64", "arm64"}, {"armv7l", "arm"}, {"i686", "386"}};
    struct utsname name;
    const char *architecture = "amd64";
    if (uname(&name) == 0)
        architecture = name.machine;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(architecture, known[i].machine) == 0)
            architecture = known[i].architecture;
    *out = (struct platform){.os = "linux"};
    int err = text_copy(out->architecture, sizeof out->architecture, architecture);
    (void)err; /* no such long names are known; none then fits */
}

static int refuse(struct pulls *pulls, char error[PULL_ERROR_BYTES], int err, const char *format,
                  ...) __attribute__((format(printf, 4, 5)));

static int refuse(struct pulls *pulls, char error[PULL_ERROR_BYTES], int err, const char *format,
                  ...)
{
    va_list args;
    pulls->counters.refused++;
    va_start(args, format);
    (void)vsnprintf(error, PULL_ERROR_BYTES, format, args);
    va_end(args);
    return err;
}

/* May it be brought in at all? */
static int check_order(struct pulls *pulls, const struct pull_order *order,
                       const struct registry_entry *registry, char error[PULL_ERROR_BYTES])
{
    struct cache_stats cache;
    cache_stats(pulls->config.cache, &cache);
    if (pulls->stopping)
        return refuse(pulls, error, E_CLOSED, "the agent stops");
    if (pulls->config.config->mode == CONFIG_MODE_PASSTHROUGH)
        return refuse(pulls, error, E_UNSUPPORTED,
                      "the agent passes everything through (mode: passthrough): nothing is kept");
    if (cache.capacity_bytes == 0)
        return refuse(pulls, error, E_UNSUPPORTED, "the cache keeps nothing: set cache.capacity");
    if (!registry_p2p(registry, order->image.repository))
        return refuse(pulls, error, E_DENIED,
                      "%s is kept off the mesh (registries[].p2p): nothing of it is kept here",
                      order->image.repository);
    return 0;
}

static struct pull *pull_new(struct pulls *pulls, const struct pull_order *order,
                             const struct registry_entry *registry)
{
    const struct env *env = &pulls->config.loop->env;
    struct pull *pull = loop_alloc(NULL, NULL, sizeof *pull);
    uint8_t id[8];
    if (pull == NULL)
        return NULL;
    *pull = (struct pull){.owner = pulls, .order = *order, .state = PULL_WAITING};
    pull->registry = registry_entry_ref(registry);
    pull->as_node = registry->credentials_file[0] != '\0';
    grants_credential_hash(pulls->config.grants, pull->as_node ? NODE_CREDENTIAL : NULL,
                           pull->credential_hash);
    env->random(env->host, id, sizeof id);
    for (size_t i = 0; i < sizeof id; i++)
        (void)snprintf(pull->id + 2 * i, 3, "%02x", id[i]);
    pull->digest = order->image.digest;
    pull->has_digest = order->image.has_digest;
    pull->began_us = pull->asked_us = pull->moved_us = pull__now_us(pull);
    pull->next = pulls->newest;
    pulls->newest = pull;
    pulls->count++;
    pulls->counters.begun++;
    say(pull, "begun");
    return pull;
}

static int begin_at(struct pulls *pulls, const struct pull_order *order,
                    const struct registry_entry *registry, char id[PULL_ID_BYTES],
                    char error[PULL_ERROR_BYTES])
{
    int err = check_order(pulls, order, registry, error);
    if (err != 0)
        return err;
    struct pull_order whole = *order;
    if (whole.platform.os[0] == '\0')
        own_platform(&whole.platform);
    const struct pull *pull = find_same(pulls, &whole);
    if (pull == NULL && !make_room(pulls))
        return refuse(pulls, error, E_FULL, "too many images wait to be pulled: try later");
    if (pull == NULL)
        pull = pull_new(pulls, &whole, registry);
    if (pull == NULL)
        return refuse(pulls, error, E_NO_MEMORY, "%s", err_text(E_NO_MEMORY));
    (void)snprintf(id, PULL_ID_BYTES, "%s", pull->id);
    if (!uv_is_active((uv_handle_t *)&pulls->timer))
        (void)uv_timer_start(&pulls->timer, on_tick, 0, TICK_MS);
    return 0;
}

int pulls_order(struct pulls *pulls, const struct pull_order *order, char id[PULL_ID_BYTES],
                char error[PULL_ERROR_BYTES])
{
    const struct registry_entry *registry = NULL;
    int err = registry_table_get(pulls->config.registries, order->image.registry, &registry);
    if (err == E_NOT_FOUND)
        return refuse(pulls, error, err, "registry %s is not configured: add it to registries",
                      order->image.registry);
    if (err != 0)
        return refuse(pulls, error, err, "registry %s: too many registries at once",
                      order->image.registry);
    err = begin_at(pulls, order, registry, id, error);
    registry_entry_put(registry);
    return err;
}

bool pulls_cancel(struct pulls *pulls, const char *id)
{
    struct pull *pull = find(pulls, id);
    if (pull != NULL && !pull__over(pull))
        pull__end(pull, PULL_CANCELLED, "cancelled");
    return pull != NULL;
}

/* ---- life ---- */

static void part_drain(void *arg)
{
    struct pulls *pulls = arg;
    pulls->stopping = true;
    for (struct pull *pull = pulls->newest; pull != NULL; pull = pull->next) {
        if (!pull__over(pull))
            pull__end(pull, PULL_CANCELLED, "the agent stops");
    }
}

static void part_close(void *arg)
{
    struct pulls *pulls = arg;
    part_drain(pulls);
    uv_close((uv_handle_t *)&pulls->timer, NULL);
}

int pulls_new(const struct pulls_config *config, struct pulls **out)
{
    struct pulls *pulls = loop_alloc(NULL, NULL, sizeof *pulls);
    if (pulls == NULL)
        return E_NO_MEMORY;
    *pulls = (struct pulls){.config = *config};
    int uv_error = uv_timer_init(&config->loop->uv, &pulls->timer);
    if (uv_error != 0) {
        (void)loop_alloc(NULL, pulls, 0);
        return loop_uv_error(uv_error);
    }
    pulls->timer.data = pulls;
    pulls->part =
        (struct loop_part){.name = "pulls", .arg = pulls, .drain = part_drain, .close = part_close};
    loop_add_part(config->loop, &pulls->part);
    *out = pulls;
    return 0;
}

void pulls_free(struct pulls *pulls)
{
    if (pulls == NULL)
        return;
    while (pulls->newest != NULL) {
        struct pull *pull = pulls->newest;
        pulls->newest = pull->next;
        pull_free(pull);
    }
    (void)loop_alloc(NULL, pulls, 0);
}

void pulls_counters(const struct pulls *pulls, struct pulls_counters *out)
{
    *out = pulls->counters;
}
