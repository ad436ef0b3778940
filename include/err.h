/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one list of errors. Fallible functions return 0 or one of these, negative. The list makes
 * the enum and the text, so the two cannot part (STYLE "Errors").
 */
#ifndef SHOAL_ERR_H
#define SHOAL_ERR_H

/* name, value, text for people */
#define ERR_LIST(X)                                                                                \
    X(E_NO_MEMORY, -1, "out of memory")                                                            \
    X(E_INVALID, -2, "invalid argument")                                                           \
    X(E_MALFORMED, -3, "malformed input")                                                          \
    X(E_TOO_LARGE, -4, "over the limit")                                                           \
    X(E_TRUNCATED, -5, "input ends too early")                                                     \
    X(E_NOT_FOUND, -6, "not found")                                                                \
    X(E_EXISTS, -7, "already there")                                                               \
    X(E_FULL, -8, "no room left")                                                                  \
    X(E_AGAIN, -9, "not now, try again")                                                           \
    X(E_TIMEOUT, -10, "timed out")                                                                 \
    X(E_CANCELLED, -11, "cancelled")                                                               \
    X(E_CLOSED, -12, "closed")                                                                     \
    X(E_REFUSED, -13, "refused")                                                                   \
    X(E_UNREACHABLE, -14, "unreachable")                                                           \
    X(E_AUTH, -15, "not authenticated")                                                            \
    X(E_DENIED, -16, "permission denied")                                                          \
    X(E_REPLAY, -17, "replayed or too old")                                                        \
    X(E_VERSION, -18, "version not supported")                                                     \
    X(E_DIGEST, -19, "bytes do not match the digest")                                              \
    X(E_VOUCHER, -20, "piece is not vouched for")                                                  \
    X(E_IO, -21, "input/output error")                                                             \
    X(E_NO_SPACE, -22, "no space on the device")                                                   \
    X(E_CORRUPT, -23, "stored data is damaged")                                                    \
    X(E_PROTOCOL, -24, "protocol violation")                                                       \
    X(E_ORIGIN, -25, "the registry answered with an error")                                        \
    X(E_RANGE, -26, "range not satisfiable")                                                       \
    X(E_UNSUPPORTED, -27, "not supported")                                                         \
    X(E_CONFIG, -28, "bad configuration")                                                          \
    X(E_IN_USE, -29, "already in use")                                                             \
    X(E_TLS, -30, "TLS verification failed")                                                       \
    X(E_INTERNAL, -31, "internal error")

enum err {
#define ERR_ENUM(name, value, text) name = (value),
    ERR_LIST(ERR_ENUM)
#undef ERR_ENUM
};

/* Every `int` result carries this: a caller that drops an error must say so with (void). */
#define MUST_USE __attribute__((warn_unused_result))

/* Text of an error for people; static storage, never NULL. 0 is "ok"; an unknown code "unknown
 * error". */
const char *err_text(int err);

/* Short stable name ("E_TIMEOUT") for logs, metrics and JSON; static storage, never NULL. */
const char *err_name(int err);

#endif
