/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions and reload of the TLS client port; see tls_server.h. */
#include "tls_server.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>

#include "bytes.h"
#include "log.h"
#include "secret_file.h"

#define LOOK_MS 5000

struct tls {
    struct loop *loop;
    struct loop_part part;
    uv_timer_t timer;
    struct config_path certificates[CONFIG_TLS_PAIRS_MAX];
    struct config_path keys[CONFIG_TLS_PAIRS_MAX];
    struct tls_files files[CONFIG_TLS_PAIRS_MAX]; /* into the two above */
    uint64_t stamps[2 * CONFIG_TLS_PAIRS_MAX];
    unsigned count;
    struct tls_set *set;
    struct tls_counters counters;
};

struct tls_session {
    struct tls *tls;
    struct tls_set *set; /* the SNI callback reads it */
    SSL *ssl;
    bool established, failed;
};

/* ---- certificates ---- */

/* Stamps of all files as they are now; true if one is not as it was. */
static bool stamps_take(struct tls *tls)
{
    bool changed = false;
    for (unsigned i = 0; i < 2 * tls->count; i++) {
        const struct tls_files *pair = &tls->files[i / 2];
        uint64_t stamp = file_stamp(i % 2 == 0 ? pair->certificate : pair->key);
        changed |= stamp != tls->stamps[i];
        tls->stamps[i] = stamp;
    }
    return changed;
}

void tls_look(struct tls *tls)
{
    struct config_error error = {""};
    struct tls_set *fresh = NULL;
    if (!stamps_take(tls))
        return;
    int err = tls_set_load(tls->files, tls->count, &fresh, &error);
    if (err != 0) {
        tls->counters.reload_failures++;
        log_to(&tls->loop->env, LOG_WARN, "tls: the old certificates stay in use: %s",
               error.text[0] == '\0' ? err_text(err) : error.text);
        return;
    }
    tls_set_put(tls->set);
    tls->set = fresh;
    tls->counters.reloads++;
    log_to(&tls->loop->env, LOG_INFO, "tls: certificates read again pairs=%u", tls->count);
}

static void on_look(uv_timer_t *timer)
{
    tls_look(timer->data);
}

static void part_close(void *arg)
{
    struct tls *tls = arg;
    uv_close((uv_handle_t *)&tls->timer, NULL);
}

static int timer_start(struct tls *tls)
{
    int uv_error = uv_timer_init(&tls->loop->uv, &tls->timer);
    if (uv_error != 0)
        return loop_uv_error(uv_error);
    tls->timer.data = tls;
    tls->part = (struct loop_part){.name = "tls", .arg = tls, .close = part_close};
    loop_add_part(tls->loop, &tls->part);
    return loop_uv_error(uv_timer_start(&tls->timer, on_look, LOOK_MS, LOOK_MS));
}

int tls_new(struct loop *loop, const struct tls_files *files, unsigned count, struct tls **out,
            struct config_error *error)
{
    ASSERT(count > 0 && count <= CONFIG_TLS_PAIRS_MAX);
    struct tls *tls = loop_alloc(NULL, NULL, sizeof *tls);
    if (tls == NULL)
        return E_NO_MEMORY;
    memset(tls, 0, sizeof *tls);
    tls->loop = loop;
    tls->count = count;
    int err = 0;
    for (unsigned i = 0; i < count && err == 0; i++) {
        err = text_copy(tls->certificates[i].text, CONFIG_PATH_BYTES, files[i].certificate);
        if (err == 0)
            err = text_copy(tls->keys[i].text, CONFIG_PATH_BYTES, files[i].key);
        tls->files[i] = (struct tls_files){tls->certificates[i].text, tls->keys[i].text};
    }
    (void)stamps_take(tls); /* before the files are read: a change meanwhile is seen later */
    if (err == 0)
        err = tls_set_load(tls->files, count, &tls->set, error);
    if (err == 0)
        err = timer_start(tls);
    if (err != 0) {
        tls_free(tls);
        return err;
    }
    *out = tls;
    return 0;
}

void tls_free(struct tls *tls)
{
    if (tls == NULL)
        return;
    tls_set_put(tls->set);
    (void)loop_alloc(NULL, tls, 0);
}

void tls_counters(const struct tls *tls, struct tls_counters *out)
{
    *out = tls->counters;
}

uint64_t tls_expires_s(const struct tls *tls)
{
    return tls_set_expires_s(tls->set);
}

/* ---- sessions ---- */

struct tls_session *tls_session_new(struct tls *tls, int fd)
{
    struct tls_session *session = loop_alloc(NULL, NULL, sizeof *session);
    if (session == NULL)
        return NULL;
    ERR_clear_error();
    *session = (struct tls_session){.tls = tls, .set = tls_set_ref(tls->set)};
    session->ssl = SSL_new(tls_set_context(tls->set));
    if (session->ssl == NULL || SSL_set_fd(session->ssl, fd) != 1) {
        tls_session_free(session);
        return NULL;
    }
    SSL_set_accept_state(session->ssl);
    return session;
}

void tls_session_free(struct tls_session *session)
{
    if (session == NULL)
        return;
    SSL_free(session->ssl);
    tls_set_put(session->set);
    (void)loop_alloc(NULL, session, 0);
}

/* After a fatal error the session may only be freed. */
static int session_failed(struct tls_session *session, int err)
{
    session->failed = true;
    ERR_clear_error();
    return err;
}

int tls_session_handshake(struct tls_session *session, bool *wants_write)
{
    ERR_clear_error();
    int result = SSL_do_handshake(session->ssl);
    int why = SSL_get_error(session->ssl, result);
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) {
        *wants_write = why == SSL_ERROR_WANT_WRITE;
        return E_AGAIN;
    }
    if (result == 1) {
        session->established = true;
        session->tls->counters.handshakes++;
        return 0;
    }
    int reason = ERR_GET_REASON(ERR_peek_error());
    bool plain = reason == SSL_R_HTTP_REQUEST;
    session->tls->counters.plain += plain;
    session->tls->counters.handshakes_failed += !plain;
    return session_failed(session, plain ? E_MALFORMED : E_TLS);
}

int tls_session_recv(struct tls_session *session, void *out, size_t out_bytes, size_t *got)
{
    ERR_clear_error();
    int result = SSL_read_ex(session->ssl, out, out_bytes, got);
    if (result == 1)
        return 0;
    /* Without renegotiation a read has to write only what an update of keys is answered with, and
     * that goes out with the next record: the reader waits for bytes in either case. */
    int why = SSL_get_error(session->ssl, result);
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
        return E_AGAIN;
    if (why == SSL_ERROR_ZERO_RETURN)
        return E_CLOSED;
    return session_failed(session, E_CLOSED);
}

bool tls_session_pending(const struct tls_session *session)
{
    return SSL_pending(session->ssl) > 0;
}

int tls_session_send(struct tls_session *session, const void *bytes, size_t byte_count,
                     size_t *sent)
{
    ERR_clear_error();
    int result = SSL_write_ex(session->ssl, bytes, byte_count, sent);
    if (result == 1)
        return 0;
    int why = SSL_get_error(session->ssl, result);
    return why == SSL_ERROR_WANT_WRITE ? E_AGAIN : session_failed(session, E_CLOSED);
}

void tls_session_end(struct tls_session *session)
{
    if (!session->established || session->failed)
        return;
    ERR_clear_error();
    (void)SSL_shutdown(session->ssl);
    ERR_clear_error();
}
