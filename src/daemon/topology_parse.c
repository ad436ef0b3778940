/* SPDX-License-Identifier: Apache-2.0 */
/* Parsing of what the sources of topology labels answer; see topology_parse.h. */
#include "topology_parse.h"

#include <jansson.h>
#include <string.h>

#include "bytes.h"

#define ZONE_KEY        "topology.kubernetes.io/zone"
#define REGION_KEY      "topology.kubernetes.io/region"
#define ZONE_KEY_BETA   "failure-domain.beta.kubernetes.io/zone"
#define REGION_KEY_BETA "failure-domain.beta.kubernetes.io/region"
#define VALUE_BYTES     256 /* Kubernetes allows 63; a key 253 + 1 + 63 */
#define KEY_BYTES       320

static const char *const source_names[TOPOLOGY_SOURCE_COUNT] = {
    "unknown", "configuration", "kubernetes", "ecs", "aws", "gcp", "azure", "prefixes"};

const char *topology_source_name(enum topology_source source)
{
    return source < TOPOLOGY_SOURCE_COUNT ? source_names[source] : source_names[0];
}

enum topology_source topology_source_find(const char *name)
{
    for (unsigned i = TOPOLOGY_KUBERNETES; i < TOPOLOGY_SOURCE_COUNT; i++) {
        if (strcmp(name, source_names[i]) == 0)
            return (enum topology_source)i;
    }
    return TOPOLOGY_UNKNOWN;
}

static bool blank(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

int topology_label(struct label *out, const char *text)
{
    while (blank(*text))
        text++;
    size_t bytes = strlen(text);
    while (bytes > 0 && blank(text[bytes - 1]))
        bytes--;
    return bytes > 0 && label_set(out, text, bytes) == 0 ? 0 : E_MALFORMED;
}

/* A value that is no label is as good as none. */
static void take(struct label *out, const char *value)
{
    int err = topology_label(out, value);
    (void)err;
}

/* The newer key's value wins, in whatever order they come. */
static void take_pair(struct topology *out, const char *key, const char *value,
                      const char *vswitch_key)
{
    if (strcmp(key, ZONE_KEY) == 0)
        take(&out->zone, value);
    else if (strcmp(key, REGION_KEY) == 0)
        take(&out->region, value);
    else if (strcmp(key, ZONE_KEY_BETA) == 0 && out->zone.text[0] == '\0')
        take(&out->zone, value);
    else if (strcmp(key, REGION_KEY_BETA) == 0 && out->region.text[0] == '\0')
        take(&out->region, value);
    if (vswitch_key[0] != '\0' && strcmp(key, vswitch_key) == 0)
        take(&out->vswitch, value);
}

static bool any(const struct topology *labels)
{
    return labels->region.text[0] != '\0' || labels->zone.text[0] != '\0' ||
           labels->vswitch.text[0] != '\0';
}

/* ---- Kubernetes ---- */

/* "value" in Go's quotes, to the end of the line. Values of labels need no escape but might have
 * one; others than \" and \\ stand for bytes that no label of ours has. */
static bool unquote(const char *at, const char *end, char out[VALUE_BYTES])
{
    size_t used = 0;
    if (end - at < 2 || *at != '"' || end[-1] != '"')
        return false;
    for (at++, end--; at < end; at++) {
        if (*at == '\\' && (++at == end || (*at != '"' && *at != '\\')))
            return false;
        if (used + 1 == VALUE_BYTES)
            return false;
        out[used++] = *at;
    }
    out[used] = '\0';
    return true;
}

static void label_line(const char *line, const char *end, const char *vswitch_key,
                       struct topology *out)
{
    char key[KEY_BYTES], value[VALUE_BYTES];
    while (end > line && blank(end[-1]))
        end--;
    const char *equals = memchr(line, '=', (size_t)(end - line));
    if (equals == NULL || memchr(line, '\0', (size_t)(end - line)) != NULL)
        return;
    if (text_copy_n(key, sizeof key, line, (size_t)(equals - line)) == 0 &&
        unquote(equals + 1, end, value))
        take_pair(out, key, value, vswitch_key);
}

bool topology_parse_label_file(const char *text, size_t text_bytes, const char *vswitch_key,
                               struct topology *out)
{
    const char *end = text + text_bytes;
    memset(out, 0, sizeof *out);
    while (text < end) {
        const char *line_end = memchr(text, '\n', (size_t)(end - text));
        line_end = line_end == NULL ? end : line_end;
        label_line(text, line_end, vswitch_key, out);
        text = line_end + (line_end < end);
    }
    return any(out);
}

/* Answers are some ten KiB and bounded by who collects them, and so is what jansson makes of them;
 * it bounds the depth itself. */
static json_t *object_of(const char *json, size_t json_bytes)
{
    json_t *root = json_loadb(json, json_bytes, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(root))
        return root;
    json_decref(root);
    return NULL;
}

int topology_parse_node(const char *json, size_t json_bytes, const char *vswitch_key,
                        struct topology *out)
{
    json_t *root = object_of(json, json_bytes);
    const json_t *metadata = json_object_get(root, "metadata");
    json_t *labels = json_object_get(metadata, "labels");
    const char *key;
    json_t *value;
    if (!json_is_object(metadata) || (labels != NULL && !json_is_object(labels))) {
        json_decref(root);
        return E_MALFORMED;
    }
    memset(out, 0, sizeof *out);
    json_object_foreach(labels, key, value)
    {
        if (json_is_string(value))
            take_pair(out, key, json_string_value(value), vswitch_key);
    }
    json_decref(root);
    return 0;
}

/* ---- clouds ---- */

int topology_parse_azure(const char *json, size_t json_bytes, struct topology *out)
{
    char zone[2 * VALUE_BYTES];
    json_t *root = object_of(json, json_bytes);
    const char *location = json_string_value(json_object_get(root, "location"));
    const char *number = json_string_value(json_object_get(root, "zone"));
    const char *domain = json_string_value(json_object_get(root, "platformFaultDomain"));
    struct topology found = {0};
    if (location != NULL && strlen(location) < VALUE_BYTES)
        take(&found.region, location);
    if (found.region.text[0] == '\0') {
        json_decref(root);
        return E_MALFORMED;
    }
    if (number != NULL && number[0] != '\0' && strlen(number) < VALUE_BYTES) {
        (void)snprintf(zone, sizeof zone, "%s-%s", found.region.text, number);
        take(&found.zone, zone);
    } else if (domain != NULL) {
        take(&found.zone, domain);
    }
    json_decref(root);
    *out = found;
    return 0;
}

int topology_parse_gcp(const char *text, struct topology *out)
{
    const char *slash = strrchr(text, '/');
    struct topology found = {0};
    if (topology_label(&found.zone, slash == NULL ? text : slash + 1) != 0)
        return E_MALFORMED;
    const char *dash = strrchr(found.zone.text, '-');
    if (dash == NULL || dash == found.zone.text || dash[1] == '\0')
        return E_MALFORMED;
    int err = label_set(&found.region, found.zone.text, (size_t)(dash - found.zone.text));
    if (err == 0)
        *out = found;
    return err == 0 ? 0 : E_MALFORMED;
}

/* ---- prefixes ---- */

/* "region/zone/vswitch" */
static int take_parts(const char *text, struct topology *out)
{
    struct label *labels[] = {&out->region, &out->zone, &out->vswitch};
    for (unsigned i = 0; i < 3; i++) {
        size_t bytes = strcspn(text, "/");
        if (label_set(labels[i], text, bytes) != 0)
            return E_MALFORMED;
        text += bytes;
        if (*text == '\0')
            return any(out) ? 0 : E_MALFORMED;
        text++;
    }
    return E_MALFORMED; /* a fourth part */
}

int topology_prefix_parse(const char *text, struct topology_prefix *out)
{
    struct topology_prefix found = {.block.bits = 0};
    const char *equals = strchr(text, '=');
    if (equals == NULL || addr_block_parse(text, (size_t)(equals - text), &found.block) != 0 ||
        take_parts(equals + 1, &found.topology) != 0)
        return E_MALFORMED;
    *out = found;
    return 0;
}

bool topology_prefix_fits(const struct topology_prefix *prefix, const struct peer_addr *addr)
{
    return addr_block_holds(&prefix->block, addr->ip);
}
