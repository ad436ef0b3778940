/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1 requests as the mirror takes them: strict parsing (RFC 9112, HTTP-1..3) on llhttp,
 * ranges (RFC 9110 §14, HTTP-5), routing of the client endpoints (DESIGN §6), and response heads.
 * No sockets.
 */
#ifndef SHOAL_HTTP_H
#define SHOAL_HTTP_H

#include "digest.h"
#include "err.h"
#include "types.h"

#define HTTP_TARGET_BYTES_MAX 2048
/* Below /accelerator/ and /accelerate/ a target holds a signed URL, and security tokens have no
 * fixed length (ACR.md §6): as long as the origin takes one (URL_BYTES_MAX of src/registry). */
#define HTTP_URL_TARGET_BYTES_MAX 8192
#define HTTP_HEAD_BYTES_MAX       (16 * 1024)
#define HTTP_HEADERS_MAX          64

enum http_method {
    HTTP_GET = 1,
    HTTP_HEAD,
    HTTP_POST,  /* of http_request_parse_order only */
    HTTP_OTHER, /* answered with 405 */
};

struct http_header {
    const char *name;  /* lower-cased, zero-terminated */
    const char *value; /* trimmed, zero-terminated */
};

/* One parsed request head. Strings live in `storage`, valid until the next http_request_parse. */
struct http_request {
    enum http_method method;
    char target[HTTP_URL_TARGET_BYTES_MAX + 1]; /* origin-form as received */
    bool keep_alive;
    bool http_1_0;
    size_t body_bytes; /* that follow the head; 0 but for HTTP_POST */
    unsigned header_count;
    struct http_header
        headers[HTTP_HEADERS_MAX]; /* repeated names stay separate, in order (CLIENTS §1.7) */
    char storage[HTTP_HEAD_BYTES_MAX + 2 * HTTP_HEADERS_MAX];
};

/*
 * Parses one head from the start of `bytes`. 0 with *used = bytes of the head; E_AGAIN: incomplete,
 * read more (at most HTTP_HEAD_BYTES_MAX). Else refuse with *status (400, 405, 413, 414, 431, 501,
 * 505) and close: E_MALFORMED, E_TOO_LARGE, E_UNSUPPORTED. A TLS ClientHello is E_MALFORMED with
 * 400 on its first bytes (CLIENTS §1.6). A request body (Content-Length > 0 or any
 * Transfer-Encoding) is refused: 413 (HTTP-2). Methods other than GET and HEAD are taken as
 * HTTP_OTHER if they have no body, else refused with 405; words that are no method 501. `out`,
 * `used` and `status` are written only with the result they belong to. Each call starts at the
 * first byte again (16 KiB cost about 20 us): call when a line has come, not for every byte.
 */
MUST_USE int http_request_parse(const uint8_t *bytes, size_t byte_count, struct http_request *out,
                                size_t *used, int *status);
/*
 * The same for ports that take orders, never for clients' (HTTP-2): POST is HTTP_POST and may have
 * a body of at most `body_max` bytes with a Content-Length. A longer one, and any transfer coding,
 * is refused with 413.
 */
MUST_USE int http_request_parse_order(const uint8_t *bytes, size_t byte_count, size_t body_max,
                                      struct http_request *out, size_t *used, int *status);
/* First value of a header (lower-case name), or NULL. */
const char *http_request_header(const struct http_request *request, const char *name);

/* Do the Accept lines allow this media type (its parameters do not count)? True without such lines;
 * the closest range decides, one of weight 0 is a no (RFC 9110 §12.5.1). */
bool http_accepts(const struct http_request *request, const char *media_type);

/* ---- ranges ---- */
enum http_range_kind {
    HTTP_RANGE_WHOLE = 1,     /* no, malformed, or several ranges: the whole body with 200 */
    HTTP_RANGE_PART,          /* 206 */
    HTTP_RANGE_UNSATISFIABLE, /* 416 */
};
/* Resolves a Range header (NULL: none) against a size: inclusive first..last for PART. Overflow,
   suffix and end-beyond-size per RFC 9110 §14.1.2; first > last of one range is 416 as the
   conformance suite wants (CLIENTS §11.6). */
enum http_range_kind http_range_resolve(const char *range, uint64_t size_bytes, uint64_t *first,
                                        uint64_t *last);

/* ---- routes ---- */
enum http_route_kind {
    HTTP_ROUTE_NONE = 0,   /* 404 */
    HTTP_ROUTE_BASE,       /* /v2/ */
    HTTP_ROUTE_MANIFEST,   /* /v2/<name>/manifests/<tag or digest> */
    HTTP_ROUTE_BLOB,       /* /v2/<name>/blobs/<digest> */
    HTTP_ROUTE_REFERRERS,  /* /v2/<name>/referrers/<digest> */
    HTTP_ROUTE_TAGS,       /* /v2/<name>/tags/list */
    HTTP_ROUTE_ACCELERATE, /* /accelerator/<url>, /accelerate/<url> */
    HTTP_ROUTE_HEALTH,     /* /healthz on the client port too */
};
struct http_route {
    enum http_route_kind kind;
    char repository[REPOSITORY_BYTES_MAX + 1];
    char reference[DIGEST_TEXT_BYTES]; /* tag or digest text */
    bool by_digest;
    struct digest digest;        /* when by_digest */
    char ns[HOST_BYTES_MAX + 1]; /* decoded, lower-cased ?ns=, "" if absent; ACCELERATE: the URL's
                                    host, without its scheme's own port */
    char query[HTTP_TARGET_BYTES_MAX +
               1]; /* the rest of the query without ns, raw: passed on for tags and referrers */
    /* ACCELERATE: the absolute URL, raw. One of the form <registry>/v2/<name>/blobs/<digest> is
       taken apart into repository and digest (by_digest). Its query may be a secret. */
    char url[HTTP_URL_TARGET_BYTES_MAX + 1];
};
/* Splits and validates a target: percent-decoded once, `..`, empty segments and encoded slashes
   refused (HTTP-3), names per the OCI grammar (ORG-8). 0 (kind may be NONE), or E_MALFORMED with
   *oci_code set to an OCI error code (NAME_INVALID, DIGEST_INVALID, MANIFEST_INVALID, UNSUPPORTED)
   and kind NONE. */
MUST_USE int http_route_parse(const char *target, struct http_route *out, const char **oci_code);

/* ---- responses ---- */
/* Builder of a response head into a caller's buffer; the first failure (no room, CR/LF in a value)
 * sticks. */
struct http_head {
    char *out;
    size_t capacity;
    size_t used;
    int err;
};
void http_head_begin(struct http_head *head, char *out, size_t capacity, int status);
void http_head_add(struct http_head *head, const char *name, const char *value);
void http_head_add_uint(struct http_head *head, const char *name, uint64_t value);
/* Ends with the empty line. 0 with *used, E_TOO_LARGE, E_MALFORMED. */
MUST_USE int http_head_end(struct http_head *head, size_t *used);
/* A registry's Link header for clients of this port: targets on `host` ("name[:port]", the
   registry's own) become paths, and such as are paths name the registry by `ns` ("": the client did
   not, and need not). Targets elsewhere stay. 0; E_MALFORMED, E_TOO_LARGE: nothing usable was
   written. */
MUST_USE int http_link_here(const char *link, const char *host, const char *ns, char *text,
                            size_t text_bytes);
const char *http_status_text(int status);
/* {"errors":[{"code":CODE,"message":...}]} (OCI distribution-spec "Error Codes"), JSON-escaped. 0,
 * E_TOO_LARGE. */
MUST_USE int http_oci_error(char *out, size_t out_bytes, const char *code, const char *message,
                            size_t *used);

#endif
