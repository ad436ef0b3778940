/* SPDX-License-Identifier: Apache-2.0 */
/* `shoal doctor`: runs the checks of doctor.h in order and shows what they found. */
#include <string.h>

#include "cli.h"
#include "cli_control.h"
#include "control_socket.h"
#include "doctor.h"
#include "loop.h"

#define ASK_MS 5000

/* Large: on the heap, in one piece. */
struct whole {
    struct config_options options;
    struct config config;
    struct config_error error;
    struct doctor_report report;
    struct doctor doctor;
    bool json;
};

static int take_arguments(const struct cli_context *context, int argc, char **argv,
                          struct whole *out)
{
    for (int i = 1; i < argc; i++) {
        int taken = cli_config_option(context, "doctor", argc, argv, &i, &out->options);
        if (taken < 0)
            return -taken;
        if (taken > 0)
            continue;
        if (strcmp(argv[i], "--json") == 0)
            out->json = true;
        else if (strcmp(argv[i], "--root") == 0 && i + 1 < argc && argv[i + 1][0] == '/')
            out->doctor.root = argv[++i];
        else
            return cli_usage(context, "doctor", "unknown argument \"%s\"", argv[i]);
    }
    return CLI_OK;
}

/* What the agent says of itself; NULL: nothing, and a finding says why. */
static json_t *ask_agent(struct whole *whole)
{
    char path[CONFIG_PATH_BYTES + 16];
    struct control_answer answer;
    json_t *status = NULL;
    whole->report.check = "agent";
    int err = control_get(control_path(&whole->config, path), "/status", ASK_MS, &answer);
    if (err == 0) {
        status = json_loadb(answer.body, answer.body_bytes, 0, NULL);
        control_answer_free(&answer);
    }
    if (json_is_object(status)) {
        doctor_add(&whole->report, FINDING_OK, path, "", "runs and answers");
        return status;
    }
    json_decref(status);
    doctor_add(&whole->report, FINDING_ERROR, path,
               "what follows was looked at without the agent's word", "%s",
               control_error_text(err == 0 ? E_PROTOCOL : err));
    return NULL;
}

static void look(struct whole *whole)
{
    struct doctor *doctor = &whole->doctor;
    const char *file = whole->config.file.text;
    whole->report.check = "config";
    bool good = config_verify(&whole->config, &whole->error) == 0;
    doctor_add(&whole->report, good ? FINDING_OK : FINDING_ERROR, file,
               good ? "" : "the agent does not start with it: correct it", "%s",
               good ? "can be used" : whole->error.text);
    json_t *status = ask_agent(whole);
    doctor->config = &whole->config;
    doctor->status = status;
    doctor_secret(doctor);
    doctor_disk(doctor);
    doctor_ports(doctor);
    doctor_inbound(doctor);
    doctor_peers(doctor);
    doctor_registries(doctor);
    doctor_runtime(doctor);
    json_decref(status);
}

static int show(const struct cli_context *context, const struct whole *whole)
{
    int code = CLI_OK;
    if (whole->json) {
        json_t *report = doctor_json(&whole->report);
        code = report == NULL ? cli_failed(context, "doctor", "%s", err_text(E_NO_MEMORY))
                              : cli_control_print(context, "doctor", report, JSON_INDENT(2));
        json_decref(report);
    } else {
        doctor_text(&whole->report, context->out);
    }
    return code == CLI_OK && whole->report.errors > 0 ? CLI_FAILED : code;
}

int cli_doctor(const struct cli_context *context, int argc, char **argv)
{
    struct whole *whole = loop_alloc(NULL, NULL, sizeof *whole);
    if (whole == NULL)
        return cli_failed(context, "doctor", "%s", err_text(E_NO_MEMORY));
    memset(whole, 0, sizeof *whole);
    whole->options.environment = context->environment;
    whole->doctor = (struct doctor){
        .context = context, .options = &whole->options, .root = "", .report = &whole->report};
    int code = take_arguments(context, argc, argv, whole);
    if (code == CLI_OK) {
        if (config_load(&whole->options, &whole->config, &whole->error) == 0) {
            look(whole);
            config_close(&whole->config);
        } else {
            whole->report.check = "config";
            doctor_add(&whole->report, FINDING_ERROR,
                       whole->options.file == NULL ? "" : whole->options.file,
                       "correct it; nothing else can be looked at", "%s", whole->error.text);
        }
        code = show(context, whole);
    }
    (void)loop_alloc(NULL, whole, 0);
    return code;
}
