/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/http/accept.c: which media types a client takes (RFC 9110 §12.5.1). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "http.h"

#define OCI    "application/vnd.oci.image.manifest.v1+json"
#define INDEX  "application/vnd.oci.image.index.v1+json"
#define DOCKER "application/vnd.docker.distribution.manifest.v2+json"

static struct http_request request;

static bool accepts(const char *lines, const char *type)
{
    char text[1024];
    size_t used = 0;
    int status = 0;
    (void)snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n", lines);
    assert_int_equal(
        http_request_parse((const uint8_t *)text, strlen(text), &request, &used, &status), 0);
    return http_accepts(&request, type);
}

static void test_types_by_accept(void **state)
{
    (void)state;
    static const struct {
        const char *lines, *type;
        bool wanted;
    } rows[] = {
        {"", OCI, true}, /* who says nothing takes everything */
        {"Accept: " OCI "\r\n", OCI, true},
        {"Accept: " OCI "\r\n", "APPLICATION/vnd.oci.image.manifest.v1+JSON", true},
        {"Accept: " OCI "\r\n", OCI "; charset=utf-8", true},
        {"Accept: " OCI "\r\n", DOCKER, false},
        {"Accept: " DOCKER ", " INDEX "\r\n", OCI, false},
        {"Accept: " DOCKER " ,\t" INDEX "\r\n", INDEX, true},
        {"Accept: " DOCKER "\r\nAccept: " OCI "\r\n", OCI, true},
        {"Accept: " DOCKER ", */*\r\n", OCI, true},
        {"Accept: application/*\r\n", OCI, true},
        {"Accept: text/*\r\n", OCI, false},
        {"Accept: applicatio/*\r\n", OCI, false},
        {"Accept: *\r\n", OCI, false}, /* no media range */
        {"Accept:\r\n", OCI, false},
        {"Accept: ,,;q=0,\r\n", OCI, false},
        /* weights */
        {"Accept: " OCI ";q=0\r\n", OCI, false},
        {"Accept: " OCI " ; Q=0.00\r\n", OCI, false},
        {"Accept: " OCI ";q=0.001\r\n", OCI, true},
        {"Accept: " OCI ";q=00\r\n", OCI, false},
        {"Accept: " OCI ";v=1;q=0\r\n", OCI, false},
        {"Accept: " OCI ";q=\r\n", OCI, true},
        {"Accept: */*, " OCI ";q=0\r\n", OCI, false}, /* the closest range decides */
        {"Accept: " OCI ";q=0, */*\r\n", OCI, false},
        {"Accept: " OCI ", */*;q=0\r\n", OCI, true},
        {"Accept: application/*;q=0, */*\r\n", OCI, false},
        {"Accept: application/*;q=0, " OCI "\r\n", OCI, true},
        /* of two equally close ones a yes wins */
        {"Accept: " OCI ";q=0, " OCI "\r\n", OCI, true},
        {"Accept: " OCI ", " OCI ";q=0\r\n", OCI, true},
        /* quotes */
        {"Accept: text/x;a=\"b, " OCI "\"\r\n", OCI, false},
        {"Accept: text/x;a=\"b\\\", c\", " OCI "\r\n", OCI, true},
        {"Accept: text/x;a=\", " OCI "\r\n", OCI, false},
        {"Accept: text/x;a=\"\\\r\n", OCI, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (accepts(rows[i].lines, rows[i].type) != rows[i].wanted)
            fail_msg("%s for %s", rows[i].lines, rows[i].type);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types_by_accept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
