/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `shoal doctor`: the report's limits and both its forms, weak secrets, dates of HTTP, and what is
 * found without an agent and without a network.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "daemon_scratch.h"
#include "../../src/daemon/doctor.h"
#include "../../src/daemon/port_owner.h"
#include "../../src/daemon/socket_addr.h"

static struct doctor_report report;
static struct config config;

static const struct finding *found(const char *check)
{
    for (unsigned i = 0; i < report.count; i++)
        if (strcmp(report.findings[i].check, check) == 0)
            return &report.findings[i];
    return NULL;
}

static const struct doctor *fresh(void)
{
    static struct doctor doctor;
    (void)memset(&report, 0, sizeof report);
    (void)memset(&config, 0, sizeof config);
    doctor = (struct doctor){.config = &config, .root = "", .report = &report};
    return &doctor;
}

static void report_is_bounded_and_counts_all(void **state)
{
    (void)state;
    (void)fresh();
    for (unsigned i = 0; i < FINDINGS_MAX + 5; i++)
        doctor_add(&report, FINDING_ERROR, "/x", "do", "number %u", i);
    assert_int_equal(report.count, FINDINGS_MAX);
    assert_int_equal(report.errors, FINDINGS_MAX + 5);
    assert_string_equal(report.findings[1].what, "number 1");
}

static void report_has_two_forms(void **state)
{
    (void)state;
    char *text = NULL;
    size_t bytes = 0;
    (void)fresh();
    report.check = "disk";
    doctor_add(&report, FINDING_ERROR, "/x", "make room", "full");
    report.check = "config";
    doctor_add(&report, FINDING_OK, "", "", "can be used");
    FILE *out = open_memstream(&text, &bytes);
    doctor_text(&report, out);
    (void)fclose(out);
    assert_string_equal(text, "ok       config    can be used\n"
                              "ERROR    disk      /x: full\n"
                              "                   -> make room\n"
                              "1 wrong, 0 worth a look\n");
    free(text);
    json_t *json = doctor_json(&report);
    assert_int_equal(json_integer_value(json_object_get(json, "errors")), 1);
    const json_t *first = json_array_get(json_object_get(json, "findings"), 0);
    assert_string_equal(json_string_value(json_object_get(first, "level")), "error");
    assert_string_equal(json_string_value(json_object_get(first, "do")), "make room");
    json_decref(json);
}

static void weak_secrets_are_known(void **state)
{
    (void)state;
    uint8_t secret[32] = {0};
    assert_true(doctor_secret_weak(secret, sizeof secret));
    for (unsigned i = 0; i < 32; i++)
        secret[i] = (uint8_t)(i % 11);
    assert_true(doctor_secret_weak(secret, sizeof secret));
    for (unsigned i = 0; i < 32; i++)
        secret[i] = (uint8_t)(i * 7);
    assert_false(doctor_secret_weak(secret, sizeof secret));
}

static void dates_are_read(void **state)
{
    (void)state;
    uint64_t s = 0;
    assert_int_equal(doctor_http_date("Sun, 06 Nov 1994 08:49:37 GMT", &s), 0);
    assert_int_equal(s, 784111777);
    assert_int_equal(doctor_http_date("Thu, 01 Jan 1970 00:00:00 GMT", &s), 0);
    assert_int_equal(s, 0);
    assert_int_equal(doctor_http_date("Thu, 29 Feb 2024 12:00:00 GMT", &s), 0);
    assert_int_equal(s, 1709208000);
    static const char *const bad[] = {"",
                                      "Sunday, 06-Nov-94 08:49:37 GMT",
                                      "Sun, 06 Nov 1994 08:49:37 CET",
                                      "Sun, 06 Xyz 1994 08:49:37 GMT",
                                      "Sun, 00 Nov 1994 08:49:37 GMT",
                                      "Sun, 06 Nov 1994 24:49:37 GMT",
                                      "Sun, 06 Nov 1969 08:49:37 GMT",
                                      "Sun, 06 Nov 199x 08:49:37 GMT"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(doctor_http_date(bad[i], &s), E_MALFORMED);
}

static void write_file(const char *path, const char *text, unsigned mode)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    (void)fputs(text, file);
    (void)fclose(file);
    assert_int_equal(chmod(path, mode), 0);
}

static void secrets_are_judged(void **state)
{
    (void)state;
    const struct doctor *doctor = fresh();
    doctor_secret(doctor);
    assert_int_equal(found("secret")->level, FINDING_OK); /* alone */
    doctor = fresh();
    config.bootstrap_count = 1;
    doctor_secret(doctor);
    assert_non_null(strstr(found("secret")->what, "there is no secret to share"));
    doctor = fresh();
    config.secret_file_count = 2;
    for (int i = 0; i < 2; i++)
        (void)snprintf(config.secret_files[i].text, CONFIG_PATH_BYTES, "%s/secret",
                       scratch_directory);
    doctor_secret(doctor);
    assert_int_equal(report.errors, 2); /* missing */
    write_file(config.secret_files[0].text,
               "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n", 0644);
    doctor = fresh();
    config.secret_file_count = 1;
    (void)snprintf(config.secret_files[0].text, CONFIG_PATH_BYTES, "%s/secret", scratch_directory);
    doctor_secret(doctor);
    assert_int_equal(report.errors, 1); /* open to all */
    assert_null(strstr(found("secret")->what, "0001020304"));
    assert_int_equal(chmod(config.secret_files[0].text, 0400), 0);
    doctor = fresh();
    config.secret_file_count = 2;
    for (int i = 0; i < 2; i++)
        (void)snprintf(config.secret_files[i].text, CONFIG_PATH_BYTES, "%s/secret",
                       scratch_directory);
    doctor_secret(doctor);
    assert_int_equal(report.errors, 0);
    assert_int_equal(report.warnings, 1); /* twice the same */
}

static void disk_is_tried(void **state)
{
    (void)state;
    const struct doctor *doctor = fresh();
    config.cache_mode = CONFIG_CACHE_DISK;
    config.cache_reserve_bytes = 1;
    (void)snprintf(config.data_dir.text, CONFIG_PATH_BYTES, "%s/none", scratch_directory);
    doctor_disk(doctor);
    assert_int_equal(report.warnings, 1); /* the agent will make it */
    doctor = fresh();
    config.cache_mode = CONFIG_CACHE_DISK;
    config.cache_reserve_bytes = 1;
    (void)snprintf(config.data_dir.text, CONFIG_PATH_BYTES, "%s", scratch_directory);
    doctor_disk(doctor);
    assert_int_equal(report.errors, 0);
    config.cache_reserve_bytes = UINT64_MAX;
    doctor_disk(doctor);
    assert_int_equal(report.errors, 1);
    doctor = fresh();
    (void)snprintf(config.data_dir.text, CONFIG_PATH_BYTES, "/proc/self"); /* nobody writes there */
    doctor_disk(doctor);
    assert_true(report.errors >= 1);
}

static void without_registries_that_is_said(void **state)
{
    (void)state;
    const struct doctor *doctor = fresh();
    doctor_registries(doctor);
    assert_int_equal(found("registry")->level, FINDING_WARNING);
    doctor = fresh();
    doctor_peers(doctor);
    assert_int_equal(found("peers")->level, FINDING_OK);
}

static void ports_have_owners(void **state)
{
    (void)state;
    static const char listening[] = "   3: 0100007F:FDE9 00000000:0000 0A 00000000:00000000 "
                                    "00:00000000 00000000     0        0 31337 1 0 100 0 0 10 0\n";
    static const char connected[] = "   3: 0100007F:FDE9 0100007F:9999 01 00000000:00000000 "
                                    "00:00000000 00000000     0        0 31337 1 0 100 0 0 10 0\n";
    assert_int_equal(port_owner_line(listening, 65001, true), 31337);
    assert_int_equal(port_owner_line(listening, 65002, true), 0);
    assert_int_equal(port_owner_line(connected, 65001, true), 0);
    assert_int_equal(port_owner_line(connected, 65001, false), 31337); /* UDP has no such state */
    assert_int_equal(port_owner_line("  sl  local_address rem_address", 0, true), 0);
    assert_int_equal(port_owner_line("", 65001, true), 0);
    char who[96], own[32];
    struct peer_addr any = {.ip = {[10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1}}, bound;
    int fd = -1;
    assert_int_equal(socket_listen(&any, SOCK_STREAM, &fd, &bound), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_true(port_owner(bound.port, true, who, sizeof who));
    (void)snprintf(own, sizeof own, "(pid %ld)", (long)getpid());
    assert_non_null(strstr(who, own));
    (void)close(fd);
    assert_false(port_owner(bound.port, true, who, sizeof who));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(report_is_bounded_and_counts_all),
        cmocka_unit_test(report_has_two_forms),
        cmocka_unit_test(weak_secrets_are_known),
        cmocka_unit_test(dates_are_read),
        cmocka_unit_test(secrets_are_judged),
        cmocka_unit_test(disk_is_tried),
        cmocka_unit_test(ports_have_owners),
        cmocka_unit_test(without_registries_that_is_said),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
