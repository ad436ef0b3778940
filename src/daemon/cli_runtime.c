/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `shoal containerd|podman|docker plan|apply|revert`: the runtime's configuration (runtime.h), by
 * the agent's: its client port is the mirror, its registries are those to point at it. apply writes
 * only while our agent answers there (HRD-2).
 */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"
#include "health_probe.h"
#include "hold.h"
#include "kube_taint.h"
#include "loop.h"
#include "net.h"
#include "runtime.h"

#define STATE_ROOT   "/var/lib/shoal-runtime"
#define STATE_XDG    "shoal-runtime"
#define WAIT_MAX_S   3600
#define PROBE_MS     2000
#define HOLD_LOOK_MS 500   /* how late a stop is seen while the agent does not answer */
#define HOLD_MS      60000 /* one wait; any number works */
#define AGAIN_MS     10000 /* until API server or configuration are looked at once more */

/* Large: on the heap, in one piece. */
struct session {
    const struct cli_context *context;
    const char *command;
    struct config_options config_options;
    struct config config;
    struct config_error config_error;
    struct env env;
    struct runtime_options options;
    struct runtime_registry registries[RUNTIME_REGISTRIES_MAX];
    char state[CONFIG_PATH_BYTES];
    char mirror[PEER_ADDR_TEXT_BYTES + 8];
    struct peer_addr mirror_addr;
    const char *verb;
    uint64_t wait_ms;
    bool hold;
    const char *taint; /* key of the node's start-up taint; NULL: none */
    bool stopped;      /* a signal came while something was waited for */
    bool answered;     /* the agent did, at the last look */
    char trouble[RUNTIME_ERROR_BYTES + 32];
};

/* ---- arguments ---- */

struct option {
    const char *name;
    bool flag; /* takes no value */
    int kind;  /* enum runtime_kind that it is for; 0: all */
};
enum {
    OPTION_REGISTRY,
    OPTION_RUNTIME_CONFIG,
    OPTION_HOSTS_DIR,
    OPTION_SET_CONFIG_PATH,
    OPTION_ROOT,
    OPTION_STATE,
    OPTION_WAIT,
    OPTION_HOLD,
    OPTION_UNTAINT,
    OPTION_COUNT,
};
static const struct option option_table[OPTION_COUNT] = {
    [OPTION_REGISTRY] = {"--registry", false, 0},
    [OPTION_RUNTIME_CONFIG] = {"--runtime-config", false, 0},
    [OPTION_HOSTS_DIR] = {"--hosts-dir", false, RUNTIME_CONTAINERD},
    [OPTION_SET_CONFIG_PATH] = {"--set-config-path", true, RUNTIME_CONTAINERD},
    [OPTION_ROOT] = {"--root", false, 0},
    [OPTION_STATE] = {"--state", false, 0},
    [OPTION_WAIT] = {"--wait", false, 0},
    [OPTION_HOLD] = {"--hold", true, 0},
    [OPTION_UNTAINT] = {"--untaint", false, 0},
};

static int take_registry(struct session *session, const char *value)
{
    struct runtime_options *options = &session->options;
    if (strcmp(value, "_default") != 0 && !ref_host_valid(value, strlen(value)))
        return cli_usage(session->context, session->command, "\"%.200s\" is no registry's name",
                         value);
    if (options->registry_count == RUNTIME_REGISTRIES_MAX)
        return cli_usage(session->context, session->command, "more than %d --registry",
                         RUNTIME_REGISTRIES_MAX);
    session->registries[options->registry_count++].name = value;
    return CLI_OK;
}

static int take_wait(struct session *session, const char *value)
{
    char *end;
    unsigned long seconds = strtoul(value, &end, 10);
    if (*value < '0' || *value > '9' || *end != '\0' || seconds > WAIT_MAX_S)
        return cli_usage(session->context, session->command, "--wait takes 0 to %d seconds",
                         WAIT_MAX_S);
    session->wait_ms = seconds * 1000;
    return CLI_OK;
}

static int take_path(struct session *session, const char *name, const char *value, const char **out)
{
    if (value[0] != '/')
        return cli_usage(session->context, session->command, "%s takes an absolute path", name);
    *out = value;
    return CLI_OK;
}

static int take_option(struct session *session, int which, const char *value)
{
    const char *name = option_table[which].name;
    switch (which) {
    case OPTION_REGISTRY:
        return take_registry(session, value);
    case OPTION_RUNTIME_CONFIG:
        return take_path(session, name, value, &session->options.config_file);
    case OPTION_HOSTS_DIR:
        return take_path(session, name, value, &session->options.hosts_dir);
    case OPTION_SET_CONFIG_PATH:
        session->options.set_config_path = true;
        return CLI_OK;
    case OPTION_ROOT:
        return take_path(session, name, value, &session->options.root);
    case OPTION_STATE:
        return take_path(session, name, value, &session->options.state);
    case OPTION_HOLD:
        session->hold = true;
        return CLI_OK;
    case OPTION_UNTAINT:
        if (!kube_taint_key_valid(value))
            return cli_usage(session->context, session->command, "\"%.330s\" is no key of a taint",
                             value);
        session->taint = value;
        return CLI_OK;
    default:
        return take_wait(session, value);
    }
}

/* One word that is no option of the configuration, and its value. */
static int take_word(struct session *session, int argc, char **argv, int *index)
{
    const char *word = argv[*index];
    for (int i = 0; i < OPTION_COUNT; i++) {
        const struct option *option = &option_table[i];
        size_t bytes = strlen(option->name);
        if (strncmp(word, option->name, bytes) != 0 ||
            (option->kind != 0 && option->kind != (int)session->options.kind))
            continue;
        if (word[bytes] == '\0' && option->flag)
            return take_option(session, i, NULL);
        if (word[bytes] == '=' && !option->flag)
            return take_option(session, i, word + bytes + 1);
        if (word[bytes] == '\0' && *index + 1 < argc)
            return take_option(session, i, argv[++*index]);
        if (word[bytes] == '\0')
            return cli_usage(session->context, session->command, "%s needs a value", word);
    }
    return cli_usage(session->context, session->command, "unknown argument \"%s\"", word);
}

static int take_arguments(struct session *session, int argc, char **argv)
{
    if (argc < 2 || (strcmp(argv[1], "plan") != 0 && strcmp(argv[1], "apply") != 0 &&
                     strcmp(argv[1], "revert") != 0))
        return cli_usage(session->context, session->command, "say plan, apply or revert");
    session->verb = argv[1];
    for (int i = 2; i < argc; i++) {
        int taken = cli_config_option(session->context, session->command, argc, argv, &i,
                                      &session->config_options);
        int code = taken < 0 ? -taken : taken > 0 ? CLI_OK : take_word(session, argc, argv, &i);
        if (code != CLI_OK)
            return code;
    }
    if ((session->hold || session->taint != NULL) && strcmp(session->verb, "apply") != 0)
        return cli_usage(session->context, session->command, "%s is for apply",
                         session->hold ? "--hold" : "--untaint");
    return CLI_OK;
}

/* ---- what the agent's configuration says ---- */

static bool plain_http(const struct registry_entry *entry)
{
    /* Only what it says of the name itself: an endpoint elsewhere is ours to ask, not the
     * runtime's. */
    return strncmp(entry->endpoint, "http://", 7) == 0 &&
           strcmp(entry->endpoint + 7, entry->name) == 0;
}

/* All of the agent's, "_default" for its patterns. */
static void all_registries(struct session *session, const struct registries *configured)
{
    struct runtime_options *options = &session->options;
    bool pattern = false;
    for (unsigned i = 0; i < configured->entry_count; i++) {
        const struct registry_entry *entry = &configured->entries[i];
        bool is_pattern = entry->name[0] == '*';
        if (!is_pattern && options->registry_count < RUNTIME_REGISTRIES_MAX)
            session->registries[options->registry_count++] =
                (struct runtime_registry){entry->name, plain_http(entry)};
        pattern = pattern || is_pattern;
    }
    if (pattern && options->registry_count < RUNTIME_REGISTRIES_MAX)
        session->registries[options->registry_count++].name = "_default";
}

static bool fits_pattern(const struct registries *configured, const char *name)
{
    bool fits = strcmp(name, "_default") == 0;
    for (unsigned i = 0; i < configured->entry_count && !fits; i++)
        fits = registry_pattern_fits(configured->entries[i].name, name);
    return fits;
}

static int named_registries(struct session *session, const struct registries *configured)
{
    struct runtime_options *options = &session->options;
    const struct registry_entry *fallback = registries_find(configured, "");
    for (unsigned i = 0; i < options->registry_count; i++) {
        struct runtime_registry *registry = &session->registries[i];
        const struct registry_entry *entry = registries_find(configured, registry->name);
        if (options->kind != RUNTIME_CONTAINERD && (entry == NULL || entry != fallback))
            return cli_failed(session->context, session->command,
                              "%.200s is not the agent's default registry, which is the only one "
                              "that requests without ?ns= can mean: set registries[].default",
                              registry->name);
        registry->plain_http = entry != NULL && plain_http(entry);
        if (entry == NULL && !fits_pattern(configured, registry->name))
            (void)fprintf(session->context->out,
                          "note: the agent's configuration has no registry %s; it answers 404\n",
                          registry->name);
    }
    return CLI_OK;
}

static int choose_registries(struct session *session)
{
    struct runtime_options *options = &session->options;
    const struct registries configured = config_registries(&session->config);
    const struct registry_entry *fallback = registries_find(&configured, "");
    options->registries = session->registries;
    if (options->registry_count > 0)
        return named_registries(session, &configured);
    if (options->kind == RUNTIME_CONTAINERD) {
        all_registries(session, &configured);
        return CLI_OK;
    }
    if (fallback == NULL)
        return cli_failed(session->context, session->command,
                          "the agent has no default registry: set registries[].default");
    session->registries[0] = (struct runtime_registry){fallback->name, plain_http(fallback)};
    options->registry_count = 1;
    return CLI_OK;
}

static void choose_mirror(struct session *session)
{
    char text[PEER_ADDR_TEXT_BYTES];
    session->mirror_addr = session->config.listen_client;
    if (net_unspecified(&session->mirror_addr)) {
        uint16_t port = session->mirror_addr.port;
        if (peer_addr_parse("127.0.0.1", port, &session->mirror_addr) != 0)
            session->mirror_addr = session->config.listen_client;
    }
    (void)snprintf(session->mirror, sizeof session->mirror, "http://%s",
                   peer_addr_text(&session->mirror_addr, text));
    session->options.mirror = session->mirror;
}

static const char *variable(const struct cli_context *context, const char *name)
{
    size_t bytes = strlen(name);
    for (char *const *at = context->environment; at != NULL && *at != NULL; at++)
        if (strncmp(*at, name, bytes) == 0 && (*at)[bytes] == '=')
            return *at + bytes + 1;
    return "";
}

/* Of the system for root, on the host that --root is of; of the user else. */
static int choose_state(struct session *session)
{
    const char *xdg = variable(session->context, "XDG_STATE_HOME");
    const char *home = variable(session->context, "HOME");
    int bytes = -1;
    if (session->options.state != NULL)
        return CLI_OK;
    if (geteuid() == 0)
        bytes = snprintf(session->state, sizeof session->state, "%s%s", session->options.root,
                         STATE_ROOT);
    else if (xdg[0] == '/')
        bytes = snprintf(session->state, sizeof session->state, "%s/%s", xdg, STATE_XDG);
    else if (home[0] == '/')
        bytes =
            snprintf(session->state, sizeof session->state, "%s/.local/state/%s", home, STATE_XDG);
    if (bytes < 0 || (size_t)bytes >= sizeof session->state)
        return cli_failed(session->context, session->command,
                          "no place for what is to be restored: say --state");
    session->options.state = session->state;
    return CLI_OK;
}

/* ---- plan, apply, revert ---- */

static const char *unanswered(int err)
{
    return err == E_PROTOCOL ? "something that is not our agent answers there; find out what it is"
           : err == E_TIMEOUT
               ? "it takes connections but does not answer"
               : "nothing answers there; is the agent running, with this configuration?";
}

/* Waits for the agent as health_await does, or until a signal ends it. */
static int await_agent(struct session *session)
{
    if (!session->hold)
        return health_await(&session->mirror_addr, session->wait_ms);
    for (uint64_t waited_ms = 0;; waited_ms += HOLD_LOOK_MS) {
        int err = health_probe(&session->mirror_addr, PROBE_MS);
        if (err == 0 || err == E_PROTOCOL || waited_ms >= session->wait_ms)
            return err;
        session->stopped = hold_stopped(HOLD_LOOK_MS);
        if (session->stopped)
            return err;
    }
}

static void print_plan(const struct session *session, const struct runtime_plan *plan)
{
    runtime_plan_print(plan, session->context->out);
    if (runtime_plan_changes(plan) == 0)
        (void)fprintf(session->context->out, "nothing to change\n");
}

/* Why not, in session->trouble. Returns `err`. */
static int not_done(struct session *session, int err, const char *what, const char *why)
{
    (void)snprintf(session->trouble, sizeof session->trouble, "%s%s", what, why);
    return err;
}

static int plan_and_carry_out(struct session *session, bool apply)
{
    struct runtime_error error;
    struct runtime_plan *plan = NULL;
    int err = runtime_plan_new(&session->options, &plan, &error);
    if (err != 0)
        return not_done(session, err, apply ? "nothing was written: " : "", error.text);
    if (!session->hold) /* which may look many times, and says only what it did */
        print_plan(session, plan);
    if (apply)
        err = runtime_plan_apply(plan, &error);
    if (session->hold && err == 0)
        print_plan(session, plan);
    if (apply && err == 0 && runtime_plan_changes(plan) > 0)
        (void)fprintf(session->context->out, "%u files written\n", runtime_plan_changes(plan));
    runtime_plan_free(plan);
    return err == 0 ? 0 : not_done(session, err, "not applied: ", error.text);
}

/* 0 or why not, in session->trouble; session->answered says whether the agent did. */
static int plan_or_apply(struct session *session)
{
    bool apply = strcmp(session->verb, "apply") == 0;
    int health = apply ? await_agent(session) : health_probe(&session->mirror_addr, PROBE_MS);
    char why[sizeof session->mirror + 96];
    session->answered = health == 0;
    if (session->stopped)
        return 0;
    (void)snprintf(why, sizeof why, "%s: %s", session->mirror, unanswered(health));
    if (apply && health != 0)
        return not_done(session, health, "nothing was written: ", why);
    int err = plan_and_carry_out(session, apply);
    if (err == 0 && health != 0)
        (void)fprintf(session->context->out, "note: apply would write nothing now: %s\n", why);
    return err;
}

static int plan_or_apply_once(struct session *session)
{
    return plan_or_apply(session) == 0
               ? CLI_OK
               : cli_failed(session->context, session->command, "%s", session->trouble);
}

static int revert(struct session *session)
{
    struct runtime_error error;
    struct runtime_reverted done;
    FILE *out = session->context->out;
    int err = runtime_revert(&session->options, out, &done, &error);
    if (err != 0)
        return cli_failed(session->context, session->command, "%s", error.text);
    if (done.restored + done.undone + done.left == 0)
        (void)fprintf(out, "nothing to revert\n");
    if (session->options.kind == RUNTIME_DOCKER && done.restored + done.undone > 0)
        (void)fprintf(out, "note: `systemctl reload docker` makes dockerd forget the agent if the "
                           "file still has registry-mirrors, maybe an empty list; else it takes "
                           "a restart\n");
    return CLI_OK;
}

/* The runtime asks the agent: pods may come. With --hold until that is done or a stop comes. */
static int untaint(struct session *session)
{
    char error[KUBE_TAINT_ERROR_BYTES], last[KUBE_TAINT_ERROR_BYTES] = "";
    if (session->taint == NULL || session->stopped)
        return CLI_OK;
    while (kube_taint_remove(&session->config, session->taint, error) != 0) {
        if (!session->hold)
            return cli_failed(session->context, session->command, "taint %s stays: %s",
                              session->taint, error);
        if (strcmp(error, last) != 0)
            (void)fprintf(session->context->err, "shoal %s: taint %s stays for now: %s\n",
                          session->command, session->taint, error);
        memcpy(last, error, sizeof last);
        session->stopped = hold_stopped(AGAIN_MS);
        if (session->stopped)
            return CLI_OK;
    }
    (void)fprintf(session->context->out, "no taint %s on this node\n", session->taint);
    return CLI_OK;
}

/*
 * Stays until the runtime's configuration can be applied, or a stop comes: a container that ended
 * would be started again and again, its pod never be ready, and a rollout stop at the first node,
 * though the agent beside it serves. Only an agent that does not come in time ends it.
 */
static int apply_in_the_end(struct session *session)
{
    char last[sizeof session->trouble] = "";
    for (bool first = true; plan_or_apply(session) != 0; first = false) {
        if (first && !session->answered)
            return cli_failed(session->context, session->command, "%s", session->trouble);
        if (strcmp(session->trouble, last) != 0)
            (void)fprintf(session->context->err,
                          "shoal %s: %s (looked at again every %d s; until then pulls go without "
                          "the agent)\n",
                          session->command, session->trouble, AGAIN_MS / 1000);
        memcpy(last, session->trouble, sizeof last);
        session->stopped = hold_stopped(AGAIN_MS);
        if (session->stopped)
            break;
    }
    return CLI_OK;
}

/* What the runtime is told holds for as long as this process does. */
static int apply_and_hold(struct session *session)
{
    hold_begin();
    int code = apply_in_the_end(session);
    if (code == CLI_OK)
        code = untaint(session);
    if (code == CLI_OK && !session->stopped) {
        (void)fprintf(session->context->out, "held until SIGTERM or SIGINT\n");
        (void)fflush(session->context->out);
        while (!hold_stopped(HOLD_MS))
            continue;
    }
    if (code == CLI_OK) /* stopped early, too: a run before this one may have been killed */
        code = revert(session);
    hold_end();
    return code;
}

static int run(struct session *session, int argc, char **argv)
{
    int code = take_arguments(session, argc, argv);
    if (code == CLI_OK)
        code = choose_state(session);
    if (code != CLI_OK)
        return code;
    if (strcmp(session->verb, "revert") == 0)
        return revert(session);
    if (config_load(&session->config_options, &session->config, &session->config_error) != 0)
        return cli_failed(session->context, session->command, "%s", session->config_error.text);
    choose_mirror(session);
    code = choose_registries(session);
    if (code == CLI_OK)
        code = session->hold ? apply_and_hold(session) : plan_or_apply_once(session);
    if (code == CLI_OK && !session->hold)
        code = untaint(session);
    config_close(&session->config);
    return code;
}

/* NULL: memory is short. */
static struct session *session_make(const struct cli_context *context, enum runtime_kind kind,
                                    const char *command)
{
    struct session *session = loop_alloc(NULL, NULL, sizeof *session);
    if (session == NULL)
        return NULL;
    memset(session, 0, sizeof *session);
    session->context = context;
    session->command = command;
    session->config_options.environment = context->environment;
    session->env.alloc = loop_alloc;
    session->options = (struct runtime_options){.env = &session->env, .kind = kind, .root = ""};
    return session;
}

static int start(const struct cli_context *context, enum runtime_kind kind, int argc, char **argv)
{
    struct session *session = session_make(context, kind, argv[0]);
    if (session == NULL)
        return cli_failed(context, argv[0], "%s", err_text(E_NO_MEMORY));
    int code = run(session, argc, argv);
    (void)loop_alloc(NULL, session, 0);
    return code;
}

static int count_changes(struct session *session, unsigned *changes)
{
    struct runtime_error error;
    struct runtime_plan *plan = NULL;
    if (runtime_plan_new(&session->options, &plan, &error) != 0)
        return cli_failed(session->context, session->command, "%s", error.text);
    *changes = runtime_plan_changes(plan);
    runtime_plan_free(plan);
    return CLI_OK;
}

int cli_runtime_changes(const struct cli_context *context, enum runtime_kind kind,
                        const struct config_options *options, const char *root, unsigned *changes)
{
    struct session *session = session_make(context, kind, "doctor");
    if (session == NULL)
        return cli_failed(context, "doctor", "%s", err_text(E_NO_MEMORY));
    session->config_options = *options;
    session->options.root = root;
    int code = choose_state(session);
    if (code == CLI_OK &&
        config_load(&session->config_options, &session->config, &session->config_error) != 0)
        code = cli_failed(context, "doctor", "%s", session->config_error.text);
    else if (code == CLI_OK) {
        choose_mirror(session);
        code = choose_registries(session);
        if (code == CLI_OK)
            code = count_changes(session, changes);
        config_close(&session->config);
    }
    (void)loop_alloc(NULL, session, 0);
    return code;
}

int cli_containerd(const struct cli_context *context, int argc, char **argv)
{
    return start(context, RUNTIME_CONTAINERD, argc, argv);
}

int cli_podman(const struct cli_context *context, int argc, char **argv)
{
    return start(context, RUNTIME_CONTAINERS, argc, argv);
}

int cli_docker(const struct cli_context *context, int argc, char **argv)
{
    return start(context, RUNTIME_DOCKER, argc, argv);
}
