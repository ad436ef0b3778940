/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether an attempt is made again, and when. One place, with a cap, jitter and a budget:
 *
 *   - a repeat without progress: at most three tries within eight seconds (O-5), exponential
 * backoff with full jitter, after a 429 with half, or the registry's Retry-After (O-4), each paid
 * from the registry's bucket, which earns a tenth of a retry per request (RES-5);
 *   - a resume after progress (O-6) asks for no byte twice, so it is free, but counted;
 *   - a redirect target that no longer works is resolved anew, once (O-9).
 */
#include "origin.h"

#include <string.h>

#include "digest.h"
#include "log.h"

static struct origin_bucket *bucket_of(struct origin *origin, const char *registry_name)
{
    struct origin_bucket *place = &origin->buckets[0];
    uint8_t name_hash[32];

    sha256_of(registry_name, strlen(registry_name), name_hash);
    for (size_t i = 0; i < ORIGIN_BUCKETS_MAX; i++) {
        struct origin_bucket *bucket = &origin->buckets[i];

        if (bucket->used_seq != 0 && memcmp(bucket->name_hash, name_hash, 32) == 0) {
            bucket->used_seq = ++origin->bucket_seq;
            return bucket;
        }
        if (bucket->used_seq < place->used_seq)
            place = bucket;
    }
    /* Full only if the configuration changed names while running: the longest unused one goes. */
    memcpy(place->name_hash, name_hash, 32);
    place->used_seq = ++origin->bucket_seq;
    place->tokens = place->credit_used = 0;
    return place;
}

void origin__bucket_earn(struct origin *origin, const char *registry_name)
{
    struct origin_bucket *bucket = bucket_of(origin, registry_name);

    if (bucket->tokens < ORIGIN_TOKENS_MAX)
        bucket->tokens++;
}

bool origin__bucket_pay(struct origin *origin, const char *registry_name)
{
    struct origin_bucket *bucket = bucket_of(origin, registry_name);

    if (bucket->tokens >= ORIGIN_RETRY_COST) {
        bucket->tokens -= ORIGIN_RETRY_COST;
        return true;
    }
    unsigned missing = ORIGIN_RETRY_COST - bucket->tokens;
    unsigned credit = ORIGIN_TOKENS_FIRST / origin->sharers;
    if (bucket->credit_used + missing > credit) {
        origin->counters.retries_refused++;
        return false;
    }
    bucket->credit_used += missing;
    bucket->tokens = 0;
    return true;
}

void origin_set_sharers(struct origin *origin, size_t nodes)
{
    origin->sharers = nodes == 0                    ? 1
                      : nodes > ORIGIN_TOKENS_FIRST ? ORIGIN_TOKENS_FIRST
                                                    : (unsigned)nodes;
}

bool origin_pay_repeat(struct origin *origin, const struct registry_entry *registry)
{
    bool paid = origin__bucket_pay(origin, registry->name);

    origin->counters.retries += paid;
    return paid;
}

bool origin__status_passing(int status)
{
    return status == 429 || status == 500 || status == 502 || status == 503 || status == 504;
}

/* `digits` decimal digits at `text`, or -1. */
static int digits_parse(const char *text, int digits)
{
    int value = 0;

    for (int i = 0; i < digits; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        value = value * 10 + (text[i] - '0');
    }
    return value;
}

static int month_parse(const char *text)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

    for (int i = 0; i < 12; i++)
        if (memcmp(months + (size_t)i * 3, text, 3) == 0)
            return i + 1;
    return -1;
}

/* Days from 1970-01-01 to a date of the Gregorian calendar from then on. */
static uint64_t days_from(int year, int month, int day)
{
    static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    int y = year - 1; /* whole years past */
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    int leaps = (y / 4 - y / 100 + y / 400) - (1969 / 4 - 1969 / 100 + 1969 / 400);
    int days = (year - 1970) * 365 + leaps + before[month - 1] + day - 1;

    if (leap && month > 2)
        days++;
    return (uint64_t)days;
}

bool origin__http_date(const char *text, uint64_t *out_s)
{
    int year, month, day, hour, minute, second;

    if (strlen(text) != 29 || memcmp(text + 3, ", ", 2) != 0 || text[7] != ' ' || text[11] != ' ' ||
        text[16] != ' ' || text[19] != ':' || text[22] != ':' || memcmp(text + 25, " GMT", 4) != 0)
        return false;
    day = digits_parse(text + 5, 2);
    month = month_parse(text + 8);
    year = digits_parse(text + 12, 4);
    hour = digits_parse(text + 17, 2);
    minute = digits_parse(text + 20, 2);
    second = digits_parse(text + 23, 2);
    if (day < 1 || day > 31 || month < 1 || year < 1970 || hour < 0 || hour > 23 || minute < 0 ||
        minute > 59 || second < 0 || second > 60)
        return false;
    *out_s = days_from(year, month, day) * 86400 + (uint64_t)hour * 3600 + (uint64_t)minute * 60 +
             (uint64_t)second;
    return true;
}

uint32_t origin__retry_after_ms(const struct fetch_response *response)
{
    const char *text = fetch_response_header(response, "retry-after");
    const char *date = fetch_response_header(response, "date");
    size_t digits = text == NULL ? 0 : strspn(text, "0123456789");
    uint64_t wait_s = 0, then_s, now_s;

    if (text == NULL)
        return 0;
    if (digits > 0 && text[digits] == '\0') {
        if (digits > 5)
            return ORIGIN_RETRY_CAP_MS;
        wait_s = (uint64_t)digits_parse(text, (int)digits);
    } else if (date != NULL && origin__http_date(text, &then_s) &&
               origin__http_date(date, &now_s) && then_s > now_s) {
        wait_s = then_s - now_s;
    }
    return wait_s >= ORIGIN_RETRY_CAP_MS / 1000 ? ORIGIN_RETRY_CAP_MS : (uint32_t)(wait_s * 1000);
}

static uint64_t jitter(struct origin *origin, uint64_t up_to_us)
{
    return prng_below(&origin->prng, up_to_us + 1);
}

/* Errors that another attempt may cure. */
static bool err_passing(int err)
{
    return err == E_UNREACHABLE || err == E_TIMEOUT || err == E_CLOSED || err == E_RANGE;
}

void origin__budget_set(struct origin_fetch *fetch, uint64_t now_us, uint64_t delay_us)
{
    uint64_t end_us = fetch->window_start_us + fetch->window_us;
    uint64_t start_us = now_us + delay_us;

    fetch->budget_ms = start_us + 1000 < end_us ? (uint32_t)((end_us - start_us) / 1000) : 1;
}

/* A body was cut, but it had moved. */
static bool resume_decide(struct origin_fetch *fetch, uint64_t now_us, uint64_t *delay_us)
{
    if (fetch->resumes >= ORIGIN_RESUMES_MAX)
        return false;
    fetch->resumes++;
    fetch->tries = 1;
    fetch->window_start_us = now_us;
    fetch->origin->counters.resumes++;
    *delay_us = jitter(fetch->origin, ORIGIN_RESUME_GAP_US);
    return true;
}

static uint64_t backoff_us(struct origin_fetch *fetch)
{
    uint64_t asked_us = (uint64_t)fetch->retry_after_ms * 1000;

    if (fetch->answer_held && asked_us > 0)
        return asked_us + jitter(fetch->origin, asked_us / 10 + ORIGIN_RESUME_GAP_US);
    uint64_t most_us = ORIGIN_BACKOFF_US << (fetch->tries - 1);
    /* Who says that it is too busy, but not for how long, is not asked again at once. */
    uint64_t least_us = fetch->answer_held && fetch->last_status == 429 ? most_us / 2 : 0;
    return least_us + jitter(fetch->origin, most_us - least_us);
}

static bool repeat_decide(struct origin_fetch *fetch, uint64_t now_us, uint64_t *delay_us)
{
    struct origin *origin = fetch->origin;
    unsigned tries_max = fetch->err == E_RANGE ? 2 : ORIGIN_TRIES_MAX;

    if (fetch->tries >= tries_max || origin__trouble_over(fetch))
        return false;
    /* The runtime waits out a 429 by itself, and its retries know whether they still matter. */
    if (fetch->answer_held && fetch->last_status == 429 && fetch->request.kind != ORIGIN_BLOB)
        return false;
    *delay_us = backoff_us(fetch);
    if (now_us + *delay_us >= fetch->window_start_us + fetch->window_us)
        return false;
    if (!origin__bucket_pay(origin, fetch->registry_name))
        return false;
    fetch->tries++;
    origin->counters.retries++;
    return true;
}

/* A redirect target refused us: its signature may have ended (ACR §7, O-9). */
static bool anew_decide(struct origin_fetch *fetch, uint64_t *delay_us)
{
    if (fetch->resolved_anew || !origin__bucket_pay(fetch->origin, fetch->registry_name))
        return false;
    fetch->resolved_anew = true;
    fetch->origin->counters.retries++;
    *delay_us = 0;
    return true;
}

/* The host rests. Who has seen nothing yet can go elsewhere at once; a body that was begun waits
 * for the host as long as its window lasts. The rest may be over: a redirect is followed in the
 * engine's callback, without the time. */
static bool rest_decide(struct origin_fetch *fetch, uint64_t now_us, uint64_t *delay_us)
{
    bool over = fetch->rest_until_us <= now_us;

    *delay_us = jitter(fetch->origin, ORIGIN_RESUME_GAP_US);
    *delay_us += over ? 0 : fetch->rest_until_us - now_us;
    return (fetch->head_shown || over) &&
           now_us + *delay_us < fetch->window_start_us + fetch->window_us;
}

bool origin__retry_decide(struct origin_fetch *fetch, uint64_t now_us, uint64_t *delay_us)
{
    bool again;

    if (fetch->troubled) {
        fetch->err = E_ORIGIN; /* with the status of the tries before */
        return false;
    }
    if (fetch->remembered) {
        /* The registry was not asked in this attempt; now it is. */
        origin__target_drop(fetch);
        fetch->remembered = false;
        *delay_us = 0;
        again =
            fetch->received_bytes == fetch->attempt_start || resume_decide(fetch, now_us, delay_us);
    } else if (fetch->rest_until_us != 0) {
        again = rest_decide(fetch, now_us, delay_us);
    } else if (fetch->answer_held && fetch->away && fetch->last_status == 403 &&
               fetch->handed_url == NULL) {
        again = anew_decide(fetch, delay_us);
    } else if (fetch->answer_held ? !origin__status_passing(fetch->last_status)
                                  : !err_passing(fetch->err)) {
        again = false;
    } else if (fetch->received_bytes > fetch->attempt_start) {
        again = resume_decide(fetch, now_us, delay_us);
    } else {
        again = repeat_decide(fetch, now_us, delay_us);
    }
    if (again)
        origin__budget_set(fetch, now_us, *delay_us);
    return again;
}
