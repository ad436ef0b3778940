/* SPDX-License-Identifier: Apache-2.0 */
/* What src/registry/acr_* needs of the daemon; see acr_part.h. */
#include "acr_part.h"

#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "log.h"
#include "secret_file.h"

/* In dataDir: what was found, without any secret. */
#define MEMORY_FILE "acr-endpoints"

/* Where ACK's webhook mounts the pod's token (ACR.md §4.2). */
#define TOKEN_FILE "/var/run/secrets/ack.alibabacloud.com/rrsa-tokens/token"

/* What was found, on its way to the disk; owned by the part. */
struct save {
    struct loop_work work;
    char path[CONFIG_PATH_BYTES + sizeof MEMORY_FILE];
    char *text; /* owned while `running` */
    size_t text_bytes;
    int err;
    bool running, again;
};

struct acr_part {
    struct loop *loop;
    struct loop_part part;
    struct acr *acr;
    uv_timer_t timer;
    struct save save;
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

/* ---- over a restart ---- */

static void save_run(struct loop_work *work)
{
    struct save *save = (struct save *)work;
    save->err = file_write_atomic(save->path, 0600, save->text, save->text_bytes);
}

static void learnt(void *host);

static void save_done(struct loop_work *work, int status)
{
    struct save *save = (struct save *)work;
    struct acr_part *part =
        (struct acr_part *)(void *)((char *)save - offsetof(struct acr_part, save));
    save->text = loop_alloc(NULL, save->text, 0);
    save->running = false;
    if (status == 0 && save->err != 0)
        log_to(&part->loop->env, LOG_WARN,
               "acr: cannot write %s: %s; a restart without the cloud's APIs knows no instance",
               save->path, err_text(save->err));
    if (save->again)
        learnt(part);
}

/* A write that runs is followed by one of what is known then. */
static void learnt(void *host)
{
    struct acr_part *part = host;
    struct save *save = &part->save;
    save->again = save->running && !part->closed;
    if (save->running || part->closed)
        return;
    int err = acr_remember(part->acr, &save->text, &save->text_bytes);
    if (err == 0) {
        save->running = true;
        save->work.run = save_run;
        save->work.done = save_done;
        err = loop_submit(part->loop, &save->work);
    }
    if (err == 0)
        return;
    save->running = false; /* the next round is in ten minutes */
    save->text = loop_alloc(NULL, save->text, 0);
    log_to(&part->loop->env, LOG_WARN, "acr: what was found is not kept: %s", err_text(err));
}

/* At the start, before the loop runs: a file of at most 256 KiB. */
static void recall(struct acr_part *part)
{
    char *text;
    size_t bytes;
    int err = file_read_whole(part->save.path, ACR_MEMORY_BYTES_MAX, &text, &bytes);
    if (err == 0) {
        err = acr_recall(part->acr, text, bytes);
        (void)loop_alloc(NULL, text, 0);
    }
    if (err != 0 && err != E_NOT_FOUND)
        log_to(&part->loop->env, LOG_WARN, "acr: %s is of no use: %s; the cloud's APIs are asked",
               part->save.path, err_text(err));
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
    struct acr_host host = {part, set_timer, wall_s, read_file, learnt};
    (void)snprintf(part->save.path, sizeof part->save.path, "%s/" MEMORY_FILE,
                   config->data_dir.text);
    translate(config, &settings);
    (void)uv_timer_init(&loop->uv, &part->timer);
    part->timer.data = part;
    part->part = (struct loop_part){.name = "acr", .arg = part, .close = part_close};
    loop_add_part(loop, &part->part);
    *out = part; /* also on error: the loop's close phase needs it */
    int err = acr_new(&loop->env, engine, &host, &settings, &part->acr);
    if (err == 0)
        recall(part);
    return err;
}

struct acr *acr_part_acr(const struct acr_part *part)
{
    return part == NULL ? NULL : part->acr;
}

void acr_part_free(struct acr_part *part)
{
    if (part != NULL) {
        acr_free(part->acr);
        (void)loop_alloc(NULL, part->save.text, 0);
    }
    (void)loop_alloc(NULL, part, 0);
}
