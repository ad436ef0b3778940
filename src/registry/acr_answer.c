/* SPDX-License-Identifier: Apache-2.0 */
/* Errors and keys of the cloud's APIs; see acr_answer.h. Endpoints are in acr_endpoints.c. */
#include "acr_answer.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "acr_call.h"
#include "bytes.h"
#include "json_bounded.h"

/* ---- errors ---- */

/* Some services write the keys in lower case. */
static json_t *get_any_case(json_t *object, const char *name)
{
    const char *key;
    json_t *value;

    json_object_foreach(object, key, value) if (strcasecmp(key, name) == 0) return value;
    return NULL;
}

static void clean(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || (unsigned char)*text > 0x7e)
            *text = ' ';
}

/* Cut where it is too long, bytes that a log line may not carry replaced; "" if it is no text. */
static void text_take(char *out, size_t out_bytes, const char *text)
{
    (void)snprintf(out, out_bytes, "%s", text == NULL ? "" : text);
    clean(out);
}

/* Between <name> and </name>. */
static void xml_take(char *out, size_t out_bytes, const char *body, const char *name)
{
    char open[32];
    const char *start, *end;

    (void)snprintf(open, sizeof open, "<%s>", name);
    start = strstr(body, open);
    if (start == NULL)
        return;
    start += strlen(open);
    end = strchr(start, '<');
    if (end == NULL)
        return;
    (void)snprintf(out, out_bytes, "%.*s", (int)(end - start > 1000 ? 1000 : end - start), start);
    clean(out);
}

void acr__error_parse(const char *body, size_t body_bytes, struct acr_error *out)
{
    json_t *root, *detail;

    *out = (struct acr_error){.code = ""};
    if (json__load(body, body_bytes, ACR_ANSWER_BYTES_MAX, &root) != 0) {
        if (strlen(body) != body_bytes)
            return;
        xml_take(out->code, sizeof out->code, body, "Code");
        xml_take(out->message, sizeof out->message, body, "Message");
        return;
    }
    text_take(out->code, sizeof out->code, json_string_value(get_any_case(root, "Code")));
    text_take(out->message, sizeof out->message, json_string_value(get_any_case(root, "Message")));
    detail = get_any_case(root, "AccessDeniedDetail");
    text_take(out->action, sizeof out->action,
              json_string_value(get_any_case(detail, "AuthAction")));
    json_decref(root);
}

bool acr__answer_succeeded(const char *body, size_t body_bytes)
{
    json_t *root;
    const char *code;
    bool fine;

    if (json__load(body, body_bytes, ACR_ANSWER_BYTES_MAX, &root) != 0)
        return false;
    code = json_string_value(get_any_case(root, "Code"));
    fine = json_is_object(root) && !json_is_false(get_any_case(root, "IsSuccess")) &&
           (code == NULL || strcasecmp(code, "success") == 0);
    json_decref(root);
    return fine;
}

/* ---- keys ---- */

/* What may stand in a header; the values of real ones are base64 and the like. */
static bool printable(const char *text)
{
    for (; *text != '\0'; text++)
        if (*text <= 0x20 || *text >= 0x7f)
            return false;
    return true;
}

static int part_take(char *out, size_t out_bytes, const json_t *value)
{
    const char *text = json_string_value(value);

    if (text == NULL || text[0] == '\0' || !printable(text))
        return E_MALFORMED;
    return text_copy(out, out_bytes, text);
}

static int keys_take(const json_t *from, struct acr_keys *out, uint64_t *expires_s)
{
    const char *expiration = json_string_value(json_object_get(from, "Expiration"));
    int err = part_take(out->id, sizeof out->id, json_object_get(from, "AccessKeyId"));

    if (err == 0)
        err = part_take(out->secret, sizeof out->secret, json_object_get(from, "AccessKeySecret"));
    if (err == 0)
        err = part_take(out->token, sizeof out->token, json_object_get(from, "SecurityToken"));
    if (err == 0)
        err = expiration == NULL ? E_MALFORMED : acr__date_parse(expiration, expires_s);
    return err;
}

int acr__keys_parse(const char *body, size_t body_bytes, bool from_metadata, struct acr_keys *out,
                    uint64_t *expires_s)
{
    json_t *root;
    const char *code;
    int err = json__load(body, body_bytes, ACR_ANSWER_BYTES_MAX, &root);

    if (err != 0)
        return err;
    code = json_string_value(json_object_get(root, "Code"));
    if (from_metadata && (code == NULL || strcmp(code, "Success") != 0))
        err = E_ORIGIN;
    else
        err =
            keys_take(from_metadata ? root : json_object_get(root, "Credentials"), out, expires_s);
    json_decref(root);
    return err;
}

static bool blank(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* Copies the next word; *text moves behind it. */
static int word_take(const char **text, char *out, size_t out_bytes)
{
    const char *end;

    while (blank(**text))
        (*text)++;
    for (end = *text; *end != '\0' && !blank(*end); end++)
        ;
    if (end == *text)
        return E_MALFORMED;
    int err = text_copy_n(out, out_bytes, *text, (size_t)(end - *text));
    *text = end;
    return err == 0 && !printable(out) ? E_MALFORMED : err;
}

int acr__keys_parse_lines(const char *text, struct acr_keys *out)
{
    int err = word_take(&text, out->id, sizeof out->id);

    if (err == 0)
        err = word_take(&text, out->secret, sizeof out->secret);
    while (blank(*text))
        text++;
    out->token[0] = '\0';
    return err == 0 && *text != '\0' ? E_MALFORMED : err;
}
