/* SPDX-License-Identifier: Apache-2.0 */
/* The status page's document and its headers, and the answer with its figures; see page.h. */
#include "page.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "digest.h"
#include "log.h"

#define HASH_TEXT_BYTES 48 /* base64 of 32 bytes and a zero */

/* CSP 3 §6.7.2.2: base64 of the SHA-256 of everything between an element's tags. */
static void hash_between(const char *open, const char *close, char out[HASH_TEXT_BYTES])
{
    uint8_t hash[32];
    const unsigned char *end = page_html + page_html_bytes;
    const unsigned char *first = memmem(page_html, page_html_bytes, open, strlen(open));
    ASSERT(first != NULL);
    first += strlen(open);
    const unsigned char *last = memmem(first, (size_t)(end - first), close, strlen(close));
    ASSERT(last != NULL);
    sha256_of(first, (size_t)(last - first), hash);
    (void)sodium_bin2base64(out, HASH_TEXT_BYTES, hash, sizeof hash,
                            sodium_base64_VARIANT_ORIGINAL);
}

void page_policy(char out[PAGE_POLICY_BYTES])
{
    char style[HASH_TEXT_BYTES], script[HASH_TEXT_BYTES];
    hash_between("<style>", "</style>", style);
    hash_between("<script>", "</script>", script);
    int bytes = snprintf(out, PAGE_POLICY_BYTES,
                         "default-src 'none'; style-src 'sha256-%s'; script-src 'sha256-%s'; "
                         "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
                         "frame-ancestors 'none'; require-trusted-types-for 'script'; "
                         "trusted-types 'none'",
                         style, script);
    ASSERT(bytes > 0 && bytes < PAGE_POLICY_BYTES);
}

/* Of every answer: kept nowhere, taken for nothing else, readable by no other site's page. */
static void guard(struct response *response, const char *type)
{
    response_add(response, "Content-Type", type);
    response_add(response, "Cache-Control", "no-store");
    response_add(response, "X-Content-Type-Options", "nosniff");
    response_add(response, "Cross-Origin-Resource-Policy", "same-origin");
    response_add(response, "Referrer-Policy", "no-referrer");
}

void page_answer(struct exchange *exchange)
{
    char policy[PAGE_POLICY_BYTES];
    struct response response = {.status = 200};
    page_policy(policy);
    guard(&response, "text/html; charset=utf-8");
    response_add(&response, "Content-Security-Policy", policy);
    exchange_respond(exchange, &response, page_html, page_html_bytes);
}

void page_json_answer(struct agent *agent, struct exchange *exchange, bool names)
{
    static const char no_memory[] = "out of memory\n";
    char *text = page_json(agent, names);
    struct response response = {.status = text == NULL ? 503 : 200};
    guard(&response, text == NULL ? "text/plain; charset=utf-8" : "application/json");
    exchange_respond(exchange, &response, text == NULL ? no_memory : text,
                     text == NULL ? sizeof no_memory - 1 : strlen(text));
    free(text);
}
