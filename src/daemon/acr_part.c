/* SPDX-License-Identifier: Apache-2.0 */
/* What src/registry/acr_* needs of the daemon; see acr_part.h. */
#include "acr_part.h"

#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "log.h"
#include "secret_file.h"

/* Where ACK's webhook mounts the pod's token (ACR.md §4.2). */
#define TOKEN_FILE "/var/run/secrets/ack.alibabacloud.com/rrsa-tokens/token"

struct acr_part {
    struct loop *loop;
    struct loop_part part;
    struct acr *acr;
    uv_timer_t timer;
    bool closed;
};

static void on_timer(uv_timer_t *timer)
{
    struct acr_part *part = timer->data;
    acr_advance(part->acr, loop_now_us(part->loop));
}

static void set_timer(void *host, uint64_t delay_us)
{
    struct acr_part *part = host;
    if (!part->closed)
        (void)uv_timer_start(&part->timer, on_timer, (delay_us + 999) / 1000, 0);
}

static uint64_t wall_s(void *host)
{
    (void)host;
    return loop_wall_s();
}

static int read_file(void *host, const char *path, bool secret, struct acr_file *out)
{
    struct config_error error = {""};
    int err = text_file_read(path, secret, out->bytes, out->room, &error);
    (void)host;
    (void)snprintf(out->why, sizeof out->why, "%.255s", error.text);
    return err;
}

static void part_close(void *arg)
{
    struct acr_part *part = arg;
    if (part->acr != NULL)
        acr_stop(part->acr); /* its entries are still held */
    part->closed = true;
    uv_close((uv_handle_t *)&part->timer, NULL);
}

/* ---- settings ---- */

static bool is_there(const struct acr_config *config, const char *instance)
{
    for (unsigned i = 0; i < config->instance_count; i++)
        if (strcmp(config->instances[i], instance) == 0)
            return true;
    return false;
}

static const char *or_else(const char *value, const char *otherwise)
{
    return value[0] != '\0' ? value : otherwise;
}

/* The vendor's switches (ACR.md §4.1) say "true". */
static bool switched_on(const struct config *config, const char *variable)
{
    return strcmp(config_environment(config, variable), "true") == 0;
}

static void translate(const struct config *from, struct acr_config *out)
{
    *out = (struct acr_config){
        .region = from->acr_region.text,
        .vpc = from->acr_vpc.text,
        .keys_from = from->rrsa_enable                       ? ACR_KEYS_RRSA
                     : from->access_key_file.text[0] != '\0' ? ACR_KEYS_FILE
                                                             : ACR_KEYS_ROLE,
        .access_key_file = from->access_key_file.text,
        .ram_role = config_environment(from, "ALIBABA_CLOUD_ECS_METADATA"),
        .role_arn =
            or_else(from->rrsa_role.text, config_environment(from, "ALIBABA_CLOUD_ROLE_ARN")),
        .provider_arn = or_else(from->rrsa_provider.text,
                                config_environment(from, "ALIBABA_CLOUD_OIDC_PROVIDER_ARN")),
        .token_file =
            or_else(from->rrsa_token_file.text,
                    or_else(config_environment(from, "ALIBABA_CLOUD_OIDC_TOKEN_FILE"), TOKEN_FILE)),
        .assume_role_arn = from->rrsa_assume_role.text,
        .assume_role_s = (uint32_t)(from->rrsa_duration_us / 1000000),
        .metadata_off = switched_on(from, "ALIBABA_CLOUD_ECS_METADATA_DISABLED"),
        .token_required = switched_on(from, "ALIBABA_CLOUD_IMDSV1_DISABLED"),
        .sts_host = config_environment(from, "ALIBABA_CLOUD_STS_ENDPOINT"),
        .sign_v1 = from->acr_signature == CONFIG_SIGNATURE_V1,
        .cr_url = from->acr_cr_url.text,
        .sts_url = from->acr_sts_url.text,
        .metadata_url = from->acr_metadata_url.text,
        .registry_plain_http = from->acr_plain_http,
    };
    for (uint32_t i = 0; i < from->acr_instance_count; i++)
        if (!is_there(out, from->acr_instances[i].text))
            out->instances[out->instance_count++] = from->acr_instances[i].text;
}
static_assert(CONFIG_INSTANCES_MAX <= ACR_INSTANCES_MAX, "every configured instance has a place");

/* ---- public ---- */

int acr_part_new(struct loop *loop, const struct config *config, const struct fetch_engine *engine,
                 struct acr_part **out)
{
    struct acr_config settings;
    *out = NULL;
    if (config->acr_instance_count == 0)
        return 0;
    struct acr_part *part = loop_alloc(NULL, NULL, sizeof *part);
    if (part == NULL)
        return E_NO_MEMORY;
    *part = (struct acr_part){.loop = loop};
    struct acr_host host = {part, set_timer, wall_s, read_file};
    translate(config, &settings);
    (void)uv_timer_init(&loop->uv, &part->timer);
    part->timer.data = part;
    part->part = (struct loop_part){.name = "acr", .arg = part, .close = part_close};
    loop_add_part(loop, &part->part);
    *out = part; /* also on error: the loop's close phase needs it */
    return acr_new(&loop->env, engine, &host, &settings, &part->acr);
}

struct acr *acr_part_acr(const struct acr_part *part)
{
    return part == NULL ? NULL : part->acr;
}

void acr_part_free(struct acr_part *part)
{
    if (part != NULL)
        acr_free(part->acr);
    (void)loop_alloc(NULL, part, 0);
}
