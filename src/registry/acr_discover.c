/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rounds of questions about the configured instances (ACR.md §1, §2): where are we, with which
 * keys, which endpoints has each instance, and which of them may our VPC use. One question at a
 * time. What was found before stays in force until something better is known: losing the cloud's
 * APIs stops nothing.
 */
#include "acr_discover.h"

#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "json_bounded.h"
#include "log.h"

#define SECOND_US  UINT64_C(1000000)
#define CR_VERSION "2018-12-01"
/* ACR.md §2. Nodes started together ask a tenth apart. */
#define ROUND_US (600 * SECOND_US)
#define HURRY_US (30 * SECOND_US)
/* Steps of one acr_advance; each ends in a wait sooner or later. */
#define STEPS_MAX 1024

/* ---- what people read ---- */

static void why_set(struct acr *acr, unsigned i, const char *why)
{
    struct acr_instance *instance = &acr->instances[i];

    if (strcmp(instance->why, why) == 0)
        return;
    (void)snprintf(instance->why, sizeof instance->why, "%s", why);
    if (why[0] != '\0')
        log_to(&acr->env, LOG_WARN, "acr: instance=%s %s%s", instance->id, why,
               instance->endpoint[0] == '\0' ? "" : "; the last good answer stays in force");
}

/* The usual mistakes of an installation, said so that they can be undone. */
static void why_put(const struct acr *acr, int err, char out[ACR_REASON_BYTES])
{
    const char *why = acr->api.why, *action = acr->question.action;

    if (err == E_DENIED)
        (void)snprintf(out, ACR_REASON_BYTES,
                       "the permission cr:%s is missing: allow cr:ListInstanceEndpoint and "
                       "cr:GetInstanceVpcEndpoint on * in the RAM policy (%.250s)",
                       action, why);
    else if (err == E_NOT_FOUND)
        (void)snprintf(out, ACR_REASON_BYTES,
                       "does not exist in region %s, or does not run: check acrInstances and "
                       "region (%.250s)",
                       acr->region, why);
    else if (err == E_AUTH)
        (void)snprintf(out, ACR_REASON_BYTES,
                       "the credentials are not accepted: check key or role (%.350s)", why);
    else if (strncmp(acr->api.error.code, "InvalidTimeStamp", 16) == 0)
        (void)snprintf(out, ACR_REASON_BYTES,
                       "this node's clock is wrong: check its time service (%.250s)", why);
    else
        (void)snprintf(out, ACR_REASON_BYTES, "not found out: %.350s", why);
}

/* ---- a round's frame ---- */

static void phase_set(struct acr *acr, enum acr_phase phase)
{
    acr->phase = phase;
    acr->asked = acr->told = false;
}

static bool permanent(int err)
{
    return err == E_DENIED || err == E_NOT_FOUND || err == E_AUTH;
}

static void round_begin(struct acr *acr)
{
    acr->counters.rounds++;
    acr->in_round = true;
    acr->reauthorised = acr->round_failed = acr->round_hurry = acr->round_learnt = false;
    acr->settled = 0;
    acr->at = acr->first;
    if (acr->config.keys_from == ACR_KEYS_FILE)
        acr->credentials.refresh_us = 0; /* its owner may have changed it */
    phase_set(acr, acr->region[0] == '\0' ? ACR_REGION : ACR_VPC);
}

static void round_end(struct acr *acr, uint64_t now_us)
{
    uint64_t us = acr->round_hurry ? HURRY_US : ROUND_US;

    acr->counters.rounds_failed += acr->round_failed;
    if (acr->round_learnt && acr->api.host.learnt != NULL)
        acr->api.host.learnt(acr->api.host.host);
    acr->in_round = false;
    acr->round_us = now_us + us + acr__random_below(&acr->env, us / 10);
    phase_set(acr, ACR_REST);
}

/* Nothing can be found out about any instance. */
static void round_fail(struct acr *acr, uint64_t now_us, int err, const char *why)
{
    for (unsigned i = 0; i < acr->config.instance_count; i++)
        why_set(acr, i, why);
    acr->round_failed = true;
    acr->round_hurry = !permanent(err);
    round_end(acr, now_us);
}

static void instance_next(struct acr *acr, uint64_t now_us)
{
    acr->at = (acr->at + 1) % acr->config.instance_count;
    if (++acr->settled == acr->config.instance_count)
        round_end(acr, now_us);
    else
        phase_set(acr, ACR_LIST);
}

/* ---- where we are ---- */

static void on_region(void *arg, int err, const char *text)
{
    struct acr *acr = arg;

    acr->told = true;
    acr->api.host.timer(acr->api.host.host, 0);
    if (err != 0 || text_copy(acr->region, sizeof acr->region, text) != 0 ||
        strspn(acr->region, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(acr->region))
        acr->region[0] = '\0';
}

static void on_vpc(void *arg, int err, const char *text)
{
    struct acr *acr = arg;

    acr->told = true;
    acr->api.host.timer(acr->api.host.host, 0);
    if (err != 0 || strncmp(text, "vpc-", 4) != 0 ||
        text_copy(acr->vpc, sizeof acr->vpc, text) != 0)
        acr->vpc[0] = '\0';
}

/* True when there is an answer, or none to wait for. */
static bool metadata_ask(struct acr *acr, uint64_t now_us, const char *path,
                         acr_metadata_done_fn done)
{
    if (acr->asked)
        return acr->told;
    acr->asked = true;
    return acr->metadata == NULL || acr_metadata_get(acr->metadata, now_us, path, done, acr) != 0;
}

/* Regions without a VPC host of this API (ACR.md §2). */
static bool public_only(const char *region)
{
    static const char *const list[] = {"cn-huhehaote", "cn-wulanchabu", "cn-heyuan"};

    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
        if (strcmp(list[i], region) == 0)
            return true;
    return false;
}

/* The services' hosts, once the region is known. */
static void services_place(struct acr *acr)
{
    char host[HOST_BYTES_MAX + 1];

    acr->cr = (struct acr_service){.count = 0};
    acr__credentials_place(&acr->credentials, acr->region);
    if (acr->config.cr_url[0] != '\0') {
        acr__service_add(&acr->cr, "", acr->config.cr_url);
        return;
    }
    (void)snprintf(host, sizeof host, "cr-vpc.%s.aliyuncs.com", acr->region);
    if (!public_only(acr->region))
        acr__service_add(&acr->cr, "https://", host);
    (void)snprintf(host, sizeof host, "cr.%s.aliyuncs.com", acr->region);
    acr__service_add(&acr->cr, "https://", host);
}

static bool step_region(struct acr *acr, uint64_t now_us)
{
    if (!metadata_ask(acr, now_us, "region-id", on_region))
        return false;
    if (acr->region[0] == '\0')
        round_fail(acr, now_us, E_UNREACHABLE,
                   "the region is not known: the metadata service does not tell it; set region");
    else
        phase_set(acr, ACR_VPC);
    return true;
}

static bool step_vpc(struct acr *acr, uint64_t now_us)
{
    if (acr->vpc[0] == '\0' && !metadata_ask(acr, now_us, "vpc-id", on_vpc))
        return false;
    if (acr->cr.count == 0)
        services_place(acr);
    phase_set(acr, ACR_KEYS);
    return true;
}

/* ---- credentials ---- */

static bool step_keys(struct acr *acr, uint64_t now_us)
{
    struct acr_credentials *credentials = &acr->credentials;
    int err = 0;

    if (acr->asked || acr__credentials_due(credentials, now_us)) {
        acr->asked = true;
        err = acr__credentials_poll(credentials, now_us);
    }
    if (err == E_AGAIN)
        return false;
    bool valid = acr__credentials_valid(credentials, now_us);
    if (err != 0 && (valid || !acr->in_round))
        log_to(&acr->env, LOG_WARN, "acr: %s%s", credentials->why,
               valid ? "; the old ones are still valid" : "");
    if (!acr->in_round)
        phase_set(acr, ACR_REST);
    else if (valid)
        phase_set(acr, ACR_LIST);
    else
        round_fail(acr, now_us, E_UNREACHABLE, credentials->why);
    return true;
}

/* ---- one instance ---- */

static void question_ask(struct acr *acr, uint64_t now_us, const char *action)
{
    bool list = acr->phase == ACR_LIST;

    acr->asked = true;
    acr->question = (struct acr_question){
        .service = &acr->cr,
        .action = action,
        .version = CR_VERSION,
        .params = {{"InstanceId", acr->instances[acr->at].id},
                   {"ModuleName", "Registry"},
                   {"Summary", "true"}},
        .param_count = list ? 3 : 2,
        .keys = acr->credentials.keys,
    };
    acr__api_ask(&acr->api, now_us, &acr->question);
}

/* Refused keys are fetched anew, once in a round; then the same instance is asked about again. */
static bool reauthorise(struct acr *acr, int err)
{
    if (err != E_AUTH || acr->reauthorised)
        return false;
    acr->reauthorised = true;
    acr__credentials_drop(&acr->credentials);
    phase_set(acr, ACR_KEYS);
    return true;
}

static bool no_answer(int err)
{
    return err == E_UNREACHABLE || err == E_TIMEOUT || err == E_TLS || err == E_CLOSED ||
           err == E_REFUSED;
}

static void instance_fail(struct acr *acr, uint64_t now_us, int err)
{
    char why[ACR_REASON_BYTES];

    why_put(acr, err, why);
    acr->round_failed = true;
    acr->round_hurry = acr->round_hurry || !permanent(err);
    if (err == E_NOT_FOUND) {
        acr__hosts_drop(acr, acr->at);
        acr->round_learnt = true;
    }
    if (no_answer(err)) {
        /* All instances have one API: the others wait for the next round, which begins with them,
         * so that one that is never answered does not keep them from it. */
        acr->first = (acr->at + 1) % acr->config.instance_count;
        why_set(acr, acr->at, why);
        for (unsigned i = 0; i < acr->config.instance_count; i++)
            if (acr->instances[i].answered_us == 0)
                why_set(acr, i, why);
        round_end(acr, now_us);
        return;
    }
    why_set(acr, acr->at, why);
    instance_next(acr, now_us);
}

/* Both answers are there, or the first one and why the second is not: `note`, "" if it is. */
static void instance_settle(struct acr *acr, uint64_t now_us, const char *note)
{
    struct acr_instance *instance = &acr->instances[acr->at];
    const struct acr_endpoints *found = &acr->found;
    const char *host = found->vpc_open && found->vpc_host[0] != '\0' ? found->vpc_host
                       : found->public_open                          ? found->public_host
                                                                     : "";
    char before[ACR_HOST_URL_BYTES], why[ACR_REASON_BYTES];

    memcpy(before, instance->endpoint, sizeof before);
    instance->answered_us = now_us;
    if (host[0] == '\0') {
        (void)snprintf(why, sizeof why,
                       "cannot be reached from here: %s, and its public endpoint is off: link the "
                       "VPC to the instance or switch the public endpoint on%s%.200s",
                       found->vpc_why, note[0] == '\0' ? "" : "; ", note);
        acr->round_failed = true;
        why_set(acr, acr->at, why);
        instance_next(acr, now_us);
        return;
    }
    instance->answered_s = acr->api.host.wall_s(acr->api.host.host);
    memcpy(instance->region, acr->region, sizeof instance->region);
    memcpy(instance->vpc, acr->vpc, sizeof instance->vpc);
    acr->round_learnt = true;
    acr__hosts_put(acr, acr->at, found, host);
    why_set(acr, acr->at, note);
    if (strcmp(before, instance->endpoint) != 0)
        log_to(&acr->env, LOG_INFO, "acr: instance=%s endpoint=%s vpc=%d hosts=%u%s%s",
               instance->id, instance->endpoint, (int)instance->through_vpc, instance->host_count,
               instance->through_vpc ? "" : " because ",
               instance->through_vpc ? "" : found->vpc_why);
    instance_next(acr, now_us);
}

static bool step_list(struct acr *acr, uint64_t now_us)
{
    int err;

    if (!acr->asked)
        question_ask(acr, now_us, "ListInstanceEndpoint");
    err = acr__api_poll(&acr->api, now_us);
    if (err == E_AGAIN)
        return false;
    if (err == 0) {
        err = acr__endpoints_parse(acr->api.call.body, acr->api.call.body_bytes, acr->vpc,
                                   &acr->found);
        acr__call_wipe(&acr->api.call);
        if (err != 0)
            (void)snprintf(acr->api.why, sizeof acr->api.why, "ListInstanceEndpoint: %s",
                           err_text(err));
    }
    if (err == 0)
        phase_set(acr, ACR_LINK);
    else if (!reauthorise(acr, err))
        instance_fail(acr, now_us, err);
    return true;
}

static bool step_link(struct acr *acr, uint64_t now_us)
{
    char note[ACR_REASON_BYTES] = "";
    int err;

    if (!acr->asked)
        question_ask(acr, now_us, "GetInstanceVpcEndpoint");
    err = acr__api_poll(&acr->api, now_us);
    if (err == E_AGAIN)
        return false;
    if (err == 0) {
        err = acr__vpc_link_parse(acr->api.call.body, acr->api.call.body_bytes, acr->vpc,
                                  &acr->found);
        acr__call_wipe(&acr->api.call);
        if (err != 0)
            (void)snprintf(acr->api.why, sizeof acr->api.why, "GetInstanceVpcEndpoint: %s",
                           err_text(err));
    }
    if (err == 0) {
        instance_settle(acr, now_us, note);
    } else if (err == E_DENIED) {
        /* The usual mistake: the stock worker role lacks this one. The list told enough to go on.
         */
        why_put(acr, err, note);
        acr->round_failed = true;
        instance_settle(acr, now_us, note);
    } else if (!reauthorise(acr, err)) {
        instance_fail(acr, now_us, err);
    }
    return true;
}

/* ---- time ---- */

static bool step_rest(struct acr *acr, uint64_t now_us)
{
    bool keys = acr->credentials.have && acr__credentials_due(&acr->credentials, now_us);

    if (now_us >= acr->round_us)
        round_begin(acr);
    else if (keys)
        phase_set(acr, ACR_KEYS);
    return acr->phase != ACR_REST;
}

/* True if the next step may be taken at once. */
static bool step(struct acr *acr, uint64_t now_us)
{
    switch (acr->phase) {
    case ACR_REST:
        return step_rest(acr, now_us);
    case ACR_REGION:
        return step_region(acr, now_us);
    case ACR_VPC:
        return step_vpc(acr, now_us);
    case ACR_KEYS:
        return step_keys(acr, now_us);
    case ACR_LIST:
        return step_list(acr, now_us);
    case ACR_LINK:
        return step_link(acr, now_us);
    }
    return false;
}

/* What nobody else wakes us for; ACR_NEVER: an answer will. */
static uint64_t due_us(const struct acr *acr)
{
    uint64_t due = acr->api.due_us;

    if (acr->phase != ACR_REST)
        return due;
    due = acr->round_us;
    if (acr->credentials.have && acr->credentials.refresh_us < due)
        due = acr->credentials.refresh_us;
    return due;
}

void acr_advance(struct acr *acr, uint64_t now_us)
{
    uint64_t due;
    unsigned steps = 0;

    while (step(acr, now_us) && steps < STEPS_MAX)
        steps++;
    due = due_us(acr);
    if (steps == STEPS_MAX)
        due = now_us;
    if (due != ACR_NEVER)
        acr->api.host.timer(acr->api.host.host, due > now_us ? due - now_us : 0);
}

/* ---- life ---- */

static int metadata_open(struct acr *acr, const struct fetch_engine *engine)
{
    struct acr_metadata_config config = {.url = acr->config.metadata_url,
                                         .token_required = acr->config.token_required};

    if (acr->config.metadata_off)
        return 0;
    return acr_metadata_new(&acr->env, engine, &config, &acr->metadata);
}

int acr_new(const struct env *env, const struct fetch_engine *engine, const struct acr_host *host,
            const struct acr_config *config, struct acr **out)
{
    struct acr *acr = env->alloc(env->host, NULL, sizeof *acr);
    int err;

    if (acr == NULL)
        return E_NO_MEMORY;
    json__wipe_freed();
    memset(acr, 0, sizeof *acr);
    acr->env = *env;
    acr->config = *config;
    acr->phase = ACR_REST;
    for (unsigned i = 0; i < config->instance_count; i++)
        acr->instances[i].id = config->instances[i];
    err = metadata_open(acr, engine);
    if (err == 0)
        err = text_copy(acr->region, sizeof acr->region, config->region);
    if (err == 0)
        err = text_copy(acr->vpc, sizeof acr->vpc, config->vpc);
    if (err == 0)
        err = acr__api_open(&acr->api, env, engine, host);
    acr->api.sign_v1 = config->sign_v1;
    if (err == 0)
        err = acr__credentials_open(&acr->credentials, env, &acr->config, &acr->api, acr->metadata);
    if (err != 0) {
        acr_free(acr);
        return err;
    }
    host->timer(host->host, 0);
    *out = acr;
    return 0;
}

void acr_stop(struct acr *acr)
{
    acr__metadata_stop(acr->metadata);
    acr__call_cancel(&acr->api.call);
}

void acr_free(struct acr *acr)
{
    struct env env;

    if (acr == NULL)
        return;
    env = acr->env;
    acr_metadata_free(acr->metadata);
    acr__credentials_close(&acr->credentials);
    acr__api_close(&acr->api);
    acr__hosts_close(acr);
    (void)env.alloc(env.host, acr, 0);
}

void acr_counters(const struct acr *acr, struct acr_counters *out)
{
    *out = acr->counters;
    out->retries = acr->api.retries;
    out->refreshes = acr->credentials.refreshes;
    out->refreshes_failed = acr->credentials.failures;
}
