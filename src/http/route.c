/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Routes of the client port (DESIGN §6): a target is split, percent-decoded once, checked segment
 * by segment (HTTP-3) and only then compared with the OCI grammar (ORG-8). Nothing that comes out
 * of here needs to be checked again before it is used in a name or a URL.
 */
#include "http.h"

#include <string.h>

#include "bytes.h"
#include "head_scan.h"
#include "registry.h"

/* Codes of the OCI distribution-spec "Error Codes". A tag has none of its own. */
static const char name_invalid[] = "NAME_INVALID";
static const char digest_invalid[] = "DIGEST_INVALID";
static const char manifest_invalid[] = "MANIFEST_INVALID";
static const char unsupported[] = "UNSUPPORTED";

struct text {
    const char *at;
    size_t bytes;
};

static int refuse(const char **oci_code, const char *code)
{
    *oci_code = code;
    return E_MALFORMED;
}

static bool text_is(struct text text, const char *wanted)
{
    return text.bytes == strlen(wanted) && memcmp(text.at, wanted, text.bytes) == 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/*
 * Percent-decodes once into out[out_bytes], terminated. E_MALFORMED for a broken escape and for
 * bytes that have no place in a name even decoded: controls, DEL, 8-bit, and '/' or '\' (an encoded
 * slash would move a segment's border, HTTP-3). E_TOO_LARGE if it does not fit.
 */
static int decode(struct text in, char *out, size_t out_bytes)
{
    size_t used = 0;
    for (size_t i = 0; i < in.bytes; i++) {
        char c = in.at[i];
        if (c == '%') {
            int high = i + 2 < in.bytes ? hex_digit(in.at[i + 1]) : -1;
            int low = i + 2 < in.bytes ? hex_digit(in.at[i + 2]) : -1;
            if (high < 0 || low < 0)
                return E_MALFORMED;
            c = (char)(high << 4 | low);
            if (c == '/')
                return E_MALFORMED;
            i += 2;
        }
        if ((unsigned char)c <= 0x20 || (unsigned char)c >= 0x7f || c == '\\')
            return E_MALFORMED;
        if (used + 1 >= out_bytes)
            return E_TOO_LARGE;
        out[used++] = c;
    }
    out[used] = '\0';
    return 0;
}

/* No "//", "/./" or "/../" in an absolute, decoded path; one slash at its end is looked at by the
 * caller. */
static bool segments_valid(const char *path)
{
    const char *at = path;
    while (*at == '/') {
        size_t bytes = strcspn(at + 1, "/");
        struct text segment = {at + 1, bytes};
        bool last = at[1 + bytes] == '\0';
        if ((bytes == 0 && !last) || text_is(segment, ".") || text_is(segment, ".."))
            return false;
        at += 1 + bytes;
    }
    return *at == '\0';
}

/* ---- query ---- */

static int take_ns(struct http_route *route, struct text value, bool *seen)
{
    if (*seen) /* two answers to "which registry" are none */
        return E_MALFORMED;
    *seen = true;
    if (decode(value, route->ns, sizeof route->ns) != 0)
        return E_MALFORMED;
    for (char *at = route->ns; *at != '\0'; at++) {
        if (*at >= 'A' && *at <= 'Z')
            *at = (char)(*at | 0x20);
    }
    size_t bytes = strlen(route->ns);
    return bytes == 0 || ref_host_valid(route->ns, bytes) ? 0 : E_MALFORMED;
}

/* Takes ns out of a query; what is left goes to route->query as it came, for the registry. */
static int split_query(struct http_route *route, const char *query)
{
    bool seen = false;
    size_t used = 0;
    while (*query != '\0') {
        struct text field = {query, strcspn(query, "&")};
        query += field.bytes + (query[field.bytes] == '&');
        if (field.bytes >= 3 && memcmp(field.at, "ns=", 3) == 0) {
            int err = take_ns(route, (struct text){field.at + 3, field.bytes - 3}, &seen);
            if (err != 0)
                return err;
            continue;
        }
        if (field.bytes == 0)
            continue;
        if (used + 1 + field.bytes >= sizeof route->query)
            return E_TOO_LARGE;
        if (used > 0)
            route->query[used++] = '&';
        memcpy(route->query + used, field.at, field.bytes);
        used += field.bytes;
    }
    route->query[used] = '\0';
    return 0;
}

/* ---- /v2/ ---- */

/* The digest that `reference` must be. */
static int take_digest(struct http_route *route, struct text reference, const char **oci_code)
{
    if (digest_parse(reference.at, reference.bytes, &route->digest) != 0)
        return refuse(oci_code, digest_invalid);
    route->by_digest = true;
    (void)digest_text(&route->digest, route->reference);
    return 0;
}

static int take_reference(struct http_route *route, struct text reference, const char **oci_code)
{
    if (route->kind != HTTP_ROUTE_MANIFEST || memchr(reference.at, ':', reference.bytes) != NULL)
        return take_digest(route, reference, oci_code);
    if (!ref_tag_valid(reference.at, reference.bytes) ||
        text_copy_n(route->reference, sizeof route->reference, reference.at, reference.bytes) != 0)
        return refuse(oci_code, manifest_invalid);
    return 0;
}

/* Splits "<name>/<kind>/<reference>" from its end, since a name may contain any word, "manifests"
 * too. False: no endpoint we have. */
static bool split_v2(const char *rest, struct text *name, enum http_route_kind *kind,
                     struct text *reference)
{
    const char *last = strrchr(rest, '/');
    const char *middle = last;
    if (last == NULL)
        return false;
    while (middle > rest && middle[-1] != '/')
        middle--;
    if (middle == rest) /* no name in front */
        return false;
    struct text word = {middle, (size_t)(last - middle)};
    *reference = (struct text){last + 1, strlen(last + 1)};
    *name = (struct text){rest, (size_t)(middle - 1 - rest)};
    if (text_is(word, "manifests"))
        *kind = HTTP_ROUTE_MANIFEST;
    else if (text_is(word, "blobs"))
        *kind = HTTP_ROUTE_BLOB;
    else if (text_is(word, "referrers"))
        *kind = HTTP_ROUTE_REFERRERS;
    else if (text_is(word, "tags") && text_is(*reference, "list"))
        *kind = HTTP_ROUTE_TAGS;
    else
        return false;
    return true;
}

/* `rest` is the decoded path behind "/v2/". */
static int route_v2(struct http_route *route, const char *rest, const char **oci_code)
{
    struct text name, reference;
    enum http_route_kind kind = HTTP_ROUTE_NONE;
    if (*rest == '\0') {
        route->kind = HTTP_ROUTE_BASE;
        return 0;
    }
    if (!split_v2(rest, &name, &kind, &reference))
        return 0;
    if (!ref_repository_valid(name.at, name.bytes) ||
        text_copy_n(route->repository, sizeof route->repository, name.at, name.bytes) != 0)
        return refuse(oci_code, name_invalid);
    route->kind = kind;
    return kind == HTTP_ROUTE_TAGS ? 0 : take_reference(route, reference, oci_code);
}

/* ---- /accelerator/ ---- */

/* The URL's host as a registry's name: image references leave the scheme's own port out. */
static int take_host(struct http_route *route, struct text host, const char *default_port)
{
    size_t port_bytes = strlen(default_port);
    if (host.bytes > port_bytes &&
        memcmp(host.at + host.bytes - port_bytes, default_port, port_bytes) == 0)
        host.bytes -= port_bytes;
    return text_copy_n(route->ns, sizeof route->ns, host.at, host.bytes);
}

/* A blob of a registry is the same whether it is asked for here or under /v2/. Anything else is
 * left as it is: a URL. */
static void take_blob(struct http_route *route, const char *path)
{
    struct text name, reference;
    const char *code;
    enum http_route_kind kind = HTTP_ROUTE_NONE;
    if (strncmp(path, "/v2/", 4) != 0 || strpbrk(path, "?%") != NULL || !segments_valid(path))
        return;
    if (!split_v2(path + 4, &name, &kind, &reference) || kind != HTTP_ROUTE_BLOB ||
        !ref_repository_valid(name.at, name.bytes) || take_digest(route, reference, &code) != 0)
        return;
    int err = text_copy_n(route->repository, sizeof route->repository, name.at, name.bytes);
    route->by_digest = err == 0;
}

/*
 * An absolute http(s) URL with a plain lower-case host: no userinfo, no odd spelling that another
 * reader could take for another host. Path and query stay as they came, since signatures cover
 * them; the target's bytes were checked by the request parser. Whether the host may be asked is the
 * mirror's decision (ORG-1, ORG-2).
 */
static int route_accelerate(struct http_route *route, const char *url, const char **oci_code)
{
    size_t scheme = 0;
    if (strncmp(url, "https://", 8) == 0)
        scheme = 8;
    else if (strncmp(url, "http://", 7) == 0)
        scheme = 7;
    size_t host = strcspn(url + scheme, "/?");
    if (scheme == 0 || !ref_host_valid(url + scheme, host) ||
        ref_has_dot_segment(url + scheme + host))
        return refuse(oci_code, unsupported);
    for (const char *at = url; *at != '\0'; at++) {
        if ((unsigned char)*at <= 0x20 || (unsigned char)*at >= 0x7f || *at == '\\' || *at == '#')
            return refuse(oci_code, unsupported);
    }
    struct text name = {url + scheme, host};
    if (text_copy(route->url, sizeof route->url, url) != 0 ||
        take_host(route, name, scheme == 8 ? ":443" : ":80") != 0)
        return refuse(oci_code, unsupported);
    take_blob(route, url + scheme + host);
    route->kind = HTTP_ROUTE_ACCELERATE;
    return 0;
}

static int route_path(struct http_route *route, const char *path, const char **oci_code)
{
    size_t bytes = strlen(path);
    if (!segments_valid(path))
        return refuse(oci_code, name_invalid);
    if (strcmp(path, "/healthz") == 0) {
        route->kind = HTTP_ROUTE_HEALTH;
        return 0;
    }
    if (strcmp(path, "/v2") == 0 || strcmp(path, "/v2/") == 0)
        return route_v2(route, "", oci_code);
    if (strncmp(path, "/v2/", 4) != 0)
        return 0;
    if (path[bytes - 1] == '/') /* an empty last segment */
        return refuse(oci_code, name_invalid);
    return route_v2(route, path + 4, oci_code);
}

int http_route_parse(const char *target, struct http_route *out, const char **oci_code)
{
    char path[HTTP_TARGET_BYTES_MAX + 1];
    memset(out, 0, sizeof *out);
    size_t prefix = http__url_prefix(target, strlen(target));
    if (prefix > 0)
        return route_accelerate(out, target + prefix, oci_code);
    size_t path_bytes = strcspn(target, "?");
    if (decode((struct text){target, path_bytes}, path, sizeof path) != 0)
        return refuse(oci_code, name_invalid);
    const char *query = target + path_bytes;
    if (*query == '?' && split_query(out, query + 1) != 0)
        return refuse(oci_code, name_invalid);
    int err = route_path(out, path, oci_code);
    if (err != 0)
        out->kind = HTTP_ROUTE_NONE;
    return err;
}
