/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificates of the TLS client port: pairs of a PEM chain and its key, read from files and turned
 * into what OpenSSL serves with, and the choice among them by the name a client asks for (SNI, RFC
 * 6066 §3). A set never changes: a reload makes a new one. Protocol versions and ciphers are fixed
 * here, too (ORG-6's floor holds for our own port as well).
 */
#ifndef SHOAL_DAEMON_TLS_CERT_H
#define SHOAL_DAEMON_TLS_CERT_H

#include "config.h"

struct ssl_ctx_st; /* OpenSSL's SSL_CTX; its headers are for tls_*.c alone */

struct tls_files {
    const char *certificate; /* PEM, the leaf first, then its issuers */
    const char *key;         /* PEM, not encrypted, not readable by others */
};

struct tls_set; /* reference-counted; loop thread only */

/*
 * Reads `count` pairs (1..CONFIG_TLS_PAIRS_MAX), checks the keys' file modes (HRD-4) and that key
 * and certificate belong together. 0 with one reference in *out; E_CONFIG with one line in `error`
 * that names the file and what is wrong with it; E_NO_MEMORY. `files` is borrowed for the call.
 */
MUST_USE int tls_set_load(const struct tls_files *files, unsigned count, struct tls_set **out,
                          struct config_error *error);
/* Fills out[CONFIG_TLS_PAIRS_MAX] with the pairs of a verified configuration, borrowed from it;
 * returns how many. (config.c) */
unsigned config_tls_files(const struct config *config, struct tls_files *out);
/* One more reference; returns `set`. */
struct tls_set *tls_set_ref(struct tls_set *set);
/* Gives a reference back; NULL is fine. */
void tls_set_put(struct tls_set *set);
/* What sessions are made from; borrowed for the set's life. Pair 0 until SNI says otherwise. */
struct ssl_ctx_st *tls_set_context(struct tls_set *set);
/* Index of the first pair whose leaf is for this DNS name (wildcards per RFC 6125 §6.4.3); 0 if
 * none is, or `name` is NULL: such a client sees by itself whether it likes the first. */
unsigned tls_set_choose(const struct tls_set *set, const char *name);
/* When the first of the certificates ends: seconds since 1970. */
uint64_t tls_set_expires_s(const struct tls_set *set);

#endif
