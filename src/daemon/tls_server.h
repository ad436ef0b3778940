/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server's side of TLS on sockets that the HTTP server polls: certificates that are read again
 * when their files change, and one session per connection. A session reads and writes its socket
 * itself, so that bytes are copied once, by the cipher. Running sessions keep the certificates they
 * began with. Loop thread only.
 *
 * A handshake costs the loop 0.1 ms (ECDSA) to 2 ms (RSA 2048); the HTTP server bounds how many
 * are under way and for how long.
 */
#ifndef SHOAL_DAEMON_TLS_SERVER_H
#define SHOAL_DAEMON_TLS_SERVER_H

#include "loop.h"
#include "tls_cert.h"

struct tls;
struct tls_session;

struct tls_counters {
    uint64_t handshakes, handshakes_failed;
    uint64_t plain; /* clients that spoke HTTP without TLS */
    uint64_t reloads, reload_failures;
};

/* Reads the pairs; their paths are copied. Looks every 5 s whether a file changed; a new set that
 * cannot be used leaves the old one in force and says so once. 0; E_CONFIG with one line in
 * `error`, E_NO_MEMORY. Registers itself with the loop for the stop. */
MUST_USE int tls_new(struct loop *loop, const struct tls_files *files, unsigned count,
                     struct tls **out, struct config_error *error);
/* After the loop has run out, and after its sessions; NULL is fine. */
void tls_free(struct tls *tls);
/* Reads the files again if one changed since the last look. */
void tls_look(struct tls *tls);
void tls_counters(const struct tls *tls, struct tls_counters *out);
/* When the first certificate in force ends: seconds since 1970. */
uint64_t tls_expires_s(const struct tls *tls);

/* A session on a connected, non-blocking socket, which stays the caller's. NULL: no memory. */
struct tls_session *tls_session_new(struct tls *tls, int fd);
/* Sends nothing; NULL is fine. */
void tls_session_free(struct tls_session *session);
/* One step of the handshake. 0: done; E_AGAIN: call again when the socket can be written
 * (*wants_write) or read; E_MALFORMED: the client speaks plain HTTP, nothing was sent to it; E_TLS:
 * failed, the client was told by an alert if it could be. */
MUST_USE int tls_session_handshake(struct tls_session *session, bool *wants_write);
/* Reads decrypted bytes. 0 with *got > 0; E_AGAIN; E_CLOSED: the client has ended, in whatever way.
 */
MUST_USE int tls_session_recv(struct tls_session *session, void *out, size_t out_bytes,
                              size_t *got);
/* Decrypted bytes are held back by an earlier short read: the socket will not say so. */
bool tls_session_pending(const struct tls_session *session);
/* Writes at most one record (16 KiB). 0 with *sent > 0; E_AGAIN: call again with the same bytes
 * when the socket can be written; E_CLOSED: the connection is gone. */
MUST_USE int tls_session_send(struct tls_session *session, const void *bytes, size_t byte_count,
                              size_t *sent);
/* Tells the client that nothing more follows (close_notify), if the socket takes it now. */
void tls_session_end(struct tls_session *session);

#endif
