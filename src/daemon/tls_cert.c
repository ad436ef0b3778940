/* SPDX-License-Identifier: Apache-2.0 */
/* Loading of certificate pairs and SNI; see tls_cert.h. */
#include "tls_cert.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "log.h"
#include "loop.h"
#include "secret_file.h"

#define CHAIN_BYTES_MAX (256 * 1024)
#define KEY_BYTES_MAX   (64 * 1024)
#define CHAIN_MAX       10 /* certificates; more than any public chain has */

/* Forward secrecy and authenticated encryption only; TLS 1.3 has nothing else anyway. */
#define CIPHERS_TLS_1_2 "ECDHE+AESGCM:ECDHE+CHACHA20"
#define GROUPS          "X25519:P-256:P-384"

struct tls_set {
    uint32_t refs;
    unsigned count;
    SSL_CTX *contexts[CONFIG_TLS_PAIRS_MAX];
};

/* OpenSSL's reason for the last failure, and an empty queue for the next. */
static const char *reason(void)
{
    unsigned long code = ERR_peek_last_error();
    const char *text = code == 0 ? NULL : ERR_reason_error_string(code);
    ERR_clear_error();
    return text == NULL ? "unknown reason" : text;
}

/* ---- the handshake's choices ---- */

/* RFC 7301 §3.2: a client that names protocols but not ours is told so. */
static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_bytes,
                           const unsigned char *in, unsigned in_bytes, void *arg)
{
    static const char ours[] = "http/1.1";
    (void)ssl;
    (void)arg;
    for (unsigned at = 0; at < in_bytes && in[at] < in_bytes - at; at += 1u + in[at]) {
        if (in[at] != sizeof ours - 1 || memcmp(in + at + 1, ours, sizeof ours - 1) != 0)
            continue;
        *out = in + at + 1;
        *out_bytes = in[at];
        return SSL_TLSEXT_ERR_OK;
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* A key with a pass phrase must not make OpenSSL ask for it on a terminal. */
static int no_pass_phrase(char *out, int out_bytes, int writing, void *arg)
{
    (void)out;
    (void)out_bytes;
    (void)writing;
    (void)arg;
    return -1;
}

unsigned tls_set_choose(const struct tls_set *set, const char *name)
{
    for (unsigned i = 0; name != NULL && i < set->count; i++) {
        X509 *leaf = SSL_CTX_get0_certificate(set->contexts[i]);
        if (X509_check_host(leaf, name, 0, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, NULL) == 1)
            return i;
    }
    return 0;
}

static int on_server_name(SSL *ssl, int *alert, void *arg)
{
    const struct tls_set *set = arg;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    (void)alert;
    if (name == NULL)
        return SSL_TLSEXT_ERR_NOACK;
    unsigned index = tls_set_choose(set, name);
    return SSL_set_SSL_CTX(ssl, set->contexts[index]) == NULL ? SSL_TLSEXT_ERR_ALERT_FATAL
                                                              : SSL_TLSEXT_ERR_OK;
}

static bool context_tune(SSL_CTX *context, struct tls_set *set)
{
    (void)SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                           SSL_OP_CIPHER_SERVER_PREFERENCE);
    /* Records are built from the caller's bytes as far as the socket takes them, and a connection
     * at rest holds no buffers. Tickets need no memory here; the cache of sessions would. */
    (void)SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                        SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                        SSL_MODE_RELEASE_BUFFERS);
    (void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
    (void)SSL_CTX_set_tlsext_servername_callback(context, on_server_name);
    (void)SSL_CTX_set_tlsext_servername_arg(context, set);
    return SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 &&
           SSL_CTX_set_cipher_list(context, CIPHERS_TLS_1_2) == 1 &&
           SSL_CTX_set1_groups_list(context, GROUPS) == 1;
}

/* ---- files ---- */

/* Hands the chain in `pem` to the context, the leaf first. 0, or why not. */
static const char *chain_take(SSL_CTX *context, BIO *pem)
{
    unsigned count = 0;
    X509 *one;
    while ((one = PEM_read_bio_X509(pem, NULL, no_pass_phrase, NULL)) != NULL) {
        bool leaf = count++ == 0;
        int taken = count > CHAIN_MAX ? 0
                    : leaf            ? SSL_CTX_use_certificate(context, one)
                                      : (int)SSL_CTX_add1_chain_cert(context, one);
        X509_free(one);
        if (count > CHAIN_MAX)
            return "more than 10 certificates";
        if (taken != 1)
            return reason();
    }
    unsigned long code = ERR_peek_last_error();
    bool end = ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
    if (count == 0 && end) {
        ERR_clear_error();
        return "no certificate in PEM form in it";
    }
    if (!end)
        return reason();
    ERR_clear_error();
    return NULL;
}

static int certificate_load(SSL_CTX *context, const char *path, struct config_error *error)
{
    char *text = NULL;
    size_t bytes = 0;
    int err = file_read_whole(path, CHAIN_BYTES_MAX, &text, &bytes);
    if (err != 0)
        return config_fail(error, "listen.tlsCertificate: cannot read %.300s: %s", path,
                           err_text(err));
    BIO *pem = BIO_new_mem_buf(text, (int)bytes);
    const char *why = pem == NULL ? "out of memory" : chain_take(context, pem);
    (void)BIO_free(pem);
    (void)loop_alloc(NULL, text, 0);
    return why == NULL ? 0 : config_fail(error, "listen.tlsCertificate: %.300s: %s", path, why);
}

static int key_load(SSL_CTX *context, const struct tls_files *files, struct config_error *error)
{
    char *text = NULL;
    size_t bytes = 0;
    struct config_error file_error = {""};
    int err = secret_file_text(files->key, KEY_BYTES_MAX, &text, &bytes, &file_error);
    if (err != 0)
        return config_fail(error, "listen.tlsKey: %.900s", file_error.text);
    BIO *pem = BIO_new_mem_buf(text, (int)bytes);
    EVP_PKEY *key = pem == NULL ? NULL : PEM_read_bio_PrivateKey(pem, NULL, no_pass_phrase, NULL);
    (void)BIO_free(pem);
    explicit_bzero(text, bytes);
    (void)loop_alloc(NULL, text, 0);
    if (key == NULL) {
        ERR_clear_error(); /* its reasons quote the file's encoding, not what to do */
        return config_fail(error, "listen.tlsKey: no key in PEM form without pass phrase in %.300s",
                           files->key);
    }
    bool fits = X509_check_private_key(SSL_CTX_get0_certificate(context), key) == 1;
    bool used = fits && SSL_CTX_use_PrivateKey(context, key) == 1;
    EVP_PKEY_free(key);
    if (!fits) {
        ERR_clear_error();
        return config_fail(error, "listen.tlsKey: %.300s is not the key of %.300s", files->key,
                           files->certificate);
    }
    return used ? 0 : config_fail(error, "listen.tlsKey: %.300s: %s", files->key, reason());
}

static int pair_load(struct tls_set *set, const struct tls_files *files, struct config_error *error)
{
    ERR_clear_error();
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (context == NULL) {
        ERR_clear_error();
        return E_NO_MEMORY;
    }
    set->contexts[set->count++] = context;
    if (!context_tune(context, set))
        return config_fail(error, "listen.tls: %s", reason());
    int err = certificate_load(context, files->certificate, error);
    return err == 0 ? key_load(context, files, error) : err;
}

int tls_set_load(const struct tls_files *files, unsigned count, struct tls_set **out,
                 struct config_error *error)
{
    ASSERT(count > 0 && count <= CONFIG_TLS_PAIRS_MAX);
    struct tls_set *set = loop_alloc(NULL, NULL, sizeof *set);
    if (set == NULL)
        return E_NO_MEMORY;
    *set = (struct tls_set){.refs = 1};
    int err = 0;
    for (unsigned i = 0; err == 0 && i < count; i++)
        err = pair_load(set, &files[i], error);
    if (err != 0) {
        tls_set_put(set);
        return err;
    }
    *out = set;
    return 0;
}

struct tls_set *tls_set_ref(struct tls_set *set)
{
    set->refs++;
    return set;
}

void tls_set_put(struct tls_set *set)
{
    if (set == NULL || --set->refs > 0)
        return;
    for (unsigned i = 0; i < set->count; i++)
        SSL_CTX_free(set->contexts[i]);
    (void)loop_alloc(NULL, set, 0);
}

struct ssl_ctx_st *tls_set_context(struct tls_set *set)
{
    return set->contexts[0];
}

uint64_t tls_set_expires_s(const struct tls_set *set)
{
    uint64_t first_s = UINT64_MAX;
    for (unsigned i = 0; i < set->count; i++) {
        const ASN1_TIME *end = X509_get0_notAfter(SSL_CTX_get0_certificate(set->contexts[i]));
        ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
        int days = 0, seconds = 0;
        if (epoch != NULL && ASN1_TIME_diff(&days, &seconds, epoch, end) == 1 && days >= 0) {
            uint64_t end_s = (uint64_t)days * 86400 + (uint64_t)(seconds > 0 ? seconds : 0);
            first_s = end_s < first_s ? end_s : first_s;
        }
        ASN1_TIME_free(epoch);
    }
    return first_s;
}
