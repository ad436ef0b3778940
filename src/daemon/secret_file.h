/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Secrets in files: permissions checked before reading (HRD-4), contents parsed, buffers wiped.
 * Used at start, by `config check`, and again when a file changes (PEER-8).
 */
#ifndef SHOAL_DAEMON_SECRET_FILE_H
#define SHOAL_DAEMON_SECRET_FILE_H

#include "config.h"
#include "session.h"

/*
 * Checks that others cannot read `path`: no permission for the world, none for the group if the
 * file is our own. (A group-readable file of another owner is how Kubernetes hands a Secret to a
 * non-root pod with fsGroup; it cannot be tightened by us.) 0; E_CONFIG with one line in `error`.
 */
MUST_USE int secret_file_check(const char *path, struct config_error *error);

/* Reads a whole secret file of at most `max` bytes, checked as by secret_file_check on the file
 * that is read. Into memory from loop_alloc with a zero behind it: wipe it, then free it. 0;
 * E_CONFIG with one line in `error`, E_NO_MEMORY. */
MUST_USE int secret_file_text(const char *path, size_t max, char **out, size_t *out_bytes,
                              struct config_error *error);

/* Reads a cluster secret: 64 lower-case hex digits, white space around them allowed. 0; E_CONFIG
 * (mode, missing, contents) with one line in `error`; `out` unchanged. */
MUST_USE int secret_file_read(const char *path, uint8_t out[CLUSTER_SECRET_BYTES],
                              struct config_error *error);

/* Reads a small text file of at most room - 1 bytes, zero-terminated; with `secret` only one that
 * secret_file_check lets pass. 0; E_CONFIG with one line in `error`, nothing left in `out`. */
MUST_USE int text_file_read(const char *path, bool secret, char *out, size_t room,
                            struct config_error *error);

/* Writes a fresh secret to a new file with mode 0400. 0; E_EXISTS, E_IO with one line in `error`.
 */
MUST_USE int secret_file_create(const char *path, struct config_error *error);

/* Reads identity keys to refuse: one of 64 hex digits a line, '#' begins a comment. 0 with *count;
 * E_CONFIG (missing, malformed line, over `max`) with one line in `error`. */
MUST_USE int deny_file_read(const char *path, struct identity_key *out, unsigned max,
                            unsigned *count, struct config_error *error);

/* Changes whenever the file was replaced or rewritten (inode, size, mtime folded); 0 if absent. */
uint64_t file_stamp(const char *path);

/* Reads a whole file of at most `max` bytes into memory from loop_alloc, with a zero behind it; to
 * be freed with loop_alloc(NULL, *out, 0). 0; E_NOT_FOUND, E_DENIED, E_TOO_LARGE, E_IO,
 * E_NO_MEMORY. */
MUST_USE int file_read_whole(const char *path, size_t max, char **out, size_t *out_bytes);

/* Writes `bytes` to path.tmp with `mode`, syncs, renames over `path`, syncs the directory (DSK-2).
 * 0; E_NO_SPACE, E_DENIED, E_IO. */
MUST_USE int file_write_atomic(const char *path, unsigned mode, const void *bytes,
                               size_t byte_count);

#endif
