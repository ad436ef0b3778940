/* SPDX-License-Identifier: Apache-2.0 */
/* Loads configurations for tests, and expects exact messages. */
#ifndef SHOAL_TESTS_DAEMON_CONFIG_LOAD_H
#define SHOAL_TESTS_DAEMON_CONFIG_LOAD_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "daemon_scratch.h"
#include "../../src/daemon/config.h"

static struct config config;
static struct config_error error;

static inline int load_env(const char *yaml, const char *set, char *const *environment)
{
    struct config_options options = {.environment = environment};
    options.file = scratch_file("shoal.yaml", yaml != NULL ? yaml : "", 0600);
    if (set != NULL)
        options.sets[options.set_count++] = set;
    return config_load(&options, &config, &error);
}

static inline int load(const char *yaml)
{
    return load_env(yaml, NULL, NULL);
}

/* Loads and expects "<file>:" + message. */
static inline void expect_file_error(const char *yaml, const char *message)
{
    char expected[CONFIG_ERROR_BYTES];
    assert_int_equal(load(yaml), E_CONFIG);
    (void)snprintf(expected, sizeof expected, "%s:%s", scratch_path("shoal.yaml"), message);
    assert_string_equal(error.text, expected);
}

static inline void expect_set_error(const char *set, const char *message)
{
    assert_int_equal(load_env(NULL, set, NULL), E_CONFIG);
    assert_string_equal(error.text, message);
}

#endif
