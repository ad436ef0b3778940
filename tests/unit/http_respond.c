/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/http/respond.c: response heads and OCI error bodies. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <string.h>

#include "http.h"

static void test_builds_a_head(void **state)
{
    (void)state;
    struct http_head head;
    char out[256];
    size_t used = 0;
    http_head_begin(&head, out, sizeof out, 206);
    http_head_add(&head, "Content-Type", "application/octet-stream");
    http_head_add_uint(&head, "Content-Length", UINT64_MAX);
    http_head_add(&head, "Content-Range", "bytes 0-1/2");
    http_head_add(&head, "X-Empty", "");
    assert_int_equal(http_head_end(&head, &used), 0);
    static const char expected[] = "HTTP/1.1 206 Partial Content\r\n"
                                   "Content-Type: application/octet-stream\r\n"
                                   "Content-Length: 18446744073709551615\r\n"
                                   "Content-Range: bytes 0-1/2\r\n"
                                   "X-Empty: \r\n"
                                   "\r\n";
    assert_int_equal(used, sizeof expected - 1);
    assert_memory_equal(out, expected, used);
}

static void test_no_room_is_too_large(void **state)
{
    (void)state;
    char out[64];
    size_t full = sizeof "HTTP/1.1 200 OK\r\nA: b\r\n\r\n" - 1;
    for (size_t capacity = 0; capacity <= full; capacity++) {
        struct http_head head;
        size_t used = 99;
        memset(out, 0x5a, sizeof out);
        http_head_begin(&head, out, capacity, 200);
        http_head_add(&head, "A", "b");
        assert_int_equal(http_head_end(&head, &used), capacity < full ? E_TOO_LARGE : 0);
        assert_int_equal(used, capacity < full ? 99 : full);
        assert_int_equal(out[capacity], 0x5a);
    }
}

static void test_nothing_can_split_a_response(void **state)
{
    (void)state;
    static const struct {
        const char *name, *value;
    } bad[] = {
        {"X", "a\r\nSet-Cookie: b"},
        {"X", "a\nb"},
        {"X", "a\rb"},
        {"X", "\x01"},
        {"X", "\x7f"},
        {"X\r\nY", "a"},
        {"X Y", "a"},
        {"X:", "a"},
        {"", "a"},
        {"\xc3\xa9", "a"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct http_head head;
        char out[128];
        size_t used = 99;
        http_head_begin(&head, out, sizeof out, 200);
        http_head_add(&head, bad[i].name, bad[i].value);
        http_head_add(&head, "A", "b"); /* the first failure sticks */
        assert_int_equal(http_head_end(&head, &used), E_MALFORMED);
        assert_int_equal(used, 99);
    }
    struct http_head head;
    char out[128];
    size_t used = 0;
    http_head_begin(&head, out, sizeof out, 200);
    http_head_add(&head, "X", "tab\tand \xc3\xa9");
    assert_int_equal(http_head_end(&head, &used), 0);
}

static void test_status_texts(void **state)
{
    (void)state;
    static const int known[] = {200, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403,
                                404, 405, 406, 408, 409, 410, 412, 413, 414, 416, 421,
                                429, 431, 451, 500, 501, 502, 503, 504, 505, 507};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        assert_string_not_equal(http_status_text(known[i]), "Unknown");
    assert_string_equal(http_status_text(200), "OK");
    assert_string_equal(http_status_text(416), "Range Not Satisfiable");
    assert_string_equal(http_status_text(418), "Unknown");
    assert_string_equal(http_status_text(-1), "Unknown");
}

static void test_status_line_has_three_digits(void **state)
{
    (void)state;
    static const int bad[] = {0, 99, 600, 1000, -200};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct http_head head;
        char out[64];
        size_t used = 0;
        http_head_begin(&head, out, sizeof out, bad[i]);
        assert_int_equal(http_head_end(&head, &used), E_MALFORMED);
    }
    struct http_head head;
    char out[64];
    size_t used = 0;
    http_head_begin(&head, out, sizeof out, 599); /* a registry's own status is passed on */
    assert_int_equal(http_head_end(&head, &used), 0);
    assert_memory_equal(out, "HTTP/1.1 599 Unknown\r\n\r\n", used);
}

static void assert_oci_error(const char *code, const char *message, const char *expected)
{
    char out[1024];
    size_t used = 0;
    assert_int_equal(http_oci_error(out, sizeof out, code, message, &used), 0);
    json_t *root = json_loadb(out, used, 0, NULL);
    assert_non_null(root);
    json_t *errors = json_object_get(root, "errors");
    assert_int_equal(json_array_size(errors), 1);
    json_t *error = json_array_get(errors, 0);
    assert_string_equal(json_string_value(json_object_get(error, "code")), code);
    assert_string_equal(json_string_value(json_object_get(error, "message")), expected);
    json_decref(root);
}

static void test_oci_error_is_json_whatever_the_message(void **state)
{
    (void)state;
    assert_oci_error("NAME_INVALID", "invalid repository name", "invalid repository name");
    assert_oci_error("BLOB_UNKNOWN", "", "");
    assert_oci_error("UNKNOWN", "a \"b\" \\c", "a \"b\" \\c");
    assert_oci_error("UNKNOWN",
                     "a\r\n\t\x01\x1f\x7f"
                     "b",
                     "a\r\n\t\x01\x1f?b");
    assert_oci_error("UNKNOWN", "\xc3\xa9\xff", "???");
    assert_oci_error("UNKNOWN", "</script>", "</script>");
}

static void test_oci_error_needs_room(void **state)
{
    (void)state;
    char out[128];
    size_t full = 0;
    assert_int_equal(http_oci_error(out, sizeof out, "UNKNOWN", "a\"b", &full), 0);
    for (size_t room = 0; room < full; room++) {
        size_t used = 99;
        assert_int_equal(http_oci_error(out, room, "UNKNOWN", "a\"b", &used), E_TOO_LARGE);
        assert_int_equal(used, 99);
    }
    size_t used = 0;
    assert_int_equal(http_oci_error(out, full, "UNKNOWN", "a\"b", &used), 0);
    assert_int_equal(used, full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_builds_a_head),
        cmocka_unit_test(test_no_room_is_too_large),
        cmocka_unit_test(test_nothing_can_split_a_response),
        cmocka_unit_test(test_status_texts),
        cmocka_unit_test(test_status_line_has_three_digits),
        cmocka_unit_test(test_oci_error_is_json_whatever_the_message),
        cmocka_unit_test(test_oci_error_needs_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
