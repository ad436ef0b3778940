/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What surrounds the edits: modes, owners and attributes kept; links, devices, large files refused;
 * the lock and the manifest; edits of others between apply and revert; a kill before each change of
 * the disk, after which apply and revert go on.
 */
#include "runtime_tree.h"

#include <sys/file.h>
#include <sys/resource.h>
#include <sys/xattr.h>

#include <signal.h>

#define CERTS "/etc/containerd/certs.d/"
#define HOSTS CERTS "r.example.com/hosts.toml"
#define BASE  "server = \"https://r.example.com\"\n"

static const struct runtime_registry one[] = {{"r.example.com", false}};
static const struct runtime_registry three[] = {
    {"a.example.com", false}, {"r.example.com", false}, {"_default", false}};
static struct runtime_options options;

static int set_up(void **state)
{
    int result = tree_make(state);
    options = tree_options(RUNTIME_CONTAINERD, one, 1);
    options.hosts_dir = "/etc/containerd/certs.d";
    return result;
}

static const char *state_path(const char *name)
{
    static char path[256];
    (void)snprintf(path, sizeof path, "%s/containerd%s", tree_state, name);
    return path;
}

/* ---- what a file is ---- */

static void mode_owner_and_attributes_stay(void **state)
{
    (void)state;
    char value[16] = "";
    tree_put(HOSTS, BASE);
    assert_int_equal(chmod(tree_path(HOSTS), 0640), 0);
    bool root = geteuid() == 0 && chown(tree_path(HOSTS), 12, 34) == 0;
    bool attributes = setxattr(tree_path(HOSTS), "user.label", "kept", 4, 0) == 0;
    tree_there_and_back(&options, 1);
    assert_int_equal(tree_apply(&options), 1);
    struct stat info;
    assert_int_equal(stat(tree_path(HOSTS), &info), 0);
    assert_int_equal(info.st_mode & 07777, 0640);
    if (root) {
        assert_int_equal(info.st_uid, 12);
        assert_int_equal(info.st_gid, 34);
    }
    if (attributes) {
        assert_int_equal(getxattr(tree_path(HOSTS), "user.label", value, sizeof value), 4);
        assert_string_equal(value, "kept");
    }
}

static void new_files_and_directories_can_be_read(void **state)
{
    (void)state;
    mode_t mask = umask(0077);
    assert_int_equal(tree_apply(&options), 1);
    (void)umask(mask);
    struct stat info;
    assert_int_equal(stat(tree_path(HOSTS), &info), 0);
    assert_int_equal(info.st_mode & 07777, 0644);
    assert_int_equal(stat(tree_path(CERTS "r.example.com"), &info), 0);
    assert_int_equal(info.st_mode & 07777, 0755);
    assert_int_equal(stat(state_path(""), &info), 0);
    assert_int_equal(info.st_mode & 07777, 0700);
}

static void links_and_devices_are_refused(void **state)
{
    (void)state;
    tree_put("/elsewhere", BASE);
    tree_directories(HOSTS);
    assert_int_equal(symlink(tree_path("/elsewhere"), tree_path(HOSTS)), 0);
    tree_refused(&options, E_REFUSED, "it is a symbolic link");
    assert_int_equal(unlink(tree_path(HOSTS)), 0);
    assert_int_equal(link(tree_path("/elsewhere"), tree_path(HOSTS)), 0);
    tree_refused(&options, E_REFUSED, "has 2 names (hard links)");
    assert_int_equal(unlink(tree_path(HOSTS)), 0);
    assert_int_equal(mkfifo(tree_path(HOSTS), 0644), 0);
    tree_refused(&options, E_REFUSED, "is not a regular file");
    assert_int_equal(unlink(tree_path(HOSTS)), 0);
    assert_int_equal(mkdir(tree_path(HOSTS), 0755), 0);
    tree_refused(&options, E_REFUSED, "is not a regular file");
    assert_int_equal(rmdir(tree_path(HOSTS)), 0);
    tree_put(HOSTS, BASE);
    assert_int_equal(chmod(tree_path(HOSTS), 04755), 0);
    tree_refused(&options, E_REFUSED, "has special mode bits");
}

static void directories_are_looked_at(void **state)
{
    (void)state;
    tree_put("/elsewhere/hosts.toml", BASE);
    tree_directories(CERTS "x");
    assert_int_equal(symlink(tree_path("/elsewhere"), tree_path(CERTS "r.example.com")), 0);
    tree_refused(&options, E_REFUSED, "r.example.com is a symbolic link");
    assert_int_equal(unlink(tree_path(CERTS "r.example.com")), 0);
    tree_put(CERTS "r.example.com", "");
    tree_refused(&options, E_REFUSED, "r.example.com is not a directory");
    assert_int_equal(unlink(tree_path(CERTS "r.example.com")), 0);
    assert_int_equal(mkdir(tree_path(CERTS "r.example.com"), 0777), 0);
    assert_int_equal(chmod(tree_path(CERTS "r.example.com"), 0777), 0);
    tree_refused(&options, E_REFUSED, "can be written by everybody");
}

static void the_root_of_all_may_be_a_link(void **state)
{
    (void)state;
    tree_directories("/data/certs/x");
    tree_directories("/etc/containerd/x");
    assert_int_equal(symlink("../../data/certs", tree_path("/etc/containerd/certs.d")), 0);
    tree_there_and_back(&options, 1);
}

/* A link of the host means the host's files, not those of the container that looks at them. */
static void links_do_not_lead_out_of_the_root(void **state)
{
    (void)state;
    tree_put("/../outside/certs.d/x", "");
    tree_directories("/etc/containerd/x");
    assert_int_equal(symlink("../../../outside/certs.d", tree_path("/etc/containerd/certs.d")), 0);
    tree_refused(&options, E_REFUSED, "leads out of");
    assert_int_equal(unlink(tree_path("/etc/containerd/certs.d")), 0);
    assert_int_equal(symlink("/etc", tree_path("/etc/containerd/certs.d")), 0);
    tree_refused(&options, E_REFUSED, "leads out of");
    assert_int_equal(unlink(tree_path("/etc/containerd/certs.d")), 0);
    assert_int_equal(symlink("nothing", tree_path("/etc/containerd/certs.d")), 0);
    tree_refused(&options, E_REFUSED, "is a link to nothing");
    assert_int_equal(unlink(tree_path("/etc/containerd/certs.d")), 0);
    assert_int_equal(tree_apply(&options), 1);
    assert_int_equal(rename(tree_path("/etc/containerd"), tree_path("/../moved")), 0);
    assert_int_equal(symlink("../../moved", tree_path("/etc/containerd")), 0);
    assert_int_equal(tree_revert(&options), E_REFUSED);
    assert_int_equal(tree_done.refused, 1);
    assert_string_equal(tree_get(HOSTS), BEGIN HOST END);
}

static void files_of_any_size(void **state)
{
    (void)state;
    static char text[RUNTIME_FILE_BYTES_MAX + 1];
    memset(text, '#', sizeof text);
    tree_put_bytes(HOSTS, text, RUNTIME_FILE_BYTES_MAX);
    assert_int_equal(tree_run(&options, false), 1);
    tree_put_bytes(HOSTS, text, sizeof text);
    assert_int_equal(tree_run(&options, true), E_TOO_LARGE);
    assert_non_null(strstr(tree_error.text, "is larger than 1048576 bytes"));
}

/* A disk that takes no more: what this call wrote goes back. The backup of the last file fits. */
static void a_write_that_fails_changes_nothing(void **state)
{
    (void)state;
    static char comment[19950];
    struct rlimit old;
    memset(comment, '#', sizeof comment - 1);
    tree_put(CERTS "_default/hosts.toml", comment);
    tree_put(CERTS "a.example.com/hosts.toml", BASE);
    options.registries = three;
    options.registry_count = 3;
    char *before = tree_picture();
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    struct rlimit small = old;
    small.rlim_cur = 20000;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int err = tree_apply(&options);
    unsigned steps = tree_steps;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(err, E_IO);
    assert_int_equal(steps, 4); /* backups, manifest, and two files */
    assert_non_null(strstr(tree_error.text, "File too large"));
    char *after = tree_picture();
    assert_string_equal(before, after);
    assert_int_equal(tree_revert(&options), 0);
    tree_there_and_back(&options, 2);
    free(before);
    free(after);
}

/* ---- others at the same time ---- */

static int edit_before_write(void *arg, const char *what)
{
    if (strstr(what, "hosts.toml") != NULL)
        tree_put(HOSTS, arg);
    return 0;
}

static void a_file_changed_since_the_plan_is_left(void **state)
{
    (void)state;
    static char theirs[] = "server = \"https://theirs\"\n";
    tree_put(HOSTS, BASE);
    options.step = edit_before_write;
    options.step_arg = theirs;
    assert_int_equal(tree_apply(&options), E_AGAIN);
    assert_non_null(strstr(tree_error.text, "was changed by somebody else just now"));
    assert_string_equal(tree_get(HOSTS), theirs);
    assert_int_equal(unlink(tree_path(HOSTS)), 0);
    assert_int_equal(tree_apply(&options), E_AGAIN); /* one that has just appeared */
    assert_string_equal(tree_get(HOSTS), theirs);
}

static void one_at_a_time(void **state)
{
    (void)state;
    assert_int_equal(tree_apply(&options), 1);
    int lock = open(state_path("/lock"), O_RDWR);
    assert_int_equal(flock(lock, LOCK_EX), 0);
    assert_int_equal(tree_revert(&options), E_IN_USE);
    assert_non_null(strstr(tree_error.text, "another apply or revert runs"));
    options.mirror = "http://127.0.0.1:7";
    assert_int_equal(tree_apply(&options), E_IN_USE);
    assert_int_equal(close(lock), 0);
    assert_int_equal(tree_revert(&options), 0);
}

/* ---- the state directory ---- */

static void the_state_must_be_ours(void **state)
{
    (void)state;
    assert_int_equal(tree_apply(&options), 1);
    assert_int_equal(chmod(state_path(""), 0755), 0);
    assert_int_equal(tree_revert(&options), E_REFUSED);
    assert_non_null(strstr(tree_error.text, "must be a directory of this user with mode 0700"));
    assert_int_equal(chmod(state_path(""), 0700), 0);
    options.state = "relative";
    assert_int_equal(tree_revert(&options), E_INVALID);
}

static void damaged(const char *name, const char *text)
{
    FILE *file = fopen(state_path(name), "w");
    assert_non_null(file);
    (void)fputs(text, file);
    (void)fclose(file);
    char *before = tree_picture();
    assert_int_equal(tree_revert(&options), E_CORRUPT);
    char *after = tree_picture();
    assert_string_equal(before, after);
    free(before);
    free(after);
}

static void a_damaged_manifest_touches_nothing(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "{}",
        "[]",
        "{\"version\": 2, \"files\": []}",
        "{\"version\": 1, \"files\": [1]}",
        "{\"version\": 1, \"files\": [{\"path\": \"relative\"}]}",
        "{\"version\": 1, \"files\": [{\"path\": \"/x\", \"format\": \"toml\", \"mirror\": \"\", "
        "\"existed\": true, \"mode\": 4095, \"uid\": 0, \"gid\": 0, \"before\": \"00\", \"ours\": "
        "[]}]}",
        "{\"version\": 1, \"files\": [], \"directories\": [\"relative\"]}",
    };
    tree_put(HOSTS, BASE);
    assert_int_equal(tree_apply(&options), 1);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        damaged("/manifest.json", texts[i]);
    options.mirror = "http://127.0.0.1:7";
    assert_int_equal(tree_apply(&options), E_CORRUPT);
}

static void a_lost_backup_touches_nothing(void **state)
{
    (void)state;
    static const char name[] = /* SHA-256 of BASE, below */
        "/before-";
    char path[300];
    tree_put(HOSTS, BASE);
    assert_int_equal(tree_apply(&options), 1);
    struct dirent **entries;
    int count = scandir(state_path(""), &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        if (strncmp(entries[i]->d_name, name + 1, strlen(name) - 1) == 0) {
            (void)snprintf(path, sizeof path, "/%s", entries[i]->d_name);
            damaged(path, "other");
        }
        free(entries[i]);
    }
    free(entries);
    assert_string_not_equal(tree_get(HOSTS), BASE);
}

/* ---- edits of others between apply and revert ---- */

/* Applies to `before` ("" none), lets somebody write `edited`, reverts. */
static void edited(const char *before, const char *text, const char *after)
{
    if (before[0] != '\0')
        tree_put(HOSTS, before);
    else
        (void)unlink(tree_path(HOSTS));
    assert_int_equal(tree_apply(&options), 1);
    tree_put(HOSTS, text);
    assert_int_equal(tree_revert(&options), 0);
    assert_string_equal(tree_get(HOSTS), after);
    assert_int_equal(tree_revert(&options), 0); /* the manifest knows of nothing any more */
    assert_int_equal(tree_done.restored + tree_done.undone + tree_done.left, 0);
}

static void only_our_part_goes(void **state)
{
    (void)state;
    edited(BASE, "# new\n" BASE BEGIN HOST END "[host.\"https://new\"]\n",
           "# new\n" BASE "[host.\"https://new\"]\n");
    edited("", BEGIN HOST END "[host.\"https://new\"]\n", "[host.\"https://new\"]\n");
    edited("", "\n" BEGIN HOST END "\n", "(none)");
    edited(BASE, "# without ours\n" BASE, "# without ours\n" BASE);
    edited(BASE, BASE, BASE); /* taken back by hand */
    /* what they wrote into our block goes with it, as the mark says */
    edited(BASE, BASE BEGIN HOST "  skip_verify = true\n" END, BASE);
}

static void what_cannot_be_told_apart_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } cases[] = {
        {BASE BEGIN HOST END "skip_verify = true\n", "keys of others stand in a table of ours"},
        {BASE BEGIN HOST, "a mark of shoal without its partner"},
        {"broken\n" BEGIN HOST END, "a key without '='"},
        {BASE HOST, "our marks are gone, but the agent is still named"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tree_put(HOSTS, BASE);
        assert_int_equal(tree_apply(&options), 1);
        tree_put(HOSTS, cases[i].text);
        assert_int_equal(tree_revert(&options), E_REFUSED);
        assert_int_equal(tree_done.refused, 1);
        assert_non_null(strstr(tree_error.text, "1 files were left as they are"));
        assert_non_null(strstr(tree_printed, cases[i].why));
        assert_string_equal(tree_get(HOSTS), cases[i].text);
        tree_put(HOSTS, BASE); /* the operator mends it */
        assert_int_equal(tree_revert(&options), 0);
        assert_string_equal(tree_get(HOSTS), BASE);
    }
}

static void gone_or_turned_into_a_link(void **state)
{
    (void)state;
    tree_put(HOSTS, BASE);
    assert_int_equal(tree_apply(&options), 1);
    assert_int_equal(unlink(tree_path(HOSTS)), 0);
    assert_int_equal(tree_revert(&options), 0);
    assert_int_equal(tree_done.left, 1);
    assert_string_equal(tree_get(HOSTS), "(none)");
    assert_int_equal(tree_apply(&options), 1);
    assert_int_equal(unlink(tree_path(HOSTS)), 0);
    tree_put(CERTS "other", BASE);
    assert_int_equal(symlink("../other", tree_path(HOSTS)), 0);
    assert_int_equal(tree_revert(&options), E_REFUSED);
    assert_non_null(strstr(tree_printed, "it is a symbolic link"));
}

/* Somebody edits, then we write again: what comes back is theirs. */
static void a_second_apply_over_an_edit_keeps_it(void **state)
{
    (void)state;
    static const char theirs[] = "server = \"https://theirs\"\n";
    char text[512];
    tree_put(HOSTS, BASE);
    assert_int_equal(tree_apply(&options), 1);
    (void)snprintf(text, sizeof text, "%s" BEGIN HOST END, theirs);
    tree_put(HOSTS, text);
    options.mirror = "http://127.0.0.1:7";
    assert_int_equal(tree_apply(&options), 1);
    assert_int_equal(tree_revert(&options), 0);
    assert_int_equal(tree_done.restored, 1);
    assert_string_equal(tree_get(HOSTS), theirs);
    /* and one who takes our block out finds it again */
    assert_int_equal(tree_apply(&options), 1);
    tree_put(HOSTS, "# nothing\n");
    assert_int_equal(tree_apply(&options), 1);
    assert_int_equal(tree_revert(&options), 0);
    assert_string_equal(tree_get(HOSTS), "# nothing\n");
}

static void directories_that_others_use_stay(void **state)
{
    (void)state;
    assert_int_equal(tree_apply(&options), 1);
    tree_put(CERTS "r.example.com/ca.crt", "C");
    assert_int_equal(tree_revert(&options), 0);
    assert_string_equal(tree_get(CERTS "r.example.com/ca.crt"), "C");
    assert_string_equal(tree_get(HOSTS), "(none)");
}

/* ---- kill -9 ---- */

static void a_tree_of_three(void)
{
    tree_put(HOSTS, BASE);
    tree_put(CERTS "_default/hosts.toml", "[host.\"https://corp\"]\n");
    tree_put("/etc/containerd/config.toml", "version = 2\n");
    tree_put(CERTS "a.example.com/ca.crt", "A");
    options.registries = three;
    options.registry_count = 3;
    options.hosts_dir = NULL;
    options.set_config_path = true;
}

/* Each file is old or new after a kill anywhere; a second try ends as if there had been none. */
static void killed_at_every_step(void **state, bool killed_reverting, bool then_apply)
{
    unsigned steps = 1;
    for (unsigned at = 1; at <= steps; at++) {
        assert_int_equal(tree_make(state), 0);
        options = tree_options(RUNTIME_CONTAINERD, one, 1);
        a_tree_of_three();
        char *before = tree_picture();
        assert_int_equal(tree_apply(&options), 4);
        steps = tree_steps;
        char *after = tree_picture();
        assert_int_equal(tree_revert(&options), 0);
        if (killed_reverting)
            steps = tree_steps;
        if (killed_reverting)
            assert_int_equal(tree_apply(&options), 4);
        tree_kill_at = at;
        assert_int_equal(killed_reverting ? tree_revert(&options) : tree_apply(&options),
                         E_CANCELLED);
        tree_kill_at = 0;
        assert_true((then_apply ? tree_apply(&options) : 0) >= 0);
        if (!then_apply)
            assert_int_equal(tree_revert(&options), 0);
        char *end = tree_picture();
        assert_string_equal(end, then_apply ? after : before);
        assert_int_equal(tree_revert(&options), 0);
        char *last = tree_picture();
        assert_string_equal(last, before);
        free(before);
        free(after);
        free(end);
        free(last);
    }
    assert_true(steps >= 6);
}

static void a_killed_apply_is_done_again(void **state)
{
    killed_at_every_step(state, false, true);
}

static void a_killed_apply_is_reverted(void **state)
{
    killed_at_every_step(state, false, false);
}

static void a_killed_revert_is_done_again(void **state)
{
    killed_at_every_step(state, true, false);
}

static void a_killed_revert_is_applied_again(void **state)
{
    killed_at_every_step(state, true, true);
}

/* What tree_write leaves when it is killed in the middle. */
static void leftovers_are_removed(void **state)
{
    (void)state;
    tree_put(CERTS "r.example.com/.hosts.toml.shoal", "half");
    assert_int_equal(tree_apply(&options), 1);
    assert_string_equal(tree_get(CERTS "r.example.com/.hosts.toml.shoal"), "(none)");
    tree_put(CERTS "r.example.com/.hosts.toml.shoal", "half");
    assert_int_equal(tree_revert(&options), 0);
    assert_string_equal(tree_get(CERTS "r.example.com/.hosts.toml.shoal"), "(none)");
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tree_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(mode_owner_and_attributes_stay),
        T(new_files_and_directories_can_be_read),
        T(links_and_devices_are_refused),
        T(directories_are_looked_at),
        T(the_root_of_all_may_be_a_link),
        T(links_do_not_lead_out_of_the_root),
        T(files_of_any_size),
        T(a_write_that_fails_changes_nothing),
        T(a_file_changed_since_the_plan_is_left),
        T(one_at_a_time),
        T(the_state_must_be_ours),
        T(a_damaged_manifest_touches_nothing),
        T(a_lost_backup_touches_nothing),
        T(only_our_part_goes),
        T(what_cannot_be_told_apart_is_refused),
        T(gone_or_turned_into_a_link),
        T(a_second_apply_over_an_edit_keeps_it),
        T(directories_that_others_use_stay),
        T(a_killed_apply_is_done_again),
        T(a_killed_apply_is_reverted),
        T(a_killed_revert_is_done_again),
        T(a_killed_revert_is_applied_again),
        T(leftovers_are_removed),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
