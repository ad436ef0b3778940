/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers that are brought in before a client asks for them (ALGORITHMS §6). Which ones and when is
 * prefetch.h's rule; here are the images it is about, and the readers that do it.
 *
 * An image is the layers of a manifest that was answered to somebody who may read its repository.
 * Nothing is begun but inside a client's own request for a whole layer of it, with that request's
 * credentials, while its grant is fresh, and only what the repository is known to reference
 * (ACL-1..3); it ends when the registry refuses those credentials (ACL-2). Range reads and what
 * passes around the mesh begin nothing.
 */
#include <string.h>

#include "bytes.h"
#include "digest.h"
#include "log.h"
#include "mirror_internal.h"
#include "prefetch.h"

/* Images known, the ones pulled last; and readers at a time, of all images. A node starts some
 * dozens of pods at once at most. */
#define IMAGES_MAX  64
#define READERS_MAX 16
#define TICK_MS     1000

/* One layer that is being brought in, or is here and waits for its client. */
struct ahead {
    struct prefetch_image *image;
    uint32_t layer;
    struct blob *blob; /* one reference */
    struct blob_reader reader;
    bool refused; /* the registry refused its caller: it ends at the next tick */
};

struct image_layer {
    struct digest digest;
    struct ahead *ahead; /* owned; NULL: none */
};

struct prefetch_image {
    struct mirror_prefetch *owner;
    struct prefetch_image *next;           /* pulled before this one */
    const struct registry_entry *registry; /* held */
    char repository[REPOSITORY_BYTES_MAX + 1];
    struct digest manifest;
    struct prefetch plan;
    struct prefetch_layer rule[PREFETCH_LAYERS_MAX];
    struct image_layer layers[]; /* plan.layer_count */
};

struct mirror_prefetch {
    struct mirror *mirror;
    struct loop_part part;
    uv_timer_t timer;              /* runs while there are readers */
    struct prefetch_image *images; /* the one pulled last first */
    uint32_t image_count, reader_count;
    bool stopping;
};

static struct loop *loop_of(const struct mirror_prefetch *prefetch)
{
    return prefetch->mirror->config.loop;
}

static uint64_t now_us(const struct mirror_prefetch *prefetch)
{
    return loop_now_us(loop_of(prefetch));
}

/* ---- readers ---- */

static void say(const struct ahead *ahead, const char *what)
{
    char name[SHORT_HEX_BYTES];
    const struct prefetch_image *image = ahead->image;
    log_to(&loop_of(image->owner)->env, LOG_DEBUG, "mirror: layer ahead %s layer=%u blob=%s", what,
           ahead->layer, short_hex(image->layers[ahead->layer].digest.bytes, name));
}

static void ahead_end(struct ahead *ahead)
{
    struct prefetch_image *image = ahead->image;
    image->layers[ahead->layer].ahead = NULL;
    image->owner->reader_count--;
    blob_read_stop(&ahead->reader);
    blob_put(ahead->blob);
    (void)loop_alloc(NULL, ahead, 0);
}

static void ahead_fail(struct ahead *ahead, const char *why)
{
    struct prefetch_image *image = ahead->image;
    say(ahead, why);
    image->owner->mirror->counters.ahead_failed++;
    prefetch_settle(&image->plan, ahead->layer);
    ahead_end(ahead);
}

static void on_ready(void *arg)
{
    (void)arg; /* never asked for */
}

static void on_failed(void *arg, int status)
{
    ahead_fail(arg, err_text(status));
}

static void on_tick(uv_timer_t *timer);

/* The blob of a layer, if anything of it is to be had; 0, or E_*: there is nothing to begin. */
static int open_layer(const struct mirror_request *request, const struct prefetch_image *image,
                      uint32_t layer, struct blob **out)
{
    const struct mirror_config *config = &request->mirror->config;
    const struct digest *digest = &image->layers[layer].digest;
    uint64_t size;
    if (image->owner->reader_count >= READERS_MAX)
        return E_FULL;
    if (!grants_linked(config->grants, request->registry->name, request->route.repository, digest,
                       &size) ||
        size != image->rule[layer].size_bytes)
        return E_DENIED;
    int err = blobs_get(config->blobs, digest, size, out);
    if (err == 0 && (blob_verified(*out) || blobs_content_expected(config->blobs, digest))) {
        blob_put(*out);
        err = E_EXISTS;
    }
    return err;
}

/* 0, or E_*: nothing was begun. `blob` is TAKEN. */
static int ahead_begin(const struct mirror_request *request, struct prefetch_image *image,
                       const struct prefetch_step *step, struct blob *blob)
{
    struct mirror_prefetch *prefetch = image->owner;
    struct ahead *ahead = loop_alloc(NULL, NULL, sizeof *ahead);
    struct blob_caller *caller =
        blob_caller_new(request->registry, request->route.repository, request->authorization,
                        request->credential_hash, request->url);
    int err = ahead == NULL || caller == NULL ? E_NO_MEMORY : 0;
    if (err == 0) {
        *ahead = (struct ahead){.image = image, .layer = step->layer, .blob = blob};
        ahead->reader = (struct blob_reader){.ready = on_ready, .failed = on_failed, .arg = ahead};
        err = blob_read_start(blob, &ahead->reader, 0, step->bytes, TRANSFER_READ_PREFETCH, caller);
    }
    blob_caller_put(caller);
    if (err != 0) {
        blob_put(blob);
        (void)loop_alloc(NULL, ahead, 0);
        return err;
    }
    image->layers[step->layer].ahead = ahead;
    if (prefetch->reader_count++ == 0)
        (void)uv_timer_start(&prefetch->timer, on_tick, TICK_MS, TICK_MS);
    prefetch->mirror->counters.ahead_begun++;
    say(ahead, "begun");
    return 0;
}

static void start(const struct mirror_request *request, struct prefetch_image *image,
                  const struct prefetch_step *step)
{
    struct blob *blob;
    int err = open_layer(request, image, step->layer, &blob);
    if (err == 0)
        err = ahead_begin(request, image, step, blob);
    if (err != 0)
        prefetch_settle(&image->plan, step->layer);
}

static void stop(struct prefetch_image *image, const struct prefetch_step *step)
{
    struct mirror_counters *counters = &image->owner->mirror->counters;
    struct ahead *ahead = image->layers[step->layer].ahead;
    bool used = step->state == PREFETCH_ASKED;
    (*(used ? &counters->ahead_used : &counters->ahead_unused))++;
    say(ahead, used ? "used" : "unused");
    ahead_end(ahead);
}

/* Room for more, on behalf of this request. */
static uint64_t room_bytes(const struct mirror_request *request)
{
    const struct mirror *mirror = request->mirror;
    const struct mirror_prefetch *prefetch = mirror->prefetch;
    uint64_t room = blobs_ahead_max(mirror->config.blobs), ahead = 0;
    if (prefetch->stopping || !mirror__granted(request))
        return 0;
    for (const struct prefetch_image *image = prefetch->images; image != NULL; image = image->next)
        ahead += prefetch_ahead_bytes(&image->plan);
    return ahead < room ? room - ahead : 0;
}

static void stop_what_is_over(struct prefetch_image *image)
{
    struct prefetch_step step;
    while (prefetch_next(&image->plan, now_us(image->owner), 0, &step))
        stop(image, &step);
}

static void end_all(struct mirror_prefetch *prefetch)
{
    for (struct prefetch_image *image = prefetch->images; image != NULL; image = image->next) {
        for (uint32_t i = 0; i < image->plan.layer_count; i++) {
            if (image->layers[i].ahead != NULL)
                ahead_fail(image->layers[i].ahead, "ended");
        }
    }
}

static void on_tick(uv_timer_t *timer)
{
    struct mirror_prefetch *prefetch = timer->data;
    if (prefetch->mirror->config.config->mode == CONFIG_MODE_PASSTHROUGH) /* HRD-7 */
        end_all(prefetch);
    for (struct prefetch_image *image = prefetch->images; image != NULL; image = image->next) {
        for (uint32_t i = 0; i < image->plan.layer_count; i++) {
            struct ahead *ahead = image->layers[i].ahead;
            if (ahead != NULL && (ahead->refused || blob_read_lost(&ahead->reader)))
                ahead_fail(ahead, ahead->refused ? "refused" : "not kept");
        }
        stop_what_is_over(image);
    }
    if (prefetch->reader_count == 0)
        (void)uv_timer_stop(&prefetch->timer);
}

/* ---- images ---- */

static bool is_of(const struct prefetch_image *image, const struct mirror_request *request)
{
    return image->registry == request->registry &&
           strcmp(image->repository, request->route.repository) == 0;
}

static void image_free(struct prefetch_image *image)
{
    for (uint32_t i = 0; i < image->plan.layer_count; i++)
        ASSERT(image->layers[i].ahead == NULL);
    registry_entry_put(image->registry);
    (void)loop_alloc(NULL, image, 0);
}

/* The image that was pulled longest ago and is not being pulled makes room. False: all are. */
static bool make_room(struct mirror_prefetch *prefetch)
{
    struct prefetch_image **victim = NULL;
    if (prefetch->image_count < IMAGES_MAX)
        return true;
    for (struct prefetch_image **link = &prefetch->images; *link != NULL; link = &(*link)->next) {
        if (!prefetch_active(&(*link)->plan, now_us(prefetch)))
            victim = link;
    }
    if (victim == NULL)
        return false;
    struct prefetch_image *image = *victim;
    stop_what_is_over(image);
    *victim = image->next;
    prefetch->image_count--;
    image_free(image);
    return true;
}

/* Moves an image to the front; false: it is not known. */
static bool image_touch(struct mirror_prefetch *prefetch, const struct mirror_request *request,
                        const struct digest *manifest)
{
    struct prefetch_image **link = &prefetch->images;
    while (*link != NULL && !(is_of(*link, request) && digest_equal(&(*link)->manifest, manifest)))
        link = &(*link)->next;
    struct prefetch_image *image = *link;
    if (image == NULL)
        return false;
    *link = image->next;
    image->next = prefetch->images;
    prefetch->images = image;
    return true;
}

static uint32_t layer_of(const struct prefetch_image *image, const struct digest *digest)
{
    uint32_t i = 0;
    while (i < image->plan.layer_count && !digest_equal(&image->layers[i].digest, digest))
        i++;
    return i;
}

/* Copies the image's layers, each once. */
static void add_layers(struct prefetch_image *image, const struct manifest_descriptor *found,
                       size_t count)
{
    struct prefetch *plan = &image->plan;
    for (size_t i = 0; i < count && plan->layer_count < PREFETCH_LAYERS_MAX; i++) {
        if (!found[i].is_layer || found[i].size_bytes == 0 ||
            layer_of(image, &found[i].digest) < plan->layer_count)
            continue;
        image->layers[plan->layer_count] = (struct image_layer){.digest = found[i].digest};
        image->rule[plan->layer_count++].size_bytes = found[i].size_bytes;
    }
    prefetch_init(plan, image->rule, plan->layer_count);
}

void mirror_prefetch__manifest(const struct mirror_request *request, const struct digest *manifest,
                               const struct manifest_descriptor *found, size_t count)
{
    struct mirror_prefetch *prefetch = request->mirror->prefetch;
    size_t layers = 0;
    for (size_t i = 0; i < count; i++)
        layers += found[i].is_layer;
    layers = layers < PREFETCH_LAYERS_MAX ? layers : PREFETCH_LAYERS_MAX;
    if (!request->mirror->config.config->prefetch_layers ||
        !registry_p2p(request->registry, request->route.repository) || layers < 2 ||
        image_touch(prefetch, request, manifest) || !make_room(prefetch))
        return;
    struct prefetch_image *image =
        loop_alloc(NULL, NULL, sizeof *image + layers * sizeof image->layers[0]);
    if (image == NULL)
        return;
    *image = (struct prefetch_image){
        .owner = prefetch, .registry = request->registry, .manifest = *manifest};
    if (text_copy(image->repository, sizeof image->repository, request->route.repository) != 0) {
        (void)loop_alloc(NULL, image, 0);
        return;
    }
    (void)registry_entry_ref(image->registry);
    add_layers(image, found, count);
    image->next = prefetch->images;
    prefetch->images = image;
    prefetch->image_count++;
}

void mirror_prefetch__touch(const struct mirror_request *request, const struct digest *manifest)
{
    (void)image_touch(request->mirror->prefetch, request, manifest);
}

/* Of the images with this layer the one whose client seems to be asking: it is being pulled and has
 * not been asked for the layer yet; else the one whose manifest was read last. */
static struct prefetch_image *image_for(const struct mirror_request *request, uint32_t *layer)
{
    const struct mirror_prefetch *prefetch = request->mirror->prefetch;
    struct prefetch_image *best = NULL;
    for (struct prefetch_image *image = prefetch->images; image != NULL; image = image->next) {
        if (!is_of(image, request))
            continue;
        uint32_t at = layer_of(image, &request->route.digest);
        if (at == image->plan.layer_count)
            continue;
        bool awaited = prefetch_active(&image->plan, now_us(prefetch)) &&
                       image->rule[at].state != PREFETCH_ASKED;
        if (best == NULL || awaited) {
            best = image;
            *layer = at;
        }
        if (awaited)
            return best;
    }
    return best;
}

struct prefetch_image *mirror_prefetch__began(const struct mirror_request *request)
{
    uint32_t layer = 0;
    struct prefetch_image *image = image_for(request, &layer);
    struct prefetch_step step;
    if (image == NULL)
        return NULL;
    prefetch_began(&image->plan, now_us(image->owner), layer);
    while (prefetch_next(&image->plan, now_us(image->owner), room_bytes(request), &step)) {
        if (step.kind == PREFETCH_START)
            start(request, image, &step);
        else
            stop(image, &step);
    }
    return image;
}

void mirror_prefetch__ended(struct prefetch_image *image)
{
    prefetch_ended(&image->plan, now_us(image->owner));
}

void mirror_prefetch__refused(struct mirror_prefetch *prefetch, const struct blob_caller *caller)
{
    for (struct prefetch_image *image = prefetch->images; image != NULL; image = image->next) {
        for (uint32_t i = 0; i < image->plan.layer_count; i++) {
            struct ahead *ahead = image->layers[i].ahead;
            if (ahead == NULL || !blob_caller_same(ahead->reader.caller, caller))
                continue;
            ahead->refused = true; /* not here: the registry's answer is being worked on */
            (void)uv_timer_start(&prefetch->timer, on_tick, 0, TICK_MS);
        }
    }
}

/* ---- life ---- */

static void part_drain(void *arg)
{
    struct mirror_prefetch *prefetch = arg;
    prefetch->stopping = true;
    end_all(prefetch);
}

static void part_close(void *arg)
{
    struct mirror_prefetch *prefetch = arg;
    part_drain(prefetch);
    uv_close((uv_handle_t *)&prefetch->timer, NULL);
}

int mirror_prefetch__new(struct mirror *mirror)
{
    struct mirror_prefetch *prefetch = loop_alloc(NULL, NULL, sizeof *prefetch);
    if (prefetch == NULL)
        return E_NO_MEMORY;
    *prefetch = (struct mirror_prefetch){.mirror = mirror};
    int uv_error = uv_timer_init(&mirror->config.loop->uv, &prefetch->timer);
    if (uv_error != 0) {
        (void)loop_alloc(NULL, prefetch, 0);
        return loop_uv_error(uv_error);
    }
    prefetch->timer.data = prefetch;
    prefetch->part = (struct loop_part){
        .name = "prefetch", .arg = prefetch, .drain = part_drain, .close = part_close};
    loop_add_part(mirror->config.loop, &prefetch->part);
    mirror->prefetch = prefetch;
    return 0;
}

void mirror_prefetch__free(struct mirror_prefetch *prefetch)
{
    if (prefetch == NULL)
        return;
    while (prefetch->images != NULL) {
        struct prefetch_image *image = prefetch->images;
        prefetch->images = image->next;
        image_free(image);
    }
    (void)loop_alloc(NULL, prefetch, 0);
}
