/* SPDX-License-Identifier: Apache-2.0 */
/* Layers before they are asked for; see prefetch.h. */
#include "prefetch.h"

#include "log.h"

uint64_t prefetch_room(uint64_t cache_bytes)
{
    uint64_t share = cache_bytes / PREFETCH_CACHE_SHARE;
    return share < PREFETCH_BYTES_MAX ? share : PREFETCH_BYTES_MAX;
}

void prefetch_init(struct prefetch *image, struct prefetch_layer *layers, uint32_t layer_count)
{
    ASSERT(layer_count <= PREFETCH_LAYERS_MAX);
    *image = (struct prefetch){.layers = layers, .layer_count = layer_count};
    for (uint32_t i = 0; i < layer_count; i++)
        layers[i] = (struct prefetch_layer){.size_bytes = layers[i].size_bytes};
}

bool prefetch_active(const struct prefetch *image, uint64_t now_us)
{
    return image->readers > 0 ||
           (image->reached > 0 && now_us < image->quiet_us + PREFETCH_IDLE_US);
}

/* Nobody pulls it any more: the next pull begins like the first. */
static void rest(struct prefetch *image)
{
    image->reached = 0;
    for (uint32_t i = 0; i < image->layer_count; i++)
        image->layers[i].state = PREFETCH_OPEN;
}

void prefetch_began(struct prefetch *image, uint64_t now_us, uint32_t layer)
{
    ASSERT(layer < image->layer_count);
    if (!prefetch_active(image, now_us))
        rest(image);
    image->readers++;
    image->layers[layer].state = PREFETCH_ASKED;
    for (uint32_t i = image->reached; i < layer; i++) {
        image->layers[i].state = PREFETCH_PASSED;
        image->layers[i].passed_us = now_us;
    }
    if (image->reached <= layer)
        image->reached = layer + 1;
}

void prefetch_ended(struct prefetch *image, uint64_t now_us)
{
    ASSERT(image->readers > 0);
    image->readers--;
    image->quiet_us = now_us;
}

void prefetch_settle(struct prefetch *image, uint32_t layer)
{
    ASSERT(layer < image->layer_count);
    image->layers[layer].running = false;
    if (image->layers[layer].state == PREFETCH_BEGUN)
        image->layers[layer].state = PREFETCH_SETTLED;
}

uint64_t prefetch_ahead_bytes(const struct prefetch *image)
{
    uint64_t bytes = 0;
    for (uint32_t i = image->reached; i < image->layer_count; i++)
        bytes += image->layers[i].state == PREFETCH_BEGUN ? image->layers[i].bytes : 0;
    return bytes;
}

/* When a layer that runs is to stop, as things stand. */
static uint64_t stop_us(const struct prefetch_layer *layer)
{
    if (!layer->running || layer->state == PREFETCH_BEGUN)
        return UINT64_MAX;
    return layer->state == PREFETCH_PASSED ? layer->passed_us + PREFETCH_PASSED_US : 0;
}

uint64_t prefetch_deadline_us(const struct prefetch *image)
{
    uint64_t deadline_us = UINT64_MAX;
    if (image->readers == 0 && image->reached > 0)
        deadline_us = image->quiet_us + PREFETCH_IDLE_US;
    for (uint32_t i = 0; i < image->layer_count; i++) {
        uint64_t at_us = stop_us(&image->layers[i]);
        deadline_us = at_us < deadline_us ? at_us : deadline_us;
    }
    return deadline_us;
}

/* Something runs that nobody will ask for, or somebody does: it ends. */
static bool next_stop(struct prefetch *image, uint64_t now_us, struct prefetch_step *out)
{
    for (uint32_t i = 0; i < image->layer_count; i++) {
        struct prefetch_layer *layer = &image->layers[i];
        if (stop_us(layer) > now_us)
            continue;
        layer->running = false;
        *out = (struct prefetch_step){
            .kind = PREFETCH_STOP, .layer = i, .state = (enum prefetch_state)layer->state};
        return true;
    }
    return false;
}

/* How much of the first layer that may be begun; 0: it is not worth it, or there is no room. */
static uint64_t bytes_of(const struct prefetch_layer *layer, uint64_t room_bytes)
{
    if (layer->size_bytes <= room_bytes)
        return layer->size_bytes;
    return room_bytes >= PREFETCH_LEAST_BYTES ? room_bytes : 0;
}

static bool next_start(struct prefetch *image, uint64_t room_bytes, struct prefetch_step *out)
{
    uint32_t ahead = 0;
    uint64_t ahead_bytes = 0;
    for (uint32_t i = image->reached; i < image->layer_count && ahead < PREFETCH_AHEAD_MAX; i++) {
        struct prefetch_layer *layer = &image->layers[i];
        if (layer->state == PREFETCH_OPEN) {
            uint64_t bytes = bytes_of(layer, room_bytes);
            bool near = ahead < PREFETCH_AHEAD || ahead_bytes + bytes <= PREFETCH_AHEAD_BYTES;
            if (!near || bytes == 0)
                return false;
            layer->state = PREFETCH_BEGUN;
            layer->running = true;
            layer->bytes = bytes;
            *out = (struct prefetch_step){.kind = PREFETCH_START, .layer = i, .bytes = bytes};
            return true;
        }
        ahead += layer->state == PREFETCH_BEGUN;
        ahead_bytes += layer->state == PREFETCH_BEGUN ? layer->bytes : 0;
    }
    return false;
}

bool prefetch_next(struct prefetch *image, uint64_t now_us, uint64_t room_bytes,
                   struct prefetch_step *out)
{
    if (image->reached > 0 && !prefetch_active(image, now_us))
        rest(image);
    if (next_stop(image, now_us, out))
        return true;
    return image->reached > 0 && next_start(image, room_bytes, out);
}
