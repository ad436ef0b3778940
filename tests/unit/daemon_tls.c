/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS client port: certificates and their files (HRD-4 for the keys), SNI, reload without losing a
 * session, and the handshake's floor (TLS 1.2, forward secrecy, http/1.1). Both ends of a socket
 * pair are driven in turn by the test: nothing waits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <sys/socket.h>

#include "../../src/daemon/http_socket.h"
#include "daemon_scratch.h"

#define NAME_BYTES 256

struct pair {
    char certificate[NAME_BYTES], key[NAME_BYTES];
};

static void keep(char out[NAME_BYTES], const char *path)
{
    (void)snprintf(out, NAME_BYTES, "%s", path);
}

/* A self-signed certificate for DNS names ("DNS:a,DNS:b") that ends in `days`. */
static X509 *certificate_make(EVP_PKEY *key, const char *names, long days)
{
    X509 *made = X509_new();
    X509_EXTENSION *san = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, names);
    (void)X509_set_version(made, 2);
    (void)ASN1_INTEGER_set(X509_get_serialNumber(made), 1);
    (void)X509_gmtime_adj(X509_getm_notBefore(made), -86400);
    (void)X509_gmtime_adj(X509_getm_notAfter(made), 86400 * days);
    (void)X509_set_pubkey(made, key);
    (void)X509_NAME_add_entry_by_txt(X509_get_subject_name(made), "CN", MBSTRING_ASC,
                                     (const unsigned char *)names, -1, -1, 0);
    (void)X509_set_issuer_name(made, X509_get_subject_name(made));
    (void)X509_add_ext(made, san, -1);
    X509_EXTENSION_free(san);
    assert_true(X509_sign(made, key, EVP_sha256()) > 0);
    return made;
}

/* Writes both files under `name`; `copies` certificates in the chain; a pass phrase or NULL. */
static void pair_write(struct pair *out, const char *name, const char *names, long days,
                       unsigned copies, const char *phrase)
{
    char file[64];
    EVP_PKEY *key = EVP_EC_gen("P-256");
    assert_non_null(key);
    X509 *certificate = certificate_make(key, names, days);
    (void)snprintf(file, sizeof file, "%s.crt", name);
    keep(out->certificate, scratch_file(file, "", 0644));
    FILE *pem = fopen(out->certificate, "w");
    for (unsigned i = 0; i < copies; i++)
        assert_int_equal(PEM_write_X509(pem, certificate), 1);
    (void)fclose(pem);
    (void)snprintf(file, sizeof file, "%s.key", name);
    keep(out->key, scratch_file(file, "", 0600));
    pem = fopen(out->key, "w");
    const EVP_CIPHER *cipher = phrase == NULL ? NULL : EVP_aes_128_cbc();
    assert_int_equal(PEM_write_PrivateKey(pem, key, cipher, (const unsigned char *)phrase,
                                          phrase == NULL ? 0 : (int)strlen(phrase), NULL, NULL),
                     1);
    (void)fclose(pem);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static struct tls_files files_of(const struct pair *pair)
{
    return (struct tls_files){pair->certificate, pair->key};
}

/* ---- loading ---- */

static void names_choose_their_certificate(void **state)
{
    (void)state;
    struct pair pairs[3];
    struct tls_files files[3];
    struct tls_set *set = NULL;
    struct config_error error = {""};
    pair_write(&pairs[0], "one", "DNS:one.test", 30, 1, NULL);
    pair_write(&pairs[1], "two", "DNS:*.two.test,DNS:demo.distributed.two.test", 10, 1, NULL);
    pair_write(&pairs[2], "three", "DNS:three.test,DNS:one.test", 20, 1, NULL);
    for (unsigned i = 0; i < 3; i++)
        files[i] = files_of(&pairs[i]);
    assert_int_equal(tls_set_load(files, 3, &set, &error), 0);
    static const struct {
        const char *name;
        unsigned index;
    } wanted[] = {
        {"one.test", 0},   {"a.two.test", 1},   {"A.Two.TEST", 1}, {"demo.distributed.two.test", 1},
        {"three.test", 2}, {"a.b.two.test", 0}, {"two.test", 0},   {"other.test", 0},
        {"", 0},           {NULL, 0},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        assert_int_equal(tls_set_choose(set, wanted[i].name), wanted[i].index);
    uint64_t left_s = tls_set_expires_s(set) - loop_wall_s(); /* the earliest of them */
    assert_true(left_s > 86400 * 9 && left_s <= 86400 * 10);
    tls_set_put(set);
}

static void expect_load_error(const struct pair *pair, const char *wanted)
{
    struct tls_files files = files_of(pair);
    struct tls_set *set = NULL;
    struct config_error error = {""};
    assert_int_equal(tls_set_load(&files, 1, &set, &error), E_CONFIG);
    assert_null(set);
    if (strstr(error.text, wanted) == NULL)
        fail_msg("said: %s\nwanted: %s", error.text, wanted);
    assert_null(strchr(error.text, '\n'));
    assert_int_equal(ERR_peek_error(), 0); /* the next call's reasons are its own */
}

static void what_cannot_be_served_is_named(void **state)
{
    (void)state;
    struct pair good, other, bad;
    pair_write(&good, "good", "DNS:a.test", 1, 1, NULL);
    pair_write(&other, "other", "DNS:a.test", 1, 1, NULL);
    bad = good;
    keep(bad.key, other.key);
    expect_load_error(&bad, "other.key is not the key of");
    bad = good;
    keep(bad.certificate, scratch_path("absent"));
    expect_load_error(&bad, "listen.tlsCertificate: cannot read");
    keep(bad.certificate, scratch_file("empty", "", 0644));
    expect_load_error(&bad, "no certificate in PEM form");
    keep(bad.certificate, scratch_file("broken", "-----BEGIN CERTIFICATE-----\nAAAA\n", 0644));
    expect_load_error(&bad, "listen.tlsCertificate: ");
    bad = good;
    keep(bad.key, scratch_path("absent"));
    expect_load_error(&bad, "listen.tlsKey: cannot open");
    keep(bad.key, scratch_file("text.key", "secret words\n", 0600));
    expect_load_error(&bad, "listen.tlsKey: no key in PEM form");
    keep(bad.key, good.certificate); /* readable by all */
    expect_load_error(&bad, "others can read it");
    pair_write(&bad, "phrase", "DNS:a.test", 1, 1, "phrase");
    expect_load_error(&bad, "without pass phrase");
    pair_write(&bad, "long", "DNS:a.test", 1, 11, NULL);
    expect_load_error(&bad, "more than 10 certificates");
    pair_write(&bad, "ten", "DNS:a.test", 1, 10, NULL);
    struct tls_files files = files_of(&bad);
    struct tls_set *set = NULL;
    struct config_error error = {""};
    assert_int_equal(tls_set_load(&files, 1, &set, &error), 0);
    tls_set_put(set);
}

/* HRD-4: modes are judged on the file that is read. */
static void open_keys_are_refused(void **state)
{
    (void)state;
    struct pair pair;
    pair_write(&pair, "open", "DNS:a.test", 1, 1, NULL);
    static const unsigned modes[] = {0644, 0604, 0640, 0660};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        assert_int_equal(chmod(pair.key, modes[i]), 0);
        expect_load_error(&pair, "others can read it; run: chmod 0400");
    }
    char big[80 * 1024];
    memset(big, 'a', sizeof big);
    big[sizeof big - 1] = '\0';
    keep(pair.key, scratch_file("big.key", big, 0600));
    expect_load_error(&pair, "is larger than");
}

/* ---- sessions ---- */

struct world {
    struct loop loop;
    struct pair pair;
    struct tls *tls;
};

static int world_make(void **state)
{
    static struct world world;
    const struct loop_options options = {.log_level = LOG_ERROR, .log_fd = 2};
    struct config_error error = {""};
    memset(&world, 0, sizeof world);
    (void)signal(SIGPIPE, SIG_IGN);
    if (loop_init(&world.loop, &options) != 0)
        return -1;
    pair_write(&world.pair, "world", "DNS:a.test", 1, 1, NULL);
    struct tls_files files = files_of(&world.pair);
    if (tls_new(&world.loop, &files, 1, &world.tls, &error) != 0)
        return -1;
    *state = &world;
    return 0;
}

static int world_free(void **state)
{
    struct world *world = *state;
    loop_stop(&world->loop);
    int err = loop_run(&world->loop);
    tls_free(world->tls);
    loop_close(&world->loop);
    return err;
}

struct wire {
    int ours, theirs;
    struct http_socket socket;
    SSL_CTX *context;
    SSL *client;
};

static void wire_open(struct wire *wire, struct world *world)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    *wire = (struct wire){.ours = ends[0], .theirs = ends[1]};
    wire->socket.fd = ends[0];
    wire->socket.tls = tls_session_new(world->tls, ends[0]);
    assert_non_null(wire->socket.tls);
    wire->context = SSL_CTX_new(TLS_client_method());
    wire->client = SSL_new(wire->context);
    assert_int_equal(SSL_set_fd(wire->client, wire->theirs), 1);
    SSL_set_connect_state(wire->client);
}

static void wire_close(struct wire *wire)
{
    SSL_free(wire->client);
    SSL_CTX_free(wire->context);
    (void)close(wire->theirs);
    http_socket_close(&wire->socket);
    ERR_clear_error();
}

/* Both sides in turn until the server's handshake ends. */
static int wire_shake(struct wire *wire)
{
    bool wants_write = false;
    for (int i = 0; i < 20; i++) {
        (void)SSL_do_handshake(wire->client);
        ERR_clear_error();
        int err = tls_session_handshake(wire->socket.tls, &wants_write);
        if (err != E_AGAIN) {
            (void)SSL_do_handshake(wire->client);
            ERR_clear_error();
            return err;
        }
        assert_false(wants_write);
    }
    fail_msg("the handshake does not end");
    return E_INTERNAL;
}

/* First octets of the certificate that the client was shown, as a mark of which one it was. */
static uint64_t shown(const struct wire *wire)
{
    uint8_t hash[EVP_MAX_MD_SIZE] = {0};
    unsigned bytes = 0;
    uint64_t mark;
    X509 *peer = SSL_get1_peer_certificate(wire->client);
    assert_non_null(peer);
    assert_int_equal(X509_digest(peer, EVP_sha256(), hash, &bytes), 1);
    X509_free(peer);
    memcpy(&mark, hash, sizeof mark);
    return mark;
}

static void bytes_pass_both_ways(void **state)
{
    struct wire wire;
    uint8_t bytes[40000], got[40000];
    size_t count = 0, sent = 0, total = 0;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7);
    wire_open(&wire, *state);
    assert_int_equal(wire_shake(&wire), 0);
    assert_int_equal(SSL_write(wire.client, "GET / HTTP/1.1\r\n", 16), 16);
    assert_int_equal(http_socket_recv(&wire.socket, got, 5, &count), 0);
    assert_int_equal(count, 5);
    assert_true(http_socket_pending(&wire.socket)); /* the socket itself is empty now */
    assert_int_equal(http_socket_recv(&wire.socket, got, sizeof got, &count), 0);
    assert_int_equal(count, 11);
    assert_false(http_socket_pending(&wire.socket));
    assert_int_equal(http_socket_recv(&wire.socket, got, sizeof got, &count), E_AGAIN);
    while (total < sizeof bytes) {
        assert_int_equal(
            http_socket_send(&wire.socket, bytes + total, sizeof bytes - total, false, &sent), 0);
        total += sent;
        for (size_t at = total - sent; at < total;) {
            int n = SSL_read(wire.client, got + at, (int)(sizeof got - at));
            assert_true(n > 0);
            at += (size_t)n;
        }
    }
    assert_memory_equal(bytes, got, sizeof bytes);
    http_socket_end(&wire.socket);
    assert_int_equal(SSL_read(wire.client, got, 1), 0);
    assert_int_equal(SSL_get_error(wire.client, 0), SSL_ERROR_ZERO_RETURN); /* not cut */
    wire_close(&wire);
}

/* A full socket in mid-record: coming again with the same span loses and repeats nothing. */
static void files_are_sent_whole(void **state)
{
    static uint8_t bytes[300000], got[sizeof bytes], scratch[HTTP_SOCKET_FILE_BYTES];
    struct wire wire;
    size_t total = 0, read_bytes = 0, full = 0;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 31 >> 3);
    const char *path = scratch_file("piece", "", 0600);
    FILE *file = fopen(path, "w+");
    assert_int_equal(fwrite(bytes, 1, sizeof bytes, file), sizeof bytes);
    assert_int_equal(fflush(file), 0);
    wire_open(&wire, *state);
    int small = 20000;
    (void)setsockopt(wire.ours, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    assert_int_equal(wire_shake(&wire), 0);
    while (read_bytes < sizeof bytes) {
        size_t sent = 0;
        int err = total == sizeof bytes
                      ? E_AGAIN
                      : http_socket_send_file(&wire.socket, fileno(file), total,
                                              sizeof bytes - total, scratch, &sent);
        assert_true(err == 0 || err == E_AGAIN);
        total += sent;
        full += err == E_AGAIN;
        if (err == 0)
            continue;
        int n = SSL_read(wire.client, got + read_bytes, (int)(sizeof got - read_bytes));
        if (n > 0)
            read_bytes += (size_t)n;
        ERR_clear_error();
    }
    assert_true(full > 3);
    assert_memory_equal(bytes, got, sizeof bytes);
    size_t sent = 0;
    assert_int_equal(
        http_socket_send_file(&wire.socket, fileno(file), sizeof bytes - 10, 20, scratch, &sent),
        E_CLOSED); /* a file that is too short never becomes a wrong body */
    (void)fclose(file);
    wire_close(&wire);
}

static void a_reload_keeps_running_sessions(void **state)
{
    struct world *world = *state;
    struct wire before, during, after;
    struct tls_counters counters;
    size_t count = 0;
    char got[16];
    wire_open(&before, world);
    assert_int_equal(wire_shake(&before), 0);
    wire_open(&during, world); /* its handshake ends after the reload */
    tls_look(world->tls);      /* nothing changed */
    tls_counters(world->tls, &counters);
    assert_int_equal(counters.reloads, 0);
    pair_write(&world->pair, "world", "DNS:a.test,DNS:new.test", 1, 1, NULL);
    tls_look(world->tls);
    tls_counters(world->tls, &counters);
    assert_int_equal(counters.reloads, 1);
    wire_open(&after, world);
    (void)SSL_set_tlsext_host_name(during.client, "a.test");
    assert_int_equal(wire_shake(&after), 0);
    assert_int_equal(wire_shake(&during), 0);
    assert_int_not_equal(shown(&before), shown(&after));
    assert_int_equal(shown(&before), shown(&during));
    assert_int_equal(SSL_write(before.client, "still", 5), 5);
    assert_int_equal(http_socket_recv(&before.socket, got, sizeof got, &count), 0);
    assert_int_equal(count, 5);
    wire_close(&before);
    wire_close(&during);
    wire_close(&after);
}

static void a_broken_file_keeps_the_old_pair(void **state)
{
    struct world *world = *state;
    struct wire before, after;
    struct tls_counters counters;
    wire_open(&before, world);
    assert_int_equal(wire_shake(&before), 0);
    (void)scratch_file("world.crt", "half a cert", 0644);
    tls_look(world->tls);
    tls_look(world->tls); /* said once, not at every look */
    (void)unlink(world->pair.certificate);
    tls_look(world->tls);
    tls_counters(world->tls, &counters);
    assert_int_equal(counters.reload_failures, 2);
    assert_int_equal(counters.reloads, 0);
    wire_open(&after, world);
    assert_int_equal(wire_shake(&after), 0);
    assert_int_equal(shown(&before), shown(&after));
    wire_close(&before);
    wire_close(&after);
    /* Certificate first, key a moment later, as copying does it: used once both are there. */
    struct pair fresh;
    pair_write(&fresh, "fresh", "DNS:a.test", 1, 1, NULL);
    assert_int_equal(rename(fresh.certificate, world->pair.certificate), 0);
    tls_look(world->tls);
    assert_int_equal(rename(fresh.key, world->pair.key), 0);
    tls_look(world->tls);
    tls_counters(world->tls, &counters);
    assert_int_equal(counters.reload_failures, 3);
    assert_int_equal(counters.reloads, 1);
}

/* ORG-6's floor on our own port. */
static void old_and_weak_clients_are_refused(void **state)
{
    struct wire wire;
    static const uint8_t h2[] = "\2h2", both[] = "\2h2\10http/1.1";
    wire_open(&wire, *state);
    SSL_set_security_level(wire.client, 0);
    (void)SSL_set_min_proto_version(wire.client, TLS1_VERSION);
    (void)SSL_set_max_proto_version(wire.client, TLS1_1_VERSION);
    assert_int_equal(wire_shake(&wire), E_TLS);
    wire_close(&wire);
    wire_open(&wire, *state);
    (void)SSL_set_max_proto_version(wire.client, TLS1_2_VERSION);
    assert_int_equal(SSL_set_cipher_list(wire.client, "ECDHE-ECDSA-AES128-SHA"), 1);
    assert_int_equal(wire_shake(&wire), E_TLS);
    wire_close(&wire);
    wire_open(&wire, *state);
    assert_int_equal(SSL_set_alpn_protos(wire.client, h2, sizeof h2 - 1), 0);
    assert_int_equal(wire_shake(&wire), E_TLS);
    wire_close(&wire);
    wire_open(&wire, *state);
    const unsigned char *chosen = NULL;
    unsigned chosen_bytes = 0;
    assert_int_equal(SSL_set_alpn_protos(wire.client, both, sizeof both - 1), 0);
    assert_int_equal(wire_shake(&wire), 0);
    SSL_get0_alpn_selected(wire.client, &chosen, &chosen_bytes);
    assert_int_equal(chosen_bytes, 8);
    assert_memory_equal(chosen, "http/1.1", 8);
    wire_close(&wire);
    wire_open(&wire, *state);
    (void)SSL_set_max_proto_version(wire.client, TLS1_2_VERSION);
    assert_int_equal(wire_shake(&wire), 0);
    assert_string_equal(SSL_get_version(wire.client), "TLSv1.2");
    wire_close(&wire);
}

static void what_is_no_handshake_ends(void **state)
{
    struct world *world = *state;
    struct wire wire;
    struct tls_counters counters;
    bool wants_write = false;
    static const char plain[] = "GET /v2/ HTTP/1.1\r\nHost: a.test\r\n\r\n";
    static const uint8_t hello[] = {22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3};
    char reply[16];
    wire_open(&wire, world);
    assert_true(send(wire.theirs, plain, sizeof plain - 1, 0) > 0);
    assert_int_equal(tls_session_handshake(wire.socket.tls, &wants_write), E_MALFORMED);
    assert_int_equal(recv(wire.theirs, reply, sizeof reply, 0), -1); /* no alert before our text */
    wire_close(&wire);
    wire_open(&wire, world);
    assert_true(send(wire.theirs, "\1\2\3\4\5\6\7\10\11\12\13\14\15", 13, 0) > 0);
    assert_int_equal(tls_session_handshake(wire.socket.tls, &wants_write), E_TLS);
    wire_close(&wire);
    wire_open(&wire, world); /* cut in the middle: waits, and the end of the client ends it */
    for (size_t i = 0; i < sizeof hello; i++) {
        assert_int_equal(send(wire.theirs, &hello[i], 1, 0), 1);
        assert_int_equal(tls_session_handshake(wire.socket.tls, &wants_write), E_AGAIN);
        assert_false(wants_write);
    }
    (void)shutdown(wire.theirs, SHUT_WR);
    assert_int_equal(tls_session_handshake(wire.socket.tls, &wants_write), E_TLS);
    wire_close(&wire);
    tls_counters(world->tls, &counters);
    assert_int_equal(counters.handshakes, 0);
    assert_int_equal(counters.plain, 1);
    assert_int_equal(counters.handshakes_failed, 2);
}

int main(void)
{
#define WITH_WORLD(test) cmocka_unit_test_setup_teardown(test, world_make, world_free)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_choose_their_certificate),
        cmocka_unit_test(what_cannot_be_served_is_named),
        cmocka_unit_test(open_keys_are_refused),
        WITH_WORLD(bytes_pass_both_ways),
        WITH_WORLD(files_are_sent_whole),
        WITH_WORLD(a_reload_keeps_running_sessions),
        WITH_WORLD(a_broken_file_keeps_the_old_pair),
        WITH_WORLD(old_and_weak_clients_are_refused),
        WITH_WORLD(what_is_no_handshake_ends),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
