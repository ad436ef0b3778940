/* SPDX-License-Identifier: Apache-2.0 */
/* Grants against a slow, obvious model: an array in order of age (ACL-2, ACL-5, ACL-6). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../unit/registry_fake.h"

#define NAMES        8
#define STEPS        200000
#define ANONYMOUS_US (10ull * 60 * 1000 * 1000)

struct model {
    bool present;
    uint64_t agreed_us, expires_us;
};

static uint64_t seed;

static void random_operations(void **state)
{
    static struct fake fake;
    static struct model models[NAMES][NAMES][3];
    struct grants *grants;
    struct prng prng;
    uint64_t now_us = 0;

    (void)state;
    fake_init(&fake, seed);
    prng_seed(&prng, (const uint8_t *)&seed, sizeof seed);
    assert_int_equal(grants_new(&fake.env, GRANT_LIFE_US, &grants), 0);
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned r = (unsigned)prng_below(&prng, NAMES), p = (unsigned)prng_below(&prng, NAMES),
                 c = (unsigned)prng_below(&prng, 3);
        struct model *model = &models[r][p][c];
        char registry[16], repository[16];
        uint8_t who[32] = {(uint8_t)c};
        bool live = model->present && now_us < model->expires_us;
        uint64_t age = prng_below(&prng, 2 * GRANT_STALE_US);
        uint64_t bound = age < GRANT_STALE_US ? age : GRANT_STALE_US;

        (void)snprintf(registry, sizeof registry, "r%u", r);
        (void)snprintf(repository, sizeof repository, "p%u", p);
        assert_int_equal(grants_check(grants, now_us, registry, repository, who), live);
        assert_int_equal(grants_check_stale(grants, now_us, registry, repository, who, age),
                         live || (model->present && now_us - model->agreed_us < bound));
        switch (prng_below(&prng, 4)) {
        case 0:
            assert_int_equal(grants_put(grants, now_us, registry, repository, who), 0);
            *model = (struct model){true, now_us, now_us + GRANT_LIFE_US};
            break;
        case 1:
            grants_revoke(grants, registry, repository, who);
            model->present = false;
            break;
        case 2:
            grants_extend(grants, now_us, registry, repository, who);
            if (live)
                model->expires_us = now_us + GRANT_LIFE_US;
            if (c == 0 && model->expires_us > model->agreed_us + ANONYMOUS_US)
                model->expires_us = model->agreed_us + ANONYMOUS_US; /* ACL-5 */
            break;
        default:
            now_us += prng_below(&prng, 20ull * 1000 * 1000);
            break;
        }
    }
    grants_free(grants);
    assert_int_equal(fake.allocations, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_operations)};
    const char *text = getenv("SEED");

    seed = text != NULL ? strtoull(text, NULL, 10) : 11;
    printf("seed: %llu\n", (unsigned long long)seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
