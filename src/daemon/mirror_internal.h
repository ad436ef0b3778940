/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of the mirror: mirror.c (routes), relay.c (one whole answer of the origin),
 * mirror_manifest.c, mirror_blob.c, mirror_accelerate.c (URLs handed over), mirror_prefetch.c
 * (layers before they are asked for), mirror_silence.c (registries that do not answer), direct.c
 * (bytes around the mesh), manifest_store.c. */
#ifndef SHOAL_DAEMON_MIRROR_INTERNAL_H
#define SHOAL_DAEMON_MIRROR_INTERNAL_H

#include "manifest_store.h"
#include "mirror.h"
#include "tag_memory.h"

/* HTTP-6: a request has its head or a 5xx within 10 s. This is when ours is due at the latest. */
#define MIRROR_HEAD_US (9ull * 1000000)
/* What of it one question to the registry may take, so that there is time for what follows. */
#define MIRROR_ASK_MS 8000u
/* With a stale grant at hand (ACL-6) a silent registry is waited for no longer than this: a pull
 * may lose a second by that in all (O-1). */
#define MIRROR_HURRY_MS 800u

/* mirror_silence.c: registries that were silent of late; for more, each question is asked. */
#define MIRROR_SILENT_MAX 16
struct silent_registry {
    char name[HOST_BYTES_MAX + 1]; /* "": the place is free */
    struct mirror *mirror;
    uint64_t met_us;            /* when its silence was last met with */
    uint64_t probe_us;          /* not asked again before */
    struct origin_fetch *probe; /* under way, or NULL */
    int status;                 /* of its answer; 0: none yet */
};

struct mirror {
    struct mirror_config config;
    struct mirror_counters counters;
    struct manifest_store *manifests;
    struct challenges *challenges;
    struct tag_memory *tags;
    struct mirror_request
        *tag_asked; /* mirror_tags.c: questions under way, and who waits for one */
    struct mirror_prefetch *prefetch;
    struct mirror_rests *rests;
    struct direct *direct_queue; /* direct.c: bodies to be kept whole that wait for memory */
    uint64_t direct_whole_bytes; /* of those that have it */
    struct silent_registry silent[MIRROR_SILENT_MAX];
};

/* What of a blob a client asked for: bytes first..last of `size`. */
struct blob_span {
    uint64_t size, first, last;
    bool part; /* by a Range that can be satisfied: 206, be it the whole (RFC 9110 §14.2) */
};

/* One client request while it is worked on. Owned by whoever answers the exchange. */
struct mirror_request {
    struct mirror *mirror;
    struct exchange *exchange; /* NULL once the client is gone */
    struct http_route route;
    const struct registry_entry *registry; /* held */
    const char *authorization;             /* borrowed from the exchange; NULL: none */
    uint8_t credential_hash[32];
    /* Of a registry's storage, asked instead of the registry; its query is the caller's credential.
       Points into `route`; NULL: none. */
    const char *url;
    bool opaque; /* `url` names no digest: its bytes are passed on, never shared or kept */
    uint64_t started_us;
    bool hurry;          /* there is an answer without the registry, if it stays silent */
    struct relay *relay; /* running, or NULL */
    /* mirror_blob.c, while it is found out how the range is to be read */
    struct cut_waiter cut;
    struct blob_span span;
    /* mirror_tags.c */
    char etag[TAG_ETAG_BYTES];     /* of the condition that was sent; "" none */
    bool tag_listed, waited;       /* in mirror->tag_asked; was there as a follower */
    struct mirror_request *leader; /* who asks for us; NULL: nobody */
    struct mirror_request *tag_next;
};

/* Frees a request that was answered or whose client is gone; cancels its relay. */
void mirror_request__free(struct mirror_request *request);
uint64_t mirror__now_us(const struct mirror *mirror);
/* Grant of this request's credentials for its repository, fresh. */
bool mirror__granted(const struct mirror_request *request);
/* The same while the registry cannot be reached (ACL-6). */
bool mirror__granted_stale(const struct mirror_request *request);
/* The registry accepted (true) or refused these credentials. */
void mirror__grant(const struct mirror_request *request, bool accepted);
/* A part of a pull begins, is under way or ends: the pull keeps its grant (ACL-2). That of a signed
 * URL ends when it ends: its storage is asked again then. */
void mirror__running(const struct mirror_request *request);
/* What came of a question to this request's registry: mirror_silence__known follows it. */
void mirror_silence__heard(const struct mirror_request *request, int err, int status);
/* The registry was silent moments ago, so that whoever may be answered without it should be (O-1).
 * Starts a probe in the background when one is due. */
bool mirror_silence__known(const struct mirror_request *request);
/* What the relay's answer says of who may read: a grant, its end, a challenge to remember. */
void mirror__heed(const struct mirror_request *request);
/* A challenge of the registry's to this request; NULL: it served without one. */
void mirror__challenge(const struct mirror_request *request, const char *challenge);
/* True for an error, or a status (else 0), that says the registry cannot answer now. */
bool mirror__registry_down(int err, int status);
/* True if a request without credentials met a registry that is down by its status (a gateway's 5xx)
 * but is known to want credentials: mirror__unavailable says so. */
bool mirror__asks_credentials(const struct mirror_request *request, int status);
/* Text for people on why the registry could not be used. */
void mirror__why(const struct mirror_request *request, int err, char *out, size_t out_bytes);
/* How long the next question to the registry may take, ms. */
uint32_t mirror__head_ms(const struct mirror_request *request);
/* Remembers that this repository references a digest (ACL-3). */
void mirror__link(const struct mirror_request *request, const struct digest *digest,
                  uint64_t size_bytes);
/* The registry did not answer and we may not answer for it: 503, or to a request without
 * credentials its challenge of before. Frees the request. */
void mirror__unavailable(struct mirror_request *request, int err);

/* ---- relay.c ---- */
/* One origin request whose whole answer (at most 4 MiB) is collected. */
struct relay;
typedef void (*relay_done_fn)(void *arg, int err); /* 0: an answer of any status is there */
/* `method` and `path` as the origin wants them; Accept lines and credentials come from the
 * request. 0 (done follows, never inside), E_NO_MEMORY, E_FULL, E_INVALID. */
MUST_USE int relay_start(struct mirror_request *request, enum origin_kind kind, const char *method,
                         const char *path_and_query, relay_done_fn done, void *arg);
int relay_status(const struct relay *relay);
const char *relay_header(const struct relay *relay, const char *name); /* NULL if absent */
const char *relay_body(const struct relay *relay, size_t *bytes);
/* For an answer without Content-Type; copied, and left out without memory. */
void relay_set_type(struct relay *relay, const char *type);
uint64_t relay_content_length(const struct relay *relay); /* UINT64_MAX: unknown */
/* Cancels what runs; NULL is fine. */
void relay_free(struct relay *relay);
/* Answers the exchange with what the origin said, and frees the request. */
void relay_answer(struct mirror_request *request);
/* OCI distribution-spec "Error Codes" for the registry's status. */
const char *mirror__oci_code(const struct mirror_request *request, int status);

/* ---- mirror_tags.c: nothing of it but for tags ---- */
/* A rule says that this tag is not resolved here: answers 404, whatever is known, and frees the
 * request; runtimes then ask the registry themselves. False: it is. */
bool mirror_tags__answer_off(struct mirror_request *request);
/* The registry's 200: the tag stands for this digest. `etag` NULL: it sent none. */
void mirror_tags__learn(const struct mirror_request *request, const struct digest *digest,
                        const char *etag);
/* The registry's 404. */
void mirror_tags__forget(const struct mirror_request *request);
/* Answers and frees a request whose tag the registry confirmed after it came, or before for no
 * longer than the rule for it, or tags.ttl, says; false: it did not, or these credentials have no
 * grant. */
bool mirror_tags__answer_fresh(struct mirror_request *request);
/* The same with what the registry said before it went down, marked as stale (ACL-6) unless the tag
 * is one that never moves. */
bool mirror_tags__answer_stale(struct mirror_request *request);
/* If-None-Match for the question; NULL: none. Borrowed from the request. */
const char *mirror_tags__condition(struct mirror_request *request);
/* The registry's 304 to that: answers and frees the request; false: ask without. */
bool mirror_tags__answer_unchanged(struct mirror_request *request);
/* True: the same question is under way for the same credentials, and mirror_manifest is called
 * again when it is over. */
bool mirror_tags__join(struct mirror_request *request);
/* The request ends: those who wait for it go on. */
void mirror_tags__leave(struct mirror_request *request);

/* ---- mirror_prefetch.c ---- */
struct prefetch_image;
/* Makes mirror->prefetch, a part of the loop. 0, E_NO_MEMORY, E_INTERNAL. */
MUST_USE int mirror_prefetch__new(struct mirror *mirror);
/* After the loop has run out; NULL is fine. */
void mirror_prefetch__free(struct mirror_prefetch *prefetch);
/* A manifest is answered to a caller who may read it: its layers (copied) may be brought in ahead,
 * if the configuration says so. Indexes and images of one layer are nothing to it. */
void mirror_prefetch__manifest(const struct mirror_request *request, const struct digest *manifest,
                               const struct manifest_descriptor *found, size_t count);
/* The same manifest is answered from memory. If its image was forgotten meanwhile it stays so:
 * answers from memory do not parse. */
void mirror_prefetch__touch(const struct mirror_request *request, const struct digest *manifest);
/* A client whose right is proven begins to read a whole blob through the mesh: what comes next in
 * its image is begun with its credentials. NULL: of no image; else mirror_prefetch__ended is due
 * when that read ends. */
struct prefetch_image *mirror_prefetch__began(const struct mirror_request *request);
void mirror_prefetch__ended(struct prefetch_image *image);
/* The registry refused this caller: nothing more is brought in on its behalf (ACL-2). */
void mirror_prefetch__refused(struct mirror_prefetch *prefetch, const struct blob_caller *caller);

/* ---- mirror_rest.c ---- */
/* Makes mirror->rests, a part of the loop. 0, E_NO_MEMORY, E_INTERNAL. */
MUST_USE int mirror_rest__new(struct mirror *mirror);
/* After the loop has run out; NULL is fine. */
void mirror_rest__free(struct mirror_rests *rests);
/* A client whose right is proven reads a range of this blob through the mesh: if the configuration
 * says so, all of it is brought in behind what clients wait for. Cost: a look at each such blob. */
void mirror_rest__asked(const struct mirror_request *request, struct blob *blob,
                        uint64_t size_bytes);
/* The registry refused this caller: nothing more is brought in on its behalf (ACL-2). */
void mirror_rest__refused(struct mirror_rests *rests, const struct blob_caller *caller);

/* ---- mirror.c ---- */
/* A request for what an entry of the registries answers. The entry is TAKEN, by failure too. NULL:
 * memory is short, and the exchange is answered. */
struct mirror_request *mirror_request__new(struct mirror *mirror, struct exchange *exchange,
                                           const struct http_route *route,
                                           const struct registry_entry *registry);
/* Answers an exchange that is no request yet. */
void mirror__refuse(struct mirror *mirror, struct exchange *exchange, int status, const char *code,
                    const char *message);

/* ---- mirror_accelerate.c ---- */
/* /accelerator/<URL>: a registry's blob, or something of its storage; anything else is refused
 * without a look-up (ORG-1). `route` is borrowed. */
void mirror_accelerate(struct mirror *mirror, struct exchange *exchange,
                       const struct http_route *route);

/* ---- mirror_manifest.c, mirror_blob.c, direct.c: each takes the request over ---- */
void mirror_manifest(struct mirror_request *request);
void mirror_blob(struct mirror_request *request);
/* Streams a span of a blob from the origin to the client, around the mesh. */
void mirror_direct(struct mirror_request *request, const struct blob_span *span);
/* The same beside the mesh, for a caller who keeps the request and stops or takes it over before
 * that is freed. `answered(arg)` is called at most once, when the registry begins to give the
 * bytes: true, the request is no longer the caller's; false, after mirror_direct_stop. What the
 * registry refuses is kept for mirror_direct_alone. NULL without memory. */
struct direct;
typedef bool (*direct_answered_fn)(void *arg);
struct direct *mirror_direct_beside(struct mirror_request *request, const struct blob_span *span,
                                    direct_answered_fn answered, void *arg);
/* Nothing else is hoped for: the request is answered as by mirror_direct. May answer at once. */
void mirror_direct_alone(struct direct *direct);
/* Ends it without an answer; only before `answered` gave true, and before mirror_direct_alone. */
void mirror_direct_stop(struct direct *direct);
/* Head of a blob's answer: 200 or 206. `range` is storage for a header's value; tier 0: not told.
 */
#define RANGE_TEXT_BYTES 64
void mirror_blob_head(const struct mirror_request *request, const struct blob_span *span,
                      enum blob_tier tier, struct response *out, char range[RANGE_TEXT_BYTES]);
/* First byte of a blob went out: counts how long it took. */
void mirror__first_byte(const struct mirror_request *request);
/* The last one did: counts the pull and how long it took. */
void mirror__pulled(const struct mirror_request *request);

#endif
