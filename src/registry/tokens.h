/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bearer tokens that the node got with a login of its own, one for each (realm, service, scope,
 * credential). Kept in memory only, wiped when replaced; a refusal is remembered for a few seconds,
 * so that a wrong password is not tried with every request. Bounded: the longest unused one makes
 * room.
 */
#ifndef SHOAL_REGISTRY_TOKENS_H
#define SHOAL_REGISTRY_TOKENS_H

#include "env.h"
#include "err.h"

#define TOKENS_MAX            256
#define TOKEN_BYTES_MAX       (16 * 1024)
#define TOKEN_REPLY_BYTES_MAX (64 * 1024) /* ORG-7 */
#define TOKEN_LIFE_MIN_S      10
#define TOKEN_LIFE_MAX_S      (24 * 3600)
/* Of a reply that names no life (distribution's token specification). */
#define TOKEN_LIFE_DEFAULT_S 60
/* O-2: nothing is negatively cached for longer. */
#define TOKEN_REFUSED_US (5ull * 1000 * 1000)

enum token_state {
    TOKEN_NONE = 1, /* unknown, or too close to its end for a request on its way */
    TOKEN_GOOD,
    TOKEN_AGING,   /* good, but a new one should be asked for meanwhile */
    TOKEN_REFUSED, /* it was not given a moment ago */
};

struct tokens;
/* 0, E_NO_MEMORY. */
MUST_USE int tokens_new(const struct env *env, struct tokens **out);
void tokens_free(struct tokens *tokens); /* wipes; NULL is fine */
/* For TOKEN_GOOD and TOKEN_AGING *value is borrowed until the next put or drop. */
enum token_state tokens_get(struct tokens *tokens, uint64_t now_us, const uint8_t key[32],
                            const char **value);
/* Copies a token that lives for `life_s` from now, as its service says (0: it says nothing).
 * Without memory it is not kept. */
void tokens_put(struct tokens *tokens, uint64_t now_us, const uint8_t key[32], const char *value,
                uint64_t life_s);
/* The service gave none. */
void tokens_refuse(struct tokens *tokens, uint64_t now_us, const uint8_t key[32]);
/* The registry did not take it. */
void tokens_drop(struct tokens *tokens, const uint8_t key[32]);

/* Reads a token service's reply (ORG-7: at most 64 KiB): the token, copied to `out` of
 * TOKEN_BYTES_MAX + 1 bytes, and its life, 0 if it names none. 0, E_MALFORMED (also a token that
 * cannot stand in a header), E_TOO_LARGE. */
MUST_USE int token_reply_parse(const char *json, size_t json_bytes, char *out, uint64_t *life_s);

#endif
