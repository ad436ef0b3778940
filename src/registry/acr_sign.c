/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signing requests to Alibaba Cloud (acr_sign.h). The vectors of ACR.md §3 are the unit test: two
 * of them are the vendor's own.
 */
#include "acr_sign.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "digest.h"

/* The action's parameters and V1's nine. */
#define SORTED_MAX (ACR_PARAMS_MAX + 9)
#define SIGNED_MAX 9 /* headers under a V3 signature */

/* ---- parameters, for both ---- */

struct sorted {
    struct acr_param list[SORTED_MAX];
    unsigned count;
};

/* By the bytes of the name before encoding: upper case before lower. */
static void sorted_add(struct sorted *sorted, const char *name, const char *value)
{
    unsigned at = sorted->count++;

    for (; at > 0 && strcmp(sorted->list[at - 1].name, name) > 0; at--)
        sorted->list[at] = sorted->list[at - 1];
    sorted->list[at] = (struct acr_param){name, value};
}

static void sorted_open(struct sorted *sorted, const struct acr_request *request)
{
    sorted->count = 0;
    for (unsigned i = 0; i < request->param_count; i++)
        sorted_add(sorted, request->params[i].name, request->params[i].value);
}

static void sorted_write(const struct sorted *sorted, struct acr_text *out)
{
    for (unsigned i = 0; i < sorted->count; i++) {
        acr__text_put(out, i == 0 ? "" : "&");
        acr__text_encode(out, sorted->list[i].name);
        acr__text_put(out, "=");
        acr__text_encode(out, sorted->list[i].value);
    }
}

static bool has_token(const struct acr_request *request)
{
    return request->token != NULL && request->token[0] != '\0';
}

/* `hash` as OpenSSL names it; the result has `out_bytes`. */
static int hmac(const char *hash, const char *key, const char *text, uint8_t *out, size_t out_bytes)
{
    size_t made = 0;

    if (EVP_Q_mac(NULL, "HMAC", NULL, hash, NULL, key, strlen(key), (const unsigned char *)text,
                  strlen(text), out, out_bytes, &made) == NULL ||
        made != out_bytes)
        return E_INTERNAL;
    return 0;
}

/* ---- V1 ---- */

static void v1_params(struct sorted *sorted, const struct acr_request *request)
{
    sorted_open(sorted, request);
    sorted_add(sorted, "Action", request->action);
    sorted_add(sorted, "Version", request->version);
    sorted_add(sorted, "Format", request->format);
    sorted_add(sorted, "AccessKeyId", request->key_id);
    sorted_add(sorted, "SignatureMethod", "HMAC-SHA1");
    sorted_add(sorted, "SignatureVersion", "1.0");
    sorted_add(sorted, "SignatureNonce", request->nonce);
    sorted_add(sorted, "Timestamp", request->date);
    if (has_token(request))
        sorted_add(sorted, "SecurityToken", request->token);
}

int acr__sign_v1(const struct acr_request *request, struct acr_text *form, struct acr_text *work)
{
    struct sorted sorted;
    uint8_t mac[20];
    char key[ACR_SECRET_BYTES_MAX + 2], signature[32];
    int written = snprintf(key, sizeof key, "%s&", request->key_secret);
    int err = 0;

    if (request->param_count > ACR_PARAMS_MAX || written < 0 || (size_t)written >= sizeof key) {
        err = E_TOO_LARGE;
        goto out;
    }
    v1_params(&sorted, request);
    sorted_write(&sorted, form);
    acr__text_put(work, request->method);
    acr__text_put(work, "&%2F&");
    acr__text_encode(work, form->bytes);
    err = acr__text_check(form);
    if (err == 0)
        err = acr__text_check(work);
    if (err == 0)
        err = hmac("SHA1", key, work->bytes, mac, sizeof mac);
    if (err != 0)
        goto out;
    (void)EVP_EncodeBlock((unsigned char *)signature, mac, sizeof mac);
    acr__text_put(form, "&Signature=");
    acr__text_encode(form, signature);
    err = acr__text_check(form);
out:
    explicit_bzero(key, sizeof key);
    return err;
}

/* ---- V3 ---- */

static void hash_hex(const char *text, char out[65])
{
    uint8_t hash[32];

    sha256_of(text, strlen(text), hash);
    hex_encode(hash, sizeof hash, out);
}

/* Headers under the signature, by name; temporary credentials add two. */
static unsigned v3_signed(const struct acr_request *request, const char *body_hash,
                          struct fetch_header out[SIGNED_MAX])
{
    unsigned count = 0;

    if (request->content_type != NULL)
        out[count++] = (struct fetch_header){"content-type", request->content_type};
    out[count++] = (struct fetch_header){"host", request->host};
    if (has_token(request))
        out[count++] = (struct fetch_header){"x-acs-accesskey-id", request->key_id};
    out[count++] = (struct fetch_header){"x-acs-action", request->action};
    out[count++] = (struct fetch_header){"x-acs-content-sha256", body_hash};
    out[count++] = (struct fetch_header){"x-acs-date", request->date};
    if (has_token(request))
        out[count++] = (struct fetch_header){"x-acs-security-token", request->token};
    out[count++] = (struct fetch_header){"x-acs-signature-nonce", request->nonce};
    out[count++] = (struct fetch_header){"x-acs-version", request->version};
    return count;
}

static void v3_names(const struct fetch_header *headers, unsigned count, struct acr_text *out)
{
    for (unsigned i = 0; i < count; i++) {
        acr__text_put(out, i == 0 ? "" : ";");
        acr__text_put(out, headers[i].name);
    }
}

static void v3_canonical(const struct acr_request *request, const char *query,
                         const char *body_hash, struct acr_text *out)
{
    struct fetch_header headers[SIGNED_MAX];
    unsigned count = v3_signed(request, body_hash, headers);

    acr__text_put(out, request->method);
    acr__text_put(out, "\n/\n");
    acr__text_put(out, query);
    acr__text_put(out, "\n");
    for (unsigned i = 0; i < count; i++) {
        acr__text_put(out, headers[i].name);
        acr__text_put(out, ":");
        acr__text_put(out, headers[i].value);
        acr__text_put(out, "\n");
    }
    acr__text_put(out, "\n");
    v3_names(headers, count, out);
    acr__text_put(out, "\n");
    acr__text_put(out, body_hash);
}

static void v3_authorization(const struct acr_request *request, const struct acr_v3 *made,
                             struct acr_text *out)
{
    struct fetch_header headers[SIGNED_MAX];
    unsigned count = v3_signed(request, made->body_hash, headers);

    acr__text_put(out, "ACS3-HMAC-SHA256 Credential=");
    acr__text_put(out, request->key_id);
    acr__text_put(out, ",SignedHeaders=");
    v3_names(headers, count, out);
    acr__text_put(out, ",Signature=");
    acr__text_put(out, made->signature);
}

int acr__sign_v3(const struct acr_request *request, struct acr_text *query,
                 struct acr_text *authorization, struct acr_text *work, struct acr_v3 *out)
{
    struct sorted sorted;
    uint8_t mac[32];
    char to_sign[sizeof "ACS3-HMAC-SHA256\n" + 64];
    int err;

    if (request->param_count > ACR_PARAMS_MAX || strlen(request->key_secret) > ACR_SECRET_BYTES_MAX)
        return E_TOO_LARGE;
    sorted_open(&sorted, request);
    sorted_write(&sorted, query);
    hash_hex(request->body == NULL ? "" : request->body, out->body_hash);
    v3_canonical(request, query->bytes, out->body_hash, work);
    err = acr__text_check(query);
    if (err == 0)
        err = acr__text_check(work);
    if (err != 0)
        return err;
    hash_hex(work->bytes, out->request_hash);
    (void)snprintf(to_sign, sizeof to_sign, "ACS3-HMAC-SHA256\n%s", out->request_hash);
    err = hmac("SHA256", request->key_secret, to_sign, mac, sizeof mac);
    if (err != 0)
        return err;
    hex_encode(mac, sizeof mac, out->signature);
    v3_authorization(request, out, authorization);
    return acr__text_check(authorization);
}

unsigned acr__v3_headers(const struct acr_request *request, const struct acr_v3 *made,
                         const char *authorization, struct fetch_header out[ACR_V3_HEADERS_MAX])
{
    struct fetch_header headers[SIGNED_MAX];
    unsigned signed_count = v3_signed(request, made->body_hash, headers), count = 0;

    out[count++] = (struct fetch_header){"accept", "application/json"};
    out[count++] = (struct fetch_header){"authorization", authorization};
    for (unsigned i = 0; i < signed_count; i++)
        if (strcmp(headers[i].name, "host") != 0)
            out[count++] = headers[i];
    return count;
}
