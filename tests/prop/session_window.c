/* SPDX-License-Identifier: Apache-2.0 */
/* Replay window against a list of all counters ever accepted (DHT-3). SEED= replays. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "../../src/session/replay.h"
#include "bytes.h"

#define STEPS 4000

struct model {
    uint64_t accepted[STEPS];
    size_t count;
    uint64_t highest;
};

static bool model_fresh(const struct model *model, uint64_t counter)
{
    if (model->count > 0 && model->highest >= REPLAY_WINDOW &&
        counter <= model->highest - REPLAY_WINDOW)
        return false;
    for (size_t i = 0; i < model->count; i++) {
        if (model->accepted[i] == counter)
            return false;
    }
    return true;
}

static uint64_t pick(struct prng *prng, const struct model *model)
{
    uint64_t highest = model->highest;
    switch (prng_below(prng, 8)) {
    case 0: /* far ahead */
        return highest + prng_below(prng, 3000);
    case 1: /* the edge of the window */
        return highest + 3 - prng_below(prng, REPLAY_WINDOW + 6) % (highest + 3);
    case 2: /* a repetition */
        return model->count > 0 ? model->accepted[prng_below(prng, model->count)] : 0;
    case 3: /* old */
        return prng_below(prng, highest + 1);
    default: /* near the top, in some disorder */
        return highest + 4 - prng_below(prng, 70) % (highest + 4);
    }
}

static void run(uint64_t seed)
{
    static struct model model;
    struct replay_window window = {0};
    struct prng prng;
    prng_seed(&prng, (const uint8_t *)&seed, sizeof seed);
    model.count = 0;
    model.highest = 0;
    for (unsigned i = 0; i < STEPS; i++) {
        uint64_t counter = pick(&prng, &model);
        bool fresh = model_fresh(&model, counter);
        assert_int_equal(replay__fresh(&window, counter), fresh);
        if (!fresh || prng_below(&prng, 10) == 0) /* not authentic: nothing moves */
            continue;
        replay__mark(&window, counter);
        model.accepted[model.count++] = counter;
        if (counter > model.highest)
            model.highest = counter;
    }
    assert_true(model.count > STEPS / 4);
}

static void test_dht3_window_agrees_with_a_list(void **state)
{
    (void)state;
    const char *text = getenv("SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : 1;
    for (unsigned i = 0; i < (text != NULL ? 1 : 40); i++) {
        printf("seed: %llu\n", (unsigned long long)(seed + i));
        run(seed + i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_dht3_window_agrees_with_a_list)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
