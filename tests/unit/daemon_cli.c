/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line: usage errors with their exact text, help of every command, exit codes, keygen,
 * config show and check, and the agent's refusals before it opens any socket.
 */
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>

#include "daemon_scratch.h"
#include "../../src/daemon/cli.h"
#include "../../src/daemon/hold.h"

static char *out_text;
static char *err_text_;

/* Runs "shoal" with the words up to a NULL; results in out_text and err_text_. */
static int shoal(const char *first, ...)
{
    static char words[16][512];
    char *argv[17];
    char *environment[] = {"PATH=/bin", NULL};
    size_t out_bytes = 0;
    size_t err_bytes = 0;
    int argc = 0;
    va_list args;
    free(out_text);
    free(err_text_);
    out_text = err_text_ = NULL;
    (void)snprintf(words[0], sizeof words[0], "shoal");
    argv[argc++] = words[0];
    va_start(args, first);
    for (const char *word = first; word != NULL; word = va_arg(args, const char *)) {
        (void)snprintf(words[argc], sizeof words[argc], "%s", word);
        argv[argc] = words[argc];
        argc++;
    }
    va_end(args);
    argv[argc] = NULL;
    FILE *out = open_memstream(&out_text, &out_bytes);
    FILE *err = open_memstream(&err_text_, &err_bytes);
    const struct cli_context context = {.out = out, .err = err, .environment = environment};
    int code = cli_main(&context, argc, argv);
    (void)fclose(out);
    (void)fclose(err);
    return code;
}

static void no_command_is_a_usage_error(void **state)
{
    (void)state;
    assert_int_equal(shoal(NULL), CLI_USAGE);
    assert_string_equal(out_text, "");
    assert_non_null(strstr(err_text_, "usage: shoal COMMAND"));
    assert_int_equal(shoal("fly", NULL), CLI_USAGE);
    assert_string_equal(err_text_, "shoal: no command \"fly\"; `shoal help` lists them\n");
}

static void help_goes_to_the_output(void **state)
{
    (void)state;
    static const char *const commands[] = {"agent",   "config", "keygen", "datadir", "containerd",
                                           "podman",  "docker", "status", "explain", "doctor",
                                           "version", "help",   "pull"};
    assert_int_equal(shoal("help", NULL), CLI_OK);
    assert_string_equal(err_text_, "");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        assert_non_null(strstr(out_text, commands[i]));
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        char expected[64];
        (void)snprintf(expected, sizeof expected, "usage: shoal %s", commands[i]);
        assert_int_equal(shoal(commands[i], "--help", NULL), CLI_OK);
        assert_int_equal(strncmp(out_text, expected, strlen(expected)), 0);
        assert_string_equal(err_text_, "");
        assert_int_equal(shoal("help", commands[i], NULL), CLI_OK);
        assert_int_equal(strncmp(out_text, expected, strlen(expected)), 0);
    }
    assert_int_equal(shoal("--help", NULL), CLI_OK);
    assert_int_equal(shoal("help", "fly", NULL), CLI_USAGE);
    assert_string_equal(err_text_, "shoal help: no command \"fly\"; see `shoal help --help`\n");
}

static void version_is_one_line(void **state)
{
    (void)state;
    assert_int_equal(shoal("version", NULL), CLI_OK);
    assert_string_equal(out_text, "shoal " SHOAL_VERSION "\n");
    assert_int_equal(shoal("--version", NULL), CLI_OK);
    assert_int_equal(shoal("version", "x", NULL), CLI_USAGE);
}

static void options_need_their_values(void **state)
{
    (void)state;
    assert_int_equal(shoal("agent", "--set", NULL), CLI_USAGE);
    assert_string_equal(err_text_, "shoal agent: --set needs a value; see `shoal agent --help`\n");
    assert_int_equal(shoal("agent", "--config", NULL), CLI_USAGE);
    assert_int_equal(shoal("agent", "--colour", NULL), CLI_USAGE);
    assert_string_equal(err_text_,
                        "shoal agent: unknown argument \"--colour\"; see `shoal agent --help`\n");
    assert_int_equal(shoal("agent", "--settle=1", NULL), CLI_USAGE);
    assert_int_equal(shoal("config", NULL), CLI_USAGE);
    assert_string_equal(err_text_, "shoal config: say show or check; see `shoal config --help`\n");
    assert_int_equal(shoal("config", "check", "--json", NULL), CLI_USAGE);
    assert_int_equal(shoal("keygen", "--out", NULL), CLI_USAGE);
    assert_int_equal(shoal("keygen", "--out=", NULL), CLI_USAGE);
}

static void keygen_makes_different_secrets(void **state)
{
    (void)state;
    char first[80];
    assert_int_equal(shoal("keygen", NULL), CLI_OK);
    assert_int_equal(strlen(out_text), 65);
    assert_int_equal(strspn(out_text, "0123456789abcdef"), 64);
    (void)snprintf(first, sizeof first, "%s", out_text);
    assert_int_equal(shoal("keygen", NULL), CLI_OK);
    assert_string_not_equal(out_text, first);
}

static void keygen_writes_a_private_file_once(void **state)
{
    (void)state;
    struct stat info;
    char expected[512];
    const char *path = scratch_path("generated");
    assert_int_equal(shoal("keygen", "--out", path, NULL), CLI_OK);
    assert_string_equal(out_text, "");
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0400);
    assert_int_equal(info.st_size, 65);
    assert_int_equal(shoal("keygen", "--out", path, NULL), CLI_FAILED);
    (void)snprintf(expected, sizeof expected, "shoal keygen: cannot create %s: File exists\n",
                   path);
    assert_string_equal(err_text_, expected);
}

static void config_show_prints_values_json_and_table(void **state)
{
    (void)state;
    const char *file = scratch_file("c.yaml", "clusterId: seen\nlimits.uploadMbit: 9\n", 0644);
    assert_int_equal(shoal("config", "show", "--config", file, NULL), CLI_OK);
    assert_non_null(strstr(out_text, "clusterId: seen"));
    assert_int_equal(shoal("config", "show", "--json", "--config", file, NULL), CLI_OK);
    json_t *root = json_loads(out_text, 0, NULL);
    assert_non_null(root);
    json_t *key = json_object_get(root, "limits.uploadMbit");
    assert_int_equal(json_integer_value(json_object_get(key, "value")), 9);
    key = json_object_get(root, "bootstrap");
    assert_true(json_is_array(json_object_get(key, "value")));
    key = json_object_get(root, "strictAddress");
    assert_true(json_is_true(json_object_get(key, "value")));
    assert_int_equal(json_array_size(json_object_get(root, "registries")), 5);
    json_decref(root);
    assert_int_equal(shoal("config", "show", "--markdown", NULL), CLI_OK);
    assert_non_null(strstr(out_text, "| Key | Default | Allowed | Meaning |"));
}

static void config_check_is_silent_or_says_one_line(void **state)
{
    (void)state;
    char expected[512];
    const char *file = scratch_file("c.yaml", "mode: normal\n", 0644);
    assert_int_equal(shoal("config", "check", "--config", file, NULL), CLI_OK);
    assert_string_equal(out_text, "");
    assert_string_equal(err_text_, "");
    file = scratch_file("c.yaml", "mode: fast\n", 0644);
    assert_int_equal(shoal("config", "check", "--config", file, NULL), CLI_FAILED);
    (void)snprintf(expected, sizeof expected,
                   "shoal config: %s:1: mode: \"fast\" is not allowed; allowed: normal | "
                   "passthrough\n",
                   file);
    assert_string_equal(err_text_, expected);
    assert_int_equal(shoal("config", "check", "--set=bootstrap=a", NULL), CLI_FAILED);
    assert_non_null(strstr(err_text_, "bootstrap is set but clusterSecretFile is not"));
}

/* A7: a bad start is one line and exit code 1, before any port is opened. */
static void the_agent_refuses_bad_configuration(void **state)
{
    (void)state;
    char set[300];
    char expected[512];
    assert_int_equal(shoal("agent", "--set", "mode=fast", NULL), CLI_FAILED);
    assert_string_equal(err_text_, "shoal agent: --set: mode: \"fast\" is not allowed; allowed: "
                                   "normal | passthrough\n");
    const char *file = scratch_file("secret", "x", 0644);
    (void)snprintf(set, sizeof set, "clusterSecretFile=%s", file);
    assert_int_equal(shoal("agent", "--set", set, NULL), CLI_FAILED);
    (void)snprintf(expected, sizeof expected,
                   "shoal agent: clusterSecretFile: %s has mode 0644: others can read it; run: "
                   "chmod 0400 %s\n",
                   file, file);
    assert_string_equal(err_text_, expected);
}

static void agent_in(const char *directory, const char *message)
{
    char set[300];
    char expected[512];
    (void)snprintf(set, sizeof set, "dataDir=%s", directory);
    assert_int_equal(shoal("agent", "--set", set, NULL), CLI_FAILED);
    (void)snprintf(expected, sizeof expected, "shoal agent: dataDir: %s\n", message);
    assert_string_equal(err_text_, expected);
}

static void the_agent_wants_a_directory_of_its_own(void **state) /* DSK-5 */
{
    (void)state;
    char message[400];
    const char *file = scratch_file("plain", "", 0600);
    (void)snprintf(message, sizeof message, "%s is not a directory", file);
    agent_in(file, message);

    const char *open_directory = scratch_path("open");
    assert_int_equal(mkdir(open_directory, 0755), 0);
    assert_int_equal(chmod(open_directory, 0755), 0);
    (void)snprintf(message, sizeof message, "%s is open to others; run chmod 0700 on it",
                   open_directory);
    agent_in(open_directory, message);

    const char *link = scratch_path("link");
    assert_int_equal(symlink(open_directory, link), 0);
    (void)snprintf(message, sizeof message, "%s is a symbolic link", link);
    agent_in(link, message);

    agent_in("/proc/nothing/here", "cannot make /proc/nothing/here: No such file or directory");
}

/* ---- datadir ---- */

static void datadir_arguments(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "--owner=root", "--owner=",           "--owner=1:",   "--owner=:1",
        "--owner=-1",   "--owner=4294967295", "--owner=1:2:3"};
    assert_int_equal(shoal("datadir", "/x", NULL), CLI_USAGE);
    assert_string_equal(err_text_, "shoal datadir: say a directory, by an absolute path, and "
                                   "--owner; see `shoal datadir --help`\n");
    assert_int_equal(shoal("datadir", "--owner=1", NULL), CLI_USAGE);
    assert_int_equal(shoal("datadir", "--owner=1", "x", NULL), CLI_USAGE);
    assert_int_equal(shoal("datadir", "--owner=1", "/x", "/y", NULL), CLI_USAGE);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(shoal("datadir", "/x", bad[i], NULL), CLI_USAGE);
        assert_string_equal(err_text_, "shoal datadir: --owner takes numbers, UID or UID:GID; see "
                                       "`shoal datadir --help`\n");
    }
}

/* A caller who is not root can give a directory to nobody but itself. */
static void datadir_makes_a_private_directory(void **state)
{
    (void)state;
    struct stat info;
    char owner[64], path[300];
    bool root = geteuid() == 0;
    uid_t uid = root ? 65532 : geteuid();
    gid_t gid = root ? 65531 : getegid();
    (void)snprintf(path, sizeof path, "%s", scratch_path("data"));
    (void)snprintf(owner, sizeof owner, "--owner=%u:%u", (unsigned)uid, (unsigned)gid);
    for (int again = 0; again < 2; again++) {
        assert_int_equal(shoal("datadir", path, owner, NULL), CLI_OK);
        assert_string_equal(err_text_, "");
        assert_int_equal(stat(path, &info), 0);
        assert_int_equal(info.st_mode & 0777, 0700);
        assert_int_equal(info.st_uid, uid);
        assert_int_equal(info.st_gid, gid);
    }
    assert_int_equal(chmod(path, 0755), 0);
    assert_int_equal(shoal("datadir", path, owner, NULL), CLI_FAILED);
    assert_non_null(strstr(err_text_, "is open to others; run chmod 0700 on it"));
    assert_int_equal(shoal("datadir", "/proc/none/here", owner, NULL), CLI_FAILED);
    assert_non_null(strstr(err_text_, "cannot make /proc/none/here"));
    assert_int_equal(shoal("datadir", scratch_file("plain", "", 0600), owner, NULL), CLI_FAILED);
    assert_non_null(strstr(err_text_, "is not a directory"));
}

/* kubelet's own, empty: taken over whatever its mode. With files, or of a third user: left. */
static void datadir_leaves_what_is_somebodys(void **state)
{
    (void)state;
    struct stat info;
    char path[300], file[320];
    if (geteuid() != 0)
        skip();
    (void)snprintf(path, sizeof path, "%s", scratch_path("node"));
    (void)snprintf(file, sizeof file, "%s/identity", path);
    assert_int_equal(mkdir(path, 0755), 0);
    FILE *made = fopen(file, "w");
    assert_non_null(made);
    (void)fclose(made);
    assert_int_equal(shoal("datadir", path, "--owner=65532", NULL), CLI_FAILED);
    assert_non_null(strstr(err_text_, "has files of another user in it"));
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_uid, 0);
    assert_int_equal(info.st_mode & 0777, 0755);
    assert_int_equal(unlink(file), 0);
    assert_int_equal(shoal("datadir", path, "--owner=65532", NULL), CLI_OK);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_uid, 65532);
    assert_int_equal(info.st_gid, 65532);
    assert_int_equal(info.st_mode & 0777, 0700);
    assert_int_equal(shoal("datadir", path, "--owner=7", NULL), CLI_FAILED);
    assert_non_null(strstr(err_text_, "belongs to user 65532"));
    assert_int_equal(symlink(path, scratch_path("path")), 0);
    assert_int_equal(shoal("datadir", scratch_path("path"), "--owner=7", NULL), CLI_FAILED);
    assert_non_null(strstr(err_text_, "is not a directory"));
}

/* ---- containerd, podman, docker ---- */

static void runtime_arguments(void **state)
{
    (void)state;
    assert_int_equal(shoal("containerd", NULL), CLI_USAGE);
    assert_string_equal(err_text_, "shoal containerd: say plan, apply or revert; see `shoal "
                                   "containerd --help`\n");
    assert_int_equal(shoal("containerd", "plan", "--registry", "a/b", NULL), CLI_USAGE);
    assert_string_equal(err_text_, "shoal containerd: \"a/b\" is no registry's name; see `shoal "
                                   "containerd --help`\n");
    assert_int_equal(shoal("containerd", "plan", "--hosts-dir", NULL), CLI_USAGE);
    assert_string_equal(err_text_, "shoal containerd: --hosts-dir needs a value; see `shoal "
                                   "containerd --help`\n");
    assert_int_equal(shoal("containerd", "plan", "--hosts-dir=certs.d", NULL), CLI_USAGE);
    assert_string_equal(err_text_, "shoal containerd: --hosts-dir takes an absolute path; see "
                                   "`shoal containerd --help`\n");
    assert_int_equal(shoal("docker", "plan", "--hosts-dir=/x", NULL), CLI_USAGE);
    assert_int_equal(shoal("docker", "plan", "--set-config-path", NULL), CLI_USAGE);
    assert_int_equal(shoal("containerd", "plan", "--set-config-path=1", NULL), CLI_USAGE);
    assert_int_equal(shoal("podman", "apply", "--wait", "soon", NULL), CLI_USAGE);
    assert_string_equal(err_text_, "shoal podman: --wait takes 0 to 3600 seconds; see `shoal "
                                   "podman --help`\n");
    assert_int_equal(shoal("podman", "apply", "--wait=3601", NULL), CLI_USAGE);
    assert_int_equal(shoal("podman", "apply", "--rooted", NULL), CLI_USAGE);
    assert_int_equal(shoal("containerd", "revert", "--hold", NULL), CLI_USAGE);
    assert_string_equal(err_text_, "shoal containerd: --hold is for apply; see `shoal containerd "
                                   "--help`\n");
}

static const char *const nobody = "--set=listen.client=127.0.0.1:1"; /* nothing listens there */

static void runtime_plans_for_the_agents_registries(void **state)
{
    (void)state;
    char root[300];
    char place[300];
    (void)snprintf(root, sizeof root, "--root=%s", scratch_path("host"));
    (void)snprintf(place, sizeof place, "--state=%s", scratch_path("runtime-state"));
    assert_int_equal(mkdir(scratch_path("host"), 0755), 0);
    const char *file = scratch_file("c.yaml",
                                    "builtinRegistries: false\n"
                                    "registries:\n"
                                    "  - {name: r.example.com, default: true}\n"
                                    "  - {name: plain.example.com, plainHttp: true}\n"
                                    "  - {name: far.example.com, endpoint: 'http://x:5000', "
                                    "plainHttp: true}\n"
                                    "  - {name: '*.corp.example.com'}\n",
                                    0644);
    char config[300];
    (void)snprintf(config, sizeof config, "--config=%s", file);
    assert_int_equal(
        shoal("containerd", "plan", root, place, config, nobody, "--hosts-dir=/certs.d", NULL),
        CLI_OK);
    assert_non_null(strstr(out_text, "+++ /certs.d/r.example.com/hosts.toml"));
    assert_non_null(strstr(out_text, "+++ /certs.d/_default/hosts.toml"));
    assert_non_null(strstr(out_text, "+[host.\"http://127.0.0.1:1\"]"));
    assert_non_null(strstr(out_text, "+server = \"http://plain.example.com\"\n"));
    assert_null(strstr(out_text, "http://far.example.com")); /* its own scheme is not known */
    assert_non_null(strstr(out_text, "note: apply would write nothing now"));
    assert_int_equal(shoal("containerd", "plan", root, place, config, nobody,
                           "--hosts-dir=/certs.d", "--registry=r.example.com", NULL),
                     CLI_OK);
    assert_null(strstr(out_text, "_default"));
    assert_int_equal(shoal("podman", "plan", root, place, config, nobody, NULL), CLI_OK);
    assert_non_null(strstr(out_text, "+prefix = \"r.example.com\"\n"));
    assert_int_equal(
        shoal("podman", "plan", root, place, config, nobody, "--registry=plain.example.com", NULL),
        CLI_FAILED);
    assert_non_null(strstr(err_text_, "plain.example.com is not the agent's default registry"));
    assert_int_equal(shoal("docker", "plan", root, place, config, nobody, NULL), CLI_FAILED);
    assert_non_null(strstr(err_text_, "docker.io must be the agent's default registry"));
}

/* HRD-2: nobody answers, so nothing is written; and there is nothing to take back. */
static void runtime_without_an_agent_writes_nothing(void **state)
{
    (void)state;
    char root[300];
    char place[300];
    struct stat info;
    (void)snprintf(root, sizeof root, "--root=%s", scratch_path("lonely"));
    (void)snprintf(place, sizeof place, "--state=%s", scratch_path("lonely-state"));
    assert_int_equal(mkdir(scratch_path("lonely"), 0755), 0);
    assert_int_equal(
        shoal("containerd", "apply", root, place, nobody, "--hosts-dir=/certs.d", NULL),
        CLI_FAILED);
    assert_string_equal(err_text_,
                        "shoal containerd: nothing was written: http://127.0.0.1:1: nothing "
                        "answers there; is the agent running, with this configuration?\n");
    assert_int_not_equal(stat(scratch_path("lonely/certs.d"), &info), 0);
    assert_int_not_equal(stat(scratch_path("lonely-state"), &info), 0);
    assert_int_equal(shoal("containerd", "revert", root, place, NULL), CLI_OK);
    assert_string_equal(out_text, "nothing to revert\n");
    assert_int_not_equal(stat(scratch_path("lonely-state"), &info), 0);
    assert_int_equal(shoal("containerd", "plan", root, place, nobody, NULL), CLI_FAILED);
    assert_non_null(strstr(err_text_, "no config_path, so containerd reads no hosts.toml"));
}

/* A stop that comes while the agent is waited for ends the wait; nothing was written. */
static void a_hold_can_be_stopped_while_it_waits(void **state)
{
    (void)state;
    char root[300];
    char place[300];
    (void)snprintf(root, sizeof root, "--root=%s", scratch_path("held"));
    (void)snprintf(place, sizeof place, "--state=%s", scratch_path("held-state"));
    assert_int_equal(mkdir(scratch_path("held"), 0755), 0);
    hold_begin();
    assert_int_equal(raise(SIGTERM), 0);
    assert_int_equal(shoal("containerd", "apply", "--hold", "--wait=3600", root, place, nobody,
                           "--hosts-dir=/certs.d", NULL),
                     CLI_OK);
    assert_string_equal(out_text, "nothing to revert\n");
    assert_int_equal(shoal("containerd", "apply", "--hold", root, place, nobody, NULL), CLI_FAILED);
    assert_non_null(strstr(err_text_, "nothing answers there"));
}

static int tear_down(void **state)
{
    free(out_text);
    free(err_text_);
    return scratch_remove(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_command_is_a_usage_error),
        cmocka_unit_test(help_goes_to_the_output),
        cmocka_unit_test(version_is_one_line),
        cmocka_unit_test(options_need_their_values),
        cmocka_unit_test(keygen_makes_different_secrets),
        cmocka_unit_test(keygen_writes_a_private_file_once),
        cmocka_unit_test(config_show_prints_values_json_and_table),
        cmocka_unit_test(config_check_is_silent_or_says_one_line),
        cmocka_unit_test(the_agent_refuses_bad_configuration),
        cmocka_unit_test(the_agent_wants_a_directory_of_its_own),
        cmocka_unit_test(datadir_arguments),
        cmocka_unit_test(datadir_makes_a_private_directory),
        cmocka_unit_test(datadir_leaves_what_is_somebodys),
        cmocka_unit_test(runtime_arguments),
        cmocka_unit_test(runtime_plans_for_the_agents_registries),
        cmocka_unit_test(runtime_without_an_agent_writes_nothing),
        cmocka_unit_test(a_hold_can_be_stopped_while_it_waits),
    };
    return cmocka_run_group_tests(tests, scratch_make, tear_down);
}
