/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS of the libcurl engine (ORG-6): peer and host are verified, versions below 1.2 refused, a CA
 * file is honoured and there is no way around it. The server is OpenSSL on loopback with a
 * certificate made for the test.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <signal.h>

#include "registry_server.h"

struct tls {
    struct loop loop;
    struct server server;
    SSL_CTX *context;
    char ca_file[64];
    struct fetch_request request;
    char url[256];
    struct client client;
};

static EVP_PKEY *key;

/* Self-signed, for 127.0.0.1 only. */
static X509 *certificate_make(void)
{
    X509 *certificate = X509_new();
    X509_NAME *name = X509_get_subject_name(certificate);
    X509_EXTENSION *san =
        X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "IP:127.0.0.1,DNS:registry.test");

    (void)X509_set_version(certificate, 2);
    (void)ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    (void)X509_gmtime_adj(X509_getm_notBefore(certificate), -86400);
    (void)X509_gmtime_adj(X509_getm_notAfter(certificate), 86400);
    (void)X509_set_pubkey(certificate, key);
    (void)X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"test", -1,
                                     -1, 0);
    (void)X509_set_issuer_name(certificate, name);
    (void)X509_add_ext(certificate, san, -1);
    X509_EXTENSION_free(san);
    assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
    return certificate;
}

/* The plain server has already read a "request head"; here the handshake is the connection, so
 * accept and answer are done by hand on each connection. */
static void *tls_run(void *arg)
{
    struct tls *tls = arg;

    while (true) {
        int fd = accept(tls->server.listener, NULL, NULL);
        SSL *ssl;
        char bytes[4096];

        if (fd < 0)
            return NULL;
        ssl = SSL_new(tls->context);
        (void)SSL_set_fd(ssl, fd);
        if (SSL_accept(ssl) == 1 && SSL_read(ssl, bytes, sizeof bytes) > 0) {
            static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

            (void)SSL_write(ssl, answer, sizeof answer - 1);
            (void)SSL_shutdown(ssl);
        }
        SSL_free(ssl);
        close(fd);
    }
}

static int set_up(void **state)
{
    struct tls *tls = calloc(1, sizeof *tls);
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t bytes = sizeof address;
    X509 *certificate = certificate_make();
    int fd;
    FILE *file;

    (void)snprintf(tls->ca_file, sizeof tls->ca_file, "/tmp/shoal-ca-XXXXXX");
    fd = mkstemp(tls->ca_file);
    file = fdopen(fd, "w");
    assert_non_null(file);
    assert_int_equal(PEM_write_X509(file, certificate), 1);
    fclose(file);
    tls->context = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_security_level(tls->context, 0);
    assert_int_equal(SSL_CTX_use_certificate(tls->context, certificate), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(tls->context, key), 1);
    X509_free(certificate);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    tls->server.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(tls->server.listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(tls->server.listener, 16), 0);
    assert_int_equal(getsockname(tls->server.listener, (struct sockaddr *)&address, &bytes), 0);
    tls->server.port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&tls->server.thread, NULL, tls_run, tls), 0);
    loop_init(&tls->loop, 0);
    *state = tls;
    return 0;
}

static int tear_down(void **state)
{
    struct tls *tls = *state;

    tls->loop.engine.close(tls->loop.engine.self);
    shutdown(tls->server.listener, SHUT_RDWR);
    pthread_join(tls->server.thread, NULL);
    close(tls->server.listener);
    SSL_CTX_free(tls->context);
    unlink(tls->ca_file);
    assert_false(tls->client.disorder);
    free(tls);
    return 0;
}

static void fetch(struct tls *tls, const char *host, const char *ca_file, int err)
{
    memset(&tls->client, 0, sizeof tls->client);
    client_request(&tls->request, tls->url, &tls->server, "/");
    (void)snprintf(tls->url, sizeof tls->url, "https://%s:%u/", host, (unsigned)tls->server.port);
    tls->request.ca_file = ca_file;
    assert_int_equal(client_start(&tls->client, &tls->loop, &tls->request), 0);
    assert_true(client_wait(&tls->client));
    assert_int_equal(tls->client.err, err);
    assert_int_equal(tls->client.heads, err == 0);
}

static void known_ca_is_trusted(void **state)
{
    struct tls *tls = *state;

    fetch(tls, "127.0.0.1", tls->ca_file, 0);
    assert_int_equal(tls->client.body_bytes, 2);
}

static void unknown_ca_is_refused(void **state)
{
    struct tls *tls = *state;

    fetch(tls, "127.0.0.1", "", E_TLS);
    fetch(tls, "127.0.0.1", NULL, E_TLS);
}

static void other_name_is_refused(void **state)
{
    struct tls *tls = *state;

    fetch(tls, "localhost", tls->ca_file, E_TLS);
}

static void missing_ca_file_is_refused(void **state)
{
    struct tls *tls = *state;

    fetch(tls, "127.0.0.1", "/nonexistent/ca.pem", E_TLS);
}

static void old_version_is_refused(void **state)
{
    struct tls *tls = *state;

    assert_int_equal(SSL_CTX_set_max_proto_version(tls->context, TLS1_1_VERSION), 1);
    fetch(tls, "127.0.0.1", tls->ca_file, E_TLS);
}

static void version_1_2_is_accepted(void **state)
{
    struct tls *tls = *state;

    assert_int_equal(SSL_CTX_set_max_proto_version(tls->context, TLS1_2_VERSION), 1);
    fetch(tls, "127.0.0.1", tls->ca_file, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(known_ca_is_trusted),    TEST(unknown_ca_is_refused),
        TEST(other_name_is_refused),  TEST(missing_ca_file_is_refused),
        TEST(old_version_is_refused), TEST(version_1_2_is_accepted),
    };
    int failed;

    (void)signal(SIGPIPE, SIG_IGN);
    (void)alarm(60);
    key = EVP_EC_gen("P-256");
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    EVP_PKEY_free(key);
    return failed;
}
