/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The origin side: which registries exist, how a request reaches one, and who may read what.
 *
 *   refs     grammar of names, tags, hosts (OCI distribution-spec), shared with src/http
 *   registries  configured upstreams by name or by pattern
 *   fetch    one HTTP request on an event loop the host supplies; fetch_curl.c alone sees libcurl
 *   origin   a registry request: redirects followed by us, credentials dropped across hosts
 * (ORG-3), addresses checked (ORG-2), ranges checked (O-8), resume on a cut body (O-6), retries
 * (RES-5) grants   cached proof that credentials may read a repository (ACL-1..4)
 *
 * Single-threaded, callback-based towards the host; callbacks never run inside the call that starts
 * work.
 */
#ifndef SHOAL_REGISTRY_H
#define SHOAL_REGISTRY_H

#include "digest.h"
#include "env.h"
#include "err.h"
#include "types.h"

/* ---- refs ------------------------------------------------------------------------------------ */
bool ref_repository_valid(const char *text, size_t text_bytes);
bool ref_tag_valid(const char *text, size_t text_bytes);
/* host[:port], lower case, no userinfo, path or query. */
bool ref_host_valid(const char *text, size_t text_bytes);
/* True if a segment of a URL's path (absolute, a query may follow) is "." or "..", plain or
 * escaped, between slashes plain or escaped: what it names depends on who resolves it. */
bool ref_has_dot_segment(const char *path);

/* ---- registries -------------------------------------------------------------------------------
 */
#define REGISTRIES_MAX 256
/* Places of a registry's object storage (see struct registry_entry), and the length of one. */
#define REGISTRY_STORAGE_MAX       4
#define REGISTRY_STORAGE_BYTES_MAX 511
/*
 * A name, or a pattern for names that have no entry of their own, as containerd's `_default` asks
 * for them:
 *
 *   "*.example.com"       every name below it, at any depth, without a port; not example.com itself
 *   "*.example.com:5000"  the same with this port
 *   "*"                   every name with a dot in it, with a port or without
 *
 * The exact name wins, then the longest pattern. A pattern's registries are reached by https under
 * their own names, at public addresses (the first two may say allow_private); it never stands for
 * an IP address (ORG-1, ORG-2, ORG-6).
 */
#define REGISTRY_P2P_RULES_MAX 16
#define REGISTRY_PATTERN_BYTES 128
struct registry_p2p_rule {
    char pattern[REGISTRY_PATTERN_BYTES]; /* of repositories: '*' stands for any bytes */
    bool on;
};
/* What is made of a tag's name (INT-9). */
enum registry_resolve {
    REGISTRY_RESOLVE_TTL = 1, /* the registry's last word counts for a while */
    REGISTRY_RESOLVE_FIXED,   /* the tag never moves: its last word counts as long as we know it */
    REGISTRY_RESOLVE_OFF,     /* not here: clients go to the registry for it */
};
#define REGISTRY_TAG_RULES_MAX 16
#define REGISTRY_TAG_TTL_MAX_S 3600
struct registry_tag_rule {
    char repositories[REGISTRY_PATTERN_BYTES]; /* patterns, as in struct registry_p2p_rule */
    char tags[REGISTRY_PATTERN_BYTES];
    enum registry_resolve resolve;
    uint32_t ttl_s; /* TTL: at most REGISTRY_TAG_TTL_MAX_S; 0: each request asks */
};
/* How often a registry's blobs leave it: as the mesh's rule says, once for the mesh, or once for
 * each zone, so that nothing of it crosses a zone's border (DESIGN §4 "Leases"). */
enum registry_copies {
    REGISTRY_COPIES_DEFAULT = 0,
    REGISTRY_COPIES_MESH,
    REGISTRY_COPIES_ZONE,
};
/* Blocks of addresses that are not public (ORG-2), and may be reached all the same. */
#define ADDRESS_RANGES_MAX 12
struct address_ranges {
    struct addr_block block[ADDRESS_RANGES_MAX];
    unsigned count; /* 0: public addresses alone */
};
/* One more, "10.0.0.0/8". 0; E_MALFORMED, E_FULL: `ranges` is unchanged then. */
MUST_USE int address_ranges_add(struct address_ranges *ranges, const char *text);
/* Sets what an operator's own network may be: every private block (RFC 1918, 6598, 4193 and their
 * like); loopback only if `loopback`. */
void address_ranges_private(struct address_ranges *ranges, bool loopback);
/* Addresses that carry an IPv4 address (v4-mapped, NAT64, 6to4) are judged as that one. */
bool address_ranges_hold(const struct address_ranges *ranges, const uint8_t ip[16]);
/* The same blocks in the same order. */
bool address_ranges_equal(const struct address_ranges *a, const struct address_ranges *b);

struct registry_entry {
    char name[HOST_BYTES_MAX + 1]; /* as in ?ns= and image references, lower case; or a pattern */
    char endpoint[HOST_BYTES_MAX +
                  16];  /* "https://host[:port]" or "http://..." (plain http only by name, ORG-6) */
    char ca_file[4096]; /* "" : system's */
    char realm_hosts[4][HOST_BYTES_MAX + 1]; /* extra token realm hosts (ORG-4) */
    /* "https://host[:port]/path/" each, "" none: below it lies nothing but this registry's storage.
       URLs that clients hand over are asked for only there (ORG-1). */
    char storage[REGISTRY_STORAGE_MAX][REGISTRY_STORAGE_BYTES_MAX + 1];
    struct address_ranges allow_private; /* loopback and private addresses, as listed (ORG-2) */
    /* Shown to the registry itself, never to where it redirects to; "" none */
    char client_cert[1024], client_key[1024];
    char proxy[HOST_BYTES_MAX + 16]; /* "http://host[:port]" for all its requests; "" none. What the
                                        proxy resolves and reaches is its own business (ORG-2) */
    unsigned connections_max;        /* requests at once, of all callers; 0: no limit */
    uint64_t rate_bytes_s; /* of blobs read from it and where it redirects to; 0: no limit */
    bool p2p; /* false: content stays off the mesh (ACL-10), but for what a rule says */
    struct registry_p2p_rule p2p_rules[REGISTRY_P2P_RULES_MAX]; /* first fit wins */
    unsigned p2p_rule_count;
    enum registry_copies copies; /* of its blobs; DEFAULT: transfer.copies */
    struct registry_tag_rule tag_rules[REGISTRY_TAG_RULES_MAX]; /* first fit wins */
    unsigned tag_rule_count;
    char credentials_file[1024]; /* the node's own login (registry_login_parse); "" none */
    bool shared;     /* whoever comes without credentials is served with the node's (ACL-7) */
    bool is_default; /* answers requests without ?ns= */
    bool by_pattern; /* made from a pattern, for a name that a client chose */
    unsigned *users; /* private to registry_table: holders of an entry made from a pattern */
};
struct registries {
    struct registry_entry *entries; /* borrowed */
    unsigned entry_count;
    /* Further ones, known only while the agent runs (acr.h): asked for names that no entry has,
       before any pattern. NULL: none. */
    const struct registry_entry *(*more)(const void *more_arg, const char *name);
    /* The one of these after `after` (NULL: the first) whose storage a URL lies in; NULL: none. */
    const struct registry_entry *(*more_storage)(const void *more_arg, const char *url,
                                                 const struct registry_entry *after);
    const void *more_arg; /* borrowed */
};
/* By exact lower-cased name (ORG-1), or the default for "". NULL if none. Patterns are not looked
 * at: see registry_table_get. */
const struct registry_entry *registries_find(const struct registries *registries, const char *ns);
/* May this repository's content go through the mesh (ACL-10)? Cost: rules x name. */
bool registry_p2p(const struct registry_entry *registry, const char *repository);
/* The same for blobs of its storage, whose URLs do not tell of which repository they are. */
bool registry_p2p_storage(const struct registry_entry *registry);
/* The rule for a tag; NULL: none, so that `tags.ttl` counts. Cost: rules x names. */
const struct registry_tag_rule *registry_tag_rule(const struct registry_entry *registry,
                                                  const char *repository, const char *tag);
/* True for "*", and for "*." before a host[:port] in lower case that is not a number. */
bool registry_pattern_valid(const char *text);
/* True if the name (lower case) is one that the pattern stands for. */
bool registry_pattern_fits(const char *pattern, const char *name);

/*
 * The entries that requests are answered with: the configured ones, and one made for each name that
 * a pattern let in. Of the latter REGISTRY_MADE_MAX are kept; the longest unused one makes room, an
 * entry in use never does.
 */
#define REGISTRY_MADE_MAX 128
struct registry_table;
/* 0, E_NO_MEMORY. `configured` is copied, its entries are borrowed. */
MUST_USE int registry_table_new(const struct env *env, const struct registries *configured,
                                struct registry_table **out);
/* After everybody has given back what it held; NULL is fine. */
void registry_table_free(struct registry_table *table);
/* The entry for ?ns= ("" the default), held until registry_entry_put. Equal names give equal
 * pointers while one is held. 0; E_NOT_FOUND: 404 and no DNS lookup (ORG-1); E_FULL: all
 * REGISTRY_MADE_MAX are in use; E_NO_MEMORY. */
MUST_USE int registry_table_get(struct registry_table *table, const char *ns,
                                const struct registry_entry **out);
/* One more holder; for configured entries nothing. */
const struct registry_entry *registry_entry_ref(const struct registry_entry *entry);
void registry_entry_put(const struct registry_entry *entry); /* NULL is fine */
/*
 * The name to look up for a request: its ?ns= if there is one, else the host it was sent to (its
 * Host header; NULL: none), if that is a configured name with or without the port, else "", the
 * default. Either may be a P2P name of the ACR component (ACR.md §6): "distributed" as the second
 * label, and a port of this node behind it; both are dropped. Patterns let in what ?ns= and such
 * names say, never what a plain Host does: that is often just this node. Returns `out`, or `ns`.
 */
const char *registries_asked(const struct registries *registries, const char *ns, const char *host,
                             char out[HOST_BYTES_MAX + 1]);

/* ---- storage ----------------------------------------------------------------------------------
 * Signed URLs of a registry's object storage, as overlaybd keeps them from the registry's redirect
 * and hands over to the agent. Whose storage it is tells the configuration, never the URL. */
/* http or https, a lower-case host, a path that ends in '/', no query, fragment or dot segment. */
bool registry_storage_valid(const char *text);
/* The entry whose storage the URL lies in, held like any other: a configured one, else one known
 * only while the agent runs. Where several have it the one that keeps it off the mesh decides, also
 * if it is configured in place of one of the latter and names no storage (ACL-10). 0, E_NOT_FOUND.
 */
MUST_USE int registry_table_storage(struct registry_table *table, const char *url,
                                    const struct registry_entry **out);
/* What of the entry's storage a URL names: true with the digest for "sha256/<2 hex>/<64 hex>/data"
 * right behind the place (sha512 likewise), as registries lay out their blobs. */
bool registry_storage_digest(const struct registry_entry *entry, const char *url,
                             struct digest *out);

/* ---- logins ------------------------------------------------------------------------------------
 */
enum registry_login_kind {
    REGISTRY_LOGIN_PASSWORD = 0, /* user and password */
    REGISTRY_LOGIN_IDENTITY,     /* a refresh token: its realm alone sees it (ORG-4) */
    REGISTRY_LOGIN_BEARER,       /* a token that the registry itself takes */
};
#define REGISTRY_LOGIN_TOKEN_MAX 8192 /* those of cloud registries have some KiB */
struct registry_login {
    enum registry_login_kind kind;
    char user[256]; /* PASSWORD; "" otherwise, as the next */
    char password[4096];
    char token[REGISTRY_LOGIN_TOKEN_MAX + 1]; /* the others; visible ASCII */
    char helper[64]; /* E_UNSUPPORTED: the program that has it instead; "" none, no secret */
};
/*
 * Reads the node's login for a registry (its name) out of a file's text: dockerconfigjson ("auths",
 * with `registrytoken`, else `identitytoken`, else `username` and `password`, else `auth`), or
 * "user:password", or a line each. A key of `auths` names a host, or with "*." before it each host
 * one label below, as the kubelet has it; not below a top-level domain. `by_pattern`: the registry
 * has no configured entry of its own name, so only a file that names it has a login for it: a plain
 * one names nobody, and would go to whatever host a client asks for. The caller wipes `out`. 0;
 * E_NOT_FOUND (no entry for the registry), E_MALFORMED, E_TOO_LARGE, E_UNSUPPORTED (an entry with
 * neither password nor token, or a credential helper that would have to be run: `out->helper`),
 * E_REFUSED (a plain file, by_pattern); then `out` may hold parts. `credsStore` counts for a
 * registry with an entry of its own name only: of a pattern it would claim every host.
 */
MUST_USE int registry_login_parse(const char *text, size_t text_bytes, const char *registry,
                                  bool by_pattern, struct registry_login *out);

/* ---- fetch: HTTP client engine ------------------------------------------------------------------
 */
#define FETCH_HEADERS_MAX 16
struct fetch_header {
    const char *name;
    const char *value;
};
/* Registries are only read; bodies go to cloud APIs: a form with a token of some KiB. */
#define FETCH_BODY_BYTES_MAX (64 * 1024)
#define FETCH_REASON_BYTES   256
struct fetch_request {
    const char *method; /* "GET" or "HEAD"; for cloud APIs also "POST", "PUT" and "PATCH" */
    const char *url;    /* http or https only */
    struct fetch_header headers[FETCH_HEADERS_MAX];
    unsigned header_count;
    /* POST, PUT, PATCH: zero-terminated, NULL is an empty one. Content-Type is sent only if it is
       among the headers. Copied, and the copy wiped at the end. */
    const char *body;
    const char *ca_file;                        /* "" or NULL: system's */
    const char *client_cert, *client_key;       /* files; "" or NULL: none */
    const char *proxy;                          /* "http://host[:port]"; "" or NULL: none */
    const struct address_ranges *allow_private; /* NULL: none; copied. The proxy itself may be
                                                   private in any case */
    /* NULL, or FETCH_REASON_BYTES that outlive the engine: why it failed, in words for people, the
       host's names and numbers among them; "" if there are none. */
    char *reason;
    bool allow_metadata;            /* a cloud's metadata service, asked for by its address */
    uint8_t pool_key[32];           /* connections are reused only among equal keys (ORG-5) */
    uint32_t connect_timeout_ms;    /* 0: 5,000 */
    uint32_t first_byte_timeout_ms; /* 0: 10,000 */
    uint32_t idle_timeout_ms;       /* 0: 15,000 without a byte */
};
/* Called from the loop. head: once per response, headers borrowed for the call (names lower-cased).
   body: bytes borrowed and consumed; return false to pause until fetch_resume: until then no
   further callback, done neither. done: exactly once, last; 0 or E_UNREACHABLE, E_TIMEOUT, E_TLS,
   E_CLOSED (cut body, unreadable answer), E_TOO_LARGE (headers), E_REFUSED (address not allowed),
   E_NO_MEMORY, E_CANCELLED. Inside done the request is already gone: no cancel, no resume. */
struct fetch_response {
    int status;
    const struct fetch_header *headers;
    unsigned header_count;
    uint64_t content_length; /* UINT64_MAX: unknown */
};
struct fetch_callbacks {
    void (*head)(void *arg, const struct fetch_response *response);
    bool (*body)(void *arg, const uint8_t *bytes, size_t byte_count);
    void (*done)(void *arg, int err);
};
const char *fetch_response_header(const struct fetch_response *response,
                                  const char *name); /* NULL if absent */

struct fetch; /* one running request */
struct fetch_engine {
    void *self;
    /* Copies the request. Callbacks come later, never inside. 0, E_NO_MEMORY, E_INVALID (scheme,
     * method, header, a body that is too long or where none may be), E_FULL. */
    int (*start)(void *self, const struct fetch_request *request,
                 const struct fetch_callbacks *callbacks, void *arg, struct fetch **out);
    void (*resume)(void *self, struct fetch *fetch);
    void (*cancel)(void *self, struct fetch *fetch); /* no further callback, `fetch` is gone */
    void (*close)(void *self);
};

/* What libcurl's multi interface needs of the host's loop. */
#define FETCH_POLL_READ  1u
#define FETCH_POLL_WRITE 2u
struct fetch_loop {
    void *host;
    void (*watch)(void *host, int fd, unsigned events); /* events 0: stop watching */
    void (*timer)(void *host, long timeout_ms);         /* < 0: stop */
};
/* 0, E_NO_MEMORY, E_INTERNAL. connections_max per host 0: 32. */
struct fetch_curl;
MUST_USE int fetch_curl_new(const struct fetch_loop *loop, unsigned connections_max,
                            struct fetch_engine *out, struct fetch_curl **curl);
void fetch_curl_ready(struct fetch_curl *curl, int fd, unsigned events);
void fetch_curl_timeout(struct fetch_curl *curl);
/* A port no request may ever reach, at whatever address: the node's own mesh port (ORG-2). 0: none.
 */
void fetch_curl_refuse_port(struct fetch_curl *curl, uint16_t port);

/* ---- origin: registry requests
 * -------------------------------------------------------------------- */
/* Who asks: the caller's Authorization header value ("" none), as received; never logged, never
 * stored beyond the request and its lease. */
struct origin_caller {
    char *authorization;         /* owned zero-terminated copy, or NULL */
    uint8_t credential_hash[32]; /* keyed hash, all zero for anonymous */
};
enum origin_kind {
    ORIGIN_PASS = 1, /* any path under /v2/, whole answer relayed (base, tags, referrers) */
    ORIGIN_MANIFEST,
    ORIGIN_BLOB,
};
struct origin_request {
    const struct registry_entry *registry;
    enum origin_kind kind;
    const char *method;         /* "GET" or "HEAD" */
    const char *path_and_query; /* "/v2/..." */
    /* BLOB: an absolute URL to ask instead of the registry's, NULL: none. It is the caller's secret
       (a signed one), gets no credentials, and HEAD is a GET of one byte; it must lie where the
       configuration allows (registry_table_storage). */
    const char *url;
    const char *const *accept; /* Accept lines, each sent as a line of its own */
    unsigned accept_count;
    const char *authorization; /* NULL: none */
    uint8_t credential_hash[32];
    /* The node's own login may be used, though the entry is not `shared`: nobody's request but the
       operator's own, whose credential_hash then is not that of callers without credentials. */
    bool as_node;
    const char *if_none_match; /* NULL: none */
    uint32_t head_ms; /* head or failure must be there in so long; 0: 8,000; at most 60,000 */
    /* Whoever asks has another way, so that a resting host need not be asked: it ends at once.
       False for what belongs to a pull under way, which its client cannot take elsewhere: it is
       asked. */
    bool spare;
    /* BLOB only: */
    uint64_t size_bytes;  /* UINT64_MAX: not known yet */
    uint64_t first, last; /* inclusive; whole blob: 0..size-1 with whole = true */
    bool whole;
};
/* head: the final answer after redirects; for a status >= 400 the body that follows is the
   registry's error (at most 64 KiB). body offsets are verified: byte k of the callbacks' stream is
   byte first+k of the blob. done: 0, or E_ORIGIN (status in head), E_RANGE (the answer does not
   hold the bytes asked for), E_UNREACHABLE, E_TIMEOUT, E_TLS, E_CLOSED, E_TOO_LARGE (more bytes
   than declared or allowed), E_REFUSED (address, or a redirect that may not be followed),
   E_NO_MEMORY.

   Answers other than blob bytes are held back until complete (errors 64 KiB, the rest 4 MiB), so
   that a cut one is asked for again unseen. All tries together have head_ms; a host that was silent
   again and again rests, and a spare request to it then ends at once with E_UNREACHABLE (O-2). If
   content-length differs from the body that follows (a cut error text, distribution's 416), the
   header and content_length are left out. A HEAD of a blob whose redirect target knows only GET
   (OSS) is answered through a GET of one byte. A body cut after its head was shown is resumed; if
   that fails there is no second head: see origin_last_status. */
struct origin;
struct origin_fetch;
struct origin_timer { /* one-shot timers for retries, from the host */
    void *host;
    /* Calls origin_advance after delay_us, never inside; a new start may replace the pending one
       (the origin asks again in origin_advance for whatever is still due). */
    void (*start)(void *host, uint64_t delay_us);
};
#define ORIGIN_FETCHES_MAX 2048
/* 0, E_NO_MEMORY. `env`, `engine`, `timer` are copied. */
MUST_USE int origin_new(const struct env *env, const struct fetch_engine *engine,
                        const struct origin_timer *timer, struct origin **out);
/* Cancels what runs, without callbacks. Not inside a callback. NULL is fine. */
void origin_free(struct origin *origin);
/* Timeouts of the attempts that start from now on, ms as in struct fetch_request; 0: the default.
 */
void origin_set_timeouts(struct origin *origin, uint32_t connect_ms, uint32_t first_byte_ms,
                         uint32_t idle_ms);
/* Bytes of blobs read in a second from all registries together; 0, as at first: no limit. */
void origin_set_rate(struct origin *origin, uint64_t bytes_per_s);
/* Where the node's own logins come from, for entries that are `shared` and requests as_node. Asked
 * at each use, so that a file may change: 0, or E_* and the request goes without. Must not take
 * long. `out` is wiped. */
struct origin_logins {
    void *host;
    int (*find)(void *host, const struct registry_entry *registry, struct registry_login *out);
};
/* Copied. Without it no entry is shared. A request without credentials to a shared entry then
 * answers the registry's challenge itself, at https only: Basic, the login's own token, or one of
 * the realm (auth_realm_allowed), kept per realm, service, scope and login, and renewed before it
 * ends. */
void origin_set_logins(struct origin *origin, const struct origin_logins *logins);
/* Copies the request (the registry entry too). Callbacks come later, never inside. 0, E_NO_MEMORY,
   E_INVALID (endpoint, method, path, header bytes, or range), E_FULL (ORIGIN_FETCHES_MAX, the
   engine's limit, or too many registries with limits at once). */
MUST_USE int origin_start(struct origin *origin, uint64_t now_us,
                          const struct origin_request *request,
                          const struct fetch_callbacks *callbacks, void *arg,
                          struct origin_fetch **out);
/* After body returned false. The next callback comes later, never inside. */
void origin_resume(struct origin *origin, struct origin_fetch *fetch);
/* No further callback; `fetch` is gone. Allowed in head and body, not in done. */
void origin_cancel(struct origin *origin, struct origin_fetch *fetch);
/* Runs what is due; callbacks run inside. Early calls are harmless. */
void origin_advance(struct origin *origin, uint64_t now_us);
/* For a caller that asks the same once more by a fetch of its own: pays from the registry's bucket
 * of retries (RES-5). False: there is not enough in it. */
bool origin_pay_repeat(struct origin *origin, const struct registry_entry *registry);
/* A client asks for this blob: if it is counted as one that its registry does not give, the next
 * try of it is no retry. Both are borrowed. */
void origin_asked_anew(struct origin *origin, const struct registry_entry *registry,
                       const char *path_and_query);
/* So many nodes, this one included, share the few retries that are there before any request earned
 * one; 1 at first. Cost: none, so it may be called for each request. */
void origin_set_sharers(struct origin *origin, size_t nodes);
/* What the last failed answer asked for (Retry-After), ms, 0 none; capped at 60 s (RES-5). Valid
 * inside done. */
uint32_t origin_retry_after_ms(const struct origin_fetch *fetch);
/* Status of the last answer, 0 if none came. Valid inside done: tells a 401 or 403 that a resumed
 * body met, whose head was never shown (ACL-2). */
int origin_last_status(const struct origin_fetch *fetch);
/* The registry's own host rests: a spare request would fail at once, unasked. For error texts. */
bool origin_resting(const struct origin *origin, const struct registry_entry *registry,
                    uint64_t now_us);
/* Only ever grow; for metrics. */
struct origin_counters {
    uint64_t requests;        /* first attempts */
    uint64_t retries;         /* attempts that repeat one without progress, paid from the bucket */
    uint64_t resumes;         /* attempts that go on where a body was cut */
    uint64_t retries_refused; /* the registry's bucket was empty (RES-5) */
    uint64_t troubled;  /* attempts not made: the blob had its three tries (O-5), or another was not
                           due (RES-5) */
    uint64_t redirects; /* followed */
    uint64_t redirects_reused; /* a redirect target remembered from an earlier answer */
    uint64_t redirects_refused;
    uint64_t ranges_wrong; /* answers that did not hold the bytes asked for (O-8) */
    uint64_t bodies_cut;
    uint64_t buffers_refused; /* held-back answers over their limit in sum */
    uint64_t starts_refused;  /* ORIGIN_FETCHES_MAX reached */
    uint64_t queued;          /* attempts that waited for one of connections_max places */
    uint64_t tokens_asked;    /* of token services, with the node's login */
    uint64_t tokens_refused;  /* and not given */
    uint64_t throttled;       /* pauses of bodies over a rate */
    uint64_t rests;           /* hosts found silent */
    uint64_t rested;          /* attempts not made because their host rests */
    uint64_t insisted;        /* attempts made all the same, for a pull under way */
};
const struct origin_counters *origin_counters(const struct origin *origin); /* borrowed */

/* ---- grants ------------------------------------------------------------------------------------
 */
/* Keyed hash of an Authorization value with a per-process random key; all zero for NULL or "".
 * "Basic Og==" counts as none (CLIENTS §7). */
struct grants;
#define GRANT_LIFE_US (5ull * 60 * 1000 * 1000) /* at most (ACL-2) */
/* `env` is copied; a grant lives for life_us, cut to GRANT_LIFE_US. 0, E_NO_MEMORY. */
MUST_USE int grants_new(const struct env *env, uint64_t life_us, struct grants **out);
void grants_free(struct grants *grants);
void grants_credential_hash(const struct grants *grants, const char *authorization,
                            uint8_t out[32]);
/* The registry accepted these credentials for this repository (ACL-2): a grant of a whole life. At
 * most 4,096 entries, oldest out. 0, E_NO_MEMORY. */
MUST_USE int grants_put(struct grants *grants, uint64_t now_us, const char *registry,
                        const char *repository, const uint8_t credential_hash[32]);
bool grants_check(struct grants *grants, uint64_t now_us, const char *registry,
                  const char *repository, const uint8_t credential_hash[32]);
/* A running pull keeps its grant (ACL-2): called when a part of it begins and ends, and meanwhile
 * more often than life_us. A whole life from now; what has expired is not revived, and without
 * credentials two lives after the registry's word are the end (ACL-5). Two keyed hashes. */
void grants_extend(struct grants *grants, uint64_t now_us, const char *registry,
                   const char *repository, const uint8_t credential_hash[32]);
/* 401 or 403 from the registry (ACL-2). */
void grants_revoke(struct grants *grants, const char *registry, const char *repository,
                   const uint8_t credential_hash[32]);
/* An authorised manifest of (registry, repository) references this blob with this size (ACL-3). At
 * most 65,536 entries, oldest out. */
MUST_USE int grants_link(struct grants *grants, const char *registry, const char *repository,
                         const struct digest *blob, uint64_t size_bytes);
/* True and *size_bytes if such a link exists. */
bool grants_linked(const struct grants *grants, const char *registry, const char *repository,
                   const struct digest *blob, uint64_t *size_bytes);

/* As grants_check, but up to `age_max_us` (at most GRANT_STALE_US) after the registry last agreed:
 * only for when the registry cannot be reached (ACL-6). */
#define GRANT_STALE_US (60ull * 60 * 1000 * 1000)
bool grants_check_stale(struct grants *grants, uint64_t now_us, const char *registry,
                        const char *repository, const uint8_t credential_hash[32],
                        uint64_t age_max_us);

/* ---- challenges
 * ----------------------------------------------------------------------------------- */
enum auth_scheme {
    AUTH_BASIC = 1,
    AUTH_BEARER,
};
#define AUTH_CHALLENGE_BYTES_MAX 1024 /* of each value */
struct auth_challenge {
    enum auth_scheme scheme;
    char realm[AUTH_CHALLENGE_BYTES_MAX + 1];
    char service[AUTH_CHALLENGE_BYTES_MAX + 1]; /* "" if absent, as the following */
    char scope[AUTH_CHALLENGE_BYTES_MAX + 1];
    char error[AUTH_CHALLENGE_BYTES_MAX + 1];
};
/* Parses the first challenge of a WWW-Authenticate value (RFC 9110 §11.6.1). 0, E_MALFORMED,
 * E_TOO_LARGE, E_UNSUPPORTED (another scheme). */
MUST_USE int auth_challenge_parse(const char *value, size_t value_bytes,
                                  struct auth_challenge *out);
/* True if credentials for this registry may be sent to this realm URL (ORG-4): https, and the host
 * is the registry's own or listed in realm_hosts (as "host" or "host:port"). */
bool auth_realm_allowed(const struct registry_entry *registry, const char *realm);

/* What a registry last answered unauthenticated requests with, so that it can be said again while
 * the registry is down (ACL-4, ACL-6). At most CHALLENGES_MAX values of at most CHALLENGE_VALUE_MAX
 * bytes, oldest out, each for a day: a challenge changes with the registry's configuration only. */
#define CHALLENGES_MAX      1024
#define CHALLENGE_VALUE_MAX 2048
#define CHALLENGE_LIFE_US   (24ull * 3600 * 1000 * 1000)
struct challenges;
/* 0, E_NO_MEMORY. `env` is copied. */
MUST_USE int challenges_new(const struct env *env, struct challenges **out);
void challenges_free(struct challenges *challenges); /* NULL is fine */
/* The WWW-Authenticate value of a 401 to a request without credentials; "" for `repository`: of
 * /v2/ itself. Copied; replaces what was there. An overlong one, or one without memory, is not
 * kept. */
void challenges_put(struct challenges *challenges, uint64_t now_us, const char *registry,
                    const char *repository, const char *value);
/* The registry serves this repository without credentials now. */
void challenges_forget(struct challenges *challenges, const char *registry, const char *repository);
/* NULL if none is known, else borrowed until the next put or forget. Basic names no repository, so
 * the one of /v2/ stands for repositories that were not asked for yet. */
const char *challenges_find(const struct challenges *challenges, uint64_t now_us,
                            const char *registry, const char *repository);

/* ---- manifests
 * ------------------------------------------------------------------------------------ */
/* Descriptors a manifest or index references, without looking inside them (INT-10). */
struct manifest_descriptor {
    struct digest digest;
    uint64_t size_bytes;
    bool is_manifest; /* child of an index */
    bool is_layer;    /* of an image, kept in the registry itself: it names no `urls` */
};
#define MANIFEST_DESCRIPTORS_MAX 1024
/* Parses OCI and Docker v2s2 manifests and indexes with jansson (depth <= 32). 0 with *count,
 * E_MALFORMED, E_TOO_LARGE. */
MUST_USE int manifest_parse(const char *json, size_t json_bytes, struct manifest_descriptor *out,
                            size_t out_max, size_t *count);
/* The document's own mediaType, zero-terminated; without one, what the OCI image-spec says a
 * document of this shape is. For a registry that sends no Content-Type. 0, E_MALFORMED (also a
 * value that is no media type), E_TOO_LARGE. */
MUST_USE int manifest_media_type(const char *json, size_t json_bytes, char *out, size_t out_bytes);

/* ---- platforms: what an index lists its children by (OCI image-spec "image index") ---- */
#define PLATFORM_PART_BYTES 32
struct platform {
    char os[PLATFORM_PART_BYTES], architecture[PLATFORM_PART_BYTES];
    char variant[PLATFORM_PART_BYTES]; /* "": any */
};
/* "linux/arm64" or "linux/arm/v7". 0, E_MALFORMED. */
MUST_USE int platform_parse(const char *text, struct platform *out);
/* The first child of an index for a platform; NULL: all that are for one, which attestations are
 * not. 0 with *count >= 1; E_UNSUPPORTED (no index), E_NOT_FOUND (no such child), E_MALFORMED,
 * E_TOO_LARGE. */
MUST_USE int index_choose(const char *json, size_t json_bytes, const struct platform *wanted,
                          struct manifest_descriptor *out, size_t out_max, size_t *count);
/* What platforms an index has, for people: "linux/amd64, linux/arm/v7", cut to out_bytes; "" for
 * what is no index. */
void index_platforms(const char *json, size_t json_bytes, char *out, size_t out_bytes);

#endif
