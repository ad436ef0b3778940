/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an image is of: its name is asked for at the registry, an index for the children wanted, and
 * each manifest is checked against its digest before anything is made of it (INT-2, INT-9).
 */
#include "pull_internal.h"

#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "history.h"
#include "log.h"

/* Nobody's response hangs on it: a registry that is slow to answer is waited for. */
#define HEAD_MS 20000

static const char *const accepted[] = {
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
};

/* ---- one answer ---- */

static void on_head(void *arg, const struct fetch_response *response)
{
    struct pull_ask *ask = &((struct pull *)arg)->ask;
    const char *type = fetch_response_header(response, "content-type");
    const char *named = fetch_response_header(response, "docker-content-digest");
    ask->status = response->status;
    if (type == NULL || text_copy(ask->type, sizeof ask->type, type) != 0)
        ask->type[0] = '\0';
    if (named == NULL)
        ask->named[0] = '\0';
    else if (text_copy(ask->named, sizeof ask->named, named) != 0)
        ask->err = E_DIGEST;
}

static bool on_body(void *arg, const uint8_t *bytes, size_t byte_count)
{
    struct pull_ask *ask = &((struct pull *)arg)->ask;
    size_t need = ask->bytes + byte_count;
    if (ask->err != 0)
        return true;
    if (need > MANIFEST_BYTES_MAX) {
        ask->err = E_TOO_LARGE;
        return true;
    }
    if (need > ask->capacity) {
        size_t capacity = need < 16384 ? 16384 : need * 2;
        char *body = loop_alloc(NULL, ask->body, capacity);
        if (body == NULL) {
            ask->err = E_NO_MEMORY;
            return true;
        }
        ask->body = body;
        ask->capacity = capacity;
    }
    memcpy(ask->body + ask->bytes, bytes, byte_count);
    ask->bytes = need;
    return true;
}

void pull__ask_stop(struct pull *pull)
{
    struct pull_ask *ask = &pull->ask;
    if (ask->fetch != NULL)
        origin_cancel(pull->owner->config.origin, ask->fetch);
    (void)loop_alloc(NULL, ask->body, 0);
    *ask = (struct pull_ask){.fetch = NULL};
}

static void ask_for(struct pull *pull, const char *reference);

/* The next manifest of an index, or on to the blobs. */
static void go_on(struct pull *pull)
{
    char text[DIGEST_TEXT_BYTES];
    pull__ask_stop(pull);
    if (pull->manifest_next < pull->manifest_count)
        ask_for(pull, digest_text(&pull->manifests[pull->manifest_next++], text));
    else
        pull__blobs_begin(pull);
}

/* ---- what it says ---- */

/* The digest that the answer must have; false: it does not. */
static bool digest_fits(const struct pull *pull, struct digest *made)
{
    const struct pull_ask *ask = &pull->ask;
    struct digest wanted = {.algorithm = DIGEST_SHA256};
    bool known = true;
    if (pull->manifest_next > 0)
        wanted = pull->manifests[pull->manifest_next - 1];
    else if (pull->order.image.has_digest)
        wanted = pull->order.image.digest;
    else if (ask->named[0] == '\0')
        known = false;
    else if (digest_parse(ask->named, strlen(ask->named), &wanted) != 0)
        return false;
    digest_of(wanted.algorithm, ask->body, ask->bytes, made);
    return !known || digest_equal(made, &wanted);
}

static void no_platform(struct pull *pull)
{
    char wanted[3 * PLATFORM_PART_BYTES], there[256];
    index_platforms(pull->ask.body, pull->ask.bytes, there, sizeof there);
    pull__end(pull, PULL_FAILED, "%s:%s has no image for %s; it has: %s",
              pull->order.image.repository, pull->order.image.tag,
              pull__platform_text(&pull->order, wanted, sizeof wanted),
              there[0] == '\0' ? "none" : there);
}

/* 0; E_UNSUPPORTED: it is no index, but an image. */
static int take_index(struct pull *pull)
{
    struct manifest_descriptor found[PULL_MANIFESTS_MAX];
    const struct platform *wanted = pull->order.all_platforms ? NULL : &pull->order.platform;
    size_t count = 0;
    int err =
        index_choose(pull->ask.body, pull->ask.bytes, wanted, found, PULL_MANIFESTS_MAX, &count);
    if (err == 0 && count > PULL_MANIFESTS_MAX - pull->manifest_count)
        err = E_TOO_LARGE;
    for (size_t i = 0; err == 0 && i < count; i++)
        pull->manifests[pull->manifest_count++] = found[i].digest;
    return err;
}

static int take_image(struct pull *pull, const struct manifest_descriptor *found, size_t count)
{
    int err = 0;
    for (size_t i = 0; err == 0 && i < count; i++)
        err = found[i].size_bytes == 0 ? 0 : pull__blob_add(pull, &found[i]);
    return err;
}

/* Keeps it, and takes from it what is to come next. 0 or E_*. */
static int take_document(struct pull *pull, const struct digest *digest,
                         struct manifest_descriptor *found)
{
    const struct pull_ask *ask = &pull->ask;
    const struct image_name *image = &pull->order.image;
    struct history *history = blobs_history(pull->owner->config.blobs);
    const struct manifest_key key = {pull->registry->name, image->repository, digest};
    struct manifest manifest = {ask->body, ask->bytes, ask->type};
    char own[MANIFEST_TYPE_BYTES];
    size_t count = 0;
    int err = manifest_parse(ask->body, ask->bytes, found, MANIFEST_DESCRIPTORS_MAX, &count);
    if (err != 0)
        return err;
    if (ask->type[0] == '\0' && manifest_media_type(ask->body, ask->bytes, own, sizeof own) == 0)
        manifest.media_type = own;
    mirror_keep_manifest(pull->owner->config.mirror, &key, &manifest, found, count);
    if (pull->manifest_next == 0) {
        pull->digest = *digest;
        pull->has_digest = true;
        if (!image->has_digest)
            history_tag(history, pull->registry->name, image->repository, image->tag, digest);
    }
    err = take_index(pull);
    return err == E_UNSUPPORTED ? take_image(pull, found, count) : err;
}

static void take_answer(struct pull *pull)
{
    size_t room = MANIFEST_DESCRIPTORS_MAX * sizeof(struct manifest_descriptor);
    struct manifest_descriptor *found;
    struct digest digest;
    if (pull->ask.bytes == 0 || !digest_fits(pull, &digest)) {
        pull__end(pull, PULL_FAILED, "registry %s: the manifest's bytes do not match its digest",
                  pull->registry->name);
        return;
    }
    found = loop_alloc(NULL, NULL, room);
    int err = found == NULL ? E_NO_MEMORY : take_document(pull, &digest, found);
    (void)loop_alloc(NULL, found, 0);
    if (err == E_NOT_FOUND)
        no_platform(pull);
    else if (err == E_TOO_LARGE)
        pull__end(pull, PULL_FAILED, "the image has more than %d manifests or %d blobs",
                  PULL_MANIFESTS_MAX, PULL_BLOBS_MAX);
    else if (err != 0)
        pull__end(pull, PULL_FAILED, "registry %s: the manifest cannot be used: %s",
                  pull->registry->name, err_text(err));
    else
        go_on(pull);
}

/* The registry's no, and what to do. */
static void take_refusal(struct pull *pull)
{
    const struct image_name *image = &pull->order.image;
    const char *name = pull->registry->name;
    int status = pull->ask.status;
    char reference[DIGEST_TEXT_BYTES];
    if (status == 401 || status == 403)
        pull__end(pull, PULL_FAILED, "registry %s refuses %s (%d): %s", name, image->repository,
                  status,
                  pull->as_node ? "the login of registries[].credentials may not read it"
                                : "give the node a login for it, registries[].credentials");
    else if (status == 404)
        pull__end(pull, PULL_FAILED, "registry %s has no %s%s%s", name, image->repository,
                  image->has_digest ? "@" : ":",
                  image->has_digest ? digest_text(&image->digest, reference) : image->tag);
    else
        pull__end(pull, PULL_FAILED, "registry %s answers %d for %s", name, status,
                  image->repository);
}

static void on_done(void *arg, int err)
{
    struct pull *pull = arg;
    struct pull_ask *ask = &pull->ask;
    ask->fetch = NULL;
    if (err == E_ORIGIN)
        err = 0; /* an answer, if not the one hoped for */
    if (err == 0 && ask->status == 0)
        err = E_PROTOCOL;
    if (err == 0 && ask->status == 200)
        err = ask->err;
    if (err != 0)
        pull__end(pull, PULL_FAILED, "registry %s: %s", pull->registry->name, err_text(err));
    else if (ask->status == 200)
        take_answer(pull);
    else
        take_refusal(pull);
}

static void ask_for(struct pull *pull, const char *reference)
{
    static const struct fetch_callbacks callbacks = {on_head, on_body, on_done};
    char path[REPOSITORY_BYTES_MAX + DIGEST_TEXT_BYTES + 32];
    (void)snprintf(path, sizeof path, "/v2/%s/manifests/%s", pull->order.image.repository,
                   reference);
    struct origin_request request = {
        .registry = pull->registry,
        .kind = ORIGIN_MANIFEST,
        .method = "GET",
        .path_and_query = path,
        .accept = accepted,
        .accept_count = sizeof accepted / sizeof accepted[0],
        .as_node = pull->as_node,
        .head_ms = HEAD_MS,
        .size_bytes = UINT64_MAX,
        .whole = true,
    };
    memcpy(request.credential_hash, pull->credential_hash, sizeof request.credential_hash);
    int err = origin_start(pull->owner->config.origin, pull__now_us(pull), &request, &callbacks,
                           pull, &pull->ask.fetch);
    if (err != 0)
        pull__end(pull, PULL_FAILED, "registry %s: %s", pull->registry->name, err_text(err));
}

void pull__resolve(struct pull *pull)
{
    const struct image_name *image = &pull->order.image;
    char text[DIGEST_TEXT_BYTES];
    ask_for(pull, image->has_digest ? digest_text(&image->digest, text) : image->tag);
}
