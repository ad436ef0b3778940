/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the origin client, shared by its files:
 *   origin.c           public calls, life of a fetch, the turn (origin_advance)
 *   origin_request.c   one attempt: URL, headers, pool key, timeouts
 *   origin_answer.c    what the engine calls: head, body, done; delivery to the caller
 *   origin_range.c     ranges asked and ranges got (O-8)
 *   origin_redirect.c  redirects, and targets remembered for a minute
 *   origin_trouble.c   blobs whose reads fail at the registry: tries counted per blob
 *   origin_auth.c      the node's own login, where an entry shares it (ACL-7)
 *   origin_token.c     tokens asked for with it (ORG-4)
 *   origin_flow.c      places and rates: how much at once, how fast
 *   origin_retry.c     retry or give up (RES-5, O-4, O-5), Retry-After
 *
 * Time is known only in origin_start and origin_advance. Whatever needs it (retry decisions) is put
 * off to the next turn by asking the host's timer for one with no delay.
 */
#ifndef SHOAL_REGISTRY_ORIGIN_H
#define SHOAL_REGISTRY_ORIGIN_H

#include "bytes.h"
#include "headers.h"
#include "registry.h"
#include "tokens.h"
#include "url.h"

/* ORG-3. */
#define ORIGIN_HOPS_MAX 5
/* O-5: tries without progress, the first included, and the time in which all of them end. Below
 * the 10 s of HTTP-6, so that the client hears of it in time. */
#define ORIGIN_TRIES_MAX 3
#define ORIGIN_WINDOW_US (8ull * 1000 * 1000)
/* What a caller may ask for instead. */
#define ORIGIN_WINDOW_MAX_US (60ull * 1000 * 1000)
/* A body that is cut again and again, each time with some progress. A guess: 16 cuts in one blob
 * are a broken path, and the mesh may know a better one. */
#define ORIGIN_RESUMES_MAX 16
/* Answers held back: registry errors; manifests (ORG-7) and other documents; all of them in sum
 * (a guess: 16 manifests of the largest size at once). */
#define ORIGIN_ERROR_BYTES_MAX    (64 * 1024)
#define ORIGIN_DOCUMENT_BYTES_MAX MANIFEST_BYTES_MAX
#define ORIGIN_BUFFERED_BYTES_MAX (16 * MANIFEST_BYTES_MAX)
/* A whole answer to an open range is skipped forward over at most this (64 MiB, a guess: beyond it
 * another source or a fresh start costs less), unless the whole blob was wanted anyway. */
#define ORIGIN_SKIP_BYTES_MAX (64ull * 1024 * 1024)
/* Request parts, beyond what the HTTP face lets in (HTTP-1: target 2 KiB, or 8 with a URL; headers
 * 16 KiB). */
#define ORIGIN_PATH_BYTES_MAX  4096
#define ORIGIN_FIELD_BYTES_MAX (16 * 1024)
#define ORIGIN_ACCEPT_MAX      64
/* Redirect targets remembered (ACR §7: an answer of the registry counts for 60 s). */
#define ORIGIN_TARGETS_MAX    64
#define ORIGIN_TARGET_LIFE_US (60ull * 1000 * 1000)
/* How often one fetch tries what another range of its blob has found, before it asks itself. */
#define ORIGIN_BORROWS_MAX 3
/* RES-5: a request earns a tenth of a retry. At the start three are there, so that one pull can be
 * retried, for all nodes together: three for each of a crowd that has just started were as many
 * retries as requests. Ten may pile up. */
#define ORIGIN_BUCKETS_MAX  REGISTRIES_MAX
#define ORIGIN_RETRY_COST   10
#define ORIGIN_TOKENS_FIRST 30
#define ORIGIN_TOKENS_MAX   100
#define ORIGIN_RETRY_CAP_MS 60000
/* O-5: how long a blob's failed tries are counted (origin_trouble.c), and of how many blobs at
 * once: more than a node pulls. */
#define ORIGIN_TROUBLES_MAX  64
#define ORIGIN_TROUBLE_US    (10ull * 1000 * 1000)
#define ORIGIN_BACKOFF_US    (1000ull * 1000)
#define ORIGIN_RESUME_GAP_US (100ull * 1000)
/* Breakers (origin_breaker.c). Hosts remembered: registries and their stores, with room. */
#define ORIGIN_BREAKERS_MAX 64
/* So many silent attempts in a row, over so long without one answer, begin a rest. Three seconds
 * are longer than a registry's restart refuses connections (a guess), and shorter than the first
 * request's time, so that the second one already fails fast. */
#define ORIGIN_FAILURES_MIN   2
#define ORIGIN_SILENT_SPAN_US (3ull * 1000 * 1000)
/* A timeout counts as silence only after so long: a caller in a hurry proves nothing. */
#define ORIGIN_SILENCE_US (2500ull * 1000)
/* One of so long, a request's whole time on a connection kept from before, counts twice. */
#define ORIGIN_SILENCE_LONG_US (6ull * 1000 * 1000)
/* Failures farther apart than this have nothing to do with each other. */
#define ORIGIN_FORGET_US (30ull * 1000 * 1000)
/* Rests double from the first to the last length; a probe has so long before another may follow
 * it. O-2: nothing is negatively cached for more than 5 s. */
#define ORIGIN_REST_FIRST_US (1000ull * 1000)
#define ORIGIN_REST_MAX_US   (4ull * 1000 * 1000)
#define ORIGIN_PROBE_US      (4ull * 1000 * 1000)
/* Registries with limits of their own in use at once (origin_flow.c); a guess with much room. */
#define ORIGIN_FLOWS_MAX 64
/* Timeouts of one attempt; the fetch contract's defaults. */
#define ORIGIN_CONNECT_MS    5000
#define ORIGIN_FIRST_BYTE_MS 10000
#define ORIGIN_IDLE_MS       15000
/* Body bytes per callback when a held-back answer is delivered. */
#define ORIGIN_DELIVER_BYTES (64 * 1024)

/* Token services asked at once; a node pulls from few at a time. */
#define ORIGIN_TOKEN_REQUESTS_MAX 32
/* "Basic " and the longest login in base64. */
#define ORIGIN_BASIC_BYTES 6144

enum origin_state {
    ORIGIN_REQUESTING = 1, /* attempt runs, no final head yet */
    ORIGIN_QUEUED,         /* no place for the attempt yet; ends with one, or its time */
    ORIGIN_AUTHORISING,    /* a token is asked for; ends with it or without, or its time */
    ORIGIN_REDIRECTING,    /* a redirect came; its body is ignored; ends with done */
    ORIGIN_COLLECTING,     /* the answer is held back until complete */
    ORIGIN_STREAMING,      /* blob bytes go straight to the caller */
    ORIGIN_DECIDING,       /* attempt failed; the next turn decides */
    ORIGIN_WAITING,        /* for wake_us, then the next attempt */
    ORIGIN_DELIVERING,     /* held-back answer goes to the caller; ends with done */
    ORIGIN_ENDED,          /* done was called, or cancelled; waits to be freed */
};

/* Of a fetch that may use the node's login. */
struct origin_node {
    struct registry_entry registry; /* a copy */
    uint8_t token_key[32];
    bool bearer;     /* `authorization` is a token, under token_key */
    bool challenged; /* a 401 was answered: the next one is the caller's */
    bool off;        /* goes without: nothing fits what the registry asks for */
    char authorization[TOKEN_BYTES_MAX + 16]; /* of this attempt; "" none; wiped */
};

struct origin_fetch {
    uint32_t magic;
    struct origin *origin;
    struct origin_fetch *prev, *next;
    enum origin_state state;
    struct fetch_callbacks callbacks;
    void *arg;

    /* The request; strings point into `text`, which is wiped when freed. */
    struct origin_request request;
    const char *registry_name, *ca_file, *client_cert, *client_key, *proxy;
    struct address_ranges allow_private;
    const char *handed_url; /* asked instead of the registry's; NULL: none */
    const char *accept[FETCH_HEADERS_MAX];
    char *text;
    size_t text_bytes;
    bool head_only; /* method HEAD */
    uint64_t size_bytes, first, last;

    /* The attempt. */
    struct fetch *running;         /* NULL: none */
    char *url;                     /* of the current hop, URL_BYTES_MAX + 1 bytes */
    char *location;                /* resolved next hop, same size, NULL until the first redirect */
    struct url_parts registry_url; /* scheme, host, port of the registry */
    struct url_parts hop_url;      /* points into `url` */
    unsigned hops;
    bool away;       /* left the registry's origin once: no credentials any more (ORG-3) */
    bool remembered; /* `url` came from the memory of redirect targets */
    bool ranged;     /* this attempt sent Range from_byte..to_byte */
    bool probing;    /* a HEAD done as GET of one byte */
    uint64_t from_byte, to_byte;
    size_t ignored_bytes;       /* of a redirect's body */
    uint32_t budget_ms;         /* left of the window for this attempt's head */
    uint64_t attempt_us;        /* when it began */
    uint8_t host_hash[32];      /* of the hop's host and port: its breaker */
    uint64_t signs_before;      /* of life of that host, when it began */
    bool silent;                /* it ended without a head */
    struct origin_node *node;   /* owned; NULL: the caller's credentials or none */
    struct origin_token *token; /* AUTHORISING: the one waited for */
    struct origin_flow *flow;   /* NULL: its registry has no limits */
    bool has_place;
    bool throttled; /* the engine is paused until there are tokens */
    uint64_t throttled_seq;

    /* The answer. */
    struct headers head; /* held back */
    uint8_t *body;
    size_t body_used, body_capacity, body_max, body_sent;
    uint64_t skip_bytes;     /* still to be dropped from the front */
    uint64_t received_bytes; /* handed to the caller */
    uint64_t attempt_start;  /* received_bytes when this attempt began */
    bool head_shown;
    bool answer_held;   /* `head` and `body` hold an answer that may be delivered */
    bool caller_paused; /* body returned false; nothing goes out until origin_resume */
    bool end_held;      /* the end came while paused */
    int end_err;

    /* Retry. */
    int err; /* of the ended attempt; 0 with answer_held: a status */
    int last_status;
    uint32_t retry_after_ms;
    unsigned tries, resumes;
    bool resolved_anew;
    unsigned borrowed;      /* attempts at targets that others resolved meanwhile */
    bool counted, troubled; /* its blob's tries: this one is in the count; there are no more */
    bool paid;          /* origin_trouble.c: its first try was, or a client's asking stood for it */
    bool earned;        /* RES-5: as a request that was sent */
    uint64_t window_us; /* all tries without progress end in so long */
    uint64_t window_start_us; /* of the first of them */
    uint64_t wake_us;         /* WAITING */
    uint64_t rest_until_us;   /* the breaker lets no attempt of it out so long; 0: it does */
};

struct origin_bucket {
    uint8_t name_hash[32];
    uint64_t used_seq; /* for replacement; 0: free */
    unsigned tokens;
    unsigned credit_used; /* of what is there at the start */
};

/* Limits of one registry, or of all together, and what is used of them. */
struct origin_flow {
    uint8_t name_hash[32];
    uint64_t used_seq;    /* for replacement; 0: free */
    unsigned fetch_count; /* that point here */
    unsigned places_max, running;
    uint64_t rate_bytes_s;
    int64_t tokens;   /* bytes that may come; below 0: came too early */
    int64_t promised; /* in this turn, to bodies that go on */
    uint64_t filled_us;
};

/* What is known of one host's silence. */
struct origin_breaker {
    uint8_t host_hash[32];
    uint64_t used_seq; /* for replacement; 0: free */
    uint32_t failures; /* silent attempts in a row */
    uint64_t first_us; /* when the first of them began */
    uint64_t bad_us;   /* when the last of them ended */
    uint64_t signs;    /* heads and spans of bodies so far */
    uint64_t pause_us; /* length of the current rest; 0: the host does not rest */
    uint64_t until_us; /* until then nothing goes out */
    uint64_t probe_us; /* when the current probe began; 0: none */
};

/* A blob whose reads fail at the registry. */
struct origin_trouble {
    uint8_t key[32];
    uint64_t end_us; /* of the count; 0: free */
    unsigned tries;
    int status;       /* of the last one */
    uint64_t wait_us; /* its Retry-After is over; before now: none */
    bool asked_anew;  /* a client did: its first try is no retry */
};

struct origin_target {
    uint8_t key[32];
    uint64_t expires_us; /* 0: free */
    uint64_t asked_us;   /* when the attempt began that brought it */
    char *url;           /* owned, wiped */
};

struct origin {
    struct env env;
    struct fetch_engine engine;
    struct origin_timer timer;
    uint8_t key[32]; /* for pool and target keys */
    struct prng prng;
    uint32_t connect_ms, first_byte_ms, idle_ms;
    uint64_t now_us;   /* last told */
    uint64_t armed_us; /* when the host's timer will call; UINT64_MAX: it is not set */
    unsigned depth;    /* callbacks or turns on the stack; fetches are freed at 0 */
    unsigned ended_count;
    unsigned fetch_count;
    size_t buffered_bytes;
    struct origin_fetch *head, *tail;
    uint64_t bucket_seq;
    unsigned sharers; /* of the retries at the start; at least 1 */
    struct origin_bucket buckets[ORIGIN_BUCKETS_MAX];
    struct origin_logins logins;
    struct challenges *challenges; /* of shared registries */
    struct tokens *tokens;
    struct origin_token *token_requests;
    uint64_t flow_seq;
    struct origin_flow all; /* rate only */
    struct origin_flow flows[ORIGIN_FLOWS_MAX];
    uint64_t breaker_seq;
    struct origin_breaker breakers[ORIGIN_BREAKERS_MAX];
    struct origin_target targets[ORIGIN_TARGETS_MAX];
    struct origin_trouble troubles[ORIGIN_TROUBLES_MAX];
    struct origin_counters counters;
};

/* ---- origin.c ---- */
/* Changes the state after checking the move against the table of allowed ones. */
void origin__state(struct origin_fetch *fetch, enum origin_state to);
/* True for a move the table allows; for tests. */
bool origin__move_allowed(enum origin_state from, enum origin_state to);
/* Brackets every entry from engine or host: ended fetches are freed when the last one leaves. */
void origin__enter(struct origin *origin);
void origin__leave(struct origin *origin);
/* Asks the host for a turn at once. */
void origin__ask_turn(struct origin *origin);
/* Cancels the running attempt, if any. */
void origin__stop_attempt(struct origin_fetch *fetch);
/* The attempt failed with an error, or with a held answer (err 0): next turn decides. */
void origin__attempt_ended(struct origin_fetch *fetch, int err);
/* Calls done (or holds it while the caller pauses) and ends the fetch. */
void origin__finish(struct origin_fetch *fetch, int err);
/* One debug line without URL or credentials. */
void origin__log(struct origin_fetch *fetch, const char *what);

/* ---- origin_request.c ---- */
/* Copies and checks a caller's request into a zeroed fetch. 0, E_INVALID, E_NO_MEMORY. */
MUST_USE int origin__request_copy(struct origin_fetch *fetch, const struct origin_request *request);
/* Wipes and frees what origin__request_copy made. */
void origin__request_close(struct origin_fetch *fetch);
/* Points the fetch at the registry and forgets redirects. 0, E_INVALID (endpoint, length). */
MUST_USE int origin__at_registry(struct origin_fetch *fetch);
/* Hands the current hop to the engine. 0, E_UNREACHABLE (its host rests: rest_until_us is set), or
 * the engine's error. */
MUST_USE int origin__send(struct origin_fetch *fetch);

/* ---- origin_answer.c ---- */
extern const struct fetch_callbacks origin__engine_callbacks;
/* Gives the held-back answer to the caller, as far as it takes it, then done. */
void origin__deliver(struct origin_fetch *fetch);
/* Forgets a held-back answer. */
void origin__answer_drop(struct origin_fetch *fetch);

/* ---- origin_range.c ---- */
/* "bytes a-b/size" or "bytes a-b/ *": true with *size = UINT64_MAX for '*'. Strict (O-8). */
bool origin__content_range_parse(const char *text, uint64_t *first, uint64_t *last, uint64_t *size);
/* Decides which bytes the next attempt asks for: sets ranged, from_byte, to_byte. */
void origin__range_choose(struct origin_fetch *fetch);
/* Checks a 200 or 206 against what was asked; sets skip_bytes, size_bytes and last when learnt. 0,
 * E_RANGE, E_TOO_LARGE. */
MUST_USE int origin__range_check(struct origin_fetch *fetch, const struct fetch_response *response);
/* Bytes the caller must get in all, UINT64_MAX while unknown. */
uint64_t origin__bytes_due(const struct origin_fetch *fetch);
/* Makes the answer to a probe (GET of byte 0) that of a HEAD. 0, E_RANGE, E_NO_MEMORY. */
MUST_USE int origin__probe_answer(struct origin_fetch *fetch,
                                  const struct fetch_response *response);

/* ---- origin_redirect.c ---- */
/* True for 301, 302, 303, 307, 308. */
bool origin__is_redirect(int status);
/* Reads Location into fetch->location. 0, E_REFUSED (hops, https to http, bad URL), E_NO_MEMORY. */
MUST_USE int origin__redirect_note(struct origin_fetch *fetch,
                                   const struct fetch_response *response);
/* Moves on to fetch->location and sends. 0, or the engine's error. */
MUST_USE int origin__redirect_follow(struct origin_fetch *fetch);
/* Points a blob GET at a remembered target. True if there was one. */
bool origin__target_use(struct origin_fetch *fetch);
/* As origin__target_use, for a further attempt, if the target is not the one that just failed; at
 * most ORIGIN_BORROWS_MAX times. */
bool origin__target_borrow(struct origin_fetch *fetch);
/* True if another range of the blob asks the registry right now, for whose answer this one, whose
 * target has ended, should wait a moment; counted as borrowed. */
bool origin__target_coming(struct origin_fetch *fetch);
/* Remembers the current hop's URL as the blob's target; forgets it. */
void origin__target_put(struct origin_fetch *fetch);
void origin__target_drop(struct origin_fetch *fetch);
/* Wipes all targets. */
void origin__targets_close(struct origin *origin);

/* ---- origin_trouble.c ---- */
/* Counts an attempt that is about to go out, if its blob is in trouble. False: it has had its tries
 * (O-5); `troubled` is set, and `last_status` is that of the last of them. */
bool origin__trouble_admit(struct origin_fetch *fetch);
/* True if an attempt now would not be admitted. */
bool origin__trouble_over(const struct origin_fetch *fetch);
/* Hears the status of an attempt: 500, 502, 503 and 504 count, 200 and 206 end the count. */
void origin__trouble_note(struct origin_fetch *fetch, int status);

/* ---- origin_breaker.c ---- */
/* May the current hop's host be asked now? False: rest_until_us says until when not. */
bool origin__breaker_admit(struct origin_fetch *fetch);
/* The current hop's host sent a head, or bytes of a body. */
void origin__breaker_good(struct origin_fetch *fetch);
/* The attempt ended without a head. Only in a turn, where the time is right. Sets rest_until_us if
 * the host rests now. */
void origin__breaker_bad(struct origin_fetch *fetch, int err);

/* ---- origin_auth.c ---- */
/* Decides whether this fetch may use the node's login. 0, E_NO_MEMORY. */
MUST_USE int origin__auth_open(struct origin_fetch *fetch, const struct registry_entry *registry);
void origin__auth_close(struct origin_fetch *fetch);
/* Authorization of the current hop; NULL: none. Borrowed. */
const char *origin__auth_value(const struct origin_fetch *fetch);
/* Gets the hop's credentials. False: a token is on its way, fetch->token. */
bool origin__auth_ready(struct origin_fetch *fetch);
/* A 401 came. True: it is answered, another attempt is under way. */
bool origin__auth_challenged(struct origin_fetch *fetch, const struct fetch_response *response);
/* The token waited for is there, or will not be. In a turn only. */
void origin__auth_go_on(struct origin_fetch *fetch);

/* ---- origin_token.c ---- */
/* Key of a token in origin->tokens. */
void origin__token_key(const struct origin *origin, const struct auth_challenge *challenge,
                       const struct registry_login *login, uint8_t out[32]);
/* "Basic ..."; the caller wipes it. 0, E_TOO_LARGE. */
MUST_USE int origin__basic_make(const struct registry_login *login, char out[ORIGIN_BASIC_BYTES]);
/* Asks for a token (the login is no BEARER), or joins who does already. 0, E_FULL, E_NO_MEMORY,
 * E_MALFORMED, E_TOO_LARGE, or the engine's error. */
MUST_USE int origin__token_ask(const struct origin_fetch *fetch,
                               const struct auth_challenge *challenge,
                               const struct registry_login *login, const uint8_t key[32],
                               struct origin_token **out);
/* Reads answers that came and lets their waiters go on. In a turn only. */
void origin__tokens_turn(struct origin *origin);
/* When that is due; UINT64_MAX: not. */
uint64_t origin__tokens_due_us(const struct origin *origin);
/* Cancels what runs, wipes tokens. */
void origin__tokens_close(struct origin *origin);

/* ---- origin_flow.c ---- */
/* Finds the limits of the fetch's registry. 0, E_FULL. */
MUST_USE int origin__flow_join(struct origin_fetch *fetch, const struct registry_entry *registry);
/* Gives back what the fetch has of them. */
void origin__flow_leave(struct origin_fetch *fetch);
/* A place for an attempt. False: there is none; origin__flow_turn sends when there is. */
bool origin__place_take(struct origin_fetch *fetch);
/* The attempt is over; without a place nothing happens. */
void origin__place_give(struct origin_fetch *fetch);
/* Bytes came: over a rate, a streaming fetch is throttled. */
void origin__flow_spend(struct origin_fetch *fetch, size_t byte_count);
/* Lets go on whom places and tokens allow. In a turn only. Cost: throttled fetches x fetches. */
void origin__flow_turn(struct origin *origin);
/* When this fetch needs a turn on account of its limits; UINT64_MAX: it does not. */
uint64_t origin__flow_due_us(const struct origin_fetch *fetch);

/* ---- origin_retry.c ---- */
/* Gives an attempt that starts after the delay what is left of the window. */
void origin__budget_set(struct origin_fetch *fetch, uint64_t now_us, uint64_t delay_us);
/* A request was made: its registry earns a tenth of a retry. */
void origin__bucket_earn(struct origin *origin, const char *registry_name);
/* Pays for a retry. False if there is not enough. */
bool origin__bucket_pay(struct origin *origin, const char *registry_name);
/* True for statuses that may pass by themselves: 429, 500, 502, 503, 504. */
bool origin__status_passing(int status);
/* Retry-After in ms, capped; 0 if absent or unreadable. A date counts from the answer's own Date
 * header, so no clock of ours is involved. */
uint32_t origin__retry_after_ms(const struct fetch_response *response);
/* Seconds since 1970 of an IMF-fixdate (RFC 9110 §5.6.7). False if it is not one. */
bool origin__http_date(const char *text, uint64_t *out_s);
/* For a fetch in DECIDING: true with *delay_us when a further attempt is due. */
bool origin__retry_decide(struct origin_fetch *fetch, uint64_t now_us, uint64_t *delay_us);

#endif
