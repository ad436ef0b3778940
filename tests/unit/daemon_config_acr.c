/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parameters of the ACR component (ACR.md §8) by its own names: each means something, is said
 * to mean nothing, or contradicts another and stops the start with one line.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "daemon_scratch.h"
#include "../../src/daemon/config.h"

#define GIB (1ULL << 30)

static struct config config;
static struct config_error error;
static char notes[2048];

static int load(const char *yaml, const char *set)
{
    struct config_options options = {.file = scratch_file("shoal.yaml", yaml, 0600)};
    if (set != NULL)
        options.sets[options.set_count++] = set;
    return config_load(&options, &config, &error);
}

static void take(const char *yaml)
{
    int err = load(yaml, NULL);
    assert_string_equal(error.text, "");
    assert_int_equal(err, 0);
    assert_int_equal(config_verify(&config, &error), 0);
}

/* A bad value is told of with its place. */
static void expect_error(const char *yaml, const char *message)
{
    char expected[CONFIG_ERROR_BYTES];
    assert_int_equal(load(yaml, NULL), E_CONFIG);
    (void)snprintf(expected, sizeof expected, "%s:%s", scratch_path("shoal.yaml"), message);
    assert_string_equal(error.text, expected);
}

/* Values that do not go together have no one place. */
static void expect_clash(const char *yaml, const char *message)
{
    assert_int_equal(load(yaml, NULL), E_CONFIG);
    assert_string_equal(error.text, message);
}

static void note(void *arg, bool warning, const char *line)
{
    size_t used = strlen(notes);
    assert_ptr_equal(arg, notes);
    (void)snprintf(notes + used, sizeof notes - used, "%s%s\n", warning ? "W " : "I ", line);
}

static const char *noted(void)
{
    notes[0] = '\0';
    config_notes(&config, note, notes);
    return notes;
}

/* The component's documented defaults, nested as its users write them. */
static void documented_defaults_are_taken_as_they_are(void **state)
{
    (void)state;
    static const char common[] =
        "region: \"\"\nvpcId: \"\"\nacrInstances: \"cri-a1\"\n"
        "rrsa: {enable: false, rrsaRoleARN: \"\", rrsaOIDCProviderRoleARN: \"\", assumeRoleARN: "
        "\"\", expireDuration: 3600}\n"
        "exporter: {enable: false, port: 65003}\nthrottleLimitMB: 512\naio: 0\n"
        "DeployConfig: {proxyFsParallels: 128}\n"
        "AgentConfig: {connectTimeout: 5, transferTimeout: 15}\n"
        "logDir: /dadi-p2p/log\nlogAudit: true\nlogAuditMode: file\nblocksize: 256\n";
    static const char *const modes[] = {
        "p2p: {port: 65001, v2: {p2pPort: 65002, proxyConcurrencyLimit: 128, cache: {mode: "
        "disk}}}\n"
        "capacity: 4294967296\noptionBlockSize: 67108864\nmemoryCacheCapacityGB: 1\n",
        "p2p: {port: 65001, v2: {p2pPort: 65002, proxyConcurrencyLimit: 128, cache: {mode: "
        "memory}}}\n"
        "capacity: 0\noptionBlockSize: 8589934592\nmemoryCacheCapacityGB: 8\n"};
    for (size_t i = 0; i < 2; i++) {
        char yaml[2048], text[PEER_ADDR_TEXT_BYTES];
        (void)snprintf(yaml, sizeof yaml, "%s%s", common, modes[i]);
        take(yaml);
        assert_int_equal(config.cache_mode, i == 0 ? CONFIG_CACHE_DISK : CONFIG_CACHE_MEMORY);
        assert_int_equal(config_cache_bytes(&config), (i == 0 ? 4 : 8) * GIB);
        assert_int_equal(config.cache_memory_bytes, i == 0 ? 64ULL << 20 : 8 * GIB);
        assert_int_equal(config.block_bytes, 256 << 10);
        assert_int_equal(config.parallel_requests, 128);
        assert_int_equal(config.connect_timeout_us, 5000000);
        assert_int_equal(config.transfer_timeout_us, 15000000);
        assert_int_equal(config.upload_mbit, 4096);
        assert_true(config.log_audit);
        assert_string_equal(peer_addr_text(&config.listen_admin, text), "127.0.0.1:65003");
        assert_string_equal(noted(),
                            i == 0 ? "I memoryCacheCapacityGB is ignored: cache.mode is disk\n"
                                     "I logDir and logAuditMode change nothing here: all "
                                     "lines go to stderr\n"
                                   : "I logDir and logAuditMode change nothing here: all "
                                     "lines go to stderr\n");
        config_close(&config);
    }
}

static void memory_has_one_size(void **state)
{
    (void)state;
    take("cache.mode: memory\nmemoryCacheCapacityGB: 3\n");
    assert_int_equal(config.cache_memory_bytes, 3 * GIB);
    assert_int_equal(config.sources[config_key_find("cache.memory")], CONFIG_FROM_FILE);
    config_close(&config);
    take("memoryCacheCapacityGB: 3\n"); /* disk mode */
    assert_int_equal(config.cache_memory_bytes, 64ULL << 20);
    config_close(&config);
    take("memoryCacheCapacityGB: 3\noptionBlockSize: 33554432\n");
    assert_int_equal(config.cache_memory_bytes, 32ULL << 20);
    config_close(&config);
    expect_clash("cache.mode: memory\nmemoryCacheCapacityGB: 3\noptionBlockSize: 4GiB\n",
                 "memoryCacheCapacityGB says 3GiB, optionBlockSize (cache.memory) 4GiB: in memory "
                 "mode both are the size of the cache, so set one of them");
    expect_error("memoryCacheCapacityGB: 0\n",
                 "1: memoryCacheCapacityGB: \"0\" is not allowed; allowed: 1GiB..4TiB");
    /* A later source is no contradiction: it wins. */
    assert_int_equal(load("cache.mode: memory\noptionBlockSize: 4GiB\n", "memoryCacheCapacityGB=2"),
                     0);
    assert_int_equal(config.cache_memory_bytes, 2 * GIB);
    config_close(&config);
    assert_int_equal(load("cache.mode: memory\nmemoryCacheCapacityGB: 2\n", "cache.memory=1GiB"),
                     0);
    assert_int_equal(config.cache_memory_bytes, GIB);
    config_close(&config);
}

static void what_changes_nothing_is_said(void **state)
{
    (void)state;
    take("");
    assert_string_equal(noted(), "");
    config_close(&config);
    take("cache: {mode: memory}\ncapacity: 64MiB\naio: 1\nlogDir: /x\n");
    assert_string_equal(noted(),
                        "W cache.capacity is ignored: cache.mode is memory, nothing is on disk\n"
                        "I aio changes nothing here: disk writes never hold up an answer\n"
                        "I logDir and logAuditMode change nothing here: all lines go to stderr\n");
    config_close(&config);
    take("cache: {mode: memory}\ncapacity: 0\n");
    assert_string_equal(noted(), "");
    config_close(&config);
    expect_error("logAuditMode: syslog\n",
                 "1: logAuditMode: \"syslog\" is not allowed; allowed: stdout | file");
}

static void limits_have_the_component_s_units(void **state)
{
    (void)state;
    take("throttleLimitMB: 10\np2p.v2.proxyConcurrencyLimit: 12\nDeployConfig.proxyFsParallels: "
         "40\n");
    assert_int_equal(config.upload_mbit, 80);
    assert_int_equal(config.parallel_requests, 12);
    assert_int_equal(config.lines[config_key_find("limits.parallelRequests")], 2);
    config_close(&config);
    take("p2p.v2.proxyConcurrencyLimit: 1000\n");
    assert_int_equal(config.parallel_requests, 128);
    config_close(&config);
    take("throttleLimitMB: 0\n");
    assert_int_equal(config.upload_mbit, 0);
    config_close(&config);
    expect_error("throttleLimitMB: 125001\n",
                 "1: throttleLimitMB: \"125001\" is not allowed; allowed: 0..125000");
    expect_error("p2p: {v2: {proxyConcurrencyLimit: 0}}\n",
                 "1: p2p.v2.proxyConcurrencyLimit: \"0\" is not allowed; allowed: 1..65536");
    expect_error("throttleLimitMB: 1\nlimits.uploadMbit: 8\n",
                 "2: limits.uploadMbit: set twice, first on line 1");
}

static void the_exporter_opens_the_admin_port(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *addr;
    } cases[] = {
        {"exporter: {enable: true}\n", "0.0.0.0:65003"},
        {"exporter: {enable: true, port: 9000}\n", "0.0.0.0:9000"},
        {"exporter: {enable: false, port: 9000}\n", "127.0.0.1:9000"},
        {"exporter.enable: true\nlisten.admin: 10.1.2.3:9\n", "10.1.2.3:9"},
        {"exporter.enable: false\nlisten.admin: \"[::1]:9\"\n", "[::1]:9"},
        {"listen.admin: 0.0.0.0:9\n", "0.0.0.0:9"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[PEER_ADDR_TEXT_BYTES];
        take(cases[i].yaml);
        assert_string_equal(peer_addr_text(&config.listen_admin, text), cases[i].addr);
        config_close(&config);
    }
    expect_clash("exporter.enable: true\nlisten.admin: 127.0.0.1:9\n",
                 "exporter.enable is true, but listen.admin is at loopback: set one of them");
    expect_clash("exporter.enable: false\nlisten.admin: 0.0.0.0:9\n",
                 "exporter.enable is false, but listen.admin is at an address that others reach: "
                 "set one of them");
}

/* `shoal config show` says what counts, in our names; loaded again it means the same. */
static void what_is_shown_means_the_same(void **state)
{
    (void)state;
    char *text = NULL, text_addr[PEER_ADDR_TEXT_BYTES];
    size_t bytes = 0;
    take("cache.mode: memory\nmemoryCacheCapacityGB: 3\nexporter.enable: true\nthrottleLimitMB: 2\n"
         "p2p.v2.proxyConcurrencyLimit: 7\nlogAudit: true\nAgentConfig.transferTimeout: 20\n");
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    config_show(&config, out);
    assert_int_equal(fclose(out), 0);
    config_close(&config);
    assert_null(strstr(text, "memoryCacheCapacityGB"));
    take(text);
    assert_int_equal(config.cache_memory_bytes, 3 * GIB);
    assert_int_equal(config.upload_mbit, 16);
    assert_int_equal(config.parallel_requests, 7);
    assert_int_equal(config.transfer_timeout_us, 20000000);
    assert_true(config.log_audit);
    assert_string_equal(peer_addr_text(&config.listen_admin, text_addr), "0.0.0.0:65003");
    config_close(&config);
    free(text);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(documented_defaults_are_taken_as_they_are),
        cmocka_unit_test(memory_has_one_size),
        cmocka_unit_test(what_changes_nothing_is_said),
        cmocka_unit_test(limits_have_the_component_s_units),
        cmocka_unit_test(the_exporter_opens_the_admin_port),
        cmocka_unit_test(what_is_shown_means_the_same),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
