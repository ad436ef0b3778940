/* SPDX-License-Identifier: Apache-2.0 */
/* Reading notifications; see preheat.h. */
#include "preheat.h"

#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "pull_order.h"

static int fail(char error[PULL_ERROR_BYTES], int err, const char *text)
{
    (void)snprintf(error, PULL_ERROR_BYTES, "%s", text);
    return err;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text == NULL ? "" : text;
}

static bool is_manifest(const char *media_type)
{
    static const char *const types[] = {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(media_type, types[i]) == 0)
            return true;
    return false;
}

/* The host of a URL, in lower case and without its scheme's own port. 0, E_INVALID. */
static int host_of(const char *url, char out[HOST_BYTES_MAX + 1])
{
    bool https = strncmp(url, "https://", 8) == 0;
    if (!https && strncmp(url, "http://", 7) != 0)
        return E_INVALID;
    const char *host = url + (https ? 8 : 7), *own = https ? ":443" : ":80";
    size_t bytes = strcspn(host, "/?#"), port = strlen(own);
    if (bytes > port && memcmp(host + bytes - port, own, port) == 0)
        bytes -= port;
    if (text_copy_n(out, HOST_BYTES_MAX + 1, host, bytes) != 0)
        return E_INVALID;
    for (char *at = out; *at != '\0'; at++)
        if (*at >= 'A' && *at <= 'Z')
            *at = (char)(*at - 'A' + 'a');
    return ref_host_valid(out, bytes) ? 0 : E_INVALID;
}

/* A digest wins over a tag, as in names of images. */
static int take_target(const json_t *target, struct pull_order *out)
{
    struct image_name *image = &out->image;
    const char *repository = text_of(target, "repository"), *tag = text_of(target, "tag");
    const char *digest = text_of(target, "digest");
    *out = (struct pull_order){.attached = false};
    if (!ref_repository_valid(repository, strlen(repository)) ||
        text_copy(image->repository, sizeof image->repository, repository) != 0)
        return E_INVALID;
    if (tag[0] != '\0' &&
        (!ref_tag_valid(tag, strlen(tag)) || text_copy(image->tag, sizeof image->tag, tag) != 0))
        return E_INVALID;
    if (digest[0] != '\0' && digest_parse(digest, strlen(digest), &image->digest) != 0)
        return E_INVALID;
    image->has_digest = digest[0] != '\0';
    if (!image->has_digest && tag[0] == '\0')
        return E_INVALID;
    return host_of(text_of(target, "url"), image->registry);
}

static int take_events(const json_t *events, struct preheat *out, char error[PULL_ERROR_BYTES])
{
    for (size_t i = 0; i < json_array_size(events); i++) {
        const json_t *event = json_array_get(events, i);
        const json_t *target = json_object_get(event, "target");
        if (strcmp(text_of(event, "action"), "push") != 0 ||
            !is_manifest(text_of(target, "mediaType"))) {
            out->ignored++;
            continue;
        }
        if (take_target(target, &out->orders[out->count]) != 0)
            return fail(error, E_INVALID,
                        "a target has no url (of a registry), repository, or tag and digest");
        out->count++;
    }
    return 0;
}

int preheat_parse(const char *json, size_t json_bytes, struct preheat *out,
                  char error[PULL_ERROR_BYTES])
{
    json_t *root = NULL;
    out->count = out->ignored = 0;
    int err = pull_json_load(json, json_bytes, PREHEAT_BYTES_MAX, &root, error);
    if (err != 0)
        return err;
    const json_t *events = json_object_get(root, "events");
    if (!json_is_array(events))
        err = fail(error, E_MALFORMED, "no notification: it has no list of events");
    else if (json_array_size(events) > PREHEAT_EVENTS_MAX)
        err = fail(error, E_TOO_LARGE, "too many events in one notification");
    else
        err = take_events(events, out, error);
    json_decref(root);
    return err;
}
