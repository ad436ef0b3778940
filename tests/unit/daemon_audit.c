/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of the audit log: what is in them, and that nothing of a query or a login is (HRD-4). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "bytes.h"
#include "../../src/daemon/audit.h"

static struct http_request request;
static struct peer_addr peer;
static char line[AUDIT_LINE_BYTES];

static const char *of(const char *target, int status, uint64_t sent, uint64_t length)
{
    const struct exchange_outcome outcome = {.peer = &peer,
                                             .request = &request,
                                             .status = status,
                                             .body_bytes = sent,
                                             .length = length,
                                             .arrived_us = 1000000};
    size_t bytes = strlen(target);
    assert_true(bytes < sizeof request.target);
    memcpy(request.target, target, bytes + 1);
    return audit_line(&outcome, 1042999, line);
}

static void a_request_is_one_line(void **state)
{
    (void)state;
    assert_int_equal(peer_addr_parse("10.0.0.7:4711", 0, &peer), 0);
    request.method = HTTP_GET;
    assert_string_equal(of("/v2/lib/app/blobs/sha256:00?ns=r.example.com%3A5000", 206, 100, 300),
                        "audit: client=10.0.0.7:4711 method=GET registry=r.example.com%3A5000 "
                        "path=/v2/lib/app/blobs/sha256:00 status=206 bytes=100 of=300 ms=42");
    request.method = HTTP_HEAD;
    assert_string_equal(of("/v2/a/manifests/b", 0, 0, 0),
                        "audit: client=10.0.0.7:4711 method=HEAD registry=- "
                        "path=/v2/a/manifests/b status=0 bytes=0 of=0 ms=42");
    request.method = HTTP_OTHER;
    assert_non_null(strstr(of("/v2/", 405, 1, 1), " method=- "));
}

static void keys_and_passwords_are_left_out(void **state)
{
    (void)state;
    static const char *const targets[] = {
        "/accelerator/https://b.oss.example.com/x/data?Expires=1&ns=MARK&Signature=MARK",
        "/accelerator/https://user:MARK@b.example.com/x",
        "/v2/a/blobs/sha256:00?token=MARK&ns=r.test",
        "/v2/a/tags/list?xns=MARK",
        "/v2/a/tags/list?ns=<MARK>",
        "/v2/a/tags/list?ns=MARK\"x",
        "/v2/a#MARK",
    };
    request.method = HTTP_GET;
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++)
        assert_null(strstr(of(targets[i], 200, 0, 0), "MARK"));
    assert_non_null(strstr(of(targets[2], 200, 0, 0), " registry=r.test "));
    assert_non_null(strstr(of("/v2/a\x01"
                              "b c",
                              200, 0, 0),
                           " path=/v2/a?b?c "));
}

static void long_targets_are_cut(void **state)
{
    (void)state;
    char target[4096];
    memset(target, 'a', sizeof target);
    target[0] = '/';
    target[sizeof target - 1] = '\0';
    const char *made = of(target, 404, 9, 9);
    assert_true(strlen(made) < AUDIT_LINE_BYTES - 1);
    assert_non_null(strstr(made, " status=404 bytes=9 of=9 ms=42"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_one_line),
        cmocka_unit_test(keys_and_passwords_are_left_out),
        cmocka_unit_test(long_targets_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
