/* SPDX-License-Identifier: Apache-2.0 */
/* Parsing of orders; see pull_order.h. */
#include "pull_order.h"

#include <stdio.h>
#include <string.h>

#include "bytes.h"

/* What is known nests four deep; jansson alone would take 2,048. */
#define DEPTH_MAX 16

static int fail(char error[PULL_ERROR_BYTES], int err, const char *text)
{
    (void)snprintf(error, PULL_ERROR_BYTES, "%s", text);
    return err;
}

static bool too_deep(const char *json, size_t json_bytes)
{
    unsigned depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < json_bytes; i++) {
        char c = json[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
            continue;
        }
        in_string = c == '"';
        depth += c == '[' || c == '{';
        depth -= (c == ']' || c == '}') && depth > 0;
        if (depth > DEPTH_MAX)
            return true;
    }
    return false;
}

static int take_platform(const json_t *value, struct pull_order *out, char error[PULL_ERROR_BYTES])
{
    const char *text = json_string_value(value);
    if (value == NULL || (text != NULL && text[0] == '\0'))
        return 0;
    out->all_platforms = text != NULL && strcmp(text, "all") == 0;
    if (text == NULL || (!out->all_platforms && platform_parse(text, &out->platform) != 0))
        return fail(error, E_INVALID, "platform: os/arch, os/arch/variant or all");
    return 0;
}

bool pull_on_parse(const char *text, struct pull_order *out)
{
    static const char *const names[] = {"local", "zone", "all"};
    uint64_t count = 0;
    out->on_count = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        out->on = (enum pull_on)i;
        if (strcmp(text, names[i]) == 0)
            return true;
    }
    for (const char *at = text; *at != '\0'; at++) {
        if (*at < '0' || *at > '9' || count > MEMBERS_MAX)
            return false;
        count = count * 10 + (uint64_t)(*at - '0');
    }
    out->on = PULL_ON_COUNT;
    out->on_count = (uint32_t)count;
    return count > 0 && count <= MEMBERS_MAX;
}

static int take_on(const json_t *value, struct pull_order *out, char error[PULL_ERROR_BYTES])
{
    char text[32] = "";
    if (value == NULL)
        return 0;
    if (json_is_integer(value))
        (void)snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value));
    else if (!json_is_string(value) || text_copy(text, sizeof text, json_string_value(value)) != 0)
        text[0] = '\0';
    if (text[0] != '\0' && pull_on_parse(text, out))
        return 0;
    return fail(error, E_INVALID, "on: local, zone, all or a number of nodes");
}

static int read_order(const json_t *root, struct pull_order *out, char error[PULL_ERROR_BYTES])
{
    static const char *const known[] = {"image", "platform", "on", "attached"};
    const char *image = json_string_value(json_object_get(root, "image"));
    const json_t *attached = json_object_get(root, "attached");
    size_t found = 0;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        found += json_object_get(root, known[i]) != NULL;
    if (found != json_object_size(root))
        return fail(error, E_INVALID, "known keys are image, platform, on and attached");
    if (image == NULL || image_name_parse(image, &out->image) != 0)
        return fail(error, E_INVALID, "image: no image's name (registry/name:tag)");
    if (attached != NULL && !json_is_boolean(attached))
        return fail(error, E_INVALID, "attached: true or false");
    out->attached = json_is_true(attached);
    int err = take_on(json_object_get(root, "on"), out, error);
    return err != 0 ? err : take_platform(json_object_get(root, "platform"), out, error);
}

int pull_json_load(const char *json, size_t json_bytes, size_t bytes_max, json_t **root,
                   char error[PULL_ERROR_BYTES])
{
    if (json_bytes > bytes_max || too_deep(json, json_bytes))
        return fail(error, E_TOO_LARGE, "the body is too long or nests too deep");
    *root = json_loadb(json, json_bytes, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(*root))
        return 0;
    json_decref(*root);
    return fail(error, E_MALFORMED, "the body is no JSON object");
}

int pull_order_parse(const char *json, size_t json_bytes, struct pull_order *out,
                     char error[PULL_ERROR_BYTES])
{
    json_t *root = NULL;
    *out = (struct pull_order){.attached = false};
    int err = pull_json_load(json, json_bytes, PULL_ORDER_BYTES_MAX, &root, error);
    if (err != 0)
        return err;
    err = read_order(root, out, error);
    json_decref(root);
    return err;
}
