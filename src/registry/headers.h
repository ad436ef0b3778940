/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The header section of one response: collected from raw lines (fetch_curl) or copied (an answer
 * that origin holds back), bounded (ORG-7), and shown as a struct fetch_response.
 */
#ifndef SHOAL_REGISTRY_HEADERS_H
#define SHOAL_REGISTRY_HEADERS_H

#include "registry.h"

/* ORG-7. Interim responses and trailers count too, so no server can send headers without end. */
#define HEADERS_BYTES_MAX (64 * 1024)
/* Lines; registries and object stores send about 20 (guess with room). */
#define HEADERS_COUNT_MAX 128

struct headers {
    void *(*alloc)(void *host, void *old, size_t new_bytes); /* realloc-shaped */
    void *host;
    char *bytes; /* "name\0value\0" ... */
    size_t used, capacity;
    size_t seen_bytes; /* of all lines, kept or not */
    uint32_t name_at[HEADERS_COUNT_MAX];
    uint32_t value_at[HEADERS_COUNT_MAX];
    unsigned count;
    int status;              /* of the last status line, 0 before it */
    bool complete;           /* the empty line after a final (>= 200) status was seen */
    bool last_kept;          /* a folded line may extend the last value */
    bool chunked;            /* Transfer-Encoding present: Content-Length says nothing */
    bool length_broken;      /* Content-Length malformed or contradictory */
    uint64_t content_length; /* UINT64_MAX: unknown */
    struct fetch_header view[HEADERS_COUNT_MAX];
};

/* Empty section. `alloc` and `host` are kept until headers__close. */
void headers__init(struct headers *headers, void *(*alloc)(void *, void *, size_t), void *host);

/* Forgets everything but the memory and the count of bytes seen. */
void headers__reset(struct headers *headers);

/* Wipes (Location may hold a signed URL, HRD-4) and releases. */
void headers__close(struct headers *headers);

/*
 * Takes one raw line with its line end: status line, header, fold or the empty line. A status line
 * starts a new section (after 1xx). Lines that are not a header (no colon, odd name, control bytes)
 * are dropped. Lines after `complete` (trailers) only count. 0; E_TOO_LARGE over HEADERS_BYTES_MAX
 * or HEADERS_COUNT_MAX; E_NO_MEMORY.
 */
MUST_USE int headers__line(struct headers *headers, const char *line, size_t line_bytes);

/* Copies a whole response head. 0, E_TOO_LARGE, E_NO_MEMORY (then empty). */
MUST_USE int headers__copy(struct headers *headers, const struct fetch_response *response);

/* Removes every header of that (lower-case) name. */
void headers__drop(struct headers *headers, const char *name);

/* Shows what was collected; valid until the next change of `headers`. */
void headers__view(struct headers *headers, struct fetch_response *out);

#endif
