/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which layers of an image a node brings in before its client asks for them (ALGORITHMS §6).
 * Clients take layers one to six at a time; each that begins late would pay for finding its swarm
 * again. The rule looks no further than a few layers beyond the last one asked for: a layer that
 * the runtime holds already is never asked for, and what was brought in for it was in vain. A layer
 * that the client passed over is let go of.
 *
 * Only the decision is here, for the agent and the simulator alike; they read, and count who reads.
 * No memory, no time of its own. One object is one image at one node, whoever its clients are.
 */
#ifndef SHOAL_PREFETCH_H
#define SHOAL_PREFETCH_H

#include <stdbool.h>
#include <stdint.h>

/* Layers of an image that the rule knows of: what comes behind them is left to the client. Images
 * of more than 127 layers cannot be mounted as overlays by most runtimes. */
#define PREFETCH_LAYERS_MAX 128
/* So many layers ahead whatever their size, and as many small ones as make up this: what a link of
 * 1 Gbit/s brings in half a second, about what a swarm takes to begin. */
#define PREFETCH_AHEAD       2
#define PREFETCH_AHEAD_BYTES (64ull * 1024 * 1024)
#define PREFETCH_AHEAD_MAX   8
/* Parts of layers shorter than this are not worth beginning. */
#define PREFETCH_LEAST_BYTES (4ull * 1024 * 1024)
/* What may be ahead of clients on a node: a share of its cache, so that what is read is not driven
 * out by what may be, and never more than this: a second of 10 Gbit/s. */
#define PREFETCH_CACHE_SHARE 8
#define PREFETCH_BYTES_MAX   (1ull << 30)
/* No client reads any layer for so long: it is gone, or it has what it wanted. Between two layers a
 * client may unpack; a guess. */
#define PREFETCH_IDLE_US (30ull * 1000000)
/* Requests of a client that takes several layers at once overtake each other: what was passed over
 * is let go of when it was not asked for in so long. To stop and begin again would cost more. */
#define PREFETCH_PASSED_US (1ull * 1000000)

enum prefetch_state {
    PREFETCH_OPEN = 0, /* nobody asked; ends by START, or by a client at or beyond it */
    PREFETCH_BEGUN,    /* being brought in, or here; ends by a client at or beyond it, or by rest */
    PREFETCH_SETTLED,  /* the host has it already, or cannot have it; ends as OPEN, but not by START
                        */
    PREFETCH_ASKED,    /* a client asked for it */
    PREFETCH_PASSED,   /* a client asked for a later one: it holds this one, or takes it later */
};

struct prefetch_layer {
    uint64_t size_bytes; /* the host's */
    uint64_t bytes;      /* BEGUN: how much of it, from its beginning */
    uint64_t passed_us;  /* PASSED: since when */
    uint8_t state;       /* enum prefetch_state */
    bool running;        /* START was given and not yet STOP */
};

/* All members but `layers` are the rule's own. */
struct prefetch {
    struct prefetch_layer *layers; /* borrowed for the object's life; in manifest order */
    uint32_t layer_count;
    uint32_t reached;  /* a client was at the layer before this one; 0: none was */
    uint32_t readers;  /* clients that read whole layers now */
    uint64_t quiet_us; /* since when there are none; only while reached > 0 */
};

enum prefetch_step_kind {
    /* Begin to bring in the first `bytes` of a layer, behind everything a client waits for. If that
     * cannot or need not be: prefetch_settle. */
    PREFETCH_START = 1,
    /* End that: a client reads the layer itself, does not want it, or is gone. */
    PREFETCH_STOP,
};
struct prefetch_step {
    enum prefetch_step_kind kind;
    uint32_t layer;
    uint64_t bytes;            /* START */
    enum prefetch_state state; /* STOP: the layer's now; ASKED: it was of use */
};

/* What may be ahead of clients in all images of a node with a cache of so many bytes. */
uint64_t prefetch_room(uint64_t cache_bytes);
/* `layers` with their size_bytes, at most PREFETCH_LAYERS_MAX of them; the rest of them is set. */
void prefetch_init(struct prefetch *image, struct prefetch_layer *layers, uint32_t layer_count);
/* A client begins to read a whole layer, or its read ends, however it ends; in pairs. */
void prefetch_began(struct prefetch *image, uint64_t now_us, uint32_t layer);
void prefetch_ended(struct prefetch *image, uint64_t now_us);
/*
 * The next thing to do, until there is none (false); after every event here, and when the deadline
 * has passed. `room_bytes`: what may be ahead of clients in all images of the node less what is
 * (prefetch_ahead_bytes); 0 starts nothing.
 */
bool prefetch_next(struct prefetch *image, uint64_t now_us, uint64_t room_bytes,
                   struct prefetch_step *out);
/* The host has all of the layer, or could not begin, or failed: it is not begun again before the
 * image has come to rest. It may run: STOP does not follow. */
void prefetch_settle(struct prefetch *image, uint32_t layer);
/* Bytes begun that no client has asked for. */
uint64_t prefetch_ahead_bytes(const struct prefetch *image);
/* Some client was there of late. */
bool prefetch_active(const struct prefetch *image, uint64_t now_us);
/* When something begun is to be let go of; UINT64_MAX: not known yet. */
uint64_t prefetch_deadline_us(const struct prefetch *image);

#endif
