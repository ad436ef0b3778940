/* SPDX-License-Identifier: Apache-2.0 */
/* The node's logins in files: permissions, what is said of a bad one, and that it is read anew. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include <sys/stat.h>

#include "../../src/daemon/registry_logins.h"
#include "daemon_scratch.h"

static struct registry_login login;
static struct config_error error;

static int read_login(const char *path, const char *name)
{
    struct registry_entry entry = {0};
    (void)snprintf(entry.name, sizeof entry.name, "%s", name);
    (void)snprintf(entry.credentials_file, sizeof entry.credentials_file, "%s", path);
    return registry_login_read(&entry, &login, &error);
}

static const char *file_with(const char *text, mode_t mode)
{
    const char *path = scratch_path("login");
    (void)unlink(path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    (void)fputs(text, file);
    (void)fclose(file);
    assert_int_equal(chmod(path, mode), 0);
    return path;
}

static void a_file_only_we_can_read_is_used(void **state)
{
    (void)state;
    assert_int_equal(read_login(file_with("alice:HIDDEN\n", 0400), "r.test"), 0);
    assert_string_equal(login.user, "alice");
    assert_string_equal(login.password, "HIDDEN");
    /* A rotated Secret counts at once. */
    assert_int_equal(read_login(file_with("bob:HIDDEN2\n", 0400), "r.test"), 0);
    assert_string_equal(login.user, "bob");
}

/* HRD-4: whatever is wrong, nothing of the file is repeated. */
static void bad_files_are_told_of_without_their_text_hrd_4(void **state)
{
    static const struct {
        const char *text;
        mode_t mode;
        const char *said;
        int err;
    } rows[] = {
        {"alice:HIDDEN", 0444, "login", E_CONFIG},
        {"HIDDEN", 0400, "neither dockerconfigjson nor user:password", E_CONFIG},
        {"{\"auths\":{\"HIDDEN\":{}}}", 0400, "no entry for this registry", E_NOT_FOUND},
        {"{\"auths\":{\"r.test\":{\"email\":\"HIDDEN\"}}}", 0400,
         "the entry has neither password nor token", E_CONFIG},
        {"{\"auths\":{\"r.test\":{\"identitytoken\":\"HID DEN\"}}}", 0400, "no login for r.test",
         E_CONFIG},
        {"{\"auths\":{\"r.test\":{}},\"credsStore\":\"desktop\"}", 0400,
         "the login for r.test is with the credential helper docker-credential-desktop, and no "
         "programs are run: put `auth` or a token for it under `auths`, or name a file with "
         "user:password",
         E_CONFIG},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *path = file_with(rows[i].text, rows[i].mode);
        error.text[0] = '\0';
        assert_int_equal(read_login(path, "r.test"), rows[i].err);
        assert_non_null(strstr(error.text, rows[i].said));
        assert_null(strstr(error.text, "HIDDEN"));
    }
    assert_int_equal(read_login(scratch_path("absent"), "r.test"), E_CONFIG);
}

static void patterns_want_hosts_named(void **state)
{
    (void)state;
    assert_int_equal(read_login(file_with("alice:HIDDEN", 0400), "*.x.test"), E_CONFIG);
    assert_non_null(strstr(error.text, "a pattern needs dockerconfigjson"));
    assert_null(strstr(error.text, "HIDDEN"));
    assert_int_equal(read_login(file_with("{\"auths\":{}}", 0400), "*.x.test"), E_NOT_FOUND);
    assert_int_equal(read_login(file_with("{\"credsStore\":\"pass\"}", 0400), "*.x.test"),
                     E_NOT_FOUND);
}

static void the_origin_gets_the_same(void **state)
{
    struct registry_logins logins;
    struct origin_logins out;
    struct loop loop;
    struct loop_options options = {.log_level = LOG_ERROR, .log_fd = 2};

    (void)state;
    assert_int_equal(loop_init(&loop, &options), 0);
    registry_logins_bind(&logins, &loop, &out);
    struct registry_entry entry = {.name = "r.test"};
    (void)snprintf(entry.credentials_file, sizeof entry.credentials_file, "%s",
                   file_with("a\nb\n", 0400));
    assert_int_equal(out.find(out.host, &entry, &login), 0);
    assert_string_equal(login.password, "b");
    assert_int_equal(logins.warned_us, 0);
    /* Of a pattern's registry: a plain file is refused, and told of; one without an entry is usual.
     */
    entry.by_pattern = true;
    (void)file_with("{\"auths\":{}}", 0400);
    assert_int_equal(out.find(out.host, &entry, &login), E_NOT_FOUND);
    assert_int_equal(logins.warned_us, 0);
    (void)file_with("a\nb\n", 0400);
    assert_int_equal(out.find(out.host, &entry, &login), E_CONFIG);
    uint64_t warned_us = logins.warned_us;
    assert_int_not_equal(warned_us, 0);
    entry.by_pattern = false;
    (void)unlink(entry.credentials_file);
    assert_int_equal(out.find(out.host, &entry, &login), E_CONFIG);
    assert_int_equal(logins.warned_us, warned_us); /* once a minute (HRD-5) */
    loop_stop(&loop);
    loop_stop(&loop);
    assert_int_equal(loop_run(&loop), 0);
    loop_close(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_only_we_can_read_is_used),
        cmocka_unit_test(bad_files_are_told_of_without_their_text_hrd_4),
        cmocka_unit_test(patterns_want_hosts_named),
        cmocka_unit_test(the_origin_gets_the_same),
    };

    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
