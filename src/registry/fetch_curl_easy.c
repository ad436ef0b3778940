/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request on libcurl: its options, the check of the address it connects to (ORG-2), what
 * libcurl calls while it runs, and its error codes, which end here.
 *
 * No signals, no proxy but the configured one, no netrc, no cookies, no redirects, no
 * decompression, HTTP/1.1: one request per connection keeps the pause of one body from stopping
 * another, as it would in HTTP/2.
 */
#include "fetch_curl.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "address.h"
#include "url.h"

#define CONNECT_MS    5000
#define FIRST_BYTE_MS 10000
#define IDLE_MS       15000
/* LIMITS §0: 2.1 times the speed of libcurl's 16 KiB. Beyond the first so many requests at once the
 * network is the limit and memory counts: 1,024 requests then have 80 MiB of buffers, not 512. */
#define BUFFER_BYTES       (512L * 1024)
#define BUFFER_BYTES_CROWD (64L * 1024)
#define CROWD_FETCHES      32
#define HEADER_LINE_BYTES  (20 * 1024)

/* ---- libcurl's callbacks: addresses (ORG-2) ---- */

static void address_bytes(const struct sockaddr *from, uint8_t ip[16], uint16_t *port)
{
    memset(ip, 0, 16);
    *port = 0;
    if (from->sa_family == AF_INET) {
        struct sockaddr_in v4;

        memcpy(&v4, from, sizeof v4);
        ip[10] = ip[11] = 0xff;
        memcpy(ip + 12, &v4.sin_addr, 4);
        *port = ntohs(v4.sin_port);
    } else if (from->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;

        memcpy(&v6, from, sizeof v6);
        memcpy(ip, &v6.sin6_addr, 16);
        *port = ntohs(v6.sin6_port);
    }
}

/* They hand out the node's own credentials: only for who means them and asks for them by number, so
 * that no name and no redirect of a registry leads there. */
static bool metadata_meant(const struct fetch *fetch)
{
    static const char *const hosts[] = {"100.100.100.200", "169.254.169.254"};

    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++)
        if (strcmp(fetch->host, hosts[i]) == 0)
            return fetch->allow_metadata && !fetch->proxied;
    return false;
}

static bool address_allowed(const struct fetch *fetch, const struct curl_sockaddr *address)
{
    uint8_t ip[16];
    uint16_t port;

    if (address->family != AF_INET && address->family != AF_INET6)
        return false;
    address_bytes(&address->addr, ip, &port);
    if (fetch->curl->port_refused != 0 && port == fetch->curl->port_refused)
        return false;
    switch (address__class(ip)) {
    case ADDRESS_PUBLIC:
        return true;
    case ADDRESS_PRIVATE:
        return address_ranges_hold(&fetch->allow_private, ip) || fetch->proxied;
    case ADDRESS_METADATA:
        return metadata_meant(fetch);
    case ADDRESS_REFUSED:
        break;
    }
    return false;
}

static curl_socket_t on_open(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct fetch *fetch = arg;

    (void)purpose;
    if (!address_allowed(fetch, address)) {
        fetch->address_refused = true;
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* ---- libcurl's callbacks: one request ---- */

static int on_connected(void *arg, char *peer_ip, char *own_ip, int peer_port, int own_port)
{
    struct fetch *fetch = arg;

    (void)peer_ip;
    (void)own_ip;
    (void)peer_port;
    (void)own_port;
    if (fetch->state == FETCH_QUEUED) {
        fetch->state = FETCH_ASKED;
        fetch->since_ms = fetch_curl__clock_ms();
    }
    return CURL_PREREQFUNC_OK;
}

static size_t on_header(char *line, size_t size, size_t count, void *arg)
{
    struct fetch *fetch = arg;
    struct fetch_response response;
    size_t bytes = size * count;

    if (fetch->state == FETCH_CANCELLED)
        return 0;
    fetch->moved = true;
    fetch->err = headers__line(&fetch->headers, line, bytes);
    if (fetch->err != 0)
        return 0;
    if (!fetch->headers.complete || fetch->state == FETCH_BODY)
        return bytes;
    fetch->state = FETCH_BODY;
    headers__view(&fetch->headers, &response);
    fetch->callbacks.head(fetch->arg, &response);
    return fetch->state == FETCH_CANCELLED ? 0 : bytes;
}

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
    struct fetch *fetch = arg;
    size_t bytes = size * count;

    if (fetch->state == FETCH_CANCELLED)
        return bytes == 0 ? 1 : 0;
    if (fetch->paused)
        return CURL_WRITEFUNC_PAUSE; /* libcurl keeps these and gives them again */
    if (bytes == 0)
        return 0;
    fetch->moved = true;
    if (!fetch->callbacks.body(fetch->arg, (const uint8_t *)data, bytes))
        fetch->paused = true;
    return fetch->state == FETCH_CANCELLED ? 0 : bytes;
}

/* ---- making and releasing ---- */

_Static_assert(FETCH_REASON_BYTES >= CURL_ERROR_SIZE, "libcurl writes that much");

int fetch_curl__error_of(const struct fetch *fetch, CURLcode code)
{
    if (fetch->err != 0)
        return fetch->err;
    switch (code) {
    case CURLE_OK:
        return 0;
    case CURLE_OUT_OF_MEMORY:
        return E_NO_MEMORY;
    case CURLE_COULDNT_CONNECT:
        return fetch->address_refused ? E_REFUSED : E_UNREACHABLE;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_FAILED_INIT:
    case CURLE_INTERFACE_FAILED:
        return E_UNREACHABLE;
    case CURLE_OPERATION_TIMEDOUT:
        return E_TIMEOUT;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_USE_SSL_FAILED:
        return E_TLS;
    default:
        return E_CLOSED;
    }
}

static void lines_free(struct fetch *fetch)
{
    for (struct curl_slist *line = fetch->lines; line != NULL; line = line->next)
        explicit_bzero(line->data, strlen(line->data)); /* Authorization is among them */
    curl_slist_free_all(fetch->lines);
    fetch->lines = NULL;
}

static int line_add(struct fetch *fetch, const char *name, const char *value)
{
    char line[HEADER_LINE_BYTES];
    struct curl_slist *lines;
    int n = snprintf(line, sizeof line, "%s: %s", name, value);

    if (n < 0 || (size_t)n >= sizeof line)
        return E_INVALID;
    lines = curl_slist_append(fetch->lines, line);
    explicit_bzero(line, (size_t)n);
    if (lines == NULL)
        return E_NO_MEMORY;
    fetch->lines = lines;
    return 0;
}

/* A name or value that could begin another line, or change what libcurl does with the line. */
static bool header_valid(const struct fetch_header *header)
{
    if (header->name[0] == '\0' || header->value[0] == '\0')
        return false;
    for (const char *c = header->name; *c != '\0'; c++)
        if ((unsigned char)*c <= 0x20 || (unsigned char)*c >= 0x7f || strchr(":;@", *c) != NULL)
            return false;
    for (const char *c = header->value; *c != '\0'; c++)
        if (((unsigned char)*c < 0x20 && *c != '\t') || *c == 0x7f)
            return false;
    return true;
}

/* Nothing after the colon: libcurl leaves a header of its own out. */
static int line_suppress(struct fetch *fetch, const char *line)
{
    struct curl_slist *lines = curl_slist_append(fetch->lines, line);

    if (lines == NULL)
        return E_NO_MEMORY;
    fetch->lines = lines;
    return 0;
}

static bool sends_body(const struct fetch_request *request)
{
    return strcmp(request->method, "POST") == 0 || strcmp(request->method, "PUT") == 0 ||
           strcmp(request->method, "PATCH") == 0;
}

static int lines_make(struct fetch *fetch, const struct fetch_request *request)
{
    bool has_accept = false, has_type = false;
    int err = 0;

    if (request->header_count > FETCH_HEADERS_MAX)
        return E_INVALID;
    for (unsigned i = 0; i < request->header_count && err == 0; i++) {
        const struct fetch_header *header = &request->headers[i];

        if (!header_valid(header))
            return E_INVALID;
        has_accept = has_accept || strcasecmp(header->name, "accept") == 0;
        has_type = has_type || strcasecmp(header->name, "content-type") == 0;
        err = line_add(fetch, header->name, header->value);
    }
    /* The bytes of the digest are the bytes on the wire: no coding, ever (CLIENTS §1.10). */
    if (err == 0)
        err = line_add(fetch, "Accept-Encoding", "identity");
    if (err == 0)
        err = line_add(fetch, "User-Agent", "shoal");
    if (err == 0 && !has_accept)
        err = line_suppress(fetch, "Accept:");
    if (err == 0 && sends_body(request) && !has_type)
        err = line_suppress(fetch, "Content-Type:"); /* a signature would have to cover it */
    if (err == 0 && sends_body(request))
        err = line_suppress(fetch, "Expect:"); /* a pause of a second before small bodies */
    return err;
}

/* Collects the first failure of a run of curl_easy_setopt. */
#define SET(option, value)                                                                         \
    do {                                                                                           \
        if (code == CURLE_OK)                                                                      \
            code = curl_easy_setopt(easy, (option), (value));                                      \
    } while (0)

static CURLcode options_request(struct fetch *fetch, const struct fetch_request *request)
{
    CURL *easy = fetch->easy;
    CURLcode code = CURLE_OK;

    SET(CURLOPT_URL, request->url);
    SET(CURLOPT_PATH_AS_IS, 1L);
    SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
    SET(CURLOPT_HTTPHEADER, fetch->lines);
    SET(CURLOPT_NOBODY, strcmp(request->method, "HEAD") == 0 ? 1L : 0L);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)fetch->connect_ms);
    SET(CURLOPT_BUFFERSIZE,
        fetch->curl->fetch_count < CROWD_FETCHES ? BUFFER_BYTES : BUFFER_BYTES_CROWD);
    SET(CURLOPT_PRIVATE, (void *)fetch);
    if (request->reason != NULL)
        SET(CURLOPT_ERRORBUFFER, request->reason);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, (void *)fetch);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, (void *)fetch);
    SET(CURLOPT_PREREQFUNCTION, on_connected);
    SET(CURLOPT_PREREQDATA, (void *)fetch);
    return code;
}

static int body_take(struct fetch *fetch, const struct fetch_request *request)
{
    size_t bytes = request->body == NULL ? 0 : strlen(request->body);

    if (bytes > FETCH_BODY_BYTES_MAX || (bytes > 0 && !sends_body(request)))
        return E_INVALID;
    if (!sends_body(request))
        return 0;
    fetch->body = fetch_curl__heap(NULL, NULL, bytes + 1);
    if (fetch->body == NULL)
        return E_NO_MEMORY;
    memcpy(fetch->body, bytes == 0 ? "" : request->body, bytes + 1);
    return 0;
}

/* libcurl does not copy what POSTFIELDS points to: the one copy is ours to wipe. */
static CURLcode options_body(struct fetch *fetch, const struct fetch_request *request)
{
    CURL *easy = fetch->easy;
    CURLcode code = CURLE_OK;

    if (!sends_body(request))
        return CURLE_OK;
    SET(CURLOPT_POSTFIELDSIZE, (long)strlen(fetch->body));
    SET(CURLOPT_POSTFIELDS, fetch->body);
    if (strcmp(request->method, "POST") != 0)
        SET(CURLOPT_CUSTOMREQUEST, request->method);
    return code;
}

static const char *given(const char *text)
{
    return text != NULL && text[0] != '\0' ? text : NULL;
}

/* Whom the request trusts and goes through, as its registry's entry says. */
static CURLcode options_registry(struct fetch *fetch, const struct fetch_request *request)
{
    CURL *easy = fetch->easy;
    CURLcode code = CURLE_OK;

    /* Added to the system's, as containerd does with `ca`: a registry with a private CA may send us
       to a store with a public one. */
    if (given(request->ca_file) != NULL)
        SET(CURLOPT_CAINFO, request->ca_file);
    if (given(request->client_cert) != NULL)
        SET(CURLOPT_SSLCERT, request->client_cert);
    if (given(request->client_key) != NULL)
        SET(CURLOPT_SSLKEY, request->client_key);
    fetch->proxied = given(request->proxy) != NULL;
    /* "" and "*": none, not even from the environment. */
    SET(CURLOPT_PROXY, fetch->proxied ? request->proxy : "");
    SET(CURLOPT_NOPROXY, fetch->proxied ? "" : "*");
    SET(CURLOPT_PROXYTYPE, (long)CURLPROXY_HTTP);
    /* The tunnel's head is neither shown as the registry's nor given our headers. */
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    SET(CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE);
    return code;
}

/* What no request may do differently. */
static CURLcode options_safety(struct fetch *fetch)
{
    CURL *easy = fetch->easy;
    CURLcode code = CURLE_OK;

    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_HTTP09_ALLOWED, 0L);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2); /* and later (ORG-6) */
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_OPENSOCKETFUNCTION, on_open);
    SET(CURLOPT_OPENSOCKETDATA, (void *)fetch);
    SET(CURLOPT_TCP_KEEPALIVE, 1L);
    /* A name server that hangs must not hang the loop when its request is cancelled. */
    SET(CURLOPT_QUICK_EXIT, 1L);
    return code;
}

int fetch_curl__easy_open(struct fetch *fetch, const struct fetch_request *request)
{
    struct url_parts url;
    CURLcode code;
    int err;

    if (strcmp(request->method, "GET") != 0 && strcmp(request->method, "HEAD") != 0 &&
        !sends_body(request))
        return E_INVALID;
    if (url__parse(request->url, strlen(request->url), &url) != 0)
        return E_INVALID;
    memcpy(fetch->host, url.host, sizeof fetch->host);
    memcpy(fetch->pool_key, request->pool_key, sizeof fetch->pool_key);
    if (request->allow_private != NULL)
        fetch->allow_private = *request->allow_private;
    fetch->allow_metadata = request->allow_metadata;
    fetch->connect_ms = request->connect_timeout_ms != 0 ? request->connect_timeout_ms : CONNECT_MS;
    fetch->first_byte_ms =
        request->first_byte_timeout_ms != 0 ? request->first_byte_timeout_ms : FIRST_BYTE_MS;
    fetch->idle_ms = request->idle_timeout_ms != 0 ? request->idle_timeout_ms : IDLE_MS;
    err = lines_make(fetch, request);
    if (err == 0)
        err = body_take(fetch, request);
    if (err != 0)
        return err;
    fetch->easy = curl_easy_init();
    if (fetch->easy == NULL)
        return E_NO_MEMORY;
    code = options_request(fetch, request);
    if (code == CURLE_OK)
        code = options_body(fetch, request);
    if (code == CURLE_OK)
        code = options_registry(fetch, request);
    if (code == CURLE_OK)
        code = options_safety(fetch);
    if (code == CURLE_OK)
        return 0;
    return code == CURLE_OUT_OF_MEMORY ? E_NO_MEMORY : E_INVALID;
}

void fetch_curl__easy_close(struct fetch *fetch)
{
    if (fetch->easy != NULL)
        curl_easy_cleanup(fetch->easy);
    fetch->easy = NULL;
    lines_free(fetch);
    if (fetch->body != NULL)
        explicit_bzero(fetch->body, strlen(fetch->body));
    fetch->body = fetch_curl__heap(NULL, fetch->body, 0);
    headers__close(&fetch->headers);
}
