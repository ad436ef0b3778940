/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metadata services of the clouds as sources of topology labels (ACR.md §5): Alibaba's ECS through
 * registry/acr_metadata.c, AWS (IMDSv2), Google and Azure. The latter three stand at one address:
 * what none of them would answer is another cloud's.
 */
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "log.h"
#include "topology_internal.h"

#define URL_BYTES (CONFIG_TEXT_BYTES + 128)

/* ---- Alibaba ---- */

/* In the order of struct topology, so that a zone is there even if the service stops answering. */
static const char *const ecs_paths[] = {"zone-id", "region-id", "vswitch-id"};

static struct label *ecs_label(struct topology_detect *detect)
{
    struct label *labels[] = {&detect->found.zone, &detect->found.region, &detect->found.vswitch};
    return labels[detect->step];
}

static void on_ecs(void *arg, int err, const char *text);

static int ecs_next(struct topology_detect *detect)
{
    return acr_metadata_get(detect->ecs, detect->host.now_us(detect->host.arg),
                            ecs_paths[detect->step], on_ecs, detect);
}

static void on_ecs(void *arg, int err, const char *text)
{
    struct topology_detect *detect = arg;
    if (err == 0)
        err = topology_label(ecs_label(detect), text);
    /* Without a zone this is not the service; the others may be missing (no VPC). */
    if (detect->step == 0 && err != 0) {
        topology__done(detect, err == E_MALFORMED ? E_NOT_FOUND : err);
        return;
    }
    detect->step++;
    bool more = detect->step < sizeof ecs_paths / sizeof ecs_paths[0];
    if (!more || ecs_next(detect) != 0)
        topology__done(detect, 0);
}

int topology__ecs(struct topology_detect *detect)
{
    const struct acr_metadata_config config = {.url = detect->config->topology_ecs_url.text};
    int err = detect->ecs != NULL
                  ? 0
                  : acr_metadata_new(&detect->env, &detect->engine, &config, &detect->ecs);
    if (err == 0)
        err = ecs_next(detect);
    return err == 0 ? E_AGAIN : err;
}

/* ---- one request at the clouds' common address ---- */

static int ask(struct topology_detect *detect, const char *method, const char *path,
               const struct fetch_header *header, void (*done)(struct topology_detect *detect))
{
    char url[URL_BYTES];
    const char *base = detect->config->topology_cloud_url.text;
    int written = snprintf(url, sizeof url, "%s%s", base, path);
    struct fetch_request request = {
        .method = method, .url = url, .allow_metadata = true, .header_count = 1};
    request.headers[0] = *header;
    if (written < 0 || (size_t)written >= sizeof url)
        return E_TOO_LARGE;
    return topology__ask(detect, &request, done);
}

/* Nobody there: the other two clouds need not be tried in this round. */
static int link_local_result(struct topology_detect *detect)
{
    int err = topology__ask_result(&detect->ask);
    detect->no_link_local = detect->ask.err != 0 && detect->ask.status == 0;
    return err;
}

/* ---- AWS ---- */

enum aws_step {
    AWS_TOKEN,
    AWS_ZONE,
    AWS_REGION,
    AWS_MAC,
    AWS_SUBNET,
    AWS_END,
};

static void on_aws(struct topology_detect *detect);

static int aws_ask(struct topology_detect *detect)
{
    static const struct fetch_header life = {"X-aws-ec2-metadata-token-ttl-seconds", "60"};
    const struct fetch_header token = {"X-aws-ec2-metadata-token", detect->token};
    char path[128];
    switch ((enum aws_step)detect->step) {
    case AWS_TOKEN:
        return ask(detect, "PUT", "/latest/api/token", &life, on_aws);
    case AWS_ZONE:
        return ask(detect, "GET", "/latest/meta-data/placement/availability-zone", &token, on_aws);
    case AWS_REGION:
        return ask(detect, "GET", "/latest/meta-data/placement/region", &token, on_aws);
    case AWS_MAC:
        return ask(detect, "GET", "/latest/meta-data/mac", &token, on_aws);
    case AWS_SUBNET:
        (void)snprintf(path, sizeof path, "/latest/meta-data/network/interfaces/macs/%s/subnet-id",
                       detect->mac);
        return ask(detect, "GET", path, &token, on_aws);
    default:
        return 0;
    }
}

/* Text that may be sent back: printable, without blanks. */
static int take_text(const struct topology_ask *ask, const char *allowed, char *out,
                     size_t out_bytes)
{
    size_t bytes = strcspn(ask->body, "\r\n");
    for (size_t i = 0; i < bytes; i++) {
        bool fits = allowed == NULL ? ask->body[i] > ' ' && ask->body[i] < 0x7f
                                    : strchr(allowed, ask->body[i]) != NULL;
        if (!fits)
            return E_MALFORMED;
    }
    return bytes == 0 || text_copy_n(out, out_bytes, ask->body, bytes) != 0 ? E_MALFORMED : 0;
}

/* Takes the answer of one step. */
static int aws_take(struct topology_detect *detect)
{
    const struct topology_ask *answer = &detect->ask;
    switch ((enum aws_step)detect->step) {
    case AWS_TOKEN:
        return take_text(answer, NULL, detect->token, sizeof detect->token);
    case AWS_ZONE:
        return topology_label(&detect->found.zone, answer->body);
    case AWS_REGION:
        return topology_label(&detect->found.region, answer->body);
    case AWS_MAC:
        return take_text(answer, "0123456789abcdefABCDEF:", detect->mac, sizeof detect->mac);
    default:
        return topology_label(&detect->found.vswitch, answer->body);
    }
}

static void on_aws(struct topology_detect *detect)
{
    bool needed = detect->step <= AWS_ZONE;
    int err = link_local_result(detect);
    if (err == 0 && aws_take(detect) != 0)
        err = E_NOT_FOUND;
    if (err != 0 && needed) {
        topology__done(detect, err);
        return;
    }
    detect->step += err != 0 && detect->step == AWS_MAC ? 2 : 1;
    err = aws_ask(detect);
    if (err != E_AGAIN)
        topology__done(detect, detect->found.zone.text[0] != '\0' ? 0 : err);
}

int topology__aws(struct topology_detect *detect)
{
    return aws_ask(detect);
}

/* ---- Google ---- */

static void on_gcp(struct topology_detect *detect)
{
    int err = link_local_result(detect);
    if (err == 0 &&
        (!detect->ask.google || topology_parse_gcp(detect->ask.body, &detect->found) != 0))
        err = E_NOT_FOUND;
    topology__done(detect, err);
}

int topology__gcp(struct topology_detect *detect)
{
    static const struct fetch_header flavor = {"Metadata-Flavor", "Google"};
    return ask(detect, "GET", "/computeMetadata/v1/instance/zone", &flavor, on_gcp);
}

/* ---- Azure ---- */

static void on_azure(struct topology_detect *detect)
{
    const struct topology_ask *answer = &detect->ask;
    int err = link_local_result(detect);
    if (err == 0 && topology_parse_azure(answer->body, answer->body_bytes, &detect->found) != 0)
        err = E_NOT_FOUND;
    topology__done(detect, err);
}

int topology__azure(struct topology_detect *detect)
{
    static const struct fetch_header metadata = {"Metadata", "true"};
    return ask(detect, "GET", "/metadata/instance/compute?api-version=2021-02-01&format=json",
               &metadata, on_azure);
}
