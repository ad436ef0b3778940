/* SPDX-License-Identifier: Apache-2.0 */
/* Bounded text, percent-encoding and times of the cloud's APIs; see acr_text.h. */
#include "acr_text.h"

#include <string.h>
#include <time.h>

void acr__text_open(struct acr_text *text, char *buffer, size_t buffer_bytes)
{
    *text = (struct acr_text){.bytes = buffer, .room = buffer_bytes};
    buffer[0] = '\0';
}

static void put_n(struct acr_text *text, const char *part, size_t part_bytes)
{
    if (part_bytes >= text->room - text->used) {
        text->cut = true;
        return;
    }
    memcpy(text->bytes + text->used, part, part_bytes);
    text->used += part_bytes;
    text->bytes[text->used] = '\0';
}

void acr__text_put(struct acr_text *text, const char *part)
{
    put_n(text, part, strlen(part));
}

static bool unreserved(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == '~';
}

void acr__text_encode(struct acr_text *text, const char *part)
{
    static const char digits[] = "0123456789ABCDEF";

    for (; *part != '\0'; part++) {
        unsigned char byte = (unsigned char)*part;
        char coded[3] = {'%', digits[byte >> 4], digits[byte & 15]};

        if (unreserved(*part))
            put_n(text, part, 1);
        else
            put_n(text, coded, sizeof coded);
    }
}

int acr__text_check(const struct acr_text *text)
{
    return text->cut ? E_TOO_LARGE : 0;
}

void acr__date_put(uint64_t wall_s, char out[ACR_DATE_BYTES])
{
    time_t seconds = wall_s > INT32_MAX * UINT64_C(100) ? 0 : (time_t)wall_s;
    struct tm parts;

    if (gmtime_r(&seconds, &parts) == NULL)
        memset(&parts, 0, sizeof parts);
    if (strftime(out, ACR_DATE_BYTES, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0)
        memcpy(out, "1970-01-01T00:00:00Z", ACR_DATE_BYTES);
}

int acr__date_parse(const char *text, uint64_t *out_s)
{
    struct tm parts = {.tm_isdst = 0};
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &parts);
    time_t seconds;

    if (strlen(text) != ACR_DATE_BYTES - 1 || end == NULL || *end != '\0')
        return E_MALFORMED;
    seconds = timegm(&parts);
    if (seconds < 0)
        return E_MALFORMED;
    *out_s = (uint64_t)seconds;
    return 0;
}
