/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One TCP connection between two nodes: drives the Noise handshake (PEER-5), judges who the other
 * side is, then seals and opens records. Sockets, the number of pending handshakes and their rate
 * (PEER-7) are the host's.
 *
 * Handshake messages travel as 2 bytes length (big-endian) and the message. Payloads: the offer in
 * the first, whole introductions in the second and third (intro.h). Every failure looks the same
 * from outside: nothing is sent, the host closes (PEER-9).
 */
#include "session.h"

#include <string.h>

#include <sodium.h>

#include "admission_key.h"
#include "bytes.h"
#include "intro.h"
#include "log.h"
#include "noise.h"
#include "record.h"
#include "wire.h"

#define HANDSHAKE_TIMEOUT_US 3000000ULL /* PEER-7 */
#define HANDSHAKE_BYTES_MAX  8192       /* PEER-7, all received messages together */
#define LENGTH_BYTES         2
#define REKEY_BYTES_DEFAULT  (64ULL << 30) /* PEER-6 */
#define REKEY_US_DEFAULT     3600000000ULL /* PEER-6 */
/* A denied node is found within this time of its next record; PEER-8 allows 60 s. */
#define DENY_CHECK_US 10000000ULL

/* Room for an introduction of a later minor version; the same for each message. */
#define PAYLOAD_BYTES_MAX 1024
#define MESSAGE_MAX       (2 * NOISE_KEY_BYTES + 2 * NOISE_TAG_BYTES + PAYLOAD_BYTES_MAX)
static_assert(2 * (LENGTH_BYTES + MESSAGE_MAX) <= HANDSHAKE_BYTES_MAX, "PEER-7");
static_assert(PAYLOAD_BYTES_MAX >= INTRO_BYTES, "an introduction fits");
/* What we send is never more than our own introduction. */
#define OUTPUT_MAX (LENGTH_BYTES + 2 * NOISE_KEY_BYTES + 2 * NOISE_TAG_BYTES + INTRO_BYTES)

/* "shoal", major version, cluster id with its length first. */
#define PROLOGUE_NAME      "shoal"
#define PROLOGUE_NAME_LEN  5
#define PROLOGUE_BYTES_MAX (PROLOGUE_NAME_LEN + 2 + CLUSTER_ID_BYTES_MAX)
static_assert(WIRE_VERSION_MAJOR <= UINT8_MAX, "one byte of the prologue");

struct session {
    struct env env;
    struct session_config config;
    enum session_state state;
    uint64_t deadline_us;
    uint64_t checked_us; /* last look at the deny list */
    struct noise noise;
    struct intro offer; /* responder: what the first message said */
    struct session_peer peer;
    uint32_t features; /* what both sides named */
    struct record_key seal;
    struct record_key open;
    uint8_t output[OUTPUT_MAX];
    size_t output_bytes;
    size_t output_sent;
};

static const char *state_name(enum session_state state)
{
    switch (state) {
    case SESSION_UNUSED:
        return "unused";
    case SESSION_HANDSHAKE:
        return "handshake";
    case SESSION_ESTABLISHED:
        return "established";
    case SESSION_FAILED:
        return "failed";
    }
    return "?";
}

static void set_state(struct session *session, enum session_state to)
{
    static const bool allowed[4][4] = {
        [SESSION_UNUSED] = {[SESSION_HANDSHAKE] = true},
        [SESSION_HANDSHAKE] = {[SESSION_ESTABLISHED] = true, [SESSION_FAILED] = true},
        [SESSION_ESTABLISHED] = {[SESSION_FAILED] = true},
    };
    ASSERT(allowed[session->state][to]);
    char remote[PEER_ADDR_TEXT_BYTES];
    log_to(&session->env, LOG_DEBUG, "session: %s to %s remote=%s", state_name(session->state),
           state_name(to), peer_addr_text(&session->config.remote, remote));
    session->state = to;
}

/* Ends the session on an error: no secret and no output is left. Returns `err`. */
static int fail(struct session *session, int err)
{
    set_state(session, SESSION_FAILED);
    log_to(&session->env, LOG_DEBUG, "session: failed err=%s", err_name(err));
    noise__wipe(&session->noise);
    record__close(&session->seal);
    record__close(&session->open);
    sodium_memzero(session->output, sizeof session->output);
    session->output_bytes = 0;
    session->output_sent = 0;
    session->deadline_us = UINT64_MAX;
    return err;
}

static void begin_noise(struct session *session, unsigned secret_index)
{
    const struct admission *admission = session->config.admission;
    uint8_t prologue[PROLOGUE_BYTES_MAX];
    size_t id_bytes = strnlen(admission->cluster_id, CLUSTER_ID_BYTES_MAX);
    memcpy(prologue, PROLOGUE_NAME, PROLOGUE_NAME_LEN);
    prologue[PROLOGUE_NAME_LEN] = WIRE_VERSION_MAJOR;
    prologue[PROLOGUE_NAME_LEN + 1] = (uint8_t)id_bytes;
    memcpy(prologue + PROLOGUE_NAME_LEN + 2, admission->cluster_id, id_bytes);
    const struct noise_config config = {
        .initiator = session->config.initiator,
        .prologue = prologue,
        .prologue_bytes = PROLOGUE_NAME_LEN + 2 + id_bytes,
        .static_secret = session->config.identity->static_secret,
        .static_public = session->config.identity->static_public,
        .psk = admission->secrets[secret_index],
    };
    noise__init(&session->noise, &config);
}

/* Fresh ephemeral key pair from the host's randomness. */
static void draw_ephemeral(struct session *session)
{
    uint8_t secret[NOISE_KEY_BYTES];
    session->env.random(session->env.host, secret, sizeof secret);
    noise__set_ephemeral(&session->noise, secret);
    sodium_memzero(secret, sizeof secret);
}

static void own_intro(const struct session *session, struct intro *out)
{
    intro__own(session->config.identity, &session->config.self_addr, out);
    if (session->config.aes != SESSION_AES_NONE)
        out->features |= FEATURE_AES_256_GCM;
}

/* Puts our next handshake message behind the output: the first payload_bytes of our introduction.
 */
static int write_message(struct session *session, size_t payload_bytes)
{
    struct intro intro;
    uint8_t payload[INTRO_BYTES];
    size_t message_bytes = 0;
    own_intro(session, &intro);
    intro__encode(&intro, payload);
    /* What was there has been answered, so it has been sent. */
    session->output_bytes = 0;
    session->output_sent = 0;
    int err = noise__write(&session->noise, payload, payload_bytes, session->output + LENGTH_BYTES,
                           sizeof session->output - LENGTH_BYTES, &message_bytes);
    if (err != 0)
        return err;
    store_be16(session->output, (uint16_t)message_bytes);
    session->output_bytes = LENGTH_BYTES + message_bytes;
    return 0;
}

static struct intro_judge judge_of(const struct session *session)
{
    return (struct intro_judge){
        .admission = session->config.admission,
        .self_addr = &session->config.self_addr,
        .transport = session->config.allow_any_ip ? NULL : &session->config.remote,
    };
}

/* AES where both offer it; by which library is each side's own affair. */
static enum aead_kind cipher_of(const struct session *session)
{
    if ((session->features & FEATURE_AES_256_GCM) == 0)
        return AEAD_CHACHA20_POLY1305;
    return session->config.aes == SESSION_AES_LIBGCRYPT ? AEAD_AES_256_GCM_LIBGCRYPT
                                                        : AEAD_AES_256_GCM;
}

static int establish(struct session *session, uint64_t now_us)
{
    struct noise_cipher send;
    struct noise_cipher receive;
    enum aead_kind cipher = cipher_of(session);
    noise__split(&session->noise, &send, &receive);
    int err = record__init(&session->seal, cipher, send.key, true, now_us);
    if (err == 0)
        err = record__init(&session->open, cipher, receive.key, false, now_us);
    sodium_memzero(&send, sizeof send);
    sodium_memzero(&receive, sizeof receive);
    if (err != 0)
        return err;
    noise__wipe(&session->noise);
    session->deadline_us = UINT64_MAX;
    session->checked_us = now_us;
    set_state(session, SESSION_ESTABLISHED);
    return 0;
}

/*
 * Responder, first message: tries each cluster secret (PEER-8). An outsider costs one failed AEAD
 * for each and gets nothing back; no X25519 is done before a secret fits (PEER-7).
 */
static int read_first(struct session *session, const uint8_t *message, size_t message_bytes)
{
    const struct admission *admission = session->config.admission;
    uint8_t payload[PAYLOAD_BYTES_MAX];
    size_t payload_bytes = 0;
    int err = E_AUTH;
    for (unsigned i = 0; err != 0 && i < admission->secret_count; i++) {
        begin_noise(session, i);
        err = noise__read(&session->noise, message, message_bytes, payload, sizeof payload,
                          &payload_bytes);
    }
    if (err == 0)
        err = intro__decode_offer(payload, payload_bytes, &session->offer);
    if (err != 0)
        return err;
    /* A first message recorded elsewhere gets no answer at another address. */
    const struct intro_judge judge = judge_of(session);
    err = intro__check_addr(&judge, &session->offer);
    if (err != 0)
        return err;
    draw_ephemeral(session);
    return write_message(session, INTRO_BYTES);
}

/* Second or third message: the peer proves who it is. */
static int read_intro(struct session *session, const uint8_t *message, size_t message_bytes)
{
    uint8_t payload[PAYLOAD_BYTES_MAX];
    size_t payload_bytes = 0;
    struct intro intro;
    int err = noise__read(&session->noise, message, message_bytes, payload, sizeof payload,
                          &payload_bytes);
    if (err == 0)
        err = intro__decode(payload, payload_bytes, &intro);
    if (err != 0)
        return err;
    if (!session->config.initiator && !peer_addr_equal(&intro.addr, &session->offer.addr))
        return E_AUTH;
    struct intro own;
    own_intro(session, &own);
    session->features = own.features & intro.features;
    const struct intro_judge judge = judge_of(session);
    err = intro__admit(&judge, &intro, session->noise.remote_static, &session->peer);
    return err == E_DENIED ? E_AUTH : err;
}

static int handle_message(struct session *session, uint64_t now_us, const uint8_t *message,
                          size_t message_bytes)
{
    if (session->noise.message_index == 0 && !session->config.initiator)
        return read_first(session, message, message_bytes);
    int err = read_intro(session, message, message_bytes);
    if (err == 0 && session->config.initiator)
        err = write_message(session, INTRO_BYTES);
    return err == 0 ? establish(session, now_us) : err;
}

static int receive_handshake(struct session *session, uint64_t now_us, const uint8_t *bytes,
                             size_t byte_count, size_t *consumed)
{
    if (byte_count < LENGTH_BYTES)
        return 0;
    size_t message_bytes = load_be16(bytes);
    size_t overhead = noise__overhead(session->noise.message_index);
    if (message_bytes < overhead || message_bytes - overhead > PAYLOAD_BYTES_MAX)
        return E_PROTOCOL;
    if (byte_count - LENGTH_BYTES < message_bytes)
        return 0;
    int err = handle_message(session, now_us, bytes + LENGTH_BYTES, message_bytes);
    if (err == 0)
        *consumed = LENGTH_BYTES + message_bytes;
    return err;
}

int session_new(const struct env *env, const struct session_config *config, uint64_t now_us,
                struct session **out)
{
    if (config->identity == NULL || config->admission == NULL ||
        !admission__valid(config->admission) || config->self_addr.port == 0 || sodium_init() < 0)
        return E_INVALID;
    struct session *session = env->alloc(env->host, NULL, sizeof *session);
    if (session == NULL)
        return E_NO_MEMORY;
    memset(session, 0, sizeof *session);
    session->env = *env;
    session->config = *config;
    if (session->config.rekey_bytes == 0)
        session->config.rekey_bytes = REKEY_BYTES_DEFAULT;
    if (session->config.rekey_us == 0)
        session->config.rekey_us = REKEY_US_DEFAULT;
    session->deadline_us = now_us + HANDSHAKE_TIMEOUT_US;
    set_state(session, SESSION_HANDSHAKE);
    if (config->initiator) {
        begin_noise(session, 0);
        draw_ephemeral(session);
        int err = write_message(session, INTRO_OFFER_BYTES);
        ASSERT(err == 0); /* psk and e do nothing that can fail */
    }
    *out = session;
    return 0;
}

void session_free(struct session *session)
{
    if (session == NULL)
        return;
    const struct env env = session->env;
    record__close(&session->seal);
    record__close(&session->open);
    sodium_memzero(session, sizeof *session);
    (void)env.alloc(env.host, session, 0);
}

enum session_state session_state(const struct session *session)
{
    return session->state;
}

const struct session_peer *session_peer(const struct session *session)
{
    return session->state == SESSION_ESTABLISHED ? &session->peer : NULL;
}

bool session_aes(const struct session *session)
{
    return session->state == SESSION_ESTABLISHED && (session->features & FEATURE_AES_256_GCM) != 0;
}

uint64_t session_deadline_us(const struct session *session)
{
    return session->deadline_us;
}

const uint8_t *session_output(const struct session *session, size_t *out_bytes)
{
    ASSERT(session->output_sent <= session->output_bytes);
    *out_bytes = session->output_bytes - session->output_sent;
    return session->output + session->output_sent;
}

void session_output_sent(struct session *session, size_t sent_bytes)
{
    ASSERT(sent_bytes <= session->output_bytes - session->output_sent);
    session->output_sent += sent_bytes;
}

/* A node that was denied while connected is let go (PEER-8). */
static int check_denied(struct session *session, uint64_t now_us)
{
    if (now_us < session->checked_us + DENY_CHECK_US)
        return 0;
    session->checked_us = now_us;
    return admission_denied(session->config.admission, &session->peer.key) ? E_AUTH : 0;
}

static size_t record_wire_bytes(const struct record_header *header)
{
    return RECORD_HEADER_BYTES + header->plain_bytes + RECORD_TAG_BYTES;
}

/* One record, into `room` if it fits there, else in place. */
static int receive_record(struct session *session, uint64_t now_us, uint8_t *bytes,
                          size_t byte_count, struct session_room room, struct session_received *out)
{
    struct record_header header;
    if (byte_count < RECORD_HEADER_BYTES)
        return 0;
    int err = record__header(bytes, &header);
    if (err != 0)
        return err;
    size_t record_bytes = record_wire_bytes(&header);
    if (byte_count < record_bytes)
        return 0;
    bool fits = header.plain_bytes > 0 && header.plain_bytes <= room.byte_count;
    uint8_t *plain = fits ? room.bytes : bytes + RECORD_HEADER_BYTES;
    err = check_denied(session, now_us);
    if (err == 0)
        err = record__open(&session->open, now_us, bytes, &header, plain);
    if (err != 0)
        return err;
    *out = (struct session_received){record_bytes, plain, header.plain_bytes};
    return 0;
}

int session_receive_into(struct session *session, uint64_t now_us, uint8_t *bytes,
                         size_t byte_count, struct session_room room, struct session_received *out)
{
    int err = E_INVALID;
    *out = (struct session_received){0};
    if (session->state == SESSION_ESTABLISHED)
        err = receive_record(session, now_us, bytes, byte_count, room, out);
    else if (session->state == SESSION_HANDSHAKE)
        err = now_us >= session->deadline_us
                  ? E_TIMEOUT
                  : receive_handshake(session, now_us, bytes, byte_count, &out->consumed);
    else
        return E_INVALID;
    return err == 0 ? 0 : fail(session, err);
}

int session_receive(struct session *session, uint64_t now_us, uint8_t *bytes, size_t byte_count,
                    size_t *consumed, const uint8_t **plain, size_t *plain_bytes)
{
    struct session_received received;
    int err = session_receive_into(session, now_us, bytes, byte_count, (struct session_room){0},
                                   &received);
    *consumed = received.consumed;
    *plain = received.plain;
    *plain_bytes = received.plain_bytes;
    return err;
}

size_t session_missing(const struct session *session, const uint8_t *bytes, size_t byte_count)
{
    struct record_header header;
    if (session->state != SESSION_ESTABLISHED || byte_count < RECORD_HEADER_BYTES ||
        record__header(bytes, &header) != 0)
        return 0;
    size_t record_bytes = record_wire_bytes(&header);
    return record_bytes > byte_count ? record_bytes - byte_count : 0;
}

int session_seal(struct session *session, uint64_t now_us, const uint8_t *head, size_t head_bytes,
                 const uint8_t *body, size_t body_bytes, uint8_t *out, size_t *out_bytes)
{
    if (session->state != SESSION_ESTABLISHED || head_bytes > RECORD_BYTES_MAX ||
        body_bytes > RECORD_BYTES_MAX - head_bytes)
        return E_INVALID;
    const struct record_input input = {
        .head = head, .head_bytes = head_bytes, .body = body, .body_bytes = body_bytes};
    bool rekey = record__rekey_due(&session->seal, now_us, session->config.rekey_bytes,
                                   session->config.rekey_us);
    int err = rekey ? record__rekey(&session->seal, now_us) : 0;
    if (err == 0)
        err = record__seal(&session->seal, &input, rekey, out, out_bytes);
    return err == 0 ? 0 : fail(session, err);
}
