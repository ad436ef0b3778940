/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens in memory; see tokens.h. Linear search: a node pulls from few repositories at a time. */
#include "tokens.h"

#include <string.h>

#include "bytes.h"
#include "json_bounded.h"
#include "log.h"

#define SECOND_US 1000000ull
/* A request takes a moment to arrive. */
#define MARGIN_MAX_S 10

struct token {
    uint8_t key[32];
    char *value; /* owned, wiped; NULL: refused */
    uint64_t aging_us, ends_us;
    uint64_t used_seq; /* 0: free */
};

struct tokens {
    struct env env;
    uint64_t seq;
    struct token all[TOKENS_MAX];
};

int tokens_new(const struct env *env, struct tokens **out)
{
    struct tokens *tokens = env->alloc(env->host, NULL, sizeof *tokens);

    if (tokens == NULL)
        return E_NO_MEMORY;
    json__wipe_freed();
    memset(tokens, 0, sizeof *tokens);
    tokens->env = *env;
    *out = tokens;
    return 0;
}

static void token_clear(struct tokens *tokens, struct token *token)
{
    if (token->value != NULL) {
        explicit_bzero(token->value, strlen(token->value));
        (void)tokens->env.alloc(tokens->env.host, token->value, 0);
    }
    *token = (struct token){0};
}

void tokens_free(struct tokens *tokens)
{
    struct env env;

    if (tokens == NULL)
        return;
    env = tokens->env;
    for (size_t i = 0; i < TOKENS_MAX; i++)
        token_clear(tokens, &tokens->all[i]);
    (void)env.alloc(env.host, tokens, 0);
}

static struct token *token_find(struct tokens *tokens, const uint8_t key[32])
{
    for (size_t i = 0; i < TOKENS_MAX; i++)
        if (tokens->all[i].used_seq != 0 && memcmp(tokens->all[i].key, key, 32) == 0)
            return &tokens->all[i];
    return NULL;
}

enum token_state tokens_get(struct tokens *tokens, uint64_t now_us, const uint8_t key[32],
                            const char **value)
{
    struct token *token = token_find(tokens, key);

    if (token == NULL || now_us >= token->ends_us)
        return TOKEN_NONE;
    token->used_seq = ++tokens->seq;
    if (token->value == NULL)
        return TOKEN_REFUSED;
    *value = token->value;
    return now_us < token->aging_us ? TOKEN_GOOD : TOKEN_AGING;
}

/* An emptied place under this key. */
static struct token *place_for(struct tokens *tokens, const uint8_t key[32])
{
    struct token *place = token_find(tokens, key);

    for (size_t i = 0; i < TOKENS_MAX && place == NULL; i++)
        if (tokens->all[i].used_seq == 0)
            place = &tokens->all[i];
    if (place == NULL) {
        place = &tokens->all[0];
        for (size_t i = 1; i < TOKENS_MAX; i++)
            if (tokens->all[i].used_seq < place->used_seq)
                place = &tokens->all[i];
    }
    token_clear(tokens, place);
    memcpy(place->key, key, sizeof place->key);
    place->used_seq = ++tokens->seq;
    return place;
}

void tokens_put(struct tokens *tokens, uint64_t now_us, const uint8_t key[32], const char *value,
                uint64_t life_s)
{
    struct token *token = place_for(tokens, key);
    size_t bytes = strlen(value) + 1;
    uint64_t margin_s;

    if (life_s == 0)
        life_s = TOKEN_LIFE_DEFAULT_S;
    if (life_s < TOKEN_LIFE_MIN_S)
        life_s = TOKEN_LIFE_MIN_S;
    if (life_s > TOKEN_LIFE_MAX_S)
        life_s = TOKEN_LIFE_MAX_S;
    margin_s = life_s / 10 < MARGIN_MAX_S ? life_s / 10 : MARGIN_MAX_S;
    token->value = tokens->env.alloc(tokens->env.host, NULL, bytes);
    if (token->value == NULL) {
        token_clear(tokens, token);
        return;
    }
    memcpy(token->value, value, bytes);
    token->aging_us = now_us + life_s * SECOND_US * 3 / 4;
    token->ends_us = now_us + (life_s - margin_s) * SECOND_US;
}

void tokens_refuse(struct tokens *tokens, uint64_t now_us, const uint8_t key[32])
{
    struct token *token = token_find(tokens, key);

    /* A refresh that failed takes nothing from a token that still lives. */
    if (token != NULL && token->value != NULL && now_us < token->ends_us)
        return;
    token = place_for(tokens, key);
    token->ends_us = now_us + TOKEN_REFUSED_US;
}

void tokens_drop(struct tokens *tokens, const uint8_t key[32])
{
    struct token *token = token_find(tokens, key);

    if (token != NULL)
        token_clear(tokens, token);
}

/* Visible ASCII (RFC 6750 §2.1 allows less). */
static bool token_valid(const char *text)
{
    if (text == NULL || text[0] == '\0')
        return false;
    for (; *text != '\0'; text++)
        if ((unsigned char)*text <= 0x20 || (unsigned char)*text >= 0x7f)
            return false;
    return true;
}

int token_reply_parse(const char *json, size_t json_bytes, char *out, uint64_t *life_s)
{
    json_t *root = NULL;
    const json_t *life;
    const char *text;
    int err = json__load(json, json_bytes, TOKEN_REPLY_BYTES_MAX, &root);

    if (err != 0)
        return err;
    text = json_string_value(json_object_get(root, "token"));
    if (text == NULL)
        text = json_string_value(json_object_get(root, "access_token"));
    err = token_valid(text) ? text_copy(out, TOKEN_BYTES_MAX + 1, text) : E_MALFORMED;
    life = json_object_get(root, "expires_in");
    if (err == 0)
        *life_s = json_integer_value(life) > 0 ? (uint64_t)json_integer_value(life) : 0;
    json_decref(root);
    return err;
}
