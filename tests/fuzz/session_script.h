/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz input read as a script: numbers and byte strings, zeros when it is used up. */
#ifndef SHOAL_TESTS_SESSION_SCRIPT_H
#define SHOAL_TESTS_SESSION_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct script {
    const uint8_t *data;
    size_t left;
};

static inline bool script_more(const struct script *script)
{
    return script->left > 0;
}

static inline uint8_t script_byte(struct script *script)
{
    if (script->left == 0)
        return 0;
    script->left--;
    return *script->data++;
}

static inline unsigned script_number(struct script *script)
{
    unsigned high = script_byte(script);
    return high << 8 | script_byte(script);
}

/* Up to `most` of the bytes that follow, as many as a number in the script says. */
static inline size_t script_bytes(struct script *script, uint8_t *out, size_t most)
{
    size_t wanted = script_number(script);
    if (wanted > most)
        wanted = most;
    if (wanted > script->left)
        wanted = script->left;
    if (wanted > 0)
        memcpy(out, script->data, wanted);
    script->data += wanted;
    script->left -= wanted;
    return wanted;
}

#endif
