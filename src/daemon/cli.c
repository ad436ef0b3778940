/* SPDX-License-Identifier: Apache-2.0 */
/* The table of commands, help, and what commands share (cli.h). */
#include "cli.h"

#include <stdarg.h>
#include <string.h>

static int cli_version(const struct cli_context *context, int argc, char **argv)
{
    (void)argv;
    if (argc > 1)
        return cli_usage(context, "version", "takes no arguments");
    (void)fprintf(context->out, "shoal %s\n", SHOAL_VERSION);
    return CLI_OK;
}

static int cli_help(const struct cli_context *context, int argc, char **argv);

#define RUNTIME_VERBS                                                                              \
    "  plan               prints what apply would change, as a diff; changes nothing\n"            \
    "  apply              writes it, if the agent answers; what was there is kept\n"               \
    "  revert             puts back what was there; from files edited since, takes out our part\n" \
    "\n"
#define RUNTIME_OPTIONS                                                                            \
    "  --config F, --set key=value\n"                                                              \
    "                     the agent's configuration: its client port and registries\n"             \
    "  --wait S           apply: waits up to S seconds for the agent\n"                            \
    "  --hold             apply: stays until SIGTERM or SIGINT, then reverts; waits for what\n"    \
    "                     cannot be written yet, and says what to do\n"                            \
    "  --untaint KEY      apply: then takes this taint off the Kubernetes node NODE_NAME\n"        \
    "  --root D           where the host's / is mounted\n"                                         \
    "  --state D          what revert needs; default /var/lib/shoal-runtime below --root\n"        \
    "\n"                                                                                           \
    "No runtime is started, stopped or signalled.\n"

static const struct cli_command commands[] = {
    {"agent", "[--config F] [--set key=value]...", "run the node agent",
     "  --config F         YAML file; default /etc/shoal/shoal.yaml if it exists\n"
     "  --set key=value    sets one key over file and environment; may be repeated\n"
     "\n"
     "Without any configuration it works on one machine. SIGTERM stops it in order.\n",
     cli_agent},
    {"status", "[--json] [--watch]  [--config F] [--set key=value]...",
     "what the agent of this node does now",
     "  --json             all of it, for programs\n"
     "  --watch            again every second, until SIGINT\n"
     "  --config F, --set key=value\n"
     "                     as the agent was started: they say where its socket is\n"
     "\n"
     "For root and the agent's own user.\n",
     cli_status},
    {"explain", "[DIGEST | IMAGE] [--json]  [--config F] [--set key=value]...",
     "where the bytes of a pull came from, and why",
     "  DIGEST             of a blob or manifest, sha256:...\n"
     "  IMAGE              as the runtime was told: registry/name:tag, with or without @digest;\n"
     "                     none: the last pulls of this node\n"
     "  --json             for programs\n"
     "\n"
     "Tells what of it is here, who else has it as far as is known now, which peer sent how\n"
     "much, and why the registry was read or the mesh was gone around. The last 128 pulls\n"
     "since the agent started are kept. For root and the agent's own user.\n",
     cli_explain},
    {"pull",
     "IMAGE [--platform P] [--on local|zone|all|N] [--json]  [--config F] [--set key=value]...",
     "bring an image into the caches of nodes before it is asked for",
     "  IMAGE              registry/name:tag, with or without @digest\n"
     "  --platform P       of an index: os/arch, os/arch/variant or all; default: this node's\n"
     "  --on W             zone, all: then the other nodes of this zone, or all, too; N: N nodes,\n"
     "                     this one and the nearest to it; default: local\n"
     "  --json             one object of progress a line, for programs\n"
     "\n"
     "Reads with the node's login for the registry (registries[].credentials), else with none.\n"
     "It lets nobody read more than before: clients are authorised at the registry as ever.\n"
     "An interrupt ends the order. For root and the agent's own user.\n",
     cli_pull},
    {"doctor", "[--json] [--root D]  [--config F] [--set key=value]...",
     "look for what is wrong on this node",
     "  --json             for programs\n"
     "  --root D           where the host's / is mounted, for the runtime's configuration\n"
     "\n"
     "Looks at configuration, secret, disk, ports, peers, registries, clock and the runtime,\n"
     "whether the agent runs or not; each finding says what to do. Exits 1 if something is\n"
     "wrong. Run it as root or the agent's user, where the agent runs.\n",
     cli_doctor},
    {"config", "show [--json|--markdown] | check  [--config F] [--set key=value]...",
     "print or check the configuration",
     "  show               effective values, each with where it came from\n"
     "  show --json        the same for programs\n"
     "  show --markdown    the table of all keys\n"
     "  check              says nothing and exits 0 if the agent would start with it\n",
     cli_config},
    {"keygen", "[--out F]", "make a cluster secret",
     "  --out F            writes it to a new file with mode 0400 instead of the terminal\n"
     "\n"
     "Give every node of a mesh the same secret, as a file (clusterSecretFile).\n",
     cli_keygen},
    {"datadir", "DIR --owner UID[:GID]", "make the data directory for the agent's user",
     "  --owner UID[:GID]  gives DIR to this user, with mode 0700; for root\n"
     "\n"
     "Says nothing if DIR is right already. A directory with files of another user in it\n"
     "is left alone, and named.\n",
     cli_datadir},
    {"containerd", "plan | apply | revert  [options]",
     "point containerd at the agent, or take that back",
     RUNTIME_VERBS
     "  --registry R       these registries, or _default; default: all of the agent's, and\n"
     "                     _default if it has patterns. May be repeated\n"
     "  --runtime-config F\n"
     "                     containerd's file; default /etc/containerd/config.toml\n"
     "  --set-config-path  adds config_path to it, if there is none. containerd reads\n"
     "                     that at its start; restarting it is left to you\n"
     "  --hosts-dir D      where hosts.toml files are, whatever containerd's file "
     "says\n" RUNTIME_OPTIONS,
     cli_containerd},
    {"podman", "plan | apply | revert  [options]",
     "point CRI-O, podman and buildah at the agent, or take that back",
     RUNTIME_VERBS
     "  --runtime-config F\n"
     "                     default /etc/containers/registries.conf; drop-ins in F.d\n"
     "  --registry R       the agent's default registry, which is the only one it can\n"
     "                     stand for here\n" RUNTIME_OPTIONS,
     cli_podman},
    {"docker", "plan | apply | revert  [options]",
     "point dockerd at the agent for Docker Hub, or take that back",
     RUNTIME_VERBS
     "  --runtime-config F\n"
     "                     default /etc/docker/daemon.json\n"
     "  --registry R       docker.io, which must be the agent's default\n" RUNTIME_OPTIONS,
     cli_docker},
    {"version", "", "print the version", NULL, cli_version},
    {"help", "[COMMAND]", "print this list, or one command's help", NULL, cli_help},
};
#define COMMAND_COUNT (sizeof commands / sizeof commands[0])

static const struct cli_command *command_find(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static void print_list(FILE *out)
{
    (void)fprintf(out, "usage: shoal COMMAND [options]\n\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        (void)fprintf(out, "  %-10s  %s\n", commands[i].name, commands[i].summary);
    (void)fprintf(out, "\n`shoal COMMAND --help` tells more. "
                       "Exit codes: 0 done, 1 failed, 2 usage.\n");
}

static void print_command(const struct cli_command *command, FILE *out)
{
    (void)fprintf(out, "usage: shoal %s %s\n\n%s\n", command->name, command->synopsis,
                  command->summary);
    if (command->help != NULL)
        (void)fprintf(out, "\n%s", command->help);
}

static int cli_help(const struct cli_context *context, int argc, char **argv)
{
    if (argc < 2) {
        print_list(context->out);
        return CLI_OK;
    }
    const struct cli_command *command = command_find(argv[1]);
    if (command == NULL)
        return cli_usage(context, "help", "no command \"%s\"", argv[1]);
    print_command(command, context->out);
    return CLI_OK;
}

static bool wants_help(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

int cli_main(const struct cli_context *context, int argc, char **argv)
{
    if (argc < 2) {
        print_list(context->err);
        return CLI_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    if (strcmp(name, "--version") == 0)
        name = "version";
    const struct cli_command *command = command_find(name);
    if (command == NULL) {
        (void)fprintf(context->err, "shoal: no command \"%s\"; `shoal help` lists them\n", name);
        return CLI_USAGE;
    }
    if (wants_help(argc - 1, argv + 1)) {
        print_command(command, context->out);
        return CLI_OK;
    }
    return command->run(context, argc - 1, argv + 1);
}

int cli_usage(const struct cli_context *context, const char *command, const char *format, ...)
{
    va_list args;
    (void)fprintf(context->err, "shoal %s: ", command);
    va_start(args, format);
    (void)vfprintf(context->err, format, args);
    va_end(args);
    (void)fprintf(context->err, "; see `shoal %s --help`\n", command);
    return CLI_USAGE;
}

int cli_failed(const struct cli_context *context, const char *command, const char *format, ...)
{
    va_list args;
    (void)fprintf(context->err, "shoal %s: ", command);
    va_start(args, format);
    (void)vfprintf(context->err, format, args);
    va_end(args);
    (void)fputc('\n', context->err);
    return CLI_FAILED;
}

/* The value of option `name` at argv[*index], as the next word or behind '='. NULL: not this
 * option, or *missing. */
static const char *option_value(const char *name, int argc, char **argv, int *index, bool *missing)
{
    size_t name_bytes = strlen(name);
    const char *word = argv[*index];
    if (strncmp(word, name, name_bytes) != 0)
        return NULL;
    if (word[name_bytes] == '=')
        return word + name_bytes + 1;
    if (word[name_bytes] != '\0')
        return NULL;
    if (*index + 1 >= argc) {
        *missing = true;
        return NULL;
    }
    (*index)++;
    return argv[*index];
}

int cli_config_option(const struct cli_context *context, const char *command, int argc, char **argv,
                      int *index, struct config_options *options)
{
    bool missing = false;
    const char *word = argv[*index];
    options->environment = context->environment;
    const char *value = option_value("--config", argc, argv, index, &missing);
    if (value != NULL) {
        options->file = value;
        return 1;
    }
    value = option_value("--set", argc, argv, index, &missing);
    if (missing)
        return -cli_usage(context, command, "%s needs a value", word);
    if (value == NULL)
        return 0;
    if (options->set_count == CONFIG_SETS_MAX)
        return -cli_usage(context, command, "more than %d --set", CONFIG_SETS_MAX);
    options->sets[options->set_count++] = value;
    return 1;
}
