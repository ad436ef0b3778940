/* SPDX-License-Identifier: Apache-2.0 */
/* Request heads (HTTP-1, HTTP-2): what is taken is clean, needs exactly its own bytes, and means
 * the same when it is written down again. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "http.h"
#include "log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct http_request request, again;
static char text[2 * HTTP_HEAD_BYTES_MAX];

static void check_clean(const struct http_request *taken)
{
    ASSERT(taken->target[0] == '/');
    ASSERT(strpbrk(taken->target, " \t\r\n#\\\"<>") == NULL);
    ASSERT(taken->header_count <= HTTP_HEADERS_MAX);
    for (unsigned i = 0; i < taken->header_count; i++) {
        const char *name = taken->headers[i].name, *value = taken->headers[i].value;
        ASSERT(name[0] != '\0');
        ASSERT(strpbrk(name, " \t\r\n:ABCDEFGHIJKLMNOPQRSTUVWXYZ") == NULL);
        ASSERT(strpbrk(value, "\r\n") == NULL);
        ASSERT(value[0] != ' ' && value[0] != '\t');
    }
    ASSERT(taken->http_1_0 || http_request_header(taken, "host") != NULL);
    ASSERT(http_request_header(taken, "transfer-encoding") == NULL);
}

/* Writes the request anew and compares what is read back. */
static void check_round_trip(const struct http_request *taken)
{
    static const char *const methods[] = {"?", "GET", "HEAD", "?", "POST"};
    size_t used = 0;
    int status = 0;
    int at = snprintf(text, sizeof text, "%s %s HTTP/1.%d\r\n", methods[taken->method],
                      taken->target, taken->http_1_0 ? 0 : 1);
    for (unsigned i = 0; i < taken->header_count; i++)
        at += snprintf(text + at, sizeof text - (size_t)at, "%s:%s\r\n", taken->headers[i].name,
                       taken->headers[i].value);
    at += snprintf(text + at, sizeof text - (size_t)at, "\r\n");
    ASSERT((size_t)at < sizeof text);
    if (at > HTTP_HEAD_BYTES_MAX) /* "PUT" written as "POST" may just not fit */
        return;
    int err = http_request_parse((const uint8_t *)text, (size_t)at, &again, &used, &status);
    ASSERT(err == 0);
    ASSERT(used == (size_t)at);
    ASSERT(again.method == taken->method);
    ASSERT(again.keep_alive == taken->keep_alive);
    ASSERT(again.header_count == taken->header_count);
    ASSERT(strcmp(again.target, taken->target) == 0);
    for (unsigned i = 0; i < taken->header_count; i++) {
        ASSERT(strcmp(again.headers[i].name, taken->headers[i].name) == 0);
        ASSERT(strcmp(again.headers[i].value, taken->headers[i].value) == 0);
    }
}

/* Ports that take orders see the same, but for POST. */
static void check_order(const uint8_t *data, size_t size)
{
    static struct http_request order;
    size_t used = 0, other = 0;
    int status = 0, other_status = 0;
    int err = http_request_parse_order(data, size, 1000, &order, &used, &status);
    int plain = http_request_parse(data, size, &again, &other, &other_status);
    if (err == 0)
        ASSERT(used <= size && order.body_bytes <= (order.method == HTTP_POST ? 1000U : 0U));
    if (plain == 0 || (err != 0 && plain != E_UNSUPPORTED && plain != E_TOO_LARGE))
        ASSERT(err == plain && used == other);
    if (plain == 0)
        ASSERT(order.body_bytes == 0 && order.header_count == again.header_count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t used = 0, other = 0;
    int status = 0;
    check_order(data, size);
    int err = http_request_parse(data, size, &request, &used, &status);
    if (err == E_AGAIN) {
        ASSERT(size < HTTP_HEAD_BYTES_MAX);
        ASSERT(status == 0);
        return 0;
    }
    if (err != 0) {
        ASSERT(used == 0);
        ASSERT(status == 400 || status == 405 || status == 413 || status == 414 || status == 431 ||
               status == 501 || status == 505);
        return 0;
    }
    ASSERT(used <= size);
    ASSERT(used <= HTTP_HEAD_BYTES_MAX);
    check_clean(&request);
    check_round_trip(&request);
    bool accepts = http_accepts(&request, "application/vnd.oci.image.index.v1+json");
    ASSERT(accepts || http_request_header(&request, "accept") != NULL);
    err = http_request_parse(data, used - 1, &again, &other, &status);
    ASSERT(err == E_AGAIN);
    err = http_request_parse(data, used, &again, &other, &status);
    ASSERT(err == 0);
    ASSERT(other == used);
    return 0;
}
