/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of the configuration that change while the agent runs (HRD-7, PEER-8), and no others. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "daemon_scratch.h"
#include "../../src/daemon/config.h"

static struct config config;
static struct config_error error;

static int load(const char *yaml)
{
    struct config_options options = {.file = scratch_file("shoal.yaml", yaml, 0600)};
    return config_load(&options, &config, &error);
}

static void only_live_keys_change_while_running(void **state) /* HRD-7 */
{
    (void)state;
    static struct config fresh;
    assert_int_equal(load("mode: passthrough\nlog.level: debug\nclusterId: other\n"), 0);
    fresh = config;
    assert_int_equal(load(""), 0);
    assert_true(config_apply_live(&config, &fresh));
    assert_int_equal(config.mode, CONFIG_MODE_PASSTHROUGH);
    assert_int_equal(config.log_level, LOG_DEBUG);
    assert_string_equal(config.cluster_id.text, "shoal");
    assert_false(config_apply_live(&config, &fresh));
    config_close(&fresh);
    config_close(&config);
}

/* A rotation: second, switched, alone (PEER-8). */
static void secrets_change_while_running(void **state)
{
    (void)state;
    static const char *const lists[] = {"[/a, /b]", "[/b, /a]", "[/b]"};
    static struct config running;
    char line[64];
    assert_int_equal(load("clusterSecretFile: [/a]"), 0);
    running = config;
    for (unsigned i = 0; i < 3; i++) {
        (void)snprintf(line, sizeof line, "clusterSecretFile: %s\n", lists[i]);
        assert_int_equal(load(line), 0);
        assert_true(config_apply_live(&running, &config));
        assert_false(config_apply_live(&running, &config));
        assert_int_equal(running.secret_file_count, config.secret_file_count);
        assert_string_equal(running.secret_files[0].text, config.secret_files[0].text);
        config_close(&config);
    }
    assert_int_equal(load("clusterId: other\n"), 0); /* a node's own secret is not chosen live */
    assert_false(config_apply_live(&running, &config));
    assert_int_equal(running.secret_file_count, 1);
    assert_string_equal(running.secret_files[0].text, "/b");
    config_close(&config);
    config_close(&running);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_live_keys_change_while_running),
        cmocka_unit_test(secrets_change_while_running),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
